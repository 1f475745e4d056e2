"""What a terminal says to each request: its clock, its archive, its values, and what its meters say.

A request that it does not know, or has nothing for, is denied (AFN00 F2).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta

from protocols.q_gdw376 import messages
from protocols.q_gdw376.frame import Frame
from protocols.q_gdw376.identifiers import classes
from protocols.q_gdw376.values import (
    Archive,
    ArchiveQuery,
    Clock,
    Forward,
    Forwarded,
    PortCapability,
    TerminalCapabilities,
    TerminalPorts,
    TerminalVersion,
    Unit,
    UnitConfirm,
)
from simulator.bus import Bus
from simulator.clock import wall
from simulator.district import TerminalPlan
from simulator.events import EventMemory
from simulator.store import NotHere, Store

FRAME_AROUND_UNITS = 16
"""Bytes of a frame that are not data units: 8 around the user data, 8 of header."""

_CLOCK_IS_RIGHT = timedelta(seconds=5)
"""No clock is set closer than the seconds it is set in, and the way there."""

_RECORD = 27
_CONFIRM = 0x00
_PRESENT = 0x0C
_FROZEN = 0x0D
_QUERY = 0x0A
_CONFIGURATION = 0x09
_EVENTS = 0x0E
_EVENTS_UNIT = 6
_FORWARD = 0x10

_READING_ON_A_PORT = {49: "port_paused", 50: "port_resumed"}
"""AFN05: the terminal stops reading meters by itself on a port, and goes on."""

ALL_CONFIRMED = b"\x00\x00\x01\x00"
ALL_DENIED = b"\x00\x00\x02\x00"
"""AFN00 F1 and F2."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What to answer with: AFN and data units, in as many frames as they need."""

    afn: int
    units: list[bytes] = field(default_factory=list)


DENIED = Reply(_CONFIRM, [ALL_DENIED])


