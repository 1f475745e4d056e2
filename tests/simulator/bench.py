"""One simulated terminal and the protocol's master, in memory, on a clock that only moves when told."""

from __future__ import annotations

from collections import Counter
from datetime import date, datetime

from protocols.q_gdw376.connection import (
    Answered,
    Confirmed,
    Damaged,
    Denied,
    Late,
    Master,
    MasterEvent,
    Silent,
    Spontaneous,
)
from protocols.q_gdw376.messages import Request
from simulator.bus import Making
from simulator.clock import seconds
from simulator.district import District, TerminalPlan
from simulator.faults import Faults, TerminalFaults, deal
from simulator.line import Ending, Line
from simulator.pushes import Pushes, nowhere
from simulator.store import Naming
from simulator.terminal import State, Terminal

DAY = date(2026, 11, 23)
MORNING = seconds(datetime(2026, 11, 24, 9, 0))
REDIAL = 1.0

Outcome = Answered | Confirmed | Denied | Silent


class Bench:
    """`link` counts the links dialled; `heard` keeps every event of the master; `endings` how links ended."""

    def __init__(
        self,
        plan: TerminalPlan,
        *,
        faults: Faults | None = None,
        mine: TerminalFaults | None = None,
        now: float = MORNING,
        heartbeat: float = 60.0,
        naming: Naming = "ended_day",
        confirms: bool = True,
        making: Making | None = None,
        pushes: Pushes = nowhere,
    ) -> None:
        self.plan = plan
        self.now = now
        self.counts: Counter[str] = Counter()
        self.confirms = confirms
        self.heard: list[MasterEvent] = []
        self.endings: list[Ending] = []
        self.links = 0
        self.writes: list[bytes] = []
        faults = faults or Faults()
        mine = mine or TerminalFaults(seed=plan.address)
        self.terminal = Terminal(
            plan,
            DAY,
            now,
            faults=faults,
            mine=mine,
            counts=self.counts,
            heartbeat=heartbeat,
            naming=naming,
            making=making,
            pushes=pushes,
        )
        self.line = Line(self.terminal, now, faults, mine, self.counts)
        self.master = Master(reply_timeout=10.0)
        self._dial_at: float | None = now

    def run(self, duration: float) -> None:
        """Let so many seconds pass, and all that happens in them."""
        end = self.now + duration
        while (at := self._next()) is not None and at <= end:
            self.now = max(self.now, at)
            self._turn()
        self.now = end

    def log_in(self) -> None:
        """Run until the terminal is logged in."""
        for _ in range(100):
            if self.terminal.state is State.HERE:
                return
            self.run(1.0)
        raise AssertionError("no login")

    def ask(self, request: Request, patience: float = 100.0) -> Outcome:
        """One exchange to its end."""
        before = len(self.heard)
        self._deliver(self.master.send(request, self.now))
        end = self.now + patience
        while self.now < end:
            for event in self.heard[before:]:
                if isinstance(event, Outcome):
                    return event
            self.run(0.1)
        raise AssertionError("the exchange did not end")

    def events(self, kind: type[MasterEvent]) -> list[MasterEvent]:
        return [event for event in self.heard if isinstance(event, kind)]

    def _next(self) -> float | None:
        times = (
            self._dial_at,
            self.line.next_timeout() if self._dial_at is None else None,
            self.master.next_timeout(),
        )
        return min((at for at in times if at is not None), default=None)

    def _turn(self) -> None:
        if self._dial_at is not None and self.now >= self._dial_at:
            self._dial_at = None
            self.links += 1
            fresh = Master(reply_timeout=10.0)
            fresh.terminal = self.plan.address
            if not self.master.busy:
                self.master = fresh
            self.line.dial(self.now)
        if self._dial_at is None:
            self.line.handle_timeout(self.now)
        self.master.handle_timeout(self.now)
        self._deliver(self.master.data_to_send())
        self._listen()

    def _deliver(self, data: bytes) -> None:
        if data and self._dial_at is None:
            self.line.receive_data(data, self.now)
            self._listen()

    def _listen(self) -> None:
        chunks = self.line.chunks(self.now)
        ending = self.line.ending
        if ending is not None:
            self.endings.append(ending)
            self.line.lost()
            self._dial_at = self.now + REDIAL
        for chunk in chunks:
            self.writes.append(chunk)
            self.master.receive_data(chunk, self.now)
        while (event := self.master.next_event()) is not None:
            self.heard.append(event)
            if isinstance(event, Spontaneous) and event.frame.con and self.confirms:
                self._deliver(self.master.confirm(event.frame))


def bench_with(
    faults: Faults,
    *,
    terminals: int = 1,
    meters: int = 60,
    number: int = 0,
    heartbeat: float = 60.0,
    pushes: Pushes = nowhere,
) -> Bench:
    """The bench of one of a district's devices (impostors come last) under the faults dealt to it."""
    district = District(
        7,
        terminals,
        meters,
        DAY,
        swapped=faults.swapped.count if faults.swapped else 0,
        clashes=faults.clash.count if faults.clash else 0,
    )
    plan, mine = deal(faults, district)[number]
    return Bench(plan, faults=faults, mine=mine, heartbeat=heartbeat, pushes=pushes)


__all__ = [
    "DAY",
    "MORNING",
    "Answered",
    "Bench",
    "Confirmed",
    "Damaged",
    "Denied",
    "Late",
    "Silent",
    "Spontaneous",
    "bench_with",
]
