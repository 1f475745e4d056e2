"""Data units and requests of Q/GDW 376.1: captured values, round trips, and answers that are odd."""

from __future__ import annotations

import random
from datetime import date, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.errors import LocalProtocolError
from protocols.q_gdw376 import messages, values
from protocols.q_gdw376.frame import Frame, build, parse
from protocols.q_gdw376.identifiers import classes, identifier, points
from protocols.q_gdw376.messages import Fields, Unit, decode, encode_unit, read
from tests.protocols import made_qgdw376 as made
from tests.protocols.test_qgdw376_frame import FIELD
from tests.protocols.vectors import Vector

DAY = date(2026, 11, 23)
READ_AT = datetime(2026, 11, 24, 0, 5)
TAG = "231126"
TIME = "0500241126"
EE = "ee"


def a_frame(afn: int, body: bytes | str, up: bool = True) -> Frame:
    data = bytes.fromhex(body) if isinstance(body, str) else body
    return Frame(terminal="02001234", up=up, prm=not up, function=8, afn=afn, body=data)


def units(afn: int, body: bytes | str, up: bool = True) -> tuple[Unit, ...]:
    return decode(a_frame(afn, body, up))


def field(name: str) -> Frame:
    (vector,) = [one for one in FIELD if one.id == name]
    return parse(vector.raw)


def field_value(name: str) -> Any:
    (unit,) = decode(field(name))
    assert unit.reason is None
    return unit.value


# -- captured frames ----------------------------------------------------------------------------------


@pytest.mark.parametrize("vector", FIELD, ids=str)
def test_the_first_unit_of_a_field_frame_is_the_expected_point_and_class(vector: Vector) -> None:
    unit = decode(parse(vector.raw))[0]
    assert unit.pn == vector.expected["pn"]
    assert (unit.fn or []) == vector.expected["fn"]


@pytest.mark.parametrize("vector", FIELD, ids=str)
def test_units_of_a_field_frame_lie_where_they_say(vector: Vector) -> None:
    frame = parse(vector.raw)
    for unit in decode(frame):
        assert frame.body[unit.offset : unit.offset + len(unit.raw)] == unit.raw


def test_captured_clocks() -> None:
    assert field_value("gw-117") == values.Clock(datetime(2015, 3, 17, 7, 39), 2)
    assert field_value("gw-073") == values.Clock(datetime(2018, 10, 7, 23, 20, 51), 0)


def test_a_heartbeat_with_a_time_label_has_no_clock() -> None:
    frame = field("gw-086")
    assert (frame.tp or b"").hex() == "011514180505"
    assert [(unit.fn, unit.value, unit.raw) for unit in decode(frame)] == [(3, None, b"")]


def test_captured_present_energy() -> None:
    assert field_value("gw-071") == values.PresentEnergy(
        datetime(2017, 2, 24, 16, 32), (3_302_000, 0, 0, 0, 0)
    )


def test_a_captured_terminal_version() -> None:
    version = field_value("gw-084")
    assert (version.vendor, version.device, version.software_date) == ("NBSX", "10020001", date(2014, 8, 8))


def test_how_far_a_terminal_is_is_summed_over_its_ports() -> None:
    ports = (
        values.PortProgress(2, 10, 0, 9, 1, READ_AT, None),
        values.PortProgress(31, 200, 0, 150, 0, READ_AT, None),
    )
    (unit,) = units(0x0C, encode_unit(0x0C, 11, 0, values.ReadingState(ports)))
    assert isinstance(unit.value, values.ReadingState)
    assert (unit.value.total, unit.value.read) == (210, 159)


def test_a_captured_denial_has_a_makers_error_number() -> None:
    told = field_value("gw-038")
    assert told == values.UnitConfirm(0x10, ((0, 1, 3),))
    assert not told.all_done


def test_a_captured_confirm_without_units_has_no_value() -> None:
    assert field_value("gw-019") is None


def test_captured_forwards() -> None:
    assert field_value("gw-007").content.hex() == "6861100130121568910833333433ab3933334916"
    assert field_value("gw-007").port == messages.CARRIER_PORT
    asked = field_value("gw-006")
    assert (asked.control, asked.message_timeout, asked.byte_timeout) == (0x6B, 0xBC, 0x0A)
    assert asked.content.hex() == "68611001301215681104333334337b16"


def test_a_captured_request_asks_for_ten_units() -> None:
    asked = [(unit.pn, unit.fn, unit.value) for unit in decode(field("gw-035"))]
    day = values.DayTag(date(2011, 12, 25))
    assert asked == [(pn, fn, day) for pn in range(2, 7) for fn in (161, 163)]


