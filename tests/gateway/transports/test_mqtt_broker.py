"""What is reached for inside aiomqtt and paho still does what we take it for; what must leave at once does.

The broker is a socket here that says what a test wants it to say.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Literal

import pytest

from gateway.transports.link import Taken
from gateway.transports.mqtt_broker import Broker, BrokerLost, BrokerRefused, Connection, Incoming

ACCEPTED = {"3.1.1": "20020000", "5": "2003000000"}
TWO_AT_ONCE = "2006000003210002"
"""MQTT 5 CONNACK with Receive Maximum 2"""


class Peer:
    """A broker's end of one connection, read and written without the event loop."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self.listener.settimeout(10)
        self.port: int = self.listener.getsockname()[1]
        self.socket = socket.socket()

    def accept(self, answer: str) -> None:
        self.socket.close()
        self.socket, _ = self.listener.accept()
        self.socket.settimeout(10)
        self.packet()
        self.say(answer)

    def say(self, packet: str) -> None:
        self.socket.sendall(bytes.fromhex(packet))

    def exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            part = self.socket.recv(size - len(data))
            if not part:
                raise EOFError
            data += part
        return data

    def packet(self) -> bytes:
        """The next one, whole, with its fixed header cut to the first byte."""
        first, size, shift = self.exactly(1), 0, 0
        while True:
            byte = self.exactly(1)[0]
            size |= (byte & 0x7F) << shift
            shift += 7
            if not byte & 0x80:
                return first + self.exactly(size)

    def until_the_end(self) -> int:
        """How many more whole PUBLISH packets there are before it."""
        packets = 0
        with contextlib.suppress(EOFError, ConnectionResetError):
            while True:
                packets += self.packet()[0] >> 4 == 3
        return packets

    def close(self) -> None:
        self.socket.close()
        self.listener.close()


@pytest.fixture
def peer() -> Iterator[Peer]:
    made = Peer()
    yield made
    made.close()


def broker(peer: Peer, version: Literal["3.1.1", "5"]) -> Broker:
    return Broker("127.0.0.1", peer.port, version=version, write_deadline_s=5.0, connect_timeout_s=5.0)


@asynccontextmanager
async def opened(
    peer: Peer, version: Literal["3.1.1", "5"] = "5", answer: str = ""
) -> AsyncIterator[tuple[Connection, list[Incoming]]]:
    came: list[Incoming] = []
    connection = Connection(broker(peer, version), None, came.append)
    opening = asyncio.create_task(connection.open())
    await asyncio.to_thread(peer.accept, answer or ACCEPTED[version])
    await opening
    try:
        yield connection, came
    finally:
        connection.reset()
        await connection.close()


async def until_came(came: list[Incoming], number: int) -> None:
    async with asyncio.timeout(10):
        while len(came) < number:  # noqa: ASYNC110  # the callback has no event
            await asyncio.sleep(0.005)


@pytest.mark.parametrize("version", ["3.1.1", "5"])
async def test_nothing_is_acknowledged_before_we_say_so(peer: Peer, version: Literal["3.1.1", "5"]) -> None:
    none = "" if version == "3.1.1" else "00"
    size = 8 + len(none) // 2
    async with opened(peer, version) as (_, came):
        peer.say(f"3a {size:02x} 0003 612f62 0007 {none} 68")  # a duplicate, QoS 1
        peer.say(f"33 {size:02x} 0003 612f62 0008 {none} 16")  # retained, QoS 1
        peer.say(f"30 {size - 2:02x} 0003 61ff62 {none} 16")  # QoS 0, and a topic that is no UTF-8
        await until_came(came, 3)
        assert [(m.topic, m.payload, m.mid, m.qos, m.duplicate, m.retained) for m in came] == [
            ("a/b", b"\x68", 7, 1, True, False),
            ("a/b", b"\x16", 8, 1, False, True),
            (None, b"\x16", 0, 0, False, False),
        ]
        peer.socket.settimeout(0.1)
        with pytest.raises(TimeoutError):
            await asyncio.to_thread(peer.packet)
        peer.socket.settimeout(10)
        for message in reversed(came):
            message.acknowledge()
        assert [(await asyncio.to_thread(peer.packet))[:3] for _ in range(2)] == [
            b"\x40\0\x08",
            b"\x40\0\x07",
        ]


async def test_an_old_connection_acknowledges_nothing_on_the_new_one(peer: Peer) -> None:
    async with opened(peer) as (first, came):
        peer.say("32 09 0003 612f62 0007 00 68")
        await until_came(came, 1)
        first.reset()
        async with opened(peer):
            came[0].acknowledge()
            peer.socket.settimeout(0.1)
            with pytest.raises(TimeoutError):
                await asyncio.to_thread(peer.packet)


