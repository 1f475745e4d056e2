"""No close is lost or doubled, whatever dies between its request and its place in the database."""

from __future__ import annotations

from contextlib import suppress

import pytest

from gateway.command import Action, State
from gateway.control.ask import Ask
from gateway.control.journal_file import JournalError
from gateway.errors import StorageError
from tests.gateway.control.crash_folder import full_disk
from tests.gateway.control.outage import Outage, dark


class Died(Exception):
    """The process is no more."""


@pytest.mark.parametrize("torn", [False, True])
@pytest.mark.parametrize("deaf", [0, 1])
@pytest.mark.parametrize("point", ["writing kept", "written", "heard", "heard kept", "filed", None])
async def test_nothing_is_lost_or_doubled_wherever_it_dies(point: str | None, deaf: int, torn: bool) -> None:
    outage = Outage()
    outage.relay.opened = outage.relay.trip_ordered = True
    outage.relay.deaf = deaf
    trip = await outage.accept(Action.TRIP)
    hit: list[str] = []

    def dies(here: str) -> None:
        if here == point:
            hit.append(here)
            raise Died(here)

    await outage.start(dies)
    outage.away = True
    kept = await outage.keep()
    with suppress(Died):
        await outage.work_journal(2)
    if point != "filed":
        assert hit == [point] * (point is not None)
        await outage.crash(torn=torn)
        await outage.work_journal(30)
    outage.away = False
    if point == "filed":
        with pytest.raises(Died):
            await outage.journal.file_all()
        events = outage.kinds(kept.command.id)
        await outage.crash(torn=torn)
        assert outage.journal.open_entries == 1
        await outage.back()
        assert outage.kinds(kept.command.id) == events
    await outage.back()
    done = await outage.work_until(kept.command.id, State.VERIFIED)
    assert outage.only().id == done.id
    assert outage.command(trip).state is State.SUPERSEDED
    assert outage.relay.obeyed[0] is Action.CLOSE
    assert Action.TRIP not in outage.relay.obeyed
    assert len(outage.relay.obeyed) == 1
    assert not outage.relay.opened
    assert not outage.journal.holds(1)


async def test_a_close_that_was_not_durable_was_never_promised() -> None:
    outage = await dark(Outage())
    outage.folder.hook = full_disk
    with pytest.raises(JournalError, match="No space left on device"):
        await outage.keep()
    assert not outage.journal.holds(1)
    outage.folder.hook = lambda operation: None
    kept = await outage.keep()
    await outage.crash()
    assert outage.journal.find(kept.command.id) is not None


async def test_a_frame_whose_hash_cannot_be_kept_does_not_leave() -> None:
    outage = await dark(Outage())
    await outage.keep()
    outage.folder.hook = full_disk
    (entry,) = outage.journal.due()
    with pytest.raises(JournalError):
        await outage.journal.work(entry)
    assert outage.door.written == []
    outage.folder.hook = lambda operation: None
    await outage.work_journal(2)
    assert not outage.relay.opened


async def test_a_full_journal_takes_no_more_closes_and_works_those_it_has() -> None:
    outage = Outage()
    outage.relay.opened = outage.relay.trip_ordered = True
    await outage.start(size=20_000)
    outage.away = True
    taken = 0

    async def keep_many() -> None:
        nonlocal taken
        for number in range(100):
            await outage.keep(key=f"k{number}")
            taken += 1

    with pytest.raises(JournalError, match="full"):
        await keep_many()
    assert 2 <= taken <= 20
    await outage.work_journal(30)
    assert not outage.relay.opened
    assert len(outage.folder.durable()) == 20_000
    await outage.back()
    await outage.keep(key="new")


async def test_the_same_journal_twice_changes_nothing() -> None:
    outage = await dark(Outage())
    kept = await outage.keep()
    await outage.work_journal(2)
    before = outage.folder.crash()
    await outage.back()
    events = outage.kinds(kept.command.id)
    outage.folder = before
    await outage.start()
    assert outage.journal.open_entries == 1
    await outage.back()
    assert outage.kinds(kept.command.id) == events
    assert len(outage.store.kept.rows) == 1


async def test_a_lost_commit_does_not_double_the_close() -> None:
    outage = await dark(Outage())
    kept = await outage.keep()
    await outage.work_journal(2)
    lost: list[str] = []

    def hook(point: str, meter_id: int) -> None:
        if point == "after commit" and not lost:
            lost.append(point)
            raise StorageError("the answer to COMMIT was lost")

    outage.store.hook = hook
    assert not await outage.journal.file_all()
    assert outage.journal.holds(1)
    events = outage.kinds(kept.command.id)
    assert await outage.journal.file_all()
    assert outage.kinds(kept.command.id) == events
    assert lost


async def test_a_request_that_had_reached_the_database_stays_one_command() -> None:
    outage = await dark(Outage())
    outage.away = False
    known = await outage.requests.accept(Ask(1, "M1", Action.CLOSE, cause="paid"), "billing", "k1")
    outage.away = True  # and its answer was lost
    kept = await outage.keep()
    await outage.work_journal(2)
    await outage.back()
    only = outage.only()
    assert only.id == known.command.id != kept.command.id
    assert only.frame_hash == outage.door.written[0][1]
    shown = outage.journal.find(kept.command.id)
    assert shown is not None
    assert shown.command.id == only.id
    await outage.work_until(only.id, State.VERIFIED)
    assert len(outage.door.written) == 1


async def test_another_close_under_the_same_key_is_not_lost() -> None:
    outage = await dark(Outage())
    outage.away = False
    known = await outage.requests.accept(Ask(1, "M1", Action.CLOSE, cause="other"), "billing", "k1")
    await outage.work_until(known.command.id, State.VERIFIED)
    outage.relay.opened = outage.relay.trip_ordered = True
    outage.away = True
    kept = await outage.keep()
    await outage.work_journal(2)
    await outage.back()
    assert outage.store.kept.rows[kept.command.id].key == f"journal {kept.command.id}"
    await outage.work_until(kept.command.id, State.VERIFIED)
    await outage.crash()
    assert outage.journal.open_entries == 0


async def test_a_close_that_was_not_sent_yet_outlives_a_file_that_is_written_anew() -> None:
    outage = await dark(Outage())
    first = await outage.keep()
    outage.folder.hook = full_disk
    with pytest.raises(JournalError):
        await outage.keep(key="k2")
    outage.folder.hook = lambda operation: None
    second = await outage.keep(key="k2")  # the file is not trusted any more: it is written anew
    await outage.crash()
    assert [outage.journal.find(one.command.id) is not None for one in (first, second)] == [True, True]
    assert outage.journal.open_entries == 2
    await outage.back()
    assert {row.command.id for row in outage.store.kept.rows.values()} == {
        first.command.id,
        second.command.id,
    }
