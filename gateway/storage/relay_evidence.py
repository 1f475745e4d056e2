"""One command with all that proves it, as one view of the database. The statements are in
queries/relay_evidence.sql."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from gateway.storage import frame_secret
from gateway.storage.chain import Seal
from gateway.storage.database import Database, queries
from gateway.storage.event_bodies import ROW_COLUMNS, row_told


@dataclass(frozen=True, slots=True)
class ChainedEvent:
    """One event as it is kept. seal: the number of the seal over it; None: not sealed yet."""

    id: int
    body: Mapping[str, Any]
    hash: bytes
    seal: int | None


@dataclass(frozen=True, slots=True)
class WholeSeal:
    """A seal with all that its digest is over. before: the digest before it, b"" for the first."""

    seal: Seal
    before: bytes
    events: tuple[tuple[int, bytes], ...]


@dataclass(frozen=True, slots=True)
class Kept:
    """A command's row as its events tell such rows, where it says that they end, the events, and the seals
    over them."""

    command: Mapping[str, Any]
    count: int
    chain: bytes
    events: tuple[ChainedEvent, ...]
    seals: tuple[WholeSeal, ...]


class Oldest(NamedTuple):
    """Since when; None: there is none."""

    uncertain: datetime | None
    close: datetime | None


async def kept(database: Database, command_id: UUID) -> Kept | None:
    """All of it, of one moment. None where there is no such command."""
    statements = queries("relay_evidence")
    async with database.connection() as connection:
        await connection.execute(queries("chain")["as_of_now"])
        statement = statements["command"].replace(b"%ROW%", ROW_COLUMNS.encode())
        cursor = await connection.execute(statement, (command_id,))
        row = await cursor.fetchone()
        if row is None:
            return None
        secret = await frame_secret.find(connection)
        *columns, count, chain = row
        cursor = await connection.execute(statements["events"], (command_id, 0))
        events = tuple(_event(found) for found in await cursor.fetchall())
        numbers = sorted({event.seal for event in events if event.seal is not None})
        cursor = await connection.execute(statements["seals"], (numbers,))
        seals = tuple(_seal(found) for found in await cursor.fetchall())
    return Kept(row_told(columns, secret), count, bytes(chain), events, seals)


async def happened(database: Database, command_id: UUID, after: int = 0) -> list[Mapping[str, Any]]:
    """The bodies of a command's events after that number, in order."""
    async with database.connection() as connection:
        cursor = await connection.execute(queries("relay_evidence")["events"], (command_id, after))
        return [row[1] for row in await cursor.fetchall()]


async def oldest(database: Database) -> Oldest:
    """What has waited longest for an answer."""
    async with database.connection() as connection:
        cursor = await connection.execute(queries("relay_evidence")["oldest"])
        row = await cursor.fetchone()
    assert row is not None
    return Oldest(*row)


def _event(row: Sequence[Any]) -> ChainedEvent:
    event_id, body, hashed, seal_id = row
    return ChainedEvent(event_id, body, bytes(hashed), seal_id)


def _seal(row: Sequence[Any]) -> WholeSeal:
    seal_id, at, before, digest, numbers, hashes = row
    events = tuple((number, bytes(hashed)) for number, hashed in zip(numbers, hashes, strict=True))
    return WholeSeal(Seal(seal_id, at, bytes(digest)), bytes(before), events)
