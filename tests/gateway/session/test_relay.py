"""The frame to a relay: its bytes, the moment at which it leaves, and the channel that is kept for it."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any, cast

import pytest

from gateway.command import Action, Command, RelayStatus, Why
from gateway.door import Accepted, Answer, NotWritten, Prepared, Silence, Trouble
from gateway.errors import InputError
from gateway.session.channel import EXCHANGES_WAITING, Urgency
from gateway.session.relay import RelayDoor
from gateway.session.settings import MeterProfile
from gateway.transports.link import Taken
from gateway.transports.memory import MemoryLink
from protocols.q_gdw376 import messages
from protocols.q_gdw376.messages import encode_unit
from tests.gateway.session.relay_stage import (
    E11,
    FACTS,
    ONE_O_CLOCK,
    OURS,
    PASSWORD,
    PLAIN,
    Bench,
    bench,
    sent,
    turns,
    yes,
)
from tests.gateway.session.stage import NOON, until


def breaks() -> Trouble | None:
    raise ZeroDivisionError


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
