"""One terminal that is logged in, and everything the rest of the house may ask of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field, replace
from datetime import datetime

import structlog

from gateway.clock import Clock, to_device
from gateway.errors import LinkClosed, StorageError
from gateway.metrics import Metrics
from gateway.model import (
    ArchiveRecord,
    Due,
    Failure,
    Kind,
    Quantity,
    RawFrame,
    ReadingRow,
    Reason,
    Source,
    TerminalAssets,
)
from gateway.session import asking, learning, translate
from gateway.session.answers import FrozenAnswer, PresentReading, ReadingProgress
from gateway.session.channel import Urgency
from gateway.session.clockwatch import ClockCheck, ClockWatch
from gateway.session.conversation import Conversation, Outcome
from gateway.session.events import EventFetch
from gateway.session.hold import Hold, held
from gateway.session.settings import SessionSettings, TerminalProfile
from gateway.session.stores import Files, RawKeeper, Store
from gateway.session.targets import Targets
from gateway.session.unasked import Unasked
from protocols.q_gdw376 import messages
from protocols.q_gdw376.connection import Answered, Denied, Silent
from protocols.q_gdw376.frame import Frame

log = structlog.get_logger()

ASSETS_FRESH_S = 60.0
"""Assets older than this are read again before values are filed by them: a meter may have been replaced."""


CLOCK_CORRECTIONS_S = 600.0
"""Between two tries to set a clock by policy: one may be refused for a while, near a midnight."""


@dataclass(frozen=True, slots=True)
class Parts:
    """What all sessions share."""

    store: Store
    writer: Files
    raw: RawKeeper
    settings: SessionSettings
    clock: Clock
    metrics: Metrics
    learning_at_once: asyncio.Semaphore
    fetching_at_once: asyncio.Semaphore
    filing: set[asyncio.Task[None]] = field(default_factory=set)
    """what goes on beside the links, and is waited for at a clean stop"""


class TerminalSession:
    """A terminal's login. Every method that asks raises LinkClosed once the link has ended, except
    `read_frozen`, which then answers with failures. Made by the registry."""

    def __init__(
        self,
        assets: TerminalAssets,
        generation: int,
        conversation: Conversation,
        parts: Parts,
        clock_watch: ClockWatch,
        contested: Callable[[str], bool],
        confirm: Callable[[Frame], bytes],
        *,
        changes: int | None = None,
        took_over: bool = False,
    ) -> None:
        """changes: see `storage.assets.changes`, as had before `assets`; None: these are read again when they
        are needed next. took_over: another connection of this address was open at the login. A dead one, most
        likely, or another device: so nothing is filed before its archive is seen to be the one that is
        known."""
        self.address = assets.address
        self.generation = generation
        self.parts = parts
        self.profile: TerminalProfile = parts.settings.profile(assets.profile)
        self.clock_watch = clock_watch
        self.version: messages.TerminalVersion | None = None
        self.rx_buffer: int | None = None
        """largest frame the terminal takes (AFN09 F2), bytes; None: it did not say"""
        self.tx_buffer: int | None = None
        """largest frame it sends"""
        self.learned = False
        """all that can be learned is; False also after the terminal stayed silent"""
        self.clock_told = False
        """in this login, by a heartbeat or when asked"""
        self.unasked = Unasked(self)
        self.events = EventFetch(self)
        self._conversation = conversation
        self._login = conversation.login
        self._contested = contested
        self._confirm = confirm
        self.archive_in_doubt = took_over
        """True: nothing is filed, since another device may speak here"""
        self._assets_at = parts.clock.monotonic()
        self._changes = changes
        self._clock_alarmed = False
        self._next_correction = 0.0
        self._learning: asyncio.Task[None] | None = None
        self._take_assets(assets)

    # what is known

    @property
    def alive(self) -> bool:
        """Is this the newest login, on an open link?"""
        return not self._conversation.ended and self._login == self._conversation.login

    @property
    def contested(self) -> bool:
        """Do two devices use this address?"""
        return self._contested(self.address)

    @property
    def peer(self) -> str:
        """Where it dialled in from; for logs only."""
        return self._conversation.link.peer

    @property
    def last_frame(self) -> float:
        """When the last frame came, by the house clock's monotonic seconds."""
        return self._conversation.last_frame

    @property
    def quiet_for(self) -> float:
        """Seconds since it was last asked anything but events."""
        return self.parts.clock.monotonic() - self._conversation.last_asked

    @property
    def damage(self) -> int:
        """Runs of bytes on the link that were no frame."""
        return self._conversation.damage

    @property
    def clock_offset(self) -> float | None:
        """Seconds; positive = the terminal is ahead; None: not known yet."""
        return self.clock_watch.offset

    @property
    def clock_off(self) -> bool:
        """Is the clock off by more than the profile allows?"""
        return self.clock_watch.off_by_more_than(self.profile.clock_tolerance_s)

    def _take_assets(self, assets: TerminalAssets) -> None:
        self.assets = assets
        doubt = "not compared since another login was taken over" if self.archive_in_doubt else ""
        self.targets = Targets(assets, doubt)
        self._asking = asking.Asking(assets, self.profile)

    def trust_archive(self, archive: dict[int, str] | None) -> None:
        """From now on values are compared with this archive (None: cannot be had, so they are not)."""
        self.archive_in_doubt = False
        self._take_assets(replace(self.assets, archive=archive))

    async def refresh_assets(self, *, at_once: bool = False) -> None:
        """Read the assets again if they are not fresh and any were changed since; with the database away the
        old ones stay. Thousands that are asked together would else read the same again each minute."""
        now = self.parts.clock.monotonic()
        if not at_once and now - self._assets_at < ASSETS_FRESH_S:
            return
        self._assets_at = now
        try:
            changes = await self.parts.store.asset_changes()
            if changes == self._changes:
                return
            assets = await self.parts.store.terminal(self.address)
        except StorageError as error:
            log.warning("assets cannot be read again", terminal=self.address, why=str(error))
            return
        if assets is None:
            log.warning("terminal is not in the assets any more", terminal=self.address)
            assets = replace(self.assets, points=())
        if assets.archive is None:
            assets = replace(assets, archive=self.assets.archive)
        if assets != self.assets:
            self._take_assets(assets)
        self._changes = changes

    def learn_later(self) -> asyncio.Task[None]:
        """Begin to learn what `ready` waits for, if that is not under way or done."""
        task = self._learning
        if task is None or (task.done() and not self.learned):
            task = self._learning = asyncio.get_running_loop().create_task(learning.learn(self))
            task.add_done_callback(self._learned)
        return task

    def _learned(self, task: asyncio.Task[None]) -> None:
        """A lost link ends learning; whoever waits for it is told. What is over is not kept: there are tens
        of thousands of sessions."""
        if not task.cancelled():
            task.exception()
        if self.learned:
            self._learning = None

    async def ready(self) -> None:
        """Wait until the terminal's versions, clock and archive are known, asking for them if need be.

        Returns as well when it stays silent about them: then what it says is compared with what is known."""
        if not self.alive:
            raise LinkClosed(f"terminal {self.address} is gone")
        if self._learning is not None or not self.learned:
            await asyncio.shield(self.learn_later())

    # asking

    async def exchange(
        self,
        request: messages.Request,
        urgency: Urgency,
        *,
        reply_timeout: float | None = None,
        repeated: bool = True,
        only_reads: bool = False,
    ) -> Outcome:
        """One exchange in protocol words, for the files beside this one; see `Conversation.exchange`."""
        if not self.alive:
            raise LinkClosed(f"terminal {self.address} is gone")
        patience = self.profile.reply_timeout_s if reply_timeout is None else reply_timeout
        return await self._conversation.exchange(
            request, urgency, reply_timeout=patience, repeated=repeated, only_reads=only_reads
        )

    def hold(self, urgency: Urgency) -> AbstractAsyncContextManager[Hold]:
        """Have the channel for a sequence of exchanges; see `hold.held`."""
        return held(self._conversation, self._login, urgency)

    async def confirm(self, frame: Frame) -> None:
        """Confirm a frame that the terminal sent. LinkClosed."""
        if not self.alive:
            raise LinkClosed(f"terminal {self.address} is gone")
        await self._conversation.write(self._confirm(frame))

    def context(self, source: Source, received_at: datetime) -> translate.Context:
        """What `translate` has to know of a frame of this terminal."""
        return translate.Context(
            self.targets,
            self.profile,
            received_at,
            source,
            self.contested,
            self.clock_watch.offset,
            self.clock_watch.distrusted_until,
        )

    def points_a_request(self, quantity: Quantity, kind: Kind) -> int:
        """How many points fit one request and its answer, by profile and the terminal's buffers; at least
        1."""
        return self._asking.points_that_fit(quantity, kind, self.rx_buffer, self.tx_buffer)

    async def read_frozen(self, dues: Sequence[Due]) -> FrozenAnswer:
        """Ask once for `dues` (all of the same quantity, kind and frozen_at; the caller sizes it)."""
        if not dues:
            return FrozenAnswer()
        await self.refresh_assets()
        request = self._asking.frozen_request(dues)
        if (request is None or len(request.units) < len(dues)) and not self._asking.knows(dues):
            await self.refresh_assets(at_once=True)
            request = self._asking.frozen_request(dues)
        if request is None:
            return FrozenAnswer(failures=[_failure(due, Reason.NOT_SUPPORTED) for due in dues])
        damage = self.damage
        try:
            outcome = await self.exchange(request, Urgency.COLLECT)
        except LinkClosed:
            absent = [_failure(due, Reason.TERMINAL_ABSENT, "the link ended") for due in dues]
            return FrozenAnswer(failures=absent, closed=True)
        if isinstance(outcome, Answered):
            return self._frozen_answer(dues, request, outcome.frames, Reason.LEFT_OUT)
        if isinstance(outcome, Silent):
            reason = Reason.TERMINAL_SILENT if self.damage == damage else Reason.DAMAGED
            return replace(self._frozen_answer(dues, request, outcome.frames, reason), halve=True)
        detail = learning.denial(outcome)
        return FrozenAnswer(
            failures=[_failure(due, Reason.TERMINAL_DENIED, detail) for due in dues], halve=True
        )

    def _frozen_answer(
        self, dues: Sequence[Due], request: messages.Request, frames: Sequence[Frame], otherwise: Reason
    ) -> FrozenAnswer:
        """Rows and failures of what came; `otherwise`: why a point is missing that is not in it."""
        received_at = self.parts.clock.now()
        context = self.context(Source.TERMINAL, received_at)
        first = dues[0]
        rows: list[ReadingRow] = []
        refused: list[translate.Refusal] = []
        for frame in frames:
            translated = translate.frozen_rows(frame, context, first.frozen_at)
            rows += translated.rows
            refused += translated.refused
            if (strange := translated.strange) is not None:
                self.parts.raw.keep(RawFrame(received_at, self.address, "up", strange, asking.as_sent(frame)))
        quantity, kind = first.quantity, first.kind
        had = {row[0] for row in rows if row[1] == quantity and row[2] == kind}
        missing = [due for due in dues if due.meter_id not in had]
        if not missing:
            return FrozenAnswer(rows)
        asked = {unit.pn for unit in request.units}
        why = {
            refusal.pn: refusal
            for refusal in refused
            if refusal.kind == kind and refusal.quantity in (quantity, None)
        }
        failures = []
        for due in missing:
            refusal = why.get(due.pn)
            if due.pn not in asked:
                failures.append(_failure(due, Reason.NOT_SUPPORTED))
            elif refusal is None:
                failures.append(_failure(due, otherwise))
            else:
                failures.append(_failure(due, refusal.reason, refusal.detail))
        return FrozenAnswer(rows, failures)

    async def reading_state(self) -> list[ReadingProgress] | None:
        """0C F11; None where the terminal does not know it."""
        outcome = await self.exchange(messages.reading_state(), Urgency.COLLECT)
        state = learning.value_of(outcome, messages.ReadingState)
        if state is None:
            return None
        return [
            ReadingProgress(
                port.port, port.total, port.read, port.read >= port.total or port.ended_at is not None
            )
            for port in state.ports
        ]

    async def read_present(self, pns: Sequence[int]) -> list[PresentReading]:
        """0C F129 for these points; those without a value are left out."""
        outcome = await self.exchange(messages.read_present(129, pns), Urgency.PERSON)
        if not isinstance(outcome, Answered):
            return []
        received_at = self.parts.clock.now()
        meters = self.targets.at(received_at)
        readings = []
        for frame in outcome.frames:
            for unit in messages.decode(frame, self.profile.variants):
                value = unit.value
                if not isinstance(value, messages.PresentEnergy) or not value.registers:
                    continue
                meter = meters.get(unit.pn)
                meter_id = meter.meter_id if meter is not None and meter.reason is None else None
                read_at = None if value.read_at is None else translate.utc(value.read_at)
                readings.append(PresentReading(unit.pn, meter_id, read_at, value.registers))
        return readings

    # clock

    def told_time(self, shown: datetime, at: datetime) -> ClockCheck:
        """The terminal's clock showed `shown` (naive) at `at` (UTC): noted, and alarmed if it is off."""
        offset = (shown - to_device(at)).total_seconds()
        self.clock_watch.note(offset, at)
        self.clock_told = True
        if self.clock_off != self._clock_alarmed:
            self._clock_alarmed = self.clock_off
            self.parts.metrics.clocks_off.inc(1 if self.clock_off else -1)
            log.warning(
                "the clock is off" if self.clock_off else "the clock is right again",
                terminal=self.address,
                seconds=round(offset),
            )
        return ClockCheck(offset, at, not self.clock_off)

    async def read_clock(self) -> ClockCheck | None:
        """0C F2; None where the terminal denied or stayed silent."""
        return await learning.read_clock(self, Urgency.PERSON)

    async def set_clock(self) -> ClockCheck:
        """05 F31 to the present time, then read back. Raises InputError near a midnight or across one, and
        where the terminal refuses."""
        return await learning.set_clock(self, Urgency.PERSON)

    def correct_clock_later(self) -> None:
        """By policy: set a clock that is off, once in a while."""
        now = self.parts.clock.monotonic()
        if self.clock_off and self.learned and now >= self._next_correction:
            self._next_correction = now + CLOCK_CORRECTIONS_S
            task = asyncio.get_running_loop().create_task(learning.correct_clock(self))
            self.parts.filing.add(task)
            task.add_done_callback(self.parts.filing.discard)

    # archive

    async def read_archive(self) -> dict[int, str]:
        """0A F10: pn -> meter address; stored, and compared with the assets from now on. InputError where the
        terminal does not give it."""
        return await learning.read_archive(self, Urgency.PERSON)

    async def archive_records(self) -> list[ArchiveRecord]:
        """0A F10, whole records in the order of their sequence numbers. InputError as above."""
        return await learning.archive_records(self, Urgency.PERSON)

    async def write_archive(self, records: Sequence[ArchiveRecord]) -> None:
        """04 F10, ten records a frame; pn 0 deletes. InputError where the terminal denies or is silent: what
        was written before stays, so read it back."""
        await learning.write_archive(self, records)

    def end(self) -> None:
        """The link has ended or another login took over."""
        self.events.end()
        if self._clock_alarmed:
            self._clock_alarmed = False
            self.parts.metrics.clocks_off.dec()


def _failure(due: Due, reason: Reason, detail: str = "") -> Failure:
    return Failure(due.meter_id, due.quantity, due.kind, due.frozen_at, reason, detail)


__all__ = [
    "ClockCheck",
    "Denied",
    "FrozenAnswer",
    "Parts",
    "PresentReading",
    "ReadingProgress",
    "TerminalSession",
    "Urgency",
]
