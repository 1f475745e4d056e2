"""A relay switched on a direct line, with a ticket: the one place in the field room from which anything but a
read leaves, and that is the very frame which the gateway has signed.

Every check is a function of its own that raises before a byte leaves; the frame is written once, at the
moment of the last of them, and nothing repeats it.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from gateway.clock import from_device
from gateway.command import GATED_AS_TRIP, Action, RelayStatus
from gateway.errors import InputError, LinkClosed
from gateway.field.direct_evidence import NOTHING, PERHAPS, STATUS_WORD_3, WHOLE, Asked, Deed, is_answer
from gateway.field.line import MeterLine, may_answer
from gateway.field.machine import Machine
from gateway.field.ticket import Ticket
from gateway.transports.link import Taken
from protocols.dlt645 import frame as frames
from protocols.dlt645 import messages
from protocols.dlt645.frame import LEAD_IN, Frame, build
from protocols.dlt645.messages import ReadRequest

METER_NUMBER: Final = "04000402"
CLOCK: Final = "0400010c"
DATE: Final = "04000101"
TIME: Final = "04000102"

CLOCK_TOLERANCE_S: Final = 120.0
"""A trip to a meter whose clock is off by more could be obeyed when it is long over."""

FRESH_S: Final = 60.0
"""What was read of the meter so long ago says nothing of it any more."""

JUMP_S: Final = 2.0
"""Our own clock, held against one that cannot jump."""

READ_TRIES: Final = 2
LOOKS: Final = 8
LOOK_S: Final = 1.0
"""Meters check the line within five seconds of a command."""

_TAKEN: Final = {Taken.WHOLE: WHOLE, Taken.PERHAPS: PERHAPS, Taken.NOTHING: NOTHING}


class NotSent(InputError):
    """Why no byte of the control frame has left."""


# checks that need no line


def check_meant(ticket: Ticket, action: Action, meter: str) -> None:
    """NotSent unless the ticket is for what the person asks for."""
    if ticket.action is not action:
        raise NotSent(f"the ticket is for {ticket.action}, not for {action} 操作票的操作不符")
    if meter not in (ticket.meter, ticket.address):
        raise NotSent(f"the ticket is for meter {ticket.meter}, not for {meter} 操作票的电能表不符")


def check_machine(ticket: Ticket, machine: str) -> None:
    """NotSent unless the ticket was made for this machine."""
    if ticket.machine != machine:
        raise NotSent(
            "the ticket was made for another machine 操作票属于另一台设备: ask for it with"
            " `lingdian relay ticket` on the one that goes to the meter"
        )


def check_hours(ticket: Ticket, now: datetime) -> None:
    """NotSent outside the ticket's window."""
    if now < ticket.since:
        raise NotSent(
            f"the ticket holds from {ticket.since.isoformat()} 操作票尚未生效: is this clock right?"
        )
    if now >= ticket.until:
        raise NotSent(f"the ticket ended at {ticket.until.isoformat()} 操作票已过期: ask for a new one")


# checks of the meter


@dataclass(slots=True)
class Seen:
    """What the meter has told before it was sent anything."""

    asked: list[Asked] = field(default_factory=list)
    number: str | None = None
    offset_s: float | None = None
    status: RelayStatus | None = None


def check_number(ticket: Ticket, seen: Seen) -> None:
    """NotSent where another meter answers; a trip wants the number, a close goes on without."""
    if seen.number is None and ticket.action not in GATED_AS_TRIP:
        return
    if seen.number not in ticket.numbers:
        raise NotSent(f"the meter's number is {seen.number or 'not to be had'} 表号不符: not {ticket.meter}")


def check_clock(ticket: Ticket, seen: Seen) -> None:
    """NotSent where a trip would go to a meter whose clock was not read, or is off."""
    if ticket.action not in GATED_AS_TRIP:
        return
    if seen.offset_s is None:
        raise NotSent("the meter's clock could not be read 电能表时钟未读到")
    if abs(seen.offset_s) > CLOCK_TOLERANCE_S:
        raise NotSent(f"the meter's clock is off by {seen.offset_s:+.0f} s 电能表时钟偏差超过两分钟")


def check_status(ticket: Ticket, seen: Seen) -> None:
    """NotSent where a trip would go to a meter that is under keep-power, or does not say."""
    if ticket.action not in GATED_AS_TRIP:
        return
    if seen.status is None:
        raise NotSent("the meter's status word 3 could not be read 状态字3未读到")
    if seen.status.keep_power:
        raise NotSent("the meter is under keep-power 电能表处于保电状态")


def check_steady(ticket: Ticket, passed_s: float, shown_s: float) -> None:
    """NotSent where what was read before a trip is not fresh, or our own clock has jumped since.

    passed_s, shown_s: since the reads began, by a clock that cannot jump and by the one that tells time."""
    if ticket.action in GATED_AS_TRIP and (passed_s > FRESH_S or abs(shown_s - passed_s) > JUMP_S):
        raise NotSent("the reads before the trip are old, or this machine's clock was set 时钟或读取失效")


