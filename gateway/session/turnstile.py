"""How many links have what came handled in one turn of the event loop.

In a sweep hundreds of terminals answer in the same moment. Handled all in one turn they would keep the loop
for a tenth of a second, and a relay command, which needs dozens of turns, for more than one. While a relay
command is under way the sweep goes slower, and never stands.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

IN_A_TURN: Final = 1
"""Answers of a sweep that are handled before others have their turn: a millisecond's work."""

BESIDE_RELAY_S: Final = 0.01
"""Between two of them while a relay command is under way."""


class Turnstile:
    """Lets `in_a_turn` through in each turn of the running loop, in the order in which they came."""

    def __init__(self, in_a_turn: int = IN_A_TURN) -> None:
        self._loop = asyncio.get_running_loop()
        self._in_a_turn = in_a_turn
        self._left = in_a_turn
        self._turning = False
        self._commands = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        """bounded by the links that there are: each waits once"""

    def passed(self) -> bool:
        """Go through if that is possible at once."""
        if self._left <= 0 or self._waiting:
            return False
        self._left -= 1
        self._turn_later()
        return True

    def queue(self) -> asyncio.Future[None]:
        """Wait for a turn: done when it has come. Whoever cannot wait sets it done himself."""
        turn = self._loop.create_future()
        self._waiting.append(turn)
        self._turn_later()
        return turn

    @contextmanager
    def giving_way(self) -> Iterator[None]:
        """A relay command is under way."""
        self._commands += 1
        try:
            yield
        finally:
            self._commands -= 1

    @property
    def gives_way(self) -> bool:
        """Is a relay command under way?"""
        return self._commands > 0

    def _turn_later(self) -> None:
        if not self._turning:
            self._turning = True
            if self._commands:
                self._loop.call_later(BESIDE_RELAY_S, self._turn)
            else:
                self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        self._left = self._in_a_turn
        self._turning = False
        while self._left and self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():  # its link may have ended, or gone through already
                turn.set_result(None)
                self._left -= 1
        if self._waiting or self._left < self._in_a_turn:
            self._turn_later()
