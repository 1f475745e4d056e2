"""The bytes of commands.py, both ways.

Requests of these functions change a meter, so `to_frame` wants a `Permit` for "645 14" and the like on the
address that the frame goes to. Answers of meters need none. `SHAPES` declares the data field of every
control code once, for reading and for building.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import construct

from protocols import wire
from protocols.dlt645.commands import (
    BroadcastTime,
    ChangePassword,
    ChangeSpeed,
    ClearDemand,
    ClearDemand1997,
    ClearEvents,
    ClearMeter,
    Command,
    Confirmation,
    Done,
    Freeze,
    OutputReply,
    PasswordReply,
    SelectOutput,
    SpeedReply,
    WriteAddress,
    WriteRequest,
    edition_of,
)
from protocols.dlt645.fields import (
    ADDRESS,
    AUTHORITY,
    DI_1997,
    DI_2007,
    EDITION_1997,
    EDITION_2007,
    MOMENT,
    PASSWORD,
    Authority,
    demand_single,
    di_bytes,
)
from protocols.dlt645.frame import Frame
from protocols.errors import LocalProtocolError, RemoteProtocolError
from protocols.permit import Permit, demand

# L of a write is at most 50 in the base text, 200 in the filings that came after it.
LONGEST_WRITE = 200
_REPLY = 0x80


def _every(raw: int) -> int | None:
    digits = f"{raw:02x}"
    if not digits.isdecimal():
        raise ValueError(f"not BCD: {digits}")
    return None if digits == "99" else int(digits)


# Two digits, 99 for every.
_PATTERN = construct.ExprAdapter(
    construct.Int8ub,
    lambda raw, context: _every(raw),
    lambda part, context: 0x99 if part is None else int(str(part), 16),
)
_REST = construct.GreedyBytes
_END = construct.Terminated
_CLEAR = construct.Struct("authority" / AUTHORITY, "sealed" / _REST)
_SPEED = construct.Struct("word" / construct.Int8ub, _END)
_OUTPUT = construct.Struct("output" / construct.Int8ub, _END)
_TIME = construct.Struct("at" / MOMENT, _END)
_NEW_ADDRESS = construct.Struct("new_address" / ADDRESS, _END)
_NOTHING = construct.Struct(_END)

_Shape = tuple[type[Command] | type[Confirmation], Any]

SHAPES: dict[str, dict[int, _Shape]] = {
    EDITION_2007: {
        0x08: (BroadcastTime, _TIME),
        0x14: (WriteRequest, construct.Struct("di" / DI_2007, "authority" / AUTHORITY, "data" / _REST)),
        0x15: (WriteAddress, _NEW_ADDRESS),
        0x16: (
            Freeze,
            construct.Struct(
                "minute" / _PATTERN, "hour" / _PATTERN, "day" / _PATTERN, "month" / _PATTERN, _END
            ),
        ),
        0x17: (ChangeSpeed, _SPEED),
        0x18: (
            ChangePassword,
            construct.Struct("di" / DI_2007, "old" / PASSWORD, "new" / PASSWORD, _END),
        ),
        0x19: (ClearDemand, _CLEAR),
        0x1A: (ClearMeter, _CLEAR),
        0x1B: (ClearEvents, construct.Struct("authority" / AUTHORITY, "di" / DI_2007, _END)),
        0x1D: (SelectOutput, _OUTPUT),
        0x94: (Done, _NOTHING),
        0x95: (Done, _NOTHING),
        0x96: (Done, _NOTHING),
        0x97: (SpeedReply, _SPEED),
        0x98: (PasswordReply, construct.Struct("new" / PASSWORD, _END)),
        0x99: (Done, _NOTHING),
        0x9A: (Done, _NOTHING),
        0x9B: (Done, _NOTHING),
        0x9D: (OutputReply, _OUTPUT),
    },
    EDITION_1997: {
        0x04: (WriteRequest, construct.Struct("di" / DI_1997, "authority" / PASSWORD, "data" / _REST)),
        0x08: (BroadcastTime, _TIME),
        0x0A: (WriteAddress, _NEW_ADDRESS),
        0x0C: (ChangeSpeed, _SPEED),
        0x0F: (ChangePassword, construct.Struct("old" / PASSWORD, "new" / PASSWORD, _END)),
        0x10: (ClearDemand1997, construct.Struct("authorisation" / _REST)),
        0x84: (Done, _NOTHING),
        0x8A: (Done, _NOTHING),
        0x8C: (Done, construct.Struct("data" / _REST)),
        0x8F: (Done, construct.Struct("data" / _REST)),
        0x90: (Done, _NOTHING),
    },
}
# 1BH at level 98: the DI travels inside the cipher.
_CLEAR_EVENTS_SEALED = _CLEAR
_REQUEST_CODES = {
    (edition, kind): control
    for edition, shapes in SHAPES.items()
    for control, (kind, _) in shapes.items()
    if not control & _REPLY
}
_REPLY_CODES: dict[type[Confirmation], int] = {SpeedReply: 0x97, PasswordReply: 0x98, OutputReply: 0x9D}


def read(frame: Frame, edition: str) -> Command | Confirmation | None:
    """What the frame says; None where its function is not described here.

    RemoteProtocolError where its data does not fit its function.
    """
    shape = SHAPES[edition].get(frame.control)
    if shape is None:
        return None
    kind, layout = shape
    if frame.control == 0x1B and edition == EDITION_2007 and frame.data[:1] == b"\x98":
        layout = _CLEAR_EVENTS_SEALED
    found = wire.parse(layout, frame.data, f"{frame.control:02X}H")
    told = {name: value for name, value in found.items() if name != "_io"}
    if kind is Done:
        told["function"] = frame.function
    if kind is ClearEvents:
        told.setdefault("di", "")
    if kind is ChangePassword:
        told.setdefault("di", "")
    if "edition" in kind.__dataclass_fields__:
        told["edition"] = edition
    try:
        return kind(address=frame.address, **told)
    except LocalProtocolError as error:
        raise RemoteProtocolError(frame.data, 0, f"{frame.control:02X}H: {error}") from error


def control_code(message: Command | Confirmation) -> int:
    """C of the frame that says `message`. LocalProtocolError where no edition has it."""
    if isinstance(message, Done):
        code = _REPLY | message.function
        if SHAPES[message.edition].get(code, (None,))[0] is not Done:
            raise LocalProtocolError(f"{code:02X}H is no plain confirmation")
        return code
    if isinstance(message, Confirmation):
        return _REPLY_CODES[type(message)]
    return _REQUEST_CODES[edition_of(message), type(message)]


def to_frame(message: Command | Confirmation, permit: Permit | None = None) -> Frame:
    """The frame that says `message`.

    LocalProtocolError where a field cannot be sent, the address may not be meant by the function, or, for
    a request, `permit` is not for exactly this function and address.
    """
    control = control_code(message)
    if not isinstance(message, Confirmation):
        _check_command(message, control)
        demand(permit, f"645 {control:02x}", message.address)
    layout = SHAPES[edition_of(message)][control][1]
    if isinstance(message, ClearEvents) and message.sealed:
        layout = _CLEAR_EVENTS_SEALED
    told = {field.name: getattr(message, field.name) for field in fields(message)}
    data = wire.build(layout, told, f"{control:02X}H")
    if isinstance(message, Done) and data != message.data:
        raise LocalProtocolError(f"{control:02X}H carries no data")
    if len(data) > LONGEST_WRITE:
        raise LocalProtocolError(f"{len(data)} data bytes; a write holds {LONGEST_WRITE}")
    return Frame(message.address, control, data)


def _check_command(message: Command, control: int) -> None:
    demand_single(
        message.address,
        f"{control:02X}H",
        broadcast=isinstance(message, BroadcastTime | Freeze | SelectOutput),
        wildcard=isinstance(message, WriteAddress),
    )
    match message:
        case WriteRequest(authority=authority):
            authority.check()
        case ChangePassword(old=old, new=new):
            old.check()
            new.check()
        case WriteAddress(new_address=new_address):
            demand_single(new_address, "the new address")
        case ClearDemand(authority=authority, sealed=sealed) | ClearMeter(authority=authority, sealed=sealed):
            _check_sealed(authority, sealed)
        case ClearEvents(authority=authority, sealed=sealed, di=di):
            _check_sealed(authority, sealed)
            if bool(sealed) == bool(di):
                raise LocalProtocolError("a clear of events names its DI in plain or in the cipher, not both")
            if di:
                di_bytes(di)


def _check_sealed(authority: Authority, sealed: bytes) -> None:
    authority.check()
    if (authority.level == "98") != bool(sealed):
        raise LocalProtocolError(f"level {authority.level} and {len(sealed)} sealed bytes do not go together")
