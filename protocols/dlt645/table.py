"""The table of data identifiers (items.csv) and the ranges that its notes describe.

`find` gives the row of a DI, or one derived from the row that stands for its range: tariffs, settlement
dates, older freezes and events, phases, harmonic orders, schedules.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from importlib import resources

from protocols.dlt645.formats import Layout, layout_of

# DIs come from strangers: the resolved ones are remembered up to a bound.
_REMEMBERED = 4096

# Items whose digits are bits, whatever their format column says: status, combination, rate, weekend and
# mode words, feature and signal words, passwords, DIs shown on screens.
_BITS = ("040005", "040006", "040007", "04000801", "040009", "040011", "040013", "04000c", "0404")

# Records whose fields the notes name one by one: format and units.
_RELAY_RECORD = ("YYMMDDhhmmss,C0C1C2C3" + 6 * ",XXXXXX.XX", ",,kWh,kWh,kvarh,kvarh,kvarh,kvarh")
_RECORDS = {
    "0504ff": ("YYMMDDhhmm,XXXXXX.XX,XXXXXX.XX", ",kWh,kWh"),
    "1d00ff": _RELAY_RECORD,
    "1e00ff": _RELAY_RECORD,
}

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

    di: lower-case hex, high byte first; length: bytes, or a formula such as 4n; layout: how the data reads,
    None where the table does not say. curve: the data begins with the time of the first point.
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
    curve: bool = False


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
    curve = _CURVE.search(row["notes"])
    if curve:
        layout = layout_of(curve[1], "n", unit, signed, False)
    elif di[:6] in _RECORDS:
        layout = layout_of(*_fields_of(di, length), signed, False)
    else:
        binary = row["protocol"] == "2007" and di.startswith(_BITS)
        layout = layout_of(form, length, unit, signed, binary)
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
        layout=layout,
        curve=curve is not None,
    )


def _fields_of(di: str, length: str) -> tuple[str, str, str]:
    form, units = _RECORDS[di[:6]]
    return form, length, units


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
    if di[:2] not in ("00", "01") or tariff not in _TARIFFS or di[4:6] == "01":
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
    if di[:2] not in ("00", "01") or di[2:4] in _WITHOUT_SETTLEMENTS:
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
    if letter is None or not "10" <= di[:2] <= "20":
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


_Rule = Callable[[str], Item | None]
_RULES_2007: tuple[_Rule, ...] = (_phase, _tariff, _settlement, _switch_freeze, _older)
_RULES_1997: tuple[_Rule, ...] = (_register_1997, _schedule_1997)
