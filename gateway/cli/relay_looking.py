"""Look at relay commands: one with its course, or a list."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import typer

from gateway.cli.invocation import JsonFlag, answer, say, show
from gateway.cli.relay_options import PATH, CommandId, TokenFile, Url, gateway_of, instant
from gateway.cli.relay_words import command_line, event_line
from gateway.command import State


def show_command(
    context: typer.Context,
    command: CommandId,
    url: Url = None,
    token_file: TokenFile = None,
    json_output: JsonFlag = False,
) -> None:
    """What was asked for, and what became of it 命令详情."""
    with gateway_of(context, url, token_file) as gateway:
        found = gateway.get(f"{PATH}/{command}")
        events = gateway.get(f"{PATH}/{command}/timeline")["events"]
    if json_output:
        answer({"command": found, "timeline": events})
        return
    show(command_line(found))
    asked = [f"requester 申请人 {found['requester']}", f"cause 原因 {found['cause']}"]
    for name, words in (("notice", "通知"), ("customer", "户号"), ("approver", "审批人"), ("label", "备注")):
        if found[name]:
            asked.append(f"{name} {words} {found[name]}")
    show("  " + ", ".join(asked))
    for event in events:
        show(event_line(event))


def list_commands(
    context: typer.Context,
    meter: Annotated[str | None, typer.Option(help="Only of this meter, by asset number.")] = None,
    state: Annotated[State | None, typer.Option(help="Only in this state.")] = None,
    customer: Annotated[str | None, typer.Option(help="Only of this customer 户号.")] = None,
    since: Annotated[
        datetime | None, typer.Option(formats=["%Y-%m-%d"], help="Asked for from that day on, Shanghai.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=500, help="So many at most.")] = 50,
    cursor: Annotated[str | None, typer.Option(help="Where the page before ended: its `next`.")] = None,
    url: Url = None,
    token_file: TokenFile = None,
    json_output: JsonFlag = False,
) -> None:
    """Commands, the newest first 命令列表."""
    given = {
        "meter": meter,
        "state": None if state is None else state.value,
        "customer": customer,
        "since": instant(since),
        "cursor": cursor,
    }
    query = {name: value for name, value in given.items() if value is not None}
    with gateway_of(context, url, token_file) as gateway:
        page = gateway.get(PATH, limit=limit, **query)
    if json_output:
        answer(page)
        return
    for one in page["commands"]:
        show(command_line(one))
    if page["next"] is not None:
        say(f"more 更多: --cursor {page['next']}")
