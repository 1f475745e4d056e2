"""Closes every test run with one plain line, `N passed, N failed, N skipped`, alone and last.

Above it stands why tests were skipped, so that a run that could not try something says so. An error while
setting up, tearing down or collecting counts as failed; an expected failure counts as passed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

import pytest


@dataclass(slots=True)
class Tally:
    """What became of the tests of one run."""

    passed: int = 0
    failed: int = 0
    skipped: Counter[str] = field(default_factory=Counter)

    def count(self, outcome: str, reports: Iterable[object]) -> None:
        """Add the reports that pytest keeps under `outcome`."""
        for report in reports:
            if outcome in ("passed", "xfailed", "xpassed"):
                self.passed += 1
            elif outcome in ("failed", "error"):
                self.failed += 1
            elif outcome == "skipped":
                self.skipped[_reason(report)] += 1

    def lines(self) -> list[str]:
        """The line of reasons, if anything was skipped, and the closing line."""
        reasons = "; ".join(f"{count} {reason}" for reason, count in sorted(self.skipped.items()))
        return [
            *([f"skipped: {reasons}"] if reasons else []),
            f"{self.passed} passed, {self.failed} failed, {self.skipped.total()} skipped",
        ]


def _reason(report: object) -> str:
    """Why a test was skipped: the third part of its place, without pytest's own word before it."""
    place = getattr(report, "longrepr", None)
    reason = str(place[2]) if isinstance(place, tuple) and len(place) == 3 else str(place)
    return reason.removeprefix("Skipped: ")


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config: pytest.Config) -> None:
    """After everything that pytest and its plugins print."""
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None or config.option.collectonly:
        return
    tally = Tally()
    for outcome, reports in reporter.stats.items():
        tally.count(outcome, reports)
    for line in tally.lines():
        reporter.write_line(line)
