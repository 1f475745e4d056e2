"""What a terminal holds: its meter archive, and the midnight values it has read of the meters named there.

Values are asked of the meters' plans when they are wanted first, and each answered data unit is kept as the
bytes it was sent in, so that a sweep costs a look-up a point. A terminal whose clock is whole days off keeps
its values under the wrong days: it reads each meter's last freeze and dates it by itself.
"""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Literal, NamedTuple

from protocols.q_gdw376 import midnight
from protocols.q_gdw376.formats import a20_bytes
from protocols.q_gdw376.identifiers import identifier, points
from protocols.q_gdw376.values import (
    ArchiveRecord,
    PortProgress,
    PresentEnergy,
    ReadingState,
)
from simulator.clock import wall
from simulator.district import MeterPlan, Quantity, Registers, TerminalPlan
from simulator.faults import Faults, TerminalFaults
from simulator.meter import quadrant_registers

DAYS_KEPT = 30
"""Daily values older than this are overwritten; months are kept for a year."""
MONTHS_KEPT = 12

Naming = Literal["ended_day", "freeze_day"]
"""Which date Td_d (Td_m) gives a midnight: the day (month) that it ended, or the one that it opens."""


class _Frozen(NamedTuple):
    """A function of AFN0D. monthly: its tag is a month."""

    fn: int
    quantity: Quantity
    monthly: bool = False


_F1, _F2, _F161, _F163 = b"\x01\x00", b"\x02\x00", b"\x01\x14", b"\x04\x14"
# By the DT of a request's data unit, which is DA, DT and the tag.
_FROZEN = {
    _F1: _Frozen(1, Quantity.FORWARD_ACTIVE),
    _F2: _Frozen(2, Quantity.REVERSE_ACTIVE),
    _F161: _Frozen(161, Quantity.FORWARD_ACTIVE),
    _F163: _Frozen(163, Quantity.REVERSE_ACTIVE),
    b"\x01\x16": _Frozen(177, Quantity.FORWARD_ACTIVE, monthly=True),
    b"\x04\x16": _Frozen(179, Quantity.REVERSE_ACTIVE, monthly=True),
}
_DAY_UNIT = 7
_MONTH_UNIT = 6

_READING_BEGINS = timedelta(minutes=5)
_READING_ENDS = timedelta(minutes=60)
# For each point a unit of some functions for every day kept, and as much again; then the cache begins anew.
_CACHED_UNITS_A_POINT = 4 * DAYS_KEPT

_PLC_MODULE = 31
_DLT645_2007 = 30
_FILLER = 0xEE
_NO_TIME = b"\xee\xee\xee\xee\xee"
_STILL_READING = 0x01
_DONE = 0x02
"""AFN0C F11 state bits."""


class NotHere(Exception):
    """The request asks for something that is not a frozen value this terminal knows."""


@dataclass(frozen=True, slots=True)
class Found:
    """An answer's data units, and how many points of the request had no value."""

    units: list[bytes]
    missing: int


