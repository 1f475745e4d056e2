"""TCP as client: to serial servers, and to terminals that listen."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Sequence
from typing import Any, Final

from gateway.errors import LinkClosed
from gateway.transports.channel import spelled
from gateway.transports.tcp import TcpLimits, TcpLink

CONNECT_S: Final = 10.0
"""A terminal behind GPRS that has gone to sleep takes some seconds to answer the first packet."""

ADDRESSES: Final = 4
"""As many of a name's addresses are tried, each for its share of the time."""


async def connect(
    host: str, port: int, *, limits: TcpLimits | None = None, timeout_s: float = CONNECT_S
) -> TcpLink:
    """A link to `host:port`. Raises LinkClosed within `timeout_s`."""
    place = spelled(host, port)
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(timeout_s):
            found = (await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM))[:ADDRESSES]
            sock = await _first(found, timeout_s / len(found))
            try:
                if sock.getsockname() == sock.getpeername():
                    # a free port of our own, dialled by chance from itself
                    raise ConnectionRefusedError("nobody listens there")
                _, link = await loop.create_connection(
                    lambda: TcpLink(_Alone(), limits or TcpLimits()), sock=sock
                )
            except BaseException:
                sock.close()
                raise
    except OSError as error:
        why = "no answer" if isinstance(error, TimeoutError) else said(error)
        raise LinkClosed(
            f"{place} cannot be reached 无法连接: {why};"
            " check the address, the way to it, and that it listens"
        ) from error
    if not link.peer:
        raise LinkClosed(f"{place} has closed the link 对方关闭了连接")
    return link


def said(error: OSError) -> str:
    """Why, in the kernel's or the resolver's words: asyncio's own only name the address again."""
    if error.errno is not None and error.errno > 0:
        return os.strerror(error.errno)
    return error.strerror or str(error)


async def _first(found: Sequence[tuple[Any, ...]], share_s: float) -> socket.socket:
    """A socket connected to the first of the addresses that answers. OSError: the last one's."""
    loop = asyncio.get_running_loop()
    trouble: OSError = OSError("the name has no address")
    for family, kind, protocol, _, address in found:
        sock = socket.socket(family, kind, protocol)
        try:
            sock.setblocking(False)
            async with asyncio.timeout(share_s):
                await loop.sock_connect(sock, address)
        except OSError as error:
            sock.close()
            trouble = error
        except BaseException:
            sock.close()
            raise
        else:
            return sock
    raise trouble


class _Alone:
    """Nobody counts a dialled link but its dialler."""

    def made(self, link: TcpLink) -> None:
        """See `tcp.Owner`."""

    def heard(self, link: TcpLink) -> None:
        """See `tcp.Owner`."""

    def lost(self, link: TcpLink) -> None:
        """See `tcp.Owner`."""
