"""A registry with all around it made by hand, and terminals that say exactly what a test wants."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from gateway.clock import Clock, frozen_at, to_device
from gateway.errors import LinkClosed, StorageError
from gateway.metrics import Metrics
from gateway.model import (
    Due,
    EventBatch,
    EventClass,
    EventRow,
    Kind,
    MeterClass,
    Point,
    PointRole,
    Quantity,
    RawFrame,
    ReadingRow,
    SignOfLife,
    TerminalAssets,
)
from gateway.session.registry import Registry
from gateway.session.settings import SessionSettings
from gateway.session.terminal import TerminalSession
from gateway.transports.memory import MemoryLink, pair
from protocols.q_gdw376 import messages, midnight
from protocols.q_gdw376.frame import Frame, build
from protocols.q_gdw376.messages import Clock as DeviceClock
from protocols.q_gdw376.messages import encode_unit
from protocols.q_gdw376.stream import FrameStream
from protocols.wire import Damaged

ADDRESS = "02001234"
NOON = datetime(2026, 11, 24, 4, 0, tzinfo=UTC)
"""24 November 2026, 12:00 in Shanghai"""
MIDNIGHT = frozen_at(NOON.date() - timedelta(days=1))
"""the one that opened that day; it closes business day 23 November"""


def clock_at(start: datetime, speed: float = 1.0) -> Clock:
    """A clock that shows `start` now."""
    return Clock(origin=time.time(), start=start.timestamp(), speed=speed)


def noon_clock(speed: float = 1.0) -> Clock:
    return clock_at(NOON, speed)


def point(pn: int, **changes: object) -> Point:
    """Meter 1000 + pn at point pn, a single-phase customer unless told otherwise."""
    plain = Point(
        pn=pn,
        meter_id=1000 + pn,
        meter=meter_address(pn),
        address=meter_address(pn),
        protocol="dlt645-2007",
        meter_class=MeterClass.SINGLE_PHASE,
        role=PointRole.CUSTOMER,
        tariffs=4,
        port=31,
        ct=1,
        pt=1,
        profile="default",
        valid_from=None,
        valid_to=None,
    )
    return replace(plain, **changes)  # type: ignore[arg-type]  # names and values are the caller's


def meter_address(pn: int) -> str:
    return f"{202_600_000_000 + pn:012d}"


def assets(*points: Point, archive: bool = True, profile: str = "default") -> TerminalAssets:
    """Terminal ADDRESS with these points (p1 to p4 if none); `archive`: known, and right."""
    points = points or tuple(point(pn) for pn in range(1, 5))
    known = {one.pn: one.address for one in points} if archive else None
    return TerminalAssets(7, ADDRESS, profile, points, known)


def due(
    pn: int,
    quantity: Quantity = Quantity.FORWARD_ACTIVE,
    kind: Kind = Kind.DAY,
    at: datetime = MIDNIGHT,
) -> Due:
    return Due(1000 + pn, pn, quantity, kind, at)


@dataclass
class HandStore:
    """A store in memory; `away` makes it raise StorageError."""

    terminals: dict[str, TerminalAssets] = field(default_factory=dict)
    away: bool = False
    logins: list[tuple[int, str]] = field(default_factory=list)
    looked_up: list[str] = field(default_factory=list)
    """terminals whose assets were read"""
    strangers: list[str] = field(default_factory=list)
    archives: dict[int, dict[int, str]] = field(default_factory=dict)
    clocks: list[float] = field(default_factory=list)
    raw: list[RawFrame] = field(default_factory=list)
    touched: list[list[int]] = field(default_factory=list)
    """terminals of each statement"""
    elsewhere: bool = False
    """another process has the terminals"""
    events: dict[tuple[EventClass, int, int, bytes], EventRow] = field(default_factory=dict)
    batches: list[EventBatch] = field(default_factory=list)
    pointers: dict[EventClass, int] = field(default_factory=lambda: dict.fromkeys(EventClass, 0))

    def _here(self) -> None:
        if self.away:
            raise StorageError("the database is away")

    async def terminal(self, address: str) -> TerminalAssets | None:
        self._here()
        self.looked_up.append(address)
        return self.terminals.get(address)

    async def asset_changes(self) -> int:
        self._here()
        return hash(repr(self.terminals))

    async def login(self, terminal_id: int, worker: str, peer: str, at: datetime) -> int:
        self._here()
        self.logins.append((terminal_id, peer))
        return len(self.logins)

    async def touch(self, signs: Sequence[SignOfLife]) -> set[int]:
        self._here()
        self.touched.append([sign.terminal_id for sign in signs])
        return set() if self.elsewhere else {sign.terminal_id for sign in signs}

    async def note_unregistered(self, address: str, peer: str, at: datetime) -> None:
        self._here()
        self.strangers.append(address)

    async def note_clock(self, terminal_id: int, offset_s: float, at: datetime) -> None:
        self._here()
        self.clocks.append(offset_s)

    async def save_archive(self, terminal_id: int, archive: Mapping[int, str], at: datetime) -> None:
        self._here()
        self.archives[terminal_id] = dict(archive)

    async def keep_raw(self, frames: Sequence[RawFrame]) -> None:
        self._here()
        self.raw += frames

    async def event_pointers(self, terminal_id: int) -> dict[EventClass, int]:
        self._here()
        return dict(self.pointers)

    async def file_events(self, terminal_id: int, batch: EventBatch) -> tuple[int, int]:
        """As `storage.events.file`; tests of the storage hold that one to the same rules."""
        self._here()
        self.batches.append(batch)
        before = len(self.events)
        for row in batch.rows:
            self.events.setdefault((batch.event_class, row.pointer, row.erc, row.raw), row)
        new = len(self.events) - before
        pointer = self.pointers[batch.event_class]
        moves = not batch.contested and (new or not batch.pushed)
        if moves and (pointer - batch.begin) % 256 <= batch.count:
            self.pointers[batch.event_class] = (batch.begin + batch.count) % 256
        return new, self.pointers[batch.event_class]


@dataclass
class HandWriter:
    """Files into a list. `gate` cleared: a commit that takes until it is set. `refuses`: StorageError."""

    rows: list[ReadingRow] = field(default_factory=list)
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    refuses: bool = False

    def __post_init__(self) -> None:
        self.gate.set()

    async def file(self, rows: Sequence[ReadingRow]) -> object:
        await self.gate.wait()
        if self.refuses:
            raise StorageError("refused for good")
        self.rows += rows
        return None


Answer = Callable[[Frame], "Sequence[bytes] | bytes | None"]
"""What a device answers to a request: data units, whole raw frames, or nothing."""


class Device:
    """A terminal at the other end of a link: sends what it is told, answers by `answers[(afn, fn)]`."""

    def __init__(self, link: MemoryLink, address: str = ADDRESS) -> None:
        self.link = link
        self.address = address
        self.answers: dict[tuple[int, int], Answer] = {}
        self.heard: list[Frame] = []
        self.confirms: list[Frame] = []
        self._stream = FrameStream()
        self._changed = asyncio.Event()
        self._sequence = 0
        self._task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        with contextlib.suppress(LinkClosed):
            while True:
                data, _ = await self.link.read()
                self._stream.receive_data(data)
                while (event := self._stream.next_event()) is not None:
                    assert not isinstance(event, Damaged), event
                    frame = event.frame
                    assert not frame.up
                    if frame.prm:
                        self.heard.append(frame)
                        await self._answer(frame)
                    else:
                        self.confirms.append(frame)
                self._changed.set()

    async def _answer(self, frame: Frame) -> None:
        unit = messages.decode(frame)[0]
        answer = self.answers.get((frame.afn, unit.fn))
        if answer is None:
            return
        made = answer(frame)
        if isinstance(made, bytes):
            await self.link.write(made)
        elif made is not None:
            await self.link.write(self.reply(frame, made))

    def reply(self, asked: Frame, units: Sequence[bytes], **changes: object) -> bytes:
        """A frame that answers `asked` with these units."""
        frame = Frame(
            terminal=self.address,
            up=True,
            prm=False,
            function=8,
            afn=asked.afn,
            body=b"".join(units),
            msa=asked.msa,
            pseq=asked.pseq,
        )
        return build(replace(frame, **changes))  # type: ignore[arg-type]  # names and values are the caller's

    def deny(self, asked: Frame) -> bytes:
        """AFN00 F2 to `asked`."""
        return self.reply(asked, [encode_unit(0, 2, 0)], afn=0)

    def confirm(self, asked: Frame) -> bytes:
        """AFN00 F1 to `asked`."""
        return self.reply(asked, [encode_unit(0, 1, 0)], afn=0)

    async def say(self, afn: int, *units: bytes, con: bool = True, address: str | None = None) -> Frame:
        """Send a frame unasked (PRM = 1)."""
        self._sequence = (self._sequence + 1) % 16
        frame = Frame(
            terminal=address or self.address,
            up=True,
            prm=True,
            function=9 if afn == 2 else 10,
            afn=afn,
            body=b"".join(units),
            con=con,
            pseq=self._sequence,
        )
        await self.link.write(build(frame))
        return frame

    async def login(self) -> Frame:
        return await self.say(2, encode_unit(2, 1, 0))

    async def beat(self, shown: datetime | None = None) -> Frame:
        """A heartbeat, with a clock if `shown` (naive)."""
        return await self.say(2, encode_unit(2, 3, 0, None if shown is None else DeviceClock(shown)))

    async def confirmed(self, frame: Frame, seconds: float = 2.0) -> Frame:
        """Wait for the confirm of `frame`."""

        def found() -> Frame | None:
            return next((one for one in self.confirms if one.pseq == frame.pseq), None)

        await until(lambda: found() is not None, seconds)
        confirm = found()
        assert confirm is not None
        self.confirms.remove(confirm)
        return confirm

    def requests(self, afn: int) -> list[Frame]:
        """What was asked so far with that AFN."""
        return [frame for frame in self.heard if frame.afn == afn]

    async def vanish(self) -> None:
        """Drop off without a word."""
        self.link.vanish()

    async def hang_up(self) -> None:
        await self.link.close()
        self._task.cancel()


async def until(true: Callable[[], bool], seconds: float = 2.0) -> None:
    """Wait until `true()`; fails after `seconds` of real time."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not come about"
        await asyncio.sleep(0.002)


