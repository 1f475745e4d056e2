"""Data units by the form language of `grammar`: bytes to `Fields` and back, and where a unit ends.

construct holds the layout; what `grammar` read is compiled to it once for each form.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from functools import lru_cache
from typing import Any

import construct

from protocols import wire
from protocols.errors import LocalProtocolError, RemoteProtocolError
from protocols.q_gdw376 import grammar
from protocols.q_gdw376.containers import bare, given_names, to_containers, to_fields, written
from protocols.q_gdw376.extent import Extent, Short
from protocols.q_gdw376.fields import Fields
from protocols.q_gdw376.formats import FILLER
from protocols.q_gdw376.grammar import TARIFFS, VERSION, Alternative, Bit, Count, Leaf, Part
from protocols.q_gdw376.kinds import ANY_LENGTH

NO_VARIANTS: Mapping[str, str] = {}
DEFAULT_VERSION = "2013"
FILLERS = (FILLER, 0xEF)
"""What may stand for the number of tariffs in an empty answer."""
MOST_TARIFFS = 63
"""What D5-D0 of an archive record can say. Real meters have at most 48, most have 4."""
USUAL_TARIFFS = 4
NO_DATA = "no_data"
"""Name of what stands behind a number of tariffs that is filled up."""
_TAG_FIELDS = ("td_d", "td_m", "start", "hour", "density", "n")


@lru_cache(maxsize=2048)
def compile_form(text: str) -> Form:
    """The form of one cell of `items.csv`. ValueError names what is wrong with it and where."""
    return Form(text)


class Form:
    """How the data of one information class are laid out. `text` is its source, `alternatives` what it says.

    variants: settings that choose between alternatives of one length, by name, of a profile; the version is
    DEFAULT_VERSION where they name none.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self.alternatives = grammar.parse(text)
        self._layouts = tuple(_Layout(alternative) for alternative in self.alternatives)

    @property
    def greedy(self) -> bool:
        """Whether some alternative goes to the unit's end."""
        return any(grammar.takes_all(each.parts[-1]) for each in self.alternatives if each.parts)

    @property
    def unknown(self) -> bool:
        """Whether it says nothing about its data."""
        return self.text == "rest"

    def decode(self, raw: bytes, variants: Mapping[str, str] = NO_VARIANTS, base: int = 0) -> Fields:
        """What exactly these bytes say; base is added to all offsets.

        RemoteProtocolError (its offset within `raw`) where they are no such unit.
        """
        layouts = self._order(variants)
        for layout in layouts:
            if layout.fits(raw):
                return layout.decode(raw, base)
        return layouts[0].decode(raw, base)

    def encode(
        self, values: Fields | Mapping[str, object], variants: Mapping[str, str] = NO_VARIANTS
    ) -> bytes:
        """The data that say this: `Fields` as `decode` gave them, or names and values (see `Fields.plain`),
        values as they are or as text. Counts may be left out where a list tells them. The alternative that
        the settings choose is written; where the values are not for it, the first other that they are for.

        LocalProtocolError where a value is missing, unknown or does not fit.
        """
        first, *others = self._order(variants)
        try:
            return first.encode(values)
        except LocalProtocolError:
            for layout in others:
                with suppress(LocalProtocolError):
                    return layout.encode(values)
            raise

    def has_data(self, variants: Mapping[str, str] = NO_VARIANTS) -> bool:
        """Whether there are data in the alternative that the settings choose."""
        return bool(self._order(variants)[0].told.parts)

    def lengths(
        self, body: bytes, at: int, end: int, variants: Mapping[str, str] = NO_VARIANTS
    ) -> tuple[int, ...]:
        """How long the data at `body[at:end]` may be, the likeliest first; they may reach beyond `end`.

        None at all where a count cannot be, or lies beyond `end`.
        """
        found: list[int] = []
        for layout in self._order(variants):
            try:
                length = layout.ends_at(body, at, end) - at
            except Short:
                continue
            if length not in found:
                found.append(length)
        return tuple(found)

    def filled_tariffs(
        self, body: bytes, at: int, end: int, variants: Mapping[str, str] = NO_VARIANTS
    ) -> tuple[int, int] | None:
        """Where the number of tariffs is filled up: its place behind `at`, and the length with the usual
        number of tariffs. None where it is not."""
        layout = self._order(variants)[0]
        place = layout.tariffs_at
        if place is None or at + place >= end or body[at + place] not in FILLERS:
            return None
        return place, layout.length({TARIFFS: USUAL_TARIFFS})

    def length(self, counts: Mapping[str, int], variants: Mapping[str, str] = NO_VARIANTS) -> int:
        """Length of the data with these counts, names not given being 0; **( and REST take nothing."""
        return self._order(variants)[0].length(counts)

    def _order(self, variants: Mapping[str, str]) -> tuple[_Layout, ...]:
        """All alternatives, the one that holds first."""
        if len(self._layouts) == 1:
            return self._layouts
        told = {VERSION: DEFAULT_VERSION, **variants}
        chosen = next((each for each in self._layouts if each.told.holds(told)), None)
        if chosen is None:
            chosen = next((each for each in self._layouts if not each.told.setting), self._layouts[0])
        return chosen, *(each for each in self._layouts if each is not chosen)


class _BadField(ValueError):
    """A field's bytes are none of its format. offset: its place."""

    def __init__(self, offset: int, reason: str) -> None:
        super().__init__(reason)
        self.offset = offset


