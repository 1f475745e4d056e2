"""PW, the message authentication of down frames of AFN 01 04 05 06 0F 10: schemes to make and to check it.

A scheme is given the user data from C to the last byte of the data units, and makes the PW that follows. In
the field most links run with zeros or a fixed PW. Scheme 1 of AFN04 F5 is a CRC-16 whose polynomial and
placing sources leave open: so they are settings. Scheme 255 is a module of the owner's."""

from __future__ import annotations

import hmac
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol

import crcmod

from protocols.errors import LocalProtocolError
from protocols.q_gdw376.units import PASSWORD_LENGTHS

LENGTH = 16


class Scheme(Protocol):
    """How PW comes about."""

    @property
    def length(self) -> int:
        """Bytes of PW: 16, in Q/GDW 130-2005 2."""
        ...

    def make(self, user_data: bytes) -> bytes:
        """PW behind `user_data` (C to the last data byte)."""
        ...

    def accepts(self, user_data: bytes, password: bytes) -> bool:
        """Whether `password` is right behind `user_data`. Never raises: a peer sent both."""
        ...


class Place(Enum):
    """Where in PW the two bytes of the CRC stand; the others are zero."""

    FIRST_LOW = "first-low"
    FIRST_HIGH = "first-high"
    LAST_LOW = "last-low"
    LAST_HIGH = "last-high"


@dataclass(frozen=True, slots=True)
class Fixed:
    """The same PW always. LocalProtocolError where it is not 2 or 16 bytes."""

    password: bytes

    def __post_init__(self) -> None:
        _check_length(len(self.password))

    @property
    def length(self) -> int:
        return len(self.password)

    def make(self, user_data: bytes) -> bytes:
        return self.password

    def accepts(self, user_data: bytes, password: bytes) -> bool:
        return hmac.compare_digest(password, self.password)


@dataclass(frozen=True, slots=True)
class Unchecked:
    """No authentication (scheme 0): zeros are sent, and any PW is right."""

    length: int = LENGTH

    def __post_init__(self) -> None:
        _check_length(self.length)

    def make(self, user_data: bytes) -> bytes:
        return bytes(self.length)

    def accepts(self, user_data: bytes, password: bytes) -> bool:
        return True


@dataclass(frozen=True, slots=True)
class Crc16:
    """CRC-16 of the user data (scheme 1).

    polynomial: its lower 16 bits, 0x1021 for x16 + x12 + x5 + 1. seed: what the register begins with; the two
    parameter bytes of AFN04 F5 are taken for it. reflected: bits go in and out low first. xor_out: what the
    result is combined with. The defaults are one guess among several; ask for the terminal's.
    """

    seed: int = 0
    polynomial: int = 0x1021
    reflected: bool = False
    xor_out: int = 0
    place: Place = Place.FIRST_LOW
    length: int = LENGTH
    _crc: Callable[[bytes], int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        _check_length(self.length)
        if not all(0 <= value <= 0xFFFF for value in (self.seed, self.polynomial, self.xor_out)):
            raise LocalProtocolError(f"{self} has a value of more than 16 bits")
        # crcmod takes the register's beginning as it would read after xor_out.
        crc = crcmod.mkCrcFun(
            0x10000 | self.polynomial,
            initCrc=self.seed ^ self.xor_out,
            rev=self.reflected,
            xorOut=self.xor_out,
        )
        object.__setattr__(self, "_crc", crc)

    def make(self, user_data: bytes) -> bytes:
        low_first = self.place in (Place.FIRST_LOW, Place.LAST_LOW)
        two = self._crc(user_data).to_bytes(2, "little" if low_first else "big")
        rest = bytes(self.length - len(two))
        return two + rest if self.place in (Place.FIRST_LOW, Place.FIRST_HIGH) else rest + two

    def accepts(self, user_data: bytes, password: bytes) -> bool:
        return hmac.compare_digest(password, self.make(user_data))


@dataclass(frozen=True, slots=True)
class External:
    """PW from elsewhere: a security module, a crypto machine (scheme 255).

    maker: user data -> PW of `length` bytes; what it raises is passed on by `make`. checker: (user data, PW)
    -> right or not; by default PW is made again and compared. One that raises has not accepted.
    """

    maker: Callable[[bytes], bytes]
    checker: Callable[[bytes, bytes], bool] | None = None
    length: int = LENGTH

    def __post_init__(self) -> None:
        _check_length(self.length)

    def make(self, user_data: bytes) -> bytes:
        password = self.maker(user_data)
        if len(password) != self.length:
            raise LocalProtocolError(f"the password module gave {len(password)} bytes, not {self.length}")
        return password

    def accepts(self, user_data: bytes, password: bytes) -> bool:
        try:
            if self.checker is not None:
                return self.checker(user_data, password)
            return hmac.compare_digest(password, self.make(user_data))
        except Exception:  # the module is somebody else's: whatever it raises, nothing was proved
            return False


def _check_length(length: int) -> None:
    if length not in PASSWORD_LENGTHS:
        raise LocalProtocolError(f"a password of {length} bytes: it has 2 or 16")
