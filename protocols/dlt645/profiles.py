"""Dialects as data: the rows of `profiles.toml`, and those that a configuration adds or changes."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cache
from importlib import resources
from typing import Any

from protocols import dialects
from protocols.errors import LocalProtocolError

DEFAULT_PROFILE = "standard-2007"

_CHOICES: dict[str, tuple[object, ...]] = {
    "edition": ("2007", "1997"),
    "control_level": ("", "02", "03", "04"),
    "sealed_order": ("reversed", "as_given"),
    "longest_write": (50, 200),
}


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
        rows[name] = {**rows.get(name, {dialects.BASE: DEFAULT_PROFILE}), **changes}
    return {name: _profile(name, rows) for name in rows}


@cache
def standard(edition: str = "2007") -> Profile:
    """The row of the bare edition. LocalProtocolError where there is no such edition."""
    try:
        return load()[f"standard-{edition}"]
    except KeyError as error:
        raise LocalProtocolError(f"there is no edition {edition!r}") from error


def _profile(name: str, rows: Mapping[str, dialects.Row]) -> Profile:
    kinds = {field.name: str(field.type) for field in fields(Profile) if field.name != "name"}
    told: dict[str, Any] = dialects.checked(
        name, dialects.merged(dialects.lineage(name, rows)), kinds, _CHOICES
    )
    return Profile(name=name, **told)
