"""Items of one meter, read straight off its line, in both editions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from gateway.field.line import Heard, MeterLine, may_answer
from gateway.model import Reason
from protocols.dlt645 import frame as frames
from protocols.dlt645 import items, profiles
from protocols.dlt645.connection import Answered, Master, Refused
from protocols.dlt645.fields import edition_of_di
from protocols.dlt645.frame import build
from protocols.dlt645.messages import ReadRequest
from protocols.dlt645.probe import Found, Probe
from protocols.errors import RemoteProtocolError

FOLLOW_UPS: Final = 16
"""Exchanges for one item: a whole load record takes some."""

QUESTIONS: Final = 4
"""A search for an edition asks no more."""

TRIES: Final = 2
"""A question without a whole answer is asked once more."""


@dataclass(frozen=True, slots=True)
class Item:
    """What a meter said of one DI. values: () where the layout of the DI is not known; raw: its data."""

    meter: str
    di: str
    values: tuple[items.Value, ...]
    raw: bytes


@dataclass(frozen=True, slots=True)
class NoItem:
    """Why there is none. detail: for a person."""

    reason: Reason
    detail: str


async def edition_of(line: MeterLine, address: str) -> Found | None:
    """Which edition the meter speaks that answers for `address`; None where none does. LinkClosed."""
    probe = Probe(address, reply_timeout=0.0, repeats=0, lead_in=0)
    content = probe.start(0.0)
    for _ in range(QUESTIONS):
        heard = await _asked(line, content)
        probe.receive_data(_raw(heard), 0.0)
        found = _found(probe)
        if found is None and probe.busy and not (content := probe.data_to_send()):
            probe.handle_timeout(0.0)
            found = _found(probe)
            content = probe.data_to_send()
        if found is not None or not content:
            return found
    return None


def _found(probe: Probe) -> Found | None:
    while (event := probe.next_event()) is not None:
        if isinstance(event, Found):
            return event
    return None


async def read_item(line: MeterLine, address: str, di: str) -> Item | NoItem:
    """One item; the DI's length tells the edition. LocalProtocolError where it is no DI; LinkClosed."""
    edition = edition_of_di(di)
    master = Master(0.0, 0, 0, profiles.standard(edition))
    content = master.send(ReadRequest(address, di), 0.0)
    for _ in range(FOLLOW_UPS):
        heard = await _asked(line, content)
        master.receive_data(_raw(heard), 0.0)
        outcome = _outcome(master)
        content = master.data_to_send()
        if isinstance(outcome, Answered):
            return _item(outcome, edition)
        if isinstance(outcome, NoItem):
            return outcome
        if not content:
            return _nothing(heard, address)
    return NoItem(Reason.DAMAGED, f"more than {FOLLOW_UPS} frames for {di}")


async def _asked(line: MeterLine, content: bytes) -> Heard:
    """Ask; once more where no whole answer came. Patiently: who is known to be there is worth it."""
    question = frames.parse(content)
    heard = Heard()
    for _ in range(TRIES):
        heard = await line.ask(question, patient=True)
        if any(may_answer(frame, question) for frame in heard.frames):
            break
    return heard


def _raw(heard: Heard) -> bytes:
    return b"".join(build(frame) for frame in heard.frames)


def _outcome(master: Master) -> Answered | NoItem | None:
    while (event := master.next_event()) is not None:
        if isinstance(event, Answered):
            return event
        if isinstance(event, Refused):
            reasons = ", ".join(event.error.reasons) or f"ERR {event.error.error:02X}"
            return NoItem(Reason.METER_REFUSED, reasons)
    return None


def _nothing(heard: Heard, address: str) -> NoItem:
    if heard.silent:
        return NoItem(Reason.METER_SILENT, f"{address} was asked {TRIES} times")
    others = [frame for frame in heard.frames if not frames.matches(address, frame.address)]
    if others:
        return NoItem(Reason.WRONG_METER, f"{others[0].address} answered for {address}")
    if heard.frames:
        return NoItem(Reason.DAMAGED, f"the meter answered something else: {build(heard.frames[0]).hex(' ')}")
    return NoItem(Reason.DAMAGED, f"no frame in {heard.damage.hex(' ')}")


def _item(answered: Answered, edition: str) -> Item | NoItem:
    try:
        values = items.decode(answered.di, answered.data, edition)
    except RemoteProtocolError as error:
        return NoItem(Reason.DAMAGED, error.reason)
    return Item(answered.address, answered.di, values, answered.data)
