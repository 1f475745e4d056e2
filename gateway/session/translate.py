"""Q/GDW 376.1 items into readings: with `asking`, the last place where they have those names.

`frozen_rows` turns answers and pushed frames into rows, each
through every check: the right meter, the right midnight, a plausible read time, a number that is one. It is
the midnight path: one pass over tuples, nothing built per reading but its row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from functools import lru_cache
from typing import Final, NamedTuple

from gateway.clock import from_device, to_device
from gateway.model import Kind, Quality, Quantity, ReadingRow, Reason, Source
from gateway.session.asking import midnight_of
from gateway.session.clockwatch import MEANS_OTHER_DAYS_S
from gateway.session.settings import TdNames, TerminalProfile
from gateway.session.targets import Targets
from protocols.q_gdw376 import messages, midnight
from protocols.q_gdw376.frame import Frame

HISTORY: Final = 0x0D
PRESENT: Final = 0x0C

READ_EARLY: Final = timedelta(minutes=5)
"""A terminal may read a meter so long before its midnight by the terminal's clock and still mean it."""

READ_LATE: Final = timedelta(hours=24)
"""Read so long after the midnight, a value is marked: the meter gave its freeze, or the terminal was away."""

TAGS_REMEMBERED: Final = 1_024
"""Days and months that terminals name; a stranger may name any."""

READ_TIMES_REMEMBERED: Final = 20_000
"""Terminals tell read times in minutes, so that thousands of rows share one."""

MEANS: Final[Mapping[int, tuple[Quantity, Kind]]] = {
    161: (Quantity.FORWARD_ACTIVE, Kind.DAY),
    162: (Quantity.FORWARD_REACTIVE, Kind.DAY),
    163: (Quantity.REVERSE_ACTIVE, Kind.DAY),
    164: (Quantity.REVERSE_REACTIVE, Kind.DAY),
    165: (Quantity.REACTIVE_Q1, Kind.DAY),
    166: (Quantity.REACTIVE_Q2, Kind.DAY),
    167: (Quantity.REACTIVE_Q3, Kind.DAY),
    168: (Quantity.REACTIVE_Q4, Kind.DAY),
    177: (Quantity.FORWARD_ACTIVE, Kind.MONTH),
    179: (Quantity.REVERSE_ACTIVE, Kind.MONTH),
}
"""Fn of AFN0D with one register -> what it counts."""

MEANS_WITH_PHASES: Final[Mapping[int, tuple[Quantity, Quantity]]] = {
    1: (Quantity.FORWARD_ACTIVE, Quantity.FORWARD_REACTIVE),
    2: (Quantity.REVERSE_ACTIVE, Quantity.REVERSE_REACTIVE),
}
"""Fn of AFN0D with four registers -> its active and its reactive one; the quadrants are not filed."""

MEANS_PRESENT: Final[Mapping[int, Quantity]] = {
    129: Quantity.FORWARD_ACTIVE,
    130: Quantity.FORWARD_REACTIVE,
    131: Quantity.REVERSE_ACTIVE,
    132: Quantity.REVERSE_REACTIVE,
    133: Quantity.REACTIVE_Q1,
    134: Quantity.REACTIVE_Q2,
    135: Quantity.REACTIVE_Q3,
    136: Quantity.REACTIVE_Q4,
}
"""Fn of AFN0C -> what it counts."""


@dataclass(slots=True)
class Context:
    """What has to be known about one answer beyond its bytes. clock_offset: seconds, positive = the terminal
    is ahead; distrusted_until: values of midnights up to it were frozen by a clock that was wrong."""

    targets: Targets
    profile: TerminalProfile
    received_at: datetime
    source: Source
    contested: bool = False
    clock_offset: float | None = None
    distrusted_until: datetime | None = None
    latest: datetime = field(init=False)
    """read times after this, on the terminal's wall, are to come"""
    quality: Quality = field(init=False)
    """of a reading that is otherwise good"""
    midnights: dict[tuple[date, Kind], _Midnight] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        tolerance = self.profile.clock_tolerance_s
        self.latest = to_device(self.received_at) + timedelta(seconds=tolerance)
        if self.contested:
            self.quality = Quality.CONTESTED
        elif self.clock_offset is not None and abs(self.clock_offset) > tolerance:
            self.quality = Quality.CLOCK_OFF
        else:
            self.quality = Quality.GOOD


class Refusal(NamedTuple):
    """A value that was sent and must not be filed. frozen_at: None where the frame does not say."""

    pn: int
    quantity: Quantity | None
    kind: Kind
    frozen_at: datetime | None
    reason: Reason
    detail: str


@dataclass(slots=True)
class Translated:
    """Rows for the writer and what had to be refused; `strange`: something a person should look at."""

    rows: list[ReadingRow] = field(default_factory=list)
    refused: list[Refusal] = field(default_factory=list)

    @property
    def strange(self) -> str | None:
        """Why the frame is worth keeping raw; None: it is an ordinary one."""
        for refusal in self.refused:
            if refusal.reason is not Reason.NO_VALUE_YET:
                return f"{refusal.reason.value}: {refusal.detail or f'p{refusal.pn}'}"
        return None


