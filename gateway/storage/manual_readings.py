"""Readings that a person took, by eye or with `lingdian read --offline`: from a CSV file through the writer,
with who read them and when."""

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
from gateway.storage.readings import Filed, ReadingWriter, would_file

FILE_ROWS: Final = 200_000
"""More readings than people take in a month; they are held in memory while the file is checked."""
READ_BEFORE: Final = timedelta(minutes=5)
"""A meter may be read so long before the midnight that the reading is for."""
CLOCK_TOLERANCE_S: Final = 300
"""A meter's clock that was off by more is said beside the reading."""
CLOCK_OTHER_DAY_S: Final = 3600
"""One that was off by more froze at another time than the midnight it names."""

_QUANTITIES: Final = {quantity.label: quantity for quantity in Quantity}
_KINDS: Final = {kind.name.lower(): kind for kind in (Kind.DAY, Kind.LIVE)}
_QUALITIES: Final = {quality.name.lower(): quality for quality in Quality}
_NEEDED: Final = ("quantity", "frozen_at", "total", "reader", "read_at")


class _Reading(NamedTuple):
    """A row; None for an empty cell."""

    meter: str | None
    quantity: Quantity
    frozen_at: datetime
    total: int
    t1: int | None
    t2: int | None
    t3: int | None
    t4: int | None
    reader: str
    read_at: datetime
    kind: Kind | None
    quality: Quality | None
    source: Source | None
    address: str | None
    clock_offset: int | None

    @property
    def for_kind(self) -> Kind:
        return self.kind or Kind.DAY

    @property
    def says(self) -> tuple[int | None, ...]:
        return (self.total, self.t1, self.t2, self.t3, self.t4)


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


def _kind(cell: str) -> Kind:
    if cell not in _KINDS:
        raise ValueError(f"must be one of {', '.join(_KINDS)} 冻结或实时; the line may be cut short")
    return _KINDS[cell]


def _quality(cell: str) -> Quality:
    if cell not in _QUALITIES:
        raise ValueError(f"must be one of {', '.join(_QUALITIES)} 数据质量")
    return _QUALITIES[cell]


def _source(cell: str) -> Source:
    if cell != Source.MANUAL.name.lower():
        raise ValueError(
            "must be manual 来源须为人工: anybody can write a file, so it ranks as nothing better"
        )
    return Source.MANUAL


def _address(cell: str) -> str:
    if not re.fullmatch(r"[0-9]{12}", cell):
        raise ValueError("must be 12 digits; a spreadsheet may have changed them 表地址须12位数字")
    return cell


def _offset(cell: str) -> int:
    if not re.fullmatch(r"[+-]?[0-9]{1,10}", cell):
        raise ValueError("must be whole seconds, positive where the meter is ahead 时钟偏差, 秒")
    return int(cell)


def _energy(cell: str) -> int:
    """kWh to integers of 0.0001: a person reads two decimals."""
    if not re.fullmatch(r"[0-9]{1,8}(\.[0-9]{1,2}0{0,2})?", cell):
        raise ValueError("must be a register in kWh (kvarh) with at most 2 decimals 示值, 至多两位小数")
    return int(Decimal(cell) * 10_000)


_CHECKS: Final[dict[str, Check]] = {
    "meter": _text,
    "quantity": _quantity,
    "frozen_at": _instant,
    "total": _energy,
    "t1": _energy,
    "t2": _energy,
    "t3": _energy,
    "t4": _energy,
    "reader": _text,
    "read_at": _instant,
    "kind": _kind,
    "quality": _quality,
    "source": _source,
    "address": _address,
    "clock_offset": _offset,
}