def test_a_captured_archive_record() -> None:
    content = read(field("gw-068"))
    (record,) = content.units[0].value.records  # type: ignore[union-attr]  # an Archive, or the test fails
    assert (record.sequence, record.pn, record.port, record.baud) == (1, 1, 1, 600)
    assert (record.address, record.collector) == ("112233445566", "112233666666")
    assert content.password.hex() == "67890000000000000000000000000000"


def test_passwords_of_two_bytes_are_known_by_what_remains() -> None:
    assert read(field("gw-112")).password.hex() == "980a"
    assert read(field("gw-123")).password.hex() == "6004"


def test_captured_curves_are_read_until_a_class_that_nobody_lists() -> None:
    found = decode(field("gw-115"))
    assert [unit.fn for unit in found[:15]] == list(range(81, 96))
    assert isinstance(found[13].value, Fields)
    assert found[13].value.plain() == {
        "start": datetime(2015, 4, 16, 12, 45),
        "density": 1,
        "n": 1,
        "values": [None],
    }
    assert found[15].fn == 96
    assert found[15].reason == "not in the list of items"
    assert not read(field("gw-115")).whole


# -- round trips --------------------------------------------------------------------------------------


@given(made.units())
def test_a_value_comes_back_from_its_unit(unit: tuple[int, bool, int, int, object]) -> None:
    afn, up, pn, fn, value = unit
    body = encode_unit(afn, fn, pn, value, up)
    (found,) = units(afn, body, up)
    assert (found.pn, found.fn, found.value, found.raw, found.offset, found.reason) == (
        pn, fn, value, body[4:], 4, None
    )  # fmt: skip


@given(made.phases, made.points, st.sampled_from((161, 163, 169, 171)))
def test_three_phases_come_back(value: values.FrozenPhases, pn: int, fn: int) -> None:
    (found,) = units(0x0D, encode_unit(0x0D, fn, pn, value))
    assert (found.pn, found.fn, found.reason) == (pn, fn, None)
    if value.phases == (None,) * 3:
        assert found.value == values.FrozenEnergy(value.tag, value.read_at, ())
    else:
        assert found.value == value


@given(st.lists(made.phases.filter(lambda value: any(value.phases)), min_size=1, max_size=8))
def test_an_answer_of_three_phases_is_told_from_tariffs_by_its_length(
    told: list[values.FrozenPhases],
) -> None:
    body = b"".join(encode_unit(0x0D, 161, pn, value) for pn, value in enumerate(told, 1))
    assert [(unit.pn, unit.value) for unit in units(0x0D, body)] == list(enumerate(told, 1))


def test_three_phases_that_would_pass_for_eighteen_tariffs_are_three_phases() -> None:
    """Four of them are as long as one unit with 18 tariffs, and each of their bytes is a pair of digits."""
    told = [values.FrozenPhases(DAY, READ_AT, (12, 3, 4))] * 4
    body = b"".join(encode_unit(0x0D, 161, pn, value) for pn, value in enumerate(told, 1))
    assert [unit.value for unit in units(0x0D, body)] == told
    tariffs = values.FrozenEnergy(DAY, READ_AT, tuple(range(19)))
    assert messages.identify(a_frame(0x0D, body)) == ((1, 161), (2, 161), (3, 161), (4, 161))
    body = encode_unit(0x0D, 161, 1, tariffs)
    assert len(body) == 4 * 27
    assert [unit.value for unit in units(0x0D, body)] == [tariffs]


def test_the_total_of_three_phases_needs_all_of_them() -> None:
    assert values.FrozenPhases(DAY, READ_AT, (1, 2, 3)).total == 6
    assert values.FrozenPhases(DAY, READ_AT, (1, None, 3)).total is None


@given(made.frames_of_units())
def test_every_unit_of_a_made_answer_is_found(frame: Frame) -> None:
    found = decode(frame)
    assert all(unit.reason is None for unit in found)
    assert sum(4 + len(unit.raw) for unit in found) == len(frame.body)


# -- the walk -----------------------------------------------------------------------------------------


def test_several_points_and_classes_run_through_points_first() -> None:
    """DA p1 p2, DT F129 F131: p1 F129, p1 F131, p2 F129, p2 F131."""
    data = [encode_unit(0x0C, 129, 1, values.PresentEnergy(READ_AT, (n,)))[4:] for n in range(4)]
    found = units(0x0C, bytes.fromhex("03010510") + b"".join(data))
    assert [(unit.pn, unit.fn, unit.value.registers) for unit in found] == [  # type: ignore[union-attr]
        (1, 129, (0,)), (1, 131, (1,)), (2, 129, (2,)), (2, 131, (3,))
    ]  # fmt: skip


