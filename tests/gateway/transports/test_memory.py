"""The pair in memory keeps the manners of a link, and its faults come again with the same seed."""

from __future__ import annotations

import asyncio

import pytest

from gateway.errors import LinkClosed
from gateway.transports.link import Link
from gateway.transports.memory import Line, MemoryLink, pair
from gateway.transports.tcp import TcpLink


def both_are_links(one: MemoryLink, two: TcpLink) -> tuple[Link, Link]:
    """Checked by the type checker: both satisfy the protocol."""
    return one, two


async def test_what_is_written_at_one_end_is_read_at_the_other() -> None:
    ours, theirs = pair()
    await theirs.write(b"up")
    await ours.write(b"down")
    assert (await ours.read())[0] == b"up"
    assert (await theirs.read())[0] == b"down"
    assert ours.source == "192.0.2.1"


async def test_the_other_end_reads_what_was_written_before_the_close() -> None:
    ours, theirs = pair(up=Line(delay_s=(0.02, 0.02)))
    await theirs.write(b"last words")
    await theirs.close()
    assert (await ours.read())[0] == b"last words"
    with pytest.raises(LinkClosed):
        await ours.read()
    with pytest.raises(LinkClosed):
        await ours.write(b"x")


async def test_a_vanished_peer_is_not_noticed() -> None:
    ours, theirs = pair()
    theirs.vanish()
    await ours.write(b"anyone?")
    await theirs.write(b"lost")
    assert not ours.ended
    assert ours.waiting == theirs.waiting == 0


async def collect(line: Line, seed: int) -> bytes:
    ours, theirs = pair(seed, up=line)
    for number in range(100):
        await theirs.write(number.to_bytes(4, "big"))
    await theirs.close()
    got = b""
    while True:
        try:
            got += (await ours.read())[0]
        except LinkClosed:
            return got


async def test_faults_come_again_with_the_same_seed() -> None:
    line = Line(loss=0.2, corrupt=0.2, split=0.5)
    first = await collect(line, 7)
    assert first == await collect(line, 7)
    assert first != await collect(line, 8)
    assert len(first) < 400


async def test_split_and_delay_keep_every_byte_in_order() -> None:
    line = Line(split=0.9, delay_s=(0.0, 0.002))
    assert await collect(line, 1) == b"".join(number.to_bytes(4, "big") for number in range(100))


async def test_a_writer_waits_for_a_reader_and_gives_up_at_the_deadline() -> None:
    ours, theirs = pair(limit=10, write_deadline_s=0.1)
    writing = asyncio.create_task(theirs.write(bytes(11)))
    await asyncio.sleep(0.01)
    assert not writing.done()
    await ours.read()
    await writing
    with pytest.raises(LinkClosed, match="took no bytes"):
        await theirs.write(bytes(11))
