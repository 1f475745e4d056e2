"""Relay commands through a terminal: forwarding, a slow and lossy way, and what meters are dealt."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from protocols.dlt645 import control, frame
from protocols.dlt645 import messages as meter_messages
from protocols.dlt645.control_messages import RelayCommand, RelayReply, Verb
from protocols.dlt645.fields import Authority
from protocols.dlt645.frame import BROADCAST, Frame
from protocols.dlt645.messages import ReadReply, ReadRequest
from protocols.permit import Permit
from protocols.q_gdw376 import messages
from protocols.q_gdw376.connection import Answered, Confirmed, Denied, Silent
from protocols.q_gdw376.messages import Forwarded, Request, RequestUnit
from simulator.__main__ import main
from simulator.bus import Making
from simulator.clock import seconds, wall
from simulator.control import BASE_2007
from simulator.district import District, MeterPlan
from simulator.faults import Carrier, Faults, Fraction, FractionSeconds, Relays
from simulator.ledger import Entry
from tests.simulator.bench import DAY, MORNING, Bench, Outcome

PLAN = District(7, 1, 60, DAY).terminals[0]
SINGLE = [meter for meter in PLAN.meters if meter.meter_class == "single_phase"]
STATUS = "04000503"
OPEN_AND_ORDERED = (0x50).to_bytes(2, "little")


class Station:
    """A terminal, its master, and what its meters witnessed."""

    def __init__(self, faults: Faults | None = None, style: str = "filler") -> None:
        self.entries: list[Entry] = []
        faults = faults or Faults()
        making = Making(faults, 7, MORNING, self.entries.append)
        self.bench = Bench(replace(PLAN, absent_style=style), faults=faults, making=making)
        self.bench.log_in()

    def ask(self, said: Frame, port: int = 31, patience_s: float = 60) -> Outcome:
        permit = Permit("376 10 f1", self.bench.plan.address, "a test")
        request = messages.forward(port, frame.build(said, lead_in=4), patience_s, 1000)
        return self.bench.ask(replace(request, permit=permit), patience=300.0)

    def reply(self, said: Frame, patience_s: float = 60) -> meter_messages.Message | None:
        """What the meter said; None where the terminal says that it said nothing."""
        outcome = self.ask(said, patience_s=patience_s)
        assert isinstance(outcome, Answered), outcome
        forwarded = messages.decode(outcome.frames[0])[0].value
        assert isinstance(forwarded, Forwarded)
        if not forwarded.content:
            return None
        return meter_messages.from_frame(frame.parse(forwarded.content.lstrip(b"\xfe")))

    def command(self, meter: MeterPlan, verb: Verb, validity: timedelta = timedelta(minutes=10)) -> Frame:
        deadline = (wall(self.bench.now) + validity).replace(microsecond=0)
        command = RelayCommand(meter.address, verb, Authority("02", "123456", "00000001"), deadline)
        return control.build_control(command, Permit(control.action(verb), meter.address, "a test"))

    def word(self, meter: MeterPlan) -> bytes:
        reply = self.reply(meter_messages.to_frame(ReadRequest(meter.address, STATUS)))
        assert isinstance(reply, ReadReply)
        return reply.data

    def seen(self, what: str) -> list[tuple[str, str]]:
        return [(entry.meter, entry.decision) for entry in self.entries if entry.what == what]


def test_a_forwarded_trip_and_close_move_one_meter() -> None:
    station = Station()
    one, other = SINGLE[:2]
    assert isinstance(station.reply(station.command(one, Verb.TRIP)), RelayReply)
    assert station.word(one) == OPEN_AND_ORDERED
    assert station.word(other) == bytes(2)
    assert isinstance(station.reply(station.command(one, Verb.CLOSE)), RelayReply)
    assert station.word(one) == bytes(2)
    assert station.seen("moved") == [(one.address, "opened"), (one.address, "closed")]


def test_a_relay_moves_when_it_is_due_and_not_when_it_is_asked() -> None:
    station = Station(Faults(relays=Relays(trip_delay_minutes=2, pressed=1.0, press_least=60, press_most=60)))
    meter = SINGLE[0]
    station.reply(station.command(meter, Verb.TRIP))
    station.bench.run(200)
    assert station.seen("moved") == [(meter.address, "opened")]
    station.reply(station.command(meter, Verb.PERMIT_CLOSE))
    station.bench.run(100)
    assert station.seen("moved")[1:] == [(meter.address, "closed")]
    trip, opened, permit, closed = station.entries
    assert opened.at == trip.at + 120
    assert closed.at == permit.at + 60


@pytest.mark.parametrize("address", [BROADCAST, "AAAAAAAAAAAA"])
def test_a_control_frame_to_all_is_witnessed_by_all(address: str) -> None:
    station = Station()
    said = Frame(address, 0x1C, station.command(SINGLE[0], Verb.TRIP).data)
    assert station.reply(said) is None
    assert len(station.entries) == len([meter for meter in PLAN.meters if meter.port == 31])
    assert {entry.decision for entry in station.entries} == {"not to its own address"}


def test_reading_on_a_port_is_paused_and_resumed() -> None:
    station = Station()
    for fn in (49, 50):
        permit = Permit(f"376 05 f{fn}", PLAN.address, "a test")
        unit = RequestUnit(0, fn, b"\x1f")
        outcome = station.bench.ask(Request(0x05, (unit,), con=True, password=bytes(16), permit=permit))
        assert isinstance(outcome, Confirmed)
    assert station.bench.counts["port_paused"] == station.bench.counts["port_resumed"] == 1


# -- a way that takes its time --------------------------------------------------------------------


def test_a_carrier_takes_its_time_there_and_back() -> None:
    station = Station(Faults(carrier=Carrier(5, 5)))
    asked = station.bench.now
    station.reply(station.command(SINGLE[0], Verb.TRIP))
    assert station.bench.now == pytest.approx(asked + 5, abs=0.2)
    (entry,) = (entry for entry in station.entries if entry.what == "frame")
    assert asked < entry.at < asked + 5


def test_a_meter_hears_late_what_the_terminal_has_given_up() -> None:
    station = Station(Faults(carrier=Carrier(30, 30)))
    asked = station.bench.now
    assert station.reply(station.command(SINGLE[0], Verb.TRIP), patience_s=1) is None
    assert station.bench.now == pytest.approx(asked + 1, abs=0.2)
    assert station.entries == []
    station.bench.run(30)
    assert station.seen("moved") == [(SINGLE[0].address, "opened")]


def test_late_enough_a_command_is_no_longer_valid() -> None:
    station = Station(Faults(carrier=Carrier(8, 8)))
    said = station.command(SINGLE[0], Verb.TRIP, timedelta(seconds=0))
    assert station.reply(said) is not None
    assert station.seen("frame") == [(SINGLE[0].address, "deadline invalid")]


def test_it_loses_frames_and_answers() -> None:
    station = Station(Faults(carrier=Carrier(1, 2, loss=0.5)))
    replies = [station.reply(station.command(meter, Verb.TRIP), patience_s=5) for meter in SINGLE]
    heard = {address for address, _ in station.seen("frame")}
    answered = sum(reply is not None for reply in replies)
    lost = station.bench.counts["carrier_lost"]
    assert answered + lost == len(SINGLE)
    assert 0 < answered < len(heard) < len(SINGLE), "some are lost on the way there, some on the way back"


def test_it_brings_a_frame_twice() -> None:
    station = Station(Faults(carrier=Carrier(1, 2, twice=1.0)))
    said = station.command(SINGLE[0], Verb.TRIP)
    station.reply(said)
    station.bench.run(10)
    first, second = (entry for entry in station.entries if entry.what == "frame")
    assert first.frame == second.frame
    assert first.at < second.at


def test_a_lost_link_does_not_stop_what_is_on_its_way() -> None:
    station = Station(Faults(carrier=Carrier(5, 5)))
    said = frame.build(station.command(SINGLE[0], Verb.TRIP))
    request = messages.forward(31, said, 60, 1000)
    permit = Permit("376 10 f1", PLAN.address, "a test")
    bench = station.bench
    bench.line.receive_data(bench.master.send(replace(request, permit=permit), bench.now), bench.now)
    bench.line.lost()
    bench.line.dial(bench.now + 1)
    bench.run(10)
    assert station.seen("moved") == [(SINGLE[0].address, "opened")]
    assert bench.events(Answered) == []


@pytest.mark.parametrize(("style", "kind"), [("filler", Answered), ("denied", Denied), ("left_out", Silent)])
def test_a_terminal_tells_of_silence_in_its_own_way(style: str, kind: type[object]) -> None:
    station = Station(Faults(carrier=Carrier(30, 30)), style)
    outcome = station.ask(station.command(SINGLE[0], Verb.TRIP), patience_s=1)
    assert isinstance(outcome, kind)


# -- what meters are dealt ------------------------------------------------------------------------


def test_meters_are_dealt_their_settings_by_address_alone() -> None:
    relays = Relays(
        esam=0.5, plain_too=True, spends_random=True, base_text=0.3, keep_power_permits=0.4,
        current_limit_a=12.5, line_check=5, pressed=0.6, press_least=10, press_most=20,
    )  # fmt: skip
    faults = Faults(
        relays=relays,
        meter_clock_off=FractionSeconds(0.5, -3600),
        meter_clock_lost=Fraction(0.2),
    )
    making = Making(faults, 7, MORNING)
    setups = [making.setup(meter) for meter in PLAN.meters]
    assert setups[::-1] == [Making(faults, 7, MORNING).setup(meter) for meter in reversed(PLAN.meters)]
    for told in (
        {setup.esam for setup in setups},
        {setup.verbs == BASE_2007 for setup in setups},
        {setup.keep_power_closes for setup in setups},
        {setup.press_after_s is None for setup in setups},
    ):
        assert told == {True, False}
    begun_anew = seconds(datetime(2000, 1, 1)) - MORNING
    assert {setup.clock_off_s for setup in setups} == {0.0, -3600.0, begun_anew}
    assert {setup.current_limit_ma for setup in setups} == {12_500}
    assert all(10 <= setup.press_after_s <= 20 for setup in setups if setup.press_after_s is not None)
    assert setups[0].plain == {"02": "123456"}


def test_without_them_every_meter_is_plain_and_right() -> None:
    assert Making().setup(SINGLE[0]).plain == {"02": "123456"}
    assert Making().setup(SINGLE[0]).clock_off_s == 0.0


SIZE = ["district", "--terminals", "1", "--meters", "9", "--day", str(DAY)]


@pytest.mark.parametrize("content", ["", "00", "not hex at all", "00" * 17])
def test_a_wrong_key_file_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str
) -> None:
    key = tmp_path / "key"
    key.write_text(content)
    with pytest.raises(SystemExit, match="2"):
        main([*SIZE, "--esam-key", str(key)])
    assert "does not hold 32 hex digits" in capsys.readouterr().err


def test_a_ledger_that_cannot_be_written_stops_the_start(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / "none" / "ledger"
    assert main([*SIZE, "--connect", "127.0.0.1:9", "--ledger", str(place)]) == 2
    assert str(place) in capsys.readouterr().err


def test_it_names_the_meters_that_were_dealt_something(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    faults = tmp_path / "faults.json"
    faults.write_text(
        '{"relays": {"esam": 1}, "meter_clock_off": {"fraction": 0.5, "seconds": 3600},'
        ' "meter_clock_lost": {"fraction": 0.3}}'
    )
    ledger = tmp_path / "ledger"
    arguments = ["--connect", "127.0.0.1:9", "--seconds", "0.1", "--json", "--faults", str(faults)]
    assert main([*SIZE, *arguments, "--ledger", str(ledger)]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    planned = next(line["faults"] for line in lines if line["event"] == "planned")
    assert len(planned["esam"]) == 9
    off, lost = planned["meter_clock_off"], planned["meter_clock_lost"]
    assert off
    assert lost
    assert not set(off) & set(lost)
    assert ledger.read_bytes() == b""
