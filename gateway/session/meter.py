"""A meter asked through its terminal: AFN10 F1 with a DL/T 645 frame inside. Reads only.

The terminal may route by the address in the frame, or not look at it: whoever answers must say that address.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from gateway.clock import business_day, to_device
from gateway.model import Due, Failure, Kind, Point, Quality, Quantity, ReadingRow, Reason, Source
from gateway.session.channel import Urgency
from gateway.session.conversation import Outcome
from gateway.session.learning import denial, value_of
from gateway.session.terminal import TerminalSession
from gateway.session.translate import columns
from protocols.dlt645 import items
from protocols.dlt645.connection import Answered as MeterAnswered
from protocols.dlt645.connection import Master as MeterLine
from protocols.dlt645.connection import Refused, Unmatched
from protocols.dlt645.connection import Silent as MeterSilent
from protocols.dlt645.messages import ReadRequest, Unknown
from protocols.errors import LocalProtocolError, RemoteProtocolError
from protocols.q_gdw376 import messages
from protocols.q_gdw376.connection import Answered, Denied, Silent

FREEZES_KEPT: Final = 62
"""Daily freezes that a meter holds: DI0 01H (the newest) to 3EH."""

PROBES: Final = 12
"""Freeze times looked at for one midnight: a guess or two as a rule, and halving 62 takes six."""

NEAR_MIDNIGHT: Final = timedelta(hours=1)
"""So near a midnight the meter may freeze anew between two questions, and its numbering moves by one."""

FOLLOW_UPS: Final = 16
"""Exchanges for one item of a meter: a freeze with 63 tariffs takes two, a whole load record some more."""

FREEZE_TIME: Final = "050600"
FREEZE_OF: Final[dict[Quantity, str]] = {
    Quantity.FORWARD_ACTIVE: "050601",
    Quantity.REVERSE_ACTIVE: "050602",
    Quantity.REACTIVE_Q1: "050605",
    Quantity.REACTIVE_Q2: "050606",
    Quantity.REACTIVE_Q3: "050607",
    Quantity.REACTIVE_Q4: "050608",
}
"""DI3 DI2 DI1 of the daily freeze; its two combined reactive registers are none of our quantities."""


@dataclass(frozen=True, slots=True)
class MeterItem:
    """What a meter said of one DI. values: (English name, Chinese name, decimal string or None, unit, raw
    hex); empty where the layout of the DI is not known. raw: its data after the DI."""

    meter: str
    di: str
    values: tuple[tuple[str, str, str | None, str, str], ...]
    raw: bytes


@dataclass(frozen=True, slots=True)
class MeterRefusal:
    """The meter or its terminal did not give the item. detail: for a person."""

    reason: Reason
    detail: str


Forward = Callable[[bytes], Awaitable[bytes | MeterRefusal]]
"""Has a frame passed on to a meter: its answer, lead-in taken off."""


async def read_item(
    session: TerminalSession,
    address: str,
    di: str,
    port: int = messages.CARRIER_PORT,
    *,
    urgency: Urgency = Urgency.PERSON,
) -> MeterItem | MeterRefusal:
    """One DL/T 645-2007 item (eight hex digits, high byte first) of the meter with that address, behind that
    port of the terminal. Raises LinkClosed."""
    return await read_through(lambda content: _forward(session, port, content, urgency), address, di)


async def read_through(forward: Forward, address: str, di: str) -> MeterItem | MeterRefusal:
    """As `read_item`, on a way of the caller's own."""
    line = MeterLine(reply_timeout=0.0, repeats=0, lead_in=0)
    try:
        content = line.send(ReadRequest(address, di.lower()), 0.0)
    except LocalProtocolError as error:
        return MeterRefusal(Reason.NOT_SUPPORTED, str(error))
    for _ in range(FOLLOW_UPS):
        answer = await forward(content)
        if isinstance(answer, MeterRefusal):
            return answer
        line.receive_data(answer, 0.0)
        outcome = _outcome(line, address)
        content = line.data_to_send()
        if isinstance(outcome, MeterRefusal):
            return outcome
        if isinstance(outcome, bytes):
            return _item(address, di.lower(), outcome)
        if not content:
            return MeterRefusal(Reason.DAMAGED, f"no frame in {answer.hex(' ')}")
    return MeterRefusal(Reason.DAMAGED, f"more than {FOLLOW_UPS} frames for {di}")


