"""One connection to an MQTT broker, from its acceptance to its end.

The only file that reaches through aiomqtt to the paho client inside. aiomqtt 2 has no manual acknowledgement,
drops what finds no room, does not tell duplicates and gives no way to send at once; for all four there are
public calls of paho. What is not public is `Client._client` itself and `_sock_close`; tests of this file
notice when an upgrade moves one of them.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import socket
import ssl
import struct
import threading
from array import array
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, cast

import aiomqtt
import paho.mqtt.client as paho
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

from gateway.cancellation import cancellable
from gateway.errors import ConfigurationError, LingdianError
from gateway.transports.link import Taken
from gateway.transports.tcp import SIOCOUTQNSD

CALLS_AT_ONCE: Final = 10
"""Subscribe packets that wait for the broker at once."""

FILTERS_A_PACKET: Final = 100

GOODBYE_S: Final = 1.0
"""For the broker to read all that was sent before the goodbye, and to close."""

BURST: Final = 16_384
"""Bytes that may wait for the congestion window when more must leave at once: a hundred frames."""

TCP_INFO_SIZE: Final = 104
TCPI_RETRANSMITS: Final = 2
TCPI_UNACKED: Final = 24
TCPI_SND_CWND: Final = 80
"""Places in Linux' struct tcp_info; the last two count packets."""

NO_MORE_OF_THEM: Final = 2
"""MQTT 5 3.8.3.1: do not send retained messages at the subscribe."""

REFUSED: Final = 0x80
"""Reason codes from here on are failures, in SUBACK of both versions (3.1.1 3.9.3, 5 3.9.3)."""


class BrokerLost(LingdianError):
    """There is no connection to the broker, or not any more."""


class BrokerRefused(LingdianError):
    """The broker does not let us do that; its access control says why."""


class _TlsSocket(ssl.SSLSocket):
    """Closed where its handshake fails; paho leaves that to the garbage collector."""

    def do_handshake(self, block: bool = False) -> None:
        try:
            super().do_handshake(block)
        except OSError:
            self.close()
            raise


@dataclass(frozen=True, slots=True)
class Tls:
    """mqtts; the broker's name is always verified."""

    authorities: Path | None = None
    """PEM of who signs brokers; None: those that the machine trusts"""
    certificate: Path | None = None
    """PEM of our own, where the broker wants one"""
    key: Path | None = None

    def context(self) -> ssl.SSLContext:
        """Raises ConfigurationError."""
        try:
            context = ssl.create_default_context(cafile=self.authorities)
            if self.certificate is not None:
                context.load_cert_chain(self.certificate, self.key)
        except OSError as error:  # an SSLError is one
            files = ", ".join(str(f) for f in (self.authorities, self.certificate, self.key) if f is not None)
            raise ConfigurationError(f"TLS files of the MQTT broker ({files}): {error}") from None
        context.sslsocket_class = _TlsSocket
        return context


@dataclass(frozen=True, slots=True)
class Broker:
    """Where the broker is, who we are there, and what it may take of us."""

    host: str
    port: int = 1883
    identifier: str = "lingdian"
    """client identifier: the broker keeps what was not acknowledged under it, so it never changes and no two
    processes have the same"""
    version: Literal["3.1.1", "5"] = "5"
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    tls: Tls | None = None
    keepalive_s: int = 30
    connect_timeout_s: float = 5.0
    write_deadline_s: float = 20.0
    remembered_s: int = 86_400
    """how long the broker keeps our session while we are away (MQTT 5; in 3.1.1 its own setting); 0: it also
    forgets what it has kept"""
    unacknowledged: int = 4_096
    """messages that may be unsettled at once (MQTT 5 Receive Maximum); at most 65,535"""
    in_flight: int = 1_024
    """messages of ours that may wait for the broker's word"""
    largest_packet: int = 131_072
    """bytes (MQTT 5; in 3.1.1 the broker's own limit)"""


@dataclass(slots=True)
class Incoming:
    """A message as it came. topic: None where it is no UTF-8."""

    connection: Connection
    topic: str | None
    payload: bytes
    mid: int
    qos: int
    duplicate: bool
    retained: bool

    def acknowledge(self) -> None:
        """Tell the broker, if the connection that it came by still stands."""
        if self.qos > 0:
            self.connection.acknowledge(self.mid, self.qos)


