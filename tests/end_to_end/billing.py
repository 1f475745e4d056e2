"""A billing back end that calls the gateway's HTTP interface with its tokens, and what the meters saw of it.

For drills and benchmarks: requests may be many and at once, so they are written by hand on connections that
stay; two persons' tokens do what wants two.
"""

from __future__ import annotations

import asyncio
import contextlib
import csv
import json
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

from tests.end_to_end.processes import Gateway, Simulator, free_port, until

ANY_TIME = {
    "LINGDIAN_CONTROL__FROM_HOUR": "00:00",
    "LINGDIAN_CONTROL__TO_HOUR": "23:59:59",
    "LINGDIAN_CONTROL__ANY_DAY": "true",
    "LINGDIAN_CONTROL__TRUST_OWN_CLOCK": "true",
    "LINGDIAN_METERS__DEFAULT__PASSWORD": "123456",
}
"""Settings with which trips leave at any hour, on a machine that no time service keeps."""

API = "/api/v1"
_FRAME = '"what":"frame"'
LOGIN_SECONDS = 300.0
ANSWER_SECONDS = 900.0
"""A batch of thousands takes its time."""
IDLE_SECONDS = 3.0
"""A connection that was idle for longer may be closed by the gateway just now: it is not used again."""


class Seen(NamedTuple):
    """A control frame (1CH) as it reached a meter. at: seconds since 1970, of the simulator's clock."""

    at: float
    meter: str
    """address"""
    verb: str
    decision: str


@dataclass(frozen=True, slots=True)
class Customer:
    """A customer's meter, and the area (one for each terminal here) whose limit counts its trips."""

    meter: str
    address: str
    terminal: str


class Answer(NamedTuple):
    status: int
    body: Any


class _Stream(NamedTuple):
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    used: float
    """when last, monotonic"""


class Calls:
    """At most `connections` requests at one time with one token; each is written in one piece."""

    def __init__(self, host: str, port: int, token: str, connections: int) -> None:
        self._host, self._port, self._token = host, port, token
        self._idle: asyncio.Queue[_Stream | None] = asyncio.Queue()
        for _ in range(connections):
            self._idle.put_nowait(None)

    async def post(self, path: str, body: Any = None) -> Answer:
        """With an idempotency key of its own."""
        return await self._call("POST", path, json.dumps({} if body is None else body).encode())

    async def get(self, path: str) -> Any:
        """What is there; AssertionError where that is not 200."""
        answer = await self._call("GET", path, b"")
        assert answer.status == 200, answer
        return answer.body

    async def _call(self, method: str, path: str, content: bytes) -> Answer:
        head = (
            f"{method} {API}{path} HTTP/1.1\r\nHost: {self._host}\r\nAuthorization: Bearer {self._token}\r\n"
            f"Idempotency-Key: {uuid4().hex}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(content)}\r\n\r\n"
        )
        stream = await self._idle.get()
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                if stream is None or time.monotonic() - stream.used > IDLE_SECONDS:
                    if stream is not None:
                        stream.writer.close()
                    stream = _Stream(*await asyncio.open_connection(self._host, self._port), 0.0)
                stream.writer.write(head.encode() + content)
                answer = await _answer(stream.reader)
            stream = stream._replace(used=time.monotonic())
            return answer
        except BaseException:
            if stream is not None:
                stream.writer.close()
            stream = None
            raise
        finally:
            self._idle.put_nowait(stream)

    async def close(self) -> None:
        """End the connections, which nobody uses any more."""
        while not self._idle.empty():
            if (stream := self._idle.get_nowait()) is not None:
                stream.writer.close()
                with contextlib.suppress(ConnectionError):
                    await stream.writer.wait_closed()


async def _answer(reader: asyncio.StreamReader) -> Answer:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
    length = int(head.partition("content-length:")[2].partition("\r\n")[0])
    return Answer(int(head.split(" ", 2)[1]), json.loads(await reader.readexactly(length)))


