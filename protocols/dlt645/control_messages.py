"""What 1CH (relay control) and 03H (security) say, both roles; 2007 with its filings only.

Requests are only read here: `control.py` is the one place that builds them. The answers of a meter switch
nothing and are built by `to_frame`. Ciphers and MACs are opaque: a crypto machine makes and checks them.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import IntEnum

import construct

from protocols import wire
from protocols.dlt645 import flags
from protocols.dlt645.fields import (
    AUTHORITY,
    DI_2007,
    Authority,
    di_bytes,
    di_text,
    hex_digits,
    moment,
    moment_bytes,
)
from protocols.dlt645.frame import Frame
from protocols.errors import LocalProtocolError, RemoteProtocolError

RELAY_CONTROL = 0x1C
SECURITY = 0x03
_REPLY = 0x80

# N2 of 1DH and 1EH counts these.
RESTORE_STEP_MINUTES = 5
# PA P0 P1 P2 C0..C3 N1 N2 N3..N8.
PLAIN_LENGTH = 16
_AUTHORITY_LENGTH = 8
# A request that asks for a status word in the answer has P2 = 01H.
_P2_WORD = "01"


class Verb(IntEnum):
    """N1 of 1CH. What switches the supply off is TRIP, TRIP_THEN_CLOSE, TRIP_THEN_PERMIT."""

    TRIP = 0x1A
    PERMIT_CLOSE = 0x1B
    CLOSE = 0x1C
    TRIP_THEN_CLOSE = 0x1D
    TRIP_THEN_PERMIT = 0x1E
    ALARM = 0x2A
    CLEAR_ALARM = 0x2B
    KEEP_POWER = 0x3A
    RELEASE_KEEP_POWER = 0x3B

    @property
    def word(self) -> str:
        """As in a permit's action, "permit-close"."""
        return self.name.lower().replace("_", "-")

    @property
    def restores(self) -> bool:
        """Whether N2 is a time after which the meter restores the supply."""
        return self in (Verb.TRIP_THEN_CLOSE, Verb.TRIP_THEN_PERMIT)


@dataclass(frozen=True, slots=True)
class RelayCommand:
    """1CH in plain. deadline: N3..N8 by the meter's clock, past it the meter refuses; None where a peer sent
    six zero bytes. restore_minutes: five times N2; 0 unless the verb restores."""

    address: str
    verb: Verb
    authority: Authority
    deadline: datetime | None
    restore_minutes: int = 0

    @property
    def wants_word(self) -> bool:
        """P2 = 01H: newer meters answer with a status word."""
        return self.authority.password[:2] == _P2_WORD


@dataclass(frozen=True, slots=True)
class SealedCommand:
    """1CH at level 98 or 99: what it switches is known to the crypto machine only. block: as on the wire."""

    address: str
    authority: Authority
    block: bytes

    @property
    def wants_word(self) -> bool:
        """P2 = 01H: newer meters answer with a status word."""
        return self.authority.password[:2] == _P2_WORD


@dataclass(frozen=True, slots=True)
class RelayReply:
    """9CH: the command is accepted; the relay may move later or never. word: None where none was sent."""

    address: str
    word: int | None = None

    @property
    def done(self) -> tuple[str, ...]:
        """The named bits of `word`, lowest first."""
        return flags.names(flags.EXECUTION, self.word or 0)


SecurityFields = tuple[tuple[str, bytes], ...]
"""(name, value) in the order of the frame; values high byte first, as a crypto machine gives them."""

OPAQUE = "opaque"
"""Name of data whose fields are not known for its DI; as on the wire."""


@dataclass(frozen=True, slots=True)
class SecurityRequest:
    """03H. operator: eight hex digits; fields: those of REQUEST_FIELDS for the DI, or one OPAQUE."""

    address: str
    di: str
    operator: str
    fields: SecurityFields = ()


