"""What a meter does with relay control (1CH) and security (03H): its checks, its relay, its witness.

Checked are, in this order: hanging up after too many failures, session or password, MAC, what was ordered,
validity by the meter's own clock; the relay itself says the rest. Requests to any address but the meter's own
are only witnessed.
"""

from __future__ import annotations

import hashlib
import hmac
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Final, NamedTuple

from protocols.dlt645 import control, flags
from protocols.dlt645.control_messages import (
    RELAY_CONTROL,
    RESTORE_STEP_MINUTES,
    SECURITY,
    RelayCommand,
    RelayReply,
    SealedCommand,
    SecurityReply,
    SecurityRequest,
    Verb,
)
from protocols.dlt645.fields import moment
from protocols.dlt645.messages import ErrorReply, Reply, Unknown
from simulator.clock import wall
from simulator.esam import BENCH_KEY, Esam
from simulator.ledger import Entry, Ledger, What, nowhere
from simulator.relay import Did, Fault, Move, Order, Relay, RelayKind

RECORDS_KEPT: Final = 10
"""Of trips, and of closes."""

_ERR_OTHER, _ERR_UNAUTHORISED = 0x01, 0x04
_SERR_OTHER, _SERR_AUTHENTICATION, _SERR_SUSPENDED = 0x0001, 0x0008, 0x0100
_AUTHENTICATE, _END_SESSION = "070000ff", "070002ff"
_PLAIN_LENGTH = 8

ACCEPTED: Final = "accepted"
PLAIN_PASSWORDS: Final = (("02", "123456"),)
"""By default, where a meter has no ESAM."""


@dataclass(frozen=True, slots=True)
class Setup:
    """How a meter is made and set, as far as its relay and its clock are concerned."""

    esam: bool = False
    """it takes level 98 only, after identity authentication, unless `passwords` are given too"""
    passwords: tuple[tuple[str, str], ...] | None = None
    """level and P2 P1 P0 of the plain levels that switch; None: PLAIN_PASSWORDS, or none with an ESAM"""
    verbs: frozenset[Verb] = frozenset(Verb)
    status_words: bool = True
    """it answers a sealed command that asks for one with a status word"""
    trip_delay_minutes: int = 0
    """04001401"""
    current_limit_ma: int = 0
    """04001402; 0: a trip does not look at the load"""
    keep_power_closes: bool = True
    """keep-power closes a tripped relay; else it only permits that"""
    line_check_s: float = 0.0
    """so long after a move bit 4 still shows the position before it"""
    press_after_s: float | None = None
    """so long after it may be pressed somebody presses the button; None: nobody does"""
    clock_off_s: float = 0.0
    """its clock is ahead by so much"""
    session_minutes: int = 5
    spends_random: bool = False
    """each sealed command wants an authentication of its own"""
    lock_after: int = 200
    """wrong passwords, authentications and MACs in one day after which it hangs up until midnight"""
    sealed_order: str = control.REVERSED
    master_key: bytes = field(default=BENCH_KEY, repr=False)

    @property
    def plain(self) -> dict[str, str]:
        """Level to password."""
        if self.passwords is None:
            return {} if self.esam else dict(PLAIN_PASSWORDS)
        return dict(self.passwords)


BASE_2007: Final = frozenset(
    (Verb.TRIP, Verb.PERMIT_CLOSE, Verb.ALARM, Verb.CLEAR_ALARM, Verb.KEEP_POWER, Verb.RELEASE_KEEP_POWER)
)
"""`verbs` of meters made before the filings: no direct close, nothing for a time."""


class Switching(NamedTuple):
    """One trip or close that happened: when (true time), and by whom."""

    at: float
    operator: str


class _Seen(NamedTuple):
    """What is known of a frame when it is judged."""

    frame: str
    verb: str
    address: str
    operator: str
    deadline: datetime | None = None


