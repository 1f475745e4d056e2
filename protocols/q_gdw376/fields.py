"""What a data unit says where no type of its own is made for it: names, values and bytes, in order."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from protocols.q_gdw376.appendix import Scalar

OTHER_BITS = "other_bits"
"""Name of what stands in a bit string's bits that have no name; present only where one is set."""


@dataclass(frozen=True, slots=True)
class Field:
    """One field as it came.

    value: what it says; None for "no value"; `Fields` for a bit string's named bits; a tuple of `Fields` for
    a repeat. offset: place of `raw` in what was read. type: the form language's word ("A14", "BIN2"), "" for
    a repeat.
    """

    name: str
    name_zh: str
    value: Scalar | Fields | tuple[Fields, ...] | None
    unit: str
    offset: int
    raw: bytes
    type: str = ""

    @property
    def repeats(self) -> tuple[Fields, ...] | None:
        """The rounds of a repeat; None where this is no repeat."""
        if self.type or not isinstance(self.value, tuple):
            return None
        return tuple(each for each in self.value if isinstance(each, Fields))


@dataclass(frozen=True, slots=True)
class Fields:
    """The fields of one unit, or of one round of a repeat. fields["name"] is a value."""

    fields: tuple[Field, ...]

    def __iter__(self) -> Iterator[Field]:
        return iter(self.fields)

    def __len__(self) -> int:
        return len(self.fields)

    def __getitem__(self, name: str) -> Scalar | Fields | tuple[Fields, ...] | None:
        return self.field(name).value

    def __contains__(self, name: object) -> bool:
        return any(field.name == name for field in self.fields)

    def field(self, name: str) -> Field:
        """The field of this name. KeyError where there is none."""
        for field in self.fields:
            if field.name == name:
                return field
        raise KeyError(name)

    def get(self, name: str) -> Scalar | Fields | tuple[Fields, ...] | None:
        """The value of this name; None where there is none."""
        return next((field.value for field in self.fields if field.name == name), None)

    def plain(self) -> dict[str, object]:
        """Names and values without places and bytes, as `Form.encode` takes them: a repeat is a list of such
        dicts, or of bare values where its rounds are one field."""
        return {field.name: _plain(field) for field in self.fields}

    def flat(self, before: str = "") -> Iterator[tuple[str, Scalar | None, str]]:
        """(name, value, unit) of every single field and named bit, with the names and rounds that lead to it
        in front: "records 2 port"; a round of one field goes without that field's name."""
        for field in self.fields:
            yield from _flat(f"{before}{field.name}", field)


def _flat(name: str, field: Field) -> Iterator[tuple[str, Scalar | None, str]]:
    rounds = field.repeats
    if rounds is not None:
        for place, each in enumerate(rounds, 1):
            if len(each) == 1:
                yield from _flat(f"{name} {place}", each.fields[0])
            else:
                yield from each.flat(f"{name} {place} ")
    elif isinstance(field.value, Fields):
        yield from field.value.flat(f"{name} ")
    else:
        yield name, _scalar(field.value), field.unit


def _plain(field: Field) -> object:
    rounds = field.repeats
    if rounds is not None:
        return [_plain(each.fields[0]) if len(each) == 1 else each.plain() for each in rounds]
    return field.value.plain() if isinstance(field.value, Fields) else field.value


def _scalar(value: Scalar | Fields | tuple[Fields, ...] | None) -> Scalar | None:
    """The value of a field that is neither a repeat nor a bit string with names."""
    return value  # type: ignore[return-value]  # `_flat` has taken the two others away
