"""docs/security.md against the live interface: every route, every role, and what belongs to another."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any, Final

import httpx
import pytest

from gateway.api import app as api
from gateway.api import stream as stream_route
from gateway.api.auth import caller_of
from gateway.api.fanout import Watcher
from gateway.storage import outbox
from gateway.storage.clients import Scope
from tests.gateway.api.house import EAST, NOON, TRIP, WEST, House, asked

pytestmark = pytest.mark.database

DOCUMENT: Final = Path(__file__).parents[3] / "docs" / "security.md"
ROLES: Final = ("no token", "read", "control", "approve", "admin")
COLUMNS: Final = ("Route", *ROLES, "foreign", "unix socket")


def _table() -> dict[str, dict[str, str]]:
    """The document's table: cells by route and column."""
    rows = [
        [cell.strip() for cell in line.strip("|\n").split("|")]
        for line in DOCUMENT.read_text(encoding="utf-8").splitlines()
        if line.startswith("|") and not line.startswith("|---")
    ]
    assert tuple(rows[0]) == COLUMNS
    routes = {row[0]: dict(zip(COLUMNS[1:], row[1:], strict=True)) for row in rows[1:]}
    assert len(routes) == len(rows) - 1, "a route stands in the table twice"
    return routes


TABLE: Final = _table()


def _routes(app: Any) -> Iterator[str]:
    for path, methods in app.openapi()["paths"].items():
        for method in methods:
            yield f"{method.upper()} {path}"


@dataclass
class Sample:
    """One request that makes sense for a route; `{…}` in the path is filled from what the eastern side made.

    shows: what of the east a list would show.
    """

    body: Any = None
    query: dict[str, str] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    shows: str = ""


KEY: Final = {"idempotency-key": "sample"}
WHY: Final = {"reason": "storm"}
SAMPLES: Final[dict[str, Sample]] = {
    "GET /healthz": Sample(),
    "GET /readyz": Sample(),
    "GET /metrics": Sample(),
    "GET /api/v1/collections/{day}": Sample(query={"terminal": "02000001"}),
    "POST /api/v1/collections/{day}": Sample({"terminals": ["02000001"]}),
    "GET /api/v1/terminals": Sample(shows="02000001"),
    "POST /api/v1/assets/reload": Sample(),
    "POST /api/v1/terminals/{terminal}/clock": Sample({}),
    "POST /api/v1/terminals/{terminal}/archive": Sample({}),
    "POST /api/v1/meters/{address}/read": Sample({"items": ["forward_active"]}),
    "GET /api/v1/terminal-events": Sample(shows="02000001"),
    "POST /api/v1/terminal-events/acknowledge": Sample({"ids": [1]}),
    "GET /api/v1/relay-commands": Sample(shows="E1"),
    "POST /api/v1/relay-commands": Sample(TRIP | {"meter": "E3"}, headers=KEY),
    "GET /api/v1/relay-commands/{command_id}": Sample(),
    "GET /api/v1/relay-commands/{command_id}/timeline": Sample(),
    "GET /api/v1/relay-commands/{command_id}/evidence": Sample(),
    "POST /api/v1/relay-commands/{command_id}/cancel": Sample(),
    "POST /api/v1/relay-commands/{command_id}/approve": Sample(),
    "POST /api/v1/relay-commands/{command_id}/field-report": Sample(
        {"energised": False, "at": NOON.isoformat()}
    ),
    "GET /api/v1/ticket-key": Sample(),
    "POST /api/v1/relay-commands/{command_id}/ticket": Sample(
        {"machine": "ab" * 32, "now": NOON.isoformat()}, headers=KEY
    ),
    "POST /api/v1/relay-commands/{command_id}/direct-evidence": Sample({"evidence": {}}),
    "POST /api/v1/relay-batches": Sample(
        {"commands": [TRIP | {"meter": "E2"}], "dry_run": True}, shows='"customer":"C-E2"'
    ),
    "GET /api/v1/relay-batches/{batch_id}": Sample(),
    "POST /api/v1/relay-batches/{batch_id}/approve": Sample(),
    "POST /api/v1/relay-batches/{batch_id}/cancel": Sample(),
    "GET /api/v1/field-orders": Sample(shows="E1"),
    "GET /api/v1/control-blocks": Sample(shows="C-E3"),
    "POST /api/v1/control-blocks": Sample(
        {"customer": "C-E3", "kind": "other", "source": "s", "since": NOON.isoformat()}
    ),
    "GET /api/v1/control-blocks/{block_id}": Sample(),
    "POST /api/v1/control-blocks/{block_id}/lift": Sample(WHY),
    "GET /api/v1/switches": Sample(shows=EAST),
    "POST /api/v1/switches/brake/pull": Sample(WHY),
    "POST /api/v1/switches/brake/release": Sample(WHY),
    "POST /api/v1/switches/weather-halt": Sample(WHY | {"on": True, "area": "东一台区"}),
    "POST /api/v1/switches/limits": Sample(WHY | {"area": 1, "requester": 1, "all": 1}),
    "POST /api/v1/switches/shadow": Sample(WHY | {"on": True, "organisation": EAST}),
    "POST /api/v1/switches/hold/release": Sample(WHY),
    "POST /api/v1/switches/{setting_id}/approve": Sample(),
    "GET /api/v1/webhooks": Sample(shows="billing.example"),
    "POST /api/v1/webhooks": Sample({"url": "https://billing.example/"}),
    "GET /api/v1/webhooks/{webhook_id}": Sample(),
    "GET /api/v1/webhooks/{webhook_id}/dead-letters": Sample(),
    "POST /api/v1/webhooks/{webhook_id}/replay": Sample({"after": 0}),
    "DELETE /api/v1/webhooks/{webhook_id}": Sample(),
    # a place that was not given out is refused behind the token's door, and no stream stays open
    "GET /api/v1/events": Sample(headers={"last-event-id": "x"}),
}
"""In the order in which they are sent: what ends an object comes behind what needs it."""


