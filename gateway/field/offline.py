"""A meter's registers on a direct line, dated: frozen at a midnight, and as they are now."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from gateway.clock import business_day, from_device, to_device
from gateway.errors import InputError
from gateway.field.line import MeterLine
from gateway.field.reading import Item, NoItem, edition_of, read_item
from gateway.model import Kind, Quality, Quantity, Reason
from protocols.dlt645 import items
from protocols.dlt645.fields import EDITION_1997, EDITION_2007
from protocols.errors import RemoteProtocolError

FREEZES_KEPT: Final = 62
"""Daily freezes that a meter holds: DI0 01H (the newest) to 3EH."""

PROBES: Final = 12
"""Freeze times looked at for one midnight; halving 62 takes six."""

NEAR_MIDNIGHT: Final = timedelta(hours=1)
"""So near a midnight the meter may freeze anew between two questions, and its numbering moves by one."""

CLOCK_TOLERANCE_S: Final = 300.0
"""A meter's clock that is off by more is said beside its readings."""

CLOCK_OTHER_DAY_S: Final = 3600.0
"""A meter whose clock is off by more froze at another time than the midnight that it names."""

LATE: Final = timedelta(hours=24)
"""Read so long after its midnight, a freeze is marked."""

FREEZE_TIME: Final = "050600"
FREEZE_OF: Final[dict[Quantity, str]] = {
    Quantity.FORWARD_ACTIVE: "050601",
    Quantity.REVERSE_ACTIVE: "050602",
    Quantity.REACTIVE_Q1: "050605",
    Quantity.REACTIVE_Q2: "050606",
    Quantity.REACTIVE_Q3: "050607",
    Quantity.REACTIVE_Q4: "050608",
}
"""DI3 DI2 DI1 of the daily freeze (2007)."""

PRESENT_OF: Final[dict[str, dict[Quantity, tuple[str, str]]]] = {
    EDITION_2007: {
        Quantity.FORWARD_ACTIVE: ("0001ff00", "00010000"),
        Quantity.REVERSE_ACTIVE: ("0002ff00", "00020000"),
        Quantity.REACTIVE_Q1: ("0005ff00", "00050000"),
        Quantity.REACTIVE_Q2: ("0006ff00", "00060000"),
        Quantity.REACTIVE_Q3: ("0007ff00", "00070000"),
        Quantity.REACTIVE_Q4: ("0008ff00", "00080000"),
    },
    EDITION_1997: {
        Quantity.FORWARD_ACTIVE: ("901f", "9010"),
        Quantity.REVERSE_ACTIVE: ("902f", "9020"),
    },
}
"""By edition, the present register as a block with its tariffs, and its total alone."""

DATE_AND_TIME: Final = {EDITION_2007: ("04000101", "04000102"), EDITION_1997: ("c010", "c011")}


@dataclass(frozen=True, slots=True)
class Register:
    """What a meter said of one register."""

    address: str
    quantity: Quantity
    kind: Kind
    frozen_at: datetime
    """UTC; for LIVE the time of read"""
    values: tuple[int | None, ...]
    """total, t1, t2 …, integers of 0.0001 kWh (kvarh); the total is there"""
    quality: Quality
    read_at: datetime
    """UTC, by our clock"""
    clock_offset_s: float | None
    """the meter's clock minus ours; None: it did not tell its clock"""


