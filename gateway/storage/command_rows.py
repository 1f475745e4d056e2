"""Rows of relay commands and of what is known of a meter, as frozen values. The statements are in
queries/commands.sql."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from functools import cache
from typing import Any, Final

from gateway.command import (
    Action,
    Block,
    BlockKind,
    Command,
    Limits,
    MeterFacts,
    Ref,
    State,
    Why,
)
from gateway.model import PointRole, RelayKind
from gateway.storage.database import queries

_COLUMNS: Final = (
    "command_id, meter_id, action, state, version, intent, requester, cause, created_at, notice, customer,"
    " caused_by, work_order, label, approver, not_before, expires_at, batch_id, shadow, attempts,"
    " frame_sha256, sent_at, valid_until, look_at, energised_at, why, detail, trace"
)
"""In the order of `Command`'s fields."""


@cache
def statement(name: str) -> bytes:
    """A statement of queries/commands.sql."""
    return queries("commands")[name].replace(b"%COLUMNS%", _COLUMNS.encode())


def ref_of(row: Sequence[Any]) -> Ref:
    """A row of `due` or `overdue`."""
    command_id, meter_id, terminal_id, action, state = row
    return Ref(command_id, meter_id, terminal_id, Action(action), State(state))


def command_of(row: Sequence[Any]) -> Command:
    """A row of the columns of a command."""
    told = dict(zip(Command.__dataclass_fields__, row, strict=True))
    told["action"] = Action(told["action"])
    told["state"] = State(told["state"])
    told["why"] = None if told["why"] is None else Why(told["why"])
    told["frame_hash"] = None if told["frame_hash"] is None else bytes(told["frame_hash"])
    return Command(**told)


def limits_of(told: Mapping[str, int]) -> Limits:
    """Limits as they stand in a setting."""
    return Limits(told["area"], told["requester"], told["all"], timedelta(seconds=told["window_s"]))


def _block_of(told: Sequence[Any]) -> Block:
    """Of the list in `facts`. Not a record: for one of those the driver makes a cycle of twenty objects, and
    the collector of garbage would stop the loop for them."""
    block_id, kind, since, until, source = told
    until = None if until is None else datetime.fromisoformat(until)
    return Block(block_id, BlockKind(kind), datetime.fromisoformat(since), until, source)


def facts_of(row: Sequence[Any], intent: int, opened: tuple[Command, ...]) -> MeterFacts:
    """A row of `facts`. opened: the meter's commands that have not ended."""
    (
        meter_id,
        meter,
        address,
        terminal_id,
        terminal,
        pn,
        port,
        protocol,
        profile,
        role,
        relay_kind,
        area_id,
        organisation_id,
        shadow,
        customer,
        protected,
        restore_mode,
        brake,
        weather_halt,
        hold_since,
        blocks,
        trip_until,
        limits,
        restored_intent,
        copy_until,
        tripped_intent,
        relit_intent,
        installed,
    ) = row
    return MeterFacts(
        meter_id=meter_id,
        meter=meter,
        address=address,
        terminal_id=terminal_id,
        terminal=terminal,
        pn=pn,
        port=port,
        protocol=protocol,
        profile=profile,
        role=PointRole(role),
        relay_kind=RelayKind(relay_kind),
        area_id=area_id,
        organisation_id=organisation_id,
        shadow=shadow,
        customer=customer,
        protected=protected,
        restore_mode=restore_mode,
        intent=intent,
        blocks=tuple(map(_block_of, blocks)),
        open=opened,
        brake=brake,
        weather_halt=weather_halt,
        hold_since=hold_since,
        trip_until=trip_until,
        limits=None if limits is None else limits_of(limits),
        restored_intent=restored_intent,
        copy_until=copy_until,
        tripped_intent=tripped_intent,
        relit_intent=relit_intent,
        installed=installed,
    )
