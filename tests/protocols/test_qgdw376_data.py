"""Class 1 and class 2 data (AFN0C, AFN0D): every row against bytes worked by hand, lengths and tags of the
fact sheet retyped, and captured frames."""

from __future__ import annotations

from datetime import date, datetime

import pytest

from protocols.errors import LocalProtocolError, RemoteProtocolError
from protocols.q_gdw376.fields import Fields
from protocols.q_gdw376.forms import Form
from protocols.q_gdw376.frame import parse
from protocols.q_gdw376.items import ITEMS, form_of
from protocols.q_gdw376.messages import decode
from protocols.q_gdw376.units import view
from tests.protocols import worked_qgdw376_class1 as class1
from tests.protocols import worked_qgdw376_class2 as class2
from tests.protocols.vectors import vectors
from tests.protocols.worked_qgdw376 import (
    A2_IS,
    A6,
    A6_IS,
    A7,
    A7_IS,
    A9,
    A11,
    A13,
    A13_IS,
    A14,
    A14_ONE,
    DAY,
    MONTH,
    NO_4,
    NO_5,
    ON_OFF_2009,
    SCHEDULE_2009,
    SWITCH_2009,
    THE_DAY,
    THE_MONTH,
    D,
    Says,
    energies,
    per_phase,
)


def form(afn: int, fn: int, up: bool = True) -> Form:
    found = form_of(afn, fn, up)
    assert found is not None
    return found


EACH = [(afn, fn, body, says) for afn, fns, body, says in (*class1.CASES, *class2.CASES) for fn in fns]
_BY_HAND = pytest.mark.parametrize(
    ("afn", "fn", "body", "says"),
    EACH,
    ids=[f"{afn:02x}-f{fn}-{len(body) // 2}" for afn, fn, body, _ in EACH],
)
_LAYOUTS_2009 = (ON_OFF_2009, SWITCH_2009, SCHEDULE_2009)


@_BY_HAND
def test_data_say_what_was_worked_out_by_hand(afn: int, fn: int, body: str, says: Says) -> None:
    told = form(afn, fn).decode(bytes.fromhex(body))
    assert told.plain() == says
    assert b"".join(field.raw for field in told).hex() == body


@_BY_HAND
def test_data_are_written_from_their_values(afn: int, fn: int, body: str, says: Says) -> None:
    variants = {"version": "2009"} if body.endswith(_LAYOUTS_2009) else {}
    assert form(afn, fn).encode(says, variants).hex() == body
    told = form(afn, fn).decode(bytes.fromhex(body))
    assert form(afn, fn).encode(told, variants).hex() == body


@_BY_HAND
def test_a_byte_less_is_damage(afn: int, fn: int, body: str, says: Says) -> None:
    if "rest" not in says:
        with pytest.raises(RemoteProtocolError):
            form(afn, fn).decode(bytes.fromhex(body)[:-1])


def test_every_row_has_a_worked_body() -> None:
    rows = {(item.afn, item.fn) for item in ITEMS if item.afn in (0x0C, 0x0D)}
    assert {(afn, fn) for afn, fn, _, _ in EACH} == rows
    assert len(rows) == 290


# -- lengths and tags, retyped from the sheet ---------------------------------------------------------

