"""Silence on a line of ours, answers that are late, halved or another's, and how it ends."""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import replace

import pytest

from gateway.errors import LinkClosed
from gateway.model import Reason
from gateway.session import direct_line, line_terminal
from gateway.session.direct_line import LineSettings
from gateway.session.meter import MeterItem, MeterRefusal, read_item
from gateway.transports.link import Settle, Taken
from protocols.dlt645 import frame as frame645
from protocols.q_gdw376 import frame as frame376
from protocols.q_gdw376 import messages
from protocols.q_gdw376.connection import Answered, Denied
from tests.gateway.session.line_stage import METER, NOTHING_CAME, PATIENT, TRIP, Alone, forward, street
from tests.gateway.session.stage import until

# silence, lateness, the end


async def test_a_silent_meter_is_denied_and_another_answers() -> None:
    async with street(replace(NOTHING_CAME, reply_timeout_s=0.1)) as here:
        session = here.session()
        nobody = await read_item(session, "123456789012", "04000402")
        assert isinstance(nobody, MeterRefusal)
        assert nobody.reason is Reason.METER_SILENT
    async with street() as here:
        meter = here.customer()
        item = await read_item(here.session(), meter.address, "04000402")
        assert isinstance(item, MeterItem)
        assert item.raw == bytes.fromhex(meter.address)[::-1]


class Counting:
    """A meter that answers the n-th question with n. What it owes it says when it is asked next, at the
    latest: then its bytes come before the answer."""

    def __init__(self, address: str = METER) -> None:
        self.address = address
        self.asked = 0
        self.mute = False
        self.owes = b""

    def hear(self, data: bytes) -> bytes:
        asked = frame645.parse(data.lstrip(b"\xfe"))
        if asked.address != self.address:
            return b""
        self.asked += 1
        said = asked.data[:4] + bytes([self.asked] * 6)
        answer = b"\xfe\xfe" + frame645.build(frame645.Frame(self.address, 0x91, said))
        if self.mute:
            self.owes += answer
            return b""
        return self.pays() + answer

    def pays(self) -> bytes:
        owed, self.owes = self.owes, b""
        return owed


HASTY = LineSettings(reply_timeout_s=0.4, inter_byte_s=0.1, gap_s=0.004, late_s=0.8)


@pytest.mark.parametrize("late_s", [0.8, 0.0])
async def test_a_late_answer_is_not_taken_for_that_to_the_next_question(late_s: float) -> None:
    """Without the rest that a silent meter is given, the first answer is taken for the second: so this test
    can see it."""
    async with street(replace(HASTY, late_s=late_s)) as here:
        await here.session().ready()
        slow = Counting()
        slow.mute = True
        here.far.hear = slow.hear
        first = await read_item(here.session(), METER, "04000402")
        assert isinstance(first, MeterRefusal)
        assert first.reason is Reason.METER_SILENT
        slow.mute = False
        read = asyncio.create_task(read_item(here.session(), METER, "04000402"))
        if late_s:
            await here.far.link.write(slow.pays())
        second = await read
        assert isinstance(second, MeterItem)
        assert second.raw == bytes([2 if late_s else 1] * 6)
        assert here.terminal.counts["late"] == 1, "the one that was not taken"


async def test_a_late_answer_is_not_taken_for_another_meters() -> None:
    async with street(replace(HASTY, late_s=20.0)) as here:
        await here.session().ready()
        slow, quick = Counting(), Counting("202611230002")
        slow.mute = True
        here.far.hear = slow.hear
        assert isinstance(await read_item(here.session(), METER, "04000402"), MeterRefusal)
        here.far.hear = lambda data: slow.pays() + quick.hear(data)
        other = await read_item(here.session(), quick.address, "04000402")
        assert isinstance(other, MeterItem), other
        assert other.raw == bytes([1] * 6)
        assert here.terminal.counts["late"] == 1


