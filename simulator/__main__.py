"""`python -m simulator district|terminal|line|meter …`: grow what is asked for, write its assets and truth,
and play it over a wire: dial in (--connect), or be dialled (--listen).

Exit code 0 after a clean end, 2 for wrong arguments, faults or wires. Standard output holds one JSON object a
line: with --json every milestone, always the last one with what was counted, and where it listens.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from simulator import channel
from simulator import faults as faults_file
from simulator.arguments import MeterSpec, parser
from simulator.bus import LOST_CLOCK_BEGINS, Making
from simulator.clock import Clock
from simulator.district import District, MeterPlan
from simulator.esam import BENCH_KEY
from simulator.faults import Faults, Pace, deal
from simulator.ledger import LedgerFile, nowhere
from simulator.meter_line import GAP_S, Hanging, LineFaults, MeterLine, Modem, made
from simulator.pushes import Pushes, PushesFile
from simulator.pushes import nowhere as nothing_pushed
from simulator.runner import Run, run_district, run_line
from simulator.wiring import TlsFiles, Wiring, WiringError

RS_485 = 2
"""The port of a line's meters in meters.csv."""

Tell = Callable[[str, dict[str, object]], None]


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; the exit code."""
    given = parser(__doc__).parse_args(arguments)

    def tell(event: str, what: dict[str, object]) -> None:
        if given.json or event == "listening":
            print(json.dumps({"event": event, **what}), flush=True)

    try:
        faults = _faults(given)
        district = _grown(given, faults)
        clock = _clock(given)
        pushes = PushesFile(given.pushes) if given.pushes else nothing_pushed
        wiring = _wiring(given, faults, tell, pushes)
        ledger = LedgerFile(given.ledger) if given.ledger and wiring else nowhere
    except OSError as error:
        print(f"simulator: {error.filename}: {error.strerror}", file=sys.stderr)
        return 2
    except ValueError as error:
        print(f"simulator: {error}", file=sys.stderr)
        return 2
    if given.assets:
        district.write_assets(given.assets, given.profile)
    if given.truth:
        district.write_truth(given.truth)
    tell("grown", {"terminals": given.terminals, "meters": given.meters, "day": str(given.day)})
    if wiring is None:
        return 0
    run = Run(
        "",
        0,
        clock,
        faults,
        given.heartbeat,
        "ended_day" if given.is_line else given.td_d_names,
        tell,
        ledger,
        given.esam_key or BENCH_KEY,
        wiring,
        given.frames,
        pushes,
    )
    counts = asyncio.run(_until_stopped(given, district, run))
    print(json.dumps({"event": "end", "counts": dict(sorted(counts.items()))}), flush=True)
    return 0


def _faults(given: argparse.Namespace) -> Faults:
    faults = faults_file.load(given.faults) if given.faults else Faults()
    if given.is_line or not (given.ready_from or given.ready_until):
        return faults
    until = given.ready_until or given.ready_from
    return replace(faults, pace=Pace(done_from=given.ready_from or "00:05", done_until=until))


def _grown(given: argparse.Namespace, faults: Faults) -> District:
    """The district; of a line, its one terminal is what the gateway knows the line as. ValueError."""
    named: list[MeterSpec] = []
    if given.command == "line":
        named = given.named or []
    elif given.command == "meter" and given.address:
        named = [replace(given.address, edition=given.edition)]
    if named:
        given.meters = len(named)
    district = District(
        given.seed,
        given.terminals,
        given.meters + given.is_line,  # the first is the area's own, without a relay: it hangs on no line
        given.day,
        swapped=faults.swapped.count if faults.swapped else 0,
        clashes=faults.clash.count if faults.clash else 0,
        area_code=given.area_code,
    )
    if given.command == "terminal" and given.address:
        district.terminals = (replace(district.terminals[0], address=given.address),)
    if given.is_line:
        _hang(given, district, named)
    return district


def _hang(given: argparse.Namespace, district: District, named: list[MeterSpec]) -> None:
    """Make the meters of a line those that were named, or speak the edition that was asked for."""
    (plan,) = district.terminals
    meters: tuple[MeterPlan, ...] = tuple(replace(meter, port=RS_485) for meter in plan.meters[1:])
    if named:
        meters = tuple(
            replace(meter, number=spec.address, address=spec.address, edition=spec.edition)
            for meter, spec in zip(meters, named, strict=True)
        )
    else:
        old = len(meters) if given.command == "meter" and given.edition == "1997" else given.meters_1997
        newest = len(meters) - old
        meters = tuple(
            replace(meter, edition="1997") if place >= newest else meter for place, meter in enumerate(meters)
        )
    district.terminals = (replace(plan, meters=meters),)
    given.bauds = [spec.baud or given.baud for spec in named] or [given.baud] * len(meters)
    given.name = given.name or plan.address


def _wiring(given: argparse.Namespace, faults: Faults, tell: Tell, pushes: Pushes) -> Wiring | None:
    """None where nothing is to be played. WiringError, OSError."""
    listen = given.listen
    if given.is_line and given.pty:
        listen = channel.parse("pty")
    if listen and given.connect:
        raise WiringError("either --listen or --connect")
    if not listen and not given.connect:
        return None
    broker: dict[str, Any] = {
        "version": given.mqtt_version,
        "user": given.mqtt_user,
        "identifier": given.mqtt_identifier,
        "offline": given.mqtt_offline.encode("utf-8"),
        "payload": (given.mqtt_payload, given.mqtt_frame_key, given.mqtt_time_key),
    }
    topics = {place: getattr(given, f"mqtt_{place}") for place in ("up", "login", "down", "will")}
    broker |= {place: topic for place, topic in topics.items() if topic}
    if given.mqtt_password_file:
        broker["password"] = given.mqtt_password_file.read_text(encoding="utf-8").strip()
    return Wiring(
        listen or given.connect,
        listening=listen is not None,
        tls=TlsFiles(given.tls_ca, given.tls_cert, given.tls_key, given.tls_name),
        broker=broker,
        clients=given.mqtt_clients,
        messages=faults.messages,
        tell=tell,
        pushes=pushes,
    )


async def _until_stopped(given: argparse.Namespace, district: District, run: Run) -> Counter[str]:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for signal_number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signal_number, stop.set)
    if given.seconds is not None:
        loop.call_later(given.seconds, stop.set)
    if given.is_line:
        return await _play_line(given, district, run, stop)
    planned = {**_planned(district, run.faults), **_planned_of_meters(district, run.faults)}
    run.tell("planned", {"faults": planned})
    return await run_district(district, run, stop)


async def _play_line(
    given: argparse.Namespace, district: District, run: Run, stop: asyncio.Event
) -> Counter[str]:
    counts: Counter[str] = Counter()
    making = Making(run.faults, district.seed, run.clock.now(), run.ledger, run.master_key)
    gap = GAP_S * max(1.0, run.clock.speed)
    (plan,) = district.terminals
    meters = [
        Hanging(made(meter, making), meter.address, baud, gap)
        for meter, baud in zip(plan.meters, given.bauds, strict=True)
    ]
    hanging = [
        {"address": meter.address, "edition": meter.edition, "baud": baud}
        for meter, baud in zip(plan.meters, given.bauds, strict=True)
    ]
    run.tell("hanging", {"name": given.name, "terminal": plan.address, "meters": hanging})
    name = given.name.encode("utf-8")
    line = MeterLine(
        meters,
        counts,
        faults=LineFaults(
            given.seed, given.noise, given.damage, given.silence, given.drop, given.echo, given.slow
        ),
        modem=Modem(
            given.registration.replace(b"{name}", name),
            given.heartbeat_text.replace(b"{name}", name),
            given.heartbeat,
        ),
        paced=given.paced,
    )
    await run_line(given.name, line, run, counts, stop)
    return counts


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
    """ValueError where it is to stand and something needs it to go."""
    if given.clock_stands:
        if given.clock_start is None:
            raise ValueError("--clock-stands: say where, by --clock-start")
        if given.clock_speed != 1.0 or (given.is_line and (given.paced or given.slow)):
            raise ValueError("--clock-stands: not with --clock-speed, --paced or --slow, which need it to go")
        return Clock(start=given.clock_start, stands=True)
    if given.clock_start is None and given.clock_speed == 1.0:
        return Clock()
    origin = time.time() if given.clock_origin is None else given.clock_origin
    return Clock(origin, origin if given.clock_start is None else given.clock_start, given.clock_speed)


if __name__ == "__main__":
    sys.exit(main())
