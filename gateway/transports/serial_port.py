"""A serial port of this machine: RS-485 and infrared adapters, at 2400 bit/s 8E1 unless told.

pyserial sets the port up; pyserial-asyncio-fast reads and closes it. What leaves is written here, past both:
the former stops the loop while a port takes nothing, the latter spins for ever once one has taken a part.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import os
import termios
from array import array
from collections.abc import Callable
from typing import Final

import serial
import structlog
from serial_asyncio_fast import SerialTransport, connection_for_serial

from gateway.errors import LinkClosed
from gateway.transports.channel import SPEEDS, SerialChannel
from gateway.transports.echo import EchoFilter
from gateway.transports.link import Certificate, Settle, Taken, settled

log = structlog.get_logger()

CHUNK: Final = 2048
"""As for TCP: most bytes that one read gives."""

READ_ROOM: Final = 65_536
"""Held unread; then the port is left alone, and the kernel's few thousand bytes fill up."""

WRITE_DEADLINE_S: Final = 20.0
"""Beyond the time that the bytes take on the line."""

LOOK_S: Final = 0.01
"""How often it is looked whether the last bit has left: the kernel tells nobody."""


class _Port(serial.Serial):
    """pyserial's own read asks select(), which fails for descriptors above 1023."""

    lost: Callable[[], None] | None = None
    """called when a read fails, while the descriptor is still open"""

    def read(self, size: int = 1, /) -> bytes:
        try:
            data = os.read(self.fileno(), size)
        except BlockingIOError:
            return b""
        except OSError as error:
            raise self._gone(error.errno, error.strerror) from error
        if not data:
            raise self._gone(errno.EIO, "unplugged")
        return data

    def _gone(self, number: int | None, why: str | None) -> serial.SerialException:
        if self.lost is not None:
            self.lost()
        return serial.SerialException(number, why)


