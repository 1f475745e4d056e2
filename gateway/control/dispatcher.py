"""Gives every terminal that is ours its next relay command, one at a time each, what gives power back first.

Polling is what it rests on; to be woken only makes it look sooner. A terminal for which a command was
accepted or is done is looked at by itself: to look at all of them each time would cost more than the command.
A worker that dies leaves nothing behind but rows that become due again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Set
from contextlib import suppress
from datetime import datetime
from functools import partial
from typing import Final
from uuid import UUID

import structlog

from gateway.clock import Clock
from gateway.command import GATED_AS_TRIP, Action, MeterFacts, Ref
from gateway.control.course import Course
from gateway.control.right_of_way import RightOfWay
from gateway.control.states import WrongStep
from gateway.control.stores import CommandStore
from gateway.door import Doors, Prepared, Sealing, Trouble
from gateway.errors import LingdianError, StorageError
from gateway.session.reading_ports import ReadingPorts
from gateway.session.registry import Registry
from gateway.session.relay import RelayDoors, prepare_plain
from gateway.session.settings import MeterProfile

log = structlog.get_logger()

POLL_SECONDS: Final = 1.0
"""Between two looks at all terminals when nobody wakes us."""

BETWEEN_SECONDS: Final = 0.02
"""Between two looks at all terminals, however often we are woken: one look serves a storm of requests. Where
a look takes longer, as with work at thousands of terminals, so does the pause."""

AT_ONCE: Final = 256
"""Commands under way at one time; each terminal has one at most."""

AGAIN_SECONDS: Final = 1.0
"""A command that comes again at once, as it was, is not helped by more haste."""

REST_SECONDS: Final = 2.0
"""A terminal rests so long after a command of it went wrong in a way that nobody foresaw."""


def doors_of(registry: Registry, clock: Clock, sealing: Sealing | None, ports: ReadingPorts | None) -> Doors:
    """The doors of this process's logins. Made here, since nothing else may drive a relay."""
    return RelayDoors(registry, clock, sealing, ports)


def plain_frames(
    profile: Callable[[str], MeterProfile],
) -> Callable[[MeterFacts, Action, datetime], Prepared | Trouble]:
    """What builds the frames that go with a ticket. Made here for the same reason. profile: by its name."""
    return partial(_plain_frame, profile)


def _plain_frame(
    profile: Callable[[str], MeterProfile], facts: MeterFacts, action: Action, deadline: datetime
) -> Prepared | Trouble:
    return prepare_plain(facts, profile(facts.profile), action, deadline)


class Dispatcher:
    """Run it once with `run`; it ends when it is cancelled, and what is under way then ends first."""

    def __init__(
        self,
        store: CommandStore,
        doors: Doors,
        course: Course,
        clock: Clock,
        *,
        at_once: int = AT_ONCE,
        poll_seconds: float = POLL_SECONDS,
        way: RightOfWay | None = None,
    ) -> None:
        self._way = way or RightOfWay()
        self._store = store
        self._doors = doors
        self._course = course
        self._clock = clock
        self._at_once = at_once
        self._poll_seconds = poll_seconds
        self._woken = asyncio.Event()
        self._look_at_all = True
        self._some: set[int] = set()
        self._under_way: dict[int, asyncio.Task[None]] = {}
        self._last: dict[int, tuple[Ref, float]] = {}

    @property
    def under_way(self) -> frozenset[asyncio.Task[None]]:
        """What is being done now."""
        return frozenset(self._under_way.values())

    def works_on(self, command_id: UUID) -> bool:
        """Is this command in our hands now? Where a desk finds that it is not, whoever of us sends it later
        has seen what that desk did."""
        return any(self._last[terminal][0].id == command_id for terminal in self._under_way)

    def wake_at(self, terminal_id: int) -> None:
        """There may be work at this terminal: a command of it was accepted."""
        self._some.add(terminal_id)
        self._woken.set()

    def wake(self) -> None:
        """There may be work anywhere: a terminal has logged in, a brake was released."""
        self._look_at_all = True
        self._woken.set()

    async def run(self) -> None:
        """Look for work and have it done, for as long as this runs."""
        try:
            poll_at = between_until = 0.0
            while True:
                now = self._clock.monotonic()
                if now >= poll_at or (self._look_at_all and now >= between_until):
                    self._look_at_all = False
                    self._some.clear()
                    await self._start_some(self._doors.here())
                    began, now = now, self._clock.monotonic()
                    poll_at, between_until = now + self._poll_seconds, now + max(BETWEEN_SECONDS, now - began)
                elif self._some:
                    some, self._some = self._some, set()
                    await self._start_some(self._doors.here() & some)
                else:
                    await self._wait((between_until if self._look_at_all else poll_at) - now)
        finally:
            # What is between claim and answer must not be cut in two: the exchanges end by themselves.
            if under_way := list(self._under_way.values()):
                await asyncio.shield(asyncio.wait(under_way))

    async def _wait(self, seconds: float) -> None:
        """Until somebody wakes us, and so long at most."""
        self._woken.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds / self._clock.speed):
                await self._woken.wait()

    async def _start_some(self, terminals: Set[int]) -> None:
        room = self._at_once - len(self._under_way)
        if room <= 0 or not terminals:
            return
        try:
            found = await self._store.due(terminals, self._clock.now(), room, self._under_way.keys())
        except StorageError as error:
            log.warning("relay commands cannot be looked up", error=str(error))
            return
        now = self._clock.monotonic()
        if not self._way.clear:  # looked at again when it is: those before whom we give way stand first
            found = [ref for ref in found if ref.action not in GATED_AS_TRIP]
        if len(found) == room:  # there may be more, elsewhere
            self._look_at_all = True
        for ref in found:
            last, at = self._last.get(ref.terminal_id, (None, 0.0))
            if ref.terminal_id not in self._under_way and (ref != last or now - at >= AGAIN_SECONDS):
                self._last[ref.terminal_id] = ref, now
                task = asyncio.create_task(self._work(ref), name=f"relay command {ref.id}")
                self._under_way[ref.terminal_id] = task

    async def _work(self, ref: Ref) -> None:
        try:
            await self._course.work(ref)
        except WrongStep:
            log.exception("a step that is not allowed was stopped", command=str(ref.id))
            await self._clock.sleep(REST_SECONDS)
        except LingdianError as error:  # the database or the link, as a rule: the command stays due
            log.warning("a relay command is put off", command=str(ref.id), error=str(error))
            await self._clock.sleep(REST_SECONDS)
        except Exception:  # one command's trouble must not stop all others
            log.exception("a relay command stopped", command=str(ref.id))
            await self._clock.sleep(REST_SECONDS)
        finally:
            self._under_way.pop(ref.terminal_id, None)
            self.wake_at(ref.terminal_id)
