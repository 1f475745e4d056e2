"""Where people and billing decide: requests, batches, switches and protections over either store.

Four meters: 1 and 2 behind terminal 1 in area 1, 3 and 4 behind terminal 2 in area 2, all of organisation 1,
which belongs to organisation 2. Meter n serves customer n, "Cn", at point n.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol
from uuid import UUID

from gateway.command import Action, Block, BlockKind, Command, MeterFacts, Ref, Unsure
from gateway.control.ask import Ask
from gateway.control.batches import Batches
from gateway.control.policy import Rules
from gateway.control.protections import Protections
from gateway.control.requests import Requests
from gateway.control.right_of_way import RightOfWay
from gateway.control.stores import BatchStore, BlockStore, CommandStore, SwitchStore
from gateway.control.switches import Switches
from gateway.errors import StorageError
from gateway.model import RelayKind
from gateway.storage.batches import Batch, RelayBatches
from gateway.storage.blocks import ControlBlocks, Mirror, NewBlock, StandingBlock
from gateway.storage.command_rows import limits_of
from gateway.storage.commands import Commands
from gateway.storage.database import Database
from gateway.storage.switches import ControlSettings, Setting, Switch
from tests.gateway.control.bench import HandClock
from tests.gateway.control.memory import MemoryCommands
from tests.gateway.control.test_policy import FACTS
from tests.gateway.storage.district import grow

METERS = (1, 2, 3, 4)


class MemoryBatches:
    """Satisfies `control.stores.BatchStore`."""

    def __init__(self, store: MemoryCommands) -> None:
        self._store = store
        self._kept: dict[UUID, Batch] = {}

    def backup(self) -> dict[UUID, Batch]:
        """What a backup taken now holds."""
        return dict(self._kept)

    def restore(self, kept: dict[UUID, Batch]) -> None:
        self._kept = dict(kept)

    async def begin(self, batch: Batch) -> Batch:
        self._store.hook("batch", 0)
        known = await self.known(batch.requester, batch.idempotency_key)
        return known or self._kept.setdefault(batch.id, replace(batch, answer=_through_json(batch.answer)))

    async def finish(self, batch_id: UUID, answer: Mapping[str, Any]) -> None:
        self._store.hook("batch", 0)
        self._kept[batch_id] = replace(self._kept[batch_id], answer=_through_json(answer))

    async def known(self, requester: str, idempotency_key: str) -> Batch | None:
        self._store.hook("batch", 0)
        for batch in self._kept.values():
            if (batch.requester, batch.idempotency_key) == (requester, idempotency_key):
                return batch
        return None

    async def batch(self, batch_id: UUID) -> Batch | None:
        self._store.hook("batch", 0)
        return self._kept.get(batch_id)

    async def commands(self, batch_id: UUID) -> Sequence[Ref]:
        self._store.hook("batch", 0)
        mine = [row.command for row in self._store.kept.rows.values() if row.command.batch == batch_id]
        return [
            Ref(one.id, one.meter_id, self._store.meters[one.meter_id].terminal_id, one.action, one.state)
            for one in sorted(mine, key=lambda one: (one.meter_id, one.intent))
        ]


def _through_json(answer: Mapping[str, Any]) -> dict[str, Any]:
    heard: dict[str, Any] = json.loads(json.dumps(answer))
    return heard


class MemorySwitches:
    """Satisfies `control.stores.SwitchStore`; what is switched shows in the meters' facts."""

    def __init__(self, store: MemoryCommands) -> None:
        self._store = store
        self._rows: list[Setting] = []
        self.audit: list[tuple[str, str]] = []
        self.outbox: list[str] = []
        self.closes_wanted: dict[datetime, datetime | None] = {}
        """when billing was asked for closes -> since when"""

    def backup(self) -> list[Setting]:
        """What a backup taken now holds."""
        return list(self._rows)

    def restore(self, rows: list[Setting]) -> None:
        self._rows = list(rows)
        self._show()

    async def put(
        self, name: Switch, scope: str, value: object, reason: str, by: str, at: datetime
    ) -> Setting:
        self._store.hook("switch", 0)
        setting = Setting(len(self._rows) + 1, name, scope, value, reason, by, at)
        self._rows.append(setting)
        self.audit.append((by, f"{'propose' if setting.wants_second else 'set'} {name}"))
        self.outbox.append(f"relay-control.{name}")
        self._show()
        return setting

    async def approve(self, setting_id: int, by: str, at: datetime) -> Setting | None:
        self._store.hook("switch", 0)
        setting = self._rows[setting_id - 1]
        newer = any((one.name, one.scope) == (setting.name, setting.scope) for one in self._rows[setting_id:])
        if newer or setting.approved_by is not None or setting.set_by == by:
            return None
        self._rows[setting_id - 1] = replace(setting, approved_by=by, approved_at=at)
        self.audit.append((by, f"approve {setting.name}"))
        self.outbox.append(f"relay-control.{setting.name}")
        self._show()
        return self._rows[setting_id - 1]

    async def setting(self, setting_id: int) -> Setting | None:
        self._store.hook("switch", 0)
        return self._rows[setting_id - 1] if 0 < setting_id <= len(self._rows) else None

    async def newest(self) -> Sequence[Setting]:
        self._store.hook("switch", 0)
        answer: list[Setting] = []
        ended: set[tuple[str, str]] = set()
        for one in reversed(self._rows):
            if (one.name, one.scope) not in ended:
                answer.append(one)
                if _holds(one):
                    ended.add((one.name, one.scope))
        return sorted(answer, key=lambda one: (one.name, one.scope, -one.id))

    async def hold(self, reason: str, since: datetime | None, by: str, at: datetime) -> Setting:
        setting = await self.put(Switch.HOLD, "", True, reason, by, at)
        self.outbox.append("relay-control.closes-wanted")
        self.closes_wanted[at] = since
        return setting

    def _in_force(self, name: Switch, *scopes: str) -> list[Setting]:
        newest = {one.scope: one for one in self._rows if one.name is name and _holds(one)}
        return [newest[scope] for scope in scopes if scope in newest]

    def _show(self) -> None:
        for meter_id, facts in self._store.meters.items():
            organisation = f"organisation:{facts.organisation_id}"
            places = ("", f"area:{facts.area_id}", organisation, "organisation:2")
            (hold,) = self._in_force(Switch.HOLD, "") or (None,)
            (limits,) = self._in_force(Switch.LIMITS, "") or (None,)
            shadows = self._in_force(Switch.SHADOW, organisation)
            self._store.meters[meter_id] = replace(
                facts,
                brake=any(one.value for one in self._in_force(Switch.BRAKE, "")),
                weather_halt=any(one.value for one in self._in_force(Switch.WEATHER_HALT, *places)),
                hold_since=hold.set_at if hold is not None and hold.value else None,
                limits=None if limits is None else limits_of(limits.value),
                shadow=all(one.value for one in shadows),
            )


