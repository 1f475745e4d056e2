"""The nodes of one 376.1 data unit's data: its form's fields, and event records by their own forms."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace

from protocols.errors import RemoteProtocolError
from protocols.lens.node import Node
from protocols.lens.terminal_fields import text_of
from protocols.lens.words import UNIT_ERRORS
from protocols.q_gdw376 import events, units
from protocols.q_gdw376.fields import Field, Fields
from protocols.q_gdw376.frame import Frame
from protocols.q_gdw376.messages import Unit, UnitConfirm

_APPENDIX = re.compile(r"A\d+")
_EVENTS = 0x0E
_POINTERS = (
    ("ec1", "重要事件计数器"),
    ("ec2", "一般事件计数器"),
    ("pm", "起始指针"),
    ("pn", "结束指针"),
)


def unit_nodes(frame: Frame, unit: Unit, clause: str, offset: int) -> Iterator[Node]:
    """What a unit's data say, field by field; raw where it is not understood. offset: of the frame's body."""
    if not unit.raw:
        return
    if frame.up and frame.afn == _EVENTS and unit.fn in (events.IMPORTANT, events.NORMAL):
        yield from _events(unit, clause, offset + unit.offset)
        return
    if isinstance(unit.value, UnitConfirm):
        yield from _confirm(unit.value, unit.raw, clause, offset + unit.offset)
        return
    fields = units.view(frame.afn, frame.up, unit)
    if fields is not None:
        yield from _nodes(fields, clause, offset)
    else:
        yield Node("data", "数据", offset + unit.offset, unit.raw, unit.raw.hex(), clause=clause)


def _nodes(fields: Iterable[Field], clause: str, offset: int) -> tuple[Node, ...]:
    return tuple(_field(field, clause, offset) for field in fields)


def _field(field: Field, clause: str, offset: int) -> Node:
    """One field of a form; named bits and the rounds of a repeat are its children."""
    rounds = field.repeats
    children: tuple[Node, ...] = ()
    value = None
    if rounds is not None:
        children = tuple(_round(field, place, each, clause, offset) for place, each in enumerate(rounds, 1))
    elif isinstance(field.value, Fields):
        # Bits have no bytes of their own.
        children = tuple(replace(node, offset=None, raw=b"") for node in _nodes(field.value, clause, offset))
        value = field.raw[::-1].hex()
    else:
        value = text_of(field.value)
    source = f"Q/GDW 376.1 A.{field.type[1:]}" if _APPENDIX.fullmatch(field.type) else clause
    place = offset + field.offset
    return Node(field.name, field.name_zh, place, field.raw, value, field.unit, source, children)


def _round(field: Field, place: int, each: Fields, clause: str, offset: int) -> Node:
    """One round of a repeat, under the repeat's name and its number."""
    name, name_zh = f"{field.name} {place}", f"{field.name_zh} {place}" if field.name_zh else ""
    inside = _nodes(each, clause, offset)
    if len(inside) == 1 and not inside[0].children:
        return replace(inside[0], name=name, name_zh=name_zh)
    raw = b"".join(one.raw for one in inside)
    start = inside[0].offset if inside else None
    return Node(name, name_zh, start, raw, None, "", clause, inside)


def _confirm(value: UnitConfirm, raw: bytes, clause: str, offset: int) -> Iterator[Node]:
    yield Node("AFN answered", "要被确认的报文的AFN", offset, raw[:1], f"{value.afn:02x}", clause=clause)
    for place, (pn, fn, error) in enumerate(value.results):
        at = 1 + 5 * place
        yield Node(
            f"p{pn} F{fn} ERR",
            f"p{pn} F{fn} 错误代码",
            offset + at,
            raw[at : at + 5],
            str(error),
            "",
            clause,
            (),
            *UNIT_ERRORS.get(error, ("reserved", "备用")),
        )


def _events(unit: Unit, clause: str, offset: int) -> Iterator[Node]:
    try:
        told = events.decode_events(unit.raw)
    except RemoteProtocolError:
        yield Node("data", "数据", offset, unit.raw, unit.raw.hex(), clause=clause)
        return
    for at, (name, name_zh) in enumerate(_POINTERS):
        yield Node(name, name_zh, offset + at, unit.raw[at : at + 1], str(unit.raw[at]), clause=clause)
    at = len(_POINTERS)
    for record in told.records:
        yield _record(record, unit.raw[at : at + 2 + len(record.raw)], offset + at)
        at += 2 + len(record.raw)
    if told.rest or told.reason:
        yield Node("rest", "剩余", offset + at, told.rest, told.rest.hex(), meaning=told.reason or "")


def _record(record: events.EventRecord, raw: bytes, offset: int) -> Node:
    known = events.kind(record.erc)
    words = (f"ERC{record.erc}", f"ERC{record.erc}")
    if known is not None:
        words = (f"ERC{record.erc} {known.name_en}", f"ERC{record.erc} {known.name_zh}")
    clause = f"Q/GDW 376.1 ERC{record.erc}"
    children = [
        Node("event code ERC", "事件代码", offset, raw[:1], str(raw[0]), clause=clause),
        Node("length Le", "记录长度", offset + 1, raw[1:2], str(raw[1]), clause=clause),
    ]
    if record.fields is not None:
        children += _nodes(record.fields, clause, offset + 2)
    else:
        children.append(Node("body", "事件内容", offset + 2, record.raw, record.raw.hex(), clause=clause))
    person = ("needs a person", "需人工处理") if record.needs_person else ("", "")
    meaning, meaning_zh = (record.reason, "") if record.reason else person
    return Node(*words, offset, raw, None, "", clause, tuple(children), meaning, meaning_zh)
