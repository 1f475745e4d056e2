"""A region grown from a seed: terminals, meters, their registers at any instant, and so its truth.

Equal arguments give equal files, byte for byte, in every process and on every day. Nothing is stored: a
register is a closed formula of meter and time, so any midnight of the past can be asked for at once.
Energies are integers of 0.01 kWh (kvarh), the step that the simulated registers move in.
"""

from __future__ import annotations

import csv
import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from enum import IntEnum
from pathlib import Path
from typing import NamedTuple

FIRST_MIDNIGHT = date(2020, 1, 1)
"""All registers began to move from their start value here, but those of meters installed later."""

HIGHEST_POINT = 2040
"""Q/GDW 376.1: pn runs from 1 to 2040."""

TERMINALS_AN_AREA_CODE = 1000
"""Terminal addresses are unique within one area code of 4 digits."""

FIRST_AREA_CODE = 200
METERS_AN_AREA_CODE = 100_000
"""By so many the first meter's number of a district is further on for each area code that it begins later."""

Registers = tuple[int, ...]
"""Total, then the meter's tariffs 1..M, in 0.01 kWh or kvarh. The tariffs sum to the total."""


class Quantity(IntEnum):
    FORWARD_ACTIVE = 0
    REVERSE_ACTIVE = 1
    FORWARD_REACTIVE = 2
    REVERSE_REACTIVE = 3

    @property
    def label(self) -> str:
        """Name in files: `forward_active`."""
        return self.name.lower()


# Load in thousandths of a day for each of its 24 hours.
_HOUSE = (25, 20, 18, 17, 17, 20, 32, 45, 42, 35, 33, 40, 48, 40, 34, 33, 38, 52, 75, 88, 86, 74, 54, 34)
_BUSINESS = (14, 12, 12, 12, 13, 16, 25, 40, 62, 72, 74, 70, 58, 62, 72, 74, 72, 64, 50, 40, 32, 24, 18, 12)
_SUN = (0, 0, 0, 0, 0, 0, 10, 30, 65, 100, 125, 138, 140, 128, 108, 80, 50, 22, 4, 0, 0, 0, 0, 0)
_LOAD = {"house": _HOUSE, "business": _BUSINESS, "sun": _SUN}

# The tariff in force in each hour, by the number of tariffs: one; day, night; peak, flat, valley; and sharp.
_TARIFF_OF_HOUR = {
    1: (1,) * 24,
    2: (2,) * 6 + (1,) * 16 + (2,) * 2,
    3: (3,) * 7 + (2,) * 3 + (1,) * 2 + (2,) * 6 + (1,) * 4 + (2,) + (3,),
    4: (4,) * 7 + (3,) * 3 + (2,) * 2 + (3,) * 6 + (1,) * 2 + (2,) * 2 + (3,) + (4,),
}


def _shares(load: tuple[int, ...], tariffs: int) -> tuple[int, ...]:
    """Thousandths of a day's energy that each tariff takes."""
    hours = _TARIFF_OF_HOUR[tariffs]
    return tuple(
        sum(weight for weight, tariff in zip(load, hours, strict=True) if tariff == wanted)
        for wanted in range(1, tariffs + 1)
    )


# The columns of meters.csv; write_assets fills them in this order.
_METER_COLUMNS = (
    "meter", "address", "terminal", "pn", "port", "protocol", "tariffs", "class", "role", "relay_kind", "ct",
    "pt", "valid_from", "profile", "cons_no",
)  # fmt: skip

_SHARES = {(shape, m): _shares(load, m) for shape, load in _LOAD.items() for m in _TARIFF_OF_HOUR}


