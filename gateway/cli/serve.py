"""`lingdian serve`: run the gateway."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
import uvloop

from gateway import config, logs, service
from gateway.cli.invocation import JsonFlag, answer, of, say

app = typer.Typer()


@app.command("serve")
def serve(
    context: typer.Context,
    listen: Annotated[
        str | None,
        typer.Option(metavar="HOST:PORT", help="Where terminals dial in; port 0 takes a free one."),
    ] = None,
    http: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="Health, metrics and status over TCP.")
    ] = None,
    config_file: Annotated[
        Path | None,
        typer.Option("--config", dir_okay=False, help="Settings; as the option before the command."),
    ] = None,
    json_output: JsonFlag = False,
) -> None:
    """Run the gateway 启动网关: serve terminals, collect each midnight. SIGTERM or Ctrl-C ends it."""
    invocation = of(context)
    given: dict[str, Any] = {}
    if listen is not None:
        given["listen"] = {"address": listen}
    if http is not None:
        given["http"] = {"address": http}
    settings = config.load(config_file or invocation.config_file, **given)
    logs.configure(settings.log.level, settings.log.format)

    def announce(ready: dict[str, Any]) -> None:
        if json_output:
            answer(ready)
        over = f", http {ready['http']}" if ready["http"] else ""
        say(f"ready 就绪: terminals 终端 {ready['listen']}{over}, socket {ready['socket']}")

    uvloop.run(service.run(settings, invocation.state, announce))
