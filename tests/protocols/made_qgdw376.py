"""Hypothesis strategies for Q/GDW 376.1: frames, values of every unit that is built, and mutations."""

from __future__ import annotations

import random
from datetime import date, datetime
from typing import Any

from hypothesis import strategies as st

from protocols.q_gdw376 import values
from protocols.q_gdw376.events import Events, EventsQuery, read_record
from protocols.q_gdw376.frame import Frame, build
from protocols.q_gdw376.layouts import (
    BAUD_RATES,
    DAY_ACTIVE_FNS,
    DAY_REACTIVE_FNS,
    DAY_THREE_PHASE_FNS,
    LAYOUTS,
    MONTH_ACTIVE_FNS,
    MONTH_REACTIVE_FNS,
    MONTH_THREE_PHASE_FNS,
)
from protocols.q_gdw376.messages import encode_unit

bytes1 = st.integers(0, 255)
words = st.integers(0, 65535)
points = st.integers(0, 2040)
days = st.dates(date(2000, 1, 1), date(2099, 12, 31))
months = days.map(lambda day: day.replace(day=1))
instants = st.datetimes(datetime(2000, 1, 1), datetime(2099, 12, 31, 23, 59)).map(
    lambda at: at.replace(microsecond=0)
)
minutes = instants.map(lambda at: at.replace(second=0))
active = st.none() | st.integers(0, 10**10 - 1)
reactive = st.none() | st.integers(0, 10**8 - 1).map(lambda value: value * 100)
addresses = st.text("0123456789", min_size=12, max_size=12)


def _printable(length: int) -> st.SearchStrategy[str]:
    return st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=length)


clocks = st.builds(values.Clock, instants, st.integers(0, 7)) | st.just(values.Clock(None))
records = st.builds(
    values.ArchiveRecord,
    sequence=words,
    pn=words,
    port=st.integers(0, 31),
    baud=st.sampled_from(BAUD_RATES),
    protocol=bytes1,
    address=addresses,
    tariffs=st.integers(0, 63),
    collector=addresses,
    user_class=bytes1,
    password=st.binary(min_size=6, max_size=6),
    integer_digits=st.integers(4, 7),
    decimal_digits=st.integers(1, 4),
)
archives = st.builds(values.Archive, st.lists(records, max_size=4).map(tuple))
_port_capabilities = st.builds(values.PortCapability, words, st.integers(0, 2**32 - 1), words, words, words)
_progress = st.builds(
    values.PortProgress, bytes1, words, bytes1, words, bytes1, st.none() | instants, st.none() | instants
)


def _energies(energy: st.SearchStrategy[int | None]) -> st.SearchStrategy[values.Registers]:
    return st.lists(energy, max_size=6).map(tuple)


def _frozen(
    tags: st.SearchStrategy[date], energy: st.SearchStrategy[int | None]
) -> st.SearchStrategy[values.FrozenEnergy]:
    return st.builds(values.FrozenEnergy, st.none() | tags, st.none() | minutes, _energies(energy))


@st.composite
def _three_phase(draw: st.DrawFn, tags: st.SearchStrategy[date]) -> values.FrozenThreePhase:
    count = draw(st.integers(0, 6))

    def some(energy: st.SearchStrategy[int | None]) -> values.Registers:
        return tuple(draw(st.lists(energy, min_size=count, max_size=count)))

    tag, read_at = draw(st.none() | tags), draw(st.none() | minutes)
    return values.FrozenThreePhase(tag, read_at, some(active), some(reactive), some(reactive), some(reactive))


phases = st.builds(
    values.FrozenPhases, st.none() | days, st.none() | minutes, st.tuples(active, active, active)
)


def value_of(afn: int, fn: int, up: bool) -> st.SearchStrategy[Any]:
    """Values of one unit that is built."""
    if afn == 0x0D:
        return _history(fn, up)
    if afn == 0x0C and fn > 100:
        energy = active if fn in (129, 131) else reactive
        return st.builds(values.PresentEnergy, st.none() | minutes, _energies(energy))
    return {
        (0x00, 3, True): _confirms,
        (0x00, 3, False): _confirms,
        (0x02, 1, True): st.builds(values.Login, st.binary(min_size=1, max_size=9)),
        (0x02, 3, True): clocks,
        (0x04, 10, False): archives,
        (0x05, 31, False): clocks,
        (0x09, 1, True): _versions,
        (0x09, 2, True): _ports,
        (0x09, 3, True): _capabilities,
        (0x0A, 10, False): st.builds(values.ArchiveQuery, st.lists(words, max_size=32).map(tuple)),
        (0x0A, 10, True): archives,
        (0x0C, 2, True): clocks,
        (0x0C, 11, True): st.builds(values.ReadingState, st.lists(_progress, max_size=3).map(tuple)),
        **{(0x0E, fn, True): _events for fn in (1, 2)},
        **{(0x0E, fn, False): st.builds(EventsQuery, bytes1, bytes1) for fn in (1, 2)},
        (0x10, 1, False): st.builds(values.Forward, bytes1, bytes1, bytes1, bytes1, st.binary(max_size=60)),
        (0x10, 1, True): st.builds(values.Forwarded, bytes1, st.binary(max_size=60)),
    }[afn, fn, up]


@st.composite
def _told_events(draw: st.DrawFn) -> Events:
    records = draw(st.lists(st.builds(read_record, bytes1, st.binary(max_size=30)), max_size=3))
    pm = draw(bytes1)
    return Events(draw(bytes1), draw(bytes1), pm, (pm + len(records)) % 256, tuple(records))


