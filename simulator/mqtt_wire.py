"""MQTT 3.1.1 and 5: a client for each terminal, or a few clients that speak for many.

Topics and payloads are those of docs/transports-mqtt.md. Counted are `mqtt_published`, `mqtt_acknowledged`
(by the broker), `mqtt_received`, `mqtt_retained` (ignored), `mqtt_unusable` and `mqtt_dropped` (no room).
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import re
import socket
import ssl
import time
from collections import Counter
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, Final, Literal

import aiomqtt

from simulator.pushes import Pushed, Pushes, nowhere
from simulator.wires import End, Mail

AT_ONCE: Final = 200
"""Messages of one client that wait for the broker's word."""

MOST_WAITING: Final = 10_000
"""Messages of one client that wait to be published; more are dropped."""

MOST_UNREAD: Final = 10_000

FILTERS_A_PACKET: Final = 100
FIRST_RETRY_S: Final = 0.25
LONGEST_RETRY_S: Final = 10.0
GOODBYE_S: Final = 2.0
"""For what was written to be acknowledged, before a clean end."""

Form = Literal["raw", "hex", "json", "base64"]


def filled(template: str, terminal: str) -> str:
    """A topic, an identifier or a user, of one terminal."""
    return template.replace("{terminal}", terminal)


def _is_login(frame: bytes) -> bool:
    """Is it a Q/GDW 376.1 link test (AFN 02H) with F1?"""
    return frame[12:13] == b"\x02" and frame[16:18] == b"\x01\x00"


@dataclass(frozen=True, slots=True)
class Payload:
    """How a frame is written into a message, both ways: raw; hex; in a JSON object as hex, or as base64."""

    form: Form = "raw"
    frame_key: str = "frame"
    time_key: str | None = None
    """where the JSON object says when it was sent, in milliseconds since 1970 by the real clock"""

    def message(self, frame: bytes) -> bytes:
        """The payload that carries `frame`."""
        if self.form == "raw":
            return frame
        if self.form == "hex":
            return frame.hex().encode("ascii")
        text = frame.hex() if self.form == "json" else base64.b64encode(frame).decode("ascii")
        envelope: dict[str, Any] = {self.frame_key: text}
        if self.time_key is not None:
            envelope[self.time_key] = int(time.time() * 1000)
        return json.dumps(envelope).encode("ascii")

    def frame(self, payload: bytes) -> bytes:
        """The frame in `payload`. ValueError where there is none."""
        if self.form == "raw":
            return payload
        if self.form == "hex":
            return bytes.fromhex(payload.decode("ascii"))
        envelope = json.loads(payload)
        text = envelope.get(self.frame_key) if isinstance(envelope, dict) else None
        if not isinstance(text, str):
            raise ValueError("no frame in the envelope")
        return bytes.fromhex(text) if self.form == "json" else base64.b64decode(text, validate=True)


@dataclass(frozen=True, slots=True)
class Broker:
    """Where it is, and how one speaks there. `{terminal}` stands for one level of a topic."""

    host: str
    port: int
    version: Literal["3.1.1", "5"] = "5"
    user: str | None = None
    """`{terminal}` in it stands for the terminal (the first one of a shared client)"""
    password: str | None = field(default=None, repr=False)
    tls: ssl.SSLContext | None = None
    up: str = "lingdian/{terminal}/up"
    login: str | None = None
    """where logins go that several gateways take turns at; None: to `up`"""
    down: str = "lingdian/{terminal}/down"
    will: str = "lingdian/{terminal}/will"
    offline: bytes = b"offline"
    payload: Payload = field(default_factory=Payload)
    identifier: str = "simulator-{terminal}"
    keepalive_s: int = 30


