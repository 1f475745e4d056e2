"""The tree of a frame, held to the bytes of the field frames and to what their file says of them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.lens.node import Node
from protocols.lens.places import find, settled
from protocols.lens.tree import trees
from tests.fuzz.mutations import repair
from tests.protocols.test_field_frames import DISPUTED
from tests.protocols.test_lens import RESERVED
from tests.protocols.vectors import Vector, valid, vectors

FAMILIES = ("dlt645-2007", "dlt645-1997", "qgdw376.1")
GOOD = [one for one in valid(*FAMILIES) if one.id != RESERVED]
E1 = bytes.fromhex("6812000511232068910833333433896745330916")
# Worked examples 8, 10, 12 and 13 of the 376.1 fact sheet.
CONFIRM = bytes.fromhex("684A004A00680B14033263000063000004000200000100002116")
SET_CLOCK = bytes.fromhex(
    "68 A2 00 A2 00 68 4A 14 03 32 63 02 05 F5 00 00 40 03 30 15 08 24 51 26 00 00 00 00 00 00 00 00 00 00 00"
    "00 00 00 00 00 05 30 15 08 24 05 98 16"
)
ASK_F161 = bytes.fromhex("683E003E00684B14033263020D6201010114231126D916")
F161 = bytes.fromhex(
    "68BA00BA00688814033263020D6201010114231126050024112604005634120000000003000050000400000600"
    "0500EEEEEEEEEE1E16"
)


def root(data: bytes) -> Node:
    (tree,) = trees(data)
    return tree


def nodes(data: bytes, name: str) -> list[Node]:
    """All fields of that name, from top to bottom."""
    return [node for _, node in root(data).walk() if node.name == name]


def only(data: bytes, name: str) -> Node:
    (node,) = nodes(data, name)
    return node


@pytest.mark.parametrize("vector", GOOD, ids=str)
def test_the_parts_of_a_frame_are_all_of_its_bytes_in_order(vector: Vector) -> None:
    tree = root(vector.raw)
    assert tree.raw == vector.raw.lstrip(b"\xfe")
    at = tree.offset
    assert at is not None
    for part in tree.children:
        assert part.offset == at, part.name
        at += len(part.raw)
    assert at == len(vector.raw)


def own_bytes(node: Node, masked: bool) -> list[tuple[Node, bool]]:
    """Every node with bytes of its own; True where they are shown without their 33H."""
    inside = masked or node.name.startswith("data, shown")
    found = [(node, masked)] if node.offset is not None else []
    return found + [pair for child in node.children for pair in own_bytes(child, inside)]


@pytest.mark.parametrize("vector", GOOD, ids=str)
def test_every_field_has_the_bytes_that_stand_at_its_place(vector: Vector) -> None:
    for node, masked in own_bytes(root(vector.raw), False):
        assert node.offset is not None
        there = vector.raw[node.offset : node.offset + len(node.raw)]
        if masked:
            there = bytes((byte - 0x33) & 0xFF for byte in there)
        assert node.raw == there, node.name


@pytest.mark.parametrize("vector", GOOD, ids=str)
def test_what_the_file_says_of_a_frame_stands_in_its_tree(vector: Vector) -> None:
    said = {node.name: node for _, node in reversed(list(root(vector.raw).walk()))}
    expected = vector.expected
    if vector.protocol == "qgdw376.1":
        assert said["address A"].value == expected["terminal"]
        assert said["AFN"].value == expected["afn"]
        assert said["DIR"].value == str(expected["dir"])
        assert said["PRM"].value == str(expected["prm"])
        assert said["PSEQ" if expected["prm"] else "RSEQ"].value == str(expected["pseq"])
        assert said["master MSA"].value == str(expected["msa"])
    else:
        assert said["address"].value == expected["address"]
        assert said["control code C"].value == expected["control"]
        assert said["data length L"].value == str(expected["length"])
        if "di" in expected:
            assert said["data identifier DI"].value == expected["di"]


@pytest.mark.parametrize(
    "vector",
    [
        v
        for v in GOOD
        if isinstance(v.expected.get("value"), str) and not {"value", "unit"} & set(DISPUTED.get(v.id, {}))
    ],
    ids=str,
)
def test_the_value_of_an_item_has_its_bytes_and_unit(vector: Vector) -> None:
    found = [node for _, node in root(vector.raw).walk() if node.value == vector.expected["value"]]
    assert any(node.unit == vector.expected.get("unit", "") for node in found)


def test_there_are_field_frames_with_values() -> None:
    assert sum(isinstance(v.expected.get("value"), str) for v in GOOD) > 20


@pytest.mark.parametrize(
    ("identifier", "names"),
    [
        ("gw-071", ["330.2000", "0.0000", "0.0000", "0.0000", "0.0000"]),
        ("gw-061", ["1.1173", "0.3725", "0.3725", "0.3724"]),
    ],
)
def test_the_values_of_a_captured_answer_stand_in_order(identifier: str, names: list[str]) -> None:
    (vector,) = (v for v in vectors() if v.id == identifier)
    told = [node.value for _, node in root(vector.raw).walk() if node.unit.startswith("kW")]
    assert told == names


def test_a_field_of_a_unit_has_place_unit_clause_and_both_names() -> None:
    total = only(F161, "total")
    assert (total.offset, total.raw.hex(), total.value, total.unit) == (27, "0056341200", "1234.5600", "kWh")
    assert total.clause == "Q/GDW 376.1 A.14"
    assert total.name_zh
    last = [node for _, node in root(F161).walk() if node.unit == "kWh"][-1]
    assert (last.value, last.raw.hex()) == (None, "eeeeeeeeee")


def test_points_and_classes_are_told_with_their_bytes() -> None:
    assert [only(ASK_F161, name).value for name in ("points DA", "classes DT")] == ["p1", "F161"]
    assert only(ASK_F161, "td_d").value == "2026-11-23"


def test_a_tag_that_stands_once_for_two_points_is_shown_with_each() -> None:
    user = bytes.fromhex("4B14033263020D62" + "03010114" + "231126")
    length = (len(user) << 2 | 2).to_bytes(2, "little")
    raw = b"\x68" + length * 2 + b"\x68" + user + bytes([sum(user) & 0xFF, 0x16])
    assert [node.value for node in nodes(raw, "td_d")] == ["2026-11-23"] * 2
    assert only(raw, "points DA").value == "p1, p2"


def test_a_confirm_names_what_it_answers_and_the_error() -> None:
    assert only(CONFIRM, "AFN answered").value == "02"
    error = only(CONFIRM, "p0 F1 ERR")
    assert (error.value, error.meaning, error.meaning_zh) == ("0", "done", "正确")
    assert error.raw.hex() == "0000010000"


def test_password_time_label_and_event_counters_are_apart() -> None:
    assert only(SET_CLOCK, "password PW").raw == bytes(16)
    assert only(SET_CLOCK, "sent at").value == "24 08:15:30"
    assert (only(SET_CLOCK, "permitted delay").value, only(SET_CLOCK, "permitted delay").unit) == ("5", "min")
    answer = bytes.fromhex("6839003900" + "68A8053506080000600000010084 3C1116".replace(" ", ""))
    assert [only(answer, name).value for name in ("EC1, important events", "EC2, normal events")] == [
        "132",
        "60",
    ]


def test_an_event_record_is_named_and_told_by_its_form() -> None:
    (vector,) = (v for v in vectors() if v.id == "gw-058")
    told = {node.name: node for _, node in root(vector.raw).walk()}
    record = next(node for name, node in told.items() if name.startswith("ERC14"))
    assert record.meaning == "needs a person"
    assert (told["off"].value, told["on"].value) == ("2010-07-31 14:40:00", "2010-08-03 11:31:00")
    assert told["pn"].value == "1"


def test_an_event_that_does_not_fit_its_form_is_raw_with_the_reason() -> None:
    (vector,) = (v for v in vectors() if v.id == "gw-059")
    (record,) = (node for _, node in root(vector.raw).walk() if node.name.startswith("ERC36"))
    assert record.meaning
    assert record.children[-1].value == "1814020810000101000000000088ffff54171401020810"


def test_a_forwarded_frame_stands_inside_its_unit_at_its_own_place() -> None:
    (vector,) = (v for v in vectors() if v.id == "gw-013")
    (inner,) = nodes(vector.raw, "dlt645-2007")
    assert vector.raw[inner.offset :][: len(inner.raw)] == inner.raw
    (word,) = [node for _, node in inner.walk() if node.value == "0050"]
    bits = {bit.name: bit for bit in word.children}
    assert (bits["bit 4: relay state"].value, bits["bit 4: relay state"].meaning) == ("1", "open")
    assert bits["bits 1-2: supply"].meaning == "mains"
    assert all(bit.name_zh for bit in word.children)


def units(afn: int, body: str, up: bool = True) -> bytes:
    """A 376.1 frame around data units written out by hand."""
    user = (
        bytes([0x88 if up else 0x4B]) + bytes.fromhex("1403326302") + bytes([afn, 0x60]) + bytes.fromhex(body)
    )
    length = (len(user) << 2 | 2).to_bytes(2, "little")
    return b"\x68" + length * 2 + b"\x68" + user + bytes([sum(user) & 0xFF, 0x16])


@pytest.mark.parametrize(
    ("body", "rest", "reason"),
    [
        ("0000010003000002" + "630101" + "02", "02", "cut short"),
        ("0000010003000002" + "630101", "", "2 records are told, 1 are there"),
    ],
)
def test_events_that_are_not_as_many_as_told_are_shown_with_the_reason(
    body: str, rest: str, reason: str
) -> None:
    told = {node.name: node for _, node in root(units(0x0E, body)).walk()}
    assert told["ERC99"].meaning == "ERC not in the list of events"
    assert told["ERC99"].children[-1].value == "01"
    assert reason in told["rest"].meaning
    assert told["rest"].raw.hex() == rest


def test_security_fields_of_another_length_are_shown_raw() -> None:
    assert only(meter(0x83, "FF00000704"), "data").value == "04"


@pytest.mark.parametrize(("body", "data"), [("000001000300", "0300"), ("000002FF0102", "0102")])
def test_units_that_cannot_be_read_are_shown_raw(body: str, data: str) -> None:
    told = [node.value for _, node in root(units(0x0E, body)).walk() if node.name == "data"]
    assert told == [data]


def test_a_class_that_is_in_no_list_is_shown_raw_with_the_reason() -> None:
    (unit,) = nodes(units(0xA4, "000008010102"), "data unit")
    assert unit.meaning
    assert unit.children[-1].value == "0102"


# -- the data fields of 645 -----------------------------------------------------------------------


def meter(control: int, data: str) -> bytes:
    """A 645 frame written out by hand."""
    plain = bytes.fromhex(data)
    head = bytes.fromhex("68120005112320 68".replace(" ", "")) + bytes([control, len(plain)])
    summed = head + bytes((byte + 0x33) & 0xFF for byte in plain)
    return summed + bytes([sum(summed) & 0xFF, 0x16])


@pytest.mark.parametrize(
    ("control", "data", "told"),
    [
        (0x08, "254010050617", {"time": "2017-06-05 10:40:25"}),
        (0x12, "0000010005", {"sequence SEQ": "5"}),
        (0x11, "0101100601001325 0822", {"number of blocks N": "1", "from time": "2022-08-25 13:00"}),
        (0x16, "99999999", {"freeze time": "99999999"}),
        (0x17, "20", {"rate word Z": "20"}),
        (
            0x1C,
            "02000000111111111A00595923311226",
            {
                "password level PA": "02",
                "operator code": "11111111",
                "command N1": "1a",
                "valid until N3..N8": "2026-12-31 23:59:59",
            },
        ),
        (0x1C, "98000001" + "11111111" + "00" * 20, {"cipher and MAC": "00" * 20}),
        (0x1B, "0200000011111111FFFFFFFF", {"data identifier DI": "ffffffff"}),
        (0x18, "010C0004" + "02332211" + "02665544", {"new password P0P1P2": "445566"}),
        (0x9C, "0400", {"execution word": "0004"}),
        (0xDC, "2000", {"error word": "0020"}),
        (0xD1, "02", {"error word": "02"}),
        (0x9D, "01", {"output signal": "01"}),
        (0x83, "FF000007" + "04030201" + "0807060504030201", {"random": "01020304"}),
    ],
)
def test_the_fields_of_a_function(control: int, data: str, told: dict[str, str]) -> None:
    raw = meter(control, data.replace(" ", ""))
    for name, value in told.items():
        assert only(raw, name).value == value


@pytest.mark.parametrize(
    ("control", "data", "words"),
    [
        (0x1C, "02000000111111111A00595923311226", ("trip", "跳闸")),
        (0xDC, "20", ("too many day periods", "日时段数超")),
        (0xDC, "2000", ("trip refused: keep-power is on", "保电状态，拒绝跳闸")),
        (0x16, "00129999", ("every day at 12:00", "每日12:00")),
        (0x16, "99999999", ("at once", "瞬时冻结")),
        (0x16, "30999999", ("every hour at minute 30", "每小时30分")),
        (0x16, "00120199", ("every month on day 01 at 12:00", "每月01日12:00")),
        (0x16, "00120103", ("03-01 12:00", "")),
        (0xB1, "00FF0100" + "56", ("read data: reply, more follows", "读数据：从站应答，有后续帧")),
        (0x17, "20", ("9600 bit/s", "")),
        (0x9C, "0400", ("direct trip", "直接跳闸")),
    ],
)
def test_codes_are_told_in_words_of_both_languages(control: int, data: str, words: tuple[str, str]) -> None:
    assert words in [(node.meaning, node.meaning_zh) for _, node in root(meter(control, data)).walk()]


@pytest.mark.parametrize(("control", "data"), [(0x1C, "0201"), (0x1E, "AABB"), (0x08, "25"), (0x91, "00")])
def test_data_that_fit_no_function_are_shown_raw(control: int, data: str) -> None:
    assert only(meter(control, data), "data").value == data.lower()


def test_an_item_whose_digits_are_none_says_so() -> None:
    node = next(
        node for _, node in root(meter(0x91, "00000100" + "5634FA00")).walk() if node.meaning == "not BCD"
    )
    assert node.raw.hex() == "5634fa00"


# -- streams and any bytes ------------------------------------------------------------------------


@pytest.mark.parametrize("vector", GOOD, ids=str)
def test_a_stream_is_settled_only_when_its_frame_is_whole(vector: Vector) -> None:
    for length in range(1, len(vector.raw)):
        assert settled(vector.raw[:length]) == 0
    assert settled(vector.raw) == len(vector.raw)
    assert settled(b"\x11\x22" + vector.raw[:-1]) == 2
    assert settled(vector.raw + b"\xfe\x68") == len(vector.raw)


@given(st.sampled_from(GOOD), st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), max_size=6))
def test_any_content_of_a_frame_makes_a_tree(vector: Vector, changes: list[tuple[int, int]]) -> None:
    raw = bytearray(vector.raw.lstrip(b"\xfe"))
    for place, value in changes:
        raw[place % len(raw)] = value
    damaged = bytes(raw)
    repair(raw, lengths=False)
    for data in (damaged, bytes(raw)):
        assert len(trees(data)) == len(find(data).frames)
        for tree in trees(data):
            assert all(isinstance(node.name, str) for _, node in tree.walk())
