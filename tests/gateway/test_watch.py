"""`lingdian watch`: what it shows of a gateway, that it waits for one that goes away, and that it leaves no
trace."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pty
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import StringIO
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from rich.console import Console
from typer.testing import CliRunner

from gateway.cli import app
from gateway.cli.client import Gateway, Refusal
from gateway.cli.invocation import NoGateway
from gateway.cli.watch import follow
from gateway.cli.watch_gateway import EVENT_PAGE, NEWEST, OPEN, Lookout, painted
from gateway.clock import frozen_at
from gateway.metrics import Metrics
from tests.gateway.field.bus import OnTheLine, hung_up
from tests.gateway.relay_gateway import Running
from tests.simulator.household import DAY

runner = CliRunner()

METER = "202408110457"


def event(number: int) -> dict[str, Any]:
    return {
        "id": number,
        "terminal": "02001234",
        "pn": 3,
        "meter": "M3",
        "erc": 31,
        "name": f"event-{number}",
        "name_zh": "抄表失败",
        "received_at": "2026-11-24T08:00:00+08:00",
        "needs_person": True,
        "acknowledged_by": None,
    }


@dataclass
class Made:
    """Answers as a gateway does. refused: path -> status and problem."""

    events: int = 3
    filed: int = 1000
    asked: list[str] = field(default_factory=list)
    refused: dict[str, int] = field(default_factory=dict)

    def answer(self, target: str) -> tuple[int, bytes]:
        parts = urlsplit(target)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        self.asked.append(target)
        if (status := self.refused.get(parts.path)) is not None:
            return status, json.dumps({"type": "urn:x:no", "detail": "no database 数据库"}).encode()
        if parts.path == "/metrics":
            return 200, self._metrics()
        return 200, json.dumps(self._told(parts.path, query)).encode()

    def _metrics(self) -> bytes:
        metrics = Metrics()
        metrics.ready.set(1)
        metrics.collection_due.set(1000)
        metrics.collection_missing.set(25)
        metrics.collections_running.set(1)
        metrics.collection_midnight.set(frozen_at(DAY).timestamp())
        metrics.write_rows.inc(self.filed)
        return metrics.exposition()

    def _told(self, path: str, query: dict[str, str]) -> dict[str, Any]:
        if path == "/api/v1/terminals":
            online = [{"online": True, "contested": False}, {"online": True, "contested": True}]
            return {"terminals": [*online, {"online": False, "contested": False}], "unregistered": [{}]}
        if path == "/api/v1/relay-commands":
            many = query.get("state") == "queued"
            return {
                "commands": [command()] * (int(query["limit"]) if many else 0),
                "next": "c" if many else None,
            }
        assert path == "/api/v1/terminal-events"
        after, limit = int(query["after"]), int(query["limit"])
        found = [event(number) for number in range(after + 1, self.events + 1)][:limit]
        return {"events": found, "next": found[-1]["id"] if len(found) == limit else None}


def command() -> dict[str, Any]:
    return {
        "id": "0", "created_at": "2026-11-24T00:00:00+00:00", "action": "close", "meter": "M3",
        "state": "queued", "why_text": None, "detail": "", "energised_at": None,
    }  # fmt: skip


class Asked(Gateway):
    """Asks a made gateway without a network; away: nobody answers."""

    def __init__(self, made: Made) -> None:
        self.made = made
        self.away = False

    def file(self, path: str) -> bytes:
        return self._say(path)

    def get(self, path: str, **query: Any) -> Any:
        return json.loads(
            self._say(path + "?" + "&".join(f"{name}={value}" for name, value in query.items()))
        )

    def _say(self, target: str) -> bytes:
        if self.away:
            raise NoGateway("the gateway went away 网关连接中断")
        status, body = self.made.answer(target)
        if status >= 400:
            raise Refusal(status, "no", json.loads(body)["detail"])
        return body


def text_of(renderable: Any) -> str:
    console = Console(file=StringIO(), width=200)
    console.print(renderable)
    out = console.file
    assert isinstance(out, StringIO)
    return out.getvalue()


# one look --------------------------------------------------------------------------------------------------


def test_a_look_tells_terminals_collection_relay_and_events() -> None:
    told = Lookout(Asked(Made())).look().as_json()
    assert told["ready"]
    assert told["terminals"] == {"known": 3, "online": 2, "offline": 1, "contested": 1, "unregistered": 1}
    assert told["collection"] == {
        "day": DAY.isoformat(),
        "running": 1,
        "due": 1000,
        "collected": 975,
        "missing": 25,
        "percent": 97.5,
        "readings_per_second": None,
    }
    assert set(told["relay"]["open"]) == {state.value for state in OPEN}
    assert (told["relay"]["open"]["queued"], told["relay"]["more"]) == (200, ["queued"])
    assert [one["id"] for one in told["events"]] == [3, 2, 1]
    assert told["troubles"] == []


def test_both_languages_are_on_the_screen() -> None:
    shown = text_of(painted(Lookout(Asked(Made())).look()))
    for words in ("offline 离线", DAY.isoformat(), "97.50 %", "200+", "event-3", "running 进行中", "待处理"):
        assert words in shown, words


def test_the_next_look_asks_only_for_events_that_came_since() -> None:
    made = Made(events=EVENT_PAGE + 7)
    lookout = Lookout(Asked(made))
    assert next(one["id"] for one in lookout.look().events or ()) == EVENT_PAGE + 7
    made.events += 2
    made.asked.clear()
    newest = [one["id"] for one in lookout.look().events or ()]
    assert newest == list(range(EVENT_PAGE + 9, EVENT_PAGE + 9 - NEWEST, -1))
    (asked,) = [target for target in made.asked if "terminal-events" in target]
    assert f"after={EVENT_PAGE + 7}&" in asked


def test_the_rate_is_what_was_filed_between_two_looks() -> None:
    made = Made()
    lookout = Lookout(Asked(made))
    assert lookout.look().collection["readings_per_second"] is None
    made.filed += 500
    assert (lookout.look().collection["readings_per_second"] or 0) > 0
    made.filed = 3
    assert lookout.look().collection["readings_per_second"] is None, "restarted"


def test_a_part_that_is_refused_is_said_and_the_rest_is_shown() -> None:
    look = Lookout(Asked(Made(refused={"/api/v1/terminals": 503}))).look()
    assert look.terminals is None
    assert look.troubles == ("terminals 终端: no database 数据库",)
    assert "event-3" in text_of(painted(look))


def test_a_token_that_is_none_ends_it() -> None:
    with pytest.raises(Refusal):
        Lookout(Asked(Made(refused={"/api/v1/terminals": 401}))).look()


# the live table --------------------------------------------------------------------------------------------


def test_a_gateway_that_goes_away_is_said_and_asked_again_until_it_is_back() -> None:
    gateway, out = Asked(Made()), StringIO()
    lookout = Lookout(gateway)
    shown: list[str] = []

    def pause() -> None:
        shown.append(out.getvalue())
        out.truncate(0)
        out.seek(0)
        gateway.away = len(shown) in (2, 3)
        if gateway.away:
            gateway.made.events = 1  # the one that comes next has another database
        if len(shown) == 5:
            raise KeyboardInterrupt

    follow(lookout, lookout.look(), Console(file=out, force_terminal=True, width=160, height=60), pause)
    assert ["正在重试" in one for one in shown] == [False, False, True, True, False]
    assert all("97.50 %" in one for one in shown), "what was seen last stays"
    assert ["event-3" in one for one in shown] == [True, True, True, True, False]
    assert "event-1" in shown[-1]
    assert out.getvalue().endswith("\x1b[?25h") or "\x1b[?1049l" in out.getvalue()


class _Handler(BaseHTTPRequestHandler):
    made: Made

    def do_GET(self) -> None:
        status, body = self.made.answer(self.path)
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: Any) -> None:
        pass


@contextlib.contextmanager
def served(port: int = 0) -> Iterator[int]:
    """A made gateway on TCP; its port."""
    handler = type("Handler", (_Handler,), {"made": Made()})
    server = ThreadingHTTPServer(("127.0.0.1", port), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        thread.join(10)
        server.server_close()


class OnScreen:
    """`lingdian watch` on a pseudo-terminal."""

    def __init__(self, *words: str, **environment: str) -> None:
        master, slave = pty.openpty()
        self._master = master
        self.said = ""
        self.program = subprocess.Popen(
            [sys.executable, "-m", "gateway", "watch", "--every", "0.2", *words],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env={**os.environ, "TERM": "xterm", "COLUMNS": "160", "LINES": "50", **environment},
            # who runs the tests in the background has them, and all their children, deaf to Ctrl-C
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )
        os.close(slave)
        self._thread = threading.Thread(target=self._listen)
        self._thread.start()

    def _listen(self) -> None:
        with contextlib.suppress(OSError):
            while data := os.read(self._master, 65536):
                self.said += data.decode("utf-8", "replace")

    def until(self, true: Callable[[str], bool], since: int = 0) -> int:
        """Wait for a whole picture, from number `since` on, that is as wanted; its number."""
        give_up = time.monotonic() + 60
        while True:
            for number, picture in list(enumerate(self.said.split("\x1b[H")[:-1]))[since:]:
                if true(picture):
                    return number
            assert time.monotonic() < give_up, self.said[-2000:]
            assert self.program.poll() is None, self.said[-2000:]
            time.sleep(0.02)

    def interrupt(self) -> int:
        """Ctrl-C; the exit code."""
        self.program.send_signal(signal.SIGINT)
        code = self.program.wait(30)
        self._thread.join(10)
        return code

    def __enter__(self) -> OnScreen:
        return self

    def __exit__(self, *exception: object) -> None:
        self.program.kill()
        self.program.wait(10)
        self._thread.join(10)
        os.close(self._master)


def test_on_a_screen_it_outlives_the_gateway_and_leaves_no_trace(tmp_path: Path) -> None:
    with ExitStack() as held:
        with served() as port:
            url = f"http://127.0.0.1:{port}"
            environment = {"LINGDIAN_TOKEN": "t", "XDG_STATE_HOME": str(tmp_path)}
            screen = held.enter_context(OnScreen("--url", url, **environment))
            seen = screen.until(lambda picture: "97.50 %" in picture and "newest events" in picture)
        away = screen.until(lambda picture: "trying again" in picture and "97.50 %" in picture, seen)
        with served(port):
            screen.until(lambda picture: "newest events" in picture and "trying again" not in picture, away)
            assert screen.interrupt() == 0
    assert_no_trace(screen.said)


def assert_no_trace(said: str) -> None:
    """All was on the other screen, and nothing came behind it."""
    before, _, rest = said.partition("\x1b[?1049h")
    _, _, behind = rest.rpartition("\x1b[?1049l")
    assert (before + behind).replace("\x1b[?25h", "").replace("\x1b[?25l", "").strip() == ""
    assert "Traceback" not in said


def test_nobody_there_is_an_exit_code(tmp_path: Path) -> None:
    result = runner.invoke(app, ["--state", str(tmp_path), "watch"])
    assert result.exit_code == 4
    assert "网关未运行" in result.stderr


@pytest.mark.database
def test_a_real_gateway_is_seen_over_its_socket_and_by_token(
    tmp_path: Path, conninfo: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("LINGDIAN_URL", "LINGDIAN_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    with Running(tmp_path, conninfo) as running:
        running.works = False
        assert running.call("close", "E1", "--cause", "paid")[0] == 0
        state = ["--state", str(running.state.folder), "watch"]
        shown = runner.invoke(app, state)
        by_socket = runner.invoke(app, [*state, "--json"])
        (tmp_path / "token").write_text(running.token)
        afar = [
            "watch",
            "--url",
            f"http://{running.address}",
            "--token-file",
            str(tmp_path / "token"),
            "--json",
        ]
        by_token = runner.invoke(app, afar)
        (tmp_path / "token").write_text("no-token")
        refused = runner.invoke(app, afar)
    assert (shown.exit_code, by_socket.exit_code, by_token.exit_code) == (0, 0, 0), shown.output
    assert "close E1: queued" in shown.stdout
    assert "\x1b" not in shown.stdout
    for told in (json.loads(by_socket.stdout), json.loads(by_token.stdout)):
        assert told["relay"]["open"]["queued"] == 1
        assert told["terminals"]["known"] == 2
        assert told["troubles"] == []
    assert (refused.exit_code, refused.stdout) == (1, "")


# a meter on a line -----------------------------------------------------------------------------------------


async def test_a_meter_is_read_once_into_a_pipe() -> None:
    with hung_up(OnTheLine(METER, 9600), OnTheLine("000000451237", 9600, "1997")) as line:
        via = ["watch", "--via", f"serial://{line.device}?parity=N&baud=9600&gap_ms=50&echo=off"]
        usual = await asyncio.to_thread(runner.invoke, app, [*via, METER, "--json"])
        named = await asyncio.to_thread(runner.invoke, app, [*via, "000000451237", "A相电压", "9010"])
    assert usual.exit_code == 0, usual.output
    units = [item["values"][0]["unit"] for item in json.loads(usual.stdout)["items"]]
    assert units == ["V", "A", "kW", "kWh"]
    assert named.exit_code == 0
    assert "220 V" in named.stdout
    assert "1234.56 kWh" in named.stdout


async def test_a_meter_on_a_screen_is_read_again_and_again(tmp_path: Path) -> None:
    with hung_up(OnTheLine(METER, 9600)) as line:
        via = f"serial://{line.device}?parity=N&baud=9600&gap_ms=50&echo=off"
        with OnScreen("--via", via, METER, "00010000", XDG_STATE_HOME=str(tmp_path)) as screen:
            seen = await asyncio.to_thread(screen.until, lambda shown: "次 2" in shown and " kWh" in shown)
            line.meters.clear()
            silent = await asyncio.to_thread(screen.until, lambda shown: "does not answer" in shown, seen)
            line.meters.append(OnTheLine(METER, 9600))
            await asyncio.to_thread(screen.until, lambda shown: " kWh" in shown, silent)
            assert await asyncio.to_thread(screen.interrupt) == 0
    assert_no_trace(screen.said)


def test_a_meter_wants_a_channel() -> None:
    assert runner.invoke(app, ["watch", METER]).exit_code == 2
