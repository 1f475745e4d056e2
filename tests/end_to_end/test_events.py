"""What simulated terminals notice comes home once each, over a killed gateway too, and waits for a person."""

from __future__ import annotations

import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.clock import business_day
from tests.end_to_end.processes import Gateway, Simulator, until

pytestmark = [pytest.mark.end_to_end, pytest.mark.timeout(120)]

EVENTS = 16
FAULTS: dict[str, Any] = {
    "seed": 4,
    "events": {"count": EVENTS, "least": 0, "most": 5, "reported": 0.5},
}
NEED_A_PERSON = {3, 8, 12, 14, 20, 31, 35}


def running(gateway: Gateway) -> httpx.Client:
    """A client on the socket of its state."""
    transport = httpx.HTTPTransport(uds=str(gateway.state / "gateway.sock"))
    return httpx.Client(transport=transport, base_url="http://gateway", timeout=10.0)


def listed(http: httpx.Client) -> list[dict[str, Any]]:
    events: list[dict[str, Any]] = http.get("/api/v1/terminal-events").json()["events"]
    return events


def test_events_of_a_district_are_stored_once_each_over_a_kill(tmp_path: Path) -> None:
    day = str(business_day(datetime.now(UTC)) - timedelta(days=1))
    with (
        Gateway(tmp_path / "state") as gateway,
        Simulator(tmp_path, terminals=4, meters=40, day=day, more=["--heartbeat=2"]) as simulator,
    ):
        simulator.faults(FAULTS)
        simulator.grow()
        gateway.start()
        gateway.import_assets(simulator)
        planned = Counter(simulator.connect(gateway.address)["events"])
        assert planned.total() == EVENTS
        time.sleep(3)  # some are stored, some are under way, some are still to come
        gateway.kill()
        gateway.start()
        with running(gateway) as http:
            until(lambda: len(listed(http)) >= EVENTS, 30, "all events are stored")
            found = listed(http)
        assert Counter(f"{one['terminal']} {one['erc']}" for one in found) == planned
        assert all(one["reason"] is None for one in found), found
        assert all(one["meter"] for one in found if one["pn"])
        assert {one["class"] for one in found if one["erc"] == 24} == {"normal"}
        assert {one["pushed"] for one in found} == {True, False}

        assert all(one["needs_person"] == (one["erc"] in NEED_A_PERSON) for one in found)
        fired = simulator.end()
        assert fired["events"] == EVENTS
        assert fired["event_reports"] > 0
        assert fired["event_fetches"] > 0
