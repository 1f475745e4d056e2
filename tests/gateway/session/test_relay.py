"""The way to a relay: what is read before, the frame that leaves once and at its moment, and what its answer
is worth."""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, cast

import pytest

from gateway.clock import from_device
from gateway.command import Action, Command, RelayStatus, Why
from gateway.door import Accepted, Answer, Doors, NotWritten, Prepared, Record, Refused, Silence, Trouble
from gateway.errors import InputError
from gateway.session import relay
from gateway.session.channel import EXCHANGES_WAITING, Urgency
from gateway.session.conversation import TIMES_DAMAGED
from gateway.session.relay import RelayDoor, RelayDoors
from gateway.session.settings import MeterProfile
from gateway.session.terminal import TerminalSession
from gateway.transports.link import Taken
from gateway.transports.memory import MemoryLink
from protocols.q_gdw376 import messages
from protocols.q_gdw376.messages import encode_unit
from tests.gateway.session.relay_stage import FACTS, METER, PASSWORD, PLAIN, Bench, answer, bench, turns
from tests.gateway.session.stage import NOON, clock_at, meter_address, until

ONE_O_CLOCK = from_device(datetime(2026, 11, 24, 13))
E11 = bytes.fromhex("68120005112320681C1035896745343333334D33333346574459BE16")
"""The worked example: trip 202311050012 until 13:00, level 02, password 123456, operator 00000001."""


def yes() -> Trouble | None:
    return None


def breaks() -> Trouble | None:
    raise ZeroDivisionError


async def sent(door: RelayDoor, action: Action = Action.TRIP, deadline: datetime = ONE_O_CLOCK) -> Answer:
    """Prepare, write, hear."""
    prepared = await door.prepare(action, deadline)
    assert isinstance(prepared, Prepared), prepared
    written = await door.write(prepared, yes)
    assert not isinstance(written, NotWritten), written
    return await written


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


# the frame


async def test_a_trip_is_the_worked_example_to_the_byte() -> None:
    async with bench() as one, one.door() as door:
        prepared = await door.prepare(Action.TRIP, ONE_O_CLOCK + timedelta(milliseconds=700))
        assert isinstance(prepared, Prepared)
        assert prepared.frame == E11
        assert prepared.sha256 == hashlib.sha256(E11).digest()
        assert prepared.deadline == ONE_O_CLOCK  # cut off, never later
        assert prepared.shown.split()[10:14] == ["35", "**", "**", "**"]
        assert "89 67 45" not in prepared.shown
        written = await door.write(prepared, yes)
        assert not isinstance(written, NotWritten)
        assert await written == Accepted((), "68 12 00 05 11 23 20 68 9c 00 d7 16")
        assert one.meter.controls == [E11]
        (value,) = one.forwards()
        assert (value.port, value.message_timeout, value.content) == (31, 0x80 | 60, E11)


@pytest.mark.parametrize(
    ("action", "n1"),
    [
        (Action.TRIP, 0x1A),
        (Action.PERMIT_CLOSE, 0x1B),
        (Action.CLOSE, 0x1C),
        (Action.ALARM, 0x2A),
        (Action.CLEAR_ALARM, 0x2B),
        (Action.KEEP_POWER, 0x3A),
        (Action.RELEASE_KEEP_POWER, 0x3B),
    ],
)
async def test_each_action_has_its_verb(action: Action, n1: int) -> None:
    async with bench() as one, one.door() as door:
        assert isinstance(await sent(door, action), Accepted)
        assert [frame[18] - 0x33 for frame in one.meter.controls] == [n1]


@pytest.mark.parametrize(
    "address", ["aaaaaaaaaaaa", "AAAAAAAAAAAA", "999999999999", "AAAAAAAA0012", "", "12"]
)
async def test_no_control_goes_to_a_wildcard_or_to_all(address: str) -> None:
    async with bench() as one, one.door(replace(FACTS, address=address)) as door:
        prepared = await door.prepare(Action.CLOSE, ONE_O_CLOCK)
        assert isinstance(prepared, Trouble)
        good = Prepared(E11, hashlib.sha256(E11).digest(), "", ONE_O_CLOCK)
        assert isinstance(await door.write(good, yes), NotWritten)
        assert not one.device.requests(0x10)


