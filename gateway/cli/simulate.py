"""`lingdian simulate`: devices to try a gateway on, played by another process, `python -m simulator`."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from gateway.cli.invocation import ExitCode

if TYPE_CHECKING:
    from rich.console import Group

app = typer.Typer()

MOST_LINES: Final = 200
"""Frames that are remembered; a screen shows the newest that it has room for."""

MOST_HELD: Final = 4096
"""Bytes of a half frame, of one device and way."""

_ARROWS: Final = {"down": "→", "up": "←"}


@app.command(
    "simulate",
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []},
)
def simulate(
    arguments: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="meter|terminal|line|district [OPTIONS]",
            help="`--help` behind one of them shows its options.",
        ),
    ] = None,
) -> None:
    """Play a meter, a line of meters, a terminal or a district 模拟电能表、线路、终端或台区, with faults if
    wanted: `--connect CHANNEL` dials the gateway, `--listen CHANNEL` is dialled by it.

    On a terminal it shows the frames as they pass; with --json, or elsewhere, it prints JSON lines.
    Exit 0: ended by Ctrl-C, SIGTERM or --seconds; 2: arguments, faults or wires cannot be used.
    """
    words = list(arguments or ["--help"])
    command = [sys.executable, "-m", "simulator", *words]
    plays = any(word.partition("=")[0] in ("--connect", "--listen", "--pty") for word in words)
    if not plays or "--json" in words or {"-h", "--help"} & set(words) or not sys.stdout.isatty():
        os.execv(sys.executable, command)
    raise typer.Exit(_watched([*command, "--json", "--frames"]))


def _watched(command: list[str]) -> int:
    """Run it, show what it tells; its exit code."""
    from rich.live import Live

    board = Board()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as process:
        assert process.stdout is not None
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: process.terminate())
        with Live(get_renderable=board.shown, refresh_per_second=8, transient=True):
            for line in process.stdout:
                board.take(json.loads(line))
        code = process.wait()
    for line in board.summary():
        typer.echo(line)
    return code if code >= 0 else ExitCode.WRONG


class Board:
    """What is on the screen: where the devices are reached, and the newest frames with what they say."""

    def __init__(self, most: int = MOST_LINES) -> None:
        from protocols.lens.conversation import Conversation

        self.lines: deque[str] = deque(maxlen=most)
        self._told: deque[str] = deque(maxlen=8)
        self._conversation = Conversation()
        self._held: dict[tuple[str, str], bytes] = {}
        self._counts: dict[str, int] = {}

    def take(self, event: dict[str, Any]) -> None:
        """An event of the simulator."""
        match event.get("event"):
            case "frame":
                self._frame(event["name"], event["way"], bytes.fromhex(event["hex"]))
            case "listening":
                self._told.append(f"{event['name']} listens 监听 {event['channel']}")
            case "logged_in":
                self._told.append(f"{event['terminals']} terminals logged in 已登录")
            case "linked":
                self._told.append(f"{event['name']} linked 已连接")
            case "hanging":
                meters = ", ".join(f"{m['address']} ({m['edition']}, {m['baud']})" for m in event["meters"])
                self._told.append(f"line 线路 {event['name']}: {meters}")
            case "end":
                self._counts = event["counts"]

    def shown(self) -> Group:
        """For as many lines as the screen has."""
        from rich.console import Group
        from rich.text import Text

        rows = max(4, os.get_terminal_size().lines - len(self._told) - 2 if sys.stdout.isatty() else 20)
        newest = list(self.lines)[-rows:]
        head = Text("\n".join([*self._told, "Ctrl-C ends it 按 Ctrl-C 结束"]), style="bold")
        return Group(head, *(Text(line, no_wrap=True, overflow="ellipsis") for line in newest))

    def summary(self) -> Iterable[str]:
        """What was counted, for when the screen is gone."""
        return [f"{name}: {count}" for name, count in self._counts.items()]

    def _frame(self, name: str, way: str, data: bytes) -> None:
        from protocols.lens.places import find

        whole = self._held.pop((name, way), b"") + data
        found = find(whole)
        at = time.strftime("%H:%M:%S")
        end = 0
        for place in found.frames:
            turn = self._conversation.add(whole, place)
            who, gap, chinese = turn.digest_zh.replace("：", ": ", 1).partition(" ")
            known = "" if turn.digest.startswith(name) else f"{name} "
            also = (
                f"  {chinese}" if gap and turn.digest.startswith(who) and chinese not in turn.digest else ""
            )
            self.lines.append(f"{at} {known}{_ARROWS[way]} {turn.digest}{also}")
            end = place.end
        if rest := whole[end:].lstrip(b"\xfe")[-MOST_HELD:]:
            self._held[name, way] = rest
