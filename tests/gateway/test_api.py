"""HTTP routes over stand-ins for the rooms below: what is asked of them, and what is answered."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import date
from typing import Any

import httpx
import pytest

from gateway.api import app as api
from gateway.api import meters as meter_routes
from gateway.api.runs import RUNS_AT_ONCE
from gateway.errors import LinkClosed, StorageError
from gateway.model import Kind, Quantity, Reason, Source
from gateway.session.meter import MeterItem, MeterRefusal
from gateway.session.terminal import ClockCheck, PresentReading
from tests.gateway.stand_ins import NOON, StandInHouse, StandInSession, stand_in_assets


@dataclass
class House(StandInHouse):
    """The stand-in gateway, and a client on its full face."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.http = client(api.full(self.parts))


@pytest.fixture
async def house(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[House]:
    stand_in_assets(monkeypatch)
    house = House()
    async with house.http:
        yield house
    await house.collections.close()


def client(app: Any) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://gateway")


def problem(response: httpx.Response, status: int, kind: str) -> str:
    """The detail of a problem of that kind."""
    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"
    body = response.json()
    assert body["type"] == f"urn:lingdian:problem:{kind}"
    assert body["status"] == status
    return str(body["detail"])


# health ------------------------------------------------------------------------------------------


async def test_health_readiness_and_metrics(house: House) -> None:
    assert (await house.http.get("/healthz")).text == "ok\n"
    assert (await house.http.get("/readyz")).json() == {"ready": True, "reason": None, "sessions": 1}
    house.trouble.append("the database is away")
    answer = await house.http.get("/readyz")
    assert answer.status_code == 503
    assert answer.json()["reason"] == "the database is away"
    exposition = await house.http.get("/metrics")
    assert exposition.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert "lingdian_sessions " in exposition.text


@pytest.mark.parametrize("private", [True, False])
async def test_without_a_token_tcp_offers_health_and_nothing_else(house: House, private: bool) -> None:
    house.session.check = ClockCheck(0.0, NOON, within_tolerance=True)
    async with client(api.by_token(house.parts, private=private)) as http:
        assert (await http.get("/healthz")).status_code == 200
        answers = [await http.get("/api/v1/terminals")] + [
            await http.post(path, json={})
            for path in (
                "/api/v1/collections/2026-11-23",
                "/api/v1/terminals/02001234/clock",
                "/api/v1/terminals/02001234/archive",
                "/api/v1/meters/000000000001/read",
                "/api/v1/assets/reload",
            )
        ]
        for answer in answers:
            problem(answer, *((401, "token-needed") if private else (403, "tls-needed")))
            assert answer.headers.get("www-authenticate") == ("Bearer" if private else None)
    assert not house.collector.calls
    assert not house.registry.reloads


# terminals ------------------------------------------------------------------------------------------


async def test_terminals_are_listed_with_strangers(house: House) -> None:
    listed = (await house.http.get("/api/v1/terminals")).json()
    assert [(one["terminal"], one["online"], one["points"]) for one in listed["terminals"]] == [
        ("02001234", True, 2),
        ("02009999", False, 0),
    ]
    assert listed["unregistered"][0]["address"] == "03030001"


async def test_a_clock_is_told_as_the_terminal_shows_it(house: House) -> None:
    house.session.check = ClockCheck(-86_400.0, NOON, within_tolerance=False)
    answer = await house.http.post("/api/v1/terminals/02001234/clock", json={"action": "check"})
    assert answer.json() == {
        "terminal": "02001234",
        "clock": "2026-11-23 12:00:00",
        "offset_seconds": -86_400.0,
        "read_at": "2026-11-24T04:00:00+00:00",
        "within_tolerance": False,
    }


async def test_a_terminal_that_does_not_tell_its_clock_is_a_problem(house: House) -> None:
    problem(await house.http.post("/api/v1/terminals/02001234/clock", json={}), 502, "terminal-silent")


async def test_a_clock_is_not_set_near_midnight(house: House) -> None:
    answer = await house.http.post("/api/v1/terminals/02001234/clock", json={"action": "set"})
    assert "midnight" in problem(answer, 422, "not-possible")


async def test_absent_and_unknown_terminals_are_told_apart(house: House) -> None:
    problem(await house.http.post("/api/v1/terminals/02009999/clock", json={}), 503, "terminal-absent")
    problem(await house.http.post("/api/v1/terminals/02005555/clock", json={}), 404, "terminal-unknown")


@pytest.mark.parametrize(
    ("fault", "status", "kind"),
    [
        (LinkClosed("reset"), 503, "terminal-absent"),
        (StorageError("away"), 503, "database"),
        (RuntimeError("secret inside"), 500, "unexpected"),
    ],
)
async def test_what_goes_wrong_below_is_a_problem(
    house: House, fault: Exception, status: int, kind: str
) -> None:
    house.session.fault = fault
    detail = problem(await house.http.post("/api/v1/terminals/02001234/clock", json={}), status, kind)
    assert "secret" not in detail


async def test_wrong_requests_are_problems_that_name_the_place(house: House) -> None:
    answer = await house.http.post("/api/v1/terminals/02001234/clock", json={"action": "smash"})
    assert "body.action" in problem(answer, 422, "bad-request")
    problem(await house.http.get("/api/v1/nothing"), 404, "not-found")
    problem(await house.http.put("/api/v1/terminals"), 405, "method-not-allowed")


async def test_an_archive_is_compared_pushed_and_read_back(house: House) -> None:
    path = "/api/v1/terminals/02001234/archive"
    before = (await house.http.post(path, json={"action": "diff"})).json()
    assert [(one["pn"], one["kind"]) for one in before["differences"]] == [(2, "missing"), (9, "surplus")]
    assert before["written"] == 0
    pushed = (await house.http.post(path, json={"action": "push"})).json()
    assert pushed["written"] == 1
    assert [(one["pn"], one["kind"]) for one in pushed["differences"]] == [(9, "surplus")]
    headers = {"x-requester": "zhang"}
    pruned = (await house.http.post(path, json={"action": "push", "prune": True}, headers=headers)).json()
    assert [(who, what) for _, who, what, _ in house.audit] == [
        ("", "write terminal archive"),
        ("zhang", "write terminal archive"),
    ]
    assert pruned["differences"] == []
    assert house.session.records[9].pn == 0


async def test_assets_are_read_again(house: House) -> None:
    assert (await house.http.post("/api/v1/assets/reload")).json() == {"reloaded": True}
    assert house.registry.reloads == 1


# meters ------------------------------------------------------------------------------------------


async def test_a_present_register_is_answered_and_filed_as_live(house: House) -> None:
    house.session.presents = [PresentReading(1, 1, NOON, (3_302_000, 0, 3_302_000, None, 0))]
    answer = await house.http.post("/api/v1/meters/000000000001/read", json={"items": ["forward_active"]})
    (item,) = answer.json()["items"]
    assert [value["value"] for value in item["values"]] == ["330.2000", "0.0000", "330.2000", None, "0.0000"]
    (row,) = house.writer.rows
    assert row[:9] == (1, Quantity.FORWARD_ACTIVE, Kind.LIVE, NOON, 3_302_000, 0, 3_302_000, None, 0)
    assert row[12] == Source.TERMINAL


@pytest.mark.parametrize(
    "present",
    [
        PresentReading(1, 1, None, (1,)),
        PresentReading(1, None, NOON, (1,)),
        PresentReading(1, 2, NOON, (1,)),
        PresentReading(1, 1, NOON, (None, 1)),
    ],
)
async def test_an_undated_or_strange_register_is_shown_and_not_filed(
    house: House, present: PresentReading
) -> None:
    house.session.presents = [present]
    answer = await house.http.post("/api/v1/meters/000000000001/read", json={"items": ["forward_active"]})
    assert answer.json()["items"][0]["reason"] is None
    assert not house.writer.rows


async def test_items_of_the_meter_itself(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    async def read_item(
        session: StandInSession, address: str, di: str, port: int
    ) -> MeterItem | MeterRefusal:
        assert (address, port) == ("000000000002", 31)
        if di == "00010000":
            return MeterItem(
                address, di, (("Forward active energy", "正向有功电能", "6.78", "kWh", "78060000"),), b"x"
            )
        return MeterRefusal(Reason.METER_SILENT, "no answer in 30 s")

    monkeypatch.setattr(meter_routes, "read_item", read_item)
    answer = await house.http.post(
        "/api/v1/meters/000000000002/read", json={"items": ["00010000", "04000503"]}
    )
    first, second = answer.json()["items"]
    assert (first["values"][0]["value"], first["values"][0]["unit"]) == ("6.78", "kWh")
    assert (second["reason"], second["detail"], second["values"]) == ("meter_silent", "no answer in 30 s", [])


async def test_a_meter_that_cannot_be_reached_or_is_not_unique(house: House) -> None:
    answer = await house.http.post("/api/v1/meters/000000000077/read", json={"items": ["00010000"]})
    problem(answer, 404, "meter-not-reachable")
    house.registry.held.append(StandInSession(address="02005678"))
    answer = await house.http.post("/api/v1/meters/000000000001/read", json={"items": ["00010000"]})
    assert "02005678 p1" in problem(answer, 409, "meter-ambiguous")


@pytest.mark.parametrize("item", ["voltage", "0001", "000100", "0001000g", ""])
async def test_items_that_are_none_are_refused_before_anybody_is_asked(house: House, item: str) -> None:
    answer = await house.http.post("/api/v1/meters/000000000001/read", json={"items": [item]})
    if item == "0001":  # a data identifier of the edition of 1997
        assert answer.status_code != 422
    else:
        problem(answer, 422, "item-unknown")


# collections ------------------------------------------------------------------------------------------


async def test_a_collection_is_started_joined_watched_and_ends(house: House) -> None:
    path = "/api/v1/collections/2026-11-23"
    problem(await house.http.get(path), 404, "no-collection")
    started = await house.http.post(path)
    assert started.status_code == 202
    assert started.headers["location"] == path
    await asyncio.sleep(0)
    joined = (await house.http.post(path)).json()
    assert (joined["state"], joined["due"], joined["collected"], joined["missing"]) == ("running", 10, 3, 7)
    assert house.collector.calls == [(date(2026, 11, 23), None)]
    house.collector.go.set()
    ended = (await house.http.get(path, params={"wait": 5})).json()
    assert ended["state"] == "done"
    assert (ended["due"], ended["collected"], ended["missing"]) == (10, 9, 1)
    assert (ended["meters"], ended["meters_complete"]) == (8, 7)
    assert ended["reasons"] == {"no_value_yet": 1}
    await house.http.post(path)
    await house.http.get(path, params={"wait": 5})
    assert len(house.collector.calls) == 2


@pytest.mark.parametrize("fault", [StorageError("the database is away"), RuntimeError("inside")])
async def test_a_collection_that_fails_says_so(house: House, fault: Exception) -> None:
    house.collector.fault = fault
    house.collector.go.set()
    await house.http.post("/api/v1/collections/2026-11-23")
    failed = (await house.http.get("/api/v1/collections/2026-11-23", params={"wait": 5})).json()
    assert failed["state"] == "failed"
    assert ("away" in failed["error"]) == isinstance(fault, StorageError)
    assert "inside" not in failed["error"]


@pytest.mark.parametrize("day", ["2026-11-24", "2027-01-01", "2026-09-22"])
async def test_days_that_cannot_be_collected_are_refused(house: House, day: str) -> None:
    problem(await house.http.post(f"/api/v1/collections/{day}"), 422, "day-out-of-range")


async def test_what_is_no_day_is_refused(house: House) -> None:
    problem(await house.http.post("/api/v1/collections/yesterday"), 422, "bad-request")


async def test_a_collection_at_some_terminals_is_another_one(house: House) -> None:
    path = "/api/v1/collections/2026-11-23"
    await house.http.post(path)
    some = await house.http.post(path, json={"terminals": ["0200ABCD", "02001234"]})
    assert some.json()["terminals"] == ["02001234", "0200abcd"]
    assert some.headers["location"] == f"{path}?terminal=02001234&terminal=0200abcd"
    assert (await house.http.get(some.headers["location"])).json()["state"] == "running"
    await asyncio.sleep(0)
    assert [terminals for _, terminals in house.collector.calls] == [None, ("02001234", "0200abcd")]
    for number in range(RUNS_AT_ONCE - 2):
        await house.http.post(path, json={"terminals": [f"{number:08d}"]})
    one_more = await house.http.post(path, json={"terminals": ["99999999"]})
    problem(one_more, 429, "too-many-collections")


async def test_a_stop_ends_what_runs(house: House) -> None:
    run = house.collections.start(date(2026, 11, 23))
    await asyncio.sleep(0)
    await house.collections.close()
    assert run.answer()["state"] == "failed"


async def test_the_description_is_openapi_31(house: House) -> None:
    described = (await house.http.get("/openapi.json")).json()
    assert described["openapi"].startswith("3.1")
    assert "/api/v1/collections/{day}" in described["paths"]
