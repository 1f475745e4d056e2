"""The same tables under TimescaleDB: hypertable, compression, and the conflict rule on compressed chunks."""

from __future__ import annotations

import io
import os
import uuid
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from psycopg.conninfo import make_conninfo

from gateway.model import Kind, ReadingRow, Source
from gateway.storage import gaps
from gateway.storage.database import Database
from gateway.storage.exports import export_csv
from gateway.storage.readings import Filed, ReadingWriter
from tests.conftest import in_own_loop
from tests.gateway.storage.rows import MIDNIGHT, expected, row, sweep, totals
from tests.gateway.storage.test_conflict_rule import BATCHES, Filing

URL = os.environ.get("LINGDIAN_TEST_TIMESCALE_URL", "")

pytestmark = [
    pytest.mark.timescale,
    pytest.mark.skipif(not URL, reason="no TimescaleDB: LINGDIAN_TEST_TIMESCALE_URL is not set"),
]


@pytest.fixture
def timescale_conninfo() -> Iterator[str]:
    """A fresh migrated database on the TimescaleDB server."""
    name = f"test_{uuid.uuid4().hex[:12]}"

    async def migrate() -> None:
        async with await Database.open(make_conninfo(URL, dbname=name)) as database:
            await database.migrate()

    with psycopg.connect(URL, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}".encode())
        try:
            in_own_loop(migrate)
            yield make_conninfo(URL, dbname=name)
        finally:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


@pytest.fixture
async def timescale(timescale_conninfo: str) -> AsyncIterator[Database]:
    async with await Database.open(timescale_conninfo) as database:
        yield database


async def _one(database: Database, statement: str) -> tuple[object, ...]:
    async with database.connection() as connection:
        cursor = await connection.execute(statement.encode())
        row = await cursor.fetchone()
    assert row is not None
    return row


async def _compress(database: Database) -> int:
    """Compress every chunk; returns how many."""
    async with database.connection() as connection:
        cursor = await connection.execute(
            "SELECT count(compress_chunk(chunk, true)) FROM show_chunks('register_reading') AS chunk"
        )
        (count,) = await cursor.fetchone() or (0,)
    return int(count)


async def test_readings_are_a_hypertable_of_90_days_compressed_without_segments(timescale: Database) -> None:
    assert timescale.has_timescale
    assert await timescale.migrate() == []
    assert await _one(
        timescale,
        "SELECT time_interval = INTERVAL '90 days' FROM timescaledb_information.dimensions"
        " WHERE hypertable_name = 'register_reading'",
    ) == (True,)
    assert await _one(
        timescale,
        "SELECT segmentby, orderby FROM timescaledb_information.hypertable_compression_settings"
        " WHERE hypertable = 'register_reading'::regclass",
    ) == (None, "meter_id,frozen_at")
    assert await _one(
        timescale,
        "SELECT count(*) FROM timescaledb_information.jobs"
        " WHERE hypertable_name = 'register_reading' AND proc_name LIKE 'policy_compression%'",
    ) == (1,)


async def test_a_plain_database_becomes_a_hypertable_when_the_extension_comes(
    timescale_conninfo: str,
) -> None:
    with psycopg.connect(URL, autocommit=True) as connection:
        name = psycopg.conninfo.conninfo_to_dict(timescale_conninfo)["dbname"]
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())
        connection.execute(f"CREATE DATABASE {name}".encode())
    async with await Database.open(timescale_conninfo) as database:
        await _migrate_without_timescale(database)
        async with ReadingWriter(database) as writer:
            await writer.file([row(1), row(2)])
        assert await database.migrate() == ["0003_hypertable.timescale.sql"]
        assert len(await totals(database)) == 2
        assert await _one(database, "SELECT count(*) FROM show_chunks('register_reading')") == (1,)


async def _migrate_without_timescale(database: Database) -> None:
    import gateway.storage.database as module

    async def absent(connection: object) -> bool:
        return False

    kept = module._timescale_wanted
    module._timescale_wanted = absent
    try:
        await database.migrate()
    finally:
        module._timescale_wanted = kept


