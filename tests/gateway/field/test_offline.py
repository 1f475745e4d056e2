"""`lingdian read --offline`: registers of many meters into a file that is whole whatever happens."""

from __future__ import annotations

import asyncio
import contextlib
import csv
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from gateway.cli import app, direct_read
from gateway.clock import Clock, from_device, frozen_at
from gateway.errors import InputError, LinkClosed
from gateway.field import offline
from gateway.field.line import READS, Timing
from gateway.field.offline import Register
from gateway.field.offline_file import COLUMNS, HEADER, ReadingFile
from gateway.model import Kind, Quality, Quantity
from gateway.session import meter as through_terminal
from protocols.dlt645.frame import parse
from tests.gateway.field.bus import Line, OnTheLine, hung_up
from tests.simulator.household import DAY, NOON

NEW, SECOND, OLD = "202408110457", "000000000012", "000000451237"
runner = CliRunner()


@pytest.fixture(autouse=True)
def at_noon(monkeypatch: pytest.MonkeyPatch) -> None:
    """The laptop's clock stands where the meters' do: 2026-11-24, 12:00."""
    clock = Clock(time.time(), from_device(NOON).timestamp())
    monkeypatch.setattr(direct_read, "Clock", lambda: clock)


def meters() -> list[OnTheLine]:
    return [OnTheLine(NEW, 9600), OnTheLine(SECOND, 9600), OnTheLine(OLD, 9600, "1997")]


async def read(line: Line, file: Path, *words: str) -> Result:
    channel = f"serial://{line.device}?parity=N&baud=9600&gap_ms=50&echo=off"
    call = ["read", "--via", channel, "--offline", str(file), "--reader", "li", *words]
    return await asyncio.to_thread(runner.invoke, app, call)


def rows_of(file: Path) -> list[dict[str, str]]:
    with file.open(newline="") as lines:
        return list(csv.DictReader(lines))


def register(address: str = NEW, total: int = 1_234_500, kind: Kind = Kind.DAY) -> Register:
    at = frozen_at(DAY)
    return Register(
        address,
        Quantity.FORWARD_ACTIVE,
        kind,
        at,
        (total, 0, None),
        Quality.GOOD,
        at + timedelta(hours=8),
        -3.2,
    )


async def test_frozen_and_present_registers_are_added_each_to_the_file(tmp_path: Path) -> None:
    file, listed = tmp_path / "round.csv", tmp_path / "meters.csv"
    listed.write_text(f"meter,address,protocol\nM1,{NEW},dlt645-2007\n")
    with hung_up(*meters()) as line:
        result = await read(line, file, SECOND, "forward_active", "--meters", str(listed), "--json")
        asked = list(line.questions)
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout) == {
        "file": str(file),
        "ended": "complete",
        "meters": 2,
        "due": 2,
        "kept": 4,
        "already": 0,
        "missing": [],
    }
    content = file.read_bytes()
    assert content.startswith(HEADER)
    assert content.endswith(b"\n")
    assert b"\r" not in content
    first, present, second, _ = rows_of(file)
    assert (first["meter"], first["address"], first["kind"]) == ("M1", NEW, "day")
    assert (second["meter"], second["address"]) == ("", SECOND)
    assert first["frozen_at"] == "2026-11-24T00:00:00+08:00"
    assert first["read_at"].startswith("2026-11-24T12:")
    assert (first["quality"], first["source"], first["reader"]) == ("good", "manual", "li (direct line)")
    assert abs(int(first["clock_offset"])) < 60
    assert (present["kind"], present["frozen_at"]) == ("live", present["read_at"])
    assert 0 < float(first["total"]) <= float(present["total"])
    assert float(first["total"]) == pytest.approx(float(first["t1"]) + float(first["t2"]))
    assert {parse(raw.lstrip(b"\xfe")).function for raw in asked} <= READS


async def test_a_second_run_adds_and_asks_no_freeze_twice(tmp_path: Path) -> None:
    file = tmp_path / "round.csv"
    with hung_up(*meters()) as line:
        await read(line, file, NEW)
        before = file.read_bytes()
        result = await read(line, file, NEW, SECOND, "--json")
    told = json.loads(result.stdout)
    assert (result.exit_code, told["kept"], told["already"]) == (0, 3, 1)
    assert file.read_bytes().startswith(before)
    assert [(row["address"], row["kind"]) for row in rows_of(file)] == [
        (NEW, "day"),
        (NEW, "live"),
        (NEW, "live"),
        (SECOND, "day"),
        (SECOND, "live"),
    ]


