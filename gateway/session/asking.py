"""What to ask a terminal for: readings into Q/GDW 376.1 items. `ASKED_BY` is the one table of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime, timedelta
from functools import lru_cache
from itertools import product
from typing import Final, Literal

from gateway.clock import from_device, to_device
from gateway.model import Due, Kind, MeterClass, Point, PointRole, Quantity, TerminalAssets
from gateway.session.settings import TdNames, TerminalProfile
from protocols.q_gdw376 import messages
from protocols.q_gdw376.formats import a20_bytes, a21_bytes
from protocols.q_gdw376.frame import HEADER, OVERHEAD, Frame, build
from protocols.q_gdw376.identifiers import identifier

HISTORY: Final = 0x0D
"""AFN of frozen values."""

RX_BUFFER: Final = 255
TX_BUFFER: Final = 1024
"""What a terminal takes and sends as long as it has not said (AFN09 F2): all of them can do that."""

REQUEST_UNIT: Final = 7
"""Bytes of one unit of a request: DA, DT, Td_d."""

ARCHIVE_UNIT: Final = identifier(0, 10)
ARCHIVE_RECORD: Final = 27
"""DA and DT of AFN0A F10, and the bytes of one record behind n: sequence 2, point 2, speed and port 1,
protocol 1, address 6 (low byte first), and 15 that say how the terminal reads it."""

TAGS_REMEMBERED: Final = 256
"""Midnights that are asked for again and again in one night: two months of days, and both namings."""

TAIL: Final = 8
"""EC and Tp of an answer."""

Family = Literal["alone", "with phases"]

ASKED_AS: Final[Mapping[tuple[MeterClass, PointRole, bool], Family]] = {
    (meter_class, role, through_transformer): (
        "alone"
        if meter_class is MeterClass.SINGLE_PHASE
        and role in (PointRole.CUSTOMER, PointRole.FEED_IN)
        and not through_transformer
        else "with phases"
    )
    for meter_class, role, through_transformer in product(MeterClass, PointRole, (False, True))
}
"""(class, role, CT above 1) -> the family of information classes that terminals keep such a meter in."""

ASKED_BY: Final[Mapping[tuple[Family, Quantity, Kind], int]] = {
    ("alone", Quantity.FORWARD_ACTIVE, Kind.DAY): 161,
    ("alone", Quantity.REVERSE_ACTIVE, Kind.DAY): 163,
    ("alone", Quantity.FORWARD_REACTIVE, Kind.DAY): 162,
    ("alone", Quantity.REVERSE_REACTIVE, Kind.DAY): 164,
    ("alone", Quantity.FORWARD_ACTIVE, Kind.MONTH): 177,
    ("alone", Quantity.REVERSE_ACTIVE, Kind.MONTH): 179,
    ("with phases", Quantity.FORWARD_ACTIVE, Kind.DAY): 1,
    ("with phases", Quantity.REVERSE_ACTIVE, Kind.DAY): 2,
    ("with phases", Quantity.FORWARD_REACTIVE, Kind.DAY): 1,
    ("with phases", Quantity.REVERSE_REACTIVE, Kind.DAY): 2,
    ("with phases", Quantity.FORWARD_ACTIVE, Kind.MONTH): 177,
    ("with phases", Quantity.REVERSE_ACTIVE, Kind.MONTH): 179,
}
"""-> Fn of AFN0D."""


def fn_for(point: Point, quantity: Quantity, kind: Kind) -> int | None:
    """The class that holds this register of this point; None where none is known."""
    family = ASKED_AS[point.meter_class, point.role, point.ct > 1]
    return ASKED_BY.get((family, quantity, kind))


class Asking:
    """What can be asked of one terminal, looked up once for each register; made anew when assets change."""

    def __init__(self, assets: TerminalAssets, profile: TerminalProfile) -> None:
        self._points = assets.points
        self._profile = profile
        self._fns: dict[tuple[Quantity, Kind], dict[tuple[int, int], int]] = {}
        self._sizes: dict[tuple[Quantity, Kind, int | None, int | None], int] = {}
        self._known = {(point.meter_id, point.pn) for point in assets.points}

    def knows(self, dues: Iterable[Due]) -> bool:
        """Do the assets have all these meters at these points?"""
        known = self._known
        return all((due.meter_id, due.pn) in known for due in dues)

    def frozen_request(self, dues: Sequence[Due]) -> messages.Request | None:
        """One request for `dues` (same quantity, kind and frozen_at), a unit for each point: one p and one F
        a unit is what no terminal gets wrong. Dues without a class are left out; None where that is all of
        them."""
        first = dues[0]
        fn_of = self._fns_of(first.quantity, first.kind).get
        data = _tag_bytes(first.frozen_at, first.kind, self._profile.td_d_names)
        units = tuple(
            [
                messages.RequestUnit(due.pn, fn, data)
                for due in dues
                if (fn := fn_of((due.meter_id, due.pn))) is not None
            ]
        )
        return messages.Request(HISTORY, units) if units else None

    def points_that_fit(
        self, quantity: Quantity, kind: Kind, rx_buffer: int | None, tx_buffer: int | None
    ) -> int:
        """How many points of this terminal one request may name, so that both frames fit its buffers; from 1
        to what the profile allows.

        Where it holds meters of both families, the answer is reckoned by their mean: a longer one takes two
        frames.
        """
        size = self._sizes.get((quantity, kind, rx_buffer, tx_buffer))
        if size is None:
            most = self._profile.points_a_request
            request = ((rx_buffer or RX_BUFFER) - OVERHEAD - HEADER) // REQUEST_UNIT
            fns = Counter(self._fns_of(quantity, kind).values())
            shares = sum(
                count / messages.points_that_fit(tx_buffer or TX_BUFFER, fn) for fn, count in fns.items()
            )
            answer = round(fns.total() / shares) if fns else most
            size = max(1, min(most, request, answer))
            self._sizes[quantity, kind, rx_buffer, tx_buffer] = size
        return size

    def _fns_of(self, quantity: Quantity, kind: Kind) -> dict[tuple[int, int], int]:
        """(meter_id, pn) -> Fn, of all points where one is known."""
        found = self._fns.get((quantity, kind))
        if found is None:
            found = {
                (point.meter_id, point.pn): fn
                for point in self._points
                if (fn := fn_for(point, quantity, kind)) is not None
            }
            self._fns[quantity, kind] = found
        return found


@lru_cache(maxsize=TAGS_REMEMBERED)
def _tag_bytes(frozen_at: datetime, kind: Kind, names: TdNames) -> bytes:
    tag = tag_of(frozen_at, kind, names)
    return a21_bytes(tag) if kind is Kind.MONTH else a20_bytes(tag)


def tag_of(frozen_at: datetime, kind: Kind, names: TdNames) -> date:
    """The Td_d (or Td_m, as the first of its month) by which such a terminal knows this midnight."""
    day = to_device(frozen_at).date()
    if names == "ended_day":
        day -= timedelta(days=1)
    return day.replace(day=1) if kind is Kind.MONTH else day


def midnight_of(tag: date, kind: Kind, names: TdNames) -> datetime:
    """The inverse of `tag_of`: UTC."""
    if kind is Kind.MONTH:
        tag = tag.replace(day=1)
        if names == "ended_day":
            tag = (tag + timedelta(days=31)).replace(day=1)
    elif names == "ended_day":
        tag += timedelta(days=1)
    return from_device(datetime(tag.year, tag.month, tag.day))


def archive_records_that_fit(tx_buffer: int | None) -> int:
    """How many archive records one answer holds."""
    room = (tx_buffer or TX_BUFFER) - OVERHEAD - HEADER - TAIL - len(ARCHIVE_UNIT) - 2
    return max(1, min(messages.ARCHIVE_QUERY_A_FRAME, room // ARCHIVE_RECORD))


def archive_entries(frame: Frame) -> list[tuple[int, int, str]]:
    """(sequence, pn, meter address) of each record in an answer to 0A F10.

    The short way for the one shape that such answers have: a terminal's whole archive is read at its first
    login, and taking each record apart to its last field costs forty times as much. Any other shape is read
    by its layout.
    """
    body = frame.body
    count = int.from_bytes(body[4:6], "little")
    if body[:4] == ARCHIVE_UNIT and len(body) == 6 + count * ARCHIVE_RECORD:
        return [
            (
                body[at] | body[at + 1] << 8,
                body[at + 2] | body[at + 3] << 8,
                body[at + 11 : at + 5 : -1].hex(),
            )
            for at in range(6, len(body), ARCHIVE_RECORD)
        ]
    return [
        (record.sequence, record.pn, record.address)
        for unit in messages.decode(frame)
        if isinstance(unit.value, messages.Archive)
        for record in unit.value.records
    ]


def as_sent(frame: Frame) -> bytes:
    """The bytes of a frame that came, to be kept raw."""
    return build(frame)
