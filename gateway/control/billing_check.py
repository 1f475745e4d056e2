"""The call-out to billing just before a trip: does this customer still owe? Signed, short, fail-closed.

POST to the configured address, JSON `{"command", "meter", "customer", "cause", "notice", "asked_at"}`; header
`Lingdian-Signature: t=<unix seconds>,v1=<hex>`, HMAC-SHA256 with the shared secret over `<t>.<body>`. The
answer is 200 with `{"owes": true}` or `{"owes": false}`; anything else counts as no answer.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from typing import Final

import httpx
import structlog

from gateway.clock import Clock
from gateway.command import Command, MeterFacts

log = structlog.get_logger()

SIGNATURE: Final = "Lingdian-Signature"

LARGEST_ANSWER: Final = 4096
"""Bytes; an honest one has twenty."""


def signature(secret: str, at: int, body: bytes) -> str:
    """What the header says of `body`, sent at `at`."""
    mac = hmac.new(secret.encode(), b"%d." % at + body, hashlib.sha256)
    return f"t={at},v1={mac.hexdigest()}"


class BillingCheck:
    """Satisfies `control.gates.AskBilling`. `close` it at the end."""

    def __init__(self, url: str, secret: str, clock: Clock, *, timeout_s: float = 5.0) -> None:
        self._url = url
        self._secret = secret
        self._clock = clock
        self._client = httpx.AsyncClient(timeout=timeout_s, follow_redirects=False)

    async def __call__(self, command: Command, facts: MeterFacts, /) -> bool | None:
        """True or False as billing says; None where it does not say. Never raises."""
        now = self._clock.now()
        told = {
            "command": str(command.id),
            "meter": facts.meter,
            "customer": command.customer or facts.customer,
            "cause": command.cause,
            "notice": command.notice,
            "asked_at": now.isoformat(),
        }
        body = json.dumps(told, ensure_ascii=False).encode()
        headers = {
            "Content-Type": "application/json",
            SIGNATURE: signature(self._secret, int(now.timestamp()), body),
        }
        try:
            async with self._client.stream("POST", self._url, content=body, headers=headers) as answer:
                said = b""
                async for part in answer.aiter_bytes():
                    said += part
                    if len(said) > LARGEST_ANSWER:
                        break
            owes = json.loads(said)["owes"] if answer.status_code == 200 else None
        except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
            log.warning("billing gave no answer", command=str(command.id), error=repr(error))
            return None
        if not isinstance(owes, bool):
            log.warning("billing gave no answer", command=str(command.id), status=answer.status_code)
            return None
        return owes

    async def close(self) -> None:
        """End its connections."""
        await self._client.aclose()
