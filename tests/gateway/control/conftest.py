"""The office over both stores: every test that takes it runs twice."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.storage.database import Database
from tests.gateway.control.office import Office, in_database, in_memory


@pytest.fixture(params=["memory", pytest.param("postgres", marks=pytest.mark.database)])
async def office(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Office]:
    if request.param == "memory":
        yield in_memory()
        return
    async with await Database.open(request.getfixturevalue("conninfo")) as database:
        yield await in_database(database, tmp_path)
