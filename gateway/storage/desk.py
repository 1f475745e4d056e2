"""One meter's relay commands in one transaction: steps that name what they leave, events in a chain.

The statements are in queries/commands.sql. What may follow what is not decided here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, Final, NamedTuple
from uuid import UUID

import psycopg
from psycopg import AsyncCursor
from psycopg.rows import TupleRow

from gateway.command import (
    ENDS,
    NOTHING,
    RESTORING,
    Change,
    Command,
    KeyTaken,
    MeterFacts,
    NewCommand,
    NotInstalled,
    Proof,
    Stale,
    State,
    Why,
    canonical,
    chained,
)
from gateway.storage.command_rows import command_of, facts_of, statement
from gateway.storage.database import Connection
from gateway.storage.event_bodies import asked_for, settled, tellable, written
from gateway.storage.frame_secret import FrameSecret

_TOLD: Final = ENDS | {State.FIELD}
"""States that others are told of."""

_TOLD_NOTES: Final = frozenset({"permitted", "energised"})
"""Events without a step that others are told of."""

_FACTS: Final = 31
"""Columns of `facts` before those of a command."""

_READ_AGAIN: Final = frozenset({State.ACKNOWLEDGED, State.UNCERTAIN})
"""States that a command in SENDING comes to again by a read, if the step there is lost."""


class Seen(NamedTuple):
    """A meter as it stands. worker, generation: who holds its terminal; chains: of its open commands, the
    number of events and the end of the chain."""

    facts: MeterFacts
    worker: str | None
    generation: int | None
    chains: dict[UUID, tuple[int, bytes]]


class MeterDesk:
    """Satisfies `control.stores.Desk`. Made by `Commands.desk`."""

    def __init__(
        self,
        connection: Connection,
        seen: Seen,
        now: datetime,
        secret: FrameSecret,
    ) -> None:
        self._connection = connection
        self._login = seen.worker, seen.generation
        self._facts = seen.facts
        self._open = {command.id: command for command in seen.facts.open}
        self._chains = seen.chains
        self._now = now
        self._secret = secret
        self.happened: list[tuple[Command, str]] = []
        """the events of this desk: each command after it, and its kind"""
        self.may_be_lost = True
        """Would it do no harm if a crash of the database server took what was done here? Notes, and steps
        after which the meter is read again in any case; it need not wait for the disk then."""
        self._waits = False

    @property
    def opened_at(self) -> datetime:
        """The time of all that is done here."""
        return self._now

    @classmethod
    async def open(
        cls, connection: Connection, meter_id: int, now: datetime, secret: FrameSecret
    ) -> MeterDesk:
        """Wait for the meter's turn, then see what is known of it. NotInstalled: it never was anywhere."""
        seen = await _lock_and_see(connection, meter_id, now)
        if seen is None:
            try:
                await connection.execute(statement("first_intent"), (meter_id,))
            except psycopg.errors.ForeignKeyViolation as error:
                raise NotInstalled(f"there is no meter {meter_id} in the assets") from error
            seen = await _lock_and_see(connection, meter_id, now)
            assert seen is not None
        return cls(connection, seen, now, secret)

    @property
    def facts(self) -> MeterFacts:
        """As they were when the desk opened; `open` and `intent` follow what is done here."""
        return replace(self._facts, open=tuple(self._open.values()))

    async def add(self, new: NewCommand, state: State, why: Why | None = None, detail: str = "") -> Command:
        """A command in REQUESTED and, in the same breath, in `state`. KeyTaken where its key was used
        meanwhile."""
        facts = self._facts
        self.may_be_lost = False
        cursor = await self._connection.execute(statement("next_intent"), (facts.meter_id,))
        row = await cursor.fetchone()
        assert row is not None
        intent: int = row[0]
        self._facts = replace(facts, intent=intent)
        values = {
            "command_id": new.id,
            "meter_id": facts.meter_id,
            "terminal_id": facts.terminal_id,
            "area_id": facts.area_id,
            "organisation_id": facts.organisation_id,
            "action": new.action.value,
            "intent": intent,
            "requester": new.requester,
            "cause": new.cause,
            "notice": new.notice,
            "customer": new.customer,
            "caused_by": new.caused_by,
            "work_order": new.work_order,
            "label": new.label,
            "trace": new.trace,
            "idempotency_key": new.idempotency_key,
            "body_sha256": new.body_hash,
            "batch_id": new.batch,
            "shadow": new.shadow,
            "created_at": new.created_at,
            "not_before": new.not_before,
            "expires_at": new.expires_at,
        }
        try:
            await self._connection.execute(statement("add"), values)
        except psycopg.errors.UniqueViolation as error:
            raise KeyTaken(f"the idempotency key of {new.requester} was used at the same time") from error
        command = Command(
            id=new.id,
            meter_id=facts.meter_id,
            action=new.action,
            state=State.REQUESTED,
            version=1,
            intent=intent,
            requester=new.requester,
            cause=new.cause,
            created_at=new.created_at,
            notice=new.notice,
            customer=new.customer,
            caused_by=new.caused_by,
            work_order=new.work_order,
            label=new.label,
            not_before=new.not_before,
            expires_at=new.expires_at,
            batch=new.batch,
            shadow=new.shadow,
            trace=new.trace,
        )
        self._open[command.id] = command
        self._chains[command.id] = (0, b"")
        command = await self.note(command, "requested", asked_for(new, facts, intent))
        return await self.move(command, state, why=why, detail=detail)

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
        """One step and its event; ends and field orders are told to others in the same transaction. Stale."""
        told: dict[str, Any] = {"from": command.state.value}
        if proof is not None:
            told["proof"] = proof.name.lower()
        if why is not None:
            told["why"] = why.value
        if detail:
            told["detail"] = detail
        if evidence:
            told["evidence"] = tellable(evidence, self._secret)
        if then not in _READ_AGAIN:
            self.may_be_lost = False
        tells = then.value if then in _TOLD else None
        moved = await self._write(command, then, "step", told, why, detail, change, tells)
        if command.action in RESTORING and then in (State.VERIFIED, State.CANCELLED):
            await self._end_field_order(command, then, proof, detail)
        return moved

    async def note(
        self, command: Command, kind: str, evidence: Mapping[str, Any], change: Change = NOTHING
    ) -> Command:
        """An event without a step. `permitted` and `energised` are told to others."""
        return await self._write(
            command,
            command.state,
            kind,
            {"evidence": tellable(evidence, self._secret)},
            command.why,
            command.detail,
            change,
            kind if kind in _TOLD_NOTES else None,
        )

    async def put_off(self, command: Command, until: datetime, why: Why, detail: str = "") -> Command:
        """Look at the command again at `until`; an event only where `why` is another than before. Stale."""
        if command.why is not why:
            change = Change({"look_at": until})
            told = {"why": why.value, "detail": detail}
            return await self._write(command, command.state, "waits", told, why, detail, change)
        cursor = await self._connection.execute(
            statement("put_off"),
            {
                "command_id": command.id,
                "state": command.state.value,
                "version": command.version,
                "look_at": until,
                "detail": detail,
            },
        )
        if await cursor.fetchone() is None:
            raise _stale(command)
        return replace(command, version=command.version + 1, look_at=until, detail=detail)

    async def command(self, command_id: UUID) -> Command | None:
        """As it stands, on the desk's own connection; None where it is none of this meter's."""
        cursor = await self._connection.execute(statement("command"), (command_id,))
        row = await cursor.fetchone()
        command = None if row is None else command_of(row)
        return command if command is not None and command.meter_id == self._facts.meter_id else None

    async def owned(self, worker: str, generation: int) -> bool:
        """Did this worker still hold this login of the meter's terminal when the desk opened?"""
        return self._login == (worker, generation)

    async def open_field_order(self, command: Command, why: Why, detail: str) -> None:
        """A person has to go there; an order that is open already stays the one."""
        self.may_be_lost = False
        await self._connection.execute(
            statement("open_field_order"), (command.meter_id, command.id, self._now, why.value, detail)
        )

    async def _end_field_order(self, command: Command, then: State, proof: Proof | None, detail: str) -> None:
        told = {"meter_id": command.meter_id, "at": self._now, "report": detail}
        if then is State.VERIFIED:
            by = "field report" if proof is Proof.FIELD_REPORT else "relay read"
            await self._connection.execute(statement("close_field_order"), {"by": by, **told})
        else:
            await self._connection.execute(statement("cancel_field_order"), told)

    async def _write(
        self,
        command: Command,
        then: State,
        kind: str,
        told: Mapping[str, Any],
        why: Why | None,
        detail: str,
        change: Change,
        tells: str | None = None,
    ) -> Command:
        """tells: what others are told, in an outgoing event of the same statement."""
        if tells is not None:
            self.may_be_lost = False
        moved = replace(
            command, state=then, version=command.version + 1, why=why, detail=detail, **change.values
        )
        count, before = await self._chain(command.id)
        body = {
            "command": str(command.id),
            "n": count + 1,
            "at": written(self._now),
            "kind": kind,
            "state": then.value,
            **told,
        }
        columns = settled(change, self._secret)
        if columns or not count:  # the first event begins to tell columns
            body["set"] = columns
        after = chained(before, body)
        cursor = await self._connection.execute(
            statement("move"),
            {
                "command_id": command.id,
                "state": command.state.value,
                "version": command.version,
                "then": then.value,
                "at": self._now,
                "why": None if why is None else why.value,
                "detail": detail,
                "n": count + 1,
                "kind": kind,
                "hash": after,
                "body": canonical(body).decode(),
                "approver": moved.approver,
                "expires_at": moved.expires_at,
                "look_at": moved.look_at,
                "attempts": moved.attempts,
                "frame_hash": moved.frame_hash,
                "sent_at": moved.sent_at,
                "valid_until": moved.valid_until,
                "energised_at": moved.energised_at,
                "waits": not self.may_be_lost,
                "organisation_id": self._facts.organisation_id,
                "tells": None if tells is None else f"relay-command.{tells}",
                "told": None if tells is None else self._told(moved),
            },
        )
        if await cursor.fetchone() is None:
            raise _stale(command)
        self._waits = not self.may_be_lost
        self._chains[command.id] = (count + 1, after)
        self.happened.append((moved, kind))
        if then in ENDS:
            self._open.pop(command.id, None)
        elif command.id in self._open:
            self._open[command.id] = moved
        return moved

    async def _chain(self, command_id: UUID) -> tuple[int, bytes]:
        found = self._chains.get(command_id)
        if found is None:  # it has ended
            cursor = await self._connection.execute(statement("chain"), (command_id,))
            row = await cursor.fetchone()
            if row is None:
                raise Stale(f"there is no command {command_id}")
            found = (row[0], bytes(row[1]))
        return found

    def _told(self, command: Command) -> str:
        """What an outgoing event says of a command."""
        data = {
            "command": str(command.id),
            "meter": self._facts.meter,
            "customer": command.customer or self._facts.customer,
            "action": command.action.value,
            "state": command.state.value,
            "why": None if command.why is None else command.why.value,
            "detail": command.detail,
            "work_order": command.work_order,
            "energised_at": written(command.energised_at),
        }
        return json.dumps(data, ensure_ascii=False)

    async def keep(self) -> None:
        """Commit. It is over when it is on the disk, unless all that was done may be lost."""
        if not (self.may_be_lost or self._waits):
            await self._connection.execute(statement("wait_for_disk"))
        await self._connection.commit()


