"""What stops a trip that was accepted: before its meter is asked, in the claim, and beside the write."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from uuid import UUID, uuid4

import pytest

from gateway.command import (
    PLACE_LASTS,
    Action,
    Block,
    BlockKind,
    Command,
    Limits,
    MeterFacts,
    State,
    Why,
)
from gateway.door import Trouble
from tests.gateway.control.bench import NOW, Bench
from tests.gateway.control.memory import Taken
from tests.gateway.control.test_policy import FACTS

MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
BLOCK = Block(7, BlockKind.MEDICAL, NOW - timedelta(days=1), None, "hospital list")


async def test_a_trip_that_waits_for_room_leaves_its_meter_alone_until_there_is_some(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bench = Bench()
    bench.rules = replace(bench.rules, limits=Limits(area=1))
    asked = 0
    clock_offset = bench.door.clock_offset

    async def counted() -> float | Trouble:
        nonlocal asked
        asked += 1
        return await clock_offset()

    monkeypatch.setattr(bench.door, "clock_offset", counted)
    bench.store.kept.places.append(Taken(bench.clock.now(), FACTS.area_id, "another", uuid4(), 1))
    trip = await bench.accept(Action.TRIP)
    await bench.work()
    assert bench.command(trip).why is Why.OVER_LIMIT
    assert asked == 1
    for _ in range(3):
        bench.clock.shown += 6 * MINUTE
        await bench.work()
    assert asked == 1
    assert bench.command(trip).state is State.QUEUED
    bench.clock.shown += 50 * MINUTE
    await bench.work_until(trip, State.VERIFIED)
    assert asked == 2


@pytest.mark.parametrize(
    "meanwhile",
    [
        lambda bench: bench.change(area_id=77),
        lambda bench: setattr(bench, "rules", replace(bench.rules, limits=Limits(window=2 * HOUR))),
        lambda bench: setattr(bench.clock, "shown", bench.clock.shown + PLACE_LASTS + MINUTE / 60),
    ],
    ids=["the area is another", "the limits are others", "it took too long"],
)
async def test_a_place_that_does_not_count_any_more_is_not_sent_by(
    meanwhile: Callable[[Bench], None],
) -> None:
    bench = Bench()
    trip = await bench.accept(Action.TRIP)
    takes = iter([True])

    def at(point: str) -> None:
        if point == "place taken" and next(takes, False):
            meanwhile(bench)

    await bench.work(bench.new_course(at=at))
    assert bench.states(trip) == ["requested", "queued"]
    assert len(bench.store.kept.places) == 1
    await bench.work_until(trip, State.VERIFIED)
    assert len(bench.store.kept.places) == 2 - (bench.rules.limits.window > HOUR)


async def test_a_place_stays_with_a_trip_that_did_not_leave() -> None:
    bench = Bench()
    bench.door.fails_to_write = True
    trip = await bench.accept(Action.TRIP)
    await bench.work()
    assert bench.states(trip) == ["requested", "queued", "sending", "queued"]
    bench.door.fails_to_write = False
    await bench.work_until(trip, State.VERIFIED)
    assert len(bench.store.kept.places) == 1


async def test_shadow_goes_all_the_way_but_one() -> None:
    bench = Bench(replace(FACTS, shadow=True))
    for action in (Action.TRIP, Action.CLOSE):
        command = await bench.accept(action, shadow=True)
        done = await bench.work_until(command, State.CANCELLED)
        assert done.why is Why.SHADOW
    assert bench.door.written == []
    assert bench.door.prepared == 0


async def test_shadow_mode_that_begins_later_stops_a_trip_and_no_close() -> None:
    bench = Bench()
    trip = await bench.accept(Action.TRIP)
    bench.change(shadow=True)
    assert (await bench.work_until(trip, State.CANCELLED)).why is Why.SHADOW
    close = await bench.accept(Action.CLOSE)
    await bench.work_until(close, State.VERIFIED)
    assert bench.relay.obeyed == [Action.CLOSE]


async def test_whoever_stood_still_beside_the_write_looks_again() -> None:
    bench = Bench()
    trip = await bench.accept(Action.TRIP)

    def stands_still() -> None:
        bench.clock.shown += timedelta(seconds=6)
        bench.door.before_write = lambda: None

    bench.door.before_write = stands_still
    await bench.work()
    assert bench.door.written == []
    assert (bench.command(trip).state, bench.command(trip).why) == (State.QUEUED, Why.OUR_CLOCK)
    await bench.work_until(trip, State.VERIFIED)
    assert bench.relay.obeyed == [Action.TRIP]


@pytest.mark.parametrize("owes", [False, None])
async def test_billing_is_asked_just_before_a_trip(owes: bool | None) -> None:
    asked: list[UUID] = []

    async def ask(command: Command, facts: MeterFacts, /) -> bool | None:
        asked.append(command.id)
        return owes

    bench = Bench(ask_billing=ask)
    trip = await bench.accept(Action.TRIP)
    await bench.work()
    assert asked == [trip]
    assert bench.door.written == []
    if owes is None:
        assert (bench.command(trip).state, bench.command(trip).why) == (State.QUEUED, Why.BILLING_SILENT)
    else:
        assert (bench.command(trip).state, bench.command(trip).why) == (State.REFUSED, Why.BILLING_SAYS_NO)
    close = await bench.accept(Action.CLOSE)
    await bench.work_until(close, State.VERIFIED)
    assert close not in asked


async def test_expiry_between_claim_and_write() -> None:
    bench = Bench()
    trip = await bench.accept(Action.TRIP, expires_at=NOW + MINUTE)

    def pause() -> None:
        bench.clock.shown = NOW + MINUTE

    bench.door.before_write = pause
    done = await bench.work_until(trip, State.EXPIRED)
    assert bench.door.written == []
    assert bench.states(trip) == ["requested", "queued", "sending", "expired"]
    assert done.why is Why.EXPIRED


async def test_a_block_that_comes_after_the_claim_still_stops_a_trip() -> None:
    bench = Bench()
    trip = await bench.accept(Action.TRIP)

    def set_block(point: str) -> None:
        if point == "sending committed":
            bench.change(blocks=(BLOCK,))

    await bench.work(bench.new_course(at=set_block))
    assert (bench.command(trip).state, bench.command(trip).why) == (State.REFUSED, Why.BLOCKED)
    assert bench.door.written == []


async def test_a_brake_after_the_claim_puts_a_trip_back() -> None:
    bench = Bench()
    trip = await bench.accept(Action.TRIP)

    def pull(point: str) -> None:
        if point == "sending committed":
            bench.change(brake=True)

    await bench.work(bench.new_course(at=pull))
    back = bench.command(trip)
    assert (back.state, back.why, back.attempts) == (State.QUEUED, Why.BRAKE, 0)
    assert bench.door.written == []
    bench.change(brake=False)
    await bench.work_until(trip, State.VERIFIED)
