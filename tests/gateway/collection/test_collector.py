"""The collector over scripted terminals: what is asked, filed, counted, and survived."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import date, timedelta

import pytest

from gateway.clock import frozen_at
from gateway.collection import run, tagcheck, turn
from gateway.collection.collector import Progress
from gateway.collection.course import Course
from gateway.collection.policy import Direct
from gateway.config import CollectionSettings
from gateway.errors import InputError, StorageError
from gateway.model import Due, Kind, PointRole, Reason, Source, TerminalAssets
from gateway.session.answers import FrozenAnswer
from tests.gateway.collection.world import DAY, Terminal, World, clock_at, fail, policy, row_of


def silence(terminal: Terminal, dues: Sequence[Due]) -> FrozenAnswer:
    return FrozenAnswer(failures=[fail(one, Reason.TERMINAL_SILENT) for one in dues], halve=True)


def wrong_date(terminal: Terminal, dues: Sequence[Due]) -> FrozenAnswer:
    return FrozenAnswer(failures=[fail(one, Reason.WRONG_DATE) for one in dues])


async def test_a_sweep_has_everything() -> None:
    world = World(40, 25, 1)
    world.login()
    came_to = await world.collector.collect(DAY, direct=policy())
    assert (came_to.due, came_to.collected, came_to.missing) == (66, 66, 0)
    assert (came_to.meters, came_to.meters_complete, came_to.already, came_to.stopped) == (66, 66, 0, 0)
    assert came_to.reasons == {}
    assert came_to.seconds > 0
    assert came_to.readings_per_second > 0
    assert world.database.holds(world.dues()) == 66
    assert [len(one) for one in world.terminals[0].asked] == [16, 16, 8]
    assert world.database.times_noted == 0
    assert not world.directly


async def test_few_terminals_are_planned_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(*[2] * 60)
    world.login()
    planning, most = 0, 0
    planned = run.Run._plan

    async def counted(self: run.Run, assets: TerminalAssets) -> Course:
        nonlocal planning, most
        planning += 1
        most = max(most, planning)
        try:
            await asyncio.sleep(0)
            return await planned(self, assets)
        finally:
            planning -= 1

    monkeypatch.setattr(run.Run, "_plan", counted)
    came_to = await world.collector.collect(DAY, direct=policy())
    assert (came_to.missing, planning, most) == (0, 0, run.PLANNED_AT_ONCE)


async def test_while_a_relay_command_is_under_way_few_terminals_are_planned_in_a_second() -> None:
    world = World(*[2] * 10)
    world.login()
    world.registry.relay_under_way = True
    began = asyncio.get_running_loop().time()
    came_to = await world.collector.collect(DAY, direct=policy())
    assert came_to.missing == 0
    lasted = asyncio.get_running_loop().time() - began
    assert lasted >= 10 / run.PLANNED_AT_ONCE * run.PLAN_BESIDE_RELAY_S


async def test_a_database_that_does_not_answer_holds_nobody_beyond_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Though terminals wait for each other with their plans."""
    world = World(*[2] * 40)
    world.login()

    async def away(self: run.Run, assets: TerminalAssets) -> Course:
        await asyncio.sleep(0.2)
        raise StorageError("away")

    monkeypatch.setattr(run.Run, "_plan", away)
    began = asyncio.get_running_loop().time()
    came_to = await world.collector.collect(DAY, direct=policy(longest=300.0))
    assert came_to.reasons == {Reason.STORAGE_FAILED: came_to.missing}
    assert came_to.missing == 80
    assert asyncio.get_running_loop().time() - began < 2.0


async def test_what_is_stored_is_not_asked_for() -> None:
    world = World(30)
    world.login()
    world.database.commit([row_of(one, world.clock.now()) for one in world.dues()[:20]])
    came_to = await world.collector.collect(DAY, direct=policy())
    assert (came_to.due, came_to.collected, came_to.already) == (30, 30, 20)
    assert [one.pn for request in world.terminals[0].asked for one in request] == list(range(21, 31))
    again = await world.collector.collect(DAY, direct=policy())
    assert (again.collected, again.already, again.readings_per_second) == (30, 30, 0.0)
    assert len(world.terminals[0].asked) == 1


