"""Leases: work that only one process at a time may do, held by a connection of its own.

The lease ends with its connection, so a process that dies leaves none behind.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final

import psycopg
from psycopg import AsyncConnection

from gateway.errors import StorageError
from gateway.storage.database import (
    CONNECT_SECONDS,
    STATEMENT_SECONDS,
    Connection,
    Database,
    connection_arguments,
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
    arguments = connection_arguments(CONNECT_SECONDS, STATEMENT_SECONDS)
    try:
        connection: Connection = await AsyncConnection.connect(
            database.conninfo, autocommit=True, **arguments
        )
    except psycopg.Error as error:
        raise StorageError(
            f"no lease can be had: the database is away ({first_line(error)}); try again later"
        ) from error
    async with connection:
        while not await _try(connection, name):
            await sleep(POLL_SECONDS)
        yield Lease(name, connection)


async def _try(connection: Connection, name: str) -> bool:
    try:
        cursor = await connection.execute(queries("leases")["try_lease"], (_KEY_SPACE, name))
        row = await cursor.fetchone()
    except psycopg.Error as error:
        raise StorageError(
            f"the lease {name!r} cannot be had now ({first_line(error)}); try again later"
        ) from error
    return row is not None and row[0] is True
