"""What stands and what failed, terminal by terminal: storage's half of "gap = plan minus rows"."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator, Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TypeAlias

from gateway.model import Failure, Kind, Quantity, Reason, TerminalAssets
from gateway.storage import assets
from gateway.storage.database import Connection, Database, queries

Key: TypeAlias = tuple[int, Quantity, Kind]
"""meter_id, quantity, kind: one reading of a given frozen_at"""

_QUANTITY = {quantity.value: quantity for quantity in Quantity}
_KIND = {kind.value: kind for kind in Kind}


@dataclass(frozen=True, slots=True)
class LastFailure:
    """Why a reading was not had when it was last asked for."""

    reason: Reason
    detail: str
    at: datetime
    """UTC"""
    times: int
    """how often it has failed"""


@dataclass(frozen=True, slots=True)
class Midnight:
    """One terminal at one frozen_at: assets, the keys that stand, the last failure of keys that do not."""

    assets: TerminalAssets
    stored: set[Key]
    failures: dict[Key, LastFailure]


async def stored(database: Database, meter_ids: Collection[int], frozen_at: datetime) -> set[Key]:
    """Which readings of these meters stand at frozen_at."""
    async with database.connection() as connection:
        return set(await _stored(connection, list(meter_ids), frozen_at))


async def failures(
    database: Database, meter_ids: Collection[int], frozen_at: datetime
) -> dict[Key, LastFailure]:
    """The last failure of each key of these meters that failed and does not stand."""
    async with database.connection() as connection:
        return await _failures(connection, list(meter_ids), frozen_at)


async def note_failures(database: Database, failures: Sequence[Failure], at: datetime) -> None:
    """Keep the last reason per due reading; one that stands by now is left alone."""
    last = {(f.frozen_at, f.meter_id, f.quantity, f.kind): f for f in failures}
    if not last:
        return
    given = last.values()
    async with database.connection() as connection:
        await connection.execute(
            queries("gaps")["note_failures"],
            {
                "frozen_at": [f.frozen_at for f in given],
                "meter_id": [f.meter_id for f in given],
                "quantity": [f.quantity.value for f in given],
                "kind": [f.kind.value for f in given],
                "reason": [f.reason.value for f in given],
                "detail": [f.detail.replace("\0", "") for f in given],
                "at": at,
            },
        )


async def midnights(
    database: Database, frozen_at: datetime, terminals: Collection[str] | None = None
) -> AsyncIterator[Midnight]:
    """Every terminal (or those named) in the order of addresses, with what plan needs.

    Streaming: a page of terminals is held at a time, and the cost is linear in meters. What stands may change
    while it runs; each page is of one moment.
    """
    async for page in assets.pages(database, terminals):
        meter_ids = [point.meter_id for terminal in page for point in terminal.points]
        stands: defaultdict[int, set[Key]] = defaultdict(set)
        failed: defaultdict[int, dict[Key, LastFailure]] = defaultdict(dict)
        async with database.connection() as connection:
            for key in await _stored(connection, meter_ids, frozen_at):
                stands[key[0]].add(key)
            for key, failure in (await _failures(connection, meter_ids, frozen_at)).items():
                failed[key[0]][key] = failure
        for terminal in page:
            here = {point.meter_id for point in terminal.points}
            yield Midnight(
                terminal,
                {key for meter_id in here if meter_id in stands for key in stands[meter_id]},
                {
                    key: failure
                    for meter_id in here
                    if meter_id in failed
                    for key, failure in failed[meter_id].items()
                },
            )


async def _stored(connection: Connection, meter_ids: list[int], frozen_at: datetime) -> list[Key]:
    async with connection.cursor(binary=True) as cursor:
        # Written out here: the driver takes ten times as long for a list of four hundred.
        listed = "{" + ",".join(map(str, meter_ids)) + "}"
        await cursor.execute(queries("gaps")["stored"], {"frozen_at": frozen_at, "meter_ids": listed})
        return [
            (meter_id, _QUANTITY[quantity], _KIND[kind])
            for meter_id, quantity, kind in await cursor.fetchall()
        ]


async def _failures(
    connection: Connection, meter_ids: list[int], frozen_at: datetime
) -> dict[Key, LastFailure]:
    cursor = await connection.execute(
        queries("gaps")["failures"], {"frozen_at": frozen_at, "meter_ids": meter_ids}
    )
    return {
        (meter_id, _QUANTITY[quantity], _KIND[kind]): LastFailure(Reason(reason), detail, at, times)
        for meter_id, quantity, kind, reason, detail, at, times in await cursor.fetchall()
    }
