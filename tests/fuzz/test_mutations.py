"""Any bytes give frames or damage: no exception, no growth, no time that grows faster than the bytes.

`make test` runs a sample, `make test-long` a million frames. The seed is printed; LINGDIAN_FUZZ_SEED sets it.
"""

from __future__ import annotations

import gc
import os
import random
import time
import tracemalloc
from collections import Counter
from datetime import date
from functools import _lru_cache_wrapper
from itertools import islice

import pytest

from protocols import lens
from protocols.dlt645 import connection as connection645
from protocols.dlt645 import items as items645
from protocols.dlt645 import messages as messages645
from protocols.dlt645 import stream as stream645
from protocols.errors import LocalProtocolError, RemoteProtocolError
from protocols.q_gdw376 import connection as connection376
from protocols.q_gdw376 import frame as frame376
from protocols.q_gdw376 import messages as messages376
from protocols.q_gdw376 import midnight
from protocols.q_gdw376 import stream as stream376
from tests.fuzz.mutations import mutated, repair
from tests.protocols.vectors import valid

SAMPLE = 20_000
MILLION = 1_000_000
HELD_AT_MOST = 20_000
"""Bytes a stream may hold once its events are taken: one frame of 16,391 bytes and one piece of damage."""

GROWTH_AT_MOST = 300_000
"""Bytes of Python memory that a run may add once warmed up, bounded memories of dates and names emptied."""

FIELD = [one.raw for one in valid("dlt645-2007", "dlt645-1997", "qgdw376.1", "dlt698.45")]


class Peers:
    """Streams and both ends of both families, all fed with the same bytes; counts what they say."""

    def __init__(self) -> None:
        self.said: Counter[str] = Counter()
        self.now = 0.0
        self.stream645 = stream645.FrameStream()
        self.stream376 = stream376.FrameStream()
        self.master645 = connection645.Master()
        self.slave645 = connection645.Slave()
        self.master376 = connection376.Master()
        self.terminal376 = connection376.Terminal("02001234")

    def feed(self, data: bytes) -> None:
        """Give `data` to everybody, and read every frame that is found to its values."""
        self.now += 0.01
        self.stream645.receive_data(data)
        while (event := self.stream645.next_event()) is not None:
            self.said[f"stream645 {type(event).__name__}"] += 1
            if isinstance(event, stream645.FoundFrame):
                self._read645(messages645.from_frame(event.frame))
        self.stream376.receive_data(data)
        while (found := self.stream376.next_event()) is not None:
            self.said[f"stream376 {type(found).__name__}"] += 1
            if isinstance(found, stream376.FoundFrame):
                for unit in messages376.decode(found.frame):
                    self.said["unit refused" if unit.reason else "unit"] += 1
                if found.frame.afn == 0x0D:
                    midnight.rows(found.frame)
        for name, end in (
            ("master645", self.master645),
            ("slave645", self.slave645),
            ("master376", self.master376),
            ("terminal376", self.terminal376),
        ):
            end.receive_data(data, self.now)
            while (told := end.next_event()) is not None:
                self.said[f"{name} {type(told).__name__}"] += 1
            end.data_to_send()
            due = end.next_timeout()
            if due is not None and due <= self.now:
                end.handle_timeout(self.now)

    def _read645(self, message: messages645.Message) -> None:
        if isinstance(message, messages645.ReadReply):
            try:
                items645.decode(message.di, message.data)
            except RemoteProtocolError:
                self.said["value refused"] += 1

    def ask(self, chance: random.Random) -> None:
        """Keep exchanges open: answers are judged more closely then."""
        requests = (
            messages376.read_frozen(161, [1, 2, 3], date(2026, 11, 23)),
            messages376.read_clock(),
            messages376.forward(
                31, bytes.fromhex("681200051123206811043333343 31D16".replace(" ", "")), 30, 100
            ),
        )
        try:
            self.master645.send(messages645.ReadRequest("202311050012", "00010000"), self.now)
            self.master376.send(chance.choice(requests), self.now)
        except LocalProtocolError:
            self.said["still busy"] += 1

    @property
    def held(self) -> int:
        """The most that any stream holds."""
        return max(self.stream645.held, self.stream376.held, self.master376.held)


