"""Routes of relay commands over the real control code and a real database."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest

from gateway.api.remembered import KEPT
from gateway.command import Action, Command, State
from gateway.control.ask import Ask
from gateway.control.right_of_way import RightOfWay
from gateway.errors import StorageError
from gateway.storage.clients import Scope
from gateway.storage.database import Database
from tests.gateway.api.house import EAST, NOON, TRIP, WEST, House, asked, until
from tests.gateway.test_api import problem

pytestmark = pytest.mark.database

COMMANDS, BATCHES = "/api/v1/relay-commands", "/api/v1/relay-batches"
TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.fixture
async def east(house: House) -> httpx.AsyncClient:
    await house.live()
    return await house.client("billing-east", organisation=EAST)


@pytest.fixture
async def west(house: House) -> httpx.AsyncClient:
    return await house.client("billing-west", organisation=WEST)


def of(*meters: str, action: str = "trip") -> list[dict[str, Any]]:
    return [TRIP | {"meter": meter, "action": action} for meter in meters]


async def test_a_command_is_accepted_with_its_place_and_the_words_it_came_with(
    house: House, east: httpx.AsyncClient
) -> None:
    body = TRIP | {"work_order": "W-7", "label": "Li", "customer": "C-E1", "caused_by": "bill 3"}
    headers = {"idempotency-key": "k1", "traceparent": TRACE}
    answer = await east.post(COMMANDS, json=body, headers=headers)
    assert answer.status_code == 202
    found = answer.json()
    assert answer.headers["location"] == f"{COMMANDS}/{found['id']}"
    shown = {name: found[name] for name in ("meter", "action", "state", "why", "requester", "customer")}
    assert shown == {
        "meter": "E1",
        "action": "trip",
        "state": "queued",
        "why": None,
        "requester": "billing-east",
        "customer": "C-E1",
    }
    assert (found["trace"], found["work_order"], found["label"], found["caused_by"]) == (
        TRACE,
        "W-7",
        "Li",
        "bill 3",
    )
    assert (found["organisation"], found["area"], found["terminal"]) == (EAST, "东一台区", "02000001")
    assert (await east.get(answer.headers["location"])).json() == found


async def test_a_trace_that_is_none_is_dropped(east: httpx.AsyncClient) -> None:
    headers = {"idempotency-key": "k1", "traceparent": "00-xyz"}
    answer = await east.post(COMMANDS, json=TRIP, headers=headers)
    assert (answer.status_code, answer.json()["trace"]) == (202, "")


async def test_a_key_is_needed_makes_one_command_and_serves_one_body(
    house: House, east: httpx.AsyncClient
) -> None:
    problem(await east.post(COMMANDS, json=TRIP), 400, "key-needed")
    problem(await east.post(COMMANDS, json=TRIP, headers={"idempotency-key": " "}), 400, "key-needed")
    problem(await east.post(BATCHES, json={"commands": of("E1")}), 400, "key-needed")
    first = await asked(east, "k1")
    assert (await asked(east, "k1"))["id"] == first["id"]
    other = await east.post(COMMANDS, json=TRIP | {"cause": "theft"}, headers={"idempotency-key": "k1"})
    problem(other, 409, "key-reused")
    # another client's key of the same name is another key
    another = await house.client("another")
    assert (await asked(another, "k1", meter="E2"))["id"] != first["id"]
    assert (await house.rows("SELECT count(*) FROM relay_command")) == [(2,)]


async def test_an_address_serves_as_a_meter_where_it_is_unique(house: House, east: httpx.AsyncClient) -> None:
    assert (await asked(east, "k1", meter="000000000001"))["meter"] == "E1"
    await house.rows("UPDATE meter SET address = '000000000001' WHERE number = 'E2'")
    answer = await east.post(
        COMMANDS, json=TRIP | {"meter": "000000000001"}, headers={"idempotency-key": "k2"}
    )
    problem(answer, 409, "meter-ambiguous")


async def test_restore_is_resolved_at_acceptance(house: House, east: httpx.AsyncClient) -> None:
    await house.rows("UPDATE customer SET restore_mode = 'permit' WHERE cons_no = 'C-E2'")
    assert (await asked(east, "k1", action="restore"))["action"] == "close"
    assert (await asked(east, "k2", action="restore", meter="E2"))["action"] == "permit-close"


async def test_what_cannot_be_asked_is_refused_before_there_is_a_command(
    house: House, east: httpx.AsyncClient
) -> None:
    await house.rows("UPDATE meter SET relay_kind = 'none' WHERE number = 'E2'")
    for meter, why in (({"meter": "E2"}, "no_relay"), ({"meter": "nobody"}, "unknown_meter")):
        answer = await east.post(COMMANDS, json=TRIP | meter, headers={"idempotency-key": "k"})
        problem(answer, 422, "not-possible")
        assert answer.json()["why"] == why
    wrong: tuple[dict[str, Any], ...] = (
        {"customer": "C-E2"},
        {"action": "melt"},
        {"surprise": 1},
        {"expires_at": "2026-11-26T00:00:00"},
        {"expires_at": "0001-01-01T00:00:00+14:00"},
        {"cause": "a\0b"},
    )
    for body in wrong:
        answer = await east.post(COMMANDS, json=TRIP | body, headers={"idempotency-key": "k"})
        assert answer.status_code == 422, body
        assert answer.headers["content-type"] == "application/problem+json"
    assert (await house.rows("SELECT count(*) FROM relay_command")) == [(0,)]


async def test_a_refused_trip_is_a_command_that_says_why(east: httpx.AsyncClient) -> None:
    found = await asked(east, "k1", notice="")
    assert (found["state"], found["why"]) == ("refused", "no_notice")
    assert "通知" in found["why_text"]


async def test_a_command_is_taken_back_once_and_not_when_it_has_left(
    house: House, east: httpx.AsyncClient
) -> None:
    found = await asked(east, "k1")
    path = f"{COMMANDS}/{found['id']}/cancel"
    done = (await east.post(path, json={"reason": "paid"})).json()
    assert (done["state"], done["detail"]) == ("cancelled", "paid")
    assert (await east.post(path)).json()["state"] == "cancelled"
    sent = await asked(east, "k2", meter="E2")
    await house.rows("UPDATE relay_command SET state = 'uncertain' WHERE command_id = %s", sent["id"])
    problem(await east.post(f"{COMMANDS}/{sent['id']}/cancel"), 409, "not-now")


async def test_nobody_sees_or_touches_what_is_anothers(
    house: House, east: httpx.AsyncClient, west: httpx.AsyncClient
) -> None:
    found = await asked(east, "k1")
    mine = f"{COMMANDS}/{found['id']}"
    strange = f"{COMMANDS}/{uuid4()}"
    for path in (mine, strange):
        problem(await west.get(path), 404, "command-unknown")
        problem(await west.post(f"{path}/cancel"), 404, "command-unknown")
        problem(await west.post(f"{path}/approve"), 404, "command-unknown")
        report = {"energised": True, "at": NOON.isoformat()}
        problem(await west.post(f"{path}/field-report", json=report), 404, "command-unknown")
    assert (await west.get(COMMANDS)).json() == {"commands": [], "next": None}
    assert (await east.get(mine)).json()["state"] == "queued"
    # a meter of another is answered word for word as one that does not exist
    foreign = await west.post(COMMANDS, json=TRIP, headers={"idempotency-key": "k1"})
    unknown = await west.post(COMMANDS, json=TRIP | {"meter": "nobody"}, headers={"idempotency-key": "k2"})
    assert foreign.json() == {**unknown.json(), "detail": unknown.json()["detail"].replace("nobody", "E1")}
    assert foreign.status_code == unknown.status_code == 422


async def test_an_organisation_sees_those_below_it(house: House) -> None:
    await house.rows("INSERT INTO organisation (name) VALUES ('市')")
    await house.rows(
        "UPDATE organisation SET parent_id = (SELECT organisation_id FROM organisation WHERE name = '市')"
        " WHERE name = %s",
        EAST,
    )
    city = await house.client("city", organisation="市")
    assert (await asked(city, "k1"))["meter"] == "E1"
    answer = await city.post(COMMANDS, json=TRIP | {"meter": "W1"}, headers={"idempotency-key": "k2"})
    problem(answer, 422, "not-possible")


async def test_lists_go_page_by_page_the_newest_first(house: House, east: httpx.AsyncClient) -> None:
    made = []
    for number in range(5):
        house.clock.passes(1 if number % 2 else 0)  # two at the same instant
        made.append((await asked(east, f"k{number}", meter="E1", action="close"))["id"])
    seen: list[str] = []
    cursor = None
    for _ in range(3):
        query: dict[str, Any] = {"limit": 2} | ({} if cursor is None else {"cursor": cursor})
        page = (await east.get(COMMANDS, params=query)).json()
        seen += [one["id"] for one in page["commands"]]
        cursor = page["next"]
    assert cursor is None
    assert sorted(seen) == sorted(made)
    times = [(await east.get(f"{COMMANDS}/{one}")).json()["created_at"] for one in seen]
    assert times == sorted(times, reverse=True)
    for wrong in ("x", "!!", "MjAyNiB4", "/w=="):
        problem(await east.get(COMMANDS, params={"cursor": wrong}), 422, "bad-cursor")


async def test_lists_are_narrowed(house: House, east: httpx.AsyncClient) -> None:
    one = await asked(east, "k1")
    two = await asked(east, "k2", meter="E2", notice="")

    async def found(**query: str) -> list[str]:
        return [row["id"] for row in (await east.get(COMMANDS, params=query)).json()["commands"]]

    assert await found(meter="E2") == [two["id"]]
    assert await found(state="queued") == [one["id"]]
    assert await found(customer="C-E2") == [two["id"]]
    assert await found(since=(NOON + timedelta(seconds=1)).isoformat()) == []
    assert await found(meter="E\0") == []


# batches -----------------------------------------------------------------------------------------


async def test_a_batch_gives_one_result_a_meter(
    house: House, east: httpx.AsyncClient, west: httpx.AsyncClient
) -> None:
    body = {"commands": of("E1", "nobody", "W1", "E2") + of("E3", action="close")}
    answer = await east.post(BATCHES, json=body, headers={"idempotency-key": "b1", "traceparent": TRACE})
    assert answer.status_code == 202
    batch = answer.json()
    assert answer.headers["location"] == f"{BATCHES}/{batch['id']}"
    results = [(one["meter"], one["state"], one["why"]) for one in batch["results"]]
    assert results == [
        ("E1", "queued", None),
        ("nobody", None, "unknown_meter"),
        ("W1", None, "unknown_meter"),
        ("E2", "queued", None),
        ("E3", "queued", None),
    ]
    assert [one["meter"] for one in batch["dark"]] == ["E1", "E2"]
    assert (batch["held"], batch["states"]) == (False, {"queued": 3})
    again = await east.post(BATCHES, json=body, headers={"idempotency-key": "b1"})
    assert again.json() == batch
    assert (await east.get(f"{BATCHES}/{batch['id']}")).json() == batch
    problem(await west.get(f"{BATCHES}/{batch['id']}"), 404, "batch-unknown")
    listed = (await east.get(COMMANDS, params={"batch": batch["id"]})).json()["commands"]
    assert {one["trace"] for one in listed} == {TRACE}
    other = await east.post(BATCHES, json={"commands": of("E1")}, headers={"idempotency-key": "b1"})
    problem(other, 409, "key-reused")
    cancelled = (await east.post(f"{BATCHES}/{batch['id']}/cancel", json={"reason": "wrong file"})).json()
    assert cancelled["states"] == {"cancelled": 3}


async def test_a_dry_run_names_who_goes_dark_and_writes_nothing(
    house: House, east: httpx.AsyncClient
) -> None:
    commands = [*of("E1", "E2"), TRIP | {"meter": "E3", "notice": ""}]
    answer = await east.post(BATCHES, json={"commands": commands, "dry_run": True})
    assert answer.status_code == 200
    assert [one["customer"] for one in answer.json()["dark"]] == ["C-E1", "C-E2"]
    assert [(one["meter"], one["why"]) for one in answer.json()["refused"]] == [("E3", "no_notice")]
    for table in ("relay_command", "relay_batch"):
        assert (await house.rows(f"SELECT count(*) FROM {table}")) == [(0,)]


async def test_a_batch_over_a_limit_waits_for_a_second_person(house: House, east: httpx.AsyncClient) -> None:
    limits = {"area": 1, "requester": 9, "all": 9, "window_s": 3600}
    await house.rows(
        "INSERT INTO control_setting (name, value, set_by, set_at, approved_by, approved_at)"
        " VALUES ('limits', %s, 'boss', %s, 'two', %s)",
        json.dumps(limits),
        NOON,
        NOON,
    )
    made = await east.post(BATCHES, json={"commands": of("E1", "E2")}, headers={"idempotency-key": "b1"})
    batch = made.json()
    assert (batch["held"], batch["states"]) == (True, {"held": 2})
    assert len(batch["over"]) == 1
    one = batch["results"][0]["command"]
    approve = f"{BATCHES}/{batch['id']}/approve"
    problem(await east.post(approve), 409, "another-person-needed")
    boss = await house.client("boss", [Scope.APPROVE])
    problem(await boss.post(approve), 409, "another-person-needed")
    second = await house.client("second", [Scope.APPROVE], organisation=EAST)
    problem(await second.post(f"{COMMANDS}/{one}/approve"), 409, "not-now")
    assert (await second.post(approve)).json()["states"] == {"queued": 2}
    assert (await east.get(f"{COMMANDS}/{one}")).json()["approver"] == "second"


async def test_a_person_at_the_socket_gives_a_name_and_is_no_token(house: House) -> None:
    nameless = await house.at_socket()
    problem(await nameless.post(COMMANDS, json=TRIP, headers={"idempotency-key": "k"}), 422, "name-needed")
    person = await house.at_socket("Li")
    assert (await asked(person, "k1"))["requester"] == "person:Li"
    token = await house.client("li")
    assert (await asked(token, "k1", meter="E2"))["requester"] == "li"


async def test_field_orders_and_reports(
    house: House, east: httpx.AsyncClient, west: httpx.AsyncClient
) -> None:
    found = await asked(east, "k1", action="close")
    await house.rows("UPDATE relay_command SET state = 'field' WHERE command_id = %s", found["id"])
    await house.rows(
        "INSERT INTO field_order (meter_id, command_id, opened_at, why)"
        " SELECT meter_id, command_id, %s, 'not_supported' FROM relay_command",
        NOON,
    )
    listed = (await east.get("/api/v1/field-orders")).json()["field_orders"]
    assert [(one["command"], one["meter"]) for one in listed] == [(found["id"], "E1")]
    assert (await west.get("/api/v1/field-orders")).json()["field_orders"] == []
    report = {"energised": True, "at": NOON.isoformat(), "report": "light is on"}
    done = (await east.post(f"{COMMANDS}/{found['id']}/field-report", json=report)).json()
    assert (done["state"], done["why"]) == ("verified", "by_person")
    assert (await east.get("/api/v1/field-orders")).json()["field_orders"] == []
    closed = (await east.get("/api/v1/field-orders", params={"closed_too": True})).json()["field_orders"]
    assert closed[0]["closed_by"] == "field report"


async def test_trips_give_way_to_a_close_and_not_to_a_strangers(house: House) -> None:
    way = RightOfWay(frame_s=1.0)
    object.__setattr__(house.parts.control(), "way", way)
    bodies = {COMMANDS: TRIP | {"action": "close"}, BATCHES: {"commands": [TRIP | {"action": "close"}]}}
    nobody, reader = await house.bearer(None), await house.client("r", [Scope.READ])
    known = await house.client("x")
    for path, body in bodies.items():
        for http, status in ((nobody, 401), (reader, 403), (known, 202)):
            await until(lambda: way.clear)
            answer = await http.post(path, json=body, headers={"idempotency-key": "k"})
            assert answer.status_code == status, answer.text
            assert way.clear is (status != 202)


async def test_without_relay_control_the_routes_say_so(house: House) -> None:
    object.__setattr__(house.parts, "relay", None)
    http = await house.client("x")
    answer = await http.post(COMMANDS, json=TRIP, headers={"idempotency-key": "k"})
    problem(answer, 503, "no-relay-control")
    stranger = await house.bearer(None)
    for action in ("trip", "close"):
        answer = await stranger.post(COMMANDS, json=TRIP | {"action": action})
        assert answer.status_code == 401, "a stranger is not told what this gateway does"


# without the database -------------------------------------------------------------------------------


@dataclass
class Kept:
    command: Command
    meter: str = "E1"
    address: str = "000000000001"
    terminal: str = "02000001"


@dataclass
class StandInJournal:
    """Keeps closes of those who see all, as the real one does."""

    kept: dict[UUID, Kept] = field(default_factory=dict)

    async def accept(
        self, ask: Ask, by: str, key: str, *, because: StorageError, sees_all: bool, trace: str = ""
    ) -> Kept:
        if not sees_all or ask.verb not in (Action.CLOSE, "restore"):
            raise because
        command = Command(
            uuid4(), 1, Action.CLOSE, State.QUEUED, 1, 1, by, ask.cause, NOON, label=ask.label, trace=trace
        )
        self.kept[command.id] = Kept(command)
        return self.kept[command.id]

    def find(self, command_id: UUID) -> Kept | None:
        return self.kept.get(command_id)


async def test_without_the_database_closes_go_on_and_nothing_else(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = StandInJournal()
    assert house.parts.relay is not None
    house.parts = replace(house.parts, relay=replace(house.parts.relay, journal=journal))
    everywhere, east = await house.client("head-office"), await house.client("east", organisation=EAST)
    approver = await house.client("approver", [Scope.APPROVE])
    late = await house.client("late")
    for http in (everywhere, east, approver):
        await http.get(COMMANDS)

    @asynccontextmanager
    async def away(self: Database) -> AsyncIterator[None]:
        raise StorageError("the database is away")
        yield

    monkeypatch.setattr(Database, "connection", away)

    async def ask(http: httpx.AsyncClient, action: str) -> httpx.Response:
        headers = {"idempotency-key": "k", "traceparent": TRACE}
        return await http.post(COMMANDS, json=TRIP | {"action": action, "label": "Li"}, headers=headers)

    for action in ("close", "restore"):
        answer = await ask(everywhere, action)
        assert answer.status_code == 202, answer.text
        found = answer.json()
        assert (found["meter"], found["action"], found["requester"]) == ("E1", "close", "head-office")
        assert (found["label"], found["trace"], found["organisation"]) == ("Li", TRACE, None)
        assert (await everywhere.get(answer.headers["location"])).json() == found
        problem(await east.get(answer.headers["location"]), 503, "database")
    problem(await ask(everywhere, "trip"), 503, "database")
    problem(await ask(east, "close"), 503, "database")
    problem(await ask(late, "close"), 503, "database")  # never asked before: nobody knows whose it is
    problem(await ask(approver, "close"), 403, "scope-needed")
    problem(await everywhere.get(f"{COMMANDS}/{uuid4()}"), 503, "database")
    problem(await everywhere.get(COMMANDS), 503, "database")
    person = await house.at_socket("Li")
    assert (await ask(person, "close")).json()["requester"] == "person:Li"
    house.clock.passes(KEPT.total_seconds() + 1)
    problem(await ask(everywhere, "close"), 503, "database")
    assert len(journal.kept) == 3
