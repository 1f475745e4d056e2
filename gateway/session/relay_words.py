"""What a meter's words mean for a relay command: refusals, numbers, times; and what may be shown of a
frame."""

from __future__ import annotations

import calendar
from collections.abc import Mapping
from datetime import datetime
from typing import Final

from gateway.command import Why
from gateway.door import Refused, Trouble
from gateway.model import Reason
from gateway.session.meter import MeterRefusal
from protocols.dlt645.control_messages import RELAY_CONTROL, SECURITY
from protocols.dlt645.messages import ErrorReply

_REFUSED: Final[Mapping[Reason, Why]] = {
    Reason.METER_REFUSED: Why.REFUSED_BY_METER,
    Reason.TERMINAL_ABSENT: Why.TERMINAL_ABSENT,
    Reason.NOT_SUPPORTED: Why.NOT_SUPPORTED,
}
"""All others: the meter did not answer, as far as anybody can tell; a stray answer of another meter, too."""

NO_SUCH_DATA: Final = "no such data"
"""How a meter says that it does not know what it was asked for."""

# Bits of a refusal, the weightiest first.
_ERR: Final = (
    (2, Why.NOT_AUTHENTICATED),  # password, authentication lost, deadline passed, keep-power: all of these
    (1, Why.NOT_SUPPORTED),
)
_CONTROL_WORD: Final = (
    (0, Why.SUSPENDED),
    (5, Why.KEEP_POWER_ON),
    (6, Why.KEEP_POWER_ON),
    (4, Why.DEADLINE),
    (1, Why.NOT_AUTHENTICATED),
    (2, Why.NOT_AUTHENTICATED),
    (3, Why.NOT_AUTHENTICATED),
)
_SERR: Final = (
    (8, Why.SUSPENDED),
    (3, Why.NOT_AUTHENTICATED),
    (2, Why.NOT_AUTHENTICATED),
)

# Where the bytes of 1CH in plain stand in its frame: 68, six of address, 68, C, L, PA, then P0 P1 P2.
_PA_AT: Final = 10
_PASSWORD_AT: Final = range(11, 14)
_MASK: Final = 0x33
_SEALED_LEVELS: Final = (0x98, 0x99)

NUMBER_DIGITS: Final = 12
_YEARS: Final = range(2000, 2100)


def trouble(refusal: MeterRefusal) -> Trouble:
    """Why something could not be read."""
    why = _REFUSED.get(refusal.reason, Why.METER_SILENT)
    if refusal.reason is Reason.METER_REFUSED and NO_SUCH_DATA in refusal.detail:
        why = Why.NOT_SUPPORTED
    return Trouble(why, refusal.detail)


def refused(error: ErrorReply, frame: bytes) -> Refused:
    """What a refusal of 1CH (one byte of ERR, or the two of the control error word) or of 03H (SERR) says."""
    bits: tuple[tuple[int, Why], ...] = _ERR
    if error.wide:
        bits = {RELAY_CONTROL: _CONTROL_WORD, SECURITY: _SERR}.get(error.function, ())
    why = next((why for bit, why in bits if error.error >> bit & 1), Why.REFUSED_BY_METER)
    return Refused(why, error.reasons or (f"error {error.error:02X}",), frame.hex(" "))


def shown(frame: bytes) -> str:
    """A 1CH frame as hex without its password, nor the checksum that would give a part of it away. What is
    sealed is no secret: it was made for this one frame."""
    told = [f"{byte:02X}" for byte in frame]
    if (frame[_PA_AT] - _MASK) & 0xFF not in _SEALED_LEVELS:
        for at in (*_PASSWORD_AT, len(frame) - 2):
            told[at] = "**"
    return " ".join(told)


def quoted(answer: bytes, frame: bytes) -> str:
    """What came after a 1CH frame, as hex and without an echo of that frame, since its password is in it."""
    rest = answer.replace(frame, b"")
    sealed = (frame[_PA_AT] - _MASK) & 0xFF in _SEALED_LEVELS
    if not sealed and frame[_PASSWORD_AT.start : _PASSWORD_AT.stop] in rest:
        return f"{len(answer)} bytes with the password in them"
    return rest.hex(" ")


def number(raw: bytes) -> str | None:
    """A meter number (six bytes BCD); None where it is none."""
    digits = raw[::-1].hex()
    return digits if len(raw) == NUMBER_DIGITS // 2 and digits.isdecimal() else None


def is_number(text: str) -> bool:
    """Has it the form of a meter number?"""
    return len(text) == NUMBER_DIGITS and text.isascii() and text.isdecimal()


def same_meter(told: str, assets: str) -> bool:
    """Is the number that a meter tells (twelve digits) the one that the assets have? Those may hold the whole
    number of the nameplate: what stands before the twelve digits, and a check digit behind them."""
    if told == assets or len(assets) <= NUMBER_DIGITS or not assets.isdecimal():
        return told == assets
    return told in (assets[-NUMBER_DIGITS:], assets[-NUMBER_DIGITS - 1 : -1])


def wall_clock(date: bytes, time: bytes) -> datetime | None:
    """A meter's clock out of 04000101 (WW DD MM YY) and 04000102 (ss mm hh); None where it is no time."""
    digits = date[:0:-1].hex() + time[::-1].hex()
    if len(date) != 4 or len(time) != 3 or not digits.isdecimal():
        return None
    year, month, day, hour, minute, second = (int(digits[at : at + 2]) for at in range(0, 12, 2))
    year += _YEARS.start
    if not (1 <= month <= 12 and 1 <= day <= calendar.monthrange(year, month)[1]):
        return None
    if hour > 23 or minute > 59 or second > 59:
        return None
    return datetime(year, month, day, hour, minute, second)
