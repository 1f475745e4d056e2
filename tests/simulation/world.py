"""A small company in simulated time: meters behind terminals, two gateways that die and come back, one
database.

The code under test is all of relay control but its storage and its sessions, twice over one store.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Final

from gateway.command import ENDS, GATED_AS_TRIP, Action, Command, Limits, MeterFacts, State
from gateway.control.policy import Rules
from gateway.model import MeterClass, Point, PointRole, RelayKind, TerminalAssets
from tests.gateway.control.test_policy import FACTS
from tests.simulation.company import Company
from tests.simulation.doors import LINGERS, Login, Written
from tests.simulation.loop import VirtualClock
from tests.simulation.meter_side import Network, SimMeter
from tests.simulation.worker import Worker

LIMITS: Final = Limits(area=3, requester=4, all=4, window=timedelta(hours=1))
"""Small, so that they are reached."""
TERMINALS: Final = 2
METERS_EACH: Final = 2
WORKERS: Final = ("w1", "w2")

_KINDS: Final = (
    RelayKind.BUILT_IN,
    RelayKind.BUILT_IN,
    RelayKind.EXTERNAL_SELF_CLOSING,
    RelayKind.EXTERNAL_HAND_CLOSING,
)


class World:
    """Everything outside the code under test, and what was seen there."""

    def __init__(self, seed: int, clock: VirtualClock) -> None:
        self.chance = random.Random(seed)
        self.clock = clock
        self.fired: dict[str, int] = {}
        self.broken: list[str] = []
        """rules that were seen to be broken while it went on"""
        self.rules = Rules(limits=LIMITS)
        terminals = range(1, TERMINALS + 1)
        self.meters: dict[int, SimMeter] = {}
        facts: dict[int, MeterFacts] = {}
        for meter_id in range(1, TERMINALS * METERS_EACH + 1):
            kind = self.chance.choice(_KINDS)
            self.meters[meter_id] = SimMeter(meter_id, clock, kind)
            facts[meter_id] = self._facts(meter_id, kind)
        self.company = Company(self.chance, clock, facts, self.count)
        self.networks = {terminal: Network(self.chance, self.count) for terminal in terminals}
        self.assets = {
            terminal: TerminalAssets(
                terminal,
                f"0200{terminal:04x}",
                "",
                tuple(_point(one) for one in facts.values() if one.terminal_id == terminal),
            )
            for terminal in terminals
        }
        self.logins: dict[int, list[Login]] = {terminal: [] for terminal in terminals}
        self.workers = {name: Worker(self, name) for name in WORKERS}
        self.written: list[Written] = []
        self.clock_trusted = True
        self.strangers: set[int] = set()
        """meters at whose point another one answers now"""
        self.clock_unreadable = 0.0
        self.security_fails = 0.0
        self.billing_asked = False
        self.billing_silent = 0.0
        self.paid: set[int] = set()
        """meters of which billing's last word was a payment"""
        self.at_point: Callable[[str], None] = lambda point: None
        """told of the points that a gateway's course comes to"""
        self.beside_write: Callable[[str], None] = lambda worker: None
        """told of a gateway that is about to write"""
        self.down = False
        """the database is being restored: no gateway runs"""

    def _facts(self, meter_id: int, kind: RelayKind) -> MeterFacts:
        terminal_id = (meter_id - 1) // METERS_EACH + 1
        return replace(
            FACTS,
            meter_id=meter_id,
            meter=f"M{meter_id}",
            address=f"{meter_id:012d}",
            terminal_id=terminal_id,
            terminal=f"0200{terminal_id:04x}",
            pn=meter_id,
            relay_kind=kind,
            area_id=terminal_id,
            organisation_id=terminal_id,
            customer=f"C{meter_id}",
            restore_mode=self.chance.choice(("close", "close", "permit")),
        )

    def count(self, what: str) -> None:
        """Something happened, or a fault fired."""
        self.fired[what] = self.fired.get(what, 0) + 1

    def carries(self, login: Login) -> bool:
        """Is this connection still there?"""
        return login.ends is None or self.clock.now() < login.ends

    def login(self, terminal_id: int, worker: str) -> None:
        """The terminal dials in anew, at this gateway; what is under way on the old link may linger."""
        before = self.logins[terminal_id]
        kept = self.company.store.kept
        generation = 1
        if before:
            old = before[-1]
            generation = old.generation + 1
            old.ends = self.clock.now() + self.chance.choice((0, 0, 1)) * LINGERS
            if old.worker != worker and self.carries(old):
                self.count("two gateways at one terminal")
        if any(
            row.command.state in (State.UNCERTAIN, State.SENDING)
            and self.company.store.meters[row.command.meter_id].terminal_id == terminal_id
            for row in kept.rows.values()
        ):
            self.count("redial while uncertain")
        self.logins[terminal_id] = [*before[-1:], Login(worker, generation, self.assets[terminal_id])]
        kept.owners[terminal_id] = (worker, generation)
        self.workers[worker].wake()

    def with_open_trips(self) -> list[int]:
        """Meters that may go dark soon."""
        kept = self.company.store.kept.rows.values()
        commands = [row.command for row in kept if row.command.action is Action.TRIP]
        return sorted({one.meter_id for one in commands if one.state not in ENDS})

    def newest_login(self, terminal_id: int) -> Login:
        return self.logins[terminal_id][-1]

    def live(self, terminal_id: int) -> bool:
        """Is it known that nobody behind this terminal is in shadow mode?"""
        meters = self.company.store.meters.values()
        return not any(one.shadow for one in meters if one.terminal_id == terminal_id)

    async def ask_billing(self, command: Command, facts: MeterFacts, /) -> bool | None:
        """Satisfies `control.gates.AskBilling`."""
        if not self.billing_asked or command.action not in GATED_AS_TRIP:
            return True
        await asyncio.sleep(self.chance.uniform(0.0, 2.0))
        if self.chance.random() < self.billing_silent:
            self.count("billing silent")
            return None
        return facts.meter_id not in self.paid


def _point(facts: MeterFacts) -> Point:
    return Point(
        pn=facts.pn,
        meter_id=facts.meter_id,
        meter=facts.meter,
        address=facts.address,
        protocol=facts.protocol,
        meter_class=MeterClass.SINGLE_PHASE,
        role=PointRole.CUSTOMER,
        tariffs=4,
        port=facts.port,
        ct=1,
        pt=1,
        profile=facts.profile,
        valid_from=None,
        valid_to=None,
    )
