"""Protections of customers and points: why a trip must not be sent, from when to when, and who said so.

A block is added and lifted with the desks of its meters taken: whoever stood between a look at the blocks
and a write has finished when it begins to hold. The statements are in queries/blocks.sql.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple
from uuid import UUID

from gateway.command import BlockKind
from gateway.errors import InputError
from gateway.storage.database import Connection, Database, queries
from gateway.storage.evidence import note_audit


@dataclass(frozen=True, slots=True)
class NewBlock:
    """What is to be protected: a customer or a point, exactly one of them. until: half open; None: until it
    is lifted. source: who knows of it, for instance the system and its number there."""

    kind: BlockKind
    since: datetime
    source: str
    customer_id: int | None = None
    point_id: int | None = None
    until: datetime | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class StandingBlock:
    """One block as it is kept, lifted or not."""

    id: int
    kind: BlockKind
    customer_id: int | None
    point_id: int | None
    since: datetime
    until: datetime | None
    source: str
    reason: str
    set_by: str
    set_at: datetime
    lifted_by: str | None = None
    lifted_at: datetime | None = None


class Mirror(NamedTuple):
    """A meter behind a block, and the keep-power command that was made for it there (None: none yet)."""

    block_id: int
    meter_id: int
    meter: str
    command_id: UUID | None


class ControlBlocks:
    """Satisfies `control.stores.BlockStore`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, new: NewBlock, by: str, at: datetime) -> StandingBlock:
        """A block; one that says the same and is not lifted stays the one. InputError: no such target."""
        values = {
            "customer_id": new.customer_id,
            "point_id": new.point_id,
            "kind": new.kind.value,
            "since": new.since,
            "until": new.until,
            "source": new.source,
            "reason": new.reason,
            "by": by,
            "at": at,
        }
        statements = queries("blocks")
        async with self._database.connection() as connection:
            await _take_desks(connection, new.customer_id, new.point_id, at)
            cursor = await connection.execute(statements["same"], values)
            if (row := await cursor.fetchone()) is not None:
                return _block(row)
            cursor = await connection.execute(statements["add"], values)
            if (row := await cursor.fetchone()) is None:
                raise InputError("there is no such customer or point in the assets 档案中无此用户或计量点")
            block = _block(row)
            await _tell(connection, block, at, by, "add")
            return block

    async def lift(self, block_id: int, reason: str, by: str, at: datetime) -> StandingBlock | None:
        """It protects no longer. None where there is no such block; one that was lifted before stays as it
        is."""
        seen = await self.block(block_id)
        if seen is None or seen.lifted_at is not None:
            return seen
        async with self._database.connection() as connection:
            await _take_desks(connection, seen.customer_id, seen.point_id, at)
            cursor = await connection.execute(
                queries("blocks")["lift"], {"block_id": block_id, "by": by, "at": at}
            )
            if (row := await cursor.fetchone()) is not None:
                block = _block(row)
                await _tell(connection, block, at, by, "lift", reason)
                return block
        return await self.block(block_id)

    async def block(self, block_id: int) -> StandingBlock | None:
        """By its number."""
        async with self._database.connection() as connection:
            cursor = await connection.execute(queries("blocks")["block"], (block_id,))
            row = await cursor.fetchone()
        return None if row is None else _block(row)

    async def unmirrored(self, now: datetime, limit: int) -> Sequence[Mirror]:
        """Meters behind a keep-power block in force that have not been told so."""
        async with self._database.connection() as connection:
            cursor = await connection.execute(queries("blocks")["unmirrored"], {"now": now, "limit": limit})
            return [Mirror(*row) for row in await cursor.fetchall()]

    async def mirrors(self, block_id: int, now: datetime) -> Sequence[Mirror]:
        """The keep-power commands that this block has made at the meters that are installed there now."""
        async with self._database.connection() as connection:
            cursor = await connection.execute(
                queries("blocks")["mirrors"], {"block_id": block_id, "now": now}
            )
            return [Mirror(*row) for row in await cursor.fetchall()]


async def _take_desks(
    connection: Connection, customer_id: int | None, point_id: int | None, at: datetime
) -> None:
    """Wait for the desks of all meters behind the target, in the order of their ids."""
    target = {"customer_id": customer_id, "point_id": point_id, "now": at}
    await connection.execute(queries("blocks")["first_intents"], target)
    await connection.execute(queries("blocks")["lock_meters"], target)


async def _tell(
    connection: Connection, block: StandingBlock, at: datetime, by: str, deed: str, reason: str = ""
) -> None:
    told = {
        "block": block.id,
        "kind": block.kind.value,
        "customer_id": block.customer_id,
        "point_id": block.point_id,
        "since": block.since.astimezone(UTC).isoformat(),
        "until": None if block.until is None else block.until.astimezone(UTC).isoformat(),
        "source": block.source,
        "reason": reason or block.reason,
    }
    await note_audit(connection, at, by, f"{deed} block", told)
    target = {"customer_id": block.customer_id, "point_id": block.point_id}
    cursor = await connection.execute(queries("blocks")["organisation"], target)
    row = await cursor.fetchone()
    words = {"add": "control-block.added", "lift": "control-block.lifted"}
    await connection.execute(
        queries("switches")["tell"],
        (
            at,
            words[deed],
            str(block.id),
            None if row is None else row[0],
            json.dumps(told, ensure_ascii=False),
        ),
    )


def _block(row: Sequence[Any]) -> StandingBlock:
    return StandingBlock(row[0], BlockKind(row[1]), *row[2:])
