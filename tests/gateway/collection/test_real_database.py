"""The same doors over a real database: plan minus rows, failures beside it, the lease of the schedule."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import timedelta
from pathlib import Path

import psycopg
import pytest

from gateway.clock import Clock, frozen_at
from gateway.collection import plan
from gateway.collection.collector import Collector
from gateway.collection.policy import Direct
from gateway.collection.stores import CollectionStore, Files, Session, Sessions
from gateway.config import CollectionSettings
from gateway.errors import StorageError
from gateway.metrics import Metrics
from gateway.model import Point, ReadingRow, Reason, TerminalAssets
from gateway.session.registry import Registry as RealRegistry
from gateway.storage import assets, gaps
from gateway.storage.database import Database
from gateway.storage.imports import import_assets
from gateway.storage.leases import lease
from gateway.storage.readings import ReadingWriter
from tests.gateway.collection.world import DAY, Registry, Terminal, clock_at, policy

pytestmark = pytest.mark.database


def doors_fit(registry: RealRegistry, writer: ReadingWriter) -> tuple[Sessions, Files]:
    """For the type checker: the real parts are what the collector asks for."""
    return registry, writer


async def agrees(session: Session, at: Point, row: ReadingRow, /) -> bool | None:
    """The meter's own freeze is as the terminal says."""
    return True


def collector_of(database: Database, registry: Registry, writer: ReadingWriter, clock: Clock) -> Collector:
    store = CollectionStore(database)
    return Collector(registry, store, writer, clock, CollectionSettings(), Metrics(), confirm_row=agrees)


async def planted(database: Database, folder: Path, terminals: int, meters: int) -> list[TerminalAssets]:
    """Assets of so many terminals with so many meters each, imported as a person would."""
    names = [f"0200{number:04x}" for number in range(1, terminals + 1)]
    rows = [
        f"{number:03d}{pn:09d},{name},{pn},{role}"
        for number, name in enumerate(names, start=1)
        for pn, role in ((pn, "area_gateway" if pn == 1 else "customer") for pn in range(1, meters + 1))
    ]
    (folder / "terminals.csv").write_text("terminal\n" + "".join(f"{name}\n" for name in names))
    (folder / "meters.csv").write_text("address,terminal,pn,role\n" + "".join(f"{row}\n" for row in rows))
    report = await import_assets(database, terminals=folder / "terminals.csv", meters=folder / "meters.csv")
    assert report.bad == 0
    return [one async for one in assets.terminals(database)]


async def test_a_sweep_into_the_database_and_its_gaps(database: Database, tmp_path: Path) -> None:
    here = await planted(database, tmp_path, terminals=3, meters=40)
    clock, registry = clock_at(), Registry()
    terminals = [Terminal(one, clock, takes=0.05) for one in here]
    terminals[0].lacks = {7: Reason.NO_VALUE_YET, 8: Reason.WRONG_DATE}
    for terminal in terminals[:2]:
        registry.login(terminal)
    async with ReadingWriter(database) as writer:
        collector = collector_of(database, registry, writer, clock)
        came_to = await collector.collect(DAY, direct=policy(tries=2, direct=Direct.NEVER))
        assert (came_to.due, came_to.collected, came_to.stopped) == (123, 80, 0)
        assert came_to.reasons == {
            Reason.NO_VALUE_YET: 1, Reason.WRONG_DATE: 1, Reason.TERMINAL_ABSENT: 41,
        }  # fmt: skip
        why: Counter[tuple[str, Reason]] = Counter()
        async for midnight in gaps.midnights(database, frozen_at(DAY)):
            for one in plan.missing(plan.due(midnight.assets, DAY), midnight.stored):
                failure = midnight.failures[one.meter_id, one.quantity, one.kind]
                why[midnight.assets.address, failure.reason] += 1
        assert why == {
            (here[0].address, Reason.NO_VALUE_YET): 1,
            (here[0].address, Reason.WRONG_DATE): 1,
            (here[2].address, Reason.TERMINAL_ABSENT): 41,
        }
        terminals[0].lacks = {}
        registry.login(terminals[2])
        again = await collector.collect(DAY, direct=policy())
        assert (again.collected, again.already, again.missing) == (123, 80, 0)
        asked = [one.pn for request in terminals[0].asked for one in request]
        assert sorted(asked)[-5:] == [36, 37, 38, 39, 40]
        assert sum(pn == 36 for pn in asked) == 1
    left = [midnight.failures async for midnight in gaps.midnights(database, frozen_at(DAY))]
    assert left == [{}, {}, {}], "a reason goes when its value comes"


