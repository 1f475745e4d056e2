"""One set of rules for the commands in PostgreSQL and for those in memory that the simulation runs on."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from contextvars import Context
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest

from gateway.command import (
    PLACE_LASTS,
    Action,
    BlockKind,
    Change,
    Command,
    KeyTaken,
    Limits,
    MeterFacts,
    NewCommand,
    NotInstalled,
    Place,
    Proof,
    Stale,
    State,
    Used,
    Why,
    chained,
)
from gateway.control.policy import only_shadow
from gateway.control.states import WrongStep
from gateway.control.stores import CommandStore, step
from gateway.model import PointRole, RelayKind
from gateway.storage.commands import Commands
from gateway.storage.database import Database
from tests.gateway.control.memory import MemoryCommands
from tests.gateway.storage.district import grow

NOW = datetime(2026, 11, 25, 2, 0, tzinfo=UTC)


class HandClock:
    """Shows what it is told to."""

    def __init__(self) -> None:
        self.shown = NOW

    def now(self) -> datetime:
        return self.shown

    def go(self, seconds: float) -> None:
        """On, or back."""
        self.shown += timedelta(seconds=seconds)


def facts(meter_id: int, terminal_id: int) -> MeterFacts:
    return MeterFacts(
        meter_id=meter_id,
        meter=f"M{meter_id - 1:06d}",
        address=f"{meter_id - 1:012d}",
        terminal_id=terminal_id,
        terminal=f"0200{terminal_id:04x}",
        pn=1,
        port=31,
        protocol="dlt645-2007",
        profile="",
        role=PointRole.CUSTOMER,
        relay_kind=RelayKind.BUILT_IN,
        area_id=None,
        organisation_id=None,
        shadow=True,
        customer="",
        protected=False,
        restore_mode="close",
        intent=0,
    )


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture(params=["memory", pytest.param("postgres", marks=pytest.mark.database)])
async def store(
    request: pytest.FixtureRequest, clock: HandClock, tmp_path: Path
) -> AsyncIterator[CommandStore]:
    if request.param == "memory":
        yield MemoryCommands(clock, {1: facts(1, 1), 2: facts(2, 1), 3: facts(3, 2), 4: facts(4, 2)})
        return
    async with await Database.open(request.getfixturevalue("conninfo")) as database:
        assert await grow(database, tmp_path, 2, 2) == [1, 2, 3, 4]
        yield Commands(database, clock)  # type: ignore[arg-type]  # only `now` is asked


def new(action: Action = Action.TRIP, **told: Any) -> NewCommand:
    given: dict[str, Any] = {
        "id": uuid4(),
        "action": action,
        "requester": "billing",
        "cause": "arrears",
        "created_at": NOW,
        "idempotency_key": uuid4().hex,
        "body_hash": b"x" * 32,
        "expires_at": NOW + timedelta(hours=24) if action is Action.TRIP else None,
    } | told
    return NewCommand(**given)


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


async def queued(store: CommandStore, meter_id: int, **told: Any) -> Command:
    async with store.desk(meter_id) as desk:
        return await desk.add(new(**told), State.QUEUED)


async def test_a_place_is_taken_where_all_limits_have_room(store: CommandStore, clock: HandClock) -> None:
    limits = Limits(area=2, requester=3, all=4)
    first, second, third = [await queued(store, meter_id) for meter_id in (1, 2, 3)]
    assert await store.used(1, "billing", limits) == (0, 0, 0)
    assert await store.take_place(first, 1, limits) == Place(NOW, Used(0, 0, 0), limits, 1)
    assert await store.take_place(second, 1, limits) == Place(NOW, Used(1, 1, 1), limits, 1)
    assert await store.take_place(third, 1, limits) == Place(None, Used(2, 2, 2), limits, 1)  # the area
    assert await store.take_place(third, None, limits) == Place(NOW, Used(0, 2, 2), limits, None)
    assert await store.used(None, "billing", limits) == (1, 3, 3)
    assert await store.used(1, "another", limits) == (2, 0, 3)
    fourth = await queued(store, 4)
    assert await store.take_place(fourth, 2, limits) == Place(None, Used(0, 3, 3), limits, 2)  # the requester
    other = replace(fourth, requester="another")
    assert await store.take_place(other, 2, replace(limits, all=3)) == Place(
        None, Used(0, 0, 3), replace(limits, all=3), 2
    )
    assert await store.take_place(other, 2, limits) == Place(NOW, Used(0, 0, 3), limits, 2)


async def test_a_place_is_kept_by_its_attempt_for_a_while(store: CommandStore, clock: HandClock) -> None:
    limits = Limits()
    trip = await queued(store, 1)
    assert await store.take_place(trip, 1, limits) == Place(NOW, Used(0, 0, 0), limits, 1)
    clock.go(PLACE_LASTS.total_seconds() / 2)
    assert await store.take_place(trip, 1, limits) == Place(NOW, Used(0, 0, 0), limits, 1)
    assert (await store.take_place(trip, 2, limits)).used == (0, 1, 1)  # in another area it is another
    again = await store.take_place(replace(trip, attempts=1), 1, limits)
    assert again == Place(clock.now(), Used(1, 2, 2), limits, 1)
    clock.go(PLACE_LASTS.total_seconds())
    assert (await store.take_place(trip, 1, limits)).at == clock.now()
    assert await store.used(1, "billing", limits) == (3, 4, 4)


async def test_places_count_for_the_window_and_as_long_as_one_lasts(
    store: CommandStore, clock: HandClock
) -> None:
    limits = Limits(window=timedelta(minutes=10))
    await store.take_place(await queued(store, 1), 1, limits)
    clock.go(300.0)
    await store.take_place(await queued(store, 2), 1, limits)
    clock.go(300.0 + PLACE_LASTS.total_seconds() - 1)
    assert await store.used(1, "billing", limits) == (2, 2, 2)
    clock.go(1.0)
    assert await store.used(1, "billing", limits) == (1, 1, 1)
    clock.go(300.0)
    assert await store.used(1, "billing", limits) == (0, 0, 0)


async def test_a_clock_that_went_back_gets_places_behind_those_before(
    store: CommandStore, clock: HandClock
) -> None:
    limits = Limits(all=1)
    first, second = await queued(store, 1), await queued(store, 2)
    ahead = clock.now()
    await store.take_place(first, 1, limits)
    clock.go(-60.0)
    assert (await store.take_place(second, 1, limits)).at is None
    assert (await store.take_place(second, 1, replace(limits, all=2))).at == ahead
    assert await store.used(1, "billing", limits) == (2, 2, 2)


async def test_two_at_once_never_take_the_same_last_place(store: CommandStore) -> None:
    limits = Limits(all=6)
    trips = [await queued(store, meter_id) for meter_id in (1, 2, 3, 4) for _ in range(3)]
    places = await asyncio.gather(*(store.take_place(one, 1, limits) for one in trips))
    taken = [place for place in places if place.at is not None]
    assert sorted(place.used.all for place in taken) == [0, 1, 2, 3, 4, 5]
    assert {place.used.all for place in places if place.at is None} == {6}


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


# -- only in the database ----------------------------------------------------------------------------------


async def rows(database: Database, query: str) -> list[Any]:
    async with database.connection() as connection:
        return await (await connection.execute(query.encode())).fetchall()


@pytest.mark.database
async def test_the_chain_of_events_and_what_is_told(database: Database, tmp_path: Path) -> None:
    await grow(database, tmp_path, 1, 1)
    store = Commands(database, HandClock())  # type: ignore[arg-type]  # only `now` is asked
    async with store.desk(1) as desk:
        command = await desk.add(new(), State.QUEUED)
        command = await step(desk, command, State.SENDING, evidence={"frame": "68…16", "meter": "电表"})
        await step(desk, command, State.REFUSED, why=Why.KEEP_POWER_ON, evidence={"error": 4})
    events = await rows(database, "SELECT n, body, hash FROM relay_command_event ORDER BY n")
    assert [body["state"] for _, body, _ in events] == ["requested", "queued", "sending", "refused"]
    before = b""
    for _, body, hashed in events:
        before = chained(before, body)
        assert before == bytes(hashed)
    told = await rows(database, "SELECT type, data FROM outbox")
    assert [kind for kind, _ in told] == ["relay-command.refused"]
    assert told[0][1]["why"] == "keep_power_on"
    for statement in (
        "UPDATE relay_command_event SET body = '{}'",
        "DELETE FROM relay_command_event",
        "UPDATE relay_command_event SET n = n + 10, seal_id = 1",
    ):
        with pytest.raises(psycopg.errors.RaiseException, match="only added to"):
            async with await psycopg.AsyncConnection.connect(database.conninfo) as connection:
                await connection.execute(statement.encode())


@pytest.mark.database
async def test_the_desk_of_a_meter_that_was_taken_away_is_that_of_its_last_place(
    database: Database, tmp_path: Path
) -> None:
    await grow(database, tmp_path, 3, 1)
    store = Commands(database, HandClock())  # type: ignore[arg-type]  # only `now` is asked

    async def place(meter_id: int) -> tuple[str, bool]:
        async with store.desk(meter_id) as desk:
            return desk.facts.terminal, desk.facts.installed

    async def run(statement: str, *values: object) -> None:
        async with database.connection() as connection:
            await connection.execute(statement.encode(), values)

    moved = (
        "INSERT INTO meter_install (meter_id, point_id, terminal_id, pn, port, valid_from, valid_to)"
        " SELECT 1, point_id, terminal_id, pn + 1, port, %s, %s FROM meter_install WHERE meter_id = %s"
    )
    day = timedelta(days=1)
    assert await place(1) == ("02000001", True)
    await run("UPDATE meter_install SET valid_to = %s WHERE meter_id = 1", NOW - 9 * day)
    assert await place(1) == ("02000001", False)
    await run("UPDATE meter_install SET valid_to = %s WHERE meter_id IN (2, 3)", NOW - 8 * day)
    await run(moved, NOW - 7 * day, NOW - 6 * day, 2)
    assert await place(1) == ("02000002", False)
    await run(moved, NOW - day, None, 3)
    assert await place(1) == ("02000003", True)
    await run("DELETE FROM meter_install")
    with pytest.raises(NotInstalled, match="never installed"):
        await place(1)


@pytest.mark.database
async def test_facts_follow_blocks_and_switches(database: Database, tmp_path: Path) -> None:
    await grow(database, tmp_path, 1, 2)
    store = Commands(database, HandClock())  # type: ignore[arg-type]  # only `now` is asked

    async def put(statement: str, *values: object) -> None:
        async with database.connection() as connection:
            await connection.execute(statement.encode(), values)

    async def seen() -> MeterFacts:
        async with store.desk(1) as desk:
            return desk.facts

    async def switch(name: str, scope: str, value: bool, approved_by: str | None = None) -> None:
        await put(
            "INSERT INTO control_setting (name, scope, value, set_by, set_at, approved_by)"
            " VALUES (%s, %s, %s::jsonb, 'ann', %s, %s)",
            name, scope, json.dumps(value), NOW, approved_by,
        )  # fmt: skip

    first = await seen()
    assert (first.brake, first.weather_halt, first.shadow, first.hold_since) == (False, False, True, None)
    await put("INSERT INTO organisation (name) VALUES ('north')")
    await put("INSERT INTO area (name, organisation_id) VALUES ('A1', 1)")
    await put("UPDATE metering_point SET area_id = 1")
    await switch("brake", "", True)
    await switch("weather-halt", "area:1", True)
    await switch("shadow", "organisation:1", False)
    await switch("hold", "", True)
    found = await seen()
    assert (found.area_id, found.organisation_id) == (1, 1)
    assert (found.brake, found.weather_halt, found.hold_since) == (True, True, NOW)
    assert found.shadow, "one person alone has ended the shadow mode"
    await switch("shadow", "organisation:1", False, "bob")
    await switch("brake", "", False)
    await switch("weather-halt", "area:1", False)
    await switch("hold", "", False)
    found = await seen()
    assert (found.brake, found.weather_halt, found.shadow, found.hold_since) == (False, False, False, None)
    for since, until, lifted in (
        (NOW - timedelta(hours=1), None, None),
        (NOW - timedelta(hours=2), NOW, None),
        (NOW + timedelta(hours=1), None, None),
        (NOW - timedelta(hours=1), None, NOW),
    ):
        await put(
            "INSERT INTO control_block (point_id, kind, since, until, source, set_by, set_at, lifted_at)"
            " VALUES (1, 'medical', %s, %s, 'billing', 'ann', %s, %s)",
            since, until, NOW, lifted,
        )  # fmt: skip
    (block,) = (await seen()).blocks
    assert (block.kind, block.since, block.until) == (BlockKind.MEDICAL, NOW - timedelta(hours=1), None)


@pytest.mark.database
async def test_only_what_a_read_finds_again_does_not_wait_for_the_disk(conninfo: str, tmp_path: Path) -> None:
    """Of all that is done at a desk: which transactions end before they are on the disk."""

    async def waits(connection: Any) -> str:
        cursor = await connection.execute("SHOW synchronous_commit")
        return str((await cursor.fetchone())[0])

    ended: list[str] = []

    class Watched(Database):
        """Looks at each transaction when it is about to be kept."""

        @asynccontextmanager
        async def connection(self) -> AsyncIterator[Any]:
            async with super().connection() as connection:
                keep = connection.commit

                async def commit() -> None:
                    ended.append(await waits(connection))
                    await keep()

                connection.commit = commit  # type: ignore[method-assign]
                try:
                    yield connection
                finally:
                    del connection.commit

    async with await Database.open(conninfo) as plain:
        assert await grow(plain, tmp_path, 1, 1) == [1]
        database = Watched(plain.conninfo, plain.pool, plain.has_timescale)
        store = Commands(database, HandClock())  # type: ignore[arg-type]  # only `now` is asked
        async with store.desk(1) as desk:
            command = await desk.add(new(), State.QUEUED)
        async with store.desk(1) as desk:
            assert desk.facts.open == (command,)
        async with store.desk(1) as desk:
            command = await desk.note(command, "clock", {"offset": 1})
        async with store.desk(1) as desk:
            command = await step(desk, command, State.SENDING)
        async with store.desk(1) as desk:
            command = await step(desk, command, State.ACKNOWLEDGED)
        async with store.desk(1) as desk:
            await step(desk, command, State.VERIFIED, proof=Proof.RELAY_READ)
    ours = ended[-6:]
    assert ours == ["on", "off", "off", "on", "off", "on"]
