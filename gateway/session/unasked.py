"""What a terminal sends unasked, and answers that come too late: filed by what they say, confirmed once safe.

Each frame is handled by a task of its own, so that the reader never waits for the database; their number is
bounded, and a frame that finds no room is not confirmed: the terminal sends it again. Where the link's
carrier keeps what is not settled, a report is settled once it is committed and confirmed.
"""

from __future__ import annotations

import asyncio
import contextlib
from datetime import datetime
from typing import TYPE_CHECKING, Final

import structlog

from gateway.errors import LinkClosed, StorageError
from gateway.model import RawFrame, ReadingRow, Source
from gateway.session import translate
from gateway.session.events import EVENTS
from gateway.session.receipts import Receipt, begin, finish
from protocols.q_gdw376.frame import Frame

if TYPE_CHECKING:
    from gateway.session.terminal import TerminalSession

log = structlog.get_logger()

PENDING: Final = 32
"""Frames of one terminal that are being filed: a terminal has 16 sequence numbers, and may repeat each."""

PENDING_UNSETTLED: Final = 4_096
"""The same where the carrier keeps what is unsettled. It bounds their number itself; this is for messages
that are full of frames. What finds no room is not settled, and comes again with another link."""

AGAIN_S: Final = 15.0
"""Between two tries to file such a frame: nobody else would send it again while the link stands."""

LEARNING_PATIENCE_S: Final = 5.0
"""How long a report waits for the questions after a login; terminals repeat a report after 10 s or more."""


class _NotYet(Exception):
    """Which meters the terminal means is not known yet."""


class Unasked:
    """Belongs to one session."""

    def __init__(self, session: TerminalSession) -> None:
        self._session = session
        self._tasks: set[asyncio.Task[None]] = set()

    def take(self, frame: Frame, raw: bytes, receipts: tuple[Receipt, ...] = (), *, late: bool) -> None:
        """File what `frame` says; never waits. receipts: of what it came in, settled once it is safe. late:
        an answer to something asked earlier, else sent unasked."""
        begin(receipts)
        if len(self._tasks) >= (PENDING_UNSETTLED if receipts else PENDING):
            log.warning("too many unasked frames are being filed: one dropped", terminal=frame.terminal)
            return
        received_at = self._session.parts.clock.now()
        task = asyncio.get_running_loop().create_task(self._handle(frame, raw, late, received_at, receipts))
        for tasks in (self._tasks, self._session.parts.filing):
            tasks.add(task)
            task.add_done_callback(tasks.discard)

    async def settled(self) -> None:
        """Wait until all that was taken is filed or given up."""
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _handle(
        self, frame: Frame, raw: bytes, late: bool, received_at: datetime, receipts: tuple[Receipt, ...]
    ) -> None:
        session = self._session
        tries = 0
        while True:
            try:
                filed = await self._file(frame, raw, late, received_at, settles=bool(receipts))
                break
            except StorageError as error:
                if not tries:
                    log.error("values sent unasked are not filed", terminal=session.address, why=str(error))
            except _NotYet:
                pass
            if not receipts or not session.alive:
                return  # not confirmed: the terminal sends it again
            tries += 1
            await session.parts.clock.sleep(AGAIN_S)
        if frame.con and filed:
            try:
                await session.confirm(frame)
            except LinkClosed:
                return
        await finish(receipts)

    async def _learned(self) -> None:
        """Give the questions after a login some time: clock and archive decide what may be filed. A terminal
        that does not answer them is taken at its word, unless it took another connection over."""
        session = self._session
        if session.learned:
            return
        with contextlib.suppress(LinkClosed, TimeoutError):
            async with asyncio.timeout(LEARNING_PATIENCE_S / session.parts.clock.speed):
                await session.ready()
        if session.archive_in_doubt:
            raise _NotYet

    async def _file(
        self, frame: Frame, raw: bytes, late: bool, received_at: datetime, *, settles: bool
    ) -> bool:
        """Returns once everything that can be kept of the frame is committed. False: its values cannot be
        filed, and it is only kept raw. StorageError."""
        session, parts = self._session, self._session.parts
        source = Source.TERMINAL if late else Source.PUSHED
        reason: str | None = f"{'late' if late else 'unasked'} AFN{frame.afn:02X}"
        filed = True
        if frame.afn in (translate.HISTORY, translate.PRESENT):
            await self._learned()
            await session.refresh_assets()
            context = session.context(source, received_at)
            rows_of = translate.frozen_rows if frame.afn == translate.HISTORY else translate.present_rows
            translated = rows_of(frame, context)
            if translated.rows or translated.refused:
                reason = translated.strange
            if translated.rows:
                filed = await self._filed(translated.rows, source)
            if not filed:
                reason = "its values are not filed"
        elif frame.afn == EVENTS:
            await self._learned()
            reason = await session.events.file(frame, received_at)
        if reason is None:
            return filed
        kept = RawFrame(received_at, session.address, "up", reason, raw)
        if not late and (frame.con or settles):
            await parts.raw.keep_durably(kept)
        else:
            parts.raw.keep(kept)
        return filed

    async def _filed(self, rows: list[ReadingRow], source: Source) -> bool:
        """False: the database refuses them for good."""
        parts = self._session.parts
        try:
            await parts.writer.file(rows)
        except StorageError as error:
            log.error("values sent unasked are refused", terminal=self._session.address, why=str(error))
            return False
        parts.metrics.readings[source].inc(len(rows))
        return True