class Answers:
    """Of one terminal."""

    def __init__(
        self,
        plan: TerminalPlan,
        store: Store,
        memory: EventMemory,
        counts: Counter[str],
        clock_error: timedelta,
        bus: Bus,
    ) -> None:
        self._plan = plan
        self._store = store
        self._memory = memory
        self._counts = counts
        self._clock_error = clock_error
        self._bus = bus

    def clock(self, now: float) -> datetime:
        """What the terminal's own clock shows."""
        return wall(now) + self._clock_error

    def reply(self, frame: Frame, now: float) -> Reply | None:
        """What to say to a request; None: nothing."""
        if abs(self._clock_error) > _CLOCK_IS_RIGHT:
            self._counts["clock_off"] += 1
        if frame.afn == _FROZEN:
            return self._frozen(frame, now)
        if frame.afn == _EVENTS:
            return self._events(frame)
        units = messages.decode(frame)
        match frame.afn:
            case 0x0C:
                return self._several(_PRESENT, [self._present(unit, now) for unit in units])
            case 0x0A:
                return self._several(_QUERY, [part for unit in units for part in self._archive(unit)])
            case 0x09:
                return self._several(_CONFIGURATION, [self._configuration(unit) for unit in units])
            case 0x10 if len(units) == 1 and isinstance(units[0].value, Forward):
                return self._forward(units[0].value, now)
            case 0x04 if all(isinstance(unit.value, Archive) for unit in units):
                for unit in units:
                    if isinstance(unit.value, Archive):
                        self._store.write_archive(unit.value.records)
                return self._done(frame, units)
            case 0x05 if len(units) == 1 and units[0].fn in _READING_ON_A_PORT:
                self._counts[_READING_ON_A_PORT[units[0].fn]] += 1
                return self._done(frame, units)
            case 0x05 if len(units) == 1 and isinstance(units[0].value, Clock):
                return self._set_clock(frame, units, units[0].value, now)
        return DENIED

    def _several(self, afn: int, units: list[bytes]) -> Reply:
        had = [unit for unit in units if unit]
        return Reply(afn, had) if had else DENIED

    def _frozen(self, frame: Frame, now: float) -> Reply:
        try:
            found = self._store.frozen(frame.body, self.clock(now), now)
        except NotHere:
            return DENIED
        if not found.units or (found.missing and self._plan.absent_style == "denied"):
            return DENIED
        return Reply(_FROZEN, found.units)

    def _events(self, frame: Frame) -> Reply:
        """The records asked for; denied where one of them was never written."""
        if len(frame.body) != _EVENTS_UNIT or len(fns := classes(frame.body[2:4])) != 1:
            return DENIED
        pm, pn = frame.body[4:]
        unit = self._memory.unit(fns[0], pm, pn)
        if unit is None:
            return DENIED
        self._counts["event_fetches"] += 1
        self._memory.was_read(fns[0], pn)
        return Reply(_EVENTS, [unit])

    def _present(self, unit: Unit, now: float) -> bytes:
        own = self.clock(now)
        if unit.fn == 2:
            return messages.encode_unit(_PRESENT, 2, 0, Clock(own.replace(microsecond=0), own.isoweekday()))
        if unit.fn == 11:
            return messages.encode_unit(_PRESENT, 11, 0, self._store.reading_state(own, now))
        if unit.fn == 129 and (present := self._store.present(unit.pn, own, now)) is not None:
            return messages.encode_unit(_PRESENT, 129, unit.pn, present)
        return b""

    def _archive(self, unit: Unit) -> list[bytes]:
        """The records asked for that it holds, in units that fit a frame."""
        if not isinstance(unit.value, ArchiveQuery):
            return []
        held = self._store.archive
        records = [held[sequence] for sequence in unit.value.sequences if sequence in held]
        size = (self._plan.send_buffer - FRAME_AROUND_UNITS - 6) // _RECORD
        return [
            messages.encode_unit(_QUERY, 10, 0, Archive(tuple(records[at : at + size])))
            for at in range(0, len(records), size)
        ]

    def _configuration(self, unit: Unit) -> bytes:
        match unit.fn:
            case 1:
                built = date(self._plan.edition + 1, 3, 1)
                edition = "1376" if self._plan.edition >= 2013 else "376"
                value: object = TerminalVersion("LDSM", "SIM", "V1.0", built, "2040", edition, "H1.0", built)
            case 2:
                rx, tx = self._plan.receive_buffer, self._plan.send_buffer
                ports = tuple(PortCapability(word, 9600, 2040, rx, tx) for word in (2, 31))
                value = TerminalPorts(0, 0, 0, 0, len(self._store.archive), rx, tx, ports=ports)
            case 3:
                value = TerminalCapabilities(points=2040, groups=8, tasks=64, difference_groups=0)
            case _:
                return b""
        return messages.encode_unit(_CONFIGURATION, unit.fn, 0, value)

    def _done(self, frame: Frame, units: tuple[Unit, ...]) -> Reply:
        """Confirmed: by F1, or unit by unit in F3, as the terminal's edition likes it."""
        if self._plan.edition < 2013:
            return Reply(_CONFIRM, [ALL_CONFIRMED])
        value = UnitConfirm(frame.afn, tuple((unit.pn, unit.fn, 0) for unit in units))
        return Reply(_CONFIRM, [messages.encode_unit(_CONFIRM, 3, 0, value)])

    def _set_clock(self, frame: Frame, units: tuple[Unit, ...], clock: Clock, now: float) -> Reply:
        if clock.at is None:
            return DENIED
        self._counts["clock_set"] += 1
        self._clock_error = clock.at - wall(now)
        self._store.clock_was_set()
        return self._done(frame, units)

    def _forward(self, asked: Forward, now: float) -> Reply | None:
        """Pass a 645 frame on to the meter it names; a meter that does not answer is told in its own way."""
        self._counts["forwarded"] += 1
        return self._forwarded(asked, self._bus.ask(asked, now))

    def unheard(self, frame: Frame) -> Reply | None:
        """What to say to a request to forward (AFN10 F1) whose meter did not answer in time."""
        units = messages.decode(frame)
        asked = units[0].value if units else None
        return self._forwarded(asked, b"") if isinstance(asked, Forward) else DENIED

    def _forwarded(self, asked: Forward, answer: bytes) -> Reply | None:
        if not answer:
            match self._plan.absent_style:
                case "denied":
                    return DENIED
                case "left_out":
                    return None
        unit = messages.encode_unit(_FORWARD, 1, 0, Forwarded(asked.port, answer))
        return Reply(_FORWARD, [unit])


def patience(frame: Frame) -> float | None:
    """Seconds that a request to forward lets its meter have; None for any other request."""
    if frame.afn != _FORWARD:
        return None
    units = messages.decode(frame)
    asked = units[0].value if len(units) == 1 else None
    if not isinstance(asked, Forward):
        return None
    return (asked.message_timeout & 0x7F) * (1.0 if asked.message_timeout & 0x80 else 0.01)
