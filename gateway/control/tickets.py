"""Tickets for relay work on a direct line.

A ticket is the claim of a command that is carried out by hand: the same gates at the same desk, the same
count against the limits, SENDING with the frame's hash committed before anybody has the frame. From then on
the command is one that may have left, whatever becomes of the ticket: it is read, never sent again unread.
`ticket_uses` has what follows.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID, uuid4

import structlog
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gateway.clock import Clock
from gateway.command import (
    GATED_AS_TRIP,
    NO_PLACES,
    RESTORING,
    WHY_TEXT,
    Action,
    Change,
    Command,
    MeterFacts,
    Place,
    State,
    Used,
    Why,
)
from gateway.control import policy
from gateway.control.ask import KeyReused, NoSuch, NotNow, Unfit, check_key, written
from gateway.control.course import CLOSE_VALID, LOST_AFTER, TRIP_VALID
from gateway.control.gates import AskBilling, billing_not_asked
from gateway.control.policy import Do, Judgement, Rules
from gateway.control.proof import found_on
from gateway.control.stores import CommandStore, Desk, step
from gateway.control.ticket_uses import CLOCKS_S, Events, TicketUses, given
from gateway.door import Prepared, Trouble
from gateway.field.machine import is_key, public
from gateway.field.ticket import CODES, Ticket, committed, signed
from gateway.session import relay_words

log = structlog.get_logger()

CLOCK_MARGIN: Final = timedelta(seconds=130)
"""So much earlier than its validity a trip's frame tells the meter to forget it: the meter's clock may be two
minutes behind that of the machine, and that one CLOCKS_S behind ours."""

SHORTEST: Final = timedelta(minutes=1)
"""Nobody can use what is good for less."""

Frames = Callable[[MeterFacts, Action, datetime], Prepared | Trouble]


class Tickets:
    """Built once. `key`: the public half with which every ticket can be checked, as hex."""

    def __init__(
        self,
        store: CommandStore,
        clock: Clock,
        rules: Callable[[], Rules],
        key: Ed25519PrivateKey,
        frames: Frames,
        events: Events,
        *,
        works_on: Callable[[UUID], bool] = lambda command: False,
        ask_billing: AskBilling = billing_not_asked,
        clock_trusted: Callable[[], bool] = lambda: True,
        wake: Callable[[], None] = lambda: None,
    ) -> None:
        """frames: what builds a plain frame (`dispatcher.plain_frames`). events: the bodies of a command's.
        works_on: is the dispatcher about to send this command itself?"""
        self._store = store
        self._clock = clock
        self._rules = rules
        self._private = key
        self.key = public(key)
        self._frames = frames
        self._events = events
        self._works_on = works_on
        self._ask_billing = ask_billing
        self._clock_trusted = clock_trusted
        self._uses = TicketUses(store, clock, self.key, events, wake)

    async def take(self, command_id: UUID, told: Mapping[str, Any], by: str) -> Command:
        """What was done with a ticket; see `TicketUses.take`."""
        return await self._uses.take(command_id, told, by)

    async def issue(
        self, command_id: UUID, by: str, key: str, *, machine: str, machine_now: datetime
    ) -> dict[str, Any]:
        """A ticket for this command, JSON-ready; the same key of the same person gives the same again.

        machine: public key of the one that goes to the meter; machine_now: what its clock shows. Unfit,
        NotNow with the gate that is shut, KeyReused, NoSuch; StorageError: ask again with the same key."""
        check_key(key)
        if not is_key(machine):
            raise Unfit(None, "a machine is named by its public key, 64 hex digits 设备公钥无效")
        mark = hashlib.sha256(f"{by}\n{key}".encode()).hexdigest()
        seen = await self._store.command(command_id)
        if seen is None:
            raise NoSuch(f"there is no command {command_id} 无此命令")
        if (again := await self._again(seen, mark, machine)) is not None:
            return again
        self._check_asker(machine_now)
        if seen.action not in CODES:
            raise Unfit(
                None, f"no ticket is made for {seen.action} 该操作不开操作票: trip, close, permit-close"
            )
        await self._ask_first(seen)
        ticket, prepared = await self._claim(seen, by, machine, mark)
        await self._check_alone(seen.id, prepared)
        return await self._handed_out(ticket, prepared)

    def _check_asker(self, shown_there: datetime) -> None:
        off_s = (shown_there - self._clock.now()).total_seconds()
        if abs(off_s) > CLOCKS_S:
            raise Unfit(
                None,
                f"the clock of the machine that asks is off by {off_s:+.0f} s 设备时钟偏差: set it first",
            )

    async def _ask_first(self, seen: Command) -> None:
        """The gates that cost nothing, then billing: as before a command is sent otherwise."""
        async with self._store.desk(seen.meter_id) as desk:
            self._ready(desk, seen, NO_PLACES)
            facts = desk.facts
        if seen.action in GATED_AS_TRIP:
            owes = await self._ask_billing(seen, facts)
            if owes is not True:
                raise _shut(Why.BILLING_SILENT if owes is None else Why.BILLING_SAYS_NO)

    def _ready(self, desk: Desk, seen: Command, used: Used) -> Command:
        """The command as it lies on the desk, if it may be sent now. NotNow says why not; nothing moves."""
        now, facts = self._clock.now(), desk.facts
        command = found_on(desk, seen, State.QUEUED, State.FIELD)
        if command is None:
            raise NotNow(
                "only a command that is queued or in the field gets a ticket, and only one at a time"
                " 命令不在排队或现场状态，或已开操作票"
            )
        if self._works_on(command.id):
            raise NotNow("it is being sent just now 正在下发: look what becomes of it, then ask again")
        if command.not_before is not None and now < command.not_before:
            raise NotNow(f"it is not to be sent before {command.not_before.isoformat()} 未到下发时间")
        if command.shadow or (facts.shadow and command.action not in RESTORING):
            raise _shut(Why.SHADOW)
        said = policy.at_claim(command, facts, self._rules(), now, used)
        if said.do is not Do.SEND:
            raise _shut_by(said)
        if command.action in GATED_AS_TRIP and not self._clock_trusted():
            raise _shut(Why.OUR_CLOCK)
        return command

    async def _claim(self, seen: Command, by: str, machine: str, mark: str) -> tuple[Ticket, Prepared]:
        """SENDING with the frame's hash, committed: before that nobody has the frame."""
        place: Place | None = None
        if seen.action in GATED_AS_TRIP:
            facts = await self._store.look(seen.meter_id)
            place = await self._store.take_place(seen, facts.area_id, policy.limits(facts, self._rules()))
        async with self._store.desk(seen.meter_id) as desk:
            command = self._ready(desk, seen, NO_PLACES if place is None else place.used)
            if place is not None and not policy.stands(place, desk.facts, self._rules(), self._clock.now()):
                raise NotNow("the limits have changed just now: ask again 限额刚有变动，请重试")
            if command.action in GATED_AS_TRIP and not numbers_of(desk.facts.meter):
                raise Unfit(Why.WRONG_METER, f"no meter tells {desk.facts.meter} as its number 表号无法核对")
            now = self._clock.now()
            until, told = self._deadlines(command, now)
            prepared = self._prepared(desk.facts, command.action, told)
            made = {
                "id": str(uuid4()),
                "to": by,
                "machine": machine,
                "from": written(now),
                "until": written(prepared.deadline),
                "asked": mark,
            }
            if command.state is State.FIELD:
                command = await step(desk, command, State.QUEUED, change=Change({"look_at": now}))
            await step(
                desk,
                command,
                State.SENDING,
                change=Change(
                    {
                        "frame_hash": prepared.sha256,
                        "valid_until": until,
                        "sent_at": now,
                        "look_at": now + LOST_AFTER,
                        "attempts": command.attempts + 1,
                    }
                ),
                evidence={
                    "frame": prepared.shown,
                    "sha256": prepared.sha256.hex(),
                    "deadline": prepared.deadline.isoformat(),
                    "ticket": made,
                },
            )
            return _ticket(made, command, desk.facts, prepared), prepared

    def _deadlines(self, command: Command, now: datetime) -> tuple[datetime, datetime]:
        """Until when the frame can be obeyed, by our clock; and what it tells the meter."""
        if command.action not in GATED_AS_TRIP:
            return now + CLOSE_VALID, now + CLOSE_VALID
        until = now + TRIP_VALID
        if command.expires_at is not None:
            until = min(until, command.expires_at)
        if until - CLOCK_MARGIN - now < SHORTEST:
            raise NotNow("the trip expires too soon for a ticket 跳闸即将过期，不再开操作票")
        return until, until - CLOCK_MARGIN

    def _prepared(self, facts: MeterFacts, action: Action, deadline: datetime) -> Prepared:
        prepared = self._frames(facts, action, deadline)
        if isinstance(prepared, Trouble) and prepared.why is Why.SECURITY_MODULE:
            raise Unfit(
                None,
                "a sealed meter gets no ticket 密文电能表不开操作票: the security module makes its frame out"
                " of what the meter says in the same conversation",
            )
        if isinstance(prepared, Trouble):
            raise Unfit(prepared.why, f"no ticket can be made 无法开操作票: {prepared.detail}")
        return prepared

    async def _again(self, seen: Command, mark: str, machine: str) -> dict[str, Any] | None:
        """The ticket that this key has made, made again; None where it has made none."""
        mine = next((one for one in given(await self._events(seen.id)) if one.told["asked"] == mark), None)
        if mine is None:
            return None
        if mine.told["machine"] != machine:
            raise KeyReused("this idempotency key made a ticket for another machine 幂等键已用于其他请求")
        until = datetime.fromisoformat(mine.told["until"])
        if not (mine.newest and seen.state is State.SENDING and self._clock.now() < until):
            raise NotNow("the ticket of this key is over 该操作票已失效")
        async with self._store.desk(seen.meter_id) as desk:
            facts = desk.facts
        prepared = self._prepared(facts, seen.action, until)
        if prepared.sha256 != seen.frame_hash:
            raise NotNow("the meter's settings have changed since the ticket was made 电能表设置已变更")
        await self._check_alone(seen.id, prepared)
        return await self._handed_out(_ticket(mine.told, seen, facts, prepared), prepared)

    async def _check_alone(self, command_id: UUID, prepared: Prepared) -> None:
        """NotNow unless the claim is ours alone. The dispatcher may have found the command queued while our
        desk was open: then nobody gets the ticket, and what may have left is read."""
        if not self._works_on(command_id):
            command = await self._store.command(command_id)
            if command is not None and (command.state, command.frame_hash) == (
                State.SENDING,
                prepared.sha256,
            ):
                return
        raise NotNow("it is being sent just now 正在下发: look what becomes of it, then ask again")

    async def _handed_out(self, ticket: Ticket, prepared: Prepared) -> dict[str, Any]:
        whole = await asyncio.to_thread(committed, prepared.frame, ticket.salt)
        log.info("a ticket was handed out", command=str(ticket.command), to=ticket.issued_to)
        return signed(replace(ticket, commitment=whole), self._private)


