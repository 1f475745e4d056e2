"""A house whose relay commands are carried out: the real control code over a real database, a made meter, and
frames as they are sent, with a password in them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from gateway.clock import to_device
from gateway.command import Action
from gateway.control import evidence
from gateway.control.course import Course
from gateway.control.policy import Rules
from gateway.door import Accepted, Answer, Prepared, Trouble
from gateway.metrics import Metrics
from gateway.session.relay import VERBS
from gateway.session.relay_words import shown
from gateway.storage import chain
from gateway.storage.commands import Commands
from gateway.storage.database import Database
from protocols.dlt645 import control, frame
from protocols.dlt645.control_messages import RelayCommand
from protocols.dlt645.fields import Authority
from protocols.permit import Permit
from tests.gateway.api import house as houses
from tests.gateway.api.house import HandClock, House
from tests.gateway.control.bench import BenchDoor, BenchDoors, Relay

ADDRESS = "000000000001"
PASSWORD = "246813"
ACCEPTED = "68 01 00 00 00 00 00 68 9C 00 6D 16"


class Ticking:
    """The house's clock, which each look moves by a millisecond: nothing happens at one instant."""

    speed = 1.0

    def __init__(self, clock: HandClock) -> None:
        self._clock = clock

    @property
    def shown(self) -> datetime:
        return self._clock.shown

    def now(self) -> datetime:
        self._clock.passes(0.001)
        return self._clock.shown

    def monotonic(self) -> float:
        return self._clock.shown.timestamp()

    async def sleep(self, seconds: float) -> None:
        await self._clock.sleep(seconds)


class WiredDoor(BenchDoor):
    """The bench's door, with frames as they are sent."""

    async def prepare(self, action: Action, deadline: datetime) -> Prepared | Trouble:
        if self.security is not None:
            return self.security
        self.prepared += 1
        command = RelayCommand(
            ADDRESS,
            VERBS[action],
            Authority("02", PASSWORD, f"{self.prepared:08d}"),
            to_device(deadline).replace(microsecond=0),
        )
        permit = Permit(control.action(VERBS[action]), ADDRESS, "test")
        raw = frame.build(control.build_control(command, permit))
        sha256 = hashlib.sha256(raw).digest()
        self._deadlines[sha256] = action, deadline
        return Prepared(raw, sha256, shown(raw), deadline)

    async def _answer(self, action: Action, deadline: datetime) -> Answer:
        answer = await super()._answer(action, deadline)
        return replace(answer, frame=ACCEPTED) if isinstance(answer, Accepted) else answer


@dataclass
class Switching:
    """All of it."""

    house: House
    metrics: Metrics
    relay: Relay
    door: WiredDoor
    store: Commands
    course: Course
    terminal: int

    async def work(self) -> bool:
        """Do one thing that is due at the terminal of E1; whether there was any."""
        due = await self.store.due({self.terminal}, self.house.clock.now(), 1)
        if due:
            await self.course.work(due[0])
        return bool(due)

    async def seal(self) -> chain.Seal | None:
        return await chain.seal_some(self.house.database, self.house.clock.now())

    async def done(self, key: str, **other: object) -> str:
        """A command for E1, asked for and carried out; its number."""
        http = await self.house.client("billing")
        asked = await houses.asked(http, key, **other)
        while await self.work():
            pass
        return str(asked["id"])

    async def evidence(self, command: str) -> bytes:
        http = await self.house.client("billing")
        answer = await http.get(f"/api/v1/relay-commands/{command}/evidence")
        assert answer.status_code == 200, answer.text
        return answer.content


@asynccontextmanager
async def switching(database: Database, folder: Path) -> AsyncIterator[Switching]:
    """Terminal of E1 logged in, both organisations out of shadow mode."""
    async with houses.made(database, folder) as house:
        await house.live()
        ((terminal,),) = await house.rows("SELECT terminal_id FROM terminal WHERE address = '02000001'")
        await house.rows(
            "INSERT INTO terminal_session (terminal_id, worker, generation, peer, since, last_frame)"
            " VALUES (%s, 'w1', 1, 'test', %s, %s)",
            terminal,
            house.clock.now(),
            house.clock.now(),
        )
        ticking: Any = Ticking(house.clock)
        metrics = Metrics()
        store = Commands(database, ticking, happened=metrics.relay_happened)
        house.parts = replace(house.parts, relay=houses.control(database, ticking, Rules()))
        relay = Relay(ticking)
        door = WiredDoor(relay, ticking)
        doors = BenchDoors(door)
        course = Course(
            store,
            doors,
            ticking,
            Rules,
            written=lambda command: metrics.relay_frame(command, ticking.now()),
        )
        yield Switching(house, metrics, relay, door, store, course, terminal)


def parsed(raw: bytes) -> dict[str, Any]:
    made: dict[str, Any] = json.loads(raw)
    return made


def resealed(made: dict[str, Any]) -> bytes:
    """The file of somebody who knows how its digest is made."""
    return evidence.spelled(made | {"sha256": evidence.digest(made)})