_read_times: dict[datetime, datetime] = {}


def utc(naive: datetime) -> datetime:
    """A terminal's wall clock as UTC, remembered."""
    if len(_read_times) >= READ_TIMES_REMEMBERED:
        _read_times.clear()
    instant = _read_times[naive] = from_device(naive)
    return instant


@lru_cache(maxsize=TAGS_REMEMBERED)
def _times(tag: date, kind: Kind, names: TdNames) -> tuple[datetime, datetime, datetime]:
    """The midnight that a tag means (UTC); the earliest and the last read time that is neither wrong nor late
    (naive, by the terminal's clock)."""
    frozen_at = midnight_of(tag, kind, names)
    wall = to_device(frozen_at)
    return frozen_at, wall - READ_EARLY, wall + READ_LATE


class _Midnight:
    """One midnight of one answer: everything about it that its rows share."""

    __slots__ = ("earliest", "frozen_at", "late", "latest", "quality", "targets", "trouble")

    def __init__(self, tag: date, kind: Kind, context: Context, asked_at: datetime | None) -> None:
        self.frozen_at, self.earliest, self.late = _times(tag, kind, context.profile.td_d_names)
        self.latest = context.latest
        self.targets = context.targets.at(self.frozen_at)
        self.trouble = ""
        if asked_at is not None and self.frozen_at != asked_at:
            self.trouble = f"tagged {tag}, not what was asked"
        elif context.clock_offset is not None and abs(context.clock_offset) > MEANS_OTHER_DAYS_S:
            self.trouble = f"the terminal's clock is off by {context.clock_offset:.0f} s"
        elif context.distrusted_until is not None and self.frozen_at <= context.distrusted_until:
            self.trouble = "frozen while the terminal's clock was wrong"
        self.quality = context.quality


def _midnight(tag: date, kind: Kind, context: Context, asked_at: datetime | None) -> _Midnight:
    """Made once for all units of an answer."""
    found = context.midnights.get((tag, kind))
    if found is None:
        found = context.midnights[tag, kind] = _Midnight(tag, kind, context, asked_at)
    return found


def frozen_rows(frame: Frame, context: Context, asked_at: datetime | None = None) -> Translated:
    """The frozen values of an AFN0D frame as rows. asked_at: the midnight that was asked for, where one was;
    then another one's values are refused."""
    done = Translated()
    found, others = midnight.rows(frame, context.profile.variants)
    append = done.rows.append
    received_at = context.received_at
    source = int(context.source)
    good, late_read = int(Quality.GOOD), int(Quality.LATE_READ)
    get_time = _read_times.get
    last_fn, last_tag, meaning = 0, None, None
    for pn, fn, tag, read_at, registers in found:
        if fn != last_fn or tag != last_tag:
            last_fn, last_tag = fn, tag
            meaning = MEANS.get(fn)
            if meaning is None:
                continue
            quantity, kind = meaning
            quantity_code, kind_code = int(quantity), int(kind)
            at = _midnight(tag, kind, context, asked_at)
            frozen_at, get_target, trouble = at.frozen_at, at.targets.get, at.trouble
            earliest, latest, late, quality = at.earliest, at.latest, at.late, int(at.quality)
        elif meaning is None:
            continue
        target = get_target(pn)
        if (
            target is None
            or target[1] is not None
            or trouble
            or read_at is None
            or not earliest <= read_at <= latest
            or not registers
            or registers[0] is None
        ):
            done.refused.append(_refusal(pn, quantity, kind, at, read_at, registers))
            continue
        row_quality = late_read if quality == good and read_at > late else quality
        read = get_time(read_at) or utc(read_at)
        filled = registers + _ABSENT[len(registers)] if len(registers) <= 5 else columns(registers)
        append(
            (target[0], quantity_code, kind_code, frozen_at, *filled, read, received_at, source, row_quality)
        )
    for unit in others:
        _other_unit(unit, context, asked_at, done)
    return done


_ABSENT: Final[tuple[tuple[None, ...], ...]] = tuple((None,) * (6 - count) for count in range(6))
"""By the number of registers: what fills the six columns behind them."""


def columns(
    registers: Sequence[int | None],
) -> tuple[int | None, int | None, int | None, int | None, int | None, list[int | None] | None]:
    """Total, four tariffs, and the further ones, of any number of registers."""
    total, t1, t2, t3, t4 = (*registers[:5], None, None, None, None)[:5]
    return total, t1, t2, t3, t4, list(registers[5:]) or None


