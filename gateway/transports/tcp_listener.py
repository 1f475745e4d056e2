"""Terminals dial in over TCP: a listener with limits, and a door at which strangers cost little."""

from __future__ import annotations

import asyncio
import resource
import socket
from collections import Counter as Tally
from collections.abc import Awaitable, Callable
from typing import Final, Protocol

import structlog

from gateway.metrics import Metrics
from gateway.transports.tcp import TcpLimits, TcpLink

log = structlog.get_logger()

BACKLOG: Final = 4096
"""Dialling peers that the kernel holds for us: after a restart all terminals come at once."""

ACCEPT_AT_ONCE: Final = 64
"""Connections taken in one turn of the loop, so that a storm of them does not stop the ones that stand."""

OTHER_DESCRIPTORS: Final = 1_000
"""Beside the connections: database, HTTP, files, and peers that are just being refused."""


class Doorkeeper(Protocol):
    """Decides for whom a conversation begins. None of these may raise."""

    def stay_s(self) -> float:
        """How long the peer that dials just now may stand at the door, in seconds of the loop."""
        ...

    def missing(self, said: bytearray) -> int:
        """How many bytes a peer that has said this must say at least until it is worth looking at; 0: it is,
        and it must be when it grows long. Cheap."""
        ...

    def turned_away(self, peer: str, said: bytes) -> None:
        """Its time at the door is over, and so is its link."""
        ...


class Listener:
    """A listening socket and its links. Made by `listen`; `close` ends both."""

    def __init__(
        self,
        on_link: Callable[[TcpLink], Awaitable[None]],
        limits: TcpLimits,
        metrics: Metrics | None,
        doorkeeper: Doorkeeper | None,
    ) -> None:
        self._on_link = on_link
        self._limits = limits
        self._metrics = metrics
        self._doorkeeper = doorkeeper
        self._server: asyncio.Server | None = None
        self._at_door: dict[TcpLink, asyncio.TimerHandle] = {}
        """what ends their time there"""
        self._links: dict[TcpLink, asyncio.Task[None]] = {}
        self._ending: set[asyncio.Task[None]] = set()
        self._hosts: Tally[str] = Tally()
        self.host = ""
        self.port = 0

    @property
    def connections(self) -> int:
        return len(self._links) + len(self._at_door)

    def made(self, link: TcpLink) -> None:
        """See `Owner`."""
        full = self.connections >= self._limits.connections
        if full or self._hosts[link.source] >= self._limits.connections_per_host:
            if self._metrics is not None:
                self._metrics.connections_refused.inc()
            log.warning("connection refused", limit="whole" if full else "host", peer=link.peer)
            link.abort()
            return
        self._hosts[link.source] += 1
        if self._metrics is not None:
            self._metrics.connections.inc()
        if self._doorkeeper is None:
            self._begin(link)
        else:
            self._have_wait(link, self._doorkeeper)

    def heard(self, link: TcpLink) -> None:
        """See `Owner`."""
        assert self._doorkeeper is not None
        if link not in self._at_door:  # it has been turned away
            return
        if link.ended and not link.unread:
            link.abort()
        elif not link.ended and (missing := self._doorkeeper.missing(link.unread)):
            link.stand(missing)
        else:
            self._enter(link)

    def lost(self, link: TcpLink) -> None:
        """See `Owner`."""
        end_of_stay = self._at_door.pop(link, None)
        if end_of_stay is not None:
            end_of_stay.cancel()
        elif link not in self._links:
            return
        if self._metrics is not None:
            self._metrics.connections.dec()
        self._hosts[link.source] -= 1
        if self._hosts[link.source] <= 0:
            del self._hosts[link.source]
        if end_of_stay is None:
            task = self._links.pop(link)
            self._ending.add(task)
            task.add_done_callback(self._ending.discard)

    # the door

    def _have_wait(self, link: TcpLink, doorkeeper: Doorkeeper) -> None:
        loop = asyncio.get_running_loop()
        self._at_door[link] = loop.call_later(doorkeeper.stay_s(), self._turn_away, link, doorkeeper)
        link.stand(doorkeeper.missing(link.unread))

    def _turn_away(self, link: TcpLink, doorkeeper: Doorkeeper) -> None:
        doorkeeper.turned_away(link.peer, link.last_words())
        link.abort()

    def _enter(self, link: TcpLink) -> None:
        self._at_door.pop(link).cancel()
        link.enter()
        self._begin(link)

    # conversations

    def _begin(self, link: TcpLink) -> None:
        self._links[link] = asyncio.get_running_loop().create_task(self._run(link), name=f"link {link.peer}")

    async def _run(self, link: TcpLink) -> None:
        try:
            await self._on_link(link)
        finally:
            await link.close()

    async def close(self) -> None:
        """Take no more connections, end those that stand, and wait for what runs on them."""
        if self._server is not None:
            self._server.close()
        tasks = [*self._links.values(), *self._ending]
        for task in tasks:
            task.cancel()
        for link in [*self._links, *self._at_door]:
            link.abort()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._server is not None:
            await self._server.wait_closed()


def _have_descriptors(wanted: int) -> None:
    """Raise this process's limit of open files to `wanted`, or as far as it may: commonly it begins at 1,024,
    and the next terminal would be refused by the kernel."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


async def listen(
    host: str,
    port: int,
    on_link: Callable[[TcpLink], Awaitable[None]],
    *,
    limits: TcpLimits | None = None,
    metrics: Metrics | None = None,
    doorkeeper: Doorkeeper | None = None,
) -> Listener:
    """Listen on `host:port` (0: a free one; see `.port`) and run `on_link` for each connection, which is
    closed when it returns. doorkeeper: who lets peers in; None: `on_link` runs from the first moment on.
    Raises OSError where the address cannot be had.
    """
    loop = asyncio.get_running_loop()
    listener = Listener(on_link, limits or TcpLimits(), metrics, doorkeeper)
    _have_descriptors(listener._limits.connections + OTHER_DESCRIPTORS)
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, kind, protocol, _, address = found[0]
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
        listener.host, listener.port = sock.getsockname()[:2]
        listener._server = await loop.create_server(
            lambda: TcpLink(listener, listener._limits), sock=sock, backlog=ACCEPT_AT_ONCE
        )
        sock.listen(BACKLOG)  # asyncio takes as many connections in one turn as the backlog that it was given
    except BaseException:
        sock.close()
        raise
    return listener
