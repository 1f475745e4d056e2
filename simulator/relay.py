"""A meter's relay: what a command does to it, at once, after a delay, when the load falls, or by a hand.

It knows the district's seconds only; validity, passwords and ciphers are checked before (see control.py).
Nothing happens by itself: `advance` does what was due, each at its own time, and tells `moved`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum, StrEnum

from protocols.dlt645.control_messages import Verb

LONGEST_HOLD_S = 24 * 3600.0
"""A trip that waits for the load to fall is carried out then, whatever flows."""
LOAD_CHECK_S = 60.0
"""Between two looks at the load while a trip waits for it."""


class RelayKind(StrEnum):
    """As the assets call it."""

    BUILT_IN = "built_in"
    EXTERNAL_SELF_CLOSING = "external_self_closing"
    """a switch beside the meter that closes when the meter lets it"""
    EXTERNAL_HAND_CLOSING = "external_hand_closing"
    """one that the meter can only open: somebody closes it by hand when the meter lets him"""
    NONE = "none"


class Did(IntEnum):
    """The execution word of 9CH."""

    CLOSED = 1 << 0
    PERMITTED = 1 << 1
    TRIPPED = 1 << 2
    TRIP_DELAYED = 1 << 3
    TRIPPED_FOR_A_TIME = 1 << 4
    TRIP_WAITS_FOR_LOAD = 1 << 5
    KEEP_POWER_ON = 1 << 8
    KEEP_POWER_OFF = 1 << 9
    ALARM_ON = 1 << 10
    ALARM_OFF = 1 << 11


class Fault(IntEnum):
    """The error word of DCH. OTHER has no bit there: such a refusal is told in one byte of ERR."""

    OTHER = 0
    SUSPENDED = 1 << 0
    MAC = 1 << 1
    PASSWORD = 1 << 2
    SESSION = 1 << 3
    DEADLINE = 1 << 4
    KEEP_POWER = 1 << 5
    KEEP_POWER_FOR_A_TIME = 1 << 6
    RESTORE_TIME = 1 << 7
    TRIPPED_ALREADY = 1 << 8


class Move(StrEnum):
    OPENED = "opened"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class Order:
    """A command that has passed all checks. frame: SHA-256 of its frame in hex."""

    verb: Verb
    restore_minutes: int = 0
    frame: str = ""
    operator: str = ""


NOBODY = Order(Verb.CLOSE, operator="ffffffff")
"""Whose doing a move is where no command led to it; the standard writes FFFFFFFF for the meter itself."""


class Relay:
    """One meter's.

    load: milliamperes that would flow at a time if it were closed. moved: told of each real move, when, and
    by whose order. verbs: those that it knows. trip_delay_s: 04001401; limit_ma: 04001402, 0 for none.
    keep_power_closes: keep-power on a tripped meter closes it, rather than letting the customer do it.
    press_after_s: somebody presses the button (closes the switch) so long after he may; None: nobody does.
    """

    def __init__(
        self,
        kind: RelayKind,
        load: Callable[[float], int],
        moved: Callable[[float, Move, Order], None],
        *,
        verbs: frozenset[Verb] = frozenset(Verb),
        trip_delay_s: float = 0.0,
        limit_ma: int = 0,
        keep_power_closes: bool = True,
        press_after_s: float | None = None,
    ) -> None:
        self.is_open = False
        self.trip_ordered = False
        """command state, bit 6 of status word 3"""
        self.keep_power = False
        self.alarm = False
        self.permitted = False
        """open, and whoever presses the button (or closes the switch by hand) closes it"""
        self.moved_at: float | None = None
        self._kind = kind
        self._load = load
        self._moved = moved
        self._verbs = verbs
        self._trip_delay_s = trip_delay_s
        self._limit_ma = limit_ma if kind is RelayKind.BUILT_IN else 0
        self._keep_power_closes = keep_power_closes
        self._press_after_s = press_after_s
        self._order = NOBODY
        self._trip_at: float | None = None
        self._held_since: float | None = None
        self._look_at: float | None = None
        self._restore_at: float | None = None
        self._press_at: float | None = None

    @property
    def waits(self) -> bool:
        """Is there a trip that was accepted and has not opened it yet?"""
        return self._trip_at is not None or self._look_at is not None

    def flows(self, now: float) -> int:
        """Milliamperes."""
        return 0 if self.is_open else self._load(now)

    def next_timeout(self) -> float | None:
        """When `advance` is wanted next."""
        times = (self._trip_at, self._look_at, self._restore_at, self._press_at)
        return min((at for at in times if at is not None), default=None)

    def advance(self, now: float) -> None:
        """Do what was due by `now`, in its order and each at its time."""
        while (at := self.next_timeout()) is not None and at <= now:
            if at == self._trip_at:
                self._trip_at = None
                self._open_when_light(at)
            elif at == self._look_at:
                self._open_when_light(at)
            elif at == self._restore_at:
                self._restore(at)
            else:
                self.press(at)

    def press(self, now: float) -> bool:
        """The customer presses the button, or somebody closes the switch by hand; whether it closed."""
        self._press_at = None
        if not self.permitted:
            return False
        self._close(now)
        return True

    def obey(self, order: Order, now: float) -> Did | Fault:
        """Carry out a command: its execution word, or why not. Advance it to `now` before."""
        verb = order.verb
        switches = verb not in (Verb.ALARM, Verb.CLEAR_ALARM, Verb.KEEP_POWER, Verb.RELEASE_KEEP_POWER)
        if verb not in self._verbs or (switches and self._kind is RelayKind.NONE):
            return Fault.OTHER
        match verb:
            case Verb.TRIP:
                return self._trip(order, now)
            case Verb.TRIP_THEN_CLOSE | Verb.TRIP_THEN_PERMIT:
                return self._trip_for_a_time(order, now)
            case Verb.CLOSE:
                self._let_close(order, now, self._kind is not RelayKind.EXTERNAL_HAND_CLOSING)
                return Did.CLOSED
            case Verb.PERMIT_CLOSE:
                self._let_close(order, now, self._kind is RelayKind.EXTERNAL_SELF_CLOSING)
                return Did.PERMITTED
            case Verb.KEEP_POWER:
                by_itself = self._keep_power_closes and self._kind is not RelayKind.EXTERNAL_HAND_CLOSING
                self._let_close(order, now, by_itself)
                self.keep_power = True
                return Did.KEEP_POWER_ON
            case Verb.RELEASE_KEEP_POWER:
                self.keep_power = False
                return Did.KEEP_POWER_OFF
            case Verb.ALARM:
                self.alarm = True
                return Did.ALARM_ON
            case Verb.CLEAR_ALARM:
                self.alarm = False
                return Did.ALARM_OFF

    def _trip(self, order: Order, now: float) -> Did | Fault:
        if self.keep_power:
            return Fault.KEEP_POWER
        waited = self.waits
        self.trip_ordered = True
        self._forbid_close()
        self._restore_at = None
        if self.is_open:
            return Did.TRIPPED
        if not waited:  # a trip said again does not begin anew
            self._order = order
            if self._trip_delay_s:
                self._trip_at = now + self._trip_delay_s
            else:
                self._open_when_light(now)
        if self._trip_at is not None:
            return Did.TRIP_DELAYED
        return Did.TRIP_WAITS_FOR_LOAD if self.waits else Did.TRIPPED

    def _trip_for_a_time(self, order: Order, now: float) -> Did | Fault:
        """1DH, 1EH: no trip delay; said again while its own time runs, it begins anew."""
        if self.keep_power:
            return Fault.KEEP_POWER_FOR_A_TIME
        if not order.restore_minutes:
            return Fault.RESTORE_TIME
        if self.is_open and self._restore_at is None:
            return Fault.TRIPPED_ALREADY
        self.trip_ordered = True
        self._cancel_trip()
        self._order = order
        self._restore_at = now + order.restore_minutes * 60.0
        if not self.is_open:
            self._move(now, Move.OPENED)
        return Did.TRIPPED_FOR_A_TIME

    def _restore(self, at: float) -> None:
        verb = self._order.verb
        order = Order(verb, frame=self._order.frame, operator=NOBODY.operator)
        directly = verb is Verb.TRIP_THEN_CLOSE and self._kind is not RelayKind.EXTERNAL_HAND_CLOSING
        self._let_close(order, at, directly or self._kind is RelayKind.EXTERNAL_SELF_CLOSING)

    def _let_close(self, order: Order, now: float, by_itself: bool) -> None:
        """No trip holds any more; close it, or leave that to a person."""
        self.trip_ordered = False
        self._cancel_trip()
        self._restore_at = None
        if not self.is_open:
            return
        self._order = order
        if by_itself:
            self._close(now)
        elif not self.permitted:
            self.permitted = True
            if self._press_after_s is not None:
                self._press_at = now + self._press_after_s

    def _open_when_light(self, now: float) -> None:
        """Open it, unless more flows than the limit; then look again in a while."""
        if self._limit_ma and self._load(now) > self._limit_ma:
            if self._held_since is None:
                self._held_since = now
            if now < self._held_since + LONGEST_HOLD_S:
                self._look_at = now + LOAD_CHECK_S
                return
        self._cancel_trip()
        self._move(now, Move.OPENED)

    def _close(self, now: float) -> None:
        self._forbid_close()
        self._move(now, Move.CLOSED)

    def _move(self, at: float, move: Move) -> None:
        self.is_open = move is Move.OPENED
        self.moved_at = at
        self._moved(at, move, self._order)

    def _forbid_close(self) -> None:
        self.permitted = False
        self._press_at = None

    def _cancel_trip(self) -> None:
        self._trip_at = self._held_since = self._look_at = None
