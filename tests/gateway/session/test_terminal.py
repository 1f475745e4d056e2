"""Asking a terminal for frozen values and for what its registers show now, and who goes first."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from gateway.clock import from_device, to_device
from gateway.errors import InputError, LinkClosed
from gateway.model import Kind, MeterClass, Quantity, Reason, TerminalAssets
from gateway.session import terminal
from gateway.session.settings import SessionSettings, TerminalProfile
from gateway.session.terminal import FrozenAnswer
from protocols.q_gdw376 import messages
from protocols.q_gdw376.frame import Frame, build, parse
from protocols.q_gdw376.messages import encode_unit
from tests.gateway.session.stage import (
    MIDNIGHT,
    NOON,
    assets,
    clock_at,
    due,
    frozen_unit,
    noon_clock,
    point,
    stage,
    until,
)
from tests.gateway.session.terminal_stage import QUICK, reasons

CAPTURES: dict[str, dict[str, Any]] = {
    vector["id"]: vector
    for vector in json.loads(
        (Path(__file__).parents[2] / "vectors" / "frames.json").read_text(encoding="utf-8")
    )
}


def captured(name: str, asked: Frame) -> bytes:
    """The capture with PSEQ, MSA and checksum set to the request's; all else as it was."""
    frame = parse(bytes.fromhex(CAPTURES[name]["hex"]))
    return build(replace(frame, pseq=asked.pseq, msa=asked.msa))


# frozen values


async def test_one_request_brings_the_rows_of_all_its_points() -> None:
    async with stage(assets()) as made:
        device = await made.logged_in()
        device.answers[0x0D, 161] = lambda frame: [frozen_unit(pn) for pn in (1, 2, 3, 4)]
        answer = await made.session().read_frozen([due(pn) for pn in (1, 2, 3, 4)])
        assert [row[0] for row in answer.rows] == [1001, 1002, 1003, 1004]
        assert (answer.failures, answer.halve, answer.closed) == ([], False, False)
        (asked,) = device.requests(0x0D)
        assert asked.body == b"".join(
            bytes([1 << place, 1, 0x01, 0x14]) + bytes.fromhex("231126") for place in range(4)
        )


async def test_an_answer_in_several_frames_is_one_answer() -> None:
    async with stage(assets()) as made:
        device = await made.logged_in()

        def in_two(asked: Frame) -> bytes:
            first = device.reply(asked, [frozen_unit(1), frozen_unit(2)], fin=False)
            second = device.reply(asked, [frozen_unit(3)], fir=False, pseq=(asked.pseq + 1) % 16)
            return first + second

        device.answers[0x0D, 161] = in_two
        answer = await made.session().read_frozen([due(1), due(2), due(3)])
        assert [row[0] for row in answer.rows] == [1001, 1002, 1003]
        assert not answer.failures


async def test_each_missing_point_has_its_own_reason() -> None:
    async with stage(assets()) as made:
        device = await made.logged_in()
        other_day = frozen_unit(3, tag=to_device(MIDNIGHT) - timedelta(days=4))
        filled = bytes.fromhex("02010114") + b"\xee" * 34
        device.answers[0x0D, 161] = lambda frame: [frozen_unit(1), filled, other_day]
        answer = await made.session().read_frozen([due(pn) for pn in (1, 2, 3, 4)])
        assert [row[0] for row in answer.rows] == [1001]
        assert reasons(answer) == {
            1002: Reason.NO_VALUE_YET,
            1003: Reason.WRONG_DATE,
            1004: Reason.LEFT_OUT,
        }
        assert not answer.halve
        await made.registry.close()
        assert any("wrong_date" in kept.reason for kept in made.store.raw)


async def test_a_denial_asks_for_fewer() -> None:
    async with stage(assets()) as made:
        device = await made.logged_in()
        device.answers[0x0D, 161] = device.deny
        answer = await made.session().read_frozen([due(1), due(2)])
        assert answer.halve
        assert reasons(answer) == {1001: Reason.TERMINAL_DENIED, 1002: Reason.TERMINAL_DENIED}


