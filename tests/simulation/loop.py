"""An event loop whose time is its own: it jumps to the next thing that is due.

So a day passes in a moment, and the same seed always gives the same history.
"""

from __future__ import annotations

import asyncio
import random
import selectors
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

T = TypeVar("T")

START = datetime(2026, 11, 25, 1, 0, tzinfo=UTC)
"""A Wednesday, 09:00 in Shanghai: trips are allowed until 16:00."""

SLOWEST_DISK_S = 0.5


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
    """moved: seconds that have passed in it. What is given to a thread takes the time of a disk."""

    def __init__(self, chance: random.Random | None = None) -> None:
        self.moved = 0.0
        self._chance = chance or random.Random(0)
        selector = _Selector()
        selector.loop = self
        super().__init__(selector)

    def time(self) -> float:
        return self.moved

    def run_in_executor(  # type: ignore[override]  # the type of what it gives back is nobody's business
        self, executor: Any, func: Callable[..., Any], *args: Any
    ) -> asyncio.Future[Any]:
        """Done at the beginning of its time or at the end: who dies in between may have done it, or not."""
        told: asyncio.Future[Any] = self.create_future()
        done: list[Callable[[], None]] = []

        def do() -> None:
            try:
                value = func(*args)
            except Exception as error:
                failed = error
                done.append(lambda: told.set_exception(failed))
            else:
                done.append(lambda: told.set_result(value))

        def end() -> None:
            if told.done():
                return  # whoever asked is dead
            if not done:
                do()
            done[0]()

        if self._chance.random() < 0.5:
            do()
        self.call_later(self._chance.uniform(0.0, SLOWEST_DISK_S), end)
        return told


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
        left = asyncio.all_tasks(loop)
        for task in left:
            task.cancel()
        if left:
            loop.run_until_complete(asyncio.wait(left))
        loop.run_until_complete(asyncio.sleep(0))  # what is told of their end
        loop.close()
