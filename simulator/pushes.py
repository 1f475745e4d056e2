"""What terminals sent of their own accord, and who said that it has arrived: the witness that a head-end's
books are compared with, for no reading may be lost that was acknowledged."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True, slots=True)
class Pushed:
    """One thing that happened to a frame of readings.

    what: `sent`; `confirmed`, by the master's own frame; `published`, the broker has it (PUBACK), told of
    every frame that a terminal gave it.
    """

    what: Literal["sent", "confirmed", "published"]
    terminal: str
    frame: str
    """SHA-256 of its bytes in hex"""
    meters: tuple[str, ...] = ()
    """numbers of those whose midnight is in it; a broker does not look into frames: ()"""


Pushes = Callable[[Pushed], None]


def nowhere(pushed: Pushed) -> None:
    """Nobody reads it."""


class PushesFile:
    """Entries as lines of JSON, each with the real instant `at` (seconds since 1970) of its writing. They can
    be read at once, and survive the end of this process, not of the machine."""

    def __init__(self, path: Path) -> None:
        """Go on behind what `path` holds already. OSError."""
        self._file = path.open("a", encoding="ascii", buffering=1)

    def __call__(self, pushed: Pushed) -> None:
        self._file.write(json.dumps({"at": time.time(), **asdict(pushed)}) + "\n")

    def close(self) -> None:
        """Give the file back."""
        self._file.close()
