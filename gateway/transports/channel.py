"""Where a peer is and how it is reached, in one line of text: `tcp://10.0.0.7:2404`,
`serial:///dev/ttyUSB0?baud=2400&parity=E`. No names or passwords: addresses stand in logs.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final, Literal, cast, get_args

from gateway.errors import InputError

Parity = Literal["N", "E", "O"]
Echo = Literal["off", "on", "auto"]
"""What comes back on a half-duplex adapter of what was written: nothing, all of it, or to be found out."""

SPEEDS: Final = (300, 600, 1200, 2400, 4800, 9600, 19_200, 38_400, 57_600, 115_200)
"""bit/s; DL/T 645 changes between 600 and 19,200 (17H)"""

MQTT_PORT: Final = 1883
MQTTS_PORT: Final = 8883

LONGEST: Final = 1024
"""Characters of an address; a broker's topic is the longest part."""

FORMS: Final = (
    "tcp://HOST:PORT, tcps://HOST:PORT, udp://HOST:PORT,"
    " serial:///dev/NAME?baud=2400&parity=E&bits=8&stop=1&gap_ms=500&echo=auto, mqtt://HOST[:PORT][/TOPIC],"
    " mqtts://HOST[:PORT][/TOPIC]"
)

_HOST: Final = re.compile(r"(?:\[(?P<six>[^\[\]]+)\]|(?P<name>[^\[\]:]+))(?::(?P<port>[^:]*))?")
_NAME: Final = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_.])?")


class ChannelError(InputError, ValueError):
    """An address cannot be understood; the message shows it, says what is wrong with it and what is right."""


@dataclass(frozen=True, slots=True)
class TcpChannel:
    """A TCP port, to listen on or to dial."""

    host: str
    port: int
    """0: a free one, to listen on only"""
    tls: bool = False

    def __str__(self) -> str:
        return f"{'tcps' if self.tls else 'tcp'}://{spelled(self.host, self.port)}"


@dataclass(frozen=True, slots=True)
class UdpChannel:
    """A UDP port, to listen on or to send to."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"udp://{spelled(self.host, self.port)}"


@dataclass(frozen=True, slots=True)
class SerialChannel:
    """A serial port of this machine."""

    device: str
    baud: int = 2400
    parity: Parity = "E"
    """a pseudo-terminal holds none: `N` there"""
    bits: int = 8
    stop: int = 1
    gap_ms: int = 500
    """silence within a frame that ends it (DL/T 645: 500 ms); for whoever reads, the port does not look"""
    echo: Echo = "auto"

    def __str__(self) -> str:
        return (
            f"serial://{self.device}?baud={self.baud}&parity={self.parity}&bits={self.bits}"
            f"&stop={self.stop}&gap_ms={self.gap_ms}&echo={self.echo}"
        )


@dataclass(frozen=True, slots=True)
class MqttChannel:
    """A broker, and the topic beneath which its peers are; who we are there is a matter of the settings."""

    host: str
    port: int
    topic: str = ""
    tls: bool = False

    def __str__(self) -> str:
        scheme = "mqtts" if self.tls else "mqtt"
        return f"{scheme}://{spelled(self.host, self.port)}{'/' if self.topic else ''}{self.topic}"


Channel = TcpChannel | UdpChannel | SerialChannel | MqttChannel


def spelled(host: str, port: int) -> str:
    """`host:port`, an IPv6 address in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def parse(text: str) -> Channel:
    """The address that `text` spells; `str` of it spells it again. Raises ChannelError."""
    scheme, mark, rest = text.partition("://")
    if "@" in rest.partition("/")[0]:
        raise ChannelError(
            f"a {scheme} address holds a name or password 通道地址中不能有用户名或密码:"
            " those belong in the settings"
        )
    if len(text) > LONGEST or not text.isprintable() or " " in text:
        raise ChannelError(
            f"{text[:60]!r}… is no address of a channel 通道地址有误: longer than {LONGEST} characters,"
            " or with blanks"
        )
    try:
        if mark:
            return _parsed(scheme.lower(), rest)
        raise ValueError(f"it begins with none of the schemes; the forms are {FORMS}")
    except ValueError as error:
        raise ChannelError(f"{text!r} is no address of a channel 通道地址有误: {error}") from None


