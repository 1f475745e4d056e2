"""DL/T 645-1997: worked examples, captured frames, uncounted follow-ups, reads sent to all meters."""

from __future__ import annotations

import pytest

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
from protocols.dlt645.frame import BROADCAST, Frame, build, parse
from protocols.dlt645.messages import (
    ErrorReply,
    FollowUpReply,
    FollowUpRequest,
    Message,
    ReadAgainReply,
    ReadAgainRequest,
    ReadReply,
    ReadRequest,
    Unknown,
    from_frame,
    to_frame,
)
from protocols.dlt645.profiles import load, standard
from protocols.wire import Damaged
from tests.protocols.vectors import Vector, valid

METER = "000000001234"
READ = ReadRequest(METER, "901f")


def raw(message: Message) -> bytes:
    return build(to_frame(message))


def hear(master: Master, *heard: Message) -> list[MasterEvent]:
    for message in heard:
        master.receive_data(raw(message), 0.0)
    return list(iter(master.next_event, None))


def master(repeats: int = 0) -> Master:
    return Master(2.0, repeats, 0, standard("1997"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("68 34 12 00 00 00 00 68 01 02 43 C3 1F 16", ReadRequest(METER, "9010")),
        (
            "68 34 12 00 00 00 00 68 81 06 43 C3 45 BC 3A 33 11 16",
            ReadReply(METER, "9010", bytes.fromhex("12890700")),
        ),
        ("68 34 12 00 00 00 00 68 81 04 44 E9 54 35 51 16", ReadReply(METER, "b611", b"\x21\x02")),
        ("68 34 12 00 00 00 00 68 C1 01 35 0D 16", ErrorReply(METER, 0x01, 2, edition="1997")),
    ],
)
def test_a_worked_example_reads_and_writes(text: str, message: Message) -> None:
    frame = parse(bytes.fromhex(text))
    assert from_frame(frame, "1997") == message
    assert build(to_frame(message)) == bytes.fromhex(text)


@pytest.mark.parametrize("vector", valid("dlt645-1997"), ids=str)
def test_a_captured_frame_is_understood(vector: Vector) -> None:
    frame = parse(vector.raw.lstrip(b"\xfe"))
    message = from_frame(frame, "1997")
    expected = vector.expected
    match message:
        case ReadRequest() | ReadReply():
            assert message.di == expected["di"]
            assert to_frame(message) == frame
        case ErrorReply():
            assert f"{message.error:02x}" == expected["error"]
            assert to_frame(message) == frame
        case Unknown():
            assert expected["control"] == "05"
        case _:
            assert expected["control"] == "04"


@pytest.mark.parametrize("vector", valid("dlt645-1997"), ids=str)
def test_the_other_edition_does_not_take_it_for_its_own(vector: Vector) -> None:
    frame = parse(vector.raw.lstrip(b"\xfe"))
    assert isinstance(from_frame(frame), Unknown | ErrorReply)


def test_3_is_security_in_one_edition_and_read_again_in_the_other() -> None:
    assert from_frame(Frame(METER, 0x03), "1997") == ReadAgainRequest(METER)
    assert isinstance(from_frame(Frame(METER, 0x03)), Unknown)
    data = bytes.fromhex("1090") + b"\1\2\3\4"
    assert from_frame(Frame(METER, 0x83, data), "1997") == ReadAgainReply(METER, "9010", b"\1\2\3\4")
    assert from_frame(Frame(METER, 0xA3, data), "1997") == ReadAgainReply(METER, "9010", b"\1\2\3\4", True)


@pytest.mark.parametrize(
    ("control", "data"),
    [
        (0x01, "10"),
        (0x02, "109001"),
        (0x03, "00"),
        (0x81, "10"),
        (0xA2, ""),
        (0x83, "10"),
        (0xC1, "0200"),
        (0xE1, "02"),
    ],
)
def test_what_does_not_fit_is_unknown(control: int, data: str) -> None:
    message = from_frame(Frame(METER, control, bytes.fromhex(data)), "1997")
    assert isinstance(message, Unknown)
    assert message.reason == f"{len(data) // 2} data bytes do not fit {control:02X}H"


def test_follow_ups_are_fetched_without_a_number() -> None:
    line = master()
    line.send(READ, 0.0)
    assert hear(line, ReadReply(METER, "901f", b"\1", more=True)) == []
    asked = line.data_to_send()
    assert asked == raw(FollowUpRequest(METER, "901f", 0))
    assert asked[8:12] == bytes.fromhex("02 02 52 c3")
    assert hear(line, FollowUpReply(METER, "901f", b"\2", 0, more=True)) == []
    assert line.data_to_send() == asked
    assert hear(line, FollowUpReply(METER, "901f", b"\3", 0)) == [Answered(READ, "901f", b"\1\2\3", METER)]


