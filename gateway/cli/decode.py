"""`lingdian decode`: what is in these bytes?"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import Annotated, Any

import typer

from gateway.captures import capture_lines, captures_in, look
from gateway.cli.invocation import ExitCode, JsonFlag, answer, say, show

app = typer.Typer()


@app.command("decode")
def decode(
    captures: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[HEX]...", help="Hex, with or without spaces; none: lines of standard input."
        ),
    ] = None,
    json_output: JsonFlag = False,
) -> None:
    """Show the frames in captured bytes 解析报文 (DL/T 645-2007, DL/T 645-1997, Q/GDW 376.1).

    Exit 0: every line held a frame; 1: some line held none.
    """
    if not captures and sys.stdin.isatty():
        say("give hex as arguments, or lines of it on standard input 请给出十六进制报文", error=True)
        raise typer.Exit(ExitCode.USAGE)
    lines: Iterable[str] = captures_in(captures) if captures else capture_lines(sys.stdin.buffer)
    looked = found = 0
    for line in lines:
        seen = look(line)
        looked += 1
        found += bool(seen["frames"])
        if json_output:
            answer(seen)
        else:
            show("\n".join(_listing(seen)))
    if not looked:
        say("there was nothing to decode 没有输入", error=True)
    if not looked or found < looked:
        raise typer.Exit(ExitCode.WRONG)


def _listing(seen: dict[str, Any]) -> Iterator[str]:
    yield seen["input"]
    for frame in seen["frames"]:
        yield f"  {frame['protocol']} at byte {frame['start']}"
        yield from _tree({k: v for k, v in frame.items() if k not in ("protocol", "start")}, "    ")
    if seen["discarded"]:
        yield f"  {seen['discarded']} bytes belong to no frame 无效字节"
    if seen["error"]:
        yield f"  {seen['error']}"


def _tree(value: dict[str, Any], indent: str) -> Iterator[str]:
    """Keys and values, nested ones further in; what is empty is left out."""
    for key, item in value.items():
        if isinstance(item, dict):
            yield f"{indent}{key}"
            yield from _tree(item, indent + "  ")
        elif isinstance(item, list) and item and isinstance(item[0], dict):
            for number, part in enumerate(item, 1):
                yield f"{indent}{key} {number}"
                yield from _tree(part, indent + "  ")
        elif item not in (None, [], ""):
            shown = ", ".join(map(str, item)) if isinstance(item, list) else item
            yield f"{indent}{key:<12} {shown}"
