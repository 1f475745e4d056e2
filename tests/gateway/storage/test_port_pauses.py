"""Paused reading ports in the database."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from gateway.session.reading_ports import Pauses
from gateway.storage import assets
from gateway.storage.database import Database
from gateway.storage.port_pauses import PortPauses
from tests.gateway.storage.district import grow

pytestmark = pytest.mark.database

AT = datetime(2026, 11, 24, 2, 0, tzinfo=UTC)


async def test_a_pause_stands_until_it_is_removed(database: Database, tmp_path: Path) -> None:
    await grow(database, tmp_path, 2, 2)
    first, second = sorted([one.terminal_id async for one in assets.terminals(database)])
    pauses: Pauses = PortPauses(database)
    assert list(await pauses.all()) == []
    await pauses.add(second, 31, AT)
    await pauses.add(first, 31, AT + timedelta(seconds=1))
    await pauses.add(second, 31, AT + timedelta(seconds=2))
    await pauses.add(second, 2, AT + timedelta(seconds=3))
    assert list(await pauses.all()) == [(second, 31), (first, 31), (second, 2)]
    await pauses.remove(second, 31)
    await pauses.remove(second, 31)
    assert list(await pauses.all()) == [(first, 31), (second, 2)]