async def _forward(
    session: TerminalSession, port: int, content: bytes, urgency: Urgency
) -> bytes | MeterRefusal:
    """What the meter answered to `content`, lead-in taken off."""
    settings = session.parts.settings
    request = messages.forward(
        port, content, settings.forward_message_timeout_s, settings.forward_byte_timeout_ms
    )
    margin = settings.forward_margin_s
    patience = settings.forward_message_timeout_s + (settings.reply_timeout_s if margin is None else margin)
    damage = session.damage
    outcome = await session.exchange(request, urgency, reply_timeout=patience, only_reads=True)
    if isinstance(outcome, Silent) and session.damage != damage:
        return MeterRefusal(Reason.DAMAGED, "what the terminal forwarded was damaged on the way")
    # Some terminals say nothing when the meter says nothing; one that is there tells its time.
    if isinstance(outcome, Silent) and await session.read_clock() is None:
        return MeterRefusal(Reason.TERMINAL_SILENT, "forwarding")
    return told_by(outcome)


def told_by(outcome: Outcome) -> bytes | MeterRefusal:
    """What the terminal answered to a forwarding: the meter's bytes, lead-in taken off, or why there are
    none."""
    if isinstance(outcome, Silent):
        return MeterRefusal(Reason.METER_SILENT, "the terminal gave no answer to the forwarding")
    if isinstance(outcome, Denied):
        detail = denial(outcome)
        if detail.startswith("ERR"):
            return MeterRefusal(Reason.TERMINAL_DENIED, f"forwarding: {detail}")
        return MeterRefusal(Reason.METER_SILENT, "the terminal denied the forwarding, as it does for silence")
    if not isinstance(outcome, Answered):
        return MeterRefusal(Reason.TERMINAL_DENIED, "forwarding: an answer of another kind")
    told = value_of(outcome, messages.Forwarded)
    if told is None:
        return MeterRefusal(Reason.DAMAGED, "the forwarded frame cannot be read")
    answer = told.content.lstrip(b"\xfe")
    return answer or MeterRefusal(Reason.METER_SILENT, "the terminal had no answer of the meter")


def _outcome(line: MeterLine, address: str) -> bytes | MeterRefusal | None:
    """What the meter's bytes came to: data, a refusal, or None where more has to be asked or nothing came."""
    while (event := line.next_event()) is not None:
        if isinstance(event, MeterAnswered):
            if event.address != address:
                return MeterRefusal(Reason.WRONG_METER, f"{event.address} answered for {address}")
            return event.data
        if isinstance(event, Refused):
            reasons = ", ".join(event.error.reasons) or f"ERR {event.error.error:02X}"
            return MeterRefusal(Reason.METER_REFUSED, reasons)
        if isinstance(event, Unmatched):
            message = event.message
            sender = message.frame.address if isinstance(message, Unknown) else message.address
            if sender != address:
                return MeterRefusal(Reason.WRONG_METER, f"{sender} answered for {address}")
            return MeterRefusal(Reason.DAMAGED, f"the meter answered something else: {event.raw.hex(' ')}")
        if not isinstance(event, MeterSilent):
            return MeterRefusal(Reason.DAMAGED, event.reason)
    return None


def _item(address: str, di: str, data: bytes) -> MeterItem | MeterRefusal:
    try:
        values = items.decode(di, data)
    except RemoteProtocolError as error:
        return MeterRefusal(Reason.DAMAGED, error.reason)
    told = tuple((v.name_en, v.name_zh, v.value, v.unit, v.raw.hex()) for v in values)
    return MeterItem(address, di, told, data)


async def read_meter_freeze(session: TerminalSession, point: Point, due: Due) -> ReadingRow | Failure:
    """The meter's own freeze of exactly `due.frozen_at`, found by its time and never by counting.

    A register that closes a month is the freeze of that midnight too. Raises LinkClosed.
    """
    found = await _freeze(session, point, due)
    if isinstance(found, MeterRefusal):
        return Failure(due.meter_id, due.quantity, due.kind, due.frozen_at, found.reason, found.detail)
    received_at = session.parts.clock.now()
    quality = Quality.CONTESTED if session.contested else Quality.GOOD
    return (
        due.meter_id,
        int(due.quantity),
        int(due.kind),
        due.frozen_at,
        *columns(found),
        received_at,
        received_at,
        int(Source.METER),
        int(quality),
    )


