"""Requests: one each, what they displace, and what people decide; over both stores."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest

from gateway.command import (
    Action,
    BlockKind,
    Change,
    Command,
    Limits,
    NotInstalled,
    Proof,
    State,
    Unsure,
    Why,
)
from gateway.control.ask import KeyReused, NoSuch, NotNow, NotYou, Unfit
from gateway.control.stores import step
from gateway.errors import StorageError
from gateway.model import PointRole, RelayKind
from gateway.storage.blocks import NewBlock
from tests.gateway.control.bench import NOW
from tests.gateway.control.memory import MemoryCommands
from tests.gateway.control.office import Office, ask, in_memory

HOUR = timedelta(hours=1)
DAY = timedelta(days=1)


async def accept(office: Office, meter_id: int = 1, verb: Any = Action.TRIP, **told: Any) -> Command:
    made = await office.requests.accept(ask(meter_id, verb, **told), "billing", uuid4().hex)
    assert made.new
    return made.command


async def moved(office: Office, command: Command, *states: State, **change: Any) -> Command:
    """Have a command gone so far."""
    for state in states:
        async with office.store.desk(command.meter_id) as desk:
            proof = Proof.NOT_EXECUTED if state is State.QUEUED else Proof.RELAY_READ
            command = await step(desk, command, state, proof=proof, change=Change(change))
    return command


async def held(office: Office, by: str = "billing") -> Command:
    made = await office.requests.put(ask(), by, uuid4().hex, held_for="too many")
    assert made.command.state is State.HELD
    return made.command


# -- one request, one command


async def test_the_same_key_and_body_is_the_same_command(office: Office) -> None:
    first = await office.requests.accept(ask(), "billing", "k-1", trace="t1")
    again = await office.requests.accept(ask(), "billing", "k-1", trace="t2")
    assert (first.new, again.new) == (True, False)
    assert again.command == first.command
    assert first.command.state is State.QUEUED
    assert first.command.customer == "C1"
    assert (await office.records.rows())["command"] == 1
    for other in (ask(2), ask(verb=Action.CLOSE), ask(notice="N-2"), ask(expires_at=NOW + HOUR)):
        with pytest.raises(KeyReused, match=str(first.command.id)):
            await office.requests.accept(other, "billing", "k-1")
    assert (await office.requests.accept(ask(2), "another", "k-1")).new
    assert (await office.records.rows())["command"] == 2


async def test_a_key_at_the_same_moment_makes_one_command(office: Office) -> None:
    made = await asyncio.gather(*(office.requests.accept(ask(), "billing", "k") for _ in range(5)))
    assert len({one.command.id for one in made}) == 1
    assert sum(one.new for one in made) == 1
    assert (await office.records.rows())["command"] == 1


async def test_a_key_at_the_same_moment_for_two_meters_is_reused(office: Office) -> None:
    made = await asyncio.gather(
        *(office.requests.accept(ask(meter_id), "billing", "k") for meter_id in (1, 3)),
        return_exceptions=True,
    )
    assert sorted(type(one).__name__ for one in made) == ["Accepted", "KeyReused"]
    assert (await office.records.rows())["command"] == 1


@pytest.mark.parametrize("key", ["", "two words", "ü", "x" * 201, "a\n"])
async def test_what_is_no_key(office: Office, key: str) -> None:
    with pytest.raises(Unfit, match="idempotency key"):
        await office.requests.accept(ask(), "billing", key)


@pytest.mark.parametrize(
    ("point", "commands"), [("before commit", 1), ("after commit", 1), ("both", 1)], ids=str
)
async def test_a_lost_answer_is_cleared_up(point: str, commands: int) -> None:
    office = in_memory()
    assert isinstance(office.store, MemoryCommands)
    failures = [point] if point != "both" else ["before commit", "after commit"]

    def hook(at: str, meter_id: int) -> None:
        if failures and at == failures[0]:
            failures.pop(0)
            raise Unsure("cut")

    office.store.hook = hook
    made = await office.requests.accept(ask(), "billing", "k")
    assert made.new
    assert (await office.requests.accept(ask(), "billing", "k")) == (made.command, False)
    assert (await office.records.rows())["command"] == commands
    assert failures == []


async def test_nobody_knows_three_times() -> None:
    office = in_memory()
    assert isinstance(office.store, MemoryCommands)

    def hook(at: str, meter_id: int) -> None:
        if at == "before commit":
            raise Unsure("cut")

    office.store.hook = hook
    with pytest.raises(Unsure):
        await office.requests.accept(ask(), "billing", "k")
    office.store.hook = lambda at, meter_id: None
    assert (await office.requests.accept(ask(), "billing", "k")).new


# -- what is turned away


@pytest.mark.parametrize(
    ("change", "told", "why"),
    [
        ({"relay_kind": RelayKind.NONE}, {}, Why.NO_RELAY),
        ({"relay_kind": RelayKind.NONE}, {"verb": "restore"}, Why.NO_RELAY),
        ({"role": PointRole.BUS}, {}, Why.NOT_CUSTOMER),
        ({"role": PointRole.AREA_GATEWAY}, {"verb": Action.CLOSE}, Why.NOT_CUSTOMER),
        ({}, {"meter_id": None}, Why.UNKNOWN_METER),
        ({}, {"meter_id": 99}, Why.UNKNOWN_METER),
        ({}, {"customer": "C2"}, None),
        ({}, {"verb": Action.CLOSE, "expires_at": NOW + HOUR}, None),
    ],
)
async def test_what_cannot_be_asked_makes_no_command(
    office: Office, change: dict[str, Any], told: dict[str, Any], why: Why | None
) -> None:
    await office.records.change(1, **change)
    with pytest.raises(Unfit) as caught:
        await office.requests.accept(ask(**told), "billing", "k")
    assert caught.value.why is why
    assert str(caught.value)
    assert (await office.records.rows())["command"] == 0
    assert await office.store.known("billing", "k") is None


@pytest.mark.parametrize(
    "told",
    [
        {"verb": Action.KEEP_POWER, "expires_at": NOW + HOUR},
        {"expires_at": NOW + 32 * DAY},
        {"not_before": NOW + 32 * DAY},
        {"expires_at": NOW + HOUR, "not_before": NOW + HOUR},
        {"expires_at": datetime(2026, 11, 26)},
        {"notice": "N" * 201},
        {"label": "a\0b"},
        {"label": "\ud800"},
    ],
)
async def test_a_request_without_form_makes_no_command(told: dict[str, Any]) -> None:
    office = in_memory()
    with pytest.raises(Unfit):
        await office.requests.accept(ask(**told), "billing", "k")
    assert (await office.records.rows())["command"] == 0


async def test_what_the_gates_refuse_is_kept_with_its_reason(office: Office) -> None:
    assert (await accept(office, cause=" ")).why is Why.NO_CAUSE
    assert (await accept(office, notice="")).why is Why.NO_NOTICE
    late = await accept(office, expires_at=NOW - HOUR)
    assert (late.state, late.why) == (State.EXPIRED, Why.EXPIRED)
    told = await office.records.told()
    assert told == ["relay-command.refused", "relay-command.refused", "relay-command.expired"]
    assert (await accept(office, verb=Action.CLOSE, cause="", notice="")).state is State.QUEUED


@pytest.mark.parametrize(
    ("mode", "kind", "action"),
    [
        ("close", RelayKind.BUILT_IN, Action.CLOSE),
        ("permit", RelayKind.BUILT_IN, Action.PERMIT_CLOSE),
        ("confirm_first", RelayKind.BUILT_IN, Action.PERMIT_CLOSE),
        ("close", RelayKind.EXTERNAL_HAND_CLOSING, Action.PERMIT_CLOSE),
        ("permit", RelayKind.EXTERNAL_SELF_CLOSING, Action.CLOSE),
    ],
)
async def test_restore_is_resolved_once(office: Office, mode: str, kind: RelayKind, action: Action) -> None:
    await office.records.change(1, restore_mode=mode, relay_kind=kind)
    first = await office.requests.accept(ask(verb="restore"), "billing", "k")
    assert first.command.action is action
    await office.records.change(1, restore_mode="close", relay_kind=RelayKind.BUILT_IN)
    assert await office.requests.accept(ask(verb="restore"), "billing", "k") == (first.command, False)


async def test_trips_expire_and_closes_do_not(office: Office) -> None:
    trip = await accept(office)
    assert trip.expires_at is not None
    assert DAY <= trip.expires_at - NOW < DAY + timedelta(minutes=1)
    assert (await accept(office, 2, expires_at=NOW + HOUR)).expires_at == NOW + HOUR
    later = await accept(office, 3, not_before=NOW + 2 * DAY)
    assert later.expires_at == NOW + 3 * DAY
    assert (await accept(office, 4, Action.RELEASE_KEEP_POWER)).expires_at is not None
    assert (await accept(office, 4, Action.CLOSE)).expires_at is None


async def test_shadow_mode_marks_what_is_accepted_in_it(office: Office) -> None:
    assert not (await accept(office)).shadow
    await office.switches.shadow(True, 1, "ann", "a second look")
    assert (await accept(office, 2)).shadow


# -- what takes whose place


@pytest.mark.parametrize("verb", [Action.CLOSE, Action.PERMIT_CLOSE, "restore", Action.KEEP_POWER])
async def test_what_gives_power_takes_the_place_of_unsent_trips(office: Office, verb: Any) -> None:
    queued = await accept(office)
    elsewhere = await accept(office, 2)
    release = await accept(office, verb=Action.RELEASE_KEEP_POWER)
    newer = await accept(office, verb=verb)
    for older in (queued, release):
        found = await office.found(older.id)
        assert (found.state, found.why) == (State.SUPERSEDED, Why.NEWER_INTENT)
        assert str(newer.id) in found.detail
    assert (await office.found(elsewhere.id)).state is State.QUEUED
    assert (await office.facts(1)).open == (newer,)
    refused = await accept(office)
    why = Why.BLOCKED if verb is Action.KEEP_POWER else Why.OPEN_CLOSE
    assert (refused.state, refused.why) == (State.REFUSED, why)


async def test_a_held_trip_is_displaced_too(office: Office) -> None:
    trip = await held(office)
    await accept(office, verb=Action.CLOSE)
    assert (await office.found(trip.id)).state is State.SUPERSEDED
    with pytest.raises(NotNow):
        await office.requests.approve(trip.id, "carol")


async def test_a_trip_that_may_have_left_is_left_to_its_proof(office: Office) -> None:
    trip = await moved(office, await accept(office), State.SENDING, State.UNCERTAIN)
    close = await accept(office, verb=Action.CLOSE)
    assert close.state is State.QUEUED
    assert (await office.found(trip.id)).state is State.UNCERTAIN
    back = await moved(office, await accept(office, 2), State.SENDING, State.UNCERTAIN, State.QUEUED)
    await accept(office, 2, Action.CLOSE)
    assert (await office.found(back.id)).state is State.SUPERSEDED


async def test_a_newer_close_displaces_only_what_was_never_sent(office: Office) -> None:
    first = await accept(office, verb=Action.PERMIT_CLOSE)
    second = await accept(office, verb=Action.CLOSE)
    assert (await office.found(first.id)).state is State.SUPERSEDED
    second = await moved(office, second, State.SENDING, State.ACKNOWLEDGED, attempts=1)
    async with office.store.desk(1) as desk:
        second = await step(desk, second, State.QUEUED, proof=Proof.RELAY_READ)
    third = await accept(office, verb=Action.CLOSE)
    assert (await office.found(second.id)).state is State.QUEUED
    kept = await accept(office, verb=Action.KEEP_POWER)
    assert [one.id for one in (await office.facts(1)).open] == [second.id, third.id, kept.id]


# -- cancel


async def test_cancelling(office: Office) -> None:
    trip = await accept(office)
    done = await office.requests.cancel(trip.id, "ann", "paid at the counter")
    assert (done.state, done.why, done.detail) == (State.CANCELLED, Why.CANCELLED, "paid at the counter")
    assert await office.requests.cancel(trip.id, "ann") == done
    with pytest.raises(NoSuch):
        await office.requests.cancel(uuid4(), "ann")
    assert (await office.requests.cancel((await held(office)).id, "ann")).state is State.CANCELLED


@pytest.mark.parametrize(
    "states",
    [
        (State.SENDING,),
        (State.SENDING, State.UNCERTAIN),
        (State.SENDING, State.ACKNOWLEDGED),
        (State.SENDING, State.ACKNOWLEDGED, State.VERIFIED),
    ],
)
async def test_what_may_have_left_is_not_cancelled(states: tuple[State, ...]) -> None:
    office = in_memory()
    sent = await moved(office, await accept(office), *states)
    with pytest.raises(NotNow):
        await office.requests.cancel(sent.id, "ann")
    assert await office.found(sent.id) == sent


async def test_a_lost_answer_to_a_decision_is_cleared_up() -> None:
    office = in_memory()
    assert isinstance(office.store, MemoryCommands)
    trip = await accept(office)
    failures = ["after commit"]

    def hook(at: str, meter_id: int) -> None:
        if at in failures:
            failures.remove(at)
            raise StorageError("cut")

    office.store.hook = hook
    assert (await office.requests.cancel(trip.id, "ann")).state is State.CANCELLED
    assert failures == []
    assert await office.records.told() == ["relay-command.cancelled"]


# -- the second person


async def test_approval_takes_another_person(office: Office) -> None:
    trip = await held(office)
    for same in ("billing", "person:billing"):
        with pytest.raises(NotYou):
            await office.requests.approve(trip.id, same)
    assert (await office.found(trip.id)).state is State.HELD
    woken = office.woken
    done = await office.requests.approve(trip.id, "carol")
    assert (done.state, done.approver, done.why) == (State.QUEUED, "carol", Why.BY_PERSON)
    assert office.woken > woken
    assert await office.requests.approve(trip.id, "carol") == done
    with pytest.raises(NotNow):
        await office.requests.approve(trip.id, "dave")
    with pytest.raises(NotNow):
        await office.requests.approve((await accept(office, 2)).id, "carol")


async def test_whoever_set_the_limits_does_not_approve(office: Office) -> None:
    limits = await office.switches.propose_limits(Limits(area=1), "lea", "a test")
    trip = await held(office)
    with pytest.raises(NotYou):
        await office.requests.approve(trip.id, "lea")
    await office.switches.approve(limits.id, "max")
    for name in ("lea", "person:lea"):
        with pytest.raises(NotYou):
            await office.requests.approve(trip.id, name)
    await office.switches.propose_limits(Limits(area=2), "kim", "another")
    for name in ("lea", "kim"):
        with pytest.raises(NotYou):
            await office.requests.approve(trip.id, name)
    assert (await office.requests.approve(trip.id, "max")).state is State.QUEUED


async def test_approval_opens_no_other_gate(office: Office) -> None:
    trip = await held(office)
    await office.protections.add(NewBlock(BlockKind.MEDICAL, NOW, "hospital", customer_id=1), "ann")
    done = await office.requests.approve(trip.id, "carol")
    assert (done.state, done.why) == (State.REFUSED, Why.BLOCKED)
    late = await office.requests.put(ask(2, expires_at=NOW + HOUR), "billing", "k", held_for="many")
    office.clock.shown = NOW + HOUR
    assert (await office.requests.approve(late.command.id, "carol")).state is State.EXPIRED


# -- field reports and expiry


async def in_the_field(office: Office) -> Command:
    close = await moved(office, await accept(office, verb=Action.CLOSE), State.SENDING, State.FIELD)
    async with office.store.desk(1) as desk:
        await desk.open_field_order(close, Why.REFUSED_BY_METER, "")
    return close


async def test_a_field_report_ends_a_close_and_is_told_apart(office: Office) -> None:
    close = await in_the_field(office)
    seen = office.clock.now()
    dark = await office.requests.report_field(close.id, "crew", energised=False, at=seen, report="locked")
    assert dark.state is State.FIELD
    done = await office.requests.report_field(close.id, "crew", energised=True, at=seen, report="closed")
    assert (done.state, done.why, done.energised_at) == (State.VERIFIED, Why.BY_PERSON, seen)
    again = await office.requests.report_field(close.id, "crew", energised=True, at=seen, report="closed")
    assert again == await office.found(close.id)
    told = await office.records.told()
    assert told == ["relay-command.field", "relay-command.verified", "relay-command.energised"]
    assert await office.records.field_orders() in ([], [(1, "field report")])


async def test_a_field_report_waits_until_no_trip_can_overtake_it(office: Office) -> None:
    until = NOW + timedelta(minutes=10)
    sent = {"attempts": 1, "sent_at": NOW, "valid_until": until}
    await moved(office, await accept(office), State.SENDING, State.UNCERTAIN, **sent)
    close = await in_the_field(office)
    at = office.clock.now()
    with pytest.raises(NotNow, match="may still be obeyed"):
        await office.requests.report_field(close.id, "crew", energised=True, at=at, report="on")
    office.clock.shown = until + timedelta(seconds=1)
    done = await office.requests.report_field(close.id, "crew", energised=True, at=at, report="on")
    assert done.state is State.VERIFIED


async def test_a_field_report_waits_for_a_trip_that_the_meter_refused_too(office: Office) -> None:
    """A copy of the refused frame may find the meter in another mood."""
    until = NOW + timedelta(minutes=10)
    sent = {"attempts": 1, "sent_at": NOW, "valid_until": until}
    await moved(office, await accept(office), State.SENDING, State.REFUSED, **sent)
    close = await in_the_field(office)
    at = office.clock.now()
    with pytest.raises(NotNow, match="may still be obeyed"):
        await office.requests.report_field(close.id, "crew", energised=True, at=at, report="on")
    office.clock.shown = until + timedelta(seconds=1)
    done = await office.requests.report_field(close.id, "crew", energised=True, at=at, report="on")
    assert done.state is State.VERIFIED


async def test_a_report_on_what_is_not_with_the_crew_only_has_the_relay_read(office: Office) -> None:
    close = await moved(
        office, await accept(office, verb=Action.CLOSE), State.SENDING, State.ACKNOWLEDGED, look_at=NOW + HOUR
    )
    at = office.clock.now()
    noted = await office.requests.report_field(close.id, "crew", energised=True, at=at, report="on")
    assert noted.state is State.ACKNOWLEDGED
    assert noted.look_at is not None
    assert noted.look_at < NOW + HOUR
    with pytest.raises(NotNow):
        await office.requests.report_field(
            (await accept(office, 2)).id, "crew", energised=True, at=at, report=""
        )
    with pytest.raises(Unfit):
        await office.requests.report_field(close.id, "crew", energised=True, at=NOW + DAY, report="")


async def test_a_cancelled_close_needs_no_crew(office: Office) -> None:
    close = await in_the_field(office)
    assert (await office.requests.cancel(close.id, "ann", "moved out")).state is State.CANCELLED
    assert await office.records.field_orders() in ([], [(1, "cancelled")])


async def test_an_order_stays_for_the_close_that_remains(office: Office) -> None:
    close = await in_the_field(office)
    other = await accept(office, verb=Action.PERMIT_CLOSE)
    await office.requests.cancel(close.id, "ann")
    assert await office.records.field_orders() == [(1, None)]
    await office.requests.cancel(other.id, "ann")
    assert await office.records.field_orders() in ([], [(1, "cancelled")])


async def test_what_nobody_sends_expires(office: Office) -> None:
    trips = [await accept(office, 1), await held_at(office, 2)]
    close = await accept(office, 3, Action.CLOSE)
    sent = await moved(office, await accept(office, 4), State.SENDING)
    assert await office.requests.expire_overdue() == 0
    office.clock.shown = NOW + DAY + HOUR
    assert await office.requests.expire_overdue() == 2
    assert await office.requests.expire_overdue() == 0
    assert [(await office.found(one.id)).state for one in trips] == [State.EXPIRED] * 2
    assert (await office.found(close.id)).state is State.QUEUED
    assert (await office.found(sent.id)).state is State.SENDING


async def held_at(office: Office, meter_id: int) -> Command:
    made = await office.requests.put(ask(meter_id), "billing", uuid4().hex, held_for="many")
    return made.command


async def test_a_rule_that_wants_no_notice(office: Office) -> None:
    office.rules = replace(office.rules, notice_needed=False)
    assert (await accept(office, notice="")).state is State.QUEUED


# -- meters that were taken away


async def test_what_is_open_at_a_meter_that_was_taken_away_ends(office: Office) -> None:
    trip = await accept(office, 1)
    waiting = await held_at(office, 2)
    close = await accept(office, 3, Action.CLOSE)
    to_approve = await held_at(office, 4)
    for meter_id in (1, 2, 3, 4):
        await office.records.change(meter_id, installed=False)
    refused = await office.requests.approve(to_approve.id, "carol")
    assert (refused.state, refused.why) == (State.REFUSED, Why.NOT_INSTALLED)
    cancelled = await office.requests.cancel(close.id, "ann", "the meter was taken away")
    assert cancelled.state is State.CANCELLED
    office.clock.shown = NOW + DAY + HOUR
    assert await office.requests.expire_overdue() == 2
    for one in (trip, waiting):
        assert (await office.found(one.id)).state is State.EXPIRED


@pytest.mark.parametrize("verb", [Action.TRIP, Action.CLOSE, Action.KEEP_POWER])
async def test_nothing_is_accepted_for_a_meter_that_was_taken_away(office: Office, verb: Action) -> None:
    await accept(office, 1)
    await office.records.change(1, installed=False)
    with pytest.raises(Unfit) as said:
        await accept(office, 1, verb)
    assert said.value.why is Why.NOT_INSTALLED
    (line,) = (await office.batches.dry_run([ask(1, verb)], "billing")).dry_run
    assert (line.state, line.why) == (None, Why.NOT_INSTALLED)
    await office.records.change(1, installed=True)
    await accept(office, 1, Action.CLOSE)


@pytest.mark.parametrize("error", [NotInstalled, StorageError])
async def test_what_cannot_be_ended_keeps_nothing_else_waiting(
    office: Office, monkeypatch: pytest.MonkeyPatch, error: type[StorageError]
) -> None:
    first = await accept(office, 1, expires_at=NOW + HOUR)
    others = [await accept(office, 2), await accept(office, 4)]
    monkeypatch.setattr("gateway.control.requests.AT_ONCE", 1)
    desk = office.store.desk

    def shut(meter_id: int) -> Any:
        if meter_id == first.meter_id:
            raise error("not today")
        return desk(meter_id)

    monkeypatch.setattr(office.store, "desk", shut)
    office.clock.shown = NOW + DAY + HOUR
    assert [await office.requests.expire_overdue() for _ in range(3)] == [1, 1, 0]
    assert [(await office.found(one.id)).state for one in others] == [State.EXPIRED] * 2


async def test_a_database_that_fails_everything_is_not_asked_for_all_of_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    office = in_memory()
    for meter_id in (1, 2, 3):
        await accept(office, meter_id)
    asked: list[int] = []

    def shut(meter_id: int) -> Any:
        asked.append(meter_id)
        raise StorageError("away")

    monkeypatch.setattr("gateway.control.requests.FAILURES", 1)
    monkeypatch.setattr(office.store, "desk", shut)
    office.clock.shown = NOW + DAY + HOUR
    with pytest.raises(StorageError, match="away"):
        await office.requests.expire_overdue()
    assert len(asked) == 2
