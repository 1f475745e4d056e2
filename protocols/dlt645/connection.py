"""One line to meters, the asking end; `Slave`, the answering end, stands in slave.py. No socket, no clock.

Times are seconds on any clock the caller likes, always the same one. After `receive_data` or
`handle_timeout` take events until None, then write `data_to_send()`, then ask `next_timeout()`. Nothing a
peer sends raises. Reads are repeated after silence; nothing else ever is.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from protocols.dlt645 import commands, messages, profiles
from protocols.dlt645.commands import (
    ChangeSpeed,
    Command,
    Confirmation,
    Done,
    OutputReply,
    PasswordReply,
    SpeedReply,
    WriteAddress,
    WriteRequest,
)
from protocols.dlt645.control_messages import ControlReply, ControlRequest, RelayReply, SecurityReply
from protocols.dlt645.fields import EDITION_1997, EDITION_2007, demand_single, edition_of_di
from protocols.dlt645.frame import BROADCAST, WILDCARD, Frame, build, matches
from protocols.dlt645.matching import answers, out_of_order
from protocols.dlt645.messages import (
    AddressReply,
    ErrorReply,
    FollowUpReply,
    FollowUpRequest,
    Message,
    ReadAddressRequest,
    ReadAgainReply,
    ReadAgainRequest,
    ReadReply,
    ReadRequest,
    Unknown,
)
from protocols.dlt645.profiles import Profile
from protocols.dlt645.slave import Asked, Slave, SlaveEvent
from protocols.dlt645.stream import FoundFrame, FrameStream
from protocols.errors import LocalProtocolError
from protocols.permit import Permit
from protocols.wire import Damaged

__all__ = [
    "Answered",
    "Asked",
    "Master",
    "MasterEvent",
    "MasterRequest",
    "Refused",
    "Silent",
    "Slave",
    "SlaveEvent",
    "Unmatched",
]

# RS-485 answers within 500 ms (Td); radio and carrier need up to 90 s: the caller says so.
DEFAULT_REPLY_TIMEOUT = 2.0
DEFAULT_REPEATS = 2
# The usual wake-up before a master's frame.
DEFAULT_LEAD_IN = 4

Reading = ReadRequest | ReadAddressRequest | ReadAgainRequest
MasterRequest = Reading | Command
_SPEED_38400 = 0x80


@dataclass(frozen=True, slots=True)
class Answered:
    """The request is answered: data after the DI, follow-up frames joined. address: the meter's own.

    For a ReadAddressRequest di is "" and data the six address bytes as on the wire. For whatever is no read
    di is "", data b"" and `reply` what the meter said; for reads `reply` is None.
    """

    request: MasterRequest | ControlRequest
    di: str
    data: bytes
    address: str
    reply: Confirmation | ControlReply | None = None


@dataclass(frozen=True, slots=True)
class Refused:
    """The meter answered with an error reply, to the request or to one of its follow-ups."""

    request: MasterRequest | ControlRequest
    error: ErrorReply


@dataclass(frozen=True, slots=True)
class Silent:
    """No whole answer, repeats included. partial: what had come of an answer in several frames."""

    request: MasterRequest | ControlRequest
    partial: bytes = b""


@dataclass(frozen=True, slots=True)
class Unmatched:
    """A good frame nobody waits for: late, from another meter, another DI or SEQ, or of an unknown kind."""

    message: Message
    raw: bytes


MasterEvent = Answered | Refused | Silent | Unmatched | Damaged


class Master:
    """The asking side of one line: one exchange at a time, follow-ups fetched and joined by itself."""

    def __init__(
        self,
        reply_timeout: float = DEFAULT_REPLY_TIMEOUT,
        repeats: int = DEFAULT_REPEATS,
        lead_in: int = DEFAULT_LEAD_IN,
        profile: Profile | None = None,
    ) -> None:
        """reply_timeout: seconds to wait for each frame; repeats: how often a silent read is sent again.

        profile: the meter's dialect (its own three numbers are for `of`), without one the bare 2007.
        """
        self._reply_timeout = reply_timeout
        self._repeats = repeats
        self._lead_in = lead_in
        self._profile = profile or profiles.standard()
        self._stream = FrameStream()
        self._events: deque[MasterEvent] = deque()
        self._outgoing = b""
        self._now = 0.0
        self._request: MasterRequest | ControlRequest | None = None
        self._asked: MasterRequest | ControlRequest | FollowUpRequest = ReadAddressRequest()
        self._frame = Frame(WILDCARD, messages.READ_ADDRESS)
        self._echo: Frame | None = None
        self._meter = ""
        self._parts: list[bytes] = []
        self._last = b""
        self._attempts = 0
        self._restarts = 0
        self._deadline: float | None = None

    @classmethod
    def of(cls, profile: Profile) -> Master:
        """A master for a meter of that profile, its timing included."""
        return cls(profile.reply_timeout_s, profile.repeats, profile.lead_in, profile)

    @property
    def busy(self) -> bool:
        """Whether an exchange is open."""
        return self._request is not None

    def send(self, message: MasterRequest, now: float, permit: Permit | None = None) -> bytes:
        """Open an exchange and give the bytes to write; what no meter answers (08H, broadcasts) opens none.

        permit: for whatever is no read (see messages.to_frame). LocalProtocolError while another exchange is
        open, and where the message cannot be sent, or not in this profile.
        """
        if not isinstance(message, MasterRequest):
            raise LocalProtocolError(f"{type(message).__name__} is not sent by a master here")
        self._check(message)
        return self._open(message, messages.to_frame(message, permit), now)

    def send_control(self, frame: Frame, now: float) -> bytes:
        """Open an exchange with a frame of control.py (1CH, 03H); it is never repeated.

        LocalProtocolError while another exchange is open, for other frames, other editions and for an
        address that is not one meter's.
        """
        message = messages.from_frame(frame)
        if not isinstance(message, ControlRequest) or self._profile.edition != EDITION_2007:
            raise LocalProtocolError(f"{frame.control:02X}H is no control frame of this line")
        demand_single(frame.address, f"{frame.control:02X}H")
        return self._open(message, frame, now)

    def abandon(self) -> None:
        """Give the open exchange up without an event; its late answer will be `Unmatched`."""
        self._request = None
        self._deadline = None
        self._outgoing = b""

    def receive_data(self, data: bytes, now: float) -> None:
        """Take bytes from the line. LocalProtocolError when events were left lying (see FrameStream)."""
        self._now = now
        self._stream.receive_data(data)

    def next_event(self) -> MasterEvent | None:
        """The next event, or None."""
        if not self._events:
            self._drain(most=1)
        return self._events.popleft() if self._events else None

    def data_to_send(self) -> bytes:
        """What the protocol itself wants written now: a repeat or a follow-up request; else b""."""
        outgoing, self._outgoing = self._outgoing, b""
        return outgoing

    def next_timeout(self) -> float | None:
        """When to call `handle_timeout`, or None while nothing is waited for."""
        return self._deadline

    def handle_timeout(self, now: float) -> None:
        """Repeat the silent read, or give up. Without effect before the deadline."""
        self._now = now
        if self._deadline is None or now < self._deadline:
            return
        # An answer may hide behind a false start that still waits for its end.
        self._stream.end()
        self._drain()
        request = self._request
        if request is None or now < self._deadline:
            return
        asked = self._asked
        if isinstance(asked, FollowUpRequest) and asked.sequence == 0:
            self._begin_again(request, now)
        elif isinstance(asked, Reading | FollowUpRequest) and self._attempts <= self._repeats:
            attempts = self._attempts
            self._outgoing = self._ask(asked, self._frame, now)
            self._attempts = attempts + 1
        else:
            self._give_up(request)

    def _begin_again(self, request: MasterRequest | ControlRequest, now: float) -> None:
        """1997 counts no follow-ups: 02H sent again might fetch the part after the lost one."""
        if not isinstance(request, ReadRequest) or self._restarts >= self._repeats:
            self._give_up(request)
            return
        self._restarts += 1
        self._parts = []
        self._meter = request.address
        self._outgoing = self._ask(request, messages.to_frame(request), now)

    def _give_up(self, request: MasterRequest | ControlRequest) -> None:
        self._close(Silent(request, b"".join(self._parts)))

    def _check(self, message: MasterRequest) -> None:
        profile = self._profile
        match message:
            case ReadRequest(di=di):
                edition = edition_of_di(di)
            case ReadAddressRequest():
                edition = EDITION_2007
            case ReadAgainRequest():
                edition = EDITION_1997
            case _:
                edition = commands.edition_of(message)
        if edition != profile.edition:
            raise LocalProtocolError(f"{type(message).__name__} of {edition} is not for {profile.name}")
        if isinstance(message, ChangeSpeed) and message.word == _SPEED_38400 and not profile.speed_38400:
            raise LocalProtocolError(f"{profile.name} knows no 38400 bit/s")

    def _open(self, message: MasterRequest | ControlRequest, frame: Frame, now: float) -> bytes:
        if self._request is not None:
            raise LocalProtocolError("an exchange is open on this line")
        if isinstance(message, WriteRequest) and len(frame.data) > self._profile.longest_write:
            raise LocalProtocolError(
                f"{len(frame.data)} data bytes; {self._profile.name} takes {self._profile.longest_write}"
            )
        if isinstance(message, Command) and not commands.is_answered(message):
            self._echo = frame
            return build(frame, self._lead_in)
        raw = self._ask(message, frame, now)
        # A half frame from before cannot be the answer; waiting for its end would swallow the answer.
        self._stream.end()
        self._drain()
        self._request = message
        # The answer to a new address comes from there.
        self._meter = message.new_address if isinstance(message, WriteAddress) else message.address
        self._parts = []
        self._last = b""
        self._restarts = 0
        return raw

    def _ask(
        self, message: MasterRequest | ControlRequest | FollowUpRequest, frame: Frame, now: float
    ) -> bytes:
        raw = build(frame, self._lead_in)
        self._asked = message
        self._frame = self._echo = frame
        self._attempts = 1
        self._deadline = now + self._reply_timeout
        return raw

    def _drain(self, most: int | None = None) -> None:
        while most is None or len(self._events) < most:
            event = self._stream.next_event()
            if event is None:
                return
            if isinstance(event, Damaged):
                self._events.append(event)
            else:
                self._take(event)

    def _take(self, found: FoundFrame) -> None:
        if found.frame == self._echo:
            self._echo = None  # two-wire lines give back what was sent, once
            return
        message = messages.from_frame(found.frame, self._profile.edition)
        request = self._request
        if request is None:
            self._events.append(Unmatched(message, found.raw))
            return
        if (reason := out_of_order(self._asked, message, found.raw == self._last)) is not None:
            self._events.append(Damaged(found.raw, found.offset, reason))
            return
        if not self._fits(message):
            self._events.append(Unmatched(message, found.raw))
            return
        self._last = found.raw
        match message:
            case (
                ReadReply(address, di, data, more)
                | ReadAgainReply(address, di, data, more)
                | FollowUpReply(address, di, data, _, more)
            ):
                self._collect(request, address, di, data, more)
            case AddressReply(address):
                self._close(Answered(request, "", bytes.fromhex(address)[::-1], address))
            case ErrorReply():
                self._close(Refused(request, message))
            case Done() | SpeedReply() | PasswordReply() | OutputReply() | RelayReply() | SecurityReply():
                self._close(Answered(request, "", b"", message.address, message))

    def _fits(self, message: Message) -> bool:
        """Whether `message` answers what was asked last, from an address that may answer it."""
        asked = self._asked
        if not answers(asked, self._frame.function, message):
            return False
        if isinstance(message, AddressReply):
            return self._meant(message.sender or message.address)
        if isinstance(message, ErrorReply) and isinstance(asked, WriteAddress):
            # A meter that keeps its old address refuses from there.
            return matches(asked.address, message.address) or self._meant(message.address)
        return not isinstance(message, Unknown) and self._meant(message.address)

    def _meant(self, address: str) -> bool:
        return matches(self._meter, address) or (
            self._profile.broadcast_reads and self._meter == BROADCAST and isinstance(self._asked, Reading)
        )

    def _collect(
        self,
        request: MasterRequest | ControlRequest,
        address: str,
        di: str,
        data: bytes,
        more: bool,
    ) -> None:
        self._parts.append(data)
        self._meter = address
        number = len(self._parts)
        if not more:
            self._close(Answered(request, di, b"".join(self._parts), address))
        elif number > messages.LAST_SEQUENCE:
            # SEQ is one byte and the meter promises still more: it cannot be asked for the rest.
            self._give_up(request)
        else:
            counted = self._profile.edition == EDITION_2007
            following = FollowUpRequest(address, di, number if counted else 0)
            self._outgoing = self._ask(following, messages.to_frame(following), self._now)

    def _close(self, event: MasterEvent) -> None:
        self._events.append(event)
        self.abandon()
