"""The information classes of `items.csv`: names for every (AFN, Fn), and how long a data unit is.

The length is what lets a frame be read on behind a unit that has no layout here.
"""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources

# How many values one hour holds, by the freeze density byte of Td_h (AFN0C F81..F121).
_VALUES_AN_HOUR = {0: 0, 1: 4, 2: 2, 3: 1, 254: 12, 255: 60}
_CLASS_1 = 0x0C
_CLASS_2 = 0x0D
_QUERY = 0x0A
_SET = 0x04
_CONFIGURATION = 0x09
_TAGS = {"Td_d": 3, "Td_m": 2, "Td_c": 7, "Td_h": 2}

_TOKEN = re.compile(r"\s*(\w+)\((?:[^()]*,)?(\d+)(?::[^()]*)?\)\s*\+?")
_LENGTH = re.compile(r"(\d+)(?:\+(\d*)\(?([Mn])(\+1)?\)?)?")
_QUERY_LIST = re.compile(r"down: n\((?:BIN,)?(\d)\)\+n x \w+\((?:BIN,)?(\d)\)")


@dataclass(frozen=True, slots=True)
class Item:
    """One row: names and the description of its data. direction: up, down or both."""

    afn: int
    fn: int
    pn_kind: str
    direction: str
    name_en: str
    name_zh: str
    fields: str
    length: str
    confidence: str
    notes: str


@dataclass(frozen=True, slots=True)
class _Rule:
    """A length of `fixed` bytes and `each` more for every count; the count stands at `place`."""

    fixed: int
    each: int = 0
    place: int = 0
    size: int = 0
    per_hour: bool = False


def _load() -> dict[tuple[int, int, str], Item]:
    items = {}
    table = resources.files(__package__).joinpath("items.csv").read_text(encoding="utf-8")
    for afn, fn, pn_kind, direction, *told in list(csv.reader(table.splitlines()))[1:]:
        item = Item(int(afn, 16), int(fn[1:]), pn_kind, direction, *told)
        items[item.afn, item.fn, item.direction] = item
    return items


_ITEMS = _load()


@lru_cache(maxsize=4096)
def lookup(afn: int, fn: int, up: bool = True) -> Item | None:
    """The row for a unit, by the direction of its frame; None where the list has none.

    A request is named by the row of its answer where only that one is listed.
    """
    for direction in ("up" if up else "down", "both", "down" if up else "up"):
        item = _ITEMS.get((afn, fn, direction))
        if item is not None:
            return item
    return None


def unit_length(afn: int, fn: int, up: bool, body: bytes, at: int) -> int | None:
    """Length of the data of the unit whose data begin at `body[at]`; None where the list cannot tell.

    It may be more than `body` holds: that is for the caller to see.
    """
    rule = _rule(afn, fn, up)
    if rule is None:
        return None
    if not rule.size:
        return rule.fixed
    counted = body[at + rule.place : at + rule.place + rule.size]
    if len(counted) < rule.size:
        return rule.fixed
    count = int.from_bytes(counted, "little")
    if rule.per_hour:
        return rule.fixed + rule.each * _VALUES_AN_HOUR[count] if count in _VALUES_AN_HOUR else None
    return rule.fixed + rule.each * count


@lru_cache(maxsize=4096)
def _rule(afn: int, fn: int, up: bool) -> _Rule | None:
    item = lookup(afn, fn, up)
    if item is None:
        return None
    if not up and (item.direction == "up" or afn == _QUERY):
        return _request_rule(item)
    if up and item.direction == "down":
        return None
    parameter = _ITEMS.get((_SET, fn, "down")) if afn == _QUERY else None
    return _data_rule((parameter or item).fields, item.length)


def _request_rule(item: Item) -> _Rule | None:
    """A request carries the tag of its answer (AFN0C, 0D), a list (some of AFN0A), or nothing."""
    if item.afn == _QUERY:
        listed = _QUERY_LIST.match(item.fields)
        if listed is not None:
            size, each = int(listed[1]), int(listed[2])
            return _Rule(size, each, 0, size)
        return _Rule(0) if item.fields.startswith("down: (none)") else None
    if item.afn in (_CLASS_1, _CLASS_2):
        return _Rule(_TAGS.get(item.fields[:4], 0))
    return _Rule(0) if item.afn == _CONFIGURATION else None


def _data_rule(fields: str, length: str) -> _Rule | None:
    tag = _TAGS.get(fields[:4], 0)
    base = tag if length.startswith("tag+") else 0
    if fields.startswith("Td_h"):
        value = re.search(r"n x value\([^()]*,(\d+)\)", fields)
        return None if value is None else _Rule(2, int(value[1]), 1, 1, per_hour=True)
    said = _LENGTH.fullmatch(length.removeprefix("tag+"))
    if said is None:
        return None
    fixed, each, counter, plus_one = said.groups()
    if counter is None:
        return _Rule(base + int(fixed))
    each_length = int(each or 1)
    place_and_size = (6, 1) if fields.startswith("Td_c") else _counter(fields, counter)
    if place_and_size is None:
        return None
    return _Rule(base + int(fixed) + (each_length if plus_one else 0), each_length, *place_and_size)


def _counter(fields: str, counter: str) -> tuple[int, int] | None:
    """Where in the data the count stands, and in how many bytes."""
    place = at = 0
    while (token := _TOKEN.match(fields, at)) is not None:
        if token[1] == counter:
            return place, int(token[2])
        place += int(token[2])
        at = token.end()
    return None
