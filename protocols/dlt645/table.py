"""The table of data identifiers (items.csv) and the ranges that its notes describe.

`find` gives the row of a DI, or one derived from the row that stands for its range: tariffs, settlement
dates, older freezes and events, phases, the single items of an event's record, harmonic orders, schedules,
and blocks with FFH in any place.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from importlib import resources

from protocols.dlt645 import records
from protocols.dlt645.formats import UNTOLD, Layout, Moment, layout_of

# DIs come from strangers: the resolved ones are remembered up to a bound.
_REMEMBERED = 4096

# Items whose digits are bits, whatever their format column says: status, combination, rate, weekend and
# mode words, feature and signal words, passwords, DIs shown on screens.
_BITS = ("040005", "040006", "040007", "04000801", "040009", "040011", "040013", "04000c", "0404")

_CURVE = re.compile(r"reply: time\(5\) \+ N x \d bytes \(([X.]+)\)")
_DI0_RANGE = re.compile(r"DI0 (?:= order in hex, )?([0-9A-F]{2})\.\.([0-9A-F]{2})")
_DI0_EXTENDED = re.compile(r"addendum up to ([0-9A-F]{2})")

# 2007: T1..T63, and twelve settlement dates back. 1997: T1..T14.
_TARIFFS = range(1, 0x40)
_SETTLEMENTS = range(1, 0x0D)
_TARIFFS_1997 = "123456789abcde"


@dataclass(frozen=True, slots=True)
class Item:
    """A row of the table, or one derived for a DI of a range.

    di: lower-case hex, high byte first; length: bytes, or a formula such as 4n; layout: how the data usually
    reads, None where its length does not tell it (see kind); variants: how it reads otherwise, told apart by
    length. kind: "" or "block" (one item after another), "freeze", "load". curve: the data begins with the
    time of the first point. danger: writing it changes the meter. confidence: how sure the layout is.
    "confirmed": sources that do not know each other agree; "public code": on its length, while order and
    meaning of its fields are taken from public programs; "single source"; "unconfirmed": nobody states it.
    """

    edition: str
    di: str
    name_en: str
    name_zh: str
    format: str
    length: str
    unit: str
    signed: bool
    access: str
    notes: str
    layout: Layout | None
    variants: tuple[Layout, ...] = ()
    kind: str = ""
    curve: bool = False
    confidence: str = "confirmed"
    danger: bool = False

    @property
    def layouts(self) -> tuple[Layout, ...]:
        """The usual layout and the others."""
        return (self.layout, *self.variants) if self.layout is not None else ()


def find(di: str, edition: str) -> Item | None:
    """The item of a DI in lower-case hex, or None."""
    return _find(edition, di)


@lru_cache(_REMEMBERED)
def _find(edition: str, di: str) -> Item | None:
    row = _rows().get((edition, di))
    if row is not None:
        return row
    if edition == "2007" and re.fullmatch("[0-9a-f]{8}", di):
        rules = _RULES_2007
    elif edition == "1997" and re.fullmatch("[0-9a-f]{4}", di):
        rules = _RULES_1997
    else:
        return None
    return next((item for rule in rules if (item := rule(di)) is not None), None)


@cache
def _rows() -> dict[tuple[str, str], Item]:
    text = resources.files("protocols.dlt645").joinpath("items.csv").read_text(encoding="utf-8")
    items = [_item(row) for row in csv.DictReader(text.splitlines())]
    return {(item.edition, item.di): item for item in items}


def _item(row: dict[str, str]) -> Item:
    di = row["di"].lower()
    form, length, unit = row["format"], row["length_bytes"], row["unit"]
    signed = row["signed"] == "yes"
    fields = row["fields"]
    layouts: tuple[Layout, ...] = ()
    if fields in records.forms():
        layouts = records.forms()[fields]
    elif fields == "curve":
        points = _CURVE.search(row["notes"])
        assert points is not None
        point = layout_of(points[1], "n", unit, signed, False)
        layouts = (Layout(point.parts, None, (Moment("YYMMDDhhmm"),)),)
    elif fields == "rest":
        layouts = (UNTOLD,)
    elif not fields:
        binary = row["protocol"] == "2007" and di.startswith(_BITS)
        layouts = (layout_of(form, length, unit, signed, binary),)
    return Item(
        edition=row["protocol"],
        di=di,
        name_en=row["name_en"],
        name_zh=row["name_zh"],
        format=form,
        length=length,
        unit=unit,
        signed=signed,
        access=row["access"],
        notes=row["notes"],
        layout=layouts[0] if layouts else None,
        variants=layouts[1:],
        kind="" if layouts else fields,
        curve=fields.startswith("curve"),
        confidence=row["confidence"],
        danger=row["danger"] == "yes",
    )


def _renamed(item: Item, di: str, *changes: tuple[str, str]) -> Item:
    """`item` under another DI, with each (old, new) replaced in its names; "" puts `new` in front."""
    english, chinese = item.name_en, item.name_zh
    for old, new in changes:
        english = english.replace(old, new) if old else new + english
        chinese = chinese.replace(old, new) if old else chinese
    return replace(item, di=di, name_en=english, name_zh=chinese)


def _tariff(di: str) -> Item | None:
    """Classes 00 and 01: DI1 = 01..3F is tariff 1..63."""
    tariff = int(di[4:6], 16)
    if di[:2] not in ("00", "01") or di[2:4] == "ff" or tariff not in _TARIFFS or di[4:6] == "01":
        return None
    first = _find("2007", f"{di[:4]}01{di[6:]}")
    if first is None or "tariff 1" not in first.name_en:
        return None
    return _renamed(first, di, ("tariff 1", f"tariff {tariff}"), ("费率1", f"费率{tariff}"))


def _settlement(di: str) -> Item | None:
    """Classes 00 and 01: DI0 = 01..0C is that many settlement dates back; FF is now and all twelve."""
    back = int(di[6:], 16)
    if di == "000b0001":
        return _renamed(_rows()["2007", "000b0000"], di, ("Current", "Previous"), ("当前", "上一"))
    if di[:2] not in ("00", "01") or di[2:4] in (*_WITHOUT_SETTLEMENTS, "ff"):
        return None
    if back not in _SETTLEMENTS and not (back == 0xFF and di[4:6] != "ff"):
        return None
    current = _find("2007", f"{di[:6]}00")
    if current is None or "(current) " not in current.name_en:
        return None
    if back == 0xFF:
        assert current.layout is not None
        item = _renamed(
            current, di, ("(current) ", "(current and settlement dates) "), ("(当前)", "(当前及结算日)")
        )
        return replace(item, length=f"{current.length}s", layout=replace(current.layout, count=None))
    when = "(last settlement date) " if back == 1 else f"({back} settlement dates back) "
    return _renamed(current, di, ("(current) ", when), ("(当前)", f"(上{back}结算日)"))


# DI2 of class 00 where DI0 is no settlement date: period sums and prepayment balances.
_WITHOUT_SETTLEMENTS = ("0b", "0c", "90")


def _phase(di: str) -> Item | None:
    """Itemised events (classes 10..20): DI2 = 01, 02, 03 is phase A, B, C."""
    letter = {"02": "B", "03": "C"}.get(di[2:4])
    if letter is None or not "10" <= di[:2] <= "20" or di[6:] == "ff":
        return None
    first = _find("2007", f"{di[:2]}01{di[4:]}")
    if first is None:
        return None
    return _renamed(first, di, ("phase A", f"phase {letter}"), ("A相", f"{letter}相"))


def _older(di: str) -> Item | None:
    """DI0 counts records, freezes, orders, holidays, screens or months: as far as the row's notes say."""
    number = int(di[6:], 16)
    for base in ("01", "00"):
        row = _rows().get(("2007", di[:6] + base))
        if row is None or number not in _numbers(row):
            continue
        renamed = _renamed(
            row,
            di,
            ("last 1", f"last {number}"),
            ("order 1", f"order {number}"),
            ("Holiday 1", f"Holiday {number}"),
            ("screen 1", f"screen {number}"),
            ("(上1次)", f"(上{number}次)"),
            ("1次谐波", f"{number}次谐波"),
            ("第1公共", f"第{number}公共"),
            ("第1屏", f"第{number}屏"),
            ("this month", f"{number} months back"),
            ("(本月)", f"(上{number}月)"),
        )
        if renamed.name_en == row.name_en:
            renamed = _renamed(renamed, di, ("", f"(last {number}) "))
        return renamed
    return None


