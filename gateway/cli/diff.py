"""`lingdian diff`: what is different between two frames?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway.captures.hexadecimal import capture
from gateway.cli.decode import LANGUAGES
from gateway.cli.invocation import ExitCode, JsonFlag, answer, say

if TYPE_CHECKING:
    from protocols.lens.difference import Difference
    from protocols.lens.node import Node

app = typer.Typer()


@app.command("diff")
def diff(
    left: Annotated[str, typer.Argument(metavar="HEX", help="One frame, with or without spaces.")],
    right: Annotated[str, typer.Argument(metavar="HEX", help="The other frame.")],
    json_output: JsonFlag = False,
    lang: Annotated[str, typer.Option("--lang", help="Names of fields: en, zh or both.")] = "both",
) -> None:
    """Compare two frames field by field 比较两帧报文.

    Exit 0: the same bytes; 1: different, or no frame; 2: usage.
    """
    from protocols.lens.difference import differences

    if lang not in LANGUAGES:
        raise typer.BadParameter(f"{lang!r} is none of {', '.join(LANGUAGES)}", param_hint="--lang")
    found = differences(_only_frame(left, "first"), _only_frame(right, "second"))
    if json_output:
        answer({"same": not found, "differences": [_told(one) for one in found]})
    else:
        _show(found, lang)
    if found:
        raise typer.Exit(ExitCode.WRONG)


def _only_frame(text: str, which: str) -> Node:
    from protocols.lens.places import find
    from protocols.lens.tree import tree

    seen = capture(text)
    places = find(seen.data)
    if seen.error or places.error or len(places.frames) != 1:
        reason = seen.error or places.error or f"{len(places.frames)} frames; give one"
        say(f"the {which} argument: {reason}", error=True)
        raise typer.Exit(ExitCode.WRONG)
    return tree(seen.data, places.frames[0])


def _told(one: Difference) -> dict[str, Any]:
    return {
        "field": list(one.path),
        "name_zh": one.node.name_zh,
        "left": None if one.left is None else _side(one.left),
        "right": None if one.right is None else _side(one.right),
    }


def _side(node: Node) -> dict[str, Any]:
    return {"offset": node.offset, "bytes": node.raw.hex(), "value": node.value, "unit": node.unit}


def _show(found: tuple[Difference, ...], lang: str) -> None:
    from gateway.cli.painting import Language, compared, screen

    language = Language(lang)
    if found:
        screen().print(compared(found, language))
    else:
        screen().print(language.choose("the same bytes", "完全相同"))
