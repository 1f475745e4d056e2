"""What stands between everybody else and a meter that has a close in the journal: no desk is opened past it,
and no trip is written past it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Protocol
from uuid import UUID

from gateway.command import (
    GATED_AS_TRIP,
    Action,
    Command,
    Limits,
    MeterFacts,
    Place,
    Ref,
    RelayStatus,
    Used,
    Why,
)
from gateway.control.stores import CommandStore, Desk
from gateway.door import Answer, Door, Doors, NotWritten, Prepared, Record, Trouble
from gateway.errors import StorageError


class Journal(Protocol):
    """What is asked of it."""

    def holds(self, meter_id: int) -> bool:
        """Is there a close of this meter that the database does not have?"""
        ...

    async def file_meter(self, meter_id: int) -> None:
        """Hand the closes of this meter to the database. StorageError where that cannot be now."""
        ...


class FilingStore:
    """Satisfies `CommandStore`: a desk is opened only when the journal has nothing of its meter."""

    def __init__(self, store: CommandStore, journal: Journal) -> None:
        self._store = store
        self._journal = journal

    @asynccontextmanager
    async def desk(self, meter_id: int) -> AsyncIterator[Desk]:
        """See `CommandStore`. StorageError also where a close is in the journal and cannot be filed now."""
        await self._journal.file_meter(meter_id)
        async with self._store.desk(meter_id) as desk:
            if self._journal.holds(meter_id):
                raise StorageError("a close of this meter came into the journal just now; try again")
            yield desk

    async def look(self, meter_id: int) -> MeterFacts:
        """See `CommandStore`. StorageError as for the desk."""
        await self._journal.file_meter(meter_id)
        facts = await self._store.look(meter_id)
        if self._journal.holds(meter_id):
            raise StorageError("a close of this meter came into the journal just now; try again")
        return facts

    async def used(self, area_id: int | None, requester: str, limits: Limits) -> Used:
        return await self._store.used(area_id, requester, limits)

    async def take_place(self, command: Command, area_id: int | None, limits: Limits) -> Place:
        return await self._store.take_place(command, area_id, limits)

    async def known(self, requester: str, idempotency_key: str) -> tuple[Command, bytes] | None:
        return await self._store.known(requester, idempotency_key)

    async def command(self, command_id: UUID) -> Command | None:
        return await self._store.command(command_id)

    async def overdue(self, now: datetime, limit: int, skip: Collection[UUID] = ()) -> Sequence[Ref]:
        return await self._store.overdue(now, limit, skip)

    async def due(
        self, terminals: Collection[int], now: datetime, limit: int, skip: Collection[int] = ()
    ) -> Sequence[Ref]:
        return await self._store.due(terminals, now, limit, skip)


class GuardedDoors:
    """Satisfies `Doors`."""

    def __init__(self, doors: Doors, journal: Journal) -> None:
        self._doors = doors
        self._journal = journal

    def here(self) -> frozenset[int]:
        return self._doors.here()

    @asynccontextmanager
    async def open(self, facts: MeterFacts) -> AsyncIterator[Door | None]:
        async with self._doors.open(facts) as door:
            yield None if door is None else GuardedDoor(door, facts.meter_id, self._journal)


class GuardedDoor:
    """Satisfies `Door`: what takes power away is not written past a close in the journal, and nothing is
    awaited between that look and the write."""

    def __init__(self, door: Door, meter_id: int, journal: Journal) -> None:
        self._door = door
        self._meter_id = meter_id
        self._journal = journal
        self._darkens: set[bytes] = set()

    @property
    def worker(self) -> str:
        return self._door.worker

    @property
    def generation(self) -> int:
        return self._door.generation

    @property
    def contested(self) -> bool:
        return self._door.contested

    async def identify(self) -> Trouble | None:
        return await self._door.identify()

    async def clock_offset(self) -> float | Trouble:
        return await self._door.clock_offset()

    async def status(self) -> RelayStatus | Trouble:
        return await self._door.status()

    async def prepare(self, action: Action, deadline: datetime) -> Prepared | Trouble:
        prepared = await self._door.prepare(action, deadline)
        if isinstance(prepared, Prepared) and action in GATED_AS_TRIP:
            self._darkens.add(prepared.sha256)
        return prepared

    async def write(
        self, prepared: Prepared, last_check: Callable[[], Trouble | None]
    ) -> Awaitable[Answer] | NotWritten:
        def check() -> Trouble | None:
            if prepared.sha256 in self._darkens and self._journal.holds(self._meter_id):
                return Trouble(Why.NEWER_INTENT, "a close of this meter is in the journal")
            return last_check()

        return await self._door.write(prepared, check)

    async def record(self, action: Action) -> Record | Trouble:
        return await self._door.record(action)
