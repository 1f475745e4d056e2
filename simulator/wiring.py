"""From what a command line says of channels to wires."""

from __future__ import annotations

import ssl
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

from simulator.channel import Channel
from simulator.faults import Messages
from simulator.pushes import Pushes, nowhere
from simulator.wires import Mail, TcpDial, TcpListen, Told, UdpDial, UdpListen, Wire

LISTENS = ("tcp", "tcps", "udp", "pty", "serial")
DIALS = ("tcp", "tcps", "udp", "serial", "mqtt", "mqtts")


class WiringError(ValueError):
    """Such wires cannot be; the message says why."""


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """PEM files. authorities: who signs the other side; certificate, key: our own. name: of the other side in
    its certificate, where it is not the host that is dialled."""

    authorities: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    name: str | None = None

    def context(self, *, listening: bool) -> ssl.SSLContext:
        """WiringError where a file cannot be used, or is missing to listen."""
        try:
            if not listening:
                context = ssl.create_default_context(cafile=self.authorities)
            elif self.certificate is None:
                raise WiringError("to listen on tcps: --tls-cert and --tls-key are needed")
            else:
                context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=self.authorities)
                context.verify_mode = ssl.CERT_REQUIRED if self.authorities else ssl.CERT_NONE
            if self.certificate is not None:
                context.load_cert_chain(self.certificate, self.key)
        except OSError as error:  # an SSLError is one
            raise WiringError(f"TLS files: {error}") from error
        return context


@dataclass
class Wiring:
    """Gives each device its wire, called with its name; for who listens, each with its own port.

    listening: the other side dials. broker: what `mqtt_wire.Broker` takes beside host, port and TLS. clients:
    so many share the terminals of a broker; 0: each has its own. pushes: told of what the broker has taken.
    """

    channel: Channel
    listening: bool = False
    tls: TlsFiles = field(default_factory=TlsFiles)
    broker: dict[str, Any] = field(default_factory=dict)
    clients: int = 0
    messages: Messages | None = None
    tell: Callable[[str, dict[str, object]], None] = lambda name, what: None
    pushes: Pushes = nowhere

    def __post_init__(self) -> None:
        """WiringError."""
        if self.channel.kind not in (LISTENS if self.listening else DIALS):
            way = "listen on" if self.listening else "connect to"
            raise WiringError(f"one cannot {way} {self.channel.kind}")
        if (
            not self.listening
            and not self.channel.broker
            and self.channel.kind != "serial"
            and not self.channel.port
        ):
            raise WiringError(f"{self.channel}: to connect, a port other than 0 is needed")
        self._context = self.tls.context(listening=self.listening) if self.channel.sealed else None
        self._numbers = count()
        self._shared: list[Any] = []

    def __call__(self, name: str, counts: Counter[str]) -> Wire:
        """The wire of the device `name`."""
        channel, number = self.channel, next(self._numbers)
        mail = Mail(self.messages, counts, f"{name}/{number}")
        port = channel.port + number if channel.port and self.listening else channel.port
        match channel.kind:
            case "tcp" | "tcps" if self.listening:
                return TcpListen(channel.host, port, self._told(name), self._context)
            case "tcp" | "tcps":
                return TcpDial(channel.host, port, self._context, self.tls.name)
            case "udp" if self.listening:
                return UdpListen(channel.host, port, self._told(name), mail)
            case "udp":
                return UdpDial(channel.host, port, mail)
            case "mqtt" | "mqtts":
                return self._mqtt(name, number, counts, mail)
        # A sweep of TCP terminals does without what the rest needs.
        from simulator.serial_wire import PseudoTerminal, SerialPort

        if channel.kind == "pty":
            return PseudoTerminal(self._told(name))
        if number:
            raise WiringError(f"{channel.device} is one line: it has room for one device")
        return SerialPort(channel)

    def _told(self, name: str) -> Told:
        return lambda channel: self.tell("listening", {"name": name, "channel": str(channel)})

    def _mqtt(self, name: str, number: int, counts: Counter[str], mail: Mail) -> Wire:
        from simulator.mqtt_wire import Broker, MqttClient, MqttWire, Payload

        channel = self.channel
        options = dict(self.broker)
        if "payload" in options:
            options["payload"] = Payload(*options["payload"])
        if channel.topic:
            for place in ("up", "down", "will"):
                options.setdefault(place, f"{channel.topic}/{{terminal}}/{place}")
        broker = Broker(channel.host, channel.port, tls=self._context, **options)
        if not self.clients:
            return MqttWire(MqttClient(broker, name, counts, mail, alone=True, pushes=self.pushes), name)
        if len(self._shared) < self.clients:
            self._shared.append(MqttClient(broker, name, counts, mail, alone=False, pushes=self.pushes))
        return MqttWire(self._shared[number % self.clients], name)
