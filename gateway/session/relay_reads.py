"""What is read of a meter while its terminal's channel is held for relay work: who it is, its clock, its
relay, its records."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from gateway.clock import from_device
from gateway.command import Action, MeterFacts, RelayStatus, Why
from gateway.door import Record, Trouble
from gateway.errors import LinkClosed
from gateway.model import Reason
from gateway.session import relay_words
from gateway.session.hold import Hold
from gateway.session.meter import MeterItem, MeterRefusal, read_through, told_by
from gateway.session.terminal import TerminalSession
from protocols.q_gdw376.messages import CARRIER_PORT, Request, forward

STATUS_WORD_3: Final = "04000503"
METER_NUMBER: Final = "04000402"
CLOCK: Final = "0400010c"
DATE: Final = "04000101"
TIME: Final = "04000102"
"""What meters without CLOCK have: two questions, and a midnight may lie between them."""
CURRENT_BLOCK: Final = "0202ff00"
CURRENT: Final = "02020100"
RECORD_OF: Final = {
    Action.TRIP: "1d00ff01",
    Action.CLOSE: "1e00ff01",
    Action.PERMIT_CLOSE: "1e00ff01",
}

CLOCK_READ_S: Final = 60.0
"""A clock that takes longer to be told is not known well enough to trip by."""

DATES_READ: Final = 3
"""Around one midnight a date changes once."""


@dataclass(slots=True)
class Known:
    """What meters behind one login have told, by (port, address)."""

    numbers: dict[tuple[int, str], str] = field(default_factory=dict)
    without_clock: set[tuple[int, str]] = field(default_factory=set)
    """they tell date and time apart only"""


class RelayReads:
    """The half of `gateway.door.Door` that reads. Damaged answers are asked for again; silence is not."""

    def __init__(self, session: TerminalSession, hold: Hold, facts: MeterFacts, known: Known) -> None:
        """known: of this login."""
        settings = session.parts.settings
        self._session = session
        self._hold = hold
        self._facts = facts
        self._known = known
        self._clock = session.parts.clock
        self._at = facts.port, facts.address
        carrier = facts.port == CARRIER_PORT
        self._wait_s = settings.relay_carrier_timeout_s if carrier else settings.relay_wire_timeout_s
        self._patience_s = self._wait_s + settings.relay_margin_s

    async def identify(self) -> Trouble | None:
        """See `Door`: by the number that the meter tells (04000402), and by the terminal's archive."""
        if (other := self._by_archive()) is not None:
            return other
        told = await self._number()
        if isinstance(told, Trouble):
            return told
        if not relay_words.same_meter(told, self._facts.meter):
            return Trouble(Why.WRONG_METER, f"its number is {told}, the assets have {self._facts.meter}")
        return None

    def _by_archive(self) -> Trouble | None:
        session, facts = self._session, self._facts
        if session.archive_in_doubt:
            return Trouble(Why.METER_SILENT, "the terminal's archive was not looked at in this login yet")
        archive = session.assets.archive
        if archive is None or archive.get(facts.pn) == facts.address:
            return None
        held = archive.get(facts.pn, "nothing")
        return Trouble(Why.WRONG_METER, f"p{facts.pn}: the terminal has {held}, assets have {facts.address}")

    async def _number(self) -> str | Trouble:
        """The meter's number, asked once a login. WRONG_METER where another answers, twice: once it may have
        been late for somebody else."""
        if (known := self._known.numbers.get(self._at)) is not None:
            return known
        item = await self._read(METER_NUMBER)
        if isinstance(item, MeterRefusal) and item.reason is Reason.WRONG_METER:
            item = await self._read(METER_NUMBER)
            if isinstance(item, MeterRefusal) and item.reason is Reason.WRONG_METER:
                return Trouble(Why.WRONG_METER, item.detail)
        if isinstance(item, MeterRefusal):
            return relay_words.trouble(item)
        told = relay_words.number(item.raw)
        if told is None:
            return Trouble(Why.METER_SILENT, f"its number is no number: {item.raw.hex(' ')}")
        self._known.numbers[self._at] = told
        return told

    async def clock_offset(self) -> float | Trouble:
        """See `Door`. Of the span in which the meter may have looked at its clock the end is taken: then a
        deadline that is reckoned with it never comes too late."""
        asked = self._clock.monotonic()
        read = await self._clock_at_once()
        if isinstance(read, MeterRefusal) and relay_words.NO_SUCH_DATA in read.detail:
            self._known.without_clock.add(self._at)
            asked = self._clock.monotonic()
            read = await self._clock_in_parts()
        if isinstance(read, MeterRefusal):
            return relay_words.trouble(read)
        shown = relay_words.wall_clock(*read)
        if shown is None:
            return Trouble(Why.METER_CLOCK_UNKNOWN, f"no time: {read[0].hex(' ')}, {read[1].hex(' ')}")
        if (took := self._clock.monotonic() - asked) > CLOCK_READ_S:
            return Trouble(Why.METER_CLOCK_UNKNOWN, f"it took {took:.0f} s to be told")
        return (from_device(shown) - self._clock.now()).total_seconds()

    async def _clock_at_once(self) -> tuple[bytes, bytes] | MeterRefusal:
        """(WW DD MM YY, ss mm hh)."""
        if self._at in self._known.without_clock:
            return MeterRefusal(Reason.METER_REFUSED, relay_words.NO_SUCH_DATA)
        item = await self._read(CLOCK)
        return item if isinstance(item, MeterRefusal) else (item.raw[3:], item.raw[:3])

    async def _clock_in_parts(self) -> tuple[bytes, bytes] | MeterRefusal:
        """The date that was the same before and behind the time."""
        date = await self._read(DATE)
        for _ in range(DATES_READ):
            if isinstance(date, MeterRefusal):
                return date
            time = await self._read(TIME)
            if isinstance(time, MeterRefusal):
                return time
            if time.raw[-1:] not in (b"\x23", b"\x00"):
                return date.raw, time.raw
            again = await self._read(DATE)
            if isinstance(again, MeterItem) and again.raw == date.raw:
                return date.raw, time.raw
            date = again
        return MeterRefusal(Reason.DAMAGED, "its date changes all the time")

    async def status(self) -> RelayStatus | Trouble:
        """See `Door`."""
        item = await self._read(STATUS_WORD_3)
        if isinstance(item, MeterRefusal):
            return relay_words.trouble(item)
        if len(item.raw) != 2 or item.raw == b"\xff\xff":
            return Trouble(Why.METER_SILENT, f"no status word: {item.raw.hex(' ')}")
        return RelayStatus(int.from_bytes(item.raw, "little"), self._clock.now())

    async def record(self, action: Action) -> Record | Trouble:
        """See `Door`. Values: `record` and `load`, each as name -> value with its unit."""
        di = RECORD_OF.get(action)
        if di is None:
            return Trouble(Why.NOT_SUPPORTED, f"meters keep no record of {action}")
        item = await self._read(di)
        if isinstance(item, MeterRefusal):
            return relay_words.trouble(item)
        values: dict[str, Any] = {"record": _plain(item)}
        load = await self._read(CURRENT_BLOCK)
        if isinstance(load, MeterRefusal) and load.reason is Reason.METER_REFUSED:
            load = await self._read(CURRENT)
        if isinstance(load, MeterItem):
            values["load"] = _plain(load)
        return Record(values)

    async def _read(self, di: str) -> MeterItem | MeterRefusal:
        return await read_through(self._forward, self._facts.address, di)

    async def _forward(self, content: bytes, only_reads: bool = True) -> bytes | MeterRefusal:
        try:
            outcome = await self._hold.exchange(
                self._request(content), reply_timeout=self._patience_s, only_reads=only_reads
            )
        except LinkClosed as error:
            return MeterRefusal(Reason.TERMINAL_ABSENT, str(error))
        return told_by(outcome)

    def _request(self, content: bytes) -> Request:
        byte_timeout = self._session.parts.settings.forward_byte_timeout_ms
        return forward(self._facts.port, content, self._wait_s, byte_timeout)


def _plain(item: MeterItem) -> dict[str, str | None]:
    return {
        f"{english} ({unit})" if unit else english: value for english, _, value, unit, _ in item.values
    } or {"raw": item.raw.hex(" ")}