def seed() -> int:
    """The run's seed, printed so that a failure can be repeated."""
    chosen = int(os.environ.get("LINGDIAN_FUZZ_SEED") or random.SystemRandom().randrange(1 << 32))
    print(f"LINGDIAN_FUZZ_SEED={chosen}")
    return chosen


def memory_in_use() -> int:
    """Bytes traced, after the bounded memories of the protocol packages have been emptied."""
    for one in gc.get_objects():
        if isinstance(one, _lru_cache_wrapper) and one.__module__.startswith("protocols"):
            assert one.cache_info().maxsize is not None or one.cache_info().currsize <= 1, one
            if one.cache_info().maxsize is not None:
                one.cache_clear()
    midnight._known.clear()
    midnight._times.clear()
    gc.collect()
    return tracemalloc.get_traced_memory()[0]


def run(count: int, chance: random.Random) -> Peers:
    """Feed `count` mutated frames, whole, split or joined; checks what is held all along."""
    peers = Peers()
    grown_from = 0
    tracemalloc.start(1)
    try:
        for number, raw in enumerate(islice(mutated(FIELD, chance), count)):
            if number % 7 == 0:
                peers.ask(chance)
            cut = chance.randrange(len(raw) + 1) if raw else 0
            for part in (raw[:cut], raw[cut:]) if chance.random() < 0.3 else (raw,):
                peers.feed(part)
            assert peers.held <= HELD_AT_MOST
            if number == count // 10:
                grown_from = memory_in_use()
        grown = memory_in_use() - grown_from
    finally:
        tracemalloc.stop()
    assert grown < GROWTH_AT_MOST, f"memory grew by {grown} bytes"
    return peers


def check_that_all_was_said(said: Counter[str]) -> None:
    """A run that never found a frame, an answer or damage would have tried nothing."""
    print(dict(sorted(said.items())))
    for what in (
        "stream645 FoundFrame", "stream645 Damaged", "stream376 FoundFrame", "stream376 Damaged",
        "master376 Spontaneous", "master376 Late", "terminal376 Asked", "slave645 Asked",
        "master645 Unmatched", "unit", "unit refused", "value refused", "still busy",
    ):  # fmt: skip
        assert said[what], what


def test_a_sample_of_mutated_frames_gives_only_frames_or_damage() -> None:
    check_that_all_was_said(run(SAMPLE, random.Random(seed())).said)


@pytest.mark.long
def test_a_million_mutated_frames_give_only_frames_or_damage() -> None:
    began = time.monotonic()
    check_that_all_was_said(run(MILLION, random.Random(seed())).said)
    print(f"{MILLION:,} frames in {time.monotonic() - began:.0f} s")


def test_the_lens_says_something_about_every_mutation() -> None:
    chance = random.Random(seed())
    seen = 0
    for raw in islice(mutated(FIELD, chance), SAMPLE // 4):
        seen += len(lens.look(raw).frames)
    assert seen


def test_a_repaired_frame_passes_the_checksum() -> None:
    """The harness itself: without repair almost nothing would reach the deeper layers."""
    chance = random.Random(1)
    frames = [one.raw for one in valid("qgdw376.1")]
    repaired = 0
    for _ in range(200):
        raw = bytearray(chance.choice(frames))
        raw[chance.randrange(14, len(raw) - 2)] ^= 0xFF
        repair(raw, lengths=True)
        repaired += frame376.examine(bytes(raw), 0) == len(raw)
    assert repaired > 190


@pytest.mark.parametrize("flood", [b"\x68", b"\x68\xfe\x68", bytes.fromhex("68feff feff68"), b"\xfe"])
def test_time_grows_no_faster_than_a_flood(flood: bytes) -> None:
    def seconds(times: int) -> float:
        best = 1e9
        for _ in range(3):
            peers = Peers()
            data = flood * (times // len(flood))
            began = time.perf_counter()
            for at in range(0, len(data), 4096):
                peers.feed(data[at : at + 4096])
            best = min(best, time.perf_counter() - began)
        return best

    seconds(10_000)
    assert seconds(240_000) < 12 * 3 * seconds(20_000) + 0.05
