"""What others are told, read by cursor, and the webhooks that are told it.

Each event has a place, given after its transaction has committed: whoever has read up to a place has read all
that stands before it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from gateway.errors import InputError
from gateway.storage.database import Connection, Database, queries
from gateway.storage.evidence import note_audit, printable

_PLACES_LOCK: Final = 0x4C44_0006
PLACES_AT_ONCE: Final = 10_000
FORGOTTEN_AT_ONCE: Final = 10_000

WEBHOOKS_A_CLIENT: Final = 20


@dataclass(frozen=True, slots=True)
class Told:
    """One outgoing event. place: where it stands; number: what it is called, for good."""

    place: int
    number: int
    at: datetime
    type: str
    subject: str
    organisation: int | None
    data: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Webhook:
    """A webhook as it is listed. cursor: the place that was delivered last."""

    webhook_id: int
    client: str
    url: str
    types: tuple[str, ...]
    cursor: int
    failures: int
    next_try: datetime | None
    last_error: str
    created_at: datetime
    dead_letters: int


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """An event that a webhook could not be told."""

    told: Told
    at: datetime
    error: str


@dataclass(frozen=True, slots=True, repr=False)
class Delivery:
    """A webhook that is ours for the length of a lease, and what signs its events."""

    webhook_id: int
    url: str
    secret: str
    types: tuple[str, ...]
    cursor: int
    failures: int
    organisations: frozenset[int] | None


async def give_places(database: Database) -> None:
    """Give places to what has been committed since; does nothing where somebody else is at it."""
    statements = queries("outbox")
    async with database.connection() as connection:
        cursor = await connection.execute(statements["lock_places"], (_PLACES_LOCK,))
        row = await cursor.fetchone()
        if row is not None and row[0]:
            await connection.execute(statements["give_places"], (PLACES_AT_ONCE,))


async def newest(database: Database) -> int:
    """The last place that was given; 0: none ever."""
    async with database.connection() as connection:
        return await _newest(connection)


async def after(
    database: Database,
    place: int,
    *,
    rows: int,
    organisations: Collection[int] | None,
    types: Sequence[str] = (),
) -> tuple[list[Told], int]:
    """At most `rows` events after `place` that these organisations may see (None: all), and up to which place
    that is complete."""
    async with database.connection() as connection:
        until = await _newest(connection)
        cursor = await connection.execute(
            queries("outbox")["after"],
            {
                "after": place,
                "until": until,
                "organisations": _ids(organisations),
                "types": list(types),
                "rows": rows,
            },
        )
        found = [Told(*row) for row in await cursor.fetchall()]
    return found, (found[-1].place if len(found) == rows else max(until, place))


async def forget(database: Database, before: datetime) -> int:
    """Delete events told before that instant, a bounded number; those with a dead letter stay."""
    async with database.connection() as connection:
        cursor = await connection.execute(
            queries("outbox")["forget"], {"before": before, "rows": FORGOTTEN_AT_ONCE}
        )
        return cursor.rowcount


async def register(
    database: Database,
    *,
    client: str,
    url: str,
    secret: str,
    types: Sequence[str],
    cursor: int | None,
    by: str,
    at: datetime,
) -> int:
    """A webhook of the client of that name; its number. cursor None: only what comes from now on.

    InputError where the client has no token in force, or webhooks enough.
    """
    statements = queries("outbox")
    async with database.connection() as connection:
        found = await connection.execute(statements["client"], (client,))
        if (row := await found.fetchone()) is None:
            raise InputError(f"no client {client!r} with a token in force 无此有效令牌")
        client_id: int = row[0]
        counted = await connection.execute(statements["webhooks_of"], (client_id,))
        if (many := await counted.fetchone()) is not None and many[0] >= WEBHOOKS_A_CLIENT:
            raise InputError(f"{client} has {WEBHOOKS_A_CLIENT} webhooks already 订阅过多: end one first")
        given = {
            "client_id": client_id,
            "url": url,
            "secret": secret,
            "types": list(types),
            "cursor": await _newest(connection) if cursor is None else cursor,
            "at": at,
        }
        made = await connection.execute(statements["register"], given)
        row = await made.fetchone()
        assert row is not None
        await note_audit(connection, at, by, "register webhook", {"webhook": row[0], "url": url})
        webhook_id: int = row[0]
        return webhook_id


async def webhooks(
    database: Database, *, client_id: int | None, webhook_id: int | None = None
) -> list[Webhook]:
    """Live webhooks of one client (None: of all)."""
    async with database.connection() as connection:
        cursor = await connection.execute(
            queries("outbox")["webhooks"], {"client_id": client_id, "webhook_id": webhook_id}
        )
        return [Webhook(row[0], row[1], row[2], tuple(row[3]), *row[4:]) for row in await cursor.fetchall()]


async def end_webhook(database: Database, webhook_id: int, *, by: str, at: datetime) -> None:
    """It is told nothing more."""
    async with database.connection() as connection:
        await connection.execute(queries("outbox")["end_webhook"], {"webhook_id": webhook_id, "at": at})
        await note_audit(connection, at, by, "end webhook", {"webhook": webhook_id})


async def replay(database: Database, webhook_id: int, cursor: int, *, by: str, at: datetime) -> None:
    """Tell it again what comes after that place, beginning at once."""
    async with database.connection() as connection:
        await connection.execute(queries("outbox")["replay"], {"webhook_id": webhook_id, "cursor": cursor})
        await note_audit(connection, at, by, "replay webhook", {"webhook": webhook_id, "cursor": cursor})


async def dead_letters(
    database: Database, webhook_id: int, *, place: int = 0, rows: int = 100
) -> list[DeadLetter]:
    """What the webhook could not be told, from behind that place on."""
    async with database.connection() as connection:
        cursor = await connection.execute(
            queries("outbox")["dead_letters"], {"webhook_id": webhook_id, "after": place, "rows": rows}
        )
        return [DeadLetter(Told(*row[:7]), row[7], row[8]) for row in await cursor.fetchall()]


async def claim(database: Database, *, now: datetime, lease: datetime, rows: int) -> list[Delivery]:
    """Webhooks that have something to be told; they are nobody else's until the lease ends."""
    async with database.connection() as connection:
        cursor = await connection.execute(
            queries("outbox")["claim"], {"now": now, "lease": lease, "rows": rows}
        )
        return [
            Delivery(
                webhook_id=row[0],
                url=row[1],
                secret=row[2],
                types=tuple(row[3]),
                cursor=row[4],
                failures=row[5],
                organisations=None if row[6] is None else frozenset(row[6]),
            )
            for row in await cursor.fetchall()
        ]


