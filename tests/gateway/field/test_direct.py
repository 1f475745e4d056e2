"""`lingdian read --via`: items straight off a meter, in both editions, and nothing but reads."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from gateway.cli import app
from gateway.field.line import READS
from protocols.dlt645.frame import parse
from tests.gateway.field.bus import Line, OnTheLine, hung_up

NEW, OLD = "202408110457", "000000451237"
runner = CliRunner()


async def read(line: Line, *words: str) -> Result:
    channel = f"serial://{line.device}?parity=N&baud=9600&gap_ms=50&echo=off"
    return await asyncio.to_thread(runner.invoke, app, ["read", "--via", channel, *words])


def meters() -> tuple[OnTheLine, OnTheLine]:
    return OnTheLine(NEW, 9600), OnTheLine(OLD, 9600, "1997")


async def test_items_of_both_editions_are_read_by_number_and_by_name() -> None:
    with hung_up(*meters()) as line:
        new = await read(line, NEW, "02010100", "A相电压", "04000402", "--json")
        old = await read(line, OLD, "B611", "A相电压", "--json")
        shown = await read(line, OLD, "9010")
    assert (new.exit_code, old.exit_code, shown.exit_code) == (0, 0, 0), new.output + old.output
    told: dict[str, Any] = json.loads(new.stdout)
    assert (told["meter"], told["address"], told["terminal"], told["pn"]) == (NEW, NEW, None, None)
    by_number, by_name, number = told["items"]
    assert by_name["values"] == by_number["values"]
    assert set(by_number) == {"item", "values", "raw", "read_at", "reason", "detail"}
    assert by_number["values"][0]["unit"] == "V"
    assert number["values"][0]["value"] == NEW
    assert [item["values"][0]["value"] for item in json.loads(old.stdout)["items"]] == ["220", "220"]
    assert "1234.56 kWh" in shown.stdout
    assert {parse(raw.lstrip(b"\xfe")).function for raw in line.questions} <= READS


async def test_the_only_meter_of_a_line_needs_no_address() -> None:
    with hung_up(OnTheLine(NEW, 9600)) as line:
        result = await read(line, "AAAAAAAAAAAA", "04000402", "--json")
    assert json.loads(result.stdout)["meter"] == NEW


async def test_what_a_meter_refuses_or_nobody_answers_is_told_with_its_reason() -> None:
    with hung_up(*meters()) as line:
        refused = await read(line, NEW, "0400ffff", "02010100", "--json")
        silent = await read(line, "202408110458", "A相电压", "--json")
    assert (refused.exit_code, silent.exit_code) == (3, 3)
    reasons = [item["reason"] for item in json.loads(refused.stdout)["items"]]
    assert reasons == ["meter_refused", None]
    assert json.loads(silent.stdout)["items"][0]["reason"] == "meter_silent"


@pytest.mark.parametrize(
    "words",
    [
        (NEW, "trip"),
        (NEW, "write", "04000402"),
        (NEW, "14:04000402"),
        ("999999999999", "9010"),
        ("20240811045", "9010"),
        (NEW, "Tariff"),
    ],
    ids=" ".join,
)
async def test_whatever_is_no_read_is_refused_before_a_byte_leaves(words: tuple[str, ...]) -> None:
    with hung_up(*meters()) as line:
        result = await read(line, *words)
        assert line.questions == []
    assert result.exit_code == 1, result.output
    assert "无效" in result.stderr


def test_a_channel_that_is_none_is_said() -> None:
    result = runner.invoke(app, ["read", NEW, "9010", "--via", "com1"])
    assert result.exit_code == 1
    assert "no address of a channel" in result.stderr
