"""`python -m tests.end_to_end.gateway_that_acknowledges` is `lingdian` with readings that are committed late,
so that there is a moment between acknowledgement and commit in which it can be killed.

PLANTED names a bug, or is `nothing`. `acknowledges early`: a report's frame is confirmed, and its message
acknowledged, before its readings are committed. `forgets`: the broker is told to keep nothing for us while we
are away. LATE_S: so many seconds before the commit. Everything is put into the program from here: it has no
switch for it.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from typing import Any, Final

import aiomqtt

from gateway.errors import LinkClosed
from gateway.session.receipts import Receipt, finish
from gateway.session.unasked import Unasked
from protocols.q_gdw376.frame import Frame


def commit_late(seconds: float) -> None:
    """Have readings that come unasked wait before they are filed."""
    filed = Unasked._filed

    async def late(self: Unasked, *given: Any) -> bool:
        await asyncio.sleep(seconds)
        return await filed(self, *given)

    setattr(Unasked, "_filed", late)  # noqa: B010  # a method is no variable to the type checker


def acknowledge_early() -> None:
    """The bug."""
    handle = Unasked._handle

    async def early(
        self: Unasked, frame: Frame, raw: bytes, late: bool, at: datetime, receipts: tuple[Receipt, ...]
    ) -> None:
        with suppress(LinkClosed):
            if frame.con:
                await self._session.confirm(frame)
        await finish(receipts)
        await handle(self, replace(frame, con=False), raw, late, at, ())

    setattr(Unasked, "_handle", early)  # noqa: B010  # as above


def forget() -> None:
    """The bug; MQTT 3.1.1."""
    began = aiomqtt.Client.__init__

    def clean(self: aiomqtt.Client, *given: Any, **named: Any) -> None:
        began(self, *given, **{**named, "clean_session": True})

    setattr(aiomqtt.Client, "__init__", clean)  # noqa: B010  # as above


BUGS: Final[Mapping[str, Callable[[], None]]] = {"acknowledges early": acknowledge_early, "forgets": forget}


def main() -> None:
    """Plant, and be `lingdian`."""
    commit_late(float(os.environ["LATE_S"]))
    planted = os.environ["PLANTED"]
    if planted != "nothing":
        BUGS[planted]()
    from gateway.cli import main as lingdian

    lingdian()


if __name__ == "__main__":
    main()
