"""Stand-ins for the rooms below the HTTP interface: they answer what a test put in."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import Any, cast

import pytest

from gateway.api.parts import Parts
from gateway.api.runs import Collections
from gateway.clock import Clock
from gateway.collection.collector import Collector, Progress, Summary, Terminals
from gateway.errors import InputError
from gateway.metrics import Metrics
from gateway.model import ArchiveRecord, ReadingRow, Reason, TerminalAssets
from gateway.session.registry import Registry
from gateway.session.terminal import ClockCheck, PresentReading
from gateway.storage import assets
from gateway.storage.assets import UnregisteredTerminal
from gateway.storage.database import Database
from gateway.storage.readings import ReadingWriter
from tests.gateway.test_archive import point, record

NOON = datetime(2026, 11, 24, 4, tzinfo=UTC)
CLOCK = Clock(origin=0.0, start=NOON.timestamp(), speed=1e-9)
"""stands at noon of 2026-11-24 in Shanghai"""


@dataclass
class StandInSession:
    """A terminal that answers what the test put in."""

    address: str = "02001234"
    assets: TerminalAssets = field(
        default_factory=lambda: TerminalAssets(1, "02001234", "", (point(1), point(2)))
    )
    alive: bool = True
    contested: bool = False
    clock_offset: float | None = -2.0
    records: dict[int, ArchiveRecord] = field(default_factory=lambda: {1: record(1), 9: record(9)})
    presents: list[PresentReading] = field(default_factory=list)
    check: ClockCheck | None = None
    fault: Exception | None = None

    async def ready(self) -> None:
        if self.fault is not None:
            raise self.fault

    async def read_clock(self) -> ClockCheck | None:
        return self.check

    async def set_clock(self) -> ClockCheck:
        raise InputError("a midnight is near 临近零点")

    async def archive_records(self) -> list[ArchiveRecord]:
        return list(self.records.values())

    async def write_archive(self, records: Sequence[ArchiveRecord]) -> None:
        for one in records:
            self.records[one.sequence] = one

    async def read_archive(self) -> dict[int, str]:
        return {one.pn: one.address for one in self.records.values()}

    async def read_present(self, pns: Sequence[int]) -> list[PresentReading]:
        return [one for one in self.presents if one.pn in pns]


@dataclass
class StandInRegistry:
    held: list[StandInSession]
    reloads: int = 0

    def session(self, address: str) -> StandInSession | None:
        return next((one for one in self.held if one.address == address), None)

    def sessions(self) -> list[StandInSession]:
        return self.held

    async def reload(self) -> None:
        self.reloads += 1


@dataclass
class StandInWriter:
    rows: list[ReadingRow] = field(default_factory=list)

    async def file(self, rows: Sequence[ReadingRow]) -> None:
        self.rows.extend(rows)


@dataclass
class StandInDatabase:
    """Keeps what the audit is told."""

    audit: list[tuple[Any, ...]]

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[StandInDatabase]:
        yield self

    async def execute(self, statement: bytes, values: tuple[Any, ...]) -> None:
        self.audit.append(values)


@dataclass
class StandInCollector:
    """Collects when the test lets it."""

    go: asyncio.Event = field(default_factory=asyncio.Event)
    calls: list[tuple[date, Sequence[str] | None]] = field(default_factory=list)
    fault: Exception | None = None

    async def collect(
        self, day: date, *, terminals: Sequence[str] | None, progress: Callable[[Progress], None]
    ) -> Summary:
        self.calls.append((day, terminals))
        progress(Progress(3, 10, Terminals(1, 1, 0, 0, 0)))
        await self.go.wait()
        if self.fault is not None:
            raise self.fault
        return Summary(
            due=10,
            collected=9,
            missing=1,
            meters=8,
            meters_complete=7,
            reasons=Counter({Reason.NO_VALUE_YET: 1}),
            seconds=2.0,
        )


@dataclass
class StandInHouse:
    """The whole stand-in gateway. `trouble`: why it is not ready."""

    session: StandInSession = field(default_factory=StandInSession)
    writer: StandInWriter = field(default_factory=StandInWriter)
    collector: StandInCollector = field(default_factory=StandInCollector)
    trouble: list[str] = field(default_factory=list)
    audit: list[tuple[Any, ...]] = field(default_factory=list)
    registry: StandInRegistry = field(init=False)
    collections: Collections = field(init=False)
    parts: Parts = field(init=False)

    def __post_init__(self) -> None:
        self.registry = StandInRegistry([self.session])
        self.collections = Collections(cast(Collector, self.collector), CLOCK)
        self.parts = Parts(
            CLOCK,
            Metrics(),
            cast(Database, StandInDatabase(self.audit)),
            cast(ReadingWriter, self.writer),
            cast(Registry, self.registry),
            self.collections,
            lambda: self.trouble[0] if self.trouble else None,
        )


def stand_in_assets(monkeypatch: pytest.MonkeyPatch) -> None:
    """The assets know 02001234 (the session's) and 02009999 (absent); 03030001 is a stranger."""

    async def terminal(database: Database, address: str) -> TerminalAssets | None:
        return TerminalAssets(2, address, "", ()) if address == "02009999" else None

    async def terminals(
        database: Database, only: Sequence[str] | None = None
    ) -> AsyncIterator[TerminalAssets]:
        yield StandInSession().assets
        yield TerminalAssets(2, "02009999", "", ())

    async def unregistered(database: Database) -> list[UnregisteredTerminal]:
        return [UnregisteredTerminal("03030001", "192.0.2.1:5", NOON, NOON, 3)]

    monkeypatch.setattr(assets, "terminal", terminal)
    monkeypatch.setattr(assets, "terminals", terminals)
    monkeypatch.setattr(assets, "unregistered", unregistered)
