"""A simulated meter, asked in bytes by the protocol's own master."""

from __future__ import annotations

from datetime import date, datetime, timedelta

import pytest

from protocols.dlt645 import items
from protocols.dlt645.connection import Answered, Master, Refused, Silent
from protocols.dlt645.messages import ReadAddressRequest, ReadReply, ReadRequest
from simulator.clock import seconds
from simulator.district import District, MeterPlan, Quantity
from simulator.meter import Meter

DAY = date(2026, 11, 23)
NOW = datetime(2026, 11, 24, 13, 5, 7)
DISTRICT = District(7, 1, 60, DAY, swapped=1)


def plan(meter_class: str = "single_phase", odd: bool = True) -> MeterPlan:
    return next(
        meter
        for _, meter in DISTRICT.meters()
        if meter.meter_class == meter_class and meter.key & 1 == odd and not meter.installed
    )


def ask(meter: Meter, request: ReadRequest | ReadAddressRequest) -> Answered | Refused | Silent:
    """One exchange in bytes; Silent where the meter says nothing."""
    master = Master(reply_timeout=1.0, repeats=0)
    meter.receive_data(master.send(request, 0.0), seconds(NOW))
    master.receive_data(meter.data_to_send(), 0.1)
    master.handle_timeout(2.0)
    event = master.next_event()
    assert isinstance(event, Answered | Refused | Silent)
    return event


def read(meter: Meter, di: str) -> list[str | None]:
    answer = ask(meter, ReadRequest(meter.plan.address, di))
    assert isinstance(answer, Answered)
    return [value.value for value in items.decode(di, answer.data)]


def texts(registers: tuple[int, ...]) -> list[str | None]:
    return [f"{value // 100}.{value % 100:02d}" for value in registers]


def test_midnight_freezes_carry_their_time_and_their_registers() -> None:
    meter = Meter(plan())
    for back in (1, 2, 30, 62):
        midnight = date(2026, 11, 25) - timedelta(days=back)
        assert read(meter, f"050600{back:02x}") == [f"{midnight} 00:00"]
        expected = meter.plan.at_midnight(Quantity.FORWARD_ACTIVE, midnight)
        assert read(meter, f"050601{back:02x}") == texts(expected)
    assert isinstance(ask(meter, ReadRequest(meter.plan.address, "0506003f")), Refused)


def test_a_missed_midnight_moves_all_older_freezes_up() -> None:
    meter = Meter(plan(), missed=frozenset({date(2026, 11, 23)}))
    assert read(meter, "05060001") == ["2026-11-24 00:00"]
    assert read(meter, "05060002") == ["2026-11-22 00:00"]
    expected = meter.plan.at_midnight(Quantity.FORWARD_ACTIVE, date(2026, 11, 22))
    assert read(meter, "05060102") == texts(expected)


def test_present_registers_follow_the_clock() -> None:
    meter = Meter(plan())
    now = meter.plan.at(Quantity.FORWARD_ACTIVE, NOW)
    assert read(meter, "0001ff00") == texts(now)
    assert read(meter, "00010000") == texts(now[:1])
    assert read(meter, "04000101") == ["2026-11-24 02"]
    assert read(meter, "04000102") == ["13:05:07"]


def test_the_last_settlement_is_the_first_of_the_month() -> None:
    meter = Meter(plan())
    expected = meter.plan.at_midnight(Quantity.FORWARD_ACTIVE, date(2026, 11, 1))
    assert read(meter, "00010001") == texts(expected[:1])
    expected = meter.plan.at_midnight(Quantity.FORWARD_ACTIVE, date(2025, 12, 1))
    assert read(meter, "0001000c") == texts(expected[:1])


def test_quadrants_of_a_three_phase_meter_sum_to_its_reactive_registers() -> None:
    meter = Meter(plan("three_phase"))
    for combined, first, second in (("03", "05", "08"), ("04", "06", "07")):
        whole, one, other = (read(meter, f"0506{item}01") for item in (combined, first, second))
        sums = [round(float(a or 0) + float(b or 0), 2) for a, b in zip(one, other, strict=True)]
        assert sums == [float(value or 0) for value in whole]


def test_what_a_meter_does_not_have_is_refused_and_what_is_not_for_it_ignored() -> None:
    meter = Meter(plan())
    refused = ask(meter, ReadRequest(meter.plan.address, "05060301"))
    assert isinstance(refused, Refused)
    assert refused.error.reasons == ("no such data",)
    assert isinstance(ask(meter, ReadRequest(meter.plan.address, "00013f00")), Refused)
    assert isinstance(ask(meter, ReadRequest("000000000000", "00010000")), Silent)


def test_a_meter_tells_its_address_to_the_wildcard() -> None:
    meter = Meter(plan())
    told = ask(meter, ReadAddressRequest())
    assert isinstance(told, Answered)
    assert told.address == meter.plan.address
    shortened = "A" * 8 + meter.plan.address[8:]
    assert meter.reply(ReadRequest(shortened, "04000401"), NOW) == ReadReply(
        meter.plan.address, "04000401", bytes.fromhex(meter.plan.address)[::-1]
    )


@pytest.mark.parametrize("odd", [True, False])
def test_history_before_its_first_day_is_filled_or_refused(odd: bool) -> None:
    new = next(meter for _, meter in DISTRICT.meters() if meter.installed)
    meter = Meter(MeterPlan(**{name: getattr(new, name) for name in new.__slots__} | {"key": odd}))
    installed = new.installed
    assert installed is not None
    kept = (NOW.date() - installed).days + 1
    assert read(meter, f"050600{kept:02x}") == [f"{installed} 00:00"]
    answer = ask(meter, ReadRequest(new.address, f"050601{kept + 1:02x}"))
    if odd:
        assert isinstance(answer, Answered)
        assert set(answer.data) == {0xFF}
    else:
        assert isinstance(answer, Refused)
