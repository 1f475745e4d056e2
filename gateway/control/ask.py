"""A request as it is asked, the checks of its form, and the errors that say why nothing came of it."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Literal

from gateway.command import RESTORING, WHY_TEXT, Action, Why
from gateway.errors import InputError, LingdianError

RESTORE: Final = "restore"
"""What billing may ask for instead of close or permit-close: resolved once, at acceptance."""

GIVES_POWER: Final[frozenset[str]] = RESTORING | {RESTORE}
"""Verbs of requests that give power back, or let it be given."""

LONGEST_TEXT: Final = 200
"""characters of a cause, notice, label and the like"""

_KEY: Final = re.compile(r"[!-~]{1,200}")
"""Keys of our own making hold a space: no caller meets them."""


class Unfit(InputError):
    """This cannot be asked of this meter, or not like this; no command was made. why: where one is listed."""

    def __init__(self, why: Why | None, detail: str = "") -> None:
        self.why = why
        self.detail = detail
        words = [] if why is None else [" ".join(WHY_TEXT[why])]
        super().__init__(": ".join(words + [detail] * bool(detail)))


class KeyReused(LingdianError):
    """The idempotency key was used before, with another body."""


class NotNow(LingdianError):
    """The command or batch is not in a state in which this can be done."""


class NotYou(LingdianError):
    """Somebody else has to do this: a second person."""


class NoSuch(InputError):
    """There is no such command, batch or setting."""


@dataclass(frozen=True, slots=True)
class Ask:
    """One request. meter_id: None where the caller's `meter` is not in the assets (or not his)."""

    meter_id: int | None
    meter: str
    """the number as it was asked for"""
    verb: Action | Literal["restore"]
    cause: str = ""
    notice: str = ""
    customer: str = ""
    """cons_no; of a trip it must be the one that is there"""
    caused_by: str = ""
    work_order: str = ""
    label: str = ""
    not_before: datetime | None = None
    expires_at: datetime | None = None

    def body(self) -> dict[str, Any]:
        """What an idempotency key stands for; JSON-ready."""
        return {
            "meter": self.meter,
            "verb": str(self.verb),
            "cause": self.cause,
            "notice": self.notice,
            "customer": self.customer,
            "caused_by": self.caused_by,
            "work_order": self.work_order,
            "label": self.label,
            "not_before": written(self.not_before),
            "expires_at": written(self.expires_at),
        }


def written(at: datetime | None) -> str | None:
    """As it stands in bodies and evidence."""
    return None if at is None else at.astimezone(UTC).isoformat()


def check_key(key: str) -> None:
    """Unfit unless `key` can be an idempotency key."""
    if not _KEY.fullmatch(key):
        raise Unfit(None, "an idempotency key is 1 to 200 visible ASCII characters 幂等键无效")


def check_text(name: str, text: str) -> None:
    """Unfit where a text is too long, or holds what no person has typed."""
    if len(text) > LONGEST_TEXT:
        raise Unfit(None, f"{name} is longer than {LONGEST_TEXT} characters 过长")
    if any(unicodedata.category(one) in ("Cc", "Cs", "Cn") for one in text):
        raise Unfit(None, f"{name} holds control characters 含控制字符")


def same_person(one: str, other: str) -> bool:
    """Are these two names one's? Names on the local socket are marked as a person's."""
    return one.removeprefix("person:") == other.removeprefix("person:")


def check_second(by: str, requester: str, setters: frozenset[str]) -> None:
    """NotYou unless `by` may approve what `requester` asked for."""
    if same_person(by, requester):
        raise NotYou("whoever asked for it cannot approve it 申请人不能审批")
    if any(same_person(by, one) for one in setters):
        raise NotYou("whoever has set the limits cannot approve what goes over them 限额设定人不能审批")
