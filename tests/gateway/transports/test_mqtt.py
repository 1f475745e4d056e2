"""Terminals over a real Mosquitto, in both versions of the protocol."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import ssl
from collections import Counter as Tally
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiomqtt
import pytest
import uvloop

from gateway.clock import Clock
from gateway.errors import ConfigurationError, LinkClosed
from gateway.transports import mqtt, mqtt_window
from gateway.transports.link import Settle, Taken
from gateway.transports.mqtt_broker import Broker, BrokerLost, Connection, Tls
from gateway.transports.mqtt_link import MqttLink
from gateway.transports.mqtt_settings import MqttSettings
from gateway.transports.mqtt_topics import Payload, Topics
from tests.gateway.api.test_tls import issue
from tests.gateway.transports.broker import Mosquitto, terminal, until
from tests.programs import program

VERSIONS = ["3.1.1", "5"]
WORD = "02001234"
EXAMPLES = Path(__file__).parents[3] / "docs" / "mqtt"


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


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with Mosquitto(tmp_path_factory.mktemp("mosquitto")) as running:
        yield running


@pytest.fixture(params=VERSIONS)
def settings(request: pytest.FixtureRequest, broker: Mosquitto) -> MqttSettings:
    """A client identifier of its own: the broker remembers nothing of another test."""
    name = "".join(c for c in request.node.name if c.isalnum())
    return settings_for(broker.port, request.param, identifier=name)


# both ways -----------------------------------------------------------------------------------------------


async def test_frames_go_both_ways_and_the_last_will_ends_the_link(settings: MqttSettings) -> None:
    house = House()
    async with (
        connected(settings, house) as terminals,
        terminal(settings.broker.port, version=settings.broker.version) as device,
    ):
        await device.say(b"\x68\x01\x16")
        link = await house.link()
        assert link.source == link.peer == f"mqtt://127.0.0.1:{settings.broker.port}/{WORD}"
        await link.write(b"\x68\x02\x16")
        assert await device.hears() == b"\x68\x02\x16"
        assert link.write_now(b"\x68\x03\x16") is Taken.WHOLE
        assert await device.hears() == b"\x68\x03\x16"
        await until(lambda: terminals.window.unsettled == 0)
        assert house.read == [b"\x68\x01\x16"]
        device.vanish()
        await until(lambda: house.ended == 1)
        with pytest.raises(LinkClosed):
            await link.write(b"\x68\x04\x16")
        assert link.write_now(b"\x68\x04\x16") is Taken.NOTHING
        await until(lambda: terminals.links == 0)


async def test_frames_before_the_last_will_are_read_before_the_end(settings: MqttSettings) -> None:
    links: asyncio.Queue[MqttLink] = asyncio.Queue()
    over = asyncio.Event()

    async def keep(link: MqttLink) -> None:
        links.put_nowait(link)
        await over.wait()

    terminals = mqtt.connect(settings, keep)
    try:
        await until(lambda: terminals.connected)
        async with terminal(settings.broker.port, version=settings.broker.version) as device:
            await device.say(b"one")
            await device.say(bytes(5000))
            link = await asyncio.wait_for(links.get(), 20)
            device.vanish()
            await until(lambda: terminals.counts["taken"] == 3)
        assert link.waiting == 5003
        sizes = []
        with contextlib.suppress(LinkClosed):
            while True:
                data, settle = await link.read()
                await settle()
                sizes.append(len(data))
        assert sizes == [3, 2048, 2048, 904]
        assert terminals.window.unsettled == 0
    finally:
        over.set()
        await terminals.close()


async def test_each_terminal_has_a_link_of_its_own(settings: MqttSettings) -> None:
    house = House()
    port, version = settings.broker.port, settings.broker.version
    async with (
        connected(settings, house),
        terminal(port, "a", version=version) as one,
        terminal(port, "b", version=version) as two,
    ):
        await one.say(b"1")
        first = await house.link()
        await two.say(b"2")
        second = await house.link()
        assert (first.terminal, second.terminal) == ("a", "b")
        await asyncio.gather(first.write(b"to one"), second.write(b"to two"))
        assert (await one.hears(), await two.hears()) == (b"to one", b"to two")


async def test_retained_messages_never_reach_a_session(settings: MqttSettings) -> None:
    house = House()
    port, version = settings.broker.port, settings.broker.version
    async with terminal(port, "old", version=version) as device:
        await device.say(b"yesterday", retain=True)
        async with connected(settings, house) as terminals:
            await device.say(b"today")
            await until(lambda: b"today" in house.read)
            assert house.read == [b"today"]
            # in MQTT 5 the broker was asked not to send them at all
            assert terminals.counts["retained"] == (1 if version == "3.1.1" else 0)
        await device.say(b"", retain=True)


async def test_what_we_send_is_not_retained_and_expires(settings: MqttSettings) -> None:
    house = House()
    async with (
        connected(settings, house),
        terminal(settings.broker.port, version=settings.broker.version) as device,
    ):
        await device.say(b"here")
        link = await house.link()
        await link.write(b"ask")
        assert link.write_now(b"act") is Taken.WHOLE
        for payload in (b"ask", b"act"):
            message = await asyncio.wait_for(device.heard.get(), 20)
            assert message.payload == payload
            assert not message.retain
            if settings.broker.version == "5":
                assert message.properties is not None
                assert message.properties.MessageExpiryInterval <= settings.expiry_s  # type: ignore[attr-defined]
                assert message.qos == 1
            else:  # nothing expires there: what must not be late is not kept for an absent terminal
                assert message.qos == (1 if payload == b"ask" else 0)
        async with terminal(settings.broker.port, version=settings.broker.version) as again:
            await again.say(b"back")
            await until(lambda: b"back" in house.read)
            assert again.heard.empty()


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_trip_does_not_wait_at_the_broker_for_a_terminal_that_is_away(
    broker: Mosquitto, version: str
) -> None:
    house = House()
    settings = replace(settings_for(broker.port, version, identifier=f"trip-{version}"), expiry_s=1)
    async with connected(settings, house):
        async with terminal(broker.port, "away", version=version, lasting=True, will="elsewhere") as device:
            await device.say(b"here")
            link = await house.link()
        assert link.write_now(b"trip") is Taken.WHOLE
        if version == "5":
            await asyncio.sleep(2.1)  # the broker's own clock, in whole seconds
        async with terminal(broker.port, "away", version=version, lasting=True, will="elsewhere") as device:
            await link.write(b"ask")
            assert await device.hears() == b"ask"


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


@pytest.mark.parametrize("at", ["subscribe", "__aexit__"])
async def test_a_close_in_the_turn_of_the_brokers_answer_is_heard(
    settings: MqttSettings, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    """aiomqtt waits with `asyncio.wait_for`, which swallows a cancellation then, in Python 3.11."""
    real = getattr(aiomqtt.Client, at)
    answered = asyncio.Event()

    async def swallowing(client: aiomqtt.Client, *arguments: Any) -> Any:
        result = await real(client, *arguments)
        answered.set()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(60)
        return result

    house = House()
    terminals = mqtt.connect(settings, house.accept)
    if at == "__aexit__":
        await until(lambda: terminals.connected)
        monkeypatch.setattr(aiomqtt.Client, at, swallowing)
        terminals._renew.set()
    else:
        monkeypatch.setattr(aiomqtt.Client, at, swallowing)
    await asyncio.wait_for(answered.wait(), 20)
    closing = asyncio.ensure_future(terminals.close())
    await asyncio.wait([closing], timeout=10)
    assert closing.done()
    assert terminals.connection is None


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


async def test_a_link_is_for_the_terminal_of_its_topic_where_that_is_an_address() -> None:
    async def unused(link: MqttLink) -> None:
        raise AssertionError

    terminals = mqtt.MqttTerminals(settings_for(1, "5"), unused, Clock(), None)
    for name in ("02001234", "0200ABcd"):
        assert MqttLink(terminals, name).only_for == frozenset({name.lower()})
    for name in ("concentrator7", "0200123", "020012345", "0200123g"):
        assert MqttLink(terminals, name).only_for is None


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


# who hears whom ------------------------------------------------------------------------------------------


async def test_gateways_of_a_group_take_turns_at_logins_and_hear_only_their_own(
    settings: MqttSettings,
) -> None:
    topics = Topics(
        up=("lingdian/{terminal}/up", "lingdian/{terminal}/answer/{gateway}"),
        shared=("lingdian/{terminal}/login",),
    )
    houses = [House(), House()]
    each = [
        replace(
            settings,
            gateway=f"g{number}",
            group="heads",
            topics=topics,
            broker=replace(settings.broker, identifier=f"{settings.broker.identifier}{number}"),
        )
        for number in (1, 2)
    ]
    port, version = settings.broker.port, settings.broker.version
    async with (
        connected(each[0], houses[0]) as first,
        connected(each[1], houses[1]) as second,
        terminal(port, "x", version=version) as device,
    ):
        for number in range(6):
            await device.say(b"login", topic=f"lingdian/t{number}/login")
        await until(lambda: sum(len(house.read) for house in houses) == 6)
        assert all(house.read for house in houses)  # turns
        assert first._owned | second._owned == {f"t{number}" for number in range(6)}
        assert not first._owned & second._owned
        mine = next(iter(first._owned))
        await until(lambda: not first._subscribing and not second._subscribing)
        await device.say(b"report", topic=f"lingdian/{mine}/up")
        await device.say(b"answer", topic=f"lingdian/{mine}/answer/g1")
        await until(lambda: houses[0].read[-2:] == [b"report", b"answer"])
        assert b"report" not in houses[1].read
        # handed to the other one
        await second.own(mine)
        await first.disown(mine)
        await device.say(b"after", topic=f"lingdian/{mine}/up")
        await until(lambda: b"after" in houses[1].read)
        assert b"after" not in houses[0].read
        # the end of a link that began with a login ends the ownership
        theirs = next(one for one in second._owned if one != mine)
        await device.say(b"offline", topic=f"lingdian/{theirs}/will")
        await until(lambda: theirs not in second._owned)


async def test_owned_terminals_are_heard_after_a_reconnection(settings: MqttSettings) -> None:
    house = House()
    settings = replace(settings, group="heads")
    async with (
        connected(settings, house) as terminals,
        terminal(settings.broker.port, "mine", version=settings.broker.version) as device,
    ):
        await terminals.own("mine")
        before = terminals.connection
        assert before is not None
        before.reset()
        await until(lambda: terminals.connected and terminals.connection is not before)
        await device.say(b"other", topic="lingdian/other/up")
        await device.say(b"1")
        await until(lambda: house.read == [b"1"])
        with pytest.raises(ConfigurationError, match="letters"):
            await terminals.own("a/#")


# who may come in -----------------------------------------------------------------------------------------


async def test_the_example_files_let_each_terminal_speak_for_itself_only(tmp_path: Path) -> None:
    passwords = tmp_path / "passwords"
    passwords.touch()
    for user in ("lingdian-gateway", "02001234", "02005678"):
        setting = await asyncio.create_subprocess_exec(
            program("mosquitto_passwd", "mosquitto"), "-b", passwords, user, "word"
        )
        assert await setting.wait() == 0
    example = EXAMPLES.joinpath("mosquitto.conf").read_text(encoding="utf-8")
    ours = {"listener", "certfile", "keyfile", "persistence_location", "password_file", "acl_file"}
    kept = [line for line in example.splitlines() if line.split(" ")[0] not in {*ours, "persistence", "#"}]
    more = [*kept, f"password_file {passwords}", f"acl_file {EXAMPLES / 'mosquitto.acl'}"]
    house = House()
    with Mosquitto(tmp_path, more="\n".join(more), bare=True) as broker:
        settings = settings_for(broker.port, "5", user="lingdian-gateway", password="word")
        async with (
            connected(settings, house),
            terminal(broker.port, "02001234", user="02001234", password="word") as device,
            terminal(broker.port, "02005678", user="02005678", password="word") as other,
        ):
            with contextlib.suppress(aiomqtt.MqttError):
                await device.say(b"I am the other", topic="lingdian/02005678/up")
            with contextlib.suppress(aiomqtt.MqttError):
                await device.say(b"a trip", topic="lingdian/02005678/down")
            await device.say(b"I am myself")
            link = await house.link()
            await other.say(b"I too")
            await (await house.link()).write(b"to the other")
            await link.write(b"to you")
            assert (await device.hears(), await other.hears()) == (b"to you", b"to the other")
            assert house.read == [b"I am myself", b"I too"]
        for wrong in (
            settings_for(broker.port, "5", user="lingdian-gateway", password="guess"),
            settings_for(broker.port, "3.1.1"),
        ):
            with pytest.raises(BrokerLost, match="Not authorized"):
                await Connection(wrong.broker, None, lambda _: None).open()


@pytest.mark.parametrize("version", VERSIONS)
async def test_tls_with_a_certificate_of_our_own(tmp_path: Path, version: str) -> None:
    authority = issue(tmp_path, "authority")
    server = issue(tmp_path, "server", authority)
    ours = issue(tmp_path, "ours", authority)
    house = House()
    with Mosquitto(tmp_path, tls=server, authority=authority) as broker:
        tls = Tls(authority.file, ours.file, ours.key)
        settings = settings_for(broker.port, version, tls=tls)
        async with (
            connected(settings, house) as terminals,
            terminal(broker.port, version=version, tls=tls.context()) as device,
        ):
            for number in range(50):
                await device.say(b"%d" % number)
            await until(lambda: len(house.read) == 50)
            link = await house.link()
            await link.write(bytes(10_000))
            assert await device.hears() == bytes(10_000)
            assert link.write_now(b"now") is Taken.WHOLE
            assert await device.hears() == b"now"
            await until(lambda: terminals.window.unsettled == 0)
        for tls, why in (
            (Tls(authority.file), "closed the connection"),
            (Tls(), "CERTIFICATE_VERIFY_FAILED"),
        ):
            connection = Connection(settings.broker, tls.context(), lambda _: None)
            with pytest.raises(BrokerLost, match=why):
                await connection.open()
        gc.collect()  # a socket that was left open would be told now


def test_tls_files_that_are_none_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"nowhere\.pem"):
        Tls(tmp_path / "nowhere.pem").context()
    (tmp_path / "empty.pem").write_text("")
    with pytest.raises(ConfigurationError, match=r"empty\.pem"):
        Tls(certificate=tmp_path / "empty.pem").context()
    assert isinstance(Tls().context(), ssl.SSLContext)


def test_the_house_runs_on_uvloop_and_so_does_this(settings: MqttSettings) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(test_frames_go_both_ways_and_the_last_will_ends_the_link(settings))
        runner.run(test_owned_terminals_are_heard_after_a_reconnection(settings))
