"""The lens: any bytes to JSON-ready frames of both families, held to the field frames."""

from __future__ import annotations

import json
from datetime import date, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols import lens
from protocols.dlt645 import frame as dlt645
from protocols.lens import Seen, look, terminal_fields
from protocols.q_gdw376 import frame as q_gdw376
from protocols.q_gdw376 import messages
from protocols.q_gdw376.frame import Frame
from protocols.q_gdw376.values import (
    Archive,
    ArchiveRecord,
    Clock,
    DayTag,
    Forward,
    Forwarded,
    FrozenEnergy,
    FrozenPhases,
    FrozenThreePhase,
    PresentEnergy,
    UnitConfirm,
)
from tests.protocols import plain_dlt645
from tests.protocols.test_field_frames import REFUSED
from tests.protocols.timing import seconds
from tests.protocols.vectors import Vector, tagged, valid, vectors

E1 = bytes.fromhex("6812000511232068910833333433896745330916")

(RESERVED,) = REFUSED


def seen(data: bytes) -> Seen:
    """What the lens says, once it is sure that JSON can carry it unchanged."""
    result = look(data)
    assert json.loads(json.dumps(result.frames)) == result.frames
    assert (result.error is None) == bool(result.frames)
    return result


def one(data: bytes) -> dict[str, Any]:
    result = seen(data)
    assert len(result.frames) == 1
    assert result.discarded == 0
    return result.frames[0]


def test_flags_are_integers_and_codes_are_hex() -> None:
    for vector in valid("qgdw376.1"):
        for told in look(vector.raw).frames:
            for key in ("dir", "prm", "acd_fcb", "fcv", "tpv", "fir", "fin", "con", "group"):
                assert type(told[key]) is int
            for key in ("afn", "c", "terminal"):
                assert told[key] == told[key].lower()


def test_the_reserved_protocol_id_is_refused() -> None:
    (vector,) = (v for v in vectors() if v.id == RESERVED)
    result = seen(vector.raw)
    assert result.frames == []
    assert result.error is not None
    assert "protocol id" in result.error


@pytest.mark.parametrize(
    "vector",
    tagged(
        "bad-checksum",
        "bad-checksum-template",
        "truncated",
        "bad-length",
        "bad-end",
        "bad-second-start",
        "malformed",
        "preamble-only",
        "garbage",
        "length-too-long",
        "other-protocol",
    ),
    ids=str,
)
def test_a_damaged_field_frame_gives_none(vector: Vector) -> None:
    result = seen(vector.raw)
    assert result.frames == []
    assert result.discarded == len(vector.raw) - vector.raw.count(0xFE)


@pytest.mark.parametrize(
    ("identifier", "places"),
    [
        ("m97-014", [3]),
        ("m97-012", [0, 17, 32]),
        ("m07-020", [1]),
        ("m07-042", [4, 22]),
        ("gw-077", [2]),
        ("gw-098", [3]),
    ],
)
def test_the_good_frames_in_noise_are_found(identifier: str, places: list[int]) -> None:
    (vector,) = (v for v in vectors() if v.id == identifier)
    result = seen(vector.raw)
    assert [told["start"] for told in result.frames] == places
    lead_in = vector.raw.count(0xFE)
    lengths = sum(told.get("len", 0) + 8 if "len" in told else told["length"] + 12 for told in result.frames)
    assert result.discarded == len(vector.raw) - lengths - lead_in


def test_every_damaged_or_noisy_entry_is_tried() -> None:
    noisy = {"m97-014", "m97-012", "m07-020", "m07-042", "gw-077", "gw-098"}
    tags = {v.tag for v in vectors() if not v.valid and v.id not in noisy}
    assert tags <= {
        "bad-checksum",
        "bad-checksum-template",
        "truncated",
        "bad-length",
        "malformed",
        "preamble-only",
        "other-protocol",
    }


@pytest.mark.parametrize("vector", valid("dlt698.45"), ids=str)
def test_a_698_frame_passes_as_nothing(vector: Vector) -> None:
    assert seen(vector.raw).frames == []


