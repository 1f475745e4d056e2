"""Event records of AFN0E: their table, their bytes and what they say. `events` is the door to all of it.

A record is ERC, Le and a body of Le bytes; the bodies are forms of `events.csv`. An unknown ERC, and a body
that is no such form, is kept raw with its reason and stepped over by Le, so that it hides no other record.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from importlib import resources
from typing import Any

import construct
from construct import Int8ub, Struct

from protocols import wire
from protocols.errors import LocalProtocolError, RemoteProtocolError
from protocols.q_gdw376.fields import Fields
from protocols.q_gdw376.formats import a15, is_filler
from protocols.q_gdw376.forms import NO_VARIANTS, compile_form

IMPORTANT = 1
"""Fn of important events (counted by EC1)."""
NORMAL = 2
"""Fn of normal events (counted by EC2)."""
MEMORY = 256
"""Records that a terminal keeps of each kind; Pm and Pn run modulo this."""

UNKNOWN = "ERC not in the list of events"

_HEAD_LENGTH = 4
_HEAD = Struct("ec1" / Int8ub, "ec2" / Int8ub, "pm" / Int8ub, "pn" / Int8ub)
_RECORD = Struct("erc" / Int8ub, "body" / construct.Prefixed(Int8ub, construct.GreedyBytes))
# ERC and Le.
_RECORD_HEAD = 2
# Where a body says when, the first that has a value: of a power failure the moment it began, else the moment
# it was over; a clock that was set has only its own two times.
_INSTANTS = ("at", "off", "on", "after")
_OPENS_WITH_TIME = "at/"
# Bytes of A.15.
_OPENING = 5
# Bit strings that say by D15 or D7 whether something begins or is over.
_STARTS = ("point", "port", "group")
# Identifiers of AFN0E in an answer: p0, F1 or F2 or both.
_NEXT_UNITS = tuple(bytes((0, 0, fns, 0)) for fns in (1, 2, 3))


@dataclass(frozen=True, slots=True)
class EventKind:
    """One row of `events.csv`. needs_person: somebody must look at the place; form: of the body;
    confidence: as of the items."""

    erc: int
    name_en: str
    name_zh: str
    form: str
    needs_person: bool
    confidence: str
    notes: str


def _load() -> dict[int, EventKind]:
    table = resources.files(__package__).joinpath("events.csv").read_text(encoding="utf-8")
    return {
        int(row["erc"]): EventKind(
            int(row["erc"]),
            row["name_en"],
            row["name_zh"],
            row["form"],
            row["needs_person"] == "yes",
            row["confidence"],
            row["notes"],
        )
        for row in csv.DictReader(table.splitlines())
    }


KINDS: Mapping[int, EventKind] = _load()
"""Every event of the table, by ERC."""


def kind(erc: int) -> EventKind | None:
    """The row of an event; None where it is not known."""
    return KINDS.get(erc)


@dataclass(frozen=True, slots=True)
class EventRecord:
    """One event. raw: the body, Le bytes.

    at: when, on the terminal's clock; None where EEH or zero. Of a body that is not understood it is what the
    first five bytes say, if they are an A.15 and the event does not open otherwise: most do open so, and a
    captured one of a product's own does. point: the measuring point, None where the body names none. start:
    True it began, False it is over, None where the body does not say. fields: the whole body, offsets from
    its first byte; None with `reason`, where it is not understood.
    """

    erc: int
    at: datetime | None
    point: int | None
    start: bool | None
    fields: Fields | None
    raw: bytes
    reason: str | None = None

    @property
    def needs_person(self) -> bool:
        """Whether somebody must look, by ERC, the body understood or not; an unknown ERC does not."""
        known = kind(self.erc)
        return known is not None and known.needs_person


@dataclass(frozen=True, slots=True)
class Events:
    """AFN0E F1, F2 up: the records Pm .. Pn - 1 (modulo MEMORY) of important or normal events.

    ec1, ec2: the terminal's counters, each the pointer behind its newest record. rest, reason: bytes behind
    the last whole record, and why they are none; a reason without rest: fewer records than Pm and Pn say.
    """

    ec1: int
    ec2: int
    pm: int
    pn: int
    records: tuple[EventRecord, ...]
    rest: bytes = b""
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class EventsQuery:
    """AFN0E F1, F2 down: the records Pm .. Pn - 1 are asked for."""

    pm: int
    pn: int


def read_record(erc: int, body: bytes, variants: Mapping[str, str] = NO_VARIANTS) -> EventRecord:
    """The record that these bytes say; variants: a profile's settings. Never raises on a body."""
    known = kind(erc)
    if known is None:
        return EventRecord(erc, _opening(body), None, None, None, body, UNKNOWN)
    try:
        fields = compile_form(known.form).decode(body, variants)
    except RemoteProtocolError as error:
        at = _opening(body) if known.form.startswith(_OPENS_WITH_TIME) else None
        return EventRecord(erc, at, None, None, None, body, error.reason)
    return EventRecord(erc, _instant(fields), _point(fields), _start(fields), fields, body)


