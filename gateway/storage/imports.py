"""terminals.csv and meters.csv into the assets: every row checked, only what changed is written.

The columns are those of the contract with users; cells and columns may be missing. An empty cell of a
meter that is known changes nothing. A row names the meter and where it sits: the place it is at already
(attributes may change), another place with a later valid_from (it moved, the past is kept), or another
place without (the assets were wrong and are corrected). A meter that comes to a place where another
sits, with a later valid_from, follows it there.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from psycopg import errors

from gateway.clock import SHANGHAI, to_device
from gateway.errors import InputError
from gateway.model import MeterClass, PointRole, RelayKind
from gateway.storage.csv_files import Check, ImportReport, Problems, check_cells, read_rows
from gateway.storage.database import Connection, Database, queries
from gateway.storage.evidence import note_audit
from gateway.storage.manual_readings import import_readings

__all__ = ["ImportReport", "import_assets", "import_readings"]

PROTOCOLS: Final = ("dlt645-2007", "dlt645-1997")
NAME_LENGTH: Final = 100

_TERMINAL_TYPES = ("int4", "text", "text", "text", "text")
_METER_TYPES = (
    *("int4", "text", "text", "text", "int2", "int2", "text", "int2"),
    *("text", "text", "text", "int4", "int4", "timestamptz", "text", "text"),
)


def _terminal(cell: str) -> str:
    if not re.fullmatch(r"[0-9]{4}[0-9a-fA-F]{4}", cell):
        raise ValueError("must be area code, 4 digits, and address, 4 hex digits (02001234) 终端地址")
    if cell[4:].lower() in ("0000", "ffff"):
        raise ValueError("address 0000 names nobody and ffff everybody 终端地址无效")
    return cell.lower()


def _address(cell: str) -> str:
    if not re.fullmatch(r"[0-9]{12}", cell):
        raise ValueError("must be 12 digits; a spreadsheet may have cut leading zeros 表地址须12位数字")
    if cell == "9" * 12:
        raise ValueError("is the broadcast address 广播地址")
    return cell


def _name(cell: str) -> str:
    if len(cell) > NAME_LENGTH:
        raise ValueError(f"is longer than {NAME_LENGTH} characters 过长")
    return cell


def _between(low: int, high: int, what: str) -> Check:
    def check(cell: str) -> int:
        if not re.fullmatch(r"[0-9]{1,9}", cell) or not low <= int(cell) <= high:
            raise ValueError(f"must be {low} to {high} {what}")
        return int(cell)

    return check


def _one_of(words: Iterable[str], what: str) -> Check:
    known = {str(word): str(word) for word in words}

    def check(cell: str) -> str:
        if cell not in known:
            raise ValueError(f"must be one of {', '.join(known)} {what}")
        return known[cell]

    return check


def _instant(cell: str) -> datetime:
    """A date is its 00:00; without an offset the time is Shanghai's."""
    try:
        instant = datetime.fromisoformat(cell)
    except ValueError:
        raise ValueError(
            "must be a date or an instant: 2026-11-24 or 2026-11-24T10:30:00+08:00 日期"
        ) from None
    if not 2000 <= instant.year <= 2100:
        raise ValueError("must lie between 2000 and 2100 日期")
    return (instant if instant.tzinfo else instant.replace(tzinfo=SHANGHAI)).astimezone(UTC)


_TERMINAL_CHECKS: Final[dict[str, Check]] = {
    "terminal": _terminal,
    "profile": _name,
    "organisation": _name,
    "area": _name,
}
METER_CHECKS: Final[dict[str, Check]] = {
    "meter": _name,
    "address": _address,
    "terminal": _terminal,
    "pn": _between(1, 2040, "测量点号"),
    "port": _between(1, 31, "端口号"),
    "protocol": _one_of(PROTOCOLS, "规约"),
    "tariffs": _between(1, 63, "费率数"),
    "class": _one_of(MeterClass, "电能表类别"),
    "role": _one_of(PointRole, "计量点性质"),
    "relay_kind": _one_of(RelayKind, "继电器"),
    "ct": _between(1, 1_000_000, "电流互感器变比"),
    "pt": _between(1, 1_000_000, "电压互感器变比"),
    "valid_from": _instant,
    "profile": _name,
    "cons_no": _name,
}
"""Columns of meters.csv; lists of meters for other purposes are read by the same."""
_NEEDED: Final = ("terminal", "address", "pn")


async def import_assets(
    database: Database,
    *,
    terminals: Path | None = None,
    meters: Path | None = None,
    keep_going: bool = False,
    at: datetime | None = None,
    who: str = "",
) -> ImportReport:
    """Read the files (UTF-8 or GBK) and bring the assets to what they say, in one transaction.

    With bad rows nothing is written unless keep_going; `report.bad` tells, and the other counts tell
    what would have been. InputError where a file cannot be read as a table at all, or contradicts the
    assets beyond a row. `at` and `who` are for the audit.
    """
    problems: list[Problems] = []
    new = changed = same = 0
    async with database.connection() as connection:
        await connection.execute("SET LOCAL statement_timeout = 0")
        for path, bring in ((terminals, _bring_terminals), (meters, _bring_meters)):
            if path is None:
                continue
            problems.append(Problems(str(path)))
            counts = await bring(connection, path, problems[-1])
            new, changed, same = new + counts[0], changed + counts[1], same + counts[2]
        report = ImportReport(
            new=new,
            changed=changed,
            same=same,
            bad=sum(len(one.bad_lines) for one in problems),
            problems=tuple(message for one in problems for message in one.told),
        )
        if report.bad and not keep_going:
            await connection.rollback()
            return report
        if new or changed:
            detail = {
                "terminals": str(terminals or ""),
                "meters": str(meters or ""),
                "new": new,
                "changed": changed,
            }
            await note_audit(connection, at or datetime.now(UTC), who, "import assets", detail)
    return report


