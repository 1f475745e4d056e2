"""`lingdian encode`: the words of its command line."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner, Result

from gateway.cli import app
from tests.protocols.test_lens import E1
from tests.protocols.test_lens_composition import TRIP
from tests.protocols.test_lens_tree import ASK_F161, F161, meter

METER = "202311050012"
TERMINAL = "03146332"

runner = CliRunner()


def encoded(*words: str, code: int = 0) -> Result:
    result = runner.invoke(app, ["encode", *words])
    assert result.exit_code == code, result.output
    return result


@pytest.mark.parametrize(
    ("words", "raw"),
    [
        ((METER, "read", "00010000"), meter(0x11, "00000100")),
        ((METER, "read", "A相电压"), meter(0x11, "00010102")),
        ((METER, "read", "00010000", "--lead-in", "4"), b"\xfe" * 4 + meter(0x11, "00000100")),
        ((METER, "answer", "00010000", "1234.56"), E1),
        ((METER, "read", "9010", "--edition", "1997"), meter(0x01, "1090")),
        ((TERMINAL, "02", "F1", "--up", "--con", "--pseq", "3"),
         bytes.fromhex("683200320068C91403326300027300000100EB16")),
        ((TERMINAL, "0d", "F161", "td_d=2026-11-23", "-p", "1", "--msa", "1", "--pseq", "2"), ASK_F161),
        ((TERMINAL, "0D", "F161", "td_d=2026-11-23", "read_at=2026-11-24 00:05", "total=1234.56",
          'tariffs=["300",400.5,"500.06",null]', "-p", "1", "--msa", "1", "--pseq", "2", "--up"), F161),
    ],
    ids=["read", "by-name", "lead-in", "answer", "1997", "login", "F161", "F161-answer"],
)  # fmt: skip
def test_a_frame_is_built_from_its_words(words: tuple[str, ...], raw: bytes) -> None:
    assert encoded(*words).stdout == raw.hex() + "\n"
    assert json.loads(encoded(*words, "--json").stdout) == {"hex": raw.hex(), "length": len(raw)}


TRIPPING = ("123456789012", "trip", "--at", "2026-12-31T23:59:59", "--operator", "11111111")


@pytest.mark.parametrize(
    "words",
    [
        TRIPPING,
        (METER, "clear-meter"),
        (TERMINAL, "01", "F3"),
        (TERMINAL, "04", "F10"),
        (TERMINAL, "10", "F1", f"content={TRIP.hex()}"),
    ],
    ids=lambda words: " ".join(words[:3])[:40],
)
def test_a_dangerous_frame_is_built_for_the_simulator_only(words: tuple[str, ...]) -> None:
    result = encoded(*words, code=1)
    assert result.stdout == ""
    assert "is dangerous" in result.stderr
    assert "--simulator" in result.stderr


def test_for_the_simulator_the_trip_of_the_fact_sheet_is_built() -> None:
    assert encoded(*TRIPPING, "--simulator").stdout == TRIP.hex() + "\n"


def test_a_deadline_that_is_not_given_is_soon() -> None:
    raw = bytes.fromhex(encoded(METER, "trip", "--simulator").stdout)
    year = (raw[-3] - 0x33) & 0xFF
    assert year >= 0x24
    encoded(METER, "trip", code=1)


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("12", "read"), 2, "neither 12 digits nor 8 hex digits"),
        ((METER, "read", "nonsense"), 1, "no item of DL/T 645-2007"),
        ((METER, "read", "energy"), 1, "may be any item"),
        ((METER, "dance"), 1, "there is no action"),
        ((METER, "time", "--at", "noon", "--simulator"), 1, "no wall clock"),
        ((TERMINAL, "0d", "F161"), 1, "td_d is missing"),
        ((TERMINAL, "0d", "F161", "td_d=[1", "-p", "1"), 1, "no JSON"),
        ((TERMINAL, "0d", "F161", "=1"), 1, "is not NAME=VALUE"),
        ((TERMINAL, "05", "F2", "--simulator", "--password", "zz"), 1, "not hex"),
        ((TERMINAL, "0c", "F129", "-p", "5000"), 1, "p5000"),
    ],
)
def test_what_cannot_be_built_ends_with_a_clear_line(words: tuple[str, ...], code: int, said: str) -> None:
    result = encoded(*words, code=code)
    assert result.stdout == ""
    assert said in " ".join(result.stderr.replace("│", " ").split())
