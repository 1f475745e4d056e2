"""Routes of control blocks: protect a customer or a meter's point from being cut off, and lift that again."""

from __future__ import annotations

from datetime import datetime
from http import HTTPStatus
from typing import Annotated, Final, Self
from uuid import UUID

from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, ConfigDict, Field, model_validator

from gateway.api.auth import Caller, Controller, Reader
from gateway.api.parts import Instant, Parts, Wanted
from gateway.api.problems import Problem
from gateway.api.relay_commands import MOST_ROWS, BigId, Text, found_meter, without_nul
from gateway.command import Action, BlockKind, State, Why
from gateway.storage import relay_list
from gateway.storage.blocks import NewBlock

PREFIX: Final = "/api/v1/control-blocks"

reading = APIRouter(prefix=PREFIX, tags=["control blocks"])
"""changes nothing"""
acting = APIRouter(prefix=PREFIX, tags=["control blocks"])
"""protects, and ends protections"""


class BlockRequest(BaseModel):
    """Exactly one of `customer` (cons_no) and `meter`; of a meter its point is protected, also with another
    meter there."""

    model_config = ConfigDict(extra="forbid")
    customer: str | None = Field(default=None, min_length=1, max_length=64)
    meter: str | None = Field(default=None, min_length=1, max_length=64)
    kind: BlockKind
    source: str = Field(min_length=1, max_length=200)
    """who knows of it, such as the system and its number there"""
    reason: Text = ""
    since: Instant
    """from when on; together with what is protected, kind, source and until it tells one block from
    another"""
    until: Instant | None = None
    """by default until it is lifted"""

    @model_validator(mode="after")
    def _one_target(self) -> Self:
        if (self.customer is None) == (self.meter is None):
            raise ValueError("exactly one of customer and meter")
        return self


class BlockShown(BaseModel):
    id: int
    kind: BlockKind
    customer: str | None
    meter: str | None
    """the one that hangs there now"""
    since: datetime
    until: datetime | None
    source: str
    reason: str
    set_by: str
    set_at: datetime
    lifted_by: str | None
    lifted_at: datetime | None


class LiftRequest(BaseModel):
    """`cause` and `notice`: for the release of the meters from keep-power, which is gated as a trip is."""

    model_config = ConfigDict(extra="forbid")
    reason: str = Field(min_length=1, max_length=200)
    cause: Text = ""
    notice: Text = ""


class Released(BaseModel):
    """The command that ends a meter's own keep-power."""

    command: UUID
    action: Action
    state: State
    why: Why | None


class Kept(BaseModel):
    """A meter that stays under keep-power."""

    meter: str
    why: str


class LiftedShown(BaseModel):
    block: BlockShown
    released: list[Released]
    kept: list[Kept]


class BlockPage(BaseModel):
    """`next`: the `after` of the following page; null: this is the last."""

    blocks: list[BlockShown]
    next: int | None


@reading.get("")
async def list_blocks(
    parts: Wanted,
    caller: Reader,
    after: BigId = 0,
    limit: Annotated[int, Query(ge=1, le=MOST_ROWS)] = 100,
    customer: Annotated[str | None, Query(max_length=64)] = None,
    lifted_too: bool = False,
) -> BlockPage:
    """Protections that are not lifted, by rising number."""
    found = await relay_list.blocks(
        parts.database,
        caller.organisations,
        parts.clock.now(),
        after=after,
        customer=None if customer is None else without_nul(customer),
        lifted_too=lifted_too,
        rows=limit,
    )
    more = found[-1]["id"] if len(found) == limit else None
    return BlockPage(blocks=[BlockShown(**row) for row in found], next=more)


@reading.get("/{block_id}")
async def get_block(block_id: int, parts: Wanted, caller: Reader) -> BlockShown:
    """One protection, lifted or not."""
    return await _block(parts, caller, block_id)


@acting.post("", status_code=HTTPStatus.CREATED)
async def add_block(
    wanted: BlockRequest, parts: Wanted, caller: Controller, response: Response
) -> BlockShown:
    """Protect. One that says the same and stands already stays the one: repeating this does no harm."""
    customer_id = point_id = None
    if wanted.customer is not None:
        name = without_nul(wanted.customer)
        found = await relay_list.customers(parts.database, caller.organisations, [name], parts.clock.now())
        if name not in found:
            raise Problem(
                HTTPStatus.NOT_FOUND, "customer-unknown", f"no customer {name} in the assets 档案中无此用户"
            )
        customer_id = found[name]
    elif wanted.meter is not None:
        point_id = (await found_meter(parts, caller, wanted.meter)).point_id
    new = NewBlock(
        kind=wanted.kind,
        since=wanted.since,
        source=wanted.source,
        customer_id=customer_id,
        point_id=point_id,
        until=wanted.until,
        reason=wanted.reason,
    )
    block = await parts.control().blocks.add(new, caller.subject)
    response.headers["Location"] = f"{PREFIX}/{block.id}"
    return await _block(parts, caller, block.id)


@acting.post("/{block_id}/lift")
async def lift_block(block_id: int, given: LiftRequest, parts: Wanted, caller: Controller) -> LiftedShown:
    """It protects no longer; the same again tells what is still to be done at its meters."""
    await _block(parts, caller, block_id)
    lifted = await parts.control().blocks.lift(
        block_id, caller.subject, given.reason, cause=given.cause, notice=given.notice
    )
    return LiftedShown(
        block=await _block(parts, caller, block_id),
        released=[
            Released(command=one.id, action=one.action, state=one.state, why=one.why)
            for one in lifted.released
        ],
        kept=[Kept(meter=meter, why=why) for meter, why in lifted.kept],
    )


async def _block(parts: Parts, caller: Caller, block_id: int) -> BlockShown:
    found = (
        await relay_list.blocks(
            parts.database, caller.organisations, parts.clock.now(), block_id=block_id, lifted_too=True
        )
        if 0 < block_id < 2**63
        else []
    )
    if not found:
        raise Problem(HTTPStatus.NOT_FOUND, "block-unknown", f"there is no block {block_id} 无此保护")
    return BlockShown(**found[0])
