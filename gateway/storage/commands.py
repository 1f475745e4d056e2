"""Relay commands in the database: one desk a meter, steps that name what they leave, events in a chain.

The statements are in queries/commands.sql. What may follow what is not decided here.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any, Final
from uuid import UUID

import psycopg

from gateway.clock import Clock
from gateway.command import (
    ENDS,
    GATED_AS_TRIP,
    NOTHING,
    RESTORING,
    Action,
    Block,
    BlockKind,
    Change,
    Command,
    KeyTaken,
    Limits,
    MeterFacts,
    NewCommand,
    NotInstalled,
    Proof,
    Ref,
    Stale,
    State,
    Unsure,
    Used,
    Why,
    canonical,
    chained,
)
from gateway.model import PointRole, RelayKind
from gateway.storage.database import Connection, Database, first_line, queries

_COLUMNS: Final = (
    "command_id, meter_id, action, state, version, intent, requester, cause, created_at, notice, customer,"
    " caused_by, work_order, label, approver, not_before, expires_at, batch_id, shadow, attempts,"
    " frame_sha256, sent_at, valid_until, look_at, energised_at, why, detail, trace"
)
"""In the order of `Command`'s fields."""

_LIMITS_LOCK: Final = 0x4C44_0005
"""Key of the advisory lock under which trips are counted."""

_TOLD: Final = ENDS | {State.FIELD}
"""States that others are told of."""


@cache
def _statement(name: str) -> bytes:
    return queries("commands")[name].replace(b"%COLUMNS%", _COLUMNS.encode())


def _unseen(command: Command, kind: str, at: datetime) -> None:
    """Nobody counts."""


