"""A close from the journal, sent and looked at: the course of a close with the journal in the database's
place. Every frame's hash is durable before the frame leaves."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any, Final, Protocol

import structlog

from gateway.clock import Clock
from gateway.command import Command, RelayStatus, Why
from gateway.control import journal_entries as entries
from gateway.control.ask import written as instant
from gateway.control.course import CLOSE_VALID, CURABLE, CURES, TRIP_VALID
from gateway.control.journal_entries import MOST_RECORDS, Entry
from gateway.control.journal_file import JournalError, Record
from gateway.control.proof import CLOSES_BEFORE_FIELD, MOVES_WITHIN, later
from gateway.control.states import Shown, shown
from gateway.door import Accepted, Answer, Door, NotWritten, Refused, Trouble

log = structlog.get_logger()

TRIP_OVER: Final = TRIP_VALID + timedelta(seconds=1)
"""After a close was accepted: no trip that left before it is obeyed any more."""


class Keep(Protocol):
    """Make a line of an entry durable. JournalError."""

    async def __call__(self, entry: Entry, record: Record, /) -> None: ...


class Sending:
    """What is done at a meter's door for an entry."""

    def __init__(
        self, clock: Clock, keep: Keep, at: Callable[[str], None], written: Callable[[Command], None]
    ) -> None:
        self._clock = clock
        self._keep = keep
        self._at = at
        self._handed_over = written

    async def work(self, entry: Entry, door: Door) -> None:
        """The next thing for this entry, which says by `look_at` when it wants another. JournalError: no
        frame left for it now."""
        if not entry.frames or entry.resend:
            await self._send(entry, door)
        else:
            # Also after a crash: a frame that may have left is looked for before another one leaves.
            await self._look(entry, door)

    async def _send(self, entry: Entry, door: Door) -> None:
        if len(entry.records) >= MOST_RECORDS:
            await self._look(entry, door)
            return
        offset = await door.clock_offset()
        status = await door.status()
        for _ in range(1 + CURES):
            answer = await self._send_once(entry, door, offset, status)
            if not (isinstance(answer, Refused) and answer.why in CURABLE):
                break
            offset = await door.clock_offset()
        if isinstance(entry.answer, Accepted) and not entry.resend:
            await self._look(entry, door)

    async def _send_once(
        self, entry: Entry, door: Door, clock: float | Trouble, status: RelayStatus | Trouble
    ) -> Answer | None:
        now = self._clock.now()
        offset = clock if isinstance(clock, float) else None
        valid_until = now + CLOSE_VALID
        prepared = await door.prepare(entry.action, valid_until + timedelta(seconds=offset or 0.0))
        if isinstance(prepared, Trouble):
            entry.look_at = later(entry.at, now)
            await self._waits(entry, prepared)
            return None
        told: dict[str, Any] = {
            "action": entry.action.value,
            "sha256": prepared.sha256.hex(),
            "frame": prepared.shown,
            "deadline": instant(prepared.deadline),
            "valid_until": instant(valid_until),
            "before": list(prepared.tried),
            "clock_offset_ms": None if offset is None else round(offset * 1000),
            "word3": status.word if isinstance(status, RelayStatus) else None,
        }
        await self._keep(entry, entry.line(entries.WRITING, self._clock.now(), told))
        self._at("writing kept")
        sent = await door.write(prepared, lambda: None)
        if isinstance(sent, NotWritten):
            trouble = sent.trouble
            entry.look_at = later(entry.at, self._clock.now())
            await self._keep(
                entry,
                entry.line(
                    entries.NOT_WRITTEN,
                    self._clock.now(),
                    {"why": trouble.why.value, "detail": trouble.detail},
                ),
            )
            return None
        self._handed_over(entry.command())
        self._at("written")
        answer = await sent
        self._at("heard")
        await self._heard(entry, answer)
        return answer

    async def _heard(self, entry: Entry, answer: Answer) -> None:
        now = self._clock.now()
        try:
            await self._keep(entry, entry.line(entries.HEARD, now, entries.answer_told(answer)))
        except JournalError as error:
            entry.answer = answer
            log.error("what a meter said cannot be kept", command=str(entry.id), error=str(error))
        self._at("heard kept")
        if isinstance(answer, Refused) and answer.why not in CURABLE:
            # Where it knows no close at all, the button is allowed at once.
            entry.resend = True
            first = answer.why is Why.NOT_SUPPORTED and entry.frames[-1].action is not entry.action
            entry.look_at = now if first else later(entry.at, now)
        elif isinstance(answer, Refused):
            entry.resend, entry.look_at = True, later(entry.at, now)
        else:
            entry.look_at = now

    async def _look(self, entry: Entry, door: Door) -> None:
        status = await door.status()
        now = self._clock.now()
        since = entry.sent_at
        entry.look_at = later(since, now)
        if isinstance(status, Trouble):
            entry.resend = entry.resend or isinstance(entry.answer, Refused)
            await self._waits(entry, status)
            return
        if not entry.frames or status.at <= since:
            return
        done = shown(entry.frames[-1].action, status) is Shown.DONE
        await self._read(entry, status)
        if done:
            # A trip that left before may still be obeyed: what is closed now need not stay so.
            settled = status.at > entry.at + TRIP_OVER
            entry.look_at = None if settled else entry.at + TRIP_OVER
        elif not (isinstance(entry.answer, Accepted) and now - since < MOVES_WITHIN):
            entry.resend = True
            entry.look_at = now if len(entry.frames) < CLOSES_BEFORE_FIELD else later(entry.at, now)

    async def _read(self, entry: Entry, status: RelayStatus) -> None:
        """Keep a relay read where it says something new."""
        before = entry.read
        new = before is None or before.at <= entry.sent_at or before.word != status.word
        if new or (before is not None and before.at <= entry.at + TRIP_OVER < status.at):
            await self._told(entry, entries.READ, {"word3": status.word, "read_at": instant(status.at)})

    async def _waits(self, entry: Entry, trouble: Trouble) -> None:
        if entry.waits is not trouble.why:
            await self._told(entry, entries.WAITS, {"why": trouble.why.value, "detail": trouble.detail})

    async def _told(self, entry: Entry, kind: str, told: Record) -> None:
        """Evidence that nothing hangs on: where it cannot be kept, the work goes on."""
        if len(entry.records) >= MOST_RECORDS:
            return
        try:
            await self._keep(entry, entry.line(kind, self._clock.now(), told))
        except JournalError as error:
            log.error("evidence of a close cannot be kept", command=str(entry.id), error=str(error))
