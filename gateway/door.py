"""The way to one meter's relay, as control sees it: no protocol names, and nothing that is not honest about
what left and what did not. `session.relay` has the real one; tests have theirs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

from gateway.command import Action, MeterFacts, RelayStatus, Why


@dataclass(frozen=True, slots=True)
class Trouble:
    """Something could not be had from the meter. detail: for a person."""

    why: Why
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A control frame that is ready to be written.

    sha256: of the 645 frame. shown: the frame with its secrets masked, for the evidence. deadline: until when
    the meter obeys it, by the meter's own clock (UTC)."""

    frame: bytes
    sha256: bytes
    shown: str
    deadline: datetime
    tried: tuple[str, ...] = ()
    """what was done before it, authentication for instance; for the evidence"""


@dataclass(frozen=True, slots=True)
class Accepted:
    """The meter said yes: not yet proof."""

    words: tuple[str, ...] = ()
    frame: str = ""


@dataclass(frozen=True, slots=True)
class Refused:
    """The meter said no. why: the cause as far as its error word tells it."""

    why: Why
    words: tuple[str, ...] = ()
    frame: str = ""


@dataclass(frozen=True, slots=True)
class Silence:
    """Nothing, or nothing that counts, came back: the frame may have been executed."""

    detail: str = ""


@dataclass(frozen=True, slots=True)
class NotWritten:
    """No byte left, for certain."""

    trouble: Trouble


Answer = Accepted | Refused | Silence


@dataclass(frozen=True, slots=True)
class Record:
    """The meter's own record of a switching, as far as it keeps one. JSON-ready."""

    values: dict[str, Any] = field(default_factory=dict)


class Challenge(Protocol):
    """What opens an identity authentication, eight bytes each, high byte first."""

    @property
    def random(self) -> bytes: ...

    @property
    def cipher(self) -> bytes: ...


class Sealed(Protocol):
    """A command as the meter's chip takes it, high byte first. mac: four bytes."""

    @property
    def cipher(self) -> bytes: ...

    @property
    def mac(self) -> bytes: ...


class Sealing(Protocol):
    """What a door needs of a security module (`control.security` has some). All bytes are high byte first;
    diversifier: 0000 and the meter number, eight bytes. Both methods raise LingdianError where the module
    cannot do it: then nothing is sent."""

    async def authenticate(self, diversifier: bytes, /) -> Challenge:
        """Random 1 and cipher 1."""
        ...

    async def seal(self, plaintext: bytes, random: bytes, esam: bytes, diversifier: bytes, /) -> Sealed:
        """Cipher and MAC of `plaintext`. random: what the meter answered, four bytes; esam: the serial number
        of its chip, eight bytes."""
        ...


class Door(Protocol):
    """One meter on the channel of one login; open as long as `Doors.open` holds it: nothing else is sent to
    this terminal meanwhile. Where the link ends, what reads gives Trouble and what writes says what is known.
    """

    @property
    def worker(self) -> str:
        """Who owns the login."""
        ...

    @property
    def generation(self) -> int:
        """Of the login."""
        ...

    @property
    def contested(self) -> bool:
        """Two devices use the terminal's address."""
        ...

    async def identify(self) -> Trouble | None:
        """Does the meter at this point say the number that the assets have? Once a login is enough."""
        ...

    async def clock_offset(self) -> float | Trouble:
        """Seconds that the meter's clock is ahead of ours, read now and reckoned from when the answer came.

        The truth is this or more, so that a deadline told by it never lies later than was meant."""
        ...

    async def status(self) -> RelayStatus | Trouble:
        """Status word 3, with the time at which the question left."""
        ...

    async def prepare(self, action: Action, deadline: datetime) -> Prepared | Trouble:
        """Authenticate where the meter wants it, and build the frame. deadline: by the meter's own clock."""
        ...

    async def write(
        self, prepared: Prepared, last_check: Callable[[], Trouble | None]
    ) -> Awaitable[Answer] | NotWritten:
        """Hand the frame to the socket; nothing is awaited between `last_check` and the write.

        Returns at once when the bytes are on their way: the answer is awaited apart. A socket that does not
        take them is reset.
        """
        ...

    async def record(self, action: Action) -> Record | Trouble:
        """The newest trip or close record, and the load current where the meter tells it."""
        ...


class Doors(Protocol):
    """The terminals that are logged in at this process."""

    def here(self) -> frozenset[int]:
        """terminal_ids of the logins that are ours."""
        ...

    def open(self, facts: MeterFacts) -> AbstractAsyncContextManager[Door | None]:
        """Take the terminal's channel, urgent first (a close before a trip), until the end of the block; None
        where the terminal is not here."""
        ...
