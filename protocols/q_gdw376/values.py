"""What data units say, as frozen values: the words that callers of this package use.

Energies are integers of 0.0001 kWh (kvarh); None is a register that the terminal has no value for. Instants
are naive: the terminal's wall clock. Years are 2000 + yy.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime

Registers = tuple[int | None, ...]
"""Total first, then the tariffs; empty where the terminal filled even the number of tariffs with EEH."""


@dataclass(frozen=True, slots=True)
class Clock:
    """A.1: AFN02 F3, AFN05 F31, AFN0C F2. at: None where EEH or zero; weekday: 1 Monday .. 7, 0 none."""

    at: datetime | None
    weekday: int = 0


@dataclass(frozen=True, slots=True)
class Login:
    """AFN02 F1 with what some terminals add to it: a protocol version, kept as bytes."""

    version: bytes


@dataclass(frozen=True, slots=True)
class UnitConfirm:
    """AFN00 F3. afn: of the frame that is answered; results: (pn, fn, ERR) each, ERR 0 is "done"."""

    afn: int
    results: tuple[tuple[int, int, int], ...]

    @property
    def all_done(self) -> bool:
        """No unit has an error."""
        return not any(error for _, _, error in self.results)


@dataclass(frozen=True, slots=True)
class ArchiveRecord:
    """One meter of AFN04 / AFN0A F10, 27 bytes.

    pn: 0 deletes the record. baud: bits a second, 0 is the terminal's default. protocol: 30 DL/T 645-2007, 1
    DL/T 645-1997, 31 carrier module, 0 do not read. address, collector: 12 digits, high digit first; digits
    are not checked on the way in, since they are only compared. user_class: D7-D4 big, D3-D0 small class.
    """

    sequence: int
    pn: int
    port: int
    baud: int
    protocol: int
    address: str
    tariffs: int
    collector: str = "000000000000"
    user_class: int = 0
    password: bytes = bytes(6)
    integer_digits: int = 6
    decimal_digits: int = 2


@dataclass(frozen=True, slots=True)
class Archive:
    """AFN04 F10 down and AFN0A F10 up."""

    records: tuple[ArchiveRecord, ...]


@dataclass(frozen=True, slots=True)
class ArchiveQuery:
    """AFN0A F10 down: the sequence numbers asked for."""

    sequences: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class TerminalVersion:
    """AFN09 F1. Texts are without the NUL and space that fill them up."""

    vendor: str
    device: str
    software: str
    software_date: date | None
    capacity: str
    protocol: str
    hardware: str
    hardware_date: date | None


@dataclass(frozen=True, slots=True)
class PortCapability:
    """One communication port in AFN09 F2."""

    word: int
    max_baud: int
    devices: int
    rx_buffer: int
    tx_buffer: int


@dataclass(frozen=True, slots=True)
class TerminalPorts:
    """AFN09 F2. rx_buffer: the largest frame that the terminal takes, bytes; tx_buffer: that it sends.

    mac: 12 hex digits in the order sent.
    """

    pulses: int
    inputs: int
    dc: int
    outputs: int
    meters: int
    rx_buffer: int
    tx_buffer: int
    mac: str = "000000000000"
    ports: tuple[PortCapability, ...] = ()


@dataclass(frozen=True, slots=True)
class TerminalCapabilities:
    """AFN09 F3, the part that all sources agree on. rest: what follows, which differs by version."""

    points: int
    groups: int
    tasks: int
    difference_groups: int
    rest: bytes = b""


@dataclass(frozen=True, slots=True)
class PortProgress:
    """How far a terminal is with reading the meters of one port (AFN0C F11). flags: state byte as sent."""

    port: int
    total: int
    flags: int
    read: int
    key_read: int
    started_at: datetime | None
    ended_at: datetime | None


@dataclass(frozen=True, slots=True)
class ReadingState:
    """AFN0C F11."""

    ports: tuple[PortProgress, ...]

    @property
    def total(self) -> int:
        """Meters on all ports."""
        return sum(port.total for port in self.ports)

    @property
    def read(self) -> int:
        """Meters read so far on all ports."""
        return sum(port.read for port in self.ports)


@dataclass(frozen=True, slots=True)
class PresentEnergy:
    """AFN0C F129..F136: a register as the terminal last read it. read_at: when; None where EEH or zero."""

    read_at: datetime | None
    registers: Registers


@dataclass(frozen=True, slots=True)
class FrozenEnergy:
    """AFN0D F161..F184: a register frozen for a day, or for a month.

    tag: Td_d, or Td_m as the first of its month; None where the terminal filled it with EEH. read_at: when
    the terminal read the meter; None where EEH or zero.
    """

    tag: date | None
    read_at: datetime | None
    registers: Registers


@dataclass(frozen=True, slots=True)
class FrozenPhases:
    """AFN0D F161, F163, F169, F171 of those terminals that send three phases and no tariffs (23 bytes)."""

    tag: date | None
    read_at: datetime | None
    phases: tuple[int | None, int | None, int | None]

    @property
    def total(self) -> int | None:
        """The sum of the phases; None where one has no value."""
        one, two, three = self.phases
        return None if one is None or two is None or three is None else one + two + three


@dataclass(frozen=True, slots=True)
class FrozenThreePhase:
    """AFN0D F1, F2, F9, F10 (day) and F17, F18 (month): four registers of a three-phase meter.

    quadrant_a, quadrant_b: reactive I and IV in F1, F9, F17; II and III in F2, F10, F18.
    """

    tag: date | None
    read_at: datetime | None
    active: Registers
    reactive: Registers
    quadrant_a: Registers
    quadrant_b: Registers


@dataclass(frozen=True, slots=True)
class DayTag:
    """Td_d of a request: the day asked for."""

    day: date | None


@dataclass(frozen=True, slots=True)
class MonthTag:
    """Td_m of a request: the first of the month asked for."""

    month: date | None


@dataclass(frozen=True, slots=True)
class Forward:
    """AFN10 F1 down: a frame for the terminal to pass on.

    control: D7-D5 baud, D4 stop bits, D3 parity on, D2 odd, D1-D0 data bits - 5 (6BH 2400 8E1). The time
    limits are bytes as sent: message_timeout D7 1 s or 10 ms, D6-D0 how many; byte_timeout x 10 ms.
    """

    port: int
    control: int
    message_timeout: int
    byte_timeout: int
    content: bytes


@dataclass(frozen=True, slots=True)
class Forwarded:
    """AFN10 F1 up: what the meter answered; empty content: it did not. FEH before a 645 frame is left in."""

    port: int
    content: bytes


@dataclass(frozen=True, slots=True)
class Unit:
    """One information class of one point in a frame: what it says, or why it is not understood.

    pn, fn: 0 where the identifier names none. value: one of the values above; None for a unit without data
    and for one kept raw. raw: its data, without the identifier. offset: place of `raw` in `Frame.body`.
    reason: None, or why `value` is missing although there is data.
    """

    pn: int
    fn: int
    value: object | None
    raw: bytes
    offset: int
    reason: str | None = None
