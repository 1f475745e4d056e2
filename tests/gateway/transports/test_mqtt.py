"""Terminals over a real Mosquitto, in both versions of the protocol."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import ssl
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiomqtt
import pytest
import uvloop

from gateway.clock import Clock
from gateway.errors import ConfigurationError, LinkClosed
from gateway.transports import mqtt
from gateway.transports.link import Taken
from gateway.transports.mqtt_broker import BrokerLost, Connection, Tls
from gateway.transports.mqtt_link import MqttLink
from gateway.transports.mqtt_settings import MqttSettings
from gateway.transports.mqtt_topics import Topics
from tests.gateway.api.test_tls import issue
from tests.gateway.transports.broker import Mosquitto, terminal, until
from tests.gateway.transports.mqtt_house import VERSIONS, House, connected, settings_for
from tests.programs import program

WORD = "02001234"
EXAMPLES = Path(__file__).parents[3] / "docs" / "mqtt"

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


async def test_a_link_is_for_the_terminal_of_its_topic_where_that_is_an_address() -> None:
    async def unused(link: MqttLink) -> None:
        raise AssertionError

    terminals = mqtt.MqttTerminals(settings_for(1, "5"), unused, Clock(), None)
    for name in ("02001234", "0200ABcd"):
        assert MqttLink(terminals, name).only_for == frozenset({name.lower()})
    for name in ("concentrator7", "0200123", "020012345", "0200123g"):
        assert MqttLink(terminals, name).only_for is None


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


# the loop it runs in -------------------------------------------------------------------------------------


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


def test_the_house_runs_on_uvloop_and_so_does_this(settings: MqttSettings) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(test_frames_go_both_ways_and_the_last_will_ends_the_link(settings))
        runner.run(test_owned_terminals_are_heard_after_a_reconnection(settings))
