"""What is written, asked and looked up in Q/GDW 376.1: units, requests, formats, the list of items."""

from __future__ import annotations

from datetime import date, datetime
from typing import Any

import pytest

from protocols.errors import LocalProtocolError
from protocols.permit import Permit
from protocols.q_gdw376 import formats, messages, values
from protocols.q_gdw376.items import ITEMS, dangerous, form_of, lookup
from protocols.q_gdw376.messages import RequestUnit, encode_unit
from tests.protocols.test_qgdw376_messages import DAY, EE, READ_AT, TAG, units

# -- writing ------------------------------------------------------------------------------------------


def test_units_are_written_from_nothing_bytes_and_values() -> None:
    assert encode_unit(0x0C, 2, 0).hex() == "00000200"
    assert encode_unit(0x0C, 25, 1, b"\x01").hex() == "0101010301"
    assert encode_unit(0x0D, 161, 1, values.DayTag(DAY), up=False).hex() == "01010114231126"


@pytest.mark.parametrize(
    ("afn", "fn", "value"),
    [
        (0x0C, 25, values.Clock(READ_AT)),
        (0x0C, 2, values.Login(b"")),
        (0x0C, 2, values.Clock(datetime(1999, 1, 1))),
        (0x0C, 2, values.Clock(READ_AT, 8)),
        (0x0D, 161, values.FrozenEnergy(date(2100, 1, 1), READ_AT, (1,))),
        (0x0D, 161, values.FrozenEnergy(DAY, READ_AT, (10**10,))),
        (0x0D, 161, values.FrozenEnergy(DAY, READ_AT, (-1,))),
        (0x0D, 162, values.FrozenEnergy(DAY, READ_AT, (150,))),
        (0x0D, 1, values.FrozenThreePhase(DAY, READ_AT, (1, 2), (1,), (1,), (1,))),
        (0x09, 1, values.TerminalVersion("VENDOR", "", "", None, "", "", "", None)),
        (0x0A, 10, values.Archive((values.ArchiveRecord(1, 1, 1, 300, 30, "1" * 12, 4),))),
        (0x0A, 10, values.Archive((values.ArchiveRecord(1, 1, 1, 0, 30, "1" * 12, 64),))),
        (0x0A, 10, values.Archive((values.ArchiveRecord(1, 1, 1, 0, 30, "1" * 11, 4),))),
        (0x0A, 10, values.Archive((values.ArchiveRecord(1, 1, 32, 0, 30, "1" * 12, 4),))),
        (0x0A, 10, values.Archive((values.ArchiveRecord(1, 1, 1, 0, 30, "a" * 12, 4),))),
        (0x0A, 10, values.Archive((values.ArchiveRecord(70000, 1, 1, 0, 30, "1" * 12, 4),))),
    ],
)  # fmt: skip
def test_what_a_unit_cannot_say_is_not_written(afn: int, fn: int, value: object) -> None:
    with pytest.raises(LocalProtocolError):
        encode_unit(afn, fn, 0, value)


def test_energies_without_registers_are_written_as_a_terminal_fills_them() -> None:
    unit = encode_unit(0x0D, 161, 1, values.FrozenEnergy(DAY, None, ()))
    assert unit.hex() == "01010114" + TAG + EE * 31
    unit = encode_unit(0x0D, 1, 1, values.FrozenThreePhase(DAY, None, (), (), (), ()))
    assert len(unit) == 4 + 94


def test_addresses_are_compared_not_judged() -> None:
    record = values.ArchiveRecord(1, 1, 1, 0, 30, "123456789012", 4)
    data = bytearray(encode_unit(0x0A, 10, 0, values.Archive((record,))))
    data[12:18] = bytes.fromhex("a1b2c3d4e5f6")
    (unit,) = units(0x0A, bytes(data))
    assert unit.value.records[0].address == "f6e5d4c3b2a1"  # type: ignore[union-attr]


# -- requests -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("request_", "afn", "body", "repeatable"),
    [
        (messages.read_version(), 0x09, "00000100", True),
        (messages.read_ports(), 0x09, "00000200", True),
        (messages.read_capabilities(), 0x09, "00000400", True),
        (messages.read_clock(), 0x0C, "00000200", True),
        (messages.reading_state(), 0x0C, "00000401", True),
        (messages.read_archive([1, 2]), 0x0A, "00000201020001000200", True),
        (messages.read_present(129, [9]), 0x0C, "01020110", True),
        (messages.read_frozen(161, [1, 2], DAY), 0x0D, "01010114231126" "02010114231126", True),
        (messages.read_frozen(1, [3], DAY), 0x0D, "04010100231126", True),
        (messages.read_frozen_month(177, [1], 2026, 11), 0x0D, "010101161126", True),
        (
            messages.set_clock(datetime(2026, 11, 24, 8, 15, 30)),
            0x05,
            "00004003301508245126" + "00" * 16,
            False,
        ),
        (
            messages.forward(2, bytes.fromhex("68129078563412681104363833377316"), 1.0, 1000),
            0x10,
            "00000100026b6464100068129078563412681104363833377316" + "00" * 16,
            False,
        ),
    ],
)  # fmt: skip
def test_requests_of_the_sheet(request_: messages.Request, afn: int, body: str, repeatable: bool) -> None:
    assert (request_.afn, request_.body.hex(), request_.repeatable) == (afn, body, repeatable)


