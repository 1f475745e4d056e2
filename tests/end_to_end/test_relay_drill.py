"""A billing back end gone wild, with a valid token: it asks for far more trips than the limits allow.

What the meters saw is the witness: never more trip frames within an hour than the limits say; and whoever
pays meanwhile has power back as soon as at any other time.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from gateway.clock import business_day
from tests.end_to_end.billing import (
    Calls,
    Company,
    Customer,
    at_a_rate,
    command,
    company,
    over_limits,
    percentiles,
)

pytestmark = pytest.mark.end_to_end

MOST_SLOWER = 3.0
"""Times as long as before the burst; where nobody gives way it is more than ten times."""


@dataclass(frozen=True)
class Burst:
    """singles: requests of one trip each. batches: of `a_batch` trips each; the last ones name meters again
    that were named before."""

    singles: int
    batches: int
    a_batch: int
    connections: int
    closes: int
    """before the burst, and during it"""
    closes_a_second: float


def _yesterday() -> str:
    return str(business_day(datetime.now(UTC)) - timedelta(days=1))


def _wild(targets: list[Customer], burst: Burst) -> list[tuple[str, Any]]:
    """The requests of a burst: path and body."""
    chance = random.Random(7)
    bodies: list[tuple[str, Any]] = [
        ("/relay-commands", command(targets[number % len(targets)].meter, "trip"))
        for number in range(burst.singles)
    ]
    for _ in range(burst.batches):
        some = chance.sample(targets, min(burst.a_batch, len(targets)))
        bodies.append(("/relay-batches", {"commands": [command(one.meter, "trip") for one in some]}))
    chance.shuffle(bodies)
    return bodies


async def _burst(calls: Calls, wild: list[tuple[str, Any]], connections: int) -> Counter[int]:
    """Ask for all of these as fast as the gateway takes them; how many answers had which status."""
    counts: Counter[int] = Counter()
    left = iter(wild)

    async def post() -> None:
        for path, body in left:
            counts[(await calls.post(path, body)).status] += 1

    await asyncio.gather(*(post() for _ in range(connections)))
    return counts


async def _closes(calls: Calls, company: Company, paid: list[Customer], a_second: float) -> list[float]:
    """Ask for a close of each of these meters; seconds from each request until its frame was there."""
    began = time.time()
    asked = await at_a_rate(calls, [command(one.meter, "close") for one in paid], a_second)
    assert {answer.status for _, answer in asked} == {202}
    deadline = time.monotonic() + 60.0
    while not {one.address for one in paid} <= company.first_frames("close", began).keys():
        assert time.monotonic() < deadline, "not every close has reached its meter"
        await asyncio.sleep(0.2)
    at = company.first_frames("close", began)
    return [at[one.address] - when for one, (when, _) in zip(paid, asked, strict=True)]


class Late(AssertionError):
    """Whoever pays during a burst of trips has to wait for power."""


@dataclass(frozen=True)
class Latencies:
    """Seconds from the request for each close to its frame."""

    before: list[float]
    during: list[float]

    def judge(self) -> None:
        """Late, unless closes during the burst left about as soon as before it."""
        for share, before, during in zip(
            (50, 95), percentiles(self.before), percentiles(self.during), strict=False
        ):
            if during > MOST_SLOWER * before:
                raise Late(
                    f"p{share} was {1000 * before:.0f} ms before the burst, {1000 * during:.0f} ms during it"
                )


async def _drill(company: Company, burst: Burst) -> Latencies:
    storm = company.calls(burst.connections)
    desk = company.calls(8)
    chance = random.Random(11)
    customers = list(company.customers)
    chance.shuffle(customers)
    before, during = customers[: burst.closes], customers[burst.closes : 2 * burst.closes]
    # Before anything is measured: this process is the closes' client, too.
    wild = _wild(customers[2 * burst.closes :], burst)
    quiet = await _closes(desk, company, before, burst.closes_a_second)
    began = time.monotonic()
    running = asyncio.create_task(_burst(storm, wild, burst.connections))
    loud = await _closes(desk, company, during, burst.closes_a_second)
    busy = not running.done()
    counts = await running
    lasted = time.monotonic() - began
    asked = burst.singles + burst.batches * burst.a_batch
    print(f"\n{asked:,} trips asked for in {lasted:.1f} s; answers by status: {dict(counts)}")
    for name, seconds in (("before", quiet), ("during", loud)):
        told = ", ".join(
            f"p{share} {1000 * value:.0f} ms"
            for share, value in zip((50, 95, 99), percentiles(seconds), strict=True)
        )
        print(f"{len(seconds)} closes {name} the burst, request to frame: {told}")
    assert busy, "the burst was over before the closes: they measured nothing"
    assert set(counts) == {202}
    await storm.close()
    await desk.close()
    return Latencies(quiet, loud)


async def _raise_limits(company: Company) -> None:
    """Two persons put the limits out of the way."""
    most = {"area": 1_000_000, "requester": 1_000_000, "all": 1_000_000, "reason": "planted"}
    await company.by_two("/switches/limits", most)


async def _settled(company: Company, seconds: float = 1.5) -> int:
    """Trip frames seen, once no more have come for a while."""
    count = -1
    while (seen := sum(one.verb == "trip" for one in company.frames())) != count:
        count = seen
        await asyncio.sleep(seconds)
    return count


async def test_a_burst_of_trips_stays_within_the_limits(tmp_path: Path) -> None:
    area, every = 10, 60
    environment = {
        "LINGDIAN_CONTROL__AREA_LIMIT": str(area),
        "LINGDIAN_CONTROL__LIMIT": str(every),
    }
    burst = Burst(singles=500, batches=10, a_batch=100, connections=24, closes=40, closes_a_second=20.0)
    async with company(tmp_path, terminals=8, meters=400, day=_yesterday(), environment=environment) as one:
        await _drill(one, burst)
        assert await _settled(one) == every
        assert over_limits(one.frames(), one.terminal_of, area, every) == []
        # The negative control: the same witness sees it when nothing limits trips any more.
        await _raise_limits(one)
        calls = one.calls(8)
        free = one.customers[-3 * area :]
        await asyncio.gather(*(calls.post("/relay-commands", command(it.meter, "trip")) for it in free))
        await calls.close()
        deadline = time.monotonic() + 60.0
        while not over_limits(one.frames(), one.terminal_of, area, every):
            assert time.monotonic() < deadline, "limits out of the way, and nothing was seen"
            await asyncio.sleep(0.2)


@pytest.mark.long
async def test_a_hundred_thousand_trips_stay_within_the_default_limits(tmp_path: Path) -> None:
    burst = Burst(singles=40_000, batches=60, a_batch=1000, connections=32, closes=600, closes_a_second=10.0)
    async with company(tmp_path, terminals=250, meters=100_000, day=_yesterday()) as one:
        latencies = await _drill(one, burst)
        assert await _settled(one, 60.0) == 500
        assert over_limits(one.frames(), one.terminal_of, 50, 500) == []
        latencies.judge()


@pytest.mark.long
async def test_closes_that_nobody_gives_way_to_are_seen_to_be_late(tmp_path: Path) -> None:
    burst = Burst(singles=1500, batches=4, a_batch=1000, connections=32, closes=200, closes_a_second=10.0)
    planted = "tests.end_to_end.gateway_that_gives_no_way"
    async with company(tmp_path, terminals=100, meters=20_000, day=_yesterday(), module=planted) as one:
        latencies = await _drill(one, burst)
        with pytest.raises(Late):
            latencies.judge()
