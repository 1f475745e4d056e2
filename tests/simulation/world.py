"""A small company in simulated time: meters behind terminals, workers that die and come back, one database.

The code under test is the real `Course` and `Dispatcher`, two of each over one store.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from gateway.command import Action, Command, MeterFacts, RelayStatus, Why
from gateway.control.course import Course
from gateway.control.dispatcher import Dispatcher
from gateway.control.policy import Limits, Rules
from gateway.door import Answer, NotWritten, Prepared, Record, Trouble
from gateway.errors import StorageError
from gateway.model import RelayKind
from tests.gateway.control.memory import MemoryCommands
from tests.gateway.control.test_policy import FACTS
from tests.simulation.loop import VirtualClock
from tests.simulation.meter_side import Frame, Network, SimMeter

LIMITS = Limits(area=3, requester=4, all=4, window=timedelta(hours=1))
"""Small, so that they are reached."""
POLL_S = 20.0
TERMINALS = 2
METERS_EACH = 2


@dataclass
class Written:
    """A control frame that left a worker. committed: a row with its hash stood in SENDING at that moment."""

    at: datetime
    frame: Frame
    command: Command | None
    facts: MeterFacts
    contested: bool
    offset: float
    clock_trusted: bool


@dataclass
class Login:
    """A terminal's newest connection."""

    worker: str = ""
    generation: int = 0
    contested: bool = False
    channel: asyncio.Lock = field(default_factory=asyncio.Lock)


class World:
    """Everything outside the code under test, and what was seen there."""

    def __init__(self, seed: int, clock: VirtualClock) -> None:
        self.chance = random.Random(seed)
        self.clock = clock
        self.rules = Rules(limits=LIMITS)
        self.meters: dict[int, SimMeter] = {}
        facts = {}
        for meter_id in range(1, TERMINALS * METERS_EACH + 1):
            kind = self.chance.choice(
                (RelayKind.BUILT_IN, RelayKind.BUILT_IN, RelayKind.EXTERNAL_SELF_CLOSING,
                 RelayKind.EXTERNAL_HAND_CLOSING)
            )  # fmt: skip
            terminal_id = (meter_id - 1) // METERS_EACH + 1
            self.meters[meter_id] = SimMeter(meter_id, clock, kind)
            facts[meter_id] = replace(
                FACTS,
                meter_id=meter_id,
                meter=f"M{meter_id}",
                address=f"{meter_id:012d}",
                terminal_id=terminal_id,
                terminal=f"0200{terminal_id:04x}",
                pn=meter_id,
                relay_kind=kind,
                area_id=terminal_id,
                customer=f"C{meter_id}",
                restore_mode=self.chance.choice(("close", "close", "permit")),
            )
        self.store = MemoryCommands(clock, facts)
        self.networks = {terminal: Network(self.chance) for terminal in range(1, TERMINALS + 1)}
        self.logins = {terminal: Login() for terminal in range(1, TERMINALS + 1)}
        self.workers = {name: Worker(self, name) for name in ("w1", "w2")}
        self.written: list[Written] = []
        self.clock_trusted = True
        self.crash_at: dict[str, str] = {}
        """worker -> the point at which it dies next"""
        self.database_fails = 0.0
        self.fired: dict[str, int] = {}
        self.store.hook = self._database

    def count(self, what: str) -> None:
        self.fired[what] = self.fired.get(what, 0) + 1

    def _database(self, point: str, meter_id: int) -> None:
        if self.database_fails and self.chance.random() < self.database_fails:
            self.count(f"database {point}")
            raise StorageError(f"the database fails {point}")

    def login(self, terminal_id: int, worker: str) -> None:
        """The terminal dials in anew, at this worker: what is under way on the old link ends."""
        login = self.logins[terminal_id]
        self.logins[terminal_id] = Login(worker, login.generation + 1)
        self.store.kept.owners[terminal_id] = (worker, login.generation + 1)
        self.workers[worker].wake()

    def decide(self, meter_id: int, **told: object) -> None:
        """The company decides something about a meter or about all: a block, the brake, a halt."""
        self.store.meters[meter_id] = replace(self.store.meters[meter_id], **told)  # type: ignore[arg-type]  # any


