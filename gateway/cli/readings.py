"""Commands that look at readings: what is missing, and what is there. No gateway need run."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections import Counter
from datetime import date, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from gateway.cli.database import database_for
from gateway.cli.invocation import CommandGroup, ExitCode, Invocation, JsonFlag, of, reason_words, say, show
from gateway.clock import frozen_at
from gateway.collection import plan
from gateway.model import Kind, Reason
from gateway.storage import exports, gaps

app = typer.Typer()
export_commands = typer.Typer(cls=CommandGroup, no_args_is_help=True, help="Write out readings 导出.")

Demo = Annotated[bool, typer.Option("--demo", help="On the state of `lingdian demo`.")]


@app.command("gaps")
def gaps_(
    context: typer.Context,
    day: Annotated[datetime, typer.Option(formats=["%Y-%m-%d"], help="Business day, Asia/Shanghai.")],
    demo: Demo = False,
    json_output: JsonFlag = False,
) -> None:
    """List what a day still owes 缺数清单, and why.

    Exit 0: nothing is missing; 3: something is.
    """
    invocation = of(context).demo() if demo else of(context)
    missing, due, reasons = asyncio.run(_gaps(invocation, day.date(), json_output))
    if not json_output:
        show(f"{day.date()}: {missing} of {due} readings are missing 缺 / 应采")
        for reason, count in reasons.most_common():
            show(f"  {count:>8}  {reason_words(reason)}")
    if missing:
        raise typer.Exit(ExitCode.MISSING)


async def _gaps(invocation: Invocation, day: date, json_output: bool) -> tuple[int, int, Counter[Reason]]:
    """Plan minus rows, terminal by terminal, written as they are found; (missing, due, reasons)."""
    missing = due = 0
    reasons: Counter[Reason] = Counter()
    if json_output:
        sys.stdout.write(f'{{"day":"{day}","gaps":[')
    async with database_for(invocation) as database:
        async for midnight in gaps.midnights(database, frozen_at(day)):
            dues = plan.due(midnight.assets, day)
            due += len(dues)
            points = {point.meter_id: point for point in midnight.assets.points}
            for one in plan.missing(dues, midnight.stored):
                failure = midnight.failures.get((one.meter_id, one.quantity, one.kind))
                reason = failure.reason if failure is not None else Reason.NOT_ASKED
                reasons[reason] += 1
                point = points[one.meter_id]
                gap: dict[str, Any] = {
                    "terminal": midnight.assets.address,
                    "pn": one.pn,
                    "meter": point.meter,
                    "address": point.address,
                    "quantity": one.quantity.label,
                    "kind": one.kind.name.lower(),
                    "reason": reason,
                    "detail": failure.detail if failure is not None else "",
                    "asked_at": failure.at.isoformat() if failure is not None else None,
                }
                if json_output:
                    sys.stdout.write(
                        ("," if missing else "") + json.dumps(gap, ensure_ascii=False, separators=(",", ":"))
                    )
                else:
                    show(
                        f"{gap['terminal']} p{gap['pn']:<5} {gap['meter']} {gap['quantity']} {gap['kind']}:"
                        f" {reason_words(reason)} {gap['detail']}".rstrip()
                    )
                missing += 1
    if json_output:
        counts = json.dumps(dict(reasons.most_common()))
        sys.stdout.write(f'],"due":{due},"missing":{missing},"reasons":{counts}}}\n')
    return missing, due, reasons


@export_commands.command("readings")
def export_readings(
    context: typer.Context,
    demo: Demo = False,
    from_: Annotated[
        datetime | None, typer.Option("--from", formats=["%Y-%m-%d"], help="First business day.")
    ] = None,
    to: Annotated[
        datetime | None, typer.Option("--to", formats=["%Y-%m-%d"], help="Last business day, included.")
    ] = None,
    kind: Annotated[Literal["day", "month", "live", "all"], typer.Option()] = "day",
    format_: Annotated[Literal["csv", "parquet"], typer.Option("--format")] = "csv",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", dir_okay=False, help="File; none: standard output.")
    ] = None,
) -> None:
    """Write readings as CSV or parquet 导出读数, sorted by meter, quantity and midnight."""
    invocation = of(context).demo() if demo else of(context)
    first = from_.date() if from_ is not None else None
    last = to.date() if to is not None else None
    if first is not None and last is not None and first > last:
        raise typer.BadParameter("--from is after --to")
    if format_ == "parquet" and output is None:
        raise typer.BadParameter("parquet needs a file: --output FILE")
    kinds = None if kind == "all" else Kind[kind.upper()]

    async def work() -> int:
        async with database_for(invocation) as database:
            if format_ == "parquet":
                assert output is not None
                return await exports.export_parquet(database, output, first=first, last=last, kind=kinds)
            if output is None:
                return await exports.export_csv(
                    database, sys.stdout.buffer, first=first, last=last, kind=kinds
                )
            with output.open("wb") as file:
                return await exports.export_csv(database, file, first=first, last=last, kind=kinds)

    try:
        rows = asyncio.run(work())
        sys.stdout.flush()
    except BrokenPipeError:
        # whoever read from us has enough; keep Python from complaining at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(ExitCode.WRONG) from None
    if output is not None:
        say(f"{rows} readings 条 → {output}")


app.add_typer(export_commands, name="export")
