"""What the meters' side saw, entry by entry: the witness that a head-end's own books are compared with."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal, Self

What = Literal["frame", "read", "moved", "button"]


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing that a meter saw or did. The position is that after it.

    what: `frame`, a frame of 1CH or 03H came; `read`, status word 3 was read; `moved`, the relay opened or
    closed; `button`, somebody pressed it.
    """

    at: float
    """the district's seconds: true time"""
    meter: str
    """address of the meter"""
    what: What
    frame: str
    """SHA-256 in hex of the 645 frame without lead-in; of a move: of the frame that led to it; "" for none"""
    verb: str
    """as in a permit, "permit-close"; "sealed" where the cipher was not opened, "03 070000ff" """
    decision: str
    """`accepted`, or in words why not; `opened`, `closed`; `in vain` for a button that closed nothing"""
    is_open: bool
    """the line itself, which bit 4 may follow later"""
    trip_ordered: bool
    """command state, bit 6"""
    keep_power: bool
    button: bool
    """a person may close it now"""
    clock: datetime
    """the meter's own clock"""
    deadline: datetime | None = None
    """of the frame, by the meter's clock"""
    address: str = ""
    """that the frame named, where it is not the meter's own"""
    operator: str = ""

    def line(self) -> str:
        """As one line of JSON, instants in ISO form."""
        return json.dumps(asdict(self), default=datetime.isoformat, separators=(",", ":"))


Ledger = Callable[[Entry], None]


def nowhere(entry: Entry) -> None:
    """Nobody reads it."""


class LedgerFile:
    """Entries as lines of JSON; each is on the disk before the meter answers. OSError where it cannot be."""

    def __init__(self, path: Path) -> None:
        """Go on behind what `path` holds already."""
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)  # else the file itself could be lost with the machine
        finally:
            os.close(folder)

    def __call__(self, entry: Entry) -> None:
        line = memoryview(f"{entry.line()}\n".encode())
        while line:
            line = line[os.write(self._file, line) :]
        os.fsync(self._file)

    def close(self) -> None:
        """Give the file back."""
        os.close(self._file)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
