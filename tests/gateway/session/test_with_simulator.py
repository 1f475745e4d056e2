"""Sessions against simulated terminals over real TCP with everything going wrong: what is filed is the truth.

The collecting here is as plain as can be (ask until there is nothing more to ask); it is the sessions that
are tried: matching, dates, archives, takeovers, reports, direct reads.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any

import pytest

from gateway.clock import Clock, from_device, frozen_at
from gateway.errors import LinkClosed
from gateway.metrics import Metrics
from gateway.model import (
    Due,
    Failure,
    Kind,
    MeterClass,
    Point,
    PointRole,
    Quantity,
    ReadingRow,
    Reason,
    Source,
    TerminalAssets,
)
from gateway.session.meter import read_meter_freeze
from gateway.session.registry import Registry
from gateway.session.settings import SessionSettings
from gateway.session.terminal import TerminalSession
from gateway.transports.tcp_listener import listen
from simulator import faults as sim_faults
from simulator.clock import Clock as SimClock
from simulator.district import District, TerminalPlan
from simulator.runner import Run, run_district
from tests.gateway.session.stage import HandStore, HandWriter

DAY = date(2026, 11, 23)
MIDNIGHT = frozen_at(DAY)
SPEED = 20.0
METER_REASONS = {
    Reason.NO_VALUE_YET,
    Reason.LEFT_OUT,
    Reason.TERMINAL_DENIED,
    Reason.WRONG_DATE,
    Reason.ARCHIVE_DIFFERS,
    Reason.BAD_VALUE,
}


@dataclass(frozen=True)
class Night:
    """A district and its assets as the company knows them."""

    district: District
    terminals: dict[str, TerminalAssets]
    truth: dict[tuple[int, int], tuple[int, ...]]
    """(meter_id, Quantity) -> registers of 0.0001"""

    @classmethod
    def grow(cls, seed: int, terminals: int, meters: int, **wrong: int) -> Night:
        district = District(seed, terminals, meters, DAY, **wrong)
        assets: dict[str, TerminalAssets] = {}
        ids: dict[str, int] = {}
        for number, terminal in enumerate(district.terminals, start=1):
            points = tuple(_points(terminal, ids))
            assets[terminal.address] = TerminalAssets(number, terminal.address, "default", points)
        truth = {
            (ids[row.meter], int(Quantity[row.quantity.name])): tuple(100 * one for one in row.registers)
            for row in district.truth()
        }
        return cls(district, assets, truth)

    def dues(self, address: str) -> list[Due]:
        """Due of one terminal: active registers (reactive ones come along)."""
        return [
            Due(point.meter_id, point.pn, quantity, Kind.DAY, MIDNIGHT)
            for quantity in (Quantity.FORWARD_ACTIVE, Quantity.REVERSE_ACTIVE)
            for point in self.terminals[address].points
            if (point.meter_id, quantity) in self.truth
        ]

    def wrong_rows(self, rows: list[ReadingRow]) -> list[ReadingRow]:
        """Rows of that midnight that are not what the meter held; a meter's own has two decimals as well."""
        wrong = []
        for row in rows:
            held = self.truth.get((row[0], row[1]))
            told = tuple(one for one in row[4:9] if one is not None)
            if row[2] == Kind.DAY and row[3] == MIDNIGHT and told != held:
                wrong.append(row)
        return wrong


def _points(terminal: TerminalPlan, ids: dict[str, int]) -> list[Point]:
    points = []
    for meter in terminal.meters:
        meter_id = ids.setdefault(meter.number, len(ids) + 1)
        since = (
            None
            if meter.installed is None
            else from_device(datetime.combine(meter.installed, datetime.min.time()))
        )
        points.append(
            Point(
                meter.pn,
                meter_id,
                meter.number,
                meter.address,
                "dlt645-2007",
                MeterClass(meter.meter_class),
                PointRole(meter.role),
                meter.tariffs,
                meter.port,
                meter.ct,
                1,
                "default",
                since,
                None,
            )
        )
    return points


@dataclass
class Outcome:
    writer: HandWriter
    registry: Registry
    contested: set[str]
    reasons: Counter[Reason]
    missing: dict[Due, Reason]
    counts: Counter[str]
    metrics: Metrics

    def filed(self) -> dict[tuple[int, int], list[ReadingRow]]:
        found: dict[tuple[int, int], list[ReadingRow]] = {}
        for row in self.writer.rows:
            if row[2] == Kind.DAY and row[3] == MIDNIGHT:
                found.setdefault((row[0], row[1]), []).append(row)
        return found


