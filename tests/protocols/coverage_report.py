"""What of the fact sheets' rows decodes, encodes and round-trips, tried row by row, and the parts of
docs/protocols.md that are made from it.

    python -m tests.protocols.coverage_report        writes docs/protocols.md and docs/protocol-rows.csv again

It stands with the tests because it judges by their makers of data: the second reader of 645 items, values
for 376.1 forms that the types alone tell.
"""

from __future__ import annotations

import csv
import io
import random
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path

from protocols.dlt645 import items as items645
from protocols.errors import ProtocolError
from protocols.q_gdw376 import events as events376
from protocols.q_gdw376.items import ITEMS, Item, form_of
from protocols.q_gdw376.profiles import settings
from tests.protocols import plain_dlt645_items as plain
from tests.protocols.test_dlt645_items_rows import ROWS
from tests.protocols.test_field_frames import DISPUTED, KEPT_RAW, NOT_REBUILT, OTHER_KEYS, REFUSED
from tests.protocols.test_qgdw376_forms import made
from tests.protocols.vectors import vectors
from tests.protocols.worked_qgdw376_events import BODIES

DOCUMENT = Path(__file__).parents[2] / "docs" / "protocols.md"
ROWS_FILE = DOCUMENT.with_name("protocol-rows.csv")
_TRIES = 3
YES, RAW, NONE, NO = "yes", "raw", "-", "no"
CONFIDENCES = ("confirmed", "public code", "single source", "unconfirmed", "memory")

# Values of a load-profile record of each class of its DI 06 0c, by the formats of annex B; DI2 = 00 is all
# classes, of which one is on.
_MARK = ["a0a0", "2026-11-24 12:00"]
_CLASSES: dict[int, list[str]] = {
    0: ["220.4", "221.0", "219.8", "5.123", "4.987", "5.050", "49.99"],
    1: ["220.4", "221.0", "219.8", "5.123", "4.987", "5.050", "49.99"],
    2: ["1.2345", "-0.4000", "0.4000", "0.4345", "0.1000", "0.0300", "0.0300", "0.0400"],
    3: ["1.000", "0.990", "-0.500", "1.000"],
    4: ["1234.56", "0.01", "7.00", "9999.99"],
    5: ["1234.56", "0.01", "7.00", "9999.99"],
    6: ["-1.2345", "0.5000"],
}


@dataclass(frozen=True)
class Row:
    """One row of a fact sheet's table. Each verdict: yes; raw (the layout is not known, its bytes are kept);
    - (there are no data that way); no."""

    family: str
    group: str
    key: str
    direction: str
    name_en: str
    name_zh: str
    decodes: str
    encodes: str
    round_trips: str
    confidence: str
    danger: str

    @property
    def verdicts(self) -> tuple[str, str, str]:
        return self.decodes, self.encodes, self.round_trips


@cache
def rows() -> tuple[Row, ...]:
    """Every row of both tables, and every event, tried."""
    return (*_meter_rows(), *_terminal_rows(), *_event_rows())


# -- DL/T 645 -------------------------------------------------------------------------------------------


def _meter_rows() -> Iterator[Row]:
    for row in ROWS:
        edition, di = row["protocol"], row["di"]
        decodes, encodes, round_trips = _try_item(row)
        yield Row(
            f"DL/T 645-{edition}",
            di[:2] if edition == "2007" else di[0],
            di,
            "",
            row["name_en"],
            row["name_zh"],
            decodes,
            encodes,
            round_trips,
            row["confidence"],
            row["danger"],
        )


def _try_item(row: dict[str, str]) -> tuple[str, str, str]:
    edition, di = row["protocol"], row["di"]
    if row["fields"] == "rest":
        data = b"\x12\x34\x56\x78\x9a\xbc\xde\xf0\x01"
        texts = [str(value.value) for value in items645.decode(di, data, edition)]
        return RAW, RAW, YES if _writes(di, edition, data, texts) else NO
    if row["fields"] == "load":
        texts = [*_MARK, *_CLASSES[int(di[2:4], 16)]]
        content = None if di[2:4] != "00" else 1
        data = items645.encode(di, texts, edition, content=content)
        read = [value.value for value in items645.decode(di, data, edition, content=content)]
        return (YES if read == texts else NO), YES, YES if read == texts else NO
    verdicts = set()
    for number in range(_TRIES):
        forms = plain.formats(row)
        assert forms is not None, di
        chance = random.Random(f"{di} {number}")
        pieces = [plain.some_bytes(form, chance) for form in forms]
        said = [plain.text_of(form, raw) for form, raw in zip(forms, pieces, strict=True)]
        data = b"".join(pieces)
        verdicts.add((_reads(di, edition, data, said), _writes(di, edition, data, said)))
    reads = YES if all(one for one, _ in verdicts) else NO
    writes = YES if all(one for _, one in verdicts) else NO
    return reads, writes, YES if reads == writes == YES else NO


