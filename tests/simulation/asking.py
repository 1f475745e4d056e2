"""Who asks for trips and closes, and does not let go: an answer that did not come is asked for again under
the same key, and after a restore whoever is asked for closes sends them once more.

The ledger is what was promised: the rules are checked against it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple
from uuid import UUID

from gateway.command import RESTORING, Action
from gateway.control.ask import RESTORE, Ask, KeyReused
from gateway.control.batches import BatchAnswer
from gateway.errors import InputError, LingdianError, StorageError
from tests.simulation.process import Gone, outside

if TYPE_CHECKING:
    from tests.simulation.world import World

Verb = Action | Literal["restore"]

GIVES_POWER: Final = frozenset({*RESTORING, RESTORE})
REQUESTERS: Final = ("billing", "billing", "ann")
LASTS: Final = (timedelta(minutes=2), timedelta(minutes=20), timedelta(hours=2), None)
LONGEST_PAUSE_S: Final = 120.0
"""Between two tries."""
WEBHOOK_S: Final = 30.0
"""So often outgoing events reach billing."""


class Given(NamedTuple):
    """One answer: when and from which gateway, whether its journal alone had it, and restores of the database
    before."""

    at: datetime
    worker: str
    command: UUID
    in_journal: bool
    era: int


@dataclass
class Asked:
    """One request. at: when it was made. shadow: nothing is really sent for it."""

    at: datetime
    ask: Ask
    by: str
    key: str
    shadow: bool = False
    answers: list[Given] = field(default_factory=list)

    @property
    def meter_id(self) -> int:
        assert self.ask.meter_id is not None
        return self.ask.meter_id

    @property
    def gives_power(self) -> bool:
        return self.ask.verb in GIVES_POWER

    @property
    def accepted_at(self) -> datetime | None:
        """When its first good answer came."""
        return self.answers[0].at if self.answers else None


@dataclass
class AskedBatch:
    """Many requests under one key. answer: the last one."""

    asks: Sequence[Ask]
    by: str
    key: str
    accepted_at: datetime | None = None
    answer: BatchAnswer | None = None


class Asking:
    """Billing and its ledger."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.ledger: list[Asked] = []
        self.batches: list[AskedBatch] = []
        self.failures: list[BaseException] = []
        """what was wrong with this harness itself"""
        self._going: set[asyncio.Task[Any]] = set()
        self._heard: set[datetime] = set()
        self._made = 0

    def later(self, work: Coroutine[Any, Any, Any]) -> None:
        """Go on with this beside everything else."""
        task = outside(work)
        self._going.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._going.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.failures.append(error)

    def _key(self) -> str:
        self._made += 1
        return f"k{self._made}"

    def make(
        self,
        meter_id: int,
        verb: Verb,
        *,
        not_before: datetime | None = None,
        lasts: timedelta | None = None,
    ) -> Ask:
        """A request in proper form. lasts: until it expires; None: some time, or as the gateway has it."""
        world = self._world
        expires = None
        if verb in (Action.TRIP, Action.RELEASE_KEEP_POWER) and not_before is None:
            lasts = lasts or world.chance.choice(LASTS)
            expires = None if lasts is None else world.clock.now() + lasts
        return Ask(
            meter_id,
            f"M{meter_id}",
            verb,
            cause="arrears",
            notice="N-1",
            not_before=not_before,
            expires_at=expires,
        )

    async def ask(
        self,
        meter_id: int,
        verb: Verb,
        *,
        not_before: datetime | None = None,
        lasts: timedelta | None = None,
    ) -> None:
        """One request, followed until it is accepted; some are sent twice at once, some under a key that is
        used."""
        world = self._world
        asked = Asked(
            world.clock.now(),
            self.make(meter_id, verb, not_before=not_before, lasts=lasts),
            world.chance.choice(REQUESTERS),
            self._key(),
        )
        self.ledger.append(asked)
        if asked.gives_power:
            world.paid.add(meter_id)
        elif verb is Action.TRIP:
            world.paid.discard(meter_id)
        self.later(self.insist(asked))
        if world.chance.random() < 0.15:
            world.count("sent twice at once")
            self.later(self.insist(asked))
        if world.chance.random() < 0.1:
            self.later(self._reuse(asked))

    async def insist(self, asked: Asked) -> None:
        """Until there is an answer; a trip that nobody answers is given up some time."""
        world = self._world
        pause = 0.5
        while True:
            worker = world.chance.choice(list(world.workers.values()))
            try:
                command_id, command, in_journal = await worker.accept(asked.ask, asked.by, asked.key)
            except (Gone, StorageError):
                world.count("asked again under its key")
            except (InputError, KeyReused) as error:
                if asked.gives_power:
                    world.broken.append(f"rule 9: {asked.ask.verb} under {asked.key}: {error}")
                return
            else:
                asked.shadow = (
                    asked.shadow
                    or command.shadow
                    or not world.live(world.company.store.meters[asked.meter_id].terminal_id)
                )
                now, era = world.clock.now(), world.company.restores
                self._note(asked, Given(now, worker.name, command_id, in_journal, era))
                return
            if not asked.gives_power and world.chance.random() < 0.3:
                return
            await asyncio.sleep(pause := min(LONGEST_PAUSE_S, 4 * pause))

    def _note(self, asked: Asked, given: Given) -> None:
        world = self._world
        if given.in_journal:
            world.count("close kept by the journal")
        for before in asked.answers:
            same = before.era == given.era and not (before.in_journal or given.in_journal)
            if same and before.command != given.command:
                world.broken.append(f"rule 9: {asked.key} made {before.command} and {given.command}")
        asked.answers.append(given)

    async def _reuse(self, asked: Asked) -> None:
        """Another request under a key that was used."""
        world = self._world
        await asyncio.sleep(world.chance.choice((60.0, 600.0)))
        if not asked.answers or asked.answers[-1].in_journal:
            return
        other = replace(asked.ask, cause="another")
        worker = world.chance.choice(list(world.workers.values()))
        try:
            await worker.ask(lambda parts: parts.requests.accept(other, asked.by, asked.key))
        except KeyReused:
            world.count("key used for another request")
        except (Gone, LingdianError):
            return
        else:
            if asked.answers[-1].era == world.company.restores:
                world.broken.append(f"rule 9: {asked.key} was taken for another request")

    # batches

    async def ask_batch(self) -> None:
        """Several meters at once."""
        world = self._world
        meters = world.chance.sample(list(world.meters), world.chance.randint(2, len(world.meters)))
        asks = [
            self.make(meter_id, world.chance.choice((Action.TRIP,) * 5 + (Action.CLOSE,)))
            for meter_id in meters
        ]
        batch = AskedBatch(asks, world.chance.choice(REQUESTERS), self._key())
        self.batches.append(batch)
        self.later(self.insist_batch(batch))

    async def insist_batch(self, batch: AskedBatch) -> None:
        """Until it is whole."""
        world = self._world
        pause = 0.5
        while True:
            worker = world.chance.choice(list(world.workers.values()))
            try:
                answer = await worker.ask(lambda parts: parts.batches.accept(batch.asks, batch.by, batch.key))
            except (Gone, StorageError):
                world.count("batch asked again under its key")
                await asyncio.sleep(pause := min(LONGEST_PAUSE_S, 4 * pause))
                continue
            world.count("batch held" if answer.held else "batch accepted")
            batch.answer = answer
            batch.accepted_at = batch.accepted_at or world.clock.now()
            return

    # after a restore

    async def listen(self) -> None:
        """Hear what the gateway asks billing for, and send closes again under their keys."""
        world = self._world
        while True:
            await asyncio.sleep(WEBHOOK_S)
            if world.company.away or world.down:
                continue
            for at, since in list(world.company.switches.closes_wanted.items()):
                if at not in self._heard:
                    self._heard.add(at)
                    self._send_again(since)

    def _send_again(self, since: datetime | None) -> None:
        for asked in self.ledger:
            at = asked.accepted_at
            if asked.gives_power and at is not None and (since is None or at > since):
                self._world.count("close sent again after a restore")
                self.later(self.insist(asked))
        for batch in self.batches:
            at = batch.accepted_at
            closes = any(ask.verb in GIVES_POWER for ask in batch.asks)
            if closes and at is not None and (since is None or at > since):
                self.later(self.insist_batch(batch))
