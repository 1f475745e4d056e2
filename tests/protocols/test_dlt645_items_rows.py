"""Every row of the item table against a second reader, and back to the same bytes."""

from __future__ import annotations

import csv
import random
import re
from dataclasses import replace
from pathlib import Path

import pytest

import protocols.dlt645
from protocols.dlt645 import items, table
from protocols.errors import RemoteProtocolError
from tests.protocols import plain_dlt645_items as plain

_CSV = Path(protocols.dlt645.__file__).with_name("items.csv")
with _CSV.open(encoding="utf-8", newline="") as _lines:
    ROWS = list(csv.DictReader(_lines))
_SEEDS = range(3)


def _row_id(row: dict[str, str]) -> str:
    return f"{row['protocol']}-{row['di']}"


def _generated(row: dict[str, str], seed: int) -> tuple[bytes, list[str]] | None:
    forms = plain.formats(row)
    if forms is None:
        return None
    chance = random.Random(f"{row['di']} {seed}")
    pieces = [plain.some_bytes(form, chance) for form in forms]
    return b"".join(pieces), [plain.text_of(form, raw) for form, raw in zip(forms, pieces, strict=True)]


def test_every_row_reads_as_the_second_reader_reads_it_and_goes_back_to_its_bytes() -> None:
    read = 0
    for row in ROWS:
        for seed in _SEEDS:
            generated = _generated(row, seed)
            if generated is None:
                continue
            data, expected = generated
            values = items.decode(row["di"], data, row["protocol"])
            assert [value.value for value in values] == expected, _row_id(row)
            assert b"".join(value.raw for value in values) == data
            texts = [value.value for value in values]
            assert items.encode(row["di"], texts, row["protocol"], length=len(data)) == data, _row_id(row)
            read += 1
    # All but the 21 rows of load-profile records, which have a test of their own.
    assert read == (1046 - 21) * len(_SEEDS)


def test_the_second_reader_fills_the_length_that_the_table_tells() -> None:
    for row in ROWS:
        forms = plain.formats(row)
        if forms is not None and row["length_bytes"].isdecimal():
            assert sum(map(plain.len_of, forms)) == int(row["length_bytes"]), _row_id(row)


def test_every_value_has_names_of_its_own_in_both_languages() -> None:
    for row in ROWS:
        generated = _generated(row, 0)
        if generated is None:
            continue
        values = items.decode(row["di"], generated[0], row["protocol"])
        assert len({value.name_en for value in values}) == len(values), _row_id(row)
        assert len({value.name_zh for value in values}) == len(values), _row_id(row)
        for value in values:
            assert value.name_en.isascii(), value.name_en
            assert not set("%@#$") & set(value.name_en + value.name_zh), value.name_en
            assert any("\u4e00" <= letter <= "\u9fff" for letter in value.name_zh), value.name_zh


# What a field of a record is measured in, by the end of its Chinese name; the first that fits holds.
_UNITS = (
    (r"(时刻|时间|操作者代码|标识\d*|时区|时段|公共假日|结算日|特征字|号)$", ("", "min")),
    (r"累计时间$|监测时间$|限时间$", ("min",)),
    (r"次数$", ("times",)),
    (r"有功.*(电能|电能增量)(\(第\d点\))?$", ("kWh",)),
    (r"无功.*(电能|电能增量)(\(第\d点\))?$", ("kvarh",)),
    (r"安时数$", ("Ah",)),
    (r"(电压|最高电压|最低电压)(\(第\d点\))?$", ("V",)),
    (r"电流(值)?(\(第\d点\))?$", ("A",)),
    (r"功率因数(\(第\d点\))?$", ("",)),
    (r"有功(功率|.*需量)(\(第\d点\))?$", ("kW",)),
    (r"无功(功率|.*需量)(\(第\d点\))?$", ("kvar",)),
    (r"率$", ("%",)),
)


