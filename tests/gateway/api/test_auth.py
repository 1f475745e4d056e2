"""Tokens: who is let in, what of them is kept, and what an organisation's token sees of terminals."""

from __future__ import annotations

import hashlib
import logging
from datetime import timedelta

import httpx
import pytest

from gateway.errors import InputError
from gateway.storage import clients
from gateway.storage.clients import Scope
from tests.gateway.api.house import EAST, NOON, WEST, House
from tests.gateway.test_api import problem

pytestmark = pytest.mark.database

TERMINALS = "/api/v1/terminals"


@pytest.mark.parametrize(
    "header",
    [None, "", "Bearer", "Bearer ", "Bearer x", "Basic dTpw", "Bearer " + "x" * 10_000, "Bearer \xe9"],
)
async def test_nobody_gets_in_without_a_token_in_force(house: House, header: str | None) -> None:
    http = await house.bearer(None)
    headers = {} if header is None else {b"authorization": header.encode("latin-1")}
    answer = await http.get(TERMINALS, headers=httpx.Headers(headers))
    problem(answer, 401, "token-needed")
    assert answer.headers["www-authenticate"] == "Bearer"


async def test_a_token_holds_until_it_is_revoked(house: House) -> None:
    http = await house.client("reader", [Scope.READ])
    assert (await http.get(TERMINALS)).status_code == 200
    await clients.revoke(house.database, "reader", by="test", at=NOON)
    problem(await http.get(TERMINALS), 401, "token-needed")
    with pytest.raises(InputError):
        await clients.revoke(house.database, "reader", by="test", at=NOON)
    with pytest.raises(InputError):  # the name stands in the evidence of what it asked for
        await clients.create(
            house.database, name="reader", scopes=[Scope.READ], organisation=None, by="test", at=NOON
        )


async def test_of_a_token_only_its_hash_is_kept_and_nothing_is_logged(
    house: House, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    with caplog.at_level(logging.DEBUG):
        token = await house.token("reader", [Scope.READ])
        http = await house.bearer(token)
        assert (await http.get(TERMINALS)).status_code == 200
        problem(await http.post("/api/v1/assets/reload"), 403, "scope-needed")
    assert (await house.rows("SELECT token_sha256 FROM api_client")) == [
        (hashlib.sha256(token.encode()).digest(),)
    ]
    audit = str(await house.rows("SELECT * FROM audit")) + str(await house.rows("SELECT * FROM api_client"))
    told = caplog.text + "".join(capfd.readouterr()) + audit
    assert "reader" in told
    assert token not in told
    assert token.removeprefix("lgd_") not in told


async def test_when_a_token_was_used_is_kept_to_the_minute(house: House) -> None:
    http = await house.client("reader", [Scope.READ])
    for seconds, shown in ((0, 0), (59, 0), (61, 61)):
        house.clock.shown = NOON + timedelta(seconds=seconds)
        await http.get(TERMINALS)
        (one,) = await clients.listed(house.database)
        assert one.last_used_at == NOON + timedelta(seconds=shown)


@pytest.mark.parametrize("name", ["", "Li", "person:li", "a b", "-a", "a" * 65])
async def test_names_that_a_token_cannot_have(house: House, name: str) -> None:
    with pytest.raises(InputError):
        await clients.create(
            house.database, name=name, scopes=[Scope.READ], organisation=None, by="test", at=NOON
        )


async def test_a_token_needs_a_scope_and_an_organisation_that_is_there(house: House) -> None:
    for scopes, organisation in (([], None), ([Scope.READ], "南区")):
        with pytest.raises(InputError):
            await clients.create(
                house.database, name="x", scopes=scopes, organisation=organisation, by="test", at=NOON
            )
    assert await clients.listed(house.database) == []


# terminals and their things ------------------------------------------------------------------------


async def test_an_organisation_sees_its_own_terminals(house: House) -> None:
    await house.rows("INSERT INTO unregistered_terminal VALUES ('03030001', 'x', %s, %s, 1)", NOON, NOON)
    east = await house.client("east", organisation=EAST)
    listed = (await east.get(TERMINALS)).json()
    assert [one["terminal"] for one in listed["terminals"]] == ["02000001"]
    assert listed["unregistered"] == []
    everywhere = (await (await house.client("all")).get(TERMINALS)).json()
    assert [one["terminal"] for one in everywhere["terminals"]] == ["02000001", "02000002"]
    assert len(everywhere["unregistered"]) == 1


async def test_foreign_terminals_are_answered_as_unknown_ones(house: House) -> None:
    east = await house.client("east", organisation=EAST)
    for terminal in ("02000002", "02777777"):
        for path in (f"{TERMINALS}/{terminal}/clock", f"{TERMINALS}/{terminal}/archive"):
            problem(await east.post(path, json={}), 404, "terminal-unknown")
        body = {"terminals": [terminal]}
        problem(await east.post("/api/v1/collections/2026-11-23", json=body), 404, "terminal-unknown")
        watched = await east.get("/api/v1/collections/2026-11-23", params={"terminal": terminal})
        problem(watched, 404, "terminal-unknown")
        events = await east.get("/api/v1/terminal-events", params={"terminal": terminal})
        problem(events, 404, "terminal-unknown")
    problem(await east.post(f"{TERMINALS}/02000001/clock", json={}), 503, "terminal-absent")


async def test_what_concerns_all_is_not_for_one(house: House) -> None:
    east = await house.client("east", organisation=EAST)
    for answer in (
        await east.post("/api/v1/assets/reload"),
        await east.post("/api/v1/collections/2026-11-23"),
        await east.get("/api/v1/collections/2026-11-23"),
    ):
        problem(answer, 403, "all-organisations-needed")


async def test_events_of_terminals_are_seen_and_acknowledged_by_their_own(house: House) -> None:
    await house.rows(
        "INSERT INTO event (received_at, terminal_id, class, pointer, erc, pushed, contested, needs_person,"
        " detail, raw) SELECT %s, terminal_id, (SELECT min(code) FROM event_class), 0, 4, true, false, true,"
        " '[]', '\\x04' FROM terminal ORDER BY address",
        NOON,
    )
    west = await house.client("west", organisation=WEST)
    listed = (await west.get("/api/v1/terminal-events")).json()["events"]
    assert [one["terminal"] for one in listed] == ["02000002"]
    path = "/api/v1/terminal-events/acknowledge"
    for ids in ([1], [1, 2], [99]):
        problem(await west.post(path, json={"ids": ids}), 404, "event-unknown")
    assert (await west.post(path, json={"ids": [2]})).json() == {"acknowledged": [2], "by": "west"}
    assert (await house.rows("SELECT count(*) FROM event WHERE acknowledged_at IS NOT NULL")) == [(1,)]
