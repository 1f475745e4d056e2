"""All of relay control of one process, put together: what the interface asks of it, and what runs behind."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Final

import structlog
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gateway.clock import Clock
from gateway.control.batches import Batches
from gateway.control.course import Course
from gateway.control.dispatcher import Dispatcher, doors_of, plain_frames
from gateway.control.epoch import DatabaseSeals, EpochFile, Keeper
from gateway.control.gates import AskBilling, billing_not_asked
from gateway.control.journal import CloseJournal
from gateway.control.journal_file import JournalError, JournalFile
from gateway.control.policy import Rules
from gateway.control.protections import Protections
from gateway.control.requests import Requests
from gateway.control.right_of_way import RightOfWay
from gateway.control.switches import Switches
from gateway.control.tickets import Tickets
from gateway.control.watch import watch
from gateway.door import Sealing
from gateway.errors import LingdianError
from gateway.metrics import Metrics
from gateway.session.reading_ports import ReadingPorts
from gateway.session.registry import Registry
from gateway.session.settings import MeterProfile
from gateway.storage import relay_evidence
from gateway.storage.batches import RelayBatches
from gateway.storage.blocks import ControlBlocks
from gateway.storage.chain import Sealer
from gateway.storage.commands import Commands
from gateway.storage.database import Database
from gateway.storage.live_terminals import LiveTerminals
from gateway.storage.port_pauses import PortPauses
from gateway.storage.switches import ControlSettings

log = structlog.get_logger()

ROUND_SECONDS: Final = 5.0
"""Between two looks for commands that have expired unsent and for blocks that meters were not told of."""

START_AGAIN_SECONDS: Final = 5.0
"""As long as it is not known whether this database is the one that was left, or the journal is not read."""


class Station:
    """Built once; `open` it before anybody is served, `run` it as long as the gateway serves."""

    def __init__(
        self,
        database: Database,
        registry: Registry,
        clock: Clock,
        rules: Callable[[], Rules],
        epoch: EpochFile,
        journal: JournalFile,
        metrics: Metrics,
        ticket_key: Ed25519PrivateKey,
        *,
        profile: Callable[[str], MeterProfile],
        sealing: Sealing | None = None,
        ask_billing: AskBilling = billing_not_asked,
        clock_trusted: Callable[[], bool] = lambda: True,
    ) -> None:
        """profile: how meters of that profile are switched. ticket_key: signs tickets for direct lines."""
        # Whoever waits for these holds a channel or a caller: a silent database must not hold them, too.
        prompt = database.within()
        commands = Commands(prompt, clock, happened=metrics.relay_happened)
        switches = ControlSettings(prompt)
        self._clock = clock
        self._known = False
        self._keeper = Keeper(epoch, DatabaseSeals(database), switches, clock)
        self._sealer = Sealer(database, clock, on_sealed=self._keeper.on_sealed)
        self._ports = ReadingPorts(registry, PortPauses(prompt), clock)
        doors = doors_of(registry, clock, sealing, self._ports)
        self._live = LiveTerminals(prompt, clock, here=doors.here)
        self.journal = CloseJournal(
            commands,
            doors,
            registry,
            clock,
            journal,
            live=self._live.live,
            wake=lambda: self._dispatcher.wake(),
            written=lambda command: metrics.relay_frame(command, clock.now()),
        )
        metrics.watch_journal(lambda: self.journal.open_entries, lambda: self.journal.damaged_lines)
        # From here on nobody decides or opens a door past the journal.
        store, guarded = self.journal.store, self.journal.doors

        def trusted() -> bool:
            return self._known and self.journal.opened and clock_trusted()

        course = Course(
            store,
            guarded,
            clock,
            rules,
            ask_billing=ask_billing,
            clock_trusted=trusted,
            written=lambda command: metrics.relay_frame(command, clock.now()),
        )
        self.way = RightOfWay(lambda: self._dispatcher.wake(), registry.turnstile.giving_way)
        self._dispatcher = Dispatcher(store, guarded, course, clock, way=self.way)
        self._watch = partial(watch, partial(relay_evidence.oldest, database), metrics, clock)
        registry.on_login(lambda session: self._dispatcher.wake())
        registry.on_login(lambda session: self._live.wake())
        self.requests = Requests(
            store,
            rules,
            clock,
            switches=switches,
            wake=self._dispatcher.wake,
            wake_at=self._dispatcher.wake_at,
        )
        self.tickets = Tickets(
            store,
            clock,
            rules,
            ticket_key,
            plain_frames(profile),
            partial(relay_evidence.happened, prompt),
            works_on=self._dispatcher.works_on,
            ask_billing=ask_billing,
            clock_trusted=trusted,
            wake=self._dispatcher.wake,
        )
        self.batches = Batches(store, RelayBatches(database), self.requests, rules, clock, self.way)
        self.blocks = Protections(ControlBlocks(database), self.requests, clock)
        self.switches = Switches(switches, clock)

    async def open(self) -> None:
        """Read the journal. Where that cannot be the gateway serves all the same: trips wait, since any meter
        may have a close in it, and without the database no close is kept; `run` tries again."""
        try:
            await self.journal.open()
        except JournalError as error:
            log.error("trips wait: the close journal cannot be read", error=str(error))

    async def run(self) -> None:
        """Work until cancelled. Trips wait until the epoch file has been compared and the journal has been
        read, closes do not."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._begin())
            group.create_task(self._sealer.run())
            group.create_task(self._ports.run())
            group.create_task(self._look_after())
            group.create_task(self._watch())
            group.create_task(self._dispatcher.run())
            group.create_task(self._live.run())
            group.create_task(self._keep_journal())

    async def _begin(self) -> None:
        while not self._known:
            try:
                held = await self._keeper.start()
            except (LingdianError, OSError) as error:
                log.error(
                    "trips wait: it is not known whether this database is the one that was left",
                    error=str(error),
                )
                await self._clock.sleep(START_AGAIN_SECONDS)
                continue
            self._known = True
            if held is not None:
                log.warning("earlier trips are on hold until a person releases them", reason=held)
            self._dispatcher.wake()
        await self._keeper.run()

    async def _keep_journal(self) -> None:
        while not self.journal.opened:
            await self._clock.sleep(START_AGAIN_SECONDS)
            await self.open()
        await self.journal.run()

    async def _look_after(self) -> None:
        while True:
            await self._clock.sleep(ROUND_SECONDS)
            try:
                await self.requests.expire_overdue()
                await self.blocks.mirror()
            except LingdianError as error:
                log.warning("relay commands are not looked after now", error=str(error))
