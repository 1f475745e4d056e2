"""One frame told to a person: every field that its function defines, as JSON-ready keys.

For viewing only, in both editions; it tells more than messages.py takes, short and odd forms too. Codes are
lower-case hex, high byte first; lengths are integers; values are decimal strings. What
does not fit is told as `value_error` beside the raw `data`; nothing raises.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from protocols.dlt645 import commands, flags, items, messages
from protocols.dlt645.control_messages import (
    OPAQUE,
    REPLY_FIELDS,
    REQUEST_FIELDS,
    FieldList,
    cut,
)
from protocols.dlt645.fields import di_text
from protocols.dlt645.formats import Moment
from protocols.dlt645.frame import Frame
from protocols.errors import RemoteProtocolError

# D4..D0 that only 1997 has; 03 and 08 stand in both and are read as 2007.
FUNCTIONS_1997 = frozenset((0x01, 0x02, 0x04, 0x05, 0x06, 0x0A, 0x0C, 0x0F, 0x10))

FUNCTION_NAMES = {
    "2007": {
        0x03: "security authentication",
        0x08: "broadcast time",
        0x11: "read data",
        0x12: "read follow-up",
        0x13: "read address",
        0x14: "write data",
        0x15: "write address",
        0x16: "freeze",
        0x17: "change speed",
        0x18: "change password",
        0x19: "clear demand",
        0x1A: "clear meter",
        0x1B: "clear events",
        0x1C: "relay control",
        0x1D: "multi-function output",
    },
    "1997": {
        0x01: "read data",
        0x02: "read follow-up",
        0x04: "write data",
        0x0A: "write address",
        0x0C: "change speed",
        0x0F: "change password",
        0x10: "clear demand",
    },
}
RELAY_COMMANDS = {
    0x1A: "trip",
    0x1B: "close permitted",
    0x1C: "direct close",
    0x1D: "trip, then close by itself",
    0x1E: "trip, then permit closing",
    0x2A: "alarm on",
    0x2B: "alarm off",
    0x3A: "keep-power on",
    0x3B: "keep-power off",
}
# Status word 3 and its relay bit: 0 closed, 1 open.
_RELAY_STATE = "04000503"
_RELAY_BIT = 4
_CIPHER_LENGTH = 20

Fields = dict[str, Any]


def edition_of(frame: Frame) -> str:
    """ "1997" or "2007", told by the function code."""
    return "1997" if frame.function in FUNCTIONS_1997 else "2007"


def describe(frame: Frame) -> Fields:
    """The fields of a frame, without its place in what was received. Never raises."""
    edition = edition_of(frame)
    fields: Fields = {
        "protocol": f"dlt645-{edition}",
        "address": frame.address.lower(),
        "control": f"{frame.control:02x}",
        "length": len(frame.data),
    }
    if frame.function in FUNCTION_NAMES[edition]:
        fields["function"] = FUNCTION_NAMES[edition][frame.function]
    if frame.is_error and frame.data:
        _error(fields, frame, edition)
    else:
        reader = _READERS[edition].get(frame.control, _raw)
        reader(fields, frame.data)
    return fields


def _error(fields: Fields, frame: Frame, edition: str) -> None:
    fields["error"] = frame.data[::-1].hex()
    message = messages.from_frame(frame)
    if edition == "1997":
        fields["reasons"] = list(flags.names(flags.ERROR_1997, frame.data[0]))
    elif isinstance(message, messages.ErrorReply):
        fields["reasons"] = list(message.reasons)


def _raw(fields: Fields, data: bytes) -> None:
    if data:
        fields["data"] = data.hex()


def _item(fields: Fields, di: str, edition: str) -> None:
    fields["di"] = di
    item = items.lookup(di, edition)
    if item is not None:
        fields["name"], fields["name_zh"] = item.name_en, item.name_zh


def _values(fields: Fields, di: str, data: bytes, edition: str) -> None:
    """`value` and `unit` of one value, `values`, `unit` or `units_of_values`, `names` of several."""
    fields["data"] = data.hex()
    try:
        values = items.decode(di, data, edition)
    except RemoteProtocolError as error:
        fields["value_error"] = error.reason.removeprefix(f"{di} {fields.get('name')}: ")
        fields["raw_digits"] = data[::-1].hex()
        return
    units = {value.unit for value in values}
    if len(values) == 1:
        fields["value"] = values[0].value
    elif values:
        fields["values"] = [value.value for value in values]
        fields["names"] = [value.name_en for value in values]
    if units - {""}:
        fields["unit"] = values[0].unit if len(units) == 1 else [value.unit for value in values]
    _special(fields, di, data, edition)


def _special(fields: Fields, di: str, data: bytes, edition: str) -> None:
    """Keys of their own for what people ask after first."""
    item = items.lookup(di, edition)
    if item is None:
        return
    if item.format == "ASCII":
        fields["text"] = fields["value"]
    elif item.format == "YYMMDDWW":
        fields["date_yymmddww"] = data[::-1].hex()
    elif di in ("c032", "04000402"):
        fields["meter_no"] = data[::-1].hex()
    elif di == _RELAY_STATE:
        fields["relay"] = "open" if data[0] >> _RELAY_BIT & 1 else "closed"


def _read_request(fields: Fields, data: bytes) -> None:
    if len(data) < 4:
        return _raw(fields, data)
    _item(fields, di_text(data), "2007")
    _raw(fields, data[4:])


def _follow_up_request(fields: Fields, data: bytes) -> None:
    _read_request(fields, data)
    if len(data) == 5:
        fields["follow_seq"] = data[4]


def _read_reply(fields: Fields, data: bytes) -> None:
    if len(data) < 4:
        return _raw(fields, data)
    di = di_text(data)
    _item(fields, di, "2007")
    _values(fields, di, data[4:], "2007")


def _follow_up_reply(fields: Fields, data: bytes) -> None:
    if len(data) < 5:
        return _raw(fields, data)
    _read_request(fields, data[:-1])
    fields["follow_seq"] = data[-1]


def _meter_address(fields: Fields, data: bytes) -> None:
    if len(data) != 6:
        return _raw(fields, data)
    fields["meter_address"] = data[::-1].hex()


def _time(fields: Fields, data: bytes) -> None:
    _raw(fields, data)
    digits = data[::-1].hex()
    if len(data) != 6 or not digits.isdecimal():
        return
    # The digits are shown even where they are no time: that is what was sent.
    year, month, day, hour, minute, second = (digits[at : at + 2] for at in range(0, 12, 2))
    fields["time"] = f"20{year}-{month}-{day} {hour}:{minute}:{second}"
    try:
        Moment("YYMMDDhhmmss").read(data)
    except ValueError as error:
        fields["value_error"] = str(error)


def _authorised(fields: Fields, data: bytes) -> bytes:
    """PA P0 P1 P2 C0..C3 at the start of `data`; gives what follows. Short data is told raw."""
    if len(data) < 8:
        _raw(fields, data)
        return b""
    fields["pa"] = f"{data[0]:02x}"
    fields["password"] = data[3:0:-1].hex()
    fields["operator"] = data[7:3:-1].hex()
    return data[8:]


def _write(fields: Fields, data: bytes) -> None:
    if len(data) < 4:
        return _raw(fields, data)
    _item(fields, di_text(data), "2007")
    rest = _authorised(fields, data[4:])
    _raw(fields, rest)


def _clear(fields: Fields, data: bytes) -> None:
    _raw(fields, _authorised(fields, data))


def _clear_events(fields: Fields, data: bytes) -> None:
    rest = _authorised(fields, data)
    if len(rest) == 4:
        _item(fields, di_text(rest), "2007")
    else:
        _raw(fields, rest)


def _change_password(fields: Fields, data: bytes) -> None:
    if len(data) != 12:
        return _raw(fields, data)
    _item(fields, di_text(data), "2007")
    _old_and_new(fields, data[4:])


def _old_and_new(fields: Fields, data: bytes) -> None:
    if len(data) != 8:
        return _raw(fields, data)
    fields["pa"] = f"{data[0]:02x}"
    fields["password"] = data[3:0:-1].hex()
    fields["new_pa"] = f"{data[4]:02x}"
    fields["new_password"] = data[7:4:-1].hex()


def _relay_control(fields: Fields, data: bytes) -> None:
    rest = _authorised(fields, data)
    if not rest:
        return
    if len(rest) == _CIPHER_LENGTH:
        fields["cipher"] = rest.hex()
        return
    fields["relay_cmd"] = f"{rest[0]:02x}"
    if rest[0] in RELAY_COMMANDS:
        fields["relay_action"] = RELAY_COMMANDS[rest[0]]
    if len(rest) == 8:
        fields["restore_minutes"] = 5 * rest[1]
        fields["valid_until_yymmddhhmmss"] = rest[:1:-1].hex()
    else:
        _raw(fields, rest[1:])


def _execution(fields: Fields, data: bytes) -> None:
    _raw(fields, data)
    if len(data) == 2:
        fields["execution"] = list(flags.names(flags.EXECUTION, int.from_bytes(data, "little")))


def _security(fields: Fields, data: bytes) -> None:
    if len(data) < 8:
        return _raw(fields, data)
    _item(fields, di_text(data), "2007")
    fields["operator"] = data[7:3:-1].hex()
    _raw(fields, data[8:])
    _security_fields(fields, REQUEST_FIELDS, data[8:])


def _security_reply(fields: Fields, data: bytes) -> None:
    _read_request(fields, data)
    if len(data) >= 4:
        _security_fields(fields, REPLY_FIELDS, data[4:])


def _security_fields(fields: Fields, lists: dict[str, FieldList], data: bytes) -> None:
    """`security`: name and value (hex, high byte first) of each field, where the DI's are known."""
    told = [[name, value.hex()] for name, value in cut(lists, fields["di"], data) if name != OPAQUE]
    if told:
        fields["security"] = told


