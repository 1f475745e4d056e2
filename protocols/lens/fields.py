"""The frames in any bytes as JSON-ready fields; a 645 frame that a 376.1 frame forwards is under `inner`.

Each family's meaning is imported with its first frame: who decodes one frame does not wait for all.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from protocols.dlt645 import frame as dlt645
from protocols.lens.places import Family, Place, find
from protocols.q_gdw376 import frame as q_gdw376

Fields = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Seen:
    """What was found. frames: from left to right; discarded: bytes outside of them, FEH not counted.

    error: why there is no frame; None where there is one.
    """

    frames: list[Fields]
    discarded: int
    error: str | None


def look(data: bytes) -> Seen:
    """Every frame in `data`, none inside another. Never raises, whatever the bytes are."""
    found = find(data)
    frames = [describe(data, place) for place in found.frames]
    return Seen(frames, found.discarded, found.error)


def describe(data: bytes, place: Place) -> Fields:
    """The frame that stands at `place` in `data`."""
    raw = data[place.start : place.end]
    if place.family is Family.METER:
        from protocols.dlt645 import description

        told = description.describe(dlt645.content(raw))
        return {"protocol": told.pop("protocol"), "start": place.start, **told}
    from protocols.lens.terminal_fields import terminal_fields

    return terminal_fields(q_gdw376.content(raw), place.start, len(raw))
