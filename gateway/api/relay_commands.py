"""Routes of relay commands: ask for one, look, take back, approve; and of field orders.

A command of another organisation is not found, as is its meter: nothing tells it from one that does not
exist.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Sequence
from datetime import datetime
from http import HTTPStatus
from typing import Annotated, Final, Literal
from uuid import UUID

from fastapi import APIRouter, Header, Query, Response
from pydantic import BaseModel, ConfigDict, Field

from gateway.api.auth import Approver, Caller, Closer, Controller, Looker, Reader
from gateway.api.parts import Instant, KeptClose, Parts, Wanted
from gateway.api.problems import Problem
from gateway.api.turns import Turn, Way
from gateway.command import WHY_TEXT, Action, State, Why
from gateway.control.ask import LONGEST_TEXT, RESTORE, Ask
from gateway.errors import StorageError
from gateway.storage import relay_list
from gateway.storage.relay_list import Before, FoundMeter, Row

PREFIX: Final = "/api/v1/relay-commands"

KEY_HEADER: Final = "Idempotency-Key"

MOST_ROWS: Final = 500

reading = APIRouter(prefix="/api/v1", tags=["relay commands"])
"""changes nothing"""
acting = APIRouter(prefix="/api/v1", tags=["relay commands"])
"""asks for something, or decides"""

_TRACEPARENT: Final = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")

Text = Annotated[str, Field(max_length=LONGEST_TEXT)]
BigId = Annotated[int, Query(ge=0, le=2**63 - 1)]

IdempotencyKey = Annotated[
    str | None,
    Header(alias=KEY_HEADER, description="Required 必填: 1 to 200 visible ASCII characters."),
]
Traceparent = Annotated[
    str | None, Header(alias="traceparent", description="W3C trace context; kept with the command.")
]


class CommandRequest(BaseModel):
    """One command. `restore` is resolved at acceptance into close or permit-close."""

    model_config = ConfigDict(extra="forbid")
    meter: str = Field(min_length=1, max_length=64)
    """asset number, or communication address where that is unique"""
    action: Action | Literal["restore"]
    cause: Text = ""
    notice: Text = ""
    """reference of the notice that the customer was given"""
    customer: Text = ""
    """cons_no; a trip is refused where another customer is behind the meter"""
    caused_by: Text = ""
    """the payment, or the command that this one undoes"""
    work_order: Text = ""
    label: Text = ""
    """the requester's own words, such as the person behind the program"""
    not_before: Instant | None = None
    expires_at: Instant | None = None


class Reason(BaseModel):
    model_config = ConfigDict(extra="forbid")
    reason: Text = ""


class FieldReport(BaseModel):
    """What a person saw at the meter."""

    model_config = ConfigDict(extra="forbid")
    energised: bool
    at: Instant
    report: Text = ""


class CommandShown(BaseModel):
    """A command as it stands. Instants are UTC."""

    id: UUID
    meter: str
    address: str
    terminal: str
    organisation: str | None
    area: str | None
    action: Action
    state: State
    why: Why | None
    why_text: str | None
    detail: str
    requester: str
    approver: str
    cause: str
    notice: str
    customer: str
    caused_by: str
    work_order: str
    label: str
    batch: UUID | None
    shadow: bool
    created_at: datetime
    changed_at: datetime
    not_before: datetime | None
    expires_at: datetime | None
    attempts: int
    sent_at: datetime | None
    valid_until: datetime | None
    energised_at: datetime | None
    intent: int
    trace: str


class CommandPage(BaseModel):
    """`next`: the `cursor` of the following page; null: this is the last."""

    commands: list[CommandShown]
    next: str | None


class FieldOrderShown(BaseModel):
    """Where a person has to go."""

    id: int
    command: UUID
    meter: str
    opened_at: datetime
    why: Why
    detail: str
    closed_at: datetime | None
    closed_by: str | None
    report: str | None


class FieldOrderPage(BaseModel):
    field_orders: list[FieldOrderShown]
    next: int | None


