"""What becomes of a relay, by kind and setting, seen through the meter's frames and its ledger."""

from __future__ import annotations

import itertools
from datetime import timedelta

import pytest

from protocols.dlt645.control_messages import RelayReply, Verb
from protocols.dlt645.messages import ErrorReply
from simulator.clock import seconds
from simulator.control import BASE_2007, Setup
from tests.simulator.household import NOON, Household

OPEN, ORDERED, ALARM, KEEP = 4, 6, 7, 12
KINDS = ("built_in", "external_self_closing", "external_hand_closing")


def accepted(home: Household, verb: Verb, minutes: int = 0) -> None:
    assert isinstance(home.switch(verb, minutes), RelayReply)


def refused(home: Household, verb: Verb, minutes: int = 0) -> int:
    answer = home.switch(verb, minutes)
    assert isinstance(answer, ErrorReply)
    assert not answer.wide
    return answer.error


@pytest.mark.parametrize("kind", KINDS)
def test_a_trip_opens_at_once(kind: str) -> None:
    home = Household(kind=kind)
    assert home.word == set()
    accepted(home, Verb.TRIP)
    assert home.word == {OPEN, ORDERED}
    assert home.meter.is_open
    assert home.moves() == [(0.0, "opened")]


@pytest.mark.parametrize(
    ("kind", "verb", "closes"),
    [
        ("built_in", Verb.CLOSE, True),
        ("built_in", Verb.PERMIT_CLOSE, False),
        ("external_self_closing", Verb.CLOSE, True),
        ("external_self_closing", Verb.PERMIT_CLOSE, True),
        ("external_hand_closing", Verb.CLOSE, False),
        ("external_hand_closing", Verb.PERMIT_CLOSE, False),
        ("built_in", Verb.KEEP_POWER, True),
        ("external_self_closing", Verb.KEEP_POWER, True),
        ("external_hand_closing", Verb.KEEP_POWER, False),
    ],
)
def test_what_gives_power_back_closes_or_lets_a_person_close(kind: str, verb: Verb, closes: bool) -> None:
    home = Household(kind=kind)
    accepted(home, Verb.TRIP)
    assert not home.meter.press(seconds(home.now)), "nobody may close it yet"
    accepted(home, verb)
    keeps = {KEEP} if verb is Verb.KEEP_POWER else set()
    assert home.word == keeps if closes else home.word == keeps | {OPEN}
    assert home.entries[-1].button != closes
    assert home.meter.press(seconds(home.now)) != closes
    assert home.word == keeps
    assert home.moves() == [(0.0, "opened"), (0.0, "closed")]


def test_keep_power_may_only_permit() -> None:
    home = Household(Setup(keep_power_closes=False))
    accepted(home, Verb.TRIP)
    accepted(home, Verb.KEEP_POWER)
    assert home.word == {OPEN, KEEP}
    assert home.meter.press(seconds(home.now))
    assert home.word == {KEEP}


def test_keep_power_refuses_trips_until_it_is_released() -> None:
    home = Household()
    accepted(home, Verb.KEEP_POWER)
    for verb, minutes in ((Verb.TRIP, 0), (Verb.TRIP_THEN_CLOSE, 5), (Verb.TRIP_THEN_PERMIT, 5)):
        assert refused(home, verb, minutes) == 0x04
    assert home.word == {KEEP}
    accepted(home, Verb.RELEASE_KEEP_POWER)
    accepted(home, Verb.TRIP)
    assert home.word == {OPEN, ORDERED}


def test_the_trip_delay_runs_and_a_close_ends_it() -> None:
    home = Household(Setup(trip_delay_minutes=3))
    assert home.read("04001401") == b"\x03\x00"
    accepted(home, Verb.TRIP)
    assert home.word == {ORDERED}
    home.pass_time(minutes=2)
    accepted(home, Verb.TRIP)  # said again, it does not begin anew
    home.pass_time(seconds=59)
    assert home.word == {ORDERED}
    home.pass_time(seconds=1)
    assert home.word == {OPEN, ORDERED}
    assert home.moves() == [(180.0, "opened")]

    home = Household(Setup(trip_delay_minutes=3))
    accepted(home, Verb.TRIP)
    home.pass_time(minutes=2)
    accepted(home, Verb.CLOSE)
    home.pass_time(hours=1)
    assert home.word == set()
    assert home.moves() == []


