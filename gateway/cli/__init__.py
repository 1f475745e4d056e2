"""The command `lingdian`. With --json standard output holds only JSON; words go to standard error.

Exit codes: 0 fine, 1 something is wrong, 2 usage or settings, 3 something is missing, 4 no gateway runs, 5 a
relay command has ended otherwise than wanted.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from gateway.cli.invocation import CommandGroup, Invocation, show
from gateway.state import State, default_state

MODULES: Final = {
    "demo": "demo",
    "serve": "serve",
    "import": "assets",
    "collect": "live",
    "gaps": "readings",
    "events": "events",
    "export": "readings",
    "read": "live",
    "watch": "watch",
    "scan": "scan",
    "record": "conversations",
    "replay": "conversations",
    "archive": "live",
    "terminal": "live",
    "replace": "assets",
    "migrate": "assets",
    "decode": "decode",
    "encode": "encode",
    "diff": "diff",
    "simulate": "simulate",
    "token": "token",
    "relay": "relay",
}
"""Where each command is. A module is imported when its command is wanted: decoding a frame needs neither HTTP
nor database, and their imports take a second."""


class _Commands(CommandGroup):
    """All commands, each loaded when it is called or listed."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(MODULES)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in MODULES:
            return None
        module = import_module(f"gateway.cli.{MODULES[cmd_name]}")
        return typer.main.get_group(module.app).get_command(ctx, cmd_name)


app = typer.Typer(
    name="lingdian",
    cls=_Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    help="Head-end for electricity meters 用电信息采集主站: midnight readings over Q/GDW 376.1 and DL/T 645.",
    epilog="Exit codes: 0 fine, 1 wrong, 2 usage or settings, 3 something is missing, 4 no gateway runs, 5 a"
    " relay command has ended otherwise than wanted.",
)


def _show_version(wanted: bool) -> None:
    if wanted:
        show(f"lingdian {version('lingdian')}")
        raise typer.Exit


@app.callback()
def lingdian(
    context: typer.Context,
    state: Annotated[
        Path | None,
        typer.Option(
            envvar="LINGDIAN_STATE",
            file_okay=False,
            help="State folder; by default $XDG_STATE_HOME/lingdian or ~/.local/state/lingdian.",
        ),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(
            envvar="LINGDIAN_CONFIG", dir_okay=False, help="Settings, TOML; see docs/configuration.md."
        ),
    ] = None,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Options before the command."""
    chosen = State(state.expanduser().absolute()) if state is not None else default_state()
    context.obj = Invocation(chosen, config)


def main() -> None:
    """Entry point of the command `lingdian`."""
    app()