async def import_readings(
    database: Database,
    path: Path,
    *,
    keep_going: bool = False,
    dry_run: bool = False,
    at: datetime | None = None,
) -> ImportReport:
    """File the readings of a CSV file: quantity, frozen_at, total, t1..t4, reader, read_at; meter (asset
    number) or address, or both; kind (day where it is empty, live), quality, source, clock_offset.

    They rank below everything that the gateway read itself: where another value stands, that stays and
    the one from the file is kept aside (`report.conflicts`). The same again adds nothing. With bad rows
    nothing is filed unless keep_going; with dry_run nothing at all, and the counts tell what would be.
    `at`: the present, by default the real one; nothing may have been read later. InputError where the file
    cannot be read as a table.
    """
    now = at or datetime.now(UTC)
    problems = Problems(str(path))
    good = _checked(path, problems, now)
    meters = await _meters(database, good, problems)
    filed = _once(good, meters, problems)
    report = ImportReport(new=len(filed), bad=len(problems.bad_lines), problems=problems.told)
    if not filed or (report.bad and not keep_going and not dry_run):
        return report
    rows = [_row(one, meter_id, now) for meter_id, one in filed]
    if dry_run:
        return _report(await would_file(database, rows), report)
    await _keep_readers(database, filed)
    async with ReadingWriter(database) as writer:
        return _report(await writer.file(rows), report)


def _report(told: Filed, report: ImportReport) -> ImportReport:
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
    last = 0
    for line, cells in read_rows(path, {column: column in _NEEDED for column in _CHECKS}, problems):
        last = line
        if len(good) >= FILE_ROWS:
            raise InputError(f"{path}: has more than {FILE_ROWS} rows 行数过多; split it")
        lacking = [column for column in _NEEDED if column not in cells]
        for column in lacking:
            problems.add(line, column, "", "is empty 不能为空; fill it in")
        if "meter" not in cells and "address" not in cells:
            lacking.append("meter")
            problems.add(line, "meter", "", "is empty, and address too 不能为空; give one of them")
        values = check_cells(cells, _CHECKS, line, problems)
        if values is None or lacking:
            continue
        one = _Reading._make(values)
        if fault := _fault(one, now):
            column, why = fault
            problems.add(line, column, cells[column], why)
        else:
            good[line] = one
    _cut_short(path, max([last, *problems.bad_lines]), problems)
    return {line: one for line, one in good.items() if line not in problems.bad_lines}


def _fault(one: _Reading, now: datetime) -> tuple[str, str] | None:
    """What is wrong with a row whose cells are right: column, and why."""
    if one.frozen_at > now or one.read_at > now:
        return "frozen_at" if one.frozen_at > now else "read_at", "lies ahead 时间在将来"
    if one.for_kind is Kind.LIVE:
        if one.frozen_at != one.read_at:
            return "frozen_at", "of a live reading must be its read_at 实时读数须与抄读时间相同"
        return None
    if to_device(one.frozen_at).time() != datetime.min.time():
        return "frozen_at", "must be a midnight in Shanghai: the one that ends the day read for 须为零点"
    if one.read_at < one.frozen_at - READ_BEFORE:
        return "read_at", "lies before the midnight read for 早于冻结时刻"
    if one.clock_offset is not None and abs(one.clock_offset) > CLOCK_OTHER_DAY_S:
        return "clock_offset", "s: the meter's midnight was another one 电能表时钟错误, 日期不可信"
    return None


def _cut_short(path: Path, last: int, problems: Problems) -> None:
    """Say of a bad last line without an end that it was not written to its end."""
    with path.open("rb") as file:
        file.seek(0, 2)
        if not file.tell():
            return
        file.seek(-1, 2)
        if file.read(1) != b"\n" and last in problems.bad_lines:
            why = "ends without a line end: half written 末行未写完; take it out, or read that meter again"
            problems.add(last, "", "", why)


