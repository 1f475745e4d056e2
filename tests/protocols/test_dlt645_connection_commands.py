"""A DL/T 645 line for what is no read: permits, confirmations, control frames, never a repeat, profiles."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

import pytest

from protocols.dlt645 import control, messages
from protocols.dlt645.commands import (
    BroadcastTime,
    ChangePassword,
    ChangeSpeed,
    ClearMeter,
    Command,
    Confirmation,
    Done,
    Freeze,
    OutputReply,
    PasswordReply,
    SelectOutput,
    SpeedReply,
    WriteAddress,
    WriteRequest,
)
from protocols.dlt645.connection import (
    Answered,
    Master,
    Refused,
    Silent,
    Unmatched,
)
from protocols.dlt645.control_messages import (
    ControlReply,
    ControlRequest,
    RelayCommand,
    RelayReply,
    SealedCommand,
    SecurityReply,
    Verb,
)
from protocols.dlt645.fields import Authority
from protocols.dlt645.frame import BROADCAST, WILDCARD, Frame, build
from protocols.dlt645.messages import (
    ErrorReply,
    ReadAddressRequest,
    ReadAgainRequest,
    ReadRequest,
)
from protocols.dlt645.profiles import load, standard
from protocols.errors import LocalProtocolError
from protocols.permit import Permit
from tests.protocols.test_dlt645_connection import METER, OTHER, READ, events, hear, raw


def permit(function: str, target: str = METER) -> Permit:
    return Permit(f"645 {function}", target, "a test")


WRITE = WriteRequest(METER, "04000102", Authority("02", "123456", "00000001"), b"\x30\x59\x23")
CONFIRMED: list[tuple[Command, str, Confirmation]] = [
    (WRITE, "14", Done(METER, 0x14)),
    (Freeze(METER), "16", Done(METER, 0x16)),
    (ClearMeter(METER, WRITE.authority), "1a", Done(METER, 0x1A)),
    (ChangeSpeed(METER, 0x20), "17", SpeedReply(METER, 0x20)),
    (SelectOutput(METER, 1), "1d", OutputReply(METER, 1)),
    (
        ChangePassword(METER, "04000c03", Authority("02", "123456", ""), Authority("02", "445566", "")),
        "18",
        PasswordReply(METER, Authority("02", "445566", "")),
    ),
    (WriteAddress(OTHER, METER), "15", Done(OTHER, 0x15)),
]


@pytest.mark.parametrize(("command", "function", "reply"), CONFIRMED)
def test_a_command_is_confirmed_and_never_repeated(
    command: Command, function: str, reply: Confirmation
) -> None:
    master = Master(repeats=5, lead_in=0)
    with pytest.raises(LocalProtocolError):
        master.send(command, 0.0)
    assert not master.busy
    sent = master.send(command, 0.0, permit(function))
    assert sent == build(messages.to_frame(command, permit(function)))
    assert hear(master, reply) == [Answered(command, "", b"", reply.address, reply)]
    master.send(command, 0.0, permit(function))
    master.handle_timeout(2.0)
    assert master.data_to_send() == b""
    assert events(master) == [Silent(command)]
    assert not master.busy


@pytest.mark.parametrize(("command", "function", "reply"), CONFIRMED)
def test_a_command_is_refused(command: Command, function: str, reply: Confirmation) -> None:
    master = Master()
    master.send(command, 0.0, permit(function))
    strange = ErrorReply("202311050099", int(function, 16), 4)
    assert hear(master, strange) == [Unmatched(strange, raw(strange))]
    error = ErrorReply(METER, int(function, 16), 4)
    assert hear(master, error) == [Refused(command, error)]


@pytest.mark.parametrize(
    ("command", "function", "strange"),
    [
        (WRITE, "14", Done(OTHER, 0x14)),
        (WRITE, "14", Done(METER, 0x16)),
        (WRITE, "14", RelayReply(METER)),
        (ChangeSpeed(METER, 0x20), "17", SpeedReply(METER, 0x08)),
        (SelectOutput(METER, 1), "1d", OutputReply(METER, 0)),
        (CONFIRMED[5][0], "18", PasswordReply(METER, Authority("02", "123456", ""))),
        (WriteAddress(OTHER, METER), "15", Done(METER, 0x15)),
    ],
)
def test_a_confirmation_of_something_else_is_unmatched(
    command: Command, function: str, strange: Confirmation
) -> None:
    master = Master()
    master.send(command, 0.0, permit(function))
    assert hear(master, strange) == [Unmatched(strange, raw(strange))]
    assert master.busy


@pytest.mark.parametrize(
    ("command", "function"),
    [
        (BroadcastTime(datetime(2026, 11, 24, 12, 30, 15)), "08"),
        (BroadcastTime(datetime(2026, 11, 24, 12, 30, 15), METER), "08"),
        (Freeze(BROADCAST), "16"),
        (SelectOutput(BROADCAST, 0), "1d"),
    ],
)
def test_what_nobody_answers_opens_no_exchange(command: Command, function: str) -> None:
    master = Master(lead_in=0)
    sent = master.send(command, 0.0, permit(function, command.address))
    assert sent == build(messages.to_frame(command, permit(function, command.address)))
    assert not master.busy
    assert master.next_timeout() is None
    assert hear(master, sent) == []  # the echo of a two-wire line
    master.send(READ, 0.0)
    with pytest.raises(LocalProtocolError):
        master.send(command, 0.0, permit(function, command.address))


TRIP = Permit("645 1c trip", METER, "a test")
RELAY = control.build_control(
    RelayCommand(METER, Verb.TRIP, WRITE.authority, datetime(2026, 11, 24, 13)), TRIP
)
SEALED = control.build_sealed_control(
    SealedCommand(METER, control.sealed_authority("00000001"), bytes(20)), Verb.TRIP, TRIP
)
ENDED = SecurityReply(
    METER,
    "070002ff",
    (("customer", bytes(6)), ("money", bytes(4)), ("count", bytes(4)), ("key_info", bytes(4))),
)
END = control.build_security(control.end_authentication(METER, "00000001"), permit("03"))


@pytest.mark.parametrize(
    ("frame", "reply"),
    [
        (RELAY, RelayReply(METER)),
        (SEALED, RelayReply(METER, 0x0004)),
        (END, ENDED),
    ],
)
def test_a_control_frame_is_answered_and_never_repeated(frame: Frame, reply: ControlReply) -> None:
    master = Master(repeats=5, lead_in=0)
    request = messages.from_frame(frame)
    assert isinstance(request, ControlRequest)
    assert master.send_control(frame, 0.0) == build(frame)
    other = SecurityReply(METER, "070001ff") if isinstance(reply, SecurityReply) else Done(METER, 0x1A)
    for stranger in (other, replace(reply, address=OTHER)):
        assert hear(master, stranger) == [Unmatched(stranger, raw(stranger))]
    assert hear(master, reply) == [Answered(request, "", b"", METER, reply)]
    master.send_control(frame, 0.0)
    with pytest.raises(LocalProtocolError):
        master.send_control(frame, 0.0)
    master.handle_timeout(2.0)
    assert master.data_to_send() == b""
    assert events(master) == [Silent(request)]


def test_a_refused_control_frame_keeps_its_wide_word() -> None:
    master = Master()
    master.send_control(RELAY, 0.0)
    error = ErrorReply(METER, 0x1C, 0x0020, wide=True)
    (told,) = hear(master, error)
    assert isinstance(told, Refused)
    assert told.error.reasons == ("trip refused: keep-power is on",)


@pytest.mark.parametrize(
    "frame",
    [
        replace(RELAY, address=WILDCARD),
        replace(RELAY, address=BROADCAST),
        replace(RELAY, data=RELAY.data[:9]),
        replace(RELAY, control=0x9C, data=b""),
        Frame(METER, 0x11, bytes(4)),
        Frame(METER, 0x14, bytes(14)),
    ],
)
def test_other_frames_are_no_control_frames(frame: Frame) -> None:
    master = Master()
    with pytest.raises(LocalProtocolError):
        master.send_control(frame, 0.0)
    assert not master.busy


def test_a_profile_limits_what_is_sent() -> None:
    long = replace(WRITE, data=bytes(39))
    Master().send(long, 0.0, permit("14"))
    for master, message, function in (
        (Master.of(load()["base-2007"]), long, "14"),
        (Master(), ChangeSpeed(METER, 0x80), "17"),
        (Master(profile=standard("1997")), WRITE, "14"),
        (Master(), ReadRequest(METER, "9010"), "01"),
        (Master(), ReadAgainRequest(METER), "03"),
        (Master(profile=standard("1997")), ReadAddressRequest(), "13"),
    ):
        assert isinstance(message, ReadRequest | ReadAgainRequest | ReadAddressRequest | Command)
        with pytest.raises(LocalProtocolError):
            master.send(message, 0.0, permit(function))
        assert not master.busy
    with pytest.raises(LocalProtocolError):
        Master(profile=standard("1997")).send_control(RELAY, 0.0)
    fast = load({"fast": {"speed_38400": True}})["fast"]
    assert Master.of(fast).send(ChangeSpeed(METER, 0x80), 0.0, permit("17"))


def test_a_profile_brings_its_timing() -> None:
    slow = load({"radio": {"reply_timeout_s": 90, "repeats": 1, "lead_in": 2}})["radio"]
    master = Master.of(slow)
    assert master.send(READ, 10.0) == b"\xfe\xfe" + raw(READ)
    assert master.next_timeout() == 100.0
