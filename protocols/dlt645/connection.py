"""One line to meters, seen from either end: `Master` asks, `Slave` answers. No socket and no clock in here.

Times are seconds on any clock the caller likes, always the same one. After `receive_data` or
`handle_timeout` take events until None, then write `data_to_send()`, then ask `next_timeout()`. Nothing a
peer sends raises. Only reads pass through here, so every request may be repeated after silence.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from protocols.dlt645 import messages
from protocols.dlt645.frame import Frame, build, matches
from protocols.dlt645.messages import (
    AddressReply,
    ErrorReply,
    FollowUpReply,
    FollowUpRequest,
    Message,
    ReadAddressRequest,
    ReadReply,
    ReadRequest,
)
from protocols.dlt645.stream import FoundFrame, FrameStream
from protocols.errors import LocalProtocolError
from protocols.wire import Damaged

# RS-485 answers within 500 ms (Td); radio and carrier need up to 90 s: the caller says so.
DEFAULT_REPLY_TIMEOUT = 2.0
DEFAULT_REPEATS = 2
# The usual wake-up before a master's frame.
DEFAULT_LEAD_IN = 4

MasterRequest = ReadRequest | ReadAddressRequest


@dataclass(frozen=True, slots=True)
class Answered:
    """The request is answered: data after the DI, follow-up frames joined. address: the meter's own.

    For a ReadAddressRequest di is "" and data the six address bytes as on the wire.
    """

    request: MasterRequest
    di: str
    data: bytes
    address: str


@dataclass(frozen=True, slots=True)
class Refused:
    """The meter answered with an error reply, to the request or to one of its follow-ups."""

    request: MasterRequest
    error: ErrorReply


@dataclass(frozen=True, slots=True)
class Silent:
    """No whole answer, repeats included. partial: what had come of an answer in several frames."""

    request: MasterRequest
    partial: bytes = b""


@dataclass(frozen=True, slots=True)
class Unmatched:
    """A good frame nobody waits for: late, from another meter, another DI or SEQ, or of an unknown kind."""

    message: Message
    raw: bytes


@dataclass(frozen=True, slots=True)
class Asked:
    """A request heard by a slave, for whatever address: the caller knows which meters it is."""

    message: Message


MasterEvent = Answered | Refused | Silent | Unmatched | Damaged
SlaveEvent = Asked | Damaged


class Master:
    """The asking side of one line: one exchange at a time, follow-ups fetched and joined by itself."""

    def __init__(
        self,
        reply_timeout: float = DEFAULT_REPLY_TIMEOUT,
        repeats: int = DEFAULT_REPEATS,
        lead_in: int = DEFAULT_LEAD_IN,
    ) -> None:
        """reply_timeout: seconds to wait for each frame; repeats: how often a silent frame is sent again."""
        self._reply_timeout = reply_timeout
        self._repeats = repeats
        self._lead_in = lead_in
        self._stream = FrameStream()
        self._events: deque[MasterEvent] = deque()
        self._outgoing = b""
        self._now = 0.0
        self._request: MasterRequest | None = None
        self._asked: MasterRequest | FollowUpRequest = ReadAddressRequest()
        self._echo: Frame | None = None
        self._meter = ""
        self._parts: list[bytes] = []
        self._attempts = 0
        self._deadline: float | None = None

    @property
    def busy(self) -> bool:
        """Whether an exchange is open."""
        return self._request is not None

    def send(self, message: MasterRequest, now: float) -> bytes:
        """Open an exchange and give the bytes to write. LocalProtocolError while another one is open."""
        if self._request is not None:
            raise LocalProtocolError("an exchange is open on this line")
        if not isinstance(message, ReadRequest | ReadAddressRequest):
            raise LocalProtocolError(f"{type(message).__name__} is not sent by a master here")
        raw = self._ask(message, now)
        # A half frame from before cannot be the answer; waiting for its end would swallow the answer.
        self._stream.end()
        self._drain()
        self._request = message
        self._meter = message.address
        self._parts = []
        return raw

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
        """Repeat the silent frame, or give up. Without effect before the deadline."""
        self._now = now
        if self._deadline is None or now < self._deadline:
            return
        # An answer may hide behind a false start that still waits for its end.
        self._stream.end()
        self._drain()
        request = self._request
        if request is None or now < self._deadline:
            return
        if self._attempts <= self._repeats:
            attempts = self._attempts
            self._outgoing = self._ask(self._asked, now)
            self._attempts = attempts + 1
            return
        self._events.append(Silent(request, b"".join(self._parts)))
        self.abandon()

    def _ask(self, message: MasterRequest | FollowUpRequest, now: float) -> bytes:
        frame = messages.to_frame(message)
        raw = build(frame, self._lead_in)
        self._asked = message
        self._echo = frame
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
        message = messages.from_frame(found.frame)
        if self._request is None or not self._fits(message):
            self._events.append(Unmatched(message, found.raw))
            return
        match message:
            case ReadReply(address, di, data, more) | FollowUpReply(address, di, data, _, more):
                self._collect(self._request, address, di, data, more)
            case AddressReply(address):
                self._close(Answered(self._request, "", bytes.fromhex(address)[::-1], address))
            case ErrorReply():
                self._close(Refused(self._request, message))

    def _fits(self, message: Message) -> bool:
        """Whether `message` answers what was asked last: by control code, address, DI and SEQ."""
        asked = self._asked
        match message:
            case ReadReply():
                fits = isinstance(asked, ReadRequest) and message.di == asked.di
            case FollowUpReply():
                fits = (
                    isinstance(asked, FollowUpRequest)
                    and message.di == asked.di
                    and message.sequence == asked.sequence
                )
            case AddressReply():
                return isinstance(asked, ReadAddressRequest) and matches(
                    self._meter, message.sender or message.address
                )
            case ErrorReply():
                fits = message.function == messages.to_frame(asked).function
            case _:
                return False
        return fits and matches(self._meter, message.address)

    def _collect(self, request: MasterRequest, address: str, di: str, data: bytes, more: bool) -> None:
        self._parts.append(data)
        self._meter = address
        sequence = len(self._parts)
        if not more:
            self._close(Answered(request, di, b"".join(self._parts), address))
        elif sequence > messages.LAST_SEQUENCE:
            # SEQ is one byte and the meter promises still more: it cannot be asked for the rest.
            self._close(Silent(request, b"".join(self._parts)))
        else:
            self._outgoing = self._ask(FollowUpRequest(address, di, sequence), self._now)

    def _close(self, event: MasterEvent) -> None:
        self._events.append(event)
        self.abandon()


class Slave:
    """The answering side. It hears every request on the line; frames from other meters are passed over."""

    def __init__(self) -> None:
        self._stream = FrameStream()

    def receive_data(self, data: bytes, now: float) -> None:
        """Take bytes from the line. LocalProtocolError when events were left lying (see FrameStream)."""
        self._stream.receive_data(data)

    def next_event(self) -> SlaveEvent | None:
        """The next request or damage, or None."""
        while (event := self._stream.next_event()) is not None:
            if isinstance(event, Damaged):
                return event
            if not event.frame.from_meter:
                return Asked(messages.from_frame(event.frame))
        return None

    def send(self, message: Message, now: float, lead_in: int = 0) -> bytes:
        """The bytes of a reply. LocalProtocolError for a request or a field that cannot be sent."""
        frame = messages.to_frame(message)
        if not frame.from_meter:
            raise LocalProtocolError(f"{type(message).__name__} is not sent by a meter")
        return build(frame, lead_in)

    def data_to_send(self) -> bytes:
        """A meter never speaks unasked: always b""."""
        return b""

    def next_timeout(self) -> float | None:
        """A meter waits for nothing: always None."""
        return None

    def handle_timeout(self, now: float) -> None:
        """Silence on the line: what was begun and not ended is damage."""
        self._stream.end()