async def test_silence_asks_for_fewer_after_repeats_with_the_same_number() -> None:
    async with stage(assets(), settings=QUICK) as made:
        device = await made.logged_in()
        await made.session().ready()
        answer = await made.session().read_frozen([due(1), due(2)])
        assert answer.halve
        assert set(reasons(answer).values()) == {Reason.TERMINAL_SILENT}
        first, second = device.requests(0x0D)
        assert first == second


async def test_a_damaged_answer_is_told_from_silence() -> None:
    async with stage(assets(), settings=QUICK) as made:
        device = await made.logged_in()
        await made.session().ready()

        def damaged(asked: Frame) -> bytes:
            good = device.reply(asked, [frozen_unit(1)])
            return good[:30] + b"\x99" + good[31:]

        device.answers[0x0D, 161] = damaged
        answer = await made.session().read_frozen([due(1)])
        assert reasons(answer) == {1001: Reason.DAMAGED}
        assert answer.halve


async def test_what_came_before_silence_is_kept() -> None:
    async with stage(assets(), settings=QUICK) as made:
        device = await made.logged_in()
        await made.session().ready()
        device.answers[0x0D, 161] = lambda asked: device.reply(asked, [frozen_unit(1)], fin=False)
        answer = await made.session().read_frozen([due(1), due(2)])
        assert [row[0] for row in answer.rows] == [1001]
        assert reasons(answer) == {1002: Reason.TERMINAL_SILENT}


async def test_a_link_that_ends_leaves_the_dues_with_an_absent_terminal() -> None:
    async with stage(assets()) as made:
        device = await made.logged_in()
        session = made.session()
        await session.ready()
        asking = asyncio.create_task(session.read_frozen([due(1)]))
        await until(lambda: bool(device.requests(0x0D)))
        await device.hang_up()
        answer = await asking
        assert answer.closed
        assert reasons(answer) == {1001: Reason.TERMINAL_ABSENT}
        assert (await session.read_frozen([due(1)])).closed
        assert not session.alive


async def test_both_families_go_in_one_request() -> None:
    known = assets(point(1), point(2, meter_class=MeterClass.THREE_PHASE))
    async with stage(known) as made:
        device = await made.logged_in()
        value = messages.FrozenThreePhase(
            (to_device(MIDNIGHT) - timedelta(days=1)).date(),
            to_device(MIDNIGHT) + timedelta(minutes=3),
            (7000,),
            (600,),
            (0,),
            (0,),
        )
        device.answers[0x0D, 161] = lambda frame: [frozen_unit(1), encode_unit(0x0D, 1, 2, value)]
        answer = await made.session().read_frozen([due(1), due(2)])
        assert [(row[0], row[1]) for row in answer.rows] == [
            (1001, Quantity.FORWARD_ACTIVE),
            (1002, Quantity.FORWARD_ACTIVE),
            (1002, Quantity.FORWARD_REACTIVE),
        ]
        assert not answer.failures


async def test_a_quantity_without_a_class_is_not_asked() -> None:
    async with stage(assets()) as made:
        device = await made.logged_in()
        answer = await made.session().read_frozen([due(1, Quantity.REACTIVE_Q1)])
        assert reasons(answer) == {1001: Reason.NOT_SUPPORTED}
        assert not device.requests(0x0D)


async def test_a_meter_replaced_since_the_login_is_not_given_its_predecessors_value() -> None:
    async with stage(assets(point(1))) as made:
        device = await made.logged_in()
        session = made.session()
        await session.ready()
        swap = MIDNIGHT - timedelta(hours=12)
        old, new = point(1, valid_to=swap), point(1, meter_id=2001, address="9" * 12, valid_from=swap)
        made.store.terminals[session.address] = replace(assets(old, new), archive={1: old.address})
        device.answers[0x0D, 161] = lambda frame: [frozen_unit(1)]
        await made.registry.reload([session.address])
        answer = await session.read_frozen([due(1)._replace(meter_id=2001)])
        assert reasons(answer) == {2001: Reason.ARCHIVE_DIFFERS}
        assert not answer.rows


async def test_a_due_that_is_not_known_yet_has_the_assets_read_again() -> None:
    async with stage(assets(point(1))) as made:
        device = await made.logged_in()
        made.store.terminals[device.address] = assets(point(1), point(2))
        device.answers[0x0D, 161] = lambda frame: [frozen_unit(1), frozen_unit(2)]
        answer = await made.session().read_frozen([due(1), due(2)])
        assert [row[0] for row in answer.rows] == [1001, 1002]


