"""Leases: work that only one process at a time may do, held by a connection of its own.

The lease ends with its connection, so a process that dies leaves none behind. Where it `lasts`, the server
ends it also for a holder that hangs, or whose machine is gone.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

import psycopg
from psycopg import AsyncConnection

from gateway.errors import StorageError
from gateway.storage.database import (
    CONNECT_SECONDS,
    STATEMENT_SECONDS,
    Connection,
    Database,
    connection_arguments,
    cut_after,
    first_line,
    queries,
)

POLL_SECONDS: Final = 10.0
"""Between two looks at a lease that another process holds: so long work may rest when that process dies."""

_KEY_SPACE: Final = 0x4C44_0003
"""First half of the advisory lock key: leases do not meet the locks of migrations."""


class Lease:
    """A lease held now."""

    def __init__(self, name: str, connection: Connection) -> None:
        self._name = name
        self._connection = connection

    async def renew(self) -> None:
        """Make sure that the lease is still ours. StorageError where its connection is gone: stop working."""
        try:
            await self._connection.execute(queries("leases")["still_connected"])
        except psycopg.Error as error:
            raise StorageError(
                f"the lease {self._name!r} is lost ({first_line(error)}); it is taken again"
            ) from error


@asynccontextmanager
async def lease(
    database: Database, name: str, sleep: Callable[[float], Awaitable[None]]
) -> AsyncIterator[Lease]:
    """Wait until no other process holds the lease `name`, and hold it in the block.

    `sleep` waits between two tries. StorageError where the database is away.
    """
    connection = await _connect(database)
    async with connection:
        while not await _try(connection, name):
            await sleep(POLL_SECONDS)
        yield Lease(name, connection)


class Leases:
    """Several leases over one connection: all of them end when nothing is asked for `lasts` seconds."""

    def __init__(self, connection: Connection, lasts: float) -> None:
        self._connection = connection
        self._lasts = lasts

    async def take(self, name: str) -> bool:
        """Take one that is not held here yet; False where another process holds it. StorageError: whatever
        was held may be lost."""
        with cut_after(self._lasts) as patience:
            patience.begin(self._connection)
            return await _try(self._connection, name)

    async def give(self, name: str) -> None:
        """Let one go that is held here. StorageError."""
        await self._ask("give_lease", (_KEY_SPACE, name))

    async def renew(self) -> None:
        """Hold on to all of them. StorageError where they are lost: stop working."""
        await self._ask("still_connected", ())

    async def _ask(self, query: str, arguments: tuple[Any, ...]) -> None:
        try:
            with cut_after(self._lasts) as patience:
                patience.begin(self._connection)
                await self._connection.execute(queries("leases")[query], arguments)
        except psycopg.Error as error:
            raise StorageError(f"leases are lost ({first_line(error)}); they are taken again") from error


@asynccontextmanager
async def leases(database: Database, lasts: float) -> AsyncIterator[Leases]:
    """None yet; `lasts`: seconds, within which each is to be renewed. StorageError where the database is
    away."""
    connection = await _connect(database, f" -c idle_session_timeout={max(1, round(lasts * 1000))}")
    try:
        yield Leases(connection, lasts)
    finally:
        await connection.close()


async def _connect(database: Database, options: str = "") -> Connection:
    arguments = connection_arguments(CONNECT_SECONDS, STATEMENT_SECONDS)
    arguments["options"] += options
    try:
        return await AsyncConnection.connect(database.conninfo, autocommit=True, **arguments)
    except psycopg.Error as error:
        raise StorageError(
            f"no lease can be had: the database is away ({first_line(error)}); try again later"
        ) from error


async def _try(connection: Connection, name: str) -> bool:
    try:
        cursor = await connection.execute(queries("leases")["try_lease"], (_KEY_SPACE, name))
        row = await cursor.fetchone()
    except psycopg.Error as error:
        raise StorageError(
            f"the lease {name!r} cannot be had now ({first_line(error)}); try again later"
        ) from error
    return row is not None and row[0] is True
