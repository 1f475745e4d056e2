"""What a simulated terminal notices: its two memories of events, and the records in them, byte by byte.

The bodies are written out here, not by the package that reads them: a mistake of one is seen by the other.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import TypedDict

from protocols.q_gdw376.formats import a11_bytes, a14_bytes, a15_bytes
from protocols.q_gdw376.identifiers import identifier
from simulator.district import MeterPlan, Quantity, TerminalPlan

MEMORY = 256
"""Records of each kind; pointers count modulo this, and the oldest are overwritten."""

IMPORTANT, NORMAL = 1, 2
"""Fn of AFN0E."""

_POINT_BEGINS = 0x8000


class Counters(TypedDict):
    """Of a frame up: ACD and EC."""

    acd: bool
    ec: tuple[int, int] | None


class EventMemory:
    """Both memories of one terminal. A pointer is the count of records so far, modulo 256."""

    def __init__(self) -> None:
        self._counts = {IMPORTANT: 0, NORMAL: 0}
        self._records: dict[tuple[int, int], bytes] = {}
        self._read_up_to = 0

    @property
    def ec(self) -> tuple[int, int]:
        """EC1 and EC2: the pointers behind the newest records."""
        return self._counts[IMPORTANT] % MEMORY, self._counts[NORMAL] % MEMORY

    @property
    def waiting(self) -> bool:
        """Are there important events that no master has?"""
        return self._read_up_to != self._counts[IMPORTANT]

    @property
    def counters(self) -> Counters:
        """What every frame says of them."""
        return {"acd": True, "ec": self.ec} if self.waiting else {"acd": False, "ec": None}

    def note(self, erc: int, body: bytes, kind: int = IMPORTANT) -> int:
        """Keep a record; its pointer."""
        pointer = self._counts[kind] % MEMORY
        self._records[kind, pointer] = bytes((erc, len(body))) + body
        self._counts[kind] += 1
        return pointer

    def unit(self, kind: int, pm: int, pn: int) -> bytes | None:
        """The data unit that answers a request for records pm .. pn - 1; None where one is not there."""
        if kind not in self._counts:
            return None
        pointers = [(pm + place) % MEMORY for place in range((pn - pm) % MEMORY)]
        try:
            records = [self._records[kind, pointer] for pointer in pointers]
        except KeyError:
            return None
        if not records:
            return None
        return identifier(0, kind) + bytes((*self.ec, pm, pn)) + b"".join(records)

    def was_read(self, kind: int, pn: int) -> None:
        """A master has all records before pn, and the important ones are all it waits for."""
        if kind == IMPORTANT and pn == self.ec[0]:
            self._read_up_to = self._counts[IMPORTANT]


def body(erc: int, plan: TerminalPlan, at: datetime, chance: random.Random) -> bytes:
    """What a terminal of this plan would write down at `at`, its own clock's time. KeyError for an ERC that
    it never raises."""
    return _BODIES[erc](plan, at, chance)


def kind_of(erc: int) -> int:
    """Which memory it goes to."""
    return NORMAL if erc in _NORMAL else IMPORTANT


def _point(meter: MeterPlan, begins: bool = True) -> bytes:
    return (meter.pn | (_POINT_BEGINS if begins else 0)).to_bytes(2, "little")


def _parameters_changed(plan: TerminalPlan, at: datetime, chance: random.Random) -> bytes:
    return a15_bytes(at) + b"\x01" + identifier(0, 1) + identifier(0, 10)


def _meter_parameters_changed(plan: TerminalPlan, at: datetime, chance: random.Random) -> bytes:
    return a15_bytes(at) + _point(chance.choice(plan.meters), begins=False) + b"\x01"


def _meter_clock_off(plan: TerminalPlan, at: datetime, chance: random.Random) -> bytes:
    return a15_bytes(at) + _point(chance.choice(plan.meters))


def _power_off_and_on(plan: TerminalPlan, at: datetime, chance: random.Random) -> bytes:
    return a15_bytes(at - timedelta(minutes=chance.randint(2, 90))) + a15_bytes(at)


def _authentication_failed(plan: TerminalPlan, at: datetime, chance: random.Random) -> bytes:
    return a15_bytes(at) + bytes(16) + b"\x01"


def _voltage_limit(plan: TerminalPlan, at: datetime, chance: random.Random) -> bytes:
    high = f"{chance.randint(2420, 2600)}"
    return a15_bytes(at) + _point(chance.choice(plan.meters)) + b"\x41" + bytes.fromhex(high)[::-1] * 3


def _read_failed(plan: TerminalPlan, at: datetime, chance: random.Random) -> bytes:
    meter = chance.choice(plan.meters)
    last = at - timedelta(minutes=chance.randint(60, 6000))
    active = meter.at(Quantity.FORWARD_ACTIVE, last)[0]
    reactive = meter.at(Quantity.FORWARD_REACTIVE, last)[0]
    return (
        a15_bytes(at) + _point(meter) + a15_bytes(last) + a14_bytes(active * 100) + a11_bytes(reactive * 100)
    )


def _unknown_meter(plan: TerminalPlan, at: datetime, chance: random.Random) -> bytes:
    address = bytes.fromhex(f"{chance.randint(390_000_000_000, 390_999_999_999)}")[::-1]
    return a15_bytes(at) + b"\x1f\x01" + address + b"\x28\x01"


_BODIES: dict[int, Callable[[TerminalPlan, datetime, random.Random], bytes]] = {
    14: _power_off_and_on,
    31: _read_failed,
    12: _meter_clock_off,
    24: _voltage_limit,
    3: _parameters_changed,
    8: _meter_parameters_changed,
    20: _authentication_failed,
    35: _unknown_meter,
}
_NORMAL = {24}

RAISED = tuple(_BODIES)
"""ERC of the events that terminals here raise, in the order in which they are dealt out."""
