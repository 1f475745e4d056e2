"""The rules about control frames: when each left, and what the meters did with them."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Final

from gateway.command import GATED_AS_TRIP, RESTORING, Action, Command, Limits, State
from gateway.control.course import CLOCK_TOLERANCE_S, DESK_FRESH, TRIP_VALID
from gateway.storage.command_rows import limits_of
from gateway.storage.switches import Switch
from tests.simulation.broken import SLACK, broken
from tests.simulation.doors import Written
from tests.simulation.history import Told
from tests.simulation.world import LIMITS, World

DESK_LOST: Final = timedelta(seconds=10)
"""So long a trip may leave after its desk was cut, which nobody can know at once."""
COUNTED_WITHIN: Final = timedelta(seconds=30)
"""Between the time of a claim and its count."""
TOLERANCE: Final = timedelta(seconds=CLOCK_TOLERANCE_S)


def check(told: Told) -> None:
    """Rules 1 to 5, 7, 8, 12 and 13. Broken."""
    world = told.world
    for written in world.written:
        command = _committed(written)
        if command is not None and written.frame.action in GATED_AS_TRIP:
            _in_time(written, command)
            _not_under_a_block(written, command)
            _sure(written)
            _right_meter(written)
            _no_newer_intent(told, written, command)
            _not_blindly(world, written, command)
            _not_void(told, written, command)
    _limits(world)
    _executed(world)


def _committed(written: Written) -> Command | None:
    """Rule 1: the row that was committed before; None where it was a journal's line, or a close whose gateway
    stood still until another one had taken it on."""
    command = written.command
    if command is not None and command.state is State.SENDING:
        return command
    if (written.in_journal or written.in_events) and written.frame.action in RESTORING:
        return None
    broken(1, f"{written.frame.action} left without a committed row that says so: {command}")


def _in_time(written: Written, command: Command) -> None:
    what, at = written.frame.action, written.at
    if command.expires_at is None or at >= command.expires_at:
        broken(2, f"{what} written at {at}, expired at {command.expires_at}")
    until = written.frame.deadline - timedelta(seconds=written.offset)
    if until > min(at + TRIP_VALID, command.expires_at) + SLACK:
        broken(2, f"{what} is valid until {until}")
    if abs(written.offset) > CLOCK_TOLERANCE_S:
        broken(2, f"{what} to a meter whose clock is off by {written.offset} s")
    if not written.clock_read:
        broken(2, f"{what} to a meter whose clock was not read in this session")


def _not_under_a_block(written: Written, command: Command) -> None:
    what, at, facts = written.frame.action, written.at, written.facts
    blocks = [one for one in facts.blocks if one.since <= at and (one.until is None or at < one.until)]
    if blocks or facts.protected:
        broken(4, f"{what} at {at} under {blocks}")
    if written.switched_at is not None and at - written.switched_at <= DESK_FRESH:
        return  # whoever has his desk already may not have seen it
    if facts.brake or facts.weather_halt:
        broken(4, f"{what} while the brake or a halt was on")
    if facts.shadow or command.shadow:
        broken(4, f"{what} in shadow mode")


def _sure(written: Written) -> None:
    what = written.frame.action
    if not written.clock_trusted:
        broken(12, f"{what} while our own clock was not trusted")
    if written.desk is None or written.at - written.desk > DESK_LOST:
        broken(12, f"{what} at {written.at} without the database: its desk was last held at {written.desk}")


def _right_meter(written: Written) -> None:
    if written.contested:
        broken(8, f"{written.frame.action} over a contested session")
    if not written.identified:
        broken(8, f"{written.frame.action} to a meter that has not said its number in this login")


def _no_newer_intent(told: Told, written: Written, trip: Command) -> None:
    at = written.at
    for row in told.world.company.store.kept.rows.values():
        other = row.command
        if (
            other.meter_id == trip.meter_id
            and other.intent > trip.intent
            and other.action in (*RESTORING, Action.KEEP_POWER)
            and not other.detail.startswith("journal")
            and datetime.fromisoformat(row.events[0][0]["at"]) < at
        ):
            broken(5, f"a trip was written at {at} after {other.action} had been accepted")
    for asked in told.asking.ledger:
        if asked.meter_id != trip.meter_id or not asked.gives_power or asked.at <= trip.created_at:
            continue
        for given in asked.answers:
            if given.at < at and given.era == written.era:
                if not given.in_journal or given.worker == written.worker:
                    broken(5, f"a trip was written at {at}; {asked.key} had been accepted at {given.at}")
                told.world.count("a trip passed a close in another machine's journal")


def _not_blindly(world: World, written: Written, command: Command) -> None:
    """Rule 3: a second frame of a trip needs a look at the relay after the first one's validity."""
    before = [
        one
        for one in world.written
        if one.at < written.at
        and one.era == written.era
        and one.command is not None
        and one.command.id == command.id
    ]
    if not before:
        return
    last = before[-1]
    assert last.command is not None
    until = last.command.valid_until
    assert until is not None
    wanted = 0x50 if command.action is Action.TRIP else 0
    looked = [
        word
        for at, word in world.meters[command.meter_id].reads
        if until <= at <= written.at and not word & wanted
    ]
    if not looked:
        broken(3, f"a second trip frame at {written.at}, the first is valid until {until}")


