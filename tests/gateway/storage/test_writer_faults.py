"""The writer when lines break, servers stop and hang, and rows are bad: nothing lost, nothing doubled."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

import gateway.storage.readings as readings_module
from gateway.errors import StorageError
from gateway.model import ReadingRow
from gateway.storage import embedded
from gateway.storage.database import Database
from gateway.storage.readings import Filed, ReadingWriter
from tests.gateway.storage.fix_proxy import Proxy, proxy_before
from tests.gateway.storage.rows import backend_of_writer, expected, row, sweep, totals

pytestmark = pytest.mark.database


@pytest.fixture
async def proxy(conninfo: str) -> AsyncIterator[Proxy]:
    async with proxy_before(conninfo) as made:
        yield made


async def _file_all(writer: ReadingWriter, calls: Sequence[Sequence[ReadingRow]]) -> Filed:
    return sum(await asyncio.gather(*(writer.file(call) for call in calls)), Filed())


async def test_what_was_filed_is_seen_by_others_when_file_returns(database: Database) -> None:
    calls = sweep(3000, 60)
    async with ReadingWriter(database, batch_rows=500) as writer:

        async def file(call: list[ReadingRow]) -> None:
            assert await writer.file(call) == Filed(new=len(call))
            stands = await totals(database)
            assert all(stands.get((one[0], one[3])) == one[4] for one in call)

        await asyncio.gather(*(file(call) for call in calls))
    assert await totals(database) == expected(calls)


async def test_file_waits_for_the_commit(database: Database, proxy: Proxy) -> None:
    async with (
        await Database.open(proxy.conninfo) as through_proxy,
        ReadingWriter(through_proxy) as writer,
    ):
        await writer.file([row(1)])
        proxy.answers.clear()
        filing = asyncio.create_task(writer.file([row(2)]))
        await asyncio.sleep(0.3)
        assert not filing.done()
        assert writer.rows_waiting == 1
        proxy.answers.set()
        assert await filing == Filed(new=1)
        assert writer.rows_waiting == 0


@pytest.mark.parametrize(
    "moment", [b"COPY reading_staging", b"pg_advisory_xact_lock", b"judged", b"COMMIT\0"]
)
async def test_a_line_cut_at_any_moment_neither_loses_nor_doubles(
    database: Database, proxy: Proxy, moment: bytes
) -> None:
    calls = sweep(400, 20)
    proxy.cut_after = moment
    async with (
        await Database.open(proxy.conninfo) as through_proxy,
        ReadingWriter(through_proxy, batch_rows=100) as writer,
    ):
        proxy.cuts = 3
        filed = await _file_all(writer, calls)
        assert proxy.cuts == 0
        assert writer.trouble is None
    assert await totals(database) == expected(calls)
    assert filed.new + filed.equal == 400
    # a commit whose answer was lost stands: its rows are found equal
    assert (filed.equal > 0) == (moment == b"COMMIT\0")
    async with database.connection() as connection:
        assert await (await connection.execute("SELECT 1 FROM reading_conflict")).fetchone() is None


async def test_killed_backends_in_mid_sweep_lose_nothing(database: Database, conninfo: str) -> None:
    killed = 0

    async def kill() -> None:
        nonlocal killed
        while killed < 3:
            await asyncio.sleep(0.05)
            if (backend := await asyncio.to_thread(backend_of_writer, conninfo)) is not None:
                async with database.connection() as connection:
                    await connection.execute("SELECT pg_terminate_backend(%s)", (backend,))
                killed += 1

    calls: list[list[ReadingRow]] = []
    filed = Filed()
    async with ReadingWriter(database, batch_rows=2_000) as writer:
        killer = asyncio.create_task(kill())
        while killed < 3:
            more = sweep(20_000, 200, day=len(calls) // 200)
            calls += more
            filed += await _file_all(writer, more)
        await killer
    assert await totals(database) == expected(calls)
    assert filed.new + filed.equal == sum(map(len, calls))


async def test_a_hung_server_is_left_and_the_rows_are_filed_when_it_moves(
    database: Database, conninfo: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readings_module, "BATCH_SECONDS", 1.0)
    async with ReadingWriter(database) as writer:
        await writer.file([row(1)])
        backend = await asyncio.to_thread(backend_of_writer, conninfo)
        assert backend is not None
        os.kill(backend, signal.SIGSTOP)
        try:
            filing = asyncio.create_task(writer.file([row(2)]))
            await asyncio.sleep(3.0)
        finally:
            os.kill(backend, signal.SIGCONT)
        assert (await filing).new == 1
    assert len(await totals(database)) == 2


async def test_the_queue_is_bounded_and_closing_says_what_was_not_filed(
    proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readings_module, "CLOSE_SECONDS", 0.2)
    async with await Database.open(proxy.conninfo) as through_proxy:
        writer = ReadingWriter(through_proxy, batch_rows=100, queue_rows=300)
        async with writer:
            await writer.file([row(1)])
            proxy.open = False
            proxy.cut_after, proxy.cuts = b"COPY", 1
            filing = [asyncio.create_task(writer.file(call)) for call in sweep(1000, 20)]
            await asyncio.sleep(0.5)
            assert writer.rows_waiting == 300
            assert writer.trouble is not None
        answers = await asyncio.gather(*filing, return_exceptions=True)
        assert all(isinstance(answer, StorageError) for answer in answers)
        with pytest.raises(StorageError, match="closed"):
            await writer.file([row(2)])


async def test_rows_beyond_the_bound_are_filed_when_there_is_room(database: Database) -> None:
    calls = sweep(2000, 100)
    async with ReadingWriter(database, batch_rows=50, queue_rows=50) as writer:
        watched: list[int] = []

        async def watch() -> None:
            while True:
                watched.append(writer.rows_waiting)
                await asyncio.sleep(0)

        watcher = asyncio.create_task(watch())
        assert await _file_all(writer, calls) == Filed(new=2000)
        watcher.cancel()
        await asyncio.gather(watcher, return_exceptions=True)
    assert max(watched) <= 50
    assert await totals(database) == expected(calls)


async def test_one_callers_bad_rows_do_not_hold_up_the_others(database: Database) -> None:
    bad: list[list[ReadingRow]] = [
        [row(1), (*row(2)[:12], 9, 1)],  # no such source
        [row(1), (2**40, *row(2)[1:])],  # no int4
        [row(1), row(2, 2**70)],  # no int8
        [row(1), row(2, further=[1] * 60)],  # more tariffs than there are
        [row(1), (*row(2)[:11], None, 2, 1)],  # type: ignore[list-item]  # not collected
    ]
    good = sweep(100, 10, day=1)
    async with ReadingWriter(database, idle_seconds=0.05) as writer:
        told = await asyncio.gather(*(writer.file(call) for call in [*bad, *good]), return_exceptions=True)
        assert [type(answer) for answer in told[:5]] == [StorageError] * 5
        assert all("refuses" in str(answer) for answer in told[:5])
        assert told[5:] == [Filed(new=10)] * 10
        assert await writer.file([row(1)]) == Filed(new=1)
    assert await totals(database) == expected([*good, [row(1)]])


async def test_many_rows_are_filed_batch_by_batch_and_none_need_no_database(database: Database) -> None:
    (rows,) = sweep(2500)
    async with ReadingWriter(database, batch_rows=1000) as writer:
        assert await writer.file(rows) == Filed(new=2500)
        assert await writer.file([]) == Filed()
        assert await writer.file(rows) == Filed(equal=2500)


async def test_a_caller_that_gives_up_leaves_its_rows_with_the_writer(database: Database) -> None:
    async with ReadingWriter(database, idle_seconds=0.2) as writer:
        filing = asyncio.create_task(writer.file([row(1)]))
        await asyncio.sleep(0.05)
        filing.cancel()
        assert await writer.file([row(2)]) == Filed(new=1)
    assert len(await totals(database)) == 2


async def test_what_waits_is_filed_before_the_writer_ends(database: Database) -> None:
    async with ReadingWriter(database, idle_seconds=5.0) as writer:
        filing = [asyncio.create_task(writer.file(call)) for call in sweep(100, 10)]
        await asyncio.sleep(0.05)
    assert await asyncio.gather(*filing) == [Filed(new=10)] * 10


async def test_the_server_stopped_killed_and_started_in_mid_sweep(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Path(tempfile.mkdtemp(prefix="lingdian-test-"))
    calls = sweep(60_000, 600)
    try:
        conninfo = await embedded.start(folder)
        async with await Database.open(conninfo) as database:
            await database.migrate()
            async with ReadingWriter(database, batch_rows=2_000) as writer:
                filing = asyncio.create_task(_file_all(writer, calls))
                for number in (signal.SIGINT, signal.SIGKILL):
                    await asyncio.sleep(0.05)
                    assert not filing.done()
                    await _restart(folder, number)
                filed = await filing
            assert filed.new + filed.equal == 60_000
            assert await totals(database) == expected(calls)
    finally:
        await embedded.stop(folder)
        shutil.rmtree(folder, ignore_errors=True)


async def _restart(folder: Path, number: signal.Signals) -> None:
    """Stop the server of the folder by a signal (INT: fast, KILL: a crash), and start it again."""
    server = embedded.server_pid(folder)
    assert server is not None
    os.kill(server, number)
    while embedded.server_pid(folder) is not None:  # noqa: ASYNC110 - another process tells by ending
        await asyncio.sleep(0.01)
    await embedded.stop(folder)
    await embedded.start(folder)


def test_a_connection_string_is_never_told_with_its_password() -> None:
    with pytest.raises(StorageError) as told:
        asyncio.run(Database.open("postgresql://somebody:secret@127.0.0.1:1/nowhere"))
    assert "secret" not in str(told.value)
    assert "127.0.0.1:1" in str(told.value)
