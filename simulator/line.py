"""The line between a terminal and its master, and what goes wrong on it. No socket, no clock.

Drive it like the terminal itself: it passes the calls on, and turns the terminal's frames into chunks of
bytes with a time for each, some of them late, damaged, in pieces or stuck together; `ending` says when and
how the line is to break.
"""

from __future__ import annotations

import random
from collections import Counter, deque
from dataclasses import dataclass
from enum import Enum

from simulator.faults import Faults, TerminalFaults
from simulator.terminal import Outgoing, State, Terminal

MERGE_HOLD = 1.0
"""Seconds that a frame waits for another to go along with."""
SPLIT_GAP = 0.05
"""Seconds between the pieces of one frame."""
_MOST_PIECES = 4


class Ending(Enum):
    CLOSE = "the terminal closes it"
    ABORT = "it breaks, and both sides notice"
    VANISH = "it stays open and silent; the terminal dials anew"


@dataclass(frozen=True, slots=True)
class Chunk:
    """Bytes for one write at a time, and what becomes of the link after it."""

    at: float
    data: bytes
    ending: Ending | None = None


class Line:
    """One terminal with its line. `started`: now at the start, from which the dealt times count."""

    def __init__(
        self, terminal: Terminal, started: float, faults: Faults, mine: TerminalFaults, counts: Counter[str]
    ) -> None:
        self.terminal = terminal
        self.ending: Ending | None = None
        """Set when the present link is to end; the caller ends it and calls `lost`."""
        self.speed: int | None = None
        """A terminal hears at any speed."""
        self._faults = faults
        self._counts = counts
        self._chance = random.Random(f"{mine.seed}/line")
        self._vanish_at = deque(started + after for after in mine.vanish_after)
        self._chunks: deque[Chunk] = deque()
        self._kept = b""
        self._kept_until: float | None = None
        self._is_good = not (faults.delay or faults.corrupt or faults.split or faults.merge)

    @property
    def is_here(self) -> bool:
        """Is its terminal logged in?"""
        return self.terminal.state is State.HERE

    def dial(self, now: float) -> None:
        """A new link is open."""
        self.lost()
        self.terminal.dial(now)
        self._take(now)

    def lost(self) -> None:
        """The link has ended; what was on its way is gone."""
        self.ending = None
        self._chunks.clear()
        self._kept = b""
        self._kept_until = None
        self.terminal.lost()

    def receive_data(self, data: bytes, now: float) -> None:
        """Bytes from the master."""
        self.terminal.receive_data(data, now)
        self._take(now)

    def log_out(self, now: float) -> None:
        """Let the terminal say goodbye; `ending` follows."""
        self.terminal.log_out(now)
        self._take(now)

    def next_timeout(self) -> float | None:
        """When `handle_timeout` or `chunks` is wanted next."""
        times = [self.terminal.next_timeout(), self._kept_until]
        if self._chunks:
            times.append(self._chunks[0].at)
        if self._vanish_at and self.terminal.state is State.HERE:
            times.append(self._vanish_at[0])
        return min((at for at in times if at is not None), default=None)

    def handle_timeout(self, now: float) -> None:
        """Do what is due by `now`."""
        self.terminal.handle_timeout(now)
        self._take(now)
        if self._kept_until is not None and now >= self._kept_until:
            self._queue(b"", now)
        if self._vanish_at and now >= self._vanish_at[0] and self.terminal.state is State.HERE:
            self._vanish_at.popleft()
            self._counts["vanish"] += 1
            self.ending = Ending.VANISH

    def chunks(self, now: float) -> list[bytes]:
        """Take the bytes to be written by `now`; each is one write. They may bring about the `ending`."""
        due = []
        while self._chunks and self._chunks[0].at <= now and self.ending is not Ending.ABORT:
            chunk = self._chunks.popleft()
            due.append(chunk.data)
            self.ending = chunk.ending or self.ending
        if self.terminal.hang_up and not self._chunks and self.ending is None:
            self.ending = Ending.CLOSE
        return due

    def _take(self, now: float) -> None:
        for outgoing in self.terminal.outgoing():
            if outgoing.cut:
                self._counts["cut"] += 1
                half = outgoing.frame[: len(outgoing.frame) // 2]
                self._chunks.append(Chunk(self._after(now), half, Ending.ABORT))
            elif self._is_good:
                self._chunks.append(Chunk(now, outgoing.frame))
            else:
                self._send_badly(outgoing, now)

    def _send_badly(self, outgoing: Outgoing, now: float) -> None:
        faults = self._faults
        draw = self._chance.random
        frame = outgoing.frame
        at = now
        if faults.corrupt and draw() < faults.corrupt.fraction:
            self._counts["corrupt"] += 1
            frame = self._corrupted(frame)
        if faults.delay and outgoing.answer and draw() < faults.delay.fraction:
            self._counts["delay"] += 1
            at += self._chance.uniform(faults.delay.least, faults.delay.most)
        if self._kept:
            self._counts["merge"] += 1
        elif faults.merge and draw() < faults.merge.fraction:
            self._kept, self._kept_until = frame, at + MERGE_HOLD
            return
        self._queue(frame, at)

    def _queue(self, frame: bytes, at: float) -> None:
        """Put `frame`, with what was kept back for it, on its way: behind all that is on its way already."""
        data = self._kept + frame
        self._kept, self._kept_until = b"", None
        at = self._after(at)
        split = self._faults.split
        if split and len(data) > _MOST_PIECES and self._chance.random() < split.fraction:
            self._counts["split"] += 1
            places = sorted(
                self._chance.sample(range(1, len(data)), self._chance.randint(1, _MOST_PIECES - 1))
            )
            for start, end in zip([0, *places], [*places, len(data)], strict=True):
                self._chunks.append(Chunk(at, data[start:end]))
                at += SPLIT_GAP
        else:
            self._chunks.append(Chunk(at, data))

    def _after(self, at: float) -> float:
        return max(at, self._chunks[-1].at) if self._chunks else at

    def _corrupted(self, frame: bytes) -> bytes:
        place = self._chance.randrange(len(frame))
        flipped = frame[place] ^ (1 << self._chance.randrange(8))
        return frame[:place] + bytes([flipped]) + frame[place + 1 :]
