"""The midnight twin against the declared layouts: the same of every answer, good, empty, odd or mutated."""

from __future__ import annotations

import random
from datetime import date, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.errors import LocalProtocolError
from protocols.q_gdw376 import midnight, values
from protocols.q_gdw376.frame import Frame, build, parse
from protocols.q_gdw376.layouts import (
    DAY_ACTIVE_FNS,
    DAY_REACTIVE_FNS,
    DAY_THREE_PHASE_FNS,
    MONTH_ACTIVE_FNS,
    MONTH_REACTIVE_FNS,
    MONTH_THREE_PHASE_FNS,
)
from protocols.q_gdw376.messages import Unit, decode, encode_unit
from tests.protocols import made_qgdw376 as made
from tests.protocols.test_qgdw376_examples import EXAMPLES
from tests.protocols.test_qgdw376_frame import FIELD

DAY = date(2026, 11, 23)
READ_AT = datetime(2026, 11, 24, 0, 5)
ALL_FNS = (
    *DAY_ACTIVE_FNS,
    *DAY_REACTIVE_FNS,
    *DAY_THREE_PHASE_FNS,
    *MONTH_ACTIVE_FNS,
    *MONTH_REACTIVE_FNS,
    *MONTH_THREE_PHASE_FNS,
)


def answer(body: bytes, up: bool = True, afn: int = 0x0D) -> Frame:
    return Frame(terminal="02001234", up=up, prm=not up, function=8, afn=afn, body=body)


def by_layouts(frame: Frame) -> tuple[list[midnight.Row], tuple[Unit, ...]]:
    """What `rows` must say, from `decode` alone."""
    found: list[midnight.Row] = []
    rest = []
    for unit in decode(frame):
        if isinstance(unit.value, values.FrozenEnergy) and unit.value.tag is not None:
            energy = unit.value
            found.append((unit.pn, unit.fn, unit.value.tag, energy.read_at, energy.registers))
        else:
            rest.append(unit)
    return found, tuple(rest)


def same(frame: Frame) -> tuple[list[midnight.Row], tuple[Unit, ...]]:
    said = midnight.rows(frame)
    assert said == by_layouts(frame)
    return said


def test_the_worked_answer() -> None:
    found, rest = same(parse(bytes.fromhex(EXAMPLES[12].frame)))
    assert found == [(1, 161, DAY, READ_AT, (12_345_600, 3_000_000, 4_005_000, 5_000_600, None))]
    assert rest == ()


def test_field_frames_of_any_kind() -> None:
    for vector in FIELD:
        same(parse(vector.raw))


@given(made.frames_of_units(afns=(0x0D,)))
def test_generated_answers(frame: Frame) -> None:
    found, rest = same(frame)
    assert len(found) + len(rest) >= 1


@given(made.frames_of_units(afns=(0x0D,)), st.integers())
def test_mutated_answers(frame: Frame, seed: int) -> None:
    chance = random.Random(seed)
    raw = build(frame)
    for _ in range(4):
        same(parse(made.mutated(raw, chance)))


@given(made.frames_of_units(afns=(0x0C, 0x0A)))
def test_answers_that_are_no_freeze_come_back_as_units(frame: Frame) -> None:
    found, rest = same(frame)
    assert found == []
    assert rest == decode(frame)


def test_a_request_is_not_read_as_an_answer() -> None:
    found, rest = same(answer(encode_unit(0x0D, 161, 1, values.DayTag(DAY), up=False), up=False))
    assert found == []
    assert rest[0].value == values.DayTag(DAY)


def usual(pn: int, fn: int = 161) -> bytes:
    return midnight.encode(pn, fn, DAY, READ_AT, (5, 4, 3, 2, 1))


EMPTY = bytes.fromhex("02010114231126 0500241126") + b"\xee" * 26
NO_TAG = bytes.fromhex("02010114") + b"\xee" * 34


def test_an_empty_unit_with_a_tag_is_a_row_without_registers() -> None:
    found, rest = same(answer(usual(1) + EMPTY + usual(3)))
    assert [row[0] for row in found] == [1, 2, 3]
    assert found[1] == (2, 161, DAY, READ_AT, ())
    assert rest == ()


def test_an_empty_unit_without_a_tag_is_a_unit_without_a_reason() -> None:
    for filler in (NO_TAG, usual(2)[:4] + b"\xee" * 8 + usual(2)[12:]):
        found, rest = same(answer(usual(1) + filler + usual(3)))
        assert [row[0] for row in found] == [1, 3]
        (unit,) = rest
        assert (unit.pn, unit.fn, unit.reason, unit.offset) == (2, 161, None, 42)
        assert isinstance(unit.value, values.FrozenEnergy)
        assert unit.value.tag is None


def test_a_unit_left_out_is_simply_not_there() -> None:
    found, rest = same(answer(usual(1) + usual(3)))
    assert ([row[0] for row in found], rest) == ([1, 3], ())


