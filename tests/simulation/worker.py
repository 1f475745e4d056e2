"""One gateway: the parts of relay control, put together as `control.station` does it, in a process that can
be paused, killed and started again on what its machine's disk holds."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import UUID

from gateway.command import Command
from gateway.control.ask import Ask
from gateway.control.batches import Batches
from gateway.control.course import Course
from gateway.control.dispatcher import Dispatcher
from gateway.control.epoch import Keeper
from gateway.control.journal import CloseJournal
from gateway.control.journal_file import JournalFile
from gateway.control.protections import Protections
from gateway.control.requests import Requests
from gateway.control.right_of_way import RightOfWay
from gateway.control.switches import Switches
from gateway.errors import LingdianError, StorageError
from tests.gateway.control.crash_folder import CrashFolder
from tests.simulation.asking import GIVES_POWER
from tests.simulation.company import MemoryEpochFile
from tests.simulation.doors import WorldDoors
from tests.simulation.process import Gone, Process, outside

if TYPE_CHECKING:
    from tests.simulation.world import World

T = TypeVar("T")

POLL_S = 30.0
JOURNAL_POLL_S = 60.0
ROUND_S = 60.0
BEAT_S = 60.0
JOURNAL_BYTES = 1 << 17
PATIENCE_S = 30.0
"""As long as somebody waits for an answer."""


class Parts:
    """What one start of a gateway is made of."""

    def __init__(self, worker: Worker) -> None:
        world = worker.world
        company, clock = world.company, world.clock
        any_clock: Any = clock  # a clock of simulated time
        rules = lambda: world.rules  # noqa: E731  # a name for the four that want it
        doors = WorldDoors(world, worker.name)
        self.known = False
        self.keeper = Keeper(
            worker.epoch_file, company.seals, company.switches, any_clock, beat_seconds=BEAT_S
        )
        self.journal = CloseJournal(
            company.store,
            doors,
            doors,
            any_clock,
            JournalFile(worker.folder, size=JOURNAL_BYTES),
            live=world.live,
            wake=lambda: self.dispatcher.wake(),
            at=worker.reach,
            poll_seconds=JOURNAL_POLL_S,
        )
        store, guarded = self.journal.store, self.journal.doors
        course = Course(
            store,
            guarded,
            any_clock,
            rules,
            ask_billing=world.ask_billing,
            clock_trusted=lambda: self.known and self.journal.opened and world.clock_trusted,
            at=worker.reach,
        )
        self.way = RightOfWay(lambda: self.dispatcher.wake())
        self.dispatcher = Dispatcher(store, guarded, course, any_clock, poll_seconds=POLL_S, way=self.way)
        wake = self.dispatcher.wake
        self.requests = Requests(store, rules, any_clock, switches=company.switches, wake=wake)
        self.batches = Batches(store, company.batches, self.requests, rules, any_clock, self.way)
        self.protections = Protections(company.blocks, self.requests, any_clock)
        self.switches = Switches(company.switches, any_clock)


class Worker:
    """crash_at, pause_at: the point at which it dies or stands still next."""

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name
        self.folder = CrashFolder()
        self.epoch_file = MemoryEpochFile()
        self.crash_at = ""
        self.pause_at: tuple[str, float] = "", 0.0
        self.stopped: BaseException | None = None
        """why it stopped by itself, which it never should"""
        self._process: Process | None = None
        self._parts: Parts | None = None
        self._coming: set[asyncio.Task[None]] = set()

    @property
    def runs(self) -> bool:
        return self._process is not None

    def start(self) -> None:
        """Begin, with nothing remembered but what is on the disk."""
        assert self._process is None
        self._process = Process()
        self._parts = Parts(self)
        self._process.spawn(self._serve(self._parts)).add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and task.exception() is not None:
            self.stopped = task.exception()

    async def _serve(self, parts: Parts) -> None:
        """As `Station.run`."""
        await self._open(parts)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._compare(parts))
            group.create_task(self._look_after(parts))
            group.create_task(parts.dispatcher.run())
            group.create_task(self._keep_journal(parts))

    async def _open(self, parts: Parts) -> None:
        try:
            await parts.journal.open()
        except StorageError:
            self.world.count("journal not read")

    async def _keep_journal(self, parts: Parts) -> None:
        while not parts.journal.opened:
            await asyncio.sleep(5.0)
            await self._open(parts)
        await parts.journal.run()

    async def _compare(self, parts: Parts) -> None:
        while not parts.known:
            try:
                held = await parts.keeper.start()
            except LingdianError:
                await asyncio.sleep(5.0)
                continue
            parts.known = True
            if held is not None:
                self.world.count("started in hold")
            parts.dispatcher.wake()
        await parts.keeper.run()

    async def _look_after(self, parts: Parts) -> None:
        while True:
            await asyncio.sleep(ROUND_S)
            try:
                await parts.requests.expire_overdue()
                await parts.protections.mirror()
                self.world.company.seals.seal_now(self.world.clock.now())
            except LingdianError:
                continue

    def wake(self) -> None:
        if self._parts is not None:
            self._parts.dispatcher.wake()

    # what others ask of it

    async def ask(self, work: Callable[[Parts], Coroutine[Any, Any, T]]) -> T:
        """What `work` comes to inside; Gone where nobody answers."""
        if self._process is None or self._parts is None:
            raise Gone
        return await self._process.call(work(self._parts), PATIENCE_S)

    async def accept(self, ask: Ask, by: str, key: str) -> tuple[UUID, Command, bool]:
        """As the interface does it: the command, and whether the journal alone has it."""

        async def work(parts: Parts) -> tuple[UUID, Command, bool]:
            if ask.verb in GIVES_POWER:
                with parts.way.closing():
                    return await kept(parts)
            await parts.way.give()
            return await kept(parts)

        async def kept(parts: Parts) -> tuple[UUID, Command, bool]:
            try:
                made = (await parts.requests.accept(ask, by, key)).command
            except StorageError as error:
                asked = replace(ask, meter_id=None)
                close = await parts.journal.accept(asked, by, key, because=error, sees_all=True)
                return close.command.id, close.command, True
            return made.id, made, False

        return await self.ask(work)

    # faults

    def reach(self, point: str) -> None:
        """The code under test is at one of its points."""
        self.world.at_point(point)
        if self.crash_at == point:
            self.crash_at = ""
            self.world.count(f"died at {point}")
            self.fall(self.world.chance.choice((1.0, 30.0, 600.0)))
            raise asyncio.CancelledError
        if self.pause_at[0] == point:
            self.pause(self.pause_at[1])
            self.pause_at = "", 0.0

    def pause(self, seconds: float) -> None:
        """The clock goes on, and nothing is done here."""
        if self._process is not None:
            self.world.count("paused")
            self._process.pause(seconds)

    def fall(self, seconds: float) -> None:
        """Die, and come back after so long."""
        task = outside(self._die_and_come_back(seconds))
        self._coming.add(task)
        task.add_done_callback(self._coming.discard)

    async def _die_and_come_back(self, seconds: float) -> None:
        await self.die()
        await asyncio.sleep(seconds)
        if not self.runs and not self.world.down:
            self.start()

    async def die(self) -> None:
        """kill -9, or the machine with it: then what was not synced is lost."""
        if self._process is None:
            return
        process, self._process, self._parts = self._process, None, None
        await process.kill()
        if self.world.chance.random() < 0.5:
            self.folder = self.folder.crash(torn=self.world.chance.random() < 0.5)

    def disk(self, full: bool) -> None:
        """Fill the machine's disk, or make room again."""

        def hook(operation: str) -> None:
            if operation in ("write", "create", "reserve"):
                self.world.count("disk full")
                raise OSError(errno.ENOSPC, "No space left on device")

        self.folder.hook = hook if full else lambda operation: None
