"""The file outside the database: what makes a gateway start in hold, and what does not."""

from __future__ import annotations

import asyncio
import os
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from gateway.command import Action, State
from gateway.control.epoch import DatabaseSeals, Epoch, Keeper, StateFile
from gateway.errors import StorageError
from gateway.storage import chain
from gateway.storage.chain import Seal
from gateway.storage.database import Database
from gateway.storage.switches import Switch
from tests.gateway.control.bench import NOW
from tests.gateway.control.office import Office, ask, in_database, in_memory

HOUR = timedelta(hours=1)


class MadeSeals:
    """Satisfies `control.epoch.Seals`."""

    def __init__(self, *digests: bytes) -> None:
        self.seals = [Seal(number, NOW, digest) for number, digest in enumerate(digests, 1)]
        self.commands = bool(digests)

    async def newest(self) -> Seal | None:
        return self.seals[-1] if self.seals else None

    async def seal(self, seal_id: int) -> Seal | None:
        return self.seals[seal_id - 1] if seal_id <= len(self.seals) else None

    async def commands_exist(self) -> bool:
        return self.commands


def keeper(office: Office, file: Path, seals: Any) -> Keeper:
    clock: Any = office.clock
    return Keeper(StateFile(file), seals, office.switch_store, clock)


async def asked_since(office: Office) -> list[str]:
    return [kind for kind in await office.records.told() if kind == "relay-control.closes-wanted"]


async def start(seals: MadeSeals, file: Path, at: datetime = NOW) -> tuple[str | None, Office]:
    """A gateway starts on what is there."""
    office = in_memory()
    office.clock.shown = at
    return await keeper(office, file, seals).start(), office


async def test_a_new_house_starts_without_hold(tmp_path: Path) -> None:
    file = tmp_path / "epoch"
    reason, office = await start(MadeSeals(), file)
    assert reason is None
    assert (await office.facts(1)).hold_since is None
    epoch = await StateFile(file).load()
    assert epoch is not None
    assert epoch.seal is None
    assert NOW <= epoch.alive_at < NOW + timedelta(seconds=1)


async def test_a_start_after_a_short_stop_goes_on(tmp_path: Path) -> None:
    seals = MadeSeals(b"a", b"b")
    await StateFile(tmp_path / "epoch").keep(Epoch(seals.seals[0], NOW))
    reason, office = await start(seals, tmp_path / "epoch", NOW + timedelta(minutes=59))
    assert reason is None
    assert await office.switch_store.newest() == []
    epoch = await StateFile(tmp_path / "epoch").load()
    assert epoch is not None
    assert epoch.seal == seals.seals[1]


@pytest.mark.parametrize(
    ("kept", "content", "digests", "later", "words"),
    [
        (None, None, [b"a"], timedelta(0), "missing"),
        (None, b"", [b"a"], timedelta(0), "damaged"),
        (None, b'{"alive_at": "2026-11-25T02:00:00", "seal": null}', [b"a"], timedelta(0), "damaged"),
        (None, b'{"alive_at": "2026-11-25T02:00:00+00:00"}', [b"a"], timedelta(0), "damaged"),
        (Epoch(Seal(3, NOW, b"c"), NOW), None, [b"a", b"b"], timedelta(0), "does not know seal 3"),
        (Epoch(Seal(1, NOW, b"a"), NOW), None, [], timedelta(0), "does not know seal 1"),
        (Epoch(Seal(2, NOW, b"x"), NOW), None, [b"a", b"b", b"c"], timedelta(0), "another one"),
        (Epoch(Seal(1, NOW, b"a"), NOW), None, [b"a"], HOUR, "no sign of life"),
        (Epoch(Seal(1, NOW, b"a"), NOW), None, [b"a"], -HOUR, "our clock"),
    ],
)
async def test_what_puts_trips_on_hold(
    tmp_path: Path,
    kept: Epoch | None,
    content: bytes | None,
    digests: list[bytes],
    later: timedelta,
    words: str,
) -> None:
    file, seals = tmp_path / "epoch", MadeSeals(*digests)
    if kept is not None:
        await StateFile(file).keep(kept)
    if content is not None:
        file.write_bytes(content)
    office = in_memory()
    office.clock.shown = NOW + later
    before = (await office.requests.accept(ask(), "billing", "k")).command
    reason = await keeper(office, file, seals).start()
    assert reason is not None
    assert words in reason
    assert len(await asked_since(office)) == 1
    hold = (await office.facts(1)).hold_since
    assert hold is not None
    assert before.created_at <= hold
    if later < timedelta(0):
        assert hold >= NOW  # also what was accepted before our clock was set back
    assert await keeper(office, file, seals).start() is None, "one stop, one hold"
    assert (await office.facts(1)).hold_since == hold


async def test_a_stop_without_commands_is_no_danger(tmp_path: Path) -> None:
    await StateFile(tmp_path / "epoch").keep(Epoch(None, NOW))
    assert (await start(MadeSeals(), tmp_path / "epoch", NOW + 9 * HOUR))[0] is None


