"""The terminal's end of a link, alone and against a master: what it answers, reports, repeats and refuses."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.errors import LocalProtocolError
from protocols.q_gdw376 import messages, midnight, values
from protocols.q_gdw376.connection import (
    FRAME_GAP,
    Answered,
    Asked,
    Confirmed,
    Damaged,
    Denied,
    Late,
    Master,
    ReportConfirmed,
    ReportDenied,
    ReportSilent,
    Silent,
    Spontaneous,
    Terminal,
    TerminalEvent,
)
from protocols.q_gdw376.frame import Frame, build, parse
from protocols.q_gdw376.link import MOST_OPEN_REPORTS
from protocols.q_gdw376.messages import encode_unit
from protocols.q_gdw376.stream import FrameStream
from tests.protocols.test_qgdw376_connection import drained as drained_master

ADDRESS = "02001234"
DAY = date(2026, 11, 23)
READ_AT = datetime(2026, 11, 24, 0, 5)
LOGIN_UNIT = encode_unit(0x02, 1, 0)


def drained(terminal: Terminal) -> list[TerminalEvent]:
    events = []
    while (event := terminal.next_event()) is not None:
        events.append(event)
    return events


def heard(terminal: Terminal, raw: bytes, now: float = 0.0) -> list[TerminalEvent]:
    terminal.receive_data(raw, now)
    return drained(terminal)


def pair() -> tuple[Master, Terminal]:
    """A master that knows the terminal, after its login was confirmed."""
    master, terminal = Master(reply_timeout=10.0), Terminal(ADDRESS)
    master.receive_data(terminal.send_spontaneous(0x02, [LOGIN_UNIT], 0.0), 0.0)
    (login,) = drained_master(master)
    assert isinstance(login, Spontaneous)
    master.terminal = login.frame.terminal
    (confirmed,) = heard(terminal, master.confirm(login.frame))
    assert isinstance(confirmed, ReportConfirmed)
    return master, terminal


def ask(master: Master, terminal: Terminal, request: messages.Request) -> Asked:
    (asked,) = heard(terminal, master.send(request, 0.0))
    assert isinstance(asked, Asked)
    return asked


def frames_of(raw: bytes) -> list[Frame]:
    stream = FrameStream()
    stream.receive_data(raw)
    found = []
    while (event := stream.next_event()) is not None:
        assert not isinstance(event, Damaged)
        found.append(event.frame)
    return found


def frozen(pn: int) -> bytes:
    return midnight.encode(pn, 161, DAY, READ_AT, (5, 1, 1, 1, 2))


# -- requests and answers -----------------------------------------------------------------------------


def test_a_request_is_heard_with_its_units() -> None:
    master, terminal = pair()
    asked = ask(master, terminal, messages.read_frozen(161, [1, 2], DAY))
    assert [(unit.pn, unit.fn, unit.value) for unit in asked.units] == [
        (1, 161, values.DayTag(DAY)),
        (2, 161, values.DayTag(DAY)),
    ]
    assert parse(asked.raw) == asked.frame


@pytest.mark.parametrize(("points", "count"), [(1, 1), (26, 1), (27, 2), (100, 4)])
def test_an_answer_is_split_by_the_frame_length(points: int, count: int) -> None:
    master, terminal = pair()
    request = messages.read_frozen(161, range(1, points + 1), DAY)
    asked = ask(master, terminal, request)
    raw = terminal.answer(asked.frame, [frozen(pn) for pn in range(1, points + 1)])
    frames = frames_of(raw)
    assert [len(build(frame)) <= 1024 for frame in frames] == [True] * count
    assert [(frame.fir, frame.fin) for frame in frames] == [
        (place == 0, place == count - 1) for place in range(count)
    ]
    master.receive_data(raw, 1.0)
    assert drained_master(master) == [Answered(request, tuple(frames))]
    rows = [row for frame in frames for row in midnight.rows(frame)[0]]
    assert [row[0] for row in rows] == list(range(1, points + 1))


def test_a_unit_longer_than_a_frame_goes_alone() -> None:
    master = Master()
    master.terminal = ADDRESS
    terminal = Terminal(ADDRESS, frame_length=64)
    asked = ask(master, terminal, messages.read_frozen(161, [1, 2], DAY))
    frames = frames_of(terminal.answer(asked.frame, [frozen(1), bytes(100), frozen(2)]))
    assert [len(frame.body) for frame in frames] == [38, 100, 38]


def test_a_single_frame_may_be_marked_as_last_like_the_captured_terminal_does() -> None:
    master, terminal = pair()
    request = messages.read_clock()
    asked = ask(master, terminal, request)
    unit = encode_unit(0x0C, 2, 0, values.Clock(READ_AT, 2))
    raw = terminal.answer(asked.frame, [unit], single_as_last=True)
    assert (parse(raw).fir, parse(raw).fin) == (False, True)
    master.receive_data(raw, 1.0)
    assert drained_master(master) == [Answered(request, (parse(raw),))]
    several = frames_of(terminal.answer(asked.frame, [bytes(900), bytes(900)], single_as_last=True))
    assert several[0].fir


def test_an_answer_needs_a_unit() -> None:
    master, terminal = pair()
    with pytest.raises(LocalProtocolError):
        terminal.answer(ask(master, terminal, messages.read_clock()).frame, [])


def test_an_answer_repeats_master_number_and_time_label_and_tells_of_events() -> None:
    terminal = Terminal(ADDRESS, protocol_id=1)
    terminal.ec = (3, 4)
    asked = Frame(
        terminal=ADDRESS, up=False, prm=True, function=11, afn=0x0C, body=encode_unit(0x0C, 2, 0),
        msa=9, pseq=15, tpv=True, tp=bytes.fromhex("051530240805"),
    )  # fmt: skip
    units = [bytes(900), bytes(900)]
    first, second = frames_of(terminal.answer(asked, units))
    for frame in (first, second, parse(terminal.confirm(asked)), parse(terminal.deny(asked))):
        assert (frame.msa, frame.tp, frame.ec, frame.acd, frame.protocol_id) == (9, asked.tp, (3, 4), True, 1)
        assert (frame.up, frame.prm) == (True, False)
    assert (first.pseq, second.pseq) == (15, 0)


@pytest.mark.parametrize(
    ("how", "event"), [("all", Confirmed), ("none", Denied), ("done", Confirmed), ("failed", Denied)]
)
def test_a_write_is_confirmed_denied_or_judged_unit_by_unit(how: str, event: type) -> None:
    master, terminal = pair()
    asked = ask(master, terminal, messages.set_clock(READ_AT))
    assert asked.units[0].value == values.Clock(READ_AT, 2)
    answers = {
        "all": terminal.confirm(asked.frame),
        "none": terminal.deny(asked.frame),
        "done": terminal.confirm_units(asked.frame, [(0, 31, 0)]),
        "failed": terminal.confirm_units(asked.frame, [(0, 31, 1)]),
    }
    master.receive_data(answers[how], 1.0)
    (said,) = drained_master(master)
    assert isinstance(said, event)


def test_a_group_request_is_heard_and_a_strangers_is_damage() -> None:
    master, terminal = Master(), Terminal(ADDRESS)
    master.terminal = "02001235"
    raw = master.send(messages.read_clock(), 0.0)
    assert heard(terminal, raw) == [Damaged(raw, 0, "a frame to another terminal")]
    everyone = replace(parse(raw), terminal="0200ffff", group=True)
    (event,) = heard(terminal, build(everyone))
    assert isinstance(event, Asked)
    assert event.frame.group


def test_frames_of_terminals_are_damage_to_a_terminal() -> None:
    raw = Terminal(ADDRESS).send_spontaneous(0x02, [LOGIN_UNIT], 0.0)
    (event,) = heard(Terminal(ADDRESS), raw)
    assert event == Damaged(raw, 0, "a frame to the master, heard by a terminal")


# -- reports ------------------------------------------------------------------------------------------


def test_a_login_is_built_like_the_captured_ones() -> None:
    assert Terminal(ADDRESS).send_spontaneous(0x02, [LOGIN_UNIT], 0.0, con=False).hex() == (
        "683200320068c9000234120002600000010074" + "16"
    )
    assert parse(Terminal(ADDRESS).send_spontaneous(0x0D, [frozen(1)], 0.0)).function == 4


def test_reports_have_rising_numbers() -> None:
    terminal = Terminal(ADDRESS)
    sent = [parse(terminal.send_spontaneous(0x02, [LOGIN_UNIT], 0.0, con=False)).pseq for _ in range(18)]
    assert sent == [number % 16 for number in range(18)]


@pytest.mark.parametrize("form", ["F1", "F3"])
def test_a_report_is_confirmed(form: str) -> None:
    terminal, master = Terminal(ADDRESS), Master(confirm_form=form)
    sent = parse(terminal.send_spontaneous(0x0D, [frozen(1), frozen(2)], 0.0))
    confirm = parse(master.confirm(sent))
    assert heard(terminal, build(confirm)) == [ReportConfirmed(sent, confirm)]
    assert heard(terminal, build(confirm)) == [Late(confirm, build(confirm))]
    assert terminal.next_timeout() is None


def test_a_report_is_denied_by_f2_or_by_an_error() -> None:
    for body in (encode_unit(0, 2, 0), encode_unit(0, 3, 0, values.UnitConfirm(0x0D, ((1, 161, 1),)))):
        terminal = Terminal(ADDRESS)
        sent = parse(terminal.send_spontaneous(0x0D, [frozen(1)], 0.0))
        denial = replace(parse(Master().deny(sent)), body=body)
        assert heard(terminal, build(denial)) == [ReportDenied(sent, denial)]


@pytest.mark.parametrize(
    "changes",
    [
        {"pseq": 5},
        {"afn": 0x0C},
        {"body": b""},
        {"body": bytes.fromhex("000004000d00")},
        {"body": encode_unit(0, 3, 0, values.UnitConfirm(0x02, ((0, 1, 0),)))},
    ],
)
def test_what_does_not_confirm_a_report_is_late(changes: dict[str, Any]) -> None:
    terminal = Terminal(ADDRESS)
    sent = parse(terminal.send_spontaneous(0x0D, [frozen(1)], 0.0))
    odd = replace(parse(Master().confirm(sent)), **changes)
    assert heard(terminal, build(odd)) == [Late(odd, build(odd))]
    assert terminal.next_timeout() is not None


def test_a_report_without_an_answer_is_repeated_and_then_given_up() -> None:
    terminal = Terminal(ADDRESS, confirm_timeout=5.0, repeats=2)
    raw = terminal.send_spontaneous(0x0D, [frozen(1)], 0.0)
    for now in (5.0, 10.0):
        assert terminal.next_timeout() == now
        terminal.handle_timeout(now - 1)
        assert terminal.data_to_send() == b""
        terminal.handle_timeout(now)
        assert terminal.data_to_send() == raw
        assert terminal.data_to_send() == b""
    terminal.handle_timeout(15.0)
    assert drained(terminal) == [ReportSilent(parse(raw))]
    assert terminal.next_timeout() is None


def test_reports_that_wait_are_bounded() -> None:
    terminal = Terminal(ADDRESS)
    for _ in range(MOST_OPEN_REPORTS):
        terminal.send_spontaneous(0x02, [LOGIN_UNIT], 0.0)
    with pytest.raises(LocalProtocolError):
        terminal.send_spontaneous(0x02, [LOGIN_UNIT], 0.0)
    terminal.send_spontaneous(0x02, [LOGIN_UNIT], 0.0, con=False)


def test_a_report_never_takes_the_number_of_one_that_waits() -> None:
    terminal = Terminal(ADDRESS)
    terminal.send_spontaneous(0x02, [LOGIN_UNIT], 0.0)
    for _ in range(15):
        terminal.send_spontaneous(0x02, [LOGIN_UNIT], 0.0, con=False)
    with pytest.raises(LocalProtocolError):
        terminal.send_spontaneous(0x02, [LOGIN_UNIT], 0.0)


def test_a_request_behind_a_lying_length_is_heard_after_a_while() -> None:
    master, terminal = pair()
    lie = bytes.fromhex("68feff feff68")
    assert heard(terminal, lie + master.send(messages.read_clock(), 1.0), 1.0) == []
    assert terminal.next_timeout() == 1.0 + FRAME_GAP
    terminal.handle_timeout(1.0 + FRAME_GAP)
    damaged, asked = drained(terminal)
    assert isinstance(damaged, Damaged)
    assert isinstance(asked, Asked)


# -- both ends ----------------------------------------------------------------------------------------


@given(st.lists(st.sampled_from(("lost down", "lost up", "twice", "good")), min_size=3, max_size=3))
def test_a_read_over_a_bad_line_is_answered_or_silent_and_asked_at_most_three_times(line: list[str]) -> None:
    master, terminal = pair()
    request = messages.read_frozen(161, range(1, 41), DAY)
    raw = master.send(request, 0.0)
    events = []
    now = 0.0
    for fate in line:
        if raw and fate != "lost down":
            (asked,) = heard(terminal, raw, now)
            assert isinstance(asked, Asked)
            answer = terminal.answer(asked.frame, [frozen(pn) for pn in range(1, 41)])
            frames = [build(frame) for frame in frames_of(answer)]
            if fate == "lost up":
                frames = frames[1:]
            master.receive_data(b"".join(frames * (2 if fate == "twice" else 1)), now)
            events += drained_master(master)
        now += 10.0
        master.handle_timeout(now)
        events += drained_master(master)
        raw = master.data_to_send()
    ends = [event for event in events if isinstance(event, Answered | Silent)]
    assert len(ends) == 1
    assert isinstance(ends[0], Answered) == any(fate in ("twice", "good") for fate in line)
    if isinstance(ends[0], Answered):
        assert [row[0] for frame in ends[0].frames for row in midnight.rows(frame)[0]] == list(range(1, 41))
