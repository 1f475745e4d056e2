"""UDP with the same framing: one socket, and a link for each address that sends to it.

A datagram is bytes, no more: it may be lost, doubled or overtaken, and a source address can be forged. So
addresses that were never answered (whoever is behind one may not exist) have little room of their own and
push out nobody but each other.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Final

import structlog

from gateway.errors import LinkClosed
from gateway.metrics import Metrics
from gateway.transports.channel import spelled
from gateway.transports.udp_link import Address, UdpLimits, UdpLink

log = structlog.get_logger()

LONGEST: Final = 65_535
AT_ONCE: Final = 32
"""Datagrams taken in one turn of the loop."""

KERNEL_ROOM: Final = 4 << 20
"""Asked of the kernel for what comes while we are busy; it gives what net.core.rmem_max allows."""

_scratch = memoryview(bytearray(LONGEST))


class _Socket:
    """A bound or connected socket in the loop's hands. take: gets each datagram and where it came from."""

    def __init__(
        self, sock: socket.socket, take: Callable[[bytes, Address], None], failed: Callable[[OSError], None]
    ) -> None:
        self._sock = sock
        self._take = take
        self._failed = failed
        self._loop = asyncio.get_running_loop()
        self._room: asyncio.Future[None] | None = None
        self._loop.add_reader(sock.fileno(), self._readable)

    def _readable(self) -> None:
        for _ in range(AT_ONCE):
            if self._sock.fileno() < 0:
                return
            try:
                length, address = self._sock.recvfrom_into(_scratch)
            except BlockingIOError:
                return
            except OSError as error:
                self._failed(error)
                return
            self._take(bytes(_scratch[:length]), address)

    def send(self, data: bytes, address: Address | None) -> None:
        if address is None:
            self._sock.send(data)
        else:
            self._sock.sendto(data, address)

    async def room(self) -> None:
        if self._room is None:
            self._room = self._loop.create_future()
            self._loop.add_writer(self._sock.fileno(), self._writable)
        await asyncio.shield(self._room)

    def _writable(self) -> None:
        self._loop.remove_writer(self._sock.fileno())
        if self._room is not None and not self._room.done():
            self._room.set_result(None)
        self._room = None

    def close(self) -> None:
        if self._sock.fileno() < 0:
            return
        self._loop.remove_reader(self._sock.fileno())
        self._writable()
        self._sock.close()


