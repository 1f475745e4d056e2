"""The meter's side of the simulation: relays that obey frames, and a network that loses and repeats them.

Bit 6 of status word 3 is what the relay was told last: whoever is in the dark while it is 0 may press the
button, and does so after some minutes, whether a permit or keep-power has set it to 0.

Nothing here knows a command: only frames, told apart by their hash. `seen` is the truth that the rules are
checked against.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from gateway.command import Action, RelayStatus, Why
from gateway.door import Accepted, Answer, Refused, Silence, Trouble
from gateway.model import RelayKind
from tests.simulation.loop import VirtualClock
from tests.simulation.process import outside


@dataclass(frozen=True, slots=True)
class Seen:
    """A frame that reached a meter."""

    at: datetime
    meter_id: int
    sha256: bytes
    action: Action
    obeyed: bool
    moved: bool
    """the relay opened or closed"""
    tripped: bool
    """it was open, or told to open, when the frame came"""


@dataclass(frozen=True, slots=True)
class Frame:
    """What goes over the network. deadline: by the meter's clock."""

    meter_id: int
    sha256: bytes
    action: Action
    deadline: datetime


@dataclass
class SimMeter:
    """One meter. offset: seconds that its clock is ahead. hold: how long a load keeps a trip waiting."""

    meter_id: int
    clock: VirtualClock
    kind: RelayKind = RelayKind.BUILT_IN
    offset: float = 0.0
    hold: timedelta = timedelta(0)
    presses_after: timedelta = timedelta(minutes=3)
    """when the customer presses the button, once it is allowed"""
    opened: bool = False
    trip_ordered: bool = False
    keep_power: bool = False
    refusals: list[Why] = field(default_factory=list)
    seen: list[Seen] = field(default_factory=list)
    reads: list[tuple[datetime, int]] = field(default_factory=list)
    """when status word 3 was taken, and what it was"""
    opens_at: datetime | None = None
    closes_at: datetime | None = None

    def settle(self) -> None:
        """Let what was due by now have happened: a held trip opens, a button is pressed."""
        now = self.clock.now()
        if self.opens_at is not None and now >= self.opens_at:
            self.opens_at = None
            if self.trip_ordered:
                self.opened = True
        if self.closes_at is not None and now >= self.closes_at:
            self.closes_at = None
            if not self.trip_ordered:
                self.opened = False

    def take(self, frame: Frame) -> Answer:
        """A control frame arrives."""
        self.settle()
        now = self.clock.now()
        before, tripped = self.opened, self.opened or self.trip_ordered
        answer = self._obey(frame, now)
        moved = self.opened != before
        obeyed = isinstance(answer, Accepted)
        self.seen.append(Seen(now, self.meter_id, frame.sha256, frame.action, obeyed, moved, tripped))
        return answer

    def close_by_hand(self) -> None:
        """Somebody stands before it."""
        self.settle()
        self.opened = self.trip_ordered = False
        self.opens_at = self.closes_at = None

    def _obey(self, frame: Frame, now: datetime) -> Answer:
        if now + timedelta(seconds=self.offset) > frame.deadline:
            return Refused(Why.DEADLINE)
        if self.refusals:
            return Refused(self.refusals.pop())
        if frame.action is Action.TRIP:
            if self.keep_power:
                return Refused(Why.KEEP_POWER_ON)
            self.trip_ordered = True
            self.closes_at = None
            if self.hold:
                self.opens_at = now + self.hold
            else:
                self.opened = True
        elif frame.action in (Action.CLOSE, Action.PERMIT_CLOSE):
            if frame.action is Action.CLOSE and self.kind is RelayKind.EXTERNAL_HAND_CLOSING:
                return Refused(Why.NOT_SUPPORTED)
            self.trip_ordered = False
            self.opens_at = None
            if frame.action is Action.CLOSE:
                self.opened = False
            elif self.opened:
                self.closes_at = now + self.presses_after
        elif frame.action is Action.KEEP_POWER:
            self.keep_power = True
            self.trip_ordered = False
            self.opens_at = None
            if self.kind is RelayKind.EXTERNAL_SELF_CLOSING:
                self.opened = False  # on such meters keep-power closes the relay
            elif self.opened:
                self.closes_at = now + self.presses_after
        elif frame.action is Action.RELEASE_KEEP_POWER:
            self.keep_power = False
        return Accepted()

    def word(self) -> int:
        """Status word 3, taken now."""
        self.settle()
        word = self.opened << 4 | self.trip_ordered << 6 | self.keep_power << 12
        self.reads.append((self.clock.now(), word))
        return word


@dataclass
class Network:
    """Between the gateway and the meters of one terminal. Chances are of one frame each."""

    chance: random.Random
    count: Callable[[str], None]
    lossy: float = 0.0
    """frames that vanish, on each way"""
    repeats: float = 0.0
    """control frames of which a copy arrives later as well"""
    slowest: float = 2.0
    """seconds; PLC takes up to twenty"""
    copies: set[asyncio.Task[None]] = field(default_factory=set)

    def _happens(self, what: str, likely: float) -> bool:
        if likely and self.chance.random() < likely:
            self.count(what)
            return True
        return False

    async def _way(self) -> None:
        await asyncio.sleep(self.chance.uniform(0.05, self.slowest))

    async def carry(self, meter: SimMeter, frame: Frame) -> Answer:
        """A control frame and its answer."""
        if self._happens("copy", self.repeats):
            task = outside(self._late_copy(meter, frame))
            self.copies.add(task)
            task.add_done_callback(self.copies.discard)
        await self._way()
        if self._happens("frame lost", self.lossy):
            await asyncio.sleep(60.0)
            return Silence("no answer")
        answer = self._arrives(meter, frame)
        await self._way()
        if self._happens("answer lost", self.lossy):
            await asyncio.sleep(60.0)
            return Silence("no answer")
        return answer

    async def _late_copy(self, meter: SimMeter, frame: Frame) -> None:
        await asyncio.sleep(self.chance.choice((1.0, 30.0, 300.0, 900.0, 2400.0)) * self.chance.random())
        self._arrives(meter, frame)

    def _arrives(self, meter: SimMeter, frame: Frame) -> Answer:
        answer = meter.take(frame)
        if frame.action is Action.KEEP_POWER and isinstance(answer, Accepted) and meter.seen[-1].tripped:
            self.count(f"keep-power on a tripped meter, {meter.kind}")
        return answer

    async def ask(self, meter: SimMeter) -> RelayStatus | Trouble:
        """Status word 3 and its answer."""
        asked = meter.clock.now()
        await self._way()
        if self._happens("question lost", self.lossy):
            await asyncio.sleep(60.0)
            return Trouble(Why.METER_SILENT)
        word = meter.word()
        await self._way()
        return RelayStatus(word, asked)
