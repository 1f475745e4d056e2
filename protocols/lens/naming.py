"""From a name that a person writes to the row of a table that it means."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from functools import cache
from importlib import resources

from protocols.dlt645 import items as registers
from protocols.errors import LocalProtocolError
from protocols.q_gdw376 import items as classes

_MOST_CANDIDATES = 6

Named = tuple[str, str, str]
"""Key, English name, Chinese name."""


def di_of(wanted: str, edition: str) -> str:
    """The DI of an item: its digits, its name in either language, or a part of it that only one name has.

    LocalProtocolError where none or several are meant.
    """
    digits = wanted.lower()
    if len(digits) == (8 if edition == "2007" else 4) and set(digits) <= set("0123456789abcdef"):
        return digits
    return resolve(wanted, _items(edition), f"item of DL/T 645-{edition}")


def class_of(wanted: str, *, up: bool) -> tuple[int, int]:
    """AFN and Fn of an information class by its name. LocalProtocolError where none or several are meant."""
    order = ("up", "both", "down") if up else ("down", "both", "up")
    rows = sorted(classes.ITEMS, key=lambda item: order.index(item.direction))
    named = [(f"{item.afn:02x} F{item.fn}", item.name_en, item.name_zh) for item in rows]
    afn, _, fn = resolve(wanted, named, "information class").partition(" F")
    return int(afn, 16), int(fn)


def resolve(wanted: str, named: Iterable[Named], what: str) -> str:
    """The key of the one row that is called so ("(current)" may be left out), else of the only one whose
    names have all the words in them."""
    sought = wanted.casefold().strip()
    words = sought.split()
    rows = list(named)
    exact = {key: en for key, en, zh in rows if sought in (en.casefold(), zh.casefold())}
    exact = exact or {
        key: en
        for key, en, zh in rows
        if sought in (en.casefold().removeprefix("(current) "), zh.removeprefix("(当前)"))
    }
    partly = {
        key: en for key, en, zh in rows if words and all(word in f"{en} {zh}".casefold() for word in words)
    }
    found = exact or partly
    if len(found) == 1:
        return next(iter(found))
    if not found:
        raise LocalProtocolError(f"no {what} is called {wanted!r}")
    shown = "; ".join(f"{key} {name}" for key, name in list(found.items())[:_MOST_CANDIDATES])
    more = f" and {len(found) - _MOST_CANDIDATES} more" if len(found) > _MOST_CANDIDATES else ""
    raise LocalProtocolError(f"{wanted!r} may be any {what} of {len(found)}: {shown}{more}")


@cache
def _items(edition: str) -> tuple[Named, ...]:
    text = resources.files(registers.__package__ or "").joinpath("items.csv").read_text(encoding="utf-8")
    return tuple(
        (row["di"].lower(), row["name_en"], row["name_zh"])
        for row in csv.DictReader(text.splitlines())
        if row["protocol"] == edition
    )
