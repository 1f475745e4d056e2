"""The frame stream of Q/GDW 376.1: field frames in every kind of company, linear time, bounded memory."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.errors import LocalProtocolError
from protocols.q_gdw376.frame import LARGEST_FRAME, build, parse
from protocols.q_gdw376.stream import LONGEST_DAMAGE, FoundFrame, FrameStream
from protocols.wire import Damaged
from tests.protocols import plain_qgdw376 as plain
from tests.protocols.made_qgdw376 import mutated, raw_frames
from tests.protocols.test_qgdw376_frame import FIELD, LOGIN
from tests.protocols.timing import seconds
from tests.protocols.vectors import Vector, tagged, vectors

Event = FoundFrame | Damaged


def drained(stream: FrameStream) -> list[Event]:
    events = []
    while (event := stream.next_event()) is not None:
        events.append(event)
    return events


def told(data: bytes, pieces: int = 0, ended: bool = True) -> list[Event]:
    """All events of `data`, fed whole or in pieces of a length."""
    stream = FrameStream()
    events = []
    for at in range(0, len(data), pieces or len(data) or 1):
        stream.receive_data(data[at : at + (pieces or len(data))])
        events += drained(stream)
    if ended:
        stream.end()
        events += drained(stream)
    return events


def found(events: list[Event]) -> list[bytes]:
    return [event.raw for event in events if isinstance(event, FoundFrame)]


def check_nothing_is_lost(data: bytes, events: list[Event]) -> None:
    """Events follow one another without gap or overlap and hold every byte."""
    assert b"".join(event.raw for event in events) == data
    place = 0
    for event in events:
        assert event.offset == place
        place += len(event.raw)
        assert isinstance(event, FoundFrame) or 0 < len(event.raw) <= LONGEST_DAMAGE


@pytest.mark.parametrize("vector", FIELD, ids=str)
def test_a_field_frame_is_found_whole_and_byte_by_byte(vector: Vector) -> None:
    frame = parse(vector.raw)
    for pieces in (0, 1, 3):
        assert told(vector.raw, pieces) == [FoundFrame(frame, vector.raw, 0)]


@pytest.mark.parametrize("vector", FIELD, ids=str)
def test_a_field_frame_is_found_after_noise(vector: Vector) -> None:
    for noise in (b"\x00", b"\x68", b"\x68\x16", b"\x68\x32\x00\x32\x00\x68", LOGIN[:-1], b"\x16" * 50):
        events = told(noise + vector.raw)
        assert found(events) == [vector.raw]
        check_nothing_is_lost(noise + vector.raw, events)


@pytest.mark.parametrize("vector", FIELD, ids=str)
def test_two_in_one_chunk_are_two(vector: Vector) -> None:
    events = told(vector.raw + LOGIN)
    assert [(event.offset, event.raw) for event in events] == [(0, vector.raw), (len(vector.raw), LOGIN)]


@pytest.mark.parametrize("vector", FIELD, ids=str)
def test_a_cut_frame_waits_and_is_damage_at_the_end(vector: Vector) -> None:
    stream = FrameStream()
    stream.receive_data(vector.raw[:-1])
    assert drained(stream) == []
    assert stream.held == len(vector.raw) - 1
    stream.end()
    events = drained(stream)
    assert found(events) == []
    check_nothing_is_lost(vector.raw[:-1], events)
    assert stream.held == 0


@pytest.mark.parametrize("vector", FIELD, ids=str)
def test_one_wrong_bit_is_damage_and_the_next_frame_is_found(vector: Vector) -> None:
    for place in range(8, len(vector.raw) * 8, 11):
        wrong = bytearray(vector.raw)
        wrong[place // 8] ^= 1 << place % 8
        events = told(bytes(wrong) + LOGIN)
        assert found(events)[-1:] == [LOGIN]
        assert vector.raw not in found(events)[:-1]


@pytest.mark.parametrize("vector", [one for one in vectors() if one.protocol != "qgdw376.1"], ids=str)
def test_frames_of_other_protocols_pass_as_nothing(vector: Vector) -> None:
    assert found(told(vector.raw)) == []


def test_the_good_frames_inside_noisy_captures_are_found() -> None:
    noisy = [one for one in tagged("stream-noise") if one.protocol == "qgdw376.1"]
    assert noisy
    for vector in noisy:
        (event,) = [event for event in told(vector.raw) if isinstance(event, FoundFrame)]
        assert event.offset == vector.expected["frame_offset"]


@given(st.lists(raw_frames() | st.binary(max_size=30), max_size=6), st.integers(0, 40), st.integers())
def test_any_bytes_give_the_frames_that_the_plain_decoder_finds(
    parts: list[bytes], pieces: int, seed: int
) -> None:
    chance = random.Random(seed)
    data = b"".join(
        mutated(part, chance) if len(part) > 15 and chance.random() < 0.3 else part for part in parts
    )
    events = told(data, pieces)
    assert [(event.offset, len(event.raw)) for event in events if isinstance(event, FoundFrame)] == [
        (frame["start"], frame["size"]) for frame in plain.frames(data)
    ]
    check_nothing_is_lost(data, events)


def test_junk_is_told_in_bounded_pieces_with_a_reason() -> None:
    events = told(b"\x00" * 3000 + LOGIN)
    assert [len(event.raw) for event in events] == [1024, 1024, 952, 20]
    assert isinstance(events[0], Damaged)
    assert events[0].reason == "no 68H"
    events = told(b"\x00\x68\x01" + b"\x00" * 5 + LOGIN)
    assert isinstance(events[0], Damaged)
    assert events[0].reason == "no second 68H"


def test_a_length_beyond_the_channel_is_damage_at_once() -> None:
    stream = FrameStream(limit=255)
    stream.receive_data(bytes.fromhex("680204020468") + bytes(9))
    (event,) = drained(stream)
    assert isinstance(event, Damaged)
    assert event.reason == "user data of 256 bytes is more than the 255 allowed"


def test_a_frame_that_does_not_go_on_can_be_given_up() -> None:
    stream = FrameStream()
    lie = bytes.fromhex("68feff feff68")
    stream.receive_data(lie + LOGIN)
    assert drained(stream) == []
    stream.give_up()
    events = drained(stream)
    assert found(events) == [LOGIN]
    assert events[0] == Damaged(lie, 0, "cut short")
    stream.give_up()
    stream.receive_data(LOGIN[:10])
    assert drained(stream) == []
    stream.receive_data(LOGIN[10:])
    assert found(drained(stream)) == [LOGIN]


def test_giving_up_once_looks_behind_one_byte_only() -> None:
    stream = FrameStream()
    lie = bytes.fromhex("68feff feff68")
    stream.receive_data(lie + lie + LOGIN)
    stream.give_up()
    assert drained(stream) == []
    stream.give_up()
    assert found(drained(stream)) == [LOGIN]


def test_no_more_is_held_than_a_frame_and_a_piece_of_damage() -> None:
    """A length that never comes to its end, and noise that looks like starts."""
    stream = FrameStream()
    chance = random.Random(1)
    most = 0
    for _ in range(400):
        stream.receive_data(chance.choice((b"\x68", bytes.fromhex("68feff feff68"), chance.randbytes(90))))
        drained(stream)
        most = max(most, stream.held)
    assert LARGEST_FRAME // 2 < most <= LARGEST_FRAME + LONGEST_DAMAGE


def test_bytes_without_end_and_without_taking_events_are_the_callers_error() -> None:
    stream = FrameStream(hold=20_000)
    stream.receive_data(bytes(20_000))
    with pytest.raises(LocalProtocolError):
        stream.receive_data(b"\x00")
    with pytest.raises(LocalProtocolError):
        FrameStream(hold=10_000)


def hostile(kind: str, size: int) -> bytes:
    """Bytes made to cost time: starts without end, and headers whose lengths all lie and overlap."""
    if kind == "flood":
        return b"\x68" * size
    if kind == "headers":
        return (bytes.fromhex("68fefffeff68") * size)[:size]
    if kind == "ends":
        # Every seventh byte is 16H where a lying length looks for it: only the checksum can refuse.
        return (bytes.fromhex("681a161a166816") * size)[:size]
    good = build(parse(LOGIN))
    return (((bytes.fromhex("681a161a166816") * 10) + good) * size)[:size]


@pytest.mark.parametrize("kind", ["flood", "headers", "ends", "mixed"])
def test_time_is_linear_in_hostile_bytes(kind: str) -> None:
    def cost(size: int) -> float:
        data = hostile(kind, size)

        def work() -> None:
            stream = FrameStream()
            for at in range(0, size, 16_384):
                stream.receive_data(data[at : at + 16_384])
                drained(stream)

        return seconds(work)

    small, large = cost(40_000), cost(320_000)
    assert large < 20 * small + 0.005


@pytest.mark.parametrize("kind", ["headers", "ends", "mixed"])
def test_hostile_bytes_hide_no_frame(kind: str) -> None:
    data = hostile(kind, 70_000)
    events = told(data + LOGIN, 5_000)
    check_nothing_is_lost(data + LOGIN, events)
    assert [(event.offset, len(event.raw)) for event in events if isinstance(event, FoundFrame)] == [
        (frame["start"], frame["size"]) for frame in plain.frames(data + LOGIN)
    ]


def test_running_sums_survive_junk_that_was_never_summed() -> None:
    """A failed checksum starts the sums; a long stretch without 68H is given up unsummed; then a frame."""
    wrong = bytearray(LOGIN)
    wrong[-2] ^= 1
    data = bytes(wrong) + b"\x00" * 5000 + LOGIN
    for pieces in (0, 700):
        assert found(told(data, pieces)) == [LOGIN]
