"""A terminal's clock: read, set where that is safe, and what was frozen by a wrong one refused."""

from __future__ import annotations

from datetime import datetime

import pytest

from gateway.clock import from_device
from gateway.errors import InputError
from gateway.model import Reason
from gateway.session.settings import SessionSettings
from protocols.q_gdw376 import messages
from protocols.q_gdw376.messages import encode_unit
from tests.gateway.session.stage import assets, clock_at, due, frozen_unit, stage, until
from tests.gateway.session.terminal_stage import reasons, with_clock

# clocks


@pytest.mark.parametrize("off", [-900.0, 900.0, 4000.0])
async def test_a_clock_that_is_off_is_set_on_command_and_not_by_itself(off: float) -> None:
    async with stage(assets()) as made:
        device = await made.logged_in()
        await made.session().ready()
        ahead = {"s": off}
        with_clock(device, made.clock, ahead)
        session = made.session()
        check = await session.read_clock()
        assert check is not None
        assert not check.within_tolerance
        assert made.count("terminal_clocks_off") == 1
        assert not device.requests(0x05)
        after = await session.set_clock()
        assert after.within_tolerance
        assert abs(ahead["s"]) < 2
        assert made.count("terminal_clocks_off") == 0
        distrusted = session.clock_watch.distrusted_until
        assert (distrusted is not None) == (abs(off) > 3600)


async def test_a_clock_that_is_off_is_set_by_policy() -> None:
    settings = SessionSettings(correct_clock=True)
    async with stage(assets(), settings=settings) as made:
        device = made.dial()
        made.teach(device)
        ahead = {"s": 1000.0}
        with_clock(device, made.clock, ahead)
        await device.confirmed(await device.login())
        await until(lambda: made.registry.session(device.address) is not None)
        await made.session().ready()
        assert abs(ahead["s"]) < 2
        assert not made.session().clock_off


@pytest.mark.parametrize(
    ("now", "off"),
    [
        (datetime(2026, 11, 24, 23, 50), 0.0),
        (datetime(2026, 11, 25, 0, 10), 0.0),
        (datetime(2026, 11, 24, 22, 0), 6600.0),
        (datetime(2026, 11, 24, 2, 0), -6600.0),
        (datetime(2026, 11, 24, 12, 0), 86_400.0),
        (datetime(2026, 11, 24, 12, 0), -86_400.0),
        (datetime(2026, 11, 24, 20, 0), 6 * 3600.0),
    ],
    ids=[
        "just before midnight",
        "just after midnight",
        "the terminal is just before midnight",
        "the terminal is just after midnight",
        "a day ahead",
        "a day behind",
        "across the midnight ahead",
    ],
)
async def test_no_clock_is_set_near_or_across_a_midnight(now: datetime, off: float) -> None:
    clock = clock_at(from_device(now))
    async with stage(assets(), settings=SessionSettings(correct_clock=True), clock=clock) as made:
        device = made.dial()
        made.teach(device)
        with_clock(device, clock, {"s": off})
        await device.confirmed(await device.login())
        await until(lambda: made.registry.session(device.address) is not None)
        await made.session().ready()
        with pytest.raises(InputError, match="midnight"):
            await made.session().set_clock()
        assert not device.requests(0x05)


async def test_what_was_frozen_by_a_wrong_clock_stays_refused_after_a_new_login() -> None:
    async with stage(assets()) as made:
        device = await made.logged_in()
        await made.session().ready()
        with_clock(device, made.clock, {"s": 86_400.0})
        device.answers[0x0D, 161] = lambda frame: [frozen_unit(1)]
        await made.session().read_clock()
        assert reasons(await made.session().read_frozen([due(1)])) == {1001: Reason.WRONG_DATE}
        await device.hang_up()
        again = await made.logged_in()
        await made.session().ready()
        again.answers[0x0D, 161] = lambda frame: [frozen_unit(1)]
        assert abs(made.session().clock_offset or 9e9) < 2
        assert reasons(await made.session().read_frozen([due(1)])) == {1001: Reason.WRONG_DATE}


async def test_a_clock_that_cannot_be_set_is_said_so() -> None:
    async with stage(assets()) as made:
        device = await made.logged_in()
        session = made.session()
        await session.ready()
        device.answers[0x05, 31] = device.deny
        with pytest.raises(InputError, match="did not take the time"):
            await session.set_clock()
        device.answers[0x0C, 2] = device.deny
        assert await session.read_clock() is None
        with pytest.raises(InputError, match="does not tell its time"):
            await session.set_clock()
        unset = encode_unit(0x0C, 2, 0, messages.Clock(None))
        device.answers[0x0C, 2] = lambda frame: [unset]
        assert await session.read_clock() is None
