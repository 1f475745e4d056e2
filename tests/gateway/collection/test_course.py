"""What a course asks of the terminal, without any waiting: tables of what happens and what is next."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.clock import frozen_at
from gateway.collection.course import (
    BARREN_LIMIT,
    AskPoints,
    Order,
)
from gateway.collection.plan import due
from gateway.collection.policy import ASK_METER, Direct
from gateway.model import Due, Failure, Kind, PointRole, Quantity, Reason
from tests.gateway.collection.drive import (
    METER_SAYS,
    Answer,
    Night,
    course_of,
    houses,
    poison,
    refuses,
    too_much,
    whole,
)
from tests.gateway.collection.world import DAY, MORNING, assets_of, point, policy


def test_nothing_missing_asks_nothing() -> None:
    dues = due(assets_of(houses(3)), DAY)
    course = course_of(houses(3), stored=dues)
    assert course.step(MORNING, lambda quantity, kind: 16) is Order.FINISHED
    assert (course.due, course.collected, course.already, course.missing) == (3, 3, 3, 0)


def test_all_there_takes_whole_requests_and_no_question_more() -> None:
    night = Night(course_of(houses(40)), whole).run()
    assert [len(one) for one in night.asked] == [16, 16, 8]
    assert (night.states, night.pauses, night.directly, night.refreshes) == (0, [], [], 0)
    assert night.course.missing == 0


def test_a_due_counts_only_when_it_is_filed() -> None:
    course = course_of(houses(2))
    step = course.step(MORNING, lambda quantity, kind: 16)
    assert isinstance(step, AskPoints)
    coming = course.answered(step.dues, {1, 2})
    assert course.collected == 0
    assert course.step(MORNING, lambda quantity, kind: 16) is Order.SETTLE
    course.filed(coming)
    assert course.collected == 2
    assert course.step(MORNING, lambda quantity, kind: 16) is Order.FINISHED


@pytest.mark.parametrize("reason", [Reason.TERMINAL_DENIED, Reason.TERMINAL_SILENT])
@pytest.mark.parametrize("largest", [1, 2, 4, 8, 15])
def test_requests_are_halved_to_what_the_terminal_takes(reason: Reason, largest: int) -> None:
    night = Night(course_of(houses(200)), too_much(largest, reason)).run()
    assert night.course.missing == 0
    refused = [one for one in night.asked if len(one) > largest]
    fits = 1 << (largest.bit_length() - 1)
    halvings = (16 // fits).bit_length() - 1
    assert [len(one) for one in night.asked[:halvings]] == [16 >> level for level in range(halvings)]
    assert len(refused) <= halvings + 2, "a size that failed twice is not tried again"
    assert night.pauses == []


def test_requests_grow_back_after_one_bad_moment() -> None:
    calls = 0

    def answer(dues: Sequence[Due]) -> Answer:
        nonlocal calls
        calls += 1
        return too_much(0, Reason.TERMINAL_SILENT)(dues) if calls <= 2 else whole(dues)

    night = Night(course_of(houses(100)), answer).run()
    sizes = [len(one) for one in night.asked]
    assert sizes[:8] == [16, 8, 4, 4, 8, 8, 16, 16]
    assert night.course.missing == 0


@pytest.mark.parametrize("reason", [Reason.TERMINAL_DENIED, Reason.TERMINAL_SILENT, Reason.DAMAGED])
def test_one_point_that_spoils_every_request_is_found_and_the_rest_is_had(reason: Reason) -> None:
    how = policy(tries=1, silent_limit=6, direct=Direct.NEVER)
    night = Night(course_of(houses(200), how), poison(reason, 23, 77)).run()
    assert {one.pn for one in night.course.open()} == {23, 77}
    assert night.course.reasons() == {reason: 2}
    assert len(night.asked) < 45
    assert max(len(one) for one in night.asked[-3:]) == 16, "it grew back"


def test_a_silent_terminal_is_given_up_for_the_round_and_tried_again_after_a_pause() -> None:
    how = policy(tries=2, direct=Direct.NEVER)
    night = Night(course_of(houses(100), how), too_much(0, Reason.TERMINAL_SILENT)).run()
    assert night.course.reasons() == {Reason.TERMINAL_SILENT: 100}
    assert night.pauses == [10.0]
    assert len(night.asked) == 2 * how.silent_limit


def test_silence_in_between_does_not_add_up() -> None:
    calls = 0

    def answer(dues: Sequence[Due]) -> Answer:
        nonlocal calls
        calls += 1
        return whole(dues) if calls % 3 == 0 else too_much(0, Reason.TERMINAL_SILENT)(dues)

    night = Night(course_of(houses(60), policy(tries=3)), answer).run()
    assert not any(one.detail for one in night.course.failures()), "it was never given up"
    assert night.course.collected > 30


@pytest.mark.parametrize("reason", [Reason.NO_VALUE_YET, Reason.LEFT_OUT, Reason.TERMINAL_DENIED])
def test_values_that_come_later_are_asked_for_again_with_growing_pauses(reason: Reason) -> None:
    rounds = 0

    def answer(dues: Sequence[Due]) -> Answer:
        nonlocal rounds
        rounds += 3 in {one.pn for one in dues}
        return refuses(reason, *(() if rounds > 3 else (3,)))(dues)

    night = Night(course_of(houses(20)), answer)
    night.reading = True
    night.run()
    assert night.course.missing == 0
    assert night.pauses == [10.0, 20.0, 40.0]
    assert night.asked == [list(range(1, 17)), [17, 18, 19, 20], [3], [3], [3]]
    assert night.states == 3
    assert night.directly == []


def test_a_due_left_out_without_a_word_is_left_out() -> None:
    def answer(dues: Sequence[Due]) -> Answer:
        return {one.meter_id for one in dues if one.pn != 2}, {}, False

    night = Night(course_of(houses(4), policy(tries=1, direct=Direct.NEVER)), answer).run()
    assert [(one.meter_id, one.reason) for one in night.course.failures()] == [(2, Reason.LEFT_OUT)]


def test_a_terminal_that_has_nothing_yet_is_not_asked_for_all_of_it() -> None:
    how = policy(tries=1, direct=Direct.NEVER)
    night = Night(course_of(houses(400), how), refuses(Reason.TERMINAL_DENIED, *range(1, 401)), most=1)
    night.reading = True
    night.run()
    assert len(night.asked) == 2 * BARREN_LIMIT
    assert night.asked[BARREN_LIMIT] == [BARREN_LIMIT + 1], "the untried come first in the next round"
    assert night.course.reasons() == {Reason.TERMINAL_DENIED: 400}


def test_a_terminal_with_another_archive_is_asked_for_all_of_it() -> None:
    how = policy(direct=Direct.NEVER)
    night = Night(course_of(houses(400), how), refuses(Reason.ARCHIVE_DIFFERS, *range(1, 401))).run()
    assert sum(len(one) for one in night.asked) == 400


def test_rows_the_database_refused_are_asked_for_again() -> None:
    course = course_of(houses(2), policy(tries=3))
    step = course.step(MORNING, lambda quantity, kind: 16)
    assert isinstance(step, AskPoints)
    course.not_filed(course.answered(step.dues, {1, 2}), "disk full")
    assert course.reasons() == {Reason.STORAGE_FAILED: 2}
    night = Night(course, whole).run()
    assert night.asked == [[1, 2]]
    assert course.missing == 0


def test_a_lost_link_puts_back_what_was_on_the_way() -> None:
    course = course_of(houses(20))
    step = course.step(MORNING, lambda quantity, kind: 16)
    assert isinstance(step, AskPoints)
    coming = course.answered(step.dues, {1, 2, 3}, closed=True)
    course.filed(coming)
    assert course.lost()
    night = Night(course, whole).run()
    assert night.asked[0] == list(range(4, 20))
    assert course.missing == 0
    assert not any([course.lost() for _ in range(course_of([])._policy.redials)][-1:])


def test_giving_up_keeps_the_reasons_that_no_login_would_change() -> None:
    course = course_of(houses(40), policy(direct=Direct.NEVER))
    night = Night(course, refuses(Reason.ARCHIVE_DIFFERS, 2))
    night.carry_out(course.step(MORNING, lambda quantity, kind: 16))
    course.give_up(Reason.TERMINAL_ABSENT)
    night.run()
    assert course.reasons() == {Reason.ARCHIVE_DIFFERS: 1, Reason.TERMINAL_ABSENT: 24}
    assert course.collected == 15


def test_rows_that_came_another_way_count() -> None:
    course = course_of(houses(20), policy(tries=1, direct=Direct.NEVER))
    night = Night(course, refuses(Reason.NO_VALUE_YET, 2, 3))
    night.carry_out(course.step(MORNING, lambda quantity, kind: 16))
    came = [one for one in course.open() if one.pn in (2, 18)]
    assert len(came) == 2
    course.refreshed(came)
    night.run()
    assert {one.pn for one in course.open()} == {3}
    assert course.collected == 19
    assert not any(18 in one for one in night.asked)


def test_the_deadline_ends_it_and_what_was_not_asked_says_so() -> None:
    course = course_of(houses(40), policy(longest=60.0))
    night = Night(course, refuses(Reason.NO_VALUE_YET, 2))
    night.carry_out(course.step(MORNING, lambda quantity, kind: 16))
    night.now += timedelta(seconds=60)
    night.run()
    assert course.reasons() == {Reason.NO_VALUE_YET: 1, Reason.NOT_ASKED: 24}
    assert [one.reason for one in course.failures()] == [Reason.NO_VALUE_YET]
    assert course.meters_missing() == 25


def test_no_pause_reaches_past_the_deadline() -> None:
    how = policy(longest=25.0, pause=10.0, direct=Direct.NEVER)
    night = Night(course_of(houses(3), how), refuses(Reason.DAMAGED, 2)).run()
    assert night.pauses == [10.0]


REASONS = sorted(set(Reason) - {Reason.ALLOWANCE_USED, Reason.NOT_ASKED})


@given(st.data())
def test_any_terminal_whatever_it_does_is_done_with_in_the_end(data: st.DataObject) -> None:
    """Every due ends as collected or missing with a reason, each answered row counts once, nothing loops."""
    points = [
        point(pn, role=data.draw(st.sampled_from(PointRole)))
        for pn in range(1, data.draw(st.integers(1, 30)) + 1)
    ]
    days = [date(2026, 11, 1) - timedelta(days=1), date(2026, 10, 20)]
    how = policy(tries=data.draw(st.integers(1, 4)), silent_limit=data.draw(st.integers(1, 6)))
    course = course_of(points, how, days=days)
    had: Counter[Due] = Counter()

    def answer(dues: Sequence[Due]) -> Answer:
        told = {
            one.meter_id: data.draw(st.sampled_from([None, None, None, *REASONS]), label=str(one.pn))
            for one in dues
        }
        got = {meter for meter, reason in told.items() if reason is None}
        had.update(one for one in dues if one.meter_id in got)
        why = {meter: reason for meter, reason in told.items() if reason is not None}
        return got, why, data.draw(st.booleans(), label="halve")

    night = Night(course, answer, most=data.draw(st.integers(1, 16)))
    night.reading = data.draw(st.sampled_from([True, False, None]))
    night.meter = lambda one: data.draw(st.sampled_from([None, *sorted(ASK_METER), METER_SAYS]))
    night.run()
    assert set(had.values()) <= {1}, "a due that was had is not asked for again"
    assert sum(course.reasons().values()) == course.missing == len(course.open())
    assert course.collected == course.due - course.missing
    assert not set(course.open()) & set(had)


def test_failures_name_the_due_they_belong_to() -> None:
    night = Night(
        course_of(houses(2), policy(tries=1, direct=Direct.NEVER)), refuses(Reason.DAMAGED, 2)
    ).run()
    assert night.course.failures() == [
        Failure(2, Quantity.FORWARD_ACTIVE, Kind.DAY, frozen_at(DAY), Reason.DAMAGED)
    ]
