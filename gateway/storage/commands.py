"""Relay commands in the database: the desks of meters, and what wants work. `desk` has what is done there.

The statements are in queries/commands.sql.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from functools import lru_cache
from typing import Final
from uuid import UUID

import psycopg

from gateway.clock import Clock
from gateway.command import PLACE_LASTS, Command, Limits, MeterFacts, Place, Ref, Unsure, Used
from gateway.storage import frame_secret
from gateway.storage.command_rows import command_of, ref_of, statement
from gateway.storage.database import Database, first_line
from gateway.storage.desk import MeterDesk as MeterDesk
from gateway.storage.desk import see
from gateway.storage.frame_secret import FrameSecret

_LIMITS_LOCK: Final = 0x4C44_0005
"""Key of the advisory lock under which places are taken."""


def _unseen(command: Command, kind: str, at: datetime) -> None:
    """Nobody counts."""


class Commands:
    """Satisfies `control.stores.CommandStore`. Times of rows are the house clock's."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        *,
        happened: Callable[[Command, str, datetime], None] = _unseen,
    ) -> None:
        """happened: told of each event once it is durable: the command after it, its kind, when; for counts.
        What is Unsure is not told."""
        self._database = database
        self._clock = clock
        self._happened = happened
        self._secret: FrameSecret | None = None

    @asynccontextmanager
    async def desk(self, meter_id: int) -> AsyncIterator[MeterDesk]:
        """One transaction in which this meter's commands are ours. What was done is kept at its end.

        NotInstalled where the meter was never anywhere; Unsure where the answer to COMMIT was lost.
        """
        if self._secret is None:
            self._secret = await frame_secret.find_or_make(self._database, self._clock.now())
        async with self._database.connection() as connection:
            desk = await MeterDesk.open(connection, meter_id, self._clock.now(), self._secret)
            yield desk
            try:
                await desk.keep()
            except psycopg.OperationalError as error:
                raise Unsure(
                    f"the database did not say whether it kept what was done for meter {meter_id}"
                    f" ({first_line(error)})"
                ) from error
        for command, kind in desk.happened:
            self._happened(command, kind, desk.opened_at)

    async def look(self, meter_id: int) -> MeterFacts:
        """What stands now, without the meter's turn. NotInstalled where the meter was never anywhere."""
        async with self._database.reading() as connection:
            return (await see(connection, meter_id, self._clock.now())).facts

    async def used(self, area_id: int | None, requester: str, limits: Limits) -> Used:
        """The places that count against a trip now; see `control.stores`."""
        since = self._clock.now() - limits.window - PLACE_LASTS
        async with self._database.reading() as connection:
            cursor = await connection.execute(statement("used"), (area_id, requester, since))
            row = await cursor.fetchone()
        assert row is not None
        return Used(*row)

    async def take_place(self, command: Command, area_id: int | None, limits: Limits) -> Place:
        """A place within the limits for the next attempt of this trip; see `control.stores`."""
        now = self._clock.now()
        told = {
            "lock": _LIMITS_LOCK,
            "command_id": command.id,
            "attempt": command.attempts + 1,
            "area_id": area_id,
            "requester": command.requester,
            "now": now,
            "since": now - limits.window - PLACE_LASTS,
            "fresh": now - PLACE_LASTS,
            "most_area": limits.area,
            "most_requester": limits.requester,
            "most_all": limits.all,
        }
        async with self._database.reading() as connection:
            cursor = await connection.execute(statement("take_place"), told)
            row = await cursor.fetchone()
        assert row is not None
        at, *used = row
        return Place(at, Used(*used), limits, area_id)

    async def known(self, requester: str, idempotency_key: str) -> tuple[Command, bytes] | None:
        """The command that this key made, and the hash of its body."""
        async with self._database.reading() as connection:
            cursor = await connection.execute(statement("known"), (requester, idempotency_key))
            row = await cursor.fetchone()
        return None if row is None else (command_of(row[:-1]), bytes(row[-1]))

    async def command(self, command_id: UUID) -> Command | None:
        """The command as it stands."""
        async with self._database.reading() as connection:
            cursor = await connection.execute(statement("command"), (command_id,))
            row = await cursor.fetchone()
        return None if row is None else command_of(row)

    async def overdue(self, now: datetime, limit: int, skip: Collection[UUID] = ()) -> Sequence[Ref]:
        """Held and queued commands whose expiry has come, the oldest first, without those in `skip`."""
        async with self._database.reading() as connection:
            cursor = await connection.execute(statement("overdue"), (now, list(skip), limit))
            return [ref_of(row) for row in await cursor.fetchall()]

    async def due(
        self, terminals: Collection[int], now: datetime, limit: int, skip: Collection[int] = ()
    ) -> Sequence[Ref]:
        """What wants work now, one for each terminal; see `control.stores`."""
        asked = frozenset(terminals).difference(skip) if skip else frozenset(terminals)
        if not asked:
            return []
        async with self._database.reading() as connection:
            cursor = await connection.execute(
                statement("due"), {"terminals": _listed(asked), "now": now, "limit": limit}
            )
            return [ref_of(row) for row in await cursor.fetchall()]


@lru_cache(maxsize=2)
def _listed(ids: frozenset[int]) -> str:
    """As an array literal: the driver takes ten times as long for a long list. All terminals that are here
    are asked for each second, and are the same as before."""
    return "{" + ",".join(map(str, ids)) + "}"
