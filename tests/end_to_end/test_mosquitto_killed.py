"""Mosquitto is killed in mid-burst, and what terminals count as acknowledged is stored once; what somebody
has left at the broker is ignored; and a gateway that acknowledges before it commits is seen to lose."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.end_to_end.mqtt_pushes import Comparison, Pushes, Stored, compare
from tests.end_to_end.mqtt_town import OLDEST_S, Size, Town, Version
from tests.end_to_end.processes import until
from tests.programs import program

pytestmark = [pytest.mark.end_to_end, pytest.mark.timeout(300)]

SMALL = Size(confirming=4, trusting=4, meters=32, points=1, pause=0.04)
LARGE = Size(confirming=20, trusting=20, meters=250, points=1, pause=0.2)

WRAPPER = "tests.end_to_end.gateway_that_acknowledges"


@pytest.fixture(autouse=True)
def mosquitto() -> None:
    """Without one there is nothing to be seen here."""
    program("mosquitto", "mosquitto")


def burst_with_kills(town: Town, kills: int, gateway_too: int = 0) -> dict[str, int]:
    """Kill the broker so often in one burst; nothing acknowledged may be lost. gateway_too: each so-manieth
    time the gateway has died just before. The figures."""
    for number, at in enumerate(town.moments(kills)):
        town.kill_broker(at, gateway=bool(gateway_too) and number % gateway_too == 0)
    town.until_pushed(120.0)
    town.until_delivered()
    town.until_stored(town.acknowledged | town.confirming, 30.0)
    figures = town.figures()
    print(figures)
    assert town.compare() == Comparison([], [], []), figures
    assert {row.meter for row in town.stored()} >= town.confirming, "what is repeated arrives in the end"
    return figures


def nothing_planted_has_come(town: Town) -> None:
    """The retained trip was heard by the terminal and not by the meter, and the retained reading is not
    stored; the same frames do something when they are not retained, and not when they are old. Ends the
    simulator."""
    one, other = town.quiet
    meter, forged = town.single_phase(one, 0), town.single_phase(other, 1).number
    assert town.saw(meter, "frame") == []
    assert forged not in {row.meter for row in town.stored()}
    if town.has_times:
        before = town.fates()
        assert before["retained"] > 0
        town.publish(other, "up", town.report(other, 1, false=True), age_s=OLDEST_S + 5)
        until(lambda: town.fates()["stale"] > before["stale"], 20, "what is old is ignored")
        assert forged not in {row.meter for row in town.stored()}

    town.publish(one, "down", town.trip(one))
    until(lambda: bool(town.saw(meter, "moved")), 20, "the trip as such is obeyed")
    town.publish(other, "up", town.report(other, 1, false=True))
    until(lambda: forged in {row.meter for row in town.stored()}, 20, "the false reading as such is taken")
    assert town.compare().wrong == [forged]
    assert town.simulator.end()["mqtt_retained"] > town.kills, "heard at the first connection and the others"


def test_a_broker_killed_in_mid_burst_loses_and_doubles_nothing_acknowledged(tmp_path: Path) -> None:
    with Town(tmp_path, SMALL, seed=1, planted=True) as town:
        burst_with_kills(town, kills=2)
        nothing_planted_has_come(town)


def gateway_killed(folder: Path, planted: str) -> tuple[Town, Comparison]:
    """A gateway that commits late is killed in mid-burst, and the next one is the program itself; what came
    of it."""
    environment = {"PLANTED": planted, "LATE_S": "0.3"}
    with Town(folder, SMALL, seed=2, module=WRAPPER, environment=environment) as town:
        town.until_progress(town.whole // 3)
        town.gateway.kill()
        assert town.progress() < town.whole
        town.gateway.module = "gateway"
        town.gateway.start()
        town.until_pushed(120.0)
        town.until_delivered()
        town.until_stored(town.acknowledged, 30.0 if planted == "nothing" else 1.0)
        print(planted, town.figures())
        return town, town.compare()


def test_acknowledging_before_the_commit_is_seen_to_lose(tmp_path: Path) -> None:
    town, comparison = gateway_killed(tmp_path, "acknowledges early")
    lost = set(comparison.lost)
    assert lost & town.confirming, "confirmed by a frame, and never stored"
    assert lost & town.trusting, "acknowledged to the broker, and never stored"
    assert not comparison.doubled
    assert not comparison.wrong


@pytest.mark.long
def test_a_killed_gateway_that_acknowledges_after_the_commit_loses_nothing(tmp_path: Path) -> None:
    _, comparison = gateway_killed(tmp_path, "nothing")
    assert comparison == Comparison([], [], [])


@pytest.mark.long
def test_a_gateway_for_which_the_broker_keeps_nothing_is_seen_to_lose(tmp_path: Path) -> None:
    town, comparison = gateway_killed(tmp_path, "forgets")
    assert set(comparison.lost) & town.trusting
    assert not set(comparison.lost) & town.confirming, "these are repeated"


@pytest.mark.long
@pytest.mark.timeout(1200)
@pytest.mark.parametrize(("version", "seed"), [("3.1.1", 11), ("5", 12)])
def test_a_broker_killed_often_loses_and_doubles_nothing_acknowledged(
    tmp_path: Path, version: Version, seed: int
) -> None:
    with Town(tmp_path, LARGE, seed=seed, version=version, planted=True) as town:
        figures = burst_with_kills(town, kills=25, gateway_too=3)
        assert figures["forgotten_by_the_broker"] > 0, "else all that it takes would be a promise"
        nothing_planted_has_come(town)


def test_what_is_lost_wrong_or_doubled_is_seen() -> None:
    truth = {"1": (5,), "2": (6, 6), "3": (7,)}
    rows = [Stored("1", "a day", (5,)), Stored("2", "a day", (6, 6))]
    assert compare({"1", "2"}, truth, rows) == Comparison([], [], [])
    assert compare({"1", "3"}, truth, rows) == Comparison(["3"], [], [])
    assert compare({"1"}, truth, [*rows, Stored("3", "a day", (6,))]) == Comparison([], ["3"], [])
    assert compare({"1"}, truth, [*rows, Stored("4", "a day", (6,))]) == Comparison([], ["4"], [])
    assert compare({"1"}, truth, [*rows, Stored("1", "another day", (5,))]) == Comparison([], [], ["1"])


def test_what_the_broker_may_have_forgotten_is_no_promise(tmp_path: Path) -> None:
    file = tmp_path / "pushes.jsonl"
    file.write_text(
        '{"at": 1, "what": "sent", "frame": "a", "meters": ["1", "2"]}\n'
        '{"at": 2, "what": "published", "frame": "a", "meters": []}\n'
        '{"at": 3, "what": "published", "frame": "login", "meters": []}\n'
        '{"at": 4, "what": "sent", "frame": "b", "meters": ["3"]}\n'
        '{"at": 5, "what": "published", "frame": "b", "meters": []}\n'
        '{"at": 6, "what": "confirmed", "frame": "b", "meters": ["3"]}\n'
        '{"at": 7, "wha'
    )
    pushes = Pushes(file)
    assert (pushes.sent(), pushes.confirmed()) == ({"1", "2", "3"}, {"3"})
    assert pushes.published() == {"1", "2", "3"}
    assert pushes.published([(4.5, 5.5)]) == {"1", "2"}
    with file.open("a") as more:
        more.write('t": "confirmed", "frame": "a", "meters": ["1", "2"]}\n')
    assert pushes.confirmed() == {"1", "2", "3"}
