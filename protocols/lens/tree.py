"""The frames in any bytes as trees of fields."""

from __future__ import annotations

from protocols.lens.meter import meter_tree
from protocols.lens.node import Node
from protocols.lens.places import Family, Place, find
from protocols.lens.terminal import terminal_tree

__all__ = ["Node", "tree", "trees"]


def trees(data: bytes) -> tuple[Node, ...]:
    """The tree of every frame in `data`, from left to right. Never raises."""
    return tuple(tree(data, place) for place in find(data).frames)


def tree(data: bytes, place: Place) -> Node:
    """The tree of the frame that stands at `place` in `data`."""
    raw = data[place.start : place.end]
    if place.family is Family.METER:
        return meter_tree(raw, place.start)
    return terminal_tree(raw, place.start)
