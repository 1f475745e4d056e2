"""What frames say, both roles and editions: reading (11H-13H; 01H-03H in 1997) and refusals are told here,
all other functions in commands.py and control_messages.py; `from_frame` and `to_frame` are the door to all.

`LAYOUTS` declares the data fields of reading; `to_frame` and `from_frame` are hand-written beside it, for
speed, and held equal to it by tests. A frame whose function is not described, or whose data does not fit it,
becomes `Unknown`: nothing a peer sends makes `from_frame` raise. DI is lower-case hex, high byte first, and
tells the edition: eight digits ("00010000") 2007, four ("9010") 1997.
"""

from __future__ import annotations

from dataclasses import dataclass

import construct

from protocols.dlt645 import command_layouts, control_messages, flags
from protocols.dlt645.commands import Command, Confirmation
from protocols.dlt645.control_messages import RELAY_CONTROL, SECURITY, ControlReply, ControlRequest
from protocols.dlt645.fields import (
    ADDRESS,
    DI_1997,
    DI_2007,
    EDITION_1997,
    EDITION_2007,
    address_bytes,
    di_bytes,
    di_text,
    edition_of_di,
)
from protocols.dlt645.frame import WILDCARD, Frame
from protocols.errors import LocalProtocolError, RemoteProtocolError
from protocols.permit import Permit

READ_DATA = 0x11
READ_FOLLOW_UP = 0x12
READ_ADDRESS = 0x13
READ_DATA_1997 = 0x01
READ_FOLLOW_UP_1997 = 0x02
READ_AGAIN_1997 = 0x03
_REPLY = 0x80
_MORE = 0x20
_ERROR = 0x40

# 2007 clause 7.1: L is at most 200 in a reply, counted with DI (and SEQ).
LONGEST_REPLY = 200
LAST_SEQUENCE = 255

_READ_REPLY = construct.Struct("di" / DI_2007, "data" / construct.GreedyBytes)
# Given `size`, how many bytes stand between DI and SEQ.
_FOLLOW_UP_REPLY = construct.Struct(
    "di" / DI_2007,
    "data" / construct.Bytes(construct.this._params.size),
    "sequence" / construct.Int8ub,
    construct.Terminated,
)
_REPLY_1997 = construct.Struct("di" / DI_1997, "data" / construct.GreedyBytes)
_NOTHING = construct.Struct(construct.Terminated)
ERROR_LAYOUT = construct.Struct("error" / construct.Int8ul, construct.Terminated)
WIDE_ERROR_LAYOUT = construct.Struct("error" / construct.Int16ul, construct.Terminated)
LAYOUTS = {
    EDITION_2007: {
        0x11: construct.Struct("di" / DI_2007, "extra" / construct.GreedyBytes),
        0x12: construct.Struct("di" / DI_2007, "sequence" / construct.Int8ub, construct.Terminated),
        0x13: _NOTHING,
        0x91: _READ_REPLY,
        0xB1: _READ_REPLY,
        0x92: _FOLLOW_UP_REPLY,
        0xB2: _FOLLOW_UP_REPLY,
        0x93: construct.Struct("address" / ADDRESS, construct.Terminated),
    },
    EDITION_1997: {
        0x01: construct.Struct("di" / DI_1997, "extra" / construct.GreedyBytes),
        0x02: construct.Struct("di" / DI_1997, construct.Terminated),
        0x03: _NOTHING,
        0x81: _REPLY_1997,
        0xA1: _REPLY_1997,
        0x82: _REPLY_1997,
        0xA2: _REPLY_1997,
        0x83: _REPLY_1997,
        0xA3: _REPLY_1997,
    },
}


@dataclass(frozen=True, slots=True)
class ReadRequest:
    """11H; 01H where `di` has four digits. extra: what follows the DI in load-profile requests (N, or N and
    mm hh DD MM YY), wire order."""

    address: str
    di: str
    extra: bytes = b""


@dataclass(frozen=True, slots=True)
class FollowUpRequest:
    """12H; 02H in 1997. sequence: SEQ, 1 for the first follow-up frame; 0 in 1997, which counts none."""

    address: str
    di: str
    sequence: int


