"""Events in the database: once each, with the pointer in the same commit, listed and acknowledged."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from gateway.errors import InputError
from gateway.model import EventBatch, EventClass, EventRow
from gateway.storage import assets, events
from gateway.storage.database import Database
from protocols.q_gdw376.events import KINDS
from tests.gateway.storage.district import grow

pytestmark = pytest.mark.database

IMPORTANT, NORMAL = EventClass.IMPORTANT, EventClass.NORMAL
AT = datetime(2026, 11, 24, 2, 0, tzinfo=UTC)


def row(pointer: int, erc: int = 12, raw: bytes | None = None, pn: int | None = 2) -> EventRow:
    detail: list[dict[str, object]] = [
        {"name": "at", "name_zh": "发生时间", "value": "2026-11-24 10:00:00", "unit": ""}
    ]
    return EventRow(pointer, erc, AT, pn, True, detail, None, bytes([pointer]) if raw is None else raw)


def batch(pointers: Iterable[int], event_class: EventClass = IMPORTANT, **more: bool) -> EventBatch:
    """Records of these places, which follow one another."""
    rows = tuple(row(pointer % 256) for pointer in pointers)
    return EventBatch(event_class, rows[0].pointer, len(rows), rows, AT, **more)


async def terminal(database: Database, folder: Path) -> int:
    """One terminal with two meters; its number in the database."""
    await grow(database, folder, 1, 2)
    (one,) = [one async for one in assets.terminals(database)]
    return one.terminal_id


async def stored(database: Database) -> list[tuple[str, int, bytes]]:
    return [(one.event_class, one.pointer, one.raw) async for one in events.walk(database)]


async def test_the_pointer_moves_with_what_is_stored(database: Database, tmp_path: Path) -> None:
    number = await terminal(database, tmp_path)
    assert await events.pointers(database, number) == {IMPORTANT: 0, NORMAL: 0}
    assert await events.file(database, number, batch(range(3))) == events.EventsFiled(3, 3)
    assert await events.file(database, number, batch(range(1), NORMAL)) == events.EventsFiled(1, 1)
    assert await events.pointers(database, number) == {IMPORTANT: 3, NORMAL: 1}


async def test_the_same_again_is_the_same_and_another_record_in_its_place_is_not(
    database: Database, tmp_path: Path
) -> None:
    number = await terminal(database, tmp_path)
    await events.file(database, number, batch(range(3)))
    assert await events.file(database, number, batch(range(3))) == events.EventsFiled(0, 3)
    other = EventBatch(IMPORTANT, 1, 1, (row(1, raw=b"later"),), AT)
    assert await events.file(database, number, other) == events.EventsFiled(1, 3)
    of_other_code = EventBatch(IMPORTANT, 1, 1, (row(1, erc=13),), AT)
    assert (await events.file(database, number, of_other_code)).new == 1
    assert (await events.file(database, number, batch(range(1), NORMAL))).new == 1
    assert len(await stored(database)) == 6


async def test_a_run_over_the_end_of_the_memory(database: Database, tmp_path: Path) -> None:
    number = await terminal(database, tmp_path)
    assert (await events.file(database, number, batch(range(250)))).pointer == 250
    around = tuple(row(pointer % 256, raw=b"second time round") for pointer in range(250, 260))
    given = EventBatch(IMPORTANT, 250, 10, around, AT)
    assert await events.file(database, number, given) == events.EventsFiled(10, 4)


async def test_a_hole_stays_before_the_pointer(database: Database, tmp_path: Path) -> None:
    number = await terminal(database, tmp_path)
    assert await events.file(database, number, batch([5], pushed=True)) == events.EventsFiled(1, 0)
    assert await events.file(database, number, batch(range(6))) == events.EventsFiled(5, 6)


@pytest.mark.parametrize(
    ("begin", "count", "pointer"), [(10, 3, 13), (8, 5, 13), (8, 2, 10), (8, 1, 10), (11, 3, 10)]
)
async def test_a_run_moves_the_pointer_only_where_it_reaches_back_to_it(
    database: Database, tmp_path: Path, begin: int, count: int, pointer: int
) -> None:
    number = await terminal(database, tmp_path)
    await events.file(database, number, batch(range(10)))
    given = EventBatch(
        IMPORTANT, begin, count, tuple(row(p, raw=b"x") for p in range(begin, begin + count)), AT
    )
    assert (await events.file(database, number, given)).pointer == pointer


async def test_what_is_not_sure_moves_nothing(database: Database, tmp_path: Path) -> None:
    number = await terminal(database, tmp_path)
    assert await events.file(database, number, batch(range(2), contested=True)) == events.EventsFiled(2, 0)
    repeated = batch(range(2), pushed=True)
    assert await events.file(database, number, repeated) == events.EventsFiled(0, 0)
    nothing = EventBatch(IMPORTANT, 0, 0, (row(9, raw=b"y"),), AT)
    assert await events.file(database, number, nothing) == events.EventsFiled(1, 0)
    skipped = EventBatch(IMPORTANT, 0, 1, (), AT)
    assert await events.file(database, number, skipped) == events.EventsFiled(0, 1)


async def test_a_mad_terminal_does_not_fill_the_disk(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "KEPT_A_TERMINAL", 4)
    number = await terminal(database, tmp_path)
    await events.file(database, number, batch(range(3)))
    await events.file(database, number, batch(range(3, 6)))
    assert [pointer for _, pointer, _ in await stored(database)] == [2, 3, 4, 5]


async def test_texts_that_the_database_cannot_hold(database: Database, tmp_path: Path) -> None:
    number = await terminal(database, tmp_path)
    odd = EventRow(0, 255, None, None, None, [], "not\0understood", b"\0")
    await events.file(database, number, EventBatch(IMPORTANT, 0, 1, (odd,), AT))
    (one,) = [one async for one in events.walk(database)]
    assert (one.name, one.needs_person, one.occurred_at, one.raw) == ("", False, None, b"\0")
    assert one.plain()["raw"] == "00"


async def test_listing_names_the_meter_of_that_day(database: Database, tmp_path: Path) -> None:
    number = await terminal(database, tmp_path)
    (known,) = [one async for one in assets.terminals(database)]
    old = next(point for point in known.points if point.pn == 2)
    await assets.replace_meter(
        database,
        old.meter,
        "999",
        address="000000000999",
        at=AT + timedelta(hours=1),
        stop_read=1,
        start_read=0,
        reason="",
    )
    later = EventRow(1, 12, AT + timedelta(hours=2), 2, False, [], None, b"later")
    nobody = EventRow(2, 3, AT, None, None, [], None, b"nobody")
    rows = (row(0), later, nobody)
    await events.file(database, number, EventBatch(IMPORTANT, 0, 3, rows, AT))
    found = [one async for one in events.walk(database)]
    assert [one.meter for one in found] == [old.meter, "999", None]
    assert found[0].plain() | {"id": 0} == {
        "id": 0, "terminal": known.address, "class": "important", "pointer": 0, "erc": 12,
        "name": "Meter clock off", "name_zh": "电能表时间超差", "occurred_at": "2026-11-24T10:00:00+08:00",
        "received_at": "2026-11-24T10:00:00+08:00", "pn": 2, "meter": old.meter, "starts": True,
        "pushed": False, "contested": False, "needs_person": True, "detail": row(0).detail, "reason": None,
        "raw": "00", "acknowledged_at": None, "acknowledged_by": None, "note": "",
    }  # fmt: skip


async def test_pages_and_what_they_may_be_narrowed_to(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "PAGE_EVENTS", 2)
    await grow(database, tmp_path, 2, 1)
    one, two = [one async for one in assets.terminals(database)]
    await events.file(database, one.terminal_id, batch(range(5)))
    early = EventBatch(IMPORTANT, 0, 1, (row(0, erc=24),), AT - timedelta(days=3))
    await events.file(database, two.terminal_id, early)
    assert len([1 async for _ in events.walk(database)]) == 6
    of_two = [found async for found in events.walk(database, terminals=[two.address])]
    assert [(found.terminal, found.erc) for found in of_two] == [(two.address, 24)]
    assert len([1 async for _ in events.walk(database, since=AT)]) == 5
    assert [found.erc async for found in events.walk(database, worklist=True)] == [12] * 5
    assert len(await events.page(database, rows=100)) == 2


async def test_acknowledging_takes_a_name_and_is_in_the_audit(database: Database, tmp_path: Path) -> None:
    number = await terminal(database, tmp_path)
    await events.file(database, number, batch(range(3)))
    first, second, third = [one.event_id async for one in events.walk(database)]
    with pytest.raises(InputError, match="name"):
        await events.acknowledge(database, [first], who=" ", note="", at=AT)
    with pytest.raises(InputError, match="no event 999"):
        await events.acknowledge(database, [first, 999], who="Li", note="", at=AT)
    assert await events.acknowledge(database, [first, second], who="Li", note="seen", at=AT) == [
        first,
        second,
    ]
    again = await events.acknowledge(database, [second, third], who="Wang", note="", at=AT)
    assert again == [third]
    found = {one.event_id: (one.acknowledged_by, one.note) async for one in events.walk(database)}
    assert found == {first: ("Li", "seen"), second: ("Li", "seen"), third: ("Wang", "")}
    assert [one async for one in events.walk(database, worklist=True)] == []
    async with database.connection() as connection:
        cursor = await connection.execute(
            "SELECT who, what, detail FROM audit WHERE what <> 'import assets' ORDER BY audit_id"
        )
        audit = await cursor.fetchall()
    assert audit == [
        ("Li", "acknowledge events", {"events": [first, second], "note": "seen"}),
        ("Wang", "acknowledge events", {"events": [third], "note": ""}),
    ]


async def test_the_codes_are_those_of_the_protocol(database: Database) -> None:
    async with database.connection() as connection:
        cursor = await connection.execute(
            "SELECT erc, name_en, name_zh, needs_person FROM event_code ORDER BY erc"
        )
        assert await cursor.fetchall() == [
            (kind.erc, kind.name_en, kind.name_zh, kind.needs_person)
            for kind in sorted(KINDS.values(), key=lambda kind: kind.erc)
        ]
        cursor = await connection.execute("SELECT erc FROM event_code WHERE needs_person ORDER BY erc")
        assert [erc for (erc,) in await cursor.fetchall()] == [3, 8, 12, 14, 20, 31, 35]
        cursor = await connection.execute("SELECT code, label FROM event_class ORDER BY code")
        assert await cursor.fetchall() == [(one.value, one.name.lower()) for one in EventClass]
