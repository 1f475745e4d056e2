"""The tree of one DL/T 645 frame.

The data field of each function is a row of parts; a field that none of its rows fits is shown whole, raw.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from protocols.dlt645 import description, flags, items
from protocols.dlt645 import frame as dlt645
from protocols.dlt645.control_messages import REPLY_FIELDS, REQUEST_FIELDS
from protocols.dlt645.flags import Flag
from protocols.dlt645.formats import Moment
from protocols.errors import RemoteProtocolError
from protocols.lens.node import Node
from protocols.lens.words import chinese

_FRAME = "DL/T 645 clause 5"
_FUNCTION = "DL/T 645 clause 7"
_ITEM = "DL/T 645 annex A"
_FILING = "State Grid filing"
"""Security, relay control and output signals came with the filings beside the 2007 text."""
_FILED = frozenset((0x03, 0x1C, 0x1D))

# The rows of parts by edition and C; a part with "*" takes what the others leave.
_ROWS: dict[str, dict[int, tuple[str, ...]]] = {
    "2007": {
        0x03: ("di operator fields*",),
        0x83: ("di fields*",),
        0x08: ("clock",),
        0x11: ("di", "di blocks", "di blocks from", "di rest*"),
        0x91: ("di item*",),
        0xB1: ("di part*",),
        0x12: ("di sequence", "di"),
        0x92: ("di part* sequence",),
        0xB2: ("di part* sequence",),
        0x93: ("told",),
        0x14: ("di pa password operator item*",),
        0x15: ("told",),
        0x16: ("freeze",),
        0x17: ("speed",),
        0x97: ("speed",),
        0x18: ("di pa password new_pa new_password",),
        0x98: ("new_pa new_password",),
        0x19: ("pa password operator", "pa password operator cipher*"),
        0x1A: ("pa password operator", "pa password operator cipher*"),
        0x1B: ("pa password operator di", "pa password operator cipher*"),
        0x1C: ("pa password operator verb restore until", "pa password operator cipher*"),
        0x9C: ("execution",),
        0x1D: ("output",),
        0x9D: ("output",),
    },
    "1997": {
        0x01: ("di2", "di2 rest*"),
        0x81: ("di2 item*",),
        0xA1: ("di2 part*",),
        0x02: ("di2",),
        0x82: ("di2 part*",),
        0xA2: ("di2 part*",),
        0x04: ("di2 pa password item*", "di2 rest*"),
        0x0A: ("told",),
        0x0C: ("speed",),
        0x0F: ("pa password new_pa new_password",),
    },
}

# Name, Chinese name, length (0: what is left).
_PARTS: dict[str, tuple[str, str, int]] = {
    "di": ("data identifier DI", "数据标识", 4),
    "di2": ("data identifier DI", "数据标识", 2),
    "pa": ("password level PA", "密码权限", 1),
    "password": ("password P0P1P2", "密码", 3),
    "new_pa": ("new password level PA", "新密码权限", 1),
    "new_password": ("new password P0P1P2", "新密码", 3),
    "operator": ("operator code", "操作者代码", 4),
    "clock": ("time", "时间", 6),
    "blocks": ("number of blocks N", "负荷记录块数", 1),
    "from": ("from time", "给定时间", 5),
    "sequence": ("sequence SEQ", "帧序号", 1),
    "told": ("meter address", "通信地址", 6),
    "freeze": ("freeze time", "冻结时间", 4),
    "speed": ("rate word Z", "通信速率特征字", 1),
    "verb": ("command N1", "控制命令类型", 1),
    "restore": ("restore time N2", "自动恢复时间", 1),
    "until": ("valid until N3..N8", "命令有效截止时间", 6),
    "execution": ("execution word", "命令执行状态字", 2),
    "output": ("output signal", "多功能端子输出信号", 1),
    "cipher": ("cipher and MAC", "密文与MAC", 0),
    "part": ("part of the item's data", "数据项的一部分", 0),
    "rest": ("data", "数据", 0),
    "item": ("item", "数据项", 0),
    "fields": ("fields", "数据", 0),
}

_SPEEDS = {1: 600, 2: 1200, 3: 2400, 4: 4800, 5: 9600, 6: 19200}
_OUTPUTS = {
    0: ("clock second pulse", "时钟秒脉冲"),
    1: ("demand period", "需量周期"),
    2: ("tariff switch", "时段投切"),
}


def meter_tree(raw: bytes, offset: int = 0) -> Node:
    """The tree of one whole good frame whose first 68H stands at `offset`. Never raises."""
    frame = dlt645.content(raw)
    edition = description.edition_of(frame)
    children = [
        Node("start", "起始符", offset, raw[:1], "68", clause=_FRAME),
        _address(frame.address, raw[1:7], offset + 1),
        Node("start again", "起始符", offset + 7, raw[7:8], "68", clause=_FRAME),
        _control(frame, edition, raw[8:9], offset + 8),
        Node("data length L", "数据域长度", offset + 9, raw[9:10], str(raw[9]), clause=_FRAME),
    ]
    if frame.data:
        fields = tuple(_data(frame, edition, offset + 10))
        children.append(
            Node(
                "data, shown without 33H",
                "数据域（已减33H）",
                offset + 10,
                raw[10:-2],
                clause=_clause(frame),
                children=fields,
            )
        )
    end = offset + len(raw)
    children += [
        Node("checksum CS", "校验码", end - 2, raw[-2:-1], f"{raw[-2]:02x}", clause=_FRAME),
        Node("end", "结束符", end - 1, raw[-1:], "16", clause=_FRAME),
    ]
    return Node(f"dlt645-{edition}", f"DL/T 645-{edition}", offset, raw, children=tuple(children))


def item_nodes(di: str, data: bytes, offset: int | None, edition: str) -> tuple[Node, ...]:
    """The values of an item's data (what follows its DI); one raw node with the reason where it is none."""
    item = items.lookup(di, edition)
    name, name_zh = (item.name_en, item.name_zh) if item is not None else ("data", "数据")
    try:
        values = items.decode(di, data, edition)
    except RemoteProtocolError as error:
        reason = error.reason.removeprefix(f"{di} {name}: ")
        return (Node(name, name_zh, offset, data, data.hex(), clause=_ITEM, meaning=reason),)
    if not values:
        return (Node(name, name_zh, offset, data, data.hex(), clause=_ITEM),)
    words = flags.of_item(di, data)
    named = words if len(words) == len(values) else ((),) * len(values)
    return tuple(
        Node(
            value.name_en,
            value.name_zh,
            None if offset is None else offset + value.offset,
            value.raw,
            value.value,
            value.unit,
            _ITEM,
            tuple(_flag(flag) for flag in bits),
        )
        for value, bits in zip(values, named, strict=True)
    )


