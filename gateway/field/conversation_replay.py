"""Say one side of a recorded conversation again, and hold what comes against the recording."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from gateway.clock import Clock
from gateway.errors import LinkClosed
from gateway.field.conversation import FROM_TERMINAL, Cut, Cutter, Piece, Turn
from gateway.field.conversation_difference import Difference, Judged, judge
from gateway.field.conversation_guard import Door
from gateway.field.line import BABBLE_S
from protocols.lens.places import Family

LONGEST_PAUSE_S: Final = 3600.0
"""A pause of a recording is kept for so long at most."""
BEFORE_US_S: Final = 30.0
"""So long the other side may take to speak first: a terminal dials again after a while."""
MOST_AHEAD: Final = 10_000
"""Frames that may have come before they are expected; then the oldest are dropped, and so differ."""

_ORDER: Final = ("same", "value", "other")


@dataclass(frozen=True, slots=True)
class Patience:
    """Seconds. wait: for an answer, beyond what it took in the recording; gap: quiet before each question to
    a meter, and after the last; between_bytes: silence that ends a broken frame."""

    wait: float = 5.0
    gap: float = 0.03
    between_bytes: float = 0.5


@dataclass(frozen=True, slots=True)
class Compared:
    """A turn had again: what came, and of each frame what became of it, those that were missing included."""

    turn: Turn
    got: tuple[Cut, ...]
    judged: tuple[Judged, ...]

    @property
    def verdict(self) -> str:
        """The worst of its frames'; `same` where none was expected and none came."""
        return max((one.verdict for one in self.judged), key=_ORDER.index, default="same")

    @property
    def difference(self) -> Difference | None:
        """The first."""
        return next((one.difference for one in self.judged if one.difference), None)

    @property
    def ignored(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(word for one in self.judged for word in one.ignored))


@dataclass(slots=True)
class Replay:
    """One conversation had again through `door`. Its link is read by nobody else meanwhile."""

    door: Door
    clock: Clock
    patience: Patience = field(default_factory=Patience)
    ignored: frozenset[str] = frozenset()
    said: int = 0
    """bytes that left"""
    heard: int = 0
    """bytes that came"""
    lost: str = ""
    """why the link ended before the conversation did"""
    _cutter: Cutter = field(default_factory=Cutter)
    _waiting: deque[Cut] = field(default_factory=lambda: deque(maxlen=MOST_AHEAD))
    _heard_at: float = float("-inf")

    async def run(self, turns: Sequence[Turn], *, fast: bool) -> list[Compared]:
        """All turns, at the pace of the recording or without its pauses. A link that ends early leaves the
        rest of the turns without answers. NotARead before a byte of what must not leave does."""
        got: list[list[Cut]] = []
        began, begins = self.clock.monotonic(), turns[0].t if turns else 0.0
        for number, turn in enumerate(turns):
            got.append([])
            if self.lost:
                continue
            try:
                if not fast:
                    pause = turn.t - begins - (self.clock.monotonic() - began)
                    await self._listen(min(max(0.0, pause), LONGEST_PAUSE_S))
                await self._have(turn, got, last=number == len(turns) - 1)
            except LinkClosed as error:
                self.lost = str(error)
                got[-1] += self._all_that_waits()
        return [self._compared(*one) for one in zip(turns, got, strict=True)]

    @property
    def _to_meters(self) -> bool:
        return self.door.role == "meter"

    async def _have(self, turn: Turn, got: list[list[Cut]], *, last: bool) -> None:
        if self._to_meters:
            await self._quiet()
            if len(got) > 1:
                got[-2] += self._all_that_waits()  # too late for its question, or more than was recorded
        if turn.said is not None:
            await self.door.say(turn.said)
            self.said += len(turn.said.whole)
        await self._answers(turn, got[-1])
        if not turn.expected and (self._to_meters or turn.pause_s >= self.patience.wait):
            await self._listen(self.patience.wait)  # it was silent, and should be again
            got[-1] += self._all_that_waits()
        if last and self.door.role != "terminal":  # a gateway goes on by itself
            with contextlib.suppress(LinkClosed):
                await self._listen(self.patience.gap)
            got[-1] += self._all_that_waits()

    async def _answers(self, turn: Turn, got: list[Cut]) -> None:
        """As many frames as were recorded, or those that come in time."""
        before = turn.t
        for expected in turn.expected:
            wait = max(0.0, expected.t - before) + self.patience.wait
            if turn.said is None and not got:
                wait = max(wait, BEFORE_US_S)
            before = expected.t
            if self.door.simulator is not None and _is_goodbye(expected):
                self.door.simulator.end()
            deadline = self.clock.monotonic() + wait
            while not self._waiting and self.clock.monotonic() < (until := self._until(deadline)):
                await self._take(until)
            if not self._waiting:
                return
            got.append(self._waiting.popleft())

    def _until(self, deadline: float) -> float:
        """A little longer where something has begun to come."""
        if not self._cutter.held:
            return deadline
        return min(deadline + BABBLE_S, max(deadline, self._heard_at + self.patience.between_bytes))

    async def _quiet(self) -> None:
        """Until nothing was heard for the gap, or a second: no question into another one's answer."""
        give_up = self.clock.monotonic() + 1.0
        while (now := self.clock.monotonic()) < min(give_up, self._heard_at + self.patience.gap):
            await self._take(min(give_up, now + self.patience.gap))

    async def _listen(self, seconds: float) -> None:
        until = self.clock.monotonic() + seconds
        while self.clock.monotonic() < until:
            await self._take(until)

    async def _take(self, until: float) -> None:
        """Keep what comes until then; return when something has. LinkClosed."""
        if self._cutter.held:
            until = min(until, self._heard_at + self.patience.between_bytes)
        wait = max(0.0, until - self.clock.monotonic()) / self.clock.speed
        try:
            async with asyncio.timeout(wait):
                data, settle = await self.door.link.read()
        except TimeoutError:
            if self.clock.monotonic() - self._heard_at >= self.patience.between_bytes:
                self._keep(self._cutter.end())
            return
        except LinkClosed:
            self._keep(self._cutter.end())
            raise
        self._heard_at = self.clock.monotonic()
        self.heard += len(data)
        self._keep(self._cutter.take(data))
        await settle()

    def _keep(self, cuts: list[Cut]) -> None:
        """Our own words that a line gives back are no answer."""
        self._waiting += (cut for cut in cuts if not (cut.family is Family.METER and not cut.comes_up))

    def _all_that_waits(self) -> list[Cut]:
        taken = list(self._waiting)
        self._waiting.clear()
        return taken

    def _compared(self, turn: Turn, got: list[Cut]) -> Compared:
        pairs: list[tuple[Piece | None, Cut | None]] = []
        for number in range(max(len(turn.expected), len(got))):
            expected = turn.expected[number] if number < len(turn.expected) else None
            pairs.append((expected, got[number] if number < len(got) else None))
        judged = tuple(
            judge(expected, came, self.ignored, expected.t if expected else turn.t)
            for expected, came in pairs
        )
        return Compared(turn, tuple(got), judged)


def _is_goodbye(piece: Piece) -> bool:
    """A terminal's logout, AFN02 F2: our simulator says it only when it ends."""
    raw = piece.raw
    return piece.direction == FROM_TERMINAL and raw[12:13] == b"\x02" and raw[14:18] == bytes((0, 0, 2, 0))
