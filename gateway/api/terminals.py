"""Routes of terminals: who is there, their clocks, their archives."""

from __future__ import annotations

from dataclasses import asdict
from datetime import timedelta
from http import HTTPStatus
from typing import Any, Literal

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict

from gateway.api.archive import Difference, compare, mending
from gateway.api.auth import Administrator, Reader, needs_all, own_terminals
from gateway.api.parts import Parts, Wanted, note
from gateway.api.problems import Problem
from gateway.clock import to_device
from gateway.session.terminal import ClockCheck, TerminalSession
from gateway.storage import assets, relay_list

reading = APIRouter(prefix="/api/v1/terminals", tags=["terminals"])
"""changes nothing"""
acting = APIRouter(prefix="/api/v1", tags=["terminals"])
"""asks terminals, or changes them"""


class ClockRequest(BaseModel):
    model_config = ConfigDict(extra="forbid")
    action: Literal["check", "set"] = "check"


class ArchiveRequest(BaseModel):
    model_config = ConfigDict(extra="forbid")
    action: Literal["diff", "push"] = "diff"
    prune: bool = False
    """delete what the assets do not have"""


async def present_session(parts: Parts, terminal: str) -> TerminalSession:
    """The terminal's live session, after it was asked about itself. Problem where it is unknown or absent."""
    address = terminal.lower()
    session = parts.registry.session(address)
    if session is not None:
        await session.ready()
        return session
    if await assets.terminal(parts.database, address) is None:
        raise Problem(
            HTTPStatus.NOT_FOUND,
            "terminal-unknown",
            f"no terminal {terminal} in the assets 档案中无此终端; `lingdian import` brings it in",
        )
    raise Problem(
        HTTPStatus.SERVICE_UNAVAILABLE,
        "terminal-absent",
        f"terminal {terminal} is not connected 终端不在线; it dials in by itself",
    )


@reading.get("")
async def list_terminals(parts: Wanted, caller: Reader) -> dict[str, Any]:
    """Every terminal of the assets, and those that dialled in without being in them (which are nobody's: a
    token of one organisation is not shown them)."""
    only = None if caller.sees_all() else await relay_list.terminals(parts.database, caller.organisations)
    known = [
        {
            "terminal": terminal.address,
            "profile": terminal.profile,
            "points": len(terminal.points),
            **_presence(parts.registry.session(terminal.address)),
        }
        async for terminal in assets.terminals(parts.database, only)
    ]
    strangers = await assets.unregistered(parts.database) if caller.sees_all() else []
    return {"terminals": known, "unregistered": [asdict(stranger) for stranger in strangers]}


@acting.post("/assets/reload")
async def reload_assets(parts: Wanted, caller: Administrator) -> dict[str, Any]:
    """Read the assets of the connected terminals again, after they were changed in the database."""
    needs_all(caller, "a reload")
    await parts.registry.reload()
    return {"reloaded": True}


@acting.post("/terminals/{terminal}/clock")
async def terminal_clock(
    terminal: str, wanted: ClockRequest, parts: Wanted, caller: Administrator
) -> dict[str, Any]:
    """Read the terminal's clock (0C F2), or set it (05 F31) and read it back."""
    await own_terminals(parts, caller, [terminal])
    session = await present_session(parts, terminal)
    if wanted.action == "set":
        await note(parts, caller, "set terminal clock", terminal=session.address)
        return _clock_answer(session, await session.set_clock())
    check = await session.read_clock()
    if check is None:
        raise Problem(
            HTTPStatus.BAD_GATEWAY,
            "terminal-silent",
            f"terminal {terminal} did not tell its clock 终端未返回时钟",
        )
    return _clock_answer(session, check)


@acting.post("/terminals/{terminal}/archive")
async def terminal_archive(
    terminal: str, wanted: ArchiveRequest, parts: Wanted, caller: Administrator
) -> dict[str, Any]:
    """Compare the terminal's meter archive with the assets; with `push` mend it, then read it back."""
    await own_terminals(parts, caller, [terminal])
    session = await present_session(parts, terminal)
    records = await session.archive_records()
    differences = compare(session.assets.points, records, parts.clock.now())
    written = 0
    if wanted.action == "push":
        writing = mending(differences, records, prune=wanted.prune)
        written = len(writing)
        if writing:
            await note(
                parts,
                caller,
                "write terminal archive",
                terminal=session.address,
                points=[difference.pn for difference in differences],
                prune=wanted.prune,
            )
            await session.write_archive(writing)
            records = await session.archive_records()
            differences = compare(session.assets.points, records, parts.clock.now())
        await session.read_archive()
    return {
        "terminal": session.address,
        "records": len(records),
        "written": written,
        "differences": [_shown(difference) for difference in differences],
    }


def _presence(session: TerminalSession | None) -> dict[str, Any]:
    return {
        "online": session is not None and session.alive,
        "contested": session is not None and session.contested,
        "clock_offset_seconds": session.clock_offset if session is not None else None,
    }


def _clock_answer(session: TerminalSession, check: ClockCheck) -> dict[str, Any]:
    return {
        "terminal": session.address,
        "clock": _wall_clock(check),
        "offset_seconds": check.offset_s,
        "read_at": check.at.isoformat(),
        "within_tolerance": check.within_tolerance,
    }


def _wall_clock(check: ClockCheck) -> str:
    """What the terminal's clock showed, to the second."""
    shown = to_device(check.at + timedelta(seconds=check.offset_s + 0.5))
    return shown.replace(microsecond=0).isoformat(sep=" ")


def _shown(difference: Difference) -> dict[str, Any]:
    point, record = difference.assets, difference.terminal
    return {
        "pn": difference.pn,
        "kind": difference.kind,
        "fields": list(difference.fields),
        "assets": None
        if point is None
        else {
            "meter": point.meter,
            "address": point.address,
            "port": point.port,
            "protocol": point.protocol,
            "tariffs": point.tariffs,
        },
        "terminal": None
        if record is None
        else {
            "sequence": record.sequence,
            "address": record.address,
            "port": record.port,
            "protocol": record.protocol,
            "tariffs": record.tariffs,
        },
    }
