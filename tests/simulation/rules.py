"""The rules that no input, crash or race may break, checked against what the meters' side saw, what stands in
the database, and what was promised to whoever asked.

Rule 14 is outside: frames of other makings never come near this world. So is what rule 8 says of wildcard
addresses: `session.relay` builds and addresses frames, and these doors do not.
"""

from __future__ import annotations

from tests.simulation import rules_frames, rules_light, rules_rows
from tests.simulation.broken import Broken, broken
from tests.simulation.history import Told


def check(told: Told) -> None:
    """All rules over a whole history. Broken names the first that was broken."""
    for worker in told.world.workers.values():
        if worker.stopped is not None:
            raise Broken(f"{worker.name} stopped by itself: {worker.stopped!r}") from worker.stopped
    for one in told.world.broken:
        raise Broken(one)
    rules_frames.check(told)
    rules_rows.check(told)
    rules_light.check(told)


__all__ = ["Broken", "broken", "check"]
