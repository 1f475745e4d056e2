"""The way between a terminal and its meters where it takes time and loses things: power-line carrier, radio.

One exchange at a time, in the order of the requests. A frame that arrives late is obeyed late: also when the
terminal has given up waiting, or its own link to the master has gone.
"""

from __future__ import annotations

import heapq
import random
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from protocols.q_gdw376.frame import Frame
from simulator.answers import Reply
from simulator.faults import Carrier as Faults

MOST_WAITING: Final = 16
"""Requests that a terminal keeps for its meters; more are dropped."""


@dataclass(slots=True)
class _Exchange:
    frame: Frame
    ends_at: float
    heard: bool
    """the answer finds its way back in time"""
    reply: Reply | None = None
    wanted: bool = True


class Carrier:
    """Of one terminal. ask: has the meter hear a frame; unheard: what the terminal says of one that did not
    answer in time. Both are given the frame's time."""

    def __init__(
        self,
        faults: Faults,
        chance: random.Random,
        counts: Counter[str],
        ask: Callable[[Frame, float], Reply | None],
        unheard: Callable[[Frame], Reply | None],
    ) -> None:
        self._faults = faults
        self._chance = chance
        self._counts = counts
        self._ask = ask
        self._unheard = unheard
        self._exchanges: deque[_Exchange] = deque()
        self._arrivals: list[tuple[float, int, _Exchange]] = []
        self._number = 0

    def take(self, frame: Frame, patience: float, now: float) -> None:
        """Pass `frame` on when those before it are done; after `patience` seconds the terminal gives up."""
        if len(self._exchanges) >= MOST_WAITING:
            self._counts["dropped_requests"] += 1
            return
        faults, draw = self._faults, self._chance.random
        begins = max(now, self._exchanges[-1].ends_at) if self._exchanges else now
        whole = self._chance.uniform(faults.least, faults.most)
        down = whole * draw()
        lost, lost_back, twice = draw() < faults.loss / 2, draw() < faults.loss / 2, draw() < faults.twice
        heard = not lost and not lost_back and whole <= patience
        self._counts["carried"] += 1
        self._counts["carrier_lost"] += lost or lost_back
        exchange = _Exchange(frame, begins + (whole if heard else patience), heard)
        self._exchanges.append(exchange)
        if not lost:
            self._arrive(begins + down, exchange)
            if twice:
                self._counts["carried_twice"] += 1
                self._arrive(begins + down + self._chance.uniform(0.0, 2 * faults.most), exchange)

    def give_up(self) -> None:
        """The link to the master has gone: nobody wants the answers any more. The meters still hear."""
        for exchange in self._exchanges:
            exchange.wanted = False

    def next_timeout(self) -> float | None:
        """When `run` is wanted next."""
        times = [self._arrivals[0][0]] if self._arrivals else []
        if self._exchanges:
            times.append(self._exchanges[0].ends_at)
        return min(times, default=None)

    def run(self, now: float) -> Iterator[tuple[Frame, Reply]]:
        """Let happen what was due by `now`; the answers that are due for the master, with their requests."""
        while (at := self.next_timeout()) is not None and at <= now:
            if self._arrivals and self._arrivals[0][0] == at:
                _, _, exchange = heapq.heappop(self._arrivals)
                reply = self._ask(exchange.frame, at)
                exchange.reply = exchange.reply or reply
                continue
            exchange = self._exchanges.popleft()
            reply = exchange.reply if exchange.heard else self._unheard(exchange.frame)
            if exchange.wanted and reply is not None:
                yield exchange.frame, reply

    def _arrive(self, at: float, exchange: _Exchange) -> None:
        self._number += 1
        heapq.heappush(self._arrivals, (at, self._number, exchange))
