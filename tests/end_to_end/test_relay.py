"""Relay commands through everything: HTTP, gateway, terminal and meter as processes; the meter's side is the
witness."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest

from gateway.clock import business_day
from tests.end_to_end.processes import Gateway, Simulator, until

pytestmark = pytest.mark.end_to_end

ENVIRONMENT = {
    "LINGDIAN_CONTROL__FROM_HOUR": "00:00",
    "LINGDIAN_CONTROL__TO_HOUR": "23:59:59",
    "LINGDIAN_CONTROL__ANY_DAY": "true",
    "LINGDIAN_CONTROL__TRUST_OWN_CLOCK": "true",
    "LINGDIAN_METERS__DEFAULT__PASSWORD": "123456",
}
ENDS = ("verified", "refused", "failed", "cancelled", "expired", "superseded")
ANN, BOB = {"X-Requester": "ann"}, {"X-Requester": "bob"}


class Company:
    """A gateway with its district, and a billing clerk at its socket."""

    def __init__(self, gateway: Gateway, simulator: Simulator, ledger: Path) -> None:
        self.gateway = gateway
        self.ledger = ledger
        with (simulator.assets / "meters.csv").open(encoding="utf-8") as file:
            self.meters = [row for row in csv.DictReader(file) if row["role"] == "customer"]
        with (simulator.assets / "terminals.csv").open(encoding="utf-8") as file:
            self.organisation = next(csv.DictReader(file))["organisation"]
        transport = httpx.HTTPTransport(uds=str(gateway.state / "gateway.sock"))
        self.http = httpx.Client(transport=transport, base_url="http://gateway/api/v1", timeout=60.0)

    def post(self, path: str, body: dict[str, Any], who: dict[str, str] = ANN) -> Any:
        answer = self.http.post(path, json=body, headers={**who, "Idempotency-Key": uuid4().hex})
        assert answer.status_code < 300, answer.text
        return answer.json()

    def ask(self, meter: str, action: str, **told: Any) -> str:
        body = {"meter": meter, "action": action, "cause": "arrears", "notice": "N-1", **told}
        return str(self.post("/relay-commands", body)["id"])

    def command(self, number: str) -> Any:
        return self.http.get(f"/relay-commands/{number}", headers=ANN).json()

    def ended(self, number: str, seconds: float = 90.0) -> Any:
        until(lambda: self.command(number)["state"] in ENDS, seconds, f"command {number} ends")
        return self.command(number)

    def seen(self, address: str, what: str = "frame") -> list[dict[str, Any]]:
        """What that meter saw of control frames."""
        entries = [json.loads(line) for line in self.ledger.read_text(encoding="utf-8").splitlines()]
        return [one for one in entries if one["meter"] == address and one["what"] == what]


@pytest.fixture(scope="module")
def company(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Company]:
    folder = tmp_path_factory.mktemp("r")
    day = str(business_day(datetime.now(UTC)) - timedelta(days=1))
    ledger = folder / "ledger.jsonl"
    simulator = Simulator(folder / "s", terminals=2, meters=12, day=day, more=[f"--ledger={ledger}"])
    with Gateway(folder / "g", ENVIRONMENT) as gateway, simulator:
        simulator.grow()
        gateway.start()
        gateway.import_assets(simulator)
        simulator.connect(gateway.address)
        until(
            lambda: sum(one["online"] for one in gateway.json("terminal", "list")["terminals"]) == 2,
            60.0,
            "both terminals are logged in",
        )
        made = Company(gateway, simulator, ledger)
        yield made
        made.http.close()


def test_in_shadow_nothing_reaches_a_meter(company: Company) -> None:
    meter = company.meters[0]
    done = company.ended(company.ask(meter["meter"], "trip"))
    assert (done["state"], done["why"]) == ("cancelled", "shadow")
    assert company.seen(meter["address"]) == []


def test_a_trip_and_a_close_are_what_the_meter_saw(company: Company) -> None:
    proposed = company.post(
        "/switches/shadow", {"on": False, "organisation": company.organisation, "reason": "tried for a week"}
    )
    company.post(f"/switches/{proposed['id']}/approve", {}, BOB)
    meter = company.meters[0]
    tripped = company.ended(company.ask(meter["meter"], "trip", label="desk 4"))
    assert (tripped["state"], tripped["why"]) == ("verified", "relay_read")
    (frame,) = company.seen(meter["address"])
    assert (frame["verb"], frame["decision"]) == ("trip", "accepted")
    assert company.seen(meter["address"], "moved")[-1]["is_open"]
    closed = company.ended(company.ask(meter["meter"], "restore"))
    assert closed["state"] == "verified"
    assert closed["action"] == "close"
    assert closed["energised_at"] is not None
    assert [one["verb"] for one in company.seen(meter["address"])] == ["trip", "close"]
    assert not company.seen(meter["address"], "moved")[-1]["is_open"]
    assert company.seen(company.meters[1]["address"]) == []


def test_a_close_supersedes_a_trip_that_the_brake_holds(company: Company) -> None:
    meter = company.meters[1]
    company.post("/switches/brake/pull", {"reason": "drill"})
    trip = company.ask(meter["meter"], "trip")
    until(lambda: company.command(trip)["why"] == "brake", 30.0, "the brake holds the trip")
    close = company.ask(meter["meter"], "close")
    assert company.ended(close)["state"] == "verified"
    assert company.ended(trip)["state"] == "superseded"
    company.post("/switches/brake/release", {"reason": "drill over"})
    assert [one["verb"] for one in company.seen(meter["address"])] == ["close"]
