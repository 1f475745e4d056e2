"""One connection: who it is, how long it may stay silent, and what is done with what it says unasked."""

from __future__ import annotations

from datetime import datetime
from typing import Final, Protocol

import structlog

from gateway.clock import Clock
from gateway.metrics import Metrics
from gateway.session.conversation import Conversation
from gateway.session.doorkeeper import patience
from gateway.session.receipts import Receipt, begin, finish
from gateway.session.settings import SessionSettings
from gateway.session.terminal import TerminalSession
from gateway.session.turnstile import Turnstile
from gateway.transports.link import Link
from protocols.q_gdw376 import messages
from protocols.q_gdw376.connection import Master
from protocols.q_gdw376.frame import Frame
from protocols.wire import Damaged

log = structlog.get_logger()

LINK_TEST: Final = 0x02
LOGIN, LOGOUT, HEARTBEAT = 1, 2, 3

DAMAGE_BEFORE_LOGIN: Final = 8_192
"""Bytes of rubbish from a peer that has not said who it is; a terminal begins with its login."""

EARLY_FRAMES: Final = 8
"""Frames held while the assets of a terminal that just logged in are looked up."""

EARLY_UNSETTLED: Final = 4_096
"""The same where the carrier keeps what is unsettled: its own window is narrower, as a rule."""


class Host(Protocol):
    """The registry, as one connection sees it. None of these may raise."""

    turnstile: Turnstile

    def bind(self, peer: Peer, address: str) -> None:
        """This connection says it is terminal `address`: by a login, or a heartbeat without one."""
        ...

    def unbind(self, peer: Peer) -> None:
        """The terminal said goodbye."""
        ...

    def has(self, address: str) -> bool:
        """Does some connection speak for this terminal?"""
        ...

    async def admits(self, address: str) -> bool:
        """May this terminal stay? Always, unless unknown ones are refused."""
        ...

    def confirm(self, frame: Frame, profile: str | None) -> bytes:
        """The AFN00 for a frame, in the form that such a terminal takes."""
        ...

    def older_spoke(self, peer: Peer) -> None:
        """A connection that was taken over from sent a valid frame."""
        ...

    def keep_raw(self, peer: Peer, reason: str, raw: bytes) -> None:
        """Bytes for a person to look at."""
        ...


