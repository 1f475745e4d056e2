"""The table of takeovers: what is a contest and what is a terminal that lost its radio."""

from __future__ import annotations

import pytest

from gateway.session.contest import Contest

SILENCE = 180.0

# what happens: ("over", at, old host, new host) a takeover, ("spoke", at) the older peer sends a valid frame
CASES = [
    ("a redial", [("over", 0, "a", "a")], 1, False),
    ("twenty redials", [("over", n, "a", "a") for n in range(20)], 21, False),
    ("a redial with a new address", [("over", 0, "a", "b")], 1, False),
    (
        "three redials, each with a new address",
        [("over", n, f"h{n}", f"h{n + 1}") for n in range(3)],
        4,
        False,
    ),
    ("to and fro twice", [("over", 0, "a", "b"), ("over", 9, "b", "a")], 10, False),
    (
        "to and fro three times",
        [("over", 0, "a", "b"), ("over", 9, "b", "a"), ("over", 18, "a", "b")],
        19,
        True,
    ),
    (
        "three times in ten minutes",
        [("over", 0, "a", "b"), ("over", 300, "b", "a"), ("over", 600, "a", "b")],
        601,
        True,
    ),
    (
        "three times in more than ten minutes",
        [("over", 0, "a", "b"), ("over", 300, "b", "a"), ("over", 601, "a", "b")],
        602,
        False,
    ),
    (
        "three times, one from a third",
        [("over", 0, "a", "b"), ("over", 9, "b", "c"), ("over", 18, "c", "b")],
        19,
        False,
    ),
    ("the older one speaks", [("over", 0, "a", "a"), ("spoke", 1)], 1, True),
    ("it spoke last within three heartbeats", [("over", 0, "a", "b"), ("spoke", 1)], 180, True),
    ("it has been silent for three heartbeats", [("over", 0, "a", "b"), ("spoke", 1)], 181, False),
    ("it speaks on", [("over", 0, "a", "b"), ("spoke", 1), ("spoke", 170)], 349, True),
    ("they go on taking over", [("over", 0, "a", "a"), ("spoke", 1), ("over", 100, "a", "a")], 279, True),
    ("a redial after its end", [("over", 0, "a", "a"), ("spoke", 1), ("over", 200, "a", "a")], 201, False),
]


@pytest.mark.parametrize(("_name", "events", "at", "expected"), CASES, ids=[case[0] for case in CASES])
def test_contested(_name: str, events: list[tuple[object, ...]], at: float, expected: bool) -> None:
    contest = Contest(SILENCE)
    for kind, when, *hosts in events:
        assert isinstance(when, int)
        if kind == "over":
            contest.took_over(str(hosts[0]), str(hosts[1]), when)
        else:
            contest.older_spoke(when)
    assert contest.contested(at) is expected


def test_the_alarm_is_given_once_for_each_contest() -> None:
    contest = Contest(SILENCE)
    assert not contest.took_over("a", "a", 0)
    assert contest.older_spoke(1)
    assert not contest.older_spoke(2)
    assert not contest.took_over("a", "b", 3)
    assert contest.older_spoke(500)


def test_it_is_forgotten_when_nothing_of_it_matters() -> None:
    contest = Contest(SILENCE)
    contest.took_over("a", "b", 0)
    assert not contest.forgettable(599)
    assert contest.forgettable(600)
    contest.older_spoke(600)
    assert not contest.forgettable(700)
    assert contest.forgettable(800)
