"""Collections on demand: started once, joined by whoever asks for the same day, watched until they end."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import date, timedelta
from http import HTTPStatus
from typing import Any, Final

import structlog

from gateway.api.problems import Problem
from gateway.clock import Clock, business_day
from gateway.collection.collector import Collector, Progress, Summary
from gateway.collection.plan import LONGEST_BACK
from gateway.errors import LingdianError

Terminals = tuple[str, ...]

RUNS_AT_ONCE: Final = 16
"""Each works its way through all terminals; more than a few people asking at once is a mistake somewhere."""

RUNS_KEPT: Final = 100
"""Ended runs that can still be asked for; the oldest goes first."""

log = structlog.get_logger()


@dataclass(slots=True)
class Run:
    """One collection of one day, on demand."""

    day: date
    terminals: Terminals
    """empty: all"""
    task: asyncio.Task[None] = field(init=False)
    progress: Progress | None = None
    summary: Summary | None = None
    error: str | None = None

    def answer(self) -> dict[str, Any]:
        """The run as JSON: its state and how far it is, or what it came to."""
        shown: dict[str, Any] = {
            "day": self.day.isoformat(),
            "terminals": list(self.terminals) or None,
            "state": "running",
            "error": self.error,
        }
        if self.progress is not None:
            due, done = self.progress.due, self.progress.done
            shown |= {"due": due, "collected": done, "missing": due - done}
            shown["progress"] = self.progress.terminals._asdict()
        if self.summary is not None:
            summary = self.summary
            shown |= {
                "state": "done",
                "due": summary.due,
                "collected": summary.collected,
                "missing": summary.missing,
                "already": summary.already,
                "meters": summary.meters,
                "meters_complete": summary.meters_complete,
                "reasons": {str(reason): count for reason, count in summary.reasons.most_common()},
                "seconds": round(summary.seconds, 3),
                "readings_per_second": round(summary.readings_per_second, 1),
            }
        if self.error is not None:
            shown["state"] = "failed"
        return shown


class Collections:
    """The runs of this process. `close` ends those that run; what they filed stays filed."""

    def __init__(self, collector: Collector, clock: Clock) -> None:
        self._collector = collector
        self._clock = clock
        self._runs: dict[tuple[date, Terminals], Run] = {}

    def start(self, day: date, terminals: Collection[str] = ()) -> Run:
        """Collect `day` at these terminals (none named: all), or join the run that does just this.

        Problem for a day that cannot be had, and where too many run.
        """
        key = _key(day, terminals)
        run = self._runs.get(key)
        if run is not None and not run.task.done():
            return run
        today = business_day(self._clock.now())
        if not today - timedelta(days=LONGEST_BACK) <= day < today:
            raise Problem(
                HTTPStatus.UNPROCESSABLE_ENTITY,
                "day-out-of-range",
                f"{day} cannot be collected 该日不可召测: choose a day that has ended, at most"
                f" {LONGEST_BACK} days back",
            )
        if sum(not run.task.done() for run in self._runs.values()) >= RUNS_AT_ONCE:
            raise Problem(
                HTTPStatus.TOO_MANY_REQUESTS,
                "too-many-collections",
                f"{RUNS_AT_ONCE} collections are under way 召测任务过多; wait until one has ended",
            )
        run = Run(*key)
        run.task = asyncio.create_task(self._carry_out(run), name=f"collect {day}")
        self._runs.pop(key, None)
        self._runs[key] = run
        for old in list(self._runs)[:-RUNS_KEPT]:
            if self._runs[old].task.done():
                del self._runs[old]
        return run

    def run(self, day: date, terminals: Collection[str] = ()) -> Run | None:
        """The newest run of `day` at just these terminals (none named: all)."""
        return self._runs.get(_key(day, terminals))

    async def close(self) -> None:
        """End every run that is under way and wait until it has ended."""
        tasks = [run.task for run in self._runs.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _carry_out(self, run: Run) -> None:
        def note(progress: Progress) -> None:
            run.progress = progress

        try:
            run.summary = await self._collector.collect(
                run.day, terminals=run.terminals or None, progress=note
            )
        except LingdianError as error:
            log.error("a collection failed", day=run.day.isoformat(), error=str(error))
            run.error = str(error)
        except asyncio.CancelledError:
            run.error = "the gateway was stopped 网关停止"
            raise
        except Exception:  # whoever waits for the run must learn that it ended; the log has the trace
            log.exception("a collection failed", day=run.day.isoformat())
            run.error = "unexpected error; the log has the trace"


def _key(day: date, terminals: Collection[str]) -> tuple[date, Terminals]:
    return day, tuple(sorted({terminal.lower() for terminal in terminals}))
