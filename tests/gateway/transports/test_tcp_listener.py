"""The door of a listener: what is done for a peer before it may enter, and that nobody is forgotten there."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from gateway.errors import LinkClosed
from gateway.metrics import Metrics
from gateway.transports.tcp import TcpLimits, TcpLink
from gateway.transports.tcp_listener import Listener, listen
from tests.gateway.transports.test_tcp import dial, until
from tests.gateway.transports.waiting import LOOPS, Loop

WORD = b"open"


class Keeper:
    """Lets in whoever has said WORD, and asks for `step` bytes before it hears of anybody again; satisfies
    `Doorkeeper`."""

    def __init__(self, stay_s: float = 60.0, step: int = 1) -> None:
        self.asked: list[bytes] = []
        self.away: list[bytes] = []
        self._stay_s = stay_s
        self._step = step

    def stay_s(self) -> float:
        return self._stay_s

    def missing(self, said: bytearray) -> int:
        self.asked.append(bytes(said))
        return 0 if WORD in said else self._step

    def turned_away(self, peer: str, said: bytes) -> None:
        assert peer.startswith("127.0.0.1:")
        self.away.append(said)


class House:
    """Behind the door: what each that entered has said until its end."""

    def __init__(self, listener: Listener, metrics: Metrics) -> None:
        self.listener = listener
        self.metrics = metrics
        self.heard: list[bytes] = []
        self.left = 0

    @property
    def open_connections(self) -> float | None:
        return self.metrics.registry.get_sample_value("lingdian_connections")


@asynccontextmanager
async def house(keeper: Keeper | None, limits: TcpLimits | None = None) -> AsyncIterator[House]:
    async def come_in(link: TcpLink) -> None:
        place = len(made.heard)
        made.heard.append(b"")
        with contextlib.suppress(LinkClosed):
            while True:
                data, _ = await link.read()
                made.heard[place] += data
        made.left += 1

    metrics = Metrics()
    listener = await listen("127.0.0.1", 0, come_in, limits=limits, metrics=metrics, doorkeeper=keeper)
    made = House(listener, metrics)
    try:
        yield made
    finally:
        await listener.close()


async def test_nothing_is_begun_for_who_says_nothing_and_its_link_is_closed_in_time() -> None:
    keeper = Keeper(stay_s=0.3)
    async with house(keeper) as made:
        tasks = len(asyncio.all_tasks())
        peers = [await dial(made.listener) for _ in range(20)]
        await until(lambda: made.listener.connections == 20)
        assert len(asyncio.all_tasks()) == tasks
        for reader, writer in peers:
            with contextlib.suppress(ConnectionResetError):
                assert await reader.read() == b""
            writer.close()
        await until(lambda: made.listener.connections == 0)
    assert keeper.away == [b""] * 20
    assert made.heard == []
    assert made.open_connections == 0


async def test_a_word_that_comes_byte_by_byte_is_heard_whole_and_so_is_what_follows() -> None:
    keeper = Keeper()
    async with house(keeper) as made:
        _, writer = await dial(made.listener)
        for byte in b"noise" + WORD:
            assert made.heard == []
            writer.write(bytes([byte]))
            await asyncio.sleep(0.01)
        await until(lambda: made.heard == [b"noise" + WORD])
        writer.write(b" and more")
        await until(lambda: made.heard == [b"noise" + WORD + b" and more"])
        assert made.listener.connections == 1
        writer.close()
        await until(lambda: made.listener.connections == 0)
    assert keeper.away == []
    assert made.open_connections == 0


async def test_who_stays_too_long_is_turned_away_with_what_it_said() -> None:
    keeper = Keeper(stay_s=0.8)
    async with house(keeper) as made:
        peers = [await dial(made.listener) for _ in range(10)]
        while len(keeper.away) < 10:
            for _, writer in peers:  # never quiet
                if not writer.is_closing():
                    writer.write(b"x")
            await asyncio.sleep(0.1)
            assert made.heard == []
        for _, writer in peers:
            writer.close()
        await until(lambda: made.listener.connections == 0)
    assert {byte for said in keeper.away for byte in said} == {ord("x")}


async def test_who_speaks_and_hangs_up_is_heard() -> None:
    async with house(Keeper()) as made:
        _, writer = await dial(made.listener)
        writer.write(b"bye")
        writer.write_eof()
        await until(lambda: made.left == 1)
        writer.close()
        await until(lambda: made.listener.connections == 0)
    assert made.heard == [b"bye"]


@pytest.mark.parametrize("loop", LOOPS)
def test_the_kernel_keeps_what_is_too_short_and_nobody_is_forgotten_for_it(loop: Loop) -> None:
    async def body() -> None:
        keeper = Keeper(stay_s=2.0, step=8)
        async with house(keeper) as made:
            links = [(await dial(made.listener))[1] for _ in range(3)]
            known, short, restless = links
            known.write(b"noise" + WORD[:2])
            short.write(b"bye")
            await asyncio.sleep(0.05)
            assert {*keeper.asked} == {b""}  # nobody was woken for these
            known.write(WORD[2:])
            short.write_eof()
            await until(lambda: {*made.heard} == {b"noise" + WORD, b"bye"})
            written = 0
            while not keeper.away:
                restless.write(b"x")
                written += 1
                await asyncio.sleep(0.05)
            assert {*made.heard} == {b"noise" + WORD, b"bye"}
            known.write(b"!")  # who has entered is heard at once again
            await until(lambda: b"noise" + WORD + b"!" in made.heard)
            (away,) = keeper.away
            assert away == b"x" * len(away)
            assert written - 2 <= len(away) <= written
            for writer in links:
                writer.close()
            await until(lambda: made.listener.connections == 0)

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(body())


async def test_the_kernel_looks_after_a_link_that_has_come_in_by_the_door() -> None:
    async with house(Keeper(), TcpLimits(write_deadline_s=7.0)) as made:
        _, writer = await dial(made.listener)
        writer.write(WORD)
        await until(lambda: made.heard == [WORD])
        (link,) = made.listener._links
        sock = link._socket()
        assert sock is not None
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 7_000
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT) == 1
        writer.close()


async def test_who_goes_without_a_word_is_forgotten() -> None:
    keeper = Keeper()
    async with house(keeper) as made:
        _, writer = await dial(made.listener)
        await until(lambda: made.listener.connections == 1)
        writer.transport.abort()
        await until(lambda: made.listener.connections == 0)
        assert made.open_connections == 0
    assert keeper.away == []
    assert made.heard == []


async def test_those_at_the_door_count_for_the_limits() -> None:
    async with house(Keeper(), TcpLimits(connections_per_host=2)) as made:
        kept = [await dial(made.listener) for _ in range(2)]
        await until(lambda: made.listener.connections == 2)
        reader, refused = await dial(made.listener)
        with contextlib.suppress(ConnectionResetError):
            assert await reader.read() == b""
        refused.close()
        kept[0][1].transport.abort()
        await until(lambda: made.listener.connections == 1)
        _, writer = await dial(made.listener)
        writer.write(WORD)
        await until(lambda: made.heard == [WORD])
        kept[1][1].close()
        writer.close()


async def test_a_flood_at_the_door_is_held_to_the_read_buffer() -> None:
    class Deaf(Keeper):
        def missing(self, said: bytearray) -> int:
            return 1

    async with house(Deaf(), TcpLimits(read_buffer_bytes=8_192)) as made:
        _, writer = await dial(made.listener)
        writer.write(bytes(20_000_000))
        await asyncio.sleep(0.3)
        (link,) = made.listener._at_door
        assert 8_192 <= len(link.unread) < 8_192 + 2_048
        writer.transport.abort()


async def test_closing_the_listener_ends_those_at_the_door() -> None:
    keeper = Keeper()
    async with house(keeper) as made:
        reader, writer = await dial(made.listener)
        await until(lambda: made.listener.connections == 1)
    with contextlib.suppress(ConnectionResetError):
        assert await asyncio.wait_for(reader.read(), 5) == b""
    writer.close()
    await until(lambda: made.listener.connections == 0)
    assert keeper.away == []
