"""The master's end of a link to one terminal. See `connection` for the rules of both ends."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from protocols.errors import LocalProtocolError
from protocols.permit import demand
from protocols.q_gdw376.answers import Answer, Step
from protocols.q_gdw376.forms import NO_VARIANTS
from protocols.q_gdw376.frame import GW_376, LARGEST_USER_DATA, Frame, build, signed_data
from protocols.q_gdw376.identifiers import classes, points
from protocols.q_gdw376.items import ASKING_AFNS
from protocols.q_gdw376.link import (
    CONFIRM,
    CONFIRM_ALL,
    CONFIRM_CODE,
    CONFIRM_UNITS,
    DEFAULT_LABEL_DELAY,
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
    EventsWaiting,
    Late,
    MasterEvent,
    Reader,
    Silent,
    Spontaneous,
    confirm_body,
    damaged,
)
from protocols.q_gdw376.messages import Request, UnitConfirm, decode, encode_unit, identify
from protocols.q_gdw376.password import Scheme
from protocols.q_gdw376.stream import FoundFrame
from protocols.q_gdw376.time_label import label, staleness
from protocols.q_gdw376.units import PASSWORD_AFNS
from protocols.wire import Damaged

# Reset, set parameters, control, keys, file transfer: AFN00 is the answer. All others are answered by data.
_CONFIRMED_AFNS = frozenset((0x01, 0x04, 0x05, 0x06, 0x0F))
# Data of a task come as those of the classes in it.
_TASK_DATA = 0x0B
_TASK_ANSWERS = (0x0C, 0x0D)
_CONTROL, _SET_CLOCK = 0x05, 31
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
    pfc: int
    labelled: bool
    raw: bytes
    timeout: float
    deadline: float
    repeats_left: int
    answer: Answer


class Master:
    """The gateway's end of one link to one terminal; one exchange at a time.

    terminal: set it once the login has told it. protocol_id: of what is sent; taken from the terminal's
    AFN02 frames. msa: our master station address, 1..127. password: makes PW in place of what a request has;
    None: the request's own. fcv: FCB turns and is marked valid. label_delay: minutes in Tp, 0 for no limit.
    """

    def __init__(
        self,
        *,
        msa: int = 1,
        reply_timeout: float = DEFAULT_REPLY_TIMEOUT,
        repeats: int = DEFAULT_REPEATS,
        confirm_form: str = "F3",
        limit: int = LARGEST_USER_DATA,
        password: Scheme | None = None,
        fcv: bool = False,
        label_delay: int = DEFAULT_LABEL_DELAY,
    ) -> None:
        """repeats: how often a repeatable request is sent again; one with a permit never is. confirm_form: F3
        (each unit) or F1 (all)."""
        if confirm_form not in ("F1", "F3"):
            raise LocalProtocolError(f"confirm form {confirm_form!r} is neither F1 nor F3")
        self.terminal: str | None = None
        self.protocol_id = GW_376
        self.password = password
        self.fcv = fcv
        self.label_delay = label_delay
        self._msa = msa
        self._reply_timeout = reply_timeout
        self._repeats = repeats
        self._confirm_form = confirm_form
        self._reader = Reader(limit)
        self._now = 0.0
        self._wall: datetime | None = None
        self._pfc = 0
        self._fcb = False
        self._ec: tuple[int, int] | None = None
        self._ec_of = ""
        self._exchange: _Exchange | None = None
        self._events: list[MasterEvent] = []
        self._outbox = bytearray()

    @property
    def busy(self) -> bool:
        """An exchange is open: `send` would be refused."""
        return self._exchange is not None

    @property
    def held(self) -> int:
        """Bytes of the peer that wait for more."""
        return self._reader.held

    def send(
        self,
        request: Request,
        now: float,
        reply_timeout: float | None = None,
        *,
        wall: datetime | None = None,
    ) -> bytes:
        """Open an exchange: the frame to write. reply_timeout: for this one (a forward takes longer). wall:
        our time of day, where the frame shall carry Tp; one that sets the clock never does.

        LocalProtocolError while an exchange is open, before `terminal` is known, where the request cannot be
        written, or where it is dangerous and its permit is not for it and this terminal.
        """
        if self._exchange is not None:
            raise LocalProtocolError("an exchange is open")
        if self.terminal is None:
            raise LocalProtocolError("no terminal has logged in")
        pfc = (self._pfc + 1) & 0xFF
        frame = self._asking(request, self.terminal, pfc, wall)
        raw = build(frame)
        timeout = self._reply_timeout if reply_timeout is None else reply_timeout
        repeats = self._repeats if request.repeatable and request.permit is None else 0
        self._pfc = pfc
        self._fcb = frame.acd
        self._exchange = _Exchange(
            request, self.terminal, pfc, frame.tpv, raw, timeout, now + timeout, repeats, Answer(pfc & 15)
        )
        return raw

    def send_to_group(self, request: Request, group: str, *, wall: datetime | None = None) -> bytes:
        """The frame to write to all terminals of a group, or of an area ("0200ffff"): none answers, and
        nothing is waited for. A dangerous request needs a permit for `group`. LocalProtocolError as for
        `send`."""
        pfc = (self._pfc + 1) & 0xFF
        frame = replace(self._asking(request, group, pfc, wall, group=True), acd=False, fcv=False)
        raw = build(frame)
        if self._exchange is None:
            self._pfc = pfc
        return raw

    def _asking(
        self, request: Request, terminal: str, pfc: int, wall: datetime | None, group: bool = False
    ) -> Frame:
        afn = request.afn
        if afn not in ASKING_AFNS:
            for action in request.actions:
                demand(request.permit, action, terminal)
        function = _REQUEST_CODES.get(afn, LEVEL_2_CODE)
        fcv = self.fcv and function != RESET_CODE
        tp = None
        if wall is not None and not (
            afn == _CONTROL and any(unit.fn == _SET_CLOCK for unit in request.units)
        ):
            tp = label(pfc, wall, self.label_delay).to_bytes()
        frame = Frame(
            terminal=terminal,
            up=False,
            prm=True,
            function=function,
            afn=afn,
            body=request.body,
            group=group,
            msa=self._msa,
            acd=fcv and not self._fcb,
            fcv=fcv,
            tpv=tp is not None,
            con=request.con,
            pseq=pfc & 15,
            tp=tp,
            protocol_id=self.protocol_id,
        )
        if self.password is not None and afn in PASSWORD_AFNS:
            return self._with_password(frame, len(request.password or b""), self.password)
        return frame

    @staticmethod
    def _with_password(frame: Frame, had: int, scheme: Scheme) -> Frame:
        """`frame` with the scheme's PW for its last `had` bytes of body."""
        units = frame.body[: len(frame.body) - had]
        return replace(frame, body=units + scheme.make(signed_data(build(frame), len(units))))

    def abandon(self) -> None:
        """Wait no longer: an answer that still comes is `Late`."""
        if self._exchange is not None:
            self._close(self._exchange)

    def confirm(self, frame: Frame, variants: Mapping[str, str] = NO_VARIANTS) -> bytes:
        """The AFN00 that confirms a terminal's frame: each of its units (F3), or all (F1) where the form says
        so, or the units cannot be told apart or are very many. variants: of the terminal's profile."""
        units = identify(frame, variants) if self._confirm_form == "F3" else None
        if not units or len(units) > MOST_CONFIRMED_UNITS:
            return self._reply(frame, encode_unit(CONFIRM, CONFIRM_ALL, 0))
        return self._reply(frame, confirm_body(frame.afn, tuple((pn, fn, 0) for pn, fn in units)))

    def deny(self, frame: Frame) -> bytes:
        """The AFN00 F2 that refuses a terminal's frame."""
        return self._reply(frame, encode_unit(CONFIRM, DENY_ALL, 0))

    def receive_data(self, data: bytes, now: float, wall: datetime | None = None) -> None:
        """Take bytes from the terminal. wall: our time of day, where reports with a Tp that has run out shall
        be `Late` (a login or heartbeat never is). LocalProtocolError when events were left lying for a
        megabyte."""
        self._now = now
        self._wall = wall
        self._reader.receive_data(data, now)

    def end(self) -> None:
        """The line is closed: the next events tell what is left of a frame."""
        self._reader.end()

    def next_event(self) -> MasterEvent | None:
        """The next event; None when nothing more can be told before more bytes or time come."""
        while True:
            if self._events:
                return self._events.pop(0)
            found = self._reader.next_event()
            if found is None or isinstance(found, Damaged):
                return found
            event = self._take(found)
            ec = found.frame.ec
            if ec is not None and (ec != self._ec or found.frame.terminal != self._ec_of):
                self._note_events(found.frame.terminal, ec)
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

    def _note_events(self, terminal: str, ec: tuple[int, int]) -> None:
        if self.terminal is None or terminal == self.terminal:
            self._ec, self._ec_of = ec, terminal
            self._events.append(EventsWaiting(*ec))

    def _take(self, found: FoundFrame) -> MasterEvent | None:
        """What a frame means. None: it is one of several, or was here already."""
        frame = found.frame
        if not frame.up:
            return damaged(found, "a frame to a terminal, heard by the master")
        if frame.afn == LINK_TEST and frame.prm:
            self.protocol_id = frame.protocol_id
        exchange = self._exchange
        # Captured terminals answer with PRM 1. AFN00 is an answer whatever its PRM says; any other frame only
        # where nothing speaks against it: else it is unasked.
        if exchange is None or frame.terminal != exchange.terminal:
            return self._unasked(found)
        if frame.tp is not None and exchange.labelled and _of_earlier(exchange.pfc, frame):
            return self._unasked(found)
        asked = exchange.request.afn
        if frame.afn == CONFIRM != asked:
            return self._verdict(exchange, found)
        if frame.afn != asked and not (asked == _TASK_DATA and frame.afn in _TASK_ANSWERS):
            return self._unasked(found)
        return self._collect(exchange, found) if _expected(exchange, frame) else self._unasked(found)

    def _unasked(self, found: FoundFrame) -> MasterEvent:
        frame = found.frame
        if not frame.prm or frame.afn == CONFIRM:
            return Late(frame, found.raw)
        if self._wall is not None and frame.tp is not None and frame.afn != LINK_TEST:
            reason = staleness(frame.tp, self._wall)
            if reason is not None:
                return Late(frame, found.raw, reason)
        return Spontaneous(frame, found.raw)

    def _verdict(self, exchange: _Exchange, found: FoundFrame) -> MasterEvent:
        """AFN00 while something else was asked."""
        frame = found.frame
        if frame.pseq != exchange.pfc & 15 or not frame.body:
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
            return self._unasked(found)
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
        self._pfc = (exchange.pfc + max(0, len(exchange.answer.frames) - 1)) & 0xFF

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


def _of_earlier(pfc: int, frame: Frame) -> bool:
    """Whether its Tp says that `frame` answers a request before `pfc`, with the same PSEQ maybe. Only the
    counter is looked at: a captured terminal puts its own time beside it."""
    return not frame.prm and frame.tp is not None and (frame.tp[0] - pfc) & 0x80 != 0


def _expected(exchange: _Exchange, frame: Frame) -> bool:
    """Whether `frame` may belong to the answer: a first frame by its first unit, a further one by PRM."""
    if not exchange.answer.begins_with(frame):
        had = exchange.answer.whole_frames
        return not frame.prm or (bool(had) and had[0].prm and not frame.fir)
    if exchange.request.afn == _TASK_DATA:  # asked by task, answered by the points and classes in it
        return not frame.prm
    da, dt = frame.body[:2], frame.body[2:4]
    if len(dt) < 2:
        return False
    return any(exchange.request.asks(pn, fn) for pn in points(da) for fn in classes(dt))