def _freeze(fields: Fields, data: bytes) -> None:
    _raw(fields, data)
    if len(data) == 4:
        fields["freeze_mmddhhmm"] = data[::-1].hex()


def _speed(fields: Fields, data: bytes) -> None:
    _raw(fields, data)
    if len(data) == 1 and data[0] in commands.SPEEDS:
        fields["speed"] = commands.SPEEDS[data[0]]


def _output(fields: Fields, data: bytes) -> None:
    _raw(fields, data)
    if len(data) == 1 and data[0] < len(commands.OUTPUTS):
        fields["output"] = commands.OUTPUTS[data[0]]


def _new_password(fields: Fields, data: bytes) -> None:
    if len(data) != 4:
        return _raw(fields, data)
    fields["new_pa"] = f"{data[0]:02x}"
    fields["new_password"] = data[3:0:-1].hex()


def _read_request_1997(fields: Fields, data: bytes) -> None:
    if len(data) < 2:
        return _raw(fields, data)
    _item(fields, data[1::-1].hex(), "1997")
    _raw(fields, data[2:])


def _read_reply_1997(fields: Fields, data: bytes) -> None:
    if len(data) < 2:
        return _raw(fields, data)
    di = data[1::-1].hex()
    _item(fields, di, "1997")
    _values(fields, di, data[2:], "1997")


