"""Terminals as they are read back, what they say of themselves, and the replacing of meters."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest

from gateway.errors import InputError, StorageError
from gateway.model import RawFrame, SignOfLife
from gateway.storage import assets, evidence
from gateway.storage.database import Database
from tests.gateway.storage.district import grow

pytestmark = pytest.mark.database

AT = datetime(2026, 11, 20, 2, 0, tzinfo=UTC)


async def test_terminals_stream_in_the_order_of_their_addresses(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(assets, "PAGE_TERMINALS", 3)
    await grow(database, tmp_path, 10, 4)
    found = [one async for one in assets.terminals(database)]
    assert [one.address for one in found] == [f"0200{number:04x}" for number in range(1, 11)]
    assert [[point.pn for point in one.points] for one in found] == [[1, 2, 3, 4]] * 10
    some = [one async for one in assets.terminals(database, ["02000009", "02000002", "02009999"])]
    assert some == [found[1], found[8]]
    assert await assets.terminal(database, "02000005") == found[4]
    assert await assets.terminal(database, "02009999") is None


async def test_an_archive_never_read_is_not_an_empty_one(database: Database, tmp_path: Path) -> None:
    await grow(database, tmp_path, 1, 2)
    (one,) = [one async for one in assets.terminals(database)]
    assert one.archive is None
    await assets.save_archive(database, one.terminal_id, {}, AT)
    assert await assets.terminal(database, one.address) == replace(one, archive={})
    held = {1: "000000000001", 2: "000000000009"}
    await assets.save_archive(database, one.terminal_id, {5: "000000000005"}, AT)
    await assets.save_archive(database, one.terminal_id, held, AT)
    assert await assets.terminal(database, one.address) == replace(one, archive=held)


async def test_every_login_is_a_new_generation_and_an_old_one_holds_nothing(
    database: Database, tmp_path: Path
) -> None:
    await grow(database, tmp_path, 1, 1)
    (one,) = [one async for one in assets.terminals(database)]
    generations = await asyncio.gather(
        *(assets.login(database, one.terminal_id, "worker", "peer", AT) for _ in range(5))
    )
    assert sorted(generations) == [1, 2, 3, 4, 5]
    signs = [SignOfLife(one.terminal_id, 5, AT + timedelta(minutes=1)), SignOfLife(999, 1, AT)]
    assert await assets.touch(database, signs) == {one.terminal_id}
    assert await assets.touch(database, [SignOfLife(one.terminal_id, 4, AT + timedelta(minutes=2))]) == set()
    async with database.connection() as connection:
        cursor = await connection.execute("SELECT last_frame FROM terminal_session")
        assert await cursor.fetchall() == [(AT + timedelta(minutes=1),)]
    with pytest.raises(StorageError):
        await assets.login(database, 999, "worker", "peer", AT)


async def test_the_clock_of_a_terminal_is_kept(database: Database, tmp_path: Path) -> None:
    await grow(database, tmp_path, 1, 1)
    await assets.note_clock(database, 1, -86_400.5, AT)
    async with database.connection() as connection:
        cursor = await connection.execute("SELECT clock_offset_seconds, clock_read_at FROM terminal")
        assert await cursor.fetchone() == (-86_400.5, AT)


async def test_strangers_are_counted_and_the_list_is_bounded(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(assets, "UNREGISTERED_KEPT", 3)
    for minute in range(5):
        await assets.note_unregistered(database, f"0200000{minute}", "peer", AT + timedelta(minutes=minute))
    await assets.note_unregistered(database, "02000003", "other", AT + timedelta(minutes=9))
    listed = await assets.unregistered(database)
    assert [(one.address, one.logins) for one in listed] == [
        ("02000003", 2),
        ("02000004", 1),
        ("02000002", 1),
    ]
    assert (listed[0].peer, listed[0].first_seen) == ("other", AT + timedelta(minutes=3))


async def _replace(database: Database, old: str, new: str, address: str, at: datetime = AT) -> None:
    await assets.replace_meter(
        database, old, new, address=address, at=at, stop_read=123_4500, start_read=1_0000, reason="broken"
    )


async def test_a_replaced_meter_keeps_its_past_and_the_point_stays(
    database: Database, tmp_path: Path
) -> None:
    await grow(database, tmp_path, 1, 2)
    await _replace(database, "M000001", "NEW", "000000000077")
    (one,) = [one async for one in assets.terminals(database)]
    assert [(p.meter, p.pn, p.address, p.valid_from, p.valid_to) for p in one.points] == [
        ("M000001", 1, "000000000001", None, AT),
        ("NEW", 1, "000000000077", AT, None),
        ("M000002", 2, "000000000002", None, None),
    ]
    assert [p.meter for p in one.points if p.holds_at(AT)] == ["NEW", "M000002"]
    async with database.connection() as connection:
        cursor = await connection.execute(
            "SELECT point_id, start_read, stop_read, reason FROM meter_install WHERE pn = 1"
            " ORDER BY install_id"
        )
        old, new = await cursor.fetchall()
        assert old == (new[0], None, 123_4500, "broken")
        assert new[1:] == (1_0000, None, "broken")
        cursor = await connection.execute(
            "SELECT what, detail->>'new' FROM audit ORDER BY audit_id DESC LIMIT 1"
        )
        assert await cursor.fetchone() == ("replace meter", "NEW")


@pytest.mark.parametrize(
    ("change", "counts"),
    [
        ("UPDATE terminal SET profile = 'slow' WHERE terminal_id = 1", True),
        ("UPDATE meter SET address = '000000000077' WHERE meter_id = 1", True),
        ("UPDATE metering_point SET role = 'area_gateway' WHERE point_id = 1", True),
        ("UPDATE meter_install SET valid_to = now() WHERE install_id = 1", True),
        ("DELETE FROM meter_install WHERE install_id = 1", True),
        ("UPDATE terminal SET clock_offset_seconds = 1, clock_read_at = now()", False),
        ("UPDATE meter SET clock_offset_seconds = 1", False),
        ("UPDATE metering_point SET customer_id = NULL", False),
    ],
)
async def test_what_the_assets_of_a_terminal_are_made_of_is_counted_when_it_changes(
    database: Database, tmp_path: Path, change: str, counts: bool
) -> None:
    await grow(database, tmp_path, 1, 2)
    (before,), known = [one async for one in assets.terminals(database)], await assets.changes(database)
    async with database.connection() as connection:
        await connection.execute(change.encode())
    (after,) = [one async for one in assets.terminals(database)]
    assert (after != before, await assets.changes(database) != known) == (counts, counts)


async def test_a_change_is_counted_when_it_can_be_seen_whichever_was_begun_first(
    database: Database, tmp_path: Path
) -> None:
    await grow(database, tmp_path, 2, 1)
    counted = [await assets.changes(database)]
    rename = b"UPDATE terminal SET profile = 'new' WHERE terminal_id = %s"
    async with database.connection() as slow:
        await slow.execute(rename, (1,))
        async with database.connection() as quick:
            await quick.execute(rename, (2,))
        counted.append(await assets.changes(database))
        counted.append(await assets.changes(database))
    counted.append(await assets.changes(database))
    first, second, third, last = counted
    assert first < second == third < last


@pytest.mark.parametrize(
    ("old", "new", "address", "at", "reason"),
    [
        ("M000009", "NEW", "000000000077", AT, "not installed anywhere"),
        ("M000001", "M000001", "000000000077", AT, "cannot replace itself"),
        ("M000001", "M000002", "000000000077", AT, "is installed at terminal 02000001, p2"),
        ("M000001", "NEW", "000000000002", AT, "is that of meter M000002"),
        ("M000001", "NEW", "77", AT, "not 12 digits"),
        ("SECOND", "NEW", "000000000077", AT, "was installed at"),
        ("M000002", "FIRST", "000000000077", AT - timedelta(days=1), "was installed elsewhere until"),
    ],
)
async def test_a_replacement_that_cannot_be_is_refused_with_the_reason(
    database: Database, tmp_path: Path, old: str, new: str, address: str, at: datetime, reason: str
) -> None:
    await grow(database, tmp_path, 1, 3)
    await _replace(database, "M000003", "FIRST", "000000000011", AT - timedelta(days=9))
    await _replace(database, "FIRST", "SECOND", "000000000012", AT + timedelta(hours=1))
    before = [one async for one in assets.terminals(database)]
    with pytest.raises(InputError, match=reason):
        await _replace(database, old, new, address, at)
    assert [one async for one in assets.terminals(database)] == before


async def test_the_database_itself_keeps_two_meters_from_one_place(
    database: Database, tmp_path: Path
) -> None:
    await grow(database, tmp_path, 2, 2)
    async with await psycopg.AsyncConnection.connect(database.conninfo, autocommit=True) as connection:
        for clash in (
            "UPDATE meter_install SET pn = 1 WHERE install_id = 2",
            "UPDATE meter_install SET meter_id = 1 WHERE install_id = 4",
            "UPDATE meter_install SET point_id = 1 WHERE install_id = 4",
            "INSERT INTO meter_install (point_id, meter_id, terminal_id, pn, port, valid_from)"
            " VALUES (1, 1, 1, 1, 1, now())",
        ):
            with pytest.raises(psycopg.errors.ExclusionViolation):
                await connection.execute(clash.encode())
        await connection.execute("UPDATE meter_install SET pn = 3 - pn WHERE terminal_id = 1")


async def test_raw_frames_are_kept_and_the_oldest_go(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evidence, "RAW_FRAMES_KEPT", 5)
    for turn in range(4):
        frames = [RawFrame(AT, f"t\0{turn}", "up", "damaged", bytes([turn, n])) for n in range(3)]
        await evidence.keep_raw_frames(database, frames)
    await evidence.keep_raw_frames(database, [])
    async with database.connection() as connection:
        cursor = await connection.execute("SELECT terminal, raw FROM raw_frame ORDER BY raw_frame_id")
        kept = await cursor.fetchall()
    assert [bytes(raw) for _, raw in kept] == [b"\2\1", b"\2\2", b"\3\0", b"\3\1", b"\3\2"]
    assert kept[0][0] == "t\N{REPLACEMENT CHARACTER}2"
