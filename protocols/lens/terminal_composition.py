"""Q/GDW 376.1 frames from words: what `lingdian encode` builds.

Requests that set, control, clear or reset are built only with a reason, which stands in the permit that is
made for them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from protocols.errors import LocalProtocolError
from protocols.lens.naming import class_of
from protocols.lens.places import meters
from protocols.permit import Permit, demand
from protocols.q_gdw376 import frame as q_gdw376
from protocols.q_gdw376 import items, messages
from protocols.q_gdw376.identifiers import identifier
from protocols.q_gdw376.units import PASSWORD_AFNS

_FN = re.compile(r"[Ff]?(\d{1,3})")
_AFN = re.compile(r"[0-9A-Fa-f]{2}")

# Function codes of C as live front ends send them.
_CODES = {0x01: 1, 0x02: 9, 0x04: 10, 0x05: 10, 0x06: 10, 0x0F: 10}
_USUAL_CODE = 11
_CONFIRM_CODE = 11
_ANSWER_CODE = 8
_FORWARD = (0x10, 1)
# The carrier port, 2400 8E1, 60 s for the answer and 100 ms between bytes, as captured.
_USUAL_FORWARD: Mapping[str, object] = {
    "port": messages.CARRIER_PORT,
    "control": {"data_bits_less_5": 3, "odd_parity": 0, "parity": 1, "stop_bits_less_1": 0, "baud_code": 3},
    "message_timeout": {"value": 60, "seconds": 1},
    "byte_timeout": 10,
}
# Functions of 645 that only read: 2007, then 1997. 03H of 1997 reads too, but is security in 2007.
_READING = frozenset((0x11, 0x12, 0x13, 0x01, 0x02))


@dataclass(frozen=True, slots=True)
class TerminalOrder:
    """What a 376.1 frame shall say.

    terminal: 8 hex digits. words: AFN and Fn ("0d", "F161"), or the name of the class. points: pn of each
    unit. values: the fields of its data by name, as `Fields.plain` has them. up: the terminal says it.
    password: PW, None for zeros where the AFN carries one.
    """

    terminal: str
    words: tuple[str, ...]
    points: tuple[int, ...] = (0,)
    values: Mapping[str, object] = field(default_factory=dict)
    up: bool = False
    pseq: int = 0
    msa: int = 0
    con: bool = False
    password: bytes | None = None
    protocol_id: int = q_gdw376.GW_376
    variants: Mapping[str, str] = field(default_factory=dict)

    @property
    def afn_fn(self) -> tuple[int, int]:
        """LocalProtocolError where the words name no class, or several."""
        if len(self.words) == 2 and _AFN.fullmatch(self.words[0]) and (fn := _FN.fullmatch(self.words[1])):
            return int(self.words[0], 16), int(fn[1])
        return class_of(" ".join(self.words), up=self.up)


def compose_terminal(order: TerminalOrder, reason: str | None = None) -> bytes:
    """The frame. reason: why a dangerous one is built; None builds none.

    LocalProtocolError where it cannot be sent, or is dangerous and has no reason.
    """
    afn, fn = order.afn_fn
    terminal = order.terminal.lower()
    gated = not order.up and items.dangerous(afn, fn)
    if gated:
        _demand(terminal, afn, fn, reason)
    data = _data(order, afn, fn)
    if not gated and not order.up and (afn, fn) == _FORWARD and not _only_reads(data):
        _demand(terminal, afn, fn, reason)
    body = b"".join(identifier(pn, fn) + data for pn in order.points)
    answers = (order.up and afn != 0x02) or (not order.up and afn == 0x00)
    code = _CODES.get(afn, _USUAL_CODE)
    if answers:
        code = _ANSWER_CODE if order.up else _CONFIRM_CODE
    if not order.up and afn in PASSWORD_AFNS:
        body += _password(order)
    return q_gdw376.build(
        q_gdw376.Frame(
            terminal=terminal,
            up=order.up,
            prm=not answers,
            function=code,
            afn=afn,
            body=body,
            msa=order.msa,
            con=order.con,
            pseq=order.pseq,
            protocol_id=order.protocol_id,
        )
    )


def _demand(terminal: str, afn: int, fn: int, reason: str | None) -> None:
    action = items.action(afn, fn)
    demand(None if reason is None else Permit(action, terminal, reason), action, terminal)


def _data(order: TerminalOrder, afn: int, fn: int) -> bytes:
    form = items.form_of(afn, fn, order.up)
    if form is None:
        if order.values:
            raise LocalProtocolError(
                f"AFN{afn:02X} F{fn} carries no values this way, as far as the list knows"
            )
        return b""
    if not order.values and not form.length({}):
        return b""
    usual = _USUAL_FORWARD if (afn, fn, order.up) == (*_FORWARD, False) else {}
    return form.encode({**usual, **order.values}, order.variants)


def _only_reads(data: bytes) -> bool:
    """Whether the bytes to be forwarded hold frames, and none but of reading."""
    found = list(meters(data))
    return bool(found) and all(data[place.start + 8] in _READING for place in found)


def _password(order: TerminalOrder) -> bytes:
    usual = 2 if order.protocol_id == q_gdw376.GW_2005 else len(messages.NO_PASSWORD)
    password = bytes(usual) if order.password is None else order.password
    if len(password) != usual:
        raise LocalProtocolError(f"PW has {usual} bytes here, not {len(password)}")
    return password
