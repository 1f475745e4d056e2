"""The package against a second decoder, on field, generated and mutated frames."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.dlt645 import items, messages
from protocols.dlt645.commands import (
    BroadcastTime,
    ChangePassword,
    ChangeSpeed,
    ClearDemand,
    ClearDemand1997,
    ClearEvents,
    ClearMeter,
    Done,
    Freeze,
    OutputReply,
    PasswordReply,
    SelectOutput,
    SpeedReply,
    WriteAddress,
    WriteRequest,
)
from protocols.dlt645.control_messages import (
    OPAQUE,
    RelayCommand,
    RelayReply,
    SealedCommand,
    SecurityFields,
    SecurityReply,
    SecurityRequest,
)
from protocols.dlt645.fields import Authority
from protocols.dlt645.frame import Frame, build
from protocols.dlt645.messages import (
    AddressReply,
    ErrorReply,
    FollowUpReply,
    FollowUpRequest,
    Message,
    ReadAddressRequest,
    ReadAgainReply,
    ReadAgainRequest,
    ReadReply,
    ReadRequest,
)
from protocols.dlt645.stream import FoundFrame, FrameStream
from protocols.errors import RemoteProtocolError
from tests.protocols import plain_dlt645 as plain
from tests.protocols.vectors import Vector, vectors

Decoder = Callable[[str, bytes], tuple[items.Value, ...]]


def who(authority: Authority) -> tuple[str, str, str]:
    return (authority.level, authority.password, authority.operator)


def secret(authority: Authority) -> tuple[str, str]:
    return (authority.level, authority.password)


def parts(at: datetime | None) -> tuple[int, ...] | None:
    return None if at is None else (at.year, at.month, at.day, at.hour, at.minute, at.second)


def wire_order(told: SecurityFields) -> bytes:
    return b"".join(value if name == OPAQUE else value[::-1] for name, value in told)


def told(frame: Frame, edition: str = "2007") -> tuple[object, ...] | None:
    """What the package says of a frame, in the second decoder's words."""
    match messages.from_frame(frame, edition):
        case ReadRequest(_, di, extra):
            return ("read", di, extra)
        case FollowUpRequest(_, di, sequence):
            return ("follow-up", di, sequence)
        case ReadAddressRequest():
            return ("read address",)
        case ReadAgainRequest():
            return ("read again",)
        case ReadReply(_, di, data, more):
            return ("reply", di, data, more)
        case ReadAgainReply(_, di, data, more):
            return ("again", di, data, more)
        case FollowUpReply(_, di, data, sequence, more):
            return ("follow-up reply", di, data, sequence, more)
        case AddressReply(address):
            return ("address", address)
        case ErrorReply(_, function, error):
            return ("error", function, error)
        case message:
            return told_order(message)


def told_order(message: Message) -> tuple[object, ...] | None:
    match message:
        case BroadcastTime(at):
            return ("time", parts(at))
        case WriteRequest(_, di, authority, data):
            return ("write", di, *who(authority), data)
        case WriteAddress(new_address):
            return ("new address", new_address)
        case Freeze(_, month, day, hour, minute):
            return ("freeze", month, day, hour, minute)
        case ChangeSpeed(_, word):
            return ("speed", word)
        case SpeedReply(_, word):
            return ("speed set", word)
        case ChangePassword(_, di, old, new):
            return ("password", di, *secret(old), *secret(new))
        case PasswordReply(_, new):
            return ("password set", *secret(new))
        case ClearDemand(_, authority, sealed):
            return ("clear demand", *who(authority), sealed)
        case ClearMeter(_, authority, sealed):
            return ("clear meter", *who(authority), sealed)
        case ClearEvents(_, authority, di, sealed):
            return ("clear events", *who(authority), di, sealed)
        case ClearDemand1997(_, authorisation):
            return ("clear demand", authorisation)
        case SelectOutput(_, output):
            return ("output", output)
        case OutputReply(_, output):
            return ("output set", output)
        case Done(_, function):
            return ("done", function)
        case RelayReply(_, word):
            return ("relay accepted", word)
        case RelayCommand(_, verb, authority, deadline, restore):
            return ("relay", verb.word, *who(authority), restore, parts(deadline))
        case SealedCommand(_, authority, block):
            return ("relay sealed", *who(authority), block)
        case SecurityRequest(_, di, operator, fields):
            return ("security", di, operator, wire_order(fields))
        case SecurityReply(_, di, fields):
            return ("security reply", di, wire_order(fields))
    return None


def read(di: str, data: bytes, decoder: Decoder) -> list[Fraction | None] | str:
    try:
        values = decoder(di, data)
    except RemoteProtocolError as error:
        return "length" if "do not fit" in error.reason else "digits"
    return [None if value.value is None else Fraction(Decimal(value.value)) for value in values]


def agree(raw: bytes, decoder: Decoder = items.decode) -> None:
    stream = FrameStream()
    stream.receive_data(raw)
    stream.end()
    found = [event for event in iter(stream.next_event, None) if isinstance(event, FoundFrame)]
    expected = plain.frames(raw)
    assert [(event.offset, len(event.raw)) for event in found] == [
        (frame["start"], frame["size"]) for frame in expected
    ]
    for event, other in zip(found, expected, strict=True):
        frame = event.frame
        assert (frame.address, frame.control, frame.data) == (
            other["address"],
            other["control"],
            other["data"],
        )
        assert told(frame, "1997") == plain.message_1997(frame.control, frame.data)
        message = plain.message(frame.control, frame.data)
        assert told(frame) == message
        if message is not None and message[0] == "reply":
            di, data = str(message[1]), frame.data[4:]
            values = plain.values(di, data)
            if values is not None:
                assert read(di, data, decoder) == values


