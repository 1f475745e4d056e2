"""What takes power away waits for what gives it back, and not for ever. In a time of its own, to be exact."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import pytest

from gateway.control.right_of_way import BY_S, FRAME_S, HOLD_S, RightOfWay
from tests.simulation.loop import VirtualLoop, run_virtual

NEVER_HELD: list[float] = []


class Close(NamedTuple):
    """A request that gives power back: when it comes, and how long it takes until it is answered."""

    at: float
    lasts: float


class Seen(NamedTuple):
    """begun: when each trip could begin. cleared: when it was told that it is clear again."""

    begun: list[float]
    cleared: list[float]


def seen(closes: Sequence[Close], trips: Sequence[float]) -> Seen:
    """What becomes of trips that come at these times beside these closes, in seconds."""

    async def main() -> Seen:
        loop = asyncio.get_running_loop()
        cleared: list[float] = []
        way = RightOfWay(lambda: cleared.append(round(loop.time(), 6)))

        async def close(one: Close) -> None:
            await asyncio.sleep(one.at)
            with way.closing():
                await asyncio.sleep(one.lasts)

        async def trip(at: float) -> float:
            await asyncio.sleep(at)
            await way.give()
            assert way.clear
            return round(loop.time(), 6)

        work = [asyncio.create_task(close(one)) for one in closes]
        begun = await asyncio.gather(*map(trip, trips))
        await asyncio.gather(*work)
        await asyncio.sleep(2 * FRAME_S)
        assert way.clear
        return Seen(begun, cleared)

    return run_virtual(main(), VirtualLoop())


def test_where_nothing_gives_power_back_trips_begin_at_once() -> None:
    assert seen([], [0.0, 0.5]) == Seen([0.0, 0.5], NEVER_HELD)


def test_a_trip_waits_until_the_frame_of_a_close_has_left() -> None:
    gone = 1.0 + 0.2 + FRAME_S
    assert seen([Close(1.0, 0.2)], [0.9, 1.1, 1.21, 1.3]) == Seen([0.9, gone, gone, 1.3], [gone])


def test_it_waits_for_the_last_of_several_closes() -> None:
    closes = [Close(1.0, 0.1), Close(1.12, 0.3), Close(1.2, 0.01)]
    gone = round(1.42 + FRAME_S, 6)
    assert seen(closes, [1.05, 1.25]) == Seen([gone, gone], [gone])


def test_after_a_close_has_left_the_next_one_is_given_way_to_again() -> None:
    closes = [Close(1.0, 0.1), Close(2.0, 0.1)]
    assert seen(closes, [1.05, 2.05]).begun == [pytest.approx(1.1 + FRAME_S), pytest.approx(2.1 + FRAME_S)]


def test_closes_without_a_pause_do_not_keep_trips_waiting_for_ever() -> None:
    # One comes while the one before is still on its way, for ten seconds.
    storm = [Close(0.1 * number, 0.08) for number in range(100)]
    begun, cleared = seen(storm, [0.5, HOLD_S + BY_S / 2, HOLD_S + BY_S + 0.1, 9.99])
    assert begun[:3] == [HOLD_S, HOLD_S + BY_S / 2, 2 * HOLD_S + BY_S]
    assert begun[3] <= 9.98 + FRAME_S + 1e-6
    # All the time but for a fifth of it the closes go first.
    assert cleared[:-1] == pytest.approx(
        [HOLD_S + number * (HOLD_S + BY_S) for number in range(len(cleared) - 1)]
    )
    assert len(cleared) - 1 == 8


def test_a_request_that_fails_is_over_all_the_same() -> None:
    async def main() -> None:
        way = RightOfWay()
        with pytest.raises(ZeroDivisionError), way.closing():
            raise ZeroDivisionError
        assert not way.clear
        await asyncio.sleep(FRAME_S)
        await asyncio.sleep(0)
        assert way.clear

    run_virtual(main(), VirtualLoop())


@pytest.mark.parametrize("closes", [False, True], ids=["another request", "close"])
def test_the_sweep_goes_slower_from_a_request_until_its_frame_has_left(closes: bool) -> None:
    slower: list[float] = []

    @contextmanager
    def beside() -> Iterator[None]:
        slower.append(asyncio.get_running_loop().time())
        yield
        slower.append(asyncio.get_running_loop().time())

    async def main() -> None:
        way = RightOfWay(beside=beside)
        with way.closing() if closes else way.asking():
            assert way.clear is not closes
            await asyncio.sleep(1.0)
        assert slower == [0.0]
        await asyncio.sleep(1.0)

    run_virtual(main(), VirtualLoop())
    assert slower == pytest.approx([0.0, 1.0 + FRAME_S])
