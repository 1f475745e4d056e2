"""What the demo says of the relay, above all where a switching is not proved. The whole demo, with a meter of
the simulator, runs in tests/end_to_end."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console, RenderableType

from gateway.cli import demo_relay, relay_asking
from gateway.cli.client import Gateway
from gateway.command import Action, Why
from gateway.control import verification
from gateway.state import State
from tests.gateway.api.house import EAST
from tests.gateway.relay_gateway import Running
from tests.gateway.stand_ins import StandInSession

pytestmark = pytest.mark.database

TERMINAL = "02000001"
METERS = f"""meter,terminal,role,relay_kind,cons_no
G1,{TERMINAL},area_gateway,none,
W1,02000002,customer,built_in,C-W1
X1,{TERMINAL},customer,external_self_closing,C-X1
E1,{TERMINAL},customer,built_in,C-E1
E2,{TERMINAL},customer,built_in,C-E2
"""


@pytest.fixture
def running(tmp_path: Path, conninfo: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Running]:
    monkeypatch.setattr(relay_asking, "POLL_SECONDS", 0.02)
    monkeypatch.setattr(demo_relay, "SEAL_SECONDS", 0.0)
    with Running(tmp_path, conninfo) as gateway:
        registry: Any = gateway.stage.house.parts.registry
        registry.held.append(StandInSession(TERMINAL))
        yield gateway


@pytest.fixture
def assets(tmp_path: Path) -> Path:
    folder = tmp_path / "assets"
    folder.mkdir()
    (folder / "terminals.csv").write_text(f"terminal,organisation\n{TERMINAL},{EAST}\n02000002,西区\n")
    (folder / "meters.csv").write_text(METERS)
    return folder


def shown(running: Running, assets: Path, *, passes: float = 0.0) -> tuple[dict[str, Any], str]:
    """The summary's part, and what a person reads; so many seconds pass whenever something was told."""
    text = io.StringIO()

    def tell(what: RenderableType) -> None:
        Console(file=text, width=200).print(what)
        running.stage.house.clock.passes(passes)

    told = demo_relay.show_relay(running.state, assets, tell)
    return told, text.getvalue()


def test_both_switchings_are_proved_and_told(running: Running, assets: Path) -> None:
    told, text = shown(running, assets)
    assert "why" not in told, told
    assert told["meter"] == "E1", "the first customer with a relay inside at a terminal that is online"
    assert (told["trip"]["state"], told["close"]["state"]) == ("verified", "verified")
    assert told["close"]["energised_at"] is not None
    assert running.stage.relay.obeyed == [Action.TRIP, Action.CLOSE]
    assert "proposed by 提出 demo-zhang, approved by 批准 demo-li" in text
    assert "asked by 申请人 person:demo-billing: cause 原因 arrears" in text
    assert text.count("gates passed 关口已过") == 1, "gates are a trip's"
    assert text.count("→ 68 ") == text.count("← 68 ") == 2
    assert "** ** **" in text
    assert "= 0050: open 断开, trip ordered 跳闸命令" in text
    assert "energised; relay closed  已复电；继电器闭合" in text
    assert "both proved 均已证实" in text
    for name in ("trip", "close"):
        assert verification.verify(Path(told[name]["evidence"]).read_bytes()).sound
    commands = running.json("list")[1]["commands"]
    assert [(one["requester"], one["cause"]) for one in commands] == [
        ("person:demo-billing", "paid"),
        ("person:demo-billing", "arrears"),
    ]


def test_shadow_mode_is_ended_by_two_persons(running: Running, assets: Path) -> None:
    shown(running, assets)
    with Gateway(running.state) as door:
        (shadow,) = (
            one
            for one in door.get("/api/v1/switches")["switches"]
            if (one["name"], one["organisation"]) == ("shadow", EAST)
        )
    assert (shadow["value"], shadow["in_force"]) == (False, True)
    assert (shadow["set_by"], shadow["approved_by"]) == ("person:demo-zhang", "person:demo-li")


def test_a_second_time_does_nothing_again(running: Running, assets: Path) -> None:
    once, _ = shown(running, assets)
    again, _ = shown(running, assets)
    assert again["trip"]["id"] == once["trip"]["id"]
    assert running.stage.relay.obeyed == [Action.TRIP, Action.CLOSE]


def test_a_refused_trip_is_told_and_the_power_asked_for_all_the_same(running: Running, assets: Path) -> None:
    running.stage.relay.refuses = [Why.REFUSED_BY_METER]
    told, text = shown(running, assets, passes=700)  # a close waits out the validity of a trip before it
    assert (told["trip"]["state"], told["close"]["state"]) == ("refused", "verified")
    assert running.stage.relay.obeyed == [Action.CLOSE]
    assert told["why"].startswith("the trip of meter E1 is not proved 未证实: refused after ")
    assert "both proved" not in text


def test_what_has_not_ended_in_time_is_told(
    running: Running, assets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo_relay, "WITHIN_SECONDS", 0.2)
    running.works = False
    told, _ = shown(running, assets)
    assert (told["trip"]["state"], told["close"]["state"]) == ("queued", "queued")
    assert "the trip of meter E1 is not proved 未证实" in told["why"]
    assert "the close of meter E1 is not proved 未证实" in told["why"]


def test_evidence_that_does_not_hold_is_no_proof(
    running: Running, assets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: Callable[..., bytes] = Gateway.file

    def changed(self: Gateway, path: str) -> bytes:
        return kept(self, path).replace(b"arrears", b"arrearz")

    monkeypatch.setattr(Gateway, "file", changed)
    told, text = shown(running, assets)
    assert told["trip"]["state"] == "verified"
    assert told["why"] == "the trip of meter E1 is not proved 未证实: its evidence does not hold 证据不成立"
    assert "relay-trip.json: does not hold 证据不成立" in text


def test_without_a_household_it_says_so(running: Running, assets: Path) -> None:
    (assets / "meters.csv").write_text("\n".join(METERS.splitlines()[:4]) + "\n")
    told, _ = shown(running, assets)
    assert told["meter"] is None
    assert "grow more with --meters" in told["why"]
    assert running.stage.relay.obeyed == []


def test_without_a_gateway_it_says_so(tmp_path: Path, assets: Path) -> None:
    console = Console(quiet=True)
    told = demo_relay.show_relay(State(tmp_path / "nothing"), assets, console.print)
    assert "no gateway runs on" in told["why"]
    assert json.dumps(told)