async def test_assets_are_read_again_when_they_are_old_and_were_changed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with stage(assets(point(1))) as made:
        device = await made.logged_in()
        session = made.session()
        await session.ready()
        device.answers[0x0D, 161] = lambda frame: [frozen_unit(1)]
        read = made.store.looked_up
        read.clear()
        with monkeypatch.context() as old:
            old.setattr(terminal, "ASSETS_FRESH_S", 0.0)
            assert (await session.read_frozen([due(1)])).rows
        assert not read
        made.store.terminals[device.address] = assets(point(1, meter_id=2001))
        assert (await session.read_frozen([due(1)])).rows
        assert not read
        monkeypatch.setattr(terminal, "ASSETS_FRESH_S", 0.0)
        assert reasons(await session.read_frozen([due(1)])) == {1001: Reason.NOT_SUPPORTED}
        assert set(read) == {device.address}
        read.clear()
        await session.read_frozen([due(1)._replace(meter_id=2001)])
        assert not read


async def test_a_profile_has_its_own_timeout_and_size() -> None:
    profile = TerminalProfile(reply_timeout_s=0.05, points_a_request=3)
    settings = SessionSettings(repeats=0, profiles={"slow": profile})
    async with stage(assets(profile="slow"), settings=settings) as made:
        await made.logged_in()
        await made.session().ready()
        assert made.session().points_a_request(Quantity.FORWARD_ACTIVE, Kind.DAY) == 3
        answer = await asyncio.wait_for(made.session().read_frozen([due(1)]), 1)
        assert reasons(answer) == {1001: Reason.TERMINAL_SILENT}


# who goes first


async def test_urgent_goes_first_and_one_at_a_time() -> None:
    async with stage(assets()) as made:
        device = await made.logged_in()
        session = made.session()
        await session.ready()
        asked: list[int] = []

        def slowly(frame: Frame) -> None:
            asked.append(messages.decode(frame)[0].pn)
            unit = frozen_unit(asked[-1]) if frame.afn == 0x0D else encode_unit(0x0C, 129, asked[-1], PRESENT)
            asyncio.get_running_loop().call_later(
                0.03, lambda: asyncio.ensure_future(device.link.write(device.reply(frame, [unit])))
            )

        device.answers[0x0D, 161] = slowly
        device.answers[0x0C, 129] = slowly
        collecting = [asyncio.create_task(session.read_frozen([due(pn)])) for pn in (1, 2, 3)]
        await asyncio.sleep(0.01)
        person = asyncio.create_task(session.read_present([4]))
        answers = await asyncio.gather(*collecting)
        assert asked == [1, 4, 2, 3]
        assert await person
        assert all(answer.rows for answer in answers)


PRESENT = messages.PresentEnergy(to_device(NOON) - timedelta(minutes=1), (5_000_000, 5_000_000))


async def test_an_urgent_request_does_not_wait_out_the_silence_of_another() -> None:
    settings = SessionSettings(reply_timeout_s=600.0)
    async with stage(assets(), settings=settings, clock=noon_clock(20.0)) as made:
        device = await made.logged_in()
        session = made.session()
        await session.ready()
        device.answers[0x0C, 129] = lambda frame: [encode_unit(0x0C, 129, 4, PRESENT)]
        collecting = asyncio.create_task(session.read_frozen([due(1)]))
        await until(lambda: len(device.requests(0x0D)) == 1)
        (reading,) = await asyncio.wait_for(session.read_present([4]), 2)
        assert reading.registers == (5_000_000, 5_000_000)
        await until(lambda: len(device.requests(0x0D)) == 2)
        late, again = device.requests(0x0D)
        assert late.pseq != again.pseq
        await device.link.write(device.reply(again, [frozen_unit(1)]))
        assert (await collecting).rows


async def test_too_many_requests_are_refused() -> None:
    async with stage(assets()) as made:
        await made.logged_in()
        session = made.session()
        await session.ready()
        waiting = [asyncio.create_task(session.reading_state()) for _ in range(65)]
        await asyncio.sleep(0.01)
        with pytest.raises(InputError, match="too many requests"):
            await session.reading_state()
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)


