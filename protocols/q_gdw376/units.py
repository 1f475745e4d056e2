"""Walking the data units of a frame, and writing one.

A unit's length comes from the form of its row in `items.csv`; a unit of unknown length ends the walk and is
kept raw with all that follows. What it says is a value of its own type where `layouts` has one, else
`Fields`. Where a form has alternatives of unlike lengths, that one holds behind which the frame goes on or
ends. A frame of energies has two more catches: a terminal may fill up even the number of tariffs M, and some
send a daily freeze as three phases without M.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from protocols.errors import LocalProtocolError, RemoteProtocolError
from protocols.q_gdw376.event_records import events_length
from protocols.q_gdw376.fields import Fields
from protocols.q_gdw376.forms import NO_VARIANTS, Form
from protocols.q_gdw376.frame import GW_376, Frame
from protocols.q_gdw376.identifiers import classes, identifier, points
from protocols.q_gdw376.items import form_of, lookup
from protocols.q_gdw376.layouts import DAY_ACTIVE_FNS, LAYOUTS
from protocols.q_gdw376.registers import PHASES, PHASES_LENGTH
from protocols.q_gdw376.values import FrozenPhases, Unit

PASSWORD_AFNS = frozenset((0x01, 0x04, 0x05, 0x06, 0x0F, 0x10))
"""AFNs whose down frames end with PW."""
PASSWORD_LENGTHS = (2, 16)
"""Q/GDW 130-2005 has 2 bytes (and so has one captured 376.1 frame); 376.1 has 16."""
_HISTORY = 0x0D
_EVENTS = 0x0E
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


def decode(frame: Frame, variants: Mapping[str, str] = NO_VARIANTS) -> tuple[Unit, ...]:
    """The frame's data units. Never raises: what is not understood is a `Unit` with its reason."""
    return read(frame, variants).units


def read(frame: Frame, variants: Mapping[str, str] = NO_VARIANTS) -> Content:
    """The frame's data units and password. Never raises.

    variants: a profile's settings that choose between layouts of one length (see `forms.Form`).
    """
    if frame.up and frame.afn == _HISTORY:
        phases = _read_phases(frame.body)
        if phases:
            return Content(phases, b"")
    walk = _Walk(frame, variants)
    walk.run()
    return Content(tuple(walk.units), walk.password)


def identify(frame: Frame, variants: Mapping[str, str] = NO_VARIANTS) -> tuple[tuple[int, int], ...] | None:
    """(pn, fn) of every unit, without reading what they say; None where they cannot all be told apart."""
    phases = _read_phases(frame.body) if frame.up and frame.afn == _HISTORY else ()
    units = phases
    if not phases:
        walk = _Walk(frame, variants, understand=False)
        walk.run()
        units = tuple(walk.units)
    return tuple((unit.pn, unit.fn) for unit in units) if Content(units, b"").whole else None


def view(afn: int, up: bool, unit: Unit, variants: Mapping[str, str] = NO_VARIANTS) -> Fields | None:
    """A unit field by field, with names, places and bytes, whatever type its value has; None where it has no
    data or is not understood. Offsets are those of the frame's body."""
    if isinstance(unit.value, Fields):
        return unit.value
    phases = isinstance(unit.value, FrozenPhases)
    form = form_of(afn, _PHASES_TWIN if phases else unit.fn, up)
    if form is None or form.unknown or not unit.raw:
        return None
    try:
        return form.decode(unit.raw, variants, unit.offset)
    except RemoteProtocolError:
        return None


# AFN0D F153 has the layout that some terminals send for `DAY_ACTIVE_FNS`.
_PHASES_TWIN = 153


def encode_unit(
    afn: int,
    fn: int,
    pn: int,
    value: object | None = None,
    up: bool = True,
    variants: Mapping[str, str] = NO_VARIANTS,
) -> bytes:
    """Identifier and data of one unit. value: None for no data, bytes as they are, `Fields` or a mapping of
    names for the row's form, else of the layout's type.

    LocalProtocolError where the value does not fit, or no layout is known for it.
    """
    return identifier(pn, fn) + encode_data(afn, fn, value, up, variants)


def encode_data(
    afn: int,
    fn: int,
    value: object | None = None,
    up: bool = True,
    variants: Mapping[str, str] = NO_VARIANTS,
) -> bytes:
    """The data of one unit without its identifier; as `encode_unit`."""
    if value is None:
        return b""
    if isinstance(value, bytes):
        return value
    if isinstance(value, Fields | Mapping):
        form = form_of(afn, fn, up)
        if form is None:
            raise LocalProtocolError(f"no form for AFN{afn:02X} F{fn} {'up' if up else 'down'}")
        return form.encode(value, variants)
    if isinstance(value, FrozenPhases) and afn == _HISTORY and up and fn in DAY_ACTIVE_FNS:
        return PHASES.encode(value)
    layout = LAYOUTS.get((afn, fn, up))
    if layout is None:
        raise LocalProtocolError(f"no layout for AFN{afn:02X} F{fn} {'up' if up else 'down'}")
    return layout.encode(value)