def test_writing_the_archive_confirms_and_is_not_repeated() -> None:
    record = values.ArchiveRecord(1, 1, 2, 2400, 30, "123456789012", 4, user_class=0x10)
    permit = Permit("376 04 f10", "02001234", "a test")
    request = messages.write_archive([record], password=b"\x12\x34", permit=permit)
    assert request.con
    assert not request.repeatable
    assert request.body[-2:] == b"\x12\x34"
    assert units(0x04, request.body[:-2], up=False)[0].value == values.Archive((record,))


def test_what_a_request_asks_is_known() -> None:
    request = messages.read_frozen(161, [3, 1], DAY)
    assert request.asks(3, 161)
    assert request.asks(1, 161)
    assert not request.asks(2, 161)
    assert not request.asks(3, 163)


@pytest.mark.parametrize(
    "make",
    [
        lambda: messages.read_frozen(177, [1], DAY),
        lambda: messages.read_frozen(73, [1], DAY),
        lambda: messages.read_frozen(250, [1], DAY),
        lambda: messages.points_that_fit(1024, 250),
        lambda: messages.read_frozen_month(161, [1], 2026, 11),
        lambda: messages.Request(0x0C, ()).body,
        lambda: messages.Request(0x0C, (RequestUnit(0, 2),), password=bytes(16)).body,
        lambda: messages.Request(0x0C, (RequestUnit(9999, 2),)).body,
        lambda: messages.forward(2, b"", 0, 100),
        lambda: messages.forward(2, b"", 128, 100),
        lambda: messages.forward(2, b"", 10, 9000),
        lambda: messages.read_archive([70000]),
    ],
)
def test_requests_that_cannot_be_are_refused(make: Any) -> None:
    with pytest.raises(LocalProtocolError):
        make()


@pytest.mark.parametrize(
    ("seconds", "byte"),
    [(0.01, 1), (1.0, 0x64), (1.27, 127), (1.28, 0x82), (10, 0x8A), (60, 0xBC), (126.5, 0xFF)],
)
def test_the_message_timeout_byte(seconds: float, byte: int) -> None:
    assert messages.message_timeout(seconds) == byte


def test_how_many_points_fit_a_frame() -> None:
    assert messages.points_that_fit(1024, 161) == 26
    assert messages.points_that_fit(255, 161) == 6
    assert messages.points_that_fit(1024, 1) == 10
    assert messages.points_that_fit(40, 161) == 1


# -- any class by its row -----------------------------------------------------------------------------


def test_a_query_of_any_class_takes_its_data_by_name() -> None:
    assert messages.query(0x0C, 25, [1, 2]).body.hex() == "0101010302010103"
    assert messages.query(0x0D, 5, [1], {"td_d": "2026-11-23"}).body.hex() == "01011000231126"
    assert messages.query(0x0D, 161, [1], values.DayTag(DAY)).body.hex() == "01010114231126"
    listed = messages.query(0x0A, 11, values={"port": [1, 2]})
    assert listed.body.hex() == "00000401020102"
    assert (listed.repeatable, listed.password, listed.actions) == (True, None, ())


@pytest.mark.parametrize(
    "make",
    [
        lambda: messages.query(0x04, 10),
        lambda: messages.query(0x05, 31),
        lambda: messages.query(0x0D, 5, [1]),
        lambda: messages.query(0x0D, 5, [1], {"td_d": "2026-11-23", "colour": 1}),
        lambda: messages.query(0x77, 1),
        lambda: messages.query(0x0B, 2),
        lambda: messages.command(0x0C, 2),
        lambda: messages.command(0x05, 31),
    ],
)
def test_what_is_no_query_and_no_command_is_refused(make: Any) -> None:
    with pytest.raises(LocalProtocolError):
        make()


def test_a_dangerous_command_is_built_only_with_its_own_permit() -> None:
    trip = Permit("376 05 f1", "02001234", "a test")
    built = messages.command(0x05, 1, 2, {"param": {"duration": 3, "alarm_delay": 0}}, permit=trip)
    assert built.actions == ("376 05 f1",)
    assert not built.repeatable
    assert built.body.hex() == "0201010003" + "00" * 16
    for wrong in (None, Permit("376 05 f2", "02001234", "a test")):
        with pytest.raises(LocalProtocolError):
            messages.command(0x05, 1, 2, {"param": {"duration": 3, "alarm_delay": 0}}, permit=wrong)
        with pytest.raises(LocalProtocolError):
            _ = messages.Request(0x05, built.units, permit=wrong).body


