"""AFN0E: captured reports, every body of the table worked by hand, and records that are odd."""

from __future__ import annotations

from datetime import datetime
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.errors import LocalProtocolError, RemoteProtocolError
from protocols.q_gdw376 import events
from protocols.q_gdw376.event_records import events_length
from protocols.q_gdw376.events import EventRecord, Events, decode_events, encode_events, read_record
from protocols.q_gdw376.frame import Frame, parse
from protocols.q_gdw376.messages import Unit, decode, encode_unit
from tests.protocols.vectors import vectors
from tests.protocols.worked_qgdw376_events import AT, BEGAN, BODIES, LATER_AT, WHEN


def captured(name: str) -> bytes:
    """The data of the one AFN0E unit of a field frame."""
    (vector,) = [one for one in vectors() if one.id == name]
    return parse(vector.raw).body[4:]


# -- captured -----------------------------------------------------------------------------------------


def test_a_captured_power_failure() -> None:
    told = decode_events(captured("gw-058"))
    assert (told.ec1, told.ec2, told.pm, told.pn, told.reason) == (1, 0, 0, 1, None)
    (record,) = told.records
    assert record.erc == 14
    assert record.at == datetime(2010, 7, 31, 14, 40)
    assert (record.point, record.start, record.reason, record.needs_person) == (None, None, None, True)
    assert record.fields is not None
    assert record.fields["on"] == datetime(2010, 8, 3, 11, 31)


def test_a_captured_body_of_a_products_own_is_kept_raw_with_the_time_that_opens_it() -> None:
    (record,) = decode_events(captured("gw-059")).records
    assert (record.erc, record.at, record.fields) == (36, datetime(2010, 8, 2, 14, 18), None)
    assert record.raw.hex() == "1814020810000101000000000088ffff54171401020810"
    assert record.reason


@pytest.mark.parametrize("name", ["gw-058", "gw-059"])
def test_a_captured_report_is_written_as_it_came(name: str) -> None:
    raw = captured(name)
    assert encode_events(decode_events(raw)) == raw


# -- every body, by hand ------------------------------------------------------------------------------

_CASES = pytest.mark.parametrize(
    ("erc", "body", "says"), BODIES, ids=[f"erc{erc}-{len(body) // 2}" for erc, body, _ in BODIES]
)


@_CASES
def test_a_body_says_what_was_worked_out_by_hand(erc: int, body: str, says: dict[str, Any]) -> None:
    record = read_record(erc, bytes.fromhex(body))
    assert record.reason is None
    assert record.fields is not None
    assert record.fields.plain() == says


@_CASES
def test_a_body_is_written_from_its_values(erc: int, body: str, says: dict[str, Any]) -> None:
    version = {"version": "2005"} if (erc, len(body)) in ((19, 60), (20, 16)) else {}
    assert events.make_record(erc, says, version).raw.hex() == body


@_CASES
def test_time_point_and_start_stand_on_the_record(erc: int, body: str, says: dict[str, Any]) -> None:
    record = read_record(erc, bytes.fromhex(body))
    assert record.at == (LATER_AT if erc == 41 else WHEN)
    assert record.point == (300 if "point" in says else None)
    # Of ERC16 and ERC22 a port and a group begin.
    where = says.get({16: "port", 22: "group"}.get(erc, "point"), {})
    assert record.start is {None: None, 0: False, 1: True}[where.get("start")]


@_CASES
def test_a_body_with_a_byte_more_or_less_is_kept_raw_or_another_shape(
    erc: int, body: str, says: dict[str, Any]
) -> None:
    for odd in (body[:-2], body + "00"):
        record = read_record(erc, bytes.fromhex(odd))
        assert record.raw.hex() == odd
        if (erc, len(odd)) in {(one, len(other)) for one, other, _ in BODIES}:
            continue
        assert (record.fields, record.point, record.start) == (None, None, None)
        assert record.at == (None if erc in (14, 41) else WHEN)
        assert record.reason


