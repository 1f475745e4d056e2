"""`lingdian events` on a database, and the routes of events beside it."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from gateway.api import app as api
from gateway.cli import app
from gateway.clock import to_device
from gateway.model import EventBatch, EventClass, EventRow
from gateway.storage import assets, events
from gateway.storage.database import Database
from tests.conftest import in_own_loop
from tests.gateway.stand_ins import StandInHouse

pytestmark = pytest.mark.database

Call = Callable[..., tuple[int, str, str]]
NOW = datetime.now(UTC).replace(microsecond=0)
OLD = NOW - timedelta(days=30)

runner = CliRunner()


def row(pointer: int, erc: int, **more: Any) -> EventRow:
    given: dict[str, Any] = {
        "occurred_at": NOW, "pn": None, "starts": None, "detail": [], "reason": None, "raw": bytes([pointer])
    } | more  # fmt: skip
    return EventRow(pointer, erc, **given)


def field(name: str, value: object, unit: str = "") -> dict[str, object]:
    return {"name": name, "name_zh": "", "value": value, "unit": unit}


ROWS = (
    row(0, 12, pn=1, starts=True, detail=[field("at", "x"), field("point", [field("number", 1)])]),
    row(
        1,
        24,
        pn=1,
        starts=False,
        detail=[field("at", "x"), field("ua", "242.0", "V"), field("ub", None, "V")],
    ),
    row(2, 200, occurred_at=None, reason="ERC not in the list of events", raw=b"\xaa\xbb"),
)


@pytest.fixture
def call(tmp_path: Path, conninfo: str, monkeypatch: pytest.MonkeyPatch) -> Call:
    """Runs a command on a database with terminal 02001234 (meter A1 at p1), three new events of it and an old
    one."""
    monkeypatch.setenv("LINGDIAN_DATABASE__URL", conninfo)
    terminals, meters = tmp_path / "terminals.csv", tmp_path / "meters.csv"
    terminals.write_text("terminal\n02001234\n0200abcd\n")
    meters.write_text("meter,address,terminal,pn\nA1,000000000001,02001234,1\n")

    def run(*words: str) -> tuple[int, str, str]:
        result = runner.invoke(app, ["--state", str(tmp_path / "state"), *words])
        return result.exit_code, result.stdout, result.stderr

    assert run("import", f"--terminals={terminals}", f"--meters={meters}")[0] == 0

    async def fill() -> None:
        async with await Database.open(conninfo) as database:
            one, two = [found async for found in assets.terminals(database)]
            await events.file(database, one.terminal_id, EventBatch(EventClass.IMPORTANT, 0, 3, ROWS, NOW))
            old = EventBatch(EventClass.IMPORTANT, 0, 1, (row(0, 14),), OLD, pushed=True, contested=True)
            await events.file(database, two.terminal_id, old)

    in_own_loop(fill)
    return run


def test_events_are_listed_in_words(call: Call) -> None:
    code, out, err = call("events")
    assert code == 0, err
    first, second, third, count = out.splitlines()
    assert first == (
        f"#1  {to_device(NOW):%Y-%m-%d %H:%M:%S}  02001234 p1 A1"
        "  ERC12 Meter clock off 电能表时间超差, begins 发生; waits for a person 待处理"
    )
    assert second.endswith("ERC24 Voltage limit 电压越限, over 恢复; ua 242.0 V, ub none 无")
    assert "time unknown" in third
    assert third.endswith("ERC200; not understood 无法解析: ERC not in the list of events; aa bb")
    assert count.startswith("3 events")


def test_json_narrowed_by_terminal_and_day(call: Call) -> None:
    code, out, _ = call("events", "--terminal", "0200ABCD", "--from", f"{OLD:%Y-%m-%d}", "--json")
    found = json.loads(out)
    assert (code, found["count"]) == (0, 1)
    (one,) = found["events"]
    assert (one["terminal"], one["erc"], one["pushed"], one["contested"]) == ("0200abcd", 14, True, True)
    assert json.loads(call("events", "--terminal=0200abcd", "--json")[1]) == {"events": [], "count": 0}
    assert json.loads(call("events", "--json")[1])["count"] == 3


def test_the_worklist_is_worked_off(call: Call) -> None:
    code, out, err = call("events", "--worklist")
    assert code == 3
    assert [line.split()[0] for line in out.splitlines()[:-1]] == ["#1", "#4"]
    assert "acknowledge" in err
    code, out, _ = call("events", "acknowledge", "1", "4", "--by", "李工", "--note", "clock set", "--json")
    assert (code, json.loads(out)) == (0, {"acknowledged": [1, 4], "by": "李工"})
    assert call("events", "--worklist")[0] == 0
    code, out, err = call("events", "acknowledge", "1")
    assert (code, "seen to before" in err) == (0, True)
    assert "seen to by 已处理 李工: clock set" in call("events")[1]


def test_an_event_that_is_not_there_is_named(call: Call) -> None:
    code, _, err = call("events", "acknowledge", "1", "77")
    assert (code, "no event 77" in err) == (1, True)
    assert call("events", "--worklist")[0] == 3


async def test_routes_of_events(call: Call, conninfo: str) -> None:
    async with await Database.open(conninfo) as database:
        house = StandInHouse()
        parts = house.parts
        object.__setattr__(parts, "database", database)
        transport = httpx.ASGITransport(app=api.full(parts), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as http:
            page = (await http.get("/api/v1/terminal-events", params={"limit": 3})).json()
            assert [one["id"] for one in page["events"]] == [1, 2, 3]
            assert page["next"] == 3
            rest = (await http.get("/api/v1/terminal-events", params={"after": 3})).json()
            assert ([one["id"] for one in rest["events"]], rest["next"]) == ([4], None)
            since: dict[str, str | bool] = {
                "since": NOW.isoformat(),
                "terminal": "02001234",
                "worklist": True,
            }
            found = (await http.get("/api/v1/terminal-events", params=since)).json()
            assert [one["id"] for one in found["events"]] == [1]
            naive = await http.get("/api/v1/terminal-events", params={"since": "2026-11-24T00:00:00"})
            assert naive.status_code == 422
            path, body = "/api/v1/terminal-events/acknowledge", {"ids": [1], "note": "seen"}
            assert (await http.post(path, json=body)).json()["type"].endswith("name-needed")
            done = await http.post(path, json=body, headers={"x-requester": "Li"})
            assert done.json() == {"acknowledged": [1], "by": "Li"}
            unknown = await http.post(path, json={"ids": [99]}, headers={"x-requester": "Li"})
            assert unknown.status_code == 422
        # the TCP face shows what happens at terminals to nobody without a token
        closed = httpx.ASGITransport(app=api.by_token(parts, private=True), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=closed, base_url="http://gateway") as http:
            assert (await http.get("/api/v1/terminal-events")).status_code == 401
