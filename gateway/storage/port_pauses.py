"""Reading ports that were paused for relay work and have to be resumed, whoever is there to do it."""

from __future__ import annotations

from datetime import datetime

from gateway.storage.database import Database, queries


class PortPauses:
    """Over the database. Every method may raise StorageError."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, terminal_id: int, port: int, at: datetime) -> None:
        """Returns once it is committed; the same again keeps the first instant."""
        async with self._database.connection() as connection:
            await connection.execute(queries("port_pauses")["add_pause"], (terminal_id, port, at))

    async def remove(self, terminal_id: int, port: int) -> None:
        """The port reads again."""
        async with self._database.connection() as connection:
            await connection.execute(queries("port_pauses")["remove_pause"], (terminal_id, port))

    async def all(self) -> list[tuple[int, int]]:
        """(terminal_id, port) of every pause that stands, the oldest first."""
        async with self._database.connection() as connection:
            cursor = await connection.execute(queries("port_pauses")["all_pauses"])
            return [(terminal_id, port) for terminal_id, port in await cursor.fetchall()]
