"""Which commands the dispatcher begins, and when: closes at once, trips when no close is on its way."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Collection
from contextlib import ExitStack, asynccontextmanager, suppress
from datetime import datetime
from typing import Any
from uuid import uuid4

from gateway.clock import Clock
from gateway.command import Action, Ref, State
from gateway.control.dispatcher import Dispatcher
from gateway.control.right_of_way import RightOfWay
from tests.gateway.session.stage import until


class Work:
    """Stands for the store, the doors and the course: each command is due until it has been begun."""

    def __init__(self, *due: Ref) -> None:
        self.refs = list(due)
        self.begun: list[Ref] = []
        self.looks = 0
        self.look_s = 0.0
        self.go_on = asyncio.Event()

    def here(self) -> frozenset[int]:
        return frozenset(ref.terminal_id for ref in self.refs)

    async def due(
        self, terminals: Collection[int], now: datetime, limit: int, skip: Collection[int] = ()
    ) -> list[Ref]:
        self.looks += 1
        await asyncio.sleep(self.look_s)
        return [
            ref
            for ref in self.refs
            if ref not in self.begun and ref.terminal_id in terminals and ref.terminal_id not in skip
        ][:limit]

    async def work(self, ref: Ref) -> None:
        self.begun.append(ref)
        await self.go_on.wait()


def ref(terminal: int, action: Action) -> Ref:
    return Ref(uuid4(), terminal, terminal, action, State.QUEUED)


@asynccontextmanager
async def dispatching(work: Work, way: RightOfWay | None = None, **more: Any) -> AsyncIterator[Dispatcher]:
    parts: Any = work
    dispatcher = Dispatcher(parts, parts, parts, Clock(), way=way, **more)
    running = asyncio.create_task(dispatcher.run())
    try:
        yield dispatcher
    finally:
        work.go_on.set()
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running


async def test_a_command_in_its_hands_is_known_as_such() -> None:
    mine = ref(1, Action.TRIP)
    work = Work(mine)
    async with dispatching(work, poll_seconds=0.01) as dispatcher:
        await until(lambda: work.begun == [mine])
        assert dispatcher.works_on(mine.id)
        assert not dispatcher.works_on(uuid4())
        work.go_on.set()
        await until(lambda: not dispatcher.under_way)
        assert not dispatcher.works_on(mine.id)


async def test_while_a_close_is_on_its_way_only_what_gives_power_back_begins() -> None:
    woken: list[Dispatcher] = []
    way = RightOfWay(lambda: woken[0].wake(), frame_s=0.01, hold_s=60.0)
    trip, release = ref(1, Action.TRIP), ref(2, Action.RELEASE_KEEP_POWER)
    close, permit, keep = ref(3, Action.CLOSE), ref(4, Action.PERMIT_CLOSE), ref(5, Action.KEEP_POWER)
    work = Work(trip, release, close, permit, keep)
    paid = ExitStack()
    paid.enter_context(way.closing())
    # Nobody wakes it but the way: its own next look comes in a minute.
    async with dispatching(work, way, poll_seconds=60.0) as dispatcher:
        woken.append(dispatcher)
        await until(lambda: len(work.begun) == 3)
        await asyncio.sleep(0.05)
        assert work.begun == [close, permit, keep]
        paid.close()
        await until(lambda: len(work.begun) == 5)
        assert set(work.begun[3:]) == {trip, release}


async def test_trips_that_give_way_are_not_looked_for_over_and_over() -> None:
    way = RightOfWay(hold_s=60.0)
    work = Work(*(ref(terminal, Action.TRIP) for terminal in range(1, 5)))
    with way.closing():
        async with dispatching(work, way, at_once=2, poll_seconds=60.0):
            await until(lambda: work.looks > 0)
            await asyncio.sleep(0.3)
            assert (work.begun, work.looks) == ([], 1)


async def test_looks_that_take_long_take_half_of_the_time_at_most() -> None:
    work = Work()
    work.refs = [ref(1, Action.TRIP)]
    work.look_s = 0.1
    began = time.monotonic()
    async with dispatching(work, poll_seconds=60.0) as dispatcher:
        while time.monotonic() - began < 1.0:
            dispatcher.wake()
            await asyncio.sleep(0.001)
    assert 2 <= work.looks <= 7


async def test_where_more_is_due_than_fits_the_rest_is_looked_for_soon() -> None:
    work = Work(*(ref(terminal, Action.TRIP) for terminal in range(1, 6)))
    work.go_on.set()
    async with dispatching(work, at_once=2, poll_seconds=60.0):
        await until(lambda: len(work.begun) == 5)
