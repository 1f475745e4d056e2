"""Two frames compared field by field."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from protocols.lens.node import Node


@dataclass(frozen=True, slots=True)
class Difference:
    """A field that differs. path: the names that lead to it; left, right: None where a frame lacks it."""

    path: tuple[str, ...]
    left: Node | None
    right: Node | None

    @property
    def node(self) -> Node:
        """The field itself, for its names."""
        node = self.left or self.right
        assert node is not None
        return node


def differences(left: Node, right: Node) -> tuple[Difference, ...]:
    """What differs, in the order of the left frame; fields that only the right one has stand at the end.

    Fields meet by their names and numbers, wherever they stand. A field that is made of others is told only
    where none of those differs. Empty if and only if the bytes are the same.
    """
    if left.raw == right.raw:
        return ()
    others = dict(right.walk())
    ours = dict(left.walk())
    found = [Difference(path, node, others.get(path)) for path, node in ours.items()]
    found += [Difference(path, None, node) for path, node in others.items() if path not in ours]
    differing = [one for one in found if _differs(one)]
    return tuple(_innermost(differing))


def _differs(one: Difference) -> bool:
    if one.left is None or one.right is None:
        return True
    return (one.left.raw, one.left.value, one.left.unit) != (one.right.raw, one.right.value, one.right.unit)


def _innermost(found: list[Difference]) -> Iterator[Difference]:
    """Without those below which another is told; of what one side lacks, the whole and not its fields."""
    lacking = {one.path for one in found if one.left is None or one.right is None}
    above: set[tuple[str, ...]] = set()
    kept = []
    for one in found:
        if any(one.path[:length] in lacking for length in range(len(one.path))):
            continue
        kept.append(one)
        above |= {one.path[:length] for length in range(len(one.path))}
    for one in kept:
        if one.path not in above:
            yield one
