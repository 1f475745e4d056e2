"""Which of the terminals that are here switch for real, remembered for the time when the database is away.

A close that is sent without the database must not break shadow mode, in which nothing leaves at all. This is
the one gate that rests on what was last known; what is not known is in shadow mode.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from contextlib import suppress
from typing import Final

import structlog

from gateway.clock import Clock
from gateway.errors import StorageError
from gateway.storage.database import Database, queries

log = structlog.get_logger()

ROUND_SECONDS: Final = 10.0
"""Between two looks for terminals that have come."""

GATHER_SECONDS: Final = 1.0
"""Logins are gathered for so long."""

FRESH_SECONDS: Final = 60.0
"""So long what is known of a terminal is not asked again: a change of shadow mode may be missed when the
database goes away so soon after it."""

AT_ONCE: Final = 500
"""Terminals in one question."""


class LiveTerminals:
    """Built once; `run` it. A terminal of which one meter is in shadow mode counts as in it."""

    def __init__(self, database: Database, clock: Clock, here: Callable[[], Collection[int]]) -> None:
        """here: terminal_ids of the logins that are ours."""
        self._database = database
        self._clock = clock
        self._here = here
        self._live: dict[int, bool] = {}
        self._asked_at: dict[int, float] = {}
        self._woken = asyncio.Event()

    def wake(self) -> None:
        """A terminal has come."""
        self._woken.set()

    def live(self, terminal_id: int) -> bool:
        """Was it out of shadow mode when it was last asked? False where that is not known."""
        return self._live.get(terminal_id, False)

    async def refresh(self) -> None:
        """Ask for those that are here and of which nothing fresh is known. StorageError: the rest stays as it
        was known."""
        here, now = self._here(), self._clock.monotonic()
        for gone in self._live.keys() - set(here):
            del self._live[gone], self._asked_at[gone]
        oldest = now - FRESH_SECONDS
        stale = [one for one in here if one not in self._asked_at or self._asked_at[one] < oldest]
        for start in range(0, len(stale), AT_ONCE):
            asked = stale[start : start + AT_ONCE]
            async with self._database.connection() as connection:
                cursor = await connection.execute(
                    queries("live_terminals")["live"], {"terminals": asked, "now": self._clock.now()}
                )
                live = {row[0] for row in await cursor.fetchall()}
            self._live |= {one: one in live for one in asked}
            self._asked_at |= dict.fromkeys(asked, now)

    async def run(self) -> None:
        """Ask again and again, for as long as this runs."""
        while True:
            try:
                await self.refresh()
            except StorageError as error:
                log.debug("shadow mode is as it was last known", error=str(error))
            with suppress(TimeoutError):
                async with asyncio.timeout(ROUND_SECONDS / self._clock.speed):
                    await self._woken.wait()
            await self._clock.sleep(GATHER_SECONDS)
            self._woken.clear()
