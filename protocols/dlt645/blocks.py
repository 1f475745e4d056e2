"""Blocks whose fields their length alone does not tell: freeze blocks and load-profile records.

Which items a meter has put into such a block, its mode word says (04000901..06). Where that is not known, a
freeze block is read if all items are in it, and a load-profile record by the AAH that stands for each class
that is switched off.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from protocols.dlt645 import records, table
from protocols.dlt645.formats import Moment, Names, Part, Word
from protocols.dlt645.labels import fields
from protocols.dlt645.table import Item
from protocols.errors import RemoteProtocolError

_SEPARATOR = 0xAA

# DI1 of the items in a freeze block, and the bit of the mode word that switches each on; time is always in.
_FREEZE_ITEMS = (
    ("00", None), ("01", 0), ("02", 1), ("03", 2), ("04", 3), ("05", 4), ("06", 4), ("07", 4), ("08", 4),
    ("09", 5), ("0a", 6), ("10", 7),
)  # fmt: skip
_ALL_FREEZE_ITEMS = 0xFF
_MOST_TARIFFS = 64  # total and T1..T63

_GOOD, _BAD, _RECORD_END = b"\xa0\xa0", b"\xe0\xe0", 0xE5
_CLASSES = range(1, 7)
_ALL_CLASSES = 0x3F
_MARK, _TIME = Word(2), Moment("YYMMDDhhmm")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a value stands in an item's data, and how it reads."""

    name_en: str
    name_zh: str
    part: Part
    start: int
    stop: int


def freeze_places(item: Item, data: bytes, content: int | None) -> tuple[Place, ...] | None:
    """The values of a freeze block, with AAH between or behind its items or without.

    content: the meter's mode word; None: all items. None where the length does not fit.
    """
    members = _freeze_members(item, content)
    for separators in (0, len(members) - 1, len(members)):
        tariffs = _tariffs(members, len(data) - separators)
        if tariffs is None:
            continue
        places: list[Place] = []
        at = 0
        fits = True
        for number, member in enumerate(members):
            for (english, chinese), part in zip(*fields(member, _groups(member, tariffs)), strict=True):
                places.append(Place(english, chinese, part, at, at + part.length))
                at += part.length
            if number < separators:
                fits = fits and data[at] == _SEPARATOR
                at += 1
        if fits:
            return tuple(places)
    return None


def freeze_parts(item: Item, values: int, content: int | None) -> tuple[Part, ...] | None:
    """The parts of a freeze block of so many values; None where they do not fit."""
    members = _freeze_members(item, content)
    for tariffs in range(1, _MOST_TARIFFS + 1):
        parts = [part for member in members for part in fields(member, _groups(member, tariffs))[1]]
        if len(parts) == values:
            return tuple(parts)
    return None


def _freeze_members(item: Item, content: int | None) -> list[Item]:
    word = _ALL_FREEZE_ITEMS if content is None else content
    dis = [di1 for di1, bit in _FREEZE_ITEMS if bit is None or word >> bit & 1]
    found = (table.find(f"{item.di[:4]}{di1}{item.di[6:]}", item.edition) for di1 in dis)
    return [member for member in found if member is not None]


def _groups(member: Item, tariffs: int) -> int:
    assert member.layout is not None
    return tariffs if member.layout.count is None else member.layout.count


def _tariffs(members: list[Item], length: int) -> int | None:
    """How many registers (total and tariffs) each item of a block of `length` bytes has."""
    each = 0
    for member in members:
        assert member.layout is not None
        if member.layout.count is None:
            each += member.layout.group_length
        else:
            length -= member.layout.count * member.layout.group_length
    if not each:
        return None if length else 1
    tariffs, rest = divmod(length, each)
    return None if rest or not 1 <= tariffs <= _MOST_TARIFFS else tariffs


def load_places(item: Item, data: bytes, content: int | None) -> tuple[Place, ...]:
    """The values of load-profile records: each record's mark (a0a0, or e0e0: marked bad), time, classes.

    content: the meter's mode word 04000901; None: as the AAH tell. () for no data: no record matched.
    RemoteProtocolError where a record is damaged.
    """
    found: list[list[Place]] = []
    at = 0
    while at < len(data):
        end = _record_end(item, data, at)
        found.append(_record(item, data, at, end, content))
        at = end + 2
    if len(found) == 1:
        return tuple(found[0])
    return tuple(
        Place(
            f"{one.name_en}, record {number}", f"{one.name_zh}(第{number}条)", one.part, one.start, one.stop
        )
        for number, places in enumerate(found, 1)
        for one in places
    )