@dataclass(frozen=True, slots=True)
class ReadAddressRequest:
    """13H; answered by the only meter on the line."""

    address: str = WILDCARD


@dataclass(frozen=True, slots=True)
class ReadReply:
    """91H, or B1H when `more`: data after the DI. 81H, A1H in 1997."""

    address: str
    di: str
    data: bytes
    more: bool = False


@dataclass(frozen=True, slots=True)
class FollowUpReply:
    """92H, or B2H when `more`: data between DI and SEQ. 82H, A2H in 1997, where sequence is 0."""

    address: str
    di: str
    data: bytes
    sequence: int
    more: bool = False


@dataclass(frozen=True, slots=True)
class ReadAgainRequest:
    """03H of 1997 (single source): say the last answer again. In 2007 03H is security."""

    address: str


@dataclass(frozen=True, slots=True)
class ReadAgainReply:
    """83H, or A3H when `more`, of 1997: the last answer's DI and data."""

    address: str
    di: str
    data: bytes
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
    edition: str = EDITION_2007

    @property
    def reasons(self) -> tuple[str, ...]:
        """The named bits of `error`, lowest first."""
        word = flags.ERROR if self.edition == EDITION_2007 else flags.ERROR_1997
        if self.edition == EDITION_2007 and self.function == SECURITY:
            word = flags.SECURITY_ERROR
        elif self.edition == EDITION_2007 and self.function == RELAY_CONTROL and self.wide:
            word = flags.CONTROL_ERROR
        return flags.names(word, self.error)


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


Reading = ReadRequest | FollowUpRequest | ReadAddressRequest | ReadAgainRequest
Request = Reading | Command | ControlRequest
Reply = ReadReply | FollowUpReply | ErrorReply | AddressReply | ReadAgainReply | Confirmation | ControlReply
Message = Request | Reply | Unknown


def to_frame(message: Message, permit: Permit | None = None) -> Frame:
    """The frame that says `message`. permit: needed by every request of commands.py.

    LocalProtocolError where a field cannot be sent or the permit does not fit; for requests of 1CH and 03H,
    which control.py builds; and for an `Unknown` request: what it orders nobody can say.
    """
    match message:
        case ReadRequest(address, di, extra):
            return Frame(address, _code(READ_DATA, READ_DATA_1997, di), di_bytes(di) + extra)
        case FollowUpRequest(address, di, sequence):
            tail = _sequence_bytes(di, sequence)
            return Frame(address, _code(READ_FOLLOW_UP, READ_FOLLOW_UP_1997, di), di_bytes(di) + tail)
        case ReadAddressRequest(address):
            return Frame(address, READ_ADDRESS)
        case ReadAgainRequest(address):
            return Frame(address, READ_AGAIN_1997)
        case ReadReply(address, di, data, more):
            return _reply(address, _code(READ_DATA, READ_DATA_1997, di), di_bytes(di) + data, more)
        case FollowUpReply(address, di, data, sequence, more):
            data += _sequence_bytes(di, sequence)
            return _reply(address, _code(READ_FOLLOW_UP, READ_FOLLOW_UP_1997, di), di_bytes(di) + data, more)
        case ReadAgainReply(address, di, data, more):
            if edition_of_di(di) != EDITION_1997:
                raise LocalProtocolError(f"DI {di!r} is not of 1997: 83H is security there")
            return _reply(address, READ_AGAIN_1997, di_bytes(di) + data, more)
        case ErrorReply(address, function, error, wide):
            if not 0 <= function <= 0x1F or not 0 <= error < (0x10000 if wide else 0x100):
                raise LocalProtocolError(f"function {function:02X}H, error {error}: cannot be sent")
            return Frame(address, _REPLY | _ERROR | function, error.to_bytes(2 if wide else 1, "little"))
        case AddressReply(address, sender):
            return Frame(sender or address, _REPLY | READ_ADDRESS, address_bytes(address))
        case Unknown(frame):
            if not frame.from_meter:
                raise LocalProtocolError(f"a request that is not understood is not sent: {message.reason}")
            return frame
    if isinstance(message, ControlRequest):
        raise LocalProtocolError(f"{type(message).__name__} is built by protocols.dlt645.control only")
    if isinstance(message, ControlReply):
        return control_messages.to_frame(message)
    return command_layouts.to_frame(message, permit)


