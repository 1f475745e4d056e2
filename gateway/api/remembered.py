"""Whose tokens were good lately: for the one request that must not wait for the database, a close.

While the database answers nothing here is asked. While it is away a token that was good within KEPT may
still ask for closes, which the journal keeps; a token that is revoked meanwhile can do no more than that.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from datetime import datetime, timedelta
from typing import Final

from gateway.storage.clients import KnownClient

KEPT: Final = timedelta(hours=12)
"""A database that is away longer is a matter for the unix socket."""

MOST: Final = 1000


class Remembered:
    """The clients that were let in last; of a token its hash."""

    def __init__(self) -> None:
        self._clients: OrderedDict[bytes, tuple[KnownClient, datetime]] = OrderedDict()

    def note(self, token: str, client: KnownClient | None, at: datetime) -> None:
        """The database has said whose token this is; None: nobody's."""
        digest = _digest(token)
        self._clients.pop(digest, None)
        if client is not None:
            self._clients[digest] = client, at
            if len(self._clients) > MOST:
                self._clients.popitem(last=False)

    def find(self, token: str, now: datetime) -> KnownClient | None:
        """Whose it was when the database last said so; None where that is too long ago."""
        client, at = self._clients.get(_digest(token), (None, now))
        return client if now - at <= KEPT else None


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
