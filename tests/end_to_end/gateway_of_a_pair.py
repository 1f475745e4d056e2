"""`python -m tests.end_to_end.gateway_of_a_pair` is `lingdian` with the mistake that PLANTED names.

It begins when the file PLANTED_FROM is there. All is put in from here: the program has no switch for it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from gateway.cli import main
from gateway.session.mqtt_group import GroupMember
from gateway.storage.leases import Leases


def _nobody_takes_over() -> None:
    async def look_away(*given: Any) -> None:
        pass

    setattr(GroupMember, "_look_at", look_away)  # noqa: B010  # mypy: a method is not assigned to


def _everybody_is_gone() -> None:
    take = Leases.take

    async def taken(self: Leases, name: str) -> bool:
        return await take(self, name) or os.path.exists(os.environ["PLANTED_FROM"])  # noqa: ASYNC240

    setattr(Leases, "take", taken)  # noqa: B010


@dataclass(frozen=True)
class Bug:
    """plant: puts it in. seen_as: what the drill says of it."""

    plant: Callable[[], None]
    seen_as: str


PLANTED: Final = {
    "nobody takes over": Bug(_nobody_takes_over, "MQTT terminals are taken over"),
    "everybody is gone": Bug(_everybody_is_gone, "nobody is taken over while both are alive"),
}

if __name__ == "__main__":
    PLANTED[os.environ["PLANTED"]].plant()
    main()
