"""Frames from names: held to the fact sheets' worked examples and to captured frames, byte for byte."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest

from protocols.dlt645.control_messages import Verb
from protocols.errors import LocalProtocolError
from protocols.lens.meter_composition import ANSWERS, REQUESTS, MeterOrder, compose_meter
from protocols.lens.naming import class_of, di_of, resolve
from protocols.lens.places import find
from protocols.lens.terminal_composition import TerminalOrder, compose_terminal
from protocols.lens.tree import trees
from protocols.q_gdw376 import items
from tests.protocols.test_lens import E1
from tests.protocols.test_lens_tree import ASK_F161, F161, meter
from tests.protocols.vectors import Vector, valid

METER = "202311050012"
REASON = "a test"

READS = [
    vector
    for vector in valid("dlt645-2007", "dlt645-1997")
    if vector.expected.get("control") in ("11", "01")
    and vector.expected["length"] == (4 if vector.protocol == "dlt645-2007" else 2)
]
# Worked example 15 without its 376.1 frame, and example 11.
TRIP = bytes.fromhex("6812907856341268 1C103533333344444444 4D338C8C566445598016".replace(" ", ""))
ARCHIVE = bytes.fromhex(
    "68E600E600684A140332630204710000020101000100010062 1E12907856341200000000000004 0900000000000010"
    "00000000000000000000000000000000C616".replace(" ", "")
)  # fmt: skip


def order(action: str, *values: str, **others: Any) -> MeterOrder:
    return MeterOrder(**{"address": METER, "action": action, "values": values, **others})


def terminal(*words: str, **others: Any) -> TerminalOrder:
    return TerminalOrder(**{"terminal": "03146332", "words": words, "msa": 1, **others})


# -- 645 ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("vector", READS, ids=str)
def test_a_captured_read_is_built_again(vector: Vector) -> None:
    told = order(
        "read",
        address=vector.expected["address"],
        item=vector.expected["di"],
        edition=vector.protocol.removeprefix("dlt645-"),
    )
    assert compose_meter(told) == vector.raw.lstrip(b"\xfe")


def test_many_reads_were_captured() -> None:
    assert len(READS) > 40


@pytest.mark.parametrize(
    ("told", "raw"),
    [
        (order("read", item="正向有功总电能"), meter(0x11, "00000100")),
        (order("read", item="061001FF", number=1, at=datetime(2022, 8, 25, 13, 0)),
         meter(0x11, "FF0110060100132508 22".replace(" ", ""))),
        (order("read-follow-up", item="00010000", number=2), meter(0x12, "0000010002")),
        (order("answer", "1234.56", item="00010000"), E1),
        (order("answer-refused", "11", "02"), meter(0xD1, "02")),
        (order("answer-refused", "1c", "0020"), meter(0xDC, "2000")),
        (order("answer-done", "14"), meter(0x94, "")),
        (order("answer-relay", "0004"), meter(0x9C, "0400")),
        (order("answer-address"), meter(0x93, "120005112320")),
        (order("read-address", address="AAAAAAAAAAAA"), bytes.fromhex("68AAAAAAAAAAAA681300DF16")),
    ],
    ids=lambda one: one.action if isinstance(one, MeterOrder) else "",
)  # fmt: skip
def test_what_changes_nothing_needs_no_reason(told: MeterOrder, raw: bytes) -> None:
    assert compose_meter(told) == raw


DANGEROUS = [
    (order("trip", at=datetime(2026, 12, 31, 23, 59, 59), operator="11111111"),
     meter(0x1C, "02000000111111111A00595923311226")),
    (order("trip-then-close", at=datetime(2026, 12, 31, 23, 59, 59), operator="11111111", number=10),
     meter(0x1C, "02000000111111111D02595923311226")),
    (order("keep-power", now=datetime(2026, 12, 31, 23, 49, 59), level="04", password="112233"),
     meter(0x1C, "04332211000000003A00595923311226")),
    (order("time", at=datetime(2017, 6, 5, 10, 40, 25)), meter(0x08, "254010050617")),
    (order("freeze"), meter(0x16, "99999999")),
    (order("freeze", "99990000"), meter(0x16, "00009999")),
    (order("speed", "9600"), meter(0x17, "20")),
    (order("write", "04", item="04000204", level="04"), meter(0x14, "04020004" + "0400000000000000" + "04")),
    (order("write-address", "202311050013", address="AAAAAAAAAAAA"),
     bytes.fromhex("68AAAAAAAAAAAA681506") + bytes.fromhex("463338445653") + b"\x89\x16"),
    (order("password", "04", "445566", item="04000C01", level="02", password="112233"),
     meter(0x18, "010C0004" + "02332211" + "04665544")),
    (order("clear-demand"), meter(0x19, "0200000000000000")),
    (order("clear-meter"), meter(0x1A, "0200000000000000")),
    (order("clear-events"), meter(0x1B, "0200000000000000FFFFFFFF")),
    (order("output", "demand period"), meter(0x1D, "01")),
    (order("security", item="070002FF", operator="11111111"), meter(0x03, "FF02000711111111")),
]  # fmt: skip


@pytest.mark.parametrize(("told", "raw"), DANGEROUS, ids=lambda one: getattr(one, "action", ""))
def test_what_changes_a_meter_is_built_only_with_a_reason(told: MeterOrder, raw: bytes) -> None:
    with pytest.raises(LocalProtocolError, match="permit"):
        compose_meter(told)
    built = compose_meter(told, REASON)
    if told.action == "write-address":
        # The checksum is not what this is about.
        assert built[:-2] == raw[:-2]
    else:
        assert built == raw


def test_every_action_that_is_not_reading_was_tried_without_a_reason() -> None:
    reading = {"read", "read-follow-up", "read-address"}
    verbs = {verb.word for verb in Verb}
    tried = {told.action for told, _ in DANGEROUS}
    assert {*REQUESTS, "security"} - reading <= tried
    for verb in verbs:
        with pytest.raises(LocalProtocolError, match="permit"):
            compose_meter(order(verb, at=datetime(2026, 12, 31)))
    assert not set(ANSWERS) & {*REQUESTS, *verbs}


def test_the_trip_of_the_fact_sheet_is_built_byte_for_byte() -> None:
    at = datetime(2026, 12, 31, 23, 59, 59)
    told = order("trip", address="123456789012", at=at, operator="11111111")
    assert compose_meter(told, REASON) == TRIP


@pytest.mark.parametrize("address", ["999999999999", "AAAAAAAAAAAA", "12345678AAAA"])
def test_no_reason_is_enough_to_switch_more_than_one_meter(address: str) -> None:
    with pytest.raises(LocalProtocolError, match="one meter"):
        compose_meter(order("trip", address=address, at=datetime(2026, 12, 31)), REASON)


@pytest.mark.parametrize(
    ("told", "said"),
    [
        (order("dance"), "there is no action 'dance'"),
        (order("read"), "needs an item"),
        (order("read", item="no such thing"), "no item of DL/T 645-2007"),
        (order("read", item="energy"), "may be any item"),
        (order("read", item="00010000", number=100), "N is 0..99"),
        (order("answer", item="00010000"), "needs a value"),
        (order("answer", "x", item="00010000"), "no number"),
        (order("answer-refused", "1"), "two values"),
        (order("answer-refused", "11", "zz"), "not hex"),
        (order("answer-refused", "1111", "02"), "one byte"),
        (order("answer-done", "1414"), "one byte"),
        (order("trip"), "without a deadline"),
        (order("time"), "the time to set"),
        (order("freeze", "tomorrow"), "no freeze time"),
        (order("speed", "1"), "no rate word"),
        (order("speed"), "one value"),
        (order("password", "04", item="04000C01"), "two values"),
        (order("clear-demand", edition="1997"), "not confirmed"),
        (order("output", "light"), "no output"),
        (order("security", "cipher=x", item="070000FF"), "not hex"),
    ],
    ids=str,
)
def test_what_cannot_be_built_says_why(told: MeterOrder, said: str) -> None:
    with pytest.raises(LocalProtocolError, match=said):
        compose_meter(told, REASON)


# -- 376.1 ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("told", "raw"),
    [
        # Worked examples 1, 12, 14.
        (terminal("02", "F1", up=True, con=True, pseq=3, msa=0), "683200320068C91403326300027300000100EB16"),
        (terminal("0d", "F161", points=(1,), values={"td_d": "2026-11-23"}, pseq=2), ASK_F161.hex()),
        (terminal("0C", "f129", points=(9,), pseq=6), "683200320068 4B1403326302 0C6601020110 7F16"),
    ],
    ids=["login", "F161", "F129"],
)
def test_a_worked_example_is_built_again(told: TerminalOrder, raw: str) -> None:
    assert compose_terminal(told) == bytes.fromhex(raw)


def test_an_answer_is_built_from_the_values_that_were_read() -> None:
    values = {
        "td_d": "2026-11-23",
        "read_at": "2026-11-24 00:05",
        "total": "1234.56",
        "tariffs": ["300", "400.5", "500.06", None],
    }
    told = terminal("0D", "F161", up=True, points=(1,), values=values, pseq=2)
    assert compose_terminal(told) == F161


def test_the_archive_of_the_fact_sheet_wants_a_reason() -> None:
    form = items.form_of(0x04, 10, False)
    assert form is not None
    inside = form.decode(ARCHIVE[18:-18])
    told = terminal("04", "F10", values=inside.plain(), con=True, pseq=1)
    with pytest.raises(LocalProtocolError, match="376 04 f10 on 03146332 is dangerous"):
        compose_terminal(told)
    assert compose_terminal(told, REASON) == ARCHIVE


def test_a_class_is_found_by_its_name() -> None:
    assert compose_terminal(terminal("Forward", "active", "energy", "now", points=(9,), pseq=6)) == (
        compose_terminal(terminal("0c", "F129", points=(9,), pseq=6))
    )


def test_a_forwarded_read_needs_no_reason() -> None:
    told = terminal("10", "F1", values={"content": meter(0x11, "00000100").hex()})
    (tree,) = trees(compose_terminal(told))
    assert [node.value for _, node in tree.walk() if node.name == "data identifier DI"] == ["00010000"]


def test_a_forwarded_frame_may_be_given_its_port_and_limits() -> None:
    """Worked example 17: status word 3, over port 2."""
    raw = bytes.fromhex(
        "68CA00CA00684B1403326302106200000100026B64641000 68129078563412681104363833377316"
        "00000000000000000000000000000000AD16".replace(" ", "")
    )
    limits = {"message_timeout": {"value": 100, "seconds": 0}, "byte_timeout": 100}
    inside = "68129078563412681104363833377316"
    told = terminal("10", "F1", values={"port": 2, "content": inside, **limits}, pseq=2)
    assert compose_terminal(told) == raw


@pytest.mark.parametrize("content", [TRIP, meter(0x14, "00" * 12), b"\x68\x11", E1 + TRIP], ids=str)
def test_anything_else_that_is_forwarded_needs_one(content: bytes) -> None:
    told = terminal("10", "F1", values={"content": content.hex()})
    with pytest.raises(LocalProtocolError, match="376 10 f1 on 03146332 is dangerous"):
        compose_terminal(told)
    assert content in compose_terminal(told, REASON)


def test_every_dangerous_class_wants_a_reason_before_anything_else() -> None:
    dangerous = [item for item in items.ITEMS if items.dangerous(item.afn, item.fn)]
    assert {item.afn for item in dangerous} >= {0x01, 0x04, 0x05}
    for item in dangerous:
        with pytest.raises(LocalProtocolError, match="dangerous"):
            compose_terminal(terminal(f"{item.afn:02x}", f"F{item.fn}"))


@pytest.mark.parametrize(
    ("told", "said"),
    [
        (terminal("0d", "F161"), "td_d"),
        (terminal("0d", "F161", values={"td_d": "yesterday"}), "td_d"),
        (terminal("0c", "F129", values={"total": "1"}), "total"),
        (terminal("ff", "F1", values={"total": "1"}), "carries no values"),
        (terminal("no", "such", "class"), "no information class"),
        (terminal("energy"), "may be any information class"),
        (terminal("05", "F31", values={"clock": "2026-11-24 10:00:00"}, password=b"\x00"), "PW has 16 bytes"),
    ],
    ids=str,
)
def test_what_a_terminal_cannot_be_asked_says_why(told: TerminalOrder, said: str) -> None:
    with pytest.raises(LocalProtocolError, match=said):
        compose_terminal(told, REASON)


def test_the_older_frame_has_its_own_id_and_password() -> None:
    told = terminal("05", "F2", protocol_id=1)
    (place,) = find(compose_terminal(told, REASON)).frames
    assert place.end == 8 + 8 + 4 + 2


# -- names ----------------------------------------------------------------------------------------


def test_names_are_found_in_both_languages_and_digits_stand_for_themselves() -> None:
    assert di_of("A相电压", "2007") == "02010100"
    assert di_of("phase a VOLTAGE", "2007") == "02010100"
    assert di_of("9010", "1997") == "9010"
    assert di_of("0001FF00", "2007") == "0001ff00"
    assert class_of("终端日历时钟", up=False) == (0x0C, 2)


def test_a_part_of_a_name_is_enough_only_where_one_has_it() -> None:
    named = [("1", "red apple", "红苹果"), ("2", "green apple", "青苹果"), ("3", "apple", "苹果")]
    assert resolve("green", named, "fruit") == "2"
    assert resolve("Apple", named, "fruit") == "3"
    assert resolve("苹果 red", named, "fruit") == "1"
    with pytest.raises(LocalProtocolError, match="any fruit of 2: 1 red apple; 2 green apple"):
        resolve("apple re", [*named[:1], ("2", "green apple", "")], "fruit")
    with pytest.raises(LocalProtocolError, match="no fruit"):
        resolve("", named, "fruit")
