"""Which answer belongs to which request, in frames that come one after the other.

645: by address (wildcards match), function and DI; a follow-up by its DI. 376.1: by terminal, RSEQ and AFN
(AFN00 confirms any), further frames of one answer by RSEQ + 1. What a meter sends part by part is joined.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field

from protocols.dlt645 import description, items
from protocols.dlt645 import frame as dlt645
from protocols.lens.meter import item_nodes
from protocols.lens.node import Node
from protocols.lens.places import Family, Place
from protocols.lens.words import AFNS, chinese
from protocols.q_gdw376 import frame as q_gdw376
from protocols.q_gdw376 import items as classes
from protocols.q_gdw376 import messages

# A capture may hold any number of requests that nobody answered: only the newest wait.
MOST_WAITING = 1024
# SEQ of follow-up frames runs 1..255, each up to 255 bytes.
MOST_PARTS = 256

_CONFIRM = 0x00
_READ, _FOLLOW_UP = 0x11, 0x12


@dataclass(frozen=True, slots=True)
class Turn:
    """One frame's part in the conversation.

    number: 1 for the first frame. digest, digest_zh: one line that says what it is. answers: the number of
    the request that it answers, None where it is a request, or nobody was seen to ask. asked, asked_zh:
    that request's digest. joined: the values of an item whose last part this frame brings.
    """

    number: int
    digest: str
    digest_zh: str
    answers: int | None = None
    asked: str = ""
    asked_zh: str = ""
    joined: tuple[Node, ...] = ()


@dataclass(slots=True)
class _Request:
    number: int
    digest: tuple[str, str]
    answered: bool = False
    next_sequence: int | None = None
    """376.1: RSEQ of the frame that would go on with the answer."""


@dataclass(slots=True)
class _Meter(_Request):
    address: str = ""
    function: int = 0
    di: bytes = b""
    edition: str = "2007"


@dataclass(slots=True)
class _Terminal(_Request):
    terminal: str = ""
    up: bool = False
    afn: int = 0
    sequence: int = 0


@dataclass(slots=True)
class Conversation:
    """Frames in the order in which they were seen. Holds MOST_WAITING requests and items' parts at most."""

    count: int = 0
    exchanges: int = 0
    _waiting: list[_Request] = field(default_factory=list)
    _parts: OrderedDict[tuple[str, str], list[bytes]] = field(default_factory=OrderedDict)

    @property
    def unanswered(self) -> tuple[int, ...]:
        """Numbers of the requests that still wait and ask for an answer."""
        return tuple(request.number for request in self._waiting if not request.answered)

    def add(self, data: bytes, place: Place) -> Turn:
        """The frame at `place` in `data`, which is the next in time."""
        self.count += 1
        raw = data[place.start : place.end]
        if place.family is Family.METER:
            return self._meter(dlt645.content(raw))
        return self._terminal(q_gdw376.content(raw))

    # -- 645 ----------------------------------------------------------------------------------

    def _meter(self, frame: dlt645.Frame) -> Turn:
        edition = description.edition_of(frame)
        digest = meter_digest(frame)
        di = _di(frame, edition)
        if not frame.from_meter:
            if frame.address != dlt645.BROADCAST:
                self._ask(
                    _Meter(
                        self.count,
                        digest,
                        address=frame.address,
                        function=frame.function,
                        di=di,
                        edition=edition,
                    )
                )
            return Turn(self.count, *digest)
        joined = self._join(frame, edition, di)
        for request in reversed(self._waiting):
            if (
                isinstance(request, _Meter)
                and request.function == frame.function
                and request.edition == edition
                and (dlt645.matches(request.address, frame.address) or "A" in request.address)
                and (not di or not request.di or di == request.di)
            ):
                return self._answer(request, digest, joined)
        return Turn(self.count, *digest, joined=joined)

    def _join(self, frame: dlt645.Frame, edition: str, di: bytes) -> tuple[Node, ...]:
        """Keeps an item's part; the values, when the last has come and some came before it."""
        if edition != "2007" or frame.function not in (_READ, _FOLLOW_UP) or frame.is_error or not di:
            return ()
        key = (frame.address, di[::-1].hex())
        follow_up = frame.function == _FOLLOW_UP
        content = frame.data[4:-1] if follow_up else frame.data[4:]
        if not follow_up:
            self._parts.pop(key, None)
            if not frame.more_follows:
                return ()
            self._parts[key] = [content]
            if len(self._parts) > MOST_WAITING:
                self._parts.popitem(last=False)
            return ()
        parts = self._parts.get(key)
        # Parts are joined only while SEQ runs without a gap; one that comes again changes nothing.
        if parts is None or not frame.data or frame.data[-1] != len(parts) or len(parts) >= MOST_PARTS:
            return ()
        parts.append(content)
        if frame.more_follows:
            return ()
        del self._parts[key]
        return item_nodes(key[1], b"".join(parts), None, edition)

    # -- 376.1 --------------------------------------------------------------------------------

    def _terminal(self, frame: q_gdw376.Frame) -> Turn:
        digest = terminal_digest(frame)
        if frame.prm:
            self._ask(
                _Terminal(
                    self.count,
                    digest,
                    terminal=frame.terminal,
                    up=frame.up,
                    afn=frame.afn,
                    sequence=frame.pseq,
                    # FC 4 is sent without asking for anything, unless CON does.
                    answered=frame.function == 4 and not frame.con,
                )
            )
            return Turn(self.count, *digest)
        for request in reversed(self._waiting):
            if (
                isinstance(request, _Terminal)
                and request.terminal == frame.terminal
                and request.up != frame.up
                and frame.afn in (request.afn, _CONFIRM)
            ):
                begins = request.sequence == frame.pseq
                goes_on = request.next_sequence == frame.pseq and not frame.fir
                if begins or goes_on:
                    request.next_sequence = None if frame.fin else (frame.pseq + 1) % 16
                    return self._answer(request, digest, ())
        return Turn(self.count, *digest)

    # -- both ---------------------------------------------------------------------------------

    def _ask(self, request: _Request) -> None:
        self._waiting.append(request)
        if len(self._waiting) > MOST_WAITING:
            answered = next((one for one in self._waiting if one.answered), self._waiting[0])
            self._waiting.remove(answered)

    def _answer(self, request: _Request, digest: tuple[str, str], joined: tuple[Node, ...]) -> Turn:
        if not request.answered:
            request.answered = True
            self.exchanges += 1
        return Turn(self.count, *digest, request.number, *request.digest, joined)


