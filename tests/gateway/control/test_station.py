"""Relay control put together: nobody gets past the journal; one that cannot be read stops trips alone."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gateway.command import Action, Command, Ref, State, Why
from gateway.control.ask import Ask
from gateway.control.epoch import StateFile
from gateway.control.journal_file import JournalError, JournalFile, OsFolder, Record
from gateway.control.policy import LOOK_AGAIN, Rules
from gateway.control.station import Station
from gateway.metrics import Metrics
from gateway.model import Point
from gateway.session.settings import MeterProfile
from gateway.session.turnstile import Turnstile
from gateway.storage.database import Database
from tests.gateway.control.crash_folder import full_disk
from tests.gateway.control.office import Office, ask, in_database
from tests.gateway.control.outage import AWAY, M1, Logins, Outage, dark
from tests.gateway.session.stage import until


class Registry(Logins):
    """As much of the sessions' registry as the station asks for; nobody can be reached."""

    changes = 0

    def __init__(self, *points: Point) -> None:
        super().__init__(*points)
        self.turnstile = Turnstile()

    def on_login(self, callback: Callable[[Any], None]) -> None:
        pass

    def session(self, address: str) -> None:
        return None


class House:
    """A station over a database; what it keeps lies in `folder`."""

    def __init__(self, office: Office, database: Database, folder: Path) -> None:
        clock: Any = office.clock
        registry: Any = Registry(replace(M1, meter="M000001"))
        self.turnstile = registry.turnstile
        self.office = office
        self.database = database
        self.metrics = Metrics()
        self.station = Station(
            database,
            registry,
            clock,
            Rules,
            StateFile(folder / "epoch.json"),
            JournalFile(OsFolder(folder)),
            self.metrics,
            Ed25519PrivateKey.generate(),
            profile=lambda name: MeterProfile(),
        )

    async def keep(self) -> Any:
        wanted = Ask(meter_id=None, meter="M000001", verb=Action.CLOSE, cause="paid")
        return await self.station.journal.accept(wanted, "billing", "k1", because=AWAY, sees_all=True)

    async def reason_to_wait(self, trip: Command) -> Why | None:
        """Why this trip does not go on to its meter, once the epoch file was compared."""
        self.station._known = True
        await self.station._dispatcher._course.work(Ref(trip.id, trip.meter_id, 1, trip.action, trip.state))
        after = await self.office.found(trip.id)
        return after.why if after.look_at is not None and after.look_at > self.office.clock.now() else None

    def gauges(self) -> Iterable[float | None]:
        names = ("lingdian_relay_journal_closes", "lingdian_relay_journal_damaged_lines")
        return [self.metrics.registry.get_sample_value(name) for name in names]


@pytest.fixture
async def house(conninfo: str, tmp_path: Path) -> AsyncIterator[House]:
    async with await Database.open(conninfo) as database:
        (tmp_path / "state").mkdir()
        yield House(await in_database(database, tmp_path), database, tmp_path / "state")


@pytest.mark.database
async def test_what_is_in_the_journal_is_filed_before_anything_else_is_decided(house: House) -> None:
    await house.station.open()
    before = (await house.station.requests.accept(ask(1), "billing", "t0")).command
    kept = await house.keep()
    assert house.gauges() == [1.0, 0.0]
    trip = (await house.station.requests.accept(ask(1), "billing", "t1")).command
    assert (trip.state, trip.why) == (State.REFUSED, Why.OPEN_CLOSE)
    assert house.gauges() == [0.0, 0.0]
    assert (await house.office.found(kept.command.id)).state is State.QUEUED
    assert (await house.office.found(before.id)).state is State.SUPERSEDED


@pytest.mark.database
async def test_nobody_has_the_store_or_the_doors_without_the_journal(house: House) -> None:
    station = house.station
    course = station._dispatcher._course
    for one in (
        station.requests,
        station.batches,
        station._dispatcher,
        course,
        course._gates,
        course._prover,
    ):
        assert one._store is station.journal.store
    for other in (station._dispatcher, course):
        assert other._doors is station.journal.doors


@pytest.mark.database
async def test_all_that_begins_trips_gives_way_to_the_same_closes(house: House) -> None:
    station = house.station
    assert station.batches._way is station._dispatcher._way is station.way
    station._dispatcher._look_at_all = False
    with station.way.closing():
        pass
    await until(lambda: station._dispatcher._look_at_all)  # as soon as the close has left
    assert house.turnstile._commands == 0
    with station.way.asking():
        assert house.turnstile._commands == 1, "the sweep goes slower"


@pytest.mark.database
async def test_a_journal_that_cannot_be_read_stops_trips_and_keeps_what_it_holds(
    house: House, tmp_path: Path
) -> None:
    await house.station.open()
    await house.keep()
    trip = (await house.station.requests.accept(ask(2), "billing", "t1")).command
    file = tmp_path / "state" / "closes.journal"
    again = House(house.office, house.database, tmp_path / "state")
    file.rename(file.with_suffix(".aside"))
    file.mkdir()
    await again.station.open()
    assert await again.reason_to_wait(trip) is Why.OUR_CLOCK
    with pytest.raises(JournalError, match="could not be read"):
        await again.keep()
    file.rmdir()
    file.with_suffix(".aside").rename(file)
    await again.station.open()
    assert again.gauges() == [1.0, 0.0]
    house.office.clock.shown += LOOK_AGAIN
    assert await again.reason_to_wait(trip) is None


async def test_a_journal_that_cannot_be_written_holds_what_it_holds() -> None:
    outage = await dark(Outage())
    first = await outage.keep()
    outage.folder = outage.folder.crash()
    outage.folder.hook = full_disk
    await outage.start()
    assert outage.journal.holds(1)
    with pytest.raises(JournalError, match="No space left on device"):
        await outage.keep(key="k2")
    outage.folder.hook = lambda operation: None
    second = await outage.keep(key="k2")
    await outage.crash()
    assert all(outage.journal.find(one.command.id) for one in (first, second))


class Forgetful(JournalFile):
    """Planted: says that a line is kept, and does not keep it."""

    def append(self, record: Record) -> None:
        assert self.fits(record)


async def outlives_a_crash(outage: Outage) -> bool:
    """Is a close that was accepted without the database still there after the process died?"""
    kept = await outage.keep()
    await outage.crash()
    found = outage.journal.find(kept.command.id) is not None
    await outage.back()
    assert found == bool(outage.store.kept.rows)
    return found


@pytest.mark.parametrize("planted", [False, True])
async def test_a_close_whose_line_is_not_kept_is_lost(planted: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    outage = await dark(Outage())
    if planted:
        monkeypatch.setattr(JournalFile, "append", Forgetful.append)
    assert await outlives_a_crash(outage) is not planted
