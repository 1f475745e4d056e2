"""`make test` runs two pytest processes; what it says at the end is both of them together."""

from __future__ import annotations

from tests.__main__ import closing

ONE = "....\nskipped: 7 no TimescaleDB\n12 passed, 1 failed, 7 skipped\n"
OTHER = "said in a test: 1 passed, 0 failed, 0 skipped\n\n3 passed, 0 failed, 2 skipped\n"


def test_the_closing_lines_are_added_up() -> None:
    assert closing([ONE, OTHER]) == "15 passed, 1 failed, 9 skipped"


def test_a_run_that_did_not_end_has_no_closing_line() -> None:
    assert closing([ONE, "Killed"]) is None
    assert closing(["", OTHER]) is None
