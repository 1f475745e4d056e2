"""Many requests at once: what would happen, one result a meter, and one decision for all where it is too
many.

A batch that would go over a limit is held whole: none of its trips is sent before a second person has seen
its dry run and approved all of it. Closes in it are sent at once: they are never limited.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final
from uuid import UUID, uuid4

from gateway.clock import Clock
from gateway.command import ENDS, GATED_AS_TRIP, Action, Command, NotInstalled, State, Used, Why, canonical
from gateway.control import policy
from gateway.control.ask import GIVES_POWER, Ask, KeyReused, NoSuch, NotNow, Unfit, check_key, check_second
from gateway.control.policy import Do, Rules
from gateway.control.requests import Requests
from gateway.control.right_of_way import RightOfWay
from gateway.control.stores import BatchStore, CommandStore
from gateway.storage.batches import Batch

LONGEST: Final = 5000
"""Meters in a batch: its dry run is read by a person."""


@dataclass(frozen=True, slots=True)
class Line:
    """One meter of a batch: what becomes of it, or would. state: None where no command is made of it."""

    meter: str
    verb: str
    action: Action | None
    state: State | None
    why: Why | None = None
    detail: str = ""
    customer: str = ""
    area_id: int | None = None
    dark: bool = False
    """this customer goes dark when the batch is carried out"""
    shadow: bool = False
    """nothing is really sent"""
    command: UUID | None = None


@dataclass(frozen=True, slots=True)
class BatchAnswer:
    """over: the limits that it goes over; not empty: it is held. dry_run: as it was judged before the first
    command was made. lines: what became of each, empty for a dry run that stays one."""

    batch: UUID | None
    over: tuple[str, ...]
    dry_run: tuple[Line, ...]
    lines: tuple[Line, ...] = ()

    @property
    def held(self) -> bool:
        return bool(self.over)

    @property
    def dark(self) -> tuple[Line, ...]:
        """Every customer who would go dark."""
        return tuple(line for line in self.dry_run if line.dark)

    @property
    def refused(self) -> tuple[Line, ...]:
        """Every line that nothing comes of, with its reason."""
        return tuple(line for line in self.dry_run if line.state is None or line.state in ENDS)


class _Looked(Exception):
    """Leaves a desk without keeping anything."""


class Batches:
    """Satisfies what the interface asks about batches, over `Requests`."""

    def __init__(
        self,
        store: CommandStore,
        batches: BatchStore,
        requests: Requests,
        rules: Callable[[], Rules],
        clock: Clock,
        way: RightOfWay | None = None,
    ) -> None:
        """way: what of it takes power away gives way to closes."""
        self._store = store
        self._way = way or RightOfWay()
        self._batches = batches
        self._requests = requests
        self._rules = rules
        self._clock = clock

    async def dry_run(self, asks: Sequence[Ask], by: str) -> BatchAnswer:
        """What would become of these, by what is known now; nothing is written. Unfit: not a batch at all."""
        self._check(asks)
        lines: list[Line] = []
        trips: Counter[int | None] = Counter()
        used: dict[int | None, tuple[Used, policy.Limits]] = {}
        for ask, twice in zip(asks, _twice(asks), strict=True):
            await self._give_way(ask)
            line = await self._look(ask, by, used) if not twice else _named_twice(ask)
            lines.append(line)
            if line.action in GATED_AS_TRIP and line.state is State.QUEUED:
                trips[line.area_id] += 1
        return BatchAnswer(None, _over(trips, used), tuple(lines))

    async def accept(self, asks: Sequence[Ask], by: str, key: str, *, trace: str = "") -> BatchAnswer:
        """One command for each, or its refusal. The same call again goes on where the first one stopped.

        Unfit, KeyReused; StorageError: some may have been made, call again with the same key.
        """
        check_key(key)
        self._check(asks)
        body_hash = hashlib.sha256(canonical({"batch": [ask.body() for ask in asks]})).digest()
        batch = await self._batches.known(by, key)
        if batch is None:
            answer = await self.dry_run(asks, by)
            batch = await self._batches.begin(
                Batch(
                    id=uuid4(),
                    requester=by,
                    idempotency_key=key,
                    body_hash=body_hash,
                    created_at=self._clock.now(),
                    commands=len(asks),
                    answer=_told(answer, finished=False),
                )
            )
        if batch.body_hash != body_hash:
            raise KeyReused(
                f"this idempotency key made batch {batch.id} from another request 幂等键已用于其他请求"
            )
        begun = _heard(batch)
        if batch.answer["finished"]:
            return begun
        lines = [
            _named_twice(ask) if twice else await self._make(ask, dry, by, begun, number, trace)
            for number, (ask, dry, twice) in enumerate(zip(asks, begun.dry_run, _twice(asks), strict=True))
        ]
        whole = BatchAnswer(batch.id, begun.over, begun.dry_run, tuple(lines))
        await self._batches.finish(batch.id, _told(whole, finished=True))
        return whole

    async def answer(self, batch_id: UUID) -> BatchAnswer:
        """As it was given. NoSuch."""
        return _heard(await self._batch(batch_id))

    async def approve(self, batch_id: UUID, by: str) -> list[Command]:
        """The second person lets all of a held batch go; returns its commands as they stand then.

        Where it stops half-way the same call goes on. NotNow: not held, or not all of it made yet; NotYou,
        NoSuch.
        """
        batch = await self._batch(batch_id)
        begun = _heard(batch)
        if not batch.answer["finished"]:
            raise NotNow("the batch is not complete: its requester has to send it again 批次不完整")
        if not begun.held:
            raise NotNow("the batch is not held 批次未处于待审批")
        check_second(by, batch.requester, await self._requests.limit_setters())
        done: list[Command] = []
        for ref in await self._batches.commands(batch_id):
            if ref.state is State.HELD:
                await self._way.give()
                done.append(await self._requests.approve_held(ref.id, by, batch=batch_id))
            elif (command := await self._store.command(ref.id)) is not None:
                done.append(command)
        return done

    async def cancel(self, batch_id: UUID, by: str, reason: str = "") -> list[Command]:
        """Take back what has not left yet; returns the batch's commands as they stand then. NoSuch."""
        await self._batch(batch_id)
        done: list[Command] = []
        for ref in await self._batches.commands(batch_id):
            try:
                done.append(await self._requests.cancel(ref.id, by, reason))
            except NotNow:
                command = await self._store.command(ref.id)
                if command is not None:
                    done.append(command)
        return done

    async def _batch(self, batch_id: UUID) -> Batch:
        batch = await self._batches.batch(batch_id)
        if batch is None:
            raise NoSuch(f"there is no batch {batch_id} 无此批次")
        return batch

    def _check(self, asks: Sequence[Ask]) -> None:
        if not 1 <= len(asks) <= LONGEST:
            raise Unfit(None, f"a batch has 1 to {LONGEST} meters, not {len(asks)} 批量数目无效")
        for ask in asks:
            self._requests.check_texts(ask)

    async def _give_way(self, ask: Ask) -> None:
        """A batch that is all closes is itself what others give way to."""
        if ask.verb not in GIVES_POWER:
            await self._way.give()

    async def _look(self, ask: Ask, by: str, used: dict[int | None, tuple[Used, policy.Limits]]) -> Line:
        if ask.meter_id is None:
            return _unfit(ask, Unfit(Why.UNKNOWN_METER, ask.meter))
        line = None
        try:
            async with self._store.desk(ask.meter_id) as desk:
                facts = desk.facts
                self._requests.check_times(ask)
                action, said = self._requests.judge(ask, facts)
                line = Line(
                    meter=facts.meter,
                    verb=str(ask.verb),
                    action=action,
                    state=said.state,
                    why=said.why,
                    detail=said.detail,
                    customer=ask.customer or facts.customer,
                    area_id=facts.area_id,
                    dark=action is Action.TRIP and said.do is Do.SEND,
                    shadow=policy.only_shadow(action, facts),
                )
                raise _Looked
        except _Looked:
            assert line is not None
            if facts.area_id not in used:
                limits = policy.limits(facts, self._rules())
                used[facts.area_id] = await self._store.used(facts.area_id, by, limits), limits
            return line
        except NotInstalled:
            return _unfit(ask, Unfit(Why.UNKNOWN_METER, ask.meter))
        except Unfit as error:
            return _unfit(ask, error)

    async def _make(self, ask: Ask, dry: Line, by: str, begun: BatchAnswer, number: int, trace: str) -> Line:
        await self._give_way(ask)
        held_for = "; ".join(begun.over)
        key = f"batch {begun.batch} {number}"
        try:
            made = await self._requests.put(ask, by, key, trace=trace, batch=begun.batch, held_for=held_for)
        except Unfit as error:
            return _unfit(ask, error)
        command = made.command
        return Line(
            meter=dry.meter,
            verb=str(ask.verb),
            action=command.action,
            state=command.state,
            why=command.why,
            detail=command.detail,
            customer=command.customer,
            area_id=dry.area_id,
            dark=command.action is Action.TRIP and command.state not in ENDS,
            shadow=command.shadow,
            command=command.id,
        )


