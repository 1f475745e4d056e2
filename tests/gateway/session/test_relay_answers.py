"""A control frame to a relay leaves once, and what its answer is worth."""

from __future__ import annotations

import asyncio
import re
from dataclasses import replace
from typing import Any, cast

import pytest

from gateway.command import Action, Why
from gateway.door import Accepted, Answer, NotWritten, Prepared, Refused, Silence, Trouble
from gateway.session.conversation import TIMES_DAMAGED
from gateway.session.relay import RelayDoor
from tests.gateway.session.relay_stage import (
    E11,
    FACTS,
    ONE_O_CLOCK,
    OURS,
    Bench,
    answer,
    bench,
    sent,
    turns,
    yes,
)
from tests.gateway.session.stage import until

# once


async def frames_of_a_silent_meter(one: Bench, door: RelayDoor) -> int:
    """How many control frames the terminal is given while the meter says nothing to them."""
    one.device.answers[0x10, 1] = lambda asked: None
    answer = await sent(door)
    assert isinstance(answer, Silence)
    await turns()
    return sum(value.content == E11 for value in one.forwards())


async def test_a_control_frame_is_never_repeated_and_the_terminal_has_its_time() -> None:
    async with bench(speed=500.0, repeats=2, reply_timeout_s=1.0) as one, one.door() as door:
        began = one.made.clock.monotonic()
        assert await frames_of_a_silent_meter(one, door) == 1
        (value,) = one.forwards()
        inner = value.message_timeout & 0x7F
        assert value.message_timeout & 0x80
        assert one.made.clock.monotonic() - began >= inner + 30


async def test_a_link_that_repeats_control_frames_is_caught() -> None:
    async with bench(speed=500.0, repeats=2) as one, one.door() as door:
        master = one.made.session()._conversation.master
        send = master.send
        master.send = lambda request, *more: send(replace(request, repeatable=True), *more)  # type: ignore[method-assign]  # the planted fault
        assert await frames_of_a_silent_meter(one, door) == 3


async def test_behind_a_wire_the_wait_is_short_and_still_longer_than_the_terminals() -> None:
    async with bench(speed=200.0) as one, one.door(replace(FACTS, port=2)) as door:
        began = one.made.clock.monotonic()
        assert await frames_of_a_silent_meter(one, door) == 1
        (value,) = one.forwards()
        assert (value.port, value.message_timeout) == (2, 0x80 | 5)
        assert 35 <= one.made.clock.monotonic() - began < 60


async def test_the_same_frame_does_not_leave_twice() -> None:
    async with bench() as one, one.door() as door:
        prepared = await door.prepare(Action.TRIP, ONE_O_CLOCK)
        assert isinstance(prepared, Prepared)
        for expected in (Accepted, Silence):
            written = await door.write(prepared, yes)
            assert not isinstance(written, NotWritten)
            assert isinstance(await written, expected)
        assert one.meter.controls == [E11]


async def test_a_damaged_answer_to_a_control_frame_does_not_send_it_again() -> None:
    async with bench(speed=500.0) as one, one.door() as door:
        forward = one.device.answers[0x10, 1]
        one.device.answers[0x10, 1] = lambda asked: (
            one.device.reply(asked, cast(Any, forward(asked)))[:-1] + b"\x17"
        )
        assert isinstance(await sent(door), Silence)
        assert one.meter.controls == [E11]
        one.meter.asked.clear()
        assert isinstance(await door.status(), Trouble)
        assert len(one.meter.asked) == 1 + TIMES_DAMAGED, "a read is asked again"


# what comes back

OTHER = answer(0x9C, address="000000000042")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        OTHER,
        answer(0x91, bytes.fromhex("030500045020")),
        answer(0x83, bytes.fromhex("ff000007")),
        answer(0xD1, b"\x02"),
        answer(0x9C, b"\x01"),
        OURS[:-2] + b"\x00\x16",
        OURS[:6],
        E11,
        answer(0xDC, b"\x04", "000000000042"),
    ],
    ids=[
        "nothing",
        "another meter's yes",
        "a late read",
        "an authentication's",
        "a refused read",
        "an odd length",
        "damaged",
        "cut",
        "the frame itself",
        "another meter's no",
    ],
)
async def test_what_is_not_this_meters_answer_to_this_frame_is_silence(content: bytes) -> None:
    async with bench() as one, one.door() as door:
        one.meter.says[0x1C] = content
        assert isinstance(await sent(door), Silence)
        assert one.meter.controls == [E11]


