"""What a meter checks before it switches, and what its ledger says of it."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from protocols.dlt645.control_messages import RelayReply, Verb
from protocols.dlt645.frame import BROADCAST, Frame, build
from protocols.dlt645.messages import ErrorReply
from simulator.clock import seconds
from simulator.control import Setup
from simulator.ledger import LedgerFile
from simulator.meter import Meter
from tests.simulator.household import NOON, OPERATOR, Household, digest, plan_of


def decisions(home: Household) -> list[str]:
    return [entry.decision for entry in home.entries if entry.what == "frame"]


@pytest.mark.parametrize(("late_s", "is_obeyed"), [(-1, True), (0, True), (0.5, False), (60, False)])
def test_validity_ends_with_its_deadline(late_s: float, is_obeyed: bool) -> None:
    home = Household()
    command = home.command(Verb.TRIP, deadline=NOON + timedelta(minutes=5))
    home.pass_time(minutes=5, seconds=late_s)
    answer = home.say(command)
    assert isinstance(answer, RelayReply if is_obeyed else ErrorReply)
    assert home.meter.is_open == is_obeyed


@pytest.mark.parametrize(
    ("off_s", "is_obeyed"),
    [(3600.0, False), (-3600.0, True), (seconds(datetime(2000, 1, 1)) - seconds(NOON), True)],
)
def test_validity_is_judged_by_the_meters_own_clock(off_s: float, is_obeyed: bool) -> None:
    home = Household(Setup(clock_off_s=off_s))
    shown = NOON + timedelta(seconds=off_s)
    assert home.read("0400010c")[:3].hex() == f"{shown:%S%M%H}"
    assert home.read("04000101")[1:].hex() == f"{shown:%d%m%y}"
    home.switch(Verb.TRIP)
    assert home.meter.is_open == is_obeyed
    assert home.entries[-1].clock == shown
    home.meter.set_clock(0.0)
    assert home.meter.clock(seconds(NOON)) == NOON


def test_a_command_without_a_deadline_is_refused() -> None:
    home = Household()
    command = home.command(Verb.TRIP)
    endless = Frame(home.address, 0x1C, command.data[:10] + bytes(6))
    assert home.say(endless) == ErrorReply(home.address, 0x1C, 0x04)
    assert decisions(home) == ["deadline invalid"]


@pytest.mark.parametrize(("level", "password"), [("02", "123457"), ("03", "123456"), ("04", "123456")])
def test_a_wrong_password_or_level_is_refused(level: str, password: str) -> None:
    home = Household()
    answer = home.say(home.command(Verb.TRIP, level=level, password=password))
    assert answer == ErrorReply(home.address, 0x1C, 0x04)
    assert decisions(home) == ["password wrong or not authorised"]
    assert not home.meter.is_open


def test_levels_have_passwords_of_their_own() -> None:
    home = Household(Setup(passwords=(("02", "111111"), ("04", "222222"))))
    assert isinstance(home.say(home.command(Verb.TRIP, level="04", password="222222")), RelayReply)
    assert isinstance(home.say(home.command(Verb.CLOSE, level="02", password="222222")), ErrorReply)


def test_it_hangs_up_after_too_many_failures_until_its_own_midnight() -> None:
    home = Household(Setup(lock_after=3, clock_off_s=3600))
    wrong = home.command(Verb.TRIP, password="000000", deadline=NOON + timedelta(days=2))
    right = home.command(Verb.TRIP, deadline=NOON + timedelta(days=2))
    for _ in range(3):
        home.say(wrong)
    home.now = datetime(2026, 11, 24, 22, 59, 59)
    assert isinstance(home.say(right), ErrorReply)
    assert decisions(home)[-1] == "meter suspended until midnight"
    home.pass_time(seconds=1)
    assert isinstance(home.say(right), RelayReply)


@pytest.mark.parametrize("address", [BROADCAST, "AAAAAAAAAAAA", "AAAAAAAA0000"])
def test_a_command_to_many_is_witnessed_and_never_obeyed(address: str) -> None:
    home = Household()
    if address.endswith("0000"):
        address = address[:8] + home.address[8:]
    said = Frame(address, 0x1C, home.command(Verb.TRIP).data)
    assert home.say(said) is None
    assert not home.meter.is_open
    (entry,) = home.entries
    assert (entry.decision, entry.address, entry.frame) == ("not to its own address", address, digest(said))


def test_another_meters_command_is_not_witnessed() -> None:
    home = Household()
    assert home.say(home.command(Verb.TRIP, address="000000000001")) is None
    assert home.entries == []


def test_what_orders_nothing_known_is_refused_and_witnessed() -> None:
    home = Household()
    data = bytearray(home.command(Verb.TRIP).data)
    data[8] = 0x77
    assert home.say(Frame(home.address, 0x1C, bytes(data))) == ErrorReply(home.address, 0x1C, 0x01)
    assert home.say(Frame(home.address, 0x1C, b"\x02")) == ErrorReply(home.address, 0x1C, 0x01)
    assert [entry.verb for entry in home.entries] == ["1c unfit", "1c unfit"]
    assert not home.meter.is_open


def test_the_ledger_has_each_frame_before_the_move_it_led_to() -> None:
    home = Household(Setup(trip_delay_minutes=1))
    trip, permit = home.command(Verb.TRIP), home.command(Verb.PERMIT_CLOSE)
    home.say_raw(b"\xfe\xfe" + build(trip))
    home.pass_time(minutes=2)
    home.say(permit)
    home.meter.press(seconds(home.now))
    told = [
        (e.at - seconds(NOON), e.what, e.frame, e.verb, e.decision, e.is_open, e.trip_ordered, e.button)
        for e in home.entries
    ]
    assert told == [
        (0.0, "frame", digest(trip), "trip", "accepted", False, True, False),
        (60.0, "moved", digest(trip), "trip", "opened", True, True, False),
        (120.0, "frame", digest(permit), "permit-close", "accepted", True, False, True),
        (120.0, "moved", digest(permit), "permit-close", "closed", False, False, False),
        (120.0, "button", "", "", "closed", False, False, False),
    ]
    assert home.entries[0].deadline == NOON + timedelta(minutes=10)
    assert home.entries[0].operator == OPERATOR

    home = Household()
    home.switch(Verb.TRIP)
    assert [entry.what for entry in home.entries] == ["frame", "moved"]


def test_a_command_heard_twice_is_witnessed_twice_and_moves_it_once() -> None:
    home = Household()
    trip = home.command(Verb.TRIP)
    home.say(trip)
    home.say(trip)
    assert decisions(home) == ["accepted", "accepted"]
    assert [what for _, what in home.moves()] == ["opened"]


def test_reads_of_the_position_are_witnessed() -> None:
    home = Household()
    home.read("04000503")
    (entry,) = home.entries
    assert (entry.what, entry.decision) == ("read", "0000")


def test_the_ledger_file_is_synced_line_by_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    monkeypatch.setattr("simulator.ledger.os.fsync", synced.append)
    path = tmp_path / "ledger.jsonl"
    with LedgerFile(path) as ledger:
        assert len(synced) == 1, "the folder: the file itself must not be lost"
        meter = Meter(plan_of(), ledger=ledger)
        home = Household()
        meter.receive_data(build(home.command(Verb.TRIP)), seconds(NOON))
        lines = path.read_text().splitlines()  # there before the answer is taken
        assert len(lines) == 2
        assert len(synced) == 3
    first, second = (json.loads(line) for line in lines)
    assert first["decision"] == "accepted"
    assert first["deadline"] == "2026-11-24T12:10:00"
    assert (second["what"], second["decision"], second["is_open"]) == ("moved", "opened", True)
    with LedgerFile(path) as ledger:
        Meter(plan_of(), ledger=ledger).press(seconds(NOON))
    assert len(path.read_text().splitlines()) == 3
