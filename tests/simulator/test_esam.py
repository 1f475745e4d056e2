"""The chip of a simulated meter, against SM4's published vector and a plain working of the bench scheme."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from protocols.dlt645 import control
from protocols.dlt645.control_messages import RelayReply, SecurityReply, SecurityRequest, Verb
from protocols.dlt645.messages import ErrorReply
from simulator.control import Setup
from simulator.esam import BENCH_KEY
from simulator.sm4 import Sm4
from tests.simulator.household import NOON, OPERATOR, Household

ESAM = Setup(esam=True)
AUTHENTICATED = 13


def test_sm4_of_the_standards_example() -> None:
    """GB/T 32907-2016, A.1."""
    key = bytes.fromhex("0123456789abcdeffedcba9876543210")
    cipher = Sm4(key).encrypt(key)
    assert cipher.hex() == "681edf34d206965e86b3e94f536e4246"
    assert Sm4(key).decrypt(cipher) == key
    with pytest.raises(ValueError, match="16 bytes, not 15"):
        Sm4(key[1:])
    with pytest.raises(ValueError, match="16 bytes, not 8"):
        Sm4(key).encrypt(key[8:])


# -- the scheme of docs/security-module.md, once more and plainly ---------------------------------


def xor(one: bytes, other: bytes) -> bytes:
    return bytes(a ^ b for a, b in zip(one, other, strict=True))


def key_of(purpose: bytes, diversifier: bytes, master: bytes = BENCH_KEY) -> bytes:
    return Sm4(Sm4(master).encrypt(purpose.ljust(16, b"\0"))).encrypt(
        diversifier + xor(diversifier, b"\xff" * 8)
    )


def cipher_1(random: bytes, diversifier: bytes) -> bytes:
    whole = Sm4(key_of(b"authenticate", diversifier)).encrypt(random + diversifier)
    return xor(whole[:8], whole[8:])


def seal(plaintext: bytes, random: bytes, esam: bytes, diversifier: bytes) -> tuple[bytes, bytes]:
    """Of a plaintext that fills less than one block."""
    fresh = random + esam + bytes(4)
    enciphering, signing = (
        Sm4(Sm4(key_of(purpose, diversifier)).encrypt(fresh)) for purpose in (b"encipher", b"mac")
    )
    cipher = enciphering.encrypt((plaintext + b"\x80").ljust(16, b"\0"))
    mac = signing.encrypt(xor(signing.encrypt((16).to_bytes(16, "big")), cipher))[:4]
    return cipher, mac


def session_of(home: Household) -> tuple[bytes, bytes]:
    session = home.authenticate(cipher_1)
    assert not isinstance(session, ErrorReply)
    return session


def test_an_authenticated_and_sealed_trip_is_obeyed() -> None:
    home = Household(ESAM)
    session = session_of(home)
    assert session[1] == bytes.fromhex(f"4c44{home.address}")
    assert AUTHENTICATED in home.word
    assert home.say(home.sealed(Verb.TRIP, session, seal)) == RelayReply(home.address, 1 << 2)
    assert home.meter.is_open
    assert [entry.verb for entry in home.entries if entry.what == "frame"] == ["03 070000ff", "trip"]


def test_status_words_say_what_is_done_and_what_is_not() -> None:
    home = Household(replace(ESAM, trip_delay_minutes=5))
    session = session_of(home)

    def answer(verb: Verb) -> int:
        said = home.say(home.sealed(verb, session, seal))
        assert isinstance(said, RelayReply | ErrorReply)
        if isinstance(said, ErrorReply):
            assert said.wide
            return -said.error
        assert said.word is not None
        return said.word

    assert answer(Verb.TRIP) == 1 << 3
    assert answer(Verb.KEEP_POWER) == 1 << 8
    assert answer(Verb.TRIP) == -(1 << 5)
    assert answer(Verb.RELEASE_KEEP_POWER) == 1 << 9
    assert answer(Verb.PERMIT_CLOSE) == 1 << 1
    assert answer(Verb.CLOSE) == 1 << 0
    assert answer(Verb.ALARM) == 1 << 10
    assert answer(Verb.CLEAR_ALARM) == 1 << 11


def test_a_meter_may_know_no_status_words() -> None:
    home = Household(replace(ESAM, status_words=False))
    session = session_of(home)
    assert home.say(home.sealed(Verb.TRIP, session, seal)) == RelayReply(home.address)
    late = home.sealed(Verb.TRIP, session, seal, deadline=NOON - timedelta(seconds=1))
    assert home.say(late) == ErrorReply(home.address, 0x1C, 0x04)


def test_plain_commands_are_refused_unless_it_takes_both() -> None:
    home = Household(ESAM)
    assert isinstance(home.switch(Verb.TRIP), ErrorReply)
    home = Household(replace(ESAM, passwords=(("02", "123456"),)))
    assert isinstance(home.switch(Verb.TRIP), RelayReply)


def test_a_sealed_command_needs_a_session_that_has_not_run_out() -> None:
    home = Household(ESAM)
    session = session_of(home)
    home.pass_time(minutes=5)
    refusal = ErrorReply(home.address, 0x1C, 1 << 3, wide=True)
    assert home.say(home.sealed(Verb.TRIP, session, seal)) == refusal
    session = session_of(home)
    ended = home.secured(control.end_authentication(home.address, OPERATOR))
    assert isinstance(ended, SecurityReply)
    assert home.say(home.sealed(Verb.TRIP, session, seal)) == refusal
    assert not home.meter.is_open


def test_a_wrong_mac_and_a_command_of_another_session_are_refused() -> None:
    home = Household(ESAM)
    old = session_of(home)
    stale = home.sealed(Verb.TRIP, old, seal)
    new = session_of(home)
    assert new[0] != old[0]
    refusal = ErrorReply(home.address, 0x1C, 1 << 1, wide=True)
    assert home.say(stale) == refusal
    assert home.say(home.sealed(Verb.TRIP, new, seal, spoil=1)) == refusal
    assert not home.meter.is_open
    assert [entry.verb for entry in home.entries if entry.what == "frame"][-1] == "sealed"


def test_a_session_may_be_good_for_one_command_only() -> None:
    home = Household(replace(ESAM, spends_random=True))
    session = session_of(home)
    trip = home.sealed(Verb.TRIP, session, seal)
    assert isinstance(home.say(trip), RelayReply)
    assert isinstance(home.say(trip), ErrorReply)


def test_authentication_fails_with_another_key_number_or_cipher() -> None:
    home = Household(ESAM)
    failed = ErrorReply(home.address, 0x03, 1 << 3, wide=True)
    assert home.authenticate(lambda random, named: bytes(8)) == failed
    other = Household(replace(ESAM, master_key=bytes(16)))
    assert isinstance(other.authenticate(cipher_1), ErrorReply)
    stranger = "000000000001"
    cipher = cipher_1(bytes(8), control.diversifier(stranger))
    request = control.authentication(home.address, OPERATOR, cipher, bytes(8), stranger)
    assert home.secured(request) == failed
    cipher = cipher_1(bytes(8), control.diversifier(home.address))
    request = control.authentication(home.address, OPERATOR, cipher, bytes(8), stranger)
    assert home.secured(request) == failed, "the right cipher, another meter's number"
    assert AUTHENTICATED not in home.word


def test_failures_of_the_chip_suspend_the_meter() -> None:
    home = Household(replace(ESAM, lock_after=2))
    session = session_of(home)
    home.say(home.sealed(Verb.TRIP, session, seal, spoil=1))
    home.say(home.sealed(Verb.TRIP, session, seal, spoil=2))
    suspended = ErrorReply(home.address, 0x1C, 1 << 0, wide=True)
    assert home.say(home.sealed(Verb.CLOSE, session, seal)) == suspended
    assert home.authenticate(cipher_1) == ErrorReply(home.address, 0x03, 1 << 8, wide=True)
    home.pass_time(hours=12)
    assert isinstance(home.say(home.sealed(Verb.CLOSE, session_of(home), seal)), RelayReply)


def test_sealed_rubbish_is_refused_by_its_kind() -> None:
    home = Household(ESAM)
    session = session_of(home)

    def sealing(told: bytes) -> object:
        def seal_that(_: bytes, *rest: bytes) -> tuple[bytes, bytes]:
            return seal(told, *rest)

        return home.say(home.sealed(Verb.TRIP, session, seal_that))

    def wide(bit: int) -> ErrorReply:
        return ErrorReply(home.address, 0x1C, 1 << bit, wide=True)

    assert sealing(bytes.fromhex("7700261124130000")) == ErrorReply(home.address, 0x1C, 0x01)
    assert sealing(bytes.fromhex("1a002611241300")) == ErrorReply(home.address, 0x1C, 0x01)
    assert sealing(bytes.fromhex("1a00261324130000")) == wide(4)
    assert sealing(bytes.fromhex("1d00261124130000")) == wide(7)
    assert not home.meter.is_open


def test_other_security_commands_are_refused_and_without_a_chip_nothing_is_said() -> None:
    home = Household(ESAM)
    status = SecurityRequest(home.address, "078102ff", OPERATOR)
    assert home.secured(status) == ErrorReply(home.address, 0x03, 1, wide=True)
    bare = Household()
    assert bare.secured(SecurityRequest(bare.address, "078102ff", OPERATOR)) is None
    assert bare.entries[-1].decision == "no ESAM"
