"""Frames made worse on purpose, field by field, with length and checksum repaired so that the damage gets
past the first door."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TypeVar

from protocols.dlt645.connection import MasterRequest
from protocols.permit import Permit
from protocols.q_gdw376 import messages as messages376

START = 0x68
LONGEST = 4000
"""What a mutation may grow to; longer ones are the business of the tests of time."""

_T = TypeVar("_T")
_Span = tuple[int, int]
# Where fields stand: address, C, L, DI and data of 645; lengths, C, A1..A3, AFN, SEQ, DA, DT and data of
# 376.1, and from the end what may be PW, EC and Tp. Data is named often: most meaning is there.
_METER_FIELDS: tuple[_Span, ...] = (
    (1, 7), (8, 9), (9, 10), (10, 14), (10, 14), (10, 12), (14, -2), (14, -2), (14, 20), (-4, -2),
)  # fmt: skip
_TERMINAL_FIELDS: tuple[_Span, ...] = (
    (1, 5), (6, 7), (7, 12), (12, 13), (13, 14), (14, 16), (16, 18), (16, 18), (18, 21), (18, 24), (18, -2),
    (18, -2), (-24, -2), (-10, -2),
)  # fmt: skip
_TELLING = bytes.fromhex("00 01 02 04 14 16 31 33 68 7f 80 98 99 9a aa e0 ee ef fe ff 12 1a 1c 29 30 59 60")
_FILLERS = bytes.fromhex("00 ee ee ef ff aa 99 68")
_MASK = 0x33


class Family(Enum):
    """Whose frame a seed is."""

    METER = "dlt645"
    TERMINAL = "qgdw376"


@dataclass(frozen=True, slots=True)
class Seed:
    """A good frame without lead-in, and what a master asks whom it shall answer (None: nobody asks that)."""

    family: Family
    raw: bytes
    edition: str = "2007"
    question: MasterRequest | messages376.Request | None = None
    permit: Permit | None = None


class Mutator:
    """Endless mutations of some seeds. The same seeds and chance give the same cases."""

    def __init__(self, fields: Sequence[Seed], made: Sequence[Seed], chance: random.Random) -> None:
        """fields: frames that were captured, made: others; each pool gives half of the cases."""
        self._pools = (tuple(fields), tuple(made))
        self._chance = chance
        self._random = chance.random
        self._ways: tuple[Callable[[bytearray, Seed], None], ...] = (
            self._field, self._field, self._field, self._field, self._bit, self._put_in, self._take_out,
            self._double, self._fill, self._splice, self._graft, self._repeat, self._nest,
        )  # fmt: skip

    def seed(self) -> Seed:
        """Some seed."""
        return self._pick(self._pools[self._random() < 0.5])

    def worsen(self, seed: Seed) -> bytearray:
        """`seed` with one to six things changed within the frame; not repaired."""
        raw = bytearray(seed.raw)
        for _ in range((1, 1, 1, 2, 3, 6)[int(self._random() * 6)]):
            if raw:
                self._ways[int(self._random() * len(self._ways))](raw, seed)
        del raw[LONGEST:]
        return raw

    def finish(self, raw: bytearray, seed: Seed) -> bytes:
        """`raw` with its checksum (four of five) and length (three of five) right, and perhaps what stands
        around it made worse: noise, lead-in, another frame, a cut, a length that lies."""
        if self._random() < 0.8:
            repair(raw, lengths=self._random() < 0.75)
        if self._random() < 0.85:
            return bytes(raw)
        other = self.seed().raw
        match int(self._random() * 7):
            case 0:
                raw[:0] = self._bytes(9)
            case 1:
                raw[:0] = b"\xfe" * (1 + int(self._random() * 5))
            case 2:
                raw[:0] = other[: self._place(other) + 1]
            case 3:
                raw += other
            case 4:
                del raw[self._place(raw) :]
            case 5:
                at = self._place(raw)
                raw[at:at] = other
            case _:
                self._lie(raw, seed.family)
        return bytes(raw)

    def case(self) -> bytes:
        """One mutation of some seed."""
        seed = self.seed()
        return self.finish(self.worsen(seed), seed)

    # -- one change each

    def _field(self, raw: bytearray, seed: Seed) -> None:
        meter = seed.family is Family.METER
        first, last = self._pick(_METER_FIELDS if meter else _TERMINAL_FIELDS)
        size = len(raw)
        first, last = max(0, first + size if first < 0 else first), last + size if last < 0 else last
        if first >= min(last, size):
            return
        at = first + int(self._random() * (min(last, size) - first))
        match int(self._random() * 5):
            case 0 | 1:
                value = self._pick(_TELLING)
                raw[at] = (value + _MASK) & 0xFF if meter and first >= 10 else value
            case 2:
                raw[at] = int(self._random() * 256)
            case 3:
                raw[at] ^= 1 << int(self._random() * 8)
            case _:
                raw[at] = (raw[at] + (1 if self._random() < 0.5 else -1)) & 0xFF

    def _bit(self, raw: bytearray, seed: Seed) -> None:
        raw[self._place(raw)] ^= 1 << int(self._random() * 8)

    def _put_in(self, raw: bytearray, seed: Seed) -> None:
        at = self._place(raw)
        raw[at:at] = self._bytes(9)

    def _take_out(self, raw: bytearray, seed: Seed) -> None:
        at = self._place(raw)
        del raw[at : at + 1 + int(self._random() * 9)]

    def _double(self, raw: bytearray, seed: Seed) -> None:
        at = self._place(raw)
        raw[at:at] = raw[at : at + 1 + int(self._random() * 40)]

    def _fill(self, raw: bytearray, seed: Seed) -> None:
        at = self._place(raw)
        count = min(1 + int(self._random() * 24), len(raw) - at)
        raw[at : at + count] = bytes((self._pick(_FILLERS),)) * count

    def _splice(self, raw: bytearray, seed: Seed) -> None:
        """The head of one frame, the tail of another."""
        other = self.seed().raw
        raw[self._place(raw) :] = other[self._place(other) :]

    def _graft(self, raw: bytearray, seed: Seed) -> None:
        """What another frame of the family says is put into this one, where a unit or item may begin."""
        other = self.seed()
        if other.family is not seed.family:
            return
        at = min(14 if seed.family is Family.TERMINAL else 10, max(0, len(raw) - 2))
        if self._random() < 0.3:
            at = max(at, self._place(raw))
        raw[at:at] = other.raw[14 if seed.family is Family.TERMINAL else 10 : -2]

    def _repeat(self, raw: bytearray, seed: Seed) -> None:
        """All that the frame says, several times: many units, long blocks."""
        first = 14 if seed.family is Family.TERMINAL else 10
        said = bytes(raw[first:-2])
        if said:
            times = min(1 + int(self._random() ** 3 * 40), LONGEST // len(said))
            raw[-2:-2] = said * times

    def _nest(self, raw: bytearray, seed: Seed) -> None:
        """A whole frame within this one: forwarded (AFN10 F1) with its own length, or just there."""
        other = self.seed().raw
        if seed.family is Family.TERMINAL and len(raw) >= 16 and self._random() < 0.7:
            up = raw[6] & 0x80
            raw[12] = 0x10
            head = b"\x1f" if up else b"\x1f\x6b\xbc\x0a"
            length = len(other) + (int(self._random() * 9) - 4 if self._random() < 0.2 else 0)
            content = b"\x00\x00\x01\x00" + head + max(0, length).to_bytes(2, "little") + other
            raw[14:-2] = content if up else content + bytes(16)
        else:
            at = self._place(raw)
            raw[at:at] = other

    def _lie(self, raw: bytearray, family: Family) -> None:
        """A length that is none, everything else being right."""
        if family is Family.METER and len(raw) > 9:
            raw[9] = int(self._random() * 256)
            raw[-2] = sum(raw[:-2]) & 0xFF
        elif len(raw) > 5:
            raw[1:3] = raw[3:5] = (int(self._random() * 0x4000) << 2 | 2).to_bytes(2, "little")

    # -- chance

    def _place(self, raw: bytes | bytearray) -> int:
        return int(self._random() * len(raw))

    def _bytes(self, most: int) -> bytes:
        return self._chance.randbytes(1 + int(self._random() * (most - 1)))

    def _pick(self, some: Sequence[_T]) -> _T:
        return some[int(self._random() * len(some))]


def repair(raw: bytearray, *, lengths: bool) -> None:
    """Set both 68H, 16H, the checksum and, if asked, the length, of whichever family the bytes look like."""
    if len(raw) < 12:
        return
    raw[0], raw[-1] = START, 0x16
    if raw[5] == START and raw[7] != START and len(raw) >= 16:
        user = len(raw) - 8
        if lengths and user < 1 << 14:
            raw[1:3] = raw[3:5] = (user << 2 | (raw[1] & 3)).to_bytes(2, "little")
        raw[-2] = sum(raw[6:-2]) & 0xFF
    else:
        raw[7] = START
        if lengths and len(raw) - 12 < 256:
            raw[9] = len(raw) - 12
        raw[-2] = sum(raw[:-2]) & 0xFF
