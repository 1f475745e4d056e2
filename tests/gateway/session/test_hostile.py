"""Peers that send anything at all: none of them may slow the others, or make the gateway hold more."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager

import pytest

from gateway.session.conversation import DAMAGE_ALLOWED
from gateway.session.settings import SessionSettings
from gateway.transports.tcp import TcpLimits
from gateway.transports.tcp_listener import Listener, listen
from protocols.q_gdw376.frame import Frame, build
from protocols.q_gdw376.messages import encode_unit
from protocols.q_gdw376.stream import FrameStream
from tests.gateway.session.stage import Stage, assets, noon_clock, until

Peer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[None, None, None]]

LYING = build(Frame(terminal="02001234", up=True, prm=True, function=9, afn=2, body=b"\0\0\1\0"))
LONG = b"\x68\xfe\xff\xfe\xff\x68"
"""the head of a frame of 16,391 bytes that never comes"""


async def random_bytes(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    chance = random.Random(1)
    while True:
        writer.write(chance.randbytes(4096))
        await writer.drain()


async def starts_only(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while True:
        writer.write(b"\x68" * 4096)
        await writer.drain()


async def lying_lengths(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while True:
        writer.write(LONG * 700)
        await writer.drain()


async def never_ending_frame(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(LONG)
    while True:
        writer.write(b"\x00")
        await writer.drain()
        await asyncio.sleep(0.005)


async def bad_checksums(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    wrong = LYING[:-2] + bytes([LYING[-2] ^ 1]) + LYING[-1:]
    while True:
        writer.write(wrong * 100)
        await writer.drain()


async def frames_to_terminals(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    down = build(Frame(terminal="02001234", up=False, prm=True, function=11, afn=0x0C, body=b"\0\0\2\0"))
    while True:
        writer.write(down * 100)
        await writer.drain()


async def heartbeats_without_end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    beat = build(Frame(terminal="02009999", up=True, prm=True, function=9, afn=2, body=b"\0\0\4\0", con=True))
    while True:
        writer.write(beat * 50)
        await writer.drain()
        await reader.read(65_536)


async def silent(_reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(3600)


HOSTILE: list[Peer] = [
    random_bytes,
    starts_only,
    lying_lengths,
    never_ending_frame,
    bad_checksums,
    frames_to_terminals,
    heartbeats_without_end,
    silent,
]


@asynccontextmanager
async def served(settings: SessionSettings, door: bool = True) -> AsyncIterator[tuple[Stage, Listener]]:
    made = Stage(settings, noon_clock(), assets())
    listener = await listen(
        "127.0.0.1",
        0,
        made.registry.accept,
        limits=TcpLimits(write_deadline_s=2.0),
        metrics=made.metrics,
        doorkeeper=made.registry.doorkeeper if door else None,
    )
    try:
        yield made, listener
    finally:
        await listener.close()
        await made.registry.close()


@asynccontextmanager
async def attacked(listener: Listener, peers: list[Peer]) -> AsyncIterator[None]:
    """These peers at work; each dials again when it is closed."""

    async def again_and_again(peer: Peer) -> None:
        while True:
            with contextlib.suppress(OSError):
                reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
                try:
                    await peer(reader, writer)
                finally:
                    writer.transport.abort()
            await asyncio.sleep(0.05)

    tasks = [asyncio.create_task(again_and_again(peer)) for peer in peers]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def beat_times(listener: Listener, number: int, count: int) -> list[float]:
    """How long the confirms of an honest terminal's heartbeats take."""
    reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
    stream = FrameStream()
    times = []
    for pseq in range(count):
        frame = Frame(
            terminal=f"0300{number:04x}", up=True, prm=True, function=9, afn=2,
            body=encode_unit(2, 3, 0), con=True, pseq=pseq % 16,
        )  # fmt: skip
        began = time.perf_counter()
        writer.write(build(frame))
        while True:
            data = await reader.read(4096)
            assert data, "the honest terminal was closed"
            stream.receive_data(data)
            if stream.next_event() is not None:
                break
        times.append(time.perf_counter() - began)
        await asyncio.sleep(0.02)
    writer.close()
    return times


async def test_honest_heartbeats_are_answered_in_time_among_hostile_peers() -> None:
    async with served(SessionSettings(login_deadline_s=1.0)) as (made, listener):
        async with attacked(listener, HOSTILE * 3):
            beats = await asyncio.gather(*(beat_times(listener, number, 50) for number in range(20)))
        times = sorted(time for one in beats for time in one)
        p99 = times[int(0.99 * len(times))]
        # 200 ms is asked for on a machine of its own; here attackers and other tests share its cores.
        assert p99 < 1.0, f"p99 {p99 * 1000:.0f} ms"
        assert made.count("damaged_total") > 0


@pytest.mark.parametrize("peer", HOSTILE[:6], ids=lambda peer: peer.__name__)
async def test_a_hostile_peer_is_closed_and_held_to_its_bounds(peer: Peer) -> None:
    async with served(SessionSettings(login_deadline_s=0.3), door=False) as (made, listener):
        reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
        attack = asyncio.create_task(peer(reader, writer))
        await until(lambda: bool(made.registry._peers))
        (ours,) = made.registry._peers
        held = 0

        def closed() -> bool:
            nonlocal held
            held = max(held, ours.conversation.master.held)
            return not made.registry._peers

        await until(closed, 10)
        assert held <= 16_391 + 4_096 + 1_024
        assert ours.conversation._damage_left > -3 * DAMAGE_ALLOWED
        attack.cancel()
        with contextlib.suppress(OSError):
            await asyncio.gather(attack, return_exceptions=True)
        writer.transport.abort()


async def test_two_hundred_silent_peers_cost_next_to_nothing_and_go_at_the_login_deadline() -> None:
    async with served(SessionSettings(login_deadline_s=1.0)) as (made, listener):
        writers = [(await asyncio.open_connection("127.0.0.1", listener.port))[1] for _ in range(200)]
        assert max(await beat_times(listener, 1, 5)) < 1.0
        await until(lambda: listener.connections == 0, 10)
        assert not made.registry._peers
        for writer in writers:
            writer.close()