@dataclass(frozen=True, slots=True)
class SecurityReply:
    """83H. fields: those of REPLY_FIELDS for the DI, or one OPAQUE."""

    address: str
    di: str
    fields: SecurityFields = ()

    def value(self, name: str) -> bytes:
        """The first field of that name, high byte first; b"" where the meter sent none."""
        return next((value for key, value in self.fields if key == name), b"")


ControlRequest = RelayCommand | SealedCommand | SecurityRequest
ControlReply = RelayReply | SecurityReply


@dataclass(frozen=True, slots=True)
class FieldList:
    """Which fields follow each other. group: repeated once or more; rest: one field of any length; both
    stand between head and tail. Parts are (name, bytes)."""

    head: tuple[tuple[str, int], ...] = ()
    group: tuple[tuple[str, int], ...] = ()
    rest: str = ""
    tail: tuple[tuple[str, int], ...] = ()

    def parts(self, size: int) -> tuple[tuple[str, int], ...] | None:
        """The parts of `size` bytes; None where they cannot be divided so."""
        spare = size - sum(length for _, length in self.head + self.tail)
        middle: tuple[tuple[str, int], ...] = ()
        if self.group and spare > 0:
            times, left = divmod(spare, sum(length for _, length in self.group))
            spare, middle = left, self.group * times
        elif self.rest and spare >= 0:
            spare, middle = 0, ((self.rest, spare),)
        elif self.group:
            return None
        return None if spare else self.head + middle + self.tail


_MONEY = (("money", 4), ("count", 4), ("mac_1", 4), ("customer", 6), ("mac_2", 4))
_FILE = (("length", 2), ("offset", 2), ("file", 2), ("directory", 2))

REQUEST_FIELDS: dict[str, FieldList] = {
    "070000ff": FieldList((("cipher", 8), ("random", 8), ("diversifier", 8))),
    "070001ff": FieldList((("minutes", 2), ("mac", 4))),
    "070002ff": FieldList(),
    "070003ff": FieldList((("cipher", 8),)),
    "078003ff": FieldList((("random", 8),)),
    "070101ff": FieldList(_MONEY),
    "070102ff": FieldList(_MONEY),
    "070103ff": FieldList((("money", 4), ("mac_1", 4), ("count", 4), ("mac_2", 4))),
    "070301ff": FieldList(group=(("key_info", 4), ("key_cipher", 32)), tail=(("mac", 4),)),
    "078001ff": FieldList(_FILE),
    "078102ff": FieldList(),
}
# The sheet is silent on what a recharge and a key update are answered with: OPAQUE.
REPLY_FIELDS: dict[str, FieldList] = {
    "070000ff": FieldList((("random", 4), ("esam", 8))),
    "070001ff": FieldList(),
    "070002ff": FieldList((("customer", 6), ("money", 4), ("count", 4), ("key_info", 4))),
    "070003ff": FieldList(),
    "078003ff": FieldList((("meter", 6), ("esam", 8), ("cipher", 8), ("random", 8))),
    "078001ff": FieldList(_FILE, rest="data", tail=(("mac", 4),)),
    "078102ff": FieldList(
        (("money", 4), ("mac_1", 4), ("count", 4), ("mac_2", 4), ("customer", 6), ("key_info", 4))
    ),
}

# Field masters send six zero bytes where they set no deadline.
_DEADLINE = construct.ExprAdapter(
    construct.Bytes(6),
    lambda raw, context: moment(raw) if any(raw) else None,
    lambda at, context: moment_bytes(at) if at else bytes(6),
)
RELAY_LAYOUT = construct.Struct(
    "authority" / AUTHORITY,
    "verb" / construct.Int8ub,
    "restore" / construct.Int8ub,
    "deadline" / _DEADLINE,
    construct.Terminated,
)
SEALED_LAYOUT = construct.Struct("authority" / AUTHORITY, "block" / construct.GreedyBytes)
SECURITY_LAYOUT = construct.Struct("di" / DI_2007, "operator" / hex_digits(4), "rest" / construct.GreedyBytes)


