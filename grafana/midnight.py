"""The dashboard *Midnight 零点*: `python -m grafana.midnight` writes dashboards/midnight.json beside it.

The file that Grafana reads is kept; a test holds it equal to this.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, TypeAlias

from gateway.model import REASON_TEXT
from grafana.queries import SQL

Json: TypeAlias = dict[str, Any]

FILE: Final = Path(__file__).parent / "dashboards" / "midnight.json"
READINGS: Final = {"type": "grafana-postgresql-datasource", "uid": "lingdian-readings"}
METRICS: Final = {"type": "prometheus", "uid": "lingdian-metrics"}


def sql(name: str) -> Json:
    return {
        "refId": "A",
        "datasource": READINGS,
        "format": "table",
        "editorMode": "code",
        "rawQuery": True,
        "rawSql": SQL[name],
    }


def prometheus(**expressions: str) -> list[Json]:
    """One query a keyword; the keyword is the legend, `_` for a blank, and `by_x` takes the label x."""
    return [
        {
            "refId": chr(ord("A") + place),
            "datasource": METRICS,
            "editorMode": "code",
            "range": True,
            "expr": expression,
            "legendFormat": "{{" + name.removeprefix("by_") + "}}"
            if name.startswith("by_")
            else name.replace("_", " "),
        }
        for place, (name, expression) in enumerate(expressions.items())
    ]


def rate(metric: str) -> str:
    return f"rate({metric}[$__rate_interval])"


def percentile(share: float, histogram: str) -> str:
    return f"histogram_quantile({share}, sum by (le) ({rate(histogram + '_bucket')}))"


class Grid:
    """Places panels from left to right, 24 columns to a row, and numbers them."""

    def __init__(self) -> None:
        self.panels: list[Json] = []
        self._x = self._y = self._height = 0

    def add(
        self,
        kind: str,
        title: str,
        targets: list[Json],
        width: int,
        height: int,
        *,
        description: str = "",
        unit: str = "",
        defaults: Json | None = None,
        columns: Json | None = None,
        **options: Any,
    ) -> None:
        """columns: properties of single fields by their names; options: those of the panel's kind."""
        if self._x + width > 24:
            self._x, self._y, self._height = 0, self._y + self._height, 0
        overrides = [
            {
                "matcher": {"id": "byName", "options": name},
                "properties": [{"id": key, "value": value} for key, value in properties.items()],
            }
            for name, properties in (columns or {}).items()
        ]
        self.panels.append(
            {
                "id": len(self.panels) + 1,
                "type": kind,
                "title": title,
                "description": description,
                "datasource": targets[0]["datasource"],
                "gridPos": {"x": self._x, "y": self._y, "w": width, "h": height},
                "targets": targets,
                "fieldConfig": {
                    "defaults": {**({"unit": unit} if unit else {}), **(defaults or {})},
                    "overrides": overrides,
                },
                "options": options,
            }
        )
        self._x, self._height = self._x + width, max(self._height, height)


PERCENT: Final = {
    "unit": "percent",
    "decimals": 2,
    "min": 0,
    "max": 100,
    "color": {"mode": "thresholds"},
    "thresholds": {
        "mode": "absolute",
        "steps": [
            {"color": "red", "value": None},
            {"color": "orange", "value": 98},
            {"color": "green", "value": 99.5},
        ],
    },
}
NONE_IS_GOOD: Final = {
    "color": {"mode": "thresholds"},
    "thresholds": {
        "mode": "absolute",
        "steps": [{"color": "green", "value": None}, {"color": "orange", "value": 1}],
    },
}
GAUGE_CELL: Final = {"custom.cellOptions": {"type": "gauge", "mode": "basic"}, **PERCENT}
REASON_WORDS: Final = [
    {
        "type": "value",
        "options": {
            reason.value: {"index": place, "text": f"{english} {chinese}"}
            for place, (reason, (english, chinese)) in enumerate(REASON_TEXT.items())
        },
    }
]


def _stat(column: str) -> Json:
    return {"reduceOptions": {"calcs": ["lastNotNull"], "fields": f"/^{column}$/", "values": False}}


def _stats(grid: Grid) -> None:
    for title, column, query, defaults in (
        ("Last midnight, complete 最近零点完整率", "Complete 完整率", "complete", PERCENT),
        ("Last midnight, missing 最近零点缺数", "Missing 缺数", "complete", NONE_IS_GOOD),
        ("Conflicts 冲突", "Conflicts 冲突", "conflict_count", NONE_IS_GOOD),
    ):
        shown = {"calcs": ["lastNotNull"], "fields": f"/^{column}$/", "values": False}
        grid.add("stat", title, [sql(query)], 4, 5, defaults=defaults, reduceOptions=shown)
    for title, metric, defaults in (
        ("Terminals logged in 在线终端", "lingdian_sessions", {}),
        ("Contested addresses 地址冲突", "lingdian_sessions_contested", NONE_IS_GOOD),
        ("Terminal clocks off 终端时钟超差", "lingdian_terminal_clocks_off", NONE_IS_GOOD),
    ):
        shown = {"calcs": ["lastNotNull"], "values": False}
        grid.add(
            "stat", title, prometheus(now=f"sum({metric})"), 4, 5, defaults=defaults, reduceOptions=shown
        )


