"""Readings and assets for the tests of storage, made short."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta

import psycopg

from gateway.clock import frozen_at
from gateway.model import Kind, Quality, Quantity, ReadingRow, Source
from gateway.storage.database import Database

DAY = date(2026, 11, 23)
MIDNIGHT = frozen_at(DAY)
NOW = datetime(2026, 11, 23, 20, 0, tzinfo=UTC)


def row(
    meter_id: int,
    total: int | None = 1_000_000,
    tariffs: Sequence[int | None] = (None, None, None, None),
    *,
    further: list[int | None] | None = None,
    quantity: Quantity = Quantity.FORWARD_ACTIVE,
    kind: Kind = Kind.DAY,
    at: datetime = MIDNIGHT,
    read_at: datetime | None = None,
    collected_at: datetime = NOW,
    source: Source = Source.TERMINAL,
    quality: Quality = Quality.GOOD,
) -> ReadingRow:
    """One reading; whatever is not said is usual."""
    t1, t2, t3, t4 = tariffs
    return (
        *(meter_id, quantity.value, kind.value, at, total, t1, t2, t3, t4, further),
        *(read_at, collected_at, source.value, quality.value),
    )


def sweep(meters: int, calls: int = 1, *, day: int = 0) -> list[list[ReadingRow]]:
    """`meters` readings of one midnight, cut into calls of the same size."""
    at = MIDNIGHT + timedelta(days=day)
    rows = [row(meter_id, 1000 * meter_id + 100 * day, at=at) for meter_id in range(1, meters + 1)]
    size = -(-meters // calls)
    return [rows[start : start + size] for start in range(0, meters, size)]


async def totals(database: Database) -> dict[tuple[int, datetime], int]:
    """What stands: total by meter and midnight. Asserts that no key stands twice."""
    async with database.connection() as connection:
        cursor = await connection.execute("SELECT meter_id, frozen_at, total FROM register_reading")
        rows = await cursor.fetchall()
    stands = {(meter_id, at): total for meter_id, at, total in rows}
    assert len(stands) == len(rows)
    return stands


def expected(calls: Sequence[Sequence[ReadingRow]]) -> dict[tuple[int, datetime], int | None]:
    """The totals of rows with different keys."""
    return {(one[0], one[3]): one[4] for call in calls for one in call}


def backend_of_writer(conninfo: str) -> int | None:
    """Process of the server that serves the writer of this database; None while there is none."""
    with psycopg.connect(conninfo, autocommit=True) as connection:
        found = connection.execute(
            "SELECT pid FROM pg_stat_activity"
            " WHERE datname = current_database() AND application_name = 'lingdian writer'"
        ).fetchone()
    return None if found is None else found[0]
