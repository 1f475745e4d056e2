"""The one bounded writer of readings: COPY to staging, one statement that files, and nothing is lost.

Callers' rows are gathered into batches. A batch is one transaction on the writer's own connection;
`file` returns after its COMMIT. When the database goes away the batch is kept and tried again, with
backoff, until it is filed: filing a row twice changes nothing, so a COMMIT whose answer was lost does
no harm. The conflict rule stands in queries/readings.sql at `file_staged`.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from operator import itemgetter
from types import TracebackType
from typing import Protocol, Self

import psycopg
from psycopg import AsyncConnection

from gateway.errors import StorageError
from gateway.model import ReadingRow
from gateway.storage.database import (
    CONNECT_SECONDS,
    Connection,
    Database,
    connection_arguments,
    first_line,
    queries,
)

BATCH_ROWS = 20_000
"""Batches of 1,000 cost 40 % of the speed; larger ones gain nothing and hold the callers longer."""
ROWS_A_TURN = 500
"""Rows written before others have their turn: one or two milliseconds' work."""
QUEUE_ROWS = 100_000
"""Rows handed in and not committed, about 40 MB; `file` waits for room above it. It rides out seconds of a
midnight and hours of a quiet day; a session that waits here simply asks its terminal for nothing more."""
IDLE_SECONDS = 0.005
"""How long the first row of a batch waits for company."""
BATCH_SECONDS = 120.0
"""A batch takes a tenth of a second; a server that holds it so long hangs, and the connection is given up."""
RETRY_SECONDS = (0.1, 5.0)
"""Pause after the database was lost: the first, doubled each time up to the last, each with jitter."""
CLOSE_SECONDS = 5.0
"""What still waits when the writer is closed has this long to be filed: the gateway stops within 10 s."""

_FILING_LOCK = 0x4C44_0002
"""Key of the advisory lock under which readings are filed."""
_STAGING_TYPES = (
    *("int8", "int2", "int2", "timestamptz", "int8", "int8", "int8", "int8", "int8", "int8[]"),
    *("timestamptz", "timestamptz", "int2", "int2", "int4"),
)
_meter = itemgetter(0)
_key = itemgetter(0, 1, 2, 3)
_REFUSED = (psycopg.Error, ValueError, TypeError, OverflowError)
"""The server, or the driver before it, refuses a value: the same rows would never pass."""
_TRY_AGAIN = (psycopg.OperationalError, psycopg.InterfaceError, psycopg.InternalError, TimeoutError, OSError)
"""The server is away, hangs, restarts, is full, or has become a standby: the same rows may pass later."""


@dataclass(frozen=True, slots=True)
class Filed:
    """What became of the rows of one `file` call, counted in rows; together they are the rows given."""

    new: int = 0
    filled: int = 0
    """one stood and agreed; it took an absent register, finer digits or a better source from the new one"""
    equal: int = 0
    won: int = 0
    """differed and replaced the one that stood, which is kept in reading_conflict"""
    lost: int = 0
    """differed and is kept in reading_conflict; the one that stood stays"""

    @property
    def conflicts(self) -> int:
        """Rows that differed from the one that stood."""
        return self.won + self.lost

    def __add__(self, other: Filed) -> Filed:
        return Filed(
            self.new + other.new,
            self.filled + other.filled,
            self.equal + other.equal,
            self.won + other.won,
            self.lost + other.lost,
        )


class WriterMetrics(Protocol):
    """What the writer tells while it works; the metrics room hands in an object that counts it."""

    def batch_filed(self, rows: int, seconds: float, filed: Filed) -> None:
        """A batch was committed; seconds from its first byte to its COMMIT."""

    def rows_waiting(self, rows: int) -> None:
        """Rows handed in and not committed."""

    def database_lost(self, reason: str) -> None:
        """A batch could not be filed; it is kept and will be tried again."""


class _Nobody:
    def batch_filed(self, rows: int, seconds: float, filed: Filed) -> None: ...

    def rows_waiting(self, rows: int) -> None: ...

    def database_lost(self, reason: str) -> None: ...


@dataclass(frozen=True, slots=True)
class _Call:
    """One `file` call that waits; its caller may have cancelled `done`, the rows are filed all the same."""

    rows: Sequence[ReadingRow]
    done: asyncio.Future[Filed]


