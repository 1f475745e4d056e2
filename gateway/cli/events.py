"""Events of terminals: what they noticed, and what of it waits for a person. No gateway need run."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final

import typer

from gateway.cli.database import database_for
from gateway.cli.invocation import (
    CommandGroup,
    ExitCode,
    Invocation,
    JsonFlag,
    answer,
    of,
    requester,
    say,
    show,
)
from gateway.clock import SHANGHAI
from gateway.storage import events as store
from gateway.storage.events import StoredEvent

app = typer.Typer()
event_commands = typer.Typer(
    cls=CommandGroup,
    invoke_without_command=True,
    help="Events of terminals 终端事件: list them, and see to them.",
)

DAYS_SHOWN: Final = 7
"""Where neither --from nor --worklist says more."""

DETAIL_SHOWN: Final = 12
"""Values of one event on its line; --json has all."""

_NAMED_BEFORE: Final = {"at", "off", "point"}
"""Fields whose values stand at the beginning of the line already."""


@event_commands.callback()
def events(
    context: typer.Context,
    terminal: Annotated[
        list[str] | None, typer.Option(help="Only of this terminal; may be given again.")
    ] = None,
    from_: Annotated[
        datetime | None,
        typer.Option(
            "--from", formats=["%Y-%m-%d"], help="Received from that day on, Shanghai; without it: 7 days."
        ),
    ] = None,
    worklist: Annotated[
        bool, typer.Option("--worklist", help="Only those that wait for a person, however old 待处理.")
    ] = False,
    demo: Annotated[bool, typer.Option("--demo", help="On the state of `lingdian demo`.")] = False,
    json_output: JsonFlag = False,
) -> None:
    """List what terminals noticed 终端事件, oldest first.

    Exit 0: done, and with --worklist nothing waits; 3: with --worklist, something waits for a person.
    """
    if context.invoked_subcommand is not None:
        return
    invocation = of(context).demo() if demo else of(context)
    since = None if from_ is None else from_.replace(tzinfo=SHANGHAI)
    if since is None and not worklist:
        since = datetime.now(UTC) - timedelta(days=DAYS_SHOWN)
    named = [one.lower() for one in terminal] if terminal else None
    try:
        count = asyncio.run(_list(invocation, named, since, worklist, json_output))
        sys.stdout.flush()
    except BrokenPipeError:
        # whoever read from us has enough; keep Python from complaining at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(ExitCode.WRONG) from None
    if worklist and count:
        say("seen to 处理完毕: lingdian events acknowledge NUMBER… --note TEXT")
        raise typer.Exit(ExitCode.MISSING)


async def _list(
    invocation: Invocation,
    terminals: list[str] | None,
    since: datetime | None,
    worklist: bool,
    json_output: bool,
) -> int:
    """Written as they are read; how many."""
    count = 0
    if json_output:
        sys.stdout.write('{"events":[')
    async with database_for(invocation) as database:
        async for one in store.walk(database, terminals=terminals, since=since, worklist=worklist):
            if json_output:
                text = json.dumps(one.plain(), ensure_ascii=False, separators=(",", ":"))
                sys.stdout.write(("," if count else "") + text)
            else:
                show(_line(one))
            count += 1
    if json_output:
        sys.stdout.write(f'],"count":{count}}}\n')
    else:
        show(f"{count} events wait for a person 条待处理" if worklist else f"{count} events 条事件")
    return count


def _line(event: StoredEvent) -> str:
    """One event in one line: number, when, where, what."""
    when = event.occurred_at
    shown = "time unknown 时间不明" if when is None else f"{when.astimezone(SHANGHAI):%Y-%m-%d %H:%M:%S}"
    place = event.terminal
    if event.pn is not None:
        place += f" p{event.pn}" + (f" {event.meter}" if event.meter else "")
    what = f"ERC{event.erc} {event.name} {event.name_zh}".rstrip()
    if event.starts is not None:
        what += ", begins 发生" if event.starts else ", over 恢复"
    parts = [what]
    if event.reason is not None:
        parts.append(f"not understood 无法解析: {event.reason}; {event.raw.hex(' ')}")
    elif values := _values(event.detail):
        parts.append(values)
    if event.contested:
        parts.append("contested address 地址冲突")
    if event.acknowledged_by is not None:
        parts.append(f"seen to by 已处理 {event.acknowledged_by}" + (f": {event.note}" if event.note else ""))
    elif event.needs_person:
        parts.append("waits for a person 待处理")
    return f"#{event.event_id}  {shown}  {place}  " + "; ".join(parts)


def _values(detail: list[dict[str, Any]]) -> str:
    shown = [f"{name} {value}" for name, value in _leaves(detail) if name not in _NAMED_BEFORE]
    return ", ".join(shown[:DETAIL_SHOWN]) + (" …" if len(shown) > DETAIL_SHOWN else "")


def _leaves(detail: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """Names and values of the single fields; those within others go by their own names."""
    found = []
    for field in detail:
        value = field["value"]
        if field["name"] in _NAMED_BEFORE:
            continue
        inner = value if isinstance(value, list) else None
        if inner and all(isinstance(one, dict) for one in inner):
            found += _leaves(inner)
        elif inner and all(isinstance(one, list) and one and isinstance(one[0], dict) for one in inner):
            for one in inner:
                found += _leaves(one)
        else:
            text = "none 无" if value is None else f"{value} {field['unit']}".rstrip()
            found.append((field["name"], text))
    return found


@event_commands.command("acknowledge")
def acknowledge(
    context: typer.Context,
    numbers: Annotated[
        list[int], typer.Argument(metavar="NUMBER...", min=1, help="Numbers of events, as listed.")
    ],
    by: Annotated[str | None, typer.Option(help="Who has seen to it; by default who calls.")] = None,
    note: Annotated[str, typer.Option(help="What was found or done, for the record.")] = "",
    json_output: JsonFlag = False,
) -> None:
    """Take events off the worklist 处理完毕, with a name; it is noted in the audit.

    What somebody else has acknowledged before stays theirs.
    """
    who = requester() if by is None else by

    async def work() -> list[int]:
        async with database_for(of(context), writing=True) as database:
            return await store.acknowledge(database, numbers, who=who, note=note, at=datetime.now(UTC))

    done = asyncio.run(work())
    if json_output:
        answer({"acknowledged": done, "by": who})
        return
    show(f"{len(done)} events seen to by {who} 已处理")
    if before := sorted(set(numbers) - set(done)):
        say(f"seen to before 早已处理: {', '.join(map(str, before))}")


app.add_typer(event_commands, name="events")
