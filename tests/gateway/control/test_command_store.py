"""One set of rules for the commands in PostgreSQL and for those in memory that the simulation runs on."""

from __future__ import annotations

import asyncio
from contextvars import Context
from dataclasses import replace
from datetime import datetime, timedelta
from uuid import UUID, uuid4

import pytest

from gateway.command import (
    Action,
    Change,
    Command,
    KeyTaken,
    NewCommand,
    NotInstalled,
    Proof,
    Stale,
    State,
    Why,
)
from gateway.control.policy import only_shadow
from gateway.control.states import WrongStep
from gateway.control.stores import CommandStore, step
from tests.gateway.control.either_store import NOW, new, queued


async def another_sees(store: CommandStore, command_id: UUID) -> Command | None:
    """What stands for somebody else, who has no desk open."""
    return await asyncio.create_task(store.command(command_id), context=Context())


class Dies(Exception):
    """The process dies here."""


async def die(store: CommandStore, meter_id: int, wanted: NewCommand) -> None:
    """Have a command on the point of being sent when the process dies."""
    async with store.desk(meter_id) as desk:
        await step(desk, await desk.add(wanted, State.QUEUED), State.SENDING)
        raise Dies


async def test_a_command_is_there_once_its_desk_has_closed(store: CommandStore) -> None:
    wanted = new(notice="N-1", customer="C-7", label="first")
    async with store.desk(1) as desk:
        assert desk.facts.intent == 0
        command = await desk.add(wanted, State.QUEUED)
        assert await another_sees(store, wanted.id) is None
        assert await desk.command(wanted.id) == command
        assert desk.facts.open == (command,)
    assert command.state is State.QUEUED
    assert (command.version, command.intent) == (3, 1)
    assert await store.command(wanted.id) == command
    assert await store.known("billing", wanted.idempotency_key) == (command, b"x" * 32)
    assert await store.known("another", wanted.idempotency_key) is None
    async with store.desk(1) as desk:
        assert desk.facts.open == (command,)
        assert desk.facts.intent == 1
        assert desk.facts.shadow
        assert desk.facts.terminal == "02000001"


async def test_nothing_is_kept_of_a_desk_that_fails(store: CommandStore) -> None:
    wanted = new()
    with pytest.raises(Dies):
        await die(store, 1, wanted)
    assert await store.command(wanted.id) is None
    async with store.desk(1) as desk:
        assert desk.facts.intent == 0


async def test_a_meter_that_is_not_there(store: CommandStore) -> None:
    with pytest.raises(NotInstalled):
        async with store.desk(99):
            pass


async def test_steps_name_what_they_leave(store: CommandStore) -> None:
    async with store.desk(1) as desk:
        seen = await desk.add(new(), State.QUEUED)
        sending = await step(
            desk, seen, State.SENDING, change=Change({"frame_hash": b"h" * 32, "sent_at": NOW, "attempts": 1})
        )
        with pytest.raises(Stale):
            await step(desk, seen, State.CANCELLED, why=Why.CANCELLED)
    found = await store.command(seen.id)
    assert found == sending
    assert (found.frame_hash, found.sent_at, found.attempts) == (b"h" * 32, NOW, 1)
    with pytest.raises(WrongStep):
        async with store.desk(1) as desk:
            await step(desk, sending, State.VERIFIED, proof=Proof.RELAY_READ)
    with pytest.raises(WrongStep):
        async with store.desk(1) as desk:
            await step(desk, sending, State.QUEUED)
    assert await store.command(seen.id) == sending


async def test_an_end_takes_a_command_off_the_desk(store: CommandStore) -> None:
    async with store.desk(1) as desk:
        command = await desk.add(new(), State.REFUSED, Why.NO_NOTICE, "notice is empty")
        assert desk.facts.open == ()
    assert (command.why, command.detail) == (Why.NO_NOTICE, "notice is empty")
    async with store.desk(1) as desk:
        assert desk.facts.open == ()
        assert desk.facts.intent == 1
        with pytest.raises(WrongStep):
            await step(desk, command, State.QUEUED)


async def test_one_key_makes_one_command(store: CommandStore) -> None:
    async with store.desk(1) as desk:
        await desk.add(new(idempotency_key="k"), State.QUEUED)
    with pytest.raises(KeyTaken):
        async with store.desk(2) as desk:
            await desk.add(new(idempotency_key="k"), State.QUEUED)
    async with store.desk(2) as desk:
        await desk.add(new(idempotency_key="k", requester="another"), State.QUEUED)


