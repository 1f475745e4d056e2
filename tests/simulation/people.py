"""What people do: second persons, those who cancel, protect customers or switch for all, the field crew."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, TypeVar
from uuid import UUID

from gateway.command import RESTORING, BlockKind, Command, Limits, State
from gateway.control.ask import NotYou, same_person
from gateway.control.switches import ALL, of_area, of_organisation
from gateway.errors import LingdianError
from gateway.storage.blocks import NewBlock
from gateway.storage.switches import Setting, Switch
from tests.simulation.process import Gone

if TYPE_CHECKING:
    from tests.simulation.asking import Asking
    from tests.simulation.worker import Parts
    from tests.simulation.world import World

T = TypeVar("T")

PERSONS: Final = ("ann", "bob", "person:carl", "person:ann")
MOST_LIMITS: Final = (
    Limits(area=3, requester=4, all=4, window=timedelta(hours=1)),
    Limits(area=1, requester=2, all=2, window=timedelta(hours=1)),
    Limits(area=2, requester=6, all=6, window=timedelta(minutes=30)),
)


class People:
    """Their deeds, and what of them counts for the rules."""

    def __init__(self, world: World, asking: Asking) -> None:
        self._world = world
        self._asking = asking
        self.released: list[datetime] = []
        """when a person wanted to let go what was held after a restore"""
        self.cancelled: dict[int, datetime] = {}
        """meter -> when a person last took back what would have given it power"""

    async def _try(self, work: Callable[[Parts], Coroutine[Any, Any, T]]) -> T | None:
        """What it comes to at one of the gateways; None where nothing came of it."""
        worker = self._world.chance.choice(list(self._world.workers.values()))
        try:
            return await worker.ask(work)
        except (Gone, LingdianError) as error:
            if isinstance(error, NotYou):
                self._world.count("turned away as second person")
            return None

    def _who(self) -> str:
        return self._world.chance.choice(PERSONS)

    def _setters(self) -> set[str]:
        """Who has a name under the limits that hold or are proposed."""
        found: set[str] = set()
        for row in reversed(self._world.company.switches.backup()):
            if row.name is Switch.LIMITS:
                found.add(row.set_by)
                if row.approved_by is not None:
                    break
        return found

    def _check_second(self, by: str, requester: str, setters: set[str]) -> None:
        if same_person(by, requester) or any(same_person(by, one) for one in setters):
            self._world.broken.append(
                f"rule 7: {by} approved what {requester} asked for; limits by {setters}"
            )

    # commands and batches

    async def approve(self) -> None:
        """A second person looks at a batch that is held, or somebody who only thinks he is one."""
        held = [one for one in self._asking.batches if one.answer is not None and one.answer.held]
        if not held:
            return
        batch = self._world.chance.choice(held)
        assert batch.answer is not None
        assert batch.answer.batch is not None
        number = batch.answer.batch
        by, setters = self._world.chance.choice((*PERSONS, batch.by)), self._setters()
        done = await self._try(lambda parts: parts.batches.approve(number, by))
        if done and any(one.approver == by for one in done):
            self._world.count("batch approved")
            self._check_second(by, batch.by, setters & self._setters())

    async def approve_alone(self) -> None:
        """Somebody tries to approve one command of a batch."""
        held = [one for one in self._commands() if one.state is State.HELD]
        if held:
            command, by = self._world.chance.choice(held), self._who()
            if await self._try(lambda parts: parts.requests.approve(command.id, by)) is not None:
                self._world.broken.append(f"rule 7: {command.id} of a batch was approved alone")

    async def cancel(self) -> None:
        """Take back a command that has not left."""
        found = [one for one in self._commands() if one.state in (State.QUEUED, State.HELD, State.FIELD)]
        if found:
            await self._cancel(self._world.chance.choice(found))

    async def _cancel(self, command: Command) -> None:
        if command.action in RESTORING:  # it may have been done although no answer came
            self.cancelled[command.meter_id] = self._world.clock.now()
        if await self._try(lambda parts: parts.requests.cancel(command.id, "ann", "a mistake")) is not None:
            self._world.count("cancelled")
            if command.action in RESTORING:
                self.cancelled[command.meter_id] = self._world.clock.now()

    async def cancel_batch(self) -> None:
        """Take back all of a batch that has not left."""
        found = [
            one for one in self._asking.batches if one.answer is not None and one.answer.batch is not None
        ]
        if not found:
            return
        batch = self._world.chance.choice(found)
        assert batch.answer is not None
        number: UUID | None = batch.answer.batch
        assert number is not None
        for ask in batch.asks:
            if ask.verb in RESTORING and ask.meter_id is not None:
                self.cancelled[ask.meter_id] = self._world.clock.now()
        if await self._try(lambda parts: parts.batches.cancel(number, "bob", "a mistake")) is not None:
            self._world.count("batch cancelled")

    def _commands(self) -> list[Command]:
        return [row.command for row in self._world.company.store.kept.rows.values()]

    async def report(self) -> None:
        """The crew at a meter with a field order: it closes the relay by hand, or looks and leaves."""
        orders = self._world.company.store.kept.field_orders
        wanted = [one for one in self._commands() if one.meter_id in orders and one.action in RESTORING]
        wanted = [one for one in wanted if one.state in (State.FIELD, State.QUEUED, State.UNCERTAIN)]
        wanted = wanted or [one for one in self._commands() if one.state is State.FIELD]
        if not wanted:
            return
        with_crew = [one for one in wanted if one.state is State.FIELD]
        command = self._world.chance.choice(with_crew or wanted)
        lit = self._world.chance.random() < 0.5
        if lit:
            self._world.meters[command.meter_id].close_by_hand()
        at = self._world.clock.now()
        done = await self._try(
            lambda parts: parts.requests.report_field(
                command.id, "crew", energised=lit, at=at, report="at the meter"
            )
        )
        if done is not None:
            self._world.count("field report" if done.state is State.VERIFIED else "field report noted")

    # protections

    async def block(self) -> None:
        """Protect a customer."""
        soon = self._world.with_open_trips() or list(self._world.meters)
        meter_id = self._world.chance.choice((self._world.chance.choice(soon), *self._world.meters))
        kind = self._world.chance.choice((BlockKind.KEEP_POWER, BlockKind.MEDICAL, BlockKind.COMPLAINT))
        await self.protect(meter_id, kind)

    async def keep_power_on_tripped(self) -> None:
        """Protect a customer who is in the dark."""
        dark = [one.meter_id for one in self._world.meters.values() if one.opened or one.trip_ordered]
        if dark:
            await self.protect(self._world.chance.choice(dark), BlockKind.KEEP_POWER)

    async def protect(self, meter_id: int, kind: BlockKind) -> None:
        """A block of this kind."""
        now = self._world.clock.now()
        lasts = self._world.chance.choice((timedelta(minutes=10), timedelta(minutes=40), None))
        until = None if lasts is None else now + lasts
        new = NewBlock(kind, now, "test", customer_id=meter_id, until=until)
        if await self._try(lambda parts: parts.protections.add(new, "ann")) is not None:
            self._world.count(f"block, {kind}")

    async def lift(self) -> None:
        """A protection ends."""
        standing = [one for one in self._world.company.blocks.backup().values() if one.lifted_at is None]
        if standing:
            block = self._world.chance.choice(standing)
            lifted = await self._try(
                lambda parts: parts.protections.lift(block.id, "bob", "over", notice="N-2")
            )
            if lifted is not None:
                self._world.count("block lifted")

    # switches

    async def brake(self) -> None:
        await self._switch("brake", lambda parts, on: parts.switches.brake(on, "ann", "fire"))

    async def halt(self) -> None:
        area = self._world.chance.choice((1, 2))
        scope = self._world.chance.choice((ALL, of_area(area), of_organisation(area)))
        await self._switch(
            "weather halt", lambda parts, on: parts.switches.halt_for_weather(on, scope, "bob", "storm")
        )

    async def _switch(self, name: str, work: Callable[[Parts, bool], Coroutine[Any, Any, Setting]]) -> None:
        on = self._world.chance.random() < 0.3
        if await self._try(lambda parts: work(parts, on)) is not None and on:
            self._world.count(name)

    async def shadow(self) -> None:
        """Begin shadow mode, or propose its end."""
        organisation = self._world.chance.choice((1, 2))
        on = self._world.chance.random() < 0.3
        done = await self._try(lambda parts: parts.switches.shadow(on, organisation, self._who(), "test"))
        if done is not None and on:
            self._world.count("shadow mode")

    async def begin_shadow(self, organisation: int | None) -> None:
        """Shadow mode."""
        if await self._try(lambda parts: parts.switches.shadow(True, organisation, "ann", "test")):
            self._world.count("shadow mode")

    async def propose(self) -> None:
        """Other limits."""
        limits = self._world.chance.choice(MOST_LIMITS)
        by = self._who()
        if await self._try(lambda parts: parts.switches.propose_limits(limits, by, "season")) is not None:
            self._world.count("limits proposed")

    async def approve_setting(self) -> None:
        """Be the second person for limits or the end of shadow mode, or try to be."""
        rows = self._world.company.switches.backup()
        waiting = [one for one in rows if one.wants_second and one.approved_by is None]
        if not waiting:
            return
        setting, by = self._world.chance.choice(waiting[-4:]), self._who()
        done = await self._try(lambda parts: parts.switches.approve(setting.id, by))
        if done is not None:
            self._world.count(f"{setting.name} approved")
            if same_person(setting.set_by, by):
                self._world.broken.append(f"rule 7: {by} approved what {setting.set_by} had set")

    async def release(self) -> None:
        """Let go what was held after a restore."""
        self.released.append(self._world.clock.now())  # it may be done although no answer comes
        if await self._try(lambda parts: parts.switches.release_hold("bob", "looked at")) is not None:
            self._world.count("hold released")

    async def out_of_shadow(self) -> None:
        """At the beginning, every organisation by two persons."""
        for organisation in (1, 2):
            setting: Setting | None = None
            while setting is None:
                setting = await self._try(
                    lambda parts, which=organisation: parts.switches.shadow(False, which, "ann", "begin")  # type: ignore[misc]  # bound now
                )
            number = setting.id
            while await self._try(lambda parts, which=number: parts.switches.approve(which, "bob")) is None:  # type: ignore[misc]  # bound now
                pass
