"""What the data of an item says: values out of bytes and back, by the table of data identifiers.

A DI is lower-case hex, high byte first: eight digits in edition "2007", four in "1997".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from protocols.dlt645 import blocks, table
from protocols.dlt645.blocks import Place
from protocols.dlt645.formats import UNTOLD, Layout, Opaque, Part
from protocols.dlt645.labels import fields
from protocols.dlt645.table import Item
from protocols.errors import LocalProtocolError, RemoteProtocolError

__all__ = ["Item", "Value", "decode", "encode", "energies", "energy_block", "lookup"]

# How an item of some length reads is worked out once. DIs come from strangers, so only so many are kept, and
# only short ones: a block of total and 19 tariffs.
_REMEMBERED = 1024
_SHORT = 80

# The XXXXXX.XX registers of `energies`: 10**8 values.
_REGISTER_SPAN = 10**8


@dataclass(frozen=True, slots=True)
class Value:
    """One value of an item.

    value: a decimal string ("1234.56"), or the text of a time, number, word or ASCII field; None where the
    meter has none. raw: its bytes as on the wire, without the mask; offset: where they begin in the data.
    """

    name_en: str
    name_zh: str
    value: str | None
    unit: str
    raw: bytes
    offset: int = 0


def lookup(di: str, edition: str = "2007") -> Item | None:
    """The item of a DI, or None if the table has none; ranges told in its notes are resolved."""
    return table.find(di.lower(), edition)


def decode(di: str, data: bytes, edition: str = "2007", *, content: int | None = None) -> tuple[Value, ...]:
    """The values in an item's data (what follows the DI); () for a DI that the table does not have.

    Where no source tells an item's layout, all its bytes are one value, as hex. content: the meter's mode
    word (04000901..06) for freeze blocks and load-profile records; None: as far as the data tells.
    RemoteProtocolError where the data does not fit the item, or its digits are none.
    """
    size = len(data)
    plan = _plan(di, size, edition) if size <= _SHORT else _work_out(di, size, edition)
    if plan is None:
        plan = _places(di, data, edition, content)
    values = []
    for english, chinese, part, unit, start, stop in plan:
        raw = data[start:stop]
        try:
            text = part.read(raw)
        except ValueError as error:
            item = table.find(di.lower(), edition)
            name = item.name_en if item else ""
            raise RemoteProtocolError(data, start, f"{di.lower()} {name}: {error}") from error
        values.append(Value(english, chinese, text, unit, raw, start))
    return tuple(values)


def encode(
    di: str,
    values: Sequence[str | None],
    edition: str = "2007",
    *,
    content: int | None = None,
    length: int | None = None,
) -> bytes:
    """The data of an item from its values' texts, as `decode` gives them. LocalProtocolError if unfit.

    content: as for `decode`; None: all of a freeze block's items, a load profile's own class. length: the
    bytes of the layout that is meant, where several have as many values; None: the usual one.
    """
    item = table.find(di.lower(), edition)
    if item is None:
        raise LocalProtocolError(f"no layout is known for DI {di}")
    fault = ValueError(f"{len(values)} values do not fit")
    try:
        if item.kind == "load":
            return blocks.load_records(item, values, content)
        for parts in _candidates(item, values, content):
            if length not in (None, sum(part.length for part in parts)):
                continue
            try:
                return b"".join(part.write(text) for part, text in zip(parts, values, strict=True))
            except ValueError as error:
                fault = error  # perhaps another layout is wider
    except ValueError as error:
        fault = error
    raise LocalProtocolError(f"{item.di} {item.name_en}: {fault}") from fault


def energies(data: bytes, signed: bool = False) -> tuple[int | None, ...]:
    """A block of XXXXXX.XX registers (total, T1..Tk) as integers of 0.0001; None where there is no value.

    signed: combined active and reactive registers only. How many tariffs there are, the length says.
    RemoteProtocolError where length or digits are wrong.
    """
    size = len(data)
    if size % 4 == 1 and data[-1] == 0xAA:
        size -= 1  # captured: a 1997 block ends with AAH
    if size % 4 or not size:
        raise RemoteProtocolError(data, size, f"{len(data)} bytes are no block of 4-byte registers")
    registers: list[int | None] = []
    for at in range(0, size, 4):
        raw = data[at : at + 4]
        if raw == b"\xff\xff\xff\xff":
            registers.append(None)
            continue
        negative = signed and raw[3] >= 0x80
        digits = (raw[:3] + bytes([raw[3] & 0x7F]) if negative else raw)[::-1].hex()
        if not digits.isdecimal():
            raise RemoteProtocolError(data, at, "not BCD")
        registers.append(-100 * int(digits) if negative else 100 * int(digits))
    return tuple(registers)


def energy_block(registers: Sequence[int | None]) -> bytes:
    """Integers of 0.0001 (whole multiples of 0.01, not negative) as a block of XXXXXX.XX registers.

    LocalProtocolError where a register does not fit.
    """
    block = []
    for register in registers:
        if register is None:
            block.append(b"\xff\xff\xff\xff")
        elif register % 100 or not 0 <= register // 100 < _REGISTER_SPAN:
            raise LocalProtocolError(f"{register} units of 0.0001 are no XXXXXX.XX value")
        else:
            block.append(bytes.fromhex(f"{register // 100:08d}")[::-1])
    return b"".join(block)


_Plan = tuple[tuple[str, str, Part, str, int, int], ...]
"""For each value: its names, part, unit, and where it begins and ends in the data."""


@lru_cache(_REMEMBERED)
def _plan(di: str, size: int, edition: str) -> _Plan | None:
    return _work_out(di, size, edition)


def _work_out(di: str, size: int, edition: str) -> _Plan | None:
    """How `size` bytes of an item read, by their number alone; None where that does not tell."""
    item = table.find(di.lower(), edition)
    if item is None:
        return None
    for layout in item.layouts:
        groups = layout.groups(size)
        if groups is not None:
            return _laid_out(item, layout, groups)
    return None


def _laid_out(item: Item, layout: Layout, groups: int) -> _Plan:
    names, parts = fields(item, 1 if layout.joined else groups, layout)
    if layout.joined:
        parts[len(layout.head)] = Opaque(groups)
    plan = []
    at = 0
    for (english, chinese), part in zip(names, parts, strict=True):
        plan.append((english, chinese, part, part.unit, at, at + part.length))
        at += part.length
    return tuple(plan)


def _places(di: str, data: bytes, edition: str, content: int | None) -> _Plan:
    """How data reads whose length does not tell it."""
    item = table.find(di.lower(), edition)
    if item is None:
        return ()
    if item.kind == "load":
        return _of_places(blocks.load_places(item, data, content))
    if item.kind == "freeze":
        places = blocks.freeze_places(item, data, content)
        if places is not None:
            return _of_places(places)
        if content is None and data:
            return _laid_out(item, UNTOLD, len(data))  # not all items are in it, and nobody told which
    plan = _members(item, len(data)) if item.kind == "block" else None
    if plan is None and data.endswith(b"\xaa") and (item.kind == "block" or _is_open(item)):
        # Captured: a 1997 block ends with AAH.
        shorter = len(data) - 1
        plan = _members(item, shorter) if item.kind == "block" else _work_out(di, shorter, edition)
    if plan is None:
        raise RemoteProtocolError(data, len(data), f"{len(data)} bytes do not fit {item.di} {item.name_en}")
    return plan


def _is_open(item: Item) -> bool:
    return item.layout is not None and item.layout.count is None


def _of_places(places: tuple[Place, ...]) -> _Plan:
    return tuple((one.name_en, one.name_zh, one.part, one.part.unit, one.start, one.stop) for one in places)


def _members(block: Item, size: int) -> _Plan | None:
    """As many items of a block as `size` bytes hold; None where they do not fill them."""
    plan: list[tuple[str, str, Part, str, int, int]] = []
    at = 0
    for item in table.members(block):
        if at >= size or item.layout is None or item.layout.count is None:
            break
        for english, chinese, part, unit, start, stop in _laid_out(item, item.layout, item.layout.count):
            plan.append((english, chinese, part, unit, at + start, at + stop))
        at = plan[-1][5]
    return tuple(plan) if at == size and plan else None


def _opaque(text: str | None) -> Opaque:
    if not text:
        raise ValueError("no bytes")
    return Opaque(len(bytes.fromhex(text)))


def _candidates(item: Item, values: Sequence[str | None], content: int | None) -> list[Sequence[Part]]:
    """The parts of each layout of an item that has so many values."""
    found: list[Sequence[Part]] = []
    for layout in item.layouts:
        groups = layout.groups_of(len(values))
        if groups is not None:
            parts = [*layout.head, *layout.parts * groups, *layout.tail]
            if layout.joined:
                parts[len(layout.head)] = _opaque(values[len(layout.head)])
            found.append(parts)
    if item.kind == "freeze":
        frozen = blocks.freeze_parts(item, len(values), content)
        if frozen is not None:
            found.append(frozen)
        elif len(values) == 1:
            found.append([_opaque(values[0])])
    if item.kind == "block":
        block: list[Part] = []
        for member in table.members(item):
            if len(block) >= len(values) or member.layout is None or member.layout.count is None:
                break
            block += member.layout.parts * member.layout.count
        if block and len(block) == len(values):
            found.append(block)
    return found
