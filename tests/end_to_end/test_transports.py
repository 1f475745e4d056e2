"""Gateway and simulator over every way there is: the midnight reading is complete and true, and a trip and a
close are what the meters saw."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.ledger import compare, registers
from tests.end_to_end.processes import until
from tests.end_to_end.transports import WAYS, Plant, Played, table
from tests.programs import program

pytestmark = [pytest.mark.end_to_end, pytest.mark.timeout(300)]

TRIES = 8
"""A frame that trips is never repeated by itself: where messages are lost, a person asks again."""


@dataclass
class Collected:
    """The plant after its one sweep."""

    plant: Plant
    summary: Any
    readings: list[dict[str, str]]
    switched: dict[str, Future[dict[str, list[Any]]]]
    """by way, the commands that each action took; all ways are switched at once"""

    def of(self, name: str) -> str:
        """The export of one way's meters, as CSV."""
        mine = {row["meter"] for row in self.plant.played[name].rows("meters.csv")}
        return table([row for row in self.readings if row["meter"] in mine])


@pytest.fixture(scope="module")
def collected(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Collected]:
    """One gateway with all ways that are tested at once, after `lingdian collect`."""
    wanted = {
        item.callspec.params["name"] for item in request.session.items
        if hasattr(item, "callspec") and item.path == request.path
    }  # fmt: skip
    if any(WAYS[name].mqtt for name in wanted):
        program("mosquitto", "mosquitto")
    wanted = wanted or {"tcp"}
    with ExitStack() as stack:
        plant = Plant(tmp_path_factory.mktemp("w"), [name for name in WAYS if name in wanted], stack)
        plant.open()
        summary = plant.collect()
        readings = list(csv.DictReader(io.StringIO(plant.gateway.run("export", "readings"))))
        pool = stack.enter_context(ThreadPoolExecutor(len(plant.played)))
        switched = {name: pool.submit(trip_and_close, plant, name) for name in plant.played}
        yield Collected(plant, summary, readings, switched)


def seen(ledger: Path, meter: str, what: str) -> list[dict[str, Any]]:
    """What that meter saw."""
    lines = [json.loads(line) for line in ledger.read_text(encoding="utf-8").splitlines()]
    return [entry for entry in lines if entry["meter"] == meter and entry["what"] == what]


def check(commands: list[Any], action: str, ledger: Path, meter: str) -> None:
    """What is said of the last of these commands, and how many there were, is what the meter saw. Only the
    last one may have moved it; AssertionError."""
    assert (commands[-1]["state"], commands[-1]["why"]) == ("verified", "relay_read"), commands
    accepted = [
        frame["frame"] for frame in seen(ledger, meter, "frame")
        if (frame["verb"], frame["decision"]) == (action, "accepted")
    ]  # fmt: skip
    assert accepted, "verified, and the meter has seen nothing"
    assert len(set(accepted)) <= len(commands)
    ways = {"trip": True, "close": False}
    assert [entry["is_open"] for entry in seen(ledger, meter, "moved")].count(ways[action]) == 1


def customers(one: Played) -> list[dict[str, str]]:
    """Meters with a relay."""
    return [row for row in one.rows("meters.csv") if row["role"] == "customer"]


def trip_and_close(plant: Plant, name: str) -> dict[str, list[Any]]:
    """End the shadow mode of that way, and switch its first customer's meter off and on."""
    plant.end_shadow(name)
    one = plant.played[name]
    meter = customers(one)[0]
    return {action: switch(plant, one, meter, action) for action in ("trip", "close")}


def switch(plant: Plant, one: Played, meter: dict[str, str], action: str) -> list[Any]:
    """Ask until it is verified. Whenever it is not, the meter has not moved."""
    ended: list[Any] = []
    while not ended or (ended[-1]["state"] != "verified" and len(ended) < TRIES):
        before = len(seen(one.ledger, meter["address"], "moved"))
        ended.append(plant.switch(meter["meter"], action))
        moved = len(seen(one.ledger, meter["address"], "moved")) - before
        assert moved == (ended[-1]["state"] == "verified"), ended
    return ended


@pytest.mark.parametrize("name", WAYS)
def test_readings_are_complete_and_a_relay_does_what_is_said(collected: Collected, name: str) -> None:
    one = collected.plant.played[name]
    comparison = compare(one.truth, collected.of(name))
    assert not comparison.wrong
    assert not comparison.absent, collected.summary

    meter, *others = customers(one)
    for action, commands in collected.switched[name].result().items():
        check(commands, action, one.ledger, meter["address"])
    for other in others:
        assert seen(one.ledger, other["address"], "frame") == []
    counts = one.end()
    assert all(counts.get(count) for count in one.way.must), counts


def test_a_terminal_whose_certificate_names_others_is_not_let_in(collected: Collected) -> None:
    plant = collected.plant
    (terminal,) = plant.stranger().terminals
    log = plant.gateway.log

    def refused() -> bool:
        said = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines() if line[0] == "{"]
        return any(one.get("terminal") == terminal and "link_for" in one for one in said)

    until(refused, 30.0, f"{terminal} is refused")
    assert terminal not in plant.online()


def test_what_is_false_is_seen(collected: Collected, tmp_path: Path) -> None:
    name, one = next(iter(collected.plant.played.items()))
    export = collected.of(name)
    key, (total, *_) = next(iter(registers(export).items()))
    digit = str((int(total[0]) + 1) % 10)
    truth = tmp_path / "truth.csv"
    truth.write_text(one.truth.read_text().replace(f",{total},", f",{digit}{total[1:]},"))
    assert compare(truth, export).wrong == [key]
    lines = one.truth.read_text().splitlines(keepends=True)
    truth.write_text("".join(lines[:1] + lines[2:]))
    assert len(compare(truth, export).wrong) == 1


def test_a_ledger_that_says_otherwise_is_seen(tmp_path: Path) -> None:
    frame = {"meter": "1", "what": "frame", "verb": "trip", "decision": "accepted", "frame": "a"}
    moved = {"meter": "1", "what": "moved", "is_open": True}
    said = [{"state": "verified", "why": "relay_read"}]
    ledger = tmp_path / "ledger.jsonl"

    def holds(*entries: dict[str, Any]) -> None:
        ledger.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
        check(said, "trip", ledger, "1")

    holds(frame, moved)
    others: list[list[dict[str, Any]]] = [
        [{**frame, "decision": "wrong password"}, moved],
        [frame, {**moved, "is_open": False}],
        [frame, {**frame, "frame": "b"}, moved],
        [{**frame, "verb": "close"}, moved],
    ]
    for false in others:
        with pytest.raises(AssertionError):
            holds(*false)