async def test_one_desk_a_meter_at_a_time(store: CommandStore) -> None:
    order: list[str] = []
    inside = asyncio.Event()

    async def first() -> None:
        async with store.desk(1) as desk:
            inside.set()
            await asyncio.sleep(0.1)
            await desk.add(new(), State.QUEUED)
            order.append("first")

    async def second() -> None:
        await inside.wait()
        async with store.desk(1) as desk:
            order.append("second")
            assert len(desk.facts.open) == 1

    async def other() -> None:
        await inside.wait()
        async with store.desk(2):
            order.append("other meter")

    await asyncio.gather(first(), second(), other())
    assert order == ["other meter", "first", "second"]


async def test_where_more_is_due_than_fits_closes_are_found_before_older_trips(store: CommandStore) -> None:
    made = {}
    for name, meter_id, told in (
        ("old trip", 1, {"created_at": NOW - timedelta(minutes=9)}),
        ("close", 3, {"action": Action.CLOSE, "created_at": NOW}),
    ):
        async with store.desk(meter_id) as desk:
            made[name] = await desk.add(new(**told), State.QUEUED)
    assert [ref.id for ref in await store.due((1, 2), NOW, 1)] == [made["close"].id]
    assert [ref.id for ref in await store.due((1, 2), NOW, 2)] == [made["close"].id, made["old trip"].id]
    assert [ref.id for ref in await store.due((1, 2), NOW, 1, (2,))] == [made["old trip"].id]


async def test_what_is_due(store: CommandStore) -> None:
    made = {}
    for name, meter_id, told in (
        ("old trip", 1, {"created_at": NOW - timedelta(minutes=9)}),
        ("young close", 2, {"action": Action.CLOSE, "created_at": NOW}),
        ("trip elsewhere", 3, {"created_at": NOW - timedelta(minutes=3)}),
        ("not yet", 4, {"created_at": NOW - timedelta(minutes=5), "not_before": NOW + timedelta(hours=1)}),
    ):
        async with store.desk(meter_id) as desk:
            made[name] = await desk.add(new(**told), State.QUEUED)

    async def due(*terminals: int, now: datetime = NOW, skip: tuple[int, ...] = ()) -> list[UUID]:
        return [ref.id for ref in await store.due(terminals, now, 10, skip)]

    assert await due(1, 2) == [made["young close"].id, made["trip elsewhere"].id]
    assert await due(1) == [made["young close"].id]
    assert await due(1, 2, skip=(1,)) == [made["trip elsewhere"].id]
    assert await due() == []
    async with store.desk(2) as desk:
        later = await step(
            desk, made["young close"], State.SENDING, change=Change({"look_at": NOW + timedelta(minutes=1)})
        )
    assert await due(1) == [made["old trip"].id]
    assert await due(1, now=NOW + timedelta(minutes=2)) == [later.id]
    async with store.desk(3) as desk:
        await step(desk, made["trip elsewhere"], State.CANCELLED)
    assert await due(2) == []
    assert await due(2, now=NOW + timedelta(hours=2)) == [made["not yet"].id]


async def test_a_permitted_close_is_looked_at_again(store: CommandStore) -> None:
    async with store.desk(1) as desk:
        command = await desk.add(new(Action.PERMIT_CLOSE), State.QUEUED)
        command = await step(desk, command, State.SENDING, change=Change({"sent_at": NOW}))
        command = await step(desk, command, State.ACKNOWLEDGED)
        command = await step(
            desk,
            command,
            State.VERIFIED,
            proof=Proof.RELAY_READ,
            change=Change({"look_at": NOW + timedelta(minutes=10)}),
        )
    assert await store.due([1], NOW, 10) == []
    (ref,) = await store.due([1], NOW + timedelta(minutes=10), 10)
    assert (ref.id, ref.state) == (command.id, State.VERIFIED)
    async with store.desk(1) as desk:
        seen = await desk.command(command.id)
        assert seen is not None
        done = await desk.note(seen, "energised", {"word": 0}, Change({"energised_at": NOW, "look_at": None}))
    assert (await store.command(command.id)) == done
    assert await store.due([1], NOW + timedelta(hours=1), 10) == []


