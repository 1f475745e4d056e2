"""A line of ours to simulated meters, as the rest of the house uses a terminal: what is asked is answered by
the meters themselves, and what must not reach them does not."""

from __future__ import annotations

import asyncio
import contextlib
import time
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
from gateway.errors import InputError, LinkClosed
from gateway.metrics import Metrics
from gateway.model import Failure, Quantity, Reason
from gateway.session import direct_line, line_terminal
from gateway.session.channel import Urgency
from gateway.session.direct_line import LineSettings
from gateway.session.line_terminal import LineTerminal
from gateway.session.meter import MeterItem, MeterRefusal, read_item, read_meter_freeze
from gateway.session.settings import MeterProfile, SessionSettings, terminal_profiles
from gateway.transports.link import Settle, Taken
from gateway.transports.memory import Line, pair
from protocols.dlt645 import frame as frame645
from protocols.permit import Permit
from protocols.q_gdw376 import frame as frame376
from protocols.q_gdw376 import messages
from protocols.q_gdw376.connection import Answered, Confirmed, Denied, Master
from simulator.control import Setup
from tests.gateway.collection import world
from tests.gateway.session.line_stage import GOOD, PATIENT, Street, street
from tests.gateway.session.stage import noon_clock, until
from tests.gateway.session.test_with_simulator import DAY

SEALED = MeterProfile(level="98", operator="00000001")
NOTHING_CAME = LineSettings(reply_timeout_s=0.1, inter_byte_s=0.1, gap_s=0.004, late_s=0.1)
"""For meters that do not answer at all."""


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


# what must not pass


def forward(address: str, control: int, data: bytes, allowed_s: float = 1.0) -> messages.Request:
    content = frame645.build(frame645.Frame(address, control, data))
    return messages.forward(1, content, allowed_s, 100)


TRIP = bytes.fromhex("02563412") + b"\x01\x00\x00\x00" + bytes.fromhex("1a00301012241126")[:8]
METER = "202611230001"


class Alone:
    """A line terminal with nobody but a master of ours before it, and a wire where nobody answers."""

    def __init__(self, settings: LineSettings = PATIENT, clock: Clock | None = None) -> None:
        self.clock = clock or noon_clock()
        self.wire, self.meters = pair(1)
        self.terminal = LineTerminal("02001234", self.wire, self.clock, settings)
        self.master = Master()
        self.master.terminal = "02001234"

    def request(self, request: messages.Request) -> bytes:
        self.master.abandon()
        return self.master.send(request, self.clock.monotonic(), 60.0)

    async def outcome(self) -> object:
        async with asyncio.timeout(20):
            while True:
                while (event := self.master.next_event()) is not None:
                    if isinstance(event, Answered | Confirmed | Denied):
                        return event
                data, _ = await self.terminal.read()
                self.master.receive_data(data, self.clock.monotonic())

    async def ask(self, request: messages.Request) -> object:
        await self.terminal.write(self.request(request))
        return await self.outcome()


@pytest.mark.parametrize("address", ["AAAAAAAAAAAA", "AAAAAAAAAA01", "999999999999"])
async def test_control_of_more_than_one_meter_is_not_said(address: str) -> None:
    alone = Alone()
    await alone.terminal.read()
    for control in (0x1C, 0x03):
        outcome = await alone.ask(forward(address, control, TRIP))
        assert isinstance(outcome, Denied)
    assert alone.terminal.write_now(alone.request(forward(address, 0x1C, TRIP))) is Taken.NOTHING
    assert isinstance(await alone.ask(messages.read_clock()), Answered), "it stands"
    assert alone.wire.writes == []
    await alone.terminal.close()


async def test_control_of_one_meter_is_said_at_once_and_only_so() -> None:
    """What the refusals are held against: the same frame for one meter, and a read of any meter, do leave."""
    alone = Alone()
    await alone.terminal.read()
    assert isinstance(await alone.ask(forward(METER, 0x1C, TRIP)), Denied)
    assert alone.wire.writes == [], "relay control never waits in a queue"
    request = forward(METER, 0x1C, TRIP, 0.2)
    assert alone.terminal.write_now(alone.request(request)) is Taken.WHOLE
    assert alone.wire.writes == [b"\xfe" * 4 + frame645.build(frame645.Frame(METER, 0x1C, TRIP))]
    assert isinstance(await alone.outcome(), Denied), "the meter is silent"
    await alone.terminal.write(alone.request(forward("AAAAAAAAAAAA", 0x11, bytes(4))))
    await until(lambda: len(alone.wire.writes) == 2)
    await alone.terminal.close()


@pytest.mark.parametrize("control", [0x14, 0x15, 0x16, 0x17, 0x08, 0x19, 0x1A, 0x1B, 0x91, 0x04, 0x0C])
async def test_what_writes_or_clears_is_not_said(control: int) -> None:
    alone = Alone()
    await alone.terminal.read()
    assert isinstance(await alone.ask(forward(METER, control, bytes(12))), Denied)
    assert alone.terminal.write_now(alone.request(forward(METER, control, bytes(12)))) is Taken.NOTHING
    assert alone.wire.writes == []
    await alone.terminal.close()


@pytest.mark.parametrize("busy", ["asked", "half a frame", "gap"])
async def test_a_control_on_a_busy_line_does_not_leave_ever(busy: str) -> None:
    alone = Alone(replace(PATIENT, gap_s=0.5 if busy == "gap" else 0.0))
    await alone.terminal.read()
    if busy == "asked":
        await alone.terminal.write(alone.request(forward(METER, 0x11, bytes(4), 5.0)))
        await until(lambda: len(alone.wire.writes) == 1)
    else:
        await alone.meters.write(b"\x68\x01" if busy == "half a frame" else b"\x00")
        await until(lambda: not alone.wire.waiting)
        await asyncio.sleep(0)
    before = list(alone.wire.writes)
    assert alone.terminal.write_now(alone.request(forward(METER, 0x1C, TRIP))) is Taken.NOTHING
    assert not alone.wire.ended
    if busy == "asked":
        await alone.meters.write(frame645.build(frame645.Frame(METER, 0x91, bytes(8))))
        await alone.terminal.read()
    await alone.ask(messages.read_clock())
    assert alone.wire.writes == before
    await alone.terminal.close()


@pytest.mark.parametrize(("takes", "taken"), [(0, Taken.NOTHING), (7, Taken.PERHAPS)])
async def test_a_wire_that_takes_less_than_the_whole_ends_it(takes: int, taken: Taken) -> None:
    alone = Alone()
    await alone.terminal.read()
    alone.wire.takes_now = takes
    assert alone.terminal.write_now(alone.request(forward(METER, 0x1C, TRIP))) is taken
    with pytest.raises(LinkClosed):
        await alone.terminal.read()
    assert alone.terminal.write_now(alone.request(forward(METER, 0x1C, TRIP))) is Taken.NOTHING
    assert alone.wire.writes in ([], [b"\xfe\xfe\xfe\xfe\x68\x01\x00"])
    await alone.terminal.close()


async def test_what_is_no_single_request_to_forward_does_not_leave_at_once() -> None:
    for data in (b"", b"\x68", b"two"):
        alone = Alone()
        await alone.terminal.read()
        whole = alone.request(forward(METER, 0x1C, TRIP))
        assert alone.terminal.write_now(whole + whole if data == b"two" else data) is Taken.NOTHING
        assert alone.wire.writes == []
        await alone.terminal.close()
    alone = Alone()
    await alone.terminal.read()
    assert alone.terminal.write_now(alone.request(messages.read_clock())) is Taken.NOTHING
    await alone.terminal.close()


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
