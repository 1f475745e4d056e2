"""Several meters on one line that speak DL/T 645 themselves, and what goes wrong on it. No socket, no clock.

All hear all; who is asked answers. A meter hears rubbish while the other side speaks at another speed than
its own. Answers that are said at once spoil each other. Where a modem (DTU) stands before the line, it says
what it is when it has dialled, and its heartbeat text from time to time. Driven like `Line`: see
`caller.Station`.
"""

from __future__ import annotations

import random
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Final, Protocol

from protocols.dlt645 import messages
from protocols.dlt645.commands import ChangeSpeed, SpeedReply
from protocols.dlt645.fields import EDITION_1997
from protocols.dlt645.frame import build, matches
from protocols.dlt645.stream import FoundFrame, FrameStream
from simulator.bus import Making
from simulator.district import MeterPlan
from simulator.line import Chunk, Ending
from simulator.meter import Meter
from simulator.meter_1997 import Meter1997

BITS_A_BYTE: Final = 11
"""Start, eight, parity, stop."""

REPLY_DELAY_S: Final = 0.02
"""A meter answers 20 ms to 500 ms after the question (2007 clause 5; the least of it, on a paced line)."""

GAP_S: Final = 0.5
"""Silence within a frame that ends it."""

PIECE_S: Final = 0.01
"""Bytes of a paced line are written together for so long: no reader sees finer than that."""

MOST_NOISE: Final = 12
"""Bytes of rubbish before and after an answer."""


