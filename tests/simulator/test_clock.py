"""The district's clock where it stands: equal questions have equal answers; what needs it to go is told."""

from __future__ import annotations

import pytest

from simulator.__main__ import main
from simulator.clock import Clock, seconds_of

NOON = "2026-11-24T12:00:00+08:00"


def test_a_clock_that_stands_shows_the_same_for_ever() -> None:
    standing = Clock(start=seconds_of(NOON), stands=True)
    assert standing.now() == standing.now() == seconds_of(NOON)
    assert standing.real_seconds(3.0) == 3.0
    assert Clock(start=seconds_of(NOON)).now() > seconds_of(NOON)


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["meter"], "--clock-start"),
        (["meter", "--clock-start", NOON, "--clock-speed", "2"], "--clock-speed"),
        (["line", "--clock-start", NOON, "--paced"], "--paced"),
        (["line", "--clock-start", NOON, "--slow", "0.1"], "--slow"),
    ],
)
def test_what_needs_a_clock_that_goes_is_refused(
    words: list[str], why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*words, "--clock-stands"]) == 2
    assert why in capsys.readouterr().err
