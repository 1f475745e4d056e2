"""Is our own clock right? The kernel knows whether a time service keeps it."""

from __future__ import annotations

import ctypes
from functools import cache
from typing import Final

_STA_UNSYNC: Final = 0x0040
_TIMEX_BYTES: Final = 256
"""struct timex has 208 on 64-bit Linux; `modes` = 0 only reads."""
_STATUS_OFFSET: Final = 40
"""modes 4 (+4), offset 8, freq 8, maxerror 8, esterror 8, then status."""


@cache
def _library() -> ctypes.CDLL:
    """Loaded once: it is asked beside each write of a trip."""
    return ctypes.CDLL(None, use_errno=True)


def synchronised() -> bool:
    """True where the kernel says that a time service disciplines the clock; False where it cannot tell."""
    buffer = ctypes.create_string_buffer(_TIMEX_BYTES)
    try:
        state = _library().adjtimex(buffer)
    except (OSError, AttributeError):
        return False
    status = int.from_bytes(buffer.raw[_STATUS_OFFSET : _STATUS_OFFSET + 4], "little", signed=True)
    return state >= 0 and not status & _STA_UNSYNC