async def _meters(database: Database, good: dict[int, _Reading], problems: Problems) -> dict[int, int]:
    """Line -> meter_id: by asset number, which must have the address given beside it; else by the address, as
    it was at that time."""
    numbers = list({one.meter for one in good.values() if one.meter})
    lines = [line for line, one in good.items() if one.address]
    asked = ([good[line].address for line in lines], [good[line].frozen_at for line in lines])
    at: dict[int, dict[str, int]] = {}
    async with database.connection() as connection:
        cursor = await connection.execute(queries("manual_readings")["meter_ids"], (numbers,))
        known = {number: (meter_id, address) for number, meter_id, address in await cursor.fetchall()}
        cursor = await connection.execute(queries("manual_readings")["meters_at"], asked)
        for place, meter_id, number in await cursor.fetchall():
            at.setdefault(lines[place - 1], {})[number] = meter_id
    found: dict[int, int] = {}
    for line, one in good.items():
        told = _by_number(one, known, at.get(line, {})) if one.meter else _by_address(at.get(line, {}))
        if isinstance(told, int):
            found[line] = told
        else:
            column = "meter" if one.meter else "address"
            problems.add(line, column, one.meter or one.address or "", told)
    return found


def _by_number(one: _Reading, known: dict[str, tuple[int, str]], then: dict[str, int]) -> int | str:
    """The meter, or what is wrong with it. then: whose the address was at that time."""
    meter_id, address = known.get(one.meter or "", (0, ""))
    if not meter_id:
        return "is not in the assets 电能表未建档; import it first"
    if one.address not in (None, address):
        return f"has address {address} in the assets 表地址与档案不符; was the right meter read?"
    if then and one.meter not in then:
        return (
            f"was not installed then, and the address was that of {_names(then)} 当时已换表; mend the meter"
        )
    return meter_id


def _by_address(then: dict[str, int]) -> int | str:
    if len(then) == 1:
        return next(iter(then.values()))
    if then:
        return f"was that of {_names(then)} 表地址不唯一; give the asset number in column meter"
    return "was no installed meter's at that time 当时无此地址的电能表; import it, or give its number"


def _names(meters: dict[str, int]) -> str:
    return ", ".join(sorted(meters)[:5])


def _once(
    good: dict[int, _Reading], meters: dict[int, int], problems: Problems
) -> list[tuple[int, _Reading]]:
    """Each reading with its meter, once; which of several that differ is right is nobody's to choose here."""
    lines: dict[tuple[object, ...], list[int]] = {}
    for line, meter_id in meters.items():
        one = good[line]
        key = (meter_id, one.quantity, one.for_kind, one.frozen_at)
        lines.setdefault(key, []).append(line)
    for same in lines.values():
        if len({good[line].says for line in same}) == 1:
            continue
        for line in same:
            other = next(one for one in same if good[one].says != good[line].says)
            what = good[line].meter or good[line].address or ""
            problems.add(line, "meter", what, f"is read for this midnight in line {other} too 重复")
    firsts = [same[0] for same in lines.values() if same[0] not in problems.bad_lines]
    return [(meters[line], good[line]) for line in sorted(firsts)]


async def _keep_readers(database: Database, filed: list[tuple[int, _Reading]]) -> None:
    async with database.connection() as connection:
        await connection.execute(
            queries("manual_readings")["keep_readers"],
            (
                [one.frozen_at for _, one in filed],
                [meter_id for meter_id, _ in filed],
                [one.quantity.value for _, one in filed],
                [one.total for _, one in filed],
                [one.reader for _, one in filed],
                [one.read_at for _, one in filed],
            ),
        )


def _row(one: _Reading, meter_id: int, now: datetime) -> ReadingRow:
    return (
        *(meter_id, one.quantity.value, one.for_kind.value, one.frozen_at),
        *(one.total, one.t1, one.t2, one.t3, one.t4, None),
        *(one.read_at, now, Source.MANUAL.value, _quality_of(one).value),
    )


def _quality_of(one: _Reading) -> Quality:
    """As the row says; where it says no more than good, what its times say."""
    if one.quality not in (None, Quality.GOOD, Quality.LATE_READ):
        return one.quality
    if one.clock_offset is not None and abs(one.clock_offset) > CLOCK_TOLERANCE_S:
        return Quality.CLOCK_OFF
    return Quality.LATE_READ if one.read_at > one.frozen_at + timedelta(hours=24) else Quality.GOOD