async def collect(
    night: Night, faults: dict[str, Any], seconds: float, *, linger: float = 0.0, contest: str | None = None
) -> Outcome:
    """Run the district with these faults and ask until all is there, or `seconds` (real) are over; contested
    terminals are left alone. linger: so much longer. contest: wait until that address is contested."""
    clock = Clock(time.time(), MIDNIGHT.timestamp() + 8 * 3600, SPEED)
    metrics = Metrics()
    store = HandStore(dict(night.terminals))
    writer = HandWriter()
    chosen = SessionSettings(heartbeat_s=30.0, reply_timeout_s=10.0, repeats=1)
    registry = Registry(store, writer, chosen, clock, metrics)
    listener = await listen("127.0.0.1", 0, registry.accept, metrics=metrics)
    run = Run(
        "127.0.0.1",
        listener.port,
        SimClock(clock.origin, clock.start, clock.speed),
        sim_faults.from_table(faults),
        heartbeat=20.0,
    )
    stop = asyncio.Event()
    district = asyncio.create_task(run_district(night.district, run, stop))
    outcome = Outcome(writer, registry, set(), Counter(), {}, Counter(), metrics)
    deadline = time.monotonic() + seconds
    try:
        await asyncio.gather(
            *(_collect_one(night, address, outcome, deadline) for address in night.terminals)
        )
        await asyncio.sleep(linger)
        while contest is not None and contest not in outcome.contested and time.monotonic() < deadline:
            await asyncio.sleep(0.05)
            outcome.contested |= {contest} if registry.contested(contest) else set()
    finally:
        stop.set()
        outcome.counts = await district
        await listener.close()
        await registry.close()
    return outcome


async def _collect_one(night: Night, address: str, outcome: Outcome, deadline: float) -> None:
    missing = dict.fromkeys(night.dues(address), Reason.NOT_ASKED)
    tries: Counter[Due] = Counter()
    while missing and time.monotonic() < deadline:
        if outcome.registry.contested(address):
            outcome.contested.add(address)
            break
        session = outcome.registry.session(address)
        if session is None:
            await asyncio.sleep(0.05)
            continue
        try:
            await session.ready()
            await _one_round(night, session, outcome, missing, tries)
        except LinkClosed:
            continue
        for due in list(missing):
            if (due.meter_id, int(due.quantity)) in outcome.filed():
                del missing[due]
        await asyncio.sleep(0.05)
    outcome.missing |= missing


async def _one_round(
    night: Night, session: TerminalSession, outcome: Outcome, missing: dict[Due, Reason], tries: Counter[Due]
) -> None:
    points = {point.meter_id: point for point in session.assets.points}
    for quantity in (Quantity.FORWARD_ACTIVE, Quantity.REVERSE_ACTIVE):
        dues = [due for due in missing if due.quantity is quantity]
        size = session.points_a_request(quantity, Kind.DAY)
        for start in range(0, len(dues), size):
            part = dues[start : start + size]
            answer = await session.read_frozen(part)
            await outcome.writer.file(answer.rows)
            assert {failure.meter_id for failure in answer.failures} | {row[0] for row in answer.rows} >= {
                due.meter_id for due in part
            }
            for failure in answer.failures:
                outcome.reasons[failure.reason] += 1
                due = next(one for one in part if one.meter_id == failure.meter_id)
                missing[due] = failure.reason
                tries[due] += 1
    for due, reason in list(missing.items()):
        if tries[due] >= 3 and reason in METER_REASONS and not outcome.registry.contested(session.address):
            own = await read_meter_freeze(session, points[due.meter_id], due)
            if isinstance(own, Failure):
                outcome.reasons[own.reason] += 1
            else:
                await outcome.writer.file([own])


def sources(rows: list[ReadingRow]) -> set[int]:
    return {row[12] for row in rows}


async def test_an_undisturbed_district_is_read_whole() -> None:
    night = Night.grow(1, 3, 60)
    outcome = await collect(night, {}, 30)
    assert not outcome.missing
    assert not outcome.reasons
    assert set(outcome.filed()) == set(night.truth)
    assert not night.wrong_rows(outcome.writer.rows)
    assert all(len(rows) == 1 for rows in outcome.filed().values())


