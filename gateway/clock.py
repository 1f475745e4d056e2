"""The only clock. Instants are UTC; days are business days of Asia/Shanghai."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, timezone

SHANGHAI = timezone(timedelta(hours=8), "Asia/Shanghai")
"""China has kept +08:00 without summer time since 1991; meters know no other."""


@dataclass(frozen=True, slots=True)
class Clock:
    """Time as the head-end sees it; `speed` above 1 makes a night pass quickly on the bench.

    At the real instant `origin` (seconds of time.time()) it shows `start` (the same by default).
    """

    origin: float = 0.0
    start: float = 0.0
    speed: float = 1.0

    def now(self) -> datetime:
        """The present instant, UTC, aware."""
        return datetime.fromtimestamp(self.start + (time.time() - self.origin) * self.speed, UTC)

    def monotonic(self) -> float:
        """Seconds that never jump: for timeouts and backoff, in this clock's seconds."""
        return time.monotonic() * self.speed

    async def sleep(self, seconds: float) -> None:
        """Wait `seconds` of this clock."""
        await asyncio.sleep(max(0.0, seconds) / self.speed)


def frozen_at(day: date) -> datetime:
    """The instant that closes business day `day`: the next midnight in Shanghai, as UTC."""
    return datetime(day.year, day.month, day.day, tzinfo=SHANGHAI).astimezone(UTC) + timedelta(days=1)


def business_day(instant: datetime) -> date:
    """The business day that `instant` lies in (a midnight opens its day)."""
    return instant.astimezone(SHANGHAI).date()


def from_device(naive: datetime) -> datetime:
    """A device's wall clock (naive, Shanghai) as UTC."""
    return naive.replace(tzinfo=SHANGHAI).astimezone(UTC)


def to_device(instant: datetime) -> datetime:
    """UTC as a device's wall clock (naive, Shanghai)."""
    return instant.astimezone(SHANGHAI).replace(tzinfo=None)
