"""Outgoing events as CloudEvents 1.0 (structured mode, JSON), and their signature as Standard Webhooks have
it."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from gateway.storage.outbox import Told

MEDIA_TYPE: Final = "application/cloudevents+json"
SOURCE: Final = "urn:lingdian:gateway"
SECRET_PREFIX: Final = "whsec_"


def as_cloud_event(told: Told) -> dict[str, Any]:
    """The event with its attributes; `sequence` is the cursor from which to go on behind it."""
    return {
        "specversion": "1.0",
        "id": str(told.number),
        "source": SOURCE,
        "type": told.type,
        "subject": told.subject,
        "time": told.at.astimezone(UTC).isoformat(),
        "datacontenttype": "application/json",
        "sequence": str(told.place),
        "data": told.data,
    }


def body_of(told: Told) -> bytes:
    """The bytes that are signed and sent."""
    return json.dumps(as_cloud_event(told), ensure_ascii=False, separators=(",", ":")).encode()


def signed_headers(secret: str, number: int, at: datetime, body: bytes) -> Mapping[str, str]:
    """Headers of a delivery: HMAC-SHA256 over `id.seconds.body`. secret: `whsec_` and base64."""
    seconds = str(int(at.timestamp()))
    key = base64.b64decode(secret.removeprefix(SECRET_PREFIX))
    digest = hmac.new(key, f"{number}.{seconds}.".encode() + body, hashlib.sha256).digest()
    return {
        "content-type": MEDIA_TYPE,
        "webhook-id": str(number),
        "webhook-timestamp": seconds,
        "webhook-signature": f"v1,{base64.b64encode(digest).decode()}",
    }