@dataclass(frozen=True, slots=True)
class NoRegister:
    """Why there is none. detail: for a person."""

    address: str
    quantity: Quantity
    kind: Kind
    reason: Reason
    detail: str


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a meter is asked for. midnight: UTC, the one whose freezes are wanted."""

    midnight: datetime
    frozen: tuple[Quantity, ...]
    present: tuple[Quantity, ...]


@dataclass(frozen=True, slots=True)
class _Meter:
    """The meter at hand. address: as it says it itself, where wildcards were asked for."""

    line: MeterLine
    address: str
    edition: str
    offset_s: float | None


def quantity_of(word: str) -> Quantity:
    """InputError where `word` is no quantity that a meter gives on a line."""
    for quantity in FREEZE_OF:
        if word == quantity.label:
            return quantity
    known = ", ".join(quantity.label for quantity in FREEZE_OF)
    raise InputError(
        f"{word!r} is neither an address of 12 digits nor a register 既非表地址也非电量类型: {known}"
    )


async def read_registers(
    line: MeterLine, address: str, edition: str | None, wanted: Wanted
) -> AsyncIterator[Register | NoRegister]:
    """Each register of one meter as it is read, those wanted that it does not give with the reason. edition:
    None where it is to be found out. LinkClosed."""
    if edition is None:
        found = await edition_of(line, address)
        if found is None:
            for kind, quantities in ((Kind.DAY, wanted.frozen), (Kind.LIVE, wanted.present)):
                for quantity in quantities:
                    detail = f"{address} answers in neither edition"
                    yield NoRegister(address, quantity, kind, Reason.METER_SILENT, detail)
            return
        edition = found.edition
    meter = await _acquaint(line, address, edition)
    if wanted.frozen:
        async for told in _frozen(meter, wanted.frozen, wanted.midnight):
            yield told
    for quantity in wanted.present:
        yield await _present(meter, quantity)


async def _acquaint(line: MeterLine, address: str, edition: str) -> _Meter:
    """Ask for the clock: date, then time, and both again where a midnight may lie between them."""
    date_di, time_di = DATE_AND_TIME[edition]
    offset_s = None
    for _ in range(2):
        date = await read_item(line, address, date_di)
        asked = line.clock.now()
        time = await read_item(line, address, time_di)
        heard = line.clock.now()
        if isinstance(date, Item):
            address = date.meter
        shown = _clock(date, time)
        if shown is None:
            break
        offset_s = (from_device(shown) - (asked + (heard - asked) / 2)).total_seconds()
        if shown.hour or shown.minute:
            break
    return _Meter(line, address, edition, offset_s)


def _clock(date: Item | NoItem, time: Item | NoItem) -> datetime | None:
    """Out of `2026-11-24 02` (a weekday behind) and `12:34:56`."""
    day, clock = _text(date), _text(time)
    if day is None or clock is None:
        return None
    try:
        return datetime.fromisoformat(f"{day.split()[0]} {clock}")
    except ValueError:
        return None


def _text(item: Item | NoItem) -> str | None:
    return item.values[0].value if isinstance(item, Item) and item.values else None


async def _frozen(
    meter: _Meter, quantities: tuple[Quantity, ...], midnight: datetime
) -> AsyncIterator[Register | NoRegister]:
    number = await _number_of(meter, midnight)
    for quantity in quantities:
        if isinstance(number, NoItem):
            yield NoRegister(meter.address, quantity, Kind.DAY, number.reason, number.detail)
            continue
        began = meter.line.clock.now()
        told = await _register(
            meter, f"{FREEZE_OF[quantity]}{number:02x}", quantity, Kind.DAY, frozen_at=midnight
        )
        if isinstance(told, Register) and _near_midnight(began):
            again = await _frozen_at(meter, number)
            if again != to_device(midnight):
                detail = "the meter froze anew while it was read; read it again"
                told = NoRegister(meter.address, quantity, Kind.DAY, Reason.WRONG_DATE, detail)
        yield told


async def _number_of(meter: _Meter, midnight: datetime) -> int | NoItem:
    """The number of that midnight's freeze. Freezes may be missing (no supply) or further ones stand between
    (someone froze by command), so counting days only tells where to begin."""
    if meter.edition != EDITION_2007:
        return NoItem(
            Reason.NOT_SUPPORTED, "meters of 1997 keep no daily freeze; the present register is kept"
        )
    if meter.offset_s is not None and abs(meter.offset_s) > CLOCK_OTHER_DAY_S:
        off = f"{meter.offset_s:.0f} s"
        detail = f"the meter's clock, or this computer's, is off by {off}: its midnight may be another"
        return NoItem(Reason.WRONG_DATE, detail)
    wanted = to_device(midnight)
    guess = (business_day(meter.line.clock.now()) - business_day(midnight)).days + 1
    low, high = 1, FREEZES_KEPT
    for probe in range(PROBES):
        if low > high:
            break
        number = min(max(guess, low), high) if probe < 2 else (low + high) // 2
        time = await _frozen_at(meter, number)
        if isinstance(time, NoItem):
            return time
        if time == wanted:
            return number
        if time is None or time < wanted:  # so far back there is none, or it is older: nearer to now
            high = number - 1
        else:
            low = number + 1
        guess = number + (0 if time is None else (time - wanted).days)
    return NoItem(Reason.METER_FREEZE_MISSING, f"no freeze of {wanted:%Y-%m-%d %H:%M}")


async def _frozen_at(meter: _Meter, number: int) -> datetime | NoItem | None:
    """When freeze `number` was made, by the meter's wall clock; None where it has no such freeze."""
    item = await read_item(meter.line, meter.address, f"{FREEZE_TIME}{number:02x}")
    if isinstance(item, NoItem):
        return None if item.reason is Reason.METER_REFUSED and "no such data" in item.detail else item
    text = _text(item)
    try:
        return None if text is None else datetime.fromisoformat(text)
    except ValueError:
        return NoItem(Reason.DAMAGED, f"freeze {number} has the time {text}")


async def _present(meter: _Meter, quantity: Quantity) -> Register | NoRegister:
    """The block with tariffs; the total alone of a meter that has no block."""
    dis = PRESENT_OF[meter.edition].get(quantity)
    if dis is None:
        detail = f"meters of {meter.edition} are not asked for {quantity.label}"
        return NoRegister(meter.address, quantity, Kind.LIVE, Reason.NOT_SUPPORTED, detail)
    told = await _register(meter, dis[0], quantity, Kind.LIVE)
    if isinstance(told, NoRegister) and told.reason is Reason.METER_REFUSED:
        return await _register(meter, dis[1], quantity, Kind.LIVE)
    return told


async def _register(
    meter: _Meter, di: str, quantity: Quantity, kind: Kind, *, frozen_at: datetime | None = None
) -> Register | NoRegister:
    item = await read_item(meter.line, meter.address, di)
    read_at = meter.line.clock.now().replace(microsecond=0)
    if isinstance(item, NoItem):
        return NoRegister(meter.address, quantity, kind, item.reason, item.detail)
    try:
        values = items.energies(item.raw)
    except RemoteProtocolError as error:
        return NoRegister(meter.address, quantity, kind, Reason.DAMAGED, error.reason)
    if values[0] is None:
        missing = Reason.METER_FREEZE_MISSING if kind is Kind.DAY else Reason.BAD_VALUE
        return NoRegister(meter.address, quantity, kind, missing, "the register has no value")
    at = read_at if frozen_at is None else frozen_at
    return Register(
        item.meter, quantity, kind, at, values, _quality(meter, at, read_at), read_at, meter.offset_s
    )


def _quality(meter: _Meter, frozen_at: datetime, read_at: datetime) -> Quality:
    if meter.offset_s is not None and abs(meter.offset_s) > CLOCK_TOLERANCE_S:
        return Quality.CLOCK_OFF
    return Quality.LATE_READ if read_at > frozen_at + LATE else Quality.GOOD


def _near_midnight(instant: datetime) -> bool:
    wall = to_device(instant)
    return (wall - NEAR_MIDNIGHT).date() != (wall + NEAR_MIDNIGHT).date()
