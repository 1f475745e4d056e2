"""Pauses, allowances, sizes, and policies out of settings."""

from __future__ import annotations

from datetime import time, timedelta

from gateway.collection.policy import Allowance, Direct, Policy, RequestSize, nightly, on_demand
from gateway.config import CollectionSettings
from tests.gateway.collection.world import MORNING


def test_an_allowance_is_per_terminal_and_hour() -> None:
    allowance = Allowance(2)
    assert allowance.take("a", MORNING)
    assert allowance.take("a", MORNING + timedelta(minutes=30))
    assert not allowance.take("a", MORNING + timedelta(minutes=59))
    assert allowance.take("b", MORNING + timedelta(minutes=59))
    assert allowance.take("a", MORNING + timedelta(minutes=60))
    assert not allowance.take("a", MORNING + timedelta(minutes=89))
    assert allowance.take("a", MORNING + timedelta(minutes=90))
    assert not Allowance(0).take("a", MORNING)


def test_policies_follow_the_settings() -> None:
    settings = CollectionSettings(daytime_begin=time(9), daytime_end=time(17), backoff_seconds=7)
    person = on_demand(settings, direct=True)
    assert (person.direct, person.pause, person.longest) == (Direct.ALWAYS, 7.0, 1800.0)
    assert on_demand(settings, direct=False).direct is Direct.NEVER
    night = nightly(settings, 3600.0)
    assert (night.direct, night.longest, night.daytime) == (Direct.DAYTIME, 3600.0, (time(9), time(17)))


def test_pauses_double_up_to_the_limit_with_jitter() -> None:
    how = Policy(pause=30, longest_pause=900, jitter=0.25)
    assert [how.pause_after(one, 0.0) for one in (1, 2, 3, 6, 60)] == [30, 60, 120, 900, 900]
    assert how.pause_after(1, 1.0) == 37.5


def test_request_size_never_falls_below_one_nor_rises_above_the_most() -> None:
    size = RequestSize()
    for _ in range(40):
        size.halve(16, size.points(16))
    assert size.points(16) == 1
    for _ in range(400):
        size.went_well()
    assert size.points(16) <= 16
