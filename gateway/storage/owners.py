"""Which gateway of a group hears which terminals behind an MQTT broker: by their rows of `terminal_session`.

Their `peer` is `mqtt://IDENTIFIER@HOST:PORT/TERMINAL`: the gateway's identifier at that broker, and the
terminal's name in topics.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from gateway.storage.database import Database, queries


@dataclass(frozen=True, slots=True)
class Place:
    """A gateway at a broker."""

    identifier: str
    broker: str
    """`HOST:PORT`, spelled alike by all gateways of the group"""


async def identifiers(database: Database, broker: str) -> set[str]:
    """Of all gateways that have terminals behind this broker, alive or not. StorageError."""
    return {one for (one,) in await _rows(database, "identifiers", {"broker": broker})}


async def moved(database: Database, here: Place, since: datetime) -> list[str]:
    """Names of the terminals behind this broker that another gateway has, and has had from `since` on, by its
    clock. StorageError."""
    asked = {"broker": here.broker, "identifier": here.identifier, "since": since}
    return [name for (name,) in await _rows(database, "moved", asked)]


async def take_over(database: Database, gone: str, here: Place, worker: str, at: datetime) -> list[str]:
    """Make all terminals of the identifier `gone` those of `here`, in a new generation each; their names. The
    caller holds the lease of `gone`. StorageError."""
    asked = {
        "gone": gone, "broker": here.broker, "identifier": here.identifier, "worker": worker, "at": at,
    }  # fmt: skip
    return [name for (name,) in await _rows(database, "take_over", asked)]


async def _rows(database: Database, query: str, asked: dict[str, Any]) -> list[Any]:
    async with database.connection() as connection:
        cursor = await connection.execute(queries("owners")[query], asked)
        return await cursor.fetchall()