@acting.post("/relay-commands", status_code=HTTPStatus.ACCEPTED)
async def ask_for_command(
    turn: Turn,
    wanted: CommandRequest,
    parts: Wanted,
    caller: Closer,
    way: Way,
    response: Response,
    key: IdempotencyKey = None,
    traceparent: Traceparent = None,
) -> CommandShown:
    """Ask for one command. 202 says that it is kept, not that it is done: look at `Location`, or be told.

    The same key and body give the same command again; another body under the same key is refused (409).
    A command may end `refused` at once: it is a command all the same, with its reason. While the database is
    away, a close by a caller who sees all organisations is kept and sent without it; all else is 503.
    """
    key, trace, control, parts = key_of(key), trace_of(traceparent), parts.control(), parts.promptly()
    try:
        if caller.unsure is not None:
            raise caller.unsure
        ask, *_ = await asks_of(parts, caller, [wanted])
        accepted = await control.requests.accept(ask, caller.subject, key, trace=trace)
    except StorageError as error:
        if control.journal is None:
            raise
        kept = await control.journal.accept(
            _ask(wanted, None),
            caller.subject,
            key,
            because=error,
            sees_all=caller.sees_all(),
            trace=trace,
        )
        response.headers["Location"] = f"{PREFIX}/{kept.command.id}"
        return _kept(kept)
    response.headers["Location"] = f"{PREFIX}/{accepted.command.id}"
    return await _command(parts, caller, accepted.command.id)


@reading.get("/relay-commands")
async def list_commands(
    parts: Wanted,
    caller: Reader,
    cursor: Annotated[str | None, Query(max_length=200)] = None,
    limit: Annotated[int, Query(ge=1, le=MOST_ROWS)] = 100,
    meter: Annotated[str | None, Query(max_length=64)] = None,
    state: State | None = None,
    batch: UUID | None = None,
    customer: Annotated[str | None, Query(max_length=LONGEST_TEXT)] = None,
    since: Instant | None = None,
) -> CommandPage:
    """Commands, the newest first, a page at a time."""
    found = await relay_list.commands(
        parts.database,
        caller.organisations,
        before=None if cursor is None else _before(cursor),
        meter=None if meter is None else without_nul(meter),
        state=state,
        batch=batch,
        customer=None if customer is None else without_nul(customer),
        since=since,
        rows=limit,
    )
    more = _cursor(found[-1]) if len(found) == limit else None
    return CommandPage(commands=[_shown(row) for row in found], next=more)


@reading.get("/relay-commands/{command_id}")
async def get_command(command_id: UUID, parts: Wanted, caller: Looker) -> CommandShown:
    """One command as it stands."""
    try:
        if caller.unsure is not None:
            raise caller.unsure
        return await _command(parts.promptly(), caller, command_id)
    except StorageError:
        journal = None if parts.relay is None else parts.relay.journal
        kept = journal.find(command_id) if journal is not None and caller.sees_all() else None
        if kept is None:
            raise
        return _kept(kept)


@acting.post("/relay-commands/{command_id}/cancel")
async def cancel_command(
    command_id: UUID, parts: Wanted, caller: Controller, given: Reason | None = None
) -> CommandShown:
    """Take back a command of which no byte has left; 409 where it is too late."""
    await _command(parts, caller, command_id)
    reason = given.reason if given is not None else ""
    await parts.control().requests.cancel(command_id, caller.subject, reason)
    return await _command(parts, caller, command_id)


@acting.post("/relay-commands/{command_id}/approve")
async def approve_command(command_id: UUID, parts: Wanted, caller: Approver) -> CommandShown:
    """Let a held command go, as the second person."""
    await _command(parts, caller, command_id)
    await parts.control().requests.approve(command_id, caller.subject)
    return await _command(parts, caller, command_id)


@acting.post("/relay-commands/{command_id}/field-report")
async def report_field(
    command_id: UUID, report: FieldReport, parts: Wanted, caller: Controller
) -> CommandShown:
    """What a person saw at the meter; power seen there ends a command that is with the field crew."""
    await _command(parts, caller, command_id)
    await parts.control().requests.report_field(
        command_id, caller.subject, energised=report.energised, at=report.at, report=report.report
    )
    return await _command(parts, caller, command_id)


@reading.get("/field-orders")
async def list_field_orders(
    parts: Wanted,
    caller: Reader,
    after: BigId = 0,
    limit: Annotated[int, Query(ge=1, le=MOST_ROWS)] = 100,
    closed_too: bool = False,
) -> FieldOrderPage:
    """Where a person has to go because electronics could not give power back yet 现场复电工单."""
    found = await relay_list.field_orders(
        parts.database, caller.organisations, after=after, closed_too=closed_too, rows=limit
    )
    more = found[-1]["id"] if len(found) == limit else None
    return FieldOrderPage(field_orders=[FieldOrderShown(**row) for row in found], next=more)


async def found_meter(parts: Parts, caller: Caller, name: str) -> FoundMeter:
    """The one meter of that number or address. Problem 404 where there is none that the caller may see."""
    return (await _found_meters(parts, caller, [name], needed=True))[name]


