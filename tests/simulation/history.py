"""One random history from one seed: requests, approvals, blocks, deaths, redials, lost and late frames."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID, uuid5

import structlog

from gateway.command import (
    RESTORING,
    Action,
    Block,
    BlockKind,
    NewCommand,
    State,
    Why,
)
from gateway.control import policy
from gateway.control.policy import Do
from gateway.control.stores import step
from gateway.errors import StorageError
from tests.simulation.loop import VirtualClock, VirtualLoop, run_virtual
from tests.simulation.world import TERMINALS, World

FAULTY_S = 3 * 3600.0
CALM_S = 3 * 3600.0
NAMES = UUID("8c9f53a4-6df0-4c2c-9d5b-2f8f3a5f3c11")

POINTS = ("meter read", "frame prepared", "sending committed", "answer heard", "answer committed")


@dataclass
class Told:
    """What one history was."""

    world: World
    steps: int
    fired: dict[str, int]


def play(seed: int) -> Told:
    """The history of `seed`, to its calm end. What the code logs on its way is not shown."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    loop = VirtualLoop()
    world = World(seed, VirtualClock(loop))
    history = History(world)
    run_virtual(history.run(), loop)
    fired = dict(world.fired)
    for network in world.networks.values():
        for what, count in network.fired.items():
            fired[what] = fired.get(what, 0) + count
    return Told(world, history.steps, fired)


