"""The form language: how a row of `items.csv` tells the layout of a data unit.

    form        := "none" | alternative { "||" alternative }
    alternative := [ "{" condition "}" ] ( "none" | part { "+" part } )
    condition   := "2005" | "2009" | "2013" | setting "=" word
    part        := name [ "/" 中文 ] ":" type [ "[" unit "]" ]
                 | [ name [ "/" 中文 ] ":" ] ( count "*(" | "**(" ) part { "+" part } ")"
                 | "rest" | "td_c" | "td_h"
    type        := A1..A27 | BINn | INTn | BSn [ "{" bit { "|" bit } "}" ] | BCDn | ASCIIn | GBn | BYTESn | IP
                 | DADT | REST | ( TEXT | GB | BYTES ) "@" count
    bit         := place [ "-" place ] ":" name [ "/" 中文 ] [ unit ]
    count       := ( number | name | "bits(" name ")" | "hourly(" name ")" ) [ ( "+" | "-" ) number ]

A year is short for version=year. `**(` and REST go to the end of the unit. A count's name is an earlier
integer, or a named bit of an earlier bit string, of its own level or one around it; bits() counts set bits,
hourly() is how many values an hour has by the density byte of Td_h. The tags td_c and td_h stand for their
fields; behind td_h, n means hourly(density). M is a number of tariffs: it may be filled up with EEH.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from protocols.q_gdw376.appendix import Format
from protocols.q_gdw376.kinds import ANY_LENGTH, kind_of

TARIFFS = "M"
VERSION = "version"

# How many values one hour holds, by the freeze density byte of Td_h (AFN0C F81..F121).
_VALUES_AN_HOUR = {0: 0, 1: 4, 2: 2, 3: 1, 254: 12, 255: 60}

_TAGS = {
    "td_c": "start/起始时间:A15 + density/冻结密度:BIN1 + n/数据点数:BIN1",
    "td_h": "hour/小时:BCD1 + density/冻结密度:BIN1",
}
_NAME = r"[A-Za-z][A-Za-z0-9_]*"
_TOLD_NAME = rf"(?P<name>{_NAME})(?:/(?P<zh>[^:|{{}}]+?))?"
_COUNT = (
    rf"(?:(?P<by>bits|hourly)\((?P<of>{_NAME})\)|(?P<plain>{_NAME}|\d+))(?:\s*(?P<sign>[+-])\s*(?P<off>\d+))?"
)
_REPEAT = re.compile(rf"(?:{_TOLD_NAME}:\s*)?(?:{_COUNT}\s*|(?P<greedy>\*))\*\(")
_LEAF = re.compile(
    rf"{_TOLD_NAME}:\s*(?P<kind>[A-Z]+\d*)(?:@{_COUNT.replace('?P<', '?P<at_')})?"
    r"(?:\{(?P<bits>[^}]*)\})?(?:\s*\[(?P<unit>[^\]]*)\])?"
)
_BIT = re.compile(rf"\s*(?P<low>\d+)(?:-(?P<high>\d+))?:{_TOLD_NAME}(?:\s+(?P<unit>[^|]*?))?\s*")
_BARE = re.compile(r"(rest|td_c|td_h)(?=\s*(?:\+|\)|$))")
_CONDITION = re.compile(r"\s*\{\s*(?:(\d{4})|([a-z0-9_]+)\s*=\s*([\w.-]+))\s*\}")


@dataclass(frozen=True, slots=True)
class Count:
    """source: an earlier field's name, "" for a fixed number; by: "", "bits" or "hourly"; plus: added."""

    source: str
    by: str
    plus: int

    def of(self, value: int) -> int:
        """How many, where the source says `value`; ValueError where that cannot be."""
        if self.by == "bits":
            value = value.bit_count()
        elif self.by == "hourly":
            if value not in _VALUES_AN_HOUR:
                raise ValueError(f"{self.source} {value} is no freeze density")
            value = _VALUES_AN_HOUR[value]
        if value + self.plus < 0:
            raise ValueError(f"{self.source} {value} is less than {-self.plus}")
        return value + self.plus


