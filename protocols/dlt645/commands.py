"""The values of what sets, writes, freezes and clears: 08H, 14H-1BH, 1DH (2007); 04H, 08H, 0AH, 0CH, 0FH,
10H (1997), and of what meters answer to it. Their bytes: command_layouts.py. 1CH and 03H are not here: see
control_messages.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from protocols.dlt645.fields import (
    EDITION_1997,
    EDITION_2007,
    Authority,
    di_bytes,
    edition_of_di,
    moment_bytes,
)
from protocols.dlt645.frame import BROADCAST, WILDCARD
from protocols.errors import LocalProtocolError

# Rate word Z: one bit. Bit 7 is reserved; some meters take it for 38400 (single source).
SPEEDS = {0x02: 600, 0x04: 1200, 0x08: 2400, 0x10: 4800, 0x20: 9600, 0x40: 19200, 0x80: 38400}
# Signals of the multi-function terminal.
OUTPUTS = ("clock second pulse", "demand period", "tariff switch")
ALL_EVENTS = "ffffffff"


@dataclass(frozen=True, slots=True)
class BroadcastTime:
    """08H. at: the wall clock that meters shall take. No meter answers it, whoever it is sent to."""

    at: datetime
    address: str = BROADCAST
    edition: str = EDITION_2007


@dataclass(frozen=True, slots=True)
class WriteRequest:
    """14H; 04H where `di` has four digits. data: the value as on the wire, at levels 98 and 99 cipher
    and MAC included (opaque)."""

    address: str
    di: str
    authority: Authority
    data: bytes

    @property
    def edition(self) -> str:
        """Told by the DI."""
        return edition_of_di(self.di)

    @property
    def mac(self) -> bytes:
        """The last four bytes at levels 98 and 99, as on the wire; else b""."""
        return self.data[-4:] if self.authority.has_mac else b""


@dataclass(frozen=True, slots=True)
class WriteAddress:
    """15H; 0AH in 1997 (its data is unconfirmed). The answer comes from the new address."""

    new_address: str
    address: str = WILDCARD
    edition: str = EDITION_2007


@dataclass(frozen=True, slots=True)
class Freeze:
    """16H. None stands for "every" (99 on the wire); all None freezes at once.

    Only a prefix from the high end may be None: a month without a day would name nothing.
    """

    address: str
    month: int | None = None
    day: int | None = None
    hour: int | None = None
    minute: int | None = None

    def __post_init__(self) -> None:
        parts = (self.month, self.day, self.hour, self.minute)
        limits = ((1, 12), (1, 31), (0, 23), (0, 59))
        given = False
        for part, (low, high) in zip(parts, limits, strict=True):
            if (part is None and given) or (part is not None and not low <= part <= high):
                raise LocalProtocolError(f"month, day, hour, minute {parts} are no freeze pattern")
            given = given or part is not None


@dataclass(frozen=True, slots=True)
class ChangeSpeed:
    """17H; 0CH in 1997, whose word is not confirmed. word: Z, one bit of SPEEDS in 2007."""

    address: str
    word: int
    edition: str = EDITION_2007

    def __post_init__(self) -> None:
        _check_speed(self.word, self.edition)

    @property
    def speed(self) -> int | None:
        """bit/s; None in 1997."""
        return SPEEDS[self.word] if self.edition == EDITION_2007 else None


@dataclass(frozen=True, slots=True)
class ChangePassword:
    """18H; 0FH in 1997 (single source), where di is "". old, new: level and password, operator ""."""

    address: str
    di: str
    old: Authority
    new: Authority

    @property
    def edition(self) -> str:
        """Told by the DI, which 1997 has not."""
        return EDITION_2007 if self.di else EDITION_1997


@dataclass(frozen=True, slots=True)
class ClearDemand:
    """19H. sealed: at level 98 the cipher of R1..R8 (opaque, as on the wire), else b""."""

    address: str
    authority: Authority
    sealed: bytes = b""


@dataclass(frozen=True, slots=True)
class ClearMeter:
    """1AH. sealed: as of ClearDemand."""

    address: str
    authority: Authority
    sealed: bytes = b""


@dataclass(frozen=True, slots=True)
class ClearEvents:
    """1BH. di: the events' family with DI0 = FF, or ALL_EVENTS; "" at level 98, where `sealed` says it."""

    address: str
    authority: Authority
    di: str = ALL_EVENTS
    sealed: bytes = b""


@dataclass(frozen=True, slots=True)
class ClearDemand1997:
    """10H of 1997. authorisation: its data, whose layout is not confirmed."""

    address: str
    authorisation: bytes


@dataclass(frozen=True, slots=True)
class SelectOutput:
    """1DH. output: which of OUTPUTS the multi-function terminal gives."""

    address: str
    output: int

    def __post_init__(self) -> None:
        _check_output(self.output)


@dataclass(frozen=True, slots=True)
class Done:
    """94H, 95H, 96H, 99H, 9AH, 9BH; in 1997 84H, 8AH, 8CH, 8FH, 90H. function: that of the request.

    data is empty but where 1997 is not confirmed (8CH, 8FH).
    """

    address: str
    function: int
    data: bytes = b""
    edition: str = EDITION_2007


@dataclass(frozen=True, slots=True)
class SpeedReply:
    """97H: the word confirmed; both ends change speed after it."""

    address: str
    word: int

    def __post_init__(self) -> None:
        _check_speed(self.word, EDITION_2007)


@dataclass(frozen=True, slots=True)
class PasswordReply:
    """98H: the new level and password."""

    address: str
    new: Authority


@dataclass(frozen=True, slots=True)
class OutputReply:
    """9DH: the output chosen."""

    address: str
    output: int

    def __post_init__(self) -> None:
        _check_output(self.output)


Command = (
    BroadcastTime
    | WriteRequest
    | WriteAddress
    | Freeze
    | ChangeSpeed
    | ChangePassword
    | ClearDemand
    | ClearMeter
    | ClearEvents
    | ClearDemand1997
    | SelectOutput
)
Confirmation = Done | SpeedReply | PasswordReply | OutputReply


def edition_of(message: Command | Confirmation) -> str:
    """The edition that a message is of."""
    if isinstance(message, ClearDemand1997):
        return EDITION_1997
    return str(getattr(message, "edition", EDITION_2007))


def is_answered(message: Command) -> bool:
    """Whether a meter answers: never to a time broadcast (08H), nor to anything sent to all meters."""
    return not isinstance(message, BroadcastTime) and message.address != BROADCAST


def clear_plaintext(function: int, deadline: datetime, di: str = "") -> bytes:
    """R1..R8 of a clear command at level 98, R1..R12 with `di` (1BH): what the crypto machine seals.

    function: 19H, 1AH or 1BH; deadline: by the meter's clock. R9..R12 are taken high byte first, as R3..R8
    are; the standard text does not say.
    """
    if function not in (0x19, 0x1A, 0x1B) or (function == 0x1B) != bool(di):
        raise LocalProtocolError(f"{function:02X}H with DI {di!r} is no clear command")
    return bytes([function, 0]) + moment_bytes(deadline)[::-1] + (di_bytes(di)[::-1] if di else b"")


def _check_speed(word: int, edition: str) -> None:
    if (word not in SPEEDS) if edition == EDITION_2007 else not 0 <= word <= 0xFF:
        raise LocalProtocolError(f"{word:02X}H is no rate word")


def _check_output(output: int) -> None:
    if not 0 <= output < len(OUTPUTS):
        raise LocalProtocolError(f"the multi-function terminal has no output {output:02X}H")
