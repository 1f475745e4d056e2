"""Evidence of one command, as a file that proves itself.

A bundle is JSON in one spelling. Its heart are the command's events as they were chained, and the seals over
them; all that is for readers is made from the events, and made again when `verification` checks it.
`docs/relay.md` describes the format.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import datetime
from importlib.metadata import version
from typing import Any, Final

from gateway.command import canonical
from gateway.control import timeline
from gateway.storage.event_bodies import comparable, determined
from gateway.storage.relay_evidence import Kept

FORMAT: Final = "lingdian relay evidence 2"

SECTIONS: Final = (
    "format",
    "made",
    "command",
    "meter",
    "people",
    "times",
    "relay_reads",
    "timeline",
    "frames",
    "events",
    "chain",
    "seals",
    "sha256",
)
"""In the order in which they stand in the file."""


def bundle(kept: Kept, at: datetime) -> bytes:
    """The file for one command. What is wrong in the database is in it as it is: `verify` tells."""
    bodies = [event.body for event in kept.events]
    made: dict[str, Any] = {
        "format": FORMAT,
        "made": {"at": timeline.instant(at), "version": version("lingdian")},
        "command": comparable(kept.command, determined(bodies)),
        **timeline.parts(bodies),
        "events": [
            {"id": event.id, "seal": event.seal, "hash": event.hash.hex(), "body": event.body}
            for event in kept.events
        ],
        "chain": {"events": kept.count, "hash": kept.chain.hex()},
        "seals": [
            {
                "seal": one.seal.id,
                "at": timeline.instant(one.seal.at),
                "before": one.before.hex(),
                "digest": one.seal.digest.hex(),
                "events": [[event_id, hashed.hex()] for event_id, hashed in one.events],
            }
            for one in kept.seals
        ],
    }
    return spelled(made | {"sha256": digest(made)})


def digest(made: Mapping[str, Any]) -> str:
    """Over all of a bundle but this."""
    body = {name: value for name, value in made.items() if name != "sha256"}
    return hashlib.sha256(canonical(body)).hexdigest()


def spelled(made: Mapping[str, Any]) -> bytes:
    """A bundle as it stands in a file: a line for each section, or for each member of one that lists."""
    lines = []
    for name in SECTIONS:
        value = made[name]
        if isinstance(value, list) and value:
            inner = ",\n".join(f"  {canonical_text(one)}" for one in value)
            lines.append(f'"{name}": [\n{inner}\n]')
        else:
            lines.append(f'"{name}": {canonical_text(value)}')
    return ("{\n" + ",\n".join(lines) + "\n}\n").encode()


def canonical_text(value: Any) -> str:
    """JSON in its one spelling; TypeError where it has none."""
    return canonical({"": value})[4:-1].decode()
