"""Whose turn it is when thousands ask at once: what gives power back does not wait behind what takes it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from http import HTTPStatus
from typing import Annotated, Final

from fastapi import Depends, Request

from gateway.api.parts import Wanted
from gateway.api.problems import Problem
from gateway.control.ask import GIVES_POWER

MOST_WAITING: Final = 2000
"""More are turned away: they would wait for a minute and longer."""


async def _turn(request: Request, parts: Wanted) -> AsyncIterator[None]:
    """Wait for one unless only closes are asked for. Problem 503 where too many wait.

    Stands before all other dependencies of its route: so the token, too, is looked at when it is time."""
    if _gives_power_back(await _asked(request)):
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


async def _way(request: Request, parts: Wanted) -> AsyncIterator[None]:
    """A close goes first from now on, a trip waits until none is on its way.

    Stands after the look at the token: nothing gives way to a stranger."""
    way = parts.control().way
    if _gives_power_back(await _asked(request)):
        with way.closing():
            yield
    else:
        await way.give()
        with way.asking():
            yield


async def _asked(request: Request) -> object:
    """The body as JSON; None where it is none, which the route will say."""
    try:
        asked: object = await request.json()
    except ValueError:
        return None
    return asked


def _gives_power_back(body: object) -> bool:
    """Is it a command, or a batch of such, that all give power back? Nobody has looked at it yet."""
    commands = body.get("commands", [body]) if isinstance(body, dict) else None
    return isinstance(commands, list) and bool(commands) and all(map(_is_close, commands))


def _is_close(command: object) -> bool:
    action = command.get("action") if isinstance(command, dict) else None
    return isinstance(action, str) and action in GIVES_POWER


Turn = Annotated[None, Depends(_turn)]
Way = Annotated[None, Depends(_way)]
