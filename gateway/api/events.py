"""Routes of terminals' events: list them, and take them off the worklist."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from http import HTTPStatus
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field

from gateway.api.auth import Controller, Reader, own_terminals
from gateway.api.parts import REQUESTER, Instant, Wanted
from gateway.api.problems import Problem
from gateway.storage import events, relay_list

PREFIX: Final = "/api/v1/terminal-events"

MOST_TERMINALS: Final = 1000
"""that one request may name"""

MOST_ACKNOWLEDGED: Final = 10_000
"""events in one request"""

LONGEST_NOTE: Final = 1000

reading = APIRouter(prefix=PREFIX, tags=["events"])
"""changes nothing"""
acting = APIRouter(prefix=PREFIX, tags=["events"])
"""changes the worklist"""


class Acknowledgement(BaseModel):
    model_config = ConfigDict(extra="forbid")
    ids: list[Annotated[int, Field(ge=1, le=2**63 - 1)]] = Field(min_length=1, max_length=MOST_ACKNOWLEDGED)
    note: str = Field(default="", max_length=LONGEST_NOTE)
    """what was found or done"""


@reading.get("")
async def list_events(
    parts: Wanted,
    caller: Reader,
    terminal: Annotated[Sequence[str], Query(max_length=MOST_TERMINALS)] = (),
    since: Instant | None = None,
    worklist: bool = False,
    after: Annotated[int, Query(ge=0, le=2**63 - 1)] = 0,
    limit: Annotated[int, Query(ge=1, le=events.PAGE_EVENTS)] = 100,
) -> dict[str, Any]:
    """Events in the order they came, a page at a time: `next` is the `after` of the following page, null
    where this one is the last. `since`: received then or later; `worklist`: those that wait for a person."""
    named: frozenset[str] | None = await own_terminals(parts, caller, terminal)
    if not named:
        named = None
        if not caller.sees_all():
            named = await relay_list.terminals(parts.database, caller.organisations)
    found = await events.page(
        parts.database,
        terminals=named,
        since=since,
        worklist=worklist,
        after=after,
        rows=limit,
    )
    return {
        "events": [one.plain() for one in found],
        "next": found[-1].event_id if len(found) == limit else None,
    }


@acting.post("/acknowledge")
async def acknowledge(wanted: Acknowledgement, parts: Wanted, caller: Controller) -> dict[str, Any]:
    """Take events off the worklist, in the caller's name (at the unix socket: header `x-requester`); what
    somebody has acknowledged before stays theirs."""
    if not caller.name:
        raise Problem(
            HTTPStatus.UNPROCESSABLE_ENTITY,
            "name-needed",
            f"an acknowledgement needs a name 需要姓名: send it in {REQUESTER}",
        )
    if not caller.sees_all():
        seen = await relay_list.terminal_events(parts.database, caller.organisations, wanted.ids)
        if unseen := sorted(set(wanted.ids) - seen):
            raise Problem(
                HTTPStatus.NOT_FOUND,
                "event-unknown",
                f"no event {', '.join(map(str, unseen[:10]))} 无此事件",
            )
    at: datetime = parts.clock.now()
    done = await events.acknowledge(parts.database, wanted.ids, who=caller.name, note=wanted.note, at=at)
    return {"acknowledged": done, "by": caller.name}
