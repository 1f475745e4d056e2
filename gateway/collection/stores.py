"""What the collector needs of sessions, database and writer, as doors; and the real ones behind them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Sequence
from collections.abc import Set as AbstractSet
from datetime import datetime
from typing import Final, Protocol

from gateway.collection.plan import StoredKey
from gateway.model import Due, Failure, Kind, Point, Quantity, ReadingRow, TerminalAssets
from gateway.session.answers import FrozenAnswer, ReadingProgress
from gateway.session.meter import confirms, read_meter_freeze
from gateway.session.terminal import TerminalSession
from gateway.storage import assets, gaps
from gateway.storage.database import Database, queries


class Session(Protocol):
    """A terminal's login: the part of `TerminalSession` that collecting uses."""

    @property
    def address(self) -> str: ...
    @property
    def assets(self) -> TerminalAssets: ...
    @property
    def alive(self) -> bool: ...
    @property
    def contested(self) -> bool: ...
    @property
    def archive_in_doubt(self) -> bool: ...
    async def ready(self) -> None: ...
    def points_a_request(self, quantity: Quantity, kind: Kind) -> int: ...
    async def read_frozen(self, dues: Sequence[Due]) -> FrozenAnswer: ...
    async def reading_state(self) -> list[ReadingProgress] | None: ...


class Sessions(Protocol):
    """Who is logged in: the part of `Registry` that collecting uses."""

    def session(self, address: str) -> Session | None: ...
    def sessions(self) -> Iterable[Session]: ...
    def contested(self, address: str) -> bool: ...
    def gives_way(self) -> bool: ...
    def on_login(self, callback: Callable[[Session], None]) -> None: ...


class Files(Protocol):
    """The writer: `file` returns after COMMIT; StorageError where the rows are refused for good."""

    async def file(self, rows: Sequence[ReadingRow]) -> object: ...


class Store(Protocol):
    """What the database knows. Every method may raise StorageError."""

    def addresses(self) -> AsyncIterator[str]:
        """Every terminal of the assets."""
        ...

    async def terminal(self, address: str) -> TerminalAssets | None: ...

    async def stored(self, meter_ids: Collection[int], frozen_at: datetime) -> AbstractSet[StoredKey]: ...

    async def note_failures(self, failures: Sequence[Failure], at: datetime) -> None: ...


class AskMeter(Protocol):
    """Reads the meter's own freeze of that midnight through the terminal. LinkClosed where the link ends."""

    async def __call__(self, session: Session, point: Point, due: Due, /) -> ReadingRow | Failure: ...


LOOKUPS_AT_ONCE: Final = 4
"""Of hundreds of terminals: about what the server can do at once, and fewer than the pool has connections, so
that neither a person nor another terminal waits in vain for one."""


class ConfirmRow(Protocol):
    """Does the meter's own freeze equal the terminal's value `row`? None where it cannot tell. LinkClosed."""

    async def __call__(self, session: Session, point: Point, row: ReadingRow, /) -> bool | None: ...


class CollectionStore:
    """`Store` over the database."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._room = asyncio.Semaphore(LOOKUPS_AT_ONCE)

    async def addresses(self) -> AsyncIterator[str]:
        async with self._database.connection() as connection:
            cursor = await connection.execute(queries("collection")["terminal_addresses"])
            addresses = await cursor.fetchall()
        for (address,) in addresses:
            yield address

    async def terminal(self, address: str) -> TerminalAssets | None:
        async with self._room:
            return await assets.terminal(self._database, address)

    async def stored(self, meter_ids: Collection[int], frozen_at: datetime) -> AbstractSet[StoredKey]:
        async with self._room:
            return await gaps.stored(self._database, meter_ids, frozen_at)

    async def note_failures(self, failures: Sequence[Failure], at: datetime) -> None:
        async with self._room:
            await gaps.note_failures(self._database, failures, at)


async def ask_meter(session: Session, point: Point, due: Due, /) -> ReadingRow | Failure:
    """`AskMeter` over a real session."""
    return await read_meter_freeze(_real(session), point, due)


async def confirm_row(session: Session, point: Point, row: ReadingRow, /) -> bool | None:
    """`ConfirmRow` over a real session."""
    return await confirms(_real(session), point, row)


def _real(session: Session) -> TerminalSession:
    if not isinstance(session, TerminalSession):
        raise TypeError(f"{session!r} is no session with a terminal")
    return session