class ReadingWriter:
    """Files readings. `async with`; at its end what waits is filed, for at most CLOSE_SECONDS."""

    def __init__(
        self,
        database: Database,
        metrics: WriterMetrics | None = None,
        *,
        batch_rows: int = BATCH_ROWS,
        queue_rows: int = QUEUE_ROWS,
        idle_seconds: float = IDLE_SECONDS,
    ) -> None:
        self._database = database
        self._metrics: WriterMetrics = metrics or _Nobody()
        self._batch_rows = batch_rows
        self._queue_rows = max(queue_rows, batch_rows)
        self._idle_seconds = idle_seconds
        self._queue: deque[_Call] = deque()
        self._batch: list[_Call] = []
        self._rows_queued = 0
        self._rows_waiting = 0
        self._arrived = asyncio.Event()
        self._full = asyncio.Event()
        self._room: deque[asyncio.Future[None]] = deque()
        self._connection: Connection | None = None
        self._task: asyncio.Task[None] | None = None
        self._closing = False
        self.trouble: str | None = None
        """why the batch at hand is not filed yet; None while all is well"""

    @property
    def rows_waiting(self) -> int:
        """Rows handed in and not committed."""
        return self._rows_waiting

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._work(), name="writer of readings")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._task is not None
        self._closing = True
        for event in (self._arrived, self._full):
            event.set()
        self._make_room()
        try:
            await asyncio.wait([self._task], timeout=CLOSE_SECONDS)
        finally:
            while not self._task.done():
                self._task.cancel()
                # The driver first tries to cancel the statement in the server; a second cancel gives that up.
                await asyncio.wait([self._task], timeout=1.0)
            await self._disconnect()
        if not self._task.cancelled():
            self._task.result()

    async def file(self, rows: Sequence[ReadingRow]) -> Filed:
        """File rows; returns only after COMMIT, with what became of these rows.

        Waits while the database is away. Rows of one key are filed one after another in the order given. More
        rows than a batch holds are filed batch by batch. StorageError: the database refuses a row for good
        (then no row of that batch of this call is filed), or the writer was closed first. A caller that is
        cancelled here leaves its rows with the writer: they will be filed.
        """
        if len(rows) <= self._batch_rows:
            return await self._hand_in(rows) if rows else Filed()
        filed = Filed()
        for start in range(0, len(rows), self._batch_rows):
            filed += await self._hand_in(rows[start : start + self._batch_rows])
        return filed

    async def _hand_in(self, rows: Sequence[ReadingRow]) -> Filed:
        loop = asyncio.get_running_loop()
        while not self._closing and self._rows_waiting + len(rows) > self._queue_rows:
            room: asyncio.Future[None] = loop.create_future()
            self._room.append(room)
            await room
        if self._closing or self._task is None or self._task.done():
            raise StorageError("the writer of readings is closed; these readings are not filed")
        call = _Call(rows, loop.create_future())
        self._queue.append(call)
        self._rows_queued += len(rows)
        self._count(len(rows))
        self._arrived.set()
        if self._rows_queued >= self._batch_rows:
            self._full.set()
        return await call.done

    def _count(self, rows: int) -> None:
        self._rows_waiting += rows
        self._metrics.rows_waiting(self._rows_waiting)

    def _make_room(self) -> None:
        while self._room:
            room = self._room.popleft()
            if not room.done():
                room.set_result(None)

    async def _work(self) -> None:
        try:
            while await self._gather_batch():
                await self._file_for_sure(self._batch)
                self._count(-sum(len(call.rows) for call in self._batch))
                self._batch = []
                self._make_room()
        finally:
            self._closing = True
            for call in (*self._batch, *self._queue):
                _refuse(call, f"stopped before these readings were filed ({self.trouble or 'no time left'})")
            self._make_room()

    async def _gather_batch(self) -> bool:
        """Take what waits, at most a batch; False when the writer is closed and nothing waits."""
        while not self._queue:
            if self._closing:
                return False
            self._arrived.clear()
            await self._arrived.wait()
        if not self._full.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(self._idle_seconds):
                    await self._full.wait()
        rows = 0
        while self._queue and (not rows or rows + len(self._queue[0].rows) <= self._batch_rows):
            call = self._queue.popleft()
            rows += len(call.rows)
            self._batch.append(call)
        self._rows_queued -= rows
        if self._rows_queued < self._batch_rows and not self._closing:
            self._full.clear()
        return True

    async def _file_for_sure(self, calls: list[_Call]) -> None:
        """File until the database has committed or refused; call by call where it refuses the batch."""
        pause, longest = RETRY_SECONDS
        while True:
            started = time.monotonic()
            try:
                async with asyncio.timeout(BATCH_SECONDS):
                    told = await self._file_once(calls)
                break
            except psycopg.errors.ProgramLimitExceeded as error:
                return await self._refuse_or_divide(calls, error)
            except _TRY_AGAIN as error:
                self.trouble = first_line(error)
                self._metrics.database_lost(self.trouble)
                await self._disconnect()
                await asyncio.sleep(pause * random.uniform(0.5, 1.0))
                pause = min(pause * 2, longest)
            except _REFUSED as error:
                return await self._refuse_or_divide(calls, error)
        self.trouble = None
        for place, call in enumerate(calls):
            if not call.done.done():
                call.done.set_result(_filed(len(call.rows), told.get(place)))
        rows = sum(len(call.rows) for call in calls)
        whole = sum((Counter(counts) for counts in told.values()), Counter[str]())
        self._metrics.batch_filed(rows, time.monotonic() - started, _filed(rows, whole))

    async def _refuse_or_divide(self, calls: list[_Call], error: Exception) -> None:
        if len(calls) == 1:
            _refuse(calls[0], f"the database refuses these readings ({first_line(error)})")
            return
        for call in calls:
            await self._file_for_sure([call])

    async def _file_once(self, calls: list[_Call]) -> dict[int, Counter[str]]:
        """One transaction for the batch; returns by a call's place what became of rows that were not new."""
        statements = queries("readings")
        told: dict[int, Counter[str]] = {}
        connection = await self._connect()
        async with connection.transaction(), connection.cursor() as cursor:
            for number, rows in enumerate(_rounds(calls)):
                if number:
                    await cursor.execute(statements["empty_staging"])
                async with cursor.copy(statements["copy_staging"]) as copy:
                    copy.set_types(_STAGING_TYPES)
                    for done, row in enumerate(rows):
                        await copy.write_row(row)
                        if done % ROWS_A_TURN == 0:  # writing to a buffer gives nobody else a turn
                            await asyncio.sleep(0)
                await cursor.execute(statements["take_turn"], (_FILING_LOCK,))
                # Never a prepared plan: one made while a table was small would be kept when it has grown.
                await cursor.execute(statements["file_staged"], prepare=False)
                for place, outcome, count in await cursor.fetchall():
                    told.setdefault(place, Counter())[outcome] += count
        return told

    async def _connect(self) -> Connection:
        """The writer's own connection, with its staging table."""
        if self._connection is None:
            connection: Connection = await AsyncConnection.connect(
                self._database.conninfo,
                autocommit=True,
                **connection_arguments(CONNECT_SECONDS, BATCH_SECONDS, "lingdian writer"),
            )
            self._connection = connection
            await connection.execute(queries("readings")["create_staging"])
            if self._database.has_timescale:
                await connection.execute(queries("readings")["lift_decompression_limit"])
        return self._connection

    async def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()


