"""What control needs of the database, so that it runs unchanged against PostgreSQL and in a simulation.

Everything that decides about one meter happens at its desk: one transaction, one at a time for each meter.
Every method may raise StorageError; then nothing of the desk was kept, unless it is Unsure.

Whoever has a desk open has a connection of the database, and asks nothing of the store: where all that have
one wait for a second, none of them goes on.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from typing import Any, Protocol
from uuid import UUID

from gateway.command import (
    NOTHING,
    Change,
    Command,
    Limits,
    MeterFacts,
    NewCommand,
    Place,
    Proof,
    Ref,
    State,
    Used,
    Why,
)
from gateway.control import states
from gateway.storage.batches import Batch
from gateway.storage.blocks import Mirror, NewBlock, StandingBlock
from gateway.storage.switches import Setting, Switch


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

    async def put_off(self, command: Command, until: datetime, why: Why, detail: str = "") -> Command:
        """Look at the command again at `until`. An event is written only where `why` is another than before:
        a brake that holds for a day is one fact."""
        ...

    async def command(self, command_id: UUID) -> Command | None:
        """One of this meter's commands, also one that has ended: `facts.open` has the others."""
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
        """Open the meter's desk, also of one that is not installed any more; another one's desk of the same
        meter waits. NotInstalled where it never was; Unsure where COMMIT's answer is lost."""
        ...

    async def look(self, meter_id: int) -> MeterFacts:
        """What stands at this moment, without the meter's turn: nothing may be decided on it that its desk
        does not decide again. NotInstalled as for the desk."""
        ...

    async def used(self, area_id: int | None, requester: str, limits: Limits) -> Used:
        """The places that count against a trip now. A look: whoever sends takes one."""
        ...

    async def take_place(self, command: Command, area_id: int | None, limits: Limits) -> Place:
        """Take a place for the next attempt of this trip, if all three limits have room, in a transaction of
        its own: two at once never take the same last one. What this attempt took within PLACE_LASTS is kept.

        A place that is not made use of stays taken: more is counted than is sent, never less."""
        ...

    async def known(self, requester: str, idempotency_key: str) -> tuple[Command, bytes] | None:
        """The command that this key made, and the hash of its body."""
        ...

    async def command(self, command_id: UUID) -> Command | None: ...

    async def overdue(self, now: datetime, limit: int, skip: Collection[UUID] = ()) -> Sequence[Ref]:
        """Held and queued commands whose expiry has come, the oldest first, without those in `skip`."""
        ...

    async def due(
        self, terminals: Collection[int], now: datetime, limit: int, skip: Collection[int] = ()
    ) -> Sequence[Ref]:
        """What wants work at these terminals now: closes before all others, then by age.

        One for each terminal, none at the terminals in `skip`. A command wants work when it is queued and may
        be sent, or when its `look_at` has come.
        """
        ...


class BatchStore(Protocol):
    """Batches: one key, one answer."""

    async def begin(self, batch: Batch) -> Batch:
        """Keep this batch; where its key is used already, the batch that used it is returned instead."""
        ...

    async def finish(self, batch_id: UUID, answer: Mapping[str, Any]) -> None: ...

    async def known(self, requester: str, idempotency_key: str) -> Batch | None: ...

    async def batch(self, batch_id: UUID) -> Batch | None: ...

    async def commands(self, batch_id: UUID) -> Sequence[Ref]:
        """As they stand, in the order of their meters."""
        ...


class SwitchStore(Protocol):
    """Brake, weather halts, limits, shadow mode, hold. Every change leaves its line in the audit."""

    async def put(
        self, name: Switch, scope: str, value: object, reason: str, by: str, at: datetime
    ) -> Setting: ...

    async def approve(self, setting_id: int, by: str, at: datetime) -> Setting | None:
        """None where it has a second name, or a newer row has taken its place, or `by` set it himself."""
        ...

    async def setting(self, setting_id: int) -> Setting | None: ...

    async def newest(self) -> Sequence[Setting]:
        """Of every (name, scope): the row that holds, and before it those that wait for a second person."""
        ...

    async def hold(self, reason: str, since: datetime | None, by: str, at: datetime) -> Setting:
        """Hold on, and in the same transaction an outgoing event that asks billing for the closes since."""
        ...


class BlockStore(Protocol):
    """Protections. One begins and ends to hold with the desks of its meters taken."""

    async def add(self, new: NewBlock, by: str, at: datetime) -> StandingBlock: ...

    async def lift(self, block_id: int, reason: str, by: str, at: datetime) -> StandingBlock | None: ...

    async def unmirrored(self, now: datetime, limit: int) -> Sequence[Mirror]:
        """Meters behind a keep-power block in force that have not been told so."""
        ...

    async def mirrors(self, block_id: int, now: datetime) -> Sequence[Mirror]:
        """The keep-power commands that this block has made."""
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
