"""What a field of a form can be beside appendix A: integers, bit strings, texts, bytes, identifiers.

All go low byte first, but for texts, bytes and IP addresses, which stand as they are sent.
"""

from __future__ import annotations

import re
from functools import lru_cache

from protocols.errors import LocalProtocolError
from protocols.q_gdw376.appendix import FORMATS, Format, Scalar
from protocols.q_gdw376.formats import FILLER, is_filler
from protocols.q_gdw376.identifiers import LARGEST_TOLD_FN, classes, identifier, points
from protocols.wire import bcd_to_int, int_to_bcd

ANY_LENGTH = -1
"""Length of a kind whose length an earlier field tells."""

_FIXED = re.compile(r"(A|BIN|INT|BS|BCD|ASCII|GB|BYTES)(\d{1,3})")
_IDENTIFIER = 4


@lru_cache(maxsize=256)
def kind_of(word: str) -> Format | None:
    """The format that a type's word names ("A14", "BIN2", "TEXT", "IP", …); None where none has this name.

    TEXT, GB, BYTES and REST without a number have ANY_LENGTH.
    """
    match word:
        case "IP":
            return Format(4, _ip, _ip_bytes)
        case "DADT":
            return Format(_IDENTIFIER, _pairs, _pairs_bytes)
        case "TEXT":
            return Format(ANY_LENGTH, lambda raw: raw.decode("latin-1"), _text_bytes)
        case "GB":
            return Format(ANY_LENGTH, _chinese, _chinese_bytes)
        case "BYTES" | "REST":
            return Format(ANY_LENGTH, bytes, _plain_bytes)
    found = _FIXED.fullmatch(word)
    if found is None or not int(found[2]):
        return None
    length = int(found[2])
    match found[1]:
        case "A":
            return FORMATS.get(length)
        case "BIN":
            return Format(length, _unsigned, lambda value: _integer_bytes(value, length, signed=False))
        case "INT":
            return Format(length, _signed, lambda value: _integer_bytes(value, length, signed=True))
        case "BS":
            return Format(length, _bits, lambda value: _integer_bytes(value, length, signed=False))
        case "BCD":
            return Format(length, _digits, lambda value: _digits_bytes(value, length))
        case "ASCII":
            return Format(length, _padded, lambda value: _fit(_text_bytes(value), length, pad=True))
        case "GB":
            return Format(
                length, _padded_chinese, lambda value: _fit(_chinese_bytes(value), length, pad=True)
            )
        case _:
            return Format(length, bytes, lambda value: _fit(_plain_bytes(value), length, pad=False))


def _unsigned(raw: bytes) -> int | None:
    # One byte of EEH may well be 238: a count, a pointer.
    if len(raw) > 1 and raw.count(FILLER) == len(raw):
        return None
    return int.from_bytes(raw, "little")


def _signed(raw: bytes) -> int | None:
    if len(raw) > 1 and raw.count(FILLER) == len(raw):
        return None
    return int.from_bytes(raw, "little", signed=True)


def _bits(raw: bytes) -> int:
    return int.from_bytes(raw, "little")


def _integer_bytes(value: object, length: int, *, signed: bool) -> bytes:
    if value is None:
        return bytes([FILLER]) * length
    if isinstance(value, str):
        value = int(value, 0)
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"{value!r} is no integer")
    try:
        return value.to_bytes(length, "little", signed=signed)
    except OverflowError:
        raise ValueError(f"{value} does not fit {length} bytes") from None


def _digits(raw: bytes) -> str | None:
    return None if is_filler(raw) else f"{bcd_to_int(raw):0{2 * len(raw)}d}"


def _digits_bytes(value: object, length: int) -> bytes:
    if value is None:
        return bytes([FILLER]) * length
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    if not isinstance(text, str) or not (text.isascii() and text.isdecimal()):
        raise ValueError(f"{value!r} is not of digits only")
    return int_to_bcd(int(text), length)


def _fit(raw: bytes, length: int, *, pad: bool) -> bytes:
    if len(raw) > length or (len(raw) < length and not pad):
        raise ValueError(f"{len(raw)} bytes do not fit {length}")
    return raw.ljust(length, b"\0")


def _padded(raw: bytes) -> str:
    return raw.rstrip(b"\0").decode("latin-1")


def _text_bytes(value: object) -> bytes:
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is no text")
    return value.encode("latin-1")


def _chinese(raw: bytes) -> str | bytes:
    """GB 2312 text in its superset GB 18030; bytes that are none of it, or that it writes otherwise, stay."""
    try:
        text = raw.decode("gb18030")
        return text if text.encode("gb18030") == raw else raw
    except UnicodeError:
        return raw


def _padded_chinese(raw: bytes) -> str | bytes:
    return _chinese(raw.rstrip(b"\0"))


def _chinese_bytes(value: object) -> bytes:
    if isinstance(value, bytes):
        return value
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is no text")
    return value.encode("gb18030")


def _plain_bytes(value: object) -> bytes:
    if isinstance(value, str):
        return bytes.fromhex(value)
    if not isinstance(value, bytes):
        raise ValueError(f"{value!r} is neither bytes nor hex")
    return value


def _ip(raw: bytes) -> str:
    return ".".join(map(str, raw))


def _ip_bytes(value: object) -> bytes:
    parts = value.split(".") if isinstance(value, str) else []
    if len(parts) != 4 or not all(part.isascii() and part.isdecimal() and int(part) < 256 for part in parts):
        raise ValueError(f"{value!r} is no IP address")
    return bytes(map(int, parts))


def _pairs(raw: bytes) -> Scalar:
    pns, fns = points(raw[:2]), classes(raw[2:])
    if not pns or not fns:
        raise ValueError(f"{raw.hex(' ')} names no point or no class")
    return tuple((pn, fn) for pn in pns for fn in fns)


def _pairs_bytes(value: object) -> bytes:
    """One identifier of several points and classes: all of each with all of the other, each of one group."""
    if isinstance(value, str):
        value = tuple(_pair(word) for word in value.split(","))
    if not isinstance(value, tuple | list) or not value:
        raise ValueError(f"{value!r} is not points and classes")
    raw = bytearray(_IDENTIFIER)
    try:
        for pn, fn in value:
            one = identifier(pn, fn, LARGEST_TOLD_FN)
            if raw[2:] != bytes(2) and (one[1], one[3]) != (raw[1], raw[3]):
                raise ValueError(f"{value!r} does not fit one identifier")
            raw = bytearray((raw[0] | one[0], one[1], raw[2] | one[2], one[3]))
    except (TypeError, LocalProtocolError) as error:
        raise ValueError(f"{value!r}: {error}") from error
    said = _pairs(bytes(raw))
    if not isinstance(said, tuple) or sorted(map(tuple, value)) != sorted(said):
        raise ValueError(f"{value!r} does not fit one identifier")
    return bytes(raw)


def _pair(word: str) -> tuple[int, int]:
    """ "p1 F161" as (1, 161)."""
    found = re.fullmatch(r"\s*p(\d{1,4})\s+F(\d{1,4})\s*", word)
    if found is None:
        raise ValueError(f"{word!r} is not like p1 F161")
    return int(found[1]), int(found[2])
