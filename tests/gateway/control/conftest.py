"""The office, and the store of commands alone, over both stores: every test that takes one runs twice."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.control.stores import CommandStore
from gateway.storage.commands import Commands
from gateway.storage.database import Database
from tests.gateway.control.either_store import HandClock, facts
from tests.gateway.control.memory import MemoryCommands
from tests.gateway.control.office import Office, in_database, in_memory
from tests.gateway.storage.district import grow


@pytest.fixture(params=["memory", pytest.param("postgres", marks=pytest.mark.database)])
async def office(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Office]:
    if request.param == "memory":
        yield in_memory()
        return
    async with await Database.open(request.getfixturevalue("conninfo")) as database:
        yield await in_database(database, tmp_path)


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture(params=["memory", pytest.param("postgres", marks=pytest.mark.database)])
async def store(
    request: pytest.FixtureRequest, clock: HandClock, tmp_path: Path
) -> AsyncIterator[CommandStore]:
    if request.param == "memory":
        yield MemoryCommands(clock, {1: facts(1, 1), 2: facts(2, 1), 3: facts(3, 2), 4: facts(4, 2)})
        return
    async with await Database.open(request.getfixturevalue("conninfo")) as database:
        assert await grow(database, tmp_path, 2, 2) == [1, 2, 3, 4]
        yield Commands(database, clock)  # type: ignore[arg-type]  # only `now` is asked
