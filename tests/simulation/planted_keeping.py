"""Bugs in what is kept and decided: second persons, keys, the journal, the epoch file. See `planted`."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest

from gateway.command import GATED_AS_TRIP, Command, Used
from gateway.control import batches, course, requests
from gateway.control.course import Course
from gateway.control.epoch import Epoch, Keeper
from gateway.control.journal_file import JournalFile, Record, _line
from gateway.control.journal_guards import FilingStore, GuardedDoor
from gateway.door import NotWritten
from gateway.errors import StorageError
from tests.gateway.control.memory import MemoryCommands


def limits_counted_for_nothing(patch: pytest.MonkeyPatch) -> None:
    """What was counted is not looked at."""

    def places(self: MemoryCommands, *rest: Any, **but: Any) -> Used:
        return Used(0, 0, 0)

    patch.setattr(MemoryCommands, "_places", places)


def anybody_is_second(patch: pytest.MonkeyPatch) -> None:
    """Whoever asked may approve, and whoever has set the limits."""
    for module in (batches, requests):
        patch.setattr(module, "check_second", lambda by, requester, setters: None)


def limit_setters_forgotten(patch: pytest.MonkeyPatch) -> None:
    """Whoever has set the limits may approve what goes over them."""

    async def nobody(self: requests.Requests) -> frozenset[str]:
        return frozenset()

    patch.setattr(requests.Requests, "limit_setters", nobody)


def key_forgotten(patch: pytest.MonkeyPatch) -> None:
    """Nobody looks whether a key was used: a repeat makes another command."""

    async def known(self: MemoryCommands, *rest: Any) -> None:
        return None

    patch.setattr(MemoryCommands, "known", known)
    patch.setattr(MemoryCommands, "made_by", lambda self, *key: None)


def body_forgotten(patch: pytest.MonkeyPatch) -> None:
    """Another request under a used key is taken for the first one."""
    patch.setattr(requests, "canonical", lambda body: b"")


def pressed_on_without_a_database(patch: pytest.MonkeyPatch) -> None:
    """A trip whose claim was committed is written although the database has gone."""
    write = Course._write

    async def careless(self: Course, command: Command, door: Any, prepared: Any) -> Any:
        answer = await write(self, command, door, prepared)
        if answer is None and command.action in GATED_AS_TRIP:
            try:
                await self._store.command(command.id)
            except StorageError:
                written = await door.write(prepared, lambda: None)
                return None if isinstance(written, NotWritten) else written
        return answer

    patch.setattr(Course, "_write", careless)


def lost_desk_trusted(patch: pytest.MonkeyPatch) -> None:
    """Whoever stood still beside the write goes on as if his desk were still his."""
    patch.setattr(course, "DESK_FRESH", timedelta(days=1))


def journal_not_synced(patch: pytest.MonkeyPatch) -> None:
    """A line of the journal is told to be durable before it is."""

    def append(self: JournalFile, record: Record) -> None:
        content = _line(record)
        self._folder.open(self._name).write(content, self._end)
        self._end += len(content)

    patch.setattr(JournalFile, "append", append)


def journal_passed_over(patch: pytest.MonkeyPatch) -> None:
    """Desks and doors do not look into the journal."""

    async def write(self: GuardedDoor, *rest: Any) -> Any:
        return await self._door.write(*rest)

    patch.setattr(FilingStore, "desk", lambda self, meter_id: self._store.desk(meter_id))
    patch.setattr(FilingStore, "look", lambda self, meter_id: self._store.look(meter_id))
    patch.setattr(GuardedDoor, "write", write)


def restore_not_noticed(patch: pytest.MonkeyPatch) -> None:
    """Nobody compares the database with the epoch file."""

    async def as_left(self: Keeper, kept: Epoch | None) -> None:
        return None

    patch.setattr(Keeper, "_not_as_left", as_left)
    patch.setattr(Keeper, "_behind", as_left)


def billing_asked_too_late(patch: pytest.MonkeyPatch) -> None:
    """After a restore billing is asked for the closes since now, not since the backup."""
    hold = Keeper._hold

    async def since_now(self: Keeper, found: Any, kept: Epoch | None) -> None:
        now: datetime = self._clock.now()
        await hold(self, found._replace(since=now), kept)

    patch.setattr(Keeper, "_hold", since_now)
