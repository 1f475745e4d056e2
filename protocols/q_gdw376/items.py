"""The information classes of `items.csv`: names for every (AFN, Fn), how its data are laid out, and whether a
request for it is dangerous."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources

from protocols.q_gdw376.forms import Form, compile_form

ASKING_AFNS = frozenset((0x09, 0x0A, 0x0B, 0x0C, 0x0D, 0x0E))
"""AFNs that only ask: no class of them is dangerous, so that the sweep need not look at each."""
_SAME = "same"
# AFNs whose requests change something: what their rows do not know is dangerous.
_CHANGING = frozenset((0x01, 0x03, 0x04, 0x05, 0x06, 0x0F, 0x10))


@dataclass(frozen=True, slots=True)
class Item:
    """One row. direction: up, down or both.

    form: the data, of the answer where the class goes both ways; request: the data of the request that asks
    for it, "same" where they are the form's; both in the form language. danger: the way down changes,
    switches, clears or resets something. confidence: how sure the form is. "confirmed": sources that do not
    know each other agree; "public code": part of it is taken from public programs, which notes tells; "single
    source"; "memory": nobody states it.
    """

    afn: int
    fn: int
    pn_kind: str
    direction: str
    name_en: str
    name_zh: str
    form: str
    request: str
    danger: bool
    confidence: str
    notes: str


def _load() -> dict[tuple[int, int, str], Item]:
    items = {}
    table = resources.files(__package__).joinpath("items.csv").read_text(encoding="utf-8")
    for row in csv.DictReader(table.splitlines()):
        afn, fn, danger = int(row.pop("afn"), 16), int(row.pop("fn")[1:]), row.pop("danger") == "yes"
        items[afn, fn, row["direction"]] = Item(afn, fn, danger=danger, **row)
    return items


_ITEMS = _load()
ITEMS: tuple[Item, ...] = tuple(_ITEMS.values())
"""All rows, in the order of the table."""


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


@lru_cache(maxsize=4096)
def form_of(afn: int, fn: int, up: bool) -> Form | None:
    """The form of a unit's data; None where the list has no such unit in this direction."""
    item = lookup(afn, fn, up)
    if item is None or (up and item.direction == "down"):
        return None
    asked = not up and item.direction != "down" and item.request != _SAME
    return compile_form(item.request if asked else item.form)


def dangerous(afn: int, fn: int) -> bool:
    """Whether a request for this class needs a permit."""
    item = lookup(afn, fn, up=False)
    if item is None:
        return afn in _CHANGING
    return item.danger


def action(afn: int, fn: int) -> str:
    """The word of a permit for this class: "376 04 f10"."""
    return f"376 {afn:02x} f{fn}"
