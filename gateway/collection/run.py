"""One collection from its start to its summary: which terminal is worked when."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Sequence
from collections.abc import Set as AbstractSet
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Final

import structlog

from gateway.clock import Clock, frozen_at
from gateway.collection import plan
from gateway.collection.account import Progress, State, Summary, Visit, progress, summary
from gateway.collection.course import Course, Pause
from gateway.collection.policy import Allowance, Policy
from gateway.collection.stores import AskMeter, ConfirmRow, Files, Session, Sessions, Store
from gateway.collection.tagcheck import AGREEMENTS, TagCheck
from gateway.collection.turn import EXCHANGE_SECONDS, Ending, Turn, within
from gateway.errors import LingdianError, StorageError
from gateway.metrics import Metrics
from gateway.model import Due, ReadingRow, Reason, TerminalAssets

log = structlog.get_logger()

PROGRESS_SECONDS: Final = 0.25
"""Real ones between two reports: a person sees no more, and each report looks at every terminal."""

PLANNED_AT_ONCE: Final = 2
PLANNED_IN: Final = 300.0
PLAN_BESIDE_RELAY_S: Final = 0.1
"""A terminal begins with its plan, a few milliseconds' work. Hundreds begin at once, and a relay command
needs dozens of turns of the loop: so few are planned at once, and while such a command is under way each
waits for so long before it (real seconds). Of all who come due in one moment the last has his turn in
PLANNED_IN (seconds of the clock), thousands too, where the database answers."""

NOTE_TRIES: Final = 3
NOTE_PAUSE_SECONDS: Final = 2.0
"""For writing down why readings are missing: it is for people to read, nothing is derived from it."""

_Timer = tuple[float, int, int, Visit]
"""When (monotonic), order of entry, the visit's ticket, the visit."""


@dataclass(frozen=True, slots=True)
class Parts:
    """What a run works with."""

    registry: Sessions
    store: Store
    writer: Files
    clock: Clock
    metrics: Metrics
    ask_meter: AskMeter
    confirm_row: ConfirmRow
    tag_check: TagCheck
    allowance: Allowance
    store_days: Callable[[str], int]
    most_points: int
    terminals_at_once: int
    claim: Callable[[str, float], AbstractAsyncContextManager[None]]
    """holds a terminal for one run at a time; Claimed after so many seconds in vain"""
    wanted: Callable[[str], bool]
    """does another run wait for this terminal?"""


class Claimed(Exception):
    """Another collection holds the terminal."""