class Control:
    """Of one meter; it answers as `address`. load: see Relay."""

    def __init__(
        self,
        address: str,
        kind: RelayKind,
        setup: Setup,
        load: Callable[[float], int],
        ledger: Ledger = nowhere,
    ) -> None:
        self.relay = Relay(
            kind,
            load,
            self._moved,
            verbs=setup.verbs,
            trip_delay_s=setup.trip_delay_minutes * 60.0,
            limit_ma=setup.current_limit_ma,
            keep_power_closes=setup.keep_power_closes,
            press_after_s=setup.press_after_s,
        )
        self.trips: deque[Switching] = deque(maxlen=RECORDS_KEPT)
        self.closes: deque[Switching] = deque(maxlen=RECORDS_KEPT)
        self.counts = {Move.OPENED: 0, Move.CLOSED: 0}
        self.clock_off_s = setup.clock_off_s
        self._address = address
        self._setup = setup
        self._ledger = ledger
        self._chip: Esam | None = None
        self._failures = 0
        self._failed_on = date.min
        self._judging: list[Entry] | None = None

    def clock(self, now: float) -> datetime:
        """The meter's own."""
        return wall(now + self.clock_off_s)

    def suspended(self, now: float) -> bool:
        """Has it hung up until midnight?"""
        return self._failed_on == self.clock(now).date() and self._failures >= self._setup.lock_after

    def status_word(self, now: float) -> int:
        """Status word 3 (04000503) as it is read now."""
        relay = self.relay
        relay.advance(now)
        shows_open = relay.is_open
        if relay.moved_at is not None and now < relay.moved_at + self._setup.line_check_s:
            shows_open = not shows_open
        authenticated = self._chip is not None and self._chip.valid(now)
        word = (
            shows_open << 4
            | relay.trip_ordered << 6
            | relay.alarm << 7
            | relay.keep_power << 12
            | authenticated << 13
        )
        self._witness(now, "read", "", "04000503", f"{word:04x}")
        return word

    def press(self, now: float) -> bool:
        """Somebody presses the button (or goes to close the switch by hand); whether that closed it."""
        self.relay.advance(now)
        pressed = self.relay.press(now)
        self._witness(now, "button", "", "", Move.CLOSED if pressed else "in vain")
        return pressed

    # -- 1CH --------------------------------------------------------------------------------------

    def switch(self, command: RelayCommand | SealedCommand, raw: bytes, now: float) -> Reply | None:
        """Judge a command and carry it out. raw: its frame."""
        self.relay.advance(now)
        digest = hashlib.sha256(raw).hexdigest()
        plain = isinstance(command, RelayCommand)
        verb = command.verb.word if isinstance(command, RelayCommand) else "sealed"
        deadline = command.deadline if isinstance(command, RelayCommand) else None
        seen = _Seen(digest, verb, command.address, command.authority.operator, deadline)
        if command.address != self._address:
            self._witness(now, "frame", *seen[:2], "not to its own address", seen)
            return None
        outcome: Did | Fault
        moves = self._judging = []
        if self.suspended(now):
            outcome = Fault.SUSPENDED
        elif isinstance(command, RelayCommand):
            outcome = self._obey_plain(command, seen, now)
        else:
            outcome, seen = self._obey_sealed(command, seen, now)
        self._judging = None
        self._witness(now, "frame", *seen[:2], ACCEPTED if isinstance(outcome, Did) else told(outcome), seen)
        for move in moves:
            self._ledger(move)
        wide = not plain and command.wants_word and self._setup.status_words
        if isinstance(outcome, Did):
            return RelayReply(self._address, int(outcome) if wide else None)
        if outcome is Fault.OTHER:
            return ErrorReply(self._address, RELAY_CONTROL, _ERR_OTHER)
        error = int(outcome) if wide else _ERR_UNAUTHORISED
        return ErrorReply(self._address, RELAY_CONTROL, error, wide)

    def unfit(self, message: Unknown, raw: bytes, now: float) -> Reply | None:
        """A frame of 1CH or 03H that says nothing known."""
        self.relay.advance(now)
        digest = hashlib.sha256(raw).hexdigest()
        frame = message.frame
        seen = _Seen(digest, f"{frame.function:02x} unfit", frame.address, "")
        self._witness(now, "frame", *seen[:2], message.reason, seen)
        if frame.address != self._address:
            return None
        return ErrorReply(self._address, frame.function, _ERR_OTHER, wide=frame.function == SECURITY)

    def _obey_plain(self, command: RelayCommand, seen: _Seen, now: float) -> Did | Fault:
        password = self._setup.plain.get(command.authority.level)
        if password is None:
            return Fault.PASSWORD
        if not hmac.compare_digest(password.encode(), command.authority.password.encode()):
            self._failed(now)
            return Fault.PASSWORD
        return self._obey(command.verb, command.restore_minutes, seen, now)

    def _obey_sealed(self, command: SealedCommand, seen: _Seen, now: float) -> tuple[Did | Fault, _Seen]:
        if not self._setup.esam or command.authority.level != "98":
            return Fault.PASSWORD, seen
        chip = self._esam()
        if not chip.valid(now):
            return Fault.SESSION, seen
        block = command.block
        plain = chip.open(block[::-1] if self._setup.sealed_order == control.REVERSED else block)
        if plain is None:
            self._failed(now)
            return Fault.MAC, seen
        try:
            if len(plain) != _PLAIN_LENGTH:
                raise ValueError("R1..R8 are eight bytes")
            verb = Verb(plain[0])
        except ValueError:
            return Fault.OTHER, seen
        try:
            deadline = moment(plain[:1:-1])
        except ValueError:
            return Fault.DEADLINE, seen._replace(verb=verb.word)
        seen = seen._replace(verb=verb.word, deadline=deadline)
        return self._obey(verb, plain[1] * RESTORE_STEP_MINUTES, seen, now), seen

    def _obey(self, verb: Verb, restore_minutes: int, seen: _Seen, now: float) -> Did | Fault:
        if seen.deadline is None or self.clock(now) > seen.deadline:
            return Fault.DEADLINE
        return self.relay.obey(Order(verb, restore_minutes, seen.frame, seen.operator), now)

    # -- 03H --------------------------------------------------------------------------------------

    def security(self, request: SecurityRequest, raw: bytes, now: float) -> Reply | None:
        """Authenticate, or end that; other security commands are refused. Without an ESAM it is silent."""
        self.relay.advance(now)
        digest = hashlib.sha256(raw).hexdigest()
        seen = _Seen(digest, f"03 {request.di}", request.address, request.operator)
        if request.address != self._address or not self._setup.esam:
            known = request.address == self._address
            self._witness(now, "frame", *seen[:2], "no ESAM" if known else "not to its own address", seen)
            return None
        reply, decision = self._secure(request, now)
        self._witness(now, "frame", *seen[:2], decision, seen)
        return reply

    def _secure(self, request: SecurityRequest, now: float) -> tuple[Reply, str]:
        chip = self._esam()
        if self.suspended(now):
            return self._refused(_SERR_SUSPENDED), told(Fault.SUSPENDED)
        fields = dict(request.fields)
        if request.di == _AUTHENTICATE and {"cipher", "random", "diversifier"} <= fields.keys():
            random = chip.authenticate(fields["cipher"], fields["random"], fields["diversifier"], now)
            if random is None:
                self._failed(now)
                return self._refused(_SERR_AUTHENTICATION), "authentication failed"
            answer = (("random", random), ("esam", chip.serial))
            return SecurityReply(self._address, request.di, answer), ACCEPTED
        if request.di == _END_SESSION:
            chip.end()
            account = (("customer", 6), ("money", 4), ("count", 4), ("key_info", 4))
            nothing = tuple((name, bytes(length)) for name, length in account)
            return SecurityReply(self._address, request.di, nothing), ACCEPTED
        return self._refused(_SERR_OTHER), "not known"

    def _refused(self, error: int) -> Reply:
        return ErrorReply(self._address, SECURITY, error, wide=True)

    # -- inside -----------------------------------------------------------------------------------

    def _esam(self) -> Esam:
        """Made when it is wanted first: its keys cost more than all the rest of a meter."""
        if self._chip is None:
            setup = self._setup
            self._chip = Esam(self._address, setup.master_key, setup.session_minutes, setup.spends_random)
        return self._chip

    def _failed(self, now: float) -> None:
        today = self.clock(now).date()
        if today != self._failed_on:
            self._failures, self._failed_on = 0, today
        self._failures += 1

    def _moved(self, at: float, move: Move, order: Order) -> None:
        self.counts[move] += 1
        records = self.trips if move is Move.OPENED else self.closes
        records.appendleft(Switching(at, order.operator))
        seen = _Seen(order.frame, order.verb.word, self._address, order.operator)
        self._witness(at, "moved", *seen[:2], move, seen)

    def _witness(
        self, at: float, what: What, frame: str, verb: str, decision: str, seen: _Seen | None = None
    ) -> None:
        relay = self.relay
        entry = Entry(
            at,
            self._address,
            what,
            frame,
            verb,
            str(decision),
            relay.is_open,
            relay.trip_ordered,
            relay.keep_power,
            relay.permitted,
            self.clock(at),
            seen.deadline if seen else None,
            seen.address if seen and seen.address != self._address else "",
            seen.operator if seen else "",
        )
        if self._judging is None:
            self._ledger(entry)
        else:  # a move that a frame leads to at once is told behind the frame
            self._judging.append(entry)


def told(fault: Fault) -> str:
    """Why not, in the words of the error word."""
    if fault is Fault.OTHER:
        return "not known, or no relay"
    return flags.names(flags.CONTROL_ERROR, fault)[0]
