"""Between `Fields` and the containers that construct reads and writes, level by level of a form.

A field's container has "data" (its bytes) and "value" on the way in, and "value" on the way out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from protocols.errors import LocalProtocolError
from protocols.q_gdw376.fields import OTHER_BITS, Field, Fields
from protocols.q_gdw376.grammar import Bit, Leaf, Part, Repeat
from protocols.q_gdw376.kinds import ANY_LENGTH


def to_fields(parts: tuple[Part, ...], found: Any, offset: int, blank: int) -> Fields:
    """What construct found on one level, which begins at `offset`; integers from `blank` on are no values."""
    told = []
    for part in parts:
        seen = found[part.name]
        if isinstance(part, Repeat):
            told.append(_rounds(part, seen, offset, blank))
            offset += len(told[-1].raw)
            continue
        raw = bytes(seen["data"])
        value: Any = seen["value"]
        if part.bits:
            value = _bitto_fields(part.bits, int(value), offset, raw)
        elif offset >= blank and isinstance(value, int):
            value = None
        told.append(Field(part.name, part.name_zh, value, part.unit, offset, raw, part.type))
        offset += len(raw)
    return Fields(tuple(told))


def _rounds(repeat: Repeat, seen: Any, offset: int, blank: int) -> Field:
    rounds = []
    pieces = []
    end = offset
    for each in seen:
        rounds.append(to_fields(repeat.parts, each, end, blank))
        pieces.append(b"".join(field.raw for field in rounds[-1]))
        end += len(pieces[-1])
    return Field(repeat.name, repeat.name_zh, tuple(rounds), "", offset, b"".join(pieces))


def _bitto_fields(bits: tuple[Bit, ...], value: int, offset: int, raw: bytes) -> Fields:
    told = []
    left = value
    for bit in bits:
        left &= ~(((1 << bit.width) - 1) << bit.low)
        places = f"D{bit.low}" if bit.width == 1 else f"D{bit.low + bit.width - 1}-D{bit.low}"
        told.append(Field(bit.name, bit.name_zh, bit.of(value), bit.unit, offset, raw, places))
    if left:
        told.append(Field(OTHER_BITS, "其他位", left, "", offset, raw, "D"))
    return Fields(tuple(told))


# -- values to what construct writes ------------------------------------------------------------------


def given_names(values: object) -> dict[str, Any]:
    """Names and what is given for them: `Field` or a plain value."""
    if isinstance(values, Fields):
        return {field.name: field for field in values}
    if isinstance(values, Mapping):
        return dict(values)
    raise LocalProtocolError(f"names and values are wanted here, not {values!r}")


def bare(given: object) -> object:
    """The value of a `Field`, or a plain value itself."""
    return given.value if isinstance(given, Field) else given


def to_containers(parts: tuple[Part, ...], given: dict[str, Any]) -> dict[str, Any]:
    """construct's input for one level. ValueError names the field that is missing, unknown or unfit."""
    unknown = given.keys() - {part.name for part in parts}
    if unknown:
        raise ValueError(f"there is no field {', '.join(sorted(map(str, unknown)))}")
    lists = {part.name: _list(part, given) for part in parts if isinstance(part, Repeat)}
    counts = _counts(parts, given, lists)
    told: dict[str, Any] = {}
    for part in parts:
        if isinstance(part, Repeat):
            told[part.name] = [to_containers(part.parts, each) for each in lists[part.name]]
        else:
            told[part.name] = {"value": _leaf_value(part, given, counts)}
    return told


def _list(repeat: Repeat, given: dict[str, Any]) -> list[dict[str, Any]]:
    if repeat.name not in given:
        raise ValueError(f"{repeat.name} is missing")
    rounds = bare(given[repeat.name])
    if not isinstance(rounds, list | tuple):
        raise ValueError(f"{repeat.name}: {rounds!r} is no list")
    told = []
    for each in rounds:
        alone = repeat.parts[0].name if len(repeat.parts) == 1 else None
        named = isinstance(each, Fields) or (isinstance(each, Mapping) and (alone is None or alone in each))
        if not named and alone is None:
            raise ValueError(f"{repeat.name}: {each!r} has no names")
        told.append(given_names(each) if named else {str(alone): each})
    return told


def _counts(parts: tuple[Part, ...], given: dict[str, Any], lists: Mapping[str, Any]) -> dict[str, int]:
    """What lists and texts of this level say about the counts of it that are not given."""
    counts: dict[str, int] = {}
    for part in parts:
        count = part.count
        if count is None or not count.source or count.by:
            continue
        if isinstance(part, Repeat):
            size = len(lists[part.name])
        else:
            if part.name not in given:
                raise ValueError(f"{part.name} is missing")
            size = len(part.format.encode(bare(given[part.name])))
        if counts.setdefault(count.source, size - count.plus) != size - count.plus:
            raise ValueError(f"{part.name} does not have as many as others that {count.source} counts")
    return counts


def _leaf_value(leaf: Leaf, given: dict[str, Any], counts: Mapping[str, int]) -> object:
    if not leaf.bits:
        if leaf.name not in given:
            if leaf.name not in counts:
                raise ValueError(f"{leaf.name} is missing")
            return counts[leaf.name]
        value = given[leaf.name]
        if isinstance(value, Field) and leaf.length not in (ANY_LENGTH, len(value.raw) or leaf.length):
            raise ValueError(f"{leaf.name}: {len(value.raw)} bytes came, {leaf.length} are written")
        told = bare(value)
        if leaf.name in counts and isinstance(told, int) and told != counts[leaf.name]:
            raise ValueError(f"{leaf.name} is {told}, and there are {counts[leaf.name]}")
        return value
    bits = bare(given.get(leaf.name, {}))
    if isinstance(bits, int):
        return bits
    named = {name: bare(each) for name, each in given_names(bits).items()}
    value = named.pop(OTHER_BITS, 0)
    if not isinstance(value, int):
        raise ValueError(f"{leaf.name}: {value!r} is no integer")
    for bit in leaf.bits:
        said = named.pop(bit.name, counts.get(bit.name))
        if said is None:
            raise ValueError(f"{leaf.name} {bit.name} is missing")
        if isinstance(said, str):
            said = int(said, 0)
        if not isinstance(said, int) or not 0 <= said < 1 << bit.width:
            raise ValueError(f"{leaf.name} {bit.name}: {said!r} does not fit {bit.width} bits")
        if bit.name in counts and counts[bit.name] != said:
            raise ValueError(f"{leaf.name} {bit.name} is {said}, and there are {counts[bit.name]}")
        value |= int(said) << bit.low
    if named:
        raise ValueError(f"{leaf.name} has no bits {', '.join(sorted(map(str, named)))}")
    return value


def written(leaf: Leaf, value: object) -> bytes:
    """A field's bytes, of its value or of the `Field` that came. ValueError where it does not fit."""
    if isinstance(value, Field):
        # No value, or one that does not settle every byte: what came goes back as it came.
        kept = value.value is None or not leaf.format.exact
        if kept and value.raw and leaf.format.decode(value.raw) in (value.value, None):
            return value.raw
        value = value.value
    return leaf.format.encode(value)
