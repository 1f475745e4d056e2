"""A meter asked through its terminal: the midnight found by its time, and only the right meter believed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from gateway.clock import Clock, frozen_at, to_device
from gateway.model import Failure, Kind, Quality, Quantity, Reason, Source, TerminalAssets
from gateway.session.meter import (
    PROBES,
    MeterItem,
    MeterRefusal,
    confirms,
    read_item,
    read_meter_freeze,
)
from gateway.session.settings import SessionSettings
from protocols.dlt645 import frame as frame645
from protocols.dlt645 import messages as messages645
from protocols.q_gdw376 import messages
from protocols.q_gdw376.frame import Frame, build, parse
from protocols.q_gdw376.messages import encode_unit
from tests.gateway.session.stage import (
    MIDNIGHT,
    NOON,
    Device,
    Stage,
    assets,
    clock_at,
    due,
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


@dataclass
class HandMeter:
    """A meter with daily freezes by number, 1 the newest: (time, registers of 0.01 kWh)."""

    address: str = meter_address(1)
    freezes: list[tuple[datetime, tuple[int, ...]]] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    answers_as: str | None = None
    before_answer: Callable[[str], None] = lambda di: None

    def reply(self, content: bytes) -> bytes:
        """What it answers to a whole 645 frame; b"" if it is not meant."""
        request = messages645.from_frame(frame645.parse(content))
        assert isinstance(request, messages645.ReadRequest)
        if request.address != self.address:
            return b""
        self.asked.append(request.di)
        self.before_answer(request.di)
        data = self.data(request.di)
        sender = self.answers_as or self.address
        reply: messages645.Message = (
            messages645.ErrorReply(sender, 0x11, 0x02)
            if data is None
            else messages645.ReadReply(sender, request.di, data)
        )
        return frame645.build(messages645.to_frame(reply), lead_in=2)

    def data(self, di: str) -> bytes | None:
        number = int(di[6:], 16)
        if not di.startswith("0506") or not 1 <= number <= len(self.freezes):
            return None
        at, registers = self.freezes[number - 1]
        if di[4:6] == "00":
            return bytes.fromhex(f"{at:%y%m%d%H%M}")[::-1]
        if di[4:6] != "01":
            return None
        return b"".join(bytes.fromhex(f"{register:08d}")[::-1] for register in registers)


def nightly(days: int, last: datetime | None = None) -> Iterator[tuple[datetime, tuple[int, ...]]]:
    """Freezes of so many nights, newest first; each has its day of the year in its registers."""
    midnight = last or to_device(MIDNIGHT)
    for back in range(days):
        at = midnight - timedelta(days=back)
        number = at.timetuple().tm_yday
        yield at, (100_000 + number, 60_000, 40_000 + number)


@asynccontextmanager
async def with_meter(
    meter: HandMeter, clock: Clock | None = None, settings: SessionSettings | None = None
) -> AsyncIterator[tuple[Stage, Device]]:
    async with stage(assets(), clock=clock, settings=settings) as made:
        device = await made.logged_in()
        await made.session().ready()
        device.answers[0x10, 1] = lambda frame: forwarded(meter, frame)
        yield made, device


def forwarded(meter: HandMeter, asked: Frame) -> list[bytes]:
    value = messages.decode(asked)[0].value
    assert isinstance(value, messages.Forward)
    return [encode_unit(0x10, 1, 0, messages.Forwarded(value.port, meter.reply(value.content)))]


async def freeze(made: Stage, at: datetime = MIDNIGHT, quantity: Quantity = Quantity.FORWARD_ACTIVE) -> Any:
    return await read_meter_freeze(made.session(), point(1), due(1, quantity, at=at))


async def test_last_nights_freeze_takes_two_questions() -> None:
    meter = HandMeter(freezes=list(nightly(62)))
    async with with_meter(meter) as (made, device):
        row = await freeze(made)
        yday = to_device(MIDNIGHT).timetuple().tm_yday
        assert row[:10] == (
            1001, 1, 1, MIDNIGHT, (100_000 + yday) * 100, 6_000_000, (40_000 + yday) * 100, None, None, None,
        )  # fmt: skip
        assert row[12:] == (Source.METER, Quality.GOOD)
        assert abs((row[11] - made.clock.now()).total_seconds()) < 5
        assert meter.asked == ["05060001", "05060101"]
        (value, *_) = (unit.value for unit in messages.decode(device.requests(0x10)[0]))
        assert isinstance(value, messages.Forward)
        assert (value.port, value.control, value.message_timeout) == (31, 0x6B, 0x80 | 30)


@pytest.mark.parametrize("back", [0, 1, 6, 30, 61])
@pytest.mark.parametrize("missing", [(), (0,), (3, 4, 5), tuple(range(1, 20)), (2, 9, 17, 33)])
async def test_a_midnight_is_found_by_its_time_however_many_freezes_are_missing(
    back: int, missing: tuple[int, ...]
) -> None:
    freezes = [one for number, one in enumerate(nightly(80)) if number not in missing][:62]
    meter = HandMeter(freezes=freezes)
    wanted = MIDNIGHT - timedelta(days=back)
    async with with_meter(meter) as (made, _):
        found = await freeze(made, wanted)
        held = [at for at, _ in freezes]
        if to_device(wanted) in held:
            yday = to_device(wanted).timetuple().tm_yday
            assert found[3:5] == (wanted, (100_000 + yday) * 100)
        else:
            assert isinstance(found, Failure)
            assert found.reason is Reason.METER_FREEZE_MISSING
        assert len(meter.asked) <= PROBES + 1


async def test_freezes_made_by_command_in_between_do_not_mislead() -> None:
    freezes = list(nightly(40))
    extra = [(at - timedelta(hours=5), registers) for at, registers in freezes]
    meter = HandMeter(freezes=sorted(freezes + extra, reverse=True)[:62])
    wanted = MIDNIGHT - timedelta(days=9)
    async with with_meter(meter) as (made, _):
        row = await freeze(made, wanted)
        assert row[4] == (100_000 + to_device(wanted).timetuple().tm_yday) * 100


async def test_a_register_that_closes_a_month_is_the_freeze_of_that_midnight() -> None:
    meter = HandMeter(freezes=list(nightly(62)))
    first = frozen_at(datetime(2026, 10, 31).date())
    async with with_meter(meter) as (made, _):
        row = await read_meter_freeze(made.session(), point(1), due(1, kind=Kind.MONTH, at=first))
        assert not isinstance(row, Failure)
        assert row[2:4] == (Kind.MONTH, first)


@pytest.mark.parametrize("quantity", [Quantity.FORWARD_REACTIVE, Quantity.REVERSE_REACTIVE])
async def test_what_a_meter_does_not_freeze_is_not_asked(quantity: Quantity) -> None:
    meter = HandMeter(freezes=list(nightly(62)))
    async with with_meter(meter) as (made, _):
        found = await freeze(made, quantity=quantity)
        assert found.reason is Reason.NOT_SUPPORTED
        old = await read_meter_freeze(made.session(), replace(point(1), protocol="dlt645-1997"), due(1))
        assert isinstance(old, Failure)
        assert old.reason is Reason.NOT_SUPPORTED
        assert not meter.asked


async def test_an_empty_freeze_is_missing() -> None:
    meter = HandMeter(freezes=[(at, ()) for at, _ in nightly(3)])
    meter.data = lambda di: b"\xff" * (5 if di[4:6] == "00" else 8)  # type: ignore[method-assign]  # this meter's own
    async with with_meter(meter) as (made, _):
        assert (await freeze(made)).reason is Reason.METER_FREEZE_MISSING


async def test_a_meter_that_freezes_between_two_questions_is_noticed() -> None:
    night = MIDNIGHT + timedelta(days=1)
    now = night - timedelta(seconds=20)
    meter = HandMeter(freezes=list(nightly(10)))

    def freeze_anew(di: str) -> None:
        if di.startswith("050601"):
            meter.freezes.insert(0, (to_device(night), (999_999,)))

    meter.before_answer = freeze_anew
    clock = clock_at(now)
    async with with_meter(meter, clock) as (made, _):
        found = await freeze(made)
        assert found.reason is Reason.WRONG_DATE
        meter.before_answer = lambda di: None
        row = await freeze(made)
        assert row[4] == (100_000 + to_device(MIDNIGHT).timetuple().tm_yday) * 100


async def test_another_meters_answer_is_refused() -> None:
    meter = HandMeter(freezes=list(nightly(62)), answers_as="000000000042")
    async with with_meter(meter) as (made, _):
        found = await freeze(made)
        assert found.reason is Reason.WRONG_METER
        assert "000000000042" in found.detail


async def test_a_refusal_has_its_reasons() -> None:
    async with with_meter(HandMeter()) as (made, _):
        item = await read_item(made.session(), meter_address(1), "04000503")
        assert item == MeterRefusal(Reason.METER_REFUSED, "no such data")
        assert (await freeze(made)).reason is Reason.METER_FREEZE_MISSING


async def test_a_meter_that_is_silent_is_told_in_each_of_the_terminals_ways() -> None:
    settings = SessionSettings(forward_message_timeout_s=1, forward_margin_s=-0.9)
    async with with_meter(HandMeter(address="999999999999"), settings=settings) as (made, device):
        session = made.session()
        empty = await read_item(session, meter_address(1), "00010000")
        device.answers[0x10, 1] = device.deny
        denied = await read_item(session, meter_address(1), "00010000")
        device.answers[0x10, 1] = lambda frame: None
        silent = await read_item(session, meter_address(1), "00010000")
        for refusal in (empty, denied, silent):
            assert isinstance(refusal, MeterRefusal)
            assert refusal.reason is Reason.METER_SILENT
        assert len(device.requests(0x10)) == 3, "forwarding is never repeated by the link"


async def test_a_terminal_that_is_silent_itself_is_told_from_a_silent_meter() -> None:
    settings = SessionSettings(
        forward_message_timeout_s=1, forward_margin_s=-0.9, reply_timeout_s=0.05, repeats=0
    )
    async with with_meter(HandMeter(), settings=settings) as (made, device):
        device.answers.clear()
        refusal = await read_item(made.session(), meter_address(1), "00010000")
        assert isinstance(refusal, MeterRefusal)
        assert refusal.reason is Reason.TERMINAL_SILENT


async def test_a_captured_refusal_to_forward_shows_its_number() -> None:
    async with with_meter(HandMeter()) as (made, device):
        device.answers[0x10, 1] = lambda asked: captured("gw-038", asked, device)
        refusal = await read_item(made.session(), meter_address(1), "00010000")
        assert refusal == MeterRefusal(Reason.TERMINAL_DENIED, "forwarding: ERR 03")


@pytest.mark.parametrize(
    "content", [b"\x68\x01\x02", b"\xfe\xfe\xfe\xfe", bytes(40)], ids=["cut", "lead-in only", "zeros"]
)
async def test_a_damaged_answer_is_no_value(content: bytes) -> None:
    async with with_meter(HandMeter()) as (made, device):
        device.answers[0x10, 1] = lambda asked: [encode_unit(0x10, 1, 0, messages.Forwarded(31, content))]
        refusal = await read_item(made.session(), meter_address(1), "00010000")
        assert isinstance(refusal, MeterRefusal)
        assert refusal.reason in (Reason.DAMAGED, Reason.METER_SILENT)


async def test_an_answer_in_follow_up_frames_is_fetched_whole() -> None:
    parts = [b"\x11" * 200, b"\x22" * 100, b"\x33" * 10]

    def reply(asked: Frame) -> list[bytes]:
        value = messages.decode(asked)[0].value
        assert isinstance(value, messages.Forward)
        request = messages645.from_frame(frame645.parse(value.content))
        answer: messages645.Message
        if isinstance(request, messages645.ReadRequest):
            answer = messages645.ReadReply(request.address, request.di, parts[0][:190], True)
        else:
            assert isinstance(request, messages645.FollowUpRequest)
            more = request.sequence < 2
            part = parts[request.sequence]
            answer = messages645.FollowUpReply(request.address, request.di, part, request.sequence, more)
        raw = frame645.build(messages645.to_frame(answer))
        return [encode_unit(0x10, 1, 0, messages.Forwarded(value.port, raw))]

    async with with_meter(HandMeter()) as (made, device):
        device.answers[0x10, 1] = reply
        item = await read_item(made.session(), meter_address(1), "0fff0001")
        assert isinstance(item, MeterItem)
        assert item.raw == parts[0][:190] + parts[1] + parts[2]
        assert len(device.requests(0x10)) == 3


@pytest.mark.parametrize("di", ["", "xyz", "0001000", "000100000"])
async def test_an_item_that_cannot_be_asked_for_is_said_so(di: str) -> None:
    async with with_meter(HandMeter()) as (made, device):
        refusal = await read_item(made.session(), meter_address(1), di)
        assert isinstance(refusal, MeterRefusal)
        assert refusal.reason is Reason.NOT_SUPPORTED
        assert not device.requests(0x10)


async def test_the_terminals_value_can_be_held_against_the_meters_own_freeze() -> None:
    meter = HandMeter(freezes=list(nightly(62)))
    async with with_meter(meter) as (made, _):
        row = await freeze(made)
        terminal = (*row[:4], row[4] + 99, *row[5:])
        assert await confirms(made.session(), point(1), terminal) is True
        shifted = (*row[:4], row[4] - 100, *row[5:])
        assert await confirms(made.session(), point(1), shifted) is False
        meter.freezes.clear()
        assert await confirms(made.session(), point(1), terminal) is None


# captured answers


def captured(name: str, asked: Frame, device: Device) -> bytes:
    """The capture with PSEQ, MSA and checksum set to the request's; terminal where the test has another."""
    frame = parse(bytes.fromhex(CAPTURES[name]["hex"]))
    return build(replace(frame, pseq=asked.pseq, msa=asked.msa, terminal=device.address))


