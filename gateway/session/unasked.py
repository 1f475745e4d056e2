"""What a terminal sends unasked, and answers that come too late: filed by what they say, confirmed once safe.

Each frame is handled by a task of its own, so that the reader never waits for the database; their number is
bounded, and a frame that finds no room is not confirmed: the terminal sends it again.
"""

from __future__ import annotations

import asyncio
import contextlib
from datetime import datetime
from typing import TYPE_CHECKING, Final

import structlog

from gateway.errors import LinkClosed, StorageError
from gateway.model import RawFrame, Source
from gateway.session import translate
from gateway.session.events import EVENTS
from protocols.q_gdw376.frame import Frame

if TYPE_CHECKING:
    from gateway.session.terminal import TerminalSession

log = structlog.get_logger()

PENDING: Final = 32
"""Frames of one terminal that are being filed: a terminal has 16 sequence numbers, and may repeat each."""


LEARNING_PATIENCE_S: Final = 5.0
"""How long a report waits for the questions after a login; terminals repeat a report after 10 s or more."""


class _NotYet(Exception):
    """Which meters the terminal means is not known yet."""


class Unasked:
    """Belongs to one session."""

    def __init__(self, session: TerminalSession) -> None:
        self._session = session
        self._tasks: set[asyncio.Task[None]] = set()

    def take(self, frame: Frame, raw: bytes, *, late: bool) -> None:
        """File what `frame` says; never waits. late: an answer to something asked earlier, else sent
        unasked."""
        if len(self._tasks) >= PENDING:
            log.warning("too many unasked frames are being filed: one dropped", terminal=frame.terminal)
            return
        received_at = self._session.parts.clock.now()
        task = asyncio.get_running_loop().create_task(self._handle(frame, raw, late, received_at))
        for tasks in (self._tasks, self._session.parts.filing):
            tasks.add(task)
            task.add_done_callback(tasks.discard)

    async def settled(self) -> None:
        """Wait until all that was taken is filed or given up."""
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _handle(self, frame: Frame, raw: bytes, late: bool, received_at: datetime) -> None:
        session = self._session
        try:
            await self._file(frame, raw, late, received_at)
        except StorageError as error:
            log.error("values sent unasked are not filed", terminal=session.address, why=str(error))
            return
        except _NotYet:
            return  # not confirmed: the terminal sends it again
        if frame.con:
            with contextlib.suppress(LinkClosed):
                await session.confirm(frame)

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

    async def _file(self, frame: Frame, raw: bytes, late: bool, received_at: datetime) -> None:
        """Returns once everything that can be kept of the frame is committed. StorageError."""
        session, parts = self._session, self._session.parts
        source = Source.TERMINAL if late else Source.PUSHED
        reason: str | None = f"{'late' if late else 'unasked'} AFN{frame.afn:02X}"
        if frame.afn in (translate.HISTORY, translate.PRESENT):
            await self._learned()
            await session.refresh_assets()
            context = session.context(source, received_at)
            rows_of = translate.frozen_rows if frame.afn == translate.HISTORY else translate.present_rows
            translated = rows_of(frame, context)
            if translated.rows:
                await parts.writer.file(translated.rows)
                parts.metrics.readings[source].inc(len(translated.rows))
            if translated.rows or translated.refused:
                reason = translated.strange
        elif frame.afn == EVENTS:
            await self._learned()
            reason = await session.events.file(frame, received_at)
        if reason is None:
            return
        kept = RawFrame(received_at, session.address, "up", reason, raw)
        if frame.con and not late:
            await parts.raw.keep_durably(kept)
        else:
            parts.raw.keep(kept)
