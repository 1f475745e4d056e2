"""Whose turn it is when thousands ask at once: what gives power back does not wait behind what takes it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from http import HTTPStatus
from typing import Annotated, Final

from fastapi import Depends, Request

from gateway.api.parts import Wanted
from gateway.api.problems import Problem
from gateway.control.ask import GIVES_POWER
from gateway.control.right_of_way import RightOfWay

MOST_WAITING: Final = 2000
"""More are turned away: they would wait for a minute and longer."""


async def _turn(request: Request, parts: Wanted) -> AsyncIterator[None]:
    """Wait for one, and until no close is on its way, unless only closes are asked for. Problem 503 where too
    many wait.

    Stands before all other dependencies of its route: so the token, too, is looked at when it is time."""
    try:
        asked: object = await request.json()
    except ValueError:  # the route will say so
        asked = None
    way = RightOfWay() if parts.relay is None else parts.relay.way
    if _gives_power_back(asked):
        with way.closing():
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
        await way.give()
        with way.asking():
            yield
    finally:
        turns.free.release()


def _gives_power_back(body: object) -> bool:
    """Is it a command, or a batch of such, that all give power back? Nobody has looked at it yet."""
    commands = body.get("commands", [body]) if isinstance(body, dict) else None
    return isinstance(commands, list) and bool(commands) and all(map(_is_close, commands))


def _is_close(command: object) -> bool:
    action = command.get("action") if isinstance(command, dict) else None
    return isinstance(action, str) and action in GIVES_POWER


Turn = Annotated[None, Depends(_turn)]
