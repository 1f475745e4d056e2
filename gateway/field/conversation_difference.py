"""A recorded frame and the one that came instead: the same, another value, or another thing, and the first
place where they part.

Every byte counts. What may differ for a good reason is left out only where it is named, and then it is told
that it was.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from gateway.errors import InputError
from gateway.field.conversation import Cut, Piece
from protocols import lens
from protocols.lens import difference as trees
from protocols.lens.node import Node
from protocols.lens.places import find
from protocols.lens.tree import tree

IGNORABLE: Final[dict[str, tuple[str, ...]]] = {
    "clock": ("clock", "Time", "Date and weekday", "Date, weekday and time"),
    "read-at": ("read_at",),
    "pseq": ("PSEQ", "RSEQ"),
    "ec": ("event counter EC",),
    "tp": ("time label Tp",),
    "lead": ("lead-in",),
}
"""What --ignore may name, and the lens' words for the fields that are meant, anywhere in their path."""

# Fields that say only what others do: a checksum, a length, the hex of a frame that is told field by field
# beside it.
_DERIVED: Final = frozenset(
    ("checksum CS", "content", "length L", "length again", "user data bytes", "data length L", "k")
)
_MOST_HEX: Final = 4096


@dataclass(frozen=True, slots=True)
class Difference:
    """Where a frame parts from the recorded one. line: of the file, 0 where nothing was recorded; field,
    field_zh: what differs; at: the first byte that does, counted from the frame's 68H, None where one of the
    frames is not there; expected, got: the field's value, or the bytes in hex; None: nothing."""

    line: int
    t: float
    field: str
    field_zh: str
    at: int | None
    expected: str | None
    got: str | None


@dataclass(frozen=True, slots=True)
class Judged:
    """verdict: `same`; `value`: the same device says the same kind of thing, with another value; `other`."""

    verdict: str
    difference: Difference | None = None
    ignored: tuple[str, ...] = ()
    """words of IGNORABLE without which it were not the same"""


def ignoring(words: list[str]) -> frozenset[str]:
    """What --ignore named. InputError for a word that is none of IGNORABLE."""
    for word in words:
        if word not in IGNORABLE:
            raise InputError(f"--ignore: {word!r} is none of {', '.join(IGNORABLE)} 无此可忽略项")
    return frozenset(words)


def judge(expected: Piece | None, got: Cut | None, ignored: frozenset[str], t: float) -> Judged:
    """One frame that should have come, and the one that did; t: when it should."""
    if expected is None or got is None:
        line = expected.line if expected else 0
        words = ("frame that was not recorded", "多出的帧") if expected is None else ("no answer", "无应答")
        was, now = (one.raw.hex()[:_MOST_HEX] if one else None for one in (expected, got))
        return Judged("other", Difference(line, t, *words, None, was, now))
    left_out: list[str] = []
    if expected.lead is not None and expected.lead != got.lead:
        if "lead" not in ignored:
            words = ("lead-in", "前导符")
            return Judged(
                "value", Difference(expected.line, t, *words, 0, f"{expected.lead} FEH", f"{got.lead} FEH")
            )
        left_out.append("lead")
    if expected.raw == got.raw:
        return Judged("same", None, tuple(left_out))
    return _parted(expected, got, ignored, t, left_out)


def _parted(expected: Piece, got: Cut, ignored: frozenset[str], t: float, left_out: list[str]) -> Judged:
    pairs = zip(expected.raw, got.raw, strict=False)
    at = next((place for place, (one, other) in enumerate(pairs) if one != other), None)
    if at is None:
        at = min(len(expected.raw), len(got.raw))
    left, right = _tree(expected.raw), _tree(got.raw)
    if left is None or right is None:
        was, now = expected.raw.hex()[:_MOST_HEX], got.raw.hex()[:_MOST_HEX]
        return Judged("other", Difference(expected.line, t, "bytes", "字节", at, was, now))
    counting = []
    for one in trees.differences(left, right):
        word = next((word for word in sorted(ignored) if set(IGNORABLE[word]) & set(one.path)), None)
        if word is None:
            counting.append(one)
        else:
            left_out.append(word)
    real = [one for one in counting if one.path[-1:] and one.path[-1] not in _DERIVED]
    words = tuple(dict.fromkeys(left_out))
    if left_out and not real:
        return Judged("same", None, words)
    first = (real or counting)[0]
    verdict = "value" if _kind(expected.raw) == _kind(got.raw) else "other"
    path = " / ".join(first.path) or left.name
    told = Difference(expected.line, t, path, first.node.name_zh, at, _value(first.left), _value(first.right))
    return Judged(verdict, told, words)


def _tree(raw: bytes) -> Node | None:
    places = find(raw).frames
    if len(places) != 1 or (places[0].start, places[0].end) != (0, len(raw)):
        return None
    return tree(raw, places[0])


def _value(node: Node | None) -> str | None:
    if node is None:
        return None
    told = node.value if node.value is not None else node.raw.hex()[:_MOST_HEX]
    return f"{told} {node.unit}".strip()


def _kind(raw: bytes) -> tuple[Any, ...]:
    """Who says what kind of thing, of which item."""
    frame = lens.look(raw).frames[0]
    units = [(unit.get("pn"), unit.get("fn")) for unit in frame.get("units", ())]
    inner = frame.get("inner") or {}
    who = (
        frame["protocol"],
        frame.get("terminal"),
        frame.get("dir"),
        frame.get("prm"),
        frame.get("afn"),
        units,
    )
    return (*who, *(one.get(key) for one in (frame, inner) for key in ("address", "control", "di")))
