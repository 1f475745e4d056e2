"""All ways by which terminals and meters come to the registry, as the settings have them."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from functools import partial

from gateway.clock import Clock
from gateway.config import BrokerSettings, DialSettings, LineSettings, ModemSettings, Settings, split_address
from gateway.errors import ConfigurationError
from gateway.metrics import Metrics
from gateway.session import direct_line
from gateway.session.dtu import DtuLines, DtuProfile, dtu
from gateway.session.line_terminal import LineTerminal
from gateway.session.mqtt_group import GroupMember
from gateway.session.registry import Registry
from gateway.storage.database import Database
from gateway.transports import channel as channels
from gateway.transports import mqtt, mqtt_broker, ways
from gateway.transports.channel import (
    Channel,
    ChannelError,
    MqttChannel,
    SerialChannel,
    TcpChannel,
    UdpChannel,
)
from gateway.transports.dialler import Dialler
from gateway.transports.link import Link
from gateway.transports.mqtt import MqttTerminals
from gateway.transports.mqtt_settings import MqttSettings
from gateway.transports.mqtt_topics import Payload, Topics
from gateway.transports.tcp import TcpLimits
from gateway.transports.tcp_listener import Doorkeeper
from gateway.transports.tls import ClientTls, ServerTls
from gateway.transports.udp_link import UdpLimits
from gateway.transports.ways import Listening, Terms

OnLink = Callable[[Link], Awaitable[None]]


class WaysIn:
    """Built once; `open` it when everything else stands, and `close` it before the registry."""

    def __init__(
        self,
        settings: Settings,
        registry: Registry,
        clock: Clock,
        metrics: Metrics,
        database: Database | None = None,
    ) -> None:
        """database: where gateways of a group behind a broker find out about each other."""
        self._database = database
        self._settings = settings
        self._registry = registry
        self._clock = clock
        self._metrics = metrics
        self._terms = _terms(settings)
        self._listening: list[Listening] = []
        self._diallers: list[Dialler] = []
        self._brokers: list[MqttTerminals] = []
        self._members: list[asyncio.Task[None]] = []

    @property
    def addresses(self) -> list[tuple[str, int]]:
        """Host and real port of what listens: that of `[listen]`, further ones, those of modems."""
        return [(one.host, one.port) for one in self._listening]

    async def open(self) -> str:
        """Listen, and begin to dial; the address of the first listener, with its real port.

        ConfigurationError where an address cannot be had or a channel makes no sense; nothing stays open
        then."""
        try:
            return await self._open()
        except BaseException:
            await self.close()
            raise

    async def _open(self) -> str:
        settings = self._settings
        for name, broker in settings.mqtt.items():  # what can only be mistyped is looked at first
            _broker(f"mqtt.{name}", broker)
        diallers = [self._dialled(f"dial.{name}", one) for name, one in settings.dial.items()]
        diallers += [
            self._line(f"lines.{name}", one)
            for name, one in settings.lines.items()
            if one.channel is not None
        ]
        modems = self._modems()
        host, port = split_address(settings.listen.address)
        first = await self._listen_for_terminals("listen.address", TcpChannel(host, port))
        for text in settings.listen.also:
            await self._listen_for_terminals("listen.also", _parsed("listen.also", text))
        for key, channel, lines in modems:
            await self._listen(key, channel, partial(self._modem, lines))
        for dialler in diallers:
            self._diallers.append(dialler)
            dialler.start()
        for name, broker in settings.mqtt.items():
            made = mqtt.connect(
                _broker(f"mqtt.{name}", broker),
                self._registry.accept,
                clock=self._clock,
                metrics=self._metrics,
            )
            self._brokers.append(made)
            if broker.group is not None and self._database is not None:
                member = GroupMember(made, self._database, self._clock, broker.lease_seconds)
                self._members.append(asyncio.create_task(member.run(), name=f"mqtt group {broker.group}"))
        if self._brokers:
            self._metrics.watch_mqtt(lambda fate: sum(broker.counts[fate] for broker in self._brokers))
        return f"{first.host}:{first.port}"

    async def close(self) -> None:
        """Let nobody in any more and end what stands."""
        for member in self._members:
            member.cancel()
        await asyncio.gather(*self._members, return_exceptions=True)
        ways: list[Listening | Dialler | MqttTerminals] = [*self._listening, *self._diallers, *self._brokers]
        await asyncio.gather(*(way.close() for way in ways))
        self._listening.clear()

    async def _listen_for_terminals(self, key: str, channel: Channel) -> Listening:
        return await self._listen(key, channel, self._registry.accept, self._registry.doorkeeper)

    async def _listen(
        self, key: str, channel: Channel, on_link: OnLink, doorkeeper: Doorkeeper | None = None
    ) -> Listening:
        given = self._settings.listen
        server = None
        if given.certificate is not None and given.key is not None:
            server = ServerTls(given.certificate, given.key, given.client_authorities)
        try:
            made = await ways.listen(
                channel,
                on_link,
                terms=self._terms,
                server=server,
                binding=given.certificates_name_terminals,
                metrics=self._metrics,
                doorkeeper=doorkeeper,
            )
        except OSError as error:
            raise ConfigurationError(
                f"{key}: cannot listen on {_shown(channel)} 无法监听: {error.strerror}; choose another"
                " address or end the program that uses it"
            ) from error
        except ConfigurationError as error:
            raise ConfigurationError(f"{key}: {error}") from error
        self._listening.append(made)
        return made

    def _dialled(self, key: str, given: DialSettings) -> Dialler:
        if isinstance(_parsed(f"{key}.channel", given.channel), UdpChannel):
            raise ConfigurationError(
                f"{key}.channel: a terminal learns of a link over udp by a first datagram, and waits for ours"
                " as we for its login 终端不能经 UDP 拨叫: have it send to [listen] also"
            )
        return self._dialler(key, given, given.channel, self._registry.accept)

    def _dialler(self, key: str, given: DialSettings | LineSettings, text: str, on_link: OnLink) -> Dialler:
        channel = _parsed(f"{key}.channel", text)
        client = ClientTls(given.authorities, given.certificate, given.key, given.server_name)
        try:
            return ways.dialler(
                channel, on_link, terms=self._terms, client=client, metrics=self._metrics, clock=self._clock
            )
        except ConfigurationError as error:
            raise ConfigurationError(f"{key}.channel: {error}") from error

    # meters on lines of ours

    def _line(self, key: str, given: LineSettings) -> Dialler:
        assert given.channel is not None
        channel = _parsed(f"{key}.channel", given.channel)
        baud = channel.baud if isinstance(channel, SerialChannel) else given.baud
        spoken = self._spoken(given, baud)

        async def on_link(link: Link) -> None:
            await self._registry.accept(LineTerminal(given.terminal, link, self._clock, spoken))

        return self._dialler(key, given, given.channel, on_link)

    def _spoken(self, given: LineSettings, baud: int | None) -> direct_line.LineSettings:
        return direct_line.LineSettings(
            heartbeat_s=self._settings.session.heartbeat_seconds,
            lead_in=given.lead_in,
            baud=baud,
            reply_timeout_s=given.reply_timeout_seconds,
            inter_byte_s=given.inter_byte_seconds,
            gap_s=given.gap_seconds,
            late_s=given.late_seconds,
        )

    def _modems(self) -> list[tuple[str, Channel, DtuLines]]:
        """Where modems dial in: the key to name, the channel, and what may come there."""
        kinds: dict[Channel, list[tuple[str, ModemSettings]]] = {}
        for name, kind in self._settings.modems.items():
            key = f"modems.{name}"
            kinds.setdefault(_parsed(f"{key}.channel", kind.channel), []).append((key, kind))
        lines = {
            name: (one.terminal, self._spoken(one, one.baud))
            for name, one in self._settings.lines.items()
            if one.channel is None
        }
        if lines and not kinds:
            raise ConfigurationError(
                f"lines.{next(iter(lines))}: a channel is needed, or a [modems] by which it dials in 缺少通道"
            )
        return [
            (
                some[0][0],
                channel,
                DtuLines(
                    [_modem_profile(*one) for one in some],
                    lines,
                    self._clock,
                    deadline_s=max(kind.registration_seconds for _, kind in some),
                ),
            )
            for channel, some in kinds.items()
        ]

    async def _modem(self, lines: DtuLines, link: Link) -> None:
        terminal = await dtu(link, lines)
        if terminal is not None:
            await self._registry.accept(terminal)


def _terms(settings: Settings) -> Terms:
    listen, session = settings.listen, settings.session
    return Terms(
        tcp=TcpLimits(
            connections=listen.max_connections,
            connections_per_host=listen.max_connections_per_ip,
            read_buffer_bytes=session.read_buffer_bytes,
            write_deadline_s=listen.write_deadline_seconds,
        ),
        udp=UdpLimits(
            peers=listen.max_connections,
            idle_s=2 * session.heartbeat_seconds * session.missed_heartbeats,
            queue_bytes=session.read_buffer_bytes,
            write_deadline_s=listen.write_deadline_seconds,
        ),
    )


def _broker(key: str, given: BrokerSettings) -> MqttSettings:
    """ConfigurationError that names the key."""
    channel = _parsed(f"{key}.channel", given.channel)
    if not isinstance(channel, MqttChannel):
        raise ConfigurationError(
            f"{key}.channel: mqtt://HOST[:PORT] or mqtts://HOST[:PORT] is wanted 地址有误"
        )
    try:
        return MqttSettings(
            broker=mqtt_broker.Broker(
                channel.host,
                channel.port,
                identifier=given.identifier or f"lingdian-{socket.gethostname()}-{key.partition('.')[2]}",
                version=given.version,
                user=given.user,
                password=None if given.password is None else given.password.get_secret_value(),
                tls=mqtt_broker.Tls(given.authorities, given.certificate, given.key) if channel.tls else None,
                unacknowledged=given.unacknowledged,
            ),
            gateway=given.gateway,
            group=given.group,
            topics=Topics(given.up, given.down, given.status, given.shared, given.offline, given.status_key),
            payload=Payload(
                given.payload,
                given.frame_key,
                given.frame_as,
                given.time_key,
                given.time_as,
                given.oldest_seconds,
            ),
            held_messages=given.held_messages,
        )
    except ConfigurationError as error:
        raise ConfigurationError(f"{key}: {error}") from error


def _modem_profile(key: str, given: ModemSettings) -> DtuProfile:
    try:
        return DtuProfile(
            _bytes(given.registration), given.line, tuple(_bytes(text) for text in given.heartbeats)
        )
    except ConfigurationError as error:
        raise ConfigurationError(f"{key}: {error}") from error


def _parsed(key: str, text: str) -> Channel:
    try:
        return channels.parse(text)
    except ChannelError as error:
        raise ConfigurationError(f"{key}: {error}") from error


def _shown(channel: Channel) -> str:
    return str(channel).removeprefix("tcp://")


def _bytes(text: str) -> bytes:
    try:
        return text.encode("latin-1")
    except UnicodeEncodeError as error:
        raise ConfigurationError(
            f"{text!r}: each character stands for a byte 每个字符代表一个字节"
        ) from error
