"""Any bytes to what a person may read: the frames in them, told as JSON-ready dicts, of both families.

At each 68H a 376.1 frame is tried first, then a 645 frame; what is neither is counted. A 645 frame that a
376.1 frame forwards stands under `inner`. For viewing only: whoever files values takes them from the
protocol packages.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass
from datetime import date, datetime
from typing import Any

from protocols.dlt645 import description
from protocols.dlt645 import frame as dlt645
from protocols.q_gdw376 import frame as q_gdw376
from protocols.q_gdw376 import items as classes
from protocols.q_gdw376 import messages
from protocols.q_gdw376.messages import (
    Clock,
    Forward,
    Forwarded,
    FrozenEnergy,
    PresentEnergy,
    Registers,
    Unit,
    UnitConfirm,
)

NOTHING = "nothing to decode"
ONLY_LEAD_IN = "only FEH lead-in"
NO_START = "no 68H"
CUT_SHORT = "cut short"

# Keys of a forwarded frame that are also told beside the frame that carries it.
_INNER = ("address", "control", "length", "di", "value", "unit", "relay_cmd")

Fields = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Seen:
    """What was found. frames: from left to right; discarded: bytes outside of them, FEH not counted.

    error: why there is no frame; None where there is one.
    """

    frames: list[Fields]
    discarded: int
    error: str | None


def look(data: bytes) -> Seen:
    """Every frame in `data`, none inside another. Never raises, whatever the bytes are."""
    found: list[Fields] = []
    discarded = 0
    reason = ""
    at = 0
    while (start := data.find(q_gdw376.START, at)) >= 0:
        discarded += _junk(data, at, start)
        at = start
        told = _frame_at(data, start)
        if isinstance(told, str):
            reason = reason or told
            discarded += 1
            at += 1
        else:
            length, frame = told
            found.append(frame)
            at += length
    discarded += _junk(data, at, len(data))
    if found:
        return Seen(found, discarded, None)
    if not data:
        return Seen([], 0, NOTHING)
    return Seen([], discarded, reason or (NO_START if discarded else ONLY_LEAD_IN))


def _junk(data: bytes, start: int, end: int) -> int:
    return end - start - data.count(b"\xfe", start, end)


def _frame_at(data: bytes, start: int) -> tuple[int, Fields] | str:
    """Length and fields of the frame at `start`, or why there is none."""
    terminal = q_gdw376.examine(data, start)
    if isinstance(terminal, int):
        raw = data[start : start + terminal]
        return terminal, _terminal_frame(q_gdw376.content(raw), start, terminal)
    meter = dlt645.examine(data, start)
    if isinstance(meter, int):
        raw = data[start : start + meter]
        return meter, _meter_frame(dlt645.content(raw), start)
    # The family whose second 68H is there is the one whose fault is worth telling.
    verdict = meter if data[start + 7 : start + 8] == b"\x68" else terminal
    return verdict or CUT_SHORT


def _meter_frame(frame: dlt645.Frame, start: int) -> Fields:
    told = description.describe(frame)
    return {"protocol": told.pop("protocol"), "start": start, **told}


def _terminal_frame(frame: q_gdw376.Frame, start: int, length: int) -> Fields:
    content = messages.read(frame)
    control = frame.up << 7 | frame.prm << 6 | frame.acd << 5 | frame.fcv << 4 | frame.function
    told: Fields = {
        "protocol": "qgdw376.1",
        "start": start,
        "terminal": frame.terminal,
        "flag": frame.protocol_id,
        "len": length - q_gdw376.OVERHEAD,
        "c": f"{control:02x}",
        "dir": int(frame.up),
        "prm": int(frame.prm),
        "acd_fcb": int(frame.acd),
        "fcv": int(frame.fcv),
        "fc": frame.function,
        "msa": frame.msa,
        "group": int(frame.group),
        "afn": f"{frame.afn:02x}",
        "tpv": int(frame.tpv),
        "fir": int(frame.fir),
        "fin": int(frame.fin),
        "con": int(frame.con),
        "pseq": frame.pseq,
        # An identifier without a bit names no point or class; [] tells it from p0.
        "pn": [],
        "fn": [],
    }
    if content.units:
        first = content.units[0]
        told["pn"] = first.pn
        told["fn"] = first.fn or []
        told |= _highlights(frame, first)
    if content.password:
        told["password"] = content.password.hex()
    if frame.ec is not None:
        told["ec"] = bytes(frame.ec).hex()
    if frame.tp is not None:
        told["tp"] = frame.tp.hex()
    told["units"] = [_unit(frame, unit) for unit in content.units]
    return told


def _unit(frame: q_gdw376.Frame, unit: Unit) -> Fields:
    told: Fields = {"pn": unit.pn, "fn": unit.fn or []}
    item = classes.lookup(frame.afn, unit.fn, frame.up)
    if item is not None:
        told |= {"name": item.name_en, "name_zh": item.name_zh}
    told["values"] = [
        {"name": name, "value": value, "unit": measured}
        for name, value, measured in _values(unit.value, _reactive(frame, unit))
    ]
    told["bytes"] = unit.raw.hex()
    if unit.reason is not None:
        told["reason"] = unit.reason
    if isinstance(unit.value, Forward | Forwarded):
        told["inner"] = _inner(unit.value.content)
    return told


def _highlights(frame: q_gdw376.Frame, unit: Unit) -> Fields:
    """What the first unit says, under short keys beside the envelope."""
    match unit.value:
        case Clock(at, weekday):
            return {"clock": None if at is None else str(at), "weekday": weekday}
        case PresentEnergy(read_at, registers) | FrozenEnergy(_, read_at, registers):
            key = "kvarh" if _reactive(frame, unit) else "kwh"
            energies = [_energy(register) for register in registers]
            return {"read_time": _minute(read_at), "tariffs": max(0, len(registers) - 1), key: energies}
        case Forward(port=port, content=content) | Forwarded(port=port, content=content):
            return {"port": port, "inner_len": len(content), **_inner_highlights(_inner(content))}
    return {}


def _inner(content: bytes) -> Fields | None:
    """The first good 645 frame in forwarded bytes; `start` counts from their beginning."""
    at = content.find(dlt645.START)
    while at >= 0:
        length = dlt645.examine(content, at)
        if isinstance(length, int):
            return _meter_frame(dlt645.content(content[at : at + length]), at)
        at = content.find(dlt645.START, at + 1)
    return None


def _inner_highlights(inner: Fields | None) -> Fields:
    told: Fields = {"inner": inner, "inner_valid": int(inner is not None)}
    if inner is not None:
        told |= {f"inner_{key}": inner[key] for key in _INNER if key in inner}
        if "relay" in inner:
            told["relay"] = inner["relay"]
    return told


# -- values of the 376.1 units, told one by one ---------------------------------------------------

_REGISTERS = {
    "registers": "",
    "active": "kWh",
    "reactive": "kvarh",
    "quadrant_a": "kvarh",
    "quadrant_b": "kvarh",
    "phases": "kWh",
}
_PHASES = ("phase A", "phase B", "phase C")

_Told = tuple[str, str | None, str]


def _values(value: object, reactive: bool) -> Iterator[_Told]:
    """(name, text, unit) of everything that a unit's value holds; texts are decimal strings where numbers."""
    if isinstance(value, UnitConfirm):
        yield "afn", f"{value.afn:02x}", ""
        for pn, fn, error in value.results:
            yield f"p{pn} F{fn} error", str(error), ""
        return
    if value is None:
        return
    for field in fields(value):  # type: ignore[arg-type]  # every value of a unit is a dataclass
        said = getattr(value, field.name)
        if field.name in _REGISTERS and isinstance(said, tuple):
            measured = _REGISTERS[field.name] or ("kvarh" if reactive else "kWh")
            yield from _registers(field.name, said, measured)
        else:
            yield from _flat(field.name, said)


