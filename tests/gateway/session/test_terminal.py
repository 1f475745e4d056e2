"""Asking a terminal for frozen values, its clock, its archive, and what its registers show now."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from gateway.clock import Clock, from_device, to_device
from gateway.errors import InputError, LinkClosed
from gateway.model import ArchiveRecord, Kind, MeterClass, Quantity, Reason, TerminalAssets
from gateway.session import asking
from gateway.session.settings import SessionSettings, TerminalProfile
from gateway.session.terminal import FrozenAnswer
from protocols.q_gdw376 import messages
from protocols.q_gdw376.frame import Frame, build, parse
from protocols.q_gdw376.messages import encode_unit
from tests.gateway.session.stage import (
    MIDNIGHT,
    NOON,
    Device,
    assets,
    clock_at,
    due,
    frozen_unit,
    meter_address,
    noon_clock,
    point,
    stage,
    until,
)

CAPTURES: dict[str, dict[str, Any]] = {
    vector["id"]: vector
    for vector in json.loads(
        (Path(__file__).parents[2] / "vectors" / "frames.json").read_text(encoding="utf-8")
    )
}
QUICK = SessionSettings(reply_timeout_s=0.1, repeats=1)


def captured(name: str, asked: Frame) -> bytes:
    """The capture with PSEQ, MSA and checksum set to the request's; all else as it was."""
    frame = parse(bytes.fromhex(CAPTURES[name]["hex"]))
    return build(replace(frame, pseq=asked.pseq, msa=asked.msa))


def reasons(answer: FrozenAnswer) -> dict[int, Reason]:
    return {failure.meter_id: failure.reason for failure in answer.failures}


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
        device.answers[0x0C, 2] = device.answers[0x0A, 10] = device.answers[0x09, 2] = device.deny
        await device.confirmed(await device.login())
        await until(lambda: made.registry.session(frame.terminal) is not None)
        (reading,) = await made.session(frame.terminal).read_present([3])
        assert (reading.pn, reading.meter_id) == (3, 1003)
        assert reading.read_at == from_device(datetime(2017, 2, 24, 16, 32))
        assert reading.registers[0] == 3_302_000


# what a terminal says of itself


async def test_version_buffers_clock_and_archive_are_learned_at_the_login() -> None:
    async with stage(assets(archive=False)) as made:
        device = made.dial()
        made.teach(device)
        ports = messages.TerminalPorts(0, 0, 0, 0, 2040, 512, 300)
        version = messages.TerminalVersion("LD", "1", "1.0", None, "", "2013", "1", None)
        device.answers[0x09, 2] = lambda frame: [encode_unit(0x09, 2, 0, ports)]
        device.answers[0x09, 1] = lambda frame: [encode_unit(0x09, 1, 0, version)]
        await device.confirmed(await device.login())
        await until(lambda: made.registry.session(device.address) is not None)
        session = made.session()
        await session.ready()
        assert (session.rx_buffer, session.tx_buffer) == (512, 300)
        assert session.version is not None
        assert session.version.vendor == "LD"
        assert session.points_a_request(Quantity.FORWARD_ACTIVE, Kind.DAY) == 7
        archive = {pn: meter_address(pn) for pn in (1, 2, 3, 4)}
        assert made.store.archives == {7: archive}
        assert session.assets.archive == archive
        assert made.store.clocks
        await session.ready()
        assert len(device.requests(0x0C)) == 1


async def test_an_archive_is_asked_for_until_its_end() -> None:
    points = tuple(point(pn) for pn in range(1, 101))
    async with stage(assets(*points, archive=False)) as made:
        held = {pn: meter_address(pn) for pn in (*range(1, 101), 110, 111, 400)}
        await made.logged_in(held=held)
        await made.session().ready()
        archive = made.session().assets.archive
        assert archive is not None
        assert len(archive) == 102, "400 lies behind a gap, where no point of ours is"
        assert made.store.archives[7] == archive


