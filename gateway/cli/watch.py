"""`lingdian watch`: a table that stays up to date, of the running gateway or of a meter on a direct line."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
import time
from collections.abc import Callable, Iterator
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.live import Live

from gateway.cli.client import Refusal
from gateway.cli.invocation import ExitCode, JsonFlag, NoGateway, answer
from gateway.cli.painting import screen
from gateway.cli.relay_options import TokenFile, Url, gateway_of
from gateway.cli.watch_gateway import Look, Lookout, painted

app = typer.Typer()

ANSWER_SECONDS: Final = 10.0
"""A gateway that does not answer within it counts as gone, and is asked again."""


@app.command("watch")
def watch(
    context: typer.Context,
    address: Annotated[
        str,
        typer.Argument(
            metavar="ADDRESS", help="With --via: a meter's address (12 digits).", show_default=False
        ),
    ] = "",
    items: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="ITEM...", help="With --via: as for `read`; none: voltage, current, power and energy."
        ),
    ] = None,
    via: Annotated[
        str,
        typer.Option(metavar="CHANNEL", help="Watch the meter on this line, without a gateway 直接监视."),
    ] = "",
    every: Annotated[float, typer.Option(min=0.2, max=3600, help="Seconds between two looks.")] = 2.0,
    url: Url = None,
    token_file: TokenFile = None,
    json_output: JsonFlag = False,
) -> None:
    """Watch the running gateway 实时监视: terminals, collection, relay commands, events. Ctrl-C ends it.

    Into a pipe, and with --json, one snapshot. A gateway that goes away is waited for.
    Exit 0: seen; 1: refused, or the line was lost; 3: a meter did not give all; 4: no gateway runs.
    """
    once = json_output or not sys.stdout.isatty()
    if via:
        _watch_meter(via, address, items or [], every, once=once, json_output=json_output)
        return
    if address:
        raise typer.BadParameter("a meter is watched with --via CHANNEL 须与 --via 同用")
    with gateway_of(context, url, token_file).within(ANSWER_SECONDS) as gateway:
        lookout = Lookout(gateway)
        first = lookout.look()
        if json_output:
            answer(first.as_json())
        elif once:
            screen().print(painted(first))
        else:
            follow(lookout, first, Console(), lambda: time.sleep(every))


def follow(lookout: Lookout, first: Look, console: Console, pause: Callable[[], None]) -> None:
    """Show, and look again after each `pause`, until Ctrl-C; then the screen is as it was before."""
    look, trouble = first, ""
    with _until_interrupted(), Live(painted(look), console=console, screen=True, auto_refresh=False) as live:
        while True:
            live.update(painted(look, trouble), refresh=True)
            pause()
            try:
                look, trouble = lookout.look(), ""
            except (NoGateway, Refusal) as error:
                trouble = str(error)
                lookout.forget()


@contextlib.contextmanager
def _until_interrupted() -> Iterator[None]:
    with contextlib.suppress(ValueError):  # not in the main thread
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    with contextlib.suppress(KeyboardInterrupt):
        yield


def _watch_meter(
    via: str, address: str, words: list[str], every: float, *, once: bool, json_output: bool
) -> None:
    from gateway.cli import watch_meter  # serial ports are wanted for nothing else here
    from gateway.field.direct import address_of, wish
    from gateway.transports import channel as channels

    way, meter, wishes = channels.parse(via), address_of(address), [wish(word) for word in words]
    if not once:
        with _until_interrupted(), Live(screen=True, auto_refresh=False) as live:
            asyncio.run(
                watch_meter.watch_meter(
                    *(way, meter, wishes, every),
                    lambda seen: live.update(watch_meter.painted(seen), refresh=True),
                )
            )
        return
    told, seen = asyncio.run(watch_meter.look_once(way, meter, wishes))
    if json_output:
        answer(told)
    else:
        screen().print(watch_meter.painted(seen))
    if any(item["reason"] for item in told["items"]):
        raise typer.Exit(ExitCode.MISSING)