async def test_a_bad_line_costs_time_but_no_value() -> None:
    night = Night.grow(2, 3, 60)
    faults = {
        "corrupt": {"fraction": 0.05},
        "split": {"fraction": 0.3},
        "merge": {"fraction": 0.1},
        "silence": {"fraction": 0.03},
        "delay": {"least": 0, "most": 3},
        "late": {"count": 4},
        "cut": {"count": 2},
        "vanish": {"count": 4, "least": 5, "most": 60},
        "double_login": {"count": 1},
    }
    outcome = await collect(night, faults, 60)
    assert not outcome.missing
    assert not night.wrong_rows(outcome.writer.rows)
    assert set(outcome.filed()) >= {
        (due.meter_id, due.quantity) for a in night.terminals for due in night.dues(a)
    }
    assert not outcome.contested, "a redial without FIN is no contest"
    assert outcome.counts["vanish"] >= 1
    assert outcome.counts["late"] >= 1


async def test_reports_are_filed_and_confirmed_once() -> None:
    night = Night.grow(3, 2, 40)
    outcome = await collect(night, {"push": {"count": 2}}, 30, linger=2.0)
    assert not outcome.missing
    assert not night.wrong_rows(outcome.writer.rows)
    assert Source.PUSHED in sources(outcome.writer.rows)
    assert outcome.counts["push_confirmed"] == outcome.counts["push"] > 0
    assert outcome.counts["push_repeated"] == 0


async def test_what_the_terminal_lacks_or_has_wrong_the_meter_itself_gives() -> None:
    night = Night.grow(4, 4, 60, swapped=3)
    faults = {
        "filler": {"fraction": 0.1},
        "clock_off": {"count": 1, "seconds": 86_400},
        "missed_freeze": {"count": 2},
    }
    outcome = await collect(night, faults, 60)
    assert not outcome.missing
    assert not night.wrong_rows(outcome.writer.rows)
    assert outcome.reasons[Reason.ARCHIVE_DIFFERS] >= 3
    assert outcome.reasons[Reason.WRONG_DATE] >= 1
    assert Source.METER in sources(outcome.writer.rows)
    swapped = {point.meter_id for one in night.terminals.values() for point in one.points if point.valid_from}
    assert len(swapped) == 3
    for row in outcome.writer.rows:
        assert row[0] not in swapped or row[12] == Source.METER


async def test_two_devices_of_one_address_are_told_and_nothing_of_the_wrong_one_is_filed() -> None:
    night = Night.grow(5, 3, 45, clashes=1)
    (clash,) = (impostor.address for impostor in night.district.impostors)
    outcome = await collect(night, {"clash": {"count": 1}}, 60, contest=clash)
    assert not night.wrong_rows(outcome.writer.rows)
    assert outcome.contested == {clash}
    assert {due.meter_id for due in outcome.missing} <= {
        point.meter_id for point in night.terminals[clash].points
    }


@pytest.mark.parametrize("seed", [11, 12])
async def test_all_of_it_at_once(seed: int) -> None:
    night = Night.grow(seed, 6, 120, swapped=2, clashes=1)
    (clash,) = (impostor.address for impostor in night.district.impostors)
    faults = {
        "seed": seed,
        "corrupt": {"fraction": 0.01},
        "split": {"fraction": 0.3},
        "delay": {"least": 0, "most": 2},
        "late": {"count": 5},
        "cut": {"count": 2},
        "vanish": {"count": 4, "least": 5, "most": 60},
        "not_ready": {"fraction": 0.02, "seconds": 60},
        "clock_off": {"count": 1, "seconds": -86_400},
        "push": {"count": 1},
        "clash": {"count": 1},
    }
    outcome = await collect(night, faults, 60)
    assert not night.wrong_rows(outcome.writer.rows)
    assert outcome.contested <= {clash}
    assert {due.meter_id for due in outcome.missing} <= {
        point.meter_id for point in night.terminals[clash].points
    }
    late = MIDNIGHT - timedelta(days=1)
    assert all(row[3] in (MIDNIGHT, late) or row[2] == Kind.LIVE for row in outcome.writer.rows)
