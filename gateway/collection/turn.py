"""One terminal's turn: carries out its course on its session, one exchange at a time, and has rows filed.

Filing is pipelined: the next request may be on the wire while earlier rows commit. A due counts as collected
only after `file()` has returned.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from enum import Enum
from typing import Final, TypeVar

import structlog

from gateway.clock import Clock
from gateway.collection.course import AskMeter, AskPoints, Course, Order, Pause
from gateway.collection.stores import AskMeter as AskMeterDoor
from gateway.collection.stores import Files, Session
from gateway.errors import LinkClosed, StorageError
from gateway.model import Due, Failure, Kind, Quantity, ReadingRow, Reason

log = structlog.get_logger()

T = TypeVar("T")

FILE_ROWS: Final = 256
"""Rows of one terminal that are handed to the writer together: a call for each answer of ten would cost more
than the rows. The writer puts many terminals' calls into one batch."""

FILE_AGE_SECONDS: Final = 1.0
"""Rows of a slow terminal wait no longer than this for others, or for the end of the exchange under way."""

FILINGS_AT_ONCE: Final = 3
"""Calls of `file()` under way for one terminal; with more, the terminal waits: that bounds memory."""

READY_SECONDS: Final = 300.0
"""For versions, clock and archive of a terminal that has just logged in, each with its repeats."""

EXCHANGE_SECONDS: Final = 900.0
"""A stop behind the session's own timeouts: no exchange with its repeats and its wait for the channel takes
longer; if it does, it counts as silence."""

SETTLE_SECONDS: Final = 30.0
"""After the deadline of a collection, for rows that the database has not taken yet."""

TURN_SECONDS: Final = 10.0
"""What a turn lasts at least before it lets another collection have the terminal: a person who asks for a day
must not wait until the schedule has asked thirty meters."""

CANCEL_SECONDS: Final = 2.0
"""Real ones, when the gateway stops: rows already here may still be filed."""


class Ending(Enum):
    """How a turn ended, if not with a pause."""

    FINISHED = "nothing more is to be had in this collection"
    LOST = "the link has ended"
    YIELDED = "another collection waits for the terminal"
    UNREADY = "the terminal has not answered the questions after its login, without which nothing is filed"


async def within(clock: Clock, seconds: float, what: Awaitable[T]) -> T:
    """The result of `what`; TimeoutError after `seconds` of `clock`."""
    async with asyncio.timeout(seconds / clock.speed):
        return await what


