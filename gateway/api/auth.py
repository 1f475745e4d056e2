"""Who asks, and may they? Bearer tokens on TCP; on the unix socket its file rights have decided already.

Nothing of it is kept between two requests: a revoked token is refused at the next one.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from enum import Enum
from http import HTTPStatus
from typing import Annotated, Final

from fastapi import Depends, Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer, SecurityScopes

from gateway.api.parts import LONGEST_REQUESTER, REQUESTER, Parts, Wanted
from gateway.api.problems import Problem
from gateway.errors import StorageError
from gateway.storage import clients, relay_list
from gateway.storage.clients import KnownClient, Scope

LONGEST_TOKEN: Final = 200
"""characters; what is longer is nobody's and is not looked up"""


class Authority(Enum):
    """On what the right to ask rests."""

    SOCKET = "file rights of the unix socket"
    TOKEN = "bearer token"
    NONE = "nothing: a token would be sent in the clear"


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks. organisations: what they may see; None: all."""

    name: str
    """the token's, or that of the person at the socket; may be empty there"""
    organisations: frozenset[int] | None
    client_id: int | None
    """None: at the socket"""
    scopes: frozenset[Scope]
    unsure: StorageError | None = None
    """The database is away, and this is who held the token when it was last asked: good for closes only."""

    @property
    def subject(self) -> str:
        """The name that a deed is kept under. A person at the socket is no token of the same name (which has
        no colon). Problem where nobody's name was given."""
        if self.client_id is not None:
            return self.name
        if not self.name:
            raise Problem(
                HTTPStatus.UNPROCESSABLE_ENTITY,
                "name-needed",
                f"this needs the name of whoever does it 需要姓名: send it in {REQUESTER}",
            )
        return f"person:{self.name}"

    def sees_all(self) -> bool:
        """Not bound to an organisation?"""
        return self.organisations is None


_bearer: Final = HTTPBearer(
    scheme_name="token", description="A token of `lingdian token create`.", auto_error=False
)


async def caller(
    wanted: SecurityScopes,
    request: Request,
    parts: Wanted,
    bearer: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
) -> Caller:
    """The caller, if one of the wanted scopes is theirs. Problem 401 or 403 otherwise."""
    authority = request.app.state.authority
    if authority is Authority.SOCKET:
        name = request.headers.get(REQUESTER, "").strip()[:LONGEST_REQUESTER]
        return Caller(name, None, None, frozenset(Scope))
    if authority is Authority.NONE:
        raise Problem(
            HTTPStatus.FORBIDDEN,
            "tls-needed",
            "tokens are taken over TLS only 须使用 TLS: set http.certificate, or http.behind_proxy"
            " where a proxy in front has it",
        )
    return await caller_of(parts, bearer.credentials if bearer is not None else "", wanted.scopes)


async def caller_of(parts: Parts, token: str, scopes: Collection[str]) -> Caller:
    """Whose token it is, if one of these scopes is theirs. Problem 401 or 403 otherwise."""
    found = None
    if 0 < len(token) <= LONGEST_TOKEN:
        now = parts.clock.now()
        found = await clients.known(parts.database.within(), token, now)
        parts.remembered.note(token, found, now)
    return _checked(found, scopes)


async def caller_or_remembered(
    wanted: SecurityScopes,
    request: Request,
    parts: Wanted,
    bearer: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
) -> Caller:
    """`caller`; while the database is away whoever held the token when it was last asked, marked `unsure`."""
    try:
        return await caller(wanted, request, parts, bearer)
    except StorageError as error:
        found = parts.remembered.find(bearer.credentials, parts.clock.now()) if bearer is not None else None
        if found is None:
            raise
        return replace(_checked(found, wanted.scopes), unsure=error)


def _checked(found: KnownClient | None, scopes: Collection[str]) -> Caller:
    if found is None:
        raise Problem(
            HTTPStatus.UNAUTHORIZED,
            "token-needed",
            "a token in force is needed 需要有效令牌: Authorization: Bearer …",
            headers={"WWW-Authenticate": "Bearer"},
        )
    if not found.scopes & set(scopes):
        raise Problem(
            HTTPStatus.FORBIDDEN,
            "scope-needed",
            f"the token of {found.name} lacks the scope 令牌无此权限: {' or '.join(scopes)}",
        )
    return Caller(found.name, found.organisations, found.client_id, found.scopes)


Reader = Annotated[Caller, Security(caller, scopes=[Scope.READ])]
Controller = Annotated[Caller, Security(caller, scopes=[Scope.CONTROL])]
Approver = Annotated[Caller, Security(caller, scopes=[Scope.APPROVE])]
Administrator = Annotated[Caller, Security(caller, scopes=[Scope.ADMIN])]
Closer = Annotated[Caller, Security(caller_or_remembered, scopes=[Scope.CONTROL])]
Looker = Annotated[Caller, Security(caller_or_remembered, scopes=[Scope.READ])]
"""For closes and where they stand, which do not wait for the database; see `Caller.unsure`."""


async def own_terminals(parts: Parts, caller: Caller, named: Collection[str]) -> frozenset[str]:
    """These terminals, in lower case; Problem 404 names those that the caller may not see."""
    asked = frozenset(name.lower() for name in named)
    if caller.organisations is not None:
        seen = await relay_list.terminals(parts.database, caller.organisations, asked)
        if unseen := sorted(asked - seen):
            raise Problem(
                HTTPStatus.NOT_FOUND,
                "terminal-unknown",
                f"no terminal {', '.join(unseen[:10])} in the assets 档案中无此终端",
            )
    return asked


def needs_all(caller: Caller, what: str) -> None:
    """Problem 403 for a token that is bound to an organisation: `what` concerns all of them."""
    if not caller.sees_all():
        raise Problem(
            HTTPStatus.FORBIDDEN,
            "all-organisations-needed",
            f"{what} concerns all organisations 涉及全部单位: a token of one cannot do it",
        )
