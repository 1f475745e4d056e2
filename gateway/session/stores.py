"""What sessions need of the database, as one door, and the buffer through which raw frames go there."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Protocol

import structlog

from gateway.errors import StorageError
from gateway.model import EventBatch, EventClass, RawFrame, ReadingRow, SignOfLife, TerminalAssets
from gateway.storage import assets, events, evidence
from gateway.storage.database import Database

log = structlog.get_logger()

RAW_FRAMES_HELD: Final = 2_000
"""Raw frames waiting for the database; when full the oldest go. They are for people to look at: a peer that
sends rubbish must cost neither memory nor waiting."""

RAW_BYTES_KEPT: Final = 2_048
"""Of one frame: enough to see what it was."""

FLUSH_S: Final = 1.0
RETRY_S: Final = 2.0


class Store(Protocol):
    """What sessions read and write; every method may raise StorageError."""

    async def terminal(self, address: str) -> TerminalAssets | None: ...

    async def asset_changes(self) -> int:
        """See `storage.assets.changes`."""
        ...

    async def login(self, terminal_id: int, worker: str, peer: str, at: datetime) -> int:
        """A new generation for this login."""
        ...

    async def touch(self, signs: Sequence[SignOfLife]) -> set[int]:
        """Signs of life; which of these terminals no other login has."""
        ...

    async def note_unregistered(self, address: str, peer: str, at: datetime) -> None: ...

    async def note_clock(self, terminal_id: int, offset_s: float, at: datetime) -> None: ...

    async def save_archive(self, terminal_id: int, archive: Mapping[int, str], at: datetime) -> None: ...

    async def keep_raw(self, frames: Sequence[RawFrame]) -> None: ...

    async def event_pointers(self, terminal_id: int) -> dict[EventClass, int]:
        """The next record to ask each memory for."""
        ...

    async def file_events(self, terminal_id: int, batch: EventBatch) -> tuple[int, int]:
        """Commit them: how many were new, and the next record to ask for; see `storage.events.file`."""
        ...


class Files(Protocol):
    """The writer of readings: `file` returns after COMMIT; StorageError where the rows are refused for
    good."""

    async def file(self, rows: Sequence[ReadingRow]) -> object: ...


class TerminalStore:
    """`Store` over the database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def terminal(self, address: str) -> TerminalAssets | None:
        return await assets.terminal(self._database, address)

    async def asset_changes(self) -> int:
        return await assets.changes(self._database)

    async def login(self, terminal_id: int, worker: str, peer: str, at: datetime) -> int:
        return await assets.login(self._database, terminal_id, worker, peer, at)

    async def touch(self, signs: Sequence[SignOfLife]) -> set[int]:
        return await assets.touch(self._database, signs)

    async def note_unregistered(self, address: str, peer: str, at: datetime) -> None:
        await assets.note_unregistered(self._database, address, peer, at)

    async def note_clock(self, terminal_id: int, offset_s: float, at: datetime) -> None:
        await assets.note_clock(self._database, terminal_id, offset_s, at)

    async def save_archive(self, terminal_id: int, archive: Mapping[int, str], at: datetime) -> None:
        await assets.save_archive(self._database, terminal_id, archive, at)

    async def keep_raw(self, frames: Sequence[RawFrame]) -> None:
        await evidence.keep_raw_frames(self._database, frames)

    async def event_pointers(self, terminal_id: int) -> dict[EventClass, int]:
        return await events.pointers(self._database, terminal_id)

    async def file_events(self, terminal_id: int, batch: EventBatch) -> tuple[int, int]:
        filed = await events.file(self._database, terminal_id, batch)
        return filed.new, filed.pointer


@dataclass(slots=True)
class _Held:
    frame: RawFrame
    kept: asyncio.Future[None] | None


class RawKeeper:
    """Takes raw frames without ever making the caller wait, and writes them out by a task of its own."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._held: deque[_Held] = deque()
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.dropped = 0
        """frames given up since the start because too many waited"""

    def keep(self, frame: RawFrame) -> None:
        """Keep `frame` for a person to look at, if there is room."""
        self._put(_Held(frame, None))

    async def keep_durably(self, frame: RawFrame) -> None:
        """As `keep`, and return once it is committed. Raises StorageError where it had to be given up."""
        kept: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._put(_Held(frame, kept))
        self._wake.set()
        await kept

    def _put(self, held: _Held) -> None:
        if len(held.frame.raw) > RAW_BYTES_KEPT:
            frame = held.frame
            held.frame = RawFrame(
                frame.received_at, frame.terminal, frame.direction, frame.reason, frame.raw[:RAW_BYTES_KEPT]
            )
        if len(self._held) >= RAW_FRAMES_HELD:
            self._give_up(self._held.popleft(), "too many raw frames wait for the database")
            self.dropped += 1
        self._held.append(held)
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run(), name="raw frames")

    @staticmethod
    def _give_up(held: _Held, why: str) -> None:
        if held.kept is not None and not held.kept.done():
            held.kept.set_exception(StorageError(why))

    async def _run(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(FLUSH_S):
                    await self._wake.wait()
            self._wake.clear()
            if self._held and not await self._flush():
                await asyncio.sleep(RETRY_S)

    async def _flush(self) -> bool:
        """Write out all that waits; False where the database is away (nothing is lost but what overflows)."""
        batch = list(self._held)
        self._held.clear()
        try:
            await self._store.keep_raw([held.frame for held in batch])
        except StorageError as error:
            log.warning("raw frames cannot be kept now", why=str(error))
            over = max(0, len(batch) + len(self._held) - RAW_FRAMES_HELD)
            for held in batch[:over]:
                self._give_up(held, str(error))
            self.dropped += over
            self._held.extendleft(reversed(batch[over:]))
            return False
        for held in batch:
            if held.kept is not None and not held.kept.done():
                held.kept.set_result(None)
        return True

    async def close(self) -> None:
        """Write out what waits, once, and stop."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self._held:
            await self._flush()
        for held in self._held:
            self._give_up(held, "the gateway stops")
        self._held.clear()