async def test_a_database_put_back_under_our_feet_is_noticed(tmp_path: Path) -> None:
    seals = MadeSeals(b"a", b"b")
    office = in_memory()
    await StateFile(tmp_path / "epoch").keep(Epoch(seals.seals[0], NOW))
    kept = keeper(office, tmp_path / "epoch", seals)
    assert await kept.start() is None
    await kept.beat()
    assert (await office.facts(1)).hold_since is None
    (tmp_path / "epoch").unlink()  # what this process remembers is enough
    seals.seals.pop()
    await kept.beat()
    assert (await office.facts(1)).hold_since is not None
    assert len(await asked_since(office)) == 1
    await kept.beat()
    assert len(await asked_since(office)) == 1


async def test_without_the_database_nothing_is_known(tmp_path: Path) -> None:
    class Away(MadeSeals):
        async def newest(self) -> Seal | None:
            raise StorageError("away")

        async def commands_exist(self) -> bool:
            raise StorageError("away")

    kept = keeper(in_memory(), tmp_path / "epoch", Away())
    with pytest.raises(StorageError):
        await kept.start()
    assert not (tmp_path / "epoch").exists()
    await kept.on_sealed(Seal(1, NOW, b"a"))  # is logged, and stops nobody


async def test_a_hold_that_cannot_be_kept_is_tried_again(tmp_path: Path) -> None:
    """The file moves on only after the hold is durable."""
    file, seals = tmp_path / "epoch", MadeSeals(b"a")
    await StateFile(file).keep(Epoch(Seal(2, NOW, b"b"), NOW))
    office = in_memory()

    async def fails(*told: object) -> Any:
        raise StorageError("gone")

    office.switch_store.hold = fails  # type: ignore[method-assign,assignment]
    with pytest.raises(StorageError):
        await keeper(office, file, seals).start()
    again = in_memory()
    assert await keeper(again, file, seals).start() is not None


async def test_the_file_is_synced_before_it_is_put_in_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def synced(number: int) -> None:
        order.append("sync folder" if os.path.isdir(f"/proc/self/fd/{number}") else "sync file")
        fsync(number)

    def placed(self: Path, target: Path) -> Path:
        order.append("replace")
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "replace", placed)
    await StateFile(tmp_path / "epoch").keep(Epoch(Seal(7, NOW, b"\x00\xff"), NOW))
    assert order == ["sync file", "replace", "sync folder"]
    assert await StateFile(tmp_path / "epoch").load() == Epoch(Seal(7, NOW, b"\x00\xff"), NOW)
    assert os.listdir(tmp_path) == ["epoch"]


async def test_it_beats(tmp_path: Path) -> None:
    office = in_memory()
    kept = keeper(office, tmp_path / "epoch", MadeSeals(b"a"))
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 3:
            raise asyncio.CancelledError

    office.clock.sleep = sleep  # type: ignore[method-assign]
    with pytest.raises(asyncio.CancelledError):
        await kept.run()
    epoch = await StateFile(tmp_path / "epoch").load()
    assert epoch is not None
    assert epoch.seal == Seal(1, NOW, b"a")
    assert slept == [10.0] * 3


@pytest.mark.database
async def test_a_restored_database_holds_yesterdays_trips(database: Database, tmp_path: Path) -> None:
    office = await in_database(database, tmp_path)
    kept = keeper(office, tmp_path / "epoch", DatabaseSeals(database))
    assert await kept.start() is None
    trip = (await office.requests.accept(ask(), "billing", "k1")).command
    first = await chain.seal_some(database, office.clock.now())
    close = (await office.requests.accept(ask(verb=Action.CLOSE), "billing", "k2")).command
    second = await chain.seal_some(database, office.clock.now())
    assert first is not None
    assert second is not None
    await kept.on_sealed(second)
    async with database.connection() as connection:  # as if the backup had been made after the first seal
        await connection.execute("SET LOCAL session_replication_role = replica")
        for statement in (
            "DELETE FROM chain_seal WHERE seal_id = 2",
            "DELETE FROM relay_command_event WHERE seal_id = 2",
            "DELETE FROM relay_command WHERE action = 'close'",
            "UPDATE relay_command SET state = 'queued', version = 3, events = 2",
        ):
            await connection.execute(statement.encode())
    assert await office.store.command(close.id) is None
    assert (await office.found(trip.id)).state is State.QUEUED
    reason = await keeper(office, tmp_path / "epoch", DatabaseSeals(database)).start()
    assert reason is not None
    assert "does not know seal 2" in reason
    facts = await office.facts(1)
    assert facts.hold_since is not None
    assert facts.open[0].created_at <= facts.hold_since
    async with database.connection() as connection:
        cursor = await connection.execute(
            "SELECT data FROM outbox WHERE type = 'relay-control.closes-wanted'"
        )
        ((told,),) = await cursor.fetchall()
    assert datetime.fromisoformat(told["since"]) == first.at
    (hold,) = [one for one in await office.switches.newest() if one.name is Switch.HOLD]
    assert (hold.value, hold.set_by) == (True, "lingdian:epoch")
