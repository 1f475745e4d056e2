"""Two gateways on one database, one broker and one load balancer, with terminals behind both."""

from __future__ import annotations

import time
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import psycopg

from gateway.clock import business_day
from tests.end_to_end.balancer import Balancer
from tests.end_to_end.ledger import Comparison, compare
from tests.end_to_end.processes import Gateway, Simulator, until
from tests.end_to_end.transports import written
from tests.gateway.transports.broker import Mosquitto

SETTINGS: Final = {
    "LINGDIAN_SESSION__REPLY_TIMEOUT_SECONDS": "5",
    "LINGDIAN_SESSION__TAKEOVER_LISTEN_SECONDS": "2",
    "LINGDIAN_COLLECTION__BACKOFF_SECONDS": "1",
    "LINGDIAN_COLLECTION__BACKOFF_LIMIT_SECONDS": "3",
    "LINGDIAN_COLLECTION__POINTS_PER_REQUEST": "2",
    "LINGDIAN_DATABASE__BATCH_ROWS": "200",
}
SLOW_ANSWERS: Final = {"seed": 3, "delay": {"least": 0.5, "most": 1.5}}
AREA_CODES: Final = {"tcp": 351, "mqtt": 352}

OWNERS: Final = """
    SELECT t.address, split_part(s.worker, ':', 2)::int, s.generation, s.peer
    FROM terminal_session AS s JOIN terminal AS t USING (terminal_id)
"""
ROWS_OF: Final = """
    SELECT t.address, count(r.meter_id) FROM terminal AS t
    JOIN meter_install AS i USING (terminal_id)
    LEFT JOIN register_reading AS r ON r.meter_id = i.meter_id AND r.kind = 1
    GROUP BY 1
"""
"""Midnights only: where the day closes a month, its registers of the month come beside them."""


@dataclass(frozen=True)
class Size:
    """Of a run. terminals, meters: over TCP, and as many over MQTT."""

    terminals: int
    meters: int
    heartbeat: int
    lease: float
    takeover: float
    """seconds in which all terminals of the one that died are with the other"""
    by_schedule: bool = False
    """nobody asks for the day: each gateway does by itself"""


@dataclass(frozen=True)
class Owner:
    """A row of `terminal_session`."""

    pid: int
    generation: int
    peer: str

    @property
    def by_mqtt(self) -> bool:
        return self.peer.startswith("mqtt://")


