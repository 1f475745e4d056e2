"""Devices over real wires, each kept in touch by a task of its own, until all are told to end."""

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
from simulator.caller import Caller, Station
from simulator.clock import Clock
from simulator.district import District
from simulator.esam import BENCH_KEY
from simulator.faults import Faults, deal
from simulator.ledger import Ledger, nowhere
from simulator.line import Line
from simulator.pushes import Pushes
from simulator.pushes import nowhere as nothing_pushed
from simulator.store import Naming
from simulator.terminal import Terminal
from simulator.wires import TcpDial, Wire

DIALS_A_SECOND = 500.0
"""All terminals together at the start: a master's accept queue is finite."""
GOODBYE_SECONDS = 5.0
"""Real seconds that a clean stop waits for confirms of logouts."""


Wiring = Callable[[str, Counter[str]], Wire]
"""The wire of a device by its name; what happens on it is counted."""


@dataclass(frozen=True, slots=True)
class Run:
    """Where to dial and how to behave. tell: called with each milestone's name and what belongs to it.
    ledger, master_key: of the meters. wiring: the wires, in place of TCP to host and port. pushes: told of
    the readings that terminals send of their own accord.
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
    wiring: Wiring | None = None
    frames: bool = False
    """tell all bytes that pass, as events `frame`"""
    pushes: Pushes = nothing_pushed

    def wire(self, name: str, counts: Counter[str]) -> Wire:
        """The wire of the device `name`."""
        if self.wiring is None:
            return TcpDial(self.host, self.port)
        return self.wiring(name, counts)

    def caller(
        self, name: str, station: Station, wire: Wire, chance: random.Random, on_here: Callable[[], None]
    ) -> Caller:
        """What keeps the device `name` at the end of its wire."""

        def seen(way: str, data: bytes) -> None:
            self.tell("frame", {"name": name, "way": way, "hex": data.hex()})

        return Caller(station, wire, self.clock, chance, on_here, seen if self.frames else None)


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
            pushes=run.pushes,
        )
        terminal.prepare(started)
        line = Line(terminal, started, run.faults, mine, counts)
        if mine.absent_until:
            counts["absent"] += 1
        wait = mine.absent_until or number / DIALS_A_SECOND * run.clock.speed
        wire = run.wire(plan.address, counts)
        callers.append((run.caller(plan.address, line, wire, chance, partial(on_login, number)), wait))
    await _keep(callers, stop)
    return counts


async def run_line(name: str, line: Station, run: Run, counts: Counter[str], stop: asyncio.Event) -> None:
    """Have the meters of a line answer until `stop`. name: of the line."""
    wire = run.wire(name, counts)
    chance = random.Random(f"{name}/redial")
    caller = run.caller(name, line, wire, chance, lambda: run.tell("linked", {"name": name}))
    await _keep([(caller, 0.0)], stop)


async def _keep(callers: list[tuple[Caller, float]], stop: asyncio.Event) -> None:
    """Let each begin after its wait, in district seconds; at `stop` have them say goodbye and end."""
    tasks = [asyncio.create_task(caller.keep_calling(wait)) for caller, wait in callers]
    # What stands now stays to the end: no need to look through it for garbage again and again.
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
    try:
        await stop.wait()
        for task in tasks:
            task.cancel()
        for caller, _ in callers:
            caller.log_out()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.gather(*(caller.gone() for caller, _ in callers)), GOODBYE_SECONDS)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, *(caller.close() for caller, _ in callers), return_exceptions=True)
