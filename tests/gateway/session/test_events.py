"""Events of terminals: fetched from where the stored ones end, once each, last of all urgencies."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime

import pytest

from gateway.model import EventClass
from gateway.session.channel import Urgency
from gateway.session.events import FETCH_TIMEOUT_S, RECORDS_A_REQUEST
from gateway.session.settings import SessionSettings
from protocols.q_gdw376 import messages
from protocols.q_gdw376.frame import Frame, build
from protocols.q_gdw376.messages import encode_unit
from tests.gateway.session.stage import (
    ADDRESS,
    Device,
    Stage,
    assets,
    due,
    frozen_unit,
    noon_clock,
    stage,
    until,
)

IMPORTANT, NORMAL = EventClass.IMPORTANT, EventClass.NORMAL

CLOCK_OFF = bytes.fromhex("0c 07 00 10 24 11 26 05 80")
"""ERC12, Le 7: 2026-11-24 10:00, point 5 (D11-D0), D15 = 1: it begins"""


def record(number: int) -> bytes:
    """ERC12 at ten o'clock and `number` minutes, of point 5."""
    return bytes.fromhex(f"0c 07 {number % 60:02d} {10 + number // 60:02d} 24 11 26 05 80")


class Memory:
    """A terminal's memory as a test fills it. `lost`: records that it denies."""

    def __init__(self, device: Device, *, newest: int = 0) -> None:
        self.device = device
        self.ec = [newest % 256, 0]
        self.lost: set[int] = set()
        self.asked: list[tuple[int, int, int]] = []
        """(Fn, Pm, Pn) of every request"""
        self.mute = False
        device.answers[0x0E, 1] = device.answers[0x0E, 2] = self.answer

    def answer(self, frame: Frame) -> list[bytes] | bytes | None:
        fn = messages.decode(frame)[0].fn
        pm, pn = frame.body[4:6]
        self.asked.append((fn, pm, pn))
        if self.mute:
            return None
        pointers = [(pm + place) % 256 for place in range((pn - pm) % 256)]
        if self.lost & set(pointers):
            return self.device.deny(frame)
        return [self.unit(fn, pm, pointers)]

    def unit(self, fn: int, pm: int, pointers: Sequence[int]) -> bytes:
        pn = (pm + len(pointers)) % 256
        return unit_head(fn) + bytes((*self.ec, pm, pn)) + b"".join(map(record, pointers))

    async def tell(self) -> None:
        """A heartbeat with ACD and EC."""
        beat = Frame(
            terminal=ADDRESS, up=True, prm=True, function=9, afn=2, body=encode_unit(2, 3, 0), acd=True,
            ec=(self.ec[0], self.ec[1]), pseq=9,
        )  # fmt: skip
        await self.device.link.write(build(beat))

    async def push(self, pointer: int, count: int = 1, fn: int = 1) -> Frame:
        """Records sent of its own accord."""
        return await self.device.say(0x0E, self.unit(fn, pointer, range(pointer, pointer + count)))


def unit_head(fn: int) -> bytes:
    return bytes((0, 0, 1 << (fn - 1), 0))


async def ready(made: Stage, newest: int = 0) -> tuple[Device, Memory]:
    device = await made.logged_in()
    memory = Memory(device, newest=newest)
    await made.session().ready()
    return device, memory


def had(made: Stage, event_class: EventClass = IMPORTANT) -> list[int]:
    """Pointers stored, in the order they came."""
    return [pointer for kind, pointer, _, _ in made.store.events if kind is event_class]


async def test_events_that_wait_are_fetched_and_say_what_happened() -> None:
    async with stage(assets(), clock=noon_clock(50.0)) as made:
        _, memory = await ready(made, newest=3)
        await memory.tell()
        await until(lambda: len(made.store.events) == 3)
        assert memory.asked == [(1, 0, 3)]
        row = made.store.events[IMPORTANT, 0, 12, CLOCK_OFF[2:]]
        assert (row.occurred_at, row.pn, row.starts) == (datetime(2026, 11, 24, 2, tzinfo=UTC), 5, True)
        assert row.reason is None
        assert {one["name"] for one in row.detail} >= {"at", "point"}
        assert made.store.pointers == {IMPORTANT: 3, NORMAL: 0}
        assert made.count("events_total", source="fetched") == 3


