"""Closes while PostgreSQL is dead, silent, or dead like the gateway: accepted, sent, and found again.

The meters are the witness of what was sent, and when; the database of what came of it.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import httpx
import psutil
import pytest

from gateway.clock import business_day
from gateway.storage import embedded
from gateway.storage.live_terminals import GATHER_SECONDS
from tests.end_to_end.processes import Gateway, Simulator, free_port, until
from tests.end_to_end.test_relay import ANN, BOB, ENVIRONMENT, Company

pytestmark = pytest.mark.end_to_end

SOON: Final = 8.0
"""Seconds for an answer without the database: five, and some for a loaded machine."""


class Postgres:
    """The embedded server of a gateway, for those who do it harm."""

    def __init__(self, state: Path) -> None:
        self.folder = state / "database"

    def pid(self) -> int:
        pid = embedded.server_pid(self.folder)
        assert pid is not None
        return pid

    @contextmanager
    def dead(self, how: signal.Signals) -> Iterator[None]:
        """Gone for as long as this lasts: nobody starts it, since somebody is starting it already."""
        with (self.folder / "mutex").open("ab") as mutex:
            fcntl.flock(mutex, fcntl.LOCK_EX)
            os.kill(self.pid(), how)
            until(lambda: embedded.server_pid(self.folder) is None, 30.0, "the database is dead")
            yield
            assert embedded.server_pid(self.folder) is None
        asyncio.run(self._started())

    async def _started(self) -> None:
        """Anew, and as one use of ours: one that is remembered from the time before would start nothing, and
        one more would keep the server running when the last test has ended."""
        await embedded.stop(self.folder)
        await embedded.start(self.folder)

    @contextmanager
    def silent(self) -> Iterator[None]:
        """Every process of it is stopped: connections stand, and nothing is said on them."""
        first = psutil.Process(self.pid())
        first.suspend()
        rest = first.children(recursive=True)
        try:
            for one in rest:
                one.suspend()
            yield
        finally:
            for one in (*rest, first):
                one.resume()


class Outage(Company):
    """The company, whose meters were tripped before the database goes away."""

    def __init__(self, gateway: Gateway, simulator: Simulator, ledger: Path, address: str) -> None:
        super().__init__(gateway, simulator, ledger)
        self.postgres = Postgres(gateway.state)
        self.socket = self.http
        self.address = address
        """where tokens are taken"""

    def close(self) -> None:
        self.socket.close()

    def sessions(self) -> int:
        return int(self.socket.get("http://gateway/readyz").json()["sessions"])

    def by_token(self) -> httpx.Client:
        """A billing back end that sees all organisations."""
        words = ("token", "create", "billing", "--scope=read", "--scope=control", "--all-organisations")
        token = self.gateway.json(*words)["token"]
        headers = {"Authorization": f"Bearer {token}"}
        return httpx.Client(base_url=f"http://{self.address}/api/v1", headers=headers, timeout=60.0)

    def request(self, place: int, action: str, key: str) -> httpx.Response:
        """Ask for a command of the meter at `place`; what was answered, within SOON."""
        body = {"meter": self.meters[place]["meter"], "action": action, "cause": "paid", "notice": "N-1"}
        begun = time.monotonic()
        answer = self.http.post("/relay-commands", json=body, headers={**ANN, "Idempotency-Key": key})
        assert time.monotonic() - begun < SOON, answer.text
        return answer

    def closes_of(self, place: int) -> int:
        return [one["verb"] for one in self.seen(self.meters[place]["address"])].count("close")

    def dark(self, place: int) -> bool:
        return bool(self.seen(self.meters[place]["address"], "moved")[-1]["is_open"])

    def kept(self, place: int, key: str) -> Any:
        """A close that is accepted now, without the database."""
        assert self.dark(place)
        answer = self.request(place, "close", key)
        assert answer.status_code == 202, answer.text
        assert answer.json()["detail"].startswith("kept in the journal"), answer.text
        return answer.json()

    def closed_without_database(self, place: int, key: str) -> str:
        """A close is accepted and obeyed now, a trip is not even accepted; the number of the close."""
        told = self.kept(place, key)
        until(lambda: not self.dark(place), 30.0, "the meter has closed while the database is away")
        refused = self.request(place + 1, "trip", f"{key} trip")
        assert (refused.status_code, refused.json()["type"]) == (503, "urn:lingdian:problem:database")
        assert self.command(told["id"])["id"] == told["id"], "it can be looked at"
        assert self.gauge("lingdian_relay_journal_closes") == 1.0
        until(lambda: self.socket.get("http://gateway/readyz").status_code == 503, SOON, "it is not ready")
        return str(told["id"])

    def gauge(self, name: str) -> float:
        lines = self.socket.get("http://gateway/metrics").text.splitlines()
        (value,) = (line.split()[1] for line in lines if line.startswith(f"{name} "))
        return float(value)

    def found_again(self, number: str, place: int, key: str) -> None:
        """The database has that close, proven; asked for again it is the same one."""
        until(lambda: self.gauge("lingdian_relay_journal_closes") == 0.0, 60.0, "the journal is handed over")
        done = self.ended(number)
        assert (done["state"], done["why"]) == ("verified", "relay_read")
        assert done["organisation"] == self.organisation, "the database says so, the journal would not know"
        assert done["energised_at"] is not None
        assert self.request(place, "close", key).json()["id"] == number
        assert not self.dark(place)
        assert self.gauge("lingdian_relay_journal_damaged_lines") == 0.0

    def trips_again(self, place: int) -> None:
        """What was refused meanwhile was not done, and is done now."""
        assert self.seen(self.meters[place]["address"]) == []
        assert self.ended(self.ask(self.meters[place]["meter"], "trip"))["state"] == "verified"
        assert self.dark(place)


@pytest.fixture(scope="module")
def outage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outage]:
    folder = tmp_path_factory.mktemp("d")
    day = str(business_day(datetime.now(UTC)) - timedelta(days=1))
    ledger = folder / "ledger.jsonl"
    simulator = Simulator(folder / "s", terminals=2, meters=12, day=day, more=[f"--ledger={ledger}"])
    environment = ENVIRONMENT | {"LINGDIAN_HTTP__ADDRESS": f"127.0.0.1:{free_port()}"}
    with Gateway(folder / "g", environment) as gateway, simulator:
        simulator.grow()
        address = gateway.start()["http"]
        gateway.import_assets(simulator)
        with closing(Outage(gateway, simulator, ledger, address)) as made:
            end = {"on": False, "organisation": made.organisation, "reason": "tried for a week"}
            made.post(f"/switches/{made.post('/switches/shadow', end)['id']}/approve", {}, BOB)
            simulator.connect(gateway.address)
            until(lambda: made.sessions() == 2, 60.0, "both terminals are logged in")
            logged_in = time.monotonic()
            for number in [made.ask(made.meters[place]["meter"], "trip") for place in (0, 2, 4)]:
                assert made.ended(number)["state"] == "verified"
            # Only then is it known, for the time without a database, that these terminals switch for real.
            time.sleep(max(0.0, logged_in + 3 * GATHER_SECONDS - time.monotonic()))
            yield made
    asyncio.run(embedded.stop(made.postgres.folder))


def test_a_close_while_the_database_is_dead(outage: Outage) -> None:
    with outage.postgres.dead(signal.SIGKILL):
        number = outage.closed_without_database(0, "dead")
    outage.found_again(number, 0, "dead")
    assert outage.closes_of(0) == 1
    outage.trips_again(1)


def test_a_close_by_token_while_the_database_says_nothing(
    outage: Outage, monkeypatch: pytest.MonkeyPatch
) -> None:
    with outage.by_token() as billing:
        monkeypatch.setattr(outage, "http", billing)
        before = billing.get("/relay-commands")  # so it is known when the database does not say so
        assert before.status_code == 200, before.text
        with outage.postgres.silent():
            number = outage.closed_without_database(2, "silent")
        outage.found_again(number, 2, "silent")
        assert outage.closes_of(2) == 1
        outage.trips_again(3)


def test_a_close_of_a_gateway_that_dies_while_the_database_is_dead(outage: Outage) -> None:
    with outage.postgres.dead(signal.SIGQUIT):
        number = str(outage.kept(4, "both")["id"])
        outage.gateway.kill()
    outage.gateway.start()
    outage.found_again(number, 4, "both")
    # One that left as the gateway died may not have been obeyed: the relay was read, and one more sent.
    assert 1 <= outage.closes_of(4) <= 2
