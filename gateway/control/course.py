"""The course of one relay command: what is done with it when it wants work, one step at a time.

Sending is here, `proof` has what follows. Every decision is made at the meter's desk; between two desks
anything may happen, so each begins by looking at the command anew. `at` is called at named points: tests die
there.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

import structlog

from gateway.clock import Clock
from gateway.command import (
    GATED_AS_TRIP,
    NO_PLACES,
    RESTORING,
    Action,
    Change,
    Command,
    MeterFacts,
    Place,
    Proof,
    Ref,
    RelayStatus,
    State,
    Unsure,
    Why,
    following,
)
from gateway.control import policy
from gateway.control.gates import TAKEN_AWAY_LOOK, AskBilling, Gates, billing_not_asked
from gateway.control.policy import Do, Judgement, Rules
from gateway.control.proof import Prover, found_on, later
from gateway.control.stores import CommandStore, Desk, step
from gateway.door import Accepted, Answer, Door, Doors, NotWritten, Prepared, Refused, Silence, Trouble
from gateway.errors import StorageError

log = structlog.get_logger()

TRIP_VALID: Final = timedelta(minutes=10)
CLOSE_VALID: Final = timedelta(hours=24)
"""How long a meter may obey a frame: a trip no longer than it was decided on, a close until it is there."""

CLOCK_TOLERANCE_S: Final = 120.0
"""A trip to a meter whose clock is off by more could be obeyed when it is long over."""

DESK_FRESH: Final = timedelta(seconds=5)
"""Whoever stood still for longer between his desk and the write may have lost the desk: a database that
restarts keeps none, and a close may have been accepted at it since."""

LOST_AFTER: Final = timedelta(minutes=5)
"""A command that has been in SENDING for so long is in nobody's hands any more: longer than any exchange."""

CURES: Final = 2
"""How often a close that is refused for something curable is sent again at once."""

CURABLE: Final = frozenset({Why.NOT_AUTHENTICATED, Why.DEADLINE, Why.SECURITY_MODULE})
"""A new authentication and a new reading of the clock may help."""

ENDS_A_TRIP: Final = frozenset({Why.WRONG_METER, Why.KEEP_POWER_ON, Why.NOT_SUPPORTED})
"""What no waiting mends."""


def nowhere(point: str) -> None:
    """Nobody dies here."""


def uncounted(command: Command) -> None:
    """Nobody counts."""


@dataclass(frozen=True, slots=True)
class _Readings:
    """What the meter said before it was sent anything. offset: None where its clock could not be read."""

    offset: float | None
    status: RelayStatus | None

    def told(self) -> dict[str, Any]:
        return {
            "clock_offset_ms": None if self.offset is None else round(self.offset * 1000),
            "word3": None if self.status is None else self.status.word,
        }