FIXED = {
    0x0C: "2:6 3:31 4:1 7:2 8:8 9:2 10:8 17:2 18:2 23:4 24:2 25:67 26:57 27:60 28:33 29:15 30:15 31:59 32:59 "
    "49:12 65:3 66:72 67:8 73:2 162:12 170:18",
    0x0D: "25:35 26:27 27:69 28:17 29:41 30:7 31:13 32:60 33:34 34:26 35:68 36:16 37:40 38:6 39:12 41:75 "
    "42:11 43:9 44:8 45:13 46:12 49:7 50:7 51:6 52:6 53:7 54:6 57:15 60:14 65:8 66:8 129:17 130:16 "
    "153:23 154:20 155:23 156:20 157:22 158:19 159:22 160:19 211:7 212:6",
}
BY_TARIFFS: list[tuple[int, tuple[int, ...] | range, int, int]] = [
    (0x0C, (19, 20, 21, 22, *range(41, 49)), 1, 4),
    (0x0C, (33, 34, 37, 38), 6, 17),
    (0x0C, (35, 36, 39, 40), 6, 14),
    (0x0C, (129, 131, 137, 139, *range(153, 161)), 6, 5),
    (0x0C, (130, 132, 133, 134, 135, 136, 138, 140, 141, 142, 143, 144), 6, 4),
    (0x0C, range(145, 153), 6, 7),
    (0x0C, (168,), 6, 10),
    (0x0D, (1, 2, 9, 10), 9, 17),
    (0x0D, (3, 4, 11, 12), 9, 14),
    (0x0D, (5, 6, 7, 8, 58, 59), 4, 4),
    (0x0D, (17, 18), 8, 17),
    (0x0D, (19, 20), 8, 14),
    (0x0D, (21, 22, 23, 24, 61, 62), 3, 4),
    (0x0D, (161, 163, 169, 171), 9, 5),
    (0x0D, (162, 164, 165, 166, 167, 168, 170, 172, 173, 174, 175, 176), 9, 4),
    (0x0D, (177, 179, *range(201, 209)), 8, 5),
    (0x0D, (178, 180, 181, 182, 183, 184), 8, 4),
    (0x0D, range(185, 193), 9, 7),
    (0x0D, range(193, 197), 8, 7),
    (0x0D, (216,), 8, 10),
]
BY_COUNT = {
    "11": (0x0C, 1, 19),
    "73 74 89 90 91 105 106 107 108 138": (0x0D, 7, 2),
    "81 82 83 84 85 86 87 88 92 93 94 95": (0x0D, 7, 3),
    "75 76 97 98 99 100 101 102 103 104 145 146 147 148": (0x0D, 7, 4),
    "109 110": (0x0D, 7, 6),
    "217": (0x0D, 7, 1),
    "218": (0x0D, 7, 7),
}


@pytest.mark.parametrize("afn", [0x0C, 0x0D])
def test_fixed_lengths_are_those_of_the_sheet(afn: int) -> None:
    for fn, length in (pair.split(":") for pair in FIXED[afn].split()):
        assert form(afn, int(fn)).length({}) == int(length), fn


@pytest.mark.parametrize("tariffs", [0, 1, 4, 12, 48])
def test_lengths_by_tariffs_are_those_of_the_sheet(tariffs: int) -> None:
    for afn, fns, fixed, each in BY_TARIFFS:
        for fn in fns:
            assert form(afn, fn).length({"M": tariffs}) == fixed + each * (tariffs + 1), fn


@pytest.mark.parametrize("count", [0, 1, 96])
def test_lengths_by_count_are_those_of_the_sheet(count: int) -> None:
    for fns, (afn, fixed, each) in BY_COUNT.items():
        for fn in fns.split():
            assert form(afn, int(fn)).length({"n": count}) == fixed + each * count, fn


@pytest.mark.parametrize(("density", "values"), [(0, 0), (1, 4), (2, 2), (3, 1), (254, 12), (255, 60)])
def test_the_density_of_an_hour_tells_how_many_values(density: int, values: int) -> None:
    for fns, one, is_it in class1.HOURLY:
        for fn in fns:
            raw = bytes((0x07, density)) + bytes.fromhex(one) * values
            told = form(0x0C, fn).decode(raw).plain()
            assert told == {"hour": "07", "density": density, "values": [is_it] * values}


def test_an_hour_of_no_known_density_is_damage() -> None:
    with pytest.raises(RemoteProtocolError):
        form(0x0C, 89).decode(bytes.fromhex("0704" + A9))


def ranges(text: str) -> set[int]:
    """ "1-3 5" as {1, 2, 3, 5}."""
    found = set()
    for part in text.split():
        low, _, high = part.partition("-")
        found |= set(range(int(low), int(high or low) + 1))
    return found


# The table of tags in the sheet; F219 is of unknown form.
TAGS = {
    "td_d": "1-12 25-32 41-43 45 49 50 53 57-59 113-126 129 153-156 161-176 185-192 209-211",
    "td_m": "17-24 33-39 44 46 51 52 54 60-62 65 66 130 157-160 177-184 193-196 201-208 212-216",
    "td_c": "73-110 138 145-148 217 218",
}


def test_a_request_carries_the_tag_of_its_answer() -> None:
    said = {fn: tag for tag, fns in TAGS.items() for fn in ranges(fns)}
    for item in ITEMS:
        if item.afn != 0x0D or item.fn == 219:
            continue
        (parts,) = (alternative.parts for alternative in form(0x0D, item.fn, up=False).alternatives)
        names = [part.name for part in parts]
        tag = said[item.fn]
        assert names == (["start", "density", "n"] if tag == "td_c" else [tag]), item.fn
        for alternative in form(0x0D, item.fn).alternatives:
            assert [part.name for part in alternative.parts][: len(names)] == names


