"""How a data item's bytes stand for its values (2007 clause 6 and annex A): XXXXXX.XX, YYMMDDhhmm, ASCII …

A format string of the item table becomes a `Layout`: a group of parts, repeated a fixed number of times or
as often as the data says, between a head and a tail. Everything is low byte first. FFH in every byte of a
part means "no value" and is tested before any digit; the sign is the top bit of the highest byte, on signed
items only.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

# ASCII digits only, and no exponent.
_DECIMAL = re.compile(r"(-?)([0-9]+)(?:\.([0-9]+))?")
_TIME_TOKENS = re.compile("YY|MM|DD|WW|hh|mm|ss|NN")


class Part(Protocol):
    """One value of a group. Its methods raise ValueError with the reason where bytes or text do not fit."""

    @property
    def length(self) -> int:
        """Bytes on the wire."""

    @property
    def unit(self) -> str:
        """Unit of the value, or ""."""

    def read(self, raw: bytes) -> str | None:
        """`length` bytes to the value's text; None for "no value"."""

    def write(self, text: str | None) -> bytes:
        """The value's text, as `read` gives it, to bytes."""


@dataclass(frozen=True, slots=True)
class Number:
    """X…X.X…X or N…N: packed BCD with an implied point. Text is a decimal string, "-1.2345"."""

    length: int
    decimals: int = 0
    signed: bool = False
    unit: str = ""

    def read(self, raw: bytes) -> str | None:
        digits = raw[::-1].hex()
        negative = self.signed and raw[-1] >= 0x80
        if negative:
            digits = f"{raw[-1] & 0x7F:02x}{digits[2:]}"
        if not digits.isdecimal():
            if raw.count(0xFF) == len(raw):
                return None
            raise ValueError("not BCD")
        point = len(digits) - self.decimals
        text = digits[:point].lstrip("0") or "0"
        if self.decimals:
            text = f"{text}.{digits[point:]}"
        # A direction bit on zero is no negative number.
        return f"-{text}" if negative and digits.strip("0") else text

    def write(self, text: str | None) -> bytes:
        if text is None:
            return b"\xff" * self.length
        found = _DECIMAL.fullmatch(text)
        if found is None:
            raise ValueError(f"{text!r} is no number")
        minus, whole, fraction = found[1], found[2].lstrip("0"), (found[3] or "").rstrip("0")
        digits = (whole + fraction.ljust(self.decimals, "0")).zfill(2 * self.length)
        negative = minus == "-" and digits.strip("0") != ""
        too_long = len(fraction) > self.decimals or len(digits) > 2 * self.length
        if too_long or (negative and not self.signed):
            raise ValueError(f"{text} does not fit")
        raw = bytearray.fromhex(digits)[::-1]
        if self.signed and raw[-1] & 0x80:
            raise ValueError(f"{text} does not fit beside a sign")
        if negative:
            raw[-1] |= 0x80
        return bytes(raw)


@dataclass(frozen=True, slots=True)
class Digits:
    """NNNNNNNNNNNN: an address or number that is a name; its zeros stay."""

    length: int
    unit: str = ""

    def read(self, raw: bytes) -> str | None:
        digits = raw[::-1].hex()
        if digits.isdecimal():
            return digits
        if raw.count(0xFF) == len(raw):
            return None
        raise ValueError("not BCD")

    def write(self, text: str | None) -> bytes:
        if text is None:
            return b"\xff" * self.length
        if not (text.isascii() and text.isdecimal()) or len(text) != 2 * self.length:
            raise ValueError(f"{text!r} is not {2 * self.length} digits")
        return bytes.fromhex(text)[::-1]


@dataclass(frozen=True, slots=True)
class Word:
    """Bits, feature and status words, operator codes, DIs: hex digits, high byte first. Has no "no value"."""

    length: int
    unit: str = ""

    def read(self, raw: bytes) -> str | None:
        return raw[::-1].hex()

    def write(self, text: str | None) -> bytes:
        raw = bytes.fromhex(text or "")
        if len(raw) != self.length:
            raise ValueError(f"{text!r} is not {self.length} bytes")
        return raw[::-1]


