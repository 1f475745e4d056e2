"""A small world behind the collector's doors: terminals that do what they are told, a store, a writer."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta

from gateway.clock import SHANGHAI, Clock
from gateway.collection.collector import Collector
from gateway.collection.plan import StoredKey, due
from gateway.collection.policy import Policy
from gateway.collection.stores import Session
from gateway.config import CollectionSettings
from gateway.errors import LinkClosed, StorageError
from gateway.metrics import Metrics
from gateway.model import (
    Due,
    Failure,
    Kind,
    MeterClass,
    Point,
    PointRole,
    Quality,
    Quantity,
    ReadingRow,
    Reason,
    Source,
    TerminalAssets,
)
from gateway.session.answers import FrozenAnswer, ReadingProgress

DAY = date(2026, 11, 23)
MORNING = datetime(2026, 11, 24, 9, 30, tzinfo=SHANGHAI)
"""After DAY's midnight, in daytime."""


def clock_at(start: datetime = MORNING, speed: float = 1000.0) -> Clock:
    """A clock that shows `start` now and runs fast."""
    real = Clock()
    return Clock(real.now().timestamp(), start.timestamp(), speed)


def point(
    pn: int,
    meter_id: int | None = None,
    *,
    meter_class: MeterClass = MeterClass.SINGLE_PHASE,
    role: PointRole = PointRole.CUSTOMER,
    valid_from: datetime | None = None,
    valid_to: datetime | None = None,
) -> Point:
    """A meter at `pn`, plain where not told otherwise."""
    number = pn if meter_id is None else meter_id
    address = f"{number:012d}"
    return Point(
        pn=pn,
        meter_id=number,
        meter=address,
        address=address,
        protocol="dlt645-2007",
        meter_class=meter_class,
        role=role,
        tariffs=4,
        port=31,
        ct=1,
        pt=1,
        profile="",
        valid_from=valid_from,
        valid_to=valid_to,
    )


def assets_of(points: Iterable[Point], address: str = "02000001", terminal_id: int = 1) -> TerminalAssets:
    return TerminalAssets(terminal_id, address, "", tuple(points))


def row_of(one: Due, now: datetime, source: Source = Source.TERMINAL) -> ReadingRow:
    """The reading that a due asks for."""
    total = one.meter_id * 10_000
    return (
        one.meter_id,
        one.quantity,
        one.kind,
        one.frozen_at,
        total,
        total,
        None,
        None,
        None,
        None,
        now,
        now,
        source,
        Quality.GOOD,
    )


def fail(one: Due, reason: Reason) -> Failure:
    return Failure(one.meter_id, one.quantity, one.kind, one.frozen_at, reason)


Script = Callable[["Terminal", Sequence[Due]], FrozenAnswer | None]
"""Answers a request in a way of its own, or None for the usual way."""


