"""Batches of relay commands: what was asked for under one key, and the answer that was given.

The commands themselves are in commands.py. The statements are in queries/batches.sql.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from gateway.command import Action, Ref, State
from gateway.storage.database import Database, queries


@dataclass(frozen=True, slots=True)
class Batch:
    """One batch. answer: JSON-ready, of control's making; its key `finished` is true once every line has its
    result."""

    id: UUID
    requester: str
    idempotency_key: str
    body_hash: bytes
    created_at: datetime
    commands: int
    answer: Mapping[str, Any]


class RelayBatches:
    """Satisfies `control.stores.BatchStore`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def begin(self, batch: Batch) -> Batch:
        """Keep this batch; where its key is used already, the batch that used it is returned instead."""
        values = {
            "batch_id": batch.id,
            "requester": batch.requester,
            "idempotency_key": batch.idempotency_key,
            "body_sha256": batch.body_hash,
            "created_at": batch.created_at,
            "commands": batch.commands,
            "answer": json.dumps(batch.answer, ensure_ascii=False),
        }
        async with self._database.connection() as connection:
            await connection.execute(queries("batches")["begin"], values)
        kept = await self.known(batch.requester, batch.idempotency_key)
        assert kept is not None
        return kept

    async def finish(self, batch_id: UUID, answer: Mapping[str, Any]) -> None:
        """Keep the whole answer."""
        async with self._database.connection() as connection:
            await connection.execute(
                queries("batches")["finish"], (json.dumps(answer, ensure_ascii=False), batch_id)
            )

    async def known(self, requester: str, idempotency_key: str) -> Batch | None:
        """The batch that this key made."""
        return await self._one("known", (requester, idempotency_key))

    async def batch(self, batch_id: UUID) -> Batch | None:
        """By its id."""
        return await self._one("batch", (batch_id,))

    async def commands(self, batch_id: UUID) -> Sequence[Ref]:
        """Its commands as they stand, in the order of their meters."""
        async with self._database.connection() as connection:
            cursor = await connection.execute(queries("batches")["commands"], (batch_id,))
            return [
                Ref(command_id, meter_id, terminal_id, Action(action), State(state))
                for command_id, meter_id, terminal_id, action, state in await cursor.fetchall()
            ]

    async def _one(self, statement: str, values: tuple[object, ...]) -> Batch | None:
        async with self._database.connection() as connection:
            cursor = await connection.execute(queries("batches")[statement], values)
            row = await cursor.fetchone()
        return None if row is None else Batch(row[0], row[1], row[2], bytes(row[3]), *row[4:])
