"""What `lingdian watch --via` shows: one meter's items on a direct line, read again and again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from gateway.cli.invocation import reason_words
from gateway.cli.scan import timing_of
from gateway.clock import Clock, to_device
from gateway.errors import LinkClosed
from gateway.field.direct import Wish, read_direct, wish
from gateway.field.line import MeterLine
from gateway.field.reading import edition_of
from gateway.transports import ways
from gateway.transports.channel import Channel
from gateway.transports.link import Link

USUAL: Final = {
    "2007": ("02010100", "02020100", "02030000", "00010000"),
    "1997": ("b611", "b621", "b630", "9010"),
}
"""Voltage and current of phase A, active power, forward energy."""

REOPEN_S: Final = 2.0
"""Between two tries to open a channel that was lost."""

Show = Callable[["Seen"], None]


@dataclass(slots=True)
class Seen:
    """What the meter said last, item by item, and what goes wrong now."""

    address: str
    items: list[dict[str, Any]] = field(default_factory=list)
    at: datetime | None = None
    rounds: int = 0
    trouble: str = ""

    def take(self, told: dict[str, Any], at: datetime) -> None:
        """told: of `read_direct`."""
        self.address, self.items, self.at = told["meter"], told["items"], at
        self.rounds += 1


async def look_once(way: Channel, address: str, wishes: list[Wish]) -> tuple[dict[str, Any], Seen]:
    """One reading, as `lingdian read` answers, and for a screen. wishes: []: the usual ones. LinkClosed."""
    clock, seen = Clock(), Seen(address)
    link = await ways.opening(way)()
    try:
        line = MeterLine(link, clock, timing_of(way, None))
        settled = await _settled(line, address, wishes)
        told = await read_direct(line, address, settled or wishes or _usual("2007"))
    finally:
        await link.close()
    seen.take(told, clock.now())
    return told, seen


async def watch_meter(way: Channel, address: str, wishes: list[Wish], every_s: float, show: Show) -> None:
    """Read until cancelled, a round every `every_s` seconds or as fast as the line is; a lost channel is said
    and opened again."""
    seen = Seen(address)
    while True:
        try:
            link = await ways.opening(way)()
            try:
                await _rounds(link, way, address, wishes, every_s, seen, show)
            finally:
                await link.close()
        except LinkClosed as error:
            seen.trouble = str(error)
            show(seen)
            await asyncio.sleep(REOPEN_S)


async def _rounds(
    link: Link, way: Channel, address: str, wishes: list[Wish], every_s: float, seen: Seen, show: Show
) -> None:
    clock = Clock()
    line = MeterLine(link, clock, timing_of(way, None))
    settled: list[Wish] = []
    while True:
        began = clock.monotonic()
        settled = settled or await _settled(line, address, wishes)
        if settled:
            told = await read_direct(line, address, settled)
            seen.take(told, clock.now())
        silent = not settled or all(item["reason"] for item in seen.items)
        seen.trouble = f"{address} does not answer 电能表无应答" if silent else ""
        show(seen)
        await clock.sleep(max(0.0, every_s - (clock.monotonic() - began)))


async def _settled(line: MeterLine, address: str, wishes: list[Wish]) -> list[Wish]:
    """Each wish with the DI of the meter's edition; [] where that must be known and none answers."""
    if wishes and all(len(one.dis) == 1 for one in wishes):
        return wishes
    found = await edition_of(line, address)
    if found is None:
        return []
    if not wishes:
        return _usual(found.edition)
    edition = found.edition
    return [Wish(one.word, {edition: one.dis[edition]} if edition in one.dis else one.dis) for one in wishes]


def _usual(edition: str) -> list[Wish]:
    return [wish(di) for di in USUAL[edition]]


def painted(seen: Seen) -> RenderableType:
    """For a screen."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for title in ("item 数据项", "name 名称", "value 数值"):
        table.add_column(title, no_wrap=True)
    for item in seen.items:
        for value in item["values"]:
            name = " ".join(filter(None, (value["name"], value["name_zh"])))
            shown = "–" if value["value"] is None else f"{value['value']} {value['unit']}"
            table.add_row(escape(item["item"]), escape(name), shown)
        if item["reason"]:
            why = f"{reason_words(item['reason'])}; {item['detail']}"
            table.add_row(escape(item["item"]), "–", Text(why, style="yellow"))
    at = "–" if seen.at is None else f"{to_device(seen.at):%Y-%m-%d %H:%M:%S}"
    parts: list[RenderableType] = [Text(f"{seen.address}  {at}  round 次 {seen.rounds}", style="bold"), table]
    if seen.trouble:
        parts.append(Text(f"{seen.trouble}; trying again 正在重试", style="bold red"))
    return Group(*parts)