class Course:
    """Works commands, one at a time for each terminal: that is the dispatcher's business."""

    def __init__(
        self,
        store: CommandStore,
        doors: Doors,
        clock: Clock,
        rules: Callable[[], Rules],
        *,
        ask_billing: AskBilling = billing_not_asked,
        clock_trusted: Callable[[], bool] = lambda: True,
        at: Callable[[str], None] = nowhere,
        written: Callable[[Command], None] = uncounted,
    ) -> None:
        """rules: as they are now. clock_trusted: does our own clock agree with the time service?

        written: told of each control frame at the moment when it was handed over, for counts."""
        self._store = store
        self._doors = doors
        self._clock = clock
        self._rules = rules
        self._gates = Gates(store, clock, rules, ask_billing, clock_trusted)
        self._at = at
        self._handed_over = written
        self._prover = Prover(store, clock)

    async def work(self, ref: Ref) -> None:
        """Do what is due for this command, if it still is. StorageError: nothing is lost, it stays due."""
        facts = await self._gates.open_to(ref) if ref.state is State.QUEUED else await self._facts(ref)
        if facts is None:
            return
        async with self._doors.open(facts) as door:
            if door is None:
                return
            if ref.state is State.QUEUED:
                await self._send(ref, facts, door)
            else:
                await self._prover.look(ref, door)

    async def _facts(self, ref: Ref) -> MeterFacts | None:
        """The facts, for a command that may have left. One that was being sent by somebody who died is
        uncertain from now on."""
        async with self._store.desk(ref.meter_id) as desk:
            command = found_on(desk, ref)
            if command is not None and command.state is State.SENDING:
                await step(
                    desk,
                    command,
                    State.UNCERTAIN,
                    why=Why.NO_ANSWER,
                    detail="the sender did not come back",
                    change=Change({"look_at": self._clock.now()}),
                )
                return None
            if command is not None and not desk.facts.installed:
                await self._without_meter(desk, command)
                return None
            return desk.facts if command is not None or ref.state is State.VERIFIED else None

    async def _without_meter(self, desk: Desk, command: Command) -> None:
        """The meter was taken away: no read will say any more what became of this. A close is a person's."""
        if command.state is State.FIELD:
            await desk.put_off(command, self._clock.now() + TAKEN_AWAY_LOOK, Why.NOT_INSTALLED)
        elif command.action in RESTORING:
            await self._gates.end(desk, command, Judgement(Do.END, State.FIELD, Why.NOT_INSTALLED))
        else:
            if command.state is State.ACKNOWLEDGED:
                command = await step(desk, command, State.UNCERTAIN, why=Why.NOT_INSTALLED)
            unread = Judgement(
                Do.END, State.SUPERSEDED, Why.NOT_INSTALLED, "whether it was executed was not read"
            )
            await self._gates.end(desk, command, unread)

    # sending

    async def _send(self, ref: Ref, facts: MeterFacts, door: Door) -> None:
        readings = await self._read_before(ref, door)
        if isinstance(readings, Trouble):
            await self._not_ready(ref, readings)
            return
        self._at("meter read")
        for _ in range(1 + CURES):
            sent = await self._send_once(ref, facts, door, readings)
            if not (isinstance(sent, Refused) and ref.action in RESTORING and sent.why in CURABLE):
                return
            offset = await door.clock_offset()
            readings = _Readings(offset if isinstance(offset, float) else None, readings.status)

    async def _read_before(self, ref: Ref, door: Door) -> _Readings | Trouble:
        """What has to be known of the meter. A trip needs all of it, a close is sent whatever is missing."""
        darkens = ref.action in GATED_AS_TRIP
        if darkens and door.contested:
            return Trouble(Why.CONTESTED)
        if darkens and (other := await door.identify()) is not None:
            return other
        clock = await door.clock_offset()
        offset = clock if isinstance(clock, float) else None
        if darkens and isinstance(clock, Trouble):
            return Trouble(Why.METER_CLOCK_UNKNOWN, clock.detail or clock.why.value)
        if darkens and offset is not None and abs(offset) > CLOCK_TOLERANCE_S:
            return Trouble(Why.METER_CLOCK, f"{offset:+.0f} s")
        status = await door.status()
        if isinstance(status, Trouble):
            if darkens:
                return status
            return _Readings(offset, None)
        if ref.action is Action.TRIP and status.keep_power:
            return Trouble(Why.KEEP_POWER_ON)
        return _Readings(offset, status)

    async def _not_ready(self, ref: Ref, trouble: Trouble) -> None:
        async with self._store.desk(ref.meter_id) as desk:
            command = found_on(desk, ref)
            if command is None:
                return
            now = self._clock.now()
            if trouble.why not in ENDS_A_TRIP:
                await desk.put_off(command, later(command.created_at, now), trouble.why, trouble.detail)
            elif command.action not in RESTORING:
                await step(desk, command, State.REFUSED, why=trouble.why, detail=trouble.detail)
            else:
                look = Change({"look_at": later(command.created_at, now)})
                field = await step(
                    desk, command, State.FIELD, why=trouble.why, detail=trouble.detail, change=look
                )
                await desk.open_field_order(field, trouble.why, trouble.detail)

    def _deadlines(self, command: Command, offset: float | None) -> tuple[datetime, datetime]:
        """Until when the frame is obeyed: by our clock, and as the meter must be told it."""
        now = self._clock.now()
        if command.action in GATED_AS_TRIP:
            ours = now + TRIP_VALID
            if command.expires_at is not None:
                ours = min(ours, command.expires_at)
        else:
            ours = now + CLOSE_VALID
        return ours, ours + timedelta(seconds=offset or 0.0)

    async def _send_once(self, ref: Ref, facts: MeterFacts, door: Door, readings: _Readings) -> Answer | None:
        """Claim, write, hear. None where nothing was sent; what was heard is on the desk already."""
        # As the gate saw it; whether it still stands so is seen in the claim.
        seen = next(one for one in facts.open if one.id == ref.id)
        if seen.shadow or (facts.shadow and seen.action not in (*RESTORING, Action.KEEP_POWER)):
            await self._shadow(ref, readings)
            return None
        ours, told = self._deadlines(seen, readings.offset)
        prepared = await door.prepare(ref.action, told)
        if isinstance(prepared, Trouble):
            await self._not_ready(ref, prepared)
            return None
        self._at("frame prepared")
        place: Place | None = None
        if ref.action in GATED_AS_TRIP:
            limits = policy.limits(facts, self._rules())
            place = await self._store.take_place(seen, facts.area_id, limits)
            self._at("place taken")
        command = await self._claim(ref, door, prepared, readings, ours, place)
        if command is None:
            return None
        self._at("sending committed")
        answer = await self._write(command, door, prepared)
        if answer is None:
            return None
        heard = await answer
        self._at("answer heard")
        if isinstance(heard, Accepted):
            # The relay is read before the yes is on the desk: who dies between reads it all the same.
            await self._prover.look(ref._replace(state=State.SENDING), door, heard)
        else:
            await self._heard(command, heard)
        self._at("answer committed")
        return heard

    async def _shadow(self, ref: Ref, readings: _Readings) -> None:
        """All gates are passed; this is where a frame would have left."""
        async with self._store.desk(ref.meter_id) as desk:
            command = found_on(desk, ref)
            if command is not None:
                await step(
                    desk,
                    command,
                    State.CANCELLED,
                    why=Why.SHADOW,
                    detail="would have been sent",
                    evidence=readings.told(),
                )

    async def _claim(
        self,
        ref: Ref,
        door: Door,
        prepared: Prepared,
        readings: _Readings,
        ours: datetime,
        place: Place | None,
    ) -> Command | None:
        """The command in SENDING with the frame's hash, committed; None where it may not be sent now.

        A close that is sent again for a cure is in SENDING already: the new hash is noted before the write.
        """
        change = {
            "frame_hash": prepared.sha256,
            "valid_until": ours,
            "sent_at": self._clock.now(),
            "look_at": self._clock.now() + LOST_AFTER,
        }
        evidence = {
            "frame": prepared.shown,
            "sha256": prepared.sha256.hex(),
            "deadline": prepared.deadline.isoformat(),
            "before": list(prepared.tried),
            **readings.told(),
        }
        try:
            async with self._store.desk(ref.meter_id) as desk:
                command = found_on(desk, ref, State.QUEUED, State.SENDING)
                if command is None or not await desk.owned(door.worker, door.generation):
                    return None
                change["attempts"] = command.attempts + 1
                if command.state is State.SENDING and command.action not in RESTORING:
                    return None  # somebody else has it: a ticket, or another gateway
                if command.state is State.SENDING:
                    return await desk.note(command, "sending again", evidence, Change(change))
                used = NO_PLACES if place is None else place.used
                if not await self._gates.passed(desk, command, self._gates.judge(command, desk.facts, used)):
                    return None
                if place is not None and not policy.stands(
                    place, desk.facts, self._rules(), self._clock.now()
                ):
                    return None  # it is still due, and comes again soon
                return await step(desk, command, State.SENDING, change=Change(change), evidence=evidence)
        except Unsure:
            await self._undo_unsure(ref, prepared)
            return None

    async def _undo_unsure(self, ref: Ref, prepared: Prepared) -> None:
        """The claim may stand in the database, but no byte has left: put the command back."""
        async with self._store.desk(ref.meter_id) as desk:
            command = found_on(desk, ref, State.SENDING)
            if command is not None and command.frame_hash == prepared.sha256:
                await step(desk, command, State.QUEUED, proof=Proof.NO_BYTE_LEFT)

    async def _write(self, command: Command, door: Door, prepared: Prepared) -> Awaitable[Answer] | None:
        """Write while the meter's desk is ours, so that no close can be accepted between look and write."""
        written: Awaitable[Answer] | NotWritten | None = None
        try:
            async with self._store.desk(command.meter_id) as desk:
                mine = found_on(desk, command, State.SENDING)
                if mine is None or mine.version != command.version:
                    return None
                facts, opened_at = desk.facts, self._clock.now()
                said: list[Judgement] = []

                def last_check() -> Trouble | None:
                    if mine.action in GATED_AS_TRIP and door.contested:
                        return Trouble(Why.CONTESTED)
                    judgement = self._gates.judge(mine, facts)
                    said.append(judgement)
                    if judgement.do is not Do.SEND:
                        return Trouble(judgement.why or Why.EXPIRED)
                    if mine.action in GATED_AS_TRIP and facts.shadow:
                        return Trouble(Why.SHADOW)
                    age = self._clock.now() - opened_at
                    if mine.action in GATED_AS_TRIP and not timedelta(0) <= age <= DESK_FRESH:
                        return Trouble(Why.OUR_CLOCK, f"{age} have passed since the last look at the desk")
                    return None

                written = await door.write(prepared, last_check)
                if isinstance(written, NotWritten):
                    await self._not_written(desk, mine, written, said)
                else:
                    self._handed_over(mine)
        except StorageError as error:
            if written is None and command.action not in GATED_AS_TRIP:
                # The database has gone after the claim was committed: a close needs no further leave.
                written = await door.write(prepared, lambda: None)
                if not isinstance(written, NotWritten):
                    self._handed_over(command)
            log.warning("the database went away beside a write", command=str(command.id), error=str(error))
        return None if written is None or isinstance(written, NotWritten) else written

    async def _not_written(
        self, desk: Desk, command: Command, outcome: NotWritten, said: list[Judgement]
    ) -> None:
        """No byte left: the command goes back, or ends where its gate has shut meanwhile."""
        trouble = outcome.trouble
        if said and said[-1].do is Do.END and said[-1].state is not State.SENDING:
            await self._gates.end(desk, command, said[-1], Proof.NO_BYTE_LEFT)
            return
        until = said[-1].until if said and said[-1].until is not None else self._clock.now()
        await step(
            desk,
            command,
            State.QUEUED,
            proof=Proof.NO_BYTE_LEFT,
            why=trouble.why,
            detail=trouble.detail,
            change=Change({"look_at": until, "attempts": command.attempts - 1}),
        )

    # hearing

    async def _heard(self, command: Command, answer: Refused | Silence) -> None:
        """Put what the meter said on the desk, where that is not yes."""
        now = self._clock.now()
        async with self._store.desk(command.meter_id) as desk:
            mine = found_on(desk, command, State.SENDING)
            if mine is None:
                return
            if isinstance(answer, Refused):
                await self._refused(desk, mine, answer)
            else:
                await step(
                    desk,
                    mine,
                    State.UNCERTAIN,
                    why=Why.NO_ANSWER,
                    detail=answer.detail,
                    change=Change({"look_at": now}),
                )

    async def _refused(self, desk: Desk, command: Command, answer: Refused) -> None:
        evidence = {"frame": answer.frame, "words": list(answer.words)}
        detail = ", ".join(answer.words)
        if command.action not in RESTORING:
            await step(desk, command, State.REFUSED, why=answer.why, detail=detail, evidence=evidence)
            return
        if answer.why in CURABLE and command.attempts <= CURES:
            await desk.note(command, "refused, to be cured", {"why": answer.why.value, **evidence})
            return
        now = self._clock.now()
        field = await step(
            desk,
            command,
            State.FIELD,
            why=answer.why,
            detail=detail,
            change=Change({"look_at": later(command.created_at, now)}),
            evidence=evidence,
        )
        if command.action is Action.CLOSE and answer.why is Why.NOT_SUPPORTED:
            await self._permit_instead(desk, field)
        else:
            await desk.open_field_order(field, answer.why, detail)

    async def _permit_instead(self, desk: Desk, command: Command) -> None:
        """A meter that knows no direct close: the customer is allowed to press the button instead."""
        new = following(command, Action.PERMIT_CLOSE, self._clock.now(), f"instead of {command.id}")
        instead = await desk.add(new, State.QUEUED)
        await step(
            desk, command, State.SUPERSEDED, why=Why.NOT_SUPPORTED, detail=f"{instead.action} {instead.id}"
        )
