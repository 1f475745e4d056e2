"""Who may call the HTTP interface: names, scopes and organisations. Of a token only its SHA-256 is kept."""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from gateway.errors import InputError
from gateway.storage.database import Database, queries
from gateway.storage.evidence import note_audit

TOKEN_PREFIX: Final = "lgd_"
"""So that a token that strayed into a file or a log can be searched for."""

TOKEN_BYTES: Final = 32
"""of randomness: nobody guesses it, and a plain hash of it is as good as a slow one"""

USED_EVERY: Final = timedelta(minutes=1)
"""How exactly `last_used_at` is kept: a write a request would cost more than the request."""

_NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")


class Scope(StrEnum):
    """What a token may do; none includes another."""

    READ = "read"
    CONTROL = "control"
    """ask for relay commands and protect customers"""
    APPROVE = "approve"
    """be the second person"""
    ADMIN = "admin"
    """switches, limits, terminals"""


@dataclass(frozen=True, slots=True)
class Client:
    """One client as it is listed. organisation: its name; None: all of them."""

    client_id: int
    name: str
    scopes: tuple[Scope, ...]
    organisation: str | None
    created_by: str
    created_at: datetime
    revoked_at: datetime | None
    last_used_at: datetime | None


@dataclass(frozen=True, slots=True)
class KnownClient:
    """Whose token it is. organisations: what it may see; None: everything."""

    client_id: int
    name: str
    scopes: frozenset[Scope]
    organisations: frozenset[int] | None


async def create(
    database: Database,
    *,
    name: str,
    scopes: Collection[Scope],
    organisation: str | None,
    by: str,
    at: datetime,
) -> str:
    """A new client; returns its token, which cannot be had again.

    organisation: by its name; the client also sees those below it. None: all. InputError where the name is
    taken (also by a revoked client: names stand in the evidence) or no such organisation is there.
    """
    if not _NAME.fullmatch(name):
        raise InputError(
            f"{name!r} is no name for a client 名称无效: lower-case letters, digits, dots, dashes, at most 64"
        )
    if not scopes:
        raise InputError("a token needs a scope 需要权限范围: read, control, approve, admin")
    token = TOKEN_PREFIX + secrets.token_urlsafe(TOKEN_BYTES)
    statements = queries("clients")
    async with database.connection() as connection:
        organisation_id = None
        if organisation is not None:
            cursor = await connection.execute(statements["organisation"], (organisation,))
            if (row := await cursor.fetchone()) is None:
                raise InputError(f"no organisation {organisation!r} in the assets 档案中无此单位")
            organisation_id = row[0]
        given = {
            "name": name,
            "token_sha256": _digest(token),
            "scopes": sorted(set(scopes)),
            "organisation_id": organisation_id,
            "by": by,
            "at": at,
        }
        cursor = await connection.execute(statements["create"], given)
        if await cursor.fetchone() is None:
            raise InputError(f"there is a client {name!r} already 名称已存在, perhaps a revoked one")
        detail = {"client": name, "scopes": sorted(set(scopes)), "organisation": organisation}
        await note_audit(connection, at, by, "create token", detail)
    return token


async def listed(database: Database) -> list[Client]:
    """All clients by name, the revoked too."""
    async with database.connection() as connection:
        cursor = await connection.execute(queries("clients")["listed"])
        return [
            Client(row[0], row[1], tuple(Scope(scope) for scope in row[2]), *row[3:])
            for row in await cursor.fetchall()
        ]


async def revoke(database: Database, name: str, *, by: str, at: datetime) -> None:
    """The client's token is refused from the next request on. InputError where no live client has the
    name."""
    async with database.connection() as connection:
        cursor = await connection.execute(queries("clients")["revoke"], {"name": name, "at": at})
        if await cursor.fetchone() is None:
            raise InputError(f"no client {name!r} with a token in force 无此有效令牌; `lingdian token list`")
        await note_audit(connection, at, by, "revoke token", {"client": name})


async def known(database: Database, token: str, at: datetime) -> KnownClient | None:
    """The client that holds this token now; None: nobody does."""
    statements = queries("clients")
    async with database.connection() as connection:
        cursor = await connection.execute(statements["known"], (_digest(token),))
        row = await cursor.fetchone()
        if row is None:
            return None
        client_id, name, scopes, last_used, organisations = row
        if last_used is None or at - last_used > USED_EVERY:
            await connection.execute(statements["used"], {"at": at, "client_id": client_id})
    return KnownClient(
        client_id,
        name,
        frozenset(Scope(scope) for scope in scopes),
        None if organisations is None else frozenset(organisations),
    )


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
