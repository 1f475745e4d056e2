"""`lingdian relay` on a direct line: fetch a ticket, use it once at the meter, hand in what came of it.

What they do is in `relay_at_meter`, imported when it is wanted: its imports take a second.
"""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final
from uuid import uuid4

import typer

from gateway.cli.invocation import ExitCode, JsonFlag, answer, of, say, show
from gateway.cli.relay_options import PATH, CommandId, TokenFile, Url, gateway_of
from gateway.cli.relay_words import command_line
from gateway.command import Action
from gateway.errors import InputError

KEY_PATH: Final = "/api/v1/ticket-key"


class Verb(StrEnum):
    """What a ticket may be for."""

    TRIP = Action.TRIP.value
    CLOSE = Action.CLOSE.value
    PERMIT_CLOSE = Action.PERMIT_CLOSE.value


def ticket_key(
    context: typer.Context,
    pin: Annotated[
        bool, typer.Option("--pin", help="Trust tickets signed with it, on this machine 固定公钥.")
    ] = False,
    key: Annotated[
        str, typer.Option(metavar="HEX", help="This key, told by a person, instead of asking the gateway.")
    ] = "",
    replace: Annotated[
        bool, typer.Option("--replace", help="With --pin: instead of another that is pinned.")
    ] = False,
    url: Url = None,
    token_file: TokenFile = None,
    json_output: JsonFlag = False,
) -> None:
    """The gateway's public key for tickets 操作票公钥, and to pin it on the machine that goes to meters."""
    from gateway.cli import relay_at_meter
    from gateway.field.machine import is_key

    if key and not is_key(key):
        raise typer.BadParameter("64 hex digits are wanted", param_hint="--key")
    if not key:
        with gateway_of(context, url, token_file) as gateway:
            key = gateway.get(KEY_PATH)["key"]
    if pin:
        relay_at_meter.machine_of(of(context)).pin(key, anew=replace)
    if json_output:
        answer({"key": key, "pinned": pin})
    else:
        show(f"{key}{' pinned 已固定' if pin else ''}")


def ticket(
    context: typer.Context,
    command: CommandId,
    out: Annotated[
        Path | None, typer.Option(help="File to write. By default ticket-ID.json. Confidential 保密.")
    ] = None,
    key: Annotated[
        str | None, typer.Option(help="Idempotency key: the same ticket again, where its answer was lost.")
    ] = None,
    url: Url = None,
    token_file: TokenFile = None,
    json_output: JsonFlag = False,
) -> None:
    """A ticket for a queued command 开操作票, for this machine alone: a trip's holds some minutes, a close's
    a day. The command counts as sent from then on. Exit 1 where a gate is shut."""
    from gateway.cli import relay_at_meter

    machine = relay_at_meter.machine_of(of(context))
    path = Path(f"ticket-{command}.json") if out is None else out
    with gateway_of(context, url, token_file) as gateway:
        found, told = relay_at_meter.fetch(gateway, str(command), machine, key or str(uuid4()), path)
    if json_output:
        answer({"file": str(path), "ticket": told})
    else:
        show(f"{path}: {found.action} of meter 电能表 {found.meter}, until 有效至 {found.until.isoformat()}")


def direct(
    context: typer.Context,
    verb: Annotated[Verb, typer.Argument(help="What the ticket is for.")],
    meter: Annotated[str, typer.Argument(metavar="METER", help="Asset number or address of the meter.")],
    via: Annotated[
        str, typer.Option(metavar="CHANNEL", help="The line, as of `read --via`: serial:///dev/…")
    ],
    ticket: Annotated[
        Path | None, typer.Option("--ticket", dir_okay=False, help="File of `relay ticket` 操作票.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Evidence to write. By default direct-ID.json 证据文件.")
    ] = None,
    json_output: JsonFlag = False,
) -> None:
    """Switch a relay on a direct line 现场直连拉合闸, only with a ticket that the gateway signed, and once.

    Exit 0: the relay shows it; 1: nothing was sent, and it is said why; 3: sent, and not shown yet.
    """
    from gateway.cli import relay_at_meter

    done = relay_at_meter.use(of(context), Action(verb.value), meter, via, ticket, out)
    if json_output:
        answer({"file": str(done.path), "done": done.shown, "evidence": done.evidence})
    else:
        show(done.words())
        say(f"hand it in 请上传: lingdian relay upload {done.path}")
    if not done.shown:
        raise typer.Exit(ExitCode.MISSING)


def upload(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="As `relay direct` wrote it.")],
    url: Url = None,
    token_file: TokenFile = None,
    json_output: JsonFlag = False,
) -> None:
    """Hand in what was done with a ticket 上传直连证据; again does no harm. Exit 1 where it is refused."""
    from gateway.cli import relay_at_meter

    try:
        told = json.loads(relay_at_meter.read_file(file))
        command = told["ticket"]["command"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"{file} is no evidence of a direct line 不是直连证据") from error
    with gateway_of(context, url, token_file) as gateway:
        found = gateway.post(f"{PATH}/{command}/direct-evidence", {"evidence": told})
    if json_output:
        answer({"command": found})
    else:
        show(command_line(found))