async def made(house: House) -> dict[str, str]:
    """What the eastern side owns: an object for each parameter of a path."""
    await house.live()
    # the owner of the webhook is the role `control`, whose own it is
    east = await house.client("owner", organisation=EAST)
    command = await asked(east, "k1")
    batch = await east.post(
        "/api/v1/relay-batches",
        json={"commands": [TRIP | {"meter": "E2", "action": "close"}]},
        headers={"idempotency-key": "b1"},
    )
    block = await east.post(
        "/api/v1/control-blocks",
        json={"customer": "C-E3", "kind": "medical", "source": "s", "since": NOON.isoformat()},
    )
    await house.rows(
        "INSERT INTO field_order (meter_id, command_id, opened_at, why)"
        " SELECT meter_id, command_id, %s, 'not_supported' FROM relay_command WHERE command_id = %s",
        NOON,
        command["id"],
    )
    await house.rows(
        "INSERT INTO event (received_at, terminal_id, class, pointer, erc, pushed, contested, needs_person,"
        " detail, raw) SELECT %s, terminal_id, (SELECT min(code) FROM event_class), 0, 4, true, false, true,"
        " '[]', '\\x04' FROM terminal WHERE address = '02000001'",
        NOON,
    )
    control = await house.client("control", [Scope.CONTROL])
    hook = await control.post("/api/v1/webhooks", json={"url": "https://billing.example/"})
    setting = await east.post("/api/v1/switches/shadow", json=WHY | {"on": False, "organisation": EAST})
    house.parts.collections.start(date(2026, 11, 23), ["02000001"])
    for answer in (batch, block, hook, setting):
        assert answer.is_success, answer.text
    return {
        "day": "2026-11-23",
        "terminal": "02000001",
        "address": "000000000001",
        "command_id": command["id"],
        "batch_id": batch.json()["id"],
        "block_id": str(block.json()["id"]),
        "setting_id": str(setting.json()["id"]),
        "webhook_id": str(hook.json()["id"]),
    }


