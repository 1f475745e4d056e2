"""Thousands of histories from seeds; each rule has a planted bug that must be caught."""

from __future__ import annotations

import time
from collections import Counter

import pytest

from tests.simulation import rules
from tests.simulation.history import play

SEEDS = 200


def run_seeds(first: int, count: int) -> Counter[str]:
    fired: Counter[str] = Counter()
    steps = 0
    began = time.perf_counter()
    for seed in range(first, first + count):
        told = play(seed)
        steps += told.steps
        fired.update(told.fired)
        fired["frames written"] += len(told.world.written)
        fired["commands"] += len(told.world.store.kept.rows)
        try:
            rules.check(told.world)
            rules.nobody_in_the_dark(told.world)
        except rules.Broken as broken:
            raise AssertionError(f"seed {seed}: {broken}") from broken
    print(f"{count} seeds, {steps} steps, {time.perf_counter() - began:.1f} s: {dict(fired)}")
    return fired


def test_histories() -> None:
    fired = run_seeds(0, SEEDS)
    for what in ("killed", "redial", "frame lost", "answer lost", "copy", "block", "brake"):
        assert fired[what] > 0, f"{what} never fired"


@pytest.mark.long
def test_ten_thousand_histories() -> None:
    run_seeds(1_000_000, 10_000)
