"""`python -m simulator district …`: grow a district, write its assets and truth, dial in with its terminals.

Exit code 0 after a clean end, 2 for wrong arguments or faults. Standard output holds one JSON object a line:
with --json every milestone, always the last one with what was counted.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys
import time
from collections import Counter
from dataclasses import replace
from datetime import date
from pathlib import Path

from simulator import faults as faults_file
from simulator.bus import LOST_CLOCK_BEGINS, Making
from simulator.clock import Clock, seconds_of
from simulator.district import District
from simulator.esam import BENCH_KEY
from simulator.faults import Faults, FaultsError, Pace, deal
from simulator.ledger import LedgerFile, nowhere
from simulator.runner import Run, run_district


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; the exit code."""
    parser = _parser()
    given = parser.parse_args(arguments)
    try:
        faults = faults_file.load(given.faults) if given.faults else Faults()
        if given.ready_from or given.ready_until:
            until = given.ready_until or given.ready_from
            faults = replace(faults, pace=Pace(done_from=given.ready_from or "00:05", done_until=until))
        district = District(
            given.seed,
            given.terminals,
            given.meters,
            given.day,
            swapped=faults.swapped.count if faults.swapped else 0,
            clashes=faults.clash.count if faults.clash else 0,
        )
    except (FaultsError, ValueError) as error:
        print(f"simulator: {error}", file=sys.stderr)
        return 2

    def tell(event: str, what: dict[str, object]) -> None:
        if given.json:
            print(json.dumps({"event": event, **what}), flush=True)

    if given.assets:
        district.write_assets(given.assets, given.profile)
    if given.truth:
        district.write_truth(given.truth)
    tell("grown", {"terminals": given.terminals, "meters": given.meters, "day": str(given.day)})
    if given.connect is None:
        return 0
    tell("planned", {"faults": {**_planned(district, faults), **_planned_of_meters(district, faults)}})
    clock = _clock(given)
    host, port = given.connect
    try:
        ledger = LedgerFile(given.ledger) if given.ledger else nowhere
    except OSError as error:
        print(f"simulator: {given.ledger}: {error.strerror}", file=sys.stderr)
        return 2
    key = given.esam_key or BENCH_KEY
    run = Run(host, port, clock, faults, given.heartbeat, given.td_d_names, tell, ledger, key)
    counts = asyncio.run(_until_stopped(district, run, given.seconds))
    print(json.dumps({"event": "end", "counts": dict(sorted(counts.items()))}), flush=True)
    return 0


async def _until_stopped(district: District, run: Run, seconds: float | None) -> Counter[str]:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for signal_number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signal_number, stop.set)
    if seconds is not None:
        loop.call_later(seconds, stop.set)
    return await run_district(district, run, stop)


def _planned(district: District, faults: Faults) -> dict[str, list[str]]:
    """Which terminals and meters were dealt what: for tests that must know where to look."""
    mine = [(plan, its) for plan, its in deal(faults, district) if not its.impostor]
    return {
        "absent": [plan.address for plan, its in mine if its.absent_until],
        "clash": [impostor.address for impostor in district.impostors],
        "clock_off": [plan.address for plan, its in mine if its.clock_off],
        "cut": [plan.address for plan, its in mine for _ in its.cut_answers],
        "events": [f"{plan.address} {erc}" for plan, its in mine for _, erc in its.events],
        "double_login": [plan.address for plan, its in mine if its.double_login],
        "late": [plan.address for plan, its in mine for _ in its.late_answers],
        "missed_freeze": [
            meter.number for plan, its in mine for meter in plan.meters if meter.pn in its.missed_freeze
        ],
        "push": [plan.address for plan, its in mine if its.push],
        "swapped": [meter.number for _, meter in district.meters() if meter.installed],
        "vanish": [plan.address for plan, its in mine for _ in its.vanish_after],
    }


