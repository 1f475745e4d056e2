"""The bits of status, feature, error and execution words by name."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import protocols.dlt645
from protocols.dlt645 import flags, items
from protocols.dlt645.flags import Flag

_CSV = Path(protocols.dlt645.__file__).with_name("flags.csv")


def states(word: str, value: int) -> dict[str, str]:
    return {flag.name_en: flag.state_en for flag in flags.flags(word, value)}


def set_names(word: str, value: int) -> list[str]:
    return [flag.name_en for flag in flags.flags(word, value) if flag.value]


def test_status_word_3_after_a_remote_trip() -> None:
    # Worked example E14: 2050H.
    (word,) = flags.of_item("04000503", bytes.fromhex("5020"))
    told = {flag.bit: (flag.state_en, flag.state_zh) for flag in word}
    assert told[4] == ("open", "断")
    assert told[6] == ("trip", "断")
    assert told[13] == ("valid", "有效")
    assert told[1] == ("mains", "主电源")
    assert told[12] == ("off", "非保电")
    assert told[14] == ("opened", "开户")
    assert [flag.bit for flag in word] == sorted(told)


# Each bit by itself, from the tables of the standard text and the filings.
@pytest.mark.parametrize(
    ("word", "value", "name", "state"),
    [
        ("04000501", 0x0002, "demand method", "block"),
        ("04000501", 0x0004, "clock battery", "low"),
        ("04000501", 0x0010, "active power direction", "reverse"),
        ("04000501", 0x0100, "control loop", "error"),
        ("04000501", 0x8000, "clock", "fault"),
        ("04000502", 0x0001, "phase A active direction", "reverse"),
        ("04000502", 0x0040, "phase C reactive direction", "reverse"),
        ("04000503", 0x0004, "supply", "battery"),
        ("04000503", 0x0006, "supply", "reserved"),
        ("04000503", 0x0010, "relay state", "open"),
        ("04000503", 0x0040, "relay command state", "trip"),
        ("04000503", 0x0200, "meter type", "money prepaid"),
        ("04000503", 0x1000, "keep-power", "on"),
        ("04000503", 0x4000, "local account", "not opened"),
        ("04000503", 0x8000, "remote account", "not opened"),
        ("c020", 0x04, "battery", "low"),
        ("04000801", 0x01, "Sunday", "work"),
        ("04000508", 0x80000000, "key 31", "formal"),
    ],
)
def test_a_bit_has_a_name_and_a_state(word: str, value: int, name: str, state: str) -> None:
    assert states(word, value)[name] == state
    assert states(word, 0)[name] != state


@pytest.mark.parametrize(
    ("word", "value", "names"),
    [
        ("04000504", 0x0101, ["loss of voltage", "current interruption"]),
        ("04000505", 0x0080, ["phase failure"]),
        ("04000506", 0x0200, ["reserved bit 9"]),
        ("04000507", 0x0604, ["voltage unbalance", "cover open", "terminal cover open"]),
        ("04000601", 0x05, ["add forward active", "add reverse active"]),
        ("04000602", 0x41, ["add quadrant I", "add quadrant IV"]),
        ("04000703", 0x20, ["9600 bit/s"]),
        ("rate", 0x08, ["2400 bit/s"]),
        ("04000901", 0x21, ["class 1: voltage current frequency", "class 6: current demand"]),
        ("04000906", 0x90, ["quadrant reactive energies", "variables"]),
        ("04000905", 0x02, ["reverse active energy"]),
        ("c021", 0x14, ["phase C outage", "phase A over-voltage"]),
        (flags.ERROR, 0x06, ["no such data", "password wrong or not authorised"]),
        (flags.ERROR, 0x80, ["reserved bit 7"]),
        (flags.ERROR_1997, 0x0A, ["data identifier error", "reserved bit 3"]),
        (flags.SECURITY_ERROR, 0x0102, ["repeated recharge", "meter suspended until midnight"]),
        (flags.EXECUTION, 0x0004, ["direct trip"]),
        (flags.EXECUTION, 0x0C00, ["alarm on", "alarm off"]),
        (flags.CONTROL_ERROR, 0x0021, ["meter suspended until midnight", "trip refused: keep-power is on"]),
        (flags.CONTROL_ERROR, 0x0200, ["reserved bit 9"]),
    ],
)  # fmt: skip
def test_set_bits_by_name(word: str, value: int, names: list[str]) -> None:
    assert set_names(word, value) == names


def test_the_status_block_is_seven_words_or_eight() -> None:
    seven = bytes.fromhex("0400" + "0000" + "5000" + "0100" + "0000" + "0000" + "0002")
    words = flags.of_item("040005FF", seven)
    assert len(words) == 7
    assert [flag.name_en for flag in words[0] if flag.value] == ["clock battery"]
    assert [flag.name_en for flag in words[3] if flag.value] == ["loss of voltage"]
    assert [flag.name_zh for flag in words[6] if flag.value] == ["开表盖"]
    words = flags.of_item("040005ff", seven + bytes.fromhex("01000000"))
    assert [flag.name_zh for flag in words[7] if flag.value] == ["密钥0"]
    values = items.decode("040005ff", seven + bytes.fromhex("01000000"))
    assert [value.name_zh for value in values][::7] == [
        "电表运行状态字数据块:运行状态字1", "电表运行状态字数据块:密钥状态字",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("di", "data"), [("00010000", "00000000"), ("04000503", "50"), ("04000503", "502000"), ("04000901", "")]
)
def test_what_is_no_such_word_has_no_flags(di: str, data: str) -> None:
    assert flags.of_item(di, bytes.fromhex(data)) == ()


@given(
    st.sampled_from(["04000501", "04000503", "phase fault", "rate", "error", "execution"]),
    st.integers(0, 0xFFFF),
)
def test_the_flags_make_up_the_word_again(word: str, value: int) -> None:
    found = flags.flags(word, value)
    assert sum(flag.value << flag.bit for flag in found) == value
    assert [flag.bit for flag in found] == sorted({flag.bit for flag in found})


def test_every_row_is_well_formed_and_belongs_to_a_word_of_the_table() -> None:
    with _CSV.open(encoding="utf-8", newline="") as lines:
        rows = list(csv.DictReader(lines))
    shared = {"phase fault", "reactive combination", "rate", "freeze content"}
    named = {flags.ERROR, flags.ERROR_1997, flags.SECURITY_ERROR, flags.EXECUTION, flags.CONTROL_ERROR}
    for row in rows:
        word = row["word"]
        edition = "1997" if len(word) == 4 else "2007"
        assert word in shared | named or items.lookup(word, edition) is not None, word
        assert row["confidence"] in ("confirmed", "single source", "unconfirmed")
        for flag in flags.flags(word, 0):
            assert isinstance(flag, Flag)
            assert flag.name_en.isascii()
            assert "@" not in flag.name_en + flag.name_zh
