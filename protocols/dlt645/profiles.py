"""Dialects as data: the rows of `profiles.toml`, and those that a configuration adds or changes."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cache
from importlib import resources
from typing import Any

from protocols.errors import LocalProtocolError

DEFAULT_PROFILE = "standard-2007"

_CHOICES: dict[str, tuple[object, ...]] = {
    "edition": ("2007", "1997"),
    "control_level": ("", "02", "03", "04"),
    "sealed_order": ("reversed", "as_given"),
    "longest_write": (50, 200),
}
_TYPES: dict[str, tuple[type, ...]] = {"str": (str,), "bool": (bool,), "int": (int,), "float": (int, float)}


@dataclass(frozen=True, slots=True)
class Profile:
    """One dialect; the meaning of each field stands in `profiles.toml`."""

    name: str
    edition: str
    reply_timeout_s: float
    repeats: int
    lead_in: int
    longest_write: int
    control_level: str
    sealed_order: str
    session_minutes: int
    speed_38400: bool
    broadcast_reads: bool


def load(overrides: Mapping[str, Mapping[str, object]] | None = None) -> dict[str, Profile]:
    """All profiles by name. overrides: rows that change or join those of `profiles.toml`; a new one without
    `base` starts from DEFAULT_PROFILE. LocalProtocolError names the row and key that is wrong."""
    table = resources.files(__package__).joinpath("profiles.toml").read_text(encoding="utf-8")
    rows: dict[str, dict[str, object]] = dict(tomllib.loads(table))
    for name, changes in (overrides or {}).items():
        rows[name] = {**rows.get(name, {"base": DEFAULT_PROFILE}), **changes}
    return {name: _profile(name, rows) for name in rows}


@cache
def standard(edition: str = "2007") -> Profile:
    """The row of the bare edition. LocalProtocolError where there is no such edition."""
    try:
        return load()[f"standard-{edition}"]
    except KeyError as error:
        raise LocalProtocolError(f"there is no edition {edition!r}") from error


def _profile(name: str, rows: Mapping[str, Mapping[str, object]]) -> Profile:
    told: dict[str, object] = {}
    seen: list[str] = []
    row: object = name
    while row is not None:
        if not isinstance(row, str) or row not in rows or row in seen:
            raise LocalProtocolError(f"profile {name}: base {row!r} is unknown or leads back to itself")
        seen.append(row)
        told = {**rows[row], **told}
        row = rows[row].get("base")
    told.pop("base", None)
    return Profile(**_checked(name, told))


def _checked(name: str, told: Mapping[str, object]) -> dict[str, Any]:
    kinds = {field.name: str(field.type) for field in fields(Profile) if field.name != "name"}
    for key in told:
        if key not in kinds:
            raise LocalProtocolError(f"profile {name}: there is no key {key!r}")
    return {
        "name": name,
        **{key: _value(f"profile {name}: {key}", key, kinds[key], told[key]) for key in told},
    }


def _value(place: str, key: str, kind: str, value: object) -> object:
    if key in _CHOICES and value not in _CHOICES[key]:
        raise LocalProtocolError(f"{place} is {value!r}, not one of {_CHOICES[key]}")
    if not isinstance(value, _TYPES[kind]) or (isinstance(value, bool) and kind != "bool"):
        raise LocalProtocolError(f"{place} is {value!r}, not of type {kind}")
    if isinstance(value, int | float) and value < 0:
        raise LocalProtocolError(f"{place} is {value!r}, less than 0")
    return float(value) if kind == "float" else value  # type: ignore[arg-type]  # checked above by _TYPES
