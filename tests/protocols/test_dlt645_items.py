"""Data identifiers: every row of the table, the ranges, the formats, values both ways."""

from __future__ import annotations

import csv
from datetime import datetime
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import protocols.dlt645
from protocols.dlt645 import formats, items, table
from protocols.dlt645.formats import Ascii, Digits, Moment, Number, Part, Reference, Word
from protocols.errors import LocalProtocolError, RemoteProtocolError

_CSV = Path(protocols.dlt645.__file__).with_name("items.csv")


def rows() -> list[dict[str, str]]:
    with _CSV.open(encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines))


def texts(di: str, data: str, edition: str = "2007") -> list[str | None]:
    return [value.value for value in items.decode(di, bytes.fromhex(data), edition)]


def test_every_row_is_found_as_it_stands() -> None:
    assert len(rows()) == 1046
    for row in rows():
        item = items.lookup(row["di"], row["protocol"])
        assert item is not None
        assert (item.di, item.name_en, item.name_zh) == (row["di"].lower(), row["name_en"], row["name_zh"])
        assert item.signed == (row["signed"] == "yes")


def test_every_format_but_records_has_a_layout_of_the_rows_length() -> None:
    for row in rows():
        item = items.lookup(row["di"], row["protocol"])
        assert item is not None
        layout = item.layout
        if layout is None:
            assert item.kind in ("freeze", "load")
            assert row["length_bytes"] == "var"
        elif row["length_bytes"].isdecimal():
            assert layout.groups(int(row["length_bytes"])) is not None
        elif row["length_bytes"] != "var":
            assert layout.count is None
            assert layout.group_length == int(row["length_bytes"][:-1])


def test_every_item_reads_an_absent_value_and_writes_it_back() -> None:
    for row in rows():
        item = items.lookup(row["di"], row["protocol"])
        assert item is not None
        layout = item.layout
        if layout is None or layout.joined:
            continue
        groups = layout.count or 3
        data = b"\xff" * (layout.fixed_length + groups * layout.group_length)
        values = items.decode(item.di, data, item.edition)
        parts = layout.head + layout.parts * groups + layout.tail
        assert len(values) == len(parts)
        for value, part in zip(values, parts, strict=True):
            assert (value.value is None) is (not isinstance(part, Word) or isinstance(part, Reference))
        assert items.encode(item.di, [value.value for value in values], item.edition) == data


# Worked examples of the standard's formats, and values of field frames.
@pytest.mark.parametrize(
    ("di", "data", "edition", "expected"),
    [
        ("00010000", "56341200", "2007", ["1234.56"]),
        (
            "0001FF00",
            "5634120000000100100005004634040000000200",
            "2007",
            "1234.56 100.00 500.10 434.46 200.00",
        ),
        ("0201ff00", "0422ffffffff", "2007", ["220.4", None, None]),
        ("02030000", "452381", "2007", ["-1.2345"]),
        ("04000102", "305923", "2007", ["23:59:30"]),
        ("01010000", "2143054518201126", "2007", ["5.4321", "2026-11-20 18:45"]),
        ("05060001", "0000241126", "2007", ["2026-11-24 00:00"]),
        (
            "05060101",
            "0034120000000100100005009033040000000200",
            "2007",
            "1234.00 100.00 500.10 433.90 200.00",
        ),
        ("04000402", "080202412200", "2007", ["002241020208"]),
        ("04000503", "5020", "2007", ["2050"]),
        ("04000404", "000056303232", "2007", ["220V"]),
        ("06100101", "00132508223022", "2007", ["2022-08-25 13:00", "223.0"]),
        ("9010", "12890700", "1997", ["789.12"]),
        ("b611", "2102", "1997", ["221"]),
        ("c010", "06060719", "1997", ["2019-07-06 06"]),
        ("c020", "11", "1997", ["11"]),
    ],
)
def test_a_worked_example_reads(di: str, data: str, edition: str, expected: list[str | None] | str) -> None:
    assert texts(di, data, edition) == (expected.split() if isinstance(expected, str) else expected)


