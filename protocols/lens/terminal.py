"""The tree of one Q/GDW 376.1 frame: envelope, data units, AUX, and a forwarded 645 frame inside its unit."""

from __future__ import annotations

from collections.abc import Iterator

from protocols.lens.meter import meter_tree
from protocols.lens.node import Node
from protocols.lens.places import meters
from protocols.lens.unit_nodes import unit_nodes
from protocols.lens.words import AFNS, SEGMENTS, SERVICES
from protocols.q_gdw376 import frame as q_gdw376
from protocols.q_gdw376 import items, messages
from protocols.q_gdw376.identifiers import classes, points
from protocols.q_gdw376.messages import Forward, Forwarded, Unit

_FRAME = "Q/GDW 376.1 frame (FT1.2)"
_UNIT = "Q/GDW 376.1 data unit identifier"
_AUX = "Q/GDW 376.1 AUX"
_VERSIONS = {q_gdw376.GW_2005: "Q/GDW 130-2005", q_gdw376.GW_376: "Q/GDW 376.1"}
_IDENTIFIER = 4
_BODY = 14
"""Where data units begin: 68 L L L L 68 C A1 A1 A2 A2 A3 AFN SEQ."""


def terminal_tree(raw: bytes, offset: int = 0) -> Node:
    """The tree of one whole good frame whose first 68H stands at `offset`. Never raises."""
    frame = q_gdw376.content(raw)
    content = messages.read(frame)
    children = [
        Node("start", "起始符", offset, raw[:1], "68", clause=_FRAME),
        _length(raw[1:3], offset + 1),
        Node("length again", "长度", offset + 3, raw[3:5], raw[4:2:-1].hex(), clause=_FRAME),
        Node("start again", "起始符", offset + 5, raw[5:6], "68", clause=_FRAME),
        _control(frame, raw[6:7], offset + 6),
        _address(frame, raw[7:12], offset + 7),
        _afn(frame, raw[12:13], offset + 12),
        _sequence(frame, raw[13:14], offset + 13),
        *_units(frame, content.units, offset + _BODY),
        *_aux(frame, content.password, offset + _BODY + len(frame.body)),
    ]
    end = offset + len(raw)
    children += [
        Node("checksum CS", "校验和", end - 2, raw[-2:-1], f"{raw[-2]:02x}", clause=_FRAME),
        Node("end", "结束符", end - 1, raw[-1:], "16", clause=_FRAME),
    ]
    return Node("qgdw376.1", _VERSIONS[frame.protocol_id], offset, raw, children=tuple(children))


# -- the envelope ---------------------------------------------------------------------------------


def _length(raw: bytes, offset: int) -> Node:
    field = int.from_bytes(raw, "little")
    version = _VERSIONS[field & 3]
    children = (
        Node("user data bytes", "用户数据长度", None, b"", str(field >> 2), clause=_FRAME),
        Node("protocol id", "规约标识", None, b"", str(field & 3), clause=_FRAME, meaning=version),
    )
    return Node("length L", "长度", offset, raw, f"{field:04x}", clause=_FRAME, children=children)


def _bit(name: str, name_zh: str, said: bool, *words: str) -> Node:
    return Node(name, name_zh, None, b"", str(int(said)), "", _FRAME, (), *words)


def _control(frame: q_gdw376.Frame, raw: bytes, offset: int) -> Node:
    service = SERVICES.get((frame.prm, frame.function), ("reserved", "备用"))
    up = ("from the terminal", "上行") if frame.up else ("from the master", "下行")
    starts = ("starts the exchange", "启动站") if frame.prm else ("answers", "从动站")
    fifth: tuple[str, ...] = ("FCB", "帧计数位")
    if frame.up:
        fifth = ("ACD", "要求访问位", *(("events wait", "有事件等待访问") if frame.acd else ("", "")))
    children = (
        _bit("DIR", "传输方向位", frame.up, *up),
        _bit("PRM", "启动标志位", frame.prm, *starts),
        _bit(fifth[0], fifth[1], frame.acd, *fifth[2:]),
        _bit("FCV", "帧计数有效位", frame.fcv),
        Node("function code", "功能码", None, b"", str(frame.function), "", _FRAME, (), *service),
    )
    return Node("control C", "控制域", offset, raw, raw.hex(), "", _FRAME, children, *service)


def _address(frame: q_gdw376.Frame, raw: bytes, offset: int) -> Node:
    number = int(frame.terminal[4:], 16)
    kind = ("", "")
    if frame.group:
        kind = ("broadcast", "广播地址") if number == 0xFFFF else ("group address", "组地址")
    master = Node("master MSA", "主站地址", offset + 4, raw[4:], str(frame.msa), clause=_FRAME)
    children = (
        Node("area code A1", "行政区划码", offset, raw[:2], frame.terminal[:4], clause=_FRAME),
        Node("terminal A2", "终端地址", offset + 2, raw[2:4], str(number), "", _FRAME, (), *kind),
        master,
    )
    return Node("address A", "地址域", offset, raw, frame.terminal, clause=_FRAME, children=children)


