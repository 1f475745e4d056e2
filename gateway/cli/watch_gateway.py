"""What `lingdian watch` shows of a running gateway: looks over its HTTP interface, painted."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final

from prometheus_client.parser import text_string_to_metric_families
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from gateway.cli.client import Gateway, Refusal
from gateway.cli.relay_words import command_line
from gateway.clock import business_day, to_device
from gateway.command import ENDS, State

NEWEST: Final = 10
"""Events and relay commands that are shown."""

COUNTED: Final = 200
"""Open commands of one state that are counted; beyond it is said that there are more."""

EVENT_PAGE: Final = 500
EVENT_PAGES: Final = 20
"""of one look; what is behind them comes with the next"""

EVENTS_BACK: Final = (timedelta(hours=1), timedelta(days=1))
"""How far back the first look goes; the second where the first finds nothing."""

PATIENCE: Final = 20.0
"""The list of terminals, which is long, is asked for again after so many times what it took."""

OPEN: Final = tuple(state for state in State if state not in ENDS)

STATE_ZH: Final = {
    State.REQUESTED: "已申请",
    State.HELD: "待批准",
    State.QUEUED: "待下发",
    State.SENDING: "下发中",
    State.UNCERTAIN: "结果未知",
    State.ACKNOWLEDGED: "已确认待核实",
    State.FIELD: "待现场处理",
}


@dataclass(frozen=True, slots=True)
class Look:
    """What was seen at one moment; a part is None where the gateway did not tell it."""

    at: datetime
    ready: bool
    terminals: dict[str, int] | None
    collection: dict[str, Any]
    relay: dict[str, Any] | None
    events: list[dict[str, Any]] | None
    """the newest first"""
    troubles: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        return {
            "at": self.at.isoformat(timespec="seconds"),
            "ready": self.ready,
            "terminals": self.terminals,
            "collection": self.collection,
            "relay": self.relay,
            "events": self.events,
            "troubles": list(self.troubles),
        }


@dataclass(slots=True)
class Lookout:
    """Looks again and again. NoGateway where the gateway is away, Refusal where it takes no token of ours."""

    gateway: Gateway
    _terminals: dict[str, int] | None = None
    _terminals_again: float = 0.0
    _rows: tuple[float, float] | None = None
    _events: deque[dict[str, Any]] = field(default_factory=lambda: deque(maxlen=NEWEST))
    _cursor: int = 0
    _troubles: list[str] = field(default_factory=list)

    def look(self) -> Look:
        self._troubles = []
        metrics = _metrics(self.gateway.file("/metrics").decode())
        terminals = self._part("terminals 终端", self._look_at_terminals)
        relay = self._part("relay commands 费控命令", self._look_at_relay)
        events = self._part("events 事件", self._look_at_events)
        return Look(
            datetime.now(UTC),
            metrics.get("lingdian_ready") == 1,
            terminals,
            self._collection(metrics),
            relay,
            events,
            tuple(self._troubles),
        )

    def forget(self) -> None:
        """The gateway that comes next may be another one, with other events."""
        self._terminals, self._rows, self._cursor = None, None, 0
        self._events.clear()

    def _part(self, name: str, ask: Any) -> Any:
        """One part; where the gateway refuses it, that is said and the rest goes on."""
        try:
            return ask()
        except Refusal as error:
            if error.status == 401:
                raise
            self._troubles.append(f"{name}: {error}")
            return None

    def _look_at_terminals(self) -> dict[str, int]:
        began = time.monotonic()
        if self._terminals is not None and began < self._terminals_again:
            return self._terminals
        told = self.gateway.get("/api/v1/terminals")
        ended = time.monotonic()
        self._terminals_again = ended + PATIENCE * (ended - began)
        known = told["terminals"]
        online = sum(bool(one["online"]) for one in known)
        self._terminals = {
            "known": len(known),
            "online": online,
            "offline": len(known) - online,
            "contested": sum(bool(one["contested"]) for one in known),
            "unregistered": len(told["unregistered"]),
        }
        return self._terminals

    def _collection(self, metrics: dict[str, float]) -> dict[str, Any]:
        due = int(metrics.get("lingdian_collection_due", 0))
        missing = int(metrics.get("lingdian_collection_missing", 0))
        midnight = metrics.get("lingdian_collection_midnight_seconds", 0)
        return {
            "day": _day(midnight).isoformat() if midnight else None,
            "running": int(metrics.get("lingdian_collections_running", 0)),
            "due": due,
            "collected": due - missing,
            "missing": missing,
            "percent": round(100 * (due - missing) / due, 2) if due else None,
            "readings_per_second": self._speed(metrics.get("lingdian_write_rows_total", 0)),
        }

    def _speed(self, rows: float) -> float | None:
        """Rows filed a second since the look before; None at the first, and after a restart."""
        now = time.monotonic()
        before, self._rows = self._rows, (now, rows)
        if before is None or rows < before[1] or now <= before[0]:
            return None
        return round((rows - before[1]) / (now - before[0]), 1)

    def _look_at_relay(self) -> dict[str, Any]:
        path = "/api/v1/relay-commands"
        counts, more = {}, []
        for state in OPEN:
            page = self.gateway.get(path, state=state.value, limit=COUNTED)
            counts[state.value] = len(page["commands"])
            if page["next"] is not None:
                more.append(state.value)
        newest = self.gateway.get(path, limit=NEWEST)["commands"]
        return {"open": counts, "more": more, "newest": newest}

    def _look_at_events(self) -> list[dict[str, Any]]:
        if self._cursor:
            self._take_events({})
        else:
            for back in EVENTS_BACK:
                self._take_events({"since": (datetime.now(UTC) - back).isoformat()})
                if self._events:
                    break
        return list(reversed(self._events))

    def _take_events(self, query: dict[str, str]) -> None:
        for _ in range(EVENT_PAGES):
            page = self.gateway.get("/api/v1/terminal-events", after=self._cursor, limit=EVENT_PAGE, **query)
            self._events += page["events"]
            if page["events"]:
                self._cursor = page["events"][-1]["id"]
            if page["next"] is None:
                return


def _metrics(text: str) -> dict[str, float]:
    """The values that stand alone, by name."""
    return {
        sample.name: sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if not sample.labels
    }


def _day(midnight: float) -> date:
    return business_day(datetime.fromtimestamp(midnight, UTC) - timedelta(seconds=1))


def painted(look: Look, trouble: str = "") -> RenderableType:
    """For a screen, or as one snapshot. trouble: why what is shown is old."""
    parts: list[RenderableType] = []
    if trouble:
        parts.append(Text(f"{trouble}; trying again 正在重试", style="bold red"))
    shown = f"{to_device(look.at):%Y-%m-%d %H:%M:%S}"
    state = "ready 就绪" if look.ready else "NOT READY 未就绪: no database"
    parts.append(Text(f"{shown}  {state}", style="dim" if trouble else "bold"))
    parts += [Text(words, style="red") for words in look.troubles]
    parts += [_terminals(look), _collection_table(look), _relay(look), _events(look)]
    return Group(*parts)


def _terminals(look: Look) -> RenderableType:
    table = _table("online 在线", "offline 离线", "known 建档", "contested 地址冲突", "unregistered 未建档")
    if (told := look.terminals) is not None:
        names = ("online", "offline", "known", "contested", "unregistered")
        table.add_row(*(str(told[name]) for name in names))
    return _section("terminals 终端", table)


def _collection_table(look: Look) -> RenderableType:
    told = look.collection
    table = _table(
        "day 业务日", "due 应采", "collected 已采", "missing 缺", "rate 采集率", "readings/s 每秒", ""
    )
    percent, speed = told["percent"], told["readings_per_second"]
    table.add_row(
        told["day"] or "–",
        *(str(told[name]) for name in ("due", "collected", "missing")),
        "–" if percent is None else f"{percent:.2f} %",
        "–" if speed is None else f"{speed:.1f}",
        "running 进行中" if told["running"] else "",
    )
    return _section("newest collection 最近采集", table)


def _relay(look: Look) -> RenderableType:
    parts: list[RenderableType] = []
    if (told := look.relay) is not None:
        table = _table(*(f"{state.value} {STATE_ZH[state]}" for state in OPEN))
        counts, more = told["open"], told["more"]
        table.add_row(*(f"{counts[s.value]}{'+' if s.value in more else ''}" for s in OPEN))
        parts = [
            table,
            *(Text(command_line(one), overflow="ellipsis", no_wrap=True) for one in told["newest"]),
        ]
    title = "open relay commands, and the newest 未完成及最新费控命令"
    return _section(title, Group(*parts))


def _events(look: Look) -> RenderableType:
    lines = [Text(_event_line(one), overflow="ellipsis", no_wrap=True) for one in look.events or ()]
    return _section("newest events 最新事件", Group(*lines))


def _event_line(event: dict[str, Any]) -> str:
    place = event["terminal"]
    if event["pn"] is not None:
        place += f" p{event['pn']}" + (f" {event['meter']}" if event["meter"] else "")
    came = to_device(datetime.fromisoformat(event["received_at"]))
    words = f"{came:%m-%d %H:%M:%S}  {place}  ERC{event['erc']} {event['name']} {event['name_zh']}".rstrip()
    if event["needs_person"] and event["acknowledged_by"] is None:
        words += "; waits for a person 待处理"
    return words


def _section(title: str, content: RenderableType) -> RenderableType:
    """Without a frame, which a pipe would get too."""
    return Group(Text(""), Text(title, style="bold"), content)


def _table(*titles: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for title in titles:
        table.add_column(escape(title), no_wrap=True)
    return table
