"""A frame as a tree of fields, with nothing said about how it is shown."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Node:
    """One field.

    offset: place of raw[0] in the bytes that were looked at, None where the field has no bytes of its own.
    raw: its bytes; below the data field of a 645 frame without their 33H. value: decimal string or text, None
    where there is none. clause: where the layout comes from. meaning: what the value says, in words.
    """

    name: str
    name_zh: str
    offset: int | None
    raw: bytes
    value: str | None = None
    unit: str = ""
    clause: str = ""
    children: tuple[Node, ...] = ()
    meaning: str = ""
    meaning_zh: str = ""

    def walk(self, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Node]]:
        """This node and all below it, from top to bottom, each with the names that lead to it.

        Children of one name are told apart by a number: "data unit", "data unit 2".
        """
        yield path, self
        seen: dict[str, int] = {}
        for child in self.children:
            seen[child.name] = seen.get(child.name, 0) + 1
            name = child.name if seen[child.name] == 1 else f"{child.name} {seen[child.name]}"
            yield from child.walk((*path, name))
