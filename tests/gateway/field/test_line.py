"""One question at a time, nothing but reads, and waits that are learned."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from gateway.clock import Clock
from gateway.errors import LinkClosed
from gateway.field.line import BABBLE_S, READS, MeterLine, NotARead, Timing
from gateway.transports.memory import MemoryLink, pair
from protocols.dlt645.frame import BROADCAST, WILDCARD, Frame, build

METER, OTHER = "202311050012", "202311060013"
ENERGY = Frame(WILDCARD, 0x11, bytes.fromhex("00000100"))
ANSWER = Frame(METER, 0x91, bytes.fromhex("0000010056341200"))
FAST = Clock(speed=10.0)
Reply = Callable[[bytes], list[tuple[float, bytes]]]


async def answering(theirs: MemoryLink, reply: Reply) -> None:
    """Answer each write with what `reply` says, each piece after its seconds of the fast clock."""
    loop = asyncio.get_running_loop()
    while True:
        data, _ = await theirs.read()
        for after, said in reply(data):
            loop.call_later(after / FAST.speed, theirs.write_now, said)


class Asking:
    """A line and who answers on it, while one asks."""

    def __init__(self, reply: Reply, timing: Timing | None = None) -> None:
        self.ours, self.theirs = pair()
        self.line = MeterLine(self.ours, FAST, timing or Timing(between_bytes_s=0.2))
        self._reply = reply

    async def __aenter__(self) -> MeterLine:
        self._task = asyncio.create_task(answering(self.theirs, self._reply))
        return self.line

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()


def always(*pieces: tuple[float, bytes]) -> Reply:
    return lambda data: list(pieces)


async def test_an_answer_comes_whole_behind_its_lead_in_and_in_pieces() -> None:
    raw = build(ANSWER, 4)
    async with Asking(always((0.05, raw[:7]), (0.12, raw[7:]))) as line:
        heard = await line.ask(ENERGY)
    assert heard.frames == (ANSWER,)
    assert not heard.damage
    assert heard.reply_s is not None
    assert heard.reply_s >= 0.04


async def test_nothing_but_reads_leaves() -> None:
    async with Asking(always((0.0, build(ANSWER)))) as line:
        for control in range(256):
            if control in READS:
                continue
            with pytest.raises(NotARead, match="only reads leave"):
                await line.ask(Frame(METER, control, bytes(8)))
        link = line.link
        assert isinstance(link, MemoryLink)
        assert link.writes == []
        await line.ask(ENERGY)
        assert link.writes == [build(ENERGY, 4)]
    assert frozenset({0x01, 0x02, 0x11, 0x12, 0x13}) == READS, "no other function only asks in both editions"


async def test_what_was_said_comes_back_and_is_no_answer() -> None:
    async with Asking(lambda data: [(0.0, data), (0.05, build(ANSWER))]) as line:
        assert (await line.ask(ENERGY)).frames == (ANSWER,)
    async with Asking(lambda data: [(0.0, data)]) as line:
        assert (await line.ask(ENERGY)).silent


async def test_a_sender_that_is_switched_on_is_no_meter() -> None:
    async with Asking(always((0.02, b"\x00\xff"))) as line:
        assert (await line.ask(ENERGY)).silent
    async with Asking(always((0.02, b"\x00\xff\x00"))) as line:
        assert (await line.ask(ENERGY)).damage == b"\x00\xff\x00"


async def test_several_at_once_are_damage_and_one_after_the_other_are_heard_each() -> None:
    broken = bytes(a & b for a, b in zip(build(ANSWER), build(Frame(OTHER, 0x91, ANSWER.data)), strict=True))
    async with Asking(always((0.02, broken[:-2]))) as line:
        heard = await line.ask(ENERGY)
    assert (heard.frames, bool(heard.damage)) == ((), True)
    other = Frame(OTHER, 0x91, ANSWER.data)
    both = always((0.02, build(ANSWER)), (0.4, build(other)))
    async with Asking(both) as line:
        assert (await line.ask(ENERGY, others=True)).frames == (ANSWER, other)
    async with Asking(both) as line:
        assert (await line.ask(ENERGY)).frames == (ANSWER,)


async def test_the_wait_for_silence_is_learned_within_its_bounds() -> None:
    after = 0.0

    def reply(data: bytes) -> list[tuple[float, bytes]]:
        return [(after, build(ANSWER))] if after < 1.0 else []

    async with Asking(reply, Timing(longest_wait_s=2.0, shortest_wait_s=0.3)) as line:
        assert line.wait_s == 2.0
        await line.ask(ENERGY)
        quick = line.wait_s
        assert 0.3 <= quick < 1.5
        after = 0.4
        await line.ask(ENERGY, patient=True)
        assert quick < line.wait_s
        assert 4 * 0.38 < line.wait_s <= 2.0
        after = 9.0
        began = FAST.monotonic()
        assert (await line.ask(ENERGY)).silent
        assert FAST.monotonic() - began >= line.wait_s - 0.1


async def test_what_comes_too_late_is_kept_and_makes_the_wait_longer() -> None:
    asked: list[bytes] = []

    def reply(data: bytes) -> list[tuple[float, bytes]]:
        asked.append(data)
        return [(0.9, build(Frame(OTHER, 0x91, ANSWER.data)))] if len(asked) == 2 else [(0.0, build(ANSWER))]

    only = Frame(METER, 0x11, ENERGY.data)
    async with Asking(reply, Timing(longest_wait_s=3.0, shortest_wait_s=0.3, times=1.0)) as line:
        await line.ask(only)
        before = line.wait_s
        assert (await line.ask(Frame("AAAAAAAAAA13", 0x11, ENERGY.data))).silent
        await FAST.sleep(1.0)
        assert (await line.ask(only)).frames[-1] == ANSWER
        assert list(line.strangers) == [OTHER]
        assert line.late == 1
        assert line.wait_s > before


async def test_the_answer_to_the_question_before_is_no_answer() -> None:
    volts = Frame(METER, 0x91, bytes.fromhex("000101022022"))
    asked = Frame(METER, 0x11, volts.data[:4])
    async with Asking(always((0.0, build(ANSWER)), (0.3, build(volts)))) as line:
        heard = await line.ask(asked)
    assert heard.frames == (ANSWER, volts)
    assert line.late == 1


async def test_a_line_that_never_falls_silent_is_left_after_a_time() -> None:
    babble = [(0.05 * number, b"\x55" * 3) for number in range(1000)]
    async with Asking(lambda data: babble) as line:
        async with asyncio.timeout(10):
            began = FAST.monotonic()
            heard = await line.ask(ENERGY)
        assert FAST.monotonic() - began < line.timing.longest_wait_s + BABBLE_S + 2
        assert heard.damage
        assert len(heard.damage) < 3000


async def test_the_broadcast_address_may_be_answered_by_anyone() -> None:
    asked = Frame(BROADCAST, 0x01, bytes.fromhex("1090"))
    told = Frame(METER, 0x81, bytes.fromhex("109056341200"))
    async with Asking(always((0.0, build(told)))) as line:
        assert (await line.ask(asked)).frames == (told,)
        assert not line.strangers


async def test_a_link_has_a_speed_only_where_it_is_a_port() -> None:
    async with Asking(always()) as line:
        assert line.speed is None
        with pytest.raises(ValueError, match="no speed"):
            await line.set_speed(2400)


async def test_a_link_that_ends_says_so() -> None:
    async with Asking(always()) as line:
        line.link.abort()
        with pytest.raises(LinkClosed):
            await line.ask(ENERGY)