def _refusal(
    pn: int,
    quantity: Quantity,
    kind: Kind,
    at: _Midnight,
    read_at: datetime | None,
    registers: Sequence[int | None],
) -> Refusal:
    """Why this value is not filed, the weightiest reason first."""
    target = at.targets.get(pn)
    if not registers or registers[0] is None:
        reason, detail = Reason.NO_VALUE_YET, ""
    elif target is None:
        reason, detail = Reason.NOT_IN_ARCHIVE, f"p{pn} is not in the assets at that midnight"
    elif target.reason is not None:
        reason, detail = target.reason, target.detail
    elif at.trouble:
        reason, detail = Reason.WRONG_DATE, at.trouble
    elif read_at is None:
        reason, detail = Reason.BAD_VALUE, "digits without a read time"
    else:
        reason, detail = Reason.WRONG_DATE, f"read at {read_at:%Y-%m-%d %H:%M} by the terminal's clock"
    return Refusal(pn, quantity, kind, at.frozen_at, reason, detail)


def _other_unit(unit: messages.Unit, context: Context, asked_at: datetime | None, done: Translated) -> None:
    """A unit off the fast path: four registers at once, filler, or what cannot be read."""
    kind = MEANS[unit.fn][1] if unit.fn in MEANS else Kind.DAY
    quantities: tuple[Quantity | None, ...] = (
        MEANS_WITH_PHASES.get(unit.fn) or MEANS.get(unit.fn, (None,))[:1]
    )
    value = unit.value
    tag = getattr(value, "tag", None)
    if isinstance(value, messages.FrozenThreePhase) and tag is not None and unit.fn in MEANS_WITH_PHASES:
        at = _midnight(tag, kind, context, asked_at)
        for quantity, registers in zip(
            MEANS_WITH_PHASES[unit.fn], (value.active, value.reactive), strict=True
        ):
            _one(unit.pn, quantity, kind, at, value.read_at, registers, context, done)
        return
    if isinstance(value, messages.FrozenEnergy) and tag is not None and unit.fn in MEANS:
        at = _midnight(tag, kind, context, asked_at)
        _one(unit.pn, MEANS[unit.fn][0], kind, at, value.read_at, value.registers, context, done)
        return
    if isinstance(value, messages.FrozenPhases):
        reason, detail = Reason.BAD_VALUE, "three phases without a total"
    elif isinstance(value, messages.FrozenThreePhase | messages.FrozenEnergy) and tag is None:
        reason, detail = Reason.NO_VALUE_YET, ""
    elif unit.reason is not None:
        reason, detail = Reason.BAD_VALUE, unit.reason
    else:
        return  # a class that is not filed
    done.refused += [Refusal(unit.pn, quantity, kind, None, reason, detail) for quantity in quantities]


def _one(
    pn: int,
    quantity: Quantity,
    kind: Kind,
    at: _Midnight,
    read_at: datetime | None,
    registers: Sequence[int | None],
    context: Context,
    done: Translated,
) -> None:
    """One register, by the same rules as the loop of `frozen_rows`."""
    target = at.targets.get(pn)
    if (
        target is None
        or target.reason is not None
        or at.trouble
        or read_at is None
        or not at.earliest <= read_at <= at.latest
        or not registers
        or registers[0] is None
    ):
        done.refused.append(_refusal(pn, quantity, kind, at, read_at, registers))
        return
    quality = Quality.LATE_READ if at.quality is Quality.GOOD and read_at > at.late else at.quality
    done.rows.append(
        (target.meter_id, int(quantity), int(kind), at.frozen_at, *columns(registers),
         _read_times.get(read_at) or utc(read_at), context.received_at, int(context.source), int(quality))
    )  # fmt: skip


def present_rows(frame: Frame, context: Context) -> Translated:
    """Registers as they were when the terminal read them (AFN0C F129..F136), as LIVE rows under that time."""
    done = Translated()
    for unit in messages.decode(frame, context.profile.variants):
        quantity = MEANS_PRESENT.get(unit.fn)
        value = unit.value
        if quantity is None or not isinstance(value, messages.PresentEnergy):
            if unit.reason is not None:
                refusal = Refusal(unit.pn, quantity, Kind.LIVE, None, Reason.BAD_VALUE, unit.reason)
                done.refused.append(refusal)
            continue
        read_at = value.read_at
        if not value.registers or value.registers[0] is None:
            reason, detail = Reason.NO_VALUE_YET, ""
        elif read_at is None:
            reason, detail = Reason.BAD_VALUE, "digits without a read time"
        elif read_at > context.latest:
            reason, detail = Reason.WRONG_DATE, f"read at {read_at:%Y-%m-%d %H:%M}, which is to come"
        else:
            target = context.targets.at(utc(read_at)).get(unit.pn)
            if target is not None and target.reason is None:
                read = utc(read_at)
                done.rows.append(
                    (target.meter_id, int(quantity), int(Kind.LIVE), read, *columns(value.registers),
                     read, context.received_at, int(context.source), int(context.quality))
                )  # fmt: skip
                continue
            reason, detail = (
                (Reason.NOT_IN_ARCHIVE, f"p{unit.pn} is not in the assets")
                if target is None
                else (target.reason or Reason.ARCHIVE_DIFFERS, target.detail)
            )
        done.refused.append(Refusal(unit.pn, quantity, Kind.LIVE, None, reason, detail))
    return done
