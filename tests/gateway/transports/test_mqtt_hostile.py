"""What terminals over MQTT, or sessions that do not read, cannot do to the gateway and to other terminals."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace
from typing import Any

import pytest

from gateway.errors import LinkClosed
from gateway.transports import mqtt, mqtt_window
from gateway.transports.mqtt_link import MqttLink
from gateway.transports.mqtt_settings import MqttSettings
from gateway.transports.mqtt_topics import Payload
from tests.gateway.transports.broker import terminal, until
from tests.gateway.transports.mqtt_house import House, connected

# hostile -------------------------------------------------------------------------------------------------


async def test_hostile_messages_are_counted_and_the_next_good_one_is_read(settings: MqttSettings) -> None:
    house = House()
    settings = replace(settings, payload=Payload("json", time_key="t", oldest_s=60))
    port, version = settings.broker.port, settings.broker.version
    hostile = [
        b"",
        b"\xff\xfe",
        b"[" * 60_000,
        b'{"frame": 7}',
        b'{"frame": "zz", "t": 9e15}',
        b'{"frame": "68", "t": 1e999}',
        b'{"frame": "68", "t": true}',
        b'{"frame": "68"}',
        b'{"frame": "", "t": 9e15}',
        b"1" * 70_000,
    ]
    async with connected(settings, house) as terminals, terminal(port, version=version) as device:
        for payload in hostile:
            await device.say(payload)
        for topic in ("lingdian/a b/up", f"lingdian/{'x' * 65}/up", "lingdian/电/up", "lingdian//up"):
            await device.say(b'{"frame": "68", "t": 9e15}', topic=topic)
        await device.say(b'{"frame": "68", "t": 1700000000000}')
        await device.say(b'{"frame": "6816", "t": 9e15}')
        await until(lambda: bool(house.read))
        assert house.read == [b"\x68\x16"]
        assert terminals.counts["unusable"] == len(hostile) + 4
        assert terminals.counts["stale"] == 1
        await until(lambda: terminals.window.unsettled == 0)
        assert terminals.connected


class Flood:
    """The session of `flood` does not read before it is told to; all others do."""

    def __init__(self) -> None:
        self.reads = asyncio.Event()
        self.flooded: list[bytes] = []
        self.others: list[bytes] = []

    async def accept(self, link: MqttLink) -> None:
        flood = link.terminal == "flood"
        with contextlib.suppress(LinkClosed):
            if flood:
                either: list[asyncio.Future[Any]] = [asyncio.ensure_future(self.reads.wait()), link._gone]
                await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
                either[0].cancel()
            while True:
                data, settle = await link.read()
                (self.flooded if flood else self.others).append(data)
                await settle()


FLOOD = [b"%d" % number for number in range(100)]


async def test_what_a_slow_session_has_no_room_for_comes_again_in_order(settings: MqttSettings) -> None:
    settings = replace(settings, held_messages=8, broker=replace(settings.broker, unacknowledged=16))
    flood = Flood()
    port, version = settings.broker.port, settings.broker.version
    terminals = mqtt.connect(settings, flood.accept)
    try:
        await until(lambda: terminals.connected)
        async with terminal(port, "flood", version=version) as device:
            for payload in FLOOD:
                await device.say(payload)
            await until(lambda: terminals.counts["given back"] > 0)
            flood.reads.set()
            await until(lambda: flood.flooded == FLOOD)
    finally:
        await terminals.close()
    assert terminals.counts["dropped"] == 0


async def test_a_flood_for_a_session_that_does_not_read_is_bounded_and_does_not_stop_the_others(
    settings: MqttSettings,
) -> None:
    settings = replace(
        settings, held_messages=8, patience_s=0.1, broker=replace(settings.broker, unacknowledged=16)
    )
    flood = Flood()
    port, version = settings.broker.port, settings.broker.version
    terminals = mqtt.connect(settings, flood.accept)
    try:
        await until(lambda: terminals.connected)
        async with terminal(port, "flood", version=version) as noisy, terminal(port, "calm") as calm:
            for payload in FLOOD:
                await noisy.say(payload)
                assert terminals.window._unsettled <= 16
                assert terminals.window._bytes <= 32
            await calm.say(b"heard")
            await until(lambda: flood.others == [b"heard"])
            assert flood.flooded == []
            flood.reads.set()
            await noisy.say(b"last")
            await until(lambda: flood.flooded[-1:] == [b"last"])
    finally:
        await terminals.close()


async def test_where_no_session_settles_anything_nothing_is_lost(
    settings: MqttSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not one terminal's session is stuck but what all wait for, the database perhaps."""
    monkeypatch.setattr(mqtt_window, "FEW_STUCK", 1)
    settings = replace(
        settings,
        held_messages=4,
        patience_s=0.05,
        deliver_again_s=0.05,
        broker=replace(settings.broker, unacknowledged=64),
    )
    house = House()
    durable = asyncio.Event()

    async def commit(data: bytes) -> None:
        await durable.wait()

    house.commit = commit
    port, version = settings.broker.port, settings.broker.version
    async with connected(settings, house) as terminals, terminal(port, "a", version=version) as device:
        sent = [b"%d" % number for number in range(30)]
        for payload in sent:
            for name in "abc":
                await device.say(name.encode() + payload, topic=f"lingdian/{name}/up")
        await until(lambda: max(terminals.window._stuck.values(), default=0) > 4)
        durable.set()
        await until(
            lambda: set(house.read) == {name + payload for name in (b"a", b"b", b"c") for payload in sent}
        )
        assert terminals.counts["dropped"] == 0


async def test_a_message_that_ends_its_session_each_time_is_given_up(settings: MqttSettings) -> None:
    seen: list[bytes] = []

    async def accept(link: MqttLink) -> None:
        with contextlib.suppress(LinkClosed):
            while True:
                data, settle = await link.read()
                seen.append(data)
                if data == b"poison":
                    link.abort()
                await settle() if data != b"poison" else None

    settings = replace(settings, deliver_again_s=0.05)
    terminals = mqtt.connect(settings, accept)
    try:
        await until(lambda: terminals.connected)
        async with terminal(settings.broker.port, version=settings.broker.version) as device:
            await device.say(b"poison")
            await device.say(b"good")
            await until(lambda: terminals.counts["poisonous"] == 1)
            await until(lambda: b"good" in seen and terminals.window.unsettled == 0)
    finally:
        await terminals.close()
    assert seen.count(b"poison") == 3


async def test_no_more_links_than_allowed(settings: MqttSettings) -> None:
    house = House()
    settings = replace(settings, links=1)
    port, version = settings.broker.port, settings.broker.version
    async with connected(settings, house) as terminals, terminal(port, "a", version=version) as one:
        await one.say(b"1")
        await one.say(b"2", topic="lingdian/b/up")
        await one.say(b"3")
        await until(lambda: house.read == [b"1", b"3"])
        assert terminals.counts["refused"] == 1
