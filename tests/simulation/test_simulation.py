"""Histories from seeds: the rules hold in each, and for each rule there is a planted bug that is caught."""

from __future__ import annotations

import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor

import pytest

from tests.simulation import rules
from tests.simulation.history import Told, play
from tests.simulation.planted import PLANTED

SEEDS = 100
MANY_SEEDS = 10_000
AT_ONCE = 250
WORKERS = 2
SEEDS_FOR_A_BUG = 150
"""A planted bug that is not caught within so many histories is not caught."""

FAULTS = (
    "killed",
    "redial",
    "frame lost",
    "answer lost",
    "copy",
    "block",
    "brake",
    "contest",
    "hold",
    "own clock",
)


def judged(seed: int) -> Told:
    """The history of a seed. AssertionError names the seed and the rule that it broke."""
    told = play(seed)
    try:
        rules.check(told.world)
        rules.nobody_in_the_dark(told.world)
    except rules.Broken as broken:
        raise AssertionError(f"seed {seed}: {broken}") from broken
    return told


def run_seeds(first: int, count: int) -> Counter[str]:
    """What was done and what fired, over so many histories."""
    fired: Counter[str] = Counter()
    for seed in range(first, first + count):
        told = judged(seed)
        fired.update(told.fired)
        fired["steps"] += told.steps
        fired["frames written"] += len(told.world.written)
        fired["commands"] += len(told.world.store.kept.rows)
    return fired


def test_the_rules_hold() -> None:
    began = time.perf_counter()
    fired = run_seeds(0, SEEDS)
    print(f"{SEEDS} histories in {time.perf_counter() - began:.1f} s: {dict(fired)}")
    for what in FAULTS:
        assert fired[what] > 0, f"{what} never happened"


def test_one_seed_is_one_history() -> None:
    def shown(told: Told) -> list[tuple[str, str]]:
        return [(str(one.at), one.frame.action) for one in told.world.written]

    assert shown(play(7)) == shown(play(7))
    assert shown(play(7)) != shown(play(8))


@pytest.mark.parametrize("name", list(PLANTED))
def test_a_planted_bug_is_caught(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    begins, plant = PLANTED[name]
    plant(monkeypatch)
    with pytest.raises(AssertionError) as caught:
        run_seeds(0, SEEDS_FOR_A_BUG)
    assert f": {begins}" in str(caught.value), caught.value


@pytest.mark.long
def test_ten_thousand_histories() -> None:
    began = time.perf_counter()
    fired: Counter[str] = Counter()
    firsts = range(1_000_000, 1_000_000 + MANY_SEEDS, AT_ONCE)
    with ProcessPoolExecutor(WORKERS) as pool:
        for part in pool.map(run_seeds, firsts, [AT_ONCE] * len(firsts)):
            fired.update(part)
    print(f"{MANY_SEEDS} histories in {time.perf_counter() - began:.0f} s: {dict(fired)}")
