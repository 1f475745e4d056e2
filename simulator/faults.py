"""What goes wrong in a district, as data: read from a JSON or TOML file, checked, and dealt out by seed.

A file is one table; each fault is a table of its own with the fields below, and one left out does not
happen. Seconds are those of the simulator's clock; "from the start" means since the simulator began.

    {"seed": 3, "corrupt": {"fraction": 0.01}, "delay": {"least": 0, "most": 3}, "vanish": {"count": 20}}
"""

from __future__ import annotations

import itertools
import json
import math
import random
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from datetime import time
from pathlib import Path
from typing import Any, TypeVar, get_args, get_type_hints

from simulator.district import District, TerminalPlan
from simulator.events import RAISED


class FaultsError(ValueError):
    """The faults cannot be read; the message names the file and the key."""


class _OutOfRange(ValueError):
    """A field's value makes no sense; the message begins with the field."""


_Table = TypeVar("_Table")
_KINDS = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}


@dataclass(frozen=True, slots=True)
class Fraction:
    """So many of all, 0..1."""

    fraction: float

    def __post_init__(self) -> None:
        _within(self.fraction, "fraction", 0, 1)


@dataclass(frozen=True, slots=True)
class NotReady:
    """`fraction` of the points have no value of the district's day until `seconds` from the start."""

    fraction: float
    seconds: float

    def __post_init__(self) -> None:
        _within(self.fraction, "fraction", 0, 1)
        _within(self.seconds, "seconds", 0)


@dataclass(frozen=True, slots=True)
class Delay:
    """`fraction` of the answers come `least` to `most` seconds late."""

    least: float
    most: float
    fraction: float = 1.0

    def __post_init__(self) -> None:
        _within(self.fraction, "fraction", 0, 1)
        _within(self.least, "least", 0)
        _within(self.most, "most", self.least)


@dataclass(frozen=True, slots=True)
class Count:
    """So many: terminals, meters or exchanges."""

    count: int

    def __post_init__(self) -> None:
        _within(self.count, "count", 0)


@dataclass(frozen=True, slots=True)
class Push:
    """`count` terminals send their F161 as tasks (PRM = 1) of `points` points, from `after` seconds after
    each login on. With CON = 1 the same again each `again` seconds until it is confirmed, and then the next
    one. `trusting` of them ask for no confirm: each task is sent once, `pause` seconds after the last one."""

    count: int
    trusting: int = 0
    points: int = 16
    after: float = 3.0
    again: float = 10.0
    pause: float = 1.0

    def __post_init__(self) -> None:
        _within(self.count, "count", 0)
        _within(self.trusting, "trusting", 0, self.count)
        _within(self.points, "points", 1)
        _within(self.after, "after", 0)
        _within(self.again, "again", 0)
        _within(self.pause, "pause", 0)


@dataclass(frozen=True, slots=True)
class CountBetween:
    """So many times, each `least` to `most` seconds from the start."""

    count: int
    least: float = 1.0
    most: float = 20.0

    def __post_init__(self) -> None:
        _within(self.count, "count", 0)
        _within(self.least, "least", 0)
        _within(self.most, "most", self.least)


@dataclass(frozen=True, slots=True)
class Events:
    """`count` events, dealt out one after another, each `least` to `most` seconds from the start; `reported`
    (0..1) of the terminals that have some send them of their own accord."""

    count: int
    least: float = 1.0
    most: float = 20.0
    reported: float = 0.0

    def __post_init__(self) -> None:
        _within(self.count, "count", 0)
        _within(self.least, "least", 0)
        _within(self.most, "most", self.least)
        _within(self.reported, "reported", 0, 1)


@dataclass(frozen=True, slots=True)
class CountSeconds:
    """So many terminals, by or for so many seconds."""

    count: int
    seconds: float

    def __post_init__(self) -> None:
        _within(self.count, "count", 0)


@dataclass(frozen=True, slots=True)
class FractionSeconds:
    """So many of all, 0..1, by so many seconds."""

    fraction: float
    seconds: float

    def __post_init__(self) -> None:
        _within(self.fraction, "fraction", 0, 1)


