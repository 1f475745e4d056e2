"""What it is all for: when faults have stopped, whoever was promised power has it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import NamedTuple

from gateway.command import ENDS, RESTORING, Action
from tests.simulation.broken import Broken, broken
from tests.simulation.history import Told


class Promise(NamedTuple):
    """Power was asked for, and that was accepted."""

    meter_id: int
    at: datetime
    key: str


def check(told: Told) -> None:
    """Broken, and for rule 12 also where a close that was accepted is nowhere."""
    _none_lost(told)
    for meter_id in told.world.meters:
        mine = [one for one in _promises(told) if one.meter_id == meter_id]
        cancelled = told.people.cancelled.get(meter_id)
        if mine and (cancelled is None or cancelled < mine[-1].at):
            _lit(told, max(mine, key=lambda one: one.at))
        _none_open(told, meter_id)


def _promises(told: Told) -> Iterator[Promise]:
    for asked in told.asking.ledger:
        if asked.gives_power and asked.accepted_at is not None and not asked.shadow:
            yield Promise(asked.meter_id, asked.accepted_at, asked.key)


def _none_lost(told: Told) -> None:
    """Every close that was accepted has its command, also after outages and restores."""
    rows = told.world.company.store.kept.rows.values()
    keys = {(row.command.requester, row.key) for row in rows}
    ids = {row.command.id for row in rows}
    for asked in told.asking.ledger:
        kept = (asked.by, asked.key) in keys or any(given.command in ids for given in asked.answers)
        if asked.gives_power and asked.answers and not kept:
            broken(12, f"{asked.ask.verb} of meter {asked.meter_id}, {asked.key}, is nowhere")


def _lit(told: Told, promise: Promise) -> None:
    """The household has power, unless a trip that was accepted later has darkened it again.

    The answer to a close may come long after it was accepted: a trip of a newer intent is later all the same.
    """
    world = told.world
    intents = [row.command.intent for row in world.company.store.kept.rows.values() if row.key == promise.key]
    meter = world.meters[promise.meter_id]
    meter.settle()
    later = [
        one
        for one in world.written
        if one.frame.meter_id == promise.meter_id
        and one.frame.action is Action.TRIP
        and one.command is not None
        and (one.command.created_at > promise.at or (bool(intents) and one.command.intent > max(intents)))
    ]
    if meter.opened and not later:
        raise Broken(f"meter {promise.meter_id} is dark although {promise.key} was accepted at {promise.at}")


def _none_open(told: Told, meter_id: int) -> None:
    """What gives power has come to its end."""
    for row in told.world.company.store.kept.rows.values():
        command = row.command
        if command.meter_id == meter_id and command.action in RESTORING and command.state not in ENDS:
            raise Broken(
                f"{command.action} of meter {meter_id} is still {command.state}"
                f" ({command.why}: {command.detail})"
            )
