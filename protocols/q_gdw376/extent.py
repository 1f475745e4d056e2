"""How long the data of a form are: told from their counts alone, so that a frame is walked before it is read,
and a bad digit in one unit hides no other.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from protocols.q_gdw376.grammar import Count, Leaf, Part, Repeat
from protocols.q_gdw376.kinds import ANY_LENGTH


class Short(Exception):
    """The data end before their length is told, or a count cannot be."""


@dataclass(frozen=True, slots=True)
class _Rounds:
    """A repeat; each: the length of one round, ANY_LENGTH where `steps` must be walked."""

    count: Count | None
    each: int
    steps: tuple[_Step, ...]


_Step = int | Leaf | _Rounds
"""Bytes to pass over, a field that counts others or has the length that another tells, a repeat."""


class Extent:
    """The length of these parts."""

    def __init__(self, parts: tuple[Part, ...]) -> None:
        self._parts = parts
        self._steps = _steps(parts, frozenset(_sources(parts)))

    def ends_at(self, body: bytes, at: int, end: int) -> int:
        """Where the data that begin at `at` end; maybe beyond `end`. `Short` where there is no telling."""
        return _walk(self._steps, body, at, end, {})

    def length(self, counts: Mapping[str, int]) -> int:
        """With these counts; the least that can be where a name is not given. What goes to the end is 0."""
        return _length(self._parts, counts)


def _sources(parts: tuple[Part, ...]) -> Iterator[str]:
    for part in parts:
        if part.count is not None and part.count.source:
            yield part.count.source
        if isinstance(part, Repeat):
            yield from _sources(part.parts)


def _steps(parts: tuple[Part, ...], counting: frozenset[str]) -> tuple[_Step, ...]:
    steps: list[_Step] = []
    for part in parts:
        if isinstance(part, Repeat):
            steps.append(_Rounds(part.count, part.each, _steps(part.parts, counting)))
        elif part.length == ANY_LENGTH or counting & {part.name, *(bit.name for bit in part.bits)}:
            steps.append(part)
        elif steps and isinstance(steps[-1], int):
            steps[-1] += part.length
        else:
            steps.append(part.length)
    return tuple(steps)


def _walk(steps: tuple[_Step, ...], body: bytes, at: int, end: int, scope: dict[str, int]) -> int:
    for step in steps:
        if isinstance(step, int):
            at += step
        elif isinstance(step, _Rounds):
            at = _walk_rounds(step, body, at, end, scope)
        elif step.length != ANY_LENGTH:
            if at + step.length > end:
                raise Short
            value = int.from_bytes(body[at : at + step.length], "little")
            scope[step.name] = value
            for bit in step.bits:
                scope[bit.name] = bit.of(value)
            at += step.length
        elif step.count is None:
            at = max(at, end)
        else:
            at += _times(step.count, scope)
    return at


def _walk_rounds(rounds: _Rounds, body: bytes, at: int, end: int, scope: dict[str, int]) -> int:
    if rounds.count is not None and rounds.each != ANY_LENGTH:
        return at + rounds.each * _times(rounds.count, scope)
    left = -1 if rounds.count is None else _times(rounds.count, scope)
    while left and (left > 0 or at < end):
        at = _walk(rounds.steps, body, at, end, dict(scope))
        if at > end:
            # However many rounds are still to come: the data reach beyond the end.
            return at
        left -= 1
    return at


def _times(count: Count, scope: Mapping[str, int]) -> int:
    try:
        return count.of(scope[count.source] if count.source else 0)
    except ValueError:
        raise Short from None


def _length(parts: tuple[Part, ...], counts: Mapping[str, int]) -> int:
    total = 0
    for part in parts:
        times = 0
        if part.count is not None:
            times = part.count.of(counts.get(part.count.source, max(0, -part.count.plus)))
        if isinstance(part, Repeat):
            total += times * _length(part.parts, counts)
        else:
            total += times if part.length == ANY_LENGTH else part.length
    return total
