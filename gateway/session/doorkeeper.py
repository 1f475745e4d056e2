"""Peers that dial in and have not said anything that could be a frame: they stand at the door.

While it stands there a peer costs a link and one timer: nothing runs for it, and the kernel keeps what it
dribbles until there is as much as the frame it could be still lacks.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Final

import structlog

from gateway.clock import Clock
from gateway.metrics import Metrics
from gateway.session.settings import SessionSettings
from protocols.q_gdw376.frame import HEADER, IDENTIFIER, OVERHEAD, START, announced

log = structlog.get_logger()

LOGIN_SPREAD: Final = 0.25
"""By how much of the login deadline peers may stay longer, each by another part of it: thousands that dialled
in the same moment would else be closed, and dial again, in the same moment, and the terminals would wait."""

LONG: Final = 256
"""Bytes that are looked at in any case; a login has less."""

SHORTEST: Final = OVERHEAD + HEADER + IDENTIFIER
"""A login: a frame with one data unit that has no data. For less nobody is woken."""

TOLD_S: Final = 60.0
"""One line in the log, and one entry for a person, in so long: strangers must not fill the disk."""


class LoginDoorkeeper:
    """Lets in who may have sent a whole frame of 376.1; satisfies `tcp_listener.Doorkeeper`."""

    def __init__(
        self,
        settings: SessionSettings,
        clock: Clock,
        metrics: Metrics,
        keep_raw: Callable[[str, str, bytes], None],
    ) -> None:
        """keep_raw: keeps peer, reason and bytes for a person to look at."""
        self._deadline_s = settings.login_deadline_s
        self._clock = clock
        self._metrics = metrics
        self._keep_raw = keep_raw
        self._told: float | None = None
        self._untold = 0

    def stay_s(self) -> float:
        """See `Doorkeeper`."""
        return patience(self._deadline_s) / self._clock.speed

    def missing(self, said: bytearray) -> int:
        """See `Doorkeeper`. What stands before the frame does not matter: lines are noisy."""
        least = LONG - len(said)
        place = said.find(START)
        while place >= 0 and least > 0:
            length = announced(said, place)
            if not isinstance(length, str):
                least = min(least, place + (length or SHORTEST) - len(said))
            place = said.find(START, place + 1)
        return max(0, min(least, SHORTEST))

    def turned_away(self, peer: str, said: bytes) -> None:
        """See `Doorkeeper`."""
        self._metrics.turned_away.inc()
        now = self._clock.monotonic()
        if self._told is not None and now - self._told < TOLD_S:
            self._untold += 1
            return
        log.info("peer turned away: no login", peer=peer, said=said[:32].hex(" "), others=self._untold)
        if said:
            self._keep_raw(peer, "no login, and no frame", said)
        self._told, self._untold = now, 0


def patience(deadline_s: float) -> float:
    """How long one peer has to log in: the deadline and a part of LOGIN_SPREAD."""
    return deadline_s * random.uniform(1.0, 1.0 + LOGIN_SPREAD)
