"""The terminal's end of a link to the master. See `connection` for the rules of both ends."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace

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
)
from protocols.q_gdw376.link import (
    CONFIRM,
    CONFIRM_ALL,
    CONFIRM_CODE,
    DEFAULT_FRAME_LENGTH,
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
    Reader,
    ReportConfirmed,
    ReportDenied,
    ReportSilent,
    TerminalEvent,
    confirm_body,
    damaged,
)
from protocols.q_gdw376.messages import UnitConfirm, decode, encode_unit
from protocols.q_gdw376.stream import FoundFrame
from protocols.wire import Damaged


@dataclass(slots=True)
class _Report:
    frame: Frame
    raw: bytes
    deadline: float
    repeats_left: int


class Terminal:
    """The terminal's end of one link: hears requests, answers them, and reports of its own accord.

    ec: event counters to send with ACD in every frame; None: no events wait.
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
    ) -> None:
        """confirm_timeout, repeats: of reports with CON. frame_length: the longest frame of an answer."""
        self.terminal = terminal
        self.ec: tuple[int, int] | None = None
        self._confirm_timeout = confirm_timeout
        self._repeats = repeats
        self._frame_length = frame_length
        self._protocol_id = protocol_id
        self._reader = Reader(limit)
        self._pseq = 0
        self._reports: dict[int, _Report] = {}
        self._events: deque[TerminalEvent] = deque()
        self._outbox = bytearray()

    def answer(self, asked: Frame, units: Sequence[bytes], *, single_as_last: bool = False) -> bytes:
        """The frames that answer `asked`: as many as the units (from `encode_unit`) need, each within
        `frame_length` unless one unit alone is longer. single_as_last: mark a single frame FIR 0 FIN 1."""
        if not units:
            raise LocalProtocolError("an answer needs a unit; deny instead")
        room = self._frame_length - OVERHEAD - HEADER - EC_LENGTH - TP_LENGTH
        bodies = [bytearray()]
        for unit in units:
            if bodies[-1] and len(bodies[-1]) + len(unit) > room:
                bodies.append(bytearray())
            bodies[-1] += unit
        last = len(bodies) - 1
        return b"".join(
            build(
                replace(
                    self._response(asked, asked.afn, bytes(body), RESPONSE_CODE),
                    fir=place == 0 and not (single_as_last and last == 0),
                    fin=place == last,
                    pseq=(asked.pseq + place) % 16,
                )
            )
            for place, body in enumerate(bodies)
        )

    def confirm(self, asked: Frame) -> bytes:
        """AFN00 F1: all of `asked` is done."""
        return build(self._response(asked, CONFIRM, encode_unit(CONFIRM, CONFIRM_ALL, 0), CONFIRM_CODE))

    def deny(self, asked: Frame) -> bytes:
        """AFN00 F2: nothing of `asked` is done, or there are no data."""
        return build(self._response(asked, CONFIRM, encode_unit(CONFIRM, DENY_ALL, 0), CONFIRM_CODE))

    def confirm_units(self, asked: Frame, results: Sequence[tuple[int, int, int]]) -> bytes:
        """AFN00 F3: (pn, fn, ERR) for each unit."""
        return build(self._response(asked, CONFIRM, confirm_body(asked.afn, tuple(results)), CONFIRM_CODE))

    def send_spontaneous(self, afn: int, units: Sequence[bytes], now: float, con: bool = True) -> bytes:
        """A report (login, heartbeat, task, event): the frame to write. con: wait for a confirm, and repeat.

        LocalProtocolError where too many reports wait.
        """
        pseq = self._pseq
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
            con=con,
            pseq=pseq,
            ec=self.ec,
            protocol_id=self._protocol_id,
        )
        raw = build(frame)
        self._pseq = (pseq + 1) % 16
        if con:
            self._reports[pseq] = _Report(frame, raw, now + self._confirm_timeout, self._repeats)
        return raw

    def receive_data(self, data: bytes, now: float) -> None:
        """Take bytes from the master. LocalProtocolError when events were left lying for a megabyte."""
        self._reader.receive_data(data, now)

    def next_event(self) -> TerminalEvent | None:
        """The next event; None when nothing more can be told before more bytes or time come."""
        if self._events:
            return self._events.popleft()
        found = self._reader.next_event()
        return found if found is None or isinstance(found, Damaged) else self._take(found)

    def data_to_send(self) -> bytes:
        """What the protocol itself wants written now: repeats of reports."""
        data = bytes(self._outbox)
        self._outbox.clear()
        return data

    def next_timeout(self) -> float | None:
        """When to call `handle_timeout` next, if nothing comes before."""
        waits = [report.deadline for report in self._reports.values()]
        gap = self._reader.next_timeout()
        return min(waits if gap is None else [*waits, gap], default=None)

    def handle_timeout(self, now: float) -> None:
        """Time has passed: repeat reports, give up, or nothing if it is too early."""
        self._reader.handle_timeout(now)
        for pseq, report in list(self._reports.items()):
            if now < report.deadline:
                continue
            if report.repeats_left > 0:
                report.repeats_left -= 1
                report.deadline = now + self._confirm_timeout
                self._outbox += report.raw
            else:
                del self._reports[pseq]
                self._events.append(ReportSilent(report.frame))

    def _take(self, found: FoundFrame) -> TerminalEvent:
        frame, raw = found.frame, found.raw
        if frame.up:
            return damaged(found, "a frame to the master, heard by a terminal")
        if frame.terminal != self.terminal and not frame.group:
            return damaged(found, "a frame to another terminal")
        units = decode(frame)
        if frame.prm:
            return Asked(frame, units, raw)
        report = self._reports.get(frame.pseq)
        if report is None or frame.afn != CONFIRM or not units or units[0].reason is not None:
            return Late(frame, raw)
        told = units[0].value
        if isinstance(told, UnitConfirm) and told.afn != report.frame.afn:
            return Late(frame, raw)
        del self._reports[frame.pseq]
        if units[0].fn == DENY_ALL or (isinstance(told, UnitConfirm) and not told.all_done):
            return ReportDenied(report.frame, frame)
        return ReportConfirmed(report.frame, frame)

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
