"""The terminals' connections in simulated time, and what left through them: each control frame with all that
was known at that moment."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from gateway.command import Action, Command, MeterFacts, RelayStatus, Why
from gateway.door import Answer, NotWritten, Prepared, Record, Trouble
from gateway.model import TerminalAssets
from tests.simulation.meter_side import Frame
from tests.simulation.process import outside

if TYPE_CHECKING:
    from tests.simulation.world import World

LINGERS = timedelta(seconds=30)
"""A connection that was taken over may still carry something for so long."""


@dataclass
class Written:
    """A control frame that left a gateway.

    command: as its row stood at that moment; None: no row had the frame's hash. claimed_at: the time of the
    last event of that row. in_events: some event tells of the hash. in_journal: it was durable in that
    gateway's journal. desk: when the meter's desk was last somebody's. switched_at: when a person last
    switched anything. era: restores of the database before it.
    """

    at: datetime
    worker: str
    frame: Frame
    command: Command | None
    claimed_at: datetime | None
    in_events: bool
    in_journal: bool
    facts: MeterFacts
    contested: bool
    identified: bool
    clock_read: bool
    offset: float
    clock_trusted: bool
    desk: datetime | None
    switched_at: datetime | None
    era: int


@dataclass
class Login:
    """One connection of a terminal; satisfies `control.journal.Login`. ends: when it is gone for good."""

    worker: str
    generation: int
    assets: TerminalAssets
    contested: bool = False
    ends: datetime | None = None
    channel: asyncio.Lock = field(default_factory=asyncio.Lock)
    identified: set[int] = field(default_factory=set)
    clocks_read: set[int] = field(default_factory=set)

    @property
    def alive(self) -> bool:
        return self.ends is None


class WorldDoors:
    """Satisfies `gateway.door.Doors`, and `control.journal.Known`, for one gateway."""

    def __init__(self, world: World, worker: str) -> None:
        self._world = world
        self._worker = worker

    def here(self) -> frozenset[int]:
        logins = self._world.logins
        return frozenset(terminal for terminal in logins if self._login(terminal) is not None)

    def sessions(self) -> Iterable[Login]:
        logins = (self._login(terminal) for terminal in self._world.logins)
        return [login for login in logins if login is not None]

    def _login(self, terminal_id: int) -> Login | None:
        """This gateway's newest connection of it; one that another has taken over lingers."""
        for login in reversed(self._world.logins[terminal_id]):
            if login.worker == self._worker:
                return login if self._world.carries(login) else None
        return None

    @asynccontextmanager
    async def open(self, facts: MeterFacts) -> AsyncIterator[WorldDoor | None]:
        login = self._login(facts.terminal_id)
        if login is None:
            yield None
            return
        async with login.channel:
            yield WorldDoor(self._world, facts, login)


class WorldDoor:
    """Satisfies `gateway.door.Door`."""

    def __init__(self, world: World, facts: MeterFacts, login: Login) -> None:
        self._world = world
        self._facts = facts
        self._login = login
        self._meter = world.meters[facts.meter_id]
        self._network = world.networks[facts.terminal_id]
        self._frames: dict[bytes, Frame] = {}

    @property
    def worker(self) -> str:
        return self._login.worker

    @property
    def generation(self) -> int:
        return self._login.generation

    @property
    def contested(self) -> bool:
        return self._login.contested

    def _gone(self) -> bool:
        return not self._world.carries(self._login)

    async def identify(self) -> Trouble | None:
        if self._gone():
            return Trouble(Why.TERMINAL_ABSENT)
        if self._meter.meter_id in self._world.strangers:
            self._world.count("another meter at this point")
            return Trouble(Why.WRONG_METER, "000000000099")
        self._login.identified.add(self._meter.meter_id)
        return None

    async def clock_offset(self) -> float | Trouble:
        status = await self.status()
        if isinstance(status, Trouble):
            return status
        if self._world.chance.random() < self._world.clock_unreadable:
            self._world.count("meter clock unreadable")
            return Trouble(Why.METER_SILENT)
        self._login.clocks_read.add(self._meter.meter_id)
        return self._meter.offset

    async def status(self) -> RelayStatus | Trouble:
        if self._gone():
            return Trouble(Why.TERMINAL_ABSENT)
        status = await self._network.ask(self._meter)
        return Trouble(Why.TERMINAL_ABSENT) if self._gone() else status

    async def prepare(self, action: Action, deadline: datetime) -> Prepared | Trouble:
        world = self._world
        await asyncio.sleep(world.chance.uniform(0.0, 3.0))
        if world.chance.random() < world.security_fails:
            world.count("security module")
            return Trouble(Why.SECURITY_MODULE)
        text = f"{self._facts.meter_id} {action} {deadline} {world.chance.random()}".encode()
        frame = Frame(self._facts.meter_id, hashlib.sha256(text).digest(), action, deadline)
        self._frames[frame.sha256] = frame
        return Prepared(text, frame.sha256, text.decode(), deadline)

    async def write(
        self, prepared: Prepared, last_check: Callable[[], Trouble | None]
    ) -> Awaitable[Answer] | NotWritten:
        self._world.beside_write(self._login.worker)
        cuts = self._world.company.cuts
        await asyncio.sleep(self._world.chance.choice((0.0, 0.0, 0.5)))  # others' bytes leave before it
        if self._world.company.cuts != cuts:
            self._world.count("desk cut beside the write")
        trouble = last_check()
        if trouble is not None:
            self._world.count(f"stopped beside the write: {trouble.why}")
            return NotWritten(trouble)
        if self._gone():
            return NotWritten(Trouble(Why.TERMINAL_ABSENT))
        frame = self._frames[prepared.sha256]
        self._world.written.append(self._written(frame))
        carried = outside(self._network.carry(self._meter, frame))
        return asyncio.shield(carried)

    def _written(self, frame: Frame) -> Written:
        world, company = self._world, self._world.company
        rows = company.store.kept.rows.values()
        row = next((one for one in rows if one.command.frame_hash == frame.sha256), None)
        return Written(
            world.clock.now(),
            self._login.worker,
            frame,
            None if row is None else row.command,
            None if row is None else datetime.fromisoformat(row.events[-1][0]["at"]),
            any(told(body, frame.sha256.hex()) for one in rows for body, _ in one.events),
            frame.sha256.hex().encode() in world.workers[self._login.worker].folder.durable(),
            company.store.meters[frame.meter_id],
            self._login.contested,
            frame.meter_id in self._login.identified,
            frame.meter_id in self._login.clocks_read,
            self._meter.offset,
            world.clock_trusted,
            company.desk_held(frame.meter_id),
            max((one.set_at for one in company.switches.backup()), default=None),
            company.restores,
        )

    async def record(self, action: Action) -> Record | Trouble:
        return Record({})


def told(body: Mapping[str, Any], sha256: str) -> bool:
    """Does this event tell of a frame with this hash?"""
    evidence = body.get("evidence")
    return evidence is not None and evidence.get("sha256") == sha256
