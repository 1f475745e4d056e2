"""Two links joined in memory, with a bad line between them: for tests of whatever speaks over a link."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from dataclasses import dataclass

from gateway.errors import LinkClosed
from gateway.transports.link import Certificate, Settle, Taken, settled


@dataclass(frozen=True, slots=True)
class Line:
    """How the line treats each write, by chance (0..1) and in seconds; order is always kept."""

    loss: float = 0.0
    """the whole write vanishes"""
    corrupt: float = 0.0
    """one byte of it is changed"""
    split: float = 0.0
    """it comes in two parts; applied again to the second"""
    delay_s: tuple[float, float] = (0.0, 0.0)
    """evenly between these"""


class MemoryLink:
    """One end; satisfies `Link`. Made by `pair`."""

    def __init__(
        self, peer: str, line: Line, chance: random.Random, limit: int, write_deadline_s: float
    ) -> None:
        self.peer = peer
        self.source = peer.rpartition(":")[0]
        self.certified_as: Certificate | None = None
        self.only_for: frozenset[str] | None = None
        self.writes: list[bytes] = []
        """everything written at this end, as it was handed over, for tests to look at"""
        self.takes_now: int | None = None
        """so many bytes of what must leave at once do; None: all"""
        self.stands = False
        """a link of which nothing left goes on, as over a broker"""
        self._line = line
        self._chance = chance
        self._limit = limit
        self._deadline = write_deadline_s
        self._other: MemoryLink
        self._buffer = bytearray()
        self._under_way: deque[bytes] = deque()
        self._changed = asyncio.Event()
        self._ended = False
        self._last_arrival = 0.0

    @property
    def waiting(self) -> int:
        """Bytes that have come and were not read yet."""
        return len(self._buffer)

    @property
    def ended(self) -> bool:
        """Has either end closed?"""
        return self._ended

    async def read(self) -> tuple[bytes, Settle]:
        """See `Link.read`."""
        if self._buffer:
            await asyncio.sleep(0)
        while not self._buffer:
            if self._ended:
                raise LinkClosed(f"{self.peer} has closed the link")
            self._changed.clear()
            await self._changed.wait()
        data = bytes(self._buffer)
        self._buffer.clear()
        self._changed.set()
        return data, settled

    async def write(self, data: bytes) -> None:
        """See `Link.write`."""
        if self._ended:
            raise LinkClosed(f"{self.peer} has closed the link")
        self.writes.append(data)
        for part in self._through(data):
            self._send(part)
        try:
            async with asyncio.timeout(self._deadline):
                while len(self._other._buffer) > self._limit:
                    self._other._changed.clear()
                    await self._other._changed.wait()
        except TimeoutError:
            self.abort()
            raise LinkClosed(f"{self.peer} took no bytes for {self._deadline:g} s") from None

    @property
    def unsent(self) -> int:
        """See `Link.unsent`: nothing ever waits at this end."""
        return 0

    def write_now(self, data: bytes) -> Taken:
        """See `Link.write_now`."""
        taken = len(data) if self.takes_now is None else min(self.takes_now, len(data))
        if self._ended or len(self._other._buffer) > self._limit:
            taken = 0
        if taken:
            self.writes.append(data[:taken])
            for part in self._through(data[:taken]):
                self._send(part)
        if taken == len(data):
            return Taken.WHOLE
        if taken or not self.stands:
            self.abort()
        return Taken.PERHAPS if taken else Taken.NOTHING

    def _through(self, data: bytes) -> list[bytes]:
        line, chance = self._line, self._chance
        if chance.random() < line.loss:
            return []
        if data and chance.random() < line.corrupt:
            at = chance.randrange(len(data))
            data = data[:at] + bytes([data[at] ^ chance.randrange(1, 256)]) + data[at + 1 :]
        parts = []
        while len(data) > 1 and chance.random() < line.split:
            cut = chance.randrange(1, len(data))
            parts.append(data[:cut])
            data = data[cut:]
        return [*parts, data]

    def _send(self, part: bytes) -> None:
        low, high = self._line.delay_s
        if high <= 0 and not self._under_way:
            self._other._arrive(part)
            return
        loop = asyncio.get_running_loop()
        self._last_arrival = max(self._last_arrival, loop.time() + self._chance.uniform(low, high))
        self._under_way.append(
            part
        )  # timers of the same instant may fire in any order: each takes the oldest
        loop.call_at(self._last_arrival, self._deliver)

    def _deliver(self) -> None:
        self._other._arrive(self._under_way.popleft())

    def _arrive(self, part: bytes) -> None:
        if not self._ended:
            self._buffer += part
            self._changed.set()

    async def close(self) -> None:
        """See `Link.close`: the other end reads what was written, then finds the end."""
        loop = asyncio.get_running_loop()
        wait = self._last_arrival - loop.time()
        if wait > 0 and not self._ended:
            await asyncio.sleep(wait)
        self.abort()

    def abort(self) -> None:
        """See `Link.abort`."""
        for end in (self, self._other):
            end._ended = True
            end._changed.set()

    def vanish(self) -> None:
        """Drop off the line without a word, as a terminal does that loses its radio: the other end learns
        nothing, and what it writes is lost."""
        self._other._line = Line(loss=1.0)
        self._line = Line(loss=1.0)


def pair(
    seed: int = 0,
    *,
    up: Line | None = None,
    down: Line | None = None,
    peer: str = "192.0.2.1:40000",
    limit: int = 65_536,
    write_deadline_s: float = 20.0,
) -> tuple[MemoryLink, MemoryLink]:
    """(the gateway's end, the terminal's end); `up` is the line towards the gateway. The same seed gives
    the same faults for the same writes.
    """
    chance = random.Random(seed)
    ours = MemoryLink(peer, down or Line(), random.Random(chance.random()), limit, write_deadline_s)
    theirs = MemoryLink(
        "192.0.2.250:3761", up or Line(), random.Random(chance.random()), limit, write_deadline_s
    )
    ours._other, theirs._other = theirs, ours
    return ours, theirs