@dataclass(frozen=True, slots=True)
class LineFaults:
    """What goes wrong on a line; what is a fraction (0..1) is true of so many answers."""

    seed: int = 0
    noise: float = 0.0
    """rubbish stands before and after them"""
    damage: float = 0.0
    """one of their bytes is changed"""
    silence: float = 0.0
    drop: float = 0.0
    """the link is dropped in the middle of them"""
    echo: bool = False
    """the adapter gives back all that is written to it"""
    slow_s: float = 0.0
    """seconds between two bytes of an answer, beside those of the line"""

    def __post_init__(self) -> None:
        for name in ("noise", "damage", "silence", "drop"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is a fraction, 0 to 1")


@dataclass(frozen=True, slots=True)
class Modem:
    """What a DTU says by itself."""

    registration: bytes = b""
    heartbeat: bytes = b""
    heartbeat_s: float = 60.0


class Speaks(Protocol):
    """A meter of either edition."""

    def receive_data(self, data: bytes, now: float) -> None: ...

    def data_to_send(self) -> bytes: ...

    def next_timeout(self) -> float | None: ...

    def handle_timeout(self, now: float) -> None: ...


def made(plan: MeterPlan, making: Making) -> Speaks:
    """The meter of that plan, of its edition."""
    if plan.edition == EDITION_1997:
        return Meter1997(plan)
    return Meter(plan, setup=making.setup(plan), ledger=making.ledger)


@dataclass(slots=True)
class Hanging:
    """A meter on the line, with its address and its speed. gap_s: silence that ends a frame."""

    meter: Speaks
    address: str
    baud: int = 2400
    gap_s: float = GAP_S
    _stream: FrameStream = field(default_factory=FrameStream)
    _heard_at: float = 0.0

    def hear(self, data: bytes, now: float) -> bytes:
        """What it says to these bytes, which came at its own speed."""
        if self._stream.held and now - self._heard_at > self.gap_s:
            self._stream.end()
            while self._stream.next_event() is not None:
                pass
        self._heard_at = now
        self._stream.receive_data(data)
        said = b""
        while (event := self._stream.next_event()) is not None:
            if not isinstance(event, FoundFrame) or event.frame.from_meter:
                continue
            asked = messages.from_frame(event.frame)
            if isinstance(asked, ChangeSpeed) and asked.speed and matches(asked.address, self.address):
                said += build(messages.to_frame(SpeedReply(self.address, asked.word)))
                self.baud = asked.speed
                continue
            self.meter.receive_data(event.raw, now)
            said += self.meter.data_to_send()
        return said


class MeterLine:
    """See the module. paced: bytes take their time on the line, and meters think before they answer; by the
    meters' speed where the other side has none."""

    def __init__(
        self,
        meters: Sequence[Hanging],
        counts: Counter[str],
        *,
        faults: LineFaults | None = None,
        modem: Modem | None = None,
        paced: bool = False,
    ) -> None:
        self.ending: Ending | None = None
        self.speed: int | None = None
        self.is_here = False
        self._meters = tuple(meters)
        self._counts = counts
        self._faults = faults or LineFaults()
        self._modem = modem or Modem()
        self._paced = paced
        self._chance = random.Random(f"{self._faults.seed}/line")
        self._chunks: deque[Chunk] = deque()
        self._beat_at: float | None = None

    def dial(self, now: float) -> None:
        """See Station."""
        self.lost()
        self.is_here = True
        modem = self._modem
        if modem.registration:
            self._counts["registrations"] += 1
            self._chunks.append(Chunk(now, modem.registration))
        if modem.heartbeat:
            self._beat_at = now + modem.heartbeat_s

    def lost(self) -> None:
        """See Station."""
        self.ending = None
        self.is_here = False
        self._chunks.clear()
        self._beat_at = None

    def log_out(self, now: float) -> None:
        """See Station: a line has no goodbye."""
        self.ending = Ending.CLOSE

    def next_timeout(self) -> float | None:
        """See Station."""
        times = [each.meter.next_timeout() for each in self._meters]
        times.append(self._beat_at)
        if self._chunks:
            times.append(self._chunks[0].at)
        return min((at for at in times if at is not None), default=None)

    def handle_timeout(self, now: float) -> None:
        """See Station."""
        for each in self._meters:
            each.meter.handle_timeout(now)
        if self._beat_at is not None and now >= self._beat_at:
            self._beat_at = now + self._modem.heartbeat_s
            self._counts["modem_heartbeats"] += 1
            self._chunks.append(Chunk(self._after(now), self._modem.heartbeat))

    def chunks(self, now: float) -> list[bytes]:
        """See Station."""
        due = []
        while self._chunks and self._chunks[0].at <= now and self.ending is None:
            chunk = self._chunks.popleft()
            due.append(chunk.data)
            self.ending = chunk.ending
        return due

    def receive_data(self, data: bytes, now: float) -> None:
        """See Station."""
        if self._faults.echo:
            self._counts["echo"] += 1
            self._chunks.append(Chunk(self._after(now), data))
        answers = []
        for each in self._meters:
            if self.speed is not None and each.baud != self.speed:
                self._counts["wrong_speed"] += 1
                each.hear(self._garbled(data, each.baud, self.speed), now)
                continue
            baud = each.baud
            if answer := each.hear(data, now):
                self._counts["answers"] += 1
                answers.append((baud, answer))
        if len(answers) > 1:
            self._counts["collisions"] += 1
        if answers:
            asked_s = len(data) * BITS_A_BYTE / answers[0][0] + REPLY_DELAY_S if self._paced else 0.0
            self._answer(answers[0][0], spoiled([answer for _, answer in answers]), now + asked_s)

    def _answer(self, baud: int, answer: bytes, at: float) -> None:
        """Put an answer on its way, with what goes wrong with it."""
        faults, draw = self._faults, self._chance.random
        if faults.silence and draw() < faults.silence:
            self._counts["silence"] += 1
            return
        if faults.damage and draw() < faults.damage:
            self._counts["damage"] += 1
            place = self._chance.randrange(len(answer))
            answer = answer[:place] + bytes([answer[place] ^ 0x10]) + answer[place + 1 :]
        if faults.noise and draw() < faults.noise:
            self._counts["noise"] += 1
            answer = self._rubbish() + answer + self._rubbish()
        ending = None
        if faults.drop and draw() < faults.drop:
            self._counts["drop"] += 1
            answer, ending = answer[: len(answer) // 2], Ending.ABORT
        self._put(answer, self._after(at), BITS_A_BYTE / baud if self._paced else 0.0, ending)

    def _put(self, data: bytes, at: float, byte_s: float, ending: Ending | None) -> None:
        """Write `data`; each byte has come when its last bit has."""
        slow_s = self._faults.slow_s
        if slow_s:
            self._counts["slow"] += 1
        byte_s += slow_s
        piece = len(data) if not byte_s else max(1, int(PIECE_S / byte_s))
        for start in range(0, len(data), piece):
            part = data[start : start + piece]
            at += byte_s * len(part)
            last = start + piece >= len(data)
            self._chunks.append(Chunk(at, part, ending if last else None))

    def _after(self, at: float) -> float:
        return max(at, self._chunks[-1].at) if self._chunks else at

    def _rubbish(self) -> bytes:
        return self._chance.randbytes(self._chance.randint(1, MOST_NOISE))

    def _garbled(self, data: bytes, baud: int, speed: int) -> bytes:
        """What a meter of `baud` makes out of bytes at another speed."""
        return self._chance.randbytes(max(1, len(data) * baud // speed))


def spoiled(answers: Sequence[bytes]) -> bytes:
    """What is heard of answers said at the same time: a 0 on the line wins over a 1."""
    together = bytearray()
    for column in zip_longest(*answers, fillvalue=0xFF):
        byte = 0xFF
        for each in column:
            byte &= each
        together.append(byte)
    return bytes(together)
