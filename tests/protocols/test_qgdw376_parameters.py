"""Forms of AFN 00 to 0B, 0F and 10: data worked by hand, both ways, and made-up data read a second time."""

from __future__ import annotations

import random

import pytest

from protocols.errors import LocalProtocolError, RemoteProtocolError
from protocols.q_gdw376.fields import Fields
from protocols.q_gdw376.forms import Form
from protocols.q_gdw376.frame import Frame
from protocols.q_gdw376.identifiers import identifier
from protocols.q_gdw376.items import ITEMS, Item, dangerous, form_of
from protocols.q_gdw376.units import encode_unit, read, view
from tests.protocols import plain_qgdw376_parameters as plain
from tests.protocols.worked_qgdw376_parameters import CASES, Case

AFNS = (0x00, 0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x08, 0x09, 0x0A, 0x0B, 0x0F, 0x10)
UP, DOWN = True, False

# Rows whose data the fact sheet does not lay out; all of them of a single source or from memory.
WITHOUT_LAYOUT = {*((0x06, fn) for fn in range(11, 22)), (0x09, 10), (0x10, 12)}
NOTHING = "none"
TO_THE_END = {(0x00, 3), (0x02, 1)}
"""Units that take what is left of a frame."""


def the_form(afn: int, fn: int, up: bool) -> Form:
    form = form_of(afn, fn, up)
    assert form is not None
    return form


def rows() -> list[Item]:
    return [item for item in ITEMS if item.afn in AFNS]


def named(case: Case) -> str:
    return f"{case[0]:02x} F{case[1]} {'up' if case[2] else 'down'} {case[3][:11]}"


# -- worked by hand -----------------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES, ids=named)
def test_data_worked_by_hand(case: Case) -> None:
    afn, fn, up, hexed, said = case
    raw, form = bytes.fromhex(hexed), the_form(afn, fn, up)
    fields = form.decode(raw)
    assert fields.plain() == said
    assert form.encode(said) == raw
    assert form.encode(fields) == raw


@pytest.mark.parametrize("case", CASES, ids=named)
def test_the_second_reading_says_the_same_of_data_worked_by_hand(case: Case) -> None:
    key, raw = case[:3], bytes.fromhex(case[3])
    if raw and key in plain.RECIPES:
        assert [value for _, value, _ in the_form(*key).decode(raw).flat()] == plain.read(key, raw)


@pytest.mark.parametrize("case", [case for case in CASES if case[3]], ids=named)
def test_a_byte_less_or_more_is_damage(case: Case) -> None:
    afn, fn, up, hexed, _ = case
    raw, form = bytes.fromhex(hexed), the_form(afn, fn, up)
    for wrong in (raw[:-1], raw + b"\0"):
        if (afn, fn) in TO_THE_END or (not wrong and NOTHING in form.text):
            continue
        with pytest.raises(RemoteProtocolError):
            form.decode(wrong)


def test_every_field_stands_where_it_says() -> None:
    for afn, fn, up, hexed, _ in CASES:
        raw = bytes.fromhex(hexed)
        at = 0
        for field in the_form(afn, fn, up).decode(raw, base=100):
            assert (field.offset, field.raw) == (100 + at, raw[at : at + len(field.raw)])
            at += len(field.raw)
        assert at == len(raw)


# -- the second reading -------------------------------------------------------------------------------


@pytest.mark.parametrize("key", plain.RECIPES, ids=lambda key: f"{key[0]:02x} F{key[1]} {key[2]}")
def test_made_up_data_say_the_same_to_both(key: tuple[int, int, bool]) -> None:
    form = the_form(*key)
    for seed in range(12):
        raw, said = plain.made(key, seed)
        fields = form.decode(raw)
        assert [value for _, value, _ in fields.flat()] == said
        assert form.encode(fields) == raw
        assert form.encode(fields.plain()) == raw


def test_every_row_with_data_has_a_second_reading() -> None:
    unread = set()
    for item in rows():
        for up in (UP, DOWN):
            form = form_of(item.afn, item.fn, up)
            if form is not None and form.text != NOTHING and (item.afn, item.fn, up) not in plain.RECIPES:
                unread.add((item.afn, item.fn))
    # The two answers of AFN02 are among the data worked by hand.
    assert unread == WITHOUT_LAYOUT | {(0x02, 1), (0x02, 3)}


# -- rows ---------------------------------------------------------------------------------------------


def test_only_rows_without_a_layout_in_the_sheet_have_none() -> None:
    without = {(item.afn, item.fn) for item in rows() if item.form == "rest"}
    assert without == WITHOUT_LAYOUT
    assert not [item for item in rows() if item.form == "rest" and item.confidence == "confirmed"]


def test_a_question_for_a_parameter_is_answered_as_it_is_set() -> None:
    asked = [item for item in rows() if item.afn == 0x0A]
    assert len(asked) == 62
    for item in asked:
        assert the_form(0x0A, item.fn, UP).text == the_form(0x04, item.fn, DOWN).text