@pytest.mark.parametrize(
    "vector", [v for v in valid("dlt645-2007", "qgdw376.1") if v.id != RESERVED], ids=str
)
def test_a_field_frame_in_noise_and_damaged(vector: Vector) -> None:
    raw = vector.raw.lstrip(b"\xfe")
    noise = bytes.fromhex("1122fe33")
    result = seen(noise + vector.raw + noise + vector.raw + noise)
    assert len(result.frames) == 2
    assert result.discarded == 9
    assert result.frames[0]["start"] == 4 + len(vector.raw) - len(raw)
    for length in range(0, len(raw), 3):
        assert [told["protocol"] for told in seen(raw[:length]).frames if told["start"] == 0] == []
    for bit in range(0, 8 * len(raw), 7):
        broken = bytearray(raw)
        broken[bit // 8] ^= 1 << bit % 8
        assert all(told["start"] > 0 for told in seen(bytes(broken)).frames)


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"", lens.NOTHING),
        (b"\xfe\xfe", lens.ONLY_LEAD_IN),
        (b"\x11\x22", lens.NO_START),
        (E1[:-3], lens.CUT_SHORT),
        (E1[:-2] + b"\x00\x16", "wrong checksum"),
        (b"\x68\x11\x22\x33\x44\x55\x66\x77", "no second 68H"),
        (b"\x68", lens.CUT_SHORT),
    ],
)
def test_why_there_is_no_frame(data: bytes, error: str) -> None:
    assert seen(data) == Seen([], len(data) - data.count(0xFE), error)


# -- 376.1 units ---------------------------------------------------------------------------------


def terminal_frame(afn: int, body: bytes, up: bool = True, **others: Any) -> bytes:
    frame = Frame(
        terminal="02001234", up=up, prm=not up, function=8 if up else 11, afn=afn, body=body, **others
    )
    return q_gdw376.build(frame)


