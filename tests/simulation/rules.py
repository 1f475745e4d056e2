"""The rules that no input, crash or race may break, checked against what the meters' side saw."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from gateway.command import ENDS, GATED_AS_TRIP, RESTORING, Action, Command, State, chained
from gateway.control.course import CLOCK_TOLERANCE_S, TRIP_VALID
from tests.gateway.control.memory import Row
from tests.simulation.world import LIMITS, World, Written

SLACK = timedelta(seconds=1)


class Broken(AssertionError):
    """A rule was broken; the message names it."""


def _broken(rule: int, what: str) -> None:
    raise Broken(f"rule {rule}: {what}")


def check(world: World) -> None:
    """All rules over the whole history. Broken names the first that was broken."""
    rows = world.store.kept.rows
    for written in world.written:
        _written(world, written)
    _limits(world)
    _executed(world)
    for row in rows.values():
        _chain(row)
        _ends(world, row)
        if row.command.state is State.VERIFIED:
            _verified(world, row)


def _steps(row: Row) -> list[dict[str, Any]]:
    return [body for body, _ in row.events]


def _at(body: dict[str, Any]) -> datetime:
    return datetime.fromisoformat(body["at"])


def _written(world: World, written: Written) -> None:
    frame, command = written.frame, written.command
    if command is None or command.state is not State.SENDING:
        _broken(1, f"{frame.action} was written without a committed row that says so: {command}")
        return
    if frame.action not in GATED_AS_TRIP:
        return
    at = written.at
    if command.expires_at is None or at >= command.expires_at:
        _broken(2, f"{frame.action} written at {at}, expired at {command.expires_at}")
    assert command.expires_at is not None
    if frame.deadline - timedelta(seconds=written.offset) > min(at + TRIP_VALID, command.expires_at) + SLACK:
        _broken(2, f"{frame.action} is valid until {frame.deadline}")
    if abs(written.offset) > CLOCK_TOLERANCE_S:
        _broken(2, f"{frame.action} to a meter whose clock is off by {written.offset} s")
    blocks = [
        block
        for block in written.facts.blocks
        if block.since <= at and (block.until is None or at < block.until)
    ]
    if blocks or written.facts.protected:
        _broken(4, f"{frame.action} at {at} under {blocks}")
    if written.facts.brake or written.facts.weather_halt:
        _broken(4, f"{frame.action} while the brake or a halt was on")
    if not written.clock_trusted:
        _broken(12, f"{frame.action} while our own clock was not trusted")
    if written.contested:
        _broken(8, f"{frame.action} over a contested session")
    hold = written.facts.hold_since
    if hold is not None and command.created_at <= hold:
        _broken(13, f"{frame.action} accepted at {command.created_at}, on hold since {hold}")
    _no_newer_intent(world, command, at)
    _not_blindly(world, written, command)


def _no_newer_intent(world: World, trip: Command, at: datetime) -> None:
    for row in world.store.kept.rows.values():
        other = row.command
        if (
            other.meter_id == trip.meter_id
            and other.intent > trip.intent
            and other.action in (*RESTORING, Action.KEEP_POWER)
            and _at(row.events[0][0]) < at
        ):
            _broken(5, f"a trip was written at {at} after {other.action} had been accepted")


def _not_blindly(world: World, written: Written, command: Command) -> None:
    """A second frame of a trip needs a look at the relay after the first one's validity."""
    before = [
        one
        for one in world.written
        if one.at < written.at and one.command is not None and one.command.id == command.id
    ]
    if not before:
        return
    last = before[-1]
    assert last.command is not None
    until = last.command.valid_until
    assert until is not None
    looked = [
        word
        for at, word in world.meters[command.meter_id].reads
        if until <= at <= written.at and not word & 0x50
    ]
    if not looked:
        _broken(3, f"a second trip frame at {written.at}, the first is valid until {until}")


def _limits(world: World) -> None:
    trips = [one for one in world.written if one.frame.action in GATED_AS_TRIP]
    for one in trips:
        window = [other for other in trips if one.at - LIMITS.window < other.at <= one.at]
        if len(window) > LIMITS.all:
            _broken(7, f"{len(window)} trips within an hour before {one.at}")
        area = [other for other in window if other.facts.area_id == one.facts.area_id]
        if len(area) > LIMITS.area:
            _broken(7, f"{len(area)} trips of area {one.facts.area_id} within an hour before {one.at}")