def test_a_harmless_command_needs_no_permit() -> None:
    clock = {"clock": "2026-11-24 08:15:30"}
    assert messages.command(0x05, 31, values=clock).body.hex() == "00004003301508245126" + "00" * 16
    assert messages.query(0x10, 13, values={"kind": 1}).body.hex() == "0000100101" + "00" * 16


def test_which_classes_are_dangerous() -> None:
    marked = {(item.afn, item.fn) for item in ITEMS if item.danger and item.direction != "up"}
    assert {afn for afn, _ in marked} == {0x01, 0x03, 0x04, 0x05, 0x06, 0x0F, 0x10}
    for afn, fn in (
        (0x01, 1),
        (0x04, 3),
        (0x04, 10),
        (0x05, 1),
        (0x05, 52),
        (0x05, 53),
        (0x0F, 1),
        (0x10, 10),
    ):
        assert dangerous(afn, fn)
    for afn, fn in ((0x05, 31), (0x10, 1), (0x0C, 129), (0x0A, 10), (0x0D, 161)):
        assert not dangerous(afn, fn)
    assert dangerous(0x05, 200)
    assert not dangerous(0x0C, 200)


# -- formats and items --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("form", "raw", "expected"),
    [
        (formats.a14, "0056341200", 12_345_600),
        (formats.a14, "9999999999", 9_999_999_999),
        (formats.a11, "56341200", 12_345_600),
        (formats.a12, "129078563412", "123456789012"),
        (formats.a15, "0500241126", READ_AT),
        (formats.a20, "231126", DAY),
        (formats.a21, "1126", date(2026, 11, 1)),
        (formats.a20, "000000", None),
        (formats.a21, "eeee", None),
        (formats.text, "4e42005820000020", "NB\0X"),
    ],
)
def test_formats_of_the_appendix(form: Any, raw: str, expected: object) -> None:
    assert form(bytes.fromhex(raw)) == expected


@pytest.mark.parametrize(
    ("form", "raw"),
    [
        (formats.a14, "00563412fa"),
        (formats.a15, "60002411 26"),
        (formats.a15, "0524241126"),
        (formats.a15, "0500311126"),
        (formats.a20, "290225"),
        (formats.a20, "0a1126"),
        (formats.a21, "1326"),
        (formats.a1, "301508245f26"),
        (formats.a1, "9a1508245126"),
    ],
)
def test_digits_that_cannot_be_are_refused(form: Any, raw: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        form(bytes.fromhex(raw))


def test_every_row_of_the_list_has_names() -> None:
    with_names = 0
    for afn in range(256):
        for fn in range(1, 249):
            for up in (True, False):
                item = lookup(afn, fn, up)
                if item is not None:
                    assert item.name_en
                    assert item.name_zh
                    with_names += 1
    assert with_names >= 509


def test_a_request_is_named_by_its_answers_row() -> None:
    item = lookup(0x0D, 161, up=False)
    assert item is not None
    assert (item.direction, item.name_zh) == ("up", "正向有功电能示值（总、费率1～M）日冻结")
    assert lookup(0x0D, 250) is None


@pytest.mark.parametrize(
    ("afn", "fn", "up", "data", "length"),
    [
        (0x0C, 25, True, "", 67),
        (0x0C, 33, True, "0000241126" "04", 91),
        (0x0C, 100, True, "0001" "0000", 14),
        (0x0C, 100, True, "0005", None),
        (0x0C, 57, True, "05" + "00" * 48, 49),
        (0x0D, 5, True, TAG + "04", 24),
        (0x0D, 58, True, TAG + "04", 24),
        (0x0D, 81, True, "45121604150102", 13),
        (0x0D, 217, True, "45121604150102", 9),
        (0x0D, 81, False, "", 7),
        (0x0D, 17, False, "", 2),
        (0x0C, 100, False, "", 2),
        (0x0C, 25, False, "", 0),
        (0x09, 4, False, "", 0),
        (0x09, 4, True, "03", 4),
        (0x04, 22, False, "02", 9),
        (0x04, 11, False, "02", 11),
        (0x0A, 11, True, "02", 11),
        (0x0A, 11, False, "02", 3),
        (0x0A, 10, False, "0200", 6),
        (0x0A, 38, False, "0102", 4),
        (0x0A, 38, False, "01", None),
        (0x0A, 25, False, "", 0),
        (0x0A, 7, True, "", None),
        (0x05, 1, True, "", None),
        (0x02, 1, False, "", 0),
        (0x0D, 5, True, "", None),
        (0x03, 1, True, "", 1),
        (0x77, 1, True, "", None),
    ],
)  # fmt: skip
def test_lengths_by_the_list(afn: int, fn: int, up: bool, data: str, length: int | None) -> None:
    form = form_of(afn, fn, up)
    body = bytes.fromhex(data)
    lengths = () if form is None else form.lengths(body, 0, len(body))
    assert (lengths[0] if lengths else None) == length
