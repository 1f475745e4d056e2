"""Events of terminals: stored once each together with the pointer up to which they are had, listed, and taken
off the worklist by somebody with a name.

Records and pointer are committed together: after a death of the gateway the fetch goes on where the stored
records end, and a record that comes twice is the same row.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from gateway.clock import SHANGHAI
from gateway.errors import InputError
from gateway.model import EventBatch, EventClass
from gateway.storage.database import Connection, Database, queries
from gateway.storage.evidence import note_audit, printable

MEMORY: Final = 256
"""Places of a terminal's memory; pointers count modulo this."""

KEPT_A_TERMINAL: Final = 10_000
"""Years of an ordinary terminal; one that is mad, or hostile, must not fill the disk: its oldest go."""

PAGE_EVENTS: Final = 1_000
"""Events read at a time when they are walked through; also the most that one page may have."""


@dataclass(frozen=True, slots=True)
class EventsFiled:
    """new: records that were not there yet; pointer: the next one to ask this memory for."""

    new: int
    pointer: int


@dataclass(frozen=True, slots=True)
class StoredEvent:
    """One event as people and programs are shown it."""

    event_id: int
    terminal: str
    event_class: str
    """`important` or `normal`"""
    pointer: int
    erc: int
    name: str
    """English; empty for a code that has no name"""
    name_zh: str
    occurred_at: datetime | None
    received_at: datetime
    pn: int | None
    meter: str | None
    """number of the meter that hung at that point then, by the assets"""
    starts: bool | None
    pushed: bool
    contested: bool
    needs_person: bool
    detail: list[dict[str, Any]]
    reason: str | None
    raw: bytes
    acknowledged_at: datetime | None
    acknowledged_by: str | None
    note: str

    def plain(self) -> dict[str, Any]:
        """Ready for JSON; instants in Shanghai time."""
        return {
            "id": self.event_id,
            "terminal": self.terminal,
            "class": self.event_class,
            "pointer": self.pointer,
            "erc": self.erc,
            "name": self.name,
            "name_zh": self.name_zh,
            "occurred_at": _shown(self.occurred_at),
            "received_at": _shown(self.received_at),
            "pn": self.pn,
            "meter": self.meter,
            "starts": self.starts,
            "pushed": self.pushed,
            "contested": self.contested,
            "needs_person": self.needs_person,
            "detail": self.detail,
            "reason": self.reason,
            "raw": self.raw.hex(),
            "acknowledged_at": _shown(self.acknowledged_at),
            "acknowledged_by": self.acknowledged_by,
            "note": self.note,
        }


def _shown(instant: datetime | None) -> str | None:
    return None if instant is None else instant.astimezone(SHANGHAI).isoformat(timespec="seconds")


async def pointers(database: Database, terminal_id: int) -> dict[EventClass, int]:
    """The next record to ask each memory for: 0 where none was ever had, as on the terminal's first day."""
    async with database.connection() as connection:
        cursor = await connection.execute(queries("events")["pointers"], (terminal_id,))
        had = {EventClass(code): pointer for code, pointer in await cursor.fetchall()}
    return {one: had.get(one, 0) for one in EventClass}


