"""The course of a relay command for a person, out of its evidence: who asked, what was checked, the frames
with their secrets masked, what was read of the relay, and the seconds in between."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any, Final

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from gateway.clock import to_device
from gateway.command import GATED_AS_TRIP, Action, State
from gateway.control import timeline

_GATES: Final = (
    "gates passed 关口已过: cause and notice, no block, no open close, no hold, brake or halt, hours, limits;"
    " meter's own number read",
    "原因与通知、无停电保护、无未完成合闸、无保持/制动/暂停、时段、限额；已核对表号",
)

_ARROWS: Final = {"down": "→", "up": "←"}


def course(bundle: Mapping[str, Any]) -> RenderableType:
    """A heading, and a line for each event with what was found there. bundle: as `evidence` makes it."""
    table = Table.grid(padding=(0, 2))
    table.add_column(justify="right", style="cyan", no_wrap=True)
    table.add_column(overflow="fold")
    begun = _at(bundle["timeline"][0])
    for event, link in zip(bundle["timeline"], bundle["events"], strict=True):
        passed = (_at(event) - begun).total_seconds()
        style = "bold green" if event["state"] == State.VERIFIED else "bold"
        table.add_row(f"{passed:.3f} s", Text(f"{event['words']}  {event['words_zh']}", style=style))
        for line in _found(bundle, event["event"], link["body"]):
            table.add_row("", Text(line, style="dim"))
    return Group(_heading(bundle), table)


def _heading(bundle: Mapping[str, Any]) -> Text:
    command, meter = bundle["command"], bundle["meter"]
    action = Action(command["action"])
    asked = [f"cause 原因 {command['cause']}"]
    for name, words in (("notice", "通知凭据"), ("caused_by", "依据"), ("customer", "户号")):
        if command[name]:
            asked.append(f"{name} {words} {command[name]}")
    return Text.assemble(
        ("\n", ""),
        (f"{action} {timeline.ACTION_TEXT[action]}", "bold"),
        f" of meter 电能表 {meter['meter']}  {command['id']}\n",
        f"asked by 申请人 {command['requester']}: {', '.join(asked)}",
    )


def _found(bundle: Mapping[str, Any], event: int, body: timeline.Body) -> Iterator[str]:
    """What belongs to one event, a line each; nothing of an energised one, which rests on the read before."""
    if body["kind"] == "energised":
        return
    told = timeline.evidence(body)
    if (body["kind"], body["state"]) in timeline.SENDING:
        if Action(bundle["command"]["action"]) in GATED_AS_TRIP:
            yield from _GATES
        if told.get("clock_offset_ms") is not None:
            yield f"meter's clock 表钟偏差 {told['clock_offset_ms'] / 1000:+.1f} s"
    for read in bundle["relay_reads"]:
        if read["event"] == event:
            yield _read(read)
    for frame in bundle["frames"]:
        if frame["event"] == event:
            yield f"{_ARROWS[frame['direction']]} {frame['frame']}"
    if isinstance(told.get("deadline"), str):
        until = to_device(datetime.fromisoformat(told["deadline"]))
        yield f"the meter obeys it until 命令有效至 {until:%Y-%m-%d %H:%M:%S}"
    yield from _records(told.get("record"))


def _read(read: Mapping[str, Any]) -> str:
    place = "open 断开" if read["open"] else "closed 闭合"
    ordered = ", trip ordered 跳闸命令" if read["trip_ordered"] else ""
    return f"relay read 读继电器: status word 3 运行状态字 3 = {read['word']}: {place}{ordered}"


def _records(record: object) -> Iterator[str]:
    """What the meter itself has written down, and the current that flows."""
    if not isinstance(record, Mapping):
        return
    for part in record.values():
        for name, value in part.items() if isinstance(part, Mapping) else ():
            if name.endswith(("(A)", ": time")) and value is not None:
                yield f"meter's own 电能表自述: {name} {value}"


def _at(event: Mapping[str, Any]) -> datetime:
    return datetime.fromisoformat(event["at"])