class Listener:
    """A bound socket and the links of those who send to it. Made by `listen`; `close` ends both."""

    def __init__(
        self,
        sock: socket.socket,
        on_link: Callable[[UdpLink], Awaitable[None]],
        limits: UdpLimits,
        metrics: Metrics | None,
    ) -> None:
        self.host, self.port = sock.getsockname()[:2]
        self._on_link = on_link
        self._limits = limits
        self._metrics = metrics
        self._loop = asyncio.get_running_loop()
        self._peers: OrderedDict[Address, UdpLink] = OrderedDict()
        self._newcomers: OrderedDict[Address, UdpLink] = OrderedDict()
        """both in the order of who was heard last; a link stands in one of them"""
        self._tasks: set[asyncio.Task[None]] = set()
        self._socket = _Socket(sock, self._take, self._failed)
        self._closed = False
        self._sweeping = self._loop.call_later(limits.idle_s / 4, self._sweep)

    @property
    def connections(self) -> int:
        return len(self._peers) + len(self._newcomers)

    # what comes

    def _take(self, data: bytes, address: Address) -> None:
        if not data:
            return
        group = self._peers if address in self._peers else self._newcomers
        link = group.get(address)
        if link is None:
            if len(self._tasks) >= self._limits.peers + 2 * self._limits.newcomers:
                self.dropped()  # those that were pushed out have not all come to their end yet
                return
            link = self._welcome(address)
        group.move_to_end(address)
        link.heard = self._loop.time()
        link.arrived(data)

    def _welcome(self, address: Address) -> UdpLink:
        self._make_room(self._newcomers, self._limits.newcomers)
        link = UdpLink(self, str(address[0]), int(address[1]), address, self._limits)
        self._newcomers[address] = link
        if self._metrics is not None:
            self._metrics.connections.inc()
        task = self._loop.create_task(self._run(link), name=f"link {link.peer}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return link

    def _make_room(self, group: OrderedDict[Address, UdpLink], limit: int) -> None:
        while len(group) >= limit:
            if self._metrics is not None:
                self._metrics.connections_refused.inc()
            next(iter(group.values())).end("made room for others")

    async def _run(self, link: UdpLink) -> None:
        try:
            await self._on_link(link)
        finally:
            await link.close()

    def _failed(self, error: OSError) -> None:
        log.warning("a datagram could not be received", port=self.port, why=str(error))

    def _sweep(self) -> None:
        limit = self._loop.time() - self._limits.idle_s
        for group in (self._peers, self._newcomers):
            for link in list(group.values()):
                if link.heard > limit:
                    break
                link.end(f"was silent for {self._limits.idle_s:g} s")
        self._sweeping = self._loop.call_later(self._limits.idle_s / 4, self._sweep)

    # what links call (Owner)

    def send(self, data: bytes, address: Address | None) -> None:
        """See `Owner`."""
        self._socket.send(data, address)

    async def room(self) -> None:
        """See `Owner`."""
        await self._socket.room()

    def answered(self, link: UdpLink) -> None:
        """See `Owner`."""
        if link.address is not None and self._newcomers.get(link.address) is link:
            del self._newcomers[link.address]
            self._make_room(self._peers, self._limits.peers)
            self._peers[link.address] = link

    def dropped(self) -> None:
        """See `Owner`."""
        if self._metrics is not None:
            self._metrics.datagrams_dropped.inc()

    def lost(self, link: UdpLink) -> None:
        """See `Owner`."""
        address = link.address
        for group in (self._peers, self._newcomers):
            if address is not None and group.get(address) is link:
                del group[address]
                if self._metrics is not None:
                    self._metrics.connections.dec()

    async def close(self) -> None:
        """Take no more datagrams, end all links, and wait for what runs on them."""
        self._sweeping.cancel()
        for link in [*self._peers.values(), *self._newcomers.values()]:
            link.abort()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        self._socket.close()
        await asyncio.gather(*tasks, return_exceptions=True)


async def listen(
    host: str,
    port: int,
    on_link: Callable[[UdpLink], Awaitable[None]],
    *,
    limits: UdpLimits | None = None,
    metrics: Metrics | None = None,
) -> Listener:
    """Bind `host:port` (0: a free one; see `.port`) and run `on_link` for each address that sends there.

    Raises OSError where the address cannot be had.
    """
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_DGRAM, flags=socket.AI_PASSIVE)
    family, kind, protocol, _, address = found[0]
    sock = _made(family, kind, protocol)
    try:
        sock.bind(address)
        return Listener(sock, on_link, limits or UdpLimits(), metrics)
    except BaseException:
        sock.close()
        raise


async def connect(
    host: str, port: int, *, limits: UdpLimits | None = None, metrics: Metrics | None = None
) -> UdpLink:
    """A link to `host:port`; that somebody is there shows by their answers only. Raises LinkClosed."""
    place = spelled(host, port)
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_DGRAM)
        family, kind, protocol, _, address = found[0]
        sock = _made(family, kind, protocol)
        with contextlib.ExitStack() as undo:
            undo.callback(sock.close)
            sock.connect(address)
            undo.pop_all()
    except OSError as error:
        raise LinkClosed(
            f"{place} cannot be reached 无法连接: {error.strerror or error};"
            " check the address and the way to it"
        ) from error
    return _Client(sock, host, port, limits or UdpLimits(), metrics).link


def _made(family: int, kind: int, protocol: int) -> socket.socket:
    sock = socket.socket(family, kind, protocol)
    sock.setblocking(False)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, KERNEL_ROOM)
    return sock


class _Client:
    """A connected socket and its one link: the kernel lets in nobody else, and tells of shut ports."""

    def __init__(
        self, sock: socket.socket, host: str, port: int, limits: UdpLimits, metrics: Metrics | None
    ) -> None:
        self._metrics = metrics
        self.link = UdpLink(self, host, port, None, limits)
        self._socket = _Socket(sock, lambda data, _: self.link.arrived(data), self._failed)

    def _failed(self, error: OSError) -> None:
        self.link.end(f"cannot be reached: {error.strerror or error}")

    def send(self, data: bytes, address: Address | None) -> None:
        """See `Owner`."""
        self._socket.send(data, address)

    async def room(self) -> None:
        """See `Owner`."""
        await self._socket.room()

    def answered(self, link: UdpLink) -> None:
        """See `Owner`: it is the only one."""

    def dropped(self) -> None:
        """See `Owner`."""
        if self._metrics is not None:
            self._metrics.datagrams_dropped.inc()

    def lost(self, link: UdpLink) -> None:
        """See `Owner`."""
        self._socket.close()
