"""DA and DT: which information points (p) and classes (F) a data unit is about.

p0 is DA 00 00. Otherwise DA2 names a group of eight points and DA1 has a bit for each; DT likewise. Several
bits may be set: then the data run through the points in rising order, and for each through the classes.
"""

from __future__ import annotations

from functools import lru_cache

import construct

from protocols.errors import LocalProtocolError

LARGEST_PN = 2040
LARGEST_FN = 248
LARGEST_TOLD_FN = 2048
"""What a DT can say: vendors go beyond the standard, and what they name in a record is kept."""

_BITS = tuple(tuple(bit for bit in range(8) if byte >> bit & 1) for byte in range(256))


@lru_cache(maxsize=8192)
def points(da: bytes) -> tuple[int, ...]:
    """Points of a DA, rising; empty where it names none (bits without a group, or a group without bits)."""
    bits, group = da
    if group == 0:
        return () if bits else (0,)
    return tuple((group - 1) * 8 + bit + 1 for bit in _BITS[bits])


@lru_cache(maxsize=8192)
def classes(dt: bytes) -> tuple[int, ...]:
    """Classes of a DT, rising; empty where it has no bit. The standard ends at F248, vendors go beyond."""
    bits, group = dt
    return tuple(group * 8 + bit + 1 for bit in _BITS[bits])


@lru_cache(maxsize=8192)
def identifier(pn: int, fn: int, largest_fn: int = LARGEST_FN) -> bytes:
    """DA and DT of one point and one class. LocalProtocolError where there is no such point or class."""
    if not 0 <= pn <= LARGEST_PN:
        raise LocalProtocolError(f"p{pn} is not within 0..{LARGEST_PN}")
    if not 1 <= fn <= largest_fn:
        raise LocalProtocolError(f"F{fn} is not within 1..{largest_fn}")
    da = bytes((1 << (pn - 1) % 8, (pn - 1) // 8 + 1)) if pn else bytes(2)
    return da + bytes((1 << (fn - 1) % 8, (fn - 1) // 8))


def _encode(pair: tuple[tuple[int, ...], tuple[int, ...]]) -> bytes:
    (pn,), (fn,) = pair
    return identifier(pn, fn)


IDENTIFIER = construct.ExprAdapter(
    construct.Bytes(4),
    lambda raw, _: (points(raw[:2]), classes(raw[2:])),
    lambda pair, _: _encode(pair),
)
"""construct field: ((pn, …), (fn, …)); written for one of each."""
