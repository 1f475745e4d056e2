"""The district over real TCP: one asyncio protocol a link, one task a terminal that dials and dials again."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from simulator.bus import Making
from simulator.clock import Clock
from simulator.district import District
from simulator.esam import BENCH_KEY
from simulator.faults import Faults, deal
from simulator.ledger import Ledger, nowhere
from simulator.line import Ending, Line
from simulator.store import Naming
from simulator.terminal import State, Terminal

FIRST_REDIAL = 1.0
LONGEST_REDIAL = 60.0
"""Seconds to wait before dialling again: doubled at each failure, halved to doubled once more by jitter."""
SHORTEST_REDIAL = 0.1
"""Real seconds between two dials, however fast the clock runs."""
DIALS_A_SECOND = 500.0
"""All terminals together at the start: a master's accept queue is finite."""
GOODBYE_SECONDS = 5.0
"""Real seconds that a clean stop waits for confirms of logouts."""
MOST_SILENT_LINKS = 8
"""Vanished links that one terminal leaves open; the oldest is closed beyond that."""


@dataclass(frozen=True, slots=True)
class Run:
    """Where to dial and how to behave. tell: called with each milestone's name and what belongs to it.
    ledger, master_key: of the meters.
    """

    host: str
    port: int
    clock: Clock
    faults: Faults
    heartbeat: float = 60.0
    naming: Naming = "ended_day"
    tell: Callable[[str, dict[str, object]], None] = lambda name, what: None
    ledger: Ledger = nowhere
    master_key: bytes = field(default=BENCH_KEY, repr=False)


class _Link(asyncio.Protocol):
    """One TCP link of a caller; when the caller has moved on to another, it is only kept open."""

    def __init__(self, caller: _Caller) -> None:
        self._caller = caller
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self._caller.link_up(self)

    def data_received(self, data: bytes) -> None:
        self._caller.received(self, data)

    def connection_lost(self, error: Exception | None) -> None:
        self._caller.link_down(self)


class _Caller:
    """Keeps one line's terminal connected until `stop`."""

    def __init__(self, line: Line, run: Run, chance: random.Random, on_login: Callable[[], None]) -> None:
        self._line = line
        self._run = run
        self._chance = chance
        self._on_login = on_login
        self._link: _Link | None = None
        self._silent: list[_Link] = []
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._down = asyncio.Event()
        self._seen_state = State.AWAY

    async def keep_calling(self, first_wait: float) -> None:
        """Dial after `first_wait` district seconds, and again whenever the link has ended."""
        clock = self._run.clock
        await asyncio.sleep(clock.real_seconds(first_wait))
        loop = asyncio.get_running_loop()
        wait = FIRST_REDIAL
        while True:
            self._down.clear()
            try:
                await loop.create_connection(lambda: _Link(self), self._run.host, self._run.port)
            except OSError:
                self._down.set()
            await self._down.wait()
            if self._seen_state is State.HERE:
                wait = FIRST_REDIAL
            self._seen_state = State.AWAY
            jittered = wait * self._chance.uniform(0.5, 1.5)
            await asyncio.sleep(max(SHORTEST_REDIAL, clock.real_seconds(jittered)))
            wait = min(2 * wait, LONGEST_REDIAL)

    def link_up(self, link: _Link) -> None:
        self._link = link
        self._line.dial(self._run.clock.now())
        self._pump()

    def received(self, link: _Link, data: bytes) -> None:
        if link is not self._link:
            return
        self._line.receive_data(data, self._run.clock.now())
        self._pump()

    def link_down(self, link: _Link) -> None:
        if link in self._silent:
            self._silent.remove(link)
        if link is self._link:
            self._leave_link()

    def log_out(self) -> None:
        if self._link is not None:
            self._line.log_out(self._run.clock.now())
            self._pump()

    async def gone(self) -> None:
        """Wait until there is no link."""
        if self._link is not None:
            await self._down.wait()

    def close(self) -> None:
        """End all links now."""
        links = [self._link, *self._silent]
        self._leave_link()
        for link in links:
            if link is not None and link.transport is not None:
                link.transport.abort()

    def _pump(self) -> None:
        """Write what is due, end the link if it is to end, and set the timer for what comes next."""
        link, line = self._link, self._line
        if link is None or link.transport is None:
            return
        now = self._run.clock.now()
        for chunk in line.chunks(now):
            link.transport.write(chunk)
        state = line.terminal.state
        if state is not self._seen_state:
            self._seen_state = state
            if state is State.HERE:
                self._on_login()
        match line.ending:
            case None:
                self._set_timer(line.next_timeout(), now)
                return
            case Ending.CLOSE | Ending.ABORT:
                # close() still sends what was written: the half answer must arrive before the end.
                link.transport.close()
            case Ending.VANISH:
                self._silent.append(link)
                if len(self._silent) > MOST_SILENT_LINKS:
                    oldest = self._silent.pop(0)
                    if oldest.transport is not None:
                        oldest.transport.close()
        self._leave_link()

    def _leave_link(self) -> None:
        if self._link is not None:
            self._link = None
            self._line.lost()
            self._down.set()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _set_timer(self, at: float | None, now: float) -> None:
        """A timer that is early costs one idle call; setting one anew for each frame would cost more."""
        if at is None or (self._timer is not None and self._timer_at <= at):
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = at
        self._timer = asyncio.get_running_loop().call_later(
            self._run.clock.real_seconds(at - now), self._timer_due
        )

    def _timer_due(self) -> None:
        self._timer = None
        self._line.handle_timeout(self._run.clock.now())
        self._pump()


async def run_district(district: District, run: Run, stop: asyncio.Event) -> Counter[str]:
    """Dial in with every terminal and impostor and serve until `stop`; then log out. What was counted: faults
    that fired by their name, and traffic."""
    counts: Counter[str] = Counter()
    started = run.clock.now()
    dealt = deal(run.faults, district)
    chance = random.Random(f"{district.seed}/redial")
    waited_for = {number for number, (_, mine) in enumerate(dealt) if not mine.absent_until}
    expected = len(waited_for)

    def on_login(number: int) -> None:
        if number in waited_for:
            waited_for.discard(number)
            if not waited_for:
                run.tell("logged_in", {"terminals": expected})

    making = Making(run.faults, district.seed, started, run.ledger, run.master_key)
    callers = []
    tasks = []
    for number, (plan, mine) in enumerate(dealt):
        terminal = Terminal(
            plan,
            district.day,
            started,
            faults=run.faults,
            mine=mine,
            counts=counts,
            heartbeat=run.heartbeat,
            naming=run.naming,
            patience=max(1.0, run.clock.speed),
            making=making,
        )
        terminal.prepare(started)
        line = Line(terminal, started, run.faults, mine, counts)
        caller = _Caller(line, run, chance, partial(on_login, number))
        callers.append(caller)
        if mine.absent_until:
            counts["absent"] += 1
        wait = mine.absent_until or number / DIALS_A_SECOND * run.clock.speed
        tasks.append(asyncio.create_task(caller.keep_calling(wait)))
    # What stands now stays to the end: no need to look through it for garbage again and again.
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
    try:
        await stop.wait()
        for task in tasks:
            task.cancel()
        for caller in callers:
            caller.log_out()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.gather(*(caller.gone() for caller in callers)), GOODBYE_SECONDS)
    finally:
        for task in tasks:
            task.cancel()
        for caller in callers:
            caller.close()
        await asyncio.gather(*tasks, return_exceptions=True)
    return counts
