"""Peers that never say who they are: silent ones, and ones that dribble a byte a second. They dial again soon
after they are closed."""

from __future__ import annotations

import asyncio
import random
import time
from typing import Final, cast

DIALLED_AT_ONCE: Final = 200
"""Logins under way at the same time: enough that the gateway is never idle."""

TICK_S: Final = 0.005
"""Heartbeats are spread over their period to within this."""

REDIAL_S: Final = 0.2
"""After which a peer that was closed dials again."""


class Stranger(asyncio.Protocol):
    """A peer that never says who it is, and dials again when it is closed. says: what it dribbles, a byte a
    second, and again from the beginning; b"": it is silent."""

    def __init__(self, crowd: Crowd, says: bytes) -> None:
        self.transport: asyncio.Transport | None = None
        self._crowd = crowd
        self._says = says
        self._said = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport = cast(asyncio.Transport, transport)  # uvloop's is one without saying so
        self.transport = transport
        self._said = 0
        self._crowd.connected += 1

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None
        self._crowd.lost(self)

    def dribble(self) -> int:
        """Say one more byte; how many were said."""
        if self.transport is None:
            return 0
        place = self._said % len(self._says)
        self._said += 1
        self.transport.write(self._says[place : place + 1])
        return 1


class Crowd:
    """Strangers: `silent` ones and `dribbling` ones. Half of these dribble rubbish, and half the beginning of
    a frame that never comes to its end."""

    def __init__(self, addresses: list[tuple[str, int]], silent: int, dribbling: int, seed: int = 1) -> None:
        chance = random.Random(seed)
        self.connected = self.closed = self.dribbled = 0
        """connections that were made and that were ended by the other side, and bytes that were said"""
        self._addresses = addresses
        self._ending = False
        self._room = asyncio.Semaphore(DIALLED_AT_ONCE)
        self._redialling: set[asyncio.Task[None]] = set()
        self._silent = [Stranger(self, b"") for _ in range(silent)]
        self._dribbling = [
            Stranger(self, chance.randbytes(64) if number % 2 else _endless(chance))
            for number in range(dribbling)
        ]
        self._place = {one: number for number, one in enumerate([*self._silent, *self._dribbling])}

    def lost(self, stranger: Stranger) -> None:
        if self._ending:
            return
        self.closed += 1
        task = asyncio.get_running_loop().create_task(self._dial(stranger, REDIAL_S))
        self._redialling.add(task)
        task.add_done_callback(self._redialling.discard)

    async def _dial(self, stranger: Stranger, wait: float = 0.0) -> None:
        host, port = self._addresses[self._place[stranger] % len(self._addresses)]
        await asyncio.sleep(wait)
        async with self._room:
            await asyncio.get_running_loop().create_connection(lambda: stranger, host, port)

    def cut(self, count: int) -> None:
        """End the first so many links, as the other side would."""
        for stranger in [*self._place][:count]:
            if stranger.transport is not None:
                stranger.transport.abort()

    async def close(self) -> None:
        """End all links."""
        self._ending = True
        for task in self._redialling:
            task.cancel()
        self.cut(len(self._place))
        await asyncio.sleep(0)

    async def dial(self) -> None:
        """Have all connected."""
        await asyncio.gather(*(self._dial(one) for one in self._place))

    async def dribble(self) -> None:
        """A byte a second of each, spread evenly, for as long as this runs."""
        count = len(self._dribbling)
        began = time.monotonic()
        sent = 0
        while True:
            due = int((time.monotonic() - began) * count)
            while sent < due:
                self.dribbled += self._dribbling[sent % count].dribble()
                sent += 1
            await asyncio.sleep(TICK_S)


def _endless(chance: random.Random) -> bytes:
    """A right beginning of a frame of 1,000 bytes."""
    length = (1000 << 2 | 2).to_bytes(2, "little")
    return b"\x68" + length + length + b"\x68" + chance.randbytes(900)
