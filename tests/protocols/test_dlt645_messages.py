"""DL/T 645 messages: worked examples, field frames, the declared layouts, both ways."""

from __future__ import annotations

import re
from dataclasses import asdict
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.dlt645 import messages
from protocols.dlt645.frame import WILDCARD, Frame, build, parse
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
    Unknown,
    from_frame,
    to_frame,
)
from protocols.errors import LocalProtocolError
from protocols.permit import Permit
from tests.protocols.vectors import Vector, valid

METER = "202311050012"

# Worked examples: reads, refusals, follow-ups, load profile, shortened address.
EXAMPLES: list[tuple[str, Message]] = [
    ("68120005112320681104333334331D16", ReadRequest(METER, "00010000")),
    (
        "6812000511232068910833333433896745330916",
        ReadReply(METER, "00010000", bytes.fromhex("56341200")),
    ),
    ("68AAAAAAAAAAAA681300DF16", ReadAddressRequest()),
    ("681200051123206893064533384456537116", AddressReply(METER)),
    ("68120005112320 68D10135 4216", ErrorReply(METER, 0x11, 2)),
    (
        "681200051123206 8B10E34386336 33784B534459343333 33B216",
        ReadReply(METER, "03300501", bytes.fromhex("00451820112601000000"), more=True),
    ),
    ("68120005112320681205343863 36348B16", FollowUpRequest(METER, "03300501", 1)),
    (
        "68120005112320689208343863 3634333B34B016",
        FollowUpReply(METER, "03300501", bytes.fromhex("010008"), 1),
    ),
    (
        "68120005112320 68110A343334393433 45574459CA16",
        ReadRequest(METER, "06010001", bytes.fromhex("010012241126")),
    ),
    ("681200AAAAAAAA681104333334336C16", ReadRequest("AAAAAAAA0012", "00010000")),
]

addresses = st.text("0123456789", min_size=12, max_size=12)
dis = st.binary(min_size=4, max_size=4).map(bytes.hex)
sequences = st.integers(1, 255)
all_messages: st.SearchStrategy[Message] = st.one_of(
    st.builds(ReadRequest, addresses, dis, st.binary(max_size=6)),
    st.builds(FollowUpRequest, addresses, dis, sequences),
    st.builds(ReadAddressRequest, addresses),
    st.builds(ReadReply, addresses, dis, st.binary(max_size=196), st.booleans()),
    st.builds(FollowUpReply, addresses, dis, st.binary(max_size=195), sequences, st.booleans()),
    st.builds(ErrorReply, addresses, st.sampled_from([0x11, 0x12, 0x14, 0x1C]), st.integers(0, 255)),
    st.builds(ErrorReply, addresses, st.sampled_from([0x03, 0x1C]), st.integers(0, 65535), st.just(True)),
    st.builds(AddressReply, addresses),
)
dis_1997 = st.binary(min_size=2, max_size=2).map(bytes.hex)
all_messages_1997: st.SearchStrategy[Message] = st.one_of(
    st.builds(ReadRequest, addresses, dis_1997, st.binary(max_size=6)),
    st.builds(FollowUpRequest, addresses, dis_1997, st.just(0)),
    st.builds(ReadAgainRequest, addresses),
    st.builds(ReadReply, addresses, dis_1997, st.binary(max_size=198), st.booleans()),
    st.builds(FollowUpReply, addresses, dis_1997, st.binary(max_size=198), st.just(0), st.booleans()),
    st.builds(ReadAgainReply, addresses, dis_1997, st.binary(max_size=198), st.booleans()),
    st.builds(
        ErrorReply,
        addresses,
        st.sampled_from([0x01, 0x04, 0x10]),
        st.integers(0, 255),
        st.just(False),
        st.just("1997"),
    ),
)


READING = (
    ReadRequest
    | FollowUpRequest
    | ReadAddressRequest
    | ReadAgainRequest
    | ReadReply
    | FollowUpReply
    | ReadAgainReply
    | AddressReply
    | ErrorReply
)