def test_requests_of_class_1_carry_nothing_but_those_of_an_hour() -> None:
    for item in ITEMS:
        if item.afn == 0x0C:
            asked = form(0x0C, item.fn, up=False)
            hourly = 81 <= item.fn <= 121
            assert asked.length({}) == (2 if hourly else 0), item.fn
            assert any(alternative.parts for alternative in asked.alternatives) is hourly


def test_tags_of_requests_by_hand() -> None:
    assert form(0x0D, 161, up=False).encode({"td_d": THE_DAY}).hex() == DAY
    assert form(0x0D, 20, up=False).encode({"td_m": THE_MONTH}).hex() == MONTH
    assert form(0x0D, 97, up=False).encode(class2.TD_C_IS).hex() == class2.TD_C
    assert form(0x0C, 89, up=False).encode({"hour": "23", "density": 1}).hex() == "2301"


def test_data_are_not_dangerous() -> None:
    assert not [item for item in ITEMS if item.afn in (0x0C, 0x0D, 0x0E) and item.danger]


# -- disputed layouts ---------------------------------------------------------------------------------


def test_energy_of_a_day_may_have_a_read_time_and_its_length_tells() -> None:
    with_time, says = energies(A13, A13_IS, NO_4)
    for fn in (5, 6, 7, 8):
        assert form(0x0D, fn).decode(bytes.fromhex(DAY + with_time)).plain() == {"td_d": THE_DAY, **says}
        raw = form(0x0D, fn).encode({"td_d": THE_DAY, **says}, {"f5_read_time": "yes"})
        assert raw.hex() == DAY + with_time
    for fn in (21, 22, 23, 24):
        assert form(0x0D, fn).decode(bytes.fromhex(MONTH + with_time)).plain() == {"td_m": THE_MONTH, **says}


def test_the_order_inside_a_phase_is_a_setting() -> None:
    names = ("forward_active", "reverse_active", "forward_reactive", "reverse_reactive")
    body, says = per_phase(names, (A14, A14_ONE, A11, NO_4))
    for fn in (31, 32):
        told = form(0x0C, fn).decode(bytes.fromhex(body), {"f31_order": "active_first"})
        assert told.plain() == says
        assert form(0x0C, fn).encode(told, {"f31_order": "active_first"}).hex() == body


def test_harmonics_may_have_all_voltages_first() -> None:
    body = "03" + (A7 + "eeee") * 3 + (A6 + "eeee") * 3
    told = form(0x0C, 57).decode(bytes.fromhex(body), {"f57_order": "voltages_first"})
    assert told.plain() == {"n": 3, "voltages": [[A7_IS, None]] * 3, "currents": [[A6_IS, None]] * 3}


def test_extremes_of_voltage_may_stand_the_other_way_round() -> None:
    body, _ = class2.voltages()
    for fn, tag in ((27, DAY), (35, MONTH)):
        raw = bytes.fromhex(tag + body)
        usual = form(0x0D, fn).decode(raw)
        other = form(0x0D, fn).decode(raw, {"f27_order": "min_first"})
        assert (usual["max_b"], usual["min_b"]) == (A7_IS, None)
        assert (other["max_b"], other["min_b"]) == (None, A7_IS)


def test_an_empty_answer_fills_up_even_the_number_of_tariffs() -> None:
    told = form(0x0D, 161).decode(bytes.fromhex(DAY + NO_5 + "ee" * 26))
    assert told["M"] is None
    assert told["read_at"] is None
    assert form(0x0D, 161).encode(told).hex() == DAY + NO_5 + "ee" * 26


@pytest.mark.parametrize("says", [{}, {"value": A2_IS, "more": 1}, {"value": D("1.23456")}, {"value": "x"}])
def test_values_that_do_not_fit_are_not_written(says: Says) -> None:
    with pytest.raises(LocalProtocolError):
        form(0x0C, 17).encode(says)


# -- captured frames ----------------------------------------------------------------------------------


