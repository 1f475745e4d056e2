"""What is due, what is missing, how it is put together: tables and properties."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, date, datetime, time, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.clock import SHANGHAI, frozen_at
from gateway.collection import plan
from gateway.model import Due, Kind, MeterClass, Point, PointRole, Quantity
from tests.gateway.collection.world import DAY, assets_of, point

SINGLE, THREE = MeterClass.SINGLE_PHASE, MeterClass.THREE_PHASE
FORWARD, REVERSE = Quantity.FORWARD_ACTIVE, Quantity.REVERSE_ACTIVE


def midnight(year: int, month: int, day: int) -> datetime:
    """00:00 in Shanghai, as UTC."""
    return datetime(year, month, day, tzinfo=SHANGHAI).astimezone(UTC)


@pytest.mark.parametrize(
    ("meter_class", "role", "quantities"),
    [
        (SINGLE, PointRole.CUSTOMER, [FORWARD]),
        (SINGLE, PointRole.FEED_IN, [FORWARD, REVERSE]),
        (THREE, PointRole.CUSTOMER, [FORWARD]),
        (THREE, PointRole.FEED_IN, [FORWARD, REVERSE]),
        *(
            (meter_class, role, [FORWARD, REVERSE])
            for meter_class in MeterClass
            for role in (PointRole.AREA_GATEWAY, PointRole.FEEDER_HEAD, PointRole.BUS)
        ),
    ],
)
def test_the_table_of_what_is_due(
    meter_class: MeterClass, role: PointRole, quantities: list[Quantity]
) -> None:
    dues = plan.due(assets_of([point(7, meter_class=meter_class, role=role)]), DAY)
    assert [(one.quantity, one.kind) for one in dues] == [(one, Kind.DAY) for one in quantities]
    assert {one.frozen_at for one in dues} == {midnight(2026, 11, 24)}
    month = plan.due(assets_of([point(7, meter_class=meter_class, role=role)]), date(2026, 11, 30))
    assert [one.quantity for one in month if one.kind is Kind.MONTH] == [FORWARD]
    assert {one.frozen_at for one in month} == {midnight(2026, 12, 1)}


def test_the_table_knows_every_class_and_role() -> None:
    assert set(plan.DAY_QUANTITIES) == {(one, role) for one in MeterClass for role in PointRole}


@pytest.mark.parametrize(
    ("day", "closes"),
    [
        (date(2026, 11, 29), False),
        (date(2026, 11, 30), True),
        (date(2026, 12, 31), True),
        (date(2027, 2, 28), True),
        (date(2028, 2, 28), False),
        (date(2028, 2, 29), True),
    ],
)
def test_a_month_is_due_on_its_last_business_day(day: date, closes: bool) -> None:
    assert plan.closes_month(day) is closes
    kinds = Counter(one.kind for one in plan.due(assets_of([point(1), point(2)]), day))
    assert kinds == ({Kind.DAY: 2, Kind.MONTH: 2} if closes else {Kind.DAY: 2})


def test_a_swap_at_midnight_gives_that_midnight_to_the_new_meter() -> None:
    swap = frozen_at(DAY)
    assets = assets_of([point(5, 1, valid_to=swap), point(5, 2, valid_from=swap)])
    assert [one.meter_id for one in plan.due(assets, DAY - timedelta(days=1))] == [1]
    assert [one.meter_id for one in plan.due(assets, DAY)] == [2]


def test_a_swap_at_noon_gives_the_next_midnight_to_the_new_meter() -> None:
    noon = frozen_at(DAY) - timedelta(hours=12)
    assets = assets_of([point(5, 1, valid_to=noon), point(5, 2, valid_from=noon)])
    assert [one.meter_id for one in plan.due(assets, DAY - timedelta(days=1))] == [1]
    assert [one.meter_id for one in plan.due(assets, DAY)] == [2]


instants = st.datetimes(datetime(2026, 10, 1), datetime(2026, 12, 31), timezones=st.just(UTC))
points = st.builds(
    point,
    pn=st.integers(1, 2040),
    meter_id=st.integers(1, 60),
    meter_class=st.sampled_from(MeterClass),
    role=st.sampled_from(PointRole),
    valid_from=st.none() | instants,
    valid_to=st.none() | instants,
)
some_points = st.lists(points, max_size=40, unique_by=lambda one: one.meter_id)
some_day = st.dates(date(2026, 9, 15), date(2027, 1, 15))


@given(some_points, some_day)
def test_only_meters_that_stand_there_at_midnight_owe_anything(stand: list[Point], day: date) -> None:
    dues = plan.due(assets_of(stand), day)
    instant = frozen_at(day)
    by_meter = {one.meter_id: one for one in stand}
    for one in dues:
        at = by_meter[one.meter_id]
        assert at.pn == one.pn
        assert one.frozen_at == instant
        assert at.valid_from is None or at.valid_from <= instant
        assert at.valid_to is None or instant < at.valid_to
    assert len(dues) == len(set(dues))
    assert [one.pn for one in dues] == sorted(one.pn for one in dues)
    standing = {one.meter_id for one in stand if one.holds_at(instant)}
    assert {one.meter_id for one in dues} == standing


@given(some_points, some_day, st.data())
def test_missing_is_due_minus_rows(stand: list[Point], day: date, data: st.DataObject) -> None:
    dues = plan.due(assets_of(stand), day)
    held = data.draw(st.sets(st.sampled_from(dues))) if dues else set()
    rows = {(one.meter_id, one.quantity, one.kind) for one in held}
    lacking = plan.missing(dues, rows)
    assert set(lacking) | held == set(dues)
    assert not set(lacking) & held
    assert lacking == [one for one in dues if one not in held]
    foreign = {(999_999, Quantity.REACTIVE_Q1, Kind.LIVE)}
    assert plan.missing(dues, rows | foreign) == lacking


@given(some_points, st.lists(some_day, max_size=3, unique=True))
def test_groups_hold_each_due_once_and_nothing_mixed(stand: list[Point], some_days: list[date]) -> None:
    dues = [one for day in some_days for one in plan.due(assets_of(stand), day)]
    found = plan.groups(reversed(dues))
    assert Counter(one for group in found for one in group.dues) == Counter(dues)
    for group in found:
        assert {(one.quantity, one.kind, one.frozen_at) for one in group.dues} == {group[:3]}
        assert [one.pn for one in group.dues] == sorted(one.pn for one in group.dues)
    assert len({group[:3] for group in found}) == len(found)
    order = [(-group.frozen_at.timestamp(), group.kind, group.quantity) for group in found]
    assert order == sorted(order), "the newest midnight first, days before months"


def test_groups_take_the_least_tried_first() -> None:
    dues = plan.due(assets_of([point(pn) for pn in range(1, 6)]), DAY)
    tries = {1: 2, 2: 0, 3: 1, 4: 0, 5: 2}
    (group,) = plan.groups(dues, first=lambda one: tries[one.pn])
    assert [one.pn for one in group.dues] == [2, 4, 3, 1, 5]


def test_days_go_back_from_the_last_that_has_ended() -> None:
    assert plan.days(date(2026, 12, 2), 3) == [date(2026, 12, 1), date(2026, 11, 30), date(2026, 11, 29)]
    assert len(plan.days(date(2026, 12, 2))) == 7
    assert len(plan.days(date(2026, 12, 2), 62)) == 62
    for back in (0, 63, -1):
        with pytest.raises(ValueError, match="from 1 to 62"):
            plan.days(date(2026, 12, 2), back)


def test_the_terminal_keeps_so_many_midnights() -> None:
    now = datetime(2026, 11, 24, 0, 1, tzinfo=SHANGHAI)
    assert not plan.past_store(midnight(2026, 11, 24), now, 30)
    assert not plan.past_store(midnight(2026, 10, 26), now, 30)
    assert plan.past_store(midnight(2026, 10, 25), now, 30)
    assert not plan.past_store(midnight(2026, 10, 26), now + timedelta(hours=23, minutes=58), 30)
    assert plan.past_store(midnight(2026, 10, 26), now + timedelta(days=1), 30)


PASSES = (time(1, 30), time(4, 0), time(6, 30))


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        ((23, 0, 0), (23, 1, 30)),
        ((24, 0, 0), (24, 1, 30)),
        ((24, 1, 29), (24, 1, 30)),
        ((24, 1, 30), (24, 4, 0)),
        ((24, 4, 1), (24, 6, 30)),
        ((24, 6, 30), (24, 7, 30)),
        ((24, 22, 31), (24, 23, 30)),
        ((24, 23, 30), (25, 1, 30)),
    ],
)
def test_passes_at_settings_then_hourly_until_midnight(
    now: tuple[int, int, int], expected: tuple[int, int, int]
) -> None:
    at = plan.next_pass(datetime(2026, 11, *now, tzinfo=SHANGHAI), PASSES, timedelta(hours=1))
    assert at == datetime(2026, 11, *expected, tzinfo=SHANGHAI)


def test_the_first_pass_of_a_day() -> None:
    late = datetime(2026, 11, 24, 23, 59, tzinfo=SHANGHAI)
    assert plan.first_pass(late, PASSES) == datetime(2026, 11, 24, 1, 30, tzinfo=SHANGHAI)
    early = datetime(2026, 11, 24, 0, 0, tzinfo=SHANGHAI).astimezone(UTC)
    assert plan.first_pass(early, PASSES) == datetime(2026, 11, 24, 1, 30, tzinfo=SHANGHAI)


def test_a_due_is_cheap_to_tell_apart() -> None:
    one = Due(1, 1, FORWARD, Kind.DAY, frozen_at(DAY))
    assert one == Due(1, 1, FORWARD, Kind.DAY, frozen_at(DAY))
    assert len({one, Due(1, 1, FORWARD, Kind.DAY, frozen_at(DAY))}) == 1