async def test_a_desk_tells_of_its_own_meters_commands_only(store: CommandStore) -> None:
    trip = await queued(store, 1)
    async with store.desk(1) as desk:
        ended = await step(desk, trip, State.CANCELLED)
        assert await desk.command(trip.id) == ended
        assert await desk.command(uuid4()) is None
    async with store.desk(2) as desk:
        assert await desk.command(trip.id) is None


async def test_putting_off_is_one_fact(store: CommandStore) -> None:
    async with store.desk(1) as desk:
        queued = await desk.add(new(), State.QUEUED)
        first = await desk.put_off(queued, NOW + timedelta(minutes=1), Why.BRAKE, "on since 9")
        second = await desk.put_off(first, NOW + timedelta(minutes=2), Why.BRAKE, "on since 9")
        with pytest.raises(Stale):
            await desk.put_off(first, NOW, Why.BRAKE)
    found = await store.command(queued.id)
    assert found == second
    assert (found.why, found.look_at, found.state) == (Why.BRAKE, NOW + timedelta(minutes=2), State.QUEUED)
    assert await store.due([1], NOW + timedelta(seconds=90), 10) == []
    assert len(await store.due([1], NOW + timedelta(minutes=2), 10)) == 1


@pytest.mark.parametrize("end", [State.REFUSED, State.EXPIRED, State.UNCERTAIN])
async def test_a_trip_that_left_is_feared_whatever_the_meter_said(store: CommandStore, end: State) -> None:
    """Also one that it refused: a copy of the frame may come later, and find it in another mood."""
    until = NOW + timedelta(minutes=10)
    async with store.desk(1) as desk:
        trip = await desk.add(new(), State.QUEUED)
        sent = Change({"attempts": 1, "sent_at": NOW, "valid_until": until})
        trip = await step(desk, trip, State.SENDING, change=sent)
        await step(desk, trip, end, proof=Proof.NO_BYTE_LEFT if end is State.EXPIRED else None)
    async with store.desk(1) as desk:
        assert (desk.facts.trip_until, desk.facts.copy_until) == (until, until)
        assert desk.facts.tripped_intent == trip.intent == 1


async def test_shadow_mode_keeps_nobody_dark_whom_a_real_trip_has_darkened(store: CommandStore) -> None:
    """Not even after closes that were themselves only shadows; who was never tripped gets no frame."""
    assert only_shadow(Action.CLOSE, replace(await store.look(2), shadow=True))
    async with store.desk(1) as desk:
        trip = await desk.add(new(), State.QUEUED)
        sent = Change({"attempts": 1, "sent_at": NOW, "valid_until": NOW})
        trip = await step(desk, trip, State.SENDING, change=sent)
        await step(desk, trip, State.UNCERTAIN)
    async with store.desk(1) as desk:
        shadow = await desk.add(new(Action.CLOSE, shadow=True), State.QUEUED)
        await step(desk, shadow, State.CANCELLED, why=Why.SHADOW)
        facts = replace(desk.facts, shadow=True)
    assert not only_shadow(Action.CLOSE, replace(await store.look(1), shadow=True))
    assert not only_shadow(Action.PERMIT_CLOSE, facts)
    assert only_shadow(Action.TRIP, facts)
    async with store.desk(1) as desk:
        close = await desk.add(new(Action.CLOSE), State.QUEUED)
        close = await step(desk, close, State.SENDING)
        close = await step(desk, close, State.ACKNOWLEDGED)
        await step(desk, close, State.VERIFIED, proof=Proof.RELAY_READ)
    assert only_shadow(Action.CLOSE, replace(await store.look(1), shadow=True))


async def test_until_when_a_sent_trip_is_to_be_feared(store: CommandStore) -> None:
    until = NOW + timedelta(minutes=10)
    async with store.desk(1) as desk:
        assert desk.facts.trip_until is None
        trip = await desk.add(new(), State.QUEUED)
        sent = Change({"attempts": 1, "sent_at": NOW, "valid_until": until})
        trip = await step(desk, trip, State.SENDING, change=sent)
        trip = await step(desk, trip, State.UNCERTAIN)
    async with store.desk(1) as desk:
        assert desk.facts.trip_until == until
        await step(desk, trip, State.SUPERSEDED)
    async with store.desk(1) as desk:
        assert desk.facts.trip_until == until
    async with store.desk(2) as desk:
        assert desk.facts.trip_until is None