async def delivered(
    database: Database, webhook_id: int, *, before: int, place: int, number: int | None
) -> bool:
    """Its cursor moves from `before` to `place`; False where somebody has set it meanwhile."""
    statements = queries("outbox")
    async with database.connection() as connection:
        cursor = await connection.execute(
            statements["delivered"], {"webhook_id": webhook_id, "before": before, "cursor": place}
        )
        if number is not None:
            await connection.execute(statements["came_after_all"], (webhook_id, number))
        return cursor.rowcount == 1


async def release(database: Database, webhook_id: int, next_try: datetime | None) -> None:
    """The lease ends early; it may be taken again from `next_try` on (None: at once)."""
    async with database.connection() as connection:
        await connection.execute(
            queries("outbox")["release"], {"webhook_id": webhook_id, "next_try": next_try}
        )


async def failed(database: Database, webhook_id: int, *, next_try: datetime, error: str) -> None:
    """It could not be told; the lease ends at `next_try`."""
    async with database.connection() as connection:
        await connection.execute(
            queries("outbox")["failed"],
            {"webhook_id": webhook_id, "next_try": next_try, "error": printable(error)},
        )


async def bury(
    database: Database, delivery: Delivery, cursor: int, until: int, *, at: datetime, error: str
) -> None:
    """Give up on what stands between `cursor`, where it is now, and `until`: dead letters, and it moves
    there."""
    statements = queries("outbox")
    async with database.connection() as connection:
        given = {
            "webhook_id": delivery.webhook_id,
            "after": cursor,
            "until": until,
            "organisations": _ids(delivery.organisations),
            "types": list(delivery.types),
            "at": at,
            "error": printable(error),
        }
        await connection.execute(statements["bury"], given)
        await connection.execute(
            statements["delivered"],
            {"webhook_id": delivery.webhook_id, "before": cursor, "cursor": until},
        )


async def newest_before(database: Database, place: int, before: datetime) -> int | None:
    """The last place behind `place` of what was told before that instant; None: there is nothing so old."""
    async with database.connection() as connection:
        cursor = await connection.execute(
            queries("outbox")["newest_before"], {"after": place, "before": before}
        )
        row = await cursor.fetchone()
    return None if row is None else row[0]


async def _newest(connection: Connection) -> int:
    cursor = await connection.execute(queries("outbox")["newest"])
    row = await cursor.fetchone()
    assert row is not None
    place: int = row[0]
    return place


def _ids(organisations: Collection[int] | None) -> list[int] | None:
    return None if organisations is None else sorted(organisations)
