"""The search for an unknown meter's edition and address, against meters of both editions and none."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.dlt645 import messages
from protocols.dlt645.connection import Asked, Slave, Unmatched
from protocols.dlt645.frame import BROADCAST, WILDCARD, build, matches
from protocols.dlt645.messages import (
    AddressReply,
    ErrorReply,
    Message,
    ReadAddressRequest,
    ReadReply,
    ReadRequest,
)
from protocols.dlt645.probe import Found, NotFound, Probe, ProbeEvent
from protocols.errors import LocalProtocolError
from protocols.wire import Damaged

METER = "202311050012"
ENERGY = bytes.fromhex("56341200")
Meter = Callable[[Message], Message | None]


def raw(message: Message) -> bytes:
    return build(messages.to_frame(message))


def meter_2007(message: Message) -> Message | None:
    match message:
        case ReadAddressRequest(address) if matches(address, METER):
            return AddressReply(METER)
        case ReadRequest(address, "00010000") if matches(address, METER):
            return ReadReply(METER, "00010000", ENERGY)
    return None


def meter_without_13(message: Message) -> Message | None:
    return None if isinstance(message, ReadAddressRequest) else meter_2007(message)


def meter_1997(message: Message) -> Message | None:
    match message:
        case ReadRequest(address, "9010") if matches(address, METER):
            return ReadReply(METER, "9010", ENERGY)
    return None


def meter_1997_at_broadcast(message: Message) -> Message | None:
    match message:
        case ReadRequest(address, "9010") if address == BROADCAST:
            return ReadReply(METER, "9010", ENERGY)
    return None


def meter_that_refuses(message: Message) -> Message | None:
    match message:
        case ReadRequest(_, "00010000"):
            return ErrorReply(METER, 0x11, 2)
    return None


def meter_1997_that_refuses_11(message: Message) -> Message | None:
    return meter_that_refuses(message) or meter_1997(message)


def meter_1997_that_refuses(message: Message) -> Message | None:
    match message:
        case ReadRequest(_, "9010"):
            return ErrorReply(METER, 0x01, 2, edition="1997")
    return None


def meter_that_refuses_all(message: Message) -> Message | None:
    return meter_that_refuses(message) or meter_1997_that_refuses(message)


def nobody(message: Message) -> Message | None:
    return None


def search(probe: Probe, meter: Meter, editions: tuple[str, ...] = ("2007", "1997")) -> list[ProbeEvent]:
    """Play until the end; the meter hears in both editions, so that nothing here tells the probe which."""
    told: list[ProbeEvent] = []
    outgoing = probe.start(0.0)
    now = 0.0
    while True:
        for edition in editions:
            slave = Slave(edition)
            slave.receive_data(outgoing, now)
            for event in iter(slave.next_event, None):
                assert isinstance(event, Asked)
                reply = meter(event.message)
                if reply is not None:
                    probe.receive_data(slave.send(reply, now), now)
        told += iter(probe.next_event, None)
        outgoing = probe.data_to_send()
        if outgoing:
            continue
        deadline = probe.next_timeout()
        if deadline is None:
            assert not probe.busy
            return told
        now = deadline
        probe.handle_timeout(now)
        told += iter(probe.next_event, None)
        outgoing = probe.data_to_send()


@pytest.mark.parametrize(
    ("meter", "found"),
    [
        (meter_2007, Found(METER, "2007", 0x93)),
        (meter_without_13, Found(METER, "2007", 0x91)),
        (meter_1997, Found(METER, "1997", 0x81)),
        (meter_1997_at_broadcast, Found(METER, "1997", 0x81)),
        (meter_that_refuses, Found(METER, "2007", 0xD1, refused=True)),
        (meter_1997_that_refuses_11, Found(METER, "1997", 0x81)),
        (meter_1997_that_refuses, Found(METER, "1997", 0xC1, refused=True)),
        (meter_that_refuses_all, Found(METER, "2007", 0xD1, refused=True)),
        (nobody, NotFound(0)),
    ],
)
def test_a_meter_is_told_by_what_it_answers(meter: Meter, found: Found | NotFound) -> None:
    assert search(Probe(), meter) == [found]


@pytest.mark.parametrize(
    ("meter", "found"),
    [
        (meter_2007, Found(METER, "2007", 0x91)),
        (meter_1997, Found(METER, "1997", 0x81)),
        (meter_1997_at_broadcast, NotFound(0)),
    ],
)
def test_a_known_address_leaves_only_the_edition(meter: Meter, found: Found | NotFound) -> None:
    assert search(Probe(METER), meter) == [found]


def test_the_questions_in_their_order() -> None:
    probe = Probe(repeats=0, lead_in=0, reply_timeout=1.0)
    asked = [probe.start(0.0)]
    while (deadline := probe.next_timeout()) is not None:
        probe.handle_timeout(deadline)
        asked.append(probe.data_to_send())
    assert asked == [
        bytes.fromhex("68AAAAAAAAAAAA681300DF16"),
        raw(ReadRequest(WILDCARD, "00010000")),
        raw(ReadRequest(WILDCARD, "9010")),
        raw(ReadRequest(BROADCAST, "9010")),
        b"",
    ]
    assert list(iter(probe.next_event, None)) == [NotFound(0)]


def test_each_question_is_repeated() -> None:
    probe = Probe(METER, repeats=2, reply_timeout=1.0)
    asked = [probe.start(0.0)]
    for second in range(1, 7):
        probe.handle_timeout(second - 0.5)
        assert probe.data_to_send() == b""
        probe.handle_timeout(float(second))
        asked.append(probe.data_to_send())
    assert len(set(asked[:3])) == 1
    assert len(set(asked[3:6])) == 1
    assert asked[2] != asked[3]
    assert asked[6] == b""


@pytest.mark.parametrize("late", [AddressReply(METER), ReadReply(METER, "00010000", ENERGY)])
def test_a_late_answer_of_the_other_edition_is_used(late: Message) -> None:
    probe = Probe(repeats=0, reply_timeout=1.0)
    probe.start(0.0)
    probe.handle_timeout(1.0)
    probe.handle_timeout(2.0)
    probe.receive_data(raw(late), 2.5)
    (found,) = iter(probe.next_event, None)
    assert found == Found(METER, "2007", messages.to_frame(late).control)
    assert probe.data_to_send() == b""


@pytest.mark.parametrize(
    "stranger",
    [
        AddressReply("202311050013"),
        ReadReply("202311050013", "00010000", ENERGY),
        ReadReply(METER, "00020000", ENERGY),
        ReadReply(METER, "9020", ENERGY),
        ErrorReply(METER, 0x14, 2),
    ],
)
def test_a_late_answer_to_something_else_tells_nothing(stranger: Message) -> None:
    probe = Probe(METER, repeats=0)
    probe.start(0.0)
    probe.receive_data(raw(stranger), 0.5)
    (told,) = iter(probe.next_event, None)
    assert isinstance(told, Unmatched)
    assert probe.busy


def test_strangers_are_unmatched_and_damage_is_counted() -> None:
    probe = Probe(METER, repeats=0)
    probe.start(0.0)
    stranger = ReadReply("202311050013", "00010000", ENERGY)
    probe.receive_data(b"\x11\x22" + raw(stranger), 0.5)
    assert list(iter(probe.next_event, None)) == [
        Damaged(b"\x11\x22", 0, "no 68H"),
        Unmatched(stranger, raw(stranger)),
    ]
    probe.handle_timeout(2.0)
    probe.handle_timeout(4.0)
    assert list(iter(probe.next_event, None)) == [NotFound(1)]


def test_a_first_part_is_followed() -> None:
    probe = Probe(METER, lead_in=0)
    probe.start(0.0)
    probe.receive_data(raw(ReadReply(METER, "00010000", ENERGY, more=True)), 0.0)
    assert list(iter(probe.next_event, None)) == []
    assert probe.data_to_send() == raw(messages.FollowUpRequest(METER, "00010000", 1))


def test_a_probe_searches_once_and_for_one_meter() -> None:
    probe = Probe(METER, repeats=0)
    probe.handle_timeout(1.0)
    probe.receive_data(b"\x68", 1.0)
    assert probe.next_event() is None
    probe.start(0.0)
    with pytest.raises(LocalProtocolError):
        probe.start(0.0)
    search(done := Probe(METER), meter_2007)
    with pytest.raises(LocalProtocolError):
        done.start(0.0)
    done.receive_data(raw(ReadReply(METER, "00010000", ENERGY)), 9.0)
    assert done.next_event() is None
    for wrong in (BROADCAST, "AAAAAAAA0012", "12"):
        with pytest.raises(LocalProtocolError):
            Probe(wrong)


@given(st.lists(st.binary(max_size=40), max_size=8))
def test_any_bytes_leave_the_search_standing(chunks: list[bytes]) -> None:
    probe = Probe(repeats=0, reply_timeout=1.0)
    probe.start(0.0)
    for second, chunk in enumerate(chunks):
        probe.receive_data(chunk, float(second))
        list(iter(probe.next_event, None))
        probe.handle_timeout(float(second))
    for second in range(100, 110):
        probe.handle_timeout(float(second))
    assert not probe.busy
