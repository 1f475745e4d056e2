"""The server that comes along: started, shared, killed, taken over, stopped, cleared."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from gateway.errors import StorageError
from gateway.storage import embedded

pytestmark = pytest.mark.database

USER = """
import asyncio, sys
from pathlib import Path
from gateway.storage import embedded

async def use():
    print(await embedded.start(Path(sys.argv[1])), flush=True)
    sys.stdin.readline()
    await embedded.stop(Path(sys.argv[1]))

asyncio.run(use())
"""
"""Another process that uses a server until it is told to stop."""


@pytest.fixture(scope="module")
def made() -> Iterator[Path]:
    """A folder whose data is made once; the server is stopped."""
    folder = Path(tempfile.mkdtemp(prefix="lingdian-test-"))

    async def make() -> None:
        await embedded.start(folder)
        await embedded.stop(folder)

    asyncio.run(make())
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def folder(made: Path) -> Iterator[Path]:
    """The same, and no server is left there after the test."""
    yield made
    if (server := embedded.server_pid(made)) is not None:
        os.kill(server, signal.SIGQUIT)
        while embedded.server_pid(made) is not None:
            pass


def _other_process(folder: Path) -> subprocess.Popen[str]:
    """Another process that uses the server; returns when it does."""
    process = subprocess.Popen(
        [sys.executable, "-c", USER, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert "host=" in process.stdout.readline()
    return process


def _end(process: subprocess.Popen[str]) -> None:
    process.communicate("stop\n", timeout=60)
    assert process.returncode == 0


async def test_started_twice_it_is_one_server_and_the_last_stop_stops_it(folder: Path) -> None:
    first = await embedded.start(folder)
    server = embedded.server_pid(folder)
    assert await embedded.start(folder) == first
    assert embedded.server_pid(folder) == server
    await embedded.stop(folder)
    assert embedded.server_pid(folder) == server
    await embedded.stop(folder)
    assert embedded.server_pid(folder) is None
    await embedded.stop(folder)


async def test_what_must_not_be_lost_is_on_and_nothing_listens_outside(folder: Path) -> None:
    conninfo = await embedded.start(folder)
    try:
        with psycopg.connect(conninfo) as connection:
            for setting, value in (
                *(("fsync", "on"), ("synchronous_commit", "on"), ("full_page_writes", "on")),
                *(("listen_addresses", ""), ("server_encoding", "UTF8"), ("TimeZone", "UTC")),
            ):
                assert connection.execute("SELECT current_setting(%s)", (setting,)).fetchone() == (value,)
            assert connection.execute("SELECT now() AT TIME ZONE 'Asia/Shanghai'").fetchone() is not None
        with socket.socket() as tried:
            assert tried.connect_ex(("127.0.0.1", 5432)) != 0 or os.environ.get("PGPORT") == "5432"
    finally:
        await embedded.stop(folder)


async def test_a_server_left_by_a_killed_process_is_taken_over(folder: Path) -> None:
    other = await asyncio.to_thread(_other_process, folder)
    server = embedded.server_pid(folder)
    assert server is not None
    other.kill()
    await asyncio.to_thread(other.communicate)
    assert embedded.server_pid(folder) == server
    await embedded.start(folder)
    assert embedded.server_pid(folder) == server
    await embedded.stop(folder)
    assert embedded.server_pid(folder) is None


async def test_the_server_stays_while_another_process_uses_it(folder: Path) -> None:
    await embedded.start(folder)
    other = await asyncio.to_thread(_other_process, folder)
    await embedded.stop(folder)
    assert embedded.server_pid(folder) is not None
    with pytest.raises(StorageError, match="used by another process"):
        await embedded.clear(folder)
    await asyncio.to_thread(_end, other)
    assert embedded.server_pid(folder) is None


async def test_a_killed_server_starts_again_with_what_was_committed(folder: Path) -> None:
    conninfo = await embedded.start(folder)
    with psycopg.connect(conninfo) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 1 AS one")
    server = embedded.server_pid(folder)
    assert server is not None
    os.kill(server, signal.SIGKILL)
    await embedded.stop(folder)
    conninfo = await embedded.start(folder)
    assert embedded.server_pid(folder) not in (None, server)
    with psycopg.connect(conninfo) as connection:
        assert connection.execute("SELECT one FROM kept").fetchone() == (1,)
        connection.execute("DROP TABLE kept")
    await embedded.stop(folder)


async def test_a_lock_file_whose_number_is_another_programs_does_not_hinder(folder: Path) -> None:
    stale = f"{os.getpid()}\n{folder}/data\n1\n5432\n{folder}\n\n\nready\n"
    (folder / "data" / "postmaster.pid").write_text(stale)
    (folder / ".s.PGSQL.5432.lock").write_text(stale)
    assert embedded.server_pid(folder) is None
    await embedded.start(folder)
    assert embedded.server_pid(folder) not in (None, os.getpid())
    await embedded.stop(folder)


async def test_a_server_that_does_not_start_says_why(folder: Path) -> None:
    settings = folder / "data" / "postgresql.conf"
    kept = settings.read_text()
    settings.write_text(kept + "\nshared_buffers = nonsense\n")
    try:
        with pytest.raises(StorageError, match='invalid value for parameter "shared_buffers"'):
            await embedded.start(folder)
    finally:
        settings.write_text(kept)
    await embedded.start(folder)
    with pytest.raises(StorageError, match="in use here"):
        await embedded.clear(folder)
    await embedded.stop(folder)


async def test_a_long_path_has_its_socket_elsewhere_and_cleared_data_is_gone() -> None:
    base = Path(tempfile.mkdtemp(prefix="lingdian-test-"))
    folder = base / ("long-" * 20) / "database"
    try:
        conninfo = await embedded.start(folder)
        with psycopg.connect(conninfo) as connection:
            connection.execute("SELECT 1")
        await embedded.stop(folder)
        await embedded.clear(folder)
        assert not (folder / "data").exists()
        await embedded.clear(base / "never")
    finally:
        shutil.rmtree(base, ignore_errors=True)


async def test_a_folder_that_cannot_be_made_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="folder"):
        await embedded.start(tmp_path / "file" / "database")
