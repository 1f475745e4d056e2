"""Routes of webhooks: have events sent to an address, look how that goes, replay, end it.

A webhook is its client's own: another token of the same organisation does not see it.
"""

from __future__ import annotations

import base64
import secrets
from datetime import datetime
from http import HTTPStatus
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, ConfigDict, Field

from gateway.api.auth import Caller, Controller
from gateway.api.cloudevents import SECRET_PREFIX, as_cloud_event
from gateway.api.deliveries import checked_url
from gateway.api.parts import Parts, Wanted
from gateway.api.problems import Problem
from gateway.api.relay_commands import MOST_ROWS, BigId
from gateway.storage import outbox
from gateway.storage.outbox import Webhook

PREFIX: Final = "/api/v1/webhooks"

SECRET_BYTES: Final = 32
MOST_TYPES: Final = 50

reading = APIRouter(prefix=PREFIX, tags=["webhooks"])
"""changes nothing"""
acting = APIRouter(prefix=PREFIX, tags=["webhooks"])
"""has others told"""


class WebhookRequest(BaseModel):
    model_config = ConfigDict(extra="forbid")
    url: str = Field(min_length=1, max_length=2000, pattern=r"^[!-~]+$")
    """https://"""
    types: list[Annotated[str, Field(pattern=r"^[a-z0-9.-]{1,100}$")]] = Field(
        default=[], max_length=MOST_TYPES
    )
    """event types such as `relay-command.verified`; none: all"""
    after: int | None = Field(default=None, ge=0, le=2**63 - 1)
    """events behind that place; by default those that come from now on"""
    client: str | None = Field(default=None, max_length=64)
    """at the unix socket: the client whose webhook it is"""


class ReplayRequest(BaseModel):
    model_config = ConfigDict(extra="forbid")
    after: int = Field(ge=0, le=2**63 - 1)
    """everything behind that place is sent again"""


class WebhookShown(BaseModel):
    """`cursor`: the place of the event that was delivered last."""

    id: int
    client: str
    url: str
    types: list[str]
    cursor: int
    failures: int
    next_try: datetime | None
    last_error: str
    dead_letters: int
    created_at: datetime


class WebhookMade(WebhookShown):
    secret: str
    """what signs the events; it is shown this once"""


class WebhookList(BaseModel):
    webhooks: list[WebhookShown]


class DeadLetterShown(BaseModel):
    at: datetime
    error: str
    event: dict[str, Any]
    """as it would have been sent"""


class DeadLetters(BaseModel):
    """`next`: the `after` of the following page; null: this is the last."""

    dead_letters: list[DeadLetterShown]
    next: int | None


@reading.get("")
async def list_webhooks(parts: Wanted, caller: Controller) -> WebhookList:
    """The caller's own; at the unix socket all."""
    found = await outbox.webhooks(parts.database, client_id=caller.client_id)
    return WebhookList(webhooks=[_shown(one) for one in found])


@acting.post("", status_code=HTTPStatus.CREATED)
async def register_webhook(
    wanted: WebhookRequest, parts: Wanted, caller: Controller, response: Response
) -> WebhookMade:
    """Have events sent there, as CloudEvents 1.0 signed with HMAC-SHA256 (Standard Webhooks)."""
    try:
        url = checked_url(wanted.url, to_ourselves=parts.webhooks_to_ourselves)
    except ValueError as error:
        raise Problem(HTTPStatus.UNPROCESSABLE_ENTITY, "bad-address", f"{error} 回调地址无效") from error
    client = caller.name if caller.client_id is not None else wanted.client
    if client is None or (wanted.client is not None and wanted.client != client):
        raise Problem(
            HTTPStatus.UNPROCESSABLE_ENTITY,
            "client-needed",
            "at the unix socket say whose webhook it is: client; a token registers its own",
        )
    secret = SECRET_PREFIX + base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode()
    webhook_id = await outbox.register(
        parts.database,
        client=client,
        url=url,
        secret=secret,
        types=wanted.types,
        cursor=wanted.after,
        by=caller.subject,
        at=parts.clock.now(),
    )
    response.headers["Location"] = f"{PREFIX}/{webhook_id}"
    made = await _webhook(parts, caller, webhook_id)
    return WebhookMade(**_shown(made).model_dump(), secret=secret)


@reading.get("/{webhook_id}")
async def get_webhook(webhook_id: int, parts: Wanted, caller: Controller) -> WebhookShown:
    """One webhook, and how it goes."""
    return _shown(await _webhook(parts, caller, webhook_id))


@acting.delete("/{webhook_id}", status_code=HTTPStatus.NO_CONTENT)
async def end_webhook(webhook_id: int, parts: Wanted, caller: Controller) -> None:
    """It is told nothing more."""
    await _webhook(parts, caller, webhook_id)
    await outbox.end_webhook(parts.database, webhook_id, by=caller.subject, at=parts.clock.now())


@acting.post("/{webhook_id}/replay")
async def replay_webhook(
    webhook_id: int, wanted: ReplayRequest, parts: Wanted, caller: Controller
) -> WebhookShown:
    """Send again what comes behind a place, beginning at once; also what became a dead letter."""
    await _webhook(parts, caller, webhook_id)
    await outbox.replay(parts.database, webhook_id, wanted.after, by=caller.subject, at=parts.clock.now())
    return _shown(await _webhook(parts, caller, webhook_id))


@reading.get("/{webhook_id}/dead-letters")
async def list_dead_letters(
    webhook_id: int,
    parts: Wanted,
    caller: Controller,
    after: BigId = 0,
    limit: Annotated[int, Query(ge=1, le=MOST_ROWS)] = 100,
) -> DeadLetters:
    """What could not be delivered, in the order of places."""
    await _webhook(parts, caller, webhook_id)
    found = await outbox.dead_letters(parts.database, webhook_id, place=after, rows=limit)
    return DeadLetters(
        dead_letters=[
            DeadLetterShown(at=one.at, error=one.error, event=as_cloud_event(one.told)) for one in found
        ],
        next=found[-1].told.place if len(found) == limit else None,
    )


async def _webhook(parts: Parts, caller: Caller, webhook_id: int) -> Webhook:
    found = (
        await outbox.webhooks(parts.database, client_id=caller.client_id, webhook_id=webhook_id)
        if 0 < webhook_id < 2**31
        else []
    )
    if not found:
        raise Problem(HTTPStatus.NOT_FOUND, "webhook-unknown", f"there is no webhook {webhook_id} 无此订阅")
    return found[0]


def _shown(one: Webhook) -> WebhookShown:
    return WebhookShown(
        id=one.webhook_id,
        client=one.client,
        url=one.url,
        types=list(one.types),
        cursor=one.cursor,
        failures=one.failures,
        next_try=one.next_try,
        last_error=one.last_error,
        dead_letters=one.dead_letters,
        created_at=one.created_at,
    )
