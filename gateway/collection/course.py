"""The course of one terminal through one collection: what to do next, given what has happened. Pure.

A turn carries out what `Course.step` says and reports back with `answered`, `filed`, `state`, `metered` and
so on. A due is *collected* only by `filed` (its row is committed) or `refreshed` (its row came another way).
"""

from __future__ import annotations

import random
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Sequence
from datetime import datetime, timedelta
from enum import Enum
from typing import Final, NamedTuple

from gateway.collection.plan import BALANCE_ROLES, Group, groups, past_store
from gateway.collection.policy import (
    ASK_AGAIN,
    ASK_FEWER,
    ASK_METER,
    NO_VALUE,
    NOT_TAKEN,
    WRONG_VALUE,
    Policy,
    RequestSize,
)
from gateway.model import Due, Failure, Kind, Point, Quantity, Reason, TerminalAssets

BARREN_LIMIT: Final = 8
"""Answers in a row without one value after which the rest of a group waits for the next round: a terminal
that denies point by point would otherwise be asked for hundreds of values that it has not read yet."""

READING_LASTS: Final = timedelta(hours=24)
"""A terminal is done with a midnight's reading after this, whatever it says."""

TRIES_WHEN_DONE: Final = 2
"""Of a value that a terminal does not have although it is done with its reading, or that is wrong there."""

METER_TROUBLE_LIMIT: Final = 3
"""Direct reads in a row that the terminal itself did not take; it does not forward, or not now."""


class AskPoints(NamedTuple):
    """Ask the terminal for these: one request."""

    dues: list[Due]


class AskMeter(NamedTuple):
    """Ask this meter itself, through the terminal."""

    due: Due
    point: Point


class Pause(NamedTuple):
    """Leave the terminal alone for so long, then `refreshed` and on."""

    seconds: float


class Order(Enum):
    ASK_STATE = "ask how far the terminal is with its reading (0C F11); report by `state`"
    SETTLE = "wait until all that was answered is filed or refused"
    REFRESH = "look up what is stored by now; report by `refreshed`"
    FINISHED = "nothing more is to be had"


Step = AskPoints | AskMeter | Pause | Order


class _Trouble(NamedTuple):
    reason: Reason
    detail: str