def _twice(asks: Sequence[Ask]) -> list[bool]:
    """Which of them name a meter that was named before?"""
    seen: set[int | str] = set()
    answer = []
    for ask in asks:
        name: int | str = ask.meter if ask.meter_id is None else ask.meter_id
        answer.append(name in seen)
        seen.add(name)
    return answer


def _named_twice(ask: Ask) -> Line:
    return _unfit(ask, Unfit(None, "the meter is named twice in this batch 同批重复"))


def _unfit(ask: Ask, error: Unfit) -> Line:
    return Line(
        meter=ask.meter,
        verb=str(ask.verb),
        action=None,
        state=None,
        why=error.why,
        detail=error.detail,
        customer=ask.customer,
    )


def _over(trips: Counter[int | None], used: dict[int | None, tuple[Used, policy.Limits]]) -> tuple[str, ...]:
    """The limits that so many trips would go over, in words: with what has left within the window."""
    total = trips.total()
    if not total:
        return ()
    before, limits = next(iter(used.values()))
    words = [
        f"area {area}: {used[area][0].area} + {count} > {limits.area}"
        for area, count in sorted(trips.items(), key=lambda one: one[0] or 0)
        if used[area][0].area + count > limits.area
    ]
    if before.requester + total > limits.requester:
        words.append(f"requester: {before.requester} + {total} > {limits.requester}")
    if before.all + total > limits.all:
        words.append(f"all: {before.all} + {total} > {limits.all}")
    return tuple(words)


def _told(answer: BatchAnswer, *, finished: bool) -> dict[str, Any]:
    return {
        "finished": finished,
        "over": list(answer.over),
        "dry_run": [_line_told(line) for line in answer.dry_run],
        "lines": [_line_told(line) for line in answer.lines],
    }


def _line_told(line: Line) -> dict[str, Any]:
    return asdict(line) | {"command": None if line.command is None else str(line.command)}


def _heard(batch: Batch) -> BatchAnswer:
    told = batch.answer
    return BatchAnswer(
        batch.id,
        tuple(told["over"]),
        tuple(_line_heard(line) for line in told["dry_run"]),
        tuple(_line_heard(line) for line in told["lines"]),
    )


def _line_heard(told: dict[str, Any]) -> Line:
    return Line(
        **told
        | {
            "action": None if told["action"] is None else Action(told["action"]),
            "state": None if told["state"] is None else State(told["state"]),
            "why": None if told["why"] is None else Why(told["why"]),
            "command": None if told["command"] is None else UUID(told["command"]),
        }
    )
