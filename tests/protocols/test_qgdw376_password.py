"""PW: every scheme against captured frames, catalogued check values and a second CRC worked bit by bit."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.errors import LocalProtocolError
from protocols.permit import Permit
from protocols.q_gdw376 import messages
from protocols.q_gdw376.connection import Asked, Master, PasswordRefused, Terminal
from protocols.q_gdw376.frame import Frame, build, parse
from protocols.q_gdw376.messages import Request, RequestUnit
from protocols.q_gdw376.password import Crc16, External, Fixed, Place, Scheme, Unchecked
from tests.protocols.test_qgdw376_examples import EXAMPLES
from tests.protocols.test_qgdw376_frame import FIELD

CHECK = b"123456789"
FIELD_TERMINAL = "010107ba"
FIELD_PASSWORD = Fixed(bytes.fromhex("6789" + "00" * 14))
"""As the captured front end sends it, low byte first."""
CAPTURED = {one.id: one.raw for one in FIELD if one.id in ("gw-064", "gw-065", "gw-067", "gw-068")}


def plain_crc(data: bytes, polynomial: int, seed: int, reflected: bool, xor_out: int) -> int:
    """CRC-16 bit by bit."""
    register = seed
    for byte in data:
        for place in range(8):
            bit = byte >> (place if reflected else 7 - place) & 1
            if reflected:
                out = (register ^ bit) & 1
                register = register >> 1 ^ (int(f"{polynomial:016b}"[::-1], 2) if out else 0)
            else:
                out = register >> 15 ^ bit
                register = (register << 1 & 0xFFFF) ^ (polynomial if out else 0)
    return register ^ xor_out


def written(
    units: bytes, scheme: Scheme | None, password: bytes | None = None, protocol_id: int = 2
) -> bytes:
    """A clock set over a link with that scheme."""
    master = Master(password=scheme)
    master.terminal, master.protocol_id = FIELD_TERMINAL, protocol_id
    return master.send(Request(0x05, (RequestUnit(0, 31, units),), True, password, False), 0.0)


# -- making -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("polynomial", "seed", "reflected", "xor_out", "check"),
    [
        (0x1021, 0x0000, False, 0x0000, 0x31C3),  # XMODEM
        (0x1021, 0xFFFF, False, 0x0000, 0x29B1),  # IBM-3740
        (0x1021, 0x0000, True, 0x0000, 0x2189),  # KERMIT
        (0x1021, 0xFFFF, True, 0xFFFF, 0x906E),  # IBM-SDLC
        (0x1021, 0xFFFF, False, 0xFFFF, 0xD64E),  # GENIBUS
        (0x8005, 0x0000, True, 0x0000, 0xBB3D),  # ARC
        (0x8005, 0xFFFF, True, 0x0000, 0x4B37),  # MODBUS
        (0x3D65, 0x0000, True, 0xFFFF, 0xEA82),  # DNP
    ],
)
def test_the_crc_is_that_of_the_catalogue(
    polynomial: int, seed: int, reflected: bool, xor_out: int, check: int
) -> None:
    scheme = Crc16(seed, polynomial, reflected, xor_out, Place.FIRST_HIGH, 2)
    assert scheme.make(CHECK).hex() == f"{check:04x}"
    assert plain_crc(CHECK, polynomial, seed, reflected, xor_out) == check


@given(
    st.binary(max_size=60),
    st.integers(0, 0x7FFF),
    st.booleans(),
    st.integers(0, 0xFFFF),
)
def test_any_crc_is_that_worked_bit_by_bit(data: bytes, half: int, reflected: bool, xor_out: int) -> None:
    polynomial = half << 1 | 1
    scheme = Crc16(0xFFFF, polynomial, reflected, xor_out, Place.LAST_HIGH, 2)
    assert int.from_bytes(scheme.make(data), "big") == plain_crc(data, polynomial, 0xFFFF, reflected, xor_out)


@pytest.mark.parametrize(
    ("place", "password"),
    [
        (Place.FIRST_LOW, "c331" + "00" * 14),
        (Place.FIRST_HIGH, "31c3" + "00" * 14),
        (Place.LAST_LOW, "00" * 14 + "c331"),
        (Place.LAST_HIGH, "00" * 14 + "31c3"),
    ],
)
def test_where_the_crc_stands(place: Place, password: str) -> None:
    assert Crc16(place=place).make(CHECK).hex() == password


@pytest.mark.parametrize(
    "make",
    [
        lambda: Fixed(b"\x12"),
        lambda: Unchecked(15),
        lambda: Crc16(length=4),
        lambda: Crc16(seed=0x10000),
        lambda: Crc16(polynomial=-1),
        lambda: Crc16(xor_out=0x1FFFF),
        lambda: External(lambda data: data, length=0),
        lambda: External(lambda data: b"short").make(b""),
    ],
)
def test_what_is_no_scheme_is_refused(make: Any) -> None:
    with pytest.raises(LocalProtocolError):
        make()


# -- the master's end ---------------------------------------------------------------------------------


def test_the_crc_is_over_c_to_the_last_data_byte() -> None:
    clock = bytes.fromhex("301508245126")
    frame = parse(written(clock, Crc16(seed=0x1234)))
    # C, A1 A2 A3, AFN, SEQ (FIR FIN CON, number 1), p0, F31, clock: worked from the sheet.
    told = bytes.fromhex("4a" "0101" "ba07" "02" "05" "71" "0000" "4003" "301508245126")  # fmt: skip
    crc = plain_crc(told, 0x1021, 0x1234, False, 0)
    assert frame.body.hex() == f"00004003{clock.hex()}{crc & 0xFF:02x}{crc >> 8:02x}" + "00" * 14


def test_a_scheme_stands_in_for_the_requests_own_password() -> None:
    units = bytes(6)
    for own in (None, b"\x12\x34", b"\x55" * 16):
        assert parse(written(units, FIELD_PASSWORD, own)).body[10:] == FIELD_PASSWORD.password
        assert parse(written(units, None, own)).body[10:] == (own or b"")
    assert parse(written(units, Unchecked(2), bytes(16), protocol_id=1)).body[10:] == bytes(2)


def test_only_some_frames_carry_a_password() -> None:
    master = Master(password=FIELD_PASSWORD)
    master.terminal = FIELD_TERMINAL
    assert parse(master.send(messages.read_clock(), 0.0)).body == bytes.fromhex("00000200")


def test_pw_comes_before_the_time_label_and_is_made_with_its_flag() -> None:
    heard: list[bytes] = []

    def module(user_data: bytes) -> bytes:
        heard.append(user_data)
        return bytes(range(16))

    master = Master(password=External(module))
    master.terminal = FIELD_TERMINAL
    request = messages.forward(2, b"\x68", 1.0, 100)
    raw = master.send(request, 0.0, wall=datetime(2026, 11, 24, 8, 15, 30))
    frame = parse(raw)
    assert frame.body[-16:] == bytes(range(16))
    assert frame.tp == bytes.fromhex("013015082405")
    assert heard == [raw[6 : 14 + len(frame.body) - 16]]
    assert heard[0][7] & 0x80


# -- captured frames, both ends -----------------------------------------------------------------------


def test_the_captured_front_end_is_built_again() -> None:
    """A reset first, and its requests 2, 4 and 5: PW, and an FCB that turns."""
    master = Master(msa=1, fcv=True, password=FIELD_PASSWORD)
    master.terminal = FIELD_TERMINAL
    record = "01000100010021006655443322112222221111110005666666332211"

    def write(fn: int, data: bytes, afn: int = 4) -> bytes:
        permit = Permit(f"376 {afn:02x} f{fn}", FIELD_TERMINAL, "test")
        raw = master.send(Request(afn, (RequestUnit(0, fn, data),), repeatable=False, permit=permit), 0.0)
        master.abandon()
        return raw

    reset = parse(write(1, b"", afn=1))
    assert (reset.function, reset.acd, reset.fcv) == (1, False, False)
    assert write(29, b"123456" + bytes(6)) == CAPTURED["gw-065"]
    master.send(messages.read_clock(), 0.0)
    master.abandon()
    assert write(38, bytes.fromhex("01010101ff")) == CAPTURED["gw-067"]
    body = parse(CAPTURED["gw-068"]).body
    assert body[4:-16].hex().startswith(record[:20])
    assert write(10, body[4:-16]) == CAPTURED["gw-068"]


@pytest.mark.parametrize("name", sorted(CAPTURED))
def test_a_terminal_takes_the_right_password_and_denies_a_wrong_one(name: str) -> None:
    raw = CAPTURED[name]
    terminal = Terminal(FIELD_TERMINAL, password=FIELD_PASSWORD)
    terminal.receive_data(raw, 0.0)
    assert isinstance(terminal.next_event(), Asked)
    assert terminal.data_to_send() == b""
    frame = parse(raw)
    wrong = replace(frame, body=frame.body[:-1] + b"\x01")
    terminal.receive_data(build(wrong), 0.0)
    event = terminal.next_event()
    assert event == PasswordRefused(wrong, frame.body[-16:-1] + b"\x01", build(wrong))
    denial = parse(terminal.data_to_send())
    assert (denial.afn, denial.body.hex(), denial.pseq, denial.up) == (0, "00000200", frame.pseq, True)


def test_a_terminal_that_does_not_check_takes_any() -> None:
    for scheme in (None, Unchecked()):
        terminal = Terminal(FIELD_TERMINAL, password=scheme)
        terminal.receive_data(CAPTURED["gw-064"], 0.0)
        assert isinstance(terminal.next_event(), Asked)


def test_what_needs_no_password_is_not_checked() -> None:
    master, terminal = Master(), Terminal(FIELD_TERMINAL, password=FIELD_PASSWORD)
    master.terminal = FIELD_TERMINAL
    terminal.receive_data(master.send(messages.read_clock(), 0.0), 0.0)
    assert isinstance(terminal.next_event(), Asked)


def test_a_wrong_password_to_a_group_is_not_answered() -> None:
    frame = replace(parse(CAPTURED["gw-064"]), terminal="0101ffff", group=True, body=bytes(21))
    terminal = Terminal(FIELD_TERMINAL, password=FIELD_PASSWORD)
    terminal.receive_data(build(frame), 0.0)
    assert isinstance(terminal.next_event(), PasswordRefused)
    assert terminal.data_to_send() == b""


def test_a_frame_shorter_than_its_password_is_refused() -> None:
    frame = Frame(
        terminal=FIELD_TERMINAL, up=False, prm=True, function=10, afn=4, body=bytes.fromhex("00000100")
    )
    terminal = Terminal(FIELD_TERMINAL, password=FIELD_PASSWORD)
    terminal.receive_data(build(frame), 0.0)
    event = terminal.next_event()
    assert isinstance(event, PasswordRefused)
    assert event.password == frame.body


@pytest.mark.parametrize("number", [10, 11])
def test_both_ends_with_a_crc_agree_and_another_seed_does_not(number: int) -> None:
    """Worked examples 10 (with Tp) and 11, their PW made anew."""
    (example,) = [one for one in EXAMPLES if one.number == number]
    frame = parse(bytes.fromhex(example.frame))
    scheme = Crc16(seed=0x4C4B, place=Place.LAST_LOW)
    bare = replace(frame, body=frame.body[:-16])
    made = scheme.make(build(bare)[6:-2][: 8 + len(bare.body)])
    raw = build(replace(frame, body=bare.body + made))
    for seed, kind in ((0x4C4B, Asked), (0x4C4C, PasswordRefused)):
        terminal = Terminal(frame.terminal, password=Crc16(seed=seed, place=Place.LAST_LOW))
        terminal.receive_data(raw, 0.0)
        assert isinstance(terminal.next_event(), kind)


def test_a_module_that_fails_refuses_a_peer_and_tells_its_owner() -> None:
    def broken(user_data: bytes) -> bytes:
        raise OSError("no card")

    def judge(user_data: bytes, password: bytes) -> bool:
        return password == user_data[:16].ljust(16, b"\0")

    assert not External(broken).accepts(b"", bytes(16))
    assert External(broken, judge).accepts(b"abc", b"abc".ljust(16, b"\0"))
    with pytest.raises(OSError, match="no card"):
        written(bytes(6), External(broken))