def make_record(
    erc: int, values: Fields | Mapping[str, object], variants: Mapping[str, str] = NO_VARIANTS
) -> EventRecord:
    """A record from the values of its form, by name. LocalProtocolError where they do not fit, or the ERC is
    not in the table (then make an `EventRecord` of raw bytes)."""
    known = kind(erc)
    if known is None:
        raise LocalProtocolError(f"ERC{erc}: {UNKNOWN}")
    return read_record(erc, compile_form(known.form).encode(values, variants), variants)


def told(pm: int, pn: int) -> int:
    """How many records Pm and Pn name: 0 and MEMORY look alike, and 0 is said."""
    return (pn - pm) % MEMORY


def decode_events(raw: bytes, variants: Mapping[str, str] = NO_VARIANTS) -> Events:
    """The data of one AFN0E unit up. RemoteProtocolError where not even the pointers are there."""
    head = wire.parse(_HEAD, raw[:_HEAD_LENGTH], "events")
    ec1, ec2, pm, pn = int(head.ec1), int(head.ec2), int(head.pm), int(head.pn)
    # Pm = Pn with records behind it: the memory is full and all of it is told.
    wanted = told(pm, pn) or (MEMORY if len(raw) > _HEAD_LENGTH else 0)
    records, at = _records(raw, wanted)
    rest = raw[at:]
    reason = None
    if len(records) == wanted and rest:
        reason = f"{len(rest)} bytes behind the {wanted} records that are told"
    elif rest:
        reason = f"record {len(records) + 1} of {wanted} is cut short"
    elif len(records) < wanted:
        reason = f"{wanted} records are told, {len(records)} are there"
    return Events(
        ec1, ec2, pm, pn, tuple(read_record(erc, body, variants) for erc, body in records), rest, reason
    )


def encode_events(events: Events) -> bytes:
    """`decode_events` backwards, from the records' raw bodies.

    LocalProtocolError where a number or a body does not fit a byte, or the records are not as many as Pm and
    Pn say; with a reason they may be fewer, so that what came damaged goes back as it came.
    """
    count = len(events.records)
    if events.reason is None and (count % MEMORY != told(events.pm, events.pn) or count > MEMORY):
        raise LocalProtocolError(f"Pm {events.pm} and Pn {events.pn} do not name {count} records")
    if events.rest and events.reason is None:
        raise LocalProtocolError("bytes behind the records, and no reason for them")
    head: dict[str, Any] = {
        "ec1": events.ec1,
        "ec2": events.ec2,
        "pm": events.pm,
        "pn": events.pn,
    }
    parts = [wire.build(_HEAD, head, "events")]
    for record in events.records:
        parts.append(wire.build(_RECORD, {"erc": record.erc, "body": record.raw}, f"ERC{record.erc}"))
    return b"".join(parts) + events.rest


def events_length(body: bytes, at: int, end: int) -> int:
    """How long the unit is whose data begin at `body[at]`, none of it behind `end`: for the walk over units.

    By Pm, Pn and every Le; all that is left where a record is cut short; never less than the pointers, though
    they reach beyond `end`. Pm = Pn names no records where the frame ends or another unit of events follows,
    else a full memory.
    """
    data = body[at:end]
    if len(data) <= _HEAD_LENGTH:
        return _HEAD_LENGTH
    wanted = told(data[2], data[3])
    if not wanted:
        if data.startswith(_NEXT_UNITS, _HEAD_LENGTH):
            return _HEAD_LENGTH
        wanted = MEMORY
    records, behind = _records(data, wanted)
    return behind if len(records) == wanted else len(data)


def _records(data: bytes, wanted: int) -> tuple[list[tuple[int, bytes]], int]:
    """(ERC, body) of at most `wanted` whole records behind the head, and the place behind the last."""
    found: list[tuple[int, bytes]] = []
    at = _HEAD_LENGTH
    while len(found) < wanted and at + _RECORD_HEAD <= len(data):
        behind = at + _RECORD_HEAD + data[at + 1]
        if behind > len(data):
            break
        record = _RECORD.parse(data[at:behind])
        found.append((int(record.erc), bytes(record.body)))
        at = behind
    return found, at


def _opening(body: bytes) -> datetime | None:
    """The time that a body of no known form opens with."""
    if len(body) < _OPENING:
        return None
    try:
        return a15(body[:_OPENING])
    except ValueError:
        return None


def _instant(fields: Fields) -> datetime | None:
    values = (fields.get(name) for name in _INSTANTS)
    return next((value for value in values if isinstance(value, datetime)), None)


def _point(fields: Fields) -> int | None:
    if "point" not in fields or is_filler(fields.field("point").raw):
        return None
    point = fields["point"]
    number = point.get("number") if isinstance(point, Fields) else None
    return number if isinstance(number, int) else None


def _start(fields: Fields) -> bool | None:
    for name in _STARTS:
        flags = fields.get(name)
        if isinstance(flags, Fields) and "start" in flags and not is_filler(fields.field(name).raw):
            return bool(flags["start"])
    return None
