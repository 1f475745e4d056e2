"""Being told to end, where a library would not hear it.

In Python 3.11 `asyncio.wait_for` drops a cancellation that comes in the turn in which what it waits for is
done, and libraries use it: who was told to end goes on, and for ever where he works in a loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")


async def nothing_to_undo(result: object) -> None:
    """It may be dropped."""


async def cancellable(call: Awaitable[T], undo: Callable[[T], Awaitable[None]] = nothing_to_undo) -> T:
    """What `call` gives or raises; CancelledError where the task was told to end meanwhile, whatever came of
    the call. undo: what is done with its result then."""
    before = _times_told()
    try:
        result = await call
    except Exception:
        if _times_told() > before:
            raise asyncio.CancelledError from None
        raise
    if _times_told() > before:
        await undo(result)
        raise asyncio.CancelledError
    return result


def _times_told() -> int:
    """How often the present task has been told to end."""
    task = asyncio.current_task()
    return 0 if task is None else task.cancelling()
