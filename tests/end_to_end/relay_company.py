"""A gateway that is killed again and again, its district on a fast clock, and the clerks who go on asking."""

from __future__ import annotations

import asyncio
import contextlib
import csv
import random
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import date, datetime
from pathlib import Path
from typing import Any, Final, NamedTuple
from uuid import uuid4

import httpx
import psycopg

from gateway.clock import SHANGHAI, Clock
from gateway.command import ENDS
from gateway.control.epoch import StateFile
from gateway.storage import chain, embedded
from gateway.storage.database import Database
from tests.end_to_end.processes import Gateway, Simulator, until
from tests.end_to_end.relay_clerks import Clerk
from tests.end_to_end.relay_comparison import Comparison
from tests.end_to_end.relay_ledgers import Seen, kept, meters_side

SPEED: Final = 60.0
"""District seconds a second: the ten minutes for which a meter may obey a trip take ten seconds."""

DAY: Final = date(2026, 11, 23)
START: Final = datetime(2026, 11, 24, 0, 10, tzinfo=SHANGHAI)

NEVER_REACHED_S: Final = 60.0
"""Real seconds after which a gateway that did not come to its point is killed as it is."""

SETTLED_S: Final = 90.0
"""Real seconds, one and a half hours of the district, in which all that can end has ended."""


class End(NamedTuple):
    """How a life of the gateway ends. point: "" for whenever it happens, `passes` hundredths of a second
    after it was ready."""

    point: str
    passes: int


class MortalGateway(Gateway):
    """`Gateway`, under the launcher that dies."""

    def __init__(self, state: Path, environment: dict[str, str]) -> None:
        super().__init__(state, environment, module="tests.end_to_end.gateway_that_dies")

    def live(self, end: End | None = None, bug: str = "") -> None:
        """Start it, with an end or a bug put into it. It may die before it is ready."""
        told = {"PLANTED_BUG": bug, "DIE_AT": "", "DIE_AT_PASS": ""}
        if end is not None and end.point:
            told |= {"DIE_AT": end.point, "DIE_AT_PASS": str(end.passes)}
        self._environment |= told
        while not self._lines.empty():
            self._lines.get_nowait()
        assert not self.running
        with contextlib.suppress(AssertionError):
            self.start()
        if end is None:
            assert self.running, self.last_words()

    def die(self, end: End) -> str:
        """Wait for the end that was put into it, and bring it about where that does not come; the point."""
        assert self._process is not None
        point = end.point
        try:
            self._process.wait(NEVER_REACHED_S if end.point else end.passes / 100)
        except subprocess.TimeoutExpired:
            point = ""
        self.kill()
        killed = self._process.returncode == -signal.SIGKILL
        assert killed, f"the gateway ended by itself:\n{self.last_words()}"
        return point


