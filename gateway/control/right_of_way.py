"""Who goes first in this process, from a request to its frame: closes before trips, both before the sweep.

The database and the terminal put closes first where both wait. This is for what neither sees: the process's
own core and its connections, of which thousands of trips, or the answers of a midnight, would take so much
that a close comes late. While a relay is asked for the sweep goes slower; while a close is on its way nothing
is begun that would take power away.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Final

FRAME_S: Final = 0.05
"""From the answer to a request until its frame has left, where nothing is in its way."""

HOLD_S: Final = 1.0
BY_S: Final = 0.25
"""Closes that come without a pause hold trips up for HOLD_S, then trips may begin for BY_S, and so on: half a
million people who pay on one day must not keep every trip waiting until it has expired."""


class RightOfWay:
    """One a process. A request that closes is made within `closing`, every other one within `asking`; what
    trips looks whether it is `clear`, or waits for it with `give`. Times are seconds of the machine's own
    clock."""

    def __init__(
        self,
        on_clear: Callable[[], None] = lambda: None,
        beside: Callable[[], AbstractContextManager[None]] = nullcontext,
        *,
        frame_s: float = FRAME_S,
        hold_s: float = HOLD_S,
        by_s: float = BY_S,
    ) -> None:
        """on_clear: called each time when it is clear again. beside: the sweep goes slower within it."""
        self._on_clear = on_clear
        self._beside = beside
        self._frame_s, self._hold_s, self._by_s = frame_s, hold_s, by_s
        self._closes = 0
        self._turn: asyncio.TimerHandle | None = None
        self._clear = asyncio.Event()
        self._clear.set()

    @property
    def clear(self) -> bool:
        """May what takes power away begin?"""
        return self._clear.is_set()

    @contextmanager
    def asking(self) -> Iterator[None]:
        """Around a request for a relay: the sweep gives way to it, and to its frame for FRAME_S after it."""
        with ExitStack() as stack:
            stack.enter_context(self._beside())
            try:
                yield
            finally:
                asyncio.get_running_loop().call_later(self._frame_s, stack.pop_all().close)

    @contextmanager
    def closing(self) -> Iterator[None]:
        """`asking` for one that gives power back: trips give way, too, and as long."""
        self._closes += 1
        if self._closes == 1:
            self._hold()
        try:
            with self.asking():
                yield
        finally:
            asyncio.get_running_loop().call_later(self._frame_s, self._gone)

    async def give(self) -> None:
        """Wait until it is clear: HOLD_S at most."""
        await self._clear.wait()

    def _hold(self) -> None:
        self._clear.clear()
        self._turn = asyncio.get_running_loop().call_later(self._hold_s, self._let_by)

    def _let_by(self) -> None:
        self._turn = asyncio.get_running_loop().call_later(self._by_s, self._hold)
        self._set_clear()

    def _gone(self) -> None:
        self._closes -= 1
        if not self._closes and self._turn is not None:
            self._turn.cancel()
            self._turn = None
            self._set_clear()

    def _set_clear(self) -> None:
        self._clear.set()
        self._on_clear()
