"""The schedule: when it passes; restarts, lost leases, late logins; whole nights on a fast clock."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from typing import cast

import pytest

from gateway.clock import SHANGHAI, Clock, frozen_at, to_device
from gateway.collection.collector import Progress, Summary
from gateway.collection.policy import Direct, Policy
from gateway.collection.schedule import Collects, Lease, Schedule
from gateway.config import CollectionSettings
from gateway.errors import StorageError
from gateway.model import Kind, Reason
from gateway.storage.database import Database
from tests.gateway.collection.world import Registry, Terminal, World, assets_of, clock_at, point

TURNS = 50
"""Turns of the loop after which everything that can run without time passing has run."""


@dataclass(frozen=True)
class SteppedClock(Clock):
    """Time that passes only when everybody sleeps, and then at once."""

    sleepers: list[tuple[float, int, asyncio.Future[None]]] = field(default_factory=list)
    at: list[float] = field(default_factory=lambda: [0.0])
    order: itertools.count[int] = field(default_factory=itertools.count)

    def now(self) -> datetime:
        return datetime.fromtimestamp(self.at[0], UTC)

    def monotonic(self) -> float:
        return self.at[0]

    async def sleep(self, seconds: float) -> None:
        woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self.sleepers, (self.at[0] + max(0.0, seconds), next(self.order), woken))
        await woken

    async def run_until(self, end: datetime) -> None:
        """Let time pass until `end`."""
        while True:
            for _ in range(TURNS):
                await asyncio.sleep(0)
            while self.sleepers and self.sleepers[0][2].done():
                heapq.heappop(self.sleepers)
            if not self.sleepers or self.sleepers[0][0] > end.timestamp():
                self.at[0] = end.timestamp()
                return
            when, _, woken = heapq.heappop(self.sleepers)
            self.at[0] = max(self.at[0], when)
            woken.set_result(None)


def stepped(at: datetime) -> SteppedClock:
    return SteppedClock(at=[at.timestamp()])


class FakeLease:
    """One lease for all schedules of a test."""

    def __init__(self) -> None:
        self.holder: object | None = None
        self.lost: set[object] = set()
        self.away = 0
        """so many tries to take it fail"""

    @asynccontextmanager
    async def take(self, who: object, clock: Clock) -> AsyncIterator[Lease]:
        if self.away:
            self.away -= 1
            raise StorageError("the database is away")
        while self.holder is not None:
            await clock.sleep(10.0)
        self.holder = who
        try:
            yield _Held(self, who)
        finally:
            self.holder = None


@dataclass
class _Held:
    lease: FakeLease
    who: object

    async def renew(self) -> None:
        if self.who in self.lease.lost:
            self.lease.lost.discard(self.who)
            raise StorageError("the lease is lost")


@dataclass(frozen=True)
class Call:
    at: datetime
    """Shanghai wall clock"""
    days: list[date]
    terminals: frozenset[str] | None
    policy: Policy


class FakeCollector:
    """Notes the calls; each takes `takes` seconds and comes to the next of `came_to`."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.calls: list[Call] = []
        self.takes = 60.0
        self.came_to: deque[Summary | Exception] = deque()
        self.usually = Summary(due=10, collected=9, missing=1, reasons=Counter({Reason.DAMAGED: 1}))

    async def collect(
        self,
        day: Collection[date],
        *,
        terminals: Collection[str] | None = None,
        progress: Callable[[Progress], None] | None = None,
        direct: bool | Policy = True,
    ) -> Summary:
        assert isinstance(direct, Policy)
        named = None if terminals is None else frozenset(terminals)
        self.calls.append(Call(to_device(self.clock.now()), list(day), named, direct))
        await self.clock.sleep(self.takes)
        came_to = self.came_to.popleft() if self.came_to else self.usually
        if isinstance(came_to, Exception):
            raise came_to
        return came_to

    def times(self, terminals: bool = False) -> list[tuple[int, time]]:
        """Day of month and time of the passes (or of the takings-up of single terminals)."""
        return [
            (call.at.day, call.at.time().replace(second=0, microsecond=0))
            for call in self.calls
            if (call.terminals is not None) is terminals
        ]


class LeasedSchedule(Schedule):
    """A schedule without a database."""

    def __init__(
        self, collector: Collects, registry: Registry, lease: FakeLease, clock: Clock, **settings: object
    ) -> None:
        chosen = CollectionSettings(**settings)  # type: ignore[arg-type]  # settings by name
        super().__init__(collector, registry, cast(Database, None), clock, chosen)
        self.lease = lease
        self.clock = clock

    def _take_lease(self) -> AbstractAsyncContextManager[Lease]:
        return self.lease.take(self, self.clock)