@dataclass(eq=False)
class Terminal:
    """A terminal's session, scripted."""

    assets: TerminalAssets
    clock: Clock
    largest: int = 64
    """more points a request are denied, or not answered if `deaf`"""
    deaf: bool = False
    most: int = 16
    """points a request that the session advises"""
    lacks: dict[int, Reason] = field(default_factory=dict)
    """pn -> why it has no value there"""
    value_from: dict[int, datetime] = field(default_factory=dict)
    """pn -> when the terminal will have read that meter"""
    reading: bool | None = False
    """what 0C F11 says; None: denied"""
    ready_after: float = 0.0
    """seconds"""
    takes: float = 0.0
    """seconds an exchange"""
    script: deque[Script] = field(default_factory=deque)
    alive: bool = True
    contested: bool = False
    archive_in_doubt: bool = False
    doubts: int = 0
    """so often `ready` comes back and its archive is still not known"""
    asked: list[list[Due]] = field(default_factory=list)
    states_asked: int = 0
    busy: int = 0

    @property
    def address(self) -> str:
        return self.assets.address

    async def ready(self) -> None:
        await self.clock.sleep(self.ready_after)
        self.archive_in_doubt = self.doubts > 0
        self.doubts -= 1

    def points_a_request(self, quantity: Quantity, kind: Kind) -> int:
        return self.most

    async def reading_state(self) -> list[ReadingProgress] | None:
        self.states_asked += 1
        if not self.alive:
            raise LinkClosed("gone")
        if self.reading is None:
            return None
        return [ReadingProgress(31, len(self.assets.points), 0, not self.reading)]

    async def read_frozen(self, dues: Sequence[Due]) -> FrozenAnswer:
        assert dues
        assert len({(one.quantity, one.kind, one.frozen_at) for one in dues}) == 1
        assert self.busy == 0, "two exchanges at once on one terminal"
        self.busy += 1
        try:
            await self.clock.sleep(self.takes)
            self.asked.append(list(dues))
            if not self.alive:
                return self.dropped(dues)
            if self.script:
                answer = self.script.popleft()(self, dues)
                if answer is not None:
                    return answer
            return self.usual(dues)
        finally:
            self.busy -= 1

    def usual(self, dues: Sequence[Due]) -> FrozenAnswer:
        """What it does without a script."""
        now = self.clock.now()
        if len(dues) > self.largest:
            reason = Reason.TERMINAL_SILENT if self.deaf else Reason.TERMINAL_DENIED
            return FrozenAnswer(failures=[fail(one, reason) for one in dues], halve=True)
        answer = FrozenAnswer()
        for one in dues:
            if one.pn in self.lacks:
                answer.failures.append(fail(one, self.lacks[one.pn]))
            elif now < self.value_from.get(one.pn, now):
                answer.failures.append(fail(one, Reason.NO_VALUE_YET))
            else:
                answer.rows.append(row_of(one, now))
        return answer

    @staticmethod
    def dropped(dues: Sequence[Due]) -> FrozenAnswer:
        return FrozenAnswer(failures=[fail(one, Reason.TERMINAL_ABSENT) for one in dues], closed=True)


class Registry:
    """Who is logged in."""

    def __init__(self) -> None:
        self.here: dict[str, Terminal] = {}
        self.two: set[str] = set()
        """addresses that two devices use"""
        self.relay_under_way = False
        self._callbacks: list[Callable[[Session], None]] = []

    def login(self, terminal: Terminal) -> None:
        older = self.here.get(terminal.address)
        if older is not None and older is not terminal:
            older.alive = False
        terminal.alive = True
        self.here[terminal.address] = terminal
        for callback in self._callbacks:
            callback(terminal)

    def drop(self, terminal: Terminal) -> None:
        terminal.alive = False
        if self.here.get(terminal.address) is terminal:
            del self.here[terminal.address]

    def session(self, address: str) -> Terminal | None:
        return self.here.get(address)

    def sessions(self) -> Iterable[Terminal]:
        return list(self.here.values())

    def contested(self, address: str) -> bool:
        return address in self.two

    def gives_way(self) -> bool:
        return self.relay_under_way

    def on_login(self, callback: Callable[[Session], None]) -> None:
        self._callbacks.append(callback)


class Database:
    """Assets, committed rows and last failures."""

    def __init__(self, *terminals: TerminalAssets) -> None:
        self.assets = {one.address: one for one in terminals}
        self.rows: dict[tuple[int, int, int, datetime], ReadingRow] = {}
        self.failed: dict[tuple[int, int, int, datetime], Failure] = {}
        self.away = False
        self.times_noted = 0
        self.looked_up = 0

    def reach(self) -> None:
        if self.away:
            raise StorageError("the database is away; try again later")

    async def addresses(self) -> AsyncIterator[str]:
        self.reach()
        for address in sorted(self.assets):
            yield address

    async def terminal(self, address: str) -> TerminalAssets | None:
        self.reach()
        return self.assets.get(address)

    async def stored(self, meter_ids: Collection[int], frozen_at: datetime) -> set[StoredKey]:
        self.reach()
        self.looked_up += 1
        await asyncio.sleep(0)
        wanted = set(meter_ids)
        return {key[:3] for key in self.rows if key[3] == frozen_at and key[0] in wanted}

    async def note_failures(self, failures: Sequence[Failure], at: datetime) -> None:
        self.reach()
        self.times_noted += 1
        for one in failures:
            key = (one.meter_id, one.quantity, one.kind, one.frozen_at)
            if key not in self.rows:
                self.failed[key] = one

    def commit(self, rows: Sequence[ReadingRow]) -> None:
        for row in rows:
            self.rows[row[:4]] = row
            self.failed.pop(row[:4], None)

    def holds(self, dues: Iterable[Due]) -> int:
        """How many of `dues` are committed."""
        return sum((one.meter_id, one.quantity, one.kind, one.frozen_at) in self.rows for one in dues)

    def reasons(self) -> set[Reason]:
        return {one.reason for one in self.failed.values()}


