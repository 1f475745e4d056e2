"""What goes wrong: gateways, links, meters, the database, and the backup that it is put back from."""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import TYPE_CHECKING, Final

from gateway.command import Action, State, Why
from tests.simulation.company import Backup
from tests.simulation.process import outside
from tests.simulation.world import TERMINALS, WORKERS

if TYPE_CHECKING:
    from tests.simulation.worker import Worker
    from tests.simulation.world import World

POINTS: Final = (
    "meter read",
    "frame prepared",
    "place taken",
    "sending committed",
    "answer heard",
    "answer committed",
)
JOURNAL_POINTS: Final = ("writing kept", "written", "heard", "heard kept", "filed")

LONG_STOP_S: Final = 3900.0
BACKUP_S: Final = 1200.0


class Faults:
    """Each method is one of them."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._chance = world.chance
        self.disaster = ""
        """what may happen once: "restore" or "long stop"; each takes its time"""
        self._stalled: set[asyncio.Task[None]] = set()
        self.voids: list[datetime] = []
        """when the gateways began on a database that was put back, or after a long stop: what was accepted
        before is void until a person has looked at it"""

    def _worker(self) -> Worker:
        return self._world.workers[self._chance.choice(WORKERS)]

    # gateways

    async def kill(self) -> None:
        worker = self._worker()
        if worker.runs:
            self._world.count("killed")
            worker.fall(self._chance.choice((0.1, 5.0, 400.0)))

    async def crash_later(self) -> None:
        """Between two steps."""
        self._worker().crash_at = self._chance.choice(POINTS)

    async def crash_later_in_journal(self) -> None:
        self._worker().crash_at = self._chance.choice(JOURNAL_POINTS)

    async def pause(self) -> None:
        """A gateway stands still, anywhere."""
        self._worker().pause(self._chance.choice((5.0, 90.0, 700.0, 1800.0)))

    async def pause_later(self) -> None:
        """At a certain point: past the expiry of what it holds in its hand."""
        point = self._chance.choice(POINTS)
        self._worker().pause_at = point, self._chance.choice((30.0, 150.0, 700.0))

    async def disk(self) -> None:
        """A machine's disk is full for a while."""
        worker = self._worker()
        worker.disk(full=True)
        await asyncio.sleep(self._chance.choice((60.0, 300.0)))
        worker.disk(full=False)

    async def own_clock(self) -> None:
        """No time service vouches for our clock for a while."""
        self._world.clock_trusted = False
        self._world.count("own clock")
        await asyncio.sleep(self._chance.choice((60.0, 600.0)))
        self._world.clock_trusted = True

    async def long_stop(self) -> None:
        """Both gateways stand for more than an hour."""
        if self.disaster != "long stop":
            return
        self.disaster = ""
        self._world.down = True
        for worker in self._world.workers.values():
            await worker.die()
        await asyncio.sleep(LONG_STOP_S)
        self._world.count("long stop")
        await self._begin_again()

    async def _begin_again(self) -> None:
        self.voids.append(self._world.clock.now())
        self._world.down = False
        for worker in self._world.workers.values():
            if not worker.runs:
                worker.start()
        for terminal in range(1, TERMINALS + 1):
            self._world.login(terminal, self._chance.choice(WORKERS))

    async def stall_beside_write(self) -> None:
        """The next gateway that has all in its hand stands still there, and the database restarts
        meanwhile."""

        def stall(name: str) -> None:
            self._world.beside_write = lambda worker: None
            self._world.workers[name].pause(self._chance.choice((3.0, 60.0, 300.0)))
            self._stalled.add(task := outside(self.database_restarts()))
            task.add_done_callback(self._stalled.discard)

        self._world.beside_write = stall

    # links and meters

    async def redial(self) -> None:
        self._world.count("redial")
        self._world.login(self._chance.randint(1, TERMINALS), self._chance.choice(WORKERS))

    async def contest(self) -> None:
        login = self._world.newest_login(self._chance.randint(1, TERMINALS))
        login.contested = True
        self._world.count("contest")
        await asyncio.sleep(self._chance.choice((60.0, 600.0)))
        login.contested = False

    async def stranger(self) -> None:
        """Another meter answers at this point for a while."""
        meter_id = self._chance.choice(list(self._world.meters))
        self._world.strangers.add(meter_id)
        await asyncio.sleep(self._chance.choice((60.0, 600.0)))
        self._world.strangers.discard(meter_id)

    async def refusal(self) -> None:
        meter = self._chance.choice(list(self._world.meters.values()))
        meter.refusals.append(
            self._chance.choice((Why.NOT_AUTHENTICATED, Why.SUSPENDED, Why.DEADLINE, Why.REFUSED_BY_METER))
        )
        self._world.count("meter refuses")

    # the database

    async def database_away(self) -> None:
        """Nothing reaches it for some minutes."""
        self._world.company.away = True
        await asyncio.sleep(self._chance.choice((20.0, 120.0, 900.0)))
        self._world.company.away = False
        if self._chance.random() < 0.5:
            for worker in self._world.workers.values():
                worker.wake()

    async def database_away_after_a_claim(self) -> None:
        """It goes when a gateway has just been told that its claim is kept."""
        world = self._world

        def go(point: str) -> None:
            if point == "sending committed":
                world.at_point = lambda point: None
                world.company.away = True
                world.count("database gone after a claim")
                self._stalled.add(task := outside(self.database_away()))
                task.add_done_callback(self._stalled.discard)

        world.at_point = go

    async def database_restarts(self) -> None:
        """Every connection is cut, whatever was being done over it."""
        self._world.company.restart()
        self._world.count("database restarts")
        await asyncio.sleep(self._chance.choice((6.0, 20.0)))
        self._world.company.away = False

    async def back_up(self) -> None:
        """Backups, as long as this runs."""
        while True:
            await asyncio.sleep(BACKUP_S * self._chance.uniform(0.5, 1.0))
            if not self._world.company.away and not self._world.down:
                self._world.company.back_up()

    async def restore(self) -> None:
        """The database is lost and put back as it was some time ago; the gateways are stopped for it."""
        world, company = self._world, self._world.company
        if self.disaster != "restore":
            return
        known = [worker.epoch_file.kept for worker in world.workers.values()]
        seals = [0 if one is None or one.seal is None else one.seal.id for one in known]
        found = [one for one in company.backups if one.seals < min(seals)]
        if not found:
            return
        self.disaster = ""
        world.down = True
        for worker in world.workers.values():
            await worker.die()
        await asyncio.sleep(self._chance.choice((900.0, 1800.0)))
        lost = len(company.store.kept.rows)
        company.restore(self._chance.choice((found[-1], max(found, key=_waiting))))
        world.count("restore")
        if len(company.store.kept.rows) < lost:
            world.count("restore loses commands")
        company.away = False
        await self._begin_again()


def _waiting(backup: Backup) -> int:
    """Trips that wait in it."""
    commands = [row.command for row in backup.kept.rows.values() if row.command.state is State.QUEUED]
    return sum(one.action is Action.TRIP for one in commands)