class Commands:
    """Satisfies `control.stores.CommandStore`. Times of rows are the house clock's."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        *,
        happened: Callable[[Command, str, datetime], None] = _unseen,
    ) -> None:
        """happened: told of each event once it is durable: the command after it, its kind, when; for counts.
        What is Unsure is not told."""
        self._database = database
        self._clock = clock
        self._happened = happened

    @asynccontextmanager
    async def desk(self, meter_id: int) -> AsyncIterator[MeterDesk]:
        """One transaction in which this meter's commands are ours. What was done is kept at its end.

        NotInstalled where the meter is nowhere now; Unsure where the answer to COMMIT was lost.
        """
        async with self._database.connection() as connection:
            desk = await MeterDesk.open(connection, meter_id, self._clock.now())
            yield desk
            try:
                await connection.commit()
            except psycopg.OperationalError as error:
                raise Unsure(
                    f"the database did not say whether it kept what was done for meter {meter_id}"
                    f" ({first_line(error)})"
                ) from error
        for command, kind in desk.happened:
            self._happened(command, kind, desk.opened_at)

    async def known(self, requester: str, idempotency_key: str) -> tuple[Command, bytes] | None:
        """The command that this key made, and the hash of its body."""
        async with self._database.connection() as connection:
            cursor = await connection.execute(_statement("known"), (requester, idempotency_key))
            row = await cursor.fetchone()
        return None if row is None else (_command(row[:-1]), bytes(row[-1]))

    async def command(self, command_id: UUID) -> Command | None:
        """The command as it stands."""
        async with self._database.connection() as connection:
            cursor = await connection.execute(_statement("command"), (command_id,))
            row = await cursor.fetchone()
        return None if row is None else _command(row)

    async def overdue(self, now: datetime, limit: int) -> Sequence[Ref]:
        """Held and queued commands whose expiry has come, the oldest first."""
        async with self._database.connection() as connection:
            cursor = await connection.execute(_statement("overdue"), (now, limit))
            return [_ref(row) for row in await cursor.fetchall()]

    async def due(
        self, terminals: Collection[int], now: datetime, limit: int, skip: Collection[int] = ()
    ) -> Sequence[Ref]:
        """What wants work now, one for each terminal; see `control.stores`."""
        asked = [terminal for terminal in terminals if terminal not in skip]
        if not asked:
            return []
        async with self._database.connection() as connection:
            cursor = await connection.execute(
                _statement("due"), {"terminals": _listed(asked), "now": now, "limit": limit}
            )
            return [_ref(row) for row in await cursor.fetchall()]


class MeterDesk:
    """Satisfies `control.stores.Desk`. Made by `Commands.desk`."""

    def __init__(self, connection: Connection, facts: MeterFacts, now: datetime) -> None:
        self._connection = connection
        self._facts = facts
        self._open = {command.id: command for command in facts.open}
        self._chains: dict[UUID, tuple[int, bytes]] = {}
        self._now = now
        self.happened: list[tuple[Command, str]] = []
        """the events of this desk: each command after it, and its kind"""

    @property
    def opened_at(self) -> datetime:
        """The time of all that is done here."""
        return self._now

    @classmethod
    async def open(cls, connection: Connection, meter_id: int, now: datetime) -> MeterDesk:
        """Wait for the meter's turn, then see what is known of it."""
        cursor = await connection.execute(_statement("lock_meter"), (meter_id,))
        row = await cursor.fetchone()
        if row is None:
            try:
                await connection.execute(_statement("first_intent"), (meter_id,))
            except psycopg.errors.ForeignKeyViolation as error:
                raise NotInstalled(f"there is no meter {meter_id} in the assets") from error
            cursor = await connection.execute(_statement("lock_meter"), (meter_id,))
            row = await cursor.fetchone()
            assert row is not None
        intent: int = row[0]
        async with connection.cursor(binary=True) as binary:  # a record in text has lost its types
            await binary.execute(_statement("facts"), {"meter_id": meter_id, "now": now})
            facts = await binary.fetchone()
        if facts is None:
            raise NotInstalled(f"meter {meter_id} is not installed anywhere now")
        cursor = await connection.execute(_statement("open"), {"meter_id": meter_id})
        opened = tuple(_command(row) for row in await cursor.fetchall())
        return cls(connection, _facts(facts, intent, opened), now)

    @property
    def facts(self) -> MeterFacts:
        """As they were when the desk opened; `open` and `intent` follow what is done here."""
        return replace(self._facts, open=tuple(self._open.values()))

    async def add(self, new: NewCommand, state: State, why: Why | None = None, detail: str = "") -> Command:
        """A command in REQUESTED and, in the same breath, in `state`. KeyTaken where its key was used
        meanwhile."""
        facts = self._facts
        cursor = await self._connection.execute(_statement("next_intent"), (facts.meter_id,))
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
            await self._connection.execute(_statement("add"), values)
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
        told = {
            "meter": facts.meter,
            "address": facts.address,
            "terminal": facts.terminal,
            "pn": facts.pn,
            "action": new.action.value,
            "intent": intent,
            "requester": new.requester,
            "cause": new.cause,
            "notice": new.notice,
            "customer": new.customer,
            "created_at": _written(new.created_at),
            "expires_at": _written(new.expires_at),
            "body_sha256": new.body_hash.hex(),
        }
        told |= {name: value for name, value in _told_where_given(new) if value}
        command = await self.note(command, "requested", told)
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
            told["evidence"] = evidence
        moved = await self._write(command, then, "step", told, why, detail, change)
        if then is State.SENDING and command.action in GATED_AS_TRIP:
            await self._connection.execute(
                _statement("count_trip"), (self._now, self._facts.area_id, command.requester, command.id)
            )
        if command.action in RESTORING and then in (State.VERIFIED, State.CANCELLED):
            await self._end_field_order(command, then, proof, detail)
        if then in _TOLD:
            await self._tell(moved, then.value)
        return moved

    async def note(
        self, command: Command, kind: str, evidence: Mapping[str, Any], change: Change = NOTHING
    ) -> Command:
        """An event without a step. `permitted` and `energised` are told to others."""
        noted = await self._write(
            command, command.state, kind, {"evidence": evidence}, command.why, command.detail, change
        )
        if kind in ("permitted", "energised"):
            await self._tell(noted, kind)
        return noted

    async def used(self, window: timedelta, now: datetime, requester: str) -> Used:
        """Trips that may have left within `window`; others wait with theirs until the desk closes."""
        await self._connection.execute(_statement("lock_limits"), (_LIMITS_LOCK,))
        cursor = await self._connection.execute(
            _statement("used"),
            {"area_id": self._facts.area_id, "requester": requester, "since": now - window},
        )
        row = await cursor.fetchone()
        assert row is not None
        return Used(*row)

    async def put_off(self, command: Command, until: datetime, why: Why, detail: str = "") -> Command:
        """Look at the command again at `until`; an event only where `why` is another than before. Stale."""
        if command.why is not why:
            change = Change({"look_at": until})
            told = {"why": why.value, "detail": detail}
            return await self._write(command, command.state, "waits", told, why, detail, change)
        cursor = await self._connection.execute(
            _statement("put_off"),
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

    async def owned(self, worker: str, generation: int) -> bool:
        """Does this worker still hold this login of the meter's terminal?"""
        cursor = await self._connection.execute(
            _statement("owned"), (self._facts.terminal_id, worker, generation)
        )
        return await cursor.fetchone() is not None

    async def open_field_order(self, command: Command, why: Why, detail: str) -> None:
        """A person has to go there; an order that is open already stays the one."""
        await self._connection.execute(
            _statement("open_field_order"), (command.meter_id, command.id, self._now, why.value, detail)
        )

    async def _end_field_order(self, command: Command, then: State, proof: Proof | None, detail: str) -> None:
        told = {"meter_id": command.meter_id, "at": self._now, "report": detail}
        if then is State.VERIFIED:
            by = "field report" if proof is Proof.FIELD_REPORT else "relay read"
            await self._connection.execute(_statement("close_field_order"), {"by": by, **told})
        else:
            await self._connection.execute(_statement("cancel_field_order"), told)

    async def _write(
        self,
        command: Command,
        then: State,
        kind: str,
        told: Mapping[str, Any],
        why: Why | None,
        detail: str,
        change: Change,
    ) -> Command:
        moved = replace(
            command, state=then, version=command.version + 1, why=why, detail=detail, **change.values
        )
        count, before = await self._chain(command.id)
        body = {
            "command": str(command.id),
            "n": count + 1,
            "at": _written(self._now),
            "kind": kind,
            "state": then.value,
            **told,
        }
        after = chained(before, body)
        cursor = await self._connection.execute(
            _statement("move"),
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
            },
        )
        if await cursor.fetchone() is None:
            raise _stale(command)
        self._chains[command.id] = (count + 1, after)
        self.happened.append((moved, kind))
        if then in ENDS:
            self._open.pop(command.id, None)
        elif command.id in self._open:
            self._open[command.id] = moved
        return moved

    async def _chain(self, command_id: UUID) -> tuple[int, bytes]:
        found = self._chains.get(command_id)
        if found is None:
            cursor = await self._connection.execute(_statement("chain"), (command_id,))
            row = await cursor.fetchone()
            if row is None:
                raise Stale(f"there is no command {command_id}")
            found = (row[0], bytes(row[1]))
        return found

    async def _tell(self, command: Command, what: str) -> None:
        data = {
            "command": str(command.id),
            "meter": self._facts.meter,
            "customer": command.customer or self._facts.customer,
            "action": command.action.value,
            "state": command.state.value,
            "why": None if command.why is None else command.why.value,
            "detail": command.detail,
            "work_order": command.work_order,
            "energised_at": _written(command.energised_at),
        }
        await self._connection.execute(
            _statement("tell"),
            (
                self._now,
                f"relay-command.{what}",
                str(command.id),
                self._facts.organisation_id,
                json.dumps(data, ensure_ascii=False),
            ),
        )


