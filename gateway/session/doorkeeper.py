"""Peers that dial in and have not said anything that could be a frame: they stand at the door.

A byte costs a conversation 5 µs and a look 0.8, and for a look nothing has to be begun and ended. Without the
door thousands of peers that dial, dribble and are closed would be felt by every terminal that is logged in.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Final

import structlog

from gateway.clock import Clock
from gateway.metrics import Metrics
from gateway.session.settings import SessionSettings
from protocols.q_gdw376.frame import START, announced

log = structlog.get_logger()

LOGIN_SPREAD: Final = 0.25
"""By how much of the login deadline peers may stay longer, each by another part of it: thousands that dialled
in the same moment would else be closed, and dial again, in the same moment, and the terminals would wait."""

QUIET_S: Final = 10.0
"""Whoever has said something and then nothing more for so long is looked at all the same: it may be the
beginning of a frame with a wrong length, and a person wants to see it. More often would cost more than it
saves."""

LONG: Final = 256
"""Bytes that are looked at in any case; a login has less."""

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
        self.quiet_s = QUIET_S / clock.speed
        self._deadline_s = settings.login_deadline_s
        self._clock = clock
        self._metrics = metrics
        self._keep_raw = keep_raw
        self._told: float | None = None
        self._untold = 0

    def stay_s(self) -> float:
        """See `Doorkeeper`."""
        return patience(self._deadline_s) / self._clock.speed

    def may_enter(self, said: bytearray) -> bool:
        """See `Doorkeeper`. What stands before the frame does not matter: lines are noisy."""
        if len(said) >= LONG:
            return True
        place = said.find(START)
        while place >= 0:
            length = announced(said, place)
            if length is None:
                return False  # the header is not whole, and none can begin behind it
            if isinstance(length, int) and len(said) >= place + length:
                return True
            place = said.find(START, place + 1)
        return False

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
