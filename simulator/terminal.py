"""A Q/GDW 376.1 terminal: dials in, logs in, beats, answers, forwards and pushes. No socket, no clock.

Drive it like the protocol objects: `dial` when a link is open, `receive_data`, `handle_timeout` at
`next_timeout()`, and after each of them take `outgoing()` and look at `hang_up`. `now` is the district's
count of seconds; its own wall clock follows it, with the error that it may have.
"""

from __future__ import annotations

import random
from collections import Counter, deque
from dataclasses import dataclass
from datetime import date, timedelta
from enum import Enum
from hashlib import sha256
from typing import Literal

from protocols.q_gdw376 import messages
from protocols.q_gdw376.frame import EC_LENGTH, Frame, build, checksum, content, examine
from protocols.q_gdw376.stream import FrameStream
from protocols.q_gdw376.values import Clock
from protocols.wire import Damaged
from simulator import events
from simulator.answers import ALL_DENIED, FRAME_AROUND_UNITS, Answers, Reply, patience
from simulator.bus import Bus, Making
from simulator.carrier import Carrier
from simulator.district import TerminalPlan
from simulator.faults import Faults, Push, TerminalFaults
from simulator.pushes import Pushed, Pushes, nowhere
from simulator.store import Naming, Store

CONFIRM_TIMEOUT = 20.0
"""Seconds that a login may go unconfirmed before it hangs up and dials anew."""
MISSED_HEARTBEATS = 3
"""Heartbeats without a confirm, and for no less than CONFIRM_TIMEOUT, after which the line is dead to it."""
PUSH_REPEAT = 10.0
"""Seconds between repeats of an event that is not confirmed; tasks: see `faults.Push`."""
NOT_READY_AGAIN = 30.0
"""Seconds until it looks again for values to push that it has not read yet."""

_PUSHED_UNIT = 38
"""Bytes of an F161 unit with four tariffs."""

# AFN, and C's function codes.
_CONFIRM, _LINK, _FROZEN, _EVENTS = 0x00, 0x02, 0x0D, 0x0E
_USER_DATA, _RESPOND, _LINK_TEST = 4, 8, 9

_LOGIN = b"\x00\x00\x01\x00"
_LOGOUT = b"\x00\x00\x02\x00"
_HEARTBEAT = b"\x00\x00\x04\x00"


