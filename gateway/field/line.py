"""A line to meters, asked from here: one question at a time, and only reads leave.

Times are seconds of the house clock. How long a silence is waited for is learned from the answers that came,
within bounds; what comes too late is kept, and makes the wait longer.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Final

from gateway.clock import Clock
from gateway.errors import LingdianError
from gateway.transports.link import Link
from gateway.transports.serial_port import SerialLink
from protocols.dlt645.frame import BROADCAST, Frame, build, matches
from protocols.dlt645.stream import FoundFrame, FrameStream

READS: Final = frozenset((0x01, 0x02, 0x11, 0x12, 0x13))
"""Functions that only ask, in both editions. 03H is not among them: it reads again in 1997, and is security
in 2007."""

ITEM_BYTES: Final = {0x01: 2, 0x02: 2, 0x11: 4, 0x12: 4}
"""So many bytes of the data name the item, in question and answer alike."""

BITS_A_BYTE: Final = 11
"""On the line: start, eight, parity, stop."""

NOISE: Final = 2
"""So many bytes may come when a sender is switched on or off, and are no sign of a meter."""

BABBLE_S: Final = 3.0
"""Beyond its wait and the longest answer, a line that never falls silent is listened to no longer."""

LONGEST_ANSWER: Final = 220
"""Bytes on the line: 200 of data, the frame around them, and its lead-in."""

STRANGERS: Final = 4096
"""Meters kept that answered what was not asked just then."""


class NotARead(LingdianError):
    """The frame was to do more than read."""


@dataclass(frozen=True, slots=True)
class Timing:
    """How patient a line is."""

    longest_wait_s: float = 0.6
    """until a meter begins to answer: 500 ms by the standard, more through radio or a serial server"""
    shortest_wait_s: float = 0.12
    """however quick the meters are that were heard"""
    times: float = 4.0
    """the wait is so many times the slowest answer"""
    between_bytes_s: float = 0.5
    """silence that ends what was begun and is no whole frame"""
    gap_s: float = 0.03
    """silence before each question"""
    lead_in: int = 4
    """FEH before each question"""


@dataclass(frozen=True, slots=True)
class Heard:
    """What came to one question. reply_s: until the first byte; None: silence."""

    frames: tuple[Frame, ...] = ()
    """whole ones of meters, the answer and others"""
    damage: bytes = b""
    """what came and is no frame: a disturbed answer, or several at once"""
    reply_s: float | None = None

    @property
    def silent(self) -> bool:
        return not self.frames and not self.damage


def may_answer(told: Frame, question: Frame) -> bool:
    """Is `told` of a meter that `question` was meant for, and of its function and item?"""
    meant = question.address == BROADCAST or matches(question.address, told.address)
    size = 0 if told.is_error else ITEM_BYTES.get(question.function, 0)
    return meant and told.function == question.function and told.data[:size] == question.data[:size]


@dataclass(slots=True, eq=False)
class MeterLine:
    """Speaks on `link`, which nobody else may read meanwhile."""

    link: Link
    clock: Clock
    timing: Timing = field(default_factory=Timing)
    asked: int = 0
    """questions that have left"""
    slowest_s: float | None = None
    """the longest time that an answer took to begin; None: none was heard yet"""
    strangers: dict[str, None] = field(default_factory=dict)
    """addresses of meters that said something else than was asked, or too late; the caller takes them out"""
    late: int = 0
    """how often something came after its question had been given up"""
    _stream: FrameStream = field(default_factory=FrameStream)
    _heard_at: float = float("-inf")
    _left_at: float = float("-inf")

    @property
    def speed(self) -> int | None:
        """bit/s; None where the other end of the link sets it."""
        return self.link.baud if isinstance(self.link, SerialLink) else None

    async def set_speed(self, baud: int) -> None:
        """Go to `baud` bit/s, and forget how quick meters were. ValueError where the link has no speed, or
        not this one; LinkClosed."""
        if not isinstance(self.link, SerialLink):
            raise ValueError(f"{self.link.peer} has no speed that could be set from here")
        await self.link.set_speed(baud)
        self.slowest_s = None
        self._heard_at = self.clock.monotonic()

    @property
    def wait_s(self) -> float:
        """How long the first byte of an answer is waited for now."""
        timing = self.timing
        if self.slowest_s is None:
            return timing.longest_wait_s
        learned = max(timing.shortest_wait_s, timing.times * self.slowest_s)
        return min(timing.longest_wait_s, learned)

    async def ask(self, question: Frame, *, patient: bool = False, others: bool = False) -> Heard:
        """Ask when the line is quiet, and give what came. NotARead before a byte leaves; LinkClosed.

        patient: wait as long as for a meter of which nothing is known. others: listen to the end of the wait,
        though an answer has come: more meters than one may be meant.
        """
        if question.control not in READS:
            raise NotARead(f"function {question.control:02X}H is no read: only reads leave here 现场工具只读")
        await self._quiet()
        raw = build(question, self.timing.lead_in)
        wait_s = self.timing.longest_wait_s if patient else self.wait_s
        self.asked += 1
        before = self._left_at
        await self.link.write(raw)
        self._left_at = self.clock.monotonic() + self._line_s(len(raw))
        heard = await self._answer(question, wait_s, others)
        self._learn(question, heard, before)
        return heard

    async def quiet(self) -> None:
        """Until the line is quiet, so that the next bytes can stand alone. LinkClosed."""
        await self._quiet()

    async def listen(self, question: Frame, size: int) -> Heard:
        """What comes to a question of `size` bytes that somebody else has just written here. LinkClosed."""
        self._left_at = self.clock.monotonic() + self._line_s(size)
        return await self._answer(question, self.timing.longest_wait_s, False)

    def _line_s(self, count: int) -> float:
        """Seconds that so many bytes take on the line, where its speed is known."""
        return count * BITS_A_BYTE / self.speed if self.speed else 0.0

    async def _quiet(self) -> None:
        """Until nothing was heard for the gap; what comes meanwhile comes too late for its question."""
        give_up = self.clock.monotonic() + BABBLE_S
        while (now := self.clock.monotonic()) < give_up:
            until = max(self._heard_at, self._left_at) + self.timing.gap_s
            if now >= until:
                break
            await self._take(until)
        frames, damage = self._frames()
        if (frames or len(damage) > NOISE) and self.asked:
            self.late += 1
            self._longer(self._heard_at - self._left_at)
        self._keep(frames)

    async def _answer(self, question: Frame, wait_s: float, others: bool) -> Heard:
        left_at, timing = self._left_at, self.timing
        deadline = left_at + wait_s
        last = deadline + self._line_s(LONGEST_ANSWER) + BABBLE_S
        frames: list[Frame] = []
        damage = b""
        first_at: float | None = None
        until = deadline
        while self.clock.monotonic() < until:
            if not await self._take(until):
                continue
            if first_at is None:
                first_at = self._heard_at
            more, broken = self._frames()
            frames += more
            damage += broken
            begun = self._stream.held or len(damage) > NOISE
            until = self._heard_at + (timing.between_bytes_s if begun else timing.gap_s)
            answered = begun or any(may_answer(frame, question) for frame in frames)
            if others or not answered:
                until = max(until, deadline)
            until = min(until, last)
        self._stream.end()
        more, broken = self._frames()
        frames, damage = [*frames, *more], damage + broken
        damage = damage if len(damage) > NOISE else b""
        if not (frames or damage) or first_at is None:
            return Heard()
        return Heard(tuple(frames), damage, max(0.0, first_at - left_at))

    async def _take(self, until: float) -> bool:
        """Give the stream what comes until then; False: nothing did."""
        wait = max(0.0, until - self.clock.monotonic()) / self.clock.speed
        try:
            async with asyncio.timeout(wait):
                data, settle = await self.link.read()
        except TimeoutError:
            return False
        self._heard_at = self.clock.monotonic()
        self._stream.receive_data(data)
        await settle()
        return True

    def _frames(self) -> tuple[list[Frame], bytes]:
        """Whole frames of meters, and what was none. Our own words that come back are neither."""
        frames, damage = [], b""
        while (event := self._stream.next_event()) is not None:
            if not isinstance(event, FoundFrame):
                damage += event.raw
            elif event.frame.from_meter:
                frames.append(event.frame)
        return frames, damage

    # learning

    def _learn(self, question: Frame, heard: Heard, before: float) -> None:
        for frame in heard.frames:
            if may_answer(frame, question):
                self._longer(heard.reply_s or 0.0)
            else:
                self.late += 1
                self._longer(self._heard_at - before)
                self._keep([frame])

    def _longer(self, reply_s: float) -> None:
        self.slowest_s = max(self.slowest_s or 0.0, min(reply_s, self.timing.longest_wait_s))

    def _keep(self, frames: list[Frame]) -> None:
        for frame in frames:
            if len(self.strangers) < STRANGERS:
                self.strangers[frame.address] = None