def _reads(di: str, edition: str, data: bytes, said: list[str]) -> bool:
    try:
        return [value.value for value in items645.decode(di, data, edition)] == said
    except ProtocolError:
        return False


def _writes(di: str, edition: str, data: bytes, said: list[str]) -> bool:
    try:
        return items645.encode(di, said, edition, length=len(data)) == data
    except ProtocolError:
        return False


# -- Q/GDW 376.1 ----------------------------------------------------------------------------------------


def _terminal_rows() -> Iterator[Row]:
    for item in ITEMS:
        ways = {"up": (True,), "down": (False,), "both": (True, False)}[item.direction]
        if item.direction == "up" and item.request not in ("none", ""):
            ways = (True, False)
        verdicts = [_try_form(item, up) for up in ways]
        decodes, encodes, round_trips = (_worst(one) for one in zip(*verdicts, strict=True))
        yield Row(
            "Q/GDW 376.1",
            f"{item.afn:02X}",
            f"F{item.fn}",
            item.direction,
            item.name_en,
            item.name_zh,
            decodes,
            encodes,
            round_trips,
            item.confidence,
            "yes" if item.danger else "",
        )


def _worst(verdicts: Iterable[str]) -> str:
    told = set(verdicts)
    return next(one for one in (NO, RAW, YES, NONE) if one in told)


def _try_form(item: Item, up: bool) -> tuple[str, str, str]:
    """Made values of every alternative that a setting chooses, to bytes, back, and to bytes again."""
    form = form_of(item.afn, item.fn, up)
    if form is None:
        return NO, NO, NO
    if form.unknown:
        raw = bytes(range(1, 10))
        return RAW, RAW, YES if form.encode(form.decode(raw)) == raw else NO
    if not form.alternatives[0].parts:
        return NONE, NONE, NONE
    for place, alternative in enumerate(form.alternatives):
        if place and not alternative.setting:
            continue  # reached by its length only
        variants = {alternative.setting: alternative.word} if alternative.setting else {}
        chance = random.Random(f"{item.afn} {item.fn} {up} {place}")
        for _ in range(_TRIES):
            told = made(alternative.parts, chance)
            try:
                data = form.encode(told, variants)
            except ProtocolError:
                return NO, NO, NO
            try:
                found = form.decode(data, variants)
            except ProtocolError:
                return NO, YES, NO
            if found.plain() != told or form.encode(found, variants) != data:
                return YES, YES, NO
    return YES, YES, YES


def _event_rows() -> Iterator[Row]:
    bodies: dict[int, list[bytes]] = {}
    for erc, body, _ in BODIES:
        bodies.setdefault(erc, []).append(bytes.fromhex(body))
    for erc, kind in events376.KINDS.items():
        records = [events376.read_record(erc, body) for body in bodies[erc]]
        reads = all(one.fields is not None for one in records)
        writes = reads and all(
            events376.make_record(erc, one.fields).raw == one.raw for one in records if one.fields is not None
        )
        yield Row(
            "Q/GDW 376.1 events",
            "0E",
            f"ERC{erc}",
            "up",
            kind.name_en,
            kind.name_zh,
            YES if reads else NO,
            YES if writes else NO,
            YES if writes else NO,
            kind.confidence,
            "",
        )


# -- what is written ------------------------------------------------------------------------------------


def rows_text() -> str:
    """docs/protocol-rows.csv."""
    told = io.StringIO()
    writer = csv.writer(told, lineterminator="\n")
    writer.writerow(Row.__dataclass_fields__)
    writer.writerows([getattr(row, name) for name in Row.__dataclass_fields__] for row in rows())
    return told.getvalue()