@pytest.mark.parametrize("vector", vectors(), ids=str)
def test_both_read_the_field_frames_alike(vector: Vector) -> None:
    agree(vector.raw)
    agree(vector.raw + vector.raw[:-1] + vector.raw)


known_dis = st.one_of(
    st.sampled_from(["00010000", "00000000", "0001ff00", "0000ff00", "05060101", "05060301", "02030000"]),
    st.builds(
        "{:02x}{:02x}{:02x}{:02x}".format,
        st.sampled_from([0x00, 0x02, 0x05]),
        st.sampled_from([0, 1, 2, 3, 4, 5, 6, 10]),
        st.sampled_from([0, 1, 2, 3, 4, 5, 0x3F, 0xFF]),
        st.sampled_from([0, 1, 2, 0x0C, 0x3E]),
    ),
)
digits = st.integers(0, 99).map(lambda value: int(str(value), 16))
almost_digits = st.lists(digits | st.just(0xFF) | st.integers(0, 255), max_size=24).map(bytes)
replies = st.builds(
    lambda di, data, more: messages.to_frame(ReadReply("202311050012", di, data, more)),
    known_dis,
    st.lists(digits, max_size=24).map(bytes) | almost_digits,
    st.booleans(),
)
ORDERS = [0x03, 0x08, *range(0x14, 0x1E), 0x83, *range(0x94, 0x9E)]
ORDERS_1997 = [
    1,
    2,
    3,
    4,
    8,
    10,
    12,
    15,
    16,
    0x81,
    0x82,
    0x83,
    0x84,
    0x8A,
    0x8C,
    0x8F,
    0x90,
    0xA1,
    0xA2,
    0xC1,
]
# Bytes that orders are made of: digits, 99, levels, verbs.
order_bytes = (
    digits | st.sampled_from([0x99, 0x98, 0x00, 0x01, 0x12, *plain.RELAY_VERBS]) | st.integers(0, 255)
)
orders = st.builds(
    lambda control, head, time: Frame("202311050012", control, bytes(head) + time),
    st.sampled_from(ORDERS + ORDERS_1997),
    st.lists(order_bytes, max_size=14),
    st.sampled_from([b"", bytes(6), bytes.fromhex("000013241126"), bytes.fromhex("000013290226")]),
)
frames = (
    replies
    | orders
    | st.builds(
        Frame,
        st.text("0123456789ABCDEF", min_size=12, max_size=12),
        st.sampled_from([0x11, 0x12, 0x13, 0x91, 0xB1, 0x92, 0xB2, 0x93, 0xD1, 0xD2, 0xDC])
        | st.integers(0, 255),
        st.binary(max_size=12),
    )
)


@given(st.lists(frames, max_size=4), st.integers(0, 3))
def test_both_read_generated_frames_alike(built: list[Frame], lead_in: int) -> None:
    agree(b"".join(build(frame, lead_in) for frame in built))


@given(
    st.sampled_from([vector for vector in vectors() if vector.protocol == "dlt645-2007"]).map(lambda v: v.raw)
    | frames.map(build),
    st.lists(st.tuples(st.integers(0, 300), st.integers(0, 255)), min_size=1, max_size=4),
    st.booleans(),
)
def test_both_read_mutated_frames_alike(raw: bytes, changes: list[tuple[int, int]], repaired: bool) -> None:
    broken = bytearray(raw)
    for place, value in changes:
        broken[place % len(broken)] = value
    start = broken.find(0x68)
    if repaired and start >= 0 and len(broken) - start > 2:
        broken[-2] = sum(broken[start:-2]) & 0xFF
    agree(bytes(broken))
    agree(bytes(broken) + raw)


def _with_sign_everywhere(di: str, data: bytes) -> tuple[items.Value, ...]:
    return tuple(
        replace(value, value=f"-{value.value}") if value.raw[-1] >= 0x80 and value.value else value
        for value in items.decode(di, data)
    )


def _with_zero_for_nothing(di: str, data: bytes) -> tuple[items.Value, ...]:
    return tuple(replace(value, value=value.value or "0") for value in items.decode(di, data))


def _with_high_byte_first(di: str, data: bytes) -> tuple[items.Value, ...]:
    return items.decode(di, data[::-1])


def _with_four_tariffs(di: str, data: bytes) -> tuple[items.Value, ...]:
    return items.decode(di, data)[:5]


@pytest.mark.parametrize(
    ("decoder", "di", "data"),
    [
        (_with_sign_everywhere, "00010000", "00000090"),
        (_with_zero_for_nothing, "0201ff00", "0422ffffffff"),
        (_with_high_byte_first, "00010000", "56341200"),
        (_with_four_tariffs, "0001ff00", "00" * 4 * 13),
    ],
)
def test_a_planted_fault_is_noticed(decoder: Decoder, di: str, data: str) -> None:
    raw = build(messages.to_frame(ReadReply("202311050012", di, bytes.fromhex(data))))
    agree(raw)
    with pytest.raises(AssertionError):
        agree(raw, decoder)