@dataclass
class Bench:
    """A schedule over a fake collector on a stepped clock."""

    start: datetime
    settings: dict[str, object] = field(default_factory=dict)
    of: Bench | None = None
    """of another process, with the same clock and the same lease"""

    def __post_init__(self) -> None:
        self.clock: SteppedClock = stepped(self.start) if self.of is None else self.of.clock
        self.registry = Registry()
        self.collector = FakeCollector(self.clock)
        self.lease: FakeLease = FakeLease() if self.of is None else self.of.lease

    @asynccontextmanager
    async def running(self) -> AsyncIterator[LeasedSchedule]:
        schedule = LeasedSchedule(self.collector, self.registry, self.lease, self.clock, **self.settings)
        task = asyncio.create_task(schedule.run())
        try:
            yield schedule
        finally:
            assert not task.done(), task.result() if task.done() else None
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def login(self, number: int) -> None:
        terminal = Terminal(assets_of([point(1)], f"0200{number:04x}"), self.clock)
        self.registry.login(terminal)


def at(day: int, hour: int, minute: int = 0) -> datetime:
    return datetime(2026, 11, day, hour, minute, tzinfo=SHANGHAI)


async def test_passes_at_settings_then_hourly_until_the_next_midnight() -> None:
    bench = Bench(at(23, 23, 59))
    async with bench.running():
        await bench.clock.run_until(at(25, 2))
    hourly = [(24, time(hour, 30)) for hour in range(7, 24)]
    assert bench.collector.times() == [
        (24, time(1, 30)), (24, time(4)), (24, time(6, 30)), *hourly, (25, time(1, 30)),
    ]  # fmt: skip


async def test_a_pass_covers_the_gaps_of_the_last_days_and_asks_meters_in_daytime_only() -> None:
    bench = Bench(at(24, 0), {"days_back": 3})
    async with bench.running():
        await bench.clock.run_until(at(24, 3))
    (call,) = bench.collector.calls
    assert call.days == [date(2026, 11, 23), date(2026, 11, 22), date(2026, 11, 21)]
    assert call.policy.direct is Direct.DAYTIME
    assert call.policy.longest == pytest.approx(2.5 * 3600, abs=1), "until the next pass"


async def test_when_all_is_there_the_next_pass_is_tomorrows() -> None:
    bench = Bench(at(24, 0))
    bench.collector.came_to.extend([bench.collector.usually, Summary(due=10, collected=10)])
    async with bench.running():
        await bench.clock.run_until(at(25, 2))
    assert bench.collector.times() == [(24, time(1, 30)), (24, time(4)), (25, time(1, 30))]


async def test_a_long_pass_is_followed_by_one_that_makes_up_for_those_that_went_by() -> None:
    bench = Bench(at(24, 0))
    bench.collector.takes = 6 * 3600.0
    async with bench.running():
        await bench.clock.run_until(at(24, 8))
        bench.collector.takes = 60.0
        await bench.clock.run_until(at(24, 14, 45))
    assert bench.collector.times() == [
        (24, time(1, 30)),
        (24, time(7, 30)),
        (24, time(13, 30)),
        (24, time(14, 30)),
    ]


async def test_a_database_that_is_away_is_tried_again_within_the_pass() -> None:
    bench = Bench(at(24, 0))
    bench.lease.away = 3
    bench.collector.came_to.extend([StorageError("away")] * 5)
    async with bench.running():
        await bench.clock.run_until(at(24, 3))
    times = bench.collector.times()
    assert len(times) == 6
    assert all(time(1, 30) <= when <= time(1, 45) for _, when in times)


async def test_after_a_start_in_the_day_the_first_pass_waits_for_redials_only() -> None:
    bench = Bench(at(24, 10, 2))
    async with bench.running():
        await bench.clock.run_until(at(24, 11, 45))
    assert bench.collector.times() == [(24, time(10, 7)), (24, time(10, 30)), (24, time(11, 30))]


async def test_one_of_two_processes_passes_for_all_and_the_other_for_those_that_are_there() -> None:
    first = Bench(at(24, 0))
    second = Bench(at(24, 0), of=first)
    second.collector.takes = 3600.0
    async with first.running():
        await first.clock.run_until(at(24, 0, 1))
        async with second.running():
            second.login(7)
            await first.clock.run_until(at(24, 1, 40))
            second.login(8)  # it was another's, which has died
            await first.clock.run_until(at(24, 1, 45))
            assert [call.terminals for call in first.collector.calls] == [None]
            assert [call.terminals for call in second.collector.calls] == [
                frozenset({"02000007"}), frozenset({"02000008"}),
            ]  # fmt: skip