@dataclass(frozen=True, slots=True)
class Carrier:
    """An exchange with a meter takes `least` to `most` seconds; a fraction `loss` of them is lost on the way
    there or back, and a fraction `twice` of the frames reaches the meter once more, up to 2 `most` later."""

    least: float
    most: float
    loss: float = 0.0
    twice: float = 0.0

    def __post_init__(self) -> None:
        _within(self.least, "least", 0)
        _within(self.most, "most", self.least)
        _within(self.loss, "loss", 0, 1)
        _within(self.twice, "twice", 0, 1)


@dataclass(frozen=True, slots=True)
class Messages:
    """Where a link carries messages one by one: a fraction `loss` is lost, either way (UDP); a fraction
    `twice` of ours comes twice (UDP, MQTT)."""

    loss: float = 0.0
    twice: float = 0.0

    def __post_init__(self) -> None:
        _within(self.loss, "loss", 0, 1)
        _within(self.twice, "twice", 0, 1)


@dataclass(frozen=True, slots=True)
class Relays:
    """How the meters' relays are made and set. What is a fraction (0..1) is true of so many of them."""

    esam: float = 0.0
    """take level 98 after identity authentication; the others the password of level 02"""
    plain_too: bool = False
    """those with an ESAM take that password as well"""
    spends_random: bool = False
    """each sealed command wants an authentication of its own"""
    base_text: float = 0.0
    """know neither the direct close nor status words"""
    keep_power_permits: float = 0.0
    """a tripped one closes on keep-power only when the button is pressed"""
    trip_delay_minutes: int = 0
    current_limit_a: float = 0.0
    """a trip of a built-in relay waits while more flows; 0: it does not look"""
    line_check: float = 0.0
    """seconds until status word 3 shows a move"""
    pressed: float = 0.0
    """have somebody who presses the button, `press_least` to `press_most` seconds after he may"""
    press_least: float = 30.0
    press_most: float = 600.0

    def __post_init__(self) -> None:
        for name in ("esam", "base_text", "keep_power_permits", "pressed"):
            _within(getattr(self, name), name, 0, 1)
        _within(self.trip_delay_minutes, "trip_delay_minutes", 0, 9999)
        _within(self.current_limit_a, "current_limit_a", 0, 799)
        _within(self.line_check, "line_check", 0)
        _within(self.press_least, "press_least", 0)
        _within(self.press_most, "press_most", self.press_least)


@dataclass(frozen=True, slots=True)
class Pace:
    """How a terminal reads its meters each night: from `begin` on, evenly, until it is done at a time of its
    own between `done_from` and `done_until` (all HH:MM after midnight)."""

    done_from: str
    done_until: str
    begin: str = "00:05"

    def __post_init__(self) -> None:
        begin, early, late = self.seconds
        _within(early, "done_from", begin)
        _within(late, "done_until", early)

    @property
    def seconds(self) -> tuple[float, float, float]:
        """begin, done_from, done_until in seconds after midnight."""
        return (
            _clock(self.begin, "begin"),
            _clock(self.done_from, "done_from"),
            _clock(self.done_until, "done_until"),
        )


@dataclass(frozen=True, slots=True)
class Faults:
    """All faults of a run; None: does not happen."""

    seed: int = 0
    pace: Pace | None = None
    """no fault in itself: without it every value is ready at once"""
    not_ready: NotReady | None = None
    filler: Fraction | None = None
    """points of which the terminal never has a value of the district's day (EE in all its bytes); the meter
    behind them does answer"""
    silence: Fraction | None = None
    """requests that get no answer"""
    delay: Delay | None = None
    corrupt: Fraction | None = None
    """frames with one byte changed on the way"""
    split: Fraction | None = None
    """frames that arrive in pieces"""
    merge: Fraction | None = None
    """frames held back until the next one and sent in one piece with it"""
    vanish: CountBetween | None = None
    """lines dropped without FIN: the old socket stays open and silent, the terminal dials anew"""
    cut: Count | None = None
    """lines dropped in the middle of an answer"""
    double_login: Count | None = None
    """terminals that send every login twice"""
    clock_off: CountSeconds | None = None
    """terminals whose clock is wrong by `seconds` (ahead if positive) until it is set; whole days that it is
    off shift the days under which they keep their values"""
    swapped: Count | None = None
    """meters replaced without the terminal being told: its archive names the old meter, whose values it goes
    on giving; the new one answers at its own address"""
    late: Count | None = None
    """answers that come one exchange late"""
    absent: CountSeconds | None = None
    """terminals that do not dial before `seconds` from the start"""
    clash: Count | None = None
    """second devices with a terminal's address and other meters, both alive"""
    push: Push | None = None
    """terminals that send of their own accord what others are asked for"""
    missed_freeze: Count | None = None
    """meters that slept through the midnights before and after the district's day's: their freezes do not
    count calendar days"""
    events: Events | None = None
    """what terminals notice and keep for the master (AFN0E), or report"""
    carrier: Carrier | None = None
    """forwarded frames take their time on the way to the meter and back, and are lost"""
    messages: Messages | None = None
    """datagrams and MQTT messages that are lost or doubled; a stream knows nothing of it"""
    relays: Relays | None = None
    """no fault in itself: without it every relay moves at once, on the password of level 02"""
    meter_clock_off: FractionSeconds | None = None
    """meters whose clock is wrong by `seconds` (ahead if positive)"""
    meter_clock_lost: Fraction | None = None
    """meters whose clock began anew at 2000-01-01 when the simulator started"""


