"""Routes of what became of one command: its course in words, and evidence as a file that proves itself."""

from __future__ import annotations

from datetime import datetime
from http import HTTPStatus
from typing import Annotated, Final
from uuid import UUID

from fastapi import APIRouter, Query, Response
from pydantic import BaseModel

from gateway.api.auth import Caller, Reader
from gateway.api.parts import Parts, Wanted
from gateway.api.problems import Problem
from gateway.command import Action, State, Why
from gateway.control import evidence, timeline
from gateway.storage import relay_evidence, relay_list

MEDIA_TYPE: Final = "application/json"

reading = APIRouter(prefix="/api/v1", tags=["relay commands"])
"""changes nothing"""


class EventShown(BaseModel):
    """One event. `kind` is `step` where the state is a new one. `words` for a person."""

    event: int
    at: datetime
    kind: str
    state: State
    why: Why | None
    words: str
    words_zh: str


class Timeline(BaseModel):
    """A command's course, oldest first. `state` is that of the newest event here, or as it stands."""

    id: UUID
    action: Action
    state: State
    events: list[EventShown]


@reading.get("/relay-commands/{command_id}/timeline")
async def get_timeline(
    command_id: UUID, parts: Wanted, caller: Reader, after: Annotated[int, Query(ge=0, le=2**31 - 1)] = 0
) -> Timeline:
    """What happened to a command, in order; `after`: only what followed that event."""
    row = await _visible(parts, caller, command_id)
    bodies = await relay_evidence.happened(parts.database, command_id, after)
    told = [timeline.entry(body) for body in bodies]
    return Timeline(
        id=command_id,
        action=row["action"],
        state=State(told[-1].state if told else row["state"]),
        events=[EventShown.model_validate(one._asdict()) for one in told],
    )


@reading.get(
    "/relay-commands/{command_id}/evidence",
    response_class=Response,
    responses={
        200: {
            "description": "A file for `lingdian relay verify` 证据文件",
            "content": {MEDIA_TYPE: {"schema": {"type": "object"}}},
        }
    },
)
async def get_evidence(command_id: UUID, parts: Wanted, caller: Reader) -> Response:
    """The evidence of a command: events in their chain, frames without their secrets, relay reads, who asked
    and approved, and the seals over them. The bytes are the evidence: keep them as they come."""
    await _visible(parts, caller, command_id)
    kept = await relay_evidence.kept(parts.database, command_id)
    if kept is None:
        raise _unknown(command_id)
    headers = {"content-disposition": f'attachment; filename="relay-{command_id}.json"'}
    return Response(evidence.bundle(kept, parts.clock.now()), media_type=MEDIA_TYPE, headers=headers)


async def _visible(parts: Parts, caller: Caller, command_id: UUID) -> relay_list.Row:
    found = await relay_list.commands(parts.database, caller.organisations, command_id=command_id)
    if not found:
        raise _unknown(command_id)
    return found[0]


def _unknown(command_id: UUID) -> Problem:
    return Problem(HTTPStatus.NOT_FOUND, "command-unknown", f"there is no command {command_id} 无此命令")