def _not_void(told: Told, written: Written, command: Command) -> None:
    hold = written.facts.hold_since
    if hold is not None and command.created_at <= hold:
        broken(13, f"{command.action} accepted at {command.created_at}, on hold since {hold}")
    for void in told.faults.voids:
        released = any(void < at <= written.at for at in told.people.released)
        if command.created_at < void <= written.at and not released:
            broken(13, f"{command.action} of {command.created_at} at {written.at}, void since {void}")


# rule 7


def _limits(world: World) -> None:
    trips = [
        (one.claimed_at, one)
        for one in world.written
        if one.frame.action in GATED_AS_TRIP and one.claimed_at is not None and one.command is not None
    ]
    for claimed, one in trips:
        if not any(_within(one, claimed, limits, trips) for limits in _limits_at(world, one, claimed)):
            broken(7, f"the trip at {one.at} is one too many: {_limits_at(world, one, claimed)}")


def _within(one: Written, claimed: datetime, limits: Limits, trips: list[tuple[datetime, Written]]) -> bool:
    first = claimed - limits.window + COUNTED_WITHIN
    window = [other for at, other in trips if first < at <= claimed and other.era == one.era]
    area = sum(other.facts.area_id == one.facts.area_id for other in window)
    mine = sum(_requester(other) == _requester(one) for other in window)
    return area <= limits.area and mine <= limits.requester and len(window) <= limits.all


def _requester(written: Written) -> str:
    return "" if written.command is None else written.command.requester


def _limits_at(world: World, one: Written, claimed: datetime) -> list[Limits]:
    """Those in force when it was claimed, and what came between that and the write."""
    company = world.company
    rows = company.switches.backup() if one.era == company.restores else company.lost_switches[one.era]
    approved = [
        (row.approved_at, limits_of(row.value))
        for row in rows
        if row.name is Switch.LIMITS and row.approved_at is not None
    ]
    before = [limits for at, limits in approved if at <= claimed + COUNTED_WITHIN]
    return [*(before or [LIMITS])[-2:], *([LIMITS] if len(before) < 2 else [])] + [
        limits for at, limits in approved if claimed < at <= one.at
    ]


# what the meters did


def _executed(world: World) -> None:
    """Nothing was obeyed that was not written by a command, and no trip after its time."""
    by_hash = {one.frame.sha256: one for one in world.written}
    for meter_id, at, sha256, action in _obeyed(world):
        written = by_hash.get(sha256)
        if written is None:
            broken(1, f"meter {meter_id} saw a frame that nobody wrote")
        if action not in GATED_AS_TRIP:
            continue
        command = written.command
        assert command is not None
        assert command.expires_at is not None
        if at > command.expires_at + TOLERANCE:
            broken(2, f"a trip was obeyed at {at}, it expired at {command.expires_at}")
        if at > written.at + TRIP_VALID + TOLERANCE:
            broken(2, f"a trip was obeyed at {at}, it was written at {written.at}")


def _obeyed(world: World) -> Iterator[tuple[int, datetime, bytes, Action]]:
    for meter_id, meter in world.meters.items():
        for seen in meter.seen:
            if seen.obeyed:
                yield meter_id, seen.at, seen.sha256, seen.action
