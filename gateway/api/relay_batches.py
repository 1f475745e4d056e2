"""Routes of batches: many relay commands asked for at once, held whole where they are too many."""

from __future__ import annotations

from http import HTTPStatus
from typing import Final
from uuid import UUID

from fastapi import APIRouter, Response
from pydantic import BaseModel, ConfigDict, Field

from gateway.api.auth import Approver, Caller, Controller, Reader
from gateway.api.parts import Parts, Wanted
from gateway.api.problems import Problem
from gateway.api.relay_commands import (
    CommandRequest,
    IdempotencyKey,
    Reason,
    Traceparent,
    asks_of,
    key_of,
    trace_of,
    words_of,
)
from gateway.api.turns import Turn, Way
from gateway.command import Action, State, Why
from gateway.control.batches import LONGEST, BatchAnswer, Line
from gateway.storage import relay_list

PREFIX: Final = "/api/v1/relay-batches"

reading = APIRouter(prefix=PREFIX, tags=["relay commands"])
"""changes nothing"""
acting = APIRouter(prefix=PREFIX, tags=["relay commands"])
"""asks for something, or decides"""


class BatchRequest(BaseModel):
    model_config = ConfigDict(extra="forbid")
    commands: list[CommandRequest] = Field(min_length=1, max_length=LONGEST)
    dry_run: bool = False
    """only say what would happen: who would go dark, what would be refused and why"""


class LineShown(BaseModel):
    """One meter of a batch. `command` null: none was made."""

    meter: str
    action: str
    resolved: Action | None
    state: State | None
    why: Why | None
    why_text: str | None
    detail: str
    customer: str
    dark: bool
    shadow: bool
    command: UUID | None


class BatchShown(BaseModel):
    """A batch: the limits that it goes over (then it is held whole), who would go dark, one result a meter.

    `results` of a dry run say what would become of each; `states` counts where the commands stand now.
    """

    id: UUID | None
    held: bool
    over: list[str]
    dark: list[LineShown]
    refused: list[LineShown]
    results: list[LineShown]
    states: dict[str, int]


@acting.post(
    "",
    status_code=HTTPStatus.ACCEPTED,
    responses={200: {"model": BatchShown, "description": "Dry run: nothing was written"}},
)
async def ask_for_batch(
    turn: Turn,
    wanted: BatchRequest,
    parts: Wanted,
    caller: Controller,
    way: Way,
    response: Response,
    key: IdempotencyKey = None,
    traceparent: Traceparent = None,
) -> BatchShown:
    """Ask for many commands at once: one result a meter. Over a limit the whole batch is held for approval.

    With `dry_run` nothing is written (200), and no key is needed.
    """
    if not wanted.dry_run:
        key = key_of(key)
    asks = await asks_of(parts, caller, wanted.commands)
    batches = parts.control().batches
    if wanted.dry_run or key is None:
        response.status_code = HTTPStatus.OK
        return _shown(await batches.dry_run(asks, caller.subject), {})
    answer = await batches.accept(asks, caller.subject, key, trace=trace_of(traceparent))
    assert answer.batch is not None
    response.headers["Location"] = f"{PREFIX}/{answer.batch}"
    return await _batch_now(parts, caller, answer.batch, answer)


@reading.get("/{batch_id}")
async def get_batch(batch_id: UUID, parts: Wanted, caller: Reader) -> BatchShown:
    """A batch with its dry run, the answer that was given, and where its commands stand now."""
    return await _batch_now(parts, caller, batch_id)


@acting.post("/{batch_id}/approve")
async def approve_batch(batch_id: UUID, parts: Wanted, caller: Approver) -> BatchShown:
    """Let a held batch go whole, as the second person."""
    await _batch_now(parts, caller, batch_id)
    await parts.control().batches.approve(batch_id, caller.subject)
    return await _batch_now(parts, caller, batch_id)


@acting.post("/{batch_id}/cancel")
async def cancel_batch(
    batch_id: UUID, parts: Wanted, caller: Controller, given: Reason | None = None
) -> BatchShown:
    """Take back whatever of a batch has not left yet."""
    await _batch_now(parts, caller, batch_id)
    reason = given.reason if given is not None else ""
    await parts.control().batches.cancel(batch_id, caller.subject, reason)
    return await _batch_now(parts, caller, batch_id)


async def _batch_now(
    parts: Parts, caller: Caller, batch_id: UUID, answer: BatchAnswer | None = None
) -> BatchShown:
    found = await relay_list.batch(parts.database, caller.organisations, batch_id, caller.subject)
    if found is None:
        raise Problem(HTTPStatus.NOT_FOUND, "batch-unknown", f"there is no batch {batch_id} 无此批次")
    if answer is None:
        answer = await parts.control().batches.answer(batch_id)
    return _shown(answer, dict(found.states))


def _shown(answer: BatchAnswer, states: dict[str, int]) -> BatchShown:
    return BatchShown(
        id=answer.batch,
        held=answer.held,
        over=list(answer.over),
        dark=[_line(line) for line in answer.dark],
        refused=[_line(line) for line in answer.refused],
        results=[_line(line) for line in answer.lines or answer.dry_run],
        states=states,
    )


def _line(line: Line) -> LineShown:
    return LineShown(
        meter=line.meter,
        action=line.verb,
        resolved=line.action,
        state=line.state,
        why=line.why,
        why_text=words_of(line.why),
        detail=line.detail,
        customer=line.customer,
        dark=line.dark,
        shadow=line.shadow,
        command=line.command,
    )
