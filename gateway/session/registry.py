"""All terminals that are logged in, each under its own address, wherever it dialled in from.

A newer login takes the terminal over; the older connection is listened to for a while and closed. Whether two
devices use one address is decided by `contest`.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import Final

import structlog

from gateway.clock import Clock
from gateway.errors import StorageError
from gateway.metrics import Metrics
from gateway.model import RawFrame, SignOfLife
from gateway.session.clockwatch import ClockWatch
from gateway.session.contest import Contest
from gateway.session.doorkeeper import LoginDoorkeeper
from gateway.session.peer import Peer
from gateway.session.settings import SessionSettings
from gateway.session.stores import Files, RawKeeper, Store
from gateway.session.terminal import Parts, TerminalSession
from gateway.session.turnstile import Turnstile
from gateway.transports.link import Link
from protocols.q_gdw376.connection import Master
from protocols.q_gdw376.frame import Frame

log = structlog.get_logger()

TEND_S: Final = 5.0
"""How often contests are looked at for their end."""

TOUCH_S: Final = 300.0
"""How often a session's last sign of life is written down."""

TOUCHED_AT_ONCE: Final = 100
TOUCH_PAUSE_S: Final = 0.1
"""Sessions that are written down in one statement, and the pause behind it: with 10,000 of them ten seconds
in which nobody waits for more than half a millisecond."""

ADMIT_RETRY_S: Final = (1.0, 2.0, 5.0, 15.0, 30.0)
"""Waits between tries to look a terminal up while the database is away; the last one again and again."""

ADMITTED_AT_ONCE: Final = 4
"""Half of the connections to the database, as a rule. When thousands log in together, all of them waiting for
one would cost more memory than their sessions, and everybody else would wait behind them in vain."""

LOOK_AGAIN_S: Final = 60.0
"""How often the assets are asked again for a terminal that was not in them, at its heartbeats."""

WORKER: Final = f"{socket.gethostname()}:{os.getpid()}"
"""This process, as the owner of sessions in the database."""

CLOSING_S: Final = 5.0
"""How long a stop waits for values that are being filed."""


