"""Routes of what is switched for all or for a part: brake, weather halts, limits, shadow mode, hold.

What makes trips fewer may be done with any scope that may do more than read; what lets more of them through
wants an administrator, and where two persons are wanted a second one who approves. A token of one
organisation switches that one (a halt of it stops its trips as the brake stops all).
"""

from __future__ import annotations

from datetime import datetime, timedelta
from http import HTTPStatus
from typing import Annotated, Any, Final, Self

from fastapi import APIRouter, Security
from pydantic import BaseModel, ConfigDict, Field, model_validator

from gateway.api.auth import Administrator, Approver, Caller, Reader, caller, needs_all
from gateway.api.parts import Parts, Wanted
from gateway.api.problems import Problem
from gateway.api.relay_commands import Text, without_nul
from gateway.command import Limits
from gateway.control.switches import of_area, of_organisation
from gateway.storage import relay_list
from gateway.storage.clients import Scope
from gateway.storage.switches import ControlSettings, Setting, Switch

PREFIX: Final = "/api/v1/switches"

reading = APIRouter(prefix=PREFIX, tags=["switches"])
"""changes nothing"""
acting = APIRouter(prefix=PREFIX, tags=["switches"])
"""stops trips, or lets them through again"""

Careful = Annotated[Caller, Security(caller, scopes=[Scope.CONTROL, Scope.APPROVE, Scope.ADMIN])]
"""One of these: what stops trips must not wait for the right person."""


class Turn(BaseModel):
    """`on` stops trips (brake), or keeps control frames from being sent (shadow)."""

    model_config = ConfigDict(extra="forbid")
    on: bool
    reason: str = Field(min_length=1, max_length=200)


class TurnPart(Turn):
    """For an area 台区 or an organisation; neither: for all."""

    area: str | None = Field(default=None, max_length=200)
    organisation: str | None = Field(default=None, max_length=200)

    @model_validator(mode="after")
    def _one_scope(self) -> Self:
        if self.area is not None and self.organisation is not None:
            raise ValueError("area or organisation, not both")
        return self


class TurnOrganisation(Turn):
    """Of an organisation; none: of the meters that belong to none."""

    organisation: str | None = Field(default=None, max_length=200)


class LimitsRequest(BaseModel):
    """Trips that may leave within a sliding window."""

    model_config = ConfigDict(extra="forbid")
    area: int = Field(ge=0, le=1_000_000)
    requester: int = Field(ge=0, le=1_000_000)
    all: int = Field(ge=0, le=1_000_000)
    window_seconds: int = Field(default=3600, ge=60, le=86_400)
    reason: str = Field(min_length=1, max_length=200)


class WithReason(BaseModel):
    model_config = ConfigDict(extra="forbid")
    reason: str = Field(min_length=1, max_length=200)


class SwitchShown(BaseModel):
    """`in_force` false: it waits for a second person, who approves it by its `id`."""

    id: int
    name: Switch
    area: str | None
    organisation: str | None
    value: Any
    reason: Text
    set_by: str
    set_at: datetime
    approved_by: str | None
    approved_at: datetime | None
    in_force: bool


class SwitchList(BaseModel):
    switches: list[SwitchShown]


@reading.get("")
async def list_switches(parts: Wanted, caller: Reader) -> SwitchList:
    """What holds, and what waits for a second person; what was never touched is not listed."""
    found = list(await parts.control().switches.newest())
    names = await _names(parts, caller, found)
    return SwitchList(switches=[_shown(one, names) for one in found if not one.scope or one.scope in names])


@acting.post("/brake/pull")
async def pull_brake(given: WithReason, parts: Wanted, caller: Careful) -> SwitchShown:
    """Stop every trip at once, everywhere; closes go on 紧急制动. A token of one organisation halts that
    one."""
    needs_all(caller, "the brake")
    return await _done(
        parts, caller, await parts.control().switches.brake(True, caller.subject, given.reason)
    )


@acting.post("/brake/release")
async def release_brake(given: WithReason, parts: Wanted, caller: Administrator) -> SwitchShown:
    """Let trips go again. What expired meanwhile stays so."""
    needs_all(caller, "the brake")
    return await _done(
        parts, caller, await parts.control().switches.brake(False, caller.subject, given.reason)
    )