@dataclass(frozen=True, slots=True)
class Reference(Word):
    """A data identifier in a record: as `Word`, but a slot of FFH holds none."""

    def read(self, raw: bytes) -> str | None:
        return None if raw.count(0xFF) == len(raw) else raw[::-1].hex()

    def write(self, text: str | None) -> bytes:
        return b"\xff" * self.length if text is None else Word(self.length).write(text)


@dataclass(frozen=True, slots=True)
class Opaque:
    """Bytes whose meaning nobody has told: hex in the order of the wire."""

    length: int
    unit: str = ""

    def read(self, raw: bytes) -> str | None:
        return raw.hex()

    def write(self, text: str | None) -> bytes:
        raw = bytes.fromhex(text or "")
        if len(raw) != self.length:
            raise ValueError(f"{text!r} is not {self.length} bytes")
        return raw


@dataclass(frozen=True, slots=True)
class Ascii:
    """Text, last character first on the wire, padded with 00H or blanks."""

    length: int
    unit: str = ""

    def read(self, raw: bytes) -> str | None:
        if raw.count(0xFF) == len(raw):
            return None
        return raw[::-1].decode("ascii", "backslashreplace").strip("\x00 ")

    def write(self, text: str | None) -> bytes:
        if text is None:
            return b"\xff" * self.length
        try:
            raw = text.encode("ascii")
        except UnicodeEncodeError as error:
            raise ValueError(f"{text!r} is not ASCII") from error
        if len(raw) > self.length:
            raise ValueError(f"{text!r} is longer than {self.length}")
        return raw.ljust(self.length, b"\x00")[::-1]


@dataclass(frozen=True, slots=True)
class Moment:
    """YYMMDDhhmm and its kin. Text reads like "2026-11-24 00:00"; WW and NN stand as two digits.

    All 00H where there is a day (never recorded) and all 99H (not used) are "no value"; other digits that
    are no date or time are an error.
    """

    pattern: str
    unit: str = ""

    @property
    def length(self) -> int:
        return len(self.pattern) // 2

    def read(self, raw: bytes) -> str | None:
        if raw.count(0xFF) == len(raw):
            return None
        digits = raw[::-1].hex()
        if not digits.isdecimal():
            raise ValueError("not BCD")
        if not digits.strip("9") or ("DD" in self.pattern and not digits.strip("0")):
            return None
        values = dict(zip(_TIME_TOKENS.findall(self.pattern), re.findall("..", digits), strict=True))
        _check_moment(values)
        text = ""
        for token, value in values.items():
            text += _BEFORE[token] + value
        return text.lstrip(" :-")

    def write(self, text: str | None) -> bytes:
        if text is None:
            return b"\xff" * self.length
        digits = re.sub("[^0-9]", "", text)
        if self.pattern.startswith("YY") and len(digits) == len(self.pattern) + 2:
            digits = digits[2:]
        if len(digits) != len(self.pattern):
            raise ValueError(f"{text!r} is not of the form {self.pattern}")
        raw = bytes.fromhex(digits)[::-1]
        # "99 99" writes what meters hold for "not used"; all else must read back as it was given.
        if digits.strip("9") and self.read(raw) != text:
            raise ValueError(f"{text!r} is not of the form {self.pattern}")
        return raw


Names = tuple[str, str]
"""Of a field, English and Chinese."""


