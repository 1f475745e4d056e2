"""May this be done, now? The gates before a relay command, pure: facts and rules in, a judgement out.

A trip passes all of them three times: when it is accepted, in the transaction that claims it, and once more
beside the write. A close passes none of those that protect a customer from the dark: nothing here refuses it.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta
from enum import Enum
from functools import lru_cache
from importlib import resources
from typing import Final

from gateway.clock import to_device
from gateway.command import (
    GATED_AS_TRIP,
    PLACE_LASTS,
    RESTORING,
    Action,
    Command,
    MeterFacts,
    NewCommand,
    Place,
    State,
    Used,
    Why,
)
from gateway.command import (
    Limits as Limits,
)
from gateway.errors import ConfigurationError
from gateway.model import PointRole, RelayKind

SATURDAY: Final = 5

LOOK_AGAIN: Final = timedelta(minutes=1)
"""When a gate that may open by itself (brake, weather) is looked at again."""

LIMIT_AGAIN: Final = timedelta(minutes=5)
"""The same of a limit, whose window is an hour: tens of thousands may wait for room."""

DARKENS: Final = (PointRole.CUSTOMER, PointRole.FEED_IN)
"""Points that have somebody behind them; a gateway, feeder or bus meter is never switched."""


@dataclass(frozen=True, slots=True)
class Calendar:
    """Which days are worked. years: those that it knows; on a day of another one no trip is allowed."""

    years: frozenset[int]
    holidays: frozenset[date]
    working: frozenset[date]

    def works_on(self, day: date) -> bool:
        """Is this a working day, weekends and shifted days counted in?"""
        if day in self.working:
            return True
        return day.weekday() < SATURDAY and day not in self.holidays

    def before_holiday(self, day: date) -> bool:
        """Does a public holiday begin or go on the next day?"""
        return day + timedelta(days=1) in self.holidays


def read_calendar(text: str, name: str) -> Calendar:
    """A calendar from TOML as in `calendar.toml`. ConfigurationError names file and place."""
    try:
        told = tomllib.loads(text)
        years = frozenset(int(year) for year in told)
        holidays = frozenset(
            day
            for year in told.values()
            for first, last in year["holidays"]
            for day in _days(date.fromisoformat(first), date.fromisoformat(last))
        )
        working = frozenset(date.fromisoformat(day) for year in told.values() for day in year["working"])
    except (tomllib.TOMLDecodeError, KeyError, TypeError, ValueError) as error:
        raise ConfigurationError(
            f"calendar {name} cannot be read ({error}); it needs a table for each year with `holidays`, a"
            " list of first and last days, and `working`, a list of days"
        ) from error
    return Calendar(years, holidays, working)


def _days(first: date, last: date) -> list[date]:
    if last < first or last - first > timedelta(days=60):
        raise ValueError(f"{first} to {last} is no holiday")
    return [first + timedelta(days=one) for one in range((last - first).days + 1)]


@lru_cache(maxsize=1)
def own_calendar() -> Calendar:
    """The calendar that comes with the program."""
    return read_calendar(
        resources.files(__package__).joinpath("calendar.toml").read_text(encoding="utf-8"), "calendar.toml"
    )


@dataclass(frozen=True, slots=True)
class Rules:
    """What the company has decided. Hours are of the wall clock in Shanghai, half open."""

    calendar: Calendar = field(default_factory=own_calendar)
    from_hour: time = time(8)
    to_hour: time = time(16)
    any_day: bool = False
    """weekends and holidays too; for the bench"""
    limits: Limits = field(default_factory=Limits)
    trip_lasts: timedelta = timedelta(hours=24)
    """a trip that names no expiry is given up after this"""
    notice_needed: bool = True
    without_notice: frozenset[str] = frozenset()
    """meter profiles for which no notice reference is wanted"""


class Do(Enum):
    """What to do with a command that wants to be sent."""

    SEND = "send"
    WAIT = "wait"
    END = "end"


@dataclass(frozen=True, slots=True)
class Judgement:
    """What a gate says. state: where the command goes (acceptance, or END). until: look again then (WAIT)."""

    do: Do
    state: State
    why: Why | None = None
    detail: str = ""
    until: datetime | None = None


def _refused(why: Why, detail: str = "") -> Judgement:
    return Judgement(Do.END, State.REFUSED, why, detail)


def unfit(action: Action, facts: MeterFacts) -> Why | None:
    """Why nothing can be switched at this point at all; None where it can. Also for closes: such a request is
    turned away before a command is made of it."""
    if not facts.installed:
        return Why.NOT_INSTALLED
    if facts.role not in DARKENS:
        return Why.NOT_CUSTOMER
    if facts.relay_kind is RelayKind.NONE and action not in (Action.ALARM, Action.CLEAR_ALARM):
        return Why.NO_RELAY
    return None


def at_acceptance(new: NewCommand, facts: MeterFacts, rules: Rules, now: datetime) -> Judgement:
    """Where a new command goes: QUEUED, HELD (a second person), or REFUSED with the weightiest reason."""
    if new.action not in GATED_AS_TRIP:
        return Judgement(Do.SEND, State.QUEUED)
    if not new.cause.strip():
        return _refused(Why.NO_CAUSE)
    if rules.notice_needed and facts.profile not in rules.without_notice and not new.notice.strip():
        return _refused(Why.NO_NOTICE)
    if new.expires_at is not None and new.expires_at <= now:
        return Judgement(Do.END, State.EXPIRED, Why.EXPIRED)
    if (protected := _protection(facts)) is not None:
        return protected
    for one in facts.open:
        if one.action in RESTORING:
            return _refused(Why.OPEN_CLOSE, f"{one.action} {one.id} is {one.state}")
        if one.action is Action.KEEP_POWER:
            return _refused(Why.BLOCKED, f"{one.action} {one.id} is {one.state}")
        if one.action is new.action:
            return _refused(Why.OPEN_TRIP, f"{one.action} {one.id} is {one.state}")
    return Judgement(Do.SEND, State.QUEUED)


def _protection(facts: MeterFacts) -> Judgement | None:
    """The block that forbids a trip, or None."""
    if facts.protected:
        return _refused(Why.BLOCKED, "the customer's class is protected")
    for block in facts.blocks:
        return _refused(Why.BLOCKED, f"{block.kind}, set by {block.source}, number {block.id}")
    return None


def limits(facts: MeterFacts, rules: Rules) -> Limits:
    """Those in force: as set by two persons, else by configuration."""
    return facts.limits or rules.limits


def at_claim(command: Command, facts: MeterFacts, rules: Rules, now: datetime, used: Used) -> Judgement:
    """May a queued command be sent now? used: the places of others within `limits`."""
    gate = beside_write(command, facts, rules, now)
    if gate.do is not Do.SEND or command.action not in GATED_AS_TRIP:
        return gate
    most_now = limits(facts, rules)
    for what, count, most in (
        ("area", used.area, most_now.area),
        ("requester", used.requester, most_now.requester),
        ("all", used.all, most_now.all),
    ):
        if count >= most:
            return Judgement(
                Do.WAIT, State.QUEUED, Why.OVER_LIMIT, f"{what}: {count} of {most}", now + LIMIT_AGAIN
            )
    return gate


def stands(place: Place, facts: MeterFacts, rules: Rules, now: datetime) -> bool:
    """Is this a place that still counts: by the limits in force, in the meter's area, taken lately?"""
    return (
        place.at is not None
        and place.limits == limits(facts, rules)
        and place.area_id == facts.area_id
        and now - place.at <= PLACE_LASTS
    )