@pytest.mark.parametrize(
    ("profile", "facts", "why"),
    [
        (MeterProfile(), FACTS, Why.NOT_AUTHENTICATED),
        (MeterProfile(level=""), FACTS, Why.NOT_SUPPORTED),
        (PLAIN, replace(FACTS, protocol="dlt645-1997"), Why.NOT_SUPPORTED),
        (replace(PLAIN, password="12"), FACTS, Why.NOT_SUPPORTED),
        (replace(PLAIN, level="99"), FACTS, Why.NOT_SUPPORTED),
    ],
)
async def test_what_cannot_be_built_is_said(profile: MeterProfile, facts: Any, why: Why) -> None:
    async with bench(profile) as one, one.door(facts) as door:
        trouble = await door.prepare(Action.CLOSE, ONE_O_CLOCK)
        assert isinstance(trouble, Trouble)
        assert trouble.why is why
        assert PASSWORD not in trouble.detail
        assert not one.meter.controls


def test_a_password_is_not_shown_with_its_profile() -> None:
    assert PASSWORD not in repr(PLAIN)


@pytest.mark.parametrize(
    "changed",
    [
        Prepared(E11, bytes(32), "", ONE_O_CLOCK),
        Prepared(E11[:-2] + b"\x00\x16", hashlib.sha256(E11).digest(), "", ONE_O_CLOCK),
        Prepared(
            bytes.fromhex("6812000511232068110436383337 7316".replace(" ", "")), bytes(32), "", ONE_O_CLOCK
        ),
        Prepared(b"", hashlib.sha256(b"").digest(), "", ONE_O_CLOCK),
    ],
    ids=["other hash", "damaged", "a read", "nothing"],
)
async def test_only_the_very_frame_whose_hash_stands_is_written(changed: Prepared) -> None:
    async with bench() as one, one.door() as door:
        assert isinstance(await door.write(changed, yes), NotWritten)
        assert not one.device.requests(0x10)


# the moment


async def written_without_a_gap(one: Bench, door: RelayDoor) -> bool:
    """Has nothing else had a turn between the last check and the socket?"""
    order: list[str] = []
    link = one.made.session()._conversation.link
    write_now = link.write_now

    def noting(data: bytes) -> Taken:
        order.append("written")
        return write_now(data)

    link.write_now = noting  # type: ignore[method-assign]  # only watched

    def check() -> Trouble | None:
        asyncio.get_running_loop().call_soon(order.append, "another's turn")
        return None

    prepared = await door.prepare(Action.TRIP, ONE_O_CLOCK)
    assert isinstance(prepared, Prepared)
    written = await door.write(prepared, check)
    assert not isinstance(written, NotWritten)
    await written
    return order.index("written") < order.index("another's turn")


async def test_nothing_is_awaited_between_the_last_check_and_the_socket() -> None:
    async with bench() as one, one.door() as door:
        assert await written_without_a_gap(one, door)


async def test_a_door_that_awaits_in_between_is_caught() -> None:
    class Slow(RelayDoor):
        async def write(
            self, prepared: Prepared, last_check: Callable[[], Trouble | None]
        ) -> Awaitable[Answer] | NotWritten:
            trouble = last_check()
            await turns(1)
            return await super().write(prepared, lambda: trouble)

    async with bench() as one, one.door() as door:
        slow = Slow(door._session, door._hold, FACTS, door._known, None)
        assert not await written_without_a_gap(one, slow)


async def test_the_last_check_keeps_the_frame_here() -> None:
    async with bench() as one, one.door() as door:
        prepared = await door.prepare(Action.TRIP, ONE_O_CLOCK)
        assert isinstance(prepared, Prepared)
        outcome = await door.write(prepared, lambda: Trouble(Why.BRAKE))
        assert outcome == NotWritten(Trouble(Why.BRAKE))
        with pytest.raises(ZeroDivisionError):
            await door.write(prepared, breaks)
        await turns()
        assert not one.meter.controls
        assert isinstance(await door.status(), RelayStatus), "the channel goes on"
        written = await door.write(prepared, yes)
        assert not isinstance(written, NotWritten)
        assert isinstance(await written, Accepted)