def test_a_tag_stands_once_for_all_points_of_a_request() -> None:
    found = units(0x0D, "0f010514" + TAG + "01020114" + TAG, up=False)
    assert [(unit.pn, unit.fn) for unit in found] == [
        *((pn, fn) for pn in (1, 2, 3, 4) for fn in (161, 163)),
        (9, 161),
    ]
    assert {unit.value for unit in found} == {values.DayTag(DAY)}


@pytest.mark.parametrize(
    ("da", "expected"),
    [("0000", (0,)), ("0101", (1,)), ("8001", (8,)), ("0102", (9,)), ("8002", (16,)), ("080d", (100,)),
     ("80ff", (2040,)), ("ff01", tuple(range(1, 9))), ("0100", ()), ("0001", ())],
)  # fmt: skip
def test_points_of_the_sheet(da: str, expected: tuple[int, ...]) -> None:
    assert points(bytes.fromhex(da)) == expected
    if len(expected) == 1:
        assert identifier(expected[0], 1)[:2].hex() == da


@pytest.mark.parametrize(
    ("dt", "fn"),
    [
        ("0100", 1),
        ("0400", 3),
        ("0201", 10),
        ("0103", 25),
        ("4003", 31),
        ("0104", 33),
        ("0110", 129),
        ("0114", 161),
    ],
)
def test_classes_of_the_sheet(dt: str, fn: int) -> None:
    assert classes(bytes.fromhex(dt)) == (fn,)
    assert identifier(0, fn)[2:].hex() == dt


@pytest.mark.parametrize(("pn", "fn"), [(-1, 1), (2041, 1), (0, 0), (0, 249)])
def test_points_and_classes_that_are_not(pn: int, fn: int) -> None:
    with pytest.raises(LocalProtocolError):
        identifier(pn, fn)


def test_a_class_beyond_the_list_keeps_the_rest_raw_with_its_place() -> None:
    frame = field("gw-088")
    assert decode(frame) == (Unit(0, 1002, None, frame.body[4:], 4, "not in the list of items"),)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("000000", "too short for an identifier"),
        ("0000000099", "the identifier names no point or no class"),
        ("0100010099", "the identifier names no point or no class"),
        ("00000200", "cut short"),
        ("000002003015", "cut short"),
    ],
)
def test_a_body_that_ends_badly_is_told(body: str, reason: str) -> None:
    for before in ("", "00000200301508245126"):
        *good, last = units(0x0C, before + body)
        assert last.reason == reason
        assert last.value is None
        assert len(good) == bool(before)


def test_a_bad_digit_hides_no_other_unit() -> None:
    good = encode_unit(0x0D, 161, 1, values.FrozenEnergy(DAY, READ_AT, (1, 2, 3, 4, 5)))
    bad = bytearray(good)
    bad[20] = 0x0A
    first, second, third = units(0x0D, good + bytes(bad) + good)
    assert first.value == third.value
    assert (second.value, second.raw) == (None, bytes(bad[4:]))
    assert second.reason is not None
    assert "not BCD" in second.reason


def test_units_without_number_are_bounded() -> None:
    """Sixty-four units in four bytes, over and over: the rest is kept raw."""
    body = bytes.fromhex("ff01ff00") * 300
    found = units(0x0A, body, up=False)
    assert len(found) == 4097
    assert found[-1].reason == "more than 4096 units"


@given(made.frames_of_units(), st.integers())
def test_units_are_identified_without_being_read(frame: Frame, seed: int) -> None:
    for one in (frame, parse(made.mutated(build(frame), random.Random(seed)))):
        content = read(one)
        expected = tuple((unit.pn, unit.fn) for unit in content.units)
        assert messages.identify(one) == (expected if content.whole else None)


def test_a_list_whose_length_is_known_by_no_rule_ends_the_walk() -> None:
    (unit,) = units(0x0C, "00000100" + "00" * 9)
    assert unit.reason == "not in the list of items"
    (unit,) = units(0x09, "00000201" + "00" * 9)
    assert unit.reason == "length not known"


def test_a_login_may_carry_a_version_or_not() -> None:
    assert units(0x02, "00000100")[0].value is None
    assert units(0x02, "000001000107")[0].value == values.Login(b"\x01\x07")


def test_a_heartbeat_whose_clock_is_nonsense_is_still_a_heartbeat() -> None:
    (unit,) = units(0x02, "00000400" + "99" * 6)
    assert (unit.pn, unit.fn, unit.value) == (0, 3, None)
    assert unit.reason is not None
    (short,) = units(0x02, "000004003015")
    assert (short.fn, short.reason) == (3, "cut short")