def only_shadow(action: Action, facts: MeterFacts) -> bool:
    """Is nothing really sent for what is asked for now? In shadow mode it is not, but for what gives power
    back after a trip that was really sent, before the mode began: nobody stays dark for a trial."""
    dark = action in RESTORING and facts.tripped_intent > facts.relit_intent
    return facts.shadow and not dark


def beside_write(command: Command, facts: MeterFacts, rules: Rules, now: datetime) -> Judgement:
    """The same gates without the limits, which were counted in the claim: nothing may come between this and
    the write. Whatever it is, nothing goes to a meter that was taken away; a close of it is a person's."""
    send = Judgement(Do.SEND, State.SENDING)
    if not facts.installed:
        then = State.FIELD if command.action in RESTORING else State.REFUSED
        return Judgement(Do.END, then, Why.NOT_INSTALLED)
    if command.action not in GATED_AS_TRIP:
        return send
    if command.expires_at is not None and now >= command.expires_at:
        return Judgement(Do.END, State.EXPIRED, Why.EXPIRED)
    if (protected := _protection(facts)) is not None:
        return protected
    if facts.restored_intent > command.intent:
        return Judgement(Do.END, State.SUPERSEDED, Why.NEWER_INTENT, "power was given back since")
    for one in facts.open:
        if one.id != command.id and one.action in (*RESTORING, Action.KEEP_POWER):
            return Judgement(Do.END, State.SUPERSEDED, Why.NEWER_INTENT, f"{one.action} {one.id}")
    if facts.hold_since is not None and command.created_at <= facts.hold_since:
        return Judgement(Do.WAIT, State.QUEUED, Why.HOLD_AFTER_RESTORE, "", now + LOOK_AGAIN)
    if facts.brake:
        return Judgement(Do.WAIT, State.QUEUED, Why.BRAKE, "", now + LOOK_AGAIN)
    if facts.weather_halt:
        return Judgement(Do.WAIT, State.QUEUED, Why.WEATHER_HALT, "", now + LOOK_AGAIN)
    if (closed := outside_hours(rules, now)) is not None:
        return Judgement(Do.WAIT, State.QUEUED, Why.OUTSIDE_HOURS, closed, opens_at(rules, now))
    return send