async def test_several_days_newest_first() -> None:
    world = World(5)
    world.login()
    days = [DAY - timedelta(days=back) for back in range(7)]
    came_to = await world.collector.collect(days, direct=policy())
    assert (came_to.due, came_to.missing, came_to.meters) == (35, 0, 5)
    assert [one[0].frozen_at for one in world.terminals[0].asked] == [frozen_at(day) for day in days]


async def test_requests_are_halved_for_a_terminal_that_takes_few() -> None:
    world = World(60)
    world.login()
    world.terminals[0].largest = 5
    came_to = await world.collector.collect(DAY, direct=policy())
    assert came_to.missing == 0
    assert [len(one) for one in world.terminals[0].asked[:4]] == [16, 8, 4, 4]


async def test_the_setting_bounds_a_request() -> None:
    world = World(10, settings=CollectionSettings(points_per_request=3))
    world.login()
    await world.collector.collect(DAY, direct=policy())
    assert [len(one) for one in world.terminals[0].asked] == [3, 3, 3, 1]


async def test_one_silence_costs_one_request() -> None:
    world = World(32)
    world.login()
    world.terminals[0].script.append(silence)
    came_to = await world.collector.collect(DAY, direct=policy())
    assert came_to.missing == 0
    assert [len(one) for one in world.terminals[0].asked] == [16, 8, 8, 16]


async def test_a_silent_terminal_does_not_hold_up_the_others() -> None:
    world = World(20, 20)
    world.login()
    world.terminals[0].largest, world.terminals[0].deaf = 0, True
    came_to = await world.collector.collect(DAY, direct=policy(tries=2))
    assert (came_to.collected, came_to.missing) == (20, 20)
    assert came_to.reasons == {Reason.TERMINAL_SILENT: 20}
    assert len(world.database.failed) == 20
    assert world.database.reasons() == {Reason.TERMINAL_SILENT}
    assert world.metrics.failures[Reason.TERMINAL_SILENT]._value.get() > 0


async def test_the_terminal_is_waited_for_until_it_is_ready() -> None:
    world = World(5)
    world.login()
    world.terminals[0].ready_after = 100.0
    came_to = await world.collector.collect(DAY, direct=policy())
    assert came_to.missing == 0
    assert came_to.seconds >= 100


async def test_a_terminal_that_never_gets_ready_is_silent() -> None:
    world = World(5, clock=clock_at(speed=20_000))
    world.login()
    world.terminals[0].ready_after = 1e9
    came_to = await world.collector.collect(DAY, direct=policy(redials=1))
    assert came_to.reasons == {Reason.TERMINAL_SILENT: 5}
    assert came_to.stopped == 0


async def test_values_that_come_later_are_had_later() -> None:
    world = World(40)
    world.login()
    terminal = world.terminals[0]
    terminal.reading = True
    terminal.value_from = {3: world.clock.now() + timedelta(seconds=25)}
    came_to = await world.collector.collect(DAY, direct=policy())
    assert came_to.missing == 0
    assert terminal.states_asked >= 1
    assert world.database.failed == {}, "the reason goes when the value comes"
    assert not world.directly


async def test_a_value_the_terminal_never_gets_is_read_from_the_meter() -> None:
    world = World(10)
    world.login()
    world.terminals[0].lacks = {4: Reason.NO_VALUE_YET}
    came_to = await world.collector.collect(DAY, direct=policy())
    assert came_to.missing == 0
    assert [one.meter_id for _, one in world.directly] == [1004]
    (row,) = [row for row in world.database.rows.values() if row[0] == 1004]
    assert row[12] == Source.METER


async def test_no_direct_reads_where_none_are_wanted() -> None:
    world = World(10)
    world.login()
    world.terminals[0].lacks = {4: Reason.ARCHIVE_DIFFERS}
    came_to = await world.collector.collect(DAY, direct=False)
    assert came_to.reasons == {Reason.ARCHIVE_DIFFERS: 1}
    assert world.database.reasons() == {Reason.ARCHIVE_DIFFERS}
    assert not world.directly
    assert (came_to.meters, came_to.meters_complete) == (10, 9)


