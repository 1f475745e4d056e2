"""FCB, events that wait, answers in several frames over a line that loses them, confirms of answers, tasks
and groups: what both ends of a link make of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from protocols.permit import Permit
from protocols.q_gdw376 import messages
from protocols.q_gdw376.answers import MOST_BEGINNINGS
from protocols.q_gdw376.connection import (
    Answered,
    Asked,
    Confirmed,
    Damaged,
    Denied,
    EventsWaiting,
    Late,
    Master,
    MasterEvent,
    ReportConfirmed,
    ReportDenied,
    ReportSilent,
    Silent,
    Spontaneous,
    Terminal,
)
from protocols.q_gdw376.frame import Frame, build, parse
from protocols.q_gdw376.messages import Request, RequestUnit, encode_unit
from tests.protocols.test_qgdw376_connection import (
    CLOCK,
    FROZEN,
    TERMINAL,
    a_master,
    clock_answer,
    drained,
    frozen,
    heard,
    sent,
    several,
    up,
)
from tests.protocols.test_qgdw376_frame import FIELD, LOGIN
from tests.protocols.test_qgdw376_terminal import frames_of
from tests.protocols.test_qgdw376_terminal import heard as heard_by_terminal

DAY_TIME = datetime(2026, 11, 24, 9, 30)
RESET = Request(1, (RequestUnit(0, 1),), True, bytes(16), False, Permit("376 01 f1", TERMINAL, "test"))


# -- FCB ----------------------------------------------------------------------------------------------


def test_fcb_turns_with_each_exchange_and_a_reset_puts_it_to_0() -> None:
    master = a_master(fcv=True)
    bits = []
    for request in (CLOCK, FROZEN, CLOCK, RESET, CLOCK, CLOCK, RESET, RESET, CLOCK):
        frame = sent(master, request)
        bits.append((frame.fcv, frame.acd))
        master.abandon()
    valid = (True, True), (True, False)
    reset = (False, False)
    assert bits == [valid[0], valid[1], valid[0], reset, valid[0], valid[1], reset, reset, valid[0]]


def test_fcb_stays_for_a_repeat() -> None:
    master = a_master(fcv=True)
    raw = master.send(CLOCK, 0.0)
    master.handle_timeout(10.0)
    assert master.data_to_send() == raw
    heard(master, clock_answer(parse(raw)))
    assert sent(master, CLOCK).acd != parse(raw).acd


def test_without_fcv_both_bits_stay_0() -> None:
    master = a_master()
    for _ in range(3):
        frame = sent(master, CLOCK)
        assert (frame.fcv, frame.acd) == (False, False)
        master.abandon()


@pytest.mark.parametrize("fcv", [True, False])
def test_a_terminal_tells_a_repeat_by_a_valid_fcb(fcv: bool) -> None:
    """The command is told once; its repeat gets the answer that was lost."""
    master, terminal = a_master(fcv=fcv), Terminal(TERMINAL)
    raw = master.send(RESET, 0.0) if not fcv else master.send(messages.set_clock(DAY_TIME), 0.0)
    (asked,) = heard_by_terminal(terminal, raw)
    assert isinstance(asked, Asked)
    assert [type(event) for event in heard_by_terminal(terminal, raw)] == ([] if fcv else [Asked])
    assert terminal.data_to_send() == b""
    answer = terminal.confirm(asked.frame)
    heard_by_terminal(terminal, raw)
    assert terminal.data_to_send() == (answer if fcv else b"")
    master.receive_data(answer, 1.0)
    assert [type(event) for event in drained(master)] == [Confirmed]


def test_another_request_between_makes_the_same_bytes_a_new_request() -> None:
    terminal = Terminal(TERMINAL)
    master = a_master(fcv=True)
    first = master.send(CLOCK, 0.0)
    master.abandon()
    second = master.send(CLOCK, 0.0)
    assert [type(heard_by_terminal(terminal, raw)[0]) for raw in (first, second, first)] == [Asked] * 3


# -- events that wait ---------------------------------------------------------------------------------


def waiting(events: Sequence[MasterEvent]) -> list[tuple[int, int]]:
    return [(event.ec1, event.ec2) for event in events if isinstance(event, EventsWaiting)]


def test_acd_tells_once_of_the_events_that_wait() -> None:
    master = a_master()
    answer = clock_answer(sent(master, CLOCK), acd=True, ec=(3, 7))
    assert heard(master, answer) == [Answered(CLOCK, (answer,)), EventsWaiting(3, 7)]
    told = []
    for ec in ((3, 7), (3, 7), (4, 7), (4, 8), (4, 8), (255, 8), (0, 8), None, (0, 8)):
        answer = clock_answer(sent(master, CLOCK), acd=ec is not None, ec=ec)
        told.append(waiting(heard(master, answer)))
    assert told == [[], [], [(4, 7)], [(4, 8)], [], [(255, 8)], [(0, 8)], [], []]


def test_every_frame_of_the_terminal_may_tell_of_events() -> None:
    master = a_master()
    asked = sent(master, FROZEN)
    frames = several(asked, 3)
    first = replace(frames[0], acd=True, ec=(1, 0))
    assert heard(master, first) == [EventsWaiting(1, 0)]
    report = up(asked, frozen(1), prm=True, acd=True, ec=(2, 0))
    assert heard(master, report) == [Spontaneous(report, build(report)), EventsWaiting(2, 0)]
    last = replace(frames[2], acd=True, ec=(3, 0))
    assert heard(master, frames[1], last) == [Answered(FROZEN, (first, frames[1], last)), EventsWaiting(3, 0)]
    denial = replace(up(sent(master, CLOCK), bytes.fromhex("00000200"), acd=True, ec=(4, 0)), afn=0)
    assert heard(master, denial) == [Denied(CLOCK, denial), EventsWaiting(4, 0)]


def test_a_login_may_tell_of_events_and_a_stranger_may_not() -> None:
    master = Master()
    login = replace(parse(LOGIN), acd=True, ec=(9, 1))
    assert heard(master, login) == [Spontaneous(login, build(login)), EventsWaiting(9, 1)]
    master.terminal = login.terminal
    stranger = replace(login, terminal="02009999", ec=(10, 1))
    assert heard(master, stranger) == [Spontaneous(stranger, build(stranger))]
    assert waiting(heard(master, login)) == []
    master.terminal = stranger.terminal
    assert waiting(heard(master, replace(stranger, ec=(9, 1)))) == [(9, 1)]


def test_acd_without_counters_tells_nothing() -> None:
    """Too short for EC: a login whose flags are wrong is still a login."""
    raw = bytearray(LOGIN)
    raw[6] |= 0x20
    raw[-2] = sum(raw[6:-2]) & 0xFF
    master = Master()
    master.receive_data(bytes(raw), 0.0)
    assert [type(event) for event in drained(master)] == [Spontaneous]


def test_the_captured_terminal_tells_of_its_events() -> None:
    """Four frames of one terminal: EC1 17, then 79 three times."""
    master = Master()
    told = []
    for one in FIELD:
        if one.id in ("gw-005", "gw-007", "gw-008", "gw-015"):
            master.terminal = parse(one.raw).terminal
            master.receive_data(one.raw, 0.0)
            told.append(waiting(drained(master)))
    assert told == [[(17, 0)], [(79, 0)], [], []]


# -- answers over a bad line --------------------------------------------------------------------------


@given(st.integers(2, 8), st.data())
def test_any_loss_order_and_doubling_gives_the_whole_answer_or_silence_with_the_rest(
    count: int, data: st.DataObject
) -> None:
    master = a_master()
    frames = several(sent(master, FROZEN), count)
    places = data.draw(st.lists(st.integers(0, count - 1), max_size=3 * count))
    events = heard(master, *(frames[place] for place in places))
    ended = [event for event in events if isinstance(event, Answered)]
    if set(places) == set(range(count)):
        assert ended == [Answered(FROZEN, tuple(frames))]
    else:
        assert ended == []
        for now in (20.0, 40.0, 60.0):
            master.handle_timeout(now)
        events += drained(master)
        assert events[-1] == Silent(FROZEN, tuple(frames[place] for place in sorted(set(places))))
    others = [event for event in events if not isinstance(event, Answered | Silent)]
    assert all(isinstance(event, Late) for event in others)  # doubles of an answer that was whole already
    assert len(others) <= len(places)


@given(st.integers(0, 15), st.integers(2, 20))
def test_a_wrong_number_never_ends_an_answer(number: int, count: int) -> None:
    master = a_master()
    frames = several(sent(master, FROZEN), count)
    heard(master, *frames[:-1])
    stray = replace(frames[-1], pseq=number, fir=False, fin=False)
    assume(number != frames[-1].pseq)
    events = heard(master, stray)
    assert master.busy
    assert all(isinstance(event, Late | Damaged) for event in events)
    for event in events:
        assert isinstance(event, Late | Damaged)
        assert event.raw == build(stray)


def test_another_frame_with_a_number_that_was_here_is_damage() -> None:
    master = a_master()
    frames = several(sent(master, FROZEN), 5)
    heard(master, frames[0], frames[1], frames[3])
    for place in (1, 3):
        other = replace(frames[place], body=frozen(8))
        (event,) = heard(master, other)
        assert isinstance(event, Damaged)
        assert (event.raw, event.reason) == (
            build(other), "another frame with a number that was here already"
        )  # fmt: skip
    again = replace(frames[1], acd=True, ec=(1, 1), tpv=True, tp=bytes(6))
    assert heard(master, again) == [EventsWaiting(1, 1)]
    assert heard(master, frames[2], frames[4]) == [Answered(FROZEN, tuple(frames))]


def test_a_repeat_that_is_answered_in_other_words_begins_anew() -> None:
    master = a_master()
    asked = sent(master, FROZEN)
    lost = several(asked, 4)
    heard(master, lost[0], lost[2])
    master.handle_timeout(11.0)
    frames = [up(asked, frozen(place + 5), place, 3) for place in range(3)]
    assert heard(master, *frames) == [Answered(FROZEN, tuple(frames))]


def test_an_answer_does_not_begin_for_ever() -> None:
    master = a_master()
    asked = sent(master, FROZEN)
    firsts = [up(asked, frozen(place % 8 + 1), 0, 2) for place in range(MOST_BEGINNINGS + 3)]
    events = heard(master, *firsts)
    assert [type(event) for event in events] == [Damaged] * 3
    assert master.next_timeout() == 11.0
    heard(master, firsts[0], now=9.0)
    assert master.next_timeout() == 11.0


# -- tasks, groups ------------------------------------------------------------------------------------


def test_data_of_a_task_come_as_those_of_its_classes() -> None:
    """AFN0B F1 of task 3 is answered by the points and classes in it, as AFN0C or 0D."""
    request = Request(0x0B, (RequestUnit(3, 1, bytes(7)),))
    for afn in (0x0B, 0x0C, 0x0D):
        master = a_master()
        answer = replace(up(sent(master, request), frozen(5)), afn=afn)
        assert heard(master, answer) == [Answered(request, (answer,))]
    master = a_master()
    asked = sent(master, request)
    report = replace(up(asked, frozen(5), prm=True), afn=0x0D)
    assert heard(master, report) == [Spontaneous(report, build(report))]
    other = replace(up(asked, frozen(5)), afn=0x0A)
    assert heard(master, other) == [Late(other, build(other))]


def test_a_group_is_told_and_not_waited_for() -> None:
    master = a_master(fcv=True)
    asked = sent(master, CLOCK)
    raw = master.send_to_group(messages.set_clock(DAY_TIME), "0200ffff")
    frame = parse(raw)
    assert (frame.terminal, frame.group, frame.pseq, frame.fcv) == ("0200ffff", True, 2, False)
    answer = clock_answer(asked)
    assert heard(master, answer) == [Answered(CLOCK, (answer,))]
    assert not master.busy
    assert parse(master.send_to_group(CLOCK, "02000007")).pseq == 2
    assert sent(master, CLOCK).pseq == 3
    (event,) = heard_by_terminal(Terminal(TERMINAL), raw)
    assert isinstance(event, Asked)


# -- answers that want a confirm ----------------------------------------------------------------------


def con_answer(terminal: Terminal, asked: Frame) -> Frame:
    frames = frames_of(terminal.answer(asked, [frozen(1)] * 30, confirm_from=5.0))
    assert [frame.con for frame in frames] == [False, True]
    return frames[-1]


@pytest.mark.parametrize("form", ["F1", "F3"])
def test_an_answer_is_confirmed_where_it_says_so(form: str) -> None:
    master, terminal = a_master(confirm_form=form), Terminal(TERMINAL)
    last = con_answer(terminal, sent(master, FROZEN))
    confirm = master.confirm(last)
    assert heard_by_terminal(terminal, confirm) == [ReportConfirmed(last, parse(confirm))]
    assert terminal.next_timeout() is None
    master.abandon()
    last = con_answer(terminal, sent(master, FROZEN))
    assert [type(event) for event in heard_by_terminal(terminal, master.deny(last))] == [ReportDenied]


def test_an_answer_that_is_not_confirmed_is_not_repeated() -> None:
    master, terminal = a_master(), Terminal(TERMINAL, confirm_timeout=20.0)
    last = con_answer(terminal, sent(master, FROZEN))
    assert terminal.next_timeout() == 25.0
    terminal.handle_timeout(25.0)
    assert terminal.data_to_send() == b""
    assert terminal.next_event() == ReportSilent(last)
    first = con_answer(terminal, last)
    con_answer(terminal, last)
    assert terminal.next_event() == ReportSilent(first)


def test_a_confirm_finds_its_frame_although_both_ends_count_for_themselves() -> None:
    """A login and an answer may have the same number: F3 names the AFN, F1 takes the one that waited
    longer."""
    for form, order in (("F3", ("answer", "login")), ("F1", ("login", "answer"))):
        master, terminal = a_master(confirm_form=form), Terminal(TERMINAL)
        login = parse(terminal.send_spontaneous(0x02, [encode_unit(0x02, 1, 0)], 0.0))
        asked = replace(sent(master, FROZEN), pseq=login.pseq)
        answer = parse(terminal.answer(asked, [frozen(1)], confirm_from=5.0))
        assert answer.pseq == login.pseq
        told = {"login": login, "answer": answer}
        for name in order:
            confirm = master.confirm(told[name])
            assert heard_by_terminal(terminal, confirm) == [ReportConfirmed(told[name], parse(confirm))]
