"""A load balancer before several gateways, as an operator would put one there: it passes bytes, and knows
nothing of them."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Sequence
from types import TracebackType
from typing import Self

CHUNK = 65_536
STARTS_S = 20.0


class Balancer:
    """Gives each connection to the next gateway in turn that takes it; what ends one side ends the other."""

    def __init__(self, gateways: Sequence[tuple[str, int]]) -> None:
        self.address = ""
        self._gateways = list(gateways)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._ready = threading.Event()
        self._stop = asyncio.Event()
        self._passing: set[asyncio.Task[None]] = set()

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(STARTS_S)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(STARTS_S)
        self._loop.close()

    def _run(self) -> None:
        self._loop.run_until_complete(self._serve())

    async def _serve(self) -> None:
        server = await asyncio.start_server(self._taken, "127.0.0.1", 0, backlog=1024)
        host, port = server.sockets[0].getsockname()
        self.address = f"{host}:{port}"
        self._ready.set()
        await self._stop.wait()
        server.close()
        for task in self._passing:
            task.cancel()
        await asyncio.gather(*self._passing, return_exceptions=True)

    async def _taken(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._passing.add(task)
        try:
            await self._pass(reader, writer)
        finally:
            self._passing.discard(task)
            writer.close()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in self._gateways:
            host, port = gateway = self._gateways.pop(0)
            self._gateways.append(gateway)
            with contextlib.suppress(OSError):
                up, down = await asyncio.open_connection(host, port)
                break
        else:
            return
        ways = [asyncio.ensure_future(_copy(*way)) for way in ((reader, down), (up, writer))]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            down.close()


async def _copy(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await source.read(CHUNK):
            sink.write(data)
            await sink.drain()
