"""Readings as CSV or parquet, streaming: memory does not grow with the rows."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import BinaryIO

import pyarrow
import pyarrow.parquet

from gateway.clock import frozen_at
from gateway.model import Kind
from gateway.storage.database import Connection, Database, queries

PAGE_ROWS = 50_000
"""Rows of one parquet row group, about 10 MB while it is made."""

_ENERGY = pyarrow.decimal128(18, 4)
_PARQUET_COLUMNS = pyarrow.schema(
    [
        ("meter", pyarrow.string()),
        ("quantity", pyarrow.string()),
        ("frozen_at", pyarrow.timestamp("us", "Asia/Shanghai")),
        *((register, _ENERGY) for register in ("total", "t1", "t2", "t3", "t4")),
        ("quality", pyarrow.string()),
        ("source", pyarrow.string()),
    ]
)


async def export_csv(
    database: Database,
    target: BinaryIO,
    *,
    first: date | None = None,
    last: date | None = None,
    kind: Kind | None = Kind.DAY,
) -> int:
    """Write the readings of the business days first..last, both included (None = open); returns rows written.

    Columns `meter,quantity,frozen_at,total,t1,t2,t3,t4,quality,source`, sorted by the first three as
    text, LF, with a header; kWh with exactly 4 decimals, absent registers empty, frozen_at in +08:00.
    kind None = all.
    """
    async with database.connection() as connection, connection.cursor() as cursor:
        await _lift_time_limit(connection)
        async with cursor.copy(queries("exports")["csv"], _between(first, last, kind)) as copy:
            async for block in copy:
                target.write(block)
        return cursor.rowcount


async def export_parquet(
    database: Database,
    target: Path,
    *,
    first: date | None = None,
    last: date | None = None,
    kind: Kind | None = Kind.DAY,
) -> int:
    """The same rows as a parquet file: energies decimal(18, 4), frozen_at a timestamp of Asia/Shanghai."""
    rows = 0
    async with database.connection() as connection:
        await _lift_time_limit(connection)
        with pyarrow.parquet.ParquetWriter(target, _PARQUET_COLUMNS) as writer:
            async with connection.cursor("readings", binary=True) as cursor:
                await cursor.execute(queries("exports")["rows"], _between(first, last, kind))
                while page := await cursor.fetchmany(PAGE_ROWS):
                    columns = zip(_PARQUET_COLUMNS, zip(*page, strict=True), strict=True)
                    arrays = [
                        _energies(values) if field.type == _ENERGY else pyarrow.array(values, field.type)
                        for field, values in columns
                    ]
                    writer.write_batch(pyarrow.record_batch(arrays, schema=_PARQUET_COLUMNS))
                    rows += len(page)
    return rows


def _energies(values: tuple[int | None, ...]) -> pyarrow.Array:
    """Integers of 0.0001 as decimals of 4 places: the same bits under another name."""
    return (
        pyarrow.array(values, pyarrow.int64()).cast(pyarrow.decimal128(19, 0)).view(pyarrow.decimal128(19, 4))
    )


def _between(first: date | None, last: date | None, kind: Kind | None) -> dict[str, object]:
    return {
        "first": None if first is None else frozen_at(first),
        "last": None if last is None else frozen_at(last),
        "kind": kind,
    }


async def _lift_time_limit(connection: Connection) -> None:
    await connection.execute("SET LOCAL statement_timeout = 0")