class MqttClient:
    """One connection to the broker, made anew while it is wanted. first: the terminal that it is named after.

    alone: it speaks for that terminal only, and ends with its link. A shared one has the last will of its
    first terminal; of the others it says by itself that they have gone, where it can.
    """

    def __init__(
        self,
        broker: Broker,
        first: str,
        counts: Counter[str],
        mail: Mail,
        *,
        alone: bool,
        pushes: Pushes = nowhere,
    ) -> None:
        """pushes: told of each frame that the broker has taken."""
        self.broker = broker
        self.alone = alone
        self._first = first
        self._counts = counts
        self._mail = mail
        self._pushes = pushes
        self._wires: dict[str, list[MqttWire]] = {}
        """by terminal: two where a second device has the same address"""
        down = re.escape(broker.down).replace(r"\{terminal\}", "(?P<terminal>[^/]+)")
        self._down = re.compile(down)
        self._outbox: asyncio.Queue[tuple[str, bytes, Pushed | None]] = asyncio.Queue(MOST_WAITING)
        self._underway: set[asyncio.Task[None]] = set()
        self._client: aiomqtt.Client | None = None
        self._up = asyncio.Event()
        self._wanted = asyncio.Event()
        self._leave = asyncio.Event()
        self._rudely = self._closing = False
        self._gone = asyncio.Event()
        self._gone.set()
        self._running: asyncio.Task[None] | None = None

    def add(self, wire: MqttWire) -> None:
        """A terminal more; before the first `connected`."""
        self._wires.setdefault(wire.name, []).append(wire)

    async def connected(self) -> None:
        """Wait until there is a connection; without end."""
        self._wanted.set()
        if self._running is None:
            self._running = asyncio.get_running_loop().create_task(self._run())
        await self._up.wait()

    def say(self, topic: str, payload: bytes, published: Pushed | None = None) -> None:
        """Publish at QoS 1, in order. published: what to tell once the broker has it."""
        for _ in range(self._mail.copies(lossy=False)):
            try:
                self._outbox.put_nowait((topic, payload, published))
            except asyncio.QueueFull:
                self._counts["mqtt_dropped"] += 1

    def leave(self, *, rudely: bool = False) -> None:
        """End the connection when all was said: with a goodbye, or so that the last will is published."""
        self._wanted.clear()
        self._up.clear()
        self._rudely = rudely
        self._leave.set()

    async def break_off(self) -> None:
        """End the connection without a word; return when it is over."""
        self._wanted.clear()
        self._up.clear()
        self._cut()
        await self._gone.wait()

    def _cut(self) -> None:
        sock = self._client._client.socket() if self._client is not None else None
        if isinstance(sock, socket.socket):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    async def close(self) -> None:
        """Say goodbye, and make no connection any more. Idempotent."""
        if self._running is None:
            return
        self._closing = True
        self.leave()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(2 * GOODBYE_S):
                await self._gone.wait()
        self._running.cancel()
        await asyncio.gather(self._running, return_exceptions=True)

    # the connection

    async def _run(self) -> None:
        wait = FIRST_RETRY_S
        while not self._closing:  # aiomqtt may swallow the cancellation, in Python 3.11
            await self._wanted.wait()
            self._gone.clear()
            client = self._made()
            try:
                async with client:
                    wait = FIRST_RETRY_S
                    await self._talk(client)
            except (aiomqtt.MqttError, OSError):
                pass
            finally:
                client._client._sock_close()  # paho leaves that to the garbage collector
                self._ended()
            if self._wanted.is_set():
                await asyncio.sleep(wait)
                wait = min(2 * wait, LONGEST_RETRY_S)

    def _made(self) -> aiomqtt.Client:
        broker, five = self.broker, self.broker.version == "5"
        first = self._first
        client = aiomqtt.Client(
            broker.host,
            broker.port,
            identifier=filled(broker.identifier, first),
            protocol=aiomqtt.ProtocolVersion.V5 if five else aiomqtt.ProtocolVersion.V311,
            clean_session=None if five else True,
            clean_start=True if five else 3,
            keepalive=broker.keepalive_s,
            username=None if broker.user is None else filled(broker.user, first),
            password=broker.password,
            tls_context=broker.tls,
            will=aiomqtt.Will(filled(broker.will, first), broker.offline, 1),
            max_inflight_messages=AT_ONCE,
            max_queued_incoming_messages=MOST_UNREAD,
        )
        client.pending_calls_threshold = AT_ONCE  # so many are meant to be under way; it need not warn
        return client

    async def _talk(self, client: aiomqtt.Client) -> None:
        """Until the connection ends, or we are to leave."""
        topics = [(filled(self.broker.down, name), 1) for name in self._wires]
        for at in range(0, len(topics), FILTERS_A_PACKET):
            await client.subscribe(topics[at : at + FILTERS_A_PACKET])
        self._client = client
        self._up.set()
        loop = asyncio.get_running_loop()
        publishing = loop.create_task(self._publish(client))
        listening = loop.create_task(self._listen(client))
        leaving = loop.create_task(self._leave.wait())
        try:
            await asyncio.wait((listening, leaving), return_when=asyncio.FIRST_COMPLETED)
            if not listening.done():
                await self._all_said()
                if self._rudely:
                    self._cut()
                    await listening
        finally:
            tasks = (publishing, listening, leaving, *self._underway)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _listen(self, client: aiomqtt.Client) -> None:
        with contextlib.suppress(aiomqtt.MqttError):
            async for message in client.messages:
                self._take(message)

    def _take(self, message: aiomqtt.Message) -> None:
        if message.retain:
            self._counts["mqtt_retained"] += 1
            return
        found = self._down.fullmatch(str(message.topic))
        wires = self._wires.get(found["terminal"]) if found else None
        try:
            frame = self.broker.payload.frame(bytes(message.payload))
        except ValueError:
            frame = b""
        if wires is None or not frame:
            self._counts["mqtt_unusable"] += 1
            return
        self._counts["mqtt_received"] += 1
        for wire in wires:
            wire.received(frame)

    async def _publish(self, client: aiomqtt.Client) -> None:
        room = asyncio.Semaphore(AT_ONCE)
        while True:
            message = await self._outbox.get()
            await room.acquire()
            task = asyncio.get_running_loop().create_task(self._publish_one(client, *message))
            self._underway.add(task)
            task.add_done_callback(self._underway.discard)
            task.add_done_callback(lambda _: room.release())

    async def _publish_one(
        self, client: aiomqtt.Client, topic: str, payload: bytes, published: Pushed | None
    ) -> None:
        self._counts["mqtt_published"] += 1
        with contextlib.suppress(aiomqtt.MqttError):
            await client.publish(topic, payload, 1)
            self._counts["mqtt_acknowledged"] += 1
            if published is not None:
                self._pushes(published)

    async def _all_said(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(GOODBYE_S):
                while not self._outbox.empty() or self._underway:  # noqa: ASYNC110  # two things to wait for
                    await asyncio.sleep(0.005)

    def _ended(self) -> None:
        self._client = None
        self._up.clear()
        self._leave.clear()
        while not self._outbox.empty():
            self._outbox.get_nowait()
        for wires in self._wires.values():
            for wire in wires:
                wire.lost()
        self._gone.set()


class _MqttLink:
    """A terminal's messages until it turns away from them."""

    speed = None

    def __init__(self, wire: MqttWire) -> None:
        self._wire = wire

    def write(self, data: bytes) -> None:
        self._wire.say(data)

    def close(self) -> None:
        self._wire.end(self, clean=True)

    def cut(self) -> None:
        self._wire.end(self, clean=False)

    def abort(self) -> None:
        self._wire.end(self, clean=False)


class MqttWire:
    """The way of the terminal `name` through `client`."""

    def __init__(self, client: MqttClient, name: str) -> None:
        self.name = name
        self._client = client
        self._topic = filled(client.broker.up, name)
        self._login = filled(client.broker.login or client.broker.up, name)
        self._end: End | None = None
        self._link: _MqttLink | None = None
        client.add(self)

    async def open(self, end: End) -> None:
        """See Wire."""
        if self._link is not None:
            self.lost()
            if self._client.alone:
                await self._client.break_off()
        self._end = end
        await self._client.connected()
        self._link = _MqttLink(self)
        end.link_up(self._link)

    def say(self, frame: bytes) -> None:
        published = Pushed("published", self.name, sha256(frame).hexdigest())
        topic = self._login if _is_login(frame) else self._topic
        self._client.say(topic, self._client.broker.payload.message(frame), published)

    def received(self, frame: bytes) -> None:
        """Its client has something for it."""
        if self._end is not None and self._link is not None:
            self._end.received(self._link, frame)

    def lost(self) -> None:
        """Its client's connection has ended."""
        if self._end is not None and self._link is not None:
            link, self._link = self._link, None
            self._end.link_down(link)

    def end(self, link: _MqttLink, *, clean: bool) -> None:
        """The terminal ends `link`."""
        if link is not self._link:
            return
        client = self._client
        self.lost()
        if not client.alone:
            client.say(filled(client.broker.will, self.name), client.broker.offline)
        else:
            client.leave(rudely=not clean)

    async def close(self) -> None:
        """See Wire."""
        await self._client.close()
