"""Formats A.1 to A.27 by hand: bytes, what they say, and the same bytes again; and what they refuse."""

from __future__ import annotations

from datetime import date, datetime
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.q_gdw376.appendix import FORMATS


@pytest.mark.parametrize(
    ("number", "raw", "value"),
    [
        # weekday 2 and month 11 in one byte: 010 1 0001
        (1, "301508245126", datetime(2026, 11, 24, 8, 15, 30)),
        # G 4 is 1, G 7 is 0.001, G 0 is 10000
        (2, "2381", Decimal("123")),
        (2, "23e1", Decimal("0.123")),
        (2, "2311", Decimal("-1.23E+6")),
        (2, "0001", Decimal("1.00E+6")),
        (3, "67452301", Decimal("1234567")),
        (3, "67452311", Decimal("-1234567")),
        (3, "67452341", Decimal("1.234567E+9")),
        (4, "79", Decimal("79")),
        (4, "85", Decimal("-5")),
        (5, "3412", Decimal("123.4")),
        (5, "3492", Decimal("-123.4")),
        (5, "9979", Decimal("799.9")),
        (6, "3492", Decimal("-12.34")),
        (7, "0022", Decimal("220.0")),
        (7, "9999", Decimal("999.9")),
        (8, "3412", 1234),
        (9, "563412", Decimal("12.3456")),
        (9, "563492", Decimal("-12.3456")),
        (10, "563412", 123456),
        (11, "78563412", Decimal("123456.78")),
        (12, "129078563412", "123456789012"),
        (13, "78563412", Decimal("1234.5678")),
        (14, "9078563412", Decimal("123456.7890")),
        (15, "1508241126", datetime(2026, 11, 24, 8, 15)),
        (16, "30150824", "24 08:15:30"),
        (17, "15082411", "11-24 08:15"),
        (18, "150824", "24 08:15"),
        (18, "401600", "00 16:40"),
        (19, "1508", "08:15"),
        (19, "0000", "00:00"),
        (19, "0024", "24:00"),
        (20, "241126", date(2026, 11, 24)),
        (21, "1126", "2026-11"),
        (22, "15", Decimal("1.5")),
        (23, "563412", Decimal("12.3456")),
        (24, "0824", "24 08"),
        (25, "563412", Decimal("123.456")),
        (25, "563492", Decimal("-123.456")),
        (26, "3412", Decimal("1.234")),
        (27, "78563412", 12345678),
    ],
)  # fmt: skip
def test_a_format_both_ways(number: int, raw: str, value: object) -> None:
    form, data = FORMATS[number], bytes.fromhex(raw)
    assert form.length == len(data)
    found = form.decode(data)
    assert found == value
    assert type(found) is type(value)
    assert form.encode(value) == data
    assert form.encode(str(value)) == data


def test_there_are_twenty_seven_formats() -> None:
    assert sorted(FORMATS) == list(range(1, 28))


@pytest.mark.parametrize("number", sorted(FORMATS))
def test_an_ee_byte_is_no_value(number: int) -> None:
    form = FORMATS[number]
    filled = b"\xee" * form.length
    assert form.decode(filled) is None
    assert form.decode(b"\xef" * form.length) is None
    assert form.encode(None) == filled
    if form.length > 1:
        assert form.decode(b"\x00" + filled[1:]) is None


@pytest.mark.parametrize("number", [1, 15, 16, 17, 18, 20, 21, 24])
def test_a_time_of_zeros_is_no_value(number: int) -> None:
    assert FORMATS[number].decode(bytes(FORMATS[number].length)) is None


@pytest.mark.parametrize("number", [2, 3, 5, 6, 9, 25])
def test_minus_zero_keeps_its_sign(number: int) -> None:
    """A sign without digits is read, and written back, as it came."""
    form = FORMATS[number]
    sign = 0x10 if number in (2, 3) else 0x80
    data = bytes(form.length - 1) + bytes([sign])
    assert form.encode(form.decode(data)) == data


@pytest.mark.parametrize(
    ("number", "raw"),
    [
        (1, "301508245f26"), (1, "301508315126"), (2, "2a81"), (2, "238b"), (3, "67452381"), (3, "674523a1"),
        (4, "0a"), (5, "3a12"), (7, "0a22"), (8, "a000"), (9, "56341a"), (11, "785634a2"), (14, "00000000fa"),
        (15, "6000241126"), (15, "0025241126"), (15, "0000321126"), (16, "60150824"), (17, "15082413"),
        (17, "15080011"), (18, "150832"), (19, "6008"), (19, "1524"), (20, "310226"),
        (21, "1326"), (22, "a5"), (24, "2424"), (27, "7856341a"),
    ],
)  # fmt: skip
def test_digits_that_cannot_be_are_damage(number: int, raw: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        FORMATS[number].decode(bytes.fromhex(raw))


@pytest.mark.parametrize(
    ("number", "value"),
    [
        (1, datetime(1999, 1, 1)), (1, datetime(2026, 1, 1, microsecond=1)), (1, "yesterday"), (1, 5),
        (2, Decimal("1234")), (2, Decimal("0.0001")), (2, Decimal("1E+90")), (2, "NaN"), (2, 1.5), (2, True),
        (3, Decimal("0.5")), (3, Decimal("1E+11")), (4, 80), (4, Decimal("1.5")), (5, Decimal("800")),
        (5, Decimal("0.05")), (7, Decimal("-1")), (7, Decimal("1000")), (8, 10000), (8, "one"), (8, 1.0),
        (11, Decimal("0.001")), (11, Decimal("1E+999999")), (11, Decimal("1E-999999")), (12, "12345678901"),
        (12, "a23456789012"), (12, 5), (14, Decimal("1000000")), (14, Decimal("Infinity")),
        (15, datetime(2026, 1, 1, 0, 0, 1)), (16, "24 08:15"), (16, "00 08:15:30"), (17, "11-24  8:15"),
        (17, "13-24 08:15"), (18, None.__class__), (19, "24:01"), (19, "8:15"), (20, datetime(2026, 1, 1)),
        (20, "2026-02-30"), (21, "2026-13"), (21, date(2026, 11, 2)), (22, 10), (24, "24 24"), (27, -1),
    ],
)  # fmt: skip
def test_values_that_do_not_fit_are_refused(number: int, value: object) -> None:
    with pytest.raises(ValueError, match=r".+"):
        FORMATS[number].encode(value)


@given(st.sampled_from(sorted(FORMATS)), st.binary(min_size=6, max_size=6))
def test_what_is_read_is_written_back(number: int, raw: bytes) -> None:
    """Any bytes: the same again where they say something and the format is exact; damage is ValueError."""
    form = FORMATS[number]
    data = raw[: form.length]
    try:
        value = form.decode(data)
    except ValueError:
        return
    if value is not None and form.exact:
        assert form.encode(value) == data
