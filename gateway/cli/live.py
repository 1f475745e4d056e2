"""Commands that need live terminals: they ask the running gateway."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from gateway.cli.client import Gateway, Refusal
from gateway.cli.invocation import (
    CommandGroup,
    ExitCode,
    JsonFlag,
    answer,
    of,
    progress_console,
    reason_words,
    requester,
    say,
    show,
)
from gateway.errors import InputError

app = typer.Typer()
terminal_commands = typer.Typer(cls=CommandGroup, no_args_is_help=True, help="Terminals 终端: list, clock.")

Terminal = Annotated[str, typer.Argument(metavar="TERMINAL", help="Area code and address, such as 02001234.")]

_POLL_SECONDS = 1.0
"""How often the progress bar moves."""


@app.command("collect")
def collect(
    context: typer.Context,
    day: Annotated[datetime, typer.Option(formats=["%Y-%m-%d"], help="Business day, Asia/Shanghai.")],
    terminal: Annotated[
        list[str] | None, typer.Option(help="Only this terminal; may be given again.")
    ] = None,
    json_output: JsonFlag = False,
) -> None:
    """Ask now for all that is missing for a day 召测补抄, and wait.

    Exit 0: nothing is missing; 3: something is; 4: no gateway runs.
    """
    with Gateway(of(context).state) as gateway:
        result = follow_collection(gateway, day.date().isoformat(), terminal)
    if json_output:
        answer(result)
    else:
        show(
            f"{result['day']}: {result['collected']} of {result['due']} readings 已采 / 应采,"
            f" {result['missing']} missing 缺; {result['seconds']:.1f} s"
        )
        for reason, count in result["reasons"].items():
            show(f"  {count:>8}  {reason_words(reason)}")
        if result["missing"]:
            say(f"which ones 明细: lingdian gaps --day {result['day']}")
    if result["missing"]:
        raise typer.Exit(ExitCode.MISSING)


def follow_collection(gateway: Gateway, day: str, terminals: list[str] | None = None) -> dict[str, Any]:
    """Start or join the collection of `day`, show progress on standard error, return its result.

    Refusal where it failed. Ctrl-C leaves the collection running.
    """
    path = f"/api/v1/collections/{day}"
    run: dict[str, Any] = gateway.post(path, {"terminals": terminals or []})
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=progress_console(),
        transient=True,
    ) as bar:
        task = bar.add_task(f"collecting 采集 {day}", total=None)
        while run["state"] == "running":
            if "due" in run:
                bar.update(task, total=run["due"], completed=run["collected"])
            run = gateway.get(path, wait=_POLL_SECONDS, terminal=run["terminals"] or [])
    if run["state"] == "failed":
        raise Refusal(500, "collection-failed", f"the collection of {day} failed 采集失败: {run['error']}")
    return run


@app.command("read")
def read(
    context: typer.Context,
    address: Annotated[
        str,
        typer.Argument(
            metavar="ADDRESS",
            help="A meter's address (12 digits), or a terminal's (8).",
            show_default=False,
        ),
    ] = "",
    items: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="ITEM...",
            help="forward_active (as the terminal holds it), a DL/T 645 data identifier (00010000: asks the"
            " meter itself); of a terminal: clock. With --via: data identifiers of 8 (2007) or 4 (1997) hex"
            " digits, or names as `decode` shows them. With --offline: further addresses, and registers"
            " (forward_active).",
        ),
    ] = None,
    via: Annotated[
        str,
        typer.Option(
            metavar="CHANNEL", help="Ask the meter on this line, without a gateway 直接抄读: serial:///dev/…"
        ),
    ] = "",
    offline: Annotated[
        Path | None,
        typer.Option(
            dir_okay=False,
            metavar="FILE",
            help="With --via: add frozen and present registers to this file 离线抄表, for `import readings`.",
        ),
    ] = None,
    meters: Annotated[
        Path | None,
        typer.Option(
            exists=True, dir_okay=False, metavar="FILE", help="With --offline: all of this list (meters.csv)."
        ),
    ] = None,
    day: Annotated[
        datetime | None,
        typer.Option(formats=["%Y-%m-%d"], help="With --offline: the day whose freeze is wanted; yesterday."),
    ] = None,
    reader: Annotated[str, typer.Option(help="With --offline: who reads 抄表员; who calls.")] = "",
    json_output: JsonFlag = False,
) -> None:
    """Read a meter or a terminal now 实时召测; with --offline many, into a file.

    Exit 0: every item has a value; 1: the line was lost; 3: some item has none; 4: no gateway runs.
    """
    words = [word for word in (address, *(items or [])) if word]
    if offline is not None:
        _read_offline(via, words, offline, meters, day, reader, json_output)
        return
    if meters is not None or day is not None or reader:
        raise typer.BadParameter("--meters, --day and --reader go with --offline 须与 --offline 同用")
    if len(words) < 2:
        raise typer.BadParameter("give an address, and what is to be read 缺少地址或数据项")
    items = words[1:]
    if via:
        from gateway.cli.direct_read import read_via  # serial ports are wanted for nothing else here

        result = read_via(via, address, items)
    else:
        with Gateway(of(context).state) as gateway:
            if "clock" in items:
                result = _read_terminal(gateway, address, items)
            else:
                result = gateway.post(f"/api/v1/meters/{address}/read", {"items": items})
    if json_output:
        answer(result)
    else:
        for item in result["items"]:
            _show_item(item)
    if any(item["reason"] for item in result["items"]):
        raise typer.Exit(ExitCode.MISSING)


def _read_offline(
    via: str,
    words: list[str],
    file: Path,
    meters: Path | None,
    day: datetime | None,
    reader: str,
    json_output: bool,
) -> None:
    from gateway.cli.direct_read import read_offline, show_round  # as above

    if not via:
        raise typer.BadParameter("--offline goes with --via CHANNEL 须与 --via 同用")
    done = read_offline(
        via, words, file, meters=meters, day=None if day is None else day.date(), reader=reader or requester()
    )
    if json_output:
        answer(done.as_json())
    else:
        show_round(done)
    if done.ended == "lost":
        say(done.why, error=True)
        raise typer.Exit(ExitCode.WRONG)
    if done.failures or done.ended != "complete":
        raise typer.Exit(ExitCode.MISSING)


def _read_terminal(gateway: Gateway, terminal: str, items: list[str]) -> dict[str, Any]:
    if items != ["clock"]:
        raise InputError("clock is the one item of terminals 终端数据项仅 clock; ask for it alone")
    clock = gateway.post(f"/api/v1/terminals/{terminal}/clock", {"action": "check"})
    values = [
        {"name": "clock", "value": clock["clock"], "unit": ""},
        {"name": "offset", "value": f"{clock['offset_seconds']:.1f}", "unit": "s"},
    ]
    item = {"item": "clock", "values": values, "read_at": clock["read_at"], "reason": None, "detail": ""}
    return {"terminal": terminal, "items": [item]}


def _show_item(item: dict[str, Any]) -> None:
    if item["reason"]:
        show(f"{item['item']}: no value 无数据: {reason_words(item['reason'])}; {item['detail']}")
        return
    for value in item["values"]:
        words = " ".join(filter(None, (value["name"], value.get("name_zh"))))
        shown = "no value 无数据" if value["value"] is None else f"{value['value']} {value['unit']}"
        show(f"{item['item']}  {words}: {shown.strip()}")


@app.command("archive")
def archive(
    context: typer.Context,
    terminal: Terminal,
    diff: Annotated[bool, typer.Option("--diff", help="Show what differs from the assets.")] = False,
    push: Annotated[bool, typer.Option("--push", help="Write what differs, then read it back.")] = False,
    prune: Annotated[
        bool, typer.Option("--prune", help="With --push: also delete what the assets do not have.")
    ] = False,
    json_output: JsonFlag = False,
) -> None:
    """Compare a terminal's meter archive with the assets 终端档案比对, or write it 下发.

    Exit 0: they agree (after --push: now); 3: they differ; 4: no gateway runs.
    """
    if diff == push or (prune and not push):
        raise typer.BadParameter("give --diff, or --push, the latter perhaps with --prune")
    body = {"action": "push" if push else "diff", "prune": prune}
    with Gateway(of(context).state) as gateway:
        result = gateway.post(f"/api/v1/terminals/{terminal}/archive", body)
    if json_output:
        answer(result)
    else:
        if push:
            show(f"{result['written']} records written 已下发")
        for difference in result["differences"]:
            show(_difference_words(difference))
        if not result["differences"]:
            show(f"{result['records']} records, as in the assets 与档案一致")
    if result["differences"]:
        raise typer.Exit(ExitCode.MISSING)


def _difference_words(difference: dict[str, Any]) -> str:
    ours, theirs = difference["assets"], difference["terminal"]
    place = f"p{difference['pn']}"
    if ours is None:
        return f"{place}: only in the terminal 仅终端有: {theirs['address']}"
    if theirs is None:
        return f"{place}: not in the terminal 终端缺: {ours['address']}"
    pairs = ", ".join(
        f"{field} {theirs[field]} (assets 主站 {ours[field]})" for field in difference["fields"]
    )
    return f"{place}: differs 不一致: {pairs}"


@terminal_commands.command("clock")
def terminal_clock(
    context: typer.Context,
    terminal: Terminal,
    check: Annotated[bool, typer.Option("--check", help="Read the clock.")] = False,
    set_: Annotated[
        bool, typer.Option("--set", help="Set it to the present time, then read it back.")
    ] = False,
    json_output: JsonFlag = False,
) -> None:
    """Check or set a terminal's clock 终端对时.

    Exit 0: within the tolerance; 3: off by more; 4: no gateway runs.
    """
    if check == set_:
        raise typer.BadParameter("give either --check or --set")
    with Gateway(of(context).state) as gateway:
        result = gateway.post(f"/api/v1/terminals/{terminal}/clock", {"action": "set" if set_ else "check"})
    if json_output:
        answer(result)
    else:
        state = "within tolerance 正常" if result["within_tolerance"] else "too far off 超差"
        show(f"{result['terminal']}: {result['clock']}, {result['offset_seconds']:+.1f} s, {state}")
    if not result["within_tolerance"]:
        raise typer.Exit(ExitCode.MISSING)


@terminal_commands.command("list")
def terminal_list(context: typer.Context, json_output: JsonFlag = False) -> None:
    """Show all terminals 终端列表: those of the assets, and strangers that dialled in."""
    with Gateway(of(context).state) as gateway:
        result = gateway.get("/api/v1/terminals")
    if json_output:
        answer(result)
        return
    for one in result["terminals"]:
        marks = "online 在线" if one["online"] else "absent 离线"
        if one["contested"]:
            marks += ", contested 地址冲突"
        if one["clock_offset_seconds"] is not None:
            marks += f", clock 时钟 {one['clock_offset_seconds']:+.0f} s"
        show(f"{one['terminal']}  {one['points']:>5} points 测量点  {marks}")
    for stranger in result["unregistered"]:
        show(f"{stranger['address']}  not in the assets 未建档  last seen 最近 {stranger['last_seen']}")


app.add_typer(terminal_commands, name="terminal")
