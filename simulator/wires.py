"""What carries bytes between a simulated device and the gateway, in one shape: TCP and UDP, both ways round.

A wire has one device at our end. `open` brings up a link, or waits until the other side has; from then on the
link's own events come to the device's `End`. Serial lines are in serial_wire.py, MQTT in mqtt_wire.py.
"""

from __future__ import annotations

import asyncio
import random
import ssl
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, cast

from simulator.channel import Channel
from simulator.faults import Messages

Told = Callable[[Channel], None]
"""Called with the place where a wire can be reached, once that is known."""


class Link(Protocol):
    """One link, as the device sees it."""

    @property
    def speed(self) -> int | None:
        """bit/s at which the other side speaks now; None where a link has no speed."""

    def write(self, data: bytes) -> None:
        """Send; where the wire keeps borders, as one message."""

    def close(self) -> None:
        """End it when what was written has left."""

    def cut(self) -> None:
        """Break it when what was written has left: for the other side an end without a goodbye, where the
        wire knows one."""

    def abort(self) -> None:
        """End it now."""


class End(Protocol):
    """The device at our end of a wire. `link_down` comes once for each `link_up`."""

    def link_up(self, link: Link) -> None: ...

    def received(self, link: Link, data: bytes) -> None: ...

    def link_down(self, link: Link) -> None: ...


class Wire(Protocol):
    """See the module."""

    async def open(self, end: End) -> None:
        """Return when `end` has been told of a link that was not there at the last call. OSError where none
        can be had now."""

    async def close(self) -> None:
        """Give back what the wire holds; its links are ended by whoever has them."""


class _Stream(asyncio.Protocol):
    """A TCP link."""

    speed = None

    def __init__(self, end: End, arrived: Callable[[], None] = lambda: None) -> None:
        self._end = end
        self._arrived = arrived
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._end.link_up(self)
        self._arrived()

    def data_received(self, data: bytes) -> None:
        self._end.received(self, data)

    def connection_lost(self, error: Exception | None) -> None:
        self._end.link_down(self)

    def write(self, data: bytes) -> None:
        assert self._transport is not None
        self._transport.write(data)

    def close(self) -> None:
        assert self._transport is not None
        self._transport.close()

    def cut(self) -> None:
        self.close()

    def abort(self) -> None:
        assert self._transport is not None
        self._transport.abort()


@dataclass(frozen=True, slots=True)
class TcpDial:
    """Dials `host:port`. context: for TLS; name: of the other side in its certificate, `host` by default."""

    host: str
    port: int
    context: ssl.SSLContext | None = None
    name: str | None = None

    async def open(self, end: End) -> None:
        """See Wire."""
        loop = asyncio.get_running_loop()
        name = (self.name or self.host) if self.context is not None else None
        await loop.create_connection(
            lambda: _Stream(end), self.host, self.port, ssl=self.context, server_hostname=name
        )

    async def close(self) -> None:
        """See Wire: nothing."""


class TcpListen:
    """Listens on `host:port` (0: a free one) from the first `open` on; the newest link counts."""

    def __init__(self, host: str, port: int, told: Told, context: ssl.SSLContext | None = None) -> None:
        self._host = host
        self._port = port
        self._told = told
        self._context = context
        self._server: asyncio.Server | None = None
        self._arrived = asyncio.Event()

    async def open(self, end: End) -> None:
        """See Wire."""
        if self._server is None:
            loop = asyncio.get_running_loop()
            self._server = await loop.create_server(
                lambda: _Stream(end, self._arrived.set), self._host, self._port, ssl=self._context
            )
            port = self._server.sockets[0].getsockname()[1]
            self._told(Channel("tcps" if self._context else "tcp", self._host, port))
        await self._arrived.wait()
        self._arrived.clear()

    async def close(self) -> None:
        """See Wire."""
        if self._server is not None:
            self._server.close()


