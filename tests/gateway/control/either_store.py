"""What tests of commands over either store begin with: a clock moved by hand, meters, commands to add."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

from gateway.command import Action, Command, MeterFacts, NewCommand, State
from gateway.control.stores import CommandStore
from gateway.model import PointRole, RelayKind

NOW = datetime(2026, 11, 25, 2, 0, tzinfo=UTC)


class HandClock:
    """Shows what it is told to."""

    def __init__(self) -> None:
        self.shown = NOW

    def now(self) -> datetime:
        return self.shown

    def go(self, seconds: float) -> None:
        """On, or back."""
        self.shown += timedelta(seconds=seconds)


def facts(meter_id: int, terminal_id: int) -> MeterFacts:
    return MeterFacts(
        meter_id=meter_id,
        meter=f"M{meter_id - 1:06d}",
        address=f"{meter_id - 1:012d}",
        terminal_id=terminal_id,
        terminal=f"0200{terminal_id:04x}",
        pn=1,
        port=31,
        protocol="dlt645-2007",
        profile="",
        role=PointRole.CUSTOMER,
        relay_kind=RelayKind.BUILT_IN,
        area_id=None,
        organisation_id=None,
        shadow=True,
        customer="",
        protected=False,
        restore_mode="close",
        intent=0,
    )


def new(action: Action = Action.TRIP, **told: Any) -> NewCommand:
    given: dict[str, Any] = {
        "id": uuid4(),
        "action": action,
        "requester": "billing",
        "cause": "arrears",
        "created_at": NOW,
        "idempotency_key": uuid4().hex,
        "body_hash": b"x" * 32,
        "expires_at": NOW + timedelta(hours=24) if action is Action.TRIP else None,
    } | told
    return NewCommand(**given)


async def queued(store: CommandStore, meter_id: int, **told: Any) -> Command:
    async with store.desk(meter_id) as desk:
        return await desk.add(new(**told), State.QUEUED)