def _numbers(row: Item) -> range:
    """Which DI0 a row stands for."""
    if row.di[:2] in ("00", "01"):
        return range(0)  # settlement dates: another rule
    if "10" <= row.di[:2] <= "20":
        # Itemised events: ten are kept, and DI1 = 00 holds counts; only some rows' notes say so.
        return range(1, 11) if row.di[4:6] != "00" else range(0)
    found = _DI0_RANGE.search(row.notes)
    if found is None:
        return range(0)
    extended = _DI0_EXTENDED.search(row.notes)
    last = extended[1] if extended else found[2]
    return range(int(found[1], 16), int(last, 16) + 1)


def _switch_freeze(di: str) -> Item | None:
    """0505 and 0507 have the items of 0506 and keep two freezes."""
    name = {
        "0505": ("Tariff-price switch", "两套费率电价切换"),
        "0507": ("Step-tariff switch", "两套阶梯切换"),
    }
    if di[:4] not in name or di[6:] not in ("01", "02") or di[4:6] == "ff":
        return None
    daily = _find("2007", f"0506{di[4:]}")
    if daily is None:
        return None
    english, chinese = name[di[:4]]
    return _renamed(daily, di, ("Daily", english), ("日冻结", chinese))


def _register_1997(di: str) -> Item | None:
    """Classes 9, A and B: the low digit of DI0 is the tariff."""
    if di[0] not in "9ab" or di[1] not in "014589" or di[3] not in _TARIFFS_1997:
        return None
    total = _find("1997", f"{di[:3]}0")
    if total is None:
        return None
    tariff = int(di[3], 16)
    return _renamed(total, di, (", total", f", tariff {tariff}"), ("总", f"费率{tariff}"))


