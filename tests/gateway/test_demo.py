"""The demo's edges; that it collects everything is shown in tests/end_to_end."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from gateway.storage import embedded
from tests.end_to_end.processes import until

pytestmark = [pytest.mark.database, pytest.mark.end_to_end]


@pytest.fixture
def folder() -> Iterator[Path]:
    made = Path(tempfile.mkdtemp(prefix="lingdian-demo-test-"))
    yield made
    shutil.rmtree(made, ignore_errors=True)


def environment(folder: Path, **more: str) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith("LINGDIAN_")}
    return {**kept, "LINGDIAN_STATE": str(folder / "state"), **more}


def test_it_stays_until_interrupted_and_ends_its_children(folder: Path) -> None:
    # what is configured for the real gateway must not reach the demo
    settings = environment(folder, LINGDIAN_DATABASE__URL="postgresql://nobody@127.0.0.1:1/nothing")
    said = folder / "said"
    with said.open("w") as errors:
        demo = subprocess.Popen(
            [sys.executable, "-m", "gateway", "demo", "--terminals=2", "--meters=30"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env=settings,
        )
    try:
        until(lambda: "still running" in said.read_text() or demo.poll() is not None, 120, "the demo is up")
        assert demo.poll() is None, said.read_text()
        children = psutil.Process(demo.pid).children()
        assert len(children) == 2
        export = subprocess.run(
            [sys.executable, "-m", "gateway", "export", "readings", "--demo"],
            env=settings,
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        assert export.stdout.count("\n") > 30
        relays = subprocess.run(
            [
                sys.executable,
                "-m",
                "gateway",
                "--state",
                str(folder / "state-demo"),
                "relay",
                "list",
                "--json",
            ],
            env=settings,
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        actions = [(one["action"], one["state"]) for one in json.loads(relays.stdout)["commands"]]
        assert actions == [("close", "verified"), ("trip", "verified")], "once each"
        demo.send_signal(signal.SIGINT)
        out, _ = demo.communicate(timeout=60)
    finally:
        if demo.poll() is None:
            demo.terminate()
            demo.wait(60)
    assert demo.returncode == 0, said.read_text()
    assert "30 of 30 meters collected" in out
    assert out.index("30 of 30") < out.index("gates passed") < out.index("both proved 均已证实")
    assert not any(child.is_running() for child in children)
    assert embedded.server_pid(folder / "state-demo" / "database") is None


def test_a_child_that_fails_is_told_with_its_last_words(folder: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "gateway", "demo", "--once", "--terminals=100", "--meters=1"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env=environment(folder),
    )
    assert done.returncode == 1
    assert "the simulator ended with code 2" in done.stderr
    assert "simulator.log ends with:" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_district_without_a_household_to_switch_is_told_and_is_no_success(folder: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "gateway", "demo", "--once", "--json", "--terminals=1", "--meters=1"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env=environment(folder),
    )
    assert done.returncode == 1, done.stderr
    summary = json.loads(done.stdout)
    assert (summary["collected"], summary["relay"]["meter"]) == (1, None)
    assert summary["relay"]["why"] in done.stderr


def test_a_folder_with_other_files_is_left_alone(folder: Path) -> None:
    (folder / "state-demo").mkdir()
    (folder / "state-demo" / "thesis.txt").write_text("years of work")
    done = subprocess.run(
        [sys.executable, "-m", "gateway", "demo", "--once"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env=environment(folder),
    )
    assert done.returncode == 1
    assert "thesis" in str(list((folder / "state-demo").iterdir()))
    assert "not the demo's" in done.stderr