def _planned_of_meters(district: District, faults: Faults) -> dict[str, list[str]]:
    """The same of what is dealt to single meters: their addresses."""
    planned: dict[str, list[str]] = {"esam": [], "meter_clock_off": [], "meter_clock_lost": []}
    if not (faults.relays or faults.meter_clock_off or faults.meter_clock_lost):
        return planned
    making = Making(faults, district.seed)
    for _, meter in district.meters():
        setup = making.setup(meter)
        if setup.esam:
            planned["esam"].append(meter.address)
        if setup.clock_off_s:
            lost = setup.clock_off_s == LOST_CLOCK_BEGINS
            planned["meter_clock_lost" if lost else "meter_clock_off"].append(meter.address)
    return planned


def _clock(given: argparse.Namespace) -> Clock:
    if given.clock_start is None and given.clock_speed == 1.0:
        return Clock()
    origin = time.time() if given.clock_origin is None else given.clock_origin
    return Clock(origin, origin if given.clock_start is None else given.clock_start, given.clock_speed)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m simulator", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="district")
    district = commands.add_parser("district", help="a region of terminals and meters, grown from a seed")
    add = district.add_argument
    add("--terminals", type=int, required=True, metavar="N")
    add("--meters", type=int, required=True, metavar="M", help="in all, gateway meters included")
    add("--seed", type=int, default=1, metavar="S", help="equal seeds grow equal districts (default 1)")
    add("--day", type=date.fromisoformat, required=True, metavar="D", help="business day, YYYY-MM-DD")
    add("--assets", type=Path, metavar="DIR", help="write terminals.csv and meters.csv there")
    add("--truth", type=Path, metavar="FILE", help="write what the registers held when D ended")
    add("--faults", type=Path, metavar="FILE", help="JSON or TOML: see simulator/faults.py")
    add("--profile", default="", help="profile of all terminals in terminals.csv")
    add(
        "--ledger",
        type=Path,
        metavar="FILE",
        help="write there, synced, what the meters saw of relay control",
    )
    add("--esam-key", type=_key, metavar="FILE", help="32 hex digits: master key of the meters' ESAMs")
    add("--connect", type=_host_port, metavar="HOST:PORT", help="dial in there until SIGTERM")
    add("--heartbeat", type=_positive, default=60.0, metavar="SECONDS", help="(default 60)")
    add("--ready-from", metavar="HH:MM", help="when the first terminal is done with its nightly reading")
    add("--ready-until", metavar="HH:MM", help="when the last one is (neither: all values are there at once)")
    add("--td-d-names", choices=("ended_day", "freeze_day"), default="ended_day", help="what Td_d names")
    add("--seconds", type=_positive, metavar="S", help="stop after so many real seconds")
    add("--clock-start", type=seconds_of, metavar="ISO", help="district time, with offset, at --clock-origin")
    add("--clock-origin", type=float, metavar="EPOCH", help="real time at which it begins (default now)")
    add("--clock-speed", type=_positive, default=1.0, metavar="X", help="(default 1)")
    add("--json", action="store_true", help="print each milestone as a line of JSON")
    return parser


def _key(text: str) -> bytes:
    try:
        key = bytes.fromhex(Path(text).read_text(encoding="ascii"))
    except (OSError, ValueError):
        key = b""
    if len(key) != len(BENCH_KEY):
        raise argparse.ArgumentTypeError(f"{text} does not hold {2 * len(BENCH_KEY)} hex digits")
    return key


def _host_port(text: str) -> tuple[str, int]:
    host, colon, port = text.removeprefix("tcp://").rpartition(":")
    if not colon or not port.isdecimal() or not 0 < int(port) < 65_536:
        raise argparse.ArgumentTypeError(f"{text!r} is not HOST:PORT")
    return host.strip("[]") or "127.0.0.1", int(port)


def _positive(text: str) -> float:
    value = float(text)
    if not value > 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not above 0")
    return value


if __name__ == "__main__":
    sys.exit(main())
