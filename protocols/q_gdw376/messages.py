"""What master and terminal say to each other: requests ready to send, and the meaning of what comes.

`decode` reads any frame; the values are those of `values`. A `Request` is what a `connection.Master` sends.
The functions that build one name the information class in their docstring. Units of an answer are made with
`encode_unit`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime
from math import ceil
from typing import NamedTuple

from protocols.errors import LocalProtocolError
from protocols.permit import Permit, demand
from protocols.q_gdw376.fields import Field, Fields
from protocols.q_gdw376.formats import a20_bytes, a21_bytes
from protocols.q_gdw376.forms import NO_VARIANTS
from protocols.q_gdw376.frame import EC_LENGTH, HEADER, IDENTIFIER, OVERHEAD, TP_LENGTH
from protocols.q_gdw376.grammar import TARIFFS
from protocols.q_gdw376.identifiers import identifier
from protocols.q_gdw376.items import ASKING_AFNS, action, dangerous, form_of
from protocols.q_gdw376.layouts import DOWN, LAYOUTS, UP
from protocols.q_gdw376.registers import USUAL_TARIFFS
from protocols.q_gdw376.units import (
    PASSWORD_AFNS,
    Content,
    decode,
    encode_data,
    encode_unit,
    identify,
    read,
    view,
)
from protocols.q_gdw376.values import (
    Archive,
    ArchiveQuery,
    ArchiveRecord,
    Clock,
    DayTag,
    Forward,
    Forwarded,
    FrozenEnergy,
    FrozenPhases,
    FrozenThreePhase,
    Login,
    MonthTag,
    PortCapability,
    PortProgress,
    PresentEnergy,
    ReadingState,
    Registers,
    TerminalCapabilities,
    TerminalPorts,
    TerminalVersion,
    Unit,
    UnitConfirm,
)

NO_PASSWORD = bytes(16)
"""PW where authentication is off."""
SERIAL_2400_8E1 = 0x6B
"""Control byte of AFN10 F1 for a 645 line."""
CARRIER_PORT = 31
"""Terminal port of the carrier or radio module."""
ARCHIVE_RECORDS_A_FRAME = 10
"""272 bytes: fits every terminal's buffer."""
ARCHIVE_QUERY_A_FRAME = 32
"""As many sequence numbers as a field head-end asks at a time."""

# Classes that only ask, of AFNs that otherwise change something.
_READING = frozenset(((0x10, 13),))
# D6-D0 of a time limit.
_MOST_STEPS = 127


class RequestUnit(NamedTuple):
    """One unit of a request: point, class and its own data (a tag, a list, parameters)."""

    pn: int
    fn: int
    data: bytes = b""


@dataclass(frozen=True, slots=True)
class Request:
    """One request to a terminal. con: it shall confirm; password: PW, where the AFN carries one.

    repeatable: it only reads, so that the link may send it again after silence. permit: leave for a dangerous
    one; the Master asks for it.
    """

    afn: int
    units: tuple[RequestUnit, ...]
    con: bool = False
    password: bytes | None = None
    repeatable: bool = True
    permit: Permit | None = None

    @property
    def actions(self) -> tuple[str, ...]:
        """What needs a permit, each once: "376 04 f10" for AFN04 F10."""
        if self.afn in ASKING_AFNS:
            return ()
        fns = dict.fromkeys(unit.fn for unit in self.units)
        return tuple(action(self.afn, fn) for fn in fns if dangerous(self.afn, fn))

    @property
    def body(self) -> bytes:
        """Data units and PW as a frame carries them.

        LocalProtocolError where a unit or PW cannot be, or where it is dangerous without its permit.
        """
        if not self.units:
            raise LocalProtocolError("a request needs a unit")
        if self.password is not None and self.afn not in PASSWORD_AFNS:
            raise LocalProtocolError(f"AFN{self.afn:02X} carries no password")
        for needed in self.actions:
            demand(self.permit, needed, "a terminal" if self.permit is None else self.permit.target)
        units = b"".join([identifier(pn, fn) + data for pn, fn, data in self.units])
        return units + (self.password or b"")

    def asks(self, pn: int, fn: int) -> bool:
        """Is this point and class among the units?"""
        return any(unit[0] == pn and unit[1] == fn for unit in self.units)


def _read(afn: int, fn: int, pns: Iterable[int] = (0,), data: bytes = b"") -> Request:
    return Request(afn, tuple(RequestUnit(pn, fn, data) for pn in pns))


