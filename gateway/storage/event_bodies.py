"""What the events of a relay command say, and what they settle about its row: pure.

A body says what happened in words and, under `set`, each column that it changed. So the row can be made
again from the events, column by column, by whoever holds them. Not told are `look_at`, which moves without an
event, and while a command is open its `detail`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

from gateway.command import ENDS, Change, MeterFacts, NewCommand
from gateway.storage.frame_secret import FrameSecret

MASKED: Final = "**"
"""How a byte stands in a frame that is a secret."""

ROW: Final = (
    "id",
    "meter",
    "action",
    "state",
    "why",
    "detail",
    "intent",
    "requester",
    "approver",
    "cause",
    "notice",
    "customer",
    "caused_by",
    "work_order",
    "label",
    "trace",
    "batch",
    "shadow",
    "body_sha256",
    "created_at",
    "not_before",
    "expires_at",
    "attempts",
    "frame_hash",
    "sent_at",
    "valid_until",
    "energised_at",
    "changed_at",
)
"""What a row is compared in; in the order of `ROW_COLUMNS`."""

ROW_COLUMNS: Final = (
    "c.command_id, m.number, c.action, c.state, c.why, c.detail, c.intent, c.requester, c.approver, c.cause,"
    " c.notice, c.customer, c.caused_by, c.work_order, c.label, c.trace, c.batch_id, c.shadow,"
    " encode(c.body_sha256, 'hex'), c.created_at, c.not_before, c.expires_at, c.attempts, c.frame_sha256,"
    " c.sent_at, c.valid_until, c.energised_at, c.changed_at"
)

_SET: Final = ("attempts", "frame_hmac", "sent_at", "valid_until")
"""Columns that only `set` tells; the events of early versions did not."""

_OPEN: Final = frozenset({*_SET, "detail"})
"""What events may leave open."""

_WHY_ANEW: Final = frozenset({"step", "waits"})
"""Kinds of events that say why anew; the others leave it as it is."""

Body = Mapping[str, Any]


def written(at: datetime | None) -> str | None:
    """An instant as it stands in a body: UTC, ISO 8601."""
    return None if at is None else at.astimezone(UTC).isoformat()


# telling


def asked_for(new: NewCommand, facts: MeterFacts, intent: int) -> dict[str, Any]:
    """What the first event says of a command."""
    told: dict[str, Any] = {
        "meter": facts.meter,
        "address": facts.address,
        "terminal": facts.terminal,
        "pn": facts.pn,
        "action": new.action.value,
        "intent": intent,
        "requester": new.requester,
        "cause": new.cause,
        "notice": new.notice,
        "customer": new.customer,
        "created_at": written(new.created_at),
        "expires_at": written(new.expires_at),
        "body_sha256": new.body_hash.hex(),
    }
    where_given = {
        "caused_by": new.caused_by,
        "work_order": new.work_order,
        "label": new.label,
        "trace": new.trace,
        "batch": None if new.batch is None else str(new.batch),
        "shadow": new.shadow,
        "not_before": written(new.not_before),
    }
    return told | {name: value for name, value in where_given.items() if value}


def settled(change: Change, secret: FrameSecret) -> dict[str, Any]:
    """The columns that an event changes, as its body tells them."""
    told: dict[str, Any] = {}
    for name, value in change.values.items():
        if name == "frame_hash":
            told["frame_hmac"] = None if value is None else secret.keyed(value)
        elif name != "look_at":
            told[name] = written(value) if isinstance(value, datetime) else value
    return told


def tellable(evidence: Mapping[str, Any], secret: FrameSecret) -> Mapping[str, Any]:
    """Evidence as an event may hold it: unless its frame stands there whole, the frame's hash is keyed."""
    hashed = evidence.get("sha256")
    if hashed is None or is_whole(evidence.get("frame")):
        return evidence
    rest = {name: value for name, value in evidence.items() if name != "sha256"}
    return rest | {"hmac": secret.keyed(bytes.fromhex(hashed)), "key": secret.name}


def is_whole(frame: object) -> bool:
    """Is this a frame that hides nothing?"""
    return isinstance(frame, str) and bool(frame) and MASKED not in frame.split()


# reading


def determined(bodies: Sequence[Body]) -> dict[str, Any]:
    """What the row of a command must say by its events, in order, at least one; what they leave open is not
    in it. KeyError, TypeError or AttributeError where a body is not one of ours."""
    first, last = _evidence(bodies[0]), bodies[-1]
    told = {
        "id": bodies[0]["command"],
        **{name: first.get(name) for name in ("meter", "action", "intent", "requester", "body_sha256")},
        **{name: first.get(name, "") for name in ("cause", "notice", "customer", "caused_by")},
        **{name: first.get(name, "") for name in ("work_order", "label", "trace")},
        "batch": first.get("batch"),
        "shadow": first.get("shadow", False),
        **{name: _instant(first.get(name)) for name in ("created_at", "not_before", "expires_at")},
        "state": last["state"],
        "why": None,
        "changed_at": _instant(last["at"]),
        "energised_at": None,
        "approver": "",
    }
    detail = ""
    for body in bodies:
        if body["kind"] in _WHY_ANEW:
            told["why"], detail = body.get("why"), body.get("detail", "")
        evidence = _evidence(body)
        if "approver" in evidence:
            told["approver"] = evidence["approver"]
        if body["kind"] == "energised":
            told["energised_at"] = _instant(evidence.get("at"))
        told |= body.get("set", {})
    if told["state"] in ENDS:
        told["detail"] = detail
    if "set" in bodies[0]:
        told = dict.fromkeys(_SET) | {"attempts": 0} | told
    else:
        told = {name: value for name, value in told.items() if name not in _SET}
    return told


def row_told(row: Sequence[Any], secret: FrameSecret | None) -> dict[str, Any]:
    """A row of `ROW_COLUMNS` as events tell it."""
    told: dict[str, Any] = {}
    for name, value in zip(ROW, row, strict=True):
        if name == "frame_hash":
            told["frame_hmac"] = None if value is None or secret is None else secret.keyed(bytes(value))
        elif isinstance(value, datetime):
            told[name] = written(value)
        else:
            told[name] = str(value) if isinstance(value, UUID) else value
    return told


def comparable(row: Mapping[str, Any], told: Mapping[str, Any]) -> dict[str, Any]:
    """A row without what its events, which determine `told`, leave open."""
    return {name: value for name, value in row.items() if name in told or name not in _OPEN}


def differing(row: Mapping[str, Any], told: Mapping[str, Any]) -> list[str]:
    """The columns in which a row, as made comparable, is not what its events determine."""
    missing = object()
    return [name for name in sorted({*row, *told}) if row.get(name, missing) != told.get(name, missing)]


def _evidence(body: Body) -> Mapping[str, Any]:
    found = body.get("evidence")
    return found if isinstance(found, Mapping) else {}


def _instant(text: object) -> str | None:
    return None if text is None else written(datetime.fromisoformat(str(text)))
