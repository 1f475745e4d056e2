"""Histories from seeds: the rules hold in each, and for each rule there is a planted bug that is caught."""

from __future__ import annotations

import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor

import pytest

from tests.simulation import rules
from tests.simulation.faults import JOURNAL_POINTS, POINTS
from tests.simulation.history import Told, play
from tests.simulation.planted import PLANTED

SEEDS = 100
MANY_SEEDS = 10_000
AT_ONCE = 250
WORKERS = 2
SEEDS_FOR_A_BUG = 150
"""A planted bug that is not caught within so many histories is not caught."""

FAULTS = (
    *(f"died at {point}" for point in (*POINTS, *JOURNAL_POINTS)),
    "killed",
    "paused",
    "stopped beside the write: expired",
    "two gateways at one terminal",
    "redial",
    "redial while uncertain",
    "contest",
    "another meter at this point",
    "frame lost",
    "answer lost",
    "question lost",
    "copy",
    "meter refuses",
    "meter clock off by an hour",
    "meter clock in the year 2000",
    "meter clock unreadable",
    "own clock",
    "security module",
    "billing silent",
    "disk full",
    "database away",
    "database gone after a claim",
    "database restarts",
    "desk cut beside the write",
    "database fails begin",
    "database fails before commit",
    "database fails after commit",
    "database fails read",
    "restore",
    "restore loses commands",
    "long stop",
    "started in hold",
)
"""What has to have gone wrong in these histories."""

DEEDS = (
    "payment races a trip",
    "sent twice at once",
    "asked again under its key",
    "key used for another request",
    "close kept by the journal",
    "close sent again after a restore",
    "batch accepted",
    "batch held",
    "batch approved",
    "batch cancelled",
    "cancelled",
    "turned away as second person",
    "limits proposed",
    "limits approved",
    "shadow mode",
    "shadow approved",
    "brake",
    "weather halt",
    "hold released",
    "field report",
    "field report noted",
    "block, keep-power",
    "block, medical",
    "block, complaint",
    "block lifted",
    "keep-power on a tripped meter, built_in",
    "keep-power on a tripped meter, external_self_closing",
    "keep-power on a tripped meter, external_hand_closing",
)
"""What has to have been done in them."""


def judged(seed: int) -> Told:
    """The history of a seed. AssertionError names the seed and the rule that it broke."""
    told = play(seed)
    try:
        rules.check(told)
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
        fired["commands"] += len(told.world.company.store.kept.rows)
    return fired


def shown(fired: Counter[str], histories: int, seconds: float) -> str:
    """For whoever reads the test's output."""
    counts = ", ".join(f"{what} {fired[what]}" for what in sorted(fired))
    return f"{histories} histories in {seconds:.1f} s: {counts}"


def test_the_rules_hold() -> None:
    began = time.perf_counter()
    fired = run_seeds(0, SEEDS)
    print(shown(fired, SEEDS, time.perf_counter() - began))
    missing = [what for what in (*FAULTS, *DEEDS) if not fired[what]]
    assert not missing, f"never happened: {missing}"


def test_one_seed_is_one_history() -> None:
    def left(told: Told) -> list[tuple[str, str, str]]:
        return [(str(one.at), one.frame.action, one.frame.sha256.hex()) for one in told.world.written]

    for seed in (7, 8):
        assert left(play(seed)) == left(play(seed))
    assert left(play(7)) != left(play(8))


@pytest.mark.parametrize("name", list(PLANTED))
def test_a_planted_bug_is_caught(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    begins, plant = PLANTED[name]
    plant(monkeypatch)
    with pytest.raises(AssertionError) as caught:
        run_seeds(0, SEEDS_FOR_A_BUG)
    assert f": {begins}" in str(caught.value), caught.value


def test_each_rule_has_a_planted_bug() -> None:
    planted = {begins for begins, _ in PLANTED.values()}
    assert {f"rule {number}:" for number in range(1, 14)} <= planted


@pytest.mark.long
def test_ten_thousand_histories() -> None:
    began = time.perf_counter()
    fired: Counter[str] = Counter()
    firsts = range(1_000_000, 1_000_000 + MANY_SEEDS, AT_ONCE)
    with ProcessPoolExecutor(WORKERS) as pool:
        for part in pool.map(run_seeds, firsts, [AT_ONCE] * len(firsts)):
            fired.update(part)
    print(shown(fired, MANY_SEEDS, time.perf_counter() - began))
