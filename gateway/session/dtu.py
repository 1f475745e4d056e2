"""Modems (DTU) that dial in and pass bytes through: who they are by what they say first, and from then on a
line of ours.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import structlog

from gateway.clock import Clock
from gateway.errors import ConfigurationError, LinkClosed
from gateway.session.direct_line import LineSettings
from gateway.session.line_terminal import LineTerminal
from gateway.transports.link import Link

log = structlog.get_logger()

LINE_GROUP: Final = "line"
"""Of a pattern: what it names is the line."""

LONGEST_REGISTRATION: Final = 512
"""Bytes."""

WHOLE_AFTER_S: Final = 0.3
"""A registration that ends with the last byte so far may go on; after so long it is whole."""

OLDER_ENDS_S: Final = 10.0
"""So long the older link of a line is waited for: it must not speak beside the newer one."""


@dataclass(frozen=True, slots=True)
class DtuProfile:
    """What one kind of modem says."""

    registration: bytes
    """regular expression for the first bytes, which names the line in its group `line`; where it has no such
    group it is no expression but fixed text, of the line `line`"""
    line: str = ""
    heartbeats: tuple[bytes, ...] = ()
    """fixed texts, swallowed between frames; so is the registration, which some say again and again"""
    pattern: re.Pattern[bytes] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """ConfigurationError for an expression that cannot be, or for text without a line."""
        named = b"(?P<line>" in self.registration
        if named == bool(self.line) or not self.registration:
            raise ConfigurationError(
                f"registration {self.registration!r} needs a group (?P<line>…), or to be fixed text"
                " with `line` 注册包须含线路名或指定线路"
            )
        try:
            pattern = re.compile(self.registration if named else re.escape(self.registration), re.DOTALL)
        except re.error as error:
            raise ConfigurationError(
                f"registration {self.registration!r} is no regular expression 正则表达式有误: {error}"
            ) from error
        object.__setattr__(self, "pattern", pattern)

    def names(self, match: re.Match[bytes]) -> str:
        """The line that a registration is of."""
        return self.line or match[LINE_GROUP].decode("ascii", "backslashreplace")


class DtuLines:
    """The lines that may dial in, and those that have. Built once."""

    def __init__(
        self,
        profiles: Sequence[DtuProfile],
        lines: Mapping[str, tuple[str, LineSettings]],
        clock: Clock,
        *,
        deadline_s: float = 30.0,
    ) -> None:
        """lines: name -> address of its terminal, and how it is spoken on. deadline_s: for a registration."""
        self.profiles = tuple(profiles)
        self.lines = dict(lines)
        self.clock = clock
        self.deadline_s = deadline_s
        self.standing: dict[str, LineTerminal] = {}
        """the newest link of each line"""

    def known(self, said: bytes) -> tuple[DtuProfile, re.Match[bytes], str] | None:
        """Whose registration `said` begins with."""
        for profile in self.profiles:
            match = profile.pattern.match(said)
            if match is not None and match.end() and (name := profile.names(match)) in self.lines:
                return profile, match, name
        return None


async def dtu(link: Link, lines: DtuLines) -> LineTerminal | None:
    """The terminal of the line that has dialled in, for `Registry.accept`; an older link of that line has
    ended then. None, and the link is closed, where nothing known was said in time."""
    try:
        said = await _registration(link, lines)
    except LinkClosed:
        said = b""
    known = lines.known(said)
    if known is None:
        log.warning("a modem that is no line of ours 未知的 DTU", peer=link.peer, said=said[:64].hex(" "))
        await link.close()
        return None
    profile, match, name = known
    address, settings = lines.lines[name]
    swallowed = (*settings.swallowed, *profile.heartbeats, match[0])
    terminal = LineTerminal(
        address, link, lines.clock, replace(settings, swallowed=swallowed), begun=said[match.end() :]
    )
    older, lines.standing[name] = lines.standing.get(name), terminal
    if older is not None and not older.closed.is_set():
        log.warning("a line has dialled in anew", line=name, peer=link.peer, older=older.peer)
        older.abort()
        try:
            async with asyncio.timeout(OLDER_ENDS_S / lines.clock.speed):
                await older.closed.wait()
        except TimeoutError:
            log.error("the older link of a line does not end", line=name, peer=older.peer)
    log.info("line registered", line=name, terminal=address, peer=link.peer)
    return terminal


async def _registration(link: Link, lines: DtuLines) -> bytes:
    """What a modem says first, until it is known, too long, or time is over. LinkClosed."""
    said = bytearray()
    clock = lines.clock
    until = clock.monotonic() + lines.deadline_s
    while len(said) < LONGEST_REGISTRATION:
        known = lines.known(bytes(said))
        if known is not None and known[1].end() < len(said):
            break
        wait = until - clock.monotonic()
        if known is not None:
            wait = min(wait, WHOLE_AFTER_S)
        try:
            async with asyncio.timeout(max(0.0, wait) / clock.speed):
                data, settle = await link.read()
        except TimeoutError:
            break
        said += data
        await settle()
    return bytes(said)
