"""A frame whose password is masked, compared with its keyed hash: by trying passwords, which only who holds
the secret of the hash can do. The password itself is told to nobody."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Sequence
from typing import Final

from gateway.storage.event_bodies import MASKED
from gateway.storage.frame_secret import FrameSecret

_CHECKSUM_FROM_END: Final = 2
_PASSWORD_BYTES: Final = 3
_DIGITS: Final = tuple((tens << 4 | ones) + 0x33 for tens in range(10) for ones in range(10))
"""Two digits of a password, as a byte of the data field."""


def is_that_frame(shown: str, hmac: str, secret: FrameSecret, digits: Sequence[int] = _DIGITS) -> bool:
    """Is there a password of six digits with which this frame, told as hex, has that keyed hash? Takes some
    seconds of one core. False also where it does not hide just a password and the checksum over it."""
    told = shown.split()
    hidden = [place for place, one in enumerate(told) if one == MASKED]
    checksum = len(told) - _CHECKSUM_FROM_END
    if len(hidden) != _PASSWORD_BYTES + 1 or hidden[-1] != checksum or hidden[2] - hidden[0] != 2:
        return False
    try:
        before = bytes.fromhex("".join(told[: hidden[0]]))
        between = bytes.fromhex("".join(told[hidden[2] + 1 : checksum]))
        end = bytes.fromhex(told[-1])
    except ValueError:
        return False
    begun, known = hashlib.sha256(before), sum(before) + sum(between)
    for password in itertools.product(digits, repeat=_PASSWORD_BYTES):
        frame = begun.copy()
        frame.update(bytes(password) + between + bytes([known + sum(password) & 0xFF]) + end)
        if secret.keyed(frame.digest()) == hmac:
            return True
    return False
