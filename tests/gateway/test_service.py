"""The running gateway as a process: start, refusals, clean stop, death, a database that goes and comes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from gateway.state import State
from gateway.storage import embedded
from tests.end_to_end.processes import Gateway, until

pytestmark = [pytest.mark.database, pytest.mark.end_to_end]

LOGIN = bytes.fromhex("6832003200 68c90010010000 0270 00000100 4d16")
"""a captured login of terminal 10000001, PSEQ 0"""


@pytest.fixture
def folder() -> Iterator[Path]:
    """A state folder that the database's own user can reach also where pytest's cannot be."""
    made = Path(tempfile.mkdtemp(prefix="lingdian-serve-"))
    yield made / "state"
    shutil.rmtree(made, ignore_errors=True)


@pytest.fixture
def gateway(folder: Path) -> Iterator[Gateway]:
    with Gateway(folder, {"LINGDIAN_HTTP__ADDRESS": "127.0.0.1:0"}) as made:
        yield made


def on_socket(gateway: Gateway) -> httpx.Client:
    """A client on the unix socket."""
    transport = httpx.HTTPTransport(uds=str(State(gateway.state).socket))
    return httpx.Client(transport=transport, base_url="http://gateway", timeout=60)


def until_ready(gateway: Gateway, ready: bool, seconds: float = 30) -> str | None:
    """Wait until /readyz says so; the reason that it gave."""
    with on_socket(gateway) as http:
        until(lambda: http.get("/readyz").is_success == ready, seconds, f"ready is {ready}")
        reason: str | None = http.get("/readyz").json()["reason"]
        return reason


def log_in(gateway: Gateway) -> bytes:
    """Dial in, log in, and hang up; what came back."""
    with socket.create_connection((gateway.host, gateway.port), timeout=10) as peer:
        peer.sendall(LOGIN)
        answer = b""
        while len(answer) < 26 and (part := peer.recv(4096)):
            answer += part
        return answer


def refused_start(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """A `serve` that ends by itself."""
    done = subprocess.run(
        [sys.executable, "-m", "gateway", "--state", str(folder), "serve", "--listen=127.0.0.1:0", *words],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={key: value for key, value in os.environ.items() if not key.startswith("LINGDIAN_")},
    )
    assert "Traceback" not in done.stderr
    return done


def test_it_serves_says_where_and_stops_cleanly(gateway: Gateway) -> None:
    ready = gateway.start()
    database = gateway.state / "database"
    assert ready["pid"] == gateway.pid
    assert ready["listen"] == gateway.address
    assert ready["socket"] == str(State(gateway.state).socket)
    with httpx.Client(base_url=f"http://{ready['http']}", timeout=10) as http:
        assert http.get("/healthz").text == "ok\n"
        assert http.get("/readyz").json() == {"ready": True, "reason": None, "sessions": 0}
        assert "lingdian_connections" in http.get("/metrics").text
        assert http.post("/api/v1/collections/2026-11-01").status_code == 401
    answer = log_in(gateway)
    assert answer[12] == 0, "AFN00 confirms"
    assert answer[13] & 0x0F == LOGIN[13] & 0x0F, "with its sequence number"
    until(
        lambda: [one["address"] for one in gateway.json("terminal", "list")["unregistered"]] == ["10000001"],
        30,
        "the stranger is listed",
    )
    assert gateway.json("migrate") == {"applied": []}
    assert embedded.server_pid(database) is not None, "a command leaves the gateway's database running"
    begun = time.monotonic()
    assert gateway.stop() == 0
    assert time.monotonic() - begun < 10
    assert not State(gateway.state).socket.exists()
    assert embedded.server_pid(database) is None
    said = gateway.log.read_text(encoding="utf-8").splitlines()
    lines = [json.loads(line) for line in said if not line.startswith("ready")]
    assert {"serving", "stopping", "stopped"} <= {line.get("event") for line in lines}


def test_a_second_gateway_on_the_same_state_is_refused(gateway: Gateway) -> None:
    gateway.start()
    second = refused_start(gateway.state, "--json")
    assert second.returncode == 1
    assert second.stdout == ""
    assert f"process {gateway.pid}" in second.stderr
    until_ready(gateway, True)


@pytest.mark.parametrize(("option", "key"), [("--listen", "listen.address"), ("--http", "http.address")])
def test_an_address_in_use_is_named_with_its_setting(folder: Path, option: str, key: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        refused = refused_start(folder, option, address)
    assert refused.returncode == 2
    assert f"{key}: cannot listen on {address}" in refused.stderr


def test_a_database_that_cannot_be_reached_is_named_without_its_password(folder: Path) -> None:
    folder.mkdir()
    settings = folder / "settings.toml"
    settings.write_text('[database]\nurl = "postgresql://me:sesame@127.0.0.1:1/nothing"\n')
    refused = refused_start(folder, f"--config={settings}")
    assert refused.returncode == 1
    assert "127.0.0.1:1" in refused.stderr
    assert "sesame" not in refused.stderr


def test_a_killed_gateway_is_started_again_and_takes_its_database_over(gateway: Gateway) -> None:
    gateway.start()
    database = embedded.server_pid(gateway.state / "database")
    gateway.kill()
    gateway.run("terminal", "list", ok=(4,))
    gateway.start()
    assert embedded.server_pid(gateway.state / "database") == database
    assert log_in(gateway)[12] == 0


def test_it_lives_through_a_database_that_dies_and_starts_it_again(gateway: Gateway) -> None:
    gateway.start()
    database = gateway.state / "database"
    first = embedded.server_pid(database)
    assert first is not None
    os.kill(first, signal.SIGINT)
    assert "database" in str(until_ready(gateway, False))
    assert log_in(gateway)[12] == 0, "terminals are answered all the while"
    until_ready(gateway, True, seconds=90)
    assert embedded.server_pid(database) not in (None, first)
    assert gateway.stop() == 0
    assert "Traceback" not in gateway.last_words(1000)


def test_without_its_database_it_still_stops_in_time(gateway: Gateway) -> None:
    gateway.start()
    pid = embedded.server_pid(gateway.state / "database")
    server = psutil.Process(pid)
    hung = [server, *server.children(recursive=True)]
    for process in hung:
        process.suspend()
    try:
        until_ready(gateway, False)
        begun = time.monotonic()
        assert gateway.stop() == 0
        assert time.monotonic() - begun < 10
    finally:
        server.send_signal(signal.SIGQUIT)
        for process in hung:
            process.resume()