def test_only_lists_are_asked_for_with_data() -> None:
    with_data = {fn for fn in range(1, 92) if (form := form_of(0x0A, fn, DOWN)) and form.text != NOTHING}
    assert with_data == {10, 11, 13, 14, 33, 34, 38, 39}


def test_what_changes_something_is_dangerous() -> None:
    marked = {afn: {item.fn for item in rows() if item.afn == afn and item.danger} for afn in AFNS}
    listed = {afn: {item.fn for item in rows() if item.afn == afn} for afn in AFNS}
    # Shows a text, sets the clock, or gives back what another command took away.
    harmless = {27, 29, 31, 32, 38, 50, 51}
    assert marked == {
        **{afn: set() for afn in (0x00, 0x02, 0x08, 0x09, 0x0A, 0x0B)},
        **{afn: listed[afn] for afn in (0x01, 0x04, 0x06, 0x0F)},
        **{0x03: {1}, 0x05: listed[0x05] - harmless, 0x10: {10, 11, 12}},
    }
    assert all(dangerous(afn, fn) for afn, fn in ((0x01, 1), (0x04, 3), (0x04, 10), (0x05, 1), (0x05, 53)))
    assert not any(dangerous(afn, fn) for afn, fn in ((0x05, 31), (0x0A, 10), (0x10, 1), (0x10, 9)))


@pytest.mark.parametrize(
    ("key", "name", "zh", "unit"),
    [
        ((0x04, 1, DOWN), "heartbeat", "心跳周期", "min"),
        ((0x04, 10, DOWN), "n", "配置数量", ""),
        ((0x04, 25, DOWN), "rated_load", "额定负荷", "kVA"),
        ((0x04, 26, DOWN), "zero_current", "零序电流上限", "A"),
        ((0x04, 60, DOWN), "voltage_19", "19次谐波电压含有率上限", "%"),
        ((0x0A, 60, UP), "current_2", "2次谐波电流有效值上限", "A"),
        ((0x10, 1, DOWN), "byte_timeout", "字节超时", "10 ms"),
    ],
)
def test_names_and_units(key: tuple[int, int, bool], name: str, zh: str, unit: str) -> None:
    raw, _ = plain.made(key, 0)
    field = the_form(*key).decode(raw).field(name)
    assert (field.name_zh, field.unit) == (zh, unit)


def test_a_named_bit_has_its_unit() -> None:
    flat = list(the_form(0x04, 1, DOWN).decode(bytes.fromhex("0A021E200505")).flat())
    assert ("wait timeout", 30, "s") in flat
    assert ("wait retries", 2, "") in flat


def test_every_field_has_a_chinese_name() -> None:
    for key in plain.RECIPES:
        for field in the_form(*key).decode(plain.made(key, 0)[0]):
            assert field.name_zh, (key, field.name)


# -- disputed layouts ---------------------------------------------------------------------------------

_PORT = "01 1F 0000 01000000 3000 3C 401601 {count} {periods}"


def test_a_reading_period_has_four_bytes_or_two() -> None:
    form = the_form(0x04, 33, DOWN)
    four = bytes.fromhex(_PORT.format(count="01", periods="0001 0005"))
    two = bytes.fromhex(_PORT.format(count="01", periods="0105"))
    for raw, periods in ((four, [{"start": "01:00", "end": "05:00"}]), (two, [b"\x01\x05"])):
        for variants in ({}, {"f33_period": "2"}):
            ports = form.decode(raw, variants).field("ports").repeats
            assert ports is not None
            assert [port.plain()["periods"] for port in ports] == [periods]
    assert form.encode({"ports": [_a_port([{"start": "01:00", "end": "05:00"}])]}) == four
    assert form.encode({"ports": [_a_port([b"\x01\x05"])]}, {"f33_period": "2"}) == two


def _a_port(periods: list[object]) -> dict[str, object]:
    control = (
        "no_automatic_reading key_accounts_only broadcast_freeze broadcast_clock search_meters read_status"
    )
    return {
        **{"port": 31, "control": dict.fromkeys(control.split(), 0), "days": 1, "time": "00:30"},
        **{"interval": 60, "clock_at": "01 16:40", "periods": periods},
    }


def test_the_number_of_tariffs_among_the_capabilities_may_be_missing() -> None:
    form = the_form(0x09, 3, UP)
    told = "0004 08 40 00 {tariffs} 01 01 01 01 01 1F 0C 00 00 00 14 3F00" + "05" * 16
    with_it = form.decode(bytes.fromhex(told.format(tariffs="08")))
    without = form.decode(bytes.fromhex(told.format(tariffs="")))
    assert (with_it["points"], with_it["max_tariffs"], with_it["days"], with_it["key_accounts"]) == (
        *(1024, 8, 31, 20),
    )
    assert "max_tariffs" not in without
    assert [value for name, value, _ in with_it.flat() if name != "max_tariffs"] == [
        value for _, value, _ in without.flat()
    ]
    assert len(form.encode(without)) == 34


