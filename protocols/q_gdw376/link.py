"""What both ends of a link share: the events they tell, and bytes to frames with a deadline."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from protocols.q_gdw376.frame import Frame
from protocols.q_gdw376.messages import Request, Unit, UnitConfirm, encode_unit
from protocols.q_gdw376.stream import LONGEST_DAMAGE, FoundFrame, FrameStream
from protocols.wire import Damaged

# A stored-data request over GPRS is answered within 15 to 30 s.
DEFAULT_REPLY_TIMEOUT = 30.0
DEFAULT_REPEATS = 2
# A frame whose bytes stop coming for this long is given up, and what lies behind its first byte is looked
# through again: else a lying length could hide good frames for as long as the peer likes.
FRAME_GAP = 10.0
# Reports of a terminal that wait for their confirm; the sixteen sequence numbers allow no more than half.
MOST_OPEN_REPORTS = 8
# What a terminal sends at most in one frame unless it is told otherwise.
DEFAULT_FRAME_LENGTH = 1024
# Minutes that a frame with Tp may be under way; captured labels have 5.
DEFAULT_LABEL_DELAY = 5

CONFIRM = 0x00
LINK_TEST = 0x02
CONFIRM_ALL, DENY_ALL, CONFIRM_UNITS = 1, 2, 3
# Function codes of C.
RESET_CODE, USER_DATA_CODE, LINK_TEST_CODE, LEVEL_1_CODE, LEVEL_2_CODE = 1, 4, 9, 10, 11
CONFIRM_CODE, RESPONSE_CODE, LINK_STATE_CODE = 0, 8, 11


@dataclass(frozen=True, slots=True)
class Spontaneous:
    """The terminal sent of its own accord: login, heartbeat, logout, task report, event."""

    frame: Frame
    raw: bytes


@dataclass(frozen=True, slots=True)
class Answered:
    """The request's answer is whole. A frame with `con` wants to be confirmed."""

    request: Request
    frames: tuple[Frame, ...]


@dataclass(frozen=True, slots=True)
class Confirmed:
    """AFN00 says that everything asked was done."""

    request: Request
    frame: Frame


@dataclass(frozen=True, slots=True)
class Denied:
    """AFN00 says no: F2 to all (also "no data"), or F3 with an error for some unit."""

    request: Request
    frame: Frame


@dataclass(frozen=True, slots=True)
class Silent:
    """No whole answer, repeats included. frames: what came of it."""

    request: Request
    frames: tuple[Frame, ...]


@dataclass(frozen=True, slots=True)
class Late:
    """A good frame that nobody waits for: an answer to something earlier, or to nothing at all; or one that
    was under way for longer than its Tp permits. reason: why, in that case."""

    frame: Frame
    raw: bytes
    reason: str = ""


@dataclass(frozen=True, slots=True)
class EventsWaiting:
    """ACD says that important events wait, and EC is another than before: time to ask for AFN0E. ec1, ec2:
    the terminal's counters of important and of normal events, modulo 256."""

    ec1: int
    ec2: int


@dataclass(frozen=True, slots=True)
class Asked:
    """A master's request heard by a terminal. A group or broadcast request (`frame.group`) gets no answer."""

    frame: Frame
    units: tuple[Unit, ...]
    raw: bytes


@dataclass(frozen=True, slots=True)
class PasswordRefused:
    """A master's request with a wrong PW. The terminal has denied it (not a group's); ERC20 is the
    owner's."""

    frame: Frame
    password: bytes
    raw: bytes


@dataclass(frozen=True, slots=True)
class ReportConfirmed:
    """The master confirmed what the terminal had sent of its own accord, or an answer that wanted it."""

    sent: Frame
    frame: Frame


@dataclass(frozen=True, slots=True)
class ReportDenied:
    """The master refused what the terminal had sent."""

    sent: Frame
    frame: Frame


@dataclass(frozen=True, slots=True)
class ReportSilent:
    """The master did not confirm, repeats included."""

    sent: Frame


MasterEvent = Spontaneous | Answered | Confirmed | Denied | Silent | Late | EventsWaiting | Damaged
TerminalEvent = Asked | PasswordRefused | ReportConfirmed | ReportDenied | ReportSilent | Late | Damaged


class Reader:
    """Bytes to frames, with the deadline of a frame that does not go on."""

    def __init__(self, limit: int) -> None:
        self._stream = FrameStream(limit)
        self._heard_at = 0.0

    @property
    def held(self) -> int:
        return self._stream.held

    def receive_data(self, data: bytes, now: float) -> None:
        self._stream.receive_data(data)
        self._heard_at = now

    def next_event(self) -> FoundFrame | Damaged | None:
        return self._stream.next_event()

    def end(self) -> None:
        self._stream.end()

    def next_timeout(self) -> float | None:
        return self._heard_at + FRAME_GAP if self._stream.held else None

    def handle_timeout(self, now: float) -> None:
        if self._stream.held and now >= self._heard_at + FRAME_GAP:
            self._stream.give_up()
            self._heard_at = now


@lru_cache(maxsize=256)  # a fleet's heartbeats are all confirmed by the same bytes
def confirm_body(afn: int, results: tuple[tuple[int, int, int], ...]) -> bytes:
    return encode_unit(CONFIRM, CONFIRM_UNITS, 0, UnitConfirm(afn, results))


def damaged(found: FoundFrame, reason: str) -> Damaged:
    return Damaged(found.raw[:LONGEST_DAMAGE], found.offset, reason)
