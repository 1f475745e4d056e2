"""Terminals behind an MQTT broker: each is one link, made when it first speaks, ended by its last will.

A message is acknowledged when its bytes are settled, so what was not is delivered again: after a crash of
ours, or by a new connection where a session gave its link up. How much may be unsettled is bounded for each
terminal and in all.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import Counter as Tally
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from dataclasses import replace
from typing import Any, Final

import structlog

from gateway.clock import Clock
from gateway.errors import ConfigurationError
from gateway.metrics import Metrics, MqttFate
from gateway.transports.mqtt_broker import GOODBYE_S, BrokerLost, Connection, Incoming
from gateway.transports.mqtt_link import MqttLink
from gateway.transports.mqtt_settings import MqttSettings
from gateway.transports.mqtt_topics import TERMINAL, Stale, TopicMap, Unusable
from gateway.transports.mqtt_window import Held, Known, Window, digest

log = structlog.get_logger()

BACKOFF_S: Final = (0.5, 30.0)
"""Before the second try and before the last ones; each is cut by chance to between half and the whole, so
that gateways do not all come back at once."""

STOOD_S: Final = 30.0
"""A connection that stood so long was a good one: the next try begins with the short wait."""


class MqttTerminals:
    """All terminals behind one broker. Made by `connect`; `close` ends it."""

    def __init__(
        self,
        settings: MqttSettings,
        on_link: Callable[[MqttLink], Awaitable[None]],
        clock: Clock,
        metrics: Metrics | None,
    ) -> None:
        self.settings = settings
        self.counts: Tally[MqttFate] = Tally()
        """messages by what became of them"""
        self.connection: Connection | None = None
        """the one that stands"""
        self.changed = asyncio.Event()
        """set at each change of `connection`, and replaced"""
        self._clock = clock
        self.window = Window(settings.broker.unacknowledged, settings.held_bytes)
        self.map = TopicMap(settings.topics, settings.gateway)
        self._on_link = on_link
        self._metrics = metrics
        self._tls = settings.broker.tls.context() if settings.broker.tls is not None else None
        self._links: dict[str, MqttLink] = {}
        self._tasks: dict[MqttLink, asyncio.Task[None]] = {}
        self._subscribing: set[asyncio.Task[None]] = set()
        self._owned: set[str] = set()
        self._again: asyncio.TimerHandle | None = None
        self._subscribed = self._closing = False
        self._renew = asyncio.Event()
        self._may_connect = asyncio.Event()
        self._may_connect.set()
        self._running: asyncio.Task[None] | None = None

    @property
    def connected(self) -> bool:
        """Is there a broker, and are we subscribed?"""
        return self._subscribed and self.connection is not None and self.connection.up

    @property
    def links(self) -> int:
        """Links that stand or are being wound up."""
        return len(self._tasks)

    @property
    def identifier(self) -> str:
        """Who we are at the broker."""
        return self.settings.broker.identifier

    @property
    def place(self) -> str:
        """The broker."""
        return f"{self.settings.broker.host}:{self.settings.broker.port}"

    # which terminals

    async def own(self, *terminals: str) -> None:
        """With a group: hear these terminals from now on, and after each reconnection. Idempotent.

        Raises ConfigurationError where the broker's access control refuses. A terminal that logs in by a
        shared topic is owned as long as its link stands without this.
        """
        for terminal in terminals:
            if not TERMINAL.fullmatch(terminal):
                raise ConfigurationError(f"MQTT terminal {terminal!r}: letters, digits and . _ - only")
        if self.settings.group is None:
            return
        new = [one for one in terminals if one not in self._owned]
        self._owned.update(new)
        if self.connection is not None:
            topics = [topic for one in new for topic in self.map.of(one)]
            with contextlib.suppress(BrokerLost):  # the next connection begins with it
                _all_granted(await self.connection.subscribe(topics))

    def owns(self, terminal: str) -> bool:
        """With a group: is this terminal heard here?"""
        return terminal in self._owned

    async def disown(self, terminal: str) -> None:
        """Another gateway has it: do not hear it any more, and end its link. Idempotent."""
        if self.settings.group is None:
            return
        self._owned.discard(terminal)
        if (link := self._links.get(terminal)) is not None:
            link.over()
        await self._unsubscribe(terminal)

    async def forget(self, identifier: str) -> None:
        """Have the broker forget what it keeps for another gateway, which is gone: its subscriptions, its
        turns at logins, and what waits for it. Raises BrokerLost."""
        broker = replace(self.settings.broker, identifier=identifier, remembered_s=0)
        connection = Connection(broker, self._tls, lambda incoming: None)
        try:
            await connection.open()
        finally:
            await connection.close()

    def hold_back(self) -> None:
        """Make no new connection until `go_on`; one that stands is kept."""
        self._may_connect.clear()

    def go_on(self) -> None:
        """Our identifier is ours: connect, now and whenever that is needed."""
        self._may_connect.set()

    def _filters(self) -> list[str]:
        group = self.settings.group
        terminals: Iterable[str] = ["+"] if group is None else sorted(self._owned)
        return [*self.map.shared(group), *(topic for one in terminals for topic in self.map.of(one))]

    def _later(self, work: Coroutine[Any, Any, None], terminal: str) -> None:
        """At most one for each link and one for each stray message: both are bounded."""

        if self._closing:
            work.close()
            return

        async def logged() -> None:
            try:
                await work
            except ConfigurationError as error:
                log.error("MQTT subscription refused", terminal=terminal, why=str(error))

        task = asyncio.get_running_loop().create_task(logged())
        self._subscribing.add(task)
        task.add_done_callback(self._subscribing.discard)

    # what comes

    def _take(self, incoming: Incoming) -> None:
        """A message, whatever is in it. Never raises: paho would take that for the end of the connection."""
        if incoming.retained:  # somebody's yesterday
            return self._done(incoming, "retained")
        if incoming.qos and not self._to_be_looked_at(incoming):
            return None
        try:
            place, terminal = self.map.where(incoming.topic)
            if place == "status":
                if self.settings.topics.means_offline(incoming.payload) and terminal in self._links:
                    self._links[terminal].over()
                return self._done(incoming, "taken")
            frame = self.settings.payload.frame(incoming.payload, self._clock.now())
        except Unusable as error:
            log.debug("MQTT message that is no frame", topic=incoming.topic, why=str(error))
            return self._done(incoming, "unusable")
        except Stale as error:
            log.info("MQTT frame ignored", topic=incoming.topic, why=str(error))
            return self._done(incoming, "stale")
        self._hand_over(incoming, terminal, frame)
        if self.settings.group is not None and terminal not in self._owned:
            self._not_owned(place == "shared", terminal)
        return None

    def _to_be_looked_at(self, incoming: Incoming) -> bool:
        known = self.window.known(incoming)
        if known is Known.SETTLED:
            self._done(incoming, "settled before")
        elif known is not Known.NEW:
            self.counts["duplicate"] += 1
        return known in (Known.NEW, Known.AGAIN)

    def _done(self, incoming: Incoming, fate: MqttFate) -> None:
        self.counts[fate] += 1
        incoming.acknowledge()

    def _not_owned(self, logging_in: bool, terminal: str) -> None:
        if logging_in and terminal in self._links:
            self._links[terminal].owned = True
            self._later(self.own(terminal), terminal)
        elif not logging_in and self.connection is not None:
            # The broker remembers a subscription from before we were started anew.
            self._later(self._unsubscribe(terminal), terminal)

    async def _unsubscribe(self, terminal: str) -> None:
        """Take back what the broker remembers of a terminal that is not ours."""
        if self.connection is not None:
            with contextlib.suppress(BrokerLost):
                await self.connection.unsubscribe(self.map.of(terminal))

    def _hand_over(self, incoming: Incoming, terminal: str, frame: bytes) -> None:
        message = digest(incoming)
        incoming.payload = b""
        if self.window.poisonous(message):
            log.warning("MQTT message given up: its session ends over it each time", topic=incoming.topic)
            self._done(incoming, "poisonous")
            return
        link = self._links.get(terminal)
        full = link is not None and link.unsettled >= self.settings.held_messages
        if full or not self.window.has_room(terminal, len(frame)):
            self._give_back(incoming, terminal, link if full else None)
            return
        if link is None and len(self._tasks) >= self.settings.links:
            if self._metrics is not None:
                self._metrics.connections_refused.inc()
            self._done(incoming, "refused")
            return
        if link is None:
            link = self._new_link(terminal)
        held = Held(link, incoming, frame, message)
        self.counts["taken"] += 1
        self.window.hold(held)
        link.arrived(held)

    def _give_back(self, incoming: Incoming, terminal: str, full: MqttLink | None) -> None:
        """Not acknowledged: the broker delivers it again to the next connection. full: the link that has as
        many as it may; if its session does not settle them, it ends, so as not to keep the window."""
        if not incoming.qos:
            self.counts["dropped"] += 1
            return
        if full is not None and (self.window.hopeless(terminal) or full.idle_s >= self.settings.patience_s):
            self.window.stuck(full)
            lost = self.window.drop(full) if self.window.hopeless(terminal) else 0
            full.cut()
            log.warning("MQTT link ended: its session settles nothing", terminal=terminal, lost=lost)
            if lost:
                self.counts["dropped"] += lost
                self._done(incoming, "dropped")
                return
        self.counts["given back"] += 1
        self.window.give_back(terminal)
        self._again_soon()

    def _again_soon(self) -> None:
        if self._again is None:
            wait = self.settings.deliver_again_s
            self._again = asyncio.get_running_loop().call_later(wait, self._renew_if_needed)

    def _renew_if_needed(self) -> None:
        self._again = None
        if self.window.must_come_again():
            self._renew.set()

    # what links tell

    @property
    def write_deadline_s(self) -> float:
        """See `Terminals`."""
        return self.settings.broker.write_deadline_s

    @property
    def expiry_s(self) -> int:
        """See `Terminals`."""
        return self.settings.expiry_s

    @property
    def urgent_qos(self) -> int:
        """See `Terminals`."""
        return self.settings.urgent_qos

    def name(self, terminal: str) -> str:
        """See `Terminals`."""
        return f"mqtt://{self.place}/{terminal}"

    def login_name(self, terminal: str) -> str:
        """See `Terminals`."""
        if self.settings.group is None:
            return self.name(terminal)
        return f"mqtt://{self.identifier}@{self.place}/{terminal}"

    def message(self, terminal: str, frame: bytes) -> tuple[str, bytes]:
        """See `Terminals`."""
        return self.map.down(terminal), self.settings.payload.message(frame, self._clock.now())

    def read(self, held: Held) -> None:
        """See `Terminals`."""
        self.window.read(held)

    def settle(self, held: Held) -> None:
        """See `Terminals`."""
        self.window.settle(held)

    def over(self, link: MqttLink) -> None:
        """See `Terminals`."""
        if self._links.get(link.terminal) is link:
            del self._links[link.terminal]

    def ended(self, link: MqttLink, unread: Iterable[Held], suspect: Held | None) -> None:
        """See `Terminals`."""
        for held in unread:
            self.window.read(held)
        if suspect is not None:
            self.window.suspect(suspect)
        if link.unsettled:
            self._again_soon()
        if link.owned and link.terminal in self._owned:
            self._later(self.disown(link.terminal), link.terminal)

    def _new_link(self, terminal: str) -> MqttLink:
        link = MqttLink(self, terminal)
        self._links[terminal] = link
        self._tasks[link] = asyncio.get_running_loop().create_task(
            self._serve(link), name=f"link {link.peer}"
        )
        if self._metrics is not None:
            self._metrics.connections.inc()
        return link

    async def _serve(self, link: MqttLink) -> None:
        try:
            await self._on_link(link)
        finally:
            await link.close()
            del self._tasks[link]
            if self._metrics is not None:
                self._metrics.connections.dec()

    # the connection

    async def run(self) -> None:
        """Keep a connection to the broker until cancelled."""
        loop = asyncio.get_running_loop()
        tries, last_up, why = 0, loop.time(), ""
        while True:
            await self._may_connect.wait()
            connection = Connection(self.settings.broker, self._tls, self._take)
            self.window.new_connection()
            self._renew.clear()
            renewed = False
            began = loop.time()
            try:
                await connection.open()
                self._is_now(connection)  # before the list of filters is made: `own` adds to both
                if self.settings.group is not None:  # what the broker remembers from before there was one
                    await connection.unsubscribe(self.map.of("+"))
                refused = await connection.subscribe(self._filters())
                if refused:
                    log.error("MQTT broker refuses subscriptions: see its access control", topics=refused[:5])
                log.info("MQTT broker connected", broker=self.place, remembered=connection.remembered)
                why, self._subscribed = "", True
                renewed = await self._until_lost(connection)
            except BrokerLost as error:
                if why != str(error):
                    why = str(error)
                    log.warning("MQTT broker cannot be had; trying again", broker=self.place, why=why)
            finally:
                if self.connection is not None:
                    last_up = loop.time()
                    self._is_now(None)
                await connection.close()
            if renewed:
                continue
            if loop.time() - last_up >= self.settings.away_s:
                for link in list(self._links.values()):
                    link.over()
            tries = 0 if last_up - began >= STOOD_S else tries + 1
            wait = min(BACKOFF_S[1], BACKOFF_S[0] * 2 ** min(tries, 16))
            await asyncio.sleep(random.uniform(wait / 2, wait))

    async def _until_lost(self, connection: Connection) -> bool:
        """Wait for its end; True: it stands, and must be made anew."""
        lost = asyncio.ensure_future(connection.lost())
        renew = asyncio.ensure_future(self._renew.wait())
        try:
            await asyncio.wait([lost, renew], return_when=asyncio.FIRST_COMPLETED)
            if not lost.done():
                log.info("MQTT broker is asked again for messages that no session settled", broker=self.place)
                return True
            log.warning("MQTT broker lost", broker=self.place)
            return False
        finally:
            for task in (lost, renew):
                task.cancel()
            await asyncio.gather(lost, renew, return_exceptions=True)

    def _is_now(self, connection: Connection | None) -> None:
        self.connection = connection
        self._subscribed = False
        self.changed.set()
        self.changed = asyncio.Event()

    def start(self) -> None:
        """Begin to `run`."""
        self._running = asyncio.get_running_loop().create_task(self.run(), name=f"mqtt {self.place}")

    async def close(self) -> None:
        """Take no more messages, end all links, and wait for what runs on them. What is unsettled comes again
        to whoever connects next under our identifier."""
        self._closing = True
        if self.settings.group is not None and self.connection is not None:
            # A broker may keep our turns for us while we are away; the others shall have them.
            with contextlib.suppress(BrokerLost, TimeoutError):
                async with asyncio.timeout(GOODBYE_S):
                    await self.connection.unsubscribe(self.map.shared(self.settings.group))
        running = [] if self._running is None else [self._running]
        tasks = [*self._tasks.values(), *self._subscribing]
        for task in (*running, *tasks):
            task.cancel()
        await asyncio.gather(*running, *tasks, return_exceptions=True)
        if self._again is not None:
            self._again.cancel()


def connect(
    settings: MqttSettings,
    on_link: Callable[[MqttLink], Awaitable[None]],
    *,
    clock: Clock | None = None,
    metrics: Metrics | None = None,
) -> MqttTerminals:
    """Begin to keep a connection to the broker, and run `on_link` for each terminal that speaks; its link is
    closed when it returns. A broker that is away is waited for. Raises ConfigurationError.
    """
    terminals = MqttTerminals(settings, on_link, clock or Clock(), metrics)
    terminals.start()
    return terminals


def _all_granted(refused: list[str]) -> None:
    if refused:
        raise ConfigurationError(f"the MQTT broker refuses {refused}: see its access control")