async def file(database: Database, terminal_id: int, batch: EventBatch) -> EventsFiled:
    """Store a run of records and move the pointer to its end, in one transaction.

    The pointer moves only where the run reaches back to it, so that a hole before a pushed record is fetched
    later. A pushed run in which nothing is new moves nothing (it may be an old frame sent again a whole
    turn of the memory later), nor does one of a contested address. A run without records moves it, too: the
    terminal has said that it does not have them.
    """
    statements = queries("events")
    rows = batch.rows
    given = {
        "terminal_id": terminal_id,
        "class": batch.event_class.value,
        "received_at": batch.received_at,
        "pushed": batch.pushed,
        "contested": batch.contested,
        "pointers": [row.pointer for row in rows],
        "ercs": [row.erc for row in rows],
        "occurred": [row.occurred_at for row in rows],
        "pns": [row.pn for row in rows],
        "starts": [row.starts for row in rows],
        "details": [json.dumps(row.detail, ensure_ascii=False) for row in rows],
        "reasons": [None if row.reason is None else printable(row.reason) for row in rows],
        "raws": [row.raw for row in rows],
    }
    async with database.connection() as connection:
        new = 0
        if rows:
            cursor = await connection.execute(statements["file_events"], given)
            new = cursor.rowcount
        if new:
            await connection.execute(
                statements["bound_events"], {"terminal_id": terminal_id, "most": KEPT_A_TERMINAL}
            )
        if batch.contested or (batch.pushed and not new):
            return EventsFiled(new, await _pointer(connection, given))
        moved = {
            "terminal_id": terminal_id,
            "class": batch.event_class.value,
            "begin": batch.begin,
            "count": batch.count,
            "end": (batch.begin + batch.count) % MEMORY,
            "at": batch.received_at,
        }
        cursor = await connection.execute(statements["move_pointer"], moved)
        row = await cursor.fetchone()
        assert row is not None
        return EventsFiled(new, row[0])


async def _pointer(connection: Connection, given: dict[str, Any]) -> int:
    cursor = await connection.execute(
        queries("events")["pointer"], {"terminal_id": given["terminal_id"], "class": given["class"]}
    )
    row = await cursor.fetchone()
    pointer: int = 0 if row is None else row[0]
    return pointer


async def page(
    database: Database,
    *,
    terminals: Collection[str] | None = None,
    since: datetime | None = None,
    worklist: bool = False,
    after: int = 0,
    rows: int = PAGE_EVENTS,
) -> list[StoredEvent]:
    """At most `rows` events with a number above `after`, in the order they came.

    terminals: only of these; since: received then or later; worklist: only those that wait for a person.
    """
    async with database.connection() as connection:
        cursor = await connection.execute(
            queries("events")["page"],
            {
                "terminals": None if terminals is None else list(terminals),
                "since": since,
                "worklist": worklist,
                "after": after,
                "rows": min(rows, PAGE_EVENTS),
            },
        )
        return [StoredEvent(*row) for row in await cursor.fetchall()]


async def walk(
    database: Database,
    *,
    terminals: Collection[str] | None = None,
    since: datetime | None = None,
    worklist: bool = False,
) -> AsyncIterator[StoredEvent]:
    """All of them, streaming; see `page`. No connection is held between two pages."""
    after = 0
    while found := await page(database, terminals=terminals, since=since, worklist=worklist, after=after):
        for one in found:
            yield one
        after = found[-1].event_id


async def acknowledge(
    database: Database, ids: Sequence[int], *, who: str, note: str, at: datetime
) -> list[int]:
    """Somebody has seen to these events: they leave the worklist, and it is noted in the audit.

    Returns those that were open; one that somebody else has acknowledged before keeps that name. InputError,
    and nothing done, where an event is not there or nobody's name is given.
    """
    if not who.strip():
        raise InputError("an acknowledgement needs a name 需要姓名: say who has seen to it")
    statements = queries("events")
    wanted = sorted(set(ids))
    async with database.connection() as connection:
        cursor = await connection.execute(statements["unknown_events"], (wanted,))
        if unknown := [str(one) for (one,) in await cursor.fetchall()]:
            raise InputError(f"no event {', '.join(unknown)} 无此事件; `lingdian events` shows their numbers")
        given = {"ids": wanted, "who": printable(who), "note": printable(note), "at": at}
        cursor = await connection.execute(statements["acknowledge"], given)
        done = sorted(one for (one,) in await cursor.fetchall())
        if done:
            detail = {"events": done, "note": printable(note)}
            await note_audit(connection, at, printable(who), "acknowledge events", detail)
        return done
