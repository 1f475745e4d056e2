"""Terminals that come, go, come back, or are two; collections that are cancelled or run into each other."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta

import pytest

from gateway.collection.course import Course
from gateway.collection.turn import Filing
from gateway.config import CollectionSettings
from gateway.model import Due, ReadingRow, Reason
from gateway.session.answers import FrozenAnswer
from tests.gateway.collection.world import DAY, Terminal, World, clock_at, policy, row_of


async def test_an_absent_terminal_is_accounted_for_and_the_others_are_not_held_up() -> None:
    world = World(10, 7)
    world.login(world.terminals[0])
    came_to = await world.collector.collect(DAY, direct=policy(absent_wait=0.0))
    assert (came_to.due, came_to.collected) == (17, 10)
    assert came_to.reasons == {Reason.TERMINAL_ABSENT: 7}
    assert (came_to.meters, came_to.meters_complete) == (17, 10)
    assert world.database.reasons() == {Reason.TERMINAL_ABSENT}


async def test_a_terminal_that_logs_in_during_the_run_is_taken_up() -> None:
    world = World(10, 7)
    world.login(world.terminals[0])

    async def later() -> None:
        while not world.database.failed:
            await world.clock.sleep(1.0)
        assert world.database.reasons() == {Reason.TERMINAL_ABSENT}
        world.login(world.terminals[1])

    came_to, _ = await asyncio.gather(
        world.collector.collect(DAY, direct=policy(absent_wait=3000.0)), later()
    )
    assert (came_to.due, came_to.collected, came_to.already) == (17, 17, 0)
    assert came_to.seconds < 2000
    assert world.database.failed == {}


async def test_an_absent_terminal_that_logs_in_while_others_are_worked_is_taken_up_without_a_wait() -> None:
    world = World(160, 7)
    world.terminals[0].takes = 10.0
    world.login(world.terminals[0])

    async def later() -> None:
        await world.clock.sleep(50.0)
        world.login(world.terminals[1])

    came_to, _ = await asyncio.gather(world.collector.collect(DAY, direct=policy(absent_wait=0.0)), later())
    assert came_to.missing == 0


async def test_a_redial_in_the_middle_goes_on_where_the_line_broke() -> None:
    world = World(64)
    old = world.terminals[0]
    new = Terminal(old.assets, world.clock)
    world.login()

    def breaks(terminal: Terminal, dues: Sequence[Due]) -> FrozenAnswer:
        world.registry.drop(terminal)
        answer = terminal.usual(dues)
        return FrozenAnswer(rows=answer.rows[:5], failures=terminal.dropped(dues[5:]).failures, closed=True)

    old.script.extend([lambda terminal, dues: None, breaks])

    async def redial() -> None:
        while old.alive:
            await world.clock.sleep(1.0)
        await world.clock.sleep(15.0)
        world.registry.login(new)

    came_to, _ = await asyncio.gather(world.collector.collect(DAY, direct=policy()), redial())
    assert came_to.missing == 0
    assert [one.pn for request in new.asked for one in request] == list(range(22, 65))


async def test_a_link_that_ends_after_the_last_answer_is_not_waited_for() -> None:
    world = World(20)
    world.login()
    world.writer.takes = 50.0

    def farewell(terminal: Terminal, dues: Sequence[Due]) -> FrozenAnswer:
        world.registry.drop(terminal)
        return terminal.usual(dues)

    world.terminals[0].script.extend([lambda terminal, dues: None, farewell])
    came_to = await world.collector.collect(DAY, direct=policy(redial_wait=3000.0))
    assert came_to.missing == 0
    assert came_to.seconds < 2000


async def test_a_takeover_without_a_farewell_is_worked_on_the_new_line() -> None:
    world = World(64)
    old = world.terminals[0]
    new = Terminal(old.assets, world.clock)
    world.login()

    def taken_over(terminal: Terminal, dues: Sequence[Due]) -> FrozenAnswer:
        world.registry.login(new)
        return terminal.dropped(dues)

    old.script.append(taken_over)
    came_to = await world.collector.collect(DAY, direct=policy(redial_wait=3000.0))
    assert came_to.missing == 0
    assert len(old.asked) == 1
    assert came_to.seconds < 2000


async def test_a_session_that_ends_while_it_gets_ready_is_lost_and_not_a_cancelled_run() -> None:
    world = World(10, 10)
    old = world.terminals[0]
    world.login()

    async def ends() -> None:
        await asyncio.sleep(0)
        world.registry.drop(old)
        raise asyncio.CancelledError

    old.ready = ends  # type: ignore[method-assign]  # scripted: a session cancels what its `ready` waits for

    async def redial() -> None:
        while old.alive:
            await world.clock.sleep(1.0)
        world.registry.login(Terminal(old.assets, world.clock))

    came_to, _ = await asyncio.gather(world.collector.collect(DAY, direct=policy()), redial())
    assert (came_to.due, came_to.missing, came_to.stopped) == (20, 0, 0)


async def test_nothing_is_asked_while_it_is_not_known_whose_archive_it_is() -> None:
    world = World(10)
    world.terminals[0].doubts = 2
    world.login()
    came_to = await world.collector.collect(DAY, direct=policy())
    assert came_to.missing == 0
    assert world.terminals[0].doubts == -1
    world = World(10)
    world.terminals[0].doubts = 1000
    world.login()
    came_to = await world.collector.collect(DAY, direct=policy(redials=2))
    assert came_to.reasons == {Reason.TERMINAL_SILENT: 10}
    assert world.terminals[0].asked == []


async def test_a_terminal_lost_for_good_is_absent_and_what_was_had_stays() -> None:
    world = World(64)
    world.login()

    def breaks(terminal: Terminal, dues: Sequence[Due]) -> FrozenAnswer:
        world.registry.drop(terminal)
        return terminal.dropped(dues)

    world.terminals[0].script.extend([lambda terminal, dues: None, breaks])
    came_to = await world.collector.collect(DAY, direct=policy(redial_wait=30.0))
    assert (came_to.collected, came_to.reasons) == (16, {Reason.TERMINAL_ABSENT: 48})
    assert len(world.database.failed) == 48
    assert came_to.seconds >= 30


async def test_a_terminal_that_flaps_does_not_keep_the_run_open() -> None:
    world = World(64, clock=clock_at(speed=5000))
    terminal = world.terminals[0]
    world.login()

    def breaks(one: Terminal, dues: Sequence[Due]) -> FrozenAnswer:
        world.registry.drop(one)
        return one.dropped(dues)

    terminal.script.extend([breaks] * 1000)

    async def flap() -> None:
        while True:
            await world.clock.sleep(5.0)
            world.registry.login(terminal)

    flapping = asyncio.create_task(flap())
    came_to = await world.collector.collect(DAY, direct=policy(redials=4))
    flapping.cancel()
    assert came_to.reasons == {Reason.TERMINAL_ABSENT: 64}
    assert len(terminal.asked) <= 10


async def test_a_link_that_ends_in_a_direct_read_is_waited_for() -> None:
    world = World(4)
    terminal = world.terminals[0]
    terminal.lacks = {2: Reason.ARCHIVE_DIFFERS}
    world.login()

    async def redial() -> None:
        while len(terminal.asked) == 0:
            await world.clock.sleep(0.1)
        await world.clock.sleep(0.3)
        world.registry.drop(terminal)
        await world.clock.sleep(10.0)
        world.login()

    came_to, _ = await asyncio.gather(world.collector.collect(DAY, direct=policy()), redial())
    assert came_to.missing == 0
    assert len(world.directly) == 1


async def test_a_contested_terminal_is_not_polled() -> None:
    world = World(5, 6)
    world.login()
    world.registry.two.add(world.terminals[0].address)
    came_to = await world.collector.collect(DAY, direct=policy())
    assert came_to.reasons == {Reason.CONTESTED: 5}
    assert came_to.collected == 6
    assert world.terminals[0].asked == []
    assert world.database.reasons() == {Reason.CONTESTED}


async def test_a_terminal_that_gets_contested_is_left_alone_from_then_on() -> None:
    world = World(64)
    world.login()

    def contested(terminal: Terminal, dues: Sequence[Due]) -> None:
        terminal.contested = True

    world.terminals[0].script.append(contested)
    came_to = await world.collector.collect(DAY, direct=policy())
    assert came_to.reasons == {Reason.CONTESTED: 48}
    assert len(world.terminals[0].asked) == 1


async def test_rows_that_the_terminal_pushed_meanwhile_count() -> None:
    world = World(10)
    world.login()
    terminal = world.terminals[0]
    terminal.lacks = {3: Reason.NO_VALUE_YET}
    terminal.reading = True

    async def push() -> None:
        while not terminal.states_asked:
            await world.clock.sleep(0.1)
        world.database.commit([row_of(one, world.clock.now()) for one in world.dues() if one.pn == 3])

    came_to, _ = await asyncio.gather(world.collector.collect(DAY, direct=policy(pause=200.0)), push())
    assert (came_to.collected, came_to.missing) == (10, 0)
    assert sum(one.pn == 3 for request in terminal.asked for one in request) == 1


async def test_a_cancelled_collection_has_lost_nothing() -> None:
    world = World(*[200] * 5)
    world.login()
    for terminal in world.terminals:
        terminal.takes = 2.0
    task = asyncio.create_task(world.collector.collect(DAY, direct=policy()))
    while len(world.terminals[-1].asked) < 5:
        await world.clock.sleep(1.0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    asked = {one for terminal in world.terminals for request in terminal.asked for one in request}
    had = world.database.holds(world.dues())
    assert 0 < had < 1000
    assert had >= len(asked) - 5 * 16, "all that was answered is filed; what was on the wire may be lost"
    assert all(terminal.busy == 0 for terminal in world.terminals)
    assert world.metrics.collections_running._value.get() == 0
    came_to = await world.collector.collect(DAY, direct=policy())
    assert (came_to.missing, came_to.already) == (0, had)


async def test_a_cancelled_collection_does_not_wait_for_a_dead_database() -> None:
    world = World(64)
    world.login()
    world.writer.hangs = True
    task = asyncio.create_task(world.collector.collect(DAY, direct=policy()))
    await world.clock.sleep(20.0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        async with asyncio.timeout(8.0):
            await task


async def test_two_collections_share_a_terminal_without_meeting() -> None:
    world = World(100)
    world.login()
    both = await asyncio.gather(
        world.collector.collect(DAY, direct=policy()), world.collector.collect(DAY, direct=policy())
    )
    assert [one.missing for one in both] == [0, 0]
    asked = [one for request in world.terminals[0].asked for one in request]
    assert len(asked) == len(set(asked)) == 100, "the second found it stored"


def _counted(came_to_collected: int, world: World) -> bool:
    return came_to_collected == world.database.holds(world.dues())


async def test_a_person_does_not_wait_until_the_schedule_has_asked_all_meters() -> None:
    world = World(100, store_days=1, settings=CollectionSettings(direct_reads_per_terminal_hour=1000))
    world.login()
    slow = asyncio.create_task(world.collector.collect(DAY - timedelta(days=5), direct=policy()))
    while len(world.directly) < 20:
        await world.clock.sleep(1.0)
    quick = await world.collector.collect(DAY, direct=False)
    assert quick.missing == 0
    assert not slow.done()
    came_to = await slow
    assert came_to.missing == 0
    assert len(world.directly) == 100


class _MarksTooSoon(Filing):
    """The planted bug: a due counts as collected before its row is committed."""

    async def _file(self, rows: Sequence[ReadingRow], dues: Sequence[Due]) -> None:
        self._course.filed(dues)
        await self._writer.file(rows)


@pytest.mark.parametrize("filing", [Filing, _MarksTooSoon])
async def test_a_due_counts_only_after_its_commit(
    filing: type[Filing], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process dies (the run is cancelled) while the database commits: what was counted must be there."""
    monkeypatch.setattr("gateway.collection.turn.Filing", filing)
    monkeypatch.setattr("gateway.collection.turn.FILE_ROWS", 16)
    monkeypatch.setattr("gateway.collection.turn.CANCEL_SECONDS", 0.0)
    counted: list[int] = []

    class Watched(Course):
        def filed(self, dues: Sequence[Due]) -> None:
            super().filed(dues)
            counted.append(len(dues))

    monkeypatch.setattr("gateway.collection.run.Course", Watched)
    world = World(100)
    world.login()
    world.terminals[0].takes = 0.0
    world.writer.takes = 50.0
    task = asyncio.create_task(world.collector.collect(DAY, direct=policy()))
    await world.clock.sleep(20.0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert _counted(sum(counted), world) is (filing is Filing)


async def test_many_that_are_still_lost_at_the_end_are_each_accounted_for() -> None:
    """All of them come due in that one moment, when few are planned at once."""
    world = World(*[3] * 30)
    world.login()

    def lost(terminal: Terminal, dues: Sequence[Due]) -> FrozenAnswer:
        world.registry.drop(terminal)
        return terminal.dropped(dues)

    for terminal in world.terminals:
        terminal.script.append(lost)
    came_to = await world.collector.collect(DAY, direct=policy(longest=600.0, redial_wait=3000.0))
    assert came_to.missing == 90
    assert came_to.reasons == {Reason.TERMINAL_ABSENT: 90}
