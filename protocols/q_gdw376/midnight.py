"""The hand-written twin of `units` for frozen registers, AFN0D: what the midnight sweep runs on.

One answer becomes one batch of tuples, without an object for each reading. `units` stays the declared truth:
a body that this file does not understand to its end is read there instead, and tests hold the two equal.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import date, datetime
from functools import lru_cache
from struct import Struct

from protocols.errors import LocalProtocolError
from protocols.q_gdw376.formats import a11, a14, a15, a15_bytes, a20, a20_bytes, a21, a21_bytes
from protocols.q_gdw376.forms import NO_VARIANTS
from protocols.q_gdw376.frame import IDENTIFIER, Frame
from protocols.q_gdw376.identifiers import classes, identifier, points
from protocols.q_gdw376.layouts import (
    DAY_ACTIVE_FNS,
    DAY_REACTIVE_FNS,
    DAY_THREE_PHASE_FNS,
    MONTH_ACTIVE_FNS,
    MONTH_REACTIVE_FNS,
    MONTH_THREE_PHASE_FNS,
)
from protocols.q_gdw376.registers import MOST_TARIFFS, PHASES_LENGTH, USUAL_TARIFFS
from protocols.q_gdw376.units import decode
from protocols.q_gdw376.values import FrozenEnergy, FrozenThreePhase, Registers, Unit

Row = tuple[int, int, date, datetime | None, Registers]
"""pn, fn, tag (of a month: its first day), read time (None: EEH or zero), registers of 0.0001: total first;
empty where the terminal filled up even the number of tariffs."""

_HISTORY = 0x0D
_FILLER = 0xEE
# Read times and tags that stand in memory: every minute of two weeks, every day of years. A stranger may send
# any; then the memory starts anew.
_MOST_TIMES = 20_160
_MOST_TAGS = 4_096


_ENERGY = (5,)
_REACTIVE = (4,)
_THREE_PHASE = (5, 4, 4, 4)

# Packed BCD by table: two bytes, low first, to 0..9999; the same times 10^4; one byte times 10^8. None, which
# no sum takes, where a nibble is above 9: the field is then read by its declared format.
_LOW: list[int] = [None] * 0x10000  # type: ignore[list-item]  # None is the alarm described above
_HIGH: list[int] = [None] * 0x10000  # type: ignore[list-item]
_TOP: list[int] = [None] * 0x100  # type: ignore[list-item]
for _number in range(10_000):
    _LOW[int(str(_number), 16)] = _number
    _HIGH[int(str(_number), 16)] = _number * 10_000
for _number in range(100):
    _TOP[int(str(_number), 16)] = _number * 100_000_000
_FIVE = Struct("<HHB")
# Where each register of three fields begins, by number of tariffs.
_PLACES = tuple(range(0, 3 * (tariffs + 1), 3) for tariffs in range(USUAL_TARIFFS))
_FOUR = Struct("<HH")


class _Kind:
    """How an Fn's data go: tag of `place - 5` bytes, read time, M at `place`, registers of `widths` bytes.

    usual: the unit with four tariffs in one piece, tag, read time, then 2 + 2 + 1 bytes a register; only for
    one set of five-byte registers, which is what the sweep is made of.
    """

    def __init__(self, tag: Callable[[bytes], date | None], place: int, widths: tuple[int, ...]) -> None:
        self.tag = tag
        self.place = place
        self.widths = widths
        self.tags: dict[bytes, date] = {}
        each = sum(widths)
        self.lengths = tuple(place + 1 + each * (tariffs + 1) for tariffs in range(MOST_TARIFFS + 1))
        self.structs = tuple(
            Struct(f"{place - 5}s5sx" + "".join(f"{width * (tariffs + 1)}s" for width in widths))
            for tariffs in range(MOST_TARIFFS + 1)
        )
        self.usual = Struct(f"<{place - 5}s5sx" + "HHB" * 5) if widths == _ENERGY else None
        self.fewer = tuple(
            Struct(f"<{place - 5}s5sx" + "HHB" * (tariffs + 1)) if widths == _ENERGY else None
            for tariffs in range(USUAL_TARIFFS)
        )
        self.usual_length = self.lengths[USUAL_TARIFFS]
        self.filler = bytes([_FILLER]) * (self.usual_length - place)


_KINDS = {
    fn: kind
    for fns, kind in (
        (DAY_ACTIVE_FNS, _Kind(a20, 8, _ENERGY)),
        (DAY_REACTIVE_FNS, _Kind(a20, 8, _REACTIVE)),
        (DAY_THREE_PHASE_FNS, _Kind(a20, 8, _THREE_PHASE)),
        (MONTH_ACTIVE_FNS, _Kind(a21, 7, _ENERGY)),
        (MONTH_REACTIVE_FNS, _Kind(a21, 7, _REACTIVE)),
        (MONTH_THREE_PHASE_FNS, _Kind(a21, 7, _THREE_PHASE)),
    )
    for fn in fns
}

# A body of three phases has an identifier at each of these steps.
_PHASES_STEP = IDENTIFIER + PHASES_LENGTH
_PHASES_CLASSES = frozenset(identifier(0, fn)[2:] for fn in DAY_ACTIVE_FNS)

# Identifiers of one point and one of the classes above, as they come: some fifty thousand at most.
_known: dict[bytes, tuple[int, int, _Kind]] = {}
_times: dict[bytes, datetime] = {}


def rows(frame: Frame, variants: Mapping[str, str] = NO_VARIANTS) -> tuple[list[Row], tuple[Unit, ...]]:
    """The frozen energies of an AFN0D answer, and all its other units.

    Those are: three-phase sets (F1, F2 and kin), units without a tag (a terminal that has no value fills it
    with EEH: reason None, value FrozenEnergy with tag None), bodies of three phases, and whatever is not
    understood (with its reason). Never raises. variants: as in `units.read`; frozen energies have none.
    """
    if frame.afn == _HISTORY and frame.up:
        try:
            return _read(frame.body)
        except (ValueError, IndexError, _Odd):
            pass
    return _declared(frame, variants)


class _Odd(Exception):
    """Something that only `units` can tell: read the frame there."""


def _declared(frame: Frame, variants: Mapping[str, str]) -> tuple[list[Row], tuple[Unit, ...]]:
    """`rows` by the declared layouts."""
    found: list[Row] = []
    rest = []
    for unit in decode(frame, variants):
        value = unit.value
        if isinstance(value, FrozenEnergy) and value.tag is not None:
            found.append((unit.pn, unit.fn, value.tag, value.read_at, value.registers))
        else:
            rest.append(unit)
    return found, tuple(rest)


def _read(body: bytes) -> tuple[list[Row], tuple[Unit, ...]]:
    """The units of `body`; _Odd, ValueError or IndexError where anything in it is not as usual."""
    found: list[Row] = []
    rest: list[Unit] = []
    known = _known
    times = _times
    low, high, top = _LOW, _HIGH, _TOP
    at = 0
    end = len(body)
    if not end % _PHASES_STEP and all(
        body[place + 2 : place + 4] in _PHASES_CLASSES for place in range(0, end, _PHASES_STEP)
    ):
        raise _Odd  # it may be three phases
    while at < end:
        head = body[at : at + 4]
        pn, fn, kind = known.get(head) or _learn(head)
        at += 4
        tariffs = body[at + kind.place]
        if tariffs == USUAL_TARIFFS and kind.usual is not None and at + kind.usual_length <= end:
            day, time, a0, b0, c0, a1, b1, c1, a2, b2, c2, a3, b3, c3, a4, b4, c4 = kind.usual.unpack_from(
                body, at
            )
            tag = kind.tags.get(day) or _learn_tag(kind, day)
            read_at = times.get(time) or _learn_time(time)
            if tag is not None:
                try:
                    registers: Registers = (
                        low[a0] + high[b0] + top[c0],
                        low[a1] + high[b1] + top[c1],
                        low[a2] + high[b2] + top[c2],
                        low[a3] + high[b3] + top[c3],
                        low[a4] + high[b4] + top[c4],
                    )
                except TypeError:
                    registers = _registers(body[at + kind.place + 1 : at + kind.usual_length], 5)
                found.append((pn, fn, tag, read_at, registers))
                at += kind.usual_length
                continue
        if tariffs < USUAL_TARIFFS and (form := kind.fewer[tariffs]) is not None:
            stop = at + kind.lengths[tariffs]
            if stop <= end:
                day, time, *fields = form.unpack_from(body, at)
                tag = kind.tags.get(day) or _learn_tag(kind, day)
                if tag is not None:
                    read_at = times.get(time) or _learn_time(time)
                    try:
                        registers = tuple(
                            [
                                low[fields[place]] + high[fields[place + 1]] + top[fields[place + 2]]
                                for place in _PLACES[tariffs]
                            ]
                        )
                    except TypeError:
                        registers = _registers(body[at + kind.place + 1 : stop], 5)
                    found.append((pn, fn, tag, read_at, registers))
                    at = stop
                    continue
        if tariffs <= MOST_TARIFFS:
            at = _any(body, at, (pn, fn, kind), found, rest)
        else:
            at = _empty(body, at, (pn, fn, kind), found, rest)
    return found, tuple(rest)


def _any(body: bytes, at: int, entry: tuple[int, int, _Kind], found: list[Row], rest: list[Unit]) -> int:
    """A unit at `at` of any kind and number of tariffs: where the next begins. _Odd where it is cut short."""
    pn, fn, kind = entry
    tariffs = body[at + kind.place]
    stop = at + kind.lengths[tariffs]
    if stop > len(body):
        raise _Odd
    day, time, *sets = kind.structs[tariffs].unpack_from(body, at)
    tag = kind.tags.get(day) or _learn_tag(kind, day)
    read_at = _times.get(time) or _learn_time(time)
    told = [_registers(raw, width) for raw, width in zip(sets, kind.widths, strict=True)]
    if kind.widths is _THREE_PHASE:
        rest.append(Unit(pn, fn, FrozenThreePhase(tag, read_at, *told), body[at:stop], at))
    elif tag is None:
        rest.append(Unit(pn, fn, FrozenEnergy(None, read_at, told[0]), body[at:stop], at))
    else:
        found.append((pn, fn, tag, read_at, told[0]))
    return stop


def _registers(raw: bytes, width: int) -> Registers:
    """Registers of `width` bytes each. ValueError where digits are bad."""
    try:
        if width == 5:
            return tuple([_LOW[a] + _HIGH[b] + _TOP[c] for a, b, c in _FIVE.iter_unpack(raw)])
        return tuple([(_LOW[a] + _HIGH[b]) * 100 for a, b in _FOUR.iter_unpack(raw)])
    except TypeError:
        form = a14 if width == 5 else a11
        return tuple([form(raw[place : place + width]) for place in range(0, len(raw), width)])


def _empty(body: bytes, at: int, entry: tuple[int, int, _Kind], found: list[Row], rest: list[Unit]) -> int:
    """A unit at `at` that is filled up from M on: where the next begins.

    _Odd where it is not as long as one with the usual tariffs.
    """
    pn, fn, kind = entry
    start = at + kind.place
    stop = at + kind.lengths[USUAL_TARIFFS]
    if body[start:stop] != kind.filler:
        raise _Odd
    if stop < len(body) and body[stop : stop + 4] not in _known:
        _learn(body[stop : stop + 4])
    tag = kind.tag(body[at : start - 5])
    read_at = a15(body[start - 5 : start])
    if kind.widths is _THREE_PHASE:
        value = FrozenThreePhase(tag, read_at, (), (), (), ())
        rest.append(Unit(pn, fn, value, body[at:stop], at))
    elif tag is None:
        rest.append(Unit(pn, fn, FrozenEnergy(None, read_at, ()), body[at:stop], at))
    else:
        found.append((pn, fn, tag, read_at, ()))
    return stop


def _learn(head: bytes) -> tuple[int, int, _Kind]:
    """Point, class and kind of an identifier that was not seen yet; _Odd where it is not one of ours."""
    if len(head) == 4:
        pns, fns = points(head[:2]), classes(head[2:])
        if len(pns) == 1 and len(fns) == 1 and fns[0] in _KINDS:
            entry = pns[0], fns[0], _KINDS[fns[0]]
            _known[head] = entry
            return entry
    raise _Odd


def _learn_tag(kind: _Kind, raw: bytes) -> date | None:
    if (tag := kind.tag(raw)) is not None:
        if len(kind.tags) >= _MOST_TAGS:
            kind.tags.clear()
        kind.tags[raw] = tag
    return tag


def _learn_time(raw: bytes) -> datetime | None:
    if (read_at := a15(raw)) is not None:
        if len(_times) >= _MOST_TIMES:
            _times.clear()
        _times[raw] = read_at
    return read_at


def encode(pn: int, fn: int, tag: date | None, read_at: datetime | None, registers: Registers) -> bytes:
    """Identifier and data of one frozen energy (F161.. day, F177.. month), as `encode_unit` writes it.

    LocalProtocolError where a value does not fit its format.
    """
    return _encode(pn, fn, tag, read_at, (registers,))


def encode_three_phase(
    pn: int,
    fn: int,
    tag: date | None,
    read_at: datetime | None,
    active: Registers,
    reactive: Registers,
    quadrant_a: Registers,
    quadrant_b: Registers,
) -> bytes:
    """Identifier and data of one three-phase set (F1, F2, F9, F10 day, F17, F18 month)."""
    return _encode(pn, fn, tag, read_at, (active, reactive, quadrant_a, quadrant_b))


def _encode(
    pn: int, fn: int, tag: date | None, read_at: datetime | None, sets: tuple[Registers, ...]
) -> bytes:
    kind = _KINDS.get(fn)
    if kind is None or len(sets) != len(kind.widths):
        raise LocalProtocolError(f"F{fn} is not a class of {len(sets)} frozen registers")
    count = len(sets[0])
    if any(len(registers) != count for registers in sets) or count > MOST_TARIFFS + 1:
        raise LocalProtocolError(f"{[len(registers) for registers in sets]} registers do not fit a unit")
    try:
        head = identifier(pn, fn) + _tag_bytes(tag, kind.place - 5) + _time_bytes(read_at)
        if not count:
            return head + kind.filler
        data = [_digits(registers, width) for registers, width in zip(sets, kind.widths, strict=True)]
    except ValueError as error:
        raise LocalProtocolError(f"p{pn} F{fn}: {error}") from error
    return b"%b%c%b" % (head, count - 1, b"".join(data))


@lru_cache(maxsize=_MOST_TAGS)
def _tag_bytes(tag: date | None, length: int) -> bytes:
    return a20_bytes(tag) if length == 3 else a21_bytes(tag)


@lru_cache(maxsize=_MOST_TIMES)
def _time_bytes(read_at: datetime | None) -> bytes:
    return a15_bytes(read_at)


def _digits(registers: Registers, width: int) -> bytes:
    """Registers as packed BCD of `width` bytes each, low byte first. ValueError where one does not fit."""
    scale = 1 if width == 5 else 100
    form = "%010d" if width == 5 else "%08d"
    digits = ""
    for value in reversed(registers):
        if value is None:
            digits += "ee" * width
        else:
            if value % scale or value < 0:
                raise ValueError(f"{value} does not fit the format")
            digits += form % (value // scale)
    if len(digits) != 2 * width * len(registers):
        raise ValueError(f"{registers} has too many digits")
    return bytes.fromhex(digits)[::-1]
