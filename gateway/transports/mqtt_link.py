"""One terminal behind an MQTT broker, as a link."""

from __future__ import annotations

import asyncio
import re
from collections import deque
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final, Protocol

from gateway.errors import LinkClosed
from gateway.transports.link import Certificate, Settle, Taken
from gateway.transports.mqtt_broker import BrokerLost, BrokerRefused
from gateway.transports.tcp import CHUNK

if TYPE_CHECKING:
    from gateway.transports.mqtt_broker import Connection
    from gateway.transports.mqtt_window import Held


ADDRESS: Final = re.compile(r"[0-9A-Fa-f]{8}")
"""What a terminal's name looks like where it is its address."""


class Terminals(Protocol):
    """The broker's side of a link; `MqttTerminals`."""

    @property
    def connection(self) -> Connection | None:
        """The one that stands."""
        ...

    @property
    def changed(self) -> asyncio.Event:
        """Set when `connection` changes."""
        ...

    @property
    def write_deadline_s(self) -> float: ...

    @property
    def expiry_s(self) -> int: ...

    @property
    def urgent_qos(self) -> int: ...

    def name(self, terminal: str) -> str:
        """Broker and terminal, for logs."""
        ...

    def login_name(self, terminal: str) -> str:
        """The same, and in a group by which gateway of it: so the owner of a terminal is written down."""
        ...

    def message(self, terminal: str, frame: bytes) -> tuple[str, bytes]:
        """Topic and payload that take a frame down."""
        ...

    def read(self, held: Held) -> None:
        """Its bytes are with the session."""
        ...

    def settle(self, held: Held) -> None:
        """Its bytes are safe."""
        ...

    def over(self, link: MqttLink) -> None:
        """No more messages go to this link."""
        ...

    def ended(self, link: MqttLink, unread: Iterable[Held], suspect: Held | None) -> None:
        """A link has ended with these unread; suspect: what its session was at when it gave up."""
        ...


