"""Items of one meter by DI or name, in the words in which the gateway tells them over HTTP."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final

from gateway.errors import InputError
from gateway.field.line import MeterLine
from gateway.field.reading import Item, NoItem, edition_of, read_item
from gateway.model import Reason
from protocols.dlt645.fields import EDITION_1997, EDITION_2007, edition_of_di
from protocols.dlt645.frame import BROADCAST
from protocols.errors import LocalProtocolError
from protocols.lens.naming import di_of

_ADDRESS: Final = re.compile(r"[0-9A]{12}")
_DI: Final = re.compile(r"(?:[0-9a-f]{4}){1,2}")


@dataclass(frozen=True, slots=True)
class Wish:
    """An item as it was asked for, and its DI by edition."""

    word: str
    dis: dict[str, str]


def address_of(text: str) -> str:
    """A meter's address; A stands for any digit. InputError for anything else, all meters included."""
    address = text.upper()
    if not _ADDRESS.fullmatch(address) or address == BROADCAST:
        raise InputError(
            f"{text!r} is no meter's address of 12 digits 表地址无效 (A: any digit, in the high ones)"
        )
    return address


def wish(word: str) -> Wish:
    """What `word` names: a DI of 8 (2007) or 4 (1997) hex digits, or a name as `lingdian decode` shows it.

    InputError where it names nothing that could be read."""
    if _DI.fullmatch(word.lower()):
        return Wish(word, {edition_of_di(word): word.lower()})
    dis, faults = {}, []
    for edition in (EDITION_2007, EDITION_1997):
        try:
            dis[edition] = di_of(word, edition)
        except LocalProtocolError as error:
            faults.append(str(error))
    if not dis:
        raise InputError(f"{'; '.join(faults)} 数据项无效: only reads by DI or name are sent")
    return Wish(word, dis)


async def read_direct(line: MeterLine, address: str, wishes: list[Wish]) -> dict[str, Any]:
    """Each item, one after another; the one that failed says why. As `POST …/meters/{address}/read` answers,
    without a terminal. LinkClosed."""
    edition = None
    if any(len(wanted.dis) > 1 for wanted in wishes):
        found = await edition_of(line, address)
        edition = found.edition if found else None
    told = [(wanted, await _read(line, address, wanted, edition)) for wanted in wishes]
    meters = [item.meter for _, item in told if isinstance(item, Item)]
    meter = meters[0] if meters else address
    return {
        "meter": meter,
        "address": meter,
        "terminal": None,
        "pn": None,
        "items": [_words(wanted.word, item) for wanted, item in told],
    }


async def _read(line: MeterLine, address: str, wanted: Wish, edition: str | None) -> Item | NoItem:
    if len(wanted.dis) > 1 and edition is None:
        return NoItem(Reason.METER_SILENT, f"{address} answers in neither edition")
    (di, *others) = wanted.dis.values()
    if others:
        assert edition is not None
        di = wanted.dis[edition]
    return await read_item(line, address, di)


def _words(word: str, told: Item | NoItem) -> dict[str, Any]:
    if isinstance(told, NoItem):
        return {
            "item": word,
            "values": [],
            "read_at": None,
            "reason": str(told.reason),
            "detail": told.detail,
        }
    return {
        "item": word,
        "values": [
            {
                "name": value.name_en,
                "name_zh": value.name_zh,
                "value": value.value,
                "unit": value.unit,
                "raw": value.raw.hex(),
            }
            for value in told.values
        ],
        "raw": told.raw.hex(),
        "read_at": None,
        "reason": None,
        "detail": "",
    }
