"""A simulated terminal in conversation with the protocol's own master, in memory."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from datetime import date, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocols.dlt645.connection import Answered as MeterAnswered
from protocols.dlt645.connection import Master as MeterMaster
from protocols.dlt645.messages import ReadRequest
from protocols.permit import Permit
from protocols.q_gdw376 import messages, midnight
from protocols.q_gdw376.frame import Frame, build
from protocols.q_gdw376.identifiers import identifier
from protocols.q_gdw376.messages import Forwarded, FrozenEnergy, FrozenThreePhase, Unit
from simulator.clock import seconds
from simulator.district import District, MeterPlan, Quantity, TerminalPlan
from simulator.faults import Faults, Pace
from simulator.line import Ending
from simulator.store import NotHere
from simulator.terminal import CONFIRM_TIMEOUT, State
from tests.simulator.bench import (
    DAY,
    MORNING,
    Answered,
    Bench,
    Confirmed,
    Damaged,
    Denied,
    Silent,
    Spontaneous,
)

PLAN = District(7, 1, 60, DAY).terminals[0]
SINGLE = [meter for meter in PLAN.meters if meter.meter_class == "single_phase"]


def styled(style: str, edition: int = 2009) -> TerminalPlan:
    return replace(PLAN, absent_style=style, edition=edition)


def logged_in(plan: TerminalPlan = PLAN, **more: object) -> Bench:
    bench = Bench(plan, **more)  # type: ignore[arg-type]  # passed on as they come
    bench.log_in()
    return bench


def units(outcome: object) -> list[Unit]:
    assert isinstance(outcome, Answered)
    return [unit for frame in outcome.frames for unit in messages.decode(frame)]


def scaled(meter: MeterPlan, quantity: Quantity, midnight_of: date) -> tuple[int, ...]:
    return tuple(value * 100 for value in meter.at_midnight(quantity, midnight_of))


def test_it_logs_in_and_beats_with_or_without_a_clock() -> None:
    for edition, length in ((2009, 0), (2013, 6)):
        bench = logged_in(replace(PLAN, edition=edition))
        bench.run(130)
        frames = [event.frame for event in bench.heard if isinstance(event, Spontaneous)]
        login, *beats = [messages.decode(frame)[0] for frame in frames]
        assert (login.fn, len(beats)) == (1, 2)
        assert all(beat.fn == 3 and len(beat.raw) == length for beat in beats)
        assert all(frame.con and frame.prm and frame.afn == 2 for frame in frames)


def test_an_unconfirmed_login_is_given_up_and_dialled_anew() -> None:
    bench = Bench(PLAN, confirms=False)
    bench.run(2 * CONFIRM_TIMEOUT + 5)
    assert bench.links == 2 + 1
    assert bench.terminal.state is State.CALLING
    assert set(bench.endings) == {Ending.CLOSE}


def test_unconfirmed_heartbeats_end_the_link() -> None:
    bench = logged_in(heartbeat=10.0)
    bench.confirms = False
    bench.run(45)
    assert bench.endings == [Ending.CLOSE]


def test_it_logs_out_and_leaves_when_that_is_confirmed() -> None:
    bench = logged_in()
    bench.line.log_out(bench.now)
    bench.run(0.5)
    assert bench.endings == [Ending.CLOSE]
    assert [messages.decode(e.frame)[0].fn for e in bench.heard if isinstance(e, Spontaneous)][:2] == [1, 2]


@pytest.mark.parametrize("back", [0, 1, 29])
def test_frozen_values_of_every_kept_day_equal_the_meters_registers(back: int) -> None:
    day = DAY - timedelta(days=back)
    bench = logged_in()
    for fn, quantity in ((161, Quantity.FORWARD_ACTIVE), (163, Quantity.REVERSE_ACTIVE)):
        outcome = bench.ask(messages.read_frozen(fn, [meter.pn for meter in SINGLE], day))
        assert isinstance(outcome, Answered)
        rows = [row for frame in outcome.frames for row in midnight.rows(frame)[0]]
        assert [row[0] for row in rows] == [meter.pn for meter in SINGLE]
        for meter, row in zip(SINGLE, rows, strict=True):
            _, row_fn, tag, read_at, registers = row
            assert (row_fn, tag) == (fn, day)
            assert read_at is not None
            assert datetime(day.year, day.month, day.day) + timedelta(days=1) <= read_at
            assert seconds(read_at) <= MORNING + 60
            assert registers == scaled(meter, quantity, day + timedelta(days=1))


def test_month_values_are_those_of_the_months_last_midnight() -> None:
    bench = logged_in()
    for fn, quantity in ((177, Quantity.FORWARD_ACTIVE), (179, Quantity.REVERSE_ACTIVE)):
        (unit,) = units(bench.ask(messages.read_frozen_month(fn, [SINGLE[0].pn], 2026, 10)))
        assert isinstance(unit.value, FrozenEnergy)
        assert unit.value.tag == date(2026, 10, 1)
        assert unit.value.registers == scaled(SINGLE[0], quantity, date(2026, 11, 1))


def test_gateway_values_carry_active_reactive_and_quadrants() -> None:
    bench = logged_in()
    gateway = PLAN.meters[0]
    for fn, active, reactive in (
        (1, Quantity.FORWARD_ACTIVE, Quantity.FORWARD_REACTIVE),
        (2, Quantity.REVERSE_ACTIVE, Quantity.REVERSE_REACTIVE),
    ):
        (unit,) = units(bench.ask(messages.read_frozen(fn, [1], DAY)))
        value = unit.value
        assert isinstance(value, FrozenThreePhase)
        assert value.active == scaled(gateway, active, date(2026, 11, 24))
        assert value.reactive == scaled(gateway, reactive, date(2026, 11, 24))
        for whole, one, other in zip(value.reactive, value.quadrant_a, value.quadrant_b, strict=True):
            assert (one or 0) + (other or 0) == whole


def test_answers_made_beforehand_are_those_made_when_asked() -> None:
    bench, prepared = logged_in(), logged_in()
    prepared.terminal.prepare(prepared.now)
    for fn in (161, 163, 1, 2):
        for meter in PLAN.meters:
            request = messages.read_frozen(fn, [meter.pn], DAY)
            assert units(prepared.ask(request)) == units(bench.ask(request))


def test_points_grouped_in_one_identifier_are_answered_one_by_one() -> None:
    bench = logged_in()
    wanted = [meter.pn for meter in SINGLE if 9 <= meter.pn <= 16]
    bits = sum(1 << (pn - 9) for pn in wanted)
    tag = messages.read_frozen(161, [9], DAY).units[0].data
    found = bench.terminal.store.frozen(
        bytes([bits, 2]) + b"\x01\x14" + tag, datetime(2026, 11, 24, 9), MORNING
    )
    assert found.missing == 0
    assert len(found.units) == len(wanted)


def test_an_answer_longer_than_its_buffer_comes_in_several_frames() -> None:
    bench = logged_in(replace(PLAN, send_buffer=512))
    outcome = bench.ask(messages.read_frozen(161, [meter.pn for meter in SINGLE[:40]], DAY))
    assert isinstance(outcome, Answered)
    assert len(outcome.frames) > 2
    assert [frame.fir for frame in outcome.frames] == [True] + [False] * (len(outcome.frames) - 1)
    assert all(len(write) <= 512 for write in bench.writes)
    assert [unit.pn for unit in units(outcome)] == [meter.pn for meter in SINGLE[:40]]


@given(st.binary(max_size=400), st.integers(0, 15), st.integers(0, 127), st.integers(1, 2))
def test_answers_are_framed_as_the_protocol_builds_them(
    body: bytes, pseq: int, msa: int, version: int
) -> None:
    terminal = Bench(PLAN).terminal
    for tp in (None, bytes(6)):
        asked = Frame(
            terminal=PLAN.address, up=False, prm=True, function=11, afn=0x0D, body=bytes(4), msa=msa,
            pseq=pseq, protocol_id=version, tpv=tp is not None, tp=tp,
        )  # fmt: skip
        units = bytes(4) + body
        expected = replace(asked, up=True, prm=False, function=8, body=units, fir=False, pseq=(pseq + 1) % 16)
        assert terminal._answer_frame(asked, 0x0D, units, 1, 1) == build(expected)


def test_a_request_longer_than_its_buffer_is_dropped() -> None:
    bench = logged_in(replace(PLAN, receive_buffer=256))
    assert isinstance(bench.ask(messages.read_frozen(161, range(2, 50), DAY)), Silent)
    assert bench.counts["dropped_requests"] == 3


@pytest.mark.parametrize("edition", [2009, 2013])
def test_days_it_does_not_hold_are_filled_left_out_or_denied_by_its_style(edition: int) -> None:
    points = [meter.pn for meter in SINGLE[:5]]
    for day in (DAY + timedelta(days=1), DAY - timedelta(days=31)):
        filler = logged_in(styled("filler", edition))
        rows = units(filler.ask(messages.read_frozen(161, points, day)))
        assert len(rows) == 5
        for unit in rows:
            assert isinstance(unit.value, FrozenEnergy)
            assert unit.value.read_at is None
            assert set(unit.value.registers) <= {None}
        for style in ("left_out", "denied"):
            bench = logged_in(styled(style, edition))
            assert isinstance(bench.ask(messages.read_frozen(161, points, day)), Denied)


def test_points_it_does_not_know_are_left_out() -> None:
    bench = logged_in()
    assert [unit.pn for unit in units(bench.ask(messages.read_frozen(161, [SINGLE[0].pn, 2039], DAY)))] == [
        SINGLE[0].pn
    ]
    assert isinstance(bench.ask(messages.read_frozen(161, [2039], DAY)), Denied)


def test_a_paced_night_has_each_value_when_it_says_so_and_no_earlier() -> None:
    night = seconds(datetime(2026, 11, 24, 0, 1))
    bench = logged_in(styled("left_out"), faults=Faults(pace=Pace("02:00", "02:00")), now=night)
    points = [meter.pn for meter in PLAN.meters]
    had = 0
    for hour in range(4):
        bench.run(1800)
        now = datetime(2026, 11, 24) + timedelta(seconds=bench.now - seconds(datetime(2026, 11, 24)))
        (state,) = units(bench.ask(messages.reading_state()))
        assert isinstance(state.value, messages.ReadingState)
        assert state.value.total == len(points)
        singles = [p for p in points if p in {meter.pn for meter in SINGLE}]
        outcome = bench.ask(messages.read_frozen(161, points, DAY))
        rows = units(outcome)
        assert len(rows) == state.value.read
        for unit in rows:
            assert isinstance(unit.value, FrozenEnergy)
            assert unit.value.read_at is not None
            assert datetime(2026, 11, 24, 0, 5) <= unit.value.read_at <= now
        assert had < len(rows) or hour == 3
        had = len(rows)
    assert had == len(points)
    assert singles


def test_the_freeze_day_dialect_names_the_day_that_begins() -> None:
    bench = logged_in(naming="freeze_day")
    meter = SINGLE[0]
    (unit,) = units(bench.ask(messages.read_frozen(161, [meter.pn], date(2026, 11, 24))))
    assert isinstance(unit.value, FrozenEnergy)
    assert unit.value.tag == date(2026, 11, 24)
    assert unit.value.registers == scaled(meter, Quantity.FORWARD_ACTIVE, date(2026, 11, 24))
    (unit,) = units(bench.ask(messages.read_frozen_month(177, [meter.pn], 2026, 11)))
    assert isinstance(unit.value, FrozenEnergy)
    assert unit.value.registers == scaled(meter, Quantity.FORWARD_ACTIVE, date(2026, 11, 1))


def test_clock_configuration_and_present_values_are_answered() -> None:
    bench = logged_in()
    (clock,) = units(bench.ask(messages.read_clock()))
    assert isinstance(clock.value, messages.Clock)
    assert clock.value.at is not None
    assert abs(seconds(clock.value.at) - bench.now) < 2
    (version,) = units(bench.ask(messages.read_version()))
    assert isinstance(version.value, messages.TerminalVersion)
    (ports,) = units(bench.ask(messages.read_ports()))
    assert isinstance(ports.value, messages.TerminalPorts)
    assert (ports.value.rx_buffer, ports.value.tx_buffer) == (PLAN.receive_buffer, PLAN.send_buffer)
    (more,) = units(bench.ask(messages.read_capabilities()))
    assert isinstance(more.value, messages.TerminalCapabilities)
    (present,) = units(bench.ask(messages.read_present(129, [SINGLE[0].pn])))
    assert isinstance(present.value, messages.PresentEnergy)
    frozen = scaled(SINGLE[0], Quantity.FORWARD_ACTIVE, date(2026, 11, 24))
    assert all((now or 0) >= then for now, then in zip(present.value.registers, frozen, strict=True))


def test_the_archive_is_told_changed_and_told_again() -> None:
    bench = logged_in(replace(PLAN, send_buffer=512))
    held: dict[int, messages.ArchiveRecord] = {}
    for first in range(1, 97, 32):
        outcome = bench.ask(messages.read_archive(range(first, first + 32)))
        if isinstance(outcome, Denied):
            continue
        for unit in units(outcome):
            assert isinstance(unit.value, messages.Archive)
            held |= {record.pn: record for record in unit.value.records}
    assert {pn: record.address for pn, record in held.items()} == {m.pn: m.address for m in PLAN.meters}
    changed = replace(held[2], address="310000009999")
    gone = replace(held[SINGLE[3].pn], pn=0)
    permit = Permit("376 04 f10", bench.plan.address, "test")
    assert isinstance(bench.ask(messages.write_archive([changed, gone], permit=permit)), Confirmed)
    (unit,) = units(bench.ask(messages.read_archive([2, SINGLE[3].pn])))
    assert unit.value == messages.Archive((changed,))


@pytest.mark.parametrize("edition", [2009, 2013])
def test_a_write_is_confirmed_in_the_form_of_its_edition(edition: int) -> None:
    bench = logged_in(replace(PLAN, edition=edition))
    outcome = bench.ask(messages.set_clock(datetime(2026, 11, 24, 9, 30)))
    assert isinstance(outcome, Confirmed)
    assert messages.decode(outcome.frame)[0].fn == (1 if edition == 2009 else 3)
    (clock,) = units(bench.ask(messages.read_clock()))
    assert isinstance(clock.value, messages.Clock)
    assert clock.value.at is not None
    assert clock.value.at >= datetime(2026, 11, 24, 9, 30)


def test_a_645_frame_is_passed_on_to_the_meter_it_names() -> None:
    bench = logged_in()
    for meter in (PLAN.meters[0], SINGLE[5]):
        master = MeterMaster(reply_timeout=1.0, repeats=0)
        content = master.send(ReadRequest(meter.address, "05060101"), 0.0)
        (unit,) = units(bench.ask(messages.forward(meter.port, content, 60, 100)))
        assert isinstance(unit.value, Forwarded)
        master.receive_data(unit.value.content, 0.1)
        answer = master.next_event()
        assert isinstance(answer, MeterAnswered)
        expected = meter.at_midnight(Quantity.FORWARD_ACTIVE, date(2026, 11, 24))
        assert answer.data == b"".join(bytes.fromhex(f"{value:08d}")[::-1] for value in expected)


def test_a_meter_that_is_not_there_is_empty_silent_or_denied_by_style() -> None:
    content = MeterMaster().send(ReadRequest("310000009999", "05060101"), 0.0)
    request = messages.forward(31, content, 60, 100)
    (unit,) = units(logged_in(styled("filler")).ask(request))
    assert unit.value == Forwarded(31, b"")
    assert isinstance(logged_in(styled("left_out")).ask(request), Silent)
    assert isinstance(logged_in(styled("denied")).ask(request), Denied)
    rubbish = messages.forward(31, b"\x68\x01\x02", 60, 100)
    (unit,) = units(logged_in(styled("filler")).ask(rubbish))
    assert unit.value == Forwarded(31, b"")


def test_what_it_does_not_know_is_denied() -> None:
    bench = logged_in()
    assert isinstance(
        bench.ask(messages.Request(0x0D, (messages.RequestUnit(1, 5, b"\x23\x11\x26"),))), Denied
    )
    assert isinstance(bench.ask(messages.Request(0x0E, (messages.RequestUnit(0, 1, b"\x00\x01"),))), Denied)
    assert isinstance(bench.ask(messages.read_present(131, [2])), Denied)


def test_rubbish_and_frames_for_others_are_passed_over() -> None:
    bench = logged_in()
    stranger = Bench(replace(PLAN, address="02009999"))
    stranger.log_in()
    bench.line.receive_data(
        b"\x68\x00\xff" * 50 + stranger.master.send(messages.read_clock(), 0.0), bench.now
    )
    assert isinstance(bench.ask(messages.read_clock()), Answered)
    assert bench.counts["requests"] == 1
    assert bench.counts["damaged_received"] >= 1


@given(st.sampled_from([0, 2, 4, 5, 9, 0x0A, 0x0C, 0x0D, 0x0E, 0x10]), st.binary(max_size=80), st.booleans())
@settings(max_examples=300, deadline=None)
def test_no_request_can_bring_it_down(afn: int, body: bytes, prm: bool) -> None:
    bench = logged_in()
    frame = Frame(terminal=PLAN.address, up=False, prm=prm, function=11, afn=afn, body=body, msa=1, pseq=3)
    bench.line.receive_data(build(frame), bench.now)
    bench.run(1)
    assert bench.events(Damaged) == []
    assert isinstance(bench.ask(messages.read_clock()), Answered)


@given(st.sampled_from([1, 2, 161, 163, 177, 179]), st.binary(min_size=1, max_size=8), st.integers(0, 2041))
@settings(max_examples=300, deadline=None)
def test_no_day_or_point_can_bring_it_down(fn: int, tag: bytes, pn: int) -> None:
    bench = logged_in()
    head = identifier(min(pn, 2040), fn)
    found = bench.terminal.store
    with contextlib.suppress(NotHere):
        found.frozen((head + tag) * 2, datetime(2026, 11, 24, 9), MORNING)


@given(st.binary(max_size=300))
def test_no_bytes_can_bring_it_down(data: bytes) -> None:
    bench = logged_in()
    bench.line.receive_data(data, bench.now)
    bench.run(30)
    assert bench.terminal.state is State.HERE
