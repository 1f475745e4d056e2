"""A DL/T 645-2007 meter: registers, midnight freezes, relay, answers. No socket; time comes with each call.

It answers reads (11H) of what stands in `_answer`, the read of its address (13H), relay control (1CH) and
security (03H, see control.py); other functions meet silence, as clause 7 of the standard says of a function
that a meter does not know. Equal calls at equal times have equal answers.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, datetime, timedelta

from protocols.dlt645 import messages
from protocols.dlt645.control_messages import (
    RELAY_CONTROL,
    SECURITY,
    RelayCommand,
    SealedCommand,
    SecurityRequest,
)
from protocols.dlt645.frame import BROADCAST, build, matches
from protocols.dlt645.messages import (
    AddressReply,
    ErrorReply,
    Message,
    ReadAddressRequest,
    ReadReply,
    ReadRequest,
    Unknown,
)
from protocols.dlt645.stream import FoundFrame, FrameStream
from protocols.wire import int_to_bcd
from simulator.clock import seconds, wall
from simulator.control import RECORDS_KEPT, Control, Setup, Switching
from simulator.district import FIRST_MIDNIGHT, MeterPlan, Quantity, Registers
from simulator.ledger import Ledger, nowhere
from simulator.relay import Move, RelayKind

FREEZES_KEPT = 62
"""Daily freezes a meter holds: DI0 01H..3EH."""

SETTLEMENTS_KEPT = 12
"""Month ends a meter holds: DI0 01H..0CH."""

STANDARD = Setup()
"""A meter without an ESAM that switches at once on password 02."""

_READ = 0x11
_NO_SUCH_DATA = 0x02
"""ERR bit 1."""


class Meter:
    """One meter. Times are the district's seconds (see clock.py), never running back.

    missed: midnights at which it had no supply and froze nothing. ledger: told of every control frame, move
    of the relay, press of its button and read of its position, in the call in which it sees them.
    """

    def __init__(
        self,
        plan: MeterPlan,
        missed: frozenset[date] = frozenset(),
        *,
        setup: Setup = STANDARD,
        ledger: Ledger = nowhere,
    ) -> None:
        self.plan = plan
        self.missed = missed
        self.load_ma: int | None = None
        """milliamperes that flow while the relay is closed; None: by its plan"""
        self._setup = setup
        self._control = Control(plan.address, RelayKind(plan.relay_kind), setup, self._load, ledger)
        self._stream = FrameStream()
        self._outgoing = bytearray()

    def receive_data(self, data: bytes, now: float) -> None:
        """Take bytes from the line; what it has to say about them waits in `data_to_send`."""
        self._stream.receive_data(data)
        while (event := self._stream.next_event()) is not None:
            if isinstance(event, FoundFrame) and not event.frame.from_meter:
                reply = self._reply(messages.from_frame(event.frame), event.raw, now)
                if reply is not None:
                    self._outgoing += build(messages.to_frame(reply))

    def data_to_send(self) -> bytes:
        """The bytes of its replies since the last call."""
        taken = bytes(self._outgoing)
        self._outgoing.clear()
        return taken

    def next_timeout(self) -> float | None:
        """When its relay moves, or is looked at, next; None: nothing is due."""
        return self._control.relay.next_timeout()

    def handle_timeout(self, now: float) -> None:
        """Do what is due by `now`, as of its own time. Every other call does it as well."""
        self._control.relay.advance(now)

    def press(self, now: float) -> bool:
        """Somebody presses the button, or goes to close an external switch; whether that closed it."""
        return self._control.press(now)

    @property
    def is_open(self) -> bool:
        """Is the household dark? As of the last call."""
        return self._control.relay.is_open

    def clock(self, now: float) -> datetime:
        """Its own."""
        return self._control.clock(now)

    def set_clock(self, off_s: float) -> None:
        """Somebody sets it: `off_s` ahead of the right time from now on."""
        self._control.clock_off_s = off_s

    def reply(self, request: Message, clock: datetime) -> Message | None:
        """What it says to a read when the right time is `clock`; None: nothing, as to others' requests."""
        return self._reply(request, b"", seconds(clock))

    def _reply(self, request: Message, raw: bytes, now: float) -> Message | None:
        address = self.plan.address
        match request:
            case ReadAddressRequest(asked) if matches(asked, address):
                return AddressReply(address)
            case ReadRequest(asked, di) if matches(asked, address):
                data = self._answer(bytes.fromhex(di), now)
                if data is None:
                    return ErrorReply(address, _READ, _NO_SUCH_DATA)
                return ReadReply(address, di, data)
            case RelayCommand(asked) | SealedCommand(asked) if _hears(asked, address):
                return self._control.switch(request, raw, now)
            case SecurityRequest(asked) if _hears(asked, address):
                return self._control.security(request, raw, now)
            case Unknown(frame) if frame.function in (RELAY_CONTROL, SECURITY):
                return self._control.unfit(request, raw, now) if _hears(frame.address, address) else None
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

    def _answer(self, di: bytes, now: float) -> bytes | None:
        """The data of one item, `di` high byte first; None: no such item here."""
        clock = self.clock(now)
        match tuple(di):
            case (0x00, quantity, tariff, 0x00):
                return self._energy(quantity, tariff, lambda wanted: self.plan.at(wanted, wall(now)))
            case (0x00, quantity, tariff, back) if back <= SETTLEMENTS_KEPT:
                first = month_begin(clock.date(), back - 1)
                if first < (self.plan.installed or FIRST_MIDNIGHT):
                    return self._never_recorded(4, tariff)
                return self._energy(quantity, tariff, lambda wanted: self.plan.at_midnight(wanted, first))
            case (0x05, 0x06, 0x00, back) if 1 <= back <= FREEZES_KEPT:
                midnight = self.frozen_midnight(back, clock)
                return _freeze_time(midnight) if midnight else self._never_recorded(5, 0)
            case (0x05, 0x06, quantity, back) if 1 <= back <= FREEZES_KEPT and quantity <= 0x08:
                return self._frozen_energy(quantity, self.frozen_midnight(back, clock))
            case (0x1D, 0x00, part, number):
                return self._switchings(part, number, Move.OPENED)
            case (0x1E, 0x00, part, number):
                return self._switchings(part, number, Move.CLOSED)
            case (0x04, 0x00, 0x05, 0x03):
                return self._control.status_word(now).to_bytes(2, "little")
            case (0x04, 0x00, 0x14, 0x01):
                return int_to_bcd(self._setup.trip_delay_minutes, 2)
            case (0x04, 0x00, 0x14, 0x02):
                return int_to_bcd(self._setup.current_limit_ma, 3)
            case (0x02, 0x02, 0x01, 0x00):
                return int_to_bcd(self._control.relay.flows(now), 3)
            case (0x02, 0x03, 0x00, 0x00):
                flows = self._control.relay.flows(now)
                return int_to_bcd(flows * volts(self.plan) // 1_000, 3)
        parameter = _PARAMETERS.get(di.hex())
        return parameter(self.plan, clock) if parameter else None

    def _switchings(self, part: int, number: int, move: Move) -> bytes | None:
        """How often the relay opened (closed); of the `number`-th last time: when, or the whole record."""
        kept = self._control.trips if move is Move.OPENED else self._control.closes
        match part, number:
            case (0x00, 0x01):
                return int_to_bcd(self._control.counts[move], 3)
            case (0x01 | 0xFF, _) if 1 <= number <= RECORDS_KEPT:
                record = kept[number - 1] if number <= len(kept) else None
                if part == 0x01:
                    return self._moment(record) if record else self._never_recorded(6, 0)
                return self._record(record) if record else self._never_recorded(34, 0)
        return None

    def _moment(self, record: Switching) -> bytes:
        return bytes.fromhex(f"{self.clock(record.at):%S%M%H%d%m%y}")

    def _record(self, record: Switching) -> bytes:
        """Time, operator, forward and reverse active, and the four quadrants where it has them."""
        data = self._moment(record) + bytes.fromhex(record.operator)[::-1]
        for quantity in (0x01, 0x02, 0x05, 0x06, 0x07, 0x08):
            energy = self._energy(quantity, 0x00, lambda wanted: self.plan.at(wanted, wall(record.at)))
            data += energy or b"\xff" * 4
        return data

    def _load(self, now: float) -> int:
        """Milliamperes while the relay is closed."""
        if self.load_ma is not None:
            return self.load_ma
        return power(self.plan, wall(now)) * 10_000 // volts(self.plan)

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


def _hears(asked: str, address: str) -> bool:
    """Whether a control frame reaches it: what is sent to all is witnessed, though never obeyed."""
    return asked == BROADCAST or matches(asked, address)


def month_begin(day: date, months_back: int) -> date:
    months = day.year * 12 + day.month - 1 - months_back
    return date(months // 12, months % 12 + 1, 1)


def _freeze_time(midnight: date) -> bytes:
    """YYMMDDhhmm, low byte first."""
    return bytes.fromhex(f"0000{midnight:%d%m%y}")


def power(plan: MeterPlan, clock: datetime) -> int:
    """Watts drawn: the coming hour's use of the forward register."""
    now = plan.at(Quantity.FORWARD_ACTIVE, clock)[0]
    return (plan.at(Quantity.FORWARD_ACTIVE, clock + timedelta(hours=1))[0] - now) * 10


def volts(plan: MeterPlan) -> int:
    """Tenths of a volt, a little different at each meter."""
    return 2200 + plan.key % 61 - 30


_PARAMETERS: dict[str, Callable[[MeterPlan, datetime], bytes]] = {
    "02010100": lambda plan, clock: int_to_bcd(volts(plan), 2),
    "04000101": lambda plan, clock: bytes.fromhex(f"{clock.isoweekday() % 7:02d}{clock:%d%m%y}"),
    "04000102": lambda plan, clock: bytes.fromhex(f"{clock:%S%M%H}"),
    "0400010c": lambda plan, clock: bytes.fromhex(
        f"{clock:%S%M%H}{clock.isoweekday() % 7:02d}{clock:%d%m%y}"
    ),
    "04000204": lambda plan, clock: int_to_bcd(plan.tariffs, 1),
    "04000401": lambda plan, clock: bytes.fromhex(plan.address)[::-1],
    "04000402": lambda plan, clock: bytes.fromhex(plan.address)[::-1],
    "04000403": lambda plan, clock: plan.number.encode("ascii").ljust(32, b"\x00")[::-1],
}
"""Variables and parameters by DI, high byte first: data low byte first."""