def _flag(flag: Flag) -> Node:
    name = f"bit {flag.bit}" if flag.width == 1 else f"bits {flag.bit}-{flag.bit + flag.width - 1}"
    return Node(
        f"{name}: {flag.name_en}",
        f"{name.replace('bits', '位').replace('bit', '位')}：{flag.name_zh}",
        None,
        b"",
        str(flag.value),
        clause=_ITEM,
        meaning=flag.state_en,
        meaning_zh=flag.state_zh,
    )


def _address(address: str, raw: bytes, offset: int) -> Node:
    meaning = ("", "")
    if address == dlt645.BROADCAST:
        meaning = ("broadcast", "广播地址")
    elif "A" in address:
        meaning = ("wildcard", "通配地址")
    return Node("address", "地址域", offset, raw, address.lower(), "", _FRAME, (), *meaning)


def _control(frame: dlt645.Frame, edition: str, raw: bytes, offset: int) -> Node:
    name = description.FUNCTION_NAMES[edition].get(frame.function, "")
    if not frame.from_meter:
        side, side_zh = "request", "主站请求"
    elif frame.is_error:
        side, side_zh = "error reply", "从站异常应答"
    elif frame.more_follows:
        side, side_zh = "reply, more follows", "从站应答，有后续帧"
    else:
        side, side_zh = "reply", "从站应答"
    name_zh = chinese(name)
    return Node(
        "control code C",
        "控制码",
        offset,
        raw,
        f"{frame.control:02x}",
        clause=_clause(frame),
        meaning=f"{name}: {side}" if name else side,
        meaning_zh=f"{name_zh}：{side_zh}" if name_zh else side_zh,
    )


def _clause(frame: dlt645.Frame) -> str:
    return _FILING if frame.function in _FILED else _FUNCTION


def _data(frame: dlt645.Frame, edition: str, offset: int) -> Iterator[Node]:
    if frame.is_error:
        yield _error(frame, edition, offset)
        return
    for row in _ROWS[edition].get(frame.control, ()):
        parts = [(word.rstrip("*"), word.endswith("*")) for word in row.split()]
        left = len(frame.data) - sum(_PARTS[name][2] for name, _ in parts)
        if left < 0 or (left and not any(open_ended for _, open_ended in parts)):
            continue
        yield from _row(frame, parts, left, edition, offset)
        return
    yield Node("data", "数据", offset, frame.data, frame.data.hex(), clause=_clause(frame))


