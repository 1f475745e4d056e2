"""A terminal's events: fetched from where the stored ones end, and filed when it sends them unasked.

The terminal keeps two rings of 256 records and tells by ACD and EC how far it has filled them. One task a
session follows: last of all urgencies, a few records an exchange, away from a sweep, and as long as it takes.
Where stored records end is in the database, committed with them; so nothing is lost or doubled by a restart.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Final

import structlog

from gateway.clock import from_device
from gateway.errors import InputError, LinkClosed, StorageError
from gateway.model import EventBatch, EventClass, EventRow, RawFrame
from gateway.session import asking, learning
from gateway.session.channel import Urgency
from protocols.q_gdw376 import events, messages
from protocols.q_gdw376.connection import Answered, Denied, Silent
from protocols.q_gdw376.fields import Field, Fields
from protocols.q_gdw376.frame import Frame

if TYPE_CHECKING:
    from gateway.session.conversation import Outcome
    from gateway.session.terminal import TerminalSession

log = structlog.get_logger()

EVENTS: Final = 0x0E
"""AFN of events."""

MEMORY: Final = events.MEMORY

AUTHENTICATION_FAILED: Final = 20
"""ERC of the record that holds a PW."""
_PW: Final = "pw"
_MASK: Final = "***"
_OPENING_TIME: Final = 5
"""Bytes of the time that it opens with."""

RECORDS_A_REQUEST: Final = 16
RECORD_BYTES: Final = 56
"""Most bodies are far shorter; so many records of this length fit the terminal's buffer."""

FETCH_TIMEOUT_S: Final = 15.0
"""A terminal answers this from its own memory."""

QUIET_S: Final = 3.0
"""So long nothing else was asked of the terminal before its events are: a sweep is never in between."""
QUIET_PATIENCE_S: Final = 300.0
"""After so long they are asked for all the same, one exchange at a time."""

EXCHANGES_A_ROUND: Final = 16
ROUND_PAUSE_S: Final = 10.0
"""Between two rounds: a terminal that has endless events costs no more than that."""

PAUSES_S: Final = (60.0, 120.0, 300.0, 900.0, 3600.0)
"""After a failure, and another one; the last again and again, while the session lives."""


@dataclass(frozen=True, slots=True)
class _Span:
    """Records to ask for: of `event_class` from pointer `begin`, `count` of them."""

    event_class: EventClass
    begin: int
    count: int

    @property
    def end(self) -> int:
        return (self.begin + self.count) % MEMORY


