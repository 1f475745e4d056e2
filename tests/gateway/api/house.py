"""Two organisations in a real database, the real control code over it, and clients that hold tokens."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import httpx
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gateway.api import app as api
from gateway.api.parts import Parts, RelayControl
from gateway.clock import Clock
from gateway.control.batches import Batches
from gateway.control.dispatcher import plain_frames
from gateway.control.policy import Rules
from gateway.control.protections import Protections
from gateway.control.requests import Requests
from gateway.control.switches import Switches
from gateway.control.tickets import Tickets
from gateway.session.settings import MeterProfile
from gateway.storage import clients, relay_evidence
from gateway.storage.batches import RelayBatches
from gateway.storage.blocks import ControlBlocks
from gateway.storage.clients import Scope
from gateway.storage.commands import Commands
from gateway.storage.database import Database
from gateway.storage.imports import import_assets
from gateway.storage.switches import ControlSettings
from tests.gateway.stand_ins import StandInHouse

NOON = datetime(2026, 11, 25, 4, 0, tzinfo=UTC)
"""a Wednesday, 12:00 in Shanghai"""

EAST, WEST = "东区", "西区"

TERMINALS = f"""terminal,organisation,area
02000001,{EAST},东一台区
02000002,{WEST},西一台区
"""

METERS = """meter,address,terminal,pn,cons_no
E1,000000000001,02000001,1,C-E1
E2,000000000002,02000001,2,C-E2
E3,000000000003,02000001,3,C-E3
W1,000000000011,02000002,1,C-W1
W2,000000000012,02000002,2,C-W2
"""

TRIP = {"meter": "E1", "action": "trip", "cause": "arrears", "notice": "N-1"}


@dataclass
class HandClock:
    """Shows what it is told to, and sleeps not at all long."""

    shown: datetime = NOON
    real: Clock = field(default_factory=Clock)

    def now(self) -> datetime:
        return self.shown

    def monotonic(self) -> float:
        return self.real.monotonic()

    async def sleep(self, seconds: float) -> None:
        await self.real.sleep(min(seconds, 0.02))

    def passes(self, seconds: float) -> None:
        self.shown += timedelta(seconds=seconds)


@dataclass
class House:
    """The gateway's interface over a database of two organisations."""

    database: Database
    clock: HandClock
    parts: Parts
    stack: AsyncExitStack
    tokens: dict[str, str] = field(default_factory=dict)

    async def token(
        self, name: str, scopes: Sequence[Scope] = tuple(Scope), organisation: str | None = None
    ) -> str:
        """A token of a client of that name; made at first use."""
        if name not in self.tokens:
            self.tokens[name] = await clients.create(
                self.database, name=name, scopes=scopes, organisation=organisation, by="test", at=NOON
            )
        return self.tokens[name]

    async def client(
        self, name: str, scopes: Sequence[Scope] = tuple(Scope), organisation: str | None = None
    ) -> httpx.AsyncClient:
        """The TCP face, asked with the token of that client."""
        return await self.bearer(await self.token(name, scopes, organisation))

    async def bearer(self, token: str | None) -> httpx.AsyncClient:
        """The TCP face, asked with that token."""
        headers = {} if token is None else {"authorization": f"Bearer {token}"}
        return await self._opened(api.by_token(self.parts, private=True), headers)

    async def at_socket(self, person: str | None = None) -> httpx.AsyncClient:
        """The unix socket's face, asked in the name of that person."""
        return await self._opened(api.full(self.parts), {} if person is None else {"x-requester": person})

    async def _opened(self, app: Any, headers: Mapping[str, str]) -> httpx.AsyncClient:
        transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
        http = httpx.AsyncClient(transport=transport, base_url="http://gateway", headers=dict(headers))
        return await self.stack.enter_async_context(http)

    async def rows(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        """What a statement finds."""
        async with self.database.connection() as connection:
            cursor = await connection.execute(statement.encode(), values)
            return await cursor.fetchall() if cursor.description is not None else []

    async def tell(self, type_: str, organisation: str | None = EAST, subject: str = "s") -> None:
        """An outgoing event, as control writes one."""
        await self.rows(
            "INSERT INTO outbox (at, type, subject, organisation_id, data)"
            " SELECT %s, %s, %s, (SELECT organisation_id FROM organisation WHERE name = %s), '{\"n\": 1}'",
            self.clock.now(),
            type_,
            subject,
            organisation,
        )

    async def live(self) -> None:
        """End shadow mode for both organisations, as two persons do."""
        for name in (EAST, WEST):
            await self.rows(
                "INSERT INTO control_setting (name, scope, value, set_by, set_at, approved_by, approved_at)"
                " SELECT 'shadow', 'organisation:' || organisation_id, 'false', 'one', %s, 'two', %s"
                " FROM organisation WHERE name = %s",
                NOON,
                NOON,
                name,
            )


@asynccontextmanager
async def made(database: Database, folder: Path, rules: Rules | None = None) -> AsyncIterator[House]:
    """The house with its meters and nothing asked yet."""
    (folder / "terminals.csv").write_text(TERMINALS)
    (folder / "meters.csv").write_text(METERS)
    report = await import_assets(database, terminals=folder / "terminals.csv", meters=folder / "meters.csv")
    assert report.bad == 0
    clock = HandClock()
    asked: Any = clock  # the parts want a Clock; what they ask of it is here
    stand_in = StandInHouse()
    parts = replace(
        stand_in.parts, clock=asked, database=database, relay=control(database, asked, rules or Rules())
    )
    async with AsyncExitStack() as stack:
        yield House(database, clock, parts, stack)
    await stand_in.collections.close()


def control(database: Database, clock: Clock, rules: Rules) -> RelayControl:
    """The real control code."""
    store, settings = Commands(database, clock), ControlSettings(database)
    requests = Requests(store, lambda: rules, clock, switches=settings)
    return RelayControl(
        requests=requests,
        batches=Batches(store, RelayBatches(database), requests, lambda: rules, clock),
        blocks=Protections(ControlBlocks(database), requests, clock),
        switches=Switches(settings, clock),
        tickets=Tickets(
            store,
            clock,
            lambda: rules,
            Ed25519PrivateKey.from_private_bytes(bytes(32)),
            plain_frames(lambda name: MeterProfile(password="123456")),
            partial(relay_evidence.happened, database),
        ),
    )


async def asked(http: httpx.AsyncClient, key: str, **other: object) -> dict[str, Any]:
    """A command that was accepted."""
    answer = await http.post("/api/v1/relay-commands", json=TRIP | other, headers={"idempotency-key": key})
    assert answer.status_code == 202, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def until(done: Callable[[], bool | Awaitable[bool]], seconds: float = 20) -> None:
    """Wait until it is so."""
    async with asyncio.timeout(seconds):
        while True:
            said = done()
            if said if isinstance(said, bool) else await said:
                return
            await asyncio.sleep(0.02)
