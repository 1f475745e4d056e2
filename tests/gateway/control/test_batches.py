"""Batches: the dry run, held whole and approved whole, and going on after a crash; over both stores."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import replace
from datetime import timedelta
from typing import Any, TypeVar
from uuid import uuid4

import pytest

from gateway.command import PLACE_LASTS, Action, BlockKind, Limits, State, Why
from gateway.control.ask import KeyReused, NoSuch, NotNow, NotYou, Unfit
from gateway.control.batches import LONGEST
from gateway.control.right_of_way import RightOfWay
from gateway.control.stores import step
from gateway.errors import StorageError
from gateway.storage.blocks import NewBlock
from tests.gateway.control.bench import NOW
from tests.gateway.control.memory import MemoryCommands
from tests.gateway.control.office import Office, ask, in_memory

T = TypeVar("T")


def limited(office: Office, area: int = 50, requester: int = 500, all: int = 500) -> None:
    office.rules = replace(office.rules, limits=Limits(area, requester, all))


async def test_a_dry_run_names_everybody_and_writes_nothing(office: Office) -> None:
    limited(office, area=1)
    await office.protections.add(NewBlock(BlockKind.MEDICAL, NOW, "hospital", customer_id=3), "ann")
    before = await office.records.rows()
    asks = [ask(1), ask(2), ask(3), ask(4, notice=""), ask(None), ask(1), ask(99)]
    answer = await office.batches.dry_run(asks, "billing")
    assert await office.records.rows() == before
    assert [line.customer for line in answer.dark] == ["C1", "C2"]
    assert [(line.meter, line.why) for line in answer.refused] == [
        ("M000003", Why.BLOCKED),
        ("M000004", Why.NO_NOTICE),
        ("nowhere", Why.UNKNOWN_METER),
        ("M000001", None),
        ("M000099", Why.UNKNOWN_METER),
    ]
    assert all(line.detail or line.why is not None for line in answer.refused)
    assert "hospital" in answer.refused[0].detail
    assert "twice" in answer.refused[3].detail
    assert (answer.batch, answer.lines) == (None, ())
    assert answer.over == ("area 1: 0 + 2 > 1",)


async def test_a_batch_within_the_limits_is_sent(office: Office) -> None:
    asks = [ask(1), ask(2, verb="restore"), ask(3, notice=""), ask(None)]
    answer = await office.batches.accept(asks, "billing", "b-1", trace="t")
    assert not answer.held
    assert [(line.action, line.state, line.why) for line in answer.lines] == [
        (Action.TRIP, State.QUEUED, None),
        (Action.CLOSE, State.QUEUED, None),
        (Action.TRIP, State.REFUSED, Why.NO_NOTICE),
        (None, None, Why.UNKNOWN_METER),
    ]
    assert [line.dark for line in answer.lines] == [True, False, False, False]
    assert answer.batch is not None
    for line in answer.lines[:3]:
        assert line.command is not None
        assert (await office.found(line.command)).batch == answer.batch
    assert await office.batches.accept(asks, "billing", "b-1") == answer
    assert await office.batches.answer(answer.batch) == answer
    assert (await office.records.rows())["command"] == 3
    with pytest.raises(KeyReused):
        await office.batches.accept(asks[:3], "billing", "b-1")
    with pytest.raises(NotNow):
        await office.batches.approve(answer.batch, "carol")


async def test_a_batch_over_a_limit_is_held_whole_and_approved_whole(office: Office) -> None:
    limited(office, area=2, all=2)
    await office.protections.add(NewBlock(BlockKind.BANK_LOCK, NOW, "bank", point_id=4), "ann")
    asks = [ask(1), ask(2, verb=Action.CLOSE), ask(3), ask(4)]
    assert not (await office.batches.dry_run(asks, "billing")).held
    limited(office, area=2, all=1)
    answer = await office.batches.accept(asks, "billing", "b-1")
    assert answer.over == ("all: 0 + 2 > 1",)
    assert [(line.state, line.why) for line in answer.lines] == [
        (State.HELD, Why.OVER_LIMIT),
        (State.QUEUED, None),
        (State.HELD, Why.OVER_LIMIT),
        (State.REFUSED, Why.BLOCKED),
    ]
    assert [line.customer for line in answer.dark] == ["C1", "C3"]
    assert answer.batch is not None
    assert await office.store.due([1, 2], office.clock.now(), 10) != []
    assert {ref.action for ref in await office.store.due([1, 2], office.clock.now(), 10)} == {Action.CLOSE}
    one = answer.lines[0].command
    assert one is not None
    with pytest.raises(NotNow, match="as a whole"):
        await office.requests.approve(one, "carol")
    with pytest.raises(NotYou):
        await office.batches.approve(answer.batch, "billing")
    done = await office.batches.approve(answer.batch, "carol")
    assert [command.state for command in done] == [State.QUEUED] * 3 + [State.REFUSED]
    assert [command.approver for command in done] == ["carol", "", "carol", ""]
    assert await office.batches.approve(answer.batch, "carol") == done
    with pytest.raises(NoSuch):
        await office.batches.approve(uuid4(), "carol")


async def test_while_a_close_is_on_its_way_trips_of_a_batch_are_not_begun() -> None:
    office = replace(in_memory(), way=RightOfWay(frame_s=0.0, hold_s=60.0))
    limited(office, area=1)

    def gone(point: str, meter_id: int) -> None:
        if point == "before commit":
            raise StorageError("gone")

    async def waits(work: Coroutine[Any, Any, T]) -> T:
        """What `work` comes to once the close has left, and not before."""
        with office.way.closing():
            task = asyncio.create_task(work)
            await asyncio.sleep(0.05)
            assert not task.done()
        return await task

    asks = [ask(1), ask(2)]
    assert len((await waits(office.batches.dry_run(asks, "billing"))).dry_run) == 2
    assert isinstance(office.store, MemoryCommands)
    office.store.hook = gone
    with pytest.raises(StorageError):  # so that only the commands are left to be made
        await office.batches.accept(asks, "billing", "b-1")
    office.store.hook = lambda point, meter_id: None
    answer = await waits(office.batches.accept(asks, "billing", "b-1"))
    assert answer.batch is not None
    assert answer.held
    assert {one.state for one in await waits(office.batches.approve(answer.batch, "carol"))} == {State.QUEUED}


async def test_a_batch_of_closes_does_not_give_way_to_itself() -> None:
    office = replace(in_memory(), way=RightOfWay(hold_s=60.0))
    asks = [ask(1, verb=Action.CLOSE), ask(2, verb="restore"), ask(3, verb=Action.PERMIT_CLOSE)]
    async with asyncio.timeout(10.0):
        with office.way.closing():  # as its request does
            answer = await office.batches.accept(asks, "billing", "b-1")
    assert [line.verb for line in answer.lines] == ["close", "restore", "permit-close"]


async def test_what_has_left_counts_against_a_batch(office: Office) -> None:
    limited(office, area=2, requester=3, all=4)
    made = await office.requests.accept(ask(1), "billing", "k")
    await office.store.take_place(made.command, 1, Limits())
    assert (await office.batches.dry_run([ask(2)], "billing")).over == ()
    assert (await office.batches.dry_run([ask(2), ask(3), ask(4)], "another")).over == ()
    limited(office, area=1, requester=2, all=3)
    assert (await office.batches.dry_run([ask(2), ask(3), ask(4)], "billing")).over == (
        "area 1: 1 + 1 > 1",
        "area 2: 0 + 2 > 1",
        "requester: 1 + 3 > 2",
        "all: 1 + 3 > 3",
    )
    office.clock.shown += timedelta(hours=1) + PLACE_LASTS
    assert (await office.batches.dry_run([ask(2), ask(3)], "billing")).over == ()


@pytest.mark.parametrize("dies", range(1, 5))
async def test_a_batch_goes_on_where_it_stopped(dies: int) -> None:
    office = in_memory()
    assert isinstance(office.store, MemoryCommands)
    limited(office, area=1)
    commits = 0

    def hook(point: str, meter_id: int) -> None:
        nonlocal commits
        commits += point == "before commit"
        if point == "before commit" and commits == dies:
            raise StorageError("gone")

    office.store.hook = hook
    asks = [ask(meter_id) for meter_id in (1, 2, 3, 4)]
    with pytest.raises(StorageError):
        await office.batches.accept(asks, "billing", "b")
    assert (await office.records.rows())["command"] == dies - 1
    batch = await office.batch_store.known("billing", "b")
    assert batch is not None
    with pytest.raises(NotNow, match="not complete"):
        await office.batches.approve(batch.id, "carol")
    limited(office)  # what was decided for the batch holds for all of it
    answer = await office.batches.accept(asks, "billing", "b")
    assert [line.state for line in answer.lines] == [State.HELD] * 4
    assert (await office.records.rows())["command"] == 4


async def test_a_batch_is_taken_back(office: Office) -> None:
    asks = [ask(meter_id) for meter_id in (1, 2, 3)]
    answer = await office.batches.accept(asks, "billing", "b")
    assert answer.batch is not None
    assert answer.lines[1].command is not None
    async with office.store.desk(2) as desk:
        await step(desk, desk.facts.open[0], State.SENDING)
    done = await office.batches.cancel(answer.batch, "ann", "wrong list")
    assert [one.state for one in done] == [State.CANCELLED, State.SENDING, State.CANCELLED]


@pytest.mark.parametrize(
    "asks", [[], [ask()] * (LONGEST + 1), [ask(label="\0")]], ids=["none", "many", "NUL"]
)
async def test_what_is_no_batch(asks: list[Any]) -> None:
    office = in_memory()
    with pytest.raises(Unfit):
        await office.batches.accept(asks, "billing", "b")
    assert await office.batch_store.known("billing", "b") is None


async def test_in_shadow_mode_nobody_really_goes_dark(office: Office) -> None:
    await office.switches.shadow(True, 1, "ann", "again")
    answer = await office.batches.dry_run([ask(1)], "billing")
    assert [(line.dark, line.shadow) for line in answer.dry_run] == [(True, True)]
