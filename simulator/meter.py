"""A DL/T 645-2007 meter: its registers, its midnight freezes, its answers. No socket, no clock of its own.

It answers reads (11H) of what stands in `_answer` and the read of its address (13H); other functions meet
silence, as clause 7 of the standard says of a function that a meter does not know.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, datetime, timedelta

from protocols.dlt645.connection import Asked, Slave
from protocols.dlt645.frame import matches
from protocols.dlt645.messages import (
    AddressReply,
    ErrorReply,
    Message,
    ReadAddressRequest,
    ReadReply,
    ReadRequest,
)
from protocols.wire import int_to_bcd
from simulator.clock import wall
from simulator.district import FIRST_MIDNIGHT, MeterPlan, Quantity, Registers

FREEZES_KEPT = 62
"""Daily freezes a meter holds: DI0 01H..3EH."""

SETTLEMENTS_KEPT = 12
"""Month ends a meter holds: DI0 01H..0CH."""

_READ = 0x11
_NO_SUCH_DATA = 0x02
"""ERR bit 1."""


class Meter:
    """One meter. `missed`: midnights at which it had no supply and froze nothing."""

    def __init__(self, plan: MeterPlan, missed: frozenset[date] = frozenset()) -> None:
        self.plan = plan
        self.missed = missed
        self._slave = Slave()
        self._outgoing = bytearray()

    def receive_data(self, data: bytes, now: float) -> None:
        """Take bytes from the line; what it has to say about them waits in `data_to_send`."""
        self._slave.receive_data(data, now)
        while (event := self._slave.next_event()) is not None:
            if isinstance(event, Asked):
                reply = self.reply(event.message, wall(now))
                if reply is not None:
                    self._outgoing += self._slave.send(reply, now)

    def data_to_send(self) -> bytes:
        """The bytes of its replies since the last call."""
        taken = bytes(self._outgoing)
        self._outgoing.clear()
        return taken

    def reply(self, request: Message, clock: datetime) -> Message | None:
        """What it says to `request` when its clock shows `clock`; None: nothing, as to others' requests."""
        match request:
            case ReadAddressRequest(address) if matches(address, self.plan.address):
                return AddressReply(self.plan.address)
            case ReadRequest(address, di) if matches(address, self.plan.address):
                data = self._answer(bytes.fromhex(di), clock)
                if data is None:
                    return ErrorReply(self.plan.address, _READ, _NO_SUCH_DATA)
                return ReadReply(self.plan.address, di, data)
        return None

    def frozen_midnight(self, back: int, clock: datetime) -> date | None:
        """The midnight of the `back`-th last daily freeze, 1 the newest; None where there is none."""
        midnight = clock.date()
        first = self.plan.installed or FIRST_MIDNIGHT
        for _ in range(FREEZES_KEPT + len(self.missed)):
            if midnight < first:
                return None
            if midnight not in self.missed:
                back -= 1
                if back == 0:
                    return midnight
            midnight -= timedelta(days=1)
        return None

    def _answer(self, di: bytes, clock: datetime) -> bytes | None:
        """The data of one item, `di` high byte first; None: no such item here."""
        match tuple(di):
            case (0x00, quantity, tariff, 0x00):
                return self._energy(quantity, tariff, lambda wanted: self.plan.at(wanted, clock))
            case (0x00, quantity, tariff, back) if back <= SETTLEMENTS_KEPT:
                first = _month_begin(clock.date(), back - 1)
                if first < (self.plan.installed or FIRST_MIDNIGHT):
                    return self._never_recorded(4, tariff)
                return self._energy(quantity, tariff, lambda wanted: self.plan.at_midnight(wanted, first))
            case (0x05, 0x06, 0x00, back) if 1 <= back <= FREEZES_KEPT:
                midnight = self.frozen_midnight(back, clock)
                return _freeze_time(midnight) if midnight else self._never_recorded(5, 0)
            case (0x05, 0x06, quantity, back) if 1 <= back <= FREEZES_KEPT and quantity <= 0x08:
                return self._frozen_energy(quantity, self.frozen_midnight(back, clock))
        parameter = _PARAMETERS.get(di.hex())
        return parameter(self.plan, clock) if parameter else None

    def _frozen_energy(self, quantity: int, midnight: date | None) -> bytes | None:
        if midnight is None:
            return self._never_recorded(4, 0xFF)
        return self._energy(quantity, 0xFF, lambda wanted: self.plan.at_midnight(wanted, midnight))

    def _energy(self, quantity: int, tariff: int, registers: Callable[[Quantity], Registers]) -> bytes | None:
        """XXXXXX.XX of one tariff, 00 the total, FF all of them."""
        if quantity > 0x02 and self.plan.meter_class == "single_phase":
            return None
        values = quadrant_registers(quantity, registers)
        if values is None or (tariff != 0xFF and tariff >= len(values)):
            return None
        wanted = values if tariff == 0xFF else (values[tariff],)
        return b"".join(int_to_bcd(value, 4) for value in wanted)

    def _never_recorded(self, length: int, tariff: int) -> bytes | None:
        """What stands where nothing was ever recorded: by maker, FF in all bytes or a refusal."""
        values = self.plan.tariffs + 1 if tariff == 0xFF else 1
        return b"\xff" * (length * values) if self.plan.key & 1 else None