class History:
    """Throws things at a world."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.steps = 0
        self._made = 0

    async def run(self) -> None:
        world, chance = self.world, self.world.chance
        for network in world.networks.values():
            network.lossy = chance.choice((0.0, 0.02, 0.1, 0.3))
            network.repeats = chance.choice((0.0, 0.1, 0.5))
            network.slowest = chance.choice((0.2, 2.0, 20.0))
        for meter in world.meters.values():
            meter.offset = chance.choice((0.0, 0.0, 0.0, 5.0, -110.0, 3600.0, -3600.0, -8e8))
            meter.hold = chance.choice(
                (timedelta(0), timedelta(0), timedelta(minutes=5), timedelta(minutes=50))
            )
        world.database_fails = chance.choice((0.0, 0.0, 0.01, 0.05))
        for terminal in range(1, TERMINALS + 1):
            world.login(terminal, chance.choice(("w1", "w2")))
        for worker in world.workers.values():
            worker.start()
        clock = asyncio.get_running_loop().time
        while clock() < FAULTY_S:
            await asyncio.sleep(chance.expovariate(1 / 150.0))
            self.steps += 1
            await chance.choice(self._things())()
        await self._calm_down()
        await asyncio.sleep(CALM_S)
        for worker in world.workers.values():
            await worker.die()

    def _things(self) -> list[Callable[[], Awaitable[None]]]:
        return [
            *(self._request,) * 8,
            self._race,
            self._kill,
            self._crash_later,
            self._redial,
            self._block,
            self._brake,
            self._contest,
            self._cancel,
            self._clock,
            self._hold,
            self._refusal,
            self._pause,
        ]

    async def _calm_down(self) -> None:
        """All faults stop."""
        world = self.world
        world.database_fails = 0.0
        world.crash_at.clear()
        world.clock_trusted = True
        for network in world.networks.values():
            network.lossy = network.repeats = 0.0
        for meter_id, meter in world.meters.items():
            meter.refusals.clear()
            world.decide(meter_id, brake=False, weather_halt=False, hold_since=None)
        for terminal, login in world.logins.items():
            login.contested = False
            if world.workers[login.worker].task is None:
                world.login(terminal, login.worker)
        await asyncio.sleep(700.0)  # whoever died comes back by then
        for worker in world.workers.values():
            if worker.task is None:
                worker.start()

    # requests

    async def _request(self) -> None:
        action = self.world.chance.choice(
            (Action.TRIP,) * 4 + (Action.CLOSE,) * 3 + (Action.PERMIT_CLOSE, Action.KEEP_POWER,
             Action.RELEASE_KEEP_POWER)
        )  # fmt: skip
        await self._accept(self.world.chance.choice(list(self.world.meters)), action)

    async def _race(self) -> None:
        """A payment comes in while a trip is under way."""
        meter_id = self.world.chance.choice(list(self.world.meters))
        await self._accept(meter_id, Action.TRIP)
        await asyncio.sleep(
            self.world.chance.choice((0.0, 1.0, 3.0, 10.0, 60.0)) * self.world.chance.random()
        )
        await self._accept(meter_id, Action.CLOSE)

    async def _accept(self, meter_id: int, action: Action) -> None:
        world, chance = self.world, self.world.chance
        now = world.clock.now()
        self._made += 1
        lasts = chance.choice((timedelta(minutes=2), timedelta(minutes=20), timedelta(hours=2)))
        new = NewCommand(
            id=uuid5(NAMES, str(self._made)),
            action=action,
            requester=chance.choice(("billing", "person")),
            cause="arrears",
            notice="N-1",
            created_at=now,
            idempotency_key=str(self._made),
            body_hash=b"",
            expires_at=now + lasts if action in (Action.TRIP, Action.RELEASE_KEEP_POWER) else None,
        )
        try:
            async with world.store.desk(meter_id) as desk:
                said = policy.at_acceptance(new, desk.facts, world.rules, now)
                if action in (*RESTORING, Action.KEEP_POWER):
                    for one in desk.facts.open:
                        if one.action is Action.TRIP and one.state in (State.HELD, State.QUEUED):
                            await step(desk, one, State.SUPERSEDED, why=Why.NEWER_INTENT)
                await desk.add(new, said.state, said.why, said.detail)
        except StorageError:
            return
        assert said.do is not Do.WAIT
        for worker in world.workers.values():
            worker.wake()

    async def _cancel(self) -> None:
        world = self.world
        queued = [
            row.command
            for row in world.store.kept.rows.values()
            if row.command.state is State.QUEUED and not row.command.caused_by
        ]
        if not queued:
            return
        command = world.chance.choice(queued)
        try:
            async with world.store.desk(command.meter_id) as desk:
                for one in desk.facts.open:
                    if one.id == command.id and one.state is State.QUEUED:
                        await step(desk, one, State.CANCELLED, why=Why.CANCELLED)
        except StorageError:
            return

    # faults

    async def _kill(self) -> None:
        worker = self.world.workers[self.world.chance.choice(("w1", "w2"))]
        if worker.task is None:
            return
        self.world.count("killed")
        await worker.die()
        await asyncio.sleep(self.world.chance.choice((0.1, 5.0, 400.0)))
        if worker.task is None:
            worker.start()

    async def _crash_later(self) -> None:
        worker = self.world.chance.choice(("w1", "w2"))
        self.world.crash_at[worker] = self.world.chance.choice(POINTS)

    async def _redial(self) -> None:
        self.world.count("redial")
        self.world.login(self.world.chance.randint(1, TERMINALS), self.world.chance.choice(("w1", "w2")))

    async def _block(self) -> None:
        world = self.world
        meter_id = world.chance.choice(list(world.meters))
        now = world.clock.now()
        world.count("block")
        blocks = (Block(1, BlockKind.MEDICAL, now, now + timedelta(minutes=30), "test"),)
        try:
            async with world.store.desk(meter_id):  # as whoever sets one does
                world.decide(meter_id, blocks=() if world.store.meters[meter_id].blocks else blocks)
        except StorageError:
            return

    async def _brake(self) -> None:
        on = self.world.chance.random() < 0.4
        self.world.count("brake")
        for meter_id in self.world.meters:
            self.world.decide(meter_id, brake=on)

    async def _contest(self) -> None:
        login = self.world.logins[self.world.chance.randint(1, TERMINALS)]
        login.contested = not login.contested
        self.world.count("contest")

    async def _clock(self) -> None:
        self.world.clock_trusted = not self.world.clock_trusted
        self.world.count("own clock")

    async def _hold(self) -> None:
        """The database came back from a backup: what was accepted before is void until somebody says so."""
        now = self.world.clock.now()
        held = any(facts.hold_since is not None for facts in self.world.store.meters.values())
        self.world.count("hold")
        for meter_id in self.world.meters:
            self.world.decide(meter_id, hold_since=None if held else now)

    async def _refusal(self) -> None:
        meter = self.world.chance.choice(list(self.world.meters.values()))
        meter.refusals.append(
            self.world.chance.choice(
                (Why.NOT_AUTHENTICATED, Why.SUSPENDED, Why.DEADLINE, Why.REFUSED_BY_METER)
            )
        )

    async def _pause(self) -> None:
        await asyncio.sleep(self.world.chance.choice((600.0, 1800.0)))
