"""A real Mosquitto on a free port of this machine, and terminals that speak through it."""

from __future__ import annotations

import asyncio
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import aiomqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from tests.gateway.api.test_tls import Identity
from tests.programs import program

STARTS_S = 20.0
"""Mosquitto starts in a tenth of a second; a loaded machine may need more."""


async def until(true: Callable[[], bool], seconds: float = 20.0) -> None:
    async with asyncio.timeout(seconds):
        while not true():  # noqa: ASYNC110  # what is waited for has no event
            await asyncio.sleep(0.005)


class Mosquitto:
    """Started on entry, ended on exit; `restart` in between keeps its port and its memory."""

    def __init__(
        self,
        folder: Path,
        *,
        tls: Identity | None = None,
        authority: Identity | None = None,
        more: str = "",
        bare: bool = False,
    ) -> None:
        """tls: its certificate; authority: of the certificate that clients must show; more: lines of its
        configuration. bare: those, and nothing else but where it listens and keeps what it knows."""
        self._program = program("mosquitto", "mosquitto")
        self._folder = folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
        lines = [
            "user root",  # where root starts it, it would take another user, who may not read our folder
            f"listener {self.port} 127.0.0.1",
            "persistence true",
            f"persistence_location {folder}/",
            more,
        ]
        if not bare:
            lines += [
                "autosave_on_changes true",
                "autosave_interval 1",
                "max_inflight_messages 0",
                "max_queued_messages 0",
                "allow_anonymous true",
            ]
        if tls is not None:
            lines += [f"certfile {tls.file}", f"keyfile {tls.key}"]
        if authority is not None:
            lines += [f"cafile {authority.file}", "require_certificate true"]
        self._configuration = folder / "mosquitto.conf"
        self._configuration.write_text("\n".join(lines) + "\n", encoding="utf-8")
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with (self._folder / "mosquitto.log").open("ab") as said:
            self._process = subprocess.Popen(
                [self._program, "-c", self._configuration], stdout=said, stderr=subprocess.STDOUT
            )
        end = time.monotonic() + STARTS_S
        while time.monotonic() < end:
            assert self._process.poll() is None, (self._folder / "mosquitto.log").read_text()
            with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
                return
            time.sleep(0.01)
        raise AssertionError("mosquitto did not start")

    def stop(self, *, at_once: bool = False) -> None:
        """at_once: killed; else told to end, and it writes down what it knows."""
        if self._process is not None:
            if at_once:
                self._process.kill()
            else:
                self._process.terminate()
            self._process.wait(10)
            self._process = None

    def write_down(self) -> None:
        """Have it write down what it knows: of itself it does so for acknowledgements, not for messages."""
        assert self._process is not None
        memory = self._folder / "mosquitto.db"
        before = memory.stat().st_mtime_ns if memory.exists() else 0
        self._process.send_signal(signal.SIGUSR1)
        end = time.monotonic() + STARTS_S
        while time.monotonic() < end:
            if memory.exists() and memory.stat().st_mtime_ns > before:
                return
            time.sleep(0.005)
        raise AssertionError("mosquitto did not write down what it knows")

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop(at_once=True)


class Terminal:
    """A device: its topics are the default ones of a profile."""

    def __init__(self, client: aiomqtt.Client, name: str) -> None:
        self.client = client
        self.name = name
        self.heard: asyncio.Queue[aiomqtt.Message] = asyncio.Queue()
        self.gone = asyncio.Event()

    async def say(self, payload: bytes, *, retain: bool = False, qos: int = 1, topic: str = "") -> None:
        """Returns when the broker has it. Raises MqttError."""
        topic = topic or f"lingdian/{self.name}/up"
        saying = asyncio.ensure_future(self.client.publish(topic, payload, qos, retain))
        ended: list[asyncio.Future[Any]] = [saying, asyncio.ensure_future(self.gone.wait())]
        await asyncio.wait(ended, return_when=asyncio.FIRST_COMPLETED)  # aiomqtt waits on, for its timeout
        if not saying.done():
            saying.cancel()
            raise aiomqtt.MqttError("the broker has gone")
        ended[1].cancel()
        saying.result()

    async def hears(self) -> bytes:
        return (await asyncio.wait_for(self.heard.get(), 20)).payload

    async def listen(self) -> None:
        with suppress(aiomqtt.MqttError):
            async for message in self.client.messages:
                self.heard.put_nowait(message)
        self.gone.set()

    def vanish(self) -> None:
        """Drop off the line without a word: the broker publishes its last will."""
        sock = self.client._client.socket()
        assert isinstance(sock, socket.socket)
        sock.shutdown(socket.SHUT_RDWR)


@asynccontextmanager
async def terminal(
    port: int,
    name: str = "02001234",
    *,
    version: str = "5",
    will: str = "",
    tls: ssl.SSLContext | None = None,
    user: str | None = None,
    password: str | None = None,
    lasting: bool = False,
) -> AsyncIterator[Terminal]:
    """One that is connected and listens. lasting: the broker keeps what it misses while it is away."""
    five = version == "5"
    properties = None
    if five and lasting:
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        properties.SessionExpiryInterval = 3600
    client = aiomqtt.Client(
        "127.0.0.1",
        port,
        identifier=f"terminal-{name}",
        protocol=aiomqtt.ProtocolVersion.V5 if five else aiomqtt.ProtocolVersion.V311,
        clean_session=None if five else not lasting,
        clean_start=not lasting if five else 3,
        properties=properties,
        will=aiomqtt.Will(will or f"lingdian/{name}/will", b"offline", 1),
        tls_context=tls,
        username=user,
        password=password,
    )
    await client.__aenter__()
    device = Terminal(client, name)
    listening = asyncio.create_task(device.listen())
    try:
        await client.subscribe(f"lingdian/{name}/down", 1)
        yield device
    finally:
        with suppress(aiomqtt.MqttError):
            await client.__aexit__(None, None, None)
        client._client._sock_close()
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)