class Registry:
    """Built once by the service; what listens is given `accept`, and over TCP `doorkeeper`."""

    def __init__(
        self,
        store: Store,
        writer: Files,
        settings: SessionSettings,
        clock: Clock,
        metrics: Metrics,
    ) -> None:
        """store: DatabaseStore; writer: the ReadingWriter."""
        self.turnstile = Turnstile()
        self.doorkeeper = LoginDoorkeeper(settings, clock, metrics, self._keep)
        self._raw = RawKeeper(store)
        learning = asyncio.Semaphore(settings.logins_learned_at_once)
        fetching = asyncio.Semaphore(settings.events_fetched_at_once)
        self._parts = Parts(store, writer, self._raw, settings, clock, metrics, learning, fetching)
        self._settings = settings
        self._clock = clock
        self._metrics = metrics
        self._peers: set[Peer] = set()
        self._owners: dict[str, Peer] = {}
        self._sessions: dict[str, TerminalSession] = {}
        self.changes = 0
        """how often a session has begun or ended"""
        self._contests: dict[str, Contest] = {}
        self._contested_seen: set[str] = set()
        self._watches: dict[str, ClockWatch] = {}
        self._admissions: dict[str, asyncio.Task[None]] = {}
        self._looked_at: dict[str, float] = {}
        self._admitting = asyncio.Semaphore(ADMITTED_AT_ONCE)
        self._callbacks: list[Callable[[TerminalSession], None]] = []
        self._tending: asyncio.Task[None] | None = None
        self._confirmers = {form: Master(confirm_form=form) for form in ("F1", "F3")}

    # doors

    async def accept(self, link: Link) -> None:
        """Run one connection to its end; never raises on what the peer does."""
        if self._tending is None:
            self._tending = asyncio.get_running_loop().create_task(self._tend(), name="registry")
        peer = Peer(link, self, self._settings, self._clock, self._metrics)
        self._peers.add(peer)
        try:
            await peer.conversation.run()
        finally:
            self._peers.discard(peer)
            self._release(peer)
            await link.close()

    def session(self, address: str) -> TerminalSession | None:
        """The newest login of that terminal, if it is connected and in the assets."""
        return self._sessions.get(address)

    def sessions(self) -> Iterable[TerminalSession]:
        """All sessions, as they are now."""
        return list(self._sessions.values())

    def contested(self, address: str) -> bool:
        """Do two devices use this address?"""
        contest = self._contests.get(address)
        return contest is not None and contest.contested(self._clock.monotonic())

    def gives_way(self) -> bool:
        """Is a relay command under way, which what a sweep does leaves time to?"""
        return self.turnstile.gives_way

    def on_login(self, callback: Callable[[TerminalSession], None]) -> None:
        """Call `callback` at each login of a known terminal; it must not block."""
        self._callbacks.append(callback)

    async def reload(self, addresses: Iterable[str] | None = None) -> None:
        """Read the assets of these connected terminals (None: all) again, after an import or a meter swap."""
        for address in list(self._owners) if addresses is None else list(addresses):
            session = self._sessions.get(address)
            owner = self._owners.get(address)
            if session is not None:
                await session.refresh_assets(at_once=True)
            elif owner is not None and owner.unregistered:
                self._looked_at.pop(address, None)
                self._admit_later(owner, address)

    async def close(self) -> None:
        """End all connections and write out what is still held; for a clean stop."""
        if self._tending is not None:
            self._tending.cancel()
        for admission in list(self._admissions.values()):
            admission.cancel()
        if self._parts.filing:
            _, unfinished = await asyncio.wait(self._parts.filing, timeout=CLOSING_S)
            for task in unfinished:
                task.cancel()
            await asyncio.gather(*unfinished, return_exceptions=True)
        for peer in list(self._peers):
            peer.link.abort()
        await self._raw.close()

    # what connections tell (Host)

    async def admits(self, address: str) -> bool:
        """See `Host`."""
        if not self._settings.refuse_unknown:
            return True
        try:
            if await self._parts.store.terminal(address) is not None:
                return True
        except StorageError as error:
            log.warning("terminal cannot be looked up", terminal=address, why=str(error))
            return True  # refusing all because the database is away would lose the whole fleet
        log.warning("terminal refused: not in the assets", terminal=address)
        return False

    def bind(self, peer: Peer, address: str) -> None:
        """See `Host`."""
        if peer.address == address:  # not in the assets when it logged in
            if self._clock.monotonic() - self._looked_at.get(address, 0.0) >= LOOK_AGAIN_S:
                self._admit_later(peer, address)
            return
        self._release(peer)
        now = self._clock.monotonic()
        older = self._owners.get(address)
        peer.took_over = older is not None
        self._metrics.logins.inc()
        if older is not None:
            self._end_session(older)
            older.taken_over()
            self._metrics.takeovers.inc()
            log.info("login takes over", terminal=address, peer=peer.link.peer, older=older.link.peer)
            if self._contest(address).took_over(older.link.source, peer.link.source, now):
                self._alarm(address, "three takeovers between two sources")
        self._owners[address] = peer
        peer.is_now(address)
        self._admit_later(peer, address)

    def unbind(self, peer: Peer) -> None:
        """See `Host`."""
        self._release(peer)
        peer.logged_out()

    def has(self, address: str) -> bool:
        """See `Host`."""
        return address in self._owners

    def confirm(self, frame: Frame, profile: str | None) -> bytes:
        """See `Host`."""
        known = self._settings.default_profile if profile is None else self._settings.profile(profile)
        return self._confirmers[known.confirm_form].confirm(frame, known.variants)

    def older_spoke(self, peer: Peer) -> None:
        """See `Host`."""
        if peer.address is None:
            return
        if self._contest(peer.address).older_spoke(self._clock.monotonic()):
            self._alarm(peer.address, f"the older peer {peer.link.peer} still speaks")

    def keep_raw(self, peer: Peer, reason: str, raw: bytes) -> None:
        """See `Host`."""
        self._keep(peer.address or peer.link.peer, reason, raw)

    def _keep(self, of: str, reason: str, raw: bytes) -> None:
        self._raw.keep(RawFrame(self._clock.now(), of, "up", reason, raw))

    # logins

    def _admit_later(self, peer: Peer, address: str) -> None:
        before = self._admissions.get(address)
        task = asyncio.get_running_loop().create_task(self._admit(peer, address, before))
        self._admissions[address] = task
        task.add_done_callback(lambda done: self._admitted(address, done))

    def _admitted(self, address: str, task: asyncio.Task[None]) -> None:
        if self._admissions.get(address) is task:
            del self._admissions[address]
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("login failed", terminal=address, exc_info=error)

    async def _admit(self, peer: Peer, address: str, before: asyncio.Task[None] | None) -> None:
        """Look the terminal up and open its session; waits out a database that is away. One at a time for
        each address, so that generations rise in the order of logins."""
        if before is not None:
            await asyncio.gather(before, return_exceptions=True)
        self._looked_at[address] = self._clock.monotonic()
        tries = 0
        while self._owners.get(address) is peer:
            try:
                async with self._admitting:
                    if self._owners.get(address) is peer:  # it may have gone while it waited
                        await self._open(peer, address)
                return
            except StorageError as error:
                log.warning("login waits for the database", terminal=address, why=str(error))
                await self._clock.sleep(ADMIT_RETRY_S[min(tries, len(ADMIT_RETRY_S) - 1)])
                tries += 1

    async def _open(self, peer: Peer, address: str) -> None:
        store, now = self._parts.store, self._clock.now()
        changes = await store.asset_changes()
        assets = await store.terminal(address)
        if assets is None:
            await store.note_unregistered(address, peer.link.peer, now)
            if not peer.unregistered:
                self._metrics.logins_unknown.inc()
                log.warning("terminal is not in the assets", terminal=address, peer=peer.link.peer)
            peer.unregistered = True
            await peer.admitted()
            return
        generation = await store.login(assets.terminal_id, WORKER, peer.link.peer, now)
        if self._owners.get(address) is not peer:
            return
        peer.unregistered = False
        profile = assets.profile  # the assets of the login are not kept: they may be read again
        session = TerminalSession(
            assets,
            generation,
            peer.conversation,
            self._parts,
            self._watches.setdefault(address, ClockWatch()),
            self.contested,
            lambda frame: self.confirm(frame, profile),
            changes=changes,
            took_over=peer.took_over,
        )
        peer.session = self._sessions[address] = session
        self.changes += 1
        master = peer.conversation.master
        master.password, master.fcv = session.profile.password, session.profile.fcv
        self._metrics.sessions.set(len(self._sessions))
        log.info("logged in", terminal=address, peer=peer.link.peer, generation=generation)
        if peer.shown is not None:
            session.told_time(*peer.shown)
        session.learn_later()
        if peer.waiting is not None and peer.waiting[0] in (None, address):
            session.events.waiting(*peer.waiting[1:])
        for callback in self._callbacks:
            callback(session)
        await peer.admitted()

    def _release(self, peer: Peer) -> None:
        """This connection speaks for no terminal any more."""
        if peer.address is not None and self._owners.get(peer.address) is peer:
            del self._owners[peer.address]
            self._looked_at.pop(peer.address, None)
        self._end_session(peer)

    def _end_session(self, peer: Peer) -> None:
        session, peer.session = peer.session, None
        if session is None:
            return
        session.end()
        if self._sessions.get(session.address) is session:
            del self._sessions[session.address]
            self.changes += 1
            self._metrics.sessions.set(len(self._sessions))

    # contests, and what is written down now and then

    def _contest(self, address: str) -> Contest:
        silence = self._settings.heartbeat_s * self._settings.missed_heartbeats
        return self._contests.setdefault(address, Contest(silence))

    def _alarm(self, address: str, why: str) -> None:
        log.error("two devices use one terminal address", terminal=address, why=why)
        self._contested_seen.add(address)
        self._metrics.sessions_contested.set(len(self._contested_seen))

    async def _tend(self) -> None:
        touched = self._clock.monotonic()
        while True:
            await self._clock.sleep(TEND_S)
            now = self._clock.monotonic()
            for address, contest in list(self._contests.items()):
                if address in self._contested_seen and not contest.contested(now):
                    self._contested_seen.discard(address)
                    self._metrics.sessions_contested.set(len(self._contested_seen))
                    log.warning("one device uses the terminal address again", terminal=address)
                if contest.forgettable(now):
                    del self._contests[address]
            if now - touched >= TOUCH_S:
                await self._touch(touched)
                touched = now

    async def _touch(self, since: float) -> None:
        """Write down who was heard since."""
        instant, now = self._clock.now(), self._clock.monotonic()
        alive = [session for session in self.sessions() if session.last_frame >= since]
        for place in range(0, len(alive), TOUCHED_AT_ONCE):
            some = alive[place : place + TOUCHED_AT_ONCE]
            signs = [
                SignOfLife(
                    session.assets.terminal_id,
                    session.generation,
                    instant - timedelta(seconds=now - session.last_frame),
                )
                for session in some
            ]
            try:
                ours = await self._parts.store.touch(signs)
            except StorageError as error:
                log.warning("signs of life cannot be written down", why=str(error))
                return
            for session in some:
                owner = self._owners.get(session.address)
                if session.assets.terminal_id not in ours and owner is not None and owner.session is session:
                    log.warning("logged in at another gateway process", terminal=session.address)
                    self._release(owner)
                    owner.taken_over()
            await self._clock.sleep(TOUCH_PAUSE_S)
