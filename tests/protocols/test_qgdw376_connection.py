"""The master's end of a link: every event, in order and out of order, and what no peer may do to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import date, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.errors import LocalProtocolError
from protocols.permit import Permit
from protocols.q_gdw376 import messages, midnight, values
from protocols.q_gdw376.connection import (
    Answered,
    Confirmed,
    Damaged,
    Denied,
    Late,
    Master,
    MasterEvent,
    Silent,
    Spontaneous,
)
from protocols.q_gdw376.frame import Frame, build, parse
from protocols.q_gdw376.messages import Request, RequestUnit, encode_unit
from tests.protocols.test_qgdw376_examples import EXAMPLES
from tests.protocols.test_qgdw376_frame import FIELD, LOGIN

TERMINAL = "02001234"
DAY = date(2026, 11, 23)
READ_AT = datetime(2026, 11, 24, 0, 5)
FROZEN = messages.read_frozen(161, range(1, 9), DAY)
CLOCK = messages.read_clock()
SET_CLOCK = messages.set_clock(READ_AT)
WRITE_ARCHIVE = messages.write_archive([], permit=Permit("376 04 f10", TERMINAL, "test"))


def a_master(**settings_: Any) -> Master:
    master = Master(reply_timeout=10.0, repeats=2, **settings_)
    master.terminal = TERMINAL
    return master


def drained(master: Master) -> list[MasterEvent]:
    events = []
    while (event := master.next_event()) is not None:
        events.append(event)
    return events


def heard(master: Master, *frames: Frame, now: float = 1.0) -> list[MasterEvent]:
    master.receive_data(b"".join(build(frame) for frame in frames), now)
    return drained(master)


def sent(master: Master, request: Request, now: float = 0.0) -> Frame:
    return parse(master.send(request, now))


def up(asked: Frame, body: bytes, place: int = 0, count: int = 1, /, **changes: Any) -> Frame:
    """Frame `place` of `count` that answer `asked`."""
    frame = Frame(
        terminal=TERMINAL,
        up=True,
        prm=False,
        function=8,
        afn=asked.afn,
        body=body,
        msa=asked.msa,
        fir=place == 0,
        fin=place == count - 1,
        pseq=(asked.pseq + place) % 16,
    )
    return replace(frame, **changes)


def frozen(pn: int) -> bytes:
    return midnight.encode(pn, 161, DAY, READ_AT, (5, 1, 1, 1, 2))


def several(asked: Frame, count: int) -> list[Frame]:
    return [up(asked, frozen(place % 8 + 1), place, count) for place in range(count)]


def clock_answer(asked: Frame, **changes: Any) -> Frame:
    return up(asked, encode_unit(0x0C, 2, 0, values.Clock(READ_AT, 2)), **changes)


def verdict(asked: Frame, fn: int, told: values.UnitConfirm | None = None, **changes: Any) -> Frame:
    return up(asked, encode_unit(0, fn, 0, told), **{"afn": 0, "function": 0, **changes})


# -- requests -----------------------------------------------------------------------------------------


def test_a_request_is_built_as_the_worked_example_has_it() -> None:
    master = Master(msa=1)
    master.terminal = "03146332"
    master.send(messages.read_clock(), 0.0)
    master.abandon()
    assert (
        master.send(messages.read_frozen(161, [1], DAY), 0.0).hex()
        == EXAMPLES[11].frame.replace(" ", "").lower()
    )


@pytest.mark.parametrize(
    ("request_", "control"),
    [(FROZEN, 0x4B), (CLOCK, 0x4B), (SET_CLOCK, 0x4A), (WRITE_ARCHIVE, 0x4A),
     (messages.forward(1, b"", 1, 100), 0x4B),
     (Request(0x01, (RequestUnit(0, 1),), permit=Permit("376 01 f1", TERMINAL, "test")), 0x41)],
)  # fmt: skip
def test_the_function_code_follows_the_afn(request_: Request, control: int) -> None:
    assert a_master().send(request_, 0.0)[6] == control


def test_the_sequence_number_rises_with_each_request() -> None:
    master = a_master()
    seen = []
    for _ in range(18):
        seen.append(sent(master, CLOCK).pseq)
        master.abandon()
    assert seen == [number % 16 for number in range(1, 19)]


def test_nothing_is_sent_out_of_order() -> None:
    master = Master()
    with pytest.raises(LocalProtocolError):
        master.send(CLOCK, 0.0)
    master.terminal = TERMINAL
    with pytest.raises(LocalProtocolError):
        master.send(Request(0x0C, ()), 0.0)
    assert not master.busy
    master.send(CLOCK, 0.0)
    assert master.busy
    with pytest.raises(LocalProtocolError):
        master.send(CLOCK, 0.0)
    with pytest.raises(LocalProtocolError):
        Master(confirm_form="F2")


# -- answers ------------------------------------------------------------------------------------------


def test_a_single_frame_answers() -> None:
    master = a_master()
    asked = sent(master, CLOCK)
    answer = clock_answer(asked)
    assert heard(master, answer) == [Answered(CLOCK, (answer,))]
    assert not master.busy
    assert master.next_timeout() is None


def test_a_captured_single_frame_marked_as_last_is_whole() -> None:
    master = a_master()
    answer = clock_answer(sent(master, CLOCK), fir=False, fin=True)
    assert heard(master, answer) == [Answered(CLOCK, (answer,))]


@pytest.mark.parametrize("name", ["gw-117", "gw-073", "gw-071"])
def test_captured_answers_are_taken(name: str) -> None:
    """Only PSEQ is set to the request's; gw-117 has PRM 1."""
    (vector,) = [one for one in FIELD if one.id == name]
    captured = parse(vector.raw)
    request = CLOCK if name != "gw-071" else messages.read_present(129, [3])
    master = Master()
    master.terminal = captured.terminal
    answer = replace(captured, pseq=sent(master, request).pseq)
    assert heard(master, answer) == [Answered(request, (answer,))]