def _holds(setting: Setting) -> bool:
    return not setting.wants_second or setting.approved_by is not None


class MemoryBlocks:
    """Satisfies `control.stores.BlockStore`; customer n and point n have meter n."""

    def __init__(self, store: MemoryCommands) -> None:
        self._store = store
        self._rows: dict[int, StandingBlock] = {}
        self.audit: list[tuple[str, str]] = []

    def backup(self) -> dict[int, StandingBlock]:
        """What a backup taken now holds."""
        return dict(self._rows)

    def restore(self, rows: Mapping[int, StandingBlock]) -> None:
        self._rows = dict(rows)
        for meter_id in self._store.meters:
            self._show(meter_id)

    def _show(self, meter_id: int) -> None:
        shown = tuple(
            Block(one.id, one.kind, one.since, one.until, one.source)
            for one in self._rows.values()
            if meter_id in (one.customer_id, one.point_id) and one.lifted_at is None
        )
        self._store.meters[meter_id] = replace(self._store.meters[meter_id], blocks=shown)

    async def add(self, new: NewBlock, by: str, at: datetime) -> StandingBlock:
        told = (new.kind, new.customer_id, new.point_id, new.since, new.until, new.source)
        for one in self._rows.values():
            said = (one.kind, one.customer_id, one.point_id, one.since, one.until, one.source)
            if one.lifted_at is None and said == told:
                return one
        block = StandingBlock(max(self._rows, default=0) + 1, *told, new.reason, by, at)
        await self._keep(block, None)
        self.audit.append((by, "add block"))
        return block

    async def lift(self, block_id: int, reason: str, by: str, at: datetime) -> StandingBlock | None:
        block = self._rows.get(block_id)
        if block is None or block.lifted_at is not None:
            return block
        lifted = replace(block, lifted_by=by, lifted_at=at)
        await self._keep(lifted, block)
        self.audit.append((by, "lift block"))
        return lifted

    async def _keep(self, block: StandingBlock, before: StandingBlock | None) -> None:
        """With the meter's desk taken; where the desk is not kept the row is as before."""
        meter_id = block.customer_id or block.point_id or 0
        try:
            async with self._store.desk(meter_id):
                if block.id in self._rows and before is None:
                    raise StorageError("another block was added at the same time")
                self._rows[block.id] = block
                self._show(meter_id)
        except Unsure:
            raise
        except BaseException:
            if self._rows.get(block.id) is block:
                del self._rows[block.id]
                if before is not None:
                    self._rows[block.id] = before
                self._show(meter_id)
            raise

    async def unmirrored(self, now: datetime, limit: int) -> Sequence[Mirror]:
        self._store.hook("read", 0)
        return [
            Mirror(block.id, meter_id, self._store.meters[meter_id].meter, None)
            for block, meter_id in self._places()
            if block.kind is BlockKind.KEEP_POWER
            and block.lifted_at is None
            and block.since <= now
            and (block.until is None or now < block.until)
            and self._store.meters[meter_id].relay_kind is not RelayKind.NONE
            and not self._mirrors(block.id)
        ][:limit]

    async def mirrors(self, block_id: int, now: datetime) -> Sequence[Mirror]:
        self._store.hook("read", 0)
        return [
            Mirror(block_id, one.meter_id, self._store.meters[one.meter_id].meter, one.id)
            for one in self._mirrors(block_id)
        ]

    def _places(self) -> list[tuple[StandingBlock, int]]:
        return [(block, block.customer_id or block.point_id or 0) for block in self._rows.values()]

    def _mirrors(self, block_id: int) -> list[Command]:
        return [
            row.command
            for row in self._store.kept.rows.values()
            if row.command.caused_by == f"block {block_id}" and row.command.action is Action.KEEP_POWER
        ]


