"""What comes back on a half-duplex adapter of what was just written, taken out of what is read.

Only bytes equal to those written are taken, whole writes only, and while they can be on their way: what turns
out to be no echo is given on as it came. So a meter's answer, which begins like its question, is never lost.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from gateway.transports.channel import Echo

LATE_S: Final = 0.5
"""After the last bit an echo may take so long through an adapter and its driver."""

NOISE: Final = 16
"""Bytes of rubbish that may stand before an echo: the line swings when the sender is switched on."""

MISSES: Final = 3
"""So many writes without an echo, and none with one, and there is no such adapter."""

WRITES: Final = 64
"""Most writes whose echoes are looked for at once."""


class EchoFilter:
    """All times are in seconds of any clock that never jumps."""

    def __init__(self, mode: Echo) -> None:
        self._active = mode != "off"
        self._finding_out = mode == "auto"
        self._writes: deque[tuple[bytes, float]] = deque(maxlen=WRITES)
        """whose echo has not come, and until when it may"""
        self._held = bytearray()
        """what has come and may be the beginning of the first echo"""
        self._noise = 0
        self._misses = 0

    @property
    def active(self) -> bool:
        """Is an echo looked for at all?"""
        return self._active

    @property
    def deadline(self) -> float | None:
        """When to call `expired`: bytes are held back until then."""
        return self._writes[0][1] if self._held and self._writes else None

    def written(self, data: bytes, now: float, line_s: float) -> None:
        """`data` goes out now, behind what was written before, and takes `line_s` on the line."""
        self._forget(now)
        if not self._active or not data:
            return
        begins = max(now, self._writes[-1][1] - LATE_S) if self._writes else now
        self._writes.append((data, begins + line_s + LATE_S))

    def received(self, data: bytes, now: float) -> bytes:
        """What of `data`, and of what was held, is no echo; may be empty."""
        self._forget(now)
        self._held += data
        given = bytearray()
        while self._held and self._writes:
            echo = self._writes[0][0]
            if self._held.startswith(echo):
                del self._held[: len(echo)]
                self._seen()
            elif echo.startswith(self._held):
                return bytes(given)
            else:
                given.append(self._held.pop(0))
                self._noise += 1
                if self._noise > NOISE:
                    self._missed()
        return bytes(given) + self._all_held()

    def expired(self, now: float) -> bytes:
        """What was held back, where the time for its echo is over."""
        return self.received(b"", now)

    def _forget(self, now: float) -> None:
        while self._writes and now >= self._writes[0][1]:
            self._missed()

    def _seen(self) -> None:
        self._writes.popleft()
        self._noise = self._misses = 0
        self._finding_out = False

    def _missed(self) -> None:
        self._writes.popleft()
        self._noise = 0
        self._misses += 1
        if self._finding_out and self._misses >= MISSES:
            self._active = False
            self._writes.clear()

    def _all_held(self) -> bytes:
        held = bytes(self._held)
        self._held.clear()
        return held
