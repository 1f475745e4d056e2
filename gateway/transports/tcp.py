"""One TCP connection as a link that no peer can make grow or stall.

Built on asyncio's buffered protocol: bytes go from the socket into one scratch buffer that all links share
and from there into a small buffer of their own, so an idle link holds next to nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import socket
import struct
import termios
from array import array
from dataclasses import dataclass
from typing import Final, Protocol, cast

from gateway.errors import LinkClosed
from gateway.transports.channel import spelled
from gateway.transports.link import Certificate, Settle, Taken, settled

CHUNK: Final = 2048
"""Most bytes that one peer has handled in one turn of the loop: the worst rubbish of that size costs the
others a few milliseconds. Ordinary answers are shorter."""

WRITE_ROOM: Final = 16_384
"""Bytes held for a peer that does not take them; then the writer waits, for the write deadline at most."""

KEEPALIVE_IDLE_S: Final = 120
KEEPALIVE_INTERVAL_S: Final = 30
KEEPALIVE_PROBES: Final = 4
"""A dead path without traffic is found in four minutes, even where heartbeats are 15 minutes apart; more
often would cost mobile traffic."""

SIOCOUTQNSD: Final = 0x894B
"""Asks Linux how many bytes of a socket have not been sent at all, the peer's window being shut or the path
dead; those that were and wait for their acknowledgement are not counted."""

_scratch = memoryview(bytearray(CHUNK))
"""Shared by all links: asyncio's selector loop fills it and calls `buffer_updated` in the same step."""


@dataclass(frozen=True, slots=True)
class TcpLimits:
    """What peers may take of us."""

    connections: int = 20_000
    connections_per_host: int = 20_000
    """as many as in all by default: behind a mobile operator's NAT all terminals share few addresses"""
    read_buffer_bytes: int = 65_536
    """held unread for one peer; then its window closes"""
    write_deadline_s: float = 20.0


class Owner(Protocol):
    """Who made a link; told once of its beginning, and then once of its end."""

    def made(self, link: TcpLink) -> None: ...

    def heard(self, link: TcpLink) -> None:
        """A link that is `at_door` has said as much as it was to be heard from, or says nothing more."""
        ...

    def lost(self, link: TcpLink) -> None: ...