def from_frame(frame: Frame, edition: str = EDITION_2007) -> Message:
    """What `frame` says in that edition; the role is told by D7 of C. Never raises."""
    if edition == EDITION_1997:
        reading = _reading_1997(frame)
    else:
        reading = _reply_from(frame) if frame.from_meter else _request_from(frame)
    if reading is not None:
        return reading
    if frame.is_error:
        return _refusal_from(frame, edition)
    try:
        message: Message | None = command_layouts.read(frame, edition)
        if message is None and edition == EDITION_2007:
            message = control_messages.read(frame)
    except RemoteProtocolError as error:
        return Unknown(frame, error.reason)
    return message or Unknown(frame, f"function {frame.control:02X}H is not described here")


def _request_from(frame: Frame) -> Reading | Unknown | None:
    data = frame.data
    match frame.control:
        case 0x11 if len(data) >= 4:
            return ReadRequest(frame.address, di_text(data), data[4:])
        case 0x12 if len(data) == 5:
            return FollowUpRequest(frame.address, di_text(data), data[4])
        case 0x13 if not data:
            return ReadAddressRequest(frame.address)
        case 0x11 | 0x12 | 0x13:
            return _unfit(frame)
    return None


def _reply_from(frame: Frame) -> Reply | Unknown | None:
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
            return _unfit(frame)
    return None


def _reading_1997(frame: Frame) -> Reading | Reply | Unknown | None:
    data = frame.data
    control = frame.control
    di = data[1::-1].hex()
    more = frame.more_follows
    match control:
        case 0x01 if len(data) >= 2:
            return ReadRequest(frame.address, di, data[2:])
        case 0x02 if len(data) == 2:
            return FollowUpRequest(frame.address, di, 0)
        case 0x03 if not data:
            return ReadAgainRequest(frame.address)
        case 0x81 | 0xA1 if len(data) >= 2:
            return ReadReply(frame.address, di, data[2:], more)
        case 0x82 | 0xA2 if len(data) >= 2:
            return FollowUpReply(frame.address, di, data[2:], 0, more)
        case 0x83 | 0xA3 if len(data) >= 2:
            return ReadAgainReply(frame.address, di, data[2:], more)
        case 0x01 | 0x02 | 0x03 | 0x81 | 0xA1 | 0x82 | 0xA2 | 0x83 | 0xA3:
            return _unfit(frame)
    return None


def _refusal_from(frame: Frame, edition: str) -> ErrorReply | Unknown:
    size = len(frame.data)
    if frame.control & _MORE or not 1 <= size <= (2 if edition == EDITION_2007 else 1):
        return _unfit(frame)
    word = int.from_bytes(frame.data, "little")
    return ErrorReply(frame.address, frame.function, word, size == 2, edition)


def _unfit(frame: Frame) -> Unknown:
    return Unknown(frame, f"{len(frame.data)} data bytes do not fit {frame.control:02X}H")


def _code(function: int, function_1997: int, di: str) -> int:
    return function if edition_of_di(di) == EDITION_2007 else function_1997


def _reply(address: str, function: int, data: bytes, more: bool) -> Frame:
    if len(data) > LONGEST_REPLY:
        raise LocalProtocolError(
            f"{len(data)} data bytes; a reply holds {LONGEST_REPLY}, DI and SEQ included"
        )
    return Frame(address, _REPLY | function | (_MORE if more else 0), data)


def _sequence_bytes(di: str, sequence: int) -> bytes:
    lowest, highest = (1, LAST_SEQUENCE) if edition_of_di(di) == EDITION_2007 else (0, 0)
    if not lowest <= sequence <= highest:
        raise LocalProtocolError(f"SEQ {sequence} is not {lowest}..{highest}")
    return bytes([sequence]) if highest else b""
