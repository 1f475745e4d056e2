"""The pieces that data fields share in both editions: DI, addresses, authority, times.

Everything travels low byte first; texts are hex digits, high byte first, as a person writes them.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import construct

from protocols.dlt645.frame import BROADCAST, WILDCARD
from protocols.errors import LocalProtocolError

EDITION_2007 = "2007"
EDITION_1997 = "1997"

# Hex digits of a DI: the length tells the edition.
_DI_DIGITS = {8: EDITION_2007, 4: EDITION_1997}
_DIGITS = frozenset("0123456789")

# 2007 table of PA: 00..09 with a password in plain, 98 cipher and MAC, 99 plain and MAC.
PLAIN_LEVELS = frozenset(f"{level:02d}" for level in range(10))
MAC_LEVELS = frozenset(("98", "99"))


def di_text(data: bytes) -> str:
    """The 2007 DI at the start of a data field as eight hex digits, high byte first."""
    return data[3::-1].hex()


def di_bytes(di: str) -> bytes:
    """Eight hex digits to DI0..DI3, or four to DI0 DI1. LocalProtocolError where `di` is anything else."""
    try:
        raw = bytes.fromhex(di)
    except ValueError:
        raw = b""
    if 2 * len(raw) != len(di) or len(di) not in _DI_DIGITS:
        raise LocalProtocolError(f"DI {di!r} is neither eight hex digits (2007) nor four (1997)")
    return raw[::-1]


def edition_of_di(di: str) -> str:
    """Which edition a DI is of. LocalProtocolError where it is none."""
    if len(di) not in _DI_DIGITS:
        raise LocalProtocolError(f"DI {di!r} is neither eight hex digits (2007) nor four (1997)")
    return _DI_DIGITS[len(di)]


def address_bytes(address: str) -> bytes:
    """Twelve digits to A0..A5. LocalProtocolError where they are anything else."""
    try:
        raw = bytes.fromhex(address)
    except ValueError:
        raw = b""
    if len(raw) != 6 or len(address) != 12:
        raise LocalProtocolError(f"address {address!r} is not 12 digits")
    return raw[::-1]


def is_single(address: str) -> bool:
    """Whether one meter is meant: twelve decimal digits, no wildcard and not the broadcast address."""
    return len(address) == 12 and _DIGITS.issuperset(address) and address != BROADCAST


def demand_single(address: str, what: str, *, broadcast: bool = False, wildcard: bool = False) -> None:
    """LocalProtocolError unless `address` is one meter, or what is allowed beside that for `what`."""
    if is_single(address) or (broadcast and address == BROADCAST) or (wildcard and address == WILDCARD):
        return
    raise LocalProtocolError(f"{what} goes to one meter, not to {address!r}")


def moment(raw: bytes) -> datetime:
    """ss mm hh DD MM YY to the meter's wall clock, 20YY. ValueError where it is no time."""
    digits = raw[::-1].hex()
    if len(raw) != 6 or not digits.isdecimal():
        raise ValueError(f"no time: {raw.hex(' ')}")
    year, month, day, hour, minute, second = (int(digits[at : at + 2]) for at in range(0, 12, 2))
    return datetime(2000 + year, month, day, hour, minute, second)


def moment_bytes(at: datetime) -> bytes:
    """The wall clock as ss mm hh DD MM YY. LocalProtocolError outside 2000..2099, or with a zone."""
    if at.tzinfo is not None or not 2000 <= at.year <= 2099:
        raise LocalProtocolError(f"{at} is no wall clock of 2000..2099")
    return bytes.fromhex(f"{at:%S%M%H%d%m}{at.year % 100:02d}")


@dataclass(frozen=True, slots=True)
class Authority:
    """Who may: level is PA ("02"), password P2 P1 P0, operator C3..C0 ("" in 1997, which has none)."""

    level: str
    password: str = "000000"
    operator: str = "00000000"

    @property
    def has_mac(self) -> bool:
        """Levels 98 and 99: an authenticated session and a MAC stand for the password."""
        return self.level in MAC_LEVELS

    def check(self) -> None:
        """LocalProtocolError where the standard has no such level."""
        if self.level not in PLAIN_LEVELS | MAC_LEVELS:
            raise LocalProtocolError(f"there is no level {self.level!r} (00..09, 98, 99)")


def hex_digits(length: int) -> Any:
    """Layout: `length` bytes, low byte first, as hex digits, high byte first."""
    return construct.ExprAdapter(
        construct.Bytes(length),
        lambda raw, context: raw[::-1].hex(),
        lambda digits, context: bytes.fromhex(digits)[::-1],
    )


DI_2007 = hex_digits(4)
DI_1997 = hex_digits(2)
ADDRESS = construct.ExprAdapter(
    construct.Bytes(6),
    lambda raw, context: raw[::-1].hex().upper(),
    lambda digits, context: address_bytes(digits),
)
MOMENT = construct.ExprAdapter(
    construct.Bytes(6),
    lambda raw, context: moment(raw),
    lambda at, context: moment_bytes(at),
)
_LEVEL_AND_PASSWORD = construct.Struct("level" / hex_digits(1), "password" / hex_digits(3))
_WITH_OPERATOR = construct.Struct(
    "level" / hex_digits(1), "password" / hex_digits(3), "operator" / hex_digits(4)
)
# PA P0 P1 P2 C0..C3.
AUTHORITY = construct.ExprAdapter(
    _WITH_OPERATOR,
    lambda found, context: Authority(found.level, found.password, found.operator),
    lambda told, context: {"level": told.level, "password": told.password, "operator": told.operator},
)
# PA P0 P1 P2: all of it in 1997, and the old and new passwords of both editions.
PASSWORD = construct.ExprAdapter(
    _LEVEL_AND_PASSWORD,
    lambda found, context: Authority(found.level, found.password, ""),
    lambda told, context: {"level": told.level, "password": told.password},
)
