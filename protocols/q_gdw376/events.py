"""Events (AFN0E): the request for them, and by their names the values and bytes of `event_records`."""

from __future__ import annotations

from protocols.errors import LocalProtocolError
from protocols.q_gdw376.event_records import (
    IMPORTANT,
    KINDS,
    MEMORY,
    NORMAL,
    EventKind,
    EventRecord,
    Events,
    EventsQuery,
    decode_events,
    encode_events,
    kind,
    make_record,
    read_record,
    told,
)
from protocols.q_gdw376.messages import Request, RequestUnit

_AFN = 0x0E


def read_events(fn: int, pm: int, pn: int) -> Request:
    """AFN0E F1 (IMPORTANT) or F2 (NORMAL), answered with `Events`: the records Pm .. Pn - 1, modulo MEMORY.

    LocalProtocolError where fn is neither, or a pointer is not within 0..255.
    """
    if fn not in (IMPORTANT, NORMAL):
        raise LocalProtocolError(f"AFN0E F{fn} asks for no events; F{IMPORTANT} and F{NORMAL} do")
    if not (0 <= pm < MEMORY and 0 <= pn < MEMORY):
        raise LocalProtocolError(f"Pm {pm} and Pn {pn} are not both within 0..{MEMORY - 1}")
    return Request(_AFN, (RequestUnit(0, fn, bytes((pm, pn))),))


__all__ = [
    "IMPORTANT",
    "KINDS",
    "MEMORY",
    "NORMAL",
    "EventKind",
    "EventRecord",
    "Events",
    "EventsQuery",
    "decode_events",
    "encode_events",
    "kind",
    "make_record",
    "read_events",
    "read_record",
    "told",
]
