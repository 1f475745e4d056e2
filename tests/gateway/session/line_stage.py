"""A real registry over a line of ours, over a bad wire in memory, to simulated meters."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

from gateway.clock import Clock
from gateway.command import MeterFacts
from gateway.control.security import SoftwareModule
from gateway.errors import LinkClosed
from gateway.metrics import Metrics
from gateway.session.direct_line import LineSettings
from gateway.session.line_terminal import LineTerminal
from gateway.session.registry import Registry
from gateway.session.relay import RelayDoors
from gateway.session.settings import MeterProfile, SessionSettings
from gateway.session.terminal import TerminalSession
from gateway.transports.memory import Line, MemoryLink, pair
from protocols.dlt645 import frame as frame645
from protocols.q_gdw376 import messages
from protocols.q_gdw376.connection import Answered, Confirmed, Denied, Master
from simulator.clock import Clock as SimClock
from simulator.control import Setup
from simulator.district import MeterPlan, TerminalPlan
from simulator.esam import BENCH_KEY
from simulator.ledger import Entry
from simulator.meter import Meter
from tests.gateway.session.relay_stage import FACTS
from tests.gateway.session.stage import HandStore, HandWriter, noon_clock, until
from tests.gateway.session.test_with_simulator import MIDNIGHT, Night

PLAIN = MeterProfile(password="123456", operator="00000001")
GOOD = Line()
PATIENT = LineSettings(reply_timeout_s=20.0, inter_byte_s=0.2, gap_s=0.004, late_s=0.2)
"""Nothing that answers is ever too late for it, whatever else the machine does."""
NOTHING_CAME = LineSettings(reply_timeout_s=0.1, inter_byte_s=0.1, gap_s=0.004, late_s=0.1)
"""For meters that do not answer at all."""
TRIP = bytes.fromhex("02563412") + b"\x01\x00\x00\x00" + bytes.fromhex("1a00301012241126")[:8]
METER = "202611230001"

Hear = Callable[[bytes], bytes]


class FarEnd:
    """The meters' end of the wire: all bytes are heard by all."""

    def __init__(self, link: MemoryLink, hear: Hear) -> None:
        self.link = link
        self.hear = hear
        self.heard = bytearray()
        self.echoes = False
        self.noise = b""
        """around each answer"""
        self.delay_s: Callable[[bytes], float] = lambda answer: 0.0
        self._answers: set[asyncio.Task[None]] = set()
        self._task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        with contextlib.suppress(LinkClosed):
            while True:
                data, _ = await self.link.read()
                self.heard += data
                if self.echoes:
                    await self.link.write(data)
                if answer := self.hear(data):
                    task = asyncio.create_task(self._say(answer))
                    self._answers.add(task)
                    task.add_done_callback(self._answers.discard)

    async def _say(self, answer: bytes) -> None:
        await asyncio.sleep(self.delay_s(answer))
        with contextlib.suppress(LinkClosed):
            await self.link.write(self.noise + answer + self.noise)

    async def stop(self) -> None:
        self.link.abort()
        await asyncio.gather(self._task, *self._answers, return_exceptions=True)


@dataclass
class Street:
    """One terminal's meters of a district on a line of ours, which is logged in."""

    night: Night
    plan: TerminalPlan
    clock: Clock
    registry: Registry
    terminal: LineTerminal
    wire: MemoryLink
    far: FarEnd
    doors: RelayDoors
    accepted: asyncio.Task[None]
    entries: list[Entry]
    meters: list[Meter]

    def session(self) -> TerminalSession:
        session = self.registry.session(self.plan.address)
        assert session is not None
        return session

    def customer(self) -> MeterPlan:
        """A meter with a relay."""
        return next(one for one in self.plan.meters if one.meter_class == "single_phase")

    def facts(self) -> MeterFacts:
        meter, assets = self.customer(), self.night.terminals[self.plan.address]
        point = next(one for one in assets.points if one.pn == meter.pn)
        return replace(
            FACTS,
            meter_id=point.meter_id,
            meter=meter.number,
            address=meter.address,
            terminal_id=assets.terminal_id,
            terminal=self.plan.address,
            pn=meter.pn,
            port=meter.port,
            profile="default",
        )

    def seen(self, what: str) -> list[Entry]:
        return [entry for entry in self.entries if entry.what == what]


@asynccontextmanager
async def street(
    settings: LineSettings = PATIENT,
    *,
    up: Line = GOOD,
    down: Line = GOOD,
    profile: MeterProfile = PLAIN,
    setup: Setup | None = None,
    hour: int = 10,
    meters: int = 6,
    archive: dict[int, str] | None = None,
) -> AsyncIterator[Street]:
    """archive: what the assets have of a terminal that had this address before."""
    clock = Clock(time.time(), MIDNIGHT.timestamp() + hour * 3600)
    sim = SimClock(clock.origin, clock.start, clock.speed)
    night = Night.grow(7, 1, meters)
    plan = night.district.terminals[0]
    assets = replace(night.terminals[plan.address], archive=archive, profile="line")
    night.terminals[plan.address] = assets
    entries: list[Entry] = []
    hang_there = [Meter(one, setup=setup or Setup(), ledger=entries.append) for one in plan.meters]

    def hear(data: bytes) -> bytes:
        for meter in hang_there:
            meter.receive_data(data, sim.now())
        return b"".join(meter.data_to_send() for meter in hang_there)

    chosen = SessionSettings(
        heartbeat_s=30.0,
        relay_carrier_timeout_s=5,
        meters={"default": profile},
        forward_message_timeout_s=5,
    )
    wire, theirs = pair(3, up=up, down=down, peer="/dev/ttyS7")
    far = FarEnd(theirs, hear)
    registry = Registry(HandStore({plan.address: assets}), HandWriter(), chosen, clock, Metrics())
    doors = RelayDoors(registry, clock, SoftwareModule(BENCH_KEY, production=False))
    terminal = LineTerminal(plan.address, wire, clock, settings)
    accepted = asyncio.create_task(registry.accept(terminal))
    try:
        await until(lambda: registry.session(plan.address) is not None, 20.0)
        yield Street(night, plan, clock, registry, terminal, wire, far, doors, accepted, entries, hang_there)
    finally:
        await registry.close()
        await accepted
        await far.stop()
        assert terminal.closed.is_set()


def forward(address: str, control: int, data: bytes, allowed_s: float = 1.0) -> messages.Request:
    content = frame645.build(frame645.Frame(address, control, data))
    return messages.forward(1, content, allowed_s, 100)


class Alone:
    """A line terminal with nobody but a master of ours before it, and a wire where nobody answers."""

    def __init__(self, settings: LineSettings = PATIENT, clock: Clock | None = None) -> None:
        self.clock = clock or noon_clock()
        self.wire, self.meters = pair(1)
        self.terminal = LineTerminal("02001234", self.wire, self.clock, settings)
        self.master = Master()
        self.master.terminal = "02001234"

    def request(self, request: messages.Request) -> bytes:
        self.master.abandon()
        return self.master.send(request, self.clock.monotonic(), 60.0)

    async def outcome(self) -> object:
        async with asyncio.timeout(20):
            while True:
                while (event := self.master.next_event()) is not None:
                    if isinstance(event, Answered | Confirmed | Denied):
                        return event
                data, _ = await self.terminal.read()
                self.master.receive_data(data, self.clock.monotonic())

    async def ask(self, request: messages.Request) -> object:
        await self.terminal.write(self.request(request))
        return await self.outcome()
