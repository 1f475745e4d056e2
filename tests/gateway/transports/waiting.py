"""Waiting for what has no event of its own, and reading a link to its end."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable

import uvloop

from gateway.errors import LinkClosed
from gateway.transports.link import Link

LOOPS = [asyncio.new_event_loop, uvloop.new_event_loop]
"""What is said of links holds in both: the gateway runs in the second, tests in the first."""

Loop = Callable[[], asyncio.AbstractEventLoop]


async def until(true: Callable[[], bool], seconds: float = 20.0) -> None:
    async with asyncio.timeout(seconds):
        while not true():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


async def exactly(link: Link, count: int) -> bytes:
    """So many bytes of it."""
    got = b""
    async with asyncio.timeout(20):
        while len(got) < count:
            got += (await link.read())[0]
    assert len(got) == count
    return got


async def ended(link: Link) -> str:
    """Read to the end; the words it ends with."""
    async with asyncio.timeout(20):
        try:
            while True:
                await link.read()
        except LinkClosed as error:
            return str(error)


async def echo(link: Link) -> None:
    """Give back whatever comes, until the end."""
    with contextlib.suppress(LinkClosed):
        while True:
            data, settle = await link.read()
            await link.write(data)
            await settle()


def shut_port(kind: socket.SocketKind = socket.SOCK_STREAM) -> int:
    """A port of 127.0.0.1 at which nobody is: below those that the kernel gives out by itself."""
    for port in range(20_011, 20_911, 7):
        with socket.socket(socket.AF_INET, kind) as sock:
            try:
                sock.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise AssertionError("no free port")