def test_a_move_that_was_due_has_its_own_time_whenever_it_is_noticed() -> None:
    home = Household(Setup(trip_delay_minutes=3))
    accepted(home, Verb.TRIP)
    assert home.meter.next_timeout() == seconds(NOON) + 180
    home.meter.handle_timeout(seconds(NOON) + 4_000)
    assert home.moves() == [(180.0, "opened")]
    assert home.meter.next_timeout() is None


@pytest.mark.parametrize(("falls_after", "opens_after"), [(90, 120.0), (25 * 3600, 24 * 3600.0)])
def test_a_built_in_relay_waits_for_the_load(falls_after: int, opens_after: float) -> None:
    home = Household(Setup(current_limit_ma=5_000))
    home.meter.load_ma = 6_000
    accepted(home, Verb.TRIP)
    assert home.word == {ORDERED}
    home.pass_time(seconds=falls_after)
    home.meter.handle_timeout(seconds(home.now))
    home.meter.load_ma = 1_000
    home.pass_time(minutes=2)
    assert home.word == {OPEN, ORDERED}
    assert home.moves() == [(opens_after, "opened")]


def test_an_external_switch_does_not_look_at_the_load() -> None:
    home = Household(Setup(current_limit_ma=5_000), kind="external_self_closing")
    home.meter.load_ma = 6_000
    accepted(home, Verb.TRIP)
    assert OPEN in home.word


def test_a_trip_that_waits_for_the_load_ends_with_keep_power() -> None:
    home = Household(Setup(current_limit_ma=5_000))
    home.meter.load_ma = 6_000
    accepted(home, Verb.TRIP)
    accepted(home, Verb.KEEP_POWER)
    home.meter.load_ma = 0
    home.pass_time(hours=30)
    assert home.word == {KEEP}
    assert home.moves() == []


@pytest.mark.parametrize(
    ("kind", "verb", "by_itself"),
    [
        ("built_in", Verb.TRIP_THEN_CLOSE, True),
        ("built_in", Verb.TRIP_THEN_PERMIT, False),
        ("external_hand_closing", Verb.TRIP_THEN_CLOSE, False),
        ("external_self_closing", Verb.TRIP_THEN_PERMIT, True),
    ],
)
def test_a_trip_for_a_time_ends_by_itself(kind: str, verb: Verb, by_itself: bool) -> None:
    home = Household(Setup(trip_delay_minutes=3), kind=kind)
    accepted(home, verb, 10)
    assert home.word == {OPEN, ORDERED}, "it knows no delay"
    home.pass_time(minutes=5)
    accepted(home, verb, 10)
    home.pass_time(minutes=9)
    assert home.word == {OPEN, ORDERED}, "said again, it began anew"
    home.pass_time(minutes=1)
    assert home.word == (set() if by_itself else {OPEN})
    assert [what for _, what in home.moves()] == ["opened", "closed"][: 1 + by_itself]


def test_a_trip_for_a_time_needs_a_closed_relay_and_a_time_and_ends_with_a_trip() -> None:
    home = Household()
    accepted(home, Verb.TRIP_THEN_CLOSE, 5)
    accepted(home, Verb.TRIP)
    home.pass_time(hours=1)
    assert home.word == {OPEN, ORDERED}, "the trip made it last"
    assert refused(home, Verb.TRIP_THEN_CLOSE, 5) == 0x04


def test_a_trip_takes_back_a_permission() -> None:
    home = Household(Setup(press_after_s=60))
    accepted(home, Verb.TRIP)
    accepted(home, Verb.PERMIT_CLOSE)
    accepted(home, Verb.TRIP)
    home.pass_time(hours=1)
    assert home.word == {OPEN, ORDERED}
    assert not home.meter.press(seconds(home.now))


