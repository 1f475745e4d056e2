"""Time, write, freeze, speed, password, clear: worked examples, permits, what is never built, 1997 too."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.dlt645 import commands
from protocols.dlt645.commands import (
    BroadcastTime,
    ChangePassword,
    ChangeSpeed,
    ClearDemand,
    ClearDemand1997,
    ClearEvents,
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
from protocols.dlt645.fields import Authority
from protocols.dlt645.frame import BROADCAST, WILDCARD, Frame, build, parse
from protocols.dlt645.messages import Unknown, from_frame, to_frame
from protocols.errors import LocalProtocolError
from protocols.permit import Permit

METER = "202311050012"
PLAIN = Authority("02", "123456", "00000001")
SEALED = Authority("98", "000000", "00000001")
OLD = Authority("02", "123456", "")
NEW = Authority("04", "445566", "")


def permit(function: int, target: str = METER) -> Permit:
    return Permit(f"645 {function:02x}", target, "a test")


# The fact sheet's worked examples, whole frames.
EXAMPLES: list[tuple[str, Command | Confirmation]] = [
    (
        "68 12 00 05 11 23 20 68 14 0F 35 34 33 37 35 89 67 45 34 33 33 33 63 8C 56 AD 16",
        WriteRequest(METER, "04000102", PLAIN, bytes.fromhex("305923")),
    ),
    ("68 12 00 05 11 23 20 68 94 00 CF 16", Done(METER, 0x14)),
    (
        "68 99 99 99 99 99 99 68 08 06 48 63 45 57 44 59 58 16",
        BroadcastTime(datetime(2026, 11, 24, 12, 30, 15)),
    ),
    ("68 99 99 99 99 99 99 68 16 04 CC CC CC CC B0 16", Freeze(BROADCAST)),
    ("68 12 00 05 11 23 20 68 17 01 53 A6 16", ChangeSpeed(METER, 0x20)),
    ("68 12 00 05 11 23 20 68 97 01 53 26 16", SpeedReply(METER, 0x20)),
    ("68 AA AA AA AA AA AA 68 15 06 CC 33 38 44 56 53 0B 16", WriteAddress("202311050099")),
    ("68 99 00 05 11 23 20 68 95 00 57 16", Done("202311050099", 0x15)),
]

# Data fields written by hand after the sheet's table of functions (plain bytes).
BY_HAND: list[tuple[int, str, Command | Confirmation]] = [
    (0x16, "00009999", Freeze(METER, None, None, 0, 0)),
    (0x16, "30999999", Freeze(METER, minute=30)),
    (0x16, "59233112", Freeze(METER, 12, 31, 23, 59)),
    (0x18, "030c0004" + "02563412" + "04665544", ChangePassword(METER, "04000c03", OLD, NEW)),
    (0x98, "04665544", PasswordReply(METER, NEW)),
    (0x19, "0256341201000000", ClearDemand(METER, PLAIN)),
    (0x1A, "0256341201000000", ClearMeter(METER, PLAIN)),
    (0x1A, "9800000001000000" + "aabbcc", ClearMeter(METER, SEALED, b"\xaa\xbb\xcc")),
    (0x1B, "0256341201000000" + "ffffffff", ClearEvents(METER, PLAIN)),
    (0x1B, "0256341201000000" + "ff000110", ClearEvents(METER, PLAIN, "100100ff")),
    (0x1B, "9800000001000000" + "aabbcc", ClearEvents(METER, SEALED, "", b"\xaa\xbb\xcc")),
    (0x1D, "02", SelectOutput(METER, 2)),
    (0x9D, "02", OutputReply(METER, 2)),
    (0x96, "", Done(METER, 0x16)),
    (0x9B, "", Done(METER, 0x1B)),
]

WRITE_1997 = WriteRequest(METER, "c010", Authority("00", "123456", ""), bytes.fromhex("06060719"))
BY_HAND_1997: list[tuple[int, str, Command | Confirmation]] = [
    (0x04, "10c0" + "00563412" + "06060719", WRITE_1997),
    (0x08, "153012241126", BroadcastTime(datetime(2026, 11, 24, 12, 30, 15), METER, "1997")),
    (0x0A, "990005112320", WriteAddress("202311050099", METER, "1997")),
    (0x0C, "10", ChangeSpeed(METER, 0x10, "1997")),
    (0x0C, "d5", ChangeSpeed(METER, 0xD5, "1997")),
    (0x0F, "0256341204665544", ChangePassword(METER, "", OLD, NEW)),
    (0x10, "00563412", ClearDemand1997(METER, bytes.fromhex("00563412"))),
    (0x84, "", Done(METER, 0x04, edition="1997")),
    (0x90, "", Done(METER, 0x10, edition="1997")),
    (0x8C, "10", Done(METER, 0x0C, b"\x10", "1997")),
]  # fmt: skip


@pytest.mark.parametrize(("text", "message"), EXAMPLES)
def test_a_worked_example_reads_and_writes(text: str, message: Command | Confirmation) -> None:
    raw = bytes.fromhex(text)
    frame = parse(raw)
    assert from_frame(frame) == message
    assert build(to_frame(message, permit(frame.control, frame.address))) == raw


@pytest.mark.parametrize(
    ("edition", "control", "data", "message"),
    [("2007", *row) for row in BY_HAND] + [("1997", *row) for row in BY_HAND_1997],
)
def test_a_data_field_reads_and_writes(
    edition: str, control: int, data: str, message: Command | Confirmation
) -> None:
    frame = Frame(METER, control, bytes.fromhex(data))
    assert from_frame(frame, edition) == message
    assert to_frame(message, permit(control)) == frame


REQUESTS = [message for *_, message in EXAMPLES + BY_HAND + BY_HAND_1997 if isinstance(message, Command)]


@pytest.mark.parametrize("message", REQUESTS, ids=repr)
def test_a_request_wants_a_permit_for_exactly_this(message: Command) -> None:
    function = commands_code(message)
    with pytest.raises(LocalProtocolError, match="dangerous"):
        to_frame(message)
    for wrong in (permit(function, "202311050013"), permit(0x1C, message.address), permit(0x12)):
        with pytest.raises(LocalProtocolError, match="not for this"):
            to_frame(message, wrong)
    assert to_frame(message, permit(function, message.address)).control == function


def commands_code(message: Command) -> int:
    """Function codes as the sheet's two tables list them."""
    old = commands.edition_of(message) == "1997"
    codes: dict[type[Command], int] = {
        BroadcastTime: 0x08,
        WriteRequest: 0x04 if old else 0x14,
        WriteAddress: 0x0A if old else 0x15,
        Freeze: 0x16,
        ChangeSpeed: 0x0C if old else 0x17,
        ChangePassword: 0x0F if old else 0x18,
        ClearDemand: 0x19,
        ClearDemand1997: 0x10,
        ClearMeter: 0x1A,
        ClearEvents: 0x1B,
        SelectOutput: 0x1D,
    }
    return codes[type(message)]


