"""Whose turn it is when thousands ask at once: what gives power back does not wait behind what takes it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from http import HTTPStatus
from typing import Annotated, Final

from fastapi import Depends, Request

from gateway.api.parts import Wanted
from gateway.api.problems import Problem
from gateway.command import RESTORING
from gateway.control.ask import RESTORE

MOST_WAITING: Final = 2000
"""More are turned away: they would wait for a minute and longer."""

_AT_ONCE: Final = frozenset({RESTORE, *(action.value for action in RESTORING)})


async def _turn(request: Request, parts: Wanted) -> AsyncIterator[None]:
    """Wait for one unless only closes are asked for. Problem 503 where too many wait.

    Stands before all other dependencies of its route: so the token, too, is looked at when it is time."""
    try:
        asked: object = await request.json()
    except ValueError:  # the route will say so
        asked = None
    if _gives_power_back(asked):
        yield
        return
    turns = parts.turns
    if turns.waiting >= MOST_WAITING:
        raise Problem(
            HTTPStatus.SERVICE_UNAVAILABLE,
            "too-many-trips",
            f"{MOST_WAITING} requests for trips wait already 停电请求过多: send this one again, with its key",
        )
    turns.waiting += 1
    try:
        await turns.free.acquire()
    finally:
        turns.waiting -= 1
    try:
        yield
    finally:
        turns.free.release()


def _gives_power_back(body: object) -> bool:
    """Is it a command, or a batch of such, that all give power back? Nobody has looked at it yet."""
    commands = body.get("commands", [body]) if isinstance(body, dict) else None
    return isinstance(commands, list) and bool(commands) and all(map(_is_close, commands))


def _is_close(command: object) -> bool:
    action = command.get("action") if isinstance(command, dict) else None
    return isinstance(action, str) and action in _AT_ONCE


Turn = Annotated[None, Depends(_turn)]
