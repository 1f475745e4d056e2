"""One random history from one seed: what is asked for and decided, and what goes wrong meanwhile."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import sys
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, NoReturn
from unittest import mock

import structlog

from gateway.command import Action, BlockKind, Why
from gateway.control.ask import RESTORE
from gateway.control.policy import Rules
from tests.simulation.asking import Asking, Verb
from tests.simulation.faults import Faults
from tests.simulation.loop import VirtualClock, VirtualLoop, run_virtual
from tests.simulation.people import People
from tests.simulation.process import outside, task_factory
from tests.simulation.world import LIMITS, TERMINALS, WORKERS, World

FAULTY_S: Final = 3 * 3600.0
CALM_S: Final = 2 * 3600.0
"""All that is still to be done for a household is done within it."""
COME_BACK_S: Final = 1900.0
"""Who has died or was paused is back by then."""

ASKED_FOR: Final[tuple[Verb, ...]] = (
    *(Action.TRIP,) * 5, RESTORE, RESTORE, Action.CLOSE, Action.PERMIT_CLOSE, Action.KEEP_POWER,
    Action.RELEASE_KEEP_POWER,
)  # fmt: skip
OFFSETS: Final = (0.0, 0.0, 0.0, 5.0, -110.0, 3600.0, -3600.0, -8e8)
"""Seconds that a meter's clock is ahead; the last is in the year 2000 or so."""


@dataclass
class Told:
    """What one history was."""

    world: World
    asking: Asking
    people: People
    faults: Faults
    steps: int

    @property
    def fired(self) -> dict[str, int]:
        return self.world.fired


def play(seed: int) -> Told:
    """The history of `seed`, to its calm end. What the code logs on its way is not shown, but an error that
    it did not foresee breaks a rule."""
    loop = VirtualLoop(random.Random(seed))
    loop.set_task_factory(task_factory)
    world = World(seed, VirtualClock(loop))

    def heard(logger: object, method: str, event: MutableMapping[str, Any]) -> NoReturn:
        if event.get("exc_info"):
            world.broken.append(f"not foreseen: {event['event']}: {sys.exc_info()[1]!r}")
        raise structlog.DropEvent

    structlog.configure(
        processors=[heard], wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR)
    )
    history = History(world)
    with mock.patch.object(os, "urandom", random.Random(seed).randbytes):  # the ids of commands
        run_virtual(history.run(), loop)
    return Told(world, history.asking, history.people, history.faults, history.steps)


