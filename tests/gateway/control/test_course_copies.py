"""Copies of a trip that strike after power was given back, and trips that nobody asked for any more."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

from gateway.command import (
    Action,
    Change,
    Command,
    NewCommand,
    State,
    Why,
)
from gateway.control.requests import Requests
from gateway.control.stores import step
from tests.gateway.control.bench import Bench

MINUTE = timedelta(minutes=1)


async def test_a_close_after_an_uncertain_trip_waits_until_that_trip_is_dead() -> None:
    bench = Bench()
    bench.relay.deaf = 1
    trip = await bench.accept(Action.TRIP)
    uncertain = await bench.work_until(trip, State.UNCERTAIN)
    close = await bench.accept(Action.CLOSE)
    await bench.work_until(close, State.ACKNOWLEDGED)
    assert bench.door.written[-1][0] is Action.CLOSE, "it is sent although the relay reads closed"
    done = await bench.work_until(close, State.VERIFIED)
    assert uncertain.valid_until is not None
    assert done.energised_at is not None
    assert done.energised_at > uncertain.valid_until
    assert (await bench.work_until(trip, State.SUPERSEDED)).why is Why.NEWER_INTENT


async def test_a_late_trip_that_strikes_after_the_close_is_closed_again() -> None:
    bench = Bench()
    bench.relay.deaf = 1
    trip = await bench.accept(Action.TRIP)
    uncertain = await bench.work_until(trip, State.UNCERTAIN)
    close = await bench.accept(Action.CLOSE)
    await bench.work_until(close, State.ACKNOWLEDGED)
    assert uncertain.valid_until is not None
    bench.relay.obey(Action.TRIP, uncertain.valid_until)  # the copy that a slow path had held
    assert bench.relay.opened
    done = await bench.work_until(close, State.VERIFIED)
    assert not bench.relay.opened
    assert done.attempts == 2


async def test_a_close_after_a_refused_trip_waits_until_that_trip_is_dead() -> None:
    """The meter said no; a late copy of the frame finds it in another mood, after the close."""
    bench = Bench()
    bench.relay.refuses = [Why.REFUSED_BY_METER]
    trip = await bench.accept(Action.TRIP)
    refused = await bench.work_until(trip, State.REFUSED)
    assert refused.valid_until is not None
    close = await bench.accept(Action.CLOSE)
    await bench.work_until(close, State.ACKNOWLEDGED)
    assert bench.door.written[-1][0] is Action.CLOSE, "it is sent although the relay reads closed"
    assert await bench.work() is None, "and not verified as long as the copy may come"
    bench.relay.obey(Action.TRIP, refused.valid_until)
    assert bench.relay.opened
    done = await bench.work_until(close, State.VERIFIED)
    assert not bench.relay.opened
    assert done.energised_at is not None
    assert done.energised_at > refused.valid_until


async def test_a_copy_of_a_verified_trip_that_strikes_after_the_close() -> None:
    bench = Bench()
    trip = await bench.accept(Action.TRIP)
    tripped = await bench.work_until(trip, State.VERIFIED)
    close = await bench.accept(Action.CLOSE)
    done = await bench.work_until(close, State.VERIFIED, within=MINUTE)
    assert done.energised_at is not None, "the customer is told at once"
    assert tripped.valid_until is not None
    bench.relay.obey(Action.TRIP, tripped.valid_until)
    assert bench.relay.opened
    bench.clock.shown = tripped.valid_until + timedelta(seconds=2)
    await bench.work()
    (again,) = [row.command for row in bench.store.kept.rows.values() if row.command.caused_by == str(close)]
    await bench.work_until(again.id, State.VERIFIED)
    assert not bench.relay.opened
    assert bench.command(close).state is State.VERIFIED


async def test_a_copy_of_the_trip_strikes_after_a_permit() -> None:
    bench = Bench()
    bench.relay.button_pressed = False
    trip = await bench.accept(Action.TRIP)
    await bench.work_until(trip, State.VERIFIED)
    permit = await bench.accept(Action.PERMIT_CLOSE)
    await bench.work_until(permit, State.VERIFIED)
    bench.relay.trip_ordered = True
    looks = bench.command(permit).look_at
    assert looks is not None
    async with bench.store.desk(1) as desk:  # somebody was turned away meanwhile
        refused = new_trip(bench)
        await desk.add(refused, State.REFUSED, Why.BLOCKED)
    bench.clock.shown = looks
    await bench.work()
    (again,) = (row.command for row in bench.store.kept.rows.values() if row.command.caused_by == str(permit))
    await bench.work_until(again.id, State.VERIFIED)
    assert not bench.relay.trip_ordered
    assert bench.relay.obeyed == [Action.TRIP, Action.PERMIT_CLOSE, Action.PERMIT_CLOSE]


async def test_a_copy_of_the_trip_strikes_after_the_button_was_pressed() -> None:
    """And after it was seen that it was: within the ten minutes that the trip's frame is obeyed."""
    bench = Bench()
    bench.relay.button_pressed = False
    trip = await bench.accept(Action.TRIP)
    tripped = await bench.work_until(trip, State.VERIFIED)
    permit = await bench.accept(Action.PERMIT_CLOSE)
    await bench.work_until(permit, State.VERIFIED)
    async with bench.store.desk(1) as desk:  # looked at early, as a person may have it done
        await desk.note(bench.command(permit), "early", {}, Change({"look_at": bench.clock.now()}))
    bench.relay.opened = False
    await bench.work()
    assert bench.command(permit).energised_at is not None
    assert tripped.valid_until is not None
    bench.relay.obey(Action.TRIP, tripped.valid_until)
    await followed_and_closed_again(bench, permit, tripped.valid_until)


