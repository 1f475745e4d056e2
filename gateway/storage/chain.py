"""The seal over what happened: events chain per command, and seals chain over all of them.

One writer at a time takes the events that are not sealed yet and keeps one digest over them and the digest
before it. Whoever changes an event, a seal or a command afterwards, with whatever rights in the database, is
found by `verify`; whoever makes all of it anew is found by a newest seal that was kept elsewhere. The
statements are in queries/chain.sql.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple
from uuid import UUID

import structlog

from gateway.clock import Clock
from gateway.command import canonical, chained
from gateway.errors import StorageError
from gateway.storage import frame_secret
from gateway.storage.database import Connection, Database, queries
from gateway.storage.event_bodies import ROW_COLUMNS, comparable, determined, differing, row_told
from gateway.storage.leases import lease

log = structlog.get_logger()

LEASE: Final = "relay chain"

SEALED_AT_ONCE: Final = 5000
"""Events in one seal at most."""

SEAL_SECONDS: Final = 1.0
"""So long what happened may stay unsealed."""

FAULTS_SHOWN: Final = 100
"""More faults than a person looks at; one is enough."""

_STREAMED: Final = 2000
"""Rows held at a time while verifying."""


@dataclass(frozen=True, slots=True)
class Seal:
    """One seal. digest: SHA-256 over the digest before it and what it seals."""

    id: int
    at: datetime
    digest: bytes


class Fault(NamedTuple):
    """Something that is not as it was written. place: of what; what: for a person."""

    place: str
    what: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """What `verify` has found. events, seals: so many were looked at."""

    faults: tuple[Fault, ...]
    events: int
    seals: int
    unsealed: int
    newest: Seal | None


def sealed(before: bytes, seal_id: int, at: datetime, events: Sequence[tuple[int, bytes]]) -> bytes:
    """The digest of a seal over these events (their numbers and hashes), after the digest `before`."""
    body = {
        "seal": seal_id,
        "at": at.astimezone(UTC).isoformat(),
        "events": [[event_id, hashed.hex()] for event_id, hashed in events],
    }
    return hashlib.sha256(before + canonical(body)).digest()


class Sealer:
    """Seals under the lease, so that one process does. Run it with `run` until it is cancelled."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        *,
        on_sealed: Callable[[Seal], Awaitable[None]] | None = None,
        seconds: float = SEAL_SECONDS,
    ) -> None:
        """on_sealed: told of each seal after it is durable; what keeps it outside the database."""
        self._database = database
        self._clock = clock
        self._on_sealed = on_sealed
        self._seconds = seconds

    async def run(self) -> None:
        """Seal whenever there is something, for as long as this runs; without a database it waits for one."""
        while True:
            try:
                async with lease(self._database, LEASE, self._clock.sleep) as held:
                    while True:
                        await held.renew()
                        if not await self.seal():
                            await self._clock.sleep(self._seconds)
            except StorageError as error:
                log.warning("events of relay commands are not sealed now", error=str(error))
                await self._clock.sleep(self._seconds)

    async def seal(self) -> Seal | None:
        """One seal over what is not sealed yet; None where there is nothing. StorageError: nothing was done,
        also where another one seals."""
        seal = await seal_some(self._database, self._clock.now())
        if seal is not None and self._on_sealed is not None:
            await self._on_sealed(seal)
        return seal


async def seal_some(database: Database, at: datetime, limit: int = SEALED_AT_ONCE) -> Seal | None:
    """One transaction: the oldest events that are not sealed, up to `limit`."""
    statements = queries("chain")
    async with database.connection() as connection:
        cursor = await connection.execute(statements["unsealed"], (limit,))
        events = [(event_id, bytes(hashed)) for event_id, hashed in await cursor.fetchall()]
        if not events:
            return None
        last = await _newest(connection)
        seal_id, before = (1, b"") if last is None else (last.id + 1, last.digest)
        seal = Seal(seal_id, at, sealed(before, seal_id, at, events))
        numbers = [event_id for event_id, _ in events]
        await connection.execute(statements["seal"], (seal_id, at, numbers, seal.digest))
        cursor = await connection.execute(statements["mark"], (seal_id, numbers))
        if cursor.rowcount != len(numbers):
            raise StorageError("another process seals events too: nothing was sealed; try again later")
        return seal


async def newest(database: Database) -> Seal | None:
    """The newest seal in the database."""
    async with database.connection() as connection:
        return await _newest(connection)


async def seal_of(database: Database, seal_id: int) -> Seal | None:
    """A seal by its number."""
    async with database.connection() as connection:
        cursor = await connection.execute(queries("chain")["one"], (seal_id,))
        row = await cursor.fetchone()
    return None if row is None else Seal(row[0], row[1], bytes(row[2]))


async def commands_exist(database: Database) -> bool:
    """Was ever a relay command accepted here?"""
    async with database.connection() as connection:
        cursor = await connection.execute(queries("chain")["any_command"])
        return await cursor.fetchone() is not None


async def _newest(connection: Connection) -> Seal | None:
    cursor = await connection.execute(queries("chain")["newest"])
    row = await cursor.fetchone()
    return None if row is None else Seal(row[0], row[1], bytes(row[2]))