# at the meter


async def switch(line: MeterLine, ticket: Ticket, raw: bytes, machine: Machine) -> Deed:
    """Read, check, write once, and read the relay.

    NotSent, InputError, LinkClosed: no byte of the control frame has left. From the write on nothing is
    raised but by a fault of the machine: then the ticket stands among the spent ones."""
    clock = line.clock
    began, began_at = clock.monotonic(), clock.now()
    seen = await _look(line, ticket)
    for check in (check_number, check_clock, check_status):
        check(ticket, seen)
    await line.quiet()
    with machine.spending() as spent:
        spent.check(ticket.id)
        check_steady(ticket, clock.monotonic() - began, (clock.now() - began_at).total_seconds())
        check_hours(ticket, clock.now())
        try:
            spent.note(ticket.id, clock.now())
        except OSError as error:
            raise NotSent(f"the use of the ticket cannot be written down 无法记录: {error}") from error
        # writing that down may have taken long
        written_at = clock.now()
        check_hours(ticket, written_at)
        sent = bytes([LEAD_IN]) * line.timing.lead_in + raw
        left = _TAKEN[line.link.write_now(sent)]
    answer, after = await _hear(line, ticket, raw, len(sent)) if left == WHOLE else (b"", ())
    offset = None if seen.offset_s is None else round(seen.offset_s * 1000)
    return Deed(ticket, written_at, left, offset, tuple(seen.asked), answer, after)


async def _look(line: MeterLine, ticket: Ticket) -> Seen:
    """What has to be known of the meter; what cannot be had stays None."""
    seen = Seen()
    if (number := await _ask(line, ticket, METER_NUMBER, seen.asked)) is not None:
        digits = number.data[::-1].hex()
        seen.number = digits if digits.isdecimal() else None
    seen.offset_s = await _clock_offset(line, ticket, seen.asked)
    status = await _ask(line, ticket, STATUS_WORD_3, seen.asked)
    if status is not None and len(status.data) == 2 and status.data != b"\xff\xff":
        seen.status = RelayStatus(int.from_bytes(status.data, "little"), status.at)
    return seen


async def _clock_offset(line: MeterLine, ticket: Ticket, asked: list[Asked]) -> float | None:
    """Seconds that the meter's clock is ahead of ours, reckoned from when its answer came."""
    once = await _ask(line, ticket, CLOCK, asked)
    if once is not None:
        date, time = once.data[3:], once.data[:3]
    else:
        day = await _ask(line, ticket, DATE, asked)
        of_day = await _ask(line, ticket, TIME, asked)
        if day is None or of_day is None:
            return None
        date, time = day.data, of_day.data
    try:
        shown = datetime.strptime(date[:0:-1].hex() + time[::-1].hex(), "%y%m%d%H%M%S")  # noqa: DTZ007
    except ValueError:
        return None
    return (from_device(shown) - line.clock.now()).total_seconds()


async def _ask(line: MeterLine, ticket: Ticket, di: str, asked: list[Asked]) -> Asked | None:
    """One item, added to `asked`; None where this meter gives it not. LinkClosed."""
    question = messages.to_frame(ReadRequest(ticket.address, di))
    for _ in range(READ_TRIES):
        at = line.clock.now()
        heard = await line.ask(question, patient=True)
        for said in heard.frames:
            if said.address == ticket.address and may_answer(said, question):
                if said.is_error:
                    return None
                asked.append(Asked(at, build(question), build(said)))
                return asked[-1]
    return None


async def _hear(line: MeterLine, ticket: Ticket, raw: bytes, size: int) -> tuple[bytes, tuple[Asked, ...]]:
    """The meter's answer, and the relay, read until it shows what was wanted, some seconds at most."""
    answer, after = b"", list[Asked]()
    try:
        heard = await line.listen(frames.parse(raw), size)
        said: list[Frame] = [one for one in heard.frames if is_answer(one, ticket)]
        answer = build(said[0]) if said else b""
        for _ in range(LOOKS):
            status = await _ask(line, ticket, STATUS_WORD_3, after)
            if status is not None and len(status.data) != 2:
                after.pop()
            elif status is not None and shows(ticket.action, int.from_bytes(status.data, "little")):
                break
            await line.clock.sleep(LOOK_S)
    except (LinkClosed, asyncio.CancelledError):
        pass  # what has left has left; what was heard of it is told all the same
    return answer, tuple(after)


def shows(action: Action, word: int) -> bool:
    """Does status word 3 show what was wanted? What follows from it is the gateway's to say."""
    status = RelayStatus(word, datetime.min)  # noqa: DTZ901
    if action is Action.TRIP:
        return status.open
    if action is Action.CLOSE:
        return not status.open and not status.trip_ordered
    return not status.trip_ordered
