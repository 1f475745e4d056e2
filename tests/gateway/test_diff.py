"""`lingdian diff`."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from gateway.cli import app
from tests.protocols.test_lens import E1
from tests.protocols.test_lens_tree import meter

OTHER = meter(0x91, "00000100" + "57341200")

runner = CliRunner()


def test_the_same_frame_in_two_writings_is_the_same() -> None:
    result = runner.invoke(app, ["diff", E1.hex(), f"FE FE {E1.hex(' ')}"])
    assert result.exit_code == 0
    assert "the same bytes" in result.stdout


def test_fields_that_differ_are_shown_side_by_side() -> None:
    result = runner.invoke(app, ["diff", "--lang", "en", E1.hex(), OTHER.hex()])
    assert result.exit_code == 1
    value, check = result.stdout.splitlines()
    assert "- 56 34 12 00 = 1234.56 kWh" in value
    assert "+ 57 34 12 00 = 1234.57 kWh" in value
    assert check.split()[:2] == ["checksum", "CS"]
    chinese = runner.invoke(app, ["diff", "--lang", "zh", E1.hex(), OTHER.hex()])
    assert "正向有功总电能" in chinese.stdout


def test_for_a_program_each_difference_is_an_object() -> None:
    result = runner.invoke(app, ["diff", "--json", E1.hex(), OTHER.hex()])
    assert result.exit_code == 1
    told = json.loads(result.stdout)
    assert told["same"] is False
    value = told["differences"][0]
    assert (value["left"]["value"], value["right"]["value"]) == ("1234.56", "1234.57")
    assert value["left"] == {"offset": 14, "bytes": "56341200", "value": "1234.56", "unit": "kWh"}
    same = runner.invoke(app, ["diff", "--json", E1.hex(), E1.hex()])
    assert json.loads(same.stdout) == {"same": True, "differences": []}


def test_what_only_one_frame_has_is_told_as_absent() -> None:
    result = runner.invoke(app, ["diff", "--lang", "en", E1.hex(), meter(0x11, "00000100").hex()])
    assert result.exit_code == 1
    assert "+ (absent)" in result.stdout


@pytest.mark.parametrize(
    ("left", "said"),
    [
        ("68 zz", "the first argument: character 4"),
        (E1[:-2].hex() + "0a16", "the first argument: wrong checksum"),
        (E1.hex() * 2, "the first argument: 2 frames; give one"),
    ],
)
def test_what_is_not_one_frame_cannot_be_compared(left: str, said: str) -> None:
    result = runner.invoke(app, ["diff", left, E1.hex()])
    assert result.exit_code == 1
    assert said in result.stderr
