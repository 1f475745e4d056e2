"""While the database is away a close is kept in a journal on this machine, sent from there, and handed over
to the database when it is back.

Only what gives power back: whatever takes it away fails closed. Once a close is kept, no trip of its meter is
written here any more: every door looks for it beside the write, and every desk files it before anything else
is decided there, in the order in which things were accepted. The database has the last word: what the journal
has seen of the relay is evidence, the proof is read again by the ordinary rules.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from typing import Final, NamedTuple, Protocol
from uuid import UUID, uuid4
from weakref import WeakValueDictionary

import structlog

from gateway.clock import Clock
from gateway.command import Action, Command, MeterFacts, Why, canonical
from gateway.control import journal_entries as entries
from gateway.control import policy
from gateway.control.ask import RESTORE, Ask, KeyReused, Unfit, check_key, check_text
from gateway.control.course import nowhere, uncounted
from gateway.control.journal_entries import Entry
from gateway.control.journal_file import JournalError, JournalFile, Record
from gateway.control.journal_filing import Filing
from gateway.control.journal_guards import FilingStore, GuardedDoors
from gateway.control.journal_sending import Sending
from gateway.control.proof import later
from gateway.control.stores import CommandStore
from gateway.door import Doors
from gateway.errors import LingdianError, StorageError
from gateway.model import TerminalAssets

log = structlog.get_logger()

POLL_SECONDS: Final = 1.0
"""Between two looks for closes to send, and the first pause after the database was not there."""

LONGEST_PAUSE_SECONDS: Final = 10.0
"""Between two tries to reach the database."""

AT_ONCE: Final = 64
"""Exchanges under way at one time, one at a terminal."""

ROOM_FOR_WORK: Final = 4096
"""Bytes that are kept free for each close that was accepted: what is done for it has to be kept, too."""

KEYS_KEPT: Final = timedelta(days=7)
KEYS_MOST: Final = 2000
"""How long, and for how many closes that are in the database, the keys are remembered here as well."""

FAILURES: Final = 3
"""Meters in a row whose closes could not be filed: then it is the database, and not the meter."""

LONGEST_AHEAD: Final = timedelta(days=31)

SESSIONS_AT_ONCE: Final = 200
"""Logins that are searched for a meter before others have their turn."""


class Login(Protocol):
    """A terminal that is connected."""

    @property
    def alive(self) -> bool: ...

    @property
    def assets(self) -> TerminalAssets:
        """As they were when it logged in, or since."""
        ...


class Known(Protocol):
    """What is known of meters without the database."""

    def sessions(self) -> Iterable[Login]: ...


class Kept(NamedTuple):
    """A close that is durable, as it can be shown. new: False where its key was kept before."""

    command: Command
    meter: str
    address: str
    terminal: str
    new: bool


class CloseJournal:
    """Built once; `open` it before anything is sent, and `run` it beside the dispatcher."""

    def __init__(
        self,
        store: CommandStore,
        doors: Doors,
        known: Known,
        clock: Clock,
        file: JournalFile,
        *,
        live: Callable[[int], bool],
        wake: Callable[[], None] = lambda: None,
        at: Callable[[str], None] = nowhere,
        written: Callable[[Command], None] = uncounted,
        at_once: int = AT_ONCE,
        poll_seconds: float = POLL_SECONDS,
    ) -> None:
        """live: is this terminal known for certain to be out of shadow mode? Otherwise its closes are kept,
        and wait for the database. wake: there is something new in the database. at, written: see `Course`.
        """
        self._database = store
        self._doors = doors
        self._known = known
        self._clock = clock
        self._file = file
        self._live = live
        self._wake_others = wake
        self._at_once = at_once
        self._poll_seconds = poll_seconds
        self._sending = Sending(clock, self._keep, at, written)
        self._filing = Filing(store, clock, at)
        self._entries: dict[UUID, Entry] = {}
        self._by_key: dict[tuple[str, str], Entry] = {}
        self._coming: dict[tuple[str, str], tuple[bytes, asyncio.Task[Entry]]] = {}
        self._of_meter: dict[int, list[Entry]] = {}
        self._unmarked: set[UUID] = set()
        self._doubted: dict[UUID, None] = {}
        """filed before this start: a database that was restored since may have lost them"""
        self._under_way: dict[int, asyncio.Task[None]] = {}
        self._filing_of: WeakValueDictionary[int, asyncio.Lock] = WeakValueDictionary()
        self._disk = asyncio.Lock()
        self.opened = False
        """Was the file read? Before that nobody knows which meters have a close in it."""
        self._woken = asyncio.Event()
        self._to_file = asyncio.Event()
        self.damaged_lines = 0
        """in the file, when it was opened: what they said is lost"""
        self.store: CommandStore = FilingStore(store, self)
        """for everybody else: nothing is decided past a close that is in the journal"""
        self.doors: Doors = GuardedDoors(doors, self)
        """for everybody else: no trip is written past one"""

    @property
    def open_entries(self) -> int:
        """Closes that the database does not have yet."""
        return sum(len(some) for some in self._of_meter.values())

    async def open(self) -> None:
        """Read the file. JournalError where it cannot be read: then nothing is accepted, and `open` may be
        called again. One that can only not be written holds what it holds; what cannot be kept is told to
        whoever wants it kept."""
        loaded = await asyncio.to_thread(self._file.load)
        self.damaged_lines = loaded.damaged
        for record in loaded.records:
            self._load(record)
        for entry in self._entries.values():
            if entry.filed is None:
                self._of_meter.setdefault(entry.facts.meter_id, []).append(entry)
            else:
                self._doubted[entry.id] = None
        self._forget()
        self.opened = True
        try:
            async with self._disk:
                await asyncio.to_thread(self._file.rewrite, self._wanted())
        except JournalError as error:
            log.error("no close can be kept without the database now", error=str(error))
        if self.open_entries:
            log.warning("closes in the journal wait for the database", closes=self.open_entries)

    def _load(self, record: Record) -> None:
        try:
            if record["kind"] == entries.ACCEPTED:
                entry = entries.begun(record)
                self._entries[entry.id] = self._by_key[entry.by, entry.key] = entry
            else:
                self._entries[UUID(record["id"])].take(record)
        except (KeyError, ValueError, TypeError, IndexError) as error:
            self.damaged_lines += 1
            log.error(
                "a line of the close journal is not understood", line=str(record)[:300], error=str(error)
            )

    # accepting

    async def accept(
        self, ask: Ask, by: str, key: str, *, because: StorageError, sees_all: bool, trace: str = ""
    ) -> Kept:
        """Keep a close that the database could not take; it is durable when this returns.

        `because` is raised for what takes power away and whatever else has to wait for the database, and for
        a caller who may not see everything: whose meter it is cannot be known now. StorageError with its own
        words where the meter is not to be found here or the journal cannot keep it; Unfit, KeyReused.
        """
        if ask.verb not in (RESTORE, Action.CLOSE, Action.PERMIT_CLOSE) or not sees_all:
            raise because
        check_key(key)
        self._check(ask)
        if not self.opened:  # what it holds would be written over
            raise JournalError(
                "the database is away, and the close journal could not be read 复电日志无法读取: see the"
                " gateway's log, then ask again with the same key"
            )
        body_hash = hashlib.sha256(canonical(ask.body())).digest()
        new = False
        if (entry := self._by_key.get((by, key))) is not None:
            was = entry.body_hash
        else:
            coming = self._coming.get((by, key))
            if new := coming is None:
                task = asyncio.create_task(self._accept(ask, by, key, body_hash, trace))
                coming = self._coming[by, key] = body_hash, task
                task.add_done_callback(lambda done: self._arrived((by, key), done))
            assert coming is not None
            was = coming[0]
            if was == body_hash:
                # Whoever asked may go away meanwhile: what is half written is written to its end.
                entry = await asyncio.shield(coming[1])
        if was != body_hash or entry is None:
            raise KeyReused("this idempotency key made another close 幂等键已用于其他请求")
        return self._shown(entry, new)

    def find(self, command_id: UUID) -> Kept | None:
        """A close in the journal, by the number that `accept` gave or by that of its command."""
        entry = self._entries.get(command_id)
        if entry is None:
            entry = next((one for one in self._entries.values() if one.filed == command_id), None)
        return None if entry is None else self._shown(entry, False)

    @staticmethod
    def _shown(entry: Entry, new: bool) -> Kept:
        facts = entry.facts
        return Kept(entry.command(), facts.meter, facts.address, facts.terminal, new)

    def _check(self, ask: Ask) -> None:
        for name in ("meter", "cause", "notice", "customer", "caused_by", "work_order", "label"):
            check_text(name, getattr(ask, name))
        if ask.expires_at is not None:
            raise Unfit(None, f"a {ask.verb} does not expire 该命令无有效期")
        if ask.not_before is not None:
            if ask.not_before.tzinfo is None:
                raise Unfit(None, "not_before needs a zone 时间缺少时区")
            if ask.not_before > self._clock.now() + LONGEST_AHEAD:
                raise Unfit(None, f"not_before is more than {LONGEST_AHEAD.days} days ahead 时间过远")

    def _arrived(self, key: tuple[str, str], task: asyncio.Task[Entry]) -> None:
        del self._coming[key]
        if not task.cancelled():
            task.exception()  # whoever waits has it; nobody may be waiting any more

    async def _accept(self, ask: Ask, by: str, key: str, body_hash: bytes, trace: str) -> Entry:
        facts = await self._find(ask.meter)
        now = self._clock.now()
        entry = Entry(
            uuid4(), now, ask, by, key, body_hash, trace, facts, look_at=max(now, ask.not_before or now)
        )
        # From here on no trip of this meter is written, whatever becomes of the line.
        self._of_meter.setdefault(facts.meter_id, []).append(entry)
        try:
            await self._keep(entry, entries.first_line(entry), leave=ROOM_FOR_WORK * self.open_entries)
        except BaseException:
            self._drop(entry)
            raise
        log.warning("a close is in the journal", command=str(entry.id), meter=facts.meter, by=by)
        self._woken.set()
        self._to_file.set()
        return entry

    async def _find(self, number: str) -> MeterFacts:
        """The meter of this asset number, behind one terminal that is connected."""
        now = self._clock.now()
        found: list[MeterFacts] = []
        for place, login in enumerate(self._known.sessions()):
            if place % SESSIONS_AT_ONCE == SESSIONS_AT_ONCE - 1:
                await asyncio.sleep(0)
            if login.alive:
                found += [
                    entries.facts_of(login.assets, point)
                    for point in login.assets.points
                    if point.meter == number and point.holds_at(now)
                ]
        if len(found) != 1:
            where = "behind no connected terminal" if not found else "at more than one place"
            raise StorageError(
                f"the database is away, and meter {number} is {where} 数据库不可用且无法定位该表: try again"
                " later, with its asset number (an address alone is not enough now)"
            )
        if found[0].role not in policy.DARKENS:
            raise Unfit(Why.NOT_CUSTOMER, number)
        return found[0]

    # what everybody else has to respect

    def holds(self, meter_id: int) -> bool:
        """Is there a close of this meter that the database does not have?"""
        return meter_id in self._of_meter

    async def file_meter(self, meter_id: int) -> None:
        """Hand the closes of this meter to the database, in their order. StorageError where that cannot be
        now."""
        if not self.holds(meter_id):
            return
        async with self._filing_of.setdefault(meter_id, asyncio.Lock()):
            for entry in list(self._of_meter.get(meter_id, ())):
                if entry.id not in self._entries:
                    raise StorageError("a close of this meter is being written to the journal; try again")
                command_id = await self._filing.file(entry)
                self._drop(entry)
                try:
                    await self._mark(entry, command_id)
                except JournalError as error:  # the database has it: that is what counts
                    self._unmarked.add(entry.id)
                    log.error("a close that is filed cannot be marked so", error=str(error))
                log.info("a close from the journal is in the database", command=str(command_id))
        self._wake_others()

    async def _mark(self, entry: Entry, command_id: UUID) -> None:
        entry.filed = command_id
        now = self._clock.now()
        await self._keep(entry, entry.line(entries.FILED, now, {"command": str(command_id)}))
        self._forget()

    def _drop(self, entry: Entry) -> None:
        mine = self._of_meter[entry.facts.meter_id]
        mine.remove(entry)
        if not mine:
            del self._of_meter[entry.facts.meter_id]

    def _forget(self) -> None:
        """Keys of what has long been in the database."""
        done = [entry for entry in self._entries.values() if entry.filed_at is not None]
        oldest = self._clock.now() - KEYS_KEPT
        for place, entry in enumerate(done):
            if len(done) - place > KEYS_MOST or (entry.filed_at is not None and entry.filed_at < oldest):
                del self._entries[entry.id]
                del self._by_key[entry.by, entry.key]

    # the file

    async def _keep(self, entry: Entry, record: Record, *, leave: int = 0) -> None:
        """`record` is durable, and part of its entry. JournalError."""
        await asyncio.shield(asyncio.create_task(self._append(entry, record, leave)))

    async def _append(self, entry: Entry, record: Record, leave: int) -> None:
        async with self._disk:
            if not self._file.fits(record, leave):
                await asyncio.to_thread(self._file.rewrite, self._wanted())
                if not self._file.fits(record, leave):
                    raise JournalError(
                        f"the close journal is full ({self._file.used} bytes) 复电日志已满: the database must"
                        " come back first"
                    )
            await asyncio.to_thread(self._file.append, record)
            entry.take(record)
            if record["kind"] == entries.ACCEPTED:
                self._entries[entry.id] = self._by_key[entry.by, entry.key] = entry

    def _wanted(self) -> list[Record]:
        return [record for entry in self._entries.values() for record in entry.kept()]

    # working

    async def run(self) -> None:
        """Send and file for as long as this runs; exchanges that are under way then end first. `open` it
        before."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._send_on())
                group.create_task(self._file_on())
        finally:
            if under_way := list(self._under_way.values()):
                await asyncio.shield(asyncio.wait(under_way))

    def due(self) -> list[Entry]:
        """Closes that want something done at a meter now, one for each terminal, the oldest first."""
        now, here = self._clock.now(), self._doors.here()
        found: dict[int, Entry] = {}
        for entry in sorted((one for some in self._of_meter.values() for one in some), key=_age):
            terminal = entry.facts.terminal_id
            if (
                entry.id in self._entries
                and not entry.filing
                and entry.look_at is not None
                and entry.look_at <= now
                and terminal in here
                and terminal not in self._under_way
                and terminal not in found
                and self._live(terminal)
            ):
                found[terminal] = entry
        return list(found.values())

    async def work(self, entry: Entry) -> None:
        """Do what is due for this close. JournalError: it stays due."""
        async with self._doors.open(entry.door_facts()) as door:
            if entry.filing or entry not in self._of_meter.get(entry.facts.meter_id, ()):
                return
            if door is None:
                entry.look_at = later(entry.sent_at, self._clock.now())
                return
            entry.busy = True
            try:
                await self._sending.work(entry, door)
            finally:
                entry.busy = False

    async def file_all(self) -> bool:
        """Hand over whatever can be; False where something could not."""
        try:
            await self._take_back_what_is_lost()
        except StorageError as error:
            log.warning("closes that were filed cannot be looked up", error=str(error))
            return False
        failed = 0
        for meter_id in list(self._of_meter):
            try:
                await self.file_meter(meter_id)
                failed = 0
            except StorageError as error:
                failed += 1
                log.warning("a close stays in the journal", meter_id=meter_id, error=str(error))
                if failed == FAILURES:
                    return False
        for entry_id in list(self._unmarked):
            if (entry := self._entries.get(entry_id)) is not None and entry.filed is not None:
                try:
                    await self._mark(entry, entry.filed)
                except JournalError:
                    return False
            self._unmarked.discard(entry_id)
        return not self._of_meter

    async def _take_back_what_is_lost(self) -> None:
        """What was filed after the backup that the database was restored from is handed over once more:
        billing is asked for the closes since that backup, and gave these before it. StorageError."""
        for entry_id in list(self._doubted):
            entry = self._entries.get(entry_id)
            filed = None if entry is None else entry.filed
            if entry is not None and filed is not None and await self._database.command(filed) is None:
                log.error("the database has lost a close that was filed", command=str(filed))
                entry.filed = entry.filed_at = None
                self._of_meter.setdefault(entry.facts.meter_id, []).append(entry)
            self._doubted.pop(entry_id, None)

    async def _send_on(self) -> None:
        while True:
            self._woken.clear()
            for entry in self.due()[: self._at_once - len(self._under_way)]:
                self._under_way[entry.facts.terminal_id] = asyncio.create_task(
                    self._work(entry), name=f"close {entry.id}"
                )
            await self._wait(self._woken, self._poll_seconds)

    async def _work(self, entry: Entry) -> None:
        try:
            await self.work(entry)
        except LingdianError as error:
            log.warning("a close in the journal is put off", command=str(entry.id), error=str(error))
            entry.look_at = later(entry.sent_at, self._clock.now())
        except Exception:  # one close's trouble must not stop all others
            log.exception("a close in the journal stopped", command=str(entry.id))
            entry.look_at = later(entry.sent_at, self._clock.now())
        finally:
            self._under_way.pop(entry.facts.terminal_id, None)
            self._woken.set()

    async def _file_on(self) -> None:
        pause = self._poll_seconds
        while True:
            self._to_file.clear()
            try:
                filed = await self.file_all()
            except Exception:  # whatever it was, the closes are still in the journal and are tried again
                log.exception("closes cannot be filed")
                filed = False
            pause = self._poll_seconds if filed else min(2 * pause, LONGEST_PAUSE_SECONDS)
            await self._wait(self._to_file, pause)

    async def _wait(self, event: asyncio.Event, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds / self._clock.speed):
                await event.wait()
        except TimeoutError:
            pass


def _age(entry: Entry) -> datetime:
    return entry.at
