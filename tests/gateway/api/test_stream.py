"""Server-sent events over real sockets: from any place on, without holes, or told where one is."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from gateway.api import app as api
from gateway.api import fanout as fanout_room
from gateway.api import stream as stream_route
from gateway.api.server import HttpServer
from gateway.storage import clients
from gateway.storage.clients import Scope
from tests.gateway.api.house import EAST, NOON, WEST, House, until
from tests.gateway.test_api import problem

pytestmark = pytest.mark.database

EVENTS = "/api/v1/events"


@pytest.fixture
async def served(house: House) -> AsyncIterator[str]:
    """The TCP face on a port of its own, and events handed on."""
    clock: Any = house.clock
    server = HttpServer.on_tcp(api.by_token(house.parts, private=True), "127.0.0.1", 0)
    serving = asyncio.create_task(server.serve())
    handing_on = asyncio.create_task(house.parts.fanout.run(house.database, clock))
    yield f"http://{server.address}"
    handing_on.cancel()
    server.stop()
    await asyncio.gather(serving, handing_on, return_exceptions=True)


@asynccontextmanager
async def watching(url: str, token: str, **headers: str) -> AsyncIterator[AsyncIterator[dict[str, str]]]:
    async with (
        httpx.AsyncClient(headers={"authorization": f"Bearer {token}"} | headers, timeout=20) as http,
        http.stream("GET", url + EVENTS) as response,
    ):
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/event-stream")
        yield _events(response.aiter_lines())


async def _events(lines: AsyncIterator[str]) -> AsyncIterator[dict[str, str]]:
    event: dict[str, str] = {}
    async for line in lines:
        if not line and event:
            yield event
            event = {}
        elif line.startswith(":"):
            yield {"comment": line[1:].strip()}
        elif line:
            name, _, value = line.partition(":")
            event[name] = value.removeprefix(" ")


async def take(events: AsyncIterator[dict[str, str]], count: int) -> list[dict[str, str]]:
    """So many events; comments are passed over."""
    found: list[dict[str, str]] = []
    async with asyncio.timeout(20):
        while len(found) < count:
            event = await anext(events)
            if "comment" not in event:
                found.append(event)
    return found


async def begun(events: AsyncIterator[dict[str, str]]) -> None:
    assert await anext(events) == {"comment": "watching"}


async def test_events_come_as_they_happen_and_are_ones_own(house: House, served: str) -> None:
    token = await house.token("east", [Scope.READ], EAST)
    await house.tell("a.before")
    await until(lambda: house.parts.fanout._place == 1)
    async with watching(served, token) as events:
        await begun(events)
        for number in range(3):
            await house.tell("a.b", subject=f"s{number}")
            await house.tell("a.west", organisation=WEST)
        found = await take(events, 3)
    assert [json.loads(one["data"])["subject"] for one in found] == ["s0", "s1", "s2"]
    assert [one["event"] for one in found] == ["a.b"] * 3
    assert [json.loads(one["data"])["sequence"] for one in found] == [one["id"] for one in found]


async def test_a_stream_goes_on_behind_its_last_event_without_a_hole(
    house: House, served: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream_route, "PAGE_EVENTS", 3)
    token = await house.token("all", [Scope.READ])
    await house.parts.fanout.begun()
    for number in range(8):
        await house.tell("a.b", subject=f"s{number}")
    seen: list[str] = []
    last = "0"
    for part in range(4):
        async with watching(served, token, **{"last-event-id": last}) as events:
            for number in range(3):  # more happens while what was missed is still being told
                await house.tell("a.b", subject=f"s{8 + part * 3 + number}")
            found = await take(events, 5)
        seen += [json.loads(one["data"])["subject"] for one in found]
        last = found[-1]["id"]
    assert seen == [f"s{number}" for number in range(20)]


async def test_a_slow_watcher_loses_events_and_is_told_where(house: House, served: str) -> None:
    await house.parts.fanout.begun()
    watcher = fanout_room.Watcher(None, asyncio.Queue(2))
    house.parts.fanout._watchers.add(watcher)
    for number in range(5):
        await house.tell("a.b", subject=f"s{number}")
    await until(lambda: watcher.dropped == 3)
    assert (watcher.queue.qsize(), watcher.dropped) == (2, 3)
    request: Any = None
    caller: Any = None
    told = stream_route._events(house.parts, caller, watcher, None, "", request)
    found = []
    async with asyncio.timeout(20):
        async for event in told:
            if event.comment is None:
                found.append(event)
            if len(found) == 3:
                break
    assert [one.event for one in found] == ["a.b", "a.b", "dropped"]
    assert json.loads(str(found[2].data)) == {"count": 3, "after": int(str(found[1].id))}


async def test_a_stream_ends_with_its_token(
    house: House, served: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream_route, "SECOND_LOOK_SECONDS", 0.2)
    token = await house.token("east", [Scope.READ], EAST)
    async with watching(served, token) as events:
        await begun(events)
        assert await anext(events) == {"comment": "here"}
        await clients.revoke(house.database, "east", by="test", at=NOON)
        async with asyncio.timeout(20):
            rest = [event async for event in events]
    assert [event for event in rest if "comment" not in event] == []
    assert house.parts.fanout.watchers == 0


async def test_watchers_are_bounded_and_leave(
    house: House, served: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream_route, "MOST_WATCHERS", 2)
    token = await house.token("all", [Scope.READ])
    async with watching(served, token) as one, watching(served, token) as two:
        await begun(one)
        await begun(two)
        async with httpx.AsyncClient(headers={"authorization": f"Bearer {token}"}) as http:
            problem(await http.get(served + EVENTS), 503, "too-many-streams")
    await until(lambda: not house.parts.fanout.watchers)


@pytest.mark.parametrize("last", ["x", "-1", str(2**63), "1.5"])
async def test_places_that_were_not_given_out(house: House, served: str, last: str) -> None:
    token = await house.token("all", [Scope.READ])
    headers = {"authorization": f"Bearer {token}", "last-event-id": last}
    async with httpx.AsyncClient(headers=headers) as http:
        problem(await http.get(served + EVENTS), 422, "bad-cursor")


async def test_a_stop_ends_streams(house: House) -> None:
    clock: Any = house.clock
    token = await house.token("all", [Scope.READ])
    server = HttpServer.on_tcp(api.by_token(house.parts, private=True), "127.0.0.1", 0)
    serving = asyncio.create_task(server.serve())
    handing_on = asyncio.create_task(house.parts.fanout.run(house.database, clock))
    async with watching(f"http://{server.address}", token) as events:
        await begun(events)
        handing_on.cancel()
        server.stop()
        async with asyncio.timeout(10):
            assert [event async for event in events if "comment" not in event] == []
            await serving
