"""The dashboard *Midnight 零点*: well formed, and each query gives the numbers that planted data imply."""

from __future__ import annotations

import json
import re
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from gateway.metrics import Metrics
from gateway.model import REASON_TEXT
from grafana.midnight import FILE, dashboard, targets, text
from tests.grafana_metrics import ask, prometheus
from tests.programs import program

ROOT = Path(__file__).parent.parent
PANELS: list[dict[str, Any]] = dashboard()["panels"]
PROMETHEUS = [(title, target) for title, target in targets() if "expr" in target]

RATE_INTERVAL = "1m"
"""What Grafana would put in at a scrape interval of 15 s."""

EXPECTED: dict[str, dict[str, dict[str, float]]] = {
    "Terminals logged in 在线终端": {"now": {"": 102}},
    "Contested addresses 地址冲突": {"now": {"": 103}},
    "Terminal clocks off 终端时钟超差": {"now": {"": 104}},
    "Rows committed 入库速率": {"rows 示值": {"": 200}},
    # two of three at 0.2 s (bucket 0.1 to 0.25), one at 0.9 s (0.5 to 1); within a bucket it interpolates
    "One batch, from COPY to COMMIT 批次耗时": {
        "median 中位": {"": 0.1 + 0.15 * 0.75},
        "p99": {"": 0.5 + 0.5 * 0.97},
    },
    "Rows waiting, batches tried again 待写与重试": {"waiting 待写": {"": 105}, "tried again 重试": {"": 8}},
    "Sessions 会话": {
        "connections 连接": {"": 101},
        "logged in 在线": {"": 102},
        "contested 冲突": {"": 103},
    },
    "Logins and takeovers 登录与接管": {
        "logins 登录": {"": 0.4},
        "unknown 未登记": {"": 0.1},
        "takeovers 接管": {"": 0.05},
    },
    "Missing in the newest collection 最近一次采集的缺数": {"due 应采": {"": 106}, "missing 缺数": {"": 107}},
    "Exchanges by how they ended 召测结果": {
        "{{outcome}}": {
            "answered": 3,
            "silent": 1,
            **dict.fromkeys(("confirmed", "denied", "broken", "late"), 0),
        }
    },
    "From request to whole answer 应答时间": {
        "median 中位": {"": 0.1 + 0.15 * 0.75},
        "p95": {"": 0.5 + 0.5 * 0.85},
    },
    "Frames and damage 帧与损坏": {"{{direction}}": {"up": 2, "down": 1}, "damaged 损坏": {"": 0.2}},
    "Failures by reason 失败原因": {"{{reason}}": {"no_value_yet": 4}},
}
"""Panel -> legend -> labels -> value at the end of `tests.grafana_metrics.history`."""


# the file --------------------------------------------------------------------------------------------------


def test_the_file_is_the_one_that_its_source_writes() -> None:
    assert FILE.read_text(encoding="utf-8") == text(), "run: .venv/bin/python -m grafana.midnight"


def test_every_panel_has_a_number_and_a_title_in_both_languages() -> None:
    assert len({panel["id"] for panel in PANELS}) == len(PANELS)
    for title in (dashboard()["title"], *(panel["title"] for panel in PANELS)):
        assert re.search(r"[A-Za-z]", title), title
        assert re.search(r"[\u4e00-\u9fff]", title), title


def test_no_panel_lies_on_another() -> None:
    taken = Counter(
        (x, y)
        for panel in PANELS
        for place in [panel["gridPos"]]
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    )
    assert max(taken.values()) == 1
    assert max(x for x, _ in taken) < 24


def test_every_query_goes_to_a_provisioned_source() -> None:
    sources = yaml.safe_load((ROOT / "grafana/provisioning/datasources/lingdian.yaml").read_text())[
        "datasources"
    ]
    known = {(source["type"], source["uid"]) for source in sources}
    for title, target in targets():
        assert (target["datasource"]["type"], target["datasource"]["uid"]) in known, title


def test_reasons_are_shown_in_the_words_of_the_house() -> None:
    shown = [
        {word: options["text"] for word, options in mapping["options"].items()}
        for mapping in json.loads(text())["panels"]
        for mapping in _mappings(mapping)
    ]
    assert shown
    for words in shown:
        assert words == {
            reason.value: f"{english} {chinese}" for reason, (english, chinese) in REASON_TEXT.items()
        }


def _mappings(panel: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield from panel["fieldConfig"]["defaults"].get("mappings", [])
    for override in panel["fieldConfig"]["overrides"]:
        for one in override["properties"]:
            if one["id"] == "mappings":
                yield from one["value"]


# metrics ---------------------------------------------------------------------------------------------------


def test_every_metric_in_the_dashboard_is_one_that_the_gateway_has() -> None:
    exposed = set(re.findall(r"^(lingdian_\w+)", Metrics().exposition().decode(), re.MULTILINE))
    for title, target in PROMETHEUS:
        named = set(re.findall(r"lingdian_\w+", target["expr"]))
        assert named, title
        assert named <= exposed, title


def test_the_expectations_cover_every_query() -> None:
    asked = {(title, target["legendFormat"]) for title, target in PROMETHEUS}
    assert asked == {(title, legend) for title, legends in EXPECTED.items() for legend in legends}


@pytest.fixture(scope="module")
def metrics_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    with prometheus(tmp_path_factory.mktemp("prometheus")) as client:
        yield client


@pytest.mark.parametrize(
    ("title", "target"), PROMETHEUS, ids=[f"{title} {target['refId']}" for title, target in PROMETHEUS]
)
def test_a_metrics_query_gives_what_happened(
    metrics_server: httpx.Client, title: str, target: dict[str, Any]
) -> None:
    answer = ask(metrics_server, target["expr"].replace("$__rate_interval", RATE_INTERVAL))
    assert answer == pytest.approx(EXPECTED[title][target["legendFormat"]])


def test_prometheus_takes_the_gateway_s_exposition_without_complaint() -> None:
    checked = subprocess.run(
        [program("promtool", "prometheus"), "check", "metrics"],
        input=Metrics().exposition(),
        capture_output=True,
        timeout=30,
        check=False,
    )
    assert checked.returncode == 0, checked.stderr.decode()


def test_prometheus_takes_its_configuration() -> None:
    promtool = program("promtool", "prometheus")
    checked = subprocess.run(
        [promtool, "check", "config", ROOT / "grafana" / "prometheus.yml"],
        capture_output=True,
        timeout=30,
        check=False,
    )
    assert checked.returncode == 0, checked.stderr.decode()