def _write(
    afn: int, fn: int, value: object, password: bytes, con: bool = True, permit: Permit | None = None
) -> Request:
    data = LAYOUTS[afn, fn, DOWN].encode(value)
    return Request(afn, (RequestUnit(0, fn, data),), con, password, repeatable=False, permit=permit)


def query(
    afn: int,
    fn: int,
    pns: Iterable[int] = (0,),
    values: object | None = None,
    variants: Mapping[str, str] = NO_VARIANTS,
) -> Request:
    """Any request that only reads: AFN 08 to 0E, AFN10 F13.

    values: the data of the request, where its row has some: a mapping of names (see `items.csv`), `Fields`, a
    value of the layout's type, or bytes. LocalProtocolError where they do not fit, or where the AFN changes
    something.
    """
    if afn in PASSWORD_AFNS and (afn, fn) not in _READING:
        raise LocalProtocolError(f"AFN{afn:02X} F{fn} does not only read")
    data = _data(afn, fn, values, variants)
    password = NO_PASSWORD if afn in PASSWORD_AFNS else None
    return Request(afn, tuple(RequestUnit(pn, fn, data) for pn in pns), password=password)


def command(
    afn: int,
    fn: int,
    pn: int = 0,
    values: object | None = None,
    *,
    permit: Permit | None = None,
    password: bytes = NO_PASSWORD,
    con: bool = True,
    variants: Mapping[str, str] = NO_VARIANTS,
) -> Request:
    """Any request that sets, switches or resets: AFN 01, 04, 05, 06, 0F, 10. Never repeated by the link.

    values: as for `query`. permit: for a class marked dangerous, for its `items.action` and the terminal.
    LocalProtocolError where values do not fit, or where it is dangerous without its permit.
    """
    if afn not in PASSWORD_AFNS:
        raise LocalProtocolError(f"AFN{afn:02X} is no command")
    data = _data(afn, fn, values, variants)
    if dangerous(afn, fn):
        demand(permit, action(afn, fn), "a terminal" if permit is None else permit.target)
    return Request(afn, (RequestUnit(pn, fn, data),), con, password, repeatable=False, permit=permit)


def _data(afn: int, fn: int, values: object | None, variants: Mapping[str, str]) -> bytes:
    form = form_of(afn, fn, DOWN)
    if form is None:
        raise LocalProtocolError(f"AFN{afn:02X} F{fn} does not go down")
    if values is None and form.has_data(variants):
        raise LocalProtocolError(f"AFN{afn:02X} F{fn} needs data: {form.text}")
    return encode_data(afn, fn, values, DOWN, variants)


def read_version() -> Request:
    """AFN09 F1, answered with `TerminalVersion`."""
    return _read(0x09, 1)


def read_ports() -> Request:
    """AFN09 F2, answered with `TerminalPorts`: the buffers are in it."""
    return _read(0x09, 2)


def read_capabilities() -> Request:
    """AFN09 F3, answered with `TerminalCapabilities`."""
    return _read(0x09, 3)


def read_archive(sequences: Sequence[int]) -> Request:
    """AFN0A F10, answered with `Archive`. sequences: 1..2040, at most ARCHIVE_QUERY_A_FRAME at a time."""
    return _read(0x0A, 10, data=LAYOUTS[0x0A, 10, DOWN].encode(ArchiveQuery(tuple(sequences))))


def write_archive(
    records: Sequence[ArchiveRecord], password: bytes = NO_PASSWORD, permit: Permit | None = None
) -> Request:
    """AFN04 F10, confirmed by AFN00; a record with pn 0 deletes. At most ARCHIVE_RECORDS_A_FRAME a time.
    permit: "376 04 f10" on the terminal."""
    return _write(0x04, 10, Archive(tuple(records)), password, permit=permit)


def read_clock() -> Request:
    """AFN0C F2, answered with `Clock`."""
    return _read(0x0C, 2)


def set_clock(at: datetime, password: bytes = NO_PASSWORD) -> Request:
    """AFN05 F31, confirmed by AFN00. at: naive, the wall clock that the terminal shall show."""
    return _write(0x05, 31, Clock(at, at.isoweekday()), password)


def reading_state() -> Request:
    """AFN0C F11, answered with `ReadingState`: how far the terminal is with its meters."""
    return _read(0x0C, 11)