class Store:
    """Of one terminal. `day`: the district's, whose values faults are about; `started`: now at the start."""

    def __init__(
        self,
        plan: TerminalPlan,
        day: date,
        started: float,
        faults: Faults,
        mine: TerminalFaults,
        counts: Counter[str],
        naming: Naming = "ended_day",
    ) -> None:
        self.archive: dict[int, ArchiveRecord] = {}
        self._plan = plan
        self._naming = naming
        self._counts = counts
        self._meters = {meter.address: meter for meter in (*plan.meters, *plan.stale)}
        self._stale = {meter.address for meter in plan.stale}
        in_archive = {meter.pn: meter for meter in (*plan.meters, *plan.stale)}
        for meter in in_archive.values():
            self.archive[meter.pn] = _record(meter)
        self._by_point = {record.pn: record for record in self.archive.values()}
        self._units: dict[bytes, bytes] = {}
        self._days_off = round(mine.clock_off / 86_400)

        chance = random.Random(f"{mine.seed}/store")
        self._day = day + timedelta(days=1)
        self._fillers = _drawn(chance, in_archive, faults.filler.fraction if faults.filler else 0.0)
        self._not_ready = _drawn(chance, in_archive, faults.not_ready.fraction if faults.not_ready else 0.0)
        self._ready_from = started + (faults.not_ready.seconds if faults.not_ready else 0.0)
        begin, ends = _READING_BEGINS, _READING_ENDS
        if faults.pace:
            first, done_from, done_until = faults.pace.seconds
            begin, ends = timedelta(seconds=first), timedelta(seconds=chance.uniform(done_from, done_until))
        self._paced = faults.pace is not None
        self._begins = begin
        last = max(1, len(in_archive) - 1)
        self._after = {pn: begin + (ends - begin) * (place / last) for place, pn in enumerate(in_archive)}

    # -- archive ----------------------------------------------------------------------------------

    def write_archive(self, records: tuple[ArchiveRecord, ...]) -> None:
        """Set or, with pn 0, delete records (AFN04 F10)."""
        for record in records:
            if record.pn == 0:
                self.archive.pop(record.sequence, None)
            else:
                self.archive[record.sequence] = record
        self._by_point = {record.pn: record for record in self.archive.values()}
        self._units.clear()

    def clock_was_set(self) -> None:
        """The clock is right again: what was kept under wrong days is dropped and read anew."""
        self._days_off = 0
        self._units.clear()

    # -- values -----------------------------------------------------------------------------------

    def frozen(self, body: bytes, own: datetime, now: float) -> Found:
        """Answer the data units of an AFN0D request; `own`: the terminal's clock. NotHere where one is no
        frozen value held here. Points without a value have an EE unit or none, as the terminal's style is."""
        known = self._units
        try:
            # The sweep's way: single points, one day, all made ready.
            return Found([known[body[at : at + _DAY_UNIT]] for at in range(0, len(body), _DAY_UNIT)], 0)
        except KeyError:
            pass
        units: list[bytes] = []
        missing = 0
        at = 0
        while at < len(body):
            kind = _FROZEN.get(body[at + 2 : at + 4])
            if kind is None:
                raise NotHere
            end = at + (_MONTH_UNIT if kind.monthly else _DAY_UNIT)
            asked = body[at:end]
            at = end
            for pn in points(asked[:2]):
                unit = self._value(pn, kind, asked[4:], own, now)
                if isinstance(unit, str):
                    self._counts[unit] += 1
                    missing += 1
                    unit = self._absent(pn, kind, asked[4:])
                if unit:
                    units.append(unit)
        return Found(units, missing)

    def prepare(self, own: datetime, now: float) -> None:
        """Make ready the answers that a sweep of the district's day will want, before it begins."""
        if self._days_off:
            return
        tag = self._tag(self._day, monthly=False)
        for pn, record in self._by_point.items():
            meter = self._meters.get(record.address)
            at = self._read_time(pn, self._day, own, now)
            if meter is None or at is None or pn in self._fillers or record.address in self._stale:
                continue
            single = meter.meter_class == "single_phase"
            asked = [_F161 if single else _F1]
            if meter.role != "customer":
                asked.append(_F163 if single else _F2)
            for kind in (_FROZEN[dt] for dt in asked):
                unit = self._encoded(pn, kind, meter, self._day, tag, at)
                self._units[identifier(pn, kind.fn) + a20_bytes(tag)] = unit

    def ready_points(self, own: datetime, now: float) -> list[int]:
        """Single-phase points whose F161 of the district's day can be had now."""
        if own < _opened(self._day):
            return []
        return [
            pn
            for pn, record in self._by_point.items()
            if (meter := self._meters.get(record.address)) is not None
            and meter.meter_class == "single_phase"
            and pn not in self._fillers
            and self._read_time(pn, self._day, own, now) is not None
        ]

    def ask_for(self, pns: list[int]) -> bytes:
        """The data units of a request for F161 of the district's day, as `frozen` takes them."""
        tag = a20_bytes(self._tag(self._day, monthly=False))
        return b"".join(identifier(pn, 161) + tag for pn in pns)

    def reading_state(self, own: datetime, now: float) -> ReadingState:
        """How far it is with the meters of last midnight (AFN0C F11)."""
        midnight = own.date()
        ports = []
        for port in sorted({record.port for record in self.archive.values()}):
            at_port = [pn for pn, record in self._by_point.items() if record.port == port]
            times = [
                at
                for pn in at_port
                if self._meters.get(self._by_point[pn].address) is not None
                and not (midnight == self._day and pn in self._fillers)
                and (at := self._read_time(pn, midnight, own, now)) is not None
            ]
            done = len(times) == len(at_port)
            ports.append(
                PortProgress(
                    port=port,
                    total=len(at_port),
                    flags=_DONE if done else _STILL_READING,
                    read=len(times),
                    key_read=0,
                    started_at=min(times, default=None),
                    ended_at=max(times) if done and times else None,
                )
            )
        return ReadingState(tuple(ports))

    def present(self, pn: int, own: datetime, now: float) -> PresentEnergy | None:
        """The forward register as it is now (AFN0C F129); None for a point it cannot read."""
        meter = self._meter(pn)
        if meter is None:
            return None
        return PresentEnergy(
            own.replace(second=0, microsecond=0), _scaled(meter.at(Quantity.FORWARD_ACTIVE, wall(now)))
        )

    def _meter(self, pn: int) -> MeterPlan | None:
        record = self._by_point.get(pn)
        if record is None:
            return None
        if record.address in self._stale:
            self._counts["swapped"] += 1
        return self._meters.get(record.address)

    def _value(self, pn: int, kind: _Frozen, tag: bytes, own: datetime, now: float) -> bytes | str:
        """One point's data unit, or in one word why there is none. It is kept unless a fault made it."""
        key = identifier(pn, kind.fn) + tag
        unit = self._units.get(key)
        if unit is not None:
            return unit
        asked = self._midnight(tag, kind.monthly)
        meter = self._meter(pn)
        if meter is None or asked is None or not self._keeps(asked, kind.monthly, own):
            return "not_held"
        at = self._read_time(pn, asked, own, now)
        if at is None:
            return "not_ready" if asked == self._day and pn in self._not_ready else "not_yet"
        if asked == self._day and pn in self._fillers:
            return "filler"
        frozen = asked - timedelta(days=self._days_off)
        if frozen < (meter.installed or date.min):
            return "not_held"
        unit = self._encoded(pn, kind, meter, frozen, self._tag(asked, kind.monthly), at)
        if not self._days_off and meter.address not in self._stale:
            if len(self._units) > _CACHED_UNITS_A_POINT * len(self._after):
                self._units.clear()
            self._units[key] = unit
        return unit

    def _encoded(
        self, pn: int, kind: _Frozen, meter: MeterPlan, frozen: date, tag: date, at: datetime
    ) -> bytes:
        registers = _scaled(meter.at_midnight(kind.quantity, frozen))
        if kind.fn > 2:
            return midnight.encode(pn, kind.fn, tag, at, registers)

        def by_number(number: int) -> Registers:
            return _scaled(quadrant_registers(number, lambda wanted: meter.at_midnight(wanted, frozen)) or ())

        reactive, first, second = (0x03, 0x05, 0x08) if kind.fn == 1 else (0x04, 0x06, 0x07)
        return midnight.encode_three_phase(
            pn, kind.fn, tag, at, registers, by_number(reactive), by_number(first), by_number(second)
        )

    def _absent(self, pn: int, kind: _Frozen, tag: bytes) -> bytes:
        """What stands for a value it has not: EE in every byte behind the tag, or nothing."""
        record = self._by_point.get(pn)
        if record is None or self._plan.absent_style != "filler":
            return b""
        tariffs = record.tariffs if self._plan.edition < 2013 else _FILLER  # some fill up even their number
        registers = (17 if kind.fn <= 2 else 5) * (record.tariffs + 1)
        return b"%b%b%b%c%b" % (identifier(pn, kind.fn), tag, _NO_TIME, tariffs, bytes([_FILLER]) * registers)

    def _read_time(self, pn: int, midnight_asked: date, own: datetime, now: float) -> datetime | None:
        """When it read this point's value of that midnight, by its own clock; None: not yet."""
        opened = _opened(midnight_asked)
        at = opened + self._after.get(pn, self._begins)
        if own < (at if self._paced else opened):
            return None
        if midnight_asked == self._day and pn in self._not_ready:
            if now < self._ready_from:
                return None
            at = max(at, own - timedelta(seconds=now - self._ready_from))
        return min(at, own).replace(second=0, microsecond=0)

    def _keeps(self, midnight_asked: date, monthly: bool, own: datetime) -> bool:
        return midnight_asked > own.date() - timedelta(days=31 * MONTHS_KEPT if monthly else DAYS_KEPT)

    def _midnight(self, tag: bytes, monthly: bool) -> date | None:
        """The midnight that a request's tag means; None for a tag that is no date."""
        digits = tag[::-1].hex()
        try:
            if monthly:
                month = date(2000 + int(digits[:2]), int(digits[2:]), 1)
                return month if self._naming == "freeze_day" else (month + timedelta(days=31)).replace(day=1)
            day = date(2000 + int(digits[:2]), int(digits[2:4]), int(digits[4:]))
        except ValueError:
            return None
        return day if self._naming == "freeze_day" else day + timedelta(days=1)

    def _tag(self, midnight_named: date, monthly: bool) -> date:
        """The date (for a month its first) under which a midnight is kept."""
        named = midnight_named if self._naming == "freeze_day" else midnight_named - timedelta(days=1)
        return named.replace(day=1) if monthly else named


def _record(meter: MeterPlan) -> ArchiveRecord:
    return ArchiveRecord(
        sequence=meter.pn,
        pn=meter.pn,
        port=meter.port,
        baud=0 if meter.port == _PLC_MODULE else 9600,
        protocol=_DLT645_2007,
        address=meter.address,
        tariffs=meter.tariffs,
    )


def _drawn(chance: random.Random, points: dict[int, MeterPlan], fraction: float) -> frozenset[int]:
    return frozenset(pn for pn in points if chance.random() < fraction)


def _opened(midnight_of: date) -> datetime:
    return datetime(midnight_of.year, midnight_of.month, midnight_of.day)


def _scaled(registers: Registers) -> Registers:
    """0.01 to the protocol's 0.0001."""
    return tuple(value * 100 for value in registers)
