"""A region where everything goes wrong at once: all that can be reached is collected, nothing is false."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from gateway.clock import business_day
from tests.end_to_end.ledger import compare, reasons
from tests.end_to_end.processes import Gateway, Simulator

pytestmark = [pytest.mark.end_to_end, pytest.mark.timeout(900)]

TERMINALS = 40

FAULTS: dict[str, Any] = {
    "seed": 11,
    "not_ready": {"fraction": 0.02, "seconds": 45},
    "corrupt": {"fraction": 0.01},
    "split": {"fraction": 0.3},
    "merge": {"fraction": 0.05},
    "delay": {"least": 0.0, "most": 3.0, "fraction": 0.05},
    "vanish": {"count": 20, "least": 2, "most": 25},
    "cut": {"count": 3},
    "late": {"count": 10},
    "push": {"count": 2},
    "clock_off": {"count": 1, "seconds": 86_400},
    "swapped": {"count": 5},
    "absent": {"count": 1, "seconds": 75},
    "clash": {"count": 1},
}

SETTINGS = {
    "LINGDIAN_SESSION__REPLY_TIMEOUT_SECONDS": "5",
    "LINGDIAN_SESSION__HEARTBEAT_SECONDS": "10",
    "LINGDIAN_SESSION__FORWARD_MESSAGE_TIMEOUT_SECONDS": "3",
    "LINGDIAN_SESSION__FORWARD_MARGIN_SECONDS": "1",
    "LINGDIAN_COLLECTION__BACKOFF_SECONDS": "2",
    "LINGDIAN_COLLECTION__BACKOFF_LIMIT_SECONDS": "10",
    "LINGDIAN_COLLECTION__DIRECT_READS_PER_TERMINAL_HOUR": "1000",
    "LINGDIAN_COLLECTION__ON_DEMAND_SECONDS": "60",
}

FAULTS_THAT_MUST_FIRE = (
    "corrupt", "split", "delay", "vanish", "cut", "late", "push", "clock_off", "swapped", "absent", "clash",
    "not_ready",
)  # fmt: skip


@pytest.mark.parametrize("meters", [4_000, pytest.param(10_000, marks=pytest.mark.long)])
def test_a_region_full_of_faults_ends_complete_and_true(tmp_path: Path, meters: int) -> None:
    day = str(business_day(datetime.now(UTC)) - timedelta(days=1))
    with (
        Gateway(tmp_path / "state", SETTINGS) as gateway,
        Simulator(
            tmp_path, terminals=TERMINALS, meters=meters, day=day, seed=5, more=["--heartbeat=5"]
        ) as simulator,
    ):
        simulator.faults(FAULTS)
        simulator.grow()
        gateway.start()
        gateway.import_assets(simulator)
        before = gateway.json("gaps", f"--day={day}", ok=(3,))
        assert reasons(before).keys() <= {"not_asked", "terminal_absent"}
        planned = simulator.connect(gateway.address)

        first = gateway.json("collect", f"--day={day}", ok=(0, 3))
        print(first)
        after_first = gateway.json("gaps", f"--day={day}", ok=(0, 3))
        assert after_first["missing"] <= first["missing"]  # pushed readings may have come since
        of_absent = {one["reason"] for one in after_first["gaps"] if one["terminal"] in planned["absent"]}
        assert of_absent <= {"terminal_absent"}, of_absent

        for _ in range(6):
            summary = gateway.json("collect", f"--day={day}", ok=(0, 3))
            print(summary)
            gaps = gateway.json("gaps", f"--day={day}", ok=(0, 3))
            assert all(one["reason"] != "not_asked" for one in gaps["gaps"]), reasons(gaps)
            if {one["terminal"] for one in gaps["gaps"]} <= set(planned["clash"]):
                break

        comparison = compare(simulator.truth, gateway.run("export", "readings"))
        assert not comparison.wrong, comparison.wrong[:5]
        # A meter that was asked directly gives no reactive registers: they come along with F1 and F2 only.
        absent = {key[:2] for key in comparison.absent if key[1].endswith("_active")}
        assert absent == {(one["meter"], one["quantity"]) for one in gaps["gaps"]}
        assert {one["terminal"] for one in gaps["gaps"]} == set(planned["clash"]), reasons(gaps)
        assert reasons(gaps).keys() == {"contested"}
        terminals = gateway.json("terminal", "list")["terminals"]
        assert [one["terminal"] for one in terminals if one["contested"]] == planned["clash"]
        fired = simulator.end()
        print(summary, fired)
        for fault in FAULTS_THAT_MUST_FIRE:
            assert fired.get(fault, 0) > 0, (fault, fired)
