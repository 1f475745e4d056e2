"""Which edition an unknown meter speaks, and under which address: asked by reads alone. No socket, no clock.

In turn: its address (13H, 2007 only), forward energy by 11H, forward energy by 01H, each to the address that
is known or to all of AA; last 01H to 999999999999, which some 1997 meters answer. More than one meter on the
line answer together and damage each other: then nothing is found, and `NotFound.damage` says so.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from protocols.dlt645 import frame as frames
from protocols.dlt645 import messages, profiles
from protocols.dlt645.connection import (
    DEFAULT_LEAD_IN,
    DEFAULT_REPLY_TIMEOUT,
    Answered,
    Master,
    Refused,
    Silent,
    Unmatched,
)
from protocols.dlt645.fields import EDITION_1997, EDITION_2007, demand_single
from protocols.dlt645.frame import BROADCAST, WILDCARD, matches
from protocols.dlt645.messages import AddressReply, ErrorReply, ReadAddressRequest, ReadReply, ReadRequest
from protocols.errors import LocalProtocolError
from protocols.wire import Damaged

# Forward active energy, which every meter has.
ENERGY_2007 = "00010000"
ENERGY_1997 = "9010"
# Each of up to four questions waits for so many silences more.
DEFAULT_REPEATS = 1
_REPLY = 0x80
_REFUSAL = 0xC0


@dataclass(frozen=True, slots=True)
class Found:
    """The meter. edition: "2007" or "1997"; address: its own; by: C of the frame that told it.

    refused: it only refused, to a function of that edition, and answered nothing of the other.
    """

    address: str
    edition: str
    by: int
    refused: bool = False


@dataclass(frozen=True, slots=True)
class NotFound:
    """Nobody answered whole. damage: damaged pieces heard: with some, more meters than one may be there."""

    damage: int


ProbeEvent = Found | NotFound | Unmatched | Damaged
_Step = tuple[str, ReadRequest | ReadAddressRequest]


class Probe:
    """One search on one line; begin with `start`, then as with `Master`, until `Found` or `NotFound`."""

    def __init__(
        self,
        address: str = WILDCARD,
        reply_timeout: float = DEFAULT_REPLY_TIMEOUT,
        repeats: int = DEFAULT_REPEATS,
        lead_in: int = DEFAULT_LEAD_IN,
    ) -> None:
        """address: the meter's, where only the edition is unknown. LocalProtocolError where it is none."""
        demand_single(address, "a probe", wildcard=True)
        self._address = address
        self._reply_timeout = reply_timeout
        self._repeats = repeats
        self._lead_in = lead_in
        self._steps: deque[_Step] = deque(
            [
                (EDITION_2007, ReadRequest(address, ENERGY_2007)),
                (EDITION_1997, ReadRequest(address, ENERGY_1997)),
            ]
        )
        if address == WILDCARD:
            self._steps.appendleft((EDITION_2007, ReadAddressRequest()))
            self._steps.append((EDITION_1997, ReadRequest(BROADCAST, ENERGY_1997)))
        self._master: Master | None = None
        self._events: deque[ProbeEvent] = deque()
        self._outgoing = b""
        self._now = 0.0
        self._damage = 0
        self._refusal: Found | None = None
        self._ended = False

    @property
    def busy(self) -> bool:
        """Whether the search goes on."""
        return self._master is not None

    def start(self, now: float) -> bytes:
        """The bytes of the first question. LocalProtocolError where the search has begun before."""
        if self._master is not None or self._ended:
            raise LocalProtocolError("a probe searches once")
        self._now = now
        return self._next_question()

    def receive_data(self, data: bytes, now: float) -> None:
        """Take bytes from the line; what comes before `start` or after the end is passed over."""
        self._now = now
        if self._master is not None:
            self._master.receive_data(data, now)

    def next_event(self) -> ProbeEvent | None:
        """The next event, or None."""
        while not self._events and self._master is not None:
            event = self._master.next_event()
            if event is None:
                break
            self._take(event)
        return self._events.popleft() if self._events else None

    def data_to_send(self) -> bytes:
        """What is to be written now: a repeat or the next question; else b""."""
        outgoing, self._outgoing = self._outgoing, b""
        return outgoing + (self._master.data_to_send() if self._master else b"")

    def next_timeout(self) -> float | None:
        """When to call `handle_timeout`, or None before the start and after the end."""
        return self._master.next_timeout() if self._master else None

    def handle_timeout(self, now: float) -> None:
        """Repeat the question, or go on to the next one. Without effect before the deadline."""
        self._now = now
        master = self._master
        if master is not None:
            master.handle_timeout(now)
        while master is not None and (event := master.next_event()) is not None:
            self._take(event)
            master = self._master

    def _take(self, event: Answered | Refused | Silent | Unmatched | Damaged) -> None:
        match event:
            case Answered(request=ReadAddressRequest(), address=address):
                self._end(Found(address, EDITION_2007, _REPLY | messages.READ_ADDRESS))
            case Answered(request=ReadRequest(di=di), address=address):
                self._end(_found(address, di))
            case Refused(error=error):
                self._refusal = self._refusal or _refusing(error)
                self._outgoing = self._next_question()
            case Silent():
                self._outgoing = self._next_question()
            case Unmatched():
                late = self._late_answer(event.raw)
                if late is None:
                    self._events.append(event)
                else:
                    self._end(late)
            case Damaged():
                self._damage += 1
                self._events.append(event)

    def _late_answer(self, raw: bytes) -> Found | None:
        """What a frame tells that answers a question given up before."""
        frame = frames.parse(raw)
        for edition in (EDITION_2007, EDITION_1997):
            match messages.from_frame(frame, edition):
                case AddressReply(address) if matches(self._address, address):
                    return Found(address, EDITION_2007, frame.control)
                case ReadReply(address, di) if di in (ENERGY_2007, ENERGY_1997):
                    return _found(address, di) if matches(self._address, address) else None
        return None

    def _next_question(self) -> bytes:
        if not self._steps:
            self._end(self._refusal or NotFound(self._damage))
            return b""
        edition, question = self._steps.popleft()
        name = "broadcast-1997" if edition == EDITION_1997 else profiles.DEFAULT_PROFILE
        self._master = Master(self._reply_timeout, self._repeats, self._lead_in, profiles.load()[name])
        return self._master.send(question, self._now)

    def _end(self, event: Found | NotFound) -> None:
        self._events.append(event)
        self._master = None
        self._ended = True
        self._outgoing = b""


def _found(address: str, di: str) -> Found:
    if di == ENERGY_1997:
        return Found(address, EDITION_1997, _REPLY | messages.READ_DATA_1997)
    return Found(address, EDITION_2007, _REPLY | messages.READ_DATA)


def _refusing(error: ErrorReply) -> Found:
    return Found(error.address, error.edition, _REFUSAL | error.function, refused=True)