@dataclass(frozen=True, slots=True)
class TerminalFaults:
    """What goes wrong at one terminal, dealt out from `Faults`. Times are seconds from the start."""

    seed: str
    vanish_after: tuple[float, ...] = ()
    cut_answers: frozenset[int] = frozenset()
    late_answers: frozenset[int] = frozenset()
    """which of its answers to AFN0D requests, counted from 1"""
    double_login: bool = False
    clock_off: float = 0.0
    absent_until: float = 0.0
    push: bool = False
    trusting: bool = False
    """what it pushes is said once, and no confirm asked for"""
    impostor: bool = False
    missed_freeze: frozenset[int] = frozenset()
    """points whose meters missed midnights"""
    events: tuple[tuple[float, int], ...] = ()
    """(when, ERC) of what it notices"""
    reports: bool = False
    """it sends events of its own accord"""


@dataclass(slots=True)
class _Hand:
    """TerminalFaults in the making."""

    vanish_after: list[float] = field(default_factory=list)
    cut_answers: set[int] = field(default_factory=set)
    late_answers: set[int] = field(default_factory=set)
    double_login: bool = False
    clock_off: float = 0.0
    absent_until: float = 0.0
    push: bool = False
    trusting: bool = False
    missed_freeze: set[int] = field(default_factory=set)
    events: list[tuple[float, int]] = field(default_factory=list)
    reports: bool = False


def load(path: Path) -> Faults:
    """Read a .json or .toml file. FaultsError where it cannot be read or says what is no fault."""
    try:
        text = path.read_text(encoding="utf-8")
        table = tomllib.loads(text) if path.suffix == ".toml" else json.loads(text)
        return from_table(table)
    except (OSError, ValueError) as error:
        raise FaultsError(f"{path}: {error}") from error


def from_table(table: object) -> Faults:
    """A parsed table as Faults. FaultsError that names the wrong key."""
    return _read(Faults, table, "")


