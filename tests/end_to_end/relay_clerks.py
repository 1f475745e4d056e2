"""A billing back end that asks for relay commands while the gateway dies under it, and writes down what it
was told."""

from __future__ import annotations

import http.client
import json
import random
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import cycle
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

COMMANDS: Final = "/api/v1/relay-commands"

ANSWER_S: Final = 20.0
"""Real seconds for one answer; a gateway that dies ends the connection at once."""

PAUSE_S: Final = (0.0, 0.12)
"""Real seconds between two wishes of one clerk."""

AGAIN_S: Final = 0.1
"""And between two tries while the gateway is away."""


@dataclass(frozen=True, slots=True)
class Told:
    """One answer. at: real time when it was here."""

    at: float
    status: int
    id: str = ""
    action: str = ""
    state: str = ""


@dataclass(slots=True)
class Wish:
    """One command that was asked for, under one key, and all that was answered."""

    key: str
    meter: str
    body: Mapping[str, Any]
    asked_at: float
    told: list[Told] = field(default_factory=list)
    tries: int = 0

    @property
    def accepted(self) -> Told | None:
        """The first 202."""
        return next((one for one in self.told if one.status == 202), None)


@dataclass(frozen=True, slots=True)
class Cancelled:
    """A 200 for a cancel: it may not be sent any more."""

    id: str
    at: float


@dataclass(slots=True)
class Book:
    """The client's ledger. Wishes of one meter stand in the order in which they were accepted."""

    wishes: list[Wish] = field(default_factory=list)
    cancelled: list[Cancelled] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    """answers that no rule allows"""


@dataclass(frozen=True, slots=True)
class Answer:
    """One HTTP answer."""

    status_code: int
    content: bytes

    def json(self) -> Any:
        return json.loads(self.content)


class _Connection(http.client.HTTPConnection):
    """To a unix socket; a connection that cannot be made leaves nothing open."""

    def __init__(self, path: Path) -> None:
        super().__init__("gateway", timeout=ANSWER_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(ANSWER_S)
        self.sock.connect(str(self._path))


class Clerk(threading.Thread):
    """Asks for one thing after another for its meters until `stop`; what it has begun it ends."""

    def __init__(
        self, name: str, at: Path, meters: Sequence[str], seed: str, now: Callable[[], datetime]
    ) -> None:
        """name: the requester. at: the socket of the gateway. now: the clock of the district."""
        super().__init__(name=f"clerk {name}", daemon=True)
        self.book = Book()
        self.error: BaseException | None = None
        self._requester = name
        self._meters = meters
        self._chance = random.Random(seed)
        self._now = now
        self._stopping = threading.Event()
        self._last: dict[str, Wish] = {}
        self._socket = at

    def stop(self) -> None:
        """Begin nothing new."""
        self._stopping.set()

    def run(self) -> None:
        """See `Thread`. What goes wrong here is in `error`."""
        try:
            for meter in cycle(self._meters):
                if self._stopping.wait(self._chance.uniform(*PAUSE_S)):
                    return
                self._one(meter)
        except BaseException as error:
            self.error = error
            raise

    def _one(self, meter: str) -> None:
        last = self._last.get(meter)
        chance = self._chance.random()
        if last is not None and chance < 0.1:
            self._ask_again(last)
        elif last is not None and last.body["action"] == "trip" and chance < 0.25:
            self._cancel(last)
        elif last is None or last.body["action"] != "trip" or chance > 0.92:
            self.ask(meter, "trip", once=False, **self._times())
        else:
            self.ask(meter, self._chance.choice(("close", "restore")))

    def _times(self) -> dict[str, str]:
        """Some trips live shortly, some wait; all end before the test does."""
        first = self._chance.uniform(15, 120) if self._chance.random() < 0.25 else 0.0
        lasts = self._chance.uniform(20, 240) if self._chance.random() < 0.4 else 1800.0
        now = self._now()
        times = {"expires_at": (now + timedelta(seconds=first + lasts)).isoformat()}
        if first:
            times["not_before"] = (now + timedelta(seconds=first)).isoformat()
        return times

    def ask(self, meter: str, action: str, *, once: bool = False, **told: str) -> Wish:
        """A new wish, asked for until it is answered; `once`: whether it is answered or not."""
        body = {"meter": meter, "action": action, "cause": "arrears", "notice": "N-1", **told}
        wish = Wish(uuid4().hex, meter, body, time.time())
        self.book.wishes.append(wish)
        self._last[meter] = wish
        while not self.put(wish) and not once:
            time.sleep(AGAIN_S)
        return wish

    def put(self, wish: Wish) -> bool:
        """Ask, once more or for the first time; whether there was an answer."""
        wish.tries += 1
        answer = self._post(COMMANDS, wish.body, wish.key)
        if answer is None or answer.status_code >= 500:
            return False
        if answer.status_code == 202:
            told = answer.json()
            wish.told.append(Told(time.time(), 202, told["id"], told["action"], told["state"]))
        else:
            wish.told.append(Told(time.time(), answer.status_code))
            self.book.wrong.append(f"{wish.body}: {answer.status_code} {answer.content!r}")
        return True

    def _ask_again(self, wish: Wish) -> None:
        """An answer is said to be lost; and once in a while a key is used for something else."""
        if self._chance.random() < 0.7:
            self.put(wish)
            return
        answer = self._post(COMMANDS, {**wish.body, "cause": "another"}, wish.key)
        if answer is not None and answer.status_code < 500 and answer.status_code != 409:
            self.book.wrong.append(f"another body under {wish.key}: {answer.status_code}")

    def _cancel(self, wish: Wish) -> None:
        if (accepted := wish.accepted) is None:
            return
        answer = self._post(f"{COMMANDS}/{accepted.id}/cancel", {"reason": "paid"}, None)
        if answer is None or answer.status_code >= 500 or answer.status_code == 409:
            return
        if answer.status_code == 200 and answer.json()["state"] == "cancelled":
            self.book.cancelled.append(Cancelled(accepted.id, time.time()))
        else:
            self.book.wrong.append(f"cancel of {accepted.id}: {answer.status_code} {answer.content!r}")

    def _post(self, path: str, body: Mapping[str, Any], key: str | None) -> Answer | None:
        """None where no answer came."""
        headers = {"X-Requester": self._requester, "Content-Type": "application/json"}
        if key is not None:
            headers["Idempotency-Key"] = key
        with closing(_Connection(self._socket)) as connection:
            try:
                connection.request("POST", path, json.dumps(dict(body)), headers)
                answer = connection.getresponse()
                return Answer(answer.status, answer.read())
            except (OSError, http.client.HTTPException):
                return None
