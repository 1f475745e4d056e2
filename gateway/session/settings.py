"""What a session has to know beforehand: deadlines, limits, and how each profile of terminal differs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

TdNames = Literal["ended_day", "freeze_day"]


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
    """days for which the terminal keeps its frozen values"""


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
    logins_learned_at_once: int = 1000
    """terminals that are asked about themselves at the same time after a mass login"""
    default_profile: TerminalProfile = field(default_factory=TerminalProfile)
    profiles: Mapping[str, TerminalProfile] = field(default_factory=dict)

    def profile(self, name: str) -> TerminalProfile:
        """The profile of that name, or the default one."""
        return self.profiles.get(name, self.default_profile)
