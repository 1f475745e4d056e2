"""What master and terminal say to each other: requests ready to send, and the meaning of what comes.

`decode` reads any frame; the values are those of `values`. A `Request` is what a `connection.Master` sends.
The functions that build one name the information class in their docstring. Units of an answer are made with
`encode_unit`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime
from math import ceil
from typing import NamedTuple

from protocols.errors import LocalProtocolError
from protocols.q_gdw376.formats import a20_bytes, a21_bytes
from protocols.q_gdw376.frame import EC_LENGTH, HEADER, IDENTIFIER, OVERHEAD, TP_LENGTH
from protocols.q_gdw376.identifiers import identifier
from protocols.q_gdw376.layouts import DOWN, LAYOUTS, UP
from protocols.q_gdw376.registers import USUAL_TARIFFS
from protocols.q_gdw376.units import PASSWORD_AFNS, Content, decode, encode_unit, identify, read
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

    repeatable: it only reads, so that the link may send it again after silence.
    """

    afn: int
    units: tuple[RequestUnit, ...]
    con: bool = False
    password: bytes | None = None
    repeatable: bool = True

    @property
    def body(self) -> bytes:
        """Data units and PW as a frame carries them. LocalProtocolError where a unit or PW cannot be."""
        if not self.units:
            raise LocalProtocolError("a request needs a unit")
        if self.password is not None and self.afn not in PASSWORD_AFNS:
            raise LocalProtocolError(f"AFN{self.afn:02X} carries no password")
        units = b"".join([identifier(pn, fn) + data for pn, fn, data in self.units])
        return units + (self.password or b"")

    def asks(self, pn: int, fn: int) -> bool:
        """Is this point and class among the units?"""
        return any(unit[0] == pn and unit[1] == fn for unit in self.units)


def _read(afn: int, fn: int, pns: Iterable[int] = (0,), data: bytes = b"") -> Request:
    return Request(afn, tuple(RequestUnit(pn, fn, data) for pn in pns))


def _write(afn: int, fn: int, value: object, password: bytes, con: bool = True) -> Request:
    data = LAYOUTS[afn, fn, DOWN].encode(value)
    return Request(afn, (RequestUnit(0, fn, data),), con, password, repeatable=False)


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


def write_archive(records: Sequence[ArchiveRecord], password: bytes = NO_PASSWORD) -> Request:
    """AFN04 F10, confirmed by AFN00; a record with pn 0 deletes. At most ARCHIVE_RECORDS_A_FRAME a time."""
    return _write(0x04, 10, Archive(tuple(records)), password)


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
    """AFN0D with Td_d (F161.., F1, F2): `FrozenEnergy` or `FrozenThreePhase` for each point."""
    if _tag(fn) is not DayTag:
        raise LocalProtocolError(f"AFN0D F{fn} is not asked for by day")
    return _read(0x0D, fn, pns, a20_bytes(day))


def read_frozen_month(fn: int, pns: Iterable[int], year: int, month: int) -> Request:
    """AFN0D with Td_m (F177, F179, F17, F18): `FrozenEnergy` or `FrozenThreePhase` for each point."""
    if _tag(fn) is not MonthTag:
        raise LocalProtocolError(f"AFN0D F{fn} is not asked for by month")
    return _read(0x0D, fn, pns, a21_bytes(date(year, month, 1)))


def _tag(fn: int) -> type | None:
    layout = LAYOUTS.get((0x0D, fn, DOWN))
    return None if layout is None else layout.value_type


def points_that_fit(frame_length: int, fn: int, tariffs: int = USUAL_TARIFFS) -> int:
    """How many points' AFN0D units of class `fn` an answer of `frame_length` bytes holds; at least 1.

    Room is kept for EC and Tp.
    """
    layout = LAYOUTS[0x0D, fn, UP]
    room = frame_length - OVERHEAD - HEADER - EC_LENGTH - TP_LENGTH
    return max(1, room // (IDENTIFIER + layout.fixed + layout.each * tariffs))


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
    "decode",
    "encode_unit",
    "forward",
    "identify",
    "message_timeout",
    "points_that_fit",
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
    "write_archive",
]
