"""What a collection comes to: per terminal while it runs, in all at its end. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple

from gateway.collection.course import Course
from gateway.model import Reason


class Terminals(NamedTuple):
    """Terminals of one collection, by what they are doing."""

    all: int
    working: int
    waiting: int
    """between two rounds, for their turn, or for a redial"""
    absent: int
    finished: int


class Progress(NamedTuple):
    """How far a collection is, in due readings. `due` grows while terminals are being looked up."""

    done: int
    """stored: before it began, or filed by it"""
    due: int
    terminals: Terminals


@dataclass(frozen=True, slots=True)
class Summary:
    """What a collection came to. due = collected + missing; `collected` includes what was stored before."""

    due: int = 0
    collected: int = 0
    missing: int = 0
    already: int = 0
    """of `collected`: stored before the collection began"""
    meters: int = 0
    meters_complete: int = 0
    """meters that lack nothing of what they owe"""
    reasons: Counter[Reason] = field(default_factory=Counter)
    """why the missing ones are missing"""
    seconds: float = 0.0
    readings_per_second: float = 0.0
    """newly collected ones, over the whole time"""
    stopped: int = 0
    """terminals left because of an error of our own; see the log"""


class State(Enum):
    """What a terminal of the collection is waiting for."""

    QUEUED = "its turn"
    WORKING = "the end of its turn"
    PAUSED = "its next round"
    LOST = "its redial"
    ABSENT = "its login, accounted for as absent"
    FINISHED = "nothing"


class Visit:
    """One terminal of one collection, and what came of it so far."""

    __slots__ = (
        "address",
        "already",
        "collected",
        "course",
        "due",
        "expired",
        "meters",
        "meters_complete",
        "reasons",
        "resumes",
        "state",
        "taken_up",
        "ticket",
    )

    def __init__(self, address: str) -> None:
        self.address = address
        self.state = State.FINISHED
        self.course: Course | None = None
        self.ticket = 0
        """grows with each change of state; a timer with an older one is void"""
        self.resumes = False
        """its next turn begins a new round"""
        self.expired = False
        """it was lost and has not dialled in again in time"""
        self.taken_up = 0
        """logins after which it was looked at anew"""
        self.due = self.collected = self.meters = self.meters_complete = 0
        self.already: int | None = None
        self.reasons: Counter[Reason] = Counter()

    def account(self) -> None:
        """Keep what the course came to, and let go of the course."""
        course = self.course
        if course is not None:
            self.due, self.collected, self.meters = course.due, course.collected, course.meters
            self.meters_complete = course.meters - course.meters_missing()
            self.reasons = course.reasons()
            self.course = None

    @property
    def missing(self) -> int:
        return self.due - self.collected if self.course is None else self.course.missing


def progress(visits: Collection[Visit]) -> Progress:
    """Where a running collection stands."""
    done = due = 0
    states: Counter[State] = Counter()
    for visit in visits:
        counts = visit.course or visit
        done += counts.collected
        due += counts.due
        states[visit.state] += 1
    waiting = states[State.QUEUED] + states[State.PAUSED] + states[State.LOST]
    return Progress(
        done,
        due,
        Terminals(len(visits), states[State.WORKING], waiting, states[State.ABSENT], states[State.FINISHED]),
    )


def summary(visits: Collection[Visit], seconds: float, stopped: int) -> Summary:
    """What an ended collection came to, in `seconds` of the clock."""
    due = sum(visit.due for visit in visits)
    collected = sum(visit.collected for visit in visits)
    already = sum(visit.already or 0 for visit in visits)
    reasons: Counter[Reason] = Counter()
    for visit in visits:
        reasons.update(visit.reasons)
    return Summary(
        due=due,
        collected=collected,
        missing=due - collected,
        already=already,
        meters=sum(visit.meters for visit in visits),
        meters_complete=sum(visit.meters_complete for visit in visits),
        reasons=reasons,
        seconds=seconds,
        readings_per_second=(collected - already) / seconds if seconds > 0 else 0.0,
        stopped=stopped,
    )
