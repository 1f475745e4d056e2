"""Every way to terminals and meters, each with a simulator of its own, all into one gateway."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import httpx

from gateway.clock import business_day
from simulator.district import District
from tests.end_to_end.processes import Gateway, Process, free_port, until
from tests.gateway.api.test_tls import issue
from tests.gateway.transports.broker import Mosquitto

ENVIRONMENT: Final = {
    "LINGDIAN_CONTROL__FROM_HOUR": "00:00",
    "LINGDIAN_CONTROL__TO_HOUR": "23:59:59",
    "LINGDIAN_CONTROL__ANY_DAY": "true",
    "LINGDIAN_CONTROL__TRUST_OWN_CLOCK": "true",
    "LINGDIAN_METERS__DEFAULT__PASSWORD": "123456",
    "LINGDIAN_SESSION__REPLY_TIMEOUT_SECONDS": "3",
    "LINGDIAN_SESSION__HEARTBEAT_SECONDS": "10",
    "LINGDIAN_SESSION__TAKEOVER_LISTEN_SECONDS": "2",
    "LINGDIAN_SESSION__FORWARD_MESSAGE_TIMEOUT_SECONDS": "3",
    "LINGDIAN_SESSION__FORWARD_MARGIN_SECONDS": "1",
    "LINGDIAN_SESSION__RELAY_CARRIER_TIMEOUT_SECONDS": "3",
    "LINGDIAN_SESSION__RELAY_WIRE_TIMEOUT_SECONDS": "3",
    "LINGDIAN_SESSION__RELAY_MARGIN_SECONDS": "1",
    "LINGDIAN_COLLECTION__POINTS_PER_REQUEST": "2",
    "LINGDIAN_COLLECTION__BACKOFF_SECONDS": "1",
    "LINGDIAN_COLLECTION__BACKOFF_LIMIT_SECONDS": "3",
    "LINGDIAN_COLLECTION__ON_DEMAND_SECONDS": "60",
}
ENDS: Final = ("verified", "refused", "failed", "cancelled", "expired", "superseded")
ANN, BOB = {"X-Requester": "ann"}, {"X-Requester": "bob"}
FIRST_AREA_CODE: Final = 301
SEED: Final = 7
SWEEPS: Final = 4
LINE_NAME: Final = "street-7"

Sections = dict[str, Any]
"""Of the settings' file, by dotted name."""


@dataclass(frozen=True)
class Way:
    """One way, and what goes wrong on it. must: counts of the simulator that must not be 0 in the end."""

    device: str = "district"
    """what the simulator plays: two terminals with 12 meters, one with 10, or a line with three"""
    channel: str = "tcp"
    """its scheme, or `pty`"""
    listens: bool = False
    """the simulator does, and the gateway dials"""
    more: tuple[str, ...] = ()
    """words of the simulator"""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """of the section that stands for it, beside its channel"""
    faults: Mapping[str, Any] = field(default_factory=dict)
    must: tuple[str, ...] = ()
    area_code: int | None = None
    """of its terminals; by default each way has the next one"""

    @property
    def is_line(self) -> bool:
        return self.device == "line"

    @property
    def mqtt(self) -> bool:
        return self.channel in ("mqtt", "mqtts")

    @property
    def sealed(self) -> bool:
        return self.channel in ("tcps", "mqtts")


BROKEN: Final = {"seed": 3, "split": {"fraction": 0.5}, "corrupt": {"fraction": 0.05}, "cut": {"count": 1}}
TWICE: Final = {"seed": 3, "messages": {"twice": 0.3}, "cut": {"count": 1}}

