"""Closes while the database is away: kept, sent, and handed over, whatever dies in between."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal
from uuid import UUID

import pytest

from gateway.command import Action, Command, MeterFacts, NotInstalled, State, Why
from gateway.control.ask import Ask, KeyReused, Unfit
from gateway.control.course import Course
from gateway.control.journal import CloseJournal, Kept, Known, Login
from gateway.control.journal_entries import MOST_RECORDS
from gateway.control.journal_file import JournalError, JournalFile
from gateway.control.requests import Requests
from gateway.door import Answer, NotWritten, Prepared, Trouble
from gateway.errors import StorageError
from gateway.model import MeterClass, Point, PointRole, RelayKind, TerminalAssets
from tests.gateway.control.bench import NOW, Bench, BenchDoor
from tests.gateway.control.crash_folder import CrashFolder, full_disk
from tests.gateway.control.office import MemorySwitches, Office, ask
from tests.gateway.control.test_policy import FACTS

if TYPE_CHECKING:
    from gateway.session.registry import Registry

    def registry_will_do(registry: Registry) -> Known:
        return registry


MINUTE = timedelta(minutes=1)
AWAY = StorageError("the database is away")
M1 = Point(
    1, 1, "M1", "000000000001", "dlt645-2007", MeterClass.SINGLE_PHASE, PointRole.CUSTOMER, 4, 31, 1, 1, "",
    None, None,
)  # fmt: skip

Verb = Literal["restore"] | Action


class Died(Exception):
    """The process is no more."""


@dataclass
class MadeLogin:
    """Satisfies `Login`."""

    assets: TerminalAssets
    alive: bool = True


class Logins:
    """Satisfies `Known`."""

    def __init__(self, *points: Point) -> None:
        self.made = [MadeLogin(TerminalAssets(1, "02000001", "", points))]

    def sessions(self) -> Iterable[Login]:
        return list(self.made)


class WatchedDoor(BenchDoor):
    """Looks beside each write whether the frame's hash is durable."""

    outage: Outage

    async def write(
        self, prepared: Prepared, last_check: Callable[[], Trouble | None]
    ) -> Awaitable[Answer] | NotWritten:
        written = await super().write(prepared, last_check)
        if not isinstance(written, NotWritten):
            rows = self.outage.store.kept.rows.values()
            kept = any(row.command.frame_hash == prepared.sha256 for row in rows)
            assert kept or prepared.sha256.hex().encode() in self.outage.folder.durable()
            return asyncio.ensure_future(written)  # it has left, whether or not anybody waits for the answer
        return written


class Outage(Bench):
    """The bench with a journal, and a database that can be away."""

    def __init__(self, facts: MeterFacts = FACTS, *points: Point) -> None:
        super().__init__(facts)
        door = WatchedDoor(self.relay, self.clock)
        door.outage = self
        self.door = self.doors.door = door
        self.folder = CrashFolder()
        self.known = Logins(*(points or (M1,)))
        self.live = True
        self.away = False
        self.store.hook = self._hook
        self.journal = self._journal()

    def _hook(self, point: str, meter_id: int) -> None:
        if self.away:
            raise StorageError("the database is away")

    def _journal(self, at: Callable[[str], None] = lambda point: None, size: int = 1 << 20) -> CloseJournal:
        clock: Any = self.clock
        journal = CloseJournal(
            self.store,
            self.doors,
            self.known,
            clock,
            JournalFile(self.folder, size=size),
            live=lambda terminal_id: self.live,
            at=at,
            poll_seconds=0.01,
        )
        self.course = Course(journal.store, journal.doors, clock, lambda: self.rules)
        switches = MemorySwitches(self.store)
        self.requests = Requests(journal.store, lambda: self.rules, clock, switches=switches)
        return journal

    async def start(self, at: Callable[[str], None] = lambda point: None, size: int = 1 << 20) -> None:
        """A process begins on what the disk holds."""
        self.journal = self._journal(at, size)
        await self.journal.open()

    async def crash(self, *, torn: bool = False) -> None:
        self.folder = self.folder.crash(torn=torn)
        await self.start()

    async def keep(self, verb: Verb = Action.CLOSE, key: str = "k1", **told: Any) -> Kept:
        """What the interface does while the database is away."""
        asked: dict[str, Any] = {"meter_id": None, "meter": "M1", "verb": verb, "cause": "paid"}
        by = told.pop("by", "billing")
        sees_all = told.pop("sees_all", True)
        return await self.journal.accept(Ask(**(asked | told)), by, key, because=AWAY, sees_all=sees_all)

    async def work_journal(self, minutes: int = 60) -> None:
        """Do what is due at the meter, moving the clock from one thing to the next."""
        end = self.clock.shown + minutes * MINUTE
        while self.clock.shown < end:
            for entry in self.journal.due():
                await self.journal.work(entry)
            if not self.journal.due():
                waits = [
                    entry.look_at for entry in self.journal._entries.values() if entry.look_at is not None
                ]
                self.clock.shown = max(min(waits, default=end), self.clock.shown + timedelta(seconds=1))

    async def back(self) -> None:
        """The database is there again, and what is in the journal is handed over."""
        self.away = False
        assert await self.journal.file_all()
        assert self.journal.open_entries == 0

    def only(self) -> Command:
        """The one command that gives power back."""
        (one,) = (row.command for row in self.store.kept.rows.values() if row.command.action != Action.TRIP)
        return one

    def kinds(self, command_id: UUID) -> list[str]:
        return [body["kind"] for body, _ in self.store.kept.rows[command_id].events]