@dataclass(frozen=True, slots=True)
class Bit:
    """A named part of a bit string: `width` bits from place `low` up."""

    name: str
    name_zh: str
    unit: str
    low: int
    width: int

    def of(self, value: int) -> int:
        """What it says in a whole bit string's value."""
        return value >> self.low & (1 << self.width) - 1


@dataclass(frozen=True)
class Leaf:
    """One field. length: ANY_LENGTH where `count` tells it, or where it takes the rest (count None)."""

    name: str
    name_zh: str
    type: str
    format: Format
    unit: str
    bits: tuple[Bit, ...]
    count: Count | None

    @property
    def length(self) -> int:
        return self.format.length


@dataclass(frozen=True)
class Repeat:
    """`parts` again and again. count: None for until the end."""

    name: str
    name_zh: str
    count: Count | None
    parts: tuple[Part, ...]

    @cached_property
    def each(self) -> int:
        """Length of one round; ANY_LENGTH where it varies."""
        return fixed_length(self.parts)


Part = Leaf | Repeat


@dataclass(frozen=True)
class Alternative:
    """One layout. setting, word: the condition under which it holds; ("", "") without one."""

    setting: str
    word: str
    parts: tuple[Part, ...]

    def holds(self, variants: Mapping[str, str]) -> bool:
        """Whether its condition is met; never where it has none."""
        return bool(self.setting) and variants.get(self.setting) == self.word


def fixed_length(parts: tuple[Part, ...]) -> int:
    """Length of these parts in a row; ANY_LENGTH where that varies."""
    total = 0
    for part in parts:
        if isinstance(part, Leaf):
            each, times = part.length, 1
        else:
            each = part.each
            times = -1 if part.count is None or part.count.source else part.count.plus
        if each == ANY_LENGTH or times < 0:
            return ANY_LENGTH
        total += each * times
    return total


def parse(text: str) -> tuple[Alternative, ...]:
    """The alternatives of a form, in the order written. ValueError names what is wrong and where."""
    alternatives = []
    for told in text.split("||"):
        setting = word = ""
        if (condition := _CONDITION.match(told)) is not None:
            setting, word = (VERSION, condition[1]) if condition[1] else (condition[2], condition[3])
            told = told[condition.end() :]
        parts = () if told.strip() == "none" else _Reader(told).whole()
        alternatives.append(Alternative(setting, word, parts))
    return tuple(alternatives)