def _parsed(scheme: str, rest: str) -> Channel:
    if "#" in rest:
        raise ValueError("it must not hold '#'")
    place, question, query = rest.partition("?")
    options = _options(query) if question else {}
    if scheme == "serial":
        return _serial(place, options)
    _only(options, ())
    authority, slash, path = place.partition("/")
    if scheme in ("mqtt", "mqtts"):
        tls = scheme == "mqtts"
        host, port = _host_and_port(authority, MQTTS_PORT if tls else MQTT_PORT)
        if "+" in path or path.endswith("/"):
            raise ValueError("its topic is a beginning, without wildcards and without '/' at its end")
        return MqttChannel(host, port, path, tls)
    if scheme not in ("tcp", "tcps", "udp"):
        raise ValueError(f"{scheme!r} is no scheme; the forms are {FORMS}")
    if slash:
        raise ValueError("nothing may follow the port")
    host, port = _host_and_port(authority, None)
    return UdpChannel(host, port) if scheme == "udp" else TcpChannel(host, port, scheme == "tcps")


def _host_and_port(authority: str, usual: int | None) -> tuple[str, int]:
    match = _HOST.fullmatch(authority)
    if match is None:
        raise ValueError("HOST:PORT must follow '//'; an IPv6 address stands in brackets: [::1]:7000")
    if match["six"] is not None:
        try:
            host = str(ipaddress.IPv6Address(match["six"]))
        except ValueError:
            raise ValueError(f"{match['six']!r} is no IPv6 address") from None
    else:
        host = match["name"]
        if not _NAME.fullmatch(host):
            raise ValueError(f"{host!r} is no name of a host and no IPv4 address")
    if match["port"] is None and usual is not None:
        return host, usual
    return host, _number("port", match["port"] or "", range(65_536), "0 to 65535")


def _serial(place: str, options: dict[str, str]) -> SerialChannel:
    _only(options, ("baud", "parity", "bits", "stop", "gap_ms", "echo"))
    if not place.startswith("/") or place.endswith("/"):
        raise ValueError("the whole path of the port must follow: serial:///dev/ttyUSB0")
    parity, echo = options.get("parity", "E").upper(), options.get("echo", "auto")
    if parity not in get_args(Parity):
        raise ValueError("parity is N, E or O")
    if echo not in get_args(Echo):
        raise ValueError("echo is off, on or auto")
    return SerialChannel(
        place,
        _number("baud", options.get("baud", "2400"), SPEEDS, ", ".join(map(str, SPEEDS))),
        cast(Parity, parity),
        _number("bits", options.get("bits", "8"), (7, 8), "7 or 8"),
        _number("stop", options.get("stop", "1"), (1, 2), "1 or 2"),
        _number("gap_ms", options.get("gap_ms", "500"), range(1, 60_001), "1 to 60000"),
        cast(Echo, echo),
    )


def _options(query: str) -> dict[str, str]:
    options: dict[str, str] = {}
    for part in query.split("&"):
        key, equals, value = part.partition("=")
        if not equals or not key or not value:
            raise ValueError(f"{part!r} is not KEY=VALUE")
        if key in options:
            raise ValueError(f"{key!r} stands in it twice")
        options[key] = value
    return options


def _only(options: dict[str, str], known: Collection[str]) -> None:
    for key in options:
        if key not in known:
            allowed = f"there are {', '.join(known)}" if known else "this kind of address takes none"
            raise ValueError(f"{key!r} is no option; {allowed}")


def _number(key: str, text: str, among: Collection[int], said: str) -> int:
    if not text.isascii() or not text.isdecimal() or len(text) > 6 or int(text) not in among:
        raise ValueError(f"{key} is {said}, not {text!r}")
    return int(text)
