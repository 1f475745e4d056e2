"""The file of `lingdian read --offline` in the database: by asset number or address, once, and never over
what stands."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from gateway.cli import app
from gateway.clock import SHANGHAI
from gateway.field.offline import Register
from gateway.field.offline_file import ReadingFile
from gateway.model import Kind, Quality, Quantity, Source
from gateway.storage.assets import replace_meter
from gateway.storage.csv_files import ImportReport
from gateway.storage.database import Database
from gateway.storage.manual_readings import import_readings
from gateway.storage.readings import ReadingWriter
from tests.gateway.storage.district import grow
from tests.gateway.storage.rows import MIDNIGHT, NOW, row

pytestmark = pytest.mark.database

ADDRESS, OTHER = "000000000001", "000000000002"
READ_AT = MIDNIGHT + timedelta(hours=2)

FROZEN = Register(
    ADDRESS, Quantity.FORWARD_ACTIVE, Kind.DAY, MIDNIGHT, (1_234_500, 1_000_000, 234_500), Quality.GOOD,
    READ_AT, 12.4,
)  # fmt: skip
PRESENT = replace(FROZEN, kind=Kind.LIVE, frozen_at=READ_AT, values=(1_240_000,))


def written(folder: Path, *registers: Register, meter: str = "") -> Path:
    file = folder / "round.csv"
    with ReadingFile(file, "li (direct line)") as kept:
        for register in registers:
            kept.add(register, meter)
    return file


async def bring(database: Database, file: Path, **options: Any) -> ImportReport:
    return await import_readings(database, file, at=NOW, **options)


async def stored(database: Database) -> list[tuple[Any, ...]]:
    async with database.connection() as connection:
        cursor = await connection.execute(
            "SELECT meter_id, kind, frozen_at, total, t1, t2, source, quality"
            " FROM register_reading ORDER BY kind"
        )
        return await cursor.fetchall()


async def conflicts(database: Database) -> list[tuple[Any, ...]]:
    async with database.connection() as connection:
        cursor = await connection.execute("SELECT meter_id, total, source FROM reading_conflict")
        return await cursor.fetchall()


async def test_the_whole_file_is_taken_by_address_and_once(database: Database, tmp_path: Path) -> None:
    (meter_id, _) = await grow(database, tmp_path, 1, 2)
    file = written(tmp_path, FROZEN, PRESENT)
    assert await bring(database, file, dry_run=True) == ImportReport(new=2)
    assert await stored(database) == []
    assert await bring(database, file) == ImportReport(new=2)
    manual, good = Source.MANUAL.value, Quality.GOOD.value
    stands = [
        (meter_id, Kind.DAY.value, MIDNIGHT, 1_234_500, 1_000_000, 234_500, manual, good),
        (meter_id, Kind.LIVE.value, READ_AT, 1_240_000, None, None, manual, good),
    ]
    assert await stored(database) == stands
    assert await bring(database, file, dry_run=True) == ImportReport(same=2)
    assert await bring(database, file) == ImportReport(same=2)
    assert await stored(database) == stands
    async with database.connection() as connection:
        cursor = await connection.execute("SELECT reader, count(*) FROM manual_reading GROUP BY reader")
        assert await cursor.fetchall() == [("li (direct line)", 2)]


async def test_what_the_gateway_read_stays_and_the_other_is_kept_once(
    database: Database, tmp_path: Path
) -> None:
    (meter_id,) = await grow(database, tmp_path, 1, 1)
    async with ReadingWriter(database) as writer:
        await writer.file([row(meter_id, 1_234_400)])
    file = written(tmp_path, FROZEN)
    assert await bring(database, file, dry_run=True) == ImportReport(conflicts=1)
    assert await conflicts(database) == []
    for _ in range(2):
        assert await bring(database, file) == ImportReport(conflicts=1)
        assert await conflicts(database) == [(meter_id, 1_234_500, Source.MANUAL.value)]
        assert [one[3] for one in await stored(database)] == [1_234_400]


async def test_a_second_file_that_differs_does_not_overwrite_the_first(
    database: Database, tmp_path: Path
) -> None:
    await grow(database, tmp_path, 1, 1)
    await bring(database, written(tmp_path, FROZEN))
    (tmp_path / "round.csv").unlink()
    again = written(tmp_path, replace(FROZEN, values=(1_234_600,)))
    assert await bring(database, again) == ImportReport(conflicts=1)
    assert [one[3] for one in await stored(database)] == [1_234_500]


async def test_lines_that_say_the_same_count_once_and_those_that_differ_are_all_named(
    database: Database, tmp_path: Path
) -> None:
    await grow(database, tmp_path, 1, 1)
    file = written(tmp_path, FROZEN, FROZEN)
    assert await bring(database, file, dry_run=True) == ImportReport(new=1)
    with ReadingFile(file, "li") as kept:
        kept.add(replace(FROZEN, values=(1_234_600,)))
    report = await bring(database, file)
    assert (report.new, report.bad) == (0, 3)
    assert ["in line 4" in report.problems[0], "in line 2" in report.problems[2]] == [True, True]


async def test_an_address_is_that_of_the_meter_that_had_it_then(database: Database, tmp_path: Path) -> None:
    await grow(database, tmp_path, 1, 1)
    swap = datetime(2026, 11, 23, 12, 0, tzinfo=SHANGHAI)
    await replace_meter(
        database, "M000001", "M9", address=ADDRESS, at=swap, stop_read=0, start_read=0, reason="", who="test"
    )
    old = replace(FROZEN, frozen_at=MIDNIGHT - timedelta(days=1), values=(900_000,))
    assert (await bring(database, written(tmp_path, FROZEN, old))).new == 2
    async with database.connection() as connection:
        cursor = await connection.execute(
            "SELECT number, total FROM register_reading JOIN meter USING (meter_id) ORDER BY frozen_at"
        )
        assert await cursor.fetchall() == [("M000001", 900_000), ("M9", 1_234_500)]
    (tmp_path / "round.csv").unlink()
    stale = await bring(database, written(tmp_path, FROZEN, meter="M000001"))
    assert (stale.bad, "the address was that of M9" in stale.problems[0]) == (1, True)


async def test_an_address_of_two_meters_wants_the_asset_number(database: Database, tmp_path: Path) -> None:
    await grow(database, tmp_path, 2, 1)
    async with database.connection() as connection:
        await connection.execute("UPDATE meter SET address = %s", (ADDRESS,))
    file = written(tmp_path, FROZEN)
    report = await bring(database, file)
    assert (report.bad, "M000001, M000002" in report.problems[0]) == (1, True)
    file.unlink()
    assert await bring(database, written(tmp_path, FROZEN, meter="M000002")) == ImportReport(new=1)


async def test_a_half_written_last_line_is_named_and_the_rest_can_be_taken(
    database: Database, tmp_path: Path
) -> None:
    await grow(database, tmp_path, 1, 1)
    file = written(tmp_path, FROZEN, PRESENT)
    content = file.read_bytes()
    for cut in (60, 30, 3, 2):
        file.write_bytes(content[:-cut])
        report = await bring(database, file)
        assert (report.new, report.bad) == (1, 1), cut
        assert any(":3: ends without a line end" in problem for problem in report.problems), cut
        assert await stored(database) == []
    assert (await bring(database, file, keep_going=True)).new == 1
    assert len(await stored(database)) == 1


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        (ADDRESS, "000000000009", "no installed meter"),
        (ADDRESS, "1", "must be 12 digits"),
        (f",{ADDRESS}", ",", "address too"),
        ("\n,", "\nM000002,", "has address 000000000002 in the assets"),
        ("manual", "meter", "must be manual"),
        ("good", "fine", "must be one of good"),
        (",day", ",month", "must be one of day, live"),
        (",day", ",live", "must be its read_at"),
        (",12,", ",7200,", "midnight was another one"),
        (",12,", ",soon,", "whole seconds"),
        ("2026-11-24T00:00:00", "2026-11-24T03:00:00", "must be a midnight"),
        ("2026-11-24T00:00:00", "2026-11-25T00:00:00", "lies ahead"),
        ("2026-11-24T02:00:00", "2026-11-25T02:00:00", "lies ahead"),
        ("123.4500", "1E+05", "at most 2 decimals"),
    ],
)
async def test_nonsense_is_named_with_its_line(
    database: Database, tmp_path: Path, old: str, new: str, reason: str
) -> None:
    await grow(database, tmp_path, 1, 2)
    file = written(tmp_path, FROZEN)
    assert old in file.read_text()
    file.write_text(file.read_text().replace(old, new, 1))
    report = await bring(database, file)
    assert (report.new, report.bad, reason in report.problems[0]) == (0, 1, True), report.problems
    assert report.problems[0].startswith(f"{file}:2: ")
    assert await stored(database) == []


@pytest.mark.parametrize(
    ("register", "quality"),
    [
        (replace(FROZEN, clock_offset_s=-900.0), Quality.CLOCK_OFF),
        (replace(FROZEN, frozen_at=MIDNIGHT - timedelta(days=3)), Quality.LATE_READ),
        (replace(FROZEN, quality=Quality.CLOCK_OFF), Quality.CLOCK_OFF),
        (replace(FROZEN, clock_offset_s=None), Quality.GOOD),
    ],
)
async def test_the_quality_is_what_the_row_and_its_times_say(
    database: Database, tmp_path: Path, register: Register, quality: Quality
) -> None:
    await grow(database, tmp_path, 1, 1)
    await bring(database, written(tmp_path, register))
    assert [one[-1] for one in await stored(database)] == [quality.value]


async def test_the_command_counts_and_answers(
    database: Database, conninfo: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await grow(database, tmp_path, 1, 1)
    monkeypatch.setenv("LINGDIAN_DATABASE__URL", conninfo)
    file = written(tmp_path, replace(FROZEN, frozen_at=MIDNIGHT - timedelta(days=3)))

    async def call(*words: str) -> tuple[int, dict[str, Any]]:
        command = ["--state", str(tmp_path / "state"), "import", "readings", str(file), "--json", *words]
        result = await asyncio.to_thread(CliRunner().invoke, app, command)
        return result.exit_code, json.loads(result.stdout)

    code, told = await call("--dry-run")
    assert (code, told["new"], told["imported"], told["dry_run"]) == (0, 1, False, True)
    code, told = await call()
    assert (code, told["new"], told["same"], told["imported"]) == (0, 1, 0, True)
    code, told = await call()
    assert (code, told["new"], told["same"], told["imported"]) == (0, 0, 1, True)
    file.write_text(file.read_text().replace("manual", "meter"))
    code, told = await call()
    assert (code, told["bad"], told["imported"]) == (1, 1, False)
