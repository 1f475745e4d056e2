"""How both families read their tables of dialects: rows that stand on others, and values of known types."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from protocols.errors import LocalProtocolError

BASE = "base"
"""Key of the row that a row stands on."""

Row = Mapping[str, object]

_TYPES: Mapping[str, tuple[type, ...]] = {
    "str": (str,),
    "bool": (bool,),
    "int": (int,),
    "float": (int, float),
}


def lineage(name: str, rows: Mapping[str, Row]) -> list[Row]:
    """The row and all that it stands on, itself first. LocalProtocolError where a base is unknown or leads
    back to the row."""
    found: list[Row] = []
    seen: list[str] = []
    base: object = name
    while base is not None:
        if not isinstance(base, str) or base not in rows or base in seen:
            raise LocalProtocolError(f"profile {name}: base {base!r} is unknown or leads back to itself")
        seen.append(base)
        found.append(rows[base])
        base = rows[base].get(BASE)
    return found


def merged(found: Sequence[Row]) -> dict[str, object]:
    """What a lineage says in all, the nearest row before those behind it; BASE left out."""
    told: dict[str, object] = {}
    for row in found:
        told = {**row, **told}
    told.pop(BASE, None)
    return told


def checked(
    name: str, told: Row, kinds: Mapping[str, str], choices: Mapping[str, Sequence[object]]
) -> dict[str, object]:
    """`told` with every key of `kinds` and no other, each of its type (str, bool, int, float: not less than
    0) and among its choices. LocalProtocolError names profile and key."""
    for key in told:
        if key not in kinds:
            raise LocalProtocolError(f"profile {name}: there is no key {key!r}")
    values = {}
    for key, kind in kinds.items():
        place = f"profile {name}: {key}"
        if key not in told:
            raise LocalProtocolError(f"{place} is missing")
        value = told[key]
        if key in choices and value not in choices[key]:
            raise LocalProtocolError(f"{place} is {value!r}, not one of {choices[key]}")
        if not isinstance(value, _TYPES[kind]) or (isinstance(value, bool) and kind != "bool"):
            raise LocalProtocolError(f"{place} is {value!r}, not of type {kind}")
        if isinstance(value, int | float) and value < 0:
            raise LocalProtocolError(f"{place} is {value!r}, less than 0")
        values[key] = float(value) if kind == "float" and isinstance(value, int) else value
    return values
