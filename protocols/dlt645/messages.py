"""What frames say, for both roles: reading data (11H, 12H), reading the address (13H), refusals.

`LAYOUTS` declares the data field of each control code; `to_frame` and `from_frame` are hand-written
beside it and held equal to it by tests. A frame whose function is not here, or whose data does not fit its
function, becomes `Unknown`: nothing a peer sends makes `from_frame` raise. DI is eight lower-case hex
digits, high byte first ("00010000").
"""

from __future__ import annotations

from dataclasses import dataclass

import construct

from protocols.dlt645.frame import WILDCARD, Frame
from protocols.errors import LocalProtocolError

READ_DATA = 0x11
READ_FOLLOW_UP = 0x12
READ_ADDRESS = 0x13
_SECURITY = 0x03
_RELAY_CONTROL = 0x1C
_REPLY = 0x80
_MORE = 0x20
_ERROR = 0x40

# 2007 clause 7.1: L is at most 200 in a reply, counted with DI (and SEQ).
LONGEST_REPLY = 200
LAST_SEQUENCE = 255

# 2007 table of ERR bits (all refusals but those of 03H).
ERROR_BITS = (
    "other error",
    "no such data",
    "password wrong or not authorised",
    "speed cannot be changed",
    "too many seasons",
    "too many day periods",
    "too many tariffs",
    "reserved bit 7",
)
# SERR, two bytes, only on C3H.
SECURITY_ERROR_BITS = (
    "other error",
    "repeated recharge",
    "ESAM verification failed",
    "identity authentication failed or expired",
    "customer number mismatch",
    "recharge count wrong",
    "purchase exceeds hoarding limit",
    "address out of range",
    "meter suspended until midnight",
)
# The two-byte word of DCH, sent when the command asked for it (P2 = 01H).
CONTROL_ERROR_BITS = (
    "meter suspended until midnight",
    "MAC error",
    "password wrong or not authorised",
    "authentication timed out",
    "deadline invalid",
    "trip refused: keep-power is on",
    "auto-restore trip refused: keep-power is on",
    "restore time invalid",
    "auto-restore trip refused: already tripped",
)


_DI = construct.ExprAdapter(
    construct.Bytes(4),
    lambda raw, context: raw[::-1].hex(),
    lambda di, context: bytes.fromhex(di)[::-1],
)
_TOLD_ADDRESS = construct.ExprAdapter(
    construct.Bytes(6),
    lambda raw, context: raw[::-1].hex().upper(),
    lambda digits, context: bytes.fromhex(digits)[::-1],
)
_READ_REPLY = construct.Struct("di" / _DI, "data" / construct.GreedyBytes)
# Given `size`, how many bytes stand between DI and SEQ.
_FOLLOW_UP_REPLY = construct.Struct(
    "di" / _DI,
    "data" / construct.Bytes(construct.this._params.size),
    "sequence" / construct.Int8ub,
    construct.Terminated,
)
ERROR_LAYOUT = construct.Struct("error" / construct.Int8ul, construct.Terminated)
WIDE_ERROR_LAYOUT = construct.Struct("error" / construct.Int16ul, construct.Terminated)
LAYOUTS = {
    0x11: construct.Struct("di" / _DI, "extra" / construct.GreedyBytes),
    0x12: construct.Struct("di" / _DI, "sequence" / construct.Int8ub, construct.Terminated),
    0x13: construct.Struct(construct.Terminated),
    0x91: _READ_REPLY,
    0xB1: _READ_REPLY,
    0x92: _FOLLOW_UP_REPLY,
    0xB2: _FOLLOW_UP_REPLY,
    0x93: construct.Struct("address" / _TOLD_ADDRESS, construct.Terminated),
}


@dataclass(frozen=True, slots=True)
class ReadRequest:
    """11H. extra: what follows the DI in load-profile requests (N, or N and mm hh DD MM YY), wire order."""

    address: str
    di: str
    extra: bytes = b""


@dataclass(frozen=True, slots=True)
class FollowUpRequest:
    """12H. sequence: SEQ, 1 for the first follow-up frame."""

    address: str
    di: str
    sequence: int


@dataclass(frozen=True, slots=True)
class ReadAddressRequest:
    """13H; answered by the only meter on the line."""

    address: str = WILDCARD


@dataclass(frozen=True, slots=True)
class ReadReply:
    """91H, or B1H when `more`: data after the DI."""

    address: str
    di: str
    data: bytes
    more: bool = False


@dataclass(frozen=True, slots=True)
class FollowUpReply:
    """92H, or B2H when `more`: data between DI and SEQ."""

    address: str
    di: str
    data: bytes
    sequence: int
    more: bool = False


@dataclass(frozen=True, slots=True)
class ErrorReply:
    """A refusal. function: that of the request (11H …); error: ERR, or, `wide`, a two-byte word.

    C3H always carries two bytes (SERR), DCH where the command asked for them.
    """

    address: str
    function: int
    error: int
    wide: bool = False

    @property
    def reasons(self) -> tuple[str, ...]:
        """The named bits of `error`, lowest first."""
        names: tuple[str, ...] = ERROR_BITS
        if self.function == _SECURITY:
            names = SECURITY_ERROR_BITS
        elif self.function == _RELAY_CONTROL and self.wide:
            names = CONTROL_ERROR_BITS
        bits = [bit for bit in range(16) if self.error >> bit & 1]
        return tuple(names[bit] if bit < len(names) else f"reserved bit {bit}" for bit in bits)


