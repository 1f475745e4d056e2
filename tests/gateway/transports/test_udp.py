"""Datagrams as links: many addresses, forged ones, floods, and all of it bounded."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

import pytest

from gateway.errors import LinkClosed
from gateway.metrics import Metrics
from gateway.transports import udp
from gateway.transports.link import Taken
from gateway.transports.udp_link import CHUNK, UdpLimits, UdpLink
from tests.gateway.transports.waiting import LOOPS, Loop, echo, ended, exactly, shut_port, until


@asynccontextmanager
async def listening(
    on_link: Callable[[UdpLink], Awaitable[None]] = echo,
    limits: UdpLimits | None = None,
    metrics: Metrics | None = None,
) -> AsyncIterator[udp.Listener]:
    listener = await udp.listen("127.0.0.1", 0, on_link, limits=limits, metrics=metrics)
    try:
        yield listener
    finally:
        await listener.close()


@contextmanager
def peers(listener: udp.Listener, count: int) -> Iterator[list[socket.socket]]:
    """So many addresses that send to it."""
    with contextlib.ExitStack() as open_:
        socks = [open_.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) for _ in range(count)]
        for sock in socks:
            sock.settimeout(10)
            sock.connect(("127.0.0.1", listener.port))
        yield socks


async def answer(sock: socket.socket) -> bytes:
    return await asyncio.to_thread(sock.recv, 65_535)


def value(metrics: Metrics, name: str) -> float:
    return metrics.registry.get_sample_value(name) or 0.0


def in_loop(loop: Loop, scene: Callable[[], Awaitable[None]]) -> None:
    async def play() -> None:
        await asyncio.wait_for(scene(), 60)

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(play())


class Kept:
    """An owner that holds every link and reads none until told."""

    def __init__(self) -> None:
        self.links: list[UdpLink] = []
        self.read: dict[UdpLink, bytes] = {}
        self.go_on = asyncio.Event()

    async def __call__(self, link: UdpLink) -> None:
        self.links.append(link)
        self.read[link] = b""
        await self.go_on.wait()
        with contextlib.suppress(LinkClosed):
            while True:
                self.read[link] += (await link.read())[0]


@pytest.mark.parametrize("loop", LOOPS)
def test_each_address_has_a_link_of_its_own(loop: Loop) -> None:
    async def scene() -> None:
        async with listening() as listener:
            with peers(listener, 50) as socks:
                for number, sock in enumerate(socks):
                    sock.send(b"\x68%d\x16" % number)
                for number, sock in enumerate(socks):
                    assert await answer(sock) == b"\x68%d\x16" % number
                assert listener.connections == 50
                links = [*listener._peers.values()]
                assert {link.source for link in links} == {"127.0.0.1"}
                assert {link.peer for link in links} == {
                    f"127.0.0.1:{sock.getsockname()[1]}" for sock in socks
                }
        assert listener.connections == 0

    in_loop(loop, scene)


@pytest.mark.parametrize("loop", LOOPS)
def test_a_client_and_a_listener_speak(loop: Loop) -> None:
    async def scene() -> None:
        async with listening() as listener:
            link = await udp.connect("127.0.0.1", listener.port)
            await link.write(b"\x68ask\x16")
            assert await exactly(link, 5) == b"\x68ask\x16"
            assert link.write_now(b"\x68now\x16") is Taken.WHOLE
            assert await exactly(link, 5) == b"\x68now\x16"
            assert (link.peer, link.source) == (f"127.0.0.1:{listener.port}", "127.0.0.1")
            assert link.certified_as is None
            await link.close()
            assert link.write_now(b"x") is Taken.NOTHING
            with pytest.raises(LinkClosed):
                await link.write(b"x")

    in_loop(loop, scene)


@pytest.mark.parametrize("loop", LOOPS)
def test_a_port_that_is_shut_ends_the_link(loop: Loop) -> None:
    async def scene() -> None:
        link = await udp.connect("127.0.0.1", shut_port(socket.SOCK_DGRAM))
        await link.write(b"anyone?")
        assert "cannot be reached" in await ended(link)
        assert link.write_now(b"x") is Taken.NOTHING
        with pytest.raises(LinkClosed, match="no-such-host"):
            await udp.connect("no-such-host.invalid", 1)

    in_loop(loop, scene)


async def test_only_the_peer_is_heard_by_a_client() -> None:
    async with listening() as listener:
        link = await udp.connect("127.0.0.1", listener.port)
        await link.write(b"me")
        assert await exactly(link, 2) == b"me"
        (address,) = listener._peers
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
            stranger.sendto(b"false", address)
        await link.write(b"again")
        assert await exactly(link, 5) == b"again"
        await link.close()


async def test_a_long_datagram_is_read_in_chunks_and_an_empty_one_is_none() -> None:
    kept = Kept()
    async with listening(kept) as listener:
        with peers(listener, 1) as (sock,):
            sock.send(b"")
            sock.send(b"\x68" * 5000)
            await until(lambda: len(kept.links) == 1)
            (link,) = kept.links
            await until(lambda: link.waiting == 5000)
            sizes = [len((await link.read())[0]) for _ in range(3)]
            assert sizes == [CHUNK, CHUNK, 5000 - 2 * CHUNK]
            assert link.waiting == 0
            with pytest.raises(LinkClosed, match="long"):
                await link.write(bytes(70_000))


@pytest.mark.parametrize(
    ("limits", "size", "left"),
    [(UdpLimits(queue_datagrams=5), 10, 5), (UdpLimits(queue_bytes=3000), 1000, 3)],
    ids=["datagrams", "bytes"],
)
async def test_a_peer_that_is_not_read_loses_its_oldest(limits: UdpLimits, size: int, left: int) -> None:
    kept, metrics = Kept(), Metrics()
    async with listening(kept, limits, metrics) as listener:
        with peers(listener, 1) as (sock,):
            for number in range(20):
                sock.send(bytes([number]) * size)
            await until(lambda: value(metrics, "lingdian_datagrams_dropped_total") == 20 - left)
            (link,) = kept.links
            assert link.waiting == left * size
            kept.go_on.set()
            await until(lambda: link.waiting == 0)
            assert kept.read[link] == b"".join(bytes([number]) * size for number in range(20 - left, 20))
            sock.send(bytes(limits.queue_bytes + 1) if limits.queue_bytes < 60_000 else b"")
            sock.send(b"end")
            await until(lambda: kept.read[link].endswith(b"end"))
            assert b"\x00\x00" not in kept.read[link]


@pytest.mark.parametrize("loop", LOOPS)
def test_a_flood_from_many_addresses_is_bounded_and_pushes_out_no_peer(loop: Loop) -> None:
    async def scene() -> None:
        metrics = Metrics()
        most = 0

        async def silent_to_strangers(link: UdpLink) -> None:
            nonlocal most
            most = max(most, listener.connections)
            with contextlib.suppress(LinkClosed):
                while True:
                    data, _ = await link.read()
                    if data.startswith(b"\x68"):
                        await link.write(data)

        limits = UdpLimits(peers=20, newcomers=10)
        async with listening(silent_to_strangers, limits, metrics) as listener:
            with peers(listener, 10) as terminals, peers(listener, 300) as strangers:
                for sock in terminals:
                    sock.send(b"\x68login\x16")
                    assert await answer(sock) == b"\x68login\x16"
                for stranger in strangers:
                    stranger.send(b"flood")
                    await asyncio.sleep(0)
                await until(lambda: value(metrics, "lingdian_connections_refused_total") >= 290)
                assert listener.connections == 20
                assert most <= 20
                links = set(listener._peers.values())
                for sock in terminals:
                    sock.send(b"\x68still here\x16")
                    assert await answer(sock) == b"\x68still here\x16"
                assert set(listener._peers.values()) == links
                assert value(metrics, "lingdian_connections") == 20
        assert value(metrics, "lingdian_connections") == 0
        assert not listener._tasks

    in_loop(loop, scene)


async def test_with_its_table_full_the_peer_that_was_silent_longest_goes() -> None:
    metrics = Metrics()
    async with listening(limits=UdpLimits(peers=3), metrics=metrics) as listener:
        with peers(listener, 4) as socks:
            for sock in (*socks[:3], socks[0]):
                sock.send(b"x")
                assert await answer(sock) == b"x"
            socks[3].send(b"x")
            assert await answer(socks[3]) == b"x"
            stay = {sock.getsockname() for sock in (socks[0], socks[2], socks[3])}
            assert set(listener._peers) == stay
            assert value(metrics, "lingdian_connections_refused_total") == 1
            socks[1].send(b"y")  # it comes back as if it were new
            assert await answer(socks[1]) == b"y"


async def test_links_whose_owners_hang_do_not_pile_up() -> None:
    metrics = Metrics()

    async def hang(link: UdpLink) -> None:
        await asyncio.Event().wait()

    async with listening(hang, UdpLimits(peers=1, newcomers=4), metrics) as listener:
        with peers(listener, 40) as socks:
            for sock in socks:
                sock.send(b"x")
            await until(lambda: value(metrics, "lingdian_datagrams_dropped_total") >= 31)
            assert len(listener._tasks) == 9
            assert listener.connections == 4


async def test_who_is_silent_too_long_is_forgotten() -> None:
    async with listening(limits=UdpLimits(idle_s=0.3)) as listener:
        with peers(listener, 2) as (silent, speaking):
            silent.send(b"x")
            assert await answer(silent) == b"x"
            (link,) = listener._peers.values()
            speaking.send(b"x")
            assert await answer(speaking) == b"x"
            other = listener._peers[speaking.getsockname()]

            async def speak() -> None:
                while True:
                    speaking.send(b"x")
                    await asyncio.sleep(0.02)

            task = asyncio.create_task(speak())
            await until(lambda: link._ended)
            task.cancel()
            assert listener._peers == {speaking.getsockname(): other}
            with pytest.raises(LinkClosed, match=r"silent for 0\.3 s"):
                await link.write(b"x")


@pytest.mark.parametrize("loop", LOOPS)
def test_without_room_in_the_kernel_writers_wait_in_turn_and_urgent_bytes_do_not(loop: Loop) -> None:
    async def scene() -> None:
        link = await udp.connect("127.0.0.1", shut_port(socket.SOCK_DGRAM))
        owner = link._owner
        assert isinstance(owner, udp._Client)
        full, sent = [True], []

        def send(data: bytes, address: object) -> None:
            if full[0]:
                raise BlockingIOError
            sent.append(data)

        owner._socket.send = send  # type: ignore[method-assign]
        writing = [asyncio.create_task(link.write(bytes([number]))) for number in range(3)]
        await until(lambda: link.unsent == 3)
        full[0] = False
        await asyncio.gather(*writing)
        assert sent == [b"\x00", b"\x01", b"\x02"]
        assert link.unsent == 0
        full[0] = True
        waiting = asyncio.create_task(link.write(b"late"))
        await until(lambda: link.unsent == 4)
        full[0] = False
        assert link.write_now(b"\x68trip\x16") is Taken.NOTHING
        with pytest.raises(LinkClosed):
            await waiting
        assert sent == [b"\x00", b"\x01", b"\x02"]

    in_loop(loop, scene)


async def test_a_writer_without_room_gives_up_at_the_deadline() -> None:
    link = await udp.connect(
        "127.0.0.1", shut_port(socket.SOCK_DGRAM), limits=UdpLimits(write_deadline_s=0.1)
    )
    owner = link._owner
    assert isinstance(owner, udp._Client)

    def send(data: bytes, address: object) -> None:
        raise BlockingIOError

    owner._socket.send = send  # type: ignore[method-assign]
    with pytest.raises(LinkClosed, match=r"took no bytes for 0\.1 s"):
        await link.write(b"x")
    assert link.write_now(b"x") is Taken.NOTHING


async def test_an_address_that_is_taken_is_an_error() -> None:
    async with listening() as listener:
        with pytest.raises(OSError, match="in use"):
            await udp.listen("127.0.0.1", listener.port, echo)
