"""Whom a link may speak for, where what carries it proves who that is."""

from __future__ import annotations

import pytest

from gateway.session.settings import SessionSettings
from protocols.q_gdw376 import messages
from protocols.q_gdw376.messages import encode_unit
from tests.gateway.session.acknowledged import dial
from tests.gateway.session.stage import ADDRESS, Device, Stage, assets, frozen_unit, stage, until

OTHER = "02009999"
LOGIN, HEARTBEAT = 1, 3


async def refused(made: Stage, device: Device, fn: int, address: str = ADDRESS) -> bool:
    """Is this terminal denied, and the connection closed? Else it is confirmed, and the link stands."""
    sent = await device.say(2, encode_unit(2, fn, 0), address=address)
    (unit,) = messages.decode(await device.confirmed(sent))
    if unit.fn == 2:  # all denied
        await until(lambda: device.link.ended)
    return device.link.ended


@pytest.mark.parametrize("fn", [LOGIN, HEARTBEAT])
@pytest.mark.parametrize(
    ("only_for", "closed"),
    [
        ({OTHER}, True),
        ({OTHER, "192.0.2.1"}, True),
        (set(), True),
        ({ADDRESS}, False),
        ({"192.0.2.1", ADDRESS}, False),
        (None, False),
    ],
)
async def test_only_those_that_the_link_is_for_are_let_in(
    only_for: set[str] | None, closed: bool, fn: int
) -> None:
    async with stage(assets()) as made:
        device, link = dial(made, only_for=None if only_for is None else frozenset(only_for))
        assert await refused(made, device, fn) is closed
        assert made.count("logins_refused_total") == closed
        assert made.count("logins_total") == (not closed)
        # what was refused does not come again, and is welcome another time
        await until(lambda: 0 in link.settled)
        assert not link.given_up


@pytest.mark.parametrize("fn", [LOGIN, HEARTBEAT])
@pytest.mark.parametrize("bound", [True, False])
async def test_a_terminal_that_is_in_cannot_become_another(bound: bool, fn: int) -> None:
    async with stage(assets()) as made:
        device, _ = dial(made, only_for=frozenset({ADDRESS}) if bound else None)
        assert not await refused(made, device, LOGIN)
        await until(lambda: made.registry.session(ADDRESS) is not None)
        await made.session().ready()
        assert await refused(made, device, fn, OTHER) is bound
        await until(lambda: made.registry.session(ADDRESS) is None)
        assert made.count("logins_refused_total") == bound
        assert made.store.strangers == ([] if bound else [OTHER])


@pytest.mark.parametrize("bound", [True, False])
async def test_other_frames_of_another_are_kept_raw_and_the_link_stands(bound: bool) -> None:
    async with stage(assets()) as made:
        device, link = dial(made, only_for=frozenset({ADDRESS}) if bound else None)
        assert not await refused(made, device, LOGIN)
        await until(lambda: made.registry.session(ADDRESS) is not None)
        await made.session().ready()
        before = link.given
        await device.say(0x0D, frozen_unit(1), con=False, address=OTHER)
        await until(lambda: before in link.settled)
        assert not await refused(made, device, HEARTBEAT)
        assert not made.writer.rows
        await made.registry.close()
        assert [kept.reason for kept in made.store.raw] == [f"frame of {OTHER}, which is not logged in here"]


async def test_a_terminal_that_is_not_in_the_assets_is_counted_as_refused_too() -> None:
    async with stage(settings=SessionSettings(refuse_unknown=True)) as made:
        device = made.dial()
        assert await refused(made, device, LOGIN)
        assert made.count("logins_refused_total") == 1
