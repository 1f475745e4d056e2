"""Commands on the database: import, gaps, export, replace, migrate; by a configured one."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path

import psycopg
import pytest
from typer.testing import CliRunner

from gateway.cli import app
from gateway.clock import frozen_at
from gateway.model import Kind, Quality, Quantity, ReadingRow, Source
from gateway.storage.database import Database
from gateway.storage.readings import ReadingWriter
from tests.conftest import in_own_loop

pytestmark = pytest.mark.database

DAY = date(2026, 11, 23)
Call = Callable[..., tuple[int, str, str]]

runner = CliRunner()


@pytest.fixture
def call(tmp_path: Path, conninfo: str, monkeypatch: pytest.MonkeyPatch) -> Call:
    monkeypatch.setenv("LINGDIAN_DATABASE__URL", conninfo)

    def run(*words: str) -> tuple[int, str, str]:
        result = runner.invoke(app, ["--state", str(tmp_path / "state"), *words])
        return result.exit_code, result.stdout, result.stderr

    return run


@pytest.fixture
def assets(tmp_path: Path) -> tuple[str, str]:
    terminals, meters = tmp_path / "terminals.csv", tmp_path / "meters.csv"
    terminals.write_text("terminal\n02001234\n")
    meters.write_text(
        "meter,address,terminal,pn,role\nA1,000000000001,02001234,1,customer\nA2,000000000002,02001234,2,feed_in\n"
    )
    return f"--terminals={terminals}", f"--meters={meters}"


def file_midnight(conninfo: str, meter: str, total: int) -> None:
    """A reading of DAY as the terminal would have given it."""
    with psycopg.connect(conninfo) as connection:
        found = connection.execute("SELECT meter_id FROM meter WHERE number = %s", (meter,)).fetchone()
    assert found is not None
    now = datetime(2026, 11, 24, 1, tzinfo=UTC)
    row: ReadingRow = (
        found[0], Quantity.FORWARD_ACTIVE, Kind.DAY, frozen_at(DAY), total, total, None, None, None, None,
        now, now, Source.TERMINAL, Quality.GOOD,
    )  # fmt: skip

    async def work() -> None:
        async with await Database.open(conninfo) as database, ReadingWriter(database) as writer:
            await writer.file([row])

    in_own_loop(work)


def test_assets_come_in_once_and_again_only_what_changed(call: Call, assets: tuple[str, str]) -> None:
    code, out, err = call("import", *assets, "--json")
    assert code == 0, err
    assert json.loads(out)["new"] == 3
    code, out, _ = call("import", *assets)
    assert (code, "3 same" in out) == (0, True)


def test_bad_rows_are_named_and_nothing_is_imported_unless_told(
    call: Call, assets: tuple[str, str], tmp_path: Path
) -> None:
    with (tmp_path / "meters.csv").open("a") as file:
        file.write("A3,12,02001234,3,customer\n")
    code, out, err = call("import", *assets, "--json")
    assert code == 1
    assert (json.loads(out)["bad"], json.loads(out)["imported"]) == (1, False)
    assert "meters.csv:4" in err
    assert "--keep-going" in err
    code, out, _ = call("import", *assets, "--keep-going", "--json")
    assert code == 1
    assert (json.loads(out)["new"], json.loads(out)["imported"]) == (3, True)


def test_import_needs_a_file_that_exists(call: Call, tmp_path: Path) -> None:
    assert call("import")[0] == 2
    code, _, err = call("import", f"--meters={tmp_path / 'no.csv'}")
    assert code == 2
    assert "no.csv" in err


def test_gaps_are_plan_minus_rows(call: Call, assets: tuple[str, str], conninfo: str) -> None:
    call("import", *assets)
    file_midnight(conninfo, "A1", 12_345_600)
    code, out, _ = call("gaps", f"--day={DAY}", "--json")
    told = json.loads(out)
    assert code == 3
    assert (told["day"], told["due"], told["missing"]) == ("2026-11-23", 3, 2)
    assert told["reasons"] == {"not_asked": 2}
    assert [(one["meter"], one["quantity"], one["reason"]) for one in told["gaps"]] == [
        ("A2", "forward_active", "not_asked"),
        ("A2", "reverse_active", "not_asked"),
    ]
    code, out, _ = call("gaps", f"--day={DAY}")
    assert "02001234 p2     A2 reverse_active day: not asked for yet 尚未召测" in out
    assert "2 of 3 readings are missing" in out


def test_gaps_of_nothing_are_none(call: Call) -> None:
    code, out, err = call("gaps", f"--day={DAY}", "--json")
    assert code == 0, err
    assert json.loads(out) == {"day": "2026-11-23", "gaps": [], "due": 0, "missing": 0, "reasons": {}}


def test_export_writes_csv_to_standard_output_or_a_file(
    call: Call, assets: tuple[str, str], conninfo: str, tmp_path: Path
) -> None:
    call("import", *assets)
    file_midnight(conninfo, "A1", 12_345_600)
    expected = (
        "meter,quantity,frozen_at,total,t1,t2,t3,t4,quality,source\n"
        "A1,forward_active,2026-11-24T00:00:00+08:00,1234.5600,1234.5600,,,,good,terminal\n"
    )
    code, out, err = call("export", "readings", f"--from={DAY}", f"--to={DAY}")
    assert (code, out, err) == (0, expected, "")
    code, out, err = call("export", "readings", "-o", str(tmp_path / "x.csv"))
    assert (code, out) == (0, "")
    assert "1 readings" in err
    assert (tmp_path / "x.csv").read_text() == expected
    assert call("export", "readings", "--from=2026-11-24")[1].count("\n") == 1
    code, _, _ = call("export", "readings", "--format=parquet", f"--output={tmp_path / 'x.parquet'}")
    assert code == 0
    assert (tmp_path / "x.parquet").read_bytes()[:4] == b"PAR1"


@pytest.mark.parametrize("words", [("--from=2026-11-24", "--to=2026-11-23"), ("--format=parquet",)])
def test_export_refuses_what_cannot_be(call: Call, words: tuple[str, ...]) -> None:
    assert call("export", "readings", *words)[0] == 2


def test_a_meter_is_replaced_with_its_reads(call: Call, assets: tuple[str, str], conninfo: str) -> None:
    call("import", *assets)
    words = ("replace", "A1", "--new=A9", "--address=000000000009", "--at=2026-11-20T10:00", "--reason=burnt")
    code, out, err = call(*words, "--stop-read=1234.56", "--start-read=0.01", "--json")
    assert code == 0, err
    assert json.loads(out) == {"old": "A1", "new": "A9", "at": "2026-11-20T10:00:00+08:00"}
    _, out, _ = call("gaps", f"--day={DAY}", "--json")
    assert {one["meter"] for one in json.loads(out)["gaps"]} == {"A9", "A2"}
    code, _, err = call(*words, "--stop-read=1234.56")
    assert code == 1
    assert "A1" in err
    for wrong in ("-1", "abc", "1.23456", "nan", "1e999999999"):
        code, _, err = call(*words, f"--stop-read={wrong}")
        assert code == 1
        assert "--stop-read" in err


def test_readings_that_a_person_took(call: Call, assets: tuple[str, str], tmp_path: Path) -> None:
    call("import", *assets)
    file = tmp_path / "readings.csv"
    file.write_text(
        "meter,quantity,frozen_at,total,reader,read_at\n"
        "A1,forward_active,2026-11-24T00:00:00+08:00,1234.56,Zhang,2026-11-24T08:00:00+08:00\n"
        "A7,forward_active,2026-11-24T00:00:00+08:00,1,Zhang,2026-11-24T08:00:00+08:00\n"
    )
    code, _, err = call("import", "readings", str(file))
    assert code == 1
    assert "readings.csv:3" in err
    code, out, _ = call("import", "readings", str(file), "--keep-going", "--json")
    assert (code, json.loads(out)["new"]) == (1, 1)
    assert "1234.5600,,,,,good,manual" in call("export", "readings")[1]


def test_migrate_says_what_it_did(call: Call) -> None:
    assert call("migrate") == (0, "the schema is up to date 已是最新\n", "")


def test_without_any_database_there_is_nothing_to_read(tmp_path: Path) -> None:
    for words in (("gaps", f"--day={DAY}"), ("export", "readings"), ("export", "readings", "--demo")):
        result = runner.invoke(app, ["--state", str(tmp_path / "state"), *words])
        assert result.exit_code == 1
        assert "there is no database in" in result.stderr
    assert not (tmp_path / "state").exists()
