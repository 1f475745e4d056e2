"""Commands that change the assets, or file what a person read. No gateway need run."""

from __future__ import annotations

import asyncio
import re
from contextlib import suppress
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Annotated, Final

import typer

from gateway.cli.client import Gateway
from gateway.cli.database import database_for
from gateway.cli.invocation import (
    CommandGroup,
    ExitCode,
    Invocation,
    JsonFlag,
    NoGateway,
    answer,
    of,
    requester,
    say,
    show,
)
from gateway.clock import SHANGHAI
from gateway.errors import InputError
from gateway.service import database_of
from gateway.storage import assets, imports
from gateway.storage.csv_files import ImportReport
from gateway.storage.manual_readings import import_readings as file_readings

app = typer.Typer()
import_commands = typer.Typer(
    cls=CommandGroup,
    invoke_without_command=True,
    help="Bring in assets 导入档案, or readings by hand 导入读数.",
)

_REGISTER: Final = re.compile(r"(?P<whole>[0-9]{1,8})(?:\.(?P<part>[0-9]{1,4}))?")

InFile = Annotated[Path | None, typer.Option(exists=True, dir_okay=False, metavar="FILE")]
KeepGoing = Annotated[
    bool, typer.Option("--keep-going", help="Import the good rows of a file with bad ones.")
]


@import_commands.callback()
def import_(
    context: typer.Context,
    terminals: InFile = None,
    meters: InFile = None,
    keep_going: KeepGoing = False,
    json_output: JsonFlag = False,
) -> None:
    """Bring terminals and meters into the assets 导入档案 (CSV, UTF-8 or GBK); again: only what changed.

    Exit 0: every row was good; 1: some were bad (each is named; without --keep-going nothing was imported).
    """
    if context.invoked_subcommand is not None:
        return
    if terminals is None and meters is None:
        raise typer.BadParameter("give --terminals FILE, --meters FILE, or both")

    async def work() -> ImportReport:
        async with database_for(of(context), writing=True) as database:
            return await imports.import_assets(
                database,
                terminals=terminals,
                meters=meters,
                keep_going=keep_going,
                who=requester(),
            )

    report = asyncio.run(work())
    _report(report, json_output, imported=keep_going or not report.bad)
    if report.new or report.changed:
        _tell_gateway(of(context))
    if report.bad:
        raise typer.Exit(ExitCode.WRONG)


@import_commands.command("readings")
def import_readings(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False)],
    keep_going: KeepGoing = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only count what would become of the good rows 试运行.")
    ] = False,
    json_output: JsonFlag = False,
) -> None:
    """File readings that a person took 导入人工抄表, by eye or with `read --offline`; once, however often.

    Columns: meter or address, quantity, frozen_at, total, t1..t4, reader, read_at; kind, quality, source,
    clock_offset. What the gateway read itself stays; what differs from it is kept beside it.
    Exit 0: every row was good; 1: some were bad (each is named; without --keep-going nothing was imported).
    """

    async def work() -> ImportReport:
        async with database_for(of(context), writing=True) as database:
            return await file_readings(database, file, keep_going=keep_going, dry_run=dry_run)

    report = asyncio.run(work())
    _report(report, json_output, imported=not dry_run and (keep_going or not report.bad), dry_run=dry_run)
    if report.bad:
        raise typer.Exit(ExitCode.WRONG)


def _report(report: ImportReport, json_output: bool, *, imported: bool, dry_run: bool = False) -> None:
    for problem in report.problems:
        say(problem, error=True)
    if report.bad > len(report.problems):
        say(f"… and {report.bad - len(report.problems)} more bad rows", error=True)
    if dry_run:
        say("a dry run: nothing was imported; this is what would be 试运行, 未导入")
    elif not imported:
        say("nothing was imported; mend the file, or add --keep-going 未导入", error=True)
    if json_output:
        answer(asdict(report) | {"imported": imported} | ({"dry_run": True} if dry_run else {}))
    elif imported or dry_run:
        show(
            f"{report.new} new 新增, {report.changed} changed 变更,"
            f" {report.same} same 未变, {report.conflicts} in conflict 冲突, {report.bad} bad 错误"
        )


@app.command("replace")
def replace(
    context: typer.Context,
    meter: Annotated[str, typer.Argument(metavar="METER", help="The meter that goes (asset number).")],
    new: Annotated[str, typer.Option(help="The meter that comes (asset number).")],
    at: Annotated[
        datetime, typer.Option(formats=["%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M"], help="When, Shanghai time.")
    ],
    stop_read: Annotated[str, typer.Option(help="Last register of the old one, kWh.")],
    start_read: Annotated[str, typer.Option(help="First register of the new one, kWh.")] = "0",
    address: Annotated[
        str | None, typer.Option(help="Communication address of the new one, if other.")
    ] = None,
    reason: Annotated[str, typer.Option(help="Why, for the record.")] = "",
    json_output: JsonFlag = False,
) -> None:
    """Put a new meter in a meter's place 换表, with the stop and start reads."""
    moment = at.replace(tzinfo=SHANGHAI)
    stop, start = _energy("--stop-read", stop_read), _energy("--start-read", start_read)

    async def work() -> None:
        async with database_for(of(context), writing=True) as database:
            await assets.replace_meter(
                database,
                meter,
                new,
                address=address if address is not None else new,
                at=moment,
                stop_read=stop,
                start_read=start,
                reason=reason,
                who=requester(),
            )

    asyncio.run(work())
    _tell_gateway(of(context))
    if json_output:
        answer({"old": meter, "new": new, "at": moment.isoformat()})
    else:
        show(f"{meter} → {new} at {moment.isoformat()} 已换表; then 然后: lingdian archive TERMINAL --push")


def _energy(option: str, text: str) -> int:
    """kWh as written to integers of 0.0001 kWh."""
    written = _REGISTER.fullmatch(text)
    if written is None:
        raise InputError(f"{option}: {text!r} is not a register in kWh with at most 4 decimals 示值无效")
    return int(written["whole"]) * 10_000 + int((written["part"] or "").ljust(4, "0"))


@app.command("migrate")
def migrate(context: typer.Context, json_output: JsonFlag = False) -> None:
    """Bring the database's schema up to date 升级数据库. `serve` does it too."""

    async def work() -> list[str]:
        invocation = of(context)
        invocation.state.create()
        async with database_of(invocation.settings, invocation.state) as database:
            return await database.migrate()

    applied = asyncio.run(work())
    if json_output:
        answer({"applied": applied})
    else:
        show("\n".join(applied) if applied else "the schema is up to date 已是最新")


def _tell_gateway(invocation: Invocation) -> None:
    """Let the gateway of this state, if one runs, read the assets again."""
    with suppress(NoGateway), Gateway(invocation.state) as gateway:
        gateway.post("/api/v1/assets/reload")


app.add_typer(import_commands, name="import")
