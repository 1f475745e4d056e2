"""The company's database in simulated time: commands, batches, switches, blocks and seals, all in memory; it
can be away, answer nothing to COMMIT, lose its connections, and come back from a backup."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from gateway.command import MeterFacts
from gateway.control.epoch import Epoch
from gateway.errors import StorageError
from gateway.storage.chain import Seal, sealed
from gateway.storage.switches import Setting
from tests.gateway.control.memory import Kept, MemoryCommands
from tests.gateway.control.office import MemoryBatches, MemoryBlocks, MemorySwitches
from tests.simulation.loop import VirtualClock

SLOW_MOST_S = 0.3
LOCK_TIMEOUT_S = 5.0
"""As the gateway's own: `gateway.storage.database.PROMPT_SECONDS`."""

SealedEvents = tuple[tuple[UUID, int, bytes], ...]


class MemorySeals:
    """Satisfies `control.epoch.Seals`. covers: what each seal is over: command, number and hash of events."""

    def __init__(self, store: MemoryCommands) -> None:
        self._store = store
        self.seals: list[Seal] = []
        self.covers: list[SealedEvents] = []
        self._sealed_of: dict[UUID, int] = {}

    def seal_now(self, at: datetime) -> None:
        """One seal over what is not sealed yet. StorageError."""
        self._store.hook("seal", 0)
        new = tuple(
            (command_id, n, hashed)
            for command_id, row in self._store.kept.rows.items()
            if len(row.events) > self._sealed_of.get(command_id, 0)
            for n, (_, hashed) in enumerate(row.events, 1)
            if n > self._sealed_of.get(command_id, 0)
        )
        if not new:
            return
        for command_id, n, _ in new:
            self._sealed_of[command_id] = n
        before = self.seals[-1].digest if self.seals else b""
        number = len(self.seals) + 1
        digest = sealed(before, number, at, [(n, hashed) for _, n, hashed in new])
        self.seals.append(Seal(number, at, digest))
        self.covers.append(new)

    def forget_after(self, seals: int) -> None:
        """As a restored database has them."""
        del self.seals[seals:], self.covers[seals:]
        self._sealed_of = {command_id: n for some in self.covers for command_id, n, _ in some}

    async def newest(self) -> Seal | None:
        self._store.hook("read", 0)
        return self.seals[-1] if self.seals else None

    async def seal(self, seal_id: int) -> Seal | None:
        self._store.hook("read", 0)
        return self.seals[seal_id - 1] if 0 < seal_id <= len(self.seals) else None

    async def commands_exist(self) -> bool:
        self._store.hook("read", 0)
        return bool(self._store.kept.rows)


class MemoryEpochFile:
    """Satisfies `control.epoch.EpochFile`: on a machine's own disk."""

    def __init__(self) -> None:
        self.kept: Epoch | None = None

    async def load(self) -> Epoch | None:
        return self.kept

    async def keep(self, epoch: Epoch) -> None:
        await asyncio.sleep(0.01)
        self.kept = epoch


@dataclass
class Backup:
    """The database as it was at an instant."""

    at: datetime
    kept: Kept
    batches: dict[UUID, Any]
    switches: list[Any]
    wanted: dict[datetime, datetime | None]
    blocks: Mapping[int, Any]
    seals: int


class Company:
    """The database. fails: how likely each touch of it fails. away: nothing reaches it. restores: how often
    it was put back. cuts: how often its connections were cut."""

    def __init__(
        self,
        chance: random.Random,
        clock: VirtualClock,
        facts: Mapping[int, MeterFacts],
        count: Callable[[str], None],
    ) -> None:
        self._chance = chance
        self._clock = clock
        self._count = count
        self.store = MemoryCommands(clock, facts)
        self.batches = MemoryBatches(self.store)
        self.switches = MemorySwitches(self.store)
        self.blocks = MemoryBlocks(self.store)
        self.seals = MemorySeals(self.store)
        self.fails = 0.0
        self.away = False
        self.restores = 0
        self.cuts = 0
        self.backups: list[Backup] = []
        self.lost_switches: list[list[Setting]] = []
        """of each era that was ended by a restore: all that was switched in it"""
        self.desk_seen: dict[int, datetime] = {}
        """meter -> when its desk was last known to be somebody's, up to a restart"""
        self.store.hook = self._hook
        self.store.pace = self._pace
        self.store.lock_timeout = LOCK_TIMEOUT_S

    def _hook(self, point: str, meter_id: int) -> None:
        if self.away:
            self._count("database away")
            raise StorageError("the database is away")
        if self.fails and self._chance.random() < self.fails:
            self._count(f"database fails {point}")
            raise StorageError(f"the database fails {point}")

    async def _pace(self) -> None:
        if self._chance.random() < 0.3:
            await asyncio.sleep(self._chance.uniform(0.0, SLOW_MOST_S))

    def restart(self) -> None:
        """All connections are cut, and it is away until somebody says so."""
        self.away = True
        self.cuts += 1
        for meter_id in self.store.meters:
            if self.store.desk_is_open(meter_id):
                self.desk_seen[meter_id] = self._clock.now()
                self._count("a desk is cut")
        self.store.cut_connections()

    def desk_held(self, meter_id: int) -> datetime | None:
        """When this meter's desk was last somebody's: now, or when it was cut. None: never."""
        if self.store.desk_is_open(meter_id):
            return self._clock.now()
        return self.desk_seen.get(meter_id)

    def back_up(self) -> None:
        """Take a backup, as it is done every so often."""
        self.backups.append(
            Backup(
                self._clock.now(),
                self.store.kept.copy(),
                self.batches.backup(),
                self.switches.backup(),
                dict(self.switches.closes_wanted),
                self.blocks.backup(),
                len(self.seals.seals),
            )
        )

    def restore(self, backup: Backup) -> None:
        """What was done since is lost."""
        owners = self.store.kept.owners
        self.store.cut_connections()
        self.store.kept = backup.kept.copy()
        self.lost_switches.append(self.switches.backup())
        self.store.kept.owners = owners  # terminals log in anew, and are older than no row
        self.batches.restore(backup.batches)
        self.switches.restore(backup.switches)
        self.switches.closes_wanted = dict(backup.wanted)
        self.blocks.restore(backup.blocks)
        self.seals.forget_after(backup.seals)
        self.backups = [one for one in self.backups if one.at <= backup.at]
        self.restores += 1