@acting.post("/weather-halt")
async def weather_halt(given: TurnPart, parts: Wanted, caller: Careful) -> SwitchShown:
    """Stop trips for the weather, for all or for a part; to let them go again is for an administrator."""
    if not given.on and Scope.ADMIN not in caller.scopes:
        raise Problem(HTTPStatus.FORBIDDEN, "scope-needed", "to end a weather halt wants the scope admin")
    scope = await _scope(parts, caller, given.area, given.organisation)
    return await _done(
        parts,
        caller,
        await parts.control().switches.halt_for_weather(given.on, scope, caller.subject, given.reason),
    )


@acting.post("/limits", status_code=HTTPStatus.ACCEPTED)
async def set_limits(given: LimitsRequest, parts: Wanted, caller: Administrator) -> SwitchShown:
    """Propose other limits. They hold once another person has approved them."""
    needs_all(caller, "a limit")
    limits = Limits(given.area, given.requester, given.all, timedelta(seconds=given.window_seconds))
    return await _done(
        parts, caller, await parts.control().switches.propose_limits(limits, caller.subject, given.reason)
    )


@acting.post("/shadow", status_code=HTTPStatus.ACCEPTED)
async def shadow(given: TurnOrganisation, parts: Wanted, caller: Administrator) -> SwitchShown:
    """Shadow mode of an organisation 影子模式: on at once; its end is proposed, and another person approves
    it."""
    found: int | None = None
    if given.organisation is not None:
        found = await relay_list.organisation(
            parts.database, caller.organisations, without_nul(given.organisation)
        )
        if found is None:
            raise _unknown("organisation", given.organisation)
    else:
        needs_all(caller, "what belongs to no organisation")
    return await _done(
        parts, caller, await parts.control().switches.shadow(given.on, found, caller.subject, given.reason)
    )


@acting.post("/hold/release")
async def release_hold(given: WithReason, parts: Wanted, caller: Administrator) -> SwitchShown:
    """After a restore or a long stop: let trips that were accepted before go again."""
    needs_all(caller, "the hold")
    return await _done(
        parts, caller, await parts.control().switches.release_hold(caller.subject, given.reason)
    )


@acting.post("/{setting_id}/approve")
async def approve_switch(setting_id: int, parts: Wanted, caller: Approver) -> SwitchShown:
    """The second person's word."""
    control = parts.control()
    kept = ControlSettings(parts.database)
    setting = await kept.setting(setting_id) if 0 < setting_id < 2**63 else None
    names = {} if setting is None else await _names(parts, caller, [setting])
    if setting is None or (setting.scope and setting.scope not in names):
        raise Problem(HTTPStatus.NOT_FOUND, "switch-unknown", f"there is no setting {setting_id} 无此设置")
    if not setting.scope:
        needs_all(caller, "this setting")
    return await _done(parts, caller, await control.switches.approve(setting_id, caller.subject))


async def _scope(parts: Parts, caller: Caller, area: str | None, organisation: str | None) -> str:
    """The scope of that area or organisation. Problem 404 where the caller may not see it."""
    if area is not None:
        found = await relay_list.area(parts.database, caller.organisations, without_nul(area))
        kind, name = "area", area
    elif organisation is not None:
        found = await relay_list.organisation(parts.database, caller.organisations, without_nul(organisation))
        kind, name = "organisation", organisation
    else:
        needs_all(caller, "a halt everywhere")
        return ""
    if found is None:
        raise _unknown(kind, name)
    return of_area(found) if kind == "area" else of_organisation(found)


def _unknown(kind: str, name: str) -> Problem:
    return Problem(HTTPStatus.NOT_FOUND, f"{kind}-unknown", f"no {kind} {name} in the assets 档案中无此单位")


async def _names(parts: Parts, caller: Caller, settings: list[Setting]) -> dict[str, str]:
    scopes = [one.scope for one in settings if one.scope]
    return await relay_list.scopes(parts.database, caller.organisations, scopes) if scopes else {}


async def _done(parts: Parts, caller: Caller, setting: Setting) -> SwitchShown:
    return _shown(setting, await _names(parts, caller, [setting]))


def _shown(one: Setting, names: dict[str, str]) -> SwitchShown:
    kind = one.scope.partition(":")[0]
    name = names.get(one.scope)
    return SwitchShown(
        id=one.id,
        name=one.name,
        area=name if kind == "area" else None,
        organisation=name if kind == "organisation" else None,
        value=one.value,
        reason=one.reason,
        set_by=one.set_by,
        set_at=one.set_at,
        approved_by=one.approved_by,
        approved_at=one.approved_at,
        in_force=one.approved_by is not None or not one.wants_second,
    )
