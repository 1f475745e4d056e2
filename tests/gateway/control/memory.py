"""Relay commands in memory, by the same rules as in the database: for tests that run thousands of histories.

`hook` is called at named points and may raise, to play a database that fails before COMMIT ("before commit")
or whose answer is lost ("after commit"); `pace` is awaited where the database would take its time.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, NamedTuple, Protocol
from uuid import UUID

from gateway.command import (
    ENDS,
    NOTHING,
    PLACE_LASTS,
    RESTORING,
    Action,
    Change,
    Command,
    KeyTaken,
    Limits,
    MeterFacts,
    NewCommand,
    NotInstalled,
    Place,
    Proof,
    Ref,
    Stale,
    State,
    Unsure,
    Used,
    Why,
    chained,
)
from gateway.errors import StorageError


class Now(Protocol):
    def now(self) -> datetime: ...


@dataclass
class Row:
    """One command, what an idempotency key said, and its events."""

    command: Command
    key: str
    body_hash: bytes
    events: list[tuple[dict[str, Any], bytes]] = field(default_factory=list)


class Taken(NamedTuple):
    """A place within the limits."""

    at: datetime
    area_id: int | None
    requester: str
    command_id: UUID
    attempt: int


@dataclass
class Kept:
    """What is durable."""

    rows: dict[UUID, Row] = field(default_factory=dict)
    intents: dict[int, int] = field(default_factory=dict)
    places: list[Taken] = field(default_factory=list)
    outbox: list[tuple[str, UUID]] = field(default_factory=list)
    field_orders: dict[int, UUID] = field(default_factory=dict)
    owners: dict[int, tuple[str, int]] = field(default_factory=dict)

    def copy(self) -> Kept:
        """As it is now; what is kept later does not change it."""
        return Kept(
            dict(self.rows),
            dict(self.intents),
            list(self.places),
            list(self.outbox),
            dict(self.field_orders),
            dict(self.owners),
        )


_AT_A_DESK: ContextVar[bool] = ContextVar("at a desk", default=False)
"""Has the running task a desk open? Then it has a connection of the database and must not want another."""


def one_connection() -> None:
    """AssertionError where the running task has one already."""
    assert not _AT_A_DESK.get(), "with a desk open, a second connection is asked for"


async def at_once() -> None:
    """The database takes no time."""


class MemoryCommands:
    """Satisfies `control.stores.CommandStore`. meters: what `facts` says of each, without commands."""

    def __init__(self, clock: Now, meters: Mapping[int, MeterFacts]) -> None:
        self.clock = clock
        self.meters = dict(meters)
        self.kept = Kept()
        self.hook: Callable[[str, int], None] = lambda point, meter_id: None
        self.pace: Callable[[], Awaitable[None]] = at_once
        self.lock_timeout: float | None = None
        """seconds that a desk waits for another one's"""
        self._desks: dict[int, asyncio.Lock] = {}
        self._open: dict[int, MemoryDesk] = {}

    def desk_is_open(self, meter_id: int) -> bool:
        """Does somebody have this meter's desk?"""
        return meter_id in self._open

    def cut_connections(self) -> None:
        """As when the server restarts: no open desk is kept, and none keeps others waiting."""
        for desk in self._open.values():
            desk.cut = True
        self._open, self._desks = {}, {}

    @asynccontextmanager
    async def desk(self, meter_id: int) -> AsyncIterator[MemoryDesk]:
        one_connection()
        await self.pace()
        self.hook("begin", meter_id)
        async with self._turn(meter_id):
            if meter_id not in self.meters:
                raise NotInstalled(f"there is no meter {meter_id} in the assets")
            self._open[meter_id] = desk = MemoryDesk(self, meter_id, self.clock.now())
            had = _AT_A_DESK.set(True)
            try:
                yield desk
                await self.pace()
                self.hook("before commit", meter_id)
                desk.keep()
                try:
                    self.hook("after commit", meter_id)
                except StorageError as error:
                    raise Unsure(str(error)) from error
            finally:
                _AT_A_DESK.reset(had)
                if self._open.get(meter_id) is desk:
                    del self._open[meter_id]

    async def look(self, meter_id: int) -> MeterFacts:
        one_connection()
        await self.pace()
        self.hook("look", meter_id)
        if meter_id not in self.meters:
            raise NotInstalled(f"there is no meter {meter_id} in the assets")
        return MemoryDesk(self, meter_id, self.clock.now()).facts

    def _places(self, area_id: int | None, requester: str, limits: Limits, but: Taken | None = None) -> Used:
        since = self.clock.now() - limits.window - PLACE_LASTS
        others = [one for one in self.kept.places if one.at > since and one is not but]
        return Used(
            sum(one.area_id == area_id for one in others),
            sum(one.requester == requester for one in others),
            len(others),
        )

    async def used(self, area_id: int | None, requester: str, limits: Limits) -> Used:
        one_connection()
        self.hook("read", 0)
        return self._places(area_id, requester, limits)

    async def take_place(self, command: Command, area_id: int | None, limits: Limits) -> Place:
        one_connection()
        await self.pace()
        self.hook("place", command.meter_id)
        now = self.clock.now()
        who = area_id, command.requester, command.id, command.attempts + 1
        had = next(
            (one for one in reversed(self.kept.places) if one[1:] == who and one.at > now - PLACE_LASTS), None
        )
        used = self._places(area_id, command.requester, limits, but=had)
        room = used.area < limits.area and used.requester < limits.requester and used.all < limits.all
        if had is None and room:
            had = Taken(max([now, *(one.at for one in self.kept.places[-1:])]), *who)
            self.kept.places.append(had)
        self.hook("place taken", command.meter_id)
        return Place(None if had is None else had.at, used, limits, area_id)

    @asynccontextmanager
    async def _turn(self, meter_id: int) -> AsyncIterator[None]:
        """Wait for the meter's desk."""
        lock = self._desks.setdefault(meter_id, asyncio.Lock())
        if not lock.locked():
            await lock.acquire()
        else:
            try:
                async with asyncio.timeout(self.lock_timeout):
                    await lock.acquire()
            except TimeoutError as error:
                raise StorageError(f"meter {meter_id} is not to be had: another one decides") from error
        try:
            if self._desks.get(meter_id) is not lock:
                raise CUT
            yield
        finally:
            lock.release()

    async def known(self, requester: str, idempotency_key: str) -> tuple[Command, bytes] | None:
        one_connection()
        self.hook("read", 0)
        return self.made_by(requester, idempotency_key)

    def made_by(self, requester: str, idempotency_key: str) -> tuple[Command, bytes] | None:
        """See `known`."""
        for row in self.kept.rows.values():
            if (row.command.requester, row.key) == (requester, idempotency_key):
                return row.command, row.body_hash
        return None

    async def command(self, command_id: UUID) -> Command | None:
        one_connection()
        self.hook("read", 0)
        row = self.kept.rows.get(command_id)
        return None if row is None else row.command

    async def overdue(self, now: datetime, limit: int, skip: Collection[UUID] = ()) -> Sequence[Ref]:
        self.hook("read", 0)
        late = [
            row.command
            for row in self.kept.rows.values()
            if row.command.state in (State.HELD, State.QUEUED)
            and row.command.id not in skip
            and row.command.expires_at is not None
            and row.command.expires_at <= now
            and row.command.id not in skip
        ]
        return [
            Ref(one.id, one.meter_id, self.meters[one.meter_id].terminal_id, one.action, one.state)
            for one in sorted(late, key=lambda one: (one.expires_at, one.intent))
        ][:limit]

    async def due(
        self, terminals: Collection[int], now: datetime, limit: int, skip: Collection[int] = ()
    ) -> Sequence[Ref]:
        self.hook("read", 0)
        best: dict[int, tuple[tuple[bool, bool, datetime, int], Ref]] = {}
        for row in self.kept.rows.values():
            command = row.command
            terminal_id = self.meters[command.meter_id].terminal_id
            if terminal_id not in terminals or terminal_id in skip or not _wants_work(command, now):
                continue
            rank = (
                command.action not in RESTORING,
                command.state is State.VERIFIED,
                command.created_at,
                command.intent,
            )
            ref = Ref(command.id, command.meter_id, terminal_id, command.action, command.state)
            if terminal_id not in best or rank < best[terminal_id][0]:
                best[terminal_id] = rank, ref
        return [ref for _, ref in sorted(best.values(), key=lambda one: one[0])][:limit]