def test_every_event_of_the_table_and_every_shape_of_it_has_a_worked_body() -> None:
    shapes = {erc: row.form.count("||") + 1 for erc, row in events.KINDS.items()}
    assert list(shapes) == list(range(1, 43))
    assert {erc: sum(one == erc for one, _, _ in BODIES) for erc in shapes} == shapes


def test_the_events_that_need_a_person() -> None:
    assert [erc for erc, row in events.KINDS.items() if row.needs_person] == [3, 8, 12, 14, 20, 31, 35]
    assert read_record(8, b"odd").needs_person
    assert not read_record(4, bytes.fromhex(AT + "0281")).needs_person
    assert not read_record(200, b"").needs_person


def test_names_of_an_event() -> None:
    row = events.kind(31)
    assert row is not None
    assert (row.name_en, row.name_zh, row.confidence) == ("Meter read failed", "终端485抄表失败", "confirmed")
    assert events.kind(0) is None
    assert events.kind(43) is None


def test_a_power_failure_that_is_over_has_the_time_that_is_known() -> None:
    assert read_record(14, bytes.fromhex(AT + "ee" * 5)).at == WHEN
    assert read_record(14, bytes.fromhex("ee" * 5 + AT)).at == WHEN
    assert read_record(14, bytes.fromhex("ee" * 10)).at is None


def test_a_point_that_is_filled_up_is_none() -> None:
    record = read_record(12, bytes.fromhex(AT + "eeee"))
    assert (record.at, record.point, record.start) == (WHEN, None, None)


def test_what_is_not_understood_has_the_time_that_opens_it_if_it_is_one() -> None:
    assert read_record(213, bytes.fromhex(AT)).at == WHEN
    assert read_record(213, bytes.fromhex(AT[:-2])).at is None
    assert read_record(213, bytes.fromhex("05a8241126")).at is None
    assert read_record(213, bytes.fromhex("0508311126")).at is None


def test_a_digit_that_cannot_be_is_a_reason_and_the_body_is_kept() -> None:
    body = bytes.fromhex("05082411a6" + BEGAN)
    record = read_record(12, body)
    assert (record.fields, record.raw) == (None, body)
    assert record.reason
    assert "at" in record.reason


# -- many records -------------------------------------------------------------------------------------


def unit(pm: int, pn: int, *records: tuple[int, str], ec: str = "0700") -> bytes:
    """The data of a unit, by hand."""
    data = bytes.fromhex(ec) + bytes((pm, pn))
    for erc, body in records:
        raw = bytes.fromhex(body)
        data += bytes((erc, len(raw))) + raw
    return data


CLOCK_OFF = (12, AT + BEGAN)
ODD = (13, AT)
FOREIGN = (213, "0102030405")


def ercs(told: Events) -> list[tuple[int, bool]]:
    return [(record.erc, record.reason is None) for record in told.records]


def test_an_unknown_event_and_an_odd_body_hide_no_other_record() -> None:
    raw = unit(3, 7, FOREIGN, CLOCK_OFF, ODD, CLOCK_OFF)
    told = decode_events(raw)
    assert ercs(told) == [(213, False), (12, True), (13, False), (12, True)]
    assert (told.records[0].raw.hex(), told.records[0].reason) == (
        FOREIGN[1],
        "ERC not in the list of events",
    )
    assert (told.rest, told.reason) == (b"", None)
    assert encode_events(told) == raw


def test_pointers_run_modulo_256() -> None:
    raw = unit(254, 1, CLOCK_OFF, CLOCK_OFF, CLOCK_OFF)
    told = decode_events(raw)
    assert (len(told.records), told.reason) == (3, None)
    assert encode_events(told) == raw
    assert events.told(254, 1) == 3
    assert events.told(0, 255) == 255


def test_equal_pointers_are_no_record_or_a_full_memory() -> None:
    assert decode_events(unit(9, 9)).records == ()
    full = decode_events(unit(9, 9, *[CLOCK_OFF] * 256))
    assert (len(full.records), full.reason) == (256, None)
    assert encode_events(full) == unit(9, 9, *[CLOCK_OFF] * 256)
    some = decode_events(unit(9, 9, CLOCK_OFF))
    assert (len(some.records), some.reason) == (1, "256 records are told, 1 are there")