@pytest.mark.parametrize("count", [2, 3, 16, 20, 40])
def test_several_frames_are_collected_in_order(count: int) -> None:
    master = a_master()
    frames = several(sent(master, FROZEN), count)
    assert heard(master, *frames) == [Answered(FROZEN, tuple(frames))]


@given(st.permutations(range(7)))
def test_frames_out_of_order_make_the_same_answer(order: Sequence[int]) -> None:
    master = a_master()
    frames = several(sent(master, FROZEN), 7)
    assert heard(master, *(frames[place] for place in order)) == [Answered(FROZEN, tuple(frames))]


@given(st.lists(st.integers(0, 4), max_size=20))
def test_duplicates_are_ignored(again: list[int]) -> None:
    master = a_master()
    frames = several(sent(master, FROZEN), 5)
    assert heard(master, *(frames[place] for place in (0, 1, 3))) == []
    assert heard(master, *(frames[place] for place in again if place in (0, 1, 3))) == []
    assert heard(master, frames[2], frames[4]) == [Answered(FROZEN, tuple(frames))]


def test_the_next_request_does_not_use_the_numbers_of_further_frames() -> None:
    master = a_master()
    asked = sent(master, FROZEN)
    heard(master, *several(asked, 3))
    assert sent(master, FROZEN).pseq == (asked.pseq + 3) % 16


def test_the_wait_starts_anew_with_each_frame() -> None:
    master = a_master()
    frames = several(sent(master, FROZEN), 3)
    assert master.next_timeout() == 10.0
    heard(master, frames[0], now=6.0)
    assert master.next_timeout() == 16.0
    heard(master, frames[0], now=8.0)
    assert master.next_timeout() == 16.0
    heard(master, frames[2], now=9.0)
    assert master.next_timeout() == 19.0