def test_a_midnight_answer_tells_each_point() -> None:
    day = date(2026, 11, 23)
    values = [
        FrozenEnergy(day, datetime(2026, 11, 24, 0, 12), (12_345_600, 1_000_000, 11_345_600)),
        FrozenEnergy(day, None, (None, None, None)),
    ]
    body = b"".join(messages.encode_unit(0x0D, 161, pn, value) for pn, value in enumerate(values, 5))
    told = one(terminal_frame(0x0D, body))
    assert (told["afn"], told["pn"], told["fn"]) == ("0d", 5, 161)
    assert told["kwh"] == ["1234.5600", "100.0000", "1134.5600"]
    assert (told["read_time"], told["tariffs"]) == ("2026-11-24 00:12", 2)
    first, second = told["units"]
    assert (first["pn"], second["pn"]) == (5, 6)
    assert first["name"]
    assert first["name_zh"]
    assert bytes.fromhex(first["bytes"]) == body[4 : 4 + len(body) // 2 - 4]
    assert [(value["name"], value["value"], value["unit"]) for value in first["values"]] == [
        ("tag", "2026-11-23", ""),
        ("read_at", "2026-11-24 00:12:00", ""),
        ("total", "1234.5600", "kWh"),
        ("tariff 1", "100.0000", "kWh"),
        ("tariff 2", "1134.5600", "kWh"),
    ]
    assert [value["value"] for value in second["values"]][1:] == [None] * 4
    assert "reason" not in first


def test_a_reactive_register_has_its_unit() -> None:
    value = PresentEnergy(datetime(2026, 11, 24, 1, 2), (500, 500))
    told = one(terminal_frame(0x0C, messages.encode_unit(0x0C, 130, 1, value)))
    assert told["kvarh"] == ["0.0500", "0.0500"]
    assert {value["unit"] for value in told["units"][0]["values"]} == {"", "kvarh"}


def test_three_phases_and_quadrants_are_named() -> None:
    day = date(2026, 11, 23)
    at = datetime(2026, 11, 24, 0, 5)
    phases = messages.encode_unit(0x0D, 161, 1, FrozenPhases(day, at, (10_000, None, 20_000)))
    values = one(terminal_frame(0x0D, phases))["units"][0]["values"]
    assert [(value["name"], value["value"]) for value in values][2:] == [
        ("phase A", "1.0000"),
        ("phase B", None),
        ("phase C", "2.0000"),
    ]
    three = FrozenThreePhase(day, at, (10_000, 10_000), (100, 100), (200, 200), (300, 300))
    values = one(terminal_frame(0x0D, messages.encode_unit(0x0D, 1, 1, three)))["units"][0]["values"]
    assert ("active tariff 1", "1.0000", "kWh") in [tuple(value.values()) for value in values]
    assert ("quadrant_b total", "0.0300", "kvarh") in [tuple(value.values()) for value in values]


def test_a_clock_is_told_beside_the_envelope() -> None:
    at = datetime(2026, 11, 24, 12, 30, 15)
    told = one(terminal_frame(0x0C, messages.encode_unit(0x0C, 2, 0, Clock(at, 2))))
    assert (told["clock"], told["weekday"]) == ("2026-11-24 12:30:15", 2)
    told = one(terminal_frame(0x0C, messages.encode_unit(0x0C, 2, 0, Clock(None))))
    assert told["clock"] is None


def test_a_confirm_names_each_unit_and_its_error() -> None:
    body = messages.encode_unit(0x00, 3, 0, UnitConfirm(0x04, ((0, 10, 0), (3, 25, 4))))
    values = one(terminal_frame(0x00, body))["units"][0]["values"]
    assert [(value["name"], value["value"]) for value in values] == [
        ("afn", "04"),
        ("p0 F10 error", "0"),
        ("p3 F25 error", "4"),
    ]


def test_an_archive_is_told_record_by_record() -> None:
    record = ArchiveRecord(1, 7, 31, 2400, 30, "202311050012", 4)
    body = messages.encode_unit(0x0A, 10, 0, Archive((record,)))
    values = one(terminal_frame(0x0A, body))["units"][0]["values"]
    told = {value["name"]: value["value"] for value in values}
    assert told["records 1 address"] == "202311050012"
    assert told["records 1 pn"] == "7"
    assert told["records 1 password"] == "000000000000"


def test_several_bits_of_an_identifier_are_several_units() -> None:
    body = bytes.fromhex("03010114") + bytes.fromhex("231126")  # p1 p2, F161, one tag
    told = one(terminal_frame(0x0D, body, up=False))
    assert [(unit["pn"], unit["fn"]) for unit in told["units"]] == [(1, 161), (2, 161)]
    assert told["units"][0]["values"] == [{"name": "day", "value": "2026-11-23", "unit": ""}]


def test_forwarded_bytes_are_decoded_inside() -> None:
    told = one(terminal_frame(0x10, messages.encode_unit(0x10, 1, 0, Forwarded(31, b"\xfe\xfe" + E1))))
    assert told["inner"]["value"] == "1234.56"
    assert told["inner"]["start"] == 2
    assert told["units"][0]["inner"] == told["inner"]
    assert (told["port"], told["inner_len"], told["inner_valid"]) == (31, 22, 1)
    assert (told["inner_address"], told["inner_di"], told["inner_value"]) == (
        "202311050012",
        "00010000",
        "1234.56",
    )


def test_a_forward_request_shows_password_and_relay_command() -> None:
    control = dlt645.Frame("202311050012", 0x1C, bytes.fromhex("02563412010000001a00000013241126"))
    body = messages.encode_unit(0x10, 1, 0, Forward(31, 0x6B, 0xBC, 10, dlt645.build(control)), up=False)
    told = one(terminal_frame(0x10, body + bytes(16), up=False))
    assert told["inner_relay_cmd"] == "1a"
    assert told["password"] == "00" * 16


@pytest.mark.parametrize("content", [b"", b"\x68\x11\x68", E1[:-1], b"\x68" * 40])
def test_forwarded_bytes_that_are_no_frame_are_none(content: bytes) -> None:
    told = one(terminal_frame(0x10, messages.encode_unit(0x10, 1, 0, Forwarded(31, content))))
    assert told["inner"] is None
    assert (told["inner_len"], told["inner_valid"]) == (len(content), 0)
    assert told["units"][0]["bytes"].endswith(content.hex())


def test_a_false_start_inside_forwarded_bytes_is_stepped_over() -> None:
    told = one(terminal_frame(0x10, messages.encode_unit(0x10, 1, 0, Forwarded(31, b"\x68\x11" + E1))))
    assert told["inner"]["start"] == 2


def test_event_counters_and_time_label_are_shown() -> None:
    tp = bytes.fromhex("002752130705")
    told = one(terminal_frame(0x00, bytes.fromhex("00000100"), acd=True, tpv=True, ec=(17, 0), tp=tp))
    assert (told["ec"], told["tp"]) == ("1100", "002752130705")


def test_a_unit_that_is_not_understood_is_kept_with_its_reason() -> None:
    told = one(terminal_frame(0xA4, bytes.fromhex("00000801") + b"\x01\x02"))
    (unit,) = told["units"]
    assert unit["bytes"] == "0102"
    assert unit["reason"]
    assert unit["values"] == []
    assert (told["pn"], told["fn"]) == (0, 12)


def test_an_identifier_of_no_class_and_a_frame_without_units() -> None:
    told = one(terminal_frame(0xFE, bytes.fromhex("00000000") + b"\x01"))
    assert (told["pn"], told["fn"]) == (0, [])
    assert told["units"][0]["fn"] == []
    told = one(terminal_frame(0x02, b""))
    assert (told["pn"], told["fn"], told["units"]) == ([], [], [])


def test_a_request_tag_is_told() -> None:
    body = messages.encode_unit(0x0D, 161, 1, DayTag(date(2026, 11, 23)), up=False)
    assert one(terminal_frame(0x0D, body, up=False))["units"][0]["values"][0]["value"] == "2026-11-23"


def test_a_negative_energy_keeps_its_sign() -> None:
    assert terminal_fields._energy(-12_345) == "-1.2345"


# -- any bytes ------------------------------------------------------------------------------------

identifiers = st.sampled_from(["00000100", "01010114", "01010214", "01010110", "00000200", "01010100"])
pieces = st.one_of(
    st.binary(max_size=40),
    st.just(b"\x68"),
    st.just(b"\xfe\xfe"),
    st.just(E1),
    st.sampled_from([vector.raw for vector in vectors()]),
    st.builds(
        lambda afn, head, body, up: terminal_frame(afn, bytes.fromhex(head) + body, up),
        st.sampled_from([0x00, 0x02, 0x04, 0x05, 0x09, 0x0A, 0x0C, 0x0D, 0x10]) | st.integers(0, 255),
        identifiers,
        st.binary(max_size=60),
        st.booleans(),
    ),
)


@given(
    st.lists(pieces, max_size=5), st.lists(st.tuples(st.integers(0, 500), st.integers(0, 255)), max_size=3)
)
def test_any_bytes_are_frames_or_counted(parts: list[bytes], changes: list[tuple[int, int]]) -> None:
    raw = bytearray(b"".join(parts))
    for place, value in changes:
        if raw:
            raw[place % len(raw)] = value
    result = seen(bytes(raw))
    at = counted = 0
    for told in result.frames:
        assert told["start"] >= at
        counted += sum(byte != 0xFE for byte in raw[at : told["start"]])
        at = told["start"] + (told["len"] + 8 if "len" in told else told["length"] + 12)
    assert result.discarded == counted + sum(byte != 0xFE for byte in raw[at:])


@given(st.lists(st.sampled_from([E1, b"\xfe", b"\x11", E1[:9]]), max_size=8))
def test_645_bytes_are_seen_as_the_second_decoder_sees_them(parts: list[bytes]) -> None:
    raw = b"".join(parts)
    assert [told["start"] for told in seen(raw).frames] == [
        frame["start"] for frame in plain_dlt645.frames(raw)
    ]


@pytest.mark.parametrize(
    "piece",
    [b"\x68", b"\x68\xff\xff\x68\xff\xff", b"\x68\xfe\xff\xfe\xff\x68", b"\xfe", E1[:-1]],
    ids=["68", "68-long", "68-longest", "fe", "cut"],
)
def test_hostile_bytes_cost_linear_time(piece: bytes) -> None:
    def cost(size: int) -> float:
        raw = piece * (size // len(piece))
        return seconds(lambda: look(raw))

    small, large = cost(20_000), cost(160_000)
    # Eight times the bytes may not cost much more than eight times the time; 5 ms forgive a busy machine.
    assert large < 20 * small + 0.005
