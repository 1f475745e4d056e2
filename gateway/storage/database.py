"""One door to PostgreSQL: pool, named SQL, forward-only migrations, with and without TimescaleDB."""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import select
import socket
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import cache
from importlib import resources
from types import MappingProxyType, TracebackType
from typing import Any, Self, TypeAlias
from weakref import WeakKeyDictionary

import psycopg
from psycopg import AsyncConnection
from psycopg.rows import TupleRow
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from gateway.cancellation import cancellable
from gateway.errors import StorageError

Connection: TypeAlias = AsyncConnection[TupleRow]

CONNECT_SECONDS = 10
"""A server that does not answer a connect for longer is treated as away."""
STATEMENT_SECONDS = 60
"""No statement of a session needs longer; exports, imports and migrations lift the limit for themselves."""
POOL_CONNECTIONS = 8
"""Enough for the API and the collector side by side; the writer holds a connection of its own."""
RECONNECT_SECONDS = 2.0
"""How long the pool itself tries for a lost connection. It doubles its pauses: a longer time would leave a
server that is back unused for as long as it was away; a caller that comes later makes it try at once."""
CHECK_SECONDS = 2.0
"""A connection of the pool that has not answered nothing at all by then is given up."""
LATELY_SECONDS = 1.0
"""A connection that was used within this time is not asked whether it is alive, if nothing came on it."""
PROMPT_SECONDS = 5.0
"""What must not wait for a silent server waits so long; see `Database.within`."""
OLDEST_SERVER = 15_00_00
"""PostgreSQL 15: the schema uses UNIQUE NULLS NOT DISTINCT."""

_MIGRATION_LOCK = 0x4C44_0001
"""Key of the advisory lock under which migrations run: two gateways may start at once."""
_TIMESCALE_SUFFIX = ".timescale.sql"
"""A migration named so is applied where the extension is: now, or at the first start after it came."""
_NO_SEGMENTS = (
    "SELECT set_config(name, '', true) FROM pg_settings"
    " WHERE name = 'timescaledb.compression_segmentby_default_function'"
)
"""TimescaleDB 2.15 to 2.19 chooses a column to segment by where none is named, and then finds that it is one
of those to order by."""
_QUERY_NAME = re.compile(r"^-- name: (\w+)$", re.MULTILINE)


class Database:
    """A pool of connections to one database whose schema is ours.

    Every connection speaks UTC, UTF-8 and has statement_timeout set. Make it with `open`, end it with `close`
    or `async with`.
    """

    def __init__(
        self,
        conninfo: str,
        pool: AsyncConnectionPool[Connection],
        has_timescale: bool,
        within: float | None = None,
    ) -> None:
        self.conninfo = conninfo
        self.pool = pool
        self.has_timescale = has_timescale
        """Is the TimescaleDB extension in this database? Known after `open`, renewed by `migrate`."""
        self._within = within

    def within(self, seconds: float = PROMPT_SECONDS) -> Database:
        """The same database and pool, for what must not hang: a connection is had within `seconds`, and used
        within `seconds`, or StorageError is raised, also where the server is there and says nothing."""
        return Database(self.conninfo, self.pool, self.has_timescale, seconds)

    @classmethod
    async def open(
        cls,
        conninfo: str,
        *,
        connections: int = POOL_CONNECTIONS,
        connect_timeout: float = CONNECT_SECONDS,
        statement_timeout: float = STATEMENT_SECONDS,
    ) -> Database:
        """Connect and look at the server. StorageError where it cannot be reached or is too old."""
        arguments = connection_arguments(connect_timeout, statement_timeout)
        async with _reached(conninfo), await AsyncConnection.connect(conninfo, **arguments) as connection:
            version = connection.info.server_version
            if version < OLDEST_SERVER:
                raise StorageError(
                    f"the database server is version {version // 10000};"
                    f" {OLDEST_SERVER // 10000} or newer is needed"
                )
            encoding = connection.info.parameter_status("server_encoding")
            if encoding != "UTF8":
                raise StorageError(f"the database is encoded in {encoding}; create it with ENCODING 'UTF8'")
            has_timescale = await _extension_installed(connection)

        async def alive(connection: Connection) -> None:
            # The pool pauses ever longer after each dead connection that it was about to give: a server that
            # has restarted would stay out of reach while all of them are met. One dead, look at all.
            if answered_lately(connection):
                return
            try:
                await pool.check_connection(connection)
            except Silent:
                raise  # the others may be as silent, one after the other
            except psycopg.Error:
                await pool.check()
                raise

        pool = _Pool(
            conninfo,
            connection_class=AsyncConnection[TupleRow],
            kwargs=arguments,
            min_size=1,
            max_size=connections,
            timeout=connect_timeout,
            reconnect_timeout=RECONNECT_SECONDS,
            check=alive,
            open=False,
        )
        await pool.open()
        return cls(conninfo, pool, has_timescale)

    async def close(self) -> None:
        """Give the connections back; what is running is waited for briefly and then dropped."""
        await self.pool.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """A connection in a transaction: committed at the end, rolled back on an error.

        A lost or silent server becomes StorageError (trying again may help); a value the database refuses
        becomes StorageError too (trying again does not help).
        """
        async with self._taken(autocommit=False) as connection:
            yield connection

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[Connection]:
        """A connection for single statements that read; errors as `connection` has them.

        Each is a transaction by itself: to begin and to end one would take two more turns with the server.
        """
        async with self._taken(autocommit=True) as connection:
            yield connection

    @asynccontextmanager
    async def _taken(self, *, autocommit: bool) -> AsyncIterator[Connection]:
        wait = None if self._within is None else self._within - CHECK_SECONDS
        async with _reached(self.conninfo):
            with cut_after(self._within) as patience:
                async with self.pool.connection(timeout=wait) as connection:
                    patience.begin(connection)
                    if connection.autocommit is not autocommit:
                        await connection.set_autocommit(autocommit)
                    yield connection

    async def migrate(self) -> list[str]:
        """Bring the schema to this program's; returns the names of the migrations applied now.

        Each runs in a transaction of its own, in the order of their names, once. StorageError where the
        database was made by a newer program or an applied migration has been edited since.
        """
        arguments = connection_arguments(CONNECT_SECONDS, 0)
        async with _reached(self.conninfo):
            connection: Connection = await AsyncConnection.connect(
                self.conninfo, autocommit=True, **arguments
            )
            async with connection:
                await connection.execute("SELECT pg_advisory_lock(%s)", (_MIGRATION_LOCK,))
                self.has_timescale = await _timescale_wanted(connection)
                return await _apply_pending(connection, self.has_timescale)


