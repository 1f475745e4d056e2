"""Being told to end, where a library would not hear it.

In Python 3.11 `asyncio.wait_for` drops a cancellation that comes in the turn in which what it waits for is
done, and libraries use it: who was told to end goes on, and for ever where he works in a loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

T = TypeVar("T")


def times_told() -> int:
    """How often the present task has been told to end; 0 outside of a task."""
    task = asyncio.current_task()
    return 0 if task is None else task.cancelling()


async def cancellable(call: Awaitable[T]) -> T:
    """What `call` gives. CancelledError, and that is dropped, where the task was told to end meanwhile."""
    before = times_told()
    result = await call
    if times_told() > before:
        raise asyncio.CancelledError
    return result
