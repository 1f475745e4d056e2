"""What the HTTP interface may reach, handed to it once by the service."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, Annotated, Final, Protocol
from uuid import UUID

from fastapi import Depends, Request
from pydantic import AfterValidator, AwareDatetime

from gateway.api.fanout import Fanout
from gateway.api.problems import Problem
from gateway.api.remembered import Remembered
from gateway.api.runs import Collections
from gateway.clock import Clock
from gateway.command import Command
from gateway.control.ask import Ask
from gateway.control.batches import Batches
from gateway.control.protections import Protections
from gateway.control.requests import Requests
from gateway.control.right_of_way import RightOfWay
from gateway.control.switches import Switches
from gateway.control.tickets import Tickets
from gateway.errors import StorageError
from gateway.metrics import Metrics
from gateway.session.registry import Registry
from gateway.storage import evidence
from gateway.storage.database import Database
from gateway.storage.readings import ReadingWriter

if TYPE_CHECKING:
    from gateway.api.auth import Caller

REQUESTER: Final = "x-requester"
"""Header that names the person on whose behalf a program asks at the unix socket, whose rights decide."""

LONGEST_REQUESTER: Final = 100


FIRST_YEAR: Final = 2000
LAST_YEAR: Final = 2100


def _plausible(at: datetime) -> datetime:
    if not FIRST_YEAR <= at.year <= LAST_YEAR:
        raise ValueError(f"a year from {FIRST_YEAR} to {LAST_YEAR} is wanted")
    return at


Instant = Annotated[AwareDatetime, AfterValidator(_plausible)]
"""An instant with its offset, of a time that can be meant."""


class KeptClose(Protocol):
    """A close that the journal has, as it can be shown."""

    @property
    def command(self) -> Command: ...
    @property
    def meter(self) -> str: ...
    @property
    def address(self) -> str: ...
    @property
    def terminal(self) -> str: ...


class Journal(Protocol):
    """Where closes go while the database is away."""

    async def accept(
        self, ask: Ask, by: str, key: str, *, because: StorageError, sees_all: bool, trace: str = ""
    ) -> KeptClose:
        """Durable when this returns; `because` is raised for whatever has to wait for the database."""
        ...

    def find(self, command_id: UUID) -> KeptClose | None: ...


@dataclass(frozen=True, slots=True)
class RelayControl:
    """The relay commands of the running gateway."""

    requests: Requests
    batches: Batches
    blocks: Protections
    switches: Switches
    journal: Journal | None = None
    """None: closes wait for the database like all else"""
    way: RightOfWay = field(default_factory=RightOfWay)
    tickets: Tickets | None = None
    """None: nothing is allowed on direct lines"""


TRIPS_AT_A_TIME: Final = 2
"""Requests for trips that are worked on together, from the look at the token to the answer. Each takes a
connection of the database and its share of a core, and a close that comes has to let them finish. Two are
enough that one works while the other waits for the database: four accept no more in a second."""


class Turns:
    """Of requests that would take power away; see `turns`."""

    def __init__(self) -> None:
        self.free = asyncio.Semaphore(TRIPS_AT_A_TIME)
        self.waiting = 0


@dataclass(frozen=True, slots=True)
class Parts:
    """The running gateway, as the routes see it."""

    clock: Clock
    metrics: Metrics
    database: Database
    writer: ReadingWriter
    registry: Registry
    collections: Collections
    not_ready: Callable[[], str | None]
    """why the gateway is not ready, or None"""
    relay: RelayControl | None = None
    """None: this gateway switches no relay"""
    fanout: Fanout = field(default_factory=Fanout)
    remembered: Remembered = field(default_factory=Remembered)
    turns: Turns = field(default_factory=Turns)
    webhooks_to_ourselves: bool = False
    """webhooks may name this machine, and plain http: for the bench"""

    def promptly(self) -> Parts:
        """The same, where a database that says nothing is StorageError soon."""
        return replace(self, database=self.database.within())

    def control(self) -> RelayControl:
        """Problem 503 where there is none."""
        if self.relay is None:
            raise Problem(
                HTTPStatus.SERVICE_UNAVAILABLE,
                "no-relay-control",
                "this gateway switches no relays 本网关未启用费控; see [control] in its settings",
            )
        return self.relay


def _parts(request: Request) -> Parts:
    parts = request.app.state.parts
    assert isinstance(parts, Parts)
    return parts


async def note(parts: Parts, caller: Caller, what: str, **detail: object) -> None:
    """Write down, before it is done, that somebody has this done. StorageError where that cannot be."""
    async with parts.database.connection() as connection:
        await evidence.note_audit(connection, parts.clock.now(), caller.name, what, detail)


Wanted = Annotated[Parts, Depends(_parts)]
