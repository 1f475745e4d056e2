"""Routes of collections: ask now for what a business day still owes, and watch."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import date
from http import HTTPStatus
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, ConfigDict, Field

from gateway.api.auth import Caller, Controller, Reader, needs_all, own_terminals
from gateway.api.parts import Parts, Wanted
from gateway.api.problems import Problem

LONGEST_WAIT_SECONDS: Final = 30.0
"""One request for progress waits no longer than proxies commonly allow."""

MOST_TERMINALS: Final = 1000
"""that one request may name"""

PREFIX: Final = "/api/v1/collections"

reading = APIRouter(prefix=PREFIX, tags=["collections"])
"""changes nothing"""
acting = APIRouter(prefix=PREFIX, tags=["collections"])
"""asks terminals"""


class CollectionRequest(BaseModel):
    model_config = ConfigDict(extra="forbid")
    terminals: list[str] = Field(default=[], max_length=MOST_TERMINALS)
    """only these; none named: all"""


@acting.post("/{day}", status_code=HTTPStatus.ACCEPTED)
async def start_collection(
    day: date,
    response: Response,
    parts: Wanted,
    caller: Controller,
    wanted: CollectionRequest | None = None,
) -> dict[str, Any]:
    """Ask now for all that is missing for that business day; joins a run under way that does the same.

    A token of one organisation names its terminals."""
    named = wanted.terminals if wanted is not None else []
    await _own(parts, caller, named)
    run = parts.collections.start(day, named)
    query = "&".join(f"terminal={terminal}" for terminal in run.terminals)
    response.headers["Location"] = f"{PREFIX}/{day}{'?' if query else ''}{query}"
    return run.answer()


@reading.get("/{day}")
async def collection(
    day: date,
    parts: Wanted,
    caller: Reader,
    terminal: Annotated[Sequence[str], Query(max_length=MOST_TERMINALS)] = (),
    wait: Annotated[float, Query(ge=0, le=LONGEST_WAIT_SECONDS)] = 0,
) -> dict[str, Any]:
    """How far it is, or what it came to; with `wait` seconds, as soon as it has ended and at latest then."""
    await _own(parts, caller, terminal)
    run = parts.collections.run(day, terminal)
    if run is None:
        raise Problem(
            HTTPStatus.NOT_FOUND,
            "no-collection",
            f"{day} was not collected on demand since the start 尚未召测; POST starts it",
        )
    await asyncio.wait([run.task], timeout=wait)
    return run.answer()


async def _own(parts: Parts, caller: Caller, named: Sequence[str]) -> None:
    if named:
        await own_terminals(parts, caller, named)
    else:
        needs_all(caller, "a collection at all terminals")
