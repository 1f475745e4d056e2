"""What terminals count as acknowledged of the readings that they pushed, beside what was stored."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

Values = tuple[int, ...]
"""Of one midnight: total and those tariffs that there are, in 0.0001 kWh."""


class Stored(NamedTuple):
    """A row that says something of a meter's midnight, of whatever quantity, kind and instant."""

    meter: str
    what: str
    values: Values


class Pushes:
    """The simulator's file of what was pushed; each question reads on to its end."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._at = 0
        self._of: dict[str, list[str]] = {}
        """frame -> meters"""
        self._sent: set[str] = set()
        self._confirmed: set[str] = set()
        self._published: list[tuple[float, str]] = []
        """when, frame"""
        self._counts: Counter[str] = Counter()

    def _read(self) -> None:
        with self.path.open("rb") as file:
            file.seek(self._at)
            new = file.read()
        whole = new.rfind(b"\n") + 1
        self._at += whole
        for line in map(json.loads, new[:whole].splitlines()):
            self._counts[line["what"]] += 1
            match line["what"]:
                case "sent":
                    self._of[line["frame"]] = line["meters"]
                    self._sent.update(line["meters"])
                case "confirmed":
                    self._confirmed.update(line["meters"])
                case "published":
                    self._published.append((line["at"], line["frame"]))

    def counts(self) -> Counter[str]:
        """Frames sent (repeats are not counted anew), confirmed, and published (of whatever content)."""
        self._read()
        return self._counts

    def sent(self) -> set[str]:
        """Meters whose reading was pushed."""
        self._read()
        return self._sent

    def confirmed(self) -> set[str]:
        """Meters whose reading the gateway has confirmed by a frame."""
        self._read()
        return self._confirmed

    def published(self, doubtful: Sequence[tuple[float, float]] = ()) -> set[str]:
        """Meters whose reading the broker has taken, unless it may have forgotten that by itself: not those
        of these spans."""
        self._read()
        return {
            meter
            for at, frame in self._published
            if not any(begin <= at <= end for begin, end in doubtful)
            for meter in self._of.get(frame, ())
        }


@dataclass(frozen=True)
class Comparison:
    """Meters."""

    lost: list[str]
    """acknowledged, and not stored"""
    wrong: list[str]
    """stored with other values than the meter had"""
    doubled: list[str]
    """something is stored of them more than once"""

    @property
    def clean(self) -> bool:
        return not (self.lost or self.wrong or self.doubled)


def compare(acknowledged: Iterable[str], truth: Mapping[str, Values], stored: Iterable[Stored]) -> Comparison:
    """truth: of each meter, the one midnight that can be known."""
    rows = list(stored)
    times = Counter(row.meter for row in rows)
    return Comparison(
        lost=sorted(set(acknowledged) - times.keys()),
        wrong=sorted({row.meter for row in rows if truth.get(row.meter) != row.values}),
        doubled=sorted(meter for meter, count in times.items() if count > 1),
    )
