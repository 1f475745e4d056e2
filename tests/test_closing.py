"""`make test` runs several pytest processes; what it says at the end is all of them together."""

from __future__ import annotations

import asyncio
from collections import deque
from pathlib import Path

from tests.__main__ import LEFT, Ran, closing, taken_up

ONE = "....\nskipped: 7 no TimescaleDB\n12 passed, 1 failed, 7 skipped\n"
OTHER = "said in a test: 1 passed, 0 failed, 0 skipped\n\n3 passed, 0 failed, 2 skipped\n"


def test_the_closing_lines_are_added_up() -> None:
    assert closing([ONE, OTHER]) == "15 passed, 1 failed, 9 skipped"


def test_a_run_that_did_not_end_has_no_closing_line() -> None:
    assert closing([ONE, "Killed"]) is None
    assert closing(["", OTHER]) is None


async def test_whoever_is_done_sooner_takes_up_what_is_left_and_nothing_runs_twice() -> None:
    left = deque(["c", "d", "e"])
    slow_may_end = asyncio.Event()

    async def quick(paths: list[str]) -> Ran:
        if paths == ["d"]:
            slow_may_end.set()
            await asyncio.sleep(0.01)
        return Ran(0, paths[0])

    async def slow(paths: list[str]) -> Ran:
        await slow_may_end.wait()
        return Ran(0, paths[0])

    both = await asyncio.gather(taken_up(quick, ["a"], left), taken_up(slow, ["b"], left))
    assert [[ran.said for ran in one] for one in both] == [["a", "c", "d"], ["b", "e"]]


def test_what_is_left_for_the_sooner_one_is_there() -> None:
    assert all(Path(path).is_file() for path in LEFT)
