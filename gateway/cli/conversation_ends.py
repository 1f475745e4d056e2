"""One end of a conversation from what a command line says: dialled, listened for, or behind a broker."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final, Protocol

from gateway.cli.invocation import say
from gateway.errors import ConfigurationError
from gateway.transports import channel as channels
from gateway.transports import mqtt, ways
from gateway.transports.channel import Channel, MqttChannel, SerialChannel
from gateway.transports.link import Link
from gateway.transports.mqtt_broker import Broker, Tls
from gateway.transports.mqtt_settings import MqttSettings
from gateway.transports.mqtt_topics import Topics

LISTEN: Final = "listen:"
LOOK_S: Final = 0.02


class _Closing(Protocol):
    async def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class End:
    """listens: the other side dials."""

    channel: Channel
    listens: bool = False

    @property
    def serial(self) -> bool:
        return isinstance(self.channel, SerialChannel)


def parse(text: str) -> End:
    """`CHANNEL`, or `listen:CHANNEL` for tcp and udp. ChannelError."""
    if text.startswith(LISTEN):
        return End(channels.parse(text.removeprefix(LISTEN)), listens=True)
    return End(channels.parse(text))


@asynccontextmanager
async def opened(end: End) -> AsyncIterator[Link]:
    """The link, closed at the end. Of who dials in, or speaks behind a broker, the first has it, and nobody
    else until then. ConfigurationError, LinkClosed."""
    if not end.listens and not isinstance(end.channel, MqttChannel):
        link = await ways.opening(end.channel)()
        try:
            yield link
        finally:
            await link.close()
        return
    done = asyncio.Event()
    first: asyncio.Future[Link] = asyncio.get_running_loop().create_future()

    async def on_link(link: Link) -> None:
        if not first.done():
            first.set_result(link)
            await done.wait()

    waiting = await _waiting(end, on_link)
    try:
        yield await first
    finally:
        done.set()
        first.cancel()
        await waiting.close()


async def _waiting(end: End, on_link: Callable[[Link], Awaitable[None]]) -> _Closing:
    if isinstance(end.channel, MqttChannel):
        if end.listens:
            raise ConfigurationError(f"{end.channel}: a broker is never listened for 消息代理不能监听")
        terminals = mqtt.connect(_settings(end.channel), on_link)
        try:
            while not terminals.connected:  # noqa: ASYNC110  # a subscription has no event
                await asyncio.sleep(LOOK_S)
        except BaseException:
            await terminals.close()
            raise
        say(f"waiting for the first frame through {end.channel} 等待首帧")
        return terminals
    try:
        listening = await ways.listen(end.channel, on_link)
    except OSError as error:
        raise ConfigurationError(f"cannot listen on {end.channel} 无法监听: {error.strerror}") from error
    say(f"listening on {channels.spelled(listening.host, listening.port)} 监听中")
    return listening


def _settings(channel: MqttChannel) -> MqttSettings:
    """Topics as everywhere in the house, or beneath the one that was named."""
    topic = channel.topic or "lingdian"
    return MqttSettings(
        Broker(
            channel.host,
            channel.port,
            identifier=f"lingdian-field-{os.getpid()}",
            tls=Tls() if channel.tls else None,
            remembered_s=1,
        ),
        topics=Topics(
            (f"{topic}/{{terminal}}/up",), f"{topic}/{{terminal}}/down", f"{topic}/{{terminal}}/will"
        ),
    )