def outside_hours(rules: Rules, now: datetime) -> str | None:
    """Why no trip is allowed at this moment; None where it is."""
    wall = to_device(now)
    day = wall.date()
    if not rules.from_hour <= wall.time() < rules.to_hour:
        return f"{wall:%H:%M} is not within {rules.from_hour:%H:%M} to {rules.to_hour:%H:%M}"
    return _closed_day(rules, day)


def _closed_day(rules: Rules, day: date) -> str | None:
    if rules.any_day:
        return None
    if day.year not in rules.calendar.years or (day + timedelta(days=1)).year not in rules.calendar.years:
        return f"the calendar does not know the year after {max(rules.calendar.years, default=0)}"
    if not rules.calendar.works_on(day):
        return f"{day} is no working day"
    if rules.calendar.before_holiday(day):
        return f"{day} is the day before a holiday"
    return None


def opens_at(rules: Rules, now: datetime) -> datetime:
    """When trips are allowed next, by what is known now; a day from now where that is not within a month."""
    wall = to_device(now)
    for ahead in range(32):
        day = wall.date() + timedelta(days=ahead)
        if _closed_day(rules, day) is None:
            opens = datetime.combine(day, rules.from_hour)
            if opens > wall:
                return now + (opens - wall)
    return now + timedelta(days=1)


RESTORED_BY: Final[Mapping[RelayKind, frozenset[Action]]] = {
    RelayKind.BUILT_IN: frozenset({Action.CLOSE, Action.PERMIT_CLOSE}),
    RelayKind.EXTERNAL_SELF_CLOSING: frozenset({Action.CLOSE}),
    RelayKind.EXTERNAL_HAND_CLOSING: frozenset({Action.PERMIT_CLOSE}),
    RelayKind.NONE: frozenset(),
}
"""How power can be given back: a self-closing switch has no button, one closed by hand is only released."""


def restore(facts: MeterFacts) -> Action:
    """What billing's `restore` means here: by the customer's restore mode, where the relay can do it."""
    wanted = Action.CLOSE if facts.restore_mode == "close" else Action.PERMIT_CLOSE
    able = RESTORED_BY[facts.relay_kind]
    return wanted if wanted in able or not able else next(iter(able))