def _stale(command: Command) -> Stale:
    return Stale(f"command {command.id} is not {command.state} in version {command.version} any more")


def _told_where_given(new: NewCommand) -> Sequence[tuple[str, str | bool | None]]:
    return (
        ("caused_by", new.caused_by),
        ("work_order", new.work_order),
        ("label", new.label),
        ("trace", new.trace),
        ("batch", None if new.batch is None else str(new.batch)),
        ("shadow", new.shadow),
        ("not_before", _written(new.not_before)),
    )


def _written(at: datetime | None) -> str | None:
    return None if at is None else at.astimezone(UTC).isoformat()


def _listed(ids: Collection[int]) -> str:
    """As an array literal: the driver takes ten times as long for a long list."""
    return "{" + ",".join(map(str, ids)) + "}"


def _ref(row: Sequence[Any]) -> Ref:
    command_id, meter_id, terminal_id, action, state = row
    return Ref(command_id, meter_id, terminal_id, Action(action), State(state))


def _command(row: Sequence[Any]) -> Command:
    told = dict(zip(Command.__dataclass_fields__, row, strict=True))
    told["action"] = Action(told["action"])
    told["state"] = State(told["state"])
    told["why"] = None if told["why"] is None else Why(told["why"])
    told["frame_hash"] = None if told["frame_hash"] is None else bytes(told["frame_hash"])
    return Command(**told)


def limits_of(told: Mapping[str, int]) -> Limits:
    """Limits as they stand in a setting."""
    return Limits(told["area"], told["requester"], told["all"], timedelta(seconds=told["window_s"]))


def _facts(row: Sequence[Any], intent: int, opened: tuple[Command, ...]) -> MeterFacts:
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
        blocks=tuple(Block(block[0], BlockKind(block[1]), *block[2:]) for block in blocks),
        open=opened,
        brake=brake,
        weather_halt=weather_halt,
        hold_since=hold_since,
        trip_until=trip_until,
        limits=None if limits is None else limits_of(limits),
        restored_intent=restored_intent,
        copy_until=copy_until,
    )