class Company:
    """One district with its gateway."""

    def __init__(self, folder: Path, *, terminals: int, meters: int) -> None:
        origin = time.time()
        self.clock = Clock(origin, START.timestamp(), SPEED)
        self.ledger = folder / "ledger.jsonl"
        fast = [f"--clock-start={START.isoformat()}", f"--clock-origin={origin}", f"--clock-speed={SPEED}"]
        self.simulator = Simulator(
            folder / "s",
            terminals=terminals,
            meters=meters,
            day=str(DAY),
            more=[*fast, f"--ledger={self.ledger}", "--heartbeat=300"],
        )
        self.gateway = MortalGateway(
            folder / "g",
            {
                "LINGDIAN_CLOCK__START": START.isoformat(),
                "LINGDIAN_CLOCK__ORIGIN": str(origin),
                "LINGDIAN_CLOCK__SPEED": str(SPEED),
                "LINGDIAN_CONTROL__FROM_HOUR": "00:00",
                "LINGDIAN_CONTROL__TO_HOUR": "23:59:59",
                "LINGDIAN_CONTROL__ANY_DAY": "true",
                "LINGDIAN_CONTROL__TRUST_OWN_CLOCK": "true",
                "LINGDIAN_CONTROL__AREA_LIMIT": "100000",
                "LINGDIAN_CONTROL__REQUESTER_LIMIT": "100000",
                "LINGDIAN_CONTROL__LIMIT": "100000",
                "LINGDIAN_METERS__DEFAULT__PASSWORD": "123456",
                # two seconds of a loaded machine are two minutes of the district
                "LINGDIAN_SESSION__LOGIN_DEADLINE_SECONDS": "600",
                "LINGDIAN_SESSION__REPLY_TIMEOUT_SECONDS": "600",
                "LINGDIAN_SESSION__RELAY_WIRE_TIMEOUT_SECONDS": "120",
                "LINGDIAN_SESSION__RELAY_MARGIN_SECONDS": "120",
            },
        )
        self.addresses: dict[str, str] = {}
        self._organisation = ""

    @contextlib.contextmanager
    def open(self) -> Iterator[Company]:
        """All of it up, with shadow mode off."""
        with self.gateway, self.simulator:
            self.simulator.grow()
            with (self.simulator.assets / "meters.csv").open(encoding="utf-8") as file:
                rows = [row for row in csv.DictReader(file) if row["role"] == "customer"]
            self.addresses = {row["meter"]: row["address"] for row in rows}
            with (self.simulator.assets / "terminals.csv").open(encoding="utf-8") as file:
                self._organisation = next(csv.DictReader(file))["organisation"]
            self.gateway.start()
            self.gateway.import_assets(self.simulator)
            self.simulator.connect(self.gateway.address)
            self._lift_shadow()
            try:
                yield self
            finally:
                if not self.gateway.running:  # the database has outlived it
                    asyncio.run(self._stop_database())

    async def _stop_database(self) -> None:
        folder = self.gateway.state / "database"
        await embedded.start(folder)
        await embedded.stop(folder)

    @property
    def socket(self) -> Path:
        return self.gateway.state / "gateway.sock"

    @property
    def conninfo(self) -> str:
        """Of the embedded database, whether a gateway runs or not."""
        sockets = embedded._Server(self.gateway.state / "database").sockets
        return f"host={sockets} user=lingdian dbname=lingdian"

    def _lift_shadow(self) -> None:
        with httpx.Client(
            transport=httpx.HTTPTransport(uds=str(self.socket)), base_url="http://gateway/api/v1"
        ) as http:

            def post(path: str, body: dict[str, Any], who: str) -> Any:
                headers = {"X-Requester": who, "Idempotency-Key": uuid4().hex}
                answer = http.post(path, json=body, headers=headers)
                assert answer.status_code < 300, answer.text
                return answer.json()

            off = {"on": False, "organisation": self._organisation, "reason": "tried"}
            proposed = post("/switches/shadow", off, "ann")
            post(f"/switches/{proposed['id']}/approve", {}, "bob")

    def clerk(self, name: str, meters: Sequence[str], seed: str) -> Clerk:
        """One who asks for things of these meters."""
        return Clerk(name, self.socket, meters, seed, self.clock.now)

    def kill(self, ends: Sequence[End]) -> Counter[str]:
        """The gateway lives once for each of `ends`, and runs when this returns; where it died how often."""
        died: Counter[str] = Counter()
        for end in ends:
            self.gateway.live(end)
            died[self.gateway.die(end) or "at random"] += 1
        self.gateway.live()
        return died

    def open_commands(self, meters: Sequence[str]) -> int:
        """Commands of these meters that have not ended."""
        with psycopg.connect(self.conninfo) as connection:
            row = connection.execute(
                "SELECT count(*) FROM relay_command JOIN meter USING (meter_id)"
                " WHERE number = ANY(%s) AND state <> ALL(%s)",
                (list(meters), [state.value for state in ENDS]),
            ).fetchone()
        assert row is not None
        return int(row[0])

    def wait_until_shown(self, at: datetime) -> None:
        """Until the district's clock shows `at`."""
        time.sleep(max(0.0, (at - self.clock.now()).total_seconds() / SPEED))

    def seen(self, meter: str) -> list[Seen]:
        """The control frames that this meter saw."""
        return [one for one in meters_side(self.ledger, [self.addresses[meter]]) if one.what == "frame"]

    def settle(self, meters: Sequence[str]) -> float:
        """Wait until all commands of these meters have ended, or long enough; real seconds."""
        began = time.monotonic()
        with contextlib.suppress(AssertionError):
            until(lambda: self.open_commands(meters) == 0, SETTLED_S, "all commands have ended")
        return time.monotonic() - began

    def compare(self, clerks: Sequence[Clerk], meters: Sequence[str]) -> Comparison:
        """The three ledgers, as far as they are of these meters."""
        for clerk in clerks:
            if clerk.error is not None:
                raise clerk.error
        addresses = [self.addresses[meter] for meter in meters]
        # The database first: what meters see afterwards would be missed there.
        rows, secret = kept(self.conninfo, addresses)
        seen = meters_side(self.ledger, addresses)
        return Comparison([clerk.book for clerk in clerks], seen, rows, secret, self.clock)

    def chain(self) -> chain.Verdict:
        """The events and seals as they are, with the seal in the epoch file."""

        async def verify() -> chain.Verdict:
            epoch = await StateFile(self.gateway.state / "epoch.json").load()
            assert epoch is not None
            async with await Database.open(self.conninfo) as database:
                return await chain.verify(database, epoch.seal)

        return asyncio.run(verify())


def ends(points: Sequence[str], kills: int, seed: int) -> list[End]:
    """So many ends: all points in turn, a fourth of them whenever it happens."""
    chance = random.Random(seed)
    named = iter(points)
    made = []
    for number in range(kills):
        if number % 4 == 3:
            made.append(End("", chance.randint(0, 150)))
            continue
        point = next(named, None)
        if point is None:
            named = iter(points)
            point = next(named)
        made.append(End(point, chance.randint(1, 8)))
    return made