@dataclass(frozen=True, slots=True)
class Layout:
    """What an item's data is made of: a head, a group of parts, a tail.

    count: how often the group stands there; None: as often as the data says, at least once. names: of the
    head's, the group's and the tail's fields, where they have names of their own; % in those of a group
    stands for its number. joined: the group is one byte, and all of them are one value.
    """

    parts: tuple[Part, ...]
    count: int | None = 1
    head: tuple[Part, ...] = ()
    tail: tuple[Part, ...] = ()
    names: tuple[Names, ...] = ()
    joined: bool = False
    group_length: int = field(init=False)
    fixed_length: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "group_length", sum(part.length for part in self.parts))
        object.__setattr__(self, "fixed_length", sum(part.length for part in self.head + self.tail))

    def groups(self, length: int) -> int | None:
        """How many groups `length` bytes of data hold; None where they do not fit."""
        room = length - self.fixed_length
        if self.count is not None:
            return self.count if room == self.count * self.group_length else None
        groups, rest = divmod(room, self.group_length)
        return None if rest or groups < 1 else groups

    def groups_of(self, values: int) -> int | None:
        """How many groups so many values are; None where they do not fit."""
        room = values - len(self.head) - len(self.tail)
        if self.joined:
            return 1 if room == 1 else None
        if self.count is not None:
            return self.count if room == self.count * len(self.parts) else None
        groups, rest = divmod(room, len(self.parts))
        return None if rest or groups < 1 else groups


UNTOLD = Layout((Opaque(1),), None, joined=True)
"""Of items whose layout no source tells: their bytes as one value."""


def instant(raw: bytes) -> datetime | None:
    """A freeze or event time, 5 bytes mm hh DD MM YY or 6 with ss before them, by the meter's clock.

    None where there is none (all FFH, all 00H, all 99H). ValueError for anything else that is no time.
    """
    if len(raw) not in (5, 6):
        raise ValueError(f"{len(raw)} bytes are no time")
    text = Moment("YYMMDDhhmmss" if len(raw) == 6 else "YYMMDDhhmm").read(raw)
    return None if text is None else datetime.fromisoformat(text)


def layout_of(text: str, length: str, unit: str, signed: bool, binary: bool) -> Layout:
    """The layout for a row's format, length_bytes and unit columns.

    binary: the digits of the format are bits and not BCD.
    """
    fixed = int(length) if length.isdecimal() else None
    parts = tuple(part_of(name, fixed, unit, signed, binary) for name in text.split("+"))
    if fixed is None:
        return Layout(parts, None)
    count = fixed // sum(part.length for part in parts)
    if "/" in unit and count > 1:
        # "kW/kvar": the first half of the values in one unit, the second in the other.
        halves = [part_of(text, fixed, half, signed, binary) for half in unit.split("/")]
        return Layout(tuple(half for half in halves for _ in range(count // 2)))
    return Layout(parts, count)


# What stands before a token's digits in a moment's text.
_BEFORE = {"YY": "20", "MM": "-", "DD": "-", "WW": " ", "NN": " ", "hh": " ", "mm": ":", "ss": ":"}


def _check_moment(values: dict[str, str]) -> None:
    # 2000 is a leap year: 29 February passes where the format has no year.
    year, month, day = (int(values.get(name, low)) for name, low in (("YY", "0"), ("MM", "1"), ("DD", "1")))
    hour, minute, second = (int(values.get(name, "0")) for name in ("hh", "mm", "ss"))
    try:
        datetime(2000 + year, month, day, hour, minute, second)
    except ValueError as error:
        raise ValueError(f"no such time: {error}") from error


def part_of(name: str, fixed: int | None, unit: str, signed: bool, binary: bool = False) -> Part:
    """The part for one format: XX.XXXX, YYMMDDhhmm, NN, ASCII, C0C1C2C3 …

    fixed: the item's length, for formats that do not tell their own. binary: the digits are bits.
    """
    digits = sum(letter in "XN" for letter in name)
    if name == "ASCII":
        return Ascii(fixed or 1)
    if name in ("bits", "HH"):
        return Word(fixed or 1)
    if binary or name == "C0C1C2C3":
        return Word(digits // 2 or 4)
    if name == "NNNNNNNNNNNN":
        return Digits(6)
    if set(name) & set("YDhs"):
        return Moment(name)
    return Number((digits + 1) // 2, len(name.partition(".")[2]), signed, unit)
