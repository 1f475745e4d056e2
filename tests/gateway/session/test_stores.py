"""Raw frames on their way to the database: never waited for, never lost but by their number."""

from __future__ import annotations

import asyncio

import pytest

from gateway.errors import StorageError
from gateway.model import RawFrame
from gateway.session.stores import RAW_BYTES_KEPT, RAW_FRAMES_HELD, RawKeeper
from tests.gateway.session.stage import ADDRESS, NOON, HandStore, until


def raw(number: int, size: int = 4) -> RawFrame:
    return RawFrame(NOON, ADDRESS, "up", f"test {number}", number.to_bytes(4, "big") * (size // 4))


async def test_frames_come_to_the_database_in_order_and_cut() -> None:
    store = HandStore()
    keeper = RawKeeper(store)
    for number in range(5):
        keeper.keep(raw(number, 5000))
    await keeper.close()
    assert [frame.reason for frame in store.raw] == [f"test {number}" for number in range(5)]
    assert {len(frame.raw) for frame in store.raw} == {RAW_BYTES_KEPT}


async def test_they_come_by_themselves_after_a_moment() -> None:
    store = HandStore()
    keeper = RawKeeper(store)
    keeper.keep(raw(1))
    await until(lambda: len(store.raw) == 1)
    await keeper.close()


async def test_with_the_database_away_the_newest_wait_for_it() -> None:
    store = HandStore(away=True)
    keeper = RawKeeper(store)
    for number in range(RAW_FRAMES_HELD + 100):
        keeper.keep(raw(number))
    assert keeper.dropped == 100
    await asyncio.sleep(1.2)
    for number in range(10):
        keeper.keep(raw(number))
    store.away = False
    await keeper.close()
    assert len(store.raw) == RAW_FRAMES_HELD
    assert store.raw[-1].reason == "test 9"
    assert store.raw[0].reason == "test 110"


async def test_who_waits_is_told_when_it_is_committed_or_given_up() -> None:
    store = HandStore()
    keeper = RawKeeper(store)
    await asyncio.wait_for(keeper.keep_durably(raw(1)), 0.5)
    assert len(store.raw) == 1
    store.away = True
    waiting = asyncio.create_task(keeper.keep_durably(raw(2)))
    await asyncio.sleep(0.05)
    assert not waiting.done()
    await keeper.close()
    with pytest.raises(StorageError, match="stops"):
        await waiting


async def test_a_waiting_frame_that_overflows_is_given_up() -> None:
    store = HandStore(away=True)
    keeper = RawKeeper(store)
    waiting = asyncio.create_task(keeper.keep_durably(raw(0)))
    await asyncio.sleep(0)
    for number in range(RAW_FRAMES_HELD):
        keeper.keep(raw(number))
    with pytest.raises(StorageError, match="too many"):
        await waiting
    await keeper.close()
