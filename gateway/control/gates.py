"""The gates that a queued command passes: the company's rules, and billing's word just before a trip.

`policy` judges; here that is carried out at the meter's desk. They are passed three times: before the meter
is asked for anything, in the claim, and beside the write.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Final, Protocol

from gateway.clock import Clock
from gateway.command import GATED_AS_TRIP, NOTHING, Change, Command, MeterFacts, Proof, Ref, State, Used, Why
from gateway.control import policy
from gateway.control.policy import Do, Judgement, Rules
from gateway.control.proof import found_in, found_on
from gateway.control.stores import CommandStore, Desk, step

TAKEN_AWAY_LOOK: Final = timedelta(days=1)
"""Between two looks at a close whose meter was taken away: the assets may have been wrong."""


class AskBilling(Protocol):
    """The call-out just before a trip: does the customer still owe? None: no answer that counts."""

    async def __call__(self, command: Command, facts: MeterFacts, /) -> bool | None: ...


async def billing_not_asked(command: Command, facts: MeterFacts, /) -> bool | None:
    """Where no call-out is configured."""
    return True


class Gates:
    """Between a command that wants to be sent and its sending."""

    def __init__(
        self,
        store: CommandStore,
        clock: Clock,
        rules: Callable[[], Rules],
        ask_billing: AskBilling,
        clock_trusted: Callable[[], bool],
    ) -> None:
        """rules: as they are now. clock_trusted: does our own clock agree with the time service?"""
        self._store = store
        self._clock = clock
        self._rules = rules
        self._ask_billing = ask_billing
        self._clock_trusted = clock_trusted

    async def open_to(self, ref: Ref) -> MeterFacts | None:
        """The facts of a queued command that may go on; None where it waits or has ended.

        The gates are passed again in the claim: here they save a meter from being asked in vain."""
        facts = await self._store.look(ref.meter_id)
        command = found_in(facts, ref)
        if command is None:
            return None
        used: Used | None = None
        if command.why is Why.OVER_LIMIT:  # thousands may wait for room; their meters are not asked each time
            limits = policy.limits(facts, self._rules())
            used = await self._store.used(facts.area_id, command.requester, limits)
        if self.judge(command, facts, used).do is not Do.SEND:
            async with self._store.desk(ref.meter_id) as desk:
                command = found_on(desk, ref)
                if command is None:
                    return None
                facts = desk.facts
                if not await self.passed(desk, command, self.judge(command, facts, used)):
                    return None
        if command.action in GATED_AS_TRIP:
            owes = await self._ask_billing(command, facts)
            if owes is not True:
                async with self._store.desk(ref.meter_id) as desk:
                    command = found_on(desk, ref)
                    if command is not None:
                        await self._billing_says(desk, command, owes)
                return None
        return facts

    def judge(self, command: Command, facts: MeterFacts, used: Used | None = None) -> Judgement:
        """The rules' word now. used: the places of others, where limits count: not beside the write, whose
        claim has counted them."""
        now = self._clock.now()
        rules = self._rules()
        said = (
            policy.beside_write(command, facts, rules, now)
            if used is None
            else policy.at_claim(command, facts, rules, now, used)
        )
        if said.do is Do.SEND and command.action in GATED_AS_TRIP and not self._clock_trusted():
            return Judgement(Do.WAIT, State.QUEUED, Why.OUR_CLOCK, "", now + policy.LOOK_AGAIN)
        return said

    async def passed(self, desk: Desk, command: Command, said: Judgement) -> bool:
        """Carry out a judgement on a queued command; True where it may go on."""
        if said.do is Do.WAIT:
            assert said.until is not None
            assert said.why is not None
            until = said.until if command.expires_at is None else min(said.until, command.expires_at)
            await desk.put_off(command, until, said.why, said.detail)
        elif said.do is Do.END:
            await self.end(desk, command, said)
        return said.do is Do.SEND

    async def end(self, desk: Desk, command: Command, said: Judgement, proof: Proof | None = None) -> None:
        """Carry out a judgement that something is not sent any more. A close goes to the field."""
        assert said.why is not None
        look = (
            Change({"look_at": self._clock.now() + TAKEN_AWAY_LOOK}) if said.state is State.FIELD else NOTHING
        )
        after = await step(
            desk, command, said.state, proof=proof, why=said.why, detail=said.detail, change=look
        )
        if said.state is State.FIELD:
            await desk.open_field_order(after, said.why, said.detail)

    async def _billing_says(self, desk: Desk, command: Command, owes: bool | None) -> None:
        if owes is None:
            await desk.put_off(command, self._clock.now() + policy.LOOK_AGAIN, Why.BILLING_SILENT)
        else:
            await step(desk, command, State.REFUSED, why=Why.BILLING_SAYS_NO)
