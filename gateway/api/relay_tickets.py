"""Routes of relay work on direct lines: a ticket for one command, and what was done with it."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from gateway.api.auth import Controller, Reader
from gateway.api.parts import Instant, Parts, Wanted
from gateway.api.problems import Problem
from gateway.api.relay_commands import CommandShown, IdempotencyKey, key_of, visible_command
from gateway.command import Action
from gateway.control.tickets import Tickets

reading = APIRouter(prefix="/api/v1", tags=["relay commands"])
"""changes nothing"""
acting = APIRouter(prefix="/api/v1", tags=["relay commands"])
"""hands out, and takes in"""


class TicketWanted(BaseModel):
    """For which machine. `now`: what its clock shows; it may differ from the gateway's by ten seconds."""

    model_config = ConfigDict(extra="forbid")
    machine: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    now: Instant


class TicketShown(BaseModel):
    """A ticket as it is signed; keep the object as it comes. Confidential: see docs/field-tools.md."""

    format: str
    ticket: UUID
    command: UUID
    action: Action
    meter: str
    numbers: list[str]
    address: str
    profile: str
    frame: str
    salt: str
    commitment: str
    # texts, for the signature is over their spelling
    from_: Annotated[str, Field(alias="from")]
    until: str
    machine: str
    issued_to: str
    signature: str


class TicketKey(BaseModel):
    """Public half of the key (Ed25519, hex) with which this gateway signs tickets."""

    key: str


class DirectEvidence(BaseModel):
    """As `lingdian relay direct` wrote it."""

    model_config = ConfigDict(extra="forbid")
    evidence: dict[str, Any]


@reading.get("/ticket-key")
async def get_ticket_key(parts: Wanted, caller: Reader) -> TicketKey:
    """With what tickets are checked; a machine that goes to meters pins it once."""
    return TicketKey(key=_tickets(parts).key)


@acting.post("/relay-commands/{command_id}/ticket")
async def make_ticket(
    command_id: UUID, wanted: TicketWanted, parts: Wanted, caller: Controller, key: IdempotencyKey = None
) -> TicketShown:
    """A ticket to carry out this command on a direct line, for one machine; 409 with the gate that is shut.

    The command counts as sent from then on, whether or not the ticket is used. The same key gives the same
    ticket again."""
    key = key_of(key)
    await visible_command(parts, caller, command_id)
    made = await _tickets(parts).issue(
        command_id, caller.subject, key, machine=wanted.machine, machine_now=wanted.now
    )
    return TicketShown.model_validate(made)


@acting.post("/relay-commands/{command_id}/direct-evidence")
async def take_evidence(
    command_id: UUID, given: DirectEvidence, parts: Wanted, caller: Controller
) -> CommandShown:
    """What was done with a ticket; a relay read in it may prove the command. Again: nothing changes."""
    await visible_command(parts, caller, command_id)
    await _tickets(parts).take(command_id, given.evidence, caller.subject)
    return await visible_command(parts, caller, command_id)


def _tickets(parts: Parts) -> Tickets:
    tickets = parts.control().tickets
    if tickets is None:
        raise Problem(
            HTTPStatus.SERVICE_UNAVAILABLE, "no-tickets", "this gateway makes no tickets 本网关不开操作票"
        )
    return tickets
