"""Reading ports that stop reading meters while relays behind them are switched (AFN05 F49), and go on
afterwards (F50), whatever happens to us.

That a port is paused stands in the database before the terminal is told so, and until it has confirmed that
it goes on. What is left over there, from a link that broke or a process that died, is made good once the
terminal is logged in here.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from datetime import datetime
from typing import Final, Protocol

import structlog

from gateway.clock import Clock
from gateway.errors import InputError, LinkClosed, StorageError
from gateway.session.channel import Urgency
from gateway.session.conversation import Outcome
from gateway.session.hold import Hold
from gateway.session.registry import Registry
from gateway.session.terminal import TerminalSession
from protocols.permit import Permit
from protocols.q_gdw376 import messages
from protocols.q_gdw376.connection import Confirmed

log = structlog.get_logger()

PAUSE, RESUME = 49, 50
"""Fn of AFN05."""

CONFIRM_TIMEOUT_S: Final = 15.0
"""The terminal answers these without asking a meter."""

GATHER_S: Final = 5.0
"""Logins are gathered for so long: after a restart they come by the thousand, and one look is enough."""

LOOK_AGAIN_S: Final = 300.0
"""Between two looks without a login: a terminal may have been silent when its port was to go on."""


class Pauses(Protocol):
    """Where it is written down. Every method may raise StorageError."""

    async def add(self, terminal_id: int, port: int, at: datetime) -> None:
        """Returns once it is committed; the same again changes nothing."""
        ...

    async def remove(self, terminal_id: int, port: int) -> None: ...

    async def all(self) -> Sequence[tuple[int, int]]:
        """(terminal_id, port) of every pause that stands."""
        ...


class ReadingPorts:
    """Built once. `run` makes good what is left over, as long as it runs."""

    def __init__(self, registry: Registry, pauses: Pauses, clock: Clock) -> None:
        self._registry = registry
        self._clock = clock
        self._pauses = pauses
        self._ours: set[tuple[int, int]] = set()
        """paused by somebody here who is at work"""
        self._logged_in = asyncio.Event()
        registry.on_login(lambda session: self._logged_in.set())

    async def pause(self, session: TerminalSession, hold: Hold, port: int) -> bool:
        """Have the terminal stop reading meters on `port`. True: it stands in the database, so call `resume`.

        False: it goes on reading, and nothing is left to do. Raises LinkClosed, then the rest is done later.
        """
        key = session.assets.terminal_id, port
        try:
            await self._pauses.add(*key, self._clock.now())
        except StorageError as error:
            log.warning("a port is not paused", terminal=session.address, port=port, why=str(error))
            return False
        self._ours.add(key)
        try:
            outcome = await _tell(session, hold, PAUSE, port)
        except LinkClosed:
            self._ours.discard(key)
            raise
        if not isinstance(outcome, Confirmed):
            log.warning("a port may not be paused", terminal=session.address, port=port)
        return True

    async def resume(self, session: TerminalSession, hold: Hold, port: int) -> bool:
        """Have the terminal read meters on `port` again; False: it did not confirm, and is told again later.
        Never raises."""
        key = session.assets.terminal_id, port
        self._ours.discard(key)
        try:
            outcome = await _tell(session, hold, RESUME, port)
            if not isinstance(outcome, Confirmed):
                log.warning("a port did not confirm that it reads again", terminal=session.address, port=port)
                return False
            await self._pauses.remove(*key)
        except (LinkClosed, StorageError) as error:
            log.warning("a port stays paused", terminal=session.address, port=port, why=str(error))
            return False
        return True

    async def run(self) -> None:
        """Resume what is left over: soon after logins, and now and then."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_AGAIN_S / self._clock.speed):
                    await self._logged_in.wait()
            await self._clock.sleep(GATHER_S)
            self._logged_in.clear()
            await self.resume_left_over()

    async def resume_left_over(self) -> None:
        """Resume the paused ports of terminals that are logged in here and that nobody here works on."""
        try:
            left = [key for key in await self._pauses.all() if key not in self._ours]
        except StorageError as error:
            log.warning("paused ports cannot be looked up", why=str(error))
            return
        if not left:
            return
        here = {session.assets.terminal_id: session for session in self._registry.sessions()}
        for terminal_id, port in left:
            session = here.get(terminal_id)
            if session is None or not session.alive:
                continue
            try:
                async with session.hold(Urgency.PERSON) as hold:
                    if (terminal_id, port) not in self._ours:
                        await self.resume(session, hold, port)
            except (LinkClosed, InputError) as error:
                log.warning("a port stays paused", terminal=session.address, port=port, why=str(error))


async def _tell(session: TerminalSession, hold: Hold, fn: int, port: int) -> Outcome:
    permit = Permit(f"376 05 f{fn}", session.address, f"relay work behind port {port}")
    request = messages.command(0x05, fn, values={"port": port}, permit=permit)
    return await hold.exchange(request, reply_timeout=CONFIRM_TIMEOUT_S)
