"""Walking the data units of a frame, and writing one.

A unit's length comes from its layout, else from the list of items; a unit of unknown length ends the walk and
is kept raw with all that follows. A frame of energies has two catches, both decided here: a terminal may fill
up even the number of tariffs M, and some send a daily freeze as three phases without M.
"""

from __future__ import annotations

from dataclasses import dataclass

from protocols.errors import LocalProtocolError, RemoteProtocolError
from protocols.q_gdw376.frame import Frame
from protocols.q_gdw376.identifiers import classes, identifier, points
from protocols.q_gdw376.items import lookup, unit_length
from protocols.q_gdw376.layout import FILLERS, Layout
from protocols.q_gdw376.layouts import DAY_ACTIVE_FNS, LAYOUTS
from protocols.q_gdw376.registers import MOST_TARIFFS, PHASES, PHASES_LENGTH, USUAL_TARIFFS
from protocols.q_gdw376.values import FrozenPhases, Unit

PASSWORD_AFNS = frozenset((0x01, 0x04, 0x05, 0x06, 0x0F, 0x10))
"""AFNs whose down frames end with PW."""
PASSWORD_LENGTHS = (2, 16)
"""Q/GDW 130-2005 has 2 bytes (and so has one captured 376.1 frame); 376.1 has 16."""
_HISTORY = 0x0D
_REQUEST_TAG_AFNS = (0x0C, 0x0D)

_IDENTIFIER = 4
# An identifier of four bytes may name 64 units without data. No honest frame has this many units; what lies
# behind them is kept raw.
MOST_UNITS = 4096


@dataclass(frozen=True, slots=True)
class Content:
    """What a frame's body holds. password: PW of a down frame, b"" where there is none."""

    units: tuple[Unit, ...]
    password: bytes

    @property
    def whole(self) -> bool:
        """Every unit was told apart, whether or not it was understood."""
        return not self.units or self.units[-1].reason not in _ENDS


NO_POINT = "the identifier names no point or no class"
CUT_IDENTIFIER = "too short for an identifier"
UNKNOWN = "not in the list of items"
NO_LENGTH = "length not known"
TOO_LONG = "cut short"
UNTOLD_LENGTH = "no telling where an empty unit ends"
TOO_MANY = f"more than {MOST_UNITS} units"
_ENDS = frozenset((NO_POINT, CUT_IDENTIFIER, UNKNOWN, NO_LENGTH, TOO_LONG, UNTOLD_LENGTH, TOO_MANY))
NOT_BUILT = "no layout; kept raw"


def decode(frame: Frame) -> tuple[Unit, ...]:
    """The frame's data units. Never raises: what is not understood is a `Unit` with its reason."""
    return read(frame).units


def read(frame: Frame) -> Content:
    """The frame's data units and password. Never raises."""
    if frame.up and frame.afn == _HISTORY:
        phases = _read_phases(frame.body)
        if phases:
            return Content(phases, b"")
    walk = _Walk(frame.afn, frame.up, frame.body)
    walk.run()
    return Content(tuple(walk.units), walk.password)


def identify(frame: Frame) -> tuple[tuple[int, int], ...] | None:
    """(pn, fn) of every unit, without reading what they say; None where they cannot all be told apart."""
    phases = _read_phases(frame.body) if frame.up and frame.afn == _HISTORY else ()
    units = phases
    if not phases:
        walk = _Walk(frame.afn, frame.up, frame.body, understand=False)
        walk.run()
        units = tuple(walk.units)
    return tuple((unit.pn, unit.fn) for unit in units) if Content(units, b"").whole else None


def encode_unit(afn: int, fn: int, pn: int, value: object | None = None, up: bool = True) -> bytes:
    """Identifier and data of one unit. value: None for no data, bytes as they are, else of the layout's type.

    LocalProtocolError where the value does not fit, or no layout is known for it.
    """
    head = identifier(pn, fn)
    if value is None:
        return head
    if isinstance(value, bytes):
        return head + value
    if isinstance(value, FrozenPhases) and afn == _HISTORY and up and fn in DAY_ACTIVE_FNS:
        return head + PHASES.encode(value)
    layout = LAYOUTS.get((afn, fn, up))
    if layout is None:
        raise LocalProtocolError(f"no layout for AFN{afn:02X} F{fn} {'up' if up else 'down'}")
    return head + layout.encode(value)


