"""One command at a time, from the queue to its end, on the bench."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from gateway.command import (
    PLACE_LASTS,
    Action,
    Block,
    BlockKind,
    Change,
    Command,
    Limits,
    MeterFacts,
    NewCommand,
    State,
    Why,
)
from gateway.control.requests import Requests
from gateway.control.stores import step
from gateway.door import Trouble
from gateway.errors import StorageError
from gateway.model import RelayKind
from tests.gateway.control.bench import NOW, Bench
from tests.gateway.control.memory import Taken
from tests.gateway.control.test_policy import FACTS

MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
BLOCK = Block(7, BlockKind.MEDICAL, NOW - timedelta(days=1), None, "hospital list")


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


# -- between claim and write -------------------------------------------------------------------------------


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


# -- dying, and a database that is away ---------------------------------------------------------------------


class Dies(Exception):
    pass


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


# -- a meter that was taken away


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