def _wants_work(command: Command, now: datetime) -> bool:
    if command.look_at is not None and command.look_at > now:
        return False
    if command.state is State.QUEUED:
        return command.not_before is None or command.not_before <= now
    if command.state is State.VERIFIED:
        return command.look_at is not None
    return command.state in (State.SENDING, State.UNCERTAIN, State.ACKNOWLEDGED, State.FIELD)


CUT = StorageError("the connection to the database was cut")


class MemoryDesk:
    """Satisfies `control.stores.Desk`. cut: its transaction is lost."""

    def __init__(self, store: MemoryCommands, meter_id: int, now: datetime) -> None:
        self._store = store
        self._now = now
        kept = store.kept
        self._rows = {
            row.command.id: Row(row.command, row.key, row.body_hash, list(row.events))
            for row in kept.rows.values()
            if row.command.meter_id == meter_id
        }
        self._facts = replace(store.meters[meter_id], intent=kept.intents.get(meter_id, 0))
        self._outbox: list[tuple[str, UUID]] = []
        self._order: UUID | None = None
        self.cut = False

    @property
    def facts(self) -> MeterFacts:
        still = [row.command for row in self._rows.values() if row.command.state not in ENDS]
        blocks = tuple(
            block
            for block in self._facts.blocks
            if block.since <= self._now and (block.until is None or block.until > self._now)
        )
        sent = [
            (row.command.valid_until, row.command.state, row.command.intent)
            for row in self._rows.values()
            if row.command.action is Action.TRIP
            and row.command.attempts
            and row.command.valid_until is not None
        ]
        return replace(
            self._facts,
            open=tuple(sorted(still, key=lambda command: command.intent)),
            blocks=blocks,
            trip_until=max((until for until, state, _ in sent if state is not State.VERIFIED), default=None),
            copy_until=max((until for until, _, _ in sent), default=None),
            tripped_intent=max((intent for _, _, intent in sent), default=0),
            relit_intent=max(
                (
                    row.command.intent
                    for row in self._rows.values()
                    if row.command.action in RESTORING and row.command.state is State.VERIFIED
                ),
                default=0,
            ),
            restored_intent=max(
                (
                    row.command.intent
                    for row in self._rows.values()
                    if row.command.action in (*RESTORING, Action.KEEP_POWER)
                ),
                default=0,
            ),
        )

    async def add(self, new: NewCommand, state: State, why: Why | None = None, detail: str = "") -> Command:
        if self._store.made_by(new.requester, new.idempotency_key) is not None:
            raise KeyTaken(f"the idempotency key of {new.requester} was used at the same time")
        intent = self._facts.intent + 1
        self._facts = replace(self._facts, intent=intent)
        command = Command(
            id=new.id,
            meter_id=self._facts.meter_id,
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
        self._rows[new.id] = Row(command, new.idempotency_key, new.body_hash)
        command = await self.note(command, "requested", {"action": new.action.value, "cause": new.cause})
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
        told: dict[str, Any] = {"from": command.state.value}
        if proof is not None:
            told["proof"] = proof.name.lower()
        if why is not None:
            told["why"] = why.value
        if evidence:
            told["evidence"] = evidence
        moved = self._write(command, then, "step", told, why, detail, change)
        if then in ENDS or then is State.FIELD:
            self._outbox.append((f"relay-command.{then.value}", command.id))
        return moved

    async def note(
        self, command: Command, kind: str, evidence: Mapping[str, Any], change: Change = NOTHING
    ) -> Command:
        noted = self._write(
            command, command.state, kind, {"evidence": evidence}, command.why, command.detail, change
        )
        if kind in ("permitted", "energised"):
            self._outbox.append((f"relay-command.{kind}", command.id))
        return noted

    async def put_off(self, command: Command, until: datetime, why: Why, detail: str = "") -> Command:
        change = Change({"look_at": until})
        if command.why is not why:
            return self._write(command, command.state, "waits", {"why": why.value}, why, detail, change)
        row = self._seen(command)
        row.command = replace(command, version=command.version + 1, look_at=until, detail=detail)
        return row.command

    async def command(self, command_id: UUID) -> Command | None:
        self._check_connection()
        row = self._rows.get(command_id)
        return None if row is None else row.command

    async def owned(self, worker: str, generation: int) -> bool:
        self._check_connection()
        return self._store.kept.owners.get(self._facts.terminal_id) == (worker, generation)

    async def open_field_order(self, command: Command, why: Why, detail: str) -> None:
        self._order = command.id

    def _check_connection(self) -> None:
        if self.cut:
            raise CUT

    def keep(self) -> None:
        self._check_connection()
        kept = self._store.kept
        for row in self._rows.values():
            before = kept.rows.get(row.command.id)
            done = row.command.state in (State.VERIFIED, State.CANCELLED) and row.command.action in RESTORING
            if not done or (before is not None and before.command.state is row.command.state):
                continue
            waits = any(one.action in RESTORING for one in self.facts.open)
            if row.command.state is State.VERIFIED or not waits:
                kept.field_orders.pop(self._facts.meter_id, None)
        kept.rows.update(self._rows)
        kept.intents[self._facts.meter_id] = self._facts.intent
        kept.outbox += self._outbox
        if self._order is not None:
            kept.field_orders.setdefault(self._facts.meter_id, self._order)

    def _write(
        self,
        command: Command,
        then: State,
        kind: str,
        told: Mapping[str, Any],
        why: Why | None,
        detail: str,
        change: Change,
    ) -> Command:
        row = self._seen(command)
        moved = replace(
            command, state=then, version=command.version + 1, why=why, detail=detail, **change.values
        )
        before = row.events[-1][1] if row.events else b""
        body = {
            "command": str(command.id),
            "n": len(row.events) + 1,
            "at": self._now.astimezone(UTC).isoformat(),
            "kind": kind,
            "state": then.value,
            **told,
        }
        row.events.append((body, chained(before, body)))
        row.command = moved
        return moved

    def _seen(self, command: Command) -> Row:
        self._check_connection()
        row = self._rows.get(command.id)
        if row is None or (row.command.state, row.command.version) != (command.state, command.version):
            raise Stale(f"command {command.id} is not {command.state} in version {command.version} any more")
        return row
