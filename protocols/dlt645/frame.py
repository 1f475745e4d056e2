"""One DL/T 645 frame: 68H, address, 68H, C, L, masked data, CS, 16H (2007 clause 5; the same in 1997).

`FRAME` is the declared layout. `parse` and `build` are its hand-written twins for speed; tests hold the
pairs equal on field, generated and damaged frames. The +33H mask covers the data only; `Frame.data` is
always without it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import construct

from protocols import wire
from protocols.errors import LocalProtocolError

START = 0x68
END = 0x16
LEAD_IN = 0xFE

# 68 A0..A5 68 C L, then CS 16: what surrounds the data.
HEAD_LENGTH = 10
OVERHEAD = 12
# L is one byte. The standard sends at most 200, but receivers take what L can say.
LONGEST_DATA = 255
LONGEST_FRAME = OVERHEAD + LONGEST_DATA

WILDCARD = "AAAAAAAAAAAA"
BROADCAST = "999999999999"

_HEX = frozenset("0123456789ABCDEF")
_MASK = bytes((byte + 0x33) & 0xFF for byte in range(256))
_UNMASK = bytes((byte - 0x33) & 0xFF for byte in range(256))


@dataclass(frozen=True, slots=True)
class Frame:
    """A frame's content.

    address: 12 hex digits as printed on the meter, high digit first, upper case; "A" stands for "any" in
    a request. control: the C byte. data: the data field without its mask, low byte first as on the wire.
    """

    address: str
    control: int
    data: bytes = b""

    @property
    def function(self) -> int:
        """D4..D0 of C."""
        return self.control & 0x1F

    @property
    def from_meter(self) -> bool:
        """D7 of C: sent by a meter."""
        return self.control & 0x80 != 0

    @property
    def is_error(self) -> bool:
        """D6 of C: a meter's refusal."""
        return self.control & 0xC0 == 0xC0

    @property
    def more_follows(self) -> bool:
        """D5 of C: the meter has more data for this item."""
        return self.control & 0xA0 == 0xA0


# Six bytes, low byte first, as twelve digits, high digit first.
_ADDRESS = construct.ExprAdapter(
    construct.Bytes(6),
    lambda raw, context: raw[::-1].hex().upper(),
    lambda digits, context: bytes.fromhex(digits)[::-1],
)


def _masked(length: Any) -> Any:
    """Data bytes travel with 33H added, modulo 256."""
    return construct.ExprAdapter(
        construct.Bytes(length),
        lambda raw, context: bytes(raw).translate(_UNMASK),
        lambda data, context: bytes(data).translate(_MASK),
    )


FRAME = construct.Struct(
    "summed"
    / construct.RawCopy(
        construct.Struct(
            "start" / construct.Const(bytes([START])),
            "address" / _ADDRESS,
            "second_start" / construct.Const(bytes([START])),
            "control" / construct.Int8ub,
            "length" / construct.Rebuild(construct.Int8ub, construct.len_(construct.this.data)),
            "data" / _masked(construct.this.length),
        )
    ),
    "checksum" / construct.Checksum(construct.Int8ub, wire.checksum, construct.this.summed.data),
    "end" / construct.Const(bytes([END])),
    construct.Terminated,
)


def examine(buffer: bytes | bytearray, start: int) -> int | str | None:
    """Look for a whole frame at `start`: its length; None if more bytes are needed; else why there is none.

    Costs a bounded number of steps whatever the bytes are: the sum is taken only when both 68H and 16H
    stand where they must.
    """
    size = len(buffer)
    if start >= size:
        return None
    if buffer[start] != START:
        return "no 68H at the start"
    if size - start < HEAD_LENGTH - 2:
        return None
    if buffer[start + 7] != START:
        return "no second 68H"
    if size - start < HEAD_LENGTH:
        return None
    end = start + OVERHEAD + buffer[start + 9]
    if size < end:
        return None
    if buffer[end - 1] != END:
        return "no 16H at the end"
    if sum(buffer[start : end - 2]) & 0xFF != buffer[end - 2]:
        return "wrong checksum"
    return end - start


def parse(raw: bytes) -> Frame:
    """One whole frame without lead-in. RemoteProtocolError where it is anything else."""
    wire.require_whole(raw, examine(raw, 0))
    return content(raw)


def content(raw: bytes) -> Frame:
    """The content of bytes that `examine` has found to be one whole good frame."""
    return Frame(raw[6:0:-1].hex().upper(), raw[8], raw[10:-2].translate(_UNMASK))


def build(frame: Frame, lead_in: int = 0) -> bytes:
    """The frame's bytes, with `lead_in` FEH before it. LocalProtocolError where it cannot be written."""
    _check(frame)
    summed = b"\x68%b\x68%c%c%b" % (
        bytes.fromhex(frame.address)[::-1],
        frame.control,
        len(frame.data),
        frame.data.translate(_MASK),
    )
    return b"\xfe" * lead_in + b"%b%c\x16" % (summed, sum(summed) & 0xFF)


def parse_by_layout(raw: bytes) -> Frame:
    """`parse` by the declared layout."""
    found = wire.parse(FRAME, raw, "DL/T 645 frame").summed.value
    return Frame(str(found.address), int(found.control), bytes(found.data))


def build_by_layout(frame: Frame) -> bytes:
    """`build` by the declared layout, without lead-in."""
    _check(frame)
    fields = {"address": frame.address, "control": frame.control, "data": frame.data}
    return wire.build(FRAME, {"summed": {"value": fields}}, "DL/T 645 frame")


def matches(asked: str, actual: str) -> bool:
    """Whether a meter of address `actual` is meant by `asked`, whose "A" digits stand for any digit."""
    return asked == actual or (
        len(asked) == len(actual)
        and all(want in ("A", have) for want, have in zip(asked, actual, strict=True))
    )


def _check(frame: Frame) -> None:
    if len(frame.address) != 12 or not _HEX.issuperset(frame.address):
        raise LocalProtocolError(f"address {frame.address!r} is not 12 digits (upper-case A for a wildcard)")
    if not 0 <= frame.control <= 0xFF:
        raise LocalProtocolError(f"control code {frame.control} is not a byte")
    if len(frame.data) > LONGEST_DATA:
        raise LocalProtocolError(f"{len(frame.data)} data bytes; a frame holds {LONGEST_DATA}")
