"""A close in the journal: what was asked, which meter it is for, and what was done for it, line by line.

An entry is nothing but its lines: `take` is given each, when it is durable and again after a restart.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Final, Literal, NamedTuple
from uuid import UUID

from gateway.command import Action, Command, MeterFacts, RelayStatus, State, Why
from gateway.control.ask import RESTORE, Ask, written
from gateway.control.journal_file import Record
from gateway.door import Accepted, Answer, Refused, Silence
from gateway.model import Point, PointRole, RelayKind, TerminalAssets

MOST_RECORDS: Final = 120
"""Lines of one entry; then its meter is only looked at until the database is back."""

ACCEPTED: Final = "accepted"
WRITING: Final = "writing"
"""its frame is about to leave"""
NOT_WRITTEN: Final = "not written"
"""no byte of that frame left"""
HEARD: Final = "heard"
READ: Final = "read"
"""of the relay"""
WAITS: Final = "waits"
FILED: Final = "filed"
"""the database has it"""

Verb = Literal["restore"] | Action


class Frame(NamedTuple):
    """A control frame that may have left."""

    action: Action
    sha256: bytes
    sent_at: datetime
    valid_until: datetime
    told: Record
    """its line"""


@dataclass(eq=False)
class Entry:
    """One close. facts: as much of them as is known without the database; relay kind, organisation, customer
    and protections are not."""

    id: UUID
    at: datetime
    ask: Ask
    by: str
    key: str
    body_hash: bytes
    trace: str
    facts: MeterFacts
    records: list[Record] = field(default_factory=list)
    frames: list[Frame] = field(default_factory=list)
    answer: Answer | None = None
    """to the last frame"""
    read: RelayStatus | None = None
    """the last one that was written down"""
    waits: Why | None = None
    filed: UUID | None = None
    """the command that the database has of it"""
    filed_at: datetime | None = None

    # not durable: how it is worked
    look_at: datetime | None = None
    """None: there is nothing to do for it but to file it"""
    resend: bool = False
    """the relay was seen not to have obeyed the last frame"""
    busy: bool = False
    """an exchange is under way"""
    filing: bool = False
    """a desk that has it all is being closed: nothing may be added now"""

    @property
    def verb(self) -> Verb:
        return self.ask.verb

    @property
    def action(self) -> Action:
        """What is sent. Whether a `restore` may close by itself is not known here: so the customer has to
        press the button. Likewise where the meter knows no direct close."""
        if self.verb == RESTORE:
            return Action.PERMIT_CLOSE
        if self.verb is Action.CLOSE and any(
            one.get("why") == Why.NOT_SUPPORTED for one in self.records if one["kind"] == HEARD
        ):
            return Action.PERMIT_CLOSE
        return Action(self.verb)

    @property
    def sent_at(self) -> datetime:
        """Of the last frame; where there is none, when it was accepted."""
        return self.frames[-1].sent_at if self.frames else self.at

    def command(self) -> Command:
        """As a command is shown that no database knows yet."""
        last = self.frames[-1] if self.frames else None
        return Command(
            id=self.filed or self.id,
            meter_id=self.facts.meter_id,
            action=self.action,
            state=self._state(),
            version=0,
            intent=0,
            requester=self.by,
            cause=self.ask.cause,
            created_at=self.at,
            notice=self.ask.notice,
            customer=self.ask.customer,
            caused_by=self.ask.caused_by,
            work_order=self.ask.work_order,
            label=self.ask.label,
            not_before=self.ask.not_before,
            attempts=len(self.frames),
            frame_hash=None if last is None else last.sha256,
            sent_at=None if last is None else last.sent_at,
            valid_until=None if last is None else last.valid_until,
            why=self.waits,
            detail="kept in the journal while the database is away 数据库不可用，已记入本地日志",
            trace=self.trace,
        )

    def _state(self) -> State:
        if not self.frames or self.filed is not None:
            return State.REQUESTED
        if isinstance(self.answer, Accepted):
            return State.ACKNOWLEDGED
        if isinstance(self.answer, Refused):
            return State.FIELD
        return State.SENDING if self.busy else State.UNCERTAIN

    def door_facts(self) -> MeterFacts:
        """For `Doors.open`: a close passes all else that waits for the terminal."""
        return replace(self.facts, open=(self.command(),))

    def take(self, record: Record) -> None:
        """A line of it is durable."""
        self.records.append(record)
        kind = record["kind"]
        if kind == WRITING:
            self.frames.append(
                Frame(
                    Action(record["action"]),
                    bytes.fromhex(record["sha256"]),
                    datetime.fromisoformat(record["at"]),
                    datetime.fromisoformat(record["valid_until"]),
                    record,
                )
            )
            self.answer = self.waits = None
            self.resend = False
        elif kind == NOT_WRITTEN:
            self.frames.pop()
            self.answer, self.resend = None, True
        elif kind == HEARD:
            self.answer = _answer(record)
        elif kind == READ:
            self.read = RelayStatus(record["word3"], datetime.fromisoformat(record["read_at"]))
        elif kind == WAITS:
            self.waits = Why(record["why"])
        elif kind == FILED:
            self.filed = UUID(record["command"])
            self.filed_at = datetime.fromisoformat(record["at"])

    def kept(self) -> Iterable[Record]:
        """The lines that are still wanted: of what the database has, only that it has it."""
        if self.filed is None:
            return self.records
        return [one for one in self.records if one["kind"] in (ACCEPTED, FILED)]

    def line(self, kind: str, at: datetime, told: Record) -> dict[str, Any]:
        """A line of this entry."""
        return {"kind": kind, "id": str(self.id), "at": written(at), **told}


def first_line(entry: Entry) -> dict[str, Any]:
    """The line by which an entry begins."""
    facts = entry.facts
    return entry.line(
        ACCEPTED,
        entry.at,
        {
            "ask": entry.ask.body(),
            "by": entry.by,
            "key": entry.key,
            "trace": entry.trace,
            "body_sha256": entry.body_hash.hex(),
            "meter_id": facts.meter_id,
            "address": facts.address,
            "terminal_id": facts.terminal_id,
            "terminal": facts.terminal,
            "pn": facts.pn,
            "port": facts.port,
            "protocol": facts.protocol,
            "profile": facts.profile,
            "role": facts.role.value,
        },
    )


def begun(record: Record) -> Entry:
    """The entry that begins by this line. KeyError, ValueError or TypeError where it does not say enough."""
    told = record["ask"]
    not_before = told["not_before"]
    ask = Ask(
        meter_id=record["meter_id"],
        meter=told["meter"],
        verb=RESTORE if told["verb"] == RESTORE else Action(told["verb"]),
        cause=told["cause"],
        notice=told["notice"],
        customer=told["customer"],
        caused_by=told["caused_by"],
        work_order=told["work_order"],
        label=told["label"],
        not_before=None if not_before is None else datetime.fromisoformat(not_before),
    )
    at = datetime.fromisoformat(record["at"])
    facts = _facts(
        record["meter_id"],
        told["meter"],
        record["address"],
        record["terminal_id"],
        record["terminal"],
        record["pn"],
        record["port"],
        record["protocol"],
        record["profile"],
        PointRole(record["role"]),
    )
    entry = Entry(
        id=UUID(record["id"]),
        at=at,
        ask=ask,
        by=record["by"],
        key=record["key"],
        body_hash=bytes.fromhex(record["body_sha256"]),
        trace=record["trace"],
        facts=facts,
        look_at=ask.not_before or at,
    )
    entry.take(record)
    return entry


def facts_of(assets: TerminalAssets, point: Point) -> MeterFacts:
    """What a login knows of a meter behind it."""
    return _facts(
        point.meter_id,
        point.meter,
        point.address,
        assets.terminal_id,
        assets.address,
        point.pn,
        point.port,
        point.protocol,
        point.profile,
        point.role,
    )


def _facts(
    meter_id: int,
    meter: str,
    address: str,
    terminal_id: int,
    terminal: str,
    pn: int,
    port: int,
    protocol: str,
    profile: str,
    role: PointRole,
) -> MeterFacts:
    return MeterFacts(
        meter_id=meter_id,
        meter=meter,
        address=address,
        terminal_id=terminal_id,
        terminal=terminal,
        pn=pn,
        port=port,
        protocol=protocol,
        profile=profile,
        role=role,
        relay_kind=RelayKind.BUILT_IN,
        area_id=None,
        organisation_id=None,
        shadow=False,
        customer="",
        protected=False,
        restore_mode="permit",
        intent=0,
    )


def answer_told(answer: Answer) -> dict[str, Any]:
    """An answer as a line tells it."""
    if isinstance(answer, Accepted):
        return {"answer": "accepted", "words": list(answer.words), "frame": answer.frame}
    if isinstance(answer, Refused):
        return {
            "answer": "refused",
            "why": answer.why.value,
            "words": list(answer.words),
            "frame": answer.frame,
        }
    return {"answer": "silence", "detail": answer.detail}


def _answer(record: Record) -> Answer:
    if record["answer"] == "accepted":
        return Accepted(tuple(record["words"]), record["frame"])
    if record["answer"] == "refused":
        return Refused(Why(record["why"]), tuple(record["words"]), record["frame"])
    return Silence(record["detail"])
