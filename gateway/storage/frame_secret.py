"""How the hash of a control frame is told outside the database: keyed, so that nobody can try passwords.

A password has six digits. Whoever holds a frame without it and the frame's SHA-256 finds it in a second; with
an HMAC under a secret that he does not hold he finds nothing. The row of a command keeps the SHA-256 itself.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from gateway.storage.database import Connection, Database, queries

SECRET_BYTES: Final = 32


@dataclass(frozen=True, slots=True)
class FrameSecret:
    """The secret of an installation; 32 random bytes."""

    secret: bytes = field(repr=False)

    @property
    def name(self) -> str:
        """By which an event says what it is keyed with: 16 hex digits that give nothing away."""
        return hashlib.sha256(b"lingdian frame secret" + self.secret).hexdigest()[:16]

    def keyed(self, frame_hash: bytes) -> str:
        """HMAC-SHA256 of the SHA-256 of a frame, as hex."""
        return hmac.digest(self.secret, frame_hash, "sha256").hex()


async def find(connection: Connection) -> FrameSecret | None:
    """The one of this database; None where nothing was ever told with one."""
    cursor = await connection.execute(queries("commands")["frame_secret"])
    row = await cursor.fetchone()
    return None if row is None else FrameSecret(bytes(row[0]))


async def find_or_make(database: Database, at: datetime) -> FrameSecret:
    """The one of this database, durable when this returns; whoever comes second finds that of the first."""
    async with database.connection() as connection:
        made = secrets.token_bytes(SECRET_BYTES)
        await connection.execute(queries("commands")["make_frame_secret"], (made, at))
    async with database.connection() as connection:
        found = await find(connection)
    assert found is not None
    return found