@pytest.mark.parametrize("before", [OTHER, E11, answer(0x91, bytes.fromhex("030500045020")), b"\x68\x00\x16"])
async def test_its_answer_is_found_behind_what_is_not(before: bytes) -> None:
    async with bench() as one, one.door() as door:
        one.meter.says[0x1C] = before + OURS
        assert isinstance(await sent(door), Accepted)


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (E11, Silence),
        (E11[:-3], Silence),
        (E11 + OURS, Accepted),
        (E11[4:] + OURS, Accepted),
        (E11 + answer(0xDC, b"\x04"), Refused),
    ],
    ids=["an echo", "a part of it", "before yes", "a part before yes", "before no"],
)
async def test_an_echo_of_the_frame_does_not_tell_its_password(content: bytes, kind: type[Answer]) -> None:
    """What a line or a terminal gives back goes into the evidence: without what must not be there."""
    secret = E11[11:14]
    async with bench() as one, one.door() as door:
        one.meter.says[0x1C] = content
        heard = await sent(door)
        assert isinstance(heard, kind)
        assert not re.search(secret.hex("."), str(heard)), heard
        if content == E11 + OURS:
            assert heard == Accepted((), OURS.hex(" "))


async def test_a_status_word_in_the_answer_is_told() -> None:
    async with bench() as one, one.door() as door:
        one.meter.says[0x1C] = bytes.fromhex("68120005112320689C02373343 16")  # E12
        heard = await sent(door)
        assert isinstance(heard, Accepted)
        assert heard.words == ("direct trip",)


@pytest.mark.parametrize(
    ("data", "why", "words"),
    [
        ("04", Why.NOT_AUTHENTICATED, "password wrong or not authorised"),
        ("02", Why.NOT_SUPPORTED, "no such data"),
        ("01", Why.REFUSED_BY_METER, "other error"),
        ("06", Why.NOT_AUTHENTICATED, "password"),
        ("00", Why.REFUSED_BY_METER, "error 00"),
        ("0100", Why.SUSPENDED, "suspended"),
        ("0200", Why.NOT_AUTHENTICATED, "MAC"),
        ("0400", Why.NOT_AUTHENTICATED, "password"),
        ("0800", Why.NOT_AUTHENTICATED, "timed out"),
        ("1000", Why.DEADLINE, "deadline"),
        ("2000", Why.KEEP_POWER_ON, "keep-power"),
        ("4000", Why.KEEP_POWER_ON, "keep-power"),
        ("8000", Why.REFUSED_BY_METER, "restore time"),
        ("0001", Why.REFUSED_BY_METER, "already tripped"),
        ("0080", Why.REFUSED_BY_METER, "reserved bit 15"),
    ],
)
async def test_a_refusal_has_its_cause(data: str, why: Why, words: str) -> None:
    async with bench() as one, one.door() as door:
        one.meter.says[0x1C] = answer(0xDC, bytes.fromhex(data))
        heard = await sent(door)
        assert isinstance(heard, Refused)
        assert heard.why is why
        assert words in ", ".join(heard.words)
        assert heard.frame.startswith("68 12 00")


async def test_a_denial_of_the_terminal_says_nothing_about_the_meter() -> None:
    async with bench() as one, one.door() as door:

        def obeys_and_denies(asked: Any) -> bytes:
            one.forward(asked)
            return one.device.deny(asked)

        one.device.answers[0x10, 1] = obeys_and_denies
        assert isinstance(await sent(door), Silence)
        one.device.answers[0x10, 1] = lambda asked: one.device.confirm(asked)
        prepared = await door.prepare(Action.CLOSE, ONE_O_CLOCK)
        assert isinstance(prepared, Prepared)


async def test_a_link_that_ends_before_the_answer_leaves_it_open() -> None:
    async with bench() as one, one.door() as door:
        one.device.answers[0x10, 1] = lambda asked: None
        prepared = await door.prepare(Action.TRIP, ONE_O_CLOCK)
        assert isinstance(prepared, Prepared)
        written = await door.write(prepared, yes)
        assert not isinstance(written, NotWritten)
        await until(lambda: len(one.forwards()) == 1)
        await one.device.hang_up()
        assert isinstance(await asyncio.wait_for(written, 2), Silence)


async def test_a_door_that_is_shut_before_the_answer_leaves_the_channel_to_others() -> None:
    async with bench() as one:
        async with one.door() as door:
            one.device.answers[0x10, 1] = lambda asked: None
            prepared = await door.prepare(Action.TRIP, ONE_O_CLOCK)
            assert isinstance(prepared, Prepared)
            written = await door.write(prepared, yes)
        assert not isinstance(written, NotWritten)
        assert isinstance(await asyncio.wait_for(written, 2), Silence)
        assert await asyncio.wait_for(one.made.session().read_clock(), 2) is not None