def _row(
    frame: dlt645.Frame, parts: list[tuple[str, bool]], left: int, edition: str, offset: int
) -> Iterator[Node]:
    at, di, level = 0, "", ""
    for name, open_ended in parts:
        english, chinese_name, length = _PARTS[name]
        raw = frame.data[at : at + (left if open_ended else length)]
        place = offset + at
        at += len(raw)
        text = raw[::-1].hex()
        if name in ("di", "di2"):
            di = text
            item = items.lookup(di, edition)
            words = ("", "") if item is None else (item.name_en, item.name_zh)
            yield Node(english, chinese_name, place, raw, di, "", _ITEM, (), *words)
        elif name == "item" and raw and level not in ("98", "99"):
            yield from item_nodes(di, raw, place, edition)
        elif name == "fields":
            yield from _security_fields(frame, di, raw, place)
        elif name in ("item", "rest", "part", "cipher"):
            if raw:
                yield Node(english, chinese_name, place, raw, raw.hex(), clause=_clause(frame))
        else:
            level = text if name == "pa" else level
            value, *words_of = _TELLERS.get(name, _hexadecimal)(raw)
            yield Node(english, chinese_name, place, raw, value, "", _clause(frame), (), *words_of)


def _security_fields(frame: dlt645.Frame, di: str, raw: bytes, offset: int) -> Iterator[Node]:
    """The fields of a 03H command, low byte first; raw where their lengths are not those of its DI."""
    known = (REPLY_FIELDS if frame.from_meter else REQUEST_FIELDS).get(di)
    parts = None if known is None else known.parts(len(raw))
    if parts is None and raw:
        yield Node("data", "数据", offset, raw, raw.hex(), clause=_FILING)
    at = 0
    for name, length in parts or ():
        field = raw[at : at + length]
        yield Node(name, chinese(name), offset + at, field, field[::-1].hex(), clause=_FILING)
        at += length


def _error(frame: dlt645.Frame, edition: str, offset: int) -> Node:
    reasons: list[str] = description.describe(frame).get("reasons", [])
    return Node(
        "error word",
        "错误信息字",
        offset,
        frame.data,
        frame.data[::-1].hex(),
        clause=_clause(frame),
        meaning=", ".join(reasons),
        meaning_zh="、".join(filter(None, map(chinese, reasons))),
    )


# -- single parts: value, meaning, Chinese meaning ------------------------------------------------

_Told = tuple[str, str, str]


def _hexadecimal(raw: bytes) -> _Told:
    return raw[::-1].hex(), "", ""


def _number(raw: bytes) -> _Told:
    return str(int.from_bytes(raw, "little")), "", ""


def _time(pattern: str) -> Callable[[bytes], _Told]:
    def tell(raw: bytes) -> _Told:
        try:
            text = Moment(pattern).read(raw)
        except ValueError as error:
            return raw[::-1].hex(), str(error), ""
        return text or raw[::-1].hex(), "", ""

    return tell


def _freeze(raw: bytes) -> _Told:
    """MMDDhhmm; 99 stands for "every", and all 99 for "at once"."""
    month, day, hour, minute = (f"{byte:02x}" for byte in raw[::-1])
    told = f"{month}{day}{hour}{minute}"
    if told == "99999999":
        return told, "at once", "瞬时冻结"
    if told.startswith("999999"):
        return told, f"every hour at minute {minute}", f"每小时{minute}分"
    if told.startswith("9999"):
        return told, f"every day at {hour}:{minute}", f"每日{hour}:{minute}"
    if told.startswith("99"):
        return told, f"every month on day {day} at {hour}:{minute}", f"每月{day}日{hour}:{minute}"
    return told, f"{month}-{day} {hour}:{minute}", ""


def _speed(raw: bytes) -> _Told:
    bits = [bit for bit in range(8) if raw[0] >> bit & 1]
    named = len(bits) == 1 and bits[0] in _SPEEDS
    return raw.hex(), f"{_SPEEDS[bits[0]]} bit/s" if named else "", ""


def _verb(raw: bytes) -> _Told:
    name = description.RELAY_COMMANDS.get(raw[0], "")
    return raw.hex(), name, chinese(name)


def _restore(raw: bytes) -> _Told:
    return str(5 * raw[0]), "minutes", "分钟"


def _execution(raw: bytes) -> _Told:
    found = [flag for flag in flags.flags(flags.EXECUTION, int.from_bytes(raw, "little")) if flag.value]
    english, words_zh = (flag.name_en for flag in found), (flag.name_zh for flag in found)
    return raw[::-1].hex(), ", ".join(english), "、".join(words_zh)


def _output(raw: bytes) -> _Told:
    return raw.hex(), *_OUTPUTS.get(raw[0], ("", ""))


_TELLERS: dict[str, Callable[[bytes], _Told]] = {
    "clock": _time("YYMMDDhhmmss"),
    "from": _time("YYMMDDhhmm"),
    "until": _time("YYMMDDhhmmss"),
    "blocks": _number,
    "sequence": _number,
    "freeze": _freeze,
    "speed": _speed,
    "verb": _verb,
    "restore": _restore,
    "execution": _execution,
    "output": _output,
}
