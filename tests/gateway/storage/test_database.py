"""Opening, migrating, and the names of codes."""

from __future__ import annotations

import asyncio
import re
from contextlib import AsyncExitStack, suppress
from importlib import resources
from pathlib import Path

import psutil
import psycopg
import pytest
from psycopg_pool import AsyncConnectionPool

from gateway.errors import StorageError
from gateway.model import Kind, Quality, Quantity, Source
from gateway.storage import database as database_module
from gateway.storage.database import Connection, Database, queries

pytestmark = pytest.mark.database


async def test_migrations_are_applied_once_even_by_two_at_a_time(postgres: str) -> None:
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute("CREATE DATABASE twice")
        try:
            conninfo = psycopg.conninfo.make_conninfo(postgres, dbname="twice")
            async with await Database.open(conninfo) as one, await Database.open(conninfo) as two:
                first, second = await asyncio.gather(one.migrate(), two.migrate())
                plain = [name for name in database_module._migrations() if "timescale" not in name]
                assert sorted([*first, *second]) == sorted(plain)
                assert await one.migrate() == []
                assert one.has_timescale is False
        finally:
            connection.execute("DROP DATABASE twice WITH (FORCE)")


async def test_a_newer_database_is_left_alone(database: Database) -> None:
    async with database.connection() as connection:
        await connection.execute("INSERT INTO schema_migration (name, sha256) VALUES ('9999_later.sql', '')")
    try:
        with pytest.raises(StorageError, match="a newer program"):
            await database.migrate()
    finally:
        async with database.connection() as connection:
            await connection.execute("DELETE FROM schema_migration WHERE name = '9999_later.sql'")


