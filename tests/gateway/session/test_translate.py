"""Frames into rows: the right meter, the right midnight, a number that is one; everything else is refused."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import date, datetime, timedelta
from typing import Any

import pytest

from gateway.clock import from_device, to_device
from gateway.model import Kind, MeterClass, Point, PointRole, Quality, Quantity, Reason, Source
from gateway.session import asking, translate
from gateway.session.settings import TdNames, TerminalProfile
from gateway.session.targets import Targets
from gateway.session.translate import Context, Translated, frozen_rows, present_rows
from protocols.q_gdw376 import messages, midnight
from protocols.q_gdw376.frame import Frame, parse
from protocols.q_gdw376.messages import FrozenThreePhase, PresentEnergy, encode_unit
from tests.gateway.session.stage import (
    ADDRESS,
    MIDNIGHT,
    NOON,
    assets,
    due,
    frozen_unit,
    meter_address,
    point,
)

WALL = to_device(MIDNIGHT)
EXAMPLE_13 = bytes.fromhex(
    "68 BA 00 BA 00 68 88 14 03 32 63 02 0D 62 01 01 01 14 23 11 26 05 00 24 11 26 04 00 56 34 12 00"
    " 00 00 00 03 00 00 50 00 04 00 00 06 00 05 00 EE EE EE EE EE 1E 16"
)
"""made: worked example 13 of the 376.1 fact sheet"""


def context(*points: Point, archive: bool = True, **changes: object) -> Context:
    plain = Context(Targets(assets(*points, archive=archive)), TerminalProfile(), NOON, Source.TERMINAL)
    return replace(plain, **changes)  # type: ignore[arg-type]  # names and values are the caller's


def history(*units: bytes) -> Frame:
    return Frame(terminal=ADDRESS, up=True, prm=False, function=8, afn=0x0D, body=b"".join(units), msa=1)


def one_refusal(done: Translated) -> translate.Refusal:
    assert done.rows == []
    (refusal,) = done.refused
    return refusal


def test_the_worked_example_becomes_its_row() -> None:
    done = frozen_rows(parse(EXAMPLE_13), context(), MIDNIGHT)
    read_at = from_device(datetime(2026, 11, 24, 0, 5))
    assert done.rows == [
        (1001, 1, 1, MIDNIGHT, 12_345_600, 3_000_000, 4_005_000, 5_000_600, None, None, read_at, NOON, 2, 1)
    ]
    assert done.refused == []
    assert done.strange is None


@pytest.mark.parametrize(
    ("fn", "quantity", "kind"),
    [(fn, quantity, kind) for fn, (quantity, kind) in translate.MEANS.items() if kind is Kind.DAY],
)
def test_each_class_counts_what_the_table_says(fn: int, quantity: Quantity, kind: Kind) -> None:
    (row,) = frozen_rows(history(frozen_unit(2, fn, (500, 400, 100))), context(), MIDNIGHT).rows
    assert row[:10] == (1002, quantity, kind, MIDNIGHT, 500, 400, 100, None, None, None)


@pytest.mark.parametrize("tariffs", [0, 1, 2, 3, 4, 5, 12])
def test_any_number_of_tariffs_finds_its_columns(tariffs: int) -> None:
    registers = tuple(100 * number for number in range(1, tariffs + 2))
    (row,) = frozen_rows(history(frozen_unit(1, 161, registers)), context(), MIDNIGHT).rows
    padded = [*registers[:5], None, None, None, None][:5]
    assert list(row[4:9]) == padded
    assert row[9] == (list(registers[5:]) or None)


@pytest.mark.parametrize(
    ("names", "tag", "month"),
    [
        ("ended_day", date(2026, 11, 30), date(2026, 11, 1)),
        ("freeze_day", date(2026, 12, 1), date(2026, 12, 1)),
    ],
)
def test_tags_and_midnights_are_inverse_by_profile(names: TdNames, tag: date, month: date) -> None:
    first = from_device(datetime(2026, 12, 1))
    assert asking.tag_of(first, Kind.DAY, names) == tag
    assert asking.tag_of(first, Kind.MONTH, names) == month
    assert asking.midnight_of(tag, Kind.DAY, names) == first
    assert asking.midnight_of(month, Kind.MONTH, names) == first


def test_a_year_of_tags_comes_back() -> None:
    both: tuple[TdNames, ...] = ("ended_day", "freeze_day")
    for names in both:
        for number in range(366 * 2):
            instant = from_device(datetime(2027, 1, 1)) + timedelta(days=number)
            tag = asking.tag_of(instant, Kind.DAY, names)
            assert asking.midnight_of(tag, Kind.DAY, names) == instant


@pytest.mark.parametrize(
    ("meter_class", "role", "ct", "fn"),
    [
        (MeterClass.SINGLE_PHASE, PointRole.CUSTOMER, 1, 161),
        (MeterClass.SINGLE_PHASE, PointRole.FEED_IN, 1, 161),
        (MeterClass.SINGLE_PHASE, PointRole.AREA_GATEWAY, 1, 1),
        (MeterClass.SINGLE_PHASE, PointRole.CUSTOMER, 30, 1),
        (MeterClass.THREE_PHASE, PointRole.CUSTOMER, 1, 1),
        (MeterClass.THREE_PHASE, PointRole.FEED_IN, 40, 1),
        (MeterClass.THREE_PHASE, PointRole.FEEDER_HEAD, 1, 1),
        (MeterClass.THREE_PHASE, PointRole.BUS, 1, 1),
    ],
)
def test_what_is_asked_for(meter_class: MeterClass, role: PointRole, ct: int, fn: int) -> None:
    one = point(1, meter_class=meter_class, role=role, ct=ct)
    assert asking.fn_for(one, Quantity.FORWARD_ACTIVE, Kind.DAY) == fn
    assert asking.fn_for(one, Quantity.REVERSE_ACTIVE, Kind.DAY) == fn + (2 if fn == 161 else 1)
    assert asking.fn_for(one, Quantity.FORWARD_ACTIVE, Kind.MONTH) == 177
    assert asking.fn_for(one, Quantity.FORWARD_ACTIVE, Kind.LIVE) is None


def test_a_request_has_a_unit_for_each_point() -> None:
    points = (point(1), point(9, meter_class=MeterClass.THREE_PHASE), point(3))
    known = asking.Asking(assets(*points), TerminalProfile())
    dues = [due(1), due(9), due(3), due(77)]
    request = known.frozen_request(dues)
    assert request is not None
    assert [(unit.pn, unit.fn) for unit in request.units] == [(1, 161), (9, 1), (3, 161)]
    assert {unit.data for unit in request.units} == {bytes.fromhex("231126")}
    assert known.frozen_request([due(77)]) is None
    assert known.knows(dues[:3])
    assert not known.knows(dues)


def test_a_month_is_asked_for_by_its_month() -> None:
    first = from_device(datetime(2026, 12, 1))
    dues = [due(1, kind=Kind.MONTH, at=first)]
    request = asking.Asking(assets(), TerminalProfile()).frozen_request(dues)
    assert request is not None
    assert request.units == (messages.RequestUnit(1, 177, bytes.fromhex("1126")),)


def test_a_months_register_is_filed_under_the_midnight_that_closed_it() -> None:
    first = from_device(datetime(2026, 12, 1))
    unit = midnight.encode(1, 177, date(2026, 11, 1), datetime(2026, 12, 1, 0, 30), (700, 700))
    done = frozen_rows(history(unit), context(received_at=first + timedelta(hours=9)), first)
    (row,) = done.rows
    assert row[:6] == (1001, Quantity.FORWARD_ACTIVE, Kind.MONTH, first, 700, 700)


def three_phase(pn: int, fn: int, active: tuple[int, ...] = (9000, 9000)) -> bytes:
    read_at = WALL + timedelta(minutes=7)
    value = FrozenThreePhase(
        (WALL - timedelta(days=1)).date(), read_at, active, (800, 800), (100, 100), (200, 200)
    )
    return encode_unit(0x0D, fn, pn, value)


def test_a_three_phase_answer_brings_its_reactive_register_along() -> None:
    done = frozen_rows(history(three_phase(1, 1), three_phase(1, 2)), context(), MIDNIGHT)
    assert [row[:6] for row in done.rows] == [
        (1001, Quantity.FORWARD_ACTIVE, Kind.DAY, MIDNIGHT, 9000, 9000),
        (1001, Quantity.FORWARD_REACTIVE, Kind.DAY, MIDNIGHT, 800, 800),
        (1001, Quantity.REVERSE_ACTIVE, Kind.DAY, MIDNIGHT, 9000, 9000),
        (1001, Quantity.REVERSE_REACTIVE, Kind.DAY, MIDNIGHT, 800, 800),
    ]
    assert done.rows[0][10] == from_device(WALL + timedelta(minutes=7))


# refusals

FILLED = bytes.fromhex("01 01 01 14") + b"\xee" * 34
NO_TARIFFS_TOLD = bytes.fromhex("01 01 01 14 23 11 26 05 00 24 11 26") + b"\xee" * 26
PHASES = bytes.fromhex("01 01 01 14 23 11 26 05 00 24 11 26") + bytes.fromhex("0001000000") * 3
ZERO_TIME = bytes.fromhex("01 01 01 14 23 11 26 00 00 00 00 00 01 00 56 34 12 00 00 56 34 12 00")
FILLED_TIME = bytes.fromhex("01 01 01 14 23 11 26 EE EE EE EE EE 01 00 56 34 12 00 00 56 34 12 00")
BAD_DIGIT = bytes.fromhex("01 01 01 14 23 11 26 05 00 24 11 26 01 00 5A 34 12 00 00 56 34 12 00")
OTHER_DAY = frozen_unit(1, tag=WALL - timedelta(days=2), read_at=WALL - timedelta(days=1, minutes=-5))


@pytest.mark.parametrize(
    ("unit", "reason"),
    [
        (FILLED, Reason.NO_VALUE_YET),
        (NO_TARIFFS_TOLD, Reason.NO_VALUE_YET),
        (frozen_unit(1, registers=(None, None, None, None, None)), Reason.NO_VALUE_YET),
        (frozen_unit(1, registers=(None, 5, 5, 5, 5)), Reason.NO_VALUE_YET),
        (ZERO_TIME, Reason.BAD_VALUE),
        (FILLED_TIME, Reason.BAD_VALUE),
        (BAD_DIGIT, Reason.BAD_VALUE),
        (PHASES, Reason.BAD_VALUE),
        (OTHER_DAY, Reason.WRONG_DATE),
        (frozen_unit(1, read_at=WALL - timedelta(minutes=6)), Reason.WRONG_DATE),
        (frozen_unit(1, read_at=WALL - timedelta(days=1, minutes=-5)), Reason.WRONG_DATE),
        (frozen_unit(1, read_at=WALL + timedelta(hours=12, minutes=7)), Reason.WRONG_DATE),
        (frozen_unit(40), Reason.NOT_IN_ARCHIVE),
    ],
    ids=[
        "all filled",
        "even the number of tariffs filled",
        "registers filled",
        "total filled",
        "read time zero",
        "read time filled",
        "bad digit",
        "three phases without a total",
        "tagged another day",
        "read too early",
        "read the day before",
        "read after it was received",
        "a point nobody knows",
    ],
)
def test_what_must_not_be_filed_is_refused(unit: bytes, reason: Reason) -> None:
    assert one_refusal(frozen_rows(history(unit), context(), MIDNIGHT)).reason is reason


def test_a_read_time_on_the_edge_is_taken() -> None:
    for read_at in (WALL - timedelta(minutes=5), WALL + timedelta(hours=12, minutes=5)):
        assert len(frozen_rows(history(frozen_unit(1, read_at=read_at)), context(), MIDNIGHT).rows) == 1


def test_good_units_around_a_bad_one_are_filed() -> None:
    done = frozen_rows(history(frozen_unit(2), BAD_DIGIT, FILLED, frozen_unit(3)), context(), MIDNIGHT)
    assert [row[0] for row in done.rows] == [1002, 1003]
    assert {refusal.reason for refusal in done.refused} == {Reason.BAD_VALUE, Reason.NO_VALUE_YET}


def test_a_wrong_profile_of_td_d_is_noticed_by_the_read_time() -> None:
    """The terminal names the freeze day, the profile says the ended day: asked for D, it gives D-1's
    midnight."""
    unit = frozen_unit(1, tag=WALL - timedelta(days=1), read_at=WALL - timedelta(days=1, minutes=-5))
    assert one_refusal(frozen_rows(history(unit), context(), MIDNIGHT)).reason is Reason.WRONG_DATE


def test_where_the_archive_differs_nothing_is_filed_and_the_frame_is_worth_keeping() -> None:
    swapped = replace(assets(), archive={1: meter_address(1), 2: "000000000099"})
    known = context(targets=Targets(swapped))
    done = frozen_rows(history(frozen_unit(1), frozen_unit(2), frozen_unit(3)), known, MIDNIGHT)
    assert [row[0] for row in done.rows] == [1001]
    assert [(one.pn, one.reason) for one in done.refused] == [
        (2, Reason.ARCHIVE_DIFFERS),
        (3, Reason.NOT_IN_ARCHIVE),
    ]
    assert "000000000099" in (done.strange or "")


def test_an_archive_never_read_does_not_refuse() -> None:
    assert len(frozen_rows(history(frozen_unit(1)), context(archive=False), MIDNIGHT).rows) == 1


def test_a_meter_is_the_one_that_stood_there_at_that_midnight() -> None:
    swap = MIDNIGHT - timedelta(hours=6)
    old = point(1, valid_to=swap)
    new = point(1, meter_id=2001, valid_from=swap)
    known = context(old, new)
    before = MIDNIGHT - timedelta(days=1)
    late = frozen_unit(1, tag=WALL - timedelta(days=2), read_at=WALL - timedelta(days=1, minutes=-5))
    done = frozen_rows(history(frozen_unit(1), late), known)
    assert [(row[0], row[3]) for row in done.rows] == [(2001, MIDNIGHT), (1001, before)]


@pytest.mark.parametrize(
    ("changes", "read_after", "quality"),
    [
        ({}, timedelta(minutes=5), Quality.GOOD),
        ({}, timedelta(hours=24), Quality.GOOD),
        ({}, timedelta(hours=24, minutes=1), Quality.LATE_READ),
        ({"clock_offset": 299.0}, timedelta(minutes=5), Quality.GOOD),
        ({"clock_offset": -301.0}, timedelta(minutes=5), Quality.CLOCK_OFF),
        ({"clock_offset": 301.0}, timedelta(hours=30), Quality.CLOCK_OFF),
        ({"contested": True, "clock_offset": 301.0}, timedelta(hours=30), Quality.CONTESTED),
    ],
)
def test_what_has_to_be_known_of_a_reading_is_marked(
    changes: dict[str, Any], read_after: timedelta, quality: Quality
) -> None:
    known = context(received_at=NOON + timedelta(days=2), **changes)
    (row,) = frozen_rows(history(frozen_unit(1, read_at=WALL + read_after)), known, MIDNIGHT).rows
    assert row[13] == quality
    (row,) = frozen_rows(history(three_phase(1, 1)), replace(known, received_at=NOON), MIDNIGHT).rows[:1]
    assert (row[13] == Quality.GOOD) == (not changes or changes == {"clock_offset": 299.0})


@pytest.mark.parametrize("offset", [86_400.0, -86_400.0, 3_601.0])
def test_a_clock_off_by_hours_or_days_names_other_midnights(offset: float) -> None:
    refusal = one_refusal(frozen_rows(history(frozen_unit(1)), context(clock_offset=offset), MIDNIGHT))
    assert refusal.reason is Reason.WRONG_DATE
    assert "clock" in refusal.detail


def test_values_frozen_before_the_clock_was_set_right_stay_refused() -> None:
    set_right = context(clock_offset=0.0, distrusted_until=MIDNIGHT + timedelta(hours=1))
    assert one_refusal(frozen_rows(history(frozen_unit(1)), set_right, MIDNIGHT)).reason is Reason.WRONG_DATE
    earlier = replace(set_right, distrusted_until=MIDNIGHT - timedelta(seconds=1))
    assert len(frozen_rows(history(frozen_unit(1)), earlier, MIDNIGHT).rows) == 1


def test_unasked_values_are_filed_by_what_they_say() -> None:
    earlier = WALL - timedelta(days=3)
    unit = frozen_unit(2, tag=earlier - timedelta(days=1), read_at=earlier + timedelta(minutes=9))
    done = frozen_rows(history(frozen_unit(1), unit), context(source=Source.PUSHED))
    assert [(row[0], row[3], row[12]) for row in done.rows] == [
        (1001, MIDNIGHT, Source.PUSHED),
        (1002, MIDNIGHT - timedelta(days=3), Source.PUSHED),
    ]


def test_classes_that_are_not_filed_are_passed_over() -> None:
    unit = midnight.encode(1, 169, date(2026, 11, 23), WALL + timedelta(minutes=5), (1, 1))
    done = frozen_rows(history(unit, frozen_unit(2)), context(), MIDNIGHT)
    assert [row[0] for row in done.rows] == [1002]
    assert done.refused == []


# present values


def present(*values: tuple[int, int, PresentEnergy]) -> Frame:
    body = b"".join(encode_unit(0x0C, fn, pn, value) for pn, fn, value in values)
    return Frame(terminal=ADDRESS, up=True, prm=True, function=8, afn=0x0C, body=body)


def test_present_registers_are_live_rows_under_their_read_time() -> None:
    read_at = to_device(NOON) - timedelta(minutes=3)
    done = present_rows(present((3, 129, PresentEnergy(read_at, (3_302_000, 0, 0)))), context())
    read = from_device(read_at)
    assert done.rows == [(1003, 1, 3, read, 3_302_000, 0, 0, None, None, None, read, NOON, 2, 1)]


@pytest.mark.parametrize(
    ("pn", "value", "reason"),
    [
        (1, PresentEnergy(None, (5,)), Reason.BAD_VALUE),
        (1, PresentEnergy(to_device(NOON), (None, None)), Reason.NO_VALUE_YET),
        (1, PresentEnergy(to_device(NOON), ()), Reason.NO_VALUE_YET),
        (1, PresentEnergy(to_device(NOON) + timedelta(minutes=6), (5,)), Reason.WRONG_DATE),
        (60, PresentEnergy(to_device(NOON), (5,)), Reason.NOT_IN_ARCHIVE),
    ],
)
def test_present_values_that_must_not_be_filed(pn: int, value: PresentEnergy, reason: Reason) -> None:
    assert one_refusal(present_rows(present((pn, 129, value)), context())).reason is reason


# sizes and speed


def test_a_request_and_its_answer_fit_the_buffers() -> None:
    def fit(known: tuple[Point, ...], rx: int | None, tx: int | None, most: int = 16) -> int:
        known_to = asking.Asking(assets(*known), TerminalProfile(points_a_request=most))
        return known_to.points_that_fit(Quantity.FORWARD_ACTIVE, Kind.DAY, rx, tx)

    alone = tuple(point(pn) for pn in range(1, 50))
    three = tuple(replace(one, meter_class=MeterClass.THREE_PHASE) for one in alone)
    assert fit(alone, None, None) == 16
    assert fit(alone, None, None, 64) == 26
    assert fit(alone, 64, None) == 6
    assert fit(alone, None, 255) == 6
    assert fit(three, None, None) == 10
    assert fit(three, None, 100) == 1
    assert fit(alone, 16, 16) == 1
    assert fit((), None, None) == 16
    assert 10 < fit((*alone[:25], *three[25:]), None, None, 26) < 26


def test_the_midnight_path_is_fast() -> None:
    """Far above what is needed, since other work may run beside the tests: it is to catch a slip of ten
    times."""
    points = tuple(point(pn) for pn in range(1, 26))
    frame = history(*(frozen_unit(pn) for pn in range(1, 26)))
    known = context(*points)
    frozen_rows(frame, known, MIDNIGHT)
    best = 9e9
    for _ in range(20):
        began = time.perf_counter()
        for _ in range(50):
            frozen_rows(frame, known, MIDNIGHT)
        best = min(best, (time.perf_counter() - began) / (50 * 25))
    assert best < 30e-6, f"{best * 1e6:.1f} µs a meter"
    print(f"{best * 1e6:.2f} µs a meter")
