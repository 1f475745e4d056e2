"""A gateway of a group behind an MQTT broker: it hears its own terminals, and those of one that is gone.

The right to an identifier at the broker is a lease. Who holds it is alive; where nobody does, whoever finds
that out first makes the terminals its own, by their rows, and has the broker forget the other one's session:
there logins would wait for nobody.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Final

import structlog

from gateway.clock import Clock
from gateway.errors import ConfigurationError, StorageError
from gateway.session.registry import WORKER
from gateway.storage import leases, owners
from gateway.storage.database import Database
from gateway.storage.leases import Leases
from gateway.transports.mqtt import MqttTerminals
from gateway.transports.mqtt_broker import BrokerLost

log = structlog.get_logger()

LOOKS: Final = 3
"""A lease is renewed so often while it lasts, and those of the others are looked at as often."""

EVER: Final = datetime(1970, 1, 1, tzinfo=UTC)

LOOK_BACK_S: Final = 60.0
"""Logins elsewhere are looked for so far back, and over the time that a lease lasts: gateways' clocks and
commits differ."""


class GroupMember:
    """Built once for each broker of a group; `run` it. Until it holds its lease, nobody is heard."""

    def __init__(self, terminals: MqttTerminals, database: Database, clock: Clock, lasts: float) -> None:
        """lasts: real seconds after which a gateway that says nothing counts as gone."""
        self._terminals = terminals
        self._database = database
        self._clock = clock
        self._lasts = lasts
        self._here = owners.Place(terminals.identifier, terminals.place)
        self._begun = False
        terminals.hold_back()

    async def run(self) -> None:
        """Until cancelled. A database that is away is waited for: nobody can take over then, so the
        connection to the broker stays, but no new one is made."""
        while True:
            try:
                async with leases.leases(self._database, self._lasts) as held:
                    await self._take_own(held)
                    await self._keep(held)
            except* StorageError as lost:
                why = str(lost.exceptions[0])
                log.warning("MQTT lease lost; taken again", identifier=self._here.identifier, why=why)
            except* Exception:
                # Our own mistake: it must not leave us hearing terminals that others take over.
                log.exception("MQTT lease given up; taken again", identifier=self._here.identifier)
            self._terminals.hold_back()
            await asyncio.sleep(self._lasts / LOOKS)

    async def _take_own(self, held: Leases) -> None:
        """Take the lease of our identifier, and what we had before we were started anew."""
        told = False
        while not await held.take(self._lease(self._here.identifier)):
            if not told:
                log.error("another process has this MQTT identifier", identifier=self._here.identifier)
                told = True
            await asyncio.sleep(self._lasts / LOOKS)
        if not self._begun:
            await self._own(await self._take_over(self._here.identifier))
            self._begun = True
        await self._leave_moved(EVER)
        self._terminals.go_on()

    async def _keep(self, held: Leases) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._renew(held))
            tasks.create_task(self._watch(held))

    async def _renew(self, held: Leases) -> None:
        while True:
            await asyncio.sleep(self._lasts / LOOKS)
            await held.renew()

    async def _watch(self, held: Leases) -> None:
        await asyncio.sleep(self._lasts)  # after the database was away, all come back one after the other
        while True:
            try:
                await self._look(held)
            except (
                StorageError
            ) as error:  # it may only be busy; whether the lease is lost is found out beside
                log.info("MQTT gateways of the group are not looked at now", why=str(error))
            await asyncio.sleep(self._lasts / LOOKS)

    async def _look(self, held: Leases) -> None:
        back = timedelta(seconds=(LOOK_BACK_S + self._lasts) * self._clock.speed)
        await self._leave_moved(self._clock.now() - back)
        for one in await owners.identifiers(self._database, self._here.broker):
            if one != self._here.identifier:
                await self._look_at(held, one)

    async def _leave_moved(self, since: datetime) -> None:
        """Do not hear any more who has logged in elsewhere, or was taken over."""
        for name in await owners.moved(self._database, self._here, since):
            if self._terminals.owns(name):
                log.info("terminal is another gateway's now", name=name)
                await self._terminals.disown(name)

    async def _look_at(self, held: Leases, other: str) -> None:
        """Take over from this one if it is gone."""
        if not await held.take(self._lease(other)):
            return
        try:
            if await self._forgotten(other):
                names = await self._take_over(other)
                await self._own(names)
                log.warning("MQTT terminals of a gateway that is gone are ours", gone=other, count=len(names))
        finally:
            await held.give(self._lease(other))

    async def _forgotten(self, other: str) -> bool:
        """Have the broker forget it; False where the broker is away, and it is better tried again."""
        try:
            await self._terminals.forget(other)
        except BrokerLost as error:
            log.warning(
                "the MQTT broker keeps the session of a gateway that is gone: logins may wait there",
                gone=other, why=str(error),
            )  # fmt: skip
            return self._terminals.connected
        return True

    async def _take_over(self, identifier: str) -> list[str]:
        return await owners.take_over(self._database, identifier, self._here, WORKER, self._clock.now())

    async def _own(self, names: list[str]) -> None:
        try:
            await self._terminals.own(*names)
        except ConfigurationError as error:
            log.error("MQTT subscription refused", why=str(error))

    def _lease(self, identifier: str) -> str:
        return f"mqtt {identifier}@{self._here.broker}"
