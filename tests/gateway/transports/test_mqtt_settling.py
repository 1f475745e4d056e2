"""Nothing that a terminal says over MQTT is lost or repeated when a gateway dies or its broker goes."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter as Tally
from dataclasses import replace
from pathlib import Path

import aiomqtt
import pytest

from gateway.errors import LinkClosed
from gateway.transports import mqtt
from gateway.transports.link import Settle, Taken
from gateway.transports.mqtt_link import MqttLink
from gateway.transports.mqtt_settings import MqttSettings
from tests.gateway.transports.broker import Mosquitto, terminal, until
from tests.gateway.transports.mqtt_house import VERSIONS, House, connected, connected_to, settings_for

# what is settled, and what is not ------------------------------------------------------------------------


async def settled_after_parts(settings: MqttSettings, order: list[int]) -> list[int]:
    """A message of three parts, settled part by part in this order: what is unsettled after each."""
    links: asyncio.Queue[MqttLink] = asyncio.Queue()
    over = asyncio.Event()

    async def keep(link: MqttLink) -> None:
        links.put_nowait(link)
        await over.wait()

    async with connected_to(settings, keep) as terminals:
        async with terminal(settings.broker.port, version=settings.broker.version) as device:
            await device.say(bytes(5000))
            link = await asyncio.wait_for(links.get(), 20)
            settles: list[Settle] = []
            unsettled = []
            for part in order:
                while len(settles) <= part:
                    settles.append((await link.read())[1])
                await settles[part]()
                unsettled.append(terminals.window.unsettled)
        over.set()
    return unsettled


@pytest.mark.parametrize("order", [[0, 1, 2], [2, 0, 1], [1, 0, 2], [0, 0, 2, 1]])
async def test_a_long_message_is_settled_with_the_last_of_its_parts(
    settings: MqttSettings, order: list[int]
) -> None:
    assert await settled_after_parts(settings, order) == [1] * (len(order) - 1) + [0]


async def lost_at_a_crash(settings: MqttSettings, *, settle_first: bool) -> set[bytes]:
    """A gateway dies while readings are being committed; another one takes its place. Which are lost?
    settle_first: the planted bug."""
    committed: list[bytes] = []
    crash = asyncio.Event()

    async def accept(link: MqttLink) -> None:
        with contextlib.suppress(LinkClosed):
            while True:
                data, settle = await link.read()
                if settle_first:
                    await settle()
                if len(committed) >= 5 and not crash.is_set():
                    await asyncio.sleep(0)  # the acknowledgement leaves
                    await asyncio.sleep(0.02)
                    crash.set()
                    await asyncio.Event().wait()
                committed.append(data)
                await settle()

    sent = [b"%d" % number for number in range(20)]
    port, version = settings.broker.port, settings.broker.version
    async with terminal(port, "crash", version=version) as device:
        first = mqtt.connect(settings, accept)
        await until(lambda: first.connected)
        for payload in sent:
            await device.say(payload)
        await asyncio.wait_for(crash.wait(), 20)
        assert first.connection is not None
        first.connection.reset()
        await first.close()
        second = mqtt.connect(settings, accept)
        try:
            await until(lambda: second.connected)
            await until(lambda: sent[-1] in committed)
        finally:
            await second.close()
    return set(sent) - set(committed)


async def test_what_was_not_settled_survives_a_crash_of_ours(settings: MqttSettings) -> None:
    assert await lost_at_a_crash(settings, settle_first=False) == set()


async def test_settling_before_the_commit_is_seen_to_lose(settings: MqttSettings) -> None:
    assert await lost_at_a_crash(settings, settle_first=True) == {b"5"}


async def burst(port: int, version: str, up: asyncio.Event, doubtful: list[bytes]) -> None:
    """60 messages, in order. The one that the broker did not say it has when it went is sent again, and is
    doubtful: it may come twice."""
    left = [b"%d" % number for number in range(60)]
    while left:
        await up.wait()
        async with terminal(port, "burst", version=version, will="elsewhere") as device:
            with contextlib.suppress(aiomqtt.MqttError):
                while left:
                    await device.say(left[0])
                    del left[0]
                    if len(left) < 30:  # slowly: the broker goes in the middle of it
                        await asyncio.sleep(0.05)
                return
        doubtful.append(left[0])
        up.clear()


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_broker_that_restarts_in_a_burst_loses_nothing_and_repeats_nothing_settled(
    tmp_path: Path, version: str
) -> None:
    house = House()
    house.settles = lambda data: data.endswith((b"0", b"3", b"6", b"9"))
    up = asyncio.Event()
    up.set()
    doubtful: list[bytes] = []
    with Mosquitto(tmp_path) as broker:
        settings = settings_for(broker.port, version)
        async with connected(settings, house) as terminals:
            sending = asyncio.create_task(burst(broker.port, version, up, doubtful))
            await until(lambda: len(house.read) >= 30)
            link = await house.link()
            await asyncio.to_thread(broker.stop)
            assert not sending.done()
            await until(lambda: not terminals.connected)
            for _, settle in house.kept[:5]:  # these acknowledgements cannot arrive
                await settle()
            await until(lambda: not up.is_set())
            in_doubt = set(doubtful)
            broker.start()
            up.set()
            await asyncio.wait_for(sending, 20)
            await until(lambda: house.read[-1] == b"59")
            await until(lambda: terminals.connected)
            counted = Tally(house.read)
            assert set(counted) == {b"%d" % number for number in range(60)}
            assert {data for data, times in counted.items() if times > 1} <= in_doubt
            assert house.read == sorted(house.read, key=int)
            async with terminal(broker.port, "burst", version=version, will="elsewhere") as device:
                await link.write(b"still there")  # the very same link
                assert await device.hears() == b"still there"
            for _, settle in house.kept:
                await settle()
            await until(lambda: terminals.window.unsettled == 0)
        again = House()
        async with (
            connected(settings, again) as terminals,
            terminal(broker.port, "burst", version=version) as device,
        ):
            await device.say(b"last")
            await until(lambda: b"last" in again.read)
            assert again.read == [b"last"]


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_killed_broker_delivers_again_what_was_not_settled(tmp_path: Path, version: str) -> None:
    house = House()
    house.settles = lambda data: False
    with Mosquitto(tmp_path) as broker:
        settings = settings_for(broker.port, version)
        terminals = mqtt.connect(settings, house.accept)
        try:
            await until(lambda: terminals.connected)
            async with terminal(broker.port, "burst", version=version, will="elsewhere") as device:
                for number in range(20):
                    await device.say(b"%d" % number)
                await until(lambda: len(house.read) == 20)
                await asyncio.to_thread(broker.write_down)
                for _, settle in house.kept[:5]:
                    await settle()
                broker.stop(at_once=True)
                await until(lambda: not terminals.connected)
        finally:
            await terminals.close()
        broker.start()
        again = House()
        async with connected(settings, again):
            await until(lambda: {b"%d" % number for number in range(5, 20)} <= set(again.read))
            assert len(again.read) == len(set(again.read))


# the broker goes -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", VERSIONS)
async def test_while_the_broker_is_away_writes_wait_and_trips_do_not(tmp_path: Path, version: str) -> None:
    house = House()
    with Mosquitto(tmp_path) as broker:
        settings = settings_for(broker.port, version, write_deadline_s=10.0)
        async with connected(settings, house) as terminals:
            async with terminal(broker.port, "a", version=version, will="elsewhere") as device:
                await device.say(b"1")
                one = await house.link()
                await device.say(b"2", topic="lingdian/b/up")
                two = await house.link()
                broker.stop()
                await until(lambda: not terminals.connected)
            writing = asyncio.create_task(one.write(b"ask"))
            await until(lambda: one.unsent == 3)
            assert two.write_now(b"trip") is Taken.NOTHING
            assert not two.ended
            broker.start()
            async with terminal(broker.port, "a", version=version) as device:
                if version == "5" or not writing.done():
                    await writing
                await one.write(b"ask again")
                heard = await device.hears()
                assert heard in (b"ask", b"ask again")
                assert b"trip" not in [heard]
                await device.client.subscribe("lingdian/b/down", 1)
                assert two.write_now(b"trip now") is Taken.WHOLE
                while heard in (b"ask", b"ask again"):
                    heard = await device.hears()
                assert heard == b"trip now"


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_broker_that_stays_away_ends_the_links(tmp_path: Path, version: str) -> None:
    house = House()
    with Mosquitto(tmp_path) as broker:
        settings = replace(settings_for(broker.port, version, write_deadline_s=0.3), away_s=0.1)
        async with connected(settings, house) as terminals:
            async with terminal(broker.port, "a", version=version, will="elsewhere") as device:
                await device.say(b"1")
                await device.say(b"2", topic="lingdian/b/up")
                await house.link()
                link = await house.link()
                broker.stop()
                await until(lambda: not terminals.connected)
            with pytest.raises(LinkClosed):
                await link.write(b"ask")
            await until(lambda: house.ended == 2)
