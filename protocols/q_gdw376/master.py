"""The master's end of a link to one terminal. See `connection` for the rules of both ends."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from protocols.errors import LocalProtocolError
from protocols.q_gdw376.answers import Answer, Step
from protocols.q_gdw376.frame import GW_376, LARGEST_USER_DATA, Frame, build
from protocols.q_gdw376.identifiers import classes, points
from protocols.q_gdw376.link import (
    CONFIRM,
    CONFIRM_ALL,
    CONFIRM_CODE,
    CONFIRM_UNITS,
    DEFAULT_REPEATS,
    DEFAULT_REPLY_TIMEOUT,
    DENY_ALL,
    LEVEL_1_CODE,
    LEVEL_2_CODE,
    LINK_STATE_CODE,
    LINK_TEST,
    RESET_CODE,
    Answered,
    Confirmed,
    Denied,
    Late,
    MasterEvent,
    Reader,
    Silent,
    Spontaneous,
    confirm_body,
    damaged,
)
from protocols.q_gdw376.messages import Request, UnitConfirm, decode, encode_unit, identify
from protocols.q_gdw376.stream import FoundFrame
from protocols.wire import Damaged

# Reset, set parameters, control, keys, file transfer: AFN00 is the answer. All others are answered by data.
_CONFIRMED_AFNS = frozenset((0x01, 0x04, 0x05, 0x06, 0x0F))
# An AFN00 F3 of more does not fit the 512 bytes that a terminal's buffer may be.
MOST_CONFIRMED_UNITS = 96
_REQUEST_CODES = {
    0x01: RESET_CODE,
    0x04: LEVEL_1_CODE,
    0x05: LEVEL_1_CODE,
    0x06: LEVEL_1_CODE,
    0x0F: LEVEL_1_CODE,
}


@dataclass(slots=True)
class _Exchange:
    request: Request
    terminal: str
    pseq: int
    raw: bytes
    timeout: float
    deadline: float
    repeats_left: int
    answer: Answer


class Master:
    """The gateway's end of one link to one terminal; one exchange at a time.

    terminal: set it once the login has told it. protocol_id: of what is sent; taken from the terminal's
    AFN02 frames. msa: our master station address, 1..127.
    """

    def __init__(
        self,
        *,
        msa: int = 1,
        reply_timeout: float = DEFAULT_REPLY_TIMEOUT,
        repeats: int = DEFAULT_REPEATS,
        confirm_form: str = "F3",
        limit: int = LARGEST_USER_DATA,
    ) -> None:
        """repeats: how often a repeatable request is sent again. confirm_form: F3 (each unit) or F1 (all)."""
        if confirm_form not in ("F1", "F3"):
            raise LocalProtocolError(f"confirm form {confirm_form!r} is neither F1 nor F3")
        self.terminal: str | None = None
        self.protocol_id = GW_376
        self._msa = msa
        self._reply_timeout = reply_timeout
        self._repeats = repeats
        self._confirm_form = confirm_form
        self._reader = Reader(limit)
        self._now = 0.0
        self._pseq = 0
        self._exchange: _Exchange | None = None
        self._events: deque[MasterEvent] = deque()
        self._outbox = bytearray()

    @property
    def busy(self) -> bool:
        """An exchange is open: `send` would be refused."""
        return self._exchange is not None

    @property
    def held(self) -> int:
        """Bytes of the peer that wait for more."""
        return self._reader.held

    def send(self, request: Request, now: float, reply_timeout: float | None = None) -> bytes:
        """Open an exchange: the frame to write. reply_timeout: for this one (a forward takes longer).

        LocalProtocolError while an exchange is open, before `terminal` is known, or where the request cannot
        be written.
        """
        if self._exchange is not None:
            raise LocalProtocolError("an exchange is open")
        if self.terminal is None:
            raise LocalProtocolError("no terminal has logged in")
        pseq = (self._pseq + 1) % 16
        frame = Frame(
            terminal=self.terminal,
            up=False,
            prm=True,
            function=_REQUEST_CODES.get(request.afn, LEVEL_2_CODE),
            afn=request.afn,
            body=request.body,
            msa=self._msa,
            con=request.con,
            pseq=pseq,
            protocol_id=self.protocol_id,
        )
        raw = build(frame)
        timeout = self._reply_timeout if reply_timeout is None else reply_timeout
        repeats = self._repeats if request.repeatable else 0
        self._pseq = pseq
        self._exchange = _Exchange(
            request, self.terminal, pseq, raw, timeout, now + timeout, repeats, Answer(pseq)
        )
        return raw

    def abandon(self) -> None:
        """Wait no longer: an answer that still comes is `Late`."""
        if self._exchange is not None:
            self._close(self._exchange)

    def confirm(self, frame: Frame) -> bytes:
        """The AFN00 that confirms a terminal's frame: each of its units (F3), or all (F1) where the form says
        so, or the units cannot be told apart or are very many."""
        units = identify(frame) if self._confirm_form == "F3" else None
        if not units or len(units) > MOST_CONFIRMED_UNITS:
            return self._reply(frame, encode_unit(CONFIRM, CONFIRM_ALL, 0))
        return self._reply(frame, confirm_body(frame.afn, tuple((pn, fn, 0) for pn, fn in units)))

    def deny(self, frame: Frame) -> bytes:
        """The AFN00 F2 that refuses a terminal's frame."""
        return self._reply(frame, encode_unit(CONFIRM, DENY_ALL, 0))

    def receive_data(self, data: bytes, now: float) -> None:
        """Take bytes from the terminal. LocalProtocolError when events were left lying for a megabyte."""
        self._now = now
        self._reader.receive_data(data, now)

    def end(self) -> None:
        """The line is closed: the next events tell what is left of a frame."""
        self._reader.end()

    def next_event(self) -> MasterEvent | None:
        """The next event; None when nothing more can be told before more bytes or time come."""
        while True:
            if self._events:
                return self._events.popleft()
            found = self._reader.next_event()
            if found is None or isinstance(found, Damaged):
                return found
            event = self._take(found)
            if event is not None:
                return event

    def data_to_send(self) -> bytes:
        """What the protocol itself wants written now: repeats."""
        data = bytes(self._outbox)
        self._outbox.clear()
        return data

    def next_timeout(self) -> float | None:
        """When to call `handle_timeout` next, if nothing comes before."""
        waits = [self._reader.next_timeout(), self._exchange.deadline if self._exchange else None]
        return min((wait for wait in waits if wait is not None), default=None)

    def handle_timeout(self, now: float) -> None:
        """Time has passed: repeat, give up, or nothing if it is too early."""
        self._now = now
        self._reader.handle_timeout(now)
        exchange = self._exchange
        if exchange is None or now < exchange.deadline:
            return
        if exchange.repeats_left > 0:
            exchange.repeats_left -= 1
            exchange.deadline = now + exchange.timeout
            self._outbox[:] = exchange.raw
            return
        self._close(exchange)
        self._events.append(Silent(exchange.request, exchange.answer.frames))

    def _take(self, found: FoundFrame) -> MasterEvent | None:
        """What a frame means. None: it is one of several, or was here already."""
        frame, raw = found.frame, found.raw
        if not frame.up:
            return damaged(found, "a frame to a terminal, heard by the master")
        if frame.afn == LINK_TEST and frame.prm:
            self.protocol_id = frame.protocol_id
        exchange = self._exchange
        # Captured terminals answer with PRM 1. AFN00 is an answer whatever its PRM says; any other frame only
        # where nothing speaks against it.
        unasked = Spontaneous if frame.prm and frame.afn != CONFIRM else Late
        if exchange is None or frame.terminal != exchange.terminal:
            return unasked(frame, raw)
        if frame.afn == CONFIRM != exchange.request.afn:
            return self._verdict(exchange, found)
        if frame.afn != exchange.request.afn or not _expected(exchange, frame):
            return unasked(frame, raw)
        return self._collect(exchange, found)

    def _verdict(self, exchange: _Exchange, found: FoundFrame) -> MasterEvent:
        """AFN00 while something else was asked."""
        frame = found.frame
        if frame.pseq != exchange.pseq or not frame.body:
            return Late(frame, found.raw)
        units = decode(frame)
        unit = units[0]
        if unit.reason is not None:
            return damaged(found, unit.reason)
        told = unit.value
        if isinstance(told, UnitConfirm) and told.afn != exchange.request.afn:
            return Late(frame, found.raw)
        if unit.fn == DENY_ALL or (isinstance(told, UnitConfirm) and not told.all_done):
            self._close(exchange)
            return Denied(exchange.request, frame)
        if unit.fn not in (CONFIRM_ALL, CONFIRM_UNITS) or exchange.request.afn not in _CONFIRMED_AFNS:
            return Late(frame, found.raw)  # heard, but the data are still to come
        self._close(exchange)
        return Confirmed(exchange.request, frame)

    def _collect(self, exchange: _Exchange, found: FoundFrame) -> MasterEvent | None:
        step = exchange.answer.add(found.frame)
        if isinstance(step, str):
            return damaged(found, step)
        if step is Step.STRANGE:
            return (Spontaneous if found.frame.prm else Late)(found.frame, found.raw)
        if step is Step.AGAIN:
            return None
        if step is Step.MORE:
            exchange.deadline = self._now + exchange.timeout
            return None
        self._close(exchange)
        self._events.extend(Late(frame, build(frame)) for frame in exchange.answer.left_over)
        return Answered(exchange.request, exchange.answer.whole_frames)

    def _close(self, exchange: _Exchange) -> None:
        """The numbers that further frames of this answer bear are not given to the next request."""
        self._exchange = None
        self._outbox.clear()
        self._pseq = (exchange.pseq + max(0, len(exchange.answer.frames) - 1)) % 16

    def _reply(self, frame: Frame, body: bytes) -> bytes:
        return build(
            Frame(
                terminal=frame.terminal,
                up=False,
                prm=False,
                function=LINK_STATE_CODE if frame.afn == LINK_TEST else CONFIRM_CODE,
                afn=CONFIRM,
                body=body,
                msa=frame.msa,
                pseq=frame.pseq,
                protocol_id=frame.protocol_id,
            )
        )


def _expected(exchange: _Exchange, frame: Frame) -> bool:
    """Whether `frame` may belong to the answer: a first frame by its first unit, a further one by PRM."""
    if not exchange.answer.begins_with(frame):
        had = exchange.answer.whole_frames
        return not frame.prm or (bool(had) and had[0].prm and not frame.fir)
    da, dt = frame.body[:2], frame.body[2:4]
    if len(dt) < 2:
        return False
    return any(exchange.request.asks(pn, fn) for pn in points(da) for fn in classes(dt))
