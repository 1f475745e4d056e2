"""Bugs that the comparison of the ledgers must catch, put into a gateway's process by its launcher."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import timedelta
from types import SimpleNamespace
from typing import Any, Final, NamedTuple
from uuid import UUID

from gateway.api import relay_commands
from gateway.command import Action, Change, Command, MeterFacts, Proof, State
from gateway.control import course, policy, requests, stores
from gateway.control.ask import RESTORE
from gateway.control.course import Course
from gateway.control.policy import Judgement
from gateway.control.proof import Prover, found_on
from gateway.control.requests import Accepted, Requests

KEPT_LATE_S: Final = 30.0
"""Real seconds after which the close that was promised is kept."""

_gate = policy.beside_write


def claim_kept_after_the_write() -> None:
    """The frame leaves first, and only then its claim is committed."""
    claim = Course._claim
    wanted: dict[UUID, Any] = {}

    async def claim_later(self: Course, ref: Any, *rest: Any) -> Command | None:
        seen = await self._store.command(ref.id)
        if seen is None or seen.state is not State.QUEUED:
            return None
        wanted[ref.id] = ref, *rest
        return replace(seen, state=State.SENDING)

    async def write_first(self: Course, command: Command, door: Any, prepared: Any) -> Any:
        answer = await door.write(prepared, lambda: None)
        kept = await claim(self, *wanted.pop(command.id))
        return answer if kept is not None else None

    vars_of: Any = Course
    vars_of._claim, vars_of._write = claim_later, write_first


def sent_again_without_a_look() -> None:
    """What was being sent when we died is put back into the queue at once, as if it were known not to have
    arrived."""
    facts = Course._facts

    async def careless(self: Course, ref: Any) -> MeterFacts | None:
        if ref.state is not State.SENDING:
            return await facts(self, ref)
        async with self._store.desk(ref.meter_id) as desk:
            command = found_on(desk, ref)
            if command is not None:
                unsure = await stores.step(desk, command, State.UNCERTAIN)
                change = Change({"look_at": None})
                await stores.step(desk, unsure, State.QUEUED, proof=Proof.NOT_EXECUTED, change=change)
        return None

    vars_of: Any = Course
    vars_of._facts = careless
    course_module: Any = course
    course_module.LOST_AFTER = timedelta(seconds=30)


def close_promised_and_not_kept() -> None:
    """A close is answered 202 before it is committed."""
    accept, shown = Requests.accept, relay_commands._command
    promised: dict[UUID, tuple[Command, MeterFacts]] = {}
    later: set[asyncio.Task[None]] = set()

    async def promise(self: Requests, ask: Any, by: str, key: str, **given: Any) -> Accepted:
        if ask.verb not in (Action.CLOSE, RESTORE) or await self._store.known(by, key):
            return await accept(self, ask, by, key, **given)
        async with AsyncExitStack() as stack:
            desk = await stack.enter_async_context(self._store.desk(ask.meter_id))
            action, said = self.judge(ask, desk.facts)
            new = self._new(ask, action, desk.facts, by, key, b"", "", None)
            command = await self._add(desk, new, said, "")
            promised[command.id] = command, desk.facts
            held = stack.pop_all()

        async def keep() -> None:
            await asyncio.sleep(KEPT_LATE_S)
            await held.aclose()
            del promised[command.id]

        later.add(asyncio.create_task(keep()))
        return Accepted(command, new=True)

    async def show(parts: Any, caller: Any, command_id: UUID) -> Any:
        if command_id not in promised:
            return await shown(parts, caller, command_id)
        command, facts = promised[command_id]
        kept: Any = SimpleNamespace(
            command=command, meter=facts.meter, address=facts.address, terminal=facts.terminal
        )
        return relay_commands._kept(kept)

    vars_of: Any = Requests
    vars_of.accept = promise
    routes: Any = relay_commands
    routes._command = show


def payment_forgotten() -> None:
    """A trip is sent although power was given back after it was asked for."""

    def gate(command: Command, facts: MeterFacts, *rest: Any) -> Judgement:
        mine = tuple(one for one in facts.open if one.id == command.id)
        return _gate(command, replace(facts, open=mine, restored_intent=0), *rest)

    async def supersede_nothing(desk: Any, new: Any) -> None:
        return None

    gates: Any = policy
    gates.beside_write = gate
    asked: Any = requests
    asked.supersede_for = supersede_nothing


def expiry_forgotten() -> None:
    """Nobody looks at the expiry of a trip once it was accepted."""

    def gate(command: Command, *rest: Any) -> Judgement:
        return _gate(replace(command, expires_at=None), *rest)

    async def never(self: Requests) -> int:
        return 0

    gates: Any = policy
    gates.beside_write = gate
    asked: Any = Requests
    asked.expire_overdue = never


def yes_taken_for_done() -> None:
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

    vars_of: Any = Prover
    vars_of.look = careless


class Planted(NamedTuple):
    """caught_by: how the breach begins that must be found."""

    caught_by: str
    plant: Callable[[], None]


PLANTED: Final[dict[str, Planted]] = {
    "claim kept after the write": Planted("rule 1:", claim_kept_after_the_write),
    "expiry forgotten": Planted("rule 2:", expiry_forgotten),
    "sent again without a look": Planted("rule 3:", sent_again_without_a_look),
    "payment forgotten": Planted("rule 5:", payment_forgotten),
    "yes taken for done": Planted("rule 10:", yes_taken_for_done),
    "close promised and not kept": Planted("accepted:", close_promised_and_not_kept),
}
