"""Where there is a door to a relay, and what is read through it: who the meter is, its clock, its relay."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, cast

import pytest

from gateway.clock import from_device
from gateway.command import Action, RelayStatus, Why
from gateway.door import Doors, Record, Trouble
from gateway.session import relay
from gateway.session.relay import RelayDoors
from gateway.session.terminal import TerminalSession
from tests.gateway.session.relay_stage import FACTS, METER, answer, bench
from tests.gateway.session.stage import NOON, clock_at, meter_address, until


def test_the_doors_are_what_control_wants() -> None:
    wanted: type[Doors] = RelayDoors
    assert wanted is not None


async def test_terminals_are_not_counted_anew_while_none_comes_or_goes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with bench() as one:
        counted = 0
        sessions = one.made.registry.sessions

        def count() -> Iterable[TerminalSession]:
            nonlocal counted
            counted += 1
            return sessions()

        monkeypatch.setattr(one.made.registry, "sessions", count)
        monkeypatch.setattr(relay, "HERE_S", 0.0)
        before = one.doors.here()
        for _ in range(3):
            await asyncio.sleep(0.01)
            assert one.doors.here() is before == {7}
        assert counted <= 1
        await one.device.hang_up()
        await until(lambda: one.doors.here() == frozenset())


async def test_there_is_no_door_where_the_terminal_is_not() -> None:
    async with bench() as one:
        assert one.doors.here() == {7}
        for facts in (replace(FACTS, terminal="02009999"), replace(FACTS, terminal_id=8)):
            async with one.doors.open(facts) as door:
                assert door is None
        await one.device.hang_up()
        await until(lambda: one.made.registry.session(FACTS.terminal) is None)
        async with one.doors.open(FACTS) as door:
            assert door is None
        assert one.doors.here() == frozenset()


async def test_a_login_is_here_at_once() -> None:
    async with bench() as one:
        await one.device.hang_up()
        await until(lambda: one.made.registry.session(FACTS.terminal) is None)
        async with one.doors.open(FACTS) as door:
            assert door is None
        assert not one.doors.here()
        await one.made.logged_in()
        assert one.doors.here() == {7}


# who it is


async def test_a_meter_that_tells_the_number_of_the_assets_is_asked_once_a_login() -> None:
    async with bench() as one:
        for _ in range(2):
            async with one.door() as door:
                assert await door.identify() is None
                assert (door.generation, door.contested) == (1, False)
        assert one.meter.asked == ["04000402"]
        other = await one.made.logged_in(host="192.0.2.2")
        one.passes_on(other)
        await one.made.session().ready()
        async with one.door() as door:
            assert await door.identify() is None
            assert door.generation == 2
        assert one.meter.asked == ["04000402"] * 2


@pytest.mark.parametrize(
    ("assets", "right"),
    [
        (METER, True),
        ("3330001" + METER, True),
        ("333000" + METER + "7", True),
        ("3330001" + METER + "77", False),
        ("202311050013", False),
        ("M" + METER, False),
        ("", False),
    ],
)
async def test_the_number_has_to_be_that_of_the_assets(assets: str, right: bool) -> None:
    async with bench() as one, one.door(replace(FACTS, meter=assets)) as door:
        trouble = await door.identify()
        assert trouble is None if right else trouble is not None and trouble.why is Why.WRONG_METER


async def test_another_meter_that_answers_twice_is_the_wrong_one() -> None:
    async with bench() as one, one.door() as door:
        one.meter.says[0x11] = answer(0x91, bytes.fromhex("02040004120005112320"), "000000000042")
        trouble = await door.identify()
        assert trouble == Trouble(Why.WRONG_METER, f"000000000042 answered for {METER}")
        assert len(one.meter.asked) == 2


async def test_one_late_answer_of_another_meter_condemns_nobody() -> None:
    async with bench() as one, one.door() as door:
        one.meter.says[0x11] = answer(0x91, bytes.fromhex("02040004120005112320"), "000000000042")

        def right_at_last(di: str) -> None:
            if len(one.meter.asked) > 1:
                one.meter.says.pop(0x11, None)

        one.meter.before = right_at_last
        assert await door.identify() is None


async def test_a_terminal_whose_archive_has_another_meter_there_trips_none() -> None:
    async with bench() as one:
        session = one.made.session()
        session.trust_archive({1: meter_address(9), 2: meter_address(2)})
        async with one.door() as door:
            trouble = await door.identify()
            assert trouble is not None
            assert trouble.why is Why.WRONG_METER
        session.trust_archive(None)  # it gives none: then the meter's own word is enough
        async with one.door() as door:
            assert await door.identify() is None


async def test_a_terminal_that_took_over_is_not_believed_before_its_archive_was_looked_at() -> None:
    async with bench() as one:
        session = one.made.session()
        session.archive_in_doubt = True
        async with one.door() as door:
            trouble = await door.identify()
            assert trouble is not None
            assert trouble.why is Why.METER_SILENT
        assert not one.meter.asked


# its clock


@pytest.mark.parametrize("ahead_s", [0.0, 90.0, -3600.0])
async def test_the_clock_is_read_now(ahead_s: float) -> None:
    async with bench() as one, one.door() as door:
        one.meter.ahead_s = ahead_s
        offset = await door.clock_offset()
        assert isinstance(offset, float)
        assert ahead_s - 2 < offset <= ahead_s  # seconds are cut off, and never reckoned ahead


async def test_a_clock_in_the_year_2000_is_a_clock() -> None:
    async with bench() as one, one.door() as door:
        one.meter.items["0400010c"] = bytes.fromhex("00000006010100")
        offset = await door.clock_offset()
        assert isinstance(offset, float)
        assert (NOON + timedelta(seconds=offset)).year in (1999, 2000)


async def test_an_older_meter_tells_date_and_time_apart_and_is_not_asked_otherwise_again() -> None:
    async with bench() as one, one.door() as door:
        one.meter.items["0400010c"] = None
        for _ in range(2):
            offset = await door.clock_offset()
            assert isinstance(offset, float)
            assert -2 < offset <= 0
        assert one.meter.asked == ["0400010c", "04000101", "04000102", "04000101", "04000102"]


async def test_a_midnight_between_date_and_time_is_noticed() -> None:
    midnight = from_device(datetime(2026, 11, 25))
    async with bench(clock=clock_at(midnight - timedelta(seconds=30))) as one, one.door() as door:
        one.meter.items["0400010c"] = None
        one.meter.items["04000102"] = bytes.fromhex("005923")
        dates = iter(["02241126", "03251126", "03251126"])

        def tick(di: str) -> None:
            if di == "04000101":
                one.meter.items[di] = bytes.fromhex(next(dates))
            elif len(one.meter.asked) > 3:
                one.meter.items[di] = bytes.fromhex("050000")

        one.meter.before = tick
        offset = await door.clock_offset()
        assert isinstance(offset, float)
        assert 20 < offset < 40
        assert one.meter.asked[1:] == ["04000101", "04000102", "04000101", "04000102", "04000101"]


@pytest.mark.parametrize(
    "raw", ["ffffffffffffff", "00000002321126", "00602402241126", "0a0000022411 26", "00"]
)
async def test_what_is_no_time_is_not_taken_for_one(raw: str) -> None:
    async with bench() as one, one.door() as door:
        one.meter.items["0400010c"] = bytes.fromhex(raw)
        offset = await door.clock_offset()
        assert isinstance(offset, Trouble)


async def test_a_clock_that_takes_too_long_to_be_told_is_not_known() -> None:
    async with bench(speed=2000.0) as one, one.door() as door:
        late = asyncio.get_running_loop().call_later
        forward = one.device.answers[0x10, 1]

        def slow(asked: Any) -> None:
            reply = one.device.reply(asked, cast(Any, forward(asked)))
            late(65 / 2000, lambda: asyncio.ensure_future(one.device.link.write(reply)))

        one.device.answers[0x10, 1] = slow
        offset = await door.clock_offset()
        assert isinstance(offset, Trouble), offset
        assert offset.why is Why.METER_CLOCK_UNKNOWN


# its relay


async def test_status_word_3_is_told_with_its_time() -> None:
    async with bench() as one, one.door() as door:
        one.meter.says[0x11] = bytes.fromhex("6812000511232068910636383337835380 16")  # E14
        status = await door.status()
        assert isinstance(status, RelayStatus)
        assert (status.word, status.open, status.trip_ordered) == (0x2050, True, True)
        assert abs((status.at - one.made.clock.now()).total_seconds()) < 1


@pytest.mark.parametrize(
    ("told", "why"),
    [(b"\xff\xff", Why.METER_SILENT), (b"\x10", Why.METER_SILENT), (None, Why.NOT_SUPPORTED)],
)
async def test_what_is_no_status_is_trouble(told: bytes | None, why: Why) -> None:
    async with bench() as one, one.door() as door:
        one.meter.items["04000503"] = told
        status = await door.status()
        assert isinstance(status, Trouble)
        assert status.why is why


async def test_another_meters_status_is_not_this_ones() -> None:
    async with bench() as one, one.door() as door:
        one.meter.says[0x11] = answer(0x91, bytes.fromhex("030500045020"), "000000000042")
        status = await door.status()
        assert isinstance(status, Trouble)
        assert status.why is Why.METER_SILENT


async def test_the_record_and_the_load_come_with_their_units() -> None:
    async with bench() as one, one.door() as door:
        one.meter.items["1d00ff01"] = bytes.fromhex("300012241126") + b"\x01\x00\x00\x00" + bytes(24)
        one.meter.items["0202ff00"] = None
        one.meter.items["02020100"] = bytes.fromhex("050000")
        record = await door.record(Action.TRIP)
        assert isinstance(record, Record)
        assert list(record.values["load"].values()) == ["0.005"]
        told = list(record.values["record"].values())
        assert told[:3] == ["2026-11-24 12:00:30", "00000001", "0.00"]
        assert any(name.endswith("forward active (kWh)") for name in record.values["record"])
        assert all(isinstance(value, str | None) for value in record.values["record"].values())
        assert isinstance(await door.record(Action.ALARM), Trouble)
