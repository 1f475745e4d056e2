"""One peer's datagrams as a link; see `udp` for the socket beneath."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass
from typing import Any, Final, Protocol

from gateway.errors import LinkClosed
from gateway.transports.channel import spelled
from gateway.transports.link import Certificate, Settle, Taken, settled

CHUNK: Final = 2048
"""As for TCP: most bytes that one read gives."""

Address = tuple[Any, ...]
"""As the socket gives it: (host, port), and two numbers more for IPv6."""


@dataclass(frozen=True, slots=True)
class UdpLimits:
    """What peers may take of us."""

    peers: int = 20_000
    """addresses that we have answered; one more, and the one that was silent longest is dropped"""
    newcomers: int = 1_000
    """addresses that we have not answered yet; likewise"""
    idle_s: float = 3600.0
    """an address that is silent so long is forgotten; longer than the session's own limit"""
    queue_bytes: int = 65_536
    queue_datagrams: int = 64
    """held unread for one peer; one more, and its oldest are dropped"""
    write_deadline_s: float = 20.0


class Owner(Protocol):
    """Who has the socket, as one link sees it."""

    def send(self, data: bytes, address: Address | None) -> None:
        """BlockingIOError where there is no room; OSError where it cannot go."""

    async def room(self) -> None:
        """Wait until there may be some."""

    def answered(self, link: UdpLink) -> None: ...

    def dropped(self) -> None: ...

    def lost(self, link: UdpLink) -> None: ...


class UdpLink:
    """One peer's datagrams; satisfies `Link`. The link is ours alone: the peer does not learn of its end."""

    certified_as: Certificate | None = None
    only_for: frozenset[str] | None = None

    def __init__(
        self, owner: Owner, host: str, port: int, address: Address | None, limits: UdpLimits
    ) -> None:
        self.peer = spelled(host, port)
        self.source = host
        self.heard = 0.0
        """when, by the loop's time"""
        self.address = address
        self._owner = owner
        self._limits = limits
        self._queue: deque[bytes] = deque()
        self._held = 0
        self._unsent = 0
        self._ended = False
        self._why = "was let go"
        self._reader: asyncio.Future[None] | None = None
        self._order = asyncio.Lock()

    def arrived(self, data: bytes) -> None:
        """A datagram of this peer has come."""
        if self._ended or not data:
            return
        if len(data) > self._limits.queue_bytes:
            self._owner.dropped()
            return
        self._queue.append(data)
        self._held += len(data)
        while self._held > self._limits.queue_bytes or len(self._queue) > self._limits.queue_datagrams:
            self._held -= len(self._queue.popleft())
            self._owner.dropped()
        self._wake_reader()

    def end(self, why: str) -> None:
        """Nothing more comes; what has come may still be read."""
        if self._ended:
            return
        self._ended = True
        self._why = why
        self._wake_reader()
        self._owner.lost(self)

    def _wake_reader(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

    # what the house calls

    @property
    def waiting(self) -> int:
        """See `Link.waiting`; what the kernel holds is not counted, for it holds that of all peers."""
        return self._held

    async def read(self) -> tuple[bytes, Settle]:
        """See `Link.read`: one datagram, a long one in chunks."""
        if self._queue:
            await asyncio.sleep(0)
        while not self._queue:
            if self._ended:
                raise LinkClosed(f"{self.peer} {self._why}")
            self._reader = asyncio.get_running_loop().create_future()
            try:
                await self._reader
            finally:
                self._reader = None
        data = self._queue.popleft()
        if len(data) > CHUNK:
            self._queue.appendleft(data[CHUNK:])
            data = data[:CHUNK]
        self._held -= len(data)
        return data, settled

    async def write(self, data: bytes) -> None:
        """See `Link.write`: as one datagram, 65,507 bytes at most."""
        self._unsent += len(data)
        try:
            async with asyncio.timeout(self._limits.write_deadline_s), self._order:
                await self._send(data)
        except TimeoutError:
            self.end(f"took no bytes for {self._limits.write_deadline_s:g} s")
            raise LinkClosed(f"{self.peer} {self._why}") from None
        except OSError as error:
            self.end(f"cannot be reached: {error.strerror or error}")
            raise LinkClosed(f"{self.peer} {self._why}") from error
        finally:
            self._unsent -= len(data)

    async def _send(self, data: bytes) -> None:
        while not self._ended:
            try:
                self._owner.send(data, self.address)
            except BlockingIOError:
                await self._owner.room()
            else:
                self._owner.answered(self)
                return
        raise LinkClosed(f"{self.peer} {self._why}")

    @property
    def unsent(self) -> int:
        """See `Link.unsent`: a datagram that the kernel has taken has left."""
        return self._unsent

    def write_now(self, data: bytes) -> Taken:
        """See `Link.write_now`. The kernel takes a datagram whole or not at all, and sends or loses it: WHOLE
        promises that it does not come late by our doing, not that it comes."""
        if self._ended or self._unsent:
            self.abort()
            return Taken.NOTHING
        try:
            self._owner.send(data, self.address)
        except OSError:
            self.abort()
            return Taken.NOTHING
        self._owner.answered(self)
        return Taken.WHOLE

    async def close(self) -> None:
        """See `Link.close`."""
        self.abort()

    def abort(self) -> None:
        """See `Link.abort`."""
        self.end("was let go")
