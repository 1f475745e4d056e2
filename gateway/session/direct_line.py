"""A line on which this machine itself asks meters, in plain DL/T 645: one question at a time, none repeated.

Times are seconds of the house clock. An answer is told only when the line has been quiet for the gap that
must stand before the next question: so a control frame that follows may leave at once.
"""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from gateway.clock import Clock
from gateway.errors import LinkClosed
from gateway.transports.link import Link, Taken
from protocols.dlt645.frame import LEAD_IN, Frame, examine, matches
from protocols.dlt645.stream import NO_START, FoundFrame, FrameStream
from protocols.wire import Damaged

BITS_A_BYTE: Final = 11
"""On the line: start, eight, parity, stop."""

READS: Final = frozenset((0x01, 0x02, 0x11, 0x12, 0x13))
"""Functions that only ask, in both editions."""

ITEM_BYTES: Final = {0x01: 2, 0x02: 2, 0x11: 4, 0x12: 4}
"""So many bytes of the data name the item, in question and answer alike."""

NEVER_QUIET_S: Final = 2.0
"""An answer is told after so long at the latest, though the line does not fall silent behind it."""

UNREAD_S: Final = 1.0
"""So long behind its time a question still waits for bytes that have come and were not read."""

LOOK_AGAIN_S: Final = 0.005
"""In real time: whoever reads has had a turn by then."""


@dataclass(frozen=True, slots=True)
class LineSettings:
    """How one line is spoken on."""

    heartbeat_s: float = 60.0
    """of the terminal that the line is to the rest of the house"""
    lead_in: int = 4
    """FEH before each question"""
    baud: int | None = None
    """bit/s of the line, where it is known: what a question takes on it is added to the wait for an answer"""
    reply_timeout_s: float = 0.5
    """until a meter begins to answer a read, and never longer than the request allows; serial servers and
    radio need some seconds. What is no read is waited for as long as the request allows"""
    inter_byte_s: float = 0.5
    """a frame whose bytes stop coming for so long is given up; the request's own word (100 ms, as a rule) is
    too short for what comes through a network in pieces"""
    gap_s: float = 0.05
    """silence between an answer and the next question"""
    late_s: float = 2.0
    """a meter that stayed silent is not asked again for so long: it could answer the question before"""
    swallowed: tuple[bytes, ...] = ()
    """texts that a modem (DTU) says of its own accord between frames"""


@dataclass(slots=True, eq=False)
class _Question:
    """What is asked on the line now, until its answer, or its silence, is told."""

    asked: Frame
    until: float
    """its answer is waited for no longer"""
    done: asyncio.Future[bytes]
    deadline: float = math.inf
    """for the first byte; known when the question has left"""
    over_at: float | None = None
    """when the answer was whole, or was given up"""
    answer: bytes = b""
    damage: bytearray = field(default_factory=bytearray)


