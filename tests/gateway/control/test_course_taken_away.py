"""A command whose meter is taken away: before it was sent, or when nobody can read it any more."""

from __future__ import annotations

from datetime import timedelta

import pytest

from gateway.command import (
    Action,
    State,
    Why,
)
from tests.gateway.control.bench import Bench, Dies


@pytest.mark.parametrize("action", [Action.TRIP, Action.KEEP_POWER])
async def test_what_waits_for_a_meter_that_was_taken_away_is_refused(action: Action) -> None:
    bench = Bench()
    command = await bench.accept(action)
    bench.change(installed=False)
    done = await bench.work_until(command, State.REFUSED)
    assert (done.why, bench.door.written) == (Why.NOT_INSTALLED, [])


@pytest.mark.parametrize("sent", [False, True])
async def test_a_close_whose_meter_was_taken_away_is_a_persons(sent: bool) -> None:
    bench = Bench()
    bench.relay.opened = bench.relay.trip_ordered = sent
    bench.relay.holds_for_load = True
    bench.relay.mute = 1
    close = await bench.accept(Action.CLOSE)
    if sent:
        await bench.work_until(close, State.UNCERTAIN)
    bench.change(installed=False)
    done = await bench.work_until(close, State.FIELD, within=timedelta(hours=1))
    assert done.why is Why.NOT_INSTALLED
    assert bench.store.kept.field_orders == {1: close}
    frames, events = len(bench.door.written), len(bench.store.kept.rows[close].events)
    for _ in range(30):
        bench.clock.shown += timedelta(days=1)
        await bench.work()
    assert len(bench.door.written) == frames
    assert len(bench.store.kept.rows[close].events) == events, "a month of it is one fact"
    assert await bench.work() is None, "nothing else at the terminal is kept waiting"
    bench.change(installed=True)
    await bench.work_until(close, State.VERIFIED)


@pytest.mark.parametrize("state", [State.SENDING, State.ACKNOWLEDGED, State.UNCERTAIN])
async def test_a_trip_that_may_have_left_for_a_meter_that_was_taken_away(state: State) -> None:
    """Nobody can read any more what became of it; it claims nothing, and stays feared until it is dead."""
    bench = Bench()
    bench.relay.holds_for_load = True
    bench.relay.deaf = state is State.UNCERTAIN
    trip = await bench.accept(Action.TRIP)
    if state is State.SENDING:

        def at(point: str) -> None:
            if point == "answer heard":
                raise Dies

        with pytest.raises(Dies):
            await bench.work(bench.new_course(at=at))
    await bench.work_until(trip, state)
    bench.change(installed=False)
    done = await bench.work_until(trip, State.SUPERSEDED)
    assert (done.why, "not read" in done.detail) == (Why.NOT_INSTALLED, True)
    assert len(bench.door.written) == 1
    async with bench.store.desk(1) as desk:
        assert desk.facts.trip_until == done.valid_until


async def test_a_meter_that_is_taken_away_between_claim_and_write() -> None:
    bench = Bench()
    close = await bench.accept(Action.CLOSE)

    def at(point: str) -> None:
        if point == "sending committed":
            bench.change(installed=False)

    await bench.work(bench.new_course(at=at))
    assert (bench.command(close).state, bench.door.written) == (State.FIELD, [])
    assert bench.store.kept.field_orders == {1: close}
