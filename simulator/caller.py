"""Keeps one device reachable over one wire, in real time: brings its link up again and again."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Final, Protocol

from simulator.clock import Clock
from simulator.line import Ending
from simulator.wires import Link, Wire

FIRST_REDIAL: Final = 1.0
LONGEST_REDIAL: Final = 60.0
"""Seconds to wait before dialling again: doubled at each failure, halved to doubled once more by jitter."""
SHORTEST_REDIAL: Final = 0.1
"""Real seconds between two dials, however fast the clock runs."""
MOST_SILENT_LINKS: Final = 8
"""Vanished links that one device leaves open; the oldest is closed beyond that."""


class Station(Protocol):
    """A device with what goes wrong on its line: no socket, no clock. `now` is the district's seconds."""

    ending: Ending | None
    """set when the present link is to end; `lost` is called when it has"""
    speed: int | None
    """bit/s at which the other side speaks, set before each `receive_data`; None where there is no speed"""

    @property
    def is_here(self) -> bool:
        """Is it where it wants to be, logged in if it logs in?"""

    def dial(self, now: float) -> None:
        """A new link is open."""

    def lost(self) -> None:
        """The link has ended; what was on its way is gone."""

    def receive_data(self, data: bytes, now: float) -> None: ...

    def log_out(self, now: float) -> None:
        """Say goodbye; `ending` follows."""

    def next_timeout(self) -> float | None:
        """When `handle_timeout` or `chunks` is wanted next."""

    def handle_timeout(self, now: float) -> None: ...

    def chunks(self, now: float) -> list[bytes]:
        """Take the bytes to be written by `now`; each is one write. They may bring about the `ending`."""


Seen = Callable[[str, bytes], None]
"""Told of bytes that pass: "down" to the device, "up" from it."""


class Caller:
    """One station at the end of one wire. on_here: called each time that it has come to be here."""

    def __init__(
        self,
        station: Station,
        wire: Wire,
        clock: Clock,
        chance: random.Random,
        on_here: Callable[[], None],
        seen: Seen | None = None,
    ) -> None:
        self._station = station
        self._wire = wire
        self._clock = clock
        self._chance = chance
        self._on_here = on_here
        self._seen = seen
        self._link: Link | None = None
        self._silent: list[Link] = []
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._down = asyncio.Event()
        self._down.set()
        self._was_here = self._came = False

    async def keep_calling(self, first_wait: float) -> None:
        """Have a link after `first_wait` district seconds, and again whenever it has ended."""
        await asyncio.sleep(self._clock.real_seconds(first_wait))
        wait = FIRST_REDIAL
        while True:
            try:
                await self._wire.open(self)
            except OSError:
                pass
            else:
                await self._down.wait()
            if self._came:
                wait = FIRST_REDIAL
            self._came = False
            jittered = wait * self._chance.uniform(0.5, 1.5)
            await asyncio.sleep(max(SHORTEST_REDIAL, self._clock.real_seconds(jittered)))
            wait = min(2 * wait, LONGEST_REDIAL)

    def link_up(self, link: Link) -> None:
        """See End: on wires where the other side dials, a newer link takes the place of the older one."""
        if (older := self._link) is not None:
            self._leave_link()
            older.close()
        self._link = link
        self._down.clear()
        self._station.dial(self._clock.now())
        self._pump()

    def received(self, link: Link, data: bytes) -> None:
        """See End."""
        if link is not self._link:
            return
        if self._seen is not None:
            self._seen("down", data)
        self._station.speed = link.speed
        self._station.receive_data(data, self._clock.now())
        self._pump()

    def link_down(self, link: Link) -> None:
        """See End."""
        if link in self._silent:
            self._silent.remove(link)
        if link is self._link:
            self._leave_link()

    def log_out(self) -> None:
        """Have the device say goodbye, if it has a link."""
        if self._link is not None:
            self._station.log_out(self._clock.now())
            self._pump()

    async def gone(self) -> None:
        """Wait until there is no link."""
        await self._down.wait()

    async def close(self) -> None:
        """End all links, and the wire, now."""
        links = [self._link, *self._silent]
        self._leave_link()
        for link in links:
            if link is not None:
                link.abort()
        await self._wire.close()

    def _pump(self) -> None:
        """Write what is due, end the link if it is to end, and set the timer for what comes next."""
        link, station = self._link, self._station
        if link is None:
            return
        now = self._clock.now()
        for chunk in station.chunks(now):
            if self._seen is not None:
                self._seen("up", chunk)
            link.write(chunk)
        if link is not self._link:
            return  # it broke as we wrote
        here = station.is_here
        if here and not self._was_here:
            self._came = True
            self._on_here()
        self._was_here = here
        ending = station.ending
        if ending is None:
            self._set_timer(station.next_timeout(), now)
            return
        self._leave_link()
        match ending:
            case Ending.CLOSE:
                link.close()
            case Ending.ABORT:
                link.cut()
            case Ending.VANISH:
                self._silent.append(link)
                if len(self._silent) > MOST_SILENT_LINKS:
                    self._silent.pop(0).close()

    def _leave_link(self) -> None:
        self._was_here = False
        if self._link is not None:
            self._link = None
            self._station.lost()
            self._down.set()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _set_timer(self, at: float | None, now: float) -> None:
        """A timer that is early costs one idle call; setting one anew for each frame would cost more."""
        if at is None or (self._timer is not None and self._timer_at <= at):
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = at
        self._timer = asyncio.get_running_loop().call_later(
            self._clock.real_seconds(at - now), self._timer_due
        )

    def _timer_due(self) -> None:
        self._timer = None
        self._station.handle_timeout(self._clock.now())
        self._pump()