async def test_the_allowance_holds_over_collections() -> None:
    world = World(9, settings=CollectionSettings(direct_reads_per_terminal_hour=4), store_days=1)
    world.login()
    first = await world.collector.collect(DAY - timedelta(days=3), direct=policy())
    assert first.reasons == {Reason.ALLOWANCE_USED: 5}
    assert len(world.directly) == 4
    assert not world.terminals[0].asked, "past its store"
    second = await world.collector.collect(DAY - timedelta(days=3), direct=policy())
    assert second.reasons == {Reason.ALLOWANCE_USED: 5}
    assert len(world.directly) == 4


async def test_the_register_that_closes_a_month_is_the_one_that_closes_its_last_day() -> None:
    last = date(2026, 10, 31)
    world = World(2, role=PointRole.AREA_GATEWAY)
    world.login()
    world.terminals[0].lacks = {1: Reason.ARCHIVE_DIFFERS}
    came_to = await world.collector.collect(last, direct=policy())
    assert (came_to.due, came_to.missing) == (6, 0)
    kinds = {key[2] for key, row in world.database.rows.items() if row[12] == Source.METER}
    assert kinds == {Kind.DAY, Kind.MONTH}


async def test_a_wrong_date_is_never_counted_and_asked_again() -> None:
    world = World(10)
    world.login()
    terminal = world.terminals[0]
    terminal.script.append(wrong_date)
    came_to = await world.collector.collect(DAY, direct=policy(direct=Direct.NEVER))
    assert came_to.missing == 0
    assert len(terminal.asked) == 2


async def test_rows_of_another_day_do_not_count() -> None:
    """A session that hands over rows of another midnight has not answered."""
    world = World(3)
    world.login()

    def yesterday(terminal: Terminal, dues: Sequence[Due]) -> FrozenAnswer:
        older = [Due(*(one.meter_id, one.pn, one.quantity, one.kind), frozen_at(DAY) - timedelta(days=1))
                 for one in dues]  # fmt: skip
        return FrozenAnswer(rows=[row_of(one, world.clock.now()) for one in older])

    world.terminals[0].script.append(yesterday)
    came_to = await world.collector.collect(DAY, direct=policy())
    assert came_to.missing == 0
    assert len(world.terminals[0].asked) == 2
    assert world.database.holds(world.dues()) == 3


async def test_the_next_request_leaves_while_rows_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turn, "FILE_ROWS", 16)
    world = World(160)
    world.login()
    world.writer.takes = 100.0
    came_to = await world.collector.collect(DAY, direct=policy())
    assert came_to.missing == 0
    assert came_to.seconds < 8 * 100.0, "ten requests, each of whose rows commit for 100 s"
    assert world.writer.most_waiting <= 16 * turn.FILINGS_AT_ONCE, "and what waits is bounded"


async def test_rows_are_handed_over_in_bulk() -> None:
    world = World(1000, clock=clock_at(speed=1.0))
    world.login()
    world.terminals[0].takes = 0.0
    await world.collector.collect(DAY, direct=policy())
    assert world.writer.calls <= 1000 / turn.FILE_ROWS + 2


async def test_rows_the_database_refuses_are_missing_until_it_takes_them() -> None:
    world = World(20)
    world.login()
    world.writer.trouble.extend([StorageError("no room"), StorageError("no room")])
    came_to = await world.collector.collect(DAY, direct=policy())
    assert came_to.missing == 0
    assert world.database.holds(world.dues()) == 20
    world = World(20)
    world.login()
    world.writer.trouble.extend(StorageError("no room") for _ in range(50))
    came_to = await world.collector.collect(DAY, direct=policy(tries=2))
    assert (came_to.collected, came_to.reasons) == (0, {Reason.STORAGE_FAILED: 20})
    assert world.database.reasons() == {Reason.STORAGE_FAILED}


async def test_a_database_that_never_answers_is_given_up_at_the_end() -> None:
    world = World(20)
    world.login()
    world.writer.hangs = True
    came_to = await world.collector.collect(DAY, direct=policy(longest=300.0))
    assert (came_to.collected, came_to.missing) == (0, 20)
    assert came_to.reasons == {Reason.STORAGE_FAILED: 20}
    assert 300 <= came_to.seconds < 300 + 10 * turn.SETTLE_SECONDS