async def would_file(database: Database, rows: Sequence[ReadingRow]) -> Filed:
    """What `ReadingWriter.file` would make of rows whose keys all differ, by the same statement; nothing is
    kept. StorageError where the database refuses a row, or is away."""
    filed = Filed()
    for start in range(0, len(rows), BATCH_ROWS):
        filed += await _would_file(database, rows[start : start + BATCH_ROWS])
    return filed


async def _would_file(database: Database, rows: Sequence[ReadingRow]) -> Filed:
    statements = queries("readings")
    counts: Counter[str] = Counter()
    async with (
        database.connection() as connection,
        connection.transaction(force_rollback=True),
        connection.cursor() as cursor,
    ):
        await cursor.execute(statements["create_staging"])
        async with cursor.copy(statements["copy_staging"]) as copy:
            copy.set_types(_STAGING_TYPES)
            for row in rows:
                await copy.write_row((*row, 0))
        await cursor.execute(statements["take_turn"], (_FILING_LOCK,))
        await cursor.execute(statements["file_staged"], prepare=False)
        for _, outcome, count in await cursor.fetchall():
            counts[outcome] += count
    return _filed(len(rows), counts)


def _rounds(calls: list[_Call]) -> Iterator[Iterator[tuple[object, ...]]]:
    """The rows for staging, each with its call's place; a key that comes n times is spread over n rounds."""
    if _all_differ(calls, _meter) or _all_differ(calls, _key):
        yield ((*row, place) for place, call in enumerate(calls) for row in call.rows)
        return
    seen: Counter[tuple[object, ...]] = Counter()
    rounds: list[list[tuple[object, ...]]] = []
    for place, call in enumerate(calls):
        for row in call.rows:
            key = _key(row)
            if seen[key] == len(rounds):
                rounds.append([])
            rounds[seen[key]].append((*row, place))
            seen[key] += 1
    yield from map(iter, rounds)


def _filed(rows: int, told: Counter[str] | None) -> Filed:
    if not told:
        return Filed(new=rows)
    return Filed(rows - told.total(), told["filled"], told["equal"], told["won"], told["lost"])


def _all_differ(calls: list[_Call], part: Callable[[ReadingRow], object]) -> bool:
    """Does no `part` come twice? Meters alone are looked at first, since that is three times as quick."""
    seen: set[object] = set()
    for call in calls:
        seen.update(map(part, call.rows))
    return len(seen) == sum(len(call.rows) for call in calls)


def _refuse(call: _Call, message: str) -> None:
    if not call.done.done():
        call.done.set_exception(StorageError(message))
