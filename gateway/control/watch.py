"""Looks now and then at what has waited longest for an answer: a gauge shows it before a customer calls."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

import structlog

from gateway.clock import Clock
from gateway.errors import StorageError
from gateway.metrics import Metrics
from gateway.storage.relay_evidence import Oldest

log = structlog.get_logger()

LOOK_SECONDS: Final = 15.0
"""As often as it is usually scraped."""


async def watch(
    oldest: Callable[[], Awaitable[Oldest]], metrics: Metrics, clock: Clock, seconds: float = LOOK_SECONDS
) -> None:
    """Keep the gauges, for as long as this runs. oldest: `relay_evidence.oldest` of the house's database.

    While the database is away the ages go on growing: nothing has been answered meanwhile.
    """
    found = Oldest(None, None)
    while True:
        try:
            found = await oldest()
        except StorageError as error:
            log.warning("the oldest relay commands cannot be looked up", error=str(error))
        metrics.relay_oldest(found.uncertain, found.close, clock.now())
        await clock.sleep(seconds)
