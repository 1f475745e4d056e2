"""Dialects as data: the rows of `profiles.toml`, and those that a configuration adds or changes."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import date, timedelta
from importlib import resources
from typing import Any

from protocols.errors import LocalProtocolError

DEFAULT_PROFILE = "standard-2013"

ENDED_DAY = "ended_day"
FREEZE_DAY = "freeze_day"
_CHOICES = {
    "protocol_id": (1, 2),
    "confirm_form": ("F1", "F3"),
    "td_d_names": (ENDED_DAY, FREEZE_DAY),
}
_PASSWORD_LENGTHS = (2, 16)
_TYPES: dict[str, tuple[type, ...]] = {"str": (str,), "bool": (bool,), "int": (int,), "float": (int, float)}


@dataclass(frozen=True, slots=True)
class Profile:
    """One dialect; the meaning of each field stands in `profiles.toml`."""

    name: str
    protocol_id: int
    password: bytes
    confirm_form: str
    td_d_names: str
    reply_timeout_s: float
    repeats: int
    forward_margin_s: float
    clock_tolerance_s: int
    store_days: int
    points_a_request: int
    rx_buffer: int
    tx_buffer: int
    f1_for_three_phase: bool
    heartbeat_clock: bool
    heartbeat_s: float

    def tag_of(self, ended_day: date) -> date:
        """The Td_d that asks for the midnight which ended `ended_day`."""
        return ended_day if self.td_d_names == ENDED_DAY else ended_day + timedelta(days=1)


def load(overrides: Mapping[str, Mapping[str, object]] | None = None) -> dict[str, Profile]:
    """All profiles by name. overrides: rows that change or join those of `profiles.toml`; a new one without
    `base` starts from DEFAULT_PROFILE. LocalProtocolError names the row and key that is wrong."""
    table = resources.files(__package__).joinpath("profiles.toml").read_text(encoding="utf-8")
    rows: dict[str, dict[str, object]] = dict(tomllib.loads(table))
    for name, changes in (overrides or {}).items():
        rows[name] = {**rows.get(name, {"base": DEFAULT_PROFILE}), **changes}
    return {name: _profile(name, rows) for name in rows}


def _profile(name: str, rows: Mapping[str, Mapping[str, object]]) -> Profile:
    told: dict[str, object] = {}
    seen = []
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
    checked: dict[str, Any] = {"name": name}
    for key, kind in kinds.items():
        if key not in told:
            raise LocalProtocolError(f"profile {name}: {key} is missing")
        checked[key] = _value(f"profile {name}: {key}", key, kind, told[key])
    return checked


def _value(place: str, key: str, kind: str, value: object) -> object:
    if key in _CHOICES and value not in _CHOICES[key]:
        raise LocalProtocolError(f"{place} is {value!r}, not one of {_CHOICES[key]}")
    if kind == "bytes":
        try:
            password = bytes.fromhex(value) if isinstance(value, str) else b""
        except ValueError:
            password = b""
        if len(password) not in _PASSWORD_LENGTHS:
            raise LocalProtocolError(f"{place} is not 2 or 16 bytes in hex")
        return password
    if not isinstance(value, _TYPES[kind]) or (isinstance(value, bool) and kind != "bool"):
        raise LocalProtocolError(f"{place} is {value!r}, not of type {kind}")
    if isinstance(value, int | float) and value < 0:
        raise LocalProtocolError(f"{place} is {value!r}, less than 0")
    return float(value) if kind == "float" and isinstance(value, int) else value