def test_every_command_is_shown_in_both_directions() -> None:
    assert {type(message) for message in REQUESTS} == set(Command.__args__)


def to(address: str) -> list[Command]:
    return [
        WriteRequest(address, "04000102", PLAIN, b"\x30\x59\x23"),
        ClearDemand(address, PLAIN),
        ClearMeter(address, PLAIN),
        ClearEvents(address, PLAIN),
        ClearDemand1997(address, b""),
        ChangeSpeed(address, 0x20),
        ChangePassword(address, "04000c03", OLD, NEW),
    ]


@pytest.mark.parametrize(
    "message",
    [
        *(message for address in (WILDCARD, BROADCAST, "AAAAAAAA0012", "12", "") for message in to(address)),
        Freeze(WILDCARD),
        SelectOutput(WILDCARD, 0),
        WriteAddress("202311050099", BROADCAST),
        WriteAddress("202311050099", "AAAAAAAA0012"),
        WriteAddress(WILDCARD),
        WriteAddress(BROADCAST),
        BroadcastTime(datetime(2026, 1, 1), WILDCARD),
    ],
    ids=repr,
)
def test_who_is_meant_must_be_one_meter(message: Command) -> None:
    with pytest.raises(LocalProtocolError, match="goes to one meter"):
        to_frame(message, permit(commands_code(message), message.address))


@pytest.mark.parametrize(
    "message",
    [
        WriteRequest(METER, "04000102", Authority("39", "000000", "00000000"), b"\0"),
        WriteRequest(METER, "04000102", Authority("02", "1234", "00000000"), b"\0"),
        WriteRequest(METER, "04000102", Authority("02", "12345g", "00000000"), b"\0"),
        WriteRequest(METER, "04000102", Authority("02", "123456", ""), b"\0"),
        WriteRequest(METER, "04000102", PLAIN, bytes(189)),
        ChangePassword(METER, "04000c03", OLD, Authority("10", "000000", "")),
        ChangePassword(METER, "04000c03", Authority("10", "000000", ""), NEW),
        ClearMeter(METER, PLAIN, b"\1"),
        ClearMeter(METER, SEALED),
        ClearMeter(METER, Authority("99"), b"\1"),
        ClearEvents(METER, SEALED, commands.ALL_EVENTS, b"\1"),
        ClearEvents(METER, PLAIN, ""),
        ClearEvents(METER, PLAIN, "0001"),
        BroadcastTime(datetime(1999, 12, 31, 23, 59)),
        BroadcastTime(datetime(2026, 1, 1, tzinfo=UTC)),
    ],
    ids=repr,
)
def test_what_cannot_be_is_not_sent(message: Command) -> None:
    with pytest.raises(LocalProtocolError):
        to_frame(message, permit(commands_code(message), message.address))


