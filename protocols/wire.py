"""What both protocol families share: checksum, BCD, and one door to construct that speaks our errors."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

import construct

from protocols.errors import LocalProtocolError, RemoteProtocolError


@dataclass(frozen=True, slots=True)
class Damaged:
    """Event of a stream or connection: bytes that are no frame.

    raw: the bytes given up (bounded by the stream); offset: place of raw[0] in the whole stream since it
    began; reason: what is wrong with them.
    """

    raw: bytes
    offset: int
    reason: str


def checksum(data: bytes | bytearray | memoryview) -> int:
    """Sum of all bytes modulo 256 (DL/T 645 CS; Q/GDW 376.1 CS)."""
    return sum(data) & 0xFF


def require_whole(raw: bytes, examined: int | str | None) -> None:
    """RemoteProtocolError unless `examined`, what a family's `examine` says of the start of `raw` (a length,
    why there is no frame, or None for too few bytes), is all of it."""
    if isinstance(examined, int) and examined != len(raw):
        raise RemoteProtocolError(raw, examined, "bytes after the frame")
    if not isinstance(examined, int):
        raise RemoteProtocolError(raw, 0, examined or "frame cut short")


def bcd_to_int(raw: bytes) -> int:
    """Packed BCD, low byte first, to its digits as an integer. ValueError where a nibble is above 9."""
    digits = raw[::-1].hex()
    if not digits.isdecimal():
        raise ValueError(f"not BCD: {raw.hex(' ')}")
    return int(digits)


def int_to_bcd(value: int, length: int) -> bytes:
    """Integer to packed BCD of `length` bytes, low byte first. ValueError where it does not fit."""
    digits = f"{value:0{2 * length}d}"
    if value < 0 or len(digits) > 2 * length:
        raise ValueError(f"{value} does not fit {2 * length} digits")
    return bytes.fromhex(digits)[::-1]


def parse(layout: construct.Construct[Any, Any], raw: bytes, what: str) -> Any:
    """Read `raw` by a construct layout; every construct failure becomes RemoteProtocolError."""
    try:
        return layout._parsereport(io.BytesIO(raw), _context(parsing=True), "(parsing)")
    except construct.StreamError as error:
        reason = str(error).splitlines()[-1]
        raise RemoteProtocolError(raw, len(raw), f"{what}: too short ({reason})") from error
    except (construct.ConstructError, ValueError) as error:
        raise RemoteProtocolError(raw, 0, f"{what}: {str(error).splitlines()[-1]}") from error


def build(layout: construct.Construct[Any, Any], value: Any, what: str) -> bytes:
    """Write `value` by a construct layout; every construct failure becomes LocalProtocolError."""
    stream = io.BytesIO()
    try:
        built = layout._build(value, stream, _context(parsing=False), "(building)")
    except (construct.ConstructError, ValueError, KeyError, TypeError) as error:
        raise LocalProtocolError(f"{what}: {str(error).splitlines()[-1]}") from error
    if isinstance(built, construct.Container):
        built.clear()  # its parts refer back to it
    return stream.getvalue()


def _context(*, parsing: bool) -> Any:
    """What construct's own `parse` and `build` begin with, but that theirs refers to itself: then every frame
    leaves a heap of garbage behind that only the collector finds, in pauses of tenths of a second."""
    return construct.Container(
        _params=_NO_PARAMETERS, _root=None, _parsing=parsing, _building=not parsing, _sizing=False
    )


_NO_PARAMETERS = construct.Container()
