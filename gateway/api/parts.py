"""What the HTTP interface may reach, handed to it once by the service."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Final

from fastapi import Depends, Request

from gateway.api.runs import Collections
from gateway.clock import Clock
from gateway.metrics import Metrics
from gateway.session.registry import Registry
from gateway.storage import evidence
from gateway.storage.database import Database
from gateway.storage.readings import ReadingWriter

REQUESTER: Final = "x-requester"
"""Header that names the person on whose behalf a program asks; a label: the socket's rights decide."""

LONGEST_REQUESTER: Final = 100


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


def _parts(request: Request) -> Parts:
    parts = request.app.state.parts
    assert isinstance(parts, Parts)
    return parts


async def note(parts: Parts, request: Request, what: str, **detail: object) -> None:
    """Write down, before it is done, that somebody has this done. StorageError where that cannot be."""
    who = request.headers.get(REQUESTER, "")[:LONGEST_REQUESTER]
    async with parts.database.connection() as connection:
        await evidence.note_audit(connection, parts.clock.now(), who, what, detail)


Wanted = Annotated[Parts, Depends(_parts)]