@pytest.mark.parametrize(
    ("di", "data", "expected"),
    [
        ("00010000", "00000090", "900000.00"),  # unsigned: the top bit is a digit
        ("00000000", "00000090", "-100000.00"),  # combined active energy has a sign
        ("00000000", "99999979", "799999.99"),
        ("00000000", "000000f9", "-790000.00"),
        ("00000000", "00000080", "0.00"),
        ("02800007", "5180", "-5.1"),
        ("02020100", "888807", "78.888"),
        ("00000000", "ffffffff", None),
        ("02030000", "ffffff", None),
        ("04000404", "ffffffffffff", None),
        ("04000401", "ffffffffffff", None),
        ("05060001", "ffffffffff", None),
        ("05060001", "0000000000", None),
        ("04000106", "9999999999", None),
        ("04000b01", "9999", None),
        ("04000b01", "0001", "01 00"),
        ("04000102", "000000", "00:00:00"),
        ("0280000a", "15000000", "15"),
        ("04000801", "7f", "7f"),
        ("04000901", "3f", "3f"),
        ("04040101", "00ff0100", "0001ff00"),
        ("1d000201", "ffffffff", "ffffffff"),
        ("04000a01", "30122802", "02-28 12:30"),
        ("04000a01", "30122902", "02-29 12:30"),  # a leap year for all we know
        ("04001203", "0000", "00:00"),
        ("04000108", "0000000126", "error"),
        ("0400040b", "000000000000fffe5a44", "DZ\\xfe\\xff"),
    ],
)
def test_signs_fillers_and_words(di: str, data: str, expected: str | None) -> None:
    if expected == "error":
        with pytest.raises(RemoteProtocolError, match="no such time"):
            texts(di, data)
    else:
        assert texts(di, data) == [expected]


@pytest.mark.parametrize(
    ("di", "data", "reason"),
    [
        ("00010000", "00000e00", "not BCD"),
        ("00010000", "fffffffe", "not BCD"),
        ("00010000", "000000a0", "not BCD"),
        ("00000000", "000000fa", "not BCD"),
        ("00000000", "ffffff8f", "not BCD"),
        ("04000401", "0000000000a0", "not BCD"),
        ("05060001", "0000241a26", "not BCD"),
        ("05060001", "0000241326", "no such time"),
        ("05060001", "6000241126", "no such time"),
        ("05060001", "0000290225", "no such time"),
        ("00010000", "", "0 bytes do not fit"),
        ("00010000", "000000", "3 bytes do not fit"),
        ("00010000", "00000000aa", "5 bytes do not fit"),
        ("0201ff00", "04220422", "4 bytes do not fit"),
        ("0001ff00", "", "0 bytes do not fit"),
        ("0001ff00", "0000000000", "5 bytes do not fit"),
        ("0001ff00", "000000000000", "6 bytes do not fit"),
        ("06100101", "00132508", "4 bytes do not fit"),
        ("06100101", "0013250822", "5 bytes do not fit"),
    ],
)
def test_what_cannot_be_is_the_peers_fault(di: str, data: str, reason: str) -> None:
    with pytest.raises(RemoteProtocolError, match=reason):
        texts(di, data)


def test_the_fault_has_its_place() -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        texts("0001ff00", "00000000" + "000e0000" + "00000000")
    assert caught.value.offset == 4


def test_an_absent_phase_beside_a_present_one() -> None:
    assert texts("0203ff00", "452381" + "ffffff" * 2 + "000000") == ["-1.2345", None, None, "0.0000"]


def test_how_many_tariffs_there_are_the_length_says() -> None:
    for tariffs in (0, 1, 4, 13, 48):
        values = items.decode("0001ff00", bytes(4 * (1 + tariffs)))
        assert len(values) == 1 + tariffs
    assert values[0].name_en == "(current) Forward (import) active energy, total"
    assert values[48].name_en == "(current) Forward (import) active energy, tariff 48"
    assert values[48].name_zh == "(当前)正向有功电能数据块(费率48)"
    assert values[48].unit == "kWh"


def test_a_1997_block_may_end_with_aa() -> None:
    assert len(texts("901f", "00" * 28 + "aa", "1997")) == 7
    assert len(texts("901f", "00" * 28, "1997")) == 7
    with pytest.raises(RemoteProtocolError):
        texts("901f", "00" * 28 + "ab", "1997")