def _di(frame: dlt645.Frame, edition: str) -> bytes:
    """The DI at the start of a frame's data, where its function has one there; b"" where it has none."""
    if edition == "1997":
        return frame.data[:2] if frame.function in (0x01, 0x02) and not frame.is_error else b""
    has_one = frame.function in (0x03, _READ, _FOLLOW_UP) and not frame.is_error
    return frame.data[:4] if has_one else b""


def meter_digest(frame: dlt645.Frame) -> tuple[str, str]:
    """One line, English and Chinese, that says what a 645 frame is."""
    edition = description.edition_of(frame)
    told = description.describe(frame)
    function = told.get("function", f"C={told['control']}")
    english, function_zh = [frame.address.lower(), function], chinese(function) or function
    words_zh = [frame.address.lower(), function_zh]
    if frame.is_error:
        reasons = told.get("reasons", [])
        english.append("refused: " + ", ".join(reasons))
        words_zh.append("拒绝：" + "、".join(chinese(reason) or reason for reason in reasons))
    if di := told.get("di"):
        item = items.lookup(di, edition)
        english.append(di if item is None else f"{di} {item.name_en}")
        words_zh.append(di if item is None else f"{di} {item.name_zh}")
    if action := told.get("relay_action"):
        english.append(action)
        words_zh.append(chinese(action) or action)
    if told.get("value") is not None:
        value = f"= {told['value']} {told.get('unit', '')}".rstrip()
        english.append(value)
        words_zh.append(value)
    return " ".join(english), " ".join(words_zh)


def terminal_digest(frame: q_gdw376.Frame) -> tuple[str, str]:
    """One line, English and Chinese, that says what a 376.1 frame is."""
    afn, afn_zh = AFNS.get(frame.afn, ("reserved", "备用"))
    english = [frame.terminal, f"AFN{frame.afn:02X} {afn}"]
    words_zh = [frame.terminal, f"AFN{frame.afn:02X} {afn_zh}"]
    told = messages.read(frame).units
    if told:
        first = told[0]
        item = classes.lookup(frame.afn, first.fn, frame.up)
        more = f" and {len(told) - 1} more" if len(told) > 1 else ""
        more_zh = f" 等{len(told)}项" if len(told) > 1 else ""
        english.append(f"p{first.pn} F{first.fn} {item.name_en if item else ''}".rstrip() + more)
        words_zh.append(f"p{first.pn} F{first.fn} {item.name_zh if item else ''}".rstrip() + more_zh)
    return ": ".join((english[0], " ".join(english[1:]))), "：".join((words_zh[0], " ".join(words_zh[1:])))
