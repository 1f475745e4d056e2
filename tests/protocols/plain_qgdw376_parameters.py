"""A second reading of the data of AFN 00 to 0B, 0F and 10, written from the fact sheet and from nothing in
protocols/: one recipe a unit, a plain function over a `Tape`."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from tests.protocols.plain_qgdw376_tape import Tape

Recipe = Callable[[Tape], object]


def _each(count: int, recipe: Recipe) -> Recipe:
    def read(t: Tape) -> None:
        for _ in range(count):
            recipe(t)

    return read


def _row(*recipes: Recipe) -> Recipe:
    def read(t: Tape) -> None:
        for recipe in recipes:
            recipe(t)

    return read


def _counted(recipe: Recipe, length: int = 1) -> Recipe:
    """A count of `length` bytes and so many rounds."""

    def read(t: Tape) -> None:
        _each(t.count(length), recipe)(t)

    return read


def _u(*lengths: int) -> Recipe:
    return _row(*((lambda t, length=length: t.u(length)) for length in lengths))


def _mask(length: int = 1) -> Recipe:
    return lambda t: t.mask(length)


def _number(length: int, decimals: int, signed: bool = False) -> Recipe:
    return lambda t: t.bcd(length, decimals, signed)


def _bits(length: int, *widths: int) -> Recipe:
    return lambda t: t.bits(length, *widths)


def _text(length: int) -> Recipe:
    return lambda t: t.text(length)


def _raw(length: int) -> Recipe:
    return lambda t: t.raw(length)


_A5, _A6, _A7 = _number(2, 1, True), _number(2, 2, True), _number(2, 1)
_A22, _A23, _A25, _A26 = _number(1, 1), _number(3, 4), _number(3, 3, True), _number(2, 3)
_ADDRESS: Recipe = lambda t: t.digits(6)  # noqa: E731
_LINE = _bits(1, 2, 1, 1, 1, 3)
_MASKS = _counted(_mask())


def _limit(value: Recipe) -> Recipe:
    """A limit, how long it must last in minutes, the factor of recovery in %."""
    return _row(value, _u(1), _A5)


def _forwarding(t: Tape) -> None:
    count, _ = t.bits(1, 7, 1) if t.chance is None else _few(t, 7, 1)
    _each(count, _u(2))(t)


def _cascade(t: Tape) -> None:
    _row(_u(1), _LINE, _u(1, 1, 1, 1))(t)
    count, _ = t.bits(1, 4, -3, 1) if t.chance is None else _few(t, 4, -3, 1)
    _each(count, _row(lambda t: t.digits(2), _u(2)))(t)


def _few(t: Tape, *widths: int) -> list[int]:
    """Bits whose first part says how many follow: few."""
    chance, t.chance = t.chance, None
    assert chance is not None
    t.data += bytes([chance.randrange(4) | chance.choice((0, 0x80))])
    parts = t.bits(1, *widths)
    t.chance = chance
    return parts


def _proxy(t: Tape) -> None:
    _row(Tape.ip, Tape.ip, Tape.ip, _u(1), Tape.ip, _u(2, 1))(t)
    t.text(t.count(), padded=False)
    t.text(t.count(), padded=False)
    t.u(2)


def _confirm(t: Tape) -> None:
    """An AFN, then identifiers and their errors to the end of the unit."""
    t.u()
    for _ in range(3 if t.chance is not None else (len(t.data) - 1) // 5):
        t.dadt()
        t.u()


def _plans(t: Tape) -> None:
    for _ in range(t.mask()):
        _each(t.mask(), Tape.a2)(t)


def _support(t: Tape) -> None:
    _each(t.mask(2), _MASKS)(t)


def _bytes_of(length: int) -> Recipe:
    """A length and so many bytes."""

    def read(t: Tape) -> None:
        t.raw(t.count(length))

    return read


def _direct_answer(t: Tape) -> None:
    _row(_u(1), _ADDRESS, _u(1))(t)
    length = t.next(1, lambda chance: [4 + chance.randrange(6)])[0]
    t.said.append(length)
    t.raw(4)
    t.raw(length - 4)


_SETS = _row(_u(1), _counted(_row(_u(1), _MASKS)))
_TASK = _row(_bits(1, 6, 2), Tape.a1, _u(1), _counted(Tape.dadt))
_METER = _row(
    *(_u(2, 2), _bits(1, 5, 3), _u(1), _ADDRESS, _raw(6), _bits(1, 6), _bits(1, 2, 2), _ADDRESS),
    _bits(1, 4, 4),
)
_PORT_RUN = _row(
    *(_u(1), _bits(2, 1, 1, 1, 1, 1, 1), _mask(4), Tape.a19, _u(1), Tape.a18),
    _counted(_row(Tape.a19, Tape.a19)),
)
_RELAYS = _row(_u(1), _counted(_ADDRESS), _ADDRESS)
_RELAY_STATION = _bits(1, 2, 1, 1, 2, 1, 1)

PARAMETERS: dict[int, Recipe] = {
    1: _row(_u(1, 1), _bits(2, 12, 2), _bits(1, 1, 1, 1), _u(1)),
    2: _forwarding,
    3: _row(Tape.ip, _u(2), Tape.ip, _u(2), _text(16)),
    4: _row(_raw(8), _raw(8)),
    5: _u(1, 2),
    6: _u(*[2] * 8),
    7: _proxy,
    8: _row(_bits(1, 2, -2, 2), _u(2, 1, 1), _mask(3)),
    9: _row(_mask(8), _mask(8)),
    10: _counted(_METER, 2),
    11: _counted(_row(_u(1, 1), _mask(), _u(2))),
    12: _row(_mask(), _mask()),
    13: _counted(_row(_u(1, 1), _mask())),
    14: _counted(_row(_u(1), _counted(_bits(1, 6, 1, 1)))),
    15: _counted(_row(_u(1, 1, 1), _bits(1, 2, -5, 1), _u(1), Tape.a3)),
    16: _row(_text(32), _text(32)),
    17: Tape.a2,
    18: _each(12, _bits(1, 2, 2, 2, 2)),
    19: Tape.a4,
    20: Tape.a4,
    21: _u(*[1] * 49),
    22: _counted(Tape.a3),
    23: _mask(3),
    25: _row(_u(2, 2), _A7, _A22, _A23, _bits(1, 2, 2)),
    26: _row(
        *(_A7, _A7, _A7, _limit(_A7), _limit(_A7), _limit(_A25), _limit(_A25), _limit(_A25)),
        *(_limit(_A23), _limit(_A23), _limit(_A5), _limit(_A5), _u(1)),
    ),
    27: _each(12, _A26),
    28: _row(_A5, _A5),
    29: _text(12),
    30: _u(1),
    31: _counted(_ADDRESS),
    33: _counted(_PORT_RUN),
    34: _counted(_row(_u(1), _LINE, _u(4))),
    35: _counted(_u(2)),
    36: _u(4),
    37: _cascade,
    38: _SETS,
    39: _SETS,
    41: _plans,
    42: _row(Tape.a2, Tape.a19, _u(1), _mask()),
    43: _u(1),
    44: _row(Tape.a20, Tape.a20, Tape.a2),
    45: _mask(),
    46: _row(Tape.a3, Tape.a4),
    47: _row(_u(4, 1), Tape.a3, Tape.a3, Tape.a3),
    48: _mask(),
    49: _u(1),
    57: _mask(3),
    58: _u(1),
    59: _row(_A22, _A22, _u(1, 1)),
    60: _row(_each(21, _A5), _each(19, _A6)),
    61: _mask(),
    65: _TASK,
    66: _TASK,
    67: _u(1),
    68: _u(1),
    73: _each(16, _row(_mask(), Tape.a2)),
    74: _row(_A5, _A23, _A23, _u(1, 1)),
    75: _row(_each(4, _A7), _each(4, _A5)),
    76: _u(1),
    81: _row(Tape.a2, Tape.a2),
    82: _row(Tape.a2, Tape.a2),
    83: _u(1),
    89: _row(lambda t: t.digits(2), _u(2)),
    90: _u(1, 1),
    91: _raw(10),
}
"""AFN04, and the answers of AFN0A, by Fn."""

_LISTS = {**dict.fromkeys((11, 13, 14, 33, 34), _counted(_u(1))), 10: _counted(_u(2), 2)}
_LISTS |= dict.fromkeys((38, 39), _row(_u(1), _counted(_u(1))))

_CONTROL: dict[int, Recipe] = {
    1: _bits(1, 4, 4),
    9: _row(_mask(), _u(1)),
    12: _row(_u(1), Tape.a4, _u(*[1] * 6)),
    25: _u(1),
    31: Tape.a1,
    32: _row(_bits(1, 4, 4), Tape.chinese),
    **dict.fromkeys((30, 49, 50, 51, 52, 53, 149), _u(1)),
    **dict.fromkeys((41, 42), _mask(2)),
}

_CONFIGURATION: dict[int, Recipe] = {
    1: _row(
        *(_text(4), _text(8), _text(4), Tape.a20, _text(11), _text(4), _text(4), Tape.a20),
    ),
    2: _row(_u(1, 1, 1, 1, 2, 2, 2), _raw(6), _counted(_row(_mask(2), _u(4, 2, 2, 2)))),
    3: _row(_u(2, *[1] * 15), _mask(2), _u(*[1] * 16)),
    4: _MASKS,
    5: _MASKS,
    6: _support,
    7: _support,
    8: _mask(8),
    9: _row(_text(4), _text(8), _text(4), Tape.a20, _text(4), Tape.a20, _text(20)),
}

RECIPES: dict[tuple[int, int, bool], Recipe] = {
    **{(0x00, 3, up): _confirm for up in (True, False)},
    (0x03, 1, True): _RELAY_STATION,
    (0x03, 1, False): _bits(1, 2, 2),
    (0x03, 2, True): _RELAY_STATION,
    (0x03, 3, True): _each(10, _row(Tape.a15, _RELAY_STATION, _RELAY_STATION)),
    (0x03, 4, True): _u(2, 2, 2, 2, 2),
    **{(0x04, fn, False): recipe for fn, recipe in PARAMETERS.items()},
    **{(0x05, fn, False): recipe for fn, recipe in _CONTROL.items()},
    **{(0x06, fn, up): _raw(16) for fn in (1, 2, 3, 4) for up in (True, False)},
    **{(0x09, fn, True): recipe for fn, recipe in _CONFIGURATION.items()},
    **{(0x0A, fn, True): recipe for fn, recipe in PARAMETERS.items() if fn < 89},
    **{(0x0A, fn, False): recipe for fn, recipe in _LISTS.items()},
    (0x0B, 2, False): Tape.a15,
    (0x0F, 1, True): _u(4),
    (0x0F, 1, False): _row(_u(1, 1, 1, 2, 4), _bytes_of(2)),
    (0x10, 1, False): _row(_u(1), _LINE, _bits(1, 7, 1), _u(1), _bytes_of(2)),
    (0x10, 1, True): _row(_u(1), _bytes_of(2)),
    (0x10, 9, False): _row(_RELAYS, _u(1), _raw(4)),
    (0x10, 9, True): _direct_answer,
    **{(0x10, fn, False): _row(_RELAYS, _u(1), _bytes_of(1)) for fn in (10, 11)},
    **{(0x10, fn, True): _row(_u(1), _ADDRESS, _u(1, 1)) for fn in (10, 11)},
    (0x10, 13, False): _u(1),
    (0x10, 13, True): _row(_u(1, 2), _counted(_raw(8), 2)),
}
"""(AFN, Fn, up) -> how its data read. What has no data is not here."""


def made(key: tuple[int, int, bool], seed: int) -> tuple[bytes, list[Any]]:
    """Data of a unit, made up, and the values they hold."""
    tape = Tape(chance=random.Random(f"{key} {seed}"))
    RECIPES[key](tape)
    return tape.data, tape.said


def read(key: tuple[int, int, bool], data: bytes) -> list[Any]:
    """The values of a unit's data, which must be no longer than it."""
    tape = Tape(data)
    RECIPES[key](tape)
    assert tape.at == len(data)
    return tape.said
