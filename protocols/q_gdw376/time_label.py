"""Tp, the time label in AUX: frame counter, send time in format A.16, permitted delay.

A.16 has the day of the month and no month. A label therefore means the newest instant with that day and time
which is not after the reader's clock by more than CLOCKS_APART; so it stays right over midnights and month
ends, and a label that is exactly a month old cannot be told from a new one.
"""

from __future__ import annotations

from calendar import monthrange
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta

from protocols.errors import LocalProtocolError, RemoteProtocolError
from protocols.q_gdw376.frame import TP_LENGTH
from protocols.wire import bcd_to_int, int_to_bcd

# A sender whose clock is ahead by less is taken at its word; captured labels are a minute ahead of the
# answer's.
CLOCKS_APART = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class TimeLabel:
    """pfc: frame counter, 0..255, whose low 4 bits are PSEQ. day: of the month, 1..31. at: when it was sent,
    to the second. delay_min: minutes that the frame may be under way, 0..255; 0: no matter how long."""

    pfc: int
    day: int
    at: time
    delay_min: int

    def __post_init__(self) -> None:
        if not (0 <= self.pfc <= 255 and 0 <= self.delay_min <= 255 and 1 <= self.day <= 31):
            raise LocalProtocolError(f"{self} does not fit a time label")

    def to_bytes(self) -> bytes:
        """The six bytes of Tp."""
        parts = (self.at.second, self.at.minute, self.at.hour, self.day)
        return bytes((self.pfc, *(int_to_bcd(part, 1)[0] for part in parts), self.delay_min))

    def sent_at(self, clock: datetime) -> datetime:
        """The instant that the label means to a reader whose clock shows `clock`; both naive local time."""
        newest = clock + CLOCKS_APART
        year, month = newest.year, newest.month
        while True:  # no two months that follow each other both lack a day
            if self.day <= monthrange(year, month)[1]:
                meant = datetime.combine(date(year, month, self.day), self.at)
                if meant <= newest:
                    return meant
            year, month = (year, month - 1) if month > 1 else (year - 1, 12)

    def is_stale(self, clock: datetime) -> bool:
        """Whether the frame has been under way for longer than it may."""
        return self.delay_min != 0 and clock > self.sent_at(clock) + timedelta(minutes=self.delay_min)


def label(pfc: int, clock: datetime, delay_min: int) -> TimeLabel:
    """The label of a frame sent when the sender's clock shows `clock`."""
    return TimeLabel(pfc, clock.day, clock.time().replace(microsecond=0, tzinfo=None), delay_min)


def parse(tp: bytes) -> TimeLabel:
    """The label in the six bytes of Tp. RemoteProtocolError where they name no day and time."""
    if len(tp) != TP_LENGTH:
        raise RemoteProtocolError(tp, min(len(tp), TP_LENGTH), f"Tp has {TP_LENGTH} bytes")
    parts = []
    for place in range(1, 5):
        try:
            parts.append(bcd_to_int(tp[place : place + 1]))
        except ValueError as error:
            raise RemoteProtocolError(tp, place, f"Tp: {error}") from error
    second, minute, hour, day = parts
    try:
        at = time(hour, minute, second)
    except ValueError as error:
        raise RemoteProtocolError(tp, 1, f"Tp: {error}") from error
    if not 1 <= day <= 31:
        raise RemoteProtocolError(tp, 4, f"Tp: there is no day {day}")
    return TimeLabel(tp[0], day, at, tp[5])


def staleness(tp: bytes, clock: datetime) -> str | None:
    """Why a frame with this Tp is to be dropped by a reader whose clock shows `clock`; None: it is fresh.
    Where the delay is 0 the time is not looked at."""
    if tp[-1:] == b"\0":
        return None
    try:
        told = parse(tp)
    except RemoteProtocolError as error:
        return error.reason
    if told.is_stale(clock):
        return f"Tp: sent on day {told.day} at {told.at}, {told.delay_min} min permitted"
    return None
