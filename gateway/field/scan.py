"""Every meter on one line: at each speed those of either edition, and what each of them can tell."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final, Literal

from gateway.errors import LinkClosed
from gateway.field.line import Heard, MeterLine, may_answer
from gateway.field.narrowing import Narrowing, Range, Sound
from gateway.field.reading import Item, edition_of, read_item
from gateway.model import Reason
from protocols.dlt645.fields import EDITION_1997, EDITION_2007
from protocols.dlt645.frame import BROADCAST, WILDCARD, Frame
from protocols.dlt645.messages import AddressReply, ReadAddressRequest, ReadRequest, from_frame, to_frame
from protocols.dlt645.probe import ENERGY_1997, ENERGY_2007

SPEEDS: Final = (2400, 1200, 4800, 9600)
"""bit/s, in the order in which they are tried: 2400 is what most meters have."""

ITEMS: Final = {
    EDITION_2007: {
        "number": "04000402",
        "clock": "04000102",
        "status_word_3": "04000503",
        "daily_freeze": "05060101",
        "voltage": "02010100",
        "energy": ENERGY_2007,
    },
    EDITION_1997: {
        "number": "c032",
        "clock": "c011",
        "status_word": "c020",
        "voltage": "b611",
        "energy": ENERGY_1997,
    },
}
"""What each meter is asked for, by edition."""

ENERGY: Final = {EDITION_2007: ENERGY_2007, EDITION_1997: ENERGY_1997}

DOUBTFUL: Final = 64
"""Silences looked at again at most, because something came late."""

RECENT: Final = 32
"""Silences remembered: a question whose answer is late was asked not long ago."""

Ended = Literal["complete", "limit", "interrupted", "lost"]


@dataclass(frozen=True, slots=True)
class Plan:
    """What is looked for, and how."""

    speeds: tuple[int, ...] = ()
    """bit/s; () where the line has one that cannot be set from here"""
    within: Range = field(default_factory=Range)
    thorough: bool = True
    by_byte: bool = False
    limit_s: float = 1800.0


@dataclass(frozen=True, slots=True)
class FoundMeter:
    """A meter on the line. items: name -> it gives it, refuses it, or (None) said nothing whole.

    seconds: from the beginning of the scan until it was known."""

    address: str
    speed: int | None
    edition: str
    number: str | None
    items: dict[str, bool | None]
    seconds: float


@dataclass(frozen=True, slots=True)
class Unclear:
    """Something is there that could not be told apart: two meters of one address, or a bad line."""

    speed: int | None
    pattern: str


@dataclass(slots=True, eq=False)
class Scan:
    """Run once. All it knows may be looked at while it runs; `tell` is called when some of it has changed."""

    line: MeterLine
    plan: Plan
    tell: Callable[[Scan], None] = lambda scan: None
    meters: dict[str, FoundMeter] = field(default_factory=dict)
    unclear: list[Unclear] = field(default_factory=list)
    ended: Ended = "interrupted"
    why: str = ""
    """what the line was lost of"""
    now_at: str = ""
    """for a person: what is asked now"""
    _last_speed: int | None = None
    _began: float = 0.0
    _ended: float | None = None
    _strangers: dict[str, None] = field(default_factory=dict)
    _ghosts: set[str] = field(default_factory=set)
    """named at this speed, and silent when they were asked alone"""
    _outside: set[str] = field(default_factory=set)
    """there, and not looked for"""
    _silences: deque[tuple[float, str]] = field(default_factory=lambda: deque(maxlen=RECENT))
    """questions with wildcards that met silence, and when they were given up"""
    _suspects: dict[str, list[str]] = field(default_factory=dict)
    """by the question that met damage: those before it whose late answer that may have been"""
    _doubtful: dict[str, None] = field(default_factory=dict)

    @property
    def seconds(self) -> float:
        """How long it has taken, or took."""
        return (self.line.clock.monotonic() if self._ended is None else self._ended) - self._began

    async def run(self) -> None:
        """Until all is done, the limit is reached or the line is lost: `ended` says which. A cancellation
        goes through; what was found stays."""
        self._began = self.line.clock.monotonic()
        try:
            async with asyncio.timeout(self.plan.limit_s / self.line.clock.speed):
                await self._everywhere()
            self.ended = "complete"
        except TimeoutError:
            self.ended = "limit"
        except LinkClosed as error:
            self.ended, self.why = "lost", str(error)
        finally:
            self._ended = self.line.clock.monotonic()

    async def _everywhere(self) -> None:
        """First what is quick to find at any speed, then what takes long."""
        searches = []
        for speed in self.plan.speeds or (None,):
            await self._go_to(speed)
            for edition, first in ((EDITION_2007, self._all_2007), (EDITION_1997, self._all_1997)):
                narrowing = self._narrowing(edition)
                searches.append((speed, narrowing))
                await self._carry_on(narrowing, narrowing.run(await first()))
        for speed, narrowing in searches if self.plan.thorough else ():
            await self._go_to(speed)
            await self._carry_on(narrowing, narrowing.finish())

    async def _go_to(self, speed: int | None) -> None:
        if speed is not None and speed != self._last_speed:
            await self.line.set_speed(speed)
            self._last_speed = speed
            self._ghosts.clear()

    def _narrowing(self, edition: str) -> Narrowing:
        plan = self.plan

        async def ask(pattern: str, patient: bool) -> Sound:
            return await self._ask(pattern, patient, edition)

        return Narrowing(ask, self._found, plan.within, plan.by_byte, plan.thorough)

    async def _carry_on(self, narrowing: Narrowing, search: Awaitable[None]) -> None:
        """Search, then look again where something came late, and ask whoever was heard in passing."""
        for memory in (self._silences, self._suspects, self._doubtful):
            memory.clear()
        known = len(narrowing.unclear)
        await search
        for pattern in list(self._doubtful)[:DOUBTFUL]:
            await narrowing.look(pattern.lstrip("A"))
        await self._meet_strangers()
        self.unclear += [Unclear(self.line.speed, pattern) for pattern in narrowing.unclear[known:]]

    async def _all_2007(self) -> Sound:
        """By 13H, which a meter may have locked, and by 11H."""
        whole = await self._sound(to_frame(ReadAddressRequest()), patient=True)
        return _both(whole, await self._ask(WILDCARD, True, EDITION_2007))

    async def _all_1997(self) -> Sound:
        """To all of AA, and to the broadcast address, which some answer instead."""
        whole = await self._ask(WILDCARD, True, EDITION_1997)
        loud = await self._sound(to_frame(ReadRequest(BROADCAST, ENERGY_1997)), patient=True)
        if loud.damaged and not whole.damaged:
            self.unclear.append(Unclear(self.line.speed, BROADCAST))
        return Sound(_both(whole, loud).meters, whole.damaged)

    async def _ask(self, pattern: str, patient: bool, edition: str) -> Sound:
        late = self.line.late
        sound = await self._sound(to_frame(ReadRequest(pattern, ENERGY[edition])), patient)
        self._doubt(pattern, sound, came_late=self.line.late > late)
        if sound.silent and not patient:
            self._silences.append((self.line.clock.monotonic(), pattern))
        return sound

    def _doubt(self, pattern: str, sound: Sound, *, came_late: bool) -> None:
        """What came too late, or as damage that does not come again, was the answer to a question that was
        given up not long before."""
        since = self.line.clock.monotonic() - 2 * self.line.timing.longest_wait_s
        recent = [silent for at, silent in self._silences if at >= since]
        if came_late:
            self._doubtful.update(dict.fromkeys(recent))
        if sound.damaged:
            self._suspects[pattern] = recent
        else:
            self._doubtful.update(dict.fromkeys(self._suspects.pop(pattern, ())))

    async def _sound(self, question: Frame, patient: bool) -> Sound:
        self.now_at = question.address
        self.tell(self)
        heard = await self.line.ask(question, patient=patient, others=True)
        self._strangers |= self.line.strangers
        self.line.strangers.clear()
        return _told(question, heard)

    # meters

    async def _meet_strangers(self) -> None:
        """Those that were heard when others were asked."""
        while self._strangers:
            address = next(iter(self._strangers))
            del self._strangers[address]
            await self._found(address)

    async def _found(self, address: str) -> bool:
        """Ask a meter that was heard what it is, once; False: nobody answers there."""
        if address in self.meters or address in self._outside:
            return True
        if address in self._ghosts:
            return False
        seconds = self.seconds
        self.now_at = address
        self.tell(self)
        found = await edition_of(self.line, address)
        if found is None:
            self._ghosts.add(address)
            return False
        if not self.plan.within.holds(address):
            self._outside.add(address)
            return True
        meter = FoundMeter(address, self.line.speed, found.edition, None, {}, seconds)
        self.meters[address] = meter  # what follows may be interrupted
        number, items = None, {}
        for name, di in ITEMS[found.edition].items():
            told = await read_item(self.line, address, di)
            items[name] = _gives(told)
            if name == "number" and isinstance(told, Item) and told.values:
                number = told.values[0].value
            self.meters[address] = FoundMeter(
                address, self.line.speed, found.edition, number, dict(items), seconds
            )
        self.tell(self)
        return True


def _gives(told: object) -> bool | None:
    if isinstance(told, Item):
        return True
    return False if getattr(told, "reason", None) is Reason.METER_REFUSED else None


def _both(one: Sound, other: Sound) -> Sound:
    return Sound(tuple(dict.fromkeys((*one.meters, *other.meters))), one.damaged or other.damaged)


def _told(question: Frame, heard: Heard) -> Sound:
    """Which meters answered."""
    meters: dict[str, None] = {}
    for frame in heard.frames:
        if may_answer(frame, question):
            message = from_frame(frame)
            meters[message.address if isinstance(message, AddressReply) else frame.address] = None
    return Sound(tuple(meters), bool(heard.damage))
