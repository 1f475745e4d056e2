"""The demo of the README collects everything, the export equals what the meters held, and a relay's course is
proved."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.end_to_end

TRUTH_COLUMNS = ["meter", "quantity", "frozen_at", "total", "t1", "t2", "t3", "t4"]


def columns_of_truth(export: str) -> str:
    """The export cut to the truth's columns, written the same way."""
    out = io.StringIO()
    rows = csv.DictReader(io.StringIO(export))
    writer = csv.DictWriter(out, TRUTH_COLUMNS, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def test_the_demo_collects_all_of_the_truth_and_switches_a_relay_with_proof(tmp_path: Path) -> None:
    environment = {**os.environ, "XDG_STATE_HOME": str(tmp_path / "state")}

    def lingdian(*words: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "gateway", *words],
            capture_output=True,
            env=environment,
            stdin=subprocess.DEVNULL,
            timeout=280,
            check=False,
        )
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout.decode()

    truth = tmp_path / "truth.csv"
    summary = json.loads(
        lingdian("demo", "--once", "--json", "--terminals=5", "--meters=600", "--seed=7", f"--truth={truth}")
    )
    assert (summary["meters"], summary["collected"], summary["missing"]) == (600, 600, 0)
    assert columns_of_truth(lingdian("export", "readings", "--demo")) == truth.read_text()
    assert json.loads(lingdian("gaps", "--demo", f"--day={summary['day']}", "--json"))["missing"] == 0
    relay = summary["relay"]
    assert "why" not in relay, relay
    assert (relay["trip"]["state"], relay["close"]["state"]) == ("verified", "verified")
    assert relay["close"]["energised_at"] is not None
    files = [relay[name]["evidence"] for name in ("trip", "close")]
    checked = json.loads(lingdian("relay", "verify", *files, "--json"))
    assert checked["sound"]
    assert [(one["action"], one["meter"], one["state"]) for one in checked["files"]] == [
        ("trip", relay["meter"], "verified"),
        ("close", relay["meter"], "verified"),
    ]
