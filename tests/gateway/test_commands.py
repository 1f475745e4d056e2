"""Commands that ask a running gateway: over a real unix socket, with stand-ins behind it."""

from __future__ import annotations

import asyncio
import json
import os
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from gateway.api import app as api
from gateway.api import meters as meter_routes
from gateway.api.server import HttpServer
from gateway.cli import app
from gateway.model import Reason
from gateway.session.meter import MeterItem, MeterRefusal
from gateway.session.terminal import ClockCheck, PresentReading
from gateway.state import State
from tests.gateway.stand_ins import NOON, StandInHouse, StandInSession, stand_in_assets

runner = CliRunner()


class Running:
    """A stand-in gateway that answers on the socket of a state folder, in a thread."""

    def __init__(self, folder: Path) -> None:
        self.state = State(folder)
        self.state.create()
        self.house = StandInHouse()
        self._up = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._serve(),))

    async def _serve(self) -> None:
        self._server = HttpServer.on_socket(api.full(self.house.parts), self.state.socket)
        self._up.set()
        await self._server.serve()
        await self.house.collections.close()

    def __enter__(self) -> Running:
        self._thread.start()
        assert self._up.wait(10)
        return self

    def __exit__(self, *exception: object) -> None:
        self._server.stop()
        self._thread.join(10)
        self._loop.close()

    def let_collect(self) -> None:
        """What the stand-in collector collects ends at once."""
        self._loop.call_soon_threadsafe(self.house.collector.go.set)

    def call(self, *words: str) -> tuple[int, str, str]:
        """Exit code, standard output, standard error."""
        result = runner.invoke(app, ["--state", str(self.state.folder), *words])
        return result.exit_code, result.stdout, result.stderr


@pytest.fixture
def running(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Running]:
    stand_in_assets(monkeypatch)
    with Running(tmp_path / "state") as gateway:
        yield gateway


@pytest.mark.parametrize(
    "words",
    [
        ("collect", "--day", "2026-11-23"),
        ("read", "000000000001", "forward_active"),
        ("archive", "02001234", "--diff"),
        ("terminal", "clock", "02001234", "--check"),
        ("terminal", "list"),
    ],
)
def test_without_a_gateway_the_command_says_so(tmp_path: Path, words: tuple[str, ...]) -> None:
    result = runner.invoke(app, ["--state", str(tmp_path / "state"), *words, "--json"])
    assert result.exit_code == 4
    assert result.stdout == ""
    assert "no gateway runs on" in result.stderr
    assert "lingdian serve" in result.stderr


def test_only_the_owner_may_open_the_socket(running: Running) -> None:
    assert stat.S_IMODE(os.stat(running.state.socket).st_mode) == 0o600


def test_collect_tells_what_is_missing(running: Running) -> None:
    running.let_collect()
    code, out, err = running.call("collect", "--day", "2026-11-23", "--json")
    assert code == 3, err
    result = json.loads(out)
    assert (result["due"], result["collected"], result["missing"]) == (10, 9, 1)
    assert result["reasons"] == {"no_value_yet": 1}
    code, out, err = running.call("collect", "--day", "2026-11-23", "--terminal", "02001234")
    assert code == 3
    assert "9 of 10" in out
    assert "终端尚无该日数据" in out
    assert "lingdian gaps --day 2026-11-23" in err
    assert running.house.collector.calls[-1][1] == ("02001234",)


def test_collect_of_a_day_that_has_not_ended_is_refused(running: Running) -> None:
    code, out, err = running.call("collect", "--day", "2026-11-24", "--json")
    assert (code, out) == (1, "")
    assert "a day that has ended" in err


def test_collect_wants_a_day_as_people_write_it(running: Running) -> None:
    code, _, err = running.call("collect", "--day", "24.11.2026")
    assert code == 2
    assert "%Y-%m-%d" in err


def test_read_a_meter(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    async def read_item(
        session: StandInSession, address: str, di: str, port: int
    ) -> MeterItem | MeterRefusal:
        if di == "00010000":
            return MeterItem(address, di, (("Forward active", "正向有功", "6.78", "kWh", "78060000"),), b"x")
        return MeterRefusal(Reason.METER_SILENT, "no answer in 30 s")

    monkeypatch.setattr(meter_routes, "read_item", read_item)
    running.house.session.presents = [PresentReading(1, 1, NOON, (3_302_000, None))]
    code, out, _ = running.call("read", "000000000001", "forward_active", "00010000", "--json")
    assert code == 0
    present, item = json.loads(out)["items"]
    assert [value["value"] for value in present["values"]] == ["330.2000", None]
    assert item["values"][0]["value"] == "6.78"
    code, out, _ = running.call("read", "000000000001", "forward_active", "00010000", "04000503")
    assert code == 3
    assert "total: 330.2000 kWh" in out
    assert "Forward active 正向有功: 6.78 kWh" in out
    assert "04000503: no value" in out
    assert "no answer in 30 s" in out


def test_read_a_terminals_clock(running: Running) -> None:
    running.house.session.check = ClockCheck(61.0, NOON, within_tolerance=True)
    code, out, _ = running.call("read", "02001234", "clock", "--json")
    assert code == 0
    (item,) = json.loads(out)["items"]
    assert [value["value"] for value in item["values"]] == ["2026-11-24 12:01:01", "61.0"]
    code, _, err = running.call("read", "02001234", "clock", "00010000")
    assert code == 1
    assert "clock" in err


def test_the_clock_of_a_terminal(running: Running) -> None:
    running.house.session.check = ClockCheck(-86_400.0, NOON, within_tolerance=False)
    code, out, _ = running.call("terminal", "clock", "02001234", "--check")
    assert code == 3
    assert "2026-11-23 12:00:00" in out
    assert "-86400.0 s" in out
    code, _, err = running.call("terminal", "clock", "02001234", "--set")
    assert code == 1
    assert "midnight" in err
    assert running.call("terminal", "clock", "02001234")[0] == 2
    code, _, err = running.call("terminal", "clock", "02009999", "--check")
    assert code == 1
    assert "not connected" in err


def test_the_archive_of_a_terminal(running: Running) -> None:
    code, out, _ = running.call("archive", "02001234", "--diff")
    assert code == 3
    assert "p2: not in the terminal" in out
    assert "p9: only in the terminal" in out
    code, out, _ = running.call("archive", "02001234", "--push", "--json")
    assert code == 3
    assert json.loads(out)["written"] == 1
    code, out, _ = running.call("archive", "02001234", "--push", "--prune")
    assert code == 0
    assert "as in the assets" in out
    for words in ((), ("--diff", "--push"), ("--diff", "--prune")):
        assert running.call("archive", "02001234", *words)[0] == 2


def test_terminals_are_listed(running: Running) -> None:
    code, out, _ = running.call("terminal", "list")
    assert code == 0
    assert "02001234" in out
    assert "在线" in out
    assert "03030001  not in the assets" in out
    assert json.loads(running.call("terminal", "list", "--json")[1])["terminals"][1]["online"] is False


def test_wrong_settings_end_the_start_with_the_key(tmp_path: Path) -> None:
    (tmp_path / "x.toml").write_text("[session]\nrepeats = 99\n")
    result = runner.invoke(
        app, ["--state", str(tmp_path / "s"), "serve", "--config", str(tmp_path / "x.toml")]
    )
    assert result.exit_code == 2
    assert "session.repeats" in result.stderr
    assert result.stdout == ""