class _Layout:
    """One alternative, compiled. tariffs_at: place of M, where there is one."""

    def __init__(self, told: Alternative) -> None:
        self.told = told
        self._parts = told.parts
        self._extent = Extent(told.parts)
        self._declared = _declare(told.parts, {}, construct.Terminated)
        self.tariffs_at: int | None = None
        self._filled: Any = None
        for place, part in enumerate(told.parts):
            if isinstance(part, Leaf) and part.name == TARIFFS:
                before = told.parts[: place + 1]
                self.tariffs_at = grammar.fixed_length(before) - 1
                rest = grammar.parse(f"{NO_DATA}/无数据:REST")[0].parts
                self._filled = (*before, *rest)
        if self._filled is not None:
            self._filled_declared = _declare(self._filled, {}, construct.Terminated)

    # -- bytes to values

    def decode(self, raw: bytes, base: int) -> Fields:
        parts, declared = self._parts, self._declared
        place = self.tariffs_at
        if self._is_filled(raw):
            parts, declared = self._filled, self._filled_declared
        elif place is not None and place < len(raw) and raw[place] > MOST_TARIFFS:
            raise RemoteProtocolError(raw, place, f"{raw[place]} tariffs")
        try:
            found = wire.parse(declared, raw, "data")
        except RemoteProtocolError as error:
            if isinstance(error.__cause__, _BadField):
                raise RemoteProtocolError(raw, error.__cause__.offset, str(error.__cause__)) from error
            raise
        return to_fields(parts, found, base, base + self._blank_from(raw))

    def _blank_from(self, raw: bytes) -> int:
        """Where a unit begins that is filled up behind its tag; behind its end where it is not."""
        tag = 0
        for part in self._parts:
            if not isinstance(part, Leaf) or part.name not in _TAG_FIELDS:
                break
            tag += part.length
        rest = raw[tag:]
        return tag if len(rest) > 1 and rest.count(FILLER) == len(rest) else len(raw)

    # -- values to bytes

    def encode(self, values: Fields | Mapping[str, object]) -> bytes:
        given = given_names(values)
        parts, declared = self._parts, self._declared
        if self._filled is not None and TARIFFS in given and bare(given[TARIFFS]) in (None, *FILLERS):
            parts, declared = self._filled, self._filled_declared
            usual = self.length({TARIFFS: USUAL_TARIFFS}) - (self.tariffs_at or 0) - 1
            given = {name: given[name] for name in given if any(part.name == name for part in parts)}
            given.setdefault(NO_DATA, bytes([FILLER]) * usual)
        try:
            told = to_containers(parts, given)
        except ValueError as error:
            raise LocalProtocolError(str(error)) from error
        raw = wire.build(declared, told, "data")
        place = self.tariffs_at
        if place is not None and parts is self._parts and raw[place] > MOST_TARIFFS:
            raise LocalProtocolError(f"{raw[place]} tariffs; there are {MOST_TARIFFS} at most")
        return raw

    # -- lengths

    def fits(self, raw: bytes) -> bool:
        """Whether the data can be these bytes, by their length."""
        if self._is_filled(raw):
            return True
        try:
            return self.ends_at(raw, 0, len(raw)) == len(raw)
        except Short:
            return False

    def _is_filled(self, raw: bytes) -> bool:
        place = self.tariffs_at
        return place is not None and place < len(raw) and raw[place] in FILLERS

    def ends_at(self, body: bytes, at: int, end: int) -> int:
        """Where the data that begin at `at` end. `Short` where a count is not there or cannot be."""
        place = self.tariffs_at
        if place is not None and at + place < end and body[at + place] > MOST_TARIFFS:
            raise Short
        return self._extent.ends_at(body, at, end)

    def length(self, counts: Mapping[str, int]) -> int:
        return self._extent.length(counts)


# -- construct ----------------------------------------------------------------------------------------

_Scope = dict[str, tuple[str, Bit | None]]
"""What a count's name means: the field, and the bits of it."""


def _declare(parts: tuple[Part, ...], around: _Scope, *ends: Any) -> Any:
    """construct's layout of one level."""
    scope = dict(around)
    declared = []
    for part in parts:
        if isinstance(part, Leaf):
            declared.append(part.name / construct.RawCopy(_field(part, scope)))
            scope[part.name] = part.name, None
            scope.update((bit.name, (part.name, bit)) for bit in part.bits)
        elif part.count is None:
            declared.append(part.name / construct.GreedyRange(_declare(part.parts, scope)))
        else:
            each = _declare(part.parts, scope)
            declared.append(part.name / construct.Array(_counted(part.count, scope), each))
    return construct.Struct(*declared, *ends)


def _field(leaf: Leaf, scope: _Scope) -> Any:
    """The leaf's own bytes: read to its value, written from its value or from a `Field`."""
    if leaf.length != ANY_LENGTH:
        raw: Any = construct.Bytes(leaf.length)
    elif leaf.count is not None:
        raw = construct.Bytes(_counted(leaf.count, scope))
    else:
        raw = construct.GreedyBytes

    def decode(found: bytes, context: Any) -> object:
        try:
            return leaf.format.decode(bytes(found))
        except ValueError as error:
            offset = int(context._io.tell()) - len(found)
            raise _BadField(offset, f"{leaf.name}: {error}") from error

    def encode(value: object, _: Any) -> bytes:
        try:
            return written(leaf, value)
        except ValueError as error:
            raise ValueError(f"{leaf.name}: {error}") from error

    return construct.ExprAdapter(raw, decode, encode)


def _counted(count: Count, scope: _Scope) -> Any:
    """How many, as a number or as a function of construct's context."""
    if not count.source:
        return count.plus
    name, bit = scope[count.source]

    def times(context: Any) -> int:
        level = context
        while "data" not in (level.get(name) or ()):
            level = level["_"]
        value = int.from_bytes(level[name]["data"], "little")
        return count.of(value if bit is None else bit.of(value))

    return times
