"""The data formats of Q/GDW 376.1 a second time, written from the fact sheet and from nothing in protocols/.

A tape that is given bytes reads them; one that is given a random source makes bytes up as it goes, so that
one recipe over it (see `plain_qgdw376_parameters`) both reads data and tells what made-up data mean.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import date, datetime
from decimal import Decimal
from typing import Any

_TEXTS = ("停电通知", "催费", "a1 欠费10元", "")


class Tape:
    """Reads `data`, or makes data up; what it read or made is `data[:at]`. `said` holds the values from left
    to right, a bit string as its named bits from D0 up."""

    def __init__(self, data: bytes = b"", chance: random.Random | None = None) -> None:
        self.data = data
        self.chance = chance
        self.at = 0
        self.said: list[Any] = []

    def next(self, length: int, make: Callable[[random.Random], list[int]]) -> bytes:
        """The next `length` bytes."""
        if self.chance is not None:
            made = bytes(make(self.chance))
            assert len(made) == length
            self.data += made
        taken = self.data[self.at : self.at + length]
        assert len(taken) == length
        self.at += length
        return taken

    # -- whole numbers, bits, characters

    def u(self, length: int = 1) -> int | None:
        """BIN."""
        raw = self.next(length, lambda chance: [chance.randrange(256) for _ in range(length)])
        value = int(sum(byte * 256**place for place, byte in enumerate(raw)))
        self.said.append(None if length > 1 and set(raw) == {0xEE} else value)
        return value

    def count(self, length: int = 1) -> int:
        """BIN that says how many follow: few where it is made up."""
        raw = self.next(length, lambda chance: [chance.randrange(4)] + [0] * (length - 1))
        self.said.append(raw[0])
        return raw[0]

    def bits(self, length: int, *widths: int) -> list[int]:
        """A bit string's named parts from D0 up; a negative width is bits without a name."""
        free = sum(abs(width) for width in widths)

        def make(chance: random.Random) -> list[int]:
            value = place = 0
            for width in widths:
                value |= chance.randrange(2**width) << place if width > 0 else 0
                place += abs(width)
            return [value // 256**place % 256 for place in range(length)]

        raw = self.next(length, make)
        value = sum(byte * 256**place for place, byte in enumerate(raw))
        assert value < 2**free
        parts = []
        for width in widths:
            if width > 0:
                parts.append(value % 2**width)
            value //= 2 ** abs(width)
        self.said += parts
        return parts

    def mask(self, length: int = 1) -> int:
        """A bit string as one number; how many bits are set in it."""
        raw = self.next(length, lambda chance: [1 << chance.randrange(8) | 1] + [0] * (length - 1))
        value = sum(byte * 256**place for place, byte in enumerate(raw))
        self.said.append(value)
        return bin(value).count("1")

    def raw(self, length: int) -> None:
        self.said.append(self.next(length, lambda chance: list(chance.randbytes(length))))

    def text(self, length: int, padded: bool = True) -> None:
        """ASCII; padded: NULs at the end do not count."""

        def make(chance: random.Random) -> list[int]:
            used = chance.randint(0, length) if padded else length
            return [chance.randrange(33, 127) for _ in range(used)] + [0] * (length - used)

        raw = self.next(length, make)
        while padded and raw[-1:] == b"\0":
            raw = raw[:-1]
        self.said.append(raw.decode("ascii"))

    def chinese(self) -> None:
        """A length byte, and so many bytes of GB 2312."""
        chosen = b"" if self.chance is None else self.chance.choice(_TEXTS).encode("gb2312")
        length = self.next(1, lambda _: [len(chosen)])[0]
        self.said.append(length)
        self.said.append(self.next(length, lambda _: list(chosen)).decode("gb2312"))

    def ip(self) -> None:
        self.said.append(
            ".".join(str(byte) for byte in self.next(4, lambda chance: list(chance.randbytes(4))))
        )

    def dadt(self) -> None:
        """DA and DT: all points with all classes."""

        def make(chance: random.Random) -> list[int]:
            point = chance.choice([[0, 0], [1 << chance.randrange(8) | 1, chance.randint(1, 255)]])
            return [*point, 1 << chance.randrange(8) | 4, chance.randrange(31)]

        raw = self.next(4, make)
        points = [8 * (raw[1] - 1) + bit + 1 for bit in range(8) if raw[0] >> bit & 1] or [0]
        classes = [8 * raw[3] + bit + 1 for bit in range(8) if raw[2] >> bit & 1]
        self.said.append(tuple((point, fn) for point in points for fn in classes))

    # -- decimal digits, low byte first

    def bcd(self, length: int, decimals: int, signed: bool = False) -> None:
        """A.5, A.6, A.7, A.22, A.23, A.25, A.26."""

        def make(chance: random.Random) -> list[int]:
            if chance.randrange(12) == 0:
                return [0xEE] * length
            digits = [16 * chance.randrange(10) + chance.randrange(10) for _ in range(length)]
            if signed:
                digits[-1] = chance.randrange(2) << 7 | chance.randrange(8) << 4 | digits[-1] % 16
            return digits

        raw = self.next(length, make)
        if 0xEE in raw:
            self.said.append(None)
            return
        minus = signed and raw[-1] >= 0x80
        low_to_high = [*raw[:-1], raw[-1] - 0x80 if minus else raw[-1]]
        number = int("".join(f"{byte:02x}" for byte in reversed(low_to_high)))
        self.said.append(Decimal(number) / 10**decimals * (-1 if minus else 1))

    def digits(self, length: int) -> None:
        """All digits, the high one first in the text: A.12 and plain BCD."""
        raw = self.next(
            length, lambda chance: [16 * chance.randrange(10) + chance.randrange(10) for _ in range(length)]
        )
        self.said.append("".join(f"{byte:02x}" for byte in reversed(raw)))

    def a2(self) -> None:
        raw = self.next(
            2,
            lambda chance: [
                16 * chance.randrange(10) + chance.randrange(10),
                32 * chance.randrange(8) + 16 * chance.randrange(2) + chance.randrange(10),
            ],
        )
        if 0xEE in raw:
            self.said.append(None)
            return
        powers = ["10000", "1000", "100", "10", "1", "0.1", "0.01", "0.001"]
        digits = int(f"{raw[1] % 16}{raw[0]:02x}")
        self.said.append((-1 if raw[1] // 16 % 2 else 1) * digits * Decimal(powers[raw[1] // 32]))

    def a3(self) -> None:
        raw = self.next(
            4,
            lambda chance: [
                *(16 * chance.randrange(10) + chance.randrange(10) for _ in range(3)),
                64 * chance.randrange(2) + 16 * chance.randrange(2) + chance.randrange(10),
            ],
        )
        digits = int(f"{raw[3] % 16}{raw[2]:02x}{raw[1]:02x}{raw[0]:02x}")
        self.said.append((-1 if raw[3] & 16 else 1) * digits * Decimal(1000 if raw[3] & 64 else 1))

    def a4(self) -> None:
        raw = self.next(
            1, lambda chance: [chance.randrange(2) * 128 + chance.randrange(8) * 16 + chance.randrange(10)]
        )
        self.said.append(Decimal(int(f"{raw[0] % 128:02x}")) * (-1 if raw[0] > 127 else 1))

    # -- times

    def _parts(self, **most: int) -> list[int]:
        """BCD bytes in the order sent, each from 1 (day, month) or 0 up to `most`."""

        def make(chance: random.Random) -> list[int]:
            chosen = (chance.randint(name in ("day", "month"), top) for name, top in most.items())
            return [int(str(value), 16) for value in chosen]

        return [int(f"{byte:02x}") for byte in self.next(len(most), make)]

    def a1(self) -> None:
        """The weekday in D7-D5 of byte 5 is that of the date."""

        def make(chance: random.Random) -> list[int]:
            at = datetime(2000, 1, 1).fromordinal(chance.randint(730_300, 766_500))
            clock = [chance.randrange(60), chance.randrange(60), chance.randrange(24), at.day]
            packed = [int(str(value), 16) for value in (*clock, at.month, at.year % 100)]
            packed[4] += 32 * (at.weekday() + 1)
            return packed

        raw = list(self.next(6, make))
        raw[4] %= 32
        second, minute, hour, day, month, year = (int(f"{byte:02x}") for byte in raw)
        self.said.append(datetime(2000 + year, month, day, hour, minute, second))

    def a15(self) -> None:
        minute, hour, day, month, year = self._parts(minute=59, hour=23, day=28, month=12, year=99)
        self.said.append(datetime(2000 + year, month, day, hour, minute))

    def a18(self) -> None:
        """Day 00 is every day."""
        minute, hour, day = self._parts(minute=59, hour=23, day_or_none=28)
        self.said.append(f"{day:02d} {hour:02d}:{minute:02d}")

    def a19(self) -> None:
        minute, hour = self._parts(minute=59, hour=23)
        self.said.append(f"{hour:02d}:{minute:02d}")

    def a20(self) -> None:
        day, month, year = self._parts(day=28, month=12, year=99)
        self.said.append(date(2000 + year, month, day))
