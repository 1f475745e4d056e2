"""A process that dies anywhere, a database that goes away, a socket that takes nothing: one proven end."""

from __future__ import annotations

from contextlib import suppress

import pytest

from gateway.command import (
    Action,
    State,
)
from gateway.errors import StorageError
from tests.gateway.control.bench import Bench, Dies


async def test_a_socket_that_takes_no_bytes() -> None:
    bench = Bench()
    bench.door.fails_to_write = True
    trip = await bench.accept(Action.TRIP)
    await bench.work()
    assert (bench.command(trip).state, bench.command(trip).attempts) == (State.QUEUED, 0)


async def test_another_worker_has_the_terminal_now() -> None:
    bench = Bench()
    bench.store.kept.owners[1] = ("w2", 2)
    trip = await bench.accept(Action.TRIP)
    await bench.work()
    assert bench.command(trip).state is State.QUEUED
    assert bench.door.written == []


POINTS = ["meter read", "frame prepared", "sending committed", "answer heard", "answer committed"]


@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("action", [Action.TRIP, Action.CLOSE])
async def test_dying_anywhere_leads_to_one_proven_end(point: str, action: Action) -> None:
    bench = Bench()
    bench.relay.opened = bench.relay.trip_ordered = action is Action.CLOSE
    command = await bench.accept(action)

    def die(reached: str) -> None:
        if reached == point:
            raise Dies

    with pytest.raises(Dies):
        await bench.work(bench.new_course(at=die))
    done = await bench.work_until(command, State.VERIFIED)
    assert done.state is State.VERIFIED
    assert bench.relay.opened == (action is Action.TRIP)
    obeyed = [one for one in bench.relay.obeyed if one is Action.TRIP]
    assert len(obeyed) <= 1, "a trip that was obeyed is never sent again"


@pytest.mark.parametrize("when", ["before commit", "after commit"])
async def test_a_claim_whose_commit_fails_writes_nothing(when: str) -> None:
    bench = Bench()
    trip = await bench.accept(Action.TRIP)
    reached: list[str] = []
    broken: list[str] = []

    def hook(point: str, meter_id: int) -> None:
        if point == when and reached and not broken:
            broken.append(point)
            raise StorageError("the database is away")

    bench.store.hook = hook
    course = bench.new_course(at=lambda point: reached.append(point) if point == "frame prepared" else None)
    with suppress(StorageError):
        await bench.work(course)
    assert broken
    assert bench.door.written == []
    bench.store.hook = lambda point, meter_id: None
    assert bench.command(trip).state is State.QUEUED
    await bench.work_until(trip, State.VERIFIED)
    assert len(bench.door.written) == 1


async def test_a_close_is_written_although_the_database_went_away_after_its_claim() -> None:
    for action, written in ((Action.TRIP, 0), (Action.CLOSE, 1)):
        bench = Bench()
        command = await bench.accept(action)
        away: list[bool] = []

        def hook(point: str, meter_id: int, away: list[bool] = away) -> None:
            if away and point == "begin":
                raise StorageError("the database is away")

        def lose(point: str, away: list[bool] = away) -> None:
            if point == "sending committed":
                away.append(True)

        bench.store.hook = hook
        with suppress(StorageError):
            await bench.work(bench.new_course(at=lose))
        assert len(bench.door.written) == written
        bench.store.hook = lambda point, meter_id: None
        assert bench.command(command).state is State.SENDING
        await bench.work_until(command, State.VERIFIED)
