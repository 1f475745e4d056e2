"""Terminals that push what they read at midnight in a burst, through a real Mosquitto into `lingdian serve`;
what is planted at the broker; and what came of it all."""

from __future__ import annotations

import asyncio
import json
import random
import time
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, Final, Literal, Self

import aiomqtt
import httpx
import psycopg
from prometheus_client.parser import text_string_to_metric_families
from psycopg.conninfo import make_conninfo

from gateway.clock import business_day
from gateway.storage import embedded
from gateway.storage.database import Database
from gateway.storage.imports import import_assets
from protocols.dlt645 import control, frame
from protocols.dlt645.control_messages import RelayCommand, Verb
from protocols.dlt645.fields import Authority
from protocols.permit import Permit
from protocols.q_gdw376 import messages, midnight
from protocols.q_gdw376.connection import Master
from protocols.q_gdw376.frame import Frame, build
from simulator.clock import wall
from simulator.district import District, MeterPlan, Quantity, TerminalPlan
from simulator.faults import deal, from_table
from tests.end_to_end.mqtt_pushes import Comparison, Pushes, Stored, Values, compare
from tests.end_to_end.processes import Gateway, Simulator, until
from tests.end_to_end.transports import written
from tests.gateway.transports.broker import Mosquitto

Version = Literal["3.1.1", "5"]

DOCUMENTS: Final = Path(__file__).parents[2] / "docs" / "mqtt"

OLDEST_S: Final = 60
"""JSON envelopes that were sent longer ago are ignored."""

WIRE: Final = 31
"""The port of the meters behind a terminal."""

ROWS: Final = """
    SELECT m.number, 'quantity ' || r.quantity || ' kind ' || r.kind || ' at ' || r.frozen_at,
        r.total, r.t1, r.t2, r.t3, r.t4
    FROM register_reading AS r JOIN meter AS m USING (meter_id)
    UNION ALL
    SELECT m.number, 'conflict', c.total, c.t1, c.t2, c.t3, c.t4
    FROM reading_conflict AS c JOIN meter AS m USING (meter_id)
"""


@dataclass(frozen=True)
class Size:
    """confirming terminals push each task again until it is confirmed; trusting ones say it once, at QoS 1,
    `pause` seconds after the last one. Two more stay quiet."""

    confirming: int
    trusting: int
    meters: int
    """of each"""
    points: int
    """in one task"""
    pause: float

    @property
    def terminals(self) -> int:
        return self.confirming + self.trusting + 2


def shipped_settings() -> str:
    """What we advise for Mosquitto, but for where it is and who may come in."""
    ours = {
        "listener",
        "certfile",
        "keyfile",
        "persistence",
        "persistence_location",
        "password_file",
        "acl_file",
    }
    lines = (DOCUMENTS / "mosquitto.conf").read_text(encoding="utf-8").splitlines()
    kept = [line for line in lines if line.split(" ")[0] not in {*ours, "allow_anonymous"}]
    return "\n".join([*kept, "allow_anonymous true"])


