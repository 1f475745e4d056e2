"""Faults are read with care, dealt out by seed, and each one fires and is counted."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from datetime import date, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocols.dlt645.connection import Answered as MeterAnswered
from protocols.dlt645.connection import Master as MeterMaster
from protocols.dlt645.messages import ReadRequest
from protocols.permit import Permit
from protocols.q_gdw376 import messages, midnight
from simulator.district import District, MeterPlan, Quantity
from simulator.faults import (
    Count,
    CountBetween,
    CountSeconds,
    Delay,
    Faults,
    FaultsError,
    Fraction,
    NotReady,
    Pace,
    Push,
    deal,
    from_table,
    load,
)
from simulator.line import Ending
from simulator.pushes import Pushed
from simulator.terminal import PUSH_REPEAT, State
from tests.simulator.bench import (
    DAY,
    MORNING,
    Answered,
    Bench,
    Damaged,
    Denied,
    Late,
    Silent,
    Spontaneous,
    bench_with,
)

EVERYTHING = {
    "seed": 3,
    "pace": {"begin": "00:05", "done_from": "01:00", "done_until": "05:00"},
    "not_ready": {"fraction": 0.02, "seconds": 30},
    "filler": {"fraction": 0.01},
    "silence": {"fraction": 0.01},
    "delay": {"least": 0, "most": 3, "fraction": 0.5},
    "corrupt": {"fraction": 0.01},
    "split": {"fraction": 0.1},
    "merge": {"fraction": 0.1},
    "vanish": {"count": 20, "least": 1, "most": 30},
    "cut": {"count": 3},
    "double_login": {"count": 1},
    "clock_off": {"count": 1, "seconds": -86400},
    "swapped": {"count": 5},
    "late": {"count": 10},
    "absent": {"count": 1, "seconds": 60},
    "clash": {"count": 1},
    "push": {"count": 2, "trusting": 1, "points": 4, "after": 1, "again": 5, "pause": 1},
    "missed_freeze": {"count": 1},
    "events": {"count": 12, "least": 1, "most": 20, "reported": 0.5},
    "carrier": {"least": 2, "most": 20, "loss": 0.05, "twice": 0.01},
    "messages": {"loss": 0.01, "twice": 0.02},
    "relays": {"esam": 0.5, "plain_too": True, "trip_delay_minutes": 5, "pressed": 0.9},
    "meter_clock_off": {"fraction": 0.1, "seconds": 3600},
    "meter_clock_lost": {"fraction": 0.1},
}


def single(bench: Bench) -> list[MeterPlan]:
    return [meter for meter in bench.plan.meters if meter.meter_class == "single_phase"]


def values(bench: Bench, day: date = DAY) -> dict[int, tuple[int | None, ...]]:
    """pn -> registers of all single-phase points that the terminal has a value for, asked one by one."""
    found = {}
    for meter in single(bench):
        outcome = bench.ask(messages.read_frozen(161, [meter.pn], day))
        if isinstance(outcome, Answered):
            for row in midnight.rows(outcome.frames[0])[0]:
                if row[3] is not None:
                    found[row[0]] = row[4]
    return found


def truth(meter: MeterPlan, day: date = DAY) -> tuple[int, ...]:
    return tuple(value * 100 for value in meter.at_midnight(Quantity.FORWARD_ACTIVE, day + timedelta(days=1)))


def freeze_of(bench: Bench, meter: MeterPlan, di: str) -> bytes:
    master = MeterMaster(reply_timeout=1.0, repeats=0)
    content = master.send(ReadRequest(meter.address, di), 0.0)
    outcome = bench.ask(messages.forward(meter.port, content, 60, 100))
    assert isinstance(outcome, Answered)
    forwarded = messages.decode(outcome.frames[0])[0].value
    assert isinstance(forwarded, messages.Forwarded)
    master.receive_data(forwarded.content, 0.1)
    answer = master.next_event()
    assert isinstance(answer, MeterAnswered)
    return answer.data


# -- reading and dealing ---------------------------------------------------------------------------


def test_a_file_of_all_faults_is_read_from_json_and_toml(tmp_path: Path) -> None:
    as_json = tmp_path / "faults.json"
    as_json.write_text(json.dumps(EVERYTHING))
    as_toml = tmp_path / "faults.toml"
    tables = [
        f"[{name}]\n" + "\n".join(f"{key} = {json.dumps(value)}" for key, value in table.items())
        for name, table in EVERYTHING.items()
        if isinstance(table, dict)
    ]
    as_toml.write_text("seed = 3\n" + "\n".join(tables))
    faults = load(as_json)
    assert faults == load(as_toml)
    assert all(getattr(faults, entry.name) is not None for entry in fields(Faults))
    assert faults.delay == Delay(0, 3, 0.5)


@pytest.mark.parametrize(
    ("table", "told"),
    [
        ([], "the file: must be a table"),
        ({"corupt": {"fraction": 0.1}}, "corupt: no such key; there are seed, pace"),
        ({"corrupt": {"share": 0.1}}, "corrupt.share: no such key; there are fraction"),
        ({"corrupt": {}}, "corrupt.fraction: is missing"),
        ({"corrupt": 0.1}, "corrupt: must be a table"),
        ({"corrupt": {"fraction": 2}}, "corrupt.fraction: must be between 0 and 1, not 2"),
        ({"corrupt": {"fraction": "much"}}, "corrupt.fraction: must be a number, not 'much'"),
        ({"cut": {"count": 1.5}}, "cut.count: must be a whole number, not 1.5"),
        ({"cut": {"count": True}}, "cut.count: must be a whole number, not True"),
        ({"cut": {"count": -1}}, "cut.count: must be at least 0, not -1"),
        ({"relays": {"plain_too": 1}}, "relays.plain_too: must be true or false, not 1"),
        ({"relays": {"pressed": 1.5}}, "relays.pressed: must be between 0 and 1, not 1.5"),
        ({"carrier": {"least": 1, "most": 2, "loss": 2}}, "carrier.loss: must be between 0 and 1, not 2"),
        ({"delay": {"least": 3, "most": 1}}, "delay.most: must be at least 3, not 1"),
        ({"pace": {"done_from": "x", "done_until": "05:00"}}, "pace.done_from: must be HH:MM, not 'x'"),
        ({"pace": {"done_from": "05:00", "done_until": "04:00"}}, "pace.done_until: must be at least"),
    ],
)
def test_a_wrong_file_is_told_by_its_key(tmp_path: Path, table: object, told: str) -> None:
    with pytest.raises(FaultsError) as raised:
        from_table(table)
    assert str(raised.value).startswith(told)
    path = tmp_path / "wrong.json"
    path.write_text(json.dumps(table))
    with pytest.raises(FaultsError) as raised:
        load(path)
    assert str(raised.value).startswith(f"{path}: {told}")


def test_a_file_that_is_none_is_told_by_its_name(tmp_path: Path) -> None:
    for name, text in (("a.json", "{"), ("a.toml", "= 3")):
        (tmp_path / name).write_text(text)
        with pytest.raises(FaultsError, match=name):
            load(tmp_path / name)
    with pytest.raises(FaultsError, match=r"missing\.json"):
        load(tmp_path / "missing.json")


def test_faults_are_dealt_out_the_same_every_time_and_as_many_as_wanted() -> None:
    faults = from_table(EVERYTHING)
    district = District(7, 40, 1000, DAY, swapped=5, clashes=1)
    dealt = deal(faults, district)
    assert dealt == deal(faults, District(7, 40, 1000, DAY, swapped=5, clashes=1))
    assert dealt != deal(replace(faults, seed=4), district)
    mine = [its for _, its in dealt]
    assert sum(len(its.vanish_after) for its in mine) == 20
    assert sum(len(its.cut_answers) for its in mine) == 3
    assert sum(len(its.late_answers) for its in mine) == 10
    assert sum(its.push for its in mine) == 2
    assert sum(its.impostor for its in mine) == 1
    singled_out = [plan.address for plan, its in dealt if its.absent_until or its.clock_off or its.push]
    singled_out += [plan.address for plan, _ in dealt if plan.stale]
    singled_out += [impostor.address for impostor in district.impostors]
    assert len(singled_out) == len(set(singled_out))


def test_more_faults_than_terminals_are_dealt_round_and_round() -> None:
    faults = Faults(cut=Count(3), late=Count(4), push=Push(9), vanish=CountBetween(5))
    dealt = deal(faults, District(7, 2, 20, DAY))
    mine = [its for _, its in dealt]
    assert sum(len(its.late_answers) for its in mine) == 4
    assert sum(len(its.vanish_after) for its in mine) == 5
    assert all(its.push for its in mine)


# -- each one fires --------------------------------------------------------------------------------


def test_without_faults_nothing_is_counted_but_traffic() -> None:
    bench = bench_with(Faults())
    bench.log_in()
    assert values(bench) == {meter.pn: truth(meter) for meter in single(bench)}
    assert set(bench.counts) == {"requests", "logins"}


def test_not_ready_points_get_their_value_in_time() -> None:
    bench = bench_with(Faults(not_ready=NotReady(0.5, 100.0)))
    bench.log_in()
    early = values(bench)
    assert 0 < len(early) < len(single(bench))
    assert bench.counts["not_ready"] > 0
    bench.run(100)
    assert values(bench) == {meter.pn: truth(meter) for meter in single(bench)}


def test_filler_points_stay_empty_but_their_meters_answer() -> None:
    bench = bench_with(Faults(filler=Fraction(0.5)))
    bench.log_in()
    had = values(bench)
    empty = [meter for meter in single(bench) if meter.pn not in had]
    assert empty
    assert bench.counts["filler"] >= len(empty)
    frozen = empty[0].at_midnight(Quantity.FORWARD_ACTIVE, date(2026, 11, 24))
    assert freeze_of(bench, empty[0], "05060101") == b"".join(
        bytes.fromhex(f"{value:08d}")[::-1] for value in frozen
    )
    assert len(values(bench, DAY - timedelta(days=1))) == len(single(bench))


def test_silence_leaves_requests_unanswered() -> None:
    bench = bench_with(Faults(silence=Fraction(1.0)))
    bench.log_in()
    assert isinstance(bench.ask(messages.read_clock()), Silent)
    assert bench.counts["silence"] == 3


def test_delay_holds_answers_back() -> None:
    bench = bench_with(Faults(delay=Delay(2.0, 3.0)))
    bench.log_in()
    asked_at = bench.now
    assert isinstance(bench.ask(messages.read_clock()), Answered)
    assert 2.0 <= bench.now - asked_at <= 3.2
    assert bench.counts["delay"] == 1


@given(st.integers(0, 10_000), st.floats(0, 1), st.floats(0, 1), st.floats(0, 2))
@settings(max_examples=30, deadline=None)
def test_a_line_that_splits_merges_and_delays_loses_no_byte_and_no_order(
    seed: int, split: float, merge: float, most: float
) -> None:
    faults = Faults(seed=seed, split=Fraction(split), merge=Fraction(merge), delay=Delay(0.0, most))
    bench = bench_with(faults, meters=20)
    for _ in range(4):
        bench.log_in()
        assert isinstance(bench.ask(messages.read_frozen(161, [m.pn for m in single(bench)], DAY)), Answered)
    assert bench.events(Damaged) == []
    assert bench.endings == []


def test_corrupt_frames_are_damage_to_the_master() -> None:
    bench = bench_with(Faults(corrupt=Fraction(0.3)))
    bench.run(600)
    assert bench.counts["corrupt"] > 0
    assert bench.events(Damaged)
    assert bench.terminal.state is State.HERE


def test_split_frames_arrive_in_pieces_and_whole() -> None:
    bench = bench_with(Faults(split=Fraction(1.0)))
    bench.log_in()
    before = len(bench.writes)
    outcome = bench.ask(messages.read_frozen(161, [meter.pn for meter in single(bench)[:8]], DAY))
    assert isinstance(outcome, Answered)
    assert len(bench.writes) - before > 1
    assert bench.counts["split"] == 2


def test_merged_frames_arrive_in_one_write() -> None:
    faults = Faults(merge=Fraction(0.6), double_login=Count(1))
    bench = bench_with(faults)
    bench.log_in()
    for _ in range(10):
        assert isinstance(
            bench.ask(messages.read_frozen(161, [meter.pn for meter in single(bench)], DAY)), Answered
        )
    assert bench.counts["merge"] > 0


def test_a_vanished_line_ends_without_a_word_and_the_terminal_dials_anew() -> None:
    bench = bench_with(Faults(vanish=CountBetween(2, 10, 30)))
    bench.run(60)
    assert bench.endings == [Ending.VANISH, Ending.VANISH]
    assert bench.links == 3
    assert bench.counts["vanish"] == 2
    assert bench.terminal.state is State.HERE


def test_a_cut_line_breaks_in_the_middle_of_an_answer() -> None:
    bench = bench_with(Faults(cut=Count(1)))
    bench.log_in()
    collected = {}
    for meter in single(bench)[:8]:
        outcome = bench.ask(messages.read_frozen(161, [meter.pn], DAY))
        collected[meter.pn] = isinstance(outcome, Answered)
    assert bench.endings == [Ending.ABORT]
    assert bench.counts["cut"] == 1
    assert bench.links == 2


def test_a_double_login_is_sent_twice() -> None:
    bench = bench_with(Faults(double_login=Count(1)))
    bench.log_in()
    bench.run(1)
    logins = [event for event in bench.events(Spontaneous) if isinstance(event, Spontaneous)]
    assert len(logins) == 2
    assert logins[0].raw == logins[1].raw
    assert bench.counts["double_login"] == 1


@pytest.mark.parametrize("days", [1, -1])
def test_a_clock_a_day_off_keeps_values_under_the_wrong_day_until_it_is_set(days: int) -> None:
    bench = bench_with(Faults(clock_off=CountSeconds(1, days * 86_400.0)))
    bench.log_in()
    outcome = bench.ask(messages.read_clock())
    assert isinstance(outcome, Answered)
    clock = messages.decode(outcome.frames[0])[0].value
    assert isinstance(clock, messages.Clock)
    assert clock.at is not None
    assert clock.at.date() == date(2026, 11, 24) + timedelta(days=days)
    shown = values(bench)
    if days > 0:
        assert shown == {meter.pn: truth(meter, DAY - timedelta(days=1)) for meter in single(bench)}
    else:
        assert shown == {}
    assert bench.counts["clock_off"] > 0
    bench.ask(messages.set_clock(datetime(2026, 11, 24, 9, 0) + timedelta(seconds=bench.now - MORNING)))
    assert values(bench) == {meter.pn: truth(meter) for meter in single(bench)}
    assert bench.counts["clock_set"] == 1


def test_a_swapped_meter_answers_itself_while_the_terminal_gives_the_old_ones_values() -> None:
    bench = bench_with(Faults(swapped=Count(1)))
    bench.log_in()
    new = next(meter for meter in bench.plan.meters if meter.installed)
    (old,) = bench.plan.stale
    assert values(bench)[new.pn] == truth(old) != truth(new)
    assert bench.counts["swapped"] > 0
    assert freeze_of(bench, new, "05060001") == bytes.fromhex("0000241126")
    record = bench.terminal.store.archive[new.pn]
    assert record.address == old.address
    permit = Permit("376 04 f10", bench.plan.address, "test")
    bench.ask(messages.write_archive([replace(record, address=new.address)], permit=permit))
    assert values(bench)[new.pn] == truth(new)


def test_a_late_answer_comes_with_the_next_exchange() -> None:
    bench = bench_with(Faults(late=Count(1)))
    bench.log_in()
    outcomes = [bench.ask(messages.read_frozen(161, [meter.pn], DAY)) for meter in single(bench)[:6]]
    assert sum(isinstance(outcome, Silent) for outcome in outcomes) == 1
    assert sum(isinstance(outcome, Answered) for outcome in outcomes) == 5
    assert len(bench.events(Late)) == 1
    assert bench.counts["late"] == 1


def test_an_impostor_logs_in_with_the_same_address_and_other_meters() -> None:
    faults = Faults(clash=Count(1))
    honest, impostor = (bench_with(faults, number=number) for number in (0, 1))
    for bench in (honest, impostor):
        bench.log_in()
    assert honest.plan.address == impostor.plan.address
    assert not set(values(honest).values()) & set(values(impostor).values())
    assert impostor.counts["clash"] == 1
    assert honest.counts["clash"] == 0


def test_tasks_are_pushed_again_until_they_are_confirmed() -> None:
    bench = bench_with(Faults(push=Push(1)))
    bench.log_in()
    bench.confirms = False
    bench.run(2.5 * PUSH_REPEAT)
    assert bench.counts["push"] == 1
    assert bench.counts["push_repeated"] == 2
    assert bench.counts["push_confirmed"] == 0
    bench.confirms = True
    bench.run(6 * PUSH_REPEAT)
    pushed: dict[int, tuple[int | None, ...]] = {}
    for event in bench.events(Spontaneous):
        assert isinstance(event, Spontaneous)
        if event.frame.afn == 0x0D:
            assert event.frame.con
            pushed |= {row[0]: row[4] for row in midnight.rows(event.frame)[0]}
    assert pushed == {meter.pn: truth(meter) for meter in single(bench)}
    assert bench.counts["push"] == bench.counts["push_confirmed"] > 1


def test_trusting_terminals_push_once_and_ask_for_no_confirm() -> None:
    told: list[Pushed] = []
    bench = bench_with(Faults(push=Push(1, trusting=1, points=2, after=1, pause=0.5)), pushes=told.append)
    bench.log_in()
    bench.run(60)
    meters = [meter.number for meter in single(bench)]
    assert [number for one in told for number in one.meters] == meters
    assert {(one.what, len(one.meters)) for one in told[:-1]} == {("sent", 2)}
    heard = [event for event in bench.heard if isinstance(event, Spontaneous)]
    frames = [event.frame for event in heard if event.frame.afn == 0x0D]
    assert len(frames) == len(told)
    assert not any(frame.con for frame in frames)


def test_it_is_told_what_was_pushed_and_what_of_it_was_confirmed() -> None:
    told: list[Pushed] = []
    bench = bench_with(Faults(push=Push(1, points=5)), pushes=told.append)
    bench.log_in()
    bench.confirms = False
    bench.run(2.5 * PUSH_REPEAT)
    assert [one.what for one in told] == ["sent"]
    bench.confirms = True
    bench.run(2 * PUSH_REPEAT)
    assert [one.what for one in told] == ["sent", "confirmed"] * (len(told) // 2)
    assert all(sent.frame == confirmed.frame for sent, confirmed in zip(told[::2], told[1::2], strict=True))
    meters = [meter.number for meter in single(bench)]
    assert [number for one in told[1::2] for number in one.meters] == meters


def test_meters_that_missed_midnights_count_their_freezes_otherwise() -> None:
    bench = bench_with(Faults(missed_freeze=Count(1)))
    bench.log_in()
    ((_, mine),) = deal(Faults(missed_freeze=Count(1)), District(7, 1, 60, DAY))
    meter = next(meter for meter in bench.plan.meters if meter.pn in mine.missed_freeze)
    assert freeze_of(bench, meter, "05060001") == bytes.fromhex("0000241126")
    assert freeze_of(bench, meter, "05060002") == bytes.fromhex("0000221126")
    assert bench.counts["missed_freeze"] == 2


def test_a_paced_night_is_told_apart_from_faults() -> None:
    bench = bench_with(Faults(pace=Pace("20:00", "20:00")))
    bench.log_in()
    assert 0 < len(values(bench)) < len(single(bench))
    assert bench.counts["not_yet"] > 0
    assert bench.counts["not_ready"] == 0
    assert isinstance(bench.ask(messages.read_frozen(161, [single(bench)[-1].pn], DAY)), Answered | Denied)