class Course:
    """Decisions for one terminal in one collection. Not safe for use by two at once."""

    def __init__(
        self,
        assets: TerminalAssets,
        dues: Sequence[Due],
        missing: Iterable[Due],
        policy: Policy,
        *,
        now: datetime,
        deadline: datetime,
        store_days: int,
        take: Callable[[datetime], bool],
        chance: Callable[[], float] = random.random,
    ) -> None:
        """`dues`: all of the days asked for; `missing`: those without a row. `store_days`: how many midnights
        the terminal keeps; 0: none, and its meters are asked at once.

        Nothing is asked after `deadline`. `take(now)` draws on the terminal's allowance of direct reads;
        `chance` gives 0..1 for jitter.
        """
        self.assets = assets
        self.due = len(dues)
        self.meters = len({one.meter_id for one in dues})
        self._policy = policy
        self._deadline = deadline
        self._take = take
        self._chance = chance
        self._failed: dict[Due, _Trouble] = {}
        self._tries: Counter[Due] = Counter()
        self._groups = deque(groups(missing))
        detail = "" if store_days else "it keeps no values"
        while self._groups and past_store(self._groups[-1].frozen_at, now, store_days):
            for one in self._groups.pop().dues:  # the oldest midnights stand last
                self._failed[one] = _Trouble(Reason.PAST_STORE, detail)
        self.already = self.due - sum(len(group.dues) for group in self._groups) - len(self._failed)
        self.collected = self.already
        self._at = 0
        self._filing = 0
        self._size = RequestSize()
        self._most = 1
        self._silent = 0
        self._barren = 0
        self._round = 1
        self._state_asked = False
        self._reading: bool | None = None
        self._meters: deque[AskMeter] | None = None
        self._meter_trouble = 0
        self._fresh = True
        self._redials = 0
        self._stopped = False

    # what to do

    def step(self, now: datetime, points: Callable[[Quantity, Kind], int]) -> Step:
        """The next thing to do. `points` sizes a request by what the terminal can take."""
        if self._stopped or now >= self._deadline:
            return self._end()
        while self._groups:
            group = self._groups[0]
            if self._at < len(group.dues):
                self._most = points(group.quantity, group.kind)
                return AskPoints(group.dues[self._at : self._at + self._size.points(self._most)])
            self._groups.popleft()
            self._at = self._barren = 0
        if self._filing:
            return Order.SETTLE
        if self.collected == self.due:
            return Order.FINISHED
        if not self._state_asked and self._lacks_values(now):
            return Order.ASK_STATE
        if self._round < 2 * self._policy.tries and any(self._worth_asking(one, now) for one in self._failed):
            pause = self._policy.pause_after(self._round, self._chance())
            if now + timedelta(seconds=pause) < self._deadline:
                return Pause(pause)
        return self._next_meter(now) or self._end()

    def next_round(self, now: datetime) -> None:
        """A pause is over: what is worth asking again stands in the groups again, the least tried first."""
        self._round += 1
        self._silent = 0
        self._state_asked = False
        self._meters = None
        again = [one for one in self._failed if self._worth_asking(one, now)]
        self._groups = deque(groups(again, first=self._tries.__getitem__))
        self._at = self._barren = 0

    # what happened

    def answered(
        self,
        asked: Sequence[Due],
        had: Collection[int],
        failures: Iterable[Failure] = (),
        *,
        halve: bool = False,
        closed: bool = False,
    ) -> list[Due]:
        """The exchange for `asked` is over. `had`: ids of meters whose rows are on the way to the database.

        halve: the terminal denied or was silent. closed: the link ended, the others count as not asked.
        Returns the dues that those rows cover: `filed` or `not_filed` must follow for each of them.
        """
        self._fresh = False
        coming = [one for one in asked if one.meter_id in had]
        self._filing += len(coming)
        if self._failed:
            self._forget(coming)
        if len(coming) == len(asked):
            self._silent = self._barren = 0
            self._at += len(asked)
            self._size.went_well()
            return coming
        if closed:
            self._groups[0].dues[self._at : self._at + len(asked)] = [
                one for one in asked if one.meter_id not in had
            ]
            return coming
        told = {failure.meter_id: failure for failure in failures}
        again: list[Due] = []
        reasons: set[Reason] = set()
        for one in asked:
            if one.meter_id in had:
                continue
            failure = told.get(one.meter_id)
            reason, detail = (failure.reason, failure.detail) if failure else (Reason.LEFT_OUT, "")
            reasons.add(reason)
            if halve and len(asked) > 1 and reason in ASK_FEWER:
                again.append(one)
            else:
                self._fail(one, reason, detail)
        self._groups[0].dues[self._at : self._at + len(asked)] = again
        self._weigh(len(asked), len(again), reasons, barren=not coming)
        return coming

    def filed(self, dues: Sequence[Due]) -> None:
        """The rows of `dues` are committed."""
        self._filing -= len(dues)
        self.collected += len(dues)

    def not_filed(self, dues: Sequence[Due], detail: str) -> None:
        """The database did not take the rows of `dues`."""
        self._filing -= len(dues)
        for one in dues:
            self._fail(one, Reason.STORAGE_FAILED, detail)

    def state(self, reading: bool | None) -> None:
        """Whether the terminal is still reading its meters; None: it would not say."""
        self._state_asked = True
        self._reading = reading

    def metered(self, asked: AskMeter, failure: Failure | None) -> None:
        """A direct read is over; without a failure its row is on the way: `filed` or `not_filed` follows."""
        self._fresh = False
        if failure is None:
            self._meter_trouble = 0
            self._forget([asked.due])
            self._filing += 1
        elif failure.reason in NOT_TAKEN:  # why the terminal's own value is missing says more than this
            self._meter_trouble += 1
        else:
            self._meter_trouble = 0
            self._fail(asked.due, failure.reason, failure.detail)

    def open(self) -> list[Due]:
        """All that is missing and not on its way to the database."""
        waiting = [one for group in self._groups for one in group.dues[self._start(group) :]]
        return list(dict.fromkeys([*waiting, *self._failed]))

    def refreshed(self, stored: Collection[Due]) -> None:
        """These of `open()` stand by now: they came late, or the terminal pushed them."""
        self._fresh = True
        if not stored:
            return
        gone = set(stored)
        self._forget(gone)
        self.collected += len(gone)
        for group in self._groups:
            start = self._start(group)
            group.dues[start:] = [one for one in group.dues[start:] if one not in gone]

    def lost(self) -> bool:
        """The link broke: what was asked counts as not asked. False: too often for this collection."""
        self._silent = self._meter_trouble = 0
        self._meters = None
        self._redials += 1
        return self._redials <= self._policy.redials

    def give_up(self, reason: Reason, detail: str = "") -> None:
        """Nothing more is asked in this collection; all that another try might have brought has `reason`."""
        for one in self._failed:
            if self._failed[one].reason in ASK_AGAIN:
                self._failed[one] = _Trouble(reason, detail)
        self._set_aside(self._groups, reason, detail)
        self._stopped = True

    # what came of it

    @property
    def missing(self) -> int:
        return self.due - self.collected

    def failures(self) -> list[Failure]:
        """The last failure of each due that was tried and is missing now."""
        return [
            Failure(one.meter_id, one.quantity, one.kind, one.frozen_at, trouble.reason, trouble.detail)
            for one, trouble in self._failed.items()
        ]

    def reasons(self) -> Counter[Reason]:
        """Why the missing ones are missing; what is being filed right now counts as not asked."""
        counted = Counter(trouble.reason for trouble in self._failed.values())
        counted[Reason.NOT_ASKED] += self.missing - len(self._failed)
        return +counted

    def meters_missing(self) -> int:
        """How many meters lack at least one due (nothing being filed)."""
        return len({one.meter_id for one in self.open()})

    # inside

    def _start(self, group: Group) -> int:
        """Where the part of `group` begins that was not answered yet."""
        return self._at if group is self._groups[0] else 0

    def _end(self) -> Order:
        if self._filing:
            return Order.SETTLE
        return Order.FINISHED if self._fresh or not self._failed else Order.REFRESH

    def _fail(self, one: Due, reason: Reason, detail: str) -> None:
        self._failed[one] = _Trouble(reason, detail)
        self._tries[one] += 1

    def _forget(self, dues: Iterable[Due]) -> None:
        for one in dues:
            self._failed.pop(one, None)

    def _weigh(self, asked: int, again: int, reasons: set[Reason], *, barren: bool) -> None:
        """What an answer that was not whole says about the terminal: size, silence, nothing there yet."""
        silent = barren and reasons == {Reason.TERMINAL_SILENT}
        self._silent = self._silent + 1 if silent else 0
        self._barren = self._barren + 1 if barren and reasons <= NO_VALUE else 0
        if again:
            self._size.halve(self._most, asked)
        elif asked == 1 and reasons <= ASK_FEWER:
            self._size.single_failed()
        else:
            self._size.went_well()
        if self._silent >= self._policy.silent_limit:
            for group in self._groups:
                self._tries.update(group.dues[self._start(group) :])
            detail = f"{self._silent} requests without an answer"
            self._set_aside(self._groups, Reason.TERMINAL_SILENT, detail)
        elif self._barren >= BARREN_LIMIT:
            detail = f"{self._barren} requests before it had no value"
            self._set_aside([self._groups[0]], min(reasons), detail)
            self._barren = 0

    def _set_aside(self, some: Iterable[Group], reason: Reason, detail: str) -> None:
        """What waits in `some` groups is not asked in this round."""
        for group in some:
            start = self._start(group)
            for one in group.dues[start:]:
                self._failed[one] = _Trouble(reason, detail)
            del group.dues[start:]

    def _still_reading(self, one: Due, now: datetime) -> bool | None:
        """Is the terminal not done yet with the midnight of `one`? None: not known."""
        return self._reading if now - one.frozen_at < READING_LASTS else False

    def _lacks_values(self, now: datetime) -> bool:
        return any(
            trouble.reason in NO_VALUE and now - one.frozen_at < READING_LASTS
            for one, trouble in self._failed.items()
        )

    def _worth_asking(self, one: Due, now: datetime) -> bool:
        """May asking the terminal once more help?"""
        reason = self._failed[one].reason
        done = reason in WRONG_VALUE or (reason in NO_VALUE and self._still_reading(one, now) is False)
        most = min(self._policy.tries, TRIES_WHEN_DONE) if done else self._policy.tries
        return reason in ASK_AGAIN and self._tries[one] < most

    def _next_meter(self, now: datetime) -> AskMeter | None:
        """The next meter to ask itself, if policy and allowance let us."""
        if not self._policy.may_ask_meters(now) or self._meter_trouble >= METER_TROUBLE_LIMIT:
            return None
        if self._meters is None:
            self._meters = deque(self._meters_to_ask(now))
        while self._meters:
            ask = self._meters[0]
            if ask.due not in self._failed:
                self._meters.popleft()
            elif self._take(now):
                return self._meters.popleft()
            else:
                self._allowance_used(self._meters)
        return None

    def _allowance_used(self, meters: deque[AskMeter]) -> None:
        """These meters wait for another hour; why they were to be asked stands in the detail."""
        for due, _ in meters:
            if due in self._failed:
                reason = self._failed[due].reason
                self._failed[due] = _Trouble(Reason.ALLOWANCE_USED, f"after {reason.value}")
        meters.clear()

    def _meters_to_ask(self, now: datetime) -> list[AskMeter]:
        """Meters that stand there now and may have what the terminal lacks: gateways, feeders and buses
        first, then the newest midnight, then by pn."""
        here = {point.meter_id: point for point in self.assets.points if point.holds_at(now)}
        asks = [
            AskMeter(one, here[one.meter_id])
            for one, trouble in self._failed.items()
            if trouble.reason in ASK_METER
            and one.meter_id in here
            and not (trouble.reason in NO_VALUE and self._still_reading(one, now))
        ]
        asks.sort(
            key=lambda ask: (ask.point.role not in BALANCE_ROLES, -ask.due.frozen_at.timestamp(), ask.due.pn)
        )
        return asks
