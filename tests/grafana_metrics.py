"""A Prometheus from Debian on a history made here: every metric of the gateway, moved by known steps."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from gateway.metrics import Metrics
from gateway.model import Reason, Source
from tests.programs import program

BEGIN = 1_795_537_800
"""Half past midnight in Shanghai; all samples lie in one two-hour block."""
STEP_SECONDS = 15
STEPS = 40
END = BEGIN + STEPS * STEP_SECONDS
READY_SECONDS = 60.0
"""Prometheus starts in one second; a loaded machine may need more."""


def move(metrics: Metrics) -> None:
    """What happens in one step."""
    metrics.frames_up.inc(30)
    metrics.frames_down.inc(15)
    metrics.damaged.inc(3)
    metrics.logins.inc(6)
    metrics.logins_unknown.inc(1.5)
    metrics.takeovers.inc(0.75)
    metrics.exchanges["answered"].inc(45)
    metrics.exchanges["silent"].inc(15)
    metrics.readings[Source.TERMINAL].inc(3000)
    metrics.filings["new"].inc(3000)
    metrics.failures[Reason.NO_VALUE_YET].inc(60)
    metrics.write_rows.inc(3000)
    metrics.write_batches.inc()
    metrics.write_retries.inc(2)
    for seconds in (0.2, 0.2, 0.9):
        metrics.exchange_seconds.observe(seconds)
        metrics.write_seconds.observe(seconds)


def stand(metrics: Metrics) -> None:
    """Gauges, each with a number of its own."""
    for value, gauge in enumerate(
        (
            metrics.connections,
            metrics.sessions,
            metrics.sessions_contested,
            metrics.clocks_off,
            metrics.write_queue_rows,
            metrics.collection_due,
            metrics.collection_missing,
        ),
        start=101,
    ):
        gauge.set(value)


def history() -> str:
    """Samples of the registry after every step, as OpenMetrics text with times."""
    metrics = Metrics()
    stand(metrics)
    lines: dict[str, list[str]] = {}
    for step in range(STEPS + 1):
        for family in metrics.registry.collect():
            for sample in family.samples:
                if sample.name.endswith("_created"):
                    continue
                labels = ",".join(f'{key}="{value}"' for key, value in sample.labels.items())
                lines.setdefault(family.name, []).append(
                    f"{sample.name}{{{labels}}} {sample.value} {BEGIN + step * STEP_SECONDS}"
                )
        move(metrics)
    return "\n".join(line for family in lines.values() for line in family) + "\n# EOF\n"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def prometheus(folder: Path) -> Iterator[httpx.Client]:
    """A running Prometheus whose store is `history`; gives a client for its HTTP API."""
    promtool, server = program("promtool", "prometheus"), program("prometheus", "prometheus")
    (folder / "history.txt").write_text(history(), encoding="utf-8")
    (folder / "empty.yml").write_text("scrape_configs: []\n", encoding="utf-8")
    subprocess.run(
        [promtool, "tsdb", "create-blocks-from", "openmetrics", folder / "history.txt", folder / "store"],
        check=True,
        capture_output=True,
        timeout=READY_SECONDS,
    )
    port = _free_port()
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [
                server,
                f"--config.file={folder / 'empty.yml'}",
                f"--storage.tsdb.path={folder / 'store'}",
                "--storage.tsdb.retention.time=100y",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=10.0) as client:
            _wait_until_ready(client, process, folder / "log")
            yield client
    finally:
        process.terminate()
        process.wait(timeout=READY_SECONDS)


def _wait_until_ready(client: httpx.Client, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if client.get("/-/ready").status_code == httpx.codes.OK:
                return
        except httpx.TransportError:
            pass  # not listening yet
        time.sleep(0.1)
    raise AssertionError(f"Prometheus did not become ready:\n{log.read_text(errors='replace')[-4000:]}")


def ask(client: httpx.Client, expression: str) -> dict[str, float]:
    """The expression's value at the end of the history, by its labels' values joined with commas."""
    answer = client.get("/api/v1/query", params={"query": expression, "time": END})
    body: dict[str, Any] = answer.json()
    assert body["status"] == "success", f"{expression}: {body.get('error')}"
    return {",".join(one["metric"].values()): float(one["value"][1]) for one in body["data"]["result"]}