def _executed(world: World) -> None:
    """Nothing was obeyed that was not written by a command, and no trip after its expiry."""
    by_hash = {one.frame.sha256: one for one in world.written}
    for meter in world.meters.values():
        for seen in meter.seen:
            written = by_hash.get(seen.sha256)
            if written is None:
                _broken(1, f"meter {meter.meter_id} saw a frame that nobody wrote")
                return
            command = written.command
            if (
                seen.obeyed
                and seen.action in GATED_AS_TRIP
                and command is not None
                and command.expires_at is not None
                and seen.at > command.expires_at + timedelta(seconds=CLOCK_TOLERANCE_S)
            ):
                _broken(2, f"a trip was obeyed at {seen.at}, it expired at {command.expires_at}")


def _chain(row: Row) -> None:
    before = b""
    for place, (body, hashed) in enumerate(row.events, 1):
        before = chained(before, body)
        if hashed != before or body["n"] != place:
            _broken(11, f"the chain of {row.command.id} breaks at {place}")


def _ends(world: World, row: Row) -> None:
    command = row.command
    states = [State(body["state"]) for body in _steps(row) if body["kind"] == "step"]
    ends = [place for place, state in enumerate(states) if state in ENDS]
    if ends and ends[0] != len(states) - 1:
        _broken(11, f"{command.id} went on after {states[ends[0]]}")
    told = [kind for kind, one in world.store.kept.outbox if one == command.id]
    ended = (
        [kind for kind in told if State(kind.removeprefix("relay-command.")) in ENDS]
        if not any(kind.endswith(("permitted", "energised")) for kind in told)
        else [kind for kind in told if not kind.endswith(("permitted", "energised", "field"))]
    )
    if len(ended) != len(ends):
        _broken(11, f"{command.id} ended {len(ends)} times and told of it {len(ended)} times")
    if command.action in RESTORING and command.state in (State.REFUSED, State.FAILED):
        _broken(11, f"a close ended {command.state}")


def _verified(world: World, row: Row) -> None:
    """Verified rests on a look at the relay after the last write, and after every trip that might strike."""
    command = row.command
    meter = world.meters[command.meter_id]
    verified = next(
        body for body in reversed(_steps(row)) if body["state"] == State.VERIFIED and body["kind"] == "step"
    )
    at = _at(verified)
    if verified.get("proof") == "field_report":
        return
    since = command.sent_at
    reads = [(when, word) for when, word in meter.reads if when <= at and (since is None or when > since)]
    if not reads:
        _broken(10, f"{command.action} {command.id} was verified without a look at the relay")
    if command.action in RESTORING:
        trips = [
            one.command.valid_until
            for one in world.written
            if one.frame.meter_id == command.meter_id
            and one.frame.action is Action.TRIP
            and one.at < at
            and one.command is not None
            and one.command.valid_until is not None
            and world.store.kept.rows[one.command.id].command.state is not State.VERIFIED
        ]
        last = max(trips, default=None)
        if last is not None and not any(when > last and not word & 0x40 for when, word in reads):
            _broken(6, f"{command.action} verified at {at}; a trip was to be feared until {last}")
    mask, value = {
        Action.TRIP: (0x10, 0x10),
        Action.CLOSE: (0x50, 0),
        Action.PERMIT_CLOSE: (0x40, 0),
        Action.KEEP_POWER: (0x1000, 0x1000),
        Action.RELEASE_KEEP_POWER: (0x1000, 0),
    }[command.action]
    if not any(word & mask == value for _, word in reads):
        _broken(10, f"{command.action} verified at {at} although no look showed it")


def nobody_in_the_dark(world: World) -> None:
    """When faults have stopped: whoever was given power back last has it, or somebody is on the way."""
    for meter_id, meter in world.meters.items():
        meter.settle()
        commands = sorted(
            (row.command for row in world.store.kept.rows.values() if row.command.meter_id == meter_id),
            key=lambda command: command.intent,
        )
        switching = [
            one for one in commands if one.action in (Action.TRIP, *RESTORING)
            and one.state is not State.CANCELLED
            and (one.attempts or one.state not in (State.REFUSED, State.EXPIRED, State.SUPERSEDED))
        ]  # fmt: skip
        if not switching or switching[-1].action not in RESTORING:
            continue
        last = switching[-1]
        open_order = meter_id in world.store.kept.field_orders
        permitted = last.action is Action.PERMIT_CLOSE and last.state is State.VERIFIED
        if meter.opened and not (open_order or permitted):
            raise Broken(
                f"meter {meter_id} is dark after {last.action} {last.state} ({last.why}: {last.detail})"
            )
        if last.state not in ENDS and not open_order:
            raise Broken(
                f"{last.action} of meter {meter_id} is still {last.state} ({last.why}: {last.detail})"
            )