class _Reader:
    """One sum, read from left to right."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._hourly = False

    def whole(self) -> tuple[Part, ...]:
        parts = self._sum(())
        if self._at != len(self._text):
            raise self._wrong("what follows is not of a form")
        return parts

    def _wrong(self, what: str) -> ValueError:
        return ValueError(f"{what}: {self._text[: self._at]!r} >>> {self._text[self._at : self._at + 40]!r}")

    def _blanks(self) -> None:
        while self._at < len(self._text) and self._text[self._at].isspace():
            self._at += 1

    def _sum(self, known: tuple[str, ...]) -> tuple[Part, ...]:
        """known: names that counts may mean, of the levels around."""
        parts: list[Part] = []
        names: set[str] = set()
        countable = known
        while True:
            self._blanks()
            for part in self._part(countable, names):
                if parts and takes_all(parts[-1]):
                    raise self._wrong("nothing may follow a part that goes to the end")
                parts.append(part)
                if part.name in names:
                    raise self._wrong(f"{part.name} stands here already")
                names.add(part.name)
                if isinstance(part, Leaf) and part.type.startswith(("BIN", "BS")):
                    countable += (part.name, *(bit.name for bit in part.bits))
            self._blanks()
            if not self._text.startswith("+", self._at):
                return tuple(parts)
            self._at += 1

    def _part(self, known: tuple[str, ...], names: set[str]) -> tuple[Part, ...]:
        if (found := _REPEAT.match(self._text, self._at)) is not None:
            self._at = found.end()
            return (self._repeat(found, known, names),)
        if (found := _BARE.match(self._text, self._at)) is not None:
            self._at = found.end()
            if found[1] == "rest":
                return _Reader("rest/其余:REST").whole()
            self._hourly = found[1] == "td_h"
            return _Reader(_TAGS[found[1]]).whole()
        if (found := _LEAF.match(self._text, self._at)) is not None:
            leaf = self._leaf(found, known)
            self._at = found.end()
            return (leaf,)
        raise self._wrong("no part of a form")

    def _repeat(self, found: re.Match[str], known: tuple[str, ...], names: set[str]) -> Repeat:
        count = None if found["greedy"] else self._count(found, "", known)
        parts = self._sum(known)
        if not self._text.startswith(")", self._at):
            raise self._wrong("a repeat is not closed")
        if (count is None or count.source) and not any(
            isinstance(part, Leaf) and part.length > 0 for part in parts
        ):
            raise self._wrong("a round may be empty")
        if any(takes_all(part) for part in parts):
            raise self._wrong("a round must end before the unit does")
        self._at += 1
        name, chinese = found["name"], (found["zh"] or "").strip()
        if name is None:
            only = parts[0]
            name, chinese = (only.name, only.name_zh) if len(parts) == 1 else ("items", "")
            if len(parts) > 1:
                taken = sum(each.rstrip("0123456789_") == name for each in names)
                name = f"{name}_{taken + 1}" if taken else name
        return Repeat(name, chinese, count, parts)

    def _count(self, found: re.Match[str], prefix: str, known: tuple[str, ...]) -> Count:
        plain, by, of = found[f"{prefix}plain"], found[f"{prefix}by"] or "", found[f"{prefix}of"]
        sign, off = found[f"{prefix}sign"], found[f"{prefix}off"]
        plus = int(f"{sign}{off}") if off else 0
        if plain is not None and plain.isdecimal():
            return Count("", "", int(plain) + plus)
        if plain == "n" and self._hourly:
            by, of = "hourly", "density"
        source = of or plain
        if source not in known:
            raise self._wrong(f"no earlier integer is called {source}")
        return Count(source, by, plus)

    def _leaf(self, found: re.Match[str], known: tuple[str, ...]) -> Leaf:
        word = found["kind"]
        form = kind_of(word)
        counted = found["at_plain"] is not None or found["at_by"] is not None
        if form is None or (form.length == ANY_LENGTH) != (counted or word == "REST"):
            raise self._wrong(f"{word} is no type")
        if found["bits"] is not None and not word.startswith("BS"):
            raise self._wrong(f"{word} has no bits to name")
        count = self._count(found, "at_", known) if counted else None
        bits = self._bits(found["bits"], form.length) if found["bits"] else ()
        chinese, unit = (found["zh"] or "").strip(), (found["unit"] or "").strip()
        return Leaf(found["name"], chinese, word, form, unit, bits, count)

    def _bits(self, told: str, length: int) -> tuple[Bit, ...]:
        bits: list[Bit] = []
        free = (1 << 8 * length) - 1
        for one in told.split("|"):
            found = _BIT.fullmatch(one)
            if found is None:
                raise self._wrong(f"{one!r} names no bits")
            low = int(found["low"])
            width = int(found["high"] or low) - low + 1
            mask = (1 << width) - 1 << low if width > 0 else 0
            if not mask or free & mask != mask:
                raise self._wrong(f"{one!r} lies outside or over another")
            if any(bit.name == found["name"] for bit in bits):
                raise self._wrong(f"{one!r} has another's name")
            free &= ~mask
            bits.append(Bit(found["name"], (found["zh"] or "").strip(), found["unit"] or "", low, width))
        return tuple(bits)


def takes_all(part: Part) -> bool:
    """Whether it goes to the unit's end."""
    if isinstance(part, Leaf):
        return part.length == ANY_LENGTH and part.count is None
    return part.count is None