async def test_an_answer_to_another_question_is_passed_over_and_one_of_another_meter_is_not() -> None:
    async with street() as here:
        await here.session().ready()
        stray = frame645.build(frame645.Frame(METER, 0x91, bytes.fromhex("01040004") + b"\x07" * 4))
        counting = Counting()
        here.far.hear = lambda data: stray + counting.hear(data)
        item = await read_item(here.session(), METER, "04000402")
        assert isinstance(item, MeterItem)
        assert here.terminal.counts["late"] == 1
        other = frame645.build(frame645.Frame("202611230002", 0x91, bytes.fromhex("02040004") + bytes(6)))
        here.far.hear = lambda data: other
        wrong = await read_item(here.session(), METER, "04000402")
        assert isinstance(wrong, MeterRefusal)
        assert wrong.reason is Reason.WRONG_METER


async def test_an_answer_that_came_while_the_house_was_busy_is_in_time() -> None:
    """The whole process is held up for longer than a meter may take: what came meanwhile is read first."""
    async with street(replace(HASTY, reply_timeout_s=0.2)) as here:
        await here.session().ready()
        counting = Counting()

        def busy(data: bytes) -> bytes:
            time.sleep(0.3)
            answer = counting.hear(data)
            # as from a socket: the bytes are there one turn before the task that reads them
            asyncio.get_running_loop().call_soon(here.far.link.write_now, answer)
            return b""

        here.far.hear = busy
        assert isinstance(await read_item(here.session(), METER, "04000402"), MeterItem)


async def test_half_an_answer_is_damage() -> None:
    async with street(HASTY) as here:
        await here.session().ready()
        counting = Counting()
        here.far.hear = lambda data: counting.hear(data)[:-3]
        item = await read_item(here.session(), METER, "04000402")
        assert isinstance(item, MeterRefusal)
        assert item.reason is Reason.DAMAGED
        assert here.terminal.counts["damaged"] == 1


async def test_a_line_that_is_never_quiet_still_gives_its_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(direct_line, "NEVER_QUIET_S", 0.3)
    async with street(replace(PATIENT, gap_s=0.3)) as here:
        await here.session().ready()
        counting = Counting()
        here.far.hear = counting.hear

        async def babble() -> None:
            while True:
                await here.far.link.write(b"\x00")
                await asyncio.sleep(0.02)

        babbling = asyncio.create_task(babble())
        try:
            read = asyncio.create_task(read_item(here.session(), METER, "04000402"))
            await until(lambda: here.terminal._next is None and here.terminal.counts["damaged"] > 3)
            assert not counting.asked, "it does not speak where others do"
            babbling.cancel()
            await until(lambda: counting.asked == 1)
            babbling = asyncio.create_task(babble())
            assert isinstance(await read, MeterItem)
        finally:
            babbling.cancel()


async def test_a_line_unplugged_in_the_middle_of_an_exchange() -> None:
    async with street() as here:
        await here.session().ready()
        here.far.hear = lambda data: b""
        session = here.session()
        read = asyncio.create_task(read_item(session, METER, "04000402"))
        heard = len(here.far.heard)
        await until(lambda: len(here.far.heard) > heard)
        here.far.link.abort()
        with pytest.raises(LinkClosed):
            await read
        await here.accepted
        assert not session.alive
        assert here.registry.session(here.plan.address) is None
        assert here.terminal.closed.is_set()
        assert not [one for one in asyncio.all_tasks() if one.get_name().startswith("line ")]


async def test_a_request_that_nobody_waits_for_any_more_makes_room_for_the_next() -> None:
    alone = Alone(NOTHING_CAME)
    await alone.terminal.read()
    for di in (1, 2, 3):
        await alone.terminal.write(alone.request(forward(METER, 0x11, bytes([di, 0, 0, 0]), 5.0)))
        await until(lambda: bool(alone.wire.writes))
    assert isinstance(await alone.outcome(), Denied)
    asked = [frame645.parse(one.lstrip(b"\xfe")).data[0] for one in alone.wire.writes]
    assert asked == [1, 3]
    await alone.terminal.close()


async def test_a_read_waits_for_the_answer_to_a_control() -> None:
    alone = Alone()
    await alone.terminal.read()
    control = alone.request(forward(METER, 0x1C, TRIP, 20.0))
    assert alone.terminal.write_now(control) is Taken.WHOLE
    await alone.terminal.write(alone.request(forward(METER, 0x11, bytes(4), 20.0)))
    for _ in range(5):
        await asyncio.sleep(0)
    assert len(alone.wire.writes) == 1
    await alone.meters.write(frame645.build(frame645.Frame(METER, 0x9C)))
    await until(lambda: len(alone.wire.writes) == 2)
    await alone.terminal.close()


