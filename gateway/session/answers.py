"""What a terminal session answers to the rest of the house: frozen values without protocol names."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from gateway.model import Failure, ReadingRow


@dataclass(frozen=True, slots=True)
class FrozenAnswer:
    """What one request for frozen values gave: each due is in `rows` or in `failures`, never in both.

    rows: checked and ready for the writer, which the caller calls. Rows that nobody asked for but that came
    along (reactive energy of F1/F2) are in it too. halve: the terminal denied or stayed silent: ask for half
    as many. closed: the link ended in mid-exchange; `failures` say `terminal_absent`.
    """

    rows: list[ReadingRow] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    halve: bool = False
    closed: bool = False


@dataclass(frozen=True, slots=True)
class PresentReading:
    """A register as it is now (0C F129): 0.0001 kWh; `registers[0]` is the total. read_at: UTC, or None."""

    pn: int
    meter_id: int | None
    read_at: datetime | None
    registers: tuple[int | None, ...]


@dataclass(frozen=True, slots=True)
class ReadingProgress:
    """How far the terminal is with reading its own meters (0C F11), one row a port."""

    port: int
    meters: int
    done: int
    finished: bool
