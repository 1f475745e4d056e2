"""Time in the simulated district: one count of seconds, fast if wanted, and the wall clocks by it."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

_EPOCH_IN_SHANGHAI = datetime(1970, 1, 1, 8)


@dataclass(frozen=True, slots=True)
class Clock:
    """At the real instant `origin` (seconds of time.time()) it shows `start`, and it runs at `speed`.

    Devices take its `now()` as their count of seconds, for timers and for the time of day alike. stands: it
    shows `start` for ever, so that equal questions have equal answers, and no timer comes due.
    """

    origin: float = 0.0
    start: float = 0.0
    speed: float = 1.0
    stands: bool = False

    def now(self) -> float:
        """Seconds since 1970-01-01 00:00 UTC in the district."""
        if self.stands:
            return self.start
        return self.start + (time.time() - self.origin) * self.speed

    def real_seconds(self, seconds: float) -> float:
        """How long `seconds` of the district last in reality."""
        return max(0.0, seconds) / self.speed


def wall(now: float) -> datetime:
    """The district's seconds as a correct wall clock in Shanghai: naive, as meters and terminals know it."""
    return _EPOCH_IN_SHANGHAI + timedelta(seconds=now)


def seconds(wall_clock: datetime) -> float:
    """The district's seconds when a correct wall clock shows `wall_clock`: the inverse of `wall`."""
    return (wall_clock - _EPOCH_IN_SHANGHAI).total_seconds()


def seconds_of(text: str) -> float:
    """An ISO time with its offset as the district's seconds. ValueError for anything else."""
    instant = datetime.fromisoformat(text)
    if instant.tzinfo is None:
        raise ValueError(f"{text!r} needs its offset, such as 2026-11-24T00:00:00+08:00")
    return instant.astimezone(UTC).timestamp()
