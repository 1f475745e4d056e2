"""The terminal's end of a link to the master. See `connection` for the rules of both ends."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from protocols.errors import LocalProtocolError
from protocols.q_gdw376.frame import (
    EC_LENGTH,
    GW_376,
    HEADER,
    LARGEST_USER_DATA,
    OVERHEAD,
    TP_LENGTH,
    Frame,
    build,
    signed_data,
)
from protocols.q_gdw376.link import (
    CONFIRM,
    CONFIRM_ALL,
    CONFIRM_CODE,
    DEFAULT_FRAME_LENGTH,
    DEFAULT_LABEL_DELAY,
    DEFAULT_REPEATS,
    DEFAULT_REPLY_TIMEOUT,
    DENY_ALL,
    LINK_TEST,
    LINK_TEST_CODE,
    MOST_OPEN_REPORTS,
    RESPONSE_CODE,
    USER_DATA_CODE,
    Asked,
    Late,
    PasswordRefused,
    Reader,
    ReportConfirmed,
    ReportDenied,
    ReportSilent,
    TerminalEvent,
    confirm_body,
    damaged,
)
from protocols.q_gdw376.messages import UnitConfirm, decode, encode_unit
from protocols.q_gdw376.password import Scheme
from protocols.q_gdw376.stream import FoundFrame
from protocols.q_gdw376.time_label import label, staleness
from protocols.q_gdw376.units import PASSWORD_AFNS
from protocols.wire import Damaged


@dataclass(slots=True)
class _Report:
    frame: Frame
    raw: bytes
    deadline: float
    repeats_left: int


class Terminal:
    """The terminal's end of one link: hears requests, answers them, and reports of its own accord.

    ec: event counters to send with ACD in every frame; None: no events wait. password: how PW is checked;
    None: it is not. A master that marks FCB valid and repeats a request gets the answer it got, and the
    request is not told again.
    """

    def __init__(
        self,
        terminal: str,
        *,
        confirm_timeout: float = DEFAULT_REPLY_TIMEOUT,
        repeats: int = DEFAULT_REPEATS,
        frame_length: int = DEFAULT_FRAME_LENGTH,
        protocol_id: int = GW_376,
        limit: int = LARGEST_USER_DATA,
        password: Scheme | None = None,
    ) -> None:
        """confirm_timeout, repeats: of reports with CON. frame_length: the longest frame of an answer."""
        self.terminal = terminal
        self.ec: tuple[int, int] | None = None
        self.password = password
        self._confirm_timeout = confirm_timeout
        self._repeats = repeats
        self._frame_length = frame_length
        self._protocol_id = protocol_id
        self._reader = Reader(limit)
        self._wall: datetime | None = None
        self._pfc = 0
        self._reports: dict[int, _Report] = {}
        self._answered: _Report | None = None
        self._last_asked = b""
        self._last_answer = b""
        self._events: deque[TerminalEvent] = deque()
        self._outbox = bytearray()

    def answer(
        self,
        asked: Frame,
        units: Sequence[bytes],
        *,
        single_as_last: bool = False,
        confirm_from: float | None = None,
    ) -> bytes:
        """The frames that answer `asked`: as many as the units (from `encode_unit`) need, each within
        `frame_length` unless one unit alone is longer. single_as_last: mark a single frame FIR 0 FIN 1.
        confirm_from: now, where the last frame shall have CON; its confirm or silence is an event, and it is
        not repeated, for the master can ask again."""
        if not units:
            raise LocalProtocolError("an answer needs a unit; deny instead")
        room = self._frame_length - OVERHEAD - HEADER - EC_LENGTH - TP_LENGTH
        bodies = [bytearray()]
        for unit in units:
            if bodies[-1] and len(bodies[-1]) + len(unit) > room:
                bodies.append(bytearray())
            bodies[-1] += unit
        last = len(bodies) - 1
        frames = [
            replace(
                self._response(asked, asked.afn, bytes(body), RESPONSE_CODE),
                fir=place == 0 and not (single_as_last and last == 0),
                fin=place == last,
                con=place == last and confirm_from is not None,
                pseq=(asked.pseq + place) % 16,
            )
            for place, body in enumerate(bodies)
        ]
        raw = b"".join([build(frame) for frame in frames])
        if confirm_from is not None:
            if self._answered is not None:
                self._events.append(ReportSilent(self._answered.frame))
            self._answered = _Report(frames[-1], b"", confirm_from + self._confirm_timeout, 0)
        return self._said(raw)

    def confirm(self, asked: Frame) -> bytes:
        """AFN00 F1: all of `asked` is done."""
        return self._verdict(asked, encode_unit(CONFIRM, CONFIRM_ALL, 0))

    def deny(self, asked: Frame) -> bytes:
        """AFN00 F2: nothing of `asked` is done, or there are no data."""
        return self._verdict(asked, encode_unit(CONFIRM, DENY_ALL, 0))

    def confirm_units(self, asked: Frame, results: Sequence[tuple[int, int, int]]) -> bytes:
        """AFN00 F3: (pn, fn, ERR) for each unit."""
        return self._verdict(asked, confirm_body(asked.afn, tuple(results)))

    def send_spontaneous(
        self,
        afn: int,
        units: Sequence[bytes],
        now: float,
        con: bool = True,
        *,
        wall: datetime | None = None,
        label_delay: int = DEFAULT_LABEL_DELAY,
    ) -> bytes:
        """A report (login, heartbeat, task, event): the frame to write. con: wait for a confirm, and repeat
        with the same PSEQ. wall: our time of day, where it shall carry Tp; label_delay: minutes in that.

        LocalProtocolError where too many reports wait.
        """
        pseq = self._pfc & 15
        tp = None if wall is None else label(self._pfc, wall, label_delay).to_bytes()
        if con and (pseq in self._reports or len(self._reports) >= MOST_OPEN_REPORTS):
            raise LocalProtocolError(f"{len(self._reports)} reports wait for their confirm")
        frame = Frame(
            terminal=self.terminal,
            up=True,
            prm=True,
            function=LINK_TEST_CODE if afn == LINK_TEST else USER_DATA_CODE,
            afn=afn,
            body=b"".join(units),
            acd=self.ec is not None,
            tpv=tp is not None,
            con=con,
            pseq=pseq,
            ec=self.ec,
            tp=tp,
            protocol_id=self._protocol_id,
        )
        raw = build(frame)
        self._pfc = (self._pfc + 1) & 0xFF
        if con:
            self._reports[pseq] = _Report(frame, raw, now + self._confirm_timeout, self._repeats)
        return raw

    def receive_data(self, data: bytes, now: float, wall: datetime | None = None) -> None:
        """Take bytes from the master. wall: our time of day, where requests with a Tp that has run out shall
        be `Late`. LocalProtocolError when events were left lying for a megabyte."""
        self._wall = wall
        self._reader.receive_data(data, now)

    def next_event(self) -> TerminalEvent | None:
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
        """What the protocol itself wants written now: repeats, and denials of a wrong PW."""
        data = bytes(self._outbox)
        self._outbox.clear()
        return data

    def next_timeout(self) -> float | None:
        """When to call `handle_timeout` next, if nothing comes before."""
        waits = [report.deadline for report in self._waiting()]
        gap = self._reader.next_timeout()
        return min(waits if gap is None else [*waits, gap], default=None)

    def handle_timeout(self, now: float) -> None:
        """Time has passed: repeat reports, give up, or nothing if it is too early."""
        self._reader.handle_timeout(now)
        for report in self._waiting():
            if now < report.deadline:
                continue
            if report.repeats_left > 0:
                report.repeats_left -= 1
                report.deadline = now + self._confirm_timeout
                self._outbox += report.raw
            else:
                self._forget(report)
                self._events.append(ReportSilent(report.frame))

    def _waiting(self) -> list[_Report]:
        """Reports, and the answer, whose confirm is due."""
        answered = [] if self._answered is None else [self._answered]
        return [*self._reports.values(), *answered]

    def _forget(self, report: _Report) -> None:
        if report is self._answered:
            self._answered = None
        else:
            del self._reports[report.frame.pseq]

    def _take(self, found: FoundFrame) -> TerminalEvent | None:
        """What a frame means. None: a repeat."""
        frame = found.frame
        if frame.up:
            return damaged(found, "a frame to the master, heard by a terminal")
        if frame.terminal != self.terminal and not frame.group:
            return damaged(found, "a frame to another terminal")
        return self._asked(found) if frame.prm else self._confirmed(found)

    def _asked(self, found: FoundFrame) -> TerminalEvent | None:
        frame, raw = found.frame, found.raw
        if self._wall is not None and frame.tp is not None:
            reason = staleness(frame.tp, self._wall)
            if reason is not None:
                return Late(frame, raw, reason)
        if not frame.group:
            if frame.fcv and raw == self._last_asked:
                self._outbox += self._last_answer
                return None
            self._last_asked, self._last_answer = raw, b""
        if self.password is not None and frame.afn in PASSWORD_AFNS:
            units = max(0, len(frame.body) - self.password.length)
            password = frame.body[units:]
            if not self.password.accepts(signed_data(raw, units), password):
                if not frame.group:
                    self._outbox += self.deny(frame)
                return PasswordRefused(frame, password, raw)
        return Asked(frame, decode(frame), raw)

    def _confirmed(self, found: FoundFrame) -> TerminalEvent:
        """AFN00 of the master, for a report or for an answer: both have numbers of their own, which may be
        the same. F3 says which it is; else it is the one that has waited longer."""
        frame = found.frame
        units = decode(frame) if frame.afn == CONFIRM else ()
        if not units or units[0].reason is not None:
            return Late(frame, found.raw)
        told = units[0].value
        meant = [
            report
            for report in self._waiting()
            if report.frame.pseq == frame.pseq
            and not (isinstance(told, UnitConfirm) and told.afn != report.frame.afn)
        ]
        if not meant:
            return Late(frame, found.raw)
        report = min(meant, key=lambda one: one.deadline)
        self._forget(report)
        if units[0].fn == DENY_ALL or (isinstance(told, UnitConfirm) and not told.all_done):
            return ReportDenied(report.frame, frame)
        return ReportConfirmed(report.frame, frame)

    def _verdict(self, asked: Frame, body: bytes) -> bytes:
        return self._said(build(self._response(asked, CONFIRM, body, CONFIRM_CODE)))

    def _said(self, raw: bytes) -> bytes:
        """Kept for a repeat of the request. Only one exchange is open at a time: this answers the last
        one."""
        self._last_answer = raw
        return raw

    def _response(self, asked: Frame, afn: int, body: bytes, function: int) -> Frame:
        """An answer repeats MSA, PSEQ and the Tp it got."""
        return Frame(
            terminal=self.terminal,
            up=True,
            prm=False,
            function=function,
            afn=afn,
            body=body,
            msa=asked.msa,
            acd=self.ec is not None,
            tpv=asked.tp is not None,
            pseq=asked.pseq,
            ec=self.ec,
            tp=asked.tp,
            protocol_id=self._protocol_id,
        )
