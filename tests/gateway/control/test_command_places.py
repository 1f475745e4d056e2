"""Places within the limits, taken and counted alike in PostgreSQL and in memory."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta

from gateway.command import PLACE_LASTS, Limits, Place, Used
from gateway.control.stores import CommandStore
from tests.gateway.control.either_store import NOW, HandClock, queued


async def test_a_place_is_taken_where_all_limits_have_room(store: CommandStore, clock: HandClock) -> None:
    limits = Limits(area=2, requester=3, all=4)
    first, second, third = [await queued(store, meter_id) for meter_id in (1, 2, 3)]
    assert await store.used(1, "billing", limits) == (0, 0, 0)
    assert await store.take_place(first, 1, limits) == Place(NOW, Used(0, 0, 0), limits, 1)
    assert await store.take_place(second, 1, limits) == Place(NOW, Used(1, 1, 1), limits, 1)
    assert await store.take_place(third, 1, limits) == Place(None, Used(2, 2, 2), limits, 1)  # the area
    assert await store.take_place(third, None, limits) == Place(NOW, Used(0, 2, 2), limits, None)
    assert await store.used(None, "billing", limits) == (1, 3, 3)
    assert await store.used(1, "another", limits) == (2, 0, 3)
    fourth = await queued(store, 4)
    assert await store.take_place(fourth, 2, limits) == Place(None, Used(0, 3, 3), limits, 2)  # the requester
    other = replace(fourth, requester="another")
    assert await store.take_place(other, 2, replace(limits, all=3)) == Place(
        None, Used(0, 0, 3), replace(limits, all=3), 2
    )
    assert await store.take_place(other, 2, limits) == Place(NOW, Used(0, 0, 3), limits, 2)


async def test_a_place_is_kept_by_its_attempt_for_a_while(store: CommandStore, clock: HandClock) -> None:
    limits = Limits()
    trip = await queued(store, 1)
    assert await store.take_place(trip, 1, limits) == Place(NOW, Used(0, 0, 0), limits, 1)
    clock.go(PLACE_LASTS.total_seconds() / 2)
    assert await store.take_place(trip, 1, limits) == Place(NOW, Used(0, 0, 0), limits, 1)
    assert (await store.take_place(trip, 2, limits)).used == (0, 1, 1)  # in another area it is another
    again = await store.take_place(replace(trip, attempts=1), 1, limits)
    assert again == Place(clock.now(), Used(1, 2, 2), limits, 1)
    clock.go(PLACE_LASTS.total_seconds())
    assert (await store.take_place(trip, 1, limits)).at == clock.now()
    assert await store.used(1, "billing", limits) == (3, 4, 4)


async def test_places_count_for_the_window_and_as_long_as_one_lasts(
    store: CommandStore, clock: HandClock
) -> None:
    limits = Limits(window=timedelta(minutes=10))
    await store.take_place(await queued(store, 1), 1, limits)
    clock.go(300.0)
    await store.take_place(await queued(store, 2), 1, limits)
    clock.go(300.0 + PLACE_LASTS.total_seconds() - 1)
    assert await store.used(1, "billing", limits) == (2, 2, 2)
    clock.go(1.0)
    assert await store.used(1, "billing", limits) == (1, 1, 1)
    clock.go(300.0)
    assert await store.used(1, "billing", limits) == (0, 0, 0)


async def test_a_clock_that_went_back_gets_places_behind_those_before(
    store: CommandStore, clock: HandClock
) -> None:
    limits = Limits(all=1)
    first, second = await queued(store, 1), await queued(store, 2)
    ahead = clock.now()
    await store.take_place(first, 1, limits)
    clock.go(-60.0)
    assert (await store.take_place(second, 1, limits)).at is None
    assert (await store.take_place(second, 1, replace(limits, all=2))).at == ahead
    assert await store.used(1, "billing", limits) == (2, 2, 2)


async def test_two_at_once_never_take_the_same_last_place(store: CommandStore) -> None:
    limits = Limits(all=6)
    trips = [await queued(store, meter_id) for meter_id in (1, 2, 3, 4) for _ in range(3)]
    places = await asyncio.gather(*(store.take_place(one, 1, limits) for one in trips))
    taken = [place for place in places if place.at is not None]
    assert sorted(place.used.all for place in taken) == [0, 1, 2, 3, 4, 5]
    assert {place.used.all for place in places if place.at is None} == {6}