def quadrant_registers(quantity: int, registers: Callable[[Quantity], Registers]) -> Registers | None:
    """The registers of a quantity by its 645 number: 00 combined, 01 forward, 02 reverse active; 03, 04
    combined reactive 1, 2 (set here to forward, QI + QIV, and reverse, QII + QIII); 05..08 QI..QIV.

    An eighth of the reactive energy is taken to lie in QIV and QII. None: no such quantity.
    """
    match quantity:
        case 0x00 | 0x01:
            return registers(Quantity.FORWARD_ACTIVE)
        case 0x02:
            return registers(Quantity.REVERSE_ACTIVE)
        case 0x03:
            return registers(Quantity.FORWARD_REACTIVE)
        case 0x04:
            return registers(Quantity.REVERSE_REACTIVE)
        case 0x05 | 0x07:
            whole = registers(Quantity.FORWARD_REACTIVE if quantity == 0x05 else Quantity.REVERSE_REACTIVE)
            tariffs = tuple(value - value // 8 for value in whole[1:])
        case 0x06 | 0x08:
            whole = registers(Quantity.FORWARD_REACTIVE if quantity == 0x08 else Quantity.REVERSE_REACTIVE)
            tariffs = tuple(value // 8 for value in whole[1:])
        case _:
            return None
    return (sum(tariffs), *tariffs)


def _month_begin(day: date, months_back: int) -> date:
    months = day.year * 12 + day.month - 1 - months_back
    return date(months // 12, months % 12 + 1, 1)


def _freeze_time(midnight: date) -> bytes:
    """YYMMDDhhmm, low byte first."""
    return bytes.fromhex(f"0000{midnight:%d%m%y}")


def _power(plan: MeterPlan, clock: datetime) -> int:
    """Watts drawn: the coming hour's use of the forward register."""
    now = plan.at(Quantity.FORWARD_ACTIVE, clock)[0]
    return (plan.at(Quantity.FORWARD_ACTIVE, clock + timedelta(hours=1))[0] - now) * 10


def _volts(plan: MeterPlan, clock: datetime) -> int:
    """Tenths of a volt, a little different at each meter."""
    return 2200 + plan.key % 61 - 30


_PARAMETERS: dict[str, Callable[[MeterPlan, datetime], bytes]] = {
    "02010100": lambda plan, clock: int_to_bcd(_volts(plan, clock), 2),
    "02020100": lambda plan, clock: int_to_bcd(_power(plan, clock) * 10_000 // _volts(plan, clock), 3),
    "02030000": lambda plan, clock: int_to_bcd(_power(plan, clock) * 10, 3),
    "04000101": lambda plan, clock: bytes.fromhex(f"{clock.isoweekday() % 7:02d}{clock:%d%m%y}"),
    "04000102": lambda plan, clock: bytes.fromhex(f"{clock:%S%M%H}"),
    "04000204": lambda plan, clock: int_to_bcd(plan.tariffs, 1),
    "04000401": lambda plan, clock: bytes.fromhex(plan.address)[::-1],
    "04000402": lambda plan, clock: bytes.fromhex(plan.address)[::-1],
    "04000403": lambda plan, clock: plan.number.encode("ascii").ljust(32, b"\x00")[::-1],
    "04000503": lambda plan, clock: bytes(2),
}
"""Variables and parameters by DI, high byte first: data low byte first."""
