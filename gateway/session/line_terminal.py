"""A line to meters as a terminal of our own: to the registry a link on which Q/GDW 376.1 is spoken, towards
the meters plain DL/T 645.

So whatever asks meters through a terminal (AFN10 F1) asks those of a line the same way. Such a terminal keeps
no values and no archive, and its clock is the house's; what it does not know it denies.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import date
from typing import Final, NamedTuple

import structlog

from gateway.clock import Clock, to_device
from gateway.errors import InputError, LinkClosed
from gateway.session.direct_line import READS, DirectLine, LineSettings
from gateway.transports.link import Link, Settle, Taken, settled
from protocols.dlt645 import frame as frame645
from protocols.dlt645.control_messages import RELAY_CONTROL, SECURITY
from protocols.dlt645.fields import is_single
from protocols.errors import RemoteProtocolError
from protocols.q_gdw376 import messages
from protocols.q_gdw376.frame import LARGEST_FRAME, Frame
from protocols.q_gdw376.link import Asked
from protocols.q_gdw376.terminal import Terminal

log = structlog.get_logger()

LINK_TEST, LOGIN, HEARTBEAT = 0x02, 1, 3
COMMAND, CONFIGURATION, PRESENT, FORWARD = 0x05, 0x09, 0x0C, 0x10

STOP_READING, GO_ON_READING = 49, 50
"""Fn of AFN05: it never reads by itself, so both are done as soon as they are asked."""

REFUSED: Final = 1
"""ERR of a request that is not passed on; silence of a meter is denied without one (AFN00 F2)."""

MOST_UNREAD: Final = 65_536
"""Bytes that the house has not taken yet; then it takes none any more."""

SAID_ABOUT_ITSELF: Final = messages.TerminalVersion(
    "LDLT", "LINE", "1.0", date(2026, 1, 1), "0", "645", "0", None
)


class _Passed(NamedTuple):
    """A request that may go to the line."""

    asked: Frame
    port: int
    raw: bytes
    frame: frame645.Frame
    allowed_s: float


class LineTerminal:
    """Satisfies `Link` towards `Registry.accept`, which owns it, and through it the link to the meters.

    `counts` of the line tell what came late or damaged. Once `closed` is set nobody uses it any more.
    """

    def __init__(
        self,
        address: str,
        line: Link,
        clock: Clock,
        settings: LineSettings | None = None,
        *,
        begun: bytes = b"",
    ) -> None:
        """address: area code and terminal address, 8 lower-case hex digits, as the assets have them. begun:
        bytes that `line` has brought already. InputError for another address."""
        if len(address) != 8 or not set("0123456789abcdef").issuperset(address):
            raise InputError(f"terminal {address!r} of a line is not 8 lower-case hex digits 终端地址有误")
        self.address = address
        self.peer = line.peer
        self.source = line.source
        self.certified_as = line.certified_as
        self.only_for = line.only_for
        self.closed = asyncio.Event()
        self._link = line
        self._clock = clock
        self._settings = settings or LineSettings()
        self._line = DirectLine(line, clock, self._settings)
        self.counts = self._line.counts
        self._begun = begun
        self._terminal = Terminal(address, repeats=0)
        self._out = bytearray()
        self._changed = asyncio.Event()
        self._wanted = asyncio.Event()
        self._next: _Passed | None = None
        self._running: asyncio.Task[None] | None = None
        self._ended = False
        self._why = "was closed"

    # Link

    @property
    def waiting(self) -> int:
        """See `Link.waiting`."""
        return len(self._out)

    @property
    def unsent(self) -> int:
        """See `Link.unsent`: on the way to the meters."""
        return self._link.unsent

    async def read(self) -> tuple[bytes, Settle]:
        """See `Link.read`: what the terminal says. The first call begins with its login."""
        if self._running is None and not self._ended:
            self._running = asyncio.create_task(self._run(), name=f"line {self.peer}")
        if self._out:
            await asyncio.sleep(0)
        while not self._out:
            self._alive()
            self._changed.clear()
            await self._changed.wait()
        data = bytes(self._out)
        self._out.clear()
        return data, settled

    async def write(self, data: bytes) -> None:
        """See `Link.write`: requests, and confirms of what it said. Relay control does not pass this way."""
        self._alive()
        for asked in self._heard(data):
            self._answer(asked)

    def write_now(self, data: bytes) -> Taken:
        """See `Link.write_now`: one request to forward a frame. On a line that is not free and quiet nothing
        leaves, and it stands."""
        taken = self._leave_now(data)
        if taken is Taken.PERHAPS:
            self.abort()
        return taken

    async def close(self) -> None:
        """See `Link.close`."""
        await self._link.close()
        self.abort()
        if self._running is not None:
            await asyncio.gather(self._running, return_exceptions=True)
        self.closed.set()

    def abort(self) -> None:
        """See `Link.abort`."""
        self._link.abort()
        self._end("was closed")
        if self._running is not None:
            self._running.cancel()

    # inside

    def _alive(self) -> None:
        if self._ended:
            raise LinkClosed(f"line 线路 {self.peer} {self._why}")

    def _end(self, why: str) -> None:
        if not self._ended:
            self._ended = True
            self._why = why
            log.info("line ended", terminal=self.address, peer=self.peer, why=why, **self.counts)
        self._changed.set()

    async def _run(self) -> None:
        """The line, the heartbeats and the questions, until the line ends."""
        why = "was closed"
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._line.run(self._begun))
                tasks.create_task(self._beat())
                tasks.create_task(self._ask_on_the_line())
        except* LinkClosed as ended:
            why = str(ended.exceptions[0])
        except* Exception as error:
            # one line's error must not end the others
            log.error("a line was given up by an error of ours", terminal=self.address, exc_info=error)
            why = "was given up"
        finally:
            self._link.abort()
            self._end(why)

    async def _beat(self) -> None:
        self._report(messages.encode_unit(LINK_TEST, LOGIN, 0))
        while True:
            await self._clock.sleep(self._settings.heartbeat_s)
            self._terminal.handle_timeout(self._clock.monotonic())
            self._heard(b"")
            self._report(messages.encode_unit(LINK_TEST, HEARTBEAT, 0, self._time()))

    def _report(self, unit: bytes) -> None:
        # without CON: a registry that confirms late must not fill the few reports that may be open
        self._say(self._terminal.send_spontaneous(LINK_TEST, [unit], self._clock.monotonic(), con=False))

    def _time(self) -> messages.Clock:
        now = to_device(self._clock.now()).replace(microsecond=0)
        return messages.Clock(now, now.isoweekday())

    def _say(self, data: bytes) -> None:
        if len(self._out) + len(data) > MOST_UNREAD:
            log.error("nobody takes what a line says", terminal=self.address)
            self.abort()
        elif data and not self._ended:
            self._out += data
            self._changed.set()

    def _heard(self, data: bytes) -> list[Asked]:
        """What is asked of this terminal alone."""
        self._terminal.receive_data(data, self._clock.monotonic())
        asked = []
        while (event := self._terminal.next_event()) is not None:
            if isinstance(event, Asked) and not event.frame.group:
                asked.append(event)
        self._say(self._terminal.data_to_send())
        return asked

    # what is asked

    def _answer(self, asked: Asked) -> None:
        frame, terminal = asked.frame, self._terminal
        fns = [unit.fn for unit in asked.units]
        if frame.afn == FORWARD:
            passed = self._passed(asked, at_once=False)
            if passed is None:
                self._say(terminal.confirm_units(frame, [(0, fn, REFUSED) for fn in fns or [0]]))
                return
            # the house asks one thing at a time: nobody waits for the one before any more
            self._next = passed
            self._wanted.set()
        elif frame.afn == PRESENT and fns == [2]:
            self._say(terminal.answer(frame, [messages.encode_unit(PRESENT, 2, 0, self._time())]))
        elif frame.afn == CONFIGURATION and (units := _configuration(fns)):
            self._say(terminal.answer(frame, units))
        elif frame.afn == COMMAND and fns in ([STOP_READING], [GO_ON_READING]):
            self._say(terminal.confirm(frame))
        else:
            self._say(terminal.deny(frame))

    def _passed(self, asked: Asked, *, at_once: bool) -> _Passed | None:
        """The frame to be said on the line; None, and logged, where it must not be."""
        value = asked.units[0].value if len(asked.units) == 1 else None
        if not isinstance(value, messages.Forward):
            return None
        raw = value.content.lstrip(b"\xfe")
        try:
            frame = frame645.parse(raw)
        except RemoteProtocolError as error:
            log.warning("not said on a line", terminal=self.address, why=error.reason)
            return None
        if (why := _objection(frame, at_once)) is not None:
            log.warning("not said on a line", terminal=self.address, meter=frame.address, why=why)
            return None
        return _Passed(asked.frame, value.port, raw, frame, _seconds(value.message_timeout))

    def _leave_now(self, data: bytes) -> Taken:
        if self._ended:
            return Taken.NOTHING
        heard = self._heard(data)
        passed = self._passed(heard[0], at_once=True) if len(heard) == 1 else None
        if passed is None:
            return Taken.NOTHING
        sent = self._line.ask_now(passed.raw, passed.frame, passed.allowed_s)
        if isinstance(sent, Taken):
            log.warning("a frame could not leave at once", terminal=self.address, why=sent.value)
            return sent
        sent.add_done_callback(lambda done: self._told(passed, done))
        return Taken.WHOLE

    def _told(self, passed: _Passed, done: asyncio.Future[bytes]) -> None:
        if not done.cancelled() and done.exception() is None:
            self._forwarded(passed, done.result())

    async def _ask_on_the_line(self) -> None:
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            passed, self._next = self._next, None
            assert passed is not None
            self._forwarded(passed, await self._line.ask(passed.raw, passed.frame, passed.allowed_s))

    def _forwarded(self, passed: _Passed, answer: bytes) -> None:
        if not answer:
            self._say(self._terminal.deny(passed.asked))
            return
        told = messages.Forwarded(passed.port, answer)
        self._say(self._terminal.answer(passed.asked, [messages.encode_unit(FORWARD, 1, 0, told)]))


def _objection(frame: frame645.Frame, at_once: bool) -> str | None:
    """Why a frame is not said on a line. None: it may be."""
    if frame.from_meter:
        return "it is an answer"
    if frame.function in READS:
        return None
    if frame.function not in (RELAY_CONTROL, SECURITY):
        return f"function {frame.function:02X} is not passed on"
    if not is_single(frame.address):
        return f"function {frame.function:02X} goes to one meter only"
    if frame.function == RELAY_CONTROL and not at_once:
        return "relay control that may wait"
    return None


def _configuration(fns: Sequence[int]) -> list[bytes]:
    """AFN09: F1, that it is a line of ours; F2, that only the protocol bounds its frames."""
    ports = messages.TerminalPorts(0, 0, 0, 0, 0, LARGEST_FRAME, LARGEST_FRAME)
    values = {1: SAID_ABOUT_ITSELF, 2: ports}
    return [messages.encode_unit(CONFIGURATION, fn, 0, values[fn]) for fn in fns if fn in values]


def _seconds(message_timeout: int) -> float:
    """The message timeout byte of AFN10 F1."""
    return (message_timeout & 0x7F) * (1.0 if message_timeout & 0x80 else 0.01)