def _afn(frame: q_gdw376.Frame, raw: bytes, offset: int) -> Node:
    words = AFNS.get(frame.afn, ("reserved", "备用"))
    return Node("AFN", "应用层功能码", offset, raw, raw.hex(), "", _FRAME, (), *words)


def _sequence(frame: q_gdw376.Frame, raw: bytes, offset: int) -> Node:
    words = SEGMENTS[frame.fir, frame.fin]
    name = ("PSEQ", "启动帧序号") if frame.prm else ("RSEQ", "响应帧序号")
    children = (
        _bit("TpV", "时间标签有效位", frame.tpv),
        _bit("FIR", "首帧标志", frame.fir),
        _bit("FIN", "末帧标志", frame.fin),
        _bit("CON", "请求确认标志位", frame.con, *(("to be confirmed", "需确认") if frame.con else ())),
        Node(*name, None, b"", str(frame.pseq), clause=_FRAME),
    )
    return Node("SEQ", "帧序列域", offset, raw, raw.hex(), "", _FRAME, children, *words)


def _aux(frame: q_gdw376.Frame, password: bytes, end: int) -> Iterator[Node]:
    """PW is the body's end; EC and Tp stand behind the body."""
    if password:
        yield Node(
            "password PW", "消息认证码字段", end - len(password), password, password.hex(), clause=_AUX
        )
    if frame.ec is not None:
        raw = bytes(frame.ec)
        children = (
            Node("EC1, important events", "重要事件计数器", end, raw[:1], str(raw[0]), clause=_AUX),
            Node("EC2, normal events", "一般事件计数器", end + 1, raw[1:], str(raw[1]), clause=_AUX),
        )
        yield Node("event counter EC", "事件计数器", end, raw, clause=_AUX, children=children)
        end += len(raw)
    if frame.tp is not None:
        yield _time_label(frame.tp, end)


def _time_label(raw: bytes, offset: int) -> Node:
    second, minute, hour, day = (f"{byte:02x}" for byte in raw[1:5])
    told = f"{day} {hour}:{minute}:{second}"
    children = (
        Node("frame counter PFC", "启动帧帧序号计数器", offset, raw[:1], str(raw[0]), clause=_AUX),
        Node("sent at", "启动帧发送时标", offset + 1, raw[1:5], told, clause="Q/GDW 376.1 A.16"),
        Node("permitted delay", "允许发送传输延时时间", offset + 5, raw[5:], str(raw[5]), "min", _AUX),
    )
    return Node("time label Tp", "时间标签", offset, raw, raw.hex(), clause=_AUX, children=children)


# -- data units -----------------------------------------------------------------------------------


def _units(frame: q_gdw376.Frame, told: tuple[Unit, ...], offset: int) -> Iterator[Node]:
    behind = 0
    for unit in told:
        yield _unit(frame, unit, behind, offset)
        behind = max(behind, unit.offset + len(unit.raw))


def _unit(frame: q_gdw376.Frame, unit: Unit, behind: int, offset: int) -> Node:
    """behind: where the units before it end; DA and DT of several points and classes stand only once."""
    item = items.lookup(frame.afn, unit.fn, frame.up)
    name, name_zh = ("data unit", "数据单元") if item is None else (item.name_en, item.name_zh)
    start = unit.offset
    children: list[Node] = []
    if unit.offset - behind >= _IDENTIFIER:
        start = unit.offset - _IDENTIFIER
        children += _identifier(frame.body[start : unit.offset], offset + start)
    clause = f"Q/GDW 376.1 AFN{frame.afn:02X}H F{unit.fn}"
    children += unit_nodes(frame, unit, clause, offset)
    children += _inner(unit, offset)
    return Node(
        name,
        name_zh,
        offset + start,
        frame.body[start : unit.offset + len(unit.raw)],
        f"p{unit.pn} F{unit.fn}",
        clause=clause,
        children=tuple(children),
        meaning=unit.reason or "",
    )


def _identifier(raw: bytes, offset: int) -> list[Node]:
    pns = ", ".join(f"p{pn}" for pn in points(raw[:2])) or None
    fns = ", ".join(f"F{fn}" for fn in classes(raw[2:])) or None
    return [
        Node("points DA", "信息点标识", offset, raw[:2], pns, clause=_UNIT),
        Node("classes DT", "信息类标识", offset + 2, raw[2:], fns, clause=_UNIT),
    ]


def _inner(unit: Unit, offset: int) -> Iterator[Node]:
    """The 645 frames that a unit forwards."""
    if isinstance(unit.value, Forward | Forwarded):
        content = unit.value.content
        place = offset + unit.offset + unit.raw.rfind(content)
        for inner in meters(content):
            yield meter_tree(content[inner.start : inner.end], place + inner.start)