async def test_a_copy_of_the_trip_strikes_after_a_person_has_reported_power() -> None:
    bench = Bench()
    trip = await bench.accept(Action.TRIP)
    tripped = await bench.work_until(trip, State.VERIFIED)
    bench.relay.refuses = [Why.SUSPENDED] * 9
    close = await bench.accept(Action.CLOSE)
    await bench.work_until(close, State.FIELD, within=MINUTE)
    bench.relay.opened = bench.relay.trip_ordered = False  # by hand
    now = bench.clock.now()
    clock: Any = bench.clock
    no_switches: Any = None
    requests = Requests(bench.store, lambda: bench.rules, clock, switches=no_switches)
    await requests.report_field(close, "crew", energised=True, at=now, report="on")
    bench.relay.refuses = []
    assert tripped.valid_until is not None
    assert now < tripped.valid_until
    bench.relay.obey(Action.TRIP, tripped.valid_until)
    await followed_and_closed_again(bench, close, tripped.valid_until)


async def followed_and_closed_again(bench: Bench, ended: UUID, until: datetime) -> None:
    """When no copy can come any more it is looked at; what one has done is undone by a command of its own."""
    assert bench.relay.opened
    assert bench.command(ended).look_at == until + timedelta(seconds=1)
    bench.clock.shown = until + timedelta(seconds=2)
    await bench.work()
    (again,) = (row.command for row in bench.store.kept.rows.values() if row.command.caused_by == str(ended))
    await bench.work_until(again.id, State.VERIFIED)
    assert bench.command(ended).state is State.VERIFIED


async def struck_by_a_copy(bench: Bench, waits: NewCommand) -> tuple[UUID, Command]:
    """A permit after which a copy of the trip strikes, while `waits` is held; and that one."""
    bench.relay.button_pressed = False
    trip = await bench.accept(Action.TRIP)
    await bench.work_until(trip, State.VERIFIED)
    permit = await bench.accept(Action.PERMIT_CLOSE)
    await bench.work_until(permit, State.VERIFIED)
    bench.relay.trip_ordered = True
    async with bench.store.desk(1) as desk:
        held = await desk.add(waits, State.HELD)
    looks = bench.command(permit).look_at
    assert looks is not None
    bench.clock.shown = looks
    await bench.work()
    return permit, held


def given_back(bench: Bench, permit: UUID) -> list[Command]:
    rows = bench.store.kept.rows.values()
    return [row.command for row in rows if row.command.caused_by == str(permit)]


async def test_a_trip_that_only_shadow_mode_has_made_keeps_nobody_dark() -> None:
    bench = Bench()
    permit, _ = await struck_by_a_copy(bench, replace(new_trip(bench), shadow=True))
    (again,) = given_back(bench, permit)
    await bench.work_until(again.id, State.VERIFIED)
    assert not bench.relay.trip_ordered


async def test_power_is_given_back_once_a_trip_asked_for_since_has_ended_unsent() -> None:
    bench = Bench()
    permit, held = await struck_by_a_copy(bench, new_trip(bench))
    assert given_back(bench, permit) == [], "what people have asked for since comes first"
    async with bench.store.desk(1) as desk:
        await step(desk, held, State.EXPIRED, why=Why.EXPIRED)
    looks = bench.command(permit).look_at
    assert looks is not None
    assert looks - bench.clock.now() <= 10 * MINUTE
    bench.clock.shown = looks
    await bench.work()
    (again,) = given_back(bench, permit)
    await bench.work_until(again.id, State.VERIFIED)
    assert not bench.relay.trip_ordered


def new_trip(bench: Bench) -> NewCommand:
    return NewCommand(uuid4(), Action.TRIP, "billing", "arrears", bench.clock.now(), uuid4().hex, b"")