def test_fewer_records_than_told_are_read_and_the_reason_told() -> None:
    raw = unit(0, 3, CLOCK_OFF, CLOCK_OFF)
    told = decode_events(raw)
    assert (ercs(told), told.rest) == ([(12, True), (12, True)], b"")
    assert told.reason == "3 records are told, 2 are there"
    assert encode_events(told) == raw


def test_a_record_cut_short_is_the_rest() -> None:
    raw = unit(0, 2, CLOCK_OFF, CLOCK_OFF)
    for left in range(1, 9):
        told = decode_events(raw[: 4 + 9 + left])
        assert ercs(told) == [(12, True)]
        assert (told.rest, told.reason) == (raw[13 : 13 + left], "record 2 of 2 is cut short")
        assert encode_events(told) == raw[: 13 + left]


def test_bytes_behind_the_records_are_the_rest() -> None:
    told = decode_events(unit(0, 1, CLOCK_OFF) + b"\x16\x16")
    assert (ercs(told), told.rest) == ([(12, True)], b"\x16\x16")
    assert told.reason == "2 bytes behind the 1 records that are told"


@pytest.mark.parametrize("length", range(4))
def test_less_than_the_pointers_is_damage(length: int) -> None:
    with pytest.raises(RemoteProtocolError):
        decode_events(bytes(length))


@given(st.binary(min_size=4, max_size=600))
def test_any_bytes_give_records_and_go_back_as_they_came(raw: bytes) -> None:
    told = decode_events(raw)
    assert encode_events(told) == raw
    assert (told.rest == b"") or told.reason
    assert all((record.fields is None) == (record.reason is not None) for record in told.records)


@given(st.integers(1, 42), st.binary(max_size=80))
def test_any_body_gives_a_record(erc: int, body: bytes) -> None:
    record = read_record(erc, body)
    assert (record.erc, record.raw) == (erc, body)
    if record.fields is not None:
        assert b"".join(field.raw for field in record.fields) == body


# -- where a unit ends --------------------------------------------------------------------------------


def test_important_and_normal_events_in_one_frame_are_told_apart() -> None:
    first, second = unit(0, 2, CLOCK_OFF, FOREIGN), unit(5, 6, CLOCK_OFF)
    body = bytes.fromhex("00000100") + first + bytes.fromhex("00000200") + second
    assert events_length(body, 4, len(body)) == len(first)
    assert events_length(body, 8 + len(first), len(body)) == len(second)


def test_a_unit_without_records_ends_before_the_next() -> None:
    body = bytes.fromhex("00000100") + unit(4, 4) + bytes.fromhex("00000200") + unit(5, 6, CLOCK_OFF)
    assert events_length(body, 4, len(body)) == 4


def test_a_unit_that_is_cut_short_takes_all_that_is_left() -> None:
    raw = unit(0, 2, CLOCK_OFF, CLOCK_OFF)
    for cut in range(len(raw)):
        assert events_length(raw, 0, cut) == max(cut, 4)
    assert events_length(raw + b"\0", 0, len(raw) + 1) == len(raw)


def test_a_full_memory_ends_behind_its_256_records() -> None:
    raw = unit(9, 9, *[CLOCK_OFF] * 256)
    assert events_length(raw + bytes(9), 0, len(raw) + 9) == len(raw)


def in_a_frame(body: bytes, up: bool = True) -> tuple[Unit, ...]:
    return decode(Frame(terminal="02001234", up=up, prm=not up, function=8, afn=0x0E, body=body))


