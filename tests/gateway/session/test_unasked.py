"""Reports and late answers: filed by what they say, confirmed only once they are safe."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta

import pytest

from gateway.clock import to_device
from gateway.model import Quantity, ReadingRow, Source
from gateway.session.settings import SessionSettings
from gateway.session.unasked import PENDING
from protocols.q_gdw376 import messages
from protocols.q_gdw376.messages import encode_unit
from tests.gateway.session.stage import (
    ADDRESS,
    MIDNIGHT,
    Device,
    HandWriter,
    Stage,
    assets,
    due,
    frozen_unit,
    noon_clock,
    stage,
    until,
)


async def test_pushed_values_are_filed_and_confirmed() -> None:
    async with stage(assets()) as made:
        device = await made.logged_in()
        await made.session().ready()
        sent = await device.say(0x0D, frozen_unit(1), frozen_unit(2))
        confirm = await device.confirmed(sent)
        assert [(row[0], row[3], row[12]) for row in made.writer.rows] == [
            (1001, MIDNIGHT, Source.PUSHED),
            (1002, MIDNIGHT, Source.PUSHED),
        ]
        (unit,) = messages.decode(confirm)
        assert unit.value == messages.UnitConfirm(0x0D, ((1, 161, 0), (2, 161, 0)))
        assert made.count("readings_total", source="pushed") == 2
        assert not made.store.raw


async def confirm_waits_for_commit(made: Stage, device: Device) -> bool:
    """Whether the confirm of a pushed frame is held back while its commit takes its time, and comes after."""
    made.writer.gate.clear()
    sent = await device.say(0x0D, frozen_unit(1))
    await asyncio.sleep(0.1)
    early = any(confirm.pseq == sent.pseq for confirm in device.confirms)
    made.writer.gate.set()
    await device.confirmed(sent)
    return not early and bool(made.writer.rows)


async def test_the_confirm_follows_the_commit() -> None:
    async with stage(assets()) as made:
        device = await made.logged_in()
        await made.session().ready()
        assert await confirm_waits_for_commit(made, device)


class HastyWriter(HandWriter):
    """A planted bug: says that the rows are committed before they are."""

    async def file(self, rows: Sequence[ReadingRow]) -> object:
        self.later = asyncio.create_task(super().file(rows))
        return None


async def test_an_early_confirm_is_caught() -> None:
    async with stage(assets()) as made:
        made.writer = hasty = HastyWriter()
        parts = made.registry._parts
        object.__setattr__(parts, "writer", hasty)
        device = await made.logged_in()
        await made.session().ready()
        assert not await confirm_waits_for_commit(made, device)
        await hasty.later


async def test_a_slow_commit_holds_up_neither_heartbeats_nor_requests() -> None:
    async with stage(assets()) as made:
        device = await made.logged_in()
        await made.session().ready()
        made.writer.gate.clear()
        pushed = await device.say(0x0D, frozen_unit(1))
        await device.confirmed(await device.beat())
        device.answers[0x0D, 161] = lambda frame: [frozen_unit(2)]
        assert (await made.session().read_frozen([due(2)])).rows
        assert not device.confirms
        made.writer.gate.set()
        await device.confirmed(pushed)


async def test_a_refused_commit_is_not_confirmed() -> None:
    async with stage(assets()) as made:
        device = await made.logged_in()
        await made.session().ready()
        made.writer.refuses = True
        await device.say(0x0D, frozen_unit(1))
        await asyncio.sleep(0.1)
        assert not device.confirms
        made.writer.refuses = False
        await device.confirmed(await device.say(0x0D, frozen_unit(1)))


async def test_without_con_nothing_is_confirmed() -> None:
    async with stage(assets()) as made:
        device = await made.logged_in()
        await made.session().ready()
        await device.say(0x0D, frozen_unit(1), con=False)
        await until(lambda: len(made.writer.rows) == 1)
        await asyncio.sleep(0.02)
        assert not device.confirms


async def test_a_push_right_after_the_login_waits_for_clock_and_archive() -> None:
    async with stage(assets(archive=False)) as made:
        device = made.dial()
        made.teach(device, {1: "9" * 12, 2: assets().points[1].address})
        await device.login()
        sent = await device.say(0x0D, frozen_unit(1), frozen_unit(2))
        await device.confirmed(sent)
        assert [row[0] for row in made.writer.rows] == [1002]
        assert any("archive_differs" in kept.reason for kept in made.store.raw)


async def test_a_push_of_a_terminal_that_answers_no_questions_is_filed_after_some_patience() -> None:
    async with stage(assets(), clock=noon_clock(50.0)) as made:
        device = await made.logged_in(mute=True)
        await device.confirmed(await device.say(0x0D, frozen_unit(1)))
        assert [row[0] for row in made.writer.rows] == [1001]


async def test_a_push_after_a_takeover_is_not_taken_before_the_archive_was_seen() -> None:
    async with stage(assets(), clock=noon_clock(50.0)) as made:
        await made.logged_in()
        await made.session().ready()
        other = await made.logged_in(mute=True)
        await other.say(0x0D, frozen_unit(1))
        await asyncio.sleep(0.3)
        assert not made.writer.rows
        assert not other.confirms
        made.teach(other)
        await made.session().ready()
        await other.confirmed(await other.say(0x0D, frozen_unit(1)))
        assert [row[0] for row in made.writer.rows] == [1001]


async def test_pushed_present_values_are_filed_as_live() -> None:
    async with stage(assets()) as made:
        device = await made.logged_in()
        await made.session().ready()
        read_at = to_device(made.clock.now()).replace(second=0, microsecond=0)
        unit = encode_unit(0x0C, 129, 3, messages.PresentEnergy(read_at, (500, 500)))
        await device.confirmed(await device.say(0x0C, unit))
        (row,) = made.writer.rows
        assert row[:3] == (1003, 1, 3)
        assert row[4] == 500


async def test_what_is_not_filed_is_kept_raw_before_it_is_confirmed() -> None:
    async with stage(assets()) as made:
        device = await made.logged_in()
        await made.session().ready()
        made.store.away = True
        sent = await device.say(0x0F, bytes.fromhex("00000100 01"))
        await asyncio.sleep(0.05)
        assert not device.confirms
        made.store.away = False
        await device.confirmed(sent, 10)
        assert [kept.terminal for kept in made.store.raw if "AFN0F" in kept.reason] == [ADDRESS]


async def test_the_number_of_frames_being_filed_is_bounded() -> None:
    async with stage(assets()) as made:
        device = await made.logged_in()
        await made.session().ready()
        made.writer.gate.clear()
        for _ in range(3 * PENDING):
            await device.say(0x0D, frozen_unit(1), con=False)
        await device.confirmed(await device.beat())
        assert len(made.session().unasked._tasks) == PENDING
        made.writer.gate.set()
        await until(lambda: len(made.writer.rows) == PENDING)


async def test_pushes_in_a_contest_are_marked() -> None:
    async with stage(assets()) as made:
        old = await made.logged_in()
        await made.session().ready()
        new = await made.logged_in()
        await made.session().ready()
        await old.beat()
        await until(lambda: made.registry.contested(ADDRESS))
        await new.confirmed(await new.say(0x0D, frozen_unit(1)))
        assert [row[13] for row in made.writer.rows] == [2]
        await old.say(0x0D, frozen_unit(2))
        await asyncio.sleep(0.05)
        assert len(made.writer.rows) == 1
        assert not old.confirms


# late answers

QUICK = SessionSettings(reply_timeout_s=0.05, repeats=0)


async def test_a_late_answer_is_filed_by_what_it_says_and_never_taken_for_the_next() -> None:
    async with stage(assets(), settings=QUICK) as made:
        device = await made.logged_in()
        await made.session().ready()
        answer = await made.session().read_frozen([due(1)])
        assert answer.halve
        (asked,) = device.requests(0x0D)
        device.answers[0x0D, 161] = lambda frame: (
            device.reply(asked, [frozen_unit(1)]) + device.reply(frame, [frozen_unit(2)])
        )
        answer = await made.session().read_frozen([due(2)])
        assert [row[0] for row in answer.rows] == [1002]
        await until(lambda: len(made.writer.rows) == 1)
        (row,) = made.writer.rows
        assert (row[0], row[1], row[3], row[12]) == (
            1001,
            Quantity.FORWARD_ACTIVE,
            MIDNIGHT,
            Source.TERMINAL,
        )
        assert made.count("exchanges_total", outcome="late") == 1


async def test_a_late_answer_of_another_day_goes_to_that_day() -> None:
    async with stage(assets(), settings=QUICK) as made:
        device = await made.logged_in()
        await made.session().ready()
        await made.session().read_frozen([due(1, at=MIDNIGHT - timedelta(days=1))])
        (asked,) = device.requests(0x0D)
        wall = to_device(MIDNIGHT - timedelta(days=1))
        unit = frozen_unit(1, tag=wall - timedelta(days=1), read_at=wall + timedelta(minutes=4))
        await device.link.write(device.reply(asked, [unit]))
        await until(lambda: len(made.writer.rows) == 1)
        assert made.writer.rows[0][3] == MIDNIGHT - timedelta(days=1)


@pytest.mark.parametrize("afn", [0x00, 0x10])
async def test_late_confirms_and_forwards_are_kept_raw_only(afn: int) -> None:
    async with stage(assets(), settings=QUICK) as made:
        device = await made.logged_in()
        await made.session().ready()
        await made.session().read_frozen([due(1)])
        (asked,) = device.requests(0x0D)
        unit = encode_unit(0, 1, 0) if afn == 0 else encode_unit(0x10, 1, 0, messages.Forwarded(31, b"\x68"))
        await device.link.write(device.reply(asked, [unit], afn=afn))
        await until(lambda: made.count("exchanges_total", outcome="late") == 1)
        await made.session().unasked.settled()
        await made.registry.close()
        assert not made.writer.rows
        assert [kept.reason for kept in made.store.raw] == [f"late AFN{afn:02X}"]


async def test_pushes_are_taken_in_mid_exchange() -> None:
    async with stage(assets()) as made:
        device = await made.logged_in()
        await made.session().ready()
        asking = asyncio.create_task(made.session().read_frozen([due(1)]))
        await until(lambda: bool(device.requests(0x0D)))
        await device.confirmed(await device.beat())
        await device.confirmed(await device.say(0x0D, frozen_unit(2)))
        assert [row[0] for row in made.writer.rows] == [1002]
        (asked,) = device.requests(0x0D)
        await device.link.write(device.reply(asked, [frozen_unit(1)]))
        assert [row[0] for row in (await asking).rows] == [1001]
