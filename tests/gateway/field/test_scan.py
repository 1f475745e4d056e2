"""Whole scans of simulated lines on a pseudo-terminal: meters of both editions and several speeds."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from gateway.cli import app
from gateway.clock import Clock
from gateway.field.line import READS, MeterLine, Timing
from gateway.field.narrowing import Range
from gateway.field.scan import SPEEDS, Plan, Scan
from gateway.transports import serial_port
from gateway.transports.channel import Echo, SerialChannel
from protocols.dlt645.frame import parse
from tests.gateway.field.bus import FIVE, Line, OnTheLine, five, hung_up
from tests.gateway.transports.waiting import until

HURRY = 12.0
TIMING = Timing(between_bytes_s=0.1)
runner = CliRunner()


async def scanned(line: Line, plan: Plan | None = None, timing: Timing = TIMING, echo: Echo = "off") -> Scan:
    link = await serial_port.connect(SerialChannel(line.device, parity="N", echo=echo))
    try:
        made = Scan(MeterLine(link, Clock(speed=HURRY), timing), plan or Plan(SPEEDS, thorough=False))
        await made.run()
    finally:
        link.abort()
    return made


def seen(made: Scan) -> set[tuple[str, int | None, str]]:
    return {(meter.address, meter.speed, meter.edition) for meter in made.meters.values()}


async def test_five_of_five_are_found_whatever_their_speed_and_edition() -> None:
    with hung_up(*five(), pace=1.0, hurry=HURRY) as line:
        made = await scanned(line)
    assert seen(made) == set(FIVE)
    assert made.ended == "complete"
    assert not made.unclear
    assert 0 < made.seconds < 300
    print(f"5 of 5 in {made.seconds:.1f} s of the line's time, {made.line.asked} questions")
    for meter in made.meters.values():
        assert meter.number == meter.address
        assert set(meter.items.values()) == {True}, meter
        assert 0 < meter.seconds < made.seconds
    functions = {parse(raw.lstrip(b"\xfe")).function for raw in line.questions}
    assert functions <= READS


@pytest.mark.parametrize("absent", range(5))
async def test_one_that_is_taken_away_is_not_found(absent: int) -> None:
    meters = five()
    away = meters.pop(absent)
    with hung_up(*meters, hurry=HURRY) as line:
        made = await scanned(line, Plan((away.speed,), thorough=False))
    assert seen(made) == {meter for meter in FIVE if meter[1] == away.speed and meter[0] != away.address}


async def test_a_meter_of_another_speed_hears_rubbish() -> None:
    """The line is no pretence: nothing of what is said at 4800 reaches the five."""
    with hung_up(*five(), hurry=HURRY) as line:
        made = await scanned(line, Plan((4800,), thorough=False))
    assert not made.meters
    assert made.ended == "complete"


async def test_slow_and_locked_meters_and_an_echo() -> None:
    meters = [
        OnTheLine("202311050012", 9600, delay_s=0.3),
        OnTheLine("202311050013", 9600, locked=True),
        OnTheLine("202311070013", 9600, delay_s=0.02),
    ]
    timing = Timing(longest_wait_s=0.8, between_bytes_s=0.1)
    with hung_up(*meters, echo=True, hurry=HURRY) as line:
        made = await scanned(line, Plan((9600,), thorough=False), timing, "on")
    assert set(made.meters) == {meter.address for meter in meters}
    assert all(set(meter.items.values()) == {True} for meter in made.meters.values()), made.meters


async def test_what_quick_meters_teach_does_not_lose_the_slow_ones() -> None:
    """Two that answer too late for the wait that was learned, and damage each other."""
    quick = [OnTheLine("202311050012", 9600), OnTheLine("202311050023", 9600)]
    slow = [OnTheLine("202311050034", 9600, delay_s=0.4), OnTheLine("202311050044", 9600, delay_s=0.4)]
    timing = Timing(longest_wait_s=0.8, shortest_wait_s=0.1, times=1.0, between_bytes_s=0.1)
    with hung_up(*quick, *slow, hurry=HURRY) as line:
        made = await scanned(line, Plan((9600,), thorough=False), timing)
    assert set(made.meters) == {meter.address for meter in (*quick, *slow)}


@pytest.mark.parametrize("heard", [False, True])
async def test_who_was_heard_in_passing_is_asked(heard: bool) -> None:
    shy = OnTheLine("202311050012", 9600, shy=True)
    with hung_up(shy, OnTheLine("202311050023", 9600), hurry=HURRY) as line:
        link = await serial_port.connect(SerialChannel(line.device, parity="N", echo="off"))
        made = Scan(MeterLine(link, Clock(speed=HURRY), TIMING), Plan((9600,), thorough=False))
        if heard:
            made.line.strangers[shy.address] = None
        await made.run()
        link.abort()
    assert (shy.address in made.meters) is heard
    assert len(made.meters) == 1 + heard


async def test_only_what_lies_within_is_asked_what_it_is() -> None:
    with hung_up(*five(), hurry=HURRY) as line:
        within = Range(202311050013, 202311050013)
        made = await scanned(line, Plan((2400,), within, thorough=False))
    assert set(made.meters) == {"202311050013"}


async def test_the_limit_ends_it_with_what_was_found() -> None:
    with hung_up(*five(), pace=1.0, hurry=HURRY) as line:
        made = await scanned(line, Plan((9600, 1200, 600, 4800), limit_s=8.0))
    assert made.ended == "limit"
    assert set(made.meters) == {"202408110457"}
    assert 8.0 <= made.seconds < 20


async def test_a_line_that_is_pulled_out_ends_it_with_what_was_found() -> None:
    with hung_up(*five(), hurry=HURRY) as line:
        link = await serial_port.connect(SerialChannel(line.device, parity="N", echo="off"))

        def pull(scan: Scan) -> None:
            if scan.meters:
                link.abort("was unplugged")

        made = Scan(MeterLine(link, Clock(speed=HURRY), TIMING), Plan((9600,)), pull)
        await made.run()
    assert (made.ended, set(made.meters)) == ("lost", {"202408110457"})
    assert "unplugged" in made.why


# the command ---------------------------------------------------------------------------------------------


async def test_the_command_tells_a_program_and_a_person() -> None:
    with hung_up(OnTheLine("202408110457", 19_200), OnTheLine("000000451237", 19_200, "1997")) as line:
        channel = f"serial://{line.device}?parity=N&gap_ms=50&echo=off"
        words = ["scan", channel, "--quick", "--speeds", "19200", "--wait", "200"]
        result = await asyncio.to_thread(runner.invoke, app, [*words, "--json"])
        told = json.loads(result.stdout)
        shown = await asyncio.to_thread(runner.invoke, app, words)
    assert result.exit_code == shown.exit_code == 0, result.output + shown.output
    meters = {meter.pop("address"): meter for meter in told.pop("meters")}
    assert told["ended"] == "complete"
    assert told["unclear"] == []
    assert told["seconds"] > 0
    assert set(meters) == {"202408110457", "000000451237"}
    assert meters["000000451237"]["edition"] == "1997"
    assert meters["000000451237"]["speed"] == 19_200
    assert meters["202408110457"]["items"]["status_word_3"] is True
    assert "202408110457" in shown.stdout
    assert "2 meters 块表" in shown.stdout


async def test_an_interrupt_gives_what_was_found() -> None:
    with hung_up(OnTheLine("202408110457", 19_200)) as line:
        channel = f"serial://{line.device}?parity=N&gap_ms=50&echo=off"
        command = [Path(sys.executable).with_name("lingdian"), "scan", channel, "--speeds", "19200", "--json"]
        process = await asyncio.create_subprocess_exec(*map(str, command), stdout=-1, stderr=-1)
        await until(lambda: len(line.questions) >= 30, 60)
        process.send_signal(signal.SIGINT)
        out, _ = await asyncio.wait_for(process.communicate(), 30)
    told = json.loads(out)
    assert process.returncode == 3
    assert told["ended"] == "interrupted"
    assert [meter["address"] for meter in told["meters"]] == ["202408110457"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["tcp://127.0.0.1:1", "--speeds", "2400"], "serial ports"),
        (["serial:///dev/none", "--speeds", "2401"], "2401"),
        (["serial:///dev/none", "--from", "12x"], "--from"),
        (["serial:///dev/none", "--from", "2", "--to", "1"], "lies above"),
        (["mqtt://127.0.0.1"], "many links"),
    ],
)
def test_what_cannot_be_scanned_is_said(words: list[str], said: str) -> None:
    result = runner.invoke(app, ["scan", *words])
    assert result.exit_code == 2, result.output
    assert said in result.stderr


def test_a_port_that_is_not_there_is_said() -> None:
    result = runner.invoke(app, ["scan", "serial:///dev/none"])
    assert result.exit_code == 1
    assert "plug it in" in result.stderr
