"""One link and the protocol on it: a reader that never waits for work, and one exchange at a time, urgent
first.

The owner is told of everything the terminal says unasked. Times are seconds of the house clock.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final, Literal, NamedTuple, Protocol

import structlog

from gateway.clock import Clock
from gateway.errors import LinkClosed
from gateway.metrics import Metrics
from gateway.session.channel import Channel, Urgency
from gateway.session.receipts import Receipt, Receipts
from gateway.session.settings import SessionSettings
from gateway.session.turnstile import Turnstile
from gateway.transports.link import Link, Taken
from protocols.q_gdw376.connection import (
    Answered,
    Confirmed,
    Denied,
    EventsWaiting,
    Late,
    Master,
    Silent,
    Spontaneous,
)
from protocols.q_gdw376.frame import Frame
from protocols.q_gdw376.messages import Request
from protocols.wire import Damaged

log = structlog.get_logger()

PATIENCE_S: Final = 4.0
"""An urgent request lets a lesser one that is under way have so long, then takes the channel from it: waiting
out the silence of a terminal (a minute and a half with its repeats) would make a household wait."""

TIMES_SET_ASIDE: Final = 3
"""A lesser request that was set aside so often is given up as silent."""

DAMAGE_PAUSE_S: Final = 2.0
"""Nothing for so long after damaged bytes: they were the answer. A read is then asked again at once, for
waiting out the timeout of a direct read of a meter costs a minute."""

TIMES_DAMAGED: Final = 2
"""How often a read is asked again for that reason."""

DAMAGE_ALLOWED: Final = 65_536
DAMAGE_REFILL_PER_S: Final = 64
"""Bytes that belong to no frame: a bad line has some, a peer that sends nothing else is closed. Refilled at a
rate that no honest line of one in a hundred damaged frames reaches."""


SHORT: Final = 64
"""Bytes that are handled at once: a heartbeat, a login, what dribbles. Answers of a sweep are longer; those
take turns."""

EVENTS_A_TURN: Final = 16
"""Frames of one peer that are handled before the others have a turn: one chunk may hold a hundred."""


Outcome = Answered | Denied | Confirmed | Silent


class Unsent(NamedTuple):
    """A request that had to leave at once and did not. certain: no byte of it left, and none will."""

    certain: bool
    detail: str


OUTCOME_NAMES: Final[dict[type[object], Literal["answered", "denied", "confirmed", "silent"]]] = {
    Answered: "answered",
    Denied: "denied",
    Confirmed: "confirmed",
    Silent: "silent",
}
"""As the metrics call them."""


class Owner(Protocol):
    """Who is told what a peer says. None of these may raise."""

    async def spontaneous(self, frame: Frame, raw: bytes, receipts: tuple[Receipt, ...]) -> None:
        """A frame with PRM = 1. Must return soon: the reader waits for it. receipts: of what it came in; see
        `begin`, for what is not safe when this returns."""
        ...

    def late(self, frame: Frame, raw: bytes) -> None:
        """An answer that nobody waits for."""
        ...

    def damaged(self, damage: Damaged) -> None:
        """Bytes that are no frame."""
        ...

    def events_waiting(self, ec1: int, ec2: int) -> None:
        """The terminal has important events, and its counters are others than before; behind the frame that
        told it."""
        ...

    def deadline(self) -> float | None:
        """When to end the link if nothing more is heard; None: never. May only move later without `rearm`."""
        ...

    def overdue(self) -> str:
        """Why the link ends now, for the log."""
        ...


class _SetAside(Exception):
    """The exchange had to leave the channel to a more urgent one."""


class _AnswerDamaged(Exception):
    """What came was damaged, and then nothing more."""


@dataclass(slots=True, eq=False)
class _Open:
    """The exchange that is under way."""

    request: Request
    urgency: Urgency
    again: bool
    """may be asked again after a damaged answer"""
    began: float
    done: asyncio.Future[Outcome]
    hurt: bool = False
    """something damaged has come since"""


class Conversation:
    """Speaks 376.1 over `link`. `run` reads until the link ends; `exchange` may be called meanwhile."""

    def __init__(
        self,
        link: Link,
        master: Master,
        owner: Owner,
        settings: SessionSettings,
        clock: Clock,
        metrics: Metrics,
        turnstile: Turnstile,
    ) -> None:
        """turnstile: that of all links."""
        self.link = link
        self.master = master
        self.last_frame = clock.monotonic()
        """when the last whole frame came"""
        self.last_asked = self.last_frame
        """when the last exchange began that was not about events"""
        self.received = 0
        """bytes that were read from the link"""
        self.damage = 0
        """runs of bytes that were no frame"""
        self.login = 0
        """how often the peer has said who it is"""
        self._last_bytes = self.last_frame
        self._owner = owner
        self._turnstile = turnstile
        self._turn: asyncio.Future[None] | None = None
        self._settings = settings
        self._clock = clock
        self._metrics = metrics
        self._loop = asyncio.get_running_loop()
        self._open: _Open | None = None
        self._channel = Channel(self._hurry)
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._repeating: asyncio.Task[None] | None = None
        self._muted = False
        self._ended = False
        self._given_up = False
        self._damage_left = float(DAMAGE_ALLOWED)
        self._damage_at = self.last_frame
        self._receipts = Receipts()
        self._handling = 0
        """tasks that are handling what came"""

    @property
    def ended(self) -> bool:
        """No exchange can be had any more."""
        return self._ended or self._muted

    # reading

    @property
    def _urgent(self) -> bool:
        """Does a relay command wait for what comes, or for the channel that what comes sets free?"""
        return (self._open is not None and self._open.urgency <= Urgency.RELAY) or self._channel.hurries

    async def run(self) -> None:
        """Read and handle what comes until the link ends, by the peer, a deadline, or too much damage."""
        self.rearm()
        try:
            while True:
                data, settle = await self.link.read()
                if len(data) > SHORT and not (self._urgent or self._turnstile.passed()):
                    self._turn = self._turnstile.queue()
                    await self._turn
                now = self._clock.monotonic()
                self.received += len(data)
                self._last_bytes = now
                self._receipts.came(len(data), settle)
                self.master.receive_data(data, now)
                await self._events(now)
                if self.master.held:  # half a frame: it has a deadline
                    self.rearm()
        except LinkClosed:
            pass
        finally:
            self._ended = self._receipts.ended = True
            if self._timer is not None:
                self._timer.cancel()
            if self._repeating is not None:
                self._repeating.cancel()
            self._end_exchanges()

    async def _events(self, now: float) -> None:
        """Handle what has come; an answer is safe with whoever asked, who would ask again for what is lost.
        Two tasks may be at it: the one that ends last knows that all is handled."""
        self._handling += 1
        try:
            await self._handle_events(now)
        finally:
            self._handling -= 1
        if self._receipts.open and not self._handling:
            await self._receipts.handled(self.master.held)

    async def _handle_events(self, now: float) -> None:
        metrics = self._metrics
        handled = 0
        while (event := self.master.next_event()) is not None:
            handled += 1
            if handled % EVENTS_A_TURN == 0:
                await asyncio.sleep(0)
            if isinstance(event, Damaged):
                self._note_damage(event, now)
                continue
            if isinstance(event, Silent):
                self._finish(event)
                continue
            if isinstance(event, EventsWaiting):
                self._owner.events_waiting(event.ec1, event.ec2)
                continue
            self.last_frame = now
            if isinstance(event, Answered):
                metrics.frames_up.inc(len(event.frames))
                await self._confirm_if_asked(event.frames[-1])
                self._finish(event)
                continue
            metrics.frames_up.inc()
            if isinstance(event, Spontaneous):
                await self._owner.spontaneous(event.frame, event.raw, self._receipts.current)
            elif isinstance(event, Late):
                metrics.exchanges["late"].inc()
                self._owner.late(event.frame, event.raw)
            else:
                self._finish(event)

    async def _confirm_if_asked(self, frame: Frame) -> None:
        """An answer with CON = 1: what it answers can be asked again, so this confirm need not wait."""
        if frame.con and not self._muted:
            await self.write(self.master.confirm(frame))

    def _note_damage(self, damage: Damaged, now: float) -> None:
        size = len(damage.raw)
        self.damage += 1
        self._metrics.damaged.inc()
        self._metrics.damaged_bytes.inc(size)
        refilled = self._damage_left + (now - self._damage_at) * DAMAGE_REFILL_PER_S
        self._damage_left = min(float(DAMAGE_ALLOWED), refilled) - size
        self._damage_at = now
        self._owner.damaged(damage)
        if self._open is not None and self._open.again and not self._open.hurt:
            self._open.hurt = True
            self._look_after_damage(self._open)
        if self._damage_left < 0:
            self.give_up("too much rubbish")
        if self._given_up:
            raise LinkClosed(f"{self.link.peer} was given up")

    def give_up(self, why: str, *, fault: bool = True) -> None:
        """End the link at once; what it sent and was not handled yet is not looked at any more.

        fault: the peer has done wrong."""
        if not self._given_up:
            self._given_up = True
            log.log(
                logging.WARNING if fault else logging.INFO,
                "link closed",
                why=why,
                peer=self.link.peer,
                terminal=self.master.terminal,
            )
            self.link.abort()

    async def write(self, data: bytes) -> None:
        """Send one frame now, whatever else is under way. Raises LinkClosed."""
        self._metrics.frames_down.inc()
        await self.link.write(data)

    async def _send_own(self) -> None:
        """What the protocol itself wants sent: repeats."""
        if data := self.master.data_to_send():
            await self.write(data)

    # deadlines

    def rearm(self) -> None:
        """Look at the deadlines again; to be called when one may have moved nearer."""
        times = [time for time in (self._owner.deadline(), self.master.next_timeout()) if time is not None]
        if not times or self._ended:
            return
        at = min(times)
        if self._timer is not None:
            if self._timer_at <= at:
                return
            self._timer.cancel()
        self._timer_at = at
        wait = max(0.0, at - self._clock.monotonic()) / self._clock.speed
        self._timer = self._loop.call_later(wait, self._at_deadline)

    def _at_deadline(self) -> None:
        self._timer = None
        now = self._clock.monotonic()
        limit = self._owner.deadline()
        if limit is not None and now >= limit:
            self.give_up(self._owner.overdue(), fault=False)
            return
        exchange = self.master.next_timeout()
        if exchange is not None and now >= exchange and (self._repeating is None or self._repeating.done()):
            self._repeating = self._loop.create_task(self._exchange_overdue(now))
        else:
            self.rearm()

    async def _exchange_overdue(self, now: float) -> None:
        self.master.handle_timeout(now)
        try:
            await self._events(now)
            await self._send_own()
        except LinkClosed:
            return  # the reader finds the end, too
        self.rearm()

    # exchanges

    async def exchange(
        self,
        request: Request,
        urgency: Urgency,
        *,
        reply_timeout: float | None = None,
        repeated: bool = True,
        only_reads: bool = False,
    ) -> Outcome:
        """Ask, and wait for what comes of it. reply_timeout: seconds, where this request needs another.
        repeated: False where silence is an answer, and a repeatable request is not sent again. only_reads: so
        does this request although the link cannot see it, and it may be asked again after a damaged answer.

        Raises LinkClosed when the link ends, the peer logs in anew or another login takes over,
        InputError when too many requests wait already.
        """
        login = self.login
        again = only_reads or request.repeatable
        set_aside = damaged = 0
        while set_aside < TIMES_SET_ASIDE and damaged <= TIMES_DAMAGED:
            await self._channel.take(urgency)
            try:
                if login != self.login:
                    raise LinkClosed(f"{self.link.peer} has logged in anew")
                sent = request if repeated else replace(request, repeatable=False)
                return await self._ask(sent, urgency, reply_timeout, again)
            except _SetAside:
                set_aside += 1
            except _AnswerDamaged:
                damaged += 1
            finally:
                self._channel.pass_on()
        self._metrics.exchanges["silent"].inc()
        return Silent(request, ())

    async def take(self, urgency: Urgency) -> None:
        """Have the channel for more than one exchange; `hold` is what calls this. InputError as for
        `exchange`."""
        await self._channel.take(urgency)

    def give_back(self) -> None:
        """Let the next have the channel. An exchange that is still open ends with LinkClosed."""
        self._end_exchanges()
        self._channel.pass_on()

    async def ask(
        self, request: Request, urgency: Urgency, reply_timeout: float, only_reads: bool
    ) -> Outcome:
        """One exchange of whoever has the channel: not set aside, never repeated by the link, and asked again
        after a damaged answer where it `only_reads`. Raises LinkClosed."""
        for _ in range(1 + TIMES_DAMAGED):
            try:
                return await self._ask(replace(request, repeatable=False), urgency, reply_timeout, only_reads)
            except _AnswerDamaged:
                continue
        self._metrics.exchanges["silent"].inc()
        return Silent(request, ())

    def hand_over(
        self, request: Request, urgency: Urgency, reply_timeout: float, last_check: Callable[[], bool]
    ) -> asyncio.Future[Outcome] | Unsent:
        """Have a request of whoever has the channel leave before this returns, and never again: the outcome
        is awaited apart, and is LinkClosed where the link ends before it. last_check: called when all is
        ready, with nothing but the write behind it; False keeps the request here.

        A link that may have taken some of the bytes is ended; one that took none may go on.
        LocalProtocolError as for `Master.send`.
        """
        if self.ended:
            return Unsent(True, "the link has ended")
        now = self._clock.monotonic()
        data = self.master.send(replace(request, repeatable=False), now, reply_timeout)
        open_ = _Open(request, urgency, False, now, self._loop.create_future())
        self._open = open_
        taken = Taken.NOTHING
        try:
            if not last_check():
                return Unsent(True, "held back by the last check")
            taken = self.link.write_now(data)
        finally:
            if taken is not Taken.WHOLE:
                self._open = None
                self.master.abandon()
        if taken is Taken.PERHAPS:
            self.give_up("a relay command could not leave at once")
        elif taken is Taken.NOTHING:
            log.warning(
                "a relay command could not leave at once", peer=self.link.peer, terminal=self.master.terminal
            )
        if taken is not Taken.WHOLE:
            return Unsent(taken is Taken.NOTHING, taken.value)
        self._metrics.frames_down.inc()
        self.last_asked = now
        self.rearm()
        return open_.done

    async def _ask(
        self, request: Request, urgency: Urgency, reply_timeout: float | None, again: bool
    ) -> Outcome:
        if self.ended:
            raise LinkClosed(f"{self.link.peer} is gone")
        now = self._clock.monotonic()
        data = self.master.send(request, now, reply_timeout)
        if urgency < Urgency.EVENTS:
            self.last_asked = now
        open_ = _Open(request, urgency, again, now, self._loop.create_future())
        self._open = open_
        self.rearm()
        try:
            await self.write(data)
            return await open_.done
        except LinkClosed:
            self._metrics.exchanges["broken"].inc()
            raise
        finally:
            if self._open is open_:  # given up by the caller, or the link ended while writing
                self._open = None
                self.master.abandon()
            if open_.done.done() and not open_.done.cancelled():
                open_.done.exception()  # seen: it may have come while the write failed

    def _cut_short(self, open_: _Open, why: Exception) -> None:
        """End the exchange that is under way without an outcome; its answer, if it still comes, is late."""
        self._open = None
        self.master.abandon()
        open_.done.set_exception(why)

    def _finish(self, outcome: Outcome) -> None:
        open_, self._open = self._open, None
        if open_ is None or open_.done.done():
            return
        self._metrics.exchanges[OUTCOME_NAMES[type(outcome)]].inc()
        self._metrics.exchange_seconds.observe(self._clock.monotonic() - open_.began)
        open_.done.set_result(outcome)

    def _hurry(self, urgency: Urgency, turn: asyncio.Future[None]) -> None:
        """See that a lesser exchange does not keep the channel from `turn` for longer than PATIENCE_S."""
        lesser = self._open
        least = lesser is not None and lesser.urgency == Urgency.EVENTS
        if urgency <= Urgency.RELAY and self._turn is not None and not self._turn.done():
            self._turn.set_result(None)  # the answer that keeps the channel has come and waits to be handled
        if turn.done() or (urgency > Urgency.PERSON and not least):
            return
        wait = PATIENCE_S
        if lesser is not None and lesser.urgency > urgency and (least or lesser.request.repeatable):
            wait -= self._clock.monotonic() - lesser.began
            if wait <= 0:
                self._cut_short(lesser, _SetAside())
                return
        self._loop.call_later(wait / self._clock.speed, self._hurry, urgency, turn)

    def _look_after_damage(self, open_: _Open) -> None:
        """Was that damage the answer? If nothing more comes for a while, it was."""
        if self._open is not open_:
            return
        wait = DAMAGE_PAUSE_S - (self._clock.monotonic() - self._last_bytes)
        if wait <= 0:
            self._cut_short(open_, _AnswerDamaged())
        else:
            self._loop.call_later(wait / self._clock.speed, self._look_after_damage, open_)

    def speaks_for(self, terminal: str) -> None:
        """From now on the peer is this terminal: what was asked of another one, or in an earlier login, ends
        with LinkClosed."""
        self._end_exchanges()
        self.master.terminal = terminal
        self.login += 1

    def mute(self) -> None:
        """Another login took the terminal over: from now on this peer is only listened to."""
        self._muted = True
        self._end_exchanges()
        self.rearm()

    def _end_exchanges(self) -> None:
        open_, self._open = self._open, None
        if open_ is not None and not open_.done.done():
            self._cut_short(open_, LinkClosed(f"{self.link.peer} is gone"))
