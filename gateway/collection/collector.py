"""Asks terminals for what is missing, hundreds at once, until nothing more is to be had.

What is missing is always plan minus rows: nothing is remembered from one collection to the next.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Iterable
from contextlib import asynccontextmanager
from datetime import date

from gateway.clock import Clock, frozen_at
from gateway.collection.account import Progress, Summary, Terminals
from gateway.collection.policy import Allowance, Policy, on_demand
from gateway.collection.run import Claimed, Parts, Run
from gateway.collection.stores import (
    AskMeter,
    ConfirmRow,
    Files,
    Session,
    Sessions,
    Store,
    ask_meter,
    confirm_row,
)
from gateway.collection.tagcheck import TagCheck
from gateway.collection.turn import within
from gateway.config import CollectionSettings
from gateway.errors import InputError
from gateway.metrics import Metrics

__all__ = ["Collector", "Progress", "Summary", "Terminals"]

STORE_DAYS = 30
"""Terminals keep about so many midnights, where the profile says nothing."""


class Collector:
    """One for the whole gateway. `collect` may run several times at once: each terminal is worked by one."""

    def __init__(
        self,
        registry: Sessions,
        store: Store,
        writer: Files,
        clock: Clock,
        settings: CollectionSettings,
        metrics: Metrics,
        *,
        store_days: Callable[[str], int] = lambda profile: STORE_DAYS,
        ask_meter: AskMeter = ask_meter,
        confirm_row: ConfirmRow = confirm_row,
    ) -> None:
        """`registry`: the Registry; `store`: CollectionStore(database); `writer`: the ReadingWriter.

        `store_days(profile)`: how long terminals of that profile keep their midnights, in days
        (`SessionSettings.profile(name).store_days`), 0 where they keep none.
        """
        self._registry = registry
        self._store = store
        self._clock = clock
        self._settings = settings
        self._metrics = metrics
        self._runs: set[Run] = set()
        self._claims: dict[str, tuple[asyncio.Lock, int]] = {}
        self._parts = Parts(
            registry=registry,
            store=store,
            writer=writer,
            clock=clock,
            metrics=metrics,
            ask_meter=ask_meter,
            confirm_row=confirm_row,
            tag_check=TagCheck(),
            allowance=Allowance(settings.direct_reads_per_terminal_hour),
            store_days=store_days,
            most_points=settings.points_per_request,
            terminals_at_once=settings.terminals_at_once,
            claim=self._claim,
            wanted=self._wanted,
        )
        registry.on_login(self._logged_in)

    async def collect(
        self,
        day: date | Iterable[date],
        *,
        terminals: Collection[str] | None = None,
        progress: Callable[[Progress], None] | None = None,
        direct: bool | Policy = True,
    ) -> Summary:
        """Ask for all that is missing for these business days, at all terminals or those named.

        direct: may meters be asked through AFN10 now; or a whole policy. `progress` is called a few times a
        second and once at the end. InputError for a day that has not ended or a terminal nobody knows;
        StorageError where the database is away from the start.
        Cancelling it loses nothing: what was filed is filed, the rest is missing and asked for next time.
        """
        days = [day] if isinstance(day, date) else list(dict.fromkeys(day))
        for one in days:
            if frozen_at(one) > self._clock.now():
                raise InputError(f"{one}: this business day has not ended 该业务日尚未结束")
        policy = direct if isinstance(direct, Policy) else on_demand(self._settings, direct)
        addresses = await self._addresses(terminals)
        run = Run(self._parts, days, policy)
        self._runs.add(run)
        self._metrics.collections_running.inc()
        try:
            for address in addresses:
                run.add(address)
            return await run.go(progress)
        finally:
            self._runs.discard(run)
            self._metrics.collections_running.dec()

    async def _addresses(self, terminals: Collection[str] | None) -> list[str]:
        """Those asked for, or all of the assets; those that are connected come first."""
        if terminals is None:
            wanted = {session.address: None for session in self._registry.sessions()}
            async for address in self._store.addresses():
                wanted[address] = None
            return list(wanted)
        for address in terminals:
            if self._registry.session(address) is None and await self._store.terminal(address) is None:
                raise InputError(f"terminal {address} is not in the assets 终端不在档案中")
        return list(dict.fromkeys(terminals))

    def _logged_in(self, session: Session) -> None:
        for run in self._runs:
            run.logged_in(session.address)

    def _wanted(self, address: str) -> bool:
        return self._claims[address][1] > 1

    @asynccontextmanager
    async def _claim(self, address: str, seconds: float) -> AsyncIterator[None]:
        """Hold the terminal: the schedule and a person may both want it. Claimed after so many seconds."""
        lock, users = self._claims.get(address, (asyncio.Lock(), 0))
        self._claims[address] = (lock, users + 1)
        try:
            try:
                await within(self._clock, seconds, lock.acquire())
            except TimeoutError as error:
                raise Claimed(address) from error
            try:
                yield
            finally:
                lock.release()
        finally:
            lock, users = self._claims[address]
            if users == 1:
                del self._claims[address]
            else:
                self._claims[address] = (lock, users - 1)
