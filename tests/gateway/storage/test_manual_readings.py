"""Readings that people took."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.model import Quality, Source
from gateway.storage.csv_files import ImportReport
from gateway.storage.database import Database
from gateway.storage.manual_readings import import_readings
from gateway.storage.readings import ReadingWriter
from tests.gateway.storage.district import grow
from tests.gateway.storage.rows import NOW, row

pytestmark = pytest.mark.database

HEADER = "meter,quantity,frozen_at,total,t1,t2,t3,t4,reader,read_at"
GOOD = "M000001,forward_active,2026-11-24T00:00:00+08:00,123.4500,100,23.45,,,li,2026-11-24T01:00:00+08:00"


async def _bring(database: Database, folder: Path, *rows: str, keep_going: bool = False) -> ImportReport:
    file = folder / "readings.csv"
    file.write_text("\n".join([HEADER, *rows]) + "\n")
    report = await import_readings(database, file, keep_going=keep_going, at=NOW)
    assert all(problem.startswith(f"{file}:") for problem in report.problems)
    return report


async def test_a_reading_by_hand_is_filed_with_who_read_it_and_when(
    database: Database, tmp_path: Path
) -> None:
    (meter_id,) = await grow(database, tmp_path, 1, 1)
    assert await _bring(database, tmp_path, GOOD) == ImportReport(new=1)
    assert await _bring(database, tmp_path, GOOD) == ImportReport(same=1)
    async with database.connection() as connection:
        cursor = await connection.execute(
            "SELECT meter_id, total, t1, t2, t3, source, quality FROM register_reading"
        )
        assert await cursor.fetchall() == [
            (meter_id, 1_234_500, 1_000_000, 234_500, None, Source.MANUAL, Quality.GOOD)
        ]
        cursor = await connection.execute("SELECT meter_id, reader, total FROM manual_reading")
        assert await cursor.fetchall() == [(meter_id, "li", 1_234_500)]


async def test_what_was_read_electrically_stays_and_the_other_is_kept_aside(
    database: Database, tmp_path: Path
) -> None:
    (meter_id,) = await grow(database, tmp_path, 1, 1)
    async with ReadingWriter(database) as writer:
        await writer.file([row(meter_id, 1_000)])
    assert await _bring(database, tmp_path, GOOD) == ImportReport(conflicts=1)


async def test_a_reading_a_day_late_says_so(database: Database, tmp_path: Path) -> None:
    await grow(database, tmp_path, 1, 1)
    early = GOOD.replace("2026-11-24T00:00:00", "2026-11-20T00:00:00")
    await _bring(database, tmp_path, early)
    async with database.connection() as connection:
        cursor = await connection.execute("SELECT quality FROM register_reading")
        assert await cursor.fetchone() == (Quality.LATE_READ,)


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("M000001", "M9", "not in the assets"),
        ("forward_active", "forward", "must be one of forward_active"),
        ("2026-11-24T00:00:00+08:00", "2026-11-24T00:15:00+08:00", "must be a midnight"),
        ("2026-11-24T00:00:00+08:00", "yesterday", "must be an instant"),
        ("2026-11-24T00:00:00+08:00", "2026-11-25T00:00:00+08:00", "lies ahead"),
        ("2026-11-24T01:00:00+08:00", "2026-11-23T23:00:00+08:00", "before the midnight"),
        ("123.4500", "123.456", "at most 2 decimals"),
        ("123.4500", "-1", "at most 2 decimals"),
        ("123.4500", "1e5", "at most 2 decimals"),
        ("123.4500", "", "is empty"),
        (",li,", ",,", "is empty"),
    ],
)
async def test_a_bad_row_is_named_and_nothing_is_filed(
    database: Database, tmp_path: Path, old: str, new: str, reason: str
) -> None:
    await grow(database, tmp_path, 1, 2)
    other = GOOD.replace("M000001", "M000002")
    report = await _bring(database, tmp_path, other, GOOD.replace(old, new, 1))
    assert report.bad == 1
    assert f"{tmp_path}/readings.csv:3:" in report.problems[0]
    assert reason in report.problems[0]
    async with database.connection() as connection:
        cursor = await connection.execute("SELECT count(*) FROM register_reading")
        assert await cursor.fetchone() == (0,)
    report = await _bring(database, tmp_path, other, GOOD.replace(old, new, 1), keep_going=True)
    assert (report.new, report.bad) == (1, 1)


async def test_one_midnight_twice_names_both_lines(database: Database, tmp_path: Path) -> None:
    await grow(database, tmp_path, 1, 1)
    report = await _bring(database, tmp_path, GOOD, GOOD.replace("123", "124"))
    assert report.bad == 2
    assert "line 3 too" in report.problems[0]
    assert "line 2 too" in report.problems[1]
