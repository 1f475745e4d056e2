"""What must not pass a line of ours: control of more than one meter, late control, what writes or clears."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from gateway.errors import LinkClosed
from gateway.transports.link import Taken
from protocols.dlt645 import frame as frame645
from protocols.q_gdw376 import messages
from protocols.q_gdw376.connection import Answered, Denied
from tests.gateway.session.line_stage import METER, PATIENT, TRIP, Alone, forward
from tests.gateway.session.stage import until

# what must not pass


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