class Pair:
    """Started whole; `stack` ends it."""

    def __init__(
        self, folder: Path, conninfo: str, size: Size, stack: ExitStack, planted: str | None = None
    ) -> None:
        self.day = str(business_day(datetime.now(UTC)) - timedelta(days=1))
        self.size = size
        self._database = stack.enter_context(psycopg.connect(conninfo, autocommit=True))
        self._pool = stack.enter_context(ThreadPoolExecutor(2))
        self._bug = folder / "bug"
        (folder / "broker").mkdir()
        broker = stack.enter_context(Mosquitto(folder / "broker"))
        self.gateways = [
            self._gateway(folder / name, conninfo, broker, planted) for name in ("north", "south")
        ]
        self.simulators = [self._district(folder / way, way) for way in AREA_CODES]
        for one in (*self.gateways, *self.simulators):
            stack.enter_context(one)
        list(self._pool.map(Simulator.grow, self.simulators))
        list(self._pool.map(Gateway.start, self.gateways))
        self._import(folder)
        balancer = stack.enter_context(Balancer([(one.host, one.port) for one in self.gateways]))
        ways = {"tcp": balancer.address, "mqtt": f"mqtt://127.0.0.1:{broker.port}"}
        for simulator, address in zip(self.simulators, (ways[way] for way in AREA_CODES), strict=True):
            simulator.connect(address)
        until(lambda: len(self.owners()) == 2 * size.terminals, 120.0, "all are there")
        assert self._shared_out()

    def _gateway(self, folder: Path, conninfo: str, broker: Mosquitto, planted: str | None) -> Gateway:
        folder.mkdir()
        section = {
            "channel": f"mqtt://127.0.0.1:{broker.port}",
            "identifier": folder.name,
            "gateway": folder.name,
            "group": "pair",
            "lease_seconds": self.size.lease,
            "shared": ["lingdian/{terminal}/login"],
        }
        session = {"heartbeat_seconds": self.size.heartbeat}
        config = folder / "lingdian.toml"
        config.write_text(written({"mqtt.county": section, "session": session}), encoding="utf-8")
        settings = {
            **SETTINGS, "LINGDIAN_CONFIG": str(config), "LINGDIAN_DATABASE__URL": conninfo,
            "PLANTED": planted or "", "PLANTED_FROM": str(self._bug),
        }  # fmt: skip
        if self.size.by_schedule:  # the first pass of today has been, so each is asked at its login
            settings |= {
                "LINGDIAN_COLLECTION__ENABLED": "true", "LINGDIAN_COLLECTION__PASSES": '["00:00"]',
                "LINGDIAN_COLLECTION__DAYS_BACK": "1",
            }  # fmt: skip
        module = "gateway" if planted is None else "tests.end_to_end.gateway_of_a_pair"
        return Gateway(folder / "g", settings, module=module)

    def _district(self, folder: Path, way: str) -> Simulator:
        simulator = Simulator(
            folder,
            terminals=self.size.terminals,
            meters=self.size.meters,
            day=self.day,
            more=(
                f"--area-code={AREA_CODES[way]}", f"--heartbeat={self.size.heartbeat}",
                "--mqtt-login=lingdian/{terminal}/login",
            ),
        )  # fmt: skip
        simulator.faults(SLOW_ANSWERS)
        return simulator

    def _import(self, folder: Path) -> None:
        """The assets of both districts at once."""
        for file in ("terminals.csv", "meters.csv"):
            (folder / file).write_text(joined(one.assets / file for one in self.simulators), encoding="utf-8")
        self.gateways[0].json(
            "import", f"--terminals={folder / 'terminals.csv'}", f"--meters={folder / 'meters.csv'}"
        )

    def begin_bug(self) -> None:
        """From now on the planted mistake is made."""
        self._bug.touch()

    # what the database says

    def owners(self) -> dict[str, Owner]:
        """Who has which terminal."""
        return {address: Owner(*rest) for address, *rest in self._database.execute(OWNERS).fetchall()}

    def rows(self) -> dict[str, int]:
        """Readings stored, by terminal."""
        return dict(self._database.execute(ROWS_OF).fetchall())

    def _shared_out(self) -> bool:
        """Both gateways have terminals of either kind."""
        kinds = {(one.pid, one.by_mqtt) for one in self.owners().values()}
        return len(kinds) == 4

    # the sweep

    def collect(self) -> Future[Any] | None:
        """`lingdian collect` at both; what the second one said. None: by schedule."""
        if self.size.by_schedule:
            return None
        words = ("collect", f"--day={self.day}")
        collecting = [self._pool.submit(one.json, *words, ok=(0, 3)) for one in self.gateways]
        return collecting[1]

    def due(self) -> int:
        """Rows of a whole sweep."""
        return sum(one.truth.read_text().count("\n") - 1 for one in self.simulators)

    def comparison(self) -> Comparison:
        """Both districts' truth beside the export."""
        truth = self.gateways[0].state / "truth.csv"
        truth.write_text(joined(one.truth for one in self.simulators))
        return compare(truth, self.gateways[1].run("export", "readings"))

    @staticmethod
    def seconds_until(true: Any, seconds: float, what: str) -> float:
        """How long it took; AssertionError."""
        began = time.monotonic()
        until(true, seconds, what)
        return time.monotonic() - began


def joined(files: Iterable[Path]) -> str:
    """CSV files with one header."""
    first, *rest = (file.read_text(encoding="utf-8").splitlines(keepends=True) for file in files)
    return "".join([*first, *(line for lines in rest for line in lines[1:])])
