"""`python -m simulator district` as a program: files, TCP, faults on real sockets, a clean end."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import time
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from simulator.__main__ import main
from simulator.clock import Clock, seconds_of, wall
from simulator.district import District, MeterPlan
from tests.simulator.tcp_master import TcpMaster

DAY = date(2026, 11, 23)
NEXT_MORNING = "2026-11-24T09:00:00+08:00"
SIZE = ["--terminals", "4", "--meters", "120", "--seed", "7", "--day", str(DAY)]
PATIENCE = 60.0


def singles(district: District) -> dict[str, list[MeterPlan]]:
    return {
        plan.address: [meter for meter in plan.meters if meter.meter_class == "single_phase"]
        for plan in district.terminals
    }


class Program:
    """The simulator as a process beside a `TcpMaster`."""

    def __init__(self, master: TcpMaster, *arguments: str) -> None:
        self.master = master
        self._arguments = arguments
        self.lines: list[dict[str, Any]] = []

    async def run_until(self, done: Any) -> int:
        """Start it, wait until `done()`, end it by SIGTERM; its exit code."""
        server = await self.master.serve()
        host, port = server.sockets[0].getsockname()[:2]
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "simulator", "district", *SIZE, "--connect", f"{host}:{port}", "--json",
            *self._arguments, stdout=subprocess.PIPE,
        )  # fmt: skip
        try:
            async with asyncio.timeout(PATIENCE):
                while not done():
                    assert process.returncode is None
                    await asyncio.sleep(0.05)
            process.send_signal(signal.SIGTERM)
            output, _ = await asyncio.wait_for(process.communicate(), PATIENCE)
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
            server.close()
        self.lines = [json.loads(line) for line in output.splitlines()]
        return process.returncode or 0

    def event(self, name: str) -> dict[str, Any]:
        return next(line for line in self.lines if line["event"] == name)


async def test_a_district_dials_in_answers_and_logs_out_on_sigterm() -> None:
    district = District(7, 4, 120, DAY)
    wanted = singles(district)
    master = TcpMaster(DAY, {terminal: [m.pn for m in meters] for terminal, meters in wanted.items()})
    program = Program(master, "--clock-start", NEXT_MORNING)
    assert await program.run_until(lambda: not master.missing) == 0
    for terminal, meters in wanted.items():
        for meter in meters:
            expected = tuple(
                100 * value for value in district.registers(meter.number, meter.quantities[0], DAY)
            )
            assert master.values[terminal, meter.pn] == expected
    assert (master.said["login"], master.said["logout"], master.open_links) == (4, 4, 0)
    assert program.event("grown") == {"event": "grown", "terminals": 4, "meters": 120, "day": str(DAY)}
    assert program.event("logged_in") == {"event": "logged_in", "terminals": 4}
    assert (
        program.lines[-1]["counts"]
        == {"logins": 4, "requests": master.said["answered"]} | program.lines[-1]["counts"]
    )


async def test_faults_fire_on_real_sockets_and_are_counted_at_the_end(tmp_path: Path) -> None:
    faults = {
        "seed": 5,
        "not_ready": {"fraction": 0.1, "seconds": 60},
        "corrupt": {"fraction": 0.15},
        "delay": {"least": 0, "most": 3, "fraction": 0.3},
        "split": {"fraction": 0.3},
        "merge": {"fraction": 0.4},
        "silence": {"fraction": 0.15},
        "vanish": {"count": 4, "least": 5, "most": 60},
        "cut": {"count": 2},
        "late": {"count": 2},
        "double_login": {"count": 1},
        "absent": {"count": 1, "seconds": 60},
        "clash": {"count": 1},
        "push": {"count": 1},
    }
    path = tmp_path / "faults.json"
    path.write_text(json.dumps(faults))
    district = District(7, 4, 120, DAY, clashes=1)
    clashing = district.impostors[0].address
    wanted = {terminal: meters for terminal, meters in singles(district).items() if terminal != clashing}
    master = TcpMaster(DAY, {terminal: [m.pn for m in meters] for terminal, meters in wanted.items()})
    program = Program(
        master,
        "--faults",
        str(path),
        "--clock-start",
        NEXT_MORNING,
        "--clock-speed",
        "20",
        "--heartbeat",
        "15",
    )
    started = time.monotonic()
    assert await program.run_until(lambda: not master.missing and time.monotonic() > started + 8) == 0
    for terminal, meters in wanted.items():
        for meter in meters:
            expected = tuple(
                100 * value for value in district.registers(meter.number, meter.quantities[0], DAY)
            )
            assert master.values[terminal, meter.pn] == expected
    counts = program.event("end")["counts"]
    unfired = [name for name in faults if name != "seed" and not counts.get(name)]
    assert unfired == [], counts
    planned = program.event("planned")["faults"]
    assert planned["clash"] == [clashing]
    assert len(planned["vanish"]) == counts["vanish"] == 4
    assert len(planned["cut"]) == len(planned["late"]) == 2
    assert len(planned["absent"]) == len(planned["push"]) == 1


async def test_on_a_fast_clock_a_night_passes_without_needless_redials() -> None:
    wanted = singles(District(7, 4, 120, DAY))
    master = TcpMaster(DAY, {terminal: [m.pn for m in meters] for terminal, meters in wanted.items()})
    program = Program(
        master, "--clock-start", "2026-11-24T00:00:00+08:00", "--clock-speed", "3600",
        "--ready-from", "01:00", "--ready-until", "03:00", "--heartbeat", "900",
    )  # fmt: skip
    assert await program.run_until(lambda: not master.missing) == 0
    assert master.said["login"] == 4
    assert program.event("end")["counts"]["not_yet"] > 0


def test_without_a_link_it_writes_its_files_and_ends(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    truth = tmp_path / "truth.csv"
    assert main(["district", *SIZE, "--assets", str(tmp_path), "--truth", str(truth)]) == 0
    assert capsys.readouterr().out == ""
    assert sorted(path.name for path in tmp_path.iterdir()) == ["meters.csv", "terminals.csv", "truth.csv"]
    assert len((tmp_path / "meters.csv").read_text().splitlines()) == 121


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--faults", "nothing.json"], "nothing.json"),
        (["--ready-from", "25:00"], "HH:MM"),
        (["--ready-from", "05:00", "--ready-until", "01:00"], "done_until"),
        (["--terminals", "500"], "at least one meter"),
    ],
)
def test_wrong_arguments_are_told_in_one_line(
    arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["district", *SIZE, *arguments]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("simulator: ")
    assert told in shown.err
    assert shown.err.count("\n") == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ["--day", "soon"],
        ["--connect", "nowhere"],
        ["--clock-speed", "0"],
        ["--clock-start", "2026-11-24T00:00"],
    ],
)
def test_arguments_of_the_wrong_form_end_with_two(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as raised:
        main(["district", *SIZE, *arguments])
    assert raised.value.code == 2


def test_the_clock_runs_by_its_formula() -> None:
    start = datetime(2026, 11, 24, tzinfo=UTC).timestamp()
    clock = Clock(origin=time.time() - 10, start=start, speed=60.0)
    assert clock.now() == pytest.approx(start + 600, abs=30)
    assert clock.real_seconds(120) == 2.0
    assert wall(seconds_of("2026-11-24T00:00:00+08:00")) == datetime(2026, 11, 24)
    assert wall(start) - datetime(2026, 11, 24, 8) == timedelta(0)
