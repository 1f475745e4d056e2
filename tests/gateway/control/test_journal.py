"""Closes while the database is away: kept, sent, and handed over, each under its key, before any trip."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from gateway.command import Action, State, Why
from gateway.control.ask import Ask, KeyReused, Unfit
from gateway.control.course import Course
from gateway.control.journal import CloseJournal
from gateway.control.journal_file import JournalFile
from gateway.errors import StorageError
from gateway.model import PointRole, TerminalAssets
from tests.gateway.control.bench import NOW
from tests.gateway.control.office import Office, ask
from tests.gateway.control.outage import AWAY, M1, Logins, MadeLogin, Outage, dark
from tests.gateway.control.test_policy import FACTS


async def test_a_close_is_kept_sent_and_handed_over() -> None:
    outage = await dark(Outage())
    kept = await outage.keep()
    assert (kept.command.state, kept.meter, kept.terminal, kept.new) == (
        State.REQUESTED,
        "M1",
        "02000001",
        True,
    )
    assert kept.command.id.hex.encode() in outage.folder.durable().replace(b"-", b"")
    await outage.work_journal()
    assert not outage.relay.opened
    assert len(outage.door.written) == 1
    shown = outage.journal.find(kept.command.id)
    assert shown is not None
    assert shown.command.state is State.ACKNOWLEDGED
    await outage.back()
    filed = outage.only()
    assert (filed.id, filed.state, filed.attempts) == (kept.command.id, State.ACKNOWLEDGED, 1)
    assert filed.created_at == kept.command.created_at
    assert filed.frame_hash == outage.door.written[0][1]
    done = await outage.work_until(filed.id, State.VERIFIED)
    assert done.energised_at is not None
    assert len(outage.door.written) == 1
    assert outage.states(filed.id) == ["requested", "queued", "sending", "acknowledged", "verified"]
    told = [
        body for body, _ in outage.store.kept.rows[filed.id].events if body["kind"].startswith("journal: ")
    ]
    kinds = [body["kind"].removeprefix("journal: ") for body in told]
    assert kinds[:4] == ["accepted", "writing", "heard", "read"]
    assert told[1]["evidence"]["sha256"] == filed.frame_hash.hex()
    assert told[1]["evidence"]["at"] < told[1]["at"]
    await outage.journal.file_all()
    assert outage.journal.find(kept.command.id) is not None


async def test_what_cannot_wait_for_nobody_else_is_turned_away_as_before() -> None:
    outage = await dark(Outage())
    for verb in (Action.TRIP, Action.RELEASE_KEEP_POWER, Action.KEEP_POWER, Action.ALARM):
        with pytest.raises(StorageError) as raised:
            await outage.keep(verb)
        assert raised.value is AWAY
    with pytest.raises(StorageError) as raised:
        await outage.keep(sees_all=False)
    assert raised.value is AWAY
    for unknown in ("M2", "000000000001"):
        with pytest.raises(StorageError, match="behind no connected terminal"):
            await outage.keep(meter=unknown)
    outage.known.made.append(MadeLogin(TerminalAssets(2, "02000002", "", (M1,))))
    with pytest.raises(StorageError, match="more than one place"):
        await outage.keep()
    outage.known.made[1].alive = False
    with pytest.raises(Unfit, match="expire"):
        await outage.keep(expires_at=outage.clock.now())
    with pytest.raises(Unfit):
        await outage.keep(key="with space")
    with pytest.raises(Unfit):
        await outage.keep(cause="x" * 201)
    assert outage.journal.open_entries == 0
    await outage.keep()
    gateway = Outage(FACTS, replace(M1, role=PointRole.AREA_GATEWAY))
    await gateway.start()
    with pytest.raises(Unfit):
        await gateway.keep()
    past = Outage(FACTS, replace(M1, valid_to=NOW))
    await past.start()
    with pytest.raises(StorageError):
        await past.keep()


async def test_a_key_is_one_close_before_within_and_after_an_outage() -> None:
    outage = await dark(Outage())
    first, *others = await asyncio.gather(*(outage.keep() for _ in range(5)))
    assert {one.command.id for one in others} == {first.command.id}
    assert [first.new, *(one.new for one in others)].count(True) == 1
    with pytest.raises(KeyReused):
        await outage.keep(cause="another")
    assert (await outage.keep(by="somebody else")).command.id != first.command.id
    await outage.work_journal()
    await outage.back()
    again = await outage.requests.accept(Ask(1, "M1", Action.CLOSE, cause="paid"), "billing", "k1", trace="")
    assert (again.command.id, again.new) == (first.command.id, False)
    with pytest.raises(KeyReused):
        await outage.requests.accept(Ask(1, "M1", Action.CLOSE), "billing", "k1")
    frames = len(outage.door.written)
    outage.away = True
    await outage.crash()
    assert (await outage.keep()).command.id == first.command.id
    with pytest.raises(KeyReused):
        await outage.keep(cause="another")
    await outage.work_journal()
    assert len(outage.door.written) == frames


async def test_a_trip_that_waited_before_the_outage_is_not_sent_after_it() -> None:
    outage = Outage()
    await outage.start()
    trip = await outage.accept(Action.TRIP)
    outage.away = True
    await outage.keep()
    outage.away = False  # and nothing was handed over yet
    (ref,) = await outage.store.due({1}, outage.clock.now(), 1)
    assert ref.id == trip
    await outage.course.work(ref)
    assert outage.command(trip).state is State.SUPERSEDED
    assert outage.door.written == []
    await outage.work_until(outage.only().id, State.VERIFIED)
    assert outage.relay.obeyed == [Action.CLOSE]
    assert outage.only().intent > outage.command(trip).intent


async def test_a_trip_that_is_about_to_leave_does_not_pass_a_close_that_comes() -> None:
    outage = Outage()
    await outage.start()
    trip = await outage.accept(Action.TRIP)
    clock: Any = outage.clock
    # Its desk was opened before the close came: so only the look beside the write can stop it.
    before = Course(outage.store, outage.journal.doors, clock, lambda: outage.rules)
    await outage.keep()
    await outage.work(before)
    assert outage.door.written == []
    assert (outage.command(trip).state, outage.command(trip).why) == (State.QUEUED, Why.NEWER_INTENT)
    await outage.back()
    assert outage.command(trip).state is State.SUPERSEDED


async def test_a_trip_that_is_asked_for_after_the_outage_finds_the_close() -> None:
    outage = await dark(Outage())
    await outage.keep()
    with pytest.raises(StorageError):
        await outage.requests.accept(Ask(1, "M1", Action.TRIP, "arrears", "N-1"), "billing", "k2")
    outage.away = False
    said = await outage.requests.accept(Ask(1, "M1", Action.TRIP, "arrears", "N-1"), "billing", "k2")
    assert (said.command.state, said.command.why) == (State.REFUSED, Why.OPEN_CLOSE)
    (close,) = (row.command for row in outage.store.kept.rows.values() if row.key == "k1")
    assert (close.state, close.intent) == (State.QUEUED, said.command.intent - 1)


async def test_nothing_is_filed_while_an_exchange_is_under_way() -> None:
    outage = await dark(Outage())
    await outage.keep()
    outage.away = False
    (entry,) = outage.journal.due()
    seen: list[bool] = []
    outage.door.before_write = lambda: seen.append(entry.busy)

    entry.busy = True
    with pytest.raises(StorageError, match="just now"):
        await outage.journal.file_meter(1)
    entry.busy = False
    await outage.journal.work(entry)
    assert seen == [True]
    await outage.back()
    assert outage.only().state is State.ACKNOWLEDGED


async def test_it_runs_by_itself() -> None:
    outage = await dark(Outage())
    woken = asyncio.Event()
    outage.journal._wake_others = woken.set
    running = asyncio.create_task(outage.journal.run())
    kept = await outage.keep()
    async with asyncio.timeout(5):
        while outage.relay.opened:  # noqa: ASYNC110  # the meter tells nobody
            await asyncio.sleep(0.01)
        assert outage.journal.holds(1)
        outage.away = False
        await woken.wait()
    assert outage.command(kept.command.id).state is State.ACKNOWLEDGED
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


async def test_over_either_store(office: Office) -> None:
    trip = (await office.requests.accept(ask(1), "billing", "t1")).command
    outage = Outage()
    clock: Any = office.clock
    outage.clock = outage.relay.clock = outage.door.clock = office.clock
    outage.relay.opened = outage.relay.trip_ordered = True
    outage.known = Logins(replace(M1, meter="M000001"))
    journal = CloseJournal(
        office.store,
        outage.doors,
        outage.known,
        clock,
        JournalFile(outage.folder),
        live=lambda terminal_id: True,
    )
    await journal.open()
    wanted = ask(None, Action.CLOSE, cause="paid", notice="")
    wanted = replace(wanted, meter="M000001")
    kept = await journal.accept(wanted, "billing", "k1", because=AWAY, sees_all=True)
    (entry,) = journal.due()
    outage.relay.deaf = 1
    await journal.work(entry)
    for entry in journal.due():
        await journal.work(entry)
    assert await journal.file_all()
    assert (await office.found(trip.id)).state is State.SUPERSEDED
    filed = await office.found(kept.command.id)
    assert filed.state is State.UNCERTAIN
    assert (filed.frame_hash, filed.attempts) == (outage.door.written[-1][1], 1)
    assert (filed.created_at, filed.sent_at) == (kept.command.created_at, entry.sent_at)
    before = await office.records.rows()
    again = CloseJournal(
        office.store,
        outage.doors,
        outage.known,
        clock,
        JournalFile(outage.folder.crash()),
        live=lambda terminal_id: True,
    )
    await again.open()
    assert await again.file_all()
    assert await office.records.rows() == before
    accepted = await office.requests.accept(replace(wanted, meter_id=1), "billing", "k1")
    assert (accepted.command.id, accepted.new) == (kept.command.id, False)


async def test_a_database_that_hangs_holds_up_no_close(monkeypatch: pytest.MonkeyPatch) -> None:
    outage = await dark(Outage())
    hangs = asyncio.Event()

    async def known(requester: str, idempotency_key: str) -> None:
        hangs.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(outage.store, "known", known)
    running = asyncio.create_task(outage.journal.run())
    await outage.keep()
    async with asyncio.timeout(5):
        await hangs.wait()
        while outage.relay.opened:  # noqa: ASYNC110  # the meter tells nobody
            await asyncio.sleep(0.01)
    assert len(outage.door.written) == 1
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
