"""From the address of a channel to what listens there, or makes links to there."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final, Protocol

from gateway.clock import Clock
from gateway.errors import ConfigurationError
from gateway.metrics import Metrics
from gateway.transports import serial_port, tcp_client, tcp_listener, tls, udp
from gateway.transports.channel import Channel, SerialChannel, TcpChannel, UdpChannel
from gateway.transports.dialler import Backoff, Dialler, Opening
from gateway.transports.link import Link
from gateway.transports.tcp import TcpLimits
from gateway.transports.tcp_listener import Doorkeeper
from gateway.transports.tls import ClientTls, ServerTls
from gateway.transports.udp_link import UdpLimits

SERIAL_BACKOFF: Final = Backoff(limit_s=15.0)
"""To look whether a port is back costs nothing."""


class Listening(Protocol):
    """What `listen` gives for every kind of channel."""

    host: str
    port: int

    @property
    def connections(self) -> int: ...

    async def close(self) -> None:
        """Take nothing more, end all links, and wait for what runs on them."""
        ...


@dataclass(frozen=True, slots=True)
class Terms:
    """What holds for links of any kind."""

    tcp: TcpLimits = field(default_factory=TcpLimits)
    udp: UdpLimits = field(default_factory=UdpLimits)
    connect_timeout_s: float = tcp_client.CONNECT_S
    backoff: Backoff = field(default_factory=Backoff)


async def listen(
    channel: Channel,
    on_link: Callable[[Link], Awaitable[None]],
    *,
    terms: Terms | None = None,
    server: ServerTls | None = None,
    binding: bool = False,
    metrics: Metrics | None = None,
    doorkeeper: Doorkeeper | None = None,
) -> Listening:
    """Listen there and run `on_link` for each peer. server: for tcps; binding: see `tls.listen`; doorkeeper:
    for tcp.

    Raises OSError where the address cannot be had, ConfigurationError where nobody can listen on such a
    channel or a file of `server` cannot be used."""
    terms = terms or Terms()
    match channel:
        case TcpChannel(host, port, tls=False):
            return await tcp_listener.listen(
                host, port, on_link, limits=terms.tcp, metrics=metrics, doorkeeper=doorkeeper
            )
        case TcpChannel(host, port):
            if server is None:
                raise ConfigurationError(f"{channel}: a certificate and its key are needed 缺少证书和私钥")
            return await tls.listen(
                host, port, on_link, server, binding=binding, limits=terms.tcp, metrics=metrics
            )
        case UdpChannel(host, port):
            return await udp.listen(host, port, on_link, limits=terms.udp, metrics=metrics)
    raise ConfigurationError(f"{channel}: one can listen on tcp, tcps and udp only 不能监听")


def opening(
    channel: Channel,
    *,
    terms: Terms | None = None,
    client: ClientTls | None = None,
    metrics: Metrics | None = None,
) -> Opening:
    """Makes one link to `channel` each time that it is called, for a Dialler or for one conversation.

    client: for tcps. ConfigurationError where there is no such way, or a file of `client` cannot be used."""
    terms = terms or Terms()
    if isinstance(channel, TcpChannel | UdpChannel) and channel.port == 0:
        raise ConfigurationError(f"{channel}: a port other than 0 is needed to dial 缺少端口")
    match channel:
        case TcpChannel(host, port, tls=False):
            return lambda: tcp_client.connect(host, port, limits=terms.tcp, timeout_s=terms.connect_timeout_s)
        case TcpChannel(host, port):
            sealed = client or ClientTls()
            context = sealed.context()
            return lambda: tls.connect(
                host, port, sealed, context=context, limits=terms.tcp, timeout_s=terms.connect_timeout_s
            )
        case UdpChannel(host, port):
            return lambda: udp.connect(host, port, limits=terms.udp, metrics=metrics)
        case SerialChannel():
            return lambda: serial_port.connect(channel, write_deadline_s=terms.tcp.write_deadline_s)
    raise ConfigurationError(f"{channel}: a broker gives many links, not one 消息代理不是单一链路")


def dialler(
    channel: Channel,
    on_link: Callable[[Link], Awaitable[None]],
    *,
    terms: Terms | None = None,
    client: ClientTls | None = None,
    metrics: Metrics | None = None,
    clock: Clock | None = None,
    chance: random.Random | None = None,
) -> Dialler:
    """Keeps a link there once it is started; see `Dialler` and `opening`. A serial port is looked for more
    often than the rest."""
    terms = terms or Terms()
    return Dialler(
        str(channel),
        opening(channel, terms=terms, client=client, metrics=metrics),
        on_link,
        backoff=SERIAL_BACKOFF if isinstance(channel, SerialChannel) else terms.backoff,
        metrics=metrics,
        clock=clock,
        chance=chance,
    )
