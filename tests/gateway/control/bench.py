"""A bench for commands: one meter with a relay, its door, a clock moved by hand, the store in memory."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

from gateway.command import Action, Command, MeterFacts, NewCommand, Ref, RelayStatus, State, Why
from gateway.control.course import Course, nowhere
from gateway.control.gates import AskBilling, billing_not_asked
from gateway.control.policy import Rules
from gateway.door import Accepted, Answer, NotWritten, Prepared, Record, Refused, Silence, Trouble
from tests.gateway.control.memory import MemoryCommands
from tests.gateway.control.test_policy import FACTS

NOW = datetime(2026, 11, 25, 2, 0, tzinfo=UTC)
"""A Wednesday, 10:00 in Shanghai."""


class Dies(Exception):
    """The process, at a named point of a course."""


class HandClock:
    """Shows what it is told to; each look lets a millisecond pass, so that nothing happens at one instant."""

    speed = 1.0

    def __init__(self) -> None:
        self.shown = NOW

    def now(self) -> datetime:
        self.shown += timedelta(milliseconds=1)
        return self.shown

    def monotonic(self) -> float:
        return self.now().timestamp()

    async def sleep(self, seconds: float) -> None:
        self.shown += timedelta(seconds=seconds)


@dataclass
class Relay:
    """The meter: what it does with a frame, and what it has seen. Switches are for the tests."""

    clock: HandClock
    opened: bool = False
    trip_ordered: bool = False
    keep_power: bool = False
    alarm: bool = False
    button_pressed: bool = True
    holds_for_load: bool = False
    offset: float = 0.0
    refuses: list[Why] = field(default_factory=list)
    """of the next commands, one each"""
    deaf: int = 0
    """so many frames do not reach it"""
    mute: int = 0
    """so many answers do not come back"""
    unreadable: int = 0
    """so many status reads give nothing"""
    seen: list[tuple[Action, datetime]] = field(default_factory=list)
    obeyed: list[Action] = field(default_factory=list)

    def obey(self, action: Action, deadline: datetime) -> Answer:
        """As the meter does with a frame that has reached it."""
        now = self.clock.shown + timedelta(seconds=self.offset)
        self.seen.append((action, self.clock.shown))
        if self.refuses:
            return Refused(self.refuses.pop(0), ("said no",))
        if now > deadline:
            return Refused(Why.DEADLINE)
        if self.keep_power and action is Action.TRIP:
            return Refused(Why.KEEP_POWER_ON)
        self.obeyed.append(action)
        if action is Action.TRIP:
            self.trip_ordered, self.opened = True, not self.holds_for_load
        elif action is Action.CLOSE:
            self.trip_ordered = self.opened = False
        elif action is Action.PERMIT_CLOSE:
            self.trip_ordered = False
            self.opened = self.opened and not self.button_pressed
        elif action in (Action.KEEP_POWER, Action.RELEASE_KEEP_POWER):
            self.keep_power = action is Action.KEEP_POWER
        else:
            self.alarm = action is Action.ALARM
        return Accepted()

    @property
    def word(self) -> int:
        return self.opened << 4 | self.trip_ordered << 6 | self.alarm << 7 | self.keep_power << 12


class BenchDoor:
    """Satisfies `gateway.door.Door`. before_write: called when everything is ready, inside `write`."""

    worker = "w1"
    generation = 1
    contested = False

    def __init__(self, relay: Relay, clock: HandClock) -> None:
        self.relay = relay
        self.clock = clock
        self.stranger = False
        self.fails_to_write = False
        self.prepared = 0
        self.security: Trouble | None = None
        self.clock_unreadable = False
        self.written: list[tuple[Action, bytes]] = []
        self.before_write: Callable[[], None] = lambda: None
        self._deadlines: dict[bytes, tuple[Action, datetime]] = {}

    async def identify(self) -> Trouble | None:
        return Trouble(Why.WRONG_METER, "000000000009") if self.stranger else None

    async def clock_offset(self) -> float | Trouble:
        return Trouble(Why.METER_SILENT) if self.clock_unreadable else self.relay.offset

    async def status(self) -> RelayStatus | Trouble:
        if self.relay.unreadable:
            self.relay.unreadable -= 1
            return Trouble(Why.METER_SILENT)
        return RelayStatus(self.relay.word, self.clock.now())

    async def prepare(self, action: Action, deadline: datetime) -> Prepared | Trouble:
        if self.security is not None:
            return self.security
        self.prepared += 1
        frame = f"{action} {self.prepared} {deadline}".encode()
        sha256 = hashlib.sha256(frame).digest()
        self._deadlines[sha256] = action, deadline
        return Prepared(frame, sha256, frame.decode(), deadline)

    async def write(
        self, prepared: Prepared, last_check: Callable[[], Trouble | None]
    ) -> Awaitable[Answer] | NotWritten:
        self.before_write()
        trouble = last_check()
        if trouble is not None:
            return NotWritten(trouble)
        if self.fails_to_write:
            return NotWritten(Trouble(Why.TERMINAL_ABSENT))
        action, deadline = self._deadlines[prepared.sha256]
        self.written.append((action, prepared.sha256))
        return asyncio.ensure_future(self._answer(action, deadline))  # nobody may be left to hear it

    async def _answer(self, action: Action, deadline: datetime) -> Answer:
        if self.relay.deaf:
            self.relay.deaf -= 1
            return Silence("nothing came")
        answer = self.relay.obey(action, deadline)
        if self.relay.mute:
            self.relay.mute -= 1
            return Silence("nothing came")
        return answer

    async def record(self, action: Action) -> Record | Trouble:
        return Record({"operator": "00000000"})


class BenchDoors:
    """Satisfies `gateway.door.Doors`."""

    def __init__(self, door: BenchDoor) -> None:
        self.door: BenchDoor | None = door

    def here(self) -> frozenset[int]:
        return frozenset({1}) if self.door is not None else frozenset()

    @asynccontextmanager
    async def open(self, facts: MeterFacts) -> AsyncIterator[BenchDoor | None]:
        yield self.door


class Bench:
    """One meter and all that a command needs."""

    def __init__(self, facts: MeterFacts = FACTS, ask_billing: AskBilling = billing_not_asked) -> None:
        self.clock = HandClock()
        self.relay = Relay(self.clock)
        self.door = BenchDoor(self.relay, self.clock)
        self.doors = BenchDoors(self.door)
        self.store = MemoryCommands(self.clock, {1: facts})
        self.store.kept.owners[1] = ("w1", 1)
        self.rules = Rules()
        self.course = self.new_course(ask_billing)

    def new_course(
        self, ask_billing: AskBilling = billing_not_asked, at: Callable[[str], None] = nowhere
    ) -> Course:
        return Course(
            self.store,
            self.doors,
            self.clock,  # type: ignore[arg-type]  # a clock moved by hand
            lambda: self.rules,
            ask_billing=ask_billing,
            at=at,
        )

    async def accept(self, action: Action, **told: Any) -> UUID:
        """A command that stands in the queue."""
        given: dict[str, Any] = {
            "id": uuid4(),
            "action": action,
            "requester": "billing",
            "cause": "arrears",
            "created_at": self.clock.now(),
            "idempotency_key": uuid4().hex,
            "body_hash": b"",
            "expires_at": self.clock.shown + timedelta(hours=24) if action is Action.TRIP else None,
        }
        new = NewCommand(**(given | told))
        async with self.store.desk(1) as desk:
            await desk.add(new, State.QUEUED)
        return new.id

    def command(self, command_id: UUID) -> Command:
        return self.store.kept.rows[command_id].command

    def states(self, command_id: UUID) -> list[str]:
        """The states that a command went through."""
        told = [body["state"] for body, _ in self.store.kept.rows[command_id].events]
        return [state for place, state in enumerate(told) if place == 0 or state != told[place - 1]]

    async def work(self, course: Course | None = None) -> Ref | None:
        """Do the one thing that is due now, if any."""
        due = await self.store.due(self.doors.here(), self.clock.now(), 1)
        if not due:
            return None
        await (course or self.course).work(due[0])
        return due[0]

    async def work_until(
        self, command_id: UUID, *states: State, within: timedelta = timedelta(days=3)
    ) -> Command:
        """Do what is due, moving the clock from one thing to the next, until the command is in a state."""
        end = self.clock.shown + within
        while self.command(command_id).state not in states:
            if await self.work() is None:
                waits = [
                    at
                    for row in self.store.kept.rows.values()
                    if (at := row.command.look_at or row.command.not_before) is not None
                    and at > self.clock.shown
                ]
                if not waits or min(waits) > end:
                    raise AssertionError(f"{self.command(command_id)} is never {states}")
                self.clock.shown = min(waits)
            assert self.clock.shown < end, self.command(command_id)
        return self.command(command_id)

    def change(self, **told: Any) -> None:
        """What the company decides meanwhile: a block, the brake …"""
        self.store.meters[1] = replace(self.store.meters[1], **told)