async def test_a_request_given_up_leaves_the_channel_to_the_next() -> None:
    async with stage(assets()) as made:
        device = await made.logged_in()
        session = made.session()
        await session.ready()
        first = asyncio.create_task(session.read_frozen([due(1)]))
        second = asyncio.create_task(session.read_frozen([due(2)]))
        third = asyncio.create_task(session.read_frozen([due(3)]))
        await until(lambda: bool(device.requests(0x0D)))
        first.cancel()
        second.cancel()
        device.answers[0x0D, 161] = lambda frame: [frozen_unit(3)]
        assert (await asyncio.wait_for(third, 2)).rows


# captured answers


@pytest.mark.parametrize("name", ["gw-117", "gw-073"])
async def test_a_captured_clock_answer_gives_its_time(name: str) -> None:
    frame = parse(bytes.fromhex(CAPTURES[name]["hex"]))
    shown = {"gw-117": datetime(2015, 3, 17, 7, 39), "gw-073": datetime(2018, 10, 7, 23, 20, 51)}[name]
    known = TerminalAssets(7, frame.terminal, "default", ())
    now = from_device(shown) + timedelta(seconds=100)
    clock = clock_at(now)
    async with stage(known, clock=clock) as made:
        device = made.dial(frame.terminal)
        device.answers[0x0C, 2] = lambda asked: captured(name, asked)
        device.answers[0x09, 2] = device.answers[0x0A, 10] = device.answers[0x09, 1] = device.deny
        await device.confirmed(await device.login())
        await until(lambda: made.registry.session(frame.terminal) is not None)
        check = await made.session(frame.terminal).read_clock()
        assert check is not None
        assert -110 < check.offset_s <= -100
        assert check.within_tolerance


async def test_a_captured_present_register_is_read() -> None:
    frame = parse(bytes.fromhex(CAPTURES["gw-071"]["hex"]))
    known = TerminalAssets(7, frame.terminal, "default", (point(3),))
    clock = clock_at(from_device(datetime(2017, 2, 24, 17)))
    async with stage(known, clock=clock) as made:
        device = made.dial(frame.terminal)
        device.answers[0x0C, 129] = lambda asked: captured("gw-071", asked)
        device.answers[0x0C, 2] = device.answers[0x0A, 10] = device.deny
        device.answers[0x09, 2] = device.answers[0x09, 1] = device.deny
        await device.confirmed(await device.login())
        await until(lambda: made.registry.session(frame.terminal) is not None)
        (reading,) = await made.session(frame.terminal).read_present([3])
        assert (reading.pn, reading.meter_id) == (3, 1003)
        assert reading.read_at == from_device(datetime(2017, 2, 24, 16, 32))
        assert reading.registers[0] == 3_302_000


# where nothing is to be had


async def test_questions_to_a_closed_session_say_so() -> None:
    async with stage(assets()) as made:
        device = await made.logged_in()
        session = made.session()
        await device.hang_up()
        await until(lambda: not session.alive)
        with pytest.raises(LinkClosed):
            await session.reading_state()
        with pytest.raises(LinkClosed):
            await session.ready()


async def test_a_terminal_taken_out_of_the_assets_files_nothing_more() -> None:
    async with stage(assets()) as made:
        device = await made.logged_in()
        session = made.session()
        await session.ready()
        del made.store.terminals[device.address]
        await made.registry.reload()
        device.answers[0x0D, 161] = lambda frame: [frozen_unit(1)]
        answer = await session.read_frozen([due(1)])
        assert not answer.rows
        assert reasons(answer) == {1001: Reason.NOT_SUPPORTED}


async def test_nothing_due_asks_nothing() -> None:
    async with stage(assets()) as made:
        device = await made.logged_in()
        assert await made.session().read_frozen([]) == FrozenAnswer()
        assert not device.requests(0x0D)


async def test_present_values_that_are_denied_are_none() -> None:
    async with stage(assets()) as made:
        device = await made.logged_in()
        await made.session().ready()
        device.answers[0x0C, 129] = device.deny
        assert await made.session().read_present([1]) == []