def test_a_lost_frame_is_had_from_the_repeat() -> None:
    master = a_master()
    asked = sent(master, FROZEN)
    frames = several(asked, 4)
    heard(master, frames[0], frames[1], frames[3])
    master.handle_timeout(11.0)
    assert parse(master.data_to_send()) == asked
    answered, again = heard(master, *frames, now=12.0)
    assert answered == Answered(FROZEN, tuple(frames))
    assert again == Late(frames[3], build(frames[3]))


def test_a_repeat_may_be_answered_in_one_frame() -> None:
    master = a_master()
    asked = sent(master, FROZEN)
    heard(master, several(asked, 3)[0])
    master.handle_timeout(11.0)
    whole = up(asked, frozen(1))
    assert heard(master, whole) == [Answered(FROZEN, (whole,))]


def test_frames_beyond_the_last_are_late() -> None:
    master = a_master()
    frames = several(sent(master, FROZEN), 4)
    last = replace(frames[2], fin=True)
    events = heard(master, frames[0], frames[3], frames[1], last)
    assert events[0] == Late(frames[3], build(frames[3])) or events[1] == Late(frames[3], build(frames[3]))
    assert Answered(FROZEN, (frames[0], frames[1], last)) in events
    assert len(events) == 2


def test_an_answer_wants_to_be_confirmed_where_its_frame_says_so() -> None:
    master = a_master()
    answer = clock_answer(sent(master, CLOCK), con=True)
    (event,) = heard(master, answer)
    assert isinstance(event, Answered)
    assert event.frames[0].con
    assert parse(master.confirm(event.frames[0])).pseq == answer.pseq


# -- AFN00 --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prm", [False, True])
@pytest.mark.parametrize(
    ("fn", "told", "event"),
    [
        (1, None, Confirmed),
        (2, None, Denied),
        (3, None, Confirmed),
        (3, values.UnitConfirm(5, ((0, 31, 0),)), Confirmed),
        (3, values.UnitConfirm(5, ((0, 31, 1),)), Denied),
        (3, values.UnitConfirm(4, ((0, 10, 0),)), Late),
    ],
)
def test_a_write_is_confirmed_or_denied(
    fn: int, told: values.UnitConfirm | None, event: type, prm: bool
) -> None:
    master = a_master()
    frame = verdict(sent(master, SET_CLOCK), fn, told, prm=prm)
    (said,) = heard(master, frame)
    assert isinstance(said, event)
    assert master.busy == (event is Late)


@pytest.mark.parametrize(
    ("fn", "told", "event"),
    [
        (1, None, Late),
        (2, None, Denied),
        (3, values.UnitConfirm(0x0D, ((1, 161, 0),)), Late),
        (3, values.UnitConfirm(0x0D, ((1, 161, 3),)), Denied),
    ],
)
def test_a_read_is_denied_but_never_answered_by_afn00(
    fn: int, told: values.UnitConfirm | None, event: type
) -> None:
    master = a_master()
    asked = sent(master, FROZEN)
    (said,) = heard(master, verdict(asked, fn, told))
    assert isinstance(said, event)
    assert master.busy == (event is Late)
    if event is Late:
        answer = up(asked, frozen(1))
        assert heard(master, answer) == [Answered(FROZEN, (answer,))]


def test_afn00_with_another_number_or_nothing_in_it_is_late() -> None:
    master = a_master()
    asked = sent(master, SET_CLOCK)
    for frame in (verdict(asked, 1, pseq=asked.pseq + 1), replace(verdict(asked, 1), body=b"")):
        assert heard(master, frame) == [Late(frame, build(frame))]
    assert master.busy


@pytest.mark.parametrize("body", ["000004000500", "00000800", "00000400050000"])
def test_afn00_that_cannot_be_read_is_damage(body: str) -> None:
    master = a_master()
    (event,) = heard(master, verdict(sent(master, SET_CLOCK), 3, body=bytes.fromhex(body)))
    assert isinstance(event, Damaged)
    assert master.busy


# -- frames that nobody waits for -----------------------------------------------------------------------


