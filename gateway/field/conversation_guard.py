"""Which recorded bytes may leave, and the one door through which they do.

To anything but a simulator that we started ourselves only what is known to read leaves, whatever the other
end says of itself: a port, an address or a greeting can be anybody's. The bytes are judged before a channel
is opened, all of them, and each once more beside the write.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final, Protocol

from gateway.errors import InputError
from gateway.field.conversation import Piece, Role
from gateway.field.line import READS, NotARead
from gateway.transports.link import Link
from protocols import lens
from protocols.dlt645 import frame as dlt645
from protocols.dlt645.description import describe
from protocols.errors import RemoteProtocolError
from protocols.lens.places import Family, find

READ_AFNS: Final = frozenset(("09", "0a", "0b", "0c", "0d", "0e"))
"""AFNs of Q/GDW 376.1 of which no class does more than ask."""
ANSWER_AFNS: Final = READ_AFNS | {"00", "02", "10"}
"""What a terminal says: its login, its heartbeats, confirms, and answers to what only asks."""
_CONFIRM: Final = "00"
_FORWARD: Final = "10"
_FORWARD_UNIT: Final = bytes((0, 0, 1, 0))
"""DA and DT of AFN10's p0 F1, the one class that hands a whole frame of DL/T 645 on."""
_PASSWORDS: Final = (0, 2, 16)
_AROUND_USER_DATA: Final = 8
"""Bytes of a 376.1 frame that its L does not count."""

WORDS: Final = {
    "01": "reset 复位/初始化",
    "03": "relay station control 中继站命令",
    "04": "set parameters 设置参数",
    "05": "control command 控制命令",
    "06": "authentication and keys 身份认证及密钥",
    "0f": "file transfer 文件传输",
}
"""AFNs that do more than ask, in words."""


class Proved(Protocol):
    """A simulator of our own."""

    def proves(self, link: Link) -> bool:
        """Is the other end of this link the process that we started, at this moment?"""

    def end(self) -> None:
        """Have it end, and so say goodbye."""


def refuse_danger(said: Iterable[Piece], role: Role) -> None:
    """InputError that names the first line that must not leave."""
    whole: list[Piece] = list(said)
    for piece in whole:
        if why := danger(piece.raw, role):
            raise InputError(
                f"line {piece.line} {why}; such frames are replayed to nobody but a simulator that replay"
                " starts itself (--simulator) 仅回放给自启动的模拟器; take the line out to replay the rest"
            )
    # Two harmless frames, one behind the other, could have a third one across their border.
    if why := _hidden(b"".join(piece.whole for piece in whole), role):
        raise InputError(f"the frames together hide one that {why} 报文拼接后含危险帧")


def danger(raw: bytes, role: Role) -> str | None:
    """Why these bytes, without lead-in, must not be said in that role; None: they are one frame that asks."""
    why = _danger_to_meter(raw) if role == "meter" else _danger_of_terminals(raw, role)
    if why is None and (hidden := _hidden(raw, role)):
        why = f"hides a frame that {hidden} 内含隐藏帧"
    return why


def _danger_to_meter(raw: bytes) -> str | None:
    try:
        frame = dlt645.parse(raw)
    except RemoteProtocolError as error:
        return f"is no frame of DL/T 645 不是645帧: {error.reason}"
    return None if frame.control in READS else f"is to do more than read 非读命令 ({_named(frame)})"


def _named(frame: dlt645.Frame) -> str:
    return str(describe(frame).get("function", f"{frame.control:02X}H"))


def _danger_of_terminals(raw: bytes, role: Role) -> str | None:
    places = find(raw).frames
    if len(places) != 1 or (places[0].family, places[0].start, places[0].end) != (
        Family.TERMINAL,
        0,
        len(raw),
    ):
        return "is no whole frame of Q/GDW 376.1 不是完整的376.1帧"
    frame = lens.look(raw).frames[0]
    afn = str(frame["afn"])
    comes_up = role == "terminal"
    if (frame["dir"] == 1) is not comes_up:
        return f"goes the other way 传输方向不符 (DIR {frame['dir']})"
    if comes_up:
        return None if afn in ANSWER_AFNS else _more(afn)
    if not frame["prm"]:
        return (
            None if afn == _CONFIRM else f"answers with AFN {afn.upper()}H, which no master does 非主站应答"
        )
    if afn == _FORWARD:
        return _danger_of_forwarding(raw, frame)
    return None if afn in READ_AFNS else _more(afn)


def _more(afn: str) -> str:
    return f"is to do more than read 非读命令 (AFN {afn.upper()}H {WORDS.get(afn, 'unknown 未知')})"


def _danger_of_forwarding(raw: bytes, frame: dict[str, Any]) -> str | None:
    """AFN10: one unit, F1, all of whose content is one read; nothing behind it but PW and Tp."""
    units = frame["units"]
    unit = raw[14:18]
    content = raw[24 : 24 + int.from_bytes(raw[22:24], "little")]
    rest = len(raw) - 2 - (24 + len(content)) - (6 if frame["tpv"] else 0)
    if unit != _FORWARD_UNIT or len(units) != 1 or rest not in _PASSWORDS:
        return "forwards otherwise than by one AFN10 F1 转发方式不允许"
    try:
        inner = dlt645.parse(content.lstrip(bytes([dlt645.LEAD_IN])))
    except RemoteProtocolError as error:
        return f"forwards what is no frame of DL/T 645 转发内容不是645帧: {error.reason}"
    if inner.control not in READS:
        return f"forwards a frame that is to do more than read 转发了非读命令 ({_named(inner)})"
    return None


def _hidden(data: bytes, role: Role) -> str | None:
    """Why a frame that begins anywhere in `data` is dangerous: who misses their beginning would obey it."""
    for at in _starts(data):
        length = dlt645.examine(data, at)
        if isinstance(length, int):
            frame = dlt645.content(data[at : at + length])
            if not frame.from_meter and frame.control not in READS:
                return f"is to do more than read 非读命令 ({_named(frame)})"
        if at and role == "meter" and (why := _terminal_frame(data, at, "master")):
            return why
        if at and role != "meter" and (why := _terminal_frame(data, at, role)):
            return why
    return None


def _starts(data: bytes) -> Iterator[int]:
    at = data.find(dlt645.START)
    while at >= 0:
        yield at
        at = data.find(dlt645.START, at + 1)


def _terminal_frame(data: bytes, at: int, role: Role) -> str | None:
    """Whether a 376.1 frame that begins there is to a terminal and dangerous. Deliberately not `danger`
    again: what is in the frame is scanned by `_hidden` all the same."""
    if data[at + 5 : at + 6] != b"\x68" or data[at + 1 : at + 3] != data[at + 3 : at + 5]:
        return None
    length = (int.from_bytes(data[at + 1 : at + 3], "little") >> 2) + _AROUND_USER_DATA
    raw = data[at : at + length]
    places = find(raw).frames
    if not places or (places[0].start, places[0].end, places[0].family) != (0, length, Family.TERMINAL):
        return None
    return _danger_of_terminals(raw, role)


@dataclass(frozen=True, slots=True)
class Door:
    """Writes to one link. simulator: who proves that a simulator of ours is at its other end."""

    link: Link
    role: Role
    simulator: Proved | None = None

    async def say(self, piece: Piece) -> None:
        """NotARead before a byte leaves; LinkClosed."""
        why = danger(piece.raw, self.role)
        if why is not None and (self.simulator is None or not self.simulator.proves(self.link)):
            raise NotARead(f"line {piece.line} {why}; nothing of it was sent 未发送")
        await self.link.write(piece.whole)
