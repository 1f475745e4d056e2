"""How evenly the machine itself runs: one fixed piece of work again and again, beside a measurement.

Its cost in processor time is the same each time, whoever else wants the processor. Where it rises the machine
has become slower, as one does that shares its processors with others and is not told, and so has all that was
measured meanwhile.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

from tests.end_to_end.billing import percentiles

BEAT_SECONDS: Final = 0.05
WORK: Final = 50_000
"""Additions: a millisecond, of which two in a hundred are taken from what is measured."""

_BEATS: Final = f"""
import sys, threading, time
ended = threading.Thread(target=sys.stdin.read, daemon=True)
ended.start()
beats = []
while ended.is_alive():
    began = time.thread_time()
    sum(range({WORK}))
    beats.append(time.thread_time() - began)
    time.sleep({BEAT_SECONDS})
print(*beats)
"""


@dataclass
class Pulse:
    """Filled when the measurement is over. beats: seconds of processor time of each."""

    beats: list[float] = field(default_factory=list)

    def __str__(self) -> str:
        """The 95th and 99th percentile of a beat's cost, as multiples of the usual one."""
        usual, p95, p99 = percentiles(self.beats)
        return f"p95 {p95 / usual:.1f}, p99 {p99 / usual:.1f}"


@contextmanager
def pulse() -> Iterator[Pulse]:
    """Feel it, in a process of its own, while the block runs."""
    felt = Pulse()
    with subprocess.Popen(
        [sys.executable, "-c", _BEATS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            yield felt
        finally:
            told, _ = process.communicate("")
    felt.beats += map(float, told.split())
