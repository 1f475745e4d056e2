"""When a course asks meters themselves, which, and how many."""

from __future__ import annotations

from datetime import date, datetime, timedelta

import pytest

from gateway.clock import SHANGHAI, frozen_at
from gateway.collection.course import (
    METER_TROUBLE_LIMIT,
)
from gateway.collection.policy import Allowance, Direct, Policy
from gateway.model import Kind, PointRole, Quantity, Reason
from tests.gateway.collection.drive import (
    METER_SAYS,
    Night,
    course_of,
    houses,
    refuses,
    whole,
)
from tests.gateway.collection.world import DAY, MORNING, point, policy


@pytest.mark.parametrize(
    ("reading", "asked", "directly"),
    [
        (False, 2, 1),  # done, and no value: once more, then the meter
        (None, 5, 1),  # it does not say: all tries, then the meter
        (True, 5, 0),  # still reading: the meter is left to it
    ],
)
def test_when_the_meter_itself_is_asked_for_what_the_terminal_lacks(
    reading: bool | None, asked: int, directly: int
) -> None:
    night = Night(course_of(houses(5)), refuses(Reason.NO_VALUE_YET, 3))
    night.reading = reading
    night.run()
    assert sum(3 in one for one in night.asked) == asked
    assert [one.pn for one in night.directly] == [3] * directly
    assert night.course.missing == 1 - directly


@pytest.mark.parametrize("reason", [Reason.ARCHIVE_DIFFERS, Reason.NOT_IN_ARCHIVE, Reason.NOT_SUPPORTED])
def test_what_the_terminal_can_never_give_goes_to_the_meter_at_once(reason: Reason) -> None:
    night = Night(course_of(houses(5)), refuses(reason, 3)).run()
    assert sum(3 in one for one in night.asked) == 1
    assert [one.pn for one in night.directly] == [3]
    assert night.course.missing == 0
    assert night.pauses == []


@pytest.mark.parametrize("reason", [Reason.WRONG_DATE, Reason.BAD_VALUE])
def test_a_wrong_value_is_asked_again_and_then_of_the_meter(reason: Reason) -> None:
    night = Night(course_of(houses(5)), refuses(reason, 3)).run()
    assert sum(3 in one for one in night.asked) == 2
    assert [one.pn for one in night.directly] == [3]
    assert night.course.missing == 0


def test_a_day_past_the_store_is_asked_of_the_meters_only() -> None:
    old = DAY - timedelta(days=30)
    night = Night(course_of(houses(3), days=[DAY, old]), whole).run()
    assert night.asked == [[1, 2, 3]]
    assert [one.frozen_at for one in night.directly] == [frozen_at(old)] * 3
    assert night.course.missing == 0


def test_a_meter_that_is_gone_is_not_asked() -> None:
    gone = point(1, valid_to=MORNING - timedelta(hours=1))
    night = Night(course_of([gone, point(2)]), refuses(Reason.ARCHIVE_DIFFERS, 1, 2)).run()
    assert [one.pn for one in night.directly] == [2]
    assert night.course.reasons() == {Reason.ARCHIVE_DIFFERS: 1}


def test_gateways_first_then_newest_then_by_pn() -> None:
    points = [point(1), point(2), point(8, role=PointRole.AREA_GATEWAY), point(9, role=PointRole.BUS)]
    days = [DAY - timedelta(days=1), DAY]
    everything = refuses(Reason.ARCHIVE_DIFFERS, 1, 2, 8, 9)
    night = Night(course_of(points, days=days), everything).run()
    order = [(one.pn, one.frozen_at == frozen_at(DAY)) for one in night.directly]
    assert order == [
        *[(8, True)] * 2,
        *[(9, True)] * 2,
        *[(8, False)] * 2,
        *[(9, False)] * 2,
        (1, True),
        (2, True),
        (1, False),
        (2, False),
    ]


def test_the_allowance_bounds_direct_reads_and_says_so() -> None:
    allowance = Allowance(2)
    course = course_of(houses(5), take=lambda now: allowance.take("02000001", now))
    night = Night(course, refuses(Reason.ARCHIVE_DIFFERS, 1, 2, 3, 4, 5)).run()
    assert len(night.directly) == 2
    assert course.reasons() == {Reason.ALLOWANCE_USED: 3}
    assert {one.detail for one in course.failures()} == {"after archive_differs"}


@pytest.mark.parametrize(
    ("direct", "hour", "allowed"),
    [
        (Direct.NEVER, 12, False),
        (Direct.ALWAYS, 3, True),
        (Direct.DAYTIME, 7, False),
        (Direct.DAYTIME, 8, True),
        (Direct.DAYTIME, 19, True),
        (Direct.DAYTIME, 20, False),
    ],
)
def test_meters_are_asked_when_policy_allows(direct: Direct, hour: int, allowed: bool) -> None:
    now = datetime(2026, 11, 24, hour, 0, tzinfo=SHANGHAI)
    assert Policy(direct=direct).may_ask_meters(now) is allowed
    night = Night(course_of(houses(1), policy(direct=direct), now=now), refuses(Reason.ARCHIVE_DIFFERS, 1))
    night.now = now
    night.run()
    assert bool(night.directly) is allowed
    assert night.course.reasons() == ({} if allowed else {Reason.ARCHIVE_DIFFERS: 1})


@pytest.mark.parametrize(
    "reason", [METER_SAYS, Reason.METER_REFUSED, Reason.METER_FREEZE_MISSING, Reason.WRONG_METER]
)
def test_what_the_meter_said_last_is_the_reason(reason: Reason) -> None:
    night = Night(course_of(houses(3)), refuses(Reason.ARCHIVE_DIFFERS, 2))
    night.meter = lambda one: reason
    night.run()
    assert night.course.reasons() == {reason: 1}
    assert len(night.directly) == 1


def test_a_terminal_that_does_not_forward_is_not_asked_to_for_long() -> None:
    night = Night(course_of(houses(10)), refuses(Reason.ARCHIVE_DIFFERS, *range(1, 11)))
    night.meter = lambda one: Reason.TERMINAL_DENIED
    night.run()
    assert len(night.directly) == METER_TROUBLE_LIMIT
    assert night.course.reasons() == {Reason.ARCHIVE_DIFFERS: 10}


def test_a_direct_read_at_month_end_is_asked_by_its_due() -> None:
    last = date(2026, 10, 31)
    course = course_of(houses(1), days=[last], now=datetime(2026, 11, 1, 9, 0, tzinfo=SHANGHAI))
    night = Night(course, refuses(Reason.ARCHIVE_DIFFERS, 1))
    night.now = datetime(2026, 11, 1, 9, 0, tzinfo=SHANGHAI)
    night.run()
    assert [(one.kind, one.quantity) for one in night.directly] == [
        (Kind.DAY, Quantity.FORWARD_ACTIVE),
        (Kind.MONTH, Quantity.FORWARD_ACTIVE),
    ]
