"""`lingdian read --via CHANNEL`: items straight off a meter, where no gateway stands between."""

from __future__ import annotations

import asyncio
from typing import Any

from gateway.cli.scan import timing_of
from gateway.clock import Clock
from gateway.field.direct import Wish, address_of, read_direct, wish
from gateway.field.line import MeterLine
from gateway.transports import channel as channels
from gateway.transports import ways
from gateway.transports.channel import Channel


def read_via(channel: str, address: str, items: list[str]) -> dict[str, Any]:
    """What `lingdian read` shows. Whatever is no read is refused before the channel is opened: InputError;
    LinkClosed where it cannot be opened, or ends."""
    way = channels.parse(channel)
    meter = address_of(address)
    wishes = [wish(item) for item in items]
    return asyncio.run(_read(way, meter, wishes))


async def _read(way: Channel, address: str, wishes: list[Wish]) -> dict[str, Any]:
    link = await ways.opening(way)()
    try:
        return await read_direct(MeterLine(link, Clock(), timing_of(way, None)), address, wishes)
    finally:
        await link.close()