def test_the_status_block_may_carry_the_key_word() -> None:
    assert texts("040005ff", "5020" * 7) == ["2050"] * 7
    assert texts("040005ff", "5020" * 7 + "01000000") == ["2050"] * 7 + ["00000001"]
    with pytest.raises(RemoteProtocolError):
        texts("040005ff", "5020" * 8)
    with pytest.raises(RemoteProtocolError):
        texts("040005ff", "5020" * 6)


def test_a_relay_record_and_an_hourly_freeze_read_field_by_field() -> None:
    record = "304518201126" + "ffffffff" + "56341200" + "00000000" * 5
    values = items.decode("1d00ff01", bytes.fromhex(record))
    assert [value.value for value in values][:3] == ["2026-11-20 18:45:30", "ffffffff", "1234.56"]
    assert [value.unit for value in values] == ["", "", "kWh", "kWh", "kvarh", "kvarh", "kvarh", "kvarh"]
    assert texts("0504ff02", "0010241126" + "56341200" + "00000000") == [
        "2026-11-24 10:00",
        "1234.56",
        "0.00",
    ]


def test_mixed_units_are_told_apart() -> None:
    values = items.decode("05061001", bytes(24))
    assert [value.unit for value in values] == ["kW"] * 4 + ["kvar"] * 4
    values = items.decode("03010000", bytes(18))
    assert [value.unit for value in values] == ["times", "min"] * 3


@pytest.mark.parametrize(
    ("di", "name"),
    [
        ("00013f00", "(current) Forward (import) active energy, tariff 63"),
        ("00010005", "(5 settlement dates back) Forward (import) active energy, total"),
        ("00010101", "(last settlement date) Forward (import) active energy, tariff 1"),
        ("0001020c", "(12 settlement dates back) Forward (import) active energy, tariff 2"),
        ("0001ff0c", "(12 settlement dates back) Forward (import) active energy, data block"),
        ("00010cff", "(current and settlement dates) Forward (import) active energy, tariff 12"),
        ("01010702", "(2 settlement dates back) Forward (import) active max demand and time, tariff 7"),
        ("00440003", "(3 settlement dates back) Phase C Quadrant IV reactive energy"),
        ("000b0001", "Previous settlement-period combined active consumption"),
        ("020a0115", "Phase A voltage harmonic content, order 21"),
        ("0301020a", "Phase B loss of voltage record, last 10"),
        ("03100103", "Voltage qualification statistics 3 months back, phase A"),
        ("03320104", "(last 4) Last energy purchase date"),
        ("040300fe", "Holiday 254 date and schedule"),
        ("04040207", "Key-scroll screen 7 item"),
        ("05000003", "Timed freeze time, last 3"),
        ("0500013c", "Timed freeze forward active energy, last 60"),
        ("0506013e", "Daily freeze forward active energy, last 62"),
        ("05040102", "Hourly freeze forward active total energy, last 2"),
        ("05070a02", "Step-tariff switch freeze reverse active max demand and time, last 2"),
        ("10020105", "Loss of voltage start time, last 5 (phase B)"),
        ("13032502", "Phase failure end time, last 2 (phase C)"),
        ("1d00ff0a", "Relay trip whole record, last 10"),
        ("1e000302", "Relay close forward active energy, last 2"),
    ],
)
def test_a_range_is_resolved(di: str, name: str) -> None:
    item = items.lookup(di)
    assert item is not None
    assert (item.di, item.name_en) == (di, name)


@pytest.mark.parametrize(
    ("di", "name"),
    [
        ("901e", "(current) forward active energy, tariff 14"),
        ("a41e", "(last month) forward active max demand, tariff 14"),
        ("b812", "(month before last) forward active max demand time, tariff 2"),
        ("c32e", "Season 14 start and schedule"),
        ("c3ae", "Schedule 8 period 14 start and tariff"),
        ("c41d", "Holiday 1D date and schedule"),
        ("c421", "Holiday 21 date and schedule"),
    ],
)
def test_a_1997_range_is_resolved(di: str, name: str) -> None:
    item = items.lookup(di, "1997")
    assert item is not None
    assert (item.di, item.name_en) == (di, name)


