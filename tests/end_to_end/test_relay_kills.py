"""kill -9 of the gateway while relay commands flow: no command is lost, none is done twice, nobody paid and
sits in the dark. Three ledgers say so: the client's, the meters', the database's."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Final

import pytest

from tests.end_to_end.gateway_that_dies import POINTS
from tests.end_to_end.processes import until
from tests.end_to_end.relay_clerks import Clerk
from tests.end_to_end.relay_company import Company, End, ends
from tests.end_to_end.relay_planted import PLANTED

pytestmark = [pytest.mark.end_to_end, pytest.mark.timeout(300)]


KILLED, PLANTED_ON = slice(0, 36), slice(36, None)
"""Of the district's meters: those whose commands flow while the gateway dies, and those of planted bugs."""

SEEN_S = 30.0


@pytest.fixture(scope="module")
def company(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Company]:
    made = Company(tmp_path_factory.mktemp("k"), terminals=4, meters=50)
    with made.open():
        yield made


def killed(company: Company, wanted: list[End], meters: list[str], seed: str) -> Counter[str]:
    """Commands flow over `meters` while the gateway dies in all these ways; then all is compared."""
    clerks = [
        company.clerk(f"{name}-{seed}", meters[number::3], f"{name}/{seed}")
        for number, name in enumerate(("ann", "eve", "kim"))
    ]
    company.gateway.kill()
    for clerk in clerks:
        clerk.start()
    died = company.kill(wanted)
    for clerk in clerks:
        clerk.stop()
    for clerk in clerks:
        clerk.join(60.0)
        assert not clerk.is_alive(), "a clerk waits for an answer although nothing is killed any more"
    seconds = company.settle(meters)
    found = company.compare(clerks, meters)
    tries = sum(wish.tries for wish in found.wishes)
    print(f"\nkills: {dict(died)}\nwishes: {len(found.wishes)}, tries: {tries}, settled in {seconds:.0f} s")
    print(f"commands: {dict(found.outcomes)}\nframes: {dict(found.frames)}")
    assert found.breaches() == []
    assert company.chain().faults == ()
    for outcome in ("trip verified", "close verified"):
        assert found.outcomes[outcome], outcome
    return died


def test_ten_kills(company: Company) -> None:
    points = ["frame left", "sending committed", "request kept", "answer heard", "sealed", "relay read"]
    died = killed(company, ends(points, 10, seed=1), list(company.addresses)[KILLED], "ten")
    assert died.total() == 10
    assert set(died) >= set(points)


@pytest.mark.long
@pytest.mark.timeout(0)
def test_two_hundred_kills(tmp_path: Path) -> None:
    """About a quarter of an hour."""
    began = time.monotonic()
    company = Company(tmp_path, terminals=6, meters=60)
    with company.open():
        died = killed(company, ends(POINTS, 200, seed=2), list(company.addresses), "many")
    print(f"{time.monotonic() - began:.0f} s")
    assert died.total() == 200
    assert set(died) == {*POINTS, "at random"}


def tripped_at_the_moment_of_death(company: Company, bug: str, clerk: Clerk, meter: str) -> None:
    """The gateway dies when the frame has left."""
    end = End("frame left", 1)
    company.gateway.live(end, bug)
    clerk.ask(meter, "trip", once=True)
    assert company.gateway.die(end)
    until(lambda: company.seen(meter), SEEN_S, "the frame is at the meter")


def claim_kept_after_the_write(company: Company, bug: str, clerk: Clerk, meter: str) -> None:
    tripped_at_the_moment_of_death(company, bug, clerk, meter)


def expiry_forgotten(company: Company, bug: str, clerk: Clerk, meter: str) -> None:
    company.gateway.live(bug=bug)
    now = company.clock.now()
    first, last = now + timedelta(seconds=60), now + timedelta(seconds=70)
    clerk.ask(meter, "trip", not_before=first.isoformat(), expires_at=last.isoformat())
    company.gateway.kill()
    company.wait_until_shown(last)
    company.gateway.live(bug=bug)
    until(lambda: company.seen(meter), SEEN_S, "the meter sees the late trip")


def sent_again_without_a_look(company: Company, bug: str, clerk: Clerk, meter: str) -> None:
    tripped_at_the_moment_of_death(company, bug, clerk, meter)
    company.gateway.live(bug=bug)
    until(lambda: len(company.seen(meter)) == 2, SEEN_S, "the meter sees it twice")


def payment_forgotten(company: Company, bug: str, clerk: Clerk, meter: str) -> None:
    company.gateway.live(bug=bug)
    first = company.clock.now() + timedelta(seconds=60)
    clerk.ask(meter, "trip", not_before=first.isoformat())
    clerk.ask(meter, "restore")
    until(lambda: len(company.seen(meter)) == 2, SEEN_S, "the meter sees the close and the trip")


def yes_taken_for_done(company: Company, bug: str, clerk: Clerk, meter: str) -> None:
    company.gateway.live(bug=bug)
    clerk.ask(meter, "trip")
    until(lambda: not company.open_commands([meter]), SEEN_S, "the trip has ended")


def close_promised_and_not_kept(company: Company, bug: str, clerk: Clerk, meter: str) -> None:
    company.gateway.live(bug=bug)
    assert clerk.ask(meter, "close").accepted


Scene = Callable[[Company, str, Clerk, str], None]
"""A bug, a clerk and a meter of their own: it returns when the ledgers must show what is wrong."""

SHORT: Final[list[Scene]] = [
    claim_kept_after_the_write,
    sent_again_without_a_look,
    close_promised_and_not_kept,
]
SCENES: Final[list[Scene]] = [*SHORT, expiry_forgotten, payment_forgotten, yes_taken_for_done]


@pytest.mark.parametrize(
    "scene",
    [
        pytest.param(scene, id=scene.__name__, marks=() if scene in SHORT else pytest.mark.long)
        for scene in SCENES
    ],
)
def test_a_planted_bug_is_caught(company: Company, scene: Callable[[Company, str, Clerk, str], None]) -> None:
    bug = scene.__name__.replace("_", " ")
    meters = list(company.addresses)[PLANTED_ON]
    meter = meters[SCENES.index(scene)]
    clerk = company.clerk("ann", [meter], bug)
    company.gateway.kill()
    if company.open_commands(meters):  # what the scene before left would come first
        company.gateway.live()
        company.settle(meters)
        company.gateway.kill()
    try:
        scene(company, bug, clerk, meter)
    finally:
        company.gateway.kill()
    found = company.compare([clerk], [meter]).breaches()
    assert any(one.startswith(PLANTED[bug].caught_by) for one in found), found
