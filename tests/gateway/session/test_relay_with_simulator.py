"""The way to a relay over real TCP, through a simulated terminal to a simulated meter, in plain and sealed:
what the gateway says of it is what the meters' side has witnessed."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import pytest

from gateway.clock import Clock
from gateway.command import Action, RelayStatus, Why
from gateway.control.security import SoftwareModule
from gateway.door import Accepted, NotWritten, Prepared, Record, Refused, Silence, Trouble
from gateway.metrics import Metrics
from gateway.session.registry import Registry
from gateway.session.relay import RelayDoor, RelayDoors
from gateway.session.settings import MeterProfile, SessionSettings
from gateway.transports.tcp_listener import listen
from simulator import faults as sim_faults
from simulator.clock import Clock as SimClock
from simulator.district import MeterPlan
from simulator.esam import BENCH_KEY
from simulator.ledger import Entry
from simulator.runner import Run, run_district
from tests.gateway.session.relay_stage import FACTS
from tests.gateway.session.stage import HandStore, HandWriter
from tests.gateway.session.test_with_simulator import MIDNIGHT, Night

SPEED = 5.0
PLAIN = MeterProfile(password="123456", operator="00000001")
SEALED = MeterProfile(level="98", operator="00000001")
ESAM = {"relays": {"esam": 1}}


@dataclass
class Street:
    """A district of one terminal, with a door to one of its meters."""

    door: RelayDoor
    meter: MeterPlan
    clock: Clock
    entries: list[Entry]

    async def order(self, action: Action) -> tuple[Prepared, Accepted | Refused | Silence]:
        prepared = await self.door.prepare(action, self.clock.now() + timedelta(minutes=10))
        assert isinstance(prepared, Prepared), prepared
        answer = await self.door.write(prepared, lambda: None)
        assert isinstance(answer, Awaitable), answer
        return prepared, await answer

    async def status(self) -> RelayStatus:
        status = await self.door.status()
        assert isinstance(status, RelayStatus), status
        return status

    def seen(self, what: str) -> list[Entry]:
        return [entry for entry in self.entries if entry.what == what]


@contextlib.asynccontextmanager
async def street(faults: dict[str, Any], profile: MeterProfile) -> AsyncIterator[Street]:
    clock = Clock(time.time(), MIDNIGHT.timestamp() + 10 * 3600, SPEED)
    night = Night.grow(7, 1, 12)
    store = HandStore(dict(night.terminals))
    settings = SessionSettings(
        heartbeat_s=30.0, reply_timeout_s=10.0, relay_carrier_timeout_s=15, meters={"default": profile}
    )
    metrics = Metrics()
    registry = Registry(store, HandWriter(), settings, clock, metrics)
    doors = RelayDoors(registry, clock, SoftwareModule(BENCH_KEY, production=False))
    listener = await listen("127.0.0.1", 0, registry.accept, metrics=metrics)
    entries: list[Entry] = []
    run = Run(
        "127.0.0.1",
        listener.port,
        SimClock(clock.origin, clock.start, clock.speed),
        sim_faults.from_table(faults),
        heartbeat=20.0,
        ledger=entries.append,
    )
    stop = asyncio.Event()
    district = asyncio.create_task(run_district(night.district, run, stop))
    try:
        terminal = night.district.terminals[0]
        meter = next(one for one in terminal.meters if one.meter_class == "single_phase")
        point = next(one for one in night.terminals[terminal.address].points if one.pn == meter.pn)
        facts = replace(
            FACTS,
            meter_id=point.meter_id,
            meter=meter.number,
            address=meter.address,
            terminal_id=night.terminals[terminal.address].terminal_id,
            terminal=terminal.address,
            pn=meter.pn,
            port=meter.port,
            profile="default",
        )
        async with asyncio.timeout(30.0):
            while registry.session(terminal.address) is None:
                await clock.sleep(0.5)
            async with doors.open(facts) as door:
                assert door is not None
                yield Street(door, meter, clock, entries)
    finally:
        stop.set()
        await district
        await listener.close()


@pytest.mark.parametrize(("faults", "profile"), [({}, PLAIN), (ESAM, SEALED)], ids=["plain", "sealed"])
async def test_a_trip_and_a_close(faults: dict[str, Any], profile: MeterProfile) -> None:
    async with street(faults, profile) as here:
        assert await here.door.identify() is None
        offset = await here.door.clock_offset()
        assert isinstance(offset, float)
        assert abs(offset) < 60
        for action, is_open in ((Action.TRIP, True), (Action.CLOSE, False)):
            prepared, answer = await here.order(action)
            assert isinstance(answer, Accepted), answer
            status = await here.status()
            assert (status.open, status.trip_ordered) == (is_open, is_open)
            frame = next(entry for entry in here.seen("frame") if entry.verb == action.value)
            assert frame.frame == prepared.sha256.hex()
            assert frame.decision == "accepted"
            assert frame.meter == here.meter.address
            assert isinstance(await here.door.record(action), Record)
        assert [entry.decision for entry in here.seen("moved")] == ["opened", "closed"]
        verbs = [entry.verb for entry in here.seen("frame")]
        once = ["03 070000ff"] if profile.sealed else []
        assert verbs == [*once, "trip", *once, "close"]


@pytest.mark.parametrize(("faults", "profile"), [({}, PLAIN), (ESAM, SEALED)], ids=["plain", "sealed"])
async def test_keep_power_refuses_a_trip(faults: dict[str, Any], profile: MeterProfile) -> None:
    async with street(faults, profile) as here:
        await here.order(Action.KEEP_POWER)
        assert (await here.status()).keep_power
        _, answer = await here.order(Action.TRIP)
        assert isinstance(answer, Refused)
        # In plain the meter has one bit for this, a wrong password and a passed deadline.
        assert answer.why is (Why.KEEP_POWER_ON if profile.sealed else Why.NOT_AUTHENTICATED)
        assert here.seen("moved") == []


async def test_a_meter_clock_that_was_lost_is_seen() -> None:
    async with street({"meter_clock_lost": {"fraction": 1}}, PLAIN) as here:
        offset = await here.door.clock_offset()
        assert isinstance(offset, float)
        assert offset < -26 * 365 * 86_400


async def test_a_carrier_that_loses_all_gives_silence_and_nothing_is_written_twice() -> None:
    async with street({"carrier": {"least": 1, "most": 5, "loss": 1}}, PLAIN) as here:
        prepared, answer = await here.order(Action.TRIP)
        assert isinstance(answer, Silence)
        again = await here.door.write(prepared, lambda: None)
        assert isinstance(again, Awaitable)
        assert isinstance(await again, Silence)
        assert len(here.seen("frame")) <= 1


async def test_what_the_last_check_stops_never_reaches_the_meter() -> None:
    async with street(ESAM, SEALED) as here:
        prepared = await here.door.prepare(Action.TRIP, here.clock.now() + timedelta(minutes=10))
        assert isinstance(prepared, Prepared)
        written = await here.door.write(prepared, lambda: Trouble(Why.BRAKE))
        assert written == NotWritten(Trouble(Why.BRAKE))
        await here.status()
        assert [entry.verb for entry in here.seen("frame")] == ["03 070000ff"]
