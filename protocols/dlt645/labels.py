"""What the values of an item are called, one by one."""

from __future__ import annotations

from protocols.dlt645.formats import Layout, Moment, Names, Part
from protocols.dlt645.table import Item

_PHASES = (("phase A", "A相"), ("phase B", "B相"), ("phase C", "C相"))
_TOTAL_AND_PHASES = (("total", "总"), *_PHASES)
_POWERS = tuple(
    (f"{power}, {english}", f"{chinese}{power_zh}")
    for power, power_zh in (("active power", "有功功率"), ("reactive power", "无功功率"))
    for english, chinese in _TOTAL_AND_PHASES
)
"""The eight values of a freeze's variables."""


def fields(item: Item, groups: int, layout: Layout | None = None) -> tuple[list[Names], list[Part]]:
    """Names and parts of the values of an item whose group stands `groups` times in its data.

    layout: one of the item's; None: its usual one.
    """
    layout = layout or item.layout
    assert layout is not None
    parts = [*layout.head, *layout.parts * groups, *layout.tail]
    if layout.names:
        return _own_names(item, layout, groups), parts
    names = [(f"{item.name_en}: time", f"{item.name_zh}:时间") for _ in layout.head]
    for group in range(groups):
        english, chinese = item.name_en, item.name_zh
        if groups > 1:
            which, which_zh = _label(item, groups, group)
            english, chinese = f"{english.removesuffix(', data block')}, {which}", f"{chinese}({which_zh})"
        if len(layout.parts) == len(_POWERS):
            names += [(f"{english}: {power}", f"{chinese}:{power_zh}") for power, power_zh in _POWERS]
            continue
        for place, part in enumerate(layout.parts):
            timed = place > 0 and isinstance(part, Moment)
            names.append((f"{english}: time", f"{chinese}:时间") if timed else (english, chinese))
    return names, parts


def _own_names(item: Item, layout: Layout, groups: int) -> list[Names]:
    own = layout.names
    head, tail = len(layout.head), len(own) - len(layout.tail)
    names = [*own[:head]]
    for group in range(1, groups + 1):
        names += [(en.replace("%", f"{group}"), zh.replace("%", f"{group}")) for en, zh in own[head:tail]]
    names += own[tail:]
    return [(f"{item.name_en}: {english}", f"{item.name_zh}:{chinese}") for english, chinese in names]


def _label(item: Item, groups: int, group: int) -> Names:
    """What tells one group of a block from the others."""
    if item.curve:
        return f"point {group + 1}", f"第{group + 1}点"
    if item.length.endswith("s"):
        return (f"{group} settlement dates back", f"上{group}结算日") if group else ("current", "当前")
    if item.length.endswith("n"):
        return (f"tariff {group}", f"费率{group}") if group else ("total", "总")
    if item.length == "4k":
        return f"tariff {group + 1}", f"费率{group + 1}"
    if groups == 3 and item.length.isdecimal():
        return _PHASES[group]
    if groups == 4 and item.length.isdecimal():
        return _TOTAL_AND_PHASES[group]
    return str(group + 1), str(group + 1)