class Connection:
    """Made anew for each try. Messages come from before `open` returns until `close`."""

    def __init__(
        self, broker: Broker, tls: ssl.SSLContext | None, on_message: Callable[[Incoming], None]
    ) -> None:
        """tls: `broker.tls.context()`. on_message must not raise, and not write."""
        self._broker = broker
        self._tls = tls
        self._take = on_message
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._over = asyncio.Event()
        self._up = False
        self._unconfirmed: dict[int, asyncio.Future[None] | None] = {}
        self._turns: deque[asyncio.Future[None]] = deque()
        self._window = broker.in_flight
        self.remembered = False
        """the broker knew us and kept what we had not acknowledged"""
        self._client = self._made()
        self._paho: paho.Client = self._client._client
        self._wire_up()

    def _made(self) -> aiomqtt.Client:
        broker, five = self._broker, self._broker.version == "5"
        properties = None
        if five:
            properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
            properties.SessionExpiryInterval = broker.remembered_s
            properties.ReceiveMaximum = broker.unacknowledged
            properties.MaximumPacketSize = broker.largest_packet
        return aiomqtt.Client(
            broker.host,
            broker.port,
            identifier=broker.identifier,
            protocol=aiomqtt.ProtocolVersion.V5 if five else aiomqtt.ProtocolVersion.V311,
            username=broker.user,
            password=broker.password,
            clean_session=None if five else not broker.remembered_s,
            clean_start=not broker.remembered_s if five else paho.MQTT_CLEAN_START_FIRST_ONLY,
            properties=properties,
            keepalive=broker.keepalive_s,
            timeout=broker.connect_timeout_s,
            max_concurrent_outgoing_calls=CALLS_AT_ONCE,
            max_inflight_messages=0,  # ours is the window: paho would queue what it has no room for
            tls_context=self._tls,
            socket_options=(
                (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
                (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(broker.write_deadline_s * 1000)),
            ),
        )

    def _wire_up(self) -> None:
        inner = self._paho
        inner.connect_timeout = self._broker.connect_timeout_s
        inner.manual_ack_set(True)
        connected: Any = inner.on_connect
        disconnected: Any = inner.on_disconnect

        def on_disconnect(client: Any, userdata: Any, flags: Any, reason: Any, properties: Any) -> None:
            self._over.set()  # aiomqtt would wait for a connection that ended before it was accepted
            disconnected(client, userdata, flags, reason, properties)

        inner.on_disconnect = on_disconnect

        def on_connect(client: Any, userdata: Any, flags: Any, reason: Any, properties: Any) -> None:
            self.remembered = bool(flags.session_present)
            self._window = min(self._window, getattr(properties, "ReceiveMaximum", 65_535))
            connected(client, userdata, flags, reason, properties)

        inner.on_connect = on_connect
        inner.on_message = self._on_message
        inner.on_publish = self._on_publish
        inner.on_socket_register_write = self._on_register_write

    # what paho calls

    def _on_message(self, client: paho.Client, userdata: Any, message: paho.MQTTMessage) -> None:
        try:
            topic = message.topic
        except UnicodeDecodeError:
            topic = None
        self._take(
            Incoming(
                self,
                topic,
                bytes(message.payload),
                message.mid,
                message.qos,
                bool(message.dup),
                bool(message.retain),
            )
        )

    def _on_publish(self, client: paho.Client, userdata: Any, mid: int, reason: Any, properties: Any) -> None:
        waiting = self._unconfirmed.pop(mid, None)
        self._next_turn()
        if waiting is not None and not waiting.done():
            if reason.is_failure:
                waiting.set_exception(BrokerRefused(f"the broker refuses what we publish: {reason}"))
            else:
                waiting.set_result(None)

    def _on_register_write(self, client: paho.Client, userdata: Any, sock: Any) -> None:
        """At once where we are in the loop's thread. aiomqtt's own comes a turn later: after a flush in
        between it would wait on a socket that is always writable, and never be taken off again."""
        if threading.get_ident() == self._thread:
            self._loop.add_writer(sock.fileno(), self._flush)
        else:
            self._loop.call_soon_threadsafe(self._loop.add_writer, sock.fileno(), self._flush)

    def _flush(self) -> None:
        try:
            self._paho.loop_write()
        except Exception:  # paho raises what it likes; the connection is of no use after any of it
            self.reset()

    # coming and going

    async def open(self) -> None:
        """Connect. Raises BrokerLost."""
        entering = self._loop.create_task(self._client.__aenter__())
        ending = self._loop.create_task(self._over.wait())
        try:
            await asyncio.wait([entering, ending], return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            # paho dials in a thread: only when it is done can its socket be closed.
            await asyncio.wait([entering, ending], return_when=asyncio.FIRST_COMPLETED)
            self._drop()
            raise
        finally:
            for task in (entering, ending):
                task.cancel()
            entered, _ = await asyncio.gather(entering, ending, return_exceptions=True)
        if isinstance(entered, aiomqtt.MqttError | asyncio.CancelledError):
            self._drop()
            raise BrokerLost(str(entered) or "the broker closed the connection before accepting it")
        if isinstance(entered, BaseException):
            self._drop()
            raise entered
        self._up = True

    async def lost(self) -> None:
        """Wait for the end of the connection."""
        ended = asyncio.ensure_future(anext(self._client.messages))
        reset = asyncio.ensure_future(self._over.wait())
        try:
            await asyncio.wait([ended, reset], return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (ended, reset):
                task.cancel()
            await asyncio.gather(ended, reset, return_exceptions=True)
            if self._paho.socket() is None:
                self._end()

    async def close(self) -> None:
        """Say goodbye where that is still possible. The broker keeps our session."""
        self._end()
        if (sock := self._socket()) is not None:
            with socket.socket(fileno=os.dup(sock.fileno())) as line:
                try:
                    with contextlib.suppress(aiomqtt.MqttError):
                        await cancellable(self._client.__aexit__(None, None, None))
                finally:
                    self._drop()
                await self._until_heard(line)
        self._drop()

    async def _until_heard(self, line: socket.socket) -> None:
        """Wait for the broker's end: acknowledgements that it has not read yet would be lost if we came back
        before."""
        line.setblocking(False)
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(GOODBYE_S):
                while await self._loop.sock_recv(line, 65_536):
                    pass

    def reset(self) -> None:
        """End at once; what has not left is dropped, by the kernel, too."""
        if (sock := self._socket()) is not None:
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._drop()
        self._end()

    def _socket(self) -> socket.socket | None:
        sock = self._paho.socket()
        return cast(socket.socket, sock) if sock is not None and sock.fileno() >= 0 else None

    def _drop(self) -> None:
        self._paho._sock_close()
        self._over.set()

    def _end(self) -> None:
        """Nobody waits for a word of the broker any more."""
        self._up = False
        for waiting in (*self._unconfirmed.values(), *self._turns):
            if waiting is not None and not waiting.done():
                waiting.set_exception(BrokerLost("the connection to the MQTT broker has ended"))
        self._unconfirmed.clear()
        self._turns.clear()

    # what the house calls

    @property
    def up(self) -> bool:
        """Does it stand, as far as we know?"""
        return self._stands()

    def _stands(self) -> bool:
        return self._up and self._paho.socket() is not None

    def acknowledge(self, mid: int, qos: int) -> None:
        """Tell the broker that a message is safe; nothing where the connection has ended."""
        if self._paho.socket() is not None:
            self._paho.ack(mid, qos)

    @property
    def unsent(self) -> int:
        """Bytes, at least, that were handed over and have not left this machine."""
        return self._unsent_by_kernel() + int(self.up and self._paho.want_write())

    def _unsent_by_kernel(self) -> int:
        sock = self._socket()
        if sock is None:
            return 0
        unsent = array("i", [0])
        fcntl.ioctl(sock.fileno(), SIOCOUTQNSD, unsent)
        return unsent[0]

    def _flows(self) -> bool:
        """Does all that was handed over leave? Many share this socket, so of a burst some waits for the
        broker's next acknowledgement (the congestion window). That is no worse than bytes under way: either
        arrive, or the write deadline ends the connection. A broker that takes nothing, or a path on which
        something was lost, is something else."""
        sock = self._socket()
        if sock is None or not self._up or self._paho.want_write():
            return False
        unsent = self._unsent_by_kernel()
        if unsent == 0:
            return True
        info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, TCP_INFO_SIZE)
        in_flight, window = (struct.unpack_from("=I", info, at)[0] for at in (TCPI_UNACKED, TCPI_SND_CWND))
        return unsent <= BURST and info[TCPI_RETRANSMITS] == 0 and in_flight >= window

    def _properties(self, expiry_s: int) -> Properties | None:
        if self._broker.version != "5":
            return None
        properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
        properties.MessageExpiryInterval = expiry_s
        return properties

    async def publish(self, topic: str, payload: bytes, expiry_s: int) -> bool:
        """QoS 1, not retained; True when the broker has it, False where the connection ended before it said
        so. Raises BrokerRefused, and BrokerLost where the message has not been handed over.
        """
        await self._room()
        info = self._paho.publish(topic, payload, 1, False, self._properties(expiry_s))
        if info.rc != paho.MQTT_ERR_SUCCESS:
            raise BrokerLost("there is no connection to the MQTT broker")
        waiting: asyncio.Future[None] = self._loop.create_future()
        self._unconfirmed[info.mid] = waiting
        try:
            await waiting
        except BrokerLost:
            return False
        return True

    async def _room(self) -> None:
        """Wait until one more may be in flight. Raises BrokerLost."""
        while self.up and len(self._unconfirmed) >= self._window:
            turn: asyncio.Future[None] = self._loop.create_future()
            self._turns.append(turn)
            try:
                await turn
            except asyncio.CancelledError:
                if turn.done() and not turn.cancelled():
                    self._next_turn()
                raise
        if not self.up:
            raise BrokerLost("there is no connection to the MQTT broker")

    def _next_turn(self) -> None:
        while self._turns:
            turn = self._turns.popleft()
            if not turn.done():
                turn.set_result(None)
                return

    def publish_now(self, topic: str, payload: bytes, qos: int, expiry_s: int) -> Taken:
        """Have a message leave before this returns. NOTHING has left the connection as it was, PERHAPS has
        reset it. Never raises."""
        if not self.up or len(self._unconfirmed) >= self._window:
            return Taken.NOTHING
        self._flush()  # what others handed over in this turn
        if not self._flows():
            return Taken.NOTHING
        info = self._paho.publish(topic, payload, qos, False, self._properties(expiry_s))
        if info.rc != paho.MQTT_ERR_SUCCESS:
            return Taken.NOTHING
        if qos:
            self._unconfirmed[info.mid] = None
        self._flush()
        if self._flows():
            return Taken.WHOLE
        self.reset()
        return Taken.PERHAPS

    async def subscribe(self, filters: Sequence[str]) -> list[str]:
        """QoS 1; gives those that the broker refuses. Raises BrokerLost."""
        refused: list[str] = []
        for start in range(0, len(filters), FILTERS_A_PACKET):
            part = filters[start : start + FILTERS_A_PACKET]
            options: Any = 1
            if self._broker.version == "5":
                options = SubscribeOptions(qos=1, retainHandling=NO_MORE_OF_THEM)
            try:
                subscribing = self._client.subscribe([(one, options) for one in part])
                codes: Sequence[Any] = await cancellable(subscribing)
            except (aiomqtt.MqttError, ValueError) as error:
                raise BrokerLost(f"subscribing: {error}") from None
            refused += [
                one for one, code in zip(part, codes, strict=True) if getattr(code, "value", code) >= REFUSED
            ]
        return refused

    async def unsubscribe(self, filters: Sequence[str]) -> None:
        """Raises BrokerLost."""
        for start in range(0, len(filters), FILTERS_A_PACKET):
            try:
                part = list(filters[start : start + FILTERS_A_PACKET])
                await cancellable(self._client.unsubscribe(part))
            except (aiomqtt.MqttError, ValueError) as error:
                raise BrokerLost(f"unsubscribing: {error}") from None
