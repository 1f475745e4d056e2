"""Frames made worse on purpose, with the checksum repaired so that the damage gets past the first door."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

START = 0x68


def mutated(frames: Sequence[bytes], chance: random.Random) -> Iterator[bytes]:
    """Endless mutations of `frames`: bits, bytes, lengths, splices; three of four are repaired."""
    while True:
        raw = bytearray(chance.choice(frames))
        for _ in range(chance.choice((1, 1, 1, 2, 3, 6))):
            _worsen(raw, frames, chance)
        if chance.random() < 0.75:
            repair(raw, lengths=chance.random() < 0.7)
        yield bytes(raw)


def _worsen(raw: bytearray, frames: Sequence[bytes], chance: random.Random) -> None:
    at = chance.randrange(len(raw)) if raw else 0
    match chance.randrange(8):
        case 0 if raw:
            raw[at] ^= 1 << chance.randrange(8)
        case 1 if raw:
            raw[at] = chance.choice(
                (0x00, 0x16, 0x33, 0x68, 0x7F, 0xAA, 0xEE, 0xFE, 0xFF, chance.randrange(256))
            )
        case 2:
            raw[at:at] = chance.randbytes(chance.randrange(1, 9))
        case 3:
            del raw[at : at + chance.randrange(1, 9)]
        case 4:
            raw[at:at] = raw[at : at + chance.randrange(1, 40)]
        case 5:
            other = chance.choice(frames)
            raw[at:] = other[chance.randrange(len(other)) :]
        case 6 if len(raw) > 16:
            raw[chance.randrange(1, 16)] = chance.randrange(256)
        case _:
            raw[at : at + 5] = b"\xee" * 5


def repair(raw: bytearray, *, lengths: bool) -> None:
    """Set both 68H, 16H, the checksum and, if asked, the length, of whichever family the bytes look like."""
    while raw and raw[0] == 0xFE:
        del raw[0]
    if len(raw) < 12:
        return
    raw[0], raw[-1] = START, 0x16
    if raw[5] == START and raw[7] != START and len(raw) >= 16:
        user = len(raw) - 8
        if lengths:
            raw[1:3] = raw[3:5] = (user << 2 | 2).to_bytes(2, "little") if user < 1 << 14 else raw[1:3]
        raw[-2] = sum(raw[6:-2]) & 0xFF
    else:
        raw[7] = START
        if lengths and len(raw) - 12 < 256:
            raw[9] = len(raw) - 12
        raw[-2] = sum(raw[:-2]) & 0xFF
