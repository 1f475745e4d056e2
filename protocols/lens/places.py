"""Where frames stand in any bytes. At each 68H a 376.1 frame is tried first, then a 645 frame."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

from protocols.dlt645 import frame as dlt645
from protocols.q_gdw376 import frame as q_gdw376

NOTHING = "nothing to decode"
ONLY_LEAD_IN = "only FEH lead-in"
NO_START = "no 68H"
CUT_SHORT = "cut short"


class Family(Enum):
    """Whose frame it is."""

    METER = "DL/T 645"
    TERMINAL = "Q/GDW 376.1"


@dataclass(frozen=True, slots=True)
class Place:
    """A whole good frame: it begins with the 68H at `start` and ends before `end`."""

    family: Family
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Places:
    """frames: from left to right, none inside another; discarded: bytes outside of them, FEH not counted.

    error: why there is no frame; None where there is one.
    """

    frames: tuple[Place, ...]
    discarded: int
    error: str | None


def find(data: bytes) -> Places:
    """Every frame in `data`. Never raises; linear time."""
    frames: list[Place] = []
    discarded = 0
    reason = ""
    at = 0
    while (start := data.find(q_gdw376.START, at)) >= 0:
        discarded += _junk(data, at, start)
        found = _frame_at(data, start)
        if isinstance(found, Place):
            frames.append(found)
            at = found.end
        else:
            reason = reason or found
            discarded += 1
            at = start + 1
    discarded += _junk(data, at, len(data))
    if frames:
        return Places(tuple(frames), discarded, None)
    if not data:
        return Places((), 0, NOTHING)
    return Places((), discarded, reason or (NO_START if discarded else ONLY_LEAD_IN))


def meters(content: bytes) -> Iterator[Place]:
    """The 645 frames in bytes that a 376.1 frame forwards."""
    at = content.find(dlt645.START)
    while at >= 0:
        length = dlt645.examine(content, at)
        if isinstance(length, int):
            yield Place(Family.METER, at, at + length)
            at = content.find(dlt645.START, at + length)
        else:
            at = content.find(dlt645.START, at + 1)


def settled(data: bytes) -> int:
    """How many bytes of a stream's beginning can be judged without what comes next: a frame that may still
    become whole, and the lead-in before it, are left for later."""
    at = 0
    while (start := data.find(q_gdw376.START, at)) >= 0:
        found = _frame_at(data, start)
        if isinstance(found, str) and _unfinished(data, start):
            while start > at and data[start - 1] == dlt645.LEAD_IN:
                start -= 1
            return start
        at = found.end if isinstance(found, Place) else start + 1
    end = len(data)
    while end > at and data[end - 1] == dlt645.LEAD_IN:
        end -= 1
    return end


def _junk(data: bytes, start: int, end: int) -> int:
    return end - start - data.count(b"\xfe", start, end)


def _frame_at(data: bytes, start: int) -> Place | str:
    """The frame at `start`, or why there is none."""
    terminal = q_gdw376.examine(data, start)
    if isinstance(terminal, int):
        return Place(Family.TERMINAL, start, start + terminal)
    meter = dlt645.examine(data, start)
    if isinstance(meter, int):
        return Place(Family.METER, start, start + meter)
    # The family whose second 68H is there is the one whose fault is worth telling.
    verdict = meter if data[start + 7 : start + 8] == b"\x68" else terminal
    return verdict or CUT_SHORT


def _unfinished(data: bytes, start: int) -> bool:
    """Whether more bytes might make a frame of what begins at `start`."""
    return q_gdw376.examine(data, start) is None or dlt645.examine(data, start) is None
