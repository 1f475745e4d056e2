"""What the meters held beside what was stored."""

from __future__ import annotations

import csv
import io
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

Key = tuple[str, str, str]
"""meter, quantity, frozen_at"""

Registers = tuple[str, str, str, str, str]
"""total and four tariffs, as text"""


def registers(text: str) -> dict[Key, Registers]:
    """Rows of a truth file or of an export. AssertionError where one key comes twice."""
    found: dict[Key, Registers] = {}
    for row in csv.DictReader(io.StringIO(text)):
        key = (row["meter"], row["quantity"], row["frozen_at"])
        assert key not in found, f"twice: {key}"
        found[key] = (row["total"], row["t1"], row["t2"], row["t3"], row["t4"])
    return found


@dataclass(frozen=True)
class Comparison:
    """Truth against export."""

    wrong: list[Key]
    """stored with other registers than the meter held, or under a meter or day that has no truth"""
    absent: list[Key]
    """held by a meter and not stored"""
    stored: int


def compare(truth: Path, export: str) -> Comparison:
    """Every stored row must be true; what is true and not stored is listed."""
    held = registers(truth.read_text())
    stored = registers(export)
    return Comparison(
        wrong=[key for key, values in stored.items() if held.get(key) != values],
        absent=[key for key in held if key not in stored],
        stored=len(stored),
    )


def reasons(gaps: dict[str, list[dict[str, str]]]) -> Counter[str]:
    """How often `lingdian gaps --json` names which reason."""
    return Counter(one["reason"] for one in gaps["gaps"])