async def verify(database: Database, kept: Seal | None = None) -> Verdict:
    """Recompute everything from the rows as they are; any edit, removal or exchange gives a fault.

    kept: a seal that was written down outside the database; it must be found in it. Rows are streamed: memory
    does not grow with the history. At most FAULTS_SHOWN faults are told.
    """
    check = _Check()
    async with database.connection() as connection:
        await connection.execute(queries("chain")["as_of_now"])
        await connection.execute(queries("chain")["no_hurry"])
        await check.events(connection)
        await check.commands(connection)
        await check.intents(connection)
        await check.seals(connection)
        last = await _newest(connection)
        if kept is not None:
            cursor = await connection.execute(queries("chain")["one"], (kept.id,))
            row = await cursor.fetchone()
            if row is None or bytes(row[2]) != kept.digest:
                check.fault(f"seal {kept.id}", "the seal kept outside is not in this database")
    return Verdict(tuple(check.faults), check.seen, check.seal_count, check.unsealed, last)


class _Check:
    """One verification under way."""

    def __init__(self) -> None:
        self.faults: list[Fault] = []
        self.seen = 0
        self.seal_count = 0
        self.unsealed = 0

    def fault(self, place: str, what: str) -> None:
        if len(self.faults) < FAULTS_SHOWN:
            self.faults.append(Fault(place, what))

    async def events(self, connection: Connection) -> None:
        """Each command's events: numbered without a gap, each hash over the one before and its own body."""
        command: UUID | None = None
        count, before = 0, b""
        async for command_id, n, at, kind, state, body, hashed, seal_id in _stream(connection, "events"):
            if command_id != command:
                command, count, before = command_id, 0, b""
            count += 1
            self.seen += 1
            self.unsealed += seal_id is None
            place = f"command {command_id} event {n}"
            if n != count:
                self.fault(place, f"event {count} is missing")
                count = n
            told = (str(command_id), n, at.astimezone(UTC).isoformat(), kind, state)
            if told != tuple(body.get(name) for name in ("command", "n", "at", "kind", "state")):
                self.fault(place, "the columns are not what the body says")
            if _hash(before, body) != bytes(hashed):
                self.fault(place, "the hash is not that of the event and the one before it")
            before = bytes(hashed)

    async def commands(self, connection: Connection) -> None:
        """Each command: where its events end, and every column that they determine."""
        secret = await frame_secret.find(connection)
        async for *row, events, chain, last_hash, bodies in _stream(connection, "commands"):
            place = f"command {row[0]}"
            found = len(bodies or ())
            if found != events or (b"" if last_hash is None else bytes(last_hash)) != bytes(chain):
                self.fault(place, f"it has {found} events and not the {events} that were written")
            told = _determined(bodies or ())
            if told is None:
                self.fault(place, "its events do not say what it is")
                continue
            kept = comparable(row_told(row, secret), told)
            for name in differing(kept, told):
                self.fault(place, f"its {name} is {kept.get(name)!r}, and its events say {told.get(name)!r}")

    async def intents(self, connection: Connection) -> None:
        """Each meter's commands: one for every intent that was ever given out."""
        async for meter_id, intent, commands, highest in _stream(connection, "intents"):
            if not intent == commands == highest:
                self.fault(
                    f"meter {meter_id}", f"{commands} commands up to {highest}, and {intent} were made"
                )

    async def seals(self, connection: Connection) -> None:
        """Each seal over the one before it and its events, none missing; no event in a seal that is not
        there."""
        before, expected = b"", 1
        async for seal_id, at, numbers, digest, hashes, marked in _stream(connection, "seals"):
            self.seal_count += 1
            place = f"seal {seal_id}"
            if seal_id != expected:
                self.fault(place, f"seal {expected} is missing")
            expected = seal_id + 1
            found = [
                (number, b"" if hashed is None else bytes(hashed))
                for number, hashed in zip(numbers, hashes, strict=True)
            ]
            if any(not hashed for _, hashed in found) or marked != len(numbers):
                self.fault(place, "an event that it seals is missing, or one more claims to be sealed by it")
            if sealed(before, seal_id, at, found) != bytes(digest):
                self.fault(place, "the digest is not that of its events and the seal before it")
            before = bytes(digest)
        cursor = await connection.execute(queries("chain")["orphans"])
        async for event_id, seal_id in cursor:
            self.fault(f"event {event_id}", f"it claims seal {seal_id}, which is not there")


def _determined(bodies: Sequence[Any]) -> dict[str, Any] | None:
    try:
        return determined(bodies) if bodies else None
    except (KeyError, TypeError, ValueError, AttributeError):
        return None


def _hash(before: bytes, body: Any) -> bytes | None:
    try:
        return chained(before, body)
    except TypeError:  # a float: it was not written by us
        return None


async def _stream(connection: Connection, name: str) -> AsyncIterator[tuple[Any, ...]]:
    async with connection.cursor(name) as cursor:
        cursor.itersize = _STREAMED
        await cursor.execute(queries("chain")[name].replace(b"%ROW%", ROW_COLUMNS.encode()))
        async for row in cursor:
            yield row