class Company:
    """A gateway with HTTP for tokens, its district, and the ledger of its meters. Made by `company`."""

    def __init__(self, gateway: Gateway, simulator: Simulator, ledger: Path, http_port: int) -> None:
        self.gateway = gateway
        self.simulator = simulator
        self.ledger = ledger
        self.http_port = http_port
        with (simulator.assets / "meters.csv").open(encoding="utf-8") as file:
            self.customers = [
                Customer(row["meter"], row["address"], row["terminal"])
                for row in csv.DictReader(file)
                if row["role"] == "customer"
            ]
        self.terminal_of = {one.address: one.terminal for one in self.customers}
        self.billing = self._token("billing", "read", "control", "admin")
        self.second = self._token("second", "approve")

    def _token(self, name: str, *scopes: str) -> str:
        scope = [f"--scope={one}" for one in scopes]
        return str(self.gateway.json("token", "create", name, *scope, "--all-organisations")["token"])

    async def by_two(self, path: str, body: dict[str, Any]) -> None:
        """What one proposes and another approves."""
        first, second = self.calls(1), self.calls(1, self.second)
        proposed = await first.post(path, body)
        assert proposed.status == 202, proposed
        approved = await second.post(f"/switches/{proposed.body['id']}/approve")
        assert approved.status == 200, approved
        await first.close()
        await second.close()

    def calls(self, connections: int, token: str | None = None) -> Calls:
        """With the billing token, by default. The caller closes them."""
        return Calls(self.gateway.host, self.http_port, token or self.billing, connections)

    def frames(self, since: float = 0.0) -> list[Seen]:
        """The control frames that have reached meters from `since` on."""
        with self.ledger.open(encoding="utf-8") as file:
            entries = (json.loads(line) for line in file if _FRAME in line and line[-1] == "\n")
            found = [Seen(one["at"], one["meter"], one["verb"], one["decision"]) for one in entries]
        return [one for one in found if one.at >= since]

    def first_frames(self, verb: str, since: float) -> dict[str, float]:
        """When the first frame of that verb reached each meter, from `since` on."""
        found: dict[str, float] = {}
        for one in self.frames(since):
            if one.verb == verb:
                found.setdefault(one.meter, one.at)
        return found


@asynccontextmanager
async def company(
    folder: Path,
    *,
    terminals: int,
    meters: int,
    day: str,
    environment: dict[str, str] | None = None,
    more: Iterable[str] = (),
    faults: dict[str, Any] | None = None,
    ledger: Path | None = None,
    module: str = "gateway",
) -> AsyncIterator[Company]:
    """A company in which all terminals are logged in and shadow mode has ended, by two persons. module: what
    is run as its gateway."""
    port = free_port()
    settings = {**ANY_TIME, "LINGDIAN_HTTP__ADDRESS": f"127.0.0.1:{port}", **(environment or {})}
    ledger = ledger or folder / "ledger.jsonl"
    simulator = Simulator(
        folder / "s", terminals=terminals, meters=meters, day=day, more=[*more, f"--ledger={ledger}"]
    )
    if faults:
        simulator.faults(faults)
    with Gateway(folder / "g", settings, module=module) as gateway, simulator:
        simulator.grow()
        gateway.start()
        gateway.import_assets(simulator)
        simulator.connect(gateway.address)
        made = Company(gateway, simulator, ledger, port)
        until(
            lambda: sum(one["online"] for one in gateway.json("terminal", "list")["terminals"]) == terminals,
            LOGIN_SECONDS,
            "all terminals are logged in",
        )
        end = {"on": False, "organisation": _organisation(simulator), "reason": "drill"}
        await made.by_two("/switches/shadow", end)
        yield made


def _organisation(simulator: Simulator) -> str:
    with (simulator.assets / "terminals.csv").open(encoding="utf-8") as file:
        return next(csv.DictReader(file))["organisation"]


def command(meter: str, action: str, **more: Any) -> dict[str, Any]:
    """A request as billing makes it."""
    return {"meter": meter, "action": action, "cause": "drill", "notice": "N-1", **more}


async def at_a_rate(
    calls: Calls, wanted: Sequence[dict[str, Any]], a_second: float, *, later: float = 0.0
) -> list[tuple[float, Answer]]:
    """Post each command at its time, whether those before it are answered or not: when each was to be
    posted (seconds since 1970), and its answer. A client that waited would not see what it waits for."""
    begins = time.time() + later

    async def one(number: int, body: dict[str, Any]) -> tuple[float, Answer]:
        at = begins + number / a_second
        await asyncio.sleep(at - time.time())
        return at, await calls.post("/relay-commands", body)

    return await asyncio.gather(*(one(number, body) for number, body in enumerate(wanted)))


def percentiles(values: Sequence[float]) -> tuple[float, float, float]:
    """The 50th, 95th and 99th percentile: the smallest value that so many do not exceed."""
    ranked = sorted(values)
    count = len(ranked)
    return tuple(ranked[-(-count * share // 100) - 1] for share in (50, 95, 99))  # type: ignore[return-value]


class Over(NamedTuple):
    """Trip frames within an hour that are more than a limit allows. area: None for all areas together."""

    area: str | None
    frames: int


def over_limits(
    frames: Iterable[Seen], area_of: dict[str, str], area: int, every: int, window: float = 3600.0
) -> list[Over]:
    """Where more trips reached meters within any `window` seconds than the limits say; one of an area, one of
    all at most."""
    times: dict[str | None, list[float]] = defaultdict(list)
    for one in frames:
        if one.verb == "trip":
            times[area_of[one.meter]].append(one.at)
            times[None].append(one.at)
    found = ((name, max(_within(sorted(at), window))) for name, at in times.items())
    return [Over(name, most) for name, most in found if most > (every if name is None else area)]


def _within(times: list[float], window: float) -> Iterator[int]:
    """For each time how many lie within the `window` seconds that end with it."""
    first = 0
    for last, at in enumerate(times):
        while times[first] <= at - window:
            first += 1
        yield last - first + 1
