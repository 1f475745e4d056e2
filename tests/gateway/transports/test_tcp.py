"""A listener with limits: what strangers do to one link must not be felt on another."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from gateway.errors import LinkClosed
from gateway.metrics import Metrics
from gateway.transports.tcp import CHUNK, TcpLimits, TcpLink
from gateway.transports.tcp_listener import OTHER_DESCRIPTORS, Listener, listen

Handler = Callable[[TcpLink], Awaitable[None]]


@asynccontextmanager
async def listening(
    on_link: Handler, limits: TcpLimits | None = None, metrics: Metrics | None = None
) -> AsyncIterator[Listener]:
    listener = await listen("127.0.0.1", 0, on_link, limits=limits, metrics=metrics)
    try:
        yield listener
    finally:
        await listener.close()


async def echo(link: TcpLink) -> None:
    with contextlib.suppress(LinkClosed):
        while True:
            data, settle = await link.read()
            await link.write(data)
            await settle()


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not true():  # noqa: ASYNC110  # what is waited for has no event
            await asyncio.sleep(0.005)


async def dial(listener: Listener) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection("127.0.0.1", listener.port)


async def test_bytes_go_both_ways_and_the_end_is_told() -> None:
    seen: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def keep_peer(link: TcpLink) -> None:
        await echo(link)
        seen.set_result(link.peer)

    async with listening(keep_peer) as listener:
        reader, writer = await dial(listener)
        writer.write(b"\x68\x16")
        assert await reader.readexactly(2) == b"\x68\x16"
        own = writer.get_extra_info("sockname")
        writer.close()
        assert await seen == f"127.0.0.1:{own[1]}"


async def test_an_answer_can_follow_the_peers_half_close() -> None:
    async def answer_at_end(link: TcpLink) -> None:
        with contextlib.suppress(LinkClosed):
            while True:
                await link.read()
        await link.write(b"done")

    async with listening(answer_at_end) as listener:
        reader, writer = await dial(listener)
        writer.write(b"question")
        writer.write_eof()
        assert await reader.read() == b"done"
        writer.close()


async def test_one_read_gives_at_most_a_chunk_and_lets_others_run_between() -> None:
    sizes: list[int] = []
    turns: list[int] = []
    done = asyncio.Event()

    async def gather(link: TcpLink) -> None:
        await until(lambda: link.waiting >= 8 * CHUNK)
        turn = 0
        loop = asyncio.get_running_loop()

        def count() -> None:
            nonlocal turn
            turn += 1
            if not done.is_set():
                loop.call_soon(count)

        loop.call_soon(count)
        for _ in range(8):
            data, _settle = await link.read()
            sizes.append(len(data))
            turns.append(turn)
        done.set()

    async with listening(gather) as listener:
        _, writer = await dial(listener)
        writer.write(bytes(8 * CHUNK))
        await writer.drain()
        await asyncio.wait_for(done.wait(), 5)
        writer.close()
    assert sizes == [CHUNK] * 8
    assert turns == sorted(set(turns))


async def test_an_unread_peer_is_held_to_its_buffer() -> None:
    limits = TcpLimits(read_buffer_bytes=32_768)
    links: list[TcpLink] = []
    go_on = asyncio.Event()
    total = 0

    async def late_reader(link: TcpLink) -> None:
        nonlocal total
        links.append(link)
        await go_on.wait()
        with contextlib.suppress(LinkClosed):
            while True:
                data, _ = await link.read()
                total += len(data)

    async with listening(late_reader, limits) as listener:
        _, writer = await dial(listener)
        amount = 30_000_000
        writer.write(bytes(amount))
        await asyncio.sleep(0.3)
        held = len(links[0]._buffer)
        assert limits.read_buffer_bytes <= held < limits.read_buffer_bytes + CHUNK < links[0].waiting
        go_on.set()
        await writer.drain()
        writer.close()
        await writer.wait_closed()
        await until(lambda: total >= amount)
        assert total == amount


async def test_a_peer_that_takes_no_bytes_is_dropped_at_the_write_deadline() -> None:
    outcome: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def flood(link: TcpLink) -> None:
        try:
            while True:
                await link.write(bytes(65_536))
        except LinkClosed as error:
            outcome.set_result(str(error))

    async with listening(flood, TcpLimits(write_deadline_s=0.2)) as listener:
        sock = socket.create_connection(("127.0.0.1", listener.port))
        try:
            assert "took no bytes for 0.2 s" in await asyncio.wait_for(outcome, 10)
        finally:
            sock.close()


async def test_a_caller_given_up_while_writing_leaves_the_link_to_others() -> None:
    first: asyncio.Future[TcpLink] = asyncio.get_running_loop().create_future()

    async def hold(link: TcpLink) -> None:
        first.set_result(link)
        with contextlib.suppress(LinkClosed):
            await link.read()

    async with listening(hold) as listener:
        reader, writer = await dial(listener)
        link = await first
        stuck = asyncio.create_task(link.write(bytes(20_000_000)))
        await asyncio.sleep(0.05)
        stuck.cancel()
        await asyncio.gather(stuck, return_exceptions=True)
        other = asyncio.create_task(link.write(b"end"))
        data = await reader.readexactly(20_000_003)
        assert data[-3:] == b"end"
        await other
        writer.close()


@pytest.mark.parametrize(
    "limits",
    [TcpLimits(connections=2), TcpLimits(connections_per_host=2)],
    ids=["in all", "of one host"],
)
async def test_connections_over_the_limit_are_refused_and_room_comes_back(limits: TcpLimits) -> None:
    metrics = Metrics()
    async with listening(echo, limits, metrics) as listener:
        kept = [await dial(listener) for _ in range(2)]
        for reader, writer in kept:
            writer.write(b"x")
            assert await reader.readexactly(1) == b"x"
        reader, writer = await dial(listener)
        with contextlib.suppress(ConnectionResetError):
            assert await reader.read() == b""
        writer.close()
        assert metrics.registry.get_sample_value("lingdian_connections_refused_total") == 1
        kept[0][1].close()
        await until(lambda: listener.connections == 1)
        reader, writer = await dial(listener)
        writer.write(b"y")
        assert await reader.readexactly(1) == b"y"
        for _, open_writer in [*kept, (reader, writer)]:
            open_writer.close()
    assert metrics.registry.get_sample_value("lingdian_connections") == 0


async def test_the_socket_is_tended_by_the_kernel() -> None:
    first: asyncio.Future[TcpLink] = asyncio.get_running_loop().create_future()

    async def hold(link: TcpLink) -> None:
        first.set_result(link)
        await echo(link)

    async with listening(hold, TcpLimits(write_deadline_s=7)) as listener:
        _, writer = await dial(listener)
        link = await first
        assert link._transport is not None
        sock = link._transport.get_extra_info("socket")
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 7000
        writer.close()


async def test_closing_the_listener_ends_every_link() -> None:
    ended = 0

    async def hold(link: TcpLink) -> None:
        nonlocal ended
        try:
            await echo(link)
        finally:
            ended += 1

    async with listening(hold) as listener:
        pairs = [await dial(listener) for _ in range(5)]
        await until(lambda: listener.connections == 5)
    assert ended == 5
    for reader, writer in pairs:
        with contextlib.suppress(ConnectionResetError):
            assert await reader.read() == b""
        writer.close()


async def test_many_dial_at_once_and_all_are_served() -> None:
    async with listening(echo) as listener:

        async def visit(number: int) -> bool:
            reader, writer = await dial(listener)
            word = number.to_bytes(4, "big")
            writer.write(word)
            same = await reader.readexactly(4) == word
            writer.close()
            return same

        assert all(await asyncio.gather(*(visit(number) for number in range(400))))


async def test_a_listener_has_the_descriptors_that_its_connections_need() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (512, hard))
        async with listening(echo, TcpLimits(connections=10)):
            few, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        async with listening(echo, TcpLimits(connections=10**9)):
            all_of_them, still = resource.getrlimit(resource.RLIMIT_NOFILE)
        assert (few, all_of_them, still) == (10 + OTHER_DESCRIPTORS, hard, hard)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
