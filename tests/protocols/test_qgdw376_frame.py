"""Frames of Q/GDW 376.1: field frames both ways, the declared layout and its twin, and what is no frame."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.errors import LocalProtocolError, RemoteProtocolError
from protocols.q_gdw376.frame import (
    LARGEST_USER_DATA,
    Frame,
    announced,
    build,
    build_by_layout,
    checksum,
    examine,
    parse,
    parse_by_layout,
)
from tests.protocols.made_qgdw376 import frames, mutated, raw_frames, repaired
from tests.protocols.vectors import Vector, tagged, valid

RESERVED_ID = "gw-114"
"""The only field frame that is called valid and refused here: protocol id 3 is reserved."""
FIELD = [vector for vector in valid("qgdw376.1") if vector.id != RESERVED_ID]
LOGIN = bytes.fromhex("68320032006 8c900023412000271000001008516".replace(" ", ""))

KEYS = {
    "dir": "up",
    "prm": "prm",
    "fc": "function",
    "tpv": "tpv",
    "fir": "fir",
    "fin": "fin",
    "con": "con",
    "pseq": "pseq",
    "msa": "msa",
    "group": "group",
    "acd_fcb": "acd",
    "fcv": "fcv",
    "terminal": "terminal",
    "flag": "protocol_id",
}


@pytest.mark.parametrize("vector", FIELD, ids=str)
def test_a_field_frame_parses_to_its_envelope_and_builds_to_its_bytes(vector: Vector) -> None:
    frame = parse(vector.raw)
    for key, name in KEYS.items():
        assert getattr(frame, name) == vector.expected[key], key
    assert f"{frame.afn:02x}" == vector.expected["afn"]
    assert (frame.tp or b"").hex() == vector.expected.get("tp", "")
    assert build(frame) == vector.raw


@pytest.mark.parametrize("vector", FIELD, ids=str)
def test_the_declared_layout_says_the_same_of_a_field_frame(vector: Vector) -> None:
    frame = parse_by_layout(vector.raw)
    assert frame == parse(vector.raw)
    assert build_by_layout(frame) == vector.raw


def test_a_reserved_protocol_id_is_refused() -> None:
    (raw,) = [vector.raw for vector in valid("qgdw376.1") if vector.id == RESERVED_ID]
    for read in (parse, parse_by_layout):
        with pytest.raises(RemoteProtocolError):
            read(raw)
    assert examine(raw, 0) == "protocol id 3"


@pytest.mark.parametrize(
    "vector",
    [
        one
        for one in tagged("bad-checksum", "bad-length", "malformed", "other-protocol", "stream-noise")
        if one.protocol == "qgdw376.1"
    ],
    ids=str,
)
def test_a_damaged_entry_is_no_frame(vector: Vector) -> None:
    for read in (parse, parse_by_layout):
        with pytest.raises(RemoteProtocolError):
            read(vector.raw)


@given(frames())
def test_a_made_frame_comes_back_from_its_bytes(frame: Frame) -> None:
    raw = build(frame)
    assert parse(raw) == frame
    assert examine(b"\x16" + raw + b"\x68", 1) == len(raw)


@given(frames())
def test_the_declared_layout_builds_and_parses_a_made_frame_alike(frame: Frame) -> None:
    raw = build_by_layout(frame)
    assert raw == build(frame)
    assert parse_by_layout(raw) == frame


@given(raw_frames(), st.integers())
def test_both_readers_agree_on_mutations(raw: bytes, seed: int) -> None:
    worse = mutated(raw, random.Random(seed))
    assert parse_by_layout(worse) == parse(worse)
    assert build(parse(worse)) == worse


@given(st.binary(max_size=60))
def test_both_readers_agree_on_any_bytes(data: bytes) -> None:
    said: list[object] = []
    for read in (parse, parse_by_layout):
        try:
            said.append(read(data))
        except RemoteProtocolError:
            said.append(None)
    assert said[0] == said[1]


@pytest.mark.parametrize("vector", FIELD, ids=str)
def test_no_single_wrong_bit_leaves_another_whole_frame_of_this_length(vector: Vector) -> None:
    for place in range(len(vector.raw) * 8):
        wrong = bytearray(vector.raw)
        wrong[place // 8] ^= 1 << place % 8
        with pytest.raises(RemoteProtocolError):
            parse(bytes(wrong))


@pytest.mark.parametrize("vector", FIELD, ids=str)
def test_a_cut_frame_asks_for_more(vector: Vector) -> None:
    for length in range(len(vector.raw)):
        assert examine(vector.raw[:length], 0) is None
        with pytest.raises(RemoteProtocolError) as raised:
            parse(vector.raw[:length])
        assert raised.value.reason == "frame cut short"


@pytest.mark.parametrize(
    ("place", "byte", "reason"),
    [
        (0, 0x16, "no 68H at the start"),
        (5, 0x00, "no second 68H"),
        (3, 0x36, "the two lengths differ"),
        (18, 0x00, "wrong checksum"),
        (19, 0x68, "no 16H at the end"),
    ],
)
def test_the_reason_of_damage_is_told(place: int, byte: int, reason: str) -> None:
    wrong = bytearray(LOGIN)
    wrong[place] = byte
    assert examine(wrong, 0) == reason


def test_bytes_after_the_frame_are_told_with_their_place() -> None:
    with pytest.raises(RemoteProtocolError) as raised:
        parse(LOGIN + b"\x00")
    assert (raised.value.offset, raised.value.reason) == (20, "bytes after the frame")


def test_lengths_outside_the_channel_are_refused() -> None:
    assert announced(bytes.fromhex("681e001e0068"), 0) == "user data of 7 bytes is less than a header"
    assert (
        announced(bytes.fromhex("680204020468"), 0, 255)
        == "user data of 256 bytes is more than the 255 allowed"
    )
    assert announced(bytes.fromhex("68fefffeff68"), 0) == LARGEST_USER_DATA + 8
    assert announced(b"", 0) is None


@given(st.binary(max_size=2000))
def test_the_checksum_is_the_plain_sum(data: bytes) -> None:
    assert checksum(data) == sum(data) % 256


def test_the_checksum_of_the_highest_bytes_does_not_overflow() -> None:
    assert checksum(b"\xff" * LARGEST_USER_DATA) == 255 * LARGEST_USER_DATA % 256


def test_flags_without_room_for_what_they_announce_leave_the_unit_whole() -> None:
    """A login with ACD and TpV set by mistake is still a login."""
    frame = parse(repaired(bytes.fromhex("68000000006 8e900023412000 2f100000100 0016".replace(" ", ""))))
    assert (frame.acd, frame.tpv, frame.ec, frame.tp) == (True, True, None, None)
    assert frame.body.hex() == "00000100"
    assert parse(build(frame)) == frame


def test_the_smallest_frame_has_no_unit() -> None:
    frame = parse(repaired(bytes.fromhex("680000000068c90002341200027100") + b"\x16"))
    assert frame.body == b""
    assert parse_by_layout(build(frame)) == frame


@pytest.mark.parametrize(
    "change",
    [
        {"terminal": "0200123"},
        {"terminal": "0200123G"},
        {"terminal": "0200ABCD"},
        {"function": 16},
        {"pseq": -1},
        {"msa": 128},
        {"afn": 256},
        {"protocol_id": 3},
        {"ec": (0, 256), "acd": True},
        {"ec": (1, 2)},
        {"acd": True, "body": bytes(6)},
        {"tp": bytes(6)},
        {"tpv": True, "tp": bytes(5)},
        {"tpv": True, "body": bytes(10)},
        {"body": bytes(LARGEST_USER_DATA)},
    ],
)
def test_what_bytes_cannot_say_is_not_built(change: dict[str, object]) -> None:
    frame = replace(parse(LOGIN), **change)  # type: ignore[arg-type]  # any field may be changed
    for write in (build, build_by_layout):
        with pytest.raises(LocalProtocolError):
            write(frame)
