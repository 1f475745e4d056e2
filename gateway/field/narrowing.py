"""Who is on a line: addresses narrowed down from their low end, as wildcards allow it. No line here, no time.

A meter answers when all digits asked for are its own; several answer together and damage each other. The
standard's wildcard is a whole byte (2007 clause 5.2.2): meters that compare half a byte, too, are found by
ten questions a digit, others by a hundred a byte, asked where the ten do not explain what was heard. Frames
that differ little can damage each other to a whole one of a meter that is not there: who is named must answer
alone before it counts.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import Final

DIGITS: Final = 12
WILD: Final = "A"
MOST: Final = 10**DIGITS - 1

AGAIN: Final = 2
"""Who was loud and is silent was disturbed, or is now: asked so often."""


@dataclass(frozen=True, slots=True)
class Sound:
    """What a question with wildcards brought: meters that answered whole, and whether there was damage."""

    meters: tuple[str, ...] = ()
    damaged: bool = False

    @property
    def silent(self) -> bool:
        return not self.meters and not self.damaged


Found = Callable[[str], Awaitable[bool]]
"""Told of each meter that answered, each time: does it answer to its whole address?"""

Ask = Callable[[str, bool], Awaitable[Sound]]
"""Asks all whose address fits (`AAAAAAAAAA12`); True: as patiently as if nothing were known of the line."""


@dataclass(frozen=True, slots=True)
class Range:
    """Addresses looked for, both ends included."""

    first: int = 0
    last: int = MOST

    def holds(self, address: str) -> bool:
        everything = self.first <= 0 and self.last >= MOST
        return everything or (address.isdecimal() and self.first <= int(address) <= self.last)

    def has_any(self, end: str) -> bool:
        """Does any address in it end so?"""
        if not end:
            return self.first <= self.last
        step = 10 ** len(end)
        lowest: int = self.first + (int(end) - self.first) % step
        return lowest <= self.last


@dataclass(slots=True, eq=False)
class Narrowing:
    """One search."""

    ask: Ask
    found: Found
    within: Range = field(default_factory=Range)
    by_byte: bool = False
    """ask by whole bytes alone"""
    thorough: bool = True
    """look beneath an answer, too: one meter may drown another; and twice where others were heard"""
    unclear: list[str] = field(default_factory=list)
    """beginnings (`AAAAAAAAAA12`) where something is that could not be told apart"""
    _known: set[str] = field(default_factory=set)
    _asked: set[str] = field(default_factory=set)
    _silent: deque[str] = field(default_factory=deque)
    _compared: set[str] = field(default_factory=set)
    _beneath: deque[tuple[str, str]] = field(default_factory=deque)

    async def run(self, first: Sound) -> None:
        """From what all together answered: whatever damage tells of. `finish` does the rest."""
        await self._visit("", await self._proven(first))

    async def look(self, end: str) -> None:
        """Once more, patiently, whoever ends so."""
        await self._visit(end, await self._told(end, patient=True))

    async def finish(self) -> None:
        """What takes long and seldom finds another."""
        while self._silent or self._beneath:
            if self._silent:
                end = self._silent.popleft()
                await self._visit(end, await self._told(end, patient=True))
            else:
                await self._look_beneath(*self._beneath.popleft())

    async def _visit(self, end: str, sound: Sound) -> bool:
        """Follow up what was heard of those that end so; whether they damage each other."""
        if sound.damaged:
            for _ in range(AGAIN):  # perhaps something else had disturbed it
                sound = await self._told(end, patient=True)
                if not sound.silent:
                    break
        if sound.damaged:
            await self._split(end, set(sound.meters))
        elif sound.meters and self.thorough:
            self._beneath.append((end, sound.meters[0]))
        return sound.damaged

    async def _split(self, end: str, whole: set[str]) -> None:
        """Tell apart those that damage each other. whole: they answer earlier or later than the rest."""
        for step in self._steps(end):
            for patient in (False, True):
                if await self._explained(end, step, patient, whole):
                    return
        self.unclear.append(WILD * (DIGITS - len(end)) + end)

    def _steps(self, end: str) -> list[int]:
        """By how many digits to ask on, one way after the other."""
        if len(end) == DIGITS:
            return []
        if len(end) % 2:
            return [1]
        return [2] if self.by_byte else [1, 2]

    async def _explained(self, end: str, step: int, patient: bool, whole: set[str]) -> bool:
        """Ask those that end so by their next digits; whether what is there could damage each other."""
        heard = [(child, await self._told(child, patient=patient)) for child in self._next(end, step)]
        if self.thorough and not patient:
            self._silent.extend(child for child, sound in heard if sound.silent)
        damage = [await self._visit(child, sound) for child, sound in heard]
        return any(damage) or sum(meter.endswith(end) for meter in self._known - whole) > 1

    async def _look_beneath(self, end: str, meter: str) -> None:
        """Those that end so beside `meter`, which answers for all ends of its own."""
        while len(end) < DIGITS:
            step = 2 if len(end) % 2 == 0 and await self._compares_bytes(meter) else 1
            own = meter[DIGITS - len(end) - step : DIGITS - len(end)] + end
            for child in self._next(end, step):
                if child != own and child not in self._asked:
                    await self._visit(child, await self._told(child))
            end = own

    async def _compares_bytes(self, meter: str) -> bool:
        """Does it know no wildcards of half a byte? After one that does not, all are asked by whole bytes."""
        if not self.by_byte and meter not in self._compared:
            self._compared.add(meter)
            sound = await self.ask(WILD + meter[1:], True)
            self.by_byte = sound.silent
        return self.by_byte

    def _next(self, end: str, step: int) -> Iterator[str]:
        for number in range(10**step):
            child = f"{number:0{step}d}{end}"
            if self.within.has_any(child):
                yield child

    async def _told(self, end: str, *, patient: bool = False) -> Sound:
        self._asked.add(end)
        sound = await self.ask(WILD * (DIGITS - len(end)) + end, patient)
        return await self._proven(sound)

    async def _proven(self, sound: Sound) -> Sound:
        """Without meters that are not there: they are damage."""
        there = [meter for meter in sound.meters if await self.found(meter)]
        self._known.update(there)
        return Sound(tuple(there), sound.damaged or len(there) < len(sound.meters))