class MqttLink:
    """Satisfies `Link`. Made by `MqttTerminals` for a terminal that speaks."""

    certified_as: Certificate | None = None
    """None: it is the broker that sees certificates, and its access control that says whose a topic is"""

    def __init__(self, terminals: Terminals, terminal: str) -> None:
        self.terminal = terminal
        """by its topic: what its frames say is not known here"""
        self.only_for = frozenset((terminal.lower(),)) if ADDRESS.fullmatch(terminal) else None
        self.peer, self.source = terminals.login_name(terminal), terminals.name(terminal)
        self.unsettled = 0
        """messages given to this link and not settled"""
        self.owned = False
        """heard only as long as the link stands"""
        self.ended = False
        """nothing can be read any more"""
        self._terminals = terminals
        self._loop = asyncio.get_running_loop()
        self._queue: deque[Held] = deque()
        self._at = 0
        """bytes of the first one that were read"""
        self._parts: set[int] = set()
        """where those begin that were read of it and are not settled"""
        self._last: Held | None = None
        self._gone: asyncio.Future[None] = self._loop.create_future()
        """done when nothing can be written any more"""
        self._reader: asyncio.Future[None] | None = None
        self._turn = asyncio.Lock()
        self._writing = 0
        self._progress = 0.0

    # what the broker's side calls

    def arrived(self, held: Held) -> None:
        """A message for this link."""
        if not self.unsettled:
            self._progress = self._loop.time()
        self.unsettled += 1
        self._queue.append(held)
        self._wake()

    def progressed(self) -> None:
        """One of them was settled."""
        self.unsettled -= 1
        self._progress = self._loop.time()

    @property
    def idle_s(self) -> float:
        """Seconds since its session settled one that it has."""
        return self._loop.time() - self._progress if self.unsettled else 0.0

    def over(self) -> None:
        """The terminal has gone: what came before can still be read. Idempotent."""
        if not self._gone.done():
            self._gone.set_result(None)
            self._terminals.over(self)
        self._wake()

    def _wake(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

    # what the house calls

    @property
    def waiting(self) -> int:
        """Bytes that have come and were not read yet."""
        return sum(len(held.frame) for held in self._queue) - self._at

    async def read(self) -> tuple[bytes, Settle]:
        """See `Link.read`: at most CHUNK bytes a call, never of two messages; one is settled when all its
        parts are."""
        if self._queue:
            await asyncio.sleep(0)
        while not self._queue:
            if self._gone.done():
                raise LinkClosed(f"{self.peer} has gone")
            self._reader = self._loop.create_future()
            try:
                await self._reader
            finally:
                self._reader = None
        held = self._last = self._queue[0]
        at, parts = self._at, self._parts
        data = held.frame[at : at + CHUNK]
        parts.add(at)
        self._at += len(data)
        last = self._at >= len(held.frame)
        if last:
            self._queue.popleft()
            self._at, self._parts = 0, set()
            self._terminals.read(held)
        else:
            parts.add(self._at)  # what is not read yet

        async def settle() -> None:
            parts.discard(at)
            if not parts:
                self._terminals.settle(held)

        return data, settle

    async def write(self, data: bytes) -> None:
        """See `Link.write`. Returns when the broker has it, or may have it: a connection that ends meanwhile
        is a line that lost it."""
        deadline = self._terminals.write_deadline_s
        sending = self._loop.create_task(self._send(data))
        self._writing += len(data)
        try:
            await asyncio.wait([sending, self._gone], timeout=deadline, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._writing -= len(data)
            if not sending.done():
                sending.cancel()
        if not sending.done():
            if not self._gone.done():
                self.cut()
                raise LinkClosed(f"{self.peer}: the broker took nothing for {deadline:g} s")
            raise LinkClosed(f"{self.peer} has gone")
        try:
            sending.result()
        except BrokerRefused as error:
            self.cut()
            raise LinkClosed(f"{self.peer}: {error}") from None

    async def _send(self, data: bytes) -> None:
        async with self._turn:  # fair, so in the order of calls
            while not self._gone.done():
                changed, connection = self._terminals.changed, self._terminals.connection
                if connection is not None:
                    topic, payload = self._terminals.message(self.terminal, data)
                    try:
                        await connection.publish(topic, payload, self._terminals.expiry_s)
                        return
                    except BrokerLost:
                        pass
                await changed.wait()
        raise LinkClosed(f"{self.peer} has gone")

    @property
    def unsent(self) -> int:
        """See `Link.unsent`: of all that share the connection."""
        connection = self._terminals.connection
        return self._writing if connection is None or not connection.up else connection.unsent

    def write_now(self, data: bytes) -> Taken:
        """See `Link.write_now`: WHOLE has left for the broker, which is asked to keep it for as short as the
        protocol's version can say. Without a connection, or with as much under way as may be, NOTHING: then
        the link stands, for the terminal would not learn of its end."""
        taken = Taken.NOTHING
        connection = self._terminals.connection
        if not self._gone.done() and connection is not None:
            topic, payload = self._terminals.message(self.terminal, data)
            taken = connection.publish_now(
                topic, payload, self._terminals.urgent_qos, self._terminals.expiry_s
            )
        if taken is Taken.PERHAPS:
            self.cut()
        return taken

    async def close(self) -> None:
        """See `Link.close`: what `write` took has left, so there is nothing to wait for."""
        self.cut()

    def abort(self) -> None:
        """See `Link.abort`. What was not settled is not acknowledged."""
        self._end(self._last)

    def cut(self) -> None:
        """End at once, and not because of what the terminal sent."""
        self._end(None)

    def _end(self, suspect: Held | None) -> None:
        self.over()
        if not self.ended:
            self.ended = True
            unread, self._queue, self._at = self._queue, deque(), 0
            self._terminals.ended(self, unread, suspect)
