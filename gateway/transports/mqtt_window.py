"""What an MQTT broker has delivered and waits to have acknowledged: bounded, and known again when it comes
again after a new connection."""

from __future__ import annotations

import hashlib
from collections import OrderedDict, deque
from dataclasses import dataclass
from enum import Enum, auto
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from gateway.transports.mqtt_broker import Incoming
    from gateway.transports.mqtt_link import MqttLink

STUCK_REMEMBERED: Final = 1_024

SUSPECTS: Final = 1_024
"""Messages remembered that a session gave its link up over."""

SUSPECT_TIMES: Final = 3
"""So often a message may do that; then it is given up: it would go round for ever."""

STUCK_TIMES: Final = 3
"""So often a terminal's link may be ended because its session settles nothing; then what comes for it is
dropped. The broker delivers in order, so the window would be its alone for ever."""

FEW_STUCK: Final = 16
"""Where more terminals are so at once, it is not they but what all wait for, and nothing is dropped."""


@dataclass(slots=True, eq=False)
class Held:
    """A message that was taken and may be unsettled."""

    link: MqttLink
    incoming: Incoming
    """as it came last; its payload is not kept"""
    frame: bytes
    """until it is read"""
    digest: bytes
    settled: bool = False


class Known(Enum):
    """What a message is that may have come before."""

    NEW = auto()
    AGAIN = auto()
    """the broker says that it came before, and what it gave then has gone"""
    HELD = auto()
    """it is with its session, which will settle it"""
    SETTLED = auto()
    """the acknowledgement was lost with its connection"""


def digest(incoming: Incoming) -> bytes:
    """Tells messages apart by topic and payload."""
    topic = (incoming.topic or "").encode()
    return hashlib.blake2b(topic + b"\0" + incoming.payload, digest_size=16).digest()


class Window:
    """Of one connection after the other. Messages at QoS 0 only count by their bytes: nobody waits for
    them."""

    def __init__(self, messages: int, held_bytes: int) -> None:
        """messages: that may be unsettled; held_bytes: unread, of all links."""
        self._messages = messages
        self._most_bytes = held_bytes
        self._bytes = 0
        self._unsettled = 0
        self._given_back = 0
        self._held: dict[int, Held] = {}
        self._former: dict[int, Held] = {}
        self._settled: deque[Held] = deque()
        self._shut: set[str] = set()
        self._suspects: OrderedDict[bytes, int] = OrderedDict()
        self._stuck: dict[str, int] = {}

    @property
    def unsettled(self) -> int:
        """Messages that the broker waits to have acknowledged."""
        return self._unsettled + self._given_back

    def new_connection(self) -> None:
        """The broker begins anew: what was not acknowledged comes again, with its number (MQTT 4.4)."""
        self._former.update(self._held)
        self._held.clear()
        self._shut.clear()
        self._unsettled = self._given_back = 0

    def known(self, incoming: Incoming) -> Known:
        """Is it a message of an earlier connection, and is the one that we hold enough?"""
        before = self._former.pop(incoming.mid, None)
        if not incoming.duplicate:
            return Known.NEW
        if before is None or before.digest != digest(incoming):
            return Known.AGAIN
        if before.settled:
            return Known.SETTLED
        if before.link.ended:
            return Known.AGAIN
        incoming.payload = b""
        before.incoming = incoming
        self._held[incoming.mid] = before
        self._unsettled += 1
        return Known.HELD

    def has_room(self, terminal: str, size: int) -> bool:
        """For one more message; a terminal one of whose messages was given back waits behind that, or the
        order would be lost."""
        return (
            self._unsettled < self._messages
            and self._bytes + size <= self._most_bytes
            and terminal not in self._shut
        )

    def hold(self, held: Held) -> None:
        """It is with its link."""
        self._bytes += len(held.frame)
        if held.incoming.qos:
            self._held[held.incoming.mid] = held
            self._unsettled += 1

    def give_back(self, terminal: str) -> None:
        """A message of this terminal is not acknowledged and not kept."""
        self._given_back += 1
        self._shut.add(terminal)

    def read(self, held: Held) -> None:
        """Its bytes are with the session, or dropped."""
        self._bytes -= len(held.frame)
        held.frame = b""

    def settle(self, held: Held) -> None:
        """Acknowledge; once. The last ones are remembered: a broker that did not hear of it asks again."""
        if held.settled:
            return
        self._stuck.pop(held.link.terminal, None)
        self._settled_now(held)

    def _settled_now(self, held: Held) -> None:
        held.settled = True
        held.link.progressed()
        if not held.incoming.qos:
            return
        if self._held.get(held.incoming.mid) is held:
            self._unsettled -= 1
            held.incoming.acknowledge()
        self._settled.append(held)
        if len(self._settled) > self._messages:
            self._forget(self._settled.popleft())

    def _forget(self, held: Held) -> None:
        for known in (self._held, self._former):
            if known.get(held.incoming.mid) is held:
                del known[held.incoming.mid]

    def hopeless(self, terminal: str) -> bool:
        """Have the terminal's links been ended too often, with nothing settled since, and few others' so?"""
        return self._stuck.get(terminal, 0) >= STUCK_TIMES and len(self._stuck) <= FEW_STUCK

    def stuck(self, link: MqttLink) -> None:
        """Its session has not settled anything for too long."""
        self._stuck[link.terminal] = self._stuck.pop(link.terminal, 0) + 1
        if len(self._stuck) > STUCK_REMEMBERED:
            del self._stuck[next(iter(self._stuck))]

    def drop(self, link: MqttLink) -> int:
        """Acknowledge all that a link has: it is lost; so many."""
        lost = [held for held in self._held.values() if held.link is link and not held.settled]
        for held in lost:
            self._settled_now(held)
        return len(lost)

    def must_come_again(self) -> bool:
        """Is there a message that no session will settle?"""
        return self._given_back > 0 or any(h.link.ended and not h.settled for h in self._held.values())

    def suspect(self, held: Held) -> None:
        """A session gave its link up over this message."""
        if not held.settled and held.incoming.qos:
            self._suspects[held.digest] = self._suspects.pop(held.digest, 0) + 1
            if len(self._suspects) > SUSPECTS:
                self._suspects.popitem(last=False)

    def poisonous(self, message: bytes) -> bool:
        """Has the message with this digest done that too often?"""
        return self._suspects.get(message, 0) >= SUSPECT_TIMES