class Mail:
    """What becomes of messages that are carried one by one: some are lost, some come twice."""

    def __init__(self, faults: Messages | None, counts: Counter[str], seed: str) -> None:
        self._faults = faults or Messages()
        self._counts = counts
        self._chance = random.Random(f"{seed}/messages")

    def copies(self, *, lossy: bool = True) -> int:
        """How often the next message is to be sent. lossy: the wire may lose it."""
        faults, draw = self._faults, self._chance.random
        if lossy and faults.loss and draw() < faults.loss:
            self._counts["message_lost"] += 1
            return 0
        if faults.twice and draw() < faults.twice:
            self._counts["message_twice"] += 1
            return 2
        return 1


class _UdpLink:
    """Datagrams to and from one address. ends: called when we end it."""

    speed = None

    def __init__(
        self, transport: asyncio.DatagramTransport, address: Any, mail: Mail, ends: Callable[[_UdpLink], None]
    ) -> None:
        self._transport = transport
        self.address = address
        self._mail = mail
        self._ends = ends

    def write(self, data: bytes) -> None:
        for _ in range(self._mail.copies()):
            self._transport.sendto(data, self.address)

    def close(self) -> None:
        self._ends(self)

    def cut(self) -> None:
        self._ends(self)

    def abort(self) -> None:
        self._ends(self)


class _UdpDialled(asyncio.DatagramProtocol):
    """A connected socket and its one link."""

    def __init__(self, end: End, mail: Mail) -> None:
        self._end = end
        self._mail = mail
        self._link: _UdpLink | None = None
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)  # which it is, but no subclass of
        self._link = _UdpLink(self._transport, None, self._mail, lambda link: transport.close())
        self._end.link_up(self._link)

    def datagram_received(self, data: bytes, address: Any) -> None:
        if self._link is not None and self._mail.copies():
            self._end.received(self._link, data)

    def error_received(self, error: Exception) -> None:
        """Nobody is there: the kernel was told so."""
        if self._transport is not None:
            self._transport.close()

    def connection_lost(self, error: Exception | None) -> None:
        if self._link is not None:
            self._end.link_down(self._link)


@dataclass(frozen=True, slots=True)
class UdpDial:
    """Sends datagrams to `host:port`, from a port of its own for each link."""

    host: str
    port: int
    mail: Mail

    async def open(self, end: End) -> None:
        """See Wire."""
        loop = asyncio.get_running_loop()
        await loop.create_datagram_endpoint(
            lambda: _UdpDialled(end, self.mail), remote_addr=(self.host, self.port)
        )

    async def close(self) -> None:
        """See Wire: nothing."""


class UdpListen(asyncio.DatagramProtocol):
    """Bound to `host:port` (0: a free one): who sends there first is the link, until another one does."""

    def __init__(self, host: str, port: int, told: Told, mail: Mail) -> None:
        self._host = host
        self._port = port
        self._told = told
        self._mail = mail
        self._transport: asyncio.DatagramTransport | None = None
        self._end: End | None = None
        self._link: _UdpLink | None = None
        self._arrived = asyncio.Event()

    async def open(self, end: End) -> None:
        """See Wire."""
        if self._transport is None:
            self._end = end
            loop = asyncio.get_running_loop()
            transport, _ = await loop.create_datagram_endpoint(
                lambda: self, local_addr=(self._host, self._port)
            )
            self._transport = transport
            self._told(Channel("udp", self._host, transport.get_extra_info("sockname")[1]))
        if self._link is not None:
            self._ended(self._link)  # the device has turned away from it: what comes next is a new one
        await self._arrived.wait()
        self._arrived.clear()

    def datagram_received(self, data: bytes, address: Any) -> None:
        if self._end is None or self._transport is None or not self._mail.copies():
            return
        if self._link is None or self._link.address != address:
            older, self._link = self._link, _UdpLink(self._transport, address, self._mail, self._ended)
            if older is not None:
                self._end.link_down(older)
            self._end.link_up(self._link)
            self._arrived.set()
        self._end.received(self._link, data)

    def _ended(self, link: _UdpLink) -> None:
        if link is self._link and self._end is not None:
            self._link = None
            self._end.link_down(link)

    async def close(self) -> None:
        """See Wire."""
        if self._transport is not None:
            self._transport.close()