async def test_a_meter_that_may_still_answer_is_not_asked_within_a_shorter_time() -> None:
    alone = Alone(replace(NOTHING_CAME, late_s=600.0))
    await alone.terminal.read()
    for _ in range(2):
        assert isinstance(await alone.ask(forward(METER, 0x11, bytes(4), 0.3)), Denied)
    assert len(alone.wire.writes) == 1
    await alone.terminal.close()


@pytest.mark.parametrize("baud", [None, 300])
async def test_what_a_question_takes_on_a_slow_line_is_waited_for_as_well(baud: int | None) -> None:
    """18 bytes at 300 bit/s take 0.6 s: an answer that comes 0.3 s after the write is no late one."""
    alone = Alone(replace(NOTHING_CAME, baud=baud))
    await alone.terminal.read()
    await alone.terminal.write(alone.request(forward(METER, 0x11, bytes(4), 20.0)))
    await until(lambda: bool(alone.wire.writes))
    if baud is None:
        assert isinstance(await alone.outcome(), Denied)
    answer = frame645.build(frame645.Frame(METER, 0x91, bytes(8)))
    await asyncio.sleep(0.3 if baud else 0.0)
    await alone.meters.write(answer)
    if baud:
        assert isinstance(await alone.outcome(), Answered)
    else:
        await until(lambda: alone.terminal.counts["late"] == 1)
    await alone.terminal.close()


async def test_an_error_of_ours_ends_the_line_and_is_told() -> None:
    alone = Alone()

    async def broken() -> tuple[bytes, Settle]:
        raise RuntimeError("planted")

    alone.wire.read = broken  # type: ignore[method-assign]
    await alone.terminal.read()
    with pytest.raises(LinkClosed, match="given up"):
        await alone.terminal.read()
    assert alone.wire.ended
    await alone.terminal.close()


async def test_a_house_that_takes_nothing_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(line_terminal, "MOST_UNREAD", 100)
    alone = Alone()
    await alone.terminal.read()
    for _ in range(10):
        with contextlib.suppress(LinkClosed):
            await alone.terminal.write(alone.request(messages.read_clock()))
    assert alone.terminal.waiting <= 100
    assert alone.wire.ended
    await alone.terminal.close()


async def test_a_line_that_ends_behind_a_control_leaves_it_unanswered() -> None:
    alone = Alone()
    await alone.terminal.read()
    assert alone.terminal.write_now(alone.request(forward(METER, 0x1C, TRIP, 20.0))) is Taken.WHOLE
    alone.meters.abort()
    with pytest.raises(LinkClosed):
        await alone.terminal.read()
    await alone.terminal.close()


async def test_half_a_frame_that_nobody_asked_for_keeps_the_line_for_a_moment_only() -> None:
    alone = Alone()
    await alone.terminal.read()
    await alone.meters.write(b"\x68\x01")
    await until(lambda: alone.terminal.counts["damaged"] > 0)
    await asyncio.sleep(PATIENT.gap_s)
    assert alone.terminal.write_now(alone.request(forward(METER, 0x1C, TRIP, 20.0))) is Taken.WHOLE
    await alone.terminal.close()


async def test_what_cannot_be_understood_is_denied_and_what_is_for_a_group_is_not_answered() -> None:
    alone = Alone()
    await alone.terminal.read()
    for content in (b"", b"\x68\x01", bytes(20)):
        assert isinstance(await alone.ask(messages.forward(1, content, 1.0, 100)), Denied)
    assert isinstance(await alone.ask(messages.query(0x0A, 3)), Denied)
    assert isinstance(await alone.ask(messages.query(0x09, 3)), Denied)
    to_all = replace(frame376.parse(alone.request(messages.read_clock())), group=True)
    await alone.terminal.write(frame376.build(to_all))
    await alone.terminal.write(b"rubbish")
    assert alone.terminal.waiting == 0
    assert alone.wire.writes == []
    await alone.terminal.close()
