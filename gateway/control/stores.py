"""What control needs of the database, so that it runs unchanged against PostgreSQL and in a simulation.

Everything that decides about one meter happens at its desk: one transaction, one at a time for each meter.
Every method may raise StorageError; then nothing of the desk was kept, unless it is Unsure.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime, timedelta
from typing import Any, Protocol
from uuid import UUID

from gateway.command import (
    NOTHING,
    Change,
    Command,
    MeterFacts,
    NewCommand,
    Proof,
    Ref,
    State,
    Used,
    Why,
)
from gateway.control import states


class Desk(Protocol):
    """One meter's commands in one open transaction. What is done here is kept when the desk closes."""

    @property
    def facts(self) -> MeterFacts:
        """As they were when the desk opened; `open` follows what is done here."""
        ...

    async def add(self, new: NewCommand, state: State, why: Why | None = None, detail: str = "") -> Command:
        """A command in REQUESTED and, in the same breath, in `state`; it takes the next intent version."""
        ...

    async def move(
        self,
        command: Command,
        then: State,
        *,
        proof: Proof | None = None,
        why: Why | None = None,
        detail: str = "",
        change: Change = NOTHING,
        evidence: Mapping[str, Any] | None = None,
    ) -> Command:
        """One step, for `step` only: the row by a statement that names state and version (Stale), its event.

        evidence: JSON-ready, kept in the event. An end writes its outgoing event in the same transaction.
        """
        ...

    async def note(
        self, command: Command, kind: str, evidence: Mapping[str, Any], change: Change = NOTHING
    ) -> Command:
        """An event without a step: a relay read, a clock, a gate that was passed."""
        ...

    async def used(self, window: timedelta, now: datetime, requester: str) -> Used:
        """Trips counted against the limits; holds the lock of limits until the desk closes."""
        ...

    async def put_off(self, command: Command, until: datetime, why: Why, detail: str = "") -> Command:
        """Look at the command again at `until`. An event is written only where `why` is another than before:
        a brake that holds for a day is one fact."""
        ...

    async def owned(self, worker: str, generation: int) -> bool:
        """Does this worker still hold this login of the meter's terminal?"""
        ...

    async def open_field_order(self, command: Command, why: Why, detail: str) -> None:
        """A person has to go there; one open order for each meter. A close that is verified ends it."""
        ...


class CommandStore(Protocol):
    """The commands of all meters."""

    def desk(self, meter_id: int) -> AbstractAsyncContextManager[Desk]:
        """Open the meter's desk; another one's desk of the same meter waits. Unsure where COMMIT's answer is
        lost."""
        ...

    async def known(self, requester: str, idempotency_key: str) -> tuple[Command, bytes] | None:
        """The command that this key made, and the hash of its body."""
        ...

    async def command(self, command_id: UUID) -> Command | None: ...

    async def due(
        self, terminals: Collection[int], now: datetime, limit: int, skip: Collection[int] = ()
    ) -> Sequence[Ref]:
        """What wants work at these terminals now: closes before all others, then by age.

        One for each terminal, none at the terminals in `skip`. A command wants work when it is queued and may
        be sent, or when its `look_at` has come.
        """
        ...


async def step(
    desk: Desk,
    command: Command,
    then: State,
    *,
    proof: Proof | None = None,
    why: Why | None = None,
    detail: str = "",
    change: Change = NOTHING,
    evidence: Mapping[str, Any] | None = None,
) -> Command:
    """The only way from state to state: WrongStep where the table or the proof says no, else `Desk.move`."""
    states.check(command.action, command.state, then, proof)
    return await desk.move(
        command, then, proof=proof, why=why, detail=detail, change=change, evidence=evidence
    )
