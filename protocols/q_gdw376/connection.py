"""One link between master and terminal, seen from either end: `Master` asks, `Terminal` answers and reports.

No socket and no clock in here. Times are seconds on any clock the caller likes, always the same one. After
`receive_data` or `handle_timeout` take events until None, then write `data_to_send()`, then ask
`next_timeout()`. Nothing a peer sends raises: bytes that are no frame, and frames whose numbers contradict
each other, are `Damaged` events.

A frame with PRM 1 may come at any time, also in mid-exchange. Only requests that say so are repeated, with
the same PSEQ and FCB; control frames never are.

Tp is used by those who want it: give `wall`, the naive local time of day, where frames are sent and received.
Without it no label is sent and none is judged.
"""

from __future__ import annotations

from protocols.q_gdw376.link import (
    DEFAULT_REPEATS,
    DEFAULT_REPLY_TIMEOUT,
    FRAME_GAP,
    Answered,
    Asked,
    Confirmed,
    Denied,
    EventsWaiting,
    Late,
    MasterEvent,
    PasswordRefused,
    ReportConfirmed,
    ReportDenied,
    ReportSilent,
    Silent,
    Spontaneous,
    TerminalEvent,
)
from protocols.q_gdw376.master import Master
from protocols.q_gdw376.terminal import Terminal
from protocols.wire import Damaged

__all__ = [
    "DEFAULT_REPEATS",
    "DEFAULT_REPLY_TIMEOUT",
    "FRAME_GAP",
    "Answered",
    "Asked",
    "Confirmed",
    "Damaged",
    "Denied",
    "EventsWaiting",
    "Late",
    "Master",
    "MasterEvent",
    "PasswordRefused",
    "ReportConfirmed",
    "ReportDenied",
    "ReportSilent",
    "Silent",
    "Spontaneous",
    "Terminal",
    "TerminalEvent",
]
