"""Webhooks: signed, in order, again until taken, dead letters, replay; each client's own."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import partial
from typing import Any

import httpx
import pytest

from gateway.api.deliveries import FIRST_PAUSE, LONGEST_PAUSE, REFUSALS, Deliveries, checked_url, pause
from gateway.storage import clients, outbox
from gateway.storage.clients import Scope
from tests.gateway.api.house import EAST, NOON, WEST, House, asked, until
from tests.gateway.test_api import problem

WEBHOOKS = "/api/v1/webhooks"


@dataclass
class Receiver:
    """A small HTTP server that answers what the test put in, and keeps what came."""

    answers: dict[str, int] = field(default_factory=dict)
    """status by event type; 200 where none is given; 0: hangs up"""
    came: list[tuple[dict[str, str], bytes]] = field(default_factory=list)
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook"

    @property
    def events(self) -> list[dict[str, Any]]:
        return [json.loads(body) for _, body in self.came]

    def has(self, count: int) -> bool:
        """Have so many come?"""
        return len(self.came) >= count

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await reader.readline():
                assert line.startswith(b"POST /hook ")
                headers = {}
                while (line := await reader.readline()) not in (b"\r\n", b""):
                    name, _, value = line.decode().partition(":")
                    headers[name.lower()] = value.strip()
                body = await reader.readexactly(int(headers["content-length"]))
                self.came.append((headers, body))
                status = self.answers.get(json.loads(body)["type"], 200)
                if not status:
                    break
                location = b"location: http://127.0.0.1:1/\r\n" if status == 302 else b""
                writer.write(b"HTTP/1.1 %d x\r\n%scontent-length: 0\r\n\r\n" % (status, location))
                await writer.drain()
        finally:
            writer.close()


@asynccontextmanager
async def listening() -> AsyncIterator[Receiver]:
    receiver = Receiver()
    server = await asyncio.start_server(receiver.serve, "127.0.0.1", 0)
    receiver.port = server.sockets[0].getsockname()[1]
    try:
        yield receiver
    finally:
        server.close()


@asynccontextmanager
async def delivering(house: House, *, to_ourselves: bool = True) -> AsyncIterator[None]:
    clock: Any = house.clock
    task = asyncio.create_task(Deliveries(house.database, clock, to_ourselves=to_ourselves).run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.fixture
async def billing(house: House) -> httpx.AsyncClient:
    house.parts = replace(house.parts, webhooks_to_ourselves=True)
    return await house.client("billing", [Scope.CONTROL, Scope.READ], organisation=EAST)


async def hook(http: httpx.AsyncClient, receiver: Receiver, **other: object) -> dict[str, Any]:
    answer = await http.post(WEBHOOKS, json={"url": receiver.url} | other)
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    return made


async def state(http: httpx.AsyncClient, made: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = (await http.get(f"{WEBHOOKS}/{made['id']}")).json()
    return found


pytestmark = pytest.mark.database


async def test_events_come_signed_in_order_and_of_ones_own_organisation(
    house: House, billing: httpx.AsyncClient
) -> None:
    await house.tell("a.before")
    await outbox.give_places(house.database)
    async with listening() as receiver, delivering(house):
        made = await hook(billing, receiver)
        for number in range(5):
            await house.tell("a.b", subject=f"s{number}")
            await house.tell("a.west", organisation=WEST)
        await house.tell("a.nobodys", organisation=None)
        await until(lambda: len(receiver.came) == 5)
        await until(lambda: _cursor_is(billing, made, 12))
    assert [one["subject"] for one in receiver.events] == [f"s{number}" for number in range(5)]
    headers, body = receiver.came[0]
    event = json.loads(body)
    assert event | {"data": None} == {
        "specversion": "1.0",
        "id": headers["webhook-id"],
        "source": "urn:lingdian:gateway",
        "type": "a.b",
        "subject": "s0",
        "time": NOON.isoformat(),
        "datacontenttype": "application/json",
        "sequence": "2",
        "data": None,
    }
    assert headers["content-type"] == "application/cloudevents+json"
    assert headers["webhook-timestamp"] == str(int(NOON.timestamp()))
    key = base64.b64decode(made["secret"].removeprefix("whsec_"))
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    wanted = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    assert headers["webhook-signature"] == f"v1,{wanted}"
    assert "authorization" not in headers


async def _cursor_is(http: httpx.AsyncClient, made: dict[str, Any], place: int) -> bool:
    return bool((await state(http, made))["cursor"] == place)


async def test_what_commands_tell_arrives(house: House, billing: httpx.AsyncClient) -> None:
    async with listening() as receiver, delivering(house):
        await hook(billing, receiver, types=["relay-command.refused"])
        found = await asked(billing, "k1", notice="")
        await asked(billing, "k2", meter="E2", action="close")
        await until(lambda: bool(receiver.came))
    assert [(one["type"], one["subject"]) for one in receiver.events] == [
        ("relay-command.refused", found["id"])
    ]
    assert receiver.events[0]["data"]["why"] == "no_notice"


@pytest.mark.parametrize("status", [0, 500, 503, 429, 302])
async def test_a_receiver_in_trouble_is_tried_again_and_nothing_overtakes(
    house: House, billing: httpx.AsyncClient, status: int
) -> None:
    async with listening() as receiver, delivering(house):
        receiver.answers["a.first"] = status
        made = await hook(billing, receiver)
        await house.tell("a.first")
        await house.tell("a.second")
        for tries in range(1, REFUSALS + 3):
            await until(partial(_failures_are, billing, made, tries))
            assert len(receiver.came) == tries
            house.clock.passes(LONGEST_PAUSE.total_seconds())
        assert {one["type"] for one in receiver.events} == {"a.first"}
        assert (await state(billing, made))["last_error"]
        receiver.answers.clear()
        house.clock.passes(LONGEST_PAUSE.total_seconds())
        await until(lambda: receiver.events[-1]["type"] == "a.second")
        await until(lambda: _cursor_is(billing, made, 2))
    assert len({headers["webhook-id"] for headers, _ in receiver.came}) == 2
    assert (await state(billing, made))["dead_letters"] == 0


async def _failures_are(http: httpx.AsyncClient, made: dict[str, Any], count: int) -> bool:
    return bool((await state(http, made))["failures"] == count)


async def test_a_pause_grows_and_is_bounded() -> None:
    assert [pause(failures) for failures in (0, 1, 2)] == [FIRST_PAUSE, 2 * FIRST_PAUSE, 4 * FIRST_PAUSE]
    assert pause(10**6) == LONGEST_PAUSE


async def test_what_is_refused_again_and_again_is_a_dead_letter_and_can_be_replayed(
    house: House, billing: httpx.AsyncClient
) -> None:
    async with listening() as receiver, delivering(house):
        receiver.answers["a.poison"] = 400
        made = await hook(billing, receiver)
        await house.tell("a.poison")
        await house.tell("a.good")
        for tries in range(1, REFUSALS + 1):
            await until(partial(receiver.has, tries))
            await until(partial(_failures_are, billing, made, tries % REFUSALS))
            house.clock.passes(LONGEST_PAUSE.total_seconds())
        await until(lambda: receiver.events[-1]["type"] == "a.good")
        await until(lambda: _cursor_is(billing, made, 2))
        (dead,) = (await billing.get(f"{WEBHOOKS}/{made['id']}/dead-letters")).json()["dead_letters"]
        assert (dead["event"]["type"], dead["error"]) == ("a.poison", "answered 400")
        receiver.answers.clear()
        replayed = await billing.post(f"{WEBHOOKS}/{made['id']}/replay", json={"after": 0})
        assert replayed.json()["cursor"] in (0, 1, 2)
        await until(lambda: len(receiver.came) == REFUSALS + 3)
        await until(lambda: _cursor_is(billing, made, 2))
    assert [one["type"] for one in receiver.events[-2:]] == ["a.poison", "a.good"]
    assert (await state(billing, made))["dead_letters"] == 0


async def test_what_could_not_be_delivered_for_days_is_given_up_together(
    house: House, billing: httpx.AsyncClient
) -> None:
    async with listening() as receiver:
        receiver.answers["a.b"] = 500
        made = await hook(billing, receiver)
        for _ in range(3):
            await house.tell("a.b")
        house.clock.shown += timedelta(days=4)
        await house.tell("a.b")
        async with delivering(house):
            await until(lambda: _dead_are(billing, made, 3))
        assert (await state(billing, made))["cursor"] == 3
        assert len(receiver.came) == 1


async def _dead_are(http: httpx.AsyncClient, made: dict[str, Any], count: int) -> bool:
    return bool((await state(http, made))["dead_letters"] == count)


async def test_gone_ends_a_webhook_and_so_does_a_revoked_token(
    house: House, billing: httpx.AsyncClient
) -> None:
    async with listening() as receiver, delivering(house):
        receiver.answers["a.b"] = 410
        made = await hook(billing, receiver)
        await house.tell("a.b")
        await until(lambda: bool(receiver.came))
        await until(lambda: _is_gone(billing, made))
        await hook(billing, receiver, types=["a.c"])
        await clients.revoke(house.database, "billing", by="test", at=NOON)
        await house.tell("a.c")
        await asyncio.sleep(0.5)
    assert len(receiver.came) == 1


async def _is_gone(http: httpx.AsyncClient, made: dict[str, Any]) -> bool:
    return (await http.get(f"{WEBHOOKS}/{made['id']}")).status_code == 404


async def test_nothing_is_sent_to_this_machine_unless_the_bench_wants_it(
    house: House, billing: httpx.AsyncClient
) -> None:
    async with listening() as receiver, delivering(house, to_ourselves=False):
        made = await hook(billing, receiver)
        await house.tell("a.b")
        await until(lambda: _failures_are(billing, made, 1))
        assert "nothing is sent" in (await state(billing, made))["last_error"]
        assert not receiver.came


@pytest.mark.parametrize(
    "url",
    [
        "http://billing.example/",
        "https://127.0.0.1/",
        "https://[::1]/",
        "https://[::ffff:127.0.0.1]/",
        "https://169.254.169.254/latest",
        "https://0.0.0.0/",
        "https://user:pw@billing.example/",
        "https://billing.example/#x",
        "https://billing.example:x/",
        "https://",
        "ftp://billing.example/",
        "file:///etc/passwd",
    ],
)
def test_addresses_that_a_webhook_cannot_have(url: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        checked_url(url, to_ourselves=False)
    assert checked_url("https://10.1.2.3:8443/a?b=c", to_ourselves=False)


async def test_a_webhook_is_its_clients_own(house: House, billing: httpx.AsyncClient) -> None:
    other = await house.client("other", organisation=EAST)
    async with listening() as receiver:
        made = await hook(billing, receiver)
    path = f"{WEBHOOKS}/{made['id']}"
    assert "secret" not in await state(billing, made)
    assert (await other.get(WEBHOOKS)).json() == {"webhooks": []}
    for answer in (
        await other.get(path),
        await other.delete(path),
        await other.get(f"{path}/dead-letters"),
        await other.post(f"{path}/replay", json={"after": 0}),
    ):
        problem(answer, 404, "webhook-unknown")
    socket = await house.at_socket("Li")
    assert [one["client"] for one in (await socket.get(WEBHOOKS)).json()["webhooks"]] == ["billing"]
    body = {"url": "https://billing.example/"}
    problem(await socket.post(WEBHOOKS, json=body), 422, "client-needed")
    assert (await socket.post(WEBHOOKS, json=body | {"client": "billing"})).status_code == 201
    problem(await billing.post(WEBHOOKS, json=body | {"client": "other"}), 422, "client-needed")
    assert (await billing.delete(path)).status_code == 204
    problem(await billing.get(path), 404, "webhook-unknown")


async def test_a_client_has_so_many_webhooks_and_no_more(house: House, billing: httpx.AsyncClient) -> None:
    async with listening() as receiver:
        for _ in range(outbox.WEBHOOKS_A_CLIENT):
            await hook(billing, receiver)
        problem(await billing.post(WEBHOOKS, json={"url": receiver.url}), 422, "not-possible")


async def test_places_follow_commits_and_not_numbers(house: House) -> None:
    """A transaction that took its number first and ends last is not passed over."""
    tell = "INSERT INTO outbox (at, type, subject, data) VALUES (now(), %s, '', '{}')"
    async with house.database.connection() as slow:
        await slow.execute(tell.encode(), ("a.slow",))
        await house.rows(tell, "a.quick")
        await outbox.give_places(house.database)
        found, place = await outbox.after(house.database, 0, rows=10, organisations=None)
        assert [one.type for one in found] == ["a.quick"]
    await outbox.give_places(house.database)
    found, _ = await outbox.after(house.database, place, rows=10, organisations=None)
    assert [one.type for one in found] == ["a.slow"]


async def test_old_events_are_forgotten_but_not_dead_letters(
    house: House, billing: httpx.AsyncClient
) -> None:
    async with listening() as receiver:
        made = await hook(billing, receiver)
    for _ in range(3):
        await house.tell("a.b")
    await outbox.give_places(house.database)
    await house.rows("INSERT INTO dead_letter VALUES (%s, 2, %s, 'x')", made["id"], NOON)
    assert await outbox.forget(house.database, NOON) == 0
    assert await outbox.forget(house.database, NOON + timedelta(days=1)) == 2
    assert (await house.rows("SELECT outbox_id FROM outbox")) == [(2,)]
