"""Routes of meters: read one now."""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import Any, Final

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from gateway.api.auth import Caller, Reader
from gateway.api.parts import Parts, Wanted
from gateway.api.problems import Problem
from gateway.model import Kind, Point, Quality, Quantity, ReadingRow, Source
from gateway.session.meter import MeterItem, read_item
from gateway.session.terminal import PresentReading, TerminalSession
from gateway.storage import relay_list

acting = APIRouter(prefix="/api/v1/meters", tags=["meters"])

ITEMS_AT_ONCE: Final = 32
"""One call holds a terminal's channel for up to a minute an item."""

PRESENT: Final = Quantity.FORWARD_ACTIVE.label
"""the item that the terminal itself answers, from its newest reading of the meter (0C F129)"""

_DATA_IDENTIFIER: Final = re.compile(r"(?:[0-9a-f]{4}){1,2}")


class ReadRequest(BaseModel):
    model_config = ConfigDict(extra="forbid")
    items: list[str] = Field(min_length=1, max_length=ITEMS_AT_ONCE)
    """`forward_active`, or data identifiers of DL/T 645 as hex, high byte first: `00010000`"""


@acting.post("/{address}/read")
async def read_meter(address: str, wanted: ReadRequest, parts: Wanted, caller: Reader) -> dict[str, Any]:
    """Read items of one meter through its terminal, one after another; an item that failed says why."""
    items = [item.lower() for item in wanted.items]
    for item in items:
        if item != PRESENT and not _DATA_IDENTIFIER.fullmatch(item):
            raise Problem(
                HTTPStatus.UNPROCESSABLE_ENTITY,
                "item-unknown",
                f"{item!r} is neither {PRESENT} nor a data identifier of 4 or 8 hex digits 数据项无效",
            )
    session, point = await _place(parts, caller, address)
    await session.ready()
    return {
        "meter": point.meter,
        "address": point.address,
        "terminal": session.address,
        "pn": point.pn,
        "items": [
            await _present(parts, session, point)
            if item == PRESENT
            else await _from_meter(session, point, item)
            for item in items
        ],
    }


async def _place(parts: Parts, caller: Caller, address: str) -> tuple[TerminalSession, Point]:
    """The connected terminal and point of the meter with that communication address or asset number."""
    now = parts.clock.now()
    places = [
        (session, point)
        for session in parts.registry.sessions()
        for point in session.assets.points
        if address in (point.address, point.meter) and point.holds_at(now)
    ]
    if places and not caller.sees_all():
        found = await relay_list.meters(parts.database, caller.organisations, [address], now)
        own = {meter.meter_id for meter in found.get(address, ())}
        places = [(session, point) for session, point in places if point.meter_id in own]
    if not places:
        raise Problem(
            HTTPStatus.NOT_FOUND,
            "meter-not-reachable",
            f"no connected terminal has a meter {address} 在线终端下无此电能表; see `lingdian terminal list`",
        )
    if len(places) > 1:
        where = ", ".join(f"{session.address} p{point.pn}" for session, point in places)
        raise Problem(
            HTTPStatus.CONFLICT,
            "meter-ambiguous",
            f"{address} is installed more than once 地址不唯一: {where}",
        )
    return places[0]


async def _present(parts: Parts, session: TerminalSession, point: Point) -> dict[str, Any]:
    """The terminal's newest forward active register; filed as a live reading where it is dated."""
    readings = [reading for reading in await session.read_present([point.pn]) if reading.pn == point.pn]
    if not readings:
        return _no_value(PRESENT, "no_value_yet", "the terminal has no value for this point 终端无数据")
    reading = readings[0]
    if row := _live_row(parts, session, point, reading):
        await parts.writer.file([row])
    names = ["total", *(f"t{number}" for number in range(1, len(reading.registers)))]
    return {
        "item": PRESENT,
        "values": [
            {"name": name, "value": None if register is None else _kilowatt_hours(register), "unit": "kWh"}
            for name, register in zip(names, reading.registers, strict=True)
        ],
        "read_at": reading.read_at.isoformat() if reading.read_at is not None else None,
        "reason": None,
        "detail": "",
    }


def _kilowatt_hours(register: int) -> str:
    """0.0001 kWh as a decimal string."""
    return f"{register // 10_000}.{register % 10_000:04d}"


def _live_row(
    parts: Parts, session: TerminalSession, point: Point, reading: PresentReading
) -> ReadingRow | None:
    """The row of a live reading; None where it is not dated, empty, or not surely of this meter."""
    if reading.read_at is None or reading.meter_id != point.meter_id or reading.registers[0] is None:
        return None
    tariffs = [*reading.registers[1:5], None, None, None, None][:4]
    return (
        point.meter_id,
        Quantity.FORWARD_ACTIVE,
        Kind.LIVE,
        reading.read_at,
        reading.registers[0],
        tariffs[0],
        tariffs[1],
        tariffs[2],
        tariffs[3],
        list(reading.registers[5:]) or None,
        reading.read_at,
        parts.clock.now(),
        Source.TERMINAL,
        Quality.CONTESTED if session.contested else Quality.GOOD,
    )


async def _from_meter(session: TerminalSession, point: Point, item: str) -> dict[str, Any]:
    answer = await read_item(session, point.address, item, point.port)
    if not isinstance(answer, MeterItem):
        return _no_value(item, str(answer.reason), answer.detail)
    return {
        "item": item,
        "values": [
            {"name": name, "name_zh": name_zh, "value": value, "unit": unit, "raw": raw}
            for name, name_zh, value, unit, raw in answer.values
        ],
        "raw": answer.raw.hex(),
        "read_at": None,
        "reason": None,
        "detail": "",
    }


def _no_value(item: str, reason: str, detail: str) -> dict[str, Any]:
    return {"item": item, "values": [], "read_at": None, "reason": reason, "detail": detail}
