"""Q/GDW 376.1 frames out of a byte stream: any bytes give frames or damage, never an exception.

At a bad candidate the stream steps on one byte, for 68H may stand in data and lengths may lie. Junk that
follows on junk is one `Damaged`, cut at LONGEST_DAMAGE. Every byte is looked at a bounded number of times,
and once `next_event` has given None no more is held than one frame and one piece of damage.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate

from protocols.errors import LocalProtocolError
from protocols.q_gdw376.frame import (
    END,
    LARGEST_USER_DATA,
    OVERHEAD,
    START,
    Frame,
    announced,
    checksum,
    content,
)
from protocols.wire import Damaged

# Long enough to see what went wrong in a log, short enough to keep thousands of them.
LONGEST_DAMAGE = 1024
# A read from a socket is at most 64 KiB; some of them may wait while the caller takes events.
DEFAULT_HOLD = 1 << 20
# How far the running sums may trail behind the buffer before their spent part is cut off.
_SPENT_SUMS = 1 << 15

_NO_START = "no 68H"


@dataclass(frozen=True, slots=True)
class FoundFrame:
    """Event: a whole good frame. raw: its bytes; offset: place of its first 68H in the stream."""

    frame: Frame
    raw: bytes
    offset: int


class FrameStream:
    """Feed with `receive_data`, then take events until `next_event` gives None."""

    def __init__(self, limit: int = LARGEST_USER_DATA, hold: int = DEFAULT_HOLD) -> None:
        """limit: most user data bytes of a frame on this channel. hold: most bytes waiting at once; more than
        that between two rounds of events is the caller's error."""
        if hold < limit + OVERHEAD + LONGEST_DAMAGE:
            raise LocalProtocolError(f"holding {hold} bytes is too little for frames of {limit}")
        self._limit = limit
        self._hold = hold
        self._buffer = bytearray()
        self._offset = 0  # place of _buffer[0] in the stream
        self._at = 0  # where the search stands; _buffer[:_at] is junk not yet told
        self._reason = ""  # why the junk is junk: the first candidate's fault, else "no 68H"
        self._ended = False
        self._step_on = False
        # Running sums of the buffer, kept only once a checksum has failed: lying lengths can make frames
        # overlap without end, and each would be summed anew. _sums[i] belongs to _buffer[i - _sums_shift].
        self._sums: list[int] = []
        self._sums_shift = 0

    @property
    def held(self) -> int:
        """Bytes waiting: junk not yet told, and the beginning of what may become a frame."""
        return len(self._buffer)

    def receive_data(self, data: bytes) -> None:
        """Take bytes from the peer. LocalProtocolError when events were left lying and `hold` is passed."""
        if len(self._buffer) + len(data) > self._hold:
            raise LocalProtocolError(f"more than {self._hold} bytes without taking events")
        self._buffer += data
        self._ended = False

    def end(self) -> None:
        """No more bytes will come for what is held (closed line): let the next events flush it."""
        self._ended = True

    def give_up(self) -> None:
        """The frame that waits for its rest is not coming: let the next events look behind its first byte."""
        self._step_on = bool(self._buffer)

    def next_event(self) -> FoundFrame | Damaged | None:
        """The next frame or damage; None when nothing more can be told before more bytes come."""
        buffer = self._buffer
        while True:
            if self._at >= LONGEST_DAMAGE:
                return self._damage(LONGEST_DAMAGE)
            place = buffer.find(START, self._at)
            if place < 0 or place >= LONGEST_DAMAGE:
                self._pass(min(len(buffer), LONGEST_DAMAGE))
                if self._at < LONGEST_DAMAGE:
                    return self._damage(self._at) if self._at else None
                continue
            self._pass(place)
            verdict = self._examine(place)
            if verdict is None:
                if not (self._ended or self._step_on):
                    return None
                self._step_on = False
                verdict = "cut short"
            if isinstance(verdict, str):
                if self._reason in ("", _NO_START):
                    self._reason = verdict
                self._at = place + 1
                continue
            if place:
                return self._damage(place)
            self._step_on = False
            raw = bytes(buffer[:verdict])
            found = FoundFrame(content(raw), raw, self._offset)
            self._forget(verdict)
            return found

    def _examine(self, place: int) -> int | str | None:
        """`frame.examine`, but a byte is never summed twice once a checksum has failed."""
        buffer = self._buffer
        length = announced(buffer, place, self._limit)
        if not isinstance(length, int):
            return length
        end = place + length
        if len(buffer) < end:
            return None
        if buffer[end - 1] != END:
            return "no 16H at the end"
        total = self._sum(place + 6, end - 2) if self._sums else checksum(buffer[place + 6 : end - 2])
        if total & 0xFF == buffer[end - 2]:
            return length
        if not self._sums:
            self._sums = [0]
            self._sums_shift = -place
        return "wrong checksum"

    def _sum(self, first: int, last: int) -> int:
        sums = self._sums
        shift = self._sums_shift
        summed = len(sums) - 1 - shift
        if summed < 0:  # junk was given up without being summed
            sums[:] = [0]
            self._sums_shift = shift = summed = 0
        if summed < last:
            sums.extend(accumulate(self._buffer[summed:], initial=sums.pop()))
        return sums[last + shift] - sums[first + shift]

    def _pass(self, place: int) -> None:
        if place > self._at and not self._reason:
            self._reason = _NO_START
        self._at = place

    def _damage(self, length: int) -> Damaged:
        told = Damaged(bytes(self._buffer[:length]), self._offset, self._reason or _NO_START)
        self._forget(length)
        return told

    def _forget(self, length: int) -> None:
        del self._buffer[:length]
        self._offset += length
        self._at = max(0, self._at - length)
        self._reason = ""
        if not self._sums:
            return
        self._sums_shift += length
        if not self._buffer:
            self._sums = []
        elif self._sums_shift > _SPENT_SUMS:
            spent = min(self._sums_shift, len(self._sums) - 1)
            del self._sums[:spent]
            self._sums_shift -= spent