async def send(http: httpx.AsyncClient, route: str, filling: dict[str, str]) -> httpx.Response:
    sample = SAMPLES[route]
    method, path = route.split()
    path = re.sub(r"\{(\w+)\}", lambda found: filling[found[1]], path)
    return await http.request(method, path, json=sample.body, params=sample.query, headers=sample.headers)


def kind(answer: httpx.Response) -> str:
    return str(answer.json()["type"]).rpartition(":")[2]


@pytest.mark.parametrize("face", ["socket", "tcp"])
def test_the_table_has_every_route_and_no_other(house: House, face: str) -> None:
    app = api.full(house.parts) if face == "socket" else api.by_token(house.parts, private=True)
    assert set(_routes(app)) == set(TABLE) == set(SAMPLES)


@pytest.mark.parametrize("role", ROLES)
async def test_a_role_may_do_what_the_table_says_and_nothing_else(house: House, role: str) -> None:
    filling = await made(house)
    http = await (house.bearer(None) if role == "no token" else house.client(role, [Scope(role)]))
    for route in SAMPLES:
        answer = await send(http, route, filling)
        cell = TABLE[route][role]
        if cell == "yes":
            assert answer.status_code not in (401, 403, 404, 405, 500), (route, answer.text)
        else:
            assert answer.status_code == int(cell), (route, answer.text)
            wanted = {"401": "token-needed", "403": "scope-needed"}[cell]
            assert kind(answer) == wanted, (route, answer.text)


async def test_what_is_anothers_is_not_found_or_not_shown(house: House) -> None:
    filling = await made(house)
    west = await house.client("west", organisation=WEST)
    before = await _everything(house)
    for route, sample in SAMPLES.items():
        cell = TABLE[route]["foreign"]
        if cell == "–":
            continue
        answer = await send(west, route, filling)
        if cell == "none" and sample.shows:
            assert answer.is_success, (route, answer.text)
            assert sample.shows not in answer.text, (route, answer.text)
            owner = await house.client("control" if "webhooks" in route else "owner", organisation=EAST)
            assert sample.shows in (await send(owner, route, filling)).text, f"{route} shows nothing at all"
        elif cell != "none":
            assert answer.status_code == int(cell), (route, answer.text)
            if cell == "403":
                assert kind(answer) == "all-organisations-needed"
    assert await _everything(house) == before


async def _everything(house: House) -> list[object]:
    return [
        await house.rows(f"SELECT * FROM {table} ORDER BY 1")
        for table in (
            "relay_command",
            "relay_batch",
            "control_block",
            "control_setting",
            "field_order",
            "webhook",
            "event",
            "audit",
        )
    ]


async def test_a_stream_shows_nothing_of_another(house: House) -> None:
    assert TABLE["GET /api/v1/events"]["foreign"] == "none"
    await house.tell("a.east")
    await house.tell("a.west", organisation=WEST)
    await outbox.give_places(house.database)
    await house.parts.fanout._hand_on(house.database)
    token = await house.token("west", organisation=WEST)
    west = await caller_of(house.parts, token, [Scope.READ])
    request: Any = None
    seen = []
    async for event in stream_route._events(
        house.parts, west, Watcher(west.organisations), 0, token, request
    ):
        if event.comment is not None:
            break
        seen.append(event.event)
    assert seen == ["a.west"]


async def test_the_socket_does_everything(house: House) -> None:
    filling = await made(house)
    http = await house.at_socket("Li")
    for route in SAMPLES:
        assert TABLE[route]["unix socket"] == "yes"
        answer = await send(http, route, filling)
        assert answer.status_code not in (401, 403, 404, 405, 500), (route, answer.text)


def test_a_route_without_a_row_would_be_seen(house: House) -> None:
    app = api.by_token(house.parts, private=True)

    @app.get("/api/v1/new")
    async def new() -> None: ...

    assert set(_routes(app)) != set(TABLE)
