"""What happens to a command after it may have left: reading the relay until it is proved, either way.

A relay read counts only if it is later than the last write. What is read goes on the desk whatever it says.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, Final

from gateway.clock import Clock, from_device, to_device
from gateway.command import (
    GATED_AS_TRIP,
    RESTORING,
    Action,
    Change,
    Command,
    MeterFacts,
    Proof,
    Ref,
    RelayStatus,
    State,
    Why,
    following,
)
from gateway.control.states import Shown, energised, is_proof, not_executed, shown
from gateway.control.stores import CommandStore, Desk, step
from gateway.door import Accepted, Door, Record, Trouble

FIRST_LOOK: Final = timedelta(seconds=5)
"""Meters check the line within five seconds of a command."""

LONGEST_LOOK: Final = timedelta(minutes=10)
"""Between two looks at a command that is not proved: a household may wait for it."""

MOVES_WITHIN: Final = timedelta(seconds=30)
"""A relay that has not moved by then, without saying that it waits, will not."""

FOLLOWED_AFTER: Final = (timedelta(minutes=10), timedelta(hours=1))
"""When a permitted close is looked at, then at each midnight, until somebody has pressed the button."""

FOLLOWED_FOR: Final = timedelta(days=30)

CLOSES_BEFORE_FIELD: Final = 3
"""Frames of a close that the meter accepted and did not carry out, before a person is sent there too."""


def later(since: datetime, now: datetime) -> datetime:
    """When to try again: the longer it has lasted, the longer until then."""
    return now + min(max(FIRST_LOOK, (now - since) / 2), LONGEST_LOOK)


def found_on(desk: Desk, ref: Ref | Command, *states: State) -> Command | None:
    """The command as it lies on the desk, if it is in one of `states` (by default that of `ref`)."""
    return found_in(desk.facts, ref, *states)


def found_in(facts: MeterFacts, ref: Ref | Command, *states: State) -> Command | None:
    """See `found_on`."""
    for one in facts.open:
        if one.id == ref.id:
            return one if one.state in (states or (ref.state,)) else None
    return None


def once_more(facts: MeterFacts, lit_at: datetime) -> datetime | None:
    """When to look again at a meter that had power at `lit_at`, whoever saw it: as soon as no copy of a
    trip's frame can take it away any more. None: none could then."""
    until = facts.copy_until
    return until + timedelta(seconds=1) if until is not None and lit_at <= until else None


