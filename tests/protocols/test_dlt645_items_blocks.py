"""Load-profile records, freeze blocks, blocks with FF, records by hand, and what they refuse."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.dlt645 import items, records
from protocols.errors import LocalProtocolError, RemoteProtocolError
from tests.protocols.timing import seconds


def texts(di: str, data: str, edition: str = "2007", content: int | None = None) -> list[str | None]:
    return [value.value for value in items.decode(di, bytes.fromhex(data), edition, content=content)]


def with_checksum(record: str) -> str:
    """A record up to its checksum, with checksum and E5H."""
    return f"{record}{sum(bytes.fromhex(record)) & 0xFF:02x}e5"


# Worked example E18 of the standard's load profile: class 1 and five classes switched off.
E18 = "a0a01c00122411260422102298212351008749005050009949aaaaaaaaaaaa9ce5"
CLASS_1 = ["220.4", "221.0", "219.8", "5.123", "4.987", "5.050", "49.99"]


def test_a_load_profile_record_reads_class_by_class() -> None:
    values = items.decode("06010001", bytes.fromhex(E18))
    assert [value.value for value in values] == ["a0a0", "2026-11-24 12:00", *CLASS_1]
    assert [value.unit for value in values] == ["", "", "V", "V", "V", "A", "A", "A", "Hz"]
    assert [value.offset for value in values] == [0, 3, 8, 10, 12, 14, 17, 20, 23]
    assert values[5].name_zh.endswith(":A相电流")
    assert texts("06010001", E18, content=0b1) == texts("06000001", E18)
    assert items.encode("06010001", [value.value for value in values]).hex() == E18
    assert items.encode("06000001", [value.value for value in values], content=0b1).hex() == E18


# By hand: classes 3 and 6 on, the others AA; current 1.000 0.990 1.000 1.000, -1.2345 kW, 0.5000 kvar.
CLASSES_3_AND_6 = with_checksum(
    "a0a0" + "19" + "0012241126" + "aaaa" + "0010900900100010" + "aa" + "aaaa" + "452381005000" + "aa"
)
VALUES_3_AND_6 = ["a0a0", "2026-11-24 12:00", "1.000", "0.990", "1.000", "1.000", "-1.2345", "0.5000"]


def test_a_class_that_is_off_is_told_by_its_aa_or_by_the_mode_word() -> None:
    assert texts("06000002", CLASSES_3_AND_6) == VALUES_3_AND_6
    assert texts("06000002", CLASSES_3_AND_6, content=0b100100) == VALUES_3_AND_6
    assert items.encode("06000002", VALUES_3_AND_6, content=0b100100).hex() == CLASSES_3_AND_6
    with pytest.raises(RemoteProtocolError, match="class 1 does not end with AAH"):
        texts("06000002", CLASSES_3_AND_6, content=0b100101)
    with pytest.raises(RemoteProtocolError, match="class 3 does not end with AAH"):
        texts("06000002", CLASSES_3_AND_6, content=0b100000)


def test_a_value_of_aa_is_no_separator_where_the_mode_word_is_known() -> None:
    # Class 3 whose second power factor is AA AA: corrupt, and told as such at its place.
    record = with_checksum("a0a0" + "13" + "0012241126" + "aaaa" + "0010aaaa00100010" + "aaaaaaaa")
    with pytest.raises(RemoteProtocolError, match="not BCD") as caught:
        texts("06000001", record, content=0b100)
    assert caught.value.offset == 12


def test_several_records_are_counted_and_a_bad_one_keeps_its_mark() -> None:
    bad = with_checksum("e0e0" + E18[4:-4])
    values = items.decode("06010000", bytes.fromhex(E18 + bad))
    assert [value.value for value in values] == [
        "a0a0", "2026-11-24 12:00", *CLASS_1, "e0e0", "2026-11-24 12:00", *CLASS_1,
    ]  # fmt: skip
    assert values[0].name_en.endswith("record mark, record 1")
    assert values[9].name_zh.endswith("记录标志(第2条)")
    assert items.encode("06010000", [value.value for value in values]).hex() == E18 + bad


def test_five_aa_and_a_class_alone_are_records_too() -> None:
    five = with_checksum("a0a01b" + E18[6:-6])
    assert texts("06010001", five) == texts("06010001", E18)
    class_2 = "000001" * 8
    for ends, length in (("aa", "1e"), ("", "1d")):
        alone = with_checksum(f"a0a0{length}0012241126{class_2}{ends}")
        assert texts("06020001", alone) == ["a0a0", "2026-11-24 12:00", *8 * ["1.0000"]]


def test_no_record_is_no_value() -> None:
    assert items.decode("06010001", b"") == ()
    assert items.encode("06010001", []) == b""


@pytest.mark.parametrize(
    ("record", "offset", "reason"),
    [
        ("a1a0" + E18[4:], 0, "no record begins here"),
        ("a0", 0, "no record begins here"),
        ("a0a0", 2, "cut off"),
        (E18[:-2], 32, "cut off"),
        (E18[:-4] + "9de5", 31, "checksum"),
        (E18[:-2] + "e6", 32, "E5H"),
        (with_checksum("a0a00400122411"), 7, "no time"),
        (with_checksum("a0a01d" + E18[6:-4] + "aa"), 31, "longer than its classes"),
        (with_checksum("a0a006" + "0012241126" + "01"), 9, "class 1 does not end"),
        (E18 + "00", 33, "no record begins here"),
    ],
)
def test_a_damaged_record_says_where(record: str, offset: int, reason: str) -> None:
    with pytest.raises(RemoteProtocolError, match=reason) as caught:
        texts("06000001", record)
    assert caught.value.offset == offset


@given(st.binary(max_size=120), st.sampled_from(["06000001", "06030000"]), st.none() | st.integers(0, 255))
def test_any_payload_in_a_sound_record_is_values_or_the_peers_fault(
    payload: bytes, di: str, content: int | None
) -> None:
    record = with_checksum("a0a0" + bytes([len(payload)]).hex() + payload.hex())
    try:
        values = items.decode(di, bytes.fromhex(record), content=content)
    except RemoteProtocolError:
        return
    assert values[0].raw == b"\xa0\xa0"
    for value in values:
        assert bytes.fromhex(record)[value.offset : value.offset + len(value.raw)] == value.raw


def test_many_records_read_in_linear_time() -> None:
    def read(count: int) -> None:
        assert len(items.decode("06010001", bytes.fromhex(E18) * count)) == 9 * count

    # 50 kB: all that follow-up frames can carry.
    assert seconds(lambda: read(1500)) < 3 * 5 * seconds(lambda: read(300))


# A daily freeze with one tariff (total and T1): its items by hand, in the order of DI1.
FREEZE_ITEMS = [
    "0000241126",
    "5634120000010000",
    "0000000000000000",
    "0000008000000000",
    "0100000001000080",
    *4 * ["1000000020000000"],
    "21430545182011260000000000000000",
    "00000000000000000000000000000000",
    "000001" * 3 + "000081" * 5,
]
FREEZE = [
    "2026-11-24 00:00", "1234.56", "1.00", "0.00", "0.00", "0.00", "0.00", "0.01", "-0.01",
    *4 * ["0.10", "0.20"], "5.4321", "2026-11-20 18:45", "0.0000", None, "0.0000", None, "0.0000", None,
    *3 * ["1.0000"], *5 * ["-1.0000"],
]  # fmt: skip


@pytest.mark.parametrize("joint", ["", "aa"])
@pytest.mark.parametrize("last", ["", "aa"])
def test_a_freeze_block_reads_with_aa_between_its_items_or_without(joint: str, last: str) -> None:
    if last and not joint:
        return
    data = joint.join(FREEZE_ITEMS) + last
    for di in ("0506ff01", "0500ff3c", "0505ff02"):
        values = items.decode(di, bytes.fromhex(data))
        assert [value.value for value in values] == FREEZE
        for value in values:
            assert bytes.fromhex(data)[value.offset : value.offset + len(value.raw)] == value.raw
    values = items.decode("0506ff01", bytes.fromhex(data))
    assert values[1].name_en == "Daily freeze forward active energy, last 1, total"
    assert values[2].name_zh == "(上1次)日冻结正向有功电能数据(费率1)"
    assert values[-1].unit == "kvar"


def test_the_items_of_a_freeze_block_come_in_the_order_of_their_identifiers() -> None:
    values = items.decode("0506ff01", bytes.fromhex("".join(FREEZE_ITEMS)))
    told = [
        value.name_en.removeprefix("Daily freeze ") for value in values if "tariff 1" not in value.name_en
    ]
    assert [name.partition(", last 1")[0] for name in told][:9] == [
        "time", "forward active energy", "reverse active energy", "combined reactive 1 energy",
        "combined reactive 2 energy", "Q1 reactive energy", "Q2 reactive energy", "Q3 reactive energy",
        "Q4 reactive energy",
    ]  # fmt: skip


def test_a_freeze_block_with_something_else_for_aa_is_kept_as_it_came() -> None:
    data = "ab".join(FREEZE_ITEMS)
    assert texts("0506ff01", data) == [data]


def test_a_freeze_block_is_written_without_separators() -> None:
    texts_ = ["2026-11-24 00:00", *8 * ["1.00"] * 3, *6 * ["1.0000", "2026-11-20 18:45"], *8 * ["-2.0000"]]
    data = items.encode("0506ff01", texts_)
    assert len(data) == 5 + 8 * 12 + 2 * 24 + 24
    assert [value.value for value in items.decode("0506ff01", data)] == texts_


def test_the_mode_word_says_which_items_a_freeze_block_has() -> None:
    block = (
        FREEZE_ITEMS[0] + FREEZE_ITEMS[1] + FREEZE_ITEMS[9]
    )  # forward energy and forward demand: bits 0 and 5
    expected = [*FREEZE[:3], *FREEZE[17:21]]
    assert texts("0506ff01", block, content=0b100001) == expected
    assert (
        texts("0506ff01", "aa".join([FREEZE_ITEMS[0], FREEZE_ITEMS[1], FREEZE_ITEMS[9]]), content=0b100001)
        == expected
    )
    # Not told which: one value, as it came; and told wrongly: damage.
    assert texts("0506ff01", block) == [block]
    assert items.encode("0506ff01", [block]).hex() == block
    with pytest.raises(RemoteProtocolError, match="do not fit"):
        texts("0506ff01", block + "00", content=0b100001)
    assert texts("0506ff01", FREEZE_ITEMS[0], content=0) == FREEZE[:1]
    written = ["2026-11-24 00:00", "1.00", "2.00", "1.0000", "2026-11-20 18:45", "1.0000", None]
    data = items.encode("0506ff01", written, content=0b100001)
    assert [value.value for value in items.decode("0506ff01", data, content=0b100001)] == written
    with pytest.raises(LocalProtocolError):
        items.encode("0506ff01", written)


def test_an_hourly_freeze_block_is_thirteen_bytes() -> None:
    assert texts("0504ff01", "0010241126" + "56341200" + "00000001") == [
        "2026-11-24 10:00", "1234.56", "10000.00",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("di", "data", "expected"),
    [
        # DI0: relay trip times, newest first; as many as came.
        ("1d0001ff", "304518201126" + "000000010126", ["2026-11-20 18:45:30", "2026-01-01 00:00:00"]),
        # DI0 over items of different lengths: date and weekday, time, demand period, sliding time.
        ("040001ff", "02241126" + "305923" + "15" + "05", ["2026-11-24 02", "23:59:30", "15", "5"]),
        ("04000bff", "0001" + "9999" + "0015", ["01 00", None, "15 00"]),
        ("040007ff", "0408102020", ["04", "08", "10", "20", "20"]),
        # DI1: order 1 of the voltage harmonics of phases A, B, C; counts of the operation logs.
        ("020aff01", "100020003000", ["0.10", "0.20", "0.30"]),
        ("0330ff00", "010000" + "020000", ["1", "2"]),
        # DI2: totals of the first three energies; combined active has a sign.
        ("00ff0000", "56341280" + "56341200" + "00000090", ["-1234.56", "1234.56", "900000.00"]),
        # DI0 of a register: now and two settlement dates back.
        ("000100ff", "010000000200000003000000", ["0.01", "0.02", "0.03"]),
    ],
)
def test_ff_in_any_place_reads_the_items_along_it(di: str, data: str, expected: list[str | None]) -> None:
    assert texts(di, data) == expected
    assert items.encode(di, expected).hex() == data or None in expected
    with pytest.raises(RemoteProtocolError):
        texts(di, data + "00")
    with pytest.raises(RemoteProtocolError):
        texts(di, "")


def test_the_values_of_a_block_are_named_after_their_items() -> None:
    values = items.decode("00ff0000", bytes(4 * 11))
    assert values[1].name_en == "(current) Forward (import) active energy, total"
    assert values[10].name_en == "(current) Reverse apparent energy, total"
    values = items.decode("040001ff", bytes.fromhex("02241126305923"))
    assert [value.name_zh for value in values] == ["日期及星期", "时间"]


@pytest.mark.parametrize("di", ["0001ffff", "00ffff00", "050601ff", "0401ff01", "06ff0001"])
def test_a_block_whose_order_nobody_tells_is_kept_as_it_came(di: str) -> None:
    item = items.lookup(di)
    assert item is not None
    assert item.confidence == "unconfirmed"
    assert texts(di, "0102ff") == ["0102ff"]
    assert items.encode(di, ["0102ff"]).hex() == "0102ff"


@pytest.mark.parametrize(
    ("di", "data", "expected"),
    [
        ("b61f", "200221022202", ["220", "221", "222"]),
        ("b61f", "200221022202aa", ["220", "221", "222"]),
        ("b63f", "000001" * 4, 4 * ["1.0000"]),
        ("c32f", "010105" + "020907", ["05-01 01", "07-09 02"]),
        ("c33f", "010008" + "020012aa", ["08:00 01", "12:00 02"]),
        ("901f", "01000000" + "02000000aa", ["0.01", "0.02"]),
        ("b6ff", "2002" * 3 + "0005" * 3, [*3 * ["220"], *3 * ["5.00"]]),
        ("90ff", "0102", ["0102"]),
    ],
)
def test_1997_blocks(di: str, data: str, expected: list[str]) -> None:
    assert texts(di, data, "1997") == expected
    assert items.encode(di, expected, "1997").hex() == data.removesuffix("aa")


def test_an_event_record_by_hand() -> None:
    # Programming record: two identifiers, the other slots empty.
    data = "304518201126" + "01000000" + "01010004" + "03050004" + "ff" * 32
    assert texts("03300001", data) == ["2026-11-20 18:45:30", "00000001", "04000101", "04000503", *8 * [None]]
    assert items.encode("03300001", texts("03300001", data)).hex() == data
    values = items.decode("03300001", bytes.fromhex(data))
    assert values[2].name_en == "Programming record, last 1: data identifier 1"
    assert values[1].name_zh == "(上1次)编程记录:操作者代码"
    # Clock set: operator first.
    data = "01000000" + "000012241126" + "051012241126"
    assert texts("03300402", data) == ["00000001", "2026-11-24 12:00:00", "2026-11-24 12:10:05"]


def test_a_loss_of_voltage_record_names_phases_and_units() -> None:
    data = bytes(12) + b"\x11" * 119
    values = items.decode("03010101", data)
    assert len(values) == 37
    assert values[0].value is None  # never recorded
    at = {value.name_en.partition(": ")[2]: value for value in values}
    assert (at["voltage of phase A at start"].value, at["voltage of phase A at start"].unit) == ("111.1", "V")
    assert at["active power of phase C at start"].offset == 12 + 16 + 2 * 29 + 16 + 5
    assert at["ampere-hours of phase C"].unit == "Ah"


def test_layouts_that_sources_dispute_are_told_apart_by_their_length() -> None:
    times = "304518201126" * 2
    assert texts("03090001", times + "3412" + "00" * 64)[2] == "12.34"
    assert texts("03090001", times + "341200" + "00" * 64)[2] == "12.34"
    assert len(texts("03100101", "00" * 3 + "3412" + "00" * 20)) == 9
    assert texts("03100101", "00" * 3 + "341200" + "00" * 21)[1] == "12.34"
    assert texts("1d00ff01", "11" * 38) == ["11" * 38]
    assert texts("04040101", "00ff0100" + "03") == ["0001ff00", "3"]
    wide = items.encode("03090001", texts("03090001", times + "341200" + "00" * 64), length=79)
    assert wide.hex() == times + "341200" + "00" * 64
    with pytest.raises(LocalProtocolError):
        items.encode("03090001", texts("03090001", times + "3412" + "00" * 64), length=80)
    # Too much for two bytes: the layout with three is written.
    assert len(items.encode("03090001", [*texts("03090001", wide.hex())[:2], "123.45", *16 * ["0.00"]])) == 79
    for length in (77, 80):
        with pytest.raises(RemoteProtocolError):
            items.decode("03090001", bytes(length))


def test_security_messages_read_in_both_directions() -> None:
    # Worked example E13: identity authentication with stand-ins for cipher and random numbers.
    down = "0102030405060708" + "1112131415161718" + "1200051123200000"
    assert texts("070000ff", down) == ["0807060504030201", "1817161514131211", "0000202311050012"]
    up = "a1a2a3a4" + "b1b2b3b4b5b6b7b8"
    assert texts("070000ff", up) == ["a4a3a2a1", "b8b7b6b5b4b3b2b1"]
    for data in (down, up):
        assert items.encode("070000ff", texts("070000ff", data)).hex() == data
    assert items.decode("070001ff", b"") == ()
    assert items.encode("070001ff", []) == b""
    assert texts("070001ff", "0500" + "01020304") == ["5", "04030201"]
    read_back = "0800" + "0000" + "0100" + "01df"
    assert texts("078001ff", read_back) == ["0008", "0000", "0001", "df01"]
    assert texts("078001ff", read_back + "0102030405060708" + "0a0b0c0d")[4:] == [
        "0102030405060708",
        "0d0c0b0a",
    ]
    with pytest.raises(RemoteProtocolError):
        texts("078001ff", read_back + "0a0b0c0d")


@pytest.mark.parametrize(
    ("di", "values"),
    [
        ("06010001", ["a0a0", "2026-11-24 12:00"]),
        ("06010001", ["a1a1", "2026-11-24 12:00", *CLASS_1]),
        ("06010001", ["a0a0", "2026-13-24 12:00", *CLASS_1]),
        ("06000001", ["a0a0", "2026-11-24 12:00", *CLASS_1]),
        ("0506ff01", ["2026-11-24 00:00", "1.00"]),
        ("0506ff01", ["not hex"]),
        ("03360001", ["not hex"]),
        ("1d00ff01", ["11" * 37]),
        ("078001ff", ["0008", "0000", "0001", "df01", None, "0d0c0b0a"]),
        ("00ff0000", []),
        ("00ff0000", ["-1.00", "-1.00"]),
        ("040001ff", ["2026-11-24 02", "23:59:60"]),
        ("04000b01", ["1999-01"]),
        ("05060001", ["1926-11-24 00:00"]),
        ("05060001", ["2026-11-24T00:00"]),
        ("05060001", ["2026-02-30 00:00"]),
        ("00010000", ["1e2"]),
        ("00010000", ["1e999999999"]),
        ("00010000", ["1.000000000000000000000000000000001"]),
        ("00010000", ["+1"]),
        ("00010000", [".5"]),
        ("00010000", ["-1e999999999"]),
        ("00010000", ["1e-999999999"]),
        ("04000401", ["１２３４５６７８９０１２"]),
    ],
)
def test_what_cannot_be_is_not_written(di: str, values: list[str | None]) -> None:
    with pytest.raises(LocalProtocolError):
        items.encode(di, values)


def test_a_settlement_date_that_is_not_used_can_be_written() -> None:
    assert items.encode("04000b01", ["99 99"]).hex() == "9999"


def test_what_is_remembered_is_bounded_and_short() -> None:
    items._plan.cache_clear()
    for size in range(4, 400, 4):
        items.decode("0001ff00", bytes(size))
    assert items._plan.cache_info().currsize == items._SHORT // 4
    assert items._plan.cache_info().maxsize == items._REMEMBERED


@pytest.mark.parametrize("text", ["time", "time/时间", "a/甲:BYTES* + b/乙:BYTES*", "/:XX"])
def test_a_form_that_cannot_be_read_says_so(text: str) -> None:
    with pytest.raises(ValueError, match=r"is no field|two parts"):
        records.compile_form(text)
