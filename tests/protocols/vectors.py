"""The field frames of tests/vectors/frames.json as values."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

_FILE = Path(__file__).parents[1] / "vectors" / "frames.json"


@dataclass(frozen=True)
class Vector:
    """One entry; raw are its bytes with the lead-in that the source had."""

    id: str
    protocol: str
    direction: str
    raw: bytes
    meaning: str
    valid: bool
    tag: str
    expected: dict[str, Any] = field(hash=False)

    def __str__(self) -> str:
        return self.id


@cache
def vectors() -> tuple[Vector, ...]:
    """All entries, in the order of the file."""
    entries = json.loads(_FILE.read_text(encoding="utf-8"))
    return tuple(
        Vector(
            id=entry["id"],
            protocol=entry["protocol"],
            direction=entry["direction"],
            raw=bytes.fromhex(entry["hex"]),
            meaning=entry["meaning"],
            valid=entry["valid"],
            tag=entry.get("tag") or "",
            expected=entry["expected"],
        )
        for entry in entries
    )


def valid(*protocols: str) -> list[Vector]:
    """The good frames of some protocols."""
    return [vector for vector in vectors() if vector.valid and vector.protocol in protocols]


def tagged(*tags: str) -> list[Vector]:
    """The damaged entries with one of these tags."""
    return [vector for vector in vectors() if not vector.valid and vector.tag in tags]