def test_an_answer_of_the_previous_exchange_is_late() -> None:
    master = a_master()
    old = sent(master, CLOCK)
    master.handle_timeout(10.0)
    master.handle_timeout(20.0)
    master.handle_timeout(30.0)
    assert drained(master) == [Silent(CLOCK, ())]
    new = sent(master, CLOCK, 31.0)
    late, answer = clock_answer(old), clock_answer(new)
    assert heard(master, late, answer, now=32.0) == [Late(late, build(late)), Answered(CLOCK, (answer,))]


def test_an_answer_without_a_request_is_late() -> None:
    master = a_master()
    asked = sent(master, CLOCK)
    master.abandon()
    assert drained(master) == []
    late = clock_answer(asked)
    assert heard(master, late) == [Late(late, build(late))]
    master.abandon()
    twice = clock_answer(sent(master, CLOCK))
    assert heard(master, twice, twice)[1] == Late(twice, build(twice))


@pytest.mark.parametrize(
    "changes",
    [
        {"terminal": "02001235"},
        {"afn": 0x0D},
        {"pseq": 9},
        {"pseq": 3},
        {"body": encode_unit(0x0C, 129, 1, values.PresentEnergy(None, ()))},
        {"body": encode_unit(0x0C, 2, 1, values.Clock(None))},
        {"body": b"\0\0\0"},
    ],
)
def test_a_frame_that_is_not_this_answer_is_late(changes: dict[str, object]) -> None:
    master = a_master()
    frame = clock_answer(sent(master, CLOCK), **changes)
    assert heard(master, frame) == [Late(frame, build(frame))]
    assert master.busy


@pytest.mark.parametrize(
    "changes",
    [
        {"afn": 0x0D},
        {"pseq": 9},
        {"body": encode_unit(0x0C, 129, 1, values.PresentEnergy(None, ()))},
        {"terminal": "02001235"},
    ],
)
def test_a_frame_of_its_own_accord_is_not_taken_for_the_answer(changes: dict[str, object]) -> None:
    master = a_master()
    frame = clock_answer(sent(master, CLOCK), **{"prm": True, **changes})
    assert heard(master, frame) == [Spontaneous(frame, build(frame))]
    assert master.busy


def test_a_report_in_the_middle_of_an_answer_is_told_at_once() -> None:
    """Also where its number would fit the answer."""
    master = a_master()
    asked = sent(master, FROZEN)
    frames = several(asked, 3)
    assert heard(master, frames[0]) == []
    for number in range(16):
        report = up(asked, frozen(1), prm=True, con=True, pseq=number)
        assert heard(master, report) == [Spontaneous(report, build(report))]
    assert heard(master, *frames[1:]) == [Answered(FROZEN, tuple(frames))]


def test_an_answer_of_several_frames_may_have_prm_1_throughout() -> None:
    master = a_master()
    frames = [replace(frame, prm=True) for frame in several(sent(master, FROZEN), 3)]
    assert heard(master, *frames) == [Answered(FROZEN, tuple(frames))]
    stray = replace(frames[1], pseq=(frames[0].pseq + 12) % 16)
    master = a_master()
    sent(master, FROZEN)
    assert heard(master, frames[0], stray) == [Spontaneous(stray, build(stray))]


def test_login_and_heartbeat_are_told_before_and_in_an_exchange() -> None:
    master = Master()
    login = parse(LOGIN)
    heartbeat = parse(bytes.fromhex(EXAMPLES[8].frame))
    assert heard(master, login, heartbeat) == [
        Spontaneous(login, LOGIN),
        Spontaneous(heartbeat, build(heartbeat)),
    ]
    master.terminal = login.terminal
    master.send(CLOCK, 0.0)
    assert heard(master, login) == [Spontaneous(login, LOGIN)]
    assert master.busy


def test_our_own_frames_come_back_as_damage() -> None:
    """A line that echoes."""
    master = a_master()
    raw = master.send(CLOCK, 0.0)
    master.receive_data(raw, 0.0)
    assert drained(master) == [Damaged(raw, 0, "a frame to a terminal, heard by the master")]