def test_events_of_a_frame_are_values() -> None:
    first, second = unit(0, 2, CLOCK_OFF, FOREIGN), unit(5, 6, CLOCK_OFF)
    units = in_a_frame(bytes.fromhex("00000100") + first + bytes.fromhex("00000200") + second)
    assert [(one.fn, one.value) for one in units] == [(1, decode_events(first)), (2, decode_events(second))]
    told = decode_events(first)
    assert encode_unit(0x0E, 1, 0, told) == bytes.fromhex("00000100") + first


def test_a_unit_of_both_classes_has_data_for_each() -> None:
    first, second = unit(0, 1, CLOCK_OFF), unit(5, 6, FOREIGN)
    units = in_a_frame(bytes.fromhex("00000300") + first + second)
    assert [(one.fn, one.raw) for one in units] == [(1, first), (2, second)]


def test_less_than_the_pointers_ends_the_walk() -> None:
    (one,) = in_a_frame(bytes.fromhex("000001000102"))
    assert (one.value, one.raw.hex(), one.reason) == (None, "0102", "cut short")


def test_a_request_in_a_frame_is_a_value() -> None:
    (one,) = in_a_frame(events.read_events(1, 250, 3).body, up=False)
    assert one.value == events.EventsQuery(250, 3)
    assert encode_unit(0x0E, 1, 0, one.value, up=False).hex() == "00000100fa03"


# -- what cannot be is not built ----------------------------------------------------------------------


def test_a_request_names_its_pointers() -> None:
    request = events.read_events(events.IMPORTANT, 250, 3)
    assert request.afn == 0x0E
    assert request.body.hex() == "00000100fa03"
    assert request.repeatable
    assert events.read_events(events.NORMAL, 0, 1).body.hex() == "000002000001"


@pytest.mark.parametrize(("fn", "pm", "pn"), [(3, 0, 1), (0, 0, 1), (1, -1, 1), (1, 0, 256), (2, 256, 0)])
def test_a_request_that_cannot_be(fn: int, pm: int, pn: int) -> None:
    with pytest.raises(LocalProtocolError):
        events.read_events(fn, pm, pn)


def a_record(raw: bytes = b"", erc: int = 213) -> EventRecord:
    return EventRecord(erc, None, None, None, None, raw)


@pytest.mark.parametrize(
    "told",
    [
        Events(0, 0, 0, 2, (a_record(),)),
        Events(0, 0, 0, 0, (a_record(),)),
        Events(0, 0, 0, 1, ()),
        Events(0, 0, 0, 1, (a_record(),), b"\0"),
        Events(0, 0, 0, 1, (a_record(bytes(256)),)),
        Events(0, 0, 0, 1, (a_record(erc=256),)),
        Events(256, 0, 0, 1, (a_record(),)),
        Events(0, 0, 0, 0, (a_record(),) * 512),
    ],
)
def test_events_that_cannot_be_are_not_built(told: Events) -> None:
    with pytest.raises(LocalProtocolError):
        encode_events(told)


def test_a_record_that_cannot_be_is_not_made() -> None:
    with pytest.raises(LocalProtocolError):
        events.make_record(213, {})
    with pytest.raises(LocalProtocolError):
        events.make_record(12, {"at": WHEN})
    with pytest.raises(LocalProtocolError):
        events.make_record(12, {"at": WHEN, "point": {"number": 4096, "start": 1}})


def test_records_in_a_frame_are_read_by_the_settings_of_a_profile(monkeypatch: pytest.MonkeyPatch) -> None:
    made = events.EventKind(200, "", "", "a:BIN1 || {erc14=flags} b:BIN1", False, "memory", "")
    monkeypatch.setitem(cast(dict[int, events.EventKind], events.KINDS), 200, made)
    body = encode_unit(0x0E, 1, 0, bytes.fromhex("01000001 c80107"))
    frame = Frame(terminal="02001234", up=True, prm=False, function=8, afn=0x0E, body=body)
    for variants, name in (({}, "a"), ({"erc14": "flags"}, "b")):
        (unit,) = decode(frame, variants)
        assert isinstance(unit.value, Events)
        (record,) = unit.value.records
        assert record.fields is not None
        assert record.fields.plain() == {name: 7}
