"""Bugs planted in protocols/, each in another place, and the tests of `make test` that must notice them.

A plant lives in a monkeypatch only. Each check is first seen to pass without its plant.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any

import pytest

from protocols.dlt645 import connection as connection645
from protocols.dlt645 import control
from protocols.dlt645 import frame as frame645
from protocols.dlt645 import stream as stream645
from protocols.dlt645.formats import Number
from protocols.q_gdw376 import answers, identifiers, midnight, time_label
from tests.protocols import (
    test_dlt645_connection,
    test_dlt645_control,
    test_dlt645_items_rows,
    test_dlt645_stream,
    test_qgdw376_links,
    test_qgdw376_messages,
    test_qgdw376_midnight,
    test_qgdw376_password,
    test_qgdw376_time_label,
)
from tests.protocols.vectors import tagged

Patch = pytest.MonkeyPatch


@dataclass(frozen=True)
class Plant:
    """name: what goes wrong; plant: makes it so; check: a test, or a case of one, that must fail then."""

    name: str
    plant: Callable[[Patch], None]
    check: Callable[[], Any]


def _any_checksum(patch: Patch) -> None:
    real = frame645.examine

    def examine(buffer: bytes | bytearray, start: int) -> int | str | None:
        verdict = real(buffer, start)
        wrong = verdict == "wrong checksum"
        return frame645.OVERHEAD + buffer[start + 9] if wrong else verdict

    patch.setattr(stream645, "examine", examine)


def _no_sign(patch: Patch) -> None:
    real = Number.read

    def read(self: Number, raw: bytes) -> str | None:
        text = real(self, raw)
        return text and text.removeprefix("-")

    patch.setattr(Number, "read", read)


def _any_sequence(patch: Patch) -> None:
    patch.setattr(connection645, "out_of_order", lambda *_: None)


def _no_permit(patch: Patch) -> None:
    patch.setattr(control, "demand", lambda *_: None)


def _points_backwards(patch: Patch) -> None:
    patch.setattr(identifiers, "_BITS", tuple(bits[::-1] for bits in identifiers._BITS))


def _any_frame_with_that_number(patch: Patch) -> None:
    patch.setattr(answers, "_same", lambda *_: True)


def _always_this_month(patch: Patch) -> None:
    def sent_at(self: time_label.TimeLabel, clock: datetime) -> datetime:
        return datetime.combine(date(clock.year, clock.month, min(self.day, 28)), self.at)

    patch.setattr(time_label.TimeLabel, "sent_at", sent_at)


def _an_hour_late(patch: Patch) -> None:
    real = midnight._learn_time

    def learn(raw: bytes) -> datetime | None:
        read_at = real(raw)
        return read_at and read_at + timedelta(hours=1)

    patch.setattr(midnight, "_learn_time", learn)


def _any_password(patch: Patch) -> None:
    patch.setattr(type(test_qgdw376_password.FIELD_PASSWORD), "accepts", lambda *_: True)


PLANTS = (
    Plant(
        "645 frame: the checksum is not looked at",
        _any_checksum,
        lambda: [
            test_dlt645_stream.test_a_damaged_field_frame_gives_none(one) for one in tagged("bad-checksum")
        ],
    ),
    Plant(
        "645 formats: a sign is lost",
        _no_sign,
        test_dlt645_items_rows.test_every_row_reads_as_the_second_reader_reads_it_and_goes_back_to_its_bytes,
    ),
    Plant(
        "645 connection: SEQ is not compared",
        _any_sequence,
        test_dlt645_connection.test_parts_out_of_order_are_damage,
    ),
    Plant(
        "645 control: no permit is demanded",
        _no_permit,
        test_dlt645_control.test_nothing_is_built_without_a_permit_for_the_meter,
    ),
    Plant(
        "376.1 identifiers: points from the highest bit",
        _points_backwards,
        test_qgdw376_messages.test_several_points_and_classes_run_through_points_first,
    ),
    Plant(
        "376.1 answers: another frame with a number passes for a repeat",
        _any_frame_with_that_number,
        test_qgdw376_links.test_another_frame_with_a_number_that_was_here_is_damage,
    ),
    Plant(
        "376.1 time label: months end nowhere",
        _always_this_month,
        lambda: test_qgdw376_time_label.test_the_instant_that_a_label_means(
            "2026-12-01 00:01", 30, "23:59:00", "2026-11-30 23:59:00"
        ),
    ),
    Plant(
        "376.1 midnight: its twin reads times an hour late",
        _an_hour_late,
        test_qgdw376_midnight.test_the_worked_answer,
    ),
    Plant(
        "376.1 password: any is taken",
        _any_password,
        lambda: test_qgdw376_password.test_a_terminal_takes_the_right_password_and_denies_a_wrong_one(
            "gw-065"
        ),
    ),
)


def forget() -> None:
    """No memory of before a plant during it, nor of a plant behind it."""
    identifiers.points.cache_clear()
    identifiers.classes.cache_clear()
    midnight._known.clear()
    midnight._times.clear()


@pytest.mark.parametrize("plant", PLANTS, ids=lambda plant: plant.name)
def test_a_planted_bug_is_noticed(plant: Plant) -> None:
    plant.check()
    forget()
    try:
        with pytest.MonkeyPatch.context() as patch:
            plant.plant(patch)
            # pytest.raises tells that nothing was raised by what is no Exception.
            with pytest.raises((AssertionError, ValueError, pytest.fail.Exception)):
                plant.check()
    finally:
        forget()


def test_the_plants_stand_in_five_places_and_more() -> None:
    assert len({plant.name.partition(":")[0] for plant in PLANTS}) == len(PLANTS) >= 5