class DirectLine:
    """Speaks on `link`. `run` listens as long as it stands; `ask` and `ask_now` may be called meanwhile."""

    def __init__(self, link: Link, clock: Clock, settings: LineSettings) -> None:
        self.counts: Counter[str] = Counter()
        """`late`: frames that answered nothing; `damaged`: runs of bytes that were no frame"""
        self._link = link
        self._clock = clock
        self._settings = settings
        self._loop = asyncio.get_running_loop()
        self._between = BetweenFrames(settings.swallowed)
        self._stream = FrameStream()
        self._open: _Question | None = None
        self._silent: dict[str, float] = {}
        """meters that did not answer, and until when they still may; bounded by what `late_s` has room for"""
        self._heard_at = self._left_at = -math.inf
        self._timer: asyncio.TimerHandle | None = None
        self._ended = False

    async def run(self, begun: bytes = b"") -> None:
        """Listen until the link ends; begun: bytes that have come already. Raises LinkClosed."""
        try:
            self._take(begun)
            while True:
                data, settle = await self._link.read()
                self._take(data)
                await settle()
        finally:
            self._end()

    async def ask(self, raw: bytes, asked: Frame, allowed_s: float) -> bytes:
        """Ask once the line is free; `raw` is `asked` without lead-in. The bytes of the whole frame that
        answers, those of a damaged one, or b"" for silence, within about `allowed_s`. Raises LinkClosed."""
        until = self._clock.monotonic() + allowed_s
        while True:
            now = self._clock.monotonic()
            if now >= until:
                return b""
            if self._open is not None:
                await asyncio.wait([self._open.done])
                continue
            wait = max(self._quiet_at(), self._silent.get(asked.address, now)) - now
            if wait <= 0:
                break
            await self._clock.sleep(min(wait, until - now))
        question = self._begin(asked, until)
        await self._link.write(bytes([LEAD_IN]) * self._settings.lead_in + raw)
        self._has_left(question, len(raw), allowed_s)
        return await question.done

    def ask_now(self, raw: bytes, asked: Frame, allowed_s: float) -> asyncio.Future[bytes] | Taken:
        """Have the question leave before this returns: the future of what `ask` gives, or what became of the
        bytes. NOTHING also where the line is not free and quiet; the link is not reset for that reason."""
        now = self._clock.monotonic()
        if self._ended or self._open is not None or now < self._quiet_at():
            return Taken.NOTHING
        taken = self._link.write_now(bytes([LEAD_IN]) * self._settings.lead_in + raw)
        if taken is not Taken.WHOLE:
            return taken
        question = self._begin(asked, now + allowed_s)
        self._has_left(question, len(raw), allowed_s)
        return question.done

    # the question under way

    def _begin(self, asked: Frame, until: float) -> _Question:
        self._open = _Question(asked, until, self._loop.create_future())
        return self._open

    def _has_left(self, question: _Question, size: int, allowed_s: float) -> None:
        settings = self._settings
        bits = (settings.lead_in + size) * BITS_A_BYTE
        line_s = bits / settings.baud if settings.baud else 0.0
        self._left_at = self._clock.monotonic() + line_s
        reply_s = settings.reply_timeout_s if question.asked.function in READS else allowed_s
        question.until += line_s
        question.deadline = self._left_at + min(reply_s, allowed_s)
        self._arm()

    def _fits(self, asked: Frame, told: Frame) -> bool:
        """May `told` answer `asked`? Not our own echo, nor what was asked before. An answer of another meter
        passes, for whoever asked to judge, unless that meter owes one."""
        if not told.from_meter or told.function != asked.function:
            return False
        if not matches(asked.address, told.address):
            return self._silent.get(told.address, -math.inf) < self._clock.monotonic()
        size = 0 if told.is_error else ITEM_BYTES.get(asked.function, 0)
        return told.data[:size] == asked.data[:size]

    def _tell(self, question: _Question, now: float) -> None:
        self._open = None
        self._silent = {meter: until for meter, until in self._silent.items() if until > now}
        answer = question.answer or bytes(question.damage)
        if not answer:
            self._silent[question.asked.address] = now + self._settings.late_s
        if not question.done.done():
            question.done.set_result(answer)

    # what comes

    @property
    def _held(self) -> bool:
        """Has a frame begun that is not whole?"""
        return bool(self._stream.held or self._between.held)

    def _quiet_at(self) -> float:
        """When the line is quiet, if nothing more comes."""
        settings = self._settings
        rest = settings.inter_byte_s if self._held else 0.0
        return max(self._heard_at + rest, self._left_at) + settings.gap_s

    def _take(self, data: bytes) -> None:
        passed = self._between.passed(data)
        if passed or self._between.held:
            self._heard_at = self._clock.monotonic()
        self._stream.receive_data(passed)
        self._look()
        self._arm()

    def _look(self) -> None:
        while (event := self._stream.next_event()) is not None:
            if isinstance(event, FoundFrame):
                self._found(event)
            else:
                self._damaged(event)

    def _found(self, found: FoundFrame) -> None:
        question = self._open
        if question is None or question.over_at is not None or not self._fits(question.asked, found.frame):
            self.counts["late"] += 1
        else:
            question.answer = found.raw
            question.over_at = self._clock.monotonic()

    def _damaged(self, damage: Damaged) -> None:
        self.counts["damaged"] += 1
        question = self._open
        if question is not None and not question.damage and damage.reason != NO_START:
            question.damage += damage.raw

    def _give_up_the_rest(self) -> None:
        """What has begun does not go on."""
        self._stream.receive_data(self._between.rest())
        self._stream.end()
        self._look()

    # time

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        times = [self._heard_at + self._settings.inter_byte_s] if self._held else []
        if (question := self._open) is not None:
            if question.over_at is not None:
                times.append(min(self._quiet_at(), question.over_at + NEVER_QUIET_S))
            else:
                times.append(question.until if self._held else min(question.deadline, question.until))
        if times and not self._ended:
            wait = max(0.0, min(times) - self._clock.monotonic())
            self._timer = self._loop.call_later(wait / self._clock.speed, self._tick)

    def _tick(self) -> None:
        self._timer = None
        now = self._clock.monotonic()
        question = self._open
        late = question is not None and question.over_at is None and now >= question.until
        if self._link.waiting and question is not None and now < question.until + UNREAD_S:
            # a house that was busy itself has not looked at what came in time
            self._timer = self._loop.call_later(LOOK_AGAIN_S, self._tick)
            return
        if self._held and (late or now >= self._heard_at + self._settings.inter_byte_s):
            self._give_up_the_rest()
        if question is not None:
            if question.over_at is None and (late or (now >= question.deadline and not self._held)):
                question.over_at = now
            if question.over_at is not None and (
                now >= self._quiet_at() or now >= question.over_at + NEVER_QUIET_S
            ):
                self._tell(question, now)
        self._arm()

    def _end(self) -> None:
        self._ended = True
        if self._timer is not None:
            self._timer.cancel()
        question, self._open = self._open, None
        if question is not None and not question.done.done():
            question.done.set_exception(LinkClosed(f"the line {self._link.peer} has ended"))
            question.done.exception()  # seen: whoever asked may be gone


class BetweenFrames:
    """Takes fixed texts out of what comes wherever no frame is under way, and never out of one."""

    def __init__(self, texts: Sequence[bytes]) -> None:
        self._texts = tuple(text for text in texts if text)
        self._buffer = bytearray()

    @property
    def held(self) -> int:
        """Bytes held back: a frame, or a text, that has begun."""
        return len(self._buffer)

    def passed(self, data: bytes) -> bytes:
        """What of the bytes so far is none of the texts."""
        if not self._texts:
            return data
        self._buffer += data
        return self._sorted(may_go_on=True)

    def rest(self) -> bytes:
        """What was held back and is none of the texts, where nothing more of it comes."""
        return self._sorted(may_go_on=False)

    def _sorted(self, *, may_go_on: bool) -> bytes:
        """A frame comes before a text: one that begins with 68H may look like the beginning of a frame."""
        buffer = self._buffer
        passed = bytearray()
        while buffer:
            whole = examine(buffer, 0)
            text = next((one for one in self._texts if buffer.startswith(one)), b"")
            begins = whole is None or (not text and any(one.startswith(buffer) for one in self._texts))
            if begins and may_go_on:
                break
            if isinstance(whole, int):
                passed += buffer[:whole]
                del buffer[:whole]
            elif text:
                del buffer[: len(text)]
            else:
                passed.append(buffer.pop(0))
        return bytes(passed)
