"""The package against a second decoder, on field, generated and mutated frames with the checksum repaired."""

from __future__ import annotations

import dataclasses
import random
from datetime import date, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.q_gdw376 import values
from protocols.q_gdw376.events import Events
from protocols.q_gdw376.frame import Frame, build, parse
from protocols.q_gdw376.layouts import LAYOUTS
from protocols.q_gdw376.messages import decode, encode_unit
from tests.protocols import made_qgdw376 as made
from tests.protocols import plain_qgdw376 as plain
from tests.protocols.test_qgdw376_examples import EXAMPLES
from tests.protocols.test_qgdw376_frame import FIELD
from tests.protocols.vectors import Vector


def in_plain_words(value: object) -> Any:
    """A value as the second decoder would say it."""
    if isinstance(value, values.Clock):
        return in_plain_words(value.at), value.weekday
    if isinstance(value, Events):
        records = tuple((record.erc, record.raw) for record in value.records)
        return value.ec1, value.ec2, value.pm, value.pn, records, value.rest
    if isinstance(value, datetime):
        return value.year - 2000, value.month, value.day, value.hour, value.minute, value.second
    if isinstance(value, date):
        return value.year - 2000, value.month, value.day
    if isinstance(value, tuple):
        return tuple(in_plain_words(one) for one in value)
    if dataclasses.is_dataclass(value):
        return tuple(in_plain_words(getattr(value, field.name)) for field in dataclasses.fields(value))
    return value


def compare(raw: bytes) -> int:
    """Both say the same of one whole frame: its envelope, and every unit that the plain decoder reads."""
    frame = parse(raw)
    second = plain.frame_at(raw, 0)
    assert second is not None
    assert second.pop("size") == len(raw)
    assert second.pop("start") == 0
    assert {name: getattr(frame, name) for name in second} == second
    theirs, whole = plain.units(second)
    ours = decode(frame)
    if whole:
        assert len(ours) == len(theirs)
    for unit, (pn, fn, value, data, at) in zip(ours, theirs, strict=False):
        assert (unit.pn, unit.fn, unit.raw, unit.offset) == (pn, fn, data, at)
        assert (unit.reason is not None) == (value is plain.Bad)
        if value is not plain.Bad:
            assert in_plain_words(unit.value) == value
    assert len(ours) >= len(theirs)
    return len(theirs)


@pytest.mark.parametrize("vector", FIELD, ids=str)
def test_both_say_the_same_of_a_field_frame(vector: Vector) -> None:
    compare(vector.raw)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda one: str(one.number))
def test_both_say_the_same_of_a_worked_example(example: Any) -> None:
    compare(bytes.fromhex(example.frame))


@given(made.frames())
def test_both_say_the_same_of_any_envelope(frame: Frame) -> None:
    compare(build(frame))


@given(made.units(), st.data())
def test_both_say_the_same_of_every_unit_that_is_built(
    unit: tuple[int, bool, int, int, object], data: st.DataObject
) -> None:
    afn, up, pn, fn, value = unit
    frame = data.draw(made.frames(encode_unit(afn, fn, pn, value, up), up, afn))
    assert compare(build(frame)) == 1


@given(made.frames_of_units(), st.integers())
def test_both_say_the_same_of_answers_and_their_mutations(frame: Frame, seed: int) -> None:
    raw = build(frame)
    compare(raw)
    chance = random.Random(seed)
    for _ in range(3):
        compare(made.mutated(raw, chance))


@given(st.sampled_from(sorted(LAYOUTS)), st.binary(max_size=80), st.data())
def test_both_say_the_same_of_any_data_behind_a_known_identifier(
    key: tuple[int, int, bool], rest: bytes, data: st.DataObject
) -> None:
    afn, fn, up = key
    frame = data.draw(made.frames(encode_unit(afn, fn, 1, rest, up), up, afn))
    compare(build(frame))


def test_both_say_the_same_of_mutated_field_frames() -> None:
    """A few thousand, of known seed; none raises."""
    chance = random.Random(20_261_124)
    read = 0
    for _ in range(80):
        for vector in FIELD:
            raw = vector.raw
            if parse(raw).protocol_id == 2:
                read += compare(made.mutated(raw, chance))
    assert read > 1000


def test_the_second_decoder_would_be_noticed_if_it_differed() -> None:
    """The comparison itself: one register changed on one side must fail."""
    raw = bytes.fromhex(EXAMPLES[12].frame)
    frame = parse(raw)
    second = plain.frame_at(raw, 0)
    assert second is not None
    ((_, _, value, _, _),), _ = plain.units(second)
    (unit,) = decode(frame)
    assert in_plain_words(unit.value) == value
    assert isinstance(unit.value, values.FrozenEnergy)
    assert in_plain_words(dataclasses.replace(unit.value, registers=(1,))) != value