async def test_a_link_that_takes_nothing_is_ended_and_nothing_was_written() -> None:
    async with bench() as one, one.door() as door:
        prepared = await door.prepare(Action.TRIP, ONE_O_CLOCK)
        assert isinstance(prepared, Prepared)
        one.made.session()._conversation.link.takes_now = 0  # type: ignore[attr-defined]  # of a MemoryLink
        outcome = await door.write(prepared, yes)
        assert isinstance(outcome, NotWritten)
        assert outcome.trouble.why is Why.TERMINAL_ABSENT
        await until(lambda: one.made.registry.session(FACTS.terminal) is None)
        assert not one.meter.controls


async def test_a_link_that_takes_nothing_and_stands_is_not_given_up() -> None:
    async with bench() as one, one.door() as door:
        prepared = await door.prepare(Action.TRIP, ONE_O_CLOCK)
        assert isinstance(prepared, Prepared)
        session = one.made.session()
        link = cast(MemoryLink, session._conversation.link)
        link.stands, link.takes_now = True, 0
        outcome = await door.write(prepared, yes)
        assert isinstance(outcome, NotWritten)
        assert outcome.trouble.why is Why.TERMINAL_ABSENT
        await turns()
        assert one.made.session() is session
        assert session.alive
        assert not one.meter.controls
        link.takes_now = None
        assert isinstance(await door.status(), RelayStatus), "the channel goes on"
        written = await door.write(prepared, yes)
        assert not isinstance(written, NotWritten)
        assert isinstance(await written, Accepted)
        assert len(one.meter.controls) == 1


async def test_a_link_that_would_stand_is_ended_where_a_part_may_have_left() -> None:
    async with bench() as one, one.door() as door:
        prepared = await door.prepare(Action.TRIP, ONE_O_CLOCK)
        assert isinstance(prepared, Prepared)
        link = cast(MemoryLink, one.made.session()._conversation.link)
        link.stands, link.takes_now = True, 30
        outcome = await door.write(prepared, yes)
        assert not isinstance(outcome, NotWritten)
        assert isinstance(await outcome, Silence)
        await until(lambda: one.made.registry.session(FACTS.terminal) is None)


async def test_a_link_that_takes_a_part_is_ended_and_it_may_have_left() -> None:
    async with bench() as one, one.door() as door:
        prepared = await door.prepare(Action.TRIP, ONE_O_CLOCK)
        assert isinstance(prepared, Prepared)
        one.made.session()._conversation.link.takes_now = 30  # type: ignore[attr-defined]  # of a MemoryLink
        outcome = await door.write(prepared, yes)
        assert not isinstance(outcome, NotWritten)
        assert isinstance(await outcome, Silence)
        await until(lambda: one.made.registry.session(FACTS.terminal) is None)


async def test_on_a_link_that_has_ended_nothing_is_written_and_nothing_checked() -> None:
    async with bench() as one, one.door() as door:
        prepared = await door.prepare(Action.TRIP, ONE_O_CLOCK)
        assert isinstance(prepared, Prepared)
        await one.device.hang_up()
        await until(lambda: one.made.registry.session(FACTS.terminal) is None)
        assert isinstance(await door.write(prepared, breaks), NotWritten)
        status = await door.status()
        assert isinstance(status, Trouble)
        assert status.why is Why.TERMINAL_ABSENT


async def test_a_newer_login_takes_the_door_away() -> None:
    async with bench() as one, one.door() as door:
        prepared = await door.prepare(Action.TRIP, ONE_O_CLOCK)
        assert isinstance(prepared, Prepared)
        newer = await one.made.logged_in(host="192.0.2.2")
        assert isinstance(await door.write(prepared, yes), NotWritten)
        assert not newer.requests(0x10)
        assert not one.meter.controls


