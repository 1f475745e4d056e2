"""New events of the outbox for everybody who watches: read once, handed to bounded queues, never waited for.

A watcher that is too slow loses events and is told how many; its own cursor lets it read them again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

import structlog

from gateway.clock import Clock
from gateway.errors import LingdianError, StorageError
from gateway.storage import outbox
from gateway.storage.database import Database
from gateway.storage.outbox import Told

log = structlog.get_logger()

POLL_SECONDS: Final = 0.5
EVENTS_AT_ONCE: Final = 500
QUEUE_EVENTS: Final = 1000
"""that may wait for one watcher"""

MOST_WATCHERS: Final = 500


class TooMany(LingdianError):
    """There are watchers enough."""


@dataclass(slots=True, eq=False)
class Watcher:
    """One who watches. dropped: events that found its queue full, since it was last asked."""

    organisations: frozenset[int] | None
    queue: asyncio.Queue[Told] = field(default_factory=lambda: asyncio.Queue(QUEUE_EVENTS))
    dropped: int = 0
    ended: bool = False
    """nothing more will come"""

    def offer(self, told: Told) -> None:
        """Take it, if it may be seen and there is room. Behind a loss nothing is taken until that was told:
        what is in the queue has no holes."""
        if self.organisations is not None and told.organisation not in self.organisations:
            return
        if self.dropped or self.queue.full():
            self.dropped += 1
        else:
            self.queue.put_nowait(told)

    def taken_loss(self) -> int:
        """How many were lost; from now on events are taken again."""
        lost, self.dropped = self.dropped, 0
        return lost


class Fanout:
    """Run it once with `run`, until it is cancelled; `watch` works at any time."""

    def __init__(self) -> None:
        self._watchers: set[Watcher] = set()
        self._place = 0
        self._begun = asyncio.Event()

    async def begun(self) -> None:
        """Wait until what comes is handed on: whoever reads the database after this and watches misses
        nothing."""
        await self._begun.wait()

    @property
    def watchers(self) -> int:
        """How many there are."""
        return len(self._watchers)

    @contextmanager
    def watch(self, organisations: frozenset[int] | None) -> Iterator[Watcher]:
        """A watcher of what these organisations may see, while this lasts. TooMany."""
        if len(self._watchers) >= MOST_WATCHERS:
            raise TooMany(f"{MOST_WATCHERS} watch already 订阅过多")
        watcher = Watcher(organisations)
        self._watchers.add(watcher)
        try:
            yield watcher
        finally:
            self._watchers.discard(watcher)

    async def run(self, database: Database, clock: Clock) -> None:
        """Hand on what comes, for as long as this runs; at its end all watchers are done."""
        trouble = ""
        try:
            while True:
                try:
                    await self._hand_on(database)
                    trouble = ""
                except StorageError as error:
                    if str(error) != trouble:  # said once, not every second of an outage
                        trouble = str(error)
                        log.warning("events cannot be read", error=trouble)
                await clock.sleep(POLL_SECONDS)
        finally:
            for watcher in self._watchers:
                watcher.ended = True

    async def _hand_on(self, database: Database) -> None:
        await outbox.give_places(database)
        newest = await outbox.newest(database)
        if not self._begun.is_set() or not self._watchers:
            # nobody waits, also not since we asked: whoever comes reads in the database what stands before
            self._place = newest
            self._begun.set()
            return
        while True:
            found, until = await outbox.after(database, self._place, rows=EVENTS_AT_ONCE, organisations=None)
            for told in found:
                for watcher in self._watchers:
                    watcher.offer(told)
            self._place = until
            if len(found) < EVENTS_AT_ONCE:
                return