async def test_addresses_are_those_of_the_assets(database: Database, tmp_path: Path) -> None:
    here = await planted(database, tmp_path, terminals=5, meters=1)
    store = CollectionStore(database)
    assert [one async for one in store.addresses()] == [one.address for one in here]
    assert await store.terminal(here[0].address) == here[0]
    assert await store.terminal("09990000") is None


async def test_a_lease_is_held_by_one_and_free_when_its_connection_ends(
    database: Database, conninfo: str
) -> None:
    clock = Clock(speed=100.0)
    order: list[str] = []

    async def work(name: str, seconds: float) -> None:
        async with lease(database, "schedule", clock.sleep) as held:
            order.append(f"{name} begins")
            await held.renew()
            await asyncio.sleep(seconds)
            order.append(f"{name} ends")

    first = asyncio.create_task(work("first", 0.5))
    while not order:
        await clock.sleep(1.0)
    async with lease(database, "something else", clock.sleep):
        pass
    await asyncio.gather(first, work("second", 0.0))
    assert order == ["first begins", "first ends", "second begins", "second ends"]


async def test_a_lease_whose_connection_dies_says_so(database: Database, conninfo: str) -> None:
    clock = Clock(speed=100.0)
    async with lease(database, "schedule", clock.sleep) as held:
        with psycopg.connect(conninfo, autocommit=True) as other:
            other.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_locks JOIN pg_stat_activity USING (pid)"
                " WHERE locktype = 'advisory' AND datname = current_database()"
            )
        with pytest.raises(StorageError, match="lost"):
            await held.renew()
        async with lease(database, "schedule", clock.sleep) as again:
            await again.renew()


async def test_a_database_that_restarts_in_the_sweep_only_costs_time(
    database: Database, conninfo: str, tmp_path: Path
) -> None:
    """All its connections die, again and again, while rows are filed and plans looked up."""
    here = await planted(database, tmp_path, terminals=8, meters=120)
    clock, registry = clock_at(speed=50.0), Registry()
    for one in here:
        registry.login(Terminal(one, clock, takes=0.5))

    enough = asyncio.Event()

    async def trouble() -> None:
        async with await psycopg.AsyncConnection.connect(conninfo, autocommit=True) as other:
            while not enough.is_set():
                await other.execute(  # and wait for their end: none dies when the trouble is over
                    "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
                    " WHERE datname = current_database() AND pid <> pg_backend_pid()"
                )
                await asyncio.sleep(0.1)

    async with ReadingWriter(database) as writer:
        collector = collector_of(database, registry, writer, clock)
        killing = asyncio.create_task(trouble())
        sweep = asyncio.create_task(collector.collect(DAY, direct=policy(pause=5.0, redials=100)))
        await asyncio.wait([sweep], timeout=1.0)
        enough.set()
        await killing
        try:
            came_to = await sweep
        except StorageError:  # it was away from the start: said at once, and asked for again
            came_to = await collector.collect(DAY, direct=policy())
    assert (came_to.due, came_to.missing, came_to.stopped) == (8 * 121, 0, 0)
    for one in here:
        stored = await gaps.stored(database, {point.meter_id for point in one.points}, frozen_at(DAY))
        assert plan.missing(plan.due(one, DAY), stored) == []
    assert came_to.seconds < timedelta(hours=2).total_seconds()
