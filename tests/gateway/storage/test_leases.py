"""Leases that last: renewed they stay, unrenewed they end, given they are free. And the rows of owners."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from gateway.errors import StorageError
from gateway.model import SignOfLife
from gateway.storage import assets, owners
from gateway.storage.database import Database
from gateway.storage.imports import import_assets
from gateway.storage.leases import Leases, leases
from gateway.storage.owners import Place

pytestmark = pytest.mark.database

NOW = datetime(2026, 11, 30, 3, 0, tzinfo=UTC)
BROKER = "broker:1883"


async def taken(by: Leases, name: str) -> None:
    """Wait until it can be had."""
    async with asyncio.timeout(20):
        while not await by.take(name):  # noqa: ASYNC110  # another connection's end has no event here
            await asyncio.sleep(0.05)


async def test_one_process_has_it_until_it_gives_it_or_ends(database: Database) -> None:
    async with leases(database, 30) as other:
        async with leases(database, 30) as one:
            assert await one.take("a")
            assert not await other.take("a")
            assert await other.take("b")
            await one.give("a")
            assert await other.take("a")
            assert await one.take("c")
        await taken(other, "c")


async def test_who_does_not_renew_loses_it_and_finds_that_out(database: Database) -> None:
    async with leases(database, 30) as other, leases(database, 1) as hangs:
        assert await hangs.take("a")
        for _ in range(4):  # longer than it lasts
            await asyncio.sleep(0.3)
            await hangs.renew()
        assert not await other.take("a")
        await taken(other, "a")
        with pytest.raises(StorageError, match="lost"):
            await hangs.renew()
        with pytest.raises(StorageError):
            await hangs.take("b")


async def test_terminals_of_an_identifier_go_to_another_in_a_new_generation(
    database: Database, tmp_path: Path
) -> None:
    (tmp_path / "terminals.csv").write_text("terminal\n" + "".join(f"0200000{n}\n" for n in range(1, 6)))
    await import_assets(database, terminals=tmp_path / "terminals.csv", meters=None)
    peers = [
        "mqtt://north@broker:1883/a", "mqtt://north@broker:1883/b", "mqtt://south@broker:1883/c",
        "mqtt://north@elsewhere:1883/d", "192.0.2.1:3000",
    ]  # fmt: skip
    ids = {}
    async for one in assets.terminals(database):
        ids[one.address] = one.terminal_id
    for number, peer in enumerate(peers, start=1):
        await assets.login(database, ids[f"0200000{number}"], "worker-1", peer, NOW)
    south = Place("south", BROKER)
    assert await owners.identifiers(database, BROKER) == {"north", "south"}
    later = NOW + timedelta(minutes=1)
    assert sorted(await owners.moved(database, south, NOW)) == ["a", "b"]
    assert await owners.moved(database, south, later) == []

    assert sorted(await owners.take_over(database, "north", south, "worker-2", later)) == ["a", "b"]
    assert await owners.take_over(database, "north", south, "worker-2", later) == []
    assert await owners.identifiers(database, BROKER) == {"south"}
    assert sorted(await owners.moved(database, Place("north", BROKER), later)) == ["a", "b"]
    signs = [SignOfLife(ids[one], 1, later) for one in ("02000004", "02000001")]
    ours = await assets.touch(database, signs)
    assert ours == {ids["02000004"]}, "another broker's terminal is as it was, and our generation is old"
    assert await assets.login(database, ids["02000001"], "worker-2", "x", later) == 3
