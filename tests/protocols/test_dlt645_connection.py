"""Both ends of a DL/T 645 line: matching, follow-ups, repeats, silence, echoes, late answers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.dlt645 import messages
from protocols.dlt645.connection import (
    Answered,
    Asked,
    Master,
    MasterEvent,
    Refused,
    Silent,
    Slave,
    Unmatched,
)
from protocols.dlt645.frame import WILDCARD, Frame, build
from protocols.dlt645.messages import (
    AddressReply,
    ErrorReply,
    FollowUpReply,
    FollowUpRequest,
    Message,
    ReadAddressRequest,
    ReadReply,
    ReadRequest,
    Unknown,
)
from protocols.errors import LocalProtocolError
from protocols.wire import Damaged
from tests.protocols.vectors import vectors

METER = "202311050012"
OTHER = "202311050013"
READ = ReadRequest(METER, "05060101")


def events(master: Master) -> list[MasterEvent]:
    return list(iter(master.next_event, None))


def raw(message: Message) -> bytes:
    return build(messages.to_frame(message))


def hear(master: Master, *heard: Message | bytes, now: float = 0.0) -> list[MasterEvent]:
    for item in heard:
        master.receive_data(item if isinstance(item, bytes) else raw(item), now)
    return events(master)


def test_a_read_is_answered() -> None:
    master = Master(lead_in=4)
    sent = master.send(READ, 10.0)
    assert sent == b"\xfe" * 4 + raw(READ)
    assert master.busy
    assert master.next_timeout() == 12.0
    assert hear(master, ReadReply(METER, "05060101", b"\x01\x02")) == [
        Answered(READ, "05060101", b"\x01\x02", METER)
    ]
    assert not master.busy
    assert master.next_timeout() is None
    assert master.data_to_send() == b""


def test_follow_ups_are_fetched_and_joined() -> None:
    master = Master(reply_timeout=2.0, lead_in=0)
    master.send(READ, 0.0)
    assert hear(master, ReadReply(METER, "05060101", b"\x01", more=True), now=1.0) == []
    assert master.data_to_send() == raw(FollowUpRequest(METER, "05060101", 1))
    assert master.next_timeout() == 3.0
    assert hear(master, FollowUpReply(METER, "05060101", b"\x02", 1, more=True), now=2.0) == []
    assert master.data_to_send() == raw(FollowUpRequest(METER, "05060101", 2))
    assert hear(master, FollowUpReply(METER, "05060101", b"\x03", 2)) == [
        Answered(READ, "05060101", b"\x01\x02\x03", METER)
    ]
    assert master.data_to_send() == b""


def test_a_follow_up_of_another_sequence_is_not_taken() -> None:
    master = Master(repeats=0, lead_in=0)
    master.send(READ, 0.0)
    hear(master, ReadReply(METER, "05060101", b"\x01", more=True))
    stale = FollowUpReply(METER, "05060101", b"\x09", 2)
    assert hear(master, stale) == [Unmatched(stale, raw(stale))]
    again = ReadReply(METER, "05060101", b"\x01", more=True)
    assert hear(master, again) == [Unmatched(again, raw(again))]
    master.handle_timeout(5.0)
    assert events(master) == [Silent(READ, b"\x01")]


def test_a_silent_follow_up_is_asked_again_with_the_same_sequence() -> None:
    master = Master(reply_timeout=2.0, repeats=1, lead_in=0)
    master.send(READ, 0.0)
    hear(master, ReadReply(METER, "05060101", b"\x01", more=True))
    asked = master.data_to_send()
    master.handle_timeout(2.0)
    assert master.data_to_send() == asked
    assert hear(master, FollowUpReply(METER, "05060101", b"\x02", 1)) == [
        Answered(READ, "05060101", b"\x01\x02", METER)
    ]


def test_a_refused_follow_up_refuses_the_request() -> None:
    master = Master()
    master.send(READ, 0.0)
    hear(master, ReadReply(METER, "05060101", b"\x01", more=True))
    error = ErrorReply(METER, 0x12, 2)
    assert hear(master, error) == [Refused(READ, error)]


def test_a_meter_that_never_ends_its_follow_ups_is_given_up() -> None:
    master = Master(lead_in=0)
    master.send(READ, 0.0)
    told = hear(master, ReadReply(METER, "05060101", b"\x00", more=True))
    for sequence in range(1, 256):
        assert told == []
        assert master.data_to_send() == raw(FollowUpRequest(METER, "05060101", sequence))
        told = hear(master, FollowUpReply(METER, "05060101", b"\x00", sequence, more=True))
    assert told == [Silent(READ, bytes(256))]
    assert master.data_to_send() == b""


def test_silence_repeats_and_then_gives_up() -> None:
    master = Master(reply_timeout=1.5, repeats=2)
    sent = master.send(READ, 0.0)
    for attempt in (1, 2):
        master.handle_timeout(1.5 * attempt - 0.1)
        assert master.data_to_send() == b""
        master.handle_timeout(1.5 * attempt)
        assert master.data_to_send() == sent
        assert events(master) == []
    master.handle_timeout(4.5)
    assert events(master) == [Silent(READ)]
    assert not master.busy
    master.handle_timeout(9.0)
    assert events(master) == []


def test_a_late_answer_is_unmatched() -> None:
    master = Master(repeats=0)
    master.send(READ, 0.0)
    master.handle_timeout(2.0)
    assert events(master) == [Silent(READ)]
    late = ReadReply(METER, "05060101", b"\x01")
    assert hear(master, late) == [Unmatched(late, raw(late))]
    following = ReadRequest(METER, "05060102")
    master.send(following, 3.0)
    assert hear(master, late) == [Unmatched(late, raw(late))]
    assert master.busy


@pytest.mark.parametrize(
    "stranger",
    [
        ReadReply(METER, "05060102", b"\x01"),
        ReadReply(OTHER, "05060101", b"\x01"),
        ReadReply(WILDCARD, "05060101", b"\x01"),
        ErrorReply(OTHER, 0x11, 2),
        ErrorReply(METER, 0x14, 2),
        FollowUpReply(METER, "05060101", b"\x01", 1),
        AddressReply(METER),
        ReadRequest(OTHER, "05060101"),
        Unknown(Frame(METER, 0x91), "0 data bytes do not fit 91H"),
    ],
)
def test_what_does_not_answer_the_request_is_unmatched(stranger: Message) -> None:
    master = Master()
    master.send(READ, 0.0)
    assert hear(master, stranger) == [Unmatched(stranger, raw(stranger))]
    assert master.busy


def test_a_wildcard_is_answered_by_the_meters_own_address() -> None:
    asked = ReadRequest("AAAAAAAA0012", "00010000")
    master = Master(lead_in=0)
    master.send(asked, 0.0)
    assert hear(master, ReadReply(METER, "00010000", b"\x01", more=True)) == []
    assert master.data_to_send() == raw(FollowUpRequest(METER, "00010000", 1))
    assert hear(master, FollowUpReply(METER, "00010000", b"\x02", 1)) == [
        Answered(asked, "00010000", b"\x01\x02", METER)
    ]


@pytest.mark.parametrize("sender", ["", WILDCARD])
def test_an_address_is_read(sender: str) -> None:
    master = Master()
    master.send(ReadAddressRequest(), 0.0)
    assert hear(master, AddressReply(METER, sender)) == [
        Answered(ReadAddressRequest(), "", bytes.fromhex("120005112320"), METER)
    ]


def test_an_address_asked_of_one_meter_is_not_taken_from_another() -> None:
    master = Master()
    master.send(ReadAddressRequest(METER), 0.0)
    stranger = AddressReply(OTHER)
    assert hear(master, stranger) == [Unmatched(stranger, raw(stranger))]


def test_the_echo_of_a_two_wire_line_is_passed_over_once() -> None:
    master = Master()
    sent = master.send(READ, 0.0)
    assert hear(master, sent) == []
    assert hear(master, sent) == [Unmatched(READ, raw(READ))]
    assert hear(master, ReadReply(METER, "05060101", b"")) == [Answered(READ, "05060101", b"", METER)]


def test_the_captured_echo_then_reply() -> None:
    (vector,) = (vector for vector in vectors() if vector.tag == "echo-then-reply")
    asked = ReadRequest("123456789012", "00010000")
    master = Master()
    master.send(asked, 0.0)
    assert hear(master, vector.raw) == [
        Answered(asked, "00010000", bytes.fromhex("56341200"), "123456789012")
    ]


def test_damage_is_told_and_the_answer_behind_it_taken() -> None:
    master = Master()
    master.send(READ, 0.0)
    told = hear(master, b"\x11\x22", ReadReply(METER, "05060101", b"\x01"))
    assert told == [Damaged(b"\x11\x22", 0, "no 68H"), Answered(READ, "05060101", b"\x01", METER)]


def test_an_answer_behind_a_false_start_is_found_before_the_repeat() -> None:
    false_start = bytes.fromhex("68aaaaaaaaaaaa6891ff")
    master = Master()
    master.send(READ, 0.0)
    assert hear(master, false_start, ReadReply(METER, "05060101", b"\x01")) == []
    master.handle_timeout(2.0)
    assert events(master) == [
        Damaged(false_start, 0, "cut short"),
        Answered(READ, "05060101", b"\x01", METER),
    ]
    assert master.data_to_send() == b""


def test_a_first_part_behind_a_false_start_asks_for_the_next() -> None:
    master = Master(repeats=0, lead_in=0)
    master.send(READ, 0.0)
    hear(master, bytes.fromhex("68aaaaaaaaaaaa6891ff"), ReadReply(METER, "05060101", b"\x01", more=True))
    master.handle_timeout(2.0)
    assert master.data_to_send() == raw(FollowUpRequest(METER, "05060101", 1))
    assert master.next_timeout() == 4.0


def test_half_a_frame_from_before_does_not_swallow_the_answer() -> None:
    master = Master()
    assert hear(master, bytes.fromhex("68aaaaaaaaaaaa6891ff")) == []
    master.send(READ, 0.0)
    told = hear(master, ReadReply(METER, "05060101", b"\x01"))
    assert [type(event) for event in told] == [Damaged, Answered]


def test_one_exchange_at_a_time() -> None:
    master = Master()
    master.send(READ, 0.0)
    with pytest.raises(LocalProtocolError):
        master.send(READ, 0.0)
    master.abandon()
    assert master.next_timeout() is None
    master.send(READ, 0.0)


def test_a_request_that_cannot_be_sent_opens_nothing() -> None:
    master = Master()
    for wrong in (ReadRequest(METER, "05"), ReadRequest("12", "05060101")):
        with pytest.raises(LocalProtocolError):
            master.send(wrong, 0.0)
    with pytest.raises(LocalProtocolError):
        master.send(FollowUpRequest(METER, "05060101", 1), 0.0)  # type: ignore[arg-type]  # the point of it
    assert not master.busy
    assert master.next_timeout() is None


def test_a_slave_hears_requests_and_answers() -> None:
    slave = Slave()
    slave.receive_data(b"\x11\xfe\xfe" + raw(READ) + raw(ReadReply(OTHER, "00010000", b"")), 0.0)
    slave.receive_data(raw(ReadAddressRequest())[:5], 0.0)
    assert list(iter(slave.next_event, None)) == [Damaged(b"\x11", 0, "no 68H"), Asked(READ)]
    assert slave.next_timeout() is None
    slave.handle_timeout(1.0)
    (damage,) = iter(slave.next_event, None)
    assert isinstance(damage, Damaged)
    assert damage.reason == "cut short"
    reply = ReadReply(METER, "05060101", b"\x01")
    assert slave.send(reply, 0.0) == raw(reply)
    assert slave.send(reply, 0.0, lead_in=2) == b"\xfe\xfe" + raw(reply)
    assert slave.data_to_send() == b""
    with pytest.raises(LocalProtocolError):
        slave.send(READ, 0.0)


@given(st.binary(min_size=1, max_size=600), st.sampled_from([3, 50, 195]))
def test_two_ends_bring_any_data_across(data: bytes, size: int) -> None:
    """A slave that splits its answer at any byte, and a master that joins it."""
    parts = [data[at : at + size] for at in range(0, len(data), size)]
    master, slave = Master(), Slave()
    outgoing = master.send(READ, 0.0)
    told: list[MasterEvent] = []
    for _ in range(len(parts)):
        slave.receive_data(outgoing, 0.0)
        (asked,) = iter(slave.next_event, None)
        assert isinstance(asked, Asked)
        match asked.message:
            case ReadRequest(address, di):
                reply: Message = ReadReply(address, di, parts[0], more=len(parts) > 1)
            case FollowUpRequest(address, di, sequence):
                more = sequence + 1 < len(parts)
                reply = FollowUpReply(address, di, parts[sequence], sequence, more)
            case _:
                raise AssertionError(asked)
        told += hear(master, slave.send(reply, 0.0))
        outgoing = master.data_to_send()
    assert told == [Answered(READ, "05060101", data, METER)]
    assert outgoing == b""


@given(st.lists(st.binary(max_size=60), max_size=8), st.booleans())
def test_any_bytes_leave_both_ends_standing(chunks: list[bytes], open_exchange: bool) -> None:
    master, slave = Master(), Slave()
    if open_exchange:
        master.send(READ, 0.0)
    for at, chunk in enumerate(chunks):
        hear(master, chunk, now=float(at))
        master.handle_timeout(float(at))
        slave.receive_data(chunk, float(at))
        list(iter(slave.next_event, None))
    master.handle_timeout(100.0)
    events(master)