@pytest.mark.parametrize("address", ["12", "x" * 12])
def test_a_wrong_di_is_no_edition(address: str) -> None:
    with pytest.raises(LocalProtocolError, match="neither eight hex digits"):
        to_frame(WriteRequest(METER, address, PLAIN, b""), permit(0x14))


def test_values_that_cannot_be_are_not_made() -> None:
    for pattern in (
        (None, 1, None, 0),
        (1, None, None, None),
        (13, 1, 0, 0),
        (1, 0, 0, 0),
        (None, None, 24, 0),
    ):
        with pytest.raises(LocalProtocolError, match="freeze pattern"):
            Freeze(METER, *pattern)
    for word in (0, 1, 3, 0xD5, 0x100):
        with pytest.raises(LocalProtocolError, match="rate word"):
            ChangeSpeed(METER, word)
        with pytest.raises(LocalProtocolError, match="rate word"):
            SpeedReply(METER, word)
    with pytest.raises(LocalProtocolError, match="rate word"):
        ChangeSpeed(METER, 0x100, "1997")
    for output in (-1, 3):
        with pytest.raises(LocalProtocolError, match="no output"):
            SelectOutput(METER, output)
        with pytest.raises(LocalProtocolError, match="no output"):
            OutputReply(METER, output)


@pytest.mark.parametrize(
    "reply",
    [
        Done(METER, 0x11),
        Done(METER, 0x17),
        Done(METER, 0x14, b"\1"),
        Done(METER, 0x14, edition="1997"),
        Done(METER, 0x04, b"\1", "1997"),
    ],
    ids=repr,
)
def test_a_confirmation_of_its_own_shape_is_not_a_plain_one(reply: Done) -> None:
    with pytest.raises(LocalProtocolError):
        to_frame(reply)


@pytest.mark.parametrize(
    ("control", "data"),
    [
        (0x08, "153012241326"),
        (0x08, "15301224112a"),
        (0x08, "153012290226"),  # 29 February of a common year
        (0x14, "0201000402563412010000"),
        (0x16, "99999901"),
        (0x16, "0a009999"),
        (0x16, "999999"),
        (0x17, "d5"),
        (0x17, "2020"),
        (0x18, "0000000000000000"),
        (0x19, "02563412010000"),
        (0x1B, "0256341201000000ffffff"),
        (0x1D, "03"),
        (0x94, "00"),
        (0x97, ""),
    ],
)
def test_data_that_does_not_fit_is_unknown_with_its_reason(control: int, data: str) -> None:
    message = from_frame(Frame(METER, control, bytes.fromhex(data)))
    assert isinstance(message, Unknown)
    assert message.reason.startswith(f"{control:02X}H: ")
    assert len(message.reason) > 6


def test_a_leap_day_is_read() -> None:
    frame = Frame(BROADCAST, 0x08, bytes.fromhex("153012290228"))
    assert from_frame(frame) == BroadcastTime(datetime(2028, 2, 29, 12, 30, 15))


def test_the_mac_stands_last() -> None:
    sealed = WriteRequest(METER, "04000102", Authority("99"), bytes.fromhex("305923" + "01020304"))
    assert sealed.mac == bytes.fromhex("01020304")
    assert WriteRequest(METER, "04000102", PLAIN, bytes.fromhex("30592301")).mac == b""


def test_no_meter_answers_a_broadcast() -> None:
    assert not commands.is_answered(BroadcastTime(datetime(2026, 1, 1), METER))
    assert not commands.is_answered(Freeze(BROADCAST))
    assert not commands.is_answered(SelectOutput(BROADCAST, 0))
    assert commands.is_answered(Freeze(METER))
    assert commands.is_answered(WriteAddress("202311050099"))


def test_the_speed_of_a_word() -> None:
    assert [ChangeSpeed(METER, 1 << bit).speed for bit in range(1, 8)] == [
        600, 1200, 2400, 4800, 9600, 19200, 38400,
    ]  # fmt: skip
    assert ChangeSpeed(METER, 0x10, "1997").speed is None


def test_what_the_crypto_machine_seals_for_a_clear() -> None:
    at = datetime(2026, 11, 24, 13, 5, 9)
    assert commands.clear_plaintext(0x1A, at).hex() == "1a00" + "261124130509"
    assert commands.clear_plaintext(0x1B, at, "ffffffff").hex() == "1b00" + "261124130509" + "ffffffff"
    for function, di in ((0x1B, ""), (0x19, "ffffffff"), (0x1C, "")):
        with pytest.raises(LocalProtocolError):
            commands.clear_plaintext(function, at, di)


@given(
    st.datetimes(datetime(2000, 1, 1), datetime(2099, 12, 31, 23, 59, 59)).map(
        lambda at: at.replace(microsecond=0)
    )
)
def test_any_time_comes_back(at: datetime) -> None:
    message = BroadcastTime(at)
    assert from_frame(to_frame(message, permit(0x08, BROADCAST))) == message
