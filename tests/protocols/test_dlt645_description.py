"""Frames told to a person: the field frames' own decoding, and functions that only viewing knows."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.dlt645.description import describe
from protocols.dlt645.frame import Frame, parse
from tests.protocols.test_field_frames import DISPUTED
from tests.protocols.vectors import Vector, valid

METER = "202311050012"

# Remarks of the file's collector that are no field of the frame.
REMARKS = {"note"}


def told(control: int, data: str, address: str = METER) -> dict[str, Any]:
    fields = describe(Frame(address, control, bytes.fromhex(data)))
    assert json.loads(json.dumps(fields)) == fields
    return fields


@pytest.mark.parametrize("vector", valid("dlt645-2007", "dlt645-1997"), ids=str)
def test_a_field_frame_is_told_as_the_file_decodes_it(vector: Vector) -> None:
    fields = describe(parse(vector.raw.lstrip(b"\xfe")))
    assert fields["protocol"] == vector.protocol
    for key, expected in vector.expected.items():
        if key in DISPUTED.get(vector.id, {}):
            said, right, _ = DISPUTED[vector.id][key]
            assert expected == said
            expected = right
        if key not in REMARKS:
            assert fields[key] == expected, key


def test_a_value_has_its_name_and_unit() -> None:
    fields = told(0x91, "00000100" + "56341200")
    assert fields["name"] == "(current) Forward (import) active energy, total"
    assert fields["name_zh"] == "(当前)正向有功总电能"
    assert (fields["value"], fields["unit"]) == ("1234.56", "kWh")


def test_a_block_has_values_and_names() -> None:
    fields = told(0x91, "00ff0102" + "0422ffffffff")
    assert fields["values"] == ["220.4", None, None]
    assert fields["unit"] == "V"
    assert fields["names"][1] == "Voltage data block (A,B,C), phase B"
    assert "value" not in fields


def test_mixed_units_are_a_list() -> None:
    fields = told(0x91, "00000101" + "2143054518201126")
    assert fields["values"] == ["5.4321", "2026-11-20 18:45"]
    assert fields["unit"] == ["kW", ""]


def test_data_that_does_not_fit_is_kept_with_the_reason() -> None:
    fields = told(0x91, "00000100" + "00000e00")
    assert (fields["value_error"], fields["data"]) == ("not BCD", "00000e00")
    assert "value" not in fields


@pytest.mark.parametrize(
    ("control", "data", "expected"),
    [
        (0x11, "0000010001", {"di": "00010000", "data": "01", "function": "read data"}),
        (0x11, "0000", {"data": "0000"}),
        (0x12, "0105300301", {"di": "03300501", "follow_seq": 1}),
        (0x12, "01053003", {"di": "03300501"}),
        (0xB1, "01053003" + "0045", {"di": "03300501", "data": "0045"}),
        (0x92, "01053003" + "010008" + "01", {"di": "03300501", "data": "010008", "follow_seq": 1}),
        (0xB2, "01053003" + "02", {"di": "03300501", "follow_seq": 2}),
        (0x92, "01053003", {"data": "01053003"}),
        (0x91, "0000", {"data": "0000"}),
        (0x91, "deadbeef01", {"di": "efbeadde", "data": "01"}),
        (0x91, "03050004" + "5020", {"relay": "open", "value": "2050"}),
        (0x91, "02040004" + "080202412200", {"meter_no": "002241020208"}),
        (0x93, "120005", {"data": "120005"}),
        (
            0x14,
            "02010004" + "02563412" + "01000000" + "305923",
            {"di": "04000102", "pa": "02", "password": "123456", "operator": "00000001", "data": "305923"},
        ),
        (0x14, "0201", {"data": "0201"}),
        (0x14, "02010004" + "0256", {"di": "04000102", "data": "0256"}),
        (0x94, "", {"function": "write data"}),
        (0x15, "990005112320", {"meter_address": "202311050099"}),
        (0x16, "00009999", {"function": "freeze", "data": "00009999", "freeze_mmddhhmm": "99990000"}),
        (0x16, "99", {"data": "99", "freeze_mmddhhmm": None}),
        (0x17, "20", {"function": "change speed", "data": "20", "speed": 9600}),
        (0x17, "d5", {"data": "d5", "speed": None}),
        (0x97, "08", {"data": "08", "speed": 2400}),
        (0x98, "02665544", {"new_pa": "02", "new_password": "445566"}),
        (0x98, "02", {"data": "02"}),
        (0x1D, "01", {"data": "01", "output": "demand period"}),
        (0x9D, "03", {"data": "03", "output": None}),
        (
            0x18,
            "030c0004" + "02563412" + "02665544",
            {
                "di": "04000c03",
                "pa": "02",
                "password": "123456",
                "new_pa": "02",
                "new_password": "445566",
            },
        ),
        (0x18, "030c0004", {"data": "030c0004"}),
        (0x1A, "0256341201000000", {"pa": "02", "password": "123456", "operator": "00000001"}),
        (0x1B, "0256341201000000" + "ffffffff", {"di": "ffffffff", "pa": "02"}),
        (0x1B, "0256341201000000" + "ff", {"data": "ff", "pa": "02"}),
        (
            0x1C,
            "0256341201000000" + "1a00" + "000013241126",
            {
                "relay_cmd": "1a",
                "relay_action": "trip",
                "restore_minutes": 0,
                "valid_until_yymmddhhmmss": "261124130000",
            },
        ),
        (0x1C, "0256341201000000" + "1d02" + "000013241126", {"relay_cmd": "1d", "restore_minutes": 10}),
        (0x1C, "0256341201000000" + "77", {"relay_cmd": "77"}),
        (0x1C, "0256341201000000" + "1a01", {"relay_cmd": "1a", "data": "01"}),
        (0x1C, "98000001" + "01000000" + "10" * 20, {"pa": "98", "password": "010000", "cipher": "10" * 20}),
        (0x1C, "0256", {"data": "0256"}),
        (0x9C, "0400", {"data": "0400", "execution": ["direct trip"]}),
        (0x9C, "0080", {"execution": ["reserved bit 15"]}),
        (0x9C, "", {"function": "relay control"}),
        (0x03, "ff000007" + "01000000" + "0102", {"di": "070000ff", "operator": "00000001", "data": "0102"}),
        (
            0x03,
            "ff010007" + "01000000" + "3012" + "04030201",
            {"data": "301204030201", "security": [["minutes", "1230"], ["mac", "01020304"]]},
        ),
        (0x03, "ff020007" + "01000000", {"security": None}),
        (0x83, "ff0000", {"data": "ff0000"}),
        (
            0x83,
            "ff000007" + "a1a2a3a4" + "b1b2b3b4b5b6b7b8",
            {"di": "070000ff", "security": [["random", "a4a3a2a1"], ["esam", "b8b7b6b5b4b3b2b1"]]},
        ),
        (0x03, "ff0000", {"data": "ff0000"}),
        (0x83, "ff000007" + "a1a2", {"di": "070000ff", "data": "a1a2"}),
        (0xC3, "0800", {"error": "0008", "reasons": ["identity authentication failed or expired"]}),
        (0xDC, "2000", {"error": "0020", "reasons": ["trip refused: keep-power is on"]}),
        (0xD1, "02", {"error": "02", "reasons": ["no such data"]}),
        (0xD1, "020304", {"error": "040302"}),
        (0xD1, "", {"function": "read data"}),
        (0x08, "153012241126", {"time": "2026-11-24 12:30:15", "data": "153012241126"}),
        (0x08, "153012241326", {"time": "2026-13-24 12:30:15"}),
        (0x08, "15301224112a", {"data": "15301224112a"}),
        (0x08, "1530", {"data": "1530"}),
        (0x1F, "01", {"data": "01"}),
    ],
)
def test_a_2007_function_is_told(control: int, data: str, expected: dict[str, Any]) -> None:
    fields = told(control, data)
    assert fields["protocol"] == "dlt645-2007"
    assert {key: fields.get(key) for key in expected} == expected


def test_an_impossible_time_is_shown_and_named() -> None:
    assert told(0x08, "153012241326")["value_error"].startswith("no such time")
    assert "value_error" not in told(0x08, "153012241126")


@pytest.mark.parametrize(
    ("control", "data", "expected"),
    [
        (0x01, "1090", {"di": "9010", "name": "(current) forward active energy, total"}),
        (0x01, "10", {"data": "10"}),
        (0x81, "1090" + "12890700", {"value": "789.12", "unit": "kWh"}),
        (0x81, "10", {"data": "10"}),
        (0xA1, "1f90" + "1289", {"di": "901f", "data": "1289"}),
        (0x82, "1f90" + "1289", {"di": "901f", "data": "1289"}),
        (0x04, "10c0" + "00563412" + "06060719", {"di": "c010", "pa": "00", "password": "123456"}),
        (0x04, "10c0", {"di": "c010"}),
        (0x0A, "990005112320", {"meter_address": "202311050099"}),
        (0x0C, "10", {"data": "10", "function": "change speed"}),
        (0x0F, "0056341200665544", {"password": "123456", "new_password": "445566"}),
        (0x0F, "00", {"data": "00"}),
        (0xC1, "02", {"error": "02", "reasons": ["data identifier error"]}),
        (0xC1, "80", {"reasons": ["reserved bit 7"]}),
        (0x05, "01", {"data": "01"}),
        (0x90, "", {"length": 0, "function": "clear demand"}),
    ],
)
def test_a_1997_function_is_told(control: int, data: str, expected: dict[str, Any]) -> None:
    fields = told(control, data)
    assert fields["protocol"] == "dlt645-1997"
    assert {key: fields.get(key) for key in expected} == expected


def test_an_address_with_wildcards_is_lower_case() -> None:
    assert told(0x13, "", "AAAAAAAAAAAA")["address"] == "aaaaaaaaaaaa"


@given(st.integers(0, 255), st.binary(max_size=60))
def test_any_frame_can_be_told(control: int, data: bytes) -> None:
    told(control, data.hex())