def read_present(fn: int, pns: Iterable[int]) -> Request:
    """AFN0C F129..F136, answered with `PresentEnergy` for each point."""
    return _read(0x0C, fn, pns)


def read_frozen(fn: int, pns: Iterable[int], day: date) -> Request:
    """AFN0D with Td_d: `FrozenEnergy` or `FrozenThreePhase` (F161.., F1, F2), or `Fields`, for each point."""
    if _tag(fn) != "td_d":
        raise LocalProtocolError(f"AFN0D F{fn} is not asked for by day")
    return _read(0x0D, fn, pns, a20_bytes(day))


def read_frozen_month(fn: int, pns: Iterable[int], year: int, month: int) -> Request:
    """AFN0D with Td_m: `FrozenEnergy` or `FrozenThreePhase` (F177, F179, F17, F18), or `Fields`, for each
    point."""
    if _tag(fn) != "td_m":
        raise LocalProtocolError(f"AFN0D F{fn} is not asked for by month")
    return _read(0x0D, fn, pns, a21_bytes(date(year, month, 1)))


def _tag(fn: int) -> str | None:
    form = form_of(0x0D, fn, DOWN)
    parts = () if form is None else form.alternatives[0].parts
    return parts[0].name if len(parts) == 1 else None


def points_that_fit(frame_length: int, fn: int, tariffs: int = USUAL_TARIFFS) -> int:
    """How many points' AFN0D units of class `fn` an answer of `frame_length` bytes holds; at least 1.

    Room is kept for EC and Tp.
    """
    form = form_of(0x0D, fn, UP)
    if form is None:
        raise LocalProtocolError(f"AFN0D F{fn} is not in the list of items")
    room = frame_length - OVERHEAD - HEADER - EC_LENGTH - TP_LENGTH
    return max(1, room // (IDENTIFIER + form.length({TARIFFS: tariffs})))


def forward(
    port: int,
    content: bytes,
    message_timeout_s: float,
    byte_timeout_ms: int,
    control: int = SERIAL_2400_8E1,
    password: bytes = NO_PASSWORD,
    repeatable: bool = False,
) -> Request:
    """AFN10 F1, answered with `Forwarded`: `content` is passed on to the meter behind `port`.

    The link cannot see whether `content` only reads, so it repeats the request only if told `repeatable`.
    message_timeout_s: 0.01 .. 127, whole seconds above 1.27. byte_timeout_ms: 10 .. 2550, in steps of 10.
    """
    value = Forward(port, control, message_timeout(message_timeout_s), byte_timeout_ms // 10, content)
    return replace(_write(0x10, 1, value, password, con=False), repeatable=repeatable)


def message_timeout(seconds: float) -> int:
    """The message timeout byte of AFN10 F1, rounded up: in 10 ms where that reaches, else in seconds."""
    steps = ceil(round(seconds * 100, 6))
    if 1 <= steps <= _MOST_STEPS:
        return steps
    if not 1 <= ceil(seconds) <= _MOST_STEPS:
        raise LocalProtocolError(f"a message timeout of {seconds} s does not fit")
    return 0x80 | ceil(seconds)


__all__ = [
    "ARCHIVE_QUERY_A_FRAME",
    "ARCHIVE_RECORDS_A_FRAME",
    "CARRIER_PORT",
    "NO_PASSWORD",
    "SERIAL_2400_8E1",
    "Archive",
    "ArchiveQuery",
    "ArchiveRecord",
    "Clock",
    "Content",
    "DayTag",
    "Field",
    "Fields",
    "Forward",
    "Forwarded",
    "FrozenEnergy",
    "FrozenPhases",
    "FrozenThreePhase",
    "Login",
    "MonthTag",
    "PortCapability",
    "PortProgress",
    "PresentEnergy",
    "ReadingState",
    "Registers",
    "Request",
    "RequestUnit",
    "TerminalCapabilities",
    "TerminalPorts",
    "TerminalVersion",
    "Unit",
    "UnitConfirm",
    "command",
    "decode",
    "encode_unit",
    "forward",
    "identify",
    "message_timeout",
    "points_that_fit",
    "query",
    "read",
    "read_archive",
    "read_capabilities",
    "read_clock",
    "read_frozen",
    "read_frozen_month",
    "read_ports",
    "read_present",
    "read_version",
    "reading_state",
    "set_clock",
    "view",
    "write_archive",
]