async def test_the_short_way_through_an_archive_equals_the_layout() -> None:
    records = tuple(
        messages.ArchiveRecord(n, n + 7, 31, 2400, 30, f"{n * 7919:012d}", 4, collector="1" * 12)
        for n in (1, 2, 300, 2040)
    )
    for chosen in ((), records[:1], records):
        body = encode_unit(0x0A, 10, 0, messages.Archive(chosen))
        entries = [(one.sequence, one.pn, one.address) for one in chosen]
        for whole in (body, body + body):
            frame = Frame(terminal="02001234", up=True, prm=False, function=8, afn=0x0A, body=whole)
            assert asking.archive_entries(frame) == entries * (len(whole) // len(body))


async def test_sequence_numbers_need_not_be_those_of_the_points() -> None:
    async with stage(assets(archive=False)) as made:
        device = made.dial()
        made.teach(device)
        archive = {
            100 + pn: messages.ArchiveRecord(100 + pn, pn, 31, 2400, 30, meter_address(pn), 4)
            for pn in (1, 2, 3)
        }

        def answer(asked: Frame) -> list[bytes] | bytes:
            query = messages.decode(asked)[0].value
            assert isinstance(query, messages.ArchiveQuery)
            found = tuple(archive[one] for one in query.sequences if one in archive)
            return [encode_unit(0x0A, 10, 0, messages.Archive(found))]

        device.answers[0x0A, 10] = answer
        await device.confirmed(await device.login())
        await until(lambda: made.registry.session(device.address) is not None)
        await made.session().ready()
        assert made.session().assets.archive == {pn: meter_address(pn) for pn in (1, 2, 3)}


async def test_an_archive_that_stands_is_looked_at_again_and_read_anew_if_it_changed() -> None:
    points = tuple(point(pn) for pn in range(1, 101))
    async with stage(assets(*points)) as made:
        device = await made.logged_in()
        await made.session().ready()
        assert len(device.requests(0x0A)) == 1
        assert not made.store.archives
        await device.hang_up()
        held = {pn: f"{pn:012d}" for pn in range(1, 101)}
        again = await made.logged_in(held=held)
        await made.session().ready()
        assert made.store.archives == {7: held}
        again.answers[0x0D, 161] = lambda frame: [frozen_unit(1)]
        answer = await made.session().read_frozen([due(1)])
        assert reasons(answer) == {1001: Reason.ARCHIVE_DIFFERS}


async def test_a_denied_archive_is_tolerated() -> None:
    async with stage(assets(archive=False)) as made:
        device = await made.logged_in(held={})
        await made.session().ready()
        assert made.session().learned
        device.answers[0x0D, 161] = lambda frame: [frozen_unit(1)]
        assert (await made.session().read_frozen([due(1)])).rows


async def test_a_silent_terminal_is_asked_again_by_the_next_who_waits() -> None:
    async with stage(assets(archive=False), clock=noon_clock(100.0)) as made:
        device = made.dial()
        await device.confirmed(await device.login())
        await until(lambda: made.registry.session(device.address) is not None)
        session = made.session()
        await asyncio.wait_for(session.ready(), 3)
        assert not session.learned
        assert len(device.requests(0x0C)) == 3
        made.teach(device)
        await session.ready()
        assert session.learned


async def test_after_a_takeover_nothing_is_filed_before_the_archive_was_seen_again() -> None:
    async with stage(assets(), settings=QUICK, clock=noon_clock(50.0)) as made:
        await made.logged_in()
        await made.session().ready()
        other = await made.logged_in(mute=True)
        other.answers[0x0D, 161] = lambda frame: [frozen_unit(1)]
        session = made.session()
        await session.ready()
        assert reasons(await session.read_frozen([due(1)])) == {1001: Reason.ARCHIVE_DIFFERS}
        made.teach(other)
        await session.ready()
        assert (await session.read_frozen([due(1)])).rows


async def test_a_device_with_other_meters_in_a_terminals_place_files_nothing() -> None:
    async with stage(assets()) as made:
        await made.logged_in()
        await made.session().ready()
        impostor = await made.logged_in(held={pn: f"{pn:012d}" for pn in range(1, 5)})
        impostor.answers[0x0D, 161] = lambda frame: [frozen_unit(pn) for pn in (1, 2, 3, 4)]
        await made.session().ready()
        answer = await made.session().read_frozen([due(pn) for pn in (1, 2, 3, 4)])
        assert not answer.rows
        assert set(reasons(answer).values()) == {Reason.ARCHIVE_DIFFERS}


async def test_archive_records_are_written_ten_a_frame() -> None:
    async with stage(assets()) as made:
        device = await made.logged_in()
        await made.session().ready()
        device.answers[0x04, 10] = device.confirm
        records = [ArchiveRecord(pn, pn, 31, 2400, 30, meter_address(pn), 4) for pn in range(1, 24)]
        await made.session().write_archive(records)
        sizes = []
        for frame in device.requests(0x04):
            (unit,) = messages.decode(frame)
            assert isinstance(unit.value, messages.Archive)
            sizes.append(len(unit.value.records))
            assert frame.con
        assert sizes == [10, 10, 3]
        device.answers[0x04, 10] = device.deny
        with pytest.raises(InputError, match="read the archive back"):
            await made.session().write_archive(records[:1])
        assert len(await made.session().archive_records()) == 4


async def test_how_far_the_terminal_is_with_its_reading() -> None:
    async with stage(assets()) as made:
        device = await made.logged_in()
        port = messages.PortProgress(31, 40, 1, 25, 3, to_device(NOON), None)
        done = messages.PortProgress(2, 4, 0, 4, 4, to_device(NOON), to_device(NOON))
        state = messages.ReadingState((port, done))
        device.answers[0x0C, 11] = lambda frame: [encode_unit(0x0C, 11, 0, state)]
        told = await made.session().reading_state()
        assert told is not None
        assert [(one.port, one.meters, one.done, one.finished) for one in told] == [
            (31, 40, 25, False),
            (2, 4, 4, True),
        ]
        device.answers[0x0C, 11] = device.deny
        assert await made.session().reading_state() is None


# clocks


def with_clock(device: Device, clock: Clock, ahead: dict[str, float]) -> None:
    """A device whose clock is `ahead["s"]` seconds ahead, until it is set."""

    def tell(asked: Frame) -> list[bytes]:
        shown = to_device(clock.now()).replace(microsecond=0) + timedelta(seconds=ahead["s"])
        return [encode_unit(0x0C, 2, 0, messages.Clock(shown, shown.isoweekday()))]

    def be_set(asked: Frame) -> bytes:
        value = messages.decode(asked)[0].value
        assert isinstance(value, messages.Clock)
        assert value.at is not None
        ahead["s"] = (value.at - to_device(clock.now())).total_seconds()
        return device.confirm(asked)

    device.answers[0x0C, 2] = tell
    device.answers[0x05, 31] = be_set


@pytest.mark.parametrize("off", [-900.0, 900.0, 4000.0])
async def test_a_clock_that_is_off_is_set_on_command_and_not_by_itself(off: float) -> None:
    async with stage(assets()) as made:
        device = await made.logged_in()
        await made.session().ready()
        ahead = {"s": off}
        with_clock(device, made.clock, ahead)
        session = made.session()
        check = await session.read_clock()
        assert check is not None
        assert not check.within_tolerance
        assert made.count("terminal_clocks_off") == 1
        assert not device.requests(0x05)
        after = await session.set_clock()
        assert after.within_tolerance
        assert abs(ahead["s"]) < 2
        assert made.count("terminal_clocks_off") == 0
        distrusted = session.clock_watch.distrusted_until
        assert (distrusted is not None) == (abs(off) > 3600)


async def test_a_clock_that_is_off_is_set_by_policy() -> None:
    settings = SessionSettings(correct_clock=True)
    async with stage(assets(), settings=settings) as made:
        device = made.dial()
        made.teach(device)
        ahead = {"s": 1000.0}
        with_clock(device, made.clock, ahead)
        await device.confirmed(await device.login())
        await until(lambda: made.registry.session(device.address) is not None)
        await made.session().ready()
        assert abs(ahead["s"]) < 2
        assert not made.session().clock_off


@pytest.mark.parametrize(
    ("now", "off"),
    [
        (datetime(2026, 11, 24, 23, 50), 0.0),
        (datetime(2026, 11, 25, 0, 10), 0.0),
        (datetime(2026, 11, 24, 22, 0), 6600.0),
        (datetime(2026, 11, 24, 2, 0), -6600.0),
        (datetime(2026, 11, 24, 12, 0), 86_400.0),
        (datetime(2026, 11, 24, 12, 0), -86_400.0),
        (datetime(2026, 11, 24, 20, 0), 6 * 3600.0),
    ],
    ids=[
        "just before midnight",
        "just after midnight",
        "the terminal is just before midnight",
        "the terminal is just after midnight",
        "a day ahead",
        "a day behind",
        "across the midnight ahead",
    ],
)
async def test_no_clock_is_set_near_or_across_a_midnight(now: datetime, off: float) -> None:
    clock = clock_at(from_device(now))
    async with stage(assets(), settings=SessionSettings(correct_clock=True), clock=clock) as made:
        device = made.dial()
        made.teach(device)
        with_clock(device, clock, {"s": off})
        await device.confirmed(await device.login())
        await until(lambda: made.registry.session(device.address) is not None)
        await made.session().ready()
        with pytest.raises(InputError, match="midnight"):
            await made.session().set_clock()
        assert not device.requests(0x05)


async def test_what_was_frozen_by_a_wrong_clock_stays_refused_after_a_new_login() -> None:
    async with stage(assets()) as made:
        device = await made.logged_in()
        await made.session().ready()
        with_clock(device, made.clock, {"s": 86_400.0})
        device.answers[0x0D, 161] = lambda frame: [frozen_unit(1)]
        await made.session().read_clock()
        assert reasons(await made.session().read_frozen([due(1)])) == {1001: Reason.WRONG_DATE}
        await device.hang_up()
        again = await made.logged_in()
        await made.session().ready()
        again.answers[0x0D, 161] = lambda frame: [frozen_unit(1)]
        assert abs(made.session().clock_offset or 9e9) < 2
        assert reasons(await made.session().read_frozen([due(1)])) == {1001: Reason.WRONG_DATE}


async def test_a_profile_has_its_own_timeout_and_size() -> None:
    profile = TerminalProfile(reply_timeout_s=0.05, points_a_request=3)
    settings = SessionSettings(repeats=0, profiles={"slow": profile})
    async with stage(assets(profile="slow"), settings=settings) as made:
        await made.logged_in()
        await made.session().ready()
        assert made.session().points_a_request(Quantity.FORWARD_ACTIVE, Kind.DAY) == 3
        answer = await asyncio.wait_for(made.session().read_frozen([due(1)]), 1)
        assert reasons(answer) == {1001: Reason.TERMINAL_SILENT}


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


async def test_a_clock_that_cannot_be_set_is_said_so() -> None:
    async with stage(assets()) as made:
        device = await made.logged_in()
        session = made.session()
        await session.ready()
        device.answers[0x05, 31] = device.deny
        with pytest.raises(InputError, match="did not take the time"):
            await session.set_clock()
        device.answers[0x0C, 2] = device.deny
        assert await session.read_clock() is None
        with pytest.raises(InputError, match="does not tell its time"):
            await session.set_clock()
        unset = encode_unit(0x0C, 2, 0, messages.Clock(None))
        device.answers[0x0C, 2] = lambda frame: [unset]
        assert await session.read_clock() is None


async def test_what_is_learned_while_the_database_is_away_is_used_all_the_same() -> None:
    async with stage(assets(archive=False)) as made:
        device = made.dial()
        made.teach(device, {1: "9" * 12, 2: meter_address(2)})
        # From the very login: what is learned takes but a moment.
        made.registry.on_login(lambda session: setattr(made.store, "away", True))
        await device.confirmed(await device.login())
        await until(lambda: made.registry.session(device.address) is not None)
        session = made.session()
        await session.ready()
        assert session.learned
        assert not made.store.archives
        device.answers[0x0D, 161] = lambda frame: [frozen_unit(1), frozen_unit(2)]
        await session.refresh_assets(at_once=True)
        answer = await session.read_frozen([due(1), due(2)])
        assert [row[0] for row in answer.rows] == [1002]
        assert reasons(answer) == {1001: Reason.ARCHIVE_DIFFERS}


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


async def test_an_archive_that_cannot_be_written_or_read_is_said_so() -> None:
    async with stage(assets(), settings=QUICK, clock=noon_clock(100.0)) as made:
        device = await made.logged_in()
        session = made.session()
        await session.ready()
        with pytest.raises(InputError, match="cannot be sent"):
            await session.write_archive([ArchiveRecord(1, 1, 99, 2400, 30, meter_address(1), 4)])
        device.answers[0x0A, 10] = device.deny
        with pytest.raises(InputError, match="does not give its archive: all denied"):
            await session.read_archive()
        del device.answers[0x0A, 10]
        with pytest.raises(InputError, match="does not answer"):
            await session.archive_records()


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
