"""Relay work on a direct line, whole: gateway and meter as processes, between them the engineer's machine
with a state folder of its own. No terminal is there: only the ticket gets a frame to the meter."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from gateway.cli import app
from tests.end_to_end.processes import Gateway, Process
from tests.end_to_end.test_relay import ANN, BOB, ENVIRONMENT

pytestmark = pytest.mark.end_to_end

PASSWORD = "123456"
METER = "202311050013"
runner = CliRunner()


class Site:
    """A meter on a line, the gateway that allows, and the machine in between."""

    def __init__(self, folder: Path, gateway: Gateway, channel: str, url: str) -> None:
        self.folder = folder
        self.gateway = gateway
        self.channel = channel
        self.laptop = {"LINGDIAN_URL": url, "LINGDIAN_METERS__DEFAULT__PASSWORD": PASSWORD}

    def engineer(self, *words: str, code: int = 0) -> Any:
        """What `lingdian relay WORDS --json` says on the engineer's machine, which asks by token."""
        return self._called(self.folder / "laptop", ("relay", *words, "--json"), self.laptop, code)

    def office(self, *words: str) -> Any:
        """What `lingdian WORDS` says in the gateway's house."""
        return self._called(self.gateway.state, words, {}, 0)

    def _called(self, state: Path, words: tuple[str, ...], environment: dict[str, str], code: int) -> Any:
        done = runner.invoke(app, ["--state", str(state), *words], env=environment)
        assert done.exit_code == code, done.output
        if code:
            return done.stderr
        return json.loads(done.stdout) if "--json" in words else done.stdout

    def direct(self, verb: str, *words: str, code: int = 0) -> Any:
        return self.engineer("direct", verb, METER, "--via", self.channel, *words, code=code)

    def seen(self, what: str) -> list[dict[str, Any]]:
        """What the meter saw."""
        lines = (self.folder / "ledger.jsonl").read_text(encoding="utf-8").splitlines()
        return [one for one in map(json.loads, lines) if one["what"] == what]

    def ask(self, action: str) -> str:
        told = self.office("relay", action, METER, "--cause", "arrears", "--notice", "N-1", "--json")
        return str(told["command"]["id"])


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    for name in [name for name in os.environ if name.startswith("LINGDIAN_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    meter = Process("meter", tmp_path)
    words = ["meter", f"--address={METER}", "--seed=7", "--json", f"--assets={tmp_path / 'assets'}"]
    ledger = f"--ledger={tmp_path / 'ledger.jsonl'}"
    environment = {**ENVIRONMENT, "LINGDIAN_HTTP__ADDRESS": "127.0.0.1:0"}
    with Gateway(tmp_path / "g", environment) as gateway, meter:
        meter.launch(["-m", "simulator", *words, ledger, "--listen=tcp://127.0.0.1:0"])
        channel = meter.line("listening")["channel"]
        ready = gateway.start()
        assets = tmp_path / "assets"
        made = Site(tmp_path, gateway, channel, f"http://{ready['http']}")
        files = (f"--terminals={assets / 'terminals.csv'}", f"--meters={assets / 'meters.csv'}")
        made.office("import", *files, "--json")
        scopes = [word for scope in ("read", "control") for word in ("--scope", scope)]
        token = made.office("token", "create", "li", *scopes, "--all-organisations")
        made.laptop["LINGDIAN_TOKEN"] = token.split()[-1]
        live(gateway, assets / "terminals.csv")
        yield made


def live(gateway: Gateway, terminals: Path) -> None:
    """End shadow mode, as two persons do."""
    with terminals.open(encoding="utf-8") as file:
        organisation = next(csv.DictReader(file))["organisation"]
    transport = httpx.HTTPTransport(uds=str(gateway.state / "gateway.sock"))
    with httpx.Client(transport=transport, base_url="http://gateway/api/v1", timeout=60.0) as http:
        body = {"on": False, "organisation": organisation, "reason": "tried"}
        made = http.post("/switches/shadow", json=body, headers=ANN).json()
        assert http.post(f"/switches/{made['id']}/approve", headers=BOB).is_success


def test_a_trip_and_a_close_by_ticket_are_verified_and_their_bundles_hold(site: Site) -> None:
    trip = site.ask("trip")
    site.engineer("ticket-key", "--pin")
    assert "无操作票" in site.direct("trip", code=1)
    assert site.seen("frame") == []
    site.engineer("ticket", trip, "--out", "trip.json")
    assert site.office("relay", "show", trip, "--json")["command"]["state"] == "sending"
    done = site.direct("trip", "--ticket", "trip.json")
    assert done["done"]
    (frame,) = site.seen("frame")
    assert (frame["verb"], frame["decision"]) == ("trip", "accepted")
    assert site.seen("moved")[-1]["is_open"]
    assert "操作票已使用" in site.direct("trip", "--ticket", "trip.json", "--out", "2.json", code=1)
    assert len(site.seen("frame")) == 1
    assert site.engineer("upload", done["file"])["command"]["state"] == "verified"

    close = site.ask("close")
    site.engineer("ticket", close, "--out", "close.json")
    done = site.direct("close", "--ticket", "close.json")
    assert done["done"]
    assert not site.seen("moved")[-1]["is_open"]
    state = site.engineer("upload", done["file"])["command"]
    assert (state["state"], state["energised_at"] is not None) == ("verified", True)
    for number in (trip, close):
        bundle = site.folder / f"{number}.bundle"
        site.office("relay", "evidence", number, "--out", str(bundle))
        checked = site.office("relay", "verify", str(bundle), "--json")
        assert checked["sound"], checked
        raw = bundle.read_text(encoding="utf-8")
        assert "direct line" in raw
        assert PASSWORD not in raw
    assert (site.gateway.state / "ticket.key").stat().st_mode & 0o077 == 0
