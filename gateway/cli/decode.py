"""`lingdian decode`: what is in these bytes?"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gateway.captures.capture import Capture
from gateway.captures.hexadecimal import LINE_LIMIT, capture, capture_lines, captures_in, log
from gateway.cli.invocation import ExitCode, JsonFlag, answer, say

if TYPE_CHECKING:
    from typing import BinaryIO

app = typer.Typer()

# Kept beside gateway.captures.packets.MAGICS, whose import costs more than most frames; a test compares them.
PACKET_FILES = (
    *(b"\xa1\xb2\xc3\xd4", b"\xd4\xc3\xb2\xa1", b"\xa1\xb2\x3c\x4d", b"\x4d\x3c\xb2\xa1"),
    b"\x0a\x0d\x0d\x0a",
)
LANGUAGES = ("both", "en", "zh")


@app.command("decode")
def decode(
    captures: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[HEX|FILE]...",
            help="Hex, with or without spaces; log files with hex in them, pcap or pcapng files; none: "
            "standard input.",
        ),
    ] = None,
    json_output: JsonFlag = False,
    lang: Annotated[str, typer.Option("--lang", help="Names of fields: en, zh or both.")] = "both",
    brief: Annotated[
        bool, typer.Option("--brief", help="One line a frame: who asked what, and what came.")
    ] = (False),
) -> None:
    """Show the frames in captured bytes 解析报文 (DL/T 645-2007, DL/T 645-1997, Q/GDW 376.1).

    An answer names the request that it belongs to.
    Exit 0: every line held a frame; 1: some line held none.
    """
    if lang not in LANGUAGES:
        raise typer.BadParameter(f"{lang!r} is none of {', '.join(LANGUAGES)}", param_hint="--lang")
    if not captures and sys.stdin.isatty():
        say("give hex as arguments, or lines of it on standard input 请给出十六进制报文", error=True)
        raise typer.Exit(ExitCode.USAGE)
    seen = _given(captures) if captures else _standard_input(sys.stdin.buffer)
    looked, found = _as_json(seen) if json_output else _for_people(seen, lang, brief)
    if not looked:
        say("there was nothing to decode 没有输入", error=True)
    if not looked or found < looked:
        raise typer.Exit(ExitCode.WRONG)


def _given(words: list[str]) -> Iterator[Capture]:
    for word in captures_in(words):
        seen = capture(word)
        if seen.error is not None and _is_file(word):
            with Path(word).open("rb") as file:
                yield from _file(file, Path(word).name)
        else:
            yield seen


def _is_file(word: str) -> bool:
    try:
        return Path(word).is_file()
    except (OSError, ValueError):
        return False


def _file(file: BinaryIO, name: str) -> Iterator[Capture]:
    magic = file.read(4)
    file.seek(0)
    if magic in PACKET_FILES:
        from gateway.captures.packets import captured

        return captured(file, magic, name)
    return log(capture_lines(file), name)


def _standard_input(stream: BinaryIO) -> Iterator[Capture]:
    """Line by line as they come, or a packet file."""
    first = stream.readline(LINE_LIMIT + 1)
    if first == b"\n":
        # The first four bytes of pcapng look like two ends of lines.
        second = stream.readline(LINE_LIMIT + 1)
        first = first + second if first + second in PACKET_FILES else second
    if first[:4] in PACKET_FILES:
        from gateway.captures.packets import Prefixed, captured

        yield from captured(Prefixed(first, stream), first[:4], "standard input")
        return
    for number, line in enumerate(capture_lines(stream, first), 1):
        yield capture(line, f"line {number}")


def _as_json(captures: Iterable[Capture]) -> tuple[int, int]:
    """How many captures there were, and how many of them held a frame."""
    looked = found = 0
    for one in captures:
        seen = one.look()
        looked += 1
        found += bool(seen["frames"])
        answer(seen)
    return looked, found


def _for_people(captures: Iterable[Capture], lang: str, brief: bool) -> tuple[int, int]:
    from gateway.cli.listing import Listing  # trees and colours take time that programs can do without

    listing = Listing(lang, brief)
    looked = found = 0
    for one in captures:
        looked += 1
        found += listing.add(one)
    listing.end()
    return looked, found
