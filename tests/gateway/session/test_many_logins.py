"""When thousands log in together, few of them are at the database at a time, and nobody who has gone; and
those who never log in do not go together."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from gateway.model import TerminalAssets
from gateway.session.doorkeeper import LOGIN_SPREAD
from gateway.session.registry import ADMITTED_AT_ONCE
from gateway.session.settings import SessionSettings
from tests.gateway.session.stage import HandStore, assets, stage, until

MANY = 5 * ADMITTED_AT_ONCE


class Gate:
    """In front of a store: each look for a terminal waits until it is `open`, and is counted."""

    def __init__(self, store: HandStore) -> None:
        self.open = asyncio.Event()
        self.waiting = self.most = 0
        self._look = store.terminal

    async def terminal(self, address: str) -> TerminalAssets | None:
        self.waiting += 1
        self.most = max(self.most, self.waiting)
        try:
            await self.open.wait()
            return await self._look(address)
        finally:
            self.waiting -= 1


async def test_few_are_admitted_at_a_time_and_all_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    known = [
        replace(assets(), terminal_id=number, address=f"0200{number:04x}") for number in range(1, MANY + 1)
    ]
    async with stage(*known) as made:
        gate = Gate(made.store)
        monkeypatch.setattr(made.store, "terminal", gate.terminal)
        for one in known:
            device = made.dial(one.address)
            made.teach(device)
            await device.confirmed(await device.login())  # that does not wait for the database
        await until(lambda: gate.waiting == ADMITTED_AT_ONCE)
        gone = made.devices[-1]
        await gone.hang_up()
        await until(lambda: not made.registry.has(gone.address))
        gate.open.set()
        await until(lambda: len(list(made.registry.sessions())) == MANY - 1)
        assert gate.most == ADMITTED_AT_ONCE
        assert MANY not in [terminal_id for terminal_id, _ in made.store.logins]


async def test_peers_that_came_together_and_never_log_in_do_not_go_together() -> None:
    async with stage(settings=SessionSettings(login_deadline_s=600.0)) as made:
        came = made.clock.monotonic()
        for _ in range(MANY):
            made.dial()
        await until(lambda: len(made.registry._peers) == MANY)
        waits = sorted(peer.deadline() - came for peer in made.registry._peers)
    assert waits[0] >= 600.0
    assert waits[-1] <= 600.0 * (1 + LOGIN_SPREAD) + 60.0
    assert waits[-1] - waits[0] > 600.0 * LOGIN_SPREAD / 3


async def test_of_a_strangers_rubbish_only_the_beginning_is_kept() -> None:
    async with stage() as made:
        device = made.dial()
        for number in range(1, 6):
            await device.link.write(bytes([number]))
            await until(lambda told=number: made.count("damaged_total") == told)  # type: ignore[misc]
        await made.registry.close()
        assert [kept.raw for kept in made.store.raw] == [b"\x01"]
