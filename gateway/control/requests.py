"""What people and billing ask for: one request becomes one command, or is turned away before there is one.

Every decision is made at the meter's desk. A repeated call does nothing twice: the same key gives the same
command, and a decision that was made already is returned as it stands. The errors tell apart what a caller
has to do: `Unfit` (this cannot be asked), `KeyReused`, `NotNow` (not in this state), `NotYou`, and
StorageError (try again with the same key).
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import Final, NamedTuple
from uuid import UUID, uuid4

import structlog

from gateway.clock import Clock
from gateway.command import (
    ENDS,
    GATED_AS_TRIP,
    MAY_HAVE_LEFT,
    RESTORING,
    Action,
    Change,
    Command,
    KeyTaken,
    MeterFacts,
    NewCommand,
    NotInstalled,
    Proof,
    Ref,
    State,
    Unsure,
    Why,
    canonical,
)
from gateway.control import policy
from gateway.control.ask import (
    RESTORE,
    Ask,
    KeyReused,
    NoSuch,
    NotNow,
    Unfit,
    check_key,
    check_second,
    check_text,
    written,
)
from gateway.control.policy import Do, Judgement, Rules
from gateway.control.proof import once_more
from gateway.control.stores import CommandStore, Desk, SwitchStore, step
from gateway.errors import StorageError
from gateway.storage.switches import Switch

log = structlog.get_logger()

TRIES: Final = 3
"""How often a lost answer to COMMIT is cleared up by looking, before the caller is told to do that."""

LONGEST_TRIP: Final = timedelta(days=31)
"""A trip that names a later expiry is a slip of the pen."""

AT_ONCE: Final = 500
"""Overdue commands that are ended in one go."""

FAILURES: Final = 20
"""So many overdue commands may fail to be ended before the database itself is thought to be at fault."""

MOST_PASSED_OVER: Final = 10_000
"""Overdue commands that could not be ended are told to the database, by their ids, up to this many."""

_UNSENT: Final = frozenset({State.REQUESTED, State.HELD, State.QUEUED})


class Accepted(NamedTuple):
    """What became of a request. new: False where the key had made the command before."""

    command: Command
    new: bool


class Requests:
    """Accepts requests and carries out what people decide about commands."""

    def __init__(
        self,
        store: CommandStore,
        rules: Callable[[], Rules],
        clock: Clock,
        *,
        switches: SwitchStore,
        wake: Callable[[], None] = lambda: None,
        wake_at: Callable[[int], None] | None = None,
    ) -> None:
        """rules: as they are now. wake: called when there may be something to send; wake_at, by default the
        same: when it is at this terminal."""
        self._store = store
        self._rules = rules
        self._clock = clock
        self._switches = switches
        self._wake = wake
        self._wake_at = wake_at or (lambda terminal_id: wake())

    async def accept(self, ask: Ask, by: str, key: str, *, trace: str = "") -> Accepted:
        """One command for this request: queued, or refused with the reason.

        Unfit, KeyReused; StorageError, also where three times nobody could say whether it was kept: then the
        same call again finds out.
        """
        check_key(key)
        return await self.put(ask, by, key, trace=trace)

    async def put(
        self,
        ask: Ask,
        by: str,
        key: str,
        *,
        trace: str = "",
        batch: UUID | None = None,
        held_for: str = "",
    ) -> Accepted:
        """`accept` with a key of our own making. held_for: why what darkens waits for a second person."""
        self.check_texts(ask)
        body_hash = hashlib.sha256(canonical(ask.body())).digest()
        made: set[UUID] = set()
        for left in reversed(range(TRIES)):
            known = await self._store.known(by, key)
            if known is not None:
                command, was = known
                if was != body_hash:
                    raise KeyReused(
                        f"this idempotency key made command {command.id} from another request"
                        " 幂等键已用于其他请求"
                    )
                return Accepted(command, new=command.id in made)
            self.check_times(ask)
            if ask.meter_id is None:
                raise Unfit(Why.UNKNOWN_METER, ask.meter)
            try:
                async with self._store.desk(ask.meter_id) as desk:
                    action, said = self.judge(ask, desk.facts)
                    new = self._new(ask, action, desk.facts, by, key, body_hash, trace, batch)
                    made.add(new.id)
                    command = await self._add(desk, new, said, held_for)
            except NotInstalled as error:
                raise Unfit(Why.UNKNOWN_METER, ask.meter) from error
            except (KeyTaken, Unsure):
                if not left:
                    raise
                self._wake()
                continue
            self._wake_at(desk.facts.terminal_id)
            return Accepted(command, new=True)
        raise AssertionError("the last try returns or raises")

    def judge(self, ask: Ask, facts: MeterFacts) -> tuple[Action, Judgement]:
        """What would be done with this request now: the action that it comes to, and the gates' word.
        Unfit."""
        action = policy.restore(facts) if ask.verb == RESTORE else Action(ask.verb)
        why = policy.unfit(action, facts)
        if why is not None:
            raise Unfit(why, facts.meter)
        if action in GATED_AS_TRIP:
            if ask.customer and ask.customer != facts.customer:
                raise Unfit(
                    None, f"meter {facts.meter} does not serve customer {ask.customer} 用户与电能表不符"
                )
        elif ask.expires_at is not None:
            raise Unfit(None, f"a {action} does not expire 该命令无有效期")
        new = self._new(ask, action, facts, "", "", b"", "", None)
        return action, policy.at_acceptance(new, facts, self._rules(), self._clock.now())

    async def cancel(self, command_id: UUID, by: str, reason: str = "") -> Command:
        """Take back a command of which no byte has left. NotNow, NoSuch."""
        check_text("reason", reason)

        async def work(desk: Desk, command: Command) -> Command:
            if command.state is State.CANCELLED:
                return command
            if command.state in MAY_HAVE_LEFT:
                raise NotNow(
                    f"the {command.action} may have left; only a new command undoes it 命令可能已下发"
                )
            if command.state in ENDS:
                raise NotNow(f"the command is {command.state} 命令已结束")
            return await step(
                desk, command, State.CANCELLED, why=Why.CANCELLED, detail=reason, evidence={"by": by}
            )

        return await self._decide(command_id, work)

    async def approve(self, command_id: UUID, by: str) -> Command:
        """The second person lets a held command go. NotNow where it is not held alone; NotYou, NoSuch."""
        return await self.approve_held(command_id, by, batch=None)

    async def approve_held(self, command_id: UUID, by: str, *, batch: UUID | None) -> Command:
        """`approve` for a command of `batch`, whose dry run the approver has before him."""
        setters = await self.limit_setters()

        async def work(desk: Desk, command: Command) -> Command:
            if command.batch != batch:
                raise NotNow(
                    f"the command belongs to batch {command.batch}: approve that as a whole 须整批审批"
                )
            if command.state is not State.HELD:
                if command.approver == by:
                    return command
                raise NotNow(f"the command is {command.state}, not held 命令未处于待审批")
            check_second(by, command.requester, setters)
            said = policy.beside_write(command, desk.facts, self._rules(), self._clock.now())
            if said.do is Do.END:
                return await step(desk, command, said.state, why=said.why, detail=said.detail)
            return await step(
                desk,
                command,
                State.QUEUED,
                why=Why.BY_PERSON,
                change=Change({"approver": by}),
                evidence={"approver": by},
            )

        approved = await self._decide(command_id, work)
        self._wake()
        return approved

    async def limit_setters(self) -> frozenset[str]:
        """Who has set the limits that hold, or proposed others: they let nothing pass over a limit."""
        return frozenset(one.set_by for one in await self._switches.newest() if one.name is Switch.LIMITS)

    async def report_field(
        self, command_id: UUID, by: str, *, energised: bool, at: datetime, report: str
    ) -> Command:
        """What a person saw at the meter at `at`. energised: the household has power again.

        Only that ends a command, and only one that is with the field crew; otherwise it is noted and the
        relay is read. NotNow also as long as a trip may still be obeyed there: the report would be overtaken.
        """
        check_text("report", report)
        now = self._clock.now()
        if at.tzinfo is None or at > now:
            raise Unfit(None, "a report is of an instant in the past, with its zone 报告时间无效")
        told = {"by": by, "at": written(at), "energised": energised, "report": report}

        async def work(desk: Desk, command: Command) -> Command:
            if command.action not in RESTORING:
                raise NotNow(f"a {command.action} has no field order 该命令无现场工单")
            if command.state in ENDS:
                if command.state is State.VERIFIED:
                    return command
                raise NotNow(f"the command is {command.state} 命令已结束")
            if not energised or command.state is not State.FIELD:
                soon = Change({} if command.state is State.SENDING else {"look_at": now})
                return await desk.note(command, "field report", told, soon)
            until = desk.facts.trip_until
            if until is not None and now <= until:
                raise NotNow(
                    f"a trip may still be obeyed until {until.isoformat()}; report again then 请稍后再报"
                )
            verified = await step(
                desk,
                command,
                State.VERIFIED,
                proof=Proof.FIELD_REPORT,
                why=Why.BY_PERSON,
                detail=report,
                change=Change({"energised_at": at, "look_at": once_more(desk.facts, at)}),
                evidence=told,
            )
            return await desk.note(verified, "energised", told)

        done = await self._decide(command_id, work)
        self._wake()
        return done

    async def expire_overdue(self) -> int:
        """End what nobody has sent before its expiry, also at terminals that never come and of meters that
        were taken away; returns how many.

        What cannot be ended keeps nothing else waiting. StorageError after FAILURES of them: the database
        is at fault, and all of it is tried again.
        """
        ended, passed_over, failures = 0, set[UUID](), 0
        while ended < AT_ONCE and len(passed_over) < MOST_PASSED_OVER:
            found = await self._store.overdue(self._clock.now(), AT_ONCE, passed_over)
            for ref in found:
                try:
                    done = await self._expire(ref)
                except NotInstalled:
                    done = False
                except StorageError as error:
                    failures += 1
                    if failures > FAILURES:
                        raise
                    log.warning(
                        "a command has expired and is still open", command=str(ref.id), error=str(error)
                    )
                    done = False
                ended += done
                if not done:
                    passed_over.add(ref.id)
            if len(found) < AT_ONCE:
                break
        return ended

    async def _expire(self, ref: Ref) -> bool:
        """End this one if it is overdue still."""
        async with self._store.desk(ref.meter_id) as desk:
            mine = next((one for one in desk.facts.open if one.id == ref.id), None)
            if mine is None or mine.state not in (State.HELD, State.QUEUED):
                return False
            if mine.expires_at is None or mine.expires_at > self._clock.now():
                return False
            await step(desk, mine, State.EXPIRED, why=Why.EXPIRED)
        return True

    def check_texts(self, ask: Ask) -> None:
        """Unfit where the words of a request cannot be kept."""
        for name in ("meter", "cause", "notice", "customer", "caused_by", "work_order", "label"):
            check_text(name, getattr(ask, name))
        for name in ("not_before", "expires_at"):
            at: datetime | None = getattr(ask, name)
            if at is not None and at.tzinfo is None:
                raise Unfit(None, f"{name} needs a zone 时间缺少时区")

    def check_times(self, ask: Ask) -> None:
        """Unfit where the times of a request make no sense now."""
        first, last = ask.not_before, ask.expires_at
        if first is not None and last is not None and first >= last:
            raise Unfit(None, "not_before does not lie before expires_at 时间次序有误")
        for name, at in (("not_before", first), ("expires_at", last)):
            if at is not None and at > self._clock.now() + LONGEST_TRIP:
                raise Unfit(None, f"{name} is more than {LONGEST_TRIP.days} days ahead 时间过远")

    def _new(
        self,
        ask: Ask,
        action: Action,
        facts: MeterFacts,
        by: str,
        key: str,
        body_hash: bytes,
        trace: str,
        batch: UUID | None,
    ) -> NewCommand:
        now = self._clock.now()
        expires_at = ask.expires_at
        if action in GATED_AS_TRIP and expires_at is None:
            expires_at = max(now, ask.not_before or now) + self._rules().trip_lasts
        return NewCommand(
            id=uuid4(),
            action=action,
            requester=by,
            cause=ask.cause,
            created_at=now,
            idempotency_key=key,
            body_hash=body_hash,
            notice=ask.notice,
            customer=ask.customer or facts.customer,
            caused_by=ask.caused_by,
            work_order=ask.work_order,
            label=ask.label,
            not_before=ask.not_before,
            expires_at=expires_at,
            batch=batch,
            shadow=policy.only_shadow(action, facts),
            trace=trace,
        )

    async def _add(self, desk: Desk, new: NewCommand, said: Judgement, held_for: str) -> Command:
        await supersede_for(desk, new)
        if held_for and new.action in GATED_AS_TRIP and said.do is Do.SEND:
            return await desk.add(new, State.HELD, Why.OVER_LIMIT, held_for)
        return await desk.add(new, said.state, said.why, said.detail)

    async def _decide(self, command_id: UUID, work: Callable[[Desk, Command], Awaitable[Command]]) -> Command:
        """`work` at the desk of this command; where COMMIT's answer is lost it is done again, on what
        stands."""
        for left in reversed(range(TRIES)):
            seen = await self._store.command(command_id)
            if seen is None:
                raise NoSuch(f"there is no command {command_id} 无此命令")
            try:
                async with self._store.desk(seen.meter_id) as desk:
                    mine = next((one for one in desk.facts.open if one.id == command_id), None)
                    if mine is None:  # it has ended, and ends stay
                        mine = await desk.command(command_id)
                        assert mine is not None
                    return await work(desk, mine)
            except Unsure:
                if not left:
                    raise
        raise AssertionError("the last try returns or raises")


async def supersede_for(desk: Desk, new: NewCommand) -> None:
    """What gives or protects power takes the place of what would take it away, at the desk that adds it."""
    if new.action in RESTORING or new.action is Action.KEEP_POWER:
        for one in desk.facts.open:
            if one.state in _UNSENT and _overtakes(new, one):
                then = State.CANCELLED if one.state is State.REQUESTED else State.SUPERSEDED
                await step(desk, one, then, why=Why.NEWER_INTENT, detail=f"{new.action} {new.id}")


def _overtakes(new: NewCommand, older: Command) -> bool:
    """Does a new command take the place of this one, which has not been sent? One of shadow mode, which will
    never be, does not take that of a close that will."""
    if older.action in GATED_AS_TRIP:
        return True
    if new.shadow and not older.shadow:
        return False
    return new.action in RESTORING and older.action in RESTORING and older.attempts == 0