async def test_a_link_that_speaks_for_another_terminal_by_now_is_given_nothing() -> None:
    async with bench() as one, one.door() as door:
        prepared = await door.prepare(Action.TRIP, ONE_O_CLOCK)
        assert isinstance(prepared, Prepared)
        login = await one.device.say(2, encode_unit(2, 1, 0), address="02005678")
        await one.device.confirmed(login)
        assert isinstance(await door.write(prepared, breaks), NotWritten)
        assert isinstance(await door.status(), Trouble)
        assert not one.device.requests(0x10)


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
OURS = answer(0x9C)


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


# the channel


async def test_nothing_else_is_asked_while_a_door_is_open_but_heartbeats_are_answered() -> None:
    async with bench() as one:
        async with one.door() as door:
            clock = asyncio.ensure_future(one.made.session().read_clock())
            assert await door.identify() is None
            await one.device.confirmed(await one.device.beat())
            assert isinstance(await sent(door), Accepted)
            asked_meanwhile = len(one.device.requests(0x0C))
            assert not clock.done()
        assert await asyncio.wait_for(clock, 2) is not None
        assert len(one.device.requests(0x0C)) == asked_meanwhile + 1


def open_close() -> Any:
    return replace(
        FACTS,
        open=(
            Command(
                id=cast(Any, None),
                meter_id=1001,
                action=Action.CLOSE,
                state=cast(Any, "queued"),
                version=1,
                intent=1,
                requester="billing",
                cause="paid",
                created_at=NOON,
            ),
        ),
    )


async def test_closes_pass_trips_and_both_pass_all_others() -> None:
    async with bench() as one:
        session = one.made.session()
        order: list[str] = []

        async def enter(name: str, facts: Any) -> None:
            async with one.doors.open(facts) as door:
                assert door is not None
                order.append(name)

        async def ask() -> None:
            await session.read_clock()
            order.append("person")

        async with session.hold(Urgency.COLLECT):
            waiting = [asyncio.ensure_future(ask())]
            await turns()
            waiting += [asyncio.ensure_future(enter("trip", FACTS))]
            await turns()
            waiting += [asyncio.ensure_future(enter("close", open_close()))]
            await turns()
            assert order == []
        await asyncio.wait_for(asyncio.gather(*waiting), 2)
        assert order == ["close", "trip", "person"]


async def test_a_relay_command_finds_room_where_nobody_else_does() -> None:
    async with bench() as one:
        session = one.made.session()
        async with session.hold(Urgency.COLLECT):
            many = [asyncio.ensure_future(session.read_clock()) for _ in range(EXCHANGES_WAITING)]
            await turns()
            with pytest.raises(InputError):
                await session.read_clock()
            opening = asyncio.ensure_future(one.doors.open(FACTS).__aenter__())
            await turns()
            assert not opening.done()
        assert await asyncio.wait_for(opening, 2) is not None
        for waiting in many:
            waiting.cancel()


async def test_a_lesser_exchange_under_way_is_set_aside() -> None:
    async with bench(speed=20.0) as one:
        clock = one.device.answers.pop((0x0C, 2))
        reading = asyncio.ensure_future(one.made.session().reading_state())
        await until(lambda: bool(one.device.requests(0x0C)))
        began = one.made.clock.monotonic()
        async with one.door() as door:
            assert one.made.clock.monotonic() - began < 8
            assert isinstance(await sent(door), Accepted)
        one.device.answers[0x0C, 2] = clock
        one.device.answers[0x0C, 11] = one.device.deny
        assert await asyncio.wait_for(reading, 5) is None


async def test_a_close_that_waits_does_not_cut_a_trips_exchange() -> None:
    async with bench(speed=100.0) as one:
        async with one.door() as door:
            one.device.answers[0x10, 1] = lambda asked: None
            prepared = await door.prepare(Action.TRIP, ONE_O_CLOCK)
            assert isinstance(prepared, Prepared)
            written = await door.write(prepared, yes)
            assert not isinstance(written, NotWritten)
            close = asyncio.ensure_future(one.doors.open(open_close()).__aenter__())
            await one.made.clock.sleep(40)
            (asked,) = one.device.requests(0x10)
            await one.device.link.write(
                one.device.reply(asked, [encode_unit(0x10, 1, 0, messages.Forwarded(31, OURS))])
            )
            assert isinstance(await written, Accepted)
            assert not close.done()
        assert await asyncio.wait_for(close, 2) is not None
