"""The master's end of a link when all does not go well: contradictions, silence, confirms, hostile peers."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocols.q_gdw376 import messages, values
from protocols.q_gdw376.answers import MOST_FRAMES
from protocols.q_gdw376.connection import (
    FRAME_GAP,
    Answered,
    Confirmed,
    Damaged,
    Denied,
    Late,
    Master,
    Silent,
)
from protocols.q_gdw376.frame import Frame, build, parse
from protocols.q_gdw376.messages import Request, encode_unit
from tests.protocols import made_qgdw376 as made
from tests.protocols.test_qgdw376_connection import (
    CLOCK,
    DAY,
    FROZEN,
    READ_AT,
    SET_CLOCK,
    TERMINAL,
    WRITE_ARCHIVE,
    a_master,
    clock_answer,
    drained,
    frozen,
    heard,
    sent,
    several,
    up,
)
from tests.protocols.test_qgdw376_examples import EXAMPLES
from tests.protocols.test_qgdw376_frame import FIELD, LOGIN

# -- numbers that contradict each other -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("order", "reason"),
    [
        ([("middle", 0)], "the first frame lacks FIR"),
        ([("first", 0), ("first", 1)], "FIR in a frame that is not the first"),
        ([("middle", 1), ("last", 0)], "the first frame lacks FIR"),
    ],
)
def test_contradicting_frames_are_damage_and_the_exchange_goes_on(
    order: list[tuple[str, int]], reason: str
) -> None:
    marks = {"first": (True, False), "middle": (False, False), "last": (False, True)}
    master = a_master()
    asked = sent(master, FROZEN)
    frames = [
        up(asked, frozen(place + 1), place, 4, fir=marks[kind][0], fin=marks[kind][1])
        for kind, place in order
    ]
    (event,) = heard(master, *frames)
    assert event == Damaged(build(frames[-1]), sum(len(build(one)) for one in frames[:-1]), reason)
    assert master.busy


def test_a_first_frame_with_a_number_to_come_is_late() -> None:
    master = a_master()
    asked = sent(master, FROZEN)
    stray = up(asked, frozen(1), 0, 3, pseq=(asked.pseq + 2) % 16)
    assert heard(master, stray) == [Late(stray, build(stray))]


def test_an_answer_without_end_is_bounded() -> None:
    """Every frame may start the wait anew; the frames that do are counted."""
    master = a_master()
    asked = sent(master, FROZEN)
    frames = several(asked, MOST_FRAMES + 30)
    events = heard(master, *frames)
    assert 14 <= len(events) <= 30
    reasons = [event.reason for event in events if isinstance(event, Damaged)]
    assert len(reasons) == len(events)
    assert set(reasons[:8]) == {"an answer of more than 64 frames"}
    deadline = master.next_timeout()
    heard(master, replace(frames[-1], fin=False), now=9.0)
    assert master.next_timeout() == deadline
    for now in (100.0, 200.0, 300.0):
        master.handle_timeout(now)
    (event,) = drained(master)
    assert isinstance(event, Silent)
    assert len(event.frames) == MOST_FRAMES


# -- silence ------------------------------------------------------------------------------------------


def test_a_read_is_repeated_with_the_same_number_and_then_silent() -> None:
    master = a_master()
    raw = master.send(FROZEN, 0.0)
    for now in (10.0, 20.0):
        master.handle_timeout(now - 0.1)
        assert master.data_to_send() == b""
        master.handle_timeout(now)
        assert master.data_to_send() == raw
        assert drained(master) == []
    master.handle_timeout(30.0)
    assert master.data_to_send() == b""
    assert drained(master) == [Silent(FROZEN, ())]
    assert not master.busy
    master.handle_timeout(99.0)
    assert drained(master) == []


@pytest.mark.parametrize("request_", [SET_CLOCK, WRITE_ARCHIVE, messages.forward(31, b"\x68", 60, 100)])
def test_what_is_not_only_a_read_is_never_repeated(request_: Request) -> None:
    master = a_master()
    master.send(request_, 0.0)
    master.handle_timeout(10.0)
    assert master.data_to_send() == b""
    assert drained(master) == [Silent(request_, ())]


def test_a_forward_that_only_reads_may_be_repeated_when_told() -> None:
    request = messages.forward(31, b"\x68", 60, 100, repeatable=True)
    master = a_master()
    raw = master.send(request, 0.0, reply_timeout=90.0)
    assert master.next_timeout() == 90.0
    master.handle_timeout(90.0)
    assert master.data_to_send() == raw


def test_silence_keeps_the_frames_that_came() -> None:
    master = a_master()
    asked = sent(master, FROZEN)
    frames = several(asked, 4)
    heard(master, frames[0], frames[2])
    for now in (20.0, 40.0, 60.0):
        master.handle_timeout(now)
    assert drained(master) == [Silent(FROZEN, (frames[0], frames[2]))]


def test_a_repeat_that_was_not_written_yet_is_dropped_with_the_answer() -> None:
    master = a_master()
    asked = sent(master, CLOCK)
    master.handle_timeout(10.0)
    heard(master, clock_answer(asked))
    assert master.data_to_send() == b""


def test_a_frame_that_does_not_go_on_hides_the_next_for_a_while_only() -> None:
    master = a_master()
    asked = sent(master, CLOCK)
    answer = clock_answer(asked)
    lie = bytes.fromhex("68feff feff68")
    master.receive_data(lie + build(answer), 1.0)
    assert drained(master) == []
    assert master.next_timeout() == 10.0
    master.handle_timeout(10.0)
    assert drained(master) == []
    master.data_to_send()
    assert master.next_timeout() == 1.0 + FRAME_GAP
    master.handle_timeout(1.0 + FRAME_GAP)
    assert drained(master) == [Damaged(lie, 0, "cut short"), Answered(CLOCK, (answer,))]
    assert master.held == 0


def test_the_end_of_the_line_tells_what_is_left() -> None:
    master = a_master()
    master.receive_data(LOGIN[:-3], 0.0)
    assert drained(master) == []
    assert master.held == len(LOGIN) - 3
    master.end()
    assert drained(master) == [Damaged(LOGIN[:-3], 0, "cut short")]


# -- confirming ---------------------------------------------------------------------------------------


def test_a_login_is_confirmed_as_the_worked_example_has_it() -> None:
    login = parse(bytes.fromhex(EXAMPLES[0].frame))
    assert Master().confirm(login).hex() == EXAMPLES[7].frame.replace(" ", "").lower()


def test_a_confirm_echoes_number_master_and_protocol_id() -> None:
    for vector in FIELD:
        frame = parse(vector.raw)
        if not frame.up:
            continue
        for form in ("F1", "F3"):
            confirm = parse(Master(confirm_form=form).confirm(frame))
            assert (confirm.terminal, confirm.pseq, confirm.msa, confirm.protocol_id) == (
                frame.terminal, frame.pseq, frame.msa, frame.protocol_id
            )  # fmt: skip
            assert (confirm.up, confirm.prm, confirm.afn, confirm.con) == (False, False, 0, False)


def test_a_report_is_confirmed_unit_by_unit_where_its_units_can_be_told() -> None:
    body = encode_unit(0x0D, 161, 1, values.FrozenEnergy(DAY, READ_AT, (1,))) + frozen(2)
    report = Frame(terminal=TERMINAL, up=True, prm=True, function=4, afn=0x0D, body=body, con=True)
    (unit,) = messages.decode(parse(Master().confirm(report)))
    assert unit.value == values.UnitConfirm(0x0D, ((1, 161, 0), (2, 161, 0)))
    for odd in (body + b"\x01", b"", encode_unit(0x0E, 1, 0, b"\x01")):
        (unit,) = messages.decode(parse(Master().confirm(replace(report, afn=0x0E, body=odd))))
        assert (unit.fn, unit.value) == (1, None)


def test_a_report_of_very_many_units_is_confirmed_as_a_whole() -> None:
    body = encode_unit(0x02, 2, 0) * 97
    report = replace(parse(LOGIN), body=body)
    assert parse(Master().confirm(report)).body.hex() == "00000100"
    assert len(build(parse(Master().confirm(replace(report, body=body[4:]))))) == 16 + 5 + 5 * 96


def test_a_report_may_be_refused() -> None:
    confirm = parse(Master().deny(parse(LOGIN)))
    assert confirm.body.hex() == "00000200"


def test_requests_follow_the_protocol_id_of_the_login() -> None:
    master = Master()
    login = replace(parse(LOGIN), protocol_id=1)
    heard(master, login)
    master.terminal = login.terminal
    assert sent(master, CLOCK).protocol_id == 1


# -- any peer -----------------------------------------------------------------------------------------


@settings(max_examples=200)
@given(st.lists(st.integers(0, 255), max_size=60), st.integers())
def test_no_peer_raises_or_holds_the_master_up(moves: list[int], seed: int) -> None:
    """Made, mutated and cut frames, near misses of the answer, and time that passes: only events, and an
    exchange ends at last."""
    chance = random.Random(seed)
    master = a_master()
    asked = sent(master, FROZEN)
    now = 0.0
    ended = 0
    for move in moves:
        frame = up(
            asked,
            frozen(move % 9),
            fir=bool(move & 1),
            fin=bool(move & 2),
            prm=bool(move & 64),
            afn=chance.choice((0, 0x0C, 0x0D, 0x0D, 0x0D)),
            pseq=(asked.pseq + chance.randrange(-2, 6)) % 16,
        )
        raw = build(frame)
        if move & 4:
            raw = made.mutated(raw, chance)
        if move & 8:
            raw = raw[: chance.randrange(len(raw))]
        now += chance.choice((0.0, 1.0, 12.0))
        master.receive_data(raw, now)
        events = drained(master)
        if move & 16:
            master.handle_timeout(now)
            events += drained(master)
            master.data_to_send()
        ended += sum(isinstance(one, Answered | Confirmed | Denied | Silent) for one in events)
        if not master.busy:
            asked = sent(master, FROZEN, now)
            ended -= 1
        assert ended == 0
    for _ in range(8):
        now += 20.0
        master.handle_timeout(now)
        drained(master)
    assert not master.busy
    assert master.held == 0 or master.next_timeout() is not None