def read(frame: Frame) -> ControlRequest | ControlReply | None:
    """What a frame of 1CH or 03H says; None for other functions.

    RemoteProtocolError where its data does not fit, or orders what no table knows.
    """
    match frame.control:
        case 0x1C:
            return _read_relay(frame)
        case 0x03:
            found = wire.parse(SECURITY_LAYOUT, frame.data, "03H")
            di, data = str(found.di), bytes(found.rest)
            return SecurityRequest(frame.address, di, str(found.operator), cut(REQUEST_FIELDS, di, data))
        case 0x9C if len(frame.data) in (0, 2):
            word = int.from_bytes(frame.data, "little") if frame.data else None
            return RelayReply(frame.address, word)
        case 0x83 if len(frame.data) >= 4:
            di = di_text(frame.data)
            return SecurityReply(frame.address, di, cut(REPLY_FIELDS, di, frame.data[4:]))
        case 0x9C | 0x83:
            reason = f"{frame.control:02X}H: {len(frame.data)} data bytes do not fit"
            raise RemoteProtocolError(frame.data, len(frame.data), reason)
    return None


def to_frame(message: ControlReply) -> Frame:
    """The frame of a meter's answer. LocalProtocolError where a field cannot be sent."""
    if isinstance(message, SecurityReply):
        data = di_bytes(message.di) + join(REPLY_FIELDS, message.di, message.fields)
        return Frame(message.address, _REPLY | SECURITY, data)
    if message.word is None:
        return Frame(message.address, _REPLY | RELAY_CONTROL)
    if not 0 <= message.word <= 0xFFFF:
        raise LocalProtocolError(f"status word {message.word} is not two bytes")
    return Frame(message.address, _REPLY | RELAY_CONTROL, message.word.to_bytes(2, "little"))


def cut(lists: dict[str, FieldList], di: str, data: bytes) -> SecurityFields:
    """The fields in `data`; one OPAQUE where the DI is not known or the length does not fit it."""
    parts = lists[di].parts(len(data)) if di in lists else None
    if parts is None:
        return ((OPAQUE, data),) if data else ()
    told = []
    at = 0
    for name, length in parts:
        told.append((name, data[at : at + length][::-1]))
        at += length
    return tuple(told)


def join(lists: dict[str, FieldList], di: str, told: SecurityFields) -> bytes:
    """The bytes of fields. LocalProtocolError where they are not those of the DI; OPAQUE only for a DI
    that `lists` does not know."""
    if di not in lists:
        if [name for name, _ in told] not in ([], [OPAQUE]):
            raise LocalProtocolError(f"the fields of DI {di} are not known: only {OPAQUE!r} can be sent")
        return b"".join(value for _, value in told)
    shape = tuple((name, len(value)) for name, value in told)
    if lists[di].parts(sum(length for _, length in shape)) != shape:
        raise LocalProtocolError(f"{', '.join(name for name, _ in told)}: not the fields of DI {di}")
    return b"".join(value[::-1] for _, value in told)


def _read_relay(frame: Frame) -> RelayCommand | SealedCommand:
    if frame.data[:1] in (b"\x98", b"\x99"):
        sealed = wire.parse(SEALED_LAYOUT, frame.data, "1CH")
        if not sealed.block:
            raise RemoteProtocolError(frame.data, len(frame.data), "1CH: no cipher")
        return SealedCommand(frame.address, sealed.authority, bytes(sealed.block))
    if len(frame.data) != PLAIN_LENGTH:
        reason = f"1CH: {len(frame.data)} data bytes do not fit"
        raise RemoteProtocolError(frame.data, len(frame.data), reason)
    found = wire.parse(RELAY_LAYOUT, frame.data, "1CH")
    try:
        verb = Verb(int(found.verb))
    except ValueError as error:
        reason = f"1CH: N1 {int(found.verb):02X}H is no command"
        raise RemoteProtocolError(frame.data, _AUTHORITY_LENGTH, reason) from error
    restore_minutes = RESTORE_STEP_MINUTES * int(found.restore)
    return RelayCommand(frame.address, verb, found.authority, found.deadline, restore_minutes)
