"""How many links have what came handled in one turn of the event loop.

In a sweep hundreds of terminals answer in the same moment. Handled all in one turn they would keep the loop
for a tenth of a second, and a relay command, which needs a dozen turns, for more than one.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Final

IN_A_TURN: Final = 8
"""Answers of a sweep that are handled before others have their turn: a few milliseconds' work."""


class Turnstile:
    """Lets `in_a_turn` through in each turn of the running loop, in the order in which they came."""

    def __init__(self, in_a_turn: int = IN_A_TURN) -> None:
        self._loop = asyncio.get_running_loop()
        self._in_a_turn = in_a_turn
        self._left = in_a_turn
        self._turning = False
        self._waiting: deque[asyncio.Future[None]] = deque()
        """bounded by the links that there are: each waits once"""

    def passed(self) -> bool:
        """Go through if that is possible at once."""
        if self._left <= 0 or self._waiting:
            return False
        self._left -= 1
        self._turn_later()
        return True

    async def pass_through(self) -> None:
        """Wait for a turn."""
        turn = self._loop.create_future()
        self._waiting.append(turn)
        self._turn_later()
        await turn

    def _turn_later(self) -> None:
        if not self._turning:
            self._turning = True
            self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        self._left = self._in_a_turn
        self._turning = False
        while self._left and self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():  # its link may have ended
                turn.set_result(None)
                self._left -= 1
        if self._waiting or self._left < self._in_a_turn:
            self._turn_later()
