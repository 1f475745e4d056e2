"""The declared layout of every data unit that has a value type of its own.

`LAYOUTS` maps (AFN, Fn, up) to its `Layout`. All other units are read by the form of their row in
`items.csv`, as `Fields`.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import construct
from construct import Array, Bytes, GreedyBytes, GreedyRange, Int8ub, Int16ul, Int32ul, Rebuild, Struct, this

from protocols.errors import LocalProtocolError
from protocols.q_gdw376 import values
from protocols.q_gdw376.event_records import Events, EventsQuery, decode_events, encode_events
from protocols.q_gdw376.formats import A1, A12, A20, A21, text_field
from protocols.q_gdw376.forms import NO_VARIANTS
from protocols.q_gdw376.identifiers import IDENTIFIER
from protocols.q_gdw376.layout import Layout, plain, whole
from protocols.q_gdw376.registers import (
    DAY_ACTIVE,
    DAY_REACTIVE,
    DAY_THREE_PHASE,
    MONTH_ACTIVE,
    MONTH_REACTIVE,
    MONTH_THREE_PHASE,
    MOST_TARIFFS,
    PRESENT_ACTIVE,
    PRESENT_REACTIVE,
)

BAUD_RATES = (0, 600, 1200, 2400, 4800, 7200, 9600, 19200)
"""By D7-D5 of an archive record's port byte; 0: the terminal's default."""

# -- clock, login, confirm ----------------------------------------------------------------------------


_CLOCK = Layout(
    values.Clock,
    whole("clock" / A1),
    lambda found: values.Clock(*found.clock),
    lambda clock: {"clock": (clock.at, clock.weekday)},
)

_LOGIN = Layout(values.Login, whole("version" / GreedyBytes), *plain(values.Login))

_CONFIRM = Layout(
    values.UnitConfirm,
    whole("afn" / Int8ub, "results" / GreedyRange(Struct("identifier" / IDENTIFIER, "error" / Int8ub))),
    lambda found: values.UnitConfirm(
        int(found.afn),
        tuple(
            (pn, fn, int(result.error))
            for result in found.results
            for pn in result.identifier[0]
            for fn in result.identifier[1]
        ),
    ),
    lambda confirm: {
        "afn": confirm.afn,
        "results": [{"identifier": ((pn,), (fn,)), "error": error} for pn, fn, error in confirm.results],
    },
)

# -- archive ------------------------------------------------------------------------------------------

_RECORD = Struct(
    "sequence" / Int16ul,
    "pn" / Int16ul,
    "line" / construct.BitStruct("baud" / construct.BitsInteger(3), "port" / construct.BitsInteger(5)),
    "protocol" / Int8ub,
    "address" / A12,
    "password" / Bytes(6),
    "tariffs" / Int8ub,
    "digits"
    / construct.BitStruct(
        construct.Padding(4), "integer" / construct.BitsInteger(2), "decimal" / construct.BitsInteger(2)
    ),
    "collector" / A12,
    "user_class" / Int8ub,
)


def _to_record(found: Any) -> values.ArchiveRecord:
    return values.ArchiveRecord(
        sequence=int(found.sequence),
        pn=int(found.pn),
        port=int(found.line.port),
        baud=BAUD_RATES[found.line.baud],
        protocol=int(found.protocol),
        address=str(found.address),
        tariffs=int(found.tariffs) & 0x3F,
        collector=str(found.collector),
        user_class=int(found.user_class),
        password=bytes(found.password),
        integer_digits=int(found.digits.integer) + 4,
        decimal_digits=int(found.digits.decimal) + 1,
    )


def _from_record(record: values.ArchiveRecord) -> dict[str, Any]:
    if record.baud not in BAUD_RATES:
        raise LocalProtocolError(f"{record.baud} bits a second is not one of {BAUD_RATES}")
    if not 0 <= record.tariffs <= MOST_TARIFFS:
        raise LocalProtocolError(f"{record.tariffs} tariffs; a record holds {MOST_TARIFFS}")
    return {
        "sequence": record.sequence,
        "pn": record.pn,
        "line": {"baud": BAUD_RATES.index(record.baud), "port": record.port},
        "protocol": record.protocol,
        "address": record.address,
        "password": record.password,
        "tariffs": record.tariffs,
        "digits": {"integer": record.integer_digits - 4, "decimal": record.decimal_digits - 1},
        "collector": record.collector,
        "user_class": record.user_class,
    }


_ARCHIVE = Layout(
    values.Archive,
    whole("count" / Rebuild(Int16ul, construct.len_(this.records)), "records" / Array(this.count, _RECORD)),
    lambda found: values.Archive(tuple(_to_record(record) for record in found.records)),
    lambda archive: {"records": [_from_record(record) for record in archive.records]},
)

_ARCHIVE_QUERY = Layout(
    values.ArchiveQuery,
    whole(
        "count" / Rebuild(Int16ul, construct.len_(this.sequences)), "sequences" / Array(this.count, Int16ul)
    ),
    lambda found: values.ArchiveQuery(tuple(int(sequence) for sequence in found.sequences)),
    lambda query: {"sequences": list(query.sequences)},
)

# -- what a terminal is -------------------------------------------------------------------------------

_VERSION = Layout(
    values.TerminalVersion,
    whole(
        "vendor" / text_field(4),
        "device" / text_field(8),
        "software" / text_field(4),
        "software_date" / A20,
        "capacity" / text_field(11),
        "protocol" / text_field(4),
        "hardware" / text_field(4),
        "hardware_date" / A20,
    ),
    *plain(values.TerminalVersion),
)

_PORT_CAPABILITY = Struct(
    "word" / Int16ul,
    "max_baud" / Int32ul,
    "devices" / Int16ul,
    "rx_buffer" / Int16ul,
    "tx_buffer" / Int16ul,
)
_to_port_capability, _from_port_capability = plain(values.PortCapability)
_PORT_NAMES = ("pulses", "inputs", "dc", "outputs", "meters", "rx_buffer", "tx_buffer")

_PORTS = Layout(
    values.TerminalPorts,
    whole(
        "pulses" / Int8ub,
        "inputs" / Int8ub,
        "dc" / Int8ub,
        "outputs" / Int8ub,
        "meters" / Int16ul,
        "rx_buffer" / Int16ul,
        "tx_buffer" / Int16ul,
        "mac" / Bytes(6),
        "count" / Rebuild(Int8ub, construct.len_(this.ports)),
        "ports" / Array(this.count, _PORT_CAPABILITY),
    ),
    lambda found: values.TerminalPorts(
        **{name: int(found[name]) for name in _PORT_NAMES},
        mac=found.mac.hex(),
        ports=tuple(_to_port_capability(port) for port in found.ports),
    ),
    lambda ports: {
        **{name: getattr(ports, name) for name in _PORT_NAMES},
        "mac": bytes.fromhex(ports.mac),
        "ports": [_from_port_capability(port) for port in ports.ports],
    },
)

_CAPABILITIES = Layout(
    values.TerminalCapabilities,
    whole(
        "points" / Int16ul,
        "groups" / Int8ub,
        "tasks" / Int8ub,
        "difference_groups" / Int8ub,
        "rest" / GreedyBytes,
    ),
    *plain(values.TerminalCapabilities),
)

# -- class 1 ------------------------------------------------------------------------------------------

_PROGRESS = Struct(
    "port" / Int8ub,
    "total" / Int16ul,
    "flags" / Int8ub,
    "read" / Int16ul,
    "key_read" / Int8ub,
    "started" / A1,
    "ended" / A1,
)


def _to_progress(found: Any) -> values.PortProgress:
    return values.PortProgress(
        int(found.port),
        int(found.total),
        int(found.flags),
        int(found.read),
        int(found.key_read),
        found.started[0],
        found.ended[0],
    )


def _with_weekday(at: datetime | None) -> tuple[datetime | None, int]:
    return at, 0 if at is None else at.isoweekday()


def _from_progress(port: values.PortProgress) -> dict[str, Any]:
    return {
        "port": port.port,
        "total": port.total,
        "flags": port.flags,
        "read": port.read,
        "key_read": port.key_read,
        "started": _with_weekday(port.started_at),
        "ended": _with_weekday(port.ended_at),
    }


_READING_STATE = Layout(
    values.ReadingState,
    whole("count" / Rebuild(Int8ub, construct.len_(this.ports)), "ports" / Array(this.count, _PROGRESS)),
    lambda found: values.ReadingState(tuple(_to_progress(port) for port in found.ports)),
    lambda state: {"ports": [_from_progress(port) for port in state.ports]},
)

_DAY_TAG = Layout(values.DayTag, whole("day" / A20), *plain(values.DayTag))
_MONTH_TAG = Layout(values.MonthTag, whole("month" / A21), *plain(values.MonthTag))

# -- forwarding ---------------------------------------------------------------------------------------

_LENGTH = Rebuild(Int16ul, construct.len_(this.content))

_FORWARD = Layout(
    values.Forward,
    whole(
        "port" / Int8ub,
        "control" / Int8ub,
        "message_timeout" / Int8ub,
        "byte_timeout" / Int8ub,
        "length" / _LENGTH,
        "content" / Bytes(this.length),
    ),
    *plain(values.Forward),
)
_FORWARDED = Layout(
    values.Forwarded,
    whole("port" / Int8ub, "length" / _LENGTH, "content" / Bytes(this.length)),
    *plain(values.Forwarded),
)

# -- events -------------------------------------------------------------------------------------------


class _EventsLayout(Layout):
    """The bodies of the records are forms, and settings choose between some of them."""

    __slots__ = ()

    def decode(self, raw: bytes, variants: Mapping[str, str] = NO_VARIANTS) -> object:
        return decode_events(raw, variants)


_EVENTS = _EventsLayout(
    Events,
    Struct("records" / GreedyBytes),
    lambda found: decode_events(bytes(found.records)),
    lambda events: {"records": encode_events(events)},
)
_EVENTS_QUERY = Layout(EventsQuery, whole("pm" / Int8ub, "pn" / Int8ub), *plain(EventsQuery))

UP = True
DOWN = False

DAY_ACTIVE_FNS = (161, 163, 169, 171)
"""AFN0D daily freezes of active energy: the Fns that some terminals answer with three phases."""
DAY_REACTIVE_FNS = (162, 164, 165, 166, 167, 168, 170, 172, 173, 174, 175, 176)
MONTH_ACTIVE_FNS = (177, 179)
MONTH_REACTIVE_FNS = (178, 180, 181, 182, 183, 184)
DAY_THREE_PHASE_FNS = (1, 2, 9, 10)
MONTH_THREE_PHASE_FNS = (17, 18)


def _frozen() -> dict[tuple[int, int, bool], Layout]:
    table = {}
    for fns, answer, request in (
        (DAY_ACTIVE_FNS, DAY_ACTIVE, _DAY_TAG),
        (DAY_REACTIVE_FNS, DAY_REACTIVE, _DAY_TAG),
        (DAY_THREE_PHASE_FNS, DAY_THREE_PHASE, _DAY_TAG),
        (MONTH_ACTIVE_FNS, MONTH_ACTIVE, _MONTH_TAG),
        (MONTH_REACTIVE_FNS, MONTH_REACTIVE, _MONTH_TAG),
        (MONTH_THREE_PHASE_FNS, MONTH_THREE_PHASE, _MONTH_TAG),
    ):
        for fn in fns:
            table[0x0D, fn, UP] = answer
            table[0x0D, fn, DOWN] = request
    return table


LAYOUTS: dict[tuple[int, int, bool], Layout] = {
    (0x00, 3, UP): _CONFIRM,
    (0x00, 3, DOWN): _CONFIRM,
    (0x02, 1, UP): _LOGIN,
    (0x02, 3, UP): _CLOCK,
    (0x04, 10, DOWN): _ARCHIVE,
    (0x05, 31, DOWN): _CLOCK,
    (0x09, 1, UP): _VERSION,
    (0x09, 2, UP): _PORTS,
    (0x09, 3, UP): _CAPABILITIES,
    (0x0A, 10, DOWN): _ARCHIVE_QUERY,
    (0x0A, 10, UP): _ARCHIVE,
    (0x0C, 2, UP): _CLOCK,
    (0x0C, 11, UP): _READING_STATE,
    **{(0x0C, fn, UP): PRESENT_ACTIVE for fn in (129, 131)},
    **{(0x0C, fn, UP): PRESENT_REACTIVE for fn in (130, 132, 133, 134, 135, 136)},
    **_frozen(),
    **{(0x0E, fn, UP): _EVENTS for fn in (1, 2)},
    **{(0x0E, fn, DOWN): _EVENTS_QUERY for fn in (1, 2)},
    (0x10, 1, DOWN): _FORWARD,
    (0x10, 1, UP): _FORWARDED,
}
"""(AFN, Fn, up) -> layout of the data."""