def _record_end(item: Item, data: bytes, at: int) -> int:
    """Where the checksum of the record at `at` stands."""
    if data[at : at + 2] not in (_GOOD, _BAD):
        raise _damaged(item, data, at, "no record begins here")
    if at + 3 > len(data) or at + 5 + data[at + 2] > len(data):
        raise _damaged(item, data, len(data), "a record is cut off")
    end = at + 3 + data[at + 2]
    if data[end] != sum(data[at:end]) & 0xFF:
        raise _damaged(item, data, end, "a record's checksum is wrong")
    if data[end + 1] != _RECORD_END:
        raise _damaged(item, data, end + 1, "a record does not end with E5H")
    return end


def _record(item: Item, data: bytes, start: int, end: int, content: int | None) -> list[Place]:
    at = start + 3 + _TIME.length
    if at > end:
        raise _damaged(item, data, end, "a record has no time")
    places = [
        _place(item, ("record mark", "记录标志"), _MARK, start),
        _place(item, ("time", "时间"), _TIME, start + 3),
    ]
    alone = _class_of(item)
    if alone and _lone(data[at:end], _class_length(alone)):
        return places + _class_places(item, alone, at)
    for number in _CLASSES:
        if at == end:
            break  # seen: five AAH and not six
        off = data[at] == _SEPARATOR if content is None else not content >> (number - 1) & 1
        if not off:
            places += _class_places(item, number, at)
            at += _class_length(number)
        if at > end or (at < end and data[at] != _SEPARATOR):
            raise _damaged(item, data, min(at, end), f"class {number} does not end with AAH")
        at = min(at + 1, end)
    if at != end:
        raise _damaged(item, data, at, "a record is longer than its classes")
    return places


def _class_of(item: Item) -> int:
    """The class that a DI asks for alone; 0 for all."""
    return int(item.di[2:4], 16)


def _lone(payload: bytes, size: int) -> bool:
    """Whether one class stands there without the AAH of the others."""
    return len(payload) == size or (len(payload) == size + 1 and payload[-1] == _SEPARATOR)


def _class_length(number: int) -> int:
    return records.forms()[f"load_{number}"][0].group_length


def _class_places(item: Item, number: int, at: int) -> list[Place]:
    layout = records.forms()[f"load_{number}"][0]
    places = []
    for names, part in zip(layout.names, layout.parts, strict=True):
        places.append(_place(item, names, part, at))
        at += part.length
    return places


def _place(item: Item, names: Names, part: Part, at: int) -> Place:
    return Place(f"{item.name_en}: {names[0]}", f"{item.name_zh}:{names[1]}", part, at, at + part.length)


def load_records(item: Item, values: Sequence[str | None], content: int | None) -> bytes:
    """Load-profile records of their values' texts, as `load_places` has them.

    content: the classes in each record; None: the DI's own class, or all. ValueError where values do not fit.
    """
    alone = _class_of(item)
    word = content if content is not None else 1 << (alone - 1) if alone else _ALL_CLASSES
    classes = [
        list(records.forms()[f"load_{number}"][0].parts) if word >> (number - 1) & 1 else []
        for number in _CLASSES
    ]
    size = 2 + sum(len(parts) for parts in classes)
    if len(values) % size:
        raise ValueError(f"{len(values)} values are no records of {size}")
    built = b""
    for first in range(0, len(values), size):
        texts = iter(values[first : first + size])
        mark = _MARK.write(next(texts))
        if mark not in (_GOOD, _BAD):
            raise ValueError(f"{values[first]!r} is no record mark")
        body = _TIME.write(next(texts))
        for parts in classes:
            body += b"".join(part.write(next(texts)) for part in parts) + bytes([_SEPARATOR])
        record = mark + bytes([len(body)]) + body
        built += record + bytes([sum(record) & 0xFF, _RECORD_END])
    return built


def _damaged(item: Item, data: bytes, at: int, reason: str) -> RemoteProtocolError:
    return RemoteProtocolError(data, at, f"{item.di} {item.name_en}: {reason}")