class Peer:
    """Owner of a conversation; see `Conversation` for what is called when."""

    def __init__(
        self, link: Link, host: Host, settings: SessionSettings, clock: Clock, metrics: Metrics
    ) -> None:
        self.link = link
        self.address: str | None = None
        """set by the host: the terminal that it said it is"""
        self.session: TerminalSession | None = None
        """set by the host once the assets are known to have that terminal"""
        self.unregistered = False
        """set by the host: the assets do not have it"""
        self.took_over = False
        self.early: list[tuple[Frame, bytes, tuple[Receipt, ...]]] = []
        self.shown: tuple[datetime, datetime] | None = None
        """terminal's clock and ours, where a heartbeat told it before there was a session"""
        self.waiting: tuple[str | None, int, int] | None = None
        """for whom and how far a frame last told the event counters EC1 and EC2; they are told once only"""
        self._host = host
        self._only_for = link.only_for
        self._settings = settings
        self._clock = clock
        self._metrics = metrics
        self._since = clock.monotonic()
        self._login_deadline_s = patience(settings.login_deadline_s)
        self._listen_until: float | None = None
        self._sent_before_takeover = 0
        self._rubbish = 0
        master = Master(reply_timeout=settings.reply_timeout_s, repeats=settings.repeats)
        self.conversation = Conversation(link, master, self, settings, clock, metrics, host.turnstile)

    def is_now(self, address: str) -> None:
        """From now on this connection speaks for `address`."""
        self.address = address
        self.session = None
        self.unregistered = False
        self.early.clear()
        self.conversation.speaks_for(address)

    async def admitted(self) -> None:
        """What the assets say of the terminal is known now: go on with the frames that waited for it."""
        early, self.early = self.early, []
        for frame, raw, receipts in early:
            self._other(frame, raw, receipts)
            await finish(receipts)

    def taken_over(self) -> None:
        """A newer login has the terminal now: only listen, for a while."""
        self._listen_until = self._clock.monotonic() + self._settings.listen_after_takeover_s
        # What it sent before the takeover may still wait in buffers: that is no sign of life after it.
        self._sent_before_takeover = self.conversation.received + self.link.waiting
        self.session = None
        self.early.clear()
        self.conversation.mute()

    def logged_out(self) -> None:
        """The terminal said goodbye; it has to log in again, or go."""
        self.address = None
        self.session = None
        self._since = self._clock.monotonic()
        self.conversation.rearm()

    # what the conversation tells

    def deadline(self) -> float:
        """See `Owner`."""
        if self._listen_until is not None:
            return self._listen_until
        if self.address is None:
            return self._since + self._login_deadline_s
        silence = self._settings.heartbeat_s * self._settings.missed_heartbeats
        return self.conversation.last_frame + silence

    def overdue(self) -> str:
        """See `Owner`."""
        if self._listen_until is not None:
            return f"terminal {self.address} has a newer login"
        if self.address is None:
            return "no login"
        return f"terminal {self.address} has missed {self._settings.missed_heartbeats} heartbeats"

    async def spontaneous(self, frame: Frame, raw: bytes, receipts: tuple[Receipt, ...]) -> None:
        """See `Owner`."""
        if self._listen_until is not None:
            self._heard_after_takeover()
            if frame.afn != LINK_TEST:
                begin(receipts)  # not to be settled: the newer login has it when it comes again
        elif frame.afn == LINK_TEST:
            await self._link_test(frame)
        else:
            if self.address is None and await self._proved(frame.terminal):
                self._host.bind(self, frame.terminal)
            self._other(frame, raw, receipts)

    async def _proved(self, terminal: str) -> bool:
        """Is a terminal that has not logged in here known by its link? What was not settled comes again over
        a new link, and the login that went before it does not."""
        only_for = self._only_for
        if only_for is None or terminal not in only_for or not await self._host.admits(terminal):
            return False
        return self._listen_until is None and not self._host.has(terminal)

    def late(self, frame: Frame, raw: bytes) -> None:
        """See `Owner`."""
        if self._listen_until is not None:
            self._heard_after_takeover()
        else:
            self._other(frame, raw, (), late=True)

    def damaged(self, damage: Damaged) -> None:
        """See `Owner`."""
        if self.address is not None or not self._rubbish:  # of a stranger's rubbish the beginning is enough
            self._host.keep_raw(self, f"damaged: {damage.reason}", damage.raw)
        if self.address is None:
            self._rubbish += len(damage.raw)
            if self._rubbish > DAMAGE_BEFORE_LOGIN:
                self.conversation.give_up("rubbish in place of a login")

    def events_waiting(self, ec1: int, ec2: int) -> None:
        """See `Owner`."""
        if self._listen_until is None:
            self.waiting = self.address, ec1, ec2
            if self.session is not None:
                self.session.events.waiting(ec1, ec2)

    def _heard_after_takeover(self) -> None:
        if self.conversation.received > self._sent_before_takeover:
            self._host.older_spoke(self)

    def _other(self, frame: Frame, raw: bytes, receipts: tuple[Receipt, ...], *, late: bool = False) -> None:
        if self.address is None or frame.terminal != self.address:
            self._host.keep_raw(self, f"frame of {frame.terminal}, which is not logged in here", raw)
        elif self.session is not None:
            self.session.unasked.take(frame, raw, receipts, late=late)
        elif self.unregistered:
            self._host.keep_raw(self, "frame of a terminal that is not in the assets", raw)
        elif not late:
            begin(receipts)
            if len(self.early) < (EARLY_UNSETTLED if receipts else EARLY_FRAMES):
                self.early.append((frame, raw, receipts))

    async def _link_test(self, frame: Frame) -> None:
        units = messages.decode(frame)
        fn = units[0].fn if units else 0
        if fn in (LOGIN, HEARTBEAT):
            if self.address != frame.terminal:
                if not self._may_be(frame.terminal) or not await self._host.admits(frame.terminal):
                    await self._refuse(frame)
                    return
                self._host.bind(self, frame.terminal)
            elif self.unregistered:
                self._host.bind(self, frame.terminal)  # it may have been imported meanwhile
        await self.conversation.write(
            self._host.confirm(frame, self.session.assets.profile if self.session else None)
        )
        if fn == HEARTBEAT:
            self._metrics.heartbeats.inc()
            if units and isinstance(units[0].value, messages.Clock) and units[0].value.at is not None:
                self._told_time(units[0].value.at)
        elif fn == LOGOUT and frame.terminal == self.address:
            log.info("logged out", terminal=self.address, peer=self.link.peer)
            self._host.unbind(self)

    def _may_be(self, terminal: str) -> bool:
        only_for = self._only_for
        if only_for is None or terminal in only_for:
            return True
        log.warning(
            "terminal refused: its link is for others",
            terminal=terminal,
            peer=self.link.peer,
            link_for=sorted(only_for),
        )
        return False

    async def _refuse(self, frame: Frame) -> None:
        """Deny, and close once that has left. Not `abort`: the carrier would think that this message ended
        us, and in the end give it up where it is welcome by then."""
        self._metrics.logins_refused.inc()
        await self.conversation.write(self.conversation.master.deny(frame))
        await self.link.close()

    def _told_time(self, shown: datetime) -> None:
        now = self._clock.now()
        if self.session is None:
            self.shown = shown, now
        else:
            self.session.told_time(shown, now)
            self.session.correct_clock_later()