@pytest.mark.parametrize(
    ("di", "edition"),
    [
        ("00014000", "2007"),
        ("0001000d", "2007"),
        ("00150100", "2007"),
        ("00450101", "2007"),
        ("00900102", "2007"),
        ("00ee0200", "2007"),
        ("000c0001", "2007"),
        ("000b0002", "2007"),
        ("020a0116", "2007"),
        ("02010101", "2007"),
        ("0301010b", "2007"),
        ("0310000d", "2007"),
        ("0506013f", "2007"),
        ("05060100", "2007"),
        ("05050103", "2007"),
        ("05051101", "2007"),
        ("10040101", "2007"),
        ("10020003", "2007"),
        ("14020101", "2007"),
        ("1d00ff0b", "2007"),
        ("ffffffff", "2007"),
        ("0001", "2007"),
        ("zzzzzzzz", "2007"),
        ("9010", "2007"),
        ("9000", "1997"),
        ("9211", "1997"),
        ("9074", "1997"),
        ("c320", "1997"),
        ("c3b1", "1997"),
        ("c330", "1997"),
        ("c420", "1997"),
        ("00010000", "1997"),
        ("00010000", "2026"),
    ],
)
def test_what_the_table_does_not_have_is_none(di: str, edition: str) -> None:
    assert items.lookup(di, edition) is None
    assert items.decode(di, b"\x00", edition) == ()
    with pytest.raises(LocalProtocolError):
        items.encode(di, ["0"], edition)


def test_prices_are_told_by_tariff() -> None:
    values = items.decode("040501ff", bytes.fromhex("00500000" + "00250000"))
    assert [(value.name_zh, value.value) for value in values] == [
        ("当前套费率电价(费率1)", "0.5000"),
        ("当前套费率电价(费率2)", "0.2500"),
    ]


def test_the_points_of_a_curve_are_counted() -> None:
    values = items.decode("06100101", bytes.fromhex("0013250822" + "3022" + "ffff"))
    assert [value.value for value in values] == ["2022-08-25 13:00", "223.0", None]
    assert values[1].name_en == "Curve read, phase A voltage, point 1"
    assert values[2].name_zh == "负荷曲线:A相电压(第2点)"


def test_all_settlement_dates_read_one_by_one() -> None:
    values = items.decode("000100ff", bytes(4 * 13))
    assert values[0].name_en.endswith(", current")
    assert values[12].name_en.endswith(", 12 settlement dates back")


@given(
    st.sampled_from(["00010000", "0001ff00", "0000ff00", "01010000", "0101ff00", "02020100", "0203ff00"]),
    st.data(),
)
def test_values_write_and_read_back(di: str, draw: st.DataObject) -> None:
    item = items.lookup(di)
    assert item is not None
    assert item.layout is not None
    groups = item.layout.count or draw.draw(st.integers(1, 15))
    written: list[str | None] = []
    for part in item.layout.parts * groups:
        if isinstance(part, Number):
            most = 10 ** (2 * part.length) - 1
            limit = (most + 1) * 8 // 10 - 1 if part.signed else most
            number = draw.draw(st.none() | st.integers(-limit if part.signed else 0, limit))
            written.append(None if number is None else format(Decimal(number).scaleb(-part.decimals), "f"))
        else:
            when = draw.draw(st.datetimes(datetime(2000, 1, 1), datetime(2098, 12, 31)))
            written.append(when.strftime("%Y-%m-%d %H:%M"))
    data = items.encode(di, written)
    read = [value.value for value in items.decode(di, data)]
    assert [
        text and text.replace("-0.", "0.") if text and not text.strip("-0.") else text for text in written
    ] == read
    assert items.encode(di, read) == data


@given(st.lists(st.none() | st.integers(0, 10**8 - 1), min_size=1, max_size=50))
def test_energies_are_units_of_a_ten_thousandth(hundredths: list[int | None]) -> None:
    registers = tuple(None if value is None else 100 * value for value in hundredths)
    block = items.energy_block(registers)
    assert items.energies(block) == registers
    for register, value in zip(registers, items.decode("0001ff00", block), strict=True):
        assert value.value is None or Decimal(value.value) * 10000 == register


def test_energies_have_a_sign_only_where_told() -> None:
    assert items.energies(bytes.fromhex("00000090")) == (9_000_000_000,)
    assert items.energies(bytes.fromhex("00000090"), signed=True) == (-1_000_000_000,)
    assert items.energies(bytes.fromhex("ffffffff"), signed=True) == (None,)
    assert items.energies(bytes.fromhex("5634120000000100aa")) == (12_345_600, 1_000_000)


