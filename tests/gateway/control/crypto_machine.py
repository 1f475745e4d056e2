"""A crypto machine on TCP as docs/security-module.md frames it, written apart from the adapter."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field


@dataclass
class CryptoMachine:
    """answer: the bytes to send for the payload of a request (what follows its length), as they come.

    asked: every payload; lengths are put before answers unless `bare`."""

    answer: Callable[[bytes], list[bytes]]
    bare: bool = False
    tls: ssl.SSLContext | None = None
    asked: list[bytes] = field(default_factory=list)
    connections: int = 0
    address: tuple[str, int] = ("", 0)
    _writers: list[asyncio.StreamWriter] = field(default_factory=list)
    _heard: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.append(writer)
        try:
            while True:
                payload = await reader.readexactly(int.from_bytes(await reader.readexactly(2), "big"))
                async with self._heard:
                    self.asked.append(payload)
                    self._heard.notify_all()
                for answer in self.answer(payload):
                    writer.write(answer if self.bare else len(answer).to_bytes(2, "big") + answer)
        except (asyncio.IncompleteReadError, OSError):
            writer.transport.abort()

    async def was_asked(self, times: int) -> None:
        """Wait until it has heard so many requests."""
        async with self._heard:
            await self._heard.wait_for(lambda: len(self.asked) >= times)

    def hang_up(self) -> None:
        """End every connection, and take new ones."""
        for writer in self._writers:
            writer.transport.abort()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[CryptoMachine]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self.tls)
        self.address = server.sockets[0].getsockname()[:2]
        try:
            yield self
        finally:
            server.close()
            self.hang_up()


def done(payload: bytes, body: bytes) -> bytes:
    """The good answer to `payload`."""
    return failed(payload, 0) + body


def failed(payload: bytes, status: int) -> bytes:
    """The answer of that status, without a body."""
    return payload[:5] + bytes([payload[5] | 0x80, status])