def parts() -> dict[str, str]:
    """The parts of docs/protocols.md between its markers, by name."""
    return {
        "counts": _counts(),
        "raw rows": _raw_rows(),
        "settings": _settings(),
        "not rebuilt": _reasons(NOT_REBUILT),
        "kept raw": _reasons(KEPT_RAW),
        "disputed": _disputed(),
    }


def filled(document: str) -> str:
    """`document` with its parts made anew. ValueError where a marker is missing."""
    for name, text in parts().items():
        begin, end = f"<!-- begin {name} -->\n", f"<!-- end {name} -->"
        if document.count(begin) != 1 or document.count(end) != 1:
            raise ValueError(f"no single place for {name}")
        before, _, behind = document.partition(begin)
        document = before + begin + text + end + behind.partition(end)[2]
    return document


def _table(head: Iterable[str], lines: Iterable[Iterable[object]]) -> str:
    told = [list(head), *([str(cell).replace("|", "\\|") for cell in line] for line in lines)]
    told.insert(1, ["---"] * len(told[0]))
    return "".join(f"| {' | '.join(line)} |\n" for line in told)


def _counts() -> str:
    """Rows by family and group: how many of each verdict, how sure."""
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows():
        groups.setdefault((row.family, row.group), []).append(row)
        groups.setdefault((row.family, "all"), []).append(row)
    # The sum stands behind its groups.
    families = dict.fromkeys(family for family, _ in groups)
    order = [
        key
        for family in families
        for key in sorted((one for one in groups if one[0] == family), key=lambda one: (one[1] == "all", one))
    ]
    return _table(
        ("family", "group", "rows", "decode", "encode", "round-trip", "raw", "no data", *CONFIDENCES),
        (_line(family, group, groups[family, group]) for family, group in order),
    )


def _line(family: str, group: str, told: list[Row]) -> list[object]:
    sure = Counter(row.confidence for row in told)
    assert set(sure) <= set(CONFIDENCES), sure
    counts = [
        sum(row.decodes == YES for row in told),
        sum(row.encodes == YES for row in told),
        sum(row.round_trips == YES and row.decodes == YES for row in told),
        sum(row.decodes == RAW for row in told),
        sum(row.decodes == NONE for row in told),
    ]
    return [family, group, len(told), *counts, *(sure[one] for one in CONFIDENCES)]


def _raw_rows() -> str:
    return _table(
        ("family", "row", "name", "名称", "confidence"),
        (
            (row.family, f"{row.group} {row.key}" if row.direction else row.key, row.name_en, row.name_zh,
             row.confidence)
            for row in rows() if RAW in row.verdicts
        ),
    )  # fmt: skip


def _settings() -> str:
    """The settings that choose between layouts, with what profiles.toml says of each."""
    text = resources.files("protocols.q_gdw376").joinpath("profiles.toml").read_text(encoding="utf-8")
    told = re.findall(r"((?:^# .*\n)+)^(\w+) = \[", text, re.MULTILINE)
    said = {name: " ".join(re.findall(r"^# (.*)$", comment, re.MULTILINE)) for comment, name in told}
    return _table(
        ("setting", "default", "otherwise", "what it is about"),
        ((f"`{name}`", words[0], ", ".join(words[1:]), said[name]) for name, words in settings().items()),
    )


def _reasons(told: dict[str, str]) -> str:
    meanings = {vector.id: vector.meaning for vector in vectors()}
    return _table(
        ("frame", "what it is", "why"), ((name, meanings[name], why) for name, why in sorted(told.items()))
    )


def _disputed() -> str:
    return _table(
        ("frame", "key", "the file", "here", "why"),
        [
            *(
                (name, key, f"`{said}`", f"`{right}`", why)
                for name, keys in sorted(DISPUTED.items())
                for key, (said, right, why) in keys.items()
            ),
            *((name, "(whole)", "valid", "refused", why) for name, why in sorted(REFUSED.items())),
            *(("any", key, "given", "not told", why) for key, why in sorted(OTHER_KEYS.items())),
        ],
    )


def main() -> None:
    """Write both files again."""
    DOCUMENT.write_text(filled(DOCUMENT.read_text(encoding="utf-8")), encoding="utf-8")
    ROWS_FILE.write_text(rows_text(), encoding="utf-8")
    print(_counts())


if __name__ == "__main__":
    main()
