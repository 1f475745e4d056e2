"""Many mutations through everybody of `peers`, on several processes, each with its own seed.

By hand: python -m tests.fuzz.campaign --cases 100000 --seed 7; the seed is printed first, and the same seed,
cases and place (which of the processes) give the same cases.
"""

from __future__ import annotations

import argparse
import gc
import multiprocessing
import os
import random
import sys
import time
import traceback
import tracemalloc
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import _lru_cache_wrapper

import psutil

from protocols.q_gdw376 import midnight
from tests.fuzz.mutations import Family, Mutator
from tests.fuzz.peers import Peers
from tests.fuzz.seeds import field_seeds, made_seeds
from tests.protocols.timing import seconds

PROCESSES = 2
_WARM_UP, _WARM_UP_TRACED = 0.1, 0.5
"""The part of a run after which memory may grow no more."""
# The whole of a process: its allocator keeps what a few large cases once needed.
_RSS_GROWTH_AT_MOST = 40_000_000
_FLOODS_AT_MOST, _CASES_A_FLOOD = 150, 20_000
"""How often the time is measured that many times as many bytes take."""
_FLOOD_BYTES = (8_000, 32_000)
_CHUNK = 4096
# Four times the bytes may take so many times as long: four, and room for a busy machine.
_SLOWER_AT_MOST = 8.0
_EACH_ASKS, _EACH_LOOKS = 3, 6


@dataclass(frozen=True)
class Result:
    """What one process did. grown: bytes of memory that came on after the warm-up, by tracemalloc or RSS;
    floods: measured time of four times the bytes, each as a multiple."""

    seed: str
    cases: int
    seconds: float
    cpu_seconds: float
    said: Counter[str]
    grown: int
    floods: tuple[float, ...]


class Broken(AssertionError):
    """A case that must not be, with all that is needed to see it again."""


def run(seed: str, cases: int, traced: bool = False) -> Result:
    """`cases` mutations, whole or split, to long-lived peers. traced: watch Python's own memory, which is
    several times as slow, in place of the process's.

    Broken where anybody raises, says what cannot be, holds too much, grows, or takes longer than in
    proportion to the bytes.
    """
    chance = random.Random(seed)
    mutator = Mutator(field_seeds(), made_seeds(), chance)
    peers = Peers(chance)
    memory = _traced_memory if traced else _process_memory
    grown_from = 0
    warm = int(cases * (_WARM_UP_TRACED if traced else _WARM_UP))
    each_floods = max(_CASES_A_FLOOD, cases // _FLOODS_AT_MOST)
    measured: list[float] = []
    raw = b""
    number = 0
    began, cpu = time.perf_counter(), time.process_time()
    if traced:
        tracemalloc.start(1)
    try:
        for number in range(cases):
            picked = mutator.seed()
            if number % _EACH_ASKS == 0:
                peers.ask(picked)
            worse = mutator.worsen(picked)
            if picked.family is Family.TERMINAL:
                peers.aim(worse)
            raw = mutator.finish(worse, picked)
            # The other family's ends must live with these bytes too, now and then.
            family = picked.family if number % 16 else None
            if raw and chance.random() < 0.2:
                cut = chance.randrange(len(raw) + 1)
                peers.feed(raw[:cut], family)
                peers.feed(raw[cut:], family)
            else:
                peers.feed(raw, family)
            if number % _EACH_LOOKS == 0:
                peers.view(raw)
            if raw and not traced and number % each_floods == 0:
                measured.append(slowdown(raw))
            if number == warm:
                peers.settle()
                grown_from = memory()
        peers.settle()
        grown = memory() - grown_from
    except Exception as error:
        raise Broken(
            f"seed {seed}, case {number} of {cases}: {raw.hex()}\n{traceback.format_exc()}"
        ) from error
    finally:
        tracemalloc.stop()
    took, cpu_took = time.perf_counter() - began, time.process_time() - cpu
    return Result(seed, cases, took, cpu_took, peers.said, grown, tuple(measured))


def run_all(seed: int, cases: int, processes: int = PROCESSES) -> list[Result]:
    """`run` on several processes. Broken as there, and where a process's memory grew."""
    each = -(-cases // processes)
    with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn")) as pool:
        jobs = [pool.submit(run, f"{seed}/{place}", each) for place in range(processes)]
        results = [job.result() for job in jobs]
    for result in results:
        if result.grown > _RSS_GROWTH_AT_MOST:
            raise Broken(f"seed {result.seed}: memory grew by {result.grown:,} bytes after the warm-up")
    return results


def slowdown(piece: bytes) -> float:
    """How many times as long four times the bytes take, that are `piece` again and again. Broken where that
    is far from four, three times in a row."""
    slower = 0.0
    for _ in range(3):
        short, long = (_seconds(piece * (size // len(piece) + 1)) for size in _FLOOD_BYTES)
        slower = long / short
        if slower < _SLOWER_AT_MOST:
            return slower
    raise Broken(f"four times the bytes take {slower:.1f} times as long: {piece.hex()}")


def _seconds(data: bytes) -> float:
    """Processor time for everybody to hear and see `data`."""

    def hear() -> None:
        peers = Peers(random.Random(1))
        for at in range(0, len(data), _CHUNK):
            peers.feed(data[at : at + _CHUNK])
        peers.view(data)

    return seconds(hear, tries=2)


def _process_memory() -> int:
    gc.collect()
    return int(psutil.Process().memory_info().rss)


def _traced_memory() -> int:
    """Bytes traced, after the bounded memories of the protocol packages have been emptied."""
    for one in gc.get_objects():
        if isinstance(one, _lru_cache_wrapper) and one.__module__.startswith("protocols"):
            info = one.cache_info()
            # Without a bound only where there is nothing to ask but a few words of our own.
            assert info.maxsize is not None or info.currsize <= 4, one
            if info.maxsize is not None:
                one.cache_clear()
    midnight._known.clear()
    midnight._times.clear()
    gc.collect()
    return tracemalloc.get_traced_memory()[0]


def chosen_seed() -> int:
    """The run's seed, printed so that a failure can be repeated; LINGDIAN_FUZZ_SEED sets it."""
    chosen = int(os.environ.get("LINGDIAN_FUZZ_SEED") or random.SystemRandom().randrange(1 << 32))
    print(f"LINGDIAN_FUZZ_SEED={chosen}", flush=True)
    return chosen


def report(results: list[Result], say: Callable[[str], None] = print) -> Counter[str]:
    """What the processes did, for a person; and all that was said."""
    said: Counter[str] = Counter()
    for one in results:
        said += one.said
        worst = max(one.floods, default=0.0)
        say(
            f"seed {one.seed}: {one.cases:,} cases in {one.seconds:.0f} s ({one.cases / one.seconds:,.0f}/s; "
            f"{one.cpu_seconds / one.cases * 1e6:.0f} µs of processor each), "
            f"memory {one.grown / 1e6:+.1f} MB after the warm-up, "
            f"four times the bytes at most {worst:.1f} times as long in {len(one.floods)} floods"
        )
    for what, count in sorted(said.items()):
        say(f"  {what}: {count:,}")
    return said


def main() -> None:
    """Read the command line, run, report."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--cases", type=int, default=100_000)
    parser.add_argument("--processes", type=int, default=PROCESSES)
    parser.add_argument("--seed", type=int)
    arguments = parser.parse_args()
    seed = chosen_seed() if arguments.seed is None else arguments.seed
    try:
        report(run_all(seed, arguments.cases, arguments.processes))
    except Broken as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
