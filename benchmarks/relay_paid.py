"""From payment to power: closes behind a carrier that takes 2 to 20 s an exchange and loses one in twenty."""

from __future__ import annotations

import asyncio
import random
import statistics
import time
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from benchmarks.report import console
from gateway.clock import business_day
from tests.end_to_end.billing import Calls, Customer, command, company, percentiles

TERMINALS, METERS = 60, 1500
HOUSEHOLDS = 600
SPEED = 60.0
"""Simulated seconds a second: what the gateway itself takes counts sixty-fold."""

CARRIER = {"least": 2.0, "most": 20.0, "loss": 0.05}
WITHIN = timedelta(hours=1)
"""Payments come at random within this time, simulated."""

ENDS_WITHIN = timedelta(hours=6)
MEAN_MINUTES = 5.0

SETTINGS = {
    "LINGDIAN_CONTROL__AREA_LIMIT": "100000",
    "LINGDIAN_CONTROL__REQUESTER_LIMIT": "1000000",
    "LINGDIAN_CONTROL__LIMIT": "1000000",
    "LINGDIAN_CLOCK__SPEED": str(SPEED),
    # half a second of a fast clock is half a minute
    "LINGDIAN_SESSION__REPLY_TIMEOUT_SECONDS": "600",
    "LINGDIAN_SESSION__LOGIN_DEADLINE_SECONDS": "600",
}


class _Time:
    """The company's fast clock."""

    def __init__(self, start: datetime, origin: float) -> None:
        self._start, self._origin = start, origin

    def now(self) -> datetime:
        return self._start + timedelta(seconds=(time.time() - self._origin) * SPEED)

    async def until(self, at: datetime) -> None:
        await asyncio.sleep(max(0.0, (at - self.now()).total_seconds()) / SPEED)


async def paid(terminals: int = TERMINALS, meters: int = METERS, households: int = HOUSEHOLDS) -> None:
    """Trip so many households, have them pay, and tell when each had power again. AssertionError where one is
    dark with nobody on the way."""
    from benchmarks.relay import folders

    start, origin = datetime.now(UTC), time.time()
    clock = _Time(start, origin)
    day = business_day(start) - timedelta(days=1)
    console.print(
        f"payment to power: {households} households on {terminals} terminals; an exchange with a meter takes"
        f" {CARRIER['least']:.0f} to {CARRIER['most']:.0f} s, {CARRIER['loss']:.0%} are lost; the clock runs"
        f" {SPEED:.0f} times as fast"
    )
    fast = [f"--clock-start={start.isoformat()}", f"--clock-origin={origin}", f"--clock-speed={SPEED}"]
    settings = SETTINGS | {"LINGDIAN_CLOCK__START": start.isoformat(), "LINGDIAN_CLOCK__ORIGIN": str(origin)}
    with folders() as (folder, ledger):
        async with company(
            folder, terminals=terminals, meters=meters, day=str(day), environment=settings,
            more=[*fast, "--heartbeat=600"], faults={"carrier": CARRIER}, ledger=ledger,
        ) as one:  # fmt: skip
            calls = one.calls(8)
            some = random.Random(3).sample(one.customers, households)
            await _tripped(calls, clock, some)
            closes, orders = await _paid(calls, clock, some)
            await calls.close()
    _tell(closes, orders)


async def _tripped(calls: Calls, clock: _Time, some: Sequence[Customer]) -> None:
    since = clock.now()
    for one in some:
        answer = await calls.post("/relay-commands", command(one.meter, "trip"))
        assert answer.status == 202, answer
    await _ended(calls, clock, since, len(some))


async def _paid(
    calls: Calls, clock: _Time, some: Sequence[Customer]
) -> tuple[list[dict[str, Any]], set[str]]:
    """The closes as they ended, and the meters with an open field order."""
    begins = clock.now() + timedelta(minutes=1)
    chance = random.Random(4)
    times = sorted(chance.uniform(0.0, WITHIN.total_seconds()) for _ in some)
    for one, seconds in zip(some, times, strict=True):
        await clock.until(begins + timedelta(seconds=seconds))
        answer = await calls.post("/relay-commands", command(one.meter, "close", caused_by="payment"))
        assert answer.status == 202, answer
    closes = await _ended(calls, clock, begins, len(some))
    orders = {one["meter"] for one in await _all(calls, "/field-orders?limit=500", "field_orders", "after")}
    return closes, orders


async def _ended(calls: Calls, clock: _Time, since: datetime, wanted: int) -> list[dict[str, Any]]:
    """The commands made since then, once none is under way; those that do not end are told as they stand."""
    path = f"/relay-commands?limit=500&since={since.isoformat().replace('+', '%2B')}"
    limit = clock.now() + ENDS_WITHIN
    while True:
        found = await _all(calls, path, "commands", "cursor")
        states = Counter(one["state"] for one in found)
        if states["verified"] + states["field"] + states["refused"] >= wanted or clock.now() > limit:
            return found
        await asyncio.sleep(1.0)


async def _all(calls: Calls, path: str, key: str, cursor: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    more = ""
    while True:
        page = await calls.get(path + more)
        found += page[key]
        if page["next"] is None:
            return found
        more = f"&{cursor}={page['next']}"


def _tell(closes: Sequence[dict[str, Any]], orders: set[str]) -> None:
    states = Counter(one["state"] for one in closes)
    minutes = [
        (_instant(one["energised_at"]) - _instant(one["created_at"])).total_seconds() / 60
        for one in closes
        if one["energised_at"] is not None
    ]
    dark = [one["meter"] for one in closes if one["energised_at"] is None and one["meter"] not in orders]
    median, most, nearly_all = percentiles(minutes)
    console.print(
        f"  {len(minutes):,} of {len(closes):,} households have power again, {len(orders):,} have an open"
        f" field order, {len(dark):,} neither; states {dict(states)}"
    )
    console.print(
        f"  minutes from payment to the read that shows power, simulated: mean {statistics.mean(minutes):.2f}"
        f" (goal: under {MEAN_MINUTES:.0f}), p50 {median:.2f}, p95 {most:.2f}, p99 {nearly_all:.2f},"
        f" longest {max(minutes):.2f}"
    )
    if dark:
        raise AssertionError(f"dark, and nobody on the way: {', '.join(dark[:10])}")


def _instant(text: str) -> datetime:
    return datetime.fromisoformat(text)
