"""Good frames of both families to begin with: the field frames, one of every row of both tables, commands."""

from __future__ import annotations

import random
from collections.abc import Iterator
from functools import cache

from protocols.dlt645 import frame as frame645
from protocols.dlt645 import messages as messages645
from protocols.dlt645.commands import Command
from protocols.dlt645.connection import MasterRequest
from protocols.errors import LocalProtocolError
from protocols.permit import Permit
from protocols.q_gdw376 import frame as frame376
from protocols.q_gdw376 import messages as messages376
from protocols.q_gdw376.items import ASKING_AFNS, ITEMS, form_of
from protocols.q_gdw376.units import PASSWORD_AFNS
from tests.fuzz.mutations import Family, Seed
from tests.protocols import plain_dlt645_items as plain
from tests.protocols.test_dlt645_items_rows import ROWS
from tests.protocols.test_lens_composition import DANGEROUS
from tests.protocols.test_qgdw376_forms import made
from tests.protocols.vectors import valid
from tests.protocols.worked_qgdw376_events import BODIES

METER = "202311050012"
TERMINAL = "02001234"
_CONFIRM, _DATA, _EVENTS = 0x00, 0x0D, 0x0E
# Longer ones would only be slow: what makes a frame long is repeats of what a shorter one has too.
_LONGEST_MADE = 700


def meter_seed(raw: bytes, edition: str) -> Seed:
    """A 645 frame with the request that it answers."""
    frame = frame645.parse(raw)
    message = messages645.from_frame(frame, edition)
    question: MasterRequest | None = None
    match message:
        case messages645.ReadReply(address, di) | messages645.FollowUpReply(address, di):
            question = messages645.ReadRequest(address, di)
        case messages645.AddressReply():
            question = messages645.ReadAddressRequest()
        case messages645.ReadAgainReply(address):
            question = messages645.ReadAgainRequest(address)
        case _ if isinstance(message, MasterRequest):
            question = message
    permit = None
    if isinstance(question, Command):
        permit = Permit(f"645 {frame.control:02x}", frame.address, "a seed of the mutations")
    return Seed(Family.METER, raw, edition, question, permit)


def terminal_seed(raw: bytes) -> Seed:
    """A 376.1 frame with the request that it answers."""
    frame = frame376.parse(raw)
    question = None
    if frame.up and frame.afn == _CONFIRM:
        question = messages376.read_clock()
    elif frame.up and frame.afn in ASKING_AFNS:
        units = messages376.decode(frame)[:8]
        question = messages376.Request(
            frame.afn, tuple(messages376.RequestUnit(unit.pn, unit.fn) for unit in units)
        )
    return Seed(Family.TERMINAL, raw, question=question)


@cache
def field_seeds() -> tuple[Seed, ...]:
    """The good field frames; those of 698.45 too, which are nobody's."""
    found = []
    for vector in valid("dlt645-2007", "dlt645-1997", "qgdw376.1"):
        raw = vector.raw.lstrip(b"\xfe")
        if vector.protocol == "qgdw376.1":
            if raw[1] & 3 in (1, 2):  # the reserved protocol id is no frame
                found.append(terminal_seed(raw))
        else:
            found.append(meter_seed(raw, vector.protocol.removeprefix("dlt645-")))
    others = [Seed(Family.TERMINAL, one.raw.lstrip(b"\xfe")) for one in valid("dlt698.45")]
    return (*found, *others)


@cache
def made_seeds() -> tuple[Seed, ...]:
    """One frame of every row of both tables, of every event, and of every command that changes a meter."""
    return (*_meter_rows(), *_terminal_rows(), *_events())


def _meter_rows() -> Iterator[Seed]:
    for row in ROWS:
        formats = plain.formats(row)
        if formats is None:
            continue
        chance = random.Random(row["di"])
        data = b"".join(plain.some_bytes(one, chance) for one in formats)
        if len(data) <= messages645.LONGEST_REPLY - 4:
            reply = messages645.ReadReply(METER, row["di"].lower(), data)
            yield meter_seed(frame645.build(messages645.to_frame(reply)), row["protocol"])
    for _, raw in DANGEROUS:
        # The sheet's frame for a new address has a checksum of its own.
        fixed = raw[:-2] + bytes([sum(raw[:-2]) & 0xFF, 0x16])
        yield meter_seed(fixed, "2007")


def _terminal_rows() -> Iterator[Seed]:
    for item in ITEMS:
        for up in (True, False):
            form = form_of(item.afn, item.fn, up)
            if form is None:
                continue
            for alternative in form.alternatives:
                variants = {alternative.setting: alternative.word} if alternative.setting else {}
                told = made(alternative.parts, random.Random(f"{item.afn} {item.fn} {up}"))
                try:
                    unit = messages376.encode_unit(item.afn, item.fn, 1, told, up, variants)
                except LocalProtocolError:
                    continue  # an alternative that is reached by its length only
                if len(unit) <= _LONGEST_MADE:
                    yield _framed(item.afn, unit, up)


def _events() -> Iterator[Seed]:
    for erc, body, _ in BODIES:
        raw = bytes.fromhex(body)
        yield _framed(_EVENTS, bytes((0, 0, 1, 0, 7, 1, 6, 7, erc, len(raw))) + raw, True)


def _framed(afn: int, units: bytes, up: bool) -> Seed:
    body = units + (bytes(16) if not up and afn in PASSWORD_AFNS else b"")
    asks = (up and afn == 0x02) or (not up and afn != _CONFIRM)
    frame = frame376.Frame(
        terminal=TERMINAL, up=up, prm=asks, function=8 if up else 11, afn=afn, body=body, msa=1
    )
    return terminal_seed(frame376.build(frame))