class Stage:
    """A registry on a store and a writer by hand, and devices that dial it."""

    def __init__(self, settings: SessionSettings, clock: Clock, *known: TerminalAssets) -> None:
        self.clock = clock
        self.settings = settings
        self.metrics = Metrics()
        self.store = HandStore({one.address: one for one in known})
        self.writer = HandWriter()
        self.registry = Registry(self.store, self.writer, settings, clock, self.metrics)
        self.tasks: list[asyncio.Task[None]] = []
        self.devices: list[Device] = []

    def dial(self, address: str = ADDRESS, host: str = "192.0.2.1") -> Device:
        """A new connection from `host`."""
        port = 40_000 + len(self.devices)
        ours, theirs = pair(len(self.devices), peer=f"{host}:{port}")
        self.tasks.append(asyncio.create_task(self.registry.accept(ours)))
        device = Device(theirs, address)
        self.devices.append(device)
        return device

    async def logged_in(
        self,
        address: str = ADDRESS,
        host: str = "192.0.2.1",
        held: Mapping[int, str] | None = None,
        mute: bool = False,
    ) -> Device:
        """A device that has logged in and whose session is there; it knows clock and archive (`held`, by
        default what the assets have). mute: it answers nothing."""
        device = self.dial(address, host)
        if not mute:
            self.teach(device, held)
        before = self.registry.session(address)
        frame = await device.login()
        await device.confirmed(frame)
        await until(lambda: self.registry.session(address) not in (None, before))
        return device

    def teach(self, device: Device, held: Mapping[int, str] | None = None) -> None:
        """Have it answer what is asked after a login."""
        known = self.store.terminals.get(device.address)
        if held is None:
            held = {one.pn: one.address for one in known.points} if known is not None else {}
        archive = held
        device.answers[0x0C, 2] = lambda frame: [self.clock_unit()]
        device.answers[0x09, 1] = device.deny
        device.answers[0x09, 2] = device.deny
        device.answers[0x0A, 10] = lambda frame: archive_answer(device, frame, archive)

    def clock_unit(self, ahead_s: float = 0.0) -> bytes:
        """0C F2 that is right, or ahead."""
        shown = to_device(self.clock.now()).replace(microsecond=0) + timedelta(seconds=ahead_s)
        return encode_unit(0x0C, 2, 0, DeviceClock(shown, shown.isoweekday()))

    def session(self, address: str = ADDRESS) -> TerminalSession:
        session = self.registry.session(address)
        assert session is not None
        return session

    def count(self, name: str, **labels: str) -> float:
        """A metric's value."""
        return self.metrics.registry.get_sample_value(f"lingdian_{name}", labels) or 0.0