def test_somebody_presses_the_button_after_a_while() -> None:
    home = Household(Setup(press_after_s=60))
    accepted(home, Verb.TRIP)
    accepted(home, Verb.PERMIT_CLOSE)
    home.pass_time(seconds=30)
    accepted(home, Verb.PERMIT_CLOSE)  # said again, it does not make him wait longer
    home.pass_time(minutes=5)
    assert home.word == set()
    assert home.moves() == [(0.0, "opened"), (60.0, "closed")]


def test_the_line_is_checked_a_while_after_the_move() -> None:
    home = Household(Setup(line_check_s=5))
    accepted(home, Verb.TRIP)
    assert home.word == {ORDERED}
    home.pass_time(seconds=5)
    assert home.word == {OPEN, ORDERED}
    accepted(home, Verb.CLOSE)
    assert home.word == {OPEN}
    home.pass_time(seconds=5)
    assert home.word == set()


def test_alarms_have_a_bit_of_their_own() -> None:
    home = Household(kind="none")
    accepted(home, Verb.ALARM)
    assert home.word == {ALARM}
    accepted(home, Verb.CLEAR_ALARM)
    assert home.word == set()


def test_a_meter_without_a_relay_and_one_of_the_base_text_know_less() -> None:
    home = Household(kind="none")
    assert refused(home, Verb.TRIP) == refused(home, Verb.CLOSE) == 0x01
    accepted(home, Verb.KEEP_POWER)
    home = Household(Setup(verbs=BASE_2007))
    accepted(home, Verb.TRIP)
    assert refused(home, Verb.CLOSE) == 0x01
    accepted(home, Verb.PERMIT_CLOSE)


def test_records_and_load_tell_of_it() -> None:
    home = Household()
    assert home.read("1d00ff01") == b"\xff" * 34
    assert home.read("02020100") == b"\x00\x30\x00"
    accepted(home, Verb.TRIP)
    assert home.read("02020100") == home.read("02030000") == bytes(3)
    home.pass_time(minutes=1)
    accepted(home, Verb.CLOSE)
    home.pass_time(minutes=1)
    accepted(home, Verb.TRIP)
    assert home.read("1d000001") == b"\x02\x00\x00"
    assert home.read("1d000101") == bytes.fromhex("000212241126")
    assert home.read("1d000102") == bytes.fromhex("000012241126")
    assert home.read("1e000101") == bytes.fromhex("000112241126")
    record = home.read("1d00ff01")
    assert len(record) == 34
    assert record[:10] == bytes.fromhex("000212241126" + "01000000")
    assert record[10:14] == home.read("00010000")


def test_no_relay_is_open_that_nobody_tripped_and_none_stays_open_after_a_close() -> None:
    """Every order of three commands, with waits between them, on every kind."""
    verbs = (Verb.TRIP, Verb.CLOSE, Verb.PERMIT_CLOSE, Verb.KEEP_POWER, Verb.RELEASE_KEEP_POWER)
    for kind in KINDS:
        for orders in itertools.product(verbs, repeat=3):
            home = Household(Setup(trip_delay_minutes=2, press_after_s=30), kind=kind)
            for verb in orders:
                home.say(home.command(verb))
                home.pass_time(minutes=1)
            home.pass_time(hours=1)
            kept = wanted_open = False
            for verb in orders:
                kept = (kept or verb is Verb.KEEP_POWER) and verb is not Verb.RELEASE_KEEP_POWER
                if verb is not Verb.RELEASE_KEEP_POWER and not (verb is Verb.TRIP and kept):
                    wanted_open = verb is Verb.TRIP
            assert (OPEN in home.word) == wanted_open, (kind, orders)
            assert (ORDERED in home.word) == wanted_open, (kind, orders)


def test_equal_histories_are_equal() -> None:
    def history() -> list[object]:
        home = Household(Setup(esam=True, trip_delay_minutes=1))
        home.authenticate(lambda random, named: bytes(8))
        home.now = NOON + timedelta(minutes=3)
        home.say(home.command(Verb.TRIP))
        return list(home.entries)

    assert history() == history()
