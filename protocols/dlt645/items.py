"""What the data of an item says: values out of bytes and back, by the table of data identifiers.

A DI is lower-case hex, high byte first: eight digits in edition "2007", four in "1997".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from protocols.dlt645 import table
from protocols.dlt645.formats import Layout, Moment
from protocols.dlt645.table import Item
from protocols.errors import LocalProtocolError, RemoteProtocolError

__all__ = ["Item", "Value", "decode", "encode", "energies", "energy_block", "lookup"]

# Names of repeated values are built once; DIs come from strangers, so only so many are kept.
_REMEMBERED = 4096

# 040005FF gives seven status words; newer meters append the key status word 04000508.
_STATUS_BLOCK, _KEY_STATUS = "040005ff", "04000508"
_STATUS_LENGTH = 14
# YYMMDDhhmm of a curve's first point.
_CURVE_TIME = Layout((Moment("YYMMDDhhmm"),))
# The XXXXXX.XX registers of `energies`: 10**8 values.
_REGISTER_SPAN = 10**8


@dataclass(frozen=True, slots=True)
class Value:
    """One value of an item.

    value: a decimal string ("1234.56"), or the text of a time, number, word or ASCII field; None where the
    meter has none. raw: its bytes as on the wire, without the mask.
    """

    name_en: str
    name_zh: str
    value: str | None
    unit: str
    raw: bytes


def lookup(di: str, edition: str = "2007") -> Item | None:
    """The item of a DI, or None if the table has none; ranges told in its notes are resolved."""
    return table.find(di.lower(), edition)


def decode(di: str, data: bytes, edition: str = "2007") -> tuple[Value, ...]:
    """The values in an item's data (what follows the DI); () where the table tells no layout.

    RemoteProtocolError where the data does not fit the item, or its digits are none.
    """
    item = table.find(di.lower(), edition)
    if item is None or item.layout is None:
        return ()
    if item.curve:
        if len(data) < 5:
            raise RemoteProtocolError(
                data, len(data), f"{item.di} {item.name_en}: no time of its first point"
            )
        names = ((f"{item.name_en}: time", f"{item.name_zh}:时间"),)
        time = _read(item, _CURVE_TIME, data[:5], names)
        return time + _read_groups(item, item.layout, data[5:])
    if item.di == _STATUS_BLOCK and len(data) > _STATUS_LENGTH:
        key = decode(_KEY_STATUS, data[_STATUS_LENGTH:], edition)
        return decode(di, data[:_STATUS_LENGTH], edition) + key
    return _read_groups(item, item.layout, data)


def encode(di: str, values: Sequence[str | None], edition: str = "2007") -> bytes:
    """The data of an item from its values' texts, as `decode` gives them. LocalProtocolError if unfit."""
    item = table.find(di.lower(), edition)
    if item is None or item.layout is None or item.curve:
        raise LocalProtocolError(f"no layout is known for DI {di}")
    parts = item.layout.parts
    groups, rest = divmod(len(values), len(parts))
    if rest or not groups or item.layout.count not in (None, groups):
        raise LocalProtocolError(f"{len(values)} values do not fit {item.di} {item.name_en}")
    try:
        return b"".join(parts[at % len(parts)].write(text) for at, text in enumerate(values))
    except ValueError as error:
        raise LocalProtocolError(f"{item.di} {item.name_en}: {error}") from error


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


_Names = tuple[tuple[str, str], ...]


def _read_groups(item: Item, layout: Layout, data: bytes) -> tuple[Value, ...]:
    groups, rest = divmod(len(data), layout.group_length)
    if rest == 1 and layout.count is None and data[-1] == 0xAA:
        data, rest = data[:-1], 0  # captured: a 1997 block ends with AAH
    if rest or not groups or layout.count not in (None, groups):
        raise RemoteProtocolError(data, len(data), f"{len(data)} bytes do not fit {item.di} {item.name_en}")
    return _read(item, layout, data, _names(item.edition, item.di, groups))


def _read(item: Item, layout: Layout, data: bytes, names: _Names) -> tuple[Value, ...]:
    values = []
    at = 0
    parts = layout.parts
    for place, (english, chinese) in enumerate(names):
        part = parts[place % len(parts)]
        raw = data[at : at + part.length]
        try:
            text = part.read(raw)
        except ValueError as error:
            raise RemoteProtocolError(data, at, f"{item.di} {item.name_en}: {error}") from error
        values.append(Value(english, chinese, text, part.unit, raw))
        at += part.length
    return tuple(values)


@lru_cache(_REMEMBERED)
def _names(edition: str, di: str, groups: int) -> _Names:
    """A name for each value of an item's `groups` groups, in the order in which they come."""
    item = table.find(di, edition)
    assert item is not None
    assert item.layout is not None
    parts = item.layout.parts
    names = []
    for group in range(groups):
        english, chinese = item.name_en, item.name_zh
        if groups > 1:
            which, which_zh = _label(item, groups, group)
            english, chinese = f"{english.removesuffix(', data block')}, {which}", f"{chinese}({which_zh})"
        for place, part in enumerate(parts):
            if len(parts) == 1 or (place == 0 and isinstance(parts[1], Moment)):
                names.append((english, chinese))
            elif isinstance(part, Moment):
                names.append((f"{english}: time", f"{chinese}:时间"))
            else:
                names.append((f"{english}: field {place + 1}", f"{chinese}:第{place + 1}项"))
    return tuple(names)


def _label(item: Item, groups: int, group: int) -> tuple[str, str]:
    """What tells one group of a block from the others."""
    phases = (("phase A", "A相"), ("phase B", "B相"), ("phase C", "C相"))
    if item.curve:
        return f"point {group + 1}", f"第{group + 1}点"
    if item.length.endswith("s"):
        return (f"{group} settlement dates back", f"上{group}结算日") if group else ("current", "当前")
    if item.length.endswith("n"):
        return (f"tariff {group}", f"费率{group}") if group else ("total", "总")
    if item.length == "4k":
        return f"tariff {group + 1}", f"费率{group + 1}"
    if groups == 3:
        return phases[group]
    if groups == 4:
        return (("total", "总"), *phases)[group]
    return str(group + 1), str(group + 1)
