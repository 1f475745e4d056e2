"""A small district, or a line, played over a wire inside the test, and what the test's own peer needs."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import date, datetime
from pathlib import Path
from typing import Any

from simulator import channel, faults
from simulator.caller import Station
from simulator.clock import Clock, seconds
from simulator.district import District
from simulator.runner import Run, run_district, run_line
from simulator.wiring import TlsFiles, Wiring
from tests.simulator.tcp_master import TcpMaster

DAY = date(2026, 11, 23)
NINE = seconds(datetime(2026, 11, 24, 9, 0))
PATIENCE_S = 60.0


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not true():  # noqa: ASYNC110  # what is waited for has no event
            await asyncio.sleep(0.005)


def fast_clock(speed: float = 20.0) -> Clock:
    import time

    return Clock(time.time(), NINE, speed)


@dataclass
class Played:
    """What plays. counts: of a line at once, of a district when it has ended; told: its events."""

    told: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    ended: asyncio.Future[Any] | None = None

    def tell(self, name: str, what: dict[str, object]) -> None:
        self.told.append((name, what))

    async def places(self, count: int) -> dict[str, channel.Channel]:
        """Where its devices listen, by name, once there are so many."""
        await until(lambda: len(self._places()) >= count)
        return self._places()

    def _places(self) -> dict[str, channel.Channel]:
        listening = [what for name, what in self.told if name == "listening"]
        return {what["name"]: channel.parse(what["channel"]) for what in listening}


@asynccontextmanager
async def district_on(
    where: str,
    grown: District,
    *,
    listening: bool = False,
    table: dict[str, Any] | None = None,
    tls: TlsFiles | None = None,
    clients: int = 0,
    broker: dict[str, Any] | None = None,
    heartbeat: float = 60.0,
) -> AsyncIterator[Played]:
    """Played until the block ends, with a clean goodbye."""
    played = Played()
    chosen = faults.from_table(table or {})
    wiring = Wiring(
        channel.parse(where),
        listening=listening,
        tls=tls or TlsFiles(),
        clients=clients,
        broker=broker or {},
        messages=chosen.messages,
        tell=played.tell,
    )
    run = Run("", 0, fast_clock(), chosen, heartbeat, tell=played.tell, wiring=wiring)
    task = asyncio.create_task(run_district(grown, run, played.stop))
    try:
        yield played
    finally:
        played.stop.set()
        played.counts = await task


@asynccontextmanager
async def line_on(
    where: str, line: Station, counts: Counter[str], *, listening: bool = False
) -> AsyncIterator[Played]:
    played = Played(counts=counts)
    wiring = Wiring(channel.parse(where), listening=listening, tell=played.tell)
    run = Run("", 0, fast_clock(1.0), faults.Faults(), tell=played.tell, wiring=wiring)
    task = asyncio.create_task(run_line("line-7", line, run, counts, played.stop))
    try:
        yield played
    finally:
        played.stop.set()
        await task


def master_of(grown: District) -> TcpMaster:
    """It asks for the single-phase meters of every terminal."""
    return TcpMaster(
        grown.day,
        {
            plan.address: [meter.pn for meter in plan.meters if meter.meter_class == "single_phase"]
            for plan in grown.terminals
        },
    )


def assert_true(master: TcpMaster, grown: District) -> None:
    """All that it asked for has come, and is what the meters held."""
    assert not master.missing
    for plan in grown.terminals:
        for meter in plan.meters:
            if meter.meter_class == "single_phase":
                held = grown.registers(meter.number, meter.quantities[0], grown.day)
                assert master.values[plan.address, meter.pn] == tuple(100 * value for value in held)


class Pipe:
    """The master's end of anything that is no stream: feed it what comes; what it writes goes to `send`."""

    def __init__(self, master: TcpMaster, send: Callable[[bytes], object]) -> None:
        self._reader = asyncio.StreamReader()
        self._send = send
        self._task = asyncio.create_task(master.talk(self._reader, self))

    def feed(self, data: bytes) -> None:
        self._reader.feed_data(data)

    def write(self, data: bytes) -> None:
        self._send(data)

    def close(self) -> None:
        pass

    async def end(self) -> None:
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task


def files(certificate: Any, authority: Path) -> TlsFiles:
    """Of a `tests.gateway.api.test_tls.Identity`."""
    return TlsFiles(authority, certificate.file, certificate.key)