@pytest.mark.parametrize(
    ("body", "stored", "shown"),
    [
        (f"00 10 24 11 26 {'a5' * 16} 0a", f"00 10 24 11 26 {'00' * 16} 0a", "***"),
        ("00 10 24 11 26 a5 a5 0a", "00 10 24 11 26 00 00 0a", "***"),
        ("00 10 24 11 26 a5 a5 a5 0a", "00 10 24 11 26 00 00 00 00", None),
        ("00 10 24", "00 10 24", None),
    ],
    ids=["16 bytes", "2 bytes", "not understood", "too short"],
)
async def test_a_password_that_was_tried_is_not_stored(body: str, stored: str, shown: str | None) -> None:
    async with stage(assets(), clock=noon_clock(50.0)) as made:
        device, _ = await ready(made)
        raw = bytes.fromhex(body)
        await device.say(0x0E, unit_head(1) + bytes((1, 0, 0, 1, 20, len(raw))) + raw)
        await until(lambda: len(made.store.events) == 1)
        (row,) = made.store.events.values()
        assert row.raw == bytes.fromhex(stored)
        told = [one["value"] for one in row.detail if one["name"] == "pw"]
        assert told == ([] if shown is None else [shown])


async def test_only_what_is_new_is_asked_for_and_both_memories() -> None:
    async with stage(assets(), clock=noon_clock(50.0)) as made:
        made.store.pointers = {IMPORTANT: 250, NORMAL: 7}
        _, memory = await ready(made)
        memory.ec = [2, 9]
        await memory.tell()
        await until(lambda: made.store.pointers == {IMPORTANT: 2, NORMAL: 9})
        assert memory.asked == [(1, 250, 2), (2, 7, 9)]
        assert had(made) == [250, 251, 252, 253, 254, 255, 0, 1]
        memory.ec = [3, 9]
        await memory.tell()
        await until(lambda: made.store.pointers[IMPORTANT] == 3)
        assert memory.asked[2:] == [(1, 2, 3)]


async def test_many_are_fetched_a_few_at_a_time() -> None:
    async with stage(assets(), clock=noon_clock(50.0)) as made:
        _, memory = await ready(made, newest=100)
        await memory.tell()
        await until(lambda: made.store.pointers[IMPORTANT] == 100)
        assert had(made) == list(range(100))
        assert max(pn - pm for _, pm, pn in memory.asked) == RECORDS_A_REQUEST


async def test_a_login_may_tell_of_them() -> None:
    async with stage(assets(), clock=noon_clock(50.0)) as made:
        device = made.dial()
        made.teach(device)
        memory = Memory(device, newest=1)
        login = Frame(
            terminal=ADDRESS, up=True, prm=True, function=9, afn=2, body=encode_unit(2, 1, 0), acd=True,
            ec=(1, 0), con=True, pseq=3,
        )  # fmt: skip
        await device.link.write(build(login))
        await until(lambda: had(made) == [0])
        assert memory.asked == [(1, 0, 1)]


async def test_a_restart_goes_on_where_the_stored_ones_end() -> None:
    async with stage(assets(), clock=noon_clock(50.0)) as made:
        _, memory = await ready(made, newest=5)
        await memory.tell()
        await until(lambda: made.store.pointers[IMPORTANT] == 5)
        first = dict(made.store.events)
        stored = made.store
    async with stage(assets(), clock=noon_clock(50.0)) as made:
        made.store.events, made.store.pointers = stored.events, stored.pointers
        _, memory = await ready(made, newest=6)
        await memory.tell()
        await until(lambda: made.store.pointers[IMPORTANT] == 6)
        assert memory.asked == [(1, 5, 6)]
        assert len(made.store.events) == len(first) + 1


async def test_the_database_away_loses_none() -> None:
    async with stage(assets(), clock=noon_clock(1000.0)) as made:
        _, memory = await ready(made, newest=2)
        made.store.away = True
        await memory.tell()
        await asyncio.sleep(0.1)
        made.store.away = False
        await until(lambda: made.store.pointers[IMPORTANT] == 2)
        assert had(made) == [0, 1]


async def test_a_commit_whose_answer_was_lost_doubles_none() -> None:
    async with stage(assets(), clock=noon_clock(1000.0)) as made:
        _, memory = await ready(made, newest=2)
        made.store.pointers[IMPORTANT] = 0
        await memory.tell()
        await until(lambda: made.store.pointers[IMPORTANT] == 2)
        made.store.pointers[IMPORTANT] = 0  # the same records come again
        session = made.session()
        session.events._pointers = None
        session.events.waiting(2, 0)
        await until(lambda: made.store.pointers[IMPORTANT] == 2)
        assert len(made.store.events) == 2


