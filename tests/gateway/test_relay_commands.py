"""`lingdian relay` against a gateway on a real unix socket, with a real database and a made meter behind it,
and what is counted of relay commands."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import pytest
from typer.testing import CliRunner

from gateway.cli import app, relay_asking
from gateway.cli.invocation import ExitCode
from gateway.clock import Clock
from gateway.command import Action, NewCommand, State, Why
from gateway.control.stores import step
from gateway.control.watch import watch
from gateway.errors import StorageError
from gateway.metrics import Metrics
from gateway.state import State as StateFolder
from gateway.storage import relay_evidence
from gateway.storage.database import Database
from gateway.storage.relay_evidence import Oldest
from tests.gateway.control.switching import switching
from tests.gateway.control.test_policy import command
from tests.gateway.relay_gateway import Running

pytestmark = pytest.mark.database

runner = CliRunner()

TRIP = ("trip", "E1", "--cause", "arrears", "--notice", "N-1")
CLOSE = ("close", "E1", "--cause", "paid")


@pytest.fixture
def running(tmp_path: Path, conninfo: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Running]:
    for name in ("LINGDIAN_URL", "LINGDIAN_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(relay_asking, "POLL_SECONDS", 0.02)
    monkeypatch.chdir(tmp_path)
    with Running(tmp_path, conninfo) as gateway:
        yield gateway


def test_a_trip_is_followed_to_its_proof(running: Running) -> None:
    code, out, err = running.call(*TRIP, "--wait", "--within", "20")
    assert code == 0, err
    lines = out.splitlines()
    assert lines[0].startswith("command 命令 ")
    states = [line.split("  ")[1].split(";")[0] for line in lines[1:-1]]
    assert states == ["requested", "queued", "sending", "acknowledged", "verified"]
    assert "下发中" in out
    assert "trip E1: verified; proved by a relay read 继电器状态已证实" in lines[-1]
    assert running.stage.relay.obeyed == [Action.TRIP]


def test_json_holds_command_and_timeline_and_words_go_elsewhere(running: Running) -> None:
    code, out, err = running.call(*TRIP, "--wait", "--within=20", "--json", "--label", "夜班 Li")
    made = json.loads(out)
    assert (code, made["command"]["state"], made["command"]["label"]) == (0, "verified", "夜班 Li")
    assert [event["event"] for event in made["timeline"]] == [1, 2, 3, 4, 5]
    assert "acknowledged" in err
    assert made["command"]["requester"].startswith("person:")


def test_without_wait_it_is_only_accepted(running: Running) -> None:
    running.works = False
    code, made = running.json(*TRIP)
    assert (code, made["command"]["state"]) == (0, "queued")


def test_still_open_at_the_time_limit(running: Running) -> None:
    running.works = False
    code, made = running.json(*TRIP, "--wait", "--within", "0.2")
    assert (code, made["command"]["state"]) == (3, "queued")


@pytest.mark.parametrize(
    ("prepare", "words", "state", "why"),
    [
        ("refuses", TRIP, "refused", "refused_by_meter"),
        (None, ("trip", "E1", "--cause", "arrears"), "refused", "no_notice"),
    ],
)
def test_ended_otherwise(
    running: Running, prepare: str | None, words: tuple[str, ...], state: str, why: str
) -> None:
    if prepare is not None:
        running.stage.relay.refuses = [Why.REFUSED_BY_METER]
    code, made = running.json(*words, "--wait", "--within", "20")
    assert (code, made["command"]["state"], made["command"]["why"]) == (5, state, why)


def test_the_same_key_is_the_same_command(running: Running) -> None:
    running.works = False
    _, one = running.json(*TRIP, "--key", "k1")
    _, two = running.json(*TRIP, "--key", "k1")
    assert one["command"]["id"] == two["command"]["id"]
    code, _, err = running.call("trip", "E1", "--cause", "other", "--notice", "N-1", "--key", "k1")
    assert (code, "idempotency key" in err) == (1, True)


def test_show_list_cancel(running: Running) -> None:
    running.works = False
    _, made = running.json(*TRIP, "--customer", "C-E1", "--expires-at", "2026-11-25T15:00:00")
    number = made["command"]["id"]
    assert made["command"]["expires_at"] == "2026-11-25T07:00:00Z"
    code, out, _ = running.call("show", number)
    assert (code, "trip E1: queued" in out, "C-E1" in out) == (0, True, True)
    assert running.json("show", number)[1]["command"]["id"] == number
    code, page = running.json("list", "--state", "queued", "--meter", "E1")
    assert (code, [one["id"] for one in page["commands"]]) == (0, [number])
    assert running.json("list", "--state", "verified")[1]["commands"] == []
    assert number in running.call("list")[1]
    code, made = running.json("cancel", number, "--reason", "a slip")
    assert (code, made["command"]["state"]) == (0, "cancelled")
    code, _, err = running.call("show", str(uuid4()))
    assert (code, "there is no command" in err) == (1, True)


def test_who_asked_cannot_approve(running: Running) -> None:
    running.works = False
    _, made = running.json(*TRIP)
    code, _, err = running.call("approve", made["command"]["id"])
    assert (code, "held" in err) == (1, True)


def test_the_brake_stops_trips_and_not_closes(running: Running) -> None:
    assert running.json("brake", "on", "--reason", "a storm of requests")[1]["value"] is True
    code, made = running.json(*TRIP, "--wait", "--within", "0.5")
    assert (code, made["command"]["why"]) == (3, "brake")
    code, made = running.json(*CLOSE, "--wait", "--within", "60")
    assert (code, made["command"]["state"]) == (0, "verified")
    code, out, _ = running.call("brake", "off", "--reason", "over")
    assert (code, "the brake is off" in out) == (0, True)


@pytest.mark.parametrize("action", ["permit-close", "restore", "keep-power"])
def test_the_other_actions(running: Running, action: str) -> None:
    code, made = running.json(action, "E2", "--cause", "paid")
    assert code == 0
    assert made["command"]["action"] == {"restore": "close"}.get(action, action)


def test_keep_power_is_released_like_a_trip(running: Running) -> None:
    code, made = running.json("release-keep-power", "E1", "--cause", "over")
    assert (code, made["command"]["why"]) == (5, "no_notice")


def test_evidence_is_fetched_and_verified_offline(running: Running, tmp_path: Path) -> None:
    number = running.json(*TRIP, "--wait", "--within", "20")[1]["command"]["id"]
    running.seal()
    code, _, err = running.call("evidence", number)
    assert (code, "holds 证据成立: trip of meter 电能表 E1, verified; 5 events" in err) == (0, True), err
    path = tmp_path / f"relay-{number}.json"
    code, _, err = running.call("evidence", number)
    assert (code, "is there already" in err) == (1, True)
    assert running.call("evidence", number, "--out", "-")[1].startswith('{\n"format"')
    code, out, _ = running.call("verify", str(path))
    assert (code, "compare with the seal kept elsewhere" in out) == (0, True)
    seal = out.split()[-1]
    assert running.call("verify", str(path), "--seal", seal)[0] == 0
    number_of, _, digest = seal.partition(":")
    assert running.call("verify", str(path), "--seal", f"{number_of}:{'0' * len(digest)}")[0] == 1
    assert running.call("verify", str(path), "--seal", "nonsense")[0] == 2
    path.write_bytes(path.read_bytes().replace(b"arrears", b"arrearz"))
    code, out, _ = running.call("verify", str(path))
    assert code == 1
    assert "sha256: the file was changed: its digest is another 文件已被改动：摘要不符" in out
    assert "event 1: its hash is not that of its words" in out
    code, told = running.json("verify", str(path))
    assert (code, told["sound"], told["files"][0]["wrong"][0]["place"]) == (1, False, "sha256")
    assert running.call("verify", str(tmp_path / "nothing.json"))[0] == 1


def test_a_gateway_elsewhere_is_asked_with_a_token(
    running: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"--url=http://{running.address}"
    code, _, err = running.call("list", url)
    assert (code, "needs a token" in err) == (2, True)
    (tmp_path / "token").write_text(f"{running.token}\n")
    code, made = running.json(*TRIP, url, "--token-file=token", "--wait", "--within=20")
    assert (code, made["command"]["requester"]) == (0, "billing")
    monkeypatch.setenv("LINGDIAN_TOKEN", "nobody's")
    code, _, err = running.call("list", url)
    assert (code, "token" in err) == (1, True)
    code, _, err = running.call("list", "--url=http://192.0.2.1:80")
    assert (code, "https only" in err) == (2, True)
    code, _, err = running.call("list", "--url=http://127.0.0.1:1")
    assert (code, "no gateway answers at" in err) == (4, True)


@pytest.mark.parametrize("words", [TRIP, ("show", str(uuid4())), ("list",), ("brake", "on", "--reason", "x")])
def test_without_a_gateway_the_command_says_so(tmp_path: Path, words: tuple[str, ...]) -> None:
    result = runner.invoke(app, ["--state", str(tmp_path / "state"), "relay", *words, "--json"])
    assert (result.exit_code, result.stdout) == (4, "")
    assert "no gateway runs on" in result.stderr


def test_a_lost_answer_is_no_end_and_names_the_key(tmp_path: Path) -> None:
    state = StateFolder(tmp_path / "state")
    state.create()
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(state.socket))
        listening.listen()

        def hang_up() -> None:
            for _ in range(2):  # the look whether it runs, and the request
                listening.accept()[0].close()

        gateway = threading.Thread(target=hang_up, daemon=True)
        gateway.start()
        words = ["--state", str(state.folder), "relay", *TRIP, "--wait", "--key", "k7"]
        result = runner.invoke(app, words)
        gateway.join(20)
    assert (result.exit_code, result.stdout) == (ExitCode.NO_GATEWAY, "")
    assert "--key k7" in result.stderr


@pytest.mark.parametrize("words", [("--help",), ("trip", "--help")])
def test_the_help_tells_no_gateway_from_another_end(words: tuple[str, ...]) -> None:
    said = " ".join(runner.invoke(app, ["relay", *words]).stdout.split())
    assert re.search(r"\b4:? no gateway runs", said)
    assert re.search(r"\b5:? the command has ended", said)


def test_the_document_lists_every_exit_code() -> None:
    document = Path(__file__).parents[2] / "docs" / "relay.md"
    rows = re.findall(r"^\| (\d+) \|", document.read_text(encoding="utf-8"), re.MULTILINE)
    assert [int(row) for row in rows] == list(ExitCode)


# counts ----------------------------------------------------------------------------------------------------


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(name, labels)


async def test_commands_are_counted_by_outcome_and_timed(database: Database, tmp_path: Path) -> None:
    async with switching(database, tmp_path) as stage:
        counted = stage.metrics
        await stage.done("one")
        assert value(counted, "lingdian_relay_commands_total", outcome="verified") == 1
        for name in ("frame", "verified"):
            histogram = f"lingdian_relay_request_to_{name}_seconds"
            assert value(counted, f"{histogram}_count", action="trip") == 1
            seconds = value(counted, f"{histogram}_sum", action="trip")
            assert seconds is not None
            assert 0 < seconds < 1
        stage.house.clock.passes(700)  # the trip can no longer be obeyed
        stage.relay.button_pressed = False
        permit = await stage.done("two", action="permit-close", cause="paid", notice="")
        energised = "lingdian_relay_request_to_energised_seconds_count"
        assert value(counted, energised, action="permit-close") == 0
        stage.relay.opened = False
        stage.house.clock.passes(700)
        assert await stage.work()
        assert value(counted, energised, action="permit-close") == 1
        seconds = value(counted, "lingdian_relay_request_to_energised_seconds_sum", action="permit-close")
        assert seconds is not None
        assert 690 < seconds < 710
        assert value(counted, "lingdian_relay_commands_total", outcome="verified") == 2, permit


async def test_what_was_not_committed_is_not_counted(database: Database, tmp_path: Path) -> None:
    async with switching(database, tmp_path) as stage:
        now = stage.house.clock.now()
        ((meter,),) = await stage.house.rows("SELECT meter_id FROM meter WHERE number = 'E1'")
        new = NewCommand(uuid4(), Action.CLOSE, "one", "paid", now, "k", b"")
        with suppress(RuntimeError):
            async with stage.store.desk(meter) as desk:
                await step(desk, await desk.add(new, State.QUEUED), State.CANCELLED)
                raise RuntimeError
        assert value(stage.metrics, "lingdian_relay_commands_total", outcome="cancelled") == 0
        async with stage.store.desk(meter) as desk:
            await step(desk, await desk.add(new, State.QUEUED), State.CANCELLED)
        assert value(stage.metrics, "lingdian_relay_commands_total", outcome="cancelled") == 1


async def test_the_oldest_are_looked_up(database: Database, tmp_path: Path) -> None:
    async with switching(database, tmp_path) as stage:
        assert await relay_evidence.oldest(database) == Oldest(None, None)
        stage.relay.deaf = 1
        trip = await stage.done("one")
        stage.house.clock.passes(60)
        http = await stage.house.client("billing")
        body = {"meter": "E2", "action": "close", "cause": "paid"}
        await http.post("/api/v1/relay-commands", json=body, headers={"idempotency-key": "two"})
        found = await relay_evidence.oldest(database)
        ((sent, close),) = await stage.house.rows(
            "SELECT min(sent_at) FILTER (WHERE command_id = %s), max(created_at) FROM relay_command", trip
        )
        assert found == Oldest(sent, close)


async def test_gauges_grow_also_without_a_database() -> None:
    metrics, clock = Metrics(), Clock(time.time(), time.time(), speed=1000.0)
    start = clock.now()
    answers: list[Oldest | StorageError] = [
        Oldest(start - timedelta(minutes=5), start - timedelta(hours=1)),
        StorageError("away"),
        StorageError("away"),
        Oldest(None, None),
    ]
    seen: list[tuple[float | None, float | None]] = []

    async def oldest() -> Oldest:
        seen.append(
            (
                value(metrics, "lingdian_relay_oldest_uncertain_seconds"),
                value(metrics, "lingdian_relay_oldest_open_close_seconds"),
            )
        )
        if not answers:
            raise asyncio.CancelledError
        answer = answers.pop(0)
        if isinstance(answer, StorageError):
            raise answer
        return answer

    with suppress(asyncio.CancelledError):
        await watch(oldest, metrics, clock, seconds=10.0)
    uncertain = [one or 0.0 for one, _ in seen]
    assert uncertain[0] == 0
    assert 300 <= uncertain[1] < uncertain[2] < uncertain[3]
    assert (seen[1][1] or 0) >= 3600
    assert seen[4] == (0, 0)


def test_a_request_for_later_is_timed_from_then_and_once() -> None:
    metrics = Metrics()
    asked = datetime(2026, 11, 25, 2, 0, tzinfo=UTC)
    sent = command(created_at=asked, not_before=asked + timedelta(hours=5), attempts=1)
    metrics.relay_frame(sent, asked + timedelta(hours=5, seconds=2))
    metrics.relay_frame(replace(sent, attempts=2), asked + timedelta(hours=6))
    histogram = "lingdian_relay_request_to_frame_seconds"
    assert value(metrics, f"{histogram}_sum", action="trip") == pytest.approx(2.0)
    assert value(metrics, f"{histogram}_count", action="trip") == 1
