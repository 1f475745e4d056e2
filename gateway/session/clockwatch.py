"""What is known of one terminal's clock, and what that means for the values it froze. No clock of its own."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from gateway.errors import InputError

MEANS_OTHER_DAYS_S: Final = 3600.0
"""A terminal whose clock is off by more did not freeze at midnight, and may call its days by other dates."""


@dataclass(frozen=True, slots=True)
class ClockCheck:
    """The terminal's clock beside ours. offset_s: positive = the terminal is ahead. at: UTC, when it was
    read."""

    offset_s: float
    at: datetime
    within_tolerance: bool


class ClockWatch:
    """Kept from login to login: a clock that was set right still leaves wrong days behind it."""

    __slots__ = ("at", "distrusted_until", "offset")

    def __init__(self) -> None:
        self.offset: float | None = None
        """seconds, positive = the terminal is ahead; None: never told"""
        self.at: datetime | None = None
        """when that was told, UTC"""
        self.distrusted_until: datetime | None = None
        """midnights up to here were frozen by a clock that was off by hours or days"""

    def note(self, offset_s: float, at: datetime) -> None:
        """The terminal told its time at `at`."""
        was_wrong = self.offset is not None and abs(self.offset) > MEANS_OTHER_DAYS_S
        if was_wrong and abs(offset_s) <= MEANS_OTHER_DAYS_S:
            self.distrusted_until = at
        self.offset, self.at = offset_s, at

    def off_by_more_than(self, tolerance_s: float) -> bool:
        """False also where nothing is known."""
        return self.offset is not None and abs(self.offset) > tolerance_s


def refuse_across_midnight(shown: datetime, right: datetime, guard_s: float) -> None:
    """InputError where a clock that shows `shown` must not be set to `right` (both naive, Shanghai): a
    midnight would be frozen twice or never."""
    guard = timedelta(seconds=guard_s)
    for wall in (shown, right):
        if (wall - guard).date() != (wall + guard).date():
            raise InputError(
                f"no clock is set within {guard_s / 60:g} minutes of a midnight (the terminal shows "
                f"{shown:%H:%M}, it is {right:%H:%M}): try again later"
            )
    if shown.date() != right.date():
        raise InputError(
            f"the terminal's clock shows {shown:%Y-%m-%d %H:%M}, it is {right:%Y-%m-%d %H:%M}: setting it "
            "would cross a midnight, which is never done from here; set it on site"
        )