async def dark(outage: Outage) -> Outage:
    """The household was tripped, then the database went away."""
    outage.relay.opened = outage.relay.trip_ordered = True
    await outage.start()
    outage.away = True
    return outage


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


async def test_a_restore_lets_the_customer_close_until_the_database_says_more() -> None:
    outage = await dark(Outage())
    outage.relay.button_pressed = False
    kept = await outage.keep("restore")
    assert kept.command.action is Action.PERMIT_CLOSE
    await outage.work_journal()
    assert outage.relay.obeyed == [Action.PERMIT_CLOSE]
    assert outage.relay.opened
    await outage.back()
    assert (outage.only().action, outage.only().state) == (Action.CLOSE, State.QUEUED)
    await outage.work_until(kept.command.id, State.VERIFIED)
    assert outage.relay.obeyed == [Action.PERMIT_CLOSE, Action.CLOSE]
    permitted = await dark(Outage(replace(FACTS, restore_mode="permit")))
    kept = await permitted.keep("restore")
    await permitted.work_journal()
    await permitted.back()
    assert (permitted.only().action, permitted.only().state) == (Action.PERMIT_CLOSE, State.ACKNOWLEDGED)


async def test_silence_is_read_before_anything_is_repeated() -> None:
    outage = await dark(Outage())
    outage.relay.mute = 1
    await outage.keep()
    await outage.work_journal()
    assert len(outage.door.written) == 1
    lost = await dark(Outage())
    lost.relay.deaf = 1
    await lost.keep()
    await lost.work_journal()
    assert len(lost.door.written) == 2
    assert not lost.relay.opened


async def test_what_can_be_cured_is_cured_and_no_direct_close_becomes_a_permission() -> None:
    outage = await dark(Outage())
    outage.relay.refuses = [Why.NOT_AUTHENTICATED, Why.DEADLINE]
    await outage.keep()
    (entry,) = outage.journal.due()
    await outage.journal.work(entry)
    assert not outage.relay.opened
    old = await dark(Outage())
    old.relay.refuses = [Why.NOT_SUPPORTED]
    kept = await old.keep()
    await old.work_journal(1)
    assert [action for action, _ in old.door.written] == [Action.CLOSE, Action.PERMIT_CLOSE]
    old.relay.refuses = [Why.NOT_SUPPORTED]
    await old.back()
    assert (old.command(kept.command.id).action, old.command(kept.command.id).state) == (
        Action.CLOSE,
        State.QUEUED,
    )
    await old.work_until(kept.command.id, State.SUPERSEDED)


