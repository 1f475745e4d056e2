"""A DL/T 645-1997 meter: energies, demands of the moment, clock and numbers, to be read (01H, 02H, 03H).

The edition knows no daily freeze, no relay status word and no relay control that the standard fixes; requests
for what it has not got are refused (ERR bit 1), other functions meet silence.
"""

from __future__ import annotations

from datetime import date, datetime

from protocols.dlt645.fields import EDITION_1997
from protocols.dlt645.frame import matches
from protocols.dlt645.messages import ErrorReply, ReadRequest
from protocols.dlt645.slave import Asked, Slave
from protocols.wire import int_to_bcd
from simulator.clock import wall
from simulator.district import FIRST_MIDNIGHT, MeterPlan, Registers
from simulator.meter import month_begin, power, quadrant_registers, volts

_READ = 0x01
_NO_SUCH_DATA = 0x02

# DI1's low two bits and DI0's high digit -> the quantity's number in the 2007 edition.
_QUANTITIES = {
    (0, 1): 0x01, (0, 2): 0x02,
    (1, 1): 0x03, (1, 2): 0x04, (1, 3): 0x05, (1, 4): 0x08, (1, 5): 0x06, (1, 6): 0x07,
}  # fmt: skip


class Meter1997:
    """One meter; used like `Meter`, and with the same registers for the same plan."""

    def __init__(self, plan: MeterPlan) -> None:
        self.plan = plan
        self._slave = Slave(EDITION_1997)
        self._outgoing = bytearray()

    def receive_data(self, data: bytes, now: float) -> None:
        """Take bytes from the line; what it has to say about them waits in `data_to_send`."""
        self._slave.receive_data(data, now)
        while (event := self._slave.next_event()) is not None:
            if isinstance(event, Asked) and isinstance(event.message, ReadRequest):
                self._outgoing += self._reply(event.message, now)
        self._outgoing += self._slave.data_to_send()

    def data_to_send(self) -> bytes:
        """The bytes of its replies since the last call."""
        taken = bytes(self._outgoing)
        self._outgoing.clear()
        return taken

    def next_timeout(self) -> float | None:
        """It never does anything by itself: None."""
        return None

    def handle_timeout(self, now: float) -> None:
        """Nothing."""

    def _reply(self, request: ReadRequest, now: float) -> bytes:
        address = self.plan.address
        if not matches(request.address, address):
            return b""
        data = self._answer(bytes.fromhex(request.di), wall(now))
        if data is None:
            return self._slave.send(ErrorReply(address, _READ, _NO_SUCH_DATA), now)
        return self._slave.send_data(request, address, data, now)

    def _answer(self, di: bytes, clock: datetime) -> bytes | None:
        """The data of one item, `di` high byte first; None: no such item here."""
        plan = self.plan
        match di[0], di[1]:
            case (0x90 | 0x91 | 0x94 | 0x95 | 0x98 | 0x99 as kind, low):
                quantity = _QUANTITIES.get((kind & 0x03, low >> 4))
                months_back = (kind - 0x90) // 4
                return None if quantity is None else self._energy(quantity, low & 0x0F, months_back, clock)
            case (0xB6, 0x11):
                return int_to_bcd(volts(plan) // 10, 2)
            case (0xB6, 0x30):
                return int_to_bcd(power(plan, clock) * 10, 3)
            case (0xC0, 0x10):
                return bytes.fromhex(f"{clock.isoweekday() % 7:02d}{clock:%d%m%y}")
            case (0xC0, 0x11):
                return bytes.fromhex(f"{clock:%S%M%H}")
            case (0xC0, 0x20):
                return b"\x00"
            case (0xC0, 0x32):
                return bytes.fromhex(plan.address)[::-1]
        return None

    def _energy(self, quantity: int, tariff: int, months_back: int, clock: datetime) -> bytes | None:
        """XXXXXX.XX of one tariff, 0 the total, F all; now, or at the beginning of this or the last month."""
        if quantity > 0x02 and self.plan.meter_class == "single_phase":
            return None
        values = self._registers(quantity, months_back, clock)
        if values is None or (tariff != 0x0F and tariff >= len(values)):
            return None
        return b"".join(int_to_bcd(each, 4) for each in (values if tariff == 0x0F else (values[tariff],)))

    def _registers(self, quantity: int, months_back: int, clock: datetime) -> Registers | None:
        plan = self.plan
        if not months_back:
            return quadrant_registers(quantity, lambda wanted: plan.at(wanted, clock))
        first: date = max(month_begin(clock.date(), months_back - 1), plan.installed or FIRST_MIDNIGHT)
        return quadrant_registers(quantity, lambda wanted: plan.at_midnight(wanted, first))