class Filing:
    """Rows of one terminal on their way to the database."""

    def __init__(self, writer: Files, course: Course, clock: Clock, deadline: datetime) -> None:
        self._writer = writer
        self._course = course
        self._clock = clock
        self._deadline = deadline
        self._rows: list[ReadingRow] = []
        self._dues: list[Due] = []
        self._since = 0.0
        self._tasks: set[asyncio.Task[None]] = set()
        self._error: BaseException | None = None

    async def add(self, rows: Sequence[ReadingRow], dues: Sequence[Due]) -> None:
        """Have `rows` filed, soon, and `dues` counted then. Waits where too much is under way already."""
        if not rows and not dues:
            return
        if not self._rows:
            self._since = self._clock.monotonic()
        self._rows.extend(rows)
        self._dues.extend(dues)
        if len(self._rows) >= FILE_ROWS or self._clock.monotonic() - self._since >= FILE_AGE_SECONDS:
            self._start()
            while len(self._tasks) >= FILINGS_AT_ONCE and await self._wait(asyncio.FIRST_COMPLETED):
                pass

    async def settle(self) -> None:
        """Wait until each due is filed or known not to be; at the deadline what still waits is given up."""
        self._start()
        while self._tasks and await self._wait(asyncio.ALL_COMPLETED):
            pass
        await self._let_go(SETTLE_SECONDS / self._clock.speed)
        if self._error is not None:
            raise self._error

    async def cut_short(self) -> None:
        """The gateway stops: only what the database takes at once is still waited for."""
        self._start()
        await self._let_go(CANCEL_SECONDS)

    def _start(self) -> None:
        if self._rows or self._dues:
            task = asyncio.create_task(self._file(self._rows, self._dues))
            self._rows, self._dues = [], []
            self._tasks.add(task)
            task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self._error = task.exception()

    async def _file(self, rows: Sequence[ReadingRow], dues: Sequence[Due]) -> None:
        try:
            await self._writer.file(rows)
        except StorageError as error:
            self._course.not_filed(dues, str(error))
        except BaseException:
            self._course.not_filed(dues, "not confirmed by the database")
            raise
        else:
            self._course.filed(dues)

    async def _wait(self, until: str) -> bool:
        """Wait for filings under way; False once the deadline has passed."""
        left = (self._deadline - self._clock.now()).total_seconds()
        if left > 0:
            await asyncio.wait(self._tasks, timeout=left / self._clock.speed, return_when=until)
        return left > 0 and self._error is None

    async def _let_go(self, real_seconds: float) -> None:
        """Wait so long for filings under way; those that are not done then count as not filed."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=real_seconds)
        while self._tasks:
            for task in self._tasks:
                task.cancel()
            await asyncio.wait(self._tasks)


class Turn:
    """Works one terminal until its course pauses or ends, or the link does."""

    def __init__(
        self,
        course: Course,
        session: Session,
        *,
        writer: Files,
        clock: Clock,
        ask_meter: AskMeterDoor,
        most_points: int,
        deadline: datetime,
        refresh: Callable[[Course], Awaitable[None]],
        wanted: Callable[[], bool],
    ) -> None:
        """most_points: in one request, whatever the terminal would take. refresh: reports what is stored.
        wanted: does another collection wait for this terminal?"""
        self._course = course
        self._session = session
        self._clock = clock
        self._ask_meter = ask_meter
        self._most_points = most_points
        self._refresh = refresh
        self._wanted = wanted
        self._filing = Filing(writer, course, clock, deadline)
        self.sample: ReadingRow | None = None
        """one of the terminal's own midnights that were filed"""

    async def run(self) -> Pause | Ending:
        """All rows had are filed or reported as not filed when this returns."""
        try:
            try:
                ending = await self._work()
            except LinkClosed:
                ending = Ending.LOST
            except asyncio.CancelledError:
                task = asyncio.current_task()
                if task is None or task.cancelling():
                    raise
                ending = Ending.LOST  # not we are cancelled but what we waited for: the session has ended
            await self._filing.settle()
        except BaseException:
            await self._filing.cut_short()
            raise
        return ending

    async def _work(self) -> Pause | Ending:
        course, session, clock = self._course, self._session, self._clock
        try:
            await within(clock, READY_SECONDS, session.ready())
        except TimeoutError:
            return Ending.UNREADY
        if session.alive and session.archive_in_doubt:
            return Ending.UNREADY
        yields_from = clock.monotonic() + TURN_SECONDS
        while True:
            if session.contested:
                course.give_up(Reason.CONTESTED)
            elif self._wanted() and clock.monotonic() >= yields_from:
                return Ending.YIELDED
            step = course.step(clock.now(), self._points)
            if isinstance(step, AskPoints):
                if not await self._ask_points(step.dues):
                    return Ending.LOST
            elif isinstance(step, AskMeter):
                await self._ask_one_meter(step)
            elif isinstance(step, Pause):
                return step
            elif step is Order.SETTLE:
                await self._filing.settle()
            elif step is Order.ASK_STATE:
                course.state(await self._still_reading())
            elif step is Order.REFRESH:
                await self._refresh(course)
            else:
                return Ending.FINISHED

    def _points(self, quantity: Quantity, kind: Kind) -> int:
        return min(self._most_points, self._session.points_a_request(quantity, kind))

    async def _ask_points(self, dues: Sequence[Due]) -> bool:
        """One request; False where the link ended in it. The exchange's own timeouts bound the wait: one more
        around each of ten thousand would cost more than their requests."""
        answer = await self._session.read_frozen(dues)
        _, _, quantity, kind, frozen_at = dues[0]
        had = {row[0] for row in answer.rows if row[1] == quantity and row[2] == kind and row[3] == frozen_at}
        if answer.rows and dues[0].kind is Kind.DAY:
            self.sample = answer.rows[0]
        coming = self._course.answered(dues, had, answer.failures, halve=answer.halve, closed=answer.closed)
        await self._filing.add(answer.rows, coming)
        return not answer.closed

    async def _still_reading(self) -> bool | None:
        """Is the terminal still reading its meters? None where it does not say."""
        try:
            ports = await within(self._clock, EXCHANGE_SECONDS, self._session.reading_state())
        except TimeoutError:
            return None
        return not all(port.finished for port in ports) if ports else None

    async def _ask_one_meter(self, step: AskMeter) -> None:
        """A direct read. The register that closes a month is the one that closes its last day: a meter keeps
        both under the day."""
        due = step.due
        of_day = Due(due.meter_id, due.pn, due.quantity, Kind.DAY, due.frozen_at)
        try:
            had = await within(
                self._clock, EXCHANGE_SECONDS, self._ask_meter(self._session, step.point, of_day)
            )
        except TimeoutError:
            had = Failure(due.meter_id, due.quantity, due.kind, due.frozen_at, Reason.METER_SILENT)
        if isinstance(had, Failure):
            self._course.metered(step, had)
            return
        self._course.metered(step, None)
        rows = [had]
        if due.kind is not Kind.DAY:
            rows.append((had[0], had[1], due.kind, *had[3:]))
        await self._filing.add(rows, [due])
