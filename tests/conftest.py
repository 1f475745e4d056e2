"""Servers and databases for tests: one embedded PostgreSQL a run, a fresh migrated database a test."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import uuid
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from gateway.storage import embedded
from gateway.storage.database import Database

EMPTY = b"""
DO $$ BEGIN
    EXECUTE (
        SELECT 'TRUNCATE ' || string_agg(quote_ident(tablename), ', ') || ' RESTART IDENTITY CASCADE'
        FROM pg_tables
        WHERE schemaname = 'public' AND tablename NOT IN
            ('schema_migration', 'quantity', 'reading_kind', 'reading_source', 'reading_quality',
            'event_code',
            'event_class')
    );
END $$
"""
"""Everything but the names of codes and the list of migrations."""


def in_own_loop(work: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    """Run a coroutine in a thread of its own, whatever loops there are here."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(lambda: asyncio.run(work())).result()


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """Conninfo of an embedded server that lives as long as the test run, in a folder with a short name."""
    folder = Path(tempfile.mkdtemp(prefix="lingdian-test-"))
    try:
        conninfo: str = in_own_loop(lambda: embedded.start(folder))
        with psycopg.connect(conninfo, autocommit=True) as connection:
            # Tests kill processes, not the machine: what the kernel holds is kept, no need to wait for disks.
            connection.execute("ALTER SYSTEM SET fsync = off")
            connection.execute("SELECT pg_reload_conf()")
        yield conninfo
    finally:
        in_own_loop(lambda: embedded.stop(folder))
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def spare_databases(postgres: str) -> list[str]:
    """Databases with our schema and nothing in it, for the next test: emptying is quicker than making."""
    return []


@pytest.fixture
def conninfo(postgres: str, spare_databases: list[str]) -> Iterator[str]:
    """A database with our schema and nothing in it. At the end whoever is still connected is cut off."""

    async def migrate() -> None:
        async with await Database.open(make_conninfo(postgres, dbname=name)) as database:
            await database.migrate()

    with psycopg.connect(postgres, autocommit=True) as connection:
        if spare_databases:
            name = spare_databases.pop()
        else:
            name = f"test_{uuid.uuid4().hex[:12]}"
            connection.execute(f"CREATE DATABASE {name} STRATEGY file_copy".encode())
            in_own_loop(migrate)
        yield make_conninfo(postgres, dbname=name)
        connection.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = %s", (name,)
        )
    with psycopg.connect(postgres, dbname=name, autocommit=True) as connection:
        connection.execute(EMPTY)
    spare_databases.append(name)


@pytest.fixture
async def database(conninfo: str) -> AsyncIterator[Database]:
    """The same, opened."""
    async with await Database.open(conninfo) as opened:
        yield opened
