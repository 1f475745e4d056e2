"""Events of a simulated terminal: told by ACD and EC, given when asked, reported until confirmed."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import datetime

import pytest

from protocols.q_gdw376 import messages
from protocols.q_gdw376.connection import EventsWaiting
from protocols.q_gdw376.events import Events, decode_events, kind, read_events, read_record
from protocols.q_gdw376.frame import Frame
from simulator import events
from simulator.district import District
from simulator.events import IMPORTANT, NORMAL, RAISED, EventMemory
from simulator.faults import Events as EventsFault
from simulator.faults import Faults, TerminalFaults, deal
from simulator.terminal import PUSH_REPEAT
from tests.simulator.bench import DAY, Answered, Bench, Denied, Spontaneous

PLAN = District(7, 1, 60, DAY).terminals[0]
AT = datetime(2026, 11, 24, 9, 30)


def bench(*noticed: tuple[float, int], reports: bool = False) -> Bench:
    """A terminal that notices these (seconds from the start, ERC)."""
    mine = TerminalFaults(seed="x", events=noticed, reports=reports)
    return Bench(PLAN, mine=mine)


def told(outcome: object) -> Events:
    assert isinstance(outcome, Answered)
    (frame,) = outcome.frames
    return decode_events(messages.decode(frame)[0].raw)


def counters(one: Bench) -> list[tuple[int, int]]:
    return [(event.ec1, event.ec2) for event in one.heard if isinstance(event, EventsWaiting)]


@pytest.mark.parametrize("erc", RAISED)
def test_every_body_is_read_by_the_protocol_as_it_was_meant(erc: int) -> None:
    record = read_record(erc, events.body(erc, PLAN, AT, random.Random(1)))
    assert record.reason is None
    assert record.fields is not None
    assert record.at is not None
    if erc == 14:
        assert record.fields["on"] == AT
        assert record.at < AT
    else:
        assert record.at == AT
    if "point" in record.fields:
        assert record.point in {meter.pn for meter in PLAN.meters}
        assert record.start is (None if erc == 8 else True)


def test_those_that_need_a_person_are_among_them() -> None:
    assert {erc for erc in RAISED if (known := kind(erc)) and known.needs_person} == {
        3,
        8,
        12,
        14,
        20,
        31,
        35,
    }


def test_it_tells_that_events_wait_until_they_are_read() -> None:
    one = bench((90, 14), (95, 31), (100, 24))
    one.log_in()
    one.run(80)
    assert counters(one) == []
    one.run(50)
    assert counters(one) == [(2, 1)]
    found = told(one.ask(read_events(IMPORTANT, 0, 2)))
    assert (found.ec1, found.ec2, found.pm, found.pn) == (2, 1, 0, 2)
    assert [record.erc for record in found.records] == [14, 31]
    assert [record.erc for record in told(one.ask(read_events(NORMAL, 0, 1))).records] == [24]
    before = len(one.heard)
    one.run(130)
    beats = [event.frame for event in one.heard[before:] if isinstance(event, Spontaneous)]
    assert beats
    assert not any(beat.acd or beat.ec for beat in beats)
    assert one.counts["events"] == 3
    assert one.counts["event_fetches"] == 2


def test_every_frame_tells_it_and_still_fits_the_buffer() -> None:
    one = bench((1, 12))
    one.log_in()
    one.run(5)
    pns = [meter.pn for meter in PLAN.meters if meter.meter_class == "single_phase"]
    outcome = one.ask(messages.read_frozen(161, pns, DAY))
    assert isinstance(outcome, Answered)
    assert all(frame.acd and frame.ec == (1, 0) for frame in outcome.frames)
    assert len(outcome.frames) > 1
    assert max(len(write) for write in one.writes) <= PLAN.send_buffer
    denied = one.ask(messages.read_frozen(161, [2039], DAY))
    assert isinstance(denied, Denied)
    assert denied.frame.ec == (1, 0)


def test_the_login_after_an_absence_tells_it() -> None:
    one = bench((0, 14))
    one.log_in()
    login = next(event.frame for event in one.heard if isinstance(event, Spontaneous))
    assert (login.acd, login.ec) == (True, (1, 0))


@pytest.mark.parametrize("asked", [(0, 3), (1, 2), (255, 1), (1, 1)])
def test_records_that_are_not_there_are_denied(asked: tuple[int, int]) -> None:
    one = bench((0, 14))
    one.log_in()
    assert isinstance(one.ask(read_events(IMPORTANT, *asked)), Denied)


def test_a_report_is_repeated_until_it_is_confirmed_and_then_not_fetched() -> None:
    one = bench((5, 31), (6, 12), reports=True)
    one.log_in()
    one.confirms = False
    one.run(2 * PUSH_REPEAT + 8)
    frames = reports(one)
    assert len(frames) == 3
    assert len({frame.pseq for frame in frames}) == 1
    one.confirms = True
    one.run(PUSH_REPEAT + 1)
    found = [decode_events(messages.decode(frame)[0].raw) for frame in reports(one)]
    assert [(event.pm, event.pn, event.records[0].erc) for event in found[-2:]] == [(0, 1, 31), (1, 2, 12)]
    one.run(130)
    assert counters(one)[-1] == (2, 0)
    last = [event.frame for event in one.heard if isinstance(event, Spontaneous)][-1]
    assert not last.acd


def reports(one: Bench) -> list[Frame]:
    return [event.frame for event in one.heard if isinstance(event, Spontaneous) and event.frame.afn == 0x0E]


def test_the_memory_goes_round() -> None:
    memory = EventMemory()
    for number in range(300):
        memory.note(12, bytes([number % 256]))
    assert memory.ec == (44, 0)
    unit = memory.unit(IMPORTANT, 250, 44)
    assert unit is not None
    assert [record.raw for record in decode_events(unit[4:]).records] == [
        bytes([n % 256]) for n in range(250, 300)
    ]
    assert memory.waiting
    memory.was_read(NORMAL, 44)
    assert memory.waiting
    memory.was_read(IMPORTANT, 44)
    assert not memory.waiting


def test_events_are_dealt_out_among_terminals() -> None:
    district = District(3, 4, 40, DAY)
    faults = Faults(events=EventsFault(count=10, least=2, most=9, reported=0.5))
    dealt = [mine for _, mine in deal(faults, district)]
    noticed = [one for mine in dealt for one in mine.events]
    assert sorted(erc for _, erc in noticed) == sorted((RAISED * 2)[:10])
    assert all(2 <= at <= 9 for at, _ in noticed)
    assert all(mine.events for mine in dealt)
    assert {mine.reports for mine in dealt} == {True, False}
    assert not any(mine.reports for _, mine in deal(replace(faults, events=EventsFault(10)), district))