class _Walk:
    """One pass over a body."""

    def __init__(self, frame: Frame, variants: Mapping[str, str], understand: bool = True) -> None:
        self.afn = frame.afn
        self.up = frame.up
        self.body = frame.body
        self.units: list[Unit] = []
        self.password = b""
        self._variants = variants
        self._understand = understand
        self._has_password = not frame.up and frame.afn in PASSWORD_AFNS
        self._password_length = PASSWORD_LENGTHS[frame.protocol_id == GW_376] if self._has_password else 0
        self._at = 0
        self._empty_lengths: dict[int, int] = {}

    def run(self) -> None:
        while self._at < len(self.body):
            left = len(self.body) - self._at
            if self.units and self._has_password and left in PASSWORD_LENGTHS:
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
        form = form_of(self.afn, fn, self.up)
        length = self._length(fn, form)
        if isinstance(length, str) or form is None:
            self._end(pn, fn, str(length))
            return False
        start = self._at
        if start + length > len(self.body):
            self._end(pn, fn, TOO_LONG)
            return False
        raw = self.body[start : start + length]
        value: object | None = None
        reason = None
        if raw and self._understand:
            layout = LAYOUTS.get((self.afn, fn, self.up))
            try:
                if layout is not None:
                    value = layout.decode(raw, self._variants)
                else:
                    value = form.decode(raw, self._variants, start)
            except RemoteProtocolError as error:
                reason = error.reason
        self.units.append(Unit(pn, fn, value, raw, start, reason))
        self._at = start + length
        return True

    def _length(self, fn: int, form: Form | None) -> int | str:
        """Length of the unit at `_at`; else why there is no telling."""
        at, end = self._at, len(self.body)
        if form is None:
            return NO_LENGTH if lookup(self.afn, fn, self.up) else UNKNOWN
        if form.unknown and (self.afn, fn, self.up) not in LAYOUTS:
            return NO_LENGTH
        if self.up and self.afn == _EVENTS:
            # By pointers and Le, which no form can say: behind F1 there may be F2.
            return events_length(self.body, at, end)
        if form.greedy:
            end = max(at, end - self._password_length)
            if at == end:
                # What goes to the frame's end may be nothing at all (captured: AFN00 F3).
                return 0
        filled = form.filled_tariffs(self.body, at, end, self._variants)
        if filled is not None:
            return self._empty_length(fn, *filled)
        lengths = form.lengths(self.body, at, end, self._variants)
        if not lengths:
            return TOO_LONG
        length = lengths[0]
        if len(lengths) > 1:
            length = next((each for each in lengths if self._goes_on(at + each)), length)
        self._empty_lengths[fn] = length
        return length

    def _empty_length(self, fn: int, place: int, usual: int) -> int | str:
        """Where a unit ends whose M, at `place`, is filled up: behind the filler, as long as others of this
        class in this frame, as long as one with the usual tariffs, or with the frame; the first place that
        fits."""
        left = len(self.body) - self._at
        filler = self.body[self._at + place]
        filled = place + 1
        while filled < left and self.body[self._at + filled] == filler:
            filled += 1
        for length in (filled, self._empty_lengths.get(fn, usual), usual):
            if self._goes_on(self._at + length):
                return length
        return UNTOLD_LENGTH if self.units else left

    def _goes_on(self, place: int) -> bool:
        """Whether the body ends at `place`, or with PW behind it, or a known unit's identifier is there."""
        left = len(self.body) - place
        if left == 0 or (self._has_password and left in PASSWORD_LENGTHS):
            return True
        head = self.body[place : place + _IDENTIFIER]
        if left < _IDENTIFIER or not points(head[:2]):
            return False
        fns = classes(head[2:])
        return bool(fns) and all(lookup(self.afn, fn, self.up) is not None for fn in fns)

    def _end(self, pn: int, fn: int, reason: str) -> None:
        """The walk ends here: what is left is one unit, without PW where its length is not known."""
        end = len(self.body)
        if reason == NO_LENGTH and self._password_length and end - self._at >= self._password_length:
            end -= self._password_length
            self.password = self.body[end:]
        self.units.append(Unit(pn, fn, None, self.body[self._at : end], self._at, reason))
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