WAYS: Final[Mapping[str, Way]] = {
    "tcp": Way(faults=BROKEN, must=("split", "cut")),
    "tcps": Way(channel="tcps", faults=BROKEN, must=("split", "cut")),
    "tcp-dialled": Way(listens=True, faults=BROKEN, must=("split", "cut")),
    "tcps-dialled": Way(channel="tcps", listens=True, faults=BROKEN, must=("split", "cut")),
    "udp": Way(
        channel="udp",
        faults={"messages": {"loss": 0.05, "twice": 0.2}},
        must=("message_lost", "message_twice"),
        area_code=335,  # losses are drawn by address: here none falls on a login, or on what is asked at one
    ),
    "serial": Way("terminal", "pty", listens=True, faults={"split": {"fraction": 0.5}}, must=("split",)),
    "line-serial": Way(
        "line",
        "pty",
        listens=True,
        more=("--echo", "--noise=0.3", "--damage=0.1"),
        settings={"inter_byte_seconds": 0.2},
        must=("echo", "noise"),
    ),
    "line-server": Way(
        "line",
        listens=True,
        more=("--paced", "--drop=0.2", "--slow=0.005"),
        settings={"baud": 2400, "reply_timeout_seconds": 2.0},
        must=("drop", "slow"),
    ),
    "line-modem": Way(
        "line",
        more=(
            f"--name={LINE_NAME}", "--registration=DTU{name}", "--heartbeat-text=hex:24", "--heartbeat=0.5",
            "--silence=0.1",
        ),
        settings={"baud": 2400, "reply_timeout_seconds": 1.0},
        must=("registrations", "modem_heartbeats"),
    ),
    "mqtt-3.1.1": Way(
        channel="mqtt",
        more=("--mqtt-version=3.1.1",),
        settings={"version": "3.1.1"},
        faults=TWICE,
        must=("message_twice", "cut"),
    ),
    "mqtt-5": Way(
        channel="mqtt", more=("--mqtt-clients=1",), faults=TWICE, must=("message_twice", "cut")
    ),
    "mqtts": Way(
        channel="mqtts",
        more=("--mqtt-payload=json", "--mqtt-time-key=at"),
        settings={"payload": "json", "time_key": "at", "oldest_seconds": 60},
        faults=TWICE,
        must=("message_twice", "cut"),
    ),
}  # fmt: skip


class Played(Process):
    """A simulator of any kind, with its files in a folder of its own."""

    def __init__(self, name: str, way: Way, day: str, folder: Path) -> None:
        folder.mkdir(parents=True)
        area_code = way.area_code or FIRST_AREA_CODE + list(WAYS).index(name)
        super().__init__(name, folder)
        self.way = way
        self.assets = folder / "assets"
        self.truth = folder / "truth.csv"
        self.ledger = folder / "ledger.jsonl"
        size = {
            "district": ["--terminals=2", "--meters=12"],
            "terminal": ["--meters=10"],
            "line": ["--meters=3", "--profile=line"],
        }
        self._words = [
            "-m", "simulator", way.device, *size[way.device], f"--seed={SEED}", f"--area-code={area_code}",
            f"--day={day}", f"--assets={self.assets}", f"--truth={self.truth}", f"--ledger={self.ledger}",
            "--json", *way.more,
        ]  # fmt: skip
        if way.faults:
            faults = folder / "faults.json"
            faults.write_text(json.dumps(way.faults), encoding="utf-8")
            self._words.append(f"--faults={faults}")
        if not way.is_line:
            self._words.append("--heartbeat=5")
        grown = District(
            SEED, 2 if way.device == "district" else 1, 12, datetime.now(UTC).date(), area_code=area_code
        )
        self.terminals = [one.address for one in grown.terminals]
        """known before it is started"""

    def play(self, *words: str) -> None:
        """Start it, and wait until its files are written."""
        self.launch([*self._words, *words])
        self.line("grown")

    def places(self) -> dict[str, str]:
        """Where it can be dialled, by the name of the terminal or line."""
        found = {}
        for _ in self.terminals:
            said = self.line("listening")
            found[said["name"]] = said["channel"]
        return found

    def end(self) -> dict[str, int]:
        """Stop it; what it counted."""
        assert self._process is not None
        self._process.terminate()
        said = self.line("end")
        self.stop()
        return dict(said["counts"])

    def rows(self, file: str) -> list[dict[str, str]]:
        """Of its terminals.csv or meters.csv."""
        with (self.assets / file).open(encoding="utf-8") as text:
            return list(csv.DictReader(text))


