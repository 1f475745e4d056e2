"""Meters with a security chip: authentication (03H) and the sealed command (1CH, level 98), back to back."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import pytest

from gateway.command import Action, Why
from gateway.control.security import SecurityModule
from gateway.door import Accepted, NotWritten, Prepared, Sealing, Trouble
from gateway.errors import LingdianError
from gateway.session.settings import MeterProfile
from tests.gateway.session.relay_stage import (
    FACTS,
    METER,
    ONE_O_CLOCK,
    SEALED,
    Bench,
    RelayMeter,
    answer,
    bench,
)

E13 = bytes.fromhex(
    "68120005112320680320323333 3A34333333 3435363738393A3B 4445464748494A4B 4533384456533333 F816".replace(
        " ", ""
    )
)
E13_REPLY = bytes.fromhex("681200051123206883103233333AD4D5D6D7E4E5E6E7E8E9EAEB3216")
E12 = bytes.fromhex("68120005112320681C1CCB33333434333333434445464748494A4B4C4D4E4F505152535455569F16")
"""The worked examples: authentication, its answer, the sealed command."""

BLOCK = bytes(range(0x10, 0x24))[::-1]
"""Cipher and MAC of E12 as the machine gives them: there they travel from the last byte."""


class Pair(NamedTuple):
    random: bytes
    cipher: bytes


class Made(NamedTuple):
    cipher: bytes
    mac: bytes


@dataclass
class Machine:
    """Gives what the worked examples hold, and keeps what it was asked."""

    fails: str = ""
    asked: list[tuple[bytes, ...]] = field(default_factory=list)

    async def authenticate(self, diversifier: bytes, /) -> Pair:
        self.asked.append((diversifier,))
        await asyncio.sleep(0)
        if self.fails == "authenticate":
            raise LingdianError("the machine is away")
        return Pair(bytes(range(0x18, 0x10, -1)), bytes(range(8, 0, -1)))

    async def seal(self, plaintext: bytes, random: bytes, esam: bytes, diversifier: bytes, /) -> Made:
        self.asked.append((plaintext, random, esam, diversifier))
        if self.fails == "seal":
            raise LingdianError("the machine is away")
        return Made(BLOCK[:16], BLOCK[16:])


def sealing(meter: RelayMeter) -> RelayMeter:
    meter.says[0x03] = E13_REPLY
    meter.says[0x1C] = bytes.fromhex("68120005112320689C02373343 16".replace(" ", ""))
    return meter


def fits(module: SecurityModule) -> Sealing:
    """The modules of the control room are what a door needs: mypy looks at this."""
    return module


async def test_both_frames_are_the_worked_examples_to_the_byte() -> None:
    machine = Machine()
    async with bench(SEALED, sealing=machine) as one, one.door() as door:
        sealing(one.meter)
        prepared = await door.prepare(Action.TRIP, ONE_O_CLOCK)
        assert isinstance(prepared, Prepared), prepared
        assert one.meter.controls == [E13]
        assert prepared.frame == E12
        assert prepared.shown.lower() == E12.hex(" ")
        assert prepared.tried == (E13.hex(" "), E13_REPLY.hex(" "))
        written = await door.write(prepared, lambda: None)
        assert not isinstance(written, NotWritten)
        assert await written == Accepted(("direct trip",), "68 12 00 05 11 23 20 68 9c 02 37 33 43 16")
        assert one.meter.controls == [E13, E12]
        assert one.meter.asked == ["04000402"]
    factor = bytes.fromhex("0000" + METER)
    assert machine.asked == [
        (factor,),
        (
            bytes.fromhex("1a00261124130000"),
            bytes.fromhex("a4a3a2a1"),
            bytes.fromhex("b8b7b6b5b4b3b2b1"),
            factor,
        ),
    ]


async def test_a_profile_says_how_the_block_travels_and_whether_a_word_is_wanted() -> None:
    other = replace(SEALED, sealed_order="as_given", status_word=False)
    async with bench(other, sealing=Machine()) as one, one.door() as door:
        sealing(one.meter)
        prepared = await door.prepare(Action.TRIP, ONE_O_CLOCK)
        assert isinstance(prepared, Prepared)
        data = bytes(byte - 0x33 & 0xFF for byte in prepared.frame[10:-2])
        assert data == bytes.fromhex("98000000") + bytes.fromhex("01000000") + BLOCK


async def test_an_authentication_is_asked_for_each_frame_and_never_repeated() -> None:
    async with bench(SEALED, sealing=Machine(), speed=500.0) as one, one.door() as door:
        sealing(one.meter)
        for _ in range(2):
            assert isinstance(await door.prepare(Action.CLOSE, ONE_O_CLOCK), Prepared)
        assert [frame[8] for frame in one.meter.controls] == [3, 3]
        one.device.answers[0x10, 1] = lambda asked: None
        before = len(one.forwards())
        trouble = await door.prepare(Action.CLOSE, ONE_O_CLOCK)
        assert isinstance(trouble, Trouble)
        assert trouble.why is Why.METER_SILENT
        assert len(one.forwards()) == before + 1


async def test_a_damaged_answer_to_an_authentication_does_not_send_it_again() -> None:
    async with bench(SEALED, sealing=Machine(), speed=500.0) as one, one.door() as door:
        sealing(one.meter)
        assert await door.identify() is None
        one.device.answers[0x10, 1] = lambda asked: one.device.reply(asked, one.forward(asked))[:-1] + b"\x17"
        assert isinstance(await door.prepare(Action.CLOSE, ONE_O_CLOCK), Trouble)
        assert one.meter.controls == [E13]


@pytest.mark.parametrize(
    ("reply", "why"),
    [
        (bytes.fromhex("681200051123206 8C3023B336E16".replace(" ", "")), Why.NOT_AUTHENTICATED),
        (answer(0xC3, b"\x00\x01"), Why.SUSPENDED),
        (answer(0xC3, b"\x04\x00"), Why.NOT_AUTHENTICATED),
        (answer(0xC3, b"\x80\x00"), Why.REFUSED_BY_METER),
        (answer(0xC3, b"\x04"), Why.NOT_AUTHENTICATED),
        (answer(0x83, bytes.fromhex("ff000007"), METER), Why.METER_SILENT),
        (answer(0x83, bytes.fromhex("ff000007") + bytes(12), "000000000042"), Why.METER_SILENT),
        (answer(0x83, bytes.fromhex("ff020007") + bytes(12)), Why.METER_SILENT),
        (answer(0x9C), Why.METER_SILENT),
        (b"", Why.METER_SILENT),
    ],
    ids=[
        "SERR 8",
        "SERR 256",
        "SERR 4",
        "SERR 128",
        "one byte",
        "empty",
        "other",
        "other DI",
        "yes",
        "silence",
    ],
)
async def test_without_an_authentication_nothing_is_sealed(reply: bytes, why: Why) -> None:
    machine = Machine()
    async with bench(SEALED, sealing=machine) as one, one.door() as door:
        one.meter.says[0x03] = reply
        trouble = await door.prepare(Action.TRIP, ONE_O_CLOCK)
        assert isinstance(trouble, Trouble)
        assert trouble.why is why
        assert len(machine.asked) == 1
        assert not one.meter.switches()


@pytest.mark.parametrize("fails", ["authenticate", "seal"])
async def test_a_machine_that_is_away_lets_nothing_out(fails: str) -> None:
    async with bench(SEALED, sealing=Machine(fails)) as one, one.door() as door:
        sealing(one.meter)
        trouble = await door.prepare(Action.TRIP, ONE_O_CLOCK)
        assert trouble == Trouble(Why.SECURITY_MODULE, "the machine is away")
        assert not one.meter.switches()


async def test_without_a_machine_a_sealed_meter_is_not_switched_by_password() -> None:
    async with bench(replace(SEALED, password="123456")) as one, one.door() as door:
        trouble = await door.prepare(Action.CLOSE, ONE_O_CLOCK)
        assert isinstance(trouble, Trouble)
        assert trouble.why is Why.SECURITY_MODULE
        assert not one.meter.controls


@pytest.mark.parametrize(("assets", "tried"), [(METER, True), ("M1", False)])
async def test_a_number_that_cannot_be_read_is_taken_from_the_assets(assets: str, tried: bool) -> None:
    async with bench(SEALED, sealing=Machine()) as one, one.door(replace(FACTS, meter=assets)) as door:
        sealing(one.meter)
        one.meter.items["04000402"] = None
        prepared = await door.prepare(Action.CLOSE, ONE_O_CLOCK)
        assert isinstance(prepared, Prepared) is tried
        assert (one.meter.controls == [E13]) is tried


@pytest.mark.parametrize("address", ["AAAAAAAAAAAA", "999999999999"])
async def test_no_authentication_goes_to_a_wildcard_or_to_all(address: str) -> None:
    async with bench(SEALED, sealing=Machine()) as one, one.door(replace(FACTS, address=address)) as door:
        sealing(one.meter)
        assert isinstance(await door.prepare(Action.CLOSE, ONE_O_CLOCK), Trouble)
        assert not one.meter.controls


async def test_profiles_of_meters_are_told_apart() -> None:
    async def built(one: Bench, profile: str) -> int:
        async with one.door(replace(FACTS, profile=profile)) as door:
            prepared = await door.prepare(Action.CLOSE, ONE_O_CLOCK)
            assert isinstance(prepared, Prepared)
            return prepared.frame[10] - 0x33

    general = MeterProfile(password="123456", level="04")
    async with bench(sealing=Machine(), meters={"default": general, "esam": SEALED}) as one:
        sealing(one.meter)
        assert [await built(one, name) for name in ("esam", "", "unknown")] == [0x98, 0x04, 0x04]
