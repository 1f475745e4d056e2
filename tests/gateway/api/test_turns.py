"""A storm of trips waits; a close does not, whatever stands before it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from fastapi import FastAPI
from httpx import ASGITransport, AsyncClient

from gateway.api import parts, problems, turns
from gateway.api.parts import TRIPS_AT_A_TIME, Turns
from gateway.api.turns import Turn, Way
from gateway.control.right_of_way import RightOfWay
from tests.gateway.session.stage import until


class Gate:
    """Stands for Parts, whose other parts no turn needs, and holds whoever is at work."""

    def __init__(self) -> None:
        self.turns = Turns()
        self.way = RightOfWay()
        self.open = asyncio.Event()
        self.at_work: list[Any] = []

    def control(self) -> Any:
        return self


def app_of(gate: Gate) -> FastAPI:
    app = FastAPI()
    problems.install(app)
    app.dependency_overrides[parts._parts] = lambda: gate

    @app.post("/ask")
    async def ask(turn: Turn, body: dict[str, Any], way: Way) -> str:
        gate.at_work.append(body)
        await gate.open.wait()
        return "done"

    return app


TRIP = {"action": "trip"}


async def until_at_work(gate: Gate, count: int) -> None:
    await until(lambda: len(gate.at_work) >= count, 10.0)


async def test_closes_pass_a_storm_of_trips() -> None:
    gate = Gate()
    async with AsyncClient(transport=ASGITransport(app_of(gate)), base_url="http://gateway") as client:
        storm = [asyncio.create_task(client.post("/ask", json=TRIP)) for _ in range(50)]
        await until_at_work(gate, TRIPS_AT_A_TIME)
        paid = [
            {"action": "close"},
            {"action": "restore"},
            {"action": "permit-close"},
            {"commands": [{"action": "close"}]},
        ]
        closes = [asyncio.create_task(client.post("/ask", json=body)) for body in paid]
        await until_at_work(gate, TRIPS_AT_A_TIME + len(paid))
        assert sorted(gate.at_work[TRIPS_AT_A_TIME:], key=str) == sorted(paid, key=str)
        gate.open.set()
        assert {answer.status_code for answer in await asyncio.gather(*storm, *closes)} == {200}
    assert gate.turns.waiting == 0
    assert gate.turns.free._value == TRIPS_AT_A_TIME


@pytest.mark.parametrize(
    "body",
    [
        TRIP,
        {"commands": [{"action": "close"}, TRIP]},
        {"commands": []},
        {"commands": [{"commands": [{"action": "close"}]}]},
        {"commands": "close"},
        {"action": "keep-power"},
        {"action": ["close"]},
        {"action": {}},
        {},
    ],
)
async def test_whatever_is_no_close_takes_its_turn(
    body: dict[str, Any],
) -> None:
    gate = Gate()
    async with AsyncClient(transport=ASGITransport(app_of(gate)), base_url="http://gateway") as client:
        asked = [asyncio.create_task(client.post("/ask", json=body)) for _ in range(TRIPS_AT_A_TIME + 1)]
        await until_at_work(gate, TRIPS_AT_A_TIME)
        for _ in range(100):
            await asyncio.sleep(0)
        assert len(gate.at_work) == TRIPS_AT_A_TIME
        gate.open.set()
        await asyncio.gather(*asked)


async def test_while_a_close_is_on_its_way_no_trip_begins() -> None:
    gate = Gate()
    gate.way = way = RightOfWay(frame_s=1.0, hold_s=60.0)
    async with AsyncClient(transport=ASGITransport(app_of(gate)), base_url="http://gateway") as client:
        close = asyncio.create_task(client.post("/ask", json={"action": "close"}))
        await until_at_work(gate, 1)
        trip = asyncio.create_task(client.post("/ask", json=TRIP))
        second = asyncio.create_task(client.post("/ask", json={"commands": [{"action": "restore"}]}))
        await until_at_work(gate, 2)
        await asyncio.sleep(0.05)
        assert TRIP not in gate.at_work
        gate.open.set()
        await asyncio.gather(close, second)
        assert not way.clear, "its frame has not left yet"
        assert TRIP not in gate.at_work
        assert (await trip).status_code == 200


@pytest.mark.parametrize("action", ["trip", "close"])
async def test_the_sweep_goes_slower_while_a_relay_is_asked_for(action: str) -> None:
    gate = Gate()
    slower: list[str] = []

    @contextmanager
    def beside() -> Iterator[None]:
        slower.append("begins")
        yield
        slower.append("ends")

    gate.way = RightOfWay(beside=beside, frame_s=0.0)
    async with AsyncClient(transport=ASGITransport(app_of(gate)), base_url="http://gateway") as client:
        asked = asyncio.create_task(client.post("/ask", json={"action": action}))
        await until_at_work(gate, 1)
        assert slower == ["begins"]
        gate.open.set()
        await asked
        await until(lambda: slower == ["begins", "ends"])


async def test_too_many_are_turned_away_and_a_close_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate()
    monkeypatch.setattr(turns, "MOST_WAITING", 3)
    async with AsyncClient(transport=ASGITransport(app_of(gate)), base_url="http://gateway") as client:
        waiting = [asyncio.create_task(client.post("/ask", json=TRIP)) for _ in range(TRIPS_AT_A_TIME + 3)]
        await until(lambda: gate.turns.waiting >= 3, 10.0)
        answer = await client.post("/ask", json=TRIP)
        assert (answer.status_code, answer.json()["type"]) == (503, "urn:lingdian:problem:too-many-trips")
        gate.open.set()
        assert (await client.post("/ask", json={"action": "close"})).status_code == 200
        await asyncio.gather(*waiting)


async def test_one_who_goes_away_while_he_waits_takes_no_turn() -> None:
    gate = Gate()
    async with AsyncClient(transport=ASGITransport(app_of(gate)), base_url="http://gateway") as client:
        asked = [asyncio.create_task(client.post("/ask", json=TRIP)) for _ in range(TRIPS_AT_A_TIME + 5)]
        await until_at_work(gate, TRIPS_AT_A_TIME)
        for one in asked[TRIPS_AT_A_TIME:]:
            one.cancel()
        await asyncio.gather(*asked[TRIPS_AT_A_TIME:], return_exceptions=True)
        gate.open.set()
        await asyncio.gather(*asked[:TRIPS_AT_A_TIME])
        assert (await client.post("/ask", json=TRIP)).status_code == 200
    assert (gate.turns.waiting, gate.turns.free._value) == (0, TRIPS_AT_A_TIME)
