"""`lingdian token`: who may call the HTTP interface. Works on the database; no gateway need run."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Annotated

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
from gateway.errors import InputError
from gateway.storage import clients
from gateway.storage.clients import Client, Scope

app = typer.Typer()
token_commands = typer.Typer(
    cls=CommandGroup,
    no_args_is_help=True,
    help="Tokens for the HTTP interface 接口令牌: create, list, revoke.",
)


@token_commands.command("create")
def create(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="Who holds it; it stands in the evidence of what is asked.")],
    scope: Annotated[
        list[Scope],
        typer.Option(help="read, control, approve, admin; none includes another. May be given again."),
    ],
    organisation: Annotated[
        str | None, typer.Option(help="Sees the meters of this one and those below it, no others 单位.")
    ] = None,
    all_organisations: Annotated[
        bool, typer.Option("--all-organisations", help="Sees the meters of all 全部单位.")
    ] = False,
    json_output: JsonFlag = False,
) -> None:
    """Make a token 新建令牌. It is printed this once; only its SHA-256 is kept."""
    if (organisation is None) is not all_organisations:
        say("give --organisation NAME or --all-organisations 须指定单位或全部单位", error=True)
        raise typer.Exit(ExitCode.USAGE)
    token = asyncio.run(_create(of(context), name, scope, organisation))
    if json_output:
        answer({"client": name, "scopes": sorted(set(scope)), "organisation": organisation, "token": token})
    else:
        show(token)
        say(f"the token of {name}; keep it, it is shown this once 令牌仅显示一次")


async def _create(invocation: Invocation, name: str, scopes: list[Scope], organisation: str | None) -> str:
    async with database_for(invocation, writing=True) as database:
        return await clients.create(
            database,
            name=name,
            scopes=scopes,
            organisation=organisation,
            by=requester(),
            at=datetime.now(UTC),
        )


@token_commands.command("list")
def list_tokens(context: typer.Context, json_output: JsonFlag = False) -> None:
    """Who has a token 令牌列表, and who had one."""
    found = asyncio.run(_listed(of(context)))
    if json_output:
        answer({"tokens": [_plain(one) for one in found]})
        return
    for one in found:
        of_whom = one.organisation or "all organisations"
        used = f"last used {one.last_used_at:%Y-%m-%d %H:%M}" if one.last_used_at else "never used"
        state = f"revoked {one.revoked_at:%Y-%m-%d %H:%M}" if one.revoked_at else used
        show(f"{one.name}  {','.join(one.scopes)}  {of_whom}  {state}")


async def _listed(invocation: Invocation) -> list[Client]:
    async with database_for(invocation) as database:
        return await clients.listed(database)


@token_commands.command("revoke")
def revoke(
    context: typer.Context,
    name: Annotated[list[str], typer.Argument(help="Whose token; several may be given.")],
    json_output: JsonFlag = False,
) -> None:
    """Refuse a token from now on 吊销令牌; its webhooks end with it."""
    asyncio.run(_revoke(of(context), name))
    if json_output:
        answer({"revoked": name})
    else:
        say(f"revoked 已吊销: {', '.join(name)}")


async def _revoke(invocation: Invocation, names: list[str]) -> None:
    async with database_for(invocation, writing=True) as database:
        known = {one.name for one in await clients.listed(database) if one.revoked_at is None}
        if missing := [name for name in names if name not in known]:
            raise InputError(f"no client {', '.join(missing)} with a token in force 无此有效令牌")
        for name in names:
            await clients.revoke(database, name, by=requester(), at=datetime.now(UTC))


def _plain(one: Client) -> dict[str, object]:
    return {
        "client": one.name,
        "scopes": list(one.scopes),
        "organisation": one.organisation,
        "created_by": one.created_by,
        "created_at": one.created_at.isoformat(),
        "revoked_at": None if one.revoked_at is None else one.revoked_at.isoformat(),
        "last_used_at": None if one.last_used_at is None else one.last_used_at.isoformat(),
    }


app.add_typer(token_commands, name="token")
