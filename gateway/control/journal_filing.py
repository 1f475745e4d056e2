"""A close from the journal, handed over to the database: its command, what was done for it, and where it
stands by that. From there on it goes the way of every command."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import structlog

from gateway.clock import Clock
from gateway.command import ENDS, Action, Change, Command, NewCommand, State, Why
from gateway.control import policy
from gateway.control.ask import RESTORE
from gateway.control.journal_entries import Entry
from gateway.control.proof import found_on
from gateway.control.requests import supersede_for
from gateway.control.states import Shown, shown
from gateway.control.stores import CommandStore, Desk, step
from gateway.door import Accepted, Refused
from gateway.errors import StorageError

log = structlog.get_logger()

NOTE: Final = "journal: "
"""Begins the kind of an event that tells a line of the journal."""

_NOT_TOLD: Final = frozenset({"kind", "id", "ask", "key", "by", "trace", "body_sha256"})
"""Of a line: what the command says itself, or nobody asks."""


class Filing:
    """Puts entries on the desks of their meters. The same entry a second time changes nothing."""

    def __init__(self, store: CommandStore, clock: Clock, at: Callable[[str], None]) -> None:
        self._store = store
        self._clock = clock
        self._at = at

    async def file(self, entry: Entry) -> UUID:
        """The command that the database has of it now. StorageError where that cannot be, or not yet."""
        told = len(entry.records)
        _check_still(entry, told)
        key = entry.key
        known = await self._store.known(entry.by, key)
        if known is not None and known[1] != entry.body_hash:
            log.error("two closes have one idempotency key", key=key, by=entry.by, command=str(entry.id))
            key = f"journal {entry.id}"
            known = await self._store.known(entry.by, key)
        if known is not None and _has_all(known[0], entry):
            return known[0].id
        try:
            async with self._store.desk(entry.facts.meter_id) as desk:
                if known is None:
                    command = await self._create(desk, entry, key)
                else:
                    command = await self._add_to(desk, entry, known[0].id)
                _check_still(entry, told)
                entry.filing = True  # nothing is added to it until it is known whether the desk was kept
        finally:
            entry.filing = False
        self._at("filed")
        return command.id

    async def _create(self, desk: Desk, entry: Entry, key: str) -> Command:
        facts, ask = desk.facts, entry.ask
        action = policy.restore(facts) if ask.verb == RESTORE else Action(ask.verb)
        new = NewCommand(
            id=entry.id,
            action=action,
            requester=entry.by,
            cause=ask.cause,
            created_at=entry.at,
            idempotency_key=key,
            body_hash=entry.body_hash,
            notice=ask.notice,
            customer=ask.customer or facts.customer,
            caused_by=ask.caused_by,
            work_order=ask.work_order,
            label=ask.label,
            not_before=ask.not_before,
            shadow=policy.only_shadow(action, facts) and not entry.frames,
            trace=entry.trace,
        )
        await supersede_for(desk, new)
        command = await desk.add(
            new, State.QUEUED, detail="it was accepted into the journal while the database was away"
        )
        command = await self._tell(desk, command, entry)
        why = policy.unfit(command.action, facts)
        if why is not None and why is not Why.NOT_INSTALLED:  # that is a person's, by the gate of every close
            return await step(desk, command, State.CANCELLED, why=why, detail=facts.meter)
        return await self._stand(desk, command, entry)

    async def _add_to(self, desk: Desk, entry: Entry, command_id: UUID) -> Command:
        """The request had reached the database after all, or came a second time: one command, and all that
        was done for it."""
        stands = await desk.command(command_id)
        if stands is None:
            raise StorageError(f"command {command_id} has gone")
        command = found_on(desk, stands, *State)
        if command is None:
            command = stands
            log.error("a close that had ended was sent again", command=str(command_id), key=entry.key)
        command = await self._tell(desk, command, entry)
        if command.state is State.QUEUED:
            return await self._stand(desk, command, entry)
        return command

    async def _tell(self, desk: Desk, command: Command, entry: Entry) -> Command:
        """Every line as an event; with the last one the row knows which frame left last, and when."""
        for record in entry.records:
            command = await desk.note(command, NOTE + record["kind"], _evidence(record))
        if not entry.frames:
            return command
        last = entry.frames[-1]
        change: dict[str, Any] = {
            "frame_hash": last.sha256,
            "attempts": command.attempts + len(entry.frames),
            "sent_at": _later(command.sent_at, last.sent_at),
            "valid_until": _later(command.valid_until, last.valid_until),
        }
        if command.state not in ENDS and command.state is not State.SENDING:
            change["look_at"] = self._clock.now()
        return await desk.note(command, NOTE + "all told", {"frames": len(entry.frames)}, Change(change))

    async def _stand(self, desk: Desk, command: Command, entry: Entry) -> Command:
        """Where a queued command stands by what was done for it. A frame that said something else than the
        command leaves it in the queue."""
        last = entry.frames[-1] if entry.frames else None
        if last is None or last.action is not command.action:
            return command
        now = self._clock.now()
        told = _evidence(last.told)
        sending = await step(desk, command, State.SENDING, detail="from the journal", evidence=told)
        look = Change({"look_at": now})
        answer = entry.answer
        if isinstance(answer, Accepted):
            heard = {"frame": answer.frame, "words": list(answer.words)}
            return await step(desk, sending, State.ACKNOWLEDGED, change=look, evidence=heard)
        if isinstance(answer, Refused) and not _seen_done(entry):
            words = ", ".join(answer.words)
            heard = {"frame": answer.frame, "words": list(answer.words)}
            field = await step(
                desk, sending, State.FIELD, why=answer.why, detail=words, change=look, evidence=heard
            )
            await desk.open_field_order(field, answer.why, words)
            return field
        return await step(
            desk, sending, State.UNCERTAIN, why=Why.NO_ANSWER, detail="from the journal", change=look
        )


def _check_still(entry: Entry, told: int) -> None:
    """StorageError where something is being done for it, or was since it had so many lines."""
    if entry.busy or len(entry.records) != told:
        raise StorageError("a close of this meter is being sent just now; try again")


def _has_all(command: Command, entry: Entry) -> bool:
    """Was everything that left for this entry told already? The last frame's hash says so."""
    if not entry.frames:
        return True
    return command.frame_hash == entry.frames[-1].sha256


def _seen_done(entry: Entry) -> bool:
    read = entry.read
    return read is not None and read.at > entry.sent_at and shown(entry.frames[-1].action, read) is Shown.DONE


def _evidence(record: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in record.items() if name not in _NOT_TOLD}


def _later(one: datetime | None, other: datetime) -> datetime:
    return other if one is None else max(one, other)
