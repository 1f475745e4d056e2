"""A terminal's one channel: whose turn it is, urgent first."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import Callable
from enum import IntEnum
from typing import Final

from gateway.errors import InputError

EXCHANGES_WAITING: Final = 64
"""Requests that may wait for one terminal: at 30 s each even these are half an hour."""


class Urgency(IntEnum):
    """Who goes first; the smaller the sooner."""

    RELAY_CLOSE = 0
    """what gives power back passes all else"""
    RELAY = 1
    PERSON = 2
    LEARN = 3
    COLLECT = 4
    EVENTS = 5


class Channel:
    """Taken by one at a time; of those that wait the most urgent is next, then who came first."""

    def __init__(self, on_wait: Callable[[Urgency, asyncio.Future[None]], None]) -> None:
        """on_wait: called for each one that has to wait; the future is done when its turn has come."""
        self._on_wait = on_wait
        self._taken = False
        self._waiting: list[tuple[Urgency, int, asyncio.Future[None]]] = []
        self._order = itertools.count()

    @property
    def hurries(self) -> bool:
        """Does a relay command wait for it?"""
        return any(urgency <= Urgency.RELAY and not turn.done() for urgency, _, turn in self._waiting)

    async def take(self, urgency: Urgency) -> None:
        """Wait until the channel is ours. InputError when too many wait already; relay commands, of which a
        terminal has one at a time, wait in any case."""
        if not self._taken:
            self._taken = True
            return
        if len(self._waiting) >= EXCHANGES_WAITING and urgency > Urgency.RELAY:
            raise InputError("too many requests wait for this terminal; try again later")
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiting, (urgency, next(self._order), turn))
        self._on_wait(urgency, turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.pass_on()
            raise

    def pass_on(self) -> None:
        """Give the channel to the next."""
        while self._waiting:
            _, _, turn = heapq.heappop(self._waiting)
            if not turn.done():
                turn.set_result(None)
                return
        self._taken = False