def _schedule_1997(di: str) -> Item | None:
    """C32x seasons, C33x..C3Ax periods of schedules 1..8, C41x and C42x holidays."""
    number = int(di[3], 16)
    if di[:3] == "c32" and 1 <= number <= 0xE:
        return _renamed(
            _rows()["1997", "c321"], di, ("Season 1", f"Season {number}"), ("第1时区", f"第{number}时区")
        )
    if di[:2] == "c3" and di[2] in "3456789a" and 1 <= number <= 0xE:
        schedule = int(di[2], 16) - 2
        return _renamed(
            _rows()["1997", "c331"],
            di,
            ("Schedule 1 period 1", f"Schedule {schedule} period {number}"),
            ("第1日时段表第1时段", f"第{schedule}日时段表第{number}时段"),
        )
    if (di[:3] == "c41" and 1 <= number <= 0xD) or (di[:3] == "c42" and number):
        return _renamed(
            _rows()["1997", "c411"],
            di,
            ("Holiday 1", f"Holiday {di[2:].upper()}"),
            ("第1公共假日", f"公共假日{di[2:].upper()}"),
        )
    return None


def _event_item(di: str) -> Item | None:
    """Itemised events: DI1 = n is the n-th field of the record under DI1 = FF."""
    if not "10" <= di[:2] <= "1f" or di[4:6] in ("00", "ff"):
        return None
    # Only a record that is a row or an older one of a row: blocks are made of these items.
    record = _rows().get(("2007", f"{di[:4]}ff01"))
    if record is not None and di[6:] != "01":
        record = _older(f"{di[:4]}ff{di[6:]}")
    if record is None or record.layout is None or not record.layout.names:
        return None
    number = int(di[4:6], 16) - 1
    if number >= len(record.layout.parts):
        return None
    english, chinese = record.layout.names[number]
    layouts = [Layout((layout.parts[number],)) for layout in record.layouts if number < len(layout.parts)]
    renamed = _renamed(record, di, (" whole record", f" {english}"), ("记录块", chinese), ("记录", chinese))
    part = layouts[0].parts[0]
    others = tuple(layout for layout in layouts[1:] if layout != layouts[0])
    return replace(
        renamed, length=str(part.length), unit=part.unit, format="", layout=layouts[0], variants=others
    )


def _block(di: str) -> Item | None:
    """FFH in DI2, DI1 or DI0: all items along that byte in ascending order, as many as the data holds."""
    if "ff" not in (di[2:4], di[4:6], di[6:]) or di[:2] == "ff":
        return None
    pairs = [di[at : at + 2] for at in range(0, 8, 2)]
    for low in ("00", "01"):
        first = _find("2007", "".join(low if pair == "ff" else pair for pair in pairs))
        if first is not None:
            return _block_of(first, di, told=pairs.count("ff") == 1)
    return None


def _block_1997(di: str) -> Item | None:
    """F in the low digit of DI0, or in both."""
    if di[3] != "f":
        return None
    first = next((item for last in "0123" if (item := _find("1997", f"{di[:3]}{last}"))), None)
    if di[2] == "f":
        first = next((item for item in _along("1997", di)), None)
    # Of registers nobody tells whether tariffs or quantities come first.
    return first and _block_of(first, di, told=di[2] != "f" or di[0] not in "9ab" or di[1] not in "014589")


def _block_of(first: Item, di: str, told: bool) -> Item:
    """told: the order is; an item of unknown length leaves the rest untold too."""
    told = told and first.layout is not None and first.layout.count is not None
    return replace(
        first,
        di=di,
        name_en=f"Block {di.upper()}, from: {first.name_en}",
        name_zh=f"数据块{di.upper()}(自{first.name_zh}起)",
        format="",
        length="var",
        unit="",
        layout=None if told else UNTOLD,
        variants=(),
        kind="block" if told else "",
        confidence="unconfirmed",
    )


def members(block: Item) -> Iterator[Item]:
    """The items of a block (kind "block") in the order in which they come."""
    return _along(block.edition, block.di)


def _along(edition: str, di: str) -> Iterator[Item]:
    if edition == "1997":
        dis = (f"{di[:3]}{last:x}" for last in range(0xF))
        if di[2] == "f":
            dis = (f"{di[:2]}{last:02x}" for last in range(0xFF) if last & 0xF != 0xF)
    else:
        at = next(place for place in (2, 4, 6) if di[place : place + 2] == "ff")
        dis = (f"{di[:at]}{byte:02x}{di[at + 2 :]}" for byte in range(0xFF))
    for one in dis:
        if edition == "2007" and di[:4] == "00ff" and one[2:4] in _WITHOUT_SETTLEMENTS:
            continue
        item = _find(edition, one)
        if item is not None:
            yield item


_Rule = Callable[[str], Item | None]
_RULES_2007: tuple[_Rule, ...] = (
    _phase, _tariff, _settlement, _switch_freeze, _older, _event_item, _block,
)  # fmt: skip
_RULES_1997: tuple[_Rule, ...] = (_register_1997, _schedule_1997, _block_1997)
