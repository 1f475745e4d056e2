"""Bytes that must leave at once or not at all, over real sockets and both event loops."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable

import pytest
import uvloop

from gateway.errors import LinkClosed
from gateway.transports.link import Taken
from gateway.transports.tcp import TcpLink
from gateway.transports.tcp_listener import listen

Scene = Callable[[TcpLink, socket.socket], Awaitable[None]]
LOOPS = [asyncio.new_event_loop, uvloop.new_event_loop]


def played(loop: Callable[[], asyncio.AbstractEventLoop], scene: Scene) -> None:
    """Run `scene` with a link and the peer's blocking socket, in a loop of that kind."""

    async def play() -> None:
        links: asyncio.Queue[TcpLink] = asyncio.Queue()
        over = asyncio.Event()

        async def keep(link: TcpLink) -> None:
            links.put_nowait(link)
            await over.wait()

        listener = await listen("127.0.0.1", 0, keep)
        peer = socket.socket()
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        peer.settimeout(5)
        try:
            await asyncio.to_thread(peer.connect, ("127.0.0.1", listener.port))
            await scene(await asyncio.wait_for(links.get(), 5), peer)
        finally:
            over.set()
            peer.close()
            await listener.close()

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(asyncio.wait_for(play(), 20))


async def ended(link: TcpLink) -> None:
    with contextlib.suppress(LinkClosed):
        async with asyncio.timeout(5):
            while True:
                await link.read()


def all_of(peer: socket.socket) -> bytes:
    """What the peer gets until the end; a reset is an end."""
    got = b""
    with contextlib.suppress(ConnectionResetError):
        while data := peer.recv(65_536):
            got += data
    return got


@pytest.mark.parametrize("loop", LOOPS)
def test_bytes_are_on_their_way_when_it_returns(loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    async def scene(link: TcpLink, peer: socket.socket) -> None:
        assert link.write_now(b"\x68trip\x16") is Taken.WHOLE
        # no await since: the loop had no turn in which it could have sent them
        assert peer.recv(100) == b"\x68trip\x16"
        await link.write(b"then")
        assert await asyncio.to_thread(peer.recv, 100) == b"then"
        assert link.unsent == 0

    played(loop, scene)


@pytest.mark.parametrize("loop", LOOPS)
def test_where_others_wait_to_leave_nothing_is_written_and_the_link_is_reset(
    loop: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    async def scene(link: TcpLink, peer: socket.socket) -> None:
        writing = asyncio.ensure_future(link.write(b"\xfe" * 8_000_000))
        await asyncio.sleep(0.1)
        assert link.unsent > 0
        assert link.write_now(b"\x68trip\x16") is Taken.NOTHING
        with pytest.raises(LinkClosed):
            await asyncio.wait_for(writing, 5)
        await ended(link)
        assert b"trip" not in await asyncio.to_thread(all_of, peer)

    played(loop, scene)


@pytest.mark.parametrize("loop", LOOPS)
def test_a_window_that_is_shut_is_no_way_out(loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    """The kernel would take the bytes, and send them whenever the peer wakes up."""

    async def scene(link: TcpLink, peer: socket.socket) -> None:
        outcome = Taken.WHOLE
        written = 0
        while outcome is Taken.WHOLE and written < 10_000_000:
            outcome = link.write_now(b"\xfe" * 1000)
            assert outcome is not Taken.WHOLE or link.unsent == 0
            written += 1000
        assert outcome is not Taken.WHOLE
        assert link.write_now(b"\x68trip\x16") is Taken.NOTHING
        await ended(link)
        assert b"trip" not in await asyncio.to_thread(all_of, peer)

    played(loop, scene)


@pytest.mark.parametrize("loop", LOOPS)
def test_on_a_link_that_has_ended_nothing_is_written(loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    async def scene(link: TcpLink, peer: socket.socket) -> None:
        peer.shutdown(socket.SHUT_WR)
        await ended(link)
        assert link.write_now(b"\x68trip\x16") is Taken.NOTHING
        assert await asyncio.to_thread(all_of, peer) == b""
        assert link.write_now(b"\x68trip\x16") is Taken.NOTHING
        assert link.unsent == 0

    played(loop, scene)