_asked: WeakKeyDictionary[Connection, float] = WeakKeyDictionary()
"""when each was last given out; monotonic"""


def answered_lately(connection: Connection) -> bool:
    """Need this connection not be looked at, as it was given out just before and its server has not ended it?

    One look costs as much as a statement. A server that ends a connection says so or closes it: there is
    something to read on it then."""
    now = time.monotonic()
    lately = now - _asked.get(connection, 0.0) < LATELY_SECONDS
    _asked[connection] = now
    if not lately or connection.closed:
        return False
    ready = select.poll()  # select.select takes no descriptor above 1023
    ready.register(connection.fileno(), select.POLLIN)
    return not ready.poll(0)


class Silent(psycopg.OperationalError):
    """A connection was ended here since nothing came on it in time."""


class _Pool(AsyncConnectionPool[Connection]):
    """Looks at a connection for CHECK_SECONDS at most. Who is told to end as one comes free hears it."""

    async def getconn(self, timeout: float | None = None) -> Connection:
        return await cancellable(super().getconn(timeout), undo=self.putconn)

    @staticmethod
    async def check_connection(conn: Connection) -> None:
        with cut_after(CHECK_SECONDS) as patience:
            patience.begin(conn)
            await AsyncConnectionPool.check_connection(conn)


class Patience:
    """With one connection, for a time; see `cut_after`."""

    def __init__(self, seconds: float | None) -> None:
        self.seconds = seconds
        self.lost = False
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, connection: Connection) -> None:
        """The time runs from now on, for this connection."""
        if self.seconds is not None:
            self._timer = asyncio.get_running_loop().call_later(self.seconds, self._cut, connection)

    def _cut(self, connection: Connection) -> None:
        self.lost = True
        with suppress(OSError, psycopg.Error), socket.socket(fileno=os.dup(connection.fileno())) as end:
            end.shutdown(socket.SHUT_RDWR)

    def end(self) -> None:
        if self._timer is not None:
            self._timer.cancel()


@contextmanager
def cut_after(seconds: float | None) -> Iterator[Patience]:
    """End a connection that is used here for longer; None: never. Whoever waits for it then gets Silent.

    A server that is stopped or hangs keeps its connections and says nothing. Cancelling does not help then:
    the driver has the server cancel, and waits for that in its turn, ten seconds and more.
    """
    patience = Patience(seconds)
    try:
        yield patience
    except psycopg.OperationalError as error:
        if patience.lost:
            raise Silent(f"no answer within {seconds:g} s") from error
        raise
    finally:
        patience.end()


