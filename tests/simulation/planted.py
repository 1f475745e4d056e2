"""Bugs that the simulation must catch: for each rule one or more, put into the code from outside.

Here those about frames and proofs; `planted_keeping` has those about what is kept and decided.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any, Final

import pytest

from gateway.command import (
    RESTORING,
    Action,
    Change,
    Command,
    MeterFacts,
    Proof,
    RelayStatus,
    State,
    Why,
)
from gateway.control import course, policy, proof, states, stores
from gateway.control.course import Course
from gateway.control.gates import Gates
from gateway.control.policy import Judgement
from gateway.control.proof import Prover, found_on
from gateway.door import NotWritten, Trouble
from tests.gateway.control.memory import MemoryDesk
from tests.simulation import planted_keeping as keeping
from tests.simulation.doors import WorldDoor

Plant = Callable[[pytest.MonkeyPatch], None]

_gate = policy.beside_write


class Passing:
    """A door that passes everything on."""

    def __init__(self, door: Any) -> None:
        self._door = door

    def __getattr__(self, name: str) -> Any:
        return getattr(self._door, name)


def written_before_it_is_committed(patch: pytest.MonkeyPatch) -> None:
    """The frame leaves on a claim that nobody kept."""

    async def claim(self: Course, ref: Any, *rest: Any) -> Command | None:
        seen = await self._store.command(ref.id)
        return None if seen is None else replace(seen, state=State.SENDING)

    async def write(self: Course, command: Command, door: Any, prepared: Any) -> Any:
        written = await door.write(prepared, lambda: None)
        return None if isinstance(written, NotWritten) else written

    patch.setattr(Course, "_claim", claim)
    patch.setattr(Course, "_write", write)


def expiry_forgotten(patch: pytest.MonkeyPatch) -> None:
    """Nobody looks at the expiry beside the write."""

    def gate(command: Command, *rest: Any) -> Judgement:
        return _gate(replace(command, expires_at=None), *rest)

    patch.setattr(policy, "beside_write", gate)


def valid_too_long(patch: pytest.MonkeyPatch) -> None:
    """The meter may obey a trip for an hour."""
    patch.setattr(course, "TRIP_VALID", timedelta(hours=1))


def clock_not_read(patch: pytest.MonkeyPatch) -> None:
    """A trip goes to a meter whatever its clock shows."""
    patch.setattr(course, "CLOCK_TOLERANCE_S", 1e12)


def clock_imagined(patch: pytest.MonkeyPatch) -> None:
    """A clock that cannot be read is taken to be right."""
    read_before = Course._read_before

    class Optimist(Passing):
        """Its meter's clock is never wrong."""

        async def clock_offset(self) -> float:
            offset = await self._door.clock_offset()
            return 0.0 if isinstance(offset, Trouble) else float(offset)

    async def read(self: Course, ref: Any, door: Any) -> Any:
        return await read_before(self, ref, Optimist(door))

    patch.setattr(Course, "_read_before", read)


def number_not_asked(patch: pytest.MonkeyPatch) -> None:
    """Nobody asks the meter for its number."""
    read_before = Course._read_before

    class Trusting(Passing):
        """It is always the right one."""

        async def identify(self) -> None:
            return None

    async def read(self: Course, ref: Any, door: Any) -> Any:
        return await read_before(self, ref, Trusting(door))

    patch.setattr(Course, "_read_before", read)


def repeated_blindly(patch: pytest.MonkeyPatch) -> None:
    """Silence and a closed relay are taken for not executed at once."""

    def at_once(action: Action, command: Command, status: RelayStatus, now: Any) -> bool:
        return states.shown(action, status) is states.Shown.NOT_DONE

    patch.setattr(proof, "not_executed", at_once)


def block_forgotten(patch: pytest.MonkeyPatch) -> None:
    """Blocks are looked at only when a command is accepted."""

    def gate(command: Command, facts: MeterFacts, *rest: Any) -> Judgement:
        return _gate(command, replace(facts, blocks=(), protected=False), *rest)

    patch.setattr(policy, "beside_write", gate)


def brake_forgotten(patch: pytest.MonkeyPatch) -> None:
    """The brake is looked at only in the claim's first look."""

    def gate(command: Command, facts: MeterFacts, *rest: Any) -> Judgement:
        return _gate(command, replace(facts, brake=False), *rest)

    patch.setattr(policy, "beside_write", gate)


def payment_forgotten(patch: pytest.MonkeyPatch) -> None:
    """A trip is not given up for a close that came after it."""

    def gate(command: Command, facts: MeterFacts, *rest: Any) -> Judgement:
        mine = tuple(one for one in facts.open if one.id == command.id)
        return _gate(command, replace(facts, open=mine, restored_intent=0), *rest)

    patch.setattr(policy, "beside_write", gate)
    patch.setattr(Prover, "_overtaken", lambda self, desk, command: False)


def late_trip_forgotten(patch: pytest.MonkeyPatch) -> None:
    """A close is verified although a trip may still strike."""
    done = Prover._done

    class Calm:
        """A desk that knows of no trip."""

        def __init__(self, desk: Any) -> None:
            self._desk = desk

        @property
        def facts(self) -> MeterFacts:
            facts: MeterFacts = self._desk.facts
            return replace(facts, trip_until=None)

        def __getattr__(self, name: str) -> Any:
            return getattr(self._desk, name)

    async def careless(self: Prover, desk: Any, *rest: Any) -> None:
        await done(self, Calm(desk), *rest)

    patch.setattr(Prover, "_done", careless)


