"""Three ledgers side by side: what the client was told, what the meters saw, what the database kept.

`breaches` names every rule that they show broken. All instants are of the district's clock.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Final

from gateway.clock import Clock
from gateway.command import ENDS, RESTORING
from gateway.control.course import TRIP_VALID
from tests.end_to_end.relay_clerks import Book, Wish
from tests.end_to_end.relay_ledgers import Row, Secret, Seen

UNDER_WAY_S: Final = 8.0
"""Real seconds that a frame may take from the gateway's write to the meter on a loaded machine. Only where no
order of two entries in one ledger decides."""

TRIP: Final = "trip"
_RESTORING: Final = frozenset(action.value for action in RESTORING)
_ENDS: Final = frozenset(state.value for state in ENDS)
_WAIT_FOR_PROOF: Final = frozenset({"field", "uncertain"})
_DARK: Final = 0x0050
"""Bits 4 and 6 of status word 3: open, and a trip that holds."""


class Comparison:
    """The three of them side by side."""

    def __init__(
        self,
        books: Sequence[Book],
        seen: Sequence[Seen],
        rows: Sequence[Row],
        secret: Secret,
        clock: Clock,
    ) -> None:
        """secret: see `kept`."""
        self.books = books
        self.wishes = [wish for book in books for wish in book.wishes]
        self.seen = seen
        self.rows = rows
        self._clock = clock
        self._secret = secret
        self._by_id = {str(row.told["command_id"]): row for row in rows}
        self._frames: dict[str, list[Seen]] = defaultdict(list)
        self._reads: dict[str, list[Seen]] = defaultdict(list)
        self._last: dict[str, Seen] = {}
        self._by_address: dict[str, list[Row]] = defaultdict(list)
        self.frames_of: dict[str, list[Seen]] = defaultdict(list)
        """id of a command -> what meters saw of it"""
        self.strays: list[Seen] = []
        self._sort()

    def _sort(self) -> None:
        owners: dict[tuple[str, str], list[tuple[datetime, str]]] = defaultdict(list)
        for row in self.rows:
            self._by_address[row.address].append(row)
            for sending in row.sendings:
                owners[row.address, sending["hashed"]].append((sending["at"], str(row.told["command_id"])))
        for one in self.seen:
            self._last[one.address] = one
            if one.what == "read":
                self._reads[one.address].append(one)
            elif one.what == "frame" and not one.verb.startswith("03"):
                self._frames[one.address].append(one)
                claims = owners.get((one.address, self._secret.hashed(one.frame)), [])
                before = [claim for claim in claims if claim[0] <= one.at] or claims
                if not before:
                    self.strays.append(one)
                else:
                    self.frames_of[max(before)[1]].append(one)

    @property
    def outcomes(self) -> Counter[str]:
        """Commands by action and state."""
        return Counter(f"{row.action} {row.state}" for row in self.rows)

    @property
    def frames(self) -> Counter[str]:
        """Control frames by verb and what the meter said."""
        return Counter(f"{one.verb} {one.decision}" for some in self._frames.values() for one in some)

    def breaches(self) -> list[str]:
        """Every rule that is broken, each with what shows it."""
        return [
            *self._accepted(),
            *self._one_a_key(),
            *self._ended(),
            *self._belongs_to_a_row(),
            *self._in_time(),
            *self._not_repeated_blindly(),
            *self._no_trip_after_a_close(),
            *self._verified_by_a_read(),
            *self._cancelled(),
            *self._position(),
            *self._paid_have_power(),
        ]

    # the client's side

    def _accepted(self) -> Iterator[str]:
        for book in self.books:
            yield from (f"answer: {wrong}" for wrong in book.wrong)
        for wish in self.wishes:
            for told in wish.told:
                row = self._by_id.get(told.id)
                if told.status == 202 and row is None:
                    yield f"accepted: {wish.body['action']} {told.id} was answered 202 and is not kept"
                elif row is not None and row.told["idempotency_key"] != wish.key:
                    yield f"accepted: {row.name} was answered for the key of another"

    def _one_a_key(self) -> Iterator[str]:
        by_key = Counter(row.told["idempotency_key"] for row in self.rows)
        known = {wish.key for wish in self.wishes}
        for key, count in by_key.items():
            if count > 1:
                yield f"rule 9: key {key} made {count} commands"
            if key not in known and " " not in key:
                yield f"rule 9: key {key} was never used by the client"
        for wish in self.wishes:
            if len({told.id for told in wish.told if told.status == 202}) > 1:
                yield f"rule 9: key {wish.key} was answered with several commands"

    def _ended(self) -> Iterator[str]:
        for row in self.rows:
            if row.state not in _ENDS and (row.state not in _WAIT_FOR_PROOF or row.told["why"] is None):
                yield f"end: {row.name} has not ended: {row.told['why']} {row.told['detail']}"
            if row.action in _RESTORING and row.state in ("refused", "failed"):
                yield f"rule 11: {row.name}"

    # the meters' side

    def _belongs_to_a_row(self) -> Iterator[str]:
        for one in self.strays:
            yield f"rule 1: {one.address} saw a {one.verb} at {one.at} that no command has the hash of"
        for row in self.rows:
            sendings = {one["hashed"]: one for one in row.sendings}
            last = list(sendings)[-1] if sendings else None
            if last is not None and row.told["hashed"] != last:
                yield f"rule 1: {row.name} has another frame's hash than its last event"
            for one in self._frames_of(row):
                if one.at < sendings[self._secret.hashed(one.frame)]["at"]:
                    yield f"rule 1: {row.name} was seen at {one.at}, before it was claimed"
                if one.verb != row.action:
                    yield f"rule 1: {row.name} was seen as {one.verb}"

    def _frames_of(self, row: Row) -> list[Seen]:
        return self.frames_of.get(str(row.told["command_id"]), [])

    def _trips(self) -> Iterator[Row]:
        return (row for row in self.rows if row.action == TRIP)

    def _under_way(self, at: datetime) -> datetime:
        """What was written before `at` is with the meter by then."""
        return at + timedelta(seconds=UNDER_WAY_S * self._clock.speed)

    def _in_time(self) -> Iterator[str]:
        for row in self._trips():
            expires_at = row.told["expires_at"]
            sent = {one["hashed"]: one["at"] for one in row.sendings}
            for at in sent.values():
                if at >= expires_at:
                    yield f"rule 2: {row.name} was claimed at {at}, it expired at {expires_at}"
            for one in self._frames_of(row):
                assert one.deadline is not None
                if one.deadline > min(expires_at, sent[self._secret.hashed(one.frame)] + TRIP_VALID):
                    yield f"rule 2: {row.name} is valid until {one.deadline}, expiry {expires_at}"
                if one.executed and one.at > expires_at:
                    yield f"rule 2: {row.name} was executed at {one.at}, it expired at {expires_at}"
                if one.at > self._under_way(expires_at):
                    yield f"rule 2: {row.name} was written after its expiry at {expires_at}"

    def _not_repeated_blindly(self) -> Iterator[str]:
        for row in self._trips():
            frames = self._frames_of(row)
            if sum(one.executed for one in frames) > 1:
                yield f"rule 3: {row.name} was executed more than once"
            for before, after in pairwise(frames):
                assert before.deadline is not None
                reads = self._between(row.address, before.place, after.at)
                if not any(
                    read.place < after.place and read.clock > before.deadline and not read.word & _DARK
                    for read in reads
                ):
                    yield f"rule 3: {row.name} was sent again at {after.at} without a look at the relay"

    def _no_trip_after_a_close(self) -> Iterator[str]:
        told = {one.id: one.at for wish in self.wishes for one in wish.told if one.status == 202}
        for rows in self._by_address.values():
            closes = [row for row in rows if row.action in _RESTORING]
            for trip in (row for row in rows if row.action == TRIP):
                later = [close for close in closes if close.intent > trip.intent]
                for close in later:
                    yield from self._stays_behind(trip, close, told.get(str(close.told["command_id"])))

    def _stays_behind(self, trip: Row, close: Row, told_at: float | None) -> Iterator[str]:
        """An older trip: not claimed after the close was kept, not seen after the close's frame, and not seen
        when the client had heard of the close and what was under way had arrived."""
        if any(one["event_id"] > close.accepted for one in trip.sendings):
            yield f"rule 5: {trip.name} was claimed after {close.name} had been accepted"
        first = min((one.place for one in self._frames_of(close)), default=None)
        limit = None if told_at is None else self._under_way(self._shown(told_at))
        for one in self._frames_of(trip):
            if first is not None and one.place > first:
                yield f"rule 5: {trip.name} came after {close.name}"
            if limit is not None and one.at > limit:
                yield f"rule 5: {trip.name} came at {one.at}, {close.name} was answered before"

    def _shown(self, real: float) -> datetime:
        """What the district's clock showed at a real instant."""
        clock = self._clock
        return datetime.fromtimestamp(clock.start + (real - clock.origin) * clock.speed, UTC)

    def _verified_by_a_read(self) -> Iterator[str]:
        for row in self.rows:
            verified = row.verified()
            if verified is None or row.action not in (TRIP, *_RESTORING):
                continue
            frames = self._frames_of(row)
            since = frames[-1].place if frames else -1
            reads = [
                read for read in self._between(row.address, since, verified["at"]) if self._shows(row, read)
            ]
            if not reads:
                yield f"rule 10: {row.name} was verified at {verified['at']} and no relay read shows it"
            elif row.action in _RESTORING:
                feared = self._feared(row, verified["event_id"])
                if feared is not None and not any(read.clock > feared for read in reads):
                    yield f"rule 6: {row.name} was verified while a trip was to be feared until {feared}"

    def _between(self, address: str, place: int, until: datetime) -> list[Seen]:
        """The relay reads of a meter behind a line of its ledger, until then."""
        reads = self._reads[address]
        first = bisect_right(reads, place, key=lambda read: read.place)
        return reads[first : bisect_right(reads, until, key=lambda read: read.at)]

    @staticmethod
    def _shows(row: Row, read: Seen) -> bool:
        if row.action == TRIP:
            return bool(read.word & 0x10)
        return not read.word & (_DARK if row.action == "close" else 0x40)

    def _feared(self, close: Row, event_id: int) -> datetime | None:
        """Until when a trip that the meter saw, and that was never proved, may still have been obeyed."""
        deadlines = [
            one.deadline
            for trip in self._by_address[close.address]
            if trip.action == TRIP and trip.intent < close.intent and trip.state not in ("verified", "failed")
            for one in self._frames_of(trip)
            if one.deadline is not None and one.at < close.events[-1]["at"]
        ]
        return max(deadlines, default=None)

    def _cancelled(self) -> Iterator[str]:
        for book in self.books:
            for one in book.cancelled:
                row = self._by_id.get(one.id)
                if row is None or row.state != "cancelled":
                    yield f"cancel: {one.id} was answered cancelled and is {row and row.name}"
                elif row.sendings or self._frames_of(row):
                    yield f"cancel: {row.name} was sent"

    def _position(self) -> Iterator[str]:
        for address, rows in self._by_address.items():
            verified = [row for row in rows if row.state == "verified" and row.action in (TRIP, *_RESTORING)]
            if not verified or address not in self._last:
                continue
            newest, last = verified[-1], self._last[address]
            if last.is_open is not (newest.action == TRIP) and not last.permitted:
                yield f"position: {address} is open: {last.is_open}, and {newest.name} is its newest"

    def _paid_have_power(self) -> Iterator[str]:
        newest: dict[str, Wish] = {}
        for wish in self.wishes:
            told = wish.accepted
            if told is not None and told.state != "refused" and not self._came_to_nothing(told.id):
                newest[wish.meter] = wish
        for meter, wish in newest.items():
            told = wish.accepted
            assert told is not None
            row = self._by_id.get(told.id)
            if told.action not in _RESTORING or row is None or row.address not in self._last:
                continue
            last = self._last[row.address]
            if last.is_open and not last.permitted:
                yield f"in the dark: {meter} after {row.name}"

    def _came_to_nothing(self, command_id: str) -> bool:
        """A trip of which no byte ever left."""
        row = self._by_id.get(command_id)
        return (
            row is not None
            and row.action == TRIP
            and row.state in ("refused", "cancelled", "expired", "superseded")
            and not self._frames_of(row)
        )
