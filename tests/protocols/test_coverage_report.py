"""docs/protocols.md: its examples run, its tables are those that the code gives, and no row is missing."""

from __future__ import annotations

import csv
import re
from collections import Counter
from pathlib import Path

import pytest

from protocols.q_gdw376.items import form_of
from tests.protocols import coverage_report
from tests.protocols.coverage_report import DOCUMENT, NO, NONE, RAW, ROWS_FILE, YES, Row, filled, rows

_SHEET = Path(__file__).with_name("qgdw376_sheet.csv")
_EXAMPLES = re.findall(
    r"^```python\n(.*?)^```", DOCUMENT.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
)


@pytest.mark.parametrize("example", _EXAMPLES, ids=range(len(_EXAMPLES)))
def test_an_example_of_the_document_runs(example: str) -> None:
    exec(compile(example, str(DOCUMENT), "exec"), {})


def test_the_first_two_examples_take_little_more_than_ten_lines() -> None:
    for example in _EXAMPLES[:2]:
        assert sum(bool(line.strip()) and "import" not in line for line in example.splitlines()) <= 11


def test_the_tables_are_those_that_the_code_gives() -> None:
    document = DOCUMENT.read_text(encoding="utf-8")
    told = "python -m tests.protocols.coverage_report writes them again"
    assert filled(document) == document, told
    assert ROWS_FILE.read_text(encoding="utf-8") == coverage_report.rows_text(), told


def test_a_document_without_a_marker_is_refused() -> None:
    with pytest.raises(ValueError, match="no single place for counts"):
        filled("nothing")


def test_every_row_of_both_fact_sheets_is_there() -> None:
    found = Counter(row.family for row in rows())
    assert found == {"DL/T 645-2007": 795, "DL/T 645-1997": 251, "Q/GDW 376.1": 509, "Q/GDW 376.1 events": 42}
    assert len({(row.family, row.group, row.key, row.direction) for row in rows()}) == sum(found.values())
    lines = _SHEET.read_text(encoding="utf-8").splitlines()
    sheet = {(one["afn"], one["fn"], one["direction"]) for one in csv.DictReader(lines)}
    assert sheet <= {(row.group, row.key, row.direction) for row in rows() if row.family == "Q/GDW 376.1"}


def test_every_row_does_all_three_or_is_told_to_be_raw_or_without_data() -> None:
    for row in rows():
        assert NO not in row.verdicts, row
        assert row.verdicts in ((YES, YES, YES), (NONE, NONE, NONE), (RAW, RAW, YES)), row
        if row.confidence == "confirmed":
            assert row.decodes != RAW, row


def test_a_row_that_stops_to_round_trip_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(afn: int, fn: int, up: bool) -> object:
        return None if (afn, fn) == (0x0C, 24) else form_of(afn, fn, up)

    monkeypatch.setattr(coverage_report, "form_of", wrong)
    broken = [row for row in coverage_report._terminal_rows() if NO in row.verdicts]
    assert [(row.group, row.key) for row in broken] == [("0C", "F24")]
    assert isinstance(broken[0], Row)