class Records(Protocol):
    """What a test looks at afterwards."""

    async def told(self) -> list[str]:
        """Types of the outgoing events, in order."""
        ...

    async def audit(self) -> list[tuple[str, str]]:
        """Who did what."""
        ...

    async def rows(self) -> dict[str, int]:
        """How many rows there are of what."""
        ...

    async def field_orders(self) -> list[tuple[int, str | None]]:
        """Meters that have one, and what has closed it; the open ones alone in memory."""
        ...

    async def change(self, meter_id: int, **told: Any) -> None:
        """Change what the assets say: relay_kind, restore_mode, role, installed."""
        ...


@dataclass
class Office:
    """All that is asked of control, over one store."""

    store: CommandStore
    records: Records
    batch_store: BatchStore
    switch_store: SwitchStore
    block_store: BlockStore
    clock: HandClock = field(default_factory=HandClock)
    rules: Rules = field(default_factory=Rules)
    woken: int = 0
    way: RightOfWay = field(default_factory=RightOfWay)

    def __post_init__(self) -> None:
        clock: Any = self.clock  # only now() and sleep() are asked
        current: Callable[[], Rules] = lambda: self.rules  # noqa: E731  # it names its type
        self.requests = Requests(self.store, current, clock, switches=self.switch_store, wake=self._wake)
        self.batches = Batches(self.store, self.batch_store, self.requests, current, clock, self.way)
        self.switches = Switches(self.switch_store, clock)
        self.protections = Protections(self.block_store, self.requests, clock)

    def _wake(self) -> None:
        self.woken += 1

    async def facts(self, meter_id: int) -> MeterFacts:
        async with self.store.desk(meter_id) as desk:
            return desk.facts

    async def found(self, command_id: UUID) -> Command:
        command = await self.store.command(command_id)
        assert command is not None
        return command


def ask(meter_id: int | None = 1, verb: Any = Action.TRIP, **told: Any) -> Ask:
    """A request that passes every gate, but for what is told."""
    given: dict[str, Any] = {"cause": "arrears", "notice": "N-1"} | told
    number = "nowhere" if meter_id is None else f"M{meter_id:06d}"
    return Ask(meter_id=meter_id, meter=number, verb=verb, **given)