@dataclass(frozen=True, slots=True)
class AddressReply:
    """93H. address: the one told in the data; sender: the frame's own, where it differs (else "")."""

    address: str
    sender: str = ""


@dataclass(frozen=True, slots=True)
class Unknown:
    """A good frame that none of the above describes; reason says why."""

    frame: Frame
    reason: str = ""


Request = ReadRequest | FollowUpRequest | ReadAddressRequest
Reply = ReadReply | FollowUpReply | ErrorReply | AddressReply
Message = Request | Reply | Unknown


def to_frame(message: Message) -> Frame:
    """The frame that says `message`. LocalProtocolError where a field cannot be sent."""
    match message:
        case ReadRequest(address, di, extra):
            return Frame(address, READ_DATA, di_bytes(di) + extra)
        case FollowUpRequest(address, di, sequence):
            return Frame(address, READ_FOLLOW_UP, di_bytes(di) + _sequence_byte(sequence))
        case ReadAddressRequest(address):
            return Frame(address, READ_ADDRESS)
        case ReadReply(address, di, data, more):
            return _reply(address, READ_DATA, di_bytes(di) + data, more)
        case FollowUpReply(address, di, data, sequence, more):
            return _reply(address, READ_FOLLOW_UP, di_bytes(di) + data + _sequence_byte(sequence), more)
        case ErrorReply(address, function, error, wide):
            if not 0 <= function <= 0x1F or not 0 <= error < (0x10000 if wide else 0x100):
                raise LocalProtocolError(f"function {function:02X}H, error {error}: cannot be sent")
            return Frame(address, _REPLY | _ERROR | function, error.to_bytes(2 if wide else 1, "little"))
        case AddressReply(address, sender):
            return Frame(sender or address, _REPLY | READ_ADDRESS, _address_bytes(address))
        case Unknown(frame):
            return frame


def from_frame(frame: Frame) -> Message:
    """What `frame` says; the role is told by D7 of C. Never raises."""
    data = frame.data
    if frame.from_meter:
        return _reply_from(frame)
    match frame.control:
        case 0x11 if len(data) >= 4:
            return ReadRequest(frame.address, di_text(data), data[4:])
        case 0x12 if len(data) == 5:
            return FollowUpRequest(frame.address, di_text(data), data[4])
        case 0x13 if not data:
            return ReadAddressRequest(frame.address)
        case 0x11 | 0x12 | 0x13:
            return Unknown(frame, f"{len(data)} data bytes do not fit {frame.control:02X}H")
    return Unknown(frame, f"function {frame.control:02X}H is not described here")


def di_text(data: bytes) -> str:
    """The DI at the start of a data field as eight hex digits, high byte first."""
    return data[3::-1].hex()


def di_bytes(di: str) -> bytes:
    """Eight hex digits to DI0..DI3. LocalProtocolError where `di` is anything else."""
    try:
        raw = bytes.fromhex(di)
    except ValueError:
        raw = b""
    if len(raw) != 4 or len(di) != 8:
        raise LocalProtocolError(f"DI {di!r} is not eight hex digits")
    return raw[::-1]


def _reply_from(frame: Frame) -> Message:
    data = frame.data
    control = frame.control
    match control:
        case 0x91 | 0xB1 if len(data) >= 4:
            return ReadReply(frame.address, di_text(data), data[4:], control == 0xB1)
        case 0x92 | 0xB2 if len(data) >= 5:
            return FollowUpReply(frame.address, di_text(data), data[4:-1], data[-1], control == 0xB2)
        case 0x93 if len(data) == 6:
            told = data[::-1].hex().upper()
            return AddressReply(told, "" if told == frame.address else frame.address)
        case 0x91 | 0xB1 | 0x92 | 0xB2 | 0x93:
            return Unknown(frame, f"{len(data)} data bytes do not fit {control:02X}H")
    if frame.is_error and not control & _MORE and 1 <= len(data) <= 2:
        return ErrorReply(frame.address, frame.function, int.from_bytes(data, "little"), len(data) == 2)
    return Unknown(frame, f"function {control:02X}H is not described here")


def _reply(address: str, function: int, data: bytes, more: bool) -> Frame:
    if len(data) > LONGEST_REPLY:
        raise LocalProtocolError(
            f"{len(data)} data bytes; a reply holds {LONGEST_REPLY}, DI and SEQ included"
        )
    return Frame(address, _REPLY | function | (_MORE if more else 0), data)


def _sequence_byte(sequence: int) -> bytes:
    if not 1 <= sequence <= LAST_SEQUENCE:
        raise LocalProtocolError(f"SEQ {sequence} is not 1..{LAST_SEQUENCE}")
    return bytes([sequence])


def _address_bytes(address: str) -> bytes:
    try:
        raw = bytes.fromhex(address)
    except ValueError:
        raw = b""
    if len(raw) != 6:
        raise LocalProtocolError(f"address {address!r} is not 12 digits")
    return raw[::-1]
