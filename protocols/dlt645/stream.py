"""DL/T 645 frames out of a byte stream: any bytes give frames or damage, never an exception.

At a bad candidate the stream steps on one byte, for 68H may stand in data. Junk that follows on junk is one
`Damaged`, cut at LONGEST_DAMAGE; FEH outside a frame is lead-in and no damage. A byte is looked at a bounded
number of times, and what is held never exceeds `limit`.
"""

from __future__ import annotations

from dataclasses import dataclass

from protocols.dlt645.frame import LONGEST_FRAME, START, Frame, content, examine
from protocols.errors import LocalProtocolError
from protocols.wire import Damaged

# Long enough to see what went wrong in a log, short enough to keep thousands of them.
LONGEST_DAMAGE = 1024
# A read from a socket is at most 64 KiB; some of them may wait while the caller takes events.
DEFAULT_LIMIT = 1 << 20

NO_START = "no 68H"
CUT_SHORT = "cut short"


@dataclass(frozen=True, slots=True)
class FoundFrame:
    """Event: a whole good frame. raw: its bytes without lead-in; offset: place of its 68H in the stream."""

    frame: Frame
    raw: bytes
    offset: int


class FrameStream:
    """Feed with `receive_data`, then take events until `next_event` gives None."""

    def __init__(self, limit: int = DEFAULT_LIMIT) -> None:
        """limit: most bytes held at once; passing it for want of taking events is the caller's error."""
        if limit < LONGEST_FRAME:
            raise LocalProtocolError(f"limit {limit} is less than a frame of {LONGEST_FRAME}")
        self._limit = limit
        self._buffer = bytearray()
        self._offset = 0  # place of _buffer[0] in the stream
        self._junk = 0  # _buffer[:_junk] can be no part of a frame and is not yet told
        self._reason = ""  # why: the first candidate's fault, else NO_START
        self._ended = False

    @property
    def held(self) -> int:
        """Bytes waiting: junk not yet told, and the beginning of what may become a frame."""
        return len(self._buffer)

    def receive_data(self, data: bytes) -> None:
        """Take bytes from the peer. LocalProtocolError when events were left lying and `limit` is passed."""
        if len(self._buffer) + len(data) > self._limit:
            raise LocalProtocolError(f"more than {self._limit} bytes without taking events")
        self._buffer += data
        self._ended = False

    def end(self) -> None:
        """No more bytes will come for what is held (silence, closed line): let the next events flush it."""
        self._ended = True

    def next_event(self) -> FoundFrame | Damaged | None:
        """The next frame or damage; None when nothing more can be told before more bytes come."""
        buffer = self._buffer
        while True:
            if not self._junk:
                self._skip_lead_in()
            place = buffer.find(START, self._junk, LONGEST_DAMAGE)
            if place < 0:
                self._condemn(min(len(buffer), LONGEST_DAMAGE), NO_START)
                return self._tell_junk() if self._junk else None
            self._condemn(place, NO_START)
            verdict = examine(buffer, place)
            if isinstance(verdict, int):
                if place:
                    return self._tell_junk()
                raw = bytes(buffer[:verdict])
                found = FoundFrame(content(raw), raw, self._offset)
                self._forget(verdict)
                return found
            if verdict is None and not self._ended:
                return None
            self._condemn(place + 1, verdict or CUT_SHORT)

    def _skip_lead_in(self) -> None:
        # By pieces: a copy of the whole buffer at each frame would make the time quadratic.
        while self._buffer[:1] == b"\xfe":
            piece = self._buffer[:64]
            self._forget(len(piece) - len(piece.lstrip(b"\xfe")))

    def _condemn(self, until: int, reason: str) -> None:
        if until > self._junk:
            self._junk = until
            if self._reason in ("", NO_START):
                self._reason = reason

    def _tell_junk(self) -> Damaged:
        # Junk never begins with FEH (it was skipped), so something is left.
        raw = bytes(self._buffer[: self._junk]).rstrip(b"\xfe")
        damaged = Damaged(raw, self._offset, self._reason)
        self._forget(self._junk)
        return damaged

    def _forget(self, length: int) -> None:
        del self._buffer[:length]
        self._offset += length
        self._junk = 0
        self._reason = ""
