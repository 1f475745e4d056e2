"""The answering end of a line: requests as events, answers as bytes, long answers split by itself.

It hears every request on the line; frames from other meters are passed over. No socket and no clock.
"""

from __future__ import annotations

from dataclasses import dataclass

from protocols.dlt645 import messages
from protocols.dlt645.fields import EDITION_1997, EDITION_2007, edition_of_di
from protocols.dlt645.frame import Frame, build, matches
from protocols.dlt645.messages import (
    FollowUpReply,
    FollowUpRequest,
    Message,
    ReadAgainReply,
    ReadAgainRequest,
    ReadReply,
    ReadRequest,
    Reply,
)
from protocols.dlt645.stream import FrameStream
from protocols.errors import LocalProtocolError
from protocols.wire import Damaged


@dataclass(frozen=True, slots=True)
class Asked:
    """A request heard by a slave, for whatever address: the caller knows which meters it is."""

    message: Message


SlaveEvent = Asked | Damaged


@dataclass(slots=True)
class _Begun:
    """An answer in several frames: all its parts, and (1997, which counts none) the one to come."""

    address: str
    di: str
    parts: list[bytes]
    following: int = 1


class Slave:
    """One or more meters on a line. `edition`: "2007" or "1997"."""

    def __init__(self, edition: str = EDITION_2007) -> None:
        if edition not in (EDITION_2007, EDITION_1997):
            raise LocalProtocolError(f"there is no edition {edition!r}")
        self._edition = edition
        self._stream = FrameStream()
        self._outgoing = b""
        self._begun: _Begun | None = None
        self._said: ReadReply | FollowUpReply | None = None

    def receive_data(self, data: bytes, now: float) -> None:
        """Take bytes from the line. LocalProtocolError when events were left lying (see FrameStream)."""
        self._stream.receive_data(data)

    def next_event(self) -> SlaveEvent | None:
        """The next request or damage, or None. What `send_data` began is carried on without an event."""
        while (event := self._stream.next_event()) is not None:
            if isinstance(event, Damaged):
                return event
            if event.frame.from_meter:
                continue
            message = messages.from_frame(event.frame, self._edition)
            reply = self._known_reply(message)
            if reply is None:
                return Asked(message)
            self._outgoing += self.send(reply, 0.0)
        return None

    def send(self, message: Message, now: float, lead_in: int = 0) -> bytes:
        """The bytes of a reply. LocalProtocolError for a request or a field that cannot be sent."""
        if not isinstance(message, Reply):
            raise LocalProtocolError(f"{type(message).__name__} is not sent by a meter")
        frame: Frame = messages.to_frame(message)
        self._said = message if isinstance(message, ReadReply | FollowUpReply) else None
        return build(frame, lead_in)

    def send_data(
        self,
        request: ReadRequest,
        address: str,
        data: bytes,
        now: float,
        size: int | None = None,
        lead_in: int = 0,
    ) -> bytes:
        """The first frame of the answer to a read; the rest follows as it is asked for, in `data_to_send`.

        address: the answering meter's own; size: most data bytes in a frame beside DI and SEQ, without one
        what a frame holds. LocalProtocolError where SEQ cannot count the frames. A new answer ends the last.
        """
        edition = edition_of_di(request.di)
        beside = 5 if edition == EDITION_2007 else 2
        size = messages.LONGEST_REPLY - beside if size is None else size
        if size < 1:
            raise LocalProtocolError(f"parts of {size} bytes never end")
        parts = [data[at : at + size] for at in range(0, len(data), size)] or [b""]
        if len(parts) - 1 > messages.LAST_SEQUENCE:
            raise LocalProtocolError(f"{len(data)} bytes need {len(parts)} frames of {size}")
        first = ReadReply(address, request.di, parts[0], len(parts) > 1)
        raw = self.send(first, now, lead_in)
        self._begun = _Begun(address, request.di, parts)
        return raw

    def data_to_send(self) -> bytes:
        """Frames that carry on what was begun; b"" where nobody asked for them."""
        outgoing, self._outgoing = self._outgoing, b""
        return outgoing

    def next_timeout(self) -> float | None:
        """A meter waits for nothing: always None."""
        return None

    def handle_timeout(self, now: float) -> None:
        """Silence on the line: what was begun and not ended is damage."""
        self._stream.end()

    def _known_reply(self, message: Message) -> Reply | None:
        """The answer that follows from what was said before; None where the caller must answer."""
        said = self._said
        match message:
            case ReadAgainRequest(address) if said is not None and matches(address, said.address):
                return ReadAgainReply(said.address, said.di, said.data, said.more)
            case FollowUpRequest(address, di, sequence):
                begun = self._begun
                if begun is None or di != begun.di or not matches(address, begun.address):
                    return None
                number = sequence or begun.following
                if number >= len(begun.parts):
                    return None
                begun.following = number + 1
                more = number + 1 < len(begun.parts)
                return FollowUpReply(begun.address, di, begun.parts[number], sequence, more)
        return None
