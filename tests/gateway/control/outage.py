"""A bench with a journal, whose database can be away."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal
from uuid import UUID

from gateway.command import Action, Command, MeterFacts
from gateway.control.ask import Ask
from gateway.control.course import Course
from gateway.control.journal import CloseJournal, Kept, Known, Login
from gateway.control.journal_file import JournalFile
from gateway.control.requests import Requests
from gateway.door import Answer, NotWritten, Prepared, Trouble
from gateway.errors import StorageError
from gateway.model import MeterClass, Point, PointRole, TerminalAssets
from tests.gateway.control.bench import Bench, BenchDoor
from tests.gateway.control.crash_folder import CrashFolder
from tests.gateway.control.office import MemorySwitches
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