async def _found_meters(
    parts: Parts, caller: Caller, names: Sequence[str], *, needed: bool
) -> dict[str, FoundMeter]:
    found = await relay_list.meters(
        parts.database, caller.organisations, [without_nul(name) for name in names], parts.clock.now()
    )
    if needed and (missing := [name for name in names if name not in found]):
        raise Problem(
            HTTPStatus.NOT_FOUND,
            "meter-unknown",
            f"no meter {', '.join(missing[:10])} in the assets 档案中无此电能表",
        )
    if many := [name for name, some in found.items() if len(some) > 1]:
        raise Problem(
            HTTPStatus.CONFLICT,
            "meter-ambiguous",
            f"{', '.join(sorted(many)[:10])} is more than one meter 地址不唯一: give the asset number",
        )
    return {name: some[0] for name, some in found.items()}


async def asks_of(parts: Parts, caller: Caller, wanted: Sequence[CommandRequest]) -> list[Ask]:
    found = await _found_meters(parts, caller, [one.meter for one in wanted], needed=False)
    return [_ask(one, found[one.meter].meter_id if one.meter in found else None) for one in wanted]


def _ask(wanted: CommandRequest, meter_id: int | None) -> Ask:
    return Ask(
        meter_id=meter_id,
        meter=wanted.meter,
        verb="restore" if wanted.action == RESTORE else Action(wanted.action),
        cause=wanted.cause,
        notice=wanted.notice,
        customer=wanted.customer,
        caused_by=wanted.caused_by,
        work_order=wanted.work_order,
        label=wanted.label,
        not_before=wanted.not_before,
        expires_at=wanted.expires_at,
    )


def _kept(kept: KeptClose) -> CommandShown:
    """A close that the journal has; its organisation and area are not known without the database."""
    command = kept.command
    same = {name: getattr(command, name) for name in CommandShown.model_fields if hasattr(command, name)}
    return CommandShown(
        **same,
        meter=kept.meter,
        address=kept.address,
        terminal=kept.terminal,
        organisation=None,
        area=None,
        why_text=words_of(command.why),
        changed_at=command.sent_at or command.created_at,
    )


async def visible_command(parts: Parts, caller: Caller, command_id: UUID) -> CommandShown:
    """The command as it stands. Problem 404 where there is none that the caller may see."""
    return await _command(parts, caller, command_id)


async def _command(parts: Parts, caller: Caller, command_id: UUID) -> CommandShown:
    found = await relay_list.commands(parts.database, caller.organisations, command_id=command_id)
    if not found:
        raise Problem(HTTPStatus.NOT_FOUND, "command-unknown", f"there is no command {command_id} 无此命令")
    return _shown(found[0])


def _shown(row: Row) -> CommandShown:
    why = None if row["why"] is None else Why(row["why"])
    return CommandShown(**{**row, "why": why, "why_text": words_of(why)})


def words_of(why: Why | None) -> str | None:
    return None if why is None else " ".join(WHY_TEXT[why])


def key_of(key: str | None) -> str:
    """Problem 400 without one; what it may look like is decided where it is kept."""
    if key is None or not key.strip():
        raise Problem(
            HTTPStatus.BAD_REQUEST,
            "key-needed",
            "control needs an Idempotency-Key 缺少幂等键: a new one for each new wish, the same for a repeat",
        )
    return key


def trace_of(traceparent: str | None) -> str:
    """The trace context as it came; "" where it is none (it is a caller's, and no reason to refuse)."""
    return traceparent if traceparent is not None and _TRACEPARENT.fullmatch(traceparent) else ""


def _cursor(row: Row) -> str:
    return base64.urlsafe_b64encode(f"{row['created_at'].isoformat()} {row['id']}".encode()).decode()


def _before(cursor: str) -> Before:
    """Problem 422 for a cursor that was not given out here."""
    try:
        at, _, command_id = base64.b64decode(cursor, b"-_", validate=True).decode("ascii").partition(" ")
        moment = datetime.fromisoformat(at)
        if moment.tzinfo is None:
            raise ValueError("no zone")
        return Before(moment, UUID(command_id))
    except (binascii.Error, ValueError) as error:
        raise Problem(
            HTTPStatus.UNPROCESSABLE_ENTITY, "bad-cursor", "the cursor was not given out here 游标无效"
        ) from error


def without_nul(text: str) -> str:
    """What PostgreSQL's text can hold, for a look-up: a name with NUL is nobody's either way."""
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}")
