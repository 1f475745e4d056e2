"""What only the commands in PostgreSQL do: their chain of events, facts from tables, waits for the disk."""

from __future__ import annotations

import gc
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from gateway.command import BlockKind, MeterFacts, NotInstalled, Proof, State, Why, chained
from gateway.control.stores import step
from gateway.storage.commands import Commands
from gateway.storage.database import Database
from tests.gateway.control.either_store import NOW, HandClock, new
from tests.gateway.storage.district import grow

LOOKS = 50

# -- only in the database ----------------------------------------------------------------------------------


async def rows(database: Database, query: str) -> list[Any]:
    async with database.connection() as connection:
        return await (await connection.execute(query.encode())).fetchall()


@pytest.mark.database
async def test_the_chain_of_events_and_what_is_told(database: Database, tmp_path: Path) -> None:
    await grow(database, tmp_path, 1, 1)
    store = Commands(database, HandClock())  # type: ignore[arg-type]  # only `now` is asked
    async with store.desk(1) as desk:
        command = await desk.add(new(), State.QUEUED)
        command = await step(desk, command, State.SENDING, evidence={"frame": "68…16", "meter": "电表"})
        await step(desk, command, State.REFUSED, why=Why.KEEP_POWER_ON, evidence={"error": 4})
    events = await rows(database, "SELECT n, body, hash FROM relay_command_event ORDER BY n")
    assert [body["state"] for _, body, _ in events] == ["requested", "queued", "sending", "refused"]
    before = b""
    for _, body, hashed in events:
        before = chained(before, body)
        assert before == bytes(hashed)
    told = await rows(database, "SELECT type, data FROM outbox")
    assert [kind for kind, _ in told] == ["relay-command.refused"]
    assert told[0][1]["why"] == "keep_power_on"
    for statement in (
        "UPDATE relay_command_event SET body = '{}'",
        "DELETE FROM relay_command_event",
        "UPDATE relay_command_event SET n = n + 10, seal_id = 1",
    ):
        with pytest.raises(psycopg.errors.RaiseException, match="only added to"):
            async with await psycopg.AsyncConnection.connect(database.conninfo) as connection:
                await connection.execute(statement.encode())


@pytest.mark.database
async def test_who_looks_at_a_desk_leaves_nothing_for_the_collector_of_garbage(
    database: Database, tmp_path: Path
) -> None:
    await grow(database, tmp_path, 1, 1)
    store = Commands(database, HandClock())  # type: ignore[arg-type]  # only `now` is asked

    async def look() -> None:
        async with store.desk(1) as desk:
            assert desk.facts.meter_id == 1

    await look()
    gc.collect()
    gc.disable()
    try:
        for _ in range(LOOKS):
            await look()
        assert gc.collect() < LOOKS
    finally:
        gc.enable()


@pytest.mark.database
async def test_the_desk_of_a_meter_that_was_taken_away_is_that_of_its_last_place(
    database: Database, tmp_path: Path
) -> None:
    await grow(database, tmp_path, 3, 1)
    store = Commands(database, HandClock())  # type: ignore[arg-type]  # only `now` is asked

    async def place(meter_id: int) -> tuple[str, bool]:
        async with store.desk(meter_id) as desk:
            return desk.facts.terminal, desk.facts.installed

    async def run(statement: str, *values: object) -> None:
        async with database.connection() as connection:
            await connection.execute(statement.encode(), values)

    moved = (
        "INSERT INTO meter_install (meter_id, point_id, terminal_id, pn, port, valid_from, valid_to)"
        " SELECT 1, point_id, terminal_id, pn + 1, port, %s, %s FROM meter_install WHERE meter_id = %s"
    )
    day = timedelta(days=1)
    assert await place(1) == ("02000001", True)
    await run("UPDATE meter_install SET valid_to = %s WHERE meter_id = 1", NOW - 9 * day)
    assert await place(1) == ("02000001", False)
    await run("UPDATE meter_install SET valid_to = %s WHERE meter_id IN (2, 3)", NOW - 8 * day)
    await run(moved, NOW - 7 * day, NOW - 6 * day, 2)
    assert await place(1) == ("02000002", False)
    await run(moved, NOW - day, None, 3)
    assert await place(1) == ("02000003", True)
    await run("DELETE FROM meter_install")
    with pytest.raises(NotInstalled, match="never installed"):
        await place(1)


