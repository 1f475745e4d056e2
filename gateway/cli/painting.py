"""Trees of fields on a person's screen, in English, Chinese or both."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from enum import StrEnum
from typing import Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from protocols.lens.difference import Difference
from protocols.lens.node import Node

MOST_BYTES: Final = 12
"""Bytes of a field that are shown; what it is made of stands below it."""
_PIPE_WIDTH: Final = 1000
"""Columns where standard output is no screen: nobody's grep shall meet a broken line."""


class Language(StrEnum):
    """Whose names are shown."""

    EN = "en"
    ZH = "zh"
    BOTH = "both"

    def choose(self, english: str, chinese: str) -> str:
        """The name in this language; the other where it has none."""
        if self is Language.EN or not chinese:
            return english or chinese
        if self is Language.ZH or not english or english == chinese:
            return chinese
        return f"{english} {chinese}"


def screen(*, error: bool = False) -> Console:
    """Standard output, or standard error, never broken into lines that a program could not read."""
    stream = sys.stderr if error else sys.stdout
    return Console(stderr=error, highlight=False, width=None if stream.isatty() else _PIPE_WIDTH)


def painted(node: Node, language: Language) -> Table:
    """A frame: place, bytes, field, value, what it means, and where that stands."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=False)
    table.add_column(justify="right", style="dim", no_wrap=True)
    table.add_column(style="cyan", no_wrap=True)
    table.add_column(overflow="fold")
    table.add_column(overflow="fold")
    table.add_column(style="dim", overflow="fold")
    for guide, each in _lines(node, ""):
        name = Text(guide, style="dim").append(language.choose(each.name, each.name_zh), style="not dim")
        place = "" if each.offset is None else str(each.offset)
        table.add_row(place, _bytes(each), name, _value(each, language), each.clause)
    return table


def _lines(node: Node, before: str) -> Iterator[tuple[str, Node]]:
    """Every node below `node` with the lines that lead to it."""
    for place, child in enumerate(node.children, 1):
        last = place == len(node.children)
        yield f"{before}{'└ ' if last else '├ '}", child
        yield from _lines(child, f"{before}{'  ' if last else '│ '}")


def _bytes(node: Node) -> str:
    shown = node.raw[:MOST_BYTES].hex(" ")
    return shown if len(node.raw) <= MOST_BYTES else f"{shown} … ({len(node.raw)})"


def _value(node: Node, language: Language) -> Text:
    """The value with its unit, then what it says. Values that only repeat long bytes are left out."""
    text = Text()
    value = node.value
    if value is not None and value == node.raw.hex() and len(node.raw) > MOST_BYTES:
        value = None
    if value is not None:
        text.append(_measured(value, node.unit), style="bold")
    elif node.raw and not node.children and node.value is None:
        text.append(language.choose("no value", "无数据"), style="yellow")
    if meaning := language.choose(node.meaning, node.meaning_zh):
        text.append(f"  {meaning}" if text else meaning, style="green")
    return text


def compared(found: Iterable[Difference], language: Language) -> Table:
    """Two frames: each field that differs, with what either frame has there."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=False)
    table.add_column(overflow="fold")
    table.add_column(style="red", overflow="fold")
    table.add_column(style="green", overflow="fold")
    for one in found:
        names = list(one.path[:-1])
        names.append(language.choose(one.path[-1], one.node.name_zh) if one.path else one.node.name)
        table.add_row(" / ".join(names), _side("-", one.left, language), _side("+", one.right, language))
    return table


def _side(sign: str, node: Node | None, language: Language) -> str:
    if node is None:
        return f"{sign} ({language.choose('absent', '无此项')})"
    meaning = language.choose(node.meaning, node.meaning_zh)
    value = "" if node.value is None else f"= {_measured(node.value, node.unit)}"
    said = [_bytes(node), value, meaning]
    return " ".join([sign, *filter(None, said)])


def _measured(value: str, unit: str) -> str:
    """A value with its unit, which may be a step: 10 × 20 ms."""
    return f"{value} {'× ' if unit[:1].isdigit() else ''}{unit}".rstrip()