async def test_late_rows_come_into_a_compressed_chunk_under_the_rule(timescale: Database) -> None:
    (rows,) = sweep(3_000)
    before = [(*one[:3], MIDNIGHT - timedelta(days=1), *one[4:]) for one in rows]
    async with ReadingWriter(timescale) as writer:
        assert await writer.file(rows) == Filed(new=3_000)
        assert await _compress(timescale) >= 1
        # everything again: equal; a late day: new; and one row of each other outcome
        assert await writer.file(rows) == Filed(equal=3_000)
        assert await writer.file(before) == Filed(new=3_000)
        mixed: list[ReadingRow] = [
            row(1, rows[0][4], (1, 2, 3, 4)),
            row(2, 77, source=Source.METER),
            row(3, 78),
            row(4, rows[3][4], source=Source.METER),
            row(9_999, 5),
        ]
        assert await writer.file(mixed) == Filed(new=1, filled=2, won=1, lost=1)
        assert await writer.file(mixed[:1]) == Filed(equal=1)
    stands = await totals(timescale)
    assert len(stands) == 6_001
    assert [stands[number, MIDNIGHT] for number in (1, 2, 3)] == [1_000, 77, 3_000]
    assert await _one(
        timescale, "SELECT t1, t2, t3, t4 FROM register_reading WHERE meter_id = 1 AND t1 > 0"
    ) == (*(1, 2, 3, 4),)
    assert await _one(
        timescale, "SELECT source FROM register_reading WHERE meter_id = 4 ORDER BY source"
    ) == (1,)
    async with timescale.connection() as connection:
        cursor = await connection.execute("SELECT meter_id, total FROM reading_conflict ORDER BY meter_id")
        assert await cursor.fetchall() == [(2, 2_000), (3, 78)]


async def test_more_rows_than_timescale_opens_by_itself_come_into_a_compressed_chunk(
    timescale: Database,
) -> None:
    days = [sweep(20_000, day=-day)[0] for day in range(8)]
    async with ReadingWriter(timescale) as writer:
        for day in days[:7]:
            await writer.file(day)
        await _compress(timescale)
        # each late row shares a pack of a thousand with others: 160,000 rows are opened
        better = [(*one[:12], Source.METER.value, one[13]) for one in days[0]]
        assert await writer.file(better) == Filed(filled=20_000)
        assert await writer.file(days[7]) == Filed(new=20_000)
    assert await totals(timescale) == expected(days)


async def test_gaps_and_exports_see_through_compression(timescale: Database) -> None:
    async with timescale.connection() as connection:
        await connection.execute(
            "INSERT INTO meter (number, address, protocol, class, relay_kind, tariffs)"
            " SELECT 'M' || n, lpad(n::text, 12, '0'), 'dlt645-2007', 'single_phase', 'built_in', 4"
            " FROM generate_series(1, 50) AS n"
        )
    async with ReadingWriter(timescale) as writer:
        await writer.file(sweep(50)[0])
        plain = io.BytesIO()
        await export_csv(timescale, plain)
        await _compress(timescale)
        packed = io.BytesIO()
        assert await export_csv(timescale, packed) == 50
    assert packed.getvalue() == plain.getvalue()
    stands = await gaps.stored(timescale, range(40, 60), MIDNIGHT)
    assert {meter_id for meter_id, _, kind in stands if kind is Kind.DAY} == set(range(40, 51))


@pytest.mark.parametrize("compressed", [False, True])
def test_filing_follows_the_rule_here_too(timescale_conninfo: str, compressed: bool) -> None:
    filing = Filing(timescale_conninfo)

    @given(BATCHES)
    @settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
    def check(batches: list[list[list[ReadingRow]]]) -> None:
        filing.check(batches, between=_compress if compressed else None)

    try:
        check()
    finally:
        filing.close()