def connection_arguments(
    connect_timeout: float, statement_timeout: float, name: str = "lingdian"
) -> dict[str, Any]:
    """What every connection of the house is opened with. Timeouts in seconds; statement_timeout 0 = none.
    `name` is how the connection is listed in pg_stat_activity.

    The planner is told that a page read at random costs what one read in turn does: what is asked for all day
    is in memory. With the default, one terminal's points are found by reading all meters.
    """
    return {
        "application_name": name,
        "connect_timeout": max(2, round(connect_timeout)),
        "client_encoding": "UTF8",
        "tcp_user_timeout": 15_000,
        "options": f"-c statement_timeout={round(statement_timeout * 1000)} -c timezone=UTC -c jit=off"
        " -c random_page_cost=1.1",
    }


@cache
def queries(room: str) -> Mapping[str, bytes]:
    """The statements of queries/<room>.sql by name; each begins with its line of description."""
    text = resources.files("gateway.storage").joinpath("queries", f"{room}.sql").read_text(encoding="utf-8")
    _, *parts = _QUERY_NAME.split(text)
    return MappingProxyType(
        {name: statement.strip().encode() for name, statement in zip(parts[::2], parts[1::2], strict=True)}
    )


@asynccontextmanager
async def _reached(conninfo: str) -> AsyncIterator[None]:
    """Turn the driver's errors into ours, each with what to do."""
    try:
        yield
    except (psycopg.OperationalError, psycopg.InterfaceError, PoolTimeout) as error:
        where = _place(conninfo)
        raise StorageError(
            f"database {where} cannot be used now ({first_line(error)}); try again later"
        ) from error
    except psycopg.Error as error:
        raise StorageError(
            f"the database refuses this ({first_line(error)}); trying again does not help"
        ) from error


def _place(conninfo: str) -> str:
    """Host, port and name for a message: never the password."""
    try:
        parts = psycopg.conninfo.conninfo_to_dict(conninfo)
    except psycopg.Error:
        return "(unreadable address)"
    return f"{parts.get('dbname', '')} at {parts.get('host', 'local')}:{parts.get('port', 5432)}"


def first_line(error: BaseException) -> str:
    """What an error says, in one line."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


async def _extension_installed(connection: Connection) -> bool:
    cursor = await connection.execute("SELECT 1 FROM pg_extension WHERE extname = 'timescaledb'")
    return await cursor.fetchone() is not None


async def _timescale_wanted(connection: Connection) -> bool:
    """Is TimescaleDB here? Where the server has it loaded and we may, it is switched on in this database."""
    if await _extension_installed(connection):
        return True
    cursor = await connection.execute(
        "SELECT 1 FROM pg_available_extensions, current_setting('shared_preload_libraries') AS loaded"
        " WHERE name = 'timescaledb' AND loaded LIKE '%timescaledb%'"
    )
    if await cursor.fetchone() is None:
        return False
    try:
        await connection.execute("CREATE EXTENSION IF NOT EXISTS timescaledb")
    except psycopg.errors.InsufficientPrivilege:
        return False
    return True


async def _apply_pending(connection: Connection, has_timescale: bool) -> list[str]:
    await connection.execute(
        "CREATE TABLE IF NOT EXISTS schema_migration ("
        " name text PRIMARY KEY, sha256 text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now())"
    )
    cursor = await connection.execute("SELECT name, sha256 FROM schema_migration")
    applied: dict[str, str] = dict(await cursor.fetchall())
    ours = _migrations()
    if newer := sorted(applied.keys() - ours.keys()):
        raise StorageError(
            f"a newer program has migrated this database (to {newer[-1]}); start that version, not this one"
        )
    done = []
    for name, statements in sorted(ours.items()):
        digest = hashlib.sha256(statements).hexdigest()
        if name in applied:
            if applied[name] != digest:
                raise StorageError(
                    f"migration {name} was edited after it had been applied; reinstall the program"
                )
        elif has_timescale or not name.endswith(_TIMESCALE_SUFFIX):
            async with connection.transaction():
                if name.endswith(_TIMESCALE_SUFFIX):
                    await connection.execute(_NO_SEGMENTS)
                await connection.execute(statements)
                await connection.execute(
                    "INSERT INTO schema_migration (name, sha256) VALUES (%s, %s)", (name, digest)
                )
            done.append(name)
    return done


@cache
def _migrations() -> Mapping[str, bytes]:
    folder = resources.files("gateway.storage").joinpath("migrations")
    return MappingProxyType(
        {entry.name: entry.read_bytes() for entry in folder.iterdir() if entry.name.endswith(".sql")}
    )
