"""The coverage-guided search: its inputs are what they should be, and what it found once is tried again here.

`make test-long` searches for an hour; LINGDIAN_GUIDED_SECONDS sets another time.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from protocols.dlt645 import frame as frame645
from protocols.q_gdw376 import frame as frame376
from tests.fuzz import guided, inputs
from tests.fuzz.inputs import CORPUS, first_inputs, framed, input_of, load, pieces, target
from tests.fuzz.mutations import Family
from tests.fuzz.peers import Peers
from tests.fuzz.seeds import field_seeds

ROOT = Path(__file__).parents[2]
HOUR = 3600
LARGEST = 300_000
FAMILIES = pytest.mark.parametrize("family", Family, ids=lambda family: family.value)


@FAMILIES
def test_what_the_search_has_kept_breaks_nothing(family: Family) -> None:
    kept = load(family)
    assert len(kept) > 100
    try_input = target(family)
    for told in kept:
        try_input(told)


def test_the_corpus_is_small_and_sorted() -> None:
    assert {path.name for path in CORPUS.iterdir()} == {f"{family.value}.txt" for family in Family}
    assert sum(path.stat().st_size for path in CORPUS.iterdir()) < LARGEST
    for family in Family:
        kept = load(family)
        assert kept == sorted(set(kept), key=lambda one: (len(one), one))
        assert max(map(len, kept)) <= guided.LONGEST_INPUT


def test_the_corpus_is_written_as_it_is_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(inputs, "CORPUS", tmp_path / "corpus")
    monkeypatch.setattr(inputs, "LARGEST_CORPUS", 20)
    inputs.save(Family.METER, [b"\x03\x04", b"", b"\x01", b"\x01", bytes(9)])
    assert load(Family.METER) == [b"\x01", b"\x03\x04"]
    assert load(Family.TERMINAL) == []


def test_a_frame_is_put_around_content() -> None:
    meter = frame645.parse(framed(bytes.fromhex("120005112320 11 00000100"), Family.METER))
    assert meter == frame645.Frame("202311050012", 0x11, bytes.fromhex("00000100"))
    assert frame645.parse(framed(b"", Family.METER)).address == "000000000000"
    user = bytes.fromhex("4b 0002 3412 02 0c 60 00000100")
    assert frame376.parse(framed(user, Family.TERMINAL)).afn == 0x0C


def test_an_input_is_read_piece_by_piece() -> None:
    assert list(pieces(bytes.fromhex("0101aabbccdd0200"))) == [(1, bytes.fromhex("aabbccdd")), (2, b"")]
    assert list(pieces(bytes.fromhex("07"))) == []
    assert list(pieces(bytes.fromhex("07ffaa"))) == [(3, b"\xaa")]


@FAMILIES
def test_a_field_frame_as_an_input_is_found_whole(family: Family) -> None:
    seeds = [seed for seed in field_seeds() if seed.family is family][:100]
    peers = Peers(random.Random(1))
    for seed in seeds:
        for kind, content in pieces(input_of([seed])):
            assert kind == 1
            peers.feed(framed(content, family), family)
    name = "stream645" if family is Family.METER else "stream376"
    assert peers.said[f"{name} FoundFrame"] >= len(seeds) - 5  # 698.45 is nobody's
    assert len(first_inputs(family)) > len(seeds)


def test_what_breaks_is_not_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frame645, "content", lambda raw: 1 / 0)
    monkeypatch.setattr("protocols.dlt645.stream.content", lambda raw: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        target(Family.METER)(load(Family.METER)[-1] + input_of(field_seeds()[:1]))


@pytest.mark.long
def test_an_hour_of_guided_search_breaks_nothing() -> None:
    pytest.importorskip("atheris")
    seconds = os.environ.get("LINGDIAN_GUIDED_SECONDS") or str(HOUR)
    command = [sys.executable, "-m", "tests.fuzz.guided", "--seconds", seconds]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
