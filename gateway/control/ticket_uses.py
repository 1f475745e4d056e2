"""What was done with tickets, as the machines at the meters hand it in.

It moves a command on by the table of `states`: the meter's answer as if it had come to us, and a relay read
after the write as proof, since only the machine for which the ticket was made can sign it. That a trip was
not executed is the one thing that is believed of our own reads alone: it lets a second frame leave.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, cast
from uuid import UUID

from gateway.clock import Clock
from gateway.command import (
    ENDS,
    GATED_AS_TRIP,
    RESTORING,
    Action,
    Change,
    Command,
    Ref,
    RelayStatus,
    State,
    Why,
    canonical,
)
from gateway.control.ask import NoSuch, NotNow, Unfit, written
from gateway.control.proof import Prover, found_on, later
from gateway.control.states import Shown, shown
from gateway.control.stores import CommandStore, Desk, step
from gateway.control.timeline import DIRECT_LINE, DIRECT_READ, SENDING
from gateway.door import Door, Record, Trouble
from gateway.field import direct_evidence
from gateway.field.direct_evidence import NOTHING, Deed
from gateway.session import relay_words

CLOCKS_S: Final = 10.0
"""The clock of the machine that goes to the meter may differ from ours by so much, the way included."""

_CURRENT: Final = frozenset({State.SENDING, State.UNCERTAIN})
_PROVABLE: Final = frozenset({State.ACKNOWLEDGED, State.UNCERTAIN, State.FIELD})
_OPEN: Final = frozenset(State) - ENDS

Events = Callable[[UUID], Awaitable[Sequence[Mapping[str, Any]]]]
"""The bodies of a command's events, in order."""


@dataclass(frozen=True, slots=True)
class Given:
    """A ticket as its event tells it. newest: no frame was committed after it."""

    told: Mapping[str, Any]
    newest: bool


def given(bodies: Sequence[Mapping[str, Any]]) -> list[Given]:
    """A command's tickets, the newest first."""
    sent = [body for body in bodies if (body["kind"], body["state"]) in SENDING]
    told = [body.get("evidence", {}) for body in reversed(sent)]
    return [Given(one["ticket"], place == 0) for place, one in enumerate(told) if "ticket" in one]