async def test_what_is_missing_is_said_and_the_rest_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(direct_read, "timing_of", lambda way, wait_ms: Timing(longest_wait_s=0.2))
    file = tmp_path / "round.csv"
    with hung_up(*meters()) as line:
        result = await read(line, file, OLD, "202408110458", NEW, "--json")
        shown = await read(line, file, OLD)
    missing = [(one["address"], one["kind"], one["reason"]) for one in json.loads(result.stdout)["missing"]]
    assert (result.exit_code, shown.exit_code) == (3, 3)
    assert missing == [
        (OLD, "day", "not_supported"),
        ("202408110458", "day", "meter_silent"),
        ("202408110458", "live", "meter_silent"),
    ]
    assert [(row["address"], row["total"]) for row in rows_of(file) if row["address"] == OLD] == [
        (OLD, "1234.5600"),
        (OLD, "1234.5600"),
    ]
    assert "1 of 1 meters" in shown.stdout


async def test_an_older_midnight_is_found_and_one_that_the_meter_has_not_is_missing(tmp_path: Path) -> None:
    file = tmp_path / "round.csv"
    with hung_up(*meters()) as line:
        good = await read(line, file, NEW, "--day", "2026-11-20")
        gone = await read(line, file, NEW, "--day", "2026-08-01", "--json")
    assert good.exit_code == 0, good.output
    row = rows_of(file)[0]
    assert (row["frozen_at"], row["quality"]) == ("2026-11-21T00:00:00+08:00", "late_read")
    assert [one["reason"] for one in json.loads(gone.stdout)["missing"]] == ["meter_freeze_missing"]


async def test_a_meter_whose_clock_shows_another_day_gives_no_freeze(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(time.time(), from_device(NOON).timestamp() + 7200)
    monkeypatch.setattr(direct_read, "Clock", lambda: clock)
    file = tmp_path / "round.csv"
    with hung_up(*meters()) as line:
        result = await read(line, file, NEW, "--json")
    (missing,) = json.loads(result.stdout)["missing"]
    assert (missing["kind"], missing["reason"]) == ("day", "wrong_date")
    (row,) = rows_of(file)
    assert (row["kind"], row["quality"]) == ("live", "clock_off")
    assert -7300 < int(row["clock_offset"]) < -7100


async def test_an_interrupted_round_says_so_and_leaves_whole_lines(tmp_path: Path) -> None:
    file = tmp_path / "round.csv"
    many = [OnTheLine(f"{number:012d}", 9600) for number in range(1, 60)]
    with hung_up(*many) as line:
        channel = f"serial://{line.device}?parity=N&baud=9600&gap_ms=50&echo=off"
        program = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "gateway", "read", "--via", channel, "--offline", str(file), "--json"),
            *(meter.address for meter in many),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            async with asyncio.timeout(60):
                while not file.exists() or file.read_bytes().count(b"\n") < 3:  # noqa: ASYNC110  # no event
                    await asyncio.sleep(0.02)
                program.send_signal(signal.SIGINT)
                out, err = await program.communicate()
        finally:
            with contextlib.suppress(ProcessLookupError):
                program.kill()
    told = json.loads(out)
    assert (program.returncode, told["ended"]) == (3, "interrupted"), err
    assert b"Traceback" not in err
    rows = rows_of(file)
    assert len(rows) == told["kept"] < len(many)
    assert file.read_bytes().endswith(b"\n")


async def test_a_line_that_is_lost_ends_the_round_and_what_was_read_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: object) -> AsyncIterator[Register]:
        yield register()
        raise LinkClosed("the port is gone")

    monkeypatch.setattr(offline, "read_registers", broken)
    file = tmp_path / "round.csv"
    with hung_up(*meters()) as line:
        result = await read(line, file, NEW, SECOND, "--json")
    told = json.loads(result.stdout)
    assert (result.exit_code, told["ended"], told["kept"], told["meters"]) == (1, "lost", 1, 0)
    assert "the port is gone" in result.stderr
    assert [row["address"] for row in rows_of(file)] == [NEW]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("trip", NEW), "neither an address"),
        (("forward_active",), "no meter is named"),
        ((NEW, "--day", "2026-11-24"), "has not ended"),
        ((NEW, "--reader", "li\nwang"), "--reader"),
    ],
    ids=str,
)
async def test_what_cannot_be_asked_is_refused_before_a_byte_leaves(
    tmp_path: Path, words: tuple[str, ...], says: str
) -> None:
    with hung_up(*meters()) as line:
        result = await read(line, tmp_path / "round.csv", *words)
        assert line.questions == []
    assert (result.exit_code, (tmp_path / "round.csv").exists()) == (1, False)
    assert says in result.stderr


