"""Brake, halts, limits, shadow mode, hold, protections: what the gates see of them; over both stores."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

import pytest

from gateway.command import Action, BlockKind, Limits, Proof, State, Why
from gateway.control.ask import NoSuch, NotNow, NotYou, Unfit
from gateway.control.stores import step
from gateway.control.switches import ALL, of_area, of_organisation
from gateway.errors import InputError
from gateway.model import RelayKind
from gateway.storage.blocks import NewBlock
from gateway.storage.database import Database
from gateway.storage.switches import Switch
from tests.gateway.control.bench import NOW
from tests.gateway.control.office import Office, ask, in_database, in_memory

HOUR = timedelta(hours=1)


async def test_the_brake(office: Office) -> None:
    assert not (await office.facts(1)).brake
    await office.switches.brake(True, "ann", "fire")
    assert (await office.facts(1)).brake
    assert (await office.facts(4)).brake
    await office.switches.brake(False, "bob", "over")
    assert not (await office.facts(1)).brake
    assert await office.records.audit() == [("ann", "set brake"), ("bob", "set brake")]
    assert await office.records.told() == ["relay-control.brake"] * 2
    with pytest.raises(Unfit, match="reason"):
        await office.switches.brake(True, "ann", " ")


async def test_weather_halts_hold_each_for_itself(office: Office) -> None:
    async def halted() -> list[bool]:
        return [(await office.facts(meter_id)).weather_halt for meter_id in (1, 4)]

    await office.switches.halt_for_weather(True, of_area(1), "ann", "flood")
    assert await halted() == [True, False]
    await office.switches.halt_for_weather(True, of_organisation(1), "ann", "storm")
    assert await halted() == [True, True]
    await office.switches.halt_for_weather(False, of_organisation(1), "ann", "over")
    assert await halted() == [True, False]
    await office.switches.halt_for_weather(True, of_organisation(2), "ann", "typhoon over the province")
    await office.switches.halt_for_weather(False, of_area(1), "ann", "over")
    assert await halted() == [True, True]
    await office.switches.halt_for_weather(False, of_organisation(2), "ann", "over")
    assert await halted() == [False, False]
    await office.switches.halt_for_weather(True, ALL, "ann", "everywhere")
    assert await halted() == [True, True]
    for scope in ("area:", "area:1 OR 1=1", "line:1", "1", "area:²"):
        with pytest.raises(Unfit):
            await office.switches.halt_for_weather(True, scope, "ann", "x")


async def test_limits_take_two_persons(office: Office) -> None:
    wanted = Limits(5, 6, 7, timedelta(minutes=30))
    proposed = await office.switches.propose_limits(wanted, "lea", "a test")
    assert (await office.facts(1)).limits is None
    for same in ("lea", "person:lea"):
        with pytest.raises(NotYou):
            await office.switches.approve(proposed.id, same)
    approved = await office.switches.approve(proposed.id, "max")
    assert (await office.facts(1)).limits == wanted
    assert await office.switches.approve(proposed.id, "max") == approved
    with pytest.raises(NotNow):
        await office.switches.approve(proposed.id, "kim")
    older = await office.switches.propose_limits(Limits(1), "lea", "one")
    newer = await office.switches.propose_limits(Limits(2), "lea", "two")
    with pytest.raises(NotNow):
        await office.switches.approve(older.id, "max")
    assert (await office.facts(1)).limits == wanted
    assert [one.id for one in await office.switches.newest() if one.name is Switch.LIMITS] == [
        newer.id,
        older.id,
        approved.id,
    ]
    assert await office.records.audit() == [
        ("lea", "propose limits"),
        ("max", "approve limits"),
        ("lea", "propose limits"),
        ("lea", "propose limits"),
    ]
    with pytest.raises(NoSuch):
        await office.switches.approve(999, "max")


@pytest.mark.parametrize(
    "limits",
    [Limits(area=-1), Limits(all=2_000_000), Limits(window=timedelta(0)), Limits(window=timedelta(days=2))],
)
async def test_limits_that_make_no_sense(limits: Limits) -> None:
    with pytest.raises(Unfit):
        await in_memory().switches.propose_limits(limits, "lea", "x")


async def test_shadow_mode_ends_by_two_and_begins_by_one(office: Office) -> None:
    await office.switches.shadow(True, 1, "ann", "doubts")
    assert (await office.facts(1)).shadow
    ends = await office.switches.shadow(False, 1, "ann", "none left")
    assert (await office.facts(1)).shadow
    with pytest.raises(NotYou):
        await office.switches.approve(ends.id, "ann")
    await office.switches.approve(ends.id, "bob")
    assert not (await office.facts(1)).shadow
    proposed = await office.switches.shadow(False, 1, "ann", "to be sure")
    again = await office.switches.shadow(True, 1, "ann", "doubts")
    assert (await office.facts(1)).shadow
    for one in (proposed, again):
        with pytest.raises(NotNow):
            await office.switches.approve(one.id, "bob")
    assert (await office.facts(1)).shadow


async def test_a_hold_is_released_by_a_person(office: Office) -> None:
    with pytest.raises(NotNow):
        await office.switches.release_hold("ann", "nothing")
    held = await office.switch_store.hold("restored", NOW - HOUR, "lingdian:epoch", NOW)
    assert (await office.facts(1)).hold_since == held.set_at == NOW
    assert (await office.records.told())[-2:] == ["relay-control.hold", "relay-control.closes-wanted"]
    await office.switches.release_hold("ann", "looked at all of them")
    assert (await office.facts(1)).hold_since is None
    with pytest.raises(NotNow):
        await office.switches.release_hold("ann", "again")


# -- protections


async def test_a_block_protects_a_customer_or_a_point(office: Office) -> None:
    new = NewBlock(BlockKind.MEDICAL, NOW, "hospital 7", customer_id=1, until=NOW + HOUR)
    block = await office.protections.add(new, "ann")
    assert await office.protections.add(new, "bob") == block
    (seen,) = (await office.facts(1)).blocks
    assert (seen.id, seen.kind, seen.source, seen.until) == (
        block.id,
        BlockKind.MEDICAL,
        "hospital 7",
        NOW + HOUR,
    )
    assert (await office.facts(2)).blocks == ()
    await office.protections.add(NewBlock(BlockKind.COMPLAINT, NOW, "case 8", point_id=2), "ann")
    assert len((await office.facts(2)).blocks) == 1
    refused = await office.requests.accept(ask(1), "billing", uuid4().hex)
    assert (refused.command.state, refused.command.why) == (State.REFUSED, Why.BLOCKED)
    lifted = await office.protections.lift(block.id, "bob", "healthy again")
    assert lifted.block.lifted_by == "bob"
    assert (lifted.released, lifted.kept) == ((), ())
    assert (await office.protections.lift(block.id, "carol", "again")).block == lifted.block
    assert (await office.facts(1)).blocks == ()
    assert await office.records.audit() == [
        ("ann", "add block"),
        ("ann", "add block"),
        ("bob", "lift block"),
    ]
    assert (await office.protections.add(new, "bob")).id != block.id
    with pytest.raises(NoSuch):
        await office.protections.lift(999, "ann", "x")


@pytest.mark.parametrize(
    "new",
    [
        NewBlock(BlockKind.OTHER, NOW, "s"),
        NewBlock(BlockKind.OTHER, NOW, "s", customer_id=1, point_id=1),
        NewBlock(BlockKind.OTHER, NOW, " ", customer_id=1),
        NewBlock(BlockKind.OTHER, NOW, "s", customer_id=1, until=NOW),
        NewBlock(BlockKind.OTHER, NOW.replace(tzinfo=None), "s", customer_id=1),
        NewBlock(BlockKind.OTHER, NOW, "s", customer_id=1, reason="\0"),
    ],
)
async def test_what_is_no_block(new: NewBlock) -> None:
    with pytest.raises(Unfit):
        await in_memory().protections.add(new, "ann")


@pytest.mark.database
async def test_a_block_of_nobody(database: Database, tmp_path: Path) -> None:
    office = await in_database(database, tmp_path)
    with pytest.raises(InputError, match="no such"):
        await office.protections.add(NewBlock(BlockKind.OTHER, NOW, "s", customer_id=99), "ann")


async def test_a_block_waits_for_whoever_decides_now(office: Office) -> None:
    order: list[str] = []
    inside = asyncio.Event()

    async def decides() -> None:
        async with office.store.desk(1) as desk:
            assert desk.facts.blocks == ()
            inside.set()
            await asyncio.sleep(0.1)
            order.append("decided")

    async def protects() -> None:
        await inside.wait()
        await office.protections.add(NewBlock(BlockKind.MEDICAL, NOW, "hospital", customer_id=1), "ann")
        order.append("protected")

    await asyncio.gather(decides(), protects())
    assert order == ["decided", "protected"]


async def test_keep_power_is_told_to_the_meter_and_released_only_as_a_trip_is(office: Office) -> None:
    trip = (await office.requests.accept(ask(1), "billing", "k")).command
    block = await office.protections.add(NewBlock(BlockKind.KEEP_POWER, NOW, "school", customer_id=1), "ann")
    assert (await office.found(trip.id)).state is State.SUPERSEDED
    (kept,) = (await office.facts(1)).open
    assert (kept.action, kept.state) == (Action.KEEP_POWER, State.QUEUED)
    assert await office.protections.mirror() == 0
    async with office.store.desk(1) as desk:
        kept = await step(desk, kept, State.SENDING)
        kept = await step(desk, kept, State.ACKNOWLEDGED)
        await step(desk, kept, State.VERIFIED, proof=Proof.RELAY_READ)
    refused = await office.protections.lift(block.id, "bob", "moved out")
    assert refused.block.lifted_by == "bob"
    assert [(one.action, one.state, one.why) for one in refused.released] == [
        (Action.RELEASE_KEEP_POWER, State.REFUSED, Why.NO_NOTICE)
    ]
    assert (await office.protections.lift(block.id, "bob", "moved out")).released == refused.released
    (again,) = (await office.protections.lift(block.id, "bob", "moved out", notice="N-1")).released
    assert (again.action, again.state) == (Action.RELEASE_KEEP_POWER, State.QUEUED)
    await office.requests.cancel(again.id, "bob")
    assert (await office.facts(1)).open == ()


async def test_a_release_goes_through_with_its_notice(office: Office) -> None:
    block = await office.protections.add(NewBlock(BlockKind.KEEP_POWER, NOW, "school", point_id=1), "ann")
    async with office.store.desk(1) as desk:
        kept = await step(desk, desk.facts.open[0], State.SENDING)
        kept = await step(desk, kept, State.ACKNOWLEDGED)
    early = await office.protections.lift(block.id, "bob", "moved out", notice="N-1")
    ((why, detail),) = [(one.why, one.detail) for one in early.released]
    assert (why, str(kept.id) in detail) == (Why.BLOCKED, True)

    other = await office.protections.add(NewBlock(BlockKind.KEEP_POWER, NOW, "clinic", point_id=2), "ann")
    async with office.store.desk(2) as desk:
        kept = await step(desk, desk.facts.open[0], State.SENDING)
        kept = await step(desk, kept, State.ACKNOWLEDGED)
        await step(desk, kept, State.VERIFIED, proof=Proof.RELAY_READ)
    await office.protections.lift(other.id, "bob", "closed", notice="N-2")
    (release,) = (await office.facts(2)).open
    assert (release.action, release.state, release.notice) == (
        Action.RELEASE_KEEP_POWER,
        State.QUEUED,
        "N-2",
    )
    again = await office.protections.lift(other.id, "bob", "closed", notice="N-2")
    assert [one.id for one in again.released] == [release.id]


async def test_a_block_lifted_before_its_meter_heard_of_it_leaves_nothing(office: Office) -> None:
    block = await office.protections.add(NewBlock(BlockKind.KEEP_POWER, NOW, "school", customer_id=1), "ann")
    lifted = await office.protections.lift(block.id, "ann", "the wrong one")
    assert [(one.action, one.state) for one in lifted.released] == [(Action.KEEP_POWER, State.CANCELLED)]
    assert (await office.facts(1)).open == ()


async def test_a_block_that_begins_later_is_told_later(office: Office) -> None:
    new = NewBlock(BlockKind.KEEP_POWER, NOW + HOUR, "school", customer_id=1, until=NOW + 2 * HOUR)
    await office.protections.add(new, "ann")
    await office.records.change(2, relay_kind=RelayKind.NONE)
    await office.protections.add(NewBlock(BlockKind.KEEP_POWER, NOW, "farm", customer_id=2), "ann")
    assert (await office.records.rows())["command"] == 0
    office.clock.shown = NOW + HOUR
    assert await office.protections.mirror() == 1
    assert await office.protections.mirror() == 0
    assert [one.action for one in (await office.facts(1)).open] == [Action.KEEP_POWER]
