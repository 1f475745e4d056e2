"""The one shape of a way to a peer, whatever carries it: TCP now, a pair in memory for tests."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

Settle = Callable[[], Awaitable[None]]
"""Called once the bytes that came with it are safe: an acknowledgement where the carrier has one."""


async def settled() -> None:
    """The settle of a carrier that acknowledges by itself (TCP, serial)."""


class Taken(Enum):
    """What became of bytes that had to leave at once."""

    WHOLE = "on their way"
    NOTHING = "none of them left, and none will"
    PERHAPS = "some may have left"


@dataclass(frozen=True, slots=True)
class Certificate:
    """Whom a peer's certificate names, after it was verified against our authorities."""

    names: tuple[str, ...]
    """its common names, then the alternative ones (DNS, URI, mail, IP), as they stand in it"""
    fingerprint: str
    """SHA-256 of the whole certificate, in hex"""


class Link(Protocol):
    """Bytes to and from one peer. One task reads; any may write."""

    @property
    def peer(self) -> str:
        """Where the peer is, for logs: `host:port`. Never a terminal's identity: many share an address."""
        ...

    @property
    def source(self) -> str:
        """`peer` without what changes at each dialling: the host."""
        ...

    @property
    def certified_as(self) -> Certificate | None:
        """What the peer has proved to be; None where the link asks for no certificate, or cannot."""
        ...

    @property
    def only_for(self) -> frozenset[str] | None:
        """The terminals that may speak here, as proved by what carries the link: their addresses, in lower
        case, maybe among other names. None: any terminal."""
        ...

    @property
    def waiting(self) -> int:
        """Bytes that have come and were not read yet."""
        ...

    async def read(self) -> tuple[bytes, Settle]:
        """The next bytes, never empty and of bounded length, and what is to be called once they are safe.
        Raises LinkClosed at the end.

        Gives other tasks a turn at least once each call while bytes are waiting.
        """
        ...

    async def write(self, data: bytes) -> None:
        """Hand `data` over whole, in the order of calls. Returns when the peer's side has room again.

        Raises LinkClosed if the link has ended, or if it found no room within the write deadline (then the
        link is aborted: what was handed over may or may not have left).
        """
        ...

    @property
    def unsent(self) -> int:
        """Bytes that were handed over and have not left this machine yet."""
        ...

    def write_now(self, data: bytes) -> Taken:
        """Have `data` leave whole before this returns, or not at all: what must not arrive late is sent so.

        PERHAPS has reset the link. NOTHING has done so where the peer is stuck, or learns of it; else the
        link stands, and the next bytes may fare better. Never raises.
        """
        ...

    async def close(self) -> None:
        """End after what was written has left, within the write deadline; idempotent."""
        ...

    def abort(self) -> None:
        """End at once; bytes not yet sent are dropped. Idempotent."""
        ...