_events = _told_events()
_confirms = st.builds(
    values.UnitConfirm,
    bytes1,
    st.lists(st.tuples(points, st.integers(1, 248), bytes1), max_size=4).map(tuple),
)
_versions = st.builds(
    values.TerminalVersion,
    _printable(4),
    _printable(8),
    _printable(4),
    st.none() | days,
    _printable(11),
    _printable(4),
    _printable(4),
    st.none() | days,
)
_ports = st.builds(
    values.TerminalPorts,
    bytes1,
    bytes1,
    bytes1,
    bytes1,
    words,
    words,
    words,
    st.binary(min_size=6, max_size=6).map(bytes.hex),
    st.lists(_port_capabilities, max_size=3).map(tuple),
)
# Too short for the whole of AFN09 F3, which would tell its end by itself.
_capabilities = st.builds(values.TerminalCapabilities, words, bytes1, bytes1, bytes1, st.binary(max_size=14))


def _history(fn: int, up: bool) -> st.SearchStrategy[Any]:
    monthly = fn in (*MONTH_ACTIVE_FNS, *MONTH_REACTIVE_FNS, *MONTH_THREE_PHASE_FNS)
    if not up:
        return st.builds(values.MonthTag, months) if monthly else st.builds(values.DayTag, days)
    if fn in (*DAY_THREE_PHASE_FNS, *MONTH_THREE_PHASE_FNS):
        return _three_phase(months if monthly else days)
    energy = active if fn in (*DAY_ACTIVE_FNS, *MONTH_ACTIVE_FNS) else reactive
    assert fn in (*DAY_ACTIVE_FNS, *MONTH_ACTIVE_FNS, *DAY_REACTIVE_FNS, *MONTH_REACTIVE_FNS)
    return _frozen(months if monthly else days, energy)


keys = st.sampled_from(sorted(LAYOUTS))
"""(AFN, Fn, up) of every unit that is built."""


@st.composite
def units(draw: st.DrawFn) -> tuple[int, bool, int, int, object]:
    """(AFN, up, pn, fn, value) of one unit."""
    afn, fn, up = draw(keys)
    return afn, up, draw(points), fn, draw(value_of(afn, fn, up))


terminals = st.text("0123456789abcdef", min_size=8, max_size=8)


@st.composite
def frames(
    draw: st.DrawFn, body: bytes | None = None, up: bool | None = None, afn: int | None = None
) -> Frame:
    """Frames of any envelope, around a body of at most 300 bytes."""
    if body is None:
        body = draw(st.binary(max_size=300))
    upward = draw(st.booleans()) if up is None else up
    acd, tpv = draw(st.booleans()), draw(st.booleans())
    ec = draw(st.tuples(bytes1, bytes1)) if upward and acd and len(body) >= 4 else None
    tp = draw(st.binary(min_size=6, max_size=6)) if tpv and len(body) >= 4 else None
    return Frame(
        terminal=draw(terminals),
        up=upward,
        prm=draw(st.booleans()),
        function=draw(st.integers(0, 15)),
        afn=draw(bytes1) if afn is None else afn,
        body=body,
        group=draw(st.booleans()),
        msa=draw(st.integers(0, 127)),
        acd=acd,
        fcv=draw(st.booleans()),
        tpv=tpv,
        fir=draw(st.booleans()),
        fin=draw(st.booleans()),
        con=draw(st.booleans()),
        pseq=draw(st.integers(0, 15)),
        ec=ec,
        tp=tp,
        protocol_id=draw(st.sampled_from((1, 2))),
    )


@st.composite
def frames_of_units(draw: st.DrawFn, afns: tuple[int, ...] = (0x09, 0x0A, 0x0C, 0x0D, 0x10)) -> Frame:
    """Up frames of one to six units of one AFN."""
    afn = draw(st.sampled_from(afns))
    fns = sorted(fn for one, fn, up in LAYOUTS if one == afn and up and (one, fn) != (0x09, 3))
    body = b""
    for _ in range(draw(st.integers(1, 6))):
        fn = draw(st.sampled_from(fns))
        body += encode_unit(afn, fn, draw(points), draw(value_of(afn, fn, True)))
    return draw(frames(body, True, afn))


def repaired(raw: bytes) -> bytes:
    """The same bytes with 68H, L, CS and 16H as they must be, so that damage gets past the first door."""
    user = raw[6:-2][:16383]
    length = (len(user) << 2 | 2).to_bytes(2, "little")
    return b"\x68%b%b\x68%b%c\x16" % (length, length, user, sum(user) & 0xFF)


def mutated(raw: bytes, chance: random.Random) -> bytes:
    """`raw` with its user data behind AFN made a little worse, and repaired."""
    user = bytearray(raw)
    for _ in range(chance.choice((1, 1, 2, 3))):
        at = chance.randrange(13, len(user) - 2)
        match chance.randrange(6):
            case 0:
                user[at] ^= 1 << chance.randrange(8)
            case 1:
                user[at] = chance.choice((0x00, 0x01, 0x04, 0x14, 0x99, 0x9A, 0xEE, 0xEF, 0xFF))
            case 2:
                user[at:at] = chance.randbytes(chance.randrange(1, 5))
            case 3:
                del user[at : min(at + chance.randrange(1, 5), len(user) - 3)]
            case 4:
                count = min(chance.randrange(1, 40), len(user) - 2 - at)
                user[at : at + count] = bytes([chance.choice((0xEE, 0xEE, 0xEF, 0x00))]) * count
            case _:
                user[at:at] = user[at : at + chance.randrange(1, 40)]
    return repaired(bytes(user))


def raw_frames() -> st.SearchStrategy[bytes]:
    """Bytes of made frames."""
    return frames_of_units().map(build)
