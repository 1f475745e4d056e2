"""Drives a course through a made-up night, with a function that plays the terminal."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import date, datetime, timedelta

from gateway.collection.course import (
    AskMeter,
    AskPoints,
    Course,
    Order,
    Pause,
)
from gateway.collection.plan import due
from gateway.collection.policy import Policy
from gateway.model import Due, Point, Reason
from tests.gateway.collection.world import DAY, MORNING, assets_of, fail, point, policy

Answer = tuple[set[int], dict[int, Reason], bool]
"""meters had, meter -> why not, halve"""

METER_SAYS = Reason.METER_SILENT


def course_of(
    points: Sequence[Point],
    how: Policy | None = None,
    *,
    days: Sequence[date] = (DAY,),
    now: datetime = MORNING,
    take: Callable[[datetime], bool] = lambda now: True,
    stored: Sequence[Due] = (),
) -> Course:
    assets = assets_of(points)
    dues = [one for day in days for one in due(assets, day)]
    how = how or policy()
    return Course(
        assets,
        dues,
        [one for one in dues if one not in stored],
        how,
        now=now,
        deadline=now + timedelta(seconds=how.longest),
        store_days=30,
        take=take,
        chance=lambda: 0.0,
    )


class Night:
    """Drives a course by a function that plays the terminal, until the course is finished."""

    def __init__(self, course: Course, answer: Callable[[Sequence[Due]], Answer], *, most: int = 16) -> None:
        self.course = course
        self.answer = answer
        self.most = most
        self.now = MORNING
        self.asked: list[list[int]] = []
        self.directly: list[Due] = []
        self.meter: Callable[[Due], Reason | None] = lambda one: None
        self.reading: bool | None = False
        self.states = 0
        self.pauses: list[float] = []
        self.refreshes = 0

    def run(self, steps: int = 5000) -> Night:
        for _ in range(steps):
            step = self.course.step(self.now, lambda quantity, kind: self.most)
            if step is Order.FINISHED:
                return self
            self.carry_out(step)
        raise AssertionError("the course does not end")

    def carry_out(self, step: object) -> None:
        course = self.course
        if isinstance(step, AskPoints):
            assert step.dues
            self.asked.append([one.pn for one in step.dues])
            had, told, halve = self.answer(step.dues)
            failures = [fail(one, told[one.meter_id]) for one in step.dues if one.meter_id in told]
            course.filed(course.answered(step.dues, had, failures, halve=halve))
        elif isinstance(step, AskMeter):
            self.directly.append(step.due)
            reason = self.meter(step.due)
            course.metered(step, None if reason is None else fail(step.due, reason))
            if reason is None:
                course.filed([step.due])
        elif isinstance(step, Pause):
            self.pauses.append(step.seconds)
            self.now += timedelta(seconds=step.seconds)
            course.next_round(self.now)
        elif step is Order.ASK_STATE:
            self.states += 1
            course.state(self.reading)
        elif step is Order.REFRESH:
            self.refreshes += 1
            course.refreshed([])
        else:
            raise AssertionError(step)


def whole(dues: Sequence[Due]) -> Answer:
    return {one.meter_id for one in dues}, {}, False


def refuses(reason: Reason, *pns: int) -> Callable[[Sequence[Due]], Answer]:
    """A terminal that has everything but these points."""

    def answer(dues: Sequence[Due]) -> Answer:
        bad = {one.meter_id: reason for one in dues if one.pn in pns}
        return {one.meter_id for one in dues} - set(bad), bad, False

    return answer


def too_much(largest: int, reason: Reason) -> Callable[[Sequence[Due]], Answer]:
    """A terminal that takes so many points a request and no more."""

    def answer(dues: Sequence[Due]) -> Answer:
        if len(dues) <= largest:
            return whole(dues)
        return set(), {one.meter_id: reason for one in dues}, True

    return answer


def poison(reason: Reason, *pns: int) -> Callable[[Sequence[Due]], Answer]:
    """A terminal that refuses every request in which one of these points stands."""

    def answer(dues: Sequence[Due]) -> Answer:
        if not {one.pn for one in dues} & set(pns):
            return whole(dues)
        return set(), {one.meter_id: reason for one in dues}, True

    return answer


def houses(count: int, **more: object) -> list[Point]:
    return [point(pn, **more) for pn in range(1, count + 1)]  # type: ignore[arg-type]  # fields of Point by name
