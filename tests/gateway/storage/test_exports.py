"""Exports are the contract's bytes."""

from __future__ import annotations

import io
from datetime import date, timedelta
from pathlib import Path

import pyarrow.parquet
import pytest

from gateway.model import Kind, Quality, Quantity, Source
from gateway.storage.database import Database
from gateway.storage.exports import export_csv, export_parquet
from gateway.storage.readings import ReadingWriter
from tests.gateway.storage.district import grow
from tests.gateway.storage.rows import DAY, MIDNIGHT, row

pytestmark = pytest.mark.database

EXPECTED = b"""meter,quantity,frozen_at,total,t1,t2,t3,t4,quality,source
M000001,forward_active,2026-11-23T00:00:00+08:00,0.0000,,,,,good,terminal
M000001,forward_active,2026-11-24T00:00:00+08:00,123456.7800,100000.0000,23456.0700,0.7000,0.0100,late_read,meter
M000001,reverse_active,2026-11-24T00:00:00+08:00,-0.0001,,,,,good,terminal
M000002,forward_active,2026-11-24T00:00:00+08:00,99999999.9999,99999999.9999,,,,good,pushed
M000002,forward_reactive,2026-11-24T00:00:00+08:00,1.0000,,,,,good,terminal
M000002,reverse_active,2026-11-24T00:00:00+08:00,,,,,,contested,manual
"""


@pytest.fixture
async def filled(database: Database, tmp_path: Path) -> Database:
    one, two = await grow(database, tmp_path, 1, 2)
    reverse, reactive = Quantity.REVERSE_ACTIVE, Quantity.FORWARD_REACTIVE
    fine = (1_000_000_000, 234_560_700, 7_000, 100)
    async with ReadingWriter(database) as writer:
        await writer.file(
            [
                row(two, 99_999_999_9999, (99_999_999_9999, None, None, None), source=Source.PUSHED),
                row(two, None, quantity=reverse, source=Source.MANUAL, quality=Quality.CONTESTED),
                row(two, 10_000, quantity=reactive),
                row(one, 1_234_567_800, fine, source=Source.METER, quality=Quality.LATE_READ),
                row(one, -1, quantity=reverse),
                row(one, 0, at=MIDNIGHT - timedelta(days=1)),
                row(one, 5, kind=Kind.MONTH),
                row(one, 6, kind=Kind.LIVE, at=MIDNIGHT - timedelta(hours=5)),
            ]
        )
    return database


async def _csv(
    database: Database, first: date | None = None, last: date | None = None, kind: Kind | None = Kind.DAY
) -> bytes:
    target = io.BytesIO()
    rows = await export_csv(database, target, first=first, last=last, kind=kind)
    assert target.getvalue().count(b"\n") == rows + 1
    return target.getvalue()


async def test_the_csv_is_byte_for_byte_the_contract(filled: Database) -> None:
    assert await _csv(filled) == EXPECTED


async def test_days_are_business_days_and_both_are_included(filled: Database) -> None:
    lines = EXPECTED.splitlines(keepends=True)
    before = DAY - timedelta(days=1)
    assert await _csv(filled, DAY) == lines[0] + b"".join(lines[2:])
    assert await _csv(filled, before, before) == lines[0] + lines[1]
    assert await _csv(filled, last=before) == lines[0] + lines[1]
    assert await _csv(filled, before, DAY) == EXPECTED
    assert await _csv(filled, DAY + timedelta(days=1)) == lines[0]


async def test_other_kinds_are_exported_when_asked_for(filled: Database) -> None:
    month, live = await _csv(filled, kind=Kind.MONTH), await _csv(filled, DAY, DAY, Kind.LIVE)
    assert month.splitlines()[1:] == [
        b"M000001,forward_active,2026-11-24T00:00:00+08:00,0.0005,,,,,good,terminal"
    ]
    assert live.splitlines()[1:] == [
        b"M000001,forward_active,2026-11-23T19:00:00+08:00,0.0006,,,,,good,terminal"
    ]
    assert (await _csv(filled, kind=None)).count(b"\n") == 9


async def test_parquet_holds_the_same_rows(filled: Database, tmp_path: Path) -> None:
    target = tmp_path / "readings.parquet"
    assert await export_parquet(filled, target) == 6
    table = pyarrow.parquet.read_table(target)
    assert table.column_names == EXPECTED.splitlines()[0].decode().split(",")
    lines = []
    for one in table.to_pylist():
        at = one.pop("frozen_at")
        cells = ["" if value is None else str(value) for value in one.values()]
        lines.append(",".join([*cells[:2], at.isoformat(), *cells[2:]]))
    assert "\n".join(lines) == EXPECTED.decode().split("\n", 1)[1].rstrip("\n")


async def test_an_empty_database_gives_a_header_and_an_empty_table(
    database: Database, tmp_path: Path
) -> None:
    assert await _csv(database) == EXPECTED.splitlines(keepends=True)[0]
    assert await export_parquet(database, tmp_path / "none.parquet") == 0
    assert pyarrow.parquet.read_table(tmp_path / "none.parquet").num_rows == 0