def _readings(grid: Grid) -> None:
    grid.add(
        "barchart",
        "Each midnight: stored and missing 每日已采与缺数",
        [sql("days")],
        12,
        9,
        stacking="normal",
        xField="Business day 业务日",
        columns={
            "Due 应采": {"custom.hideFrom": {"viz": True, "legend": True, "tooltip": False}},
            "Complete 完整率": {
                "custom.hideFrom": {"viz": True, "legend": True, "tooltip": False},
                **PERCENT,
            },
            "Stored 已采": {"color": {"mode": "fixed", "fixedColor": "green"}},
            "Missing 缺数": {"color": {"mode": "fixed", "fixedColor": "red"}},
        },
    )
    grid.add(
        "table",
        "Why they are missing, last midnight 最近零点缺数原因",
        [sql("reasons")],
        12,
        9,
        columns={"Reason 原因": {"mappings": REASON_WORDS, "custom.width": 420}},
        description="What to do about each: docs/operations.md 处理办法见 docs/operations.md",
    )
    grid.add(
        "table",
        "Areas, worst first 台区完整率（由低到高）",
        [sql("areas")],
        12,
        10,
        columns={"Complete 完整率": GAUGE_CELL},
    )
    grid.add(
        "table",
        "Terminals, worst first 终端完整率（由低到高）",
        [sql("terminals")],
        12,
        10,
        columns={"Complete 完整率": GAUGE_CELL},
    )
    grid.add("table", "Readings by source and quality 示值的来源与质量", [sql("qualities")], 12, 9)
    grid.add(
        "barchart",
        "Late reads: over 24 h after midnight 补抄（零点后超过 24 小时）",
        [sql("late_days")],
        12,
        9,
        xField="Business day 业务日",
    )
    grid.add(
        "table",
        "Latest of the late reads 最迟的补抄",
        [sql("late")],
        24,
        8,
        columns={"Late by 迟": {"unit": "dtdurations"}},
    )
    grid.add(
        "table",
        "Conflicts: what stands and what was kept aside 冲突：现值与另存值",
        [sql("conflicts")],
        24,
        8,
    )


def _gateway(grid: Grid) -> None:
    grid.add(
        "timeseries",
        "Rows committed 入库速率",
        prometheus(rows_示值="sum(" + rate("lingdian_write_rows_total") + ")"),
        8,
        8,
        unit="rowsps",
    )
    grid.add(
        "timeseries",
        "One batch, from COPY to COMMIT 批次耗时",
        prometheus(
            median_中位=percentile(0.5, "lingdian_write_seconds"),
            p99=percentile(0.99, "lingdian_write_seconds"),
        ),
        8,
        8,
        unit="s",
    )
    grid.add(
        "timeseries",
        "Rows waiting, batches tried again 待写与重试",
        prometheus(
            waiting_待写="sum(lingdian_write_queue_rows)",
            tried_again_重试="sum(increase(lingdian_write_retries_total[$__rate_interval]))",
        ),
        8,
        8,
    )
    grid.add(
        "timeseries",
        "Sessions 会话",
        prometheus(
            connections_连接="sum(lingdian_connections)",
            logged_in_在线="sum(lingdian_sessions)",
            contested_冲突="sum(lingdian_sessions_contested)",
        ),
        8,
        8,
    )
    grid.add(
        "timeseries",
        "Logins and takeovers 登录与接管",
        prometheus(
            logins_登录="sum(" + rate("lingdian_logins_total") + ")",
            unknown_未登记="sum(" + rate("lingdian_logins_unknown_total") + ")",
            takeovers_接管="sum(" + rate("lingdian_takeovers_total") + ")",
        ),
        8,
        8,
        unit="cps",
    )
    grid.add(
        "timeseries",
        "Missing in the newest collection 最近一次采集的缺数",
        prometheus(due_应采="sum(lingdian_collection_due)", missing_缺数="sum(lingdian_collection_missing)"),
        8,
        8,
    )
    grid.add(
        "timeseries",
        "Exchanges by how they ended 召测结果",
        prometheus(by_outcome="sum by (outcome) (" + rate("lingdian_exchanges_total") + ")"),
        8,
        8,
        unit="cps",
    )
    grid.add(
        "timeseries",
        "From request to whole answer 应答时间",
        prometheus(
            median_中位=percentile(0.5, "lingdian_exchange_seconds"),
            p95=percentile(0.95, "lingdian_exchange_seconds"),
        ),
        8,
        8,
        unit="s",
    )
    grid.add(
        "timeseries",
        "Frames and damage 帧与损坏",
        prometheus(
            by_direction="sum by (direction) (" + rate("lingdian_frames_total") + ")",
            damaged_损坏="sum(" + rate("lingdian_damaged_total") + ")",
        ),
        8,
        8,
        unit="cps",
    )
    grid.add(
        "timeseries",
        "Failures by reason 失败原因",
        prometheus(by_reason="sum by (reason) (" + rate("lingdian_failures_total") + ") > 0"),
        12,
        8,
        unit="cps",
    )
    grid.add(
        "table",
        "Terminals that are not in the assets 未登记的终端",
        [sql("unregistered")],
        12,
        8,
    )


def dashboard() -> Json:
    """The whole of it, as Grafana reads it."""
    grid = Grid()
    _stats(grid)
    _readings(grid)
    _gateway(grid)
    return {
        "uid": "lingdian-midnight",
        "title": "Midnight 零点",
        "tags": ["lingdian"],
        "timezone": "Asia/Shanghai",
        "schemaVersion": 39,
        "version": 1,
        "editable": False,
        "graphTooltip": 1,
        "time": {"from": "now-7d", "to": "now"},
        "refresh": "5m",
        "templating": {"list": []},
        "annotations": {"list": []},
        "panels": grid.panels,
    }


def targets() -> Iterator[tuple[str, Json]]:
    """Every query with the title of its panel."""
    for panel in dashboard()["panels"]:
        for target in panel["targets"]:
            yield panel["title"], target


def text() -> str:
    return json.dumps(dashboard(), ensure_ascii=False, indent=2) + "\n"


if __name__ == "__main__":
    FILE.write_text(text(), encoding="utf-8")
