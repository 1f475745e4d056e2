"""A district is a function of its arguments, and its registers are registers: they rise, and they add up."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from datetime import date, datetime, timedelta
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.district import FIRST_MIDNIGHT, District, MeterPlan, Quantity

DAY = date(2026, 11, 23)
FILES = ("terminals.csv", "meters.csv", "truth.csv")

_GROW = """
import sys
from datetime import date
from pathlib import Path
from simulator.district import District
district = District(11, 3, 90, date(2026, 11, 23), swapped=2, clashes=1)
district.write_assets(Path(sys.argv[1]))
district.write_truth(Path(sys.argv[1]) / "truth.csv")
"""


@lru_cache
def district(seed: int = 7, terminals: int = 4, meters: int = 400) -> District:
    return District(seed, terminals, meters, DAY)


def test_districts_of_other_area_codes_have_no_address_in_common() -> None:
    districts = [District(7, 4, 400, DAY, area_code=code) for code in (200, 201, 305)]
    for taken in (
        [terminal.address for each in districts for terminal in each.terminals],
        [meter.address for each in districts for _, meter in each.meters()],
        [meter.number for each in districts for _, meter in each.meters()],
    ):
        assert len(set(taken)) == len(taken)
    assert districts[0].truth() == district().truth()
    for code in (199, 10_000):
        with pytest.raises(ValueError, match="area codes"):
            District(7, 1, 1, DAY, area_code=code)


def test_equal_arguments_give_equal_bytes_in_every_process(tmp_path: Path) -> None:
    for number in ("1", "2"):
        folder = tmp_path / number
        folder.mkdir()
        environment = {**os.environ, "PYTHONHASHSEED": number}
        subprocess.run([sys.executable, "-c", _GROW, str(folder)], check=True, env=environment)
    for name in FILES:
        assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "2" / name).read_bytes(), name


def test_another_seed_is_another_district() -> None:
    assert district(1).truth() != district(2).truth()


@pytest.mark.parametrize(("terminals", "meters"), [(1, 1), (3, 3), (3, 100), (7, 500), (1, 2040)])
def test_there_are_exactly_so_many_meters_gateways_included(terminals: int, meters: int) -> None:
    grown = District(3, terminals, meters, DAY)
    assert len(grown.terminals) == terminals
    assert len(list(grown.meters())) == meters
    assert len({meter.number for _, meter in grown.meters()}) == meters
    assert len({meter.address for _, meter in grown.meters()}) == meters
    for terminal in grown.terminals:
        points = [meter.pn for meter in terminal.meters]
        assert points == sorted(set(points))
        assert points[-1] <= 2040
        gateway = terminal.meters[0]
        assert (gateway.pn, gateway.role, gateway.port) == (1, "area_gateway", 2)
        assert gateway.ct >= 100


def test_the_mix_of_meters_is_that_of_a_district() -> None:
    customers = [meter for _, meter in district(7, 10, 5000).meters() if meter.role != "area_gateway"]
    three_phase = sum(meter.meter_class == "three_phase" for meter in customers) / len(customers)
    feeding_in = sum(meter.role == "feed_in" for meter in customers) / len(customers)
    assert 1 / 15 < three_phase < 1 / 10
    assert 0.03 < feeding_in < 0.07
    assert {meter.tariffs for meter in customers} == {1, 2, 3, 4}
    assert {terminal.edition for terminal in district(7, 10, 5000).terminals} == {2009, 2013}


meters = st.sampled_from([meter for _, meter in district().meters()])
quantities = st.sampled_from(list(Quantity))
instants = st.datetimes(datetime(2020, 1, 2), datetime(2039, 12, 31))


@given(meters, quantities, st.lists(instants, min_size=2, max_size=6))
def test_registers_never_run_backwards_and_their_tariffs_sum(
    meter: MeterPlan, quantity: Quantity, at: list[datetime]
) -> None:
    for earlier, later in pairwise(meter.at(quantity, instant) for instant in sorted(at)):
        assert all(before <= after for before, after in zip(earlier, later, strict=True))
    for instant in at:
        total, *tariffs = meter.at(quantity, instant)
        assert len(tariffs) == meter.tariffs
        assert sum(tariffs) == total


@given(meters, quantities, instants)
def test_midnight_registers_are_those_of_the_day_before_and_after(
    meter: MeterPlan, quantity: Quantity, at: datetime
) -> None:
    midnight = at.date()
    frozen = meter.at_midnight(quantity, midnight)
    opened = datetime(midnight.year, midnight.month, midnight.day)
    assert meter.at(quantity, opened) == frozen
    just_before = meter.at(quantity, opened - timedelta(seconds=1))
    assert all(before <= after for before, after in zip(just_before, frozen, strict=True))
    assert (
        frozen[0] - just_before[0] <= frozen[0] - meter.at_midnight(quantity, midnight - timedelta(days=1))[0]
    )


def test_every_customer_uses_something_every_day() -> None:
    for _, meter in district().meters():
        for back in range(62):
            after = meter.at_midnight(Quantity.FORWARD_ACTIVE, DAY - timedelta(days=back))
            before = meter.at_midnight(Quantity.FORWARD_ACTIVE, DAY - timedelta(days=back + 1))
            assert after[0] > before[0]


def test_registers_stand_still_until_the_first_day() -> None:
    _, meter = next(district().meters())
    began = meter.at_midnight(Quantity.FORWARD_ACTIVE, FIRST_MIDNIGHT)
    assert meter.at(Quantity.FORWARD_ACTIVE, datetime(2019, 5, 17, 13, 30)) == began


def test_the_truth_has_the_due_rows_of_every_meter_in_order() -> None:
    rows = district().truth()
    assert [(row.meter, row.quantity.label) for row in rows] == sorted(
        (row.meter, row.quantity.label) for row in rows
    )
    of_meter: dict[str, set[Quantity]] = {}
    for row in rows:
        of_meter.setdefault(row.meter, set()).add(row.quantity)
    forward, reverse = {Quantity.FORWARD_ACTIVE}, {Quantity.REVERSE_ACTIVE}
    reactive, back = {Quantity.FORWARD_REACTIVE}, {Quantity.REVERSE_REACTIVE}
    for _, meter in district().meters():
        expected = {
            ("single_phase", "customer"): forward,
            ("single_phase", "feed_in"): forward | reverse,
            ("three_phase", "customer"): forward | reactive,
            ("three_phase", "feed_in"): forward | reverse | reactive | back,
            ("three_phase", "area_gateway"): forward | reverse | reactive | back,
        }[meter.meter_class, meter.role]
        assert of_meter[meter.number] == expected


def test_the_truth_file_is_written_to_the_contract(tmp_path: Path) -> None:
    path = tmp_path / "truth.csv"
    district().write_truth(path)
    text = path.read_bytes().decode("ascii")
    lines = text.splitlines()
    assert "\r" not in text
    assert text.endswith("\n")
    assert lines[0] == "meter,quantity,frozen_at,total,t1,t2,t3,t4"
    for line, row in zip(lines[1:], district().truth(), strict=True):
        meter, quantity, frozen_at, *cells = line.split(",")
        assert (meter, quantity) == (row.meter, row.quantity.label)
        assert frozen_at == "2026-11-24T00:00:00+08:00"
        assert len(cells) == 5
        filled = [cell for cell in cells if cell]
        assert cells == filled + [""] * (5 - len(filled))
        assert all(len(cell.partition(".")[2]) == 4 and cell.endswith("00") for cell in filled)
        assert [round(float(cell) * 100) for cell in filled] == list(row.registers)


def test_any_day_has_its_truth_and_any_meter_its_registers() -> None:
    for back in (0, 1, 30, 62):
        day = DAY - timedelta(days=back)
        for row in district().truth(day)[::37]:
            assert district().registers(row.meter, row.quantity, day) == row.registers


def test_assets_name_every_meter_once(tmp_path: Path) -> None:
    district().write_assets(tmp_path, profile="sample")
    with (tmp_path / "meters.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["meter"] for row in rows] == [meter.number for _, meter in district().meters()]
    assert {row["protocol"] for row in rows} == {"dlt645-2007"}
    assert {(row["class"], row["port"]) for row in rows} == {
        ("single_phase", "31"),
        ("three_phase", "31"),
        ("three_phase", "2"),
    }
    with (tmp_path / "terminals.csv").open(newline="") as file:
        terminals = list(csv.DictReader(file))
    assert [row["terminal"] for row in terminals] == [plan.address for plan in district().terminals]
    assert {row["profile"] for row in terminals} == {"sample"}


def test_a_swapped_meter_is_in_the_assets_and_the_old_one_in_the_archive() -> None:
    plain = District(7, 4, 400, DAY)
    swapped = District(7, 4, 400, DAY, swapped=5)
    old = {meter.number for terminal in swapped.terminals for meter in terminal.stale}
    new = {meter.number for _, meter in swapped.meters() if meter.installed}
    assert len(old) == len(new) == 5
    assert old <= {meter.number for _, meter in plain.meters()}
    assert not old & {row.meter for row in swapped.truth()}
    assert new <= {row.meter for row in swapped.truth()}
    assert not new & {row.meter for row in swapped.truth(DAY - timedelta(days=10))}
    assert len(list(swapped.meters())) == 400


def test_an_impostor_has_its_victims_address_and_none_of_its_meters() -> None:
    grown = District(7, 4, 400, DAY, clashes=2)
    real = {meter.address for _, meter in grown.meters()}
    assert len({impostor.address for impostor in grown.impostors}) == 2
    for impostor in grown.impostors:
        assert impostor.address in {terminal.address for terminal in grown.terminals}
        assert not real & {meter.address for meter in impostor.meters}


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((1, 0, 5, DAY), "at least one"),
        ((1, 5, 4, DAY), "at least one"),
        ((1, 1, 2041, DAY), "2040"),
        ((1, 1, 1, date(2020, 1, 30)), "2020-01-01"),
    ],
)
def test_impossible_districts_are_refused(arguments: tuple[int, int, int, date], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        District(*arguments)
