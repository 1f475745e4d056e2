"""What every measurement prints beside its figures: machine, versions, runs and spread."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from time import perf_counter

from rich.console import Console
from rich.table import Table

console = Console(width=110)


def machine(packages: Sequence[str]) -> None:
    """Print processor, cores, memory, Python and the versions of `packages`."""
    model = next(
        (line.split(":", 1)[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")),
        platform.processor(),
    )
    memory = next(
        (int(line.split()[1]) for line in _lines("/proc/meminfo") if line.startswith("MemTotal")), 0
    )
    load = os.getloadavg()[0]
    console.print(
        f"machine: {model}, {os.cpu_count()} cores, {memory / 1048576:.0f} GiB, {platform.system()} "
        f"{platform.release()}, load {load:.2f}; Python {platform.python_version()}; "
        + ", ".join(f"{name} {version(name)}" for name in packages)
    )


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []


def seconds_a_call(
    *actions: Callable[[], object], runs: int = 9, at_least: float = 0.2
) -> tuple[list[float], ...]:
    """Seconds a call of each action, per run. The actions take turns, so that a machine whose speed drifts
    does the same to all of them; a run of one lasts about `at_least` seconds."""
    counts = [_enough(action, at_least) for action in actions]
    results: tuple[list[float], ...] = tuple([] for _ in actions)
    for _ in range(runs):
        for action, count, result in zip(actions, counts, results, strict=True):
            result.append(_lasts(action, count) / count)
    return results


def _enough(action: Callable[[], object], at_least: float) -> int:
    count = 1
    while (lasted := _lasts(action, count)) < at_least:
        count = max(count * 2, int(count * at_least / max(lasted, 1e-9)))
    return count


def _lasts(action: Callable[[], object], count: int) -> float:
    began = perf_counter()
    for _ in range(count):
        action()
    return perf_counter() - began


def spread_table(title: str, rows: Sequence[tuple[str, Sequence[float], float, str]]) -> None:
    """Print rows of (what, seconds per run, multiplier to the unit, unit) as min, median, max."""
    table = Table(title=title, title_justify="left")
    for heading in ("what", "min", "median", "max", "unit", "runs"):
        table.add_column(heading, justify="left" if heading in ("what", "unit") else "right")
    for what, values, factor, unit in rows:
        scaled = [value * factor for value in values]
        table.add_row(
            what,
            f"{min(scaled):,.2f}",
            f"{statistics.median(scaled):,.2f}",
            f"{max(scaled):,.2f}",
            unit,
            str(len(scaled)),
        )
    console.print(table)
