"""DL/T 645 frames: the hand-written pair against the declared layout, field frames and broken ones."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.dlt645.frame import (
    BROADCAST,
    FRAME,
    LONGEST_FRAME,
    WILDCARD,
    Frame,
    build,
    build_by_layout,
    examine,
    matches,
    parse,
    parse_by_layout,
)
from protocols.errors import LocalProtocolError, RemoteProtocolError
from tests.protocols.vectors import Vector, valid

FIELD = valid("dlt645-2007", "dlt645-1997")
# A worked example: 1234.56 kWh from meter 202311050012.
E1 = bytes.fromhex("6812000511232068910833333433896745330916")

addresses = st.text("0123456789ABCDEF", min_size=12, max_size=12)
frames = st.builds(Frame, addresses, st.integers(0, 255), st.binary(max_size=255))


def body(vector: Vector) -> bytes:
    return vector.raw.lstrip(b"\xfe")


@pytest.mark.parametrize("vector", FIELD, ids=str)
def test_a_field_frame_reads_as_told_and_writes_back(vector: Vector) -> None:
    raw = body(vector)
    frame = parse(raw)
    assert frame.address == vector.expected["address"].upper()
    assert f"{frame.control:02x}" == vector.expected["control"]
    assert len(frame.data) == vector.expected["length"]
    assert build(frame, len(vector.raw) - len(raw)) == vector.raw
    assert parse_by_layout(raw) == frame
    assert build_by_layout(frame) == raw


@pytest.mark.parametrize("vector", FIELD, ids=str)
def test_a_cut_frame_asks_for_more(vector: Vector) -> None:
    raw = body(vector)
    for length in range(len(raw)):
        assert examine(raw[:length], 0) is None
        with pytest.raises(RemoteProtocolError, match="frame cut short"):
            parse(raw[:length])
        with pytest.raises(RemoteProtocolError):
            parse_by_layout(raw[:length])


@pytest.mark.parametrize("vector", FIELD, ids=str)
def test_one_wrong_bit_is_no_whole_frame(vector: Vector) -> None:
    raw = body(vector)
    for bit in range(8 * len(raw)):
        broken = bytearray(raw)
        broken[bit // 8] ^= 1 << bit % 8
        with pytest.raises(RemoteProtocolError):
            parse(bytes(broken))


@given(frames)
def test_what_is_built_reads_back(frame: Frame) -> None:
    raw = build(frame)
    assert raw == build_by_layout(frame)
    assert examine(raw, 0) == len(raw) <= LONGEST_FRAME
    assert parse(raw) == parse_by_layout(raw) == frame


@given(frames, st.binary(max_size=20), st.binary(max_size=20))
def test_a_frame_is_found_where_it_stands(frame: Frame, before: bytes, after: bytes) -> None:
    raw = build(frame)
    assert examine(bytearray(before + raw + after), len(before)) == len(raw)


def twins_agree(reader: Callable[[bytes], Frame], raw: bytes) -> None:
    try:
        expected: Frame | None = parse_by_layout(raw)
    except RemoteProtocolError:
        expected = None
    if expected is None:
        with pytest.raises(RemoteProtocolError):
            reader(raw)
    else:
        assert reader(raw) == expected


@given(frames, st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), max_size=3), st.booleans())
def test_the_pair_agrees_on_damaged_frames(
    frame: Frame, changes: list[tuple[int, int]], repaired: bool
) -> None:
    raw = bytearray(build(frame))
    for place, value in changes:
        raw[place % len(raw)] = value
    if repaired and len(raw) > 2:
        raw[-2] = sum(raw[:-2]) & 0xFF
    twins_agree(parse, bytes(raw))


def test_a_reader_without_its_mask_would_be_noticed() -> None:
    def forgetful(raw: bytes) -> Frame:
        return Frame(raw[6:0:-1].hex().upper(), raw[8], raw[10:-2])

    with pytest.raises(AssertionError):
        twins_agree(forgetful, E1)


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"\x00" + E1, "no 68H at the start"),
        (E1[:7] + b"\x67" + E1[8:], "no second 68H"),
        (E1[:-1] + b"\x17", "no 16H at the end"),
        (E1[:-2] + b"\x0a\x16", "wrong checksum"),
        (E1 + b"\x00", "bytes after the frame"),
        (b"\xfe" + E1, "no 68H at the start"),
        (b"", "frame cut short"),
    ],
)
def test_what_is_wrong_is_said(raw: bytes, reason: str) -> None:
    with pytest.raises(RemoteProtocolError, match=reason) as caught:
        parse(raw)
    assert caught.value.raw == raw
    assert caught.value.reason == reason


def test_nothing_is_found_behind_the_end() -> None:
    assert examine(E1, len(E1)) is None


def test_start_and_end_bytes_may_stand_in_data() -> None:
    data = bytes.fromhex("68166816fe") + bytes([(0x68 - 0x33) & 0xFF, (0x16 - 0x33) & 0xFF])
    raw = build(Frame("000000680068", 0x91, data))
    assert raw.count(0x68) > 2
    assert parse(raw).data == data


def test_the_mask_wraps_and_covers_the_data_only() -> None:
    raw = build(Frame("000000000033", 0x33, b"\xff\x00\xcd"))
    assert raw[1] == raw[8] == 0x33
    assert raw[10:13] == b"\x32\x33\x00"


@pytest.mark.parametrize(
    "frame",
    [
        Frame("12345678901", 0x11),
        Frame("1234567890123", 0x11),
        Frame("aaaaaaaaaaaa", 0x11),
        Frame("12345678901 ", 0x11),
        Frame("123456789012", 256),
        Frame("123456789012", -1),
        Frame("123456789012", 0x11, bytes(256)),
    ],
)
def test_what_cannot_be_sent_is_our_fault(frame: Frame) -> None:
    for builder in (build, build_by_layout):
        with pytest.raises(LocalProtocolError):
            builder(frame)


def test_the_control_code_is_told_by_its_bits() -> None:
    request, reply, more, error = (Frame("000000000001", control) for control in (0x11, 0x91, 0xB1, 0xD1))
    assert [frame.function for frame in (request, reply, more, error)] == [0x11] * 4
    assert [frame.from_meter for frame in (request, reply, more, error)] == [False, True, True, True]
    assert [frame.is_error for frame in (request, reply, more, error)] == [False, False, False, True]
    assert [frame.more_follows for frame in (request, reply, more, error)] == [False, False, True, False]
    assert not Frame("000000000001", 0x23).more_follows  # D5 of a request says nothing


@pytest.mark.parametrize(
    ("asked", "actual", "meant"),
    [
        ("202311050012", "202311050012", True),
        ("202311050012", "202311050013", False),
        ("AAAAAAAA0012", "202311050012", True),
        ("AAAAAAAA0013", "202311050012", False),
        (WILDCARD, "202311050012", True),
        (WILDCARD, WILDCARD, True),
        ("202311050012", WILDCARD, False),
        (BROADCAST, "202311050012", False),
        ("AAAA", "202311050012", False),
    ],
)
def test_a_wildcard_digit_means_any(asked: str, actual: str, meant: bool) -> None:
    assert matches(asked, actual) is meant


def test_the_layout_names_the_fields_of_the_standard() -> None:
    found = FRAME.parse(E1).summed.value
    assert (found.address, found.control, found.length) == ("202311050012", 0x91, 8)