def test_the_same_part_twice_is_damage_for_nobody_can_tell() -> None:
    line = master()
    line.send(READ, 0.0)
    hear(line, ReadReply(METER, "901f", b"\1", more=True))
    part = FollowUpReply(METER, "901f", b"\2", 0, more=True)
    assert hear(line, part) == []
    (damage,) = hear(line, part)
    assert isinstance(damage, Damaged)
    assert (damage.raw, damage.reason) == (raw(part), "the same part came again")
    line.handle_timeout(2.0)
    assert list(iter(line.next_event, None)) == [Silent(READ, b"\1\2")]


def test_after_a_lost_part_the_read_begins_again() -> None:
    line = master(repeats=1)
    begun = line.send(READ, 0.0)
    hear(line, ReadReply(METER, "901f", b"\1", more=True))
    line.data_to_send()
    line.handle_timeout(2.0)
    assert line.data_to_send() == begun
    late = FollowUpReply(METER, "901f", b"\2", 0)
    assert hear(line, late) == [Unmatched(late, raw(late))]
    assert hear(line, ReadReply(METER, "901f", b"\1", more=True)) == []
    assert hear(line, FollowUpReply(METER, "901f", b"\2", 0)) == [Answered(READ, "901f", b"\1\2", METER)]


def test_a_read_does_not_begin_again_for_ever() -> None:
    line = master(repeats=2)
    line.send(READ, 0.0)
    for second in (2.0, 4.0):
        hear(line, ReadReply(METER, "901f", b"\1", more=True))
        line.data_to_send()
        line.handle_timeout(100 * second)
        assert line.data_to_send() == raw(READ)
    hear(line, ReadReply(METER, "901f", b"\1", more=True))
    line.handle_timeout(1e6)
    assert list(iter(line.next_event, None)) == [Silent(READ, b"\1")]


def test_the_last_answer_is_read_again() -> None:
    line, slave = master(), Slave("1997")
    said = slave.send(ReadReply(METER, "9010", b"\1\2\3\4"), 0.0)
    assert said
    slave.receive_data(line.send(ReadAgainRequest(METER), 0.0), 0.0)
    assert slave.next_event() is None
    line.receive_data(slave.data_to_send(), 0.0)
    assert line.next_event() == Answered(ReadAgainRequest(METER), "9010", b"\1\2\3\4", METER)
    slave.receive_data(raw(ReadAgainRequest("000000009999")), 0.0)
    assert slave.next_event() == Asked(ReadAgainRequest("000000009999"))


def test_a_last_answer_with_more_to_come_is_not_begun_anew() -> None:
    line = master(repeats=1)
    line.send(ReadAgainRequest(METER), 0.0)
    hear(line, ReadAgainReply(METER, "901f", b"\1", more=True))
    assert line.data_to_send() == raw(FollowUpRequest(METER, "901f", 0))
    line.handle_timeout(2.0)
    assert list(iter(line.next_event, None)) == [Silent(ReadAgainRequest(METER), b"\1")]


def test_a_read_sent_to_all_is_answered_by_the_meter_itself() -> None:
    asked = ReadRequest(BROADCAST, "9010")
    reply = ReadReply("201708176934", "9010", b"\1\2\3\4")
    line = Master(profile=load()["broadcast-1997"])
    line.send(asked, 0.0)
    assert hear(line, reply) == [Answered(asked, "9010", b"\1\2\3\4", "201708176934")]
    strict = master()
    strict.send(asked, 0.0)
    assert hear(strict, reply) == [Unmatched(reply, raw(reply))]


def test_a_captured_conversation_at_the_broadcast_address() -> None:
    """Request and answer of one bus log: C032, the meter number."""
    frames = {vector.id: vector.raw.lstrip(b"\xfe") for vector in valid("dlt645-1997")}
    asked = from_frame(parse(frames["m97-058"]), "1997")
    assert isinstance(asked, ReadRequest)
    line = Master(lead_in=0, profile=load()["broadcast-1997"])
    assert line.send(asked, 0.0) == frames["m97-058"]
    line.receive_data(frames["m97-059"], 0.0)
    assert line.next_event() == Answered(asked, "c032", bytes.fromhex("346917081720"), "201708176934")


def test_a_captured_refusal() -> None:
    frames = {vector.id: vector.raw.lstrip(b"\xfe") for vector in valid("dlt645-1997")}
    refusal = parse(frames["m97-055"])
    line = master()
    asked = ReadRequest(refusal.address, "90ff")
    line.send(asked, 0.0)
    line.receive_data(frames["m97-055"], 0.0)
    told = line.next_event()
    assert isinstance(told, Refused)
    assert told.error.reasons == ("data identifier error",)
    assert messages.to_frame(told.error) == refusal
