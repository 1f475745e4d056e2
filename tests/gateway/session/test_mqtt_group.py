"""Gateways of a group behind a real Mosquitto, with their rows in a real database: who hears whom when one is
gone, comes again, or has lost its lease."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import datetime
from pathlib import Path

import pytest

from gateway.clock import Clock
from gateway.errors import ConfigurationError, LinkClosed, StorageError
from gateway.session.mqtt_group import GroupMember
from gateway.storage import assets, owners
from gateway.storage.database import Database
from gateway.storage.imports import import_assets
from gateway.storage.leases import leases
from gateway.transports import mqtt
from gateway.transports.mqtt_broker import Broker, BrokerLost
from gateway.transports.mqtt_link import MqttLink
from gateway.transports.mqtt_settings import MqttSettings
from gateway.transports.mqtt_topics import Topics
from tests.gateway.transports.broker import Mosquitto, Terminal, terminal, until

pytestmark = pytest.mark.database

LASTS = 1.5
NAMES = [f"0200000{number}" for number in range(1, 7)]


class House:
    """What the registry is to a group: a terminal that speaks is written down as ours."""

    def __init__(self, database: Database, ids: dict[str, int]) -> None:
        self.heard: list[tuple[str, bytes]] = []
        self.written = 0
        self._database = database
        self._ids = ids

    async def accept(self, link: MqttLink) -> None:
        await assets.login(self._database, self._ids[link.terminal], "worker", link.peer, Clock().now())
        self.written += 1
        try:
            while True:
                data, settle = await link.read()
                self.heard.append((link.terminal, data))
                await settle()
        except LinkClosed:
            pass


class Gateway:
    """One of the group."""

    def __init__(self, identifier: str, port: int, database: Database, ids: dict[str, int]) -> None:
        self.house = House(database, ids)
        settings = MqttSettings(
            Broker("127.0.0.1", port, identifier=identifier),
            group="pair",
            topics=Topics(shared=("lingdian/{terminal}/login",)),
        )
        self.terminals = mqtt.connect(settings, self.house.accept)
        self.member = GroupMember(self.terminals, database, Clock(), LASTS)
        self.running = asyncio.create_task(self.member.run())

    @property
    def owned(self) -> set[str]:
        return {name for name in NAMES if self.terminals.owns(name)}

    async def connected(self) -> None:
        await until(lambda: self.terminals.connected)

    async def dies(self) -> None:
        """Without a word to the others of the group."""
        tasks = [self.running, self.terminals._running]
        for task in tasks:
            if task is not None:
                task.cancel()
        await asyncio.gather(*(task for task in tasks if task is not None), return_exceptions=True)

    async def close(self) -> None:
        self.running.cancel()
        await asyncio.gather(self.running, return_exceptions=True)
        await self.terminals.close()


class Group:
    """A broker, a device that speaks for all terminals, and the gateways."""

    def __init__(self, port: int, database: Database, ids: dict[str, int], device: Terminal) -> None:
        self._port, self._database, self._ids = port, database, ids
        self._device = device
        self._made: list[Gateway] = []

    def gateway(self, identifier: str) -> Gateway:
        made = Gateway(identifier, self._port, self._database, self._ids)
        self._made.append(made)
        return made

    async def say(self, name: str, what: bytes, place: str = "up") -> None:
        await self._device.say(what, topic=f"lingdian/{name}/{place}")

    async def log_in(self, *gateways: Gateway) -> None:
        """All terminals, which these gateways share out."""
        for name in NAMES:
            await self.say(name, b"login", "login")
        await until(lambda: sum(one.house.written for one in gateways) == len(NAMES))

    async def close(self) -> None:
        for gateway in self._made:
            await gateway.close()


@pytest.fixture
async def group(database: Database, tmp_path: Path) -> AsyncIterator[Group]:
    (tmp_path / "terminals.csv").write_text("terminal\n" + "".join(f"{name}\n" for name in NAMES))
    await import_assets(database, terminals=tmp_path / "terminals.csv", meters=None)
    ids = {one.address: one.terminal_id async for one in assets.terminals(database)}
    with Mosquitto(tmp_path) as broker:
        async with terminal(broker.port, "device") as device:
            made = Group(broker.port, database, ids, device)
            try:
                yield made
            finally:
                await made.close()


async def test_terminals_of_one_that_is_gone_are_heard_by_the_other(group: Group) -> None:
    north, south = group.gateway("north"), group.gateway("south")
    await north.connected()
    await south.connected()
    await group.log_in(north, south)
    lost = north.owned
    assert lost
    assert lost | south.owned == set(NAMES)
    assert not lost & south.owned
    await asyncio.sleep(LASTS)  # both have looked for each other
    assert north.owned == lost

    await north.dies()
    await until(lambda: south.owned == set(NAMES))
    for name in NAMES:
        await group.say(name, b"heartbeat")
    await until(lambda: {name for name, said in south.house.heard if said == b"heartbeat"} == set(NAMES))
    # nothing waits for the one that is gone: neither turns at logins, nor what its terminals said
    before = len(south.house.heard)
    for name in NAMES:
        await group.say(name, b"again", "login")
    await until(lambda: len(south.house.heard) == before + len(NAMES))
    anew = group.gateway("north")
    await anew.connected()
    assert anew.owned == set()
    for name in NAMES:
        await group.say(name, b"after")
    await until(lambda: len(south.house.heard) == before + 2 * len(NAMES))
    assert anew.house.heard == []


async def test_one_that_comes_again_at_once_hears_its_own(group: Group) -> None:
    north = group.gateway("north")
    await north.connected()
    await group.log_in(north)
    await north.dies()
    await group.say(NAMES[0], b"meanwhile")
    anew = group.gateway("north")
    await anew.connected()
    assert anew.owned == set(NAMES)
    await until(lambda: anew.house.heard == [(NAMES[0], b"meanwhile")])


async def test_a_terminal_that_logs_in_elsewhere_is_not_heard_any_more(group: Group) -> None:
    north, south = group.gateway("north"), group.gateway("south")
    await north.connected()
    await south.connected()
    await group.log_in(north, south)
    name = next(iter(north.owned))
    logins = 0
    while name not in south.owned:  # until it is its turn
        await group.say(name, b"login", "login")
        logins += 1
        heard = logins + len(NAMES)
        await until(lambda: len(north.house.heard) + len(south.house.heard) == heard)  # noqa: B023
    await until(lambda: name not in north.owned)
    await group.say(name, b"report")
    await until(lambda: (name, b"report") in south.house.heard)
    assert (name, b"report") not in north.house.heard


async def test_a_broker_that_lets_us_end_no_sessions_keeps_nobody_from_taking_over(
    group: Group, monkeypatch: pytest.MonkeyPatch
) -> None:
    north = group.gateway("north")
    await north.connected()
    await group.log_in(north)
    south = group.gateway("south")
    await south.connected()

    async def refused(identifier: str) -> None:
        raise BrokerLost("Not authorized")

    monkeypatch.setattr(south.terminals, "forget", refused)
    await north.dies()
    await until(lambda: south.owned == set(NAMES))


async def test_a_busy_database_or_a_mistake_of_ours_costs_nobody_a_terminal(
    group: Group, monkeypatch: pytest.MonkeyPatch
) -> None:
    north = group.gateway("north")
    await north.connected()
    await group.log_in(north)
    south = group.gateway("south")
    await south.connected()
    busy = [StorageError("busy"), StorageError("busy")]
    look = owners.identifiers

    async def may_fail(database: Database, broker: str) -> set[str]:
        if busy:
            raise busy.pop()
        return await look(database, broker)

    mistakes = [ValueError("a mistake")]
    leave = south.member._leave_moved

    async def mistaken(since: datetime) -> None:
        if mistakes:
            raise mistakes.pop()
        await leave(since)

    monkeypatch.setattr(owners, "identifiers", may_fail)
    await until(lambda: not busy)
    monkeypatch.setattr(south.member, "_leave_moved", mistaken)
    await until(lambda: not mistakes)
    await asyncio.sleep(2 * LASTS)  # whoever lost its lease for good would be relieved by then
    assert north.owned == set(NAMES)
    assert not north.running.done()
    assert not south.running.done()


async def test_an_identifier_that_another_process_has_is_waited_for(group: Group, database: Database) -> None:
    async with leases(database, 30) as other:
        north = group.gateway("north")
        await north.connected()
        place = north.terminals.place
        assert not await other.take(f"mqtt north@{place}")
        assert await other.take(f"mqtt south@{place}")
        south = group.gateway("south")
        await asyncio.sleep(LASTS)
        assert not south.terminals.connected
        await other.give(f"mqtt south@{place}")
        await south.connected()


def test_an_identifier_that_is_no_name_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="identifier"):
        MqttSettings(Broker("127.0.0.1", identifier="a@b/c"), group="pair")