@pytest.mark.parametrize("data", ["", "000000", "0000000000", "00000e00", "fffffffe", "000000a0", "aa"])
def test_energies_that_cannot_be_are_the_peers_fault(data: str) -> None:
    with pytest.raises(RemoteProtocolError):
        items.energies(bytes.fromhex(data))


@pytest.mark.parametrize("register", [-100, 1, 99, 10**10])
def test_a_register_that_does_not_fit_is_our_fault(register: int) -> None:
    with pytest.raises(LocalProtocolError):
        items.energy_block([register])


@pytest.mark.parametrize(
    ("di", "values"),
    [
        ("00010000", []),
        ("00010000", ["1.00", "2.00"]),
        ("01010000", ["1.0000"]),
        ("00010000", ["1.001"]),
        ("00010000", ["1000000.00"]),
        ("00010000", ["-1.00"]),
        ("00000000", ["800000.00"]),
        ("00010000", ["much"]),
        ("00010000", ["Infinity"]),
        ("00010000", ["NaN"]),
        ("04000401", ["12"]),
        ("04000401", ["x" * 12]),
        ("04000503", ["205"]),
        ("04000503", [None]),
        ("04000404", ["longer than six"]),
        ("04000404", ["伏"]),
        ("05060001", ["yesterday"]),
        ("1d00ff01", ["2026-11-20 18:45:30"]),
        ("03360001", ["x"]),
        ("03360001", ["00", "00"]),
        ("06100101", ["1"]),
    ],
)
def test_values_that_do_not_fit_are_our_fault(di: str, values: list[str | None]) -> None:
    with pytest.raises(LocalProtocolError):
        items.encode(di, values)


@pytest.mark.parametrize(
    ("part", "text", "raw"),
    [
        (Number(4, 2), "1234.56", "56341200"),
        (Number(3, 4, signed=True), "-1.2345", "452381"),
        (Digits(6), "202311050012", "120005112320"),
        (Word(2), "2050", "5020"),
        (Ascii(6), "220V", "000056303232"),
        (Moment("YYMMDDWWhhmmss"), "2026-11-24 02 12:30:15", "15301202241126"),
        (Moment("hhmmNN"), "08:00 01", "010008"),
        (Moment("MMDDNN"), "05-01 02", "020105"),
        (Moment("YYMMDDNN"), "2026-05-01 02", "02010526"),
        (Moment("DDhh"), "01 00", "0001"),
    ],
)
def test_a_part_reads_and_writes(part: Part, text: str, raw: str) -> None:
    assert part.length == len(raw) // 2
    assert part.read(bytes.fromhex(raw)) == text
    assert part.write(text).hex() == raw
    assert part.unit == ""


def test_an_instant_is_a_naive_datetime() -> None:
    assert formats.instant(bytes.fromhex("0000241126")) == datetime(2026, 11, 24)
    assert formats.instant(bytes.fromhex("300000241126")) == datetime(2026, 11, 24, 0, 0, 30)
    assert formats.instant(b"\xff" * 5) is None
    assert formats.instant(bytes(5)) is None
    for wrong in ("0000241326", "00002411", "0000241a26"):
        with pytest.raises(ValueError, match="no"):
            formats.instant(bytes.fromhex(wrong))


@given(st.text("0123456789abcdef", min_size=8, max_size=8), st.binary(max_size=200))
def test_any_data_of_any_item_is_values_or_the_peers_fault(di: str, data: bytes) -> None:
    _any_item(di, data, "2007")


@given(st.sampled_from(sorted(table._rows())), st.binary(max_size=40))
def test_any_data_of_the_tables_items_is_values_or_the_peers_fault(key: tuple[str, str], data: bytes) -> None:
    _any_item(key[1], data, key[0])


def _any_item(di: str, data: bytes, edition: str) -> None:
    try:
        values = items.decode(di, data, edition)
    except RemoteProtocolError:
        return
    item = items.lookup(di, edition)
    if values and item is not None and item.kind not in ("freeze", "load"):
        read = b"".join(value.raw for value in values)
        assert read == data or read + b"\xaa" == data
