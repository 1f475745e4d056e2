"""A gateway's end of MQTT: connected to a broker, with a house that reads what links say and settles it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from gateway.errors import LinkClosed
from gateway.transports import mqtt
from gateway.transports.link import Settle
from gateway.transports.mqtt_broker import Broker
from gateway.transports.mqtt_link import MqttLink
from gateway.transports.mqtt_settings import MqttSettings
from tests.gateway.transports.broker import until

VERSIONS = ["3.1.1", "5"]


class House:
    """What the registry is to the transport: reads each link, and settles what it read when told to."""

    def __init__(self) -> None:
        self.links: asyncio.Queue[MqttLink] = asyncio.Queue()
        self.read: list[bytes] = []
        self.ended = 0
        self.settles: Callable[[bytes], bool] = lambda data: True
        self.commit: Callable[[bytes], Awaitable[None]] | None = None
        """makes what was read durable; None: it is at once"""
        self.kept: list[tuple[bytes, Settle]] = []

    async def accept(self, link: MqttLink) -> None:
        self.links.put_nowait(link)
        try:
            while True:
                data, settle = await link.read()
                self.read.append(data)
                if self.commit is not None:
                    await self.commit(data)
                if self.settles(data):
                    await settle()
                else:
                    self.kept.append((data, settle))
        except LinkClosed:
            self.ended += 1

    async def link(self) -> MqttLink:
        return await asyncio.wait_for(self.links.get(), 20)


def settings_for(port: int, version: str, **broker: Any) -> MqttSettings:
    known = Broker("127.0.0.1", port, version=version, **broker)  # type: ignore[arg-type]
    return MqttSettings(known, deliver_again_s=0.2)


@asynccontextmanager
async def connected_to(
    settings: MqttSettings, on_link: Callable[[MqttLink], Awaitable[None]]
) -> AsyncIterator[mqtt.MqttTerminals]:
    terminals = mqtt.connect(settings, on_link)
    try:
        await until(lambda: terminals.connected)
        yield terminals
    finally:
        await terminals.close()


@asynccontextmanager
async def connected(settings: MqttSettings, house: House) -> AsyncIterator[mqtt.MqttTerminals]:
    async with connected_to(settings, house.accept) as terminals:
        yield terminals