def deal(faults: Faults, district: District) -> list[tuple[TerminalPlan, TerminalFaults]]:
    """Who gets what: every terminal of the district and every impostor, the same for equal arguments.

    Clash, swapped meters, absence, a wrong clock and pushing fall on different terminals while there are
    enough of them, so that each can be told by what it does.
    """
    chance = random.Random(f"{faults.seed}/{district.seed}")
    clashing = {impostor.address for impostor in district.impostors}
    hands = {terminal.address: _Hand() for terminal in district.terminals}
    free = [t for t in district.terminals if t.address not in clashing and not t.stale] or list(
        district.terminals
    )
    chance.shuffle(free)
    turn = itertools.cycle(free)  # each fault goes on where the last one stopped

    if faults.absent:
        for terminal in _some(turn, faults.absent.count, len(free)):
            hands[terminal.address].absent_until = faults.absent.seconds
    if faults.clock_off:
        for terminal in _some(turn, faults.clock_off.count, len(free)):
            hands[terminal.address].clock_off = faults.clock_off.seconds
    if faults.push:
        for number, terminal in enumerate(_some(turn, faults.push.count, len(free))):
            hands[terminal.address].push = True
            hands[terminal.address].trusting = number < faults.push.trusting
    if faults.double_login:
        for terminal in _some(turn, faults.double_login.count, len(free)):
            hands[terminal.address].double_login = True
    if faults.cut:
        for terminal in _some(turn, faults.cut.count):
            hand = hands[terminal.address]
            hand.cut_answers.add(_unused(hand.cut_answers, chance.randint(1, 3)))
    if faults.late:
        for terminal in _some(turn, faults.late.count):
            hand = hands[terminal.address]
            hand.late_answers.add(_unused(hand.late_answers | hand.cut_answers, chance.randint(1, 3)))
    if faults.vanish:
        for terminal in _some(turn, faults.vanish.count):
            hands[terminal.address].vanish_after.append(
                chance.uniform(faults.vanish.least, faults.vanish.most)
            )
    if faults.missed_freeze:
        for terminal in _some(turn, faults.missed_freeze.count):
            hands[terminal.address].missed_freeze.add(chance.choice(terminal.meters).pn)
    if faults.events:
        for number, terminal in enumerate(_some(turn, faults.events.count)):
            hand = hands[terminal.address]
            if not hand.events:
                hand.reports = chance.random() < faults.events.reported
            at = chance.uniform(faults.events.least, faults.events.most)
            hand.events.append((at, RAISED[number % len(RAISED)]))

    dealt = []
    for terminal in district.terminals:
        hand = hands[terminal.address]
        mine = TerminalFaults(
            seed=f"{faults.seed}/{district.seed}/{terminal.address}",
            vanish_after=tuple(sorted(hand.vanish_after)),
            cut_answers=frozenset(hand.cut_answers),
            late_answers=frozenset(hand.late_answers),
            double_login=hand.double_login,
            clock_off=hand.clock_off,
            absent_until=hand.absent_until,
            push=hand.push,
            trusting=hand.trusting,
            missed_freeze=frozenset(hand.missed_freeze),
            events=tuple(sorted(hand.events)),
            reports=hand.reports,
        )
        dealt.append((terminal, mine))
    for impostor in district.impostors:
        seed = f"{faults.seed}/{district.seed}/impostor/{impostor.address}"
        dealt.append((impostor, TerminalFaults(seed, impostor=True)))
    return dealt


def _some(turn: Iterator[TerminalPlan], count: int, most: int | None = None) -> Iterator[TerminalPlan]:
    return itertools.islice(turn, count if most is None else min(count, most))


def _unused(taken: set[int], wanted: int) -> int:
    """The first number from `wanted` on that is not taken and has no taken neighbour."""
    while taken & {wanted - 1, wanted, wanted + 1}:
        wanted += 1
    return wanted


def _read(kind: type[_Table], table: object, where: str) -> _Table:
    if not isinstance(table, Mapping):
        raise FaultsError(f"{where or 'the file'}: must be a table of fields")
    hints = get_type_hints(kind)
    values: dict[str, Any] = {}
    for key, value in table.items():
        place = f"{where}.{key}" if where else str(key)
        if key not in hints:
            raise FaultsError(f"{place}: no such key; there are {', '.join(hints)}")
        values[key] = _value(hints[key], value, place)
    missing = [e.name for e in fields(kind) if e.default is MISSING and e.name not in values]  # type: ignore[arg-type]  # only dataclasses come here
    if missing:
        raise FaultsError(f"{where}.{missing[0]}: is missing")
    try:
        return kind(**values)
    except _OutOfRange as error:
        raise FaultsError(f"{where}.{error}") from error


def _value(hint: Any, value: object, place: str) -> Any:
    kind = next((part for part in get_args(hint) if part is not type(None)), hint)
    if isinstance(kind, type) and is_dataclass(kind):
        return _read(kind, value, place)
    # JSON writes 3 for 3.0; bool is an int to Python but a mistake here.
    accepted = (int, float) if kind is float else kind
    if not isinstance(value, accepted) or isinstance(value, bool) != (kind is bool):
        raise FaultsError(f"{place}: must be {_KINDS[kind]}, not {value!r}")
    return value


def _within(value: float, name: str, least: float, most: float = math.inf) -> None:
    if not least <= value <= most:
        allowed = f"at least {least:g}" if most == math.inf else f"between {least:g} and {most:g}"
        raise _OutOfRange(f"{name}: must be {allowed}, not {value:g}")


def _clock(text: str, name: str) -> float:
    try:
        at = time.fromisoformat(text)
    except ValueError:
        raise _OutOfRange(f"{name}: must be HH:MM, not {text!r}") from None
    return at.hour * 3600.0 + at.minute * 60 + at.second
