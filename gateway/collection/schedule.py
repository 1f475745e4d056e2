"""The nightly schedule: collects by itself after each midnight of Shanghai, in each process for its own
terminals, and in one of them, by a lease, for those that are nowhere.

It remembers nothing that matters: what is missing is plan minus rows, so a restart only looks again.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Collection
from contextlib import AbstractAsyncContextManager
from datetime import date, datetime, timedelta
from typing import Final, Protocol

import structlog

from gateway.clock import Clock, business_day
from gateway.collection.account import Progress, Summary
from gateway.collection.plan import days, first_pass, next_pass
from gateway.collection.policy import Policy, nightly
from gateway.collection.stores import Session, Sessions
from gateway.config import CollectionSettings
from gateway.errors import LingdianError, StorageError
from gateway.storage import leases
from gateway.storage.database import Database

log = structlog.get_logger()

SLICE_SECONDS: Final = 60.0
"""Between two looks at the clock while waiting, and at the lease: a set clock is noticed so soon."""

RETRY_SECONDS: Final = 15.0
"""After the database was away."""

START_SECONDS: Final = 300.0
"""From the start in the middle of a night or day to its first pass: terminals dial in again first. Each is
asked at its login anyway; the pass is for those that were connected all along."""

SHORTEST_PASS_SECONDS: Final = 600.0
"""What a pass gets even if the next one is due sooner."""

LATECOMERS_GATHER_SECONDS: Final = 5.0
"""Logins of so long are taken together: after a failure of the network hundreds come in a second."""

LATECOMER_BATCHES: Final = 4
"""Under way at once; further logins wait and are then taken together."""

LATECOMER_TIMES: Final = 3
"""Logins of one terminal between two passes that have it asked; one that flaps waits for the next pass."""


class Lease(Protocol):
    """The right to be the one process whose schedule is for all terminals."""

    async def renew(self) -> None:
        """StorageError where it is lost."""
        ...


class Collects(Protocol):
    """The collector, as the schedule uses it."""

    async def collect(
        self,
        day: Collection[date],
        *,
        terminals: Collection[str] | None = None,
        progress: Callable[[Progress], None] | None = None,
        direct: bool | Policy = True,
    ) -> Summary: ...


class Schedule:
    """Passes at settings, each for the gaps of the last `days_back` days; latecomers at their login."""

    def __init__(
        self,
        collector: Collects,
        registry: Sessions,
        database: Database,
        clock: Clock,
        settings: CollectionSettings,
    ) -> None:
        self._collector = collector
        self._registry = registry
        self._leads = False
        self._database = database
        self._clock = clock
        self._settings = settings
        self._every = timedelta(minutes=settings.then_every_minutes)
        self._logins: set[str] = set()
        self._somebody = asyncio.Event()
        self._no_pass = asyncio.Event()
        self._no_pass.set()
        self._taken_up: Counter[str] = Counter()
        registry.on_login(self._logged_in)

    async def run(self) -> None:
        """Until cancelled. A database that is away is waited for. Without the lease, the terminals that are
        logged in here are asked, and those only: who holds it asks for all others, and says who is absent."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._keep_lease(), name="lease of the schedule")
            tasks.create_task(self._take_latecomers(), name="latecomers")
            tasks.create_task(self._passes(), name="passes")

    def _take_lease(self) -> AbstractAsyncContextManager[Lease]:
        return leases.lease(self._database, "schedule", self._clock.sleep)

    async def _keep_lease(self) -> None:
        while True:
            try:
                async with self._take_lease() as lease:
                    log.info("the schedule for terminals that are nowhere runs here")
                    self._leads = True
                    while True:
                        await self._clock.sleep(SLICE_SECONDS)
                        await lease.renew()
            except StorageError as error:
                log.warning("the schedule asks the terminals that are here only", error=str(error))
            finally:
                self._leads = False
            await self._clock.sleep(RETRY_SECONDS)

    async def _passes(self) -> None:
        now = self._clock.now()
        at = self._next(now)
        soon = now + timedelta(seconds=START_SECONDS)
        if now >= first_pass(now, self._settings.passes) and business_day(soon) == business_day(now):
            at = min(at, soon)
        while True:
            await self._until(at)
            if self._leads:
                self._no_pass.clear()
            try:
                complete = await self._pass(self._next(at))
            finally:
                self._no_pass.set()
                self._taken_up.clear()
            at = self._after(at, complete)

    async def _until(self, at: datetime) -> None:
        while (left := (at - self._clock.now()).total_seconds()) > 0:
            await self._clock.sleep(min(left, SLICE_SECONDS))

    def _next(self, after: datetime) -> datetime:
        return next_pass(after, self._settings.passes, self._every)

    def _after(self, at: datetime, complete: bool) -> datetime:
        """The pass that follows the one at `at`: when all is there, the first of the next day. Of several
        that went by meanwhile (a long pass, a stopped process) one is made up for."""
        following = self._next(at)
        while complete and business_day(following) == business_day(at):
            following = self._next(following)
        while (later := self._next(following)) <= self._clock.now():
            following = later
        return following

    async def _pass(self, following: datetime) -> bool:
        """Collect the gaps until all is there or the following pass is due; True if nothing is missing
        anywhere."""
        while True:
            longest = max((following - self._clock.now()).total_seconds(), SHORTEST_PASS_SECONDS)
            try:
                here = None if self._leads else self._here()
                came_to = await self._collect("pass of the schedule ended", here, longest)
            except LingdianError as error:  # the database, as a rule: the pass is tried again, not left out
                log.error("a pass of the schedule failed", error=str(error))
                await self._clock.sleep(RETRY_SECONDS)
                if self._clock.now() >= following:
                    return False
            else:
                return here is None and came_to.missing == 0

    def _here(self) -> list[str]:
        return [session.address for session in self._registry.sessions()]

    async def _collect(self, done: str, terminals: Collection[str] | None, longest: float) -> Summary:
        wanted = days(business_day(self._clock.now()), self._settings.days_back)
        came_to = await self._collector.collect(
            wanted, terminals=terminals, direct=nightly(self._settings, longest)
        )
        log.info(
            done,
            terminals=None if terminals is None else len(terminals),
            due=came_to.due,
            missing=came_to.missing,
            new=came_to.collected - came_to.already,
            seconds=round(came_to.seconds, 1),
            reasons={reason.value: count for reason, count in came_to.reasons.items()},
        )
        return came_to

    # terminals that log in after their pass

    def _logged_in(self, session: Session) -> None:
        self._logins.add(session.address)
        self._somebody.set()

    async def _take_latecomers(self) -> None:
        room = asyncio.Semaphore(LATECOMER_BATCHES)
        async with asyncio.TaskGroup() as batches:
            while True:
                await self._somebody.wait()
                await self._clock.sleep(LATECOMERS_GATHER_SECONDS)
                await self._no_pass.wait()  # a pass for all takes up logins by itself; bounded by the next
                await room.acquire()
                self._somebody.clear()
                chosen, self._logins = self._logins, set()
                now = self._clock.now()
                chosen = {one for one in chosen if self._taken_up[one] < LATECOMER_TIMES}
                if not chosen or now < first_pass(now, self._settings.passes):
                    room.release()  # before the first pass there is nothing new to be had
                    continue
                self._taken_up.update(chosen)
                batches.create_task(self._take_batch(chosen, self._next(now), room))

    async def _take_batch(self, chosen: set[str], following: datetime, room: asyncio.Semaphore) -> None:
        try:
            longest = (following - self._clock.now()).total_seconds()
            await self._collect("latecomers collected", chosen, max(longest, SHORTEST_PASS_SECONDS))
        except LingdianError as error:
            log.warning("latecomers not collected; the next pass has them", error=str(error))
        finally:
            room.release()
