"""Two of the three ledgers of the same hours, as they are read: what the meters saw, what the database kept.

All instants are of the district's clock.
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
from psycopg.rows import dict_row

from gateway.clock import from_device


@dataclass(frozen=True, slots=True)
class Seen:
    """One line of the meters' ledger. place: its number."""

    place: int
    at: datetime
    address: str
    what: str
    frame: str
    verb: str
    decision: str
    is_open: bool
    permitted: bool
    clock: datetime
    deadline: datetime | None

    @property
    def executed(self) -> bool:
        return self.what == "frame" and self.decision == "accepted"

    @property
    def word(self) -> int:
        """Of a read."""
        return int(self.decision, 16)


@dataclass(slots=True)
class Row:
    """One command with its events, as the database has it."""

    told: dict[str, Any]
    events: list[dict[str, Any]] = field(default_factory=list)

    @property
    def name(self) -> str:
        return f"{self.action} {self.told['command_id']} ({self.state})"

    @property
    def action(self) -> str:
        return str(self.told["action"])

    @property
    def state(self) -> str:
        return str(self.told["state"])

    @property
    def intent(self) -> int:
        return int(self.told["intent"])

    @property
    def address(self) -> str:
        return str(self.told["address"])

    @property
    def accepted(self) -> int:
        """Number of its first event: events of one meter are numbered in the order of their commits."""
        return int(self.events[0]["event_id"])

    @property
    def sendings(self) -> list[dict[str, Any]]:
        """Its events that let a frame leave."""
        return [
            one for one in self.events
            if one["state"] == "sending" and one["kind"] in ("step", "sending again")
        ]  # fmt: skip

    def verified(self) -> dict[str, Any] | None:
        """The event."""
        return next(
            (one for one in self.events if one["state"] == "verified" and one["kind"] == "step"), None
        )


def meters_side(ledger: Path, addresses: Collection[str]) -> list[Seen]:
    """What those meters saw, in the order in which it was written."""
    seen = []
    with ledger.open(encoding="utf-8") as lines:
        for place, line in enumerate(lines):
            told = json.loads(line)
            if told["meter"] in addresses:
                deadline = told["deadline"]
                seen.append(
                    Seen(
                        place,
                        datetime.fromtimestamp(told["at"], UTC),
                        told["meter"],
                        told["what"],
                        told["frame"],
                        told["verb"],
                        told["decision"],
                        told["is_open"],
                        told["button"],
                        from_device(datetime.fromisoformat(told["clock"])),
                        None if deadline is None else from_device(datetime.fromisoformat(deadline)),
                    )
                )
    return seen


@dataclass(frozen=True, slots=True)
class Secret:
    """With which the database's events tell the hash of a frame: a plain one would give its password away."""

    secret: bytes = field(repr=False)

    def hashed(self, frame: str) -> str:
        """As events tell it. frame: its SHA-256 in hex."""
        return hmac.digest(self.secret, bytes.fromhex(frame), "sha256").hex()


def kept(conninfo: str, addresses: Collection[str]) -> tuple[list[Row], Secret]:
    """The commands of those meters, in the order of their intents, all of one moment."""
    with psycopg.connect(conninfo, row_factory=dict_row) as connection:
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        found = connection.execute("SELECT secret FROM frame_secret").fetchone()
        secret = Secret(bytes(found["secret"]) if found else b"")
        commands = connection.execute(
            "SELECT c.*, m.address FROM relay_command AS c JOIN meter AS m USING (meter_id)"
            " WHERE m.address = ANY(%s) ORDER BY m.address, c.intent",
            (list(addresses),),
        )
        rows = {told["command_id"]: Row(told) for told in commands}
        for row in rows.values():
            if (plain := row.told["frame_sha256"]) is not None:
                row.told["hashed"] = secret.hashed(bytes(plain).hex())
        events = connection.execute(
            "SELECT * FROM relay_command_event WHERE command_id = ANY(%s) ORDER BY event_id", (list(rows),)
        )
        for event in events:
            row = rows[event["command_id"]]
            row.events.append(event)
            if event in row.sendings[-1:]:
                evidence = event["body"]["evidence"]
                event["hashed"] = evidence.get("hmac") or secret.hashed(evidence["sha256"])
    return list(rows.values()), secret