@pytest.mark.parametrize(("qos", "first"), [(0, 0x30), (1, 0x32)])
async def test_what_must_leave_at_once_has_left_before_the_loop_turns(
    peer: Peer, qos: int, first: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(peer, "3.1.1") as (connection, _):
        assert connection.publish_now("a/b", b"now", qos, 30) is Taken.WHOLE
        packet = peer.packet()  # in the loop's own thread: nothing else can have sent it
        assert packet[0] == first
        assert packet.endswith(b"now")
        assert connection.unsent == 0
        flushes = 0

        def counted() -> int:
            nonlocal flushes
            flushes += 1
            return 0

        monkeypatch.setattr(connection._paho, "loop_write", counted)
        for _ in range(20):
            await asyncio.sleep(0)
        await asyncio.sleep(0.02)
        assert flushes == 0  # no writer was left behind, to go round and round


async def test_what_must_leave_at_once_is_not_queued_behind_a_broker_that_does_not_read(peer: Peer) -> None:
    async with opened(peer) as (connection, _):
        whole = 0
        while (taken := connection.publish_now("a/b", bytes(8_000), 0, 30)) is Taken.WHOLE:
            whole += 1
            assert whole < 10_000
        if taken is Taken.NOTHING:  # it had not even begun, so the connection stands
            assert connection.up
            assert connection.publish_now("a/b", b"trip", 0, 30) is Taken.NOTHING
            connection.reset()
        assert not connection.up
        assert connection.publish_now("a/b", b"trip", 0, 30) is Taken.NOTHING
        came = await asyncio.to_thread(peer.until_the_end)
        assert came == whole or (taken is Taken.PERHAPS and came == whole + 1)


async def test_a_burst_of_what_must_leave_at_once_does_not_cut_the_connection(peer: Peer) -> None:
    """More packets than a connection that has just begun may have under way."""
    async with opened(peer, "3.1.1") as (connection, _):
        for number in range(40):
            assert connection.publish_now("a/b", b"%d" % number, 1, 30) is Taken.WHOLE
        for number in range(40):
            assert (await asyncio.to_thread(peer.packet)).endswith(b"%d" % number)


async def test_a_full_window_takes_nothing_and_writes_wait_for_the_brokers_word(peer: Peer) -> None:
    async with opened(peer, answer=TWO_AT_ONCE) as (connection, _):
        assert connection.publish_now("a", b"1", 1, 30) is Taken.WHOLE
        assert connection.publish_now("a", b"2", 1, 30) is Taken.WHOLE
        assert connection.publish_now("a", b"3", 1, 30) is Taken.NOTHING
        assert connection.up
        writing = [asyncio.create_task(connection.publish("a", b"%d" % n, 30)) for n in (4, 5)]
        mids = [(await asyncio.to_thread(peer.packet))[4:6].hex() for _ in range(2)]
        peer.say(f"40 02 {mids[0]} 40 02 {mids[1]}")
        for task in writing:
            packet = await asyncio.to_thread(peer.packet)
            assert not task.done()
            peer.say(f"40 02 {packet[4:6].hex()}")
            assert await asyncio.wait_for(task, 10)


async def test_what_the_broker_does_not_let_us_publish_is_told(peer: Peer) -> None:
    async with opened(peer) as (connection, _):
        writing = asyncio.create_task(connection.publish("a", b"1", 30))
        packet = await asyncio.to_thread(peer.packet)
        peer.say(f"40 03 {packet[4:6].hex()} 87")
        with pytest.raises(BrokerRefused, match="Not authorized"):
            await writing


async def test_an_end_before_the_brokers_word_is_told_apart(peer: Peer) -> None:
    async with opened(peer, answer=TWO_AT_ONCE) as (connection, _):
        writing = [asyncio.create_task(connection.publish("a", b"1", 30)) for _ in range(3)]
        await asyncio.to_thread(peer.packet)
        peer.socket.close()
        await asyncio.wait_for(connection.lost(), 10)
        assert await writing[0] is False  # handed over, and perhaps it has it
        assert await writing[1] is False
        with pytest.raises(BrokerLost):
            await writing[2]
        assert not connection.up
        with pytest.raises(BrokerLost):
            await connection.subscribe(["a"])


@pytest.mark.parametrize(
    ("answer", "why"), [("", "before accepting"), ("2003008700", "Not authorized"), ("ff", ".")]
)
async def test_a_broker_that_does_not_accept_us_is_told_soon(peer: Peer, answer: str, why: str) -> None:
    connection = Connection(broker(peer, "5"), None, lambda _: None)
    began = time.monotonic()
    opening = asyncio.create_task(connection.open())
    await asyncio.to_thread(peer.accept, answer)
    peer.socket.close()
    with pytest.raises(BrokerLost, match=why):
        await opening
    assert time.monotonic() - began < 4  # aiomqtt alone would wait for its 5 s


async def test_giving_up_while_it_connects_leaves_nothing_open(peer: Peer) -> None:
    connection = Connection(
        Broker("127.0.0.1", peer.port, connect_timeout_s=0.3, write_deadline_s=5), None, lambda _: None
    )
    opening = asyncio.create_task(connection.open())
    await asyncio.sleep(0.05)
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    assert connection._paho.socket() is None