def edition_of_reading(message: Message) -> str:
    if isinstance(message, ReadAgainRequest):
        return "1997"
    return "1997" if len(getattr(message, "di", "")) == 4 else "2007"


def by_layout(frame: Frame, message: Message) -> None:
    """The declared layout reads and writes the data field as `message` says it."""
    if not isinstance(message, READING):
        return  # commands and control messages are read by their layouts, they have no twin
    if isinstance(message, ErrorReply):
        layout = messages.WIDE_ERROR_LAYOUT if message.wide else messages.ERROR_LAYOUT
    else:
        layout = messages.LAYOUTS[edition_of_reading(message)][frame.control]
    size = max(0, len(frame.data) - 5)
    found = {key: value for key, value in layout.parse(frame.data, size=size).items() if key != "_io"}
    fields: dict[str, Any] = asdict(message)
    said = {key: value for key, value in fields.items() if key in found and key != "edition"}
    assert found == said
    assert layout.build(said, size=size) == frame.data


@pytest.mark.parametrize(("text", "message"), EXAMPLES)
def test_a_worked_example_reads_and_writes(text: str, message: Message) -> None:
    raw = bytes.fromhex(text.replace(" ", ""))
    frame = parse(raw)
    assert from_frame(frame) == message
    assert build(to_frame(message)) == raw
    by_layout(frame, message)


@given(all_messages)
def test_what_is_said_is_understood(message: Message) -> None:
    frame = to_frame(message)
    assert from_frame(frame) == message
    by_layout(frame, message)


@given(all_messages_1997)
def test_what_is_said_in_1997_is_understood(message: Message) -> None:
    frame = to_frame(message)
    assert from_frame(frame, "1997") == message
    by_layout(frame, message)


@given(
    st.builds(Frame, addresses, st.integers(0, 255), st.binary(max_size=255)),
    st.sampled_from(["2007", "1997"]),
)
def test_any_frame_is_understood_or_unknown(frame: Frame, edition: str) -> None:
    message = from_frame(frame, edition)
    if isinstance(message, Unknown):
        assert message.frame == frame
        assert message.reason
        if frame.from_meter:
            assert to_frame(message) == frame
        return
    by_layout(frame, message)
    if not isinstance(message, READING):
        return
    try:
        assert to_frame(message) == frame
    except LocalProtocolError:
        # What is received may be longer than what may be sent, or count SEQ from 0.
        assert len(frame.data) > messages.LONGEST_REPLY or 0 in frame.data[-1:]


@pytest.mark.parametrize("control", [0x1F, 0x06, 0x1C, 0x03, 0x14, 0x23])
def test_a_request_that_is_not_understood_is_not_sent(control: int) -> None:
    message = from_frame(Frame(METER, control, b"\x01"))
    assert isinstance(message, Unknown)
    with pytest.raises(LocalProtocolError, match="not understood"):
        to_frame(message, Permit(f"645 {control:02x}", METER, "a test"))


@pytest.mark.parametrize("vector", valid("dlt645-2007"), ids=str)
def test_a_field_frame_is_understood(vector: Vector) -> None:
    frame = parse(vector.raw.lstrip(b"\xfe"))
    message = from_frame(frame)
    expected = vector.expected
    match message:
        case ReadRequest() | FollowUpRequest():
            assert message.di == expected["di"]
            assert getattr(message, "sequence", None) == expected.get("follow_seq")
        case ReadReply():
            assert (message.di, message.data.hex()) == (expected["di"], expected["data"])
        case AddressReply():
            assert message.address == expected["meter_address"]
        case ErrorReply():
            assert f"{message.error:02x}" == expected["error"]
        case ReadAddressRequest():
            assert expected["control"] == "13"
        case _:
            # The functions that are not read here, and two shapes captured without their DI or SEQ.
            assert frame.function not in (0x11, 0x12, 0x13) or vector.id in ("m07-122", "m07-054")
            return
    assert to_frame(message) == frame


