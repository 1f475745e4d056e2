"""A conversation as a file, of DL/T 645 or of Q/GDW 376.1.

One JSON object a line: `t`, seconds since the recording began; `dir`: `to_meter` and `from_meter`,
`to_terminal` and `from_terminal`, or `unclear` for what is no whole frame and was heard on a line of both
sides; `hex`; `lead`: so many FEH stood before it. Files from before there was a `lead` say nothing of it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final, Literal

from gateway.errors import InputError
from protocols.dlt645.frame import LEAD_IN
from protocols.lens.places import Family, find, settled

TO_METER, FROM_METER = "to_meter", "from_meter"
TO_TERMINAL, FROM_TERMINAL = "to_terminal", "from_terminal"
UNCLEAR = "unclear"
DIRECTIONS: Final = (TO_METER, FROM_METER, TO_TERMINAL, FROM_TERMINAL, UNCLEAR)

LONGEST_LINE: Final = 40_000
"""Characters: the longest frame (16,391 bytes) in hex, and what stands around it."""
MOST_LINES: Final = 200_000
MOST_LEAD_IN: Final = 255
USUAL_LEAD_IN: Final = 4
"""FEH before a question to a meter where the file says nothing of them (2007 clause 5: one to four)."""

HELD: Final = 16_391
"""Bytes that wait for the end of a frame: the largest that there is."""

Role = Literal["meter", "master", "terminal"]
"""Whom we play: who asks a meter, the master of a terminal, or a terminal before its master."""

SAID: Final[dict[Role, tuple[str, str]]] = {
    "meter": (TO_METER, FROM_METER),
    "master": (TO_TERMINAL, FROM_TERMINAL),
    "terminal": (FROM_TERMINAL, TO_TERMINAL),
}
"""Which pieces are ours, and which the other side's."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A line of the file. raw: without lead-in; lead: its FEH, None where nobody says. line: its number."""

    t: float
    direction: str
    raw: bytes
    lead: int | None = None
    line: int = 0

    def as_json(self) -> str:
        told: dict[str, object] = {"t": round(self.t, 3), "dir": self.direction, "hex": self.raw.hex()}
        if self.lead is not None:
            told["lead"] = self.lead
        return json.dumps(told, separators=(",", ":"))

    @property
    def whole(self) -> bytes:
        """Its bytes as they are to be said, lead-in and all."""
        lead = self.lead
        if lead is None:
            lead = USUAL_LEAD_IN if self.direction == TO_METER else 0
        return bytes([LEAD_IN]) * lead + self.raw


@dataclass(frozen=True, slots=True)
class Turn:
    """What we say, and what comes to it before we speak again. said: None where the other side begins."""

    said: Piece | None
    expected: tuple[Piece, ...] = ()
    pause_s: float = 0.0
    """until we spoke again"""

    @property
    def t(self) -> float:
        first = self.said or (self.expected[0] if self.expected else None)
        return first.t if first else 0.0


def pieces(lines: Iterable[str]) -> Iterator[Piece]:
    """The pieces of a file. InputError names the line that is none."""
    for number, line in enumerate(lines, 1):
        if number > MOST_LINES:
            raise InputError(f"more than {MOST_LINES} lines 文件过长: replay it in parts")
        piece = _piece(line, number)
        if piece is None:
            raise InputError(f'line {number} is not {{"t":…,"dir":…,"hex":…}} 记录格式有误')
        yield piece


def _piece(line: str, number: int) -> Piece | None:
    try:
        told: Any = json.loads(line) if len(line) <= LONGEST_LINE else None
        raw, lead = bytes.fromhex(told["hex"]), told.get("lead")
        t, direction = float(told["t"]), str(told["dir"])
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
    good = direction in DIRECTIONS and 0 <= t < 1e9 and raw
    if not good or not (lead is None or (type(lead) is int and 0 <= lead <= MOST_LEAD_IN)):
        return None
    bare = raw.lstrip(bytes([LEAD_IN]))
    if bare and direction in (TO_METER, FROM_METER) and lead is None and len(bare) < len(raw):
        return Piece(t, direction, bare, len(raw) - len(bare), number)  # written by hand, lead-in and all
    return Piece(t, direction, raw, lead, number)


def family_of(recorded: Iterable[Piece]) -> Family | None:
    """Whose conversation it is; None: nothing in it says so. InputError where both families are in it."""
    meter = terminal = False
    for piece in recorded:
        meter |= piece.direction in (TO_METER, FROM_METER)
        terminal |= piece.direction in (TO_TERMINAL, FROM_TERMINAL)
    if meter and terminal:
        raise InputError(
            "frames to meters and frames to terminals in one file 文件混有两种规约: replay them in two files"
        )
    if meter or terminal:
        return Family.METER if meter else Family.TERMINAL
    return None


def turns(recorded: Iterable[Piece], role: Role) -> list[Turn]:
    """The conversation as whoever plays `role` lives through it; what is unclear has no place in it."""
    ours, theirs = SAID[role]
    found: list[Turn] = []
    for piece in recorded:
        if piece.direction == ours:
            if found:
                last = found[-1]
                found[-1] = Turn(last.said, last.expected, piece.t - last.t)
            found.append(Turn(piece))
        elif piece.direction == theirs:
            last = found.pop() if found else Turn(None)
            found.append(Turn(last.said, (*last.expected, piece)))
    return found


@dataclass(frozen=True, slots=True)
class Cut:
    """What was cut out of a stream: a whole frame, or, family None, bytes that are none."""

    raw: bytes
    lead: int = 0
    family: Family | None = None

    @property
    def comes_up(self) -> bool:
        """Does a meter or a terminal say so? For frames only."""
        return self.raw[8 if self.family is Family.METER else 6] & 0x80 != 0

    def piece(self, t: float, direction: str | None = None) -> Piece:
        """As a line of a file. direction: where it is known by the side from which it came."""
        if self.family is None:
            return Piece(t, direction or UNCLEAR, self.raw)
        if self.family is Family.METER:
            return Piece(t, direction or (FROM_METER if self.comes_up else TO_METER), self.raw, self.lead)
        return Piece(
            t, direction or (FROM_TERMINAL if self.comes_up else TO_TERMINAL), self.raw, self.lead or None
        )


class Cutter:
    """Frames of both families out of one direction's bytes, or out of a line's. Never raises."""

    def __init__(self) -> None:
        self._held = b""

    @property
    def held(self) -> int:
        """Bytes of which nothing can be told before more come; HELD at most."""
        return len(self._held)

    def take(self, data: bytes) -> list[Cut]:
        """What these bytes complete."""
        self._held += data
        return self._cut(settled(self._held) if len(self._held) <= HELD else len(self._held))

    def end(self) -> list[Cut]:
        """Nothing more comes to what is held: silence, or the end of the link."""
        return self._cut(len(self._held))

    def _cut(self, until: int) -> list[Cut]:
        data, self._held = self._held[:until], self._held[until:]
        found: list[Cut] = []
        at = 0
        for place in find(data).frames:
            between = data[at : place.start]
            junk = between.rstrip(bytes([LEAD_IN]))
            if junk:
                found.append(Cut(junk))
            lead = min(len(between) - len(junk), MOST_LEAD_IN)
            found.append(Cut(data[place.start : place.end], lead, place.family))
            at = place.end
        if junk := data[at:].strip(bytes([LEAD_IN])):
            found.append(Cut(junk))
        return found