async def test_when_the_process_that_passes_for_all_ends_another_does() -> None:
    first = Bench(at(24, 0))
    second = Bench(at(24, 0), of=first)
    second.collector.usually = Summary(due=10, collected=10)  # of its own terminals: that is not all
    async with AsyncExitStack() as leads:
        await leads.enter_async_context(first.running())
        await first.clock.run_until(at(24, 0, 1))
        async with second.running():
            await first.clock.run_until(at(24, 3))
            await leads.aclose()
            second.collector.usually = first.collector.usually
            await first.clock.run_until(at(24, 7))
    calls = [*first.collector.calls, *second.collector.calls]
    assert [call.at.hour for call in calls if call.terminals is None] == [1, 4, 6]


async def test_a_lost_lease_leaves_those_that_are_there_until_it_is_held_again() -> None:
    bench = Bench(at(24, 0))
    async with bench.running() as schedule:
        await bench.clock.run_until(at(24, 1, 29))
        bench.lease.lost.add(schedule)
        bench.lease.away = 20
        await bench.clock.run_until(at(24, 5))
        assert not bench.lease.lost
    named = [call.terminals for call in bench.collector.calls]
    assert named == [frozenset(), None]


async def test_latecomers_are_asked_at_their_login_together() -> None:
    bench = Bench(at(24, 0))
    async with bench.running():
        await bench.clock.run_until(at(24, 1))
        bench.login(1)
        await bench.clock.run_until(at(24, 3))
        assert len(bench.collector.calls) == 1, "before the first pass nobody is a latecomer"
        bench.login(2)
        bench.login(3)
        await bench.clock.run_until(at(24, 3, 30))
    assert bench.collector.times(terminals=True) == [(24, time(3, 0))]
    assert bench.collector.calls[1].terminals == frozenset({"02000002", "02000003"})
    assert len(bench.collector.calls[1].days) == 7


async def test_a_login_in_a_pass_is_looked_at_after_it() -> None:
    bench = Bench(at(24, 0))
    bench.collector.takes = 1800.0
    async with bench.running():
        await bench.clock.run_until(at(24, 1, 40))
        bench.login(1)
        await bench.clock.run_until(at(24, 1, 59))
        assert bench.collector.times(terminals=True) == []
        await bench.clock.run_until(at(24, 2, 1))
    assert bench.collector.times(terminals=True) == [(24, time(2, 0))]


async def test_a_terminal_that_flaps_is_not_asked_at_each_login() -> None:
    bench = Bench(at(24, 1, 31))
    async with bench.running():
        for minute in range(40, 60):
            await bench.clock.run_until(at(24, 1, minute))
            bench.login(1)
        await bench.clock.run_until(at(24, 3))
    assert len(bench.collector.times(terminals=True)) == 3


async def test_several_nights_with_a_month_end_and_an_absent_terminal() -> None:
    """Real collector, fast clock: terminals are done between 01:00 and 05:00, one is away for a night."""
    start = datetime(2026, 11, 29, 23, 30, tzinfo=SHANGHAI)
    clock = clock_at(start, speed=30_000)
    world = World(20, 20, 8, clock=clock, settings=CollectionSettings(backoff_seconds=30))
    ready: dict[int, timedelta] = {pn: timedelta(hours=1, minutes=12 * pn) for pn in range(1, 21)}

    class ReadsAtNight(Terminal):
        def usual(self, dues):  # type: ignore[no-untyped-def]  # as Terminal.usual
            self.value_from = {one.pn: one.frozen_at + ready[one.pn] for one in dues}
            return super().usual(dues)

    terminals = [ReadsAtNight(one.assets, clock, takes=1.0, reading=True) for one in world.terminals]
    world.login(*terminals[:2])
    schedule = LeasedSchedule(world.collector, world.registry, FakeLease(), clock, days_back=7)
    task = asyncio.create_task(schedule.run())
    days = [date(2026, 11, 29), date(2026, 11, 30), date(2026, 12, 1)]

    async def wait_until(wanted: datetime) -> None:
        while clock.now() < wanted and not task.done():
            await clock.sleep(300.0)

    await wait_until(datetime(2026, 11, 30, 23, 0, tzinfo=SHANGHAI))
    dues = world.dues(days[0])
    assert world.database.holds(dues) == 40
    assert world.database.holds(one for one in dues if one.meter_id > 3000) == 0
    assert world.database.reasons() == {Reason.TERMINAL_ABSENT}
    world.login(terminals[2])
    await wait_until(datetime(2026, 12, 2, 20, 0, tzinfo=SHANGHAI))
    assert not task.done()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    for day in days:
        assert world.database.holds(world.dues(day)) == len(world.dues(day)), day
    month = [key for key in world.database.rows if key[2] == Kind.MONTH]
    assert len(month) == 48
    assert {key[3] for key in month} == {frozen_at(date(2026, 11, 30))}
    for key, row in world.database.rows.items():
        assert row[11] >= key[3] + timedelta(hours=1), "nothing was filed before it was frozen and read"
