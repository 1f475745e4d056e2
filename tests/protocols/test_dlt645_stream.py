"""DL/T 645 frames out of a byte stream: splits, noise, damage, hostile bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.dlt645.frame import Frame, build, examine
from protocols.dlt645.stream import LONGEST_DAMAGE, FoundFrame, FrameStream
from protocols.errors import LocalProtocolError
from protocols.wire import Damaged
from tests.protocols import plain_dlt645
from tests.protocols.timing import seconds
from tests.protocols.vectors import Vector, tagged, valid, vectors

FIELD = valid("dlt645-2007", "dlt645-1997")
E1 = bytes.fromhex("6812000511232068910833333433896745330916")
NOISE = bytes.fromhex("1668fe00689933")


def run(chunks: Iterable[bytes], end: bool = True) -> list[FoundFrame | Damaged]:
    stream = FrameStream()
    events: list[FoundFrame | Damaged] = []
    for chunk in chunks:
        stream.receive_data(chunk)
        events.extend(iter(stream.next_event, None))
    if end:
        stream.end()
        events.extend(iter(stream.next_event, None))
        assert stream.held == 0
    return events


def found(events: Iterable[FoundFrame | Damaged]) -> list[FoundFrame]:
    return [event for event in events if isinstance(event, FoundFrame)]


def damage(events: Iterable[FoundFrame | Damaged]) -> list[Damaged]:
    return [event for event in events if isinstance(event, Damaged)]


def bytewise(raw: bytes) -> list[bytes]:
    return [raw[at : at + 1] for at in range(len(raw))]


def accounted(raw: bytes, events: list[FoundFrame | Damaged]) -> None:
    """Every byte is in exactly one event, or is FEH between them."""
    at = 0
    for event in events:
        assert event.offset >= at
        assert raw[at : event.offset].strip(b"\xfe") == b""
        assert raw[event.offset : event.offset + len(event.raw)] == event.raw
        assert event.raw
        at = event.offset + len(event.raw)
    assert raw[at:].strip(b"\xfe") == b""


@pytest.mark.parametrize("vector", FIELD, ids=str)
def test_a_field_frame_whole_bytewise_and_in_noise(vector: Vector) -> None:
    raw = vector.raw.lstrip(b"\xfe")
    lead_in = len(vector.raw) - len(raw)
    for chunks in ([vector.raw], bytewise(vector.raw)):
        (event,) = run(chunks)
        assert isinstance(event, FoundFrame)
        assert (event.raw, event.offset) == (raw, lead_in)
    noisy = NOISE + vector.raw + NOISE
    events = run([noisy])
    assert [event.raw for event in found(events)] == [raw]
    accounted(noisy, events)
    twice = run([vector.raw + vector.raw])
    assert [event.raw for event in found(twice)] == [raw, raw]
    assert damage(twice) == []


@pytest.mark.parametrize("vector", FIELD, ids=str)
def test_a_cut_field_frame_waits_and_then_is_damage(vector: Vector) -> None:
    raw = vector.raw.lstrip(b"\xfe")
    for length in range(1, len(raw)):
        assert run([raw[:length]], end=False) == []
        events = run([raw[:length]])
        assert found(events) == []
        assert b"".join(event.raw for event in damage(events)) == raw[:length].rstrip(b"\xfe")
        assert events[0].offset == 0


@pytest.mark.parametrize("vector", FIELD, ids=str)
def test_a_wrong_bit_costs_one_frame_only(vector: Vector) -> None:
    raw = vector.raw.lstrip(b"\xfe")
    for bit in range(0, 8 * len(raw), 3):
        broken = bytearray(raw)
        broken[bit // 8] ^= 1 << bit % 8
        events = run([bytes(broken) + E1])
        assert found(events)[-1].raw == E1
        assert raw not in [event.raw for event in found(events)]


@pytest.mark.parametrize(
    "vector",
    tagged("bad-checksum", "bad-checksum-template", "truncated", "preamble-only", "malformed", "bad-length"),
    ids=str,
)
def test_a_damaged_field_frame_gives_none(vector: Vector) -> None:
    events = run([vector.raw])
    if vector.protocol.startswith("dlt645"):
        assert found(events) == []
    accounted(vector.raw, events)


@pytest.mark.parametrize(
    "vector",
    [v for v in tagged("stream-noise", "concatenated", "double-start", "echo-then-reply") if v.id[0] == "m"],
    ids=str,
)
def test_the_good_frames_in_a_noisy_field_stream_are_found(vector: Vector) -> None:
    events = found(run([vector.raw]))
    assert len(events) == vector.expected.get("frames", 1)
    if "frame_offset" in vector.expected:
        assert events[0].offset == vector.expected["frame_offset"]
    assert [event.raw for event in found(run(bytewise(vector.raw)))] == [event.raw for event in events]


@pytest.mark.parametrize("vector", [v for v in vectors() if v.protocol == "dlt698.45"], ids=str)
def test_a_698_frame_is_no_645_frame(vector: Vector) -> None:
    events = run([vector.raw])
    assert found(events) == []
    accounted(vector.raw, events)


bits_of_stream = st.one_of(
    st.binary(max_size=30),
    st.sampled_from([b"\xfe" * 4, b"\x68", b"\x16", b"\x68" * 9, E1, E1[:13], E1[5:]]),
    st.builds(
        build,
        st.builds(Frame, st.just("202311050012"), st.integers(0, 255), st.binary(max_size=40)),
        st.integers(0, 4),
    ),
)


@given(st.lists(bits_of_stream, max_size=12), st.lists(st.integers(1, 40), max_size=40))
def test_any_bytes_are_frames_or_damage_however_they_are_split(pieces: list[bytes], cuts: list[int]) -> None:
    raw = b"".join(pieces)
    whole = run([raw])
    accounted(raw, whole)
    expected = [(frame["start"], frame["size"]) for frame in plain_dlt645.frames(raw)]
    assert [(event.offset, len(event.raw)) for event in found(whole)] == expected
    chunks = []
    at = 0
    for cut in cuts:
        chunks.append(raw[at : at + cut])
        at += cut
    split = run([*chunks, raw[at:]])
    accounted(raw, split)
    assert found(split) == found(whole)


def test_junk_is_one_event_with_the_first_fault() -> None:
    broken = E1[:-2] + b"\x00\x16"
    (event, good) = run([b"\xfe\xfe" + broken + b"\x11\x22\xfe" + E1])
    assert event == Damaged(broken + b"\x11\x22", 2, "wrong checksum")
    assert isinstance(good, FoundFrame)


def test_lead_in_is_no_damage() -> None:
    assert run([b"\xfe" * 5000]) == []
    (event,) = run([b"\xfe" * 5000 + E1])
    assert event.offset == 5000


def test_feh_between_junk_belongs_to_the_damage_but_not_at_its_end() -> None:
    assert run([b"\xfe\x11\xfe\x22\xfe\xfe"]) == [Damaged(b"\x11\xfe\x22", 1, "no 68H")]


def test_damage_is_told_at_once_when_nothing_can_become_a_frame() -> None:
    assert run([b"\x11\x22"], end=False) == [Damaged(b"\x11\x22", 0, "no 68H")]


def test_a_frame_behind_a_false_start_comes_out_at_the_end() -> None:
    false_start = bytes.fromhex("68aaaaaaaaaaaa6891ff")
    assert run([false_start + E1], end=False) == []
    (event, good) = run([false_start + E1])
    assert event == Damaged(false_start, 0, "cut short")
    assert isinstance(good, FoundFrame)


def test_long_junk_comes_in_bounded_pieces() -> None:
    events = damage(run([bytes(10 * LONGEST_DAMAGE + 5)]))
    assert [len(event.raw) for event in events] == [LONGEST_DAMAGE] * 10 + [5]
    assert [event.offset for event in events] == [at * LONGEST_DAMAGE for at in range(11)]


def test_what_is_held_is_bounded_once_events_are_taken() -> None:
    stream = FrameStream()
    for _ in range(300):
        stream.receive_data(bytes.fromhex("68aaaaaaaaaaaa6891ff") * 100)
        list(iter(stream.next_event, None))
        assert stream.held <= LONGEST_DAMAGE + 267


def test_leaving_events_lying_is_the_callers_error() -> None:
    stream = FrameStream(limit=267)
    stream.receive_data(bytes(267))
    with pytest.raises(LocalProtocolError):
        stream.receive_data(b"\x00")
    list(iter(stream.next_event, None))
    stream.receive_data(b"\x00")
    with pytest.raises(LocalProtocolError):
        FrameStream(limit=266)


def summed_without_end(size: int) -> bytes:
    """68H and 16H laid so that many places reach the checksum and fail there."""
    raw = bytearray(b"\x68" * size)
    for at in range(0, size, 16):
        raw[at + 9 : at + 10] = b"\x04"
        raw[at + 15 : at + 16] = b"\x16"
    return bytes(raw[:size])


@pytest.mark.parametrize(
    "pattern",
    [
        lambda size: b"\x68" * size,
        lambda size: (b"\x68" * 8 + b"\x11\xff") * (size // 10),
        lambda size: (b"\x68" + b"\xfe" * 6) * (size // 7),
        lambda size: b"\xfe" * size,
        summed_without_end,
        lambda size: E1 * (size // len(E1)),
        lambda size: (b"\xfe" * 4 + E1[:-1]) * (size // 23),
    ],
    ids=["68", "long", "68-fe", "fe", "sums", "frames", "cut-frames"],
)
def test_hostile_bytes_cost_linear_time(pattern: Callable[[int], bytes]) -> None:
    def cost(size: int) -> float:
        raw = pattern(size)
        pieces = [raw[at : at + 65536] for at in range(0, len(raw), 65536)]
        return seconds(lambda: run(pieces))

    small, large = cost(40_000), cost(320_000)
    # Eight times the bytes may not cost much more than eight times the time; 5 ms forgive a busy machine.
    assert large < 20 * small + 0.005


def test_a_frame_split_at_every_place_is_the_same_frame() -> None:
    for at in range(len(E1)):
        (event,) = run([E1[:at], E1[at:]])
        assert event.raw == E1
    assert examine(E1, 0) == len(E1)