class Run:
    """One collection. Use it once: `add` terminals, then `go`."""

    def __init__(self, parts: Parts, days: Sequence[date], policy: Policy) -> None:
        self._parts = parts
        self._clock = parts.clock
        self._days = days
        self._policy = policy
        self._visits: dict[str, Visit] = {}
        self._queue: deque[Visit] = deque()
        self._timers: list[_Timer] = []
        self._order = itertools.count()
        self._wake = asyncio.Event()
        self._tags_checked: Counter[str] = Counter()
        """meters asked for their own midnight, by profile"""
        self._planning = asyncio.Semaphore(PLANNED_AT_ONCE)
        self._working = 0
        self._stopped = 0
        self._began = self._clock.monotonic()
        self._ends = self._began + policy.longest
        self._deadline = self._clock.now() + timedelta(seconds=policy.longest)

    def add(self, address: str) -> None:
        """Let the terminal have its turn, if it is not there yet."""
        if address not in self._visits:
            visit = self._visits[address] = Visit(address)
            self._enqueue(visit)

    def logged_in(self, address: str) -> None:
        """A terminal has dialled in: if it was missed, or lost on the way, it gets its turn now."""
        visit = self._visits.get(address)
        if visit is None or visit.taken_up >= self._policy.redials:
            return
        missed = visit.state is State.FINISHED and visit.missing > 0
        if missed or visit.state in (State.ABSENT, State.LOST):
            visit.taken_up += 1
            self._enqueue(visit)

    async def go(self, report: Callable[[Progress], None] | None = None) -> Summary:
        """Work until nothing more is to be had, or the policy's time is over."""
        async with asyncio.TaskGroup() as tasks:
            reporter = tasks.create_task(self._report_often(report))
            while await self._start_turns(tasks):
                pass
            reporter.cancel()
        self._report(report)
        return summary(self._visits.values(), self._clock.monotonic() - self._began, self._stopped)

    # whose turn it is

    async def _start_turns(self, tasks: asyncio.TaskGroup) -> bool:
        """Start all turns that may start, then wait for something to happen; False when all is done."""
        self._wake.clear()
        now = self._clock.monotonic()
        while self._timers and self._timers[0][0] <= now:
            _, _, ticket, visit = heapq.heappop(self._timers)
            if ticket == visit.ticket:
                self._time_is_up(visit)
        while self._queue and self._working < self._parts.terminals_at_once:
            visit = self._queue.popleft()
            visit.state = State.WORKING
            self._working += 1
            tasks.create_task(self._take_turn(visit))
        while self._timers and self._timers[0][2] != self._timers[0][3].ticket:
            heapq.heappop(self._timers)
        if not self._working and not self._timers:
            return False
        left = (self._timers[0][0] - now) / self._clock.speed if self._timers else None
        try:
            async with asyncio.timeout(left):  # with no timer set, a turn under way ends the wait
                await self._wake.wait()
        except TimeoutError:
            pass
        return True

    def _time_is_up(self, visit: Visit) -> None:
        if visit.state is State.ABSENT:
            visit.state = State.FINISHED
        else:
            expired = visit.state is State.LOST
            self._enqueue(visit)
            visit.expired = expired

    def _enqueue(self, visit: Visit) -> None:
        visit.ticket += 1
        visit.state = State.QUEUED
        visit.expired = False
        self._queue.append(visit)
        self._wake.set()

    def _put_off(self, visit: Visit, state: State, seconds: float) -> None:
        """Leave the terminal in `state` for so long, at most until the end of the collection."""
        visit.ticket += 1
        visit.state = state
        until = min(self._clock.monotonic() + seconds, self._ends)
        heapq.heappush(self._timers, (until, next(self._order), visit.ticket, visit))

    # a turn

    async def _take_turn(self, visit: Visit) -> None:
        left = max(0.0, self._ends - self._clock.monotonic())
        try:
            async with self._parts.claim(visit.address, left):
                await self._work(visit)
        except LingdianError as error:  # the database, as a rule
            log.warning("collection of a terminal is put off", terminal=visit.address, error=str(error))
            if self._clock.monotonic() < self._ends:
                self._put_off(visit, State.PAUSED, self._policy.pause)
            else:
                self._leave(visit, Reason.STORAGE_FAILED, str(error))
        except Claimed:
            self._leave(visit, Reason.NOT_ASKED, "another collection held the terminal")
        except Exception:  # one terminal's trouble, or our own mistake in it, must not stop all others
            log.exception("collection of a terminal stopped", terminal=visit.address)
            self._stopped += 1
            visit.account()
            visit.state = State.FINISHED
        finally:
            self._working -= 1
            self._wake.set()
            if visit.state in (State.ABSENT, State.LOST) and self._newest(visit) is not None:
                self.logged_in(visit.address)  # it came back before we were done with its going

    async def _work(self, visit: Visit) -> None:
        session = self._parts.registry.session(visit.address)
        first = visit.course is None
        if visit.course is None:
            assets = session.assets if session else await self._parts.store.terminal(visit.address)
            if assets is None:
                visit.state = State.FINISHED
                return
            async with self._may_plan():
                visit.course = await self._plan(assets)
            if visit.already is None:
                visit.already = visit.course.already
        else:
            async with self._may_plan():
                await self._refresh(visit.course)
        course = visit.course
        session = self._newest(visit)
        if course.missing == 0:
            await self._finish(visit, course)
        elif self._parts.registry.contested(visit.address):
            course.give_up(Reason.CONTESTED)
            await self._finish(visit, course)
        elif session is not None:
            if visit.resumes:
                visit.resumes = False
                course.next_round(self._clock.now())
            await self._carry_out(visit, course, session)
        elif first or visit.expired:
            course.give_up(Reason.TERMINAL_ABSENT)
            await self._finish(visit, course)
            if first:
                self._put_off(visit, State.ABSENT, self._policy.absent_wait)
        else:
            self._put_off(visit, State.LOST, self._policy.redial_wait)

    async def _carry_out(self, visit: Visit, course: Course, session: Session) -> None:
        """The turn itself, and what follows from how it ended."""
        turn = Turn(
            course,
            session,
            writer=self._parts.writer,
            clock=self._clock,
            ask_meter=self._parts.ask_meter,
            most_points=self._parts.most_points,
            deadline=self._deadline,
            refresh=self._refresh,
            wanted=lambda: self._parts.wanted(visit.address),
        )
        ending = await turn.run()
        if isinstance(ending, Pause):
            await self._note(course, tries=1)
            visit.resumes = True
            self._put_off(visit, State.PAUSED, ending.seconds)
        elif ending is Ending.FINISHED or course.missing == 0:
            await self._finish(visit, course)
            await self._check_tag(course, session, turn.sample)
        elif ending is Ending.YIELDED:
            self._put_off(visit, State.PAUSED, 0.0)
        elif not course.lost():
            unready = ending is Ending.UNREADY
            course.give_up(Reason.TERMINAL_SILENT if unready else Reason.TERMINAL_ABSENT, "too often lost")
            await self._finish(visit, course)
        elif ending is Ending.UNREADY:
            self._put_off(visit, State.PAUSED, self._policy.pause)
        else:
            self._put_off(visit, State.LOST, self._policy.redial_wait)

    def _newest(self, visit: Visit) -> Session | None:
        """The terminal's login, if it is there now."""
        session = self._parts.registry.session(visit.address)
        return session if session is not None and session.alive else None

    async def _check_tag(self, course: Course, session: Session, row: ReadingRow | None) -> None:
        """Hold one midnight of the terminal beside the meter's own, as long as its profile is not proved.

        In one collection as many of a profile as must agree: where they cannot tell, the next asks others.
        """
        parts, profile, terminal = self._parts, course.assets.profile, course.assets.address
        if row is None or not self._policy.may_ask_meters(self._clock.now()):
            return
        point = next((one for one in course.assets.points if one.meter_id == row[0]), None)
        if point is None or not point.holds_at(self._clock.now()):
            return
        if self._tags_checked[profile] >= AGREEMENTS or not parts.tag_check.begin(profile):
            return
        self._tags_checked[profile] += 1
        agrees: bool | None = None
        try:
            agrees = await within(self._clock, EXCHANGE_SECONDS, parts.confirm_row(session, point, row))
        except (TimeoutError, LingdianError) as error:
            log.info("the meaning of Td_d was not checked", terminal=terminal, error=str(error))
        finally:
            parts.tag_check.told(profile, terminal, row[0], agrees)

    async def _finish(self, visit: Visit, course: Course) -> None:
        await self._note(course, tries=NOTE_TRIES)
        visit.account()
        visit.state = State.FINISHED

    def _leave(self, visit: Visit, reason: Reason, detail: str) -> None:
        """The collection is over for a terminal that it could not take up: what it owes counts as missing."""
        session = self._parts.registry.session(visit.address)
        if visit.course is None and session is not None:
            dues = [one for day in self._days for one in plan.due(session.assets, day)]
            visit.course = self._course(session.assets, dues, dues)
            visit.course.give_up(reason, detail)
        visit.account()
        visit.state = State.FINISHED

    # the database

    @asynccontextmanager
    async def _may_plan(self) -> AsyncIterator[None]:
        """One of PLANNED_AT_ONCE. StorageError where those before it have waited for the database until the
        collection's time was over; those that come due at its end have PLANNED_IN."""
        left = max(PLANNED_IN, self._ends - self._clock.monotonic())
        try:
            await within(self._clock, left, self._planning.acquire())
        except TimeoutError:
            raise StorageError("the database left no time for this terminal") from None
        try:
            if self._parts.registry.gives_way():
                await asyncio.sleep(PLAN_BESIDE_RELAY_S)
            yield
        finally:
            self._planning.release()

    async def _plan(self, assets: TerminalAssets) -> Course:
        """What is due and missing at this terminal now."""
        dues: list[Due] = []
        missing: list[Due] = []
        for day in self._days:
            of_day = plan.due(assets, day)
            if of_day:
                dues += of_day
                missing += plan.missing(of_day, await self._stored(of_day, frozen_at(day)))
        return self._course(assets, dues, missing)

    def _course(self, assets: TerminalAssets, dues: Sequence[Due], missing: Sequence[Due]) -> Course:
        allowance, address = self._parts.allowance, assets.address
        store_days = self._parts.store_days(assets.profile)
        return Course(
            assets,
            dues,
            missing,
            self._policy if store_days else self._policy.straight(),
            now=self._clock.now(),
            deadline=self._deadline,
            store_days=store_days,
            take=lambda now: not store_days or allowance.take(address, now),
        )

    async def _refresh(self, course: Course) -> None:
        """Tell the course what of its missing ones stands by now."""
        by_midnight: dict[datetime, list[Due]] = {}
        for one in course.open():
            by_midnight.setdefault(one.frozen_at, []).append(one)
        here: set[Due] = set()
        for instant, dues in by_midnight.items():
            stored = await self._stored(dues, instant)
            here |= set(dues).difference(plan.missing(dues, stored))
        course.refreshed(here)

    async def _stored(self, dues: Sequence[Due], instant: datetime) -> AbstractSet[plan.StoredKey]:
        return await self._parts.store.stored({one.meter_id for one in dues}, instant)

    async def _note(self, course: Course, *, tries: int) -> None:
        """Write down why what is missing is missing."""
        failures = course.failures()
        if not failures:
            return
        for left in reversed(range(tries)):
            try:
                await self._parts.store.note_failures(failures, self._clock.now())
                break
            except StorageError as error:
                log.warning("failures not noted", terminal=course.assets.address, error=str(error))
                if left:
                    await self._clock.sleep(NOTE_PAUSE_SECONDS)
        for reason, count in course.reasons().items():
            self._parts.metrics.failures[reason].inc(count)

    # how far it is

    async def _report_often(self, report: Callable[[Progress], None] | None) -> None:
        while True:
            self._report(report)
            await asyncio.sleep(PROGRESS_SECONDS)

    def _report(self, report: Callable[[Progress], None] | None) -> None:
        now = progress(self._visits.values())
        self._parts.metrics.collection_due.set(now.due)
        self._parts.metrics.collection_missing.set(now.due - now.done)
        if self._days:
            self._parts.metrics.collection_midnight.set(frozen_at(max(self._days)).timestamp())
        if report is not None:
            report(now)
