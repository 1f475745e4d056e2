"""The same terminals over every wire, each against a plain peer, each with one fault."""

from __future__ import annotations

import asyncio
import os
import ssl
import termios
import tty
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import aiomqtt
import pytest

from simulator import channel, terminal
from simulator.district import District
from simulator.wiring import TlsFiles, Wiring, WiringError
from tests.gateway.api.test_tls import issue
from tests.gateway.transports.broker import Mosquitto
from tests.simulator.playing import DAY, Pipe, assert_true, district_on, files, master_of, until
from tests.simulator.tcp_master import TcpMaster

SIZE = (2, 120)


def grown() -> District:
    return District(7, *SIZE, DAY)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Terminals wait half a second for the confirm of a login, of the clock here."""
    monkeypatch.setattr(terminal, "CONFIRM_TIMEOUT", 0.5)


# -- TCP -------------------------------------------------------------------------------------------


async def test_terminals_dial_over_tls_with_a_certificate_and_again_after_a_cut(tmp_path: Path) -> None:
    district = grown()
    authority = issue(tmp_path, "authority")
    ours, theirs = issue(tmp_path, "master", authority), issue(tmp_path, "terminal", authority)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=authority.file)
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_cert_chain(ours.file, ours.key)
    master = master_of(district)
    server = await master.serve(context)
    where = f"tcps://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    tls = files(theirs, authority.file)
    async with district_on(where, district, tls=tls, table={"cut": {"count": 2}}) as played:
        await until(lambda: not master.missing)
    server.close()
    assert_true(master, district)
    assert played.counts["cut"] == 2
    assert played.counts["logins"] >= 4
    assert master.said["logout"] == 2


async def test_without_its_certificate_no_terminal_gets_in(tmp_path: Path) -> None:
    authority = issue(tmp_path, "authority")
    ours = issue(tmp_path, "master", authority)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=authority.file)
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_cert_chain(ours.file, ours.key)
    refused = asyncio.Event()
    asyncio.get_running_loop().set_exception_handler(lambda loop, what: refused.set())
    master = master_of(grown())
    server = await master.serve(context)
    where = f"tcps://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with district_on(where, grown(), tls=TlsFiles(authority.file)) as played:
        await asyncio.sleep(0.5)
    server.close()
    assert master.said["login"] == 0
    assert played.counts["logins"] == 0


async def test_terminals_listen_each_on_a_port_and_are_dialled_again_when_they_vanish() -> None:
    district = grown()
    master = master_of(district)
    table = {"vanish": {"count": 2, "least": 1, "most": 2}}
    where = "tcp://127.0.0.1:0"
    async with district_on(where, district, listening=True, table=table) as played:
        places = await played.places(2)
        assert set(places) == {plan.address for plan in district.terminals}
        assert len({place.port for place in places.values()}) == 2

        async def dial(place: channel.Channel) -> None:
            reader, writer = await asyncio.open_connection(place.host, place.port)
            await master.talk(reader, writer)

        first = [asyncio.create_task(dial(place)) for place in places.values()]
        # district seconds are short here: by then both have turned away from their first link
        await until(lambda: master.said["silent"] > 0 or not master.missing)
        await asyncio.sleep(0.3)
        again = [asyncio.create_task(dial(place)) for place in places.values()]
        await until(lambda: not master.missing and master.said["login"] == 4)
    assert_true(master, district)
    assert played.counts["vanish"] == 2
    for task in (*first, *again):
        task.cancel()
    await asyncio.gather(*first, *again, return_exceptions=True)


# -- UDP -------------------------------------------------------------------------------------------


class UdpMaster(asyncio.DatagramProtocol):
    """A pipe for each address that sends here."""

    def __init__(self, master: TcpMaster) -> None:
        self.master = master
        self.pipes: dict[Any, Pipe] = {}
        self.datagrams: list[bytes] = []
        self.transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def pipe(self, address: Any) -> Pipe:
        assert self.transport is not None
        transport = self.transport
        if address not in self.pipes:
            self.pipes[address] = Pipe(self.master, lambda data: transport.sendto(data, address))
        return self.pipes[address]

    def datagram_received(self, data: bytes, address: Any) -> None:
        self.datagrams.append(data)
        self.pipe(address).feed(data)


@asynccontextmanager
async def udp_master(master: TcpMaster) -> AsyncIterator[tuple[UdpMaster, int]]:
    loop = asyncio.get_running_loop()
    transport, peer = await loop.create_datagram_endpoint(
        lambda: UdpMaster(master), local_addr=("127.0.0.1", 0)
    )
    try:
        yield peer, transport.get_extra_info("sockname")[1]
    finally:
        for pipe in peer.pipes.values():
            await pipe.end()
        transport.close()


async def test_datagrams_are_lost_and_doubled_and_all_values_come_at_last(impatient: None) -> None:
    district = grown()
    master = master_of(district)
    master.reply_timeout = 0.3
    table = {"messages": {"loss": 0.15, "twice": 0.3}}
    async with (
        udp_master(master) as (peer, port),
        district_on(f"udp://127.0.0.1:{port}", district, table=table) as played,
    ):
        await until(lambda: not master.missing)
        assert all(data[0] == 0x68 and data[-1] == 0x16 for data in peer.datagrams), "a frame a datagram"
    assert_true(master, district)
    assert played.counts["message_lost"]
    assert played.counts["message_twice"]


async def test_a_terminal_that_is_sent_datagrams_logs_in_to_who_sent_the_first() -> None:
    district = District(7, 1, 20, DAY)
    master = master_of(district)
    async with (
        udp_master(master) as (peer, _),
        district_on("udp://127.0.0.1:0", district, listening=True) as played,
    ):
        (place,) = (await played.places(1)).values()
        peer.pipe((place.host, place.port)).write(b"\x00")
        await until(lambda: not master.missing)
    assert_true(master, district)


# -- serial ----------------------------------------------------------------------------------------


class Port:
    """The other end of a pseudo-terminal, opened like a serial port."""

    def __init__(self, device: str, master: TcpMaster) -> None:
        self.descriptor = os.open(device, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
        tty.setraw(self.descriptor, termios.TCSANOW)  # else it waits until we have read
        self.pipe = Pipe(master, lambda data: os.write(self.descriptor, data))
        asyncio.get_running_loop().add_reader(self.descriptor, self._readable)

    def _readable(self) -> None:
        self.pipe.feed(os.read(self.descriptor, 4096))

    async def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self.descriptor)
        await self.pipe.end()
        os.close(self.descriptor)


async def test_a_terminal_on_a_pseudo_terminal_logs_in_whenever_it_is_opened(impatient: None) -> None:
    district = District(7, 1, 60, DAY)
    master = master_of(district)
    master.reply_timeout = 0.3
    table = {"corrupt": {"fraction": 0.2}}
    async with district_on("pty", district, listening=True, table=table) as played:
        (place,) = (await played.places(1)).values()
        for logins in (1, 2):
            port = Port(place.device, master)
            await until(lambda wanted=logins: master.said["login"] >= wanted)  # type: ignore[misc]
            if logins == 2:
                await until(lambda: not master.missing)
            await port.close()
            await asyncio.sleep(0.05)  # one turn of our loop, in which the other end sees it closed
    assert_true(master, district)
    assert played.counts["corrupt"]


async def test_a_terminal_takes_a_serial_port_of_the_machine() -> None:
    district = District(7, 1, 20, DAY)
    master = master_of(district)
    ours, theirs = os.openpty()
    with ExitStack() as fds:
        fds.callback(os.close, theirs)
        os.set_blocking(ours, False)
        tty.setraw(theirs)
        pipe = Pipe(master, lambda data: os.write(ours, data))
        loop = asyncio.get_running_loop()
        loop.add_reader(ours, lambda: pipe.feed(os.read(ours, 4096)))
        where = f"serial://{os.ttyname(theirs)}?baud=9600&parity=N"
        async with district_on(where, district, table={"split": {"fraction": 0.5}}) as played:
            await until(lambda: not master.missing)
        loop.remove_reader(ours)
        await pipe.end()
        os.close(ours)
    assert_true(master, district)
    assert played.counts["split"]


# -- MQTT ------------------------------------------------------------------------------------------


class MqttMaster:
    """A pipe for each terminal that publishes; `up` counts its messages, `wills` who has gone."""

    def __init__(self, master: TcpMaster, client: aiomqtt.Client) -> None:
        self._master = master
        self._client = client
        self._pipes: dict[str, Pipe] = {}
        self.up: list[bytes] = []
        self.wills: list[str] = []
        self._outbox: asyncio.Queue[tuple[str, bytes]] = asyncio.Queue()
        self._tasks = [asyncio.create_task(self._listen()), asyncio.create_task(self._say())]

    async def _listen(self) -> None:
        async for message in self._client.messages:
            _, name, place = str(message.topic).split("/")
            assert message.qos == 1
            assert not message.retain
            if place == "will":
                self.wills.append(name)
                continue
            self.up.append(bytes(message.payload))
            if name not in self._pipes:
                topic = f"lingdian/{name}/down"
                self._pipes[name] = Pipe(
                    self._master,
                    lambda data, topic=topic: self._outbox.put_nowait((topic, data)),  # type: ignore[misc]
                )
            self._pipes[name].feed(bytes.fromhex(bytes(message.payload).decode("ascii")))

    async def _say(self) -> None:
        while True:
            topic, data = await self._outbox.get()
            await self._client.publish(topic, data.hex(), 1)

    async def end(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for pipe in self._pipes.values():
            await pipe.end()


@pytest.mark.parametrize(("version", "clients"), [("5", 0), ("3.1.1", 1)])
async def test_terminals_speak_through_a_broker_and_a_cut_one_leaves_its_last_will(
    tmp_path: Path, version: str, clients: int
) -> None:
    district = District(7, 3, 180, DAY)
    master = master_of(district)
    master.reply_timeout = 0.3
    broker = {"version": version, "payload": ("hex", "frame", None)}
    table = {"cut": {"count": 1}}
    with Mosquitto(tmp_path) as mosquitto:
        async with aiomqtt.Client("127.0.0.1", mosquitto.port) as client:
            await client.subscribe([("lingdian/+/up", 1), ("lingdian/+/will", 1)])
            peer = MqttMaster(master, client)
            where = f"mqtt://127.0.0.1:{mosquitto.port}"
            async with district_on(where, district, table=table, broker=broker, clients=clients) as played:
                await until(lambda: not master.missing)
                await until(lambda: len(peer.wills) == 1)
            await until(lambda: len(peer.up) + len(peer.wills) >= played.counts["mqtt_acknowledged"])
            await peer.end()
    assert_true(master, district)
    assert played.counts["cut"] == 1
    assert master.said["logout"] == 3
    assert played.counts["mqtt_acknowledged"] == played.counts["mqtt_published"] > 0
    by_will_message = len(peer.wills) if clients else 0
    assert played.counts["mqtt_acknowledged"] - by_will_message == len(peer.up)


async def test_when_the_broker_goes_terminals_are_back_with_it(tmp_path: Path, impatient: None) -> None:
    district = District(7, 2, 120, DAY)
    where_to_hear = [("lingdian/+/up", 1), ("lingdian/+/will", 1)]
    broker = {"payload": ("hex", "frame", None)}
    with Mosquitto(tmp_path) as mosquitto:
        where = f"mqtt://127.0.0.1:{mosquitto.port}"
        async with district_on(where, district, broker=broker, clients=2) as played:
            for life in (1, 2):
                master = master_of(district)
                master.reply_timeout = 0.3
                async with aiomqtt.Client("127.0.0.1", mosquitto.port) as client:
                    await client.subscribe(where_to_hear)
                    peer = MqttMaster(master, client)
                    await until(lambda: master.said["login"] >= 2)  # noqa: B023  # it is done with at once
                    await until(lambda: not master.missing)  # noqa: B023
                    if life == 2:
                        played.stop.set()
                        await until(lambda: len(peer.wills) == 2)  # noqa: B023
                    await peer.end()
                if life == 1:
                    mosquitto.stop(at_once=True)
                    mosquitto.start()
    assert_true(master, district)
    assert played.counts["logins"] >= 4
    assert master.said["logout"] == 2


# -- what cannot be --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("where", "listening"),
    [("mqtt://127.0.0.1", True), ("tcp://127.0.0.1:0", False), ("pty", False), ("tcps://127.0.0.1:0", True)],
)
def test_wires_that_cannot_be_are_refused(where: str, listening: bool) -> None:
    with pytest.raises(WiringError):
        Wiring(channel.parse(where), listening=listening)


@pytest.mark.parametrize(
    "text",
    ["nowhere", "tcp://h:99999", "http://h:1", "serial://tty", "serial:///dev/x?speed=1", "tcp://h:1/x"],
)
def test_what_is_no_channel_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"HOST:PORT|channel|serial port|follow"):
        channel.parse(text)
