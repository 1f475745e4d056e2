"""A process of the operating system, as far as a simulation needs one: all its tasks stop together, when it
is paused while the clock goes on, and end together, when it is killed.

A task belongs to the process in whose task it was made. What is outside, the network for instance, is made
with `outside`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Coroutine, Generator
from contextvars import Context, ContextVar, copy_context
from typing import Any, TypeVar

T = TypeVar("T")

_OWN: ContextVar[Process | None] = ContextVar("process", default=None)


class Gone(Exception):
    """The process is not there (any more): whoever asked it for something does not know what came of it."""


class Process:
    """Runs from its making until it is killed."""

    def __init__(self) -> None:
        self.alive = True
        self._tasks: dict[asyncio.Task[Any], None] = {}
        self._paused = 0
        self._goes_on = asyncio.Event()

    @property
    def paused(self) -> bool:
        return self._paused > 0

    def spawn(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """A task of this process."""
        context = copy_context()
        context.run(_OWN.set, self)
        return asyncio.get_running_loop().create_task(work, context=context)

    async def call(self, work: Coroutine[Any, Any, T], patience: float) -> T:
        """What `work` comes to inside. Gone where no answer is there within `patience`; it goes on then."""
        if not self.alive:
            work.close()
            raise Gone
        task = self.spawn(work)
        done, _ = await asyncio.wait({task}, timeout=patience)
        if not done or task.cancelled():
            task.add_done_callback(_seen)
            raise Gone
        return task.result()

    def pause(self, seconds: float) -> None:
        """Nothing runs in it for so long."""
        self._paused += 1
        self._goes_on.clear()
        asyncio.get_running_loop().call_later(seconds, self._resume)

    def _resume(self) -> None:
        self._paused -= 1
        if not self._paused:
            self._goes_on.set()

    async def kill(self) -> None:
        """kill -9: whatever it was doing ends where it stands."""
        self.alive = False
        self._goes_on.set()
        current = asyncio.current_task()
        while tasks := [task for task in self._tasks if task is not current]:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

    def adopt(self, task: asyncio.Task[Any]) -> None:
        self._tasks[task] = None
        task.add_done_callback(lambda done: self._tasks.pop(done, None))

    async def run(self, work: Coroutine[Any, Any, T]) -> T:
        """`work`, that stands still while the process is paused."""
        return await _Stepped(work, self)

    def standstill(self) -> Generator[Any, Any, Any]:
        """Until it goes on."""
        return self._goes_on.wait().__await__()


class _Stepped(Awaitable[T]):
    """A coroutine that is stepped by hand."""

    def __init__(self, work: Coroutine[Any, Any, T], process: Process) -> None:
        self._work = work
        self._process = process

    def __await__(self) -> Generator[Any, Any, T]:
        error: BaseException | None = None
        while True:
            while self._process.paused and self._process.alive:
                try:
                    yield from self._process.standstill()
                except asyncio.CancelledError as cancelled:  # it hears of that when it goes on
                    error = cancelled
            try:
                waits_for = self._work.send(None) if error is None else self._work.throw(error)
            except StopIteration as end:
                return end.value  # type: ignore[no-any-return]  # what a coroutine returns
            error = None
            try:
                yield waits_for
            except BaseException as raised:
                error = raised


def _seen(task: asyncio.Task[Any]) -> None:
    """Whoever asked has gone: what became of it is nobody's business."""
    if not task.cancelled():
        task.exception()


def task_factory(
    loop: asyncio.AbstractEventLoop, work: Any, context: Context | None = None
) -> asyncio.Task[Any]:
    """For the loop: a task made in a process's task is one of its tasks."""
    process = _OWN.get() if context is None else context.get(_OWN)
    if process is None:
        return asyncio.Task(work, loop=loop, context=context)
    task: asyncio.Task[Any] = asyncio.Task(process.run(work), loop=loop, context=context)
    process.adopt(task)
    task.add_done_callback(lambda done: work.close())  # it may have been killed before it began
    return task


def outside(work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    """A task that belongs to no process."""
    return asyncio.get_running_loop().create_task(work, context=Context())