class Worker:
    """One process: it may die at any point and be started again."""

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name
        self.task: asyncio.Task[None] | None = None
        self._dispatcher: Dispatcher | None = None
        self._restarting: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin, with nothing remembered."""
        world = self.world
        doors = WorldDoors(world, self.name)
        course = Course(
            world.store,
            doors,
            world.clock,  # type: ignore[arg-type]  # a clock of simulated time
            lambda: world.rules,
            clock_trusted=lambda: world.clock_trusted,
            at=self._at,
        )
        dispatcher = Dispatcher(
            world.store,
            doors,
            course,
            world.clock,  # type: ignore[arg-type]  # a clock of simulated time
            poll_seconds=POLL_S,
        )
        self._dispatcher = dispatcher
        self.task = asyncio.get_running_loop().create_task(dispatcher.run())

    def wake(self) -> None:
        if self._dispatcher is not None:
            self._dispatcher.wake()

    def _at(self, point: str) -> None:
        if self.world.crash_at.get(self.name) == point:
            del self.world.crash_at[self.name]
            self.world.count(f"died at {point}")
            self._restarting = asyncio.get_running_loop().create_task(self._die_and_come_back())
            raise asyncio.CancelledError

    async def _die_and_come_back(self) -> None:
        await self.die()
        await asyncio.sleep(self.world.chance.choice((1.0, 30.0, 600.0)))
        self.start()

    async def die(self) -> None:
        """kill -9: whatever it was doing ends where it stands."""
        if self.task is None:
            return
        dispatcher, self._dispatcher = self._dispatcher, None
        under_way = dispatcher.under_way if dispatcher is not None else frozenset()
        for task in (*under_way, self.task):
            task.cancel()
        await asyncio.wait((*under_way, self.task))
        self.task = None


class WorldDoors:
    """Satisfies `gateway.door.Doors` for one worker."""

    def __init__(self, world: World, worker: str) -> None:
        self._world = world
        self._worker = worker

    def here(self) -> frozenset[int]:
        return frozenset(
            terminal for terminal, login in self._world.logins.items() if login.worker == self._worker
        )

    @asynccontextmanager
    async def open(self, facts: MeterFacts) -> AsyncIterator[WorldDoor | None]:
        login = self._world.logins[facts.terminal_id]
        if login.worker != self._worker:
            yield None
            return
        async with login.channel:
            yield WorldDoor(self._world, facts, login)


class WorldDoor:
    """Satisfies `gateway.door.Door`."""

    def __init__(self, world: World, facts: MeterFacts, login: Login) -> None:
        self._world = world
        self._facts = facts
        self._login = login
        self._meter = world.meters[facts.meter_id]
        self._network = world.networks[facts.terminal_id]
        self._frames: dict[bytes, Frame] = {}

    @property
    def worker(self) -> str:
        return self._login.worker

    @property
    def generation(self) -> int:
        return self._login.generation

    @property
    def contested(self) -> bool:
        return self._login.contested

    def _gone(self) -> bool:
        """The terminal has dialled in anew since."""
        return self._world.logins[self._facts.terminal_id] is not self._login

    async def identify(self) -> Trouble | None:
        return Trouble(Why.TERMINAL_ABSENT) if self._gone() else None

    async def clock_offset(self) -> float | Trouble:
        status = await self.status()
        return status if isinstance(status, Trouble) else self._meter.offset

    async def status(self) -> RelayStatus | Trouble:
        if self._gone():
            return Trouble(Why.TERMINAL_ABSENT)
        status = await self._network.ask(self._meter)
        return Trouble(Why.TERMINAL_ABSENT) if self._gone() else status

    async def prepare(self, action: Action, deadline: datetime) -> Prepared | Trouble:
        await asyncio.sleep(self._world.chance.uniform(0.0, 3.0))
        text = f"{self._facts.meter_id} {action} {deadline} {self._world.chance.random()}".encode()
        frame = Frame(self._facts.meter_id, hashlib.sha256(text).digest(), action, deadline)
        self._frames[frame.sha256] = frame
        return Prepared(text, frame.sha256, text.decode(), deadline)

    async def write(
        self, prepared: Prepared, last_check: Callable[[], Trouble | None]
    ) -> Awaitable[Answer] | NotWritten:
        trouble = last_check()
        if trouble is not None:
            self._world.count(f"stopped beside the write: {trouble.why}")
            return NotWritten(trouble)
        if self._gone():
            return NotWritten(Trouble(Why.TERMINAL_ABSENT))
        world = self._world
        frame = self._frames[prepared.sha256]
        kept = [row.command for row in world.store.kept.rows.values()]
        owner = [one for one in kept if one.frame_hash == prepared.sha256]
        world.written.append(
            Written(
                world.clock.now(),
                frame,
                owner[0] if owner else None,
                world.store.meters[frame.meter_id],
                self._login.contested,
                self._meter.offset,
                world.clock_trusted,
            )
        )
        return asyncio.get_running_loop().create_task(self._network.carry(self._meter, frame))

    async def record(self, action: Action) -> Record | Trouble:
        return Record({})
