"""Where a wire leads, spelled as the gateway spells its channels, or `pty`: a pseudo-terminal of our own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, cast, get_args
from urllib.parse import parse_qsl

Kind = Literal["tcp", "tcps", "udp", "serial", "pty", "mqtt", "mqtts"]

FORMS: Final = (
    "tcp://HOST:PORT, tcps://HOST:PORT, udp://HOST:PORT, serial:///dev/NAME?baud=2400&parity=E,"
    " mqtt://HOST[:PORT][/TOPIC], mqtts://HOST[:PORT][/TOPIC] or pty"
)

_BROKER_PORTS: Final = {"mqtt": 1883, "mqtts": 8883}


@dataclass(frozen=True, slots=True)
class Channel:
    """One place. port: 0 where a free one is to be taken. topic: beneath which the terminals are."""

    kind: Kind
    host: str = ""
    port: int = 0
    topic: str = ""
    device: str = ""
    baud: int = 2400
    parity: str = "E"
    bits: int = 8
    stop: int = 1

    @property
    def sealed(self) -> bool:
        """Is it TLS?"""
        return self.kind in ("tcps", "mqtts")

    @property
    def broker(self) -> bool:
        return self.kind in _BROKER_PORTS

    def __str__(self) -> str:
        if self.kind in ("serial", "pty"):
            return f"serial://{self.device}?baud={self.baud}&parity={self.parity}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.kind}://{host}:{self.port}{'/' if self.topic else ''}{self.topic}"


def parse(text: str) -> Channel:
    """The channel that `text` spells; HOST:PORT alone is TCP. ValueError that says what is wrong."""
    if text == "pty":
        return Channel("pty", parity="N")
    scheme, mark, rest = text.partition("://")
    if not mark:
        scheme, rest = "tcp", text
    if scheme not in get_args(Kind) or scheme == "pty":
        raise ValueError(f"{text!r} is no channel: the forms are {FORMS}")
    kind = cast(Kind, scheme)
    if kind == "serial":
        return _serial(text, rest)
    authority, slash, topic = rest.partition("/")
    if slash and kind not in _BROKER_PORTS:
        raise ValueError(f"{text!r}: nothing may follow the port")
    host, colon, port = authority.rpartition(":")
    if not colon and kind in _BROKER_PORTS:
        host, port = authority, str(_BROKER_PORTS[kind])
    if not port.isdecimal() or int(port) > 65_535 or (kind in _BROKER_PORTS and not host):
        raise ValueError(f"{text!r} is not HOST:PORT")
    return Channel(kind, host.strip("[]") or "127.0.0.1", int(port), topic)


def _serial(text: str, rest: str) -> Channel:
    device, _, query = rest.partition("?")
    given = dict(parse_qsl(query, keep_blank_values=True))
    unknown = given.keys() - {"baud", "parity", "bits", "stop", "gap_ms", "echo"}
    numbers = [given.get(key, usual) for key, usual in (("baud", "2400"), ("bits", "8"), ("stop", "1"))]
    parity = given.get("parity", "E").upper()
    wrong = unknown or parity not in ("N", "E", "O") or not all(number.isdecimal() for number in numbers)
    if wrong or not device.startswith("/"):
        raise ValueError(
            f"{text!r} is no serial port: serial:///dev/ttyUSB0?baud=2400&parity=E&bits=8&stop=1"
        )
    baud, bits, stop = map(int, numbers)
    return Channel("serial", device=device, baud=baud, parity=parity, bits=bits, stop=stop)