class SerialLink(asyncio.Protocol):
    """An open port; satisfies `Link`. Made by `connect`."""

    certified_as: Certificate | None = None
    only_for: frozenset[str] | None = None

    def __init__(self, channel: SerialChannel, write_deadline_s: float) -> None:
        self.channel = channel
        self.peer = self.source = channel.device
        self._baud = channel.baud
        self._deadline_s = write_deadline_s
        self._loop = asyncio.get_running_loop()
        self._transport: SerialTransport | None = None
        self._port: serial.Serial | None = None
        self._echo = EchoFilter(channel.echo)
        self._echo_timer: asyncio.TimerHandle | None = None
        self._buffer = bytearray()
        self._backlog = bytearray()
        self._paused = False
        self._ended = False
        self._why = "was closed"
        self._reader: asyncio.Future[None] | None = None
        self._drained: asyncio.Future[None] | None = None
        self._gone: asyncio.Future[None] = self._loop.create_future()

    # what the transport calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, SerialTransport)
        self._transport = transport
        self._port = transport.serial
        if isinstance(self._port, _Port):
            self._port.lost = lambda: self._end("was unplugged, or failed")

    def data_received(self, data: bytes) -> None:
        self._come(self._echo.received(data, self._loop.time()))

    def connection_lost(self, exc: Exception | None) -> None:
        if exc is not None:
            log.warning("serial port lost", port=self.peer, why=str(exc))
        self._end("was closed")
        if not self._gone.done():
            self._gone.set_result(None)

    def _come(self, data: bytes) -> None:
        self._buffer += data
        if self._echo_timer is not None:
            self._echo_timer.cancel()
            self._echo_timer = None
        if (deadline := self._echo.deadline) is not None:
            self._echo_timer = self._loop.call_at(deadline, self._echo_is_late)
        if len(self._buffer) >= READ_ROOM and not self._paused and self._transport is not None:
            self._paused = True
            self._transport.pause_reading()
        if data:
            self._wake(self._reader)

    def _echo_is_late(self) -> None:
        self._echo_timer = None
        if not self._ended:
            self._come(self._echo.expired(self._loop.time()))

    def _end(self, why: str) -> None:
        """Nothing more comes and nothing leaves; what has come may still be read."""
        if self._ended:
            return
        self._ended = True
        self._why = why
        if self._echo_timer is not None:
            self._echo_timer.cancel()
        if self._backlog and self._port is not None and self._port.fd is not None:
            self._loop.remove_writer(self._port.fd)
        self._backlog.clear()
        self._wake(self._reader)
        self._wake(self._drained)

    def _wake(self, waiting: asyncio.Future[None] | None) -> None:
        if waiting is not None and not waiting.done():
            waiting.set_result(None)

    # what the house calls

    @property
    def baud(self) -> int:
        """bit/s, as it is set now."""
        return self._baud

    @property
    def waiting(self) -> int:
        """Bytes that have come and were not read yet, those that the kernel still holds included."""
        return len(self._buffer) + self._asked(termios.FIONREAD)

    def _asked(self, question: int) -> int:
        """How many bytes the kernel holds; 0 where the port is gone."""
        answer = array("i", [0])
        if self._port is not None and not self._ended and self._port.fd is not None:
            with contextlib.suppress(OSError):
                fcntl.ioctl(self._port.fd, question, answer)
        return answer[0]

    async def read(self) -> tuple[bytes, Settle]:
        """See `Link.read`: at most CHUNK bytes a call, as they come; gaps are for the caller to judge."""
        buffer = self._buffer
        if buffer:
            await asyncio.sleep(0)
        while not buffer:
            self._alive()
            self._reader = self._loop.create_future()
            try:
                await self._reader
            finally:
                self._reader = None
        data = bytes(buffer[:CHUNK])
        del buffer[:CHUNK]
        if self._paused and len(buffer) < READ_ROOM // 2 and self._transport is not None and not self._ended:
            self._paused = False
            self._transport.resume_reading()
        return data, settled

    def _alive(self) -> serial.Serial:
        """The port, open. Raises LinkClosed."""
        if self._ended or self._port is None or self._transport is None or self._transport.is_closing():
            raise LinkClosed(f"serial port 串口 {self.peer} {self._why}")
        return self._port

    async def write(self, data: bytes) -> None:
        """See `Link.write`. Returns when the driver has them all; `unsent` tells what it still holds."""
        self._alive()
        self._echo.written(data, self._loop.time(), self._line_s(self.unsent + len(data)))
        self._backlog += data
        if len(self._backlog) == len(data):
            self._pump()
        if not self._backlog:
            return
        if self._drained is None or self._drained.done():
            self._drained = self._loop.create_future()
        deadline_s = self._deadline_s + self._line_s(self.unsent)
        try:
            async with asyncio.timeout(deadline_s):
                await asyncio.shield(self._drained)
        except TimeoutError:
            self.abort()
            raise LinkClosed(f"serial port 串口 {self.peer} took no bytes for {deadline_s:.0f} s") from None
        self._alive()

    def _pump(self) -> None:
        """Give the driver what it takes, and come again when it takes more."""
        if self._ended or self._port is None or self._port.fd is None:
            return
        try:
            taken = os.write(self._port.fd, self._backlog)
        except BlockingIOError:
            taken = 0
        except OSError as error:
            log.warning("serial port lost", port=self.peer, why=str(error))
            self.abort("was unplugged, or failed")
            return
        del self._backlog[:taken]
        if self._backlog:
            self._loop.add_writer(self._port.fd, self._pump)
        else:
            self._loop.remove_writer(self._port.fd)
            self._wake(self._drained)

    def _line_s(self, count: int) -> float:
        """Seconds that so many bytes take on the line."""
        channel = self.channel
        bits = 1 + channel.bits + (channel.parity != "N") + channel.stop
        return count * bits / self._baud

    @property
    def unsent(self) -> int:
        """See `Link.unsent`: what driver and adapter still hold included, where they say so."""
        return len(self._backlog) + self._asked(termios.TIOCOUTQ)

    def write_now(self, data: bytes) -> Taken:
        """See `Link.write_now`. WHOLE: the driver has them, nothing stands before them, and they leave at the
        speed of the line."""
        if self._ended or self._port is None or self._port.fd is None or self.unsent:
            self.abort()
            return Taken.NOTHING
        self._echo.written(data, self._loop.time(), self._line_s(len(data)))
        try:
            taken = os.write(self._port.fd, data)
        except OSError:
            taken = 0
        if taken == len(data):
            return Taken.WHOLE
        self.abort()
        return Taken.PERHAPS if taken else Taken.NOTHING

    async def set_speed(self, baud: int) -> None:
        """Go to `baud` bit/s (17H) once what was written has left; a port opened again has its old speed.

        ValueError for a speed that there is not; LinkClosed where the port fails, or what was written does
        not leave within the write deadline (then the port is closed).
        """
        if baud not in SPEEDS:
            raise ValueError(f"{baud} bit/s is none of {', '.join(map(str, SPEEDS))}")
        await self._left()
        port = self._alive()
        try:
            port.baudrate = baud
            set_now = termios.tcgetattr(port.fileno())[5]
        except (OSError, termios.error) as error:
            self.abort("was unplugged, or failed")
            raise LinkClosed(f"serial port 串口 {self.peer} cannot go to {baud} bit/s: {error}") from error
        if set_now != getattr(termios, f"B{baud}"):
            self.abort()
            raise LinkClosed(f"serial port 串口 {self.peer} does not do {baud} bit/s 不支持该速率")
        self._baud = baud

    async def _left(self) -> None:
        """Until the last byte has left the driver."""
        deadline_s = self._deadline_s + self._line_s(self.unsent)
        try:
            async with asyncio.timeout(deadline_s):
                while self.unsent:  # noqa: ASYNC110  # the kernel has no event for it
                    await asyncio.sleep(LOOK_S)
        except TimeoutError:
            self.abort()
            raise LinkClosed(f"serial port 串口 {self.peer} sent nothing for {deadline_s:.0f} s") from None

    async def close(self) -> None:
        """See `Link.close`."""
        with contextlib.suppress(LinkClosed):
            await self._left()
        self.abort()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._deadline_s):
                await asyncio.shield(self._gone)

    def abort(self, why: str = "was closed") -> None:
        """See `Link.abort`."""
        self._end(why)
        if self._port is None or self._port.fd is None or self._transport is None:
            return
        if self._transport.is_closing():
            return
        with contextlib.suppress(OSError, termios.error):
            termios.tcflush(
                self._port.fd, termios.TCOFLUSH
            )  # else its close waits for a line that takes nothing
            fcntl.ioctl(self._port.fd, termios.TIOCNXCL)
        self._transport.abort()