class TcpLink(asyncio.BufferedProtocol):
    """One connection, accepted or dialled; satisfies `Link`."""

    __slots__ = (
        "_buffer",
        "_drained",
        "_ended",
        "_gone",
        "_limits",
        "_loop",
        "_owner",
        "_paused",
        "_reader",
        "_transport",
        "_waking",
        "_writable",
        "at_door",
        "peer",
        "source",
    )

    certified_as: Certificate | None = None
    only_for: frozenset[str] | None = None

    def __init__(self, owner: Owner, limits: TcpLimits) -> None:
        self._owner = owner
        self._limits = limits
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._reader: asyncio.Future[None] | None = None
        self._drained: asyncio.Future[None] | None = None
        self._gone: asyncio.Future[None] | None = None
        self._ended = False
        self._paused = False
        self._writable = True
        self._waking = 1
        self.at_door = False
        """nobody reads it yet: its owner hears of what it says"""
        self.peer = ""
        self.source = ""

    # what asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport = cast(asyncio.Transport, transport)  # uvloop's is one without saying so
        self._transport = transport
        name = transport.get_extra_info("peername")
        if not name:  # gone before it was taken
            transport.abort()
            return
        self.source = str(name[0])
        self.peer = spelled(self.source, name[1])
        transport.set_write_buffer_limits(high=WRITE_ROOM)
        self._owner.made(self)
        if not self.at_door:
            self._tend()

    def get_buffer(self, sizehint: int) -> memoryview:
        return _scratch

    def buffer_updated(self, nbytes: int) -> None:
        self._buffer += _scratch[:nbytes]
        if len(self._buffer) >= self._limits.read_buffer_bytes and not self._paused and self._transport:
            self._paused = True
            self._transport.pause_reading()
        if self.at_door:
            self._owner.heard(self)
        else:
            self._wake_reader()

    def eof_received(self) -> bool:
        self._ended = True
        if self.at_door:
            self._owner.heard(self)
        self._wake_reader()
        return True  # what it asked before may still be answered; the owner closes

    def connection_lost(self, exc: Exception | None) -> None:
        self._ended = True
        self._transport = None
        self._wake_reader()
        for waiting in (self._drained, self._gone):
            if waiting is not None and not waiting.done():
                waiting.set_result(None)
        self._owner.lost(self)

    def pause_writing(self) -> None:
        self._writable = False

    def resume_writing(self) -> None:
        self._writable = True
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)

    def _wake_reader(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

    # what the listener calls while the peer stands at its door

    def stand(self, count: int) -> None:
        """Nobody reads this peer yet. Its owner hears of it when it has said `count` bytes more, or nothing
        more: until then the kernel keeps what comes, and this process is not woken. At least 1."""
        self.at_door = True
        self._wake_at(count)

    def enter(self) -> None:
        """What it says is read from now on, and what it has said, first."""
        self.at_door = False
        self._wake_at(1)
        self._tend()

    def last_words(self) -> bytes:
        """What it has said and nobody will read, CHUNK bytes at most; only just before `abort`."""
        sock = self._socket()
        if sock is not None:
            with contextlib.suppress(OSError):
                self._buffer += os.read(sock.fileno(), CHUNK)
        return bytes(self._buffer[:CHUNK])

    def _wake_at(self, count: int) -> None:
        sock = self._socket()
        if sock is not None and count != self._waking:
            with contextlib.suppress(OSError):  # where the kernel cannot, it wakes us at each byte
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, count)
            self._waking = count

    def _tend(self) -> None:
        """Have the kernel find a dead peer: an idle one by keepalive, and one that does not acknowledge."""
        sock = self._socket()
        if sock is None:
            return
        with contextlib.suppress(OSError):  # the peer may be gone by now; then the loop says so at once
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_IDLE_S)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, KEEPALIVE_INTERVAL_S)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, KEEPALIVE_PROBES)
            milliseconds = int(self._limits.write_deadline_s * 1000)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, milliseconds)

    def _socket(self) -> socket.socket | None:
        """None where the link is gone."""
        sock = self._transport.get_extra_info("socket") if self._transport is not None else None
        return None if sock is None or sock.fileno() < 0 else cast(socket.socket, sock)

    # what the house calls

    @property
    def unread(self) -> bytearray:
        """What has come and was not read yet; not to be changed."""
        return self._buffer

    @property
    def ended(self) -> bool:
        """The peer says nothing more."""
        return self._ended

    @property
    def waiting(self) -> int:
        """Bytes that have come and were not read yet, those that the kernel still holds included."""
        sock = self._socket()
        if sock is None:
            return len(self._buffer)
        unread = array("i", [0])
        fcntl.ioctl(sock.fileno(), termios.FIONREAD, unread)
        return len(self._buffer) + unread[0]

    async def read(self) -> tuple[bytes, Settle]:
        """See `Link.read`: at most CHUNK bytes a call."""
        buffer = self._buffer
        if buffer:
            await asyncio.sleep(0)
        while not buffer:
            if self._ended:
                raise LinkClosed(f"{self.peer} has closed the link")
            self._reader = self._loop.create_future()
            try:
                await self._reader
            finally:
                self._reader = None
        data = bytes(buffer[:CHUNK])
        del buffer[:CHUNK]
        if self._paused and len(buffer) < self._limits.read_buffer_bytes // 2 and self._transport is not None:
            self._paused = False
            self._transport.resume_reading()
        return data, settled

    async def write(self, data: bytes) -> None:
        """See `Link.write`."""
        if self._transport is None or self._transport.is_closing():
            raise LinkClosed(f"{self.peer} has closed the link")
        self._transport.write(data)
        if self._writable:
            return
        if self._drained is None or self._drained.done():
            self._drained = self._loop.create_future()
        try:
            async with asyncio.timeout(self._limits.write_deadline_s):
                await asyncio.shield(self._drained)
        except TimeoutError:
            self.abort()
            raise LinkClosed(f"{self.peer} took no bytes for {self._limits.write_deadline_s:g} s") from None
        if self._transport is None:
            raise LinkClosed(f"{self.peer} has closed the link")

    @property
    def unsent(self) -> int:
        """See `Link.unsent`."""
        if self._transport is None:
            return 0
        return self._transport.get_write_buffer_size() + self._unsent_by_kernel()

    def _unsent_by_kernel(self) -> int:
        sock = self._socket()
        if sock is None:
            return 0
        unsent = array("i", [0])
        fcntl.ioctl(sock.fileno(), SIOCOUTQNSD, unsent)
        return unsent[0]

    def write_now(self, data: bytes) -> Taken:
        """See `Link.write_now`: straight to the socket, past the loop's buffer, which would send it later."""
        sock = self._socket()
        if sock is None or self._ended or self.unsent:
            self._reset()
            return Taken.NOTHING
        try:
            taken = os.write(sock.fileno(), data)
        except OSError:
            taken = 0
        if taken == len(data) and not self._unsent_by_kernel():
            return Taken.WHOLE
        self._reset()
        return Taken.PERHAPS if taken else Taken.NOTHING

    def _reset(self) -> None:
        """End at once; what the kernel still holds is dropped, too."""
        sock = self._socket()
        if sock is not None:
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.abort()

    async def close(self) -> None:
        """See `Link.close`."""
        if self._transport is None:
            return
        self._transport.close()
        if self._gone is None:
            self._gone = self._loop.create_future()
        try:
            async with asyncio.timeout(self._limits.write_deadline_s):
                await asyncio.shield(self._gone)
        except TimeoutError:
            self.abort()

    def abort(self) -> None:
        """See `Link.abort`."""
        self._ended = True
        if self._transport is not None:
            self._transport.abort()
        self._wake_reader()