class _Walk:
    """One pass over a body."""

    def __init__(self, afn: int, up: bool, body: bytes, understand: bool = True) -> None:
        self.afn = afn
        self.up = up
        self.body = body
        self.units: list[Unit] = []
        self.password = b""
        self._understand = understand
        self._at = 0
        self._empty_lengths: dict[int, int] = {}

    def run(self) -> None:
        while self._at < len(self.body):
            left = len(self.body) - self._at
            if self.units and not self.up and self.afn in PASSWORD_AFNS and left in PASSWORD_LENGTHS:
                self.password = self.body[self._at :]
                return
            if left < _IDENTIFIER:
                self._end(0, 0, CUT_IDENTIFIER)
                return
            head = self.body[self._at : self._at + _IDENTIFIER]
            pns, fns = points(head[:2]), classes(head[2:])
            self._at += _IDENTIFIER
            if not pns or not fns:
                self._end(pns[0] if pns else 0, fns[0] if fns else 0, NO_POINT)
                return
            if not (self._shared(pns, fns) if not self.up else self._each(pns, fns)):
                return

    def _each(self, pns: tuple[int, ...], fns: tuple[int, ...]) -> bool:
        """Up: data for each point and class in turn. False where the walk ends."""
        return all(self._unit(pn, fn) for pn in pns for fn in fns)

    def _shared(self, pns: tuple[int, ...], fns: tuple[int, ...]) -> bool:
        """Down: a tag (AFN0C, 0D) stands once for all points and classes of the identifier."""
        if self.afn not in _REQUEST_TAG_AFNS:
            return self._each(pns, fns)
        start = self._at
        for pn in pns:
            for fn in fns:
                self._at = start
                if not self._unit(pn, fn):
                    return False
        return True

    def _unit(self, pn: int, fn: int) -> bool:
        if len(self.units) >= MOST_UNITS:
            self._end(pn, fn, TOO_MANY)
            return False
        layout = LAYOUTS.get((self.afn, fn, self.up))
        length = self._length(fn, layout)
        if isinstance(length, str):
            self._end(pn, fn, length)
            return False
        start = self._at
        if start + length > len(self.body):
            self._end(pn, fn, TOO_LONG)
            return False
        raw = self.body[start : start + length]
        value = reason = None
        if layout is not None and raw and self._understand:
            try:
                value = layout.decode(raw)
            except RemoteProtocolError as error:
                reason = error.reason
        elif layout is None and raw:
            reason = NOT_BUILT
        self.units.append(Unit(pn, fn, value, raw, start, reason))
        self._at = start + length
        return True

    def _length(self, fn: int, layout: Layout | None) -> int | str:
        """Length of the unit at `_at`; else why there is no telling."""
        left = len(self.body) - self._at
        if layout is None:
            length = unit_length(self.afn, fn, self.up, self.body, self._at)
            if length is not None:
                return length
            return NO_LENGTH if lookup(self.afn, fn, self.up) else UNKNOWN
        if layout.rest or (self.afn == 0x02 and not left):
            return left
        counted = self.body[self._at + layout.place : self._at + layout.place + layout.size]
        if len(counted) < layout.size:
            return TOO_LONG
        count = int.from_bytes(counted, "little")
        if layout.empty is None:
            return layout.fixed + layout.each * count
        if count in FILLERS:
            return self._empty_length(fn, layout, count)
        if count > MOST_TARIFFS:
            return TOO_LONG
        length = layout.fixed + layout.each * count
        self._empty_lengths[fn] = length
        return length

    def _empty_length(self, fn: int, layout: Layout, filler: int) -> int | str:
        """Where a unit ends whose M is filled up: behind the filler, as long as others of this class in this
        frame, as long as one with the usual tariffs, or with the frame; the first place that fits."""
        left = len(self.body) - self._at
        filled = layout.place + 1
        while filled < left and self.body[self._at + filled] == filler:
            filled += 1
        usual = layout.fixed + layout.each * USUAL_TARIFFS
        for length in (filled, self._empty_lengths.get(fn, usual), usual):
            if length == left or self._begins(self._at + length):
                return length
        return UNTOLD_LENGTH if self.units else left

    def _begins(self, place: int) -> bool:
        """Whether a known unit's identifier stands at `place`."""
        head = self.body[place : place + _IDENTIFIER]
        if len(head) < _IDENTIFIER or not points(head[:2]):
            return False
        fns = classes(head[2:])
        return bool(fns) and all(lookup(self.afn, fn, self.up) is not None for fn in fns)

    def _end(self, pn: int, fn: int, reason: str) -> None:
        self.units.append(Unit(pn, fn, None, self.body[self._at :], self._at, reason))
        self._at = len(self.body)


def _read_phases(body: bytes) -> tuple[Unit, ...]:
    """The units of a body of nothing but daily freezes of three phases; none where it is anything else.

    It is told by its length and by an identifier at every step; all its digits may pass for tariffs, so this
    is looked at first. Where no phase has a value the body is left to the usual form, which says so better.
    """
    step = _IDENTIFIER + PHASES_LENGTH
    if len(body) % step:
        return ()
    units = []
    some = False
    for place in range(0, len(body), step):
        pns, fns = points(body[place : place + 2]), classes(body[place + 2 : place + 4])
        if len(pns) != 1 or len(fns) != 1 or fns[0] not in DAY_ACTIVE_FNS:
            return ()
        raw = body[place + _IDENTIFIER : place + step]
        try:
            value = PHASES.decode(raw)
        except RemoteProtocolError:
            return ()
        assert isinstance(value, FrozenPhases)
        some = some or any(phase is not None for phase in value.phases)
        units.append(Unit(pns[0], fns[0], value, raw, place + _IDENTIFIER))
    return tuple(units) if some else ()
