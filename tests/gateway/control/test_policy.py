"""The gates before a relay command, each by a case that opens it and one that shuts it."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta
from typing import Any
from uuid import uuid4

import pytest

from gateway.command import (
    Action,
    Block,
    BlockKind,
    Command,
    Limits,
    MeterFacts,
    NewCommand,
    State,
    Used,
    Why,
)
from gateway.control import policy
from gateway.control.policy import Do, Rules
from gateway.errors import ConfigurationError
from gateway.model import PointRole, RelayKind

NOW = datetime(2026, 11, 25, 2, 0, tzinfo=UTC)
"""A Wednesday, 10:00 in Shanghai."""
RULES = Rules()
FREE = Used(0, 0, 0)

FACTS = MeterFacts(
    meter_id=1,
    meter="M1",
    address="000000000001",
    terminal_id=1,
    terminal="02000001",
    pn=1,
    port=31,
    protocol="dlt645-2007",
    profile="",
    role=PointRole.CUSTOMER,
    relay_kind=RelayKind.BUILT_IN,
    area_id=1,
    organisation_id=1,
    shadow=False,
    customer="C1",
    protected=False,
    restore_mode="close",
    intent=0,
)


def new(action: Action = Action.TRIP, **told: Any) -> NewCommand:
    given: dict[str, Any] = {
        "id": uuid4(),
        "action": action,
        "requester": "billing",
        "cause": "arrears",
        "notice": "N-1",
        "created_at": NOW,
        "idempotency_key": "k",
        "body_hash": b"",
        "expires_at": NOW + timedelta(hours=24),
    }
    return NewCommand(**(given | told))


def command(action: Action = Action.TRIP, state: State = State.QUEUED, **told: Any) -> Command:
    given: dict[str, Any] = {
        "id": uuid4(),
        "meter_id": 1,
        "action": action,
        "state": state,
        "version": 2,
        "intent": 1,
        "requester": "billing",
        "cause": "arrears",
        "created_at": NOW,
        "expires_at": NOW + timedelta(hours=24),
    }
    return Command(**(given | told))


BLOCK = Block(7, BlockKind.MEDICAL, NOW - timedelta(days=1), None, "hospital list")


@pytest.mark.parametrize(
    ("told", "facts", "why"),
    [
        ({"cause": " "}, {}, Why.NO_CAUSE),
        ({"notice": ""}, {}, Why.NO_NOTICE),
        ({}, {"protected": True}, Why.BLOCKED),
        ({}, {"blocks": (BLOCK,)}, Why.BLOCKED),
        ({}, {"open": (command(Action.CLOSE),)}, Why.OPEN_CLOSE),
        ({}, {"open": (command(Action.PERMIT_CLOSE, State.FIELD),)}, Why.OPEN_CLOSE),
        ({}, {"open": (command(Action.KEEP_POWER),)}, Why.BLOCKED),
        ({}, {"open": (command(Action.TRIP, State.UNCERTAIN),)}, Why.OPEN_TRIP),
    ],
)
def test_trips_that_are_refused_at_acceptance(told: dict[str, Any], facts: dict[str, Any], why: Why) -> None:
    said = policy.at_acceptance(new(**told), replace(FACTS, **facts), RULES, NOW)
    assert (said.do, said.state, said.why) == (Do.END, State.REFUSED, why)
    fine = policy.at_acceptance(new(), FACTS, RULES, NOW)
    assert (fine.do, fine.state) == (Do.SEND, State.QUEUED)


def test_release_of_keep_power_is_gated_like_a_trip() -> None:
    for action in (Action.TRIP, Action.RELEASE_KEEP_POWER):
        said = policy.at_acceptance(new(action), replace(FACTS, blocks=(BLOCK,)), RULES, NOW)
        assert said.why is Why.BLOCKED
        late = command(action, expires_at=NOW)
        assert policy.beside_write(late, FACTS, RULES, NOW).state is State.EXPIRED


@pytest.mark.parametrize("action", [Action.CLOSE, Action.PERMIT_CLOSE, Action.KEEP_POWER])
def test_nothing_stops_what_gives_power(action: Action) -> None:
    worst = replace(
        FACTS,
        blocks=(BLOCK,),
        protected=True,
        brake=True,
        weather_halt=True,
        hold_since=NOW,
        open=(command(Action.TRIP), command(Action.CLOSE)),
    )
    night = NOW + timedelta(hours=12)
    assert policy.at_acceptance(new(action, cause="", notice=""), worst, RULES, night).state is State.QUEUED
    said = policy.at_claim(command(action, expires_at=None), worst, RULES, night, Used(999, 999, 999))
    assert said.do is Do.SEND


def test_expiry_is_looked_at_beside_the_write() -> None:
    at = NOW + timedelta(minutes=1)
    assert policy.beside_write(command(expires_at=at), FACTS, RULES, NOW).do is Do.SEND
    said = policy.beside_write(command(expires_at=at), FACTS, RULES, at)
    assert (said.do, said.state) == (Do.END, State.EXPIRED)


def test_a_block_that_came_meanwhile_ends_a_trip() -> None:
    said = policy.beside_write(command(), replace(FACTS, blocks=(BLOCK,)), RULES, NOW)
    assert (said.do, said.state, said.why) == (Do.END, State.REFUSED, Why.BLOCKED)
    assert "7" in said.detail


def test_a_close_that_came_meanwhile_supersedes_a_trip() -> None:
    mine = command()
    facts = replace(FACTS, open=(mine, command(Action.CLOSE)))
    said = policy.beside_write(mine, facts, RULES, NOW)
    assert (said.do, said.state) == (Do.END, State.SUPERSEDED)
    assert policy.beside_write(mine, replace(FACTS, open=(mine,)), RULES, NOW).do is Do.SEND


@pytest.mark.parametrize(
    ("facts", "why"),
    [
        ({"brake": True}, Why.BRAKE),
        ({"weather_halt": True}, Why.WEATHER_HALT),
        ({"hold_since": NOW}, Why.HOLD_AFTER_RESTORE),
    ],
)
def test_gates_that_make_a_trip_wait(facts: dict[str, Any], why: Why) -> None:
    said = policy.at_claim(command(), replace(FACTS, **facts), RULES, NOW, FREE)
    assert (said.do, said.why) == (Do.WAIT, why)
    assert said.until is not None
    assert said.until > NOW


def test_a_hold_does_not_touch_what_was_accepted_after_it() -> None:
    facts = replace(FACTS, hold_since=NOW - timedelta(minutes=1))
    assert policy.at_claim(command(), facts, RULES, NOW, FREE).do is Do.SEND


@pytest.mark.parametrize("used", [Used(50, 50, 50), Used(0, 500, 499), Used(0, 0, 500)])
def test_limits_make_a_trip_wait(used: Used) -> None:
    said = policy.at_claim(command(), FACTS, RULES, NOW, used)
    assert (said.do, said.why) == (Do.WAIT, Why.OVER_LIMIT)
    assert policy.at_claim(command(), FACTS, RULES, NOW, Used(49, 499, 499)).do is Do.SEND
    roomy = replace(RULES, limits=Limits(area=1000, requester=1000, all=1000))
    assert policy.at_claim(command(), FACTS, roomy, NOW, used).do is Do.SEND


@pytest.mark.parametrize(
    ("wall", "allowed"),
    [
        ("2026-11-25 07:59", False),
        ("2026-11-25 08:00", True),
        ("2026-11-25 15:59", True),
        ("2026-11-25 16:00", False),
        ("2026-11-28 10:00", False),  # a Saturday
        ("2026-02-28 10:00", True),  # a Saturday that is worked
        ("2026-02-13 10:00", True),  # the Friday before; the 14th is worked
        ("2026-02-14 10:00", False),  # the day before the Spring Festival
        ("2026-02-18 10:00", False),
        ("2026-09-30 10:00", False),
        ("2026-10-08 10:00", True),
        ("2026-12-31 10:00", False),  # nobody knows yet whether tomorrow is a holiday
        ("2031-03-05 10:00", False),
    ],
)
def test_hours_and_days(wall: str, allowed: bool) -> None:
    at = datetime.fromisoformat(wall + "+08:00").astimezone(UTC)
    assert (policy.outside_hours(RULES, at) is None) == allowed
    if not allowed and at.year == 2026 and at.month < 12:
        opens = policy.opens_at(RULES, at)
        assert at < opens < at + timedelta(days=12)
        assert policy.outside_hours(RULES, opens) is None
    bench = replace(RULES, any_day=True, from_hour=time(0), to_hour=time(23, 59, 59))
    assert policy.outside_hours(bench, at) is None


def test_what_restore_means() -> None:
    cases = {
        ("close", RelayKind.BUILT_IN): Action.CLOSE,
        ("permit", RelayKind.BUILT_IN): Action.PERMIT_CLOSE,
        ("confirm_first", RelayKind.BUILT_IN): Action.PERMIT_CLOSE,
        ("permit", RelayKind.EXTERNAL_SELF_CLOSING): Action.CLOSE,
        ("close", RelayKind.EXTERNAL_HAND_CLOSING): Action.PERMIT_CLOSE,
    }
    for (mode, kind), action in cases.items():
        assert policy.restore(replace(FACTS, restore_mode=mode, relay_kind=kind)) is action


def test_points_that_are_never_switched() -> None:
    assert policy.unfit(Action.TRIP, FACTS) is None
    assert policy.unfit(Action.CLOSE, replace(FACTS, role=PointRole.AREA_GATEWAY)) is Why.NOT_CUSTOMER
    assert policy.unfit(Action.TRIP, replace(FACTS, relay_kind=RelayKind.NONE)) is Why.NO_RELAY
    assert policy.unfit(Action.ALARM, replace(FACTS, relay_kind=RelayKind.NONE)) is None


def test_a_calendar_that_cannot_be_read_says_where() -> None:
    for text in ("x =", "[2026]\nworking = []", '[2026]\nholidays=[["2026-05-05","2026-05-01"]]\nworking=[]'):
        with pytest.raises(ConfigurationError, match=r"my\.toml"):
            policy.read_calendar(text, "my.toml")
    own = policy.own_calendar()
    assert own.years == {2026}
    assert date(2026, 10, 7) in own.holidays
