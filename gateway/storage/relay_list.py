"""Relay commands, blocks and switches as they are looked at, and whose meters, customers and terminals are
whose.

`organisations` everywhere: what the asker may see; None: all. What may not be seen is not found.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, NamedTuple
from uuid import UUID

from gateway.storage.database import Database, queries

_SHOWN: Final = (
    "id",
    "created_at",
    "meter",
    "address",
    "terminal",
    "action",
    "state",
    "why",
    "detail",
    "requester",
    "approver",
    "cause",
    "notice",
    "customer",
    "caused_by",
    "work_order",
    "label",
    "batch",
    "shadow",
    "not_before",
    "expires_at",
    "attempts",
    "sent_at",
    "valid_until",
    "energised_at",
    "changed_at",
    "intent",
    "trace",
    "organisation",
    "area",
)
"""In the order of the columns of `commands`."""

_BLOCK: Final = (
    "id",
    "kind",
    "since",
    "until",
    "source",
    "reason",
    "set_by",
    "set_at",
    "lifted_by",
    "lifted_at",
    "customer",
    "meter",
)

_FIELD_ORDER: Final = (
    "id",
    "command",
    "meter",
    "opened_at",
    "why",
    "detail",
    "closed_at",
    "closed_by",
    "report",
)

Row = Mapping[str, Any]
Organisations = Collection[int] | None


@dataclass(frozen=True, slots=True)
class FoundMeter:
    """A meter that is installed now."""

    meter_id: int
    number: str
    point_id: int
    customer_id: int | None


class Before(NamedTuple):
    """A cursor into the list of commands: what is older than this one."""

    at: datetime
    id: UUID


@dataclass(frozen=True, slots=True)
class BatchRow:
    """A batch and where its commands stand."""

    requester: str
    created_at: datetime
    commands: int
    states: Mapping[str, int]


async def commands(
    database: Database,
    organisations: Organisations,
    *,
    command_id: UUID | None = None,
    before: Before | None = None,
    meter: str | None = None,
    state: str | None = None,
    batch: UUID | None = None,
    customer: str | None = None,
    since: datetime | None = None,
    rows: int = 1,
) -> list[Row]:
    """Commands, the newest first; names as in `_SHOWN`."""
    return await _rows(
        database,
        "commands",
        _SHOWN,
        {
            "organisations": _ids(organisations),
            "command_id": command_id,
            "before_at": None if before is None else before.at,
            "before_id": None if before is None else before.id,
            "meter": meter,
            "state": state,
            "batch": batch,
            "customer": customer,
            "since": since,
            "rows": rows,
        },
    )


async def meters(
    database: Database, organisations: Organisations, names: Sequence[str], now: datetime
) -> dict[str, tuple[FoundMeter, ...]]:
    """The meters behind asset numbers or communication addresses; more than one where an address is not
    unique.

    An asset number goes before an address that reads the same.
    """
    found: dict[str, list[FoundMeter]] = {}
    async with database.reading() as connection:
        cursor = await connection.execute(
            queries("relay_list")["meters"],
            {"names": sorted(set(names)), "organisations": _ids(organisations), "now": now},
        )
        for name, *meter in await cursor.fetchall():
            found.setdefault(name, []).append(FoundMeter(*meter))
    return {name: tuple([one for one in some if one.number == name] or some) for name, some in found.items()}


async def customers(
    database: Database, organisations: Organisations, names: Sequence[str], now: datetime
) -> dict[str, int]:
    """Customers by number, those all of whose points may be seen."""
    given = {"names": sorted(set(names)), "organisations": _ids(organisations), "now": now}
    async with database.reading() as connection:
        cursor = await connection.execute(queries("relay_list")["customers"], given)
        return dict(await cursor.fetchall())


async def terminals(
    database: Database, organisations: Organisations, names: Collection[str] | None = None
) -> frozenset[str]:
    """Which of these terminals may be seen; names None: all that may."""
    given = {"names": None if names is None else sorted(names), "organisations": _ids(organisations)}
    async with database.reading() as connection:
        cursor = await connection.execute(queries("relay_list")["terminals"], given)
        return frozenset(address for (address,) in await cursor.fetchall())


async def terminal_events(
    database: Database, organisations: Organisations, ids: Collection[int]
) -> frozenset[int]:
    """Which of these events of terminals may be seen."""
    given = {"ids": sorted(ids), "organisations": _ids(organisations)}
    async with database.reading() as connection:
        cursor = await connection.execute(queries("relay_list")["terminal_events"], given)
        return frozenset(event_id for (event_id,) in await cursor.fetchall())


async def area(database: Database, organisations: Organisations, name: str) -> int | None:
    """An area by its name."""
    return await _one(database, "areas", organisations, name)


async def organisation(database: Database, organisations: Organisations, name: str) -> int | None:
    """An organisation by its name."""
    return await _one(database, "organisations", organisations, name)


async def batch(
    database: Database, organisations: Organisations, batch_id: UUID, asker: str
) -> BatchRow | None:
    """A batch that `asker` has asked for, or all of whose commands may be seen."""
    statements = queries("relay_list")
    async with database.connection() as connection:
        cursor = await connection.execute(
            statements["batch"],
            {"batch": batch_id, "organisations": _ids(organisations), "asker": asker},
        )
        row = await cursor.fetchone()
        if row is None or not row[3]:
            return None
        cursor = await connection.execute(statements["batch_states"], (batch_id,))
        return BatchRow(row[0], row[1], row[2], dict(await cursor.fetchall()))


async def blocks(
    database: Database,
    organisations: Organisations,
    now: datetime,
    *,
    after: int = 0,
    block_id: int | None = None,
    customer: str | None = None,
    lifted_too: bool = False,
    rows: int = 1,
) -> list[Row]:
    """Protections by rising number; names as in `_BLOCK`."""
    return await _rows(
        database,
        "blocks",
        _BLOCK,
        {
            "organisations": _ids(organisations),
            "now": now,
            "after": after,
            "block_id": block_id,
            "customer": customer,
            "all": lifted_too,
            "rows": rows,
        },
    )


async def field_orders(
    database: Database,
    organisations: Organisations,
    *,
    after: int = 0,
    closed_too: bool = False,
    rows: int = 1,
) -> list[Row]:
    """Where a person has to go, by rising number; names as in `_FIELD_ORDER`."""
    return await _rows(
        database,
        "field_orders",
        _FIELD_ORDER,
        {"organisations": _ids(organisations), "after": after, "all": closed_too, "rows": rows},
    )


async def scopes(database: Database, organisations: Organisations, asked: Collection[str]) -> dict[str, str]:
    """What the scopes of switches (area:7, organisation:3) are called; those that may be seen."""
    given = {"scopes": sorted(set(asked)), "organisations": _ids(organisations)}
    async with database.connection() as connection:
        cursor = await connection.execute(queries("relay_list")["scopes"], given)
        return dict(await cursor.fetchall())


async def _rows(
    database: Database, statement: str, names: Sequence[str], given: Mapping[str, Any]
) -> list[Row]:
    async with database.connection() as connection:
        cursor = await connection.execute(queries("relay_list")[statement], given)
        return [dict(zip(names, row, strict=True)) for row in await cursor.fetchall()]


async def _one(database: Database, statement: str, organisations: Organisations, name: str) -> int | None:
    given = {"name": name, "organisations": _ids(organisations)}
    async with database.connection() as connection:
        cursor = await connection.execute(queries("relay_list")[statement], given)
        row = await cursor.fetchone()
    return None if row is None else row[0]


def _ids(organisations: Organisations) -> list[int] | None:
    return None if organisations is None else sorted(organisations)
