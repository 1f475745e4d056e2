"""Data formats of Q/GDW 376.1 appendix A that typed values use: functions, and construct adapters of the same
names. Energies are integers of 0.0001. `appendix` has every format, exact, for the form language.

An EEH byte anywhere in a BCD field means "no value" (captured: 00 EE EE EE EE), and so does EFH in all its
bytes (one product). Any other nibble above 9 is damage: ValueError. Instants are naive, the device's clock.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, datetime
from typing import Any

import construct

from protocols.wire import bcd_to_int, int_to_bcd

FILLER = 0xEE
_OTHER_FILLER = 0xEF
_CENTURY = 2000


def is_filler(raw: bytes) -> bool:
    """Whether a BCD field says "no value"."""
    return FILLER in raw or (bool(raw) and raw.count(_OTHER_FILLER) == len(raw))


def _energy(raw: bytes, scale: int) -> int | None:
    return None if is_filler(raw) else bcd_to_int(raw) * scale


def _energy_bytes(value: int | None, length: int, scale: int) -> bytes:
    if value is None:
        return bytes([FILLER]) * length
    digits, lost = divmod(value, scale)
    if lost:
        raise ValueError(f"{value} has more decimals than the format")
    return int_to_bcd(digits, length)


def a11(raw: bytes) -> int | None:
    """4 bytes XXXXXX.XX, as an integer of 0.0001."""
    return _energy(raw, 100)


def a11_bytes(value: int | None) -> bytes:
    """`a11` backwards; ValueError where decimals would be lost or digits do not fit."""
    return _energy_bytes(value, 4, 100)


def a14(raw: bytes) -> int | None:
    """5 bytes XXXXXX.XXXX, as an integer of 0.0001."""
    return _energy(raw, 1)


def a14_bytes(value: int | None) -> bytes:
    """`a14` backwards; ValueError where it does not fit."""
    return _energy_bytes(value, 5, 1)


def a12(raw: bytes) -> str:
    """6 bytes to 12 hex digits, high digit first. They are decimal by the standard, but not checked: an
    address is only ever compared, and one odd record must not hide the others."""
    return raw[::-1].hex()


def a12_bytes(address: str) -> bytes:
    """`a12` backwards; ValueError where there are not 12 decimal digits."""
    if len(address) != 12 or not (address.isascii() and address.isdecimal()):
        raise ValueError(f"{address!r} is not 12 decimal digits")
    return bytes.fromhex(address)[::-1]


def bcd_digits(byte: int) -> int:
    """One byte of two BCD digits. ValueError where a nibble is above 9."""
    if byte & 0x0F > 9 or byte > 0x99:
        raise ValueError(f"not BCD: {byte:02x}")
    return (byte >> 4) * 10 + (byte & 0x0F)


def _instant(raw: bytes, year: int, month: int) -> datetime | None:
    """ss mm hh dd (or mm hh dd), the month and the year; None where filled up or all zero."""
    second, minute, hour, day = (0, *raw) if len(raw) == 3 else raw
    return datetime(
        _CENTURY + year, month, bcd_digits(day), bcd_digits(hour), bcd_digits(minute), bcd_digits(second)
    )


def a1(raw: bytes) -> tuple[datetime | None, int]:
    """6 bytes ss mm hh dd W/MM yy, as (instant, weekday 1..7 or 0). Filled up or zero: (None, 0)."""
    if is_filler(raw) or not any(raw):
        return None, 0
    month = bcd_digits(raw[4] & 0x1F)
    return _instant(raw[:4], bcd_digits(raw[5]), month), raw[4] >> 5


def a1_bytes(at: datetime | None, weekday: int = 0) -> bytes:
    """`a1` backwards."""
    if at is None:
        return bytes([FILLER]) * 6
    _check_year(at.year)
    if not 0 <= weekday <= 7:
        raise ValueError(f"weekday {weekday}")
    month = at.month // 10 << 4 | at.month % 10
    return bytes.fromhex(f"{at:%S%M%H%d}") + bytes([weekday << 5 | month]) + int_to_bcd(at.year % 100, 1)


def a15(raw: bytes) -> datetime | None:
    """5 bytes mm hh dd MM yy. Filled up or zero: None."""
    if is_filler(raw) or not any(raw):
        return None
    return _instant(raw[:3], bcd_digits(raw[4]), bcd_digits(raw[3]))


def a15_bytes(at: datetime | None) -> bytes:
    """`a15` backwards; seconds are dropped."""
    if at is None:
        return bytes([FILLER]) * 5
    _check_year(at.year)
    return bytes.fromhex(f"{at:%M%H%d%m%y}")


def a20(raw: bytes) -> date | None:
    """3 bytes dd MM yy (Td_d). Filled up or zero: None."""
    if is_filler(raw) or not any(raw):
        return None
    return date(_CENTURY + bcd_digits(raw[2]), bcd_digits(raw[1]), bcd_digits(raw[0]))


def a20_bytes(day: date | None) -> bytes:
    """`a20` backwards."""
    if day is None:
        return bytes([FILLER]) * 3
    _check_year(day.year)
    return bytes.fromhex(f"{day:%d%m%y}")


def a21(raw: bytes) -> date | None:
    """2 bytes MM yy (Td_m), as the first of the month. Filled up or zero: None."""
    if is_filler(raw) or not any(raw):
        return None
    return date(_CENTURY + bcd_digits(raw[1]), bcd_digits(raw[0]), 1)


def a21_bytes(month: date | None) -> bytes:
    """`a21` backwards."""
    if month is None:
        return bytes([FILLER]) * 2
    _check_year(month.year)
    return bytes.fromhex(f"{month:%m%y}")


def text(raw: bytes) -> str:
    """A fixed field of characters, without the NUL and space that fill it up; no byte is lost or refused."""
    return raw.rstrip(b"\0 ").decode("latin-1")


def text_bytes(value: str, length: int) -> bytes:
    """`text` backwards, filled up with NUL; ValueError where it does not fit."""
    raw = value.encode("latin-1")
    if len(raw) > length:
        raise ValueError(f"{value!r} is longer than {length} bytes")
    return raw.ljust(length, b"\0")


def _check_year(year: int) -> None:
    if not _CENTURY <= year < _CENTURY + 100:
        raise ValueError(f"year {year} does not fit two digits from {_CENTURY}")


def _adapter(length: int, decode: Callable[[bytes], object], encode: Callable[[Any], bytes]) -> Any:
    """A construct field of `length` bytes that reads by `decode` and writes by `encode`."""
    return construct.ExprAdapter(
        construct.Bytes(length), lambda raw, _: decode(raw), lambda value, _: encode(value)
    )


def text_field(length: int) -> Any:
    """A construct field of `length` characters."""
    return _adapter(length, text, lambda value: text_bytes(value, length))


A1 = _adapter(6, a1, lambda pair: a1_bytes(*pair))
A11 = _adapter(4, a11, a11_bytes)
A12 = _adapter(6, a12, a12_bytes)
A14 = _adapter(5, a14, a14_bytes)
A15 = _adapter(5, a15, a15_bytes)
A20 = _adapter(3, a20, a20_bytes)
A21 = _adapter(2, a21, a21_bytes)
