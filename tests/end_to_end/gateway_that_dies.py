"""`python -m tests.end_to_end.gateway_that_dies` is `lingdian`, and ends itself by kill -9 at a named point.

DIE_AT names the point, DIE_AT_PASS (1 by default) the time that it is passed. PLANTED_BUG names one of
`relay_planted.PLANTED`. Everything is put into the program from here: it has no switch for it.
"""

from __future__ import annotations

import asyncio
import functools
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Final, ParamSpec, TypeVar

from gateway.control import requests
from gateway.control.course import Course
from gateway.control.epoch import Keeper, StateFile
from gateway.session.relay import RelayDoor
from gateway.storage.commands import Commands
from gateway.storage.desk import MeterDesk
from tests.end_to_end.relay_planted import PLANTED

TURNS_TO_LEAVE: Final = 3
"""Turns of the loop after which what was handed to the socket is with the kernel."""

COURSE: Final = (
    "meter read",
    "frame prepared",
    "place taken",
    "sending committed",
    "answer heard",
    "answer committed",
)
"""Points that `Course` names itself."""

AROUND: Final = (
    "request kept",
    "before commit",
    "after commit",
    "frame handed over",
    "frame left",
    "relay read",
    "sealed",
    "epoch not in place",
)
"""Points put around it: a request is durable and not answered; a desk closes; a frame is in our buffer, or on
its way; a relay was read and that is not on the desk yet; a seal is in the database and not in the epoch
file, or in a file beside that."""

POINTS: Final = COURSE + AROUND

_P = ParamSpec("_P")
_T = TypeVar("_T")


class Death:
    """Comes when `point` is passed for the `passes`th time."""

    def __init__(self, point: str, passes: int) -> None:
        self._point = point
        self._left = passes

    def at(self, point: str) -> None:
        """The program has come to `point`."""
        if point != self._point:
            return
        self._left -= 1
        if self._left <= 0:
            os.kill(os.getpid(), signal.SIGKILL)


def _then(
    work: Callable[_P, Awaitable[_T]], at: Callable[[str], None], point: str
) -> Callable[_P, Awaitable[_T]]:
    """`work`, with `point` behind it."""

    @functools.wraps(work)
    async def both(*args: _P.args, **given: _P.kwargs) -> _T:
        done = await work(*args, **given)
        at(point)
        return done

    return both


def lay(death: Death) -> None:
    """Have `death` called at every point."""
    at = death.at
    began = Course.__init__

    def course(self: Course, *args: Any, **given: Any) -> None:
        began(self, *args, **{**given, "at": at})

    desk = Commands.desk

    @asynccontextmanager
    async def desk_with_points(self: Commands, meter_id: int) -> AsyncIterator[MeterDesk]:
        async with desk(self, meter_id) as opened:
            yield opened
            if opened.happened:
                at("before commit")
        if opened.happened:
            at("after commit")

    write = RelayDoor.write

    async def write_with_points(self: RelayDoor, *args: Any) -> Any:
        written = await write(self, *args)
        at("frame handed over")
        for _ in range(TURNS_TO_LEAVE):
            await asyncio.sleep(0)
        at("frame left")
        return written

    put = StateFile.keep

    async def keep_with_point(self: StateFile, epoch: Any) -> None:
        if epoch.seal is not None:
            self._path.with_name(f"{self._path.name}.new").write_bytes(b"half of it")
            at("epoch not in place")
        await put(self, epoch)

    on_sealed = Keeper.on_sealed

    async def sealed_with_point(self: Keeper, seal: Any) -> None:
        at("sealed")
        await on_sealed(self, seal)

    for owner, name, patched in (
        (Course, "__init__", course),
        (Commands, "desk", desk_with_points),
        (RelayDoor, "write", write_with_points),
        (RelayDoor, "status", _then(RelayDoor.status, at, "relay read")),
        (StateFile, "keep", keep_with_point),
        (Keeper, "on_sealed", sealed_with_point),
        (requests.Requests, "accept", _then(requests.Requests.accept, at, "request kept")),
    ):
        setattr(owner, name, patched)


def main() -> None:
    """Plant, lay, and be `lingdian`."""
    if bug := os.environ.get("PLANTED_BUG"):
        PLANTED[bug].plant()
    if point := os.environ.get("DIE_AT"):
        if point not in POINTS:
            raise SystemExit(f"there is no point {point!r}")
        lay(Death(point, int(os.environ.get("DIE_AT_PASS", "1"))))
    from gateway.cli import main as lingdian

    lingdian()


if __name__ == "__main__":
    main()