async def test_a_memory_that_went_round_is_not_taken_for_the_old_records() -> None:
    async with stage(assets(), clock=noon_clock(50.0)) as made:
        _, memory = await ready(made, newest=1)
        await memory.tell()
        await until(lambda: had(made) == [0])
        made.store.pointers[IMPORTANT] = 0  # 255 later ones were had meanwhile
        made.session().events._pointers = None
        memory.unit = lambda fn, pm, pointers: (  # type: ignore[method-assign]  # another record in the same place
            unit_head(fn) + bytes((1, 0, pm, pm + 1)) + record(59)
        )
        made.session().events.waiting(1, 0)
        await until(lambda: had(made) == [0, 0])


# what goes wrong -----------------------------------------------------------------------------------------


async def test_a_silent_terminal_is_asked_again_later_and_not_repeated_at_once() -> None:
    async with stage(assets(), clock=noon_clock(400.0)) as made:
        _, memory = await ready(made, newest=4)
        memory.mute = True
        await memory.tell()
        await until(lambda: len(memory.asked) == 2)
        memory.mute = False
        await until(lambda: had(made) == [0, 1, 2, 3])
        assert memory.asked[0] == (1, 0, 4)


async def test_records_that_are_no_more_are_given_up_one_by_one_after_a_second_denial() -> None:
    async with stage(assets(), clock=noon_clock(400.0)) as made:
        _, memory = await ready(made, newest=20)
        memory.lost = {0, 1, 2}
        await memory.tell()
        await until(lambda: made.store.pointers[IMPORTANT] == 20, 5.0)
        assert had(made) == list(range(3, 20))
        assert memory.asked.count((1, 0, 1)) == 2
        assert made.count("events_lost_total") == 3


async def test_a_record_denied_once_is_not_given_up() -> None:
    async with stage(assets(), clock=noon_clock(400.0)) as made:
        _, memory = await ready(made, newest=1)
        memory.lost = {0}
        await memory.tell()
        await until(lambda: len(memory.asked) == 1)
        memory.lost.clear()
        await until(lambda: had(made) == [0])
        assert made.count("events_lost_total") == 0


async def test_an_answer_that_is_no_event_is_kept_raw() -> None:
    async with stage(assets(), clock=noon_clock(400.0)) as made:
        device, memory = await ready(made, newest=1)
        device.answers[0x0E, 1] = lambda frame: [unit_head(1) + bytes((1, 0, 0, 1))]
        await memory.tell()
        await until(lambda: made.store.pointers[IMPORTANT] == 1)
        assert not made.store.events
        await until(lambda: any("events" in kept.reason for kept in made.store.raw), 4.0)


async def test_an_unknown_event_is_stored_with_its_bytes() -> None:
    async with stage(assets(), clock=noon_clock(50.0)) as made:
        device, memory = await ready(made, newest=1)
        device.answers[0x0E, 1] = lambda frame: [unit_head(1) + bytes.fromhex("01 00 00 01 c8 03 aa bb cc")]
        await memory.tell()
        await until(lambda: bool(made.store.events))
        ((key, row),) = made.store.events.items()
        assert key == (IMPORTANT, 0, 0xC8, b"\xaa\xbb\xcc")
        assert row.reason is not None


async def test_an_answer_that_begins_later_is_taken_and_the_rest_counted_as_lost() -> None:
    async with stage(assets(), clock=noon_clock(50.0)) as made:
        device, memory = await ready(made, newest=6)
        device.answers[0x0E, 1] = lambda frame: [memory.unit(1, 4, [4, 5])]
        await memory.tell()
        await until(lambda: made.store.pointers[IMPORTANT] == 6)
        assert had(made) == [4, 5]
        assert made.count("events_lost_total") == 4


async def test_nothing_is_fetched_where_two_devices_use_the_address() -> None:
    async with stage(assets(), clock=noon_clock(50.0)) as made:
        _, memory = await ready(made, newest=1)
        session = made.session()
        session._contested = lambda address: True
        await memory.tell()
        await asyncio.sleep(0.3)
        assert not memory.asked
        device = memory.device
        await device.confirmed(await memory.push(0))
        assert made.store.batches[0].contested
        assert made.store.pointers[IMPORTANT] == 0


async def test_it_can_be_switched_off() -> None:
    async with stage(assets(), clock=noon_clock(50.0), settings=SessionSettings(fetch_events=False)) as made:
        _, memory = await ready(made, newest=1)
        await memory.tell()
        await asyncio.sleep(0.3)
        assert not memory.asked
        await memory.device.confirmed(await memory.push(0))
        assert had(made) == [0]


# sent unasked --------------------------------------------------------------------------------------------