class Plant:
    """The gateway with all the ways that are wanted, each with its simulator."""

    def __init__(self, folder: Path, names: Iterable[str], stack: ExitStack) -> None:
        self._folder = folder
        self._stack = stack
        self.day = str(business_day(datetime.now(UTC)) - timedelta(days=1))
        self._authority = issue(folder, "authority")
        self._ours = issue(folder, "gateway", self._authority)
        self.gateway = Gateway(
            folder / "g", {**ENVIRONMENT, "LINGDIAN_CONFIG": str(folder / "lingdian.toml")}
        )
        self._ports = {channel: free_port() for channel in ("tcps", "udp", "modem")}
        self.played = {name: Played(name, WAYS[name], self.day, folder / name) for name in names}
        self._brokers = {name: self._broker(name) for name, one in self.played.items() if one.way.mqtt}
        transport = httpx.HTTPTransport(uds=str(self.gateway.state / "gateway.sock"))
        self._http = httpx.Client(transport=transport, base_url="http://gateway/api/v1", timeout=60.0)
        stack.callback(self._http.close)

    def open(self) -> None:
        """Start everything, bring in the assets, and wait a while until all terminals are there."""
        sections = self._listen()
        for name, one in self.played.items():
            self._stack.enter_context(one)
            sections |= self._reached(name, one)
        (self._folder / "lingdian.toml").write_text(written(sections), encoding="utf-8")
        self._stack.enter_context(self.gateway)
        self.gateway.start()
        for name, one in self.played.items():
            if not one.way.listens:
                one.play(f"--connect={self._dialled(name, one.way)}", *self._files(one))
        self._import()
        everybody = {terminal for one in self.played.values() for terminal in one.terminals}
        with suppress(AssertionError):  # a way that does not work is no reason to see nothing of the others
            until(lambda: self.online() >= everybody, 30.0, "all terminals are logged in")

    def collect(self) -> Any:
        """Ask for the midnight of yesterday, and again where meters on lines were silent: one sweep asks each
        of them once. What came of it."""
        for _ in range(SWEEPS):
            summary = self.gateway.json("collect", f"--day={self.day}", ok=(0, 3))
            if "meter_silent" not in summary["reasons"]:
                break
        return summary

    def _listen(self) -> Sections:
        host = self.gateway.host
        return {
            "listen": {
                "also": [f"tcps://{host}:{self._ports['tcps']}", f"udp://{host}:{self._ports['udp']}"],
                "certificate": self._ours.file,
                "key": self._ours.key,
                "client_authorities": self._authority.file,
                "certificates_name_terminals": True,
            }
        }

    def _reached(self, name: str, one: Played) -> Sections:
        """The sections by which the gateway reaches it; who listens is started for that."""
        way, own = one.way, dict(one.way.settings)
        trusted = {"authorities": self._authority.file} if way.sealed else {}
        if way.mqtt:
            broker = self._brokers[name]
            channel = f"{way.channel}://127.0.0.1:{broker.port}"
            if way.sealed:
                trusted |= {"certificate": self._ours.file, "key": self._ours.key}
            return {f"mqtt.{name}": {"channel": channel, "identifier": f"head-{name}", **trusted, **own}}
        if not way.listens:
            if not way.is_line:
                return {}
            channel = f"tcp://{self.gateway.host}:{self._ports['modem']}"
            modem = {"channel": channel, "registration": "DTU(?P<line>street-[0-9])", "heartbeats": ["$"]}
            return {f"lines.{LINE_NAME}": {"terminal": one.terminals[0], **own}, "modems.box": modem}
        where = "pty" if way.channel == "pty" else f"{way.channel}://127.0.0.1:0"
        one.play(f"--listen={where}", *self._files(one))
        places = one.places()
        if way.is_line:
            (channel,) = places.values()
            return {f"lines.{name}": {"terminal": one.terminals[0], "channel": channel, **own}}
        if way.sealed:
            trusted |= {"certificate": self._ours.file, "key": self._ours.key}
        return {f"dial.{name}-{place}": {"channel": to, **trusted} for place, to in places.items()}

    def _dialled(self, name: str, way: Way) -> str:
        host = self.gateway.host
        if way.mqtt:
            return f"{way.channel}://{host}:{self._brokers[name].port}"
        if way.is_line:
            return f"tcp://{host}:{self._ports['modem']}"
        port = self._ports.get(way.channel)
        return f"{way.channel}://{host}:{port}" if port else self.gateway.address

    def _files(self, one: Played, names: Iterable[str] | None = None) -> list[str]:
        """TLS of a simulator: a certificate that names its terminals, or others."""
        if not one.way.sealed:
            return []
        own = issue(self._folder, one.name, self._authority, names or one.terminals)
        return [f"--tls-ca={self._authority.file}", f"--tls-cert={own.file}", f"--tls-key={own.key}"]

    def _broker(self, name: str) -> Mosquitto:
        folder = self._folder / f"broker-{name}"
        folder.mkdir()
        if not WAYS[name].sealed:
            return self._stack.enter_context(Mosquitto(folder))
        return self._stack.enter_context(Mosquitto(folder, tls=self._ours, authority=self._authority))

    def _import(self) -> None:
        """All assets at once; each way is an organisation."""
        for file in ("terminals.csv", "meters.csv"):
            rows = []
            for name, one in self.played.items():
                rows += [
                    {**row, "organisation": name} if "organisation" in row else row for row in one.rows(file)
                ]
            (self._folder / file).write_text(table(rows), encoding="utf-8")
        folder = self._folder
        self.gateway.json(
            "import", f"--terminals={folder / 'terminals.csv'}", f"--meters={folder / 'meters.csv'}"
        )

    def stranger(self) -> Played:
        """A terminal that dials in with a certificate of ours, which names others."""
        one = Played("stranger", Way("terminal", "tcps", area_code=340), self.day, self._folder / "stranger")
        self._stack.enter_context(one)
        one.play(f"--connect={self._dialled('stranger', one.way)}", *self._files(one, names=["02001234"]))
        return one

    # what a clerk does

    def online(self) -> set[str]:
        """Terminals that are there now."""
        return {one["terminal"] for one in self._get("/terminals")["terminals"] if one["online"]}

    def _get(self, path: str) -> Any:
        answer = self._http.get(path, headers=ANN)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def post(self, path: str, body: dict[str, Any], who: dict[str, str] = ANN) -> Any:
        answer = self._http.post(path, json=body, headers={**who, "Idempotency-Key": uuid4().hex})
        assert answer.status_code < 300, answer.text
        return answer.json()

    def end_shadow(self, organisation: str) -> None:
        """One person proposes it, another approves."""
        wish = {"on": False, "organisation": organisation, "reason": "tried for a week"}
        self.post(f"/switches/{self.post('/switches/shadow', wish)['id']}/approve", {}, BOB)

    def switch(self, meter: str, action: str, seconds: float = 90.0) -> Any:
        """Ask for it once; the command when it has ended."""
        body = {"meter": meter, "action": action, "cause": "arrears", "notice": "N-1"}
        path = f"/relay-commands/{self.post('/relay-commands', body)['id']}"
        until(lambda: self._get(path)["state"] in ENDS, seconds, f"{path} ({action}) ends")
        return self._get(path)


def table(rows: list[dict[str, str]]) -> str:
    """As CSV."""
    out = io.StringIO()
    writer = csv.DictWriter(out, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def written(sections: Sections) -> str:
    """As TOML: texts, numbers and lists are there as in JSON."""
    lines = []
    for name, keys in sections.items():
        quoted = ".".join(json.dumps(part) for part in name.split(".", 1))
        lines.append(f"[{quoted}]")
        lines += [f"{key} = {json.dumps(value, default=str)}" for key, value in keys.items()]
    return "\n".join(lines) + "\n"
