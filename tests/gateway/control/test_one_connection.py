"""Relay control over a pool of one connection: whoever has a desk open wants no second one.

With a second connection for each desk, as many desks as the pool has connections wait for each other until
they give up: ten minutes after a thousand closes, when all of them are looked at again, nobody else got one.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from gateway.command import Action, Change, Command, Limits, Proof, Ref, State
from gateway.control.ask import NotNow
from gateway.control.proof import Prover
from gateway.control.stores import step
from gateway.storage.database import Database
from tests.gateway.control.bench import NOW, BenchDoor, Relay
from tests.gateway.control.office import Office, ask, in_database

pytestmark = pytest.mark.database


@pytest.fixture
async def office(conninfo: str, tmp_path: Path) -> AsyncIterator[Office]:
    async with await Database.open(conninfo, connections=1, connect_timeout=2.0) as database:
        yield await in_database(database, tmp_path)


async def permitted(office: Office) -> Command:
    """A permitted close that has ended and is to be looked at."""
    command = (await office.requests.accept(ask(1, Action.PERMIT_CLOSE), "billing", "k")).command
    async with office.store.desk(1) as desk:
        command = await step(desk, command, State.SENDING)
        command = await step(desk, command, State.ACKNOWLEDGED)
        return await step(
            desk,
            command,
            State.VERIFIED,
            proof=Proof.RELAY_READ,
            change=Change({"look_at": NOW, "sent_at": NOW - timedelta(minutes=10)}),
        )


async def test_a_command_that_has_ended_is_looked_at_again(office: Office) -> None:
    command = await permitted(office)
    door = BenchDoor(Relay(office.clock), office.clock)
    ref = Ref(command.id, 1, 1, command.action, State.VERIFIED)
    await Prover(office.store, office.clock).look(ref, door)  # type: ignore[arg-type]  # moved by hand
    seen = await office.found(command.id)
    assert seen.energised_at is not None


async def test_a_command_that_has_ended_is_not_cancelled(office: Office) -> None:
    command = await permitted(office)
    with pytest.raises(NotNow):
        await office.requests.cancel(command.id, "ann")


async def test_a_dry_run_counts_places(office: Office) -> None:
    office.rules = replace(office.rules, limits=Limits(area=0))
    assert (await office.batches.dry_run([ask(1)], "billing")).over