async def confirms(session: TerminalSession, point: Point, row: ReadingRow) -> bool | None:
    """Does the meter's own freeze of that midnight equal the terminal's value `row`, cut to two decimals?

    The test of what a profile says about Td_d. None where the meter cannot tell. Raises LinkClosed.
    """
    due = Due(row[0], point.pn, Quantity(row[1]), Kind(row[2]), row[3])
    own = await read_meter_freeze(session, point, due)
    if isinstance(own, Failure) or own[4] is None or row[4] is None:
        return None
    return own[4] // 100 == row[4] // 100


async def _freeze(session: TerminalSession, point: Point, due: Due) -> tuple[int | None, ...] | MeterRefusal:
    """Registers of the freeze, total first."""
    di = FREEZE_OF.get(due.quantity)
    if di is None or due.kind is Kind.LIVE or point.protocol != "dlt645-2007":
        return MeterRefusal(Reason.NOT_SUPPORTED, f"no daily freeze of {due.quantity.label} is known")
    wanted = to_device(due.frozen_at)
    began = session.parts.clock.now()
    number = await _find(session, point, wanted, _days_ago(began, due.frozen_at) + 1)
    if isinstance(number, MeterRefusal):
        return number
    item = await _read(session, point, f"{di}{number:02x}")
    if isinstance(item, MeterRefusal):
        return item
    if _near_midnight(began) or _near_midnight(session.parts.clock.now()):
        again = await _time_of(session, point, number)
        if isinstance(again, MeterRefusal):
            return again
        if again != wanted:
            return MeterRefusal(Reason.WRONG_DATE, "the meter froze anew while it was read; ask again")
    try:
        registers = items.energies(item)
    except RemoteProtocolError as error:
        return MeterRefusal(Reason.DAMAGED, error.reason)
    if registers[0] is None:
        return MeterRefusal(Reason.METER_FREEZE_MISSING, f"freeze {number} has no value")
    return registers


async def _find(session: TerminalSession, point: Point, wanted: datetime, guess: int) -> int | MeterRefusal:
    """The number of the freeze whose time is `wanted`. Freezes may be missing (the meter was without power)
    or further ones stand between (someone froze by command), so the guess is only where to begin."""
    low, high = 1, FREEZES_KEPT
    for probe in range(PROBES):
        if low > high:
            break
        number = min(max(guess, low), high) if probe < 2 else (low + high) // 2
        time = await _time_of(session, point, number)
        if isinstance(time, MeterRefusal):
            return time
        if time == wanted:
            return number
        if time is None or time < wanted:  # so far back there is none, or it is older: nearer to now
            high = number - 1
        else:
            low = number + 1
        guess = number + (0 if time is None else (time - wanted).days)
    return MeterRefusal(Reason.METER_FREEZE_MISSING, f"no freeze of {wanted:%Y-%m-%d %H:%M}")


async def _time_of(session: TerminalSession, point: Point, number: int) -> datetime | MeterRefusal | None:
    """When freeze `number` was made; None where the meter has no such freeze."""
    item = await _read(session, point, f"{FREEZE_TIME}{number:02x}")
    if isinstance(item, MeterRefusal):
        return None if item.reason is Reason.METER_REFUSED and "no such data" in item.detail else item
    if len(item) != 5:
        return MeterRefusal(Reason.DAMAGED, f"a freeze time of {len(item)} bytes")
    if item in (bytes(5), b"\xff" * 5):
        return None
    digits = item[::-1].hex()
    try:
        year, month, day, hour, minute = (int(digits[place : place + 2]) for place in range(0, 10, 2))
        return datetime(2000 + year, month, day, hour, minute)
    except ValueError:
        return MeterRefusal(Reason.DAMAGED, f"freeze {number} has the time {digits}")


async def _read(session: TerminalSession, point: Point, di: str) -> bytes | MeterRefusal:
    item = await read_item(session, point.address, di, point.port, urgency=Urgency.COLLECT)
    return item if isinstance(item, MeterRefusal) else item.raw


def _days_ago(now: datetime, midnight: datetime) -> int:
    return max(0, (business_day(now) - business_day(midnight)).days)


def _near_midnight(instant: datetime) -> bool:
    wall = to_device(instant)
    return (wall - NEAR_MIDNIGHT).date() != (wall + NEAR_MIDNIGHT).date()
