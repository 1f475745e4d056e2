"""Settings of the ways to terminals and meters. What a channel means is found out where it is opened."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, SecretStr, StringConstraints, model_validator

from gateway.config.section import Address, Section

TerminalAddress = Annotated[str, StringConstraints(pattern="^[0-9]{4}[0-9a-f]{4}$")]
"""Area code and address, as in terminals.csv."""


class ListenSettings(Section):
    """Where terminals dial in."""

    address: Address = "127.0.0.1:3761"
    """loopback unless told: `0.0.0.0:3761` lets terminals in from outside"""
    also: tuple[str, ...] = ()
    """further channels: `tcps://0.0.0.0:3762`, `udp://0.0.0.0:3761`"""
    certificate: Path | None = None
    key: Path | None = None
    """ours, PEM, for tcps"""
    client_authorities: Path | None = None
    """PEM: over tcps only terminals with a certificate of these authorities are let in"""
    certificates_name_terminals: bool = False
    """a terminal may log in only under an address that stands in its certificate"""
    max_connections: int = Field(default=20_000, ge=1)
    max_connections_per_ip: int = Field(default=20_000, ge=1)
    """equal to the whole by default: behind a mobile operator's NAT all terminals share few addresses"""
    write_deadline_seconds: float = Field(default=20.0, gt=0, le=600)
    """a peer that takes no bytes for so long is dropped"""

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if (self.certificate is None) != (self.key is None):
            raise ValueError("certificate and key go together")
        if self.client_authorities is not None and self.certificate is None:
            raise ValueError("client_authorities needs certificate and key")
        if self.certificates_name_terminals and self.client_authorities is None:
            raise ValueError("certificates_name_terminals needs client_authorities")
        return self


class Dialled(Section):
    """Files (PEM) for a channel with TLS that we dial."""

    authorities: Path | None = None
    """who signed the other side's certificate; without it those that this machine trusts"""
    certificate: Path | None = None
    key: Path | None = None
    """ours, where the other side wants one"""
    server_name: str | None = None
    """must stand in its certificate; without it the host that is dialled"""


class DialSettings(Dialled):
    """A terminal that is dialled: it listens on TCP, or hangs on a serial port."""

    channel: str
    """`tcp://10.0.0.7:2404`, `tcps://…`, `serial:///dev/ttyUSB0?baud=9600&parity=E`"""


class LineSettings(Dialled):
    """Meters that hang on a line of ours, and the terminal in the assets that stands for it."""

    terminal: TerminalAddress
    channel: str | None = None
    """a serial port or a serial server; without it the line dials in by its modem ([modems])"""
    baud: int | None = Field(default=None, ge=300, le=115_200)
    """of the meters' side of a serial server or modem; a serial port's own is known"""
    lead_in: int = Field(default=4, ge=0, le=16)
    reply_timeout_seconds: float = Field(default=0.5, gt=0, le=127)
    """until a meter begins to answer; over a network some seconds"""
    inter_byte_seconds: float = Field(default=0.5, gt=0, le=10)
    gap_seconds: float = Field(default=0.05, ge=0, le=10)
    """silence between an answer and the next question"""
    late_seconds: float = Field(default=2.0, ge=0, le=127)
    """a meter that stayed silent is not asked again for so long"""


class ModemSettings(Section):
    """A kind of modem (DTU) that dials in and passes DL/T 645 through; each character of a text is a byte."""

    channel: str
    """where it dials in: `tcp://0.0.0.0:3763`; tcps takes the certificate of [listen]. Kinds may share one"""
    registration: str
    """regular expression for its first bytes, with a group `(?P<line>…)` that names the line; or fixed
    text, with `line`"""
    line: str = ""
    heartbeats: tuple[str, ...] = ()
    """said between frames of its own accord"""
    registration_seconds: float = Field(default=30.0, gt=0, le=600)
    """a modem that has not said by then which line it is, is closed"""


class BrokerSettings(Section):
    """An MQTT broker and the terminals behind it."""

    channel: str
    """`mqtt://broker:1883`, `mqtts://broker`"""
    version: Literal["3.1.1", "5"] = "5"
    identifier: str | None = None
    """our client identifier: the same after each start, and no other program's; by default the host's name
    with that of this section"""
    user: str | None = None
    password: SecretStr | None = None
    authorities: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    gateway: str = "lingdian"
    """stands for `{gateway}` in topics"""
    group: str | None = None
    """several gateways take turns at the `shared` topics, and each hears its own terminals on the others"""
    lease_seconds: float = Field(default=15.0, ge=1, le=600)
    """a gateway of the group that has said nothing to the database for so long is gone: another one takes its
    terminals over"""
    up: tuple[str, ...] = ("lingdian/{terminal}/up",)
    down: str = "lingdian/{terminal}/down"
    status: str | None = "lingdian/{terminal}/will"
    shared: tuple[str, ...] = ()
    offline: tuple[str, ...] = ()
    """words on the status topic that mean offline; without them whatever comes there does"""
    status_key: str | None = None
    payload: Literal["raw", "hex", "json"] = "raw"
    frame_key: str = "frame"
    frame_as: Literal["hex", "base64"] = "hex"
    time_key: str | None = None
    time_as: Literal["seconds", "milliseconds", "iso"] = "milliseconds"
    oldest_seconds: float | None = Field(default=None, gt=0)
    unacknowledged: int = Field(default=4096, ge=2, le=65_535)
    held_messages: int = Field(default=256, ge=1, le=32_767)
    """of one terminal; at most half of `unacknowledged`"""
