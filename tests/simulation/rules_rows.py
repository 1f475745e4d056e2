"""The rules about what stands in the database: proofs, ends, keys, approvals, the chain."""

from __future__ import annotations

from collections import Counter
from datetime import datetime
from typing import Any, Final

from gateway.command import ENDS, RESTORING, Action, State, chained
from gateway.storage.chain import sealed
from tests.gateway.control.memory import Row
from tests.simulation.broken import broken
from tests.simulation.history import Told
from tests.simulation.world import World

SHOWN: Final = {
    Action.TRIP: (0x10, 0x10),
    Action.CLOSE: (0x50, 0),
    Action.PERMIT_CLOSE: (0x40, 0),
    Action.KEEP_POWER: (0x1000, 0x1000),
    Action.RELEASE_KEEP_POWER: (0x1000, 0),
}
"""Bits of status word 3, and what they are when it is done."""


def check(told: Told) -> None:
    """Rules 6, 7, 9, 10 and 11. Broken."""
    world = told.world
    for row in world.company.store.kept.rows.values():
        _chain(row)
        _ends(world, row)
        _approved(row)
        if row.command.state is State.VERIFIED:
            _verified(world, row)
    _seals(world)
    _keys(told)


def _steps(row: Row) -> list[dict[str, Any]]:
    return [body for body, _ in row.events if body["kind"] == "step"]


def _at(body: dict[str, Any]) -> datetime:
    return datetime.fromisoformat(body["at"])


# rule 11


def _chain(row: Row) -> None:
    before = b""
    for place, (body, hashed) in enumerate(row.events, 1):
        before = chained(before, body)
        if hashed != before or body["n"] != place:
            broken(11, f"the chain of {row.command.id} breaks at {place}")


def _seals(world: World) -> None:
    seals, rows = world.company.seals, world.company.store.kept.rows
    before = b""
    for seal, covers in zip(seals.seals, seals.covers, strict=True):
        for command_id, n, hashed in covers:
            if command_id not in rows or rows[command_id].events[n - 1][1] != hashed:
                broken(11, f"event {n} of {command_id} is not as it was sealed")
        if sealed(before, seal.id, seal.at, [(n, hashed) for _, n, hashed in covers]) != seal.digest:
            broken(11, f"seal {seal.id} is not over its events")
        before = seal.digest


def _ends(world: World, row: Row) -> None:
    command = row.command
    states = [State(body["state"]) for body in _steps(row)]
    ends = [place for place, state in enumerate(states) if state in ENDS]
    if ends and ends[0] != len(states) - 1:
        broken(11, f"{command.id} went on after {states[ends[0]]}")
    told = [
        kind.removeprefix("relay-command.")
        for kind, one in world.company.store.kept.outbox
        if one == command.id
    ]
    ended = [kind for kind in told if kind not in ("permitted", "energised") and State(kind) in ENDS]
    if len(ended) != len(ends):
        broken(11, f"{command.id} ended {len(ends)} times and told of it {len(ended)} times")
    if command.action in RESTORING and command.state in (State.REFUSED, State.FAILED):
        broken(11, f"a close ended {command.state}")


# rule 7


def _approved(row: Row) -> None:
    """What was held went on by a second person alone."""
    for body in _steps(row):
        if body["from"] == State.HELD and body["state"] == State.QUEUED:
            by = body.get("evidence", {}).get("approver", "")
            if not by or by.removeprefix("person:") == row.command.requester:
                broken(7, f"{row.command.id} was approved by {by!r}")


# rule 9


def _keys(told: Told) -> None:
    rows = told.world.company.store.kept.rows.values()
    used = Counter((row.command.requester, row.key) for row in rows)
    for (requester, key), count in used.items():
        if count > 1:
            broken(9, f"key {key} of {requester} made {count} commands")


# rules 6 and 10


def _verified(world: World, row: Row) -> None:
    """Verified rests on a look at the relay after the last write, and after every trip that might strike."""
    command = row.command
    verified = _steps(row)[-1]
    at = _at(verified)
    if command.action in RESTORING and not command.attempts:
        broken(6, f"{command.action} {command.id} was verified without a frame")
    if verified.get("proof") == "field_report":
        if verified["from"] != State.FIELD or command.action not in RESTORING:
            broken(10, f"{command.action} was verified by a report while it was {verified['from']}")
        return
    since = _last_write(world, row, at)
    taken = world.meters[command.meter_id].reads
    reads = [(when, word) for when, word in taken if when <= at and (since is None or when > since)]
    mask, value = SHOWN[command.action]
    if not any(word & mask == value for _, word in reads):
        broken(10, f"{command.action} {command.id} verified at {at} although no look showed it")
    if command.action in RESTORING:
        last = _feared_until(world, command.meter_id, at)
        if last is not None and not any(when > last and not word & 0x40 for when, word in reads):
            broken(6, f"{command.action} verified at {at}; a trip was to be feared until {last}")


def _last_write(world: World, row: Row, at: datetime) -> datetime | None:
    """When a frame of this command left last before `at`. A close whose key is used again while the database
    is away may be sent once more after its end: nothing rests on that."""
    mine = [one.at for one in world.written if one.command is not None and one.command.id == row.command.id]
    mine += [
        datetime.fromisoformat(body["evidence"]["at"])
        for body, _ in row.events
        if body["kind"] == "journal: writing"
    ]
    return max((one for one in mine if one < at), default=None)


def _feared_until(world: World, meter_id: int, at: datetime) -> datetime | None:
    """Until when a trip that left before, and was not verified, may be obeyed."""
    rows = world.company.store.kept.rows
    trips = [
        one.command.valid_until
        for one in world.written
        if one.frame.meter_id == meter_id
        and one.frame.action is Action.TRIP
        and one.at < at
        and one.command is not None
        and one.command.valid_until is not None
        and (one.command.id not in rows or rows[one.command.id].command.state is not State.VERIFIED)
    ]
    return max(trips, default=None)
