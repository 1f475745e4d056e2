"""Keeps a link to one place, whatever carries it: makes it, hands it over, makes it again when it ends."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

import structlog

from gateway.clock import Clock
from gateway.errors import LinkClosed
from gateway.metrics import Dial, Metrics
from gateway.transports.link import Link

log = structlog.get_logger()

Opening = Callable[[], Awaitable[Link]]
"""Makes one link, within a time of its own. Raises LinkClosed that says where, why and what to do."""

MOST_DOUBLINGS: Final = 32


@dataclass(frozen=True, slots=True)
class Backoff:
    """How long to wait before a link is sought again: doubled with each failure, and less by chance, so
    that a thousand of them do not come back in one second."""

    first_s: float = 1.0
    limit_s: float = 300.0
    lasted_s: float = 60.0
    """a link that stood so long was a good one: the next wait is `first_s` again"""

    def wait_s(self, failures: int, chance: random.Random) -> float:
        """Seconds before the next try, after so many failures in a row (at least one is meant)."""
        doubled = self.first_s * 2.0 ** min(max(failures - 1, 0), MOST_DOUBLINGS)
        return min(self.limit_s, doubled) * chance.uniform(0.5, 1.0)


class Dialler:
    """One link at a time to `place`. `start` begins; `close` ends the link and the seeking."""

    def __init__(
        self,
        place: str,
        opening: Opening,
        on_link: Callable[[Link], Awaitable[None]],
        *,
        backoff: Backoff | None = None,
        metrics: Metrics | None = None,
        clock: Clock | None = None,
        chance: random.Random | None = None,
    ) -> None:
        """place: for logs. on_link: owns the link until it returns, then it is closed; as for a listener."""
        self.place = place
        self._opening = opening
        self._on_link = on_link
        self._backoff = backoff or Backoff()
        self._metrics = metrics
        self._clock = clock or Clock()
        self._chance = chance or random.Random()
        self._link: Link | None = None
        self._keeping: asyncio.Task[None] | None = None

    @property
    def connected(self) -> bool:
        return self._link is not None

    def start(self) -> None:
        """Begin, in the running loop; once."""
        if self._keeping is None:
            self._keeping = asyncio.get_running_loop().create_task(self._keep(), name=f"dial {self.place}")

    async def close(self) -> None:
        """End the link that stands, seek no other, and wait for what runs on it. Idempotent."""
        if self._keeping is None:
            return
        self._keeping.cancel()
        if self._link is not None:
            self._link.abort()
        await asyncio.gather(self._keeping, return_exceptions=True)

    async def _keep(self) -> None:
        failures = 0
        while True:
            lasted = await self._once()
            failures = 1 if lasted >= self._backoff.lasted_s else failures + 1
            await self._clock.sleep(self._backoff.wait_s(failures, self._chance))

    async def _once(self) -> float:
        """Make the link and stay until it has ended; how many seconds it stood, 0 where there was none."""
        try:
            link = await self._opening()
        except LinkClosed as error:
            log.warning("no link", place=self.place, why=str(error))
            self._count("failed")
            return 0.0
        except Exception as error:
            log.error("no link: an error of ours", place=self.place, exc_info=error)
            self._count("failed")
            return 0.0
        self._count("made")
        since = self._clock.monotonic()
        await self._stay(link)
        return self._clock.monotonic() - since

    async def _stay(self, link: Link) -> None:
        self._link = link
        if self._metrics is not None:
            self._metrics.connections.inc()
        log.info("link made", place=self.place, peer=link.peer)
        try:
            await self._on_link(link)
        except LinkClosed:
            pass
        except Exception as error:
            # one link's error must not end the seeking
            log.error("a link was given up by an error of ours", place=self.place, exc_info=error)
        finally:
            if self._metrics is not None:
                self._metrics.connections.dec()
            await link.close()
            self._link = None

    def _count(self, outcome: Dial) -> None:
        if self._metrics is not None:
            self._metrics.dials[outcome].inc()