class TicketUses:
    """Built once."""

    def __init__(
        self, store: CommandStore, clock: Clock, key: str, events: Events, wake: Callable[[], None]
    ) -> None:
        """key: the public one with which tickets are checked, as hex."""
        self._store = store
        self._clock = clock
        self._key = key
        self._events = events
        self._wake = wake
        self._prover = Prover(store, clock)

    async def take(self, command_id: UUID, told: Mapping[str, Any], by: str) -> Command:
        """What was done with a ticket of this command; the same evidence once more changes nothing.

        InputError where it is no evidence, Unfit where it is another command's, NotNow where the command has
        ended, NoSuch, StorageError."""
        deed = direct_evidence.read(told, self._key)
        self._plausible(deed, command_id)
        seen = await self._store.command(command_id)
        if seen is None:
            raise NoSuch(f"there is no command {command_id} 无此命令")
        mark = hashlib.sha256(canonical(told)).hexdigest()
        bodies = await self._events(command_id)
        known = mark in {body.get("evidence", {}).get("report") for body in bodies}
        made = given(bodies)
        newest = bool(made) and made[0].newest and made[0].told["id"] == str(deed.ticket.id)
        ref = await self._put_down(seen, deed, by, None if known else mark, newest)
        status = deed.status
        if ref is not None and status is not None and _counts(ref.action, status):
            await self._prover.look(ref, cast(Door, _Told(status)))
        self._wake()
        found = await self._store.command(command_id)
        assert found is not None
        return found

    def _plausible(self, deed: Deed, command_id: UUID) -> None:
        if deed.ticket.command != command_id:
            raise Unfit(None, f"this is evidence of command {deed.ticket.command} 证据属于另一命令")
        latest = self._clock.now() + timedelta(seconds=CLOCKS_S)
        if any(at > latest for at in (deed.written_at, *(one.at for one in deed.after))):
            raise Unfit(None, "it tells of the future 证据时间在未来: was the machine's clock set since?")

    async def _put_down(
        self, seen: Command, deed: Deed, by: str, mark: str | None, newest: bool
    ) -> Ref | None:
        """Note it and go the steps that the meter's answer makes; what may be proved by the read, if any.

        mark: None where that was done before, and only the proof may be lacking."""
        async with self._store.desk(seen.meter_id) as desk:
            command = found_on(desk, seen, *_OPEN)
            if command is None:
                await self._put_down_late(desk, seen, deed, by, mark)
                return None
            if mark is not None:
                mine = newest and command.state in _CURRENT
                command = await self._noted(desk, command, deed, by, mark, mine)
            else:
                mine = newest
            if not mine or command.state not in _PROVABLE:
                return None
            terminal = desk.facts.terminal_id
            return Ref(command.id, command.meter_id, terminal, command.action, command.state)

    async def _put_down_late(self, desk: Desk, seen: Command, deed: Deed, by: str, mark: str | None) -> None:
        """The command has ended; one that was verified takes notes all the same."""
        ended = await desk.command(seen.id)
        if mark is None or ended is None:
            return
        if ended.state is not State.VERIFIED:
            raise NotNow(f"the command is {ended.state} 命令已结束: keep the file 请保存证据文件")
        await self._noted(desk, ended, deed, by, mark, False)

    async def _noted(
        self, desk: Desk, command: Command, deed: Deed, by: str, mark: str, mine: bool
    ) -> Command:
        sent = {"sent_at": deed.written_at} if mine and deed.left != NOTHING else {}
        command = await desk.note(command, DIRECT_LINE, _line_told(deed, by, mark), Change(sent))
        if deed.status is not None:
            command = await desk.note(command, DIRECT_READ, _read_told(deed, deed.status, by))
        if mine and command.state is State.SENDING:
            return await self._answered(desk, command, deed)
        return command

    async def _answered(self, desk: Desk, command: Command, deed: Deed) -> Command:
        now, answer = self._clock.now(), deed.answer
        evidence = {"frame": answer.hex(" ")}
        if not answer:
            detail = "the line took no byte" if deed.left == NOTHING else "no answer on the direct line"
            look = Change({"look_at": now})
            return await step(desk, command, State.UNCERTAIN, why=Why.NO_ANSWER, detail=detail, change=look)
        if deed.refusal is None:
            look = Change({"look_at": now})
            return await step(desk, command, State.ACKNOWLEDGED, change=look, evidence=evidence)
        said = relay_words.refused(deed.refusal, answer)
        detail = ", ".join(said.words)
        if command.action not in RESTORING:
            return await step(desk, command, State.REFUSED, why=said.why, detail=detail, evidence=evidence)
        look = Change({"look_at": later(command.created_at, now)})
        field = await step(
            desk, command, State.FIELD, why=said.why, detail=detail, change=look, evidence=evidence
        )
        await desk.open_field_order(field, said.why, detail)
        return field


class _Told:
    """The part of a door that the prover asks: what the machine at the meter has read."""

    def __init__(self, status: RelayStatus) -> None:
        self._status = status

    async def status(self) -> RelayStatus:
        return self._status

    async def record(self, action: Action) -> Record | Trouble:
        return Trouble(Why.NOT_SUPPORTED, f"not read on a direct line: {action}")


def _counts(action: Action, status: RelayStatus) -> bool:
    """That a trip was *not* executed, and may be sent again, we believe nobody's clock but our own."""
    return action not in GATED_AS_TRIP or shown(action, status) is not Shown.NOT_DONE


def _line_told(deed: Deed, by: str, mark: str) -> dict[str, Any]:
    reads = [raw.hex(" ") for one in deed.before for raw in (one.question, one.answer)]
    told: dict[str, Any] = {
        "by": by,
        "ticket": str(deed.ticket.id),
        "report": mark,
        "written_at": written(deed.written_at),
        "left": deed.left,
        "clock_offset_ms": deed.clock_offset_ms,
        "before": reads,
    }
    return told | ({"frame": deed.answer.hex(" ")} if deed.answer else {})


def _read_told(deed: Deed, status: RelayStatus, by: str) -> dict[str, Any]:
    last = next(one for one in reversed(deed.after) if one.at == status.at)
    reads = [last.question.hex(" "), last.answer.hex(" ")]
    return {
        "by": by,
        "ticket": str(deed.ticket.id),
        "at": written(status.at),
        "word3": status.word,
        "before": reads,
    }
