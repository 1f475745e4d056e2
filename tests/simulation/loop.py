"""An event loop whose time is its own: it jumps to the next thing that is due.

So a day passes in a moment, and the same seed always gives the same history.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

T = TypeVar("T")

START = datetime(2026, 11, 25, 1, 0, tzinfo=UTC)
"""A Wednesday, 09:00 in Shanghai: trips are allowed until 16:00."""


class Stuck(AssertionError):
    """Everything waits and nothing is due: in earnest it would wait for ever."""


class _Selector(selectors.SelectSelector):
    """Does not wait: moves the loop's time instead."""

    loop: VirtualLoop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise Stuck("everything waits and nothing is due")
        if timeout > 0:
            self.loop.moved += timeout
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """moved: seconds that have passed in it."""

    def __init__(self) -> None:
        self.moved = 0.0
        selector = _Selector()
        selector.loop = self
        super().__init__(selector)

    def time(self) -> float:
        return self.moved


class VirtualClock:
    """The house clock of such a loop. offset: how wrong it is."""

    speed = 1.0

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop
        self.offset = timedelta(0)

    def now(self) -> datetime:
        return START + timedelta(seconds=self._loop.moved) + self.offset

    def monotonic(self) -> float:
        return self._loop.moved

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


def run_virtual(main: Coroutine[Any, Any, T], loop: VirtualLoop) -> T:
    """Run `main` to its end in `loop`, which is closed then."""
    try:
        return loop.run_until_complete(main)
    finally:
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()