async def test_a_refused_close_goes_to_the_field_when_the_database_is_back() -> None:
    outage = await dark(Outage())
    outage.relay.refuses = [Why.REFUSED_BY_METER]
    kept = await outage.keep()
    (entry,) = outage.journal.due()
    await outage.journal.work(entry)
    await outage.back()
    assert outage.only().state is State.FIELD
    assert outage.store.kept.field_orders == {1: kept.command.id}
    await outage.work_until(kept.command.id, State.VERIFIED)
    assert outage.store.kept.field_orders == {}


async def test_a_meter_that_does_not_obey_is_not_hammered() -> None:
    outage = await dark(Outage())
    outage.relay.deaf = 10_000
    await outage.keep()
    await outage.work_journal(10)
    same = Bench()
    same.relay.opened = same.relay.trip_ordered = True
    same.relay.deaf = 10_000
    close = await same.accept(Action.CLOSE)
    with suppress(AssertionError):
        await same.work_until(close, State.VERIFIED, within=10 * MINUTE)
    assert 3 <= len(outage.door.written) <= len(same.door.written) + 1
    await outage.work_journal(3 * 24 * 60)
    (entry,) = outage.journal._of_meter[1]
    assert len(entry.records) <= MOST_RECORDS + 2
    frames = len(outage.door.written)
    await outage.work_journal(24 * 60)
    assert len(outage.door.written) == frames
    outage.relay.deaf = 0
    await outage.back()
    await outage.work_until(outage.only().id, State.VERIFIED)


async def test_a_trip_that_may_still_be_obeyed_is_waited_for() -> None:
    outage = await dark(Outage())
    outage.relay.opened = outage.relay.trip_ordered = False
    await outage.keep()
    await outage.work_journal(5)
    assert len(outage.door.written) == 1  # sent, although the relay was closed
    outage.relay.opened = outage.relay.trip_ordered = True  # an older trip has come at last
    await outage.work_journal(20)
    assert len(outage.door.written) == 2
    assert not outage.relay.opened
    (entry,) = outage.journal._of_meter[1]
    assert entry.look_at is None


async def test_nothing_leaves_where_shadow_mode_may_be_on() -> None:
    outage = await dark(Outage(replace(FACTS, shadow=True)))
    outage.live = False
    kept = await outage.keep()
    await outage.work_journal()
    assert outage.door.written == []
    await outage.back()
    await outage.work_until(kept.command.id, State.CANCELLED)
    assert outage.door.written == []


async def test_a_terminal_that_is_gone_and_a_frame_that_did_not_leave() -> None:
    outage = await dark(Outage())
    outage.door.fails_to_write = True
    kept = await outage.keep()
    await outage.work_journal(1)
    assert outage.door.written == []
    outage.doors.door = None
    await outage.work_journal(1)
    await outage.back()
    assert outage.only().state is State.QUEUED
    assert "journal: not written" in outage.kinds(kept.command.id)
    assert outage.only().attempts == 0


async def test_a_close_waits_for_its_time() -> None:
    outage = await dark(Outage())
    await outage.keep(not_before=outage.clock.now() + 30 * MINUTE)
    assert outage.journal.due() == []
    await outage.crash()
    assert outage.journal.due() == []
    outage.clock.shown += 31 * MINUTE
    assert len(outage.journal.due()) == 1


async def test_a_meter_without_relay_or_without_place_is_not_forgotten() -> None:
    outage = await dark(Outage(replace(FACTS, relay_kind=RelayKind.NONE)))
    await outage.keep()
    await outage.back()
    assert (outage.only().state, outage.only().why) == (State.CANCELLED, Why.NO_RELAY)
    gone = await dark(Outage())
    await gone.keep()
    gone.away = False
    facts = gone.store.meters.pop(1)
    assert not await gone.journal.file_all()
    with pytest.raises(NotInstalled):
        await gone.journal.file_meter(1)
    gone.store.meters[1] = facts
    await gone.back()


async def test_a_close_whose_meter_was_taken_away_meanwhile_is_a_persons() -> None:
    outage = await dark(Outage(replace(FACTS, installed=False)))
    await outage.keep()
    await outage.back()
    filed = await outage.work_until(outage.only().id, State.FIELD)
    assert (filed.why, outage.door.written) == (Why.NOT_INSTALLED, [])


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