class EventFetch:
    """Belongs to one session."""

    def __init__(self, session: TerminalSession) -> None:
        self._session = session
        self._told: dict[EventClass, int] = {}
        """the pointer behind the newest record, as the terminal told it"""
        self._pointers: dict[EventClass, int] | None = None
        """the next record to ask for; None: not read yet"""
        self._task: asyncio.Task[None] | None = None
        self._step = RECORDS_A_REQUEST
        self._doubted: _Span | None = None
        """one record that the terminal would not give, once"""
        self._skipping = False
        """the last record was not to be had, twice"""

    # what the terminal tells

    def waiting(self, ec1: int, ec2: int) -> None:
        """The terminal counts so many important and normal events: fetch what is not stored yet, in time."""
        self._told = {EventClass.IMPORTANT: ec1, EventClass.NORMAL: ec2}
        self._begin()

    async def file(self, frame: Frame, received_at: datetime) -> str | None:
        """File an AFN0E frame that was not waited for. Returns when it is committed, with the reason why the
        frame is worth keeping raw, or None. StorageError."""
        session = self._session
        found = list(_events_in(frame, session.profile.variants))
        filed_any = False
        for event_class, told in found:
            rows = _rows(told)
            if not rows:
                continue
            batch = EventBatch(
                event_class, told.pm, len(rows), rows, received_at, pushed=True, contested=session.contested
            )
            filed_any = True
            if await self._store(batch) and not batch.contested:
                self._reaches(event_class, (told.pm + len(rows)) % MEMORY)
        if not filed_any:
            return "events that are not understood"
        return next((told.reason for _, told in found if told.reason is not None), None)

    def _reaches(self, event_class: EventClass, behind: int) -> None:
        """A new record was sent that lies before `behind`: what is before it and not stored is fetched. One
        that seems half a turn ahead is an old one."""
        had = None if self._pointers is None else self._pointers[event_class]
        told = self._told.get(event_class)
        ahead = 0 if had is None else (behind - had) % MEMORY
        further = told is None if had is None else (0 if told is None else (told - had) % MEMORY) < ahead
        if further and ahead <= MEMORY // 2:
            self._told[event_class] = behind
        self._begin()

    def end(self) -> None:
        """The session has ended."""
        if self._task is not None:
            self._task.cancel()

    # fetching

    def _begin(self) -> None:
        if not self._session.parts.settings.fetch_events or self._had_all():
            return
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._run(), name="events")

    def _had_all(self) -> bool:
        return self._pointers is not None and self._next_span() is None

    async def _run(self) -> None:
        """Round after round until all is had; ends with the link."""
        clock = self._session.parts.clock
        failures = 0
        try:
            await self._session.ready()
            while True:
                try:
                    pause = await self._round()
                except (StorageError, InputError) as error:
                    log.warning("events wait", terminal=self._session.address, why=str(error))
                    pause = None
                if pause == 0:
                    return
                if pause is None:
                    pause = PAUSES_S[min(failures, len(PAUSES_S) - 1)]
                    failures += 1
                else:
                    failures = 0
                await clock.sleep(pause)
        except LinkClosed:
            pass

    async def _round(self) -> float | None:
        """A few exchanges. Seconds until the next round: 0 where nothing is left to fetch, None after a
        failure."""
        session = self._session
        if session.contested or session.archive_in_doubt:
            return None  # nobody knows whose events these would be
        if self._pointers is None:
            self._pointers = await session.parts.store.event_pointers(session.assets.terminal_id)
        await self._quiet()
        async with session.parts.fetching_at_once:
            for _ in range(EXCHANGES_A_ROUND):
                span = self._next_span()
                if span is None:
                    return 0.0
                if not await self._fetch(span):
                    return None
                if session.quiet_for < QUIET_S:
                    break
        return ROUND_PAUSE_S

    async def _quiet(self) -> None:
        """Wait until the terminal is not being asked anything else, or patience ends."""
        session, clock = self._session, self._session.parts.clock
        end = clock.monotonic() + QUIET_PATIENCE_S
        while (wait := QUIET_S - session.quiet_for) > 0 and clock.monotonic() < end:
            await clock.sleep(wait)

    def _next_span(self) -> _Span | None:
        if self._pointers is None:
            return None
        for event_class in EventClass:
            begin = self._pointers[event_class]
            left = (self._told.get(event_class, begin) - begin) % MEMORY
            if left:
                room = (self._session.tx_buffer or asking.TX_BUFFER) // RECORD_BYTES
                return _Span(event_class, begin, max(1, min(left, self._step, room)))
        return None

    async def _fetch(self, span: _Span) -> bool:
        """One exchange, and what follows from it; False after a failure."""
        session = self._session
        request = events.read_events(span.event_class, span.begin, span.end)
        outcome = await session.exchange(
            request, Urgency.EVENTS, reply_timeout=FETCH_TIMEOUT_S, repeated=False
        )
        received_at = session.parts.clock.now()
        if isinstance(outcome, Silent):
            self._step = max(1, self._step // 2)
            return False
        if isinstance(outcome, Answered) and await self._take(span, outcome.frames, received_at):
            self._step = min(RECORDS_A_REQUEST, self._step * 2)
            self._doubted, self._skipping = None, False
            return True
        return await self._without(span, outcome, received_at)

    async def _take(self, span: _Span, frames: Sequence[Frame], received_at: datetime) -> bool:
        """Store an answer; False where it has nothing of what was asked."""
        told = [
            one
            for frame in frames
            for event_class, one in _events_in(frame, self._session.profile.variants)
            if event_class == span.event_class
        ]
        rows = tuple(row for one in told for row in _rows(one))
        places = {(row.pointer - span.begin) % MEMORY for row in rows}
        first = min(places, default=MEMORY)
        useful = first < span.count
        reached = first
        while reached in places and reached < span.count:
            reached += 1
        if rows:
            count = reached if useful else 0
            await self._store(EventBatch(span.event_class, span.begin, count, rows, received_at))
        if useful and first:
            self._lost(span, first, "its answer begins later")
        return useful

    async def _without(self, span: _Span, outcome: Outcome, received_at: datetime) -> bool:
        """The terminal does not give these records: ask for fewer, in the end for one; a single one that it
        does not give twice it does not have any more."""
        session = self._session
        if isinstance(outcome, Answered):
            for frame in outcome.frames:
                session.parts.raw.keep(
                    RawFrame(
                        received_at, session.address, "up", "events not understood", asking.as_sent(frame)
                    )
                )
        if span.count > 1:
            self._step = span.count // 2
            return True
        if not self._skipping and span != self._doubted:
            self._doubted = span
            return False
        self._skipping = True
        self._lost(span, 1, learning.denial(outcome) if isinstance(outcome, Denied) else "not understood")
        await self._store(EventBatch(span.event_class, span.begin, 1, (), received_at))
        return True

    def _lost(self, span: _Span, count: int, why: str) -> None:
        self._session.parts.metrics.events_lost.inc(count)
        log.warning(
            "events cannot be had",
            terminal=self._session.address,
            memory=span.event_class.name.lower(),
            pointer=span.begin,
            count=count,
            why=why,
        )

    async def _store(self, batch: EventBatch) -> int:
        """Commit; how many were new."""
        parts = self._session.parts
        new, pointer = await parts.store.file_events(self._session.assets.terminal_id, batch)
        if self._pointers is not None:
            self._pointers[batch.event_class] = pointer
        parts.metrics.events["pushed" if batch.pushed else "fetched"].inc(new)
        return new


def _events_in(frame: Frame, variants: Mapping[str, str]) -> Iterable[tuple[EventClass, events.Events]]:
    """The event units of a frame; those that are not understood are left out. variants: of the profile."""
    for unit in messages.decode(frame, variants):
        known = not unit.pn and unit.fn in (EventClass.IMPORTANT, EventClass.NORMAL)
        if known and isinstance(unit.value, events.Events):
            yield EventClass(unit.fn), unit.value


def _rows(told: events.Events) -> tuple[EventRow, ...]:
    """Its records with their places. No more than the memory holds."""
    return tuple(
        _row(record, (told.pm + place) % MEMORY) for place, record in enumerate(told.records[:MEMORY])
    )


def _row(record: events.EventRecord, pointer: int) -> EventRow:
    return EventRow(
        pointer,
        record.erc,
        None if record.at is None else from_device(record.at),
        record.point,
        record.start,
        [] if record.fields is None else [_field(one) for one in record.fields],
        record.reason,
        _without_password(record),
    )


def _without_password(record: events.EventRecord) -> bytes:
    """The body, with zeros for the PW that was tried: it may differ from the right one by a key stroke. Where
    the body is not understood, for all that may be PW."""
    if record.erc != AUTHENTICATION_FAILED:
        return record.raw
    begin, end = _OPENING_TIME, len(record.raw)
    if record.fields is not None:
        pw = record.fields.field(_PW)
        begin, end = pw.offset, pw.offset + len(pw.raw)
    kept = record.raw[:begin]
    return kept + bytes(max(0, end - begin)) + record.raw[end:]


def _field(field: Field) -> dict[str, object]:
    return {
        "name": field.name,
        "name_zh": field.name_zh,
        "value": _MASK if field.name == _PW else _plain(field.value),
        "unit": field.unit,
    }


def _plain(value: object) -> object:
    """A value for JSON; decimals and instants as text, so that nothing is rounded."""
    if isinstance(value, Fields):
        return [_field(one) for one in value]
    if isinstance(value, tuple | list):
        return [_plain(one) for one in value]
    if isinstance(value, datetime):
        return value.isoformat(sep=" ")
    if isinstance(value, date | Decimal):
        return str(value)
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode().replace("\0", "\N{REPLACEMENT CHARACTER}")
    return value
