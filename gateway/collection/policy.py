"""How hard a collection tries: reasons, rounds and pauses, direct reads, points in a request. Pure."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field, replace
from datetime import datetime, time, timedelta
from enum import Enum
from typing import Final

from gateway.clock import to_device
from gateway.config import CollectionSettings
from gateway.model import Reason

NO_VALUE: Final = frozenset({Reason.NO_VALUE_YET, Reason.LEFT_OUT, Reason.TERMINAL_DENIED})
"""How terminals say that they have nothing for this day (yet): filler, a unit left out, AFN00 F2."""

WRONG_VALUE: Final = frozenset({Reason.BAD_VALUE, Reason.WRONG_DATE})
"""The terminal has a value that is none: a slip of the moment, or it stays so (its clock is off by a day)."""

ASK_AGAIN: Final = (
    NO_VALUE
    | WRONG_VALUE
    | {
        Reason.TERMINAL_SILENT,
        Reason.DAMAGED,
        Reason.STORAGE_FAILED,
    }
)
"""Asking the terminal again, later, may help."""

ASK_METER: Final = (
    NO_VALUE
    | WRONG_VALUE
    | {
        Reason.ARCHIVE_DIFFERS,
        Reason.NOT_IN_ARCHIVE,
        Reason.PAST_STORE,
        Reason.NOT_SUPPORTED,
    }
)
"""What the terminal cannot give, the meter's own dated freeze may."""

NOT_TAKEN: Final = frozenset({Reason.TERMINAL_SILENT, Reason.TERMINAL_DENIED})
"""The terminal itself did not take the request."""

ASK_FEWER: Final = NOT_TAKEN | {Reason.DAMAGED}
"""A shorter request, or a shorter answer, may pass: asked again at once with half the points."""

GOOD_BEFORE_GROWTH: Final = 2
"""Whole answers in a row before a halved request is doubled again."""

STRIKES: Final = 2
"""A size that failed so often while half of it went well is not tried again in this run: it is too large for
the terminal's buffer, and each try costs a full timeout with its repeats."""

NIGHTLY_TRIES: Final = 2
"""In one pass of the schedule; the next pass asks again."""


class Direct(Enum):
    """When meters may be asked through AFN10."""

    NEVER = "never"
    DAYTIME = "daytime"
    ALWAYS = "always"


@dataclass(frozen=True, slots=True)
class Policy:
    """How hard one collection tries. Times in seconds of the clock."""

    tries: int = 5
    """of one due at the terminal, one a round"""
    pause: float = 30.0
    """between the first two rounds, then doubled each time, with jitter"""
    longest_pause: float = 900.0
    jitter: float = 0.25
    """up to this part of a pause is added by chance, so that terminals do not come in step"""
    silent_limit: int = 5
    """exchanges without any answer in a row that end a round: from 16 points down to one takes as many"""
    direct: Direct = Direct.ALWAYS
    daytime: tuple[time, time] = (time(8, 0), time(20, 0))
    """Shanghai, half open"""
    longest: float = 1800.0
    """of the whole collection"""
    absent_wait: float = 30.0
    """for the first login of a terminal that was not there"""
    redial_wait: float = 120.0
    """for the login of a terminal that was lost in the middle"""
    redials: int = 10
    """how often a terminal may be lost in one collection before it is left for the next"""

    def pause_after(self, round_: int, chance: float) -> float:
        """Seconds between round `round_` (from 1) and the next; `chance` in 0..1."""
        pause = min(self.longest_pause, self.pause * 2.0 ** min(round_ - 1, 32))
        return pause * (1.0 + self.jitter * chance)

    def straight(self) -> Policy:
        """The same at a terminal that keeps no values: its meters are all there is to ask, at any hour."""
        return replace(self, direct=Direct.ALWAYS)

    def may_ask_meters(self, now: datetime) -> bool:
        """Are direct reads allowed at `now` (UTC)?"""
        if self.direct is Direct.DAYTIME:
            return self.daytime[0] <= to_device(now).time() < self.daytime[1]
        return self.direct is Direct.ALWAYS


def on_demand(settings: CollectionSettings, direct: bool) -> Policy:
    """A person waits: all that can be had in `on_demand_seconds`; meters at any hour if `direct`."""
    return Policy(
        pause=settings.backoff_seconds,
        longest_pause=settings.backoff_limit_seconds,
        direct=Direct.ALWAYS if direct else Direct.NEVER,
        longest=settings.on_demand_seconds,
    )


def nightly(settings: CollectionSettings, longest: float) -> Policy:
    """One pass of the schedule, of at most `longest` seconds; it takes up later logins by itself."""
    return Policy(
        tries=NIGHTLY_TRIES,
        pause=settings.backoff_seconds,
        longest_pause=settings.backoff_limit_seconds,
        direct=Direct.DAYTIME,
        daytime=(settings.daytime_begin, settings.daytime_end),
        longest=longest,
        absent_wait=0.0,
    )


class Allowance:
    """Direct reads of each terminal in any one hour. In memory: a restart may give an hour's more."""

    def __init__(self, an_hour: int) -> None:
        self._an_hour = an_hour
        self._taken: dict[str, deque[datetime]] = {}

    def take(self, terminal: str, now: datetime) -> bool:
        """True, and one is used, if fewer than the allowed ones were taken in the hour before `now`."""
        if self._an_hour == 0:
            return False
        taken = self._taken.setdefault(terminal, deque(maxlen=self._an_hour))
        if len(taken) == self._an_hour and now - taken[0] < timedelta(hours=1):
            return False
        taken.append(now)
        return True


@dataclass(slots=True)
class RequestSize:
    """How many points fit a request: halved on denial or silence, doubled again when answers are whole."""

    _level: int = 0
    """how often halved"""
    _good: int = 0
    _suspects: set[int] = field(default_factory=set)
    """levels that failed since the last whole answers"""
    _strikes: Counter[int] = field(default_factory=Counter)

    def points(self, most: int) -> int:
        """How many to ask for where `most` would fit by the terminal's own words."""
        return max(1, most >> self._level)

    def halve(self, most: int, asked: int) -> None:
        """A request for `asked` points was denied or not answered."""
        if asked >= self.points(most):
            self._suspects.add(self._level)
        while self.points(most) > max(1, asked // 2):
            self._level += 1
        self._good = 0

    def single_failed(self) -> None:
        """One point alone failed too: the point is the trouble, not the size."""
        self._suspects.clear()
        self._good = 0

    def went_well(self) -> None:
        """A whole answer came."""
        if self._level == 0:
            return
        self._good += 1
        if self._good >= GOOD_BEFORE_GROWTH:
            self._strikes.update(self._suspects)
            self._suspects.clear()
            self._good = 0
            if self._strikes[self._level - 1] < STRIKES:
                self._level -= 1