class History:
    """Throws things at a world."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.asking = Asking(world)
        self.people = People(world, self.asking)
        self.faults = Faults(world)
        self.steps = 0

    async def run(self) -> None:
        world, chance = self.world, self.world.chance
        for terminal in range(1, TERMINALS + 1):
            world.login(terminal, chance.choice(WORKERS))
        for worker in world.workers.values():
            worker.start()
        await self.people.out_of_shadow()
        self._draw()
        self.asking.later(self.asking.listen())
        backups = outside(self.faults.back_up())
        things = self._things()
        clock = asyncio.get_running_loop().time
        while clock() < FAULTY_S:
            await asyncio.sleep(chance.expovariate(1 / 110.0))
            self.steps += 1
            self.asking.later(self._do(chance.choice(things)))
        backups.cancel()
        await self._calm_down()
        await asyncio.sleep(CALM_S)
        for worker in world.workers.values():
            await worker.die()
        if self.asking.failures:
            raise self.asking.failures[0]

    @staticmethod
    async def _do(thing: Callable[[], Awaitable[None]]) -> None:
        await thing()

    def _draw(self) -> None:
        """What this history is like."""
        world, chance = self.world, self.world.chance
        world.rules = Rules(limits=LIMITS, trip_lasts=timedelta(hours=6))
        self.faults.disaster = chance.choice(("", "", "", "restore", "restore", "long stop"))
        world.billing_asked = chance.random() < 0.25
        world.billing_silent = chance.choice((0.0, 0.3))
        world.clock_unreadable = chance.choice((0.0, 0.0, 0.1))
        world.security_fails = chance.choice((0.0, 0.0, 0.1))
        world.company.fails = chance.choice((0.0, 0.0, 0.005, 0.02))
        for network in world.networks.values():
            network.lossy = chance.choice((0.0, 0.05, 0.2, 0.4))
            network.repeats = chance.choice((0.0, 0.1, 0.5))
            network.slowest = chance.choice((0.2, 2.0, 20.0))
        for meter in world.meters.values():
            meter.offset = chance.choice(OFFSETS)
            meter.hold = chance.choice(
                (timedelta(0), timedelta(0), timedelta(minutes=5), timedelta(minutes=50))
            )
            if abs(meter.offset) == 3600.0:
                world.count("meter clock off by an hour")
            elif meter.offset < -3600.0:
                world.count("meter clock in the year 2000")

    def _things(self) -> list[Callable[[], Awaitable[None]]]:
        asking, people, faults = self.asking, self.people, self.faults
        return [
            *(self._request,) * 14,
            *(self._race,) * 3,
            *(asking.ask_batch,) * 4,
            *(people.approve,) * 6,
            people.approve_alone,
            people.cancel,
            people.cancel_batch,
            *(people.report,) * 6,
            people.block,
            *(people.keep_power_on_tripped,) * 2,
            *(people.lift,) * 2,
            *(people.brake,) * 2,
            *(people.halt,) * 2,
            people.propose,
            *(people.approve_setting,) * 2,
            *(people.shadow,) * 2,
            people.release,
            faults.kill,
            *(faults.crash_later,) * 2,
            faults.crash_later_in_journal,
            faults.pause,
            *(faults.pause_later,) * 2,
            faults.stall_beside_write,
            faults.disk,
            faults.own_clock,
            faults.long_stop,
            *(faults.redial,) * 2,
            faults.contest,
            faults.stranger,
            *(faults.refusal,) * 4,
            *(faults.database_away,) * 2,
            *(faults.database_restarts,) * 2,
            faults.database_away_after_a_claim,
            *(faults.restore,) * 2,
            self._outage_with_payment,
            self._race_in_outage,
            *(self._for_later,) * 3,
            *(self._past_its_expiry,) * 2,
            self._paid_before_shadow,
            *(self._visited,) * 2,
        ]

    # what is asked for

    async def _request(self) -> None:
        chance = self.world.chance
        await self.asking.ask(chance.choice(list(self.world.meters)), chance.choice(ASKED_FOR))

    async def _race(self) -> None:
        """A payment comes in while a trip is under way, or a protection."""
        chance = self.world.chance
        meter_id = chance.choice(list(self.world.meters))
        await self.asking.ask(meter_id, Action.TRIP)
        await asyncio.sleep(chance.choice((0.0, 1.0, 3.0, 10.0, 60.0, 200.0)) * chance.random())
        if chance.random() < 0.25:
            await self.people.protect(meter_id, BlockKind.MEDICAL)
            return
        self.world.count("payment races a trip")
        await self.asking.ask(meter_id, chance.choice((RESTORE, Action.CLOSE)))

    async def _past_its_expiry(self) -> None:
        """A gateway stands still with a short trip in its hand."""
        world, chance = self.world, self.world.chance
        for worker in world.workers.values():
            worker.pause_at = "sending committed", 150.0
        await self.asking.ask(chance.choice(list(world.meters)), Action.TRIP, lasts=timedelta(minutes=2))

    async def _for_later(self) -> None:
        """A trip with a date: much may be decided before it."""
        chance = self.world.chance
        day = self.world.clock.now() + timedelta(minutes=chance.choice((5, 40, 100)))
        await self.asking.ask(chance.choice(list(self.world.meters)), Action.TRIP, not_before=day)

    def _dark(self) -> list[int]:
        return [one.meter_id for one in self.world.meters.values() if one.opened or one.trip_ordered]

    async def _paid_before_shadow(self) -> None:
        """Shadow mode begins when a household in the dark has just paid."""
        if dark := self._dark():
            meter_id = self.world.chance.choice(dark)
            await self.asking.ask(meter_id, Action.CLOSE)
            await asyncio.sleep(self.world.chance.uniform(0.2, 2.0))
            await self.people.begin_shadow(self.world.company.store.meters[meter_id].organisation_id)

    async def _visited(self) -> None:
        """A meter refuses to close, and the crew goes there."""
        if dark := self._dark():
            meter_id = self.world.chance.choice(dark)
            self.world.meters[meter_id].refusals += [Why.SUSPENDED] * 3
            await self.asking.ask(meter_id, Action.CLOSE)
            await asyncio.sleep(self.world.chance.uniform(20.0, 200.0))
            await self.people.report()

    async def _race_in_outage(self) -> None:
        """The same, with the payment kept by the journal and the trip due when the database is back."""
        world, chance = self.world, self.world.chance
        meter_id = chance.choice(list(world.meters))
        due = world.clock.now() + timedelta(seconds=50)
        await self.asking.ask(meter_id, Action.TRIP, not_before=due)
        await asyncio.sleep(10.0)
        world.company.away = True
        await self.asking.ask(meter_id, chance.choice((RESTORE, Action.CLOSE)))
        await asyncio.sleep(45.0)
        world.company.away = False
        for worker in world.workers.values():
            worker.wake()

    async def _outage_with_payment(self) -> None:
        """A household in the dark, or soon to be, pays while the database is away."""
        dark = self._dark() + self.world.with_open_trips()
        if dark:
            self.asking.later(self.faults.database_away())
            await asyncio.sleep(1.0)
            chance = self.world.chance
            await self.asking.ask(chance.choice(dark), chance.choice((RESTORE, Action.CLOSE)))

    async def _calm_down(self) -> None:
        """All faults stop."""
        world = self.world
        while world.down:  # noqa: ASYNC110  # the clock is a simulated one: looking costs nothing
            await asyncio.sleep(60.0)
        world.company.fails = 0.0
        world.clock_unreadable = world.security_fails = world.billing_silent = 0.0
        world.clock_trusted = True
        world.strangers.clear()
        for network in world.networks.values():
            network.lossy = network.repeats = 0.0
        for meter in world.meters.values():
            meter.refusals.clear()
        for worker in world.workers.values():
            worker.crash_at, worker.pause_at = "", ("", 0.0)
        await asyncio.sleep(COME_BACK_S)
        world.company.away = False
        for worker in world.workers.values():
            worker.disk(full=False)
            if not worker.runs:
                worker.start()
        for terminal in world.logins:
            world.newest_login(terminal).contested = False