async def test_an_edited_migration_is_refused_and_a_broken_one_leaves_nothing(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = dict(database_module._migrations())
    monkeypatch.setattr(
        database_module, "_migrations", lambda: ours | {"0001_assets.sql": ours["0001_assets.sql"] + b" "}
    )
    with pytest.raises(StorageError, match=r"0001_assets\.sql was edited"):
        await database.migrate()
    broken = b"CREATE TABLE half_made (); SELECT 1 / 0;"
    monkeypatch.setattr(database_module, "_migrations", lambda: ours | {"0100_broken.sql": broken})
    with pytest.raises(StorageError, match="division by zero"):
        await database.migrate()
    async with database.connection() as connection:
        cursor = await connection.execute("SELECT to_regclass('half_made')")
        assert await cursor.fetchone() == (None,)


@pytest.mark.parametrize(
    ("table", "enum"),
    [
        ("quantity", Quantity),
        ("reading_kind", Kind),
        ("reading_source", Source),
        ("reading_quality", Quality),
    ],
)
async def test_the_names_of_codes_are_those_of_the_program(
    database: Database, table: str, enum: type[Quantity | Kind | Source | Quality]
) -> None:
    async with database.connection() as connection:
        cursor = await connection.execute(f"SELECT code, label FROM {table} ORDER BY code".encode())
        assert await cursor.fetchall() == [(one.value, one.name.lower()) for one in enum]


async def test_the_ranks_and_decimals_of_sources_are_those_of_the_filing_statement(
    database: Database,
) -> None:
    async with database.connection() as connection:
        cursor = await connection.execute("SELECT code FROM reading_source ORDER BY rank")
        assert await cursor.fetchall() == [(source.value,) for source in Source]
        cursor = await connection.execute("SELECT code FROM reading_source WHERE decimals = 2 ORDER BY code")
        coarse = [code for (code,) in await cursor.fetchall()]
    assert f"source IN ({', '.join(map(str, coarse))})".encode() in queries("readings")["create_staging"]


def test_every_statement_has_a_name_and_says_what_it_is() -> None:
    folder = resources.files("gateway.storage").joinpath("queries")
    for file in folder.iterdir():
        room = file.name.removesuffix(".sql")
        for name, statement in queries(room).items():
            assert statement.startswith(b"-- "), f"{file.name}: {name} is not described"
        names = re.findall(r"^-- name: (\w+)$", file.read_text(), re.MULTILINE)
        assert len(set(names)) == len(names), file.name


async def test_connections_speak_utc_and_have_a_time_limit(conninfo: str) -> None:
    async with (
        await Database.open(conninfo, statement_timeout=0.2) as database,
        database.connection() as connection,
    ):
        cursor = await connection.execute("SHOW timezone")
        assert await cursor.fetchone() == ("UTC",)
        with pytest.raises(psycopg.errors.QueryCanceled):
            await connection.execute("SELECT pg_sleep(5)")


async def test_an_error_rolls_back_and_becomes_ours(database: Database) -> None:
    async def work() -> None:
        async with database.connection() as connection:
            await connection.execute("INSERT INTO organisation (name) VALUES ('x')")
            await connection.execute("SELECT nonsense")

    with pytest.raises(StorageError, match="does not help"):
        await work()
    async with database.connection() as connection:
        cursor = await connection.execute("SELECT count(*) FROM organisation")
        assert await cursor.fetchone() == (0,)


async def test_a_pool_outlives_cut_connections(database: Database) -> None:
    async with await psycopg.AsyncConnection.connect(database.conninfo, autocommit=True) as other:
        for _ in range(2):
            async with database.connection() as connection:
                await connection.execute("SELECT 1")
            await other.execute(
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
    async with database.connection() as connection:
        cursor = await connection.execute("SELECT 1")
        assert await cursor.fetchone() == (1,)


async def test_who_is_told_to_end_as_a_connection_comes_free_ends_and_gives_it_back(
    postgres: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the pool waits with `asyncio.wait_for`, which swallows that in Python 3.11."""
    real = AsyncConnectionPool.getconn

    async def swallowing(pool: AsyncConnectionPool[Connection], timeout: float | None = None) -> Connection:
        connection = await real(pool, timeout)
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(60 if ending else 0)
        return connection

    async def works_in_a_loop() -> None:
        while True:
            async with one.connection():
                pass

    ending = True
    monkeypatch.setattr(AsyncConnectionPool, "getconn", swallowing)
    async with await Database.open(postgres, connections=1) as one:
        worker = asyncio.ensure_future(works_in_a_loop())
        await asyncio.sleep(0.05)
        worker.cancel()
        await asyncio.wait([worker], timeout=10)
        assert worker.cancelled()
        ending = False
        async with asyncio.timeout(10), one.connection():
            pass


async def test_a_pool_whose_connections_are_all_dead_gives_a_new_one_soon(database: Database) -> None:
    async with AsyncExitStack() as stack:
        for _ in range(database_module.POOL_CONNECTIONS):
            await stack.enter_async_context(database.connection())
    async with await psycopg.AsyncConnection.connect(database.conninfo, autocommit=True) as other:
        await other.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
    async with asyncio.timeout(5), database.connection() as connection:
        await connection.execute("SELECT 1")


async def test_a_server_that_says_nothing_is_not_waited_for(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database_module, "CHECK_SECONDS", 0.3)
    monkeypatch.setattr(database_module, "LATELY_SECONDS", 0.0)  # what was just used is looked at, too
    stopped: list[psutil.Process] = []

    async def backend(connection: database_module.Connection) -> psutil.Process:
        cursor = await connection.execute("SELECT pg_backend_pid()")
        (pid,) = await cursor.fetchone() or (0,)
        return psutil.Process(pid)

    async def hang() -> None:
        async with database.within(1.0).connection() as connection:
            stopped.append(await backend(connection))
            stopped[-1].suspend()
            await connection.execute("SELECT 1")

    async with database.connection() as connection:
        stopped.append(await backend(connection))
    stopped[0].suspend()
    try:
        async with asyncio.timeout(20):
            async with database.connection() as connection:  # another one: that one is given up
                assert (await backend(connection)).pid != stopped[0].pid
            with pytest.raises(StorageError, match="no answer within 1 s"):
                await hang()
    finally:
        for process in stopped:
            process.resume()


@pytest.mark.parametrize(
    "conninfo", ["host=/nowhere dbname=x", "host=127.0.0.1 port=1 dbname=x", "not a conninfo"]
)
async def test_a_database_that_cannot_be_reached_is_a_storage_error(conninfo: str, tmp_path: Path) -> None:
    with pytest.raises(StorageError):
        await Database.open(conninfo)
