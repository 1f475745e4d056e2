"""Every data format of Q/GDW 376.1 appendix A by its number, as the form language reads and writes it.

Numbers are exact (Decimal where there are decimals), times without a year small texts, None is "no value";
the fillers are those of `formats`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal

from protocols.q_gdw376.formats import (
    FILLER,
    a1,
    a1_bytes,
    a12,
    a12_bytes,
    a15,
    a15_bytes,
    a20,
    a20_bytes,
    a21,
    a21_bytes,
    bcd_digits,
    is_filler,
)
from protocols.wire import bcd_to_int, int_to_bcd

Scalar = int | Decimal | str | bytes | date | datetime | tuple[tuple[int, int], ...]
"""What one field can say, beside None for "no value"."""


@dataclass(frozen=True, slots=True)
class Format:
    """How one field of `length` bytes reads and writes.

    decode: ValueError where the bytes are no such field. encode takes what `decode` gives, or its text;
    ValueError where that does not fit. exact: False where a value other than None does not settle every
    byte (A.1 has a weekday beside the instant, one may send a wrong one).
    """

    length: int
    decode: Callable[[bytes], Scalar | None]
    encode: Callable[[object], bytes]
    exact: bool = True


# No field has this many digits: a power of ten this far off is refused before it is computed.
_FAR = 40


def _filled(length: int) -> bytes:
    return bytes([FILLER]) * length


def as_decimal(value: object) -> Decimal:
    """A number or its text. ValueError where it is none, or not finite."""
    if isinstance(value, bool) or not isinstance(value, int | str | Decimal):
        raise ValueError(f"{value!r} is no exact number")
    try:
        number = Decimal(value)
    except ArithmeticError:
        raise ValueError(f"{value!r} is no number") from None
    if not number.is_finite():
        raise ValueError(f"{value!r} is not finite")
    return number


def _split(value: object, decimals: int) -> tuple[bool, int]:
    """Sign (of a minus zero too) and digits of a number in steps of 10 ** -decimals."""
    number = as_decimal(value)
    sign, digits, exponent = number.as_tuple()
    assert isinstance(exponent, int)  # finite
    magnitude = int("".join(map(str, digits)))
    shift = exponent + decimals
    if not magnitude:
        return bool(sign), 0
    if abs(shift) > _FAR:
        raise ValueError(f"{value} does not fit")
    scaled, lost = (magnitude * 10**shift, 0) if shift >= 0 else divmod(magnitude, 10**-shift)
    if lost:
        raise ValueError(f"{value} has more than {decimals} decimals")
    return bool(sign), scaled


def _number(length: int, decimals: int, signed: bool = False, whole: bool = False) -> Format:
    """BCD digits with a fixed point; signed: D7 of the last byte is a minus. whole: read as int."""

    def decode(raw: bytes) -> Scalar | None:
        if is_filler(raw):
            return None
        minus = signed and raw[-1] >> 7
        digits = bcd_to_int(raw[:-1] + bytes([raw[-1] & 0x7F])) if minus else bcd_to_int(raw)
        if whole:
            return digits
        return Decimal((int(bool(minus)), tuple(map(int, str(digits))), -decimals))

    def encode(value: object) -> bytes:
        if value is None:
            return _filled(length)
        minus, digits = _split(value, decimals)
        if minus and not signed:
            raise ValueError(f"{value} is negative")
        raw = int_to_bcd(digits, length)
        if signed and raw[-1] >> 7:
            raise ValueError(f"{value} does not fit the sign's byte")
        return raw[:-1] + bytes([raw[-1] | minus << 7])

    return Format(length, decode, encode)


def _power(raw: bytes) -> Scalar | None:
    """A.2: three digits, sign D4 and D7-D5 G of byte 2; the number is digits x 10 ** (4 - G)."""
    if is_filler(raw):
        return None
    digits = bcd_digits(raw[0]) + 100 * bcd_digits(raw[1] & 0x0F)
    return Decimal((raw[1] >> 4 & 1, tuple(map(int, str(digits))), 4 - (raw[1] >> 5)))


def _power_bytes(value: object) -> bytes:
    if value is None:
        return _filled(2)
    number = as_decimal(value)
    exponent = number.as_tuple().exponent
    assert isinstance(exponent, int)
    # The number's own exponent where it fits (what `_power` gave goes back as it came), else the finest.
    for scale in (exponent, *range(-3, 5)):
        if -3 <= scale <= 4:
            try:
                minus, digits = _split(number, -scale)
            except ValueError:
                continue
            if digits < 1000:
                low = int_to_bcd(digits, 2)
                return bytes([low[0], low[1] | minus << 4 | (4 - scale) << 5])
    raise ValueError(f"{value} does not fit three digits")


def _energy_or_money(raw: bytes) -> Scalar | None:
    """A.3: seven digits, sign D4 and G D6 of byte 4; G 1 is a unit a thousand times as large."""
    if is_filler(raw):
        return None
    if raw[3] & 0xA0:
        raise ValueError(f"reserved bits in {raw[3]:02x}")
    digits = bcd_to_int(raw[:3] + bytes([raw[3] & 0x0F]))
    return Decimal((raw[3] >> 4 & 1, tuple(map(int, str(digits))), 3 if raw[3] & 0x40 else 0))


def _energy_or_money_bytes(value: object) -> bytes:
    if value is None:
        return _filled(4)
    number = as_decimal(value)
    for scale in (3, 0) if number.as_tuple().exponent == 3 else (0, 3):
        try:
            minus, digits = _split(number, -scale)
        except ValueError:
            continue
        if digits < 10_000_000:
            raw = int_to_bcd(digits, 4)
            return raw[:3] + bytes([raw[3] | minus << 4 | (scale == 3) << 6])
    raise ValueError(f"{value} does not fit seven digits")


def _float_factor(raw: bytes) -> Scalar | None:
    """A.4: D7 1 is down (negative), D6-D0 0..79 %."""
    if is_filler(raw):
        return None
    digits = bcd_digits(raw[0] & 0x7F)
    return Decimal((raw[0] >> 7, tuple(map(int, str(digits))), 0))


def _float_factor_bytes(value: object) -> bytes:
    if value is None:
        return _filled(1)
    minus, digits = _split(value, 0)
    if digits > 79:
        raise ValueError(f"{value} % does not fit 79")
    return bytes([int_to_bcd(digits, 1)[0] | minus << 7])


def _as_instant(value: object, pattern: str, seconds: bool) -> datetime | None:
    if value is None or (isinstance(value, str) and not value):
        return None
    if isinstance(value, str):
        value = datetime.fromisoformat(value)
    if not isinstance(value, datetime) or value.tzinfo is not None or value.microsecond:
        raise ValueError(f"{value!r} is no wall clock time of {pattern}")
    if value.second and not seconds:
        raise ValueError(f"{value} has seconds; {pattern} has none")
    return value


def _clock_bytes(value: object) -> bytes:
    at = _as_instant(value, "A.1", seconds=True)
    return a1_bytes(at, 0 if at is None else at.isoweekday())


def _day_bytes(value: object) -> bytes:
    if isinstance(value, str):
        value = date.fromisoformat(value)
    if value is not None and (not isinstance(value, date) or isinstance(value, datetime)):
        raise ValueError(f"{value!r} is no date")
    return a20_bytes(value)


def _month(raw: bytes) -> str | None:
    month = a21(raw)
    return None if month is None else f"{month:%Y-%m}"


def _month_bytes(value: object) -> bytes:
    if isinstance(value, str):
        value = date.fromisoformat(f"{value}-01")
    if value is not None and (not isinstance(value, date) or isinstance(value, datetime) or value.day != 1):
        raise ValueError(f"{value!r} is no month")
    return a21_bytes(value)


# The parts of times without a year: what they are called, the least and the most they can be.
_PARTS = {"s": (0, 59), "m": (0, 59), "h": (0, 23), "d": (1, 31), "M": (1, 12)}


def _time_of(order: str, pattern: str) -> Format:
    """A time without a year. order: its bytes as sent, by the letters of `_PARTS`; pattern: its text, with
    a letter's two digits at each letter. All zero is no value, but for A.19, where it is midnight; that one
    also ends a day: 24:00. Day 00 of A.18 is every day (AFN04 F33's broadcast time)."""

    def check(numbers: dict[str, int]) -> None:
        if order == "mh" and numbers == {"m": 0, "h": 24}:
            return
        for letter, number in numbers.items():
            least, most = _PARTS[letter]
            if order == "mhd":
                least = 0
            if not least <= number <= most:
                raise ValueError(f"{number:02d} cannot be the {letter} of {pattern}")

    def decode(raw: bytes) -> Scalar | None:
        if is_filler(raw) or (order != "mh" and not any(raw)):
            return None
        numbers = {letter: bcd_digits(byte) for letter, byte in zip(order, raw, strict=True)}
        check(numbers)
        return "".join(f"{numbers[sign]:02d}" if sign in numbers else sign for sign in pattern)

    def encode(value: object) -> bytes:
        if value is None:
            return _filled(len(order))
        text = value if isinstance(value, str) else ""
        letters = [sign for sign in pattern if sign in order]
        digits = "".join(sign for sign in text if sign.isascii() and sign.isdecimal())
        numbers = (
            {letter: int(digits[2 * place : 2 * place + 2]) for place, letter in enumerate(letters)}
            if len(digits) == 2 * len(letters)
            else {}
        )
        if "".join(f"{numbers[sign]:02d}" if sign in numbers else sign for sign in pattern) != text:
            raise ValueError(f"{value!r} is not {pattern}")
        check(numbers)
        return b"".join(int_to_bcd(numbers[letter], 1) for letter in order)

    return Format(len(order), decode, encode)


def _address(raw: bytes) -> str | None:
    return None if is_filler(raw) else a12(raw)


def _address_bytes(value: object) -> bytes:
    if value is None:
        return _filled(6)
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is no address")
    return a12_bytes(value)


FORMATS: dict[int, Format] = {
    1: Format(6, lambda raw: a1(raw)[0], _clock_bytes, exact=False),
    2: Format(2, _power, _power_bytes),
    3: Format(4, _energy_or_money, _energy_or_money_bytes),
    4: Format(1, _float_factor, _float_factor_bytes),
    5: _number(2, 1, signed=True),
    6: _number(2, 2, signed=True),
    7: _number(2, 1),
    8: _number(2, 0, whole=True),
    9: _number(3, 4, signed=True),
    10: _number(3, 0, whole=True),
    11: _number(4, 2),
    12: Format(6, _address, _address_bytes, exact=False),
    13: _number(4, 4),
    14: _number(5, 4),
    15: Format(5, a15, lambda value: a15_bytes(_as_instant(value, "A.15", seconds=False))),
    16: _time_of("smhd", "d h:m:s"),
    17: _time_of("mhdM", "M-d h:m"),
    18: _time_of("mhd", "d h:m"),
    19: _time_of("mh", "h:m"),
    20: Format(3, a20, _day_bytes),
    21: Format(2, _month, _month_bytes),
    22: _number(1, 1),
    23: _number(3, 4),
    24: _time_of("hd", "d h"),
    25: _number(3, 3, signed=True),
    26: _number(2, 3),
    27: _number(4, 0, whole=True),
}
"""A.n by n. A.24 from memory and A.2 G from a single source."""
