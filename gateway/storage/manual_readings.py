"""Readings that a person took: from a CSV file through the writer, with who read them and when."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Final, NamedTuple

from gateway.clock import SHANGHAI, to_device
from gateway.errors import InputError
from gateway.model import Kind, Quality, Quantity, ReadingRow, Source
from gateway.storage.csv_files import Check, ImportReport, Problems, check_cells, read_rows
from gateway.storage.database import Database, queries
from gateway.storage.readings import ReadingWriter

FILE_ROWS: Final = 200_000
"""More readings than people take in a month; they are held in memory while the file is checked."""
READ_BEFORE: Final = timedelta(minutes=5)
"""A meter may be read so long before the midnight that the reading is for."""

_QUANTITIES: Final = {quantity.label: quantity for quantity in Quantity}
_NEEDED: Final = ("meter", "quantity", "frozen_at", "total", "reader", "read_at")


class _Reading(NamedTuple):
    meter: str
    quantity: Quantity
    frozen_at: datetime
    total: int
    t1: int | None
    t2: int | None
    t3: int | None
    t4: int | None
    reader: str
    read_at: datetime


def _text(cell: str) -> str:
    if len(cell) > 100:
        raise ValueError("is longer than 100 characters 过长")
    return cell


def _quantity(cell: str) -> Quantity:
    if cell not in _QUANTITIES:
        raise ValueError(f"must be one of {', '.join(_QUANTITIES)} 电量类型")
    return _QUANTITIES[cell]


def _instant(cell: str) -> datetime:
    try:
        instant = datetime.fromisoformat(cell)
    except ValueError:
        raise ValueError("must be an instant like 2026-11-24T00:00:00+08:00 时间") from None
    if not 2000 <= instant.year <= 2100:
        raise ValueError("must lie between 2000 and 2100 时间")
    return (instant if instant.tzinfo else instant.replace(tzinfo=SHANGHAI)).astimezone(UTC)


def _midnight(cell: str) -> datetime:
    instant = _instant(cell)
    if to_device(instant).time() != datetime.min.time():
        raise ValueError("must be a midnight in Shanghai: the one that ends the day read for 须为零点")
    return instant


def _energy(cell: str) -> int:
    """kWh to integers of 0.0001: a person reads two decimals."""
    if not re.fullmatch(r"[0-9]{1,8}(\.[0-9]{1,2}0{0,2})?", cell):
        raise ValueError("must be a register in kWh (kvarh) with at most 2 decimals 示值, 至多两位小数")
    return int(Decimal(cell) * 10_000)


_CHECKS: Final[dict[str, Check]] = {
    "meter": _text,
    "quantity": _quantity,
    "frozen_at": _midnight,
    "total": _energy,
    "t1": _energy,
    "t2": _energy,
    "t3": _energy,
    "t4": _energy,
    "reader": _text,
    "read_at": _instant,
}


async def import_readings(
    database: Database, path: Path, *, keep_going: bool = False, at: datetime | None = None
) -> ImportReport:
    """File the readings of a CSV file: meter, quantity, frozen_at, total, t1..t4, reader, read_at; kind DAY.

    They rank below everything that was read electrically: where another value stands, that stays and
    the one from the file is kept aside (`report.conflicts`). With bad rows nothing is filed unless
    keep_going. `at`: the present, by default the real one; nothing may have been read later. InputError
    where the file cannot be read as a table.
    """
    now = at or datetime.now(UTC)
    problems = Problems(str(path))
    good = _checked(path, problems, now)
    meter_ids: dict[str, int] = {}
    async with database.connection() as connection:
        cursor = await connection.execute(
            queries("manual_readings")["meter_ids"], (list({one.meter for one in good.values()}),)
        )
        meter_ids.update(await cursor.fetchall())
    for line, one in good.items():
        if one.meter not in meter_ids:
            problems.add(line, "meter", one.meter, "is not in the assets 电能表未建档; import it first")
    filed = [one for line, one in good.items() if line not in problems.bad_lines]
    report = ImportReport(new=len(filed), bad=len(problems.bad_lines), problems=problems.told)
    if not filed or (report.bad and not keep_going):
        return report
    await _keep_readers(database, filed, meter_ids)
    async with ReadingWriter(database) as writer:
        told = await writer.file([_row(one, meter_ids[one.meter], now) for one in filed])
    return ImportReport(
        new=told.new,
        changed=told.filled + told.won,
        same=told.equal,
        bad=report.bad,
        conflicts=told.lost,
        problems=report.problems,
    )


def _checked(path: Path, problems: Problems, now: datetime) -> dict[int, _Reading]:
    """The good rows by line."""
    good: dict[int, _Reading] = {}
    seen: dict[tuple[str, Quantity, datetime], int] = {}
    for line, cells in read_rows(path, {column: column in _NEEDED for column in _CHECKS}, problems):
        if len(good) >= FILE_ROWS:
            raise InputError(f"{path}: has more than {FILE_ROWS} rows 行数过多; split it")
        lacking = [column for column in _NEEDED if column not in cells]
        for column in lacking:
            problems.add(line, column, "", "is empty 不能为空; fill it in")
        values = check_cells(cells, _CHECKS, line, problems)
        if values is None or lacking:
            continue
        one = _Reading._make(values)
        if one.frozen_at > now or one.read_at > now:
            problems.add(line, "frozen_at", cells["frozen_at"], "or read_at lies ahead 时间在将来")
        elif one.read_at < one.frozen_at - READ_BEFORE:
            problems.add(line, "read_at", cells["read_at"], "lies before the midnight read for 早于冻结时刻")
        elif (other := seen.setdefault((one.meter, one.quantity, one.frozen_at), line)) != line:
            problems.add(line, "meter", one.meter, f"is read for this midnight in line {other} too 重复")
            problems.add(other, "meter", one.meter, f"is read for this midnight in line {line} too 重复")
        else:
            good[line] = one
    return {line: one for line, one in good.items() if line not in problems.bad_lines}


async def _keep_readers(database: Database, readings: list[_Reading], meter_ids: dict[str, int]) -> None:
    async with database.connection() as connection:
        await connection.execute(
            queries("manual_readings")["keep_readers"],
            (
                [one.frozen_at for one in readings],
                [meter_ids[one.meter] for one in readings],
                [one.quantity.value for one in readings],
                [one.total for one in readings],
                [one.reader for one in readings],
                [one.read_at for one in readings],
            ),
        )


def _row(one: _Reading, meter_id: int, now: datetime) -> ReadingRow:
    late = one.read_at > one.frozen_at + timedelta(hours=24)
    quality = Quality.LATE_READ if late else Quality.GOOD
    return (
        *(meter_id, one.quantity.value, Kind.DAY.value, one.frozen_at),
        *(one.total, one.t1, one.t2, one.t3, one.t4, None),
        *(one.read_at, now, Source.MANUAL.value, quality.value),
    )