async def _lock_and_see(connection: Connection, meter_id: int, now: datetime) -> Seen | None:
    """Wait for the meter's turn and see what stands then, in one turn with the server, which carries out one
    statement after the other. None: there is nothing to lock yet."""
    async with connection.pipeline():
        lock = await connection.execute(statement("lock_meter"), (meter_id,))
        facts = await _ask_facts(connection, meter_id, now)
        locked, rows = await lock.fetchone(), await facts.fetchall()
    return None if locked is None else _seen(rows, meter_id)


async def see(connection: Connection, meter_id: int, now: datetime) -> Seen:
    """What stands at this moment. NotInstalled: the meter never was anywhere."""
    facts = await _ask_facts(connection, meter_id, now)
    return _seen(await facts.fetchall(), meter_id)


async def _ask_facts(connection: Connection, meter_id: int, now: datetime) -> AsyncCursor[TupleRow]:
    return await connection.execute(statement("facts"), {"meter_id": meter_id, "now": now})


def _seen(rows: Sequence[TupleRow], meter_id: int) -> Seen:
    if not rows:
        raise NotInstalled(f"meter {meter_id} was never installed anywhere")
    *known, worker, generation, intent = rows[0][:_FACTS]
    open_rows = [row[_FACTS:] for row in rows if row[_FACTS] is not None]
    opened = tuple(command_of(row[:-2]) for row in open_rows)
    chains = {row[0]: (row[-2], bytes(row[-1])) for row in open_rows}
    return Seen(facts_of(known, intent, opened), worker, generation, chains)


def _stale(command: Command) -> Stale:
    return Stale(f"command {command.id} is not {command.state} in version {command.version} any more")
