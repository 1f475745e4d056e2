"""What a session has to know beforehand: deadlines, limits, and how each profile of terminal differs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, cast

from gateway.errors import ConfigurationError
from protocols.dlt645 import profiles as meter_dialects
from protocols.errors import LocalProtocolError
from protocols.q_gdw376 import profiles
from protocols.q_gdw376.password import Scheme

TdNames = Literal["ended_day", "freeze_day"]


DEFAULT_PROFILE: Final = profiles.DEFAULT_PROFILE
"""of terminals whose assets name none, or one that nobody knows"""


@dataclass(frozen=True, slots=True)
class TerminalProfile:
    """How one kind of terminal differs from another. The defaults are what most terminals do."""

    td_d_names: TdNames = "ended_day"
    """which date Td_d gives a midnight: the day that ended, or the day that it opens"""
    confirm_form: Literal["F1", "F3"] = "F3"
    """AFN00 F3 confirms each unit; some firmware knows nothing else, some only F1"""
    clock_tolerance_s: float = 300.0
    """a terminal clock off by more is alarmed, and its readings are marked"""
    reply_timeout_s: float | None = None
    """None: as in the settings"""
    points_a_request: int = 16
    store_days: int = 30
    """days for which the terminal keeps its frozen values; 0: it keeps none, and its meters are asked"""
    fcv: bool = False
    """FCB turns with each request and is marked valid"""
    password: Scheme | None = None
    """makes PW of writes; None: zeros"""
    variants: Mapping[str, str] = field(default_factory=dict)
    """which of several layouts its data have"""


def terminal_profiles(
    changes: Mapping[str, Mapping[str, object]], general: Mapping[str, object]
) -> dict[str, TerminalProfile]:
    """All profiles by name: the built-in ones of Q/GDW 376.1, changed and joined by `changes`, whose words
    are those of its table; `general`: what holds where a profile says nothing else. ConfigurationError names
    profile and key."""
    standard = {**general, **changes.get(DEFAULT_PROFILE, {})}
    try:
        rows = profiles.load({**changes, DEFAULT_PROFILE: standard})
        return {name: _terminal_profile(row) for name, row in rows.items()}
    except LocalProtocolError as error:
        raise ConfigurationError(f"the profiles are not right 规约配置有误: {error}") from error


def _terminal_profile(row: profiles.Profile) -> TerminalProfile:
    return TerminalProfile(
        td_d_names=cast(TdNames, row.td_d_names),
        confirm_form=cast(Literal["F1", "F3"], row.confirm_form),
        clock_tolerance_s=row.clock_tolerance_s,
        reply_timeout_s=row.reply_timeout_s,
        points_a_request=row.points_a_request,
        store_days=row.store_days if row.keeps_values else 0,
        fcv=row.fcv,
        password=row.scheme(),
        variants=row.variants,
    )


@dataclass(frozen=True, slots=True)
class MeterProfile:
    """How one kind of meter is switched. The defaults are those of a meter without a security chip."""

    edition: str = "2007"
    level: str = "02"
    """PA: 02, 03 or 04 in plain with a password, 98 sealed by a crypto machine; "": it cannot be switched"""
    password: str = field(default="", repr=False)
    """P2 P1 P0, six digits; "": none is known, and nothing is sent in plain"""
    operator: str = "00000000"
    """C3..C0, eight digits: the meter keeps them in its record of the switching"""
    status_word: bool = True
    """ask for a status word in the answer to a sealed command; older meters do not mind"""
    sealed_order: str = meter_dialects.standard().sealed_order
    """how cipher and MAC travel"""

    @property
    def sealed(self) -> bool:
        return self.level == SEALED_LEVEL


SEALED_LEVEL: Final = "98"
GENERAL_METER: Final = "default"
"""The section that holds for meters whose profile has none, and for what a section leaves out."""
_DIALECT_KEYS: Final = ("base", "sealed_order")


def meter_profiles(changes: Mapping[str, Mapping[str, object]]) -> dict[str, MeterProfile]:
    """All meter profiles by name: the built-in dialects of DL/T 645 and those of `changes`, in the words of
    `MeterProfile` and `base`, the dialect that it starts from. ConfigurationError names profile and key."""
    general = changes.get(GENERAL_METER, {})
    dialects = {
        name: {key: value for key, value in {**general, **given}.items() if key in _DIALECT_KEYS}
        for name, given in {GENERAL_METER: general, **changes}.items()
    }
    try:
        rows = meter_dialects.load(dialects)
    except LocalProtocolError as error:
        raise ConfigurationError(f"the meter profiles are not right 电能表规约配置有误: {error}") from error
    return {name: _meter_profile(row, {**general, **changes.get(name, {})}) for name, row in rows.items()}


def _meter_profile(row: meter_dialects.Profile, given: Mapping[str, object]) -> MeterProfile:
    can_switch = bool(row.control_level)
    told = {key: value for key, value in given.items() if key not in _DIALECT_KEYS}
    told["level"] = told.get("level", row.control_level) if can_switch else ""
    return MeterProfile(edition=row.edition, sealed_order=row.sealed_order, **cast(dict[str, Any], told))


@dataclass(frozen=True, slots=True)
class SessionSettings:
    """Deadlines in seconds of the house clock; every wait and every buffer of a session is bounded by
    these."""

    login_deadline_s: float = 30.0
    heartbeat_s: float = 900.0
    """the longest period between two heartbeats of any terminal here (AFN04 F1: commonly 1 to 15 minutes)"""
    missed_heartbeats: int = 3
    listen_after_takeover_s: float = 30.0
    reply_timeout_s: float = 30.0
    repeats: int = 2
    read_buffer_bytes: int = 65_536
    refuse_unknown: bool = False
    correct_clock: bool = False
    """set a clock that is off by itself; otherwise only on command"""
    clock_midnight_guard_s: float = 900.0
    """no clock is set while it, or the right time, is so close to a midnight"""
    forward_message_timeout_s: int = 30
    """how long the terminal waits for a meter (AFN10 F1)"""
    forward_byte_timeout_ms: int = 100
    forward_margin_s: float | None = None
    """how much longer than the terminal we wait; None: as long as for any other answer"""
    relay_carrier_timeout_s: int = 60
    """how long the terminal waits for a meter behind carrier or radio, where a relay is at stake"""
    relay_wire_timeout_s: int = 5
    """and behind any other port: RS-485 answers within half a second"""
    relay_margin_s: float = 30.0
    """how much longer than the terminal we wait then; never less than the way up and down takes"""
    relay_pauses_reading: bool = False
    """have the terminal stop reading meters on the port (AFN05 F49) while one behind it is controlled"""
    meters: Mapping[str, MeterProfile] = field(default_factory=dict)
    """meter profiles by name"""
    fetch_events: bool = True
    """ask terminals for the events that they say wait; those they send unasked are filed in any case"""
    events_fetched_at_once: int = 32
    """terminals that are asked for events at the same time: after a power cut all have some"""
    logins_learned_at_once: int = 1000
    """terminals that are asked about themselves at the same time after a mass login"""
    default_profile: TerminalProfile = field(default_factory=TerminalProfile)
    profiles: Mapping[str, TerminalProfile] = field(default_factory=dict)

    def profile(self, name: str) -> TerminalProfile:
        """The profile of that name, or the default one."""
        return self.profiles.get(name, self.default_profile)

    def meter(self, name: str) -> MeterProfile:
        """The meter profile of that name, or the general one."""
        return self.meters.get(name) or self.meters.get(GENERAL_METER) or MeterProfile()