# -- empty answers ------------------------------------------------------------------------------------


def energy(pn: int, *registers: int | None) -> bytes:
    return encode_unit(0x0D, 161, pn, values.FrozenEnergy(DAY, READ_AT, registers))


def test_filler_anywhere_in_a_field_is_no_value() -> None:
    (unit,) = units(0x0D, "01010114" + TAG + TIME + "01" + "00eeeeeeee" + "0056341200")
    assert unit.value == values.FrozenEnergy(DAY, READ_AT, (None, 12_345_600))


def test_the_other_makers_filler_is_no_value_only_in_every_byte() -> None:
    (unit,) = units(0x0D, "01010114" + TAG + TIME + "01" + "ef" * 5 + "0056341200")
    assert unit.value == values.FrozenEnergy(DAY, READ_AT, (None, 12_345_600))
    (unit,) = units(0x0D, "01010114" + TAG + TIME + "00" + "00efefefef")
    assert unit.reason is not None


@pytest.mark.parametrize("time", [EE * 5, "00" * 5])
def test_a_read_time_that_is_none_leaves_the_registers(time: str) -> None:
    (unit,) = units(0x0D, "01010114" + TAG + time + "00" + "0056341200")
    assert unit.value == values.FrozenEnergy(DAY, None, (12_345_600,))


@pytest.mark.parametrize("filler", ["ee", "ef"])
def test_a_unit_of_nothing_but_filler_has_no_tag(filler: str) -> None:
    (unit,) = units(0x0D, "01010114" + filler * 34)
    assert unit.value == values.FrozenEnergy(None, None, ())


def test_filled_up_tariffs_take_the_rest_of_a_single_unit() -> None:
    for rest in ("", EE, EE * 25, EE * 99, "00" * 25, "1234"):
        (unit,) = units(0x0D, "01010114" + TAG + TIME + EE + rest)
        assert unit.value == values.FrozenEnergy(DAY, READ_AT, ())
        assert unit.reason is None


def test_an_empty_unit_ends_with_its_filler() -> None:
    for count in (25, 15, 0):
        empty = bytes.fromhex("02010114" + TAG + TIME + EE + EE * count)
        found = units(0x0D, energy(1, 1, 2) + empty + energy(3, 4))
        assert [(unit.pn, unit.reason) for unit in found] == [(1, None), (2, None), (3, None)]
        assert found[1].value == values.FrozenEnergy(DAY, READ_AT, ())


def test_an_empty_unit_without_filler_behind_it_is_as_long_as_the_others() -> None:
    empty = bytes.fromhex("02010114" + TAG + TIME + EE + "00" * 10)
    found = units(0x0D, energy(1, 1, 2) + empty + energy(3, 4, 5))
    assert [(unit.pn, len(unit.raw), unit.reason) for unit in found] == [
        (1, 19, None),
        (2, 19, None),
        (3, 19, None),
    ]


def test_an_empty_first_unit_without_filler_is_as_long_as_usual() -> None:
    empty = bytes.fromhex("02010114" + TAG + TIME + EE + "00" * 25)
    found = units(0x0D, empty + energy(3, 4, 5))
    assert [(unit.pn, len(unit.raw), unit.reason) for unit in found] == [(2, 34, None), (3, 19, None)]


def test_an_empty_unit_that_ends_nowhere_is_kept_raw_after_others() -> None:
    empty = bytes.fromhex("02010114" + TAG + TIME + EE + "000102")
    found = units(0x0D, energy(1, 1, 2) + empty + energy(3, 4, 5))
    assert [(unit.pn, unit.reason) for unit in found] == [
        (1, None),
        (2, "no telling where an empty unit ends"),
    ]


def test_more_tariffs_than_any_meter_has_is_damage() -> None:
    (unit,) = units(0x0D, "01010114" + TAG + TIME + "40" + "00" * 325)
    assert unit.reason == "cut short"


def test_three_phases_beside_units_of_another_kind_are_not_guessed() -> None:
    value = values.FrozenPhases(DAY, READ_AT, (123456, 2, 3))
    three = encode_unit(0x0D, 161, 1, value)
    assert units(0x0D, three)[0].value == value
    for other in (encode_unit(0x0D, 162, 2, value=bytes(23)), encode_unit(0x0D, 161, 1, b"\xaa" * 23)):
        assert units(0x0D, three + other)[0].value != value
    assert units(0x0D, b"")[:] == ()