def test_three_phase_sets_come_as_units() -> None:
    data = midnight.encode_three_phase(2, 1, DAY, READ_AT, (1, 2), (300, 400), (500, None), (None, 600))
    empty = midnight.encode_three_phase(3, 1, DAY, READ_AT, (), (), (), ())
    found, rest = same(answer(usual(1) + data + empty + usual(4)))
    assert [row[0] for row in found] == [1, 4]
    assert [unit.value for unit in rest] == [
        values.FrozenThreePhase(DAY, READ_AT, (1, 2), (300, 400), (500, None), (None, 600)),
        values.FrozenThreePhase(DAY, READ_AT, (), (), (), ()),
    ]


@pytest.mark.parametrize(
    "odd",
    [
        encode_unit(0x0D, 161, 2, values.FrozenPhases(DAY, READ_AT, (123456, 2, 3))),
        bytes.fromhex("03010114") + usual(1)[4:] * 2,
        bytes.fromhex("01010514") + usual(1)[4:] * 2,
        encode_unit(0x0D, 5, 2, bytes.fromhex("231126000100000000")),
        usual(2)[:-1],
        usual(2)[:9],
        usual(2)[:2],
        usual(2)[:20] + b"\x0a" + usual(2)[21:],
        usual(2)[:4] + b"\x32" + usual(2)[5:],
        usual(2)[:7] + b"\x60" + usual(2)[8:],
        EMPTY[:-3],
        EMPTY + b"\xee",
        EMPTY[:13] + bytes(25),
        EMPTY[:12] + b"\xef" * 26,
        usual(2)[:12] + b"\x40" + bytes(325),
        usual(2)[:12] + b"\x3f" + bytes(320),
        bytes.fromhex("0100011400"),
        midnight.encode(2, 162, DAY, READ_AT, (100, None)),
        midnight.encode(2, 163, DAY, None, (None,) * 5),
        midnight.encode(2, 177, DAY.replace(day=1), READ_AT, tuple(range(13))),
        midnight.encode(2, 161, DAY, READ_AT, (7,)),
        midnight.encode(2, 161, None, READ_AT, (7,)),
    ],
)  # fmt: skip
def test_whatever_is_odd_is_read_as_the_layouts_read_it(odd: bytes) -> None:
    same(answer(odd))
    same(answer(usual(1) + odd))
    same(answer(usual(1) + odd + usual(3)))


def test_a_stranger_cannot_make_the_memory_grow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(midnight, "_MOST_TIMES", 50)
    monkeypatch.setattr(midnight, "_MOST_TAGS", 50)
    kind = midnight._KINDS[161]
    for number in range(400):
        day = date.fromordinal(date(2001, 1, 1).toordinal() + number)
        at = datetime(2020, 1, 1, number // 60 % 24, number % 60)
        same(answer(midnight.encode(1, 161, day, at, (1, 2, 3, 4, 5))))
        same(answer(midnight.encode(1, 161, day, at, (1, 2))))
        assert len(midnight._times) <= max(50, len(midnight._times) if number < 1 else 50)
        assert len(kind.tags) <= 50


def values_of(fn: int) -> st.SearchStrategy[Any]:
    return made.value_of(0x0D, fn, True)


@given(st.sampled_from(ALL_FNS), made.points, st.data())
def test_what_is_written_is_what_the_layouts_write(fn: int, pn: int, data: st.DataObject) -> None:
    value = data.draw(values_of(fn))
    if isinstance(value, values.FrozenThreePhase):
        written = midnight.encode_three_phase(
            pn,
            fn,
            value.tag,
            value.read_at,
            value.active,
            value.reactive,
            value.quadrant_a,
            value.quadrant_b,
        )
    else:
        written = midnight.encode(pn, fn, value.tag, value.read_at, value.registers)
    assert written == encode_unit(0x0D, fn, pn, value)


@pytest.mark.parametrize(
    ("pn", "fn", "tag", "registers"),
    [
        (2041, 161, DAY, (1,)),
        (1, 49, DAY, (1,)),
        (1, 1, DAY, (1,)),
        (1, 161, date(2100, 1, 1), (1,)),
        (1, 161, DAY, (10**10,)),
        (1, 161, DAY, (-1,)),
        (1, 162, DAY, (150,)),
        (1, 162, DAY, (10**10,)),
        (1, 161, DAY, (0,) * 65),
    ],
)
def test_what_does_not_fit_is_not_written(pn: int, fn: int, tag: date, registers: tuple[int, ...]) -> None:
    with pytest.raises(LocalProtocolError):
        midnight.encode(pn, fn, tag, READ_AT, registers)


def test_a_three_phase_set_has_as_many_registers_everywhere() -> None:
    with pytest.raises(LocalProtocolError):
        midnight.encode_three_phase(1, 1, DAY, READ_AT, (1,), (100, 200), (100,), (100,))
    with pytest.raises(LocalProtocolError):
        midnight.encode_three_phase(1, 161, DAY, READ_AT, (1,), (100,), (100,), (100,))