async def test_pushed_events_are_confirmed_after_the_commit_and_not_fetched_again() -> None:
    async with stage(assets(), clock=noon_clock(50.0)) as made:
        device, memory = await ready(made, newest=2)
        sent = await memory.push(0, 2)
        await device.confirmed(sent)
        assert had(made) == [0, 1]
        assert made.count("events_total", source="pushed") == 2
        await memory.tell()
        await asyncio.sleep(0.3)
        assert not memory.asked
        assert not made.store.raw


async def test_a_pushed_event_is_not_confirmed_while_the_database_is_away() -> None:
    async with stage(assets()) as made:
        device, memory = await ready(made)
        made.store.away = True
        await memory.push(0)
        await asyncio.sleep(0.1)
        assert not device.confirms
        made.store.away = False
        await device.confirmed(await memory.push(0))
        assert had(made) == [0]


async def test_a_hole_before_a_pushed_event_is_fetched() -> None:
    async with stage(assets(), clock=noon_clock(50.0)) as made:
        device, memory = await ready(made, newest=4)
        await device.confirmed(await memory.push(3))
        await until(lambda: made.store.pointers[IMPORTANT] == 4)
        assert had(made) == [3, 0, 1, 2]
        assert memory.asked == [(1, 0, 4)]


async def test_an_old_event_pushed_again_changes_nothing() -> None:
    async with stage(assets(), clock=noon_clock(50.0)) as made:
        device, memory = await ready(made, newest=4)
        await memory.tell()
        await until(lambda: made.store.pointers[IMPORTANT] == 4)
        for _ in range(2):
            await device.confirmed(await memory.push(1))
        made.store.pointers[IMPORTANT] = 1  # the memory has gone round; the old frame comes once more
        await device.confirmed(await memory.push(1))
        assert made.store.pointers[IMPORTANT] == 1
        assert len(made.store.events) == 4


async def test_a_record_that_was_given_up_may_still_be_pushed_and_nothing_is_chased() -> None:
    async with stage(assets(), clock=noon_clock(400.0)) as made:
        device, memory = await ready(made, newest=6)
        memory.lost = {0}
        await memory.tell()
        await until(lambda: made.store.pointers[IMPORTANT] == 6)
        asked = len(memory.asked)
        await device.confirmed(await memory.push(0))
        assert sorted(had(made)) == [0, 1, 2, 3, 4, 5]
        await asyncio.sleep(0.3)
        assert len(memory.asked) == asked
        assert made.store.pointers[IMPORTANT] == 6


# beside other work ---------------------------------------------------------------------------------------


async def test_a_sweep_goes_first() -> None:
    """Events are asked for only once nothing else has been asked for a while."""
    async with stage(assets(), clock=noon_clock(20.0)) as made:
        device, memory = await ready(made, newest=3)
        device.answers[0x0D, 161] = lambda frame: [frozen_unit(1)]
        await memory.tell()
        for _ in range(100):
            assert (await made.session().read_frozen([due(1)])).rows
            await asyncio.sleep(0.005)
        assert not memory.asked
        await until(lambda: had(made) == [0, 1, 2])


async def test_a_collection_does_not_wait_out_a_silent_fetch() -> None:
    async with stage(assets(), clock=noon_clock(20.0)) as made:
        device, memory = await ready(made, newest=1)
        memory.mute = True
        device.answers[0x0D, 161] = lambda frame: [frozen_unit(1)]
        await memory.tell()
        await until(lambda: len(memory.asked) == 1)
        before = made.clock.monotonic()
        assert (await made.session().read_frozen([due(1)])).rows
        assert made.clock.monotonic() - before < FETCH_TIMEOUT_S / 2


async def test_one_fetch_at_a_time_however_often_the_terminal_tells() -> None:
    async with stage(assets(), clock=noon_clock(50.0)) as made:
        _, memory = await ready(made)
        for count in range(1, 30):
            memory.ec[0] = count
            await memory.tell()
        await until(lambda: made.store.pointers[IMPORTANT] == 29)
        assert had(made) == list(range(29))
        assert len(memory.asked) <= 4


async def test_a_fetch_ends_with_its_session() -> None:
    async with stage(assets(), clock=noon_clock(50.0)) as made:
        device, memory = await ready(made, newest=1)
        memory.mute = True
        await memory.tell()
        await until(lambda: len(memory.asked) == 1)
        task = made.session().events._task
        assert task is not None
        await device.vanish()
        await made.registry.close()
        await until(task.done)


@pytest.mark.parametrize("urgency", [Urgency.RELAY, Urgency.PERSON, Urgency.LEARN, Urgency.COLLECT])
def test_nothing_is_less_urgent(urgency: Urgency) -> None:
    assert urgency < Urgency.EVENTS