@pytest.mark.database
async def test_facts_follow_blocks_and_switches(database: Database, tmp_path: Path) -> None:
    await grow(database, tmp_path, 1, 2)
    store = Commands(database, HandClock())  # type: ignore[arg-type]  # only `now` is asked

    async def put(statement: str, *values: object) -> None:
        async with database.connection() as connection:
            await connection.execute(statement.encode(), values)

    async def seen() -> MeterFacts:
        async with store.desk(1) as desk:
            return desk.facts

    async def switch(name: str, scope: str, value: bool, approved_by: str | None = None) -> None:
        await put(
            "INSERT INTO control_setting (name, scope, value, set_by, set_at, approved_by)"
            " VALUES (%s, %s, %s::jsonb, 'ann', %s, %s)",
            name, scope, json.dumps(value), NOW, approved_by,
        )  # fmt: skip

    first = await seen()
    assert (first.brake, first.weather_halt, first.shadow, first.hold_since) == (False, False, True, None)
    await put("INSERT INTO organisation (name) VALUES ('north')")
    await put("INSERT INTO area (name, organisation_id) VALUES ('A1', 1)")
    await put("UPDATE metering_point SET area_id = 1")
    await switch("brake", "", True)
    await switch("weather-halt", "area:1", True)
    await switch("shadow", "organisation:1", False)
    await switch("hold", "", True)
    found = await seen()
    assert (found.area_id, found.organisation_id) == (1, 1)
    assert (found.brake, found.weather_halt, found.hold_since) == (True, True, NOW)
    assert found.shadow, "one person alone has ended the shadow mode"
    await switch("shadow", "organisation:1", False, "bob")
    await switch("brake", "", False)
    await switch("weather-halt", "area:1", False)
    await switch("hold", "", False)
    found = await seen()
    assert (found.brake, found.weather_halt, found.shadow, found.hold_since) == (False, False, False, None)
    for since, until, lifted in (
        (NOW - timedelta(hours=1), None, None),
        (NOW - timedelta(hours=2), NOW, None),
        (NOW + timedelta(hours=1), None, None),
        (NOW - timedelta(hours=1), None, NOW),
    ):
        await put(
            "INSERT INTO control_block (point_id, kind, since, until, source, set_by, set_at, lifted_at)"
            " VALUES (1, 'medical', %s, %s, 'billing', 'ann', %s, %s)",
            since, until, NOW, lifted,
        )  # fmt: skip
    (block,) = (await seen()).blocks
    assert (block.kind, block.since, block.until) == (BlockKind.MEDICAL, NOW - timedelta(hours=1), None)


@pytest.mark.database
async def test_only_what_a_read_finds_again_does_not_wait_for_the_disk(conninfo: str, tmp_path: Path) -> None:
    """Of all that is done at a desk: which transactions end before they are on the disk."""

    async def waits(connection: Any) -> str:
        cursor = await connection.execute("SHOW synchronous_commit")
        return str((await cursor.fetchone())[0])

    ended: list[str] = []

    class Watched(Database):
        """Looks at each transaction when it is about to be kept."""

        @asynccontextmanager
        async def connection(self) -> AsyncIterator[Any]:
            async with super().connection() as connection:
                keep = connection.commit

                async def commit() -> None:
                    ended.append(await waits(connection))
                    await keep()

                connection.commit = commit  # type: ignore[method-assign]
                try:
                    yield connection
                finally:
                    del connection.commit

    async with await Database.open(conninfo) as plain:
        assert await grow(plain, tmp_path, 1, 1) == [1]
        database = Watched(plain.conninfo, plain.pool, plain.has_timescale)
        store = Commands(database, HandClock())  # type: ignore[arg-type]  # only `now` is asked
        async with store.desk(1) as desk:
            command = await desk.add(new(), State.QUEUED)
        async with store.desk(1) as desk:
            assert desk.facts.open == (command,)
        async with store.desk(1) as desk:
            command = await desk.note(command, "clock", {"offset": 1})
        async with store.desk(1) as desk:
            command = await step(desk, command, State.SENDING)
        async with store.desk(1) as desk:
            command = await step(desk, command, State.ACKNOWLEDGED)
        async with store.desk(1) as desk:
            await step(desk, command, State.VERIFIED, proof=Proof.RELAY_READ)
    ours = ended[-6:]
    assert ours == ["on", "off", "off", "on", "off", "on"]