class Prover:
    """Reads relays and draws the conclusions."""

    def __init__(self, store: CommandStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    async def look(self, ref: Ref, door: Door, said: Accepted | None = None) -> None:
        """Read the relay of a command that is acknowledged, uncertain, with the field crew, or permitted.

        said: the meter's yes to a command in SENDING, which goes on the desk together with what is read.
        """
        status = await door.status()
        record: Record | Trouble | None = None
        if (
            isinstance(status, RelayStatus)
            and ref.action in (Action.TRIP, *RESTORING)
            and ref.state is not State.VERIFIED
            and shown(ref.action, status) is Shown.DONE
        ):
            record = await door.record(ref.action)
        async with self._store.desk(ref.meter_id) as desk:
            if ref.state is State.VERIFIED:
                await self._follow(desk, ref, status)
                return
            command = found_on(desk, ref)
            if command is None:
                return
            if said is not None:
                command = await step(
                    desk,
                    command,
                    State.ACKNOWLEDGED,
                    change=Change({"look_at": self._clock.now()}),
                    evidence={"frame": said.frame, "words": list(said.words)},
                )
            if isinstance(status, Trouble):
                await self._unread(desk, command, status)
                return
            evidence: dict[str, Any] = {"word3": status.word, "at": status.at.isoformat()}
            if isinstance(record, Record):
                evidence["record"] = record.values
            await self._conclude(desk, command, status, evidence)

    async def _unread(self, desk: Desk, command: Command, trouble: Trouble) -> None:
        now = self._clock.now()
        if self._overtaken(desk, command):
            await step(desk, command, State.SUPERSEDED, why=Why.NEWER_INTENT)
            return
        if command.state is State.FIELD:
            await self._again(desk, command, None, {})
            return
        since = command.sent_at or command.created_at
        await desk.put_off(command, later(since, now), trouble.why, trouble.detail)
        await self._maybe_field(desk, command, trouble)

    async def _maybe_field(self, desk: Desk, command: Command, trouble: Trouble) -> None:
        """Nothing to be had for an hour from a meter that should be on: somebody has to go there as well."""
        since = command.sent_at or command.created_at
        if command.action in RESTORING and self._clock.now() - since > timedelta(hours=1):
            await desk.open_field_order(command, trouble.why, trouble.detail)

    def _overtaken(self, desk: Desk, command: Command) -> bool:
        """An uncertain trip that somebody has paid for meanwhile: the close proves the rest."""
        return (
            command.state is State.UNCERTAIN
            and command.action in GATED_AS_TRIP
            and desk.facts.restored_intent > command.intent
        )

    async def _conclude(
        self, desk: Desk, command: Command, status: RelayStatus, evidence: dict[str, Any]
    ) -> None:
        now = self._clock.now()
        if self._overtaken(desk, command):
            await step(desk, command, State.SUPERSEDED, why=Why.NEWER_INTENT, evidence=evidence)
            return
        since = command.sent_at or command.created_at
        what = shown(command.action, status)
        if not is_proof(command, status):
            await desk.put_off(
                command, later(since, now), Why.NO_ANSWER, "the relay read is older than the write"
            )
        elif what is Shown.WAITING:
            await desk.put_off(command, later(since, now), Why.WAITING_FOR_LOAD)
        elif what is Shown.DONE:
            await self._done(desk, command, status, evidence)
        else:
            await self._not_done(desk, command, status, evidence)

    async def _done(
        self, desk: Desk, command: Command, status: RelayStatus, evidence: dict[str, Any]
    ) -> None:
        """The relay shows what was wanted. After a trip that may still be obeyed a close has to wait."""
        until = desk.facts.trip_until
        if command.action in RESTORING and until is not None and status.at <= until:
            await desk.put_off(
                command, until + timedelta(seconds=1), Why.WAITING_FOR_LOAD, "a trip may still be obeyed"
            )
            return
        change: dict[str, Any] = {"look_at": None}
        lit = command.action in RESTORING and energised(status)
        if lit:
            change |= {"energised_at": status.at, "look_at": once_more(desk.facts, status.at)}
        elif command.action is Action.PERMIT_CLOSE:
            change["look_at"] = self._clock.now() + FOLLOWED_AFTER[0]
        verified = await step(
            desk,
            command,
            State.VERIFIED,
            proof=Proof.RELAY_READ,
            why=Why.RELAY_READ,
            change=Change(change),
            evidence=evidence,
        )
        if lit:
            await desk.note(verified, "energised", evidence)
        elif command.action is Action.PERMIT_CLOSE:
            await desk.note(verified, "permitted", evidence)

    async def _not_done(
        self, desk: Desk, command: Command, status: RelayStatus, evidence: dict[str, Any]
    ) -> None:
        now = self._clock.now()
        since = command.sent_at or command.created_at
        if command.action in RESTORING:
            if command.state is State.ACKNOWLEDGED and now - since < MOVES_WITHIN:
                await desk.put_off(
                    command, later(since, now), Why.NOT_EXECUTED, "the relay has not moved yet"
                )
            else:
                await self._again(desk, command, status, evidence)
            return
        if not not_executed(command.action, command, status, now):
            until = later(since, now)
            if command.valid_until is not None:
                until = max(until, command.valid_until + timedelta(seconds=1))
            await desk.put_off(command, until, Why.NOT_EXECUTED, "it may still be obeyed")
            return
        if command.state is State.ACKNOWLEDGED:
            await step(
                desk, command, State.FAILED, proof=Proof.RELAY_READ, why=Why.NOT_EXECUTED, evidence=evidence
            )
        elif command.expires_at is None or now < command.expires_at:
            await step(
                desk,
                command,
                State.QUEUED,
                proof=Proof.NOT_EXECUTED,
                why=Why.NOT_EXECUTED,
                change=Change({"look_at": None}),
                evidence=evidence,
            )
        else:
            await step(
                desk, command, State.FAILED, proof=Proof.NOT_EXECUTED, why=Why.EXPIRED, evidence=evidence
            )

    async def _again(
        self, desk: Desk, command: Command, status: RelayStatus | None, evidence: dict[str, Any]
    ) -> None:
        """A close that is not done: once more, and with a person on the way after a few."""
        now = self._clock.now()
        proof = {State.UNCERTAIN: Proof.NOT_EXECUTED, State.ACKNOWLEDGED: Proof.RELAY_READ}.get(command.state)
        queued = await step(
            desk,
            command,
            State.QUEUED,
            proof=proof,
            why=Why.NOT_EXECUTED,
            change=Change(
                {"look_at": now if command.attempts < CLOSES_BEFORE_FIELD else later(command.created_at, now)}
            ),
            evidence=evidence,
        )
        if command.attempts >= CLOSES_BEFORE_FIELD:
            await desk.open_field_order(queued, Why.NOT_EXECUTED, f"{command.attempts} frames")

    async def _follow(self, desk: Desk, ref: Ref, status: RelayStatus | Trouble) -> None:
        """A permitted close: has the button been pressed?"""
        command = await desk.command(ref.id)
        if command is None or command.state is not State.VERIFIED or command.look_at is None:
            return
        now = self._clock.now()
        if command.energised_at is not None:
            await self._still_lit(desk, command, status)
            return
        if isinstance(status, RelayStatus) and energised(status):
            seen = {"word3": status.word, "at": status.at.isoformat()}
            change = Change({"look_at": once_more(desk.facts, status.at), "energised_at": status.at})
            await desk.note(command, "energised", seen, change)
            return
        since = command.sent_at or command.created_at
        told = {"word3": status.word} if isinstance(status, RelayStatus) else {"why": status.why.value}
        if isinstance(status, RelayStatus) and status.trip_ordered:
            # A copy of an older trip has struck after the permit: no button helps now.
            await self._dark_again(desk, command, told, since, now)
            return
        await desk.note(command, "not energised yet", told, Change({"look_at": _next_look(since, now)}))

    async def _still_lit(self, desk: Desk, command: Command, status: RelayStatus | Trouble) -> None:
        """The last trip's frame is dead now: has a copy of it struck after the close?

        Then it is closed again, by a command of its own, for this one has ended."""
        now = self._clock.now()
        if isinstance(status, Trouble):
            since = command.energised_at or command.created_at
            again = None if now - since > FOLLOWED_FOR else later(since, now)
            await desk.note(command, "not looked at", {"why": status.why.value}, Change({"look_at": again}))
            return
        seen = {"word3": status.word, "at": status.at.isoformat()}
        if status.open or status.trip_ordered:
            await self._dark_again(desk, command, seen, command.energised_at or command.created_at, now)
        else:
            await desk.note(command, "still energised", seen, Change({"look_at": None}))

    async def _dark_again(
        self, desk: Desk, command: Command, told: dict[str, Any], since: datetime, now: datetime
    ) -> None:
        """Give power back once more, by a command of its own, for this one has ended; not where a newer trip
        was sent. While something else is under way there, that has to come to its end first: a close of ours
        would take the place of a trip that people have asked for since."""
        newer = desk.facts.tripped_intent > command.intent
        waits = not newer and any(not one.shadow for one in desk.facts.open)
        again = later(since, now) if waits and now - since <= FOLLOWED_FOR else None
        await desk.note(command, "dark again", told, Change({"look_at": again}))
        if newer or waits:
            return
        new = following(command, command.action, now, f"again after {command.id}")
        await desk.add(new, State.QUEUED)


def _next_look(since: datetime, now: datetime) -> datetime | None:
    """An hour after the write, then each midnight in Shanghai; None after a month."""
    for after in FOLLOWED_AFTER:
        if since + after > now:
            return since + after
    if now - since > FOLLOWED_FOR:
        return None
    morning = to_device(now).replace(hour=0, minute=5, second=0, microsecond=0)
    return from_device(morning + timedelta(days=1))