def captured(name: str) -> list[tuple[int, int, Fields | None]]:
    """(pn, fn, what it says) of every unit of a field frame."""
    (vector,) = [one for one in vectors() if one.id == name]
    frame = parse(vector.raw)
    return [(unit.pn, unit.fn, view(frame.afn, frame.up, unit, {})) for unit in decode(frame)]


def test_captured_momentary_values() -> None:
    ((pn, fn, told),) = captured("gw-061")
    assert (pn, fn) == (5, 25)
    assert told is not None
    assert told["read_at"] == datetime(2010, 8, 1, 14, 26)
    # 73 11 01, 25 37 00, 25 37 00, 24 37 00.
    assert [told[f"p_{name}"] for name in ("total", "a", "b", "c")] == [
        D("1.1173"),
        D("0.3725"),
        D("0.3725"),
        D("0.3724"),
    ]
    assert told["q_total"] == D("0.0100")
    assert [told[f"pf_{name}"] for name in ("total", "a", "b", "c")] == [D("99.9"), 100, 100, 100]
    assert [told[f"u_{name}"] for name in "abc"] == [D("219.0"), D("220.0"), D("219.0")]
    assert [told[f"i_{name}"] for name in "abc0"] == [D("1.700"), D("1.690"), D("1.690"), None]
    assert [told[f"s_{name}"] for name in ("total", "a", "b", "c")] == [None] * 4


def test_captured_momentary_values_that_are_all_missing() -> None:
    ((pn, fn, told),) = captured("gw-072")
    assert (pn, fn) == (1, 25)
    assert told is not None
    assert told["read_at"] == datetime(2018, 9, 28, 14, 41)
    assert {field.value for field in told if field.name != "read_at"} == {None}


def test_captured_present_energy() -> None:
    ((pn, fn, told),) = captured("gw-071")
    assert (pn, fn) == (3, 129)
    assert told is not None
    assert told.plain() == {
        "read_at": datetime(2017, 2, 24, 16, 32),
        "M": 4,
        "total": D("330.2000"),
        "tariffs": [0, 0, 0, 0],
    }


def test_captured_points_of_a_curve() -> None:
    *told, last = captured("gw-115")
    assert [(pn, fn) for pn, fn, _ in told] == [(2, fn) for fn in range(81, 96)]
    # F96 is on no list: what it and the units behind it say stays raw.
    assert last == (2, 96, None)
    values = {}
    for _, fn, fields in told:
        assert fields is not None
        says = fields.plain()
        values[fn] = says.pop("values")
        assert says == {"start": datetime(2015, 4, 16, 12, 45), "density": 1, "n": 1}
    assert values == {fn: [None] for fn in range(81, 96)} | {89: [D("220.0")], 92: [D("1.500")]}


def test_captured_requests_by_day() -> None:
    told = captured("gw-035")
    assert [(pn, fn) for pn, fn, _ in told] == [(pn, fn) for pn in range(2, 7) for fn in (161, 163)]
    assert {str(fields["td_d"]) for _, _, fields in told if fields is not None} == {"2011-12-25"}


@pytest.mark.parametrize(
    ("name", "pn", "fn"), [("gw-044", 1, 33), ("gw-045", 1, 25), ("gw-046", 1, 23), ("gw-029", 2, 129)]
)
def test_captured_requests_of_class_1_have_no_data(name: str, pn: int, fn: int) -> None:
    ((said_pn, said_fn, told),) = captured(name)
    assert (said_pn, said_fn) == (pn, fn)
    assert told is None or len(told) == 0


PUBLIC = {
    # A day's supply time and resets; a month's and a day's in one frame.
    "685600560068a82525010004 0d 60 00000106 030712 95052500 1200 5816": [
        (49, {"td_d": date(2012, 7, 3), "minutes": 1429, "resets": 37})
    ],
    "68760076006888002501 0004 0d 64 00000406 0114 cb000300 00000106 150114 33000100 7516": [
        (51, {"td_m": "2014-01", "minutes": 203, "resets": 3}),
        (49, {"td_d": date(2014, 1, 15), "minutes": 51, "resets": 1}),
    ],
}


@pytest.mark.parametrize(("text", "says"), PUBLIC.items())
def test_public_frames_of_supply_time(text: str, says: list[tuple[int, Says]]) -> None:
    frame = parse(bytes.fromhex(text))
    told = [(unit.fn, view(frame.afn, frame.up, unit, {})) for unit in decode(frame)]
    assert [(fn, fields.plain()) for fn, fields in told if fields is not None] == says