def archive_answer(device: Device, asked: Frame, held: Mapping[int, str]) -> list[bytes] | bytes:
    """0A F10 for those sequences that exist (sequence = pn); denied where none does."""
    query = messages.decode(asked)[0].value
    assert isinstance(query, messages.ArchiveQuery)
    records = tuple(
        messages.ArchiveRecord(sequence, sequence, 31, 2400, 30, held[sequence], 4)
        for sequence in query.sequences
        if sequence in held
    )
    if not records:
        return device.deny(asked)
    return [encode_unit(0x0A, 10, 0, messages.Archive(records))]


def frozen_unit(
    pn: int,
    fn: int = 161,
    registers: Sequence[int | None] = (12_345_600, 3_000_000, 4_005_000, 5_000_600, 340_000),
    tag: datetime | None = None,
    read_at: datetime | None = None,
) -> bytes:
    """One frozen register of the night before NOON; tag and read_at naive."""
    wall = to_device(MIDNIGHT)
    day = (tag or wall - timedelta(days=1)).date()
    return midnight.encode(pn, fn, day, read_at or wall + timedelta(minutes=5), tuple(registers))


@asynccontextmanager
async def stage(
    *known: TerminalAssets, settings: SessionSettings | None = None, clock: Clock | None = None
) -> AsyncIterator[Stage]:
    """A stage for one test; everything is ended afterwards."""
    made = Stage(settings or SessionSettings(), clock or noon_clock(), *known)
    try:
        yield made
    finally:
        made.writer.gate.set()
        await made.registry.close()
        for device in made.devices:
            device._task.cancel()
        await asyncio.gather(*made.tasks, return_exceptions=True)
        await asyncio.gather(*(device._task for device in made.devices), return_exceptions=True)
