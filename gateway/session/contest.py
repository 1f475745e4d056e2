"""Do two devices use one terminal address? Rules only: no link, no clock.

A terminal that lost its radio dials again and leaves a dead connection behind: that is no contest. It is one
when the older peer sends a valid frame after the takeover, or when the address went to and fro three times
between two sources within ten minutes. It ends when one of the two has been silent for three heartbeats.
"""

from __future__ import annotations

from collections import deque
from typing import Final

TAKEOVERS: Final = 3
TAKEOVER_WINDOW_S: Final = 600.0
"""Three takeovers between two sources in ten minutes are a contest by themselves."""


class Contest:
    """What was seen of one terminal address. Times are seconds of one steady clock."""

    __slots__ = ("_evidence_at", "_silence_s", "_takeovers")

    def __init__(self, silence_s: float) -> None:
        """silence_s: three heartbeats."""
        self._silence_s = silence_s
        self._takeovers: deque[tuple[float, str, str]] = deque(maxlen=TAKEOVERS)
        self._evidence_at: float | None = None

    def took_over(self, old: str, new: str, now: float) -> bool:
        """A login from source `new` took the address over from source `old`. True: contested from now on, and
        was not before."""
        before = self.contested(now)
        self._takeovers.append((now, old, new))
        if before or self._to_and_fro(now):
            self._evidence_at = now
        return self.contested(now) and not before

    def older_spoke(self, now: float) -> bool:
        """A peer that was taken over from sent a valid frame. True: contested from now on, and was not
        before."""
        before = self.contested(now)
        self._evidence_at = now
        return not before

    def contested(self, now: float) -> bool:
        """Is it contested at `now`?"""
        return self._evidence_at is not None and now - self._evidence_at < self._silence_s

    def forgettable(self, now: float) -> bool:
        """Nothing that was seen matters any more."""
        recent = self._takeovers and now - self._takeovers[-1][0] < TAKEOVER_WINDOW_S
        return not recent and not self.contested(now)

    def _to_and_fro(self, now: float) -> bool:
        if len(self._takeovers) < TAKEOVERS or now - self._takeovers[0][0] > TAKEOVER_WINDOW_S:
            return False
        (_, old, new), *rest = self._takeovers
        return old != new and all(
            (left, right) == ((new, old) if number % 2 == 0 else (old, new))
            for number, (_, left, right) in enumerate(rest)
        )
