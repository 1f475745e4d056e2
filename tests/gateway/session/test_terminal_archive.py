"""What a terminal says of itself at its login and later, above all the archive of its meters."""

from __future__ import annotations

import asyncio

import pytest

from gateway.clock import to_device
from gateway.errors import InputError
from gateway.model import ArchiveRecord, Kind, Quantity, Reason
from gateway.session import asking
from protocols.q_gdw376 import messages
from protocols.q_gdw376.frame import Frame
from protocols.q_gdw376.messages import encode_unit
from tests.gateway.session.stage import (
    NOON,
    assets,
    due,
    frozen_unit,
    meter_address,
    noon_clock,
    point,
    stage,
    until,
)
from tests.gateway.session.terminal_stage import QUICK, reasons

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