class State(Enum):
    AWAY = "no link"
    CALLING = "login sent, not confirmed"
    HERE = "logged in"
    LEAVING = "logout sent"


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A frame to send. answer: to a request; cut: the line is to break in the middle of it."""

    frame: bytes
    answer: bool = False
    cut: bool = False


@dataclass(slots=True)
class _Push:
    """A task on its way: the points in it, its bytes, and when to send it again."""

    points: list[int]
    frame: bytes
    pseq: int
    again_at: float


@dataclass(slots=True)
class _Report:
    """An event on its way: in which memory and where, its bytes, and when to send it again."""

    kind: int
    pointer: int
    frame: bytes
    pseq: int
    again_at: float


class Terminal:
    """One terminal. `day`: the district's; `started`: now at the start; `counts`: of faults and traffic."""

    def __init__(
        self,
        plan: TerminalPlan,
        day: date,
        started: float,
        *,
        faults: Faults | None = None,
        mine: TerminalFaults | None = None,
        counts: Counter[str] | None = None,
        heartbeat: float = 60.0,
        naming: Naming = "ended_day",
        patience: float = 1.0,
        making: Making | None = None,
        pushes: Pushes = nowhere,
    ) -> None:
        """patience: how much longer to wait for the master: on a fast clock the network does not hurry.
        making: how its meters are made. pushes: told of the readings that it sends of its own accord."""
        self.plan = plan
        self.state = State.AWAY
        self.hang_up = False
        """True when it wants its link closed"""
        self._counts = Counter() if counts is None else counts
        self._faults = faults or Faults()
        self._mine = mine or TerminalFaults(seed=plan.address)
        self._chance = random.Random(self._mine.seed)
        self._heartbeat = heartbeat
        self._confirm_timeout = CONFIRM_TIMEOUT * patience
        self._report_repeat = PUSH_REPEAT * patience
        self._tasks = self._faults.push or Push(1)
        self._push_again = self._tasks.again * patience
        self._pushes = pushes
        self.store = Store(plan, day, started, self._faults, self._mine, self._counts, naming)
        self._memory = events.EventMemory()
        self._noticing = deque((started + after, erc) for after, erc in self._mine.events)
        self._unreported: deque[tuple[int, int]] = deque()
        self._report: _Report | None = None
        missed = frozenset({day, day + timedelta(days=2)})
        self.bus = Bus(plan, making or Making(), self._counts, self._mine.missed_freeze, missed)
        clock_error = timedelta(seconds=self._mine.clock_off)
        self._answers = Answers(plan, self.store, self._memory, self._counts, clock_error, self.bus)
        self._carrier: Carrier | None = None
        if self._faults.carrier:
            chance = random.Random(f"{self._mine.seed}/carrier")
            answers = self._answers
            self._carrier = Carrier(
                self._faults.carrier, chance, self._counts, answers.reply, answers.unheard
            )
        area, address = bytes.fromhex(plan.address[:4]), bytes.fromhex(plan.address[4:])
        self._wire_address = area[::-1] + address[::-1]
        self._stream = FrameStream()
        self._outgoing: deque[Outgoing] = deque()
        self._sequence = self._chance.randrange(16)
        self._login_sequence = -1
        self._login_deadline: float | None = None
        self._beat_at: float | None = None
        self._unconfirmed_beats = 0
        self._confirmed_at = started
        self._frozen_answers = 0
        self._held: tuple[bytes, list[Outgoing]] | None = None
        self._push: _Push | None = None
        self._push_at: float | None = None
        self._pushed: set[int] = set()
        self._meter_of = {meter.pn: meter.number for meter in plan.meters}

    def prepare(self, now: float) -> None:
        """Do beforehand what would slow down a sweep of all meters at once."""
        self.store.prepare(self._answers.clock(now), now)

    # -- the link ---------------------------------------------------------------------------------

    def dial(self, now: float) -> None:
        """A new link is open: say who it is."""
        self.lost()
        self._notice(now)
        self.state = State.CALLING
        self._login_deadline = now + self._confirm_timeout
        if self._mine.impostor:
            self._counts["clash"] += 1
        login = self._spontaneous(_LINK, _LINK_TEST, _LOGIN)
        self._login_sequence = self._sequence
        self._outgoing.append(Outgoing(login))
        if self._mine.double_login:
            self._counts["double_login"] += 1
            self._outgoing.append(Outgoing(login))

    def lost(self) -> None:
        """The link is gone, and with it all that was half said."""
        self.state = State.AWAY
        self.hang_up = False
        self._stream = FrameStream()
        self._outgoing.clear()
        self._login_deadline = self._beat_at = self._push_at = None
        self._unconfirmed_beats = 0
        self._held = None
        self._push = self._report = None
        if self._carrier is not None:
            self._carrier.give_up()

    def log_out(self, now: float) -> None:
        """Say goodbye, if it was logged in; `hang_up` follows the confirm, or the end of patience."""
        if self.state is not State.HERE:
            self.hang_up = True
            return
        self.state = State.LEAVING
        self._beat_at = self._push_at = None
        self._login_deadline = now + self._confirm_timeout
        self._outgoing.append(Outgoing(self._spontaneous(_LINK, _LINK_TEST, _LOGOUT)))
        self._login_sequence = self._sequence

    def outgoing(self) -> list[Outgoing]:
        """Take the frames that wait to be sent."""
        taken = list(self._outgoing)
        self._outgoing.clear()
        return taken

    def next_timeout(self) -> float | None:
        """When `handle_timeout` is wanted next."""
        push = self._push.again_at if self._push else self._push_at
        noticed = self._noticing[0][0] if self._noticing else None
        report = self._report.again_at if self._report else None
        carried = self._carrier.next_timeout() if self._carrier else None
        moved = self.bus.next_timeout()
        waits = (self._login_deadline, self._beat_at, push, noticed, report, carried, moved)
        times = [at for at in waits if at is not None]
        return min(times, default=None)

    def handle_timeout(self, now: float) -> None:
        """Do what is due by `now`."""
        if self._login_deadline is not None and now >= self._login_deadline:
            self._login_deadline = None
            self.hang_up = True
        if self._beat_at is not None and now >= self._beat_at:
            self._beat(now)
        if self._push is not None and now >= self._push.again_at:
            self._counts["push_repeated"] += 1
            self._push.again_at = now + self._push_again
            self._outgoing.append(Outgoing(self._push.frame))
        elif self._push is None and self._push_at is not None and now >= self._push_at:
            self._push_next(now)
        self._notice(now)
        if self._report is not None and now >= self._report.again_at:
            self._counts["event_repeated"] += 1
            self._report.again_at = now + self._report_repeat
            self._outgoing.append(Outgoing(self._report.frame))
        self._carry(now)

    def _carry(self, now: float) -> None:
        """Let the meters do, and say, what was due."""
        if self._carrier is not None:
            for frame, reply in self._carrier.run(now):
                self._outgoing.extend(self._frames(frame, reply))
        self.bus.handle_timeout(now)

    def receive_data(self, data: bytes, now: float) -> None:
        """Take bytes from the master; frames for others and rubbish are passed over."""
        if not self._stream.held and examine(data, 0) == len(data):
            self._hear(
                content(data), data, now
            )  # one whole frame, as nearly always: no need to search for it
            return
        self._stream.receive_data(data)
        while (event := self._stream.next_event()) is not None:
            if isinstance(event, Damaged):
                self._counts["damaged_received"] += 1
            else:
                self._hear(event.frame, event.raw, now)

    def _hear(self, frame: Frame, raw: bytes, now: float) -> None:
        if frame.terminal != self.plan.address or frame.up:
            return
        if frame.prm:
            self._asked(frame, raw, now)
        else:
            self._confirmed(frame, now)

    # -- what it sends of its own accord ----------------------------------------------------------

    def _spontaneous(self, afn: int, function: int, body: bytes, *, con: bool = True) -> bytes:
        self._sequence = (self._sequence + 1) & 15
        frame = Frame(
            terminal=self.plan.address, up=True, prm=True, function=function, afn=afn, body=body,
            con=con, pseq=self._sequence, **self._memory.counters,
        )  # fmt: skip
        return build(frame)

    def _notice(self, now: float) -> None:
        """Write down the events that are due, and report the next one where it does that."""
        while self._noticing and now >= self._noticing[0][0]:
            _, erc = self._noticing.popleft()
            kind = events.kind_of(erc)
            pointer = self._memory.note(
                erc, events.body(erc, self.plan, self._answers.clock(now), self._chance), kind
            )
            self._counts["events"] += 1
            if self._mine.reports:
                self._unreported.append((kind, pointer))
        if self._report is None and self._unreported and self.state is State.HERE:
            kind, pointer = self._unreported[0]
            unit = self._memory.unit(kind, pointer, (pointer + 1) % events.MEMORY)
            assert unit is not None
            frame = self._spontaneous(_EVENTS, _USER_DATA, unit)
            self._report = _Report(kind, pointer, frame, self._sequence, now + self._report_repeat)
            self._counts["event_reports"] += 1
            self._outgoing.append(Outgoing(frame))

    def _beat(self, now: float) -> None:
        self._beat_at = now + self._heartbeat
        unheard = now - self._confirmed_at
        if self._unconfirmed_beats >= MISSED_HEARTBEATS and unheard >= self._confirm_timeout:
            self.hang_up = True
            return
        self._unconfirmed_beats += 1
        body = _HEARTBEAT
        if self.plan.edition >= 2013:
            own = self._answers.clock(now)
            body = messages.encode_unit(_LINK, 3, 0, Clock(own.replace(microsecond=0), own.isoweekday()))
        self._outgoing.append(Outgoing(self._spontaneous(_LINK, _LINK_TEST, body)))

    def _push_next(self, now: float) -> None:
        """Send the next task: F161 of points not pushed yet."""
        own = self._answers.clock(now)
        waiting = [pn for pn in self.store.ready_points(own, now) if pn not in self._pushed]
        points = waiting[
            : min(self._tasks.points, (self.plan.send_buffer - FRAME_AROUND_UNITS) // _PUSHED_UNIT)
        ]
        if not points:
            self._push_at = now + NOT_READY_AGAIN
            return
        units = self.store.frozen(self.store.ask_for(points), own, now).units
        trusting = self._mine.trusting
        frame = self._spontaneous(_FROZEN, _USER_DATA, b"".join(units), con=not trusting)
        push = _Push(points, frame, self._sequence, now + self._push_again)
        if trusting:
            self._pushed.update(points)
            self._push_at = now + self._tasks.pause
        else:
            self._push = push
        self._counts["push"] += 1
        self._outgoing.append(Outgoing(frame))
        self._tell("sent", push)

    def _tell(self, what: Literal["sent", "confirmed"], push: _Push) -> None:
        meters = tuple(self._meter_of[pn] for pn in push.points)
        self._pushes(Pushed(what, self.plan.address, sha256(push.frame).hexdigest(), meters))

    def _confirmed(self, frame: Frame, now: float) -> None:
        """The master's answer to something it said of its own accord."""
        if frame.afn != _CONFIRM or frame.body.startswith(ALL_DENIED):
            return
        self._unconfirmed_beats = 0
        self._confirmed_at = now
        if frame.pseq == self._login_sequence:
            if self.state is State.CALLING:
                self.state = State.HERE
                self._login_deadline = None
                self._beat_at = now + self._heartbeat
                self._push_at = now + self._tasks.after if self._mine.push else None
                self._counts["logins"] += 1
            elif self.state is State.LEAVING:
                self.hang_up = True
        if self._push is not None and frame.pseq == self._push.pseq:
            self._counts["push_confirmed"] += 1
            self._tell("confirmed", self._push)
            self._pushed.update(self._push.points)
            self._push = None
            self._push_at = now
        if self._report is not None and frame.pseq == self._report.pseq:
            self._memory.was_read(self._report.kind, (self._report.pointer + 1) % events.MEMORY)
            self._unreported.popleft()
            self._report = None
        self._notice(now)

    # -- what it answers --------------------------------------------------------------------------

    def _asked(self, frame: Frame, raw: bytes, now: float) -> None:
        if len(raw) > self.plan.receive_buffer or frame.group:
            self._counts["dropped_requests"] += 1
            return
        self._counts["requests"] += 1
        if self._held is not None and raw == self._held[0]:
            return
        late, self._held = self._held, None
        if late is not None:
            self._outgoing.extend(late[1])
        silence = self._faults.silence
        if silence and self._chance.random() < silence.fraction:
            self._counts["silence"] += 1
            return
        if self._carrier is not None and (allowed := patience(frame)) is not None:
            self._carry(now)
            self._carrier.take(frame, allowed, now)
            self._carry(now)
            return
        reply = self._answers.reply(frame, now)
        if reply is None:
            return
        answer = self._frames(frame, reply)
        if frame.afn == _FROZEN and reply.afn == _FROZEN:
            self._frozen_answers += 1
            if self._frozen_answers in self._mine.late_answers:
                self._counts["late"] += 1
                self._held = (raw, answer)
                return
            if self._frozen_answers in self._mine.cut_answers:
                answer[-1] = Outgoing(answer[-1].frame, answer=True, cut=True)
        self._outgoing.extend(answer)

    def _frames(self, asked: Frame, reply: Reply) -> list[Outgoing]:
        """The answer in as few frames as its send buffer allows (SEQ: FIR, FIN, numbers rising from RSEQ)."""
        room = self.plan.send_buffer - FRAME_AROUND_UNITS - (EC_LENGTH if self._memory.waiting else 0)
        bodies = [b"".join(reply.units)]
        if len(bodies[0]) > room:
            bodies = _split(reply.units, room)
        last = len(bodies) - 1
        return [
            Outgoing(self._answer_frame(asked, reply.afn, body, number, last), answer=True)
            for number, body in enumerate(bodies)
        ]

    def _answer_frame(self, asked: Frame, afn: int, body: bytes, number: int, last: int) -> bytes:
        """Frame `number` of 0..`last`, as `frame.build` would make it, but at the pace of a sweep."""
        fir, fin = number == 0, number == last
        pseq = (asked.pseq + number) & 15
        if asked.tp is not None or self._memory.waiting:
            return build(
                Frame(
                    terminal=self.plan.address, up=True, prm=False, function=_RESPOND, afn=afn, body=body,
                    msa=asked.msa, fir=fir, fin=fin, pseq=pseq, protocol_id=asked.protocol_id,
                    tpv=asked.tp is not None, tp=asked.tp, **self._memory.counters,
                )
            )  # fmt: skip
        sequence = fir << 6 | fin << 5 | pseq
        user = b"%c%b%c%c%c%b" % (0x80 | _RESPOND, self._wire_address, asked.msa << 1, afn, sequence, body)
        length = (len(user) << 2 | asked.protocol_id).to_bytes(2, "little")
        return b"\x68%b%b\x68%b%c\x16" % (length, length, user, checksum(user))


def _split(units: list[bytes], room: int) -> list[bytes]:
    """Whole units joined to bodies of at most `room` bytes; a unit that is longer has a body of its own."""
    bodies = [b""]
    for unit in units:
        if bodies[-1] and len(bodies[-1]) + len(unit) > room:
            bodies.append(b"")
        bodies[-1] += unit
    return bodies
