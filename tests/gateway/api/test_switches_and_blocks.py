"""Routes of switches and control blocks."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from gateway.storage.clients import Scope
from tests.gateway.api.house import EAST, NOON, WEST, House, asked
from tests.gateway.test_api import problem

pytestmark = pytest.mark.database

BLOCKS, SWITCHES = "/api/v1/control-blocks", "/api/v1/switches"
BLOCK = {"kind": "complaint", "source": "12398 no. 7", "since": NOON.isoformat()}
WHY = {"reason": "storm"}


@pytest.fixture
async def east(house: House) -> httpx.AsyncClient:
    await house.live()
    return await house.client("billing-east", organisation=EAST)


@pytest.fixture
async def west(house: House) -> httpx.AsyncClient:
    return await house.client("billing-west", organisation=WEST)


async def test_a_block_protects_until_it_is_lifted(
    house: House, east: httpx.AsyncClient, west: httpx.AsyncClient
) -> None:
    made = await east.post(BLOCKS, json=BLOCK | {"customer": "C-E1"})
    assert made.status_code == 201
    block = made.json()
    assert made.headers["location"] == f"{BLOCKS}/{block['id']}"
    assert (block["customer"], block["meter"], block["set_by"]) == ("C-E1", None, "billing-east")
    assert (await east.post(BLOCKS, json=BLOCK | {"customer": "C-E1"})).json() == block
    assert (await asked(east, "k1"))["why"] == "blocked"
    for path in (made.headers["location"], f"{BLOCKS}/99", f"{BLOCKS}/0", f"{BLOCKS}/{2**70}"):
        problem(await west.get(path), 404, "block-unknown")
        problem(await west.post(f"{path}/lift", json={"reason": "x"}), 404, "block-unknown")
    assert (await west.get(BLOCKS)).json()["blocks"] == []
    assert (await east.get(BLOCKS)).json()["blocks"] == [block]
    lifted = await east.post(f"{made.headers['location']}/lift", json={"reason": "settled"})
    assert lifted.json()["block"]["lifted_by"] == "billing-east"
    assert (await east.get(BLOCKS)).json()["blocks"] == []
    every = (await east.get(BLOCKS, params={"lifted_too": True})).json()["blocks"]
    assert [one["id"] for one in every] == [block["id"]]
    assert (await asked(east, "k2"))["state"] == "queued"


async def test_a_keep_power_block_is_told_to_the_meter(house: House, east: httpx.AsyncClient) -> None:
    block = (await east.post(BLOCKS, json=BLOCK | {"meter": "E1", "kind": "keep-power"})).json()
    assert (block["customer"], block["meter"]) == (None, "E1")
    listed = (await east.get("/api/v1/relay-commands")).json()["commands"]
    assert [(one["action"], one["state"]) for one in listed] == [("keep-power", "queued")]
    lifted = (await east.post(f"{BLOCKS}/{block['id']}/lift", json={"reason": "over"})).json()
    assert [(one["action"], one["state"]) for one in lifted["released"]] == [("keep-power", "cancelled")]


@pytest.mark.parametrize(
    ("body", "status", "kind"),
    [
        ({"customer": "C-W1"}, 404, "customer-unknown"),
        ({"customer": "nobody"}, 404, "customer-unknown"),
        ({"meter": "W1"}, 404, "meter-unknown"),
        ({}, 422, "bad-request"),
        ({"customer": "C-E1", "meter": "E1"}, 422, "bad-request"),
        ({"customer": "C-E1", "until": NOON.isoformat()}, 422, "not-possible"),
        ({"customer": "C-E1", "source": "a\0"}, 422, "not-possible"),
    ],
)
async def test_blocks_that_cannot_be(
    east: httpx.AsyncClient, body: dict[str, Any], status: int, kind: str
) -> None:
    problem(await east.post(BLOCKS, json=BLOCK | body), status, kind)


async def test_a_customer_of_two_organisations_is_protected_by_neither_alone(
    house: House, east: httpx.AsyncClient
) -> None:
    await house.rows(
        "UPDATE metering_point SET customer_id = (SELECT customer_id FROM customer WHERE cons_no = 'C-E1')"
        " WHERE customer_id = (SELECT customer_id FROM customer WHERE cons_no = 'C-W1')"
    )
    problem(await east.post(BLOCKS, json=BLOCK | {"customer": "C-E1"}), 404, "customer-unknown")
    everywhere = await house.client("head-office")
    made = await everywhere.post(BLOCKS, json=BLOCK | {"customer": "C-E1"})
    assert made.status_code == 201
    problem(await east.post(f"{made.headers['location']}/lift", json={"reason": "x"}), 404, "block-unknown")


# switches ------------------------------------------------------------------------------------------


async def test_the_brake_is_pulled_by_many_and_released_by_few(house: House) -> None:
    control = await house.client("control", [Scope.CONTROL])
    pulled = (await control.post(f"{SWITCHES}/brake/pull", json=WHY)).json()
    assert (pulled["name"], pulled["value"], pulled["in_force"]) == ("brake", True, True)
    problem(await control.post(f"{SWITCHES}/brake/release", json=WHY), 403, "scope-needed")
    reader = await house.client("reader", [Scope.READ])
    problem(await reader.post(f"{SWITCHES}/brake/pull", json=WHY), 403, "scope-needed")
    admin = await house.client("admin", [Scope.ADMIN, Scope.READ])
    assert (await admin.post(f"{SWITCHES}/brake/release", json=WHY)).json()["value"] is False
    assert [(one["name"], one["value"]) for one in (await reader.get(SWITCHES)).json()["switches"]] == [
        ("brake", False)
    ]
    problem(await admin.post(f"{SWITCHES}/brake/pull", json={"reason": " "}), 422, "not-possible")


async def test_one_organisation_switches_itself_and_nothing_else(
    house: House, east: httpx.AsyncClient, west: httpx.AsyncClient
) -> None:
    for path, body in (
        ("brake/pull", WHY),
        ("brake/release", WHY),
        ("hold/release", WHY),
        ("weather-halt", WHY | {"on": True}),
        ("shadow", WHY | {"on": True}),
        ("limits", WHY | {"area": 1, "requester": 1, "all": 1}),
    ):
        problem(await east.post(f"{SWITCHES}/{path}", json=body), 403, "all-organisations-needed")
    for scope, kind in (
        ({"area": "西一台区"}, "area-unknown"),
        ({"organisation": WEST}, "organisation-unknown"),
    ):
        foreign = WHY | scope | {"on": True}
        problem(await east.post(f"{SWITCHES}/weather-halt", json=foreign), 404, kind)
    west_wide = WHY | {"on": True, "organisation": WEST}
    problem(await east.post(f"{SWITCHES}/shadow", json=west_wide), 404, "organisation-unknown")
    halted = await east.post(f"{SWITCHES}/weather-halt", json=WHY | {"on": True, "area": "东一台区"})
    assert (halted.json()["area"], halted.json()["in_force"]) == ("东一台区", True)
    mine = [one["area"] for one in (await east.get(SWITCHES)).json()["switches"] if one["area"]]
    assert mine == ["东一台区"]
    assert not any(one["area"] for one in (await west.get(SWITCHES)).json()["switches"])


async def test_a_halt_is_ended_by_an_administrator(house: House) -> None:
    control = await house.client("control", [Scope.CONTROL], organisation=EAST)
    body = WHY | {"organisation": EAST}
    assert (await control.post(f"{SWITCHES}/weather-halt", json=body | {"on": True})).is_success
    problem(await control.post(f"{SWITCHES}/weather-halt", json=body | {"on": False}), 403, "scope-needed")
    admin = await house.client("admin", [Scope.ADMIN], organisation=EAST)
    assert (await admin.post(f"{SWITCHES}/weather-halt", json=body | {"on": False})).is_success


async def test_the_end_of_shadow_mode_takes_two(house: House, west: httpx.AsyncClient) -> None:
    one = await house.client("one", organisation=EAST)
    proposed = await one.post(f"{SWITCHES}/shadow", json=WHY | {"on": False, "organisation": EAST})
    setting = proposed.json()
    assert (proposed.status_code, setting["in_force"], setting["organisation"]) == (202, False, EAST)
    assert (await asked(one, "k1"))["shadow"]
    approve = f"{SWITCHES}/{setting['id']}/approve"
    problem(await one.post(approve), 409, "another-person-needed")
    problem(await west.post(approve), 404, "switch-unknown")
    problem(await west.post(f"{SWITCHES}/99/approve"), 404, "switch-unknown")
    two = await house.client("two", [Scope.APPROVE], organisation=EAST)
    assert (await two.post(approve)).json()["in_force"]
    assert not (await asked(one, "k2", meter="E2"))["shadow"]


async def test_limits_take_two_and_no_hold_is_released(house: House) -> None:
    admin = await house.client("admin", [Scope.ADMIN])
    body = WHY | {"area": 5, "requester": 50, "all": 50}
    proposed = (await admin.post(f"{SWITCHES}/limits", json=body)).json()
    assert (proposed["in_force"], proposed["value"]["window_s"]) == (False, 3600)
    approver = await house.client("approver", [Scope.APPROVE])
    assert (await approver.post(f"{SWITCHES}/{proposed['id']}/approve")).json()["in_force"]
    of_east = await house.client("approver-east", [Scope.APPROVE], organisation=EAST)
    again = (await admin.post(f"{SWITCHES}/limits", json=body)).json()
    answer = await of_east.post(f"{SWITCHES}/{again['id']}/approve")
    problem(answer, 403, "all-organisations-needed")
    problem(await admin.post(f"{SWITCHES}/hold/release", json=WHY), 409, "not-now")