def closed_already(patch: pytest.MonkeyPatch) -> None:
    """A close is not sent where the relay reads closed, whatever is still under way to it."""
    send = Course._send

    async def lazy(self: Course, ref: Any, facts: MeterFacts, door: Any) -> None:
        if ref.action in RESTORING:
            status = await door.status()
            if isinstance(status, RelayStatus) and states.shown(ref.action, status) is states.Shown.DONE:
                async with self._store.desk(ref.meter_id) as desk:
                    mine = found_on(desk, ref)
                    if mine is not None:
                        await desk.move(mine, State.VERIFIED, proof=Proof.RELAY_READ)
                return
        await send(self, ref, facts, door)

    patch.setattr(Course, "_send", lazy)


def contest_overlooked(patch: pytest.MonkeyPatch) -> None:
    """Two devices use an address, and the trip goes to one of them."""
    patch.setattr(WorldDoor, "contested", False)


def yes_taken_for_done(patch: pytest.MonkeyPatch) -> None:
    """The meter's yes counts as proof."""
    look = Prover.look

    async def careless(self: Prover, ref: Any, door: Any, said: Any = None) -> None:
        if said is None:
            await look(self, ref, door)
            return
        async with self._store.desk(ref.meter_id) as desk:
            mine = found_on(desk, ref)
            if mine is not None:
                heard = await stores.step(desk, mine, State.ACKNOWLEDGED)
                change = Change({"look_at": None})
                await stores.step(desk, heard, State.VERIFIED, proof=Proof.RELAY_READ, change=change)

    patch.setattr(Prover, "look", careless)


def close_given_up(patch: pytest.MonkeyPatch) -> None:
    """A close that the meter refuses ends there."""

    async def refused(self: Course, desk: Any, command: Command, answer: Any) -> None:
        await desk.move(command, State.REFUSED, why=answer.why)

    patch.setattr(Course, "_refused", refused)


def told_twice(patch: pytest.MonkeyPatch) -> None:
    """An end is told of again when the answer to COMMIT was late."""
    keep = MemoryDesk.keep

    def twice(self: MemoryDesk) -> None:
        self._outbox += [one for one in self._outbox if one[0].endswith("verified")]
        keep(self)

    patch.setattr(MemoryDesk, "keep", twice)


def own_clock_trusted(patch: pytest.MonkeyPatch) -> None:
    """Nobody asks whether our own clock is right."""
    judge = Gates.judge

    def trusting(self: Gates, *rest: Any) -> Judgement:
        self._clock_trusted = lambda: True
        return judge(self, *rest)

    patch.setattr(Gates, "judge", trusting)


def hold_forgotten(patch: pytest.MonkeyPatch) -> None:
    """After a restore yesterday's trips go on."""

    def gate(command: Command, facts: MeterFacts, *rest: Any) -> Judgement:
        return _gate(command, replace(facts, hold_since=None), *rest)

    patch.setattr(policy, "beside_write", gate)


def close_not_tried_again(patch: pytest.MonkeyPatch) -> None:
    """A close that was not done waits for ever."""

    async def never(self: Prover, desk: Any, command: Command, *rest: Any) -> None:
        await desk.put_off(command, self._clock.now() + timedelta(days=9), Why.NOT_EXECUTED)

    patch.setattr(Prover, "_again", never)


def shadow_stops_closes(patch: pytest.MonkeyPatch) -> None:
    """A close that was accepted for good is dropped when shadow mode begins."""
    send_once = Course._send_once

    async def send(self: Course, ref: Any, facts: MeterFacts, door: Any, readings: Any) -> Any:
        if facts.shadow and ref.state is State.QUEUED:
            await self._shadow(ref, readings)
            return None
        return await send_once(self, ref, facts, door, readings)

    patch.setattr(Course, "_send_once", send)


PLANTED: Final[dict[str, tuple[str, Plant]]] = {
    "written before it is committed": ("rule 1:", written_before_it_is_committed),
    "journal not synced": ("rule 1:", keeping.journal_not_synced),
    "expiry forgotten": ("rule 2:", expiry_forgotten),
    "valid too long": ("rule 2:", valid_too_long),
    "clock not read": ("rule 2:", clock_not_read),
    "clock imagined": ("rule 2:", clock_imagined),
    "repeated blindly": ("rule 3:", repeated_blindly),
    "block forgotten": ("rule 4:", block_forgotten),
    "brake forgotten": ("rule 4:", brake_forgotten),
    "payment forgotten": ("rule 5:", payment_forgotten),
    "journal passed over": ("rule 5:", keeping.journal_passed_over),
    "late trip forgotten": ("rule 6:", late_trip_forgotten),
    "closed already": ("rule 6:", closed_already),
    "limits counted for nothing": ("rule 7:", keeping.limits_counted_for_nothing),
    "anybody is second": ("rule 7:", keeping.anybody_is_second),
    "limit setters forgotten": ("rule 7:", keeping.limit_setters_forgotten),
    "contest overlooked": ("rule 8:", contest_overlooked),
    "number not asked": ("rule 8:", number_not_asked),
    "key forgotten": ("rule 9:", keeping.key_forgotten),
    "body forgotten": ("rule 9:", keeping.body_forgotten),
    "yes taken for done": ("rule 10:", yes_taken_for_done),
    "close given up": ("rule 11:", close_given_up),
    "told twice": ("rule 11:", told_twice),
    "own clock trusted": ("rule 12:", own_clock_trusted),
    "pressed on without a database": ("rule 12:", keeping.pressed_on_without_a_database),
    "lost desk trusted": ("rule 12:", keeping.lost_desk_trusted),
    "hold forgotten": ("rule 13:", hold_forgotten),
    "restore not noticed": ("rule 12:", keeping.restore_not_noticed),
    "billing asked too late": ("rule 12:", keeping.billing_asked_too_late),
    "close not tried again": ("", close_not_tried_again),
    "shadow stops closes": ("", shadow_stops_closes),
}
"""Name -> how the message of the broken rule begins, and the bug."""
