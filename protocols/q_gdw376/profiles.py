"""Dialects as data: the rows of `profiles.toml`, and those that a configuration adds or changes."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import date, timedelta
from functools import cache
from importlib import resources
from types import MappingProxyType
from typing import Any

from protocols import dialects
from protocols.errors import LocalProtocolError
from protocols.q_gdw376.password import Crc16, External, Fixed, Place, Scheme, Unchecked

DEFAULT_PROFILE = "standard-2013"

ENDED_DAY = "ended_day"
FREEZE_DAY = "freeze_day"
NONE, FIXED, CRC16, EXTERNAL = "none", "fixed", "crc16", "external"
VERSION = "version"
"""The name under which `Profile.variants` has the edition."""
_SETTINGS = "settings"
_VARIANTS = "variants"
_PASSWORD = "password"
_CHOICES: Mapping[str, tuple[object, ...]] = {
    "edition": ("2005", "2009", "2013"),
    "protocol_id": (1, 2),
    "password_scheme": (NONE, FIXED, CRC16, EXTERNAL),
    "crc_place": tuple(place.value for place in Place),
    "confirm_form": ("F1", "F3"),
    "td_d_names": (ENDED_DAY, FREEZE_DAY),
}
_PASSWORD_LENGTHS = (2, 16)


@dataclass(frozen=True, slots=True)
class Profile:
    """One dialect; the meaning of each field stands in `profiles.toml`.

    variants: the word of every setting, and the edition under VERSION: what the forms of a frame are chosen
    by."""

    name: str
    edition: str
    variants: Mapping[str, str]
    protocol_id: int
    password_scheme: str
    password: bytes
    crc_polynomial: int
    crc_seed: int
    crc_reflected: bool
    crc_xor_out: int
    crc_place: str
    fcv: bool
    label_delay_min: int
    confirm_form: str
    td_d_names: str
    reply_timeout_s: float
    repeats: int
    forward_margin_s: float
    clock_tolerance_s: float
    store_days: int
    keeps_values: bool
    points_a_request: int
    rx_buffer: int
    tx_buffer: int
    f1_for_three_phase: bool
    heartbeat_clock: bool
    heartbeat_s: float

    def tag_of(self, ended_day: date) -> date:
        """The Td_d that asks for the midnight which ended `ended_day`."""
        return ended_day if self.td_d_names == ENDED_DAY else ended_day + timedelta(days=1)

    def scheme(self, external: External | None = None) -> Scheme:
        """How PW is made and checked. external: the owner's module, for profiles that want one.
        LocalProtocolError where that is missing, or the crc_ keys are no CRC-16."""
        length = len(self.password)
        if self.password_scheme == FIXED:
            return Fixed(self.password)
        if self.password_scheme == CRC16:
            place = Place(self.crc_place)
            return Crc16(
                self.crc_seed, self.crc_polynomial, self.crc_reflected, self.crc_xor_out, place, length
            )
        if self.password_scheme == EXTERNAL:
            if external is None or external.length != length:
                raise LocalProtocolError(
                    f"profile {self.name}: there is no module for a PW of {length} bytes"
                )
            return external
        return Unchecked(length)


def load(overrides: Mapping[str, Mapping[str, object]] | None = None) -> dict[str, Profile]:
    """All profiles by name. overrides: rows that change or join those of `profiles.toml`; a new one without
    `base` starts from DEFAULT_PROFILE. LocalProtocolError names the row and key that is wrong."""
    rows: dict[str, Mapping[str, object]] = {name: row for name, row in _table().items() if name != _SETTINGS}
    for name, changes in (overrides or {}).items():
        if name == _SETTINGS:
            raise LocalProtocolError(f"a profile cannot be called {name!r}")
        rows[name] = {**rows.get(name, {dialects.BASE: DEFAULT_PROFILE}), **changes}
    return {name: _profile(name, rows) for name in rows}


def settings() -> dict[str, tuple[str, ...]]:
    """Every setting of `variants` with its words, the default first."""
    return {name: tuple(words) for name, words in _table()[_SETTINGS].items()}


@cache
def _table() -> Mapping[str, Mapping[str, Any]]:
    return tomllib.loads(resources.files(__package__).joinpath("profiles.toml").read_text(encoding="utf-8"))


def _profile(name: str, rows: Mapping[str, dialects.Row]) -> Profile:
    lineage = dialects.lineage(name, rows)
    told = dialects.merged(lineage)
    told.pop(_VARIANTS, None)
    kinds = {
        field.name: str(field.type)
        for field in fields(Profile)
        if field.name not in ("name", _VARIANTS, _PASSWORD)
    }
    password = told.pop(_PASSWORD, None)
    checked: dict[str, Any] = dialects.checked(name, told, kinds, _CHOICES)
    variants = _chosen(name, checked["edition"], lineage)
    return Profile(name=name, password=_password(name, password), variants=variants, **checked)


def _chosen(name: str, edition: str, lineage: Sequence[dialects.Row]) -> Mapping[str, str]:
    chosen: dict[str, object] = {}
    for row in lineage:
        variants = row.get(_VARIANTS, {})
        if not isinstance(variants, Mapping):
            raise LocalProtocolError(f"profile {name}: {_VARIANTS} is {variants!r}, not a table")
        chosen = {**variants, **chosen}
    known = settings()
    words = {setting: choices[0] for setting, choices in known.items()}
    for setting, word in chosen.items():
        if word not in known.get(setting, ()):
            raise LocalProtocolError(
                f"profile {name}: {_VARIANTS}.{setting} is {word!r}; there are: "
                + ", ".join(f"{one} = {'|'.join(choices)}" for one, choices in known.items())
            )
        words[setting] = str(word)
    return MappingProxyType({VERSION: edition, **words})


def _password(name: str, told: object) -> bytes:
    try:
        password = bytes.fromhex(told) if isinstance(told, str) else b""
    except ValueError:
        password = b""
    if len(password) not in _PASSWORD_LENGTHS:
        raise LocalProtocolError(f"profile {name}: {_PASSWORD} is not 2 or 16 bytes in hex")
    return password
