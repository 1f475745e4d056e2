"""Archive against assets: what differs, and what is written to mend it."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from gateway.api.archive import compare, mending
from gateway.errors import InputError
from gateway.model import ArchiveRecord, MeterClass, Point, PointRole

NOW = datetime(2026, 11, 24, tzinfo=UTC)


def point(pn: int, address: str = "", **changes: object) -> Point:
    made = Point(
        pn=pn,
        meter_id=pn,
        meter=f"{pn:012d}",
        address=address or f"{pn:012d}",
        protocol="dlt645-2007",
        meter_class=MeterClass.SINGLE_PHASE,
        role=PointRole.CUSTOMER,
        tariffs=4,
        port=31,
        ct=1,
        pt=1,
        profile="",
        valid_from=None,
        valid_to=None,
    )
    return replace(made, **changes)  # type: ignore[arg-type]  # any field, by name


def record(pn: int, address: str = "", **changes: object) -> ArchiveRecord:
    made = ArchiveRecord(
        sequence=pn, pn=pn, port=31, baud=2400, protocol=30, address=address or f"{pn:012d}", tariffs=4
    )
    return replace(made, **changes)  # type: ignore[arg-type]  # any field, by name


def test_equal_ones_do_not_differ() -> None:
    assert compare([point(1), point(2)], [record(2), record(1)], NOW) == []


def test_each_kind_of_difference_is_told_by_rising_pn() -> None:
    found = compare([point(3), point(1, "000000000099")], [record(1), record(2)], NOW)
    assert [(one.pn, one.kind, one.fields) for one in found] == [
        (1, "differs", ("address",)),
        (2, "surplus", ()),
        (3, "missing", ()),
    ]


def test_the_code_of_a_plc_module_is_no_difference_but_the_other_edition_is() -> None:
    assert compare([point(1)], [record(1, protocol=31)], NOW) == []
    (found,) = compare([point(1)], [record(1, protocol=1)], NOW)
    assert found.fields == ("protocol",)


def test_a_meter_that_was_taken_out_is_not_wanted() -> None:
    gone = point(1, valid_to=NOW)
    assert [one.kind for one in compare([gone], [record(1)], NOW)] == ["surplus"]


def test_mending_keeps_what_the_assets_do_not_know_and_deletes_only_when_told() -> None:
    records = [record(1, sequence=7, baud=9600, password=b"secret"), record(2)]
    differences = compare([point(1, "000000000099")], records, NOW)
    (written,) = mending(differences, records, prune=False)
    assert written == replace(records[0], address="000000000099")
    assert mending(differences, records, prune=True)[1] == replace(records[1], pn=0)


def test_a_new_point_takes_its_own_number_or_the_lowest_free_one() -> None:
    records = [record(1, sequence=5)]
    points = [point(1), point(5), point(6)]
    written = mending(compare(points, records, NOW), records, prune=False)
    assert [(one.pn, one.sequence, one.protocol) for one in written] == [(5, 1, 30), (6, 6, 30)]


def test_mending_mends() -> None:
    records = [record(1, sequence=3), record(3, sequence=1, port=2), record(4, tariffs=1)]
    points = [point(1), point(2), point(3)]
    archive = {one.sequence: one for one in records}
    for one in mending(compare(points, records, NOW), records, prune=True):
        archive[one.sequence] = one
    assert compare(points, archive.values(), NOW) == []


def test_a_full_archive_is_refused() -> None:
    records = [record(pn) for pn in range(1, 2041)]
    differences = compare([point(3000)], records, NOW)
    with pytest.raises(InputError, match="full"):
        mending(differences, records, prune=False)
