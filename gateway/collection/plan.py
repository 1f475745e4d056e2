"""What a business day owes us, terminal by terminal: assets and rows in, due and missing out.

Pure: no clock, no socket, no database. The midnight that closes day D is `frozen_at(D)`, D+1 00:00 +08:00.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import date, datetime, time, timedelta
from operator import attrgetter
from typing import Final, NamedTuple

from gateway.clock import business_day, frozen_at, to_device
from gateway.model import Due, Kind, MeterClass, PointRole, Quantity, TerminalAssets

FORWARD: Final = (Quantity.FORWARD_ACTIVE,)
BOTH_WAYS: Final = (Quantity.FORWARD_ACTIVE, Quantity.REVERSE_ACTIVE)

DAY_QUANTITIES: Final[Mapping[tuple[MeterClass, PointRole], tuple[Quantity, ...]]] = {
    (MeterClass.SINGLE_PHASE, PointRole.CUSTOMER): FORWARD,
    (MeterClass.SINGLE_PHASE, PointRole.FEED_IN): BOTH_WAYS,
    (MeterClass.THREE_PHASE, PointRole.CUSTOMER): FORWARD,
    (MeterClass.THREE_PHASE, PointRole.FEED_IN): BOTH_WAYS,
    **{
        (meter_class, role): BOTH_WAYS
        for meter_class in MeterClass
        for role in (PointRole.AREA_GATEWAY, PointRole.FEEDER_HEAD, PointRole.BUS)
    },
}
"""Registers due each midnight. Reactive ones come along with a three-phase answer: filed, but not due."""

MONTH_QUANTITIES: Final = FORWARD
"""Due besides at the midnight that closes a month, for every point."""

BALANCE_ROLES: Final = frozenset({PointRole.AREA_GATEWAY, PointRole.FEEDER_HEAD, PointRole.BUS})
"""One of these missing spoils the loss figure of an area or line: asked directly before others."""

LONGEST_BACK: Final = 62
"""Days; meters keep so many daily freezes (DL/T 645-2007, 05060001 to 0506003E)."""

BY_PN: Final = attrgetter("pn")

StoredKey = tuple[int, int, int]
"""(meter_id, Quantity, Kind) of a reading that the database holds for one frozen_at."""


class Group(NamedTuple):
    """What may share a request: the same register at the same midnight. How many points fit is cut later."""

    quantity: Quantity
    kind: Kind
    frozen_at: datetime
    dues: list[Due]


def closes_month(day: date) -> bool:
    """Is `day` the last business day of its month?"""
    return (day + timedelta(days=1)).day == 1


def due(assets: TerminalAssets, day: date) -> list[Due]:
    """All readings that `day` owes here, in rising pn: of the meters installed at its midnight."""
    instant = frozen_at(day)
    month = MONTH_QUANTITIES if closes_month(day) else ()
    dues: list[Due] = []
    add = dues.append
    for point in sorted(assets.points, key=BY_PN):
        if point.holds_at(instant):
            meter_id, pn = point.meter_id, point.pn
            for quantity in DAY_QUANTITIES[point.meter_class, point.role]:
                add(Due(meter_id, pn, quantity, Kind.DAY, instant))
            for quantity in month:
                add(Due(meter_id, pn, quantity, Kind.MONTH, instant))
    return dues


def missing(dues: Sequence[Due], stored: Collection[StoredKey]) -> list[Due]:
    """The dues (all of one midnight) that `stored`, a set of what the database has for it, does not hold."""
    if not stored:
        return list(dues)
    return [one for one in dues if (one.meter_id, one.quantity, one.kind) not in stored]


def groups(dues: Iterable[Due], first: Callable[[Due], int] | None = None) -> list[Group]:
    """`dues` by what may share a request: newest midnight first, days before months, then by quantity.

    Within a group by `first(due)`, if that is given, then by pn.
    """
    found: dict[tuple[datetime, Kind, Quantity], list[Due]] = {}
    for one in dues:
        found.setdefault((one.frozen_at, one.kind, one.quantity), []).append(one)
    for members in found.values():
        members.sort(key=BY_PN)
        if first is not None:
            members.sort(key=first)
    ordered = sorted(found, key=lambda key: (-key[0].timestamp(), key[1], key[2]))
    return [
        Group(quantity, kind, instant, found[instant, kind, quantity]) for instant, kind, quantity in ordered
    ]


def days(today: date, back: int = 7) -> list[date]:
    """The last `back` business days that have ended when `today` has begun, newest first.

    Raises ValueError outside 1..62.
    """
    if not 1 <= back <= LONGEST_BACK:
        raise ValueError(f"{back} days back: from 1 to {LONGEST_BACK} are possible")
    return [today - timedelta(days=one) for one in range(1, back + 1)]


def past_store(instant: datetime, now: datetime, store_days: int) -> bool:
    """Has a terminal that keeps `store_days` midnights already dropped the one at `instant`?"""
    return (business_day(now) - business_day(instant)).days >= store_days


def first_pass(now: datetime, passes: Sequence[time]) -> datetime:
    """The first of `passes` on the business day of `now` (UTC in and out)."""
    wall = to_device(now)
    return now + (datetime.combine(wall.date(), passes[0]) - wall)


def next_pass(now: datetime, passes: Sequence[time], then_every: timedelta) -> datetime:
    """The first pass after `now` (UTC in and out): at `passes` in Shanghai, after the last of them every
    `then_every` until midnight, and so on the next day."""
    wall = to_device(now)
    for day in (wall.date(), wall.date() + timedelta(days=1)):
        at = [datetime.combine(day, one) for one in passes]
        following = at[-1] + then_every
        while following.date() == day:
            at.append(following)
            following += then_every
        for one in at:
            if one > wall:
                return now + (one - wall)
    raise ValueError("a day without a pass")  # passes is never empty: checked with the settings