async def connect(channel: SerialChannel, *, write_deadline_s: float = WRITE_DEADLINE_S) -> SerialLink:
    """Open the port for us alone. Raises LinkClosed that says what is wrong with it."""
    loop = asyncio.get_running_loop()
    opening = loop.run_in_executor(None, _open, channel)  # a bad adapter keeps its caller for seconds
    try:
        port = await asyncio.shield(opening)
    except asyncio.CancelledError:
        opening.add_done_callback(_let_go)
        raise
    except (OSError, ValueError, termios.error) as error:
        raise LinkClosed(_said(channel, error)) from error
    link = SerialLink(channel, write_deadline_s)
    transport, _ = await connection_for_serial(loop, lambda: link, port)
    link.connection_made(transport)  # it says so itself, one turn later
    return link


def _open(channel: SerialChannel) -> serial.Serial:
    port = _Port(
        channel.device,
        channel.baud,
        bytesize=channel.bits,
        parity=channel.parity,
        stopbits=channel.stop,
        exclusive=True,
    )
    try:
        fcntl.ioctl(port.fileno(), termios.TIOCEXCL)  # for programs that do not ask for the lock
        # That a port takes a part of its settings is a success for the C library; the second time, with
        # nothing but the rest to be changed, it is an error.
        port.timeout = 0
    except BaseException:
        _free(port)
        raise
    return port


def _let_go(opening: asyncio.Future[serial.Serial]) -> None:
    if not opening.cancelled() and opening.exception() is None:
        _free(opening.result())


def _free(port: serial.Serial) -> None:
    """For others too: a terminal that somebody else keeps open stays ours alone beyond our own close."""
    with contextlib.suppress(OSError):
        fcntl.ioctl(port.fileno(), termios.TIOCNXCL)
    port.close()


def _said(channel: SerialChannel, error: BaseException) -> str:
    cause = error.__context__ if isinstance(error.__context__, termios.error) else error
    match cause.errno if isinstance(cause, OSError) else next(iter(cause.args), None):
        case errno.ENOENT | errno.ENODEV | errno.ENXIO:
            why = "is not there; plug it in 未接入"
        case errno.EACCES | errno.EPERM:
            why = "may not be opened; add this user to the port's group 没有权限"
        case errno.EAGAIN | errno.EBUSY:
            why = "is used by another program; end that 被其他程序占用"
        case errno.EINVAL:
            why = f"cannot do {channel.baud} bit/s {channel.bits}{channel.parity}{channel.stop} 不支持该参数"
        case errno.ENOTTY:
            why = "is no serial port 不是串口"
        case _:
            why = f"cannot be opened: {error}"
    return f"serial port 串口 {channel.device} {why}"
