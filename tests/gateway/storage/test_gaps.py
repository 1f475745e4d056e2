"""What stands and what failed: storage's half of the gaps."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from gateway.model import Failure, Kind, Quantity, Reason
from gateway.storage import assets, gaps
from gateway.storage.database import Database
from gateway.storage.readings import ReadingWriter
from tests.gateway.storage.district import grow
from tests.gateway.storage.rows import MIDNIGHT, NOW, row

pytestmark = pytest.mark.database

FORWARD, REVERSE, DAY, MONTH = Quantity.FORWARD_ACTIVE, Quantity.REVERSE_ACTIVE, Kind.DAY, Kind.MONTH


def failure(meter_id: int, reason: Reason = Reason.NO_VALUE_YET, *, detail: str = "") -> Failure:
    return Failure(meter_id, FORWARD, DAY, MIDNIGHT, reason, detail)


async def test_stored_is_what_stands_of_these_meters_at_that_instant(database: Database) -> None:
    async with ReadingWriter(database) as writer:
        await writer.file(
            [
                row(1),
                row(1, quantity=REVERSE),
                row(1, kind=MONTH),
                row(2),
                row(3),
                row(4, at=MIDNIGHT - timedelta(days=1)),
            ]
        )
    assert await gaps.stored(database, [1, 2, 4, 5], MIDNIGHT) == {
        *((1, FORWARD, DAY), (1, REVERSE, DAY), (1, FORWARD, MONTH)),
        (2, FORWARD, DAY),
    }
    assert await gaps.stored(database, [], MIDNIGHT) == set()


async def test_the_last_reason_counts_and_its_times(database: Database) -> None:
    await gaps.note_failures(database, [failure(1), failure(2)], NOW)
    await gaps.note_failures(database, [], NOW)
    later = NOW + timedelta(hours=1)
    twice = [failure(1, Reason.DAMAGED), failure(1, Reason.TERMINAL_SILENT, detail="3 tries")]
    await gaps.note_failures(database, twice, later)
    assert await gaps.failures(database, [1, 2, 3], MIDNIGHT) == {
        (1, FORWARD, DAY): gaps.LastFailure(Reason.TERMINAL_SILENT, "3 tries", later, 2),
        (2, FORWARD, DAY): gaps.LastFailure(Reason.NO_VALUE_YET, "", NOW, 1),
    }


async def test_filing_ends_a_failure_in_the_same_transaction(database: Database) -> None:
    await gaps.note_failures(database, [failure(1), failure(2)], NOW)
    async with ReadingWriter(database) as writer:
        await writer.file([row(1), row(2, kind=MONTH)])
    assert set(await gaps.failures(database, [1, 2], MIDNIGHT)) == {(2, FORWARD, DAY)}
    async with database.connection() as connection:
        cursor = await connection.execute("SELECT meter_id FROM collection_failure")
        assert await cursor.fetchall() == [(2,)]


async def test_a_reading_that_stands_cannot_fail(database: Database) -> None:
    async with ReadingWriter(database) as writer:
        await writer.file([row(1)])
    await gaps.note_failures(database, [failure(1), failure(2)], NOW)
    assert set(await gaps.failures(database, [1, 2], MIDNIGHT)) == {(2, FORWARD, DAY)}


async def test_midnights_give_each_terminal_what_is_its_own(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(assets, "PAGE_TERMINALS", 2)
    ids = await grow(database, tmp_path, 5, 3)
    async with ReadingWriter(database) as writer:
        await writer.file([row(meter_id) for meter_id in ids[1:]])
        await writer.file([row(ids[0], at=MIDNIGHT - timedelta(days=1))])
    await gaps.note_failures(database, [failure(ids[0], Reason.METER_SILENT)], NOW)
    found = [one async for one in gaps.midnights(database, MIDNIGHT)]
    assert [one.assets.address for one in found] == [f"0200000{number}" for number in range(1, 6)]
    assert found[0].stored == {(ids[1], FORWARD, DAY), (ids[2], FORWARD, DAY)}
    assert {key: value.reason for key, value in found[0].failures.items()} == {
        (ids[0], FORWARD, DAY): Reason.METER_SILENT
    }
    for index, one in enumerate(found[1:], 1):
        assert one.stored == {(meter_id, FORWARD, DAY) for meter_id in ids[3 * index : 3 * index + 3]}
        assert one.failures == {}
    some = [one async for one in gaps.midnights(database, MIDNIGHT, ["02000004"])]
    assert some == [found[3]]
