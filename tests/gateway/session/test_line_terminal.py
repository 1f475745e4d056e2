"""A line of ours to simulated meters, as the rest of the house uses a terminal: they answer themselves."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from dataclasses import replace
from datetime import timedelta

import pytest

from gateway.clock import Clock
from gateway.collection.collector import Collector
from gateway.collection.policy import nightly
from gateway.command import Action, Why
from gateway.config import CollectionSettings
from gateway.door import Accepted, NotWritten, Prepared, Silence, Trouble
from gateway.errors import InputError
from gateway.metrics import Metrics
from gateway.model import Failure, Quantity, Reason
from gateway.session.channel import Urgency
from gateway.session.direct_line import LineSettings
from gateway.session.line_terminal import LineTerminal
from gateway.session.meter import read_meter_freeze
from gateway.session.settings import MeterProfile, SessionSettings, terminal_profiles
from gateway.transports.memory import Line, pair
from protocols.permit import Permit
from protocols.q_gdw376 import messages
from protocols.q_gdw376.connection import Confirmed
from simulator.control import Setup
from tests.gateway.collection import world
from tests.gateway.session.line_stage import GOOD, NOTHING_CAME, PATIENT, Alone, Street, street
from tests.gateway.session.stage import noon_clock
from tests.gateway.session.test_with_simulator import DAY

SEALED = MeterProfile(level="98", operator="00000001")


# readings


@pytest.mark.parametrize("wire", ["good", "pieces", "noise", "echo"])
async def test_midnights_are_read_of_the_meters_themselves(wire: str) -> None:
    pieces = Line(split=0.6, delay_s=(0.0, 0.004)) if wire == "pieces" else GOOD
    async with street(up=pieces, down=pieces) as here:
        here.far.noise = b"\x00\xff" if wire == "noise" else b""
        here.far.echoes = wire == "echo"
        session = here.session()
        await session.ready()
        assert not session.archive_in_doubt
        for due in here.night.dues(here.plan.address):
            if due.quantity is Quantity.FORWARD_ACTIVE:
                point = next(one for one in session.assets.points if one.pn == due.pn)
                row = await read_meter_freeze(session, point, due)
                assert not isinstance(row, Failure), row
                assert not here.night.wrong_rows([row])
        assert here.far.heard.startswith(b"\xfe\xfe\xfe\xfe\x68")


async def test_a_wire_that_damages_gives_no_wrong_value() -> None:
    """One write in six loses its sense; what is read is the truth, or nothing."""
    bad = Line(corrupt=0.08, split=0.3)
    settings = replace(NOTHING_CAME, reply_timeout_s=0.3)
    async with street(settings, up=bad, down=bad) as here:
        session = here.session()
        await session.ready()
        due = here.night.dues(here.plan.address)[0]
        point = next(one for one in session.assets.points if one.pn == due.pn)
        reasons = set()
        for _ in range(40):
            row = await read_meter_freeze(session, point, due)
            if not isinstance(row, Failure):
                assert not here.night.wrong_rows([row])
            else:
                reasons.add(row.reason)
            if not isinstance(row, Failure) and reasons:
                break
        assert reasons <= {Reason.METER_SILENT, Reason.DAMAGED, Reason.WRONG_METER, Reason.METER_REFUSED}
        assert reasons, "the wire did no harm: nothing was tried"


async def test_the_collector_goes_straight_to_the_meters_at_night() -> None:
    """With an allowance of none, long before the day begins; the same night gives nothing of a terminal that
    is said to keep values."""
    async with street(hour=2) as here:
        assets = here.night.terminals[here.plan.address]
        wanted = {
            due
            for due in here.night.dues(here.plan.address)
            if next(one for one in assets.points if one.pn == due.pn).meter_class.value == "single_phase"
        }
        points = tuple(one for one in assets.points if one.meter_class.value == "single_phase")
        session = here.session()
        session.assets = replace(assets, points=points)
        for store_days, expected in ((30, 0), (0, len(wanted))):
            database = world.Database(session.assets)
            settings = CollectionSettings(direct_reads_per_terminal_hour=0)
            collector = Collector(
                here.registry,
                database,
                world.Writer(database, here.clock),
                here.clock,
                settings,
                Metrics(),
                store_days=lambda profile, days=store_days: days,  # type: ignore[misc]  # bound now
            )
            policy = replace(nightly(settings, 600.0), tries=1)
            summary = await collector.collect(DAY, terminals=[here.plan.address], direct=policy)
            assert summary.collected == expected == len(database.rows)
        assert wanted
        assert not here.night.wrong_rows(list(database.rows.values()))


def test_the_profile_of_a_line_keeps_no_values() -> None:
    profiles = terminal_profiles({"own": {"keeps_values": False}, "far": {"base": "own"}}, {})
    days = {name: profiles[name].store_days for name in ("line", "own", "far", "standard-2013")}
    assert days == {"line": 0, "own": 0, "far": 0, "standard-2013": 30}


# relays


async def order(here: Street, action: Action) -> Accepted:
    async with here.doors.open(here.facts()) as door:
        assert door is not None
        assert await door.identify() is None
        assert isinstance(await door.clock_offset(), float)
        prepared = await door.prepare(action, here.clock.now() + timedelta(minutes=10))
        assert isinstance(prepared, Prepared), prepared
        answer = await door.write(prepared, lambda: None)
        assert isinstance(answer, Awaitable), answer
        answered = await answer
        assert isinstance(answered, Accepted), answered
        status = await door.status()
        assert not isinstance(status, Trouble), status
        assert status.open is (action is Action.TRIP)
        frame = next(entry for entry in here.seen("frame") if entry.verb == action.value)
        assert frame.frame == prepared.sha256.hex()
        return answered


@pytest.mark.parametrize("wire", ["good", "pieces", "echo"])
@pytest.mark.parametrize(
    ("profile", "setup"),
    [(MeterProfile(password="123456"), Setup()), (SEALED, Setup(esam=True))],
    ids=["plain", "sealed"],
)
async def test_a_trip_and_a_close(profile: MeterProfile, setup: Setup, wire: str) -> None:
    pieces = Line(split=0.6, delay_s=(0.0, 0.004)) if wire == "pieces" else GOOD
    async with street(up=pieces, down=pieces, profile=profile, setup=setup) as here:
        here.far.echoes = wire == "echo"
        await here.session().ready()
        for action in (Action.TRIP, Action.CLOSE):
            await order(here, action)
        assert [entry.decision for entry in here.seen("moved")] == ["opened", "closed"]


@pytest.mark.parametrize("allowed", [False, True])
async def test_a_trip_that_is_refused_beside_the_write_puts_no_byte_on_the_line(allowed: bool) -> None:
    async with street() as here:
        await here.session().ready()
        async with here.doors.open(here.facts()) as door:
            assert door is not None
            assert await door.identify() is None
            prepared = await door.prepare(Action.TRIP, here.clock.now() + timedelta(minutes=10))
            assert isinstance(prepared, Prepared)
            before = len(here.wire.writes)
            answer = await door.write(prepared, lambda: None if allowed else Trouble(Why.BRAKE))
            assert len(here.wire.writes) == before + allowed
            if isinstance(answer, NotWritten):
                assert answer == NotWritten(Trouble(Why.BRAKE))
            else:
                await answer
            assert not isinstance(await door.status(), Trouble)
        assert len(here.seen("frame")) == allowed


async def test_a_control_leaves_while_it_is_handed_over_and_its_gap_was_kept_before() -> None:
    """Right behind an answer the line is quiet already: no write is refused for want of the gap."""
    async with street(replace(PATIENT, gap_s=0.15)) as here:
        await here.session().ready()
        async with here.doors.open(here.facts()) as door:
            assert door is not None
            assert await door.identify() is None
            prepared = await door.prepare(Action.TRIP, here.clock.now() + timedelta(minutes=10))
            assert isinstance(prepared, Prepared)
            assert not isinstance(await door.status(), Trouble)
            answer = await door.write(prepared, lambda: None)
            assert isinstance(answer, Awaitable)
            assert here.wire.writes[-1] == b"\xfe\xfe\xfe\xfe" + prepared.frame
            assert isinstance(await answer, Accepted)


async def test_a_meter_that_stays_silent_on_a_trip_is_silence() -> None:
    async with street() as here:
        await here.session().ready()
        async with here.doors.open(here.facts()) as door:
            assert door is not None
            prepared = await door.prepare(Action.TRIP, here.clock.now() + timedelta(minutes=10))
            assert isinstance(prepared, Prepared)
            here.far.hear = lambda data: b""
            door._wait_s = 1
            answer = await door.write(prepared, lambda: None)
            assert isinstance(answer, Awaitable)
            assert isinstance(await answer, Silence)


# what it says about itself


async def test_what_it_says_about_itself() -> None:
    async with street() as here:
        session = here.session()
        await session.ready()
        assert session.version is not None
        assert session.version.device == "LINE"
        assert session.rx_buffer is not None
        check = await session.read_clock()
        assert check is not None
        assert abs(check.offset_s) < 5
        assert session.learned
        assert not session.archive_in_doubt
        assert session.assets.archive is None
        assert await session.reading_state() is None
        with pytest.raises(InputError):
            await session.read_archive()
        (due, *_) = here.night.dues(here.plan.address)
        answer = await session.read_frozen([due])
        assert [one.reason for one in answer.failures] == [Reason.TERMINAL_DENIED]
        async with session.hold(Urgency.RELAY) as hold:
            for fn in (49, 50):
                permit = Permit(f"376 05 f{fn}", session.address, "a test")
                request = messages.command(0x05, fn, values={"port": 1}, permit=permit)
                assert isinstance(await hold.exchange(request, reply_timeout=20.0), Confirmed)


async def test_the_archive_of_a_terminal_that_had_its_address_does_not_stop_trips() -> None:
    async with street(archive={1: "000000000001"}) as here:
        session = here.session()
        await session.ready()
        assert not session.archive_in_doubt
        assert session.assets.archive is None
        async with here.doors.open(here.facts()) as door:
            assert door is not None
            assert await door.identify() is None


async def test_it_beats_and_tells_the_houses_time() -> None:
    clock = noon_clock(100.0)
    alone = Alone(LineSettings(heartbeat_s=20.0), clock)
    said = b""
    async with asyncio.timeout(20):
        while said.count(b"\x68") < 6:
            said += (await alone.terminal.read())[0]
    frames = []
    alone.master.receive_data(said, 0.0)
    while (event := alone.master.next_event()) is not None:
        frames.append(event)
    fns = [messages.decode(one.frame)[0].fn for one in frames]  # type: ignore[union-attr]  # Spontaneous
    assert fns[:3] == [1, 3, 3]
    assert alone.terminal.waiting == 0
    assert alone.terminal.unsent == 0
    await alone.terminal.close()


@pytest.mark.parametrize("address", ["", "0200123", "0200123G", "02001ABC"])
def test_an_address_that_cannot_be_is_named(address: str) -> None:
    wire, _ = pair(1)
    with pytest.raises(InputError, match="hex digits"):
        LineTerminal(address, wire, Clock())


def test_settings_are_as_the_house_waits() -> None:
    """The house must wait longer than a question may take on the line."""
    assert SessionSettings().relay_margin_s > LineSettings().reply_timeout_s + LineSettings().late_s