def test_keep_power_and_a_task_may_come_without_data() -> None:
    for afn, fn, setting, filled in (
        *((0x05, 25, "f25_duration", {"duration": 1}),),
        *((0x0B, 2, "f2_start", {"start": "2026-11-24 05:30"}),),
    ):
        form = the_form(afn, fn, DOWN)
        assert form.decode(b"").plain() == {}
        assert form.encode({}, {setting: "no"}) == b""
        assert form.encode(filled)


def test_a_daily_broadcast_time_names_no_day() -> None:
    form = the_form(0x04, 33, DOWN)
    raw = bytes.fromhex("01 1F 0000 01000000 3000 3C 401600 00")
    fields = form.decode(raw)
    assert ("ports 1 clock_at", "00 16:40", "") in list(fields.flat())
    assert form.encode(fields.plain()) == raw


# -- what cannot be -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("afn", "fn", "up", "hexed", "offset"),
    [
        (0x04, 17, DOWN, "2A81", 0),
        (0x04, 25, DOWN, "6400 2800 0022 1A 003003 06", 6),
        (0x04, 31, DOWN, "02 129078563412", 7),
        (0x05, 31, DOWN, "30 15 25 24 51 26", 0),
        (0x04, 44, DOWN, "311126 301126 0082", 0),
    ],
)
def test_data_that_cannot_be_are_damage_at_their_place(
    afn: int, fn: int, up: bool, hexed: str, offset: int
) -> None:
    with pytest.raises(RemoteProtocolError) as damage:
        the_form(afn, fn, up).decode(bytes.fromhex(hexed))
    assert damage.value.offset == offset


@pytest.mark.parametrize(
    ("afn", "fn", "values"),
    [
        (0x04, 17, {"limit": "1.2345"}),
        (0x04, 19, {"factor": 80}),
        (0x04, 5, {"scheme": 256, "parameter": 0}),
        (0x04, 5, {"scheme": 1}),
        (0x04, 5, {"scheme": 1, "parameter": 0, "seed": 1}),
        (0x04, 29, {"number": "0123456789ABC"}),
        (0x04, 31, {"address": ["12345678901"]}),
        (0x04, 35, {"n": 2, "sequence": [1]}),
        (0x04, 21, {"tariff": [1] * 47, "tariffs": 4}),
        (0x04, 2, {"forwarding": {"n": 128, "enabled": 1}, "address": []}),
        (0x05, 1, {"param": {"duration": 16, "alarm_delay": 0}}),
        (0x05, 32, {"message": {"number": 1, "kind": 2}, "length": 3, "text": "停电"}),
    ],
)
def test_values_that_cannot_be_are_not_built(afn: int, fn: int, values: dict[str, object]) -> None:
    with pytest.raises(LocalProtocolError):
        the_form(afn, fn, DOWN).encode(values)


def test_bits_without_a_name_are_kept() -> None:
    form = the_form(0x04, 37, DOWN)
    raw = bytes.fromhex("03 CB 14 0A 02 1E D1 1403 3263")
    fields = form.decode(raw)
    assert ("role n", 1, "") in list(fields.flat())
    assert form.encode(fields.plain()) == raw


# -- in a frame ---------------------------------------------------------------------------------------


def a_frame(afn: int, up: bool, body: bytes) -> Frame:
    return Frame(terminal="02001234", up=up, prm=not up, function=8, afn=afn, body=body)


def test_units_of_every_length_are_told_apart_in_one_frame() -> None:
    """Answers of all parameters in one frame, several times over in another order."""
    chance = random.Random(20_261_125)
    keys = [key for key in plain.RECIPES if key[0] == 0x0A and key[2]]
    for turn in range(5):
        chance.shuffle(keys)
        data = {key: plain.made(key, turn)[0] for key in keys}
        body = b"".join(identifier(1, key[1]) + data[key] for key in keys)
        units = read(a_frame(0x0A, UP, body)).units
        assert [(unit.fn, unit.raw) for unit in units] == [(key[1], data[key]) for key in keys]
        assert not [unit.reason for unit in units if unit.reason]
        for unit in units:
            fields = view(0x0A, UP, unit)
            assert isinstance(fields, Fields)
            assert encode_unit(0x0A, unit.fn, 1, fields, UP) == identifier(1, unit.fn) + unit.raw


def test_a_password_behind_set_parameters_is_no_unit() -> None:
    password = bytes(range(16))
    body = identifier(0, 1) + bytes.fromhex("0A021E200505") + identifier(0, 38) + bytes.fromhex("0101000106")
    content = read(a_frame(0x04, DOWN, body + password))
    assert [(unit.fn, len(unit.raw)) for unit in content.units] == [(1, 6), (38, 5)]
    assert content.password == password
