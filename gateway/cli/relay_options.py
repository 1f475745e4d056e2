"""Options that the commands of `lingdian relay` share, and the gateway that they ask."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Final
from uuid import UUID

import typer

from gateway.cli.client import Afar, Gateway
from gateway.cli.invocation import of
from gateway.clock import SHANGHAI
from gateway.errors import ConfigurationError

PATH: Final = "/api/v1/relay-commands"
"""Where commands are asked for and looked at."""

Meter = Annotated[str, typer.Argument(metavar="METER", help="Asset number, or address where it is unique.")]
CommandId = Annotated[UUID, typer.Argument(metavar="ID", help="Number of the command.")]
Reason = Annotated[str, typer.Option(help="Why, for the record 原因.")]
Url = Annotated[
    str | None,
    typer.Option(
        envvar="LINGDIAN_URL",
        help="A gateway elsewhere, https://HOST:PORT, with the token in LINGDIAN_TOKEN or --token-file.",
    ),
]
TokenFile = Annotated[
    Path | None, typer.Option(dir_okay=False, exists=True, help="File with the token 令牌.")
]


def gateway_of(context: typer.Context, url: str | None, token_file: Path | None) -> Gateway:
    """The gateway of the state folder, or the one at `url`. ConfigurationError where it cannot be asked."""
    if url is None:
        if token_file is not None:
            raise ConfigurationError("--token-file goes with --url 须与 --url 同用")
        return Gateway(of(context).state)
    token = os.environ.get("LINGDIAN_TOKEN", "")
    if token_file is not None:
        token = token_file.read_text(encoding="ascii", errors="replace")
    return Gateway(of(context).state, Afar(url, token.strip()).checked())


def instant(at: datetime | None) -> str | None:
    """As the interface wants it; what names no zone is Shanghai's."""
    if at is None:
        return None
    return (at if at.tzinfo is not None else at.replace(tzinfo=SHANGHAI)).astimezone(UTC).isoformat()