class Writer:
    """Commits after `takes` seconds; `trouble` is raised instead while it lasts, `hangs` never ends."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self.database = database
        self.clock = clock
        self.takes = 0.0
        self.trouble: deque[Exception] = deque()
        self.hangs = False
        self.calls = 0
        self.waiting = 0
        self.most_waiting = 0

    async def file(self, rows: Sequence[ReadingRow]) -> object:
        self.calls += 1
        self.waiting += len(rows)
        self.most_waiting = max(self.most_waiting, self.waiting)
        try:
            if self.hangs:
                await asyncio.Event().wait()
            await self.clock.sleep(self.takes)
            if self.trouble:
                raise self.trouble.popleft()
            self.database.commit(rows)
        finally:
            self.waiting -= len(rows)
        return None


class World:
    """Terminals with meters, all behind one collector."""

    def __init__(
        self,
        *sizes: int,
        clock: Clock | None = None,
        settings: CollectionSettings | None = None,
        role: PointRole = PointRole.CUSTOMER,
        store_days: int = 30,
    ) -> None:
        """`sizes`: meters of each terminal; their ids are 1000 * terminal + pn."""
        self.clock = clock or clock_at()
        self.registry = Registry()
        self.terminals: list[Terminal] = []
        for number, size in enumerate(sizes, start=1):
            points = [point(pn, 1000 * number + pn, role=role) for pn in range(1, size + 1)]
            self.terminals.append(
                Terminal(assets_of(points, f"0200{number:04x}", number), self.clock, takes=0.05)
            )
        self.database = Database(*(one.assets for one in self.terminals))
        self.writer = Writer(self.database, self.clock)
        self.meters: dict[int, ReadingRow | Reason] = {}
        """meter id -> what a direct read gives, if not its value"""
        self.directly: list[tuple[str, Due]] = []
        self.own_freeze: bool | None = True
        """does a meter's own freeze agree with the terminal's value?"""
        self.confirmed: list[tuple[str, int]] = []
        self.metrics = Metrics()
        self.collector = Collector(
            self.registry,
            self.database,
            self.writer,
            self.clock,
            settings or CollectionSettings(),
            self.metrics,
            store_days=lambda profile: store_days,
            ask_meter=self.ask_meter,
            confirm_row=self.confirm_row,
        )

    def login(self, *terminals: Terminal) -> None:
        for terminal in terminals or self.terminals:
            self.registry.login(terminal)

    async def ask_meter(self, session: Session, at: Point, one: Due, /) -> ReadingRow | Failure:
        assert at.meter_id == one.meter_id
        assert one.kind is Kind.DAY
        await self.clock.sleep(1.0)
        if not session.alive:
            raise LinkClosed("gone")
        self.directly.append((session.address, one))
        given = self.meters.get(one.meter_id, row_of(one, self.clock.now(), Source.METER))
        return fail(one, given) if isinstance(given, Reason) else given

    async def confirm_row(self, session: Session, at: Point, row: ReadingRow, /) -> bool | None:
        assert at.meter_id == row[0]
        assert row[2] == Kind.DAY
        await self.clock.sleep(1.0)
        if not session.alive:
            raise LinkClosed("gone")
        self.confirmed.append((session.address, row[0]))
        return self.own_freeze

    def dues(self, day: date = DAY) -> list[Due]:
        return [one for assets in self.database.assets.values() for one in due(assets, day)]


def policy(**changes: object) -> Policy:
    """A policy with short waits, so that a test takes a moment."""
    base: dict[str, object] = {
        "pause": 10.0,
        "longest_pause": 60.0,
        "absent_wait": 5.0,
        "redial_wait": 60.0,
        "longest": timedelta(hours=2).total_seconds(),
    }
    return Policy(**(base | changes))  # type: ignore[arg-type]  # any field of Policy by name