@pytest.mark.parametrize(
    ("name", "di", "value"),
    [("gw-007", "00010000", "6.78"), ("gw-013", "04000503", "0050"), ("gw-015", "04000503", "0000")],
)
async def test_a_captured_forwarded_answer_gives_the_captures_value(name: str, di: str, value: str) -> None:
    frame = parse(bytes.fromhex(CAPTURES[name]["hex"]))
    address = CAPTURES[name]["expected"]["inner_address"]
    known = TerminalAssets(7, frame.terminal, "default", (replace(point(1), address=address),))
    async with stage(known, clock=noon_clock()) as made:
        device = made.dial(frame.terminal)
        device.answers[0x0C, 2] = device.answers[0x0A, 10] = device.deny
        device.answers[0x09, 1] = device.answers[0x09, 2] = device.deny
        device.answers[0x10, 1] = lambda asked: captured(name, asked, device)
        await device.confirmed(await device.login())
        await until(lambda: made.registry.session(frame.terminal) is not None)
        item = await read_item(made.session(frame.terminal), address, di, 31)
        assert isinstance(item, MeterItem), item
        if name == "gw-007":
            assert (item.values[0][2], item.values[0][3]) == (value, "kWh")
        else:
            assert item.raw[::-1].hex() == value


async def test_a_damaged_answer_is_asked_for_again_without_waiting_out_the_timeout() -> None:
    meter = HandMeter(freezes=list(nightly(62)))
    async with with_meter(meter, clock_at(NOON, 10.0)) as (made, device):
        answers = 0

        def damaged_at_first(asked: Frame) -> bytes:
            nonlocal answers
            answers += 1
            good = device.reply(asked, forwarded(meter, asked))
            return good if answers > 1 else good[:20] + bytes([good[20] ^ 1]) + good[21:]

        device.answers[0x10, 1] = damaged_at_first
        row = await asyncio.wait_for(freeze(made), 2)
        assert row[12] == Source.METER
        first, second, _ = device.requests(0x10)
        assert first.body == second.body
        assert first.pseq != second.pseq


async def test_an_answer_that_stays_damaged_is_no_value() -> None:
    meter = HandMeter(freezes=list(nightly(62)))
    async with with_meter(meter, clock_at(NOON, 20.0)) as (made, device):
        device.answers[0x10, 1] = lambda asked: device.reply(asked, forwarded(meter, asked))[:-1] + b"\x17"
        item = await asyncio.wait_for(read_item(made.session(), meter_address(1), "00010000"), 5)
        assert isinstance(item, MeterRefusal)
        assert item.reason is Reason.DAMAGED
        assert len(device.requests(0x10)) == 3