async def test_a_list_with_a_bad_line_is_refused_whole(tmp_path: Path) -> None:
    listed = tmp_path / "meters.csv"
    listed.write_text(f"address\n{NEW}\n2.02408E+11\n")
    with hung_up(*meters()) as line:
        result = await read(line, tmp_path / "round.csv", "--meters", str(listed))
        assert line.questions == []
    assert result.exit_code == 1
    assert "meters.csv:3" in result.stderr


def test_options_that_go_together() -> None:
    for words in (
        ["read"],
        ["read", NEW],
        ["read", NEW, "--offline", "x.csv"],
        ["read", NEW, "9010", "--reader", "x"],
    ):
        assert runner.invoke(app, words).exit_code == 2


def test_the_freezes_are_those_that_the_gateway_asks_for() -> None:
    assert offline.FREEZE_OF == through_terminal.FREEZE_OF
    assert offline.FREEZES_KEPT == through_terminal.FREEZES_KEPT


# the file --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cut", [1, 9, 40, 120])
def test_a_half_written_last_line_is_taken_off_and_said(tmp_path: Path, cut: int) -> None:
    file = tmp_path / "round.csv"
    with ReadingFile(file, "li") as kept:
        kept.add(register())
        whole = file.read_bytes()
        kept.add(register(SECOND))
    second = file.read_bytes()[len(whole) :]
    file.write_bytes(whole + second[:cut])
    with ReadingFile(file, "li") as kept:
        assert kept.taken_off == second[:cut].decode()
        assert kept.holds(NEW, Quantity.FORWARD_ACTIVE, frozen_at(DAY))
        assert not kept.holds(SECOND, Quantity.FORWARD_ACTIVE, frozen_at(DAY))
        kept.add(register(SECOND))
    assert file.read_bytes() == whole + second


def test_every_place_at_which_a_write_can_end_leaves_whole_lines(tmp_path: Path) -> None:
    file = tmp_path / "round.csv"
    with ReadingFile(file, "li") as kept:
        kept.add(register())
        kept.add(register(SECOND, kind=Kind.LIVE))
    content = file.read_bytes()
    for size in range(len(content)):
        file.write_bytes(content[:size])
        with ReadingFile(file, "li"):
            pass
        left = file.read_bytes()
        assert left.endswith(b"\n")
        assert left == HEADER or all(len(row) == len(COLUMNS) and row["kind"] for row in rows_of(file))
        assert left in (HEADER, content[: content.index(b"\n", len(HEADER)) + 1], content), size


def test_a_whole_line_whose_end_an_editor_took_is_kept(tmp_path: Path) -> None:
    file = tmp_path / "round.csv"
    with ReadingFile(file, "li") as kept:
        kept.add(register())
    whole = file.read_bytes()
    file.write_bytes(whole[:-1])
    with ReadingFile(file, "li") as kept:
        assert kept.taken_off == ""
        assert kept.holds(NEW, Quantity.FORWARD_ACTIVE, frozen_at(DAY))
    assert file.read_bytes() == whole


def test_another_file_is_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "letter.txt"
    file.write_text("Dear Sir,")
    with pytest.raises(InputError, match="no reading file"), ReadingFile(file, "li"):
        pass
    assert file.read_text() == "Dear Sir,"


def test_one_program_at_a_time_adds(tmp_path: Path) -> None:
    file = tmp_path / "round.csv"
    with (
        ReadingFile(file, "li"),
        pytest.raises(InputError, match="another run"),
        ReadingFile(file, "wang"),
    ):
        pass


def test_each_reading_is_durable_before_it_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    real = os.fsync

    def sync(fd: int) -> None:
        real(fd)
        synced.append(os.fstat(fd).st_size)

    monkeypatch.setattr("os.fsync", sync)
    file = tmp_path / "round.csv"
    with ReadingFile(file, "li") as kept:
        for _ in range(2):
            kept.add(register())
            assert synced[-1] == file.stat().st_size


def test_a_full_disk_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "round.csv"
    with ReadingFile(file, "li") as kept:
        kept.add(register())
        before = file.read_bytes()
        real = os.write
        monkeypatch.setattr("os.write", lambda fd, data: real(fd, data[:20]))
        with pytest.raises(InputError, match="disk is full"):
            kept.add(register(SECOND))
        assert file.read_bytes() == before
