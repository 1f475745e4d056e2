"""How a broken rule is told."""

from __future__ import annotations

from datetime import timedelta
from typing import Final, NoReturn

SLACK: Final = timedelta(seconds=1)


class Broken(AssertionError):
    """A rule was broken; the message names it."""


def broken(rule: int, what: str) -> NoReturn:
    """Broken."""
    raise Broken(f"rule {rule}: {what}")