def test_the_fields_of_a_record_have_the_unit_that_their_names_call_for() -> None:
    checked = 0
    for row in ROWS:
        generated = _generated(row, 0)
        if generated is None or row["format"] != "record" or row["fields"] in ("rest", "curve", "freeze"):
            continue
        for value in items.decode(row["di"], generated[0], row["protocol"]):
            name = value.name_zh.rpartition(":")[2]
            if name == "最大需量":
                assert value.unit == ("kW" if "有功" in value.name_zh else "kvar")
                continue
            fitting = [units for pattern, units in _UNITS if re.search(pattern, name)]
            assert fitting, value.name_zh
            assert value.unit in fitting[0], value.name_zh
            checked += 1
    assert checked > 2400


def test_a_byte_too_many_or_too_few_never_reads_as_the_same_item() -> None:
    for row in ROWS:
        item = items.lookup(row["di"], row["protocol"])
        assert item is not None
        if item.layout is None or item.layout.count is None or item.variants:
            continue
        size = item.layout.fixed_length + item.layout.count * item.layout.group_length
        for wrong in (size - 1, size + 1):
            with pytest.raises(RemoteProtocolError):
                items.decode(row["di"], bytes(wrong), row["protocol"])


def test_what_can_be_written_is_marked_dangerous_and_what_is_unsure_is_marked_so() -> None:
    for row in ROWS:
        item = items.lookup(row["di"], row["protocol"])
        assert item is not None
        assert item.danger is ("w" in row["access"])
        assert item.confidence in ("confirmed", "public code", "single source", "unconfirmed")
        if "single source" in row["notes"]:
            assert item.confidence != "confirmed"
    unsure = [row["di"] for row in ROWS if row["confidence"] == "unconfirmed"]
    assert {"03360001", "03370001", "2000FF01", "0500FF01", "061001FF"} <= set(unsure)


def test_derived_items_keep_confidence_and_danger() -> None:
    for di, confidence, danger in (
        ("04030007", "confirmed", True),
        ("04000f01", "single source", True),
        ("1101ff03", "single source", False),
        ("10012502", "public code", False),
        ("0001ffff", "unconfirmed", False),
        ("04000bff", "unconfirmed", True),
    ):
        item = items.lookup(di)
        assert item is not None
        assert (item.confidence, item.danger) == (confidence, danger), di


def test_every_item_of_every_family_of_events_reads_as_that_field_of_the_whole_record() -> None:
    for row in ROWS:
        if row["protocol"] != "2007" or not "10" <= row["di"][:2].lower() <= "1f" or row["di"][4:6] != "FF":
            continue
        generated = _generated(row, 1)
        assert generated is not None
        whole = items.decode(row["di"], generated[0])
        for number, field in enumerate(whole, 1):
            di = f"{row['di'][:4]}{number:02x}{row['di'][6:]}".lower()
            (value,) = items.decode(di, field.raw)
            assert (value.value, value.unit) == (field.value, field.unit), di
        assert items.lookup(f"{row['di'][:4]}{len(whole) + 1:02x}01") is None or row["di"][:2] in ("20",)


def test_a_planted_fault_in_a_record_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    # Two fields of the same length changed places: only a reader that knows the record can tell.
    item = items.lookup("03300401")
    assert item is not None
    layout = item.layout
    assert layout is not None
    wrong = replace(layout, parts=(layout.parts[1], layout.parts[0], layout.parts[2]))
    broken = replace(item, layout=wrong)
    row = next(row for row in ROWS if row["di"] == "03300401")
    generated = _generated(row, 0)
    assert generated is not None
    monkeypatch.setitem(table._rows(), ("2007", "03300401"), broken)
    table._find.cache_clear()
    items._plan.cache_clear()
    try:
        with pytest.raises((AssertionError, RemoteProtocolError)):
            assert [value.value for value in items.decode("03300401", generated[0])] == generated[1]
    finally:
        monkeypatch.undo()
        table._find.cache_clear()
        items._plan.cache_clear()
