"""Route of events as they come (server-sent events): from any point on, without a hole, or told where one
is."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from http import HTTPStatus
from typing import Annotated, Any, Final

from fastapi import APIRouter, Header, Query, Request
from sse_starlette import EventSourceResponse, ServerSentEvent

from gateway.api.auth import Authority, Caller, Reader, caller_of
from gateway.api.cloudevents import as_cloud_event
from gateway.api.fanout import MOST_WATCHERS, TooMany, Watcher
from gateway.api.parts import Parts, Wanted
from gateway.api.problems import Problem
from gateway.errors import StorageError
from gateway.storage import outbox
from gateway.storage.clients import Scope
from gateway.storage.outbox import Told

PREFIX: Final = "/api/v1/events"

PAGE_EVENTS: Final = 200
SECOND_LOOK_SECONDS: Final = 15.0
"""How often it is looked whether the token of an open stream still holds, and a sign of life sent."""

SEND_SECONDS: Final = 20.0
"""A client that takes nothing for so long is dropped."""

NO_PING: Final = 10**6
"""The library's own sign of life is not needed."""

reading = APIRouter(prefix=PREFIX, tags=["outgoing events"])
"""changes nothing"""


@reading.get(
    "",
    response_class=EventSourceResponse,
    responses={200: {"description": "Server-sent events", "content": {"text/event-stream": {}}}},
)
async def watch_events(
    parts: Wanted,
    caller: Reader,
    request: Request,
    last: Annotated[str | None, Header(alias="Last-Event-ID", max_length=20)] = None,
    after: Annotated[int | None, Query(ge=0, le=2**63 - 1)] = None,
) -> EventSourceResponse:
    """Every event as it comes: `id` is its place, `data` a CloudEvent. `Last-Event-ID` (or `after`) goes on
    behind a place; without one it begins now. `event: dropped` says that the stream was too slow and
    `count` events are missing behind `after`: connect again with that."""
    start = _start(last, after)
    if parts.fanout.watchers >= MOST_WATCHERS:
        raise Problem(
            HTTPStatus.SERVICE_UNAVAILABLE,
            "too-many-streams",
            f"{MOST_WATCHERS} streams are open already 订阅过多",
        )
    token = request.headers.get("authorization", "").partition(" ")[2].strip()

    async def events() -> AsyncIterator[ServerSentEvent]:
        with contextlib.suppress(TooMany), parts.fanout.watch(caller.organisations) as watcher:
            async for event in _events(parts, caller, watcher, start, token, request):
                yield event

    return EventSourceResponse(events(), ping=NO_PING, send_timeout=SEND_SECONDS, sep="\n")


def _start(last: str | None, after: int | None) -> int | None:
    if last is None:
        return after
    if not last.isascii() or not last.isdecimal() or int(last) >= 2**63:
        raise Problem(
            HTTPStatus.UNPROCESSABLE_ENTITY, "bad-cursor", "Last-Event-ID was not given out here 游标无效"
        )
    return int(last)


async def _events(
    parts: Parts, caller: Caller, watcher: Watcher, start: int | None, token: str, request: Request
) -> AsyncIterator[ServerSentEvent]:
    """What stands in the outbox behind `start`, then what comes; ends with the token or the gateway."""
    await parts.fanout.begun()
    place = start
    if start is not None:
        while True:
            try:
                found, until = await outbox.after(
                    parts.database, start, rows=PAGE_EVENTS, organisations=caller.organisations
                )
            except StorageError:
                return
            for told in found:
                yield _sent(told)
            start = place = until
            if len(found) < PAGE_EVENTS:
                break
    yield ServerSentEvent(comment="watching")
    clock = asyncio.get_running_loop().time
    look_at = clock() + SECOND_LOOK_SECONDS
    while not watcher.ended:
        try:
            async with asyncio.timeout_at(min(look_at, clock() + 1.0)):
                told = await watcher.queue.get()
        except TimeoutError:
            if watcher.queue.empty() and (lost := watcher.taken_loss()):
                yield ServerSentEvent(event="dropped", data=json.dumps({"count": lost, "after": place}))
            if clock() >= look_at:
                look_at = clock() + SECOND_LOOK_SECONDS
                if not await _still(parts, caller, token, request):
                    return
                yield ServerSentEvent(comment="here")
            continue
        if place is None or told.place > place:
            place = told.place
            yield _sent(told)


async def _still(parts: Parts, caller: Caller, token: str, request: Request) -> bool:
    """Does the caller's token still say what it said?"""
    if request.app.state.authority is Authority.SOCKET:
        return True
    try:
        return await caller_of(parts, token, [Scope.READ]) == caller
    except (Problem, StorageError):
        return False


def _sent(told: Told) -> ServerSentEvent:
    shown: dict[str, Any] = as_cloud_event(told)
    return ServerSentEvent(id=str(told.place), event=told.type, data=json.dumps(shown, ensure_ascii=False))