class Town:
    """Everything started, and all terminals logged in and soon pushing."""

    def __init__(
        self,
        folder: Path,
        size: Size,
        *,
        seed: int,
        version: Version = "3.1.1",
        module: str = "gateway",
        environment: dict[str, str] | None = None,
        planted: bool = False,
    ) -> None:
        """module: what is run as the gateway. planted: before anybody is there, retained messages are put in
        both ways."""
        folder.mkdir(parents=True, exist_ok=True)
        self.chance = random.Random(seed)
        self.day: date = business_day(datetime.now(UTC)) - timedelta(days=1)
        self.broker = Mosquitto(folder, more=shipped_settings(), bare=True)
        self.pushes = Pushes(folder / "pushes.jsonl")
        self.ledger = folder / "ledger.jsonl"
        self.doubtful: list[tuple[float, float]] = []
        """spans in which the broker took what it may have forgotten when it was killed"""
        self.kills = 0
        self._folder = folder
        self._version: Version = version
        self.has_times = version == "3.1.1"
        """frames go in JSON envelopes that say when they were sent"""
        self._planted = planted
        self._stack = ExitStack()
        self.gateway = Gateway(
            folder / "gateway",
            {"LINGDIAN_CONFIG": str(folder / "lingdian.toml"), **(environment or {})},
            module=module,
        )
        self._size = size
        self._district = District(seed, size.terminals, size.terminals * size.meters, self.day)
        more = [
            f"--mqtt-version={version}",
            f"--pushes={self.pushes.path}",
            f"--ledger={self.ledger}",
            "--heartbeat=2",
        ]
        if self.has_times:
            more += ["--mqtt-payload=json", "--mqtt-time-key=at"]
        self.simulator = Simulator(
            folder,
            terminals=size.terminals,
            meters=size.terminals * size.meters,
            day=str(self.day),
            seed=seed,
            more=more,
        )
        push = {
            "count": size.confirming + size.trusting, "trusting": size.trusting, "points": size.points,
            "after": 0.1, "again": 1.0, "pause": size.pause,
        }  # fmt: skip
        faults = {"seed": seed, "push": push}
        self.simulator.faults(faults)
        dealt = {plan.address: mine for plan, mine in deal(from_table(faults), self._district)}
        self.confirming = self._single({a for a, mine in dealt.items() if mine.push and not mine.trusting})
        self.trusting = self._single({a for a, mine in dealt.items() if mine.trusting})
        """meters whose reading is pushed"""
        self.quiet = [one for one in self._district.terminals if not dealt[one.address].push]
        self.truth: dict[str, Values] = {
            row.meter: tuple(value * 100 for value in row.registers)
            for row in self._district.truth()
            if row.quantity is Quantity.FORWARD_ACTIVE
        }

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            stack.enter_context(self.broker)
            self._configure()
            if self._planted:
                self._plant()
            stack.enter_context(self.gateway)
            self.gateway.start()
            self._district.write_assets(self.simulator.assets)
            asyncio.run(self._import())
            self.broker.write_down()  # with the gateway's session: for others it keeps nothing
            stack.enter_context(self.simulator)
            self.simulator.connect(f"mqtt://127.0.0.1:{self.broker.port}")
            self.simulator.line("logged_in")
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stack.close()

    def _configure(self) -> None:
        section: dict[str, Any] = {
            "channel": f"mqtt://127.0.0.1:{self.broker.port}", "identifier": "head", "version": self._version,
        }  # fmt: skip
        if self.has_times:
            section |= {"payload": "json", "time_key": "at", "oldest_seconds": OLDEST_S}
        (self._folder / "lingdian.toml").write_text(written({"mqtt.town": section}), encoding="utf-8")

    async def _import(self) -> None:
        """What `lingdian import` does, without the seconds that it takes to start."""
        folder = self.simulator.assets
        async with await Database.open(self._database) as database:
            report = await import_assets(
                database, terminals=folder / "terminals.csv", meters=folder / "meters.csv"
            )
        assert not report.bad, report.problems

    @property
    def _database(self) -> str:
        sockets = embedded._Server(self.gateway.state / "database").sockets
        return make_conninfo(host=str(sockets), user="lingdian", dbname=embedded.DATABASE)

    def _single(self, terminals: set[str]) -> set[str]:
        """Their meters that are pushed."""
        return {
            meter.number
            for terminal, meter in self._district.meters()
            if terminal.address in terminals and meter.meter_class == "single_phase"
        }

    # what goes on

    @property
    def acknowledged(self) -> set[str]:
        """Meters whose reading is counted as safe by who pushed it."""
        return self.pushes.confirmed() | (self.pushes.published(self.doubtful) & self.trusting)

    def progress(self) -> int:
        """Meters of which something was acknowledged so far, by whomever."""
        return len(self.pushes.confirmed() | (self.pushes.published() & self.trusting))

    @property
    def whole(self) -> int:
        return len(self.confirming | self.trusting)

    def until_progress(self, meters: int, seconds: float = 180.0) -> None:
        """Long: a gateway that has lost its broker several times in a minute waits up to 30 s for it."""
        end = time.monotonic() + seconds
        while self.progress() < meters:
            assert time.monotonic() < end, (
                f"{self.progress()} of {meters} pushed\n{self.gateway.last_words()}"
            )
            time.sleep(0.004)

    def until_pushed(self, seconds: float = 60.0) -> None:
        """Wait until all was pushed, and confirmed where that is wanted."""
        until(
            lambda: self.pushes.confirmed() >= self.confirming and self.pushes.sent() >= self.trusting,
            seconds,
            "all is pushed",
        )

    def moments(self, kills: int) -> list[int]:
        """When to kill, in meters acknowledged; from the seed."""
        return sorted(self.chance.sample(range(self.whole // 10, self.whole * 8 // 10), kills))

    def kill_broker(self, at: int, *, gateway: bool = False) -> None:
        """When `at` meters are done: have it write down what it knows, kill it some messages later, and start
        it anew after a while. gateway: that dies those messages before it."""
        self.until_progress(at)
        began = time.time()
        self.broker.write_down()
        more = self.progress() + self.chance.randint(gateway, 4)
        if gateway:
            self.gateway.kill()
            with suppress(AssertionError):  # who is not logged in now pushes nothing
                self.until_progress(more, 2.0)
        else:
            self.until_progress(more)
        assert self.progress() < self.whole, "it is killed in mid-burst"
        self.broker.stop(at_once=True)
        time.sleep(self.chance.uniform(0.0, 0.6))
        self.broker.start()
        self.doubtful.append((began, time.time()))
        if gateway:
            self.gateway.start()
        self.kills += 1

    # what is planted

    def _plant(self) -> None:
        """Retained: a trip for a quiet terminal, and a reading of one that is false."""
        self.publish(self.quiet[0], "down", self.trip(self.quiet[0]), retain=True)
        self.publish(self.quiet[1], "up", self.report(self.quiet[1], 1, false=True), retain=True)

    def publish(
        self, terminal: TerminalPlan, way: str, data: bytes, *, retain: bool = False, age_s: float = 0.0
    ) -> None:
        """Put a frame on a terminal's topic. age_s: how old its envelope says it is."""
        payload = data
        if self.has_times:
            payload = json.dumps({"frame": data.hex(), "at": int((time.time() - age_s) * 1000)}).encode()

        async def once() -> None:
            async with aiomqtt.Client("127.0.0.1", self.broker.port) as client:
                await client.publish(f"lingdian/{terminal.address}/{way}", payload, 1, retain)

        asyncio.run(once())

    def single_phase(self, terminal: TerminalPlan, number: int) -> MeterPlan:
        return [meter for meter in terminal.meters if meter.meter_class == "single_phase"][number]

    def report(self, terminal: TerminalPlan, number: int, *, false: bool = False) -> bytes:
        """A task with what one of its meters had at midnight. false: it had less."""
        meter = self.single_phase(terminal, number)
        frozen = self.day + timedelta(days=1)
        at = datetime(frozen.year, frozen.month, frozen.day, 0, 5)
        registers = tuple(
            100 * value + 100 * false for value in meter.at_midnight(Quantity.FORWARD_ACTIVE, frozen)
        )
        body = midnight.encode(meter.pn, 161, self.day, at, registers)
        return build(
            Frame(terminal=terminal.address, up=True, prm=True, function=4, afn=0x0D, body=body, pseq=9)
        )

    def trip(self, terminal: TerminalPlan) -> bytes:
        """A trip, forwarded to the first meter of a terminal, that it would execute."""
        address = self.single_phase(terminal, 0).address
        deadline = (wall(time.time()) + timedelta(minutes=10)).replace(microsecond=0)
        command = RelayCommand(address, Verb.TRIP, Authority("02", "123456", "00000001"), deadline)
        said = control.build_control(command, Permit(control.action(Verb.TRIP), address, "a test"))
        request = messages.forward(WIRE, frame.build(said, lead_in=4), 20.0, 1000)
        master = Master(reply_timeout=10.0)
        master.terminal = terminal.address
        return master.send(replace(request, permit=Permit("376 10 f1", terminal.address, "a test")), 0.0)

    def saw(self, meter: MeterPlan, what: str) -> list[dict[str, Any]]:
        """What that meter saw of relay control."""
        lines = [json.loads(line) for line in self.ledger.read_text(encoding="utf-8").splitlines()]
        return [line for line in lines if line["meter"] == meter.address and line["what"] == what]

    # what came of it

    def fates(self) -> dict[str, int]:
        """What became of messages at the gateway since it was started."""
        transport = httpx.HTTPTransport(uds=str(self.gateway.state / "gateway.sock"))
        with httpx.Client(transport=transport, base_url="http://gateway", timeout=10.0) as http:
            text = http.get("/metrics").text
        return {
            sample.labels["fate"]: int(sample.value)
            for family in text_string_to_metric_families(text)
            if family.name == "lingdian_mqtt_messages"
            for sample in family.samples
        }

    def stored(self) -> list[Stored]:
        """All that the database has of any meter."""
        with psycopg.connect(self._database) as connection:
            return [
                Stored(meter, what, tuple(value for value in values if value is not None))
                for meter, what, *values in connection.execute(ROWS)
            ]

    def until_stored(self, meters: set[str], seconds: float) -> None:
        """Wait until something is stored of each of them, or for so long."""
        with suppress(AssertionError):
            until(lambda: {row.meter for row in self.stored()} >= meters, seconds, "all is stored")

    def until_delivered(self, seconds: float = 30.0) -> None:
        """Wait until the gateway has filed a report that the broker got just now: all earlier ones were
        delivered before."""
        quiet = self.quiet[0]
        marker = self.single_phase(quiet, 1).number
        self.publish(quiet, "up", self.report(quiet, 1))
        until(
            lambda: marker in {row.meter for row in self.stored()}, seconds, "what is reported now is stored"
        )

    def compare(self) -> Comparison:
        return compare(self.acknowledged, self.truth, self.stored())

    def figures(self) -> dict[str, int]:
        """For people."""
        comparison = self.compare()
        forgotten = (self.pushes.published() & self.trusting) - {row.meter for row in self.stored()}
        return {
            "kills": self.kills, **self.pushes.counts(), "acknowledged_readings": len(self.acknowledged),
            "stored": len(self.stored()), "lost": len(comparison.lost), "wrong": len(comparison.wrong),
            "doubled": len(comparison.doubled), "forgotten_by_the_broker": len(forgotten - self.acknowledged),
        }  # fmt: skip
