"""Kept for people to look at: raw frames, so many and no more, and the audit of who did what."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from psycopg.types.json import Jsonb

from gateway.model import RawFrame
from gateway.storage.database import Connection, Database, queries

RAW_FRAMES_KEPT = 100_000
"""About 50 MB of frames as long as terminals send them; enough for weeks of faults, or an hour of rubbish."""


async def keep_raw_frames(database: Database, frames: Sequence[RawFrame]) -> None:
    """Keep these frames and let the oldest go; returns when they are committed."""
    if not frames:
        return
    async with database.connection() as connection:
        await connection.execute(
            queries("evidence")["keep_raw_frames"],
            (
                [frame.received_at for frame in frames],
                [printable(frame.terminal) for frame in frames],
                [frame.direction for frame in frames],
                [printable(frame.reason) for frame in frames],
                [frame.raw for frame in frames],
            ),
        )
        await connection.execute(queries("evidence")["bound_raw_frames"], (RAW_FRAMES_KEPT,))


async def note_audit(
    connection: Connection, at: datetime, who: str, what: str, detail: Mapping[str, object]
) -> None:
    """Write one line of the audit in the caller's transaction: it stands if and only if the deed does."""
    await connection.execute(queries("evidence")["audit"], (at, who, what, Jsonb(detail)))


def printable(text: str) -> str:
    """The text without NUL, which PostgreSQL's text cannot hold."""
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}")