def _ticket(given: Mapping[str, Any], command: Command, facts: MeterFacts, prepared: Prepared) -> Ticket:
    """Without its commitment, which takes long."""
    return Ticket(
        id=UUID(given["id"]),
        command=command.id,
        action=command.action,
        meter=facts.meter,
        numbers=numbers_of(facts.meter),
        address=facts.address,
        profile=facts.profile,
        frame=prepared.shown,
        salt=hashlib.sha256(f"salt of {given['id']}".encode()).digest(),
        commitment=b"",
        since=datetime.fromisoformat(given["from"]),
        until=datetime.fromisoformat(given["until"]),
        machine=given["machine"],
        issued_to=given["to"],
    )


def numbers_of(meter: str) -> tuple[str, ...]:
    """What the meter of this asset number may tell as its own; see `relay_words.same_meter`."""
    digits = relay_words.NUMBER_DIGITS
    parts = {meter, meter[-digits:], meter[-digits - 1 : -1]}
    return tuple(
        sorted(one for one in parts if relay_words.is_number(one) and relay_words.same_meter(one, meter))
    )


def _shut(why: Why) -> NotNow:
    return NotNow(f"no ticket now 暂不开操作票: {' '.join(WHY_TEXT[why])}")


def _shut_by(said: Judgement) -> NotNow:
    words = [] if said.why is None else [" ".join(WHY_TEXT[said.why])]
    return NotNow(": ".join(["no ticket now 暂不开操作票", *words, *([said.detail] if said.detail else [])]))