async def _bring_terminals(connection: Connection, path: Path, problems: Problems) -> tuple[int, int, int]:
    statements = queries("imports")
    await connection.execute(statements["stage_terminals"])
    columns = {name: name == "terminal" for name in _TERMINAL_CHECKS}
    async with (
        connection.cursor() as cursor,
        cursor.copy(statements["copy_terminals"]) as copy,
    ):
        copy.set_types(_TERMINAL_TYPES)
        for line, cells in read_rows(path, columns, problems):
            if _lacks(cells, ("terminal",), line, problems):
                continue
            values = check_cells(cells, _TERMINAL_CHECKS, line, problems)
            if values is not None:
                await copy.write_row((line, *values))
    cursor = await connection.execute(statements["twice_terminals"])
    for line, other, value in await cursor.fetchall():
        problems.add(line, "terminal", value, f"stands in line {other} too 重复; leave one of them")
    await connection.execute(statements["forget_terminals"], (list(problems.bad_lines),))
    cursor = await connection.execute("SELECT count(*) FROM import_terminal")
    (rows,) = await cursor.fetchone() or (0,)
    await connection.execute(statements["add_organisations"])
    await connection.execute(statements["add_areas"])
    changed = (await connection.execute(statements["change_terminals"])).rowcount
    new = (await connection.execute(statements["add_terminals"])).rowcount
    await connection.execute(statements["greet_terminals"])
    return new, changed, rows - new - changed


async def _bring_meters(connection: Connection, path: Path, problems: Problems) -> tuple[int, int, int]:
    statements = queries("imports")
    await connection.execute(statements["stage_meters"])
    await _stage_meters(connection, path, problems)
    await connection.execute(statements["index_meters"])
    await _check_meters(connection, problems)
    for step in (
        *("add_customers", "number_meters", "add_points", "change_points", "add_meters", "change_meters"),
        *("close_installs", "change_installs", "open_installs"),
    ):
        try:
            await connection.execute(statements[step])
        except errors.ExclusionViolation as error:
            raise InputError(
                f"{path}: two meters would be at one place, or one at two ({error.diag.message_detail});"
                " nothing was imported 档案冲突, 未导入: mend valid_from or pn"
            ) from error
    cursor = await connection.execute(statements["count_meters"])
    new, changed, same = await cursor.fetchone() or (0, 0, 0)
    await connection.execute(statements["analyze_assets"])
    return new, changed, same


async def _stage_meters(connection: Connection, path: Path, problems: Problems) -> None:
    columns = {name: name in _NEEDED for name in METER_CHECKS}
    async with (
        connection.cursor() as cursor,
        cursor.copy(queries("imports")["copy_meters"]) as copy,
    ):
        copy.set_types(_METER_TYPES)
        for line, cells in read_rows(path, columns, problems):
            if _lacks(cells, _NEEDED, line, problems):
                continue
            cells.setdefault("meter", cells["address"])
            values = check_cells(cells, METER_CHECKS, line, problems)
            if values is not None:
                await copy.write_row((line, *values))


async def _check_meters(connection: Connection, problems: Problems) -> None:
    """Leave out rows that are good by themselves and wrong together, or against what the assets hold."""

    async def found(name: str) -> list[tuple[Any, ...]]:
        """Bad rows, after those found before were left out."""
        await connection.execute(queries("imports")["forget_meters"], (list(problems.bad_lines),))
        cursor = await connection.execute(queries("imports")[name])
        return await cursor.fetchall()

    for line, other, column, value in await found("twice_meters"):
        problems.add(line, column, value, f"stands in line {other} too 重复; leave one of them")
    await connection.execute(queries("imports")["understand_meters"])
    for line, terminal in await found("unknown_terminals"):
        problems.add(
            line, "terminal", terminal, "is not in the assets 终端未建档; import it with --terminals"
        )
    for line, pn, meter, until in await found("taken_places"):
        when = "" if until is None else f" until {to_device(until):%Y-%m-%d %H:%M}"
        problems.add(
            line,
            "pn",
            str(pn),
            f"is held by meter {meter}{when} 测量点已占用; give valid_from, or `lingdian replace {meter}`",
        )
    for line, meter, until in await found("still_elsewhere"):
        problems.add(
            line,
            "meter",
            meter,
            f"was elsewhere until {to_device(until):%Y-%m-%d %H:%M} 仍装于他处; give a later valid_from",
        )
    for line, address, meter, pn in await found("taken_addresses"):
        problems.add(
            line, "address", address, f"is that of meter {meter} at p{pn} 表地址重复; mend one of them"
        )
    await connection.execute(queries("imports")["forget_meters"], (list(problems.bad_lines),))


def _lacks(cells: dict[str, str], needed: Iterable[str], line: int, problems: Problems) -> bool:
    lacking = [column for column in needed if column not in cells]
    for column in lacking:
        problems.add(line, column, "", "is empty 不能为空; fill it in")
    return bool(lacking)