async def test_a_database_that_is_away_for_a_while_only_costs_time() -> None:
    world = World(40, 40)
    world.login()

    async def outage() -> None:
        while world.database.looked_up < 2:
            await world.clock.sleep(0.1)
        world.database.away = True
        await world.clock.sleep(40.0)
        world.database.away = False

    world.terminals[1].lacks = {3: Reason.DAMAGED}
    came_to, _ = await asyncio.gather(world.collector.collect(DAY, direct=policy(tries=2)), outage())
    assert came_to.reasons == {Reason.DAMAGED: 1}
    assert came_to.stopped == 0
    assert world.database.reasons() == {Reason.DAMAGED}


async def test_a_database_that_is_away_from_the_start_is_said_at_once() -> None:
    world = World(4)
    world.login()
    world.database.away = True
    with pytest.raises(StorageError, match="away"):
        await world.collector.collect(DAY, direct=policy())


async def test_a_terminal_of_our_own_mistake_does_not_stop_the_others() -> None:
    world = World(20, 20)
    world.login()

    def broken(terminal: Terminal, dues: Sequence[Due]) -> FrozenAnswer:
        raise RuntimeError("a mistake")

    world.terminals[0].script.append(broken)
    came_to = await world.collector.collect(DAY, direct=policy())
    assert (came_to.due, came_to.collected, came_to.stopped) == (40, 20, 1)
    assert came_to.reasons == {Reason.NOT_ASKED: 20}


async def test_progress_is_told_now_and_then_and_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.collection.run.PROGRESS_SECONDS", 0.02)
    world = World(64, 64, 3)
    world.login(*world.terminals[:2])
    told: list[Progress] = []
    for terminal in world.terminals:
        terminal.takes = 20.0
    await world.collector.collect(DAY, progress=told.append, direct=policy())
    assert 3 <= len(told) < 50
    assert told[-1].due == 131
    assert told[-1].done == 128
    assert told[-1].terminals._asdict() == {
        "all": 3, "working": 0, "waiting": 0, "absent": 0, "finished": 3,
    }  # fmt: skip
    assert [one.done for one in told] == sorted(one.done for one in told)
    assert any(one.terminals.working == 2 for one in told)
    assert world.metrics.collection_missing._value.get() == 3


async def test_terminals_by_name() -> None:
    world = World(5, 6, 7)
    world.login()
    came_to = await world.collector.collect(DAY, terminals=["02000002", "02000002"], direct=policy())
    assert came_to.due == 6
    with pytest.raises(InputError, match="09990000"):
        await world.collector.collect(DAY, terminals=["09990000"], direct=policy())


async def test_a_day_that_has_not_ended_is_refused() -> None:
    world = World(1)
    with pytest.raises(InputError, match="not ended"):
        await world.collector.collect(DAY + timedelta(days=1))


async def test_few_terminals_at_once_still_come_all_to_their_turn() -> None:
    world = World(*[5] * 30, settings=CollectionSettings(terminals_at_once=3))
    world.login()
    world.terminals[0].lacks = {2: Reason.DAMAGED}
    busy = most = 0

    async def watch() -> None:
        nonlocal busy, most
        while True:
            most = max(most, sum(one.busy for one in world.terminals))
            await asyncio.sleep(0)

    watcher = asyncio.create_task(watch())
    came_to = await world.collector.collect(DAY, direct=policy(tries=2))
    watcher.cancel()
    assert came_to.collected == 149
    assert most <= 3


@pytest.mark.parametrize(
    ("own", "asked"), [(True, tagcheck.AGREEMENTS), (None, tagcheck.ATTEMPTS), (False, tagcheck.ATTEMPTS)]
)
async def test_a_few_midnights_of_a_profile_are_held_beside_the_meters_own(
    own: bool | None, asked: int, capsys: pytest.CaptureFixture[str]
) -> None:
    world = World(*[3] * 12)
    world.login()
    world.own_freeze = own
    for back in range(8):
        came_to = await world.collector.collect(DAY - timedelta(days=back), direct=policy())
        assert came_to.missing == 0
        assert len(world.confirmed) <= tagcheck.AGREEMENTS * (back + 1)
    assert len(world.confirmed) == asked, "proved, or given up for this process"
    assert ("td_d_names" in capsys.readouterr().out) is (own is False)


async def test_the_meaning_of_the_tag_is_not_checked_where_no_meter_may_be_asked() -> None:
    world = World(3)
    world.login()
    await world.collector.collect(DAY, direct=False)
    assert world.confirmed == []
