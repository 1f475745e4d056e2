"""A sweep leaves room for others, and a relay command does not stand behind it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from gateway.session import turnstile
from gateway.session.channel import Urgency
from gateway.session.turnstile import Turnstile
from tests.gateway.session.stage import (
    Device,
    Stage,
    assets,
    due,
    frozen_unit,
    noon_clock,
    stage,
    until,
)

NEVER_S = 60.0

DUES = [due(pn) for pn in range(1, 5)]
UNITS = [frozen_unit(pn) for pn in range(1, 5)]


async def went_through(gate: Turnstile, turns: list[asyncio.Future[None]], loop_turns: int) -> list[int]:
    """How many had gone through after each turn of the loop."""
    counts = []
    for _ in range(loop_turns):
        await asyncio.sleep(0)
        counts.append(sum(turn.done() for turn in turns))
    return counts


async def test_so_many_go_through_in_a_turn() -> None:
    gate = Turnstile(2)
    assert [gate.passed() for _ in range(3)] == [True, True, False]
    turns = [gate.queue() for _ in range(5)]
    assert await went_through(gate, turns, 4) == [2, 4, 5, 5]
    await asyncio.sleep(0)
    assert gate.passed()


async def test_nobody_goes_past_those_who_wait() -> None:
    gate = Turnstile(1)
    assert gate.passed()
    turn = gate.queue()
    assert not gate.passed()
    await turn


async def test_who_has_gone_or_ended_takes_no_place() -> None:
    gate = Turnstile(1)
    assert gate.passed()
    gone, ended, waits = gate.queue(), gate.queue(), gate.queue()
    gone.set_result(None)
    ended.cancel()
    await asyncio.wait_for(waits, 1.0)


async def test_beside_a_relay_command_it_goes_slower_and_never_stands(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(turnstile, "BESIDE_RELAY_S", 0.02)
    gate = Turnstile(1)
    loop = asyncio.get_running_loop()
    with gate.giving_way():
        assert gate.passed()
        began = loop.time()
        await asyncio.gather(*(gate.queue() for _ in range(5)))
        assert loop.time() - began >= 0.09
    began = loop.time()
    await asyncio.gather(*(gate.queue() for _ in range(5)))
    assert loop.time() - began < 0.09


@pytest.fixture
async def shut(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[Stage, Device]]:
    """A stage whose turnstile lets nobody through: what comes waits behind a sweep."""
    async with stage(assets(), clock=noon_clock()) as made:
        device = await made.logged_in()
        await made.session().ready()
        device.answers[0x0D, 161] = lambda frame: UNITS
        assert (await made.session().read_frozen(DUES)).rows
        monkeypatch.setattr(turnstile, "BESIDE_RELAY_S", NEVER_S)
        with made.registry.turnstile.giving_way():
            while made.registry.turnstile.passed():
                pass
            yield made, device
            for turn in made.registry.turnstile._waiting:
                turn.cancel()


async def held(made: Stage, urgency: Urgency) -> None:
    """Have the channel within a second, or TimeoutError."""
    async with asyncio.timeout(1.0), made.session().hold(urgency):
        pass


async def test_a_relay_command_does_not_wait_for_an_answer_that_waits_for_its_turn(
    shut: tuple[Stage, Device],
) -> None:
    made, device = shut
    before = len(device.requests(0x0D))
    reading = asyncio.create_task(made.session().read_frozen(DUES))
    await until(lambda: len(device.requests(0x0D)) > before)
    await asyncio.sleep(0.05)
    assert not reading.done()  # its answer has come, and waits
    await held(made, Urgency.RELAY_CLOSE)
    assert (await reading).rows


async def test_others_wait_for_it(shut: tuple[Stage, Device]) -> None:
    made, device = shut
    before = len(device.requests(0x0D))
    reading = asyncio.create_task(made.session().read_frozen(DUES))
    await until(lambda: len(device.requests(0x0D)) > before)
    with pytest.raises(TimeoutError):
        await held(made, Urgency.LEARN)
    reading.cancel()


async def test_a_heartbeat_does_not_wait_behind_a_sweep(shut: tuple[Stage, Device]) -> None:
    _, device = shut
    await device.confirmed(await device.beat(), 1.0)


async def test_an_answer_that_comes_while_a_relay_command_waits_is_handled_at_once(
    shut: tuple[Stage, Device],
) -> None:
    made, device = shut
    device.answers[0x0D, 161] = lambda frame: None
    before = len(device.requests(0x0D))
    reading = asyncio.create_task(made.session().read_frozen(DUES))
    await until(lambda: len(device.requests(0x0D)) > before)
    waiting = asyncio.create_task(held(made, Urgency.RELAY))
    await asyncio.sleep(0.05)
    assert not waiting.done()
    await device.link.write(device.reply(device.requests(0x0D)[-1], UNITS))
    await waiting
    assert (await reading).rows
