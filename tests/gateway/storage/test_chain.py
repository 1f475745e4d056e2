"""Seals over what happened to relay commands: whatever is changed afterwards is found."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from gateway.command import Action, NewCommand, Proof, State, Why
from gateway.control.stores import step
from gateway.errors import StorageError
from gateway.storage import chain
from gateway.storage.commands import Commands
from gateway.storage.database import Database
from gateway.storage.event_bodies import ROW
from tests.gateway.control.bench import NOW, HandClock
from tests.gateway.storage.district import grow

pytestmark = pytest.mark.database

TABLES = ("relay_command_event", "relay_command", "chain_seal", "meter_intent")
ROUNDS = 2


def new(action: Action, number: int) -> NewCommand:
    return NewCommand(
        id=uuid4(),
        action=action,
        requester="billing",
        cause=f"arrears {number}",
        created_at=NOW,
        idempotency_key=uuid4().hex,
        body_hash=bytes([number]) * 32,
        notice="N-1",
        expires_at=NOW if action is Action.TRIP else None,
    )


async def happen(database: Database, rounds: int) -> None:
    """Commands at two meters, some approved, some ended, some still open."""
    store = Commands(database, HandClock())  # type: ignore[arg-type]  # only `now` is asked
    for number in range(rounds):
        async with store.desk(1 + number % 2) as desk:
            close = await desk.add(new(Action.CLOSE, number), State.QUEUED)
            close = await step(desk, close, State.SENDING, evidence={"frame": "68…16", "表": number})
            close = await step(desk, close, State.ACKNOWLEDGED)
            if number % 3:
                await step(desk, close, State.VERIFIED, proof=Proof.RELAY_READ, why=Why.RELAY_READ)


@pytest.fixture
async def sealed(database: Database, tmp_path: Path) -> Database:
    """Three seals, and some events after them."""
    await grow(database, tmp_path, 1, 2)
    await happen(database, 6)
    for limit in (7, 9, 1000):
        assert await chain.seal_some(database, NOW, limit) is not None
    await happen(database, 2)
    return database


async def tamper(database: Database, statement: str, seed: float = 0.0) -> int:
    """As one with all rights in the database does: no trigger, no key stands in his way."""
    async with await psycopg.AsyncConnection.connect(database.conninfo) as connection:
        await connection.execute("SET session_replication_role = replica")
        await connection.execute("SELECT setseed(%s)", (seed,))
        cursor = await connection.execute(statement.encode())
        return cursor.rowcount


async def rows(database: Database, statement: str) -> list[Any]:
    async with database.connection() as connection:
        return await (await connection.execute(statement.encode())).fetchall()


async def test_seals_cover_every_event_once(sealed: Database) -> None:
    verdict = await chain.verify(sealed)
    assert verdict.faults == ()
    events = (await rows(sealed, "SELECT count(*) FROM relay_command_event"))[0][0]
    assert (verdict.events, verdict.seals) == (events, 3)
    assert 0 < verdict.unsealed < events
    assert verdict.newest == await chain.newest(sealed) == await chain.seal_of(sealed, 3)
    listed = await rows(sealed, "SELECT unnest(events) FROM chain_seal")
    marked = await rows(sealed, "SELECT event_id FROM relay_command_event WHERE seal_id IS NOT NULL")
    assert sorted(listed) == sorted(marked)
    assert len(set(listed)) == len(listed)
    assert await chain.seal_some(sealed, NOW) is not None
    assert await chain.seal_some(sealed, NOW) is None
    assert (await chain.verify(sealed)).unsealed == 0


async def test_an_empty_database_has_nothing_wrong(database: Database) -> None:
    assert await chain.verify(database) == chain.Verdict((), 0, 0, 0, None)
    assert not await chain.commands_exist(database)


async def test_two_who_seal_at_once_do_not_seal_twice(sealed: Database) -> None:
    done = await asyncio.gather(*(chain.seal_some(sealed, NOW, 4) for _ in range(4)), return_exceptions=True)
    assert any(isinstance(one, chain.Seal) for one in done)
    assert all(one is None or isinstance(one, chain.Seal | StorageError) for one in done)
    assert (await chain.verify(sealed)).faults == ()


async def test_the_sealer_seals_under_its_lease(sealed: Database) -> None:
    told: list[chain.Seal] = []
    done = asyncio.Event()

    async def on_sealed(seal: chain.Seal) -> None:
        told.append(seal)
        done.set()

    class Quick(HandClock):
        async def sleep(self, seconds: float) -> None:
            await asyncio.sleep(0.01)

    sealers = [
        chain.Sealer(sealed, Quick(), on_sealed=on_sealed)  # type: ignore[arg-type]  # now and sleep only
        for _ in range(2)
    ]
    running = [asyncio.create_task(one.run()) for one in sealers]
    try:
        await asyncio.wait_for(done.wait(), 20)
        await happen(sealed, 2)
        async with asyncio.timeout(20):
            done.clear()
            while (await chain.verify(sealed)).unsealed:
                await done.wait()
                done.clear()
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
    assert [seal.id for seal in told] == list(range(4, 4 + len(told)))
    assert (await chain.verify(sealed, told[-1])).faults == ()


@pytest.fixture
async def kept(sealed: Database) -> AsyncIterator[Database]:
    """The same, with a copy to put back."""
    await tamper(sealed, "ALTER TABLE relay_command_event ALTER COLUMN event_id SET GENERATED BY DEFAULT")
    await tamper(sealed, "CREATE SCHEMA kept")
    for table in TABLES:
        await tamper(sealed, f"CREATE TABLE kept.{table} AS TABLE {table}")
    yield sealed
    await tamper(sealed, "DROP SCHEMA kept CASCADE")
    await tamper(sealed, "ALTER TABLE relay_command_event ALTER COLUMN event_id SET GENERATED ALWAYS")


async def put_back(database: Database) -> None:
    for table in TABLES:
        await tamper(database, f"DELETE FROM {table}")
        await tamper(database, f"INSERT INTO {table} OVERRIDING SYSTEM VALUE TABLE kept.{table}")


EVENT = "(SELECT event_id FROM relay_command_event ORDER BY random() LIMIT 1)"
SEALED = "(SELECT event_id FROM relay_command_event WHERE seal_id IS NOT NULL ORDER BY random() LIMIT 1)"
COMMAND = "(SELECT command_id FROM relay_command ORDER BY random() LIMIT 1)"
PAIR = """(
    SELECT array_agg(event_id)
    FROM (SELECT event_id FROM relay_command_event ORDER BY random() LIMIT 2) AS two
)"""

EVENT_COLUMNS = {
    "body": "body = jsonb_set(body, '{state}', '\"held\"')",
    "evidence": 'body = body || \'{"evidence": {"by": "x"}}\'',
    "a float": "body = body || '{\"n\": 1.5}'",
    "state": "state = 'held'",
    "kind": "kind = 'x'",
    "time": "at = at + interval '1 microsecond'",
    "number": "n = n + 100",
    "hash": "hash = sha256(hash)",
    "command": f"n = n + 50, command_id = {COMMAND}",
    "seal": "seal_id = coalesce(seal_id, 0) % 3 + 1",
    "seal that is not there": "seal_id = 77",
}
COMMAND_COLUMNS = {
    "state": "state = CASE state WHEN 'failed' THEN 'refused' ELSE 'failed' END",
    "requester": "requester = 'ann'",
    "approver": "approver = 'ann'",
    "cause": "cause = 'none'",
    "action": "action = 'permit-close'",
    "body hash": "body_sha256 = '\\x00'",
}
SEAL_COLUMNS = {
    "digest": "digest = sha256(digest)",
    "time": "at = at + interval '1 second'",
    "events": "events = events[2:] || events[1]",
}
OTHERS = {
    "an event gone": f"DELETE FROM relay_command_event WHERE event_id = {EVENT}",
    "an event twice": f"""
        INSERT INTO relay_command_event (command_id, n, at, kind, state, body, hash, seal_id)
        SELECT command_id, n + 100, at, kind, state, body, hash, seal_id FROM relay_command_event
        WHERE event_id = {EVENT}
    """,
    "bodies and hashes exchanged": f"""
        UPDATE relay_command_event AS a SET body = b.body, hash = b.hash
        FROM relay_command_event AS b, {PAIR} AS pair (ids)
        WHERE a.event_id = ANY(pair.ids) AND b.event_id = ANY(pair.ids) AND a.event_id <> b.event_id
    """,
    "a sealed event without its seal": f"""
        UPDATE relay_command_event SET seal_id = NULL WHERE event_id = {SEALED}
    """,
    "a sealed event elsewhere": f"""
        UPDATE relay_command_event SET event_id = event_id + 9000 WHERE event_id = {SEALED}
    """,
    "a command gone": f"DELETE FROM relay_command WHERE command_id = {COMMAND}",
    "a command gone with its events": f"""
        WITH gone AS (DELETE FROM relay_command WHERE command_id = {COMMAND} RETURNING command_id)
        DELETE FROM relay_command_event WHERE command_id IN (SELECT command_id FROM gone)
    """,
    "intents": "UPDATE meter_intent SET intent = intent - 1",
    "a seal gone": "DELETE FROM chain_seal WHERE seal_id = 2",
    "seals exchanged": """
        UPDATE chain_seal AS a SET digest = b.digest, events = b.events, at = b.at
        FROM chain_seal AS b WHERE a.seal_id + b.seal_id = 4 AND a.seal_id <> 2
    """,
}
EDITS = (
    {
        f"{name} of an event": f"UPDATE relay_command_event SET {change} WHERE event_id = {EVENT}"
        for name, change in EVENT_COLUMNS.items()
    }
    | {
        f"{name} of a command": f"UPDATE relay_command SET {change} WHERE command_id = {COMMAND}"
        for name, change in COMMAND_COLUMNS.items()
    }
    | {
        f"{name} of a seal": f"UPDATE chain_seal SET {change} WHERE seal_id = {seal_id}"
        for seal_id, (name, change) in enumerate(SEAL_COLUMNS.items(), 1)
    }
    | OTHERS
)
"""Changes that somebody might make, as SQL, by what they are."""


async def test_every_edit_removal_and_exchange_is_found(kept: Database) -> None:
    seed = random.randrange(1 << 30)
    random_ = random.Random(seed)
    done: Counter[str] = Counter()
    for number in range(ROUNDS):
        for what, statement in EDITS.items():
            place = random_.random()
            if not await tamper(kept, statement, place):
                continue
            verdict = await chain.verify(kept)
            assert verdict.faults, f"not found: {what} (seed {seed}, {place}): {statement}"
            done[what] += 1
            await put_back(kept)
        assert (await chain.verify(kept)).faults == (), f"round {number}, seed {seed}"
    assert set(done) == set(EDITS), f"some never happened (seed {seed})"


EVERY_COLUMN = {
    "meter": "meter_id = 3 - meter_id",
    "action": "action = 'alarm'",
    "state": "state = 'refused'",
    "why": "why = 'brake'",
    "detail": "detail = 'x'",
    "intent": "intent = intent + 100",
    "requester": "requester = 'ann'",
    "approver": "approver = 'ann'",
    "cause": "cause = 'none'",
    "notice": "notice = 'N-2'",
    "customer": "customer = 'C-2'",
    "caused_by": "caused_by = 'P'",
    "work_order": "work_order = 'W'",
    "label": "label = 'L'",
    "trace": "trace = 'T'",
    "batch": "batch_id = gen_random_uuid()",
    "shadow": "shadow = NOT shadow",
    "body_sha256": "body_sha256 = '\\x00'",
    "created_at": "created_at = created_at - interval '1 second'",
    "not_before": "not_before = now()",
    "expires_at": "expires_at = now()",
    "attempts": "attempts = attempts + 1",
    "frame_hmac": "frame_sha256 = '\\x00'",
    "sent_at": "sent_at = now()",
    "valid_until": "valid_until = now()",
    "energised_at": "energised_at = now()",
    "changed_at": "changed_at = changed_at + interval '1 microsecond'",
}


async def test_every_column_of_a_command_that_is_not_what_its_events_say_is_named(sealed: Database) -> None:
    assert set(EVERY_COLUMN) == set(ROW) - {"id", "frame_hash"} | {"frame_hmac"}
    ended = "(SELECT command_id FROM relay_command WHERE state = 'verified' LIMIT 1)"
    changes = ", ".join(EVERY_COLUMN.values())
    assert await tamper(sealed, f"UPDATE relay_command SET {changes} WHERE command_id = {ended}") == 1
    named = [one.what for one in (await chain.verify(sealed)).faults if one.place.startswith("command ")]
    for name in EVERY_COLUMN:
        assert any(what.startswith(f"its {name} is ") for what in named), name


async def test_all_of_it_made_anew_is_found_by_the_seal_kept_outside(sealed: Database) -> None:
    kept = await chain.newest(sealed)
    assert kept is not None
    assert (await chain.verify(sealed, kept)).faults == ()
    await tamper(sealed, "DELETE FROM chain_seal")
    await tamper(sealed, "UPDATE relay_command_event SET seal_id = NULL")
    while await chain.seal_some(sealed, NOW, 5) is not None:
        pass
    assert (await chain.verify(sealed)).faults == ()
    (fault,) = (await chain.verify(sealed, kept)).faults
    assert fault.place == "seal 3"