@pytest.mark.parametrize(
    ("control", "data"),
    [
        (0x11, "000100"),
        (0x12, "00000100"),
        (0x12, "000001000102"),
        (0x13, "00"),
        (0x91, ""),
        (0xB1, "000100"),
        (0x92, "00000100"),
        (0xB2, "00000100"),
        (0x93, "0102030405"),
        (0xD1, ""),
        (0xD1, "010203"),
        (0xF1, "01"),
        (0x31, "00000100"),
        (0x08, "010203041306"),
        (0x9C, "01"),
        (0x83, "ff0000"),
        (0x1F, "01"),
    ],
)
def test_what_fits_no_message_is_unknown_with_its_reason(control: int, data: str) -> None:
    frame = Frame(METER, control, bytes.fromhex(data))
    message = from_frame(frame)
    assert isinstance(message, Unknown)
    assert re.search(
        f"{len(frame.data)} data bytes do not fit {control:02X}H|is not described here|^{control:02X}H: ",
        message.reason,
    )


def test_an_address_told_from_another_address_keeps_both() -> None:
    frame = Frame(WILDCARD, 0x93, bytes.fromhex("120005112320"))
    message = from_frame(frame)
    assert message == AddressReply(METER, WILDCARD)
    assert to_frame(message) == frame


@pytest.mark.parametrize(
    ("error", "reasons"),
    [
        (ErrorReply(METER, 0x11, 0x02), ("no such data",)),
        (
            ErrorReply(METER, 0x11, 0xFE),
            (
                "no such data",
                "password wrong or not authorised",
                "speed cannot be changed",
                "too many seasons",
                "too many day periods",
                "too many tariffs",
                "reserved bit 7",
            ),
        ),
        (ErrorReply(METER, 0x11, 0), ()),
        (ErrorReply(METER, 0x03, 0x0008, True), ("identity authentication failed or expired",)),
        (ErrorReply(METER, 0x03, 0x8000, True), ("reserved bit 15",)),
        (ErrorReply(METER, 0x1C, 0x04), ("password wrong or not authorised",)),
        (ErrorReply(METER, 0x1C, 0x0020, True), ("trip refused: keep-power is on",)),
        (ErrorReply(METER, 0x01, 0x02, False, "1997"), ("data identifier error",)),
        (ErrorReply(METER, 0x03, 0x05, False, "1997"), ("illegal data", "password wrong or not authorised")),
    ],
)
def test_a_refusal_names_its_reasons(error: ErrorReply, reasons: tuple[str, ...]) -> None:
    assert error.reasons == reasons


@pytest.mark.parametrize(
    "message",
    [
        ReadRequest(METER, "0001000"),
        ReadRequest(METER, "0001000g"),
        ReadRequest(METER, "00 01 00 00"),
        ReadRequest(METER, "00 1"),
        FollowUpRequest(METER, "9010", 1),
        FollowUpReply(METER, "9010", b"", 1),
        ReadAgainReply(METER, "00010000", b""),
        FollowUpRequest(METER, "00010000", 0),
        FollowUpRequest(METER, "00010000", 256),
        ReadReply(METER, "00010000", bytes(197)),
        FollowUpReply(METER, "00010000", bytes(196), 1),
        ErrorReply(METER, 0x20, 0),
        ErrorReply(METER, 0x11, 256),
        ErrorReply(METER, 0x03, 65536, True),
        AddressReply("12"),
        AddressReply("x" * 12),
    ],
)
def test_what_cannot_be_said_is_our_fault(message: Message) -> None:
    with pytest.raises(LocalProtocolError):
        to_frame(message)


def test_a_wide_refusal_has_two_bytes() -> None:
    assert to_frame(ErrorReply(METER, 0x03, 8, True)).data == b"\x08\x00"
    assert to_frame(ErrorReply(METER, 0x11, 8)).data == b"\x08"