def _write_1997(fields: Fields, data: bytes) -> None:
    if len(data) < 6:
        return _read_request_1997(fields, data)
    _item(fields, data[1::-1].hex(), "1997")
    fields["pa"] = f"{data[2]:02x}"
    fields["password"] = data[5:2:-1].hex()
    _raw(fields, data[6:])


_Reader = Callable[[Fields, bytes], None]
_READERS: dict[str, dict[int, _Reader]] = {
    "2007": {
        0x03: _security,
        0x83: _security_reply,
        0x08: _time,
        0x11: _read_request,
        0x91: _read_reply,
        0xB1: _read_request,  # an item may be split at any byte: no values from one part
        0x12: _follow_up_request,
        0x92: _follow_up_reply,
        0xB2: _follow_up_reply,
        0x93: _meter_address,
        0x14: _write,
        0x15: _meter_address,
        0x16: _freeze,
        0x17: _speed,
        0x97: _speed,
        0x18: _change_password,
        0x98: _new_password,
        0x19: _clear,
        0x1A: _clear,
        0x1B: _clear_events,
        0x1C: _relay_control,
        0x9C: _execution,
        0x1D: _output,
        0x9D: _output,
    },
    "1997": {
        0x01: _read_request_1997,
        0x02: _read_request_1997,
        0x81: _read_reply_1997,
        0xA1: _read_request_1997,
        0x82: _read_request_1997,
        0xA2: _read_request_1997,
        0x04: _write_1997,
        0x0A: _meter_address,
        0x0F: _old_and_new,
    },
}
