"""Shadow mode, remembered by terminal for the time without a database."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gateway.storage import live_terminals
from gateway.storage.database import Database
from gateway.storage.live_terminals import LiveTerminals
from gateway.storage.switches import Switch
from tests.gateway.control.office import Office, in_database

pytestmark = pytest.mark.database


async def same_as_the_facts(office: Office, known: LiveTerminals) -> dict[int, bool]:
    """What is remembered, after it was compared with what each desk says."""
    await known.refresh()
    told = {terminal: known.live(terminal) for terminal in (1, 2)}
    shadow = {meter: (await office.facts(meter)).shadow for meter in (1, 2, 3, 4)}
    assert told == {1: not (shadow[1] or shadow[2]), 2: not (shadow[3] or shadow[4])}
    return told


async def test_a_terminal_is_live_when_all_its_meters_are(
    conninfo: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live_terminals, "FRESH_SECONDS", -1.0)
    async with await Database.open(conninfo) as database:
        office = await in_database(database, tmp_path)
        clock: Any = office.clock
        here = {1, 2, 99}
        known = LiveTerminals(database, clock, lambda: here)
        assert not known.live(1)
        assert await same_as_the_facts(office, known) == {1: True, 2: True}
        assert not known.live(99)
        one = "organisation:1"
        await office.switch_store.put(Switch.SHADOW, one, True, "", "ann", clock.now())
        assert await same_as_the_facts(office, known) == {1: False, 2: False}
        end = await office.switch_store.put(Switch.SHADOW, one, False, "", "ann", clock.now())
        assert await same_as_the_facts(office, known) == {1: False, 2: False}  # one person is not enough
        await office.switch_store.approve(end.id, "bob", clock.now())
        assert await same_as_the_facts(office, known) == {1: True, 2: True}
        async with database.connection() as connection:
            await connection.execute("UPDATE area SET organisation_id = 2 WHERE name = 'A2'")
        assert await same_as_the_facts(office, known) == {1: True, 2: False}
        here.discard(1)
        await known.refresh()
        assert not known.live(1)


async def test_what_was_known_stays_known_while_the_database_is_away(conninfo: str, tmp_path: Path) -> None:
    async with await Database.open(conninfo) as database:
        office = await in_database(database, tmp_path)
        clock: Any = office.clock
        known = LiveTerminals(database, clock, lambda: {1})
        await known.refresh()
    await known.refresh()  # fresh: the database, which is closed now, is not asked
    assert known.live(1)
