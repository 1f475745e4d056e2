"""Relay control and security: worked examples, permits, addresses that are refused, captured commands."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.dlt645 import control
from protocols.dlt645.control import (
    SECURITY_ACTION,
    action,
    build_control,
    build_sealed_control,
    build_security,
    sealed_authority,
    sealed_block,
)
from protocols.dlt645.control_messages import (
    OPAQUE,
    REPLY_FIELDS,
    REQUEST_FIELDS,
    ControlRequest,
    RelayCommand,
    RelayReply,
    SealedCommand,
    SecurityReply,
    SecurityRequest,
    Verb,
)
from protocols.dlt645.fields import Authority
from protocols.dlt645.frame import BROADCAST, WILDCARD, Frame, build, parse
from protocols.dlt645.messages import ErrorReply, Unknown, from_frame, to_frame
from protocols.errors import LocalProtocolError
from protocols.permit import Permit
from tests.protocols.vectors import valid

METER = "202311050012"
PLAIN = Authority("02", "123456", "00000001")
TRIP = RelayCommand(METER, Verb.TRIP, PLAIN, datetime(2026, 11, 24, 13))
TRIP_RAW = bytes.fromhex(
    "68 12 00 05 11 23 20 68 1C 10 35 89 67 45 34 33 33 33 4D 33 33 33 46 57 44 59 BE 16"
)
SEALED_RAW = bytes.fromhex(
    "68 12 00 05 11 23 20 68 1C 1C CB 33 33 34 34 33 33 33"
    "43 44 45 46 47 48 49 4A 4B 4C 4D 4E 4F 50 51 52 53 54 55 56 9F 16"
)
AUTHENTICATION_RAW = bytes.fromhex(
    "68 12 00 05 11 23 20 68 03 20 32 33 33 3A 34 33 33 33 34 35 36 37 38 39 3A 3B"
    "44 45 46 47 48 49 4A 4B 45 33 38 44 56 53 33 33 F8 16"
)
# Not one meter's address.
NOWHERE = [WILDCARD, BROADCAST, "AAAAAAAA0012", "2023110500AA", "FFFFFFFFFFFF", "12", "", "20231105001２"]


def permit(what: str = "645 1c trip", target: str = METER) -> Permit:
    return Permit(what, target, "a test")


def test_the_worked_trip() -> None:
    assert from_frame(parse(TRIP_RAW)) == TRIP
    assert not TRIP.wants_word
    assert replace(TRIP, authority=Authority("02", "010000")).wants_word
    assert build(build_control(TRIP, permit())) == TRIP_RAW


def test_the_worked_sealed_command() -> None:
    block = bytes.fromhex("101112131415161718191a1b1c1d1e1f20212223")
    command = SealedCommand(METER, Authority("98", "010000", "00000001"), block)
    assert from_frame(parse(SEALED_RAW)) == command
    assert command.wants_word
    assert build(build_sealed_control(command, Verb.TRIP, permit())) == SEALED_RAW
    # From what the crypto machine gives: cipher and MAC high byte first, reversed as one field.
    made = SealedCommand(METER, sealed_authority("00000001"), sealed_block(block[:3:-1], block[3::-1]))
    assert made == command


def test_the_worked_authentication() -> None:
    request = control.authentication(
        METER,
        "00000001",
        cipher=bytes.fromhex("0807060504030201"),
        random=bytes.fromhex("1817161514131211"),
        meter_number=METER,
    )
    assert from_frame(parse(AUTHENTICATION_RAW)) == request
    assert build(build_security(request, permit(SECURITY_ACTION))) == AUTHENTICATION_RAW


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("68 12 00 05 11 23 20 68 9C 00 D7 16", RelayReply(METER)),
        ("68 12 00 05 11 23 20 68 9C 02 37 33 43 16", RelayReply(METER, 0x0004)),
        ("68 12 00 05 11 23 20 68 DC 01 37 4F 16", ErrorReply(METER, 0x1C, 0x04)),
        ("68 12 00 05 11 23 20 68 C3 02 3B 33 6E 16", ErrorReply(METER, 0x03, 0x0008, True)),
        (
            "68 12 00 05 11 23 20 68 83 10 32 33 33 3A D4 D5 D6 D7 E4 E5 E6 E7 E8 E9 EA EB 32 16",
            SecurityReply(
                METER,
                "070000ff",
                (("random", bytes.fromhex("a4a3a2a1")), ("esam", bytes.fromhex("b8b7b6b5b4b3b2b1"))),
            ),
        ),
    ],
)
def test_a_worked_answer_reads_and_writes(text: str, message: Any) -> None:
    raw = bytes.fromhex(text)
    assert from_frame(parse(raw)) == message
    assert build(to_frame(message)) == raw


def test_an_answer_names_what_was_done() -> None:
    assert RelayReply(METER).done == ()
    assert RelayReply(METER, 0x0004).done == ("direct trip",)
    assert RelayReply(METER, 0x8301).done == (
        "direct close",
        "keep-power on",
        "keep-power off",
        "reserved bit 15",
    )
    reply = from_frame(Frame(METER, 0x83, bytes.fromhex("ff000007" + "a1a2a3a4" + "b1" * 8)))
    assert isinstance(reply, SecurityReply)
    assert reply.value("random") == bytes.fromhex("a4a3a2a1")
    assert reply.value("cipher") == b""


@pytest.mark.parametrize("verb", Verb)
def test_every_verb_has_its_byte_and_its_permit(verb: Verb) -> None:
    minutes = 10 if verb.restores else 0
    command = replace(TRIP, verb=verb, restore_minutes=minutes)
    frame = build_control(command, permit(f"645 1c {verb.word}"))
    assert frame.data[8:10].hex() == CODES[verb.word] + ("02" if verb.restores else "00")
    assert from_frame(frame) == command
    for other in set(CODES) - {verb.word}:
        with pytest.raises(LocalProtocolError, match="not for this"):
            build_control(command, permit(f"645 1c {other}"))
        with pytest.raises(LocalProtocolError, match="not for this"):
            build_sealed_control(SEALED, verb, permit(f"645 1c {other}"))


CODES = {
    "trip": "1a",
    "permit-close": "1b",
    "close": "1c",
    "trip-then-close": "1d",
    "trip-then-permit": "1e",
    "alarm": "2a",
    "clear-alarm": "2b",
    "keep-power": "3a",
    "release-keep-power": "3b",
}
SEALED = SealedCommand(METER, sealed_authority("00000001"), bytes(20))
END = control.end_authentication(METER, "00000001")


def test_nothing_is_built_without_a_permit_for_the_meter() -> None:
    for wrong in (None, permit(target="202311050013"), permit("645 1c"), permit("645 03", "202311050013")):
        with pytest.raises(LocalProtocolError):
            build_control(TRIP, wrong)
        with pytest.raises(LocalProtocolError):
            build_sealed_control(SEALED, Verb.TRIP, wrong)
        with pytest.raises(LocalProtocolError):
            build_security(END, wrong)


@pytest.mark.parametrize("address", NOWHERE)
def test_no_control_goes_to_many_or_to_nobody(address: str) -> None:
    with pytest.raises(LocalProtocolError, match="goes to one meter"):
        build_control(replace(TRIP, address=address), permit(target=address))
    with pytest.raises(LocalProtocolError, match="goes to one meter"):
        build_sealed_control(replace(SEALED, address=address), Verb.TRIP, permit(target=address))
    with pytest.raises(LocalProtocolError, match="goes to one meter"):
        build_security(replace(END, address=address), permit(SECURITY_ACTION, address))


@pytest.mark.parametrize(
    "command",
    [
        replace(TRIP, deadline=None),
        replace(TRIP, deadline=datetime(1999, 12, 31)),
        replace(TRIP, deadline=datetime(2100, 1, 1)),
        replace(TRIP, deadline=datetime(2026, 1, 1, tzinfo=UTC)),
        replace(TRIP, restore_minutes=5),
        replace(TRIP, authority=Authority("00", "123456")),
        replace(TRIP, authority=Authority("98", "123456")),
        replace(TRIP, authority=Authority("02", "12345")),
        replace(TRIP, authority=Authority("02", "123456", "0001")),
    ],
    ids=repr,
)
def test_a_command_that_cannot_be_is_not_built(command: RelayCommand) -> None:
    with pytest.raises(LocalProtocolError):
        build_control(command, permit())


@pytest.mark.parametrize("minutes", [0, 4, 7, 1280, -5])
@pytest.mark.parametrize("verb", [Verb.TRIP_THEN_CLOSE, Verb.TRIP_THEN_PERMIT])
def test_a_restore_time_must_be_one(verb: Verb, minutes: int) -> None:
    with pytest.raises(LocalProtocolError, match="cannot restore"):
        build_control(replace(TRIP, verb=verb, restore_minutes=minutes), permit(action(verb)))
    with pytest.raises(LocalProtocolError, match="cannot restore"):
        control.control_plaintext(verb, datetime(2026, 1, 1), minutes)


def test_a_sealed_command_has_its_level_and_mac() -> None:
    for wrong in (replace(SEALED, authority=PLAIN), replace(SEALED, block=bytes(4))):
        with pytest.raises(LocalProtocolError):
            build_sealed_control(wrong, Verb.TRIP, permit())
    level_99 = replace(SEALED, authority=sealed_authority("00000001", level="99", wants_word=False))
    frame = build_sealed_control(level_99, Verb.CLOSE, permit("645 1c close"))
    assert frame.data[:8].hex() == "9900000001000000"
    assert from_frame(frame) == level_99
    assert not level_99.wants_word


def test_what_the_crypto_machine_seals() -> None:
    at = datetime(2026, 11, 24, 13, 5, 9)
    assert control.control_plaintext(Verb.TRIP, at).hex() == "1a00" + "261124130509"
    assert control.control_plaintext(Verb.TRIP_THEN_CLOSE, at, 1275).hex() == "1dff" + "261124130509"
    assert control.diversifier(METER).hex() == "0000202311050012"
    with pytest.raises(LocalProtocolError):
        control.diversifier(WILDCARD)


def test_the_order_of_a_block_is_the_profiles() -> None:
    assert sealed_block(b"\1\2", b"\3\4\5\6") == b"\6\5\4\3\2\1"
    assert sealed_block(b"\1\2", b"\3\4\5\6", control.AS_GIVEN) == b"\1\2\3\4\5\6"
    for cipher, mac, order in (
        (b"", bytes(4), "reversed"),
        (b"\1", bytes(3), "reversed"),
        (b"\1", bytes(4), ""),
    ):
        with pytest.raises(LocalProtocolError):
            sealed_block(cipher, mac, order)


# Lengths of the sheet's table of 03H: data after DI and operator down, after DI up.
DOWN = {
    "070000ff": 24, "070001ff": 6, "070002ff": 0, "070003ff": 8, "078003ff": 8, "070101ff": 22,
    "070102ff": 22, "070103ff": 16, "070301ff": 40, "078001ff": 8, "078102ff": 0,
}  # fmt: skip
UP = {
    "070000ff": 12, "070001ff": 0, "070002ff": 18, "070003ff": 0, "078003ff": 30, "078001ff": 12,
    "078102ff": 26,
}  # fmt: skip


@pytest.mark.parametrize(("di", "size"), DOWN.items())
def test_every_security_command_reads_and_writes(di: str, size: int) -> None:
    data = bytes(range(1, size + 1))
    frame = Frame(METER, 0x03, bytes.fromhex(di)[::-1] + bytes.fromhex("01000000") + data)
    request = from_frame(frame)
    assert isinstance(request, SecurityRequest)
    assert (request.di, request.operator) == (di, "00000001")
    assert OPAQUE not in dict(request.fields)
    assert b"".join(value[::-1] for _, value in request.fields) == data
    assert build_security(request, permit(SECURITY_ACTION)) == frame


@pytest.mark.parametrize(("di", "size"), UP.items())
def test_every_security_answer_reads_and_writes(di: str, size: int) -> None:
    data = bytes(range(1, size + 1))
    frame = Frame(METER, 0x83, bytes.fromhex(di)[::-1] + data)
    reply = from_frame(frame)
    assert isinstance(reply, SecurityReply)
    assert OPAQUE not in dict(reply.fields)
    assert b"".join(value[::-1] for _, value in reply.fields) == data
    assert to_frame(reply) == frame


def test_the_tables_hold_what_the_sheet_lists() -> None:
    assert set(REQUEST_FIELDS) == set(DOWN)
    assert set(REPLY_FIELDS) == set(UP)


def test_several_keys_follow_each_other() -> None:
    data = bytes.fromhex("ff010307" + "01000000") + bytes(range(36 * 2 + 4))
    request = from_frame(Frame(METER, 0x03, data))
    assert isinstance(request, SecurityRequest)
    assert [name for name, _ in request.fields] == ["key_info", "key_cipher", "key_info", "key_cipher", "mac"]
    assert request.fields[2][1] == bytes([39, 38, 37, 36])


def test_data_read_back_has_any_length() -> None:
    data = bytes.fromhex("ff018007") + bytes(8) + b"\1\2\3" + b"\4\5\6\7"
    reply = from_frame(Frame(METER, 0x83, data))
    assert isinstance(reply, SecurityReply)
    assert reply.value("data") == b"\3\2\1"
    assert reply.value("mac") == b"\7\6\5\4"


@pytest.mark.parametrize("size", [1, 39, 41, 4])
def test_fields_of_another_length_are_opaque(size: int) -> None:
    data = bytes(range(size))
    frame = Frame(METER, 0x03, bytes.fromhex("ff010307" + "01000000") + data)
    request = from_frame(frame)
    assert isinstance(request, SecurityRequest)
    assert request.fields == ((OPAQUE, data),)
    with pytest.raises(LocalProtocolError):
        build_security(request, permit(SECURITY_ACTION))


@pytest.mark.parametrize(
    "request_",
    [
        SecurityRequest(METER, "07000001", "00000001"),
        SecurityRequest(METER, "070002ff", "0001"),
        SecurityRequest(METER, "070002ff", "0000000g"),
        SecurityRequest(METER, "070002ff", "00000001", (("mac", bytes(4)),)),
        SecurityRequest(METER, "070001ff", "00000001", (("mac", bytes(4)), ("minutes", bytes(2)))),
        SecurityRequest(METER, "070001ff", "00000001", ((OPAQUE, bytes(6)),)),
    ],
    ids=repr,
)
def test_a_security_command_that_cannot_be_is_not_built(request_: SecurityRequest) -> None:
    with pytest.raises(LocalProtocolError):
        build_security(request_, permit(SECURITY_ACTION))


def test_an_unknown_security_answer_is_kept_and_sent_opaque() -> None:
    frame = Frame(METER, 0x83, bytes.fromhex("ff020107" + "0102"))
    reply = from_frame(frame)
    assert reply == SecurityReply(METER, "070102ff", ((OPAQUE, b"\1\2"),))
    assert to_frame(reply) == frame
    with pytest.raises(LocalProtocolError, match="not known"):
        to_frame(SecurityReply(METER, "070102ff", (("money", bytes(4)),)))
    with pytest.raises(LocalProtocolError):
        to_frame(RelayReply(METER, 0x10000))


def test_the_validity_of_a_session() -> None:
    request = control.session_validity(METER, "00000001", 1230, bytes.fromhex("01020304"))
    frame = build_security(request, permit(SECURITY_ACTION))
    assert frame.data.hex() == "ff010007" + "01000000" + "3012" + "04030201"
    for minutes in (0, 10000):
        with pytest.raises(LocalProtocolError):
            control.session_validity(METER, "00000001", minutes, bytes(4))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ("0211111154534145" + "1a", "1CH: 9 data bytes do not fit"),
        ("0256341201000000" + "7700" + "000013241126", "1CH: N1 77H is no command"),
        ("0256341201000000" + "1a00" + "000013241326", "1CH: "),
        ("9856341201000000", "1CH: no cipher"),
        ("98563412", "1CH: "),
        ("", "1CH: 0 data bytes"),
    ],
)
def test_a_command_that_cannot_be_is_unknown(data: str, reason: str) -> None:
    message = from_frame(Frame(METER, 0x1C, bytes.fromhex(data)))
    assert isinstance(message, Unknown)
    assert message.reason.startswith(reason)


@pytest.mark.parametrize("message", [TRIP, SEALED, END], ids=repr)
def test_only_control_py_builds_them(message: ControlRequest) -> None:
    for what in (permit(), permit("645 03"), permit("645 1c")):
        with pytest.raises(LocalProtocolError, match="built by"):
            to_frame(message, what)


def test_captured_commands_are_read_as_the_file_says() -> None:
    read = 0
    for vector in valid("dlt645-2007"):
        message = from_frame(parse(vector.raw.lstrip(b"\xfe")))
        if isinstance(message, RelayCommand):
            assert CODES[message.verb.word] == vector.expected["relay_cmd"]
            assert message.authority.level == vector.expected["pa"]
            read += 1
    assert read == 10


@given(
    st.sampled_from(Verb),
    st.datetimes(datetime(2000, 1, 1), datetime(2099, 12, 31, 23, 59, 59)),
    st.integers(1, 255),
    st.sampled_from(["02", "03", "04"]),
    st.binary(min_size=3, max_size=3).map(bytes.hex),
    st.binary(min_size=4, max_size=4).map(bytes.hex),
)
def test_any_command_comes_back(
    verb: Verb, at: datetime, steps: int, level: str, password: str, operator: str
) -> None:
    minutes = 5 * steps if verb.restores else 0
    deadline = at.replace(microsecond=0)
    command = RelayCommand(METER, verb, Authority(level, password, operator), deadline, minutes)
    frame = build_control(command, permit(action(verb)))
    assert from_frame(frame) == command
    assert len(frame.data) == 16
