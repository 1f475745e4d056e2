"""Gateway and database die in mid-sweep: the sweep ends complete, with no row lost or doubled."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest

from gateway.clock import business_day
from gateway.storage import embedded
from tests.end_to_end.ledger import compare
from tests.end_to_end.processes import Gateway, Simulator, until

pytestmark = [pytest.mark.end_to_end, pytest.mark.timeout(600)]

SETTINGS = {
    "LINGDIAN_SESSION__REPLY_TIMEOUT_SECONDS": "5",
    "LINGDIAN_COLLECTION__BACKOFF_SECONDS": "1",
    "LINGDIAN_DATABASE__BATCH_ROWS": "200",
}
SLOW_ANSWERS = {"delay": {"least": 0.2, "most": 1.0}}
METERS = 3_000


def stored(gateway: Gateway) -> int:
    """Rows of readings now, asked of the database itself: the command line would take too long."""
    sockets = embedded._Server(gateway.state / "database").sockets
    with psycopg.connect(host=str(sockets), user="lingdian", dbname="lingdian") as connection:
        row = connection.execute("SELECT count(*) FROM register_reading").fetchone()
    assert row is not None
    return int(row[0])


def due(simulator: Simulator) -> int:
    """Rows that a whole sweep stores."""
    return simulator.truth.read_text().count("\n") - 1


def sweep_in_the_middle(gateway: Gateway, simulator: Simulator, day: str) -> None:
    """Start a sweep and return once some of it, and not all, is stored."""
    had = stored(gateway)
    with gateway.in_background("collect", f"--day={day}") as collecting:
        until(lambda: stored(gateway) > had, 60, "more readings stored")
        collecting.kill()
    assert stored(gateway) < due(simulator)


def test_kill_9_of_the_gateway_in_mid_sweep_loses_and_doubles_nothing(tmp_path: Path) -> None:
    day = str(business_day(datetime.now(UTC)) - timedelta(days=1))
    with (
        Gateway(tmp_path / "state", SETTINGS) as gateway,
        Simulator(tmp_path, terminals=12, meters=METERS, day=day, seed=3) as simulator,
    ):
        simulator.faults(SLOW_ANSWERS)
        simulator.grow()
        gateway.start()
        gateway.import_assets(simulator)
        simulator.connect(gateway.address)
        for _ in range(2):
            sweep_in_the_middle(gateway, simulator, day)
            gateway.kill()
            kept = stored(gateway)
            gateway.start()
            assert stored(gateway) == kept, "what was committed is there after the restart"
        summary = gateway.json("collect", f"--day={day}")
        assert summary["missing"] == 0
        comparison = compare(simulator.truth, gateway.run("export", "readings"))
        assert not comparison.wrong
        assert not comparison.absent


def test_the_database_stopped_and_started_in_mid_sweep_loses_and_doubles_nothing(tmp_path: Path) -> None:
    day = str(business_day(datetime.now(UTC)) - timedelta(days=1))
    with (
        Gateway(tmp_path / "state", SETTINGS) as gateway,
        Simulator(tmp_path, terminals=12, meters=METERS, day=day, seed=4) as simulator,
    ):
        simulator.faults(SLOW_ANSWERS)
        simulator.grow()
        gateway.start()
        gateway.import_assets(simulator)
        simulator.connect(gateway.address)
        folder = gateway.state / "database"
        with gateway.in_background("collect", f"--day={day}") as collecting:
            until(lambda: stored(gateway) > 0, 60, "first readings stored")
            for how in (signal.SIGINT, signal.SIGQUIT):  # a fast stop, then one without a checkpoint
                pid = embedded.server_pid(folder)
                assert pid is not None
                os.kill(pid, how)
                until(lambda: embedded.server_pid(folder) is None, 30, "the database has stopped")
                time.sleep(2.0)
                assert gateway.running, gateway.last_words()
                asyncio.run(embedded._Server(folder).launch())
                time.sleep(2.0)
            assert stored(gateway) < due(simulator), "the database was away while the sweep was under way"
            collecting.wait(300)
        summary = gateway.json("collect", f"--day={day}")
        assert summary["missing"] == 0
        comparison = compare(simulator.truth, gateway.run("export", "readings"))
        assert not comparison.wrong
        assert not comparison.absent
