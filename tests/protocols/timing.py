"""How long some work takes, so that two sizes of it can be compared on a busy machine."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable


def seconds(work: Callable[[], object], tries: int = 3) -> float:
    """Processor time of the best of some tries, without the garbage collector: a long test run's heap makes
    its passes cost more than the work."""
    best = float("inf")
    gc.collect()
    gc.disable()
    try:
        for _ in range(tries):
            began = time.process_time()
            work()
            best = min(best, time.process_time() - began)
    finally:
        gc.enable()
    return best