def _registers(name: str, registers: Registers, measured: str) -> Iterator[_Told]:
    for place, register in enumerate(registers):
        which = f"tariff {place}" if place else "total"
        if name == "phases":
            which = _PHASES[place]
        elif name != "registers":
            which = f"{name} {which}"
        yield which, _energy(register), measured


def _flat(name: str, said: object) -> Iterator[_Told]:
    if isinstance(said, tuple):
        for place, part in enumerate(said, 1):
            yield from _flat(f"{name} {place}", part)
    elif is_dataclass(said):
        for field in fields(said):
            yield from _flat(f"{name} {field.name}", getattr(said, field.name))
    else:
        yield name, _text(said), ""


def _text(said: object) -> str | None:
    match said:
        case None:
            return None
        case bytes():
            return said.hex()
        case datetime():
            return str(said)
        case date():
            return said.isoformat()
    return str(said)


def _reactive(frame: q_gdw376.Frame, unit: Unit) -> bool:
    item = classes.lookup(frame.afn, unit.fn, frame.up)
    return item is not None and "reactive" in item.name_en


def _energy(register: int | None) -> str | None:
    """Units of 0.0001 as a decimal string."""
    if register is None:
        return None
    whole, rest = divmod(abs(register), 10_000)
    return f"{'-' if register < 0 else ''}{whole}.{rest:04d}"


def _minute(at: datetime | None) -> str | None:
    return None if at is None else at.strftime("%Y-%m-%d %H:%M")