@dataclass(frozen=True, slots=True)
class MeterPlan:
    """One meter where it stands, and the numbers from which its registers follow."""

    number: str
    """permanent asset number; as a rule the address, for gateway meters a longer bar code"""
    address: str
    """communication address, 12 digits, high digit first"""
    pn: int
    port: int
    """31: PLC module; 2: RS-485"""
    tariffs: int
    meter_class: str
    """`single_phase` or `three_phase`"""
    role: str
    """`customer`, `feed_in` or `area_gateway`"""
    relay_kind: str
    ct: int
    customer: str
    key: int
    """32 random bits, of which its daily ups and downs are made"""
    load: str
    """shape of its day, `house` or `business`; feeding in always follows the sun"""
    starts: tuple[int, int, int, int]
    """each quantity's register on its first day, in 0.01, split among the tariffs like a day's use"""
    daily: tuple[int, int, int, int]
    """each quantity's average day, in 0.01"""
    installed: date | None = None
    """None: before all records; else it hangs here from that day's 00:00 on"""
    edition: str = "2007"
    """of DL/T 645; those of the other speak for themselves on a line, not behind a terminal"""

    @property
    def quantities(self) -> tuple[Quantity, ...]:
        """What a business day owes of this meter, with what comes along in the same answer."""
        both_ways = self.role != "customer"
        with_reactive = self.meter_class == "three_phase" or self.ct > 1
        wanted = [Quantity.FORWARD_ACTIVE]
        if both_ways:
            wanted.append(Quantity.REVERSE_ACTIVE)
        if with_reactive:
            wanted.append(Quantity.FORWARD_REACTIVE)
            if both_ways:
                wanted.append(Quantity.REVERSE_REACTIVE)
        return tuple(wanted)

    def at_midnight(self, quantity: Quantity, midnight: date) -> Registers:
        """The registers at 00:00 of `midnight`; until its first day they stand at their start."""
        first = self.installed or FIRST_MIDNIGHT
        day = max(0, midnight.toordinal() - first.toordinal())
        reverse = quantity in (Quantity.REVERSE_ACTIVE, Quantity.REVERSE_REACTIVE)
        shares = _SHARES["sun" if reverse else self.load, self.tariffs]
        # In 1024ths of a day. The register runs up to half a day early, by another amount each midnight: so
        # every day differs from the last and none runs backwards.
        elapsed = (day << 10) + (_mix(self.key, midnight.toordinal()) & 511 if day else 0)
        used = self.daily[quantity] * elapsed
        start = self.starts[quantity]
        tariffs = [start * share // 1000 + used * share // 1_024_000 for share in shares]
        return (sum(tariffs), *tariffs)

    def at(self, quantity: Quantity, instant: datetime) -> Registers:
        """The registers at any instant (naive, Shanghai): within a day they follow the shape of its load."""
        today = instant.date()
        opening = self.at_midnight(quantity, today)
        closing = self.at_midnight(quantity, today + timedelta(days=1))
        reverse = quantity in (Quantity.REVERSE_ACTIVE, Quantity.REVERSE_REACTIVE)
        load = _LOAD["sun" if reverse else self.load]
        hours = _TARIFF_OF_HOUR[self.tariffs]
        second_of_hour = instant.minute * 60 + instant.second
        tariffs = []
        for tariff in range(1, self.tariffs + 1):
            whole = sum(weight for weight, t in zip(load, hours, strict=True) if t == tariff) * 3600
            past = sum(load[hour] for hour in range(instant.hour) if hours[hour] == tariff) * 3600
            if hours[instant.hour] == tariff:
                past += load[instant.hour] * second_of_hour
            used = closing[tariff] - opening[tariff]
            tariffs.append(opening[tariff] + (used * past // whole if whole else 0))
        return (sum(tariffs), *tariffs)


def _mix(key: int, day: int) -> int:
    """A well-mixed number of meter and day; the same in every process, unlike hash()."""
    mixed = (key ^ (day * 0x9E3779B1)) * 0x85EBCA6B & 0xFFFFFFFF
    return (mixed ^ (mixed >> 15)) * 0xC2B2AE35 >> 8 & 0xFFFFFF


@dataclass(frozen=True, slots=True)
class TerminalPlan:
    """One terminal, the meters behind it, and what its archive says where that is out of date."""

    address: str
    """area code, 4 digits, and terminal address, 4 lower-case hex digits"""
    edition: int
    """2009: heartbeats without a clock; 2013: with"""
    area: str
    meters: tuple[MeterPlan, ...]
    stale: tuple[MeterPlan, ...] = ()
    """meters that hang there no more but stand in its archive in place of the real one at that point"""
    receive_buffer: int = 1024
    send_buffer: int = 1024
    """bytes of the longest frame it takes and sends"""
    absent_style: str = "filler"
    """how it says that a point has no value: `filler`, `left_out` or `denied`"""


class TruthRow(NamedTuple):
    meter: str
    quantity: Quantity
    registers: Registers


class District:
    """`terminals` with `meters` in all (gateway meters included), for business day `day`.

    swapped: so many customers got a new meter three days before `day`, and their terminals' archives still
    name the old one. clashes: so many terminals have a second device with the same address and other meters
    (`impostors`); those are in no assets and no truth. area_code: of the first terminals; another one gives
    other addresses to terminals and meters, so that several districts can dial one gateway. ValueError where
    the numbers cannot be met.
    """

    def __init__(
        self,
        seed: int,
        terminals: int,
        meters: int,
        day: date,
        *,
        swapped: int = 0,
        clashes: int = 0,
        area_code: int = FIRST_AREA_CODE,
    ) -> None:
        if terminals < 1 or meters < terminals:
            raise ValueError("there must be at least one terminal, and at least one meter on each")
        if meters > terminals * HIGHEST_POINT:
            raise ValueError(f"a terminal has at most {HIGHEST_POINT} points: use more terminals")
        last_code = area_code + (terminals - 1) // TERMINALS_AN_AREA_CODE
        if area_code < FIRST_AREA_CODE or last_code > 9999:
            raise ValueError(f"area codes are {FIRST_AREA_CODE} to 9999: use fewer terminals or another one")
        if day < FIRST_MIDNIGHT + timedelta(days=62):
            raise ValueError(
                f"the district's meters began on {FIRST_MIDNIGHT}: use a day 62 days later or more"
            )
        if clashes > terminals:
            raise ValueError("more clashes than terminals")
        self.seed = seed
        self.day = day
        least, extra = divmod(meters, terminals)
        grown: list[TerminalPlan] = []
        next_number = 1 + (area_code - FIRST_AREA_CODE) * METERS_AN_AREA_CODE
        for index in range(terminals):
            count = least + (index < extra)
            grown.append(_grow(seed, index, count, next_number, area_code))
            next_number += count
        chance = random.Random(f"{seed}/changes")
        if swapped:
            _swap(grown, swapped, next_number, day - timedelta(days=3), chance)
        self.terminals: tuple[TerminalPlan, ...] = tuple(grown)
        self.impostors: tuple[TerminalPlan, ...] = tuple(
            _impostor(seed, grown[index], index, next_number + swapped + number * HIGHEST_POINT)
            for number, index in enumerate(sorted(chance.sample(range(terminals), clashes)))
        )

    def meters(self) -> Iterator[tuple[TerminalPlan, MeterPlan]]:
        """Every meter that is really there, with its terminal."""
        for terminal in self.terminals:
            for meter in terminal.meters:
                yield terminal, meter

    def meter(self, number: str) -> MeterPlan:
        """The meter of that asset number or address. KeyError where there is none."""
        for _, meter in self.meters():
            if number in (meter.number, meter.address):
                return meter
        raise KeyError(number)

    def registers(self, number: str, quantity: Quantity, day: date) -> Registers:
        """One meter's registers at the midnight that closes business day `day`."""
        return self.meter(number).at_midnight(quantity, day + timedelta(days=1))

    def truth(self, day: date | None = None) -> list[TruthRow]:
        """What every meter held at the midnight that closes business day `day` (the district's own by
        default): the due quantities and those that come along, sorted by meter and quantity's name.
        Meters installed after that midnight have no row."""
        midnight = (day or self.day) + timedelta(days=1)
        rows = [
            TruthRow(meter.number, quantity, meter.at_midnight(quantity, midnight))
            for _, meter in self.meters()
            if meter.installed is None or meter.installed <= midnight
            for quantity in meter.quantities
        ]
        labels = {quantity: quantity.label for quantity in Quantity}
        rows.sort(key=lambda row: (row.meter, labels[row.quantity]))
        return rows

    def write_truth(self, path: Path, day: date | None = None) -> None:
        """CSV of `truth`: meter,quantity,frozen_at,total,t1..t4; kWh with 4 decimals; LF."""
        frozen_at = f"{(day or self.day) + timedelta(days=1)}T00:00:00+08:00"
        labels = {quantity: quantity.label for quantity in Quantity}
        with path.open("w", encoding="utf-8", newline="") as file:
            file.write("meter,quantity,frozen_at,total,t1,t2,t3,t4\n")
            for meter, quantity, registers in self.truth(day):
                cells = ",".join(f"{value // 100}.{value % 100:02d}00" for value in registers)
                missing = "," * (5 - len(registers))
                file.write(f"{meter},{labels[quantity]},{frozen_at},{cells}{missing}\n")

    def write_assets(self, folder: Path, profile: str = "") -> None:
        """terminals.csv and meters.csv, as `lingdian import` reads them; `profile`: of every terminal."""
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "terminals.csv").open("w", encoding="utf-8", newline="") as file:
            rows = csv.writer(file, lineterminator="\n")
            rows.writerow(("terminal", "profile", "organisation", "area"))
            for terminal in self.terminals:
                rows.writerow((terminal.address, profile, "East branch", terminal.area))
        with (folder / "meters.csv").open("w", encoding="utf-8", newline="") as file:
            rows = csv.writer(file, lineterminator="\n")
            rows.writerow(_METER_COLUMNS)
            for terminal, meter in self.meters():
                since = "" if meter.installed is None else f"{meter.installed}T00:00:00+08:00"
                rows.writerow((
                    meter.number, meter.address, terminal.address, meter.pn, meter.port,
                    f"dlt645-{meter.edition}",
                    meter.tariffs, meter.meter_class, meter.role, meter.relay_kind, meter.ct, 1, since, "",
                    meter.customer,
                ))  # fmt: skip


def _grow(
    seed: int, index: int, count: int, first_number: int, first_code: int = FIRST_AREA_CODE
) -> TerminalPlan:
    """Terminal `index` with `count` meters: the gateway meter at point 1, customers above it, a few gaps."""
    chance = random.Random(f"{seed}/terminal/{index}")
    area_code = first_code + index // TERMINALS_AN_AREA_CODE
    address = f"{area_code:04d}{0x1001 + index % TERMINALS_AN_AREA_CODE * 31:04x}"
    customers = []
    pn = 1
    for place in range(1, count):
        left = count - place
        pn += 1
        if HIGHEST_POINT - pn > left and chance.random() < 0.03:
            pn += 1
        customers.append(_customer(chance, pn, first_number + place))
    gateway = _gateway(chance, first_number, customers)
    size = chance.choice((512, 1024, 1024, 2048))
    return TerminalPlan(
        address=address,
        edition=chance.choice((2009, 2013)),
        area=f"Area {index + 1}",
        meters=(gateway, *customers),
        receive_buffer=size,
        send_buffer=size,
        absent_style=chance.choice(("filler", "filler", "filler", "left_out", "left_out", "denied")),
    )


def _customer(chance: random.Random, pn: int, number: int) -> MeterPlan:
    draw = chance.random
    three_phase = draw() < 1 / 12
    feeds_in = draw() < 0.05
    use = int((2000 + draw() * 9000) if three_phase else (150 + draw() * 1500))
    feed = int(500 + draw() * 2500) if feeds_in else 0
    reactive = int(use * (0.15 + draw() * 0.3)) if three_phase else 0
    back_reactive = feed // 10 if three_phase else 0
    starts = (int(draw() * 300_000), 20 * feed, 20 * reactive, 20 * back_reactive)
    address = f"{310_000_000_000 + number:012d}"
    return MeterPlan(
        number=address,
        address=address,
        pn=pn,
        port=31,
        tariffs=4 if three_phase else (1, 1, 2, 2, 2, 3, 4, 4, 4, 4)[int(draw() * 10)],
        meter_class="three_phase" if three_phase else "single_phase",
        role="feed_in" if feeds_in else "customer",
        relay_kind="external_self_closing" if three_phase else "built_in",
        ct=1,
        customer=f"{5_000_000_000 + number}",
        key=int(draw() * (1 << 32)),
        load="business" if three_phase else "house",
        starts=starts,
        daily=(use, feed, reactive, back_reactive),
    )


def _gateway(chance: random.Random, number: int, customers: list[MeterPlan]) -> MeterPlan:
    """The meter at the transformer: its average day is what its customers use and about 3 % of losses."""
    ratio = chance.choice((100, 160, 200, 400))
    use = sum(meter.daily[Quantity.FORWARD_ACTIVE] for meter in customers)
    feed = sum(meter.daily[Quantity.REVERSE_ACTIVE] for meter in customers)
    daily = max(200, int(use * 1.03) // ratio)
    return MeterPlan(
        number=f"{3130001_000000000000000 + number:022d}",
        address=f"{310_000_000_000 + number:012d}",
        pn=1,
        port=2,
        tariffs=4,
        meter_class="three_phase",
        role="area_gateway",
        relay_kind="none",
        ct=ratio,
        customer="",
        key=int(chance.random() * (1 << 32)),
        load="house",
        starts=(int(chance.random() * 500_000), 1000, int(chance.random() * 90_000), 200),
        daily=(daily, feed // ratio, daily // 4, feed // ratio // 10),
    )


def _swap(grown: list[TerminalPlan], count: int, number: int, since: date, chance: random.Random) -> None:
    """Give `count` single-phase customers a new meter that their terminals have not been told of."""
    candidates = [
        (index, place)
        for index, terminal in enumerate(grown)
        for place, meter in enumerate(terminal.meters)
        if meter.meter_class == "single_phase"
    ]
    if count > len(candidates):
        raise ValueError(f"{count} meters to swap, but only {len(candidates)} single-phase customers")
    for index, place in sorted(chance.sample(candidates, count)):
        terminal = grown[index]
        old = terminal.meters[place]
        address = f"{310_000_000_000 + number:012d}"
        number += 1
        new = replace(
            old,
            number=address,
            address=address,
            key=int(chance.random() * (1 << 32)),
            starts=(0, 0, 0, 0),
            installed=since,
        )
        meters = (*terminal.meters[:place], new, *terminal.meters[place + 1 :])
        grown[index] = replace(terminal, meters=meters, stale=(*terminal.stale, old))


def _impostor(seed: int, honest: TerminalPlan, index: int, first_number: int) -> TerminalPlan:
    """Another device with `honest`'s address and as many meters, all of them others."""
    other = _grow(seed + 1, index, len(honest.meters), first_number)
    return replace(other, address=honest.address, area="")
