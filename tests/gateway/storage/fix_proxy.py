"""A proxy before a PostgreSQL server that can cut the line at a chosen moment, or hold back its answers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

from psycopg.conninfo import conninfo_to_dict, make_conninfo


@dataclass
class Proxy:
    """conninfo leads through the proxy. `cut_after`: part of a client's message after which the line is cut,
    `cuts` times; `open`: False refuses connections; `answers`: cleared, no answer comes back."""

    conninfo: str
    cut_after: bytes = b""
    cuts: int = 0
    open: bool = True
    answers: asyncio.Event = field(default_factory=asyncio.Event)
    connections: int = 0


@asynccontextmanager
async def proxy_before(conninfo: str) -> AsyncIterator[Proxy]:
    """A proxy on a free loopback port before the server of `conninfo`, which listens on a unix socket."""
    parts = conninfo_to_dict(conninfo)
    socket = f"{parts['host']}/.s.PGSQL.{parts.get('port') or 5432}"
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            if proxy.open:
                proxy.connections += 1
                await join(reader, writer)
        finally:
            tasks.discard(task)
            writer.transport.abort()

    async def join(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server_reader, server_writer = await asyncio.open_unix_connection(socket)

        deaf = False

        async def down() -> None:
            nonlocal deaf
            while data := await reader.read(65536):
                deaf = proxy.cuts > 0 and proxy.cut_after in data
                server_writer.write(data)
                await server_writer.drain()
                if deaf:
                    proxy.cuts -= 1
                    # the server works it off; nobody hears the answer
                    await asyncio.sleep(0.05)
                    return

        async def up() -> None:
            while data := await server_reader.read(65536):
                await proxy.answers.wait()
                if deaf:
                    return
                writer.write(data)
                await writer.drain()

        both = [asyncio.create_task(down()), asyncio.create_task(up())]
        try:
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for one in both:
                one.cancel()
            with suppress(asyncio.CancelledError, OSError):
                await asyncio.gather(*both)
            server_writer.transport.abort()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    proxy = Proxy(make_conninfo(conninfo, host="127.0.0.1", port=port))
    proxy.answers.set()
    try:
        yield proxy
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await server.wait_closed()
