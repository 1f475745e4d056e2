"""Any bytes give frames or damage: no exception, no growth, no time that grows faster than the bytes.

`make test` runs a sample, `make test-long` ten million mutations on two processes. The seed is printed;
LINGDIAN_FUZZ_SEED sets it.
"""

from __future__ import annotations

import random
from collections import Counter

import pytest

from protocols.dlt645 import stream as stream645
from protocols.q_gdw376 import frame as frame376
from tests.fuzz import campaign
from tests.fuzz.campaign import Broken, chosen_seed, report, run, run_all, slowdown
from tests.fuzz.mutations import Family, Mutator, repair
from tests.fuzz.peers import Peers
from tests.fuzz.seeds import field_seeds, made_seeds
from tests.protocols.vectors import valid

SAMPLE = 8_000
TRACED = 2_000
"""Watched by tracemalloc, which makes them several times slower."""
TEN_MILLION = 10_000_000
GROWTH_AT_MOST = 300_000
"""Bytes of Python memory that a run may add once warmed up, bounded memories of dates and names emptied."""

# A run that never found a frame, an answer or damage would have tried nothing.
_MUST_BE_SAID = (
    "stream645 FoundFrame", "stream645 Damaged", "stream376 FoundFrame", "stream376 Damaged",
    "master376 Spontaneous", "master376 Late", "master376 Answered", "master376 EventsWaiting",
    "terminal376 Asked", "guarded376 PasswordRefused", "slave645 Asked", "master645 Answered",
    "master645 Unmatched", "probe Found", "unit", "unit refused", "value", "value refused", "said again",
    "seen", "still busy",
)  # fmt: skip


def check_that_all_was_said(said: Counter[str]) -> None:
    for what in _MUST_BE_SAID:
        assert said[what], what


def test_a_sample_of_mutations_gives_only_frames_or_damage() -> None:
    check_that_all_was_said(report([run(str(chosen_seed()), SAMPLE)]))


def test_a_run_adds_nothing_to_memory_once_it_is_warm() -> None:
    result = run(str(chosen_seed()), TRACED, traced=True)
    assert result.grown < GROWTH_AT_MOST, f"memory grew by {result.grown} bytes"


@pytest.mark.long
def test_ten_million_mutations_give_only_frames_or_damage() -> None:
    check_that_all_was_said(report(run_all(chosen_seed(), TEN_MILLION)))


# -- the harness itself ---------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_cases() -> None:
    def some(seed: int) -> list[bytes]:
        mutator = Mutator(field_seeds(), made_seeds(), random.Random(seed))
        return [mutator.case() for _ in range(200)]

    assert some(1) == some(1) != some(2)


def test_seeds_are_good_frames_of_both_families() -> None:
    seeds = (*field_seeds(), *made_seeds())
    by_family = Counter(seed.family for seed in seeds)
    assert by_family[Family.METER] > 1100
    assert by_family[Family.TERMINAL] > 1000
    assert sum(seed.question is not None for seed in seeds) > 1500
    peers = Peers(random.Random(1))
    for seed in made_seeds():
        peers.feed(seed.raw)
    assert peers.said["unit refused"] < 40  # rows of unknown length, and layouts of another version
    assert not peers.said["value refused"]
    assert peers.said["unit"] > 900
    assert peers.said["value"] > 1000


def test_most_repaired_mutations_pass_the_first_door() -> None:
    """Without repair almost nothing would reach the deeper layers."""
    chance = random.Random(1)
    frames = [one.raw for one in valid("qgdw376.1")]
    repaired = 0
    for _ in range(200):
        raw = bytearray(chance.choice(frames))
        raw[chance.randrange(14, len(raw) - 2)] ^= 0xFF
        repair(raw, lengths=True)
        repaired += frame376.examine(bytes(raw), 0) == len(raw)
    assert repaired > 190


def test_what_breaks_is_told_with_its_seed_and_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(self: stream645.FrameStream, data: bytes) -> None:
        raise IndexError("planted")

    monkeypatch.setattr(stream645.FrameStream, "receive_data", wrong)
    with pytest.raises(Broken, match=r"^seed 5, case 0 of 10: [0-9a-f]+\n(.*\n)*IndexError: planted"):
        run("5", 10)


def test_a_leak_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[bytes] = []
    monkeypatch.setattr(Peers, "view", lambda self, data: kept.append(bytes(5000)))
    assert run("6", 800, traced=True).grown > GROWTH_AT_MOST


def test_time_that_grows_with_the_square_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(campaign, "_FLOOD_BYTES", (500, 4_000))  # 64 times as long, not 8

    def slow(self: Peers, data: bytes) -> None:
        for _ in data:
            sum(data)

    monkeypatch.setattr(Peers, "feed", lambda self, data: None)
    monkeypatch.setattr(Peers, "view", slow)
    with pytest.raises(Broken, match="times as long: 68fe"):
        slowdown(b"\x68\xfe")


# -- time -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "piece",
    ["68", "fe", "68fe68", "68fefffeff68", "68ffff68ffff", "680e000e0068", "68aaaaaaaaaaaa68", "6832003200"],
)
def test_time_grows_no_faster_than_a_flood(piece: str) -> None:
    slowdown(bytes.fromhex(piece))


def test_time_grows_no_faster_than_frames_that_say_much() -> None:
    longest = sorted(made_seeds(), key=lambda seed: len(seed.raw))[-2:]
    for seed in longest:
        slowdown(seed.raw)
