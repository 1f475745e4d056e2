"""Does Td_d mean what the profile says? A terminal's midnight is held beside the meter's own dated freeze.

A profile with the wrong meaning would shift every reading of its terminals by one day, and none of them would
look wrong. Pure but for the log.
"""

from __future__ import annotations

from collections import Counter
from typing import Final

import structlog

log = structlog.get_logger()

AGREEMENTS: Final = 2
"""Meters that must agree before a profile is trusted; one alone may not have used anything that day."""

ATTEMPTS: Final = 10
"""Meters asked for one profile in the life of the process; some are out of reach."""


class TagCheck:
    """What is known of each profile in this process."""

    def __init__(self) -> None:
        self._agreed: Counter[str] = Counter()
        self._begun: Counter[str] = Counter()
        self._under_way: Counter[str] = Counter()
        self.differed: set[str] = set()
        """profiles where a meter's own freeze was another value"""

    def begin(self, profile: str) -> bool:
        """Should one more meter of this profile be asked? If so, `told` must follow."""
        promised = self._agreed[profile] + self._under_way[profile]
        if promised >= AGREEMENTS or self._begun[profile] >= ATTEMPTS:
            return False
        self._begun[profile] += 1
        self._under_way[profile] += 1
        return True

    def told(self, profile: str, terminal: str, meter_id: int, agrees: bool | None) -> None:
        """What came of it; None: the meter could not tell."""
        self._under_way[profile] -= 1
        if agrees:
            self._agreed[profile] += 1
        elif agrees is False:
            self.differed.add(profile)
            log.error(
                "a terminal's midnight is not the meter's own: Td_d may not mean what the profile says",
                profile=profile,
                setting=f"profiles.{profile or 'NAME'}.td_d_names",
                terminal=terminal,
                meter_id=meter_id,
            )
