"""What the coverage-guided targets make of an input, and the corpus that they grow.

An input is a list of pieces, each a byte of kind, one of length (in steps of 4, so that a piece may be long)
and its content. Kinds that say "frame" get start, length, checksum and end put around the content, so that
the search spends its time on what is inside.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from tests.fuzz.mutations import Family, Seed
from tests.fuzz.peers import Peers
from tests.fuzz.seeds import field_seeds, made_seeds

CORPUS = Path(__file__).parent / "corpus"
LARGEST_CORPUS = 140_000
"""Characters of one family's file."""
_RAW, _FRAME, _ASK, _WAIT = range(4)
_STEP = 4


def target(family: Family) -> Callable[[bytes], None]:
    """The function that tries one input with everybody of `family`, new each time."""
    questions = [seed for seed in (*field_seeds(), *made_seeds()) if seed.family is family]

    def try_input(data: bytes) -> None:
        peers = Peers(random.Random(1))
        for kind, content in pieces(data):
            if kind == _ASK:
                number = int.from_bytes(content[:2], "little")
                peers.ask(questions[number % len(questions)])
            elif kind == _WAIT:
                peers.now += 40.0
                peers.feed(b"", family)
            else:
                raw = framed(content, family) if kind == _FRAME else content
                peers.feed(raw, family)
                peers.view(raw)

    return try_input


def pieces(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Kind and content of each piece."""
    at = 0
    while at + 2 <= len(data):
        length = data[at + 1] * _STEP
        yield data[at] & 3, data[at + 2 : at + 2 + length]
        at += 2 + length


def framed(content: bytes, family: Family) -> bytes:
    """A frame of that family with `content` inside: 645 address, C and data; 376.1 user data."""
    if family is Family.METER:
        content = content.ljust(7, b"\0")[: 7 + 255]
        data = bytes((byte + 0x33) & 0xFF for byte in content[7:])
        summed = b"\x68" + content[:6] + b"\x68" + content[6:7] + bytes([len(data)]) + data
        return summed + bytes([sum(summed) & 0xFF, 0x16])
    length = (len(content) << 2 | 2).to_bytes(2, "little")
    return b"\x68" + 2 * length + b"\x68" + content + bytes([sum(content) & 0xFF, 0x16])


def input_of(seeds: Iterable[Seed]) -> bytes:
    """An input of these frames, one after the other."""
    told = b""
    for seed in seeds:
        raw = seed.raw
        if seed.family is Family.METER:
            content = raw[1:7] + raw[8:9] + bytes((byte - 0x33) & 0xFF for byte in raw[10:-2])
        else:
            content = raw[6:-2]
        # Filled up to the step; 376.1 keeps the filler, which is one more thing to look at.
        steps = -(-len(content) // _STEP)
        told += bytes((_FRAME, min(steps, 255))) + content.ljust(steps * _STEP, b"\0")
    return told


def first_inputs(family: Family) -> list[bytes]:
    """What the search begins with where there is no corpus: field frames alone and by threes."""
    seeds = [seed for seed in field_seeds() if seed.family is family]
    alone = [input_of([seed]) for seed in (*seeds, *(one for one in made_seeds() if one.family is family))]
    return [*alone, *(input_of(seeds[at : at + 3]) for at in range(0, len(seeds), 3))]


def load(family: Family) -> list[bytes]:
    """The inputs that are kept."""
    path = CORPUS / f"{family.value}.txt"
    return [bytes.fromhex(line) for line in path.read_text().split()] if path.exists() else []


def save(family: Family, inputs: Iterable[bytes]) -> None:
    """Keep these inputs, the shortest first, as many as LARGEST_CORPUS holds."""
    lines: list[str] = []
    left = LARGEST_CORPUS
    for line in sorted({one.hex() for one in inputs if one}, key=lambda one: (len(one), one)):
        left -= len(line) + 1
        if left < 0:
            break
        lines.append(line)
    CORPUS.mkdir(exist_ok=True)
    (CORPUS / f"{family.value}.txt").write_text("".join(f"{line}\n" for line in lines))
