"""Serial lines: a port of this machine, or a pseudo-terminal whose other end the gateway opens."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pty
import select
import termios
import tty
from collections.abc import Callable
from typing import Final

import serial

from simulator.channel import Channel
from simulator.wires import End, Told

LOOK_S: Final = 0.02
"""How often it is looked whether somebody has opened the pseudo-terminal: the kernel has no event for it."""

SETTLED_S: Final = 0.2
"""Real seconds after that until we speak: whoever opens a port sets it up and throws away what it holds."""

MOST_UNSENT: Final = 65_536
"""Bytes that nobody reads; a line cannot hold more, and what comes then is lost."""

_CHUNK: Final = 4096
_SPEEDS: Final = {
    getattr(termios, f"B{speed}"): speed
    for speed in (300, 600, 1200, 2400, 4800, 9600, 19_200, 38_400, 57_600, 115_200)
}


def speed_of(descriptor: int) -> int | None:
    """bit/s at which the line is set, of a pseudo-terminal by its other end; None for an uncommon one."""
    try:
        return _SPEEDS.get(termios.tcgetattr(descriptor)[5])
    except (OSError, termios.error):
        return None


class _FileLink:
    """What is read from and written to a descriptor. ended: called once when it is over, whoever ended it."""

    def __init__(self, descriptor: int, end: End, ended: Callable[[], None]) -> None:
        self._descriptor = descriptor
        self._end = end
        self._ended = ended
        self._unsent = bytearray()
        self._closing = self._over = False
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(descriptor, self._readable)

    @property
    def speed(self) -> int | None:
        return speed_of(self._descriptor)

    def _readable(self) -> None:
        try:
            data = os.read(self._descriptor, _CHUNK)
        except BlockingIOError:
            return
        except OSError:  # EIO: nobody has the other end open any more
            data = b""
        if data:
            self._end.received(self, data)
        else:
            self.abort()

    def write(self, data: bytes) -> None:
        if self._over or len(self._unsent) + len(data) > MOST_UNSENT:
            return
        self._unsent += data
        if len(self._unsent) == len(data):
            self._pump()

    def _pump(self) -> None:
        try:
            del self._unsent[: os.write(self._descriptor, self._unsent)]
        except BlockingIOError:
            pass
        except OSError:
            self.abort()
            return
        if self._unsent:
            self._loop.add_writer(self._descriptor, self._pump)
            return
        self._loop.remove_writer(self._descriptor)
        if self._closing:
            self.abort()

    def close(self) -> None:
        self._closing = True
        if not self._unsent:
            self.abort()

    def cut(self) -> None:
        self.close()

    def abort(self) -> None:
        if self._over:
            return
        self._over = True
        self._unsent.clear()
        self._loop.remove_reader(self._descriptor)
        self._loop.remove_writer(self._descriptor)
        self._ended()
        self._end.link_down(self)


class SerialPort:
    """A port of this machine, opened for us alone."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._port: serial.Serial | None = None
        self._link: _FileLink | None = None

    async def open(self, end: End) -> None:
        """See Wire."""
        if self._link is not None:
            self._link.abort()
        channel = self._channel
        self._port = await asyncio.to_thread(
            serial.Serial,
            channel.device,
            channel.baud,
            bytesize=channel.bits,
            parity=channel.parity,
            stopbits=channel.stop,
            timeout=0,
            exclusive=True,
        )
        os.set_blocking(self._port.fileno(), False)
        self._link = _FileLink(self._port.fileno(), end, self._ended)
        end.link_up(self._link)

    def _ended(self) -> None:
        self._link = None
        if self._port is not None:
            self._port.close()

    async def close(self) -> None:
        """See Wire."""
        if self._link is not None:
            self._link.abort()


class PseudoTerminal:
    """Made at the first `open`, and the same to the end; there is a link while somebody has it open."""

    def __init__(self, told: Told) -> None:
        self._told = told
        self._descriptor: int | None = None
        self._link: _FileLink | None = None

    async def open(self, end: End) -> None:
        """See Wire."""
        if self._descriptor is None:
            self._descriptor, theirs = pty.openpty()
            tty.setraw(theirs)
            self._told(Channel("pty", device=os.ttyname(theirs), parity="N"))
            os.close(theirs)
            os.set_blocking(self._descriptor, False)
        if self._link is not None:
            self._link.abort()
        while not self._is_open(self._descriptor):  # noqa: ASYNC110  # the kernel has no event for it
            await asyncio.sleep(LOOK_S)
        await asyncio.sleep(SETTLED_S)
        self._link = _FileLink(self._descriptor, end, self._ended)
        end.link_up(self._link)

    @staticmethod
    def _is_open(descriptor: int) -> bool:
        looking = select.poll()
        looking.register(descriptor, select.POLLIN)
        return not any(event & select.POLLHUP for _, event in looking.poll(0))

    def _ended(self) -> None:
        self._link = None

    async def close(self) -> None:
        """See Wire."""
        if self._link is not None:
            self._link.abort()
        if self._descriptor is not None:
            with contextlib.suppress(OSError):
                os.close(self._descriptor)
            self._descriptor = None
