"""Tp: its bytes, what instant it means over midnights and month ends, and what either end makes of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, time, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.errors import LocalProtocolError, RemoteProtocolError
from protocols.q_gdw376 import messages
from protocols.q_gdw376.connection import Answered, Asked, Late, Master, Spontaneous, Terminal
from protocols.q_gdw376.frame import Frame, build, parse
from protocols.q_gdw376.messages import encode_unit
from protocols.q_gdw376.time_label import CLOCKS_APART, TimeLabel, label, staleness
from protocols.q_gdw376.time_label import parse as parse_label
from tests.protocols.test_qgdw376_examples import EXAMPLES
from tests.protocols.test_qgdw376_frame import FIELD

TERMINAL = "02001234"
NOW = datetime(2026, 11, 24, 8, 15, 30)
CENTURY = st.datetimes(datetime(2001, 1, 1), datetime(2098, 12, 31))


def asking() -> Master:
    master = Master(reply_timeout=10.0)
    master.terminal = TERMINAL
    return master


def up(asked: Frame, body: bytes, **changes: object) -> Frame:
    frame = Frame(
        terminal=TERMINAL, up=True, prm=False, function=8, afn=asked.afn, body=body, msa=asked.msa,
        pseq=asked.pseq,
    )  # fmt: skip
    return replace(frame, **changes)  # type: ignore[arg-type]  # the fields are of several types


def clock_answer(asked: Frame, **changes: object) -> Frame:
    return up(asked, encode_unit(0x0C, 2, 0, messages.Clock(NOW, 2)), **changes)


# -- bytes --------------------------------------------------------------------------------------------


def test_the_label_of_the_worked_example() -> None:
    tp = parse(bytes.fromhex(EXAMPLES[9].frame)).tp
    assert tp is not None
    assert parse_label(tp) == TimeLabel(5, 24, time(8, 15, 30), 5)
    assert label(5, NOW.replace(microsecond=999), 5).to_bytes() == tp


def test_every_captured_label_reads_and_is_written_the_same() -> None:
    captured = [frame.tp for frame in (parse(one.raw) for one in FIELD) if frame.tp is not None]
    read = 0
    for tp in captured:
        try:
            told = parse_label(tp)
        except RemoteProtocolError:
            continue
        assert told.to_bytes() == tp
        read += 1
    assert read >= 15


@pytest.mark.parametrize(
    ("tp", "offset"),
    [
        ("0001020305", 5),
        ("00010203050506", 6),
        ("00eeeeeeee05", 1),
        ("006000000105", 1),
        ("000060000105", 1),
        ("000000240105", 1),
        ("00000000a105", 4),
        ("000000000005", 4),
        ("000000003205", 4),
    ],
)
def test_what_is_no_label_says_where(tp: str, offset: int) -> None:
    with pytest.raises(RemoteProtocolError, match="Tp") as raised:
        parse_label(bytes.fromhex(tp))
    assert raised.value.offset == offset


@pytest.mark.parametrize("values", [(256, 1, 0), (-1, 1, 0), (0, 0, 0), (0, 32, 0), (0, 1, 256)])
def test_a_label_that_cannot_be_is_not_built(values: tuple[int, int, int]) -> None:
    pfc, day, delay = values
    with pytest.raises(LocalProtocolError):
        TimeLabel(pfc, day, time(), delay)


# -- meaning ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("clock", "day", "at", "meant"),
    [
        ("2026-11-24 08:16", 24, "08:15:30", "2026-11-24 08:15:30"),
        ("2026-11-25 00:01", 24, "23:59:00", "2026-11-24 23:59:00"),
        ("2026-12-01 00:01", 30, "23:59:00", "2026-11-30 23:59:00"),
        ("2027-01-01 00:01", 31, "23:59:00", "2026-12-31 23:59:00"),
        ("2026-03-01 00:01", 28, "23:59:00", "2026-02-28 23:59:00"),
        ("2028-03-01 00:01", 29, "23:59:00", "2028-02-29 23:59:00"),
        ("2026-03-01 00:01", 29, "23:59:00", "2026-01-29 23:59:00"),
        ("2026-03-01 00:01", 31, "23:59:00", "2026-01-31 23:59:00"),
        # the sender's clock is ahead, over midnight and over the month's end
        ("2026-11-24 23:59", 25, "00:00:30", "2026-11-25 00:00:30"),
        ("2026-11-30 23:59", 1, "00:00:30", "2026-12-01 00:00:30"),
        ("2026-12-31 23:30", 1, "00:29:59", "2027-01-01 00:29:59"),
        # ahead by more than clocks are apart: a month old
        ("2026-11-24 08:00", 24, "09:00:01", "2026-10-24 09:00:01"),
        ("2026-11-24 08:00", 25, "08:00:00", "2026-10-25 08:00:00"),
    ],
)
def test_the_instant_that_a_label_means(clock: str, day: int, at: str, meant: str) -> None:
    told = TimeLabel(0, day, time.fromisoformat(at), 5)
    assert told.sent_at(datetime.fromisoformat(clock)) == datetime.fromisoformat(meant)


@given(CENTURY, st.timedeltas(-CLOCKS_APART, timedelta(days=27)), st.integers(1, 255))
def test_a_label_is_stale_once_its_delay_is_over(sent: datetime, under_way: timedelta, delay: int) -> None:
    """Whatever month ends lie between."""
    sent = sent.replace(microsecond=0)
    told = label(0, sent, delay)
    assert told.sent_at(sent + under_way) == sent
    assert told.is_stale(sent + under_way) == (under_way > timedelta(minutes=delay))


@given(CENTURY, st.integers(1, 31), st.times())
def test_a_label_means_the_newest_instant_of_all(clock: datetime, day: int, at: time) -> None:
    """Against looking at every day of three months."""
    at = at.replace(microsecond=0)
    days = ((clock + CLOCKS_APART).date() - timedelta(days=back) for back in range(93))
    instants = (datetime.combine(one, at) for one in days if one.day == day)
    assert TimeLabel(0, day, at, 5).sent_at(clock) == next(
        instant for instant in instants if instant <= clock + CLOCKS_APART
    )


def test_no_delay_means_no_test() -> None:
    assert staleness(bytes.fromhex("002512162800"), NOW) is None  # worked example 3
    assert staleness(bytes.fromhex("00eeeeeeee00"), NOW) is None
    assert staleness(bytes.fromhex("002512162801"), NOW) == "Tp: sent on day 28 at 16:12:25, 1 min permitted"
    assert staleness(bytes.fromhex("00eeeeeeee01"), NOW) == "Tp: not BCD: ee"


# -- both ends ----------------------------------------------------------------------------------------


def test_a_request_carries_a_label_on_wish() -> None:
    master = asking()
    assert parse(master.send(messages.read_clock(), 0.0)).tp is None
    master.abandon()
    frame = parse(master.send(messages.read_clock(), 0.0, wall=NOW))
    assert (frame.tpv, frame.tp) == (True, bytes.fromhex("023015082405"))
    assert frame.pseq == 2


def test_the_frame_counter_goes_on_beyond_the_numbers() -> None:
    master = asking()
    counters = []
    for _ in range(300):
        frame = parse(master.send(messages.read_clock(), 0.0, wall=NOW))
        master.abandon()
        assert frame.tp is not None
        assert frame.tp[0] & 15 == frame.pseq
        counters.append(frame.tp[0])
    assert counters == [number & 0xFF for number in range(1, 301)]


def test_a_clock_is_never_set_by_a_frame_with_a_label() -> None:
    assert parse(asking().send(messages.set_clock(NOW), 0.0, wall=NOW)).tp is None


def test_a_repeat_has_the_label_it_had() -> None:
    master = asking()
    raw = master.send(messages.read_clock(), 0.0, wall=NOW)
    master.handle_timeout(10.0)
    assert master.data_to_send() == raw


@pytest.mark.parametrize(
    ("heard_at", "kind"),
    [
        (NOW, Asked),
        (NOW + timedelta(minutes=5), Asked),
        (NOW + timedelta(minutes=5, seconds=1), Late),
        (NOW + timedelta(days=3), Late),
        (NOW - timedelta(minutes=1), Asked),
        (NOW - timedelta(hours=2), Late),
        (None, Asked),
    ],
)
def test_a_terminal_drops_a_request_that_was_under_way_too_long(
    heard_at: datetime | None, kind: type
) -> None:
    raw = asking().send(messages.read_clock(), 0.0, wall=NOW)
    terminal = Terminal(TERMINAL)
    terminal.receive_data(raw, 0.0, heard_at)
    event = terminal.next_event()
    assert isinstance(event, kind)
    if isinstance(event, Late):
        assert event.reason == "Tp: sent on day 24 at 08:15:30, 5 min permitted"
        assert terminal.data_to_send() == b""


def test_the_captured_terminal_was_a_minute_behind_its_master() -> None:
    """gw-006 was answered by gw-007: to a clock of that terminal the label is of the future, and fresh."""
    asked, answer = (parse(one.raw).tp for one in FIELD if one.id in ("gw-006", "gw-007"))
    assert asked is not None
    assert answer is not None
    ahead, behind = sorted((asked, answer), reverse=True, key=lambda tp: tp[2])
    clock = parse_label(behind).sent_at(datetime(2018, 1, 21, 23, 55))
    assert clock is not None
    assert parse_label(ahead).sent_at(clock) == clock + timedelta(minutes=1, seconds=7)
    assert staleness(ahead, clock) is None


def test_a_terminal_repeats_the_label_in_every_frame_of_its_answer() -> None:
    terminal = Terminal(TERMINAL, frame_length=64)
    asked = parse(asking().send(messages.read_clock(), 0.0, wall=NOW))
    unit = encode_unit(0x0C, 2, 0, messages.Clock(NOW, 2))
    raw = terminal.answer(asked, [unit] * 10)
    assert raw.count(asked.tp or b"?") > 1
    assert parse(terminal.deny(asked)).tp == asked.tp


@pytest.mark.parametrize(("back", "late"), [(0, False), (-1, False), (1, True), (16, True), (112, True)])
def test_an_answer_to_an_earlier_request_is_told_by_its_counter(back: int, late: bool) -> None:
    """PSEQ alone comes round after sixteen requests. Its time is not looked at: the captured terminal has its
    own there."""
    master = asking()
    for _ in range(120):
        asked = parse(master.send(messages.read_clock(), 0.0, wall=NOW))
        master.abandon()
    asked = parse(master.send(messages.read_clock(), 0.0, wall=NOW))
    assert asked.tp is not None
    tp = bytes(((asked.tp[0] - back) & 0xFF,)) + bytes.fromhex("0000001105")
    answer = clock_answer(asked, tpv=True, tp=tp)
    master.receive_data(build(answer), 1.0)
    event = master.next_event()
    assert isinstance(event, Late if late else Answered)


def test_an_answer_need_not_repeat_the_label_nor_lack_one() -> None:
    for wall, tp in ((NOW, None), (None, bytes.fromhex("993015082405"))):
        master = asking()
        answer = clock_answer(
            parse(master.send(messages.read_clock(), 0.0, wall=wall)), tpv=tp is not None, tp=tp
        )
        master.receive_data(build(answer), 1.0)
        assert isinstance(master.next_event(), Answered)


def report(terminal: Terminal) -> bytes:
    return terminal.send_spontaneous(
        0x0D, [encode_unit(0x0D, 161, 1, bytes(9))], 0.0, wall=NOW, label_delay=10
    )


def login(terminal: Terminal) -> bytes:
    return terminal.send_spontaneous(0x02, [encode_unit(0x02, 1, 0)], 0.0, wall=NOW)


@pytest.mark.parametrize(
    ("make", "heard_at", "kind"),
    [
        (report, NOW + timedelta(minutes=10), Spontaneous),
        (report, NOW + timedelta(minutes=11), Late),
        (report, None, Spontaneous),
        (login, NOW + timedelta(days=9), Spontaneous),
    ],
)
def test_a_report_that_was_under_way_too_long_is_late_but_a_login_never(
    make: Callable[[Terminal], bytes], heard_at: datetime | None, kind: type
) -> None:
    raw = make(Terminal(TERMINAL))
    assert parse(raw).tp == bytes((0,)) + bytes.fromhex("30150824") + bytes((10 if make is report else 5,))
    master = asking()
    master.receive_data(raw, 0.0, heard_at)
    assert isinstance(master.next_event(), kind)
