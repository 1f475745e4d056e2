"""A link as a broker gives it: each write of the terminal is a message of its own, settled by itself."""

from __future__ import annotations

import asyncio
import random
from collections import deque

from gateway.errors import LinkClosed
from gateway.transports.link import Settle
from gateway.transports.memory import Line, MemoryLink
from tests.gateway.session.stage import ADDRESS, Device, Stage


class AcknowledgedLink(MemoryLink):
    """`settled`: the messages that were, by the order in which they came, from 0. Made by `dial`."""

    def __init__(self, only_for: frozenset[str] | None) -> None:
        super().__init__("mqtt://192.0.2.7:1883/a", Line(), random.Random(0), 65_536, 20.0)
        self.source = self.peer
        self.only_for = only_for
        self.settled: list[int] = []
        self.sent_before: list[int] = []
        """for each of them, how much had been written down to the terminal when it was settled"""
        self.given_up = False
        """was ended by `abort`: a broker's side then thinks ill of the message that was read last"""
        self._messages: deque[bytes] = deque()
        self._given = 0
        self._closing = False

    @property
    def given(self) -> int:
        """Messages that were read."""
        return self._given

    def _arrive(self, part: bytes) -> None:
        if not self._ended:
            self._messages.append(part)
            self._changed.set()

    @property
    def waiting(self) -> int:
        return sum(map(len, self._messages))

    async def read(self) -> tuple[bytes, Settle]:
        if self._messages:
            await asyncio.sleep(0)
        while not self._messages:
            if self._ended:
                raise LinkClosed(f"{self.peer} has closed the link")
            self._changed.clear()
            await self._changed.wait()
        number, self._given = self._given, self._given + 1

        async def settle() -> None:
            assert number not in self.settled
            self.settled.append(number)
            self.sent_before.append(len(self.writes))

        return self._messages.popleft(), settle

    async def close(self) -> None:
        self._closing = True
        await super().close()

    def abort(self) -> None:
        self.given_up |= not self._closing
        super().abort()


def dial(
    made: Stage, address: str = ADDRESS, *, only_for: frozenset[str] | None = None
) -> tuple[Device, AcknowledgedLink]:
    """A device that answers what is asked after a login, behind such a link."""
    ours = AcknowledgedLink(only_for)
    theirs = MemoryLink("192.0.2.250:3761", Line(), random.Random(0), 65_536, 20.0)
    ours._other, theirs._other = theirs, ours
    made.tasks.append(asyncio.create_task(made.registry.accept(ours)))
    device = Device(theirs, address)
    made.devices.append(device)
    made.teach(device)
    return device, ours