class _MemoryRecords:
    def __init__(self, store: MemoryCommands, switches: MemorySwitches, blocks: MemoryBlocks) -> None:
        self._store = store
        self._switches = switches
        self._blocks = blocks

    async def told(self) -> list[str]:
        return [kind for kind, _ in self._store.kept.outbox] + self._switches.outbox

    async def audit(self) -> list[tuple[str, str]]:
        return self._switches.audit + self._blocks.audit

    async def rows(self) -> dict[str, int]:
        kept = self._store.kept
        return {"command": len(kept.rows), "intent": len(kept.intents), "outbox": len(kept.outbox)}

    async def field_orders(self) -> list[tuple[int, str | None]]:
        return [(meter_id, None) for meter_id in self._store.kept.field_orders]

    async def change(self, meter_id: int, **told: Any) -> None:
        self._store.meters[meter_id] = replace(self._store.meters[meter_id], **told)


def in_memory() -> Office:
    """The office over the store of the simulation."""
    clock = HandClock()
    meters = {
        meter_id: replace(
            FACTS,
            meter_id=meter_id,
            meter=f"M{meter_id:06d}",
            terminal_id=(meter_id + 1) // 2,
            area_id=(meter_id + 1) // 2,
            customer=f"C{meter_id}",
            shadow=False,
        )
        for meter_id in METERS
    }
    store = MemoryCommands(clock, meters)
    switches, blocks = MemorySwitches(store), MemoryBlocks(store)
    records = _MemoryRecords(store, switches, blocks)
    return Office(store, records, MemoryBatches(store), switches, blocks, clock)


class _Database:
    def __init__(self, database: Database, clock: HandClock) -> None:
        self.database = database
        self._clock = clock

    async def run(self, statement: str, *values: object) -> list[Any]:
        async with self.database.connection() as connection:
            cursor = await connection.execute(statement.encode(), values)
            return await cursor.fetchall() if cursor.description else []

    async def told(self) -> list[str]:
        return [row[0] for row in await self.run("SELECT type FROM outbox ORDER BY outbox_id")]

    async def audit(self) -> list[tuple[str, str]]:
        return [
            tuple(row)
            for row in await self.run("SELECT who, what FROM audit WHERE who <> '' ORDER BY audit_id")
        ]

    async def rows(self) -> dict[str, int]:
        tables = {
            "command": "relay_command",
            "intent": "meter_intent",
            "outbox": "outbox",
            "event": "relay_command_event",
            "batch": "relay_batch",
        }
        return {
            name: (await self.run(f"SELECT count(*) FROM {table}"))[0][0] for name, table in tables.items()
        }

    async def field_orders(self) -> list[tuple[int, str | None]]:
        return [tuple(row) for row in await self.run("SELECT meter_id, closed_by FROM field_order")]

    async def change(self, meter_id: int, **told: Any) -> None:
        where = {"relay_kind": "meter", "restore_mode": "customer", "role": "metering_point"}
        key = {"meter": "meter_id", "customer": "customer_id", "metering_point": "point_id"}
        for name, value in told.items():
            if name == "installed":
                ended = None if value else self._clock.shown
                await self.run("UPDATE meter_install SET valid_to = %s WHERE meter_id = %s", ended, meter_id)
                continue
            table = where[name]
            await self.run(f"UPDATE {table} SET {name} = %s WHERE {key[table]} = %s", str(value), meter_id)


async def in_database(database: Database, folder: Path) -> Office:
    """The office over PostgreSQL."""
    assert await grow(database, folder, 2, 2) == list(METERS)
    clock = HandClock()
    records = _Database(database, clock)
    for statement in (
        "INSERT INTO organisation (name) VALUES ('county'), ('province')",
        "UPDATE organisation SET parent_id = 2 WHERE organisation_id = 1",
        "INSERT INTO area (name, organisation_id) VALUES ('A1', 1), ('A2', 1)",
        "INSERT INTO customer (cons_no) SELECT 'C' || n FROM generate_series(1, 4) AS n",
        "UPDATE metering_point SET customer_id = point_id, area_id = (point_id + 1) / 2",
        "INSERT INTO control_setting (name, scope, value, set_by, set_at, approved_by, approved_at)"
        " VALUES ('shadow', 'organisation:1', 'false', 'ann', now(), 'bob', now())",
    ):
        await records.run(statement)
    store = Commands(database, clock)  # type: ignore[arg-type]  # only `now` is asked
    return Office(
        store, records, RelayBatches(database), ControlSettings(database), ControlBlocks(database), clock
    )
