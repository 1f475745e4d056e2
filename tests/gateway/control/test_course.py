"""One command at a time, from the queue to its end, on the bench."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from gateway.command import (
    Action,
    State,
    Why,
)
from gateway.door import Trouble
from gateway.model import RelayKind
from tests.gateway.control.bench import NOW, Bench
from tests.gateway.control.test_policy import FACTS

MINUTE = timedelta(minutes=1)


async def test_a_trip_is_verified_by_a_read_after_the_write() -> None:
    bench = Bench()
    trip = await bench.accept(Action.TRIP)
    done = await bench.work_until(trip, State.VERIFIED)
    assert bench.relay.opened
    assert bench.states(trip) == ["requested", "queued", "sending", "acknowledged", "verified"]
    assert (done.attempts, done.why) == (1, Why.RELAY_READ)
    ((action, sha256),) = bench.door.written
    assert (action, sha256) == (Action.TRIP, done.frame_hash)
    assert done.valid_until is not None
    assert done.sent_at is not None
    assert done.valid_until - done.sent_at <= 10 * MINUTE
    assert bench.store.kept.outbox == [("relay-command.verified", trip)]


async def test_a_close_gives_power_back_and_says_when() -> None:
    bench = Bench()
    bench.relay.opened = bench.relay.trip_ordered = True
    close = await bench.accept(Action.CLOSE)
    done = await bench.work_until(close, State.VERIFIED)
    assert not bench.relay.opened
    assert done.energised_at is not None
    assert [kind for kind, _ in bench.store.kept.outbox] == [
        "relay-command.verified",
        "relay-command.energised",
    ]
    assert done.valid_until is not None
    assert done.valid_until > NOW + timedelta(hours=23)


async def test_the_deadline_is_told_by_the_meters_own_clock() -> None:
    bench = Bench()
    bench.relay.offset = -3600.0  # an hour slow: a trip must not go there
    trip = await bench.accept(Action.TRIP)
    await bench.work()
    assert (bench.command(trip).state, bench.command(trip).why) == (State.QUEUED, Why.METER_CLOCK)
    assert bench.door.written == []
    bench.relay.opened = bench.relay.trip_ordered = True
    bench.relay.offset = -26 * 365 * 86400.0  # 2000
    close = await bench.accept(Action.CLOSE)
    await bench.work_until(close, State.VERIFIED)
    assert not bench.relay.opened


async def test_a_trip_waits_for_the_load_and_a_close_cancels_it() -> None:
    bench = Bench()
    bench.relay.holds_for_load = True
    trip = await bench.accept(Action.TRIP)
    await bench.work_until(trip, State.ACKNOWLEDGED)
    bench.clock.shown += timedelta(hours=3)
    await bench.work()
    assert (bench.command(trip).state, bench.command(trip).why) == (State.ACKNOWLEDGED, Why.WAITING_FOR_LOAD)
    bench.relay.opened = True
    await bench.work_until(trip, State.VERIFIED)


async def test_keep_power_on_the_meter_refuses_a_trip_before_a_frame_is_made() -> None:
    bench = Bench()
    bench.relay.keep_power = True
    trip = await bench.accept(Action.TRIP)
    done = await bench.work_until(trip, State.REFUSED)
    assert done.why is Why.KEEP_POWER_ON
    assert bench.door.written == []


async def test_another_meter_at_the_point_is_never_tripped() -> None:
    bench = Bench()
    bench.door.stranger = True
    trip = await bench.accept(Action.TRIP)
    done = await bench.work_until(trip, State.REFUSED)
    assert (done.why, done.detail) == (Why.WRONG_METER, "000000000009")
    assert bench.door.written == []


async def test_no_trip_over_a_contested_session_but_a_close() -> None:
    bench = Bench()
    bench.door.contested = True
    trip = await bench.accept(Action.TRIP)
    await bench.work()
    assert (bench.command(trip).state, bench.command(trip).why) == (State.QUEUED, Why.CONTESTED)
    close = await bench.accept(Action.CLOSE)
    await bench.work_until(close, State.VERIFIED)


async def test_silence_is_uncertain_and_a_read_settles_it() -> None:
    bench = Bench()
    bench.relay.mute = 1
    trip = await bench.accept(Action.TRIP)
    await bench.work_until(trip, State.UNCERTAIN)
    done = await bench.work_until(trip, State.VERIFIED)
    assert len(bench.relay.seen) == 1
    assert bench.states(trip) == ["requested", "queued", "sending", "uncertain", "verified"]
    assert done.attempts == 1


async def test_a_trip_is_not_repeated_before_its_frame_is_dead() -> None:
    bench = Bench()
    bench.relay.deaf = 1
    trip = await bench.accept(Action.TRIP)
    uncertain = await bench.work_until(trip, State.UNCERTAIN)
    assert uncertain.valid_until is not None
    await bench.work_until(trip, State.QUEUED)
    assert bench.clock.shown > uncertain.valid_until
    assert len(bench.door.written) == 1
    done = await bench.work_until(trip, State.VERIFIED)
    assert len(bench.door.written) == 2
    assert done.attempts == 2


async def test_a_trip_that_has_expired_meanwhile_is_failed_not_repeated() -> None:
    bench = Bench()
    bench.relay.deaf = 1
    trip = await bench.accept(Action.TRIP, expires_at=NOW + 5 * MINUTE)
    done = await bench.work_until(trip, State.FAILED)
    assert (done.why, len(bench.door.written)) == (Why.EXPIRED, 1)
    assert bench.relay.seen == []


async def test_a_close_is_sent_again_as_soon_as_the_relay_reads_open() -> None:
    bench = Bench()
    bench.relay.opened = bench.relay.trip_ordered = True
    bench.relay.deaf = 2
    close = await bench.accept(Action.CLOSE)
    done = await bench.work_until(close, State.VERIFIED, within=timedelta(minutes=5))
    assert done.attempts == 3
    assert not bench.relay.opened


@pytest.mark.parametrize("why", [Why.NOT_AUTHENTICATED, Why.DEADLINE])
async def test_a_refused_close_is_cured(why: Why) -> None:
    bench = Bench()
    bench.relay.opened = bench.relay.trip_ordered = True
    bench.relay.refuses = [why]
    close = await bench.accept(Action.CLOSE)
    done = await bench.work_until(close, State.VERIFIED, within=MINUTE)
    assert done.attempts == 2
    assert [sha for _, sha in bench.door.written][-1] == done.frame_hash
    assert len({sha for _, sha in bench.door.written}) == 2


async def test_a_close_that_stays_refused_goes_to_the_field_and_on() -> None:
    bench = Bench()
    bench.relay.opened = bench.relay.trip_ordered = True
    bench.relay.refuses = [Why.SUSPENDED] * 4
    close = await bench.accept(Action.CLOSE)
    field = await bench.work_until(close, State.FIELD)
    assert field.why is Why.SUSPENDED
    assert bench.store.kept.field_orders == {1: close}
    assert ("relay-command.field", close) in bench.store.kept.outbox
    await bench.work_until(close, State.VERIFIED)
    assert not bench.relay.opened
    assert bench.store.kept.field_orders == {}


async def test_a_close_that_cannot_even_be_built_goes_to_the_field() -> None:
    bench = Bench()
    bench.relay.opened = bench.relay.trip_ordered = True
    bench.door.security = Trouble(Why.NOT_SUPPORTED, "a meter of the older edition")
    close = await bench.accept(Action.CLOSE)
    await bench.work_until(close, State.FIELD)
    assert bench.store.kept.field_orders == {1: close}
    bench.door.security = None
    await bench.work_until(close, State.VERIFIED)


async def test_the_field_crew_was_quicker() -> None:
    bench = Bench()
    bench.relay.opened = bench.relay.trip_ordered = True
    bench.relay.refuses = [Why.REFUSED_BY_METER]
    close = await bench.accept(Action.CLOSE)
    await bench.work_until(close, State.FIELD)
    bench.relay.opened = bench.relay.trip_ordered = False
    done = await bench.work_until(close, State.VERIFIED)
    assert done.attempts == 1


async def test_a_meter_without_direct_close_is_permitted_instead() -> None:
    bench = Bench()
    bench.relay.opened = bench.relay.trip_ordered = True
    bench.relay.refuses = [Why.NOT_SUPPORTED]
    close = await bench.accept(Action.CLOSE, work_order="WO-1")
    await bench.work_until(close, State.SUPERSEDED)
    (instead,) = [
        row.command for row in bench.store.kept.rows.values() if row.command.action is Action.PERMIT_CLOSE
    ]
    assert (instead.caused_by, instead.work_order) == (str(close), "WO-1")
    await bench.work_until(instead.id, State.VERIFIED)
    assert not bench.relay.opened


async def test_a_permitted_close_is_followed_until_the_button_is_pressed() -> None:
    bench = Bench()
    bench.relay.opened = bench.relay.trip_ordered = True
    bench.relay.button_pressed = False
    permit = await bench.accept(Action.PERMIT_CLOSE)
    done = await bench.work_until(permit, State.VERIFIED)
    assert done.energised_at is None
    assert [kind for kind, _ in bench.store.kept.outbox] == [
        "relay-command.verified",
        "relay-command.permitted",
    ]
    for wait in (10 * MINUTE, 50 * MINUTE):
        bench.clock.shown += wait
        await bench.work()
        assert bench.command(permit).energised_at is None
    looks = bench.command(permit).look_at
    assert looks is not None
    assert (looks + timedelta(hours=8)).strftime("%H:%M") == "00:05"
    bench.relay.opened = False
    bench.clock.shown = looks
    await bench.work()
    assert bench.command(permit).energised_at is not None
    assert bench.store.kept.outbox[-1] == ("relay-command.energised", permit)
    assert bench.command(permit).look_at is None


async def test_a_relay_that_cannot_be_read_sends_a_person_to_a_close_only() -> None:
    bench = Bench()
    bench.relay.opened = bench.relay.trip_ordered = True
    bench.relay.mute = 1
    close = await bench.accept(Action.CLOSE)
    await bench.work_until(close, State.UNCERTAIN)
    bench.relay.unreadable = 20
    while bench.relay.unreadable:
        look = bench.command(close).look_at
        assert look is not None
        bench.clock.shown = max(bench.clock.shown, look)
        await bench.work()
    assert bench.store.kept.field_orders == {1: close}
    await bench.work_until(close, State.VERIFIED)
    assert bench.store.kept.field_orders == {}


async def test_the_other_verbs() -> None:
    bench = Bench(replace(FACTS, relay_kind=RelayKind.EXTERNAL_SELF_CLOSING))
    for action, word in (
        (Action.KEEP_POWER, 0x1000),
        (Action.RELEASE_KEEP_POWER, 0),
        (Action.ALARM, 0x80),
        (Action.CLEAR_ALARM, 0),
    ):
        command = await bench.accept(action)
        await bench.work_until(command, State.VERIFIED)
        assert bench.relay.word == word
